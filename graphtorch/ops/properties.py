"""Questions about tensors and dtypes, as functions of the public namespace."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from graphtorch.ops import pointwise
from graphtorch.ops.build import function, method
from graphtorch.tensor.size import Size
from graphtorch.tensor.tensor import Tensor


@function()
def is_tensor(obj: Any) -> bool:
    """Whether the object is a Tensor. See torch.is_tensor."""
    return isinstance(obj, Tensor)


@function()
def is_floating_point(input: Any) -> bool:
    """Whether the dtype is a floating one. See torch.is_floating_point."""
    return bool(input.dtype.is_floating_point)


@function()
def is_complex(input: Any) -> bool:
    """Whether the dtype is complex. See torch.is_complex."""
    return bool(input.dtype.is_complex)


@function()
def is_signed(input: Any) -> bool:
    """Whether the dtype has negative values. See torch.Tensor.is_signed."""
    return bool(input.dtype.is_signed)


@function()
def numel(input: Any) -> Any:
    """The number of elements. See torch.numel."""
    return input.numel()


@function(method=True)
def is_nonzero(input: Any) -> bool:
    """Whether the single element differs from zero. See torch.is_nonzero.

    Raises RuntimeError for any other number of elements.
    """
    if input.numel() == 0:
        raise RuntimeError("Boolean value of Tensor with no values is ambiguous")
    if input.numel() != 1:
        raise RuntimeError("Boolean value of Tensor with more than one value is ambiguous")
    return bool(input)


@function(method=True)
def is_same_size(input: Any, other: Any) -> bool:
    """Whether both have the same shape. See torch.is_same_size."""
    return tuple(input.shape) == tuple(other.shape)


@function()
def broadcast_shapes(*shapes: Any) -> Size:
    """The common shape of several. See torch.broadcast_shapes.

    Raises RuntimeError where sizes do not match.
    """
    given = [(s,) if isinstance(s, int) else tuple(s) for s in shapes]
    try:
        return Size(pointwise.broadcast_shapes(*given))
    except RuntimeError:
        raise RuntimeError(
            "Shape mismatch: objects cannot be broadcast to a single shape: " + ", ".join(map(str, given))
        ) from None


@function()
def typename(obj: Any) -> str:
    """The name of an object's type, a tensor's with its dtype. See torch.typename."""
    if isinstance(obj, Tensor):
        return str(obj.type())
    module = "" if type(obj).__module__ == "builtins" else type(obj).__module__ + "."
    return f"{module}{type(obj).__qualname__}"


# -- kinds of tensors that are not here -----------------------------------------------------------------------------

# PyTorch's questions for devices and layouts that no tensor here can have.
for _name in (
    *("is_ipu", "is_maia", "is_mkldnn", "is_mps", "is_mtia", "is_nested", "is_quantized", "is_sparse"),
    *("is_sparse_csr", "is_vulkan", "is_xla", "is_xpu"),
):
    setattr(Tensor, _name, property(lambda self: False))
Tensor.name = property(lambda self: None)  # type: ignore[attr-defined]
Tensor.volatile = property(lambda self: False)  # type: ignore[attr-defined]


@function(method=True)
def is_conj(input: Tensor) -> bool:
    """Whether the elements are stored conjugated: never, `conj()` computes. See torch.is_conj."""
    return False


@function(method=True)
def is_neg(input: Tensor) -> bool:
    """Whether the elements are stored negated: never. See torch.is_neg."""
    return False


@function(method=True)
def is_distributed(input: Tensor) -> bool:
    """Whether the tensor is spread over processes: never."""
    return False


@function()
def is_inference(input: Tensor) -> bool:
    """Whether the tensor was made in inference mode. See torch.is_inference."""
    return input.is_inference()


@function()
def get_device(input: Tensor) -> int:
    """The index of the tensor's CUDA device; -1 on the CPU. See torch.get_device."""
    return input.get_device()


@method("is_set_to")
def _is_set_to(self: Tensor, tensor: Tensor) -> bool:
    """Whether both are the same view of the same memory. See torch.Tensor.is_set_to."""
    return self.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr() and (
        self.storage_offset(),
        self.shape,
        self.stride(),
    ) == (tensor.storage_offset(), tensor.shape, tensor.stride())


@method("dim_order")
def _dim_order(self: Tensor, *, ambiguity_check: Any = False) -> tuple[int, ...]:
    """The dimensions from the largest step in memory to the smallest. See torch.Tensor.dim_order."""
    return tuple(sorted(range(self.ndim), key=lambda d: -self.stride(d)))


@method("dense_dim")
def _dense_dim(self: Tensor) -> int:
    return self.ndim


@method("sparse_dim")
def _sparse_dim(self: Tensor) -> int:
    return 0


@method("to_dense")
def _to_dense(self: Tensor, dtype: Any = None, *, masked_grad: bool = True) -> Tensor:
    """The tensor itself: every tensor here is dense. See torch.Tensor.to_dense."""
    return self if dtype is None else self.to(dtype)


@method("pin_memory")
def _pin_memory(self: Tensor, device: Any = None) -> Tensor:
    """A copy in page-locked memory, from where a device copies at its full rate and while the host goes on; the tensor
    itself if it lies there. See torch.Tensor.pin_memory.

    Raises RuntimeError where there is no accelerator, and for a tensor on one.
    """
    if not importlib.import_module("graphtorch.runtime.cuda.devices").count():
        raise RuntimeError("Cannot access accelerator device when none is available.")
    if self.device.type != "cpu":
        raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")
    transfer = importlib.import_module("graphtorch.runtime.cuda.transfer")
    if transfer.is_pinned(self._data):
        return self
    fresh = transfer.pinned(tuple(self.shape), self.dtype.numpy)
    np.copyto(fresh, self._host("pin_memory()"))
    return Tensor._wrap(fresh, self.dtype)


@method("record_stream")
def _record_stream(self: Tensor, stream: Any) -> None:
    """Note that another stream uses the memory, so that it is not given out again before that stream is done.

    See torch.Tensor.record_stream. Raises RuntimeError for a tensor that is on no stream's device.
    """
    if self.device.type != "cuda":
        raise RuntimeError("record_stream is implemented for tensors on CUDA devices")
    self._need_memory("record_stream()")
    self._data.memory.record_stream(stream._raw)


@method("narrow_copy")
def _narrow_copy(self: Tensor, dim: int, start: Any, length: int) -> Tensor:
    """`narrow` in memory of its own. See torch.Tensor.narrow_copy."""
    copied: Tensor = self.narrow(dim, start, length).clone()
    return copied


@method("new")
def _new(self: Tensor, *args: Any, device: Any = None) -> Tensor:
    """A tensor of this one's dtype, from sizes or data. See torch.Tensor.new (deprecated there)."""
    if len(args) == 1 and not isinstance(args[0], int | tuple):
        return self.new_tensor(args[0])  # type: ignore[no-any-return]
    sizes = args[0] if len(args) == 1 and isinstance(args[0], tuple) else args or (0,)
    return self.new_empty(sizes)  # type: ignore[no-any-return]


@method("as_subclass")
def _as_subclass(self: Tensor, cls: type[Tensor]) -> Tensor:
    """The same elements and history as an instance of a subclass. See torch.Tensor.as_subclass."""
    if not (isinstance(cls, type) and issubclass(cls, Tensor)):
        raise TypeError("cls must be a type (not an instance) that inherits from Tensor")
    made: Tensor = object.__new__(cls)
    vars(made).update(vars(self.view_as(self)))
    return made


@method("const_data_ptr")
def _const_data_ptr(self: Tensor) -> int:
    return self.data_ptr()


@function()
def to_dlpack(tensor: Tensor) -> Any:
    """A DLPack capsule of the tensor's memory. See torch.utils.dlpack.to_dlpack."""
    return tensor.__dlpack__()
