"""Native two-dimensional convolution and its two gradients: which of two forms, and the one with vectors along rows.

By rows (this file): for few channels. Forward and input gradient are one thing, a correlation of planes with taps: for
the input gradient the planes are the cotangent's, spread out by the stride, and the taps are read backwards. A tile of
output channels, rows and vectors along the row stays in registers while channels and taps go by; each weight is used by
all vectors of the tile, each vector by all channels. Padding, spreading and column strides are settled once, while a
band of rows is copied to the stack (strided columns part into one section a phase, so that every tap reads consecutive
elements). The weight gradient keeps channels x taps of partial sums in registers while rows and a few samples go by.

By channels (channels.py, weight_channels.py): for many channels, where rows fill no vectors or the weight no cache.

Which one a shape gets is a matter of estimated cycles (`time` of both): a core starts two multiply-adds or two loads a
cycle, and eight multiply-adds have to be under way. By rows, lanes behind a row's end are lost; by channels, lanes
behind the last channel, and the time it takes to transpose the tile for storing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphtorch.lowering.cpu.assembly import BITS, Val, const
from graphtorch.lowering.cpu.calls import FLOATS, CallBuilder, Target, contiguous, emitter, static
from graphtorch.lowering.cpu.channels import ByChannels, Correlation, copy_row, correlation_level
from graphtorch.lowering.cpu.function import Function
from graphtorch.lowering.cpu.launch import Native
from graphtorch.lowering.cpu.nest import estimate
from graphtorch.lowering.cpu.weight_channels import WeightByChannels
from graphtorch.lowering.cpu.winograd import Winograd
from graphtorch.lowering.kernel import Buffer, ExternCall, View

SCRATCH_BYTES = 256 << 10  # of the stack, for one band of padded rows: a part of the second-level cache
BLOCK_BYTES = 256 << 10  # of the operands of a weight gradient, for the samples that are gone through at a time
LARGEST_BODY = 700  # multiply-adds of straight-line code


@emitter("conv2d")
def conv2d(call: ExternCall, target: Target) -> Native | None:
    """y = conv2d(x, w, bias)."""
    x, w, bias, stride, padding, dilation, groups = call.args
    y = call.outputs[0]
    if y is None or not _covered(x, w, bias) or not static(*stride, *padding, *dilation, *w.shape, *y.shape[1:]):
        return None
    o, cg, kh, kw = w.shape
    which = Correlation(
        groups, cg, o // groups, x.shape[2:], y.shape[2:], (kh, kw), stride, dilation, (1, 1), padding,
        (cg * kh * kw, kh * kw, kw, 1), 0,
    )  # fmt: skip
    return _correlate(which, x, w, bias, y, target)


@emitter("conv2d_input_grad")
def conv2d_input_grad(call: ExternCall, target: Target) -> Native | None:
    """The input's cotangent from the result's and the weight."""
    g, w, _, stride, padding, dilation, groups = call.args
    x = call.outputs[0]
    if x is None or not _covered(g, w) or not static(*stride, *padding, *dilation, *w.shape, *x.shape[1:]):
        return None
    o, cg, kh, kw = w.shape
    before = (dilation[0] * (kh - 1) - padding[0], dilation[1] * (kw - 1) - padding[1])
    which = Correlation(
        groups, o // groups, cg, g.shape[2:], x.shape[2:], (kh, kw), (1, 1), dilation, stride, before,
        (kh * kw, cg * kh * kw, -kw, -1), kh * kw - 1,
    )  # fmt: skip
    return _correlate(which, g, w, None, x, target)


def _covered(*operands: Any) -> bool:
    given = [v for v in operands if v is not None]
    return all(contiguous(v) and v.buffer.dtype in FLOATS for v in given)


# -- the correlation --------------------------------------------------------------------------------------------------


def _tile(c: Correlation, vectors: int, registers: int) -> tuple[tuple[int, int], float]:
    """(channels, rows) of the register tile with the least estimated time, and that time for all rows and channels;
    each of its vectors is `vectors` wide."""
    best, least = (1, 1), float("inf")
    for channels in range(1, min(c.out, 16) + 1):
        for rows in range(1, min(c.result[0], 8) + 1):
            # In registers are the sums, the fewer of factors and vectors, and one of the others.
            held = channels * rows * vectors + min(channels, rows * vectors) + 1
            if held > registers - 2 and (channels, rows) != (1, 1):
                continue
            if channels * rows * vectors * c.kernel[1] > LARGEST_BODY:
                continue
            time = 0.0
            for m, count_m in ((channels, c.out // channels), (c.out % channels, 1)):
                for r, count_r in ((rows, c.result[0] // rows), (c.result[0] % rows, 1)):
                    if m and r:
                        # Two multiply-adds or two loads a cycle; a sum can't go on before its last addition is done.
                        each = max(m * r * vectors / 2, (m + 1.5 * r * vectors) / 2, 4)
                        time += count_m * count_r * (each * c.kernel[1] + 4)
            if time < least:
                best, least = (channels, rows), time
    return best, least


def _correlate(
    c: Correlation, x: View, w: View, bias: View | None, y: Buffer, target: Target
) -> Native | None:
    if not static(*c.sizes) or 0 in (c.groups, c.into, c.out, *c.result, *c.sizes, *c.kernel):
        return None
    kind = FLOATS[x.buffer.dtype]
    by_rows, by_channels = _Correlate(c, kind, y.shape[0], target), ByChannels(c, kind, y.shape[0], target)
    forms = [form for form in (by_rows, by_channels, Winograd(c, kind, y.shape[0], target)) if form.fits]
    return min(forms, key=lambda form: form.time).run(x, w, bias, y) if forms else None


class _Correlate:
    """Writes one correlation. A unit of work is a band of rows of one group of one sample."""

    def __init__(self, c: Correlation, kind: str, samples: Any, target: Target) -> None:
        self.c, self.kind, self.samples, self.target = c, kind, samples, target
        self.lanes = target.lanes(kind)
        rows, columns = c.result
        total = -(-columns // self.lanes)
        groups = -(-total // 3)
        self.vectors = -(-total // groups)  # of a tile along the row
        self.full = (total - 1) // self.vectors  # tiles of full vectors; the last has the rest
        self.tail = columns - self.full * self.vectors * self.lanes  # columns of the last tile
        (self.channels, self.rows), time = _tile(c, self.vectors, target.registers)
        self.time = c.groups * c.into * c.kernel[0] * groups * time  # estimated cycles of one sample
        # Bands: rows that fit the scratch memory, and enough of them for all threads.
        self.section = total * self.lanes + -(-(c.kernel[1] - 1) * c.dilation[1] // c.step[1])
        self.pitch = self.section * c.step[1]
        reach = (c.kernel[0] - 1) * c.dilation[0] + 1
        band = rows
        if not c.in_place:
            room = SCRATCH_BYTES // (BITS[kind] // 8) // (self.pitch * c.into)
            band = min(rows, (room - reach) // c.step[0] + 1)
        self.fits = band > 0
        units = estimate(samples) * c.groups
        wanted = max(1, -(-4 * target.threads // max(units, 1)))
        band = min(band, -(-rows // wanted)) if c.in_place else band
        if self.rows < band < rows:
            band -= band % self.rows
        self.rows = max(min(self.rows, band), 1)
        self.band = band
        self.height = (band - 1) * c.step[0] + reach
        self.bands = -(-rows // band) if band > 0 else 0

    def run(self, x: View, w: View, bias: View | None, y: Buffer) -> Function:
        b = self.b = CallBuilder(self.target)
        c, kind = self.c, self.kind
        self.x, self.w = b.pointer(x, kind), b.pointer(w, kind)
        self.bias = None if bias is None else b.pointer(bias, kind)
        self.y = b.pointer(y, kind)
        if not c.in_place:
            self.padded = b.scratch(c.into * self.height * self.pitch, kind)
            if self.bands == 1:  # the border stays as it is
                b.clear(self.padded, c.into * self.height * self.pitch, kind)
        b.loop(b.low, b.high, 1, lambda unit, _: self._unit(unit))
        work = self.samples * (c.groups * c.into * c.out * c.result[0] * c.result[1] * c.kernel[0] * c.kernel[1] // 2)
        level = correlation_level(c, c.groups * self.bands, 1, x, (w, bias), y)
        return b.function("conv", self.samples * (c.groups * self.bands), 1, work, [level])

    def _unit(self, unit: Val) -> list[Val]:
        b, c = self.b, self.c
        outer, band = b.split(unit, self.bands)
        self.n, self.g = b.split(outer, c.groups)
        first = b.mul(band, self.band)
        planes = c.sizes[0] * c.sizes[1]
        source = b.at(self.x, self.kind, (self.n, c.groups * c.into * planes), (self.g, c.into * planes))
        if not c.in_place:
            self._pad(source, first)
        end = b.minimum(b.add(first, self.band), const(c.result[0], "i64"))
        rest = c.result[0] % self.rows  # rows that the last band has beyond whole tiles
        whole = b.add(first, b.mul(b.divide(b.sub(end, first), self.rows), self.rows)) if rest else end
        b.loop(first, whole, self.rows, lambda row, _: self._row(source, first, row, self.rows))
        if rest:
            b.loop(whole, end, rest, lambda row, _: self._row(source, first, row, rest))
        return []

    def _pad(self, source: str, first: Val) -> None:
        """Copy the source rows that a band sees, with zeros around and between them."""
        b, c, kind = self.b, self.c, self.kind
        if self.bands > 1:
            b.clear(self.padded, c.into * self.height * self.pitch, kind)
        base = b.sub(b.mul(first, c.step[0]), c.before[0])
        spread, step, before = c.spread, c.step[1], c.before[1]

        def source_row(padded_row: Val) -> Val:
            """The first source row at or after a row of the padded plane."""
            return b.divide(b.add(b.maximum(padded_row, const(0, "i64")), spread[0] - 1), spread[0])

        low = source_row(base)
        high = b.minimum(source_row(b.add(base, self.height)), const(c.sizes[0], "i64"))
        seen = (c.result[1] - 1) * step + (c.kernel[1] - 1) * c.dilation[1] + 1  # columns of the padded plane
        left = max(0, -(before // spread[1]))
        right = max(left, min(c.sizes[1], -((before - seen) // spread[1])))

        def one_row(channel: Val, row: Val) -> list[Val]:
            at = b.sub(b.mul(row, spread[0]), base)
            line = b.at(source, kind, (channel, c.sizes[0] * c.sizes[1]), (row, c.sizes[1]))
            to = b.at(self.padded, kind, (channel, self.height * self.pitch), (at, self.pitch))
            if step == 1 and spread[1] == 1:
                copy_row(b, kind, self.lanes, b.at(line, kind, left), b.at(to, kind, left + before), right - left)
                return []

            if spread[1] == 1:
                for phase in range(step):
                    start = left + (phase - before - left) % step
                    into = b.at(to, kind, phase * self.section + (start + before) // step)
                    self._gathered(b.at(line, kind, start), into, -(-(right - start) // step), step)
            elif step == 1:
                self._spread_out(b.at(line, kind, left), b.at(to, kind, left * spread[1] + before), right - left)
            return []

        def copy_channel(channel: Val) -> list[Val]:
            b.loop(low, high, 1, lambda row, _: one_row(channel, row))
            return []

        b.loop(const(0, "i64"), const(c.into, "i64"), 1, lambda channel, _: copy_channel(channel))

    def _vectors(self, count: int, body: Callable[[Any, int], None]) -> None:
        """`body(first element, how many)` of vectors along `count` elements."""
        whole = count - count % self.lanes

        def vector(at: Val) -> list[Val]:
            body(at, self.lanes)
            return []

        if whole > 0:
            self.b.loop(const(0, "i64"), const(whole, "i64"), self.lanes, lambda at, _: vector(at))
        if count > whole:
            body(max(whole, 0), count - max(whole, 0))

    def _gathered(self, source: str, to: str, count: int, step: int) -> None:
        """Copy every `step`-th element."""
        b, kind, lanes = self.b, self.kind, self.lanes

        def vector(at: Any, there: int) -> None:
            here, mask = b.at(source, kind, (at, step)), b.lane_mask([i < there for i in range(lanes)])
            if step == 2 and there == lanes:
                # The last pair's second element may lie behind the plane.
                wide = b.load(here, kind, 2 * lanes, b.lane_mask([i < 2 * lanes - 1 for i in range(2 * lanes)]))
                value = b.every_other(wide.text, kind, lanes, 0)
            else:
                value = b.gather(here, b.iota("i64", lanes, step), kind, mask)
            b.store(value, b.at(to, kind, (at, 1)), mask)

        self._vectors(count, vector)

    def _spread_out(self, source: str, to: str, count: int) -> None:
        """Copy to every `spread`-th element, between which there are zeros."""
        b, kind, lanes, spread = self.b, self.kind, self.lanes, self.c.spread[1]

        def vector(at: Any, there: int) -> None:
            mask = b.lane_mask([i < there for i in range(lanes)])
            value = b.load(b.at(source, kind, (at, 1)), kind, lanes, mask)
            into = b.at(to, kind, (at, spread))
            if spread == 2:
                picks = ", ".join(f"i32 {i // 2 if i % 2 == 0 else lanes}" for i in range(2 * lanes))
                zero = f"{value.type} zeroinitializer"
                text = f"shufflevector {value.typed}, {zero}, <{2 * lanes} x i32> <{picks}>"
                b.store(
                    b.emit(text, kind, 2 * lanes), into, b.lane_mask([i < 2 * there - 1 for i in range(2 * lanes)])
                )
            else:
                b.scatter(value, into, b.iota("i64", lanes, spread), mask)

        self._vectors(count, vector)

    def _row(self, source: str, first: Val, row: Val, rows: int) -> list[Val]:
        """`rows` rows of the result from `row` on: every column tile, every tile of channels."""
        b, c = self.b, self.c
        width = self.vectors * self.lanes

        def column(at: Val, columns: int) -> list[Val]:
            whole = c.out - c.out % self.channels
            b.loop(
                const(0, "i64"), const(whole, "i64"), self.channels,
                lambda o, _: self._block(source, first, row, rows, at, columns, o, self.channels),
            )  # fmt: skip
            if whole < c.out:
                self._block(source, first, row, rows, at, columns, const(whole, "i64"), c.out - whole)
            return []

        if self.full == 1:
            column(const(0, "i64"), width)
        elif self.full:
            b.loop(const(0, "i64"), const(self.full * width, "i64"), width, lambda at, _: column(at, width))
        column(const(self.full * width, "i64"), self.tail)
        return []

    def _block(
        self, source: str, first: Val, row: Val, rows: int, column: Val, columns: int, o: Val, channels: int
    ) -> list[Val]:
        """One register tile."""
        b, c, kind, lanes = self.b, self.c, self.kind, self.lanes
        vectors = -(-columns // lanes)
        mask = b.lane_mask([i < columns - (vectors - 1) * lanes for i in range(lanes)])
        if c.in_place:
            pitch, plane = c.sizes[1], c.sizes[0] * c.sizes[1]
            base = b.at(source, kind, (row, c.step[0] * pitch), column)
        else:
            pitch, plane = self.pitch, self.height * self.pitch
            base = b.at(self.padded, kind, (b.sub(row, first), c.step[0] * pitch), column)
        along, across, down, right = c.strides
        group = c.into * c.out * c.kernel[0] * c.kernel[1]
        weights = b.at(self.w, kind, (self.g, group), (o, along), c.base)
        start: list[Val] = []
        for m in range(channels):
            value = b.zero(kind, lanes)
            if self.bias is not None:
                value = b.splat(b.load(b.at(self.bias, kind, (self.g, c.out), o, m), kind), lanes)
            start += [value] * (rows * vectors)

        def taps(channel: Val, kh: Val, sums: list[Val]) -> list[Val]:
            line = b.at(base, kind, (channel, plane), (kh, c.dilation[0] * pitch))
            weight = b.at(weights, kind, (channel, across), (kh, down))
            sums = list(sums)
            for kw in range(c.kernel[1]):
                place = kw * c.dilation[1]
                place = place % c.step[1] * self.section + place // c.step[1]

                def value(i: int, place: int = place) -> Val:
                    r, v = divmod(i, vectors)
                    here = b.at(line, kind, r * c.step[0] * pitch + place + v * lanes)
                    return b.load(here, kind, lanes, mask if c.in_place and v == vectors - 1 else None)

                def factor(m: int, offset: int = kw * right) -> Val:
                    return b.splat(b.load(b.at(weight, kind, m * along + offset), kind), lanes)

                count = rows * vectors
                if channels < count:  # the fewer stay in registers, the others come one by one
                    factors = [factor(m) for m in range(channels)]
                    for i in range(count):
                        x = value(i)
                        for m in range(channels):
                            sums[m * count + i] = b.fma(factors[m], x, sums[m * count + i])
                else:
                    values = [value(i) for i in range(count)]
                    for m in range(channels):
                        w = factor(m)
                        for i in range(count):
                            sums[m * count + i] = b.fma(w, values[i], sums[m * count + i])
            return sums

        def rows_of_taps(channel: Val, sums: list[Val]) -> list[Val]:
            if c.kernel[0] == 1:
                return taps(channel, const(0, "i64"), sums)
            return b.loop(const(0, "i64"), const(c.kernel[0], "i64"), 1, lambda kh, s: taps(channel, kh, s), sums)

        sums = b.loop(const(0, "i64"), const(c.into, "i64"), 1, rows_of_taps, start)
        plane = c.result[0] * c.result[1]
        to = b.at(self.y, kind, (self.n, c.groups * c.out * plane), (self.g, c.out * plane), (o, plane))
        to = b.at(to, kind, (row, c.result[1]), column)
        for m in range(channels):
            for r in range(rows):
                for v in range(vectors):
                    place_mask = mask if v == vectors - 1 else None
                    value = sums[(m * rows + r) * vectors + v]
                    b.store(value, b.at(to, kind, m * plane + r * c.result[1] + v * lanes), place_mask)
        return []


# -- the weight gradient ----------------------------------------------------------------------------------------------


@emitter("conv2d_weight_grad")
def conv2d_weight_grad(call: ExternCall, target: Target) -> Native | None:
    """The weight's cotangent from the input and the result's cotangent."""
    x, g, _, stride, padding, dilation, groups = call.args
    w = call.outputs[0]
    if w is None or not _covered(x, g) or not static(*stride, *padding, *dilation, *w.shape, *g.shape[1:]):
        return None
    if not static(*x.shape[1:]) or 0 in (*w.shape, *g.shape[1:], *x.shape[1:], groups):
        return None
    how, kind = (stride, padding, dilation, groups), FLOATS[x.buffer.dtype]
    by_rows, by_channels = _WeightGradient(x, g, w, how, target), WeightByChannels(x, g, w, how, kind, target)
    if by_channels.fits and (not by_rows.fits or by_channels.time < by_rows.time):
        return by_channels.run()
    return by_rows.run() if by_rows.fits else None


class _WeightGradient:
    """Writes one weight gradient. A unit of work is a row of taps of a few input channels, for all output channels."""

    def __init__(self, x: View, g: View, w: Buffer, how: tuple[Any, ...], target: Target) -> None:
        self.stride, self.padding, self.dilation, self.groups = how
        self.x_view, self.g_view, self.w_buffer, self.target = x, g, w, target
        self.kind = FLOATS[x.buffer.dtype]
        self.lanes = target.lanes(self.kind)
        self.samples = x.shape[0]
        self.height, self.width = x.shape[2:]
        self.rows, self.columns = g.shape[2:]
        o, self.into, self.kh, self.kw = w.shape
        self.out = o // self.groups
        # Channels times taps of sums, the inputs of all taps, and one vector of the cotangent are in registers.
        limit = target.registers - 2
        self.together = next((t for t in (4, 3, 2) if self.kw == 1 and self.into % t == 0), 1)
        taps = self.kw * self.together
        self.channels = max(min((limit - taps) // taps, self.out), 1)
        even = [t for t in range(self.channels, 0, -1) if self.out % t == 0]
        if even and 2 * even[0] > self.channels:
            self.channels = even[0]
        self.fits = taps <= limit - 1
        self.total = -(-self.columns // self.lanes)
        # Vectors [interior) are full, and all their taps lie in the plane.
        fine = [v for v in range(self.total) if all(self._whole(v, kw) for kw in range(self.kw))]
        self.interior = (fine[0], fine[-1] + 1) if fine else (0, 0)
        if self.interior[1] - self.interior[0] <= 2:
            self.interior = (0, 0)
        edges = self.total - (self.interior[1] - self.interior[0])
        # Estimated cycles of one sample: two multiply-adds or two loads at a time, each masked load counting twice.
        loads = (self.channels + taps) * (1 + edges / self.total)
        if self.stride[1] == 2:
            loads *= 2  # two registers a load, and the shuffles that part them
        each = max(taps * self.channels, loads, 8) / 2 * self.total
        tiles = self.groups * (self.into // self.together) * self.kh * -(-self.out // self.channels)
        self.time = tiles * self.rows * (each + 4)
        self.fits = self.fits and edges * taps * self.channels <= 2 * LARGEST_BODY

    def _mask(self, v: int, kw: int) -> list[bool] | bool:
        """Which lanes of a vector along the row have a tap in the plane; True for all."""
        on = []
        for i in range(v * self.lanes, (v + 1) * self.lanes):
            at = i * self.stride[1] + kw * self.dilation[1] - self.padding[1]
            on.append(i < self.columns and 0 <= at < self.width)
        return True if all(on) else on

    def _pair_mask(self, v: int, first: int) -> list[bool]:
        """For stride 2: which elements of the 2 * lanes from the tap column `first` on are in the plane and of use."""
        start = 2 * v * self.lanes + first - self.padding[1]
        return [
            v * self.lanes + i // 2 < self.columns and 0 <= start + i < self.width for i in range(2 * self.lanes)
        ]

    def _whole(self, v: int, kw: int) -> bool:
        """Whether all that is loaded for a tap of a vector may be loaded without a mask."""
        if self.stride[1] == 2:
            at = kw * self.dilation[1]
            return all(self._pair_mask(v, at - at % 2))
        return self._mask(v, kw) is True

    def run(self) -> Function:
        b = self.b = CallBuilder(self.target)
        kind = self.kind
        self.x, self.g = b.pointer(self.x_view, kind), b.pointer(self.g_view, kind)
        self.w = b.pointer(self.w_buffer, kind)
        samples = b.size(self.samples)
        each = self.groups * (self.into * self.height * self.width + self.out * self.rows * self.columns)
        block = max(BLOCK_BYTES // (each * BITS[kind] // 8), 1)

        def samples_from(start: Val) -> list[Val]:
            stop = b.minimum(b.add(start, block), samples)
            b.loop(b.low, b.high, 1, lambda unit, _: self._unit(unit, start, stop))
            return []

        b.loop(const(0, "i64"), b.maximum(samples, const(1, "i64")), block, lambda start, _: samples_from(start))
        units = self.groups * (self.into // self.together) * self.kh
        work = self.samples * (self.groups * self.into * self.out * self.rows * self.columns * self.kh * self.kw // 2)
        # Each chunk goes through all samples once, so there are few.
        return b.function("convw", units, -(-units // (2 * self.target.threads)), work)

    def _unit(self, unit: Val, start: Val, stop: Val) -> list[Val]:
        b = self.b
        rest, kh = b.split(unit, self.kh)
        group, at = b.split(rest, self.into // self.together)
        channel = b.mul(at, self.together)
        whole = self.out - self.out % self.channels
        b.loop(
            const(0, "i64"), const(whole, "i64"), self.channels,
            lambda o, _: self._block(group, channel, kh, start, stop, o, self.channels),
        )  # fmt: skip
        if whole < self.out:
            self._block(group, channel, kh, start, stop, const(whole, "i64"), self.out - whole)
        return []

    def _block(self, group: Val, channel: Val, kh: Val, start: Val, stop: Val, o: Val, channels: int) -> list[Val]:
        b, kind, lanes = self.b, self.kind, self.lanes
        plane, grad_plane = self.height * self.width, self.rows * self.columns
        x = b.at(self.x, kind, (group, self.into * plane), (channel, plane), -self.padding[1])
        g = b.at(self.g, kind, (group, self.out * grad_plane), (o, grad_plane))
        # Rows of the result whose tap lies in the plane.
        shift = b.sub(b.mul(kh, self.dilation[0]), self.padding[0])
        zero = const(0, "i64")
        first = b.divide(b.add(b.maximum(b.sub(zero, shift), zero), self.stride[0] - 1), self.stride[0])
        reach = b.maximum(b.sub(const(self.height - 1 + self.stride[0], "i64"), shift), zero)
        last = b.minimum(b.divide(reach, self.stride[0]), const(self.rows, "i64"))
        count = channels * self.kw * self.together

        def vector(line: str, grad: str, v: Any, sums: list[Val], interior: bool) -> list[Val]:
            values: list[Val] = []
            for c in range(self.together):
                wide: dict[int, str] = {}
                values += [self._tap(line, v, kw, c * plane, wide, interior) for kw in range(self.kw)]
            on = [interior or v * lanes + i < self.columns for i in range(lanes)]
            sums = list(sums)
            for m in range(channels):
                along = b.load(b.at(grad, kind, (v, lanes), m * grad_plane), kind, lanes, b.lane_mask(on))
                for i, value in enumerate(values):
                    at = m * len(values) + i
                    sums[at] = b.fma(along, value, sums[at])
            return sums

        def row(n: Val, y: Val, sums: list[Val]) -> list[Val]:
            source = b.add(b.mul(y, self.stride[0]), shift)
            line = b.at(x, kind, (n, self.groups * self.into * plane), (source, self.width))
            grad = b.at(g, kind, (n, self.groups * self.out * grad_plane), (y, self.columns))
            low, high = self.interior
            for v in range(self.total):
                if not low <= v < high:
                    sums = vector(line, grad, v, sums, False)
            if low < high:
                sums = b.loop(
                    const(low, "i64"), const(high, "i64"), 1, lambda v, s: vector(line, grad, v, s, True), sums
                )
            return sums

        def sample(n: Val, sums: list[Val]) -> list[Val]:
            return b.loop(first, last, 1, lambda y, s: row(n, y, s), sums)

        sums = b.loop(start, stop, 1, sample, [b.zero(kind, lanes)] * count)
        fresh = b.compare("eq", start, zero)
        taps = self.kh * self.kw
        to = b.at(
            self.w, kind, (group, self.out * self.into * taps), (o, self.into * taps), (channel, taps), (kh, self.kw)
        )
        for m in range(channels):
            for c in range(self.together):
                for kw in range(self.kw):
                    at = (m * self.together + c) * self.kw + kw
                    (total,) = b.fold_lanes([sums[at]], lambda p, q: [b.add(p[0], q[0])])
                    place = b.at(to, kind, m * self.into * taps + c * taps + kw)
                    b.store(b.add(total, b.select(fresh, const(0.0, kind), b.load(place, kind))), place)
        return []

    def _tap(self, line: str, v: Any, kw: int, offset: int, wide: dict[int, str], interior: bool) -> Val:
        """What a tap of a vector along the row sees; zero outside the plane. With stride 2 two taps share a load."""
        b, kind, lanes, stride = self.b, self.kind, self.lanes, self.stride[1]
        column = kw * self.dilation[1]
        odd = column % 2 if stride == 2 else 0
        here = b.at(line, kind, (v, lanes * stride), offset + column - odd)
        if stride == 2:
            if column - odd not in wide:
                mask = None if interior else b.lane_mask(self._pair_mask(v, column - odd))
                wide[column - odd] = b.load(here, kind, 2 * lanes, mask).text
            return b.every_other(wide[column - odd], kind, lanes, odd)
        on = True if interior else self._mask(v, kw)
        mask = None if isinstance(on, bool) else b.lane_mask(on)
        if stride == 1:
            return b.load(here, kind, lanes, mask)
        return b.gather(here, b.iota("i64", lanes, stride), kind, mask)
