"""A backward pass outside the compiled function: the forward returns residuals, and its results' history is a compiled
backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphtorch.autodiff.gradient import ExpandGradients
from graphtorch.autodiff.partition import partition
from graphtorch.autodiff.reverse import append_gradients
from graphtorch.autograd.graph import FREED, Edge, Node, SavedTensor, edge_of
from graphtorch.frontend.pipeline import Compiled, compile_joint
from graphtorch.frontend.program import Captured, LeafValue
from graphtorch.ir.graph import Graph, Value, copy_graph
from graphtorch.ir.passes import default_pipeline
from graphtorch.tensor.tensor import Tensor


class JointProgram:
    """Forward and backward executables of one captured function whose results carry gradients."""

    def __init__(self, captured: Captured, backend: str) -> None:
        self.backend = backend
        if captured.custom:
            # The rules of custom functions belong to the recorded nodes: differentiate these, and expand after.
            shown, joint = copy_graph(captured.graph), captured.graph
        else:
            shown, joint = captured.graph, ExpandGradients().run(captured.graph)
        if joint is captured.graph and not captured.custom:
            joint = copy_graph(joint)
        outputs = [joint.outputs[i] for i in captured.differentiable]
        wanted = [(joint.outputs if leaf.output else joint.inputs)[leaf.position] for leaf in captured.leaves]
        cotangents = [
            joint.add_input(v.type, f"cotangent of {captured.graph.output_names[i]}", "cotangent")
            for i, v in zip(captured.differentiable, outputs, strict=True)
        ]
        found = append_gradients(joint, outputs, cotangents, wanted, custom=captured.custom)
        self.output_count = len(joint.outputs)
        self.leaves: list[LeafValue] = []
        for leaf, value in zip(captured.leaves, found, strict=True):
            if value is not None:
                self.leaves.append(leaf)
                name = "a leaf" if leaf.owner is None else leaf.owner.name
                joint.add_output(value, f"grad of {name}")
        count = len(cotangents)
        simplified = default_pipeline().run(ExpandGradients().run(joint))
        overwritten = {simplified.inputs[i] for i, _ in captured.written}
        given: list[Value] = simplified.inputs[len(simplified.inputs) - count :]
        parts = partition(simplified, given, self.output_count, overwritten)
        self.parts = parts
        donations = {output: position for position, output in captured.written}
        self.forward: Compiled = compile_joint(shown, parts.forward, backend, donations)
        self.joint: Graph = simplified
        self._backward: Compiled | None = None
        if joint.symbols:
            _ = self.backward  # now, while what it may ask of the sizes still becomes a guard

    @property
    def backward(self) -> Compiled:
        """Compiled when first needed: a forward that nobody differentiates never pays for it."""
        if self._backward is None:
            self._backward = compile_joint(self.parts.backward, self.parts.backward, self.backend, {})
        return self._backward

    def history(
        self, name: str, tensors: Sequence[Any], arrays: Sequence[Any], captured: Captured, leaves: Sequence[Any]
    ) -> CompiledBackward:
        """The grad_fn of this call's results. `leaves` are the call's arguments, `tensors` its inputs."""
        residuals = list(arrays[self.output_count :])
        kept = [tensors[i] for i in self.parts.kept_inputs] + [tensors[i]._data for i in self.parts.sized_inputs]
        edges = [None if leaf.owner is None else edge_of(leaf.owner.fetch(leaves)) for leaf in self.leaves]
        made = [(place, leaf.made) for place, leaf in enumerate(self.leaves) if leaf.owner is None]
        shapes = [arrays[i].shape for i in captured.differentiable]
        return CompiledBackward(self, name, kept, residuals, edges, made, shapes)


class CompiledBackward(Node):
    """The tape's node of one call of a compiled forward.

    `made` are the edges, by place, that go to results of the call; they are set once those exist."""

    __slots__ = ("_name", "made", "program", "residuals", "saved", "shapes")

    def __init__(
        self,
        program: JointProgram,
        name: str,
        kept: Sequence[Any],
        residuals: list[Any],
        edges: Sequence[Edge | None],
        made: Sequence[tuple[int, Any]],
        shapes: list[tuple[int, ...]],
    ) -> None:
        super().__init__(edges)
        self.made = made
        self.program = program
        self._name = name
        self.saved: list[Any] | None = [SavedTensor(t) if isinstance(t, Tensor) else t for t in kept]
        self.residuals = residuals
        self.shapes = shapes

    def name(self) -> str:
        return self._name

    def result_count(self) -> int:
        return len(self.shapes)

    def release(self) -> None:
        self.saved = None
        self.residuals = []

    def apply(self, cotangents: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        from graphtorch.autograd.state import state

        if self.saved is None:
            raise RuntimeError(FREED)
        if state.grad_enabled:
            raise RuntimeError(
                "create_graph=True through a compiled forward is not supported: call backward() or autograd.grad() "
                "inside the compiled "
                "function, where derivatives of any order are part of its graph"
            )
        backward = self.program.backward
        graph = self.program.parts.backward
        given: list[Any] = []
        types = [v.type for v in graph.inputs[len(graph.inputs) - len(self.shapes) :]]
        for cotangent, of, shape in zip(cotangents, types, self.shapes, strict=True):
            if cotangent is None:
                given.append(np.zeros(shape, of.dtype.numpy))
            else:
                given.append(cotangent._data)
        inputs = [s.unpack(self, self._name)._data if isinstance(s, SavedTensor) else s for s in self.saved]
        arrays = backward.run([*inputs, *self.residuals, *given], {})
        return [Tensor._wrap(a) for a in arrays]
