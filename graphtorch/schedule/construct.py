"""Building a Kernel from a group: expressions, accesses, the order of axes.

Loops become axes: parallel ones first, each kind ordered by the strides of the widest access, adjacent ones coalesced
where every access allows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from graphtorch.ir.graph import Node, Value
from graphtorch.lowering.kernel import Access, Axis, Buffer, Compute, Constant, Expr, Index, Kernel, Load, Reduce, Store
from graphtorch.schedule.fusion import Fusion, Step, apply_views
from graphtorch.schedule.groups import Group
from graphtorch.schedule.indexing import (
    Layout,
    Loop,
    Loops,
    Placement,
    contiguous,
    estimate,
    loop_strides,
    resolve,
    row_major,
)
from graphtorch.tensor import dtypes
from graphtorch.tensor.dtypes import dtype
from graphtorch.tensor.symint import same_size

Strides = dict[Loop, Any]


class KernelBuilder:
    """Builds one kernel. `buffer_of` gives the buffer in which a value lies, for reading; `target_of` for writing."""

    def __init__(self, fusion: Fusion, group: Group, buffer_of: Callable[[Value], Buffer]) -> None:
        self.fusion = fusion
        self.group = group
        self.buffer_of = buffer_of
        self.expressions: dict[Value, Expr] = {}
        self.shared: dict[tuple[Any, ...], Expr] = {}
        self.loads: list[tuple[Load, Strides]] = []
        self.indices: list[tuple[Index, Strides]] = []
        self.stores: list[tuple[Store, Strides]] = []
        self.reduces: list[tuple[Reduce, Loops]] = []
        group.refresh()

    def build(self, name: str, stored: Iterable[tuple[Value, Buffer]]) -> Kernel:
        """The kernel that computes the group and stores the given values to the given buffers."""
        nodes = sorted(self.group.nodes, key=self.fusion.sequence.__getitem__)
        for node in nodes:
            self.expressions[node.results[0]] = self._expression(node)
        for value, buffer in stored:
            placement = tuple(resolve(dim) for dim in self.fusion.place[value])
            strides = loop_strides(placement, row_major(value.type.shape))
            self.stores.append((Store(Access(buffer, 0, ()), self.expressions[value]), strides))
        axes = self._finish()
        return Kernel(name, axes, [s for s, _ in self.stores], nodes, list(self.group.reasons))

    # -- expressions -------------------------------------------------------------------------------------------------

    def _expression(self, node: Node) -> Expr:
        domain: Placement = tuple(resolve(dim) for dim in self.fusion.domain[node])
        if node.op.kind == "reduction":
            operand = self._operand(node.args[0], domain, node.args[0].type.shape)
            return self._reduce(node, operand, domain)
        shape = node.results[0].type.shape
        return self._compute(node, [self._operand(a, domain, shape) for a in node.operands()])

    def _operand(self, value: Value, domain: Placement, shape: tuple[Any, ...]) -> Expr:
        root = self.fusion.roots[value][0]
        if root not in self.fusion.inlined and self.fusion.home.get(root) is self.group:
            return self.expressions[root]
        return self._at(value, (shape,), domain)

    def _at(self, value: Value, steps: tuple[Step, ...], domain: Placement) -> Expr:
        """The expression for `value`, seen through `steps`, at the points of `domain`: a load, or an inlined value
        computed again."""
        root, steps, layout = self.fusion.route(value, steps)
        if layout is not None:
            return self._load(self.buffer_of(root), layout, domain)
        node = root.node
        assert node is not None
        if node.op.kind == "source":
            return self._source(node, steps, domain)
        shape = root.type.shape
        return self._compute(node, [self._at(a, (shape, *steps), domain) for a in node.operands()])

    def _load(self, buffer: Buffer, layout: Layout, domain: Placement) -> Expr:
        strides = loop_strides(domain, layout.strides)
        key = (buffer, layout.offset, frozenset(strides.items()))
        found = self.shared.get(key)
        if found is None:
            load = Load(Access(buffer, layout.offset, ()))
            self.loads.append((load, strides))
            found = self.shared[key] = load
        return found

    def _source(self, node: Node, steps: tuple[Step, ...], domain: Placement) -> Expr:
        of = node.results[0].type.dtype
        if node.op.name == "full":
            fill = node.argument("fill_value")
            if type(fill) is Value:
                return self._cast(self._at(fill, (), ()), of)
            return self._constant(fill, of)
        layout = apply_views(contiguous(node.results[0].type.shape), steps)
        start, step = node.argument("start"), node.argument("step")
        whole = not isinstance(start, float) and not isinstance(step, float)
        scale, shift = (step, start) if whole else (1, 0)
        strides = {loop: stride * scale for loop, stride in loop_strides(domain, layout.strides).items()}
        offset = shift + layout.offset * scale
        key = ("index", offset, frozenset(strides.items()), of if whole else dtypes.int64)
        found = self.shared.get(key)
        if found is None:
            index = Index(offset, (), of if whole else dtypes.int64)
            self.indices.append((index, strides))
            found = self.shared[key] = index
        if whole:
            return found
        # Law: arange(start, end, step)[i] = start + step i, in double precision as NumPy and PyTorch compute it.
        wide = dtypes.float64
        scaled = self._instruction("mul", (self._cast(found, wide), self._constant(step, wide)), wide, node)
        return self._cast(self._instruction("add", (scaled, self._constant(start, wide)), wide, node), of)

    def _compute(self, node: Node, values: list[Expr]) -> Expr:
        """The instruction of a pointwise node on the expressions of its value operands; numbers become constants."""
        op = node.op
        of = node.results[0].type.dtype
        rest = iter(values)
        arguments: list[Expr] = []
        for i, (arg, parameter) in enumerate(zip(node.args, op.parameters, strict=True)):
            if type(arg) is Value:
                expr = next(rest)
                if parameter.is_operand:
                    arguments.append(expr)
            elif parameter.is_operand and arg is not None:
                arguments.append(self._constant(arg, _computing_dtype(node, i)))
        if op.scalar == "copy":
            return arguments[0]
        if op.scalar == "cast":
            return self._cast(arguments[0], of, node)
        assert op.scalar is not None
        return self._instruction(op.scalar, tuple(arguments), of, node)

    def _cast(self, expr: Expr, of: dtype, node: Node | None = None) -> Expr:
        return expr if expr.dtype is of else self._instruction("cast", (expr,), of, node)

    def _constant(self, number: Any, of: dtype) -> Expr:
        key = ("constant", type(number), number if number == number else "nan", str(number), of)
        found = self.shared.get(key)
        if found is None:
            found = self.shared[key] = Constant(number, of)
        return found

    def _instruction(self, name: str, arguments: tuple[Expr, ...], of: dtype, node: Node | None) -> Expr:
        """Equal instructions on equal operands are one expression."""
        key = (name, *map(id, arguments), of)
        found = self.shared.get(key)
        if found is None:
            found = self.shared[key] = Compute(name, arguments, of, node)
        return found

    def _reduce(self, node: Node, operand: Expr, domain: Placement) -> Expr:
        combine = node.op.scalar
        assert combine is not None
        of = node.results[0].type.dtype
        loops = tuple(loop for d in node.args[1] for loop in domain[d])
        key = (combine, id(operand), loops, of)
        found = self.shared.get(key)
        if found is None:
            reduce = Reduce(combine, operand, (), of, node)
            self.reduces.append((reduce, loops))
            found = self.shared[key] = reduce
        return found

    # -- axes --------------------------------------------------------------------------------------------------------

    def _finish(self) -> tuple[Axis, ...]:
        """Order and coalesce loops, and fill in the strides and axes of every expression."""
        reduced = self.group.reduced
        every: list[Strides] = [s for _, s in self.stores] + [s for _, s in self.loads]
        runs = self._coalesced(self._ordered(reduced, every), reduced, every + [s for _, s in self.indices])
        inner = [run[-1] for run in runs]
        position = {loop: i for i, run in enumerate(runs) for loop in run}

        def of(strides: Strides) -> tuple[Any, ...]:
            return tuple(strides.get(loop, 0) for loop in inner)

        for store, strides in self.stores:
            store.access = Access(store.access.buffer, store.access.offset, of(strides))
        for load, strides in self.loads:
            load.access = Access(load.access.buffer, load.access.offset, of(strides))
        for index, strides in self.indices:
            index.strides = of(strides)
        for reduce, loops in self.reduces:
            reduce.axes = tuple(sorted({position[loop] for loop in loops}))
        axes: list[Axis] = []
        for run in runs:
            size: Any = 1
            for loop in run:
                size = size * loop.size
            fold = run[0] in reduced
            count = sum(axis.reduction == fold for axis in axes)
            axes.append(Axis(f"{'r' if fold else 'i'}{count}", size, fold))
        return tuple(axes)

    def _ordered(self, reduced: set[Loop], every: list[Strides]) -> list[Loop]:
        """Parallel loops, then reduction loops, each with the longest strides first: in the order of memory.

        The positions that an argmax gives count in row-major order of its loops, which therefore keep theirs.
        """
        main = max(every, key=len, default={})
        given = {loop: i for i, loop in enumerate(self.group.loops)}
        fixed = {loop: i for i, loop in enumerate(self.group.order)}

        def key(loop: Loop) -> tuple[Any, ...]:
            if loop in fixed:
                return (True, False, 0, fixed[loop])
            stride = main.get(loop)
            return (loop in reduced, stride is None, 0 if stride is None else -abs(estimate(stride)), given[loop])

        return sorted(self.group.loops, key=key)

    def _coalesced(self, loops: list[Loop], reduced: set[Loop], every: list[Strides]) -> list[list[Loop]]:
        """Runs of adjacent loops that are one axis.

        Law: outer and inner are one loop of |outer| * |inner| iterations iff along both every access steps as if
        through one: its outer stride is |inner| times its inner one. Folds must run over both or neither.
        """
        folds = [set(loops) for _, loops in self.reduces]
        runs: list[list[Loop]] = []
        for loop in loops:
            if runs:
                outer = runs[-1][-1]
                if (
                    (outer in reduced) == (loop in reduced)
                    and all((outer in fold) == (loop in fold) for fold in folds)
                    and all(_steps_on(s, outer, loop) for s in every)
                ):
                    runs[-1].append(loop)
                    continue
            runs.append([loop])
        return runs


def _steps_on(strides: Strides, outer: Loop, inner: Loop) -> bool:
    a, b = strides.get(outer), strides.get(inner)
    if a is None or b is None:
        return a is None and b is None
    return same_size(a, b * inner.size)


def _computing_dtype(node: Node, position: int) -> dtype:
    """The dtype that the record computes operand `position` in."""
    assert node.op.compute is not None
    chosen = node.op.compute(*node.args)
    of: dtype = chosen[position] if isinstance(chosen, tuple) else chosen
    if node.results[0].type.is_number and of.is_floating_point:
        return dtypes.float64
    return of
