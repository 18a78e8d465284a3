"""Native convolution with vectors along the result's channels: for many channels, whatever the planes' size.

The weight is packed once a call into blocks of a few vectors of result channels, one vector a (source channel, tap). A
register tile holds a box of pixels times a block of channels; for each source channel and tap it loads the block's
vectors, and multiplies them with one broadcast element a pixel. Pixels lie at constant distances in the source's plane,
so rows of any length, strides and dilation cost nothing, and nothing is unfolded ("direct convolution": Georganas et
al. 2018). The finished tile is transposed in registers, for pixels are contiguous in memory.

An input gradient is the same correlation of the cotangent's planes with the taps read backwards. With a stride, result
rows and columns part into phases, each of which sees its own taps only, so no zero is multiplied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from graphtorch.ir.graph import Value
from graphtorch.lowering.cpu.assembly import BITS, Val, const
from graphtorch.lowering.cpu.calls import FLOATS, CallBuilder, Target, slices
from graphtorch.lowering.cpu.expansion import SCRATCH
from graphtorch.lowering.cpu.function import Function, Level
from graphtorch.lowering.cpu.nest import estimate
from graphtorch.lowering.kernel import Buffer, View
from graphtorch.tensor.dtypes import dtype
from graphtorch.tensor.type import TensorType

SCRATCH_BYTES = 384 << 10  # of the stack, for padded planes: a part of the second-level cache
LARGEST_SCRATCH = 3 << 20  # of the stack, for rows that are too long for that
LARGEST_BODY = 400  # multiply-adds of straight-line code
LATENCY = 8  # multiply-adds that have to be under way at a time


def scratch(name: str, of: dtype, count: int) -> Buffer:
    """Memory of the arena that lives during one call."""
    return Buffer(name, of, (count,), SCRATCH, Value(TensorType(of, (count,)), name))


def void(_: object) -> None:
    """Drop a result."""


def transpose(b: CallBuilder, rows: Sequence[Val], lanes: int, wanted: int = 0) -> list[Val]:
    """A square of vectors transposed in registers, halving block by block; missing rows have any value. `wanted` is how
    many of the results are used, 0 for all."""
    kind = rows[0].kind
    if 0 < wanted <= lanes // 4:
        # LLVM takes seconds to simplify a network that most results fall out of.
        found = []
        for lane in range(wanted):
            value = Val("poison", kind, lanes)
            for j, row in enumerate(rows):
                element = b.emit(f"extractelement {row.typed}, i64 {lane}", kind)
                value = b.emit(f"insertelement {value.typed}, {element.typed}, i64 {j}", kind, lanes)
            found.append(value)
        return found
    current = [*rows, *[Val("poison", kind, lanes)] * (lanes - len(rows))]
    half = lanes // 2
    while half:
        low = ", ".join(f"i32 {j if not j & half else j - half + lanes}" for j in range(lanes))
        high = ", ".join(f"i32 {j + half if not j & half else j + lanes}" for j in range(lanes))
        following = list(current)
        for i in range(lanes):
            if i & half:
                continue
            p, q = current[i], current[i + half]
            if p.text == q.text == "poison":
                continue
            for to, picks in ((i, low), (i + half, high)):
                text = f"shufflevector {p.typed}, {q.typed}, <{lanes} x i32> <{picks}>"
                following[to] = b.emit(text, kind, lanes)
        current = following
        half //= 2
    return current


# -- what is correlated ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Correlation:
    """result[o, y, x] = sum(weight[o, i, kh, kw] * plane[i, y * step + kh * dilation, x * step + kw * dilation]) in
    each group, where the plane is the source with `before` zeros before it and `spread` - 1 between its elements.

    sizes       (height, width) of the source's planes; `result` those of the result's
    strides     of the weight: along result channel, source channel, kernel row, kernel column; `base` is its offset
    """

    groups: int
    into: int
    out: int
    sizes: tuple[int, int]
    result: tuple[int, int]
    kernel: tuple[int, int]
    step: tuple[int, int]
    dilation: tuple[int, int]
    spread: tuple[int, int]
    before: tuple[int, int]
    strides: tuple[int, int, int, int]
    base: int

    @property
    def in_place(self) -> bool:
        """Whether vectors can be read from the source itself."""
        pairs = zip(self.result, self.step, self.kernel, self.dilation, strict=True)
        reach = [(n - 1) * s + (k - 1) * d for n, s, k, d in pairs]
        return (
            self.step[1] == 1
            and self.spread == (1, 1)
            and self.before == (0, 0)
            and all(r < n for r, n in zip(reach, self.sizes, strict=True))
        )


def correlation_level(
    c: Correlation, units: int, together: int, x: View, weights: Sequence[View | None], y: Buffer
) -> Level | None:
    """What `units` units touch: those of so many samples together."""
    each = together * c.groups * c.into * c.sizes[0] * c.sizes[1]
    whole = [(w, 0) for w in weights if w is not None]
    result = together * c.groups * c.out * c.result[0] * c.result[1]
    return slices(units, [(x, each), *whole], [(y, result)])


@dataclass(frozen=True)
class Steps:
    """One axis of a phase: result `first + q * spacing` for q < count sees source `q * step + offset` through each tap
    (its index in the kernel, its offset)."""

    first: int
    spacing: int
    count: int
    step: int
    taps: tuple[tuple[int, int], ...]

    @property
    def stride(self) -> int:
        """How far apart the taps' offsets are."""
        return self.taps[1][1] - self.taps[0][1] if len(self.taps) > 1 else 0


def axis_steps(c: Correlation, axis: int) -> list[Steps]:
    """The phases of an axis."""
    spread, before, dilation, count = c.spread[axis], c.before[axis], c.dilation[axis], c.result[axis]
    if spread == 1:
        taps = tuple((k, k * dilation - before) for k in range(c.kernel[axis]))
        return [Steps(0, 1, count, c.step[axis], taps)]
    found: list[Steps] = []
    for phase in range(min(spread, count)):
        reach = [(k, phase + k * dilation - before) for k in range(c.kernel[axis])]
        taps = tuple((k, at // spread) for k, at in reach if at % spread == 0)
        found.append(Steps(phase, spread, -(-(count - phase) // spread), 1, taps))
    return found


@dataclass(frozen=True)
class Tile:
    """A register tile: rows x columns of pixels times `vectors` of channels."""

    rows: int
    columns: int
    vectors: int

    def pieces(self, rows: int, columns: int) -> list[tuple[int, int, int]]:
        """(rows, columns, how many) of the tiles that cover a plane."""
        found = []
        for r, m in ((self.rows, rows // self.rows), (rows % self.rows, 1)):
            for c, n in ((self.columns, columns // self.columns), (columns % self.columns, 1)):
                if r and c and m * n:
                    found.append((r, c, m * n))
        return found


def _cycles(pixels: int, vectors: int) -> float:
    """Of one source channel and tap: two multiply-adds or two loads at a time, or waiting for the last sums. Weights
    come from the second-level cache, which takes part of the time of a small tile."""
    return max(pixels * vectors, pixels + vectors, LATENCY) / 2 + 0.3 * vectors + 0.05 * pixels


def _plane_cycles(tile: Tile, blocks: Sequence[tuple[int, int]], rows: int, columns: int) -> float:
    """A source channel and tap of a whole plane; `blocks` are (vectors, how many)."""
    return sum(n * m * _cycles(r * c, v) for r, c, n in tile.pieces(rows, columns) for v, m in blocks)


def choose_tile(rows: int, columns: int, channels: int, lanes: int, registers: int, taps: int) -> tuple[Tile, float]:
    """The tile with the least estimated time, and that time for a source channel and tap."""
    total = -(-channels // lanes)
    best, least = Tile(1, 1, 1), float("inf")
    for vectors in range(1, min(total, 4) + 1):
        blocks = [(v, n) for v, n in ((vectors, total // vectors), (total % vectors, 1)) if v and n]
        limit = max(min(registers * 3 // 4, LARGEST_BODY // taps) // vectors, 1)  # more sums than that get spilled
        for height in range(1, min(rows, 8) + 1):
            for width in range(1, min(columns, limit // height) + 1):
                if height > 1 and width < min(columns, 4):
                    continue  # narrow pieces of rows are stored one by one
                tile = Tile(height, width, vectors)
                # Each form of tile is code to compile, and a tile takes a moment to start and to store.
                pieces = tile.pieces(rows, columns)
                time = _plane_cycles(tile, blocks, rows, columns) * (1 + 0.01 * len(pieces) * len(blocks))
                if time < least:
                    best, least = tile, time
    return best, least


# -- packing the weight ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Packing:
    """Where packed weights lie: [group][block][phase][source channel][tap][vectors * lanes].

    widths      vectors of each block of result channels: all alike but the last
    phases      the taps of each phase, as their offsets in the weight of one (result, source) channel pair
    """

    c: Correlation
    lanes: int
    vectors: int
    phases: tuple[tuple[int, ...], ...]

    @cached_property
    def total(self) -> int:
        return -(-self.c.out // self.lanes)

    @property
    def full(self) -> int:
        """Blocks of `vectors` vectors; the rest, if any, is one block more."""
        return self.total // self.vectors

    @property
    def rest(self) -> int:
        return self.total % self.vectors

    @property
    def taps(self) -> int:
        return sum(len(p) for p in self.phases)

    @property
    def block(self) -> int:
        """Elements of a full block."""
        return self.taps * self.c.into * self.vectors * self.lanes

    @property
    def group(self) -> int:
        return self.taps * self.c.into * self.total * self.lanes

    @property
    def count(self) -> int:
        return self.c.groups * self.group

    def write(self, w: View, packed: Buffer, target: Target) -> Function:
        """The function that packs. A unit is one block of one group, a vector of it at a time."""
        kind, lanes, c = FLOATS[w.buffer.dtype], self.lanes, self.c
        b = CallBuilder(target)
        source, to = b.pointer(w, kind), b.pointer(packed, kind)
        along, across, _, _ = c.strides
        natural = len(self.phases) == 1 and self.phases[0] == tuple(range(self.taps))

        def rows(at: str, there: int, count: int) -> list[Val]:
            """`count` elements of each channel of a vector, `there` channels being left."""
            mask = b.lane_mask([i < count for i in range(lanes)])
            return [b.load(b.at(at, kind, m * along), kind, lanes, mask) for m in range(there)]

        def vector(at: str, out: str, width: int, there: int) -> None:
            """One vector of channels: `there` of its lanes are channels."""
            if along == 1:
                mask = b.lane_mask([i < there for i in range(lanes)])

                def straight(i: Val, _: Any) -> list[Val]:
                    for n, offset in self._order():
                        value = b.load(b.at(at, kind, (i, across), offset), kind, lanes, mask)
                        b.store(value, b.at(out, kind, (i, len(self.phases[n[0]]) * width), self._place(n, width)))
                    return []

                b.loop(const(0, "i64"), const(c.into, "i64"), 1, straight)
                return
            if natural and across == self.taps:
                depth = c.into * self.taps
                whole = depth - depth % lanes

                def square(k: Any, count: int) -> list[Val]:
                    found = transpose(b, rows(b.at(at, kind, (k, 1)), there, count), lanes, count)[:count]
                    for j, value in enumerate(found):
                        b.store(value, b.at(out, kind, (k, width), j * width))
                    return []

                b.loop(const(0, "i64"), const(whole, "i64"), lanes, lambda k, _: square(k, lanes))
                if depth > whole:
                    square(whole, depth - whole)
                return

            size = c.kernel[0] * c.kernel[1]

            def channel(i: Val, _: Any) -> list[Val]:
                for start in range(0, size, lanes):
                    count = min(lanes, size - start)
                    found = transpose(b, rows(b.at(at, kind, (i, across), start), there, count), lanes, count)
                    for n, offset in self._order():
                        if start <= offset < start + count:
                            into = b.at(out, kind, (i, len(self.phases[n[0]]) * width), self._place(n, width))
                            b.store(found[offset - start], into)
                return []

            b.loop(const(0, "i64"), const(c.into, "i64"), 1, channel)

        weights = c.into * c.out * c.kernel[0] * c.kernel[1]

        def block(source: str, to: str, o: Any, width: int) -> None:
            """The vectors of one block, from channel o on."""
            sure = self.lanes * width if isinstance(o, Val) else min(self.lanes * width, c.out - o)
            full = sure // lanes
            if full:

                def one(v: Val, _: Any) -> list[Val]:
                    here = b.at(source, kind, (o, along), (v, lanes * along))
                    vector(here, b.at(to, kind, (v, lanes)), width * lanes, lanes)
                    return []

                b.loop(const(0, "i64"), const(full, "i64"), 1, one)
            if sure % lanes:
                here = b.at(source, kind, (o, along), full * lanes * along)
                vector(here, b.at(to, kind, full * lanes), width * lanes, sure % lanes)

        blocks = self.full + (1 if self.rest else 0)

        def unit(index: Val, _: Any) -> list[Val]:
            g, n = b.split(index, blocks)
            origin = b.at(source, kind, (g, weights))
            there = b.at(to, kind, (g, self.group), (n, self.block))
            last = blocks - 1
            # The last block may be narrower, or have lanes without a channel.
            ragged = bool(self.rest or c.out % lanes)
            if ragged:
                b.when(
                    b.compare("eq", n, last),
                    lambda: block(origin, there, last * self.vectors * lanes, self.rest or self.vectors),
                )
            if last or not ragged:
                o = b.mul(n, self.vectors * lanes)
                if ragged:
                    b.when(b.compare("ne", n, last), lambda: block(origin, there, o, self.vectors))
                else:
                    block(origin, there, o, self.vectors)
            return []

        b.loop(b.low, b.high, 1, unit)
        return b.function("pack", c.groups * blocks, 1, self.count // 2)

    def _order(self) -> list[tuple[tuple[int, int], int]]:
        """((phase, position in it), offset in the weight) of all taps."""
        return [((p, t), offset) for p, taps in enumerate(self.phases) for t, offset in enumerate(taps)]

    def _place(self, n: tuple[int, int], width: int) -> int:
        """Where a tap's vector of the first source channel lies in a block; `width` is the block's, in elements."""
        return (self.phase_start(n[0]) + n[1]) * width

    def phase_start(self, phase: int) -> int:
        """How many (source channel, tap) pairs lie before a phase."""
        return sum(len(p) for p in self.phases[:phase]) * self.c.into


# -- the correlation ---------------------------------------------------------------------------------------------------


class ByChannels:
    """Writes a correlation. A unit of work is a band of rows of one group of a few samples.

    time        estimated cycles of one sample
    """

    def __init__(self, c: Correlation, kind: str, samples: Any, target: Target) -> None:
        self.c, self.kind, self.samples, self.target = c, kind, samples, target
        self.lanes = target.lanes(kind)
        self.phases = [(rows, columns) for rows in axis_steps(c, 0) for columns in axis_steps(c, 1)]
        rows, columns = (max(p[a].count for p in self.phases) for a in (0, 1))
        across = max(len(p[1].taps) for p in self.phases)
        tile, _ = choose_tile(rows, columns, c.out, self.lanes, target.registers, max(across, 1))
        self.packing = Packing(
            c, self.lanes, tile.vectors, tuple(tuple(self._taps(*p)) for p in self.phases)
        )
        blocks = [(v, n) for v, n in ((tile.vectors, self.packing.full), (self.packing.rest, 1)) if v and n]
        self.time = c.groups * sum(
            _plane_cycles(tile, blocks, p[0].count, p[1].count) * c.into * len(p[0].taps) * len(p[1].taps)
            + p[0].count * p[1].count * self.packing.total * 4
            for p in self.phases
        )
        # What the phases see of the source.
        offsets = [[o for p in self.phases for _, o in p[a].taps] for a in (0, 1)]
        self.first = tuple(min(found, default=0) for found in offsets)
        self.reach = tuple(max(found, default=0) - min(found, default=0) + 1 for found in offsets)
        self.step = self.phases[0][0].step, self.phases[0][1].step
        ends = [low + reach + (n - 1) * s for low, reach, n, s in zip(
            self.first, self.reach, (rows, columns), self.step, strict=True)]
        self.in_place = min(self.first) >= 0 and ends[0] <= c.sizes[0] and ends[1] <= c.sizes[1]
        self.pitch = c.sizes[1] if self.in_place else (columns - 1) * self.step[1] + self.reach[1]
        self.rows, self.columns = rows, columns
        self._bands(tile)

    def _taps(self, rows: Steps, columns: Steps) -> list[int]:
        """The weight's offsets of a phase's taps."""
        c = self.c
        return [c.base + kh * c.strides[2] + kw * c.strides[3] for kh, _ in rows.taps for kw, _ in columns.taps]

    def _bands(self, tile: Tile) -> None:
        """Rows and samples of a unit: they fit the scratch memory, and there are enough units for all threads."""
        c = self.c
        bytes_ = BITS[self.kind] // 8
        room = SCRATCH_BYTES // bytes_ // (self.pitch * c.into)
        band = self.rows
        if not self.in_place:
            band = min(band, (room - self.reach[0]) // self.step[0] + 1)
        self.fits = band > 0 or self.reach[0] * self.pitch * c.into * bytes_ <= LARGEST_SCRATCH
        band = max(band, 1)
        samples = max(estimate(self.samples), 1)
        wanted = 4 * self.target.threads
        if samples * c.groups < wanted and self.in_place:
            band = min(band, -(-self.rows // -(-wanted // (samples * c.groups))))
        elif samples * c.groups < self.target.threads:
            band = min(band, -(-self.rows // -(-2 * self.target.threads // (samples * c.groups))))
        if tile.rows < band < self.rows:
            band -= band % tile.rows
        self.tile = Tile(min(tile.rows, band), tile.columns, tile.vectors)
        self.band = band
        self.bands = -(-self.rows // band)
        self.height = c.sizes[0] if self.in_place else (band - 1) * self.step[0] + self.reach[0]
        # Weights that fill the second-level cache are read once for several samples.
        self.together = 1
        if self.bands == 1 and self.packing.count * bytes_ > SCRATCH_BYTES:
            self.together = max(1, min(16, samples // wanted, room // self.height))
        units = -(-samples // self.together) * self.bands * c.groups
        self.parts = max(1, min(self.packing.full, -(-2 * self.target.threads // units))) if units < wanted // 2 else 1

    def run(self, x: View, w: View, bias: View | None, y: Buffer) -> list[Function]:
        """The functions: one packs the weight, one correlates."""
        c, kind = self.c, self.kind
        packed = scratch("packed", y.dtype, self.packing.count)
        b = self.b = CallBuilder(self.target)
        self.x, self.w, self.y = b.pointer(x, kind), b.pointer(packed, kind), b.pointer(y, kind)
        self.bias = None if bias is None else b.pointer(bias, kind)
        samples = b.size(self.samples)
        if not self.in_place:
            size = self.together * c.into * self.height * self.pitch
            self.padded = b.scratch(size, kind)
            if self.bands == 1:  # the border stays as it is
                b.clear(self.padded, size, kind)
        groups: Any = self.samples
        if self.together > 1:
            groups = (self.samples + (self.together - 1)) // self.together
        b.loop(b.low, b.high, 1, lambda unit, _: self._unit(unit, samples))
        work = self.samples * max(int(self.time * 2), 1)
        level = correlation_level(c, c.groups * self.bands * self.parts, self.together, x, (w, bias), y)
        main = b.function("convc", groups * (c.groups * self.bands * self.parts), 1, work, [level])
        return [self.packing.write(w, packed, self.target), main]

    def _unit(self, unit: Val, samples: Val) -> list[Val]:
        b, c, p = self.b, self.c, self.packing
        outer, part = b.split(unit, self.parts)
        outer, band = b.split(outer, self.bands)
        group, g = b.split(outer, c.groups)
        start = b.mul(group, self.together)
        stop = b.minimum(b.add(start, self.together), samples)
        first = b.mul(band, self.band)
        plane = c.sizes[0] * c.sizes[1]
        source = b.at(self.x, self.kind, (start, c.groups * c.into * plane), (g, c.into * plane))
        if self.in_place:
            origin = b.at(source, self.kind, (first, self.step[0] * self.pitch))
            each = c.groups * c.into * plane
        else:
            origin, each = self.padded, c.into * self.height * self.pitch
            self._pad(source, first, b.sub(stop, start))
        weights = b.at(self.w, self.kind, (g, p.group))

        def block(n: Val, vectors: int, there: int) -> list[Val]:
            packed = b.at(weights, self.kind, (n, p.block))
            o = b.mul(n, p.vectors * self.lanes)

            def sample(s: Val, _: Any) -> list[Val]:
                area = c.result[0] * c.result[1]
                result = b.at(self.y, self.kind, (s, c.groups * c.out * area), (g, c.out * area), (o, area))
                here = b.at(origin, self.kind, (b.sub(s, start), each))
                bias = None if self.bias is None else b.at(self.bias, self.kind, (g, c.out), o)
                for i in range(len(self.phases)):
                    self._phase(i, here, packed, result, bias, first, vectors, there)
                return []

            b.loop(start, stop, 1, sample)
            return []

        width = p.vectors * self.lanes
        ragged = c.out - (p.full * width if p.rest else (p.full - 1) * width)  # channels of the last block
        whole = p.full if p.rest or ragged == width else p.full - 1
        share = -(-whole // self.parts)
        low = b.mul(part, share)
        high = b.minimum(b.add(low, share), const(whole, "i64"))
        if whole:
            b.loop(low, high, 1, lambda n, _: block(n, p.vectors, width))
        if p.rest or ragged != width:

            def last() -> None:
                block(const(whole, "i64"), p.rest or p.vectors, ragged)

            if self.parts > 1:
                b.when(b.compare("eq", part, self.parts - 1), last)
            else:
                last()
        return []

    def _pad(self, source: str, first: Val, count: Val) -> None:
        """Copy the source rows that a band sees, with zeros around them."""
        b, c, kind = self.b, self.c, self.kind
        if self.bands > 1:
            b.clear(self.padded, c.into * self.height * self.pitch, kind)
        pad_planes(
            b, kind, self.lanes, source, self.padded,
            PaddedPlanes(c.into, c.sizes, (self.height, self.pitch), self.first[1], c.groups * c.into),
            b.add(b.mul(first, self.step[0]), self.first[0]), count,
        )  # fmt: skip

    def _phase(
        self, i: int, source: str, packed: str, result: str, bias: str | None, first: Val, vectors: int, there: int
    ) -> None:
        """A phase of a band of one sample, for one block of channels."""
        b, tile = self.b, self.tile
        rows, columns = self.phases[i]
        weights = b.at(packed, self.kind, self.packing.phase_start(i) * vectors * self.lanes)

        def columns_of(row: Val, height: int) -> list[Val]:
            def box(column: Val, width: int) -> list[Val]:
                self._box(i, source, weights, result, bias, first, row, column, (height, width), vectors, there)
                return []

            whole = columns.count - columns.count % tile.columns
            if whole:
                b.loop(const(0, "i64"), const(whole, "i64"), tile.columns, lambda at, _: box(at, tile.columns))
            if columns.count > whole:
                box(const(whole, "i64"), columns.count - whole)
            return []

        end = b.minimum(b.add(first, self.band), const(rows.count, "i64"))
        rests = {min(self.band, rows.count - at) % tile.rows for at in range(0, rows.count, self.band)} - {0}
        count = b.maximum(b.sub(end, first), const(0, "i64"))
        whole = b.add(first, b.mul(b.divide(count, tile.rows), tile.rows)) if rests else end
        if rows.count >= tile.rows:
            b.loop(first, whole, tile.rows, lambda row, _: columns_of(row, tile.rows))

        def rest_of(rest: int) -> None:
            here = b.compare("eq", b.sub(end, whole), rest)
            b.when(here, lambda: void(columns_of(whole, rest)))

        for rest in sorted(rests):
            rest_of(rest)

    def _box(
        self, phase: int, source: str, weights: str, result: str, bias: str | None, first: Val, row: Val, column: Val,
        box: tuple[int, int], vectors: int, there: int,
    ) -> None:  # fmt: skip
        """One register tile; `there` of its channels exist."""
        b, c, kind, lanes = self.b, self.c, self.kind, self.lanes
        rows, columns = self.phases[phase]
        height, width = box
        pixels = height * width
        start = [b.zero(kind, lanes)] * (pixels * vectors)
        if bias is not None:
            shifts = []
            for v in range(vectors):
                mask = b.lane_mask([v * lanes + i < there for i in range(lanes)])
                shifts.append(b.load(b.at(bias, kind, v * lanes), kind, lanes, mask))
            start = shifts * pixels
        sums = start
        if rows.taps and columns.taps:
            plane = self.height * self.pitch
            base = b.at(
                source, kind, (b.sub(row, first), self.step[0] * self.pitch), (column, self.step[1]),
                (rows.taps[0][1] - self.first[0]) * self.pitch,
            )  # fmt: skip
            if self.in_place:
                base = b.at(base, kind, self.first[0] * self.pitch)
            shift = 0 if self.in_place else self.first[1]
            across = len(columns.taps) * vectors * lanes

            def taps(channel: Val, kh: Val, sums: list[Val]) -> list[Val]:
                line = b.at(base, kind, (channel, plane), (kh, rows.stride * self.pitch))
                packed = b.at(weights, kind, (channel, len(rows.taps) * across), (kh, across))
                sums = list(sums)
                for n, (_, offset) in enumerate(columns.taps):
                    if n:
                        b.fence()  # taps of neighbouring pixels see the same elements
                    factors = [
                        b.load(b.at(packed, kind, (n * vectors + v) * lanes), kind, lanes) for v in range(vectors)
                    ]
                    for i in range(pixels):
                        y, x = divmod(i, width)
                        place = y * self.step[0] * self.pitch + x * self.step[1] + offset - shift
                        value = b.splat(b.load(b.at(line, kind, place), kind), lanes)
                        for v in range(vectors):
                            sums[i * vectors + v] = b.fma(factors[v], value, sums[i * vectors + v])
                return sums

            def channel(i: Val, sums: list[Val]) -> list[Val]:
                if len(rows.taps) == 1:
                    return taps(i, const(0, "i64"), sums)
                return b.loop(
                    const(0, "i64"), const(len(rows.taps), "i64"), 1, lambda kh, s: taps(i, kh, s), sums
                )

            sums = b.loop(const(0, "i64"), const(c.into, "i64"), 1, channel, start)
        y0 = b.add(b.mul(row, rows.spacing), rows.first)
        x0 = b.add(b.mul(column, columns.spacing), columns.first)
        to = b.at(result, kind, (y0, c.result[1]), x0)
        for v in range(vectors):
            channels = min(lanes, there - v * lanes)
            self._store(sums[v::vectors], b.at(to, kind, v * lanes * c.result[0] * c.result[1]), box, channels, phase)

    def _store(self, sums: Sequence[Val], to: str, box: tuple[int, int], channels: int, phase: int) -> None:
        """Write one vector of channels of a box of pixels, transposed."""
        b, c, lanes = self.b, self.c, self.lanes
        rows, columns = self.phases[phase]
        height, width = box
        area = c.result[0] * c.result[1]
        joined = columns.spacing == 1 and rows.spacing == 1 and (height == 1 or width == c.result[1])
        for start in range(0, height * width, lanes):
            count = min(lanes, height * width - start)
            lines = transpose(b, sums[start : start + count], lanes, channels)[:channels]
            for m, value in enumerate(lines):
                if joined:
                    mask = b.lane_mask([i < count for i in range(lanes)])
                    b.store(value, b.at(to, self.kind, m * area + start), mask)
                    continue
                for y in range(start // width, (start + count - 1) // width + 1):
                    self._store_row(value, b.at(to, self.kind, m * area + y * rows.spacing * c.result[1]),
                                    (start, count), y * width, width, columns.spacing)  # fmt: skip

    def _store_row(
        self, value: Val, to: str, held: tuple[int, int], first: int, width: int, spacing: int
    ) -> None:
        """The pixels [first, first + width) of those that a vector holds, `spacing` apart in memory."""
        b, lanes = self.b, self.lanes
        start, count = held
        low, high = max(first, start), min(first + width, start + count)
        if spacing == 1:
            mask = b.lane_mask([low <= start + i < high for i in range(lanes)])
            b.store(value, b.at(to, self.kind, start - first), mask)
            return
        for piece in range((low - first) * spacing // lanes, (high - 1 - first) * spacing // lanes + 1):
            picks, on = [], []
            for i in range(lanes):
                pixel, between = divmod(piece * lanes + i, spacing)
                inside = not between and low <= first + pixel < high
                on.append(inside)
                picks.append(f"i32 {first + pixel - start}" if inside else "i32 poison")
            text = f"shufflevector {value.typed}, {value.type} poison, <{lanes} x i32> <{', '.join(picks)}>"
            b.store(b.emit(text, self.kind, lanes), b.at(to, self.kind, piece * lanes), b.lane_mask(on))


@dataclass(frozen=True)
class PaddedPlanes:
    """Planes with zeros around them, in scratch memory.

    channels    how many planes a sample has; `between` of the source's lie from one sample to the next
    sizes       (height, width) of the source; `room` those of the copy
    left        the source's column that the copy's first column shows
    """

    channels: int
    sizes: tuple[int, int]
    room: tuple[int, int]
    left: int
    between: int


def pad_planes(
    b: CallBuilder, kind: str, lanes: int, source: str, to: str, planes: PaddedPlanes, top: Val, count: Val,
    channels: tuple[Val, Val] | None = None,
) -> None:  # fmt: skip
    """Copy `count` samples' planes into memory that is zero, from the source's row `top` on, which may be negative.
    `channels` is a range of them, if not all are needed."""
    height, pitch = planes.room
    low = b.maximum(top, const(0, "i64"))
    high = b.minimum(b.add(top, height), const(planes.sizes[0], "i64"))
    left, right = max(planes.left, 0), min(planes.left + pitch, planes.sizes[1])
    if left >= right:
        return
    area = planes.sizes[0] * planes.sizes[1]

    def row(y: Val, line: str, into: str) -> list[Val]:
        here = b.at(line, kind, (y, planes.sizes[1]), left)
        copy_row(b, kind, lanes, here, b.at(into, kind, (b.sub(y, top), pitch), left - planes.left), right - left)
        return []

    def channel(n: Val, i: Val) -> list[Val]:
        line = b.at(source, kind, (n, planes.between * area), (i, area))
        into = b.at(to, kind, (n, planes.channels * height * pitch), (i, height * pitch))
        b.loop(low, high, 1, lambda y, _: row(y, line, into))
        return []

    start, stop = channels or (const(0, "i64"), const(planes.channels, "i64"))

    def sample(n: Val) -> list[Val]:
        b.loop(start, stop, 1, lambda i, _: channel(n, i))
        return []

    b.loop(const(0, "i64"), count, 1, lambda n, _: sample(n))


def copy_row(b: CallBuilder, kind: str, lanes: int, source: str, to: str, count: int) -> None:
    """A row of known length."""
    whole = count - count % lanes

    def vector(at: Any, mask: Val | None) -> list[Val]:
        b.store(b.load(b.at(source, kind, (at, 1)), kind, lanes, mask), b.at(to, kind, (at, 1)), mask)
        return []

    if whole <= 4 * lanes:
        for at in range(0, whole, lanes):
            vector(at, None)
    else:
        b.loop(const(0, "i64"), const(whole, "i64"), lanes, lambda at, _: vector(at, None))
    if count > whole:
        vector(whole, b.lane_mask([i < count - whole for i in range(lanes)]))
