"""`DeviceArray`: an ndarray whose memory is on an accelerator, the payload of tensors that live there.

It has an ndarray's shape, strides and address, so that views, strides, overlaps and storage offsets are computed as
they are for arrays of the host. Its elements are out of the host's reach: whatever would read them raises TypeError,
and copies go over the device. What devices there are and how bytes move is the business of `graphtorch.runtime`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn, Protocol

import numpy as np

from graphtorch.tensor.devices import device as device_class

Array = np.ndarray[Any, Any]


class DeviceArray(np.ndarray[Any, Any]):
    """Elements in the memory of a device. Views keep the memory, and know the device."""

    place: device_class = None  # type: ignore[assignment]
    memory: Memory = None  # type: ignore[assignment]

    def __array_finalize__(self, source: Any) -> None:
        if type(source) is DeviceArray:
            self.place, self.memory = source.place, source.memory

    def __getitem__(self, key: Any) -> Any:
        """A view: an element too is an array of no dimension, which nobody has read yet."""
        parts = key if type(key) is tuple else (key,)
        if any(isinstance(p, np.ndarray | list) for p in parts):
            self._refuse()
        return super().__getitem__(parts if any(p is ... for p in parts) else (*parts, ...))

    @property
    def address(self) -> int:
        """Of the first element."""
        return int(self.__array_interface__["data"][0])

    # -- what goes over the device -----------------------------------------------------------------------------------

    def copy(self, order: Any = "C") -> DeviceArray:
        """A copy on the same device, in the order of the host's arrays."""
        return runtime().copy_of(self, order)  # type: ignore[no-any-return]

    def host(self) -> Array:
        """A copy in the host's memory, with the same strides; waits for the device."""
        return runtime().to_host(self)  # type: ignore[no-any-return]

    def item(self, *index: Any) -> Any:
        return self.host().item(*index)

    def tolist(self) -> Any:
        return self.host().tolist()

    # -- what would read memory that the host can't reach ------------------------------------------------------------

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(f"the memory of an array on {self.place} can't be read by the host; copy it with .cpu() first")

    __array_ufunc__ = _refuse

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if function in (np.may_share_memory, np.shares_memory):  # which look at addresses only
            return function(*map(plain, args), **kwargs)
        self._refuse()

    __bool__ = __int__ = __float__ = __complex__ = __index__ = __iter__ = _refuse
    __setitem__ = __contains__ = __reduce__ = __reduce_ex__ = __deepcopy__ = __copy__ = _refuse
    astype = tobytes = tofile = dump = dumps = fill = flatten = take = put = sum = any = all = max = min = _refuse
    mean = prod = argmax = argmin = sort = argsort = nonzero = dot = _refuse

    def __repr__(self) -> str:
        return f"<{self.dtype}{list(self.shape)} on {self.place} at {self.address:#x}>"

    __str__ = __repr__


class Memory(Protocol):
    """A block of device memory: what keeps it alive, and how NumPy may see it.

    window  a buffer over addresses around the block, that begins `start` bytes before it
    """

    address: int
    nbytes: int
    window: memoryview
    start: int
    place: device_class


class _Interface:
    """What NumPy makes an array over an address of."""

    __slots__ = ("__array_interface__",)

    def __init__(self, address: int, size: int) -> None:
        self.__array_interface__ = {"version": 3, "shape": (size,), "typestr": "|u1", "data": (address, False)}


def window(address: int, size: int) -> memoryview:
    """A buffer over memory that is never read through it."""
    made: Array = np.asarray(_Interface(address, size))
    return made.data


def device_array(
    memory: Memory, shape: Sequence[int], of: np.dtype[Any], offset: int = 0, strides: Sequence[int] | None = None
) -> DeviceArray:
    """An array in a block of memory, which it and its views keep; offset and strides in bytes."""
    made = DeviceArray(shape, of, memory.window, memory.start + offset, strides)
    made.place, made.memory = memory.place, memory
    return made


def as_device(array: Array, like: DeviceArray) -> DeviceArray:
    """A plain array over a device array's memory, as what it is."""
    made = array.view(DeviceArray)
    made.place, made.memory = like.place, like.memory
    return made


def plain(array: Any) -> Any:
    """A device array as an ndarray to compute shapes and strides with; it must not be read. Others as they are."""
    return array.view(np.ndarray) if type(array) is DeviceArray else array


def contiguous(array: Any) -> Any:
    """The array, or a row-major copy of one that is not: `np.ascontiguousarray` for arrays of any device."""
    if type(array) is DeviceArray:
        return array if array.flags.c_contiguous else array.copy()
    return np.ascontiguousarray(array)


def duplicate(array: Any) -> Any:
    """A copy in the same order of dimensions, on the same device."""
    return array.copy("K") if type(array) is DeviceArray else np.array(array)


def readable(array: Any) -> Any:
    """The array for the host to read: a copy of one that lies on a device."""
    return array.host() if type(array) is DeviceArray else array


def overwrite(target: Any, source: Any) -> None:
    """target[...] = source, where both lie on one device."""
    if type(target) is DeviceArray:
        from graphtorch.lowering.triton.strided import write_into  # kernels are above, and reached from here alone

        write_into(target, source)
    else:
        np.copyto(target, source)


def runtime() -> Any:
    """The module that moves bytes between the host and devices."""
    import graphtorch.runtime.cuda.transfer

    return graphtorch.runtime.cuda.transfer
