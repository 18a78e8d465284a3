"""The IR: a graph of nodes in static single assignment form.

A `Node` applies an operator to arguments (values, or attributes that are plain Python constants) and makes results. A
`Value` is a graph input or a node's result and has a type. A `Graph` is one block: inputs, nodes in an order where
every operand comes before its users, and outputs. Values are immutable; there is no mutation and no control flow in a
graph. Nodes don't change once they are part of one: a pass makes a new graph, which shares the nodes that stay.

The same structure serves both levels: operators as the user wrote them, and primitives after decomposition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from graphtorch.ops.record import Operator
from graphtorch.tensor.symint import Symbol, SymInt, symbols_of
from graphtorch.tensor.type import TensorType


@dataclass(frozen=True, slots=True)
class Location:
    """Where a node came from: the user's file, line and source text, and the path of the module being called."""

    file: str = ""
    line: int = 0
    text: str = ""
    module: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.file else "<unknown>"


UNKNOWN = Location()


class Value:
    """An SSA value. Identity is the value's identity; `name` is only for people (and the printer makes it unique)."""

    __slots__ = ("index", "name", "node", "type")

    def __init__(self, type: TensorType, name: str = "", node: Node | None = None, index: int = 0) -> None:
        self.type = type
        self.name = name
        self.node = node
        self.index = index

    @property
    def dtype(self) -> Any:
        return self.type.dtype

    @property
    def shape(self) -> tuple[Any, ...]:
        return self.type.shape

    @property
    def device(self) -> Any:
        return self.type.device

    @property
    def ndim(self) -> int:
        return len(self.type.shape)

    @property
    def is_number(self) -> bool:
        return self.type.is_number

    def dim(self) -> int:
        return len(self.type.shape)

    def numel(self) -> Any:
        return self.type.numel()

    def __repr__(self) -> str:
        return f"%{self.name or '?'}: {self.type}"


class Node:
    """One application of an operator.

    `args` follows the operator's parameters; an entry is a Value, a tuple of Values (and None), or a constant.
    `location` is the user's line; `origin` says which rewrite or differentiation step made the node, for reports
    ("backward of exp", "decomposed from softmax").
    """

    __slots__ = ("_operands", "args", "location", "op", "origin", "results")

    def __init__(
        self,
        op: Operator,
        args: tuple[Any, ...],
        types: Iterable[TensorType],
        location: Location = UNKNOWN,
        origin: str = "",
    ) -> None:
        self.op = op
        self.args = args
        self.location = location
        self.origin = origin
        self.results: tuple[Value, ...] = tuple([Value(t, "", self, i) for i, t in enumerate(types)])
        self._operands: tuple[Value, ...] | None = None

    @property
    def result(self) -> Value:
        """The only result (the first of several)."""
        return self.results[0]

    def operands(self) -> tuple[Value, ...]:
        """The operand values in order, lists flattened. Found once: the arguments of a node stay."""
        if self._operands is None:
            found: list[Value] = []
            for arg in self.args:
                if type(arg) is Value:
                    found.append(arg)
                elif type(arg) is tuple:
                    found.extend([item for item in arg if type(item) is Value])
            self._operands = tuple(found)
        return self._operands

    def argument(self, name: str) -> Any:
        """The argument of a parameter by name."""
        return self.args[self.op.index_of(name)]

    def __repr__(self) -> str:
        return f"<{self.op.name} {', '.join(map(repr, self.results))}>"


@dataclass(eq=False)
class Graph:
    """A block of nodes with named inputs and outputs.

    input_kinds     what an input stands for, beside its value: "argument", "parameter", "buffer", "state", "number",
                    "constant", ...
    output_names    one name an output, such as "loss", "grad of fc1.weight", "new fc1.weight"; for people.
    """

    name: str = "graph"
    inputs: list[Value] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    input_kinds: list[str] = field(default_factory=list)
    output_names: list[str] = field(default_factory=list)

    def add_input(self, type: TensorType, name: str = "", kind: str = "argument") -> Value:
        """Append an input."""
        value = Value(type, name or f"in{len(self.inputs)}")
        self.inputs.append(value)
        self.input_kinds.append(kind)
        return value

    def add(
        self, op: Operator, args: tuple[Any, ...], location: Location = UNKNOWN, origin: str = ""
    ) -> tuple[Value, ...]:
        """Append a node; result types come from the operator's type rule. `args` must be normalised."""
        node = Node(op, args, op.infer(args), location, origin)
        self.nodes.append(node)
        return node.results

    def add_output(self, value: Value, name: str = "") -> None:
        """Append an output."""
        self.outputs.append(value)
        self.output_names.append(name or f"out{len(self.outputs) - 1}")

    @property
    def symbols(self) -> dict[str, Symbol]:
        """The size symbols that occur in types and arguments, by name, in order of occurrence."""
        found: dict[str, Symbol] = {}

        def visit(size: Any) -> None:
            if type(size) is SymInt:
                for name, symbol in symbols_of(size).items():
                    found.setdefault(name, symbol)
            elif type(size) is tuple:
                for item in size:
                    visit(item)

        for value in self.inputs:
            visit(value.type.shape)
        for node in self.nodes:
            visit(node.args)
            for result in node.results:
                visit(result.type.shape)
        return found

    def uses(self) -> dict[Value, int]:
        """How often each value is an operand or an output."""
        counts: dict[Value, int] = {}
        for node in self.nodes:
            for operand in node.operands():
                counts[operand] = counts.get(operand, 0) + 1
        for value in self.outputs:
            counts[value] = counts.get(value, 0) + 1
        return counts

    def __str__(self) -> str:
        from graphtorch.ir.printer import print_graph

        return print_graph(self)


def copy_graph(graph: Graph) -> Graph:
    """An equal graph of new values and nodes."""
    result = Graph(graph.name, input_kinds=list(graph.input_kinds), output_names=list(graph.output_names))
    mapping: dict[Value, Value] = {}
    for value in graph.inputs:
        mapping[value] = Value(value.type, value.name)
        result.inputs.append(mapping[value])
    for node in graph.nodes:
        args = substitute(node.args, mapping.__getitem__)
        made = Node(node.op, args, [r.type for r in node.results], node.location, node.origin)
        result.nodes.append(made)
        for old, new in zip(node.results, made.results, strict=True):
            new.name = old.name
            mapping[old] = new
    result.outputs = [mapping[v] for v in graph.outputs]
    return result


def substitute(args: tuple[Any, ...], mapping: Callable[[Value], Value]) -> tuple[Any, ...]:
    """Arguments with every operand mapped."""
    return tuple(
        [
            mapping(a)
            if type(a) is Value
            else tuple([mapping(i) if type(i) is Value else i for i in a])
            if type(a) is tuple
            else a
            for a in args
        ]
    )
