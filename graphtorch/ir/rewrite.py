"""Rewriting graphs by a table of named rows.

A `Row` is one law: for which operators it is asked, in words what it states, how exact it is, and a small function that
returns the value to use instead of a node's result, or None. The `Rewriter` walks a graph once, in order; every node,
those that rows make included, is offered to its operator's rows after its operands are in their final form, so one walk
reaches what the table can reach from operands. Work is linear in the nodes; what stays is shared with the input
graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from graphtorch.ir.equality import same_type
from graphtorch.ir.graph import UNKNOWN, Graph, Location, Node, Value, substitute
from graphtorch.ops.record import REGISTRY, VIEW
from graphtorch.tensor.symint import same_shape

EXACT = "exact"  # the same bits (the payload and sign of a NaN aside)
ROUNDING = "rounding"  # equal up to the rounding of the result
EXTREMES = "extremes"  # differs where an intermediate result overflows or underflows; off unless asked for


class Firing(NamedTuple):
    """A rewrite that happened: by which pass and row, to which operator, from which line of the user's."""

    pass_name: str
    row: str
    operator: str
    location: Location

    def __str__(self) -> str:
        return f"{self.pass_name}: {self.row} on {self.operator} at {self.location}"


RewriteLog = list[Firing]


@dataclass(frozen=True, slots=True)
class Row:
    """One law. `function(rewriter, node)` gives the replacement of the node's only result, or None."""

    name: str
    law: str
    operators: tuple[str, ...]
    exactness: str
    function: Callable[[Rewriter, Node], Value | None]


class RowTable:
    """Rows by name and by operator, in the order in which they are tried."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.by_operator: dict[str, list[Row]] = {}

    def row(
        self, *operators: str, law: str, exactness: str = EXACT, name: str | None = None
    ) -> Callable[[Callable[[Rewriter, Node], Value | None]], Callable[[Rewriter, Node], Value | None]]:
        """Register a function as a row; named after the function unless a name is given."""

        def register(function: Callable[[Rewriter, Node], Value | None]) -> Callable[[Rewriter, Node], Value | None]:
            own = name or function.__name__.replace("_", "-")
            if own in self.rows:
                raise ValueError(f"the row {own!r} is defined twice")
            made = self.rows[own] = Row(own, law, operators, exactness, function)
            for operator in operators:
                self.by_operator.setdefault(operator, []).append(made)
            return function

        return register

    def select(self, exactness: Sequence[str]) -> dict[str, tuple[Row, ...]]:
        """The rows of these classes, by operator."""
        chosen = {
            operator: tuple(row for row in rows if row.exactness in exactness)
            for operator, rows in self.by_operator.items()
        }
        return {operator: rows for operator, rows in chosen.items() if rows}


class Rewriter:
    """One walk over a graph; also what rows build new nodes with."""

    # A row's replacement is offered to the rows again; no sensible chain is longer than this.
    MAX_DEPTH = 32

    def __init__(self, rows: dict[str, tuple[Row, ...]], pass_name: str, log: RewriteLog | None = None) -> None:
        self.rows = rows
        self.pass_name = pass_name
        self.log = log
        self.fired = 0
        self._nodes: list[Node] = []
        self._current: Node | None = None  # of the graph being walked: it lends location and origin
        self._row = ""
        self._depth = 0
        self._graph = Graph()
        self._memory: set[Value] | None = None
        self._counts: dict[Value, int] | None = None

    def run(self, graph: Graph) -> Graph:
        """The rewritten graph; the same object if nothing fired."""
        self._graph = graph
        mapping: dict[Value, Value] = {}
        rows = self.rows
        for node in graph.nodes:
            new = rebuild(node, mapping) if mapping else node
            candidates = rows.get(node.op.name)
            if candidates is not None:
                self._current = node
                replacement = self._apply(new, candidates)
                if replacement is not None:
                    mapping[node.results[0]] = replacement
                    continue
            self._nodes.append(new)
            if new is not node:
                mapping.update(zip(node.results, new.results, strict=True))
        if not self.fired:
            return graph
        return finish(graph, self._nodes, mapping)

    def _apply(self, node: Node, rows: Sequence[Row]) -> Value | None:
        if self._depth >= self.MAX_DEPTH:
            return None
        for row in rows:
            outer, self._row = self._row, row.name
            self._depth += 1
            replacement = row.function(self, node)
            self._depth -= 1
            self._row = outer
            if replacement is None:
                continue
            if not same_type(replacement.type, node.results[0].type):
                raise RuntimeError(
                    f"row {row.name} on {node.op.name} gives {replacement.type} for {node.results[0].type}"
                )
            self.fired += 1
            if self.log is not None:
                self.log.append(Firing(self.pass_name, row.name, node.op.name, node.location))
            return replacement
        return None

    # -- for rows --------------------------------------------------------------------------------------------------

    def emit(self, name: str, *args: Any) -> Value:
        """The (simplified) result of an operator; `args` are normalised, and what is left out is the default."""
        op = REGISTRY[name]
        if len(args) < len(op.parameters):
            args += tuple(p.default for p in op.parameters[len(args) :])
        source = self._current
        assert source is not None
        origin = f"{source.origin}, {self._row}" if source.origin else self._row
        node = Node(op, args, op.infer(args), source.location, origin)
        candidates = self.rows.get(name)
        if candidates is not None:
            replacement = self._apply(node, candidates)
            if replacement is not None:
                return replacement
        self._nodes.append(node)
        return node.results[0]

    def like(self, node: Node, value: Value) -> Value | None:
        """`value` cast and expanded to the type of the node's result; None where that is not possible."""
        target = node.results[0].type
        own = value.type
        if own is target or same_type(own, target):
            return value
        if own.is_number or target.is_number or own.device != target.device:
            return None
        if own.dtype is not target.dtype:
            value = self.emit("cast", value, target.dtype)
        if not same_shape(value.type.shape, target.shape):
            value = self.emit("expand", value, target.shape)
        return value

    def needs_memory(self, node: Node) -> bool:
        """Whether a view or an output uses the result of the node being rewritten: its layout then matters."""
        if self._memory is None:
            self._memory = set(self._graph.outputs)
            self._memory.update(n.args[0] for n in self._graph.nodes if n.op.kind == VIEW)
        assert self._current is not None
        return self._current.results[0] in self._memory

    def uses(self, node: Node) -> int:
        """How often the node's result is used in the graph being walked; 0 for a node that a row made."""
        if self._counts is None:
            self._counts = self._graph.uses()
        return self._counts.get(node.results[0], 0)

    def view(self, value: Value, shape: tuple[Any, ...]) -> Value:
        """`value` in another shape."""
        return value if same_shape(value.type.shape, shape) else self.emit("view", value, shape)

    def full(self, node: Node, number: Any) -> Value | None:
        """A constant of the type of the node's result; None for run-time numbers, which have no constants."""
        target = node.results[0].type
        if target.is_number:
            return None
        return self.emit("full", target.shape, number, target.dtype, target.device)


def producer(arg: Any, *operators: str) -> Node | None:
    """The node that makes a value, if it applies one of these operators."""
    if type(arg) is not Value or arg.node is None or arg.node.op.name not in operators:
        return None
    return arg.node


def rebuild(node: Node, mapping: dict[Value, Value]) -> Node:
    """The node with its operands mapped: itself if none changes, otherwise a copy with the same result types."""
    if mapping.keys().isdisjoint(node.operands()):
        return node
    args = substitute(node.args, lambda v: mapping.get(v, v))
    copy = Node(node.op, args, [r.type for r in node.results], node.location, node.origin)
    for new, old in zip(copy.results, node.results, strict=True):
        new.name = old.name
    return copy


def finish(graph: Graph, nodes: list[Node], mapping: dict[Value, Value]) -> Graph:
    """The graph with other nodes and its outputs mapped.

    Outputs that shared no memory before must share none after, because the caller may change one in place: where a
    mapping made an output an alias of an input or of another output, the output becomes a clone.
    """
    outputs = [mapping.get(v, v) for v in graph.outputs]
    if outputs != graph.outputs:
        owners: dict[Value, Value] = {v: v for v in graph.inputs}  # the new root -> the old root it stands for
        clone = REGISTRY["clone"]
        for i, (old, new) in enumerate(zip(graph.outputs, outputs, strict=True)):
            old_root, root = storage_root(old), storage_root(new)
            if owners.setdefault(root, old_root) is not old_root:
                args = (new, *(p.default for p in clone.parameters[1:]))
                location = UNKNOWN if old.node is None else old.node.location
                copy = Node(clone, args, clone.infer(args), location, "an output of its own")
                nodes.append(copy)
                outputs[i] = copy.result
    return Graph(graph.name, list(graph.inputs), nodes, outputs, list(graph.input_kinds), list(graph.output_names))


def storage_root(value: Value) -> Value:
    """The value whose memory this one views: itself, unless view operators made it."""
    while value.node is not None and value.node.op.kind == VIEW:
        value = value.node.args[0]
    return value
