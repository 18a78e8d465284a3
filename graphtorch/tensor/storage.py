"""Storages: the memory that a tensor and its views share, with the version counter that in-place changes bump.

`UntypedStorage` counts bytes; `TypedStorage` is PyTorch's older face of the same memory, which counts elements."""

from __future__ import annotations

import math
import sys
import warnings
import weakref
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphtorch.tensor.devices import CPU, canonical
from graphtorch.tensor.devices import device as device_class
from graphtorch.tensor.remote import DeviceArray, as_device, device_array, runtime

if TYPE_CHECKING:
    from graphtorch.tensor.dtypes import dtype as dtype_class


class _Memory:
    """Raw memory for NumPy to view; the array that NumPy makes keeps this object, and so the owner, alive."""

    def __init__(self, owner: np.ndarray[Any, Any], address: int, size: int) -> None:
        self.owner = owner
        self.__array_interface__ = {"version": 3, "shape": (size,), "typestr": "|u1", "data": (address, False)}


class Writer:
    """A compiled step that changes many storages in each of its runs: they share one count of these.

    `owner` is what runs; when it is gone, the count stays what it is.
    """

    __slots__ = ("__weakref__", "_owner", "count")

    def __init__(self, owner: Any) -> None:
        self._owner = weakref.ref(owner)
        self.count = 0

    def writes_to(self, storage: UntypedStorage, times: int = 1) -> None:
        """Let each further run count as so many changes of a storage."""
        if not isinstance(storage, _WrittenStorage):
            storage.writers = ()
            storage.__class__ = _WrittenStorage
        held = storage.writers.count(self)
        if held == times:
            return
        version = storage.version
        # Those that are gone stay in the sum; nothing has to ask them any more.
        others = tuple(w for w in storage.writers if w is not self and w._owner() is not None)
        storage.writers = (*others, *(self,) * times)
        storage.version = version


class UntypedStorage:
    """A block of memory, shared by every tensor that views it.

    `owner` is the ndarray whose memory this is: the array of the tensor that the storage was first asked of. Its
    version counts in-place changes; the tape compares versions to find saved values that were overwritten.

    Called with a number, it is that many uninitialised bytes."""

    __slots__ = ("__weakref__", "device", "owner", "version", "writers")

    owner: np.ndarray[Any, Any]
    device: device_class
    version: int
    writers: tuple[Writer, ...]  # of a `_WrittenStorage`

    def __init__(self, owner: np.ndarray[Any, Any] | int = 0, device: device_class = CPU) -> None:
        if isinstance(owner, int):
            owner = np.empty(owner, np.uint8) if device.type != "cuda" else _empty(owner, device)
        self.owner = owner
        self.device = device
        self.version = 0

    def data_ptr(self) -> int:
        """The address of the first byte; 0 for no memory."""
        if not self.owner.size or self.device.type == "meta":
            return 0
        return np.lib.array_utils.byte_bounds(self.owner)[0]

    def nbytes(self) -> int:
        """The size in bytes, the extent of the owner (which counts a strided array's gaps)."""
        if not self.owner.size:
            return 0
        low, high = np.lib.array_utils.byte_bounds(self.owner)
        return int(high - low)

    def size(self) -> int:
        return self.nbytes()

    def __len__(self) -> int:
        return self.nbytes()

    def element_size(self) -> int:
        return 1

    def untyped(self) -> UntypedStorage:
        return self

    def bytes(self) -> np.ndarray[Any, Any]:
        """The memory as a uint8 array that shares it; on another device, a copy on the host.

        Raises NotImplementedError for a storage on the meta device, which has none.
        """
        if self.device.type == "cuda":
            return self._flat().host()
        if self.device is not CPU:
            raise NotImplementedError(f"Not available for '{self.device.type}' storage")
        if not self.owner.size:
            return np.empty(0, np.uint8)
        low, high = np.lib.array_utils.byte_bounds(self.owner)
        return np.asarray(_Memory(self.owner, int(low), int(high - low)))

    def _flat(self) -> DeviceArray:
        """The bytes of a storage on a device, as an array there."""
        low = self.data_ptr()
        owner = self.owner
        assert type(owner) is DeviceArray
        if not owner.size:
            return as_device(np.empty(0, np.uint8), owner)
        return device_array(owner.memory, (self.nbytes(),), np.dtype(np.uint8), low - owner.memory.address)

    def view(self, of: dtype_class, offset: int, size: Sequence[int], stride: Sequence[int]) -> np.ndarray[Any, Any]:
        """The elements of a strided tensor in this memory; offset and strides in elements.

        Raises RuntimeError for geometry that is negative or reaches out of the memory.
        """
        if offset < 0:
            raise RuntimeError(f"Tensor: invalid storage offset {offset}")
        if len(size) != len(stride):
            raise RuntimeError(f"mismatch in length of strides and shape: {len(size)} sizes and {len(stride)} strides")
        if any(n < 0 for n in size) or any(s < 0 for s in stride):
            raise RuntimeError(f"sizes and strides must not be negative: sizes {list(size)}, strides {list(stride)}")
        count = math.prod(size)
        needed = (offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) + 1) if count else 0
        if needed * of.itemsize > self.nbytes():
            raise RuntimeError(
                f"setStorage: sizes {list(size)}, strides {list(stride)}, storage offset {offset}, and itemsize "
                f"{of.itemsize} requiring a storage size of {needed * of.itemsize} are out of bounds for storage of "
                f"size {self.nbytes()}"
            )
        strides = tuple(s * of.itemsize for s in stride)
        try:
            if count == 0:
                nothing = np.lib.stride_tricks.as_strided(np.empty(0, of.numpy), tuple(size), strides)
                return as_device(nothing, self.owner) if type(self.owner) is DeviceArray else nothing
            if type(self.owner) is DeviceArray:
                memory = self.owner.memory
                start = self.data_ptr() - memory.address + offset * of.itemsize
                return device_array(memory, tuple(size), of.numpy, start, strides)
            return np.ndarray(tuple(size), of.numpy, self.bytes().data, offset * of.itemsize, strides)
        except (ValueError, OverflowError) as error:
            raise RuntimeError(f"no array of sizes {list(size)} and strides {list(stride)}: {error}") from None

    def grow(self, nbytes: int, holders: int) -> None:
        """Move to a larger block of memory; the old bytes stay at its beginning.

        `holders`: how many references the callers themselves hold. Raises RuntimeError where something else has the
        storage too: it would be left behind in the old memory.
        """
        if sys.getrefcount(self) > holders + 2:  # the method's own `self` and getrefcount's argument
            raise RuntimeError("Trying to resize storage that other tensors share")
        if self.device.type == "cuda":
            larger, held = _empty(nbytes, self.device), self._flat()
            if held.size:
                runtime().copy_bytes(larger[: held.size], held)
            self.owner = larger
            return
        fresh = np.zeros(nbytes, np.uint8)
        old = self.bytes()
        fresh[: old.size] = old
        self.owner = fresh

    def tolist(self) -> list[Any]:
        """The bytes as Python ints."""
        found: list[Any] = self.bytes().tolist()
        return found

    def __iter__(self) -> Iterator[int]:
        return iter(self.tolist())

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            return UntypedStorage(self.bytes()[key])
        return int(self.bytes()[key])

    def __setitem__(self, key: Any, value: Any) -> None:
        changed = self.bytes()
        changed[key] = value
        if self.device.type == "cuda":
            runtime().copy_bytes(self._flat(), runtime().to_device(changed, self.device))
        self.version += 1

    def fill_(self, value: int) -> UntypedStorage:
        """Set every byte."""
        self[:] = value
        return self

    def copy_(self, source: UntypedStorage, non_blocking: bool = False) -> UntypedStorage:
        """Copy another storage's bytes. Raises RuntimeError for another size."""
        if source.nbytes() != self.nbytes():
            raise RuntimeError(
                f"size does not match, self was {self.nbytes()} bytes but src was {source.nbytes()} bytes"
            )
        self[:] = source.bytes()
        return self

    def clone(self) -> UntypedStorage:
        """A copy in memory of its own."""
        if self.device.type == "cuda":
            return UntypedStorage(self._flat().copy(), self.device)
        return UntypedStorage(self.bytes().copy())

    def cpu(self) -> UntypedStorage:
        """The storage itself, or its copy in the host's memory."""
        return self if self.device is CPU else UntypedStorage(self.bytes())

    def cuda(self, device: Any = None, non_blocking: bool = False) -> UntypedStorage:
        """A copy on a CUDA device; the storage itself if it lies there. Raises AssertionError without one."""
        where = canonical("cuda" if device is None else device)
        if self.device is where:
            return self
        return UntypedStorage(runtime().to_device(self.bytes(), where), where)

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    def is_pinned(self, device: Any = "cuda") -> bool:
        return False

    def is_shared(self) -> bool:
        """Whether other processes see this memory: never, here."""
        return False

    def resizable(self) -> bool:
        return True

    def __deepcopy__(self, memo: dict[int, Any]) -> UntypedStorage:
        copied = UntypedStorage(self.owner, self.device) if self.device.type == "meta" else self.clone()
        memo[id(self)] = copied
        return copied

    def __reduce__(self) -> tuple[Any, ...]:
        if self.device.type == "meta":
            return (UntypedStorage, (0, self.device))
        if self.device.type == "cuda":
            return (_from_bytes, (self.bytes().tobytes(), self.device))
        return (_from_bytes, (self.bytes().tobytes(),))

    def __repr__(self) -> str:
        shown = "".join(f" {b}\n" for b in self.tolist()) if self.device is CPU else "...\n"
        return f"{shown}[torch.storage.UntypedStorage(device={self.device}) of size {len(self)}]"

    __str__ = __repr__


def _from_bytes(data: bytes, device: device_class = CPU) -> UntypedStorage:
    """What unpickling calls; the copy makes the memory writable."""
    array = np.frombuffer(data, np.uint8)
    if device.type == "cuda":
        where = canonical(device)
        return UntypedStorage(runtime().to_device(array, where), where)
    return UntypedStorage(array.copy())


def _empty(size: int, device: device_class) -> DeviceArray:
    """So many bytes on a device."""
    made: DeviceArray = runtime().empty((size,), np.dtype(np.uint8), device)
    return made


_COUNTED: Any = vars(UntypedStorage)["version"]


class _WrittenStorage(UntypedStorage):
    """A storage that compiled steps write to. Its slot `version` has what they have not counted."""

    __slots__ = ()

    @property
    def version(self) -> int:
        return int(_COUNTED.__get__(self)) + sum(w.count for w in self.writers)

    @version.setter
    def version(self, value: int) -> None:
        _COUNTED.__set__(self, value - sum(w.count for w in self.writers))


_WrittenStorage.__name__ = _WrittenStorage.__qualname__ = "UntypedStorage"


class TypedStorage:
    """A storage seen as elements of one dtype. See torch.TypedStorage (deprecated there)."""

    __slots__ = ("_storage", "dtype")

    dtype: dtype_class

    def __init__(self, *, wrap_storage: UntypedStorage, dtype: dtype_class) -> None:
        self._storage = wrap_storage
        self.dtype = dtype

    def _array(self) -> np.ndarray[Any, Any]:
        return self._storage.view(self.dtype, 0, (self.size(),), (1,))

    def untyped(self) -> UntypedStorage:
        return self._storage

    @property
    def device(self) -> device_class:
        return self._storage.device

    @property
    def is_cuda(self) -> bool:
        return self._storage.is_cuda

    def size(self) -> int:
        return self._storage.nbytes() // self.dtype.itemsize

    def __len__(self) -> int:
        return self.size()

    def nbytes(self) -> int:
        return self._storage.nbytes()

    def element_size(self) -> int:
        return self.dtype.itemsize

    def data_ptr(self) -> int:
        return self._storage.data_ptr()

    def is_shared(self) -> bool:
        return False

    def tolist(self) -> list[Any]:
        """The elements as Python numbers."""
        array = self._array()
        found: list[Any] = (array.astype(np.float32) if array.dtype.kind == "V" else array).tolist()
        return found

    def __iter__(self) -> Iterator[Any]:
        return iter(self.tolist())

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            raise RuntimeError("slices are only supported in UntypedStorage.__getitem__")
        if not isinstance(key, int):
            raise RuntimeError(f"can't index a {type(self)} with {type(key)}")
        return self._array()[key].item()

    def __setitem__(self, key: Any, value: Any) -> None:
        self._array()[key] = value
        self._storage.version += 1

    def fill_(self, value: Any) -> TypedStorage:
        """Set every element."""
        self[:] = value
        return self

    def clone(self) -> TypedStorage:
        """A copy in memory of its own."""
        return TypedStorage(wrap_storage=self._storage.clone(), dtype=self.dtype)

    def __deepcopy__(self, memo: dict[int, Any]) -> TypedStorage:
        return TypedStorage(wrap_storage=self._storage.__deepcopy__(memo), dtype=self.dtype)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_typed, (self._storage, self.dtype))

    def __repr__(self) -> str:
        shown = "".join(f" {x}\n" for x in self.tolist()) if self.device is CPU else "...\n"
        return f"{shown}[torch.storage.TypedStorage(dtype={self.dtype}, device={self.device}) of size {len(self)}]"


def _typed(storage: UntypedStorage, of: dtype_class) -> TypedStorage:
    return TypedStorage(wrap_storage=storage, dtype=of)


def warn_typed_storage() -> None:
    """PyTorch's warning of `Tensor.storage()`."""
    warnings.warn(
        "TypedStorage is deprecated. It will be removed in the future and UntypedStorage will be the only storage "
        "class. This should only matter to you if you are using storages directly.  To access UntypedStorage "
        "directly, use tensor.untyped_storage() instead of tensor.storage()",
        stacklevel=3,
    )


Storage = UntypedStorage
