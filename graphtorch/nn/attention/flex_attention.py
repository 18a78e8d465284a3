"""Attention whose scores a Python function changes, and masks that a Python function describes.

The functions see whole arrays of indices, broadcast against each other, in place of one index at a time: what they do
elementwise comes to the same, and a compiled function makes it part of its kernels. See
https://docs.pytorch.org/docs/stable/nn.attention.flex_attention.html
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import graphtorch as torch
from graphtorch import Tensor
from graphtorch.nn.attention.block_mask import BlockMask, MaskMod, create_mask, indices_of, noop_mask

__all__ = [
    "AuxOutput", "AuxRequest", "BlockMask", "and_masks", "create_block_mask", "create_mask", "flex_attention",
    "noop_mask", "or_masks",
]  # fmt: skip

ScoreMod = Callable[[Any, Any, Any, Any, Any], Any]


class AuxRequest(NamedTuple):
    """What `flex_attention` returns beside its result."""

    lse: bool = False
    max_scores: bool = False


class AuxOutput(NamedTuple):
    """The logarithms of the sums, and the largest scores, both (B, Hq, L); None for what was not asked for."""

    lse: Tensor | None = None
    max_scores: Tensor | None = None


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


def create_block_mask(
    mask_mod: MaskMod,
    B: int | None,
    H: int | None,
    Q_LEN: int,
    KV_LEN: int,
    device: Any = None,
    BLOCK_SIZE: Any = 128,
    _compile: bool = False,
    separate_full_blocks: bool = True,
    compute_dq_write_order: bool = False,
    dq_kv_order: bool = True,
) -> BlockMask:
    """A mask for :func:`flex_attention`; B and H may be None where the function does not look at them. Its blocks, of
    `BLOCK_SIZE` queries and keys, are found when they are asked for; the other options are accepted.

    Raises AssertionError for a function that takes something else than four indices."""
    if getattr(getattr(mask_mod, "__code__", None), "co_argcount", 4) == 5:
        raise AssertionError(f"create-block_mask requires a mask_mod function! Got {mask_mod}")
    return BlockMask._described(mask_mod, (B or 1, H or 1), (Q_LEN, KV_LEN), BLOCK_SIZE, device)


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
    *,
    return_aux: AuxRequest | None = None,
) -> Any:
    """softmax(score_mod(Q K^T scale)) V over what the mask keeps; a query without any key gives 0.

    Shapes: query (B, Hq, L, E), key (B, Hkv, S, E), value (B, Hkv, S, Ev); with `enable_gqa` Hq is a multiple of Hkv.
    With `return_lse` the logarithms of the sums, (B, Hq, L), come second; with `return_aux`, an AuxOutput of what it
    asks for.

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
    indices = indices_of(batch, heads, rows, columns, query.device)
    if score_mod is not None:
        scores = score_mod(scores, *indices)
    if block_mask is not None:
        if block_mask.seq_lengths != (rows, columns):
            raise ValueError(
                f"block_mask was created for block_mask.shape={block_mask.shape} but got q_len={rows} and "
                f"kv_len={columns}."
            )
        scores = torch.where(block_mask._element_mask(*indices), scores, -math.inf)
    total = torch.logsumexp(scores, -1, keepdim=True)
    weights = torch.where(total == -math.inf, 0.0, torch.exp(scores - torch.where(total == -math.inf, 0.0, total)))
    result = weights.to(value.dtype) @ value
    if return_aux is not None:
        if return_lse:
            raise ValueError("return_lse and return_aux cannot both be given")
        most = scores.amax(-1) if return_aux.max_scores else None
        return result, AuxOutput(total.squeeze(-1) if return_aux.lse else None, most)
    return (result, total.squeeze(-1)) if return_lse else result
