"""Kernels that are no single Triton launch, as several: a rewrite of the schedule before code is generated.

Programs of a launch can't wait for each other, so that a fold over what other folds made (a loss: rows, then their
sum) needs a second launch, and one long fold into few results is faster in two. Either way a kernel is cut: the first
part stores partial folds, or values between two folds, into a temporary buffer, and the second goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from graphtorch.ir.graph import Value
from graphtorch.lowering.kernel import (
    Access,
    Axis,
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
from graphtorch.lowering.triton.errors import UnsupportedError
from graphtorch.lowering.triton.groups import PartAxis, RowKernel
from graphtorch.lowering.triton.rewriting import Hints
from graphtorch.lowering.triton.tiling import PROGRAMS, is_zero
from graphtorch.tensor import dtypes
from graphtorch.tensor.symint import same_size
from graphtorch.tensor.type import TensorType

LONG = 8192  # elements of a fold that are worth a second launch
COLUMNS = 64  # that a program folds at once

Axes = frozenset[int]
Folds = frozenset[Axes]


def split_schedule(schedule: Schedule) -> Schedule:
    """The same computation in kernels that each are one launch."""
    steps: list[Kernel | ExternCall] = []
    for step in schedule.steps:
        if not isinstance(step, Kernel) or isinstance(step, RowKernel):
            steps.append(step)
            continue
        parts = split_kernel(step)
        if len(parts) > 1:
            parts = [one for part in parts for one in _each_once(part)]
            parts = _seeing_old_values(step, parts)
            for i, part in enumerate(parts):
                part.name = f"{step.name}_{i}"
        steps.extend(parts)
    return replace(schedule, steps=steps)


def _seeing_old_values(kernel: Kernel, parts: list[Kernel]) -> list[Kernel]:
    """The parts of a kernel where those behind an update read what was there before it, as in the one kernel: the part
    that overwrites a buffer keeps it in another one, or a part before all others does."""
    overwritten = set(kernel.reads()) & set(kernel.writes())
    copies: list[Kernel] = []
    for i, part in enumerate(parts):
        for store in part.stores:
            buffer = store.access.buffer
            if buffer not in overwritten or not any(buffer in later.reads() for later in parts[i + 1 :]):
                continue
            name = f"{buffer.name}_before"
            kept = Buffer(name, buffer.dtype, buffer.shape, "temporary", Value(buffer.value.type, name))
            if _covers(part, store.access):
                place = Access(kept, store.access.offset, store.access.strides)
                stores = [*part.stores, Store(place, Load(store.access))]
                part = parts[i] = Kernel(part.name, part.axes, stores, part.nodes, part.reasons)
            else:
                count: Any = 1
                for size in buffer.shape:
                    count = count * size
                flat = Store(Access(kept, 0, (1,)), Load(Access(buffer, 0, (1,))))
                copies.append(Kernel(kernel.name, (Axis("i0", count),), [flat], kernel.nodes[:1], kernel.reasons))
            parts[i + 1 :] = [_reading(later, buffer, kept) for later in parts[i + 1 :]]
    return [*copies, *parts]


def _covers(kernel: Kernel, access: Access) -> bool:
    """Whether an access goes through its whole buffer."""
    along = [i for i, s in enumerate(access.strides) if not is_zero(s) and not _is_one(kernel.axes[i].size)]
    step: Any = 1
    for i in sorted(along, key=lambda i: _estimate(access.strides[i])):
        if not same_size(access.strides[i], step):
            return False
        step = step * kernel.axes[i].size
    count: Any = 1
    for size in access.buffer.shape:
        count = count * size
    return is_zero(access.offset) and same_size(step, count)


def _reading(kernel: Kernel, buffer: Buffer, other: Buffer) -> Kernel:
    """A kernel with loads of one buffer from another one."""
    replaced: dict[int, Expr] = {}
    for expr in kernel.exprs():
        if isinstance(expr, Load) and expr.access.buffer is buffer:
            replaced[id(expr)] = Load(Access(other, expr.access.offset, expr.access.strides))
    if not replaced:
        return kernel
    values = copy_expressions([s.value for s in kernel.stores], replaced, lambda s: s, lambda a: a)
    stores = [Store(s.access, v) for s, v in zip(kernel.stores, values, strict=True)]
    return Kernel(kernel.name, kernel.axes, stores, kernel.nodes, kernel.reasons)


def split_kernel(kernel: Kernel) -> list[Kernel]:
    """The kernel in parts that fold over one set of axes each, in order. One that is such a part stays as it is, or is
    cut in two because its fold is long."""
    facts = Facts(kernel)
    kinds: Folds = frozenset().union(*(facts.folds[id(r)] for r in facts.reduces))
    if not kinds:
        return [kernel]
    first = {s for r in facts.reduces for s in facts.folds[id(r)] if len(facts.folds[id(r)]) == 1}
    inner = min(first, key=lambda s: (len(s), sorted(s)))
    folded = frozenset(i for i, a in enumerate(kernel.axes) if a.reduction and not _is_one(a.size))
    if len(kinds) > 1:
        return _cut(kernel, facts, inner)
    if folded != inner:
        return split_kernel(rebuild(kernel, kernel.stores, {}, inner))
    if _repeats_folds(kernel, facts, inner):
        return _cut(kernel, facts, inner, reduces_only=True)
    return _split_long(kernel, facts, inner)


def _each_once(kernel: Kernel) -> list[Kernel]:
    """A part of a kernel, without updates in place that programs would repeat: axes that were folded may be parallel
    now, and stores that do not differ along them become kernels of their own, after those that read what was there."""
    facts = Facts(kernel)
    parallel = frozenset(i for i, a in enumerate(kernel.axes) if not a.reduction and not _is_one(a.size))
    groups: dict[Axes, list[Store]] = {}
    for store in kernel.stores:
        groups.setdefault(facts.along(store.access.strides) & parallel, []).append(store)
    read = _read(kernel.stores)
    if not any(s.access.buffer in read for along, stores in groups.items() if along != parallel for s in stores):
        return [kernel]
    parts: list[Kernel] = []
    left = sorted(groups.items(), key=lambda group: -len(group[0]))
    while left:
        group = next(
            (g for g in left if not any({s.access.buffer for s in g[1]} & _read(h[1]) for h in left if h is not g)),
            None,
        )
        if group is None:
            raise RuntimeError(f"{kernel.name} updates buffers in place that its other updates read")
        left.remove(group)
        parts += split_kernel(rebuild(kernel, group[1], {}, None))
    return parts


def _read(stores: Iterable[Store]) -> set[Buffer]:
    """The buffers that the values of stores are computed from."""
    return {e.access.buffer for e in post_order(s.value for s in stores) if isinstance(e, Load)}


class Facts:
    """What the expressions of a kernel vary along, and over which sets of axes they, or what is beneath them, fold."""

    def __init__(self, kernel: Kernel) -> None:
        self.exprs = kernel.exprs()
        self.reduces = [e for e in self.exprs if isinstance(e, Reduce)]
        self.sizes = [a.size for a in kernel.axes]
        self.varies: dict[int, Axes] = {}
        self.folds: dict[int, Folds] = {}
        for expr in self.exprs:
            varies: Axes = frozenset()
            folds: Folds = frozenset()
            for operand in map(id, expr.operands()):  # mostly the same sets again, which then are one object
                if not (more := self.varies[operand]) <= varies:
                    varies = more | varies if varies else more
                if not (beneath := self.folds[operand]) <= folds:
                    folds = beneath | folds if folds else beneath
            if isinstance(expr, Load | Index):
                varies = self.along(expr.access.strides if isinstance(expr, Load) else expr.strides)
            elif isinstance(expr, Reduce):
                folded = self.folded(expr)
                varies, folds = varies - folded, folds | ({folded} if folded else set())
            self.varies[id(expr)], self.folds[id(expr)] = varies, folds

    def along(self, strides: Iterable[Any]) -> Axes:
        return frozenset(i for i, s in enumerate(strides) if not is_zero(s) and not _is_one(self.sizes[i]))

    def folded(self, reduce: Reduce) -> Axes:
        return frozenset(i for i in reduce.axes if not _is_one(self.sizes[i]))


def _cut(
    kernel: Kernel, facts: Facts, inner: Axes, reduces_only: bool = False, front: Axes = frozenset()
) -> list[Kernel]:
    """First the folds over `inner`, with the stores that need no others; then the rest.

    reduces_only    no store that varies along more than the folds' results goes with them
    front           axes that come first in what is handed over: others keep neighbours in memory neighbours
    """
    first: list[Store] = []
    rest: list[Store] = []
    results: Axes = frozenset().union(*(facts.varies[id(r)] for r in facts.reduces))
    # What other folds go over is parallel in the first part: a store must differ along it, or each program along it
    # would repeat the store, and an update in place would be made many times.
    beyond: Axes = frozenset().union(*map(facts.folded, facts.reduces)) - inner
    for store in kernel.stores:
        along = facts.varies[id(store.value)] | facts.along(store.access.strides)
        ready = facts.folds[id(store.value)] <= {inner} and beyond <= along
        if reduces_only:
            ready = ready and along <= results
        (first if ready else rest).append(store)
    # What the second part reads must not have been overwritten by the first.
    while read := _read(rest):
        early = [s for s in first if s.access.buffer in read]
        if not early:
            break
        first = [s for s in first if s.access.buffer not in read]
        rest += early
    replaced: dict[int, Expr] = {}

    def materialize(value: Expr, of: Any) -> Load:
        varies = facts.varies[id(value)] if id(value) in facts.varies else results_of[id(value)]
        return _handed_over(kernel, first, sorted(varies, key=lambda i: (i not in front, i)), value, of)

    results_of: dict[int, Axes] = {}
    needed = post_order(s.value for s in rest)
    for expr in needed:
        if not isinstance(expr, Reduce) or facts.folds[id(expr)] <= {inner}:
            continue
        operand = expr.operand
        beneath = facts.folds[id(operand)]
        if not beneath <= {inner}:
            continue  # a later cut's
        varies = facts.varies[id(operand)]
        outer = tuple(a for a in expr.axes if a not in inner)
        if beneath and not varies & inner:
            replaced[id(operand)] = materialize(operand, _wide(operand.dtype))
        elif inner <= facts.folded(expr) and not expr.combine.startswith("arg"):
            of = _wide(expr.dtype)
            partial = Reduce(expr.combine, operand, tuple(sorted(inner)), of, expr.node)
            results_of[id(partial)] = varies - inner
            replaced[id(expr)] = Reduce(expr.combine, materialize(partial, of), outer, expr.dtype, expr.node)
    remaining = post_order((s.value for s in rest), frozenset(replaced))
    for expr in remaining:
        if isinstance(expr, Reduce) and facts.folds[id(expr)] == {inner} and id(expr) not in replaced:
            replaced[id(expr)] = materialize(expr, _wide(expr.dtype))
    parts = split_kernel(rebuild(kernel, first, {}, inner, front))
    if rest:
        parts.extend(split_kernel(rebuild(kernel, rest, replaced, None)))
    return parts


def _handed_over(kernel: Kernel, first: list[Store], axes: list[int], value: Expr, of: Any) -> Load:
    """Store a value that varies along these axes in a temporary buffer, after the stores in `first`; how it is read."""
    shape = tuple(kernel.axes[i].size for i in axes)
    strides: list[Any] = [0] * len(kernel.axes)
    step: Any = 1
    for i in reversed(axes):
        strides[i] = step
        step = step * kernel.axes[i].size
    name = f"{kernel.name}_part{len(first)}"
    access = Access(Buffer(name, of, shape, "temporary", Value(TensorType(of, shape), name)), 0, tuple(strides))
    first.append(Store(access, value))
    return Load(access)


def _by_phase(kernel: Kernel, facts: Facts, folded: Axes) -> list[Kernel]:
    """First the folds that need no others, then what needs them: each of them may be cut further."""
    first: list[Store] = []
    replaced: dict[int, Expr] = {}
    for fold in facts.reduces:
        if not facts.folds[id(fold.operand)]:
            axes = sorted(facts.varies[id(fold)])
            replaced[id(fold)] = _handed_over(kernel, first, axes, fold, _wide(fold.dtype))
    parts = split_kernel(rebuild(kernel, first, {}, folded))
    return [*parts, *split_kernel(rebuild(kernel, kernel.stores, replaced, None))]


def _without_positions(kernel: Kernel, facts: Facts) -> Kernel:
    """The position of an extremum as the smallest position of an element that equals it (or is NaN): folds that can be
    cut, unlike those of pairs."""
    replaced: dict[int, Expr] = {}
    for fold in facts.reduces:
        if not fold.combine.startswith("arg"):
            continue
        x, node = fold.operand, fold.node
        extremum = Reduce(fold.combine[3:], x, fold.axes, x.dtype, node)
        hit: Expr = Compute("eq", (x, extremum), dtypes.bool_, node)
        if x.dtype.is_floating_point:
            hit = Compute("logical_or", (hit, Compute("isnan", (x,), dtypes.bool_, node)), dtypes.bool_, node)
        strides: list[Any] = [0] * len(kernel.axes)
        step: Any = 1
        for axis in reversed(fold.axes):
            strides[axis] = step
            step = step * kernel.axes[axis].size
        place = Index(0, tuple(strides), dtypes.int64)
        chosen = Compute("where", (hit, place, Constant((1 << 63) - 1, dtypes.int64)), dtypes.int64, node)
        replaced[id(fold)] = Reduce("min", chosen, fold.axes, fold.dtype, node)
    return rebuild(kernel, kernel.stores, replaced, None)


def rebuild(
    kernel: Kernel,
    stores: list[Store],
    replaced: Mapping[int, Expr],
    folded: Axes | None,
    front: Axes = frozenset(),
) -> Kernel:
    """A kernel of these stores, on the axes that they vary along, those in `front` first. Those in `folded` (None:
    those that folds of it are over) are its reduction axes."""
    values = copy_expressions([s.value for s in stores], replaced, lambda s: s, lambda a: a)
    sized = frozenset(i for i, a in enumerate(kernel.axes) if not _is_one(a.size))
    used: set[int] = set()
    over: set[int] = set()
    for expr in post_order(values):
        if isinstance(expr, Load | Index):
            strides = expr.access.strides if isinstance(expr, Load) else expr.strides
            used.update(i for i in sized if not is_zero(strides[i]))
        elif isinstance(expr, Reduce):
            over.update(i for i in expr.axes if i in sized)
    for store in stores:
        used.update(i for i in sized if not is_zero(store.access.strides[i]))
    reduction = over if folded is None else over & folded
    parallel = sorted((used | over) - reduction, key=lambda i: (i not in front, i))
    order = parallel + sorted(reduction)
    place = {old: new for new, old in enumerate(order)}
    axes = tuple(replace(kernel.axes[i], reduction=i in reduction) for i in order)

    def permuted(strides: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(strides[i] for i in order)

    made = copy_expressions(values, {}, permuted, lambda a: tuple(place[i] for i in a if i in place))
    new = [
        Store(Access(s.access.buffer, s.access.offset, permuted(s.access.strides)), value)
        for s, value in zip(stores, made, strict=True)
    ]
    kept = {id(e.node) for e in post_order(made) if isinstance(e, Compute | Reduce) and e.node is not None}
    return Kernel(kernel.name, axes, new, [n for n in kernel.nodes if id(n) in kept], list(kernel.reasons))


def copy_expressions(
    roots: list[Expr],
    replaced: Mapping[int, Expr],
    strides: Callable[[tuple[Any, ...]], tuple[Any, ...]],
    axes: Callable[[tuple[int, ...]], tuple[int, ...]],
) -> list[Expr]:
    """The expressions anew, with others in the place of some."""
    made: dict[int, Expr] = {}
    accesses: dict[Access, Access] = {}

    def access_of(access: Access) -> Access:
        found = accesses.get(access)
        if found is None:
            found = accesses[access] = Access(access.buffer, access.offset, strides(access.strides))
        return found

    def build(expr: Expr) -> Expr:
        if isinstance(expr, Load):
            return Load(access_of(expr.access))
        if isinstance(expr, Index):
            return Index(expr.offset, strides(expr.strides), expr.dtype)
        if isinstance(expr, Compute):
            return Compute(expr.instruction, tuple(made[id(a)] for a in expr.arguments), expr.dtype, expr.node)
        if isinstance(expr, Reduce):
            return Reduce(expr.combine, made[id(expr.operand)], axes(expr.axes), expr.dtype, expr.node)
        assert isinstance(expr, Constant)
        return expr

    # What stands for another expression may itself contain replaced ones (a fold of partial folds never does).
    for source in replaced.values():
        for expr in post_order([source]):
            made.setdefault(id(expr), build(expr))
    for key, target in replaced.items():
        made[key] = made[id(target)]
    for expr in post_order(roots, frozenset(replaced)):
        made[id(expr)] = build(expr)
    return [made[id(root)] for root in roots]


# -- long folds -------------------------------------------------------------------------------------------------------


def _repeats_folds(kernel: Kernel, facts: Facts, folded: Axes) -> bool:
    """Whether programs along some parallel axis would all compute the same folds."""
    parallel = frozenset(range(len(kernel.axes))) - folded
    extra = [i for i in parallel if not any(i in facts.varies[id(r.operand)] for r in facts.reduces)]
    count = 1
    for i in extra:
        count *= _estimate(kernel.axes[i].size)
    return count > 1


def _split_long(kernel: Kernel, facts: Facts, folded: Axes) -> list[Kernel]:
    """Two launches for a long fold into few results. A symbolic size counts as what it was in the call that was
    captured: the number of parts is fixed, their length follows the size."""
    late = all(not (facts.varies[id(s.value)] | facts.along(s.access.strides)) & folded for s in kernel.stores)
    flat = all(not facts.folds[id(r.operand)] for r in facts.reduces)
    points = extent = 1
    for i, loop in enumerate(kernel.axes):
        count = _estimate(loop.size)
        points, extent = (points, extent * count) if i in folded else (points * count, extent)
    columns = _along_columns(kernel, folded)
    enough = LONG
    if columns:  # a program folds many neighbouring ones
        points, enough = max(-(-points // COLUMNS), 1), LONG // 8
    if extent <= enough or points >= PROGRAMS // 2 or any(isinstance(kernel.axes[i], PartAxis) for i in folded):
        return [kernel]
    if not late:
        return _cut(kernel, facts, folded, reduces_only=True)
    if any(r.combine.startswith("arg") for r in facts.reduces):
        return split_kernel(_without_positions(kernel, facts))
    if not flat:
        return _by_phase(kernel, facts, folded)
    wanted = max(min(PROGRAMS // max(points, 1), extent // max(enough // 4, 2)), 2)
    axis = min(folded)
    size = kernel.axes[axis].size
    if len(folded) > 1 and _estimate(size) <= wanted:
        return _cut(kernel, facts, folded - {axis}, front=frozenset({axis} if columns else ()))
    chunks = _divisor(size, wanted) if type(size) is int else 1
    front: Axes = frozenset({axis} if columns else ())
    if chunks > 1:
        divided = _divide_axis(kernel, axis, chunks, size // chunks)
    else:
        if any(axis not in facts.varies[id(r.operand)] for r in facts.reduces) or not has_code(kernel):
            return [kernel]
        # Parts begin at multiples of 16 elements where they are neighbours in memory, for wide loads.
        step = 1 if columns or len(folded) > 1 else 16
        divided = _divide_axis(kernel, axis, wanted, (size + (wanted * step - 1)) // (wanted * step) * step)
    return _cut(divided, Facts(divided), frozenset(i + 1 for i in folded), front=front)


def has_code(kernel: Kernel) -> bool:
    """Whether a kernel's instructions have a Triton form. Others run on the host, which knows no parts of folds."""
    from graphtorch.lowering.triton.codegen import generate

    try:
        generate(kernel, Hints())
    except UnsupportedError:
        return False
    return True


def _along_columns(kernel: Kernel, folded: Axes) -> bool:
    """Whether memory is contiguous along an axis that is not folded."""
    score = 0
    for expr in kernel.exprs():
        if isinstance(expr, Load) and any(not is_zero(expr.access.strides[i]) for i in folded):
            for i, stride in enumerate(expr.access.strides):
                if _is_one(stride) and not _is_one(kernel.axes[i].size):
                    score += -1 if i in folded else 1
    return score > 0


def _divide_axis(kernel: Kernel, axis: int, chunks: int, rest: Any) -> Kernel:
    """The kernel with one axis as two: which chunk, and where in it. Chunks of `rest` places cover the axis."""
    old = kernel.axes[axis]
    name = f"{old.name}_chunk"
    outer, inner = Axis(name, chunks, old.reduction), Axis(old.name, rest, old.reduction)
    if not same_size(chunks * rest, old.size):
        inner = PartAxis(old.name, rest, old.reduction, name, old.size)

    def strides(of: tuple[Any, ...]) -> tuple[Any, ...]:
        return (*of[:axis], of[axis] * rest, *of[axis:])

    def axes(of: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(j for i in of for j in ((i, i + 1) if i == axis else (i + (i > axis),)))

    values = copy_expressions([s.value for s in kernel.stores], {}, strides, axes)
    stores = [
        Store(Access(s.access.buffer, s.access.offset, strides(s.access.strides)), v)
        for s, v in zip(kernel.stores, values, strict=True)
    ]
    every = (*kernel.axes[:axis], outer, inner, *kernel.axes[axis + 1 :])
    return Kernel(kernel.name, every, stores, kernel.nodes, kernel.reasons)


def _divisor(size: int, wanted: int) -> int:
    """The largest divisor of `size` that is at most `wanted`, if it is not far below."""
    for chunks in range(min(wanted, size), max(wanted // 4, 1), -1):
        if size % chunks == 0:
            return chunks
    return 1


def _wide(of: Any) -> Any:
    """Half precision is not what is kept between two launches."""
    return dtypes.float32 if of in (dtypes.float16, dtypes.bfloat16) else of


def _is_one(size: Any) -> bool:
    return type(size) is int and size == 1


def _estimate(size: Any) -> int:
    return size if type(size) is int else size.hint or 1024
