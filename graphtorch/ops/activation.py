"""Activation functions of neural networks: pointwise records with closed-form derivatives and decompositions.

Each derivative is PyTorch's also where the function has a kink. Half precision is computed in float32 and rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from graphtorch.autograd.compositions import in_one_piece
from graphtorch.autograd.graph import composes
from graphtorch.ops.build import FUNCTIONS, function, operator
from graphtorch.ops.error_function import erf
from graphtorch.ops.pointwise import common, not_implemented, pointwise_type
from graphtorch.ops.record import POINTWISE, Sample, sample
from graphtorch.ops.shapes import wrap_dim
from graphtorch.ops.shaping import chunk, reshape
from graphtorch.tensor import dtypes
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType


def _where(condition: Any, x: Any, y: Any) -> Any:
    return FUNCTIONS["where"](condition, x, y)


def _computed_wide(compute: Callable[..., Any]) -> Callable[..., Any]:
    """Evaluate in float32 what has a half-precision type."""

    def run(x: Any, *attributes: Any) -> Any:
        if x.dtype.itemsize != 2:
            return compute(x, *attributes)
        wide = [a.astype(np.float32) if isinstance(a, np.ndarray) else a for a in attributes]
        return np.asarray(compute(x.astype(np.float32), *wide)).astype(x.dtype)

    return run


def _activation(
    signature: str,
    compute: Callable[..., Any],
    derivative: Callable[..., Any],
    decompose: Callable[..., Any],
    *,
    kernel: str,
    attributes: Iterable[Mapping[str, Any]] = ({},),
    method: bool = False,
    inplace: bool = False,
    integers: bool = False,
    complexes: bool = False,
    grad_name: str | None = None,
    order: Mapping[str, str] | None = None,
    doc: str,
) -> Callable[..., Tensor]:
    """A pointwise record of one tensor and numbers.

    `kernel` is PyTorch's internal name, for the error on dtypes it refuses; `attributes` are the combinations to
    sample.
    """

    def type_rule(input: Any, *rest: Any) -> TensorType:
        d = input.dtype
        allowed = (integers and d.category == dtypes.INTEGRAL) or (complexes and d.is_complex)
        if d.category != dtypes.FLOATING and not allowed:
            raise not_implemented(kernel, d)
        return pointwise_type((input,), d)

    def samples(make: Any) -> Iterable[Sample]:
        for chosen in attributes:
            yield sample(make(3, 4, low=-4.0, high=4.0), **chosen)
            yield sample(make(low=-4.0, high=4.0), **chosen)

    return operator(
        signature,
        type=type_rule,
        numpy=_computed_wide(compute),
        kind=POINTWISE,
        order=order,
        derivative={"input": derivative},
        decompose=decompose,
        compute=lambda input, *rest: common(input),
        samples=samples,
        categories="if" if integers else "fc" if complexes else "f",
        method=method,
        inplace=inplace,
        grad_name=grad_name,
        doc=doc,
    )


# -- rectifiers -------------------------------------------------------------------------------------------------------

relu = _activation(
    "relu(Tensor input)",
    lambda x: np.maximum(x, np.zeros((), x.dtype)),
    lambda g, result: _where(result <= 0, 0, g),
    lambda input: _where(input <= 0, 0, input),  # keeps NaN
    kernel="threshold_cpu",
    method=True,
    inplace=True,
    integers=True,
    doc="`max(x, 0)`.",
)

leaky_relu = _activation(
    "leaky_relu(Tensor input, float negative_slope=0.01)",
    lambda x, slope: np.where(x > 0, x, x * x.dtype.type(slope)),
    lambda g, input, negative_slope: _where(input > 0, g, g * negative_slope),
    lambda input, negative_slope: _where(input > 0, input, input * negative_slope),
    kernel="leaky_relu_cpu",
    attributes=({}, {"negative_slope": 0.3}),
    doc="`x` where positive, else `negative_slope * x`.",
)


def _hardtanh_decompose(input: Any, min_val: Any, max_val: Any) -> Any:
    if input.dtype.category == dtypes.INTEGRAL:
        min_val, max_val = int(min_val), int(max_val)
    above = _where(input < min_val, min_val, input)
    return _where(above > max_val, max_val, above)


def _hardtanh_type(input: Any, min_val: Any, max_val: Any) -> TensorType:
    if input.dtype is dtypes.bool_:
        raise RuntimeError("Bool inputs not supported for hardtanh")
    if input.dtype is dtypes.uint8 and (int(min_val) < 0 or int(max_val) < 0):
        raise RuntimeError("cannot do hardtanh on an unsigned type with negative limits")
    if min_val > max_val:
        raise ValueError("min_val cannot be greater than max_val")
    return pointwise_type((input,), input.dtype)


def _hardtanh_numpy(input: Any, min_val: float, max_val: float) -> Any:
    low, high = np.array((min_val, max_val)).astype(input.dtype)
    return np.minimum(np.maximum(input, low), high)


hardtanh: Callable[..., Tensor] = operator(
    "hardtanh(Tensor input, float min_val=-1.0, float max_val=1.0)",
    type=_hardtanh_type,
    numpy=_hardtanh_numpy,
    kind=POINTWISE,
    derivative={
        "input": lambda g, input, min_val, max_val: _where((input <= min_val).logical_or(input >= max_val), 0, g)
    },
    decompose=_hardtanh_decompose,
    compute=lambda input, min_val, max_val: common(input),
    samples=lambda make: [sample(make(3, 4)), sample(make(3, 4), -0.5, 1.5), sample(make(3, 4), 0.0, 6.0)],
    categories="f",
    method=False,
    doc="`x` clamped to [min_val, max_val].",
)


@function()
def relu6(input: Tensor) -> Tensor:
    """`min(max(x, 0), 6)`. See torch.nn.functional.relu6."""
    return hardtanh(input, 0.0, 6.0)


hardsigmoid = _activation(
    "hardsigmoid(Tensor input)",
    lambda x: np.clip(x + 3, 0, 6) / 6,
    lambda g, input: _where((input > -3).logical_and(input < 3), g / 6, 0),
    lambda input: _hardtanh_decompose(input + 3, 0, 6) / 6,
    kernel="hardsigmoid_cpu",
    doc="`relu6(x + 3) / 6`.",
)

hardswish = _activation(
    "hardswish(Tensor input)",
    lambda x: x * np.clip(x + 3, 0, 6) / 6,
    lambda g, input: _where(input <= -3, 0, _where(input < 3, g * (input / 3 + 0.5), g)),
    lambda input: input * _hardtanh_decompose(input + 3, 0, 6) / 6,
    kernel="hardswish_cpu",
    doc="`x * relu6(x + 3) / 6`.",
)


# -- exponential units ------------------------------------------------------------------------------------------------


def _elu_numpy(x: Any, alpha: float, scale: float, input_scale: float) -> Any:
    t = x.dtype.type
    return np.where(x > 0, x * t(scale), np.expm1(np.minimum(x, 0) * t(input_scale)) * t(alpha * scale))


def _elu_derivative(g: Any, input: Any, alpha: Any, scale: Any, input_scale: Any) -> Any:
    # The exponential never sees a positive number, which would overflow and give NaN times zero one derivative later.
    negative = input <= 0
    slope = (_where(negative, input, 0) * input_scale).exp() * (alpha * scale * input_scale)
    return g * _where(negative, slope, scale)


def _elu_decompose(input: Any, alpha: Any, scale: Any, input_scale: Any) -> Any:
    negative = (_where(input > 0, 0, input) * input_scale).expm1() * (alpha * scale)
    return _where(input > 0, input * scale, negative)


elu = _activation(
    "elu(Tensor input, Number alpha=1, Number scale=1, Number input_scale=1)",
    _elu_numpy,
    _elu_derivative,
    _elu_decompose,
    kernel="elu_cpu",
    attributes=({}, {"alpha": 0.5}, {"alpha": 1.6, "scale": 1.2}, {"alpha": 2.0, "input_scale": 0.5}),
    doc="`scale * x` where positive, else `scale * alpha * (exp(input_scale * x) - 1)`.",
)
# From the fixed-point equations of Klambauer et al. 2017, as PyTorch rounds them.
SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946


@function()
def selu(input: Tensor) -> Tensor:
    """`scale * elu(x, alpha)` with the constants of self-normalising networks. See torch.selu."""
    return elu(input, SELU_ALPHA, SELU_SCALE)


@function()
@composes("CeluBackward0")
def celu(input: Tensor, alpha: float = 1.0) -> Tensor:
    """`x` where positive, else `alpha * (exp(x / alpha) - 1)`. See torch.celu.

    Raises RuntimeError for an alpha of zero.
    """
    if alpha == 0:
        raise RuntimeError("ZeroDivisionError: alpha cannot be 0 for CELU")
    return elu(input, alpha, 1, 1.0 / alpha)


# -- smooth units -----------------------------------------------------------------------------------------------------

_SQRT_HALF = math.sqrt(0.5)
_NORMAL_DENSITY_AT_0 = 1.0 / math.sqrt(2.0 * math.pi)
# tanh approximation of the normal distribution function (Hendrycks and Gimpel 2016).
_TANH_SCALE = math.sqrt(2.0 / math.pi)
_TANH_CUBIC = 0.044715


def _check_approximate(approximate: str) -> None:
    if approximate not in ("none", "tanh"):
        raise RuntimeError("approximate argument must be either none or tanh.")


def _gelu_numpy(x: Any, approximate: str) -> Any:
    _check_approximate(approximate)
    if approximate == "tanh":
        inner = x * x.dtype.type(_TANH_SCALE) * (1 + x.dtype.type(_TANH_CUBIC) * (x * x))
        return x * (1 + np.tanh(inner)) * x.dtype.type(0.5)
    return x * (1 + erf(x * x.dtype.type(_SQRT_HALF))) * x.dtype.type(0.5)


def _gelu_decompose(input: Any, approximate: str) -> Any:
    if approximate == "tanh":
        inner = input * _TANH_SCALE * (input * input * _TANH_CUBIC + 1)
        return input * (inner.tanh() + 1) * 0.5
    return input * ((input * _SQRT_HALF).erf() + 1) * 0.5


def _gelu_derivative(g: Any, input: Any, approximate: str) -> Any:
    if approximate == "tanh":
        squared = input * input
        t = (input * _TANH_SCALE * (squared * _TANH_CUBIC + 1)).tanh()
        slope = (1 - t * t) * _TANH_SCALE * (squared * (3 * _TANH_CUBIC) + 1)
        return g * ((t + 1) * 0.5 + input * slope * 0.5)
    distribution = ((input * _SQRT_HALF).erf() + 1) * 0.5
    return g * (distribution + input * (input * input * -0.5).exp() * _NORMAL_DENSITY_AT_0)


def _gelu_type(input: Any, approximate: str) -> TensorType:
    _check_approximate(approximate)
    if input.dtype.category != dtypes.FLOATING:
        raise not_implemented("GeluKernelImpl", input.dtype)
    return pointwise_type((input,), input.dtype)


gelu: Callable[..., Tensor] = operator(
    'gelu(Tensor input, *, str approximate="none")',
    type=_gelu_type,
    numpy=_computed_wide(_gelu_numpy),
    kind=POINTWISE,
    derivative={"input": _gelu_derivative},
    decompose=_gelu_decompose,
    compute=lambda input, approximate: common(input),
    samples=lambda make: [
        sample(make(3, 4, low=-4.0, high=4.0)),
        sample(make(3, 4, low=-4.0, high=4.0), approximate="tanh"),
    ],
    categories="f",
    method=False,
    doc="`x * Phi(x)` with the normal distribution function Phi, exact or by tanh.",
)


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def _silu_derivative(g: Any, input: Any) -> Any:
    s = input.sigmoid()
    slope = s * (input * (1 - s) + 1)
    return g * (slope.conj() if input.dtype.is_complex else slope)


silu = _activation(
    "silu(Tensor input)",
    lambda x: x * _sigmoid(x),
    _silu_derivative,
    lambda input: input * input.sigmoid(),
    kernel="silu_cpu",
    complexes=True,
    doc="`x * sigmoid(x)`.",
)


def _softplus_numpy(x: Any, beta: float, threshold: float) -> Any:
    scaled = x * x.dtype.type(beta)
    return np.where(scaled > threshold, x, np.log1p(np.exp(np.minimum(scaled, threshold))) / x.dtype.type(beta))


def _softplus_decompose(input: Any, beta: Any, threshold: Any) -> Any:
    scaled = input * beta
    linear = scaled > threshold
    return _where(linear, input, _where(linear, 0, scaled).exp().log1p() / beta)


softplus = _activation(
    "softplus(Tensor input, Number beta=1, Number threshold=20)",
    _softplus_numpy,
    lambda g, input, beta, threshold: _where(input * beta > threshold, g, g * (input * beta).sigmoid()),
    _softplus_decompose,
    kernel="softplus_cpu",
    attributes=({}, {"beta": 2, "threshold": 3}),
    doc="`log(1 + exp(beta * x)) / beta`; the identity where `beta * x > threshold`.",
)

logsigmoid = _activation(
    "logsigmoid(Tensor input)",
    lambda x: np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x))),
    lambda g, input: g * (-input).sigmoid(),
    lambda input: _where(input > 0, 0, input) - (-input.abs()).exp().log1p(),
    kernel="log_sigmoid_cpu",
    order={"result": "rows"},
    grad_name="LogSigmoidBackward0",
    doc="`log(sigmoid(x))`, without overflow.",
)


def _mish_derivative(g: Any, input: Any) -> Any:
    t = softplus(input).tanh()
    return g * (t + input * input.sigmoid() * (1 - t * t))


mish = _activation(
    "mish(Tensor input)",
    lambda x: x * np.tanh(np.logaddexp(x, 0)),
    _mish_derivative,
    lambda input: input * softplus(input).tanh(),
    kernel="mish_cpu",
    doc="`x * tanh(softplus(x))`.",
)


# -- with weights or halves -------------------------------------------------------------------------------------------


def _prelu_type(input: Any, weight: Any) -> TensorType:
    if input.dtype is not weight.dtype:
        raise RuntimeError(f"prelu: Type promoting not supported. Got {input.dtype} and {weight.dtype}")
    if input.dtype.category != dtypes.FLOATING:
        raise not_implemented("prelu_cpu", input.dtype)
    return pointwise_type((input, weight), input.dtype)


_prelu: Callable[..., Tensor] = operator(
    "prelu_kernel(Tensor input, Tensor weight)",
    type=_prelu_type,
    numpy=lambda input, weight: np.where(input > 0, input, (input * weight).astype(input.dtype, copy=False)),
    kind=POINTWISE,
    derivative={
        "input": lambda g, input, weight: _where(input > 0, g, g * weight),
        "weight": lambda g, input: _where(input > 0, 0, g * input),
    },
    decompose=lambda input, weight: _where(input > 0, input, input * weight),
    compute=common,
    samples=lambda make: [sample(make(2, 3, 4), make(3, 1)), sample(make(2, 3), make(1)), sample(make(4), make())],
    categories="f",
    public=False,
    method=False,
)


@function(method=True)
def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """`x` where positive, else `weight * x`; one weight, or one a channel (dimension 1). See torch.prelu.

    Raises RuntimeError where the number of weights fits neither.
    """
    if weight.numel() != 1:
        channels = input.shape[1] if input.ndim >= 2 else 1
        if input.ndim == 0:
            raise RuntimeError("Not allow zero-dim input tensor.")
        if weight.ndim != 1 or weight.numel() != channels:
            raise RuntimeError(
                f"Mismatch of parameter numbers and input channel size. Found parameter numbers = {weight.numel()} and "
                f"channel size = {channels}."
            )
    if weight.ndim and input.ndim < 2:
        weight = reshape(weight, ()) if input.ndim == 0 else weight
    elif weight.ndim:
        weight = reshape(weight, (weight.shape[0], *(1 for _ in range(input.ndim - 2))))
    return _prelu(input, weight)


@function()
@in_one_piece("GluBackward0")
def glu(input: Tensor, dim: int = -1) -> Tensor:
    """`a * sigmoid(b)` for the two halves of a dimension. See torch.nn.functional.glu.

    Raises RuntimeError for an odd size.
    """
    if input.ndim == 0:
        raise RuntimeError("glu does not support 0-dimensional tensors")
    dim = wrap_dim(dim, input.ndim)
    if input.shape[dim] % 2 != 0:
        raise RuntimeError(f"Halving dimension must be even, but dimension {dim} is size {input.shape[dim]}")
    first, second = chunk(input, 2, dim)
    gated: Tensor = first * second.sigmoid()
    return gated
