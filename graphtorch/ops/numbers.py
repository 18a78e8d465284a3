"""Functions of a number's representation and number theory, and the gamma function's family."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from graphtorch.ops import gamma_function
from graphtorch.ops.arguments import check_tensors
from graphtorch.ops.arithmetic import difference
from graphtorch.ops.build import FUNCTIONS, function, operator
from graphtorch.ops.pointwise import (
    binary,
    common_float,
    in_float32,
    not_implemented,
    pointwise_type,
    promoted,
    refuse,
)
from graphtorch.ops.record import Sample, sample
from graphtorch.tensor import dtypes
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType


def _where(condition: Any, x: Any, y: Any) -> Any:
    return FUNCTIONS["where"](condition, x, y)


# -- sign, neighbours, exponents --------------------------------------------------------------------------------------


def _signed(g: Any, input: Any, other: Any) -> Any:
    """The cotangent with the sign that the operand took on; flat at zero as in PyTorch."""
    value = other if hasattr(other, "shape") else FUNCTIONS["full_like"](input, other)
    flipped = FUNCTIONS["logical_xor"](input.signbit(), value.signbit())
    return _where(input == 0, 0.0, _where(flipped, -g, g))


copysign = binary(
    "copysign",
    np.copysign,
    {"input": _signed, "other": lambda g: FUNCTIONS["zeros_like"](g)},
    compute=common_float,
    check=refuse("copysign_cpu", "c"),
    decompose=lambda input, other: _decompose_copysign(input, other),
    categories="bif",
)


def _decompose_copysign(input: Any, other: Any) -> Any:
    d = common_float(input, other)
    size = input.to(d).abs()
    value = other if hasattr(other, "shape") else FUNCTIONS["full"]((), other, dtype=d)
    return _where(value.signbit(), -size, size)


def _on_arrays(compute: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, y: compute(*promoted(dtypes.result_type, (x, y)))


nextafter = operator(
    "nextafter(Tensor input, Tensor other)",
    order={"result": "operands"},
    type=lambda input, other: (
        refuse("nextafter_cpu", "bic")(input, other),
        pointwise_type((input, other), dtypes.result_type(input, other)),
    )[1],
    numpy=_on_arrays(np.nextafter),
    # A neighbour moves with its number, whatever the direction; where there is no way to go, nothing is said to move.
    derivative={
        "input": lambda g, input, other: _where(input == other, 0.0, g),
        "other": lambda g: FUNCTIONS["zeros_like"](g),
    },
    samples=lambda make: [sample(make(3, 4), make(4)), sample(make(3), make(3))],
    inplace=True,
    out=True,
)


def _heaviside_type(input: Any, values: Any) -> TensorType:
    if input.dtype is not values.dtype:
        raise RuntimeError("heaviside is not yet implemented for tensors with different dtypes.")
    if input.dtype.is_complex:
        raise RuntimeError("heaviside is not yet implemented for complex tensors.")
    return pointwise_type((input, values), input.dtype)


def _numpy_heaviside(input: Any, values: Any) -> Any:
    one, zero = (np.asarray(v).astype(input.dtype) for v in (1, 0))
    return np.where(input == 0, values, np.where(input > 0, one, zero))


heaviside = operator(
    "heaviside(Tensor input, Tensor values)",
    type=_heaviside_type,
    numpy=_numpy_heaviside,
    kind="pointwise",
    compute=lambda input, values: input.dtype,
    decompose=lambda input, values: _where(input == 0, values, (input > 0).to(input.dtype)),
    samples=lambda make: [sample(make(3, 4), make(4)), sample(make(3, 4), make())],
    categories="bif",
    inplace=True,
    out=True,
)


@function(method=True)
def ldexp(input: Any, other: Any) -> Any:
    """input * 2**other. See torch.ldexp."""
    check_tensors("ldexp", input=input, other=other)
    return input * FUNCTIONS["pow"](2.0, other)


def _frexp_type(input: Any) -> tuple[TensorType, TensorType]:
    if not input.dtype.is_floating_point:
        raise RuntimeError("torch.frexp() only supports floating-point dtypes")
    mantissa = TensorType(input.dtype, tuple(input.shape), input.device)
    return mantissa, mantissa.with_dtype(dtypes.int32)


def _numpy_frexp(input: Any) -> Any:
    own = input.dtype
    mantissa, exponent = np.frexp(input.astype(np.float32) if own.itemsize == 2 else input)
    return np.asarray(mantissa).astype(own), np.asarray(exponent).astype(np.int32)


frexp = operator(
    "frexp(Tensor input) -> (mantissa, exponent)",
    order={"mantissa": "operands", "exponent": "operands"},
    type=_frexp_type,
    numpy=_numpy_frexp,
    derivative={"input": lambda g_mantissa, exponent: g_mantissa * FUNCTIONS["pow"](2.0, -exponent)},
    samples=lambda make: [sample(make(3, 4)), sample(make())],
)

# -- integers ---------------------------------------------------------------------------------------------------------

gcd = operator(
    "gcd(Tensor input, Tensor other)",
    order={"result": "operands"},
    type=lambda input, other: (
        refuse("gcd_cpu", "bfc")(input, other),
        pointwise_type((input, other), dtypes.result_type(input, other)),
    )[1],
    numpy=_on_arrays(np.gcd),
    samples=lambda make: [sample(make(3, 4, low=-12, high=12), make(4, low=-12, high=12))],
    categories="i",
    inplace=True,
    out=True,
)
lcm = operator(
    "lcm(Tensor input, Tensor other)",
    order={"result": "operands"},
    type=lambda input, other: (
        refuse("lcm_cpu", "bfc")(input, other),
        pointwise_type((input, other), dtypes.result_type(input, other)),
    )[1],
    numpy=_on_arrays(np.lcm),
    samples=lambda make: [sample(make(3, 4, low=-12, high=12), make(4, low=-12, high=12))],
    categories="i",
    inplace=True,
    out=True,
)

# -- logarithms of sums, polar coordinates ----------------------------------------------------------------------------


def _decompose_logaddexp2(input: Any, other: Any) -> Any:
    apart = _where(input == other, 0.0, difference(input, other))
    return FUNCTIONS["maximum"](input, other) + (FUNCTIONS["exp2"](-apart.abs()) + 1).log2()


logaddexp2 = binary(
    "logaddexp2",
    in_float32(np.logaddexp2),
    {
        "input": lambda g, input, other: g / (1 + FUNCTIONS["exp2"](difference(other, input))),
        "other": lambda g, input, other: g / (1 + FUNCTIONS["exp2"](difference(input, other))),
    },
    check=refuse("logaddexp2_cpu", "bic"),
    decompose=_decompose_logaddexp2,
    other="Tensor",
    categories="f",
    inplace=False,
)


@function()
def polar(abs: Any, angle: Any) -> Any:
    """The complex number of a size and an angle. See torch.polar."""
    check_tensors("polar", abs=abs, angle=angle)
    return FUNCTIONS["complex"](abs * angle.cos(), abs * angle.sin())


# -- the gamma function -----------------------------------------------------------------------------------------------


def _positive_samples(make: Any) -> Iterable[Sample]:
    yield sample(make(3, 4, low=0.3, high=6.0))
    yield sample(make(low=0.3, high=6.0))


def _opaque_unary(name: str, compute: Callable[..., Any], derivative: Callable[..., Any]) -> Callable[..., Any]:
    return operator(
        f"{name}(Tensor input)",
        order={"result": "operands"},
        type=lambda input: (refuse(f"{name}_cpu", "c")(input), pointwise_type((input,), common_float(input)))[1],
        numpy=lambda input: compute(*promoted(common_float, (input,))),
        derivative={"input": derivative},
        samples=_positive_samples,
        categories="bif",
        inplace=True,
        out=True,
    )


lgamma = _opaque_unary("lgamma", gamma_function.lgamma, lambda g, input: g * input.digamma())
digamma = _opaque_unary("digamma", gamma_function.digamma, lambda g, input: g * FUNCTIONS["polygamma"](1, input))


def _polygamma_type(input: Any, n: int) -> TensorType:
    if n < 0:
        raise RuntimeError("polygamma(n, x) does not support negative n.")
    if input.dtype.is_complex:
        raise not_implemented("polygamma", input.dtype)
    return pointwise_type((input,), common_float(input))


_polygamma = operator(
    "polygamma(Tensor input, int n)",
    type=_polygamma_type,
    numpy=lambda input, n: gamma_function.polygamma(n, *promoted(common_float, (input,))),
    derivative={"input": lambda g, input, n: g * FUNCTIONS["polygamma"](n + 1, input)},
    samples=lambda make: [sample(make(3, 4, low=0.5, high=4.0), n) for n in (0, 1, 2, 3)],
    categories="bif",
    public=False,
    method=False,
)


@function()
def polygamma(n: Any, input: Any) -> Any:
    """The n-th derivative of digamma. See torch.polygamma."""
    return _polygamma(input, n)


def _polygamma_method(self: Any, n: int) -> Any:
    """The n-th derivative of digamma. See torch.Tensor.polygamma."""
    return _polygamma(self, n)


Tensor.polygamma = _polygamma_method  # type: ignore[attr-defined]


@function(method=True)
def mvlgamma(input: Any, p: int) -> Any:
    """The multivariate log-gamma function of dimension p. See torch.mvlgamma.

    Raises RuntimeError for p below 1.
    """
    if p < 1:
        raise RuntimeError("p has to be greater than or equal to 1")
    result = (input + (1 - p) / 2.0).lgamma()
    for j in range(1, p):
        result = result + (input + (1 - p + j) / 2.0).lgamma()
    return result + p * (p - 1) / 4.0 * math.log(math.pi)


# -- entropies and the normal distribution ----------------------------------------------------------------------------


@function()
def special_entr(input: Any) -> Any:
    """-x log x, 0 at 0 and -inf below. See torch.special.entr."""
    x = input.to(common_float(input))
    outside = _where(x == 0, FUNCTIONS["zeros"]((), dtype=x.dtype), -math.inf)
    return _where(x.isnan(), x, _where(x > 0, -x * _where(x > 0, x, 1.0).log(), outside))


@function()
def special_ndtr(input: Any) -> Any:
    """The standard normal distribution function. See torch.special.ndtr."""
    x = input.to(common_float(input))
    return 0.5 * (x * -math.sqrt(0.5)).erfc()


@function()
def special_xlog1py(input: Any, other: Any) -> Any:
    """input * log1p(other), 0 where input is 0. See torch.special.xlog1py."""
    if not isinstance(input, Tensor) and not isinstance(other, Tensor):
        raise TypeError(
            "special_xlog1py() received an invalid combination of arguments - got "
            f"({type(input).__name__}, {type(other).__name__})"
        )
    x, y = (v if hasattr(v, "shape") else FUNCTIONS["full"]((), v) for v in (input, other))
    zero = FUNCTIONS["logical_and"](x == 0, y.isnan().logical_not())
    return _where(zero, 0.0, x * _where(zero, 0.0, y).log1p())
