"""Dimensions and shapes: wrapping negative dims, reduced shapes, the checks and messages that families share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def wrap_dim(dim: Any, rank: int) -> int:
    """A dimension counted from the front; a zero-dimensional tensor has the dims -1 and 0 as in PyTorch.

    Raises IndexError with PyTorch's message.
    """
    span = max(rank, 1)
    if not -span <= dim < span:
        raise IndexError(f"Dimension out of range (expected to be in range of [{-span}, {span - 1}], but got {dim})")
    return int(dim + span if dim < 0 else dim)


def wrap_dims(dims: int | Iterable[int] | None, rank: int, *, empty_is_all: bool = True) -> tuple[int, ...]:
    """Sorted non-negative dimensions to reduce. None, and an empty list if `empty_is_all`, mean every one.

    Raises IndexError for a dim out of range and RuntimeError for one given twice, with PyTorch's messages.
    """
    if dims is None:
        return tuple(range(rank))
    given = (dims,) if isinstance(dims, int) else tuple(dims)
    if not given and empty_is_all:
        return tuple(range(rank))
    wrapped: set[int] = set()
    for dim in given:
        found = wrap_dim(dim, rank)
        if found in wrapped:
            raise RuntimeError(f"dim {found} appears multiple times in the list of dims")
        wrapped.add(found)
    if rank == 0:
        return ()
    return tuple(sorted(wrapped))


def reduced_shape(shape: Sequence[Any], dims: Sequence[int], keepdim: bool) -> tuple[Any, ...]:
    """`shape` without `dims` (already wrapped), or with ones in their place."""
    if keepdim:
        return tuple(1 if i in dims else size for i, size in enumerate(shape))
    return tuple(size for i, size in enumerate(shape) if i not in dims)


def keep_dims(value: Any, dims: Sequence[int], rank: int, keepdim: bool) -> Any:
    """Give a reduced value its reduced dimensions back, of size 1, so that it broadcasts against what was reduced."""
    if keepdim or not dims or rank == 0:
        return value
    sizes = iter(value.shape)
    return value.reshape(tuple(1 if i in dims else next(sizes) for i in range(rank)))


def count(shape: Sequence[Any], dims: Sequence[int]) -> Any:
    """How many elements a reduction over `dims` folds into one; symbolic if a size is."""
    total: Any = 1
    for dim in dims:
        total = total * shape[dim]
    return total
