"""Arithmetic on two and more operands, with Python's arithmetic operators on tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from graphtorch.ops.build import FUNCTIONS, function, method, operator
from graphtorch.ops.pointwise import (
    binary,
    common,
    common_float,
    in_float32,
    not_implemented,
    numpy_binary,
    pointwise_type,
    promoted,
    refuse,
)
from graphtorch.ops.record import POINTWISE, Sample, sample
from graphtorch.tensor import dtypes
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
            "Subtraction, the `-` operator, with two bool tensors is not supported. Use the `^` or `logical_xor()` operator "
            "instead."
        )
    if _is_bool(input) or _is_bool(other):
        raise RuntimeError(
            "Subtraction, the `-` operator, with a bool tensor is not supported. If you are trying to invert a mask, use the `~` "
            "or `logical_not()` operator instead."
        )
    return _sum_type(input, other, alpha)


_add = numpy_binary(np.add, common)
_subtract = numpy_binary(np.subtract, common)
_multiply = numpy_binary(np.multiply, common)


def _is_one(alpha: Any) -> bool:
    return isinstance(alpha, int) and alpha == 1


def _numpy_add(input: Any, other: Any, alpha: Any) -> Any:
    return _add(input, other if _is_one(alpha) else _multiply(other, alpha))


def _numpy_sub(input: Any, other: Any, alpha: Any) -> Any:
    return _subtract(input, other if _is_one(alpha) else _multiply(other, alpha))


def _alpha_samples(make: Any) -> Iterable[Sample]:
    yield sample(make(3, 4), make(3, 4))
    yield sample(make(2, 3), make())
    if make.dtype is not dtypes.bool_:
        yield sample(make(3, 1), make(4), alpha=2)
        yield sample(make(2, 3), 3)


def _common_first_two(input: Any, other: Any, alpha: Any) -> dtypes.dtype:
    return common(input, other)


# Law: x + alpha y. The scalar instruction has alpha = 1; any other is a product first.
add = operator(
    "add(Tensor|Number input, Tensor|Number other, *, Number alpha=1)",
    type=_sum_type,
    numpy=_numpy_add,
    kind=POINTWISE,
    derivative={
        "input": lambda g: g,
        "other": lambda g, alpha: g if _is_one(alpha) else g * conjugate(alpha),
    },
    scalar="add",
    compute=_common_first_two,
    decompose=lambda input, other, alpha: None if _is_one(alpha) else add(input, mul(other, alpha)),
    samples=_alpha_samples,
    categories="bifc",
    lazy_check=True,
    inplace=True,
    out=True,
)

sub = operator(
    "sub(Tensor|Number input, Tensor|Number other, *, Number alpha=1)",
    type=_difference_type,
    numpy=_numpy_sub,
    kind=POINTWISE,
    derivative={
        "input": lambda g: g,
        "other": lambda g, alpha: -g if _is_one(alpha) else -(g * conjugate(alpha)),
    },
    scalar="sub",
    compute=_common_first_two,
    decompose=lambda input, other, alpha: None if _is_one(alpha) else sub(input, mul(other, alpha)),
    samples=_alpha_samples,
    categories="ifc",
    inplace=True,
    out=True,
)

rsub = operator(
    "rsub(Tensor input, Tensor|Number other, *, Number alpha=1)",
    type=lambda input, other, alpha: _difference_type(other, input, alpha),
    numpy=lambda input, other, alpha: _numpy_sub(other, input, alpha),
    kind=POINTWISE,
    derivative={
        "input": lambda g, alpha: -g if _is_one(alpha) else -(g * conjugate(alpha)),
        "other": lambda g: g,
    },
    decompose=lambda input, other, alpha: sub(other, input, alpha=alpha),
    compute=_common_first_two,
    samples=_alpha_samples,
    categories="ifc",
    grad_name="RsubBackward1",
)

mul = binary(
    "mul",
    np.multiply,
    {"input": lambda g, other: g * conjugate(other), "other": lambda g, input: g * conjugate(input)},
    input="Tensor|Number",
)

# -- quotients --------------------------------------------------------------------------------------------------------


def _check_zero(divisor: Any) -> None:
    """Integer division by zero has no result. Raises RuntimeError with PyTorch's text."""
    if divisor.dtype.kind in "iu" and not np.all(divisor):
        raise RuntimeError("ZeroDivisionError")


def _floor_quotient(x: Any, y: Any) -> Any:
    _check_zero(y)
    return np.floor_divide(x, y)


def _truncated_quotient(x: Any, y: Any) -> Any:
    if x.dtype.kind in "iu":
        _check_zero(y)
        return np.floor_divide(x - np.fmod(x, y), y)
    return np.trunc(np.true_divide(x, y))


_true_divide = numpy_binary(np.true_divide, common_float)
_ROUNDED = {"floor": _floor_quotient, "trunc": _truncated_quotient}


def _numpy_div(input: Any, other: Any, rounding_mode: str | None) -> Any:
    if rounding_mode is None:
        return _true_divide(input, other)
    return _ROUNDED[rounding_mode](*promoted(common, (input, other)))


def _div_type(input: Any, other: Any, rounding_mode: str | None) -> TensorType:
    if rounding_mode is None:
        return pointwise_type((input, other), common_float(input, other))
    if rounding_mode not in _ROUNDED:
        raise RuntimeError(f"div expected rounding_mode to be one of None, 'trunc', or 'floor' but found '{rounding_mode}'")
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


div = operator(
    "div(Tensor|Number input, Tensor|Number other, *, str? rounding_mode=None)",
    type=_div_type,
    numpy=_numpy_div,
    kind=POINTWISE,
    derivative={
        # Rounding is flat almost everywhere.
        "input": lambda g, other, rounding_mode: g / conjugate(other) if rounding_mode is None else FUNCTIONS["zeros_like"](g),
        "other": lambda g, input, other, rounding_mode: (
            -g * conjugate(div(div(input, other), other)) if rounding_mode is None else FUNCTIONS["zeros_like"](g)
        ),
    },
    scalar="div",
    compute=lambda input, other, rounding_mode: (common if rounding_mode else common_float)(input, other),
    decompose=_decompose_div,
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
    samples=_positive_divisor,
    categories="if",
)


def _numpy_fmod(x: Any, y: Any) -> Any:
    _check_zero(y)
    return np.fmod(x, y)


def _numpy_remainder(x: Any, y: Any) -> Any:
    _check_zero(y)
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
        if special is not None and input.dtype.itemsize > 2:
            return special(input)
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
    d = dtypes.complex128 if common(input, exponent).is_complex else dtypes.float64
    return pow(*(v.to(d) if isinstance(v, Tensor) else v for v in (input, exponent)))


# -- larger and smaller -----------------------------------------------------------------------------------------------


def _refuse_complex(name: str) -> Callable[..., None]:
    def check(input: Any, other: Any) -> None:
        if common(input, other).is_complex:
            raise RuntimeError(f"{name} not implemented for complex tensors.")

    return check


def _shared(worse: Callable[[Any, Any], Any], of_input: bool) -> Callable[..., Any]:
    """The larger operand receives the cotangent; equal operands share it."""

    def formula(g: Any, input: Any, other: Any) -> Any:
        where = FUNCTIONS["where"]
        half = where(input == other, g / 2, g)
        return where(worse(input, other) if of_input else worse(other, input), 0.0, half)

    return formula


def _extremum(name: str, compute: Any, worse: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    return binary(
        name,
        compute,
        {"input": _shared(worse, True), "other": _shared(worse, False)},
        check=_refuse_complex(name),
        other="Tensor",
        categories="bif",
        inplace=False,
    )


def _less(a: Any, b: Any) -> Any:
    return a < b


def _greater(a: Any, b: Any) -> Any:
    return a > b


maximum = _extremum("maximum", np.maximum, _less)
minimum = _extremum("minimum", np.minimum, _greater)


def _ignoring_nan(name: str, compute: Any, pick: Callable[..., Any], better: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """fmax and fmin: a NaN loses against a number."""

    def decompose(input: Any, other: Any) -> Any:
        where = FUNCTIONS["where"]
        return where(input.isnan(), other, where(other.isnan(), input, pick(input, other)))

    def keeps_input(input: Any, other: Any) -> Any:
        return FUNCTIONS["logical_or"](better(input, other), other.isnan())

    return binary(
        name,
        compute,
        {
            "input": lambda g, input, other: FUNCTIONS["where"](keeps_input(input, other), g, 0.0),
            "other": lambda g, input, other: FUNCTIONS["where"](keeps_input(input, other), 0.0, g),
        },
        check=_refuse_complex(name),
        decompose=decompose,
        other="Tensor",
        categories="bif",
        inplace=False,
    )


fmax = _ignoring_nan("fmax", np.fmax, maximum, lambda a, b: a >= b)
fmin = _ignoring_nan("fmin", np.fmin, minimum, lambda a, b: a <= b)

# -- limits -----------------------------------------------------------------------------------------------------------


def _clamp_dtype(input: Any, min: Any, max: Any) -> dtypes.dtype:
    return common(*(v for v in (input, min, max) if v is not None))


def _clamp_type(input: Any, min: Any, max: Any) -> TensorType:
    if min is None and max is None:
        raise RuntimeError("torch.clamp: At least one of 'min' or 'max' must not be None")
    d = _clamp_dtype(input, min, max)
    if d.is_complex:
        raise NotImplementedError("clamp is not supported for complex types")
    if d is dtypes.bool_:
        raise not_implemented("clamp_scalar_cpu", d)
    return pointwise_type([v for v in (input, min, max) if v is not None], d)


def _numpy_clamp(input: Any, min: Any, max: Any) -> Any:
    bounds = [v for v in (min, max) if v is not None]
    x, *cast = promoted(common, (input, *bounds))
    if min is not None:
        x = np.maximum(x, cast[0])
    return x if max is None else np.minimum(x, cast[-1])


def _inside(input: Any, min: Any, max: Any) -> Any:
    """Where a clamped operand passes through: both limits included."""
    if min is None:
        return input <= max
    return input >= min if max is None else FUNCTIONS["logical_and"](input >= min, input <= max)


def _clamp_min_formula(g: Any, input: Any, min: Any, max: Any) -> Any:
    where = FUNCTIONS["where"]
    below = input < min
    return where(below if max is None else FUNCTIONS["logical_and"](min < max, below), g, 0.0)


def _clamp_max_formula(g: Any, input: Any, min: Any, max: Any) -> Any:
    where = FUNCTIONS["where"]
    above = input > max
    return where(above if min is None else FUNCTIONS["logical_or"](max < min, above), g, 0.0)


def _as_tensor_bound(bound: Any, like: Any) -> Any:
    return bound if hasattr(bound, "shape") else FUNCTIONS["full"]((), bound, dtype=like, device=None)


def _decompose_clamp(input: Any, min: Any, max: Any) -> Any:
    d = _clamp_dtype(input, min, max)
    if input.dtype is not d:
        input = input.to(d)
    if min is not None:
        input = maximum(input, _as_tensor_bound(min, d)).to(d)
    return input if max is None else minimum(input, _as_tensor_bound(max, d)).to(d)


def _clamp_samples(make: Any) -> Iterable[Sample]:
    yield sample(make(3, 4), -1, 1)
    yield sample(make(3, 4), min=0)
    yield sample(make(3, 4), max=1)
    yield sample(make(3, 4), make(4, high=0.0), make(3, 1, low=0.0))
    yield sample(make(3, 4), min=make(1))
    yield sample(make(3, 4), 2, 1)


clamp = operator(
    "clamp(Tensor input, Tensor|Number? min=None, Tensor|Number? max=None)",
    type=_clamp_type,
    numpy=_numpy_clamp,
    kind=POINTWISE,
    derivative={
        "input": lambda g, input, min, max: FUNCTIONS["where"](_inside(input, min, max), g, 0.0),
        "min": _clamp_min_formula,
        "max": _clamp_max_formula,
    },
    decompose=_decompose_clamp,
    compute=_clamp_dtype,
    samples=_clamp_samples,
    categories="if",
    grad_name="ClampBackward1",
    inplace=True,
    out=True,
)
FUNCTIONS["clip"] = Tensor.clip = clamp  # type: ignore[attr-defined]
FUNCTIONS["clip_"] = Tensor.clip_ = Tensor.clamp_  # type: ignore[attr-defined]


def _one_sided(name: str, bound: str) -> Callable[..., Any]:
    """clamp_min and clamp_max: `clamp` with one limit, by PyTorch's names."""
    lower = bound == "min"

    def both(limit: Any) -> tuple[Any, Any]:
        return (limit, None) if lower else (None, limit)

    def derivative_of_input(g: Any, input: Any, limit: Any) -> Any:
        return FUNCTIONS["where"](_inside(input, *both(limit)), g, 0.0)

    def derivative_of_limit(g: Any, input: Any, limit: Any) -> Any:
        return FUNCTIONS["where"](input < limit if lower else input > limit, g, 0.0)

    namespace: dict[str, Any] = {"a": derivative_of_input, "b": derivative_of_limit}
    # A formula names what it needs by its parameters, and here the parameter's own name varies.
    of_input = eval(f"lambda g, input, {bound}: a(g, input, {bound})", namespace)
    of_limit = eval(f"lambda g, input, {bound}: b(g, input, {bound})", namespace)
    return operator(
        f"{name}(Tensor input, Tensor|Number {bound})",
        type=lambda input, limit: _clamp_type(input, *both(limit)),
        numpy=lambda input, limit: _numpy_clamp(input, *both(limit)),
        kind=POINTWISE,
        derivative={"input": of_input, bound: of_limit},
        decompose=lambda input, limit: _decompose_clamp(input, *both(limit)),
        compute=common,
        samples=lambda make: [sample(make(3, 4), make(4)), sample(make(3, 4), 0)],
        categories="if",
        inplace=True,
        out=True,
    )


clamp_min = _one_sided("clamp_min", "min")
clamp_max = _one_sided("clamp_max", "max")

# -- angles and logarithms of two operands ----------------------------------------------------------------------------

atan2 = binary(
    "atan2",
    in_float32(np.arctan2),
    {
        "input": lambda g, input, other: g * (other / (input * input + other * other)),
        "other": lambda g, input, other: g * (-input / (input * input + other * other)),
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


def _decompose_logaddexp(input: Any, other: Any) -> Any:
    # Equal operands, infinities among them, differ by nothing.
    apart = FUNCTIONS["where"](input == other, 0.0, sub(input, other))
    return maximum(input, other) + (-apart.abs()).exp().log1p()


logaddexp = binary(
    "logaddexp",
    in_float32(np.logaddexp),
    {
        "input": lambda g, input, other: g / (1 + (other - input).exp()),
        "other": lambda g, input, other: g / (1 + (input - other).exp()),
    },
    check=refuse("logaddexp_cpu", "bi"),
    decompose=_decompose_logaddexp,
    other="Tensor",
    categories="f",
    inplace=False,
)


def _numpy_xlogy(x: Any, y: Any) -> Any:
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
    in_float32(lambda x, y: _numpy_xlogy(np.asarray(x), np.asarray(y))),
    {"input": _xlogy_input, "other": lambda g, input, other: g * (input / other)},
    compute=common_float,
    check=refuse("xlogy_cpu", "c"),
    decompose=_decompose_xlogy,
    input="Tensor|Number",
    low=0.5,
    categories="bif",
)

# -- three operands ---------------------------------------------------------------------------------------------------


def _addcmul_type(input: Any, tensor1: Any, tensor2: Any, value: Any) -> TensorType:
    refuse("addcmul_cpu_out", "b")(input, tensor1, tensor2)
    return pointwise_type((input, tensor1, tensor2), common(input, tensor1, tensor2))


def _scale(value: Any, d: np.dtype[Any]) -> Any:
    """A number in the dtype that the operands compute in; integers truncate it."""
    return np.asarray(value).astype(d)


@in_float32
def _sum_of_product(x: Any, a: Any, b: Any, value: Any) -> Any:
    return x + value * a * b


@in_float32
def _sum_of_quotient(x: Any, a: Any, b: Any, value: Any) -> Any:
    return x + value * a / b


def _numpy_addcmul(input: Any, tensor1: Any, tensor2: Any, value: Any) -> Any:
    x, a, b = promoted(common, (input, tensor1, tensor2))
    return _sum_of_product(x, a, b, _scale(value, x.dtype))


def _scaled(value: Any, factor: Any) -> Any:
    """`value * factor` without the product by a constant 1; integer factors truncate the number as PyTorch does."""
    if _is_one(value):
        return factor
    if isinstance(value, float) and hasattr(factor, "dtype") and factor.dtype.category < dtypes.FLOATING:
        value = int(value)
    return factor * value


def _three_samples(make: Any) -> Iterable[Sample]:
    yield sample(make(3, 4), make(3, 4), make(3, 4, low=0.5))
    yield sample(make(3, 4), make(4), make(3, 1, low=0.5), value=2)


addcmul = operator(
    "addcmul(Tensor input, Tensor tensor1, Tensor tensor2, *, Number value=1)",
    type=_addcmul_type,
    numpy=_numpy_addcmul,
    kind=POINTWISE,
    derivative={
        "input": lambda g: g,
        "tensor1": lambda g, tensor2, value: g * conjugate(_scaled(value, tensor2)),
        "tensor2": lambda g, tensor1, value: g * conjugate(_scaled(value, tensor1)),
    },
    decompose=lambda input, tensor1, tensor2, value: input + _scaled(value, tensor1) * tensor2,
    compute=lambda input, tensor1, tensor2, value: common(input, tensor1, tensor2),
    samples=_three_samples,
    categories="ifc",
    inplace=True,
    out=True,
)


def _addcdiv_type(input: Any, tensor1: Any, tensor2: Any, value: Any) -> TensorType:
    if common(tensor1, tensor2).category < dtypes.FLOATING:
        raise RuntimeError(
            "Integer division with addcdiv is no longer supported, and in a future  release addcdiv will perform a true division "
            "of tensor1 and tensor2. The historic addcdiv behavior can be implemented as (input + value * torch.trunc(tensor1 / "
            "tensor2)).to(input.dtype) for integer inputs and as (input + value * tensor1 / tensor2) for float inputs. The future "
            "addcdiv behavior is just the latter implementation: (input + value * tensor1 / tensor2), for all dtypes."
        )
    return pointwise_type((input, tensor1, tensor2), common(input, tensor1, tensor2))


def _numpy_addcdiv(input: Any, tensor1: Any, tensor2: Any, value: Any) -> Any:
    x, a, b = promoted(common, (input, tensor1, tensor2))
    return _sum_of_quotient(x, a, b, _scale(value, x.dtype))


addcdiv = operator(
    "addcdiv(Tensor input, Tensor tensor1, Tensor tensor2, *, Number value=1)",
    type=_addcdiv_type,
    numpy=_numpy_addcdiv,
    kind=POINTWISE,
    derivative={
        "input": lambda g: g,
        "tensor1": lambda g, tensor2, value: _scaled(value, g) / conjugate(tensor2),
        "tensor2": lambda g, tensor1, tensor2, value: (
            -_scaled(value, g) * conjugate(tensor1 / (tensor2 * tensor2))
        ),
    },
    decompose=lambda input, tensor1, tensor2, value: input + _scaled(value, tensor1) / tensor2,
    compute=lambda input, tensor1, tensor2, value: common(input, tensor1, tensor2),
    samples=_three_samples,
    categories="fc",
    inplace=True,
    out=True,
)

_CPP_NAMES = {
    "float32": "float", "float64": "double", "float16": "c10::Half", "bfloat16": "c10::BFloat16", "int64": "long int",
    "int32": "int", "int16": "short int", "int8": "signed char", "uint8": "unsigned char", "bool": "bool",
    "complex64": "c10::complex<float>", "complex128": "c10::complex<double>",
}  # fmt: skip


def cpp_name(d: dtypes.dtype) -> str:
    """The C++ type by which some of PyTorch's messages call a dtype."""
    return _CPP_NAMES[d.name]


def _lerp_type(input: Any, end: Any, weight: Any) -> TensorType:
    operands = [("end", end)] + ([("weight", weight)] if hasattr(weight, "shape") and not _is_number(weight) else [])
    for name, value in operands:
        if value.dtype is not input.dtype:
            raise RuntimeError(
                f"expected dtype {cpp_name(input.dtype)} for `{name}` but got dtype {cpp_name(value.dtype)}"
            )
    if input.dtype.category < dtypes.FLOATING:
        raise not_implemented("lerp_kernel_" + ("scalar" if len(operands) == 1 else "tensor"), input.dtype)
    return pointwise_type((input, *(v for _, v in operands)), input.dtype)


def _is_number(value: Any) -> bool:
    """Whether an operand is a Python number, also one that became a run-time value."""
    return not hasattr(value, "shape") or getattr(value, "is_number", False)


def _numpy_lerp(input: Any, end: Any, weight: Any) -> Any:
    return _interpolate(input, end, _scale(weight, input.dtype))


@in_float32
def _interpolate(start: Any, end: Any, weight: Any) -> Any:
    # From the nearer end, as in PyTorch, so that both ends are reached exactly.
    gap = end - start
    return np.where(np.abs(weight) < 0.5, start + weight * gap, end - gap * (1 - weight))


def _decompose_lerp(input: Any, end: Any, weight: Any) -> Any:
    gap = end - input
    from_start = input + weight * gap
    from_end = end - gap * (1 - weight)
    if not hasattr(weight, "shape"):
        return from_start if abs(weight) < 0.5 else from_end
    return FUNCTIONS["where"](weight.abs() < 0.5, from_start, from_end)


def _lerp_samples(make: Any) -> Iterable[Sample]:
    yield sample(make(3, 4), make(3, 4), 0.3)
    yield sample(make(3, 4), make(4), 0.75)
    yield sample(make(3, 4), make(3, 4), make(3, 4, low=0.0, high=1.0))


lerp = operator(
    "lerp(Tensor input, Tensor end, Tensor|Number weight)",
    type=_lerp_type,
    numpy=_numpy_lerp,
    kind=POINTWISE,
    derivative={
        "input": lambda g, weight: g * conjugate(1 - weight),
        "end": lambda g, weight: g * conjugate(weight),
        "weight": lambda g, input, end: g * conjugate(end - input),
    },
    decompose=_decompose_lerp,
    compute=lambda input, end, weight: input.dtype,
    samples=_lerp_samples,
    categories="fc",
    inplace=True,
    out=True,
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
    """Whether a Python operator takes the value; for others it returns NotImplemented, so that their type gets its turn."""
    return isinstance(other, _OPERANDS) or getattr(other, "is_symbolic_int", False) is True


def install_operator(name: str, compute: Callable[[Any, Any], Any]) -> None:
    """Install `__name__` on Tensor."""

    def dunder(self: Any, other: Any) -> Any:
        if isinstance(other, _OPERANDS) or accepts(other):
            return compute(self, other)
        return NotImplemented

    dunder.__name__ = dunder.__qualname__ = name
    setattr(Tensor, name, dunder)


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
    ("__rtruediv__", lambda self, other: self.reciprocal() * other),
    ("__itruediv__", FUNCTIONS["div_"]),
    ("__floordiv__", floor_divide),
    ("__rfloordiv__", lambda self, other: floor_divide(other, self)),
    ("__ifloordiv__", FUNCTIONS["floor_divide_"]),
    ("__mod__", remainder),
    ("__rmod__", lambda self, other: remainder(other, self)),
    ("__imod__", FUNCTIONS["remainder_"]),
    ("__pow__", pow),
    ("__rpow__", lambda self, other: pow(other, self)),
    ("__ipow__", FUNCTIONS["pow_"]),
):
    install_operator(_name, _compute)


@method("__divmod__")
def _divmod(self: Any, other: Any) -> Any:
    quotient = floor_divide(self, other)
    return quotient, sub(self, mul(quotient, other))
