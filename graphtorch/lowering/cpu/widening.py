"""Matrix products, convolutions and pooling in half precision: kernels widen the operands to float32, and the results
are rounded once, which is what eager execution computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from graphtorch.ir.graph import Value
from graphtorch.lowering.kernel import Access, Axis, Buffer, Compute, ExternCall, Kernel, Load, Schedule, Store, View
from graphtorch.tensor import dtypes
from graphtorch.tensor.type import TensorType

HALVES = (dtypes.float16, dtypes.bfloat16)
WIDENED = frozenset(
    {
        "conv2d", "conv2d_input_grad", "conv2d_weight_grad", "max_pool2d_with_indices", "max_pool2d_backward",
        "avg_pool2d", "avg_pool2d_backward", "mm", "bmm",
    }
)  # fmt: skip


def widen_halves(schedule: Schedule) -> Schedule:
    """The schedule with such calls between casts; the same one if there are none."""
    parts = [_parts(s) if isinstance(s, ExternCall) and s.op.name in WIDENED else None for s in schedule.steps]
    if all(part is None for part in parts):
        return schedule
    every = zip(schedule.steps, parts, strict=True)
    return replace(schedule, steps=[s for step, part in every for s in ([step] if part is None else part)])


def _row_major(shape: Sequence[Any]) -> tuple[Any, ...]:
    strides: list[Any] = [1]
    for size in reversed(shape[1:]):
        strides.append(strides[-1] * size)
    return tuple(reversed(strides))


def _order(strides: Sequence[Any]) -> list[int]:
    """The dimensions, those with the largest steps first; as they are where steps are symbolic or repeat elements."""
    dims = list(range(len(strides)))
    if any(type(s) is not int or s <= 0 for s in strides):
        return dims
    return sorted(dims, key=lambda d: -strides[d])


def _cast(name: str, source: Access, target: Buffer) -> Kernel:
    """Elements at an access, converted."""
    axes = tuple(Axis(f"i{i}", size) for i, size in enumerate(target.shape))
    value = Compute("cast", (Load(source),), target.dtype)
    return Kernel(name, axes, [Store(Access(target, 0, _row_major(target.shape)), value)])


def _wide(name: str, shape: tuple[Any, ...]) -> Buffer:
    return Buffer(name, dtypes.float32, shape, "temporary", Value(TensorType(dtypes.float32, shape), name))


def _parts(call: ExternCall) -> list[Kernel | ExternCall] | None:
    steps: list[Kernel | ExternCall] = []
    args: list[Any] = []
    for i, arg in enumerate(call.args):
        if isinstance(arg, View) and arg.buffer.dtype in HALVES:
            # Dimensions keep their order in memory: a transposed weight is read, and multiplied, as it lies.
            order = _order(arg.strides)
            wide = _wide(f"{call.name}_wide{i}", tuple(arg.shape[d] for d in order))
            steps.append(_cast(wide.name, Access(arg.buffer, arg.offset, tuple(arg.strides[d] for d in order)), wide))
            steps_of = dict(zip(order, _row_major(wide.shape), strict=True))
            arg = View(wide, arg.shape, tuple(steps_of[d] for d in range(len(order))))
        args.append(arg)
    if not steps:
        return None
    outputs: list[Buffer | None] = []
    after: list[Kernel | ExternCall] = []
    for i, output in enumerate(call.outputs):
        if output is not None and output.dtype in HALVES:
            wide = _wide(f"{call.name}_result{i}", output.shape)
            after.append(_cast(f"{call.name}_round{i}", Access(wide, 0, _row_major(output.shape)), output))
            output = wide
        outputs.append(output)
    return [*steps, ExternCall(call.name, call.op, tuple(args), tuple(outputs), call.nodes, call.reasons), *after]
