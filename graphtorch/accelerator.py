"""The current accelerator, `torch.accelerator`: CUDA devices where there are any.

Programs choose a device by `torch.accelerator.is_available()`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphtorch.tensor.devices import device as device_class

_ABSENT = "Cannot access accelerator device when none is available."


def _cuda() -> Any:
    from graphtorch import cuda  # loads the runtime, which programs for the CPU need not

    return cuda


def is_available() -> bool:
    """Whether tensors can live on an accelerator."""
    found: bool = _cuda().is_available()
    return found


def device_count() -> int:
    """How many accelerators there are."""
    found: int = _cuda().device_count()
    return found


def current_accelerator(check_available: bool = False) -> device_class | None:
    """The kind of accelerator; None without one."""
    return device_class("cuda") if is_available() else None


def _present() -> Any:
    """`torch.cuda`. Raises RuntimeError without a device, as PyTorch does."""
    if not is_available():
        raise RuntimeError(_ABSENT)
    return _cuda()


def _delegated(name: str, doc: str) -> Callable[..., Any]:
    def call(device: Any = None) -> Any:
        return getattr(_present(), name)(device)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"{doc} Raises RuntimeError without one."
    return call


def current_device_index() -> int:
    """The selected accelerator. Raises RuntimeError without one."""
    found: int = _present().current_device()
    return found


current_device_idx = current_device_index


def set_device_index(device: Any) -> None:
    """Select an accelerator. Raises RuntimeError without one."""
    _present().set_device(device)


set_device_idx = set_device_index


def empty_cache() -> None:
    """Free cached device memory. Raises RuntimeError without an accelerator."""
    _present().empty_cache()


synchronize = _delegated("synchronize", "Wait for the accelerator.")
memory_allocated = _delegated("memory_allocated", "Bytes in use on the accelerator.")
max_memory_allocated = _delegated("max_memory_allocated", "The most bytes that were in use on the accelerator.")
memory_reserved = _delegated("memory_reserved", "Bytes that the allocator has from the driver.")
max_memory_reserved = _delegated("max_memory_reserved", "The most bytes that the allocator had from the driver.")
memory_stats = _delegated("memory_stats", "The allocator's figures.")
reset_peak_memory_stats = _delegated("reset_peak_memory_stats", "Let the highest figures start anew.")
current_stream = _delegated("current_stream", "The stream that this thread's work goes to.")


def set_stream(stream: Any) -> None:
    """Send this thread's work to a stream. Raises RuntimeError without an accelerator."""
    _present().set_stream(stream)
