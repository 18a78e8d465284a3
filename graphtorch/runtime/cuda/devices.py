"""The CUDA devices of this process, and which one is current on a thread."""

from __future__ import annotations

import threading
from typing import Any

from graphtorch.runtime.cuda.driver import CudaUnavailable, Driver, Properties, driver, told
from graphtorch.runtime.cuda.memory import Allocator
from graphtorch.tensor.devices import cuda_device

NOT_COMPILED = "Torch not compiled with CUDA enabled"  # what PyTorch's build for the CPU says


class Device:
    """One device: its memory, its default stream and what it is."""

    def __init__(self, owner: Driver, index: int) -> None:
        self.driver = owner
        self.index = index
        self.place = cuda_device(index)
        owner.make_current(index)
        self.allocator = Allocator(owner, index)
        self.stream = owner.default_stream(index)
        self.key = (owner, index)
        self.copying: list[tuple[Any, Any]] = []  # events, and the page-locked arrays that are read until then
        self._properties: Properties | None = None

    @property
    def properties(self) -> Properties:
        if self._properties is None:
            self._properties = self.driver.properties(self.index)
        return self._properties

    def __repr__(self) -> str:
        return f"<CUDA device {self.index}: {self.properties.name}>"


class _Current(threading.local):
    """The selected device of a thread, and of each device the selected stream, where it is not the default one."""

    def __init__(self) -> None:
        self.index = 0
        self.streams: dict[int, Any] = {}


current = _Current()
_lock = threading.RLock()
_devices: dict[tuple[Driver, int], Device] = {}


def count() -> int:
    """The number of devices; 0 without a driver."""
    try:
        return driver().device_count()
    except CudaUnavailable:
        return 0


def device(index: int | None = None) -> Device:
    """A device, by default the current one, made ready for calls of this thread.

    Raises AssertionError without any device, as PyTorch's build for the CPU does, RuntimeError for a number that there
    is not.
    """
    try:
        owner = driver()
    except CudaUnavailable:
        raise AssertionError(NOT_COMPILED) from None
    if index is None:
        index = current.index
    found = _devices.get((owner, index))
    if found is None:
        with _lock:
            found = _devices.get((owner, index))
            if found is None:
                if not 0 <= index < owner.device_count():
                    raise RuntimeError("CUDA error: invalid device ordinal")
                found = _devices[owner, index] = Device(owner, index)
    if told.key is not found.key:
        owner.make_current(index)
        told.key = found.key
    return found


def initialized() -> bool:
    """Whether some device was used."""
    return bool(_devices)


def select(index: int) -> None:
    """Make a device the current one of this thread. Raises as `device`."""
    device(index)
    current.index = index


def stream_of(where: Device) -> Any:
    """The driver's stream that this thread's work on a device goes to; the driver is told of the device."""
    if told.key is not where.key:
        where.driver.make_current(where.index)
        told.key = where.key
    chosen = current.streams.get(where.index)
    return where.stream if chosen is None else chosen
