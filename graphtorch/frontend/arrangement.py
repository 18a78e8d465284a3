"""The memory order of a compiled function's results: what a capture says of it, and arrays put into it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from graphtorch.frontend.layouts import order_of
from graphtorch.frontend.recorded import Steps
from graphtorch.lowering.binding import concrete
from graphtorch.ops.record import lookup
from graphtorch.ops.strides import contiguous_strides, dense_strides, extent, layout_of, under
from graphtorch.tensor.remote import DeviceArray, as_device, contiguous, plain, runtime
from graphtorch.tensor.tensor import Tensor


@dataclass(frozen=True, slots=True)
class Within:
    """Memory that is no result, and of which one is a view: the symbolic sizes, the dimensions from the largest stride
    down, and the way from there to the result."""

    shape: tuple[Any, ...]
    order: tuple[int, ...]
    steps: Steps

    def strides(self, bindings: dict[str, int]) -> tuple[int, ...]:
        """The result's strides, in elements, under sizes by symbol."""
        shape, order = concrete((self.shape, self.order), bindings)
        layout = np.lib.stride_tricks.as_strided(np.empty(1, np.int8), shape, dense_strides(shape, order[::-1]))
        for op, attributes in self.steps:
            layout = layout[attributes[0]] if op.name == "index" else op.numpy(layout, *concrete(attributes, bindings))
        return layout.strides


def within_of(recorded: Tensor) -> Within | None:
    """The memory that a tensor of symbolic sizes is a part of; None where it has all of its own."""
    data, layout = recorded._data, recorded._data.layout
    shape, base = data.value.type.shape, data.storage.base
    if not data.steps and 0 in layout.strides:  # expanded, as gradients of sums are
        part = tuple(1 if s == 0 else n for n, s in zip(shape, layout.strides, strict=True))
        return Within(part, order_of(layout), ((lookup("expand"), (shape,)),))
    if not data.steps or base is None:
        return None
    return Within(base._data.value.type.shape, order_of(base._data.layout), tuple(map(_at_start, data.steps)))


def _at_start(step: tuple[Any, Any]) -> tuple[Any, Any]:
    """A step of a view's way; `x[i]` for a tensor `i` as NumPy's key of the first element, of the same strides."""
    op, attributes = step
    return (op, (tuple(slice(None) if i is None else 0 for i in attributes[0]),)) if op.name == "index" else step


def by_rows(layout: np.ndarray[Any, Any]) -> bool:
    """Whether an array has the strides of row-major order, those of dimensions of size 1 included."""
    return layout_of(layout)[1] == contiguous_strides(layout.shape)


def laid_out(array: Any, strides: tuple[int, ...] | None, order: tuple[int, ...] | None = None) -> Any:
    """A result in the memory order that eager execution gives it."""
    if type(array) is DeviceArray:
        if strides is None and order is not None:
            turned = contiguous(as_device(plain(array).transpose(order), array))
            return as_device(_tight(plain(turned)).transpose(np.argsort(order)), turned)
        if strides is None:
            return contiguous(array)
        if _same_places(array, strides):
            return as_device(under(plain(array), strides), array)
        return runtime().with_strides(array, [s * array.itemsize for s in strides])
    if strides is None and order is not None:
        return _tight(np.ascontiguousarray(array.transpose(order))).transpose(np.argsort(order))
    if strides is None:
        return array if array.flags.c_contiguous else np.ascontiguousarray(array)
    if _same_places(array, strides):
        return under(array, strides)
    made = np.lib.stride_tricks.as_strided(
        np.empty(extent(array.shape, strides), array.dtype), array.shape, [s * array.itemsize for s in strides]
    )
    made[...] = array
    return made


def _tight(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A row-major array with strides of dimensions of size 1 as if these were larger."""
    return under(array, contiguous_strides(array.shape)) if 1 in array.shape else array


def _same_places(array: Any, strides: tuple[int, ...]) -> bool:
    """Whether an array lies under strides, in elements, but for dimensions of size 1."""
    pairs = zip(array.shape, array.strides, strides, strict=True)
    return all(n == 1 or own == s * array.itemsize for n, own, s in pairs) and 0 not in strides
