"""Choosing and placing: mode, kthvalue, masked_scatter, put, index_reduce, combinations; finite differences."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphtorch.autograd.rules import sum_to
from graphtorch.autograd.state import state
from graphtorch.ops.build import FUNCTIONS, function, method, operator
from graphtorch.ops.pointwise import broadcast_shapes, not_implemented, scalar_type
from graphtorch.ops.record import sample
from graphtorch.ops.reduction import select_along, take_along
from graphtorch.ops.shapes import reduced_shape, wrap_dim
from graphtorch.ops.strides import product
from graphtorch.tensor import dtypes
from graphtorch.tensor.creation import as_tensor
from graphtorch.tensor.formats import contiguous_format, preserve_format
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType, type_of

# -- one element of each row ------------------------------------------------------------------------------------------


def _pair(name: str, input: Any, dim: int, keepdim: bool) -> tuple[TensorType, TensorType]:
    if input.dtype.is_complex:
        raise not_implemented(f"{name}_cpu", input.dtype)
    dims = (dim,) if len(input.shape) else ()
    if dims and input.shape[dim] == 0:
        raise IndexError(f"{name}(): Expected reduction dim {dim} to have non-zero size.")
    values = TensorType(input.dtype, reduced_shape(input.shape, dims, keepdim), input.device)
    return values, values.with_dtype(dtypes.int64)


def _chosen(input: Any, positions: Any, dim: int, keepdim: bool) -> tuple[Any, Any]:
    positions = np.ascontiguousarray(np.expand_dims(positions, dim))
    return take_along(input, positions, dim, keepdim), positions if keepdim else np.squeeze(positions, dim)


def _mode_numpy(input: Any, dim: int, keepdim: bool) -> Any:
    if input.ndim == 0:
        return input.copy(), np.zeros((), np.int64)
    rows = np.moveaxis(input, dim, -1)
    order = np.argsort(rows, axis=-1, kind="stable")
    ordered = np.take_along_axis(rows, order, -1)
    n = rows.shape[-1]
    # How long each run of equal values has been, at each place of it: the first longest one wins.
    starts = np.ones(ordered.shape, np.bool_)
    starts[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    steps = np.arange(n)
    length = steps - np.maximum.accumulate(np.where(starts, steps, 0), axis=-1)
    last = np.argmax(length, axis=-1)
    return _chosen(input, np.take_along_axis(order, last[..., None], -1)[..., 0], dim, keepdim)


def _select_formula(g_values: Any, indices: Any, input_type: Any, dim: int, keepdim: bool) -> Any:
    return select_along(g_values, indices, input_type, dim, keepdim)


mode: Callable[..., Any] = operator(
    "mode(Tensor input, int dim=-1, bool keepdim=False) -> (values, indices)",
    type=lambda input, dim, keepdim: _pair("mode", input, dim, keepdim),
    numpy=_mode_numpy,
    derivative={"input": _select_formula},
    normalize=lambda input, dim, keepdim: (input, wrap_dim(dim, len(input.shape)), keepdim),
    samples=lambda make: [sample(make.distinct(3, 4)), sample(make.distinct(2, 3, 4), 1, True)],
    categories="if",
    doc="The most frequent value of each row, the smallest of several, and where it was last seen.",
)


def _kth_type(input: Any, k: int, dim: int, keepdim: bool) -> tuple[TensorType, TensorType]:
    size = input.shape[dim] if len(input.shape) else 1
    if type(size) is int and size == 0:
        raise IndexError(f"kthvalue(): Expected reduction dim {dim} to have non-zero size.")
    if k < 1 or k > size:
        raise RuntimeError(f"kthvalue(): selected number k out of range for dimension {dim}")
    return _pair("kthvalue", input, dim, keepdim)


def _kth_numpy(input: Any, k: int, dim: int, keepdim: bool) -> Any:
    if input.ndim == 0:
        return input.copy(), np.zeros((), np.int64)
    order = np.argsort(np.moveaxis(input, dim, -1), axis=-1, kind="stable")
    return _chosen(input, order[..., k - 1], dim, keepdim)


kthvalue: Callable[..., Any] = operator(
    "kthvalue(Tensor input, int k, int dim=-1, bool keepdim=False) -> (values, indices)",
    type=_kth_type,
    numpy=_kth_numpy,
    derivative={"input": _select_formula},
    normalize=lambda input, k, dim, keepdim: (input, k, wrap_dim(dim, len(input.shape)), keepdim),
    samples=lambda make: [sample(make.distinct(3, 4), 2), sample(make.distinct(2, 3, 4), 3, 1, True)],
    categories="f",  # samples of integers have ties, whose positions are any
    doc="The k-th smallest value of each row, and where it is.",
)

# -- masked_scatter ---------------------------------------------------------------------------------------------------


def _masked_type(input: Any, mask: Any, source: Any) -> TensorType:
    if input.dtype is not source.dtype:
        raise RuntimeError(
            f"masked_scatter: expected self and source to have same dtypes but got {scalar_type(input.dtype)} and "
            f"{scalar_type(source.dtype)}"
        )
    if mask.dtype is not dtypes.bool_:
        raise RuntimeError(f"masked_scatter_ only supports boolean masks, but got mask with dtype {mask.dtype}")
    return type_of(input).with_shape(broadcast_shapes(input.shape, mask.shape))


def _masked_numpy(input: Any, mask: Any, source: Any) -> Any:
    shape = np.broadcast_shapes(input.shape, mask.shape)
    result = np.broadcast_to(input, shape).copy()
    where = np.broadcast_to(mask, shape)
    count = int(np.count_nonzero(where))
    if count > source.size:
        raise RuntimeError("Number of elements of source < number of ones in mask")
    result[where] = source.reshape(-1)[:count]
    return result


masked_scatter: Callable[..., Tensor] = operator(
    "masked_scatter(Tensor input, Tensor mask, Tensor source)",
    type=_masked_type,
    numpy=_masked_numpy,
    derivative={
        "input": lambda g, mask: FUNCTIONS["where"](mask, 0.0, g),
        "source": lambda g, mask, source_type: masked_scatter_backward(g, mask, source_type.shape),
    },
    samples=lambda make: [
        sample(make(3, 4), make.bools(3, 4), make(12)),
        sample(make(4), make.bools(3, 1), make(3, 5)),
    ],
    categories="bifc",
    inplace=True,
    doc="The elements of `source`, in order, at the places where `mask` is true.",
)


def _masked_back_numpy(input: Any, mask: Any, sizes: Any) -> Any:
    result = np.zeros(sizes, input.dtype)
    chosen = input[np.broadcast_to(mask, input.shape)]
    result.reshape(-1)[: chosen.size] = chosen
    return result


masked_scatter_backward: Callable[..., Tensor] = operator(
    "masked_scatter_backward(Tensor input, Tensor mask, int[] sizes)",
    type=lambda input, mask, sizes: type_of(input).with_shape(sizes),
    numpy=_masked_back_numpy,
    derivative={"input": lambda g, mask, input_type: masked_scatter(g.new_zeros(input_type.shape), mask, g)},
    samples=lambda make: [sample(make(3, 4), make.bools(3, 4), (12,))],
    categories="fc",
    public=False,
    method=False,
    doc="The masked elements, in order, and zeros: the cotangent of masked_scatter's source.",
)

# -- placing by position ----------------------------------------------------------------------------------------------


@function(method=True)
def put(input: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """Write (or add) `source` at positions in row-major order. See torch.Tensor.put_."""
    if index.dtype is not dtypes.int64:
        raise RuntimeError(f"put_(): Expected a long tensor for index, but got {scalar_type(index.dtype)}")
    if input.dtype is not source.dtype:
        raise RuntimeError(
            f"put_(): self and source expected to have the same dtype, but got self.dtype = "
            f"{scalar_type(input.dtype)} and source.dtype = {scalar_type(source.dtype)}"
        )
    if product(index.shape) != product(source.shape):
        raise IndexError(
            f"put_(): Expected source and index to have the same number of elements, but got source.numel() = "
            f"{product(source.shape)}, index.numel() = {product(index.shape)}"
        )
    flat = input.reshape((-1,))
    place = FUNCTIONS["index_put"]
    made: Tensor = place(flat, (index.reshape((-1,)),), source.reshape((-1,)), accumulate)
    return made.reshape(tuple(input.shape))  # type: ignore[no-any-return]


@method("put_")
def _put_inplace(self: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """The in-place form of `put`."""
    return self.copy_(put(self, index, source, accumulate))  # type: ignore[no-any-return]


@function(method=True)
def index_reduce(
    input: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """Fold slices of `source` into the slices that `index` names. See torch.index_reduce."""
    if reduce not in ("prod", "mean", "amax", "amin"):
        raise RuntimeError(f"index_reduce(): Expected reduce to be one of prod, mean, amax or amin but got {reduce}.")
    dim = wrap_dim(dim, input.ndim)
    if not input.ndim:
        whole = index_reduce(
            input.reshape((1,)), 0, index.reshape((-1,)), source.reshape((-1,)), reduce, include_self=include_self
        )
        return whole.reshape(())  # type: ignore[no-any-return]
    if index.ndim != 1 or index.shape[0] != source.shape[dim]:
        raise RuntimeError(
            f"index_reduce(): Number of indices ({product(index.shape)}) should be equal to source.size(dim): "
            f"({source.shape[dim]}), for dim: {dim}"
        )
    wide = index.reshape(tuple(index.shape[0] if d == dim else 1 for d in range(input.ndim))).expand(*source.shape)
    made: Tensor = FUNCTIONS["scatter_reduce"](input, dim, wide, source, reduce, include_self)
    return made


@method("index_reduce_")
def _index_reduce_inplace(
    self: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """The in-place form of `index_reduce`."""
    # What the backward pass reads is the operand as it was.
    before = self.clone() if state.grad_enabled and (self.requires_grad or source.requires_grad) else self
    return self.copy_(index_reduce(before, dim, index, source, reduce, include_self=include_self))  # type: ignore[no-any-return]


@function()
def unravel_index(indices: Tensor, shape: Any) -> tuple[Tensor, ...]:
    """Positions in row-major order as one tensor of coordinates a dimension. See torch.unravel_index."""
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    if indices.dtype.category != dtypes.INTEGRAL:
        raise ValueError(f"expected 'indices' to be integer dtype, but got {indices.dtype}")
    if any(size < 0 for size in sizes):
        raise ValueError(f"'shape' cannot have negative values, but got {sizes}")
    found: list[Tensor] = []
    rest = indices.to(dtypes.int64)
    for size in reversed(sizes):
        found.append(FUNCTIONS["remainder"](rest, size))
        rest = FUNCTIONS["div"](rest, size, rounding_mode="floor")
    return tuple(reversed(found))


def _static_type(input: Any, size: Any, fill_value: int) -> TensorType:
    if type(size) is int and size < 0:
        raise RuntimeError("nonzero_static: 'size' must be an non-negative integer")
    return type_of(input).with_shape((size, len(input.shape))).with_dtype(dtypes.int64)


def _static_numpy(input: Any, size: int, fill_value: int) -> Any:
    found = np.full((size, input.ndim), fill_value, np.int64)
    places = np.argwhere(input)[:size]
    found[: len(places)] = places
    return found


nonzero_static: Callable[..., Tensor] = operator(
    "nonzero_static(Tensor input, *, int size, int fill_value=-1)",
    type=_static_type,
    numpy=_static_numpy,
    samples=lambda make: [sample(make(3, 4), size=5), sample(make(4), size=6, fill_value=9)],
    categories="bif",
    doc="The coordinates of the first `size` elements that are not zero, then rows of `fill_value`.",
)


@function(method=False)
def combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """All combinations of r elements of a vector, in order. See torch.combinations."""
    if input.ndim != 1:
        raise RuntimeError(f"Expect a 1D vector, but got shape {list(input.shape)}")
    if r < 0:
        raise RuntimeError(f"Expect a non-negative number, but got {r}")
    if r == 0:
        return input.new_empty((0,))  # type: ignore[no-any-return]
    choose = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    rows = np.array(list(choose(range(len(input)), r)), np.int64).reshape(-1, r)
    flat: Tensor = FUNCTIONS["index_select"](input, 0, as_tensor(rows.reshape(-1), device=input.device))
    return flat.reshape((len(rows), r))  # type: ignore[no-any-return]


@method("sum_to_size")
def _sum_to_size(self: Tensor, *size: Any) -> Tensor:
    """The sum over dimensions that broadcasting would have made. See torch.Tensor.sum_to_size."""
    sizes = tuple(size[0]) if len(size) == 1 and not isinstance(size[0], int) else size
    offset = self.ndim - len(sizes)
    fits = offset >= 0 and all(s in (1, self.shape[offset + i]) for i, s in enumerate(sizes))
    if not fits:
        raise RuntimeError(f"size {{{list(sizes)}}} is not expandable to size {{{list(self.shape)}}}.")
    made: Tensor = sum_to(self, sizes) if sizes else self.sum()
    return made


# -- finite differences -----------------------------------------------------------------------------------------------


def _slope(y: Any, dim: int, spacing: Any, edge_order: int) -> Any:
    """The derivative along one dimension: second order inside, of `edge_order` at the ends."""
    n = y.shape[dim]
    if n < edge_order + 1:
        raise RuntimeError("torch.gradient expected each dimension size to be at least edge_order+1")

    def part(start: int, count: int) -> Any:
        return y.narrow(dim, start, count)

    if isinstance(spacing, Tensor):
        steps = (spacing[1:] - spacing[:-1]).reshape((n - 1,) + (1,) * (y.ndim - dim - 1))
        before, after = steps[:-1], steps[1:]
        first, second, last, previous = steps[:1], steps[1:2], steps[-1:], steps[-2:-1]
    else:
        before = after = first = second = last = previous = spacing
    inside = (
        part(2, n - 2) * (before / (after * (before + after)))
        + part(1, n - 2) * ((after - before) / (before * after))
        - part(0, n - 2) * (after / (before * (before + after)))
        if n > 2
        else None
    )
    if edge_order == 1:
        start, end = (part(1, 1) - part(0, 1)) / first, (part(n - 1, 1) - part(n - 2, 1)) / last
    else:
        total = first + second
        start = (
            part(0, 1) * (-(first + total) / (first * total))
            + part(1, 1) * (total / (first * second))
            - part(2, 1) * (first / (second * total))
        )
        total = last + previous
        end = (
            part(n - 3, 1) * (last / (previous * total))
            - part(n - 2, 1) * (total / (previous * last))
            + part(n - 1, 1) * ((last + total) / (last * total))
        )
    pieces = (start, end) if inside is None else (start, inside, end)
    return FUNCTIONS["cat"](pieces, dim)


@function()
def gradient(input: Tensor, *, spacing: Any = 1, dim: Any = None, edge_order: int = 1) -> tuple[Tensor, ...]:
    """The derivative along each dimension by finite differences. See torch.gradient.

    `spacing`: one step for all dimensions, or one step (or vector of coordinates) for each.
    """
    if edge_order not in (1, 2):
        raise RuntimeError("torch.gradient only supports edge_order=1 and edge_order=2.")
    spacing = 1 if spacing is None else spacing
    dims = range(input.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    wrapped = [wrap_dim(d, input.ndim) for d in dims]
    if len(set(wrapped)) != len(wrapped):
        raise RuntimeError("dim appears multiple times in the list of dims")
    spacings = list(spacing) if isinstance(spacing, list | tuple) else [spacing] * len(wrapped)
    if len(spacings) != len(wrapped):
        raise RuntimeError(
            f"torch.gradient expected spacing to be unspecified, a scalar or it's spacing and dim arguments to have "
            f"the same length, but got a spacing argument of length {len(spacings)} and a dim argument of length "
            f"{len(wrapped)}."
        )
    x = input if input.dtype.is_differentiable else input.to(dtypes.get_default_dtype())
    return tuple(_slope(x, d, s, edge_order) for d, s in zip(wrapped, spacings, strict=True))


# -- copies of views --------------------------------------------------------------------------------------------------

_VIEWS = (
    "as_strided", "detach", "diagonal", "expand", "narrow", "permute", "select", "slice", "split", "split_with_sizes",
    "squeeze", "t", "transpose", "unbind", "unfold", "unsqueeze", "view", "view_as_complex", "view_as_real",
)  # fmt: skip


def _copy_of(name: str) -> None:
    def copied(input: Tensor, *args: Any, **kwargs: Any) -> Any:
        viewed: Any = getattr(input, name)(*args, **kwargs) if hasattr(Tensor, name) else FUNCTIONS[name](input, *args)
        order = preserve_format if name == "detach" else contiguous_format
        if isinstance(viewed, Sequence) and not isinstance(viewed, Tensor):
            return tuple(v.clone(memory_format=order) for v in viewed)
        return viewed.clone(memory_format=order)

    copied.__name__ = copied.__qualname__ = f"{name}_copy"
    copied.__doc__ = f"What `{name}` views, as a tensor of its own. See torch.{name}_copy."
    function()(copied)


for _name in _VIEWS:
    _copy_of(_name)


@function()
def alias_copy(input: Tensor) -> Tensor:
    """A copy. See torch.alias_copy."""
    return input.clone()  # type: ignore[no-any-return]


for _safe in ("chunk", "split", "split_with_sizes"):
    if _safe in FUNCTIONS:
        function(method=True, name=f"unsafe_{_safe}")(FUNCTIONS[_safe])
