"""Convolutions and pooling of planes whose sizes are known only at run time: as kernels and matrix products.

The forms that are written for a shape (convolution.py, pooling.py) need sizes. With symbolic ones a convolution becomes
kernels that pad and unfold ("im2col": Chellapilla, Puri and Simard 2006) and one product, whose buffers the memory plan
places like any other:

    forward          y[n]  = w @ columns(x)[n]
    input gradient   dx[n] = w reversed @ columns(g spread by the stride)[n]
    weight gradient  dw    = g @ columns(x)^T, over all samples at once

Unfolded windows take kernel height x width times the memory of the planes. Grouped convolutions of few channels become
direct loops, and pooling a fold over windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from graphtorch.ir.graph import Value
from graphtorch.lowering.cpu import expansion
from graphtorch.lowering.kernel import (
    Access,
    Axis,
    Buffer,
    Compute,
    Constant,
    ExternCall,
    Kernel,
    Load,
    Reduce,
    Schedule,
    Store,
    View,
)
from graphtorch.ops.record import REGISTRY
from graphtorch.tensor import dtypes
from graphtorch.tensor.dtypes import dtype
from graphtorch.tensor.type import TensorType

Steps = list[Kernel | ExternCall]
TYPES = (dtypes.float32, dtypes.float64)


def unfold_symbolic(schedule: Schedule) -> Schedule:
    """The schedule with calls of symbolic planes in parts; the same one if there are none."""
    parts = [_parts(step) if isinstance(step, ExternCall) else None for step in schedule.steps]
    if all(part is None for part in parts):
        return schedule
    every = zip(schedule.steps, parts, strict=True)
    return replace(schedule, steps=[s for step, part in every for s in ([step] if part is None else part)])


def _parts(call: ExternCall) -> Steps | None:
    """What a call becomes; None if it stays."""
    rule = _RULES.get(call.op.name)
    if rule is None or call.outputs[0] is None or call.outputs[0].dtype not in TYPES:
        return None
    planes = [s for v in (*call.args, *call.outputs) if isinstance(v, View | Buffer) for s in v.shape[2:]]
    if all(type(s) is int for s in planes):
        return None
    return rule(call)


# -- pieces -----------------------------------------------------------------------------------------------------------


def _temporary(name: str, of: dtype, shape: tuple[Any, ...]) -> Buffer:
    return Buffer(name, of, shape, "temporary", Value(TensorType(of, shape), name))


def _row_major(shape: Sequence[Any]) -> tuple[Any, ...]:
    strides: list[Any] = [1]
    for size in reversed(shape[1:]):
        strides.append(strides[-1] * size)
    return tuple(reversed(strides))


def _copy(name: str, source: Access, target: Buffer, sizes: Sequence[Any]) -> Kernel:
    """Elements at an access, in row-major order."""
    axes = tuple(Axis(f"i{i}", size) for i, size in enumerate(sizes))
    return Kernel(name, axes, [Store(Access(target, 0, _row_major(sizes)), Load(source))])


def _spread(
    call: ExternCall, x: View, sizes: tuple[Any, Any], first: tuple[int, int], step: tuple[int, int]
) -> tuple[View, list[Kernel]]:
    """Planes of `sizes` that hold those of x from `first` on, `step` apart, among zeros."""
    shape = (*x.shape[:2], *sizes)
    target = _temporary(f"{call.name}_padded", x.buffer.dtype, shape)
    strides = _row_major(shape)
    whole = (shape[0] * shape[1] * shape[2] * shape[3],)
    zero = Store(Access(target, 0, (1,)), Constant(0, target.dtype))
    into = Access(
        target, strides[2] * first[0] + first[1], (strides[0], strides[1], strides[2] * step[0], step[1])
    )  # fmt: skip
    axes = tuple(Axis(f"i{i}", size) for i, size in enumerate(x.shape))
    return View(target, shape, strides), [
        Kernel(f"{call.name}_zero", (Axis("i0", whole[0]),), [zero]),
        Kernel(f"{call.name}_pad", axes, [Store(into, Load(Access(x.buffer, x.offset, x.strides)))]),
    ]


def _padded(call: ExternCall, x: View, padding: tuple[int, int]) -> tuple[View, list[Kernel]]:
    if tuple(padding) == (0, 0):
        return x, []
    sizes = x.shape[2] + 2 * padding[0], x.shape[3] + 2 * padding[1]
    return _spread(call, x, sizes, padding, (1, 1))


def _product(call: ExternCall, name: str, a: View, b: View, output: Buffer) -> ExternCall:
    return ExternCall(call.name, REGISTRY[name], (a, b), (output,), call.nodes, call.reasons)


def _batched(
    call: ExternCall, source: View, weight: View, kernel: Sequence[int], out: Buffer, step: Any, dilation: Any
) -> Steps:
    """out[n] = weight @ columns(source)[n], the weight being a matrix and out's planes the windows."""
    n, channels = source.shape[:2]
    rows, columns = out.shape[2:]
    s = source.strides
    sizes = (n, channels, *kernel, rows, columns)
    windows = Access(
        source.buffer, source.offset,
        (s[0], s[1], s[2] * dilation[0], s[3] * dilation[1], s[2] * step[0], s[3] * step[1]),
    )  # fmt: skip
    depth, pixels = channels * kernel[0] * kernel[1], rows * columns
    unfolded = _temporary(f"{call.name}_columns", out.dtype, (n, depth, pixels))
    factor = View(weight.buffer, (n, *weight.shape), (0, *weight.strides), weight.offset)
    right = View(unfolded, (n, depth, pixels), (depth * pixels, pixels, 1))
    return [_copy(f"{call.name}_unfold", windows, unfolded, sizes), _product(call, "bmm", factor, right, out)]


# -- rules ------------------------------------------------------------------------------------------------------------


def _plain(w: View) -> bool:
    return all(type(s) is int for s in (*w.shape, *w.strides, w.offset)) and w.strides == _row_major(w.shape)


def _direct(call: ExternCall) -> Steps | None:
    """The call as direct loops; their scratch memory lives in the arena."""
    kernels = expansion._RULES[call.op.name](call, {})
    for buffer in {b for k in kernels or () for b in (*k.reads(), *k.writes()) if b.kind == expansion.SCRATCH}:
        buffer.kind = "temporary"
        buffer.name = f"{call.name}_{buffer.name}"
    return None if kernels is None else list(kernels)


def _forward(call: ExternCall) -> Steps | None:
    x, w, bias, stride, padding, dilation, groups = call.args
    y = call.outputs[0]
    if groups != 1:
        return _direct(call) if w.shape[1] * (w.shape[0] // groups) <= expansion._DIRECT else None
    if y is None or bias is not None or not _plain(w):
        return None
    source, steps = _padded(call, x, padding)
    o, channels, kh, kw = w.shape
    weight = View(w.buffer, (o, channels * kh * kw), (channels * kh * kw, 1), w.offset)
    return [*steps, *_batched(call, source, weight, (kh, kw), y, stride, dilation)]


def _input_gradient(call: ExternCall) -> Steps | None:
    g, w, _, stride, padding, dilation, groups = call.args
    out = call.outputs[0]
    o, channels, kh, kw = w.shape
    reach = (dilation[0] * (kh - 1), dilation[1] * (kw - 1))
    border = (reach[0] - padding[0], reach[1] - padding[1])
    if out is None or groups != 1 or min(border) < 0 or not _plain(w):
        return None
    sizes = out.shape[2] + reach[0], out.shape[3] + reach[1]
    source, steps = _spread(call, g, sizes, border, stride)
    reversed_ = _temporary(f"{call.name}_weight", out.dtype, (channels, o * kh * kw))
    taps = kh * kw
    across = Access(w.buffer, w.offset + taps - 1, (taps, channels * taps, -1))
    weight = View(reversed_, (channels, o * taps), (o * taps, 1))
    turn = _copy(f"{call.name}_turn", across, reversed_, (channels, o, taps))
    return [*steps, turn, *_batched(call, source, weight, (kh, kw), out, (1, 1), dilation)]


def _weight_gradient(call: ExternCall) -> Steps | None:
    x, g, _, stride, padding, dilation, groups = call.args
    out = call.outputs[0]
    if out is None:
        return None
    if groups != 1:
        return _direct(call) if out.shape[1] * (out.shape[0] // groups) <= expansion._DIRECT else None
    source, steps = _padded(call, x, padding)
    o, channels, kh, kw = out.shape
    n, _, rows, columns = g.shape
    s = source.strides
    windows = Access(
        source.buffer, source.offset,
        (s[1], s[2] * dilation[0], s[3] * dilation[1], s[0], s[2] * stride[0], s[3] * stride[1]),
    )  # fmt: skip
    depth, pixels = channels * kh * kw, n * rows * columns
    unfolded = _temporary(f"{call.name}_columns", out.dtype, (depth, pixels))
    gradient = _temporary(f"{call.name}_gradient", out.dtype, (o, pixels))
    by_channel = Access(g.buffer, g.offset, (g.strides[1], g.strides[0], g.strides[2], g.strides[3]))
    left, right = View(gradient, (o, pixels), (pixels, 1)), View(unfolded, (pixels, depth), (1, pixels))
    return [
        *steps,
        _copy(f"{call.name}_unfold", windows, unfolded, (channels, kh, kw, n, rows, columns)),
        _copy(f"{call.name}_by_channel", by_channel, gradient, (o, n, rows, columns)),
        _product(call, "mm", left, right, out),
    ]


def _mean(call: ExternCall) -> Steps | None:
    """Means of windows that all count alike."""
    x, kernel, stride, padding, ceil_mode, include, divisor = call.args
    y = call.outputs[0]
    if y is None or ceil_mode or len(x.shape) != 4 or not (include or tuple(padding) == (0, 0)):
        return None
    source, steps = _padded(call, x, padding)
    s, so = source.strides, _row_major(y.shape)
    axes = tuple(Axis(f"i{i}", size, i > 3) for i, size in enumerate((*y.shape, *kernel)))
    load = Load(Access(source.buffer, source.offset, (s[0], s[1], s[2] * stride[0], s[3] * stride[1], s[2], s[3])))
    total = Reduce("sum", load, (4, 5), y.dtype)
    mean = Compute("div", (total, Constant(divisor or kernel[0] * kernel[1], y.dtype)), y.dtype)
    return [*steps, Kernel(call.name, axes, [Store(Access(y, 0, (*so, 0, 0)), mean)])]


_RULES = {
    "avg_pool2d": _mean,
    "conv2d": _forward,
    "conv2d_input_grad": _input_gradient,
    "conv2d_weight_grad": _weight_gradient,
    "max_pool2d_with_indices": _direct,
}
