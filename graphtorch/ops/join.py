"""Joining, repeating and rearranging: what makes new memory out of whole tensors without computing on elements."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from graphtorch.autograd.compositions import in_one_piece
from graphtorch.autograd.graph import composes, renamed
from graphtorch.ops.build import FUNCTIONS, function, method, operator
from graphtorch.ops.pointwise import broadcast_shapes
from graphtorch.ops.record import OPAQUE, sample
from graphtorch.ops.shapes import wrap_dim
from graphtorch.ops.shaping import channels_as, reshape, sizes_of
from graphtorch.ops.strides import (
    channels_innermost,
    contiguous_strides,
    dense_strides,
    laid_out,
    layout_of,
    row_major,
    view_strides,
)
from graphtorch.ops.view import expand, slice_, transpose, unsqueeze
from graphtorch.tensor import dtypes
from graphtorch.tensor.dtypes import result_type
from graphtorch.tensor.formats import contiguous_format
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType, type_of

# -- cat, stack -------------------------------------------------------------------------------------------------------


def _is_legacy_empty(tensor: Any) -> bool:
    """PyTorch lets a 1-D empty tensor be concatenated with anything."""
    return len(tensor.shape) == 1 and type(tensor.shape[0]) is int and tensor.shape[0] == 0


def _cat_normalize(tensors: tuple[Any, ...], dim: Any) -> tuple[Any, ...]:
    if not tensors:
        raise ValueError("torch.cat(): expected a non-empty list of Tensors")
    for i, tensor in enumerate(tensors):
        if not len(tensor.shape):
            raise RuntimeError(f"zero-dimensional tensor (at position {i}) cannot be concatenated")
    first = next((t for t in tensors if not _is_legacy_empty(t)), tensors[0])
    return tensors, wrap_dim(dim, len(first.shape))


def _cat_type(tensors: tuple[Any, ...], dim: int) -> TensorType:
    kept = [(i, t) for i, t in enumerate(tensors) if not _is_legacy_empty(t)]
    d = result_type(*tensors)
    if not kept:
        return type_of(tensors[0]).with_dtype(d)
    first = kept[0][1]
    total: Any = 0
    for i, tensor in kept:
        if len(tensor.shape) != len(first.shape):
            raise RuntimeError(
                f"Tensors must have same number of dimensions: got {len(first.shape)} and {len(tensor.shape)}"
            )
        for j, (a, b) in enumerate(zip(first.shape, tensor.shape, strict=True)):
            if j != dim and a is not b and a != b:
                raise RuntimeError(
                    f"Sizes of tensors must match except in dimension {dim}. Expected size {a} but got size {b} for "
                    f"tensor number {i} in the list."
                )
        total = total + tensor.shape[dim]
    shape = (*first.shape[:dim], total, *first.shape[dim + 1 :])
    return TensorType(d, shape, first.device)


def _as_promoted(arrays: Sequence[Any]) -> list[Any]:
    """The arrays in the dtype of their concatenation."""
    if all(a.dtype == arrays[0].dtype for a in arrays):
        return list(arrays)
    d = result_type(*(_Typed(a) for a in arrays)).numpy
    return [a.astype(d, copy=False) for a in arrays]


class _Typed:
    """An array's dtype and shape as promotion wants them."""

    __slots__ = ("dtype", "shape")

    def __init__(self, array: Any) -> None:
        self.dtype = dtypes.from_numpy_dtype(array.dtype)
        self.shape = array.shape


def _cat_numpy(tensors: tuple[Any, ...], dim: int) -> Any:
    arrays = _as_promoted(tensors)
    kept = [a for a in arrays if a.shape != (0,)]
    if not kept:
        return arrays[0].copy()
    shape = list(kept[0].shape)
    shape[dim] = sum(a.shape[dim] for a in kept)
    # NumPy would choose the result's memory order by its operands'.
    made = np.empty(shape, kept[0].dtype)
    if len(shape) in (4, 5):
        made = laid_out(made, _cat_order(tuple(shape), tensors, dim))
    return np.concatenate(kept, dim, out=made)


def _cat_order(shape: tuple[int, ...], tensors: tuple[Any, ...], dim: int) -> tuple[int, ...]:
    return _joined(shape, map(layout_of, tensors))


def _joined(shape: tuple[int, ...], layouts: Iterable[tuple[tuple[int, ...], tuple[int, ...]]]) -> tuple[int, ...]:
    """The strides of what is joined: channels last if all parts are."""
    if len(shape) in (4, 5) and all(channels_innermost(*layout) for layout in layouts):
        return dense_strides(shape, (1, *range(len(shape) - 1, 1, -1), 0))
    return contiguous_strides(shape)


def _cat_derivative(g: Any, tensors_type: tuple[TensorType, ...], dim: int) -> tuple[Any, ...]:
    pieces: list[Any] = []
    start: Any = 0
    for own in tensors_type:
        if _is_legacy_empty(own):
            pieces.append(g.new_zeros((0,)))  # nothing, which is a gradient all the same
            continue
        end = start + own.shape[dim]
        pieces.append(slice_(g, dim, start, end, 1))
        start = end
    return tuple(pieces)


cat: Callable[..., Tensor] = operator(
    "cat(Tensor[] tensors, int dim=0)",
    type=_cat_type,
    numpy=_cat_numpy,
    kind=OPAQUE,
    derivative={"tensors": _cat_derivative},
    normalize=_cat_normalize,
    order={"result": _cat_order},
    samples=lambda make: [
        sample((make(2, 3), make(4, 3)), 0),
        sample((make(2, 3), make(2, 1), make(2, 2)), -1),
        sample((make(3),)),
    ],
    categories="bifc",
    out=True,
    doc="Join tensors along an existing dimension.",
)
for _alias in ("concat", "concatenate"):
    function(name=_alias)(cat)


def _stack_type(tensors: tuple[Any, ...], dim: int) -> TensorType:
    first = tuple(tensors[0].shape)
    for i, tensor in enumerate(tensors):
        if tuple(tensor.shape) != first:
            raise RuntimeError(
                f"stack expects each tensor to be equal size, but got {list(first)} at entry 0 and "
                f"{list(tensor.shape)} at entry {i}"
            )
    return TensorType(result_type(*tensors), (*first[:dim], len(tensors), *first[dim:]), tensors[0].device)


def _stack_normalize(tensors: tuple[Any, ...], dim: Any) -> tuple[Any, ...]:
    if not tensors:
        raise RuntimeError("stack expects a non-empty TensorList")
    return tensors, wrap_dim(dim, len(tensors[0].shape) + 1)


def _stack_numpy(tensors: tuple[Any, ...], dim: int) -> Any:
    arrays = _as_promoted(tensors)
    shape = arrays[0].shape
    made = np.empty((*shape[:dim], len(arrays), *shape[dim:]), arrays[0].dtype)
    if made.ndim in (4, 5, 6):
        made = laid_out(made, _stack_order(made.shape, tensors, dim))
    return np.stack(arrays, dim, out=made)


def _stack_order(shape: tuple[int, ...], tensors: tuple[Any, ...], dim: int) -> tuple[int, ...]:
    """As the tensors joined along `dim`, which is then taken apart; behind the last dimension, there is none."""
    if dim == len(shape) - 1:
        return _joined(shape, (((*own, 1), (*strides, 1)) for own, strides in map(layout_of, tensors)))
    joined = (*shape[:dim], shape[dim] * shape[dim + 1], *shape[dim + 2 :])
    strides = view_strides(joined, _cat_order(joined, tensors, dim), shape)
    assert strides is not None
    return strides


stack: Callable[..., Tensor] = operator(
    "stack(Tensor[] tensors, int dim=0)",
    type=_stack_type,
    numpy=_stack_numpy,
    kind=OPAQUE,
    derivative={"tensors": lambda g, tensors_type, dim: tuple(g.select(dim, i) for i in range(len(tensors_type)))},
    decompose=lambda tensors, dim: cat(tuple(unsqueeze(t, dim) for t in tensors), dim),
    normalize=_stack_normalize,
    order={"result": _stack_order},
    samples=lambda make: [
        sample((make(2, 3), make(2, 3)), 0),
        sample((make(2, 3), make(2, 3), make(2, 3)), -1),
        sample((make(), make())),
    ],
    categories="bifc",
    out=True,
    doc="Join tensors of one shape along a new dimension.",
)


def _tensors(given: tuple[Any, ...]) -> tuple[Tensor, ...]:
    """Tensors that a caller spelled as arguments or as one sequence."""
    if len(given) == 1 and not isinstance(given[0], Tensor):
        return tuple(given[0])
    return given


def _atleast(rank: int, widen: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    def atleast(*tensors: Any) -> Any:
        if len(tensors) == 1 and isinstance(tensors[0], Tensor):
            return widen(tensors[0])
        return tuple(widen(t) for t in _tensors(tensors))

    atleast.__name__ = f"atleast_{rank}d"
    atleast.__doc__ = f"Tensors with at least {rank} dimensions. See torch.atleast_{rank}d."
    return function(name=atleast.__name__)(atleast)


def _widen_3d(tensor: Tensor) -> Tensor:
    if tensor.ndim == 2:
        return unsqueeze(tensor, -1)
    return reshape(tensor, (1, -1, 1)) if tensor.ndim < 2 else tensor


atleast_1d = _atleast(1, lambda t: t if t.ndim else reshape(t, (1,)))
atleast_2d = _atleast(2, lambda t: t if t.ndim > 1 else reshape(t, (1, -1)))
atleast_3d = _atleast(3, _widen_3d)


def _some(name: str, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    if len(tensors) == 0:
        raise RuntimeError(f"{name} expects a non-empty TensorList")
    return tensors


@function()
def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """Join along columns (vectors: end to end). See torch.hstack."""
    wide = tuple(atleast_1d(t) for t in _some("hstack", tensors))
    return cat(wide, 0 if wide and wide[0].ndim == 1 else 1)


@function()
def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """Join along rows. See torch.vstack."""
    return cat(tuple(atleast_2d(t) for t in _some("vstack", tensors)), 0)


function(name="row_stack")(vstack)


@function()
def dstack(tensors: Sequence[Tensor]) -> Tensor:
    """Join along the third dimension. See torch.dstack."""
    return cat(tuple(atleast_3d(t) for t in _some("dstack", tensors)), 2)


@function()
def column_stack(tensors: Sequence[Tensor]) -> Tensor:
    """Join along columns, vectors as columns. See torch.column_stack."""
    return cat(tuple(reshape(t, (-1, 1)) if t.ndim < 2 else t for t in tensors), 1)


# -- repeating --------------------------------------------------------------------------------------------------------


def _repeat_normalize(input: Any, repeats: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(repeats) < len(input.shape):
        raise RuntimeError("Number of dimensions of repeat dims can not be smaller than number of dimensions of tensor")
    for n in repeats:
        if n < 0:
            raise RuntimeError(f"Trying to create tensor with negative dimension {n}: {list(repeats)}")
    return input, repeats


def _repeat_sizes(shape: Sequence[Any], repeats: tuple[Any, ...]) -> tuple[list[Any], list[Any], list[Any]]:
    """For repeating as a broadcast: sizes with a one before each, those sizes expanded, and the result's."""
    padded = (1,) * (len(repeats) - len(shape)) + tuple(shape)
    alternating = [n for size in padded for n in (1, size)]
    expanded = [n for r, size in zip(repeats, padded, strict=True) for n in (r, size)]
    return alternating, expanded, [r * size for r, size in zip(repeats, padded, strict=True)]


def _repeat_decompose(input: Any, repeats: tuple[Any, ...]) -> Any:
    alternating, expanded, sizes = _repeat_sizes(input.shape, repeats)
    return reshape(expand(reshape(input, alternating), expanded), sizes)


def _repeat_derivative(g: Any, input_type: TensorType, repeats: tuple[Any, ...]) -> Any:
    if not repeats:
        return g
    _, expanded, _ = _repeat_sizes(input_type.shape, repeats)
    summed = reshape(g, expanded).sum(tuple(range(0, len(expanded), 2)))
    return reshape(summed, input_type.shape)


_repeat: Callable[..., Tensor] = operator(
    "repeat(Tensor input, int[] repeats)",
    type=lambda input, repeats: type_of(input).with_shape(_repeat_sizes(input.shape, repeats)[2]),
    numpy=lambda input, repeats: np.tile(input, repeats),
    kind=OPAQUE,
    derivative={"input": _repeat_derivative},
    decompose=_repeat_decompose,
    normalize=_repeat_normalize,
    samples=lambda make: [
        sample(make(2, 3), (2, 3)),
        sample(make(3), (2, 1, 2)),
        sample(make(), (4,)),
        sample(make(), ()),
    ],
    categories="bifc",
    public=False,
    method=False,
)


@method("repeat")
def repeat(input: Tensor, *repeats: Any) -> Tensor:
    """`input` side by side with itself `repeats` times along each dimension. See torch.Tensor.repeat."""
    return _repeat(input, sizes_of(repeats))


@function()
def tile(input: Tensor, dims: Sequence[int]) -> Tensor:
    """`repeat` where missing counts are 1. See torch.tile."""
    counts = tuple(dims)
    return _repeat(input, (1,) * (input.ndim - len(counts)) + counts)


@method("tile")
def _tile_method(self: Tensor, *dims: Any) -> Tensor:
    """See torch.Tensor.tile."""
    return tile(self, sizes_of(dims))


def _positions_numpy(repeats: Any, output_size: int) -> Any:
    if (repeats < 0).any():
        raise RuntimeError("repeats can not be negative")
    found = np.repeat(np.arange(repeats.size, dtype=np.int64), repeats)
    if found.size != output_size:
        raise RuntimeError(f"allocated size does not match required size: {output_size} and {found.size}")
    return found


# Which element each place of `repeat_interleave`'s result takes.
_positions: Callable[..., Tensor] = operator(
    "repeat_interleave_positions(Tensor repeats, int output_size)",
    type=lambda repeats, output_size: TensorType(dtypes.int64, (output_size,), repeats.device),
    numpy=_positions_numpy,
    samples=lambda make: [sample(Tensor._wrap(np.array([2, 0, 3])), 5), sample(Tensor._wrap(np.array([1])), 1)],
    public=False,
    method=False,
    categories="i",
)


@function(method=True)
def repeat_interleave(input: Tensor, repeats: Any = None, dim: int | None = None, *, output_size: Any = None) -> Tensor:
    """Each element repeated in place. See torch.repeat_interleave."""
    if repeats is None:
        if input.dtype not in (dtypes.int64, dtypes.int32):
            raise RuntimeError("repeats has to be Long or Int tensor")
        return _positions(input, input.sum().item() if output_size is None else output_size)
    if dim is None:
        input, dim = reshape(input, (-1,)), 0
    dim = wrap_dim(dim, input.ndim)
    if not input.ndim:
        input = reshape(input, (1,))
    size = input.shape[dim]
    if isinstance(repeats, Tensor) and repeats.numel() == 1:
        repeats = repeats.item()
    if not isinstance(repeats, Tensor):
        if repeats < 0:
            raise RuntimeError("Repeats must be non-negative")
        shape = tuple(input.shape)
        wide = expand(unsqueeze(input, dim + 1), (*shape[: dim + 1], repeats, *shape[dim + 1 :]))
        return reshape(wide.clone(memory_format=contiguous_format), (*shape[:dim], size * repeats, *shape[dim + 1 :]))
    if repeats.ndim != 1:
        raise RuntimeError("repeats must be 0-dim or 1-dim tensor")
    if repeats.shape[0] != size:
        raise RuntimeError("repeats must have the same size as input along dim, but got repeats.size(0) = "
                           f"{repeats.shape[0]} and input.size({dim}) = {size}")  # fmt: skip
    at = _positions(repeats, repeats.sum().item() if output_size is None else output_size)
    found: Tensor = input.index_select(dim, at)
    return found


# -- rearranging ------------------------------------------------------------------------------------------------------


def _distinct_dims(dims: Iterable[Any], rank: int) -> tuple[int, ...]:
    wrapped = [wrap_dim(d, rank) for d in dims]
    for i, d in enumerate(wrapped):
        if d in wrapped[:i]:
            raise RuntimeError(f"dim {d} appears multiple times in the list of dims")
    return tuple(wrapped)


def _flip_normalize(input: Any, dims: Iterable[Any]) -> tuple[Any, ...]:
    rank = len(input.shape)
    wrapped = _distinct_dims(dims, rank)
    return input, wrapped if rank else ()


_flip: Callable[..., Tensor] = operator(
    "flip(Tensor input, int[] dims)",
    order={"result": "input"},
    type=lambda input, dims: type_of(input),
    numpy=lambda input, dims: np.flip(input, dims).copy() if input.ndim else input.copy(),
    kind=OPAQUE,
    derivative={"input": lambda g, dims: _flip(g, dims)},
    # A tensor of no dimension takes 0 and -1 for dimensions and has none to flip.
    normalize=_flip_normalize,
    samples=lambda make: [
        sample(make(2, 3), (0,)),
        sample(make(2, 3), (-1, 0)),
        sample(make(4), ()),
        sample(make(), (0,)),
    ],
    categories="bifc",
    public=False,
    method=False,
)


@function()
def flip(input: Tensor, dims: Any) -> Tensor:
    """`input` with dimensions reversed, as a copy. See torch.flip."""
    return _flip(input, dims)


@method("flip")
def _flip_method(self: Tensor, *arguments: Any, dims: Any = None) -> Tensor:
    """See torch.Tensor.flip."""
    return _flip(self, sizes_of(arguments if dims is None else (dims,)))


@function(method=True)
def fliplr(input: Tensor) -> Tensor:
    """Columns in reverse order. See torch.fliplr."""
    if input.ndim < 2:
        raise RuntimeError("Input must be >= 2-d.")
    return _flip(input, (1,))


@function(method=True)
def flipud(input: Tensor) -> Tensor:
    """Rows in reverse order. See torch.flipud."""
    if input.ndim < 1:
        raise RuntimeError("Input must be >= 1-d.")
    return _flip(input, (0,))


@function(method=True)
@composes("Rot90Backward0")
def rot90(input: Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
    """A quarter turn, `k` times, in the plane of `dims`. See torch.rot90."""
    if len(dims) != 2:
        raise RuntimeError(f"expected total rotation dims == 2, but got dims = {len(dims)}")
    if input.ndim < 2:
        raise RuntimeError(f"expected total dims >= 2, but got total dims = {input.ndim}")
    a, b = (wrap_dim(d, input.ndim) for d in dims)
    if a == b:
        raise RuntimeError(f"expected rotation dims to be different, but got dim0 = {dims[0]} and dim1 = {dims[1]}")
    turns = k % 4
    if turns == 1:
        return transpose(_flip(input, (b,)), a, b)
    if turns == 3:
        return transpose(_flip(input, (a,)), a, b)
    return _flip(input, (a, b)) if turns == 2 else input.clone()


def _roll_normalize(input: Any, shifts: tuple[Any, ...], dims: tuple[Any, ...]) -> tuple[Any, ...]:
    if not shifts:
        raise RuntimeError("`shifts` required")
    if dims and len(shifts) != len(dims):
        raise RuntimeError(f"shifts and dimensions must align. shifts: {len(shifts)}, dims:{len(dims)}")
    if not dims and len(shifts) != 1:
        raise RuntimeError(f"shifts and dimensions must align. shifts: {len(shifts)}, dims:0")
    if dims and not len(input.shape):
        raise IndexError(f"Dimension specified as {dims[0]} but tensor has no dimensions")
    return input, shifts, tuple(wrap_dim(d, len(input.shape)) for d in dims)


def _roll_numpy(input: Any, shifts: tuple[int, ...], dims: tuple[int, ...]) -> Any:
    if not input.ndim:
        return input.copy()
    return row_major(np.roll(input, shifts, dims) if dims else np.roll(input, shifts[0]))


def _roll_decompose(input: Any, shifts: tuple[Any, ...], dims: tuple[int, ...]) -> Any:
    shape = tuple(input.shape)
    if not shape:
        return input.clone()
    if not dims:
        return reshape(_roll_decompose(reshape(input, (-1,)), shifts, (0,)), shape)
    for shift, dim in zip(shifts, dims, strict=True):
        size = shape[dim]
        if type(size) is int and size == 0:
            return input.clone()
        at = (-shift) % size
        if type(at) is int and at == 0:
            continue
        input = cat((slice_(input, dim, at, None, 1), slice_(input, dim, 0, at, 1)), dim)
    return input


roll: Callable[..., Tensor] = operator(
    "roll(Tensor input, int[] shifts, int[] dims=())",
    type=lambda input, shifts, dims: type_of(input),
    order={"result": "channels"},
    numpy=_roll_numpy,
    kind=OPAQUE,
    derivative={"input": lambda g, shifts, dims: roll(g, tuple(-s for s in shifts), dims)},
    decompose=_roll_decompose,
    normalize=_roll_normalize,
    samples=lambda make: [
        sample(make(3, 4), (1,), (0,)),
        sample(make(3, 4), (-2, 5), (1, 0)),
        sample(make(3, 4), (5,)),
        sample(make(4), (0,), (0,)),
    ],
    categories="bifc",
    doc="Shift elements along dimensions; what leaves at the end comes back at the front.",
)


def _check_matrix(name: str, input: Any) -> None:
    if len(input.shape) < 2:
        raise RuntimeError(f"{name}: input tensor must have at least 2 dimensions")


def _triangle(name: str, numpy: Callable[..., Any], keeps: Callable[..., Any]) -> Callable[..., Tensor]:
    """`tril` or `triu`; `keeps(row, column)` says which elements stay."""

    def type_rule(input: Any, diagonal: Any) -> TensorType:
        _check_matrix(name, input)
        return type_of(input)

    def decompose(input: Any, diagonal: Any) -> Any:
        arange = FUNCTIONS["arange"]
        rows = unsqueeze(arange(input.shape[-2], device=input.device), 1)
        columns = arange(input.shape[-1], device=input.device)
        return FUNCTIONS["where"](keeps(rows + diagonal, columns), input, False)

    def derivative(g: Any, diagonal: Any) -> Any:
        return made(g, diagonal)

    made = operator(
        f"{name}(Tensor input, int diagonal=0)",
        type=type_rule,
        numpy=lambda input, diagonal: row_major(numpy(input, diagonal)),
        kind=OPAQUE,
        derivative={"input": derivative},
        decompose=decompose,
        samples=lambda make: [
            sample(make(3, 4)),
            sample(make(4, 3), 1),
            sample(make(2, 3, 3), -1),
            sample(make(2, 2), 7),
        ],
        categories="bifc",
        inplace=True,
        out=True,
    )
    return made


tril = _triangle("tril", np.tril, lambda rows, columns: rows >= columns)
triu = _triangle("triu", np.triu, lambda rows, columns: rows <= columns)


@function()
def broadcast_tensors(*tensors: Any) -> tuple[Tensor, ...]:
    """The tensors expanded to their common shape. See torch.broadcast_tensors."""
    given = _tensors(tensors)
    shape = broadcast_shapes(*(t.shape for t in given))
    return tuple(expand(t, shape) for t in given)


@function()
def meshgrid(*tensors: Any, indexing: str | None = None) -> tuple[Tensor, ...]:
    """Coordinate grids from vectors. See torch.meshgrid."""
    given = list(_tensors(tensors))
    if not given:
        raise RuntimeError("meshgrid expects a non-empty TensorList")
    if indexing not in (None, "ij", "xy"):
        raise RuntimeError(f'torch.meshgrid: indexing must be one of "xy" or "ij", but received: {indexing}')
    for tensor in given:
        if tensor.ndim > 1:
            raise RuntimeError(
                f"torch.meshgrid: Expected 0D or 1D tensor in the tensor list but got: {list(tensor.shape)}"
            )
    swap = indexing == "xy" and len(given) >= 2
    if swap:
        given[0], given[1] = given[1], given[0]
    shape = tuple(t.shape[0] if t.ndim else 1 for t in given)
    grids = []
    for i, tensor in enumerate(given):
        own = tuple(shape[i] if j == i else 1 for j in range(len(shape)))
        grids.append(expand(reshape(tensor, own), shape))
    if swap:
        grids[0], grids[1] = grids[1], grids[0]
    return tuple(grids)


# -- padding ----------------------------------------------------------------------------------------------------------


def _pad_pairs(rank: int, pad: Sequence[Any]) -> list[tuple[Any, Any]]:
    """(before, after) for each dimension; `pad` lists pairs from the last dimension on."""
    pairs: list[tuple[Any, Any]] = [(0, 0)] * rank
    for i in range(len(pad) // 2):
        pairs[rank - 1 - i] = (pad[2 * i], pad[2 * i + 1])
    return pairs


def _pad_normalize(input: Any, pad: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    if len(pad) % 2:
        raise RuntimeError(f"Length of pad must be even but instead it equals {len(pad)}")
    if len(pad) > 2 * len(input.shape):
        raise RuntimeError(
            "Length of pad should be no more than twice the number of dimensions of the input. Pad length is "
            f"{len(pad)} while the input has {len(input.shape)} dimensions."
        )
    return input, pad, value


def _pad_type(input: Any, pad: tuple[Any, ...], value: Any) -> TensorType:
    pairs = _pad_pairs(len(input.shape), pad)
    shape = [before + n + after for n, (before, after) in zip(input.shape, pairs, strict=True)]
    for i, (n, made) in enumerate(zip(input.shape, shape, strict=True)):
        if made < 0:
            before, after = pairs[i]
            raise RuntimeError(
                f"The input size {n}, plus negative padding {before} and {after} resulted in a negative output size, "
                f"which is invalid. Check dimension {i} of your input."
            )
    for n, (before, after) in zip(input.shape, pairs, strict=True):
        kept = n + min(before, 0)
        if kept < 0 or kept + min(after, 0) < 0:  # what is cropped at both ends is more than there is
            raise RuntimeError("narrow(): length must be non-negative.")
    dtypes.check_fits(value, input.dtype, fill=True)
    return type_of(input).with_shape(shape)


def _pad_numpy(input: Any, pad: tuple[int, ...], value: Any) -> Any:
    pairs = _pad_pairs(input.ndim, pad)
    shape = [before + n + after for n, (before, after) in zip(input.shape, pairs, strict=True)]
    result = np.full(shape, np.asarray(value).astype(input.dtype), input.dtype)
    inner = tuple(slice(max(before, 0), n - max(after, 0)) for n, (before, after) in zip(shape, pairs, strict=True))
    kept = tuple(
        slice(max(-before, 0), n - max(-after, 0)) for n, (before, after) in zip(input.shape, pairs, strict=True)
    )
    result[inner] = input[kept]
    return result


constant_pad_nd: Callable[..., Tensor] = operator(
    "constant_pad_nd(Tensor input, int[] pad, Number value=0)",
    type=_pad_type,
    order={"result": "channels"},
    numpy=_pad_numpy,
    kind=OPAQUE,
    derivative={"input": lambda g, pad: constant_pad_nd(g, tuple(-p for p in pad), 0)},
    normalize=_pad_normalize,
    samples=lambda make: [
        sample(make(3, 4), (1, 2)),
        sample(make(2, 3, 4), (1, 0, 0, 2), 1),
        sample(make(3, 4), (-1, 1, 2, -1), 1),
        sample(make(2), ()),
    ],
    categories="bifc",
    method=False,
    grad_name="ConstantPadNdBackward0",
    doc="Surround with a constant; negative widths crop. Widths come in pairs from the last dimension on.",
)


@function(name="pad")
def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: Any = None) -> Tensor:
    """Pad the last dimensions with a constant, by reflection, by the edge ("replicate") or around ("circular").

    `pad` holds (before, after) pairs from the last dimension on. See torch.nn.functional.pad.
    """
    widths = tuple(pad)
    if mode == "constant":
        return constant_pad_nd(input, widths, 0 if value is None else value)
    if value is not None and value != 0:
        raise ValueError(f'Padding mode "{mode}" doesn\'t take in value argument')
    if mode not in ("reflect", "replicate", "circular"):
        raise NotImplementedError(f"Unrecognised padding mode {mode}")
    if len(widths) % 2 or not len(widths) // 2 < input.ndim <= len(widths) // 2 + 2:
        raise NotImplementedError("Only 2D, 3D, 4D, 5D padding with non-constant padding are supported for now")
    for i in range(len(widths) // 2):
        dim = input.ndim - 1 - i
        before, after = widths[2 * i], widths[2 * i + 1]
        size = input.shape[dim]
        if mode == "reflect" and (before >= size or after >= size):
            raise RuntimeError(
                f"Argument #4: Padding size should be less than the corresponding input dimension, but got: padding "
                f"({before}, {after}) at dimension {dim} of input {list(input.shape)}"
            )
        if mode == "circular" and (before > size or after > size):
            raise RuntimeError("Padding value causes wrapping around more than once.")
    kind = {"reflect": "ReflectionPad", "replicate": "ReplicationPad"}.get(mode)
    padded = _padded(input, widths, mode)
    return renamed(padded, f"{kind}{len(widths) // 2}DBackward0" if kind else "CopySlices")


@in_one_piece("", linear=True)
def _padded(input: Tensor, widths: tuple[int, ...], mode: str) -> Tensor:
    """The input with its last dimensions padded with elements of its own."""
    given = input
    for i in range(len(widths) // 2):
        dim = input.ndim - 1 - i
        before, after = widths[2 * i], widths[2 * i + 1]
        size = input.shape[dim]
        at = FUNCTIONS["arange"](size + before + after, device=input.device) - before
        if mode == "reflect":
            at = (size - 1) - ((size - 1) - at.abs()).abs()
        elif mode == "replicate":
            at = at.clamp(0, size - 1)
        else:
            # What negative widths cut off is not there to be wrapped around.
            cut = -min(before, 0)
            at = (at - cut).remainder(size - cut + min(after, 0)) + cut
        input = input.index_select(dim, at)
    return input if mode == "circular" else channels_as(input, given)


# -- block_diag and products of vectors -------------------------------------------------------------------------------


@function()
def block_diag(*tensors: Any) -> Tensor:
    """A matrix with the given ones along its diagonal. See torch.block_diag."""
    given = [atleast_2d(t) for t in _tensors(tensors)]
    width = sum(t.shape[1] for t in given)
    rows: list[Tensor] = []
    start: Any = 0
    d = result_type(*given)
    for tensor in given:
        if tensor.ndim != 2:
            raise RuntimeError("torch.block_diag: Input tensors must have 2 or fewer dimensions.")
        rows.append(constant_pad_nd(tensor.to(d), (start, width - start - tensor.shape[1]), 0))
        start = start + tensor.shape[1]
    return cat(rows, 0)


@function()
def cartesian_prod(*tensors: Any) -> Tensor:
    """All combinations of elements of vectors, one a row. See torch.cartesian_prod."""
    given = _tensors(tensors)
    for tensor in given:
        if tensor.ndim != 1:
            raise RuntimeError("cartesian_prod: Expect a 1D vector")
    if len(given) == 1:
        return given[0]
    return stack(tuple(reshape(grid, (-1,)) for grid in meshgrid(*given, indexing="ij")), 1)


@function(method=True)
@composes("DiagEmbedBackward0")
def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """The diagonal of a matrix, or the matrix with a vector on its diagonal. See torch.diag."""
    if input.ndim == 1:
        return diag_embed(input, diagonal)
    if input.ndim != 2:
        raise RuntimeError(f"diag(): Supports 1D or 2D tensors. Got {input.ndim}D")
    found: Tensor = input.diagonal(diagonal).clone()
    return found


@function(method=True)
def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Matrices with the last dimension on a diagonal. See torch.diag_embed."""
    rank = input.ndim + 1
    first, second = wrap_dim(dim1, rank), wrap_dim(dim2, rank)
    if first == second:
        raise RuntimeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    shape = list(input.shape[:-1])
    for dim in sorted((first, second)):
        shape.insert(dim, input.shape[-1] + abs(offset))
    filled: Tensor = input.new_zeros(tuple(shape)).diagonal_scatter(input, offset, first, second)
    return filled


@function(method=True)
def diagflat(input: Tensor, offset: int = 0) -> Tensor:
    """A matrix with all elements on its diagonal. See torch.diagflat."""
    return diag_embed(reshape(input, (-1,)), offset)
