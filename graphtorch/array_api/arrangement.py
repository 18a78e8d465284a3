"""Shapes and positions in the array API standard's words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphtorch import ops
from graphtorch.array_api.types import result_type
from graphtorch.tensor.tensor import Tensor


def broadcast_to(x: Tensor, /, shape: tuple[int, ...]) -> Tensor:
    """`x` repeated into a shape, as a view."""
    made: Tensor = ops.broadcast_to(x, shape)
    return made


def broadcast_arrays(*arrays: Tensor) -> list[Tensor]:
    """All arrays in their common shape, as views."""
    return list(ops.broadcast_tensors(*arrays))


def _joined(arrays: Sequence[Tensor]) -> list[Tensor]:
    d = result_type(*arrays)
    return [a.to(d) for a in arrays]


def concat(arrays: Sequence[Tensor], /, *, axis: int | None = 0) -> Tensor:
    """The arrays one after the other along an existing axis; `axis=None` flattens them first."""
    parts = _joined(arrays)
    if axis is None:
        parts, axis = [a.reshape(-1) for a in parts], 0
    made: Tensor = ops.cat(parts, axis)
    return made


def stack(arrays: Sequence[Tensor], /, *, axis: int = 0) -> Tensor:
    """The arrays one after the other along a new axis."""
    made: Tensor = ops.stack(_joined(arrays), axis)
    return made


def unstack(x: Tensor, /, *, axis: int = 0) -> tuple[Tensor, ...]:
    """The slices along an axis, as views."""
    return tuple(ops.unbind(x, axis))


def expand_dims(x: Tensor, /, axis: int) -> Tensor:
    """A new axis of size 1."""
    made: Tensor = ops.unsqueeze(x, axis)
    return made


def squeeze(x: Tensor, /, axis: int | tuple[int, ...]) -> Tensor:
    """`x` without the given axes. Raises ValueError for one whose size is not 1."""
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    for a in axes:
        if x.size(a) != 1:
            raise ValueError(f"squeeze(): axis {a} of an array of shape {tuple(x.shape)} has size {x.size(a)}, not 1")
    made: Tensor = ops.squeeze(x, axes)
    return made


def flip(x: Tensor, /, *, axis: int | tuple[int, ...] | None = None) -> Tensor:
    """The elements in reverse order along some axes, or all."""
    made: Tensor = ops.flip(x, tuple(range(x.ndim)) if axis is None else axis)
    return made


def moveaxis(x: Tensor, source: Any, destination: Any, /) -> Tensor:
    """`x` with axes in other places, as a view."""
    made: Tensor = ops.moveaxis(x, source, destination)
    return made


def permute_dims(x: Tensor, /, axes: tuple[int, ...]) -> Tensor:
    """`x` with its axes in another order, as a view."""
    made: Tensor = ops.permute(x, axes)
    return made


def matrix_transpose(x: Tensor, /) -> Tensor:
    """`x` with its last two axes swapped, as a view."""
    made: Tensor = ops.transpose(x, -1, -2)
    return made


def reshape(x: Tensor, /, shape: tuple[int, ...], *, copy: bool | None = None) -> Tensor:
    """The elements in another shape.

    Raises ValueError where `copy` is False and only a copy could have the shape.
    """
    if copy is False:
        try:
            view: Tensor = x.view(shape)
        except RuntimeError as error:
            raise ValueError(f"reshape(): only a copy of this array can have shape {tuple(shape)}") from error
        return view
    made: Tensor = (x.clone() if copy else x).reshape(shape)
    return made


def repeat(x: Tensor, repeats: int | Tensor, /, *, axis: int | None = None) -> Tensor:
    """Each element (or slice along an axis) several times in a row."""
    made: Tensor = ops.repeat_interleave(x, repeats, axis)
    return made


def tile(x: Tensor, repetitions: tuple[int, ...], /) -> Tensor:
    """Copies of the whole array side by side."""
    made: Tensor = ops.tile(x, repetitions)
    return made


def roll(x: Tensor, /, shift: Any, *, axis: Any = None) -> Tensor:
    """The elements moved along some axes, those that fall out at one end coming in at the other."""
    if axis is None:
        made: Tensor = ops.roll(x, shift)
        return made
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    shifts = (shift,) * len(axes) if isinstance(shift, int) else tuple(shift)
    made = ops.roll(x, shifts, axes)
    return made


def take(x: Tensor, indices: Tensor, /, *, axis: int | None = None) -> Tensor:
    """The slices at some positions of an axis, which may be left out for one-dimensional arrays."""
    if axis is None:
        if x.ndim != 1:
            raise ValueError(f"take(): an array of {x.ndim} dimensions needs 'axis'")
        axis = 0
    made: Tensor = ops.index_select(x, axis, indices.reshape(-1) % max(x.size(axis), 1))
    if indices.ndim == 1:
        return made
    axis %= x.ndim
    made = made.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))
    return made


def take_along_axis(x: Tensor, indices: Tensor, /, *, axis: int = -1) -> Tensor:
    """One element for each index, along an axis. `indices` has as many dimensions as `x` and broadcasts to it."""
    made: Tensor = ops.take_along_dim(x, indices % max(x.size(axis), 1), axis)
    return made
