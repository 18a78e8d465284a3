"""Native pooling over the last two dimensions: the maximum with its position, the mean, and both gradients.

A unit of work of the forward forms is one row of one plane's result, in vectors along the row. Where every window lies
in the plane, places of the window are consecutive or every second element; elsewhere they are gathered under masks.
The gradients add each window's cotangent to the plane's elements, plane by plane.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from graphtorch.lowering.cpu.assembly import Val, const
from graphtorch.lowering.cpu.calls import FLOATS, CallBuilder, Target, contiguous, emitter, slices, static
from graphtorch.lowering.cpu.function import Function
from graphtorch.lowering.kernel import ExternCall, View
from graphtorch.tensor.symint import same_size

UNROLLED = 32  # places of a window up to which they are straight-line code


@dataclass(frozen=True)
class Windows:
    """Windows over a plane of `sizes`; `counts` of them."""

    sizes: tuple[int, int]
    counts: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    @property
    def inside(self) -> bool:
        """Whether every window lies in the plane."""
        reach = [
            (n - 1) * s + (k - 1) * d + 1
            for n, s, k, d in zip(self.counts, self.stride, self.kernel, self.dilation, strict=True)
        ]
        return self.padding == (0, 0) and reach[0] <= self.sizes[0] and reach[1] <= self.sizes[1]

    @property
    def places(self) -> int:
        return self.kernel[0] * self.kernel[1]


def _planes(shape: tuple[Any, ...]) -> Any:
    count: Any = 1
    for size in shape[:-2]:
        count = count * size
    return count


def _row_major(x: Any) -> bool:
    """Whether an operand of any sizes is contiguous from a known offset."""
    if not isinstance(x, View) or type(x.offset) is not int:
        return False
    stride: Any = 1
    for size, own in zip(reversed(x.shape), reversed(x.strides), strict=True):
        if not (same_size(own, stride) or (type(size) is int and size == 1)):
            return False
        stride = stride * size
    return True


def _windows(
    x: Any, counts: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, limit: float = UNROLLED
) -> Windows | None:
    """The windows of a call that is covered: those of at most `limit` places."""
    if not contiguous(x) or x.buffer.dtype not in FLOATS or len(x.shape) < 3:
        return None
    if not static(*x.shape[-2:], *counts) or 0 in (*x.shape[-2:], *counts) or x.shape[-2] * x.shape[-1] >= 1 << 30:
        return None
    found = Windows(tuple(x.shape[-2:]), tuple(counts), kernel, stride, padding, dilation)
    return found if found.places <= limit else None


class _Rows:
    """Writes a forward form: what becomes of the elements at a window's places, row by row."""

    def __init__(self, windows: Windows, kind: str, target: Target) -> None:
        self.w, self.kind = windows, kind
        self.b = CallBuilder(target)
        self.lanes = target.lanes(kind)
        self.total = -(-windows.counts[1] // self.lanes)

    def run(self, x: View, prefix: str) -> Function:
        b, w = self.b, self.w
        self.x = b.pointer(x, self.kind)
        self.pointers()
        b.loop(b.low, b.high, 1, lambda unit, _: self._row(unit))
        planes = _planes(x.shape)
        work = planes * (w.counts[0] * w.counts[1] * (w.places + 2))
        result = w.counts[0] * w.counts[1]
        level = slices(w.counts[0], [(x, w.sizes[0] * w.sizes[1])], [(o, result) for o in self.results()])
        return b.function(prefix, planes * w.counts[0], 1, work, [level])

    def _row(self, unit: Val) -> list[Val]:
        b, w = self.b, self.w
        plane, row = b.split(unit, w.counts[0])
        start = b.sub(b.mul(row, w.stride[0]), w.padding[0])
        source = b.at(self.x, self.kind, (plane, w.sizes[0] * w.sizes[1]), (start, w.sizes[1]), -w.padding[1])
        if self.total > 3:

            def vector(v: Val) -> list[Val]:
                self.vector(source, unit, start, b.mul(v, self.lanes), None)
                return []

            b.loop(const(0, "i64"), const(self.total - 1, "i64"), 1, lambda v, _: vector(v))
        else:
            for v in range(self.total - 1):
                self.vector(source, unit, start, const(v * self.lanes, "i64"), None)
        at = (self.total - 1) * self.lanes
        self.vector(source, unit, start, const(at, "i64"), w.counts[1] - at)
        return []

    def loads(self, source: str, start: Val, column: Val, left: int | None) -> list[tuple[int, Val, Val | None]]:
        """For every place of the windows from `column` on its offset in the plane, the elements there, and which of
        them are inside (None: all). `left` is how many windows are left, None if more than one vector."""
        b, w, kind, lanes = self.b, self.w, self.kind, self.lanes
        found: list[tuple[int, Val, Val | None]] = []
        wide: dict[int, str] = {}
        step = w.stride[1]
        for i in range(w.kernel[0]):
            for j in range(w.kernel[1]):
                offset = i * w.dilation[0] * w.sizes[1] + j * w.dilation[1]
                line = b.at(source, kind, (column, step), offset)
                valid = [left is None or n < left for n in range(lanes)]
                if not w.inside:
                    row = b.add(start, i * w.dilation[0])
                    first = b.add(b.mul(column, step), j * w.dilation[1] - w.padding[1])
                    columns = b.add(b.splat(first, lanes), b.iota("i64", lanes, step))
                    # Unsigned comparisons refuse negative places too.
                    mask = b.logic("and", b.compare("ult", columns, w.sizes[1]), b.compare("ult", row, w.sizes[0]))
                    limits = b.lane_mask(valid)
                    if limits is not None:
                        mask = b.logic("and", mask, limits)
                    found.append((offset, b.gather(line, b.iota("i64", lanes, step), kind, mask), mask))
                elif step == 1:
                    found.append((offset, b.load(line, kind, lanes, b.lane_mask(valid)), None))
                elif step == 2:
                    odd = j * w.dilation[1] % 2
                    base = offset - odd
                    if base not in wide:
                        end = w.sizes[1] - (j * w.dilation[1] - odd) - 2 * (w.counts[1] - (left or 0))
                        on = [left is None or (n // 2 < left and n < end) for n in range(2 * lanes)]
                        wide[base] = b.load(b.at(line, kind, -odd), kind, 2 * lanes, b.lane_mask(on)).text
                    found.append((offset, b.every_other(wide[base], kind, lanes, odd), None))
                else:
                    found.append((offset, b.gather(line, b.iota("i64", lanes, step), kind, b.lane_mask(valid)), None))
        return found

    def pointers(self) -> None:
        raise NotImplementedError

    def results(self) -> Sequence[Any]:
        raise NotImplementedError

    def vector(self, source: str, unit: Val, start: Val, column: Val, left: int | None) -> None:
        raise NotImplementedError

    def place(self, pointer: str, kind: str, unit: Val, column: Val) -> str:
        """Where the result of a row's windows from `column` on belongs."""
        return self.b.at(pointer, kind, (unit, self.w.counts[1]), column)

    def stored(self, left: int | None) -> Val | None:
        return self.b.lane_mask([left is None or n < left for n in range(self.lanes)])


# -- the maximum ------------------------------------------------------------------------------------------------------


class _Maximum(_Rows):
    def __init__(self, windows: Windows, outputs: tuple[Any, ...], kind: str, target: Target) -> None:
        super().__init__(windows, kind, target)
        self.outputs = outputs

    def results(self) -> Sequence[Any]:
        return self.outputs

    def pointers(self) -> None:
        values, indices = self.outputs
        self.values = None if values is None else self.b.pointer(values, self.kind)
        self.indices = None if indices is None else self.b.pointer(indices, "i64")

    def vector(self, source: str, unit: Val, start: Val, column: Val, left: int | None) -> None:
        b, w, kind, lanes = self.b, self.w, self.kind, self.lanes
        best = b.zero(kind, lanes)
        chosen = const(0, "i32", lanes)
        started: Val | None = None
        for n, (offset, value, mask) in enumerate(self.loads(source, start, column, left)):
            here = const(offset, "i32", lanes)
            if n == 0:
                best, chosen, started = value, here, mask
                continue
            # A NaN is the maximum, the last one where there are several: as PyTorch has it.
            better = b.logic("or", b.compare("ogt", value, best), b.is_nan(value))
            if mask is not None and started is not None:
                # The first place inside the plane counts whatever its value.
                better = b.logic("and", mask, b.logic("or", better, b.logic("xor", started, const(True, "i1", lanes))))
                started = b.logic("or", started, mask)
            best, chosen = b.select(better, value, best), b.select(better, here, chosen)
        keep = self.stored(left)
        if self.values is not None:
            b.store(best, self.place(self.values, kind, unit, column), keep)
        if self.indices is not None:
            first = b.add(b.mul(start, w.sizes[1]), b.sub(b.mul(column, w.stride[1]), w.padding[1]))
            along = b.add(b.splat(first, lanes), b.iota("i64", lanes, w.stride[1]))
            index = b.add(along, b.convert("sext", chosen, "i64"))
            b.store(index, self.place(self.indices, "i64", unit, column), keep)


@emitter("max_pool2d_with_indices")
def max_pool2d(call: ExternCall, target: Target) -> Function | None:
    """The maxima and their positions in the plane."""
    x, kernel, stride, padding, dilation, _ = call.args
    some = next((o for o in call.outputs if o is not None), None)
    windows = None if some is None else _windows(x, some.shape[-2:], kernel, stride, padding, dilation)
    if windows is None:
        return None
    return _Maximum(windows, call.outputs, FLOATS[x.buffer.dtype], target).run(x, "pool")


@emitter("max_pool2d_backward")
def max_pool2d_backward(call: ExternCall, target: Target) -> Function | None:
    """Cotangents put back at the positions of the maxima; a unit is one plane. Sizes may be symbolic."""
    g, indices, _, overlapping = call.args[:4]
    out = call.outputs[0]
    if out is None or not _row_major(g) or not _row_major(indices) or g.buffer.dtype not in FLOATS or len(g.shape) < 3:
        return None
    kind = FLOATS[g.buffer.dtype]
    counts, sizes = g.shape[-2] * g.shape[-1], out.shape[-2] * out.shape[-1]
    b = CallBuilder(target)
    given, places, result = b.pointer(g, kind), b.pointer(indices, "i64"), b.pointer(out, kind)
    count, size = b.size(counts), b.size(sizes)

    def plane(unit: Val) -> list[Val]:
        first = b.mul(unit, count)
        source, where = b.at(given, kind, first), b.at(places, "i64", first)
        to = b.at(result, kind, b.mul(unit, size))
        b.clear(to, size, kind)

        def one(i: Val) -> list[Val]:
            index = b.load(b.at(where, "i64", i), "i64")

            def put() -> None:
                value, at = b.load(b.at(source, kind, i), kind), b.at(to, kind, index)
                b.store(b.add(b.load(at, kind), value) if overlapping else value, at)

            b.when(b.compare("ult", index, size), put)
            return []

        b.loop(const(0, "i64"), count, 1, lambda i, _: one(i))
        return []

    b.loop(b.low, b.high, 1, lambda unit, _: plane(unit))
    planes = _planes(g.shape)
    level = slices(1, [(g, counts), (indices, counts)], [(out, sizes)])
    return b.function("poolg", planes, 1, planes * (4 * counts + sizes // 8), [level])


# -- the mean ---------------------------------------------------------------------------------------------------------


def _extent(b: CallBuilder, first: Val, axis: int, windows: Windows, include: bool, size: Val | None = None) -> Val:
    """How many places of windows that start at `first` count along an axis; `first` may be a vector. `size` is the
    plane's, where it is known only at run time."""
    kernel, padding = windows.kernel[axis], windows.padding[axis]
    limit = const(windows.sizes[axis], "i64") if size is None else size

    def smaller(a: Val, limit: Val) -> Val:
        return b.select(b.compare("slt", a, limit), a, limit)

    if include:
        return b.sub(smaller(b.add(first, kernel), b.add(limit, padding)), first)
    zero = const(0, "i64", first.lanes)
    return b.sub(smaller(b.add(first, kernel), limit), b.select(b.compare("sgt", first, 0), first, zero))


class _Mean(_Rows):
    def __init__(self, windows: Windows, y: Any, include: bool, divisor: int | None, kind: str, target: Target) -> None:
        super().__init__(windows, kind, target)
        self.y, self.include, self.divisor = y, include, divisor

    def results(self) -> Sequence[Any]:
        return (self.y,)

    def pointers(self) -> None:
        self.result = self.b.pointer(self.y, self.kind)

    def vector(self, source: str, unit: Val, start: Val, column: Val, left: int | None) -> None:
        b, w, kind, lanes = self.b, self.w, self.kind, self.lanes
        total: Val | None = None
        for _, value, _ in self.loads(source, start, column, left):  # what is outside reads as zero
            total = value if total is None else b.add(total, value)
        assert total is not None
        if self.divisor is not None or w.inside:
            by = const(self.divisor or w.places, kind, lanes)
        else:
            first = b.sub(b.mul(column, w.stride[1]), w.padding[1])
            columns = b.add(b.splat(first, lanes), b.iota("i64", lanes, w.stride[1]))
            count = b.mul(_extent(b, columns, 1, w, self.include), _extent(b, start, 0, w, self.include))
            by = b.convert("sitofp", count, kind)
        b.store(b.div(total, by), self.place(self.result, kind, unit, column), self.stored(left))


@emitter("avg_pool2d")
def avg_pool2d(call: ExternCall, target: Target) -> Function | None:
    """The mean of every window."""
    x, kernel, stride, padding, _, include, divisor = call.args
    y = call.outputs[0]
    windows = None if y is None else _windows(x, y.shape[-2:], kernel, stride, padding, (1, 1), float("inf"))
    if windows is None or not (divisor is None or type(divisor) is int):
        return None
    if windows.places > UNROLLED:
        return _large_means(windows, x, y, include, divisor, target)
    return _Mean(windows, y, include, divisor, FLOATS[x.buffer.dtype], target).run(x, "mean")


def _large_means(w: Windows, x: View, y: Any, include: bool, divisor: int | None, target: Target) -> Function:
    """Means of windows of many places: vectors run along the window's rows. A unit is one row of one plane's result."""
    kind = FLOATS[x.buffer.dtype]
    b, lanes = CallBuilder(target), target.lanes(kind)
    given, result = b.pointer(x, kind), b.pointer(y, kind)
    zero = const(0, "i64")

    def window(source: str, unit: Val, above: Val, below: Val, rows: Val, j: Val) -> list[Val]:
        left = b.sub(b.mul(j, w.stride[1]), w.padding[1])
        before, behind = b.maximum(left, zero), b.minimum(b.add(left, w.kernel[1]), const(w.sizes[1], "i64"))

        def vector(row: Val, at: Val, total: Val) -> list[Val]:
            on = b.compare("slt", b.iota("i64", lanes), b.splat(b.sub(behind, at), lanes))
            return [b.add(total, b.load(b.at(source, kind, (row, w.sizes[1]), at), kind, lanes, on))]

        def line(row: Val, sums: list[Val]) -> list[Val]:
            return b.loop(before, behind, lanes, lambda at, s: vector(row, at, s[0]), sums)

        sums = b.loop(above, below, 1, line, [b.zero(kind, lanes)])
        (total,) = b.fold_lanes(sums, lambda p, q: [b.add(p[0], q[0])])
        places = b.mul(rows, _extent(b, left, 1, w, include))
        by = const(divisor, kind) if divisor else b.convert("sitofp", places, kind)
        b.store(b.div(total, by), b.at(result, kind, (unit, w.counts[1]), j))
        return []

    def row(unit: Val) -> list[Val]:
        plane, i = b.split(unit, w.counts[0])
        top = b.sub(b.mul(i, w.stride[0]), w.padding[0])
        above, below = b.maximum(top, zero), b.minimum(b.add(top, w.kernel[0]), const(w.sizes[0], "i64"))
        source, rows = b.at(given, kind, (plane, w.sizes[0] * w.sizes[1])), _extent(b, top, 0, w, include)
        end = const(w.counts[1], "i64")
        b.loop(zero, end, 1, lambda j, _: window(source, unit, above, below, rows, j))
        return []

    b.loop(b.low, b.high, 1, lambda unit, _: row(unit))
    planes = _planes(x.shape)
    level = slices(w.counts[0], [(x, w.sizes[0] * w.sizes[1])], [(y, w.counts[0] * w.counts[1])])
    work = planes * (w.counts[0] * w.counts[1] * (w.places // 4 + 8))
    return b.function("meanl", planes * w.counts[0], 1, work, [level])


@emitter("avg_pool2d_backward")
def avg_pool2d_backward(call: ExternCall, target: Target) -> Function | None:
    """Each window's cotangent shared among its elements; a unit is one plane. Sizes may be symbolic."""
    g, _, kernel, stride, padding, _, include, divisor = call.args
    out = call.outputs[0]
    if out is None or not _row_major(g) or g.buffer.dtype not in FLOATS or len(g.shape) < 3:
        return None
    if not static(*kernel, *stride, *padding) or not (divisor is None or type(divisor) is int):
        return None
    kind = FLOATS[g.buffer.dtype]
    sizes, counts = out.shape[-2:], g.shape[-2:]
    w = Windows(tuple(sizes), tuple(counts), kernel, stride, padding, (1, 1))
    b = CallBuilder(target)
    given, result = b.pointer(g, kind), b.pointer(out, kind)
    height, width, rows, columns = (b.size(s) for s in (*sizes, *counts))
    area, windows = b.mul(height, width), b.mul(rows, columns)
    zero = const(0, "i64")

    def limits(index: Val, axis: int, size: Val) -> tuple[Val, Val, Val]:
        """Where a window starts, and what of it lies in the plane."""
        first = b.sub(b.mul(index, stride[axis]), padding[axis])
        low = b.maximum(first, zero)
        return first, low, b.minimum(b.add(first, kernel[axis]), size)

    def window(source: str, to: str, i: Val, j: Val) -> list[Val]:
        top, above, below = limits(i, 0, height)
        left, before, behind = limits(j, 1, width)
        if divisor is not None:
            by = const(divisor, kind)
        else:
            places = b.mul(_extent(b, top, 0, w, include, height), _extent(b, left, 1, w, include, width))
            by = b.convert("sitofp", places, kind)
        share = b.div(b.load(b.at(source, kind, b.mul(i, columns), j), kind), by)

        def element(line: str, column: Val) -> list[Val]:
            at = b.at(line, kind, column)
            b.store(b.add(b.load(at, kind), share), at)
            return []

        def row(y: Val) -> list[Val]:
            line = b.at(to, kind, b.mul(y, width))
            b.loop(before, behind, 1, lambda column, _: element(line, column))
            return []

        b.loop(above, below, 1, lambda y, _: row(y))
        return []

    def plane(unit: Val) -> list[Val]:
        source, to = b.at(given, kind, b.mul(unit, windows)), b.at(result, kind, b.mul(unit, area))
        b.clear(to, area, kind)

        def row(i: Val) -> list[Val]:
            b.loop(zero, columns, 1, lambda j, _: window(source, to, i, j))
            return []

        b.loop(zero, rows, 1, lambda i, _: row(i))
        return []

    b.loop(b.low, b.high, 1, lambda unit, _: plane(unit))
    planes = _planes(g.shape)
    work = planes * (4 * counts[0] * counts[1] * w.places + sizes[0] * sizes[1] // 8)
    level = slices(1, [(g, counts[0] * counts[1])], [(out, sizes[0] * sizes[1])])
    return b.function("meang", planes, 1, work, [level])
