"""A graph as Python source: a function of operator calls that records the same graph again."""

from __future__ import annotations

import keyword
import re
from typing import Any

from graphtorch.ir.graph import Graph, Node, Value
from graphtorch.ops.build import FUNCTIONS
from graphtorch.ops.record import MISSING
from graphtorch.tensor.devices import device
from graphtorch.tensor.dtypes import dtype

# Records behind a method that everybody knows.
_METHODS = {"cast": "to", "view": "reshape", "expand": "expand", "permute": "permute", "detach": "detach"}


def print_python(graph: Graph, name: str) -> str:
    """`def name(inputs): ...` with one line a node; `torch` is the package.

    Raises TypeError for an argument that has no Python source, such as a generator object or a region.
    """
    names: dict[Value, str] = {}
    taken = {name, "torch", *keyword.kwlist}

    def define(value: Value, wanted: str) -> str:
        base = re.sub(r"\W+", "_", wanted).strip("_") or "v"
        base = f"v{base}" if base[0].isdigit() else base
        made, count = base, 1
        while made in taken:
            made, count = f"{base}_{count}", count + 1
        taken.add(made)
        names[value] = made
        return made

    parameters = ", ".join(define(v, v.name or "x") for v in graph.inputs)
    lines = [f"def {name}({parameters}):"]
    for node in graph.nodes:
        call = _call(node, names)
        results = ", ".join(define(r, r.name or node.op.name[0]) for r in node.results)
        text = f"  # {node.location.text}" if node.location.text else ""
        lines.append(f"    {results} = {call}{text}")
    lines.append(f"    return {', '.join(names[v] for v in graph.outputs)}")
    return "\n".join(lines)


def input_names(graph: Graph, source: str) -> list[str]:
    """The parameters of what `print_python` gave."""
    inside = source[source.index("(") + 1 : source.index("):")]
    return [p.strip() for p in inside.split(",")] if graph.inputs else []


def _call(node: Node, names: dict[Value, str]) -> str:
    op = node.op
    method = _METHODS.get(op.name)
    if method is not None:
        given = [_literal(a, names) for p, a in zip(op.parameters[1:], node.args[1:], strict=True) if a != p.default]
        return f"{names[node.args[0]]}.{method}({', '.join(given)})"
    parts: list[str] = []
    positional = True
    for parameter, arg in zip(op.parameters, node.args, strict=True):
        if parameter.default is not MISSING and type(arg) is not Value and _same(arg, parameter.default):
            positional = False
            continue
        positional = positional and not parameter.keyword_only
        text = _literal(arg, names)
        parts.append(text if positional else f"{parameter.name}={text}")
    public = FUNCTIONS.get(op.name)
    known = public is not None and getattr(public, "operator", None) is op
    function = f"torch.{op.name}" if known else f'torch.ops.lookup("{op.name}").function'
    return f"{function}({', '.join(parts)})"


def _same(a: Any, b: Any) -> bool:
    return a is b or (type(a) is type(b) and bool(a == b))


def _literal(arg: Any, names: dict[Value, str]) -> str:
    if type(arg) is Value:
        return names[arg]
    if type(arg) is tuple:
        inside = ", ".join(_literal(a, names) for a in arg)
        return f"({inside},)" if len(arg) == 1 else f"({inside})"
    if isinstance(arg, dtype):
        return f"torch.{arg.name}"
    if isinstance(arg, device):
        return f'"{arg}"'
    if isinstance(arg, float) and (arg != arg or arg in (float("inf"), float("-inf"))):
        return f'float("{arg}")'
    if arg is None or isinstance(arg, bool | int | float | complex | str):
        return repr(arg)
    raise TypeError(f"{type(arg).__name__} has no Python source")
