"""Algebraic simplification: the rows in `rows/`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphtorch.ir.graph import Graph
from graphtorch.ir.passes.base import Pass, register
from graphtorch.ir.passes.rows import TABLE
from graphtorch.ir.rewrite import EXACT, EXTREMES, ROUNDING, RewriteLog, Rewriter

_SELECTED = {
    (False, False): TABLE.select((EXACT,)),
    (True, False): TABLE.select((EXACT, ROUNDING)),
    (False, True): TABLE.select((EXACT, EXTREMES)),
    (True, True): TABLE.select((EXACT, ROUNDING, EXTREMES)),
}


@register
@dataclass
class Simplify(Pass):
    """Apply the algebraic rows until none fires, at most `max_rounds` times.

    Results keep their bits, or with `rounding` (the default) their value up to rounding. `extremes` adds the rows that
    differ where an intermediate result overflows or underflows. Nodes that become unused stay: `dce` removes them.
    """

    name: ClassVar[str] = "simplify"
    max_rounds: int = 3
    rounding: bool = True
    extremes: bool = False

    def run(self, graph: Graph, log: RewriteLog | None = None) -> Graph:
        rows = _SELECTED[self.rounding, self.extremes]
        for _ in range(self.max_rounds):
            rewritten = Rewriter(rows, self.name, log).run(graph)
            if rewritten is graph:
                break
            graph = rewritten
        return graph
