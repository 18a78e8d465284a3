"""Reductions and running reductions in the array API standard's words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphtorch import ops
from graphtorch.array_api.arrangement import concat
from graphtorch.tensor import dtypes
from graphtorch.tensor.dtypes import dtype as dtype_class
from graphtorch.tensor.tensor import Tensor

Axis = int | tuple[int, ...] | None


def _over(x: Tensor, axis: Axis, keepdims: bool, reduce: Callable[..., Any]) -> Tensor:
    """`reduce(x, dims, keepdims)` for the axes of the standard: None means all of them, () none of them."""
    if axis == ():
        # One axis more, of size 1, to reduce over.
        made: Tensor = reduce(x.unsqueeze(0), (0,), False)
        return made
    dims = tuple(range(x.ndim)) if axis is None else ((axis,) if isinstance(axis, int) else tuple(axis))
    if not dims:
        return _over(x, (), keepdims, reduce)
    made = reduce(x, dims, keepdims)
    return made


def _sum_dtype(x: Tensor, dtype: dtype_class | None) -> dtype_class | None:
    return dtypes.int64 if dtype is None and x.dtype.category <= dtypes.INTEGRAL else dtype


def sum(x: Tensor, /, *, axis: Axis = None, dtype: dtype_class | None = None, keepdims: bool = False) -> Tensor:
    """Sums; those of integers are int64 unless told."""
    d = _sum_dtype(x, dtype)
    return _over(x, axis, keepdims, lambda x, dims, keep: ops.sum(x, dims, keep, dtype=d))


def prod(x: Tensor, /, *, axis: Axis = None, dtype: dtype_class | None = None, keepdims: bool = False) -> Tensor:
    """Products; those of integers are int64 unless told."""
    d = _sum_dtype(x, dtype)

    def products(x: Tensor, dims: tuple[int, ...], keep: bool) -> Tensor:
        for dim in sorted((d % x.ndim for d in dims), reverse=True):
            x = ops.prod(x, dim, keep, dtype=d)
        return x

    return _over(x, axis, keepdims, products)


def mean(x: Tensor, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Arithmetic means."""
    return _over(x, axis, keepdims, ops.mean)


def var(x: Tensor, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """Variances: squared deviations summed and divided by the count less `correction`."""
    return _over(x, axis, keepdims, lambda x, dims, keep: ops.var(x, dims, correction=correction, keepdim=keep))


def std(x: Tensor, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """Standard deviations, the roots of `var`."""
    return _over(x, axis, keepdims, lambda x, dims, keep: ops.std(x, dims, correction=correction, keepdim=keep))


def max(x: Tensor, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Largest elements."""
    return _over(x, axis, keepdims, ops.amax)


def min(x: Tensor, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Smallest elements."""
    return _over(x, axis, keepdims, ops.amin)


def all(x: Tensor, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Whether all elements are true, or not zero."""
    return _over(x.to(dtypes.bool_), axis, keepdims, ops.all)


def any(x: Tensor, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Whether some element is true, or not zero."""
    return _over(x.to(dtypes.bool_), axis, keepdims, ops.any)


def _running(x: Tensor, axis: int | None, dtype: dtype_class | None, initial: int | None, name: str) -> Tensor:
    if axis is None:
        if x.ndim > 1:
            raise ValueError(f"{name}(): an array of {x.ndim} dimensions needs 'axis'")
        axis = 0
    operator = ops.cumsum if name == "cumulative_sum" else ops.cumprod
    made: Tensor = operator(x, axis, dtype=_sum_dtype(x, dtype))
    if initial is None:
        return made
    size = list(made.shape)
    size[axis] = 1
    return concat([ops.full(size, initial, dtype=made.dtype, device=made.device), made], axis=axis)


def cumulative_sum(
    x: Tensor,
    /,
    *,
    axis: int | None = None,
    dtype: dtype_class | None = None,
    include_initial: bool = False,
) -> Tensor:
    """Running sums along an axis; `include_initial` starts them with 0."""
    return _running(x, axis, dtype, 0 if include_initial else None, "cumulative_sum")


def cumulative_prod(
    x: Tensor,
    /,
    *,
    axis: int | None = None,
    dtype: dtype_class | None = None,
    include_initial: bool = False,
) -> Tensor:
    """Running products along an axis; `include_initial` starts them with 1."""
    return _running(x, axis, dtype, 1 if include_initial else None, "cumulative_prod")


def diff(
    x: Tensor, /, *, axis: int = -1, n: int = 1, prepend: Tensor | None = None, append: Tensor | None = None
) -> Tensor:
    """Differences between neighbours along an axis, `n` times."""
    made: Tensor = ops.diff(x, n, axis, prepend, append)
    return made
