"""A level that changes nothing and writes down what every operator call gave, with the line that made it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphtorch.autograd import engine
from graphtorch.autograd.function import Function
from graphtorch.func.levels import Level
from graphtorch.ops import dispatch
from graphtorch.ops.record import Operator
from graphtorch.tensor.tensor import Tensor


class WatchLevel(Level):
    """Runs everything one level further out. `seen` has (operator, file:line, copies of the results, source text)."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, str, list[Any], str]] = []

    def _note(self, op: Operator, results: Any) -> None:
        place, _, text = dispatch.user_location().partition(": ")
        arrays = [r._data.copy() for r in (results if isinstance(results, tuple) else (results,))]
        self.seen.append((op.name, place, arrays, text))

    def call(self, op: Operator, args: tuple[Any, ...]) -> Any:
        with self.below():
            results = dispatch.call(op, args)
            self._note(op, results)
        return results

    def call_inplace(self, op: Operator, args: tuple[Any, ...]) -> Any:
        with self.below():
            dispatch.call_inplace(op, args)
            self._note(op, args[0])
        return args[0]

    def apply_function(self, function: type[Function], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with self.below():
            return function.apply(*args, **kwargs)

    def backward(self, *args: Any) -> None:
        roots, gradients, keep, create_graph, inputs = args
        with self.below():
            engine.backward(roots, gradients, keep, create_graph, inputs=inputs)

    def grad(
        self,
        roots: tuple[Tensor, ...],
        inputs: tuple[Tensor, ...],
        gradients: tuple[Tensor | None, ...],
        keep: bool,
        create_graph: bool,
    ) -> Sequence[Tensor | None]:
        with self.below():
            return engine.grad(roots, inputs, gradients, keep, create_graph, allow_unused=True)
