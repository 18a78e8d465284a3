"""Kernels that use all four words of each call of Philox: pointwise ones over more elements than threads draw at once.

The four words of a call belong to elements that lie a draw's number of threads apart. A program therefore computes four
blocks that far apart, with one call for each draw:

    a0, b0, c0, d0 = _philox(in1, base0, turn, thread)
    for part in tl.static_range(4):
        x = (turn * 4 + part) * 270336 + thread
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphtorch.lowering.kernel import Access, Load
from graphtorch.lowering.triton.codegen import Generated, KernelEmitter, Segment
from graphtorch.lowering.triton.random import Draws
from graphtorch.lowering.triton.tiling import Blocks, Tiling
from graphtorch.schedule.indexing import row_major
from graphtorch.tensor.symint import same_shape


def draws_at_once(tiling: Tiling, blocks: Blocks) -> int:
    """How many threads share each draw of a kernel whose programs can compute four blocks; 0 if they can't."""
    found = [e.access for e in tiling.exprs if isinstance(e, Load) and isinstance(e.access.buffer, Draws)]
    size = tiling.size("x")
    if not found or tiling.r or tiling.y or type(size) is not int:
        return 0
    order = row_major([tiling.loops[i].size for i in tiling.x])
    shared = {_threads(access) for access in found}
    for access in found:
        if access.offset != 0 or not same_shape(tiling.strides(access.strides), order):
            return 0
    threads = shared.pop()
    return threads if not shared and threads and threads % blocks.x == 0 and threads < size else 0


def _threads(access: Access) -> int:
    draws = access.buffer
    assert isinstance(draws, Draws)
    static = all(type(n) is int for n in draws.shape)
    return draws.threads({}) if static and draws.layout({}) == "words" else 0


def generate_draws(tiling: Tiling, blocks: Blocks, bindings: Mapping[str, int]) -> Generated:
    """The function of such a kernel."""
    return _DrawEmitter(tiling, blocks, bindings, draws_at_once(tiling, blocks)).generate()


class _DrawEmitter(KernelEmitter):
    def __init__(self, tiling: Tiling, blocks: Blocks, bindings: Mapping[str, int], threads: int) -> None:
        super().__init__(tiling, blocks, bindings)
        self.threads = threads
        self.masked = {"x": tiling.size("x") % (4 * threads) != 0}

    def _grid(self) -> tuple[tuple[Any, int], ...]:
        return ((-(-self.tiling.size("x") // (4 * self.threads)) * (self.threads // self.blocks.x), 1),)

    def _draw(self, access: Access, draws: Draws) -> str:
        number = self.draws[draws]
        words = f"a{number}, b{number}, c{number}, d{number}, part"
        name = {"word": "_part", "unit": "_unit_part", "normal": "_normal_part"}[draws.sample.source]
        return draws.made_of(f"{name}({words})")

    def _head(self, segment: Segment) -> None:
        for buffer, name in self.buffers.items():
            shape = ", ".join(map(str, buffer.shape))
            segment.add(f"# {name}: {buffer.name}, {buffer.dtype.abbreviation}[{shape}]")
        blocks = self.threads // self.blocks.x
        wide = ".to(tl.int64)" if self.wide else ""
        segment.add(f"x_size = {self.tiling.size('x')}")
        segment.add(f"turn = tl.program_id(0){wide} // {blocks}")
        segment.add(f"thread = tl.program_id(0) % {blocks} * X_BLOCK + tl.arange(0, X_BLOCK)")
        for draws, number in self.draws.items():
            words = f"a{number}, b{number}, c{number}, d{number}"
            segment.add(f"{words} = _philox({self.buffers[draws.state]}, base{number}, turn, thread)")

    def _straight(self, segment: Segment) -> None:
        for expr in self.tiling.exprs:
            if isinstance(expr, Load) and isinstance(expr.access.buffer, Draws):
                draws = expr.access.buffer
                number = self.draws.setdefault(draws, len(self.draws))
                self.sizes.numbers[f"base{number}"] = draws.base(self.bindings)
        inner = Segment(segment.indent + "    ")
        self._emit(inner, self.tiling.exprs)
        for store in self.kernel.stores:
            self._store(inner, store)
        head = Segment(inner.indent)
        head.add(f"x = (turn * 4 + part) * {self.threads} + thread")
        if self.masked["x"]:
            head.add("x_mask = x < x_size")
        self._split_coordinates(head, "x")
        segment.add("for part in tl.static_range(4):")
        segment.lines += head.lines + inner.lines
