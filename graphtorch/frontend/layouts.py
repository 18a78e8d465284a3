"""The memory order of recorded results: the one that eager execution would give them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphtorch.ir.builder import hint
from graphtorch.ir.graph import Graph, Node, Value
from graphtorch.ops.dispatch import lies_in_rows
from graphtorch.ops.record import POINTWISE, Operator
from graphtorch.ops.strides import layout_of, ordered_strides, pointwise_strides
from graphtorch.tensor.tensor import Tensor, meta_array

_NUMBER_LAYOUT: np.ndarray[Any, Any] = np.empty((), np.int8)


def pointwise_layout(op: Operator, args: tuple[Any, ...], result: Value) -> np.ndarray[Any, Any] | None:
    """The layout that eager execution gives to a pointwise result; None for row-major."""
    return _pointwise(op, args, _layouts(op, args), result)


def _pointwise(
    op: Operator, args: tuple[Any, ...], layouts: list[np.ndarray[Any, Any]], result: Value
) -> np.ndarray[Any, Any] | None:
    if op.scalar == "copy" and args[1] is not None:
        return None  # clone into a given memory format
    if lies_in_rows(op, args[0]):
        return None
    if all(layout.flags.c_contiguous for layout in layouts):
        return None
    shape = tuple(hint(size) for size in result.shape)
    strides = pointwise_strides(shape, [layout_of(a) for a in layouts])
    element = np.empty(1, result.dtype.numpy)
    return np.lib.stride_tricks.as_strided(element, shape, [s * element.itemsize for s in strides])


def stated_layout(op: Operator, args: tuple[Any, ...], name: str, result: Value) -> np.ndarray[Any, Any]:
    """The layout of a result whose record states a memory order."""
    shape, order = tuple(hint(size) for size in result.shape), op.order[name]
    strides = (
        order(shape, *map(_arranged, args))
        if callable(order)
        else ordered_strides(order, shape, [layout_of(a) for a in _layouts(op, args)])
    )
    element = np.empty(1, result.dtype.numpy)
    return np.lib.stride_tricks.as_strided(element, shape, [s * element.itemsize for s in strides])


def gradient_layouts(recorder: Any, node: Node, values: Sequence[Value]) -> list[np.ndarray[Any, Any]]:
    """The layouts of gradients, made by a node or before it: those of what the backward pass computes them by."""
    from graphtorch.autodiff.gradient import ExpandGradients
    from graphtorch.ir.passes import DeadCodeElimination

    captured: Graph = recorder.graph
    held = Graph("", list(captured.inputs), captured.nodes[: captured.nodes.index(node) + 1], list(values))
    held.input_kinds = list(captured.input_kinds)
    held.output_names = [f"gradient{i}" for i in range(len(values))]
    graph, mapping = ExpandGradients().mapped(DeadCodeElimination().run(held))
    known = {s.source: s.base._data.layout for s in recorder.storages if s.base is not None}
    found: dict[Value, np.ndarray[Any, Any]] = {
        value: known[source]
        for value, source in zip(graph.inputs, recorder.sources, strict=False)
        if source in known and known[source].ndim == len(value.shape)
    }
    found.update((mapping.get(value, value), layout) for value, layout in recorder.layouts.items())

    def of(arg: Any) -> np.ndarray[Any, Any]:
        if type(arg) is not Value:
            return _NUMBER_LAYOUT
        layout = found.get(arg)
        return meta_array([hint(d) for d in arg.shape], arg.dtype) if layout is None else layout

    for step in graph.nodes:
        made: np.ndarray[Any, Any] | None = None
        if step.op.is_view:
            with contextlib.suppress(RuntimeError):  # a reshape that is no view copies, row by row
                made = step.op.numpy(of(step.args[0]), *map(hints, step.args[1:]))
        elif step.op.kind == POINTWISE:
            operands = [
                of(a)
                for p, a in zip(step.op.parameters, step.args, strict=True)
                if p.is_operand and a is not None and type(a) is not tuple
            ]
            made = _pointwise(
                step.op,
                step.args,
                operands[::-1] if step.op.order.get("result") == "reversed" else operands,
                step.result,
            )
        if made is not None:
            found[step.results[0]] = made
    return [of(v) for v in graph.outputs]


def hints(arg: Any) -> Any:
    """An attribute with symbolic sizes replaced by their example values."""
    if type(arg) is tuple:
        return tuple(map(hints, arg))
    return hint(arg) if getattr(arg, "is_symbolic_int", False) else arg


def _layouts(op: Operator, args: tuple[Any, ...]) -> list[np.ndarray[Any, Any]]:
    """Arrays over no memory with the operands' shapes and strides."""
    found = [
        _arranged(a) if isinstance(a, Tensor) else _NUMBER_LAYOUT
        for parameter, a in zip(op.parameters, args, strict=True)
        if parameter.is_operand and a is not None
    ]
    return found[::-1] if op.order.get("result") == "reversed" else found


def _arranged(arg: Any) -> Any:
    """An argument with arrays over no memory for its tensors."""
    if type(arg) is tuple:
        return tuple(map(_arranged, arg))
    return arg._layout() if isinstance(arg, Tensor) else arg
