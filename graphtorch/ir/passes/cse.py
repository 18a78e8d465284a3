"""Common subexpression elimination."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from graphtorch.ir.equality import constant_key, same_type
from graphtorch.ir.graph import Graph, Node, Value
from graphtorch.ir.passes.base import Pass, register
from graphtorch.ir.rewrite import Firing, RewriteLog, finish, rebuild

# Operators whose first two operands may change places without changing a bit of the result.
COMMUTATIVE = frozenset(
    {
        "add",
        "mul",
        "maximum",
        "minimum",
        "eq",
        "ne",
        "logical_and",
        "logical_or",
        "logical_xor",
        "bitwise_and",
        "bitwise_or",
        "bitwise_xor",
    }
)
_SELF_KEYED = frozenset({Value, bool, str, type(None)})


@register
@dataclass
class CommonSubexpressions(Pass):
    """Compute the same operator on the same arguments once: the first node stands for the later ones.

    Arguments are the same when values are the same value and constants agree to type and bit; the operands of a
    commutative operator may be swapped. Random nodes are never merged. Values are immutable, so views merge too;
    outputs that had memory of their own keep it.
    """

    name: ClassVar[str] = "cse"

    def run(self, graph: Graph, log: RewriteLog | None = None) -> Graph:
        seen: dict[Any, Node] = {}
        mapping: dict[Value, Value] = {}
        nodes: list[Node] = []
        for node in graph.nodes:
            new = rebuild(node, mapping) if mapping else node
            if not new.op.random:
                first = seen.setdefault(_key(new), new)
                if first is not new and _same_types(first, new):
                    mapping.update(zip(node.results, first.results, strict=True))
                    if log is not None:
                        log.append(Firing(self.name, "computed before", node.op.name, node.location))
                    continue
            nodes.append(new)
            if new is not node:
                mapping.update(zip(node.results, new.results, strict=True))
        return finish(graph, nodes, mapping) if mapping else graph


def _key(node: Node) -> tuple[Any, ...]:
    args = node.args
    name = node.op.name
    parts: list[Any] = [name]
    for arg in args:
        kind = type(arg)
        if kind in _SELF_KEYED:
            parts.append(arg)
        elif kind is int:
            # True and 1.0 equal 1, but neither has this key.
            parts.append((int, arg))
        else:
            parts.append(constant_key(arg))
    if name in COMMUTATIVE and type(args[0]) is Value and type(args[1]) is Value:
        # add's alpha scales the second operand only.
        unscaled = len(args) == 2 or (type(args[2]) is int and args[2] == 1)
        if unscaled and id(args[0]) > id(args[1]):
            parts[1], parts[2] = parts[2], parts[1]
    return tuple(parts)


def _same_types(a: Node, b: Node) -> bool:
    return all(same_type(x.type, y.type) for x, y in zip(a.results, b.results, strict=True))
