"""Values that are cheaper computed again than kept in memory: a rewrite of the schedule.

A kernel that stores what it computed from smaller operands makes every reader pay for the larger form: a float32 copy
of bfloat16 numbers, a difference from a mean, a normalised row that the backward pass reads again. On a GPU arithmetic
between a load and a store costs next to nothing, so that readers do it themselves as soon as fewer bytes move in all.
What folds of the kernel contributed is kept in small buffers of its own (the mean and the scale of each row).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from graphtorch.ir.graph import Value
from graphtorch.lowering.kernel import (
    Access,
    Buffer,
    Compute,
    Constant,
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
from graphtorch.lowering.triton.fused import PRODUCTS
from graphtorch.lowering.triton.random import Draws
from graphtorch.lowering.triton.splitting import Facts, copy_expressions
from graphtorch.lowering.triton.tiling import is_one, is_zero
from graphtorch.schedule.fusion import EXPENSIVE
from graphtorch.schedule.indexing import estimate, exact_quotient
from graphtorch.tensor.symint import same_shape, same_size
from graphtorch.tensor.type import TensorType

MOST_INSTRUCTIONS = 16  # in all that a reader computes again; a transcendental one counts four
SMALL = 16  # a buffer of so many times fewer elements costs next to nothing

Strides = tuple[Any, ...]


def recompute_in_readers(schedule: Schedule) -> Schedule:
    """The schedule with values computed again in the kernels that read them, where that moves fewer bytes."""
    work = _Work(schedule)
    for i in range(len(work.steps)):
        step = work.steps[i]
        if type(step) is Kernel:
            for store in reversed(step.stores):  # one that is made of others before these
                work.try_store(i, store)
            again = work.steps[i]
            if again is not step and isinstance(again, Kernel):  # readers have operands now that others are made of
                for store in reversed(again.stores):
                    work.try_store(i, store)
    steps = [s for s in work.steps if not isinstance(s, Kernel) or s.stores]
    return replace(schedule, steps=steps, report=[*schedule.report, *work.report])


@dataclass
class _Formula:
    """What a buffer holds, as an expression of the axes of the kernel that stores it.

    value       without folds
    loops       axes of the kernel that go through the buffer: size, stride in the buffer, the last axis of the kernel
                that is part of it; largest strides first
    made        stores that the kernel needs in addition
    """

    value: Expr
    loops: list[tuple[Any, Any, int]]
    made: list[Store] = field(default_factory=list)


class _Work:
    """The steps while they are rewritten."""

    def __init__(self, schedule: Schedule) -> None:
        self.steps = list(schedule.steps)
        self.kept = {v.buffer for v in schedule.outputs}
        self.report: list[str] = []
        self.readers: dict[Buffer, set[int]] = {}
        self.writers: dict[Buffer, list[int]] = {}
        self.facts: tuple[Kernel, Facts] | None = None  # of the last kernel
        for i, step in enumerate(self.steps):
            for buffer in step.reads():
                self.readers.setdefault(buffer, set()).add(i)
            for buffer in step.writes():
                self.writers.setdefault(buffer, []).append(i)

    def try_store(self, at: int, store: Store) -> None:
        kernel = self.steps[at]
        assert isinstance(kernel, Kernel)
        buffer = store.access.buffer
        readers = sorted(self.readers.get(buffer, ()))
        if buffer.kind != "temporary" or buffer in self.kept or self.writers[buffer] != [at] or not readers:
            return
        if not _bytes(buffer):
            return
        if readers[0] <= at or any(type(self.steps[r]) is not Kernel for r in readers):
            return
        # What the kernel stores elsewhere too is read from there, or is computed from what readers have anyway.
        for stored in (True, False):
            changing: set[Buffer] = set()
            formula = _formula(kernel, store, self._facts_of(kernel), stored)
            if formula is not None and (changing := self._changing(formula, at, readers)):
                formula = _formula(kernel, store, self._facts_of(kernel), stored, frozenset(changing))
                changing = set() if formula is None else self._changing(formula, at, readers)
            if formula is not None and not changing and self._try_formula(at, store, formula, readers):
                return

    def _changing(self, formula: _Formula, at: int, readers: Sequence[int]) -> set[Buffer]:
        """The operands of a formula that have other values when readers run than in the kernel."""
        operands = set(self.steps[at].reads())
        sources = {e.access.buffer for e in post_order([formula.value]) if isinstance(e, Load)}
        last = readers[-1]
        return {b for b in sources if any(at + (b not in operands) <= w <= last for w in self.writers.get(b, ()))}

    def _try_formula(self, at: int, store: Store, formula: _Formula, readers: Sequence[int]) -> bool:
        """Let readers of a store compute it by a formula, if fewer bytes move then."""
        kernel, buffer = self.steps[at], store.access.buffer
        assert isinstance(kernel, Kernel)
        sources = [e for e in post_order([formula.value]) if isinstance(e, Load)]
        if any(isinstance(e.access.buffer, Draws) for e in sources):
            return False
        own = _bytes(buffer)
        read = {e.access.buffer: _touched(e, kernel) for e in sources}
        change = sum(_bytes(s.access.buffer) for s in formula.made) - own
        if len(kernel.stores) == 1 and not formula.made:
            change -= sum(read.values())
        # What runs where a product's tiles are stored reads them for nothing; without it they go to memory.
        change += sum(n * (2 if len(kernel.stores) == 1 else 1) for b, n in read.items() if self._is_tile(b, at))
        for r in readers:
            present = set(self.steps[r].reads())
            change += sum(b for s, b in read.items() if s not in present) - own
        if change > -own // 8:
            return False
        changed: dict[int, Kernel] = {}
        for r in readers:
            reader = self.steps[r]
            assert isinstance(reader, Kernel)
            if _points(reader, buffer) > 2 * _product(map(estimate, buffer.shape)):
                return False
            made = _with_formula(reader, buffer, formula)
            if made is None or _cost(made) - _cost(reader) > MOST_INSTRUCTIONS:
                return False
            changed[r] = made
        stores = [s for s in kernel.stores if s is not store] + formula.made
        self._replace(at, Kernel(kernel.name, kernel.axes, stores, kernel.nodes, kernel.reasons))
        for r, made in changed.items():
            self._replace(r, made)
        self.report.append(
            f"{buffer.name} of {kernel.name} is computed again in {', '.join(k.name for k in changed.values())}"
        )
        return True

    def _facts_of(self, kernel: Kernel) -> Facts:
        """The facts of a kernel, found once for all of its stores."""
        if self.facts is None or self.facts[0] is not kernel:
            self.facts = kernel, Facts(kernel)
        return self.facts[1]

    def _is_tile(self, buffer: Buffer, reader: int) -> bool:
        """Whether a kernel would run in the epilogue of a product, being the only one that reads its result."""
        kernel, made = self.steps[reader], [self.steps[w] for w in self.writers.get(buffer, ())]
        return (
            isinstance(kernel, Kernel)
            and not any(a.reduction for a in kernel.axes)
            and self.readers.get(buffer) == {reader}
            and len(made) == 1
            and isinstance(made[0], ExternCall)
            and made[0].op.name in PRODUCTS
            and buffer not in self.kept
        )

    def _replace(self, at: int, kernel: Kernel) -> None:
        old = self.steps[at]
        for buffer in old.reads():
            self.readers[buffer].discard(at)
        for buffer in old.writes():
            self.writers[buffer].remove(at)
        self.steps[at] = kernel
        for buffer in kernel.reads():
            self.readers.setdefault(buffer, set()).add(at)
        for buffer in kernel.writes():
            self.writers.setdefault(buffer, []).append(at)


# -- what a buffer holds ----------------------------------------------------------------------------------------------


def _formula(
    kernel: Kernel, store: Store, facts: Facts, stored: bool = True, changing: frozenset[Buffer] = frozenset()
) -> _Formula | None:
    """What a store puts into its buffer; None where no reader could compute it.

    stored     made of what the kernel stores elsewhere too, where it is
    changing   operands that will have other values: what comes of them is kept, like what folds contribute
    """
    buffer, access = store.access.buffer, store.access
    if not is_zero(access.offset):
        return None
    axes = sorted(facts.along(access.strides), key=lambda i: -estimate(access.strides[i]))
    expected: Any = 1
    for i in reversed(axes):
        if not same_size(access.strides[i], expected):
            return None
        expected = expected * kernel.axes[i].size
    total: Any = 1
    for size in buffer.shape:
        total = total * size
    if not axes or not same_size(total, expected):
        return None
    made: list[Store] = []
    others = kernel.stores if stored else ()
    whole = [s for s in others if s is not store and same_shape(s.access.strides, access.strides)]
    inside = {id(e) for e in post_order([store.value]) if isinstance(e, Compute) and e is not store.value}
    replaced: dict[int, Expr] = {
        id(s.value): Load(s.access)
        for s in whole
        if id(s.value) in inside and s.value.dtype is s.access.buffer.dtype and is_zero(s.access.offset)
    }
    points = _product(estimate(kernel.axes[i].size) for i in axes)
    if not _cut_folds(kernel, facts, store, points, made, replaced, changing):
        return None
    (value,) = copy_expressions([store.value], replaced, lambda s: s, lambda a: a)
    if value.dtype is not buffer.dtype:
        value = Compute("cast", (value,), buffer.dtype, None)
    leaves = [e for e in post_order([value]) if isinstance(e, Load | Index)]
    strides_of = [e.access.strides if isinstance(e, Load) else e.strides for e in leaves]
    if any(facts.along(s) - set(axes) for s in strides_of):
        return None
    last = axes[-1]
    for leaf, strides in zip(leaves, strides_of, strict=True):
        small = isinstance(leaf, Load) and _touched(leaf, kernel) * SMALL <= _bytes(buffer)
        if isinstance(leaf, Load) and not small and not is_one(strides[last]):
            return None  # readers would go through it in another order than it lies in
    loops: list[tuple[Any, Any, int]] = []
    for i in axes:
        size = kernel.axes[i].size
        if loops and all(same_size(s[loops[-1][2]], s[i] * size) for s in strides_of):
            loops[-1] = (loops[-1][0] * size, access.strides[i], i)
        else:
            loops.append((size, access.strides[i], i))
    return _Formula(value, loops, made)


def _cut_folds(
    kernel: Kernel,
    facts: Facts,
    store: Store,
    points: int,
    made: list[Store],
    replaced: dict[int, Expr],
    changing: frozenset[Buffer],
) -> bool:
    """Find loads that stand for what folds, and operands that change, contributed, and the stores these need; whether
    that is possible."""
    stack, seen = [store.value], set[int]()
    others = [s for s in kernel.stores if s is not store]
    cut = {id(e) for e in facts.exprs if facts.folds[id(e)]}
    if changing:
        for expr in facts.exprs:
            if (isinstance(expr, Load) and expr.access.buffer in changing) or any(
                id(o) in cut for o in expr.operands()
            ):
                cut.add(id(expr))
    while stack:
        expr = stack.pop()
        if id(expr) in seen or id(expr) in replaced or id(expr) not in cut:
            continue
        seen.add(id(expr))
        varies = sorted(facts.varies[id(expr)])
        if _product(estimate(kernel.axes[i].size) for i in varies) * SMALL > points:
            if isinstance(expr, Reduce | Load):
                return False
            stack.extend(expr.operands())
            continue
        if expr.dtype.itemsize < 4 or not expr.dtype.is_floating_point:
            return False
        strides: list[Any] = [0] * len(kernel.axes)
        step: Any = 1
        for i in reversed(varies):
            strides[i] = step
            step = step * kernel.axes[i].size
        found = next((s for s in [*others, *made] if s.value is expr and s.access.buffer.dtype is expr.dtype), None)
        if found is None or not is_zero(found.access.offset):
            shape = tuple(kernel.axes[i].size for i in varies)
            name = f"{kernel.name}_kept{len(made)}"
            value = Value(TensorType(expr.dtype, shape), name)
            found = Store(Access(Buffer(name, expr.dtype, shape, "temporary", value), 0, tuple(strides)), expr)
            made.append(found)
        replaced[id(expr)] = Load(found.access)
    return True


# -- readers ----------------------------------------------------------------------------------------------------------


def _with_formula(reader: Kernel, buffer: Buffer, formula: _Formula) -> Kernel | None:
    """The reader with the formula in the place of loads; None if some load goes through the buffer in another way."""
    replaced: dict[int, Expr] = {}
    for expr in reader.exprs():
        if isinstance(expr, Load) and expr.access.buffer is buffer:
            moved = _along_reader(reader, expr.access, formula.loops)
            if moved is None:
                return None
            replaced[id(expr)] = _transported(formula.value, moved)
    values = _substituted([s.value for s in reader.stores], replaced)
    stores = [Store(s.access, v) for s, v in zip(reader.stores, values, strict=True)]
    return Kernel(reader.name, reader.axes, stores, reader.nodes, reader.reasons)


def _along_reader(
    reader: Kernel, access: Access, loops: Sequence[tuple[Any, Any, int]]
) -> Callable[[Any, Strides], tuple[Any, Strides]] | None:
    """What turns an affine function of the loops into one of the reader's axes; None where there is none."""
    if type(access.offset) is not int:
        return None
    rest = access.offset
    starts: list[int] = []
    for _, stride, _ in loops:
        if rest and type(stride) is not int:
            return None
        starts.append(rest // stride if rest else 0)
        rest = rest % stride if rest else 0
    reach: list[Any] = list(starts)
    factors: list[list[tuple[int, Any]]] = [[] for _ in loops]
    for j, stride in enumerate(access.strides):
        size = reader.axes[j].size
        if is_zero(stride) or is_one(size):
            continue
        for k, (extent, own, _) in enumerate(loops):
            if same_size(stride, own) and same_size(size, extent) and reach[k] == 0:
                reach[k], factor = extent - 1, 1
            else:
                factor = exact_quotient(stride, own)
                if factor is None or not (_least(factor) > 0 and _least(extent - reach[k] - factor * (size - 1)) > 0):
                    continue
                reach[k] = reach[k] + factor * (size - 1)
            factors[k].append((j, factor))
            break
        else:
            return None

    def move(offset: Any, strides: Strides) -> tuple[Any, Strides]:
        moved: list[Any] = [0] * len(reader.axes)
        for k, (_, _, axis) in enumerate(loops):
            along = strides[axis]
            if is_zero(along):
                continue
            offset = offset + along * starts[k]
            for j, factor in factors[k]:
                moved[j] = moved[j] + along * factor
        return offset, tuple(moved)

    return move


def _least(size: Any) -> float:
    """The least that a size can be."""
    if type(size) is int:
        return size
    low = size.bounds()[0]
    return float("-inf") if low is None else float(low)


def _transported(value: Expr, move: Callable[[Any, Strides], tuple[Any, Strides]]) -> Expr:
    made: dict[int, Expr] = {}
    for expr in post_order([value]):
        if isinstance(expr, Load):
            made[id(expr)] = Load(Access(expr.access.buffer, *move(expr.access.offset, expr.access.strides)))
        elif isinstance(expr, Index):
            made[id(expr)] = Index(*move(expr.offset, expr.strides), expr.dtype)
        elif isinstance(expr, Compute):
            arguments = tuple(made[id(a)] for a in expr.arguments)
            made[id(expr)] = Compute(expr.instruction, arguments, expr.dtype, expr.node)
        else:
            assert isinstance(expr, Constant)
            made[id(expr)] = expr
    return made[id(value)]


def _substituted(roots: list[Expr], replaced: dict[int, Expr]) -> list[Expr]:
    """Expressions with others in the place of loads; equal loads are one."""
    made: dict[int, Expr] = {}
    loads: dict[tuple[Any, ...], Expr] = {}

    def shared(root: Expr) -> Expr:
        for expr in post_order([root], frozenset(made)):
            if isinstance(expr, Load):
                access = expr.access
                key = (id(access.buffer), str(access.offset), tuple(map(str, access.strides)))
                made[id(expr)] = loads.setdefault(key, expr)
            elif isinstance(expr, Compute):
                arguments = tuple(made[id(a)] for a in expr.arguments)
                made[id(expr)] = Compute(expr.instruction, arguments, expr.dtype, expr.node)
            elif isinstance(expr, Reduce):
                made[id(expr)] = Reduce(expr.combine, made[id(expr.operand)], expr.axes, expr.dtype, expr.node)
            else:
                made[id(expr)] = expr
        return made[id(root)]

    for key, value in replaced.items():
        made[key] = shared(value)
    return [shared(root) for root in roots]


# -- what it costs ----------------------------------------------------------------------------------------------------


def _cost(kernel: Kernel) -> int:
    """The instructions of a kernel."""
    exprs = kernel.exprs()
    return sum(4 if e.instruction in EXPENSIVE else 1 for e in exprs if isinstance(e, Compute))


def _product(numbers: Any) -> int:
    total = 1
    for n in numbers:
        total *= n
    return total


def _bytes(buffer: Buffer) -> int:
    return _product(map(estimate, buffer.shape)) * buffer.dtype.itemsize


def _points(kernel: Kernel, buffer: Buffer) -> int:
    """How often a kernel would compute what it loads from a buffer: once for all points that it is the same at."""
    loads = (e for e in kernel.exprs() if isinstance(e, Load) and e.access.buffer is buffer)
    counts = [
        _product(estimate(a.size) for a, s in zip(kernel.axes, load.access.strides, strict=True) if not is_zero(s))
        for load in loads
    ]
    return max(counts, default=1)


def _touched(load: Load, kernel: Kernel) -> int:
    """The bytes of a buffer that a kernel reads through a load."""
    sizes = [estimate(a.size) for a, s in zip(kernel.axes, load.access.strides, strict=True) if not is_zero(s)]
    return min(_product(sizes) * load.dtype.itemsize, _bytes(load.access.buffer))
