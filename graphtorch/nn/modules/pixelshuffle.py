"""Pixel shuffles under the name of PyTorch's module."""

from __future__ import annotations

from graphtorch.nn.modules.resampling import PixelShuffle, PixelUnshuffle

__all__ = ["PixelShuffle", "PixelUnshuffle"]
