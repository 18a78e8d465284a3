"""Padding layers: ``padding`` is one amount for all sides, or (before, after) per dimension, the last one first."""

from __future__ import annotations

from typing import Any, ClassVar

from graphtorch.nn import functional as F
from graphtorch.nn.modules._sizes import repeat
from graphtorch.nn.modules.module import Module
from graphtorch.tensor.tensor import Tensor

__all__ = [
    "CircularPad1d", "CircularPad2d", "CircularPad3d", "ConstantPad1d", "ConstantPad2d", "ConstantPad3d",
    "ReflectionPad1d", "ReflectionPad2d", "ReflectionPad3d", "ReplicationPad1d", "ReplicationPad2d", "ReplicationPad3d",
    "ZeroPad1d", "ZeroPad2d", "ZeroPad3d",
]  # fmt: skip


class _Pad(Module):
    """Pads the last ``spatial_dims`` dimensions in the way ``mode`` says."""

    spatial_dims: ClassVar[int]
    mode: ClassVar[str]

    def __init__(self, padding: Any) -> None:
        super().__init__()
        self.padding = repeat(padding, 2 * self.spatial_dims)

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, self.mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPad(_Pad):
    """Pads with ``value``."""

    def __init__(self, padding: Any, value: float) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPad):
    """Pads the last dimension with ``value``."""

    spatial_dims = 1


class ConstantPad2d(_ConstantPad):
    """Pads the last two dimensions with ``value``."""

    spatial_dims = 2


class ConstantPad3d(_ConstantPad):
    """Pads the last three dimensions with ``value``."""

    spatial_dims = 3


class _ZeroPad(_ConstantPad):
    def __init__(self, padding: Any) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class ZeroPad1d(_ZeroPad):
    """Pads the last dimension with zeros."""

    spatial_dims = 1


class ZeroPad2d(_ZeroPad):
    """Pads the last two dimensions with zeros."""

    spatial_dims = 2


class ZeroPad3d(_ZeroPad):
    """Pads the last three dimensions with zeros."""

    spatial_dims = 3


class ReflectionPad1d(_Pad):
    """Mirrors the last dimension at its ends, without repeating them."""

    spatial_dims, mode = 1, "reflect"


class ReflectionPad2d(_Pad):
    """Mirrors the last two dimensions at their ends, without repeating them."""

    spatial_dims, mode = 2, "reflect"


class ReflectionPad3d(_Pad):
    """Mirrors the last three dimensions at their ends, without repeating them."""

    spatial_dims, mode = 3, "reflect"


class ReplicationPad1d(_Pad):
    """Repeats the ends of the last dimension."""

    spatial_dims, mode = 1, "replicate"


class ReplicationPad2d(_Pad):
    """Repeats the ends of the last two dimensions."""

    spatial_dims, mode = 2, "replicate"


class ReplicationPad3d(_Pad):
    """Repeats the ends of the last three dimensions."""

    spatial_dims, mode = 3, "replicate"


class _CircularPad(_Pad):
    mode = "circular"

    def forward(self, input: Tensor) -> Tensor:
        n = self.spatial_dims
        if input.dim() not in (n + 1, n + 2):
            raise ValueError(f"expected {n + 1}D or {n + 2}D input (got {input.dim()}D input)")
        return super().forward(input)


class CircularPad1d(_CircularPad):
    """Continues the last dimension from its other end."""

    spatial_dims = 1


class CircularPad2d(_CircularPad):
    """Continues the last two dimensions from their other ends."""

    spatial_dims = 2


class CircularPad3d(_CircularPad):
    """Continues the last three dimensions from their other ends."""

    spatial_dims = 3
