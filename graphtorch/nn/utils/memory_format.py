"""The memory order of convolutions' weights."""

from __future__ import annotations

from typing import Any

from graphtorch.nn.modules.conv import Conv2d, Conv3d, ConvTranspose2d, ConvTranspose3d
from graphtorch.nn.modules.module import Module

__all__ = ["convert_conv2d_weight_memory_format", "convert_conv3d_weight_memory_format"]


def _convert(module: Module, memory_format: Any, kinds: tuple[type[Module], ...]) -> Module:
    for own in module.modules():
        if isinstance(own, kinds):
            weight: Any = own.weight
            weight.data = weight.detach().clone().contiguous(memory_format=memory_format)
    return module


def convert_conv2d_weight_memory_format(module: Module, memory_format: Any) -> Module:
    """Bring the weights of all 2d convolutions inside into a memory format. See torch.nn.utils."""
    return _convert(module, memory_format, (Conv2d, ConvTranspose2d))


def convert_conv3d_weight_memory_format(module: Module, memory_format: Any) -> Module:
    """Bring the weights of all 3d convolutions inside into a memory format. See torch.nn.utils."""
    return _convert(module, memory_format, (Conv3d, ConvTranspose3d))
