"""The memory order of recorded results: the one that eager execution would give them."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphtorch.frontend.recorded import Recorded
from graphtorch.ir.builder import hint
from graphtorch.ir.graph import Value
from graphtorch.ops.dispatch import lies_in_rows
from graphtorch.ops.record import Operator
from graphtorch.ops.strides import layout_of, ordered_strides, pointwise_strides
from graphtorch.tensor.tensor import Tensor

_NUMBER_LAYOUT: np.ndarray[Any, Any] = np.empty((), np.int8)


def pointwise_layout(op: Operator, args: tuple[Any, ...], result: Value) -> np.ndarray[Any, Any] | None:
    """The layout that eager execution gives to a pointwise result; None for row-major."""
    if op.scalar == "copy" and args[1] is not None:
        return None  # clone into a given memory format
    if lies_in_rows(op, args[0]):
        return None
    layouts = _layouts(op, args)
    if all(layout.flags.c_contiguous for layout in layouts):
        return None
    shape = tuple(hint(size) for size in result.shape)
    strides = pointwise_strides(shape, [layout_of(a) for a in layouts])
    element = np.empty(1, result.dtype.numpy)
    return np.lib.stride_tricks.as_strided(element, shape, [s * element.itemsize for s in strides])


def stated_layout(op: Operator, args: tuple[Any, ...], name: str, result: Value) -> np.ndarray[Any, Any]:
    """The layout of a result whose record states a memory order."""
    shape = tuple(hint(size) for size in result.shape)
    strides = ordered_strides(op.order[name], shape, [layout_of(a) for a in _layouts(op, args)])
    element = np.empty(1, result.dtype.numpy)
    return np.lib.stride_tricks.as_strided(element, shape, [s * element.itemsize for s in strides])


def _layouts(op: Operator, args: tuple[Any, ...]) -> list[np.ndarray[Any, Any]]:
    """Arrays over no memory with the operands' shapes and strides."""
    found = [
        a._data.layout if isinstance(a, Tensor) and isinstance(a._data, Recorded) else _NUMBER_LAYOUT
        for parameter, a in zip(op.parameters, args, strict=True)
        if parameter.is_operand and a is not None
    ]
    return found[::-1] if op.order.get("result") == "reversed" else found
