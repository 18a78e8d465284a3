"""Numbers for expressions: values of several graphs that are computed alike, from inputs of the same number, have one
number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphtorch.ir.equality import constant_key
from graphtorch.ir.graph import Graph, Value


class Expressions:
    """A numbering of expressions. Random operators are told apart by their place among the random ones of their
    graph."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}
        self._alive: list[Any] = []  # objects that are known by their ids

    def number(self, expression: Any) -> int:
        """The number of anything hashable."""
        return self._numbers.setdefault(expression, len(self._numbers))

    def keep(self, value: Any) -> int:
        """The id of an object, which stays its own."""
        self._alive.append(value)
        return id(value)

    def of(self, graph: Graph, inputs: Mapping[Value, int]) -> dict[Value, int]:
        """The numbers of a graph's values, given those of its inputs."""
        found = dict(inputs)
        draws = 0

        def argument(arg: Any) -> Any:
            if type(arg) is Value:
                return "value", found[arg]
            if type(arg) is tuple:
                return tuple(argument(a) for a in arg)
            key = constant_key(arg)
            if isinstance(key, tuple) and len(key) == 2 and key[1] == id(arg):
                self._alive.append(arg)
            return key

        for node in graph.nodes:
            draws += node.op.random
            args = tuple(argument(a) for a in node.args)
            for result in node.results:
                mark = draws if node.op.random else 0
                found[result] = self.number((node.op.name, mark, args, result.index))
        return found
