"""Apple's Metal, `torch.mps`: there is no such device, and what needs one is the error that PyTorch's build without
Metal raises.

See https://docs.pytorch.org/docs/stable/mps.html."""

from __future__ import annotations

from typing import NoReturn

from graphtorch.tensor.tensor import Tensor

__all__ = [
    "current_allocated_memory", "device_count", "driver_allocated_memory", "empty_cache", "get_rng_state",
    "is_available", "manual_seed", "recommended_max_memory", "seed", "set_per_process_memory_fraction",
    "set_rng_state", "synchronize",
]  # fmt: skip


def _refuse(name: str) -> NoReturn:
    raise RuntimeError(f"Cannot execute {name}() without MPS backend.")


def is_available() -> bool:
    """Whether there is a device: no."""
    return False


def device_count() -> int:
    """The number of devices: 0."""
    return 0


def manual_seed(seed: int) -> None:
    """Seed the device's generator: there is none, and nothing happens, as in PyTorch."""


def synchronize() -> None:
    """Wait for the device. Raises RuntimeError."""
    _refuse("deviceSynchronize")


def empty_cache() -> None:
    """Give unused memory back. Raises RuntimeError."""
    _refuse("emptyCache")


def current_allocated_memory() -> int:
    """Bytes of tensors. Raises RuntimeError."""
    _refuse("getCurrentAllocatedMemory")


def driver_allocated_memory() -> int:
    """Bytes that Metal holds. Raises RuntimeError."""
    _refuse("getDriverAllocatedMemory")


def recommended_max_memory() -> int:
    """Bytes that a process should use at most. Raises RuntimeError."""
    _refuse("getRecommendedMaxMemory")


def set_per_process_memory_fraction(fraction: float) -> None:
    """Limit the memory of this process. Raises RuntimeError."""
    _refuse("setMemoryFraction")


def seed() -> None:
    """Seed the device's generator by chance. Raises RuntimeError."""
    _refuse("getDefaultGenerator")


def get_rng_state(device: object = "mps") -> Tensor:
    """The generator's state. Raises RuntimeError."""
    _refuse("getDefaultGenerator")


def set_rng_state(new_state: Tensor, device: object = "mps") -> None:
    """Set the generator's state. Raises RuntimeError."""
    _refuse("getDefaultGenerator")
