"""Embeddings of bags of indices: the sum, mean or maximum of the rows that a bag names."""

from __future__ import annotations

import math

from graphtorch import ops
from graphtorch.autograd.graph import composes
from graphtorch.nn.functional.convolutions import embedding
from graphtorch.tensor.dtypes import int64
from graphtorch.tensor.tensor import Tensor

__all__ = ["embedding_bag"]


@composes("EmbeddingBagBackward0")
def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Reduce the rows of ``weight`` (V, D) that each bag names: (bags, D).

    Args:
        input: (bags, L) indices, or all of them, (total,), the bags beginning at ``offsets`` (bags,).
        mode: "sum", "mean" or "max"; an empty bag is zero.
        per_sample_weights: factors of the rows, like ``input``; only of sums.
        include_last_offset: whether ``offsets`` ends with the total.
        padding_idx: an index that does not count.

    Raises:
        ValueError: the shapes or options do not fit.
        RuntimeError: ``padding_idx`` is out of range.
        NotImplementedError: ``per_sample_weights`` with another mode than "sum".
    """
    if weight.dim() != 2:
        raise ValueError(f"weight has to be a 2D Tensor, but got Tensor of dimension {weight.dim()}")
    if per_sample_weights is not None and per_sample_weights.shape != input.shape:
        raise ValueError(
            f"embedding_bag: If per_sample_weights ({per_sample_weights.shape}) is not None, then it must have the "
            f"same shape as the input ({input.shape})"
        )
    if mode not in ("sum", "mean", "max"):
        raise ValueError("mode has to be one of sum, mean or max")
    if mode == "max" and (scale_grad_by_freq or sparse):
        raise ValueError("max mode does not support scaling the gradient by the frequency or sparse weights")
    if per_sample_weights is not None and mode != "sum":
        raise NotImplementedError(
            "embedding_bag: per_sample_weights was not None. per_sample_weights is only supported for mode='sum' (got "
            f"mode='{mode}'). Please open a feature request on GitHub."
        )
    rows = weight.shape[0]
    if padding_idx is not None:
        if not -rows <= padding_idx < rows:
            raise RuntimeError("padding_idx must be within the number of embeddings")
        padding_idx %= rows
    if input.dim() == 2:
        if offsets is not None:
            raise ValueError(
                "if input is 2D, then offsets has to be None, as input is treated is a mini-batch of fixed length "
                f"sequences. However, found offsets of type {type(offsets)}"
            )
        bags = input.shape[0]
        bag = ops.arange(bags, device=input.device).repeat_interleave(input.shape[1])
    elif input.dim() == 1:
        if offsets is None:
            raise ValueError("offsets has to be a 1D Tensor but got None")
        if offsets.dim() != 1:
            raise ValueError("offsets has to be a 1D Tensor")
        bags = offsets.shape[0] - int(include_last_offset)
        places = ops.arange(input.shape[0], device=input.device)
        bag = ops.searchsorted(offsets[:bags].to(int64), places, right=True) - 1
    else:
        raise ValueError(f"input has to be 1D or 2D Tensor, but got Tensor of dimension {input.dim()}")
    flat = input.reshape(-1)
    found = embedding(flat, weight, None, max_norm, norm_type, scale_grad_by_freq, sparse)
    counts = ops.ones_like(flat) if padding_idx is None else (flat != padding_idx).to(flat.dtype)
    totals = ops.zeros((bags,), dtype=counts.dtype, device=input.device).index_add(0, bag, counts).unsqueeze(1)
    counted = counts.unsqueeze(1) > 0
    like = {"dtype": weight.dtype, "device": weight.device}
    if mode == "max":
        lowest = ops.full((bags, weight.shape[1]), -math.inf, **like)
        where = bag.unsqueeze(1).expand(found.shape)
        highest = lowest.scatter_reduce(0, where, ops.where(counted, found, -math.inf), "amax")
        return ops.where(totals > 0, highest, 0)
    if per_sample_weights is not None:
        found = found * per_sample_weights.reshape(-1, 1)
    sums = ops.zeros((bags, weight.shape[1]), **like).index_add(0, bag, ops.where(counted, found, 0))
    return sums if mode == "sum" else sums / totals.clamp(min=1)
