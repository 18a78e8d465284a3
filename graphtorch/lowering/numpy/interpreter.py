"""The interpreter: runs any graph node by node with the records' NumPy functions. The reference for every other
backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphtorch.ir.graph import Graph, Node, Value
from graphtorch.lowering.backend import Backend, Executable
from graphtorch.lowering.binding import bind, concrete, symbolic_dims
from graphtorch.ops.record import Operator


def interpret(
    graph: Graph, inputs: Sequence[Any], failed: Callable[[Node, Exception], None] | None = None
) -> list[Any]:
    """Run `graph` on one array (or Python number) an input. Raises RuntimeError where the inputs don't fit the types.
    `failed` is told the node that raises.

    Results may share memory with inputs where the graph says so (views).
    """
    if len(inputs) != len(graph.inputs):
        raise RuntimeError(f"{graph.name} takes {len(graph.inputs)} inputs, got {len(inputs)}")
    bindings = bind(symbolic_dims(graph.inputs), inputs)
    values: dict[Value, Any] = {}
    for value, given in zip(graph.inputs, inputs, strict=True):
        values[value] = _as_number(given) if value.type.is_number else given
    last = last_uses(graph)
    with np.errstate(all="ignore"):
        for index, node in enumerate(graph.nodes):
            args = tuple(
                values[a]
                if type(a) is Value
                else tuple(values[i] if type(i) is Value else concrete(i, bindings) for i in a)
                if type(a) is tuple
                else concrete(a, bindings)
                for a in node.args
            )
            try:
                computed = run_node(node, args)
            except Exception as error:
                if failed is not None:
                    failed(node, error)
                raise
            for result, made in zip(node.results, computed, strict=True):
                values[result] = _as_number(made) if result.type.is_number else made
            for value in last.get(index, ()):
                del values[value]
    return [np.asarray(values[v]) for v in graph.outputs]


def run_node(node: Node, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The results of one node, as arrays of the types it has."""
    if node.op.name == "view":
        # On values a view is a reshape: what its operand's strides were in eager execution does not matter.
        return (np.reshape(args[0], args[1]),)
    made = values_function(node.op)(*args)
    results = made if type(made) is tuple else (made,)
    return tuple(
        r if type(r) is np.ndarray and r.dtype == v.type.dtype.numpy else np.asarray(r).astype(v.type.dtype.numpy)
        for r, v in zip(results, node.results, strict=True)
    )


def values_function(op: Operator) -> Callable[..., Any]:
    """An operator's NumPy function for values of a graph. Samplers draw in the memory order of what they fill; a value
    has none, so they get it row by row."""
    if not op.random:
        return op.numpy
    return lambda *args: op.numpy(*(np.asarray(a, order="C") if isinstance(a, np.ndarray) else a for a in args))


def _as_number(value: Any) -> Any:
    return value.item() if isinstance(value, np.ndarray | np.generic) else value


def last_uses(graph: Graph) -> dict[int, list[Value]]:
    """Node index -> values that no later node and no output needs."""
    outputs = set(graph.outputs)
    seen: set[Value] = set(outputs)
    last: dict[int, list[Value]] = {}
    for index in range(len(graph.nodes) - 1, -1, -1):
        node = graph.nodes[index]
        for value in (*node.operands(), *node.results):
            if value not in seen:
                seen.add(value)
                last.setdefault(index, []).append(value)
    return last


class Interpreted(Executable):
    """A graph and the outputs that overwrite inputs."""

    def __init__(self, graph: Graph, donations: Mapping[int, int]) -> None:
        self.graph = graph
        self.donations = dict(donations)

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        results = interpret(self.graph, inputs)
        donated = [inputs[i] for i in self.donations.values()]
        # What shows an input that is about to change keeps the value that it has now.
        results = [r.copy() if any(np.may_share_memory(r, d) for d in donated) else r for r in results]
        for output, source in self.donations.items():
            np.copyto(inputs[source], results[output])
            results[output] = inputs[source]
        return results


class InterpreterBackend(Backend):
    """The backend "interpreter"."""

    name = "interpreter"

    def compile(self, graph: Graph, donations: Mapping[int, int] | None = None) -> Interpreted:
        return Interpreted(graph, donations or {})
