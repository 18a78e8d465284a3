"""The emitter: one Kernel becomes one LLVM function `void(ptr args, i64 low, i64 high)`.

`args` holds the buffers' addresses and then the values of symbolic sizes, 8 bytes each; [low, high) is the part of
the outermost loop to run, so that threads share a kernel by its rows (or, where there are only vectors, by ranges of
elements).

The nest is: the outermost loop, other parallel loops, then the folds from the outermost level inwards. At each level
the folds run in passes, because one may need another's result (softmax: the maximum, then the sum). A store goes
along with the first pass after which its value is known. Expensive values that a later pass needs again are kept in a
row on the stack. The vector loop may be any of these loops: inside it values that vary along it are vectors, all
others are scalars; a fold along it keeps several vectors of partial results and folds their lanes at the end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from graphtorch.lowering.cpu.assembly import BITS, Builder, Val, const
from graphtorch.lowering.cpu.elements import MEMORY, from_memory, to_memory
from graphtorch.lowering.cpu.footprint import kernel_levels
from graphtorch.lowering.cpu.function import Function
from graphtorch.lowering.cpu.instructions import (
    REGISTER,
    RefusedError,
    apply,
    convert,
    extremum,
    identity,
)
from graphtorch.lowering.cpu.nest import Nest, estimate
from graphtorch.lowering.kernel import Access, Buffer, Compute, Constant, Expr, Index, Kernel, Load, Reduce, Store
from graphtorch.tensor import dtypes
from graphtorch.tensor.symint import SymInt, same_shape, same_size

ROW_BYTES = 1 << 17  # the most that one kernel keeps on the stack
KEEP_COST = 8  # what is cheaper is computed again
LARGEST = (1 << 63) - 1


class Sink(NamedTuple):
    """What consumes a value at every point of some loops: a store, or a fold."""

    store: Store | None
    reduce: Reduce | None
    varies: int

    @property
    def value(self) -> Expr:
        if self.store is not None:
            return self.store.value
        assert self.reduce is not None
        return self.reduce.operand


def emit_kernel(kernel: Kernel, register_bits: int, fma: bool) -> Function:
    """The LLVM text of a kernel, for vector registers of that many bits. Raises RefusedError."""
    return _Emitter(Nest(kernel, register_bits), fma).run()


class _Emitter:
    def __init__(self, nest: Nest, fma: bool) -> None:
        self.nest = nest
        self.kernel = nest.kernel
        self.b = Builder(fma)
        self.buffers: list[Buffer] = []
        self.pointers: list[str] = []
        self.sizes: dict[Any, Val] = {}
        self.scopes: list[dict[Any, Val]] = [{}]
        self.open: list[tuple[int, Val]] = []  # the loops around this point, with their indices
        self.unroll = 1
        self.base: Val | None = None  # the vector loop's index
        self.tail = False  # whether this point is in its last part
        self.accumulators: dict[int, list[Val]] = {}
        self.widths: dict[int, int] = {}  # values an accumulator has: 2 for argmax, the value and its position
        self.split: dict[int, bool] = {}  # whether each unrolled vector has its own
        self.kept: dict[
            int, tuple[str, int]
        ] = {}  # expression -> its row on the stack, and the loops that the row covers
        self.filled: set[int] = set()
        self.rows: dict[tuple[int, int], str] = {}
        self.stack_lines: list[str] = []
        self.stack_bytes = 0
        loaded = {a.buffer for a in (e.access for e in nest.exprs if isinstance(e, Load))}
        self.delayed = {id(s) for s in self.kernel.stores if s.access.buffer in loaded}
        self.overwritten = {id(s): self._overwritten(s.access) for s in self.kernel.stores}

    def _overwritten(self, target: Access) -> list[Load]:
        """Loads of the elements that a store may overwrite: temporaries take over each other's memory."""
        if len(self.kernel.stores) == 1:
            return []
        size = target.buffer.dtype.itemsize
        return [
            e
            for e in self.nest.exprs
            if isinstance(e, Load)
            and e.access.buffer.dtype.itemsize == size
            and (e.access.buffer is target.buffer or e.access.buffer.kind == target.buffer.kind == "temporary")
            and same_size(e.access.offset, target.offset)
            and same_shape(e.access.strides, target.strides)
        ]

    # -- the function ------------------------------------------------------------------------------------------------

    def run(self) -> Function:
        nest, b = self.nest, self.b
        for access in nest.accesses:
            if access.buffer not in self.buffers:
                self.buffers.append(access.buffer)
        for i in range(len(self.buffers)):
            slot = b.offset("%args", const(i, "i64"), "ptr")
            self.pointers.append(b.emit(f"load ptr, ptr {slot}, align 8", "ptr").text)
        symbolic: list[Any] = []
        for size in self._symbolic():
            slot = b.offset("%args", const(len(self.buffers) + len(symbolic), "i64"), "i64")
            self.sizes[size] = b.emit(f"load i64, ptr {slot}, align 8", "i64")
            symbolic.append(size)
        b.failure_slot = f"getelementptr i64, ptr %args, i64 {len(self.buffers) + len(symbolic)}"
        for expr in nest.exprs:
            if isinstance(expr, Constant) and type(expr.value) is SymInt:
                self._remember(expr, 0, convert(b, self.sizes[expr.value], dtypes.int64, expr.dtype))
        sinks = [Sink(s, None, nest.varies[id(s.value)] | nest.mask_of(s.access.strides)) for s in self.kernel.stores]
        parallel = [
            i for i, loop in enumerate(nest.loops) if not loop.reduction and i != nest.vector and i != nest.inner
        ]
        if nest.vector >= 0 and not nest.loops[nest.vector].reduction:
            parallel.append(nest.vector)
        if nest.inner >= 0:
            parallel.append(nest.inner)
        grain = 1
        extent: Any = 1
        flattened: list[int] = []
        if not parallel:
            self._level(len(nest.levels), sinks)
        elif parallel[0] == nest.vector:
            grain = nest.lanes * self._unroll_of(nest.vector, sinks)
            extent = nest.loops[nest.vector].size
            flattened = [nest.vector]
            self._nest(parallel, sinks, Val("%low", "i64"), Val("%high", "i64"), len(nest.levels))
        else:
            count = self._flattened(parallel)
            flattened = parallel[:count]
            for axis in flattened:
                extent = extent * nest.loops[axis].size
            self._prepare(sinks, sum(1 << a for a in parallel) | self._inside(len(nest.levels)))
            b.loop(Val("%low", "i64"), Val("%high", "i64"), 1, lambda i, _: self._rows(i, parallel, count, sinks))
        b.line("ret void")
        body = "\n".join(["entry:", *self.stack_lines, *b.lines])
        name = "k" + hashlib.blake2b(body.encode(), digest_size=10).hexdigest()
        text = f"define void @{name}(ptr noalias %args, i64 %low, i64 %high) #0 {{\n{body}\n}}\n"
        total: Any = nest.cost()
        for size in nest.points():
            total = total * size
        levels = kernel_levels(nest, flattened, nest.exprs) if flattened else []
        function = Function(name, text, self.buffers, symbolic, extent, grain, total, b.declarations, b.helpers, levels)
        function.failures, function.error = tuple(b.failures), b.error
        return function

    def _symbolic(self) -> list[Any]:
        """The symbolic sizes, strides and offsets, each once."""
        found: dict[Any, None] = {}
        for loop in self.nest.loops:
            found.setdefault(loop.size)
        for access in self.nest.accesses:
            found.setdefault(access.offset)
            for stride in self.nest.strides(access.strides):
                found.setdefault(stride)
        for expr in self.nest.exprs:
            if isinstance(expr, Constant) and type(expr.value) is SymInt:
                found.setdefault(expr.value)
            if isinstance(expr, Index):
                found.setdefault(expr.offset)
                for stride in self.nest.strides(expr.strides):
                    found.setdefault(stride)
        return [s for s in found if type(s) is not int]

    def _size(self, size: Any) -> Val:
        return const(size, "i64") if type(size) is int else self.sizes[size]

    def _flattened(self, parallel: list[int]) -> int:
        """How many outer loops share [low, high): as few as give every core enough units."""
        total = 1
        last = len(parallel) - (1 if parallel[-1] in (self.nest.vector, self.nest.inner) else 0)
        if self.nest.inner >= 0:
            last = parallel.index(self.nest.vector)
        for count in range(1, last + 1):
            total *= estimate(self.nest.loops[parallel[count - 1]].size)
            if total >= 64:
                return count
        return max(last, 1)

    def _rows(self, unit: Val, parallel: list[int], count: int, sinks: list[Sink]) -> Sequence[Val]:
        """One unit: the indices of the flattened loops, and what is inside them."""
        b = self.b
        self.scopes.append({})
        opened = len(self.open)
        rest = unit
        indices: list[Val] = []
        for axis in reversed(parallel[1:count]):
            size = self._size(self.nest.loops[axis].size)
            indices.append(b.binary("urem", rest, size, ""))
            rest = b.binary("udiv", rest, size, "")
        indices.append(rest)
        self.open.extend(zip(parallel[:count], reversed(indices), strict=True))
        self._nest(parallel[count:], sinks, None, None, len(self.nest.levels))
        del self.open[opened:]
        self.scopes.pop()
        return ()

    # -- loops -------------------------------------------------------------------------------------------------------

    def _inside(self, level: int) -> int:
        """The loops that folds up to a level run over."""
        return self.nest.levels[level - 1] if level else 0

    def _nest(self, axes: Sequence[int], sinks: list[Sink], start: Val | None, stop: Val | None, level: int) -> None:
        """Open loops one after another; inside them, the levels below."""
        if not axes:
            self._level(level, sinks)
            return
        axis, rest = axes[0], axes[1:]
        future = sum(1 << a for a in axes) | self._inside(level)
        self._prepare(sinks, future)
        if axis == self.nest.vector:
            self._vector_loop(axis, sinks, start, stop, lambda: self._nest(rest, sinks, None, None, level))
            return
        self._counted(
            start or const(0, "i64"),
            stop or self._size(self.nest.loops[axis].size),
            1,
            sinks,
            lambda index: self._in_loop(axis, index, lambda: self._nest(rest, sinks, None, None, level)),
        )

    def _in_loop(self, axis: int, index: Val, body: Callable[[], None]) -> None:
        self.scopes.append({})
        self.open.append((axis, index))
        body()
        self.open.pop()
        self.scopes.pop()

    def _counted(
        self, start: Val, stop: Val, step: int, sinks: list[Sink], body: Callable[[Val], None], tail: bool = False
    ) -> None:
        """A loop that carries the accumulators of its folds."""
        keys = [id(s.reduce) for s in sinks if s.reduce is not None and id(s.reduce) in self.accumulators]
        # The tail of a vector loop, and what is inside of it, runs one vector at a time, and updates only the first
        # accumulator.
        outside, self.tail = self.tail, tail or self.tail
        used = {k: self.widths[k] if self.tail and self.split[k] else len(self.accumulators[k]) for k in keys}
        carried = [v for k in keys for v in self.accumulators[k][: used[k]]]

        def take(values: Sequence[Val]) -> None:
            at = 0
            for k in keys:
                self.accumulators[k][: used[k]] = values[at : at + used[k]]
                at += used[k]

        def run(index: Val, values: list[Val]) -> Sequence[Val]:
            take(values)
            body(index)
            return [v for k in keys for v in self.accumulators[k][: used[k]]]

        take(self.b.loop(start, stop, step, run, carried))
        self.tail = outside

    def _unroll_of(self, axis: int, sinks: list[Sink]) -> int:
        """Vectors an iteration: several where they are cheap, so that folds do not wait for each other's additions."""
        size = self.nest.loops[axis].size
        folds = any(s.reduce is not None for s in sinks) or bool(self.nest.levels)
        cost = sum(self.nest.costs[id(s.value)] for s in sinks)
        wanted = 4 if folds and cost < 60 else 2 if cost < 24 else 1
        if self.nest.inner >= 0:
            wanted = 1
        if type(size) is int:
            while wanted > 1 and wanted * self.nest.lanes > size:
                wanted //= 2
        return wanted

    def _vector_loop(
        self, axis: int, sinks: list[Sink], start: Val | None, stop: Val | None, body: Callable[[], None]
    ) -> None:
        b, lanes = self.b, self.nest.lanes
        unroll = self._unroll_of(axis, sinks)
        size = self.nest.loops[axis].size
        step = lanes * unroll

        def at(index: Val) -> None:
            self.base = index
            self._in_loop(axis, index, body)
            self.base = None

        def main(first: Val, last: Val) -> None:
            self.unroll = unroll
            self._counted(first, last, step, sinks, at)
            self.unroll = 1

        def masked(index: Val, end: Val) -> None:
            left = b.sub(end, index)
            self.b.mask = b.compare("slt", b.iota("i64", lanes), b.splat(left, lanes))
            at(index)
            self.b.mask = None

        if start is None and type(size) is int:
            full = size // step * step
            if full == step:
                self.unroll = unroll
                at(const(0, "i64"))
                self.unroll = 1
            elif full:
                main(const(0, "i64"), const(full, "i64"))
            for shift in range(full, size, lanes) if size - full <= 2 * lanes else ():
                left = size - shift
                if left < lanes:
                    bits = ", ".join(f"i1 {'true' if i < left else 'false'}" for i in range(lanes))
                    self.b.mask = Val(f"<{bits}>", "i1", lanes)
                at(const(shift, "i64"))
                self.b.mask = None
            if size - full > 2 * lanes:
                end = const(size, "i64")
                self._counted(const(full, "i64"), end, lanes, sinks, lambda i: masked(i, end), True)
            return
        first = start or const(0, "i64")
        end = stop or self._size(size)
        length = b.sub(end, first)
        whole = b.add(first, b.sub(length, b.binary("urem", length, const(step, "i64"), "")))
        main(first, whole)
        self._counted(whole, end, lanes, sinks, lambda i: masked(i, end), True)

    # -- levels of folds ---------------------------------------------------------------------------------------------

    def _level(self, level: int, sinks: list[Sink]) -> None:
        """Everything inside the loops of the levels above: passes over this level's loops, then what does not vary
        along them."""
        if level == 0:
            for sink in sinks:
                self._consume(sink)
            return
        nest = self.nest
        inside = nest.levels[level - 1]
        stages = self._stages(level, [s.value for s in sinks])
        looped = [s for s in sinks if s.varies & inside]
        last = max(stages.values(), default=0)
        pending = list(looped)
        passes: list[list[Sink]] = []
        for stage in range(1, last + 1):
            ready = [s for s in pending if self._may_run(s, stage - 1, stages)]
            pending = [s for s in pending if s not in ready]
            folds = [
                Sink(None, r, nest.varies[id(r.operand)] | nest.axes_of(r))
                for r in nest.reduces
                if stages.get(id(r)) == stage
            ]
            passes.append([*folds, *ready])
        if pending:
            passes.append(pending)
        axes = [i for i in range(len(nest.loops)) if inside & ~self._inside(level - 1) & (1 << i) and i != nest.vector]
        if nest.vector >= 0 and inside & ~self._inside(level - 1) & (1 << nest.vector):
            axes.append(nest.vector)
        before = dict(self.kept)
        for number, current in enumerate(passes):
            self._keep(current, passes[number + 1 :], inside)
            created = [s.reduce for s in current if s.reduce is not None and stages.get(id(s.reduce)) == number + 1]
            for reduce in created:
                self._start(reduce, axes, current)
            self._nest(axes, current, None, None, level - 1)
            self.filled.update(k for k in self.kept if k not in before)
            for reduce in created:
                self._finish(reduce)
        self.filled.difference_update(k for k in self.kept if k not in before)
        self.kept = before
        # What does not vary along this level's loops may still need folds of the levels below.
        rest = [s for s in sinks if not s.varies & inside]
        if rest:
            self._level(level - 1, rest)

    def _may_run(self, sink: Sink, stage: int, stages: dict[int, int]) -> bool:
        if sink.store is not None and id(sink.store) in self.delayed:
            return False
        return max((stages[id(e)] for e in self._reach([sink.value]) if id(e) in stages), default=0) <= stage

    def _reach(self, roots: Iterable[Expr]) -> Iterable[Expr]:
        """Expressions that values still need: not beneath what is known or kept already."""
        seen: set[int] = set()
        stack = list(roots)
        while stack:
            expr = stack.pop()
            if id(expr) in seen:
                continue
            seen.add(id(expr))
            if self._known(expr) or id(expr) in self.filled:
                continue
            yield expr
            stack.extend(expr.operands())

    def _known(self, expr: Expr) -> bool:
        return any((id(expr), 0) in scope for scope in self.scopes)

    def _stages(self, level: int, roots: Sequence[Expr]) -> dict[int, int]:
        """In which pass each fold of a level runs: one after all folds of the level beneath it."""
        needed = {id(e) for e in self._reach(roots) if isinstance(e, Reduce) and self.nest.level.get(id(e)) == level}
        stages: dict[int, int] = {}
        depth: dict[int, int] = {}
        for expr in self.nest.exprs:
            depth[id(expr)] = max((depth[id(o)] for o in expr.operands()), default=0)
            if id(expr) in needed:
                depth[id(expr)] += 1
                stages[id(expr)] = depth[id(expr)]
        return stages

    def _keep(self, current: list[Sink], later: list[list[Sink]], inside: int) -> None:
        """Choose the expensive values of a pass that later passes need again, and give each a row on the stack."""
        if not later:
            return
        nest = self.nest
        again = {id(e) for e in self._reach([s.value for sinks in later for s in sinks])}
        stack: list[Expr] = [s.value for s in current]
        seen: set[int] = set()
        while stack:
            expr = stack.pop()
            if id(expr) in seen or self._known(expr) or id(expr) in self.kept:
                continue
            seen.add(id(expr))
            if isinstance(expr, Reduce):
                if nest.level.get(id(expr), 0) and any(s.reduce is expr for s in current):
                    stack.append(expr.operand)
                continue
            worth = isinstance(expr, Compute) and nest.costs[id(expr)] >= KEEP_COST
            if isinstance(expr, Load) and nest.access_cost(expr.access) > 4:
                worth = True
            if id(expr) in again and worth and nest.varies[id(expr)] & inside and self._row(expr, inside):
                continue
            stack.extend(expr.operands())

    def _row(self, expr: Expr, inside: int) -> bool:
        kind = REGISTER[expr.dtype]
        nest = self.nest
        covered = inside & nest.varies[id(expr)]
        count = 1
        for axis in range(len(nest.loops)):
            if covered & (1 << axis):
                size = self._row_size(axis)
                if size is None:
                    return False
                count *= size
        if self._is_vector(expr) and not covered & (1 << nest.vector):
            count *= nest.lanes * self.unroll
        size_bytes = count * BITS[kind] // 8
        name = self.rows.get((id(expr), count))
        if name is None:
            if kind == "i1" or self.stack_bytes + size_bytes > ROW_BYTES:
                return False
            name = self.rows[id(expr), count] = f"%row{len(self.stack_lines)}"
            self.stack_lines.append(f"  {name} = alloca [{count} x {kind}], align 64")
            self.stack_bytes += size_bytes
        self.kept[id(expr)] = (name, covered)
        return True

    def _row_size(self, axis: int) -> int | None:
        """How many elements of a row one axis takes: the vector axis is filled up to whole vectors. None: known at
        run time only."""
        size = self.nest.loops[axis].size
        if type(size) is not int:
            return None
        return -(-size // self.nest.lanes) * self.nest.lanes if axis == self.nest.vector else size

    def _row_address(self, expr: Expr, u: int) -> str:
        """Where in its row a kept value lies at this point."""
        name, covered = self.kept[id(expr)]
        b, nest = self.b, self.nest
        index = const(0, "i64")
        # The vector axis is the innermost of a row, so that a vector's lanes are adjacent.
        for axis, at in sorted(self.open, key=lambda entry: (entry[0] == nest.vector, entry[0])):
            size = self._row_size(axis) if covered & (1 << axis) else None
            if size is None:
                continue
            if index.text != "0":
                index = b.mul(index, size)
            if at.text != "0":
                index = b.add(index, at) if index.text != "0" else at
        if self._is_vector(expr):
            if not covered & (1 << nest.vector) and index.text != "0":
                index = b.mul(index, nest.lanes * self.unroll)
            if u:
                index = b.add(index, u * nest.lanes)
        return b.offset(name, index, REGISTER[expr.dtype])

    # -- folds -------------------------------------------------------------------------------------------------------

    def _start(self, reduce: Reduce, axes: Sequence[int], current: list[Sink]) -> None:
        """Give a fold its accumulators."""
        nest = self.nest
        folded = nest.axes_of(reduce)
        along = nest.vector >= 0 and bool(folded & (1 << nest.vector))
        varies = nest.vector >= 0 and bool(nest.varies[id(reduce.operand)] & (1 << nest.vector))
        # Inside the vector loop there is one accumulator a vector; outside, as many as the loop will run at once.
        count = self.unroll if self.base is not None else (self._unroll_of(nest.vector, current) if along else 1)
        lanes = nest.lanes if along or varies else 1
        if not along and not varies:
            count = 1
        kind = REGISTER[reduce.operand.dtype if reduce.combine in ("argmax", "argmin") else reduce.dtype]
        first = const(identity(reduce.combine, reduce.operand.dtype), kind, lanes)
        held = [first]
        if reduce.combine in ("argmax", "argmin"):
            held.append(const(LARGEST, "i64", lanes))
        self.accumulators[id(reduce)] = held * count
        self.widths[id(reduce)] = len(held)
        self.split[id(reduce)] = count > 1

    def _combine(self, reduce: Reduce, x: Sequence[Val], y: Sequence[Val]) -> list[Val]:
        """Fold two sets of accumulators into one."""
        b, name, of = self.b, reduce.combine, reduce.operand.dtype
        if name in ("sum", "prod"):
            op = "add" if name == "sum" else "mul"
            if x[0].kind == "i1":
                return [b.logic("or" if name == "sum" else "and", x[0], y[0])]
            return [b.binary("f" + op, x[0], y[0], "reassoc contract") if x[0].is_float else b.binary(op, x[0], y[0])]
        if name in ("any", "all"):
            return [b.logic("or" if name == "any" else "and", x[0], y[0])]
        if name in ("max", "min"):
            return [extremum(b, y[0], x[0], name == "max", of)]
        better = self._better(reduce, y, x)
        return [b.select(better, y[0], x[0]), b.select(better, y[1], x[1])]

    def _better(self, reduce: Reduce, x: Sequence[Val], y: Sequence[Val]) -> Val:
        """Whether (value, position) x precedes y: larger, or NaN, or as large and earlier."""
        b, largest = self.b, reduce.combine == "argmax"
        earlier = b.compare("slt", x[1], y[1])
        if x[0].is_float:
            wins = b.compare("ogt" if largest else "olt", x[0], y[0])
            same = b.compare("oeq", x[0], y[0])
            mine, other = b.is_nan(x[0]), b.is_nan(y[0])
            wins = b.logic("or", wins, b.logic("and", mine, b.logic("xor", other, True)))
            same = b.logic("or", same, b.logic("and", mine, other))
        else:
            sign = "s" if reduce.operand.dtype.is_signed else "u"
            wins = b.compare(sign + ("gt" if largest else "lt"), x[0], y[0])
            same = b.compare("eq", x[0], y[0])
        return b.logic("or", wins, b.logic("and", same, earlier))

    def _accumulate(self, reduce: Reduce) -> None:
        held = self.accumulators[id(reduce)]
        width = self.widths[id(reduce)]
        nest = self.nest
        along = nest.vector >= 0 and bool(nest.axes_of(reduce) & (1 << nest.vector))
        steps = self.unroll if held[0].lanes > 1 else 1
        parts = len(held) // width
        for u in range(steps):
            x = self._value(reduce.operand, u)
            if x.kind != held[0].kind:
                raise RefusedError(f"a {reduce.combine} of {reduce.operand.dtype.name} in {reduce.dtype.name}")
            x = self.b.splat(x, held[0].lanes)
            new = [x]
            if width == 2:
                new.append(self.b.splat(self._position(reduce, u), held[0].lanes))
            at = u % parts * width
            own = held[at : at + width]
            combined = self._combine(reduce, own, new)
            if self.b.mask is not None and along:
                combined = [self.b.select(self.b.mask, c, o) for c, o in zip(combined, own, strict=True)]
            held[at : at + width] = combined

    def _position(self, reduce: Reduce, u: int) -> Val:
        """The row-major position in the folded axes."""
        b, nest = self.b, self.nest
        indices = dict(self.open)
        position = const(0, "i64")
        for axis in nest.ordered_axes(reduce):
            index = self._lane_index(indices[axis], u) if axis == nest.vector else indices[axis]
            position = b.mul(position, self._size(nest.loops[axis].size)) if position.text != "0" else position
            position = b.add(position, index) if position.text != "0" else index
        return position

    def _lane_index(self, index: Val, u: int) -> Val:
        """The vector axis' index in every lane."""
        b, lanes = self.b, self.nest.lanes
        first = b.add(index, u * lanes) if u else index
        return b.add(b.splat(first, lanes), b.iota("i64", lanes))

    def _finish(self, reduce: Reduce) -> None:
        """The folded value, now known at this point."""
        held = self.accumulators.pop(id(reduce))
        width = self.widths[id(reduce)]
        parts = [held[i : i + width] for i in range(0, len(held), width)]
        nest = self.nest
        along = nest.vector >= 0 and bool(nest.axes_of(reduce) & (1 << nest.vector))
        if along or len(parts) == 1:
            while len(parts) > 1:
                parts = [self._combine(reduce, parts[i], parts[i + 1]) for i in range(0, len(parts), 2)]
            if along:
                parts = [self.b.fold_lanes(parts[0], lambda x, y: self._combine(reduce, x, y))]
        for u, part in enumerate(parts):
            value = part[-1]
            if reduce.combine in ("argmax", "argmin"):
                value = convert(self.b, value, dtypes.int64, reduce.dtype)
            self._remember(reduce, u, value)

    # -- values ------------------------------------------------------------------------------------------------------

    def _remember(self, expr: Expr, u: int, value: Val) -> Val:
        self.scopes[-1][id(expr), u] = value
        return value

    def _is_vector(self, expr: Expr) -> bool:
        return self.nest.vector >= 0 and bool(self.nest.varies[id(expr)] & (1 << self.nest.vector))

    def _value(self, expr: Expr, u: int = 0) -> Val:
        """The value at this point (of the u-th vector); scalar unless it varies along the vector axis."""
        if isinstance(expr, Constant) and type(expr.value) is not SymInt:
            return const(expr.value, REGISTER[expr.dtype])
        if not self._is_vector(expr):
            u = 0
        key = (id(expr), u)
        for scope in reversed(self.scopes):
            known: Val | None = scope.get(key)
            if known is not None:
                return known
        if id(expr) in self.filled:
            lanes = self.nest.lanes if self._is_vector(expr) else 1
            return self._remember(expr, u, self.b.load(self._row_address(expr, u), REGISTER[expr.dtype], lanes))
        if isinstance(expr, Load):
            value = self._load(expr.access, u)
        elif isinstance(expr, Index):
            value = self._index(expr, u)
        elif isinstance(expr, Compute):
            value = self._compute(expr, u)
        else:
            assert isinstance(expr, Reduce)
            if id(expr) in self.nest.level:
                raise RefusedError("a fold is needed where its loops are closed")
            # Folding axes of size 1.
            value = const(0, "i64") if expr.combine in ("argmax", "argmin") else self._value(expr.operand, u)
        if id(expr) in self.kept:
            self.b.store(value, self._row_address(expr, u))
        return self._remember(expr, u, value)

    def _compute(self, expr: Compute, u: int) -> Val:
        arguments = [self._value(a, u) for a in expr.arguments]
        if expr.instruction == "cast":
            return convert(self.b, arguments[0], expr.arguments[0].dtype, expr.dtype)
        value = apply(self.b, expr.instruction, arguments, expr.dtype, expr.arguments[-1].dtype)
        if value.kind != REGISTER[expr.dtype]:
            raise RefusedError(f"{expr.instruction} gives {value.kind}, expected {expr.dtype.name}")
        return value

    def _index(self, expr: Index, u: int) -> Val:
        b, nest = self.b, self.nest
        total = self._size(expr.offset)
        vector_stride: Any = 0
        strides = nest.strides(expr.strides)
        for axis, index in self.open:
            stride = strides[axis]
            if type(stride) is int and stride == 0:
                continue
            if axis == nest.vector:
                vector_stride = stride
                index = b.add(index, u * nest.lanes) if u else index
            total = b.add(total, b.mul(index, self._size(stride)))
        if self._is_vector(expr):
            if type(vector_stride) is int:
                steps = b.iota("i64", nest.lanes, vector_stride)
            else:
                steps = b.mul(b.iota("i64", nest.lanes), self._size(vector_stride))
            total = b.add(b.splat(total, nest.lanes), steps)
        return convert(b, total, dtypes.int64, expr.dtype)

    # -- memory ------------------------------------------------------------------------------------------------------

    def _address(self, access: Access) -> str:
        """The address at the open loops' indices; parts that do not change are computed where their loop opens."""
        b, nest = self.b, self.nest
        key = (access.buffer, access.offset, access.strides)
        strides = nest.strides(access.strides)
        element = MEMORY[access.buffer.dtype]
        known, depth = None, 0
        for at in range(len(self.open), -1, -1):
            for scope in self.scopes:
                if (key, at) in scope:
                    known, depth = scope[key, at], at
                    break
            if known is not None:
                break
        if known is None:
            pointer = self.pointers[self.buffers.index(access.buffer)]
            known = Val(b.offset(pointer, self._size(access.offset), element), "ptr")
            if not self.open:
                self.scopes[-1][key, 0] = known
        for axis, index in self.open[depth:]:
            stride = strides[axis]
            if (type(stride) is int and stride == 0) or index.text == "0":
                continue
            if not (type(stride) is int and stride == 1):
                index = b.mul(index, self._size(stride))
            known = Val(b.offset(known.text, index, element), "ptr")
        self.scopes[-1][key, len(self.open)] = known
        return known.text

    def _place(self, access: Access, u: int) -> tuple[str, Val | None]:
        """The address of the u-th vector's first element, and element indices where they are not adjacent."""
        b, nest = self.b, self.nest
        pointer = self._address(access)
        if nest.vector < 0:
            return pointer, None
        stride = nest.strides(access.strides)[nest.vector]
        if type(stride) is int and stride == 0:
            return pointer, None
        element = MEMORY[access.buffer.dtype]
        if u:
            shift = (
                const(u * nest.lanes * stride, "i64")
                if type(stride) is int
                else b.mul(self._size(stride), u * nest.lanes)
            )
            pointer = b.offset(pointer, shift, element)
        if type(stride) is int:
            return pointer, None if stride == 1 else b.iota("i64", nest.lanes, stride)
        return pointer, b.mul(b.iota("i64", nest.lanes), self._size(stride))

    def _load(self, access: Access, u: int) -> Val:
        b, nest = self.b, self.nest
        d = access.buffer.dtype
        pointer, indices = self._place(access, u)
        lanes = nest.lanes if nest.vector >= 0 and nest.mask_of(access.strides) & (1 << nest.vector) else 1
        if indices is not None and nest.is_reversed(access):
            x = b.load_reversed(pointer, MEMORY[d], lanes, self.b.mask)
        elif indices is not None:
            x = b.gather(pointer, indices, MEMORY[d], self.b.mask)
        else:
            x = b.load(pointer, MEMORY[d], lanes, self.b.mask)
        return from_memory(b, x, d)

    def _consume(self, sink: Sink) -> None:
        if sink.reduce is not None:
            self._accumulate(sink.reduce)
            return
        store = sink.store
        assert store is not None
        b, nest = self.b, self.nest
        access = store.access
        d = access.buffer.dtype
        spread = nest.vector >= 0 and bool(nest.mask_of(access.strides) & (1 << nest.vector))
        for load in self.overwritten[id(store)]:
            for u in range(self.unroll if spread else 1):
                self._value(load, u)
        for u in range(self.unroll if spread else 1):
            x = self._value(store.value, u)
            if store.value.dtype is not d:
                x = convert(b, x, store.value.dtype, d)
            x = to_memory(b, x, d)
            pointer, indices = self._place(access, u)
            if not spread:
                if x.lanes > 1:
                    x = b.emit(f"extractelement {x.typed}, i64 0", x.kind)
                b.store(x, pointer)
                continue
            x = b.splat(x, nest.lanes)
            if indices is None:
                b.store(x, pointer, self.b.mask)
            else:
                b.scatter(x, pointer, indices, self.b.mask)

    # -- hoisting ----------------------------------------------------------------------------------------------------

    def _prepare(self, sinks: list[Sink], future: int) -> None:
        """Before loops open: compute what does not vary along them, and the addresses of what does."""
        nest = self.nest
        for sink in sinks:
            if sink.store is not None:
                self._address(sink.store.access)
        seen: set[int] = set()
        stack: list[Expr] = [s.value for s in reversed(sinks)]
        while stack:
            expr = stack.pop()
            if id(expr) in seen or isinstance(expr, Constant):
                continue
            seen.add(id(expr))
            if self._known(expr) or id(expr) in self.filled:
                continue
            if not nest.varies[id(expr)] & future and self._available(expr) and id(expr) not in nest.fallible:
                for u in range(self.unroll if self._is_vector(expr) else 1):
                    self._value(expr, u)
                continue
            if isinstance(expr, Load):
                self._address(expr.access)
            stack.extend(expr.operands())

    def _available(self, expr: Expr) -> bool:
        """Whether no fold beneath is still to come."""
        seen: set[int] = set()
        stack = [expr]
        while stack:
            e = stack.pop()
            if id(e) in seen or self._known(e):
                continue
            seen.add(id(e))
            if isinstance(e, Reduce) and id(e) in self.nest.level:
                return False
            stack.extend(e.operands())
        return True
