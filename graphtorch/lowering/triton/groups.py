"""Steps that stand for several kernels in one launch."""

from __future__ import annotations

from dataclasses import dataclass, field

from graphtorch.lowering.kernel import Buffer, Kernel, Store


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
