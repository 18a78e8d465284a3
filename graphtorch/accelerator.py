"""The current accelerator, `torch.accelerator`: there is none for eager tensors here.

Programs choose a device by `torch.accelerator.is_available()`."""

from __future__ import annotations

from typing import Any

from graphtorch.tensor.devices import device

_ABSENT = "Cannot access accelerator device when none is available."


def is_available() -> bool:
    """Whether tensors can live on an accelerator."""
    return False


def device_count() -> int:
    """How many accelerators there are."""
    return 0


def current_accelerator(check_available: bool = False) -> device | None:
    """The kind of accelerator; None without one."""
    return None


def current_device_index() -> int:
    """The selected accelerator. Raises RuntimeError without one, as PyTorch does."""
    raise RuntimeError(_ABSENT)


current_device_idx = current_device_index


def set_device_index(device: Any) -> None:
    """Select an accelerator. Raises RuntimeError without one."""
    raise RuntimeError(_ABSENT)


set_device_idx = set_device_index


def synchronize(device: Any = None) -> None:
    """Wait for the accelerator. Raises RuntimeError without one."""
    raise RuntimeError(_ABSENT)


def empty_cache() -> None:
    """Free cached device memory. Raises RuntimeError without an accelerator."""
    raise RuntimeError(_ABSENT)


def memory_allocated(device: Any = None) -> int:
    """Bytes in use on the accelerator. Raises RuntimeError without one."""
    raise RuntimeError(_ABSENT)


def max_memory_allocated(device: Any = None) -> int:
    """The most bytes that were in use on the accelerator. Raises RuntimeError without one."""
    raise RuntimeError(_ABSENT)
