"""Large matrix products as generated code, C = A B by register tiles over packed operands.

    pack_b     B into panels of a few vectors of columns, each panel contiguous along k and padded with garbage
    pack_a     A, where it is contiguous along its rows, into panels of a tile's rows
    product    rows, or panels, [low, high) of C: tiles of ROWS rows by one panel's columns, for each block of k

Every function takes its sizes at run time, so that a module holds each of them once whatever the shapes. A chunk of
rows meets all panels of B: nothing is packed twice, and what follows on the same rows (a bias, an activation) finds
them in cache. The scheme is that of Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008),
with B shared by the threads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from graphtorch.lowering.cpu.assembly import SUFFIX, Builder, Val, const
from graphtorch.lowering.cpu.expansion import SCRATCH
from graphtorch.lowering.cpu.footprint import joined, span_of
from graphtorch.lowering.cpu.function import Function, Level, Span
from graphtorch.lowering.cpu.launch import Product
from graphtorch.lowering.kernel import Buffer

ROWS = 6  # of a register tile: with four vectors of columns 24 accumulators, of 32 registers
REST = (4, 2, 1)  # tiles for what is left of the rows
CHUNK_ROWS = 48  # a chunk of rows is a multiple of
DEPTH = 256  # of a block of k: a panel's block stays in the second-level cache
SLACK = 16  # elements behind a panel of A, so that panels do not all start in one set of the cache


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
    emitter = _Emitter("float" if a.buffer.dtype.itemsize == 4 else "double", lanes, vectors, fma)
    packed_b = Buffer("packed_b", b.buffer.dtype, (panels * k * width,), SCRATCH, b.buffer.value)
    functions = [emitter.pack_b([b.buffer, packed_b], [b.offset, n, k, sn, sk], panels, n * k)]
    left, offset, tile = a.buffer, a.offset, 0
    reads: dict[Buffer, Span | None] = {b.buffer: None}  # whole, before the rows
    if along != 1:
        tiles, tile = -(-m // ROWS), k * ROWS + SLACK
        left = Buffer("packed_a", a.buffer.dtype, (tiles * tile,), SCRATCH, a.buffer.value)
        functions.append(emitter.pack_a([a.buffer, left], [a.offset, m, k, along, tile], tiles, m * k))
        reads[a.buffer] = None
        row, along, offset = 1, ROWS, 0
    buffers, work = [left, packed_b, product.output], m * n * k // lanes * 2
    if type(m) is int and n >= m:
        # Fewer rows than columns: each thread takes panels, and reads the larger operand once.
        functions.append(emitter.product(buffers, [offset, n, k, row, along, tile, m], tile != 0, panels, 1, work))
        return functions
    function = emitter.product(buffers, [offset, n, k, row, along, tile, panels], tile != 0, m, CHUNK_ROWS, work)
    # A chunk meets all panels, whatever its rows: it should not be small.
    rows = next((r for r in (48, 32, 24, 16, 12) if type(m) is int and m % r == 0 and (not tile or r % ROWS == 0)), 0)
    if rows:
        if not tile:
            moving = span_of(offset, [(row * rows, 0)], [(row, rows), (along, k)])
            reads = joined([*reads.items(), (left, moving)])
        function.levels = [Level(rows, reads, {product.output: Span(n * rows, 0, n * rows)})]
    functions.append(function)
    return functions


class _Emitter:
    """Writes the functions for one element kind and register width."""

    def __init__(self, kind: str, lanes: int, vectors: int, fma: bool) -> None:
        self.kind = kind
        self.lanes = lanes
        self.vectors = vectors
        self.width = vectors * lanes
        self.fma = fma

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

    def _finish(
        self, b: Builder, buffers: list[Buffer], sizes: list[Any], extent: Any, grain: int, work: Any
    ) -> Function:
        b.line("ret void")
        body = "\n".join(["entry:", *b.lines])
        name = "p" + hashlib.blake2b(body.encode(), digest_size=10).hexdigest()
        text = f"define void @{name}(ptr noalias %args, i64 %low, i64 %high) #0 {{\n{body}\n}}\n"
        return Function(name, text, buffers, sizes, extent, grain, work, b.declarations, b.helpers)

    # -- packing -----------------------------------------------------------------------------------------------------

    def pack_b(self, buffers: list[Buffer], sizes: list[Any], panels: int, work: int) -> Function:
        """Panels [low, high) of B. Along k, whole blocks are transposed in registers."""
        contiguous = sizes[3] == 1
        b, (source, target), (offset, n, k, sn, sk) = self._start(2, 5)
        source = b.offset(source, offset, self.kind)

        def panel(index: Val, _: Sequence[Val]) -> Sequence[Val]:
            first = b.mul(index, self.width)
            columns = self._minimum(b, b.sub(n, first), self.width)
            into = b.offset(target, b.mul(first, k), self.kind)
            at = b.offset(source, b.mul(first, sn), self.kind)
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

                b.loop(const(0, "i64"), k, 1, row)
                return ()
            whole = b.mul(b.emit(f"udiv {k.typed}, {self.lanes}", "i64"), self.lanes)
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
            b.loop(whole, k, 1, single)
            return ()

        b.loop(Val("%low", "i64"), Val("%high", "i64"), 1, panel)
        return self._finish(b, buffers, sizes, panels, 1, work // 2)

    def pack_a(self, buffers: list[Buffer], sizes: list[Any], tiles: int, work: int) -> Function:
        """Tiles [low, high) of an A whose rows lie side by side: for each k one run of elements is cut into tiles."""
        b, (source, target), (offset, m, k, sk, step) = self._start(2, 5)
        source = b.offset(source, offset, self.kind)
        lanes = 8
        on = Val("<" + ", ".join(f"i1 {'true' if i < ROWS else 'false'}" for i in range(lanes)) + ">", "i1", lanes)

        def line(i: Val, _: Sequence[Val]) -> Sequence[Val]:
            run = b.offset(source, b.mul(i, sk), self.kind)
            place = b.mul(i, ROWS)

            def tile(t: Val, _: Sequence[Val]) -> Sequence[Val]:
                first = b.mul(t, ROWS)
                left = self._minimum(b, b.sub(m, first), ROWS)
                some = b.compare("ult", b.iota("i64", lanes), b.splat(left, lanes))
                value = b.load(b.offset(run, first, self.kind), self.kind, lanes, some)
                into = b.offset(target, b.add(b.mul(t, step), place), self.kind)
                b.store(value, into, on)
                return ()

            b.loop(Val("%low", "i64"), Val("%high", "i64"), 1, tile)
            return ()

        b.loop(const(0, "i64"), k, 1, line)
        return self._finish(b, buffers, sizes, tiles, 1, work)

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

    def product(
        self, buffers: list[Buffer], sizes: list[Any], tiled: bool, extent: Any, grain: int, work: Any
    ) -> Function:
        """C by rows or by panels of columns: the last size is how many there are of what is not divided. `tiled` is
        whether A is packed; rows are then divided at multiples of ROWS."""
        by_rows = grain > 1
        b, (left, right, result), (offset, n, k, row, along, tile, rest_of) = self._start(3, 7)
        left = b.offset(left, offset, self.kind)
        low, high = Val("%low", "i64"), Val("%high", "i64")
        top, bottom = (low, high) if by_rows else (const(0, "i64"), rest_of)
        tiles = b.emit(f"udiv {b.sub(bottom, top).typed}, {ROWS}", "i64")
        full = b.add(top, b.mul(tiles, ROWS))

        def panel(p: Val, _: Sequence[Val]) -> Sequence[Val]:
            column = b.mul(p, self.width)
            columns = self._minimum(b, b.sub(n, column), self.width)
            base = b.offset(right, b.mul(column, k), self.kind)
            into = b.offset(result, column, self.kind)

            def depth(k0: Val, _: Sequence[Val]) -> Sequence[Val]:
                deep = self._minimum(b, b.sub(k, k0), DEPTH)
                block = b.offset(base, b.mul(k0, self.width), self.kind)
                start = b.offset(left, b.mul(k0, along), self.kind)

                def place(at: Val) -> str:
                    """Where row `at` of A starts; `at` is the first one of a tile."""
                    if tiled:
                        return b.offset(start, b.mul(b.emit(f"udiv {at.typed}, {ROWS}", "i64"), tile), self.kind)
                    return b.offset(start, b.mul(at, row), self.kind)

                def call(rows: int, a: str, at: Val) -> None:
                    b.helpers.add((f"gemm_tile{rows}x{self.vectors}", self.kind, self.lanes))
                    c = b.offset(into, b.mul(at, n), self.kind)
                    name = f"gemm_tile{rows}x{self.vectors}.v{self.lanes}{SUFFIX[self.kind]}"
                    arguments = [f"ptr {a}", row.typed, along.typed, f"ptr {block}", f"ptr {c}", n.typed, deep.typed]
                    b.line(f"call void @{name}({', '.join([*arguments, k0.typed, columns.typed])})")

                def one(t: Val, _: Sequence[Val]) -> Sequence[Val]:
                    at = b.add(top, b.mul(t, ROWS))
                    call(ROWS, place(at), at)
                    return ()

                b.loop(const(0, "i64"), tiles, 1, one)
                rest = b.sub(bottom, full)
                a, at = place(full), full
                for rows in REST:
                    inside, after = b.fresh_label(), b.fresh_label()
                    fits = b.compare("ne", b.logic("and", rest, rows), 0)
                    b.line(f"br {fits.typed}, label %{inside}, label %{after}")
                    b.label(inside)
                    call(rows, a, at)
                    b.line(f"br label %{after}")
                    b.label(after)
                    done = b.logic("and", rest, rows)
                    a = b.offset(a, b.mul(done, row), self.kind)
                    at = b.add(at, done)
                return ()

            b.loop(const(0, "i64"), k, DEPTH, depth)
            return ()

        if by_rows:
            b.loop(const(0, "i64"), rest_of, 1, panel)
        else:
            b.loop(low, high, 1, panel)
        return self._finish(b, buffers, sizes, extent, grain, work)


def tile_definition(name: str, kind: str, lanes: int, fma: bool) -> tuple[str, set[str], set[tuple[str, str, int]]]:
    """`gemm_tile<rows>x<vectors>(a, row, along, b, c, ldc, depth, before, columns)`: one tile of C over one block of k;
    added to what is there if `before` blocks came earlier."""
    rows, vectors = (int(x) for x in name.removeprefix("gemm_tile").split("x"))
    b = Builder(fma)
    columns, before = Val("%columns", "i64"), Val("%before", "i64")
    wide, iota = b.splat(columns, lanes), b.iota("i64", lanes)
    masks = [b.compare("ult", b.add(iota, v * lanes), wide) for v in range(vectors)]
    old = b.splat(b.compare("ne", before, 0), lanes)
    starts = [b.offset("%a", b.mul(Val("%row", "i64"), r), kind) if r else "%a" for r in range(rows)]
    lines = [b.offset("%c", b.mul(Val("%ldc", "i64"), r), kind) if r else "%c" for r in range(rows)]
    sums: list[Val] = []
    for r in range(rows):
        for v in range(vectors):
            place = b.offset(lines[r], const(v * lanes, "i64"), kind)
            sums.append(b.load(place, kind, lanes, b.logic("and", masks[v], old)))

    def step(i: Val, carried: list[Val]) -> Sequence[Val]:
        line = b.offset("%b", b.mul(i, vectors * lanes), kind)
        right = [b.load(b.offset(line, const(v * lanes, "i64"), kind), kind, lanes) for v in range(vectors)]
        at = b.mul(i, Val("%along", "i64"))
        found: list[Val] = []
        for r in range(rows):
            element = b.splat(b.load(b.offset(starts[r], at, kind), kind), lanes)
            found.extend(b.fma(element, right[v], carried[r * vectors + v]) for v in range(vectors))
        return found

    sums = b.loop(const(0, "i64"), Val("%depth", "i64"), 1, step, sums)
    for r in range(rows):
        for v in range(vectors):
            b.store(sums[r * vectors + v], b.offset(lines[r], const(v * lanes, "i64"), kind), masks[v])
    parameters = "ptr %a, i64 %row, i64 %along, ptr %b, ptr %c, i64 %ldc, i64 %depth, i64 %before, i64 %columns"
    head = f"define internal void @{name}.v{lanes}{SUFFIX[kind]}({parameters}) #0 {{\nentry:\n"
    return head + "\n".join(b.lines) + "\n  ret void\n}\n", b.declarations, b.helpers
