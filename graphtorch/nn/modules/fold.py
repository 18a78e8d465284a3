"""Folds under the name of PyTorch's module."""

from __future__ import annotations

from graphtorch.nn.modules.resampling import Fold, Unfold

__all__ = ["Fold", "Unfold"]
