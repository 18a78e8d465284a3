"""What can go wrong when a schedule is lowered to Triton."""

from __future__ import annotations


class UnsupportedError(NotImplementedError):
    """There is no Triton code for a kernel or a call; the message says why."""


class ResourceError(RuntimeError):
    """A compiled kernel needs more of something than the target has."""


class LostDeviceError(RuntimeError):
    """A device does nothing more for this process: a kernel hangs, or did what the driver does not forgive."""
