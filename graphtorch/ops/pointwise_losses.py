"""Losses of an input and a target of one shape: an elementwise loss, and its mean or sum.

They are records, not compositions, because their nodes have names of their own in PyTorch (`MseLossBackward0`) and
their derivatives save less than those of their parts. See https://docs.pytorch.org/docs/stable/nn.functional.html."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from graphtorch.ops.build import FUNCTIONS, operator
from graphtorch.ops.checks import check_probability
from graphtorch.ops.pointwise import common, is_16_bit_float, pointwise_type, refuse
from graphtorch.ops.record import OPAQUE, Sample, sample
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType

REDUCTIONS = ("none", "mean", "sum")
LOWEST_LOG = -100.0  # what the logarithm of a probability of 0 counts as


def _where(condition: Any, x: Any, y: Any) -> Any:
    return FUNCTIONS["where"](condition, x, y)


def reduced(loss: Any, reduction: str) -> Any:
    """The elementwise losses, their mean or their sum."""
    if reduction == "none":
        return loss
    return loss.mean() if reduction == "mean" else loss.sum()


def _flows(slope: Any, g: Any, reduction: str) -> Any:
    """The cotangent of an operand from the slope of each element's loss."""
    return slope * (g / slope.numel() if reduction == "mean" else g)


def _loss(
    signature: str,
    values: Callable[..., Any],
    compose: Callable[..., Any],
    derivative: dict[str, Callable[..., Any]],
    samples: Callable[[Any], Iterable[Sample]],
    doc: str,
    kernel: str,
) -> Callable[..., Tensor]:
    """A loss `name(input, target, ..., str reduction)`: `values` on arrays and `compose` on tensors give each element's
    loss from all arguments but the reduction, which is the last one."""

    def type_rule(input: Any, target: Any, *rest: Any) -> TensorType:
        *extras, reduction = rest
        if reduction not in REDUCTIONS:
            raise ValueError(f"{reduction} is not a valid value for reduction")
        refuse(kernel, "bi")(input, target)
        operands = [o for o in (input, target, *extras) if hasattr(o, "shape")]
        full = pointwise_type(operands, common(*operands))
        return full if reduction == "none" else full.with_shape(())

    def numpy(*arguments: Any) -> Any:
        *operands, reduction = arguments
        own = np.result_type(*(a for a in operands if isinstance(a, np.ndarray)))
        wide = [a.astype(np.float32) if isinstance(a, np.ndarray) and is_16_bit_float(a.dtype) else a for a in operands]
        loss = values(*wide)
        if reduction != "none":
            loss = loss.mean() if reduction == "mean" else loss.sum()
        return np.asarray(loss).astype(own, copy=False)

    return operator(
        signature,
        type=type_rule,
        numpy=numpy,
        kind=OPAQUE,
        derivative=derivative,
        decompose=lambda *arguments: reduced(compose(*arguments[:-1]), arguments[-1]),
        samples=samples,
        method=False,
        public=False,
        doc=doc,
    )


def _pairs(make: Any, **options: Any) -> Iterable[Sample]:
    for reduction in REDUCTIONS:
        yield sample(make(3, 4), make(3, 4), **options, reduction=reduction)


mse_loss = _loss(
    'mse_loss(Tensor input, Tensor target, *, str reduction="mean")',
    lambda input, target: np.square(input - target),
    lambda input, target: (input - target).square(),
    {
        "input": lambda g, input, target, reduction: _flows(2 * (input - target), g, reduction),
        "target": lambda g, input, target, reduction: _flows(2 * (target - input), g, reduction),
    },
    _pairs,
    "`(input - target) ** 2`.",
    "mse_cpu",
)


def _smooth_l1_values(input: Any, target: Any, beta: float) -> Any:
    distance = np.abs(input - target)
    if beta == 0:
        return distance
    return np.where(distance < beta, 0.5 * distance * distance / beta, distance - 0.5 * beta)


def _smooth_l1(input: Any, target: Any, beta: float) -> Any:
    distance = (input - target).abs()
    if beta == 0:
        return distance
    return _where(distance < beta, 0.5 * distance * distance / beta, distance - 0.5 * beta)


def _smooth_l1_slope(difference: Any, beta: float) -> Any:
    if beta == 0:
        return difference.sign()
    return _where(difference.abs() < beta, difference / beta, difference.sign())


smooth_l1_loss = _loss(
    'smooth_l1_loss(Tensor input, Tensor target, float beta=1.0, *, str reduction="mean")',
    _smooth_l1_values,
    _smooth_l1,
    {
        "input": lambda g, input, target, beta, reduction: _flows(_smooth_l1_slope(input - target, beta), g, reduction),
        "target": lambda g, input, target, beta, reduction: _flows(
            _smooth_l1_slope(target - input, beta), g, reduction
        ),
    },
    lambda make: [*_pairs(make), *_pairs(make, beta=0.5)],
    "`0.5 * d**2 / beta` where `d = |input - target|` is below `beta`, else `d - 0.5 * beta`.",
    "smooth_l1_cpu",
)


def _huber_slope(difference: Any, delta: float) -> Any:
    return _where(difference.abs() <= delta, difference, delta * difference.sign())


def _huber_values(input: Any, target: Any, delta: float) -> Any:
    distance = np.abs(input - target)
    return np.where(distance <= delta, 0.5 * distance * distance, delta * (distance - 0.5 * delta))


def _huber(input: Any, target: Any, delta: float) -> Any:
    distance = (input - target).abs()
    return _where(distance <= delta, 0.5 * distance * distance, delta * (distance - 0.5 * delta))


huber_loss = _loss(
    'huber_loss(Tensor input, Tensor target, float delta=1.0, *, str reduction="mean")',
    _huber_values,
    _huber,
    {
        "input": lambda g, input, target, delta, reduction: _flows(_huber_slope(input - target, delta), g, reduction),
        "target": lambda g, input, target, delta, reduction: _flows(_huber_slope(target - input, delta), g, reduction),
    },
    lambda make: [*_pairs(make), *_pairs(make, delta=0.5)],
    "`0.5 * d**2` where `d = |input - target|` is at most `delta`, else `delta * (d - 0.5 * delta)`.",
    "huber_cpu",
)

# -- binary cross entropy ---------------------------------------------------------------------------------------------


def _weighted(value: Any, weight: Any) -> Any:
    return value if weight is None else value * weight


def _bce_values(input: Any, target: Any, weight: Any) -> Any:
    if not bool(((input >= 0) & (input <= 1)).all()):
        raise RuntimeError("all elements of input should be between 0 and 1")
    log, log_rest = np.maximum(np.log(input), LOWEST_LOG), np.maximum(np.log1p(-input), LOWEST_LOG)
    return _weighted((target - 1) * log_rest - target * log, weight)


def _bounded_log(x: Any) -> Any:
    """`log(x)`, but at least -100. At 0 the derivative is 0: the logarithm itself never sees the zero."""
    is_zero = x <= 0
    return _where(is_zero, LOWEST_LOG, _where(is_zero, 1.0, x).log().clamp(min=LOWEST_LOG))


def _bce(input: Any, target: Any, weight: Any) -> Any:
    input = check_probability(input)
    return _weighted((target - 1) * _bounded_log(1 - input) - target * _bounded_log(input), weight)


def _bce_slope(input: Any, target: Any, weight: Any) -> Any:
    return _weighted((input - target) / ((1 - input) * input).clamp(min=1e-12), weight)


def _probability_samples(make: Any) -> Iterable[Sample]:
    for reduction in REDUCTIONS:
        yield sample(make(3, 4, low=0.1, high=0.9), make(3, 4, low=0.0, high=1.0), reduction=reduction)
    weight = make(4, low=0.5, requires_grad=False)
    yield sample(make(3, 4, low=0.1, high=0.9), make(3, 4, low=0.0, high=1.0), weight)


binary_cross_entropy = _loss(
    'binary_cross_entropy(Tensor input, Tensor target, Tensor? weight=None, str reduction="mean")',
    _bce_values,
    _bce,
    {
        "input": lambda g, input, target, weight, reduction: _flows(_bce_slope(input, target, weight), g, reduction),
        "target": lambda g, input, weight, reduction: _flows(
            _weighted(_bounded_log(1 - input) - _bounded_log(input), weight), g, reduction
        ),
    },
    _probability_samples,
    "`-(target * log(input) + (1 - target) * log(1 - input))`, the logarithms not below -100.",
    "binary_cross_entropy_cpu",
)


def _logits_values(input: Any, target: Any, weight: Any, pos_weight: Any) -> Any:
    log_sigmoid = np.minimum(input, 0) - np.log1p(np.exp(-np.abs(input)))
    if pos_weight is not None:
        log_sigmoid = log_sigmoid * ((pos_weight - 1) * target + 1)
    return _weighted((1 - target) * input - log_sigmoid, weight)


def _log_sigmoid(input: Any) -> Any:
    return input.clamp(max=0) - (-input.abs()).exp().log1p()


def _logits(input: Any, target: Any, weight: Any, pos_weight: Any) -> Any:
    log_sigmoid = _log_sigmoid(input)
    if pos_weight is not None:
        log_sigmoid = log_sigmoid * ((pos_weight - 1) * target + 1)
    return _weighted((1 - target) * input - log_sigmoid, weight)


def _logits_slope(input: Any, target: Any, weight: Any, pos_weight: Any) -> Any:
    if pos_weight is None:
        return _weighted(input.sigmoid() - target, weight)
    positive = pos_weight * target
    return _weighted((positive + 1 - target) * input.sigmoid() - positive, weight)


def _logits_slope_of_target(input: Any, weight: Any, pos_weight: Any) -> Any:
    slope = -input if pos_weight is None else -input - (pos_weight - 1) * _log_sigmoid(input)
    return _weighted(slope, weight)


def _logits_samples(make: Any) -> Iterable[Sample]:
    for reduction in REDUCTIONS:
        yield sample(make(3, 4), make(3, 4, low=0.0, high=1.0), reduction=reduction)
    weights = make(4, low=0.5, requires_grad=False), make(4, low=0.5, requires_grad=False)
    yield sample(make(3, 4), make(3, 4, low=0.0, high=1.0), *weights)


binary_cross_entropy_with_logits = _loss(
    "binary_cross_entropy_with_logits(Tensor input, Tensor target, Tensor? weight=None, Tensor? pos_weight=None, "
    'str reduction="mean")',
    _logits_values,
    _logits,
    {
        "input": lambda g, input, target, weight, pos_weight, reduction: _flows(
            _logits_slope(input, target, weight, pos_weight), g, reduction
        ),
        "target": lambda g, input, weight, pos_weight, reduction: _flows(
            _logits_slope_of_target(input, weight, pos_weight), g, reduction
        ),
    },
    _logits_samples,
    "Binary cross entropy of `sigmoid(input)`, computed stably; `pos_weight` multiplies the positive part.",
    "binary_cross_entropy_with_logits_cpu",
)
