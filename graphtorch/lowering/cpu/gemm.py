"""Small matrix products as generated code: register tiles without packing, where a BLAS call would spend its time on
packing and bookkeeping.

    outer form   op(B) is contiguous along its columns: a tile holds rows x vectors of the result; each step of k
                 multiplies elements of A, broadcast, with vectors of B
    inner form   both operands are contiguous along k: a tile holds rows x columns dot products, each a vector of
                 partial sums over k, whose lanes are folded at the end

The operands have to stay in the second-level cache; larger products are BLAS's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from graphtorch.lowering.cpu.assembly import Builder, Val, const
from graphtorch.lowering.cpu.footprint import joined, span_of
from graphtorch.lowering.cpu.function import Function, Level
from graphtorch.lowering.cpu.launch import Product

LARGEST_WORK = 1 << 24  # multiplications of one matrix, where it is one
LARGEST_BATCHED = 1 << 30  # and where there are several: attention's keep up with BLAS, and chains can cut them
LARGEST_OPERAND = 1 << 20  # bytes


def emit_product(product: Product, register_bits: int, fma: bool) -> Function | None:
    """Code for a product of static sizes that is small enough; None for others."""
    a, b = product.operands
    fixed = (product.m, product.n, product.k, product.batch, *a.strides, *b.strides, a.offset, b.offset)
    if any(type(s) is not int for s in fixed) or 0 in (product.m, product.n, product.k, product.batch):
        return None
    size = a.buffer.dtype.itemsize
    # The right operand has to stay in cache; rows of the left one pass by.
    held, largest = product.k * product.n, LARGEST_BATCHED
    if product.batch == 1:
        held, largest = max(product.m * product.k, held), LARGEST_WORK
    if product.m * product.n * product.k > largest or held * size > LARGEST_OPERAND:
        return None
    if b.strides[-1] == 1 or product.n == 1:
        return _Product(product, register_bits, fma, inner=False).run()
    if b.strides[-2] == 1 and (a.strides[-1] == 1 or product.k == 1):
        return _Product(product, register_bits, fma, inner=True).run()
    return None


class _Product:
    def __init__(self, product: Product, register_bits: int, fma: bool, inner: bool) -> None:
        self.product = product
        self.inner = inner
        a, b = product.operands
        self.a, self.b = a, b
        self.kind = "float" if a.buffer.dtype.itemsize == 4 else "double"
        bits = a.buffer.dtype.itemsize * 8
        along = product.k if inner else product.n
        self.lanes = register_bits // bits
        while self.lanes > 2 and self.lanes // 2 >= along:
            self.lanes //= 2
        registers = 32 if register_bits == 512 or register_bits == 128 else 16
        # Accumulators take most registers; the rest hold what one step of k loads.
        self.rows, self.columns = (
            ((8, 2) if registers == 32 else (4, 2)) if not inner else ((4, 4) if registers == 32 else (2, 4))
        )
        self.builder = Builder(fma)

    def run(self) -> Function:
        """Units are row tiles, times the matrices of a batch."""
        p, b = self.product, self.builder
        pointers = []
        for i in range(3):
            slot = b.offset("%args", const(i, "i64"), "ptr")
            pointers.append(b.emit(f"load ptr, ptr {slot}, align 8", "ptr").text)
        pa = b.offset(pointers[0], const(self.a.offset, "i64"), self.kind)
        pb = b.offset(pointers[1], const(self.b.offset, "i64"), self.kind)
        tiles, rest = divmod(p.m, self.rows)
        units = tiles + (1 if rest else 0)

        def unit(index: Val, _: Sequence[Val]) -> Sequence[Val]:
            ra, rb, rc, tile = pa, pb, pointers[2], index
            if p.batch > 1:
                matrix = b.binary("udiv", index, const(units, "i64"), "")
                tile = b.sub(index, b.mul(matrix, units))
                ra = b.offset(ra, b.mul(matrix, self.a.strides[0]), self.kind)
                rb = b.offset(rb, b.mul(matrix, self.b.strides[0]), self.kind)
                rc = b.offset(rc, b.mul(matrix, p.m * p.n), self.kind)
            row = b.mul(tile, self.rows)
            ra = b.offset(ra, b.mul(row, self.a.strides[-2]), self.kind)
            rc = b.offset(rc, b.mul(row, p.n), self.kind)
            if not rest:
                self._row_tile(ra, rb, rc, self.rows)
                return ()
            full, short, after = (b.fresh_label() for _ in range(3))
            if tiles:
                whole = b.compare("slt", tile, tiles)
                b.line(f"br {whole.typed}, label %{full}, label %{short}")
                b.label(full)
                self._row_tile(ra, rb, rc, self.rows)
                b.line(f"br label %{after}")
                b.label(short)
                self._row_tile(ra, rb, rc, rest)
                b.line(f"br label %{after}")
                b.label(after)
            else:
                self._row_tile(ra, rb, rc, rest)
            return ()

        b.loop(Val("%low", "i64"), Val("%high", "i64"), 1, unit)
        b.line("ret void")
        body = "\n".join(["entry:", *b.lines])
        name = "g" + hashlib.blake2b(body.encode(), digest_size=10).hexdigest()
        text = f"define void @{name}(ptr noalias %args, i64 %low, i64 %high) #0 {{\n{body}\n}}\n"
        work = p.batch * p.m * p.n * p.k // self.lanes * 2
        buffers = [self.a.buffer, self.b.buffer, p.output]
        levels = self._levels(units)
        return Function(name, text, buffers, [], units * p.batch, 1, work, b.declarations, b.helpers, levels)

    def _levels(self, units: int) -> list[Level]:
        """What row tiles touch (where all are whole), and what matrices touch."""
        p, a, b = self.product, self.a, self.b
        steps = (a.strides[0], b.strides[0], p.m * p.n) if p.batch > 1 else (0, 0, 0)
        found: list[Level] = []
        for tiles in dict.fromkeys((1, units)):
            rows = self.rows * tiles if tiles < units else p.m
            if p.m % rows:
                continue
            outer = p.m // rows
            left = span_of(
                a.offset,
                [(steps[0], p.batch), (a.strides[-2] * rows, outer)],
                [(a.strides[-2], rows), (a.strides[-1], p.k)],
            )
            right = span_of(b.offset, [(steps[1], p.batch), (0, outer)], [(b.strides[-2], p.k), (b.strides[-1], p.n)])
            result = span_of(0, [(p.n * rows, p.batch * outer)], [(1, rows * p.n)])
            if p.batch == 1 or outer == 1:
                # One loop of the two is none at all.
                step = (a.strides[-2] * rows, 0) if p.batch == 1 else steps[:2]
                left = span_of(a.offset, [(step[0], 0)], [(a.strides[-2], rows), (a.strides[-1], p.k)])
                right = span_of(b.offset, [(step[1], 0)], [(b.strides[-2], p.k), (b.strides[-1], p.n)])
            added = ((p.output, result),) if p.accumulate else ()
            found.append(Level(tiles, joined(((a.buffer, left), (b.buffer, right), *added)), {p.output: result}))
        return found

    def _row_tile(self, a: str, b: str, c: str, rows: int) -> None:
        """All columns of a few rows."""
        n = self.product.n
        step = self.columns if self.inner else self.columns * self.lanes
        full = n // step * step
        builder = self.builder

        def tile(column: Val, columns: int, mask: Val | None) -> None:
            stride = self.b.strides[-1]
            at = (
                b
                if column.text == "0"
                else builder.offset(b, builder.mul(column, stride) if stride != 1 else column, self.kind)
            )
            into = builder.offset(c, column, self.kind)
            if self.inner:
                self._dots(a, at, into, rows, columns)
            else:
                self._outer(a, at, into, rows, columns, mask)

        def whole(column: Val, _: Sequence[Val]) -> Sequence[Val]:
            tile(column, self.columns, None)
            return ()

        if full == step:
            tile(const(0, "i64"), self.columns, None)
        elif full:
            builder.loop(const(0, "i64"), const(full, "i64"), step, whole)
        left = n - full
        if left and self.inner:
            tile(const(full, "i64"), left, None)
        elif left:
            vectors, over = divmod(left, self.lanes)
            mask = None
            if over:
                on = ", ".join(f"i1 {'true' if i < over else 'false'}" for i in range(self.lanes))
                mask = Val(f"<{on}>", "i1", self.lanes)
            tile(const(full, "i64"), vectors + (1 if over else 0), mask)

    def _outer(self, a: str, b: str, c: str, rows: int, vectors: int, mask: Val | None) -> None:
        builder, lanes, n = self.builder, self.lanes, self.product.n
        sa, sk = self.a.strides[-2], self.a.strides[-1]

        def masked(v: int) -> Val | None:
            return mask if v == vectors - 1 else None

        def step(k: Val, sums: list[Val]) -> Sequence[Val]:
            row = builder.offset(b, builder.mul(k, self.b.strides[-2]), self.kind)
            parts = [
                builder.load(builder.offset(row, const(v * lanes, "i64"), self.kind), self.kind, lanes, masked(v))
                for v in range(vectors)
            ]
            left = builder.offset(a, builder.mul(k, sk) if sk != 1 else k, self.kind)
            found: list[Val] = []
            for r in range(rows):
                element = builder.load(builder.offset(left, const(r * sa, "i64"), self.kind), self.kind)
                wide = builder.splat(element, lanes)
                found.extend(builder.fma(wide, parts[v], sums[r * vectors + v]) for v in range(vectors))
            return found

        zero = const(0.0, self.kind, lanes)
        sums = builder.loop(const(0, "i64"), const(self.product.k, "i64"), 1, step, [zero] * (rows * vectors))
        for r in range(rows):
            for v in range(vectors):
                into = builder.offset(c, const(r * n + v * lanes, "i64"), self.kind)
                total = sums[r * vectors + v]
                if self.product.accumulate:
                    total = builder.add(builder.load(into, self.kind, lanes, masked(v)), total)
                builder.store(total, into, masked(v))

    def _dots(self, a: str, b: str, c: str, rows: int, columns: int) -> None:
        builder, lanes, k = self.builder, self.lanes, self.product.k
        sa, sb = self.a.strides[-2], self.b.strides[-1]

        def step(at: Val, sums: Sequence[Val], mask: Val | None = None) -> list[Val]:
            def load(base: str, shift: int) -> Val:
                place = builder.offset(builder.offset(base, at, self.kind), const(shift, "i64"), self.kind)
                return builder.load(place, self.kind, lanes, mask)

            right = [load(b, j * sb) for j in range(columns)]
            found: list[Val] = []
            for r in range(rows):
                left = load(a, r * sa)
                found.extend(builder.fma(left, right[j], sums[r * columns + j]) for j in range(columns))
            return found

        full = k // lanes * lanes
        sums = [const(0.0, self.kind, lanes)] * (rows * columns)
        if full:
            sums = builder.loop(const(0, "i64"), const(full, "i64"), lanes, step, sums)
        if k - full:
            on = ", ".join(f"i1 {'true' if i < k - full else 'false'}" for i in range(lanes))
            sums = step(const(full, "i64"), sums, Val(f"<{on}>", "i1", lanes))
        for r in range(rows):
            for j in range(columns):
                (total,) = builder.fold_lanes(
                    [sums[r * columns + j]], lambda x, y: [builder.binary("fadd", x[0], y[0], "reassoc contract")]
                )
                into = builder.offset(c, const(r * self.product.n + j, "i64"), self.kind)
                if self.product.accumulate:
                    total = builder.add(builder.load(into, self.kind), total)
                builder.store(total, into)
