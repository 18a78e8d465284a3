"""Sums of products as one product.

The weight of a recurrent layer is read at every time step: its gradient is a sum of as many products of small
matrices, each as large as the weight. They are one product of the matrices side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from graphtorch.ir.graph import Graph, Node, Value
from graphtorch.ir.passes.base import Pass, register
from graphtorch.ir.passes.sums import Emitter, is_static, rewrite_sums, terms
from graphtorch.ir.rewrite import Firing, RewriteLog

_ROW = "sum-of-products"


@register
@dataclass
class SumsOfProducts(Pass):
    """A sum of matrix products A_i B_i becomes the product of [A_1 A_2 ...] and the B_i below one another; a sum of
    sums over the first dimension becomes a sum over their operands side by side.

    Law: (A B)_ij is a sum over k, and sums of sums over k are one sum. Up to the order of additions. Products are only
    taken together where their operands are smaller than their results, so that putting them side by side costs less
    than adding the results up.
    """

    name: ClassVar[str] = "products"

    def run(self, graph: Graph, log: RewriteLog | None = None) -> Graph:
        if not any(_operands(n) for n in graph.nodes):
            return graph

        def fired(node: Node) -> None:
            if log is not None:
                log.append(Firing(self.name, _ROW, node.op.name, node.location))

        return rewrite_sums(graph, _together, fired)


def _operands(node: Node | None) -> tuple[tuple[Value, bool], ...] | None:
    """What a term is made of, if it can be taken together with others: for each operand that is put side by side the
    matrix, and whether it is transposed. (A B for a product, x for a sum over the first dimension.)"""
    if node is None or node.origin.endswith(_ROW):
        return None
    if node.op.name == "mm":
        a, b = node.args[:2]
        (m, k), n = a.shape, b.shape[1]
        if not is_static((m, k, n)) or not node.result.dtype.is_floating_point or k * (m + n) > m * n:
            return None
        return _plain(a), _plain(b)
    if node.op.name == "sum" and node.args[1] == (0,) and not node.args[2]:
        x = node.args[0]
        if x.ndim == 2 and is_static(x.shape) and x.dtype is node.result.dtype and x.dtype.is_floating_point:
            return (_plain(x),)
    return None


def _plain(value: Value) -> tuple[Value, bool]:
    node = value.node
    if node is None or value.ndim != 2:
        return value, False
    swaps = (node.op.name == "permute" and node.args[1] == (1, 0)) or (
        node.op.name == "transpose" and node.args[1:] in ((0, 1), (1, 0))
    )
    return (node.args[0], True) if swaps else (value, False)


def _together(node: Node, inner: set[Value], mapping: dict[Value, Value]) -> tuple[list[Node], Value] | None:
    kinds: dict[tuple[Any, ...], list[Value]] = {}
    every = terms(node, inner)
    for term in every:
        found = _operands(term.node)
        if found is not None and term.node is not None:
            key = (term.node.op.name, *(turned for _, turned in found))
            kinds.setdefault(key, []).append(term)
    groups = [group for group in kinds.values() if len(group) > 2]
    if not groups:
        return None
    emit = Emitter(node, _ROW)
    taken = {term for group in groups for term in group}
    total: Value | None = None
    for group in groups:
        # The cotangents of later steps come first in the sum: in the program's order they may be side by side already.
        group.reverse()
        parts = [_operands(term.node) or () for term in group]
        first = group[0].node
        assert first is not None
        if first.op.name == "mm":
            a = _joined([p[0] for p in parts], 1, mapping, emit)
            made = emit("mm", a, _joined([p[1] for p in parts], 0, mapping, emit))
        else:
            made = emit("sum", _joined([p[0] for p in parts], 0, mapping, emit), (0,))
        total = made if total is None else emit("add", total, made)
    for term in every:
        if term not in taken:
            total = emit("add", total, mapping.get(term, term))
    assert total is not None
    return emit.nodes, total


def _joined(parts: list[tuple[Value, bool]], dim: int, mapping: dict[Value, Value], emit: Emitter) -> Value:
    """Matrices side by side along `dim`: as they lie in memory, and transposed after that."""
    turned = parts[0][1]
    values = [mapping.get(value, value) for value, _ in parts]
    made = emit("cat", tuple(values), 1 - dim if turned else dim)
    return emit("transpose", made, 0, 1) if turned else made
