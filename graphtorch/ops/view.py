"""View operators: the same elements under another index.

Each record's NumPy function returns a NumPy view with PyTorch's strides, so that results share memory with their
operand. For each there is a scatter record (the base with the viewed elements replaced), by which an in-place change of
a view becomes a value, and where the view drops elements a `*_backward` record (a cotangent put back into zeros). The
public spellings of these operators (`reshape`, `flatten`, `split`, ...) are in `shaping.py`.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from graphtorch.autograd.graph import renamed
from graphtorch.ops.build import function, operator
from graphtorch.ops.dispatch import _scalar_name
from graphtorch.ops.record import OPAQUE, VIEW, Sample, sample
from graphtorch.ops.shapes import wrap_dim
from graphtorch.ops.strides import (
    contiguous_strides,
    infer_size,
    inverse_permutation,
    kept_strides,
    layout_of,
    same_strides,
    view_strides,
)
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType, type_of

as_strided_array = np.lib.stride_tricks.as_strided


# -- permute, transpose, t --------------------------------------------------------------------------------------------


def _permute_normalize(input: Any, dims: Sequence[Any]) -> tuple[Any, ...]:
    rank = len(input.shape)
    if len(dims) != rank:
        raise RuntimeError(
            "permute(sparse_coo): number of dimensions in the tensor input does not match the length of the desired "
            f"ordering of dimensions i.e. input.dim() = {rank} is not equal to len(dims) = {len(dims)}"
        )
    wrapped = tuple(wrap_dim(d, rank) for d in dims)
    if len(set(wrapped)) != rank:
        raise RuntimeError("permute(): duplicate dims are not allowed.")
    return input, wrapped


def _permute_type(input: Any, dims: tuple[int, ...]) -> TensorType:
    return type_of(input).with_shape(tuple(input.shape[d] for d in dims))


def _permute_samples(make: Any) -> Iterable[Sample]:
    yield sample(make(3, 4), (1, 0))
    yield sample(make(2, 3, 4), (2, 0, 1))
    yield sample(make(2, 3, 4), (-1, 1, 0))
    yield sample(make(), ())


permute: Callable[..., Tensor] = operator(
    "permute(Tensor input, int[] dims)",
    type=_permute_type,
    numpy=lambda input, dims: input.transpose(dims),
    kind=VIEW,
    derivative={"input": lambda g, dims: permute(g, inverse_permutation(dims))},
    normalize=_permute_normalize,
    scatter=lambda base, new, dims: permute(new, inverse_permutation(dims)),
    samples=_permute_samples,
    categories="bifc",
    doc="Reorder the dimensions.",
    public=False,
    method=False,
)


def _swap(rank: int, dim0: int, dim1: int) -> tuple[int, ...]:
    dims = list(range(rank))
    if rank:
        dims[dim0], dims[dim1] = dims[dim1], dims[dim0]
    return tuple(dims)


transpose: Callable[..., Tensor] = operator(
    "transpose(Tensor input, int dim0, int dim1)",
    lazy_check=True,
    type=lambda input, dim0, dim1: _permute_type(input, _swap(len(input.shape), dim0, dim1)),
    numpy=lambda input, dim0, dim1: input.swapaxes(dim0, dim1) if input.ndim else input[...],
    kind=VIEW,
    derivative={"input": lambda g, dim0, dim1: transpose(g, dim0, dim1)},
    normalize=lambda input, dim0, dim1: (input, wrap_dim(dim0, len(input.shape)), wrap_dim(dim1, len(input.shape))),
    decompose=lambda input, dim0, dim1: permute(input, _swap(len(input.shape), dim0, dim1)),
    scatter=lambda base, new, dim0, dim1: transpose(new, dim0, dim1),
    samples=lambda make: [sample(make(2, 3, 4), 0, -1), sample(make(2, 3), 1, 0), sample(make(), 0, -1)],
    categories="bifc",
    doc="Swap two dimensions.",
)


def _t_type(input: Any) -> TensorType:
    if len(input.shape) > 2:
        raise RuntimeError(f"t() expects a tensor with <= 2 dimensions, but self is {len(input.shape)}D")
    return type_of(input).with_shape(tuple(reversed(input.shape)))


def _t_numpy(input: Any) -> Any:
    if input.ndim > 2:
        _t_type(input)
    return input.T


t: Callable[..., Tensor] = operator(
    "t(Tensor input)",
    lazy_check=True,
    type=_t_type,
    numpy=_t_numpy,
    kind=VIEW,
    derivative={"input": lambda g: t(g)},
    decompose=lambda input: permute(input, tuple(reversed(range(len(input.shape))))),
    scatter=lambda base, new: t(new),
    samples=lambda make: [sample(make(2, 3)), sample(make(3)), sample(make())],
    categories="bifc",
    grad_name="TBackward0",
    doc="Transpose a matrix; tensors of fewer dimensions stay as they are.",
)


# -- expand -----------------------------------------------------------------------------------------------------------


def _expand_normalize(input: Any, size: Sequence[Any]) -> tuple[Any, ...]:
    shape = tuple(input.shape)
    extra = len(size) - len(shape)
    if extra < 0:
        raise RuntimeError(
            f"expand(torch.{_scalar_name(type_of(input).dtype)}Tensor{{{list(shape)}}}, size={list(size)}): the "
            f"number of sizes provided ({len(size)}) must be greater or equal to the number of dimensions in the "
            f"tensor ({len(shape)})"
        )
    resolved: list[Any] = []
    for i, n in enumerate(size):
        if type(n) is int and n == -1:
            if i < extra:
                raise RuntimeError(
                    f"The expanded size of the tensor ({n}) isn't allowed in a leading, non-existing dimension {i}"
                )
            n = shape[i - extra]
        resolved.append(n)
    return input, tuple(resolved)


def _expand_type(input: Any, size: tuple[Any, ...]) -> TensorType:
    shape = tuple(input.shape)
    extra = len(size) - len(shape)
    for i, own in enumerate(shape):
        n = size[extra + i]
        if own is n or own == n or own == 1:
            continue
        raise RuntimeError(
            f"The expanded size of the tensor ({n}) must match the existing size ({own}) at non-singleton dimension "
            f"{extra + i}.  Target sizes: {list(size)}.  Tensor sizes: {list(shape)}"
        )
    return type_of(input).with_shape(size)


def check_expand(input: Any, size: tuple[Any, ...]) -> None:
    """Raise PyTorch's RuntimeError unless `input` expands to `size`."""
    _expand_type(*_expand_normalize(input, size))


def _expand_numpy(input: Any, size: tuple[int, ...]) -> Any:
    shape, old = input.shape, input.strides
    extra = len(size) - len(shape)
    strides: list[int] = []
    step = input.itemsize
    for i in range(len(size) - 1, -1, -1):
        if i >= extra:
            own, stride = shape[i - extra], old[i - extra]
            strides.append(stride if own == size[i] else 0)
            if own != size[i] and own != 1:
                raise RuntimeError(f"cannot expand {shape} to {size}")
            step = own * stride
        else:
            strides.append(0 if size[i] != 1 else step)
    if input.flags.c_contiguous and input.dtype.char in "fdl?" and input.size:
        return np.ndarray(size, input.dtype, input, 0, tuple(strides[::-1]))  # a tenth of the time
    return as_strided_array(input, size, tuple(reversed(strides)))


def _expand_scatter(base: Any, new: Any, size: tuple[Any, ...]) -> Any:
    extra = len(size) - len(base.shape)
    for _ in range(extra):
        new = select(new, 0, 0)
    for i, own in enumerate(base.shape):
        if own is not size[extra + i] and own != size[extra + i]:
            new = slice_(new, i, 0, 1, 1)
    return new


def _expand_samples(make: Any) -> Iterable[Sample]:
    yield sample(make(3, 1), (3, 4))
    yield sample(make(3, 1), (2, -1, 4))
    yield sample(make(), (2, 3))
    yield sample(make(1, 3), (1, 3))


expand: Callable[..., Tensor] = operator(
    "expand(Tensor input, int[] size)",
    lazy_check=True,
    type=_expand_type,
    numpy=_expand_numpy,
    kind=VIEW,
    derivative={"input": lambda g: g},  # the sum over broadcast dimensions is the fit of every cotangent
    normalize=_expand_normalize,
    scatter=_expand_scatter,
    samples=_expand_samples,
    categories="bifc",
    doc="Repeat dimensions of size 1 without copying; -1 keeps a size.",
    public=False,
    method=False,
)


# -- view, squeeze, unsqueeze -----------------------------------------------------------------------------------------


def view_array(array: Any, size: tuple[int, ...]) -> Any:
    """A NumPy view of `array` in another shape.

    Raises RuntimeError with PyTorch's message where only a copy could have the shape.
    """
    if array.flags.c_contiguous:
        return array.reshape(size)
    strides = view_strides(array.shape, array.strides, size)
    if strides is None:
        raise RuntimeError(
            "view size is not compatible with input tensor's size and stride (at least one dimension spans across two "
            "contiguous subspaces). Use .reshape(...) instead."
        )
    return as_strided_array(array, size, strides)


def _view_samples(make: Any) -> Iterable[Sample]:
    yield sample(make(2, 6), (3, 4))
    yield sample(make(2, 3, 4), (6, -1))
    yield sample(make(), (1, 1))
    yield sample(make(0, 3), (3, 0))


view: Callable[..., Tensor] = operator(
    "view(Tensor input, int[] size)",
    lazy_check=True,
    type=lambda input, size: type_of(input).with_shape(size),
    numpy=view_array,
    kind=VIEW,
    derivative={"input": lambda g, input_type: g.reshape(input_type.shape)},
    normalize=lambda input, size: (input, infer_size(input.shape, size)),
    scatter=lambda base, new, size: new.reshape(tuple(base.shape)),
    samples=_view_samples,
    categories="bifc",
    doc="Another shape over the same memory.",
    public=False,
    method=False,
)


def _squeeze_normalize(input: Any, dim: Sequence[Any] | None) -> tuple[Any, ...]:
    rank = len(input.shape)
    dims = range(rank) if dim is None else [wrap_dim(d, rank) for d in dim]
    if len(set(dims)) != len(dims):
        repeated = next(d for d in dims if list(dims).count(d) > 1)
        raise RuntimeError(f"dim {repeated} appears multiple times in the list of dims")
    return input, tuple(d for d in sorted(dims) if rank and input.shape[d] == 1)


def _squeezed(shape: Sequence[Any], dim: tuple[int, ...]) -> tuple[Any, ...]:
    return tuple(n for i, n in enumerate(shape) if i not in dim)


_squeeze: Callable[..., Tensor] = operator(
    "squeeze(Tensor input, int[]? dim=None)",
    lazy_check=True,
    type=lambda input, dim: type_of(input).with_shape(_squeezed(input.shape, dim)),
    numpy=lambda input, dim: input.squeeze(dim),
    kind=VIEW,
    derivative={"input": lambda g, input_type: g.reshape(input_type.shape)},
    decompose=lambda input, dim: view(input, _squeezed(input.shape, dim)),
    normalize=_squeeze_normalize,
    scatter=lambda base, new, dim: new.reshape(tuple(base.shape)),
    samples=lambda make: [
        sample(make(2, 1, 3, 1)),
        sample(make(2, 1, 3, 1), -1),
        sample(make(2, 1, 3, 1), (1, 2)),
        sample(make(), 0),
    ],
    categories="bifc",
    doc="Drop dimensions of size 1: all of them, or those given.",
)


@function(method=True)
def squeeze(input: Tensor, dim: Any = None, *, axis: Any = None) -> Tensor:
    """Drop dimensions of size 1: all of them, or those given, as `dim` or as `axis`. See torch.squeeze."""
    if axis is not None:
        if dim is not None:
            raise TypeError("squeeze() got multiple values for argument 'dim'")
        dim = axis
    result = _squeeze(input, dim)
    if dim is not None and result._node is not None:
        return renamed(result, "SqueezeBackward2" if isinstance(dim, tuple | list) else "SqueezeBackward1")
    return result


squeeze.operator = _squeeze.operator  # type: ignore[attr-defined]


def _unsqueezed(shape: Sequence[Any], dim: int) -> tuple[Any, ...]:
    return (*shape[:dim], 1, *shape[dim:])


def _unsqueeze_numpy(input: Any, dim: int) -> Any:
    shape = _unsqueezed(input.shape, dim)
    if input.flags.c_contiguous:
        return input.reshape(shape)
    step = input.shape[dim] * input.strides[dim] if dim < input.ndim else input.itemsize
    return as_strided_array(input, shape, (*input.strides[:dim], step, *input.strides[dim:]))


unsqueeze: Callable[..., Tensor] = operator(
    "unsqueeze(Tensor input, int dim)",
    lazy_check=True,
    type=lambda input, dim: type_of(input).with_shape(_unsqueezed(tuple(input.shape), dim)),
    numpy=_unsqueeze_numpy,
    kind=VIEW,
    derivative={"input": lambda g, dim: squeeze(g, dim)},
    decompose=lambda input, dim: view(input, _unsqueezed(tuple(input.shape), dim)),
    normalize=lambda input, dim: (input, wrap_dim(dim, len(input.shape) + 1)),
    scatter=lambda base, new, dim: squeeze(new, dim),
    samples=lambda make: [sample(make(2, 3), 1), sample(make(2, 3), -1), sample(make(2, 3), 0), sample(make(), 0)],
    categories="bifc",
    doc="Insert a dimension of size 1.",
)


# -- slice, select ----------------------------------------------------------------------------------------------------


def _slice_normalize(input: Any, dim: Any, start: Any, end: Any, step: Any) -> tuple[Any, ...]:
    if not len(input.shape):
        raise IndexError("slice() cannot be applied to a 0-dim tensor.")
    dim = wrap_dim(dim, len(input.shape))
    if step <= 0:
        raise RuntimeError("slice step must be positive")
    size = input.shape[dim]
    first = 0 if start is None else _clamp(start, size)
    last = size if end is None or (type(end) is int and end == sys.maxsize) else _clamp(end, size)
    if last is not size and last < first:
        last = first
    return input, dim, first, last, step


def _clamp(position: Any, size: Any) -> Any:
    """A slice bound counted from the front and inside [0, size]."""
    if position is size or (type(position) is int and position == 0):
        return position
    if position < 0:
        position = position + size
        return 0 if position < 0 else position
    return size if position > size else position


def slice_length(start: Any, end: Any, step: Any) -> Any:
    """How many elements a normalised slice has."""
    span = end if type(start) is int and start == 0 else end - start
    return span if type(step) is int and step == 1 else (span + (step - 1)) // step


def _slice_type(input: Any, dim: int, start: Any, end: Any, step: Any) -> TensorType:
    shape = list(input.shape)
    shape[dim] = slice_length(start, end, step)
    return type_of(input).with_shape(shape)


def _slice_numpy(input: Any, dim: int, start: int, end: int, step: int) -> Any:
    return input[(slice(None),) * dim + (slice(start, end, step),)]


def _slice_samples(make: Any) -> Iterable[Sample]:
    yield sample(make(5, 3), 0, 1, 4, 1)
    yield sample(make(5, 3), -1, -2, None, 1)
    yield sample(make(7), 0, 1, 100, 3)
    yield sample(make(4, 2), 0, 3, 1, 1)


slice_: Callable[..., Tensor] = operator(
    "slice(Tensor input, int dim=0, int? start=None, int? end=None, int step=1)",
    lazy_check=True,
    type=_slice_type,
    numpy=_slice_numpy,
    kind=VIEW,
    derivative={
        "input": lambda g, input_type, dim, start, end, step: slice_backward(g, input_type.shape, dim, start, end, step)
    },
    normalize=_slice_normalize,
    scatter=lambda base, new, dim, start, end, step: slice_scatter(base, new, dim, start, end, step),
    samples=_slice_samples,
    categories="bifc",
    doc="Every `step`-th element from `start` up to `end` along a dimension.",
    public=False,
    method=False,
)


def _select_normalize(input: Any, dim: Any, index: Any) -> tuple[Any, ...]:
    rank = len(input.shape)
    if not rank:
        raise IndexError("select() cannot be applied to a 0-dim tensor.")
    dim = wrap_dim(dim, rank)
    size = input.shape[dim]
    if index < 0:
        if index < -size:
            raise IndexError(_select_message(index, input.shape, dim))
        index = index + size
    elif index >= size:
        raise IndexError(_select_message(index, input.shape, dim))
    return input, dim, index


def _select_message(index: Any, shape: Sequence[Any], dim: int) -> str:
    return f"select(): index {index} out of range for tensor of size {list(shape)} at dimension {dim}"


def _select_type(input: Any, dim: int, index: Any) -> TensorType:
    return type_of(input).with_shape((*input.shape[:dim], *input.shape[dim + 1 :]))


select: Callable[..., Tensor] = operator(
    "select(Tensor input, int dim, int index)",
    lazy_check=True,
    type=_select_type,
    # The Ellipsis keeps the result an array (a view) where no dimension is left.
    numpy=lambda input, dim, index: input[(slice(None),) * dim + (index, ...)],
    kind=VIEW,
    derivative={"input": lambda g, input_type, dim, index: select_backward(g, input_type.shape, dim, index)},
    normalize=_select_normalize,
    scatter=lambda base, new, dim, index: select_scatter(base, new, dim, index),
    samples=lambda make: [sample(make(3, 4), 0, 1), sample(make(3, 4), -1, -2), sample(make(5), 0, 4)],
    categories="bifc",
    doc="One index of a dimension, which the result lacks.",
)


# -- diagonal, as_strided, unfold -------------------------------------------------------------------------------------


def _diagonal_normalize(input: Any, offset: Any, dim1: Any, dim2: Any) -> tuple[Any, ...]:
    rank = len(input.shape)
    first, second = wrap_dim(dim1, rank), wrap_dim(dim2, rank)
    if first == second:
        raise RuntimeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    return input, offset, first, second


def _diagonal_type(input: Any, offset: Any, dim1: int, dim2: int) -> TensorType:
    rows, columns = input.shape[dim1], input.shape[dim2]
    if offset >= 0:
        columns = columns - offset
    else:
        rows = rows + offset
    length = columns if rows is columns or columns <= rows else rows
    rest = [n for i, n in enumerate(input.shape) if i not in (dim1, dim2)]
    return type_of(input).with_shape((*rest, 0 if length < 0 else length))


def _diagonal_numpy(input: Any, offset: int, dim1: int, dim2: int) -> Any:
    found = input.diagonal(offset, dim1, dim2)
    if input.flags.writeable:
        found.flags.writeable = True  # NumPy's diagonals are read-only by policy
    return found


diagonal: Callable[..., Tensor] = operator(
    "diagonal(Tensor input, int offset=0, int dim1=0, int dim2=1)",
    type=_diagonal_type,
    numpy=_diagonal_numpy,
    kind=VIEW,
    derivative={
        "input": lambda g, input_type, offset, dim1, dim2: diagonal_backward(g, input_type.shape, offset, dim1, dim2)
    },
    normalize=_diagonal_normalize,
    scatter=lambda base, new, offset, dim1, dim2: diagonal_scatter(base, new, offset, dim1, dim2),
    samples=lambda make: [
        sample(make(3, 4)),
        sample(make(3, 4), 1),
        sample(make(2, 3, 4), -1, 2, 0),
        sample(make(2, 2), 5),
    ],
    categories="bifc",
    doc="A diagonal of two dimensions as the last dimension.",
)


def _unfold_normalize(input: Any, dimension: Any, size: Any, step: Any) -> tuple[Any, ...]:
    dimension = wrap_dim(dimension, len(input.shape))
    length = input.shape[dimension] if len(input.shape) else 1
    if size < 0:
        raise RuntimeError(f"size is {size} but must be >= 0")
    if size > length:
        raise RuntimeError(f"maximum size for tensor at dimension {dimension} is {length} but size is {size}")
    if step <= 0:
        raise RuntimeError(f"step is {step} but must be > 0")
    return input, dimension, size, step


def _unfold_type(input: Any, dimension: int, size: Any, step: Any) -> TensorType:
    shape = list(input.shape)
    if not shape:
        return type_of(input).with_shape((size,))
    shape[dimension] = (shape[dimension] - size) // step + 1
    return type_of(input).with_shape((*shape, size))


def _unfold_numpy(input: Any, dimension: int, size: int, step: int) -> Any:
    if not input.ndim:
        return as_strided_array(input, (size,), (input.itemsize,))
    shape, strides = list(input.shape), list(input.strides)
    shape[dimension] = (shape[dimension] - size) // step + 1
    strides[dimension] *= step
    return as_strided_array(input, (*shape, size), (*strides, input.strides[dimension]))


unfold: Callable[..., Tensor] = operator(
    "unfold(Tensor input, int dimension, int size, int step)",
    type=_unfold_type,
    numpy=_unfold_numpy,
    kind=VIEW,
    derivative={
        "input": lambda g, input_type, dimension, size, step: unfold_backward(
            g, input_type.shape, dimension, size, step
        )
    },
    normalize=_unfold_normalize,
    scatter=lambda base, new, dimension, size, step: unfold_scatter(base, new, dimension, size, step),
    samples=lambda make: [sample(make(7), 0, 3, 2), sample(make(2, 6), -1, 2, 1), sample(make(4, 3), 0, 2, 2)],
    categories="bifc",
    doc="Windows of `size` elements, `step` apart, as a new last dimension.",
)


def _as_strided_normalize(
    input: Any, size: tuple[Any, ...], stride: tuple[Any, ...], offset: Any, input_stride: tuple[Any, ...] | None
) -> tuple[Any, ...]:
    if len(size) != len(stride):
        raise RuntimeError(f"mismatch in length of strides and shape: {len(size)} and {len(stride)}")
    for s in stride:
        if s < 0:
            raise RuntimeError(
                f"as_strided: Negative strides are not supported at the moment, got strides: {list(stride)}"
            )
    if any(type(n) is int and n < 0 for n in size):
        raise RuntimeError(f"Storage size calculation overflowed with sizes={list(size)} and strides={list(stride)}")
    if input_stride is None:
        input_stride = contiguous_strides(input.shape)
    if len(input_stride) != len(input.shape) or any(type(s) is int and s < 0 for s in input_stride):
        raise RuntimeError(f"as_strided: an operand of shape {list(input.shape)} can't have strides {input_stride}")
    return input, size, stride, offset, input_stride


def _as_strided_numpy(
    input: Any, size: tuple[int, ...], stride: tuple[int, ...], offset: int, input_stride: tuple[int, ...]
) -> Any:
    width = input.itemsize
    own = tuple(s // width for s in input.strides)
    if any(a != b for a, b, n in zip(own, input_stride, input.shape, strict=True) if n > 1):
        # As a value the operand may come in another layout than the one that `stride` counts in.
        extent = 1 + sum((n - 1) * s for n, s in zip(input.shape, input_stride, strict=True)) if input.size else 0
        memory = np.zeros(max(extent, 1), input.dtype)
        as_strided_array(memory, input.shape, tuple(s * width for s in input_stride))[...] = input
        input = memory
    if 0 not in size:
        last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
        low, high = _memory_of(input)
        start = input.__array_interface__["data"][0]
        if start + offset * width < low or start + (last + 1) * width > high:
            raise RuntimeError(
                f"setStorage: sizes {list(size)}, strides {list(stride)}, storage offset "
                f"{(start - low) // width + offset}, and itemsize {width} requiring a storage size of "
                f"{(start - low) + (last + 1) * width} are out of bounds for storage of size {high - low}"
            )
    if offset:
        # NumPy has no way to shift an array's start except by slicing it: first a flat view that reaches as far as
        # needed.
        reach = abs(offset) + 1
        flat = as_strided_array(input, (reach,), (width if offset > 0 else -width,))
        input = flat[reach - 1 :]
    return as_strided_array(input, size, tuple(s * width for s in stride))


def _memory_of(array: Any) -> tuple[int, int]:
    """The first and past-the-last address of the memory that an array is a view of."""
    low, high = np.lib.array_utils.byte_bounds(array)
    owner = array
    while owner is not None:
        if isinstance(owner, np.ndarray) and owner.size:
            a, b = np.lib.array_utils.byte_bounds(owner)
            low, high = min(low, a), max(high, b)
        owner = getattr(owner, "base", None)
    return low, high


as_strided_: Callable[..., Tensor] = operator(
    "as_strided(Tensor input, int[] size, int[] stride, int offset=0, int[]? input_stride=None)",
    type=lambda input, size, stride, offset, input_stride: type_of(input).with_shape(size),
    numpy=_as_strided_numpy,
    kind=VIEW,
    derivative={
        "input": lambda g, input_type, size, stride, offset, input_stride: as_strided_backward(
            g, input_type.shape, size, stride, offset, input_stride
        )
    },
    normalize=_as_strided_normalize,
    scatter=lambda base, new, size, stride, offset, input_stride: as_strided_scatter(
        base, new, size, stride, offset, input_stride
    ),
    samples=lambda make: [
        sample(make(12), (3, 4), (4, 1)),
        sample(make(3, 4), (2, 2), (4, 2), 1),
        sample(make(6), (4, 3), (1, 1)),
    ],
    categories="bifc",
    doc=(
        "Any strides over the memory of `input`; `offset` counts from its first element, `input_stride` are its own "
        "strides."
    ),
    public=False,
    method=False,
)


# -- putting viewed elements back -------------------------------------------------------------------------------------


def _attributes_of(viewing: Callable[..., Any]) -> str:
    signature: str = viewing.operator.signature()  # type: ignore[attr-defined]
    return signature[signature.index(",") : -1]


def needing(formula: Callable[..., Any], *names: str) -> Callable[..., Any]:
    """Declare what a formula over any view's attributes needs: formulas are read by their parameter names."""
    parameters = [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD) for n in names]
    formula.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return formula


def _scatter_record(viewing: Callable[..., Any], name: str) -> Callable[..., Any]:
    """`name(input, src, *attributes)`: `input` with the elements that the view shows replaced by `src`."""
    op = viewing.operator  # type: ignore[attr-defined]
    names = [p.name for p in op.parameters[1:]]

    def normalize(input: Any, src: Any, *attributes: Any) -> tuple[Any, ...]:
        _, *rest = op.normalize(input, *attributes)
        return (input, src, *rest)

    def type_rule(input: Any, src: Any, *attributes: Any) -> TensorType:
        shown = op.type_rule(input, *attributes)
        if tuple(shown.shape) != tuple(src.shape):
            raise RuntimeError(
                f"expected src to have a size equal to the slice of self. src size = {list(src.shape)}, slice size = "
                f"{list(shown.shape)}"
            )
        return type_of(input)

    def run(input: Any, src: Any, *attributes: Any) -> Any:
        result = same_strides(input)
        op.numpy(result, *attributes)[...] = src
        return result

    def samples(make: Any) -> Iterable[Sample]:
        for example in op.samples(make):
            base, *attributes = op.normalize(example.args[0], *_with_defaults(op, example.args[1:]))
            places = op.numpy(np.arange(base.numel()).reshape(base.shape), *attributes)
            if np.unique(places).size == places.size:  # what a view with repeats would write is unspecified
                yield sample(base, make(*places.shape), *attributes)

    def to_input(g: Any, src_type: TensorType, *attributes: Any) -> Any:
        return made(g, g.new_zeros(src_type.shape), *attributes)

    def to_src(g: Any, *attributes: Any) -> Any:
        return viewing(g, *attributes)

    made: Callable[..., Any] = operator(
        f"{name}(Tensor input, Tensor src{_attributes_of(viewing)})",
        order={"result": lambda shape, input, *_: kept_strides(*layout_of(input))},
        type=type_rule,
        numpy=run,
        kind=OPAQUE,
        derivative={"input": needing(to_input, "g", "src_type", *names), "src": needing(to_src, "g", *names)},
        normalize=normalize,
        samples=samples,
        categories="bifc",
        doc=f"`input` with the elements of its `{op.name}` replaced by `src`, as a new tensor.",
        public=name not in ("as_strided_scatter", "unfold_scatter"),
        method=name not in ("as_strided_scatter", "unfold_scatter"),
    )
    return made


def _backward_record(viewing: Callable[..., Any], name: str) -> Callable[..., Any]:
    """`name(input, input_sizes, *attributes)`: the cotangent of a view put (where it overlaps: added) into zeros."""
    op = viewing.operator  # type: ignore[attr-defined]
    names = [p.name for p in op.parameters[1:]]
    overlapping = op.name in ("unfold", "as_strided")

    def type_rule(input: Any, input_sizes: tuple[Any, ...], *attributes: Any) -> TensorType:
        return type_of(input).with_shape(input_sizes)

    def run(input: Any, input_sizes: tuple[int, ...], *attributes: Any) -> Any:
        if op.name == "as_strided":
            return _as_strided_backward_numpy(input, input_sizes, *attributes)
        result = np.zeros(input_sizes, input.dtype)
        if overlapping:
            positions = op.numpy(np.arange(result.size).reshape(input_sizes), *attributes)
            _add_at(result.reshape(-1), positions, input)
        else:
            op.numpy(result, *attributes)[...] = input
        return result

    def samples(make: Any) -> Iterable[Sample]:
        for example in op.samples(make):
            base, *attributes = op.normalize(example.args[0], *_with_defaults(op, example.args[1:]))
            shown = op.type_rule(base, *attributes)
            yield sample(make(*shown.shape), tuple(base.shape), *attributes)

    def to_input(g: Any, *attributes: Any) -> Any:
        return viewing(g, *attributes)

    return operator(
        f"{name}(Tensor input, int[] input_sizes{_attributes_of(viewing)})",
        type=type_rule,
        numpy=run,
        kind=OPAQUE,
        derivative={"input": needing(to_input, "g", *names)},
        samples=samples,
        categories="fc",
        public=False,
        method=False,
    )


def _with_defaults(op: Any, attributes: tuple[Any, ...]) -> tuple[Any, ...]:
    """Sample attributes completed with the signature's defaults."""
    missing = [p.default for p in op.parameters[1 + len(attributes) :]]
    return (*attributes, *missing)


def _add_at(flat: Any, positions: Any, values: Any) -> None:
    if flat.dtype.kind == "V" or flat.dtype.itemsize == 2:
        # Sums of half-precision cotangents accumulate in float32, as PyTorch's do.
        wide = np.zeros(flat.shape, np.float32)
        np.add.at(wide, positions, values.astype(np.float32))
        flat[...] = wide.astype(flat.dtype)
    else:
        np.add.at(flat, positions, values)


def _as_strided_backward_numpy(
    input: Any, input_sizes: tuple[int, ...], size: Any, stride: Any, offset: int, input_stride: tuple[int, ...]
) -> Any:
    """Cotangents by storage position: added up where the view shows a position twice, shared where the operand does."""

    def positions(shape: Any, strides: Any, first: int) -> Any:
        at = np.full(shape, first, np.int64)
        for i, (n, s) in enumerate(zip(shape, strides, strict=True)):
            at += (np.arange(n) * s).reshape((n,) + (1,) * (len(shape) - 1 - i))
        return at

    shown, own = positions(size, stride, offset), positions(input_sizes, input_stride, 0)
    low = min(int(shown.min(initial=0)), 0)
    extent = max(int(shown.max(initial=0)), int(own.max(initial=0))) - low + 1
    memory = np.zeros(extent, input.dtype)
    _add_at(memory, shown - low, input)
    repeats = np.bincount((own - low).ravel(), minlength=extent)[own - low]
    found = memory[own - low]
    return found if repeats.max(initial=1) <= 1 else (found / repeats).astype(input.dtype)


slice_scatter: Callable[..., Tensor] = _scatter_record(slice_, "slice_scatter")
select_scatter: Callable[..., Tensor] = _scatter_record(select, "select_scatter")
diagonal_scatter: Callable[..., Tensor] = _scatter_record(diagonal, "diagonal_scatter")
unfold_scatter: Callable[..., Tensor] = _scatter_record(unfold, "unfold_scatter")
as_strided_scatter: Callable[..., Tensor] = _scatter_record(as_strided_, "as_strided_scatter")
slice_backward: Callable[..., Tensor] = _backward_record(slice_, "slice_backward")
select_backward: Callable[..., Tensor] = _backward_record(select, "select_backward")
diagonal_backward: Callable[..., Tensor] = _backward_record(diagonal, "diagonal_backward")
unfold_backward: Callable[..., Tensor] = _backward_record(unfold, "unfold_backward")
as_strided_backward: Callable[..., Tensor] = _backward_record(as_strided_, "as_strided_backward")
