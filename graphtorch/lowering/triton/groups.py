"""What the backend adds to kernels: steps that stand for several of them in one launch, and folds cut into parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from graphtorch.lowering.kernel import Axis, Buffer, Kernel, Store


@dataclass(frozen=True, slots=True)
class PartAxis(Axis):
    """The places of one part of an axis that was cut into parts of one size, which need not divide it.

    part      the name of the axis that counts the parts
    whole     the size of the axis that was cut: there is nothing at part * size + place >= whole, so that the last
              parts may be short or empty
    """

    part: str = ""
    whole: Any = 0


@dataclass(eq=False, slots=True)
class GroupedKernel(Kernel):
    """Kernels that do the same to different tensors, each independent of the others."""

    members: list[Kernel] = field(default_factory=list)

    def reads(self) -> list[Buffer]:
        return list(dict.fromkeys(b for m in self.members for b in m.reads()))

    def writes(self) -> list[Buffer]:
        return list(dict.fromkeys(b for m in self.members for b in m.writes()))


@dataclass(eq=False, slots=True)
class RowKernel(Kernel):
    """A kernel over rows whose programs each go through many of them.

    columns     those of its stores that are sums over the rows: of each program's rows, into its row of the buffer
    """

    columns: list[Store] = field(default_factory=list)
