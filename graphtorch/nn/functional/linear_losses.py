"""The cross entropy of a linear layer's results, as one function."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from graphtorch import ops
from graphtorch.nn.functional.convolutions import linear
from graphtorch.nn.functional.losses import cross_entropy
from graphtorch.tensor.dtypes import int64
from graphtorch.tensor.tensor import Tensor

__all__ = ["LinearCrossEntropyOptions", "linear_cross_entropy"]


@dataclass(frozen=True)
class LinearCrossEntropyOptions:
    """Asks for the loss a chunk of rows at a time, so that no more logits exist at once: `batch_chunk_size` rows, or as
    many as have 2^24 logits. How sums are accumulated (`acc_policy`, `acc_dtype`) and whether a graph may be kept are
    PyTorch's to choose; here every choice gives the same. See torch.nn.LinearCrossEntropyOptions."""

    allow_retain_graph: bool = False
    batch_chunk_size: int | None = None
    chunking_method: str | None = "auto"
    acc_policy: str = "auto"
    acc_dtype: Any = None


def _check(input: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, ignore_index: int | None) -> None:
    if input.dim() not in (1, 2):
        raise RuntimeError(f"expected input with dimensionality 1 or 2, got {input.dim()}")
    if weight.dim() < 2:
        raise RuntimeError(f"expected linear_weight with dimensionality at least 2, got {weight.dim()}")
    if input.shape[-1] != weight.shape[-1]:
        raise RuntimeError(
            "expected equal input and linear_weight last dimensions (in_features), got "
            f"{input.shape[-1]} and {weight.shape[-1]}, respectively"
        )
    if bias is not None and bias.shape != weight.shape[:-1]:
        raise RuntimeError(f"expected linear_bias shape {tuple(weight.shape[:-1])}, got {tuple(bias.shape)}")
    if weight.dim() > 2 and input.dim() == 1:
        raise RuntimeError(
            f"K-dimensional loss defined by linear_weight shape {tuple(weight.shape)} requires batched input, "
            f"(N, {input.shape[-1]}), got unbatched input with shape {tuple(input.shape)}"
        )
    if ignore_index is not None and tuple(target.shape) == (*input.shape[:-1], *weight.shape[:-1]):
        raise RuntimeError("ignore_index cannot be specified when target contains probabilities")


def _in_chunks(loss: Callable[[Tensor, Tensor], Tensor], input: Tensor, target: Tensor, rows: int) -> list[Tensor]:
    """The losses of so many rows each; the backward pass computes their logits again."""
    from graphtorch.utils.checkpoint import checkpoint

    starts = range(0, max(input.shape[0], 1), rows)
    return [checkpoint(loss, input[i : i + rows], target[i : i + rows], use_reentrant=False) for i in starts]


def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: LinearCrossEntropyOptions | None = None,
) -> Tensor:
    """`cross_entropy(linear(input, linear_weight, linear_bias), target)`.

    Shapes: input (N, in) or (in,); linear_weight (C, in), or (C, d1, ..., in) for losses of several dimensions;
    target as for :func:`cross_entropy`. With `options`, and class indices as targets, a chunk of rows at a time.

    Raises:
        RuntimeError: the shapes do not fit.
    """
    _check(input, linear_weight, linear_bias, target, ignore_index)
    *classes, size = linear_weight.shape
    matrix = linear_weight.reshape(math.prod(classes), size)
    bias = None if linear_bias is None else linear_bias.reshape(-1)
    skipped = -100 if ignore_index is None else ignore_index

    def loss(rows: Tensor, labels: Tensor, reduction: str = reduction) -> Tensor:
        logits = linear(rows, matrix, bias)
        if len(classes) > 1:
            logits = logits.reshape((*rows.shape[:-1], *classes))
        return cross_entropy(
            logits,
            labels,
            weight,
            ignore_index=skipped,
            reduction=reduction,
            label_smoothing=label_smoothing,
        )

    chunked = input.dim() == 2 and len(classes) == 1 and target.dtype is int64 and label_smoothing == 0
    if options is None or not chunked or reduction not in ("mean", "sum", "none"):
        return loss(input, target)
    size = options.batch_chunk_size or max(1, 2**24 // matrix.shape[0])
    if reduction == "none":
        return ops.cat(_in_chunks(partial(loss, reduction="none"), input, target, size))
    total = ops.stack(_in_chunks(partial(loss, reduction="sum"), input, target, size)).sum()
    if reduction == "sum":
        return total
    counted = target != skipped
    if weight is None:
        return total / counted.sum()
    return total / ops.where(counted, weight[ops.where(counted, target, 0)], 0).sum()
