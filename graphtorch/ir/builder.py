"""Building IR by calling operators: inside `with builder:` every operator call on recorded tensors appends a node.

Derivative formulas and decompositions are plain operator expressions; a `GraphBuilder` runs them on tensors that stand
for IR values. The frontend's recorder is a GraphBuilder that also captures concrete tensors and turns mutation into
values.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import numpy as np

from graphtorch.autograd.state import state
from graphtorch.ir.graph import UNKNOWN, Graph, Location, Value
from graphtorch.ops.record import Operator
from graphtorch.ops.strides import contiguous_strides
from graphtorch.tensor.tensor import Tensor, element_strides, meta_array


class Traced:
    """The payload of a recorded tensor: the IR value it stands for."""

    __slots__ = ("_layout", "value")

    def __init__(self, value: Value, layout: np.ndarray[Any, Any] | None = None) -> None:
        self.value = value
        self._layout = layout

    @property
    def shape(self) -> tuple[Any, ...]:
        return self.value.type.shape

    @property
    def layout(self) -> np.ndarray[Any, Any]:
        """An array over no memory with the strides that eager execution would have."""
        if self._layout is None:
            self._layout = meta_array([hint(d) for d in self.value.type.shape], self.value.type.dtype)
        return self._layout


    def stride(self) -> tuple[Any, ...]:
        """Strides in elements, symbolic where sizes are."""
        shape = self.value.type.shape
        if not all(type(n) is int for n in shape):
            return contiguous_strides(shape)
        return element_strides(self.layout)


def hint(size: Any) -> int:
    """The example value of a size: itself, or what a symbolic size was at capture."""
    return size if type(size) is int else int(size.hint)


def wrap(value: Value) -> Tensor:
    """A recorded tensor for a value."""
    tensor = Tensor._wrap(Traced(value), value.type.dtype)
    if value.type.device.type != "cpu":
        tensor._device = value.type.device
    if value.type.is_number:
        tensor.is_number = True
    return tensor


class GraphBuilder:
    """A recorder that appends operator calls to a graph. Tensors are immutable here: in-place forms are refused."""

    composites: frozenset[str] = frozenset()  # functions of several operators that are recorded in one piece
    autocasts = False  # whether an autocast region around it applies: a formula or decomposition says its dtypes itself

    def __init__(self, graph: Graph, location: Location = UNKNOWN, origin: str = "") -> None:
        self.graph = graph
        self.location = location
        self.origin = origin
        self._outer: list[Any] = []

    def stand_in(self, tensor: Tensor) -> Tensor:
        """The tensor whose flags count while recording: that which stands for a concrete one, if there is one yet."""
        return tensor

    def __enter__(self) -> GraphBuilder:
        self._outer.append((state.recorder, state.autocast))
        state.recorder = self
        if not self.autocasts:
            state.autocast = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        state.recorder, state.autocast = self._outer.pop()

    def value_of(self, tensor: Tensor) -> Value:
        """The IR value that a tensor stands for."""
        data = tensor._data
        if isinstance(data, Traced):
            return data.value
        raise TypeError("a concrete tensor inside a graph transformation; constants are made with ops.full")

    def lower(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Arguments with tensors replaced by their values."""
        return tuple(
            self.value_of(a)
            if isinstance(a, Tensor)
            else tuple(self.value_of(i) if isinstance(i, Tensor) else i for i in a)
            if type(a) is tuple
            else a
            for a in args
        )

    def call(self, op: Operator, args: tuple[Any, ...]) -> Any:
        """Append one node and wrap its results."""
        results = self.graph.add(op, self.lower(args), self.location, self.origin)
        if len(results) == 1:
            return wrap(results[0])
        wrapped = tuple(wrap(r) for r in results)
        return op.result_class(*wrapped) if op.result_class is not None else wrapped

    def call_inplace(self, op: Operator, args: tuple[Any, ...]) -> Any:
        raise TypeError(f"{op.name}_: in-place operators have no place in a formula or decomposition")

    def item(self, tensor: Tensor) -> Any:
        """A scalar stays a run-time number."""
        return tensor

    def read(self, tensor: Tensor, operation: str) -> Any:
        raise TypeError(f"{operation} inside a graph transformation: the value is not known until run time")
