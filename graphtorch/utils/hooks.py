"""Handles of registered hooks. See https://docs.pytorch.org/docs/stable/generated/torch.utils.hooks.RemovableHandle.html"""

from __future__ import annotations

from graphtorch.autograd.hooks import RemovableHandle

__all__ = ["RemovableHandle"]
