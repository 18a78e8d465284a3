"""Results that are joined are stored where the whole lies: a rewrite of the schedule.

The gradients of queries, keys and values of attention end up in one tensor where one layer computed all three. The
passes of attention store them there, instead of in tensors of their own that a concatenation copies.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from graphtorch.lowering.kernel import Buffer, ExternCall, Kernel, Schedule, View
from graphtorch.lowering.triton.fused import FusedCall
from graphtorch.lowering.triton.shapes import DOT
from graphtorch.lowering.triton.tiling import is_zero
from graphtorch.schedule.indexing import product, row_major
from graphtorch.tensor.symint import same_shape, same_size


def store_in_place(schedule: Schedule) -> Schedule:
    """The schedule without concatenations of gradients that one call of attention makes."""
    steps: list[Kernel | ExternCall | None] = list(schedule.steps)
    kept = {v.buffer for v in schedule.outputs}
    readers: dict[Buffer, int] = {}
    makers: dict[Buffer, int] = {}
    for i, step in enumerate(schedule.steps):
        for buffer in step.reads():
            readers[buffer] = readers.get(buffer, 0) + 1
        for buffer in step.writes():
            makers[buffer] = -1 if buffer in makers else i
    for j, step in enumerate(schedule.steps):
        if not isinstance(step, ExternCall) or step.op.name != "cat" or step.outputs[0] is None:
            continue
        parts, dim, whole = step.args[0], step.args[1], step.outputs[0]
        if type(dim) is not int or not all(isinstance(p, View) for p in parts) or whole.kind == "input":
            continue
        sources = {makers.get(p.buffer, -1) for p in parts}
        if len(sources) != 1 or len({p.buffer for p in parts}) < len(parts) or makers[whole] != j:
            continue
        at = sources.pop()
        call = steps[at] if at >= 0 else None
        if not isinstance(call, ExternCall) or call.op.name != "fused_attention_backward" or at > j:
            continue
        if any(readers[p.buffer] > 1 or p.buffer in kept or p.buffer.kind != "temporary" for p in parts):
            continue
        places = _places(call, parts, dim, whole)
        if places is None:
            continue
        outputs = tuple(whole if n in places else o for n, o in enumerate(call.outputs))
        if isinstance(call, FusedCall):
            steps[at] = replace(call, outputs=outputs, places=places)
        else:
            nodes = [*call.nodes, *step.nodes]
            steps[at] = FusedCall(
                call.name, call.op, call.args, outputs, nodes, list(call.reasons), product=whole, places=places
            )
        steps[j] = None
    return replace(schedule, steps=[s for s in steps if s is not None])


def _places(call: ExternCall, parts: Any, dim: int, whole: Buffer) -> dict[int, View] | None:
    """By number, where results of a call lie in what they are joined to; None where they can't be stored there."""
    places: dict[int, View] = {}
    start: Any = 0
    row = product(whole.shape[dim:])
    for part in parts:
        number = next(n for n, o in enumerate(call.outputs) if o is part.buffer)
        made: tuple[Any, ...] = part.buffer.shape
        simple = is_zero(part.offset) and same_shape(part.strides, row_major(part.shape))
        if not simple or part.buffer.dtype is not whole.dtype or whole.dtype not in DOT or type(made[3]) is not int:
            return None
        outer = product(part.shape[:dim])
        split = next((i for i in range(len(made)) if same_size(product(made[:i]), outer)), None)
        if split is None or not same_size(product(made), product(part.shape)):
            return None
        strides = (*(row * s for s in row_major(made[:split])), *row_major(made[split:]))
        places[number] = View(whole, made, strides, start * product(whole.shape[dim + 1 :]))
        start = start + part.shape[dim]
    return places
