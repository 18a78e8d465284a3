"""Bytes from the host to a device and back, and from one device to another."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphtorch.runtime.cuda import devices, graphs
from graphtorch.runtime.cuda.memory import Allocation
from graphtorch.tensor.devices import device as device_class
from graphtorch.tensor.remote import DeviceArray, device_array

Array = np.ndarray[Any, Any]
_STAGED = 1 << 16  # bytes from which a copy to the host takes the way over page-locked memory
_STAGE = 8 << 20


def allocate(where: devices.Device, nbytes: int) -> Allocation:
    """Memory for use on the current stream."""
    return where.allocator.allocate(nbytes, devices.stream_of(where))


def empty(shape: Sequence[int], of: np.dtype[Any], place: device_class) -> DeviceArray:
    """A row-major array of no particular values."""
    where = devices.device(place.index)
    nbytes = of.itemsize
    for n in shape:
        nbytes *= n
    return device_array(allocate(where, nbytes), shape, of)


def extent(array: Array) -> tuple[int, int]:
    """The first byte's distance from the first element, and how many bytes the elements span."""
    if not array.size:
        return 0, 0
    low = high = 0
    for n, stride in zip(array.shape, array.strides, strict=True):
        if stride < 0:
            low += (n - 1) * stride
        else:
            high += (n - 1) * stride
    return low, high - low + array.itemsize


def dense(array: Array) -> bool:
    """Whether the elements fill what they span."""
    return extent(array)[1] == array.nbytes


def to_device(array: Array, place: device_class, non_blocking: bool = False) -> DeviceArray:
    """A copy of a host's array, with its strides if it has no gaps.

    `non_blocking` leaves page-locked memory to be read later; other memory is read at once.
    """
    where = devices.device(place.index)
    if not (dense(array) and all(s > 0 for s in array.strides)):
        array = np.array(array, order="C")
    memory = allocate(where, array.nbytes)
    if array.nbytes:
        stream = devices.stream_of(where)
        capture = graphs.of_stream(stream) if graphs.underway else None
        if capture is not None and not is_pinned(array):
            graphs.refuse_copy(stream)
        address = array.__array_interface__["data"][0]
        where.driver.copy_in(memory.address, address, array.nbytes, stream)
        if is_pinned(array):
            if capture is not None and non_blocking:
                capture.held.append(array)
            elif non_blocking:
                _keep_until_read(where, array, stream)
            else:
                graphs.refuse(stream)
                where.driver.wait_stream(stream)
    return device_array(memory, array.shape, array.dtype, 0, array.strides)


def _keep_until_read(where: devices.Device, array: Array, stream: Any) -> None:
    """Hold page-locked memory that a copy reads later, whatever becomes of the tensor."""
    driver = where.driver
    where.copying = [(event, held) for event, held in where.copying if not driver.event_done(event)]
    event = driver.create_event(where.index, False, False)
    driver.record_event(event, stream)
    where.copying.append((event, array))


def to_host(array: DeviceArray, out: Array | None = None, non_blocking: bool = False) -> Array:
    """A copy in the host's memory, with the same strides if there are no gaps; waits for it, unless `non_blocking` and
    `out` is page-locked memory of the same strides."""
    low, span = extent(array)
    if span > 2 * array.nbytes:  # mostly gaps: pack it over there
        array = array.copy()
        low, span = extent(array)
    where = devices.device(array.place.index)
    made = np.empty(max(span, 1), np.uint8) if out is None else out
    if span:
        stream = devices.stream_of(where)
        source, target = array.address + low, made.__array_interface__["data"][0]
        if out is not None and non_blocking:
            where.driver.copy_out(target, source, span, stream)
        else:
            graphs.refuse(stream)
            _read(where, target, source, span, stream)
    if out is not None:
        return out
    return np.ndarray(array.shape, array.dtype, made.data, -low, array.strides)


class _Stage(threading.local):
    """Page-locked memory of a thread, through which large copies to the host run at the bus's full rate."""

    def __init__(self) -> None:
        self.address = 0
        self.driver: Any = None

    def get(self, driver: Any) -> int:
        if self.driver is not driver:
            self.address, self.driver = driver.allocate_host(_STAGE), driver
        return self.address


_stage = _Stage()


def _read(where: devices.Device, target: int, source: int, size: int, stream: Any) -> None:
    """Device to pageable memory, done when this returns."""
    driver = where.driver
    if size < _STAGED:
        driver.copy_out(target, source, size, stream)
        driver.wait_stream(stream)
        return
    stage = _stage.get(driver)
    half = _STAGE // 2
    # Two halves take turns: one is filled by the device while the host empties the other.
    pieces = [(start, min(half, size - start)) for start in range(0, size, half)]
    events = [driver.create_event(where.index, False, False) for _ in range(2)]
    for i in range(len(pieces) + 1):
        if i < len(pieces):
            start, length = pieces[i]
            driver.copy_out(stage + half * (i % 2), source + start, length, stream)
            driver.record_event(events[i % 2], stream)
        if i:
            start, length = pieces[i - 1]
            driver.wait_event(events[(i - 1) % 2])
            ctypes.memmove(target + start, stage + half * ((i - 1) % 2), length)


def to_other(array: DeviceArray, place: device_class) -> DeviceArray:
    """A copy on another device, after what the current streams of both were sent."""
    if not dense(array) or any(s < 0 for s in array.strides):
        array = array.copy()
    source, target = devices.device(array.place.index), devices.device(place.index)
    memory = allocate(target, array.nbytes)
    if array.nbytes:
        here, there = devices.stream_of(source), devices.stream_of(target)
        driver = source.driver
        ready = driver.create_event(target.index, False, False)
        driver.record_event(ready, there)  # the new memory may still be in use by what comes before on its stream
        driver.stream_wait_event(here, ready)
        driver.copy(memory.address, array.address, array.nbytes, here)
        done = driver.create_event(source.index, False, False)
        driver.record_event(done, here)
        driver.stream_wait_event(there, done)
    return device_array(memory, array.shape, array.dtype, 0, array.strides)


def copy_bytes(target: DeviceArray, source: DeviceArray) -> None:
    """Overwrite an array by another without gaps, of the same strides, on the same device."""
    if target.nbytes:
        where = devices.device(target.place.index)
        where.driver.copy(target.address, source.address, target.nbytes, devices.stream_of(where))


def copy_of(array: DeviceArray, order: Any = "C") -> DeviceArray:
    """A copy on the same device, row by row, or in the same order of dimensions for order "K"."""
    if array.flags.c_contiguous or (order == "K" and dense(array) and all(s > 0 for s in array.strides)):
        where = devices.device(array.place.index)
        made = device_array(allocate(where, array.nbytes), array.shape, array.dtype, 0, array.strides)
        copy_bytes(made, array)
        return made
    from graphtorch.lowering.triton.strided import strided_copy

    if order == "K":
        dims = sorted(range(array.ndim), key=lambda d: -abs(array.strides[d]))
        shape = [array.shape[d] for d in dims]
        made = empty(shape, array.dtype, array.place).transpose(np.argsort(dims))
    else:
        made = empty(array.shape, array.dtype, array.place)
    strided_copy(made, array)
    return made


def with_strides(array: DeviceArray, strides: Sequence[int]) -> DeviceArray:
    """A copy on the same device under the given strides, in bytes."""
    from graphtorch.lowering.triton.strided import strided_copy

    where = devices.device(array.place.index)
    nbytes = array.itemsize + sum((n - 1) * s for n, s in zip(array.shape, strides, strict=True)) if array.size else 0
    made = device_array(allocate(where, nbytes), array.shape, array.dtype, 0, strides)
    strided_copy(made, array)
    return made


# -- page-locked memory -----------------------------------------------------------------------------------------------


class _Pinned:
    """A block of page-locked memory, as what NumPy makes an array of and keeps."""

    def __init__(self, driver: Any, size: int) -> None:
        self.driver = driver
        self.address = driver.allocate_host(max(size, 1))
        self.__array_interface__ = {"version": 3, "shape": (size,), "typestr": "|u1", "data": (self.address, False)}

    def __del__(self, ending: Callable[[], bool] = sys.is_finalizing) -> None:
        if not ending():  # then the driver may be gone
            self.driver.free_host(self.address)


def pinned(shape: Sequence[int], of: np.dtype[Any]) -> Array:
    """A host's array in page-locked memory."""
    nbytes = of.itemsize
    for n in shape:
        nbytes *= n
    block: Array = np.asarray(_Pinned(devices.device().driver, nbytes))
    return block.view(of).reshape(shape) if nbytes else block[:0].view(of).reshape(shape)


def is_pinned(array: Array) -> bool:
    """Whether a host's array lies in page-locked memory that `pinned` gave."""
    owner: Any = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return type(owner) is _Pinned
