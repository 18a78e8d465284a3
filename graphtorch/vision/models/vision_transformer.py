"""The Vision Transformer. Source: Dosovitskiy et al., An Image is Worth 16x16 Words, 2020
(https://arxiv.org/abs/2010.11929)."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import graphtorch as torch
from graphtorch import Tensor, nn
from graphtorch.vision.models._weights import refuse_weights
from graphtorch.vision.ops import MLP

Norm = Callable[[int], nn.Module]
_layer_norm: Norm = partial(nn.LayerNorm, eps=1e-6)


class MLPBlock(MLP):
    """The two linear layers of an encoder block."""

    _version = 2

    def __init__(self, in_dim: int, mlp_dim: int, dropout: float) -> None:
        super().__init__(in_dim, [mlp_dim, in_dim], activation_layer=nn.GELU, inplace=None, dropout=dropout)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.normal_(module.bias, std=1e-6)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, local_metadata: Any, *rest: Any) -> None:
        """Files from before version 2 call the layers linear_1 and linear_2."""
        if (local_metadata.get("version") or 1) < 2:
            for layer in range(2):
                for kind in ("weight", "bias"):
                    old = f"{prefix}linear_{layer + 1}.{kind}"
                    if old in state_dict:
                        state_dict[f"{prefix}{3 * layer}.{kind}"] = state_dict.pop(old)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)


class EncoderBlock(nn.Module):
    """Attention and linear layers, each on a normalized input and added to it."""

    def __init__(
        self,
        num_heads: int,
        hidden_dim: int,
        mlp_dim: int,
        dropout: float,
        attention_dropout: float,
        norm_layer: Norm = _layer_norm,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.ln_1 = norm_layer(hidden_dim)
        self.self_attention = nn.MultiheadAttention(hidden_dim, num_heads, dropout=attention_dropout, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.ln_2 = norm_layer(hidden_dim)
        self.mlp = MLPBlock(hidden_dim, mlp_dim, dropout)

    def forward(self, input: Tensor) -> Tensor:
        """(N, S, hidden_dim) to the same shape."""
        if input.dim() != 3:
            raise AssertionError(f"Expected (batch_size, seq_length, hidden_dim) got {input.shape}")
        x = self.ln_1(input)
        x, _ = self.self_attention(x, x, x, need_weights=False)
        x = self.dropout(x) + input
        return x + self.mlp(self.ln_2(x))


class Encoder(nn.Module):
    """Positions added, then the blocks and a last norm."""

    def __init__(
        self,
        seq_length: int,
        num_layers: int,
        num_heads: int,
        hidden_dim: int,
        mlp_dim: int,
        dropout: float,
        attention_dropout: float,
        norm_layer: Norm = _layer_norm,
    ) -> None:
        super().__init__()
        self.pos_embedding = nn.Parameter(torch.empty(1, seq_length, hidden_dim).normal_(std=0.02))
        self.dropout = nn.Dropout(dropout)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i in range(num_layers):
            layers[f"encoder_layer_{i}"] = EncoderBlock(
                num_heads, hidden_dim, mlp_dim, dropout, attention_dropout, norm_layer
            )
        self.layers = nn.Sequential(layers)
        self.ln = norm_layer(hidden_dim)

    def forward(self, input: Tensor) -> Tensor:
        """(N, S, hidden_dim) to the same shape."""
        if input.dim() != 3:
            raise AssertionError(f"Expected (batch_size, seq_length, hidden_dim) got {input.shape}")
        return self.ln(self.layers(self.dropout(input + self.pos_embedding)))


class VisionTransformer(nn.Module):
    """(N, 3, image_size, image_size) to scores (N, num_classes).

    Patches are projected to vectors, a class token joins them, and the head reads what became of the token.
    """

    def __init__(
        self,
        image_size: int,
        patch_size: int,
        num_layers: int,
        num_heads: int,
        hidden_dim: int,
        mlp_dim: int,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        num_classes: int = 1000,
        representation_size: int | None = None,
        norm_layer: Norm = _layer_norm,
    ) -> None:
        super().__init__()
        if image_size % patch_size:
            raise AssertionError("Input shape indivisible by patch size!")
        self.image_size = image_size
        self.patch_size = patch_size
        self.hidden_dim = hidden_dim
        self.mlp_dim = mlp_dim
        self.attention_dropout = attention_dropout
        self.dropout = dropout
        self.num_classes = num_classes
        self.representation_size = representation_size
        self.norm_layer = norm_layer
        self.conv_proj = nn.Conv2d(3, hidden_dim, kernel_size=patch_size, stride=patch_size)
        self.seq_length = (image_size // patch_size) ** 2 + 1
        self.class_token = nn.Parameter(torch.zeros(1, 1, hidden_dim))
        self.encoder = Encoder(
            self.seq_length, num_layers, num_heads, hidden_dim, mlp_dim, dropout, attention_dropout, norm_layer
        )
        head: OrderedDict[str, nn.Module] = OrderedDict()
        if representation_size is not None:
            head["pre_logits"] = nn.Linear(hidden_dim, representation_size)
            head["act"] = nn.Tanh()
        head["head"] = nn.Linear(representation_size or hidden_dim, num_classes)
        self.heads = nn.Sequential(head)

        self._truncated_normal(self.conv_proj, 3 * patch_size * patch_size)
        if representation_size is not None:
            self._truncated_normal(head["pre_logits"], hidden_dim)
        nn.init.zeros_(head["head"].weight)
        nn.init.zeros_(head["head"].bias)

    @staticmethod
    def _truncated_normal(layer: nn.Module, fan_in: int) -> None:
        nn.init.trunc_normal_(layer.weight, std=math.sqrt(1 / fan_in))
        nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """The scores."""
        _, _, height, width = x.shape
        for name, size in (("height", height), ("width", width)):
            if size != self.image_size:
                raise AssertionError(f"Wrong image {name}! Expected {self.image_size} but got {size}!")
        x = self.conv_proj(x).flatten(2).permute(0, 2, 1)
        x = torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], dim=1)
        return self.heads(self.encoder(x)[:, 0])


def _vit(patch_size: int, layers: int, heads: int, hidden: int, weights: object, options: dict[str, Any]) -> Any:
    refuse_weights(weights)
    shape = {"image_size": 224, "patch_size": patch_size, "num_layers": layers, "num_heads": heads}
    return VisionTransformer(**{**shape, "hidden_dim": hidden, "mlp_dim": 4 * hidden, **options})


def vit_b_16(*, weights: object = None, progress: bool = True, **kwargs: Any) -> VisionTransformer:
    """ViT-Base, patches of 16 x 16."""
    return _vit(16, 12, 12, 768, weights, kwargs)


def vit_b_32(*, weights: object = None, progress: bool = True, **kwargs: Any) -> VisionTransformer:
    """ViT-Base, patches of 32 x 32."""
    return _vit(32, 12, 12, 768, weights, kwargs)


def vit_l_16(*, weights: object = None, progress: bool = True, **kwargs: Any) -> VisionTransformer:
    """ViT-Large, patches of 16 x 16."""
    return _vit(16, 24, 16, 1024, weights, kwargs)


def vit_l_32(*, weights: object = None, progress: bool = True, **kwargs: Any) -> VisionTransformer:
    """ViT-Large, patches of 32 x 32."""
    return _vit(32, 24, 16, 1024, weights, kwargs)


def vit_h_14(*, weights: object = None, progress: bool = True, **kwargs: Any) -> VisionTransformer:
    """ViT-Huge, patches of 14 x 14."""
    return _vit(14, 32, 16, 1280, weights, kwargs)
