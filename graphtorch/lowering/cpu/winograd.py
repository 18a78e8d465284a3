"""Native 3x3 convolution with stride 1 by Winograd's minimal filtering, F(4x4, 3x3): a quarter of the multiplications.

A tile of 4x4 results sees 6x6 source elements. Tile, weight and result are transformed so that the convolution becomes
36 products of matrices (result channels x source channels) @ (source channels x tiles), one a frequency (Winograd 1980;
Lavin and Gray 2016):

    Y = A^T [(G w G^T) * (B^T d B)] A

The interpolation points are 0, 3/4, -3/4, 3/2, -3/2 and infinity. With the usual 0, 1, -1, 2, -2 errors grow by several
times; with these they are about twice those of the direct sum in float32.

Everything runs with vectors along channels: a few tiles' elements are transposed, transformed, multiplied and
transformed back while they are in the cache. Infinities and NaNs spread over their tile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphtorch.lowering.cpu.assembly import BITS, Val, const
from graphtorch.lowering.cpu.calls import FLOATS, CallBuilder, Target
from graphtorch.lowering.cpu.channels import Correlation, choose_tile, correlation_level, scratch, transpose, void
from graphtorch.lowering.cpu.function import Function
from graphtorch.lowering.cpu.nest import estimate
from graphtorch.lowering.kernel import Buffer, View

OUT, SEEN = 4, 6  # results and source elements of a tile, along each axis
FREQUENCIES = SEEN * SEEN
P, Q = 0.75, 1.5  # the finite interpolation points beside 0, with both signs
CACHE = 512 << 10  # bytes of a core's second-level cache to plan with
SHARED = 12 << 20  # the same of the last level
LARGEST_SCRATCH = 3 << 20  # bytes of the stack


def transform_source(b: CallBuilder, d: Sequence[Val]) -> list[Val]:
    """B^T d for six elements."""
    p, q = P * P, Q * Q

    def without(high: Val, low: Val, factor: float) -> Val:
        return b.fma(low, const(-factor, low.kind, low.lanes), high)

    def outer(a: Val, middle: Val, c: Val) -> Val:
        return without(b.fma(a, const(p * q, a.kind, a.lanes), c), middle, p + q)

    def pair(even: Val, odd: Val, point: float) -> tuple[Val, Val]:
        return b.fma(odd, const(point, odd.kind, odd.lanes), even), without(even, odd, point)

    first = pair(without(d[4], d[2], q), without(d[3], d[1], q), P)
    second = pair(without(d[4], d[2], p), without(d[3], d[1], p), Q)
    return [outer(d[0], d[2], d[4]), *first, *second, outer(d[1], d[3], d[5])]


def transform_weight(b: CallBuilder, g: Sequence[Val]) -> list[Val]:
    """G g for three elements."""
    p, q = P * P, Q * Q

    def times(a: Val, factor: float) -> Val:
        return b.mul(a, const(factor, a.kind, a.lanes))

    def pair(point: float, scale: float) -> tuple[Val, Val]:
        even = b.fma(g[2], const(point * point / scale, g[2].kind, g[2].lanes), times(g[0], 1 / scale))
        odd = times(g[1], point / scale)
        return b.add(even, odd), b.sub(even, odd)

    return [times(g[0], 1 / (p * q)), *pair(P, 2 * p * (p - q)), *pair(Q, 2 * q * (q - p)), g[2]]


def transform_result(b: CallBuilder, m: Sequence[Val]) -> list[Val]:
    """A^T m for six elements."""

    def sum_of(x: Val, fx: float, y: Val, fy: float) -> Val:
        return b.fma(y, const(fy, y.kind, y.lanes), b.mul(x, const(fx, x.kind, x.lanes)))

    u, v, s, t = b.add(m[1], m[2]), b.sub(m[1], m[2]), b.add(m[3], m[4]), b.sub(m[3], m[4])
    last = b.fma(t, const(Q**3, t.kind, t.lanes), b.fma(v, const(P**3, v.kind, v.lanes), m[5]))
    return [b.add(m[0], b.add(u, s)), sum_of(v, P, t, Q), sum_of(u, P * P, s, Q * Q), last]


Transform = Callable[[CallBuilder, Sequence[Val]], list[Val]]


def both_axes(b: CallBuilder, transform: Transform, square: Sequence[Sequence[Val]]) -> list[list[Val]]:
    """A transform of the columns of a square, then of its rows."""
    columns = [transform(b, [row[j] for row in square]) for j in range(len(square[0]))]
    return [transform(b, [column[i] for column in columns]) for i in range(len(columns[0]))]


class Winograd:
    """Writes a correlation. A unit of work is a band of tile rows, or a few samples.

    time    estimated cycles of one sample; `fits` says whether the correlation is of this form
    """

    def __init__(self, c: Correlation, kind: str, samples: Any, target: Target) -> None:
        self.c, self.kind, self.samples, self.target = c, kind, samples, target
        self.lanes = lanes = target.lanes(kind)
        form = (c.kernel, c.step, c.dilation, c.spread) == ((3, 3), (1, 1), (1, 1), (1, 1))
        self.fits = form and c.groups == 1 and c.into >= lanes and c.out >= lanes and target.registers == 32
        if not self.fits:
            self.time = float("inf")
            return
        self.into, self.out = -(-c.into // lanes) * lanes, -(-c.out // lanes) * lanes  # whole vectors
        self.down, self.across = (-(-n // OUT) for n in c.result)
        bytes_ = BITS[kind] // 8
        weights = FREQUENCIES * c.into * self.out * bytes_
        each = FREQUENCIES * (self.into + self.out) * bytes_  # of a tile
        # Weights that come from far are used by more tiles.
        wanted = max(12, CACHE * 3 // 4 // each) if weights <= CACHE * 2 else 32
        most = min(wanted, LARGEST_SCRATCH // each)
        count = max(estimate(samples), 1)
        self.band = max(min(self.down, most // self.across), 1)
        self.together = max(1, min(most // (self.down * self.across), -(-count // target.threads)))
        if self.band < self.down:
            self.together = 1
            self.band = -(-self.down // -(-self.down // self.band))
        else:
            while self.band > 1 and -(-self.down // self.band) * count < 2 * target.threads:
                self.band = -(-self.band // 2)
            self.together = self.together if self.band == self.down else 1
        self.bands = -(-self.down // self.band)
        self.tiles = self.together * self.band * self.across
        self.fits = self.tiles * each <= LARGEST_SCRATCH
        self.tile, cycles = choose_tile(1, self.tiles, self.out, lanes, target.registers, 1)
        self.full, self.rest = divmod(self.out // lanes, self.tile.vectors)
        far = 32.0 if weights <= CACHE else 12.0 if weights <= SHARED else 4.0  # bytes a cycle
        unit = max(FREQUENCIES * c.into * cycles, weights / far)
        unit += self.tiles * (self.into * 200 + self.out * 200) / lanes
        if self.tiles * each > CACHE:
            unit += 2 * self.tiles * each / 12
        once = c.into * self.out / lanes * 150 + weights / 8
        self.time = unit * self.bands / self.together + once / count
        self.rows, self.pitch = self.band * OUT + 2, self.across * OUT + 2  # of padded planes
        # From one frequency to the next: an odd number of vectors, so that they share no set of a cache.
        self.step_v, self.step_m = ((self.tiles * n // lanes | 1) * lanes for n in (self.into, self.out))

    def run(self, x: View, w: View, bias: View | None, y: Buffer) -> list[Function]:
        """The functions: one transforms the weight, one correlates."""
        kind = self.kind
        weights = scratch("transformed", y.dtype, FREQUENCIES * self.c.into * self.out)
        b = self.b = CallBuilder(self.target)
        self.x, self.w, self.y = b.pointer(x, kind), b.pointer(weights, kind), b.pointer(y, kind)
        self.bias = None if bias is None else b.pointer(bias, kind)
        samples = b.size(self.samples)
        slack = self.tile.columns
        self.padded = b.scratch(self.together * self.rows * self.pitch * self.into, kind)
        if self.bands == 1:  # the border stays as it is
            b.clear(self.padded, self.together * self.rows * self.pitch * self.into, kind)
        self.v = b.scratch(FREQUENCIES * self.step_v + slack * self.into, kind)
        self.m = b.scratch(FREQUENCIES * self.step_m + slack * self.out, kind)
        self.found = b.scratch(OUT * max(self.lanes, OUT) * self.lanes, kind)
        b.loop(b.low, b.high, 1, lambda unit, _: self._unit(unit, samples))
        groups: Any = self.samples
        if self.together > 1:
            groups = (self.samples + (self.together - 1)) // self.together
        work = self.samples * max(int(self.time * 2), 1)
        level = correlation_level(self.c, self.bands, self.together, x, (w, bias), y)
        main = b.function("convf", groups * self.bands, 1, work, [level])
        return [self._transform_weights(w, weights), main]

    # -- weights -----------------------------------------------------------------------------------------------------

    def _transform_weights(self, w: View, to: Buffer) -> Function:
        """(G w G^T) as [frequency][block][source channel][vectors * lanes]; a unit is one vector of result channels."""
        kind, lanes, c = FLOATS[w.buffer.dtype], self.lanes, self.c
        b = CallBuilder(self.target)
        source, result = b.pointer(w, kind), b.pointer(to, kind)
        along, across, down, right = c.strides
        mask = b.lane_mask([i < 9 for i in range(lanes)])

        def channel(i: Val, at: str, into: str, width: int, there: int) -> list[Val]:
            here = b.at(at, kind, (i, across))
            found: list[Val] = []
            for start in range(0, 9, lanes):
                part = mask if lanes >= 9 else b.lane_mask([start + j < 9 for j in range(lanes)])
                rows = [b.load(b.at(here, kind, m * along + start), kind, lanes, part) for m in range(there)]
                rows += [b.zero(kind, lanes)] * (lanes - there)
                found += transpose(b, rows, lanes)
            square = [[found[c.base + kh * down + kw * right] for kw in range(3)] for kh in range(3)]
            for n, value in enumerate(v for row in both_axes(b, transform_weight, square) for v in row):
                b.store(value, b.at(into, kind, (i, width), n * c.into * self.out))
            return []

        def vector(n: Val, width: int, block: Val, v: Val, there: int) -> None:
            at = b.at(source, kind, (n, lanes * along))
            into = b.at(result, kind, (block, c.into * self.tile.vectors * lanes), (v, lanes))
            b.loop(const(0, "i64"), const(c.into, "i64"), 1, lambda i, _: channel(i, at, into, width, there))

        vectors, last, ragged = self.tile.vectors, self.out // lanes - 1, c.out % lanes or lanes
        rest = self.rest or vectors

        def unit(n: Val, _: Any) -> list[Val]:
            block, v = b.split(n, vectors)
            # Vectors of full blocks, of the narrower last one, and the last with fewer channels.
            ends = [(0, self.full * vectors, vectors), (self.full * vectors, last + 1, rest)]
            for low, high, width in ends:
                whole = min(high, last) if ragged < lanes else high
                for start, stop, there in ((low, whole, lanes), (whole, high, ragged)):
                    if start < stop:
                        inside = b.logic("and", b.compare("sge", n, start), b.compare("slt", n, stop))
                        b.when(
                            inside,
                            lambda width=width, there=there: vector(  # type: ignore[misc]
                                n, width * lanes, block, v, there
                            ),
                        )
            return []

        b.loop(b.low, b.high, 1, unit)
        return b.function("packf", self.out // lanes, 1, c.into * self.out // lanes * 300)

    # -- a unit ------------------------------------------------------------------------------------------------------

    def _unit(self, unit: Val, samples: Val) -> list[Val]:
        b, c, kind = self.b, self.c, self.kind
        zero = const(0, "i64")
        group, band = b.split(unit, self.bands)
        start = b.mul(group, self.together)
        count = b.sub(b.minimum(b.add(start, self.together), samples), start)
        first = b.mul(band, self.band)
        rows = b.sub(b.minimum(b.add(first, self.band), const(self.down, "i64")), first)
        source = b.at(self.x, kind, (start, c.into * c.sizes[0] * c.sizes[1]))
        result = b.at(self.y, kind, (start, c.out * c.result[0] * c.result[1]))
        if self.bands > 1:
            b.clear(self.padded, self.rows * self.pitch * self.into, kind)
        top = b.sub(b.mul(first, OUT), c.before[0])
        b.loop(zero, count, 1, lambda s, _: self._copy(s, source, top))

        def rows_of_tiles(body: Callable[[Val, Val, Val], None]) -> None:
            """`body(sample, row, index of the first tile)` of every row of tiles."""

            def row(s: Val, ty: Val) -> list[Val]:
                body(s, ty, b.mul(b.add(b.mul(s, self.band), ty), self.across))
                return []

            def sample(s: Val) -> list[Val]:
                b.loop(zero, rows, 1, lambda ty, _: row(s, ty))
                return []

            b.loop(zero, count, 1, lambda s, _: sample(s))

        rows_of_tiles(self._source_row)
        there = b.mul(b.mul(count, rows), self.across)
        b.loop(zero, const(FREQUENCIES, "i64"), 1, lambda f, _: self._product(f, there))
        rows_of_tiles(lambda s, ty, index: self._result_row(s, b.add(first, ty), index, result))
        return []

    def _copy(self, s: Val, source: str, top: Val) -> list[Val]:
        """A sample's rows that a band sees, with zeros around them, channels last."""
        b, c, kind, lanes = self.b, self.c, self.kind, self.lanes
        height, width = c.sizes
        area = height * width
        low = b.maximum(top, const(0, "i64"))
        high = b.minimum(b.add(top, self.rows), const(height, "i64"))
        left = max(-c.before[1], 0)
        right = min(width, self.pitch - c.before[1])
        planes = b.at(source, kind, (s, c.into * area))
        to = b.at(self.padded, kind, (s, self.rows * self.pitch * self.into))

        def square(line: str, into: str, column: Any, channels: int, pixels: int) -> list[Val]:
            mask = b.lane_mask([i < pixels for i in range(lanes)])
            at = b.at(line, kind, (column, 1))
            found = [b.load(b.at(at, kind, m * area), kind, lanes, mask) for m in range(channels)]
            found += [b.zero(kind, lanes)] * (lanes - channels)
            for j, value in enumerate(transpose(b, found, lanes, pixels)[:pixels]):
                b.store(value, b.at(into, kind, (column, self.into), (c.before[1] + j) * self.into))
            return []

        def vector(v: Val, y: Val, channels: int) -> list[Val]:
            line = b.at(planes, kind, (v, lanes * area), (y, width))
            into = b.at(to, kind, (b.sub(y, top), self.pitch * self.into), (v, lanes))
            whole = left + (right - left) // lanes * lanes
            if whole > left:
                b.loop(
                    const(left, "i64"), const(whole, "i64"), lanes,
                    lambda column, _: square(line, into, column, channels, lanes),
                )  # fmt: skip
            if right > whole:
                square(line, into, whole, channels, right - whole)
            return []

        def row(y: Val) -> list[Val]:
            full = c.into // lanes
            b.loop(const(0, "i64"), const(full, "i64"), 1, lambda v, _: vector(v, y, lanes))
            if c.into % lanes:
                vector(const(full, "i64"), y, c.into % lanes)
            return []

        b.loop(low, high, 1, lambda y, _: row(y))
        return []

    def _source_row(self, s: Val, ty: Val, index: Val) -> None:
        """B^T d B of a row of tiles, all channels."""
        b = self.b

        def tile(tx: Val) -> list[Val]:
            self._source_tile(s, ty, tx, b.add(index, tx))
            return []

        b.loop(const(0, "i64"), const(self.across, "i64"), 1, lambda tx, _: tile(tx))

    def _source_tile(self, s: Val, ty: Val, tx: Val, index: Val) -> None:
        b, kind, lanes = self.b, self.kind, self.lanes
        corner = b.at(
            self.padded, kind, (s, self.rows * self.pitch * self.into), (ty, OUT * self.pitch * self.into),
            (tx, OUT * self.into),
        )  # fmt: skip
        to = b.at(self.v, kind, (index, self.into))

        def vector(at: Val) -> list[Val]:
            here = b.at(corner, kind, at)
            square = [
                [b.load(b.at(here, kind, (i * self.pitch + j) * self.into), kind, lanes) for j in range(SEEN)]
                for i in range(SEEN)
            ]
            for n, value in enumerate(v for row in both_axes(b, transform_source, square) for v in row):
                b.store(value, b.at(to, kind, at, n * self.step_v))
            return []

        b.loop(const(0, "i64"), const(self.into, "i64"), lanes, lambda at, _: vector(at))

    def _product(self, f: Val, there: Val) -> list[Val]:
        """One frequency's matrix product, for the tiles that exist."""
        b, c, kind, lanes = self.b, self.c, self.kind, self.lanes
        weights = b.at(self.w, kind, (f, c.into * self.out))
        source = b.at(self.v, kind, (f, self.step_v))
        result = b.at(self.m, kind, (f, self.step_m))
        whole = self.tiles - self.tiles % self.tile.columns

        def block(n: Val, vectors: int) -> list[Val]:
            factors = b.at(weights, kind, (n, c.into * self.tile.vectors * lanes))
            into = b.at(result, kind, (n, self.tile.vectors * lanes))

            def group(t: Val, tiles: int) -> list[Val]:
                here = b.at(source, kind, (t, self.into))

                def step(i: Val, sums: Sequence[Val]) -> list[Val]:
                    packed = b.at(factors, kind, (i, vectors * lanes))
                    wide = [b.load(b.at(packed, kind, v * lanes), kind, lanes) for v in range(vectors)]
                    at = b.at(here, kind, i)
                    found = list(sums)
                    for n in range(tiles):
                        value = b.splat(b.load(b.at(at, kind, n * self.into), kind), lanes)
                        for v in range(vectors):
                            found[n * vectors + v] = b.fma(wide[v], value, found[n * vectors + v])
                    return found

                unrolled = next(n for n in (4, 2, 1) if c.into % n == 0)

                def steps(i: Val, sums: list[Val]) -> list[Val]:
                    for u in range(unrolled):
                        sums = step(b.add(i, u) if u else i, sums)
                    return sums

                zero = [b.zero(kind, lanes)] * (tiles * vectors)
                sums = b.loop(const(0, "i64"), const(c.into, "i64"), unrolled, steps, zero)
                to = b.at(into, kind, (t, self.out))
                for n in range(tiles):
                    for v in range(vectors):
                        b.store(sums[n * vectors + v], b.at(to, kind, n * self.out + v * lanes))
                return []

            if whole:
                end = b.minimum(there, const(whole, "i64"))
                b.loop(const(0, "i64"), end, self.tile.columns, lambda t, _: group(t, self.tile.columns))
            if self.tiles > whole:
                at = const(whole, "i64")
                b.when(b.compare("sgt", there, whole), lambda: void(group(at, self.tiles - whole)))
            return []

        if self.full:
            b.loop(const(0, "i64"), const(self.full, "i64"), 1, lambda n, _: block(n, self.tile.vectors))
        if self.rest:
            block(const(self.full, "i64"), self.rest)
        return []

    def _result_row(self, s: Val, ty: Val, index: Val, result: str) -> None:
        """A^T m A of a row of tiles, all channels, into the planes. Tiles go together whose rows fill a vector, so that
        whole cache lines are written."""
        b, c, kind, lanes = self.b, self.c, self.kind, self.lanes
        height, width = c.result
        area = height * width
        row = b.mul(ty, OUT)
        to = b.at(result, kind, (s, c.out * area), (row, width))
        inside = [b.compare("slt", b.add(row, i), height) for i in range(OUT)] if height % OUT else []
        together = max(lanes // OUT, 1)

        def group(tx: Val, tiles: int, columns: int) -> list[Val]:
            source = b.at(self.m, kind, (b.add(index, tx), self.out))
            into = b.at(to, kind, (tx, OUT))

            def vector(v: Val, channels: int) -> list[Val]:
                here = b.at(source, kind, (v, lanes))
                b.loop(const(0, "i64"), const(tiles, "i64"), 1, lambda n, _: self._back(here, n, v, channels))
                planes = b.at(into, kind, (v, lanes * area))
                for i in range(OUT):

                    def store(i: int = i) -> None:
                        for start in range(0, columns, lanes):
                            held = min(lanes, columns - start)
                            pixels = [
                                b.load(b.at(self.found, kind, (i * together * OUT + start + j) * lanes), kind, lanes)
                                for j in range(held)
                            ]
                            mask = b.lane_mask([j < held for j in range(lanes)])
                            for m, value in enumerate(transpose(b, pixels, lanes, channels)[:channels]):
                                b.store(value, b.at(planes, kind, m * area + i * width + start), mask)

                    if inside and i:
                        b.when(inside[i], store)
                    else:
                        store()
                return []

            full = c.out // lanes
            b.loop(const(0, "i64"), const(full, "i64"), 1, lambda v, _: vector(v, lanes))
            if c.out % lanes:
                vector(const(full, "i64"), c.out % lanes)
            return []

        whole = width // (together * OUT) * together
        if whole:
            b.loop(
                const(0, "i64"), const(whole, "i64"), together, lambda tx, _: group(tx, together, together * OUT)
            )  # fmt: skip
        if self.across > whole:
            group(const(whole, "i64"), self.across - whole, width - whole * OUT)

    def _back(self, source: str, n: Val, v: Val, channels: int) -> list[Val]:
        """A^T m A of one tile and vector of channels, kept as (row, column of the group, channel)."""
        b, kind, lanes = self.b, self.kind, self.lanes
        here = b.at(source, kind, (n, self.out))
        square = [
            [b.load(b.at(here, kind, (i * SEEN + j) * self.step_m), kind, lanes) for j in range(SEEN)]
            for i in range(SEEN)
        ]
        rows = both_axes(b, transform_result, square)
        if self.bias is not None:
            mask = b.lane_mask([i < channels for i in range(lanes)])
            shift = b.load(b.at(self.bias, kind, (v, lanes)), kind, lanes, mask)
            rows = [[b.add(value, shift) for value in line] for line in rows]
        to = b.at(self.found, kind, (n, OUT * lanes))
        for i, line in enumerate(rows):
            for j, value in enumerate(line):
                b.store(value, b.at(to, kind, (i * max(lanes // OUT, 1) * OUT + j) * lanes))
        return []
