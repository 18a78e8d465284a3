"""Collating under the name of PyTorch's module."""

from __future__ import annotations

from graphtorch.utils.data.collate import collate, default_collate, default_convert

__all__ = ["collate", "default_collate", "default_convert"]
