"""Arithmetic of shapes and strides: inferring sizes, finding strides for another shape, permutations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from graphtorch.tensor.formats import ORDERS


def concrete(size: Any) -> int:
    """The example value of a size: itself, or what a symbolic size was when the capture began."""
    return size if type(size) is int else int(getattr(size, "hint", size))


def product(sizes: Iterable[Any]) -> Any:
    """The product of sizes, some of which may be symbolic."""
    total: Any = 1
    for size in sizes:
        total = total * size
    return total


def extent(shape: Sequence[int], strides: Sequence[int]) -> int:
    """How many elements lie from the first to the last of an array, with what is between them."""
    return 0 if 0 in shape else 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))


def infer_size(shape: Sequence[Any], size: Sequence[Any]) -> tuple[Any, ...]:
    """`size` with its -1 resolved for a tensor of `shape`.

    Raises RuntimeError with PyTorch's messages for a size that doesn't fit.
    """
    unknown = -1
    for i, n in enumerate(size):
        if type(n) is int and n < 0:
            if n != -1:
                raise RuntimeError(f"invalid shape dimension {n} at index {i} of shape {list(size)}")
            if unknown >= 0:
                raise RuntimeError("only one dimension can be inferred")
            unknown = i
    if unknown < 0:
        if tuple(size) != tuple(shape) and product(size) != product(shape):
            raise RuntimeError(f"shape '{list(size)}' is invalid for input of size {product(shape)}")
        return tuple(size)
    # Sizes that occur on both sides cancel, which keeps quotients of symbolic sizes simple.
    have = list(shape)
    rest: list[Any] = []
    for i, n in enumerate(size):
        if i == unknown:
            continue
        same = next((j for j, m in enumerate(have) if m is n and type(n) is not int), -1)
        if same >= 0:
            del have[same]
        else:
            rest.append(n)
    total, known = product(have), product(rest)
    if type(known) is int and known == 0:
        if product(shape) == 0:
            raise RuntimeError(
                f"cannot reshape tensor of 0 elements into shape {list(size)} because the unspecified dimension size "
                "-1 can be any value and is ambiguous"
            )
        raise RuntimeError(f"shape '{list(size)}' is invalid for input of size {product(shape)}")
    if total % known != 0:
        raise RuntimeError(f"shape '{list(size)}' is invalid for input of size {product(shape)}")
    return (*size[:unknown], total // known, *size[unknown + 1 :])


def view_strides(shape: Sequence[int], strides: Sequence[int], size: Sequence[int]) -> tuple[int, ...] | None:
    """Strides that give an array of `shape` and `strides` the shape `size` without a copy; None where there are none.

    Walks both shapes from the end: each run of old dimensions whose elements lie at one constant step must be covered
    by whole new dimensions.
    """
    if product(shape) == 0:
        step = 1 if not strides else max(min(strides), 1)
        made = []
        for n in reversed(size):
            made.append(step)
            step *= max(n, 1)
        return tuple(strides) if tuple(size) == tuple(shape) else tuple(reversed(made))
    result = [0] * len(size)
    new = len(size) - 1
    step = strides[-1] if strides else 1
    run = 1  # elements of the current run of old dimensions
    covered = 1  # elements of it that new dimensions cover
    for old in range(len(shape) - 1, -1, -1):
        run *= shape[old]
        if old == 0 or (shape[old - 1] != 1 and strides[old - 1] != run * step):
            while new >= 0 and (covered < run or size[new] == 1):
                result[new] = covered * step
                covered *= size[new]
                new -= 1
            if covered != run:
                return None
            if old > 0:
                step = strides[old - 1]
                run = covered = 1
    while new >= 0:  # a zero-dimensional array gets dimensions of size 1
        result[new] = step
        new -= 1
    return tuple(result)


def contiguous_strides(shape: Sequence[Any]) -> tuple[Any, ...]:
    """Row-major strides in elements."""
    strides: list[Any] = []
    step: Any = 1
    for n in reversed(shape):
        strides.append(step)
        step = step * n
    return tuple(reversed(strides))


def inverse_permutation(dims: Sequence[int]) -> tuple[int, ...]:
    """The permutation that undoes `dims`."""
    inverse = [0] * len(dims)
    for i, d in enumerate(dims):
        inverse[d] = i
    return tuple(inverse)


def row_major(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The array, copied where its memory is in another order: the layout of most of PyTorch's results."""
    return array if array.flags.c_contiguous else copied_by_rows(array)


_BLOCK = 32  # elements
_PAGE = 4096  # bytes
_LARGE_COPY = 1 << 16  # elements


def copied_by_rows(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A row-major copy. NumPy goes row by row, and so reads a transposed matrix a cache line an element. Where these
    lie a multiple of a page apart, few of them fit into a cache at a time: such a matrix is copied in blocks."""
    last = array.ndim - 1
    if array.size < _LARGE_COPY or array.shape[last] <= _BLOCK or array.strides[last] % _PAGE:
        return array.copy(order="C")
    fastest = min((d for d in range(array.ndim) if array.shape[d] > 1), key=lambda d: abs(array.strides[d]))
    if array.shape[fastest] < _BLOCK or array.strides[fastest] != array.itemsize:
        return array.copy(order="C")
    made = np.empty(array.shape, array.dtype)
    source, target = np.moveaxis(array, fastest, 0), np.moveaxis(made, fastest, 0)
    for i in range(0, array.shape[fastest], _BLOCK):
        for j in range(0, array.shape[last], _BLOCK):
            target[i : i + _BLOCK, ..., j : j + _BLOCK] = source[i : i + _BLOCK, ..., j : j + _BLOCK]
    return made


def same_strides(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A copy with the same strides, gaps included, as far as `kept_strides` keeps them."""
    strides = kept_strides(*layout_of(array))
    copied = np.lib.stride_tricks.as_strided(
        np.empty(extent(array.shape, strides), array.dtype), array.shape, [s * array.itemsize for s in strides]
    )
    copied[...] = array
    return copied


def kept_strides(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, ...]:
    """Strides (in elements) of a copy that keeps those of its operand: row-major where elements share memory, and
    without gaps where these are more than the elements, for no caller can want that memory."""
    if 0 in shape or 0 in strides or any(s < 0 for s in strides):
        return contiguous_strides(shape)
    if extent(shape, strides) > 4 * math.prod(shape):
        return pointwise_strides(shape, [(shape, strides)])
    return strides


def laid_out(array: np.ndarray[Any, Any], strides: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """The array under dense strides (in elements): itself, or a copy."""
    wanted = tuple(s * array.itemsize for s in strides)
    if array.strides == wanted:
        return array
    moved = np.lib.stride_tricks.as_strided(np.empty(array.size, array.dtype), array.shape, wanted)
    moved[...] = array
    return moved


def under(array: np.ndarray[Any, Any], strides: Sequence[int]) -> np.ndarray[Any, Any]:
    """The array under strides, in elements, that differ from its own in dimensions of size 1 at most."""
    wanted = tuple(s * array.itemsize for s in strides)
    return array if array.strides == wanted else np.lib.stride_tricks.as_strided(array, array.shape, wanted)


def ordered_strides(
    order: str | None, shape: Sequence[int], operands: Sequence[tuple[Sequence[int], Sequence[int]]]
) -> tuple[int, ...]:
    """The strides of a result of an operator that states its memory order (`record.Operator.order`; None: row by row).

    `operands`: shape and strides, in elements, of the operator's operands.
    """
    if order == "columns" and len(shape) >= 2:
        *outside, rows, columns = contiguous_strides((*shape[:-2], shape[-1], shape[-2]))
        return (*outside, columns, rows)
    if order == "operands":
        return pointwise_strides(shape, operands)
    if order == "channels":
        like = any(channels_innermost(*layout) for layout in operands if len(layout[0]) == len(shape))
        innermost = (1, 3, 2, 0) if len(shape) == 4 else (1, 4, 3, 2, 0)
        return dense_strides(shape, innermost) if like else contiguous_strides(shape)
    if order == "input" and tuple(shape) == tuple(operands[0][0]):
        return pointwise_strides(shape, operands[:1])
    return contiguous_strides(shape)


def strides_in(
    memory_format: str | None, shape: Sequence[int], operand: tuple[Sequence[int], Sequence[int]]
) -> tuple[int, ...]:
    """The strides of a tensor of `shape` made in a memory format; without one, those that a copy of `operand` (shape,
    strides) gets.

    Raises RuntimeError for a format of another rank.
    """
    if memory_format is None:
        dense = tuple(operand[0]) == tuple(shape) and _is_dense(shape, operand[1], _by_stride(shape, operand[1]))
        return tuple(operand[1]) if dense else pointwise_strides(shape, [operand])
    order = ORDERS.get(memory_format)
    if order is None:
        return contiguous_strides(shape)
    if len(shape) != len(order):
        raise RuntimeError(f"required rank {len(order)} tensor to use {memory_format} format")
    return dense_strides(shape, order[::-1])


def suggested_format(shape: Sequence[int], strides: Sequence[int]) -> str:
    """PyTorch's `suggest_memory_format`: by its strides, gaps allowed."""
    if not channels_innermost(shape, strides):
        return "contiguous_format"
    return "channels_last" if len(shape) == 4 else "channels_last_3d"


def channels_innermost(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether a batch of images or volumes lies channels last, gaps allowed; PyTorch's `suggest_memory_format`."""
    if len(shape) not in (4, 5) or strides[1] == 0:
        return False
    least = 0
    for d in (1, *range(len(shape) - 1, 1, -1), 0):
        if shape[d] == 0 or strides[d] < least or (d == 0 and least == strides[1]):
            return False
        least = strides[d] * max(shape[d], 1)
    return True


def layout_of(operand: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape and strides, in elements, of an array; those of a Python number."""
    if not isinstance(operand, np.ndarray):
        return (), ()
    return operand.shape, tuple(s // operand.itemsize for s in operand.strides)


def like_pointwise(result: np.ndarray[Any, Any], operands: Sequence[Any]) -> np.ndarray[Any, Any]:
    """The result of a pointwise operator with the strides that PyTorch would give it.

    `operands` in the operator's order: arrays, and Python numbers where the operator takes tensors.
    """
    return laid_out(result, pointwise_strides(result.shape, [layout_of(a) for a in operands]))


def gradient_strides(shape: Sequence[int], strides: Sequence[int]) -> tuple[int, ...]:
    """The strides of the `.grad` of a leaf: the leaf's, if it lies without gaps, else row-major ones. See
    `AccumulateGrad` in PyTorch."""
    dense = _is_dense(shape, strides, _by_stride(shape, strides))
    return tuple(strides) if dense else contiguous_strides(shape)


def pointwise_strides(shape: Sequence[int], operands: Sequence[tuple[Sequence[int], Sequence[int]]]) -> tuple[int, ...]:
    """The strides that PyTorch gives to the result of a pointwise operator on operands of these (shape, strides).

    The result is dense, its dimensions in memory ordered as the first operand's, ties broken by the next ones'; dense
    operands of one shape and layout pass theirs on. See TensorIterator's `reorder_dimensions` in ATen.
    """
    rank = len(shape)
    layouts = [strides for own, strides in operands if tuple(own) == tuple(shape)]
    if len(layouts) == len(operands):
        if all(_is_dense(shape, s, range(rank)[::-1]) for s in layouts):
            return contiguous_strides(shape)
        if rank == 4 and all(_is_dense(shape, s, (1, 3, 2, 0)) for s in layouts):
            return dense_strides(shape, (1, 3, 2, 0))
        first = layouts[0]
        if all(tuple(s) == tuple(first) for s in layouts) and _is_dense(shape, first, _by_stride(shape, first)):
            return tuple(first)
    steps = []
    for own, strides in operands:
        lead = rank - len(own)
        spread = [
            0 if n == 1 and shape[lead + i] != 1 else s for i, (n, s) in enumerate(zip(own, strides, strict=True))
        ]
        steps.append([0] * lead + spread)

    def compare(a: int, b: int) -> int:
        """Positive where dimension `a` must lie outside `b`, negative for the reverse, 0 where no operand says."""
        for strides in steps:
            if strides[a] == 0 or strides[b] == 0:
                continue
            if strides[a] != strides[b]:
                return 1 if strides[a] > strides[b] else -1
            if shape[a] > shape[b]:
                return 1
        return 0

    order = list(range(rank))[::-1]  # fastest first
    for i in range(1, rank):  # insertion sort: the comparison is no total order
        at = i
        for j in range(i - 1, -1, -1):
            relation = compare(order[j], order[at])
            if relation > 0:
                order[j], order[at] = order[at], order[j]
                at = j
            elif relation < 0:
                break
    return contiguous_strides(shape) if order == list(range(rank))[::-1] else dense_strides(shape, order)


def dense_strides(shape: Sequence[int], order: Sequence[int]) -> tuple[int, ...]:
    """Strides without gaps, `order` the dimensions from the fastest on."""
    strides = [0] * len(shape)
    step = 1
    for dim in order:
        strides[dim] = step
        step *= shape[dim]
    return tuple(strides)


def _by_stride(shape: Sequence[int], strides: Sequence[int]) -> list[int]:
    return sorted(range(len(shape)), key=lambda d: (shape[d] > 1, strides[d]))


def _is_dense(shape: Sequence[int], strides: Sequence[int], order: Iterable[int]) -> bool:
    """Whether the elements lie without gaps in that order of dimensions; those of size 1 don't matter."""
    step = 1
    for dim in order:
        if shape[dim] != 1:
            if strides[dim] != step:
                return False
            step *= shape[dim]
    return True
