"""The CPU as a device module, `torch.cpu`: one device that does everything at once."""

from graphtorch.cpu import amp


def is_available() -> bool:
    """Whether there is a CPU: there is."""
    return True


def device_count() -> int:
    """How many CPUs count as devices: one."""
    return 1


def current_device() -> str:
    """The name of the device."""
    return "cpu"


def synchronize(device: object = None) -> None:
    """Wait for the device: operators are done when they return."""


__all__ = ["amp", "current_device", "device_count", "is_available", "synchronize"]
