"""The `custom_function` operator: marks results whose derivative is a Python function (`autograd.Function`).

Its value is its first operand list; to differentiation it depends on the second. The rule itself is held beside the
graph by whoever records the node, and used when the gradient is expanded; after that the node is an identity, and
`ExpandGradients` removes it."""

from __future__ import annotations

from typing import Any

from graphtorch.ops.build import operator
from graphtorch.ops.record import lookup
from graphtorch.tensor.type import TensorType, type_of


def _types(outputs: Any, inputs: Any) -> tuple[TensorType, ...]:
    return tuple(type_of(o) for o in outputs)


custom_function = operator(
    "custom_function(Tensor[] outputs, Tensor[] inputs) -> (results)",
    type=_types,
    numpy=lambda outputs, inputs: tuple(outputs),
    public=False,
    doc="The outputs, as results of a custom differentiable function of the inputs.",
)
CUSTOM = lookup("custom_function")
