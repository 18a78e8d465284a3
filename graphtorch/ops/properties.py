"""Questions about tensors and dtypes, as functions of the public namespace."""

from __future__ import annotations

from typing import Any

from graphtorch.ops import pointwise
from graphtorch.ops.build import function
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
