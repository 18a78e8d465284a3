"""Which forward values to keep for the backward pass, and which to compute again there: a minimum cut.

The backward reads some values of the forward. Each may be kept, which costs its bytes from the forward to the backward,
or computed again from operands of which the same holds. Where computing again is allowed, the cheapest choice is a
minimum cut of the network whose nodes are values with their bytes as capacities, from what must be kept (results of
operators that are not run again) to what the backward reads. Of several such cuts the one nearest to the backward
computes least again. Inputs are there anyway and cost nothing.

What may be computed again: at a budget of 1 only what costs about as much as reading it back (views, constants,
arithmetic without transcendental functions), and what the user put under `checkpoint`. At a smaller budget, as
many more operators, the cheapest for their bytes first, as it takes to keep at most that part of the bytes; at 0 all
but random ones. The method is that of "Min-cut Optimal(ish) Recomputation" (PyTorch's partitioner) and Chen et al.,
"Training Deep Nets with Sublinear Memory Cost" (2016)."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from graphtorch.ir.builder import hint
from graphtorch.ir.graph import Graph, Node, Value
from graphtorch.ops.record import POINTWISE, REDUCTION, SOURCE, VIEW

CHECKPOINT = "checkpoint"  # the origin of operators under utils.checkpoint

# Scalar instructions that take a few cycles an element, which is what reading a value back takes too.
_CHEAP = frozenset((
    "neg", "abs", "sign", "floor", "ceil", "round", "trunc", "isnan", "isinf", "isfinite", "logical_not", "bitwise_not",
    "add", "sub", "mul", "maximum", "minimum", "eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or",
    "logical_xor", "bitwise_and", "bitwise_or", "bitwise_xor", "where", "cast", "copy",
))  # fmt: skip


def values_to_keep(
    nodes: Sequence[Node], read: Sequence[Value], free: Collection[Value], budget: float
) -> tuple[list[Value], list[Node]]:
    """What to keep of the forward `nodes`' results, and the nodes to run again, in order, so that the backward has all
    of `read`. `free` are the inputs that cost nothing."""
    made = {r: n for n in nodes for r in n.results}
    candidates = _ancestors(nodes, read)
    allowed = {n for n in candidates if _is_cheap(n)} - _boundaries(nodes)
    if budget < 1:
        ordered = sorted((n for n in candidates if n not in allowed and not n.op.random), key=_cost_per_byte)
        limit = budget * _bytes(_kept(made, read, free, allowed))
        low, high = 0, len(ordered)
        while low < high:  # more allowed nodes never keep more bytes
            middle = (low + high) // 2
            if _bytes(_kept(made, read, free, allowed.union(ordered[:middle]))) <= limit:
                high = middle
            else:
                low = middle + 1
        allowed.update(ordered[:low])
    kept = _kept(made, read, free, allowed)
    held = set(kept) | set(free)
    again: set[Node] = set()
    pending = [v for v in read if v not in held]
    while pending:
        node = made.get(pending.pop())
        if node is not None and node not in again:
            again.add(node)
            pending.extend(v for v in node.operands() if v not in held)
    order = {v: i for i, v in enumerate(made)}
    return sorted(kept, key=lambda v: order.get(v, -1)), [n for n in nodes if n in again]


def _boundaries(nodes: Sequence[Node]) -> set[Node]:
    """The nodes under one `checkpoint` whose results others read: what a checkpointed function gives is kept."""
    owners = {r: n for n in nodes if n.origin.startswith(CHECKPOINT) for r in n.results}
    found: set[Node] = set()
    for node in nodes:
        for operand in node.operands():
            owner = owners.get(operand)
            if owner is not None and owner.origin != node.origin and not _is_cheap_itself(owner):
                found.add(owner)
    return found


def _ancestors(nodes: Sequence[Node], read: Sequence[Value]) -> list[Node]:
    wanted = set(read)
    found: list[Node] = []
    for node in reversed(nodes):
        if any(r in wanted for r in node.results):
            found.append(node)
            wanted.update(node.operands())
    return found


def _kept(made: dict[Value, Node], read: Sequence[Value], free: Collection[Value], allowed: set[Node]) -> list[Value]:
    """The minimum cut, where the nodes `allowed` may be run again."""
    costs = [v for v in read if v not in free]
    if not any(made.get(v) in allowed for v in costs):
        return costs  # nothing to choose
    import networkx

    # From the backward to the forward: the side of the source is then the smallest there is.
    network: networkx.DiGraph[object] = networkx.DiGraph()
    seen: set[Value] = set()
    pending = list(costs)
    for value in costs:
        network.add_edge("backward", (value, "out"))
    network.add_node("forward")
    while pending:
        value = pending.pop()
        if value in seen:
            continue
        seen.add(value)
        node = made.get(value)
        network.add_edge((value, "out"), (value, "in"), capacity=max(_size(value), 1))
        if node is None or node not in allowed:
            network.add_edge((value, "in"), "forward")
            continue
        for operand in node.operands():
            if operand not in free:
                network.add_edge((value, "in"), (operand, "out"))
                pending.append(operand)
    _, (near, _) = networkx.minimum_cut(network, "backward", "forward")
    return [v for v in seen if (v, "out") in near and (v, "in") not in near]


def _is_cheap(node: Node) -> bool:
    return not node.op.random and (node.origin.startswith(CHECKPOINT) or _is_cheap_itself(node))


def _is_cheap_itself(node: Node) -> bool:
    op = node.op
    if op.kind in (VIEW, SOURCE):
        return not op.random
    return op.kind == POINTWISE and (op.scalar in _CHEAP or op.name in _CHEAP)


def _size(value: Value) -> int:
    """Bytes, with example values for symbolic sizes."""
    return math.prod(hint(n) for n in value.shape) * int(value.dtype.itemsize)


def _bytes(values: Sequence[Value]) -> int:
    return sum(map(_size, values))


def _cost_per_byte(node: Node) -> float:
    """About how long a node runs for each byte of its results, in units that are alike for all."""
    results = sum(math.prod(hint(n) for n in r.shape) for r in node.results)
    if node.op.kind == POINTWISE:
        work = 10 * results
    elif node.op.kind == REDUCTION:
        work = sum(math.prod(hint(n) for n in v.shape) for v in node.operands())
    else:
        # Contractions do a product of dimensions; of two operands' and the result's elements each is counted twice.
        sizes = [math.prod(hint(n) for n in v.shape) for v in node.operands()]
        work = 20 * results + 2 * math.isqrt(math.prod(sorted((*sizes, results))[-3:]))
    return work / max(_bytes(node.results), 1)


def kept_bytes(graph: Graph, count: int) -> int:
    """The bytes of a forward graph's last `count` outputs, which the backward gets."""
    return _bytes(graph.outputs[len(graph.outputs) - count :])
