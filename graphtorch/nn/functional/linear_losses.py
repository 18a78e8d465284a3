"""The cross entropy of a linear layer's results, as one function."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from graphtorch.nn.functional.convolutions import linear
from graphtorch.nn.functional.losses import cross_entropy
from graphtorch.tensor.tensor import Tensor

__all__ = ["LinearCrossEntropyOptions", "linear_cross_entropy"]


@dataclass(frozen=True)
class LinearCrossEntropyOptions:
    """How PyTorch cuts the product into chunks. Accepted and without effect here: what is kept for the backward pass of
    a compiled function is the compiler's choice. See torch.nn.LinearCrossEntropyOptions."""

    allow_retain_graph: bool = False
    batch_chunk_size: int | None = None
    chunking_method: str | None = "auto"
    acc_policy: str = "auto"
    acc_dtype: Any = None


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
    target as for :func:`cross_entropy`.
    """
    *classes, size = linear_weight.shape
    bias = None if linear_bias is None else linear_bias.reshape(-1)
    logits = linear(input, linear_weight.reshape(math.prod(classes), size), bias)
    if len(classes) > 1:
        logits = logits.reshape((*input.shape[:-1], *classes))
    skipped = -100 if ignore_index is None else ignore_index
    return cross_entropy(
        logits,
        target,
        weight,
        ignore_index=skipped,
        reduction=reduction,
        label_smoothing=label_smoothing,
    )
