"""Images of few channels, as first layers read them, copied for convolutions: a rewrite of the schedule.

Three channels are no row of anything: element by element, each with bounds of its own, is how a convolution would load
such an image, and as often as its kernel has places. Here a copy has the channels of a pixel side by side, four or
eight of them (zeros beyond the image's own), in a frame of zeros as wide as the padding. What lies under a row of the
kernel is then one run of memory, without bounds: the sum goes over the kernel's rows and these runs, forward and in the
gradient of the kernel, whose own copy for the former has the same order. What only rounds the image to the dtype that
is multiplied is done by the copy.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from graphtorch.ir.graph import UNKNOWN, Node, Value
from graphtorch.lowering.kernel import Buffer, Compute, ExternCall, Kernel, Load, Schedule, View
from graphtorch.lowering.triton.layout import is_plain
from graphtorch.lowering.triton.shapes import DOT
from graphtorch.lowering.triton.tiling import is_one, is_zero
from graphtorch.ops.record import lookup
from graphtorch.tensor import dtypes
from graphtorch.tensor.symint import same_shape
from graphtorch.tensor.type import TensorType

READERS = ("conv2d", "conv2d_weight_grad")
SLOTS = (4, 8)  # channels of a pixel in a copy
FEWEST_CHANNELS = 3  # with fewer a copy is mostly zeros
REREADS = 2  # times that a convolution reads an element for which a copy pays
RUN = 16  # elements that the tensor cores multiply at least: a row of the kernel takes multiples of it
MOST_COLUMNS = 256  # of a kernel's gradient that a program has at once

_ROUNDED = (dtypes.float16, dtypes.bfloat16, dtypes.float32)


class Framed(Buffer):
    """An image (N, C, H, W), or a kernel, as (N, H, W, C) with zeros around it and behind the channels."""

    __slots__ = ()


def run_of(columns: int, channels: int) -> int:
    """The elements that a row of a kernel takes in the sum."""
    return -(-columns * channels // RUN) * RUN


def frame_narrow_images(schedule: Schedule) -> Schedule:
    """The same computation with copies of images of few channels for the convolutions that read them."""
    if not any(_slots(s) for s in schedule.steps):
        return schedule
    rewrite = _Rewrite(schedule)
    for step in schedule.steps:
        rewrite.add(step)
    return replace(schedule, steps=rewrite.steps, report=[*schedule.report, *rewrite.lines])


def _slots(step: Kernel | ExternCall) -> int | None:
    """How many channels a pixel gets in the copy of what a convolution reads, if that pays."""
    if not isinstance(step, ExternCall) or step.op.name not in READERS or step.outputs[0] is None:
        return None
    image, other = step.args[:2]
    if step.op.kernels.get("triton") is not None or (step.op.name == "conv2d" and step.args[2] is not None):
        return None
    if any(len(v.shape) != 4 or v.buffer.dtype not in DOT for v in (image, other)):
        return None
    if not is_plain(image) or (step.op.name == "conv2d" and not is_plain(other)):
        return None
    (*strides,), _, dilation, groups = step.args[-4:]
    kernel = (other.shape if step.op.name == "conv2d" else step.outputs[0].shape)[2:]
    if any(type(s) is not int for s in (*image.shape[1:], *kernel)) or not is_one(groups) or not is_one(dilation[1]):
        return None
    if kernel[0] * kernel[1] < REREADS * strides[0] * strides[1] or image.shape[1] < FEWEST_CHANNELS:
        return None
    return next((s for s in SLOTS if image.shape[1] <= s), None)


class _Rewrite:
    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.steps: list[Kernel | ExternCall] = []
        self.lines: list[str] = []
        self.copies: dict[tuple[Any, ...], View] = {}

    def add(self, step: Kernel | ExternCall) -> None:
        slots = _slots(step)
        if slots is not None:
            assert isinstance(step, ExternCall)
            image, other = step.args[:2]
            down, across = step.args[-3]
            args = [self._copy(self._unrounded(image), image, slots, down, across, across), other]
            if step.op.name == "conv2d":
                rest = run_of(other.shape[3], slots) // slots - other.shape[3]
                args[1] = self._copy(other, other, slots, 0, 0, rest)
            step = replace(step, args=(*args, *step.args[2:]))
        self.steps.append(step)

    def _copy(self, source: View, view: View, slots: int, down: int, left: int, right: int) -> View:
        """What a view sees with its channels side by side, and a frame; copied where it is first wanted."""
        # A parameter that the step updates has one value before and another one after that.
        version = sum(view.buffer in s.writes() for s in self.steps)
        key = (view.buffer, version, slots, down, left, right)
        if key in self.copies:
            return self.copies[key]
        n, c, h, w = view.shape
        of, name = view.buffer.dtype, f"{view.buffer.name}_framed{len(self.copies)}"
        rows, columns = h + 2 * down, w + left + right
        shape = (n, rows, columns, slots)
        copy = Framed(name, of, shape, "temporary", Value(TensorType(of, shape), name))
        turned = View(source.buffer, (n, h, w, c), (c * h * w, w, 1, h * w), 0)
        op, pad = lookup("constant_pad_nd"), (0, slots - c, left, right, down, down)
        origin = "channels side by side, in a frame of zeros"
        node = Node(op, (source.buffer.value, pad, 0), (copy.value.type,), UNKNOWN, origin)
        self.steps.append(ExternCall(f"f{len(self.steps)}", op, (turned, pad, 0), (copy,), [node]))
        self.lines.append(f"{name} | {slots} channels side by side in a frame of zeros, for convolutions")
        strides = (rows * columns * slots, 1, columns * slots, slots)
        made = self.copies[key] = View(copy, view.shape, strides, (down * columns + left) * slots)
        return made

    def _unrounded(self, image: View) -> View:
        """What an image was rounded from, if only such convolutions read it and it is still there."""
        of = image.buffer
        writers = [s for s in self.schedule.steps if of in s.writes()]
        readers = [s for s in self.schedule.steps if of in s.reads()]
        if len(writers) != 1 or not isinstance(writers[0], Kernel) or any(_slots(r) is None for r in readers):
            return image
        (store,) = (s for s in writers[0].stores if s.access.buffer is of)
        value = store.value
        if (
            not isinstance(value, Compute)
            or value.instruction != "cast"
            or any(v.buffer is of for v in self.schedule.outputs)
        ):
            return image
        (load,) = value.arguments
        if not isinstance(load, Load) or load.dtype not in _ROUNDED:
            return image
        access, source = load.access, load.access.buffer
        since = self.steps[next(i for i, s in enumerate(self.steps) if s is writers[0]) :]
        same = (
            is_zero(access.offset) and is_zero(store.access.offset) and same_shape(access.strides, store.access.strides)
        )
        if not same or not same_shape(source.shape, of.shape) or any(source in s.writes() for s in since):
            return image
        return replace(image, buffer=source)
