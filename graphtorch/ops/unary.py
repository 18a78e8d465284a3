"""Functions of one operand, applied to every element."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from graphtorch.ops import error_function
from graphtorch.ops.arithmetic import conjugate
from graphtorch.ops.build import FUNCTIONS, function, method, operator
from graphtorch.ops.pointwise import (
    common,
    common_float,
    in_float32,
    not_implemented,
    pointwise_type,
    promoted,
    scalar_type,
    to_bool,
    unary,
)
from graphtorch.ops.record import POINTWISE, VIEW, Sample, sample
from graphtorch.tensor import dtypes
from graphtorch.tensor.dtypes import dtype
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType


def _where(condition: Any, x: Any, y: Any) -> Any:
    return FUNCTIONS["where"](condition, x, y)


def _zeros(g: Any) -> Any:
    """The derivative of a function that is constant almost everywhere."""
    return FUNCTIONS["zeros_like"](g)


def _refuse(kernel: str, categories: str) -> Callable[[Any], None]:
    def check(input: Any) -> None:
        if "bifc"[input.dtype.category] in categories:
            raise not_implemented(kernel, input.dtype)

    return check


def _alias(name: str, *others: str) -> None:
    """More names for an operator, with the same in-place form."""
    for other in others:
        FUNCTIONS[other] = FUNCTIONS[name]
        setattr(Tensor, other, FUNCTIONS[name])
        if name + "_" in FUNCTIONS:
            FUNCTIONS[other + "_"] = FUNCTIONS[name + "_"]
            setattr(Tensor, other + "_", FUNCTIONS[name + "_"])


# -- sign and size ----------------------------------------------------------------------------------------------------


def _check_neg(input: Any) -> None:
    if input.dtype is dtypes.bool_:
        raise RuntimeError(
            "Negation, the `-` operator, on a bool tensor is not supported. If you are trying to invert a mask, use "
            "the `~` or `logical_not()` operator instead."
        )


neg = unary("neg", np.negative, lambda g: -g, compute=common, check=_check_neg, categories="ifc")
_alias("neg", "negative")


def _check_sign(input: Any) -> None:
    if input.dtype.is_complex:
        raise NotImplementedError(
            "Unlike NumPy, torch.sign is not intended to support complex numbers. Please use torch.sgn instead."
        )


def _numpy_sign(x: Any) -> Any:
    if x.dtype == np.bool_:
        return x.copy()
    if x.dtype.kind in "iu":
        return np.sign(x)
    return np.nan_to_num(np.sign(x), nan=0.0)  # PyTorch: NaN is neither above nor below zero


abs = unary(
    "abs",
    np.abs,
    lambda g, input: g * input.sgn(),
    compute=common,
    result=lambda d: d.to_real(),
    check=_refuse("abs_cpu", "b"),
    categories="ifc",
)
_alias("abs", "absolute")
sign = unary("sign", lambda x: _numpy_sign(np.asarray(x)), _zeros, compute=common, check=_check_sign, categories="bif")


def _numpy_sgn(x: Any) -> Any:
    if not np.iscomplexobj(x):
        return _numpy_sign(np.asarray(x))
    size = np.abs(x)
    return np.where(size == 0, 0, x / np.where(size == 0, 1, size)).astype(x.dtype)


def _sgn_formula(g: Any, input: Any, result: Any) -> Any:
    if not input.dtype.is_complex:
        return _zeros(g)
    size = input.abs()
    along = (g * result.conj()).real
    return _where(size == 0, 0.0, (g - result * along) / size)


sgn = unary(
    "sgn",
    _numpy_sgn,
    _sgn_formula,
    compute=common,
    decompose=lambda input: None if input.dtype.is_complex else input.sign(),
)

positive = function(method=True, name="positive")(lambda input: input)

# -- exponentials and logarithms --------------------------------------------------------------------------------------

LN2, LN10 = math.log(2.0), math.log(10.0)

exp = unary("exp", np.exp, lambda g, result: g * conjugate(result))
expm1 = unary("expm1", np.expm1, lambda g, result: g * conjugate(result + 1))
exp2 = unary(
    "exp2",
    lambda x: np.exp(x * LN2) if np.iscomplexobj(x) else np.exp2(x),
    lambda g, result: g * conjugate(result) * LN2,
    # Rounding x ln 2 would cost as many digits as the result has powers of two.
    decompose=lambda input: (input * LN2).exp() if input.dtype.is_complex else FUNCTIONS["pow"](2.0, input),
)
log = unary("log", np.log, lambda g, input: g / conjugate(input), low=0.2, high=3.0)
log1p = unary("log1p", np.log1p, lambda g, input: g / conjugate(input + 1), low=-0.5)
log2 = unary("log2", np.log2, lambda g, input: g / conjugate(input * LN2), low=0.2, high=3.0)
log10 = unary(
    "log10",
    np.log10,
    lambda g, input: g / conjugate(input * LN10),
    decompose=lambda input: input.log() * (1.0 / LN10),
    low=0.2,
    high=3.0,
)

# -- powers and roots -------------------------------------------------------------------------------------------------


def _numpy_square(x: Any) -> Any:
    return x * x


def _square_compute(input: Any) -> dtype:
    return common(input, 2)  # `pow(input, 2)`: a bool becomes an int64


square = unary(
    "square",
    _numpy_square,
    lambda g, input: g * conjugate(input * 2),
    compute=_square_compute,
    decompose=lambda input: input * input,
    grad_name="PowBackward0",
    categories="ifc",
)
sqrt = unary("sqrt", np.sqrt, lambda g, result: g / conjugate(result * 2), low=0.2)
rsqrt = unary(
    "rsqrt",
    in_float32(lambda x: 1 / np.sqrt(x)),
    lambda g, result: g * conjugate(result * result * result * -0.5),
    low=0.2,
)
reciprocal = unary("reciprocal", np.reciprocal, lambda g, result: -g * conjugate(result * result), low=0.2)

# -- trigonometric and hyperbolic -------------------------------------------------------------------------------------

sin = unary("sin", np.sin, lambda g, input: g * conjugate(input.cos()))
cos = unary("cos", np.cos, lambda g, input: -g * conjugate(input.sin()))
tan = unary("tan", np.tan, lambda g, result: g * conjugate(result * result + 1), low=-1.2, high=1.2)
asin = unary("asin", np.arcsin, lambda g, input: g * conjugate((1 - input * input).rsqrt()), low=-0.9, high=0.9)
acos = unary("acos", np.arccos, lambda g, input: -g * conjugate((1 - input * input).rsqrt()), low=-0.9, high=0.9)
atan = unary("atan", np.arctan, lambda g, input: g / conjugate(input * input + 1))
sinh = unary("sinh", np.sinh, lambda g, input: g * conjugate(input.cosh()))
cosh = unary("cosh", np.cosh, lambda g, input: g * conjugate(input.sinh()))
tanh = unary("tanh", np.tanh, lambda g, result: g * conjugate(1 - result * result))


def _real_only(decompose: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A decomposition for real operands in their floating type; complex ones run the NumPy function."""

    def run(input: Any) -> Any:
        d = common_float(input)
        if d.is_complex:
            return None
        return decompose(input if input.dtype is d else input.to(d))

    return run


def _decompose_asinh(x: Any) -> Any:
    size = x.abs()
    moderate = (size + size * size / (1 + (size * size + 1).sqrt())).log1p()
    return _where(x == 0, x, x.sign() * _where(size > 1e8, size.log() + LN2, moderate))


def _decompose_acosh(x: Any) -> Any:
    above = x - 1
    return _where(x > 1e8, x.log() + LN2, (above + above.sqrt() * (above + 2).sqrt()).log1p())


asinh = unary(
    "asinh",
    np.arcsinh,
    lambda g, input: g * conjugate((input * input + 1).rsqrt()),
    decompose=_real_only(_decompose_asinh),
)
acosh = unary(
    "acosh",
    np.arccosh,
    lambda g, input: g * conjugate((input - 1).rsqrt() * (input + 1).rsqrt()),
    decompose=_real_only(_decompose_acosh),
    low=1.2,
    high=3.0,
)
atanh = unary(
    "atanh",
    np.arctanh,
    lambda g, input: g / conjugate(1 - input * input),
    decompose=_real_only(lambda x: 0.5 * (x.log1p() - (-x).log1p())),
    low=-0.8,
    high=0.8,
)
for _name, _other in (
    ("asin", "arcsin"),
    ("acos", "arccos"),
    ("atan", "arctan"),
    ("asinh", "arcsinh"),
    ("acosh", "arccosh"),
    ("atanh", "arctanh"),
):
    _alias(_name, _other)

deg2rad = function(method=True, name="deg2rad")(lambda input: input * (math.pi / 180.0))
rad2deg = function(method=True, name="rad2deg")(lambda input: input * (180.0 / math.pi))


def _numpy_sinc(x: Any) -> Any:
    scaled = np.pi * x
    return np.where(x == 0, 1, np.sin(scaled) / np.where(x == 0, 1, scaled)).astype(x.dtype)


sinc = unary(
    "sinc",
    in_float32(lambda x: _numpy_sinc(np.asarray(x))),
    lambda g, input: g * _where(input == 0, 0.0, conjugate(((input * math.pi).cos() - input.sinc()) / input)),
    decompose=_real_only(lambda x: _where(x == 0, 1.0, (x * math.pi).sin() / (x * math.pi))),
    low=0.2,
)

# -- sigmoid and the error function -----------------------------------------------------------------------------------

sigmoid = unary(
    "sigmoid",
    in_float32(lambda x: np.reciprocal(1 + np.exp(-x))),
    lambda g, result: g * conjugate((1 - result) * result),
)


def _numpy_logit(x: Any) -> Any:
    return np.log(x / (1 - x))


def _logit_type(input: Any, eps: Any) -> TensorType:
    _refuse("logit", "c")(input)
    return pointwise_type((input,), common_float(input))


def _logit(x: Any, eps: Any) -> Any:
    (x,) = promoted(common_float, (x,))
    if eps is not None:
        low, high = x.dtype.type(eps), x.dtype.type(1 - eps)
        x = np.where(x < low, low, np.where(x > high, high, x))  # in this order also where low > high
    return in_float32(_numpy_logit)(x)


def _decompose_logit(input: Any, eps: Any) -> Any:
    x = input.to(common_float(input))
    if eps is not None:
        x = _where(x < eps, eps, _where(x > 1 - eps, 1 - eps, x))
    return (x / (1 - x)).log()


def _logit_formula(g: Any, input: Any, eps: Any) -> Any:
    slope = g / (input * (1 - input))
    low, high = (0.0, 1.0) if eps is None else (eps, 1 - eps)
    outside = FUNCTIONS["logical_or"](input < low, input > high)
    return _where(outside, math.nan if eps is None else 0.0, slope)


def _logit_samples(make: Any) -> Iterable[Sample]:
    yield sample(make(3, 4, low=0.1, high=0.9))
    yield sample(make(3, 4, low=0.0, high=1.0), 0.2)


logit = operator(
    "logit(Tensor input, float? eps=None)",
    type=_logit_type,
    numpy=_logit,
    kind=POINTWISE,
    derivative={"input": _logit_formula},
    decompose=_decompose_logit,
    compute=lambda input, eps: common_float(input),
    samples=_logit_samples,
    categories="bif",
    inplace=True,
    out=True,
)

TWO_OVER_ROOT_PI = 2.0 / math.sqrt(math.pi)

erf = unary(
    "erf",
    error_function.erf,
    lambda g, input: g * ((-input * input).exp() * TWO_OVER_ROOT_PI),
    check=_refuse("erf_vml_cpu", "c"),
    categories="bif",
)
erfc = unary(
    "erfc",
    error_function.erfc,
    lambda g, input: g * ((-input * input).exp() * -TWO_OVER_ROOT_PI),
    check=_refuse("erfc_vml_cpu", "c"),
    decompose=lambda input: 1 - input.erf(),
    categories="bif",
)
erfinv = operator(
    "erfinv(Tensor input)",
    order={"result": "operands"},
    type=lambda input: (_refuse("erfinv_vml_cpu", "c")(input), pointwise_type((input,), common_float(input)))[1],
    numpy=lambda input: error_function.erfinv(*promoted(common_float, (input,))),
    derivative={"input": lambda g, result: g * ((result * result).exp() * (1.0 / TWO_OVER_ROOT_PI))},
    samples=lambda make: [sample(make(3, 4, low=-0.9, high=0.9)), sample(make(low=-0.9, high=0.9))],
    categories="bif",
    inplace=True,
    out=True,
)

# -- rounding ---------------------------------------------------------------------------------------------------------


def _rounding(name: str, compute: Callable[..., Any]) -> Callable[..., Any]:
    """Integers round to themselves."""

    def check(input: Any) -> None:
        if input.dtype.is_complex:
            raise NotImplementedError(f"{name} is not supported for complex inputs")
        _refuse(f"{name}_vml_cpu", "b")(input)

    return unary(
        name,
        lambda x: x.copy() if getattr(x, "dtype", np.dtype(float)).kind in "iu" else compute(x),
        _zeros,
        compute=common,
        check=check,
        categories="if",
    )


floor = _rounding("floor", np.floor)
ceil = _rounding("ceil", np.ceil)
trunc = _rounding("trunc", np.trunc)
_alias("trunc", "fix")


def _round_type(input: Any, decimals: Any) -> TensorType:
    if input.dtype.is_complex:
        raise NotImplementedError("round is not supported for complex inputs")
    _refuse("round_vml_cpu", "b" if decimals == 0 else "bi")(input)
    return pointwise_type((input,), input.dtype)


def _numpy_round(input: Any, decimals: int) -> Any:
    if getattr(input, "dtype", np.dtype(float)).kind in "iu":
        return input.copy()
    if decimals == 0:
        return np.rint(input)
    power = 10.0 ** builtins.abs(decimals)
    return in_float32(lambda x: np.rint(x * power) / power if decimals > 0 else np.rint(x / power) * power)(input)


def _decompose_round(input: Any, decimals: int) -> Any:
    if decimals == 0:
        return None
    power = 10.0 ** builtins.abs(decimals)
    return round(input * power) / power if decimals > 0 else round(input / power) * power


# Law: to the nearest integer, halves to even.
round = operator(
    "round(Tensor input, *, int decimals=0)",
    type=_round_type,
    numpy=_numpy_round,
    kind=POINTWISE,
    derivative={"input": _zeros},
    scalar="round",
    compute=lambda input, decimals: input.dtype,
    decompose=_decompose_round,
    samples=lambda make: (
        [sample(make(3, 4, low=-9, high=9))]
        + ([sample(make(3, 4), decimals=2)] if make.dtype.is_floating_point else [])
    ),
    categories="if",
    inplace=True,
    out=True,
)
frac = unary(
    "frac",
    in_float32(lambda x: x - np.trunc(x)),
    lambda g: g,
    compute=common,
    check=_refuse("frac_cpu", "bic"),
    decompose=lambda input: input - input.trunc(),
    categories="f",
)

# -- predicates -------------------------------------------------------------------------------------------------------


def _predicate(name: str, compute: Callable[..., Any], **fields: Any) -> Callable[..., Any]:
    return unary(name, compute, compute=fields.pop("compute", common), result=to_bool, inplace=False, **fields)


def _never(x: Any) -> Any:
    return np.zeros(np.shape(x), np.bool_)


def _for_floating(compute: Callable[[Any], Any], otherwise: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: compute(x) if getattr(x, "dtype", np.dtype(float)).kind in "fcV" else otherwise(x)


isnan = _predicate("isnan", _for_floating(np.isnan, _never), out=False)
isinf = _predicate("isinf", _for_floating(np.isinf, _never), out=False)
isfinite = _predicate("isfinite", _for_floating(np.isfinite, lambda x: ~_never(x)), out=False)


def _one_infinity(name: str, target: float) -> Callable[..., Any]:
    def check(input: Any) -> None:
        if input.dtype.is_complex:
            raise RuntimeError(f"{name} does not support complex inputs.")

    return _predicate(
        name,
        lambda x: np.asarray(x) == target,
        check=check,
        decompose=lambda input: input == target,
        categories="bif",
    )


isposinf = _one_infinity("isposinf", math.inf)
isneginf = _one_infinity("isneginf", -math.inf)


@function(method=True)
def isreal(input: Any) -> Any:
    """Whether the imaginary part is zero. See torch.isreal."""
    return input.imag == 0 if input.dtype.is_complex else FUNCTIONS["ones_like"](input, dtype=dtypes.bool_)


logical_not = unary("logical_not", lambda x: np.logical_not(x), compute=common, result=to_bool)
signbit = _predicate(
    "signbit",
    lambda x: np.signbit(x) if getattr(x, "dtype", np.dtype(float)).kind != "b" else _never(x),
    check=_refuse("signbit_cpu", "c"),
    decompose=lambda input: (
        (input < 0)
        if input.dtype.category < dtypes.FLOATING
        else FUNCTIONS["logical_or"](input < 0, input.reciprocal() < 0)
    ),
    categories="bif",
)
bitwise_not = unary(
    "bitwise_not",
    np.invert,
    compute=common,
    check=_refuse("bitwise_not_cpu", "fc"),
    categories="bi",
)

# -- replacing NaN and infinities -------------------------------------------------------------------------------------


def _replacements(d: dtype, nan: Any, posinf: Any, neginf: Any) -> tuple[float, float, float]:
    limits = dtypes.finfo(d)
    return (
        0.0 if nan is None else nan,
        limits.max if posinf is None else posinf,
        limits.min if neginf is None else neginf,
    )


def _numpy_nan_to_num(input: Any, nan: Any, posinf: Any, neginf: Any) -> Any:
    d = dtypes.from_numpy_dtype(input.dtype)
    if d.category < dtypes.FLOATING:
        return input.copy()
    if d.is_complex:
        result = np.empty_like(input)
        result.real = _numpy_nan_to_num(input.real, nan, posinf, neginf)
        result.imag = _numpy_nan_to_num(input.imag, nan, posinf, neginf)
        return result
    first, second, third = (np.asarray(v).astype(input.dtype) for v in _replacements(d, nan, posinf, neginf))
    return np.where(np.isnan(input), first, np.where(input == np.inf, second, np.where(input == -np.inf, third, input)))


def _decompose_nan_to_num(input: Any, nan: Any, posinf: Any, neginf: Any) -> Any:
    d = input.dtype
    if d.is_complex:
        return None
    if not d.is_floating_point:
        return input.clone()
    first, second, third = _replacements(d, nan, posinf, neginf)
    rest = _where(input == math.inf, second, _where(input == -math.inf, third, input))
    return _where(input.isnan(), first, rest)


nan_to_num = operator(
    "nan_to_num(Tensor input, float? nan=None, float? posinf=None, float? neginf=None)",
    type=lambda input, nan, posinf, neginf: pointwise_type((input,), input.dtype),
    numpy=_numpy_nan_to_num,
    kind=POINTWISE,
    derivative={"input": lambda g, input: _where(input.isfinite(), g, 0.0)},
    decompose=_decompose_nan_to_num,
    compute=lambda input, nan, posinf, neginf: input.dtype,
    samples=lambda make: [
        sample(make(3, 4)),
        sample(make(3, 4).log() if make.dtype.is_floating_point else make(2), 1.0, 2.0, 3.0),
    ],
    categories="bifc",
    inplace=True,
    out=True,
)

# -- complex numbers --------------------------------------------------------------------------------------------------


def _conj_physical_decompose(input: Any) -> Any:
    return None if input.dtype.is_complex else input.clone()


_conj = unary(
    "conj_physical",
    lambda x: np.conjugate(x) if np.iscomplexobj(x) else np.array(x, copy=True),
    lambda g: conjugate(g),
    compute=common,
    decompose=_conj_physical_decompose,
    grad_name="ConjBackward0",
)


@function(method=True)
def conj_physical(input: Any) -> Any:
    """The complex conjugate; a real tensor is its own. See torch.conj_physical."""
    return _conj(input) if input.dtype.is_complex else input


@function(method=True)
def conj(input: Any) -> Any:
    """The complex conjugate; a real tensor is its own. See torch.conj (here the result is computed at once)."""
    return _conj(input) if input.dtype.is_complex else input


@function(method=True)
def resolve_conj(input: Any) -> Any:
    """The tensor itself: conjugation is never pending here. See torch.resolve_conj."""
    return input


FUNCTIONS["resolve_neg"] = Tensor.resolve_neg = resolve_conj  # type: ignore[attr-defined]


def _part_type(name: str) -> Callable[[Any], TensorType]:
    def rule(input: Any) -> TensorType:
        if not input.dtype.is_complex:
            raise RuntimeError(f"{name} is not implemented for tensors with non-complex dtypes.")
        return TensorType(input.dtype.to_real(), tuple(input.shape), input.device)

    return rule


_real = operator(
    "real(Tensor input)",
    grad_name="SelectBackward0",
    type=_part_type("real"),
    numpy=lambda input: input.real,
    kind=VIEW,
    derivative={"input": lambda g, input_type: g.to(input_type.dtype)},
    scatter=lambda base, new: FUNCTIONS["complex"](new, base.imag),
    samples=lambda make: [sample(make(3, 4)), sample(make())],
    categories="c",
    public=False,
    method=False,
)
_imag = operator(
    "imag(Tensor input)",
    grad_name="SelectBackward0",
    type=_part_type("imag"),
    numpy=lambda input: input.imag,
    kind=VIEW,
    derivative={"input": lambda g, input_type: g.to(input_type.dtype) * 1j},
    scatter=lambda base, new: FUNCTIONS["complex"](base.real, new),
    samples=lambda make: [sample(make(3, 4)), sample(make())],
    categories="c",
    public=False,
    method=False,
)


@function(name="real")
def real(input: Any) -> Any:
    """The real part, a view; a real tensor is its own. See torch.real."""
    return _real(input) if input.dtype.is_complex else input


@function(name="imag")
def imag(input: Any) -> Any:
    """The imaginary part, a view. Raises RuntimeError for real tensors. See torch.imag."""
    return _imag(input)


Tensor.real = property(real, lambda self, value: self.real.copy_(value))  # type: ignore[attr-defined]
Tensor.imag = property(imag, lambda self, value: self.imag.copy_(value))  # type: ignore[attr-defined]


def _complex_type(real: Any, imag: Any) -> TensorType:
    if dtypes.float16 in (real.dtype, imag.dtype):
        raise NotImplementedError("complex(): there is no complex type with half-precision parts here")
    if not (real.dtype.is_floating_point and imag.dtype.is_floating_point) or real.dtype is dtypes.bfloat16:
        raise RuntimeError(
            "Expected both inputs to be Half, Float or Double tensors but got "
            f"{scalar_type(real.dtype)} and {scalar_type(imag.dtype)}"
        )
    if real.dtype is not imag.dtype:
        raise RuntimeError(
            f"Expected object of scalar type {scalar_type(real.dtype)} but got scalar type {scalar_type(imag.dtype)} "
            "for second argument"
        )
    return pointwise_type((real, imag), real.dtype.to_complex())


def _numpy_complex(real: Any, imag: Any) -> Any:
    kind = np.complex128 if real.dtype == np.float64 else np.complex64
    result = np.empty(np.broadcast_shapes(real.shape, imag.shape), kind)
    result.real = real
    result.imag = imag
    return result


complex = operator(
    "complex(Tensor real, Tensor imag)",
    order={"result": "operands"},
    type=_complex_type,
    numpy=_numpy_complex,
    derivative={"real": lambda g: g.real, "imag": lambda g: g.imag},
    samples=lambda make: [sample(make(3, 4), make(4))] if make.dtype in (dtypes.float32, dtypes.float64) else [],
    method=False,
    out=True,
)


def _numpy_angle(x: Any) -> Any:
    if np.iscomplexobj(x):
        return np.angle(x)
    return np.where(np.isnan(x), x, np.where(x < 0, x.dtype.type(np.pi), x.dtype.type(0)))


def _angle_formula(g: Any, input: Any) -> Any:
    if not input.dtype.is_complex:
        return _zeros(g)
    size = input.abs()
    return _where(size == 0, 0.0, g * input / (size * size) * 1j)


angle = unary(
    "angle",
    lambda x: _numpy_angle(np.asarray(x)),
    _angle_formula,
    result=lambda d: d.to_real(),
    decompose=_real_only(
        lambda x: _where(x.isnan(), x, _where(x < 0, FUNCTIONS["full"]((), math.pi, dtype=x.dtype), 0.0))
    ),
    inplace=False,
    order={"result": "rows of complex"},
)

# -- Python's operators -----------------------------------------------------------------------------------------------

Tensor.__neg__ = neg  # type: ignore[method-assign]
Tensor.__abs__ = abs  # type: ignore[attr-defined]
setattr(Tensor, "__pos__", positive)  # noqa: B010 (the type checker knows no such slot)


@method("__invert__")
def _invert(self: Any) -> Any:
    if self.dtype.category > dtypes.INTEGRAL:
        raise TypeError("~ (operator.invert) is only implemented on integer and Boolean-type tensors")
    return bitwise_not(self)
