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
from graphtorch.ops.strides import dense_strides, layout_of, ordered_strides, pointwise_strides, strides_in
from graphtorch.schedule.indexing import Layout, is_index_map, reshape_layout, view_layout
from graphtorch.tensor.symint import UndecidedError
from graphtorch.tensor.tensor import Tensor, meta_array

_NUMBER_LAYOUT: np.ndarray[Any, Any] = np.empty((), np.int8)


def pointwise_layout(op: Operator, args: tuple[Any, ...], result: Value) -> np.ndarray[Any, Any] | None:
    """The layout that eager execution gives to a pointwise result; None for row-major."""
    return _pointwise(op, args, _layouts(op, args), result)


def _pointwise(
    op: Operator, args: tuple[Any, ...], layouts: list[np.ndarray[Any, Any]], result: Value
) -> np.ndarray[Any, Any] | None:
    shape = tuple(hint(size) for size in result.shape)
    if op.scalar == "copy":
        strides = strides_in(args[1], shape, layout_of(layouts[0]))
    elif lies_in_rows(op, args[0]) or all(layout.flags.c_contiguous for layout in layouts):
        return None
    else:
        strides = pointwise_strides(shape, [layout_of(a) for a in layouts])
    element = np.empty(1, result.dtype.numpy)
    return np.lib.stride_tricks.as_strided(element, shape, [s * element.itemsize for s in strides])


def is_stated(op: Operator, name: str) -> bool:
    """Whether a record says how a result is laid out, of an operator that is not pointwise."""
    order = op.order.get(name)
    return order in ("channels", "columns", "input", "operands") or callable(order)


def stated_layout(op: Operator, args: tuple[Any, ...], name: str, result: Value) -> np.ndarray[Any, Any]:
    """The layout of a result whose record states a memory order."""
    return _stated(op, tuple(map(_arranged, args)), name, result)


def _stated(op: Operator, args: tuple[Any, ...], name: str, result: Value) -> np.ndarray[Any, Any]:
    shape, order = tuple(hint(size) for size in result.shape), op.order[name]
    operands = [
        a if isinstance(a, np.ndarray) else _NUMBER_LAYOUT
        for p, a in zip(op.parameters, args, strict=True)
        if p.is_operand and a is not None
    ]
    strides = (
        order(shape, *args) if callable(order) else ordered_strides(order, shape, [layout_of(a) for a in operands])
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

    def arranged(arg: Any) -> Any:
        if type(arg) is tuple:
            return tuple(map(arranged, arg))
        return of(arg) if type(arg) is Value else hints(arg)

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
        elif step.op.order:
            for name, result in zip(step.op.results, step.results, strict=False):
                if is_stated(step.op, name):
                    found[result] = _stated(step.op, tuple(map(arranged, step.args)), name, result)
        if made is not None:
            found[step.results[0]] = made
    return [of(v) for v in graph.outputs]


def symbolic_layout(data: Any) -> Layout:
    """Strides and offset of a recorded tensor as expressions in the symbolic sizes, counted from its base's first
    element.

    Raises UndecidedError where there are none.
    """
    whole = data.storage.base._data
    of: Any = whole.value.type
    layout = Layout(of.shape, dense_strides(of.shape, order_of(whole.layout)[::-1]))
    if hints(layout.strides) != layout_of(whole.layout)[1]:
        raise UndecidedError(f"the strides of a tensor of {of} with gaps")
    for op, attributes in data.steps:
        viewed = None
        if op.is_view and not any(type(a) is Value for a in attributes):
            before, of = of, op.type_rule(of, *attributes)
            viewed = _viewed(Node(op, (Value(before), *attributes), (of,)), layout, of)
        if viewed is None:
            raise UndecidedError(f"the strides of what {op.name}() shows")
        layout = viewed
    return layout


def _viewed(node: Node, layout: Layout, of: Any) -> Layout | None:
    """A layout under a view operator; `of` is the type of what it shows."""
    if node.op.name in ("t", "transpose"):
        dims = list(range(len(of.shape)))
        first, second = node.args[1:] or (0, len(dims) - 1)
        if dims:
            dims[first], dims[second] = dims[second], dims[first]
        return Layout(of.shape, tuple(layout.strides[d] for d in dims), layout.offset)
    if node.op.name in ("squeeze", "unsqueeze"):
        return reshape_layout(layout, of.shape)
    return view_layout(layout, node) if is_index_map(node) else None


def order_of(layout: np.ndarray[Any, Any]) -> tuple[int, ...]:
    """The dimensions from the largest stride down, of equal ones those of size 1 last."""
    return tuple(sorted(range(layout.ndim), key=lambda d: (-layout.strides[d], layout.shape[d] == 1)))


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
