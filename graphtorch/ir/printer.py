"""Graphs as text. `parser.parse_graph` reads the text back to an equal graph; docs/ir.md has the grammar.

    graph step[s0 >= 2](%x: f32[s0, 784] argument, %fc1.weight: f32[128, 784] parameter) {
      %0: f32[s0, 128] = linear(%x, %fc1.weight)  # train.py:21 in fc1 "h = self.fc1(x)"
      return h=%0
    }
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Sequence
from typing import Any

from graphtorch.ir.equality import same_constant
from graphtorch.ir.graph import Graph, Location, Node, Value
from graphtorch.tensor.devices import device
from graphtorch.tensor.dtypes import dtype
from graphtorch.tensor.symint import SymInt

LINE_LENGTH = 100

BARE_NAME = re.compile(r"[A-Za-z0-9_.]+\Z")
BARE_LABEL = re.compile(r"[A-Za-z0-9_.]+(?: [A-Za-z0-9_.]+)*\Z")
BARE_FILE = re.compile(r"[\w./\\~+<>-]+\Z")
BARE_MODULE = re.compile(r"[\w.\[\]-]+\Z")
IDENTIFIER = re.compile(r"[A-Za-z_]\w*\Z")


class Names:
    """A unique name for every value of a graph.

    A value's own name is kept if it is free (a number is appended if not); the others are counted from 0.
    """

    def __init__(self, graph: Graph) -> None:
        self._names: dict[Value, str] = {}
        self._taken: set[str] = set()
        self._foreign: set[Value] = set()
        values = [*graph.inputs, *(r for node in graph.nodes for r in node.results)]
        # Inputs come first; then named values claim their names before the others are numbered around them.
        for value in values:
            if value.name and value not in self._names:
                self._claim(value, value.name)
        count = 0
        for value in values:
            if value not in self._names:
                while str(count) in self._taken:
                    count += 1
                self._claim(value, str(count))

    def _claim(self, value: Value, name: str) -> None:
        unique, suffix = name, 0
        while unique in self._taken:
            suffix += 1
            unique = f"{name}_{suffix}"
        self._taken.add(unique)
        self._names[value] = unique

    def __getitem__(self, value: Value) -> str:
        """The value's name; one that does not parse for a value that is not of this graph."""
        name = self._names.get(value)
        if name is None:
            name = self._names[value] = f"?{value.name or len(self._foreign)}"
            self._foreign.add(value)
        return name

    def reference(self, value: Value) -> str:
        """The value as text: `%x`, or quoted if the name has unusual characters."""
        name = self[value]
        return f"%{name}" if BARE_NAME.match(name) or value in self._foreign else f"%{json.dumps(name)}"


def print_graph(graph: Graph, provenance: bool = True) -> str:
    """The text of a graph; `provenance` appends each node's source line and origin as a comment."""
    names = Names(graph)
    lines = print_header(graph, names)
    lines += [print_node(node, names, provenance) for node in graph.nodes]
    lines += print_outputs(graph, names)
    return "\n".join(lines) + "\n}\n"


def print_header(graph: Graph, names: Names) -> list[str]:
    """The lines up to the opening brace; one line where it is short enough."""
    symbols = ", ".join(
        f"{s.name} >= {s.lower}" + (f" ~ {s.hint}" if s.hint is not None else "") for s in graph.symbols.values()
    )
    head = f"graph {_quoted_unless(IDENTIFIER, graph.name)}{f'[{symbols}]' if symbols else ''}("
    inputs = [
        f"{names.reference(value)}: {value.type} {_quoted_unless(IDENTIFIER, kind)}"
        for value, kind in zip(graph.inputs, graph.input_kinds, strict=False)
    ]
    return _list(head, inputs, ") {", "")


def print_outputs(graph: Graph, names: Names) -> list[str]:
    """The return statement."""
    outputs = [
        f"{_quoted_unless(BARE_LABEL, name)}={print_constant(value, names)}"
        for value, name in zip(graph.outputs, graph.output_names, strict=False)
    ]
    if not outputs:
        return ["  return"]
    line = f"  return {', '.join(outputs)}"
    return [line] if len(line) <= LINE_LENGTH else ["  return (", *(f"    {o}," for o in outputs), "  )"]


def _list(head: str, items: Sequence[str], tail: str, indent: str) -> list[str]:
    line = f"{indent}{head}{', '.join(items)}{tail}"
    if len(line) <= LINE_LENGTH:
        return [line]
    return [indent + head, *(f"{indent}  {item}," for item in items), indent + tail]


def print_node(node: Node, names: Names, provenance: bool = True) -> str:
    """The line of one node."""
    results = ", ".join(names.reference(r) for r in node.results)
    types = ", ".join(str(r.type) for r in node.results)
    text = f"  {results}: {types} = {node.op.name}({print_arguments(node, names)})"
    comment = print_provenance(node.location, node.origin) if provenance else ""
    return f"{text}  # {comment}" if comment else text


def print_arguments(node: Node, names: Names) -> str:
    """Operands by position as far as none is left out, everything else by name, and nothing that is the default."""
    parts: list[str] = []
    positional = True
    for parameter, arg in zip(node.op.parameters, node.args, strict=False):
        if same_constant(arg, parameter.default):
            positional = False
            continue
        text = print_constant(arg, names)
        positional = positional and parameter.is_operand and not parameter.keyword_only
        parts.append(text if positional else f"{parameter.name}={text}")
    # Only a broken node has more arguments than parameters; the verifier shows it like this.
    parts += [print_constant(arg, names) for arg in node.args[len(node.op.parameters) :]]
    return ", ".join(parts)


def print_provenance(location: Location, origin: str) -> str:
    """`file:line in module "text" from "origin"`, each part only where there is something."""
    parts: list[str] = []
    if location.file or location.line:
        parts.append(f"{_quoted_unless(BARE_FILE, location.file)}:{location.line}")
    if location.module:
        parts.append(f"in {_quoted_unless(BARE_MODULE, location.module)}")
    if location.text:
        parts.append(json.dumps(location.text, ensure_ascii=False))
    if origin:
        parts.append(f"from {json.dumps(origin, ensure_ascii=False)}")
    return " ".join(parts)


def _quoted_unless(bare: re.Pattern[str], text: str) -> str:
    return text if bare.match(text) else json.dumps(text)


def print_constant(value: Any, names: Names) -> str:
    """An argument as text: exact for every kind of constant that operators take.

    Anything else prints as `<type name>`, which shows what it is but does not parse.
    """
    kind = type(value)
    if kind is Value:
        return names.reference(value)
    if value is None or kind is bool or kind is int:
        return repr(value)
    if kind is float:
        return print_float(value)
    if kind is str:
        return json.dumps(value)
    if kind is tuple:
        items = ", ".join(print_constant(v, names) for v in value)
        return f"({items},)" if len(value) == 1 else f"({items})"
    if kind is list:
        return f"[{', '.join(print_constant(v, names) for v in value)}]"
    if kind is SymInt:
        return str(value)
    if kind is dtype:
        return str(value.abbreviation)
    if kind is device:
        return f"@{value}"
    if kind is complex:
        return f"complex({print_float(value.real)}, {print_float(value.imag)})"
    if kind is slice:
        return f"slice({', '.join(print_constant(v, names) for v in (value.start, value.stop, value.step))})"
    if value is Ellipsis:
        return "..."
    if kind is dict:
        inside = ", ".join(f"{print_constant(k, names)}: {print_constant(v, names)}" for k, v in value.items())
        return f"{{{inside}}}"
    graph = getattr(value, "graph", None)
    if type(graph) is Graph:  # a region: its lines, further to the right
        return print_graph(graph).rstrip().replace("\n", "\n    ")
    return f"<{kind.__name__}>"


def print_float(value: float) -> str:
    """The shortest text that reads back to the same float; a NaN with a payload or sign shows its bits."""
    if math.isnan(value):
        (bits,) = struct.unpack("<Q", struct.pack("<d", value))
        return "nan" if bits == 0x7FF8000000000000 else f"nan({bits:#x})"
    return repr(value)
