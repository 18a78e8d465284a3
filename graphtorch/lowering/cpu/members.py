"""Launches as candidates for chains."""

from __future__ import annotations

from collections.abc import Sequence

from graphtorch.lowering.cpu.chain import Member
from graphtorch.lowering.cpu.expansion import SCRATCH
from graphtorch.lowering.cpu.footprint import joined, span_of
from graphtorch.lowering.cpu.function import Function, Level
from graphtorch.lowering.cpu.launch import Native, Product


def member_of(step: int, code: Native | None, threads: int) -> Member | None:
    """A step's native code as a candidate for a chain; None for what can't join one: symbolic sizes, or a launch that
    may fail. Of several launches the last is the member, where the others only prepare what it reads all of; they run
    before the chain, in which no other member may write that."""
    if isinstance(code, list):
        *before, code = code
        named = {b for level in code.levels[:1] for b, span in level.reads.items() if span is None}
        if any(b.kind != SCRATCH and b not in named for function in before for b in function.buffers):
            return None
    if isinstance(code, Product):
        levels: Sequence[Level] = product_levels(code, threads)
        extent, work = code.m, code.m * code.n * code.k
    elif isinstance(code, Function) and not code.failures:
        levels, extent, work = code.levels, code.extent, code.work
    else:
        return None
    if type(extent) is not int or type(work) is not int or not levels or extent < 1:
        return None
    return Member(step, extent, work, levels)


def product_levels(product: Product, threads: int) -> list[Level]:
    """Of a product that BLAS makes by rows. It packs the right operand anew for each part: there are as many parts as
    it would have alone, if those have the same number of rows."""
    a, b = product.operands
    if not (type(product.batch) is int and product.batch == 1 and type(product.m) is int):
        return []
    parts = 2 * threads
    if product.m % parts:
        return []
    rows = product.m // parts
    left = span_of(a.offset, [(a.strides[-2] * rows, 0)], [(a.strides[-2], rows), (a.strides[-1], product.k)])
    right = span_of(b.offset, [(0, 0)], [(b.strides[-2], product.k), (b.strides[-1], product.n)])
    result = span_of(0, [(product.n * rows, 0)], [(1, rows * product.n)])
    added = ((product.output, result),) if product.accumulate else ()
    return [Level(rows, joined(((a.buffer, left), (b.buffer, right), *added)), {product.output: result})]
