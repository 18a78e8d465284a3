"""The memory plan: where each temporary buffer of a schedule lies in one arena.

A buffer lives from the step that writes it to the last step that reads it. Buffers that live at the same time get
disjoint ranges; a kernel's result may take over the memory of an operand that dies there, if it reads that operand only
at the element that it writes. Inputs belong to the caller and outputs are handed over to it: neither is in the arena.

Symbolic sizes are planned when they are known: `plan(schedule, bindings)` costs well under a millisecond for a training
step.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np

from graphtorch.lowering.kernel import Access, Buffer, Expr, Kernel, Load, Schedule
from graphtorch.tensor.symint import evaluate, same_shape, same_size

ALIGNMENT = 64  # a cache line, and the widest vector


@dataclass(eq=False, slots=True)
class Slot:
    """A range of the arena, held by one buffer after another."""

    size: int
    first: int
    last: int
    offset: int = 0
    buffers: list[Buffer] = field(default_factory=list)


@dataclass(eq=False)
class MemoryPlan:
    """Offsets of the temporary buffers, in bytes.

    arena_bytes     what an executor allocates for them
    peak_bytes      the most that live at one step: no plan can be smaller without changing the order of steps
    total_bytes     what they would take without reuse
    output_bytes    allocated for each call and handed to the caller
    """

    offsets: dict[Buffer, int]
    sizes: dict[Buffer, int]
    lifetimes: dict[Buffer, tuple[int, int]]
    arena_bytes: int
    peak_bytes: int
    total_bytes: int
    output_bytes: int


def nbytes(buffer: Buffer, bindings: Mapping[str, int]) -> int:
    """The size of a buffer."""
    total = buffer.dtype.itemsize
    for size in buffer.shape:
        total *= evaluate(size, bindings)
    return total


def aligned(size: int) -> int:
    """Rounded up to the alignment."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def lifetimes(schedule: Schedule, together: Sequence[Sequence[int]] = ()) -> dict[Buffer, tuple[int, int]]:
    """First and last step of every temporary buffer; one that nobody reads lives for one step.

    `together` are runs of neighbouring steps that take place at the same time: what one of them touches lives through
    all of them."""
    found: dict[Buffer, tuple[int, int]] = {}
    for i, step in enumerate(schedule.steps):
        for buffer in step.writes():
            if buffer.kind == "temporary":
                found.setdefault(buffer, (i, i))
        for buffer in step.reads():
            if buffer.kind == "temporary":
                found[buffer] = (found[buffer][0], i)
    if together:
        begin = {i: run[0] for run in together for i in run}
        end = {i: run[-1] for run in together for i in run}
        found = {b: (begin.get(first, first), end.get(last, last)) for b, (first, last) in found.items()}
    return found


def plan(
    schedule: Schedule,
    bindings: Mapping[str, int] | None = None,
    together: Sequence[Sequence[int]] = (),
    without: Collection[Buffer] = (),
) -> MemoryPlan:
    """Assign offsets. `bindings` are the values of the symbols that occur in sizes; `together`: see `lifetimes`;
    buffers in `without` need no place.

    Law: best fit by decreasing size; each slot takes the smallest gap, among slots that live at the same time, that
    holds it.
    """
    known = bindings or {}
    lives = {b: life for b, life in lifetimes(schedule, together).items() if b not in without}
    sizes = {b: nbytes(b, known) for b in lives}
    slots = _slots(schedule, lives, sizes, {i for run in together for i in run})
    placed = np.empty((4, len(slots)), np.int64)  # offset, end, first and last step of slots, by offset
    count = 0
    for slot in sorted(slots, key=lambda s: (-s.size, s.first)):
        low, _, first, last = placed[:, :count]
        slot.offset = _offset(placed[:2, :count][:, (first <= slot.last) & (last >= slot.first)], slot.size)
        if slot.size:
            at = int(low.searchsorted(slot.offset, "right"))
            placed[:, at + 1 : count + 1] = placed[:, at:count]
            placed[:, at] = slot.offset, slot.offset + slot.size, slot.first, slot.last
            count += 1
    change = [0] * (len(schedule.steps) + 2)
    for slot in slots:
        change[slot.first] += slot.size
        change[slot.last + 1] -= slot.size
    live = list(accumulate(change))
    offsets = {b: slot.offset for slot in slots for b in slot.buffers}
    outputs = {v.buffer for v in schedule.outputs if v.buffer.kind == "output"}
    return MemoryPlan(
        offsets,
        sizes,
        lives,
        max((s.offset + s.size for s in slots), default=0),
        max(live),
        sum(aligned(n) for n in sizes.values()),
        sum(nbytes(b, known) for b in outputs),
    )


def _offset(neighbours: np.ndarray[Any, Any], size: int) -> int:
    """The start of the smallest gap of at least `size` bytes between neighbours (offsets and ends, by offset), or
    behind them."""
    low, high = neighbours
    if not len(low):
        return 0
    reach = np.maximum.accumulate(high)
    start = np.concatenate(([0], reach[:-1]))
    gap = low - start
    fits = np.flatnonzero(gap >= size)
    return int(reach[-1] if not len(fits) else start[fits[gap[fits].argmin()]])


def _slots(
    schedule: Schedule, lives: dict[Buffer, tuple[int, int]], sizes: dict[Buffer, int], joint: set[int]
) -> list[Slot]:
    """One slot a buffer, or a chain of buffers that take over each other's memory; not within `joint` steps, whose
    neighbours may still read at other places what this one would overwrite."""
    slot_of: dict[Buffer, Slot] = {}
    slots: list[Slot] = []
    for i, step in enumerate(schedule.steps):
        alone = isinstance(step, Kernel) and i not in joint
        dying = [b for b in step.reads() if b in lives and lives[b][1] == i] if alone else []
        for buffer in step.writes():
            if buffer not in lives or buffer in slot_of:
                continue
            heir: Slot | None = None
            for old in dying:
                assert isinstance(step, Kernel)
                if (
                    sizes[old] == sizes[buffer]
                    and old.dtype.itemsize == buffer.dtype.itemsize
                    and may_overwrite(step, old, buffer)
                ):
                    heir = slot_of[old]
                    dying.remove(old)
                    break
            if heir is None:
                heir = Slot(aligned(sizes[buffer]), lives[buffer][0], i)
                slots.append(heir)
            heir.buffers.append(buffer)
            heir.last = max(heir.last, lives[buffer][1])
            slot_of[buffer] = heir
    return slots


def may_overwrite(kernel: Kernel, old: Buffer, new: Buffer) -> bool:
    """Whether `kernel` may store `new` into the memory of `old`, which it reads.

    Law: it may if it accesses both only at the same element, and that element belongs to one point of the parallel
    axes: strides along reduction axes are 0, so that no later pass over them reads what an earlier one has overwritten,
    and strides along parallel axes are not, so that no other program does.
    """
    stores = [s.access for s in kernel.stores if s.access.buffer is new]
    if len(stores) != 1:
        return False
    target = stores[0]
    for axis, stride in zip(kernel.axes, target.strides, strict=True):
        fixed = type(stride) is int and stride == 0
        if fixed != axis.reduction and not (type(axis.size) is int and axis.size == 1):
            return False
    return all(
        same_size(a.offset, target.offset) and same_shape(a.strides, target.strides)
        for a in loads_of(kernel)
        if a.buffer is old
    )


def loads_of(kernel: Kernel) -> list[Access]:
    """Every access that a kernel reads through."""
    found: list[Access] = []
    seen: set[int] = set()
    stack: list[Expr] = [s.value for s in kernel.stores]
    while stack:
        expr = stack.pop()
        if id(expr) in seen:
            continue
        seen.add(id(expr))
        if isinstance(expr, Load):
            found.append(expr.access)
        stack.extend(expr.operands())
    return found
