"""PyTorch's older names of the profiler, `torch.autograd.profiler`."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    import importlib

    return getattr(importlib.import_module("graphtorch.profiler"), name)
