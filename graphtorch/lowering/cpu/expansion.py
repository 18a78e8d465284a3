"""Calls as kernels: convolutions, their gradients, max pooling and some products are loop nests with affine loads too,
once their padding is in memory. `expand` gives the kernels of a call, in order; they may use scratch memory of one
call's lifetime.

    conv2d               y[n, o, i, j] = sum of x[n, c, i*s + k*d, j*s + l*d] * w[o, c, k, l]
    conv2d_input_grad    the same sum over the output gradient, spread by the stride, with the kernel reversed
    conv2d_weight_grad   a sum over samples and places
    max_pool2d           a maximum and the place where it lies; its gradient where windows do not overlap
    mm, bmm              c[i, j] = sum of a[i, k] * b[k, j], of integers, or where one operand is a vector

Only static sizes; what is not covered runs through NumPy. Direct loops are the best choice for few channels. With
many, a matrix product has more arithmetic a load, and the NumPy functions, which use one, stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphtorch.ir.graph import Value
from graphtorch.lowering.cpu import special
from graphtorch.lowering.cpu.movement import movement
from graphtorch.lowering.kernel import (
    Access,
    Axis,
    Buffer,
    Compute,
    Constant,
    Expr,
    ExternCall,
    Index,
    Kernel,
    Load,
    Reduce,
    Store,
    View,
)
from graphtorch.tensor import dtypes
from graphtorch.tensor.dtypes import dtype
from graphtorch.tensor.type import TensorType

SCRATCH = "scratch"  # the kind of a buffer that lives during one call
_DIRECT = 64 * 64  # products of input and output channels up to which direct loops are used
_TYPES = (dtypes.float32, dtypes.float64)
_PLACES = 16  # of a window, for each of which there is a kernel


def expand(call: ExternCall, producers: Mapping[Buffer, ExternCall]) -> list[Kernel] | None:
    """The kernels of a call; None if it has to run through NumPy. `producers`: the call that wrote a buffer."""
    moved = movement(call)
    if moved is not None:
        return moved
    rule = _RULES.get(call.op.name)
    if rule is None or not all(_is_static(a) for a in call.args):
        return None
    return rule(call, producers)


def _is_static(arg: Any) -> bool:
    if isinstance(arg, View):
        return all(type(s) is int for s in (*arg.shape, *arg.strides, arg.offset))
    return all(type(s) is int for s in arg) if type(arg) is tuple else True


# -- pieces -----------------------------------------------------------------------------------------------------------


def _row_major(shape: Sequence[int]) -> tuple[int, ...]:
    strides = [1]
    for size in reversed(shape[1:]):
        strides.append(strides[-1] * size)
    return tuple(reversed(strides))


def _axes(parallel: Sequence[int], reduction: Sequence[int] = ()) -> tuple[Axis, ...]:
    sizes = [(s, False) for s in parallel] + [(s, True) for s in reduction]
    return tuple(Axis(f"i{i}", size, folded) for i, (size, folded) in enumerate(sizes))


def _scratch(name: str, d: dtype, shape: tuple[int, ...]) -> Buffer:
    return Buffer(name, d, shape, SCRATCH, Value(TensorType(d, shape), name))


def _filled(target: Buffer, value: Any) -> Kernel:
    """Set every element."""
    count = 1
    for size in target.shape:
        count *= size
    return Kernel(
        f"fill_{target.name}", _axes((count,)), [Store(Access(target, 0, (1,)), Constant(value, target.dtype))]
    )


def _spread(x: View, target: Buffer, shape: tuple[int, ...], first: tuple[int, int], step: tuple[int, int]) -> Kernel:
    """Copy an image batch into `target` (of `shape`), its rows and columns starting at `first` and `step` apart."""
    strides = _row_major(shape)
    into = Access(
        target,
        first[0] * strides[2] + first[1],
        (strides[0], strides[1], strides[2] * step[0], step[1]),
    )
    load = Load(Access(x.buffer, x.offset, x.strides))
    return Kernel(f"pad_{target.name}", _axes(x.shape), [Store(into, load)])


def _padded(x: View, padding: tuple[int, int], fill: Any, name: str) -> tuple[View, list[Kernel]]:
    """A view of the images with a border, and the kernels that make it."""
    if padding == (0, 0):
        return x, []
    n, c, h, w = x.shape
    shape = (n, c, h + 2 * padding[0], w + 2 * padding[1])
    target = _scratch(name, x.buffer.dtype, shape)
    return View(target, shape, _row_major(shape)), [_filled(target, fill), _spread(x, target, shape, padding, (1, 1))]


# -- convolution ------------------------------------------------------------------------------------------------------


def _suits(x: View, channels: int, filters: int, width: int) -> bool:
    return x.buffer.dtype in _TYPES and (
        channels * filters <= _DIRECT or (width >= 16 and channels * filters <= 4 * _DIRECT)
    )


def _convolution(call: ExternCall, producers: Mapping[Buffer, ExternCall]) -> list[Kernel] | None:
    x, w, bias, stride, padding, dilation, groups = call.args
    y = call.outputs[0]
    if y is None or not _suits(x, w.shape[1], w.shape[0] // groups, y.shape[3]):
        return None
    n, filters, rows, columns = y.shape
    each = filters // groups
    _, channels, kh, kw = w.shape
    source, steps = _padded(x, padding, 0, "padded")
    sx, sy = source.strides, _row_major(y.shape)
    axes = _axes((n, groups, each, rows, columns), (channels, kh, kw))
    load = Load(
        Access(
            source.buffer,
            source.offset,
            (
                sx[0],
                sx[1] * channels,
                0,
                sx[2] * stride[0],
                sx[3] * stride[1],
                sx[1],
                sx[2] * dilation[0],
                sx[3] * dilation[1],
            ),
        )
    )
    sw = w.strides
    weight = Load(Access(w.buffer, w.offset, (0, sw[0] * each, sw[0], 0, 0, sw[1], sw[2], sw[3])))
    total: Expr = Reduce("sum", Compute("mul", (load, weight), y.dtype), (5, 6, 7), y.dtype)
    if bias is not None:
        shift = Load(Access(bias.buffer, bias.offset, (0, bias.strides[0] * each, bias.strides[0], 0, 0, 0, 0, 0)))
        total = Compute("add", (total, shift), y.dtype)
    store = Access(y, 0, (sy[0], sy[1] * each, sy[1], sy[2], sy[3], 0, 0, 0))
    return [*steps, Kernel(call.name, axes, [Store(store, total)])]


def _input_gradient(call: ExternCall, producers: Mapping[Buffer, ExternCall]) -> list[Kernel] | None:
    g, w, sizes, stride, padding, dilation, groups = call.args
    out = call.outputs[0]
    if out is None or not _suits(g, w.shape[1], w.shape[0] // groups, out.shape[3]):
        return None
    n, _, rows, columns = sizes
    filters, channels, kh, kw = w.shape
    each = filters // groups
    reach = (dilation[0] * (kh - 1), dilation[1] * (kw - 1))
    border = (reach[0] - padding[0], reach[1] - padding[1])
    if border[0] < 0 or border[1] < 0:
        return None
    # Law: dx[h] = sum over k of dy[(h + p - k d) / s]; in the padded gradient, element h + reach - k d.
    shape = (n, filters, rows + reach[0], columns + reach[1])
    last = [border[i] + (g.shape[2 + i] - 1) * stride[i] for i in (0, 1)]
    if last[0] >= shape[2] or last[1] >= shape[3]:
        return None
    target = _scratch("spread", g.buffer.dtype, shape)
    steps = [_filled(target, 0), _spread(g, target, shape, border, tuple(stride))]
    s, so, sw = _row_major(shape), _row_major(out.shape), w.strides
    axes = _axes((n, groups, channels, rows, columns), (each, kh, kw))
    load = Load(
        Access(
            target,
            reach[0] * s[2] + reach[1],
            (s[0], s[1] * each, 0, s[2], s[3], s[1], -dilation[0] * s[2], -dilation[1] * s[3]),
        )
    )
    weight = Load(Access(w.buffer, w.offset, (0, sw[0] * each, sw[1], 0, 0, sw[0], sw[2], sw[3])))
    total = Reduce("sum", Compute("mul", (load, weight), out.dtype), (5, 6, 7), out.dtype)
    store = Access(out, 0, (so[0], so[1] * channels, so[1], so[2], so[3], 0, 0, 0))
    return [*steps, Kernel(call.name, axes, [Store(store, total)])]


def _weight_gradient(call: ExternCall, producers: Mapping[Buffer, ExternCall]) -> list[Kernel] | None:
    x, g, sizes, stride, padding, dilation, groups = call.args
    out = call.outputs[0]
    if out is None or not _suits(x, sizes[1], sizes[0] // groups, g.shape[3]):
        return None
    filters, channels, kh, kw = sizes
    each = filters // groups
    n, _, rows, columns = g.shape
    source, steps = _padded(x, padding, 0, "padded")
    sx, sg, so = source.strides, g.strides, _row_major(out.shape)
    axes = _axes((groups, each, channels, kh, kw), (n, rows, columns))
    load = Load(
        Access(
            source.buffer,
            source.offset,
            (
                sx[1] * channels,
                0,
                sx[1],
                sx[2] * dilation[0],
                sx[3] * dilation[1],
                sx[0],
                sx[2] * stride[0],
                sx[3] * stride[1],
            ),
        )
    )
    gradient = Load(Access(g.buffer, g.offset, (sg[1] * each, sg[1], 0, 0, 0, sg[0], sg[2], sg[3])))
    total = Reduce("sum", Compute("mul", (load, gradient), out.dtype), (5, 6, 7), out.dtype)
    store = Access(out, 0, (so[0] * each, so[0], so[1], so[2], so[3], 0, 0, 0))
    return [*steps, Kernel(call.name, axes, [Store(store, total)])]


# -- pooling ----------------------------------------------------------------------------------------------------------


def _max_pool(call: ExternCall, producers: Mapping[Buffer, ExternCall]) -> list[Kernel] | None:
    x, kernel, stride, padding, dilation, ceil_mode = call.args
    values, indices = call.outputs
    some = values or indices
    if some is None or x.buffer.dtype not in _TYPES or ceil_mode or len(x.shape) != 4:
        return None
    n, c, _, w = x.shape
    rows, columns = some.shape[2], some.shape[3]
    source, steps = _padded(x, padding, float("-inf"), "padded")
    sx = source.strides
    axes = _axes((n, c, rows, columns), kernel)
    d, whole = x.buffer.dtype, dtypes.int64
    load = Load(
        Access(
            source.buffer,
            source.offset,
            (sx[0], sx[1], sx[2] * stride[0], sx[3] * stride[1], sx[2] * dilation[0], sx[3] * dilation[1]),
        )
    )
    stores: list[Store] = []
    strides = (*_row_major(some.shape), 0, 0)
    if values is not None:
        stores.append(Store(Access(values, 0, strides), Reduce("max", load, (4, 5), d)))
    if indices is not None:
        place = Reduce("argmax", load, (4, 5), whole)
        width = Constant(kernel[1], whole)
        row = Compute("floor_divide", (place, width), whole)
        column = Compute("remainder", (place, width), whole)
        # The window's first element, then the place inside it.
        first = Index(-padding[0] * w - padding[1], (0, 0, stride[0] * w, stride[1], 0, 0), whole)
        down = Compute("mul", (row, Constant(dilation[0] * w, whole)), whole)
        along = Compute("mul", (column, Constant(dilation[1], whole)), whole)
        flat = Compute("add", (Compute("add", (first, down), whole), along), whole)
        stores.append(Store(Access(indices, 0, strides), flat))
    return [*steps, Kernel(call.name, axes, stores)]


def _max_pool_gradient(call: ExternCall, producers: Mapping[Buffer, ExternCall]) -> list[Kernel] | None:
    g, indices, sizes, overlapping = call.args[:4]
    out = call.outputs[0]
    forward = producers.get(indices.buffer)
    if out is None or overlapping or forward is None or forward.op.name != "max_pool2d_with_indices" or len(sizes) != 4:
        return None
    _, kernel, stride, padding, dilation, _ = forward.args
    if tuple(kernel) != tuple(stride) or tuple(padding) != (0, 0) or tuple(dilation) != (1, 1):
        return None
    n, c, h, w = sizes
    rows, columns = g.shape[2], g.shape[3]
    if rows * kernel[0] > h or columns * kernel[1] > w:
        return None
    steps = [] if (rows * kernel[0], columns * kernel[1]) == (h, w) else [_filled(out, 0)]
    so = _row_major(out.shape)
    axes = _axes((n, c, rows, kernel[0], columns, kernel[1]))

    def spread(s: Sequence[int]) -> tuple[int, ...]:
        return (s[0], s[1], s[2], 0, s[3], 0)

    here = Index(0, (0, 0, kernel[0] * w, w, kernel[1], 1), dtypes.int64)
    chosen = Load(Access(indices.buffer, indices.offset, spread(indices.strides)))
    value = Load(Access(g.buffer, g.offset, spread(g.strides)))
    same = Compute("eq", (chosen, here), dtypes.bool_)
    result = Compute("where", (same, value, Constant(0, out.dtype)), out.dtype)
    store = Access(out, 0, (so[0], so[1], so[2] * kernel[0], so[2], kernel[1], 1))
    return [*steps, Kernel(call.name, axes, [Store(store, result)])]


def _unfold_gradient(call: ExternCall, producers: Mapping[Buffer, ExternCall]) -> list[Kernel] | None:
    """Windows' cotangents, one place of the window after another: those of one place do not overlap."""
    g, _, dimension, size, step = call.args
    out = call.outputs[0]
    if out is None or g.buffer.dtype not in _TYPES or size > _PLACES:
        return None
    so, axes = _row_major(out.shape), _axes(g.shape[:-1])
    steps = [_filled(out, 0)]
    for place in range(size):
        strides = tuple(s * step if i == dimension else s for i, s in enumerate(so))
        into = Access(out, place * so[dimension], strides)
        value = Load(Access(g.buffer, g.offset + place * g.strides[-1], g.strides[:-1]))
        total = Compute("add", (Load(into), value), out.dtype)
        steps.append(Kernel(f"{call.name}_{place}", axes, [Store(into, total)]))
    return steps


def vector_product(call: ExternCall) -> list[Kernel] | None:
    """A product of which an operand is a single row or column: a fold, which waits for memory; None for others."""
    a, b = call.args[:2]
    if not (_is_static(a) and _is_static(b)) or (a.shape[-2] != 1 and b.shape[-1] != 1):
        return None
    return _product(call)


def _product(call: ExternCall) -> list[Kernel] | None:
    """c[..., i, j] = sum of a[..., i, k] * b[..., k, j], in the operands' dtype."""
    a, b = call.args[:2]
    out = call.outputs[0]
    if out is None or a.buffer.dtype.is_complex or 0 in (*out.shape, a.shape[-1]):
        return None
    so, last = _row_major(out.shape), len(out.shape) - 1
    # (size, steps in a, in b and in the result); sizes of 1 would only be in the way.
    loops = [(size, a.strides[d], b.strides[d], so[d]) for d, size in enumerate(out.shape[:-2])]
    loops += [(a.shape[-2], a.strides[-2], 0, so[last - 1]), (b.shape[-1], 0, b.strides[-1], so[last])]
    parallel = [loop for loop in loops if loop[0] != 1] or [(1, 0, 0, 1)]
    x = Load(Access(a.buffer, a.offset, (*(loop[1] for loop in parallel), a.strides[-1])))
    y = Load(Access(b.buffer, b.offset, (*(loop[2] for loop in parallel), b.strides[-2])))
    total = Reduce("sum", Compute("mul", (x, y), out.dtype), (len(parallel),), out.dtype)
    axes = _axes([loop[0] for loop in parallel], [a.shape[-1]])
    into = Access(out, 0, (*(loop[3] for loop in parallel), 0))
    return [Kernel(call.name, axes, [Store(into, total)])]


def _whole_product(call: ExternCall, producers: Mapping[Buffer, ExternCall]) -> list[Kernel] | None:
    """A product of integers, which no library has."""
    return None if call.args[0].buffer.dtype.is_floating_point else _product(call)


_RULES = {
    "mm": _whole_product,
    "bmm": _whole_product,
    "unfold_backward": _unfold_gradient,
    "conv2d": _convolution,
    "conv2d_input_grad": _input_gradient,
    "conv2d_weight_grad": _weight_gradient,
    "max_pool2d_with_indices": _max_pool,
    "max_pool2d_backward": _max_pool_gradient,
    **special.RULES,
}
