"""Graphs for other programs: JSON, which reads back to an equal graph, and Graphviz text, which draws."""

from __future__ import annotations

import json
import math
from typing import Any

from graphtorch.ir.graph import UNKNOWN, Graph, Location, Node, Value
from graphtorch.ir.parser import read_nan
from graphtorch.ir.printer import Names, print_arguments, print_float
from graphtorch.ir.region import Region
from graphtorch.ops.record import lookup
from graphtorch.tensor.devices import canonical, device
from graphtorch.tensor.dtypes import BY_NAME, dtype
from graphtorch.tensor.size_text import parse_size
from graphtorch.tensor.symint import SymbolScope, SymInt
from graphtorch.tensor.type import TensorType

FORMAT = "graphtorch graph"
VERSION = 1

# -- writing JSON -----------------------------------------------------------------------------------------------------


def to_json(graph: Graph, indent: int | None = None) -> str:
    """The graph as a JSON document. docs/ir.md describes it.

    Raises TypeError for an attribute that has no JSON form.
    """
    return json.dumps(to_dict(graph), indent=indent, allow_nan=False)


def to_dict(graph: Graph) -> dict[str, Any]:
    """The graph as what JSON is made of: dicts, lists, strings and numbers."""
    names = Names(graph)
    return {
        "format": FORMAT,
        "version": VERSION,
        "name": graph.name,
        "symbols": {name: {"lower": s.lower, "hint": s.hint} for name, s in graph.symbols.items()},
        "inputs": [
            {"name": value.name, "kind": kind, "type": _type(value.type)}
            for value, kind in zip(graph.inputs, graph.input_kinds, strict=True)
        ],
        "nodes": [_node(node, names) for node in graph.nodes],
        "outputs": [
            {"name": name, "value": names[value]} for value, name in zip(graph.outputs, graph.output_names, strict=True)
        ],
    }


def _node(node: Node, names: Names) -> dict[str, Any]:
    parameters = [p.name for p in node.op.parameters]
    found: dict[str, Any] = {
        "operator": node.op.name,
        "arguments": {p: _constant(a, names) for p, a in zip(parameters, node.args, strict=True)},
        "results": [{"name": names[r], "type": _type(r.type)} for r in node.results],
    }
    if node.location != UNKNOWN:
        place = node.location
        found["location"] = {"file": place.file, "line": place.line, "text": place.text, "module": place.module}
    if node.origin:
        found["origin"] = node.origin
    return found


def _type(t: TensorType) -> dict[str, Any]:
    return {
        "dtype": t.dtype.name,
        "shape": [size if type(size) is int else str(size) for size in t.shape],
        "device": str(t.device),
        "number": t.is_number,
    }


def _constant(value: Any, names: Names) -> Any:
    """JSON's own types for themselves; everything else as an object with one key that says what it is."""
    kind = type(value)
    if value is None or kind in (bool, int, str) or (kind is float and math.isfinite(value)):
        return value
    if kind is Value:
        return {"value": names[value]}
    if kind is float:
        return {"float": print_float(value)}
    if kind is tuple or kind is list:
        return {kind.__name__: [_constant(v, names) for v in value]}
    if kind is SymInt:
        return {"size": str(value)}
    if kind is dtype:
        return {"dtype": value.name}
    if kind is device:
        return {"device": str(value)}
    if kind is complex:
        return {"complex": [_constant(value.real, names), _constant(value.imag, names)]}
    if kind is slice:
        return {"slice": [_constant(v, names) for v in (value.start, value.stop, value.step)]}
    if value is Ellipsis:
        return {"ellipsis": True}
    if kind is dict:
        return {"dict": [[_constant(k, names), _constant(v, names)] for k, v in value.items()]}
    if kind is Region:
        return {"region": to_dict(value.graph)}
    raise TypeError(f"no JSON form for an attribute of type {kind.__name__}")


# -- reading JSON -----------------------------------------------------------------------------------------------------


def from_json(text: str) -> Graph:
    """The graph that `to_json` wrote.

    Raises ValueError for anything else, and KeyError for an operator that is not registered.
    """
    document = json.loads(text)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"not a {FORMAT}")
    if document.get("version") != VERSION:
        raise ValueError(f"version {document.get('version')} of the format; this program reads {VERSION}")
    return _Reader(document).graph()


class _Reader:
    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.values: dict[str, Value] = {}
        self.scope = SymbolScope()
        for name, found in document["symbols"].items():
            self.scope.symbol(found["hint"], found["lower"], name)

    def graph(self) -> Graph:
        graph = Graph(self.document["name"])
        for found in self.document["inputs"]:
            value = Value(self._type(found["type"]))
            self._define(found["name"], value)
            graph.inputs.append(value)
            graph.input_kinds.append(found["kind"])
        for found in self.document["nodes"]:
            op = lookup(found["operator"])
            arguments = found["arguments"]
            args = tuple(self._constant(arguments[p.name]) for p in op.parameters)
            types = [self._type(r["type"]) for r in found["results"]]
            location = Location(**found["location"]) if "location" in found else UNKNOWN
            node = Node(op, args, types, location, found.get("origin", ""))
            for result, value in zip(found["results"], node.results, strict=True):
                self._define(result["name"], value)
            graph.nodes.append(node)
        for found in self.document["outputs"]:
            graph.outputs.append(self._value(found["value"]))
            graph.output_names.append(found["name"])
        return graph

    def _define(self, name: str, value: Value) -> None:
        if name in self.values:
            raise ValueError(f"two values have the name {name!r}")
        value.name = name
        self.values[name] = value

    def _value(self, name: str) -> Value:
        if name not in self.values:
            raise ValueError(f"the value {name!r} is used before it is defined")
        return self.values[name]

    def _type(self, found: dict[str, Any]) -> TensorType:
        shape = tuple(size if type(size) is int else parse_size(size, self.scope.symbols) for size in found["shape"])
        return TensorType(BY_NAME[found["dtype"]], shape, canonical(found["device"]), found["number"])

    def _constant(self, found: Any) -> Any:
        if not isinstance(found, dict):
            return found
        ((kind, inside),) = found.items()
        match kind:
            case "value":
                return self._value(inside)
            case "float":
                return read_nan(inside) if inside.startswith("nan") else float(inside)
            case "tuple":
                return tuple(self._constant(v) for v in inside)
            case "list":
                return [self._constant(v) for v in inside]
            case "size":
                return parse_size(inside, self.scope.symbols)
            case "dtype":
                return BY_NAME[inside]
            case "device":
                return canonical(inside)
            case "complex":
                return complex(*(self._constant(v) for v in inside))
            case "slice":
                return slice(*(self._constant(v) for v in inside))
            case "ellipsis":
                return ...
            case "dict":
                return {self._constant(k): self._constant(v) for k, v in inside}
            case "region":
                return Region(_Reader(inside).graph())
        raise ValueError(f"unknown kind of constant {kind!r}")


# -- drawing ----------------------------------------------------------------------------------------------------------

# The fill colour says what kind of operator a node is.
_COLOURS = {"pointwise": "#dbeafe", "reduction": "#fde68a", "view": "#f3f4f6", "source": "#e9d5ff", "opaque": "#fecaca"}


def to_dot(graph: Graph) -> str:
    """The graph as Graphviz text: `dot -Tsvg` draws it. Operators are boxes, inputs and outputs are rounded."""
    names = Names(graph)
    lines = [
        f"digraph {_quoted(graph.name)} {{",
        '  node [shape=box, style="filled", fontname="monospace", fontsize=10];',
        '  edge [fontname="monospace", fontsize=9];',
    ]
    identity: dict[Value, str] = {}
    for i, (value, kind) in enumerate(zip(graph.inputs, graph.input_kinds, strict=True)):
        identity[value] = f"in{i}"
        label = f"{names.reference(value)}\n{value.type}\n{kind}"
        lines.append(f'  in{i} [label={_quoted(label)}, style="rounded,filled", fillcolor="#dcfce7"];')
    for i, node in enumerate(graph.nodes):
        identity.update((r, f"node{i}") for r in node.results)
        tip = f"{node.op.name}({print_arguments(node, names)})\n{node.location}"
        colour = _COLOURS.get(node.op.kind, "white")
        lines.append(
            f"  node{i} [label={_quoted(node.op.name)}, tooltip={_quoted(tip)}, fillcolor={_quoted(colour)}];"
        )
        for operand in node.operands():
            lines.append(f"  {identity[operand]} -> node{i} [label={_quoted(_edge(operand, names))}];")
    for i, (value, name) in enumerate(zip(graph.outputs, graph.output_names, strict=True)):
        lines.append(f'  out{i} [label={_quoted(name)}, style="rounded,filled", fillcolor="#dcfce7"];')
        lines.append(f"  {identity[value]} -> out{i} [label={_quoted(_edge(value, names))}];")
    return "\n".join([*lines, "}"]) + "\n"


def _edge(value: Value, names: Names) -> str:
    return f"{names.reference(value)}: {value.type}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
