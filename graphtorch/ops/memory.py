"""Tensors and their storages: `storage`, `set_`, `resize_`, and what stands for memory shared with other processes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphtorch.ops.build import function, method
from graphtorch.ops.strides import contiguous_strides
from graphtorch.tensor.devices import CPU
from graphtorch.tensor.remote import runtime
from graphtorch.tensor.storage import TypedStorage, UntypedStorage, warn_typed_storage
from graphtorch.tensor.tensor import Tensor, meta_array

_TYPE_NAMES = {
    "float32": "float",
    "float64": "double",
    "int64": "long int",
    "int32": "int",
    "int16": "short int",
    "int8": "signed char",
    "uint8": "unsigned char",
}


@method("storage")
def _storage(self: Tensor) -> TypedStorage:
    """The storage, seen as elements of the tensor's dtype. See torch.Tensor.storage (deprecated there)."""
    warn_typed_storage()
    return TypedStorage(wrap_storage=self.untyped_storage(), dtype=self.dtype)


@method("_typed_storage")
def _typed_storage(self: Tensor) -> TypedStorage:
    return TypedStorage(wrap_storage=self.untyped_storage(), dtype=self.dtype)


@method("is_shared")
def _is_shared(self: Tensor) -> bool:
    """Whether other processes see this memory: never, here. See torch.Tensor.is_shared."""
    return False


@method("share_memory_")
def _share_memory(self: Tensor) -> Tensor:
    """Refused: memory is never shared between processes here. See torch.Tensor.share_memory_."""
    raise RuntimeError("share_memory_(): sharing memory between processes is not supported")


@method("is_pinned")
def _is_pinned(self: Tensor, device: Any = None) -> bool:
    """Whether the memory is page-locked. See torch.Tensor.is_pinned."""
    if self._device is not CPU or type(self._data) is not np.ndarray or self._data.base is None:
        return False
    found: bool = runtime().is_pinned(self._data)
    return found


def _place(target: Tensor, storage: UntypedStorage, offset: int, size: Sequence[int], stride: Sequence[int]) -> None:
    """Make `target` view these elements of a storage."""
    if storage.device.type != "meta":
        target._data = storage.view(target.dtype, offset, size, stride)
    else:
        target._data = meta_array(tuple(size), target.dtype)
    target._storage = storage
    storage.version += 1


def _check_resizable(name: str, target: Tensor) -> None:
    if target._is_view() and target.requires_grad:
        raise RuntimeError(f"{name}(): a view that requires grad")
    target._layout()
    target._need_memory(f"{name}()")


@method("set_")
def _set(
    self: Tensor,
    source: Tensor | UntypedStorage | TypedStorage | None = None,
    storage_offset: int | None = None,
    size: Any = None,
    stride: Any = None,
) -> Tensor:
    """Make this tensor view the memory of a tensor or a storage, with the given geometry. See torch.Tensor.set_.

    Raises RuntimeError for another dtype, for geometry outside the storage, and for a leaf that requires grad.
    """
    from graphtorch.autograd.state import state

    _check_resizable("set_", self)
    if state.grad_enabled and self.requires_grad and self.is_leaf:
        raise RuntimeError("a leaf Variable that requires grad is being used in an in-place operation.")
    if source is None:
        _place(self, UntypedStorage(0, self._device), 0, (0,), (1,))
        return self
    if not isinstance(source, Tensor | UntypedStorage | TypedStorage):
        raise TypeError(f"set_(): argument 'source' must be Tensor or a storage, not {type(source).__name__}")
    if isinstance(source, Tensor | TypedStorage) and source.dtype is not self.dtype:
        raise RuntimeError(
            f"Could not set tensor of type {_type_name(source.dtype)} to a tensor of type {_type_name(self.dtype)}"
        )
    if isinstance(source, Tensor):
        storage = source.untyped_storage()
        offset = source.storage_offset() if storage_offset is None else storage_offset
        shape = tuple(source.shape) if size is None else tuple(size)
        steps = tuple(source.stride()) if size is None else None
    else:
        storage = source.untyped()
        offset = 0 if storage_offset is None else storage_offset
        shape = (storage.nbytes() // self.dtype.itemsize,) if size is None else tuple(size)
        steps = None
    if storage.device is not self._device:
        raise RuntimeError(
            f'Attempted to set the storage of a tensor on device "{self._device}" to a storage on different device '
            f'"{storage.device}".  This is no longer allowed; the devices must match.'
        )
    if stride is not None and stride != ():
        steps = tuple(stride)
    _place(self, storage, offset, shape, contiguous_strides(shape) if steps is None else steps)
    return self


def _type_name(d: Any) -> str:
    return _TYPE_NAMES.get(d.name, str(d.name))


@method("resize_")
def _resize(self: Tensor, *size: Any, memory_format: Any = None) -> Tensor:
    """Give this tensor another shape over its storage, which grows if it must. See torch.Tensor.resize_.

    Raises RuntimeError for a tensor that requires grad, for negative sizes, and where a storage would have to grow that
    other tensors share.
    """
    if len(size) == 1 and isinstance(size[0], tuple | list):
        size = tuple(size[0])
    if self.requires_grad:
        raise RuntimeError("cannot resize variables that require grad")
    _check_resizable("resize_", self)
    if any(n < 0 for n in size):
        raise RuntimeError(f"Trying to create tensor with negative dimension {min(size)}: {list(size)}")
    if memory_format is None and tuple(self.shape) == size:
        return self
    strides = contiguous_strides(size)
    if memory_format is not None and str(memory_format).startswith("torch.channels_last"):
        if len(size) != (5 if str(memory_format).endswith("3d") else 4):
            raise RuntimeError("required rank 4 tensor to use channels_last format")
        inner = contiguous_strides((size[0], *size[2:], size[1]))
        strides = (inner[0], inner[-1], *inner[1:-1])
    offset = self.storage_offset()
    storage = self.untyped_storage()
    needed = (offset + math.prod(size)) * self.dtype.itemsize if math.prod(size) else 0
    if storage.device.type != "meta" and needed > storage.nbytes():
        storage.grow(needed, holders=2)  # this function and the tensor
    _place(self, storage, offset, size, strides)
    return self


@method("resize_as_")
def _resize_as(self: Tensor, other: Tensor, *, memory_format: Any = None) -> Tensor:
    """`resize_` to another tensor's shape. See torch.Tensor.resize_as_."""
    resized: Tensor = self.resize_(tuple(other.shape), memory_format=memory_format)
    return resized


@function()
def is_storage(obj: Any) -> bool:
    """Whether the object is a storage. See torch.is_storage."""
    return isinstance(obj, UntypedStorage | TypedStorage)
