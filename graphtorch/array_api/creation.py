"""Making arrays, in the array API standard's words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphtorch import ops
from graphtorch.array_api.types import result_type
from graphtorch.tensor import creation
from graphtorch.tensor.dtypes import dtype as dtype_class
from graphtorch.tensor.dtypes import get_default_dtype, int64
from graphtorch.tensor.tensor import Tensor


def asarray(obj: Any, /, *, dtype: dtype_class | None = None, device: Any = None, copy: bool | None = None) -> Tensor:
    """An array of numbers, nested sequences, or anything with a buffer, DLPack or NumPy's protocol.

    Raises ValueError where `copy` is False and a copy would be needed.
    """
    return creation.asarray(obj, dtype=dtype, device=device, copy=copy)


def from_dlpack(x: Any, /, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """An array over the memory of an object with `__dlpack__`."""
    made: Tensor = ops.from_dlpack(x, device=device, copy=copy)
    return made


def arange(
    start: Any, /, stop: Any = None, step: Any = 1, *, dtype: dtype_class | None = None, device: Any = None
) -> Tensor:
    """`start, start + step, ...` up to, not including, `stop`; empty where `stop` lies the other way."""
    if stop is None:
        start, stop = 0, start
    if dtype is None:
        dtype = int64 if all(isinstance(v, int) for v in (start, stop, step)) else get_default_dtype()
    if (stop - start) * step < 0:
        return empty(0, dtype=dtype, device=device)
    made: Tensor = ops.arange(start, stop, step, dtype=dtype, device=device)
    return made


def linspace(
    start: Any, stop: Any, /, num: int, *, dtype: dtype_class | None = None, device: Any = None, endpoint: bool = True
) -> Tensor:
    """`num` evenly spaced numbers from `start` to `stop`, which is left out unless `endpoint`."""
    if dtype is None:
        real = get_default_dtype()
        dtype = real.to_complex() if isinstance(start, complex) or isinstance(stop, complex) else real
    if not endpoint:
        return linspace(start, stop, num + 1, dtype=dtype, device=device)[:num]
    made: Tensor = ops.linspace(start, stop, num, dtype=dtype, device=device)
    return made


def eye(
    n_rows: int,
    n_cols: int | None = None,
    /,
    *,
    k: int = 0,
    dtype: dtype_class | None = None,
    device: Any = None,
) -> Tensor:
    """Ones on the `k`-th diagonal, zeros elsewhere."""
    columns = n_rows if n_cols is None else n_cols
    rows: Tensor = ops.arange(n_rows, device=device)
    made: Tensor = rows[:, None] + k == ops.arange(columns, device=device)
    made = made.to(get_default_dtype() if dtype is None else dtype)
    return made


def empty(shape: Any, *, dtype: dtype_class | None = None, device: Any = None) -> Tensor:
    """Uninitialised memory."""
    made: Tensor = ops.empty(_shape(shape), dtype=dtype, device=device)
    return made


def zeros(shape: Any, *, dtype: dtype_class | None = None, device: Any = None) -> Tensor:
    """Zeros."""
    made: Tensor = ops.zeros(_shape(shape), dtype=dtype, device=device)
    return made


def ones(shape: Any, *, dtype: dtype_class | None = None, device: Any = None) -> Tensor:
    """Ones."""
    made: Tensor = ops.ones(_shape(shape), dtype=dtype, device=device)
    return made


def full(shape: Any, fill_value: Any, *, dtype: dtype_class | None = None, device: Any = None) -> Tensor:
    """One number everywhere."""
    made: Tensor = ops.full(_shape(shape), fill_value, dtype=dtype, device=device)
    return made


def _shape(shape: int | Sequence[int]) -> tuple[int, ...]:
    return (shape,) if isinstance(shape, int) else tuple(shape)


def empty_like(x: Tensor, /, *, dtype: dtype_class | None = None, device: Any = None) -> Tensor:
    """Uninitialised memory of the shape of `x`."""
    made: Tensor = ops.empty_like(x, dtype=dtype, device=device)
    return made


def zeros_like(x: Tensor, /, *, dtype: dtype_class | None = None, device: Any = None) -> Tensor:
    """Zeros of the shape of `x`."""
    made: Tensor = ops.zeros_like(x, dtype=dtype, device=device)
    return made


def ones_like(x: Tensor, /, *, dtype: dtype_class | None = None, device: Any = None) -> Tensor:
    """Ones of the shape of `x`."""
    made: Tensor = ops.ones_like(x, dtype=dtype, device=device)
    return made


def full_like(x: Tensor, /, fill_value: Any, *, dtype: dtype_class | None = None, device: Any = None) -> Tensor:
    """One number everywhere, in the shape of `x`."""
    made: Tensor = ops.full_like(x, fill_value, dtype=dtype, device=device)
    return made


def meshgrid(*arrays: Tensor, indexing: str = "xy") -> list[Tensor]:
    """Coordinate arrays of the grid that one-dimensional arrays span."""
    if not arrays:
        return []
    d = result_type(*arrays)
    return list(ops.meshgrid(*(a.to(d) for a in arrays), indexing=indexing))


def tril(x: Tensor, /, *, k: int = 0) -> Tensor:
    """Zero above the `k`-th diagonal."""
    made: Tensor = ops.tril(x, k)
    return made


def triu(x: Tensor, /, *, k: int = 0) -> Tensor:
    """Zero below the `k`-th diagonal."""
    made: Tensor = ops.triu(x, k)
    return made
