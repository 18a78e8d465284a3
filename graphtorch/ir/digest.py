"""A graph's digest: equal for two graphs exactly when they have the same operators, attributes and types in the same
places. Names and locations do not count. It is what compiled programs are found by on disk."""

from __future__ import annotations

import hashlib
from typing import Any

from graphtorch.ir.graph import Graph, Value
from graphtorch.ops.record import Operator
from graphtorch.tensor.devices import device
from graphtorch.tensor.dtypes import dtype
from graphtorch.tensor.type import TensorType

_known: dict[Operator, bool] = {}


class NoDigestError(Exception):
    """The graph holds something that another process can't recognise."""


def digest(graph: Graph, *also: Any) -> str | None:
    """The digest of a graph, and of constants that belong to it.

    None where the graph holds an object that text can't stand for (a random generator, a region, a symbolic size), or
    an operator that is not the package's own: its meaning may change while its name stays.
    """
    numbers: dict[Value, int] = {}
    types: dict[int, str] = {}
    parts: list[str] = []

    def number(value: Value) -> None:
        numbers[value] = len(numbers)
        text = types.get(id(value.type))
        if text is None:
            text = types[id(value.type)] = _type(value.type)
        parts.append(text)

    def constant(value: Any) -> str:
        kind = type(value)
        if kind is Value:
            return f"%{numbers[value]}"
        if kind is int:
            return str(value)
        if value is None or value is Ellipsis or kind is bool or kind is float or kind is complex or kind is str:
            return repr(value)  # floats: the shortest text that reads back as the same number
        if kind is tuple or kind is list:
            return f"{'(' if kind is tuple else '['}{','.join([constant(v) for v in value])})"
        if kind is dtype:
            return f"dtype {value.name}"
        if kind is device:
            return f"device {value}"
        if kind is slice:
            return f"slice {constant((value.start, value.stop, value.step))}"
        if kind is dict:
            return f"dict {constant([*value.items()])}"
        raise NoDigestError

    try:
        for value, kind in zip(graph.inputs, graph.input_kinds, strict=True):
            number(value)
            parts.append(kind)
        for node in graph.nodes:
            if not is_own(node.op):
                return None
            parts.append(node.op.name)
            parts.extend([constant(a) for a in node.args])
            for result in node.results:
                number(result)
        parts.append(constant([*graph.outputs]))
        parts.append(constant(also))
    except NoDigestError:
        return None
    # The separator occurs in no part: `repr` escapes it in strings.
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=20).hexdigest()


def _type(type: TensorType) -> str:
    if not all(isinstance(size, int) for size in type.shape):
        raise NoDigestError
    return f"{type.dtype.name}{list(type.shape)}{type.device}{' number' if type.is_number else ''}"


def is_own(op: Operator) -> bool:
    """Whether everything that an operator's record says comes from this package."""
    known = _known.get(op)
    if known is None:
        functions = (op.type_rule, op.numpy, op.decompose, op.normalize, op.compute)
        homes = [getattr(f, "__module__", None) or "numpy" for f in functions if f is not None]
        known = _known[op] = all(home.partition(".")[0] in ("graphtorch", "numpy") for home in homes)
    return known
