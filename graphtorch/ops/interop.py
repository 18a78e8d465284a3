"""Exchange with other libraries: NumPy's ufunc protocol, the buffer protocol and DLPack.

NumPy itself makes and reads DLPack's capsules. It knows no bfloat16: those capsules are made and read as int16, and
their dtype code is set right in the capsule's memory."""

from __future__ import annotations

import ctypes
import enum
import importlib
import warnings
from typing import Any

import numpy as np

from graphtorch.ops.build import function, method
from graphtorch.tensor import dtypes
from graphtorch.tensor.devices import CPU
from graphtorch.tensor.dtypes import dtype as dtype_class
from graphtorch.tensor.storage import UntypedStorage
from graphtorch.tensor.tensor import Tensor


@method("__array_wrap__")
def _array_wrap(self: Tensor, array: Any, context: Any = None, return_scalar: bool = False) -> Tensor:
    """The result of a NumPy function on a tensor: a tensor. Booleans come back as uint8, as in PyTorch."""
    made = np.asarray(array)
    if made.dtype == np.bool_:
        made = made.astype(np.uint8)
    return Tensor._wrap(made)


@method("__array_namespace__")
def _array_namespace(self: Tensor, *, api_version: str | None = None) -> Any:
    """The functions of the Python array API standard, `graphtorch.array_api`.

    Raises ValueError for a version of the standard that this one does not contain.
    """
    array_api = importlib.import_module("graphtorch.array_api")  # a user of the operators, loaded when asked for
    if api_version not in (None, "2021.12", "2022.12", "2023.12", array_api.__array_api_version__):
        raise ValueError(
            f"__array_namespace__(): version {api_version!r} of the array API standard is not supported; "
            f"this is {array_api.__array_api_version__}"
        )
    return array_api


@method("to_device")
def _to_device(self: Tensor, device: Any, /, *, stream: Any = None) -> Tensor:
    """This tensor on a device: the array API standard's name of `to`. Streams don't exist here.

    Raises ValueError for a stream.
    """
    if stream is not None:
        raise ValueError(f"to_device(): streams are not supported, got {stream!r}")
    moved: Tensor = self.to(device)
    return moved


# -- buffers ----------------------------------------------------------------------------------------------------------


@function()
def frombuffer(
    buffer: Any, *, dtype: dtype_class, count: int = -1, offset: int = 0, requires_grad: bool = False
) -> Tensor:
    """A one-dimensional tensor over the memory of an object with Python's buffer protocol. See torch.frombuffer.

    Args:
        count: number of elements; -1: all that fit.
        offset: bytes to skip.

    Raises ValueError for an object without a buffer and where the geometry does not fit it.
    """
    try:
        view = memoryview(buffer)
    except TypeError:
        raise ValueError("object does not implement Python buffer protocol.") from None
    size, width = view.nbytes, dtype.itemsize
    if size == 0 or count == 0:
        raise ValueError(f"both buffer length ({size}) and count ({count}) must not be 0")
    if not 0 <= offset < size:
        raise ValueError(
            f"offset ({offset} bytes) must be non-negative and no greater than buffer length ({size} bytes) minus 1"
        )
    if count > 0 and size - offset < count * width:
        raise ValueError(
            f"requested buffer length ({count} * {width} bytes) after offset ({offset} bytes) must not be greater than "
            f"actual buffer length ({size} bytes)"
        )
    if count < 0 and (size - offset) % width:
        raise ValueError(
            f"buffer length ({size - offset} bytes) after offset ({offset} bytes) must be a multiple of element size "
            f"({width})"
        )
    if view.readonly:
        warnings.warn(
            "The given buffer is not writable, and PyTorch does not support non-writable tensors. This means you can "
            "write to the underlying (supposedly non-writable) buffer using the tensor. You may want to copy the "
            "buffer to protect its data or make it writable before converting it to a tensor.",
            UserWarning,
            stacklevel=2,
        )
    array = np.frombuffer(view.cast("B"), dtype.numpy, count, offset)
    made = _writable(array)
    return made.requires_grad_(True) if requires_grad else made


def _writable(array: np.ndarray[Any, Any]) -> Tensor:
    """A tensor over an array's memory, also a read-only one's: tensors have no read-only memory."""
    d = dtypes.from_numpy_dtype(array.dtype)
    if array.flags.writeable:
        return Tensor._wrap(array, d)
    storage = UntypedStorage(array)
    strides = tuple(s // d.itemsize for s in array.strides)
    made = Tensor._wrap(storage.view(d, 0, array.shape, strides), d)
    made._storage = storage
    return made


# -- DLPack -----------------------------------------------------------------------------------------------------------


class DLDeviceType(enum.IntEnum):
    """DLPack's device types (https://dmlc.github.io/dlpack/latest/c_api.html), those that tensors live on here."""

    kDLCPU = 1
    kDLCUDA = 2


@method("__dlpack_device__")
def _dlpack_device(self: Tensor) -> tuple[DLDeviceType, int]:
    """(device type, device number). Raises BufferError for a tensor without memory."""
    if self._device.type == "cuda":
        return (DLDeviceType.kDLCUDA, self.get_device())
    if self._device is not CPU:
        raise BufferError(f"Cannot pack tensors on {self._device}")
    return (DLDeviceType.kDLCPU, 0)


@method("__dlpack__")
def _dlpack(
    self: Tensor,
    *,
    stream: Any = -1,
    max_version: tuple[int, int] | None = None,
    dl_device: Any = None,
    copy: bool | None = None,
) -> Any:
    """A DLPack capsule over this tensor's memory. See torch.Tensor.__dlpack__.

    Raises BufferError for a tensor that requires grad or has no memory.
    """
    if self.requires_grad:
        raise BufferError("Can't export tensors that require gradient, use tensor.detach()")
    if self._device.type == "cuda":
        return _device_capsule(self, stream, max_version, dl_device, copy)
    if self._device is not CPU:
        raise BufferError(f"Cannot pack tensors on {self._device}")
    array: Any = self.numpy() if self.dtype is not dtypes.bfloat16 else self._data.view(np.int16)
    if dl_device is not None and tuple(map(int, dl_device)) != (1, 0):
        raise BufferError(f"Can't export a tensor on cpu to device {tuple(dl_device)}")
    if copy:
        array = array.copy(order="K")
    capsule = array.__dlpack__() if max_version is None else array.__dlpack__(max_version=max_version)
    if self.dtype is dtypes.bfloat16:
        _type_code(capsule).value = _BFLOAT
    return capsule


def _device_capsule(tensor: Tensor, stream: Any, max_version: Any, dl_device: Any, copy: bool | None) -> Any:
    """A capsule over a CUDA tensor's memory, or a copy of it on the host."""
    if dl_device is not None and tuple(map(int, dl_device)) == (1, 0) and copy is not False:
        return tensor.cpu().__dlpack__(max_version=max_version)
    if dl_device is not None and tuple(map(int, dl_device)) != (2, tensor.get_device()):
        raise BufferError(f"Can't export a tensor on {tensor._device} to device {tuple(dl_device)}")
    data = tensor._data.copy() if copy else tensor._data
    versioned = max_version is not None and max_version[0] >= 1
    return _device_dlpack().export(data, tensor.dtype, stream, versioned, bool(copy))


def _device_dlpack() -> Any:
    return importlib.import_module("graphtorch.runtime.cuda.dlpack")


# DLPack's type codes (DLDataTypeCode), and where a managed tensor holds its own, in bytes from its start. A versioned
# one begins with version, manager context, deleter and flags; then both have data, device (8 bytes each) and rank (4).
_INT, _BFLOAT = 0, 4
_TYPE_CODE = {b"dltensor": 20, b"dltensor_versioned": 32 + 20}


def _type_code(capsule: Any) -> ctypes.c_uint8:
    """The dtype code of the tensor in a capsule, as memory that can be written.

    Raises ValueError for a capsule that was read already or holds something else.
    """
    is_valid, pointer = ctypes.pythonapi.PyCapsule_IsValid, ctypes.pythonapi.PyCapsule_GetPointer
    is_valid.argtypes = pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    pointer.restype = ctypes.c_void_p
    for name, offset in _TYPE_CODE.items():
        if is_valid(capsule, name):
            return ctypes.c_uint8.from_address(pointer(capsule, name) + offset)
    raise ValueError("the capsule is used up, or holds no DLPack tensor")


class _Source:
    """An exporter, or a bare capsule, as an object that NumPy imports from; bfloat16 arrives as int16."""

    def __init__(self, origin: Any) -> None:
        self._origin = origin
        self.is_bfloat16 = False

    def __dlpack__(self, **options: Any) -> Any:
        is_exporter = hasattr(self._origin, "__dlpack__")
        capsule = self._origin.__dlpack__(**options) if is_exporter else self._origin
        code = _type_code(capsule)
        if code.value == _BFLOAT:
            self.is_bfloat16 = True
            code.value = _INT
        return capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        is_exporter = hasattr(self._origin, "__dlpack_device__")
        return self._origin.__dlpack_device__() if is_exporter else (1, 0)


@function()
def from_dlpack(ext_tensor: Any, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """A tensor over the memory of an object with `__dlpack__`, or of a DLPack capsule. See torch.from_dlpack.

    Raises RuntimeError for anything else and for a capsule that was used already, BufferError for what can't be shared.
    """
    if isinstance(ext_tensor, Tensor):
        made: Tensor = ext_tensor.detach()
        return made.clone() if copy else made
    if not hasattr(ext_tensor, "__dlpack__") and type(ext_tensor).__name__ != "PyCapsule":
        raise RuntimeError(
            "from_dlpack received an invalid capsule. Note that DLTensor capsules can be consumed only once, so you "
            "might have already constructed a tensor from it once."
        )
    ask = getattr(ext_tensor, "__dlpack_device__", None)
    if ask is not None and int(ask()[0]) == DLDeviceType.kDLCUDA:
        over = Tensor._over(_device_dlpack().take(ext_tensor))
        over = over.clone() if copy else over
        return over if device is None else over.to(device)
    source = _Source(ext_tensor)
    try:
        array: Any = np.from_dlpack(source)
    except ValueError as error:
        raise RuntimeError(f"from_dlpack received an invalid capsule: {error}") from None
    if source.is_bfloat16:
        array = array.view(dtypes.bfloat16.numpy)
    if any(s < 0 for s in array.strides):
        raise ValueError("from_dlpack: tensors with negative strides are not supported")
    if copy:
        array = array.copy(order="K")
    shared = _writable(array)
    return shared if device is None else shared.to(device)
