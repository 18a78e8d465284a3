"""Updates of small parameters and statistics as NumPy code on their arrays: a parameter of a few thousand elements is
updated in less time than a single operator takes to be called. The numbers are those of the operators, which do it in
all other cases: large parameters, other dtypes and layouts, other devices, under a recorder, or where the update is
differentiated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphtorch.autograd.state import state
from graphtorch.ops.dispatch import quiet
from graphtorch.ops.native import LARGE
from graphtorch.tensor.devices import CPU
from graphtorch.tensor.tensor import Tensor

__all__ = ["count_of", "count_up", "update"]

Array = np.ndarray[Any, Any]
_KINDS = frozenset((np.dtype(np.float32), np.dtype(np.float64)))


def count_of(step: Any) -> Array | None:
    """The array of a state's count, which may be added to in place; None where operators must count."""
    if type(step) is Tensor and state.recorder is None and not state.grad_enabled and step._device is CPU:
        data = step._data
        if type(data) is np.ndarray and data.dtype in _KINDS and not data.ndim and data.flags.writeable:
            return None if step._base is not None or step._inference else data
    return None


def count_up(step: Tensor) -> None:
    """Add 1 to a state's count."""
    taken = count_of(step)
    if taken is None:
        step.add_(1)
    else:
        taken += 1
        step._bump_version()


def update(function: Callable[..., Any], written: tuple[Tensor, ...], read: Tensor, *numbers: Any) -> bool:
    """Call `function(*written, read, *numbers)` on the arrays, of which it changes all but `read`; False, with nothing
    called, where the tensors are not small and alike."""
    if state.recorder is not None or state.grad_enabled:
        return False
    first = written[0]._data
    if type(first) is not np.ndarray or first.dtype not in _KINDS or not first.ndim or first.size >= LARGE:
        return False
    arrays = []
    for tensor in (*written, read):
        data = tensor._data
        if (
            type(data) is not np.ndarray
            or data.dtype != first.dtype
            or data.shape != first.shape
            or not data.flags.c_contiguous
            or not data.flags.writeable
            or tensor._device is not CPU
            or tensor._base is not None
            or tensor._inference
        ):
            return False
        arrays.append(data)
    quiet.run(function, *arrays, *numbers)
    for tensor in written:
        tensor._bump_version()
    return True
