"""Attention: a composition of products and softmax, or one operator where a GPU or a backend has it."""

from __future__ import annotations

import math
from typing import Any

from graphtorch import ops
from graphtorch.autograd.compositions import in_one_piece
from graphtorch.autograd.state import state
from graphtorch.nn.functional.convolutions import linear
from graphtorch.nn.functional.dropouts import dropout
from graphtorch.ops.attention import LARGEST_HEAD, fused_attention
from graphtorch.ops.autocast import autocasts
from graphtorch.tensor.dtypes import bfloat16, bool_, dtype, float16, float32
from graphtorch.tensor.tensor import Tensor

__all__ = ["multi_head_attention_forward", "scaled_dot_product_attention"]


@autocasts("lower")
def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Any = None,
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
    if attn_mask is not None and not isinstance(attn_mask, Tensor):
        biased: Tensor = attn_mask._dispatch(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)
        return biased  # a mask of nn.attention.bias
    if is_causal and attn_mask is not None:
        raise RuntimeError("_scaled_dot_product_attention: Explicit attn_mask should not be set when is_causal=True")
    if _in_one_piece(query, key, value, attn_mask, enable_gqa):
        return _fused(query, key, value, attn_mask, dropout_p, is_causal, scale)
    if dropout_p == 0.0:
        return _composed(query, key, value, attn_mask, is_causal, scale, enable_gqa)
    return _attention(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)


@in_one_piece("ScaledDotProductFlashAttentionForCpuBackward0", strided=True)
def _composed(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
) -> Tensor:
    """Attention without dropout."""
    return _attention(query, key, value, attn_mask, 0.0, is_causal, scale, enable_gqa)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
) -> Tensor:
    """Attention as a composition of products and a softmax."""
    if query.dtype in (float16, bfloat16):
        # Scores of half precision would lose what the softmax needs.
        mask = attn_mask if attn_mask is None or attn_mask.dtype is bool_ else attn_mask.to(float32)
        q, k, v = (t.to(float32) for t in (query, key, value))
        return _attention(q, k, v, mask, dropout_p, is_causal, scale, enable_gqa).to(query.dtype)
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


def _in_one_piece(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, shared_heads: bool) -> bool:
    """Whether attention on these operands is one operator: on a GPU, or in a capture for a backend that has it."""
    recorded = getattr(state.recorder, "composites", ())
    if query.device.type != "cuda" and "fused_attention" not in recorded:
        return False
    operands = (query, key, value)
    rank = query.dim()
    if query.dtype not in (float16, bfloat16, float32) or any(t.dtype is not query.dtype for t in operands):
        return False
    if not 3 <= rank <= 4 or any(t.dim() != rank for t in operands):
        return False
    heads = [t.shape[-3] for t in operands]
    if any(t.shape[:-3] != query.shape[:-3] for t in operands) or heads[1] != heads[2]:
        return False
    if heads[0] != heads[1] and (rank == 3 or not shared_heads or heads[0] % heads[1] != 0):
        return False
    if key.shape[-2] != value.shape[-2] or query.shape[-1] != key.shape[-1]:
        return False
    if any(type(t.shape[-1]) is not int or not 1 <= t.shape[-1] <= LARGEST_HEAD for t in operands):
        return False
    return mask is None or (mask.dim() <= rank and not mask.requires_grad)


def _fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
) -> Tensor:
    """Attention as one operator, whose operands have heads beside each other; batches without heads have one each."""
    rank = query.dim()
    q, k, v = (t if rank == 4 else t.unsqueeze(1) for t in (query, key, value))
    shape = (*q.shape[:3], k.shape[2])
    if mask is not None:
        mask = (mask.unsqueeze(1) if rank == 3 and mask.dim() == 3 else mask).expand(shape)
    keep = dropout(ops.ones(shape, dtype=query.dtype, device=query.device), dropout_p) if dropout_p > 0.0 else None
    factor = 1.0 / math.sqrt(query.shape[-1]) if scale is None else float(scale)
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    result: Tensor = fused_attention(q, k, v, mask, keep, is_causal, factor)[0].transpose(1, 2)
    return result if rank == 4 else result.squeeze(1)


def _as_addend(mask: Tensor | None, name: str, like: dtype) -> Tensor | None:
    """A bool mask, true where attention is not allowed, as a float mask of -inf and 0 to be added."""
    if mask is None:
        return None
    if mask.dtype is bool_:
        return ops.zeros(tuple(mask.shape), dtype=like, device=mask.device).masked_fill(mask, -math.inf)
    if not mask.is_floating_point():
        raise AssertionError(f"only bool and floating types of {name} are supported")
    return mask


def _project(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    separate: tuple[Tensor | None, Tensor | None, Tensor | None],
) -> tuple[Tensor, Tensor, Tensor]:
    """The three input projections; of self-attention in one product."""
    if weight is not None and query is key and key is value:
        q, k, v = linear(query, weight, bias).chunk(3, -1)
        return q, k, v
    weights = separate if weight is None else weight.chunk(3)
    biases = (None, None, None) if bias is None else bias.chunk(3)
    q, k, v = (linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))
    return q, k, v


def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Multi-head attention with given weights; :class:`graphtorch.nn.MultiheadAttention` says what they are.

    Shapes: query (L, N, E), key and value (S, N, *), or all without N; results (L, N, E) and (N, L, S).

    Raises:
        AssertionError: the shapes do not fit.
        RuntimeError: ``is_causal`` without a mask.
    """
    if query.dim() not in (2, 3):
        raise AssertionError(
            f"query should be unbatched 2D or batched 3D tensor but received {query.dim()}-D query tensor"
        )
    batched = query.dim() == 3
    if not batched:
        lifted = {id(t): t.unsqueeze(1) for t in (query, key, value)}
        query, key, value = lifted[id(query)], lifted[id(key)], lifted[id(value)]
        key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
    if is_causal and attn_mask is None:
        raise RuntimeError("Need attn_mask if specifying the is_causal hint.")
    length, batch, size = query.shape
    if size != embed_dim_to_check:
        raise AssertionError(f"was expecting embedding dimension of {embed_dim_to_check}, but got {size}")
    head = size // num_heads
    if head * num_heads != size:
        raise AssertionError(f"embed_dim {size} not divisible by num_heads {num_heads}")
    padding = _as_addend(key_padding_mask, "key_padding_mask", query.dtype)
    mask = _as_addend(attn_mask, "attn_mask", query.dtype)
    if mask is not None and mask.dim() == 2:
        mask = mask.unsqueeze(0)

    q, k, v = _project(
        query,
        key,
        value,
        None if use_separate_proj_weight else in_proj_weight,
        in_proj_bias,
        (q_proj_weight, k_proj_weight, v_proj_weight),
    )
    added = 0  # positions appended to keys and values
    if bias_k is not None and bias_v is not None:
        k = ops.cat([k, bias_k.repeat(1, batch, 1)])
        v = ops.cat([v, bias_v.repeat(1, batch, 1)])
        added += 1

    def heads_first(x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], batch * num_heads, head).transpose(0, 1)

    q = heads_first(q)
    k = heads_first(k) if static_k is None else static_k
    v = heads_first(v) if static_v is None else static_v
    if add_zero_attn:
        zeros = ops.zeros((batch * num_heads, 1, head), dtype=k.dtype, device=k.device)
        k, v = ops.cat([k, zeros], 1), ops.cat([v, zeros], 1)
        added += 1
    if added and mask is not None:
        mask = ops.constant_pad_nd(mask, (0, added), 0.0)
    if padding is not None:
        if added:
            padding = ops.constant_pad_nd(padding, (0, added), 0.0)
        source = k.shape[1]
        padding = padding.reshape(batch, 1, 1, source).expand(batch, num_heads, 1, source)
        padding = padding.reshape(batch * num_heads, 1, source)
        mask = padding if mask is None else mask + padding

    weights = None
    if not need_weights and _in_one_piece(q, k, v, mask, False):
        attended = _fused(q, k, v, mask, dropout_p if training else 0.0, False, None)
    else:
        scores = (q * math.sqrt(1.0 / head)) @ k.transpose(-2, -1)
        weights = (scores if mask is None else scores + mask).softmax(-1)
        if dropout_p > 0.0:
            weights = dropout(weights, dropout_p, training)
        attended = weights @ v
    mixed = attended.transpose(0, 1).reshape(length, batch, size)
    result = linear(mixed, out_proj_weight, out_proj_bias)
    shown = weights.reshape(batch, num_heads, length, k.shape[1]) if need_weights and weights is not None else None
    if shown is not None and average_attn_weights:
        shown = shown.mean(1)
    if not batched:
        result = result.squeeze(1)
        shown = None if shown is None else shown.squeeze(0)
    return result, shown
