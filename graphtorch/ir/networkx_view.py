"""A graph as a networkx DiGraph, for analyses that a graph library has: cycles, dominators, cuts, drawing.

networkx loads on the first call. The compiler's hot loops walk `Graph.nodes` instead.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from graphtorch.ir.graph import Graph, Node, Value
from graphtorch.ir.printer import Names

if TYPE_CHECKING:
    import networkx


class Terminal:
    """The one source or sink of a graph."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<{self.name}>"


INPUTS = Terminal("inputs")
OUTPUTS = Terminal("outputs")


def to_networkx(graph: Graph) -> networkx.DiGraph[Any]:
    """A DiGraph whose nodes are the IR's nodes between `INPUTS` and `OUTPUTS`.

    An edge runs from a node to a user of its results, and has the `values` that flow along it. Nodes have `operator`
    and `label`. A node without operands follows INPUTS, and one that nobody uses precedes OUTPUTS, with no values on
    the edge.
    """
    import networkx

    names = Names(graph)
    found: networkx.DiGraph[Any] = networkx.DiGraph(name=graph.name)
    found.add_node(INPUTS, operator="", label="inputs")
    found.add_node(OUTPUTS, operator="", label="outputs")
    for node in graph.nodes:
        label = f"{', '.join(names.reference(r) for r in node.results)} = {node.op.name}"
        found.add_node(node, operator=node.op.name, label=label)
    for node in graph.nodes:
        _connect(found, node.operands(), node)
    _connect(found, graph.outputs, OUTPUTS)
    for node in graph.nodes:
        if not found.pred[node]:
            found.add_edge(INPUTS, node, values=())
        if not found.succ[node]:
            found.add_edge(node, OUTPUTS, values=())
    return found


def _connect(found: Any, operands: Iterable[Value], user: Any) -> None:
    for value in operands:
        source: Any = INPUTS if value.node is None else value.node
        values = found.edges[source, user]["values"] if found.has_edge(source, user) else ()
        if value not in values:
            found.add_edge(source, user, values=(*values, value))


def cycle(graph: Graph) -> list[Node]:
    """The nodes of a cycle, in order; empty for a graph that has none (every graph that the verifier accepts)."""
    import networkx

    try:
        edges = networkx.find_cycle(to_networkx(graph))
    except networkx.NetworkXNoCycle:
        return []
    return [edge[0] for edge in edges]


def immediate_dominators(graph: Graph) -> dict[Any, Any]:
    """For every node that inputs reach, the last node that every way from the inputs to it passes (or INPUTS)."""
    import networkx

    found: dict[Any, Any] = dict(networkx.immediate_dominators(to_networkx(graph), INPUTS))
    found.pop(INPUTS, None)
    return found


def immediate_post_dominators(graph: Graph) -> dict[Any, Any]:
    """For every node, the first node that every way from it to the outputs passes (or OUTPUTS)."""
    import networkx

    found: dict[Any, Any] = dict(networkx.immediate_dominators(to_networkx(graph).reverse(copy=False), OUTPUTS))
    found.pop(OUTPUTS, None)
    return found
