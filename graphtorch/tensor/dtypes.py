"""Data types and type promotion.

A `dtype` is a singleton that names an element type. Promotion follows PyTorch's rules
(https://docs.pytorch.org/docs/stable/tensor_attributes.html#type-promotion-doc): operands fall into three classes,
tensors with dimensions, zero-dimensional tensors and Python numbers, and a class of lower rank only matters when its
category (bool < integer < floating < complex) is higher."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

Number = bool | int | float | complex


class dtype:
    """An element type. Instances are singletons; compare them with `is` or `==`."""

    __slots__ = (
        "abbreviation",
        "category",
        "is_complex",
        "is_differentiable",
        "is_floating_point",
        "is_signed",
        "itemsize",
        "name",
        "numpy",
    )

    name: str
    abbreviation: str
    numpy: np.dtype[Any]
    category: int
    itemsize: int
    is_floating_point: bool
    is_complex: bool
    is_signed: bool
    is_differentiable: bool  # whether values of this type can carry a gradient

    def __init__(self, name: str, abbreviation: str, numpy_type: Any, category: int, signed: bool = True) -> None:
        self.name = name
        self.abbreviation = abbreviation
        self.numpy = np.dtype(numpy_type)
        self.category = category
        self.itemsize = self.numpy.itemsize
        self.is_floating_point = category == FLOATING
        self.is_complex = category == COMPLEX
        self.is_signed = signed
        self.is_differentiable = category >= FLOATING

    def __repr__(self) -> str:
        return f"torch.{self.name}"

    def __reduce__(self) -> str | tuple[Any, ...]:
        return (_by_name, (self.name,))

    def __copy__(self) -> dtype:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> dtype:
        return self

    def to_real(self) -> dtype:
        """The type of the real and imaginary parts; a real type is its own."""
        return {complex64: float32, complex128: float64}.get(self, self)

    def to_complex(self) -> dtype:
        """The complex type whose parts have this type."""
        return {float64: complex128, complex128: complex128}.get(self, complex64)


# Categories in order of promotion.
BOOLEAN, INTEGRAL, FLOATING, COMPLEX = range(4)

bool_ = dtype("bool", "bool", np.bool_, BOOLEAN, signed=False)
uint8 = dtype("uint8", "u8", np.uint8, INTEGRAL, signed=False)
int8 = dtype("int8", "i8", np.int8, INTEGRAL)
int16 = dtype("int16", "i16", np.int16, INTEGRAL)
int32 = dtype("int32", "i32", np.int32, INTEGRAL)
int64 = dtype("int64", "i64", np.int64, INTEGRAL)
float16 = dtype("float16", "f16", np.float16, FLOATING)
bfloat16 = dtype("bfloat16", "bf16", ml_dtypes.bfloat16, FLOATING)
float32 = dtype("float32", "f32", np.float32, FLOATING)
float64 = dtype("float64", "f64", np.float64, FLOATING)
complex64 = dtype("complex64", "c64", np.complex64, COMPLEX)
complex128 = dtype("complex128", "c128", np.complex128, COMPLEX)

half, float_, double = float16, float32, float64
short, int_, long = int16, int32, int64
cfloat, cdouble = complex64, complex128

ALL_DTYPES = (bool_, uint8, int8, int16, int32, int64, float16, bfloat16, float32, float64, complex64, complex128)
BY_NAME = {d.name: d for d in ALL_DTYPES}
BY_ABBREVIATION = {d.abbreviation: d for d in ALL_DTYPES}
BY_NUMPY: dict[np.dtype[Any], dtype] = {d.numpy: d for d in ALL_DTYPES}


def _by_name(name: str) -> dtype:
    return BY_NAME[name]


def from_numpy_dtype(numpy_dtype: np.dtype[Any]) -> dtype:
    """The dtype of a NumPy array.

    Raises TypeError, as PyTorch does, for element types that tensors do not have.
    """
    found = BY_NUMPY.get(numpy_dtype)
    if found is None:
        # Non-native byte order and aliases such as `longlong` compare equal without hashing alike.
        for candidate in ALL_DTYPES:
            if candidate.numpy == numpy_dtype:
                return candidate
        raise TypeError(
            f"can't convert np.ndarray of type {numpy_dtype}. The only supported types are: "
            + ", ".join(d.name for d in ALL_DTYPES)
            + "."
        )
    return found


_default_dtype = float32


def get_default_dtype() -> dtype:
    """The floating type that Python floats take. See torch.get_default_dtype."""
    return _default_dtype


def set_default_dtype(d: dtype) -> None:
    """Set the floating type that Python floats take.

    Raises TypeError for anything that is not a floating-point dtype.
    """
    global _default_dtype
    if not isinstance(d, dtype):
        raise TypeError(f"invalid dtype object: {d!r}")
    if not d.is_floating_point:
        raise TypeError("only floating-point types are supported as the default type")
    _default_dtype = d


def dtype_of_number(value: Number) -> dtype:
    """The dtype a Python number brings into promotion."""
    if isinstance(value, bool | np.bool_):
        return bool_
    if isinstance(value, complex):
        return _default_dtype.to_complex()
    if isinstance(value, float):
        return _default_dtype
    return int64


def _promote(a: dtype, b: dtype) -> dtype:
    if a is b:
        return a
    if a.category > b.category:
        a, b = b, a
    if b.category == COMPLEX:
        return complex128 if b is complex128 or a in (float64, complex128) else complex64
    if a.category < b.category:
        return b
    if {a, b} == {float16, bfloat16}:
        return float32
    if a.category == INTEGRAL and a.is_signed != b.is_signed and a.itemsize == b.itemsize:
        return int16  # uint8 with int8: the smallest type that holds both
    return a if a.itemsize > b.itemsize else b


_PROMOTION = {(a, b): _promote(a, b) for a in ALL_DTYPES for b in ALL_DTYPES}


def promote_types(type1: dtype, type2: dtype) -> dtype:
    """The smallest dtype that both operands convert to without loss of category. See torch.promote_types."""
    return _PROMOTION[type1, type2]


def can_cast(from_: dtype, to: dtype) -> bool:
    """Whether a result of type `from_` may be written into a tensor of type `to`. See torch.can_cast."""
    if from_.category == INTEGRAL and not from_.is_signed and to.category == INTEGRAL:
        return True
    return from_.category <= to.category


def combine(with_dims: dtype | None, zero_dim: dtype | None, number: dtype | None) -> dtype:
    """Promotion over the three classes of operands, each already promoted within itself (None: no such operand)."""
    result = _outrank(with_dims, _outrank(zero_dim, number))
    if result is None:
        raise RuntimeError("type promotion needs at least one operand")
    return result


def _outrank(higher: dtype | None, lower: dtype | None) -> dtype | None:
    """`lower` counts only where its category is the higher one (PyTorch's combine_categories)."""
    if higher is None or lower is None:
        return lower if higher is None else higher
    if higher.category == COMPLEX:
        return higher
    if higher.category == FLOATING:
        return higher.to_complex() if lower.category == COMPLEX else higher
    if higher is bool_ or lower.category >= FLOATING:
        return _PROMOTION[higher, lower]
    return higher


def result_type(*operands: Any) -> dtype:
    """The dtype of an arithmetic result on tensors (anything with `.dtype` and `.shape`) and Python numbers.

    See torch.result_type. A tensor-like operand with a true `is_number` attribute counts as a Python number.
    """
    with_dims: dtype | None = None
    zero_dim: dtype | None = None
    number: dtype | None = None
    for operand in operands:
        own = getattr(operand, "dtype", None)
        if own is None:
            own = dtype_of_number(operand)
            number = own if number is None else _PROMOTION[number, own]
        elif getattr(operand, "is_number", False):
            # A traced Python float is stored as float64 and promotes like the Python float it stands for.
            own = _default_dtype if own is float64 else own
            number = own if number is None else _PROMOTION[number, own]
        elif len(operand.shape) == 0:
            zero_dim = own if zero_dim is None else _PROMOTION[zero_dim, own]
        else:
            with_dims = own if with_dims is None else _PROMOTION[with_dims, own]
    return combine(with_dims, zero_dim, number)


# The C++ types by which PyTorch's messages call the dtype that a number does not fit.
_C_TYPES = {
    "uint8": "uint8_t",
    "int8": "int8_t",
    "int16": "int16_t",
    "int32": "int",
    "int64": "int64_t",
    "float16": "c10::Half",
    "bfloat16": "c10::BFloat16",
    "float32": "float",
    "float64": "double",
    "complex64": "c10::complex<float>",
    "complex128": "c10::complex<double>",
}


def fits(value: Number, d: dtype) -> bool:
    """Whether a dtype can hold a Python number: the range counts, not the digits. An unsigned type takes the negative
    of what it takes, and every number is a boolean."""
    if d is bool_:
        return True
    if isinstance(value, complex):
        if not d.is_complex:
            return value.imag == 0 and fits(value.real, d)
        return fits(value.real, d.to_real()) and fits(value.imag, d.to_real())
    if d.category == INTEGRAL:
        low, high = _RANGES[d]
        if isinstance(value, float) and value != value:
            return False
        return low <= value <= high or (not d.is_signed and isinstance(value, int) and -high <= value < 0)
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return True
    low, high = _RANGES[d.to_real()]
    return bool(low <= value <= high)


def check_fits(value: Any, d: dtype, fill: bool = False) -> None:
    """Raise RuntimeError with PyTorch's message for a Python number that a dtype can't hold. Tensors and numbers of
    graphs pass.

    `fill`: of the operators that fill whole tensors, which go through double for the two 16-bit floating types.
    """
    if not isinstance(value, bool | int | float | complex):
        return
    if fill and d in (float16, bfloat16):
        d = float64
    if not fits(value, d):
        raise RuntimeError(f"value cannot be converted to type {_C_TYPES[d.name]} without overflow")


def _range(d: dtype) -> tuple[Any, Any]:
    info: Any = np.iinfo(d.numpy) if d.category == INTEGRAL else ml_dtypes.finfo(d.numpy)  # type: ignore[no-untyped-call]
    whole = int if d.category == INTEGRAL else float
    return whole(info.min), whole(info.max)


_RANGES = {d: _range(d) for d in ALL_DTYPES if d.category in (INTEGRAL, FLOATING)}


class finfo:
    """Numerical properties of a floating type. See torch.finfo."""

    def __init__(self, type: dtype | None = None) -> None:
        d = _default_dtype if type is None else type
        if not (d.is_floating_point or d.is_complex):
            raise TypeError(
                "torch.finfo() requires a floating point input type. Use torch.iinfo to handle 'torch.finfo'"
            )
        real = d.to_real()
        info: Any = ml_dtypes.finfo(real.numpy)  # type: ignore[no-untyped-call]
        self.dtype = real.name
        self.bits = real.itemsize * 8
        self.eps = float(info.eps)
        self.max = float(info.max)
        self.min = float(info.min)
        self.tiny = self.smallest_normal = float(info.tiny)
        self.resolution = 10.0 ** -int(info.precision)

    def __repr__(self) -> str:
        return (
            f"finfo(resolution={self.resolution:g}, min={self.min:g}, max={self.max:g}, eps={self.eps:g}, "
            f"smallest_normal={self.smallest_normal:g}, tiny={self.tiny:g}, dtype={self.dtype})"
        )


class iinfo:
    """Numerical properties of an integer type. See torch.iinfo."""

    def __init__(self, type: dtype) -> None:
        if type.category != INTEGRAL:
            raise TypeError("torch.iinfo() requires an integer input type. Use torch.finfo to handle 'torch.iinfo'")
        info = np.iinfo(type.numpy)
        self.dtype = type.name
        self.bits = info.bits
        self.max = int(info.max)
        self.min = int(info.min)

    def __repr__(self) -> str:
        return f"iinfo(min={self.min:g}, max={self.max:g}, dtype={self.dtype})"
