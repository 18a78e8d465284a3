"""Fusion: primitives are placed into groups, each of which becomes a kernel.

Every computed value has a placement: which loops of its group each of its dimensions runs over. A node is placed by
pushing the placements of its operands forward through their chains of views. It joins a group when every operand from
that group would be read at exactly the point where it was computed; then it needs no memory for them. Operands from
several groups merge the groups, if their placements can be identified.

    pointwise     joins where its loops cover the group's parallel loops (else it would be computed repeatedly)
    reductions    make some loops of the group reduction loops; all folds of a group have the same loops or include each
                  other's
    afterwards    a pointwise node that needs both a fold and the folded elements stays while those fit in cache
                  (softmax, norms)
    sources       `full`, `arange` and cheap arithmetic on scalars are computed again wherever they are read

What can't join reads a buffer, and the reason is noted for the report. Dependences between groups stay acyclic
throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from graphtorch.ir.graph import UNKNOWN, Graph, Node, Value
from graphtorch.ops.record import lookup
from graphtorch.schedule.groups import Dependence, Group, Limits, extent
from graphtorch.schedule.indexing import (
    Bindings,
    Layout,
    Loop,
    Loops,
    Placement,
    broadcast_layout,
    broadcast_placement,
    contiguous,
    fresh,
    is_index_map,
    leaves,
    match,
    resolve,
    view_layout,
    view_placement,
)
from graphtorch.schedule.primitives import copy_node
from graphtorch.tensor.symint import UndecidedError, same_size

Step = Node | tuple[Any, ...]  # of a chain of views: a view node, or the shape to broadcast to

EXPENSIVE = frozenset(
    [
        "exp",
        "expm1",
        "log",
        "log1p",
        "log2",
        "sqrt",
        "rsqrt",
        "reciprocal",
        "sin",
        "cos",
        "tan",
        "asin",
        "acos",
        "atan",
        "sinh",
        "cosh",
        "tanh",
        "erf",
        "sigmoid",
        "pow",
        "atan2",
        "div",
        "fmod",
        "remainder",
        "floor_divide",
    ]
)
_CHEAP = 4  # instructions that are computed again in every reader, if their operands are scalars or sources


class Refusal(NamedTuple):
    """Why a node did not join the group of an operand."""

    node: Node
    producer: Node
    why: str


class NotAffineError(Exception):
    """A chain of views has no affine layout: `value`, the operand of the view that fails, must be copied to row-major
    order first."""

    def __init__(self, value: Value) -> None:
        super().__init__(value)
        self.value = value


class _Plan(NamedTuple):
    """How a node joins groups that become one."""

    bindings: Bindings
    loops: list[Loop]
    levels: list[frozenset[Loop]]
    placement: list[list[Loop]]  # of the node's domain
    folded: list[Loop]
    stage: int


def cost_of(node: Node) -> int:
    """Instructions, with transcendental ones counted as four."""
    return 4 if node.op.scalar in EXPENSIVE else 1


class Fusion:
    """The placement of every primitive of a graph.

    home        a computed value's group; graph inputs have none
    place       its placement: the loops of each of its dimensions
    stage       how many folds lie before it inside its group
    domain      a node's placement before folding: of its operands, broadcast
    sequence    the order in which nodes were placed: operands first
    inlined     values that are computed again in every reader
    copies      value -> its row-major copy, where a chain of views was not affine
    """

    def __init__(self, graph: Graph, limits: Limits | None = None) -> None:
        self.graph = graph
        self.limits = limits or Limits()
        self.dependence = Dependence()
        self.home: dict[Value, Group] = {}
        self.place: dict[Value, Placement] = {}
        self.stage: dict[Value, int] = {}
        self.domain: dict[Node, Placement] = {}
        self.sequence: dict[Node, int] = {}
        self.cost: dict[Value, int] = {}
        self.inlined: set[Value] = set()
        self.copies: dict[Value, Value] = {}
        self.roots: dict[Value, tuple[Value, tuple[Node, ...]]] = {}
        self.refusals: list[Refusal] = []
        self._known_reads: dict[tuple[Value, bool], list[tuple[Value, Layout]]] = {}
        self._layouts: dict[Value, Layout] = {}  # of whole buffers
        self._copy_op = lookup("clone")
        self._last_random: Group | None = None

    def run(self) -> None:
        """Place every node."""
        for value in self.graph.inputs:
            self.roots[value] = (value, ())
        for node in self.graph.nodes:
            self._visit(node)

    def _visit(self, node: Node) -> None:
        op = node.op
        kind = op.kind
        result = node.results[0]
        if is_index_map(node):
            root, chain = self.roots[node.args[0]]
            self.roots[result] = (root, (*chain, node))
            return
        for value in node.results:
            self.roots[value] = (value, ())
        if kind == "pointwise" and op.scalar is not None and not op.random:
            if self._is_cheap(node):
                self.inlined.add(result)
            else:
                self._place(node, result.type.shape)
        elif kind == "reduction" and op.scalar is not None:
            self._place(node, node.args[0].type.shape)
        elif kind == "source" and op.name in ("full", "arange") and not op.random:
            self.inlined.add(result)
            self.cost[result] = 0
        else:
            self._call(node)

    def _is_cheap(self, node: Node) -> bool:
        """Arithmetic on scalars that are inputs, and on sources: computing it again costs less than loading it."""
        total = cost_of(node)
        for value in node.operands():
            root = self.roots[value][0]
            if root in self.inlined:
                total += self.cost[root]
            elif root.node is not None or root.type.shape:
                return False
            if total > _CHEAP:
                return False
        if total > _CHEAP:
            return False
        self.cost[node.results[0]] = total
        return True

    # -- reading values that are not at hand -------------------------------------------------------------------------

    def route(
        self, value: Value, steps: tuple[Step, ...] = (), in_memory: bool = False
    ) -> tuple[Value, tuple[Step, ...], Layout | None]:
        """Where a value under further views is read from: a root, the views that follow it, and their layout in its
        buffer.

        The layout is None for an inlined root, which is computed again; `in_memory` asks for a buffer (see
        `make_readable`). A copy takes part only where the views that follow it are not affine without it: the answer
        for a reader does not depend on who else reads. Raises NotAffineError.
        """
        root, chain = self.roots[value]
        if root in self.inlined:
            if in_memory and root in self.copies:
                root = self.copies[root]
            else:
                rest = chain + steps
                try:
                    self._pull(root, rest)
                except NotAffineError as error:
                    at = next((i for i, step in enumerate(chain) if step.args[0] is error.value), -1)
                    if at < 0 or error.value not in self.copies:
                        raise
                    root, chain = self.copies[error.value], chain[at:]
                else:
                    return root, rest, None
        rest = chain + steps
        layout = self._layouts.get(root)
        if layout is None:
            layout = self._layouts[root] = contiguous(root.type.shape)
        start = 0
        for i, step in enumerate(rest):
            viewed = apply_view(layout, step)
            if viewed is None:
                assert isinstance(step, Node)
                operand = step.args[0]
                if i >= len(chain) or operand not in self.copies:
                    raise NotAffineError(operand)
                root, start = self.copies[operand], i
                viewed = apply_view(contiguous(operand.type.shape), step)
                if viewed is None:  # such as s0 as 2 times s0 // 2, which is so for some sizes
                    raise UndecidedError(f"{step.op.name} of {operand.type} as {step.result.type} at {step.location}")
            layout = viewed
        return root, rest[start:], layout

    def _pull(self, root: Value, steps: tuple[Step, ...]) -> list[tuple[Value, Layout]]:
        """What an inlined value under `steps` is computed from. Raises NotAffineError."""
        node = root.node
        assert node is not None
        if node.op.kind == "source":
            if node.op.name == "arange":
                apply_views(contiguous(root.type.shape), steps)
            return [(v, Layout((), ())) for v in node.operands()]  # a run-time number
        found: list[tuple[Value, Layout]] = []
        for operand in node.operands():
            found.extend(self.reads(operand, (root.type.shape, *steps)))
        return found

    def reads(self, value: Value, steps: tuple[Step, ...] = (), in_memory: bool = False) -> list[tuple[Value, Layout]]:
        """The buffers, with layouts, from which a value under further views is computed: one, unless it is inlined.

        Raises NotAffineError.
        """
        key = (value, in_memory)
        if not steps:
            known = self._known_reads.get(key)
            if known is not None:
                return known
        root, rest, layout = self.route(value, steps, in_memory)
        found = [(root, layout)] if layout is not None else self._pull(root, rest)
        if not steps:
            self._known_reads[key] = found
        return found

    def inline(self, values: set[Value]) -> None:
        """Compute these values again in every reader from now on."""
        self.inlined |= values
        self._known_reads.clear()

    def uninline(self, values: set[Value]) -> None:
        """Undo `inline`."""
        self.inlined -= values
        self._known_reads.clear()

    def make_readable(self, value: Value, in_memory: bool = False) -> list[tuple[Value, Layout]]:
        """`reads`, with copies where a chain of views is not affine or an inlined value must be in memory."""
        if in_memory and (root := self.roots[value][0]) in self.inlined and root not in self.copies:
            self.copy(root, "needed in memory")
        while True:
            try:
                return self.reads(value, (), in_memory)
            except NotAffineError as error:
                self.copy(error.value, "a view that follows is not affine over its strides")

    def copy(self, value: Value, why: str) -> Value:
        """Place a row-major copy of a value, from which it is read from now on."""
        root_node = self.roots[value][0].node
        location = UNKNOWN if root_node is None else root_node.location
        node = copy_node(self._copy_op, value, location, f"copied: {why}")
        made = node.results[0]
        made.name = f"{value.name}_copy" if value.name else ""
        self.roots[made] = (made, ())
        self._place(node, value.type.shape)
        self.copies[value] = made
        self._known_reads.clear()
        if root_node is not None:
            self.refusals.append(Refusal(node, root_node, f"is a copy: {why}"))
        return made

    # -- placing -----------------------------------------------------------------------------------------------------

    def _call(self, node: Node) -> None:
        group = self.dependence.new(node)
        needs = 0
        for value in node.operands():
            for root, _ in self.make_readable(value, in_memory=True):
                home = self.home.get(root)
                if home is not None:
                    needs |= home.bit
        if node.op.random:
            if self._last_random is not None:
                needs |= self._last_random.bit
            self._last_random = group
        self.dependence.read(group, needs)
        for value in node.results:
            self.home[value] = group
            self.stage[value] = 0

    def _place(self, node: Node, domain: tuple[Any, ...]) -> None:
        """Put a computed node into the groups of its operands as far as possible, else into a new one."""
        operands = list(node.operands())
        wanted: dict[int, list[Placement]] = {}
        refused: dict[int, str] = {}
        for value in operands:
            root, chain = self.roots[value]
            home = self.home.get(root)
            if home is None or home.call is not None or root in self.inlined:
                continue
            placement = tuple(resolve(dim) for dim in self.place[root])
            for step in chain:
                pushed = view_placement(placement, step)
                if pushed is None:
                    refused[home.index] = f"reads it through {step.op.name}"
                    break
                placement = pushed
            else:
                placed = broadcast_placement(placement, value.type.shape, domain)
                wanted.setdefault(home.index, []).append(placed)
        accepted: list[Group] = []
        plan: _Plan | None = None
        for index in sorted(wanted, reverse=True):
            if index in refused:
                continue
            attempt = self._try(node, [*accepted, self.dependence.groups[index]], wanted, operands)
            if isinstance(attempt, str):
                refused[index] = attempt
            else:
                accepted.append(self.dependence.groups[index])
                plan = attempt
        needs = 0
        for value in operands:
            home = self.home.get(self.roots[value][0])
            if home is not None and home.index in refused:
                self.refusals.append(Refusal(node, self.roots[value][0].node, refused[home.index]))  # type: ignore[arg-type]
            if home is None or home not in accepted or self.roots[value][0] in self.inlined:
                needs |= self._homes(self.make_readable(value))
        if plan is None:
            accepted = [self.dependence.new()]
            plan = self._alone(node, domain, accepted[0])
        self._commit(node, accepted, plan, needs)

    def _homes(self, reads: Sequence[tuple[Value, Layout]]) -> int:
        bits = 0
        for root, _ in reads:
            home = self.home.get(root)
            if home is not None:
                bits |= home.bit
        return bits

    def _alone(self, node: Node, domain: tuple[Any, ...], group: Group) -> _Plan:
        placement = [list(dim) for dim in fresh(domain, group)]
        loops = [loop for dim in placement for loop in dim]
        folded = _folded(node, placement)
        return _Plan({}, loops, [frozenset(folded)] if folded else [], placement, folded, int(bool(folded)))

    def _try(
        self, node: Node, groups: list[Group], wanted: dict[int, list[Placement]], operands: list[Value]
    ) -> _Plan | str:
        """How `node` could join `groups` as one, or why not."""
        reads = 0
        for value in operands:
            root = self.roots[value][0]
            home = self.home.get(root)
            if home is None or root in self.inlined:
                continue
            if home not in groups:
                reads |= home.bit
        if self.dependence.would_cycle(groups, reads):
            return "it would close a cycle between kernels"
        bindings: Bindings = {}
        target: Placement | None = None
        for group in groups:
            group.refresh()
            for placement in wanted[group.index]:
                if target is None:
                    target = placement
                    continue
                for a, b in zip(target, placement, strict=True):
                    if a is not b and (why := match(a, b, bindings)) is not None:
                        return why
        assert target is not None
        domain = [leaves(dim, bindings) for dim in target]
        loops: list[Loop] | str
        if len(groups) == 1 and not bindings and not groups[0].levels and node.op.kind == "pointwise":
            # What most nodes come to: the conditions below hold for one more value at each point of a loop nest.
            loops = list(groups[0].loops)
            flat = [loop for dim in domain for loop in dim]
            if len(flat) == len(loops) and set(flat) == set(loops):
                return _Plan(bindings, loops, [], domain, [], 0)
        loops = self._join_loops(groups, target, bindings)
        if isinstance(loops, str):
            return loops
        why = _bind_free(target, loops, bindings)
        if why is not None:
            return why
        domain = [leaves(dim, bindings) for dim in target]  # with what was bound since
        return self._check(node, groups, operands, bindings, leaves(loops, bindings), domain)

    def _join_loops(self, groups: list[Group], target: Placement, bindings: Bindings) -> list[Loop] | str:
        """The loops of groups as one group; loops that the node does not relate are paired by size."""
        base = leaves(groups[0].loops, bindings)
        used = {loop for dim in target for loop in leaves(dim, bindings)}
        for group in groups[1:]:
            own = leaves(group.loops, bindings)
            if len(set(own)) != len(own):
                return "its loops would coincide"
            mine, theirs = set(own), set(base)
            idle = [loop for loop in base if loop not in mine]
            for loop in own:
                if loop in theirs:
                    continue
                for candidate in idle:
                    if same_size(candidate.size, loop.size) and not (loop in used and candidate in used):
                        bindings[loop] = candidate
                        idle.remove(candidate)
                        break
                else:
                    base.append(loop)
        return base

    def _check(
        self,
        node: Node,
        groups: list[Group],
        operands: list[Value],
        bindings: Bindings,
        loops: list[Loop],
        placement: list[list[Loop]],
    ) -> _Plan | str:
        """The conditions of the module docstring on a joined group."""
        flat = [loop for dim in placement for loop in dim]
        inside = set(flat)
        if len(inside) != len(flat):
            return "reads it at another index"
        spaces = [set(leaves(group.loops, bindings)) for group in groups]
        if len(groups) > 1 and max(map(len, spaces)) < len(set(loops)):
            return "neither iteration space contains the other"
        reduced = frozenset(x for group in groups for level in group.levels for x in leaves(level, bindings))
        # A fold in a smaller space is one of values that are constant along the loops that the space lacks.
        levels = {
            frozenset(leaves(level, bindings)) | (reduced - space)
            for group, space in zip(groups, spaces, strict=True)
            for level in group.levels
        }
        stage = 0
        for value in operands:
            root = self.roots[value][0]
            if self.home.get(root) in groups and root not in self.inlined:
                stage = max(stage, self.stage[root])
        if stage and reduced & inside and extent(reduced) > self.limits.cache:
            return f"needs the folded elements again, and {extent(reduced)} of them do not stay in cache"
        folded = _folded(node, placement)
        again = bool(folded and stage and (reduced & inside) - set(folded))
        if folded:
            levels.add(frozenset(folded) | (reduced - inside))
            reduced = reduced | frozenset(folded)
            stage += 1
            if node.op.scalar in ("argmax", "argmin"):
                for group in groups:
                    order = leaves(group.order, bindings)
                    if order and order != folded:
                        return "its argmax counts positions in another order"
        chain = sorted(levels, key=len)
        if any(not a <= b for a, b in pairwise(chain)):
            return "reduces over other axes"
        if again:
            return "folds fewer axes than a fold that it needs"
        if len(chain) > 1:
            if not self.limits.nested:
                return "folds over several sets of axes"
            if extent(reduced) > self.limits.cache:
                return f"folds a fold, over {extent(reduced)} elements that do not stay in cache"
        parallel = {loop for loop in loops if loop not in reduced}
        if not parallel <= inside:
            return "would be computed again for every index of " + _sizes(parallel - inside)
        if len(groups) > 1:
            for space in spaces:
                if not parallel <= space:
                    return "one of them would be computed repeatedly, for every index of " + _sizes(parallel - space)
        return _Plan(bindings, loops, chain, placement, folded, stage)

    def _commit(self, node: Node, groups: list[Group], plan: _Plan, needs: int) -> None:
        for loop, to in plan.bindings.items():
            loop.merged = to
        group = groups[0]
        for other in groups[1:]:
            group.order = group.order or other.order
            moved = other.nodes
            self.dependence.merge(group, other)
            for member in moved:
                for value in member.results:
                    self.home[value] = group
        group.loops = tuple(plan.loops)
        for loop in plan.loops:
            loop.owner = group
        group.levels = [tuple(sorted(level, key=plan.loops.index)) for level in plan.levels]
        group.nodes.append(node)
        if node.op.scalar in ("argmax", "argmin") and plan.folded:
            group.order = tuple(plan.folded)
        placement: Placement = tuple(tuple(dim) for dim in plan.placement)
        self.domain[node] = placement
        self.sequence[node] = len(self.sequence)
        if node.op.kind == "reduction":
            dims, keepdim = node.args[1], len(node.results[0].type.shape) == len(placement)
            placement = tuple(() if d in dims else p for d, p in enumerate(placement) if keepdim or d not in dims)
        result = node.results[0]
        self.home[result] = group
        self.place[result] = placement
        self.stage[result] = plan.stage
        self.dependence.read(group, needs)


def apply_view(layout: Layout, step: Step) -> Layout | None:
    """A layout under one view or broadcast; None where it is not affine."""
    return broadcast_layout(layout, step) if type(step) is tuple else view_layout(layout, step)  # type: ignore[arg-type]


def apply_views(layout: Layout, steps: tuple[Step, ...]) -> Layout:
    """A layout under a chain of views and broadcasts. Raises NotAffineError."""
    for step in steps:
        viewed = apply_view(layout, step)
        if viewed is None:
            assert isinstance(step, Node)
            raise NotAffineError(step.args[0])
        layout = viewed
    return layout


def _folded(node: Node, placement: Sequence[Sequence[Loop]]) -> list[Loop]:
    """The loops that a reduction folds, in row-major order; none for a pointwise node."""
    if node.op.kind != "reduction":
        return []
    return [loop for d in node.args[1] for loop in placement[d]]


def _bind_free(target: Placement, loops: list[Loop], bindings: Bindings) -> str | None:
    """Broadcast dimensions run over loops of the group that the node does not use yet: those that were folded away
    before."""
    flat = [loop for dim in target for loop in leaves(dim, bindings)]
    free = [loop for loop in flat if loop.owner is None]
    if not free:
        return None
    used = set(flat)
    idle = [loop for loop in leaves(loops, bindings) if loop not in used]
    left: list[Loop] = []
    for loop in free:
        for candidate in idle:
            if same_size(candidate.size, loop.size):
                bindings[loop] = candidate
                idle.remove(candidate)
                break
        else:
            left.append(loop)
    if left and (not idle or match(idle, left, bindings) is not None):
        return "it is not computed along " + _sizes(left)
    return None


def _sizes(loops: Sequence[Loop] | set[Loop] | Loops) -> str:
    return " and ".join(f"an axis of {loop.size}" for loop in loops)
