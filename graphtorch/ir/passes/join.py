"""Sums of parts as one concatenation.

The cotangents of `q, k, v = x.unbind(0)`, of `chunk` and of slices reach `x` as zeros with one part filled in each,
added up: n values of the size of `x`, n - 1 additions. Where the parts don't overlap they are one `cat`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

from graphtorch.ir.graph import Graph, Node, Value
from graphtorch.ir.passes.base import Pass, register
from graphtorch.ir.passes.sums import Emitter, rewrite_sums, terms
from graphtorch.ir.rewrite import Firing, RewriteLog


class _Part(NamedTuple):
    """`value` at [start, end) along a dimension, zeros elsewhere; `selected`: without that dimension."""

    start: int
    end: int
    value: Value
    selected: bool


@register
@dataclass
class JoinParts(Pass):
    """A sum of two or more `select_backward` or `slice_backward` of one dimension that don't overlap becomes a `cat` of
    their operands, with zeros where no part lies.

    Only sums that nothing else reads inside are taken, so that nothing is computed twice. Exact up to the sign of zero
    and, where a sum has further terms, the order of additions.
    """

    name: ClassVar[str] = "join"

    def run(self, graph: Graph, log: RewriteLog | None = None) -> Graph:
        if not any(_key(n) for n in graph.nodes):
            return graph

        def fired(node: Node) -> None:
            if log is not None:
                log.append(Firing(self.name, "sum-of-parts", node.op.name, node.location))

        return rewrite_sums(graph, _join, fired)


def _key(node: Node | None) -> tuple[Any, ...] | None:
    """What parts that can be joined have in common: the dimension."""
    if node is None or node.op.name not in ("select_backward", "slice_backward"):
        return None
    dim = node.args[2]
    if any(type(a) is not int for a in node.args[2:]) or type(node.args[1][dim]) is not int:
        return None
    if node.op.name == "slice_backward" and (node.args[5] != 1 or type(node.args[0].shape[dim]) is not int):
        return None
    return (node.args[2],)


def _part(node: Node) -> _Part:
    value, dim, start = node.args[0], node.args[2], node.args[3]
    if node.op.name == "select_backward":
        return _Part(start, start + 1, value, True)
    return _Part(start, start + value.shape[dim], value, False)


def _join(node: Node, inner: set[Value], mapping: dict[Value, Value]) -> tuple[list[Node], Value] | None:
    """The nodes of a sum with its parts joined, and the sum; None if there is nothing to join."""
    by_key: dict[tuple[Any, ...], list[_Part]] = {}
    every = terms(node, inner)
    for term in every:
        key = _key(term.node)
        if key is not None and term.node is not None:
            by_key.setdefault(key, []).append(_part(term.node))
    for (dim,), parts in by_key.items():
        ordered = sorted(parts, key=lambda p: p.start)
        apart = all(a.end <= b.start for a, b in pairwise(ordered))
        if len(parts) < 2 or not apart:
            continue
        others = [t for t in every if t.node is None or _key(t.node) != (dim,)]
        emit = Emitter(node, "sum-of-parts")
        total = emit("cat", tuple(_pieces(ordered, dim, node.results[0], mapping, emit)), dim)
        for other in others:
            total = emit("add", total, mapping.get(other, other))
        return emit.nodes, total
    return None


def _pieces(parts: list[_Part], dim: int, result: Value, mapping: dict[Value, Value], emit: Emitter) -> list[Value]:
    """The operands of the concatenation: the parts, and zeros between them."""
    shape = result.type.shape

    def zeros(count: int) -> Value:
        size = (*shape[:dim], count, *shape[dim + 1 :])
        return emit("full", size, 0, result.type.dtype, result.type.device)

    found: list[Value] = []
    at = 0
    for part in parts:
        if part.start > at:
            found.append(zeros(part.start - at))
        value = mapping.get(part.value, part.value)
        found.append(emit("unsqueeze", value, dim) if part.selected else value)
        at = part.end
    if at < shape[dim]:
        found.append(zeros(shape[dim] - at))
    return found
