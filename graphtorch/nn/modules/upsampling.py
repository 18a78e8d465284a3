"""Upsampling under the name of PyTorch's module."""

from __future__ import annotations

from graphtorch.nn.modules.resampling import Upsample, UpsamplingBilinear2d, UpsamplingNearest2d

__all__ = ["Upsample", "UpsamplingBilinear2d", "UpsamplingNearest2d"]
