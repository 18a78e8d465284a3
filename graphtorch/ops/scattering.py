"""Reading and writing along one dimension by an index tensor: index_select, gather, scatter, index_add and the like."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphtorch.ops.build import FUNCTIONS, function, method, operator
from graphtorch.ops.checks import check_class
from graphtorch.ops.dispatch import call_inplace
from graphtorch.ops.indexing import add_rows
from graphtorch.ops.pointwise import broadcast_shapes, scalar_type
from graphtorch.ops.record import OPAQUE, lookup, sample
from graphtorch.ops.shapes import wrap_dim
from graphtorch.ops.shaping import reshape
from graphtorch.ops.strides import row_major
from graphtorch.ops.view import expand, unsqueeze
from graphtorch.tensor import dtypes
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType, type_of

_INDEX_DTYPES = (dtypes.int64, dtypes.int32)


def _dim_second(input: Any, dim: Any, *rest: Any) -> tuple[Any, ...]:
    """Normalisation of every record here: `dim` comes second."""
    return (input, wrap_dim(dim, len(input.shape)), *rest)


def _vector(index: Any) -> Any:
    return index.reshape(-1)


def _resolved(index: Any, dim: int, size: int, error: type[Exception], message: str) -> Any:
    """Positions in [0, size) from ones that may be negative; raises `error` for others."""
    at = index.reshape(-1).astype(np.int64, copy=False)
    if at.size and (at.min() < -size or at.max() >= size):
        bad = at[(at < -size) | (at >= size)][0]
        raise error(message.format(bad=bad, dim=dim, size=size))
    return np.where(at < 0, at + size, at) if at.size and at.min() < 0 else at


_OUTSIDE = "index {bad} is out of bounds for dimension {dim} with size {size}"


# -- a vector of positions --------------------------------------------------------------------------------------------


def _index_select_type(input: Any, dim: int, index: Any) -> TensorType:
    if len(index.shape) > 1:
        raise IndexError("index_select(): Index is supposed to be a vector")
    if index.dtype not in _INDEX_DTYPES:
        raise RuntimeError("index_select(): Expected dtype int32 or int64 for index")
    count = index.shape[0] if len(index.shape) else 1
    if not len(input.shape):
        return type_of(input)
    return type_of(input).with_shape((*input.shape[:dim], count, *input.shape[dim + 1 :]))


def _index_select_numpy(input: Any, dim: int, index: Any) -> Any:
    at = _vector(index)
    size = input.shape[dim] if input.ndim else 1
    if at.size and (at.min() < 0 or at.max() >= size):
        raise IndexError("index out of range in self")
    return input.take(at, dim) if input.ndim else input.copy()


index_select: Callable[..., Tensor] = operator(
    "index_select(Tensor input, int dim, Tensor index)",
    type=_index_select_type,
    numpy=_index_select_numpy,
    kind=OPAQUE,
    derivative={
        "input": lambda g, input_type, dim, index: index_add(g.new_zeros(input_type.shape), dim, index, g),
    },
    normalize=_dim_second,
    samples=lambda make: [
        sample(make(4, 3), 0, make.ints(5)),
        sample(make(2, 4, 3), -2, make.ints(3)),
        sample(make(2, 4), 1, make.ints()),
        sample(make(2, 4), 1, make.ints(0)),
    ],
    categories="bifc",
    out=True,
    doc="The given positions of a dimension.",
)


def _check_source(name: str, input: Any, dim: int, index: Any, source: Any) -> None:
    if len(index.shape) > 1:
        raise IndexError(f"{name}(): Index is supposed to be a vector, but got dim: {len(index.shape)}")
    if index.dtype not in _INDEX_DTYPES:
        raise RuntimeError(f"{name}(): Expected dtype int32/int64 for index but got: {index.dtype}")
    if source.dtype is not input.dtype:
        raise RuntimeError(f"{name}(): self ({input.dtype}) and source ({source.dtype}) must have the same scalar type")
    count = index.shape[0] if len(index.shape) else 1
    if not len(source.shape) and not _equal(count, 1):
        raise IndexError(f"Dimension specified as {dim} but tensor has no dimensions")
    have = source.shape[dim] if len(source.shape) else 1
    if count is not have and count != have:
        raise RuntimeError(
            f"{name}(): Number of indices ({count}) should be equal to source.size(dim): ({have}), for dim: {dim}"
        )
    own = [n for i, n in enumerate(input.shape) if i != dim]
    other = [n for i, n in enumerate(source.shape) if i != dim]
    if own != other or len(input.shape) != len(source.shape):
        raise RuntimeError(
            f"source tensor shape must match self tensor shape, excluding the specified dimension. Got self.shape = "
            f"{list(input.shape)} source.shape = {list(source.shape)}"
        )


def _index_add_type(input: Any, dim: int, index: Any, source: Any, alpha: Any) -> TensorType:
    _check_source("index_add_", input, dim, index, source)
    return type_of(input)


def _index_add_numpy(input: Any, dim: int, index: Any, source: Any, alpha: Any) -> Any:
    result = np.array(input, order="C")
    size = input.shape[dim] if input.ndim else 1
    outside = index[(index < 0) | (index >= size)]
    if not input.size and input.ndim > 1:
        return result
    if outside.size and input.ndim > 1 and dim in (0, input.ndim - 1):
        raise RuntimeError(_OUTSIDE.format(bad=outside.flat[0], dim=dim, size=size))
    if outside.size:
        raise IndexError("index out of range in self")
    at = index.reshape(-1).astype(np.int64, copy=False)
    if alpha != 1:
        source = (source * np.asarray(alpha).astype(input.dtype)).astype(input.dtype, copy=False)
    front = np.ascontiguousarray(np.moveaxis(np.atleast_1d(result), dim, 0))
    values = np.moveaxis(np.atleast_1d(source), dim, 0)
    width = front.size // max(front.shape[0], 1)
    if width:
        add_rows(front.reshape(-1, width), at, values.reshape(-1, width))
    return np.ascontiguousarray(np.moveaxis(front, 0, dim)).reshape(input.shape)


index_add: Callable[..., Tensor] = operator(
    "index_add(Tensor input, int dim, Tensor index, Tensor source, *, Number alpha=1)",
    type=_index_add_type,
    numpy=_index_add_numpy,
    kind=OPAQUE,
    derivative={
        "input": lambda g: g,
        "source": lambda g, dim, index, source_type, alpha: reshape(
            index_select(g, dim, index) * alpha, source_type.shape
        ),
    },
    normalize=_dim_second,
    samples=lambda make: [
        sample(make(4, 3), 0, make.ints(5), make(5, 3)),
        sample(make(2, 4, 3), 1, make.ints(3), make(2, 3, 3), alpha=2),
        sample(make(4), 0, make.ints(6), make(6)),
    ],
    categories="ifc",
    inplace=True,
    out=True,
    doc="Add `alpha * source` into the given positions of a dimension.",
)


def _check_copied(input: Any, dim: int, index: Any, source: Any) -> None:
    """What index_copy demands of the shapes, with PyTorch's messages."""
    if len(index.shape) > 1:
        raise IndexError(f"index_copy_(): Index should have dimension 1 or 0 (got {len(index.shape)})")
    if source.dtype is not input.dtype:
        raise RuntimeError(
            "index_copy_(): self and source expected to have the same dtype, but got (self) "
            f"{scalar_type(input.dtype)} and (source) {scalar_type(source.dtype)}"
        )
    count = index.shape[0] if len(index.shape) else 1
    if not len(source.shape) and not _equal(count, 1):
        raise IndexError(f"index_copy_(): When source is scalar, index should have one element (got {count})")
    if len(source.shape) and len(input.shape) and len(source.shape) != len(input.shape):
        raise IndexError(
            "index_copy_(): When source and destination are not scalars, their dimensionality must match. Source "
            f"dimensionality ({len(source.shape)}), destination dimensionality ({len(input.shape)})"
        )
    own = [n for i, n in enumerate(input.shape) if i != dim]
    other = [n for i, n in enumerate(source.shape) if i != dim]
    if own != other:
        raise RuntimeError(
            "index_copy_(): Source/destination tensor must have same slice shapes. Destination slice shape: "
            f"{' '.join(map(str, own))} at dimension {dim} and source slice shape: {' '.join(map(str, other))} at "
            "dimension 0."
        )
    if len(source.shape) and not _equal(count, source.shape[dim]):
        raise IndexError(
            f"index_copy_(): Number of indices ({count}) should be equal to source.size(dim) ({source.shape[dim]})"
        )


def _equal(a: Any, b: Any) -> bool:
    """Equality of sizes that asks nothing of a symbolic size about itself."""
    return a is b or bool(a == b)


def _index_copy_type(input: Any, dim: int, index: Any, source: Any) -> TensorType:
    if index.dtype is not dtypes.int64:
        raise RuntimeError(f"index_copy_(): Expected a long tensor for index, but got {scalar_type(index.dtype)}")
    _check_copied(input, dim, index, source)
    return type_of(input)


def _index_copy_numpy(input: Any, dim: int, index: Any, source: Any) -> Any:
    result = np.array(input, order="C")
    at = _resolved(index, dim, input.shape[dim] if input.ndim else 1, IndexError, "index_copy_(): " + _OUTSIDE)
    view = np.atleast_1d(result)
    view[(slice(None),) * dim + (at,)] = np.atleast_1d(source)
    return result


index_copy: Callable[..., Tensor] = operator(
    "index_copy(Tensor input, int dim, Tensor index, Tensor source)",
    type=_index_copy_type,
    numpy=_index_copy_numpy,
    kind=OPAQUE,
    derivative={
        "input": lambda g, dim, index: index_fill(g, dim, index, 0),
        "source": lambda g, dim, index, source_type: reshape(index_select(g, dim, index), source_type.shape),
    },
    normalize=_dim_second,
    samples=lambda make: [
        sample(make(4, 3), 0, _distinct(2, 0), make(2, 3)),
        sample(make(2, 4, 3), -2, _distinct(3, 1, 0), make(2, 3, 3)),
    ],
    categories="bifc",
    inplace=True,
    out=True,
    doc="Replace the given positions of a dimension by `source`.",
)


def _distinct(*values: int) -> Tensor:
    return Tensor._wrap(np.array(values, np.int64))


def _index_fill_type(input: Any, dim: int, index: Any, value: Any) -> TensorType:
    if index.dtype is not dtypes.int64:
        raise IndexError("index_fill_(): Expected dtype int64 for index.")
    if len(index.shape) > 1:
        raise RuntimeError("Index has to be a vector/scalar")
    if len(getattr(value, "shape", ())):
        raise RuntimeError(
            f"index_fill_ only supports a 0-dimensional value tensor, but got tensor with {len(value.shape)} "
            "dimension(s)."
        )
    dtypes.check_fits(value, input.dtype)
    return type_of(input)


def _index_fill_numpy(input: Any, dim: int, index: Any, value: Any) -> Any:
    result = np.array(input, order="K")
    at = _resolved(index, dim, input.shape[dim] if input.ndim else 1, IndexError, _OUTSIDE)
    view = np.atleast_1d(result)
    view[(slice(None),) * dim + (at,)] = np.asarray(value).astype(input.dtype)
    return result


index_fill: Callable[..., Tensor] = operator(
    "index_fill(Tensor input, int dim, Tensor index, Tensor|Number value)",
    order={"result": "input"},
    type=_index_fill_type,
    numpy=_index_fill_numpy,
    kind=OPAQUE,
    derivative={
        "input": lambda g, dim, index: index_fill(g, dim, index, 0),
        # All that the rest does not get: a place that is named twice counts once.
        "value": lambda g, dim, index: (g - index_fill(g, dim, index, 0)).sum(),
    },
    normalize=_dim_second,
    samples=lambda make: [
        sample(make(4, 3), 0, _distinct(2, 0), 5),
        sample(make(4, 3), -1, _distinct(2, 0), make()),
    ],
    categories="bifc",
    inplace=True,
    doc="Fill the given positions of a dimension with one value.",
)


# -- a tensor of positions --------------------------------------------------------------------------------------------


def _check_no_larger(index: Any, input: Any, dim: int, message: str) -> None:
    for i, (n, own) in enumerate(zip(index.shape, input.shape, strict=True)):
        if i != dim and n is not own and n > own:
            raise RuntimeError(message.format(i=i))


def _gather_type(input: Any, dim: int, index: Any, sparse_grad: bool) -> TensorType:
    if index.dtype not in _INDEX_DTYPES:
        raise RuntimeError("gather(): Expected dtype int32/int64 for index")
    if max(len(index.shape), 1) != max(len(input.shape), 1):
        raise RuntimeError("Index tensor must have the same number of dimensions as input tensor")
    if len(index.shape) and len(input.shape):
        _check_no_larger(
            index,
            input,
            dim,
            f"Size does not match at dimension {{i}} expected index {list(index.shape)} to be no larger than self "
            f"{list(input.shape)} apart from dimension {dim}",
        )
    return type_of(input).with_shape(index.shape)


def _along(index: Any, dim: int, size: int) -> tuple[Any, ...]:
    """The key that pairs `index` along `dim` with each element's own place along the other dimensions."""
    if index.size and (index.min() < 0 or index.max() >= size):
        bad = index[(index < 0) | (index >= size)][0]
        raise RuntimeError(f"index {bad} is out of bounds for dimension {dim} with size {size}")
    rank = index.ndim
    return tuple(
        index if i == dim else np.arange(n).reshape((n,) + (1,) * (rank - 1 - i)) for i, n in enumerate(index.shape)
    )


def _gather_numpy(input: Any, dim: int, index: Any, sparse_grad: bool) -> Any:
    wide, at = np.atleast_1d(input), np.atleast_1d(index)
    return row_major(wide[_along(at, dim, wide.shape[dim])].reshape(index.shape))


gather: Callable[..., Tensor] = operator(
    "gather(Tensor input, int dim, Tensor index, *, bool sparse_grad=False)",
    type=_gather_type,
    numpy=_gather_numpy,
    kind=OPAQUE,
    derivative={
        "input": lambda g, input_type, dim, index: scatter_add(g.new_zeros(input_type.shape), dim, index, g),
    },
    normalize=_dim_second,
    samples=lambda make: [
        sample(make(4, 3), 0, make.ints(2, 3)),
        sample(make(4, 3), -1, make.ints(4, 5, high=3)),
        sample(make(2, 4, 3), 1, make.ints(1, 6, 2)),
        sample(make(5), 0, make.ints(3)),
    ],
    categories="bifc",
    out=True,
    doc="Along `dim`, the element that `index` names at each place.",
)


def _check_scatter(name: str, input: Any, dim: int, index: Any, src: Any) -> None:
    if index.dtype not in _INDEX_DTYPES:
        raise RuntimeError(f"{name}(): Expected dtype int32/int64 for index")
    if not hasattr(src, "shape"):
        if len(index.shape) != len(input.shape) and max(len(index.shape), 1) != max(len(input.shape), 1):
            raise RuntimeError("Index tensor must have the same number of dimensions as self tensor")
        if len(index.shape) and len(input.shape):
            message = f"Expected index {list(index.shape)} to be no larger than self {list(input.shape)} apart"
            _check_no_larger(index, input, dim, f"{message} from dimension {dim}")
        dtypes.check_fits(src, input.dtype)
        return
    if src.dtype is not input.dtype:
        raise RuntimeError(f"{name}(): Expected self.dtype to be equal to src.dtype")
    if max(len(index.shape), 1) != max(len(input.shape), 1):
        raise RuntimeError("Index tensor must have the same number of dimensions as self tensor")
    if max(len(index.shape), 1) != max(len(src.shape), 1):
        rank = len(src.shape)
        fits = all(d == dim or index.shape[d] <= input.shape[d] for d in range(len(index.shape)))
        if fits and 0 < rank < len(index.shape) and all(index.shape[d] <= src.shape[d] for d in range(rank)):
            raise IndexError(
                f"Dimension out of range (expected to be in range of [{-rank}, {rank - 1}], but got {rank})"
            )
        raise RuntimeError("Index tensor must have the same number of dimensions as src tensor")
    message = (
        f"Expected index {list(index.shape)} to be no larger than self {list(input.shape)} apart from dimension {dim} "
        f"and to be no larger size than src {list(src.shape)}"
    )
    if len(index.shape) and len(input.shape):
        _check_no_larger(index, input, dim, message)
    if len(index.shape) and len(src.shape):
        _check_no_larger(index, src, -1, message)
    elif len(index.shape) and index.shape[0] > 1:
        raise RuntimeError(message)


def _scatter_type(input: Any, dim: int, index: Any, src: Any) -> TensorType:
    _check_scatter("scatter", input, dim, index, src)
    return type_of(input)


def _corner(src: Any, shape: tuple[int, ...]) -> Any:
    """The part of `src` that an index of that shape pairs with."""
    return np.atleast_1d(src)[tuple(slice(n) for n in (shape or (1,)))]


def _scatter_numpy(input: Any, dim: int, index: Any, src: Any) -> Any:
    result = np.array(input, order="C")
    wide, at = np.atleast_1d(result), np.atleast_1d(index)
    if at.size:
        values = _corner(src, at.shape) if isinstance(src, np.ndarray) else np.asarray(src).astype(input.dtype)
        wide[_along(at, dim, wide.shape[dim])] = values
    return result


scatter_record: Callable[..., Tensor] = operator(
    "scatter(Tensor input, int dim, Tensor index, Tensor|Number src)",
    overload=lambda input, dim, index, src: 0 if hasattr(src, "shape") else 1,
    type=_scatter_type,
    numpy=_scatter_numpy,
    kind=OPAQUE,
    derivative={
        "input": lambda g, dim, index: scatter_record(g, dim, index, 0),
        "src": lambda g, dim, index, src_type: _in_corner(gather(g, dim, index), src_type.shape),
    },
    normalize=_dim_second,
    samples=lambda make: [
        sample(make(4, 3), 0, Tensor._wrap(np.array([[0, 1, 2], [3, 0, 1]])), make(2, 3)),
        sample(make(3, 4), -1, Tensor._wrap(np.array([[0, 3], [2, 1]])), make(3, 2)),
        sample(make(4, 3), 0, make.ints(2, 3), 2),
    ],
    categories="bifc",
    public=False,
    method=False,
)


def _in_corner(part: Any, shape: Sequence[Any]) -> Any:
    """A cotangent of the leading part of `src` as one of all of it."""
    widths: list[Any] = []
    for n, own in zip(reversed(tuple(part.shape)), reversed(tuple(shape)), strict=True):
        widths.extend((0, 0 if own is n else own - n))
    if all(type(w) is int and w == 0 for w in widths):
        return part
    return FUNCTIONS["constant_pad_nd"](part, tuple(widths))


def _scatter_add_type(input: Any, dim: int, index: Any, src: Any) -> TensorType:
    _check_scatter("scatter_add", input, dim, index, src)
    return type_of(input)


def _scatter_add_numpy(input: Any, dim: int, index: Any, src: Any) -> Any:
    result = np.array(input, order="C")
    wide, at = np.atleast_1d(result), np.atleast_1d(index)
    if at.size:
        key = np.broadcast_arrays(*_along(at, dim, wide.shape[dim]))
        flat = np.ravel_multi_index(tuple(key), wide.shape).reshape(-1)
        add_rows(wide.reshape(-1, 1), flat, _corner(src, at.shape).reshape(-1, 1))
    return result


scatter_add: Callable[..., Tensor] = operator(
    "scatter_add(Tensor input, int dim, Tensor index, Tensor src)",
    type=_scatter_add_type,
    numpy=_scatter_add_numpy,
    kind=OPAQUE,
    derivative={
        "input": lambda g: g,
        "src": lambda g, dim, index, src_type: _in_corner(gather(g, dim, index), src_type.shape),
    },
    normalize=_dim_second,
    samples=lambda make: [
        sample(make(4, 3), 0, make.ints(2, 3), make(2, 3)),
        sample(make(4, 3), -1, make.ints(4, 5, high=3), make(4, 6)),
        sample(make(5), 0, make.ints(7), make(7)),
    ],
    categories="ifc",
    inplace=True,
    out=True,
    doc="Along `dim`, add each element of `src` to the place that `index` names.",
)


def _scatter_arguments(
    input: Tensor, dim: int, index: Tensor, src: Any, value: Any, reduce: str | None
) -> tuple[str, tuple[Any, ...]]:
    """The record and its arguments for what `scatter` was asked."""
    if not isinstance(index, Tensor):
        raise TypeError(f"scatter(): argument 'index' (position 2) must be Tensor, not {type(index).__name__}")
    given = src if value is None else value
    if given is None:
        raise TypeError('scatter() missing 1 required positional arguments: "src"')
    if reduce is None:
        return "scatter", (dim, index, given)
    if reduce not in ("add", "multiply"):
        raise RuntimeError("reduce argument must be either add or multiply.")
    if not isinstance(given, Tensor):
        number = int(given) if input.dtype.category < dtypes.FLOATING else given
        given = FUNCTIONS["full"](tuple(index.shape), number, dtype=input.dtype, device=input.device)
    return "scatter_reduce", (dim, index, given, "sum" if reduce == "add" else "prod", True)


@function(method=True)
def scatter(
    input: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None, reduce: str | None = None
) -> Tensor:
    """Along `dim`, write each element of `src` (or `value`) to the place that `index` names. See torch.scatter."""
    name, arguments = _scatter_arguments(input, dim, index, src, value, reduce)
    made: Tensor = lookup(name).function(input, *arguments)  # type: ignore[misc]
    return made


@method("scatter_")
def _scatter_inplace(
    self: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None, reduce: str | None = None
) -> Tensor:
    """The in-place form of `scatter`."""
    name, arguments = _scatter_arguments(self, dim, index, src, value, reduce)
    return call_inplace(lookup(name), (self, *arguments))


# -- scatter_reduce ---------------------------------------------------------------------------------------------------

_REDUCTIONS = ("sum", "prod", "mean", "amax", "amin")


def _scatter_reduce_type(input: Any, dim: int, index: Any, src: Any, reduce: str, include_self: bool) -> TensorType:
    if reduce not in _REDUCTIONS:
        raise RuntimeError(f"reduce argument must be either sum, prod, mean, amax or amin, got {reduce}")
    _check_scatter("scatter_reduce", input, dim, index, src)
    return type_of(input)


def _identity(reduce: str, d: Any) -> Any:
    if reduce in ("sum", "mean"):
        return 0
    if reduce == "prod":
        return 1
    own = dtypes.from_numpy_dtype(d)
    if own.is_floating_point:
        return -np.inf if reduce == "amax" else np.inf
    info = (0, 1) if own is dtypes.bool_ else (np.iinfo(d).min, np.iinfo(d).max)
    return info[0] if reduce == "amax" else info[1]


def _scatter_reduce_numpy(input: Any, dim: int, index: Any, src: Any, reduce: str, include_self: bool) -> Any:
    result = np.array(input, order="C")
    wide, at = np.atleast_1d(result), np.atleast_1d(index)
    if not at.size:
        return result
    key = _along(at, dim, wide.shape[dim])
    if not include_self:
        wide[key] = _identity(reduce, input.dtype)
    ufunc = {"sum": np.add, "mean": np.add, "prod": np.multiply, "amax": np.maximum, "amin": np.minimum}[reduce]
    half = wide.dtype.itemsize == 2 and wide.dtype.kind not in "iu"
    total = wide.astype(np.float32) if half else wide
    ufunc.at(total, key, _corner(src, at.shape).astype(total.dtype, copy=False))
    if reduce == "mean":
        count = np.full(wide.shape, 1 if include_self else 0)
        np.add.at(count, key, 1)
        count = np.maximum(count, 1)
        total = total // count if total.dtype.kind in "iu" else total / count.astype(total.dtype)
    if total is not wide:
        wide[...] = total.astype(wide.dtype)
    return result


def _scatter_reduce_grads(
    g: Any, input: Any, result: Any, dim: int, index: Any, src: Any, reduce: str, include_self: bool
) -> tuple[Any, Any]:
    """(to input, to src): each element's share of the cotangent of the place it went to."""

    def here(value: Any) -> Any:
        return gather(value, dim, index)

    def kept(value: Any) -> Any:
        return value if include_self else scatter_record(value, dim, index, 0)

    if reduce == "sum":
        return kept(g), here(g)
    ones = g.new_ones(tuple(index.shape))
    if reduce == "mean":
        own = g.new_ones(tuple(input.shape))
        count = scatter_add(own if include_self else scatter_record(own, dim, index, 0), dim, index, ones)
        share = g / count.clamp(min=1)
        return kept(share), here(share)
    if reduce == "prod":
        where = FUNCTIONS["where"]
        zeros = scatter_add(kept((input == 0).to(g.dtype)), dim, index, (src == 0).to(g.dtype))
        filled = where(input == 0, 1.0, input), where(src == 0, 1.0, src)
        product = scatter_reduce(filled[0], dim, index, filled[1], "prod", include_self)

        def others(own: Any, zero: Any, product: Any, zeros: Any) -> Any:
            # The product of the other elements is zero where one of them is.
            return where(zero, where(zeros == 1, product, 0.0), where(zeros == 0, product / own, 0.0))

        return (
            kept(g * others(filled[0], input == 0, product, zeros)),
            here(g) * others(filled[1], src == 0, here(product), here(zeros)),
        )
    same_self = (input == result).to(g.dtype)
    same_src = (src == here(result)).to(g.dtype)
    count = scatter_add(kept(same_self), dim, index, same_src)
    share = g / count.clamp(min=1)
    return kept(same_self * share), same_src * here(share)


def _corner_of(src: Any, index: Any) -> Any:
    for i, n in enumerate(index.shape):
        src = src.narrow(i, 0, n)
    return src


scatter_reduce: Callable[..., Tensor] = operator(
    "scatter_reduce(Tensor input, int dim, Tensor index, Tensor src, str reduce, bool include_self=True)",
    type=_scatter_reduce_type,
    numpy=_scatter_reduce_numpy,
    kind=OPAQUE,
    derivative={
        "input": lambda g, input, result, dim, index, src, reduce, include_self: _scatter_reduce_grads(
            g, input, result, dim, index, _corner_of(src, index), reduce, include_self
        )[0],
        "src": lambda g, input, result, dim, index, src, reduce, include_self: _in_corner(
            _scatter_reduce_grads(g, input, result, dim, index, _corner_of(src, index), reduce, include_self)[1],
            tuple(src.shape),
        ),
    },
    normalize=_dim_second,
    samples=lambda make: [
        sample(make(4, 3), 0, make.ints(2, 3), make(2, 3), "sum"),
        sample(make(4, 3), 0, make.ints(5, 3), make(5, 3), "mean"),
        sample(make(4, 3), 1, make.ints(4, 2, high=3), make(4, 2), "mean", include_self=False),
        sample(make.distinct(4, 3), 0, make.ints(5, 3), make.distinct(5, 3, low=3, high=5), "amax"),
        sample(make.distinct(4, 3), 0, make.ints(5, 3), make.distinct(5, 3), "amin", include_self=False),
        sample(make(4, 3, low=0.5), 0, make.ints(5, 3), make(5, 3, low=0.5), "prod"),
    ],
    categories="if",
    inplace=True,
    doc="Along `dim`, fold each element of `src` into the place that `index` names by sum, prod, mean, amax or amin.",
)


# -- compositions -----------------------------------------------------------------------------------------------------


@function(method=True)
def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """`gather` with broadcasting; over the flattened tensor if `dim` is None. See torch.take_along_dim."""
    if indices.dtype not in _INDEX_DTYPES:
        raise RuntimeError("torch.take_along_dim(): dtype of indices should be Long but got " + str(indices.dtype))
    if dim is None:
        return take_along_dim(reshape(input, (-1,)), reshape(indices, (-1,)), 0)
    if input.ndim != indices.ndim:
        raise RuntimeError(
            f"torch.take_along_dim(): input and indices should have the same number of dimensions, but got "
            f"{input.ndim} dimensions for input, and {indices.ndim} dimensions for indices"
        )
    dim = wrap_dim(dim, input.ndim)

    def wide(tensor: Tensor, other: Tensor) -> Tensor:
        shape = list(broadcast_shapes(
            [1 if i == dim else n for i, n in enumerate(tensor.shape)],
            [1 if i == dim else n for i, n in enumerate(other.shape)],
        ))  # fmt: skip
        shape[dim] = tensor.shape[dim]
        return expand(tensor, tuple(shape))

    indices = FUNCTIONS["where"](indices < 0, indices + input.shape[dim], indices)
    return gather(wide(input, indices), dim, wide(indices, input))


def _one_hot_numpy(input: Any, num_classes: int) -> Any:
    if input.size and input.max() >= num_classes:
        raise RuntimeError("Class values must be smaller than num_classes.")
    if input.size and input.min() < 0:
        raise RuntimeError("Class values must be non-negative.")
    return row_major((input[..., None] == np.arange(num_classes)).astype(np.int64))


_one_hot: Callable[..., Tensor] = operator(
    "one_hot(Tensor input, int num_classes)",
    type=lambda input, num_classes: TensorType(dtypes.int64, (*input.shape, num_classes), input.device),
    numpy=_one_hot_numpy,
    kind=OPAQUE,
    decompose=lambda input, num_classes: (
        unsqueeze(check_class(input, num_classes), len(input.shape))
        == FUNCTIONS["arange"](num_classes, device=input.device)
    ).to(dtypes.int64),
    samples=lambda make: [sample(make.ints(5), 4), sample(make.ints(2, 3), 6)],
    categories="f",
    public=False,
    method=False,
)


@function()
def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """A new last dimension with a one at each class. See torch.nn.functional.one_hot.

    `num_classes` of -1 is inferred from the values. Raises RuntimeError for classes outside [0, num_classes).
    """
    if tensor.dtype is not dtypes.int64:
        raise RuntimeError("one_hot is only applicable to index tensor of type LongTensor.")
    if num_classes == -1:
        if tensor.numel() == 0:
            raise RuntimeError("Can not infer total number of classes from empty tensor.")
        num_classes = int(tensor._host("one_hot()").max()) + 1
    elif num_classes < 1:
        raise RuntimeError("num_classes should be positive")
    return _one_hot(tensor, num_classes)
