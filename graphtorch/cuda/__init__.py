"""The part of torch.cuda that device-agnostic programs ask before they choose a device.

Eager execution is on the CPU; there is no eager CUDA device to select.
"""

from __future__ import annotations

_ABSENT = "graphtorch has no eager CUDA device"


def is_available() -> bool:
    """Whether tensors can live on a CUDA device."""
    return False


def device_count() -> int:
    """The number of CUDA devices that tensors can live on."""
    return 0


def is_initialized() -> bool:
    """Whether a CUDA context was made."""
    return False


def manual_seed(seed: int) -> None:
    """Seed the current device's generator; nothing to do without a device, as in PyTorch."""


def manual_seed_all(seed: int) -> None:
    """Seed every device's generator; nothing to do without a device, as in PyTorch."""


def empty_cache() -> None:
    """Release cached device memory; nothing to do without a device, as in PyTorch."""


def synchronize(device: object = None) -> None:
    """Wait for a device. Raises AssertionError without one, as PyTorch does."""
    raise AssertionError(_ABSENT)


def current_device() -> int:
    """The index of the selected device. Raises AssertionError without one, as PyTorch does."""
    raise AssertionError(_ABSENT)
