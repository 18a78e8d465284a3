"""Derivatives of derivatives through a compiled forward: `create_graph=True` outside of the compiled function.

The compiled backward gives numbers without a history. Where a history is asked for, the captured forward runs again,
operator by operator on the tape, from the inputs of the call, and the tape differentiates it. That is slower than
compiled code and right for every order; a first-order backward pass never pays for it, except that inputs which the
function overwrites are copied, and the random generators' states noted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphtorch.autodiff.gradient import ExpandGradients
from graphtorch.autograd.engine import grad
from graphtorch.autograd.graph import AccumulateGrad, Edge, OperatorNode
from graphtorch.autograd.state import state
from graphtorch.frontend.decisions import generators_of
from graphtorch.frontend.program import Captured, LeafValue
from graphtorch.ir.graph import Node, Value
from graphtorch.lowering.backend import Executable
from graphtorch.lowering.binding import bind, concrete, symbolic_dims
from graphtorch.ops.dispatch import call
from graphtorch.tensor.tensor import Tensor


class Rerun:
    """How to run a captured forward on the tape.

    needed      the inputs that it takes, by position
    generators  the random generators that it draws from
    """

    def __init__(self, captured: Captured, leaves: Sequence[LeafValue]) -> None:
        self.graph = ExpandGradients().run(captured.graph)
        self.outputs = [self.graph.outputs[i] for i in captured.differentiable]
        self.leaves = [(self.graph.outputs if leaf.output else self.graph.inputs)[leaf.position] for leaf in leaves]
        self.nodes = self._needed_nodes()
        read = {v for n in self.nodes for v in n.operands()} | {*self.outputs, *self.leaves}
        sizes = set(self.graph.symbols)
        self.needed = []
        for i, value in enumerate(self.graph.inputs):
            named = {str(size) for size in value.shape} & sizes
            if value in read or named:  # or it is needed for its shape, which says what a symbolic size is
                self.needed.append(i)
                sizes -= named
        self.generators = generators_of(self.nodes)
        self._dims = symbolic_dims([self.graph.inputs[i] for i in self.needed])

    def _needed_nodes(self) -> list[Node]:
        wanted: set[Value] = {*self.outputs, *self.leaves}
        found: list[Node] = []
        for node in reversed(self.graph.nodes):
            if node.op.random or any(r in wanted for r in node.results):
                found.append(node)
                wanted.update(node.operands())
        return found[::-1]

    def gradients(
        self,
        inputs: Sequence[Any],
        states: Sequence[Any],
        edges: Sequence[Edge | None],
        cotangents: Mapping[int, Tensor],
    ) -> list[Tensor | None]:
        """The cotangents of the leaves, with their histories, for those of some outputs (by place). `edges` are where
        the leaves' own histories go on."""
        held = [(g, g.state_array()) for g in self.generators]
        try:
            for generator, saved in zip(self.generators, states, strict=True):
                generator.set_state(saved)
            values = self._run(inputs, edges)
        finally:
            for generator, saved in held:
                generator.set_state(saved)
        roots = [(values[self.outputs[place]], g) for place, g in cotangents.items()]
        roots = [(root, g) for root, g in roots if root.requires_grad]
        wanted = [i for i, edge in enumerate(edges) if edge is not None]
        if not roots or not wanted:
            return [None] * len(edges)
        found = grad(
            [root for root, _ in roots],
            [values[self.leaves[i]] for i in wanted],
            [g for _, g in roots],
            create_graph=True,
            allow_unused=True,
        )
        by_place = dict(zip(wanted, found, strict=True))
        return [by_place.get(i) for i in range(len(edges))]

    def _run(self, inputs: Sequence[Any], edges: Sequence[Edge | None]) -> dict[Value, Any]:
        values: dict[Value, Any] = {}
        leaf_edges = dict(zip(self.leaves, edges, strict=True))

        def define(value: Value, content: Any) -> None:
            values[value] = _leaf(content, leaf_edges[value]) if value in leaf_edges else content

        for i, given in zip(self.needed, inputs, strict=True):
            define(self.graph.inputs[i], given.detach() if isinstance(given, Tensor) else given)
        shapes = [t._data if isinstance(t, Tensor) else t for t in inputs]
        bindings = bind(self._dims, shapes) if self._dims else {}
        for node in self.nodes:
            args: Any = tuple(
                values[a]
                if type(a) is Value
                else tuple(values[i] if type(i) is Value else concrete(i, bindings) for i in a)
                if type(a) is tuple
                else concrete(a, bindings)
                for a in node.args
            )
            if node.op.name == "view":
                made = args[0].reshape(args[1])  # on values, what the strides were does not matter
            else:
                made = call(node.op, args)
            contents = made if isinstance(made, tuple) else (made,)
            if state.anomaly:
                for content in contents:
                    if isinstance(getattr(content, "_node", None), OperatorNode):
                        content._node.user_line = f"{node.location}: {node.location.text}"
            for result, content in zip(node.results, contents, strict=True):
                define(result, content.item() if result.type.is_number and isinstance(content, Tensor) else content)
        return values


def _leaf(content: Tensor, edge: Edge | None) -> Tensor:
    """A leaf of the forward with its history outside; another node, so that gradients stop here."""
    made: Tensor = content.detach()
    if edge is None:
        return made
    made._requires_grad = True
    if isinstance(edge.node, AccumulateGrad):
        made._accumulator = edge.node
    else:
        made._node, made._output_index = edge
    apart: Tensor = made.view_as(made)
    return apart


class NotingGenerators(Executable):
    """An executable whose last output is the states that random generators had before it ran."""

    def __init__(self, executable: Executable, generators: Sequence[Any]) -> None:
        self.executable = executable
        self.generators = generators
        self.schedule, self.plan = executable.schedule, executable.plan

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        states = [g.state_array() for g in self.generators]
        return [*self.executable.run(inputs), states]

    def sources(self) -> dict[str, str]:
        return self.executable.sources()
