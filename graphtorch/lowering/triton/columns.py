"""Sums over rows inside the kernel that goes through the rows: the weight gradients of a norm.

A kernel whose programs each handle rows (a norm's forward and backward) and another that sums over all rows what the
first one computes or reads would take that through memory twice. Here some hundred programs go through the rows
instead, each with running sums of its own, and a small kernel adds these up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from graphtorch.ir.graph import Value
from graphtorch.lowering.kernel import (
    Access,
    Axis,
    Buffer,
    Compute,
    Expr,
    ExternCall,
    Index,
    Kernel,
    Load,
    Reduce,
    Schedule,
    Store,
    post_order,
)
from graphtorch.lowering.triton.codegen import AHEAD, Generated, KernelEmitter, Segment
from graphtorch.lowering.triton.errors import UnsupportedError
from graphtorch.lowering.triton.groups import RowKernel
from graphtorch.lowering.triton.instructions import convert, register
from graphtorch.lowering.triton.splitting import copy_expressions
from graphtorch.lowering.triton.tiling import (
    LONGEST,
    PROGRAMS,
    SHORT,
    Blocks,
    Limits,
    Tiling,
    power_of_two,
    rows_together,
    warps,
)
from graphtorch.schedule.indexing import estimate
from graphtorch.tensor import dtypes
from graphtorch.tensor.symint import same_shape, same_size
from graphtorch.tensor.type import TensorType

WIDEST = 8192  # elements of a row that is held in registers
FEWEST = 1024  # rows that are worth it


def programs(width: int, rows: Any) -> int:
    """How many programs go through the rows. Those of one warp each are small enough for twice as many at once."""
    alone = SHORT < power_of_two(width) <= LONGEST
    return 2 * PROGRAMS if alone and estimate(rows) >= 8 * FEWEST else PROGRAMS


Strides = tuple[Any, ...]
Steps = Sequence[Kernel | ExternCall | None]
Users = dict[Buffer, list[int]]  # a buffer -> the positions of the steps that read it, or of those that write it


def fuse_columns(schedule: Schedule) -> Schedule:
    """The schedule with sums over rows in the kernels that go through these rows."""
    steps: list[Kernel | ExternCall | None] = list(schedule.steps)
    readers: Users = {}
    writers: Users = {}
    for i, user in enumerate(schedule.steps):
        for buffer in user.reads():
            readers.setdefault(buffer, []).append(i)
        for buffer in user.writes():
            writers.setdefault(buffer, []).append(i)
    result: list[Kernel | ExternCall] = []
    kept = {v.buffer for v in schedule.outputs}
    for i, step in enumerate(steps):
        if step is None:
            continue
        rows = _rows_of(step) if isinstance(step, Kernel) else None
        if rows is None or not isinstance(step, Kernel):
            result.append(step)
            continue
        sums: list[Store] = []
        late: list[Kernel] = []
        for j in _candidates(steps, readers, writers, i):
            other = steps[j]
            assert isinstance(other, Kernel)
            made = _absorb(step, rows, other, len(sums))
            if made is not None and len(sums) + len(made[0]) <= 4:
                sums += made[0]
                late.append(made[1])
                steps[j] = None
        if not sums:
            result.append(step)
            continue
        needed = kept.union(*(k.reads() for k in late))
        needed |= {b for b in step.writes() if b.kind != "temporary" or _between(steps, readers, b, i, len(steps))}
        stores = [s for s in step.stores if s.access.buffer in needed]
        nodes = [*step.nodes, *(n for k in late for n in k.nodes if n not in step.nodes)]
        result.append(RowKernel(step.name, step.axes, [*stores, *sums], nodes, list(step.reasons), sums))
        result.extend(late)
    return replace(schedule, steps=result)


def _rows_of(kernel: Kernel) -> Tiling | None:
    """The tiling of a kernel that holds rows in registers, enough of them."""
    if not any(a.reduction for a in kernel.axes):
        return None
    try:
        tiling = Tiling(kernel)
    except UnsupportedError:
        return None
    if not tiling.reduces or len(tiling.x) != 1 or len(tiling.r) != 1 or isinstance(kernel, RowKernel):
        return None
    width, count = tiling.size("r"), tiling.size("x")
    if type(width) is not int or not 1 < width <= WIDEST or estimate(count) < FEWEST:
        return None
    varies = [tiling.varies[id(r.operand)] for r in tiling.reduces]
    return tiling if all("x" in v for v in varies) else None


def _candidates(steps: Steps, readers: Users, writers: Users, at: int) -> list[int]:
    """Kernels after a step that could run right after it, and have an operand in common with it."""
    kernel = steps[at]
    assert kernel is not None
    near = {b for b in (*kernel.reads(), *kernel.writes()) if len(b.shape) > 1}
    found = []
    for j in sorted({j for b in near for j in readers.get(b, ()) if j > at}):
        step = steps[j]
        if not isinstance(step, Kernel) or any(_between(steps, writers, b, at, j) for b in step.reads()):
            continue
        if not any(_between(steps, users, b, at, j) for b in step.writes() for users in (readers, writers)):
            found.append(j)
    return found


def _between(steps: Steps, users: Users, buffer: Buffer, first: int, last: int) -> bool:
    """Whether a step between two others is one of a buffer's users."""
    return any(first < i < last and steps[i] is not None for i in users.get(buffer, ()))


def _absorb(kernel: Kernel, rows: Tiling, other: Kernel, count: int) -> tuple[list[Store], Kernel] | None:
    """Stores of partial sums in the first kernel, and what remains of the other one."""
    if isinstance(other, RowKernel) or not any(a.reduction for a in other.axes):
        return None
    try:
        columns = Tiling(other)
    except UnsupportedError:
        return None
    if len(columns.x) != 1 or len(columns.r) != 1 or not columns.reduces:
        return None
    width, length = columns.size("x"), columns.size("r")
    if not same_size(width, rows.size("r")) or not same_size(length, rows.size("x")):
        return None
    if any(r.combine != "sum" or columns.phase[id(r.operand)] for r in columns.reduces):
        return None
    if any("r" in columns.varies[id(s.value)] for s in other.stores) or set(other.reads()) & set(_donated(kernel)):
        return None
    stored = {s.access.buffer: s for s in kernel.stores}
    loaded = [e for e in rows.exprs if isinstance(e, Load)]
    shared = False

    def moved(of: Strides) -> Strides:
        """Strides along the axes of the first kernel."""
        own = columns.strides(of)
        made: list[Any] = [0] * len(kernel.axes)
        for loop, stride in ((rows.loops[rows.x[0]], own[columns.r[0]]), (rows.loops[rows.r[0]], own[columns.x[0]])):
            step = stride
            for member in reversed(loop.members):
                made[member] = step
                step = step * kernel.axes[member].size
        return tuple(made)

    replaced: dict[int, Expr] = {}
    operands = [r.operand for r in columns.reduces]
    for expr in post_order(operands):
        if isinstance(expr, Load):
            access = Access(expr.access.buffer, expr.access.offset, moved(expr.access.strides))
            store = stored.get(access.buffer)
            if store is None:
                same = next((e for e in loaded if _same(e.access, access)), None)
                shared = shared or same is not None
                replaced[id(expr)] = same or Load(access)
                continue
            if not _same(store.access, access):
                return None
            shared = True
            value = store.value
            if value.dtype is not access.buffer.dtype:
                value = Compute("cast", (value,), access.buffer.dtype, None)
            replaced[id(expr)] = value
        elif isinstance(expr, Index):
            replaced[id(expr)] = Index(expr.offset, moved(expr.strides), expr.dtype)
    if not shared:
        return None
    values = _substituted(operands, replaced)
    sums, reduces = [], dict[int, Expr]()
    first = next(i for i, a in enumerate(other.axes) if a.reduction)
    for i, (fold, value) in enumerate(zip(columns.reduces, values, strict=True)):
        of = dtypes.float32 if fold.dtype in (dtypes.float16, dtypes.bfloat16) else fold.dtype
        name = f"{kernel.name}_sums{count + i}"
        shape = (programs(width, length), width)
        partial = Buffer(name, of, shape, "temporary", Value(TensorType(of, shape), name))
        across: list[Any] = [0] * len(kernel.axes)
        along: list[Any] = [0] * len(other.axes)
        for made, axes, loop in (
            (across, kernel.axes, rows.loops[rows.r[0]]),
            (along, other.axes, columns.loops[columns.x[0]]),
        ):
            step: Any = 1
            for member in reversed(loop.members):
                made[member] = step
                step = step * axes[member].size
        along[first] = width
        sums.append(Store(Access(partial, 0, tuple(across)), value))
        load = Load(Access(partial, 0, tuple(along)))
        reduces[id(fold)] = Reduce("sum", load, (first,), fold.dtype, fold.node)
    # The parallel axes, then one over the programs.
    axes = (*other.axes[:first], Axis("program", programs(width, length), True))
    results = copy_expressions([s.value for s in other.stores], reduces, lambda s: s[: first + 1], lambda a: (first,))
    stores = [
        Store(Access(s.access.buffer, s.access.offset, (*s.access.strides[:first], 0)), v)
        for s, v in zip(other.stores, results, strict=True)
    ]
    return sums, Kernel(other.name, axes, stores, other.nodes, other.reasons)


def _same(a: Access, b: Access) -> bool:
    return a.buffer is b.buffer and same_size(a.offset, b.offset) and same_shape(a.strides, b.strides)


def _donated(kernel: Kernel) -> list[Buffer]:
    """Buffers that a kernel reads and overwrites: another reader of them would see either."""
    reads = set(kernel.reads())
    return [b for b in kernel.writes() if b in reads]


def _substituted(roots: list[Expr], replaced: Mapping[int, Expr]) -> list[Expr]:
    """Expressions with others in the place of their leaves, which are shared, not copied."""
    made: dict[int, Expr] = dict(replaced)
    for expr in post_order(roots, frozenset(replaced)):
        if isinstance(expr, Compute):
            arguments = tuple(made[id(a)] for a in expr.arguments)
            made[id(expr)] = Compute(expr.instruction, arguments, expr.dtype, expr.node)
        else:
            made[id(expr)] = expr
    return [made[id(root)] for root in roots]


# -- code -------------------------------------------------------------------------------------------------------------


def generate_rows(kernel: RowKernel, bindings: Mapping[str, int], limits: Limits) -> Generated:
    """The function of such a kernel."""
    tiling = Tiling(kernel)
    width = power_of_two(tiling.size("r"))
    together = rows_together(width, limits)
    long = width > SHORT and together == 1
    count = tiling.row_warps(width, limits, len(kernel.columns)) if long else warps(together * width)
    return _RowEmitter(kernel, tiling, Blocks(together, 1, width, True, count), bindings).generate()


class _RowEmitter(KernelEmitter):
    def __init__(self, kernel: RowKernel, tiling: Tiling, blocks: Blocks, bindings: Mapping[str, int]) -> None:
        super().__init__(tiling, blocks, bindings)
        self.columns = {id(s): i for i, s in enumerate(kernel.columns)}
        self.programs = programs(tiling.size("r"), tiling.size("x"))

    def _grid(self) -> tuple[tuple[Any, int], ...]:
        return ((self.programs, 1),)

    def _head(self, segment: Segment) -> None:
        for buffer, name in self.buffers.items():
            shape = ", ".join(map(str, buffer.shape))
            segment.add(f"# {name}: {buffer.name}, {buffer.dtype.abbreviation}[{shape}]")
        wide = ".to(tl.int64)" if self.wide else ""
        for d in ("x", "r"):
            segment.add(f"{d}_size = {self.sizes.text(self.tiling.size(d))}")
        segment.add(f"r = tl.arange(0, R_BLOCK)[None, :]{wide}")
        if self.masked["r"]:
            segment.add("r_mask = r < r_size")

    def _straight(self, segment: Segment) -> None:
        t = self.tiling
        self._emit(segment, [e for e in t.exprs if "x" not in t.varies[id(e)]])
        for store in self.kernel.stores:
            if id(store) in self.columns:
                of = register(store.access.buffer.dtype)
                segment.add(f"sum{self.columns[id(store)]} = tl.zeros([1, R_BLOCK], {of})")
        wide = ".to(tl.int64)" if self.wide else ""
        steps = f"tl.program_id(0) * X_BLOCK, x_size, {self.programs} * X_BLOCK"
        segment.add(f"for x_start in {self._range(steps)}:")
        inner = Segment(segment.indent + "    ")
        inner.add(f"x = x_start + tl.arange(0, X_BLOCK)[:, None]{wide}")
        if self.masked["x"]:
            inner.add("x_mask = x < x_size")
        self._emit(inner, t.exprs)
        for store in self.kernel.stores:
            if id(store) in self.columns:
                self._accumulate(inner, store)
            else:
                self._store(inner, store)
        segment.lines += inner.lines
        for store in self.kernel.stores:
            if id(store) in self.columns:
                out = self.buffers[store.access.buffer]
                mask = ", mask=r_mask" if self.masked["r"] else ""
                number = self.columns[id(store)]
                segment.add(f"tl.store({out} + tl.program_id(0) * r_size + r, sum{number}{mask})")

    def _range(self, steps: str) -> str:
        """The range of the loop: what it loads is copied to shared memory up to two steps ahead, if there is room. Few
        programs with many registers would wait for memory all the time."""
        t = self.tiling
        loads = {e.access: e for e in t.exprs if isinstance(e, Load) and {"x", "r"} <= t.varies[id(e)]}
        taken = sum(self.blocks.x * self.blocks.r * e.dtype.itemsize for e in loads.values())
        ahead = min(AHEAD // taken, 2) if taken else 0
        return f"tl.range({steps}, num_stages={ahead + 1})" if ahead else f"range({steps})"

    def _accumulate(self, segment: Segment, store: Store) -> None:
        of = store.access.buffer.dtype
        value = convert(self._value(store.value), store.value.dtype, of)
        x = "X_BLOCK" if "x" in self.tiling.varies[id(store.value)] else "1"
        if x == "1" or "r" not in self.tiling.varies[id(store.value)]:
            value = f"tl.broadcast_to({value}, [X_BLOCK, R_BLOCK])"
        if self.masked["x"]:
            value = f"tl.where(x_mask, {value}, 0)"
        segment.add(f"sum{self.columns[id(store)]} += tl.sum({value}, 0)[None, :]")
