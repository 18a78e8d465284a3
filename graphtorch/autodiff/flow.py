"""Which operands the gradient of a result flows to.

Of most nodes every result depends on every operand that has a derivative. A control-flow node has several results, each
of which may depend, inside the branches or the body, on a few operands only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphtorch.ir.graph import Graph, Node, Value


def flows(node: Node) -> list[list[Value]]:
    """For each result of a node, the operands that its gradient flows to."""
    if node.op.name == "cond":
        _, operands, then, otherwise = node.args
        sides = zip(reached_inputs(then.graph), reached_inputs(otherwise.graph), strict=True)
        return [[operands[i] for i in sorted(first | second)] for first, second in sides]
    if node.op.name == "scan":
        init, xs, extra, body = node.args
        operands = (*init, *xs, *extra)
        return [[operands[i] for i in sorted(places)] for places in scanned_inputs(body.graph, len(init))]
    every: list[Value] = []
    for parameter, arg in zip(node.op.parameters, node.args, strict=True):
        if parameter.name in node.op.derivative:
            every.extend(a for a in (arg if type(arg) is tuple else (arg,)) if type(a) is Value)
    return [every if r.type.dtype.is_differentiable else [] for r in node.results]


def differing(node: Node, active: Any) -> bool:
    """Whether the gradient of a result of `cond` flows to other `active` operands in one branch than in the other."""
    _, operands, then, otherwise = node.args
    wanted = {i for i, v in enumerate(operands) if v in active}
    pairs = zip(reached_inputs(then.graph), reached_inputs(otherwise.graph), strict=True)
    return any(first & wanted != second & wanted for first, second in pairs)


def reached_inputs(graph: Graph) -> list[set[int]]:
    """For each output of a graph, the positions of the inputs that its gradient flows to."""
    found: dict[Value, set[int]] = {}
    for i, value in enumerate(graph.inputs):
        if value.type.dtype.is_differentiable and not value.type.is_number:
            found[value] = {i}
    for node in graph.nodes:
        if node.op.derivative:
            for result, operands in zip(node.results, flows(node), strict=True):
                reached = [found[v] for v in operands if v in found]
                if reached:
                    found[result] = set().union(*reached)
    return [found.get(v, set()) for v in graph.outputs]


def scanned_inputs(body: Graph, count: int) -> Sequence[set[int]]:
    """`reached_inputs` of a whole scan, from those of its body: the first `count` inputs are carried on to the next
    step."""
    steps = reached_inputs(body)
    found = [set(s) for s in steps]
    while True:
        grown = [s.union(*(found[i] for i in s if i < count)) for s in found]
        if grown == found:
            return found
        found = grown
