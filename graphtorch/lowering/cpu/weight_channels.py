"""The weight gradient of a convolution with vectors along the result's channels: for many channels, whatever the
planes' size.

    dw[o, i, kh, kw] = sum over samples and pixels of g[n, o, y, x] * x[n, i, y * stride + kh * dilation - padding, ...]

The cotangent of a few samples is packed so that a pixel's channels are vectors; a register tile holds a few source
channels' taps times a block of those vectors, and each pixel adds one broadcast source element a tap. Sums wait in
packed form while samples go by, block by block, and are transposed into the weight's order in the end. A tile belongs
to one thread, so the order of additions does not depend on how many there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from graphtorch.lowering.cpu.assembly import BITS, Val, const
from graphtorch.lowering.cpu.calls import CallBuilder, Target
from graphtorch.lowering.cpu.channels import (
    LARGEST_BODY,
    LATENCY,
    SCRATCH_BYTES,
    PaddedPlanes,
    pad_planes,
    scratch,
    transpose,
)
from graphtorch.lowering.cpu.function import Function
from graphtorch.lowering.cpu.nest import estimate
from graphtorch.lowering.kernel import Buffer, View


@dataclass(frozen=True)
class Taps:
    """A register tile: `channels` source channels times `rows` kernel rows, times `vectors` of result channels."""

    channels: int
    rows: int
    vectors: int


def choose_taps(into: int, out: int, kernel: tuple[int, int], lanes: int, registers: int) -> tuple[Taps, float]:
    """The tile with the least estimated time, and that time for a pixel."""
    total = -(-out // lanes)
    best, least = Taps(1, 1, 1), float("inf")
    for vectors in range(1, min(total, 4) + 1):
        blocks = [(v, n) for v, n in ((vectors, total // vectors), (total % vectors, 1)) if v and n]
        limit = registers * 3 // 4 // vectors
        for rows in {1, kernel[0]}:
            for channels in range(1, max(limit // (rows * kernel[1]), 1) + 1 if rows == kernel[0] else 2):
                if channels > into or (channels * rows * kernel[1] > limit and (channels, rows) != (1, 1)):
                    continue
                time = 0.0
                for c, n in ((channels, into // channels), (into % channels, 1)):
                    taps = c * rows * kernel[1]
                    if c:
                        each = sum(m * max(taps * v, taps + v, LATENCY) for v, m in blocks)
                        time += n * (kernel[0] // rows) * each / 2
                time *= 1.0 + (0.02 if into % channels else 0.0) + 0.02 * len(blocks)
                if time < least:
                    best, least = Taps(channels, rows, vectors), time
    return best, least


class WeightByChannels:
    """Writes one weight gradient. A unit of work is one register tile; see Taps.

    time    estimated cycles of one sample
    """

    def __init__(self, x: View, g: View, w: Buffer, how: tuple[Any, ...], kind: str, target: Target) -> None:
        self.stride, self.padding, self.dilation, self.groups = how
        self.x_view, self.g_view, self.w_buffer, self.kind, self.target = x, g, w, kind, target
        self.lanes = target.lanes(kind)
        self.samples = x.shape[0]
        self.sizes = x.shape[2], x.shape[3]
        self.rows, self.columns = g.shape[2:]
        o, self.into, self.kh, self.kw = w.shape
        self.out = o // self.groups
        self.tile, time = choose_taps(self.into, self.out, (self.kh, self.kw), self.lanes, target.registers)
        positions = self.tile.channels * self.tile.rows * self.kw
        self.fits = positions * self.tile.vectors <= target.registers - 2
        self.total = -(-self.out // self.lanes)
        self.full, self.rest = divmod(self.total, self.tile.vectors)
        self.blocks = self.full + (1 if self.rest else 0)
        self.tiles = -(-self.into // self.tile.channels) * (self.kh // self.tile.rows)
        self.width = self.tile.vectors * self.lanes
        self.area = self.rows * self.columns
        reach = [(k - 1) * d + 1 for k, d in zip((self.kh, self.kw), self.dilation, strict=True)]
        seen = [(n - 1) * s + r for n, s, r in zip((self.rows, self.columns), self.stride, reach, strict=True)]
        inside = all(s <= n for s, n in zip(seen, self.sizes, strict=True))
        self.in_place = tuple(self.padding) == (0, 0) and inside
        self.pitch = self.sizes[1] if self.in_place else seen[1]
        # How many rows, or whole samples, are gone through at a time: they stay in the second-level cache.
        room = SCRATCH_BYTES // (BITS[kind] // 8)
        row = self.columns * self.width
        padded = 0 if self.in_place else self.into * self.pitch
        self.band = self.rows
        while self.band > 1 and self.band * row + self._height(self.band, reach[0]) * padded > room:
            self.band = -(-self.band // 2)
        self.height = self.sizes[0] if self.in_place else self._height(self.band, reach[0])
        each = self.band * row + self.height * padded
        self.fits = self.fits and each <= 2 * room
        self.bands = -(-self.rows // self.band)
        self.together = 1 if self.bands > 1 else max(1, min(room // each, estimate(self.samples)))
        copies = self.total * self.lanes + (0 if self.in_place else self.into) * self.stride[0] * self.stride[1]
        self.time = self.groups * self.area * (time + copies / 4)

    def _height(self, band: int, reach: int) -> int:
        height: int = (band - 1) * self.stride[0] + reach
        return height

    def run(self) -> Function | list[Function]:
        b = self.b = CallBuilder(self.target)
        kind = self.kind
        self.positions = self.tile.channels * self.tile.rows * self.kw
        count = self.groups * self.blocks * self.tiles * self.positions * self.width
        sums = scratch("sums", self.w_buffer.dtype, count)
        self.x, self.g = b.pointer(self.x_view, kind), b.pointer(self.g_view, kind)
        self.w, self.sums = b.pointer(self.w_buffer, kind), b.pointer(sums, kind)
        self.count = b.size(self.samples)
        self.packed = b.scratch(self.together * self.band * self.columns * self.width + self.lanes * self.width, kind)
        if not self.in_place:
            size = self.together * self.into * self.height * self.pitch
            self.padded = b.scratch(size, kind)
            if self.bands == 1:  # the border stays as it is
                b.clear(self.padded, size, kind)
        first = b.divide(b.low, self.tiles)
        last = b.divide(b.add(b.high, self.tiles - 1), self.tiles)
        b.loop(first, last, 1, lambda unit, _: self._block(unit))
        units = self.groups * self.blocks * self.tiles
        # A chunk packs what it reads, so there are few.
        grain = -(-units // (2 * self.target.threads))
        work = self.samples * max(int(self.time * 2), 1)
        return [b.function("convwc", units, grain, work)]

    def _block(self, unit: Val) -> list[Val]:
        """The tiles of one block of result channels that belong to the chunk."""
        b = self.b
        g, n = b.split(unit, self.blocks)
        start = b.mul(unit, self.tiles)
        low = b.maximum(b.sub(b.low, start), const(0, "i64"))
        high = b.minimum(b.sub(b.high, start), const(self.tiles, "i64"))
        ragged = self.out - (self.blocks - 1) * self.width  # channels of the last block
        if self.blocks > 1:
            if ragged == self.width:
                self._samples(g, n, low, high, self.tile.vectors, self.width)
                return []
            b.when(
                b.compare("ne", n, self.blocks - 1),
                lambda: self._samples(g, n, low, high, self.tile.vectors, self.width),
            )
            b.when(
                b.compare("eq", n, self.blocks - 1),
                lambda: self._samples(g, n, low, high, self.rest or self.tile.vectors, ragged),
            )
            return []
        self._samples(g, n, low, high, self.rest or self.tile.vectors, ragged)
        return []

    def _samples(self, g: Val, n: Val, low: Val, high: Val, vectors: int, there: int) -> None:
        """All samples, block by block; `there` of the result channels exist."""
        b, kind = self.b, self.kind
        zero = const(0, "i64")
        o = b.mul(n, self.width)
        x = b.at(self.x, kind, (g, self.into * self.sizes[0] * self.sizes[1]))
        cotangent = b.at(self.g, kind, (g, self.out * self.area), (o, self.area))
        to = b.at(self.sums, kind, (b.add(b.mul(g, self.blocks), n), self.tiles * self.positions * self.width))

        # Behind the source channels of the last tile.
        last = b.add(self._place(b.sub(high, 1))[0], self.tile.channels)
        last = b.minimum(last, const(self.into, "i64"))

        def band(start: Val, stop: Val, first: Val) -> list[Val]:
            end = b.minimum(b.add(first, self.band), const(self.rows, "i64"))
            count = b.sub(stop, start)
            between = self.groups * self.out * self.area
            source = b.at(cotangent, kind, (start, between), (first, self.columns))
            pixels = b.mul(b.sub(end, first), self.columns)
            b.loop(zero, count, 1, lambda s, _: self._pack(b.at(source, kind, (s, between)), s, pixels, vectors, there))
            each = self.groups * self.into * self.sizes[0] * self.sizes[1]
            planes = b.at(x, kind, (start, each))
            top = b.sub(b.mul(first, self.stride[0]), self.padding[0])
            if self.in_place:
                planes = b.at(planes, kind, (top, self.pitch))
            else:
                if self.bands > 1:
                    b.clear(self.padded, self.into * self.height * self.pitch, kind)
                pad_planes(
                    b, kind, self.lanes, planes, self.padded,
                    PaddedPlanes(
                        self.into, self.sizes, (self.height, self.pitch), -self.padding[1], self.groups * self.into
                    ),
                    top, count, (self._place(low)[0], last),
                )  # fmt: skip
                planes, each = self.padded, self.into * self.height * self.pitch
            fresh = b.logic("and", b.compare("eq", start, 0), b.compare("eq", first, 0))
            plane = self.height * self.pitch

            def tile(t: Val, channels: int) -> list[Val]:
                i, kh = self._place(t)
                here = b.at(planes, kind, (i, plane), (kh, self.dilation[0] * self.pitch))
                sums = b.at(to, kind, (t, self.positions * self.width))
                self._tile(here, each, sums, count, b.sub(end, first), fresh, channels, vectors)
                return []

            self._tiles(low, high, tile)
            return []

        def block(start: Val) -> list[Val]:
            stop = b.minimum(b.add(start, self.together), self.count)
            b.loop(zero, const(self.rows, "i64"), self.band, lambda first, _: band(start, stop, first))
            return []

        b.loop(zero, b.maximum(self.count, const(1, "i64")), self.together, lambda start, _: block(start))

        def finish(t: Val, channels: int) -> list[Val]:
            self._finish(b.at(to, kind, (t, self.positions * self.width)), g, o, t, channels, vectors, there)
            return []

        self._tiles(low, high, finish)

    def _place(self, t: Val) -> tuple[Val, Val]:
        """The first source channel and kernel row of a tile."""
        i, kh = self.b.split(t, self.kh // self.tile.rows)
        return self.b.mul(i, self.tile.channels), self.b.mul(kh, self.tile.rows)

    def _tiles(self, low: Val, high: Val, body: Any) -> None:
        """`body(tile, its source channels)` for each tile in [low, high); the last one may have fewer channels."""
        b = self.b
        ragged = self.into % self.tile.channels
        if not ragged:
            b.loop(low, high, 1, lambda t, _: body(t, self.tile.channels))
            return
        whole = b.minimum(high, const(self.tiles - 1, "i64"))
        if self.tiles > 1:
            b.loop(low, whole, 1, lambda t, _: body(t, self.tile.channels))
        b.loop(b.maximum(low, const(self.tiles - 1, "i64")), high, 1, lambda t, _: body(t, ragged))

    def _pack(self, source: str, sample: Val, pixels: Val, vectors: int, there: int) -> list[Val]:
        """Transpose a sample's cotangent: (channels, pixels) -> (pixels, vectors of channels)."""
        b, kind, lanes = self.b, self.kind, self.lanes
        width = vectors * lanes
        to = b.at(self.packed, kind, (sample, self.band * self.columns * width))

        def square(at: Val, v: Val, channels: int, mask: Val | None) -> None:
            here = b.at(source, kind, (v, lanes * self.area), at)
            rows = [b.load(b.at(here, kind, m * self.area), kind, lanes, mask) for m in range(channels)]
            rows += [b.zero(kind, lanes)] * (lanes - channels)
            for j, value in enumerate(transpose(b, rows, lanes)):
                b.store(value, b.at(to, kind, (at, width), (v, lanes), j * width))

        def vector(v: Val, channels: int) -> list[Val]:
            whole = b.mul(b.divide(pixels, lanes), lanes)

            def one(at: Val, mask: Val | None) -> list[Val]:
                square(at, v, channels, mask)
                return []

            b.loop(const(0, "i64"), whole, lanes, lambda at, _: one(at, None))
            left = b.splat(b.sub(pixels, whole), lanes)
            if self.columns % lanes:
                mask = b.compare("slt", b.iota("i64", lanes), left)
                b.loop(whole, pixels, lanes, lambda at, _: one(at, mask))
            return []

        full = there // lanes
        if full:
            b.loop(const(0, "i64"), const(full, "i64"), 1, lambda v, _: vector(v, lanes))
        if there % lanes:
            vector(const(full, "i64"), there % lanes)
        return []

    def _tile(
        self, x: str, each: int, sums: str, samples: Val, rows: Val, fresh: Val, channels: int, vectors: int
    ) -> None:
        """Add the block's samples to one tile."""
        b, kind, lanes = self.b, self.kind, self.lanes
        width, plane = vectors * lanes, self.height * self.pitch
        places = [
            i * plane + kh * self.dilation[0] * self.pitch + kw * self.dilation[1]
            for i in range(channels) for kh in range(self.tile.rows) for kw in range(self.kw)
        ]  # fmt: skip
        slots = [(p * vectors + v) * lanes for p in range(len(places)) for v in range(vectors)]
        zero = b.zero(kind, lanes)
        start = [b.select(fresh, zero, b.load(b.at(sums, kind, slot), kind, lanes)) for slot in slots]
        limit = max(LARGEST_BODY // len(slots), 1)
        unrolled = max(n for n in range(1, min(limit, 8) + 1) if self.columns % n == 0)

        def pixels(line: str, packed: str, column: Val, found: Sequence[Val]) -> list[Val]:
            here = b.at(line, kind, (column, self.stride[1]))
            there = b.at(packed, kind, (column, width))
            found = list(found)
            for u in range(unrolled):
                if u:
                    b.fence()
                factors = [b.load(b.at(there, kind, u * width + v * lanes), kind, lanes) for v in range(vectors)]
                for p, place in enumerate(places):
                    value = b.splat(b.load(b.at(here, kind, place + u * self.stride[1]), kind), lanes)
                    for v in range(vectors):
                        found[p * vectors + v] = b.fma(factors[v], value, found[p * vectors + v])
            return found

        def row(s: Val, y: Val, found: list[Val]) -> list[Val]:
            line = b.at(x, kind, (s, each), (y, self.stride[0] * self.pitch))
            packed = b.at(self.packed, kind, (s, self.band * self.columns * width), (y, self.columns * width))
            if unrolled == self.columns:
                return pixels(line, packed, const(0, "i64"), found)
            end = const(self.columns, "i64")
            return b.loop(const(0, "i64"), end, unrolled, lambda c, f: pixels(line, packed, c, f), found)

        def sample(s: Val, found: list[Val]) -> list[Val]:
            return b.loop(const(0, "i64"), rows, 1, lambda y, f: row(s, y, f), found)

        found = b.loop(const(0, "i64"), samples, 1, sample, start)
        for slot, value in zip(slots, found, strict=True):
            b.store(value, b.at(sums, kind, slot))

    def _finish(self, sums: str, g: Val, o: Val, t: Val, channels: int, vectors: int, there: int) -> None:
        """Write a tile into the weight: each result channel's taps are contiguous there."""
        b, kind, lanes = self.b, self.kind, self.lanes
        taps = self.kh * self.kw
        i, kh = self._place(t)
        count = channels * self.tile.rows * self.kw
        to = b.at(
            self.w, kind, (g, self.out * self.into * taps), (o, self.into * taps), (i, taps), (kh, self.kw)
        )
        for v in range(vectors):
            for start in range(0, count, lanes):
                held = min(lanes, count - start)
                rows = [b.load(b.at(sums, kind, ((start + p) * vectors + v) * lanes), kind, lanes) for p in range(held)]
                mask = b.lane_mask([p < held for p in range(lanes)])
                channels = min(lanes, there - v * lanes)
                for m, value in enumerate(transpose(b, rows, lanes, channels)[:channels]):
                    b.store(value, b.at(to, kind, (v * lanes + m) * self.into * taps + start), mask)
