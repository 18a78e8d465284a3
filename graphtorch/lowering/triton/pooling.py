"""Triton source for pooling over windows of a plane and its gradients. Small windows are unrolled in the text.

Programs go through the result in the order of its memory, channels-last images channel by channel: neighbours are then
loaded together, whatever the windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from graphtorch.lowering.kernel import Buffer, ExternCall
from graphtorch.lowering.triton.codegen import Generated
from graphtorch.lowering.triton.errors import UnsupportedError
from graphtorch.lowering.triton.instructions import identity, memory, register
from graphtorch.lowering.triton.layout import ChannelsLast, channels_last_strides
from graphtorch.lowering.triton.windows import MOST_PLACES
from graphtorch.lowering.triton.writer import Writer, check_atomic, names_of, position, start
from graphtorch.tensor import dtypes


def _places(w: Writer, kernel: Any) -> Iterator[tuple[str, str]]:
    """Row and column of each place of a window: numbers, or of a large window, of a loop's place."""
    if kernel[0] * kernel[1] <= MOST_PLACES:
        yield from ((str(i), str(j)) for i in range(kernel[0]) for j in range(kernel[1]))
        return
    with w.loop("place", kernel[0] * kernel[1]):
        yield f"place // {kernel[1]}", f"place % {kernel[1]}"


def _along(w: Writer, out: Buffer) -> Writer:
    """The function with its elements in the order of a result's memory."""
    w.channels_last = isinstance(out, ChannelsLast)
    return w


def _where(w: Writer, buffer: Buffer, names: list[str]) -> str:
    """Where an element of a result lies."""
    if isinstance(buffer, ChannelsLast) is w.channels_last:
        return "n"
    if not w.channels_last:
        strides = channels_last_strides(buffer.shape)
        return " + ".join(f"{w.sizes.factor(s)} * {i}" for s, i in zip(strides, names, strict=True))
    return position(w, names, buffer.shape)


def max_pool(writer: Callable[..., Writer], call: ExternCall, out: Buffer) -> list[Generated]:
    """Values, and positions in the flattened plane; or places in the windows, if positions are kept in int8."""
    x, kernel, stride, padding, dilation = call.args[:5]
    rank = len(out.shape)
    w = _along(writer(out.shape), out)
    h, width = x.shape[-2:]
    names = names_of(rank)
    of = register(out.dtype)
    kept = call.outputs[1]
    places = kept is not None and kept.dtype is dtypes.int8
    index = "tl.int32" if places else "tl.int64"
    w.let("value", f"tl.full([BLOCK], {identity('max', out.dtype)}, {of})")
    w.let("at", f"tl.full([BLOCK], -1, {index})")
    for i, j in _places(w, kernel):
        row = w.let("row", f"i{rank - 2} * {stride[0]} + {i} * {dilation[0]} - {padding[0]}")
        column = w.let("column", f"i{rank - 1} * {stride[1]} + {j} * {dilation[1]} - {padding[1]}")
        inside = w.inside(row, h, column, width)
        found = w.let("found", f"{w.load(x, [*names[:-2], row, column], inside)}.to({of})")
        w.let("better", f"{inside} & ((at < 0) | ({found} > value) | ({found} != {found}))")
        w.let("value", f"tl.where(better, {found}, value)")
        place = f"{i} * {kernel[1]} + {j}" if places else f"({row} * {w.sizes.factor(width)} + {column}).to({index})"
        w.let("at", f"tl.where(better, {place}, at)")
    w.store(out, f"value.to({memory(out.dtype)})")
    if kept is not None:
        w.store(kept, f"at.to({memory(kept.dtype)})", _where(w, kept, names))
    return [w.finish()]


def max_pool_backward(writer: Callable[..., Writer], call: ExternCall, out: Buffer) -> list[Generated]:
    """Cotangents added where the maxima were: by each element, those of the windows around it whose maximum it was; if
    the windows are not known, by atomic additions."""
    g, indices, _, _, window = call.args
    if window:
        return [_max_pool_gather(writer, call, out)]
    check_atomic(out)
    w = writer(g.shape)
    names = names_of(len(g.shape))
    at, inside = w.index(indices, names, out.shape[-2] * out.shape[-1])
    lead = position(w, [*names[:-2], "0", "0"], out.shape)
    w.add(out, f"{lead} + {at}", w.load(g, names, inside), inside)
    return [start(writer, out, None), w.finish()]


def _max_pool_gather(writer: Callable[..., Writer], call: ExternCall, out: Buffer) -> Generated:
    g, indices, _, _, window = call.args
    kernel, stride, padding, dilation = (window[i : i + 2] for i in range(0, 8, 2))
    rank = len(out.shape)
    w = _along(writer(out.shape), out)
    names = names_of(rank)
    of = register(out.dtype)
    of = of if out.dtype.itemsize > 2 else "tl.float32"
    places = indices.buffer.dtype is dtypes.int8
    if not places:
        w.let("own", f"i{rank - 2} * {w.sizes.factor(out.shape[-1])} + i{rank - 1}")
    w.let("total", f"tl.zeros([BLOCK], {of})")
    # The last window that may contain the element, and those before it that still reach it.
    for axis, name in enumerate(("last_row", "last_column")):
        w.let(name, f"(i{rank - 2 + axis} + {padding[axis]}) // {stride[axis]}")
    counts = [((k - 1) * d) // s + 1 for k, s, d in zip(kernel, stride, dilation, strict=True)]
    for i, j in ((i, j) for i in range(counts[0]) for j in range(counts[1])):
        row, column = w.let("row", f"last_row - {i}"), w.let("column", f"last_column - {j}")
        inside = w.inside(row, g.shape[-2], column, g.shape[-1])
        at = [*names[:-2], row, column]
        if places:
            for axis, (name, first) in enumerate((("down", row), ("right", column))):
                w.let(name, f"i{rank - 2 + axis} + {padding[axis]} - {first} * {stride[axis]}")
            fits = [f"(right < {kernel[1] * dilation[1]})"]
            fits += [f"({n} % {d} == 0)" for n, d in zip(("down", "right"), dilation, strict=True) if d > 1]
            w.let("inside", " & ".join([inside, *fits]))
            w.let("own", f"down // {dilation[0]} * {kernel[1]} + right // {dilation[1]}")
        chosen = w.let("chosen", f"{inside} & ({w.load(indices, at, inside)} == own)")
        w.let("total", f"total + tl.where({chosen}, {w.load(g, at, inside)}.to({of}), 0.0)")
    w.store(out, f"total.to({memory(out.dtype)})")
    return w.finish()


def _divisor(w: Writer, places: tuple[str, str], args: tuple[Any, ...], size: tuple[Any, Any]) -> str:
    """How many elements the sum of the window at a place of the result is divided by."""
    kernel, stride, padding, _, include, divisor = args
    if divisor is not None:
        return str(int(divisor))
    for axis, name in enumerate(("rows", "columns")):
        n = w.sizes.factor(size[axis])
        begin = w.let("begin", f"{places[axis]} * {stride[axis]} - {padding[axis]}")
        end = w.let("end", f"tl.minimum({begin} + {kernel[axis]}, {n} + {padding[axis]})")
        counted = f"{end} - {begin}" if include else f"tl.minimum({end}, {n}) - tl.maximum({begin}, 0)"
        w.let(name, counted)
    return "(rows * columns)"


def avg_pool(writer: Callable[..., Writer], call: ExternCall, out: Buffer) -> list[Generated]:
    """Sums over windows, divided."""
    x, kernel, stride, padding = call.args[:4]
    if not out.dtype.is_floating_point:
        raise UnsupportedError(f"avg_pool2d of {out.dtype.name}")
    rank = len(out.shape)
    w = _along(writer(out.shape), out)
    names = names_of(rank)
    of = register(out.dtype)
    w.let("total", f"tl.zeros([BLOCK], {of})")
    for i, j in _places(w, kernel):
        row = w.let("row", f"i{rank - 2} * {stride[0]} + {i} - {padding[0]}")
        column = w.let("column", f"i{rank - 1} * {stride[1]} + {j} - {padding[1]}")
        inside = w.inside(row, x.shape[-2], column, x.shape[-1])
        w.let("total", f"total + {w.load(x, [*names[:-2], row, column], inside)}.to({of})")
    by = _divisor(w, (f"i{rank - 2}", f"i{rank - 1}"), call.args[1:], x.shape[-2:])
    w.store(out, f"(total / {by}).to({memory(out.dtype)})")
    return [w.finish()]


def avg_pool_backward(writer: Callable[..., Writer], call: ExternCall, out: Buffer) -> list[Generated]:
    """For each element, its share of the cotangents of the windows that it lies in, in a fixed order."""
    g, _, kernel, stride, padding = call.args[:5]
    rank = len(out.shape)
    w = _along(writer(out.shape), out)
    names = names_of(rank)
    of = register(out.dtype)
    w.let("total", f"tl.zeros([BLOCK], {of})")
    for i, j in _places(w, kernel):
        w.let("down", f"i{rank - 2} + {padding[0]} - {i}")
        w.let("right", f"i{rank - 1} + {padding[1]} - {j}")
        row, column = w.let("row", f"down // {stride[0]}"), w.let("column", f"right // {stride[1]}")
        w.inside(row, g.shape[-2], column, g.shape[-1])
        fits = f"(down >= 0) & (right >= 0) & (down % {stride[0]} == 0) & (right % {stride[1]} == 0)"
        inside = w.let("inside", f"inside & {fits}")
        by = _divisor(w, (row, column), call.args[2:], out.shape[-2:])
        found = w.load(g, [*names[:-2], row, column], inside)
        w.let("total", f"total + tl.where({inside}, {found}.to({of}) / {by}, 0.0)")
    w.store(out, f"total.to({memory(out.dtype)})")
    return [w.finish()]


POOLING = {
    "max_pool2d_with_indices": max_pool,
    "max_pool2d_backward": max_pool_backward,
    "avg_pool2d": avg_pool,
    "avg_pool2d_backward": avg_pool_backward,
}
