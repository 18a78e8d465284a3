"""Arithmetic on two operands, with Python's arithmetic operators on tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from graphtorch.ops.build import FUNCTIONS, function, method, operator
from graphtorch.ops.pointwise import (
    _Typed,
    binary,
    common,
    common_float,
    in_float32,
    is_16_bit_float,
    lifts,
    not_implemented,
    numpy_binary,
    pointwise_type,
    promoted,
    refuse,
)
from graphtorch.ops.record import POINTWISE, Sample, sample
from graphtorch.tensor import dtypes
from graphtorch.tensor.creation import from_numpy
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType


def conjugate(value: Any) -> Any:
    """The conjugate, for the derivatives of holomorphic functions; a real value is its own."""
    if isinstance(value, complex):
        return value.conjugate()
    d = getattr(value, "dtype", None)
    return value.conj() if d is not None and d.is_complex else value


# -- sums and differences ---------------------------------------------------------------------------------------------


def _check_alpha(d: dtypes.dtype, alpha: Any) -> None:
    if isinstance(alpha, float) and d.category < dtypes.FLOATING:
        raise RuntimeError("For integral input tensors, argument alpha must not be a floating point number.")
    if isinstance(alpha, bool) and d is not dtypes.bool_:
        raise RuntimeError("Boolean alpha only supported for Boolean results.")


def _sum_type(input: Any, other: Any, alpha: Any) -> TensorType:
    d = common(input, other)
    _check_alpha(d, alpha)
    return pointwise_type((input, other), d)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool) or getattr(value, "dtype", None) is dtypes.bool_


def _difference_type(input: Any, other: Any, alpha: Any) -> TensorType:
    if _is_bool(input) and _is_bool(other):
        raise RuntimeError(
            "Subtraction, the `-` operator, with two bool tensors is not supported. Use the `^` or `logical_xor()` "
            "operator instead."
        )
    if _is_bool(input) or _is_bool(other):
        raise RuntimeError(
            "Subtraction, the `-` operator, with a bool tensor is not supported. If you are trying to invert a mask, "
            "use the `~` or `logical_not()` operator instead."
        )
    return _sum_type(input, other, alpha)


def _into(function: Callable[..., Any], x: Any, y: Any) -> bool:
    """`function(x, y)` into the memory of `x`, where both are of one type that computes in itself."""
    if type(x) is not np.ndarray or x.dtype.kind not in "fc" or x.itemsize < 4:
        return False
    fitting = (x.dtype == y.dtype and x.shape == y.shape) if type(y) is np.ndarray else type(y) in (int, float)
    if fitting:
        function(x, y, out=x)
    return fitting


def _into_sum(function: Callable[..., Any], x: Any, y: Any, alpha: Any) -> bool:
    if type(alpha) is int and alpha == 1:
        return _into(function, x, y)
    if type(y) is not np.ndarray or type(alpha) not in (int, float) or y.dtype.kind not in "fc" or y.itemsize < 4:
        return False
    return _into(function, x, np.multiply(y, alpha))


_add = numpy_binary(np.add, common)
_subtract = numpy_binary(np.subtract, common)
_multiply = numpy_binary(np.multiply, common)
# With a factor the sum is rounded once.
_add_multiple = in_float32(lambda x, y, alpha: x + alpha * y)


def is_one(alpha: Any) -> bool:
    return isinstance(alpha, int) and alpha == 1


def _numpy_add(input: Any, other: Any, alpha: Any) -> Any:
    if type(alpha) is int and alpha == 1:
        return _add(input, other)
    result = _with_multiple(input, other, alpha)
    # The type rule is not consulted when all goes well, and NumPy would promote.
    _check_alpha(common(*(v if isinstance(v, int | float | complex) else _Typed(v) for v in (input, other))), alpha)
    return result


def _numpy_sub(input: Any, other: Any, alpha: Any) -> Any:
    return _subtract(input, other) if is_one(alpha) else _with_multiple(input, other, alpha, -1)


lifts(_numpy_add, np.add, 2, True)
lifts(_numpy_sub, np.subtract, 2, True)


def _with_multiple(input: Any, other: Any, alpha: Any, sign: int = 1) -> Any:
    """`input + sign * alpha * other`."""
    arrays = type(input) is np.ndarray and type(other) is np.ndarray and input.dtype == other.dtype
    if arrays and is_16_bit_float(input.dtype) and not isinstance(alpha, complex):
        return _add_multiple(input, other, np.asarray(sign * alpha).astype(input.dtype))
    if type(other) is np.ndarray and other.dtype == np.bool_ and type(input) is np.ndarray and input.dtype != np.bool_:
        other = other.astype(input.dtype)  # the multiple has the sum's dtype, not what a bool times a number gives
    return (_add if sign > 0 else _subtract)(input, _multiply(other, alpha))


def _multiple(input: Any, other: Any, alpha: Any) -> Any:
    """`alpha * other` in the dtype of its sum with `input`."""
    if getattr(other, "dtype", None) is dtypes.bool_ and getattr(input, "dtype", other.dtype) is not dtypes.bool_:
        other = other.to(input.dtype)
    return mul(other, alpha)


def _alpha_samples(make: Any) -> Iterable[Sample]:
    yield sample(make(3, 4), make(3, 4))
    yield sample(make(2, 3), make())
    if make.dtype is not dtypes.bool_:
        yield sample(make(3, 1), make(4), alpha=2)
        yield sample(make(2, 3), 3)


def _common_first_two(input: Any, other: Any, alpha: Any) -> dtypes.dtype:
    return common(input, other)


# Law: x + alpha y. The scalar instruction has alpha = 1; any other is a product first.
add: Callable[..., Any] = operator(
    "add(Tensor|Number input, Tensor|Number other, *, Number alpha=1)",
    type=_sum_type,
    numpy=_numpy_add,
    kind=POINTWISE,
    derivative={
        "input": lambda g: g,
        "other": lambda g, alpha: g if is_one(alpha) else g * conjugate(alpha),
    },
    scalar="add",
    compute=_common_first_two,
    decompose=lambda input, other, alpha: None if is_one(alpha) else add(input, _multiple(input, other, alpha)),
    samples=_alpha_samples,
    categories="bifc",
    lazy_check=True,
    update=lambda input, other, alpha: _into_sum(np.add, input, other, alpha),
    inplace=True,
    out=True,
)

sub: Callable[..., Any] = operator(
    "sub(Tensor|Number input, Tensor|Number other, *, Number alpha=1)",
    type=_difference_type,
    numpy=_numpy_sub,
    kind=POINTWISE,
    derivative={
        "input": lambda g: g,
        "other": lambda g, alpha: -g if is_one(alpha) else -(g * conjugate(alpha)),
    },
    scalar="sub",
    compute=_common_first_two,
    decompose=lambda input, other, alpha: None if is_one(alpha) else sub(input, _multiple(input, other, alpha)),
    samples=_alpha_samples,
    categories="ifc",
    update=lambda input, other, alpha: _into_sum(np.subtract, input, other, alpha),
    inplace=True,
    out=True,
)

rsub = operator(
    "rsub(Tensor input, Tensor|Number other, *, Number alpha=1)",
    order={"result": "reversed"},
    type=lambda input, other, alpha: _difference_type(other, input, alpha),
    numpy=lambda input, other, alpha: _numpy_sub(other, input, alpha),
    kind=POINTWISE,
    derivative={
        "input": lambda g, alpha: -g if is_one(alpha) else -(g * conjugate(alpha)),
        "other": lambda g: g,
    },
    decompose=lambda input, other, alpha: sub(other, input, alpha=alpha),
    compute=_common_first_two,
    samples=_alpha_samples,
    categories="ifc",
    grad_name="RsubBackward1",
)

mul: Callable[..., Any] = binary(
    "mul",
    np.multiply,
    {"input": lambda g, other: g * conjugate(other), "other": lambda g, input: g * conjugate(input)},
    input="Tensor|Number",
    exact_numbers=True,
    update=lambda input, other: _into(np.multiply, input, other),
)

# -- quotients --------------------------------------------------------------------------------------------------------


def _check_zero(dividend: Any, divisor: Any) -> None:
    """Integer division by zero has no result. Raises RuntimeError with PyTorch's text if anything is divided."""
    if divisor.dtype.kind in "iu" and not np.all(divisor) and np.size(dividend):
        raise RuntimeError("ZeroDivisionError")


def _floor_quotient(x: Any, y: Any) -> Any:
    _check_zero(x, y)
    return np.floor_divide(x, y)


def _truncated_quotient(x: Any, y: Any) -> Any:
    if x.dtype.kind in "iu":
        _check_zero(x, y)
        return np.floor_divide(x - np.fmod(x, y), y)
    return np.trunc(np.true_divide(x, y))


_true_divide = numpy_binary(np.true_divide, common_float, exact_numbers=True)
_ROUNDED = {"floor": _floor_quotient, "trunc": _truncated_quotient}


def _numpy_div(input: Any, other: Any, rounding_mode: str | None) -> Any:
    if rounding_mode is None:
        return _true_divide(input, other)
    return _ROUNDED[rounding_mode](*promoted(common, (input, other)))


lifts(_numpy_div, np.true_divide, 2)


def _div_type(input: Any, other: Any, rounding_mode: str | None) -> TensorType:
    if rounding_mode is None:
        return pointwise_type((input, other), common_float(input, other))
    if rounding_mode not in _ROUNDED:
        raise RuntimeError(
            f"div expected rounding_mode to be one of None, 'trunc', or 'floor' but found '{rounding_mode}'"
        )
    refuse(f"div_{rounding_mode}_cpu", "bc")(input, other)
    return pointwise_type((input, other), common(input, other))


def _decompose_div(input: Any, other: Any, rounding_mode: str | None) -> Any:
    if rounding_mode is None:
        return None
    if rounding_mode == "floor":
        return floor_divide(input, other)
    d = common(input, other)
    if d.is_floating_point:
        return div(input, other).trunc().to(d)
    return floor_divide(sub(input, fmod(input, other)), other)


def _div_samples(make: Any) -> Iterable[Sample]:
    yield sample(make(3, 4), make(3, 4, low=1.0))
    yield sample(make(3, 1), make(4, low=1.0))
    yield sample(make(2, 3), 3)
    if make.dtype.category in (dtypes.INTEGRAL, dtypes.FLOATING):
        yield sample(make(3, 4, low=-9, high=9), make(3, 4, low=1.0), rounding_mode="floor")
        yield sample(make(3, 4, low=-9, high=9), make(3, 4, low=1.0), rounding_mode="trunc")
        yield sample(make(3, 4, low=-9, high=9), -2, rounding_mode="trunc")


div: Callable[..., Any] = operator(
    "div(Tensor|Number input, Tensor|Number other, *, str? rounding_mode=None)",
    type=_div_type,
    numpy=_numpy_div,
    kind=POINTWISE,
    derivative={
        # Rounding is flat almost everywhere.
        "input": lambda g, other, rounding_mode: (
            g / conjugate(other) if rounding_mode is None else FUNCTIONS["zeros_like"](g)
        ),
        "other": lambda g, input, other, rounding_mode: (
            -g * conjugate(div(div(input, other), other)) if rounding_mode is None else FUNCTIONS["zeros_like"](g)
        ),
    },
    scalar="div",
    compute=lambda input, other, rounding_mode: (common if rounding_mode else common_float)(input, other),
    decompose=_decompose_div,
    overload=lambda input, other, rounding_mode: 0 if rounding_mode is None else 2,
    update=lambda input, other, rounding_mode: rounding_mode is None and _into(np.true_divide, input, other),
    samples=_div_samples,
    categories="bifc",
    inplace=True,
    out=True,
)


def _on_arrays(compute: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function of two arrays of one dtype take Python numbers too."""

    def run(x: Any, y: Any) -> Any:
        if isinstance(x, np.ndarray) or isinstance(y, np.ndarray):
            return compute(*promoted(common, (x, y)))
        return compute(np.asarray(x), np.asarray(y))

    return run


def _flat(name: str) -> dict[str, Callable[..., Any]]:
    """Derivatives of a function that is constant almost everywhere."""
    return {name: lambda g: FUNCTIONS["zeros_like"](g)}


def _positive_divisor(make: Any) -> Iterable[Sample]:
    yield sample(make(3, 4, low=-9, high=9), make(3, 4, low=1.0, high=4.0))
    yield sample(make(3, 1, low=-9, high=9), make(4, low=1.0, high=4.0))
    yield sample(make(2, 3, low=-9, high=9), -2)
    yield sample(make(2, 3, low=-9, high=9), make(low=1.0, high=4.0))


floor_divide = binary(
    "floor_divide",
    _on_arrays(_floor_quotient),
    {**_flat("input"), **_flat("other")},
    check=refuse("div_floor_cpu", "bc"),
    input="Tensor|Number",
    exact_numbers=True,
    samples=_positive_divisor,
    categories="if",
)


def _numpy_fmod(x: Any, y: Any) -> Any:
    _check_zero(x, y)
    return np.fmod(x, y)


def _numpy_remainder(x: Any, y: Any) -> Any:
    _check_zero(x, y)
    if x.dtype.kind in "iu":
        return np.remainder(x, y)
    result = np.asarray(np.fmod(x, y))  # not np.remainder: PyTorch keeps the sign of a zero remainder
    np.add(result, y, out=result, where=(result != 0) & ((y < 0) != (result < 0)))
    return result


fmod = binary(
    "fmod",
    _on_arrays(_numpy_fmod),
    {"input": lambda g: g, "other": lambda g, input, other: -g * div(input, other, rounding_mode="trunc")},
    check=refuse("fmod_cpu", "bc"),
    samples=_positive_divisor,
    categories="if",
)

remainder = binary(
    "remainder",
    _on_arrays(_numpy_remainder),
    {"input": lambda g: g, "other": lambda g, input, other: -g * div(input, other, rounding_mode="floor")},
    check=refuse("remainder_cpu", "bc"),
    input="Tensor|Number",
    samples=_positive_divisor,
    categories="if",
)

# -- powers -----------------------------------------------------------------------------------------------------------


def _pow_type(input: Any, exponent: Any) -> TensorType:
    d = common(input, exponent)
    if d is dtypes.bool_:
        raise not_implemented("pow", d)
    if d.category == dtypes.INTEGRAL and isinstance(exponent, int) and exponent < 0:
        raise RuntimeError("Integers to negative integer powers are not allowed.")
    if d.category == dtypes.INTEGRAL:
        dtypes.check_fits(exponent, d)
    return pointwise_type((input, exponent), d)


def _integer_power(x: Any, y: Any) -> Any:
    """Integer powers as PyTorch defines them: a negative exponent gives 0, except for the bases 1 and -1."""
    if x.dtype.kind == "u":
        return np.power(x, y)
    negative = y < 0
    result = np.power(x, np.where(negative, 0, y).astype(y.dtype))
    if not np.any(negative):
        return result
    odd = np.where(y % 2 == 0, 1, -1)
    return np.where(negative, np.where(x == 1, 1, np.where(x == -1, odd, 0)), result).astype(x.dtype)


def _power(base: Any, exponent: Any) -> Any:
    """The `**` operator. Of numbers that are known when compiled code runs it is Python's: an integer to a negative
    power is a float."""
    if getattr(base, "is_number", False) or getattr(exponent, "is_number", False):
        numbers = [getattr(x, "is_number", not hasattr(x, "dtype")) for x in (base, exponent)]
        if all(numbers) and common(base, exponent).category < dtypes.FLOATING and exponent < 0:
            base = base * 1.0
    return pow(base, exponent)


# Constant exponents with an exact or cheaper form, in NumPy and as a decomposition: both are these lines.
_POWERS: dict[float, Callable[[Any], Any]] = {
    2: lambda x: x * x,
    3: lambda x: x * x * x,
    -1: lambda x: 1 / x,
    -2: lambda x: 1 / (x * x),
}


def _numpy_pow(input: Any, exponent: Any) -> Any:
    if type(exponent) in (int, float) and isinstance(input, np.ndarray) and input.dtype.kind in "fV" and input.ndim:
        if exponent == 0.5:
            return np.sqrt(input)
        special = _POWERS.get(exponent)
        if special is not None and (input.dtype.itemsize > 2 or (input.dtype.kind == "V" and exponent > 0)):
            return special(input)
    if not isinstance(input, np.ndarray | np.generic) and not isinstance(exponent, np.ndarray | np.generic):
        x, y = np.asarray(input), np.asarray(exponent)  # run-time numbers, which compute as Python's do
        x, y = x.astype(np.result_type(x, y)), y.astype(np.result_type(x, y))
    else:
        x, y = promoted(common, (input, exponent))
    if x.dtype.kind in "iu":
        return _integer_power(x, y)
    return np.power(x, y)


def _decompose_pow(input: Any, exponent: Any) -> Any:
    if type(exponent) in (int, float) and hasattr(input, "dtype") and input.dtype in (dtypes.float32, dtypes.float64):
        if exponent == 0.5:
            return input.sqrt()
        special = _POWERS.get(exponent)
        if special is not None:
            return special(input)
    return None


def _pow_input(g: Any, input: Any, exponent: Any) -> Any:
    if not hasattr(exponent, "shape"):
        return FUNCTIONS["zeros_like"](g) if exponent == 0 else g * conjugate(exponent * pow(input, exponent - 1))
    slope = g * conjugate(exponent * pow(input, exponent - 1))
    return FUNCTIONS["where"](exponent == 0, 0.0, slope)


def _pow_exponent(g: Any, input: Any, exponent: Any, result: Any) -> Any:
    base = input if hasattr(input, "shape") else FUNCTIONS["full_like"](result, input)
    flat = (base == 0) if exponent.dtype.is_complex else FUNCTIONS["logical_and"](base == 0, exponent >= 0)
    return g * FUNCTIONS["where"](flat, 0.0, conjugate(result * base.log()))


def _pow_samples(make: Any) -> Iterable[Sample]:
    yield sample(make(3, 4, low=0.5), make(3, 4, low=1.0))
    yield sample(make(3, 1, low=0.5), make(4, low=1.0))
    for exponent in (2, 3, 0, 1) if make.dtype.category < dtypes.FLOATING else (2, 3, 0, 1, -1, -2.0, 0.5, 1.5):
        yield sample(make(2, 3, low=0.5), exponent)
    yield sample(2, make(2, 3, low=0.5))


pow = operator(
    "pow(Tensor|Number input, Tensor|Number exponent)",
    type=_pow_type,
    numpy=_numpy_pow,
    kind=POINTWISE,
    derivative={"input": _pow_input, "exponent": _pow_exponent},
    overload=lambda input, exponent: 2 if not hasattr(input, "shape") else 1 if hasattr(exponent, "shape") else 0,
    scalar="pow",
    compute=common,
    decompose=_decompose_pow,
    samples=_pow_samples,
    categories="ifc",
    inplace=True,
    out=True,
)


@function(method=True)
def float_power(input: Any, exponent: Any) -> Any:
    """`pow` in float64, or complex128 for complex operands. See torch.float_power."""
    input, exponent = (v.item() if isinstance(v, np.generic) else v for v in (input, exponent))
    d = dtypes.complex128 if common(input, exponent).is_complex else dtypes.float64
    return pow(*(v.to(d) if isinstance(v, Tensor) else v for v in (input, exponent)))


# -- angles and logarithms of two operands ----------------------------------------------------------------------------

atan2 = binary(
    "atan2",
    in_float32(np.arctan2),
    {
        "input": lambda g, input, other: g * (other / (input * input + other * other)),
        "other": lambda g, input, other: -(g * (input / (input * input + other * other))),
    },
    compute=common_float,
    check=refuse("atan2_cpu", "c"),
    other="Tensor",
    categories="bif",
)
FUNCTIONS["arctan2"] = Tensor.arctan2 = atan2  # type: ignore[attr-defined]

hypot = binary(
    "hypot",
    in_float32(np.hypot),
    {
        "input": lambda g, input, result: g * (input / result),
        "other": lambda g, other, result: g * (other / result),
    },
    check=refuse("hypot_cpu", "bic"),
    decompose=lambda input, other: (input * input + other * other).sqrt(),
    other="Tensor",
    categories="f",
)


def difference(x: Any, y: Any) -> Any:
    """x - y in their common dtype, for formulas of operators that take bools: there is no subtraction of those."""
    d = common(x, y)
    return sub(x.to(d), y.to(d))


def _decompose_logaddexp(input: Any, other: Any) -> Any:
    d = common(input, other)
    if d.is_complex:
        return None
    input, other = input.to(d), other.to(d)  # there is no subtraction of bools
    # Equal operands, infinities among them, differ by nothing.
    apart = FUNCTIONS["where"](input == other, 0.0, sub(input, other))
    return FUNCTIONS["maximum"](input, other) + (-apart.abs()).exp().log1p()


def _numpy_logaddexp(x: Any, y: Any) -> Any:
    if not np.iscomplexobj(x):
        return np.logaddexp(x, y)
    swap = x.real < y.real
    larger, smaller = np.where(swap, y, x), np.where(swap, x, y)
    return larger + np.log1p(np.exp(smaller - larger))


logaddexp = binary(
    "logaddexp",
    in_float32(_numpy_logaddexp),
    {
        "input": lambda g, input, other: g / conjugate(1 + difference(other, input).exp()),
        "other": lambda g, input, other: g / conjugate(1 + difference(input, other).exp()),
    },
    check=refuse("logaddexp_cpu", "bi"),
    decompose=_decompose_logaddexp,
    other="Tensor",
    categories="fc",
    inplace=False,
)


def _numpy_xlogy(x: Any, y: Any) -> Any:
    d = np.result_type(x, y)  # a number's type gives way
    x, y = np.asarray(x, d), np.asarray(y, d)
    return np.where(np.isnan(y), y, np.where(x == 0, x.dtype.type(0), x * np.log(y)))


def _xlogy_input(g: Any, input: Any, other: Any) -> Any:
    other = other if hasattr(other, "shape") else FUNCTIONS["full_like"](g, other)
    flat = FUNCTIONS["logical_and"](input == 0, other <= 0)
    return g * FUNCTIONS["where"](flat, 0.0, other.log())


def _decompose_xlogy(input: Any, other: Any) -> Any:
    where, d = FUNCTIONS["where"], common_float(input, other)
    x, y = (v.to(d) if hasattr(v, "dtype") else FUNCTIONS["full"]((), v, dtype=d) for v in (input, other))
    return where(y.isnan(), y, where(x == 0, 0.0, x * y.log()))


xlogy = binary(
    "xlogy",
    in_float32(_numpy_xlogy),
    {"input": _xlogy_input, "other": lambda g, input, other: g * (input / other)},
    compute=common_float,
    check=refuse("xlogy_cpu", "c"),
    decompose=_decompose_xlogy,
    input="Tensor|Number",
    low=0.5,
    categories="bif",
)

# -- other names ------------------------------------------------------------------------------------------------------

for _alias, _original in (
    ("true_divide", "div"),
    ("divide", "div"),
    ("multiply", "mul"),
    ("subtract", "sub"),
):
    FUNCTIONS[_alias] = FUNCTIONS[_original]
    FUNCTIONS[_alias + "_"] = FUNCTIONS[_original + "_"]
    setattr(Tensor, _alias, FUNCTIONS[_original])
    setattr(Tensor, _alias + "_", FUNCTIONS[_original + "_"])

# -- Python's operators -----------------------------------------------------------------------------------------------

_OPERANDS = (Tensor, bool, int, float, complex, np.generic)


def accepts(other: Any) -> bool:
    """Whether a Python operator takes the value; for others it returns NotImplemented, so that their type gets its
    turn.
    """
    return isinstance(other, _OPERANDS) or getattr(other, "is_symbolic_int", False) is True


def install_operator(name: str, compute: Callable[[Any, Any], Any]) -> None:
    """Install `__name__` on Tensor."""

    def dunder(self: Any, other: Any) -> Any:
        if isinstance(other, _OPERANDS) or accepts(other):
            return compute(self, other)
        if name in ("__eq__", "__ne__") and isinstance(other, np.ndarray):
            return compute(self, from_numpy(other))
        return NotImplemented

    dunder.__name__ = dunder.__qualname__ = name
    setattr(Tensor, name, dunder)


def _reversed_div(divisor: Any, dividend: Any) -> Any:
    """`dividend / divisor`: for tensors in PyTorch's two steps, for run-time numbers as Python divides."""
    return div(dividend, divisor) if divisor.is_number else divisor.reciprocal() * dividend


for _name, _compute in (
    ("__add__", add),
    ("__radd__", add),
    ("__iadd__", FUNCTIONS["add_"]),
    ("__sub__", sub),
    ("__rsub__", rsub),
    ("__isub__", FUNCTIONS["sub_"]),
    ("__mul__", mul),
    ("__rmul__", mul),
    ("__imul__", FUNCTIONS["mul_"]),
    ("__truediv__", div),
    ("__rtruediv__", _reversed_div),
    ("__itruediv__", FUNCTIONS["div_"]),
    ("__rdiv__", _reversed_div),
    ("__floordiv__", floor_divide),
    ("__rfloordiv__", lambda self, other: floor_divide(other, self)),
    ("__ifloordiv__", FUNCTIONS["floor_divide_"]),
    ("__mod__", remainder),
    ("__rmod__", lambda self, other: remainder(other, self)),
    ("__imod__", FUNCTIONS["remainder_"]),
    ("__pow__", _power),
    ("__rpow__", lambda self, other: _power(other, self)),
    ("__ipow__", FUNCTIONS["pow_"]),
):
    install_operator(_name, _compute)


@method("__round__")
def _round(self: Any, ndigits: int | None = None) -> Any:
    """`round()` of a number that is known when compiled code runs; tensors have none, as in PyTorch."""
    if not self.is_number:
        raise TypeError(f"type {type(self).__name__} doesn't define __round__ method")
    return round(float(self) if self.dtype.is_floating_point else int(self), ndigits)


@method("__divmod__")
def _divmod(self: Any, other: Any) -> Any:
    quotient = floor_divide(self, other)
    return quotient, sub(self, mul(quotient, other))
