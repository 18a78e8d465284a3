"""The few names of PyTorch's C++ module that Python programs call.

Everything else of it is no part of a Python interface, and is not here."""

from __future__ import annotations

from typing import Any

from graphtorch.autograd.state import state
from graphtorch.tensor.generator import Generator
from graphtorch.tensor.size import Size
from graphtorch.tensor.tensor import Tensor as TensorBase

__all__ = ["Generator", "Size", "TensorBase"]


def _log_api_usage_once(event: str) -> None:
    """Nothing: no usage is logged."""


def _get_tracing_state() -> Any:
    """None: nothing is traced by TorchScript."""
    return None


def _set_grad_enabled(enabled: bool) -> None:
    """Turn the gradient mode on or off."""
    state.grad_enabled = enabled


def _cuda_getDeviceCount() -> int:
    """How many CUDA devices there are."""
    from graphtorch.cuda import device_count

    return device_count()


def _jit_set_profiling_mode(enabled: bool) -> bool:
    """Nothing: there is no TorchScript executor. Returns what the mode was, False."""
    return False


_jit_set_profiling_executor = _jit_set_profiling_mode
_jit_set_texpr_fuser_enabled = _jit_set_profiling_mode
_jit_set_nvfuser_enabled = _jit_set_profiling_mode
_jit_override_can_fuse_on_cpu = _jit_set_profiling_mode
_jit_override_can_fuse_on_gpu = _jit_set_profiling_mode


def _jit_clear_class_registry() -> None:
    """Nothing: there are no TorchScript classes."""


def __getattr__(name: str) -> Any:
    if name == "_nn":
        from graphtorch.nn import functional

        return functional
    raise AttributeError(
        f"module {__name__!r} has no attribute {name!r}: graphtorch has no C++ module, and only a few names here"
    )
