"""Loss functions. ``reduction`` is "mean", "sum" or "none"; ``size_average`` and ``reduce`` are its deprecated form."""

from __future__ import annotations

import math
import warnings
from typing import Any

from graphtorch import ops
from graphtorch.autograd.grad_mode import no_grad
from graphtorch.autograd.graph import composes, renamed
from graphtorch.autograd.state import state
from graphtorch.nn.functional.distances import pairwise_distance
from graphtorch.ops import pointwise_losses
from graphtorch.ops.autocast import autocasts
from graphtorch.ops.dispatch import _scalar_name
from graphtorch.tensor.tensor import Tensor

__all__ = [
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "cosine_embedding_loss", "cross_entropy",
    "gaussian_nll_loss", "hinge_embedding_loss", "huber_loss", "kl_div", "l1_loss", "margin_ranking_loss", "mse_loss",
    "nll_loss", "poisson_nll_loss", "smooth_l1_loss", "soft_margin_loss", "triplet_margin_loss",
]  # fmt: skip


def legacy_reduction(size_average: Any, reduce: Any, reduction: str) -> str:
    """The reduction that the deprecated flags ask for, with a warning; without them ``reduction``."""
    if size_average is None and reduce is None:
        return reduction
    keep = reduce is not None and not reduce
    mean = size_average is None or size_average
    chosen = "none" if keep else "mean" if mean else "sum"
    warnings.warn(
        f"size_average and reduce args will be deprecated, please use reduction='{chosen}' instead.", stacklevel=3
    )
    return chosen


def _check_reduction(reduction: str) -> None:
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{reduction} is not a valid value for reduction")


def _checked(reduction: str) -> str:
    _check_reduction(reduction)
    return reduction


def _reduce(loss: Tensor, reduction: str) -> Tensor:
    _check_reduction(reduction)
    if reduction == "none":
        return loss
    return loss.mean() if reduction == "mean" else loss.sum()


def _weighted(loss: Tensor, weight: Tensor, input: Tensor, reduction: str) -> Tensor:
    """Reduce elementwise losses with weights; the mean is divided by the sum of the weights."""
    if weight.shape != input.shape:
        raise ValueError("Weights and input must have the same size.")
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"Invalid reduction mode: {reduction}. Expected one of 'none', 'mean', 'sum'.")
    loss = loss * weight
    if reduction == "none":
        return loss
    return loss.sum() / weight.sum() if reduction == "mean" else loss.sum()


def _warn_if_broadcast(input: Tensor, target: Tensor) -> None:
    if target.shape != input.shape:
        warnings.warn(
            f"Using a target size ({target.size()}) that is different to the input size ({input.size()}). This will "
            "likely lead to incorrect results due to broadcasting. Please ensure they have the same size.",
            stacklevel=3,
        )


@autocasts("float32")
def l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """``|input - target|``; warns when the shapes differ."""
    _warn_if_broadcast(input, target)
    reduction = legacy_reduction(size_average, reduce, reduction)
    loss = (input - target).abs()
    return _reduce(loss, reduction) if weight is None else _weighted(loss, weight, input, reduction)


@autocasts("float32")
def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """``(input - target) ** 2``; warns when the shapes differ."""
    _warn_if_broadcast(input, target)
    reduction = legacy_reduction(size_average, reduce, reduction)
    if weight is None:
        return pointwise_losses.mse_loss(input, target, reduction=_checked(reduction))
    return _weighted((input - target).square(), weight, input, reduction)


@autocasts("float32")
def smooth_l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    """``0.5 * d**2 / beta`` where ``d = |input - target|`` is below ``beta``, else ``d - 0.5 * beta``.

    Raises:
        RuntimeError: ``beta`` is negative.
    """
    _warn_if_broadcast(input, target)
    reduction = legacy_reduction(size_average, reduce, reduction)
    if beta < 0:
        raise RuntimeError("smooth_l1_loss does not support negative values for beta.")
    if beta == 0:
        return _reduce((input - target).abs(), reduction)
    return pointwise_losses.smooth_l1_loss(input, target, beta, reduction=_checked(reduction))


@autocasts("float32")
def huber_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0, weight: Tensor | None = None
) -> Tensor:
    """``0.5 * d**2`` where ``d = |input - target|`` is at most ``delta``, else ``delta * (d - 0.5 * delta)``.

    Raises:
        RuntimeError: ``delta`` is not positive.
    """
    _warn_if_broadcast(input, target)
    if delta <= 0:
        raise RuntimeError("huber_loss does not support non-positive values for delta.")
    if weight is None:
        return pointwise_losses.huber_loss(input, target, delta, reduction=_checked(reduction))
    loss = pointwise_losses.huber_loss(input, target, delta, reduction="none")
    if weight.shape != input.shape:
        raise ValueError("Weights and input must have the same size.")
    return _reduce(loss * weight, reduction)


@autocasts("float32")
def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """Minus the entry of ``input`` at the target class, times the class weight.

    Shapes: input (N, C), (C,) or (N, C, d1, ...), target the same without C. Targets equal to ``ignore_index`` do not
    count; the mean is divided by the sum of the weights of those that do.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    _check_reduction(reduction)
    if weight is not None and weight.dtype is not input.dtype:
        raise RuntimeError(f"expected scalar type {_scalar_name(input.dtype)} but found {_scalar_name(weight.dtype)}")
    return ops.nll_loss(input, target, weight, reduction, ignore_index)


@autocasts("float32")
def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross entropy of the softmax of ``input`` against ``target``.

    Shapes: input (C,), (N, C) or (N, C, d1, ...); target either class indices, without C, or class probabilities of
    the shape of ``input``.

    Raises:
        RuntimeError: ``label_smoothing`` is outside [0, 1], or shapes or dtypes do not fit.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    _check_reduction(reduction)
    if not 0.0 <= label_smoothing <= 1.0:
        raise RuntimeError(f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}")
    class_dim = 0 if input.dim() == 1 else 1
    log_probabilities = input.log_softmax(class_dim)
    if target.ndim == input.ndim and tuple(target.shape) == tuple(input.shape):  # comparing sizes makes guards
        if not target.is_floating_point():
            raise RuntimeError(
                f"Expected floating point type for target with class probabilities, got {_scalar_type(target)}"
            )
        if ignore_index >= 0:
            raise RuntimeError("ignore_index is not supported for floating point target")
        return _soft_cross_entropy(log_probabilities, target, weight, reduction, label_smoothing, class_dim)
    loss: Tensor = ops.nll_loss(log_probabilities, target, weight, reduction, ignore_index)
    if label_smoothing == 0.0:
        return loss
    uniform = _uniform_cross_entropy(log_probabilities, target, weight, reduction, ignore_index, class_dim)
    return (1 - label_smoothing) * loss + uniform * (label_smoothing / input.shape[class_dim])


def _scalar_type(tensor: Tensor) -> str:
    names = {"int64": "Long", "int32": "Int", "int16": "Short", "int8": "Char", "uint8": "Byte", "bool": "Bool"}
    return names.get(str(tensor.dtype).rpartition(".")[2], str(tensor.dtype))


def _soft_cross_entropy(
    log_probabilities: Tensor,
    target: Tensor,
    weight: Tensor | None,
    reduction: str,
    label_smoothing: float,
    class_dim: int,
) -> Tensor:
    """Cross entropy against class probabilities; the mean is over samples."""
    classes = log_probabilities.shape[class_dim]
    if label_smoothing > 0.0:
        target = target * (1 - label_smoothing) + label_smoothing / classes
    terms = log_probabilities * target
    if weight is not None:
        terms = terms * _along(weight, class_dim, terms.dim())
    if reduction == "none":
        return -terms.sum(class_dim)
    total = -terms.sum()
    if reduction != "mean":
        return total
    return renamed(total / (log_probabilities.numel() / classes), "DivBackward1")


def _uniform_cross_entropy(
    log_probabilities: Tensor,
    target: Tensor,
    weight: Tensor | None,
    reduction: str,
    ignore_index: int,
    class_dim: int,
) -> Tensor:
    """Cross entropy against equal weights of 1 for all classes, reduced as the loss that it smooths."""
    terms = (
        log_probabilities if weight is None else log_probabilities * _along(weight, class_dim, log_probabilities.dim())
    )
    ignored = target == ignore_index
    loss = (-terms.sum(class_dim)).masked_fill(ignored, 0.0)
    if reduction != "mean":
        return loss if reduction == "none" else loss.sum()
    if weight is None:
        return loss.sum() / (~ignored).sum()
    counted = weight[target.masked_fill(ignored, 0)].masked_fill(ignored, 0.0)
    return loss.sum() / counted.sum()


def _along(weight: Tensor, dim: int, ndim: int) -> Tensor:
    """A vector as a tensor that broadcasts along ``dim``."""
    shape = [1] * ndim
    shape[dim] = weight.shape[0]
    return weight.view(shape)


@autocasts("float32")
def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """``-(target * log(input) + (1 - target) * log(1 - input))``, the logarithms not below -100.

    Raises:
        ValueError: the shapes differ.
        RuntimeError: an element of ``input`` is outside [0, 1] (checked in eager execution).
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    if target.shape != input.shape:
        raise ValueError(
            f"Using a target size ({target.size()}) that is different to the input size ({input.size()}) is "
            "deprecated. Please ensure they have the same size."
        )
    return pointwise_losses.binary_cross_entropy(input, target, weight, _checked(reduction))


@autocasts("float32")
def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """Binary cross entropy of ``sigmoid(input)``, computed stably; ``pos_weight`` multiplies the positive part.

    Raises:
        ValueError: the shapes of input and target differ.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    if target.shape != input.shape:
        raise ValueError(f"Target size ({target.size()}) must be the same as input size ({input.size()})")
    return pointwise_losses.binary_cross_entropy_with_logits(input, target, weight, pos_weight, _checked(reduction))


@autocasts("float32")
def kl_div(
    input: Tensor,
    target: Tensor,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """``target * (log(target) - input)`` for log-probabilities ``input``; "batchmean" divides by the batch size."""
    legacy = size_average is not None or reduce is not None
    reduction = legacy_reduction(size_average, reduce, reduction)
    if reduction == "mean" and not legacy:
        warnings.warn(
            "reduction: 'mean' divides the total loss by both the batch size and the support size."
            "'batchmean' divides only by the batch size, and aligns with the KL div math definition."
            "'mean' will be changed to behave the same as 'batchmean' in the next major release.",
            stacklevel=2,
        )
    if log_target:
        loss = target.exp() * (target - input)
    else:
        loss = ops.xlogy(target, target) - target * input
    if reduction == "batchmean":
        total = loss.sum()
        return total / input.shape[0] if input.dim() != 0 else total
    return _reduce(loss, reduction)


@autocasts("float32")
def poisson_nll_loss(
    input: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    size_average: Any = None,
    eps: float = 1e-8,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """``exp(input) - target * input``, or without ``log_input`` ``input - target * log(input + eps)``.

    ``full`` adds Stirling's approximation of ``log(target!)`` for targets above 1.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    _check_reduction(reduction)
    loss = input.exp() - target * input if log_input else input - target * (input + eps).log()
    if full:
        stirling = target * target.log() - target + 0.5 * (2 * math.pi * target).log()
        loss = loss + stirling.masked_fill(target <= 1, 0)
    return _reduce(loss, reduction)


def gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """``0.5 * (log(var) + (input - target)**2 / var)`` with ``var`` at least ``eps``; ``full`` adds the constant.

    Raises:
        ValueError: ``var`` is negative or its shape does not fit.
    """
    variance: Tensor = var if isinstance(var, Tensor) else var * ops.ones_like(input)
    if not isinstance(var, Tensor) or state.recorder is None:
        negative = bool((var < 0).any()) if isinstance(var, Tensor) else var < 0
        if negative:
            raise ValueError("var has negative entry/entries")
    if variance.shape != input.shape:
        differing = [b for a, b in zip(input.shape, variance.shape, strict=False) if a != b]
        if tuple(input.shape[:-1]) == tuple(variance.shape):
            variance = variance.unsqueeze(-1)
        elif input.dim() != variance.dim() or sum(differing) != 1:
            raise ValueError("var is of incorrect size")
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(reduction + " is not valid")
    # The bound changes the value but, on purpose, not the gradient.
    variance = variance.clone()
    with no_grad():
        variance.clamp_(min=eps)
    loss = 0.5 * (variance.log() + (input - target) ** 2 / variance)
    if full:
        loss = loss + 0.5 * math.log(2 * math.pi)
    return _reduce(loss, reduction)


@autocasts("float32")
def hinge_embedding_loss(
    input: Tensor,
    target: Tensor,
    margin: float = 1.0,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """``input`` where target is 1, ``max(0, margin - input)`` where it is -1, their sum elsewhere."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    negative = (margin - input).clamp(min=0).masked_fill(target == 1, 0)
    return _reduce(negative + input.masked_fill(target == -1, 0), reduction)


@autocasts("float32")
@composes("SoftMarginLossBackward0")
def soft_margin_loss(
    input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None, reduction: str = "mean"
) -> Tensor:
    """``log(1 + exp(-target * input))``."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    return _reduce((-target * input).exp().log1p(), reduction)


@autocasts("float32")
def cosine_embedding_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0.0,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """``1 - cos`` where target is 1, ``max(0, cos - margin)`` where it is -1; inputs (N, D) or (D,)."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    dim = target.dim()
    expected = (1, 2) if dim == 1 else (1,)
    if dim > 1 or (input1.dim() not in expected and input2.dim() not in expected):
        raise RuntimeError(
            f"{dim}D target tensor expects {'1D or 2D' if dim == 1 else '1D'} input tensors, but found inputs with "
            f"sizes {list(input1.shape)} and {list(input2.shape)}."
        )
    epsilon = 1e-12
    product = (input1 * input2).sum(dim)
    square1, square2 = (input1 * input1).sum(dim) + epsilon, (input2 * input2).sum(dim) + epsilon
    cosine = product / (square1 * square2).sqrt()
    positive = (1 - cosine).masked_fill(target != 1, 0)
    negative = (cosine - margin).clamp(min=0).masked_fill(target != -1, 0)
    return _reduce(positive + negative, reduction)


@autocasts("float32")
def margin_ranking_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0.0,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """``max(0, -target * (input1 - input2) + margin)``."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    if input1.dim() != input2.dim() or input1.dim() != target.dim():
        raise RuntimeError(
            "margin_ranking_loss : All input tensors should have same dimension but got sizes: "
            f"input1: {input1.size()}, input2: {input2.size()}, target: {target.size()} "
        )
    return _reduce((-target * (input1 - input2) + margin).clamp(min=0), reduction)


@autocasts("float32")
def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-6,
    swap: bool = False,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """``max(0, d(anchor, positive) - d(anchor, negative) + margin)``; ``swap`` may take d(positive, negative)."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    if margin <= 0:
        raise ValueError(f"margin must be greater than 0, got {margin}")
    near = pairwise_distance(anchor, positive, p, eps)
    far = pairwise_distance(anchor, negative, p, eps)
    if swap:
        far = ops.minimum(far, pairwise_distance(positive, negative, p, eps))
    return _reduce((margin + near - far).clamp(min=0), reduction)
