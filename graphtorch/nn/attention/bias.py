"""Causal masks that `scaled_dot_product_attention` takes without their elements: `causal_upper_left`,
`causal_lower_right`.

See https://docs.pytorch.org/docs/stable/nn.attention.bias.html."""

from __future__ import annotations

import warnings
from enum import IntEnum, auto
from typing import Any

import graphtorch as torch
from graphtorch import Tensor

__all__ = ["CausalBias", "CausalVariant", "causal_lower_right", "causal_upper_left"]


class CausalVariant(IntEnum):
    """In which corner a causal mask of unequal lengths has its diagonal."""

    UPPER_LEFT = auto()
    LOWER_RIGHT = auto()


class CausalBias:
    """A causal mask of (seq_len_q, seq_len_kv), given as `attn_mask`. Raises AssertionError for another variant; warns
    where queries see nothing."""

    def __init__(self, variant: CausalVariant, seq_len_q: int, seq_len_kv: int) -> None:
        if not isinstance(variant, CausalVariant):
            raise AssertionError(f"variant must be a CausalVariant, got {type(variant).__name__}")
        self.variant = variant
        self.seq_len_q = seq_len_q
        self.seq_len_kv = seq_len_kv
        if seq_len_q > seq_len_kv and variant == CausalVariant.LOWER_RIGHT:
            warnings.warn(
                "Lower right causal bias will produce NaNs in the output when seq_len_q > seq_len_kv!", stacklevel=2
            )

    def _materialize(self, device: Any = None) -> Tensor:
        """The mask as a tensor, true where attention is allowed."""
        offset = self.seq_len_kv - self.seq_len_q if self.variant == CausalVariant.LOWER_RIGHT else 0
        mask: Tensor = torch.ones(self.seq_len_q, self.seq_len_kv, device=device, dtype=torch.bool).tril(offset)
        return mask

    @staticmethod
    def _dispatch(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: CausalBias,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """Attention under such a mask. Raises ValueError beside `is_causal`."""
        if is_causal:
            raise ValueError("CausalBias should not be used with causal=True")
        corner = attn_mask.seq_len_q == attn_mask.seq_len_kv or attn_mask.variant == CausalVariant.UPPER_LEFT
        mask = None if corner else attn_mask._materialize(query.device)
        attend = torch.nn.functional.scaled_dot_product_attention
        result: Tensor = attend(query, key, value, mask, dropout_p, corner, scale, enable_gqa)
        return result

    def __repr__(self) -> str:
        return repr(self._materialize())


def causal_upper_left(*size: int) -> CausalBias:
    """The mask of `is_causal=True`: query i sees keys up to i. Raises AssertionError for other than two sizes."""
    if len(size) != 2:
        raise AssertionError("causal_upper_left only supports 2D tensors")
    return CausalBias(CausalVariant.UPPER_LEFT, *size)


def causal_lower_right(*size: int) -> CausalBias:
    """The mask of a cache of keys: the last query sees every key, each one before it one less. Raises AssertionError
    for other than two sizes."""
    if len(size) != 2:
        raise AssertionError("causal_lower_right only supports 2D tensors")
    return CausalBias(CausalVariant.LOWER_RIGHT, *size)
