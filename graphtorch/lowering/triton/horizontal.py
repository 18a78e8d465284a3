"""One launch for many kernels that do the same to different tensors: an optimizer's update of all parameters.

Pointwise kernels of equal expressions over contiguous tensors become a `GroupedKernel`. Each of its programs finds in
a table in device memory which tensor it works on, how large that is and where its memory lies:

    entry = tl.load(blocks + tl.program_id(0))              which tensor, and which of its blocks
    x_size = tl.load(table + 3 * which)
    in0 = tl.load(table + 3 * which + 1).to(tl.pointer_type(tl.float32))

Kernels with folds (the last sums of a gradient, and the update behind them) are grouped where their sizes are equal,
and those that are not folded known: as many programs for each as it would have alone. Kernels that only read what the
step was given (casts of weights) run first, so that they meet.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from graphtorch.lowering.binding import concrete
from graphtorch.lowering.kernel import (
    Access,
    Buffer,
    Compute,
    Constant,
    ExternCall,
    Kernel,
    Load,
    Reduce,
    Schedule,
    Store,
    post_order,
)
from graphtorch.lowering.triton.codegen import Generated, KernelEmitter, Segment, generate
from graphtorch.lowering.triton.errors import UnsupportedError
from graphtorch.lowering.triton.groups import GroupedKernel
from graphtorch.lowering.triton.instructions import memory
from graphtorch.lowering.triton.memory import Addresses, Spans
from graphtorch.lowering.triton.random import Draws
from graphtorch.lowering.triton.tiling import Blocks, Limits, Tiling, is_one, is_zero, warps
from graphtorch.schedule.indexing import estimate
from graphtorch.tensor.symint import symbols_of

SMALL = 1 << 14  # elements of a kernel that may wait for others although it writes temporaries
TINY = 16  # elements of a kernel that goes before others
MANY = 8  # kernels that read inputs only, from which on they go before others
HELD = 1 << 30  # bytes of temporaries that may wait for a group
FEW = 2  # equal parts of merged kernels elsewhere that make it worth to take kernels apart

Key = tuple[Any, ...]


# -- the schedule -----------------------------------------------------------------------------------------------------


class _Open:
    """A group that still takes members. They run when it is closed."""

    def __init__(self) -> None:
        self.members: list[Kernel] = []
        self.reads: set[Buffer] = set()
        self.writes: set[Buffer] = set()
        self.held = 0

    def conflicts(self, reads: set[Buffer], writes: set[Buffer]) -> bool:
        return bool(self.writes & (reads | writes) or self.reads & writes)

    def add(self, kernel: Kernel) -> None:
        self.members.append(kernel)
        self.reads.update(kernel.reads())
        self.writes.update(kernel.writes())
        self.held += sum(_bytes(b) for b in kernel.reads() if b.kind == "temporary")

    def close(self) -> Kernel:
        first = self.members[0]
        if len(self.members) == 1:
            return first
        return GroupedKernel(first.name, (), [], list(first.nodes), list(first.reasons), self.members)


def group_kernels(schedule: Schedule) -> Schedule:
    """The schedule with kernels that do the same to different tensors as one step, where the order allows it."""
    apart, keys = _apart(schedule.steps)
    steps, early = _inputs_first(_tiny_first(apart), keys)
    pending: dict[Key, _Open] = {}
    known: dict[Key, bool] = {}  # whether there is code for kernels of a key
    result: list[Kernel | ExternCall] = []
    for step in steps:
        reads, writes = set(step.reads()), set(step.writes())
        for key, group in list(pending.items()):
            if group.conflicts(reads, writes) or group.held > HELD:
                result.append(pending.pop(key).close())
        waits = keys[id(step)] if id(step) in early else _waits(step, keys)
        if waits is None or not isinstance(step, Kernel):
            result.append(step)
            continue
        if waits not in known:
            known[waits] = _supported(step)
        if not known[waits]:
            result.append(step)
            continue
        pending.setdefault(waits, _Open()).add(step)
    result.extend(group.close() for group in pending.values())
    return replace(schedule, steps=result)


def _tiny_first(steps: Iterable[Kernel | ExternCall]) -> list[Kernel | ExternCall]:
    """Kernels that make temporaries of a few elements (what an optimizer computes from its step counts) as early as
    they can run, so that those of all parameters meet before the first update. They stay in their order."""
    result: list[Kernel | ExternCall] = []
    touched: list[tuple[set[Buffer], set[Buffer]]] = []
    first = 0  # after the last of them
    for step in steps:
        reads, writes = set(step.reads()), set(step.writes())
        at = len(result)
        tiny = isinstance(step, Kernel) and _elements([a.size for a in step.axes]) <= TINY
        if tiny and all(b.kind == "temporary" for b in writes):
            while at > first and not (touched[at - 1][1] & (reads | writes) or touched[at - 1][0] & writes):
                at -= 1
            first = at + 1
        result.insert(at, step)
        touched.insert(at, (reads, writes))
    return result


def _inputs_first(
    steps: Sequence[Kernel | ExternCall], keys: Mapping[int, Key | None]
) -> tuple[list[Kernel | ExternCall], set[int]]:
    """Kernels that make temporaries of nothing but inputs, if there are many of a kind, before all other steps; and
    which these are, by identity. What they make has its memory for longer, so that there is a limit to it."""
    found: dict[Key, list[Kernel]] = {}
    written: set[Buffer] = set()
    for step in steps:
        if isinstance(step, Kernel) and (key := keys.get(id(step))) is not None:
            given = all(b.kind == "input" and b not in written for b in step.reads())
            if given and step.reads() and all(b.kind == "temporary" for b in step.writes()):
                found.setdefault(key, []).append(step)
        written.update(step.writes())
    early: dict[int, Kernel] = {}
    held = 0
    for kernels in found.values():
        size = sum(_bytes(b) for k in kernels for b in k.writes())
        if len(kernels) >= MANY and held + size <= HELD:
            held += size
            early.update((id(k), k) for k in kernels)
    return [*early.values(), *(s for s in steps if id(s) not in early)], set(early)


def _apart(steps: Iterable[Kernel | ExternCall]) -> tuple[list[Kernel | ExternCall], dict[int, Key | None]]:
    """Kernels that merged independent work over equal sizes as their parts again, where each part has equals; and keys
    of kernels by identity."""
    parts = {id(s): _components(s) for s in steps if isinstance(s, Kernel)}
    keys = {id(part): _key(part) for made in parts.values() for part in made}
    count = Counter(keys.values())
    result: list[Kernel | ExternCall] = []
    for step in steps:
        made = parts.get(id(step), [])
        apart = len(made) > 1 and all((key := keys[id(p)]) is not None and count[key] >= FEW for p in made)
        result.extend(made if apart else [step])
    return result, keys


def _components(kernel: Kernel) -> list[Kernel]:
    """A pointwise kernel as kernels that share no work, no reads of tensors and no memory written, in an order in which
    numbers are read before they are overwritten."""
    if len(kernel.stores) < 2 or any(a.reduction for a in kernel.axes):
        return [kernel]
    varies: dict[int, bool] = {}
    for expr in kernel.exprs():
        own = isinstance(expr, Load) and any(not is_zero(s) for s in expr.access.strides)
        varies[id(expr)] = own or any(varies[id(o)] for o in expr.operands())
    groups: list[tuple[set[Any], list[Store]]] = []
    for store in kernel.stores:
        touched: set[Any] = {store.access.buffer}
        for expr in post_order([store.value]):
            if varies[id(expr)]:
                touched.add(expr.access.buffer if isinstance(expr, Load) else id(expr))
        joined = [g for g in groups if g[0] & touched]
        groups = [g for g in groups if not g[0] & touched]
        stores = [s for g in joined for s in g[1]]
        groups.append((touched.union(*(g[0] for g in joined)), [*stores, store]))
    if len(groups) == 1:
        return [kernel]
    made = []
    for i, (_, stores) in enumerate(groups):
        used = {id(e.node) for e in post_order(s.value for s in stores) if isinstance(e, Compute)}
        nodes = [n for n in kernel.nodes if id(n) in used]
        made.append(Kernel(f"{kernel.name}_{i}", kernel.axes, stores, nodes, kernel.reasons))
    return _readers_first(made) or [kernel]


def _readers_first(kernels: Sequence[Kernel]) -> list[Kernel] | None:
    """Parts of one kernel, each before those that overwrite what it reads. None: there is no such order."""
    left = list(kernels)
    waiting = Counter(b for k in kernels for b in k.reads())  # how many parts have still to read a buffer
    made: list[Kernel] = []
    while left:
        own = [set(k.reads()) for k in left]
        free = [all(waiting[b] == (b in reads) for b in k.writes()) for k, reads in zip(left, own, strict=True)]
        if not any(free):
            return None
        made += [k for k, runs in zip(left, free, strict=True) if runs]
        for reads, runs in zip(own, free, strict=True):
            if runs:
                waiting.subtract(reads)
        left = [k for k, runs in zip(left, free, strict=True) if not runs]
    return made


def _waits(step: Kernel | ExternCall, keys: Mapping[int, Key | None]) -> Key | None:
    """The key of a kernel that may run later than its place: one that updates what is there before and after the run,
    or a small one."""
    if not isinstance(step, Kernel):
        return None
    key = keys[id(step)] if id(step) in keys else _key(step)
    if key is None:
        return None
    small = _elements([a.size for a in step.axes]) <= SMALL
    return key if small or all(b.kind != "temporary" for b in step.writes()) else None


def _key(kernel: Kernel) -> Key | None:
    """What kernels of one group have in common: the expressions up to buffers and size, with folds of the same size.
    None for a kernel that can't be in a group: pointwise ones are over contiguous memory."""
    if type(kernel) is not Kernel:
        return None
    if any(a.reduction for a in kernel.axes):
        return _folding_key(kernel)
    tiling = Tiling(kernel)
    if len(tiling.loops) > 1:
        return None
    slots: dict[Buffer, int] = {}
    numbers: dict[int, int] = {}

    def access(of: Any) -> tuple[Any, ...] | None:
        own = tiling.strides(of.strides)
        if not is_zero(of.offset) or not all(is_zero(s) or is_one(s) for s in own) or isinstance(of.buffer, Draws):
            return None
        return slots.setdefault(of.buffer, len(slots)), of.buffer.dtype, bool(own) and is_one(own[0])

    parts: list[Any] = []
    for expr in tiling.exprs:
        if isinstance(expr, Load):
            part: Any = access(expr.access)
        elif isinstance(expr, Constant) and type(expr.value) in (int, float, bool):
            part = (repr(expr.value), expr.dtype)
        elif isinstance(expr, Compute):
            part = (expr.instruction, expr.dtype, tuple(numbers[id(a)] for a in expr.arguments))
        else:
            part = None
        if part is None:
            return None
        numbers[id(expr)] = len(parts)
        parts.append(part)
    for store in kernel.stores:
        place = access(store.access)
        if place is None:
            return None
        parts.append((place, numbers[id(store.value)]))
    size = tiling.size("x")
    parts.append(len(tiling.loops))
    parts.append(type(size) is int and size % 16 == 0)  # what makes wide loads
    return tuple(parts)


def _folding_key(kernel: Kernel) -> Key | None:
    """The same for a kernel with folds: everything but its buffers."""
    try:
        tiling = Tiling(kernel)
    except UnsupportedError:
        return None
    if any(type(loop.size) is not int and not loop.reduction for loop in tiling.loops) or tiling.part is not None:
        return None
    slots: dict[Buffer, int] = {}
    numbers: dict[int, int] = {}

    def access(of: Access) -> tuple[Any, ...]:
        strides = tuple(map(_name, tiling.strides(of.strides)))
        return slots.setdefault(of.buffer, len(slots)), of.buffer.dtype, _name(of.offset), strides

    parts: list[Any] = [tuple((_name(loop.size), loop.reduction) for loop in tiling.loops)]
    for expr in tiling.exprs:
        if isinstance(expr, Load) and not isinstance(expr.access.buffer, Draws):
            part: Any = access(expr.access)
        elif isinstance(expr, Constant) and type(expr.value) in (int, float, bool):
            part = (repr(expr.value), expr.dtype)
        elif isinstance(expr, Compute):
            part = (expr.instruction, expr.dtype, tuple(numbers[id(a)] for a in expr.arguments))
        elif isinstance(expr, Reduce):
            part = (expr.combine, expr.dtype, numbers[id(expr.operand)])
        else:
            return None
        numbers[id(expr)] = len(numbers)
        parts.append(part)
    parts += [(access(store.access), numbers[id(store.value)]) for store in kernel.stores]
    return tuple(parts)


def _name(size: Any) -> int | str:
    """What is equal for equal sizes, and asks nothing of symbolic ones."""
    return size if type(size) is int else str(size)


def _supported(kernel: Kernel) -> bool:
    accesses = [s.access for s in kernel.stores]
    accesses += [e.access for e in kernel.exprs() if isinstance(e, Load)]
    sizes = [a.size for a in kernel.axes] + [n for a in accesses for n in (a.offset, *a.strides, *a.buffer.shape)]
    names = {n for size in sizes if type(size) is not int for n in symbols_of(size)}
    try:
        generate(kernel, dict.fromkeys(names, 16))
    except UnsupportedError:
        return False
    return True


def _elements(sizes: Iterable[Any]) -> int:
    total = 1
    for size in sizes:
        total *= estimate(size)
    return total


def _bytes(buffer: Buffer) -> int:
    return _elements(buffer.shape) * buffer.dtype.itemsize


# -- code -------------------------------------------------------------------------------------------------------------


def generate_group(group: GroupedKernel, bindings: Mapping[str, int], limits: Limits) -> Generated:
    """The function of a group: the first member's text on memory that a table names."""
    first = Tiling(group.members[0])
    if first.r:
        return _EqualEmitter(group, first, first.blocks(bindings, limits), bindings).generate()
    blocks = Blocks(limits.pointwise, 1, 1, False, warps(limits.pointwise))
    return _GroupEmitter(group, first, blocks, bindings).generate()


class _GroupEmitter(KernelEmitter):
    def __init__(self, group: GroupedKernel, first: Tiling, blocks: Blocks, bindings: Mapping[str, int]) -> None:
        super().__init__(first, blocks, bindings)
        self.group = group
        self.own: list[list[Buffer]] = [_in_order(m) for m in group.members]
        sizes = [math.prod((a.size for a in m.axes), start=1) for m in group.members]
        self.counts = [concrete(n, bindings) for n in sizes]
        self.wide = max(self.counts) + blocks.x >= 2**31
        self.masked = {"x": any(n % blocks.x for n in self.counts)}
        self.even = all(type(n) is int and n % 16 == 0 for n in sizes)

    def _pointers(self) -> dict[Buffer, str]:
        """Arguments: what all members share, then the tables."""
        shared = [all(other[i] is b for other in self.own) for i, b in enumerate(self.own[0])]
        kept = {b: self.buffers[b] for b, s in zip(self.own[0], shared, strict=True) if s}
        self.columns = [i for i, s in enumerate(shared) if not s]
        spans = [-(-n // self.blocks.x) for n in self.counts]
        self.total = sum(spans)
        rows = [[n, *(own[c] for c in self.columns)] for n, own in zip(self.counts, self.own, strict=True)]
        table = Addresses(f"{self.group.name}_table", rows)
        return {**kept, table: "table", Spans(f"{self.group.name}_blocks", spans): "blocks"}

    def _grid(self) -> tuple[tuple[Any, int], ...]:
        return ((self.total, 1),)

    def _head(self, segment: Segment) -> None:
        width = len(self.columns) + 1
        segment.add(f"# {len(self.counts)} tensors of {min(self.counts)} to {max(self.counts)} elements")
        segment.add("entry = tl.load(blocks + tl.program_id(0))")
        segment.add(f"row = table + (entry >> 32) * {width}")
        narrow = "" if self.wide else ".to(tl.int32)"
        size = f"tl.load(row){narrow}"
        segment.add(f"x_size = {f'tl.multiple_of({size}, 16)' if self.even else size}")
        for place, column in enumerate(self.columns):
            buffer = self.own[0][column]
            pointer = f"tl.load(row + {place + 1}).to(tl.pointer_type({memory(buffer.dtype)}))"
            segment.add(f"{self.buffers[buffer]} = tl.multiple_of({pointer}, 16)")
        segment.add(f"x = (entry & 0xFFFFFFFF){narrow} * X_BLOCK + tl.arange(0, X_BLOCK)")
        if self.masked["x"]:
            segment.add("x_mask = x < x_size")


class _EqualEmitter(KernelEmitter):
    """Kernels of one size: so many programs for each."""

    def __init__(self, group: GroupedKernel, first: Tiling, blocks: Blocks, bindings: Mapping[str, int]) -> None:
        super().__init__(first, blocks, bindings)
        self.group = group
        self.own: list[list[Buffer]] = [_in_order(m) for m in group.members]
        self.each = math.prod(-(-concrete(points, bindings) // block) for points, block in super()._grid())
        self.program = f"(tl.program_id(0) % {self.each})"

    def _pointers(self) -> dict[Buffer, str]:
        shared = [all(other[i] is b for other in self.own) for i, b in enumerate(self.own[0])]
        self.columns = [i for i, s in enumerate(shared) if not s]
        table = Addresses(f"{self.group.name}_table", [[own[c] for c in self.columns] for own in self.own])
        return {**{b: self.buffers[b] for b, s in zip(self.own[0], shared, strict=True) if s}, table: "table"}

    def _grid(self) -> tuple[tuple[Any, int], ...]:
        return ((len(self.own) * self.each, 1),)

    def _head(self, segment: Segment) -> None:
        segment.add(f"# {len(self.own)} times the same on other tensors")
        segment.add(f"row = table + tl.program_id(0) // {self.each} * {len(self.columns)}")
        for place, column in enumerate(self.columns):
            buffer = self.own[0][column]
            pointer = f"tl.load(row + {place}).to(tl.pointer_type({memory(buffer.dtype)}))"
            segment.add(f"{self.buffers[buffer]} = tl.multiple_of({pointer}, 16)")
        super()._head(segment)


def _in_order(kernel: Kernel) -> list[Buffer]:
    """The buffers of a kernel in the order in which the emitter names them."""
    found: dict[Buffer, None] = {}
    for expr in kernel.exprs():
        if isinstance(expr, Load):
            found.setdefault(expr.access.buffer)
    for store in kernel.stores:
        found.setdefault(store.access.buffer)
    return list(found)
