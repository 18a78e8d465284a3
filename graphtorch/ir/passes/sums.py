"""Sums of several terms as the passes see them: trees of additions that nothing else reads inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphtorch.ir.graph import Graph, Node, Value
from graphtorch.ir.rewrite import finish, rebuild
from graphtorch.ops.record import REGISTRY
from graphtorch.tensor.symint import same_shape

# Makes the nodes that stand for a sum, and gives them with the value that is the sum; None: it stays.
Rewrite = Callable[[Node, set[Value], dict[Value, Value]], tuple[list[Node], Value] | None]


def is_static(shape: tuple[Any, ...]) -> bool:
    """Whether no size is symbolic."""
    return all(type(s) is int for s in shape)


def is_sum(node: Node) -> bool:
    """An addition of two tensors of one type, without a factor."""
    if node.op.name != "add" or any(type(a) is not Value for a in node.args[:2]):
        return False
    if len(node.args) > 2 and not (type(node.args[2]) is int and node.args[2] == 1):
        return False
    own = node.results[0].type
    return all(
        a.type.dtype is own.dtype and same_shape(a.type.shape, own.shape) and not a.type.is_number
        for a in node.args[:2]
    )


def terms(node: Node, inner: set[Value]) -> list[Value]:
    """The terms of a sum, in order. `inner` are the sums that are nothing but part of another one."""
    found: list[Value] = []
    stack: list[Value] = [node.args[1], node.args[0]]
    while stack:
        value = stack.pop()
        if value in inner and value.node is not None:
            stack.extend((value.node.args[1], value.node.args[0]))
        else:
            found.append(value)
    return found


def rewrite_sums(graph: Graph, rewrite: Rewrite, fired: Callable[[Node], None]) -> Graph:
    """The graph with every outermost sum for which `rewrite` has something better."""
    uses = graph.uses()
    inner = {a for n in graph.nodes if is_sum(n) for a in n.args[:2] if a.node and is_sum(a.node) and uses[a] == 1}
    mapping: dict[Value, Value] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        new = rebuild(node, mapping) if mapping else node
        if is_sum(node) and node.results[0] not in inner:
            better = rewrite(node, inner, mapping)
            if better is not None:
                made, total = better
                nodes.extend(made)
                mapping[node.results[0]] = total
                fired(node)
                continue
        nodes.append(new)
        if new is not node:
            mapping.update(zip(node.results, new.results, strict=True))
    return finish(graph, nodes, mapping) if mapping else graph


class Emitter:
    """Makes the nodes that stand for a sum."""

    def __init__(self, node: Node, row: str) -> None:
        self.location = node.location
        self.origin = f"{node.origin}, {row}" if node.origin else row
        self.nodes: list[Node] = []

    def __call__(self, name: str, *args: Any) -> Value:
        op = REGISTRY[name]
        args += tuple(p.default for p in op.parameters[len(args) :])
        self.nodes.append(Node(op, args, op.infer(args), self.location, self.origin))
        return self.nodes[-1].results[0]
