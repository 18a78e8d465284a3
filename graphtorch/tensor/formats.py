"""Memory formats and layouts: names that PyTorch's signatures accept."""

from __future__ import annotations

from typing import Any


class memory_format:
    """How a tensor's elements are ordered in memory. Instances are singletons. See torch.memory_format."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"torch.{self.name}"

    def __reduce__(self) -> str:
        return self.name


class layout:
    """How a tensor is stored: densely, or as the elements that are there (`graphtorch.sparse`). See torch.layout."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"torch.{self.name}"

    def __reduce__(self) -> str:
        return self.name


contiguous_format = memory_format("contiguous_format")
preserve_format = memory_format("preserve_format")
channels_last = memory_format("channels_last")
channels_last_3d = memory_format("channels_last_3d")
strided = layout("strided")
sparse_coo = layout("sparse_coo")

# Dimensions in the order in which they lie in memory, outermost first.
ORDERS = {"channels_last": (0, 2, 3, 1), "channels_last_3d": (0, 2, 3, 4, 1)}


def format_name(given: Any) -> str | None:
    """A memory format by name; None keeps the operand's own. Raises TypeError for anything that is no memory format."""
    if given is None or given is preserve_format:
        return None
    if not isinstance(given, memory_format):
        raise TypeError(f"argument 'memory_format' must be torch.memory_format, not {type(given).__name__}")
    return given.name


def lies_in(array: Any, name: str) -> bool:
    """Whether an ndarray's memory is in the order of the format of that name; any other name means row-major."""
    order = ORDERS.get(name)
    if order is not None:
        if array.ndim != len(order):
            return False
        array = array.transpose(order)
    return bool(array.flags.c_contiguous)
