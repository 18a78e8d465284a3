"""Graphs as attributes of nodes: the branches and bodies of control-flow operators.

A region is closed: all that it reads are its inputs. The backend that compiles the graph around it compiles it too;
until one did, it is interpreted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphtorch.ir.equality import graph_equal
from graphtorch.ir.graph import Graph


class Region:
    """A graph that a node runs, once or many times. Regions are equal when their graphs are, locations aside."""

    __slots__ = ("_backend", "_executable", "graph")

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._executable: Any = None
        self._backend = "interpreter"

    def __eq__(self, other: object) -> bool:
        return type(other) is Region and (self is other or graph_equal(self.graph, other.graph, provenance=False))

    def __hash__(self) -> int:
        return hash((self.graph.name, len(self.graph.nodes), len(self.graph.inputs), len(self.graph.outputs)))

    def __repr__(self) -> str:
        return f"<region {self.graph.name}>"

    def lower(self, backend: str) -> None:
        """Compile for a backend, in the place of the interpreter, which a capture may have asked already."""
        if self._executable is None or self._backend == "interpreter" != backend:
            from graphtorch.ir.passes import default_pipeline
            from graphtorch.lowering.backend import get_backend

            graph = default_pipeline().run(self.graph)
            lower_regions(graph, backend)
            self._executable, self._backend = get_backend(backend).compile(graph, {}), backend

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """The region's outputs as arrays. They may share memory with inputs."""
        given = [
            a.item() if v.type.is_number and isinstance(a, np.ndarray) else a
            for v, a in zip(self.graph.inputs, inputs, strict=True)
        ]
        if self._executable is None:
            self.lower("interpreter")
        found: list[Any] = self._executable.run(given)
        return found


def lower_regions(graph: Graph, backend: str) -> None:
    """Compile the regions of a graph's nodes."""
    for node in graph.nodes:
        for arg in node.args:
            if type(arg) is Region:
                arg.lower(backend)
