"""A backward pass outside the compiled function: the forward returns residuals, and its results' history is a compiled
backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphtorch.autodiff.gradient import ExpandGradients
from graphtorch.autodiff.partition import partition
from graphtorch.autodiff.reverse import append_gradients
from graphtorch.autograd.graph import FREED, Node, SavedTensor, edge_of
from graphtorch.frontend.pipeline import Compiled, compile_joint
from graphtorch.frontend.program import Captured
from graphtorch.ir.graph import Graph, Value
from graphtorch.ir.passes import default_pipeline
from graphtorch.tensor.tensor import Tensor


class JointProgram:
    """Forward and backward executables of one captured function whose results carry gradients."""

    def __init__(self, captured: Captured, backend: str) -> None:
        self.backend = backend
        joint = ExpandGradients().run(captured.graph)
        outputs = [joint.outputs[i] for i in captured.differentiable]
        wanted = [joint.inputs[i] for i in captured.leaf_inputs]
        cotangents = [
            joint.add_input(v.type, f"cotangent of {captured.graph.output_names[i]}", "cotangent")
            for i, v in zip(captured.differentiable, outputs, strict=True)
        ]
        found = append_gradients(joint, outputs, cotangents, wanted)
        self.output_count = len(joint.outputs)
        self.leaf_inputs: list[int] = []
        for position, value in zip(captured.leaf_inputs, found, strict=True):
            if value is not None:
                self.leaf_inputs.append(position)
                joint.add_output(value, f"grad of {captured.graph.inputs[position].name}")
        count = len(cotangents)
        simplified = default_pipeline().run(joint)
        overwritten = {simplified.inputs[i] for i, _ in captured.written}
        given: list[Value] = simplified.inputs[len(simplified.inputs) - count :]
        parts = partition(simplified, given, self.output_count, overwritten)
        self.parts = parts
        donations = {output: position for position, output in captured.written}
        self.forward: Compiled = compile_joint(captured.graph, parts.forward, backend, donations)
        self.joint: Graph = simplified
        self._backward: Compiled | None = None

    @property
    def backward(self) -> Compiled:
        """Compiled when first needed: a forward that nobody differentiates never pays for it."""
        if self._backward is None:
            self._backward = compile_joint(self.parts.backward, self.parts.backward, self.backend, {})
        return self._backward

    def history(self, name: str, tensors: Sequence[Any], arrays: Sequence[Any], captured: Captured) -> Node:
        """The grad_fn of this call's results."""
        residuals = list(arrays[self.output_count :])
        kept = [tensors[i] for i in self.parts.kept_inputs]
        leaves = [tensors[i] for i in self.leaf_inputs]
        return CompiledBackward(self, name, kept, residuals, leaves, len(captured.differentiable))


class CompiledBackward(Node):
    """The tape's node of one call of a compiled forward."""

    __slots__ = ("_name", "count", "program", "residuals", "saved")

    def __init__(
        self,
        program: JointProgram,
        name: str,
        kept: Sequence[Any],
        residuals: list[Any],
        leaves: Sequence[Tensor],
        count: int,
    ) -> None:
        super().__init__([edge_of(t) for t in leaves])
        self.program = program
        self._name = name
        self.saved: list[Any] | None = [SavedTensor(t) if isinstance(t, Tensor) else t for t in kept]
        self.residuals = residuals
        self.count = count

    def name(self) -> str:
        return self._name

    def result_count(self) -> int:
        return self.count

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
        types = [v.type for v in graph.inputs[len(graph.inputs) - self.count :]]
        for cotangent, of in zip(cotangents, types, strict=True):
            if cotangent is None:
                raise_shape = tuple(int(s) for s in of.shape)
                given.append(np.zeros(raise_shape, of.dtype.numpy))
            else:
                given.append(cotangent._data)
        inputs = [s.unpack(self, self._name)._data if isinstance(s, SavedTensor) else s for s in self.saved]
        arrays = backward.run([*inputs, *self.residuals, *given], {})
        return [Tensor._wrap(a) for a in arrays]
