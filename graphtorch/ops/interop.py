"""Exchange with other libraries: NumPy's ufunc protocol, the buffer protocol and DLPack.

NumPy itself makes and reads DLPack's capsules, so the dtypes are those that it knows (all but bfloat16)."""

from __future__ import annotations

import enum
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


@method("__dlpack_device__")
def _dlpack_device(self: Tensor) -> tuple[DLDeviceType, int]:
    """(device type, device number). Raises BufferError for a tensor without memory."""
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

    Raises BufferError for a tensor that requires grad, has no memory, or holds bfloat16 (which NumPy's capsules can't
    say).
    """
    if self.requires_grad:
        raise BufferError("Can't export tensors that require gradient, use tensor.detach()")
    if self._device is not CPU:
        raise BufferError(f"Cannot pack tensors on {self._device}")
    if self.dtype is dtypes.bfloat16:
        raise BufferError("Can't export bfloat16 tensors through DLPack")
    array: Any = self.numpy()
    if dl_device is not None and tuple(map(int, dl_device)) != (1, 0):
        raise BufferError(f"Can't export a tensor on cpu to device {tuple(dl_device)}")
    if copy:
        array = array.copy(order="K")
    return array.__dlpack__() if max_version is None else array.__dlpack__(max_version=max_version)


class _Capsule:
    """A bare capsule as an object that NumPy imports from."""

    def __init__(self, capsule: Any) -> None:
        self._capsule = capsule

    def __dlpack__(self, **ignored: Any) -> Any:
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


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
    source = ext_tensor if hasattr(ext_tensor, "__dlpack__") else _Capsule(ext_tensor)
    try:
        array = np.from_dlpack(source)
    except ValueError as error:
        raise RuntimeError(f"from_dlpack received an invalid capsule: {error}") from None
    if any(s < 0 for s in array.strides):
        raise ValueError("from_dlpack: tensors with negative strides are not supported")
    if copy:
        array = array.copy(order="K")
    shared = _writable(array)
    return shared if device is None else shared.to(device)
