"""Dead code elimination."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphtorch.ir.graph import Graph, Node, Value
from graphtorch.ir.passes.base import Pass, register
from graphtorch.ir.rewrite import Firing, RewriteLog


@register
@dataclass
class DeadCodeElimination(Pass):
    """Remove the nodes that no output depends on.

    Random nodes stay, and what they need: each advances a generator, which later numbers depend on. Inputs stay.
    """

    name: ClassVar[str] = "dce"

    def run(self, graph: Graph, log: RewriteLog | None = None) -> Graph:
        needed: set[Value] = set(graph.outputs)
        kept: list[Node] = []
        for node in reversed(graph.nodes):
            results = node.results
            if (
                results[0] in needed
                or (len(results) > 1 and any(r in needed for r in results))
                or node.op.random
            ):
                kept.append(node)
                needed.update(node.operands())
            elif log is not None:
                log.append(Firing(self.name, "unused", node.op.name, node.location))
        if len(kept) == len(graph.nodes):
            return graph
        kept.reverse()
        return Graph(
            graph.name,
            list(graph.inputs),
            kept,
            list(graph.outputs),
            list(graph.input_kinds),
            list(graph.output_names),
        )
