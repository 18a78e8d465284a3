"""Attention whose scores a Python function changes, and masks that a Python function describes.

The functions see whole arrays of indices, broadcast against each other, in place of one index at a time: what they do
elementwise comes to the same, and a compiled function makes it part of its kernels. See
https://docs.pytorch.org/docs/stable/nn.attention.flex_attention.html
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import graphtorch as torch
from graphtorch import Tensor

__all__ = ["BlockMask", "and_masks", "create_block_mask", "create_mask", "flex_attention", "noop_mask", "or_masks"]

MaskMod = Callable[[Any, Any, Any, Any], Any]
ScoreMod = Callable[[Any, Any, Any, Any, Any], Any]


def noop_mask(batch: Any, head: Any, token_q: Any, token_kv: Any) -> Any:
    """A mask that keeps everything."""
    return torch.ones_like(batch + head + token_q + token_kv, dtype=torch.bool)


def and_masks(*mask_mods: MaskMod) -> MaskMod:
    """The mask that keeps what all of these keep. Raises RuntimeError for what is no function."""
    _check(mask_mods)

    def both(b: Any, h: Any, q: Any, k: Any) -> Any:
        found = noop_mask(b, h, q, k)
        for mod in mask_mods:
            found = found & mod(b, h, q, k)
        return found

    return both


def or_masks(*mask_mods: MaskMod) -> MaskMod:
    """The mask that keeps what one of these keeps. Raises RuntimeError for what is no function."""
    _check(mask_mods)

    def either(b: Any, h: Any, q: Any, k: Any) -> Any:
        found = ~noop_mask(b, h, q, k)
        for mod in mask_mods:
            found = found | mod(b, h, q, k)
        return found

    return either


def _check(mask_mods: tuple[Any, ...]) -> None:
    if not all(callable(mod) for mod in mask_mods):
        raise RuntimeError(f"All inputs should be callable mask_mods: {mask_mods}")


def _indices(batch: int, heads: int, rows: int, columns: int) -> tuple[Any, ...]:
    """The indices of batch, head, query and key, each along its own of four dimensions."""
    sizes = (batch, heads, rows, columns)
    return tuple(
        torch.arange(size).reshape([size if d == place else 1 for d in range(4)]) for place, size in enumerate(sizes)
    )


def create_mask(
    mod_fn: Callable[..., Any], B: int | None, H: int | None, Q_LEN: int, KV_LEN: int, device: Any = None
) -> Tensor:
    """The mask of a function, bool (B, H, Q_LEN, KV_LEN), or the changes that a score function makes to zeros."""
    b, h, q, k = _indices(B or 1, H or 1, Q_LEN, KV_LEN)
    shape = (B or 1, H or 1, Q_LEN, KV_LEN)
    if mod_fn.__code__.co_argcount == 5:
        return mod_fn(torch.zeros(shape), b, h, q, k).expand(shape)
    return torch.as_tensor(mod_fn(b, h, q, k)).expand(shape)


class BlockMask:
    """A mask described by a function, for a number of queries and keys."""

    def __init__(self, mask_mod: MaskMod, batch: int | None, heads: int | None, rows: int, columns: int) -> None:
        self.mask_mod = mask_mod
        self.seq_lengths = (rows, columns)
        self._shape = (batch or 1, heads or 1, rows, columns)

    @property
    def shape(self) -> tuple[int, ...]:
        """(batch, heads, queries, keys)."""
        return self._shape

    def to_dense(self) -> Tensor:
        """The mask as 0 and 1, here with blocks of a single element."""
        return create_mask(self.mask_mod, *self._shape).int()

    def sparsity(self) -> float:
        """How many percent of the elements are masked."""
        dense = self.to_dense()
        return 100 * (1 - dense.sum().item() / dense.numel())

    def __repr__(self) -> str:
        return f"BlockMask(shape={self._shape})"


def create_block_mask(
    mask_mod: MaskMod,
    B: int | None,
    H: int | None,
    Q_LEN: int,
    KV_LEN: int,
    device: Any = None,
    BLOCK_SIZE: Any = 128,
    _compile: bool = False,
) -> BlockMask:
    """A mask for :func:`flex_attention`; B and H may be None where the function does not look at them."""
    return BlockMask(mask_mod, B, H, Q_LEN, KV_LEN)


def flex_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    score_mod: ScoreMod | None = None,
    block_mask: BlockMask | None = None,
    scale: float | None = None,
    enable_gqa: bool = False,
    return_lse: bool = False,
    kernel_options: Any = None,
) -> Any:
    """softmax(score_mod(Q K^T scale)) V over what the mask keeps; a query without any key gives 0.

    Shapes: query (B, Hq, L, E), key (B, Hkv, S, E), value (B, Hkv, S, Ev); with `enable_gqa` Hq is a multiple of Hkv.
    With `return_lse` the logarithms of the sums, (B, Hq, L), come second.

    Raises:
        ValueError: the head counts or the mask's lengths do not fit.
    """
    batch, heads, rows, width = query.shape
    if key.shape[1] != heads:
        if not enable_gqa or heads % key.shape[1]:
            raise ValueError(
                f"Expect query and key/value to have the same number of heads but got Hq={heads} and "
                f"Hkv={key.shape[1]}. Try setting enable_gqa=True for GQA."
            )
        times = heads // key.shape[1]
        key, value = key.repeat_interleave(times, 1), value.repeat_interleave(times, 1)
    columns = key.shape[-2]
    scores = (query @ key.mT) * (1 / math.sqrt(width) if scale is None else scale)
    indices = _indices(batch, heads, rows, columns)
    if score_mod is not None:
        scores = score_mod(scores, *indices)
    if block_mask is not None:
        if block_mask.seq_lengths != (rows, columns):
            raise ValueError(
                f"block_mask was created for block_mask.shape={block_mask.shape} but got q_len={rows} and "
                f"kv_len={columns}."
            )
        scores = torch.where(block_mask.mask_mod(*indices), scores, -math.inf)
    total = torch.logsumexp(scores, -1, keepdim=True)
    weights = torch.where(total == -math.inf, 0.0, torch.exp(scores - torch.where(total == -math.inf, 0.0, total)))
    result = weights.to(value.dtype) @ value
    return (result, total.squeeze(-1)) if return_lse else result
