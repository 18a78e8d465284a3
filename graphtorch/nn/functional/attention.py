"""Attention as a composition of products and softmax."""

from __future__ import annotations

import math

from graphtorch import ops
from graphtorch.nn.functional.dropouts import dropout
from graphtorch.tensor.dtypes import bool_
from graphtorch.tensor.tensor import Tensor

__all__ = ["scaled_dot_product_attention"]


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """``softmax(query @ key.T * scale + mask) @ value`` (Vaswani et al. 2017).

    Shapes: query (..., L, E), key (..., S, E), value (..., S, Ev), mask broadcastable to (..., L, S), result
    (..., L, Ev). A bool mask is true where attention is allowed, a float one is added. ``is_causal`` lets position i
    see positions up to i. ``scale`` is ``1 / sqrt(E)`` by default. Rows that see nothing are zero.

    Raises:
        RuntimeError: a mask is given beside ``is_causal``.
    """
    if is_causal and attn_mask is not None:
        raise RuntimeError("_scaled_dot_product_attention: Explicit attn_mask should not be set when is_causal=True")
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
    factor = math.sqrt(1.0 / math.sqrt(query.shape[-1]) if scale is None else scale)
    # Both sides take half of the scale, which keeps the product in range.
    scores = (query * factor) @ (key.transpose(-2, -1) * factor)
    if is_causal:
        attn_mask = ops.ones((query.shape[-2], key.shape[-2]), dtype=bool_, device=query.device).tril()
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype is bool_ else scores + attn_mask
    weights = scores.softmax(-1)
    if attn_mask is not None:
        hidden = (scores == -math.inf).all(-1, keepdim=True)
        weights = weights.masked_fill(hidden, 0.0)
    if dropout_p > 0.0:
        weights = dropout(weights, dropout_p)
    return weights @ value
