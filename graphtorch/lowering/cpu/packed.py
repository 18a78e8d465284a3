"""Large matrix products as generated code, C = A B by register tiles over packed operands.

    pack_a              A, where it is contiguous along its rows, into tiles of ROWS rows
    pack_b              B into panels of a few vectors of columns, each contiguous along k and padded with garbage
    product_by_rows     rows [low, high) of C. A chunk of rows meets all panels of B: nothing is packed twice, and what
                        follows on the same rows (a bias, an activation) finds them in cache
    product_by_panels   panels [low, high) of C. A thread packs a block of its panel on its stack, for all rows of A

Each computes tiles of ROWS rows by one panel's columns, for one block of k after another, and takes its sizes at run
time, so that a module holds it once whatever the shapes. The scheme is that of Goto and van de Geijn, "Anatomy of
High-Performance Matrix Multiplication" (2008), with B shared by the threads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

from graphtorch.lowering.cpu.assembly import BITS, SUFFIX, Builder, Val, const
from graphtorch.lowering.cpu.expansion import SCRATCH
from graphtorch.lowering.cpu.footprint import joined, span_of
from graphtorch.lowering.cpu.function import Function, Level, Span
from graphtorch.lowering.cpu.launch import Product
from graphtorch.lowering.kernel import Buffer
from graphtorch.schedule.indexing import estimate

ROWS = 6  # of a register tile: with four vectors of columns 24 accumulators, of 32 registers
REST = (4, 2, 1)  # tiles for what is left of the rows
CHUNK_ROWS = 48  # a chunk of rows is a multiple of
DEPTH = 256  # of a block of k: a panel's block stays in the second-level cache
HANDED_ON = 512 << 10  # bytes of rows of C that stay in cache for what follows
STRIP = 32  # of a block's depth, between which lines are asked for
CACHE_LINE = 64  # bytes; where lines are longer, some are asked for twice
SLACK = 16  # elements behind a tile of A, so that tiles do not all start in one set of the cache


def panel_vectors(registers: int) -> int:
    """Vectors of columns in a panel."""
    return 4 if registers == 32 else 2


def emit_packed(product: Product, lanes: int, registers: int, fma: bool) -> list[Function] | None:
    """The launches of a product; None where packing would not pay, or an operand has no unit stride."""
    a, b = product.operands
    known = (product.n, product.k, product.batch, *a.strides, *b.strides, a.offset, b.offset)
    if not all(type(s) is int for s in known):
        return None
    m, n, k = product.m, product.n, product.k
    if product.batch != 1 or n < lanes or k < 32 or (type(m) is int and m < 8 * ROWS):
        return None
    sn, sk, row, along = b.strides[-1], b.strides[-2], a.strides[-2], a.strides[-1]
    if (sn != 1 and sk != 1) or (along != 1 and (row != 1 or type(m) is not int)):
        return None
    vectors = panel_vectors(registers)
    width = vectors * lanes
    panels = -(-n // width)
    emitter = _emitter("float" if a.buffer.dtype.itemsize == 4 else "double", lanes, vectors, fma)
    # Fewer rows than columns: each thread takes panels, and reads the larger operand once.
    by_rows = estimate(m) >= n
    # A chunk meets all panels, whatever its rows: it should not be small.
    divisors = (r for r in (64, 48, 32, 24, 16, 12) if type(m) is int and m % r == 0 and r * n * 4 <= HANDED_ON)
    rows = next(divisors, 0) if by_rows else 0
    functions: list[Function] = []
    left, offset = a.buffer, a.offset
    reads: dict[Buffer, Span | None] = {b.buffer: None}  # whole, before the rows
    added = int(product.accumulate)  # a block of k that seems to have come before the first
    group = tile = 0
    if along != 1:
        group, tile = rows or CHUNK_ROWS, k * ROWS + SLACK
        groups, tiles = -(-m // group), -(-group // ROWS)
        left = Buffer("packed_a", a.buffer.dtype, (groups * tiles * tile,), SCRATCH, a.buffer.value)
        functions.append(emitter.pack_a([a.buffer, left], [a.offset, m, k, along, tile, group], groups, m * k))
        reads[a.buffer] = None
        row, along, offset = 1, ROWS, 0
    sizes, work = [offset, n, k, row, along], m * n * k // lanes * 2
    if not by_rows:
        buffers = [left, b.buffer, product.output]
        sizes += [m, b.offset, sn, sk, tile or row * ROWS, added]
        return [*functions, emitter.product_by_panels(buffers, sizes, panels, work)]
    packed_b = Buffer("packed_b", b.buffer.dtype, (panels * k * width,), SCRATCH, b.buffer.value)
    functions.append(emitter.pack_b([b.buffer, packed_b], [b.offset, n, k, sn, sk], panels, n * k))
    buffers = [left, packed_b, product.output]
    function = emitter.product_by_rows(buffers, [*sizes, panels, tile, group, added], m, group or CHUNK_ROWS, work)
    if rows:
        if not tile:
            moving = span_of(offset, [(row * rows, 0)], [(row, rows), (along, k)])
            reads = joined([*reads.items(), (left, moving)])
        if added:
            reads[product.output] = Span(n * rows, 0, n * rows)
        function.levels = [Level(rows, reads, {product.output: Span(n * rows, 0, n * rows)})]
    functions.append(function)
    return functions


class Ahead(NamedTuple):
    """A block of B that is needed next: 2**lines cache lines side by side, the next ones `stride` elements behind."""

    start: str
    stride: Val
    lines: int


class _Text(NamedTuple):
    """A function without what it is called with."""

    name: str
    text: str
    declarations: set[str]
    helpers: set[tuple[str, str, int]]


class _Emitter:
    """Writes the functions for one element kind and register width, each once."""

    def __init__(self, kind: str, lanes: int, vectors: int, fma: bool) -> None:
        self.kind = kind
        self.lanes = lanes
        self.vectors = vectors
        self.width = vectors * lanes
        self.fma = fma
        self._texts: dict[tuple[str, bool], _Text] = {}

    def _function(
        self,
        write: Callable[[bool], Builder],
        flag: bool,
        buffers: list[Buffer],
        sizes: list[Any],
        extent: Any,
        grain: int,
        work: Any,
    ) -> Function:
        """What `write` gives with a flag, as a launch."""
        key = (write.__name__, flag)
        if key not in self._texts:
            b = write(flag)
            body = "\n".join(["entry:", *b.lines, "  ret void"])
            name = "p" + hashlib.blake2b(body.encode(), digest_size=10).hexdigest()
            text = f"define void @{name}(ptr noalias %args, i64 %low, i64 %high) #0 {{\n{body}\n}}\n"
            self._texts[key] = _Text(name, text, b.declarations, b.helpers)
        name, text, declarations, helpers = self._texts[key]
        return Function(name, text, buffers, sizes, extent, grain, work, declarations, helpers)

    def _start(self, pointers: int, sizes: int) -> tuple[Builder, list[str], list[Val]]:
        b = Builder(self.fma)
        loaded: list[str] = []
        for i in range(pointers):
            slot = b.offset("%args", const(i, "i64"), "i64")
            loaded.append(b.emit(f"load ptr, ptr {slot}, align 8", "ptr").text)
        numbers: list[Val] = []
        for i in range(sizes):
            slot = b.offset("%args", const(pointers + i, "i64"), "i64")
            numbers.append(b.emit(f"load i64, ptr {slot}, align 8", "i64"))
        return b, loaded, numbers

    # -- packing -----------------------------------------------------------------------------------------------------

    def pack_b(self, buffers: list[Buffer], sizes: list[Any], panels: int, work: int) -> Function:
        """Panels [low, high) of B."""
        return self._function(self._pack_b, sizes[3] == 1, buffers, sizes, panels, 1, work // 2)

    def _pack_b(self, contiguous: bool) -> Builder:
        b, (source, target), (offset, n, k, sn, sk) = self._start(2, 5)
        source = b.offset(source, offset, self.kind)

        def panel(index: Val, _: Sequence[Val]) -> Sequence[Val]:
            first = b.mul(index, self.width)
            columns = self._minimum(b, b.sub(n, first), self.width)
            into = b.offset(target, b.mul(first, k), self.kind)
            self._pack_block(b, b.offset(source, b.mul(first, sn), self.kind), into, k, columns, sn, sk, contiguous)
            return ()

        b.loop(Val("%low", "i64"), Val("%high", "i64"), 1, panel)
        return b

    def _pack_block(
        self, b: Builder, at: str, into: str, deep: Val, columns: Val, sn: Val, sk: Val, contiguous: bool
    ) -> None:
        """`deep` rows of one panel of B, from its element `at`. Along k, whole blocks are transposed in registers."""
        if contiguous:
            masks = self._masks(b, columns)

            def row(i: Val, _: Sequence[Val]) -> Sequence[Val]:
                line = b.offset(at, b.mul(i, sk), self.kind)
                out = b.offset(into, b.mul(i, self.width), self.kind)
                for v, mask in enumerate(masks):
                    place = const(v * self.lanes, "i64")
                    loaded = b.load(b.offset(line, place, self.kind), self.kind, self.lanes, mask)
                    b.store(loaded, b.offset(out, place, self.kind))
                return ()

            b.loop(const(0, "i64"), deep, 1, row)
            return
        whole = b.mul(b.emit(f"udiv {deep.typed}, {self.lanes}", "i64"), self.lanes)
        last = b.sub(columns, 1)

        def block(i: Val, _: Sequence[Val]) -> Sequence[Val]:
            for v in range(self.vectors):
                rows: list[Val] = []
                for j in range(self.lanes):
                    # Columns behind the last repeat it: what they give is never stored.
                    column = self._minimum(b, last, v * self.lanes + j)
                    line = b.offset(at, b.add(b.mul(column, sn), i), self.kind)
                    rows.append(b.load(line, self.kind, self.lanes))
                for j, value in enumerate(self._transposed(b, rows)):
                    place = b.add(b.mul(b.add(i, j), self.width), v * self.lanes)
                    b.store(value, b.offset(into, place, self.kind))
            return ()

        def single(i: Val, _: Sequence[Val]) -> Sequence[Val]:
            def element(j: Val, _: Sequence[Val]) -> Sequence[Val]:
                line = b.offset(at, b.add(b.mul(j, sn), i), self.kind)
                b.store(b.load(line, self.kind), b.offset(into, b.add(b.mul(i, self.width), j), self.kind))
                return ()

            b.loop(const(0, "i64"), columns, 1, element)
            return ()

        b.loop(const(0, "i64"), whole, self.lanes, block)
        b.loop(whole, deep, 1, single)

    def pack_a(self, buffers: list[Buffer], sizes: list[Any], groups: int, work: int) -> Function:
        """Groups [low, high) of the rows of an A whose rows lie side by side: for each k the run of a group's elements
        is cut into tiles. The last tile of a group may have fewer rows."""
        return self._function(self._pack_a, False, buffers, sizes, groups, 1, work)

    def _pack_a(self, _: bool) -> Builder:
        b, (source, target), (offset, m, k, sk, step, group) = self._start(2, 6)
        source = b.offset(source, offset, self.kind)
        tiles = self._tiles(b, group)
        lanes = 8
        on = Val("<" + ", ".join(f"i1 {'true' if i < ROWS else 'false'}" for i in range(lanes)) + ">", "i1", lanes)

        def line(i: Val, _: Sequence[Val]) -> Sequence[Val]:
            run = b.offset(source, b.mul(i, sk), self.kind)
            place = b.mul(i, ROWS)

            def one(g: Val, _: Sequence[Val]) -> Sequence[Val]:
                top = b.mul(g, group)
                rows = b.sub(m, top)
                rows = b.select(b.compare("slt", rows, group), rows, group)
                first = b.mul(g, tiles)

                def tile(t: Val, _: Sequence[Val]) -> Sequence[Val]:
                    at = b.mul(t, ROWS)
                    left = self._minimum(b, b.sub(rows, at), ROWS)
                    some = b.compare("slt", b.iota("i64", lanes), b.splat(left, lanes))
                    value = b.load(b.offset(run, b.add(top, at), self.kind), self.kind, lanes, some)
                    into = b.offset(target, b.add(b.mul(b.add(first, t), step), place), self.kind)
                    b.store(value, into, on)
                    return ()

                b.loop(const(0, "i64"), self._tiles(b, rows), 1, tile)
                return ()

            b.loop(Val("%low", "i64"), Val("%high", "i64"), 1, one)
            return ()

        b.loop(const(0, "i64"), k, 1, line)
        return b

    @staticmethod
    def _parts(b: Builder, count: Val, size: Val) -> Val:
        """How many parts of a size there are; the last may be smaller."""
        return b.emit(f"udiv {b.sub(b.add(count, size), 1).typed}, {size.text}", "i64")

    def _tiles(self, b: Builder, rows: Val) -> Val:
        """How many tiles so many rows make."""
        return self._parts(b, rows, const(ROWS, "i64"))

    def _transposed(self, b: Builder, rows: list[Val]) -> list[Val]:
        """The transposed square, by exchanges at distances 1, 2, 4, ..."""
        lanes, step = self.lanes, 1
        type_ = rows[0].type
        while step < lanes:
            made = list(rows)
            for i in range(lanes):
                if i & step:
                    continue
                x, y = rows[i], rows[i + step]
                low = ", ".join(f"i32 {j if not j & step else lanes + j - step}" for j in range(lanes))
                high = ", ".join(f"i32 {j + step if not j & step else lanes + j}" for j in range(lanes))
                for at, mask in ((i, low), (i + step, high)):
                    text = f"shufflevector {type_} {x.text}, {type_} {y.text}, <{lanes} x i32> <{mask}>"
                    made[at] = b.emit(text, self.kind, lanes)
            rows, step = made, step * 2
        return rows

    def _masks(self, b: Builder, columns: Val) -> list[Val]:
        """For each vector of a panel, the lanes that are columns of the matrix."""
        wide = b.splat(columns, self.lanes)
        first = b.iota("i64", self.lanes)
        return [b.compare("ult", b.add(first, v * self.lanes), wide) for v in range(self.vectors)]

    @staticmethod
    def _minimum(b: Builder, x: Val, bound: int) -> Val:
        return b.select(b.compare("slt", x, bound), x, bound)

    # -- the product -------------------------------------------------------------------------------------------------

    def product_by_rows(self, buffers: list[Buffer], sizes: list[Any], extent: Any, grain: int, work: Any) -> Function:
        """Rows [low, high) of C. Of a packed A, one group after another."""
        return self._function(self._by_rows, sizes[7] != 0, buffers, sizes, extent, grain, work)

    def _by_rows(self, tiled: bool) -> Builder:
        b, (left, right, result), (offset, n, k, row, along, panels, tile, group, added) = self._start(3, 9)
        left = b.offset(left, offset, self.kind)
        low, high = Val("%low", "i64"), Val("%high", "i64")

        def rows(top: Val, bottom: Val, a: str) -> None:
            """Rows [top, bottom), of which the first is at `a`."""

            def panel(p: Val, _: Sequence[Val]) -> Sequence[Val]:
                column = b.mul(p, self.width)
                columns = self._minimum(b, b.sub(n, column), self.width)
                base = b.offset(right, b.mul(column, k), self.kind)
                into = b.offset(result, b.add(b.mul(top, n), column), self.kind)

                def depth(k0: Val, deep: Val) -> None:
                    block = b.offset(base, b.mul(k0, self.width), self.kind)
                    start = b.offset(a, b.mul(k0, along), self.kind)
                    following = b.offset(block, const(DEPTH * self.width, "i64"), self.kind)
                    self._column(
                        b, start, b.sub(bottom, top), row, along, step, block, into, n, columns, b.add(k0, added),
                        deep, Ahead(following, const(0, "i64"), 63),
                    )  # fmt: skip

                self._blocks(b, k, depth)
                return ()

            b.loop(const(0, "i64"), panels, 1, panel)

        if not tiled:
            step = b.mul(row, ROWS)
            rows(low, high, b.offset(left, b.mul(low, row), self.kind))
        else:
            step = tile
            each = b.mul(self._tiles(b, group), tile)

            def one(index: Val, _: Sequence[Val]) -> Sequence[Val]:
                top = b.mul(index, group)
                bottom = b.add(top, group)
                bottom = b.select(b.compare("slt", bottom, high), bottom, high)
                rows(top, bottom, b.offset(left, b.mul(index, each), self.kind))
                return ()

            first = b.emit(f"udiv {low.typed}, {group.text}", "i64")
            b.loop(first, self._parts(b, high, group), 1, one)
        return b

    def product_by_panels(self, buffers: list[Buffer], sizes: list[Any], panels: int, work: Any) -> Function:
        """Panels [low, high) of C."""
        return self._function(self._by_panels, sizes[7] == 1, buffers, sizes, panels, 1, work)

    def _by_panels(self, contiguous: bool) -> Builder:
        b, (left, right, result), (offset, n, k, row, along, m, at, sn, sk, step, added) = self._start(3, 11)
        left, right = b.offset(left, offset, self.kind), b.offset(right, at, self.kind)
        packed = b.emit(f"alloca [{DEPTH * self.width} x {self.kind}], align 64", "ptr").text

        def panel(p: Val, _: Sequence[Val]) -> Sequence[Val]:
            column = b.mul(p, self.width)
            columns = self._minimum(b, b.sub(n, column), self.width)
            base = b.offset(right, b.mul(column, sn), self.kind)
            into = b.offset(result, column, self.kind)

            def depth(k0: Val, deep: Val) -> None:
                source = b.offset(base, b.mul(k0, sk), self.kind)
                self._pack_block(b, source, packed, deep, columns, sn, sk, contiguous)
                following = b.add(k0, DEPTH)
                inside = b.compare("slt", following, k)
                distance = b.select(inside, b.mul(following, sk), b.mul(sn, self.width))
                length = self.width if contiguous else DEPTH  # of what lies side by side
                lines = (length * BITS[self.kind] // (8 * CACHE_LINE)).bit_length() - 1
                ahead = Ahead(b.offset(base, distance, self.kind), sk if contiguous else sn, lines)
                start = b.offset(left, b.mul(k0, along), self.kind)
                before = b.add(k0, added)
                self._column(b, start, m, row, along, step, packed, into, n, columns, before, deep, ahead)

            self._blocks(b, k, depth)
            return ()

        b.loop(Val("%low", "i64"), Val("%high", "i64"), 1, panel)
        return b

    def _blocks(self, b: Builder, k: Val, depth: Callable[[Val, Val], None]) -> None:
        """The blocks of k: where each one starts, and how deep it is."""

        def block(k0: Val, _: Sequence[Val]) -> Sequence[Val]:
            depth(k0, self._minimum(b, b.sub(k, k0), DEPTH))
            return ()

        b.loop(const(0, "i64"), k, DEPTH, block)

    def _column(
        self, b: Builder, a: str, count: Val, row: Val, along: Val, step: Val, block: str, into: str, n: Val,
        columns: Val, before: Val, deep: Val, ahead: Ahead,
    ) -> None:  # fmt: skip
        """`count` rows of one panel of C, at `into`: A's first element is at `a`, a tile's `step` behind the one's
        before. They are added to what is there unless `before` is 0. While they are computed, the block of B that is
        needed next comes nearer."""
        tiles = b.emit(f"udiv {count.typed}, {ROWS}", "i64")
        # A strip of a tile asks for so many lines; the tiles for the whole block.
        whole = DEPTH * self.width * BITS[self.kind] // (8 * CACHE_LINE)
        strips = b.mul(self._tiles(b, count), DEPTH // STRIP)
        each = self._parts(b, const(whole, "i64"), strips)

        def call(rows: int, a: str, c: str, t: Val) -> None:
            b.helpers.add((f"gemm_tile{rows}x{self.vectors}", self.kind, self.lanes))
            name = f"gemm_tile{rows}x{self.vectors}.v{self.lanes}{SUFFIX[self.kind]}"
            arguments = [f"ptr {a}", row.typed, along.typed, f"ptr {block}", f"ptr {c}", n.typed, deep.typed]
            line = b.mul(b.mul(t, each), DEPTH // STRIP)
            arguments += [before.typed, columns.typed, f"ptr {ahead.start}", ahead.stride.typed, f"i64 {ahead.lines}"]
            b.line(f"call void @{name}({', '.join([*arguments, line.typed, each.typed])})")

        def one(t: Val, _: Sequence[Val]) -> Sequence[Val]:
            call(ROWS, b.offset(a, b.mul(t, step), self.kind), b.offset(into, b.mul(b.mul(t, ROWS), n), self.kind), t)
            return ()

        b.loop(const(0, "i64"), tiles, 1, one)
        full = b.mul(tiles, ROWS)
        rest = b.sub(count, full)
        a = b.offset(a, b.mul(tiles, step), self.kind)
        for rows in REST:
            inside, after = b.fresh_label(), b.fresh_label()
            fits = b.compare("ne", b.logic("and", rest, rows), 0)
            b.line(f"br {fits.typed}, label %{inside}, label %{after}")
            b.label(inside)
            call(rows, a, b.offset(into, b.mul(full, n), self.kind), tiles)
            b.line(f"br label %{after}")
            b.label(after)
            done = b.logic("and", rest, rows)
            a = b.offset(a, b.mul(done, row), self.kind)
            full = b.add(full, done)


@cache
def _emitter(kind: str, lanes: int, vectors: int, fma: bool) -> _Emitter:
    return _Emitter(kind, lanes, vectors, fma)


def prefetch(b: Builder, at: str, *, write: bool) -> None:
    """Ask for a line: to be written soon, or to be read later than the first-level cache would keep it."""
    b.declarations.add("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
    b.line(f"call void @llvm.prefetch.p0(ptr {at}, i32 {int(write)}, i32 {3 if write else 2}, i32 1)")


def tile_definition(name: str, kind: str, lanes: int, fma: bool) -> tuple[str, set[str], set[tuple[str, str, int]]]:
    """`gemm_tile<rows>x<vectors>(a, row, along, b, c, ldc, depth, before, columns, ...)`: one tile of C over one block
    of k; added to what is there if `before` blocks came earlier. For each strip of k, `each` lines of what lies ahead
    are asked for, from the one numbered `line`."""
    rows, vectors = (int(x) for x in name.removeprefix("gemm_tile").split("x"))
    b = Builder(fma)
    columns, before = Val("%columns", "i64"), Val("%before", "i64")
    wide, iota = b.splat(columns, lanes), b.iota("i64", lanes)
    masks = [b.compare("ult", b.add(iota, v * lanes), wide) for v in range(vectors)]
    old = b.splat(b.compare("ne", before, 0), lanes)
    starts = [b.offset("%a", b.mul(Val("%row", "i64"), r), kind) if r else "%a" for r in range(rows)]
    lines = [b.offset("%c", b.mul(Val("%ldc", "i64"), r), kind) if r else "%c" for r in range(rows)]
    # What the tile is added to, or stored to, is fetched while it is computed: else a large C would have it wait for
    # memory.
    for line in lines:
        for start in range(0, vectors * lanes, CACHE_LINE * 8 // BITS[kind]):
            prefetch(b, b.offset(line, const(start, "i64"), kind), write=True)
    sums = [const(0.0, kind, lanes)] * (rows * vectors)

    def step(i: Val, carried: list[Val]) -> Sequence[Val]:
        line = b.offset("%b", b.mul(i, vectors * lanes), kind)
        right = [b.load(b.offset(line, const(v * lanes, "i64"), kind), kind, lanes) for v in range(vectors)]
        at = b.mul(i, Val("%along", "i64"))
        found: list[Val] = []
        for r in range(rows):
            element = b.splat(b.load(b.offset(starts[r], at, kind), kind), lanes)
            found.extend(b.fma(element, right[v], carried[r * vectors + v]) for v in range(vectors))
        return found

    def strip(start: Val, carried: list[Val]) -> Sequence[Val]:
        # What is needed next is asked for a few lines at a time: more at once would keep this tile's loads waiting.
        each = Val("%each", "i64")
        first = b.add(b.mul(b.emit(f"udiv {start.typed}, {STRIP}", "i64"), each), Val("%line", "i64"))

        def ask(i: Val, _: Sequence[Val]) -> Sequence[Val]:
            line, inner = b.add(first, i), Val("%lines", "i64")
            outer = b.emit(f"lshr {line.typed}, {inner.text}", "i64")
            within = b.sub(line, b.emit(f"shl {outer.typed}, {inner.text}", "i64"))
            at = b.offset("%ahead", b.mul(outer, Val("%stride", "i64")), kind)
            prefetch(b, b.offset(at, b.mul(within, CACHE_LINE * 8 // BITS[kind]), kind), write=False)
            return ()

        b.loop(const(0, "i64"), each, 1, ask)
        end = b.add(start, STRIP)
        end = b.select(b.compare("slt", end, Val("%depth", "i64")), end, Val("%depth", "i64"))
        return b.loop(start, end, 1, step, carried)

    sums = b.loop(const(0, "i64"), Val("%depth", "i64"), STRIP, strip, sums)
    for r in range(rows):
        for v in range(vectors):
            place = b.offset(lines[r], const(v * lanes, "i64"), kind)
            known = b.load(place, kind, lanes, b.logic("and", masks[v], old))
            b.store(b.add(known, sums[r * vectors + v]), place, masks[v])
    parameters = "ptr %a, i64 %row, i64 %along, ptr %b, ptr %c, i64 %ldc, i64 %depth, i64 %before, i64 %columns"
    parameters += ", ptr %ahead, i64 %stride, i64 %lines, i64 %line, i64 %each"
    head = f"define internal void @{name}.v{lanes}{SUFFIX[kind]}({parameters}) #0 {{\nentry:\n"
    return head + "\n".join(b.lines) + "\n  ret void\n}\n", b.declarations, b.helpers
