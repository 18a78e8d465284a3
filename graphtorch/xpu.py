"""Intel's GPUs, `torch.xpu`: there is no such device, and what needs one is the error that PyTorch's build without
them raises.

See https://docs.pytorch.org/docs/stable/xpu.html."""

from __future__ import annotations

from typing import Any, NoReturn

__all__ = [
    "current_device",
    "current_stream",
    "device_count",
    "empty_cache",
    "get_device_capability",
    "get_device_name",
    "get_device_properties",
    "get_rng_state",
    "init",
    "initial_seed",
    "is_available",
    "is_bf16_supported",
    "is_initialized",
    "manual_seed",
    "manual_seed_all",
    "max_memory_allocated",
    "max_memory_reserved",
    "mem_get_info",
    "memory_allocated",
    "memory_reserved",
    "seed",
    "seed_all",
    "set_device",
    "set_rng_state",
    "synchronize",
]


def _refuse() -> NoReturn:
    raise AssertionError("Torch not compiled with XPU enabled")


def is_available() -> bool:
    """Whether there is a device: no."""
    return False


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """Whether a device computes with bfloat16: there is none."""
    return False


def is_initialized() -> bool:
    """Whether the runtime was started: no."""
    return False


def device_count() -> int:
    """The number of devices: 0."""
    return 0


def max_memory_allocated(device: Any = None) -> int:
    """Bytes of tensors, at most: 0."""
    return 0


def max_memory_reserved(device: Any = None) -> int:
    """Bytes held, at most: 0."""
    return 0


def memory_allocated(device: Any = None) -> int:
    """Bytes of tensors: 0."""
    return 0


def memory_reserved(device: Any = None) -> int:
    """Bytes held: 0."""
    return 0


def empty_cache() -> None:
    """Give unused memory back: none is held."""


def manual_seed(seed: int) -> None:
    """Seed the selected device's generator: nothing happens, as in PyTorch."""


def manual_seed_all(seed: int) -> None:
    """Seed all devices' generators: there are none."""


def seed() -> None:
    """Seed by chance: nothing happens, as in PyTorch."""


def seed_all() -> None:
    """Seed all devices' generators by chance: there are none."""


def current_device() -> Any:
    """The selected device. Raises AssertionError."""
    _refuse()


def current_stream(device: Any = None) -> Any:
    """The selected stream. Raises AssertionError."""
    _refuse()


def get_device_capability(device: Any = None) -> Any:
    """What a device can. Raises AssertionError."""
    _refuse()


def get_device_name(device: Any = None) -> Any:
    """A device's name. Raises AssertionError."""
    _refuse()


def get_device_properties(device: Any = None) -> Any:
    """A device's properties. Raises AssertionError."""
    _refuse()


def get_rng_state(device: Any = "xpu") -> Any:
    """A generator's state. Raises AssertionError."""
    _refuse()


def init() -> Any:
    """Start the runtime. Raises AssertionError."""
    _refuse()


def initial_seed() -> Any:
    """A generator's seed. Raises AssertionError."""
    _refuse()


def mem_get_info(device: Any = None) -> Any:
    """Free and total bytes. Raises AssertionError."""
    _refuse()


def set_device(device: Any) -> Any:
    """Select a device. Raises AssertionError."""
    _refuse()


def set_rng_state(new_state: Any, device: Any = "xpu") -> Any:
    """Set a generator's state. Raises AssertionError."""
    _refuse()


def synchronize(device: Any = None) -> Any:
    """Wait for a device. Raises AssertionError."""
    _refuse()
