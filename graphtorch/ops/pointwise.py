"""How pointwise operators are defined: builders that add broadcasting, promotion and NumPy execution to a scalar
function.

A builder's caller gives the scalar instruction's name, the NumPy function on arrays of one dtype, and the derivative;
the operators themselves are in `arithmetic.py`, `unary.py`, `comparison.py` and `activation.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from graphtorch.ops.build import operator
from graphtorch.ops.record import POINTWISE, Sample, sample
from graphtorch.tensor import dtypes
from graphtorch.tensor.dtypes import dtype, result_type
from graphtorch.tensor.type import TensorType

# -- shapes -----------------------------------------------------------------------------------------------------------


def broadcast_shapes(*shapes: Sequence[Any]) -> tuple[Any, ...]:
    """The common shape, by the rules of NumPy and PyTorch; works on symbolic sizes.

    Raises RuntimeError with PyTorch's message.
    """
    rank = max((len(s) for s in shapes), default=0)
    result: list[Any] = []
    for i in reversed(range(rank)):  # the last dimension that doesn't fit is the one that PyTorch names
        size: Any = 1
        for shape in shapes:
            j = i - rank + len(shape)
            if j < 0:
                continue
            own = shape[j]
            if own == size or own == 1:
                continue
            if size == 1:
                size = own
            else:
                raise RuntimeError(
                    f"The size of tensor a ({size}) must match the size of tensor b ({own}) at non-singleton "
                    f"dimension {i}"
                )
        result.append(size)
    return tuple(reversed(result))


def pointwise_type(operands: Sequence[Any], d: dtype) -> TensorType:
    """The broadcast type of operands, some of which may be Python numbers."""
    tensors = [o for o in operands if hasattr(o, "shape")]
    if not tensors:
        raise TypeError("expected a Tensor among the operands, got only numbers")
    shape = tuple(tensors[0].shape) if len(tensors) == 1 else broadcast_shapes(*(t.shape for t in tensors))
    device = tensors[0].device
    for t in tensors[1:]:
        if device.type == "cpu" and (len(t.shape) > 0 or t.device.type != "cpu"):
            device = t.device
    number = all(getattr(t, "is_number", False) for t in tensors)
    if number:
        d = dtypes.float64 if d.is_floating_point else d  # numbers compute as Python's do
    return TensorType(d, shape, device, number)


# -- promotion --------------------------------------------------------------------------------------------------------


def common(*operands: Any) -> dtype:
    """Compute in the promoted type."""
    return result_type(*operands)


def common_float(*operands: Any) -> dtype:
    """Compute in the promoted type; integers and bools compute in the default floating type."""
    d = result_type(*operands)
    return d if d.category >= dtypes.FLOATING else dtypes.get_default_dtype()


class _Typed:
    """An ndarray's dtype and shape as promotion wants them."""

    __slots__ = ("dtype", "shape")

    def __init__(self, array: Any) -> None:
        self.dtype = dtypes.from_numpy_dtype(array.dtype)
        self.shape = array.shape


_FAST = frozenset(np.dtype(t) for t in (np.float32, np.float64, np.complex64, np.complex128))


def promoted(compute: Callable[..., Any], arrays: Sequence[Any]) -> list[Any]:
    """Cast arrays (and Python numbers) to the dtype that `compute` chooses from their types."""
    if compute is common or compute is common_float:
        d = arrays[0].dtype if type(arrays[0]) is np.ndarray else None
        if d in _FAST and all([type(a) is np.ndarray and a.dtype == d for a in arrays]):
            return list(arrays)
    chosen = compute(*[_Typed(a) if isinstance(a, np.ndarray | np.generic) else a for a in arrays])
    each = chosen if isinstance(chosen, tuple) else (chosen,) * len(arrays)
    return [a if d is None else np.asarray(a).astype(d.numpy, copy=False) for a, d in zip(arrays, each, strict=True)]


# What `numpy_unary` and `numpy_binary` made: the function inside, the number of its operands, and whether these compute
# in their common type, whichever it is.
_LIFTED: dict[Callable[..., Any], tuple[Callable[..., Any], int, bool]] = {}


def lifts(made: Callable[..., Any], function: Callable[..., Any], operands: int, plainly: bool = False) -> None:
    """Note that `made` is no more than `function` on operands of one of the types that compute in themselves
    (`plainly`: of one type), if its other arguments are 1 or None."""
    _LIFTED[made] = function, operands, plainly


def direct(made: Callable[..., Any], arguments: Sequence[Any]) -> tuple[Callable[..., Any], int]:
    """What computes an operator on arguments of these dtypes, as fast as can be: an operator's NumPy function or that
    inside, and how many of the arguments it takes."""
    function, count, plainly = _LIFTED.get(made, (made, 0, False))
    arrays = [a for a in arguments[:count] if type(a) is np.ndarray]
    if arrays and all(a is None or (type(a) is int and a == 1) for a in arguments[count:]):
        d = arrays[0].dtype
        numbers = [a for a in arguments[:count] if type(a) is not np.ndarray]
        if all(a.dtype == d for a in arrays) and (
            (d in _FAST and all(type(a) is float or type(a) is int for a in numbers))
            or (plainly and all(_fits(a, d) for a in numbers))
        ):
            return function, count
    return made, len(arguments)


def _fits(number: Any, d: np.dtype[Any]) -> bool:
    """Whether a Python number beside an array of `d` takes that type, in NumPy as in PyTorch."""
    if type(number) is bool:
        return d.kind == "b"
    return type(number) is int and d.kind == "i" and d.itemsize == 8 and -(1 << 62) < number < 1 << 62


def numpy_unary(function: Callable[..., Any], compute: Callable[..., Any]) -> Callable[..., Any]:
    """Lift a NumPy function on one array to every dtype."""

    def run(x: Any) -> Any:
        if type(x) is np.ndarray and x.dtype in _FAST:
            return function(x)
        if not isinstance(x, np.ndarray):  # a run-time number; NumPy's reciprocal of an integer is one
            return function(float(x) if compute is common_float and isinstance(x, int) else x)
        (cast,) = promoted(compute, (x,))
        return function(cast)

    lifts(run, function, 1)
    return run


def numpy_binary(
    function: Callable[..., Any], compute: Callable[..., Any], exact_numbers: bool = False
) -> Callable[..., Any]:
    """Lift a NumPy function on two arrays of one dtype to every mix of dtypes and Python numbers.

    `exact_numbers`: a number beside a 16-bit floating array keeps its digits, as in PyTorch's kernels of products and
    quotients: both compute in float32, and the result is rounded.
    """
    plainly = compute is common

    def run(x: Any, y: Any) -> Any:
        if type(x) is np.ndarray:
            if x.dtype in _FAST:
                # NEP 50: a Python float or int takes the array's type, as in PyTorch.
                if type(y) is np.ndarray:
                    if x.dtype == y.dtype:
                        return function(x, y)
                elif type(y) is float or type(y) is int:
                    return function(x, y)
            if plainly and (x.dtype == y.dtype if type(y) is np.ndarray else _fits(y, x.dtype)):
                return function(x, y)
        elif type(y) is not np.ndarray:
            return function(x, y)  # two run-time numbers
        elif y.dtype in _FAST and (type(x) is float or type(x) is int):
            return function(x, y)
        if exact_numbers and (type(x) is float or type(y) is float or type(x) is int or type(y) is int):
            own = (x if type(x) is np.ndarray else y).dtype
            if is_16_bit_float(own):
                return function(np.asarray(x).astype(np.float32), np.asarray(y).astype(np.float32)).astype(own)
        return function(*promoted(compute, (x, y)))

    lifts(run, function, 2, plainly)
    return run


def is_16_bit_float(d: np.dtype[Any]) -> bool:
    """Whether a NumPy dtype is float16 or bfloat16."""
    return d.itemsize == 2 and d.kind not in "iu"


def in_float32(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compute float16 and bfloat16 in float32 and round once: for NumPy functions of several steps."""

    def run(*arrays: Any) -> Any:
        own = None
        for array in arrays:
            if isinstance(array, np.ndarray):
                own = array.dtype
                break
        if own is None or own in _FAST or not is_16_bit_float(own):
            return function(*arrays)
        return function(*[np.asarray(a).astype(np.float32) for a in arrays]).astype(own)

    return run


# -- which dtypes an operator refuses ---------------------------------------------------------------------------------

_SCALAR_TYPES = {
    "bool": "Bool",
    "uint8": "Byte",
    "int8": "Char",
    "int16": "Short",
    "int32": "Int",
    "int64": "Long",
    "float16": "Half",
    "bfloat16": "BFloat16",
    "float32": "Float",
    "float64": "Double",
    "complex64": "ComplexFloat",
    "complex128": "ComplexDouble",
}


def scalar_type(d: dtype) -> str:
    """PyTorch's C++ name of a dtype, as most of its messages use it."""
    return _SCALAR_TYPES[d.name]


_CPP_NAMES = {
    "float32": "float", "float64": "double", "float16": "c10::Half", "bfloat16": "c10::BFloat16", "int64": "long int",
    "int32": "int", "int16": "short int", "int8": "signed char", "uint8": "unsigned char", "bool": "bool",
    "complex64": "c10::complex<float>", "complex128": "c10::complex<double>",
}  # fmt: skip


def cpp_name(d: dtypes.dtype) -> str:
    """The C++ type by which some of PyTorch's messages call a dtype."""
    return _CPP_NAMES[d.name]


def not_implemented(kernel: str, d: dtype) -> NotImplementedError:
    """PyTorch's error for a dtype that a kernel has no version for."""
    return NotImplementedError(f"\"{kernel}\" not implemented for '{scalar_type(d)}'")


def refuse(kernel: str, categories: str) -> Callable[..., None]:
    """A check that the promoted type is of none of the categories (letters of "bifc"). `kernel` is PyTorch's internal
    name.

    Raises NotImplementedError with PyTorch's message.
    """

    def check(*operands: Any) -> None:
        d = result_type(*operands)
        if "bifc"[d.category] in categories:
            raise not_implemented(kernel, d)

    return check


# -- builders ---------------------------------------------------------------------------------------------------------


def unary(
    name: str,
    function: Callable[..., Any],
    derivative: Callable[..., Any] | None = None,
    *,
    compute: Callable[..., Any] = common_float,
    result: Callable[[dtype], dtype] | None = None,
    check: Callable[[Any], None] | None = None,
    scalar: str | None = None,
    decompose: Callable[..., Any] | None = None,
    low: float = -2.0,
    high: float = 2.0,
    categories: str = "bifc",
    inplace: bool = True,
    **fields: Any,
) -> Callable[..., Any]:
    """A pointwise operator of one operand, with `name_` and `out=` forms.

    `function` computes on an array of the dtype that `compute` gives; `result` maps that dtype to the result's (None:
    the same). `check` raises for dtypes the operator refuses. Samples lie in [low, high]."""

    def type_rule(input: Any) -> TensorType:
        if check is not None:
            check(input)
        d = compute(input)
        return pointwise_type((input,), d if result is None else result(d))

    def samples(make: Any) -> Iterable[Sample]:
        yield sample(make(3, 4, low=low, high=high))
        yield sample(make(low=low, high=high))
        yield sample(make(0, 2, low=low, high=high))

    return operator(
        f"{name}(Tensor input)",
        type=type_rule,
        numpy=numpy_unary(function, compute),
        kind=POINTWISE,
        derivative={} if derivative is None else {"input": derivative},
        scalar=scalar if scalar is not None or decompose is not None else name,
        decompose=decompose,
        compute=compute,
        samples=fields.pop("samples", samples),
        categories=categories,
        inplace=inplace,
        out=fields.pop("out", True),
        lazy_check=check is None,
        **fields,
    )


def binary(
    name: str,
    function: Callable[..., Any],
    derivative: Mapping[str, Callable[..., Any]] | None = None,
    *,
    compute: Callable[..., Any] = common,
    result: Callable[[dtype], dtype] | None = None,
    check: Callable[[Any, Any], None] | None = None,
    scalar: str | None = None,
    decompose: Callable[..., Any] | None = None,
    low: float = -2.0,
    high: float = 2.0,
    categories: str = "bifc",
    inplace: bool = True,
    input: str = "Tensor",
    other: str = "Tensor|Number",
    exact_numbers: bool = False,
    **fields: Any,
) -> Callable[..., Any]:
    """A pointwise operator of two operands, the second of which may be a Python number.

    `input` and `other` are the operands' kinds, `exact_numbers` is that of `numpy_binary`; the remaining fields are
    those of `unary` and of `operator`.
    """

    def type_rule(input: Any, other: Any) -> TensorType:
        if check is not None:
            check(input, other)
        d = compute(input, other)
        return pointwise_type((input, other), d if result is None else result(d))

    def samples(make: Any) -> Iterable[Sample]:
        yield sample(make(3, 4, low=low, high=high), make(3, 4, low=low, high=high))
        yield sample(make(3, 1, low=low, high=high), make(4, low=low, high=high))
        yield sample(make(2, 3, low=low, high=high), make(low=low, high=high))

    return operator(
        f"{name}({input} input, {other} other)",
        type=type_rule,
        numpy=numpy_binary(function, compute, exact_numbers),
        kind=POINTWISE,
        derivative=derivative,
        scalar=scalar if scalar is not None or decompose is not None else name,
        decompose=decompose,
        compute=compute,
        samples=fields.pop("samples", samples),
        categories=categories,
        inplace=inplace,
        out=fields.pop("out", True),
        lazy_check=check is None,
        **fields,
    )


def to_bool(d: dtype) -> dtype:
    """The result type of comparisons and predicates."""
    return dtypes.bool_
