"""Differentiation of eager code: the tape, custom functions, gradient modes and hooks.

Names load on first use: the tensor class below imports this package's `state`, and the tape imports the tensor class.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphtorch.autograd import forward_ad, functional
    from graphtorch.autograd.checks import gradcheck, gradgradcheck
    from graphtorch.autograd.engine import backward, grad
    from graphtorch.autograd.function import Function
    from graphtorch.autograd.grad_mode import (
        detect_anomaly,
        enable_grad,
        inference_mode,
        no_grad,
        set_detect_anomaly,
        set_grad_enabled,
        set_multithreading_enabled,
    )
    from graphtorch.autograd.variable import Variable

_HOMES = {
    "Variable": "graphtorch.autograd.variable",
    "backward": "graphtorch.autograd.engine",
    "grad": "graphtorch.autograd.engine",
    "Function": "graphtorch.autograd.function",
    "gradcheck": "graphtorch.autograd.checks",
    "gradgradcheck": "graphtorch.autograd.checks",
    "detect_anomaly": "graphtorch.autograd.grad_mode",
    "enable_grad": "graphtorch.autograd.grad_mode",
    "inference_mode": "graphtorch.autograd.grad_mode",
    "no_grad": "graphtorch.autograd.grad_mode",
    "set_detect_anomaly": "graphtorch.autograd.grad_mode",
    "set_grad_enabled": "graphtorch.autograd.grad_mode",
    "set_multithreading_enabled": "graphtorch.autograd.grad_mode",
}

_MODULES = ("anomaly_mode", "forward_ad", "function", "functional", "grad_mode", "graph", "profiler", "variable")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"graphtorch.autograd.{name}")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_MODULES})
