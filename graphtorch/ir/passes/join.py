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
from graphtorch.ir.rewrite import Firing, RewriteLog, finish, rebuild
from graphtorch.ops.record import REGISTRY


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
        if not any(_is_sum(n) for n in graph.nodes) or not any(_key(n) for n in graph.nodes):
            return graph
        uses = graph.uses()
        inner = {
            a for n in graph.nodes if _is_sum(n) for a in n.args[:2] if a.node and _is_sum(a.node) and uses[a] == 1
        }
        mapping: dict[Value, Value] = {}
        nodes: list[Node] = []
        for node in graph.nodes:
            new = rebuild(node, mapping) if mapping else node
            if _is_sum(node) and node.results[0] not in inner:
                joined = _join(node, inner, mapping)
                if joined is not None:
                    made, total = joined
                    nodes.extend(made)
                    mapping[node.results[0]] = total
                    if log is not None:
                        log.append(Firing(self.name, "sum-of-parts", node.op.name, node.location))
                    continue
            nodes.append(new)
            if new is not node:
                mapping.update(zip(node.results, new.results, strict=True))
        return finish(graph, nodes, mapping) if mapping else graph


def _is_sum(node: Node) -> bool:
    """An addition of two tensors of one type, without a factor."""
    if node.op.name != "add" or any(type(a) is not Value for a in node.args[:2]):
        return False
    if len(node.args) > 2 and not (type(node.args[2]) is int and node.args[2] == 1):
        return False
    own = node.results[0].type
    return all(
        a.type.dtype is own.dtype and _static(a.type.shape) and a.type.shape == own.shape and not a.type.is_number
        for a in node.args[:2]
    )


def _static(shape: tuple[Any, ...]) -> bool:
    return all(type(s) is int for s in shape)


def _key(node: Node | None) -> tuple[Any, ...] | None:
    """What parts that can be joined have in common: the dimension."""
    if node is None or node.op.name not in ("select_backward", "slice_backward"):
        return None
    if any(type(a) is not int for a in node.args[2:]) or not _static(node.args[1]):
        return None
    if node.op.name == "slice_backward" and (node.args[5] != 1 or not _static(node.args[0].shape)):
        return None
    return (node.args[2],)


def _part(node: Node) -> _Part:
    value, dim, start = node.args[0], node.args[2], node.args[3]
    if node.op.name == "select_backward":
        return _Part(start, start + 1, value, True)
    return _Part(start, start + value.shape[dim], value, False)


def _terms(node: Node, inner: set[Value]) -> list[Value]:
    """The terms of a sum, in order."""
    found: list[Value] = []
    stack: list[Value] = [node.args[1], node.args[0]]
    while stack:
        value = stack.pop()
        if value in inner and value.node is not None:
            stack.extend((value.node.args[1], value.node.args[0]))
        else:
            found.append(value)
    return found


def _join(node: Node, inner: set[Value], mapping: dict[Value, Value]) -> tuple[list[Node], Value] | None:
    """The nodes of a sum with its parts joined, and the sum; None if there is nothing to join."""
    by_key: dict[tuple[Any, ...], list[_Part]] = {}
    for term in _terms(node, inner):
        key = _key(term.node)
        if key is not None and term.node is not None:
            by_key.setdefault(key, []).append(_part(term.node))
    for (dim,), parts in by_key.items():
        ordered = sorted(parts, key=lambda p: p.start)
        apart = all(a.end <= b.start for a, b in pairwise(ordered))
        if len(parts) < 2 or not apart:
            continue
        others = [t for t in _terms(node, inner) if t.node is None or _key(t.node) != (dim,)]
        made: list[Node] = []

        def emit(name: str, *args: Any, into: list[Node] = made) -> Value:
            op = REGISTRY[name]
            args += tuple(p.default for p in op.parameters[len(args) :])
            origin = f"{node.origin}, sum-of-parts" if node.origin else "sum-of-parts"
            into.append(Node(op, args, op.infer(args), node.location, origin))
            return into[-1].results[0]

        total = emit("cat", tuple(_pieces(ordered, dim, node.results[0], mapping, emit)), dim)
        for other in others:
            total = emit("add", total, mapping.get(other, other))
        return made, total
    return None


def _pieces(parts: list[_Part], dim: int, result: Value, mapping: dict[Value, Value], emit: Any) -> list[Value]:
    """The operands of the concatenation: the parts, and zeros between them."""
    shape = result.type.shape

    def zeros(count: int) -> Value:
        size = (*shape[:dim], count, *shape[dim + 1 :])
        made: Value = emit("full", size, 0, result.type.dtype, result.type.device)
        return made

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
