"""Dtypes in the array API standard: casting, promotion, and what the namespace says of itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

from graphtorch.tensor import dtypes
from graphtorch.tensor.devices import CPU, META, get_default_device
from graphtorch.tensor.devices import device as device_class
from graphtorch.tensor.dtypes import COMPLEX, FLOATING, INTEGRAL, dtype
from graphtorch.tensor.tensor import Tensor

# The standard's dtypes that exist here, in its order. float16 and bfloat16 are no part of the standard.
STANDARD = (
    dtypes.bool_,
    dtypes.int8,
    dtypes.int16,
    dtypes.int32,
    dtypes.int64,
    dtypes.uint8,
    dtypes.float32,
    dtypes.float64,
    dtypes.complex64,
    dtypes.complex128,
)

_KINDS: dict[str, Callable[[dtype], bool]] = {
    "bool": lambda d: d is dtypes.bool_,
    "signed integer": lambda d: d.category == INTEGRAL and d.is_signed,
    "unsigned integer": lambda d: d.category == INTEGRAL and not d.is_signed,
    "integral": lambda d: d.category == INTEGRAL,
    "real floating": lambda d: d.category == FLOATING,
    "complex floating": lambda d: d.category == COMPLEX,
    "numeric": lambda d: d.category >= INTEGRAL,
}


def isdtype(dtype: dtype, kind: Any) -> bool:
    """Whether a dtype is of a kind: a dtype, one of the standard's names of kinds, or a tuple of these (any of them).

    Raises ValueError for an unknown name, TypeError for anything else.
    """
    if isinstance(kind, tuple):
        return any([isdtype(dtype, each) for each in kind])
    if isinstance(kind, str):
        test = _KINDS.get(kind)
        if test is None:
            raise ValueError(f"isdtype(): unknown kind {kind!r}; the kinds are {', '.join(map(repr, _KINDS))}")
        return test(dtype)
    if not isinstance(kind, dtypes.dtype):
        raise TypeError(f"isdtype(): 'kind' must be a dtype, str or tuple of them, not {type(kind).__name__}")
    return dtype is kind


def result_type(*arrays_and_dtypes: Any) -> dtype:
    """The dtype that these arrays, dtypes and Python numbers promote to. Arrays count alike whatever their rank; a
    Python number counts only where its kind is the higher one.

    Raises ValueError without an array or dtype.
    """
    own = [a if isinstance(a, dtype) else a.dtype for a in arrays_and_dtypes if not _is_number(a)]
    if not own:
        raise ValueError("result_type(): at least one array or dtype is required")
    found = reduce(dtypes.promote_types, own)
    for value in arrays_and_dtypes:
        if _is_number(value):
            found = dtypes.combine(found, None, dtypes.dtype_of_number(value))
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, bool | int | float | complex)


def promoted(*values: Any) -> tuple[Any, ...]:
    """The operands of an elementwise function as tensors of their common dtype."""
    d = result_type(*values)
    device = next(v.device for v in values if isinstance(v, Tensor))
    return tuple(_as_tensor(v, d, device) for v in values)


def _as_tensor(value: Any, d: dtype, device: device_class) -> Tensor:
    from graphtorch.ops import FUNCTIONS

    if isinstance(value, Tensor):
        cast: Tensor = value if value.dtype is d else value.to(d)
        return cast
    made: Tensor = FUNCTIONS["full"]((), value, dtype=d, device=device)
    return made


def can_cast(from_: dtype | Tensor, to: dtype, /) -> bool:
    """Whether a value of a dtype (or of an array) converts to another one by promotion alone."""
    source = from_.dtype if isinstance(from_, Tensor) else from_
    return dtypes.promote_types(source, to) is to


def astype(x: Tensor, dtype: dtype, /, *, copy: bool = True, device: Any = None) -> Tensor:
    """The elements of `x` in another dtype. Without `copy`, `x` itself where nothing changes.

    Raises TypeError for complex values to be cast to a real dtype.
    """
    if x.dtype.is_complex and not dtype.is_complex:
        raise TypeError(f"astype(): casting from {x.dtype!r} to {dtype!r} would drop the imaginary parts")
    made: Tensor = x.to(x.device if device is None else device, dtype)
    return made.clone() if copy and made is x else made


class finfo(dtypes.finfo):
    """Numerical properties of a real or complex floating dtype, or of an array's. `dtype` is a dtype here."""

    def __init__(self, type: dtype | Tensor, /) -> None:
        d = type.dtype if isinstance(type, Tensor) else type
        super().__init__(d)
        self.dtype: Any = d.to_real()


class iinfo(dtypes.iinfo):
    """Numerical properties of an integer dtype, or of an array's. `dtype` is a dtype here."""

    def __init__(self, type: dtype | Tensor, /) -> None:
        d = type.dtype if isinstance(type, Tensor) else type
        super().__init__(d)
        self.dtype: Any = d


class Info:
    """What the namespace can do. See https://data-apis.org/array-api/2024.12/API_specification/inspection.html."""

    def capabilities(self) -> dict[str, Any]:
        """Boolean masks and results whose shape depends on data work; ranks end where NumPy's do."""
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": 64}

    def default_device(self) -> device_class:
        return get_default_device()

    def devices(self) -> list[device_class]:
        """Where eager tensors live; `meta` has shapes and no data."""
        return [CPU, META]

    def default_dtypes(self, *, device: Any = None) -> dict[str, dtype]:
        real = dtypes.get_default_dtype()
        return {
            "real floating": real,
            "complex floating": real.to_complex(),
            "integral": dtypes.int64,
            "indexing": dtypes.int64,
        }

    def dtypes(self, *, device: Any = None, kind: Any = None) -> dict[str, dtype]:
        """The standard's dtypes by name: all of them, or those of a kind or tuple of kinds."""
        return {d.name: d for d in STANDARD if kind is None or isdtype(d, kind)}


def __array_namespace_info__() -> Info:
    """The inspection object of the standard."""
    return Info()
