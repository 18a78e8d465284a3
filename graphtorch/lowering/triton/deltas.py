"""What attention's backward pass needs of each row, the sum of gradient times result, made by that pass itself.

As a kernel of its own it reads the gradient and the forward pass's result, and the pass then reads the gradient again.
Here the queries' launch, which has both in registers once it loads the result, stores these sums (delta) before the
launch for keys and values reads them: one launch less, and the gradient is read once less.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from graphtorch.lowering.kernel import Buffer, Compute, Expr, ExternCall, Kernel, Load, Reduce, Schedule, View
from graphtorch.lowering.triton.fused import DELTA, FusedCall
from graphtorch.lowering.triton.groups import GroupedKernel
from graphtorch.lowering.triton.shapes import DOT
from graphtorch.lowering.triton.tiling import is_one, is_zero
from graphtorch.schedule.indexing import product
from graphtorch.schedule.report import describe
from graphtorch.tensor import dtypes
from graphtorch.tensor.symint import same_shape, same_size


def make_deltas_in_attention(schedule: Schedule) -> Schedule:
    """The schedule without kernels that make nothing but deltas."""
    steps: list[Kernel | ExternCall | None] = list(schedule.steps)
    kept = {v.buffer for v in schedule.outputs}
    lines: list[str] = []
    readers: dict[Buffer, int] = {}
    writers: dict[Buffer, list[int]] = {}
    for i, step in enumerate(schedule.steps):
        for buffer in step.reads():
            readers[buffer] = readers.get(buffer, 0) + 1
        for buffer in step.writes():
            writers.setdefault(buffer, []).append(i)
    for i, call in enumerate(schedule.steps):
        if not isinstance(call, ExternCall) or call.op.name != "fused_attention_backward" or call.outputs[0] is None:
            continue
        delta: View = call.args[DELTA]
        made = writers.get(delta.buffer, [])
        if len(made) != 1 or readers[delta.buffer] != 1 or delta.buffer in kept or delta.buffer.kind != "temporary":
            continue
        kernel = schedule.steps[made[0]]
        if not isinstance(kernel, Kernel) or isinstance(kernel, GroupedKernel) or made[0] > i:
            continue
        result = _result(kernel, call)
        if result is None or any(made[0] < at < i for at in writers.get(result.buffer, [])):
            continue
        outputs = (*call.outputs, delta.buffer)
        if isinstance(call, FusedCall):
            steps[i] = replace(call, outputs=outputs, result=result)
        else:
            nodes, reasons = [*call.nodes, *kernel.nodes], list(call.reasons)
            whole = call.outputs[0]
            steps[i] = FusedCall(call.name, call.op, call.args, outputs, nodes, reasons, product=whole, result=result)
        steps[made[0]] = None
        lines.append(f"{kernel.name} | {describe(kernel.nodes[-1])} | is computed in the queries' pass of {call.name}")
    return replace(schedule, steps=[s for s in steps if s is not None], report=[*schedule.report, *lines])


def _result(kernel: Kernel, call: ExternCall) -> View | None:
    """The forward pass's result as a kernel reads it, if that makes the deltas of a call: row after row, the sum over a
    head of gradient times result in float32."""
    grad, delta = call.args[0], call.args[DELTA]
    sized = [i for i, axis in enumerate(kernel.axes) if not is_one(axis.size)]
    elements = [i for i in sized if kernel.axes[i].reduction]
    if len(kernel.stores) != 1 or len(elements) != 1 or grad.buffer.dtype not in DOT:
        return None
    (store,), (element,) = kernel.stores, elements
    fold = store.value
    if not isinstance(fold, Reduce) or fold.combine != "sum" or fold.dtype is not dtypes.float32:
        return None
    factors = fold.operand
    if not isinstance(factors, Compute) or factors.instruction != "mul" or kernel.axes[element].size != grad.shape[3]:
        return None
    rows = [i for i in sized if i != element]
    if not (is_zero(store.access.offset) and is_zero(delta.offset)):
        return None
    if not same_size(product([kernel.axes[i].size for i in rows]), product(delta.shape)):
        return None
    views: dict[Buffer, View] = {}
    for load in map(_loaded, factors.arguments):
        if load is None or load.access.buffer.dtype is not grad.buffer.dtype:
            return None
        strides = _strides(kernel, store.access.strides, load.access.strides, rows, delta)
        if strides is None or not is_one(load.access.strides[element]):
            return None
        views[load.access.buffer] = View(load.access.buffer, grad.shape, (*strides, 1), load.access.offset)
    mine = views.pop(grad.buffer, None)
    if mine is None or len(views) != 1:
        return None
    if not (same_size(mine.offset, grad.offset) and same_shape(mine.strides, grad.strides)):
        return None
    return next(iter(views.values()))


def _strides(kernel: Kernel, stored: Any, loaded: Any, rows: list[int], delta: View) -> tuple[Any, Any, Any] | None:
    """How far what a kernel loads for a delta is from that for the next image, token and head; None where that is not
    one distance."""
    batch, heads, length = delta.strides
    if len(rows) == 1 and is_one(stored[rows[0]]):  # delta's own strides number the rows
        return batch * loaded[rows[0]], length * loaded[rows[0]], heads * loaded[rows[0]]
    found = []
    for size, stride in zip((delta.shape[i] for i in (0, 2, 1)), (batch, length, heads), strict=True):
        along = [
            i
            for i in rows
            if all(type(x) is int for x in (size, stride, stored[i], kernel.axes[i].size))
            and stored[i] > 0
            and stride % stored[i] == 0
            and (size - 1) * (stride // stored[i]) < kernel.axes[i].size
        ]
        if not along:
            return None
        axis = max(along, key=lambda i: stored[i])
        found.append(loaded[axis] * (stride // stored[axis]))
    return found[0], found[1], found[2]


def _loaded(expr: Expr) -> Load | None:
    """The element that an expression is, in float32."""
    if isinstance(expr, Compute) and expr.instruction == "cast" and expr.dtype is dtypes.float32:
        (expr,) = expr.arguments
    return expr if isinstance(expr, Load) else None
