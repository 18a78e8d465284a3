"""The `graft` operator: new elements under an old history.

A tensor that is changed in place under no_grad keeps its place in the autograd graph: a backward pass treats it as if
it had not been changed. As values never change in the IR, the new value gets the derivative of the old one here."""

from __future__ import annotations

from typing import Any

from graphtorch.ops.build import operator
from graphtorch.ops.record import lookup
from graphtorch.tensor.type import TensorType, type_of


def _type(input: Any, value: Any) -> TensorType:
    return type_of(value)


graft = operator(
    "graft(Tensor input, Tensor value)",
    type=_type,
    numpy=lambda input, value: value.copy(),
    derivative={"input": lambda g: g},
    decompose=lambda input, value: value.detach(),
    public=False,
    method=False,
    doc="`value`, which is to differentiation what `input` is.",
)
GRAFT = lookup("graft")
