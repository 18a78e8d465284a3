"""Searching, sorting and sets in the array API standard's words."""

from __future__ import annotations

from typing import Any, NamedTuple

from graphtorch import ops
from graphtorch.array_api.statistics import Axis, sum
from graphtorch.array_api.types import promoted
from graphtorch.tensor import dtypes
from graphtorch.tensor.tensor import Tensor


def argmax(x: Tensor, /, *, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Positions of the largest elements (the first ones among equals), along an axis or in the flattened array."""
    made: Tensor = ops.argmax(x, axis, keepdims)
    return made


def argmin(x: Tensor, /, *, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Positions of the smallest elements (the first ones among equals), along an axis or in the flattened array."""
    made: Tensor = ops.argmin(x, axis, keepdims)
    return made


def count_nonzero(x: Tensor, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """How many elements are not zero."""
    return sum(x != 0, axis=axis, keepdims=keepdims)


def nonzero(x: Tensor, /) -> tuple[Tensor, ...]:
    """The positions of elements that are not zero, an array an axis.

    Raises ValueError for a zero-dimensional array.
    """
    if x.ndim == 0:
        raise ValueError("nonzero(): a zero-dimensional array has no positions")
    return tuple(ops.nonzero(x, as_tuple=True))


def searchsorted(x1: Tensor, x2: Any, /, *, side: str = "left", sorter: Tensor | None = None) -> Tensor:
    """Where each element of `x2` belongs in the sorted one-dimensional `x1`."""
    if not isinstance(x2, Tensor) or x1.dtype is not x2.dtype:
        x1, x2 = promoted(x1, x2)
    made: Tensor = ops.searchsorted(x1, x2, side=side, sorter=sorter)
    return made


def sort(x: Tensor, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The elements in order along an axis."""
    made: Tensor = ops.sort(x, axis, descending, stable=stable)[0]
    return made


def argsort(x: Tensor, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The positions of the sorted elements along an axis."""
    made: Tensor = ops.argsort(x, axis, descending, stable)
    return made


class UniqueAll(NamedTuple):
    """`unique_all`: values, where each occurs first, where each element went, how often each occurs."""

    values: Tensor
    indices: Tensor
    inverse_indices: Tensor
    counts: Tensor


class UniqueCounts(NamedTuple):
    """`unique_counts`: values and how often each occurs."""

    values: Tensor
    counts: Tensor


class UniqueInverse(NamedTuple):
    """`unique_inverse`: values and where each element went."""

    values: Tensor
    inverse_indices: Tensor


def unique_all(x: Tensor, /) -> UniqueAll:
    """The distinct elements, sorted, and all that is known of them."""
    values, inverse, counts = ops.unique(x, return_inverse=True, return_counts=True)
    order = ops.argsort(inverse.reshape(-1), stable=True)
    starts = ops.cumsum(counts, 0) - counts
    return UniqueAll(values, order[starts], inverse.reshape(x.shape), counts)


def unique_counts(x: Tensor, /) -> UniqueCounts:
    """The distinct elements, sorted, and how often each occurs."""
    values, counts = ops.unique(x, return_counts=True)
    return UniqueCounts(values, counts)


def unique_inverse(x: Tensor, /) -> UniqueInverse:
    """The distinct elements, sorted, and where each element went."""
    values, inverse = ops.unique(x, return_inverse=True)
    return UniqueInverse(values, inverse.reshape(x.shape).to(dtypes.int64))


def unique_values(x: Tensor, /) -> Tensor:
    """The distinct elements, sorted."""
    made: Tensor = ops.unique(x)
    return made
