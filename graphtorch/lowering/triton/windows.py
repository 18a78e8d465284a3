"""Where maxima over windows were, in a byte: a rewrite of the schedule.

The positions that a max pooling remembers for its gradient count all pixels of a plane, in 64 bits, as its caller may
see them. Where only the gradient reads them, the place in the window is enough, and an eighth of the memory.
"""

from __future__ import annotations

from dataclasses import replace

from graphtorch.ir.graph import Value
from graphtorch.lowering.kernel import Buffer, ExternCall, Kernel, Schedule, View
from graphtorch.tensor import dtypes
from graphtorch.tensor.type import TensorType

MOST_PLACES = 64  # of a window that the code of a pooling names one by one


def remember_places(schedule: Schedule) -> Schedule:
    """The schedule with positions of maxima as places in their windows, in int8, where gradients alone read them."""
    readers: dict[Buffer, list[Kernel | ExternCall]] = {}
    for step in schedule.steps:
        for buffer in step.reads():
            readers.setdefault(buffer, []).append(step)
    seen = {view.buffer for view in schedule.outputs}
    narrow: dict[Buffer, Buffer] = {}
    for step in schedule.steps:
        if not isinstance(step, ExternCall) or step.op.name != "max_pool2d_with_indices":
            continue
        found, kernel = step.outputs[1], step.args[1]
        if found is None or found.kind != "temporary" or found in seen or kernel[0] * kernel[1] > MOST_PLACES:
            continue
        window = (*kernel, *step.args[2], *step.args[3], *step.args[4])
        if all(_follows(reader, found, window) for reader in readers.get(found, ())):
            value = Value(TensorType(dtypes.int8, found.value.type.shape, found.value.type.device), found.name)
            narrow[found] = Buffer(found.name, dtypes.int8, found.shape, found.kind, value)
    if not narrow:
        return schedule
    return replace(schedule, steps=[_narrowed(s, narrow) if isinstance(s, ExternCall) else s for s in schedule.steps])


def _follows(reader: Kernel | ExternCall, found: Buffer, window: tuple[int, ...]) -> bool:
    """Whether a step is the gradient of a pooling with known windows, and reads the positions as such."""
    if not isinstance(reader, ExternCall) or reader.op.name != "max_pool2d_backward":
        return False
    gradient, positions = reader.args[:2]
    return gradient.buffer is not found and positions.buffer is found and tuple(reader.args[4]) == window


def _narrowed(call: ExternCall, narrow: dict[Buffer, Buffer]) -> ExternCall:
    args = tuple(replace(a, buffer=narrow.get(a.buffer, a.buffer)) if isinstance(a, View) else a for a in call.args)
    return replace(call, args=args, outputs=tuple(None if o is None else narrow.get(o, o) for o in call.outputs))
