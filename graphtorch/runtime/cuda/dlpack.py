"""DLPack capsules over device memory, both ways: NumPy makes and reads those of the host only.

See https://dmlc.github.io/dlpack/latest/c_api.html. A capsule holds a managed tensor: a description of the memory, and
a function that gives it back. Who reads the capsule renames it and calls that function in the end; one that nobody read
is given back by the capsule itself."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from graphtorch.runtime.cuda import devices, transfer
from graphtorch.tensor import dtypes
from graphtorch.tensor.devices import cuda_device
from graphtorch.tensor.dtypes import dtype
from graphtorch.tensor.remote import DeviceArray, device_array, window

CUDA = 2  # kDLCUDA
_NAME, _USED = b"dltensor", b"used_dltensor"
_NAME_VERSIONED, _USED_VERSIONED = b"dltensor_versioned", b"used_dltensor_versioned"
_VERSION = (1, 0)
_COPIED = 2  # the flag of a capsule whose memory is a copy

# DLDataTypeCode by kind of element.
_INT, _UINT, _FLOAT, _BFLOAT, _COMPLEX, _BOOL = 0, 1, 2, 4, 5, 6


class _Tensor(ctypes.Structure):
    """DLTensor."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


_DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Managed(ctypes.Structure):
    """DLManagedTensor."""

    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _DELETER))


class _Versioned(ctypes.Structure):
    """DLManagedTensorVersioned."""

    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", _DELETER),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    )


_api = ctypes.pythonapi
_api.PyCapsule_New.restype = ctypes.py_object
_api.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
_api.PyCapsule_SetName.argtypes = [ctypes.py_object, ctypes.c_char_p]
# The destructor gets a capsule that is being deleted: it must not be counted as an object again.
_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))

_exported: dict[int, Any] = {}  # what is kept for others, by the address of the managed tensor


def _forget(address: int) -> None:
    _exported.pop(address, None)


def _forget_unread(capsule: int) -> None:
    for name in (_NAME, _NAME_VERSIONED):
        if _valid(capsule, name):
            _exported.pop(_pointer(capsule, name), None)


_release = _DELETER(_forget)
_destroy = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(_forget_unread)


def _type_of(of: dtype) -> tuple[int, int]:
    """DLPack's code and width of a dtype."""
    if of is dtypes.bool_:
        return _BOOL, 8
    if of is dtypes.bfloat16:
        return _BFLOAT, 16
    kind = {"i": _INT, "u": _UINT, "f": _FLOAT, "c": _COMPLEX}[of.numpy.kind]
    return kind, 8 * of.itemsize


def _dtype_of(code: int, bits: int) -> dtype:
    for candidate in dtypes.ALL_DTYPES:
        if _type_of(candidate) == (code, bits):
            return candidate
    raise BufferError(f"from_dlpack: no dtype has DLPack's code {code} and {bits} bits")


def export(array: DeviceArray, of: dtype, stream: Any, versioned: bool, copied: bool = False) -> Any:
    """A capsule over an array.

    `stream` as in the protocol: the number of the reader's stream, which is made to wait for what computes the
    elements; None: the default stream; -1: the reader needs no waiting.
    """
    where = devices.device(array.place.index)
    if stream != -1:
        _order(where, stream)
    managed: Any = _Versioned() if versioned else _Managed()
    tensor = managed.tensor
    rank = array.ndim
    shape = (ctypes.c_int64 * max(rank, 1))(*array.shape)
    strides = (ctypes.c_int64 * max(rank, 1))(*(s // array.itemsize for s in array.strides))
    tensor.data = array.address if array.size else None
    tensor.device_type, tensor.device_id, tensor.ndim = CUDA, where.index, rank
    (tensor.code, tensor.bits), tensor.lanes = _type_of(of), 1
    tensor.shape, tensor.strides, tensor.byte_offset = shape, strides, 0
    managed.deleter = _release
    if versioned:
        managed.major, managed.minor = _VERSION
        managed.flags = _COPIED if copied else 0
    address = ctypes.addressof(managed)
    _exported[address] = (managed, shape, strides, array)
    name = _NAME_VERSIONED if versioned else _NAME
    return _api.PyCapsule_New(address, name, ctypes.cast(_destroy, ctypes.c_void_p))


def _order(where: devices.Device, stream: Any) -> None:
    driver = where.driver
    reader = driver.external_stream(where.index, 0 if stream is None else int(stream))
    here = devices.stream_of(where)
    if reader is not here:
        event = driver.create_event(where.index, False, False)
        driver.record_event(event, here)
        driver.stream_wait_event(reader, event)


class _Foreign:
    """Memory that another library keeps until this is gone; see `tensor.remote.Memory`."""

    def __init__(self, address: int, nbytes: int, index: int, managed: Any) -> None:
        self.address = address
        self.nbytes = nbytes
        self.window = window(address, max(nbytes, 1))
        self.start = 0
        self.place = cuda_device(index)
        self._managed = managed

    def __del__(self, ending: Callable[[], bool] = sys.is_finalizing) -> None:
        deleter = self._managed.deleter
        if deleter and not ending():
            deleter(ctypes.addressof(self._managed))


def is_on_device(source: Any) -> bool:
    """Whether an exporter's memory is that of a CUDA device."""
    ask = getattr(source, "__dlpack_device__", None)
    return ask is not None and int(ask()[0]) == CUDA


def take(source: Any) -> DeviceArray:
    """An array over the memory of an exporter, or of a capsule. What it was sent before is done before what comes.

    Raises BufferError for elements that no dtype has, RuntimeError for a capsule that was read already.
    """
    capsule = source
    if hasattr(source, "__dlpack__"):
        index = int(source.__dlpack_device__()[1])
        where = devices.device(index)
        handle = where.driver.stream_handle(devices.stream_of(where))
        # The protocol's number of the legacy default stream is 1.
        capsule = source.__dlpack__(stream=handle or 1)
    at = id(capsule)
    for name, used, kind in ((_NAME, _USED, _Managed), (_NAME_VERSIONED, _USED_VERSIONED, _Versioned)):
        if _valid(at, name):
            managed: Any = kind.from_address(_pointer(at, name))
            made = _array(managed)
            _api.PyCapsule_SetName(capsule, used)
            return made
    raise RuntimeError("from_dlpack received an invalid capsule: it was used already, or holds no tensor")


def _array(managed: Any) -> DeviceArray:
    tensor = managed.tensor
    of = _dtype_of(tensor.code, tensor.bits)
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    strides = tuple(tensor.strides[i] * of.itemsize for i in range(tensor.ndim)) if tensor.strides else None
    if 0 in shape:
        return transfer.empty(shape, of.numpy, cuda_device(tensor.device_id))
    span = of.itemsize
    if strides is None:
        span *= int(np.prod(shape, dtype=np.int64))
    else:
        if any(s < 0 for s in strides):
            raise BufferError("from_dlpack: tensors with negative strides are not supported")
        span += sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    memory = _Foreign(tensor.data + tensor.byte_offset, span, tensor.device_id, managed)
    return device_array(memory, shape, of.numpy, 0, strides)
