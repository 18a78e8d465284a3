"""Calls that only move elements, as kernels: joining, padding, and writing a part of a whole.

Each is a few affine copies into the result: zeros (or the old elements), and then the parts at their places. Parts of
one shape are copied by one kernel with several stores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphtorch.lowering.kernel import (
    Access,
    Axis,
    Buffer,
    Compute,
    Constant,
    Expr,
    ExternCall,
    Kernel,
    Load,
    Store,
    View,
)
from graphtorch.schedule.indexing import product, row_major
from graphtorch.tensor import dtypes
from graphtorch.tensor.symint import same_shape

MOST_ADDITIONS = 64  # kernels for the places of a window

Rule = Callable[[ExternCall, Buffer], "list[Kernel] | None"]
Place = tuple[tuple[Any, ...], Any]  # strides and offset of a part in the whole


def _copies(name: str, parts: Sequence[tuple[View, Place]], out: Buffer) -> Kernel:
    """Copy parts of one shape to their places."""
    axes = tuple(Axis(f"i{i}", size) for i, size in enumerate(parts[0][0].shape))
    stores = []
    for view, (strides, offset) in parts:
        value: Expr = Load(Access(view.buffer, view.offset, view.strides))
        if view.buffer.dtype is not out.dtype:
            value = Compute("cast", (value,), out.dtype)
        stores.append(Store(Access(out, offset, strides), value))
    return Kernel(f"{name}_{out.name}", axes, stores)


def filled(target: Buffer, value: Any) -> Kernel:
    """Set every element."""
    axis = Axis("i0", product(target.shape))
    return Kernel(f"fill_{target.name}", (axis,), [Store(Access(target, 0, (1,)), Constant(value, target.dtype))])


def whole_copy(view: View, out: Buffer) -> Kernel:
    """`out` as a row-major copy of a view."""
    return _copies("copy", [(view, (row_major(out.shape), 0))], out)


def _cat(call: ExternCall, out: Buffer) -> list[Kernel] | None:
    tensors, dim = call.args
    strides = row_major(out.shape)
    groups: dict[tuple[Any, ...], list[tuple[View, Place]]] = {}
    start: Any = 0
    for view in tensors:
        if len(view.shape) != len(out.shape):
            continue  # an empty vector, which takes part in any concatenation
        size = view.shape[dim]
        groups.setdefault(tuple(view.shape), []).append((view, (strides, start * strides[dim])))
        start = start + size
    return [_copies(f"cat{i}", parts, out) for i, parts in enumerate(groups.values())]


def _slice_place(sizes: Sequence[Any], dim: int, start: Any, end: Any, step: Any) -> Place:
    strides = row_major(sizes)
    return (*strides[:dim], strides[dim] * step, *strides[dim + 1 :]), start * strides[dim]


def _select_place(sizes: Sequence[Any], dim: int, index: Any) -> Place:
    strides = row_major(sizes)
    return (*strides[:dim], *strides[dim + 1 :]), index * strides[dim]


def _diagonal_place(sizes: Sequence[Any], offset: int, dim1: int, dim2: int) -> Place:
    strides = row_major(sizes)
    rest = tuple(s for i, s in enumerate(strides) if i not in (dim1, dim2))
    first = offset * strides[dim2] if offset >= 0 else -offset * strides[dim1]
    return (*rest, strides[dim1] + strides[dim2]), first


def _backward(place: Callable[..., Place]) -> Rule:
    """Zeros with a part written."""

    def rule(call: ExternCall, out: Buffer) -> list[Kernel] | None:
        part, sizes, *attributes = call.args
        copy = _copies("part", [(part, place(sizes, *attributes))], out)
        return [copy] if _covers(part, out) else [filled(out, 0), copy]

    return rule


def _scatter(place: Callable[..., Place]) -> Rule:
    """The old elements with a part written."""

    def rule(call: ExternCall, out: Buffer) -> list[Kernel] | None:
        whole, part, *attributes = call.args
        copy = _copies("part", [(part, place(out.shape, *attributes))], out)
        return [copy] if _covers(part, out) else [whole_copy(whole, out), copy]

    return rule


def _covers(part: View, out: Buffer) -> bool:
    own, wanted = (tuple(s for s in shape if not (type(s) is int and s == 1)) for shape in (part.shape, out.shape))
    return len(own) == len(wanted) and same_shape(own, wanted)


def _unfold_backward(call: ExternCall, out: Buffer) -> list[Kernel] | None:
    """Windows added up: each place of a window is a copy, or, where windows overlap, an addition of its own, so that
    none meets another's elements."""
    part, sizes, dim, size, step = call.args
    if not sizes or type(size) is not int or type(step) is not int or size > MOST_ADDITIONS:
        return None
    if out.dtype in (dtypes.float16, dtypes.bfloat16) and size > step:
        return None  # sums of half precision are kept in float32
    strides = row_major(sizes)
    windows = (*strides[:dim], strides[dim] * step, *strides[dim + 1 :])
    if size <= step:
        return [filled(out, 0), _copies("windows", [(part, ((*windows, strides[dim]), 0))], out)]
    kernels = [filled(out, 0)]
    axes = tuple(Axis(f"i{i}", n) for i, n in enumerate(part.shape[:-1]))
    for k in range(size):
        given = Load(Access(part.buffer, part.offset + k * part.strides[-1], part.strides[:-1]))
        place = Access(out, k * strides[dim], windows)
        total = Compute("add", (Load(place), given), out.dtype)
        kernels.append(Kernel(f"window{k}_{out.name}", axes, [Store(place, total)]))
    return kernels


def _pad(call: ExternCall, out: Buffer) -> list[Kernel] | None:
    """`pad` holds a pair a dimension, the last dimension first; a negative one cuts."""
    x, pad, value = call.args
    if isinstance(value, View) or not all(type(p) is int for p in pad):
        return None
    strides = row_major(out.shape)
    first: Any = 0
    offset, shape = x.offset, list(x.shape)
    for k in range(len(pad) // 2):
        dim = len(shape) - 1 - k
        before, after = pad[2 * k], pad[2 * k + 1]
        first = first + max(before, 0) * strides[dim]
        offset = offset - min(before, 0) * x.strides[dim]
        shape[dim] = shape[dim] + min(before, 0) + min(after, 0)
    if any(type(s) is int and s <= 0 for s in shape):
        return [filled(out, value)]
    inner = View(x.buffer, tuple(shape), x.strides, offset)
    copy = _copies("pad", [(inner, (strides, first))], out)
    return [copy] if _covers(inner, out) else [filled(out, value), copy]


RULES: dict[str, Rule] = {
    "cat": _cat,
    "constant_pad_nd": _pad,
    "slice_backward": _backward(_slice_place),
    "select_backward": _backward(_select_place),
    "unfold_backward": _unfold_backward,
    "diagonal_backward": _backward(_diagonal_place),
    "slice_scatter": _scatter(_slice_place),
    "select_scatter": _scatter(_select_place),
    "diagonal_scatter": _scatter(_diagonal_place),
}


def movement(call: ExternCall) -> list[Kernel] | None:
    """The kernels of a call that moves elements; None for other calls."""
    rule, out = RULES.get(call.op.name), call.outputs[0]
    return None if rule is None or out is None else rule(call, out)
