"""DLPack capsules. See https://docs.pytorch.org/docs/stable/dlpack.html."""

from __future__ import annotations

from typing import Any

from graphtorch.ops.interop import DLDeviceType, from_dlpack

__all__ = ["DLDeviceType", "from_dlpack", "to_dlpack"]


def to_dlpack(tensor: Any) -> Any:
    """A capsule over the tensor's memory, which can be read once. See torch.utils.dlpack.to_dlpack."""
    return tensor.__dlpack__()
