"""Folds that leave nothing else to share over threads, in two steps: partial results of chunks, then their fold.

    sum of one large vector        one partial sum a chunk, then the sum of these
    a loss over a batch            rows are folded, and their cotangents stored, chunk by chunk
    a bias gradient                with few columns, each chunk of rows gives a row of partial sums
    x / norm(x)                    partial sums; their fold; then every element

The number of chunks does not depend on how many threads there are, and partial results are combined in order: a result
is the same in every run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from graphtorch.ir.graph import Value
from graphtorch.lowering.cpu.expansion import SCRATCH
from graphtorch.lowering.cpu.nest import Nest, estimate, walk
from graphtorch.lowering.kernel import (
    Access,
    Axis,
    Buffer,
    Compute,
    Expr,
    Index,
    Kernel,
    Load,
    Reduce,
    Store,
)
from graphtorch.schedule.indexing import product, row_major
from graphtorch.tensor import dtypes
from graphtorch.tensor.dtypes import dtype
from graphtorch.tensor.type import TensorType

CHUNKS = 32
LEAST_WORK = 150_000  # additions
LEAST_STEPS = 8  # of the fold, in a chunk
_COMBINES = ("sum", "prod", "max", "min", "any", "all")


def split_folds(kernel: Kernel, register_bits: int, threads: int) -> list[Kernel] | None:
    """The kernels, in order, that compute a kernel in several steps; None if it is as good as it is."""
    if threads < 2 or not any(axis.reduction for axis in kernel.axes):
        return None
    nest = Nest(kernel, register_bits)
    if not nest.reduces or _units(nest) >= 2 * threads:
        return None
    work = nest.cost()
    for size in nest.points():
        work *= max(estimate(size), 1)
    if work < LEAST_WORK:
        return None
    axis = max(_outer_axes(kernel, nest), key=lambda a: estimate(kernel.axes[a].size), default=-1)
    if axis < 0 or estimate(kernel.axes[axis].size) < CHUNKS * LEAST_STEPS:
        return None
    parallel = [a.size for a in kernel.axes if not a.reduction]
    if not all(type(size) is int for size in parallel):
        return None  # scratch memory is planned for known sizes
    return _Splitting(kernel, axis).run(lambda rest: split_folds(rest, register_bits, threads))


def _units(nest: Nest) -> int:
    """How many pieces the emitter would share over threads."""
    sizes = [estimate(loop.size) for i, loop in enumerate(nest.loops) if not loop.reduction and i != nest.vector]
    if sizes:
        return int(product(sizes))
    if nest.vector >= 0 and not nest.loops[nest.vector].reduction:
        return estimate(nest.loops[nest.vector].size) // (4 * nest.lanes)
    return 1


def _outer_axes(kernel: Kernel, nest: Nest) -> list[int]:
    """The kernel's axes that only the outermost folds run over; none if partial results can't be combined."""
    if not nest.levels:
        return []
    own = nest.levels[-1] & ~(nest.levels[-2] if len(nest.levels) > 1 else 0)
    chosen = nest.axes_in(own)
    if any(r.combine not in _COMBINES for r in nest.reduces if set(r.axes) & set(chosen)):
        return []
    return chosen


class _Frame(NamedTuple):
    """How a new kernel's axes relate to the old ones': accesses and folds, rewritten."""

    access: Callable[[Any, tuple[Any, ...]], tuple[Any, tuple[Any, ...]]]  # (offset, strides) -> new ones
    axes: Callable[[tuple[int, ...]], tuple[int, ...]]


def _rewritten(roots: Iterable[Expr], frame: _Frame, known: dict[int, Expr]) -> dict[int, Expr]:
    """Every expression below the roots in the new frame; `known` has those that stand for themselves already."""
    stack: list[tuple[Expr, bool]] = [(r, False) for r in roots]
    while stack:
        e, ready = stack.pop()
        if id(e) in known:
            continue
        if not ready:
            stack.append((e, True))
            stack.extend((o, False) for o in e.operands())
            continue
        made: Expr
        if isinstance(e, Load):
            made = Load(Access(e.access.buffer, *frame.access(e.access.offset, e.access.strides)))
        elif isinstance(e, Index):
            made = Index(*frame.access(e.offset, e.strides), e.dtype)
        elif isinstance(e, Compute):
            made = Compute(e.instruction, tuple(known[id(a)] for a in e.arguments), e.dtype, e.node)
        elif isinstance(e, Reduce):
            made = Reduce(e.combine, known[id(e.operand)], frame.axes(e.axes), e.dtype, e.node)
        else:
            made = e
        known[id(e)] = made
    return known


class _Splitting:
    """One kernel, whose folds over `axis` are computed in chunks."""

    def __init__(self, kernel: Kernel, axis: int) -> None:
        self.kernel = kernel
        self.axis = axis
        self.rank = len(kernel.axes)
        self.size = kernel.axes[axis].size
        self.steps = self.size // CHUNKS
        self.rest = self.size - self.steps * CHUNKS
        self.parallel = [i for i, a in enumerate(kernel.axes) if not a.reduction]
        self.shape = tuple(kernel.axes[i].size for i in self.parallel)
        self.count = int(product(self.shape))
        self.whole = type(self.rest) is int and self.rest == 0
        self.parts = CHUNKS if self.whole else CHUNKS + 1
        roots = [s.value for s in kernel.stores]
        self.over = [e for e in walk(roots) if isinstance(e, Reduce) and axis in e.axes]
        needing = {id(e) for e in self.over}
        self.first = [
            r for r in self.over if not any(id(e) in needing for e in walk([r.operand]))
        ]  # what no other such fold is needed for

    def run(self, again: Callable[[Kernel], list[Kernel] | None]) -> list[Kernel]:
        partials = {id(r): self._scratch(r, self.parts) for r in self.first}
        early = [s for s in self.kernel.stores if self._stored_early(s)]
        made = [self._chunks(partials, early)]
        if not self.whole:
            made.append(self._remainder(partials, early))
        late = [s for s in self.kernel.stores if s not in early]
        if not late:
            return made
        left = [e for e in walk(s.value for s in late) if isinstance(e, Reduce)]
        varies = any(self._varies(s) for s in late)
        done = {id(r) for r in self.first}
        if not varies and all(id(r) in done for r in left):
            made.append(self._final(partials, late))
            return made
        totals = {id(r): self._scratch(r, 1) for r in self.first}
        made.append(self._totals(partials, totals))
        following = self._following(totals, late, varies)
        return [*made, *(again(following) or [following])]

    # -- what goes where ---------------------------------------------------------------------------------------------

    def _scratch(self, reduce: Reduce, rows: int) -> Buffer:
        d = _wide(reduce.dtype)
        shape = (rows, *self.shape)
        name = f"{self.kernel.name}_{'partial' if rows > 1 else 'total'}{self.first.index(reduce)}"
        return Buffer(name, d, shape, SCRATCH, Value(TensorType(d, shape), name))

    def _stored_early(self, store: Store) -> bool:
        """Whether a store varies along the axis and needs none of its folds."""
        over = {id(r) for r in self.over}
        return self._varies(store) and not any(id(e) in over for e in walk([store.value]))

    def _varies(self, store: Store) -> bool:
        stride = store.access.strides[self.axis]
        return not (type(stride) is int and stride == 0)

    def _places(self, offset: Any, chunk: tuple[Any, ...], reductions: int) -> tuple[Any, tuple[Any, ...]]:
        """An element of scratch memory: the kernel's own parallel axes, behind `chunk`'s strides."""
        return offset, (*chunk, *row_major(self.shape), *(0,) * reductions)

    # -- kernels -----------------------------------------------------------------------------------------------------

    def _kernel(self, suffix: str, axes: Iterable[Axis], stores: list[Store]) -> Kernel:
        return Kernel(f"{self.kernel.name}_{suffix}", tuple(axes), stores, self.kernel.nodes, self.kernel.reasons)

    def _resized(self, size: Any) -> list[Axis]:
        """The axes, with another size of the one that is split."""
        return [Axis(a.name, size, True) if i == self.axis else a for i, a in enumerate(self.kernel.axes)]

    def _chunks(self, partials: dict[int, Buffer], early: list[Store]) -> Kernel:
        """A parallel axis of chunks in front of the others."""
        frame = _Frame(
            lambda offset, strides: (offset, (strides[self.axis] * self.steps, *strides)),
            lambda axes: tuple(a + 1 for a in axes),
        )
        place = self._places(0, (self.count,), self.rank - len(self.parallel))
        axes = [Axis("chunk", CHUNKS), *self._resized(self.steps)]
        return self._kernel("chunks", axes, self._partial_stores(frame, partials, early, place))

    def _remainder(self, partials: dict[int, Buffer], early: list[Store]) -> Kernel:
        """What is left behind the last whole chunk."""
        done = self.steps * CHUNKS
        frame = _Frame(
            lambda offset, strides: (offset + strides[self.axis] * done, strides),
            lambda axes: axes,
        )
        place = self._places(CHUNKS * self.count, (), self.rank - len(self.parallel))
        stores = self._partial_stores(frame, partials, early, place)
        return self._kernel("rest", self._resized(self.rest), stores)

    def _partial_stores(
        self, frame: _Frame, partials: dict[int, Buffer], early: list[Store], place: tuple[Any, tuple[Any, ...]]
    ) -> list[Store]:
        known = _rewritten([*self.first, *(s.value for s in early)], frame, {})
        stores = []
        for r in self.first:
            buffer = partials[id(r)]
            fold = known[id(r)]
            assert isinstance(fold, Reduce)
            fold.dtype = buffer.dtype
            stores.append(Store(Access(buffer, *place), fold))
        for s in early:
            stores.append(
                Store(Access(s.access.buffer, *frame.access(s.access.offset, s.access.strides)), known[id(s.value)])
            )
        return stores

    def _folded(self, reduce: Reduce, buffer: Buffer, strides: tuple[Any, ...], axis: int) -> Expr:
        """The fold of partial results."""
        return Reduce(reduce.combine, Load(Access(buffer, 0, strides)), (axis,), buffer.dtype, reduce.node)

    def _final(self, partials: dict[int, Buffer], late: list[Store]) -> Kernel:
        """The stores of a kernel that needs nothing but the folds: the split axis goes over partial results."""

        def dropped(strides: tuple[Any, ...]) -> tuple[Any, ...]:
            return (*(strides[i] for i in self.parallel), 0)

        frame = _Frame(lambda offset, strides: (offset, dropped(strides)), lambda axes: axes)
        last = len(self.parallel)
        strides = (*row_major(self.shape), self.count)
        known = {id(r): _as(self._folded(r, partials[id(r)], strides, last), r.dtype) for r in self.first}
        known = _rewritten([s.value for s in late], frame, known)
        axes = [*(self.kernel.axes[i] for i in self.parallel), Axis("chunk", self.parts, True)]
        stores = [
            Store(Access(s.access.buffer, s.access.offset, dropped(s.access.strides)), known[id(s.value)]) for s in late
        ]
        return self._kernel("final", axes, stores)

    def _totals(self, partials: dict[int, Buffer], totals: dict[int, Buffer]) -> Kernel:
        last = len(self.parallel)
        axes = [*(self.kernel.axes[i] for i in self.parallel), Axis("chunk", self.parts, True)]
        strides = (*row_major(self.shape), self.count)
        stores = [
            Store(Access(totals[id(r)], *self._places(0, (), 1)), self._folded(r, partials[id(r)], strides, last))
            for r in self.first
        ]
        return self._kernel("totals", axes, stores)

    def _following(self, totals: dict[int, Buffer], late: list[Store], varies: bool) -> Kernel:
        """The rest of the kernel, with the folds in memory; the split axis is parallel if no fold is left over it."""
        done = {id(r) for r in self.first}
        left = any(id(r) not in done for r in self.over)
        order = list(range(self.rank))
        axes = list(self.kernel.axes)
        if not varies and not left:
            axes[self.axis] = Axis(axes[self.axis].name, 1, True)
        elif not left:
            order.remove(self.axis)
            order.insert(len(self.parallel), self.axis)
            axes[self.axis] = Axis(axes[self.axis].name, self.size)
        at = {old: new for new, old in enumerate(order)}
        frame = _Frame(
            lambda offset, strides: (offset, tuple(strides[i] for i in order)),
            lambda folded: tuple(at[a] for a in folded),
        )
        place = self._places(0, (), self.rank - len(self.parallel))
        known = {id(r): _as(Load(Access(totals[id(r)], *place)), r.dtype) for r in self.first}
        known = _rewritten([s.value for s in late], frame, known)
        stores = [
            Store(Access(s.access.buffer, *frame.access(s.access.offset, s.access.strides)), known[id(s.value)])
            for s in late
        ]
        return self._kernel("following", (axes[i] for i in order), stores)


def _wide(d: dtype) -> dtype:
    """Partial results of half precision stay in float32."""
    return dtypes.float32 if d in (dtypes.float16, dtypes.bfloat16) else d


def _as(value: Expr, d: dtype) -> Expr:
    return value if value.dtype is d else Compute("cast", (value,), d)
