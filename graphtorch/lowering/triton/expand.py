"""Calls in terms of other operators, where that is how a GPU does them: a median is a sort and a choice, a cumulative
count places what a mask selects.

The rules are in `rules.py` (and `special.py`), functions on recorded tensors like a record's decomposition. Each call
that has one becomes the schedule of what the rule calls, which runs on the call's own buffers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from graphtorch.ir.builder import GraphBuilder, wrap
from graphtorch.ir.graph import Graph, Node
from graphtorch.ir.passes import DeadCodeElimination
from graphtorch.lowering.kernel import (
    Access,
    Axis,
    Buffer,
    Compute,
    Expr,
    ExternCall,
    Kernel,
    Load,
    Schedule,
    Store,
    View,
)
from graphtorch.lowering.triton.splitting import copy_expressions
from graphtorch.ops.checks import CHECKS
from graphtorch.ops.record import lookup
from graphtorch.schedule import build_schedule
from graphtorch.schedule.indexing import row_major
from graphtorch.schedule.primitives import copy_node
from graphtorch.tensor.symint import same_shape, same_size
from graphtorch.tensor.type import TensorType

Rule = Callable[..., Any]


def expand_calls(schedule: Schedule) -> Schedule:
    """The schedule without calls that other operators make up, and without checks of data."""
    from graphtorch.lowering.triton.rules import RULES

    steps: list[Kernel | ExternCall] = []
    for step in schedule.steps:
        steps.extend(_expanded(step, RULES) if isinstance(step, ExternCall) else [step])
    return replace(schedule, steps=[_unchecked(s) if isinstance(s, Kernel) else s for s in steps])


def _unchecked(kernel: Kernel) -> Kernel:
    """The kernel without checks, which can't raise on a GPU: what they check is as good."""
    replaced: dict[int, Expr] = {}
    for expr in kernel.exprs():
        if isinstance(expr, Compute) and expr.instruction in CHECKS and expr.dtype is expr.arguments[0].dtype:
            replaced[id(expr)] = replaced.get(id(expr.arguments[0]), expr.arguments[0])
    if not replaced:
        return kernel
    values = copy_expressions([s.value for s in kernel.stores], replaced, lambda s: s, lambda a: a)
    stores = [Store(s.access, v) for s, v in zip(kernel.stores, values, strict=True)]
    return Kernel(kernel.name, kernel.axes, stores, kernel.nodes, kernel.reasons)


def _expanded(call: ExternCall, rules: Mapping[str, Rule]) -> list[Kernel | ExternCall]:
    rule = rules.get(call.op.name)
    unread = not any(call.outputs)
    if rule is None or (unread and not call.op.random) or not call.nodes or type(call.nodes[0]) is not Node:
        return [call]
    node = call.nodes[0]
    graph = Graph(call.name)
    views: list[View] = []

    def lifted(arg: Any) -> Any:
        if isinstance(arg, View):
            views.append(arg)
            known = arg.buffer.value.type
            of = TensorType(arg.buffer.dtype, arg.shape, known.device, is_number=known.is_number)
            return wrap(graph.add_input(of, f"x{len(views)}"))
        return tuple(lifted(a) for a in arg) if type(arg) is tuple else arg

    builder = GraphBuilder(graph, node.location, f"part of {call.op.name}")
    with builder:
        made = rule(*(lifted(a) for a in call.args))
        if made is None:
            return [call]
        results = made if isinstance(made, tuple) else (made,)
        for buffer, result in zip(call.outputs, results, strict=True):
            if buffer is not None:
                fitted = result if result.dtype is buffer.dtype else result.to(buffer.dtype)
                graph.add_output(builder.value_of(fitted), buffer.name)
    inside = build_schedule(DeadCodeElimination().run(graph) if unread else graph)  # draws remain
    steps: list[Kernel | ExternCall] = []
    renamed: dict[Buffer, Buffer] = {}
    for buffer, view in zip(inside.inputs, views, strict=True):
        renamed[buffer] = view.buffer
        if not _whole(view):
            copied = Buffer(f"{call.name}_{buffer.name}", view.buffer.dtype, view.shape, "temporary", buffer.value)
            steps.append(_copy(f"{call.name}_copy", view, copied, node))
            renamed[buffer] = copied
    late: list[Kernel | ExternCall] = []
    outputs = [b for b in call.outputs if b is not None]
    for i, (buffer, view) in enumerate(zip(outputs, inside.outputs, strict=True)):
        if view.buffer.kind == "output" and view.buffer not in renamed and _whole(view):
            renamed[view.buffer] = buffer
        else:
            if view.buffer.kind == "output" and view.buffer not in renamed:
                own = view.buffer
                renamed[own] = Buffer(f"{call.name}_{own.name}", own.dtype, own.shape, "temporary", own.value)
            source = View(renamed[view.buffer], view.shape, view.strides, view.offset)
            late.append(_copy(f"{call.name}_copy{i}", source, buffer, node))
    for step in inside.steps:
        moved = _moved(step, renamed, call.name)
        steps.extend(_expanded(moved, rules) if isinstance(moved, ExternCall) else [moved])
    return [*steps, *late]


def _whole(view: View) -> bool:
    """Whether a view is its buffer, element by element."""
    count: Any = 1
    for size in view.shape:
        count = count * size
    own: Any = 1
    for size in view.buffer.shape:
        own = own * size
    return same_size(view.offset, 0) and same_shape(view.strides, row_major(view.shape)) and same_size(count, own)


def _copy(name: str, view: View, to: Buffer, node: Node) -> Kernel:
    """A kernel that copies a view."""
    axes = tuple(Axis(f"i{d}", size) for d, size in enumerate(view.shape))
    load = Load(Access(view.buffer, view.offset, view.strides))
    clone = copy_node(lookup("clone"), view.buffer.value, node.location, f"part of {node.op.name}")
    return Kernel(name, axes, [Store(Access(to, 0, row_major(view.shape)), load)], [clone])


def _moved(step: Kernel | ExternCall, renamed: Mapping[Buffer, Buffer], prefix: str) -> Kernel | ExternCall:
    """A step on other buffers."""

    def buffer(of: Buffer) -> Buffer:
        return renamed.get(of, of)

    if isinstance(step, ExternCall):

        def view(arg: Any) -> Any:
            if isinstance(arg, View):
                return View(buffer(arg.buffer), arg.shape, arg.strides, arg.offset)
            return tuple(map(view, arg)) if type(arg) is tuple else arg

        outputs = tuple(None if b is None else buffer(b) for b in step.outputs)
        return ExternCall(
            f"{prefix}_{step.name}", step.op, tuple(map(view, step.args)), outputs, step.nodes, step.reasons
        )
    replaced: dict[int, Expr] = {}
    made: dict[Access, Load] = {}
    for expr in step.exprs():
        if isinstance(expr, Load) and expr.access.buffer in renamed:
            access = expr.access
            found = made.get(access)
            if found is None:
                found = made[access] = Load(Access(buffer(access.buffer), access.offset, access.strides))
            replaced[id(expr)] = found
    values = copy_expressions([s.value for s in step.stores], replaced, lambda s: s, lambda a: a)
    stores = [
        Store(Access(buffer(s.access.buffer), s.access.offset, s.access.strides), v)
        for s, v in zip(step.stores, values, strict=True)
    ]
    return Kernel(f"{prefix}_{step.name}", step.axes, stores, step.nodes, step.reasons)
