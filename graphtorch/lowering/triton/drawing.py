"""Kernels that use all four words of each call of Philox: pointwise ones over more elements than threads draw at once.

The four words of a call belong to elements that lie a draw's number of threads apart (those of float64, two words each,
to two elements). A program therefore computes four blocks that far apart, with one call for each draw:

    a0, b0, c0, d0 = _philox(in1, base0, turn, thread)
    for part in tl.static_range(4):
        x = (turn * 4 + part) * 270336 + thread
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphtorch.lowering.binding import concrete
from graphtorch.lowering.kernel import Access, Load
from graphtorch.lowering.triton.codegen import Generated, KernelEmitter, Segment
from graphtorch.lowering.triton.random import Draws
from graphtorch.lowering.triton.tiling import Blocks, Tiling, is_zero
from graphtorch.schedule.indexing import row_major
from graphtorch.tensor.symint import same_shape


def draws_at_once(tiling: Tiling, blocks: Blocks, bindings: Mapping[str, int]) -> tuple[int, int]:
    """How many threads share each draw of a kernel whose programs can compute several blocks, and how many blocks these
    are; (0, 0) if they can't. As many threads share all draws of more elements than there are threads, so that one
    text serves all such sizes."""
    found = [e.access for e in tiling.exprs if isinstance(e, Load) and isinstance(e.access.buffer, Draws)]
    size = tiling.size("x")
    if not found or tiling.r or tiling.y:
        return 0, 0
    order = row_major([tiling.loops[i].size for i in tiling.x])
    shared = {_threads(access, bindings) for access in found}
    for access in found:
        if not is_zero(access.offset) or not same_shape(tiling.strides(access.strides), order):
            return 0, 0
    threads, parts = shared.pop()
    fits = not shared and threads and threads % blocks.x == 0 and threads < concrete(size, bindings)
    return (threads, parts) if fits else (0, 0)


def _threads(access: Access, bindings: Mapping[str, int]) -> tuple[int, int]:
    """How many threads share a draw, and for how many elements a call is."""
    draws = access.buffer
    assert isinstance(draws, Draws)
    parts = {"words": 4, "pairs": 2}.get(draws.layout(bindings), 0)
    return draws.threads(bindings) if parts else 0, parts


def generate_draws(tiling: Tiling, blocks: Blocks, bindings: Mapping[str, int]) -> Generated:
    """The function of such a kernel."""
    return _DrawEmitter(tiling, blocks, bindings, *draws_at_once(tiling, blocks, bindings)).generate()


class _DrawEmitter(KernelEmitter):
    def __init__(
        self, tiling: Tiling, blocks: Blocks, bindings: Mapping[str, int], threads: int, parts: int
    ) -> None:
        super().__init__(tiling, blocks, bindings)
        self.threads = threads
        self.parts = parts
        size = tiling.size("x")
        self.masked = {"x": type(size) is not int or size % (parts * threads) != 0}

    def _grid(self) -> tuple[tuple[Any, int], ...]:
        return ((self.tiling.size("x"), self.parts * self.threads), (self.threads // self.blocks.x, 1))

    def _draw(self, access: Access, draws: Draws) -> str:
        number = self.draws[draws]
        words = f"a{number}, b{number}, c{number}, d{number}, part"
        name = {"word": "_part", "unit": "_unit_part", "normal": "_normal_part"}[draws.sample.source]
        return draws.made_of(f"{name}{'_wide' if self.parts == 2 else ''}({words})")

    def _head(self, segment: Segment) -> None:
        for buffer, name in self.buffers.items():
            shape = ", ".join(map(str, buffer.shape))
            segment.add(f"# {name}: {buffer.name}, {buffer.dtype.abbreviation}[{shape}]")
        blocks = self.threads // self.blocks.x
        wide = ".to(tl.int64)" if self.wide else ""
        segment.add(f"x_size = {self.sizes.text(self.tiling.size('x'))}")
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
        head.add(f"x = (turn * {self.parts} + part) * {self.threads} + thread")
        if self.masked["x"]:
            head.add("x_mask = x < x_size")
        self._split_coordinates(head, "x")
        segment.add(f"for part in tl.static_range({self.parts}):")
        segment.lines += head.lines + inner.lines
