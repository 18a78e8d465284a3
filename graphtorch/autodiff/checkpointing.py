"""Activation checkpointing in a graph that has its backward pass in it.

The operators that a function ran under `utils.checkpoint` are marked. What the backward nodes read of their results is
computed again for them, by copies of these operators right before the first backward node that needs one, so that the
results themselves need not live that long. The copies read their surroundings through a value of the backward pass that
is there by then: otherwise they would be common subexpressions of the originals, and could run as early. The method is
that of Chen et al., "Training Deep Nets with Sublinear Memory Cost" (2016)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphtorch.autodiff.recompute import CHECKPOINT
from graphtorch.ir.builder import GraphBuilder, wrap
from graphtorch.ir.graph import Graph, Node, Value, substitute
from graphtorch.ir.passes.base import Pass
from graphtorch.ir.rewrite import RewriteLog
from graphtorch.ops.build import FUNCTIONS
from graphtorch.ops.record import SOURCE
from graphtorch.tensor import dtypes
from graphtorch.tensor.tensor import Tensor

BACKWARD = "backward of"  # how the origins of backward nodes begin


@dataclass
class _Region:
    """One checkpointed call, and where the backward pass needs it."""

    nodes: list[Node]
    first: Node  # the first backward node that reads a result
    token: Value  # of the backward pass, made before that
    again: list[Node]  # the nodes to run again, in order


@dataclass(frozen=True)
class RecomputeCheckpoints(Pass):
    """Lets backward nodes read copies of checkpointed operators' results.

    Contract: inputs and outputs correspond one to one; every random operator runs once."""

    name: ClassVar[str] = "recompute_checkpoints"

    def run(self, graph: Graph, log: RewriteLog | None = None) -> Graph:
        """Returns `graph` itself where no backward node reads what a checkpointed operator gives."""
        regions = _regions(graph)
        if not regions:
            return graph
        starting: dict[Node, list[_Region]] = {}
        for region in regions:
            starting.setdefault(region.first, []).append(region)
        result = Graph(graph.name, input_kinds=list(graph.input_kinds), output_names=list(graph.output_names))
        mapping: dict[Value, Value] = {}
        copies: dict[Value, Value] = {}  # of the originals, for backward nodes
        for value in graph.inputs:
            mapping[value] = Value(value.type, value.name)
            result.inputs.append(mapping[value])
        kinds = dict(zip(graph.inputs, graph.input_kinds, strict=True))
        for node in graph.nodes:
            for region in starting.get(node, ()):
                _compute_again(result, region, mapping, copies, kinds)
            backward = node.origin.startswith(BACKWARD)

            def at(value: Value, backward: bool = backward) -> Value:
                return copies.get(value, mapping[value]) if backward else mapping[value]

            made = Node(node.op, substitute(node.args, at), [r.type for r in node.results], node.location, node.origin)
            result.nodes.append(made)
            for old, new in zip(node.results, made.results, strict=True):
                new.name = old.name
                mapping[old] = new
        result.outputs = [mapping[v] for v in graph.outputs]
        return result


def _regions(graph: Graph) -> list[_Region]:
    members: dict[str, list[Node]] = {}
    for node in graph.nodes:
        if node.origin.startswith(CHECKPOINT):
            members.setdefault(node.origin, []).append(node)
    found: list[_Region] = []
    for nodes in members.values():
        made = {r: n for n in nodes for r in n.results}
        token: Value | None = None
        first: tuple[Node, Value] | None = None
        read: dict[Value, None] = {}
        for node in graph.nodes:
            if not node.origin.startswith(BACKWARD):
                continue
            mine = [v for v in node.operands() if v in made]
            if mine and first is None:
                if token is None:
                    break  # the backward pass begins here: there is nothing to wait for
                first = node, token
            read.update(dict.fromkeys(mine))
            if first is None and node.op.kind != SOURCE and _holds_something(node.results[0]):
                token = node.results[0]
        if first is None:
            continue
        wanted, again = set(read), []
        for node in reversed(nodes):
            if not node.op.random and any(r in wanted for r in node.results):
                again.append(node)
                wanted.update(node.operands())
        if again:
            found.append(_Region(nodes, *first, again[::-1]))
    return found


def _holds_something(value: Value) -> bool:
    return value.dtype.is_floating_point and not any(type(n) is int and n == 0 for n in value.shape)


def _compute_again(
    result: Graph,
    region: _Region,
    mapping: dict[Value, Value],
    copies: dict[Value, Value],
    kinds: dict[Value, str],
) -> None:
    """Append the copies of a region's nodes."""
    builder = GraphBuilder(result, region.first.location, "recomputed")
    inside = {r for n in region.again for r in n.results}
    with builder:
        token = wrap(copies.get(region.token, mapping[region.token]))
        for _ in token.shape:
            token = FUNCTIONS["select"](token, 0, 0)
        never = FUNCTIONS["logical_and"](token != token, token == token)
        waiting: dict[Value, Value] = {}

        def at(value: Value) -> Value:
            if value in inside:
                return copies[value]
            if kinds.get(value) in ("parameter", "constant", "number", "size") or value.type.is_number:
                return mapping[value]
            if value not in waiting:
                waiting[value] = builder.value_of(_after(wrap(mapping[value]), never))
            return waiting[value]

        for node in region.again:
            args = substitute(node.args, at)
            made = Node(node.op, args, [r.type for r in node.results], node.location, node.origin)
            result.nodes.append(made)
            copies.update(zip(node.results, made.results, strict=True))


def _after(value: Tensor, never: Tensor) -> Tensor:
    """The same elements, which can't be had before `never` is computed (false for every number there is)."""
    if value.dtype is dtypes.bool_:
        made: Tensor = FUNCTIONS["logical_or"](value, never)
    else:
        made = FUNCTIONS["where"](never, 0, value)
    return made


def region_origin(number: int) -> str:
    """The origin of the operators of a checkpointed call; another number is another call."""
    return f"{CHECKPOINT} {number}"


def in_region(node: Node) -> bool:
    """Whether an operator is one of a checkpointed call."""
    return node.origin.startswith(CHECKPOINT)


__all__ = ["RecomputeCheckpoints", "in_region", "region_origin"]
