"""Losses of several classes or labels at once, of triplets, and of sequences (CTC)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphtorch import ops
from graphtorch.autograd.graph import composes
from graphtorch.autograd.state import state
from graphtorch.nn.functional.activations import logsigmoid
from graphtorch.nn.functional.distances import pairwise_distance
from graphtorch.nn.functional.losses import _checked, _reduce, legacy_reduction
from graphtorch.ops.autocast import autocasts
from graphtorch.tensor.creation import as_tensor
from graphtorch.tensor.dtypes import int64
from graphtorch.tensor.tensor import Tensor

__all__ = [
    "ctc_loss", "multi_margin_loss", "multilabel_margin_loss", "multilabel_soft_margin_loss",
    "triplet_margin_with_distance_loss",
]  # fmt: skip


@autocasts("float32")
@composes("MultiMarginLossBackward0")
def multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """``sum_j max(0, margin - x[y] + x[j]) ** p / C`` over the wrong classes; (N, C) or (C,), targets (N,) or ().

    Raises:
        ValueError: ``p`` is not 1 or 2, or ``weight`` is not a vector.
        RuntimeError: the shapes do not fit.
    """
    reduction = _checked(legacy_reduction(size_average, reduce, reduction))
    if p not in (1, 2):
        raise ValueError("only p == 1 and p == 2 supported")
    if weight is not None and weight.dim() != 1:
        raise ValueError("weight must be one-dimensional")
    if input.dim() > 2 or target.dim() > 1:
        raise RuntimeError(
            "multi_margin_loss: Expected a vector or matrix of scores and a scalar or vector of targets, but got "
            f"{list(input.shape)} and {list(target.shape)}"
        )
    rows = input if input.dim() == 2 else input.reshape(1, -1)
    classes = rows.shape[1]
    index = target.reshape(-1, 1)
    losses = (margin - rows.gather(1, index) + rows).clamp(min=0)
    if p == 2:
        losses = losses * losses
    if weight is not None:
        losses = losses * weight[index]
    losses = losses.scatter(1, index, ops.zeros_like(losses[:, :1])).sum(1) / classes
    result = _reduce(losses, reduction)
    return result.reshape(target.shape) if reduction == "none" else result


@autocasts("float32")
@composes("MultilabelMarginLossBackward0")
def multilabel_margin_loss(
    input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None, reduction: str = "mean"
) -> Tensor:
    """``sum max(0, 1 - x[y] + x[j]) / C`` over labels y and other classes j; (N, C) or (C,).

    The target holds the labels of a row, ended by a -1.

    Raises:
        RuntimeError: the shapes differ.
    """
    reduction = _checked(legacy_reduction(size_average, reduce, reduction))
    if input.shape != target.shape or input.dim() > 2:
        raise RuntimeError(f"inconsistent target size: {list(target.shape)} for input of size: {list(input.shape)}")
    scores, labels = (t.reshape(-1, t.shape[-1]) if t.dim() else t.reshape(1, 1) for t in (input, target))
    valid = (labels >= 0).to(int64).cumprod(1)  # 0 from the first -1 on
    index = labels * valid
    is_label = ops.zeros_like(labels).scatter_add(1, index, valid) > 0
    own = scores.gather(1, index).unsqueeze(2)
    losses = (1 - own + scores.unsqueeze(1)).clamp(min=0)
    counted = (valid > 0).unsqueeze(2) & ~is_label.unsqueeze(1)
    total = ops.where(counted, losses, 0).sum((1, 2)) / scores.shape[1]
    return _reduce(total if input.dim() == 2 else total[0], reduction)


def multilabel_soft_margin_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """The mean over classes of the binary cross entropy of logits; (N, C)."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    losses = -(target * logsigmoid(input) + (1 - target) * logsigmoid(-input))
    if weight is not None:
        losses = losses * weight
    return _reduce(losses.mean(-1), reduction)


def triplet_margin_with_distance_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """``max(0, d(anchor, positive) - d(anchor, negative) + margin)`` for any distance, Euclidean by default.

    Raises:
        ValueError: the reduction is unknown or the margin not positive.
        RuntimeError: the dimensions differ.
    """
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{reduction} is not a valid value for reduction")
    if margin <= 0:
        raise ValueError(f"margin must be greater than 0, got {margin}")
    if not anchor.dim() == positive.dim() == negative.dim():
        raise RuntimeError(
            "The anchor, positive, and negative tensors are expected to have the same number of dimensions, but got: "
            f"anchor {anchor.dim()}D, positive {positive.dim()}D, and negative {negative.dim()}D inputs"
        )
    distance = pairwise_distance if distance_function is None else distance_function
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = ops.minimum(far, distance(positive, negative))
    return _reduce((margin + near - far).clamp(min=0), reduction)


# Stands for minus infinity: differences of infinities would be NaN, in values and gradients.
_IMPOSSIBLE = -1e30


def _check_lengths(inputs: Tensor, lengths: Tensor, steps: int, labels: int | None) -> None:
    """Refuse lengths of sequences that are negative or reach beyond what is given."""
    where = "(while checking arguments for ctc_loss_allocate_outputs)"
    for name, given in (("input_lengths", inputs.tolist()), ("target_lengths", lengths.tolist())):
        if given and min(given) < 0:
            raise RuntimeError(f"Expected {name} to have value at least 0, but got value {min(given)} {where}")
        if name == "input_lengths" and given and max(given) > steps:
            raise RuntimeError(f"Expected {name} to have value at most {steps}, but got value {max(given)} {where}")
        if name == "target_lengths" and labels is not None and given and max(given) > labels:
            raise RuntimeError(
                f"Expected tensor to have size at least {max(given)} at dimension 1, but got size {labels} for "
                f"argument #2 'targets' {where}"
            )


@autocasts("float32")
def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Tensor | Sequence[int],
    target_lengths: Tensor | Sequence[int],
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """Minus the log-probability of all alignments of a target to the steps of a longer input (Graves et al. 2006).

    Args:
        log_probs: (T, N, C) or (T, C), log-probabilities of the classes at every step.
        targets: (N, S) padded, or all labels one after the other.
        input_lengths, target_lengths: how many steps and labels count in each sequence.
        blank: the class that stands for no label.
        zero_infinity: whether impossible targets count zero instead of infinity.

    The gradient is PyTorch's: it contains the projection that ``log_softmax`` would apply to it, and which leaves it as
    it is if there is one before.

    Raises:
        RuntimeError: the reduction is unknown or the shapes do not fit.
    """
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{reduction} is not a valid value for reduction")
    batched = log_probs.dim() == 3
    if not batched:
        log_probs = log_probs.unsqueeze(1)
    steps, batch, classes = log_probs.shape
    device = log_probs.device
    inputs, lengths = (
        (t if isinstance(t, Tensor) else as_tensor(np.asarray(t, dtype=np.int64))).to(device, int64).reshape(-1)
        for t in (input_lengths, target_lengths)
    )
    if lengths.shape[0] != batch or inputs.shape[0] != batch:
        raise RuntimeError("input_lengths and target_lengths must be of size batch_size")
    if not 0 <= blank < classes:
        raise RuntimeError("blank must be in label range")
    if state.recorder is None and log_probs.device.type == "cpu":
        _check_lengths(inputs, lengths, steps, None if targets.dim() == 1 else targets.shape[1])
    labels = _padded_targets(targets.to(device, int64), lengths, target_lengths, batch)
    size = labels.shape[1]
    # States: a blank, the first label, a blank, ..., the last label, a blank.
    blanks = ops.full((batch, size), blank, dtype=int64, device=device)
    states = ops.stack([blanks, labels], 2).reshape(batch, 2 * size)
    states = ops.cat([states, ops.full((batch, 1), blank, dtype=int64, device=device)], 1)
    # A label may follow the label before it without a blank between, unless they are equal.
    skip = ops.constant_pad_nd((states[:, 2:] != blank) & (states[:, 2:] != states[:, :-2]), (2, 0), 0)
    emitted = log_probs.gather(2, states.unsqueeze(0).expand(steps, batch, 2 * size + 1)).clamp(min=_IMPOSSIBLE)
    start = ops.arange(2 * size + 1, device=device) < 2
    alpha = ops.where(start, emitted[0], _IMPOSSIBLE)

    def later(alpha: Tensor, count: int) -> Tensor:
        return ops.constant_pad_nd(alpha[:, : alpha.shape[1] - count], (count, 0), _IMPOSSIBLE)

    for step in range(1, steps):
        ways = ops.stack([alpha, later(alpha, 1), ops.where(skip, later(alpha, 2), _IMPOSSIBLE)])
        following = ways.logsumexp(0) + emitted[step]
        alpha = ops.where((inputs > step).unsqueeze(1), following.clamp(min=_IMPOSSIBLE), alpha)
    ends = (2 * lengths).unsqueeze(1)
    last = alpha.gather(1, ends), alpha.gather(1, (ends - 1).clamp(min=0))
    # A target without labels has one end, not two.
    final = ops.cat([last[0], ops.where(ends > 0, last[1], _IMPOSSIBLE)], 1).logsumexp(1)
    impossible = final < _IMPOSSIBLE / 2
    # The projection: probabilities that add nothing but their gradient.
    taken = (ops.arange(steps, device=device).unsqueeze(1) < inputs).unsqueeze(2)
    probabilities = ops.where(taken, log_probs.exp(), 0.0)
    projected = (probabilities - probabilities.detach()).sum((0, 2))
    losses = ops.where(impossible, 0.0 if zero_infinity else math.inf, projected - final)
    if reduction == "mean":
        return (losses / lengths.clamp(min=1)).mean()
    return losses.sum() if reduction == "sum" else losses if batched else losses[0]


def _padded_targets(targets: Tensor, lengths: Tensor, given: Tensor | Sequence[int], batch: int) -> Tensor:
    """The labels as (N, S), whatever they were."""
    if targets.dim() == 2:
        return targets
    if batch == 1 and targets.dim() == 1:
        return targets.unsqueeze(0)
    longest = int(max(given.tolist() if isinstance(given, Tensor) else given))
    starts = (lengths.cumsum(0) - lengths).unsqueeze(1)
    places = starts + ops.arange(longest, device=targets.device)
    return targets[places.clamp(max=targets.shape[0] - 1)]
