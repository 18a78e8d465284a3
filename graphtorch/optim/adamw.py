"""AdamW under the name of PyTorch's module."""

from __future__ import annotations

from graphtorch.optim.adam import AdamW

__all__ = ["AdamW"]
