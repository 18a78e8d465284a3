"""Attention in one piece: what a backend with a kernel for it computes without ever holding the scores in memory
(FlashAttention, Dao et al. 2022, arXiv:2205.14135).

Operands lie as projections leave them, with heads beside each other: query (B, L, H, E), key (B, S, G, E), value
(B, S, G, V); H is a multiple of G, and H / G query heads share one of key and value. Eager execution on CPU, and
backends without such a kernel, compose attention of products and a softmax instead (`scaled_dot_product_attention`).

The backward pass is an operator as well: probabilities are computed again, from the scores and the logarithms of the
rows' sums. Its own derivatives are compositions, so that any order exists.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from graphtorch.ops.build import FUNCTIONS, operator
from graphtorch.ops.record import Sample, sample
from graphtorch.tensor import dtypes
from graphtorch.tensor.dtypes import dtype
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType, type_of

Array = np.ndarray[Any, Any]

LARGEST_HEAD = 256


def summed_in(of: dtype) -> dtype:
    """The dtype of scores and sums."""
    return dtypes.float64 if of is dtypes.float64 else dtypes.float32


# -- types ------------------------------------------------------------------------------------------------------------


def _check(name: str, query: Any, key: Any, value: Any) -> None:
    if not query.dtype.is_floating_point or key.dtype is not query.dtype or value.dtype is not query.dtype:
        raise RuntimeError(
            f"{name}: expected query, key and value of one floating point type, got {query.dtype}, {key.dtype} and "
            f"{value.dtype}"
        )
    shapes = [tuple(t.shape) for t in (query, key, value)]
    if any(len(s) != 4 for s in shapes) or shapes[1][:3] != shapes[2][:3] or shapes[0][0] != shapes[1][0]:
        raise RuntimeError(f"{name}: query, key and value do not fit together: {shapes[0]}, {shapes[1]}, {shapes[2]}")
    if shapes[0][3] != shapes[1][3] or shapes[0][2] % shapes[1][2] != 0:
        raise RuntimeError(f"{name}: the heads of {shapes[0]} and {shapes[1]} do not fit together")


def _forward_type(query: Any, key: Any, value: Any, mask: Any, keep: Any, is_causal: bool, scale: float) -> Any:
    _check("fused_attention", query, key, value)
    batch, length, heads, _ = query.shape
    own: TensorType = type_of(query)
    result = own.with_shape((batch, length, heads, value.shape[3]))
    return result, own.with_shape((batch, heads, length)).with_dtype(summed_in(query.dtype))


def _backward_type(
    grad_result: Any,
    query: Any,
    key: Any,
    value: Any,
    logsumexp: Any,
    delta: Any,
    mask: Any,
    keep: Any,
    is_causal: bool,
    scale: float,
) -> Any:
    _check("fused_attention_backward", query, key, value)
    return type_of(query), type_of(key), type_of(value)


# -- values -----------------------------------------------------------------------------------------------------------


def _heads_first(x: Array, heads: int, of: Any) -> Array:
    """(B, heads, L, E) from (B, L, G, E), shared heads repeated."""
    moved = np.asarray(x).transpose(0, 2, 1, 3).astype(of)
    return moved if x.shape[2] == heads else np.repeat(moved, heads // x.shape[2], 1)


def _probabilities(query: Array, key: Array, mask: Any, is_causal: bool, scale: float) -> tuple[Array, Array]:
    """The softmax of each row's scores, zero for rows that see nothing, and the logarithm of its sum."""
    scores = query @ key.swapaxes(-1, -2) * query.dtype.type(scale)
    if mask is not None:
        scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask.astype(scores.dtype)
    if is_causal:
        seen = np.tril(np.ones(scores.shape[-2:], bool))
        scores = np.where(seen, scores, -np.inf)
    largest = scores.max(-1, keepdims=True, initial=-np.inf)
    with np.errstate(invalid="ignore", divide="ignore"):
        weights = np.exp(scores - np.where(largest == -np.inf, 0, largest))
        total = weights.sum(-1, keepdims=True)
        return weights / np.where(total == 0, 1, total), (np.log(total) + largest)[..., 0]


def _forward(
    query: Array, key: Array, value: Array, mask: Any, keep: Any, is_causal: bool, scale: float
) -> tuple[Array, Array]:
    wide = np.float64 if query.dtype == np.float64 else np.float32
    heads = query.shape[2]
    q, k, v = (_heads_first(x, heads, wide) for x in (query, key, value))
    weights, logsumexp = _probabilities(q, k, mask, is_causal, scale)
    if keep is not None:
        weights = weights * keep.astype(wide)
    result = (weights @ v).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(result).astype(query.dtype), logsumexp.astype(wide)


def _backward(
    grad_result: Array,
    query: Array,
    key: Array,
    value: Array,
    logsumexp: Array,
    delta: Array,
    mask: Any,
    keep: Any,
    is_causal: bool,
    scale: float,
) -> tuple[Array, Array, Array]:
    wide = np.float64 if query.dtype == np.float64 else np.float32
    heads = query.shape[2]
    g, q, k, v = (_heads_first(x, heads, wide) for x in (grad_result, query, key, value))
    weights, _ = _probabilities(q, k, mask, is_causal, scale)
    factors = 1 if keep is None else keep.astype(wide)
    grad_value = (weights * factors).swapaxes(-1, -2) @ g
    grad_scores = weights * ((g @ v.swapaxes(-1, -2)) * factors - delta[..., None].astype(wide)) * wide(scale)
    grads = (grad_scores @ k, grad_scores.swapaxes(-1, -2) @ q, grad_value)
    made = []
    for grad, like in zip(grads, (query, key, value), strict=True):
        shared = grad.reshape(grad.shape[0], like.shape[2], heads // like.shape[2], *grad.shape[2:]).sum(2)
        made.append(np.ascontiguousarray(shared.transpose(0, 2, 1, 3)).astype(like.dtype))
    return made[0], made[1], made[2]


# -- derivatives ------------------------------------------------------------------------------------------------------


def _gradient(position: int) -> Callable[..., Any]:
    """The gradient of the forward pass in query, key or value."""

    def formula(
        g_result: Any,
        g_logsumexp: Any,
        query: Any,
        key: Any,
        value: Any,
        mask: Any,
        keep: Any,
        is_causal: bool,
        scale: float,
        result: Any,
        logsumexp: Any,
    ) -> Any:
        if g_result is None and g_logsumexp is None:
            return None
        g = FUNCTIONS["zeros_like"](result) if g_result is None else g_result
        of = summed_in(query.dtype)
        delta = (g.to(of) * result.to(of)).sum(-1).transpose(1, 2)
        if g_logsumexp is not None:
            delta = delta - g_logsumexp
        arguments = (g, query, key, value, logsumexp, delta, mask, keep, is_causal, scale)
        return fused_attention_backward(*arguments)[position]

    return formula


def _second(position: int) -> Callable[..., Any]:
    """The gradient of the backward pass in grad_result, query, key, value or delta.

    With P the probabilities, F the dropout's factors, s the scale and dS = P (F (g v^T) - delta), the pass gives
    s dS k, s dS^T q and (P F)^T g. Let a, b and c be their cotangents; that of dS is then E = s (a k^T + q b^T).
    """

    def formula(
        g_grad_query: Any,
        g_grad_key: Any,
        g_grad_value: Any,
        grad_result: Any,
        query: Any,
        key: Any,
        value: Any,
        delta: Any,
        mask: Any,
        keep: Any,
        is_causal: bool,
        scale: float,
    ) -> Any:
        if g_grad_query is None and g_grad_key is None and g_grad_value is None:
            return None
        heads, shared = query.shape[2], key.shape[2]

        def first(x: Any) -> Any:
            x = x.transpose(1, 2)
            return x if x.shape[1] == heads else x.repeat_interleave(heads // shared, 1)

        def given(x: Any, like: Any) -> Any:
            return first(FUNCTIONS["zeros_like"](like) if x is None else x)

        def back(x: Any, count: Any) -> Any:
            if count != heads:
                x = x.reshape((x.shape[0], count, heads // count, *x.shape[2:])).sum(2)
            return x.transpose(1, 2)

        g, q, k, v = (first(x) for x in (grad_result, query, key, value))
        a, b, c = (given(x, t) for x, t in ((g_grad_query, query), (g_grad_key, key), (g_grad_value, value)))
        weights = _composed_weights(q, k, mask, is_causal, scale)
        factors = weights.new_ones(()) if keep is None else keep
        below = delta.unsqueeze(-1).to(query.dtype)
        slope = (g @ v.transpose(-2, -1)) * factors
        outer = (a @ k.transpose(-2, -1) + q @ b.transpose(-2, -1)) * scale
        if position == 4:
            return -(outer * weights).sum(-1)
        slope_bar = outer * weights * factors
        if position == 0:
            return back((weights * factors) @ c + slope_bar @ v, heads)
        if position == 3:
            return back(slope_bar.transpose(-2, -1) @ g, shared)
        weights_bar = outer * (slope - below) + (g @ c.transpose(-2, -1)) * factors
        scores_bar = weights * (weights_bar - (weights_bar * weights).sum(-1, True)) * scale
        grad_scores = weights * (slope - below) * scale
        if position == 1:
            return back(grad_scores @ b + scores_bar @ k, heads)
        return back(grad_scores.transpose(-2, -1) @ a + scores_bar.transpose(-2, -1) @ q, shared)

    return formula


def _composed_weights(query: Any, key: Any, mask: Any, is_causal: bool, scale: float) -> Any:
    """The probabilities, made of operators."""
    scores = (query @ key.transpose(-2, -1)) * scale
    hidden = None
    if is_causal:
        seen = FUNCTIONS["ones"](scores.shape[-2:], dtype=dtypes.bool_, device=query.device).tril()
        scores = scores.masked_fill(~seen, -math.inf)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype is dtypes.bool_ else scores + mask
        hidden = (scores == -math.inf).all(-1, keepdim=True)
    weights = scores.softmax(-1)
    return weights if hidden is None else weights.masked_fill(hidden, 0.0)


# -- records ----------------------------------------------------------------------------------------------------------


def _cases(make: Any) -> Iterator[tuple[Any, ...]]:
    """Operands of several forms: plain, causal with shared heads, masked, with dropout."""
    yield make(2, 3, 2, 4), make(2, 5, 2, 4), make(2, 5, 2, 3), None, None, False, 0.5
    yield make(1, 4, 4, 3), make(1, 4, 2, 3), make(1, 4, 2, 3), None, None, True, 0.7
    seen = make.bools(2, 2, 3, 4).numpy()
    seen[..., 0] = True
    visible = Tensor._from_array(seen, False)
    yield make(2, 3, 2, 2), make(2, 4, 1, 2), make(2, 4, 1, 2), visible, None, False, -0.5
    added = make(1, 2, 2, 3, requires_grad=False)
    keep = make.bools(1, 2, 2, 3).to(make.dtype) * 2
    yield make(1, 2, 2, 2), make(1, 3, 2, 2), make(1, 3, 2, 1), added, keep, False, 1.0


def _forward_samples(make: Any) -> Iterator[Sample]:
    for case in _cases(make):
        yield sample(*case)


def _backward_samples(make: Any) -> Iterator[Sample]:
    for query, key, value, mask, keep, is_causal, scale in _cases(make):
        made = fused_attention(query.detach(), key.detach(), value.detach(), mask, keep, is_causal, scale)
        g = make(*made.result.shape)
        of = summed_in(query.dtype)
        delta = (g.detach().to(of) * made.result.to(of)).sum(-1).transpose(1, 2).contiguous()
        delta.requires_grad_(make.requires_grad and query.dtype is of)
        yield sample(g, query, key, value, made.logsumexp, delta, mask, keep, is_causal, scale)


fused_attention = operator(
    "fused_attention(Tensor query, Tensor key, Tensor value, Tensor? mask=None, Tensor? keep=None, "
    "bool is_causal=False, float scale=1.0) -> (result, logsumexp)",
    type=_forward_type,
    numpy=_forward,
    derivative={"query": _gradient(0), "key": _gradient(1), "value": _gradient(2)},
    samples=_forward_samples,
    public=False,
    method=False,
    doc="""
    `softmax(scale * query @ key.T + mask) @ value` for each head, and the logarithm of each row's sum, (B, H, L).

    query (B, L, H, E), key (B, S, G, E), value (B, S, G, V), result (B, L, H, V). `mask` and `keep` are (B, H, L, S):
    a bool mask is true where attention is allowed, a float one is added; probabilities are multiplied by `keep`
    (dropout). Rows that see nothing are zero. Causal: position i sees positions up to i.

    Raises RuntimeError for operands that do not fit together.
    """,
)

fused_attention_backward = operator(
    "fused_attention_backward(Tensor grad_result, Tensor query, Tensor key, Tensor value, Tensor logsumexp, "
    "Tensor delta, Tensor? mask=None, Tensor? keep=None, bool is_causal=False, float scale=1.0) "
    "-> (grad_query, grad_key, grad_value)",
    type=_backward_type,
    numpy=_backward,
    derivative={
        "grad_result": _second(0),
        "query": _second(1),
        "key": _second(2),
        "value": _second(3),
        "delta": _second(4),
    },
    samples=_backward_samples,
    public=False,
    method=False,
    doc="""
    The gradients of `fused_attention` in query, key and value. `delta` is the sum of `grad_result * result` along each
    row, (B, H, L), less the gradient of `logsumexp`.
    """,
)
