"""Groups: the kernels and calls under construction, and the dependence relation between them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from graphtorch.ir.graph import Node
from graphtorch.schedule.indexing import Loop, Loops, estimate, resolve


@dataclass(frozen=True)
class Limits:
    """What fusion is allowed. Sizes are in elements; symbolic sizes count with their hints.

    cache        the largest number of elements that a kernel may fold at one parallel point and need again afterwards,
                 and the largest iteration space of nested folds: both must stay in a core's cache.
    siblings     iteration spaces up to this size merge without sharing a buffer, to save launches.
    nodes        the most primitives that merging of siblings puts into one kernel.
    recompute    the most instructions (transcendental ones count four) that are computed again in their only reader
                 rather than stored.
    """

    cache: int = 1 << 16
    siblings: int = 1 << 16
    nodes: int = 160
    recompute: int = 12
    nested: bool = True


class Group:
    """A kernel under construction, or one opaque call.

    loops        its iteration space, in order of creation
    levels       the sets of loops that its folds run over, each including those folded before: they form a chain under
                 inclusion. A loop in none of them is parallel; every member is computed at every point of the parallel
                 loops.
    order        the loops of an argmax or argmin, whose row-major order counts
    bit          its own bit in sets of groups, and those of the groups that were merged into it
    direct       groups whose results it reads, as a set of bits: at least one bit of each
    readers      groups that read its results
    ancestors    the transitive closure of `direct`
    """

    __slots__ = (
        "ancestors", "bit", "call", "direct", "index", "levels", "loops", "nodes", "order", "readers", "reasons",
    )  # fmt: skip

    def __init__(self, index: int, call: Node | None = None) -> None:
        self.index = index
        self.bit = 1 << index
        self.call = call
        self.loops: Loops = ()
        self.levels: list[Loops] = []
        self.order: Loops = ()
        self.nodes: list[Node] = [] if call is None else [call]
        self.reasons: list[str] = []
        self.direct = 0
        self.readers = 0
        self.ancestors = 0

    def refresh(self) -> None:
        """See through merges and splits of loops."""
        self.loops = resolve(self.loops)
        self.levels = [resolve(level) for level in self.levels]
        self.order = resolve(self.order)

    @property
    def reduced(self) -> set[Loop]:
        """The reduction loops (call `refresh` first)."""
        return {loop for level in self.levels for loop in level}

    def points(self) -> int:
        """The size of the iteration space, estimated."""
        return extent(self.loops)


def extent(loops: Iterable[Loop]) -> int:
    """The number of points of loops, estimated."""
    total = 1
    for loop in loops:
        total *= estimate(loop.size)
    return total


class Dependence:
    """The groups and the order between them, kept acyclic. Sets of groups are ints, so that a query is one bit
    operation.

    A merged group keeps the bits of its parts, and sets keep those of groups that were absorbed, which nobody asks for:
    then nothing but what a group gains must be told to those that depend on it.
    """

    def __init__(self) -> None:
        self.groups: dict[int, Group] = {}
        self._of: list[Group] = []  # by index: the group that it is part of now

    def new(self, call: Node | None = None) -> Group:
        """A group without dependences."""
        group = Group(len(self._of), call)
        self.groups[group.index] = group
        self._of.append(group)
        return group

    def of(self, bits: int) -> list[Group]:
        """The groups of a set, each once."""
        found: list[Group] = []
        while bits:
            group = self._of[(bits & -bits).bit_length() - 1]
            found.append(group)
            bits &= ~group.bit
        return found

    def would_cycle(self, merged: Iterable[Group], reads: int) -> bool:
        """Whether making `merged` one group that reads the groups `reads` closes a cycle.

        Law: the union depends on itself iff one part reads another's buffers, or something that it reads, outside of
        it, depends on a part of it.
        """
        inside = 0
        outside = reads
        for group in merged:
            inside |= group.bit
            outside |= group.direct
        return bool(outside & inside) or any(g.ancestors & inside for g in self.of(outside))

    def read(self, group: Group, reads: int) -> None:
        """Make `group` depend on the groups `reads`."""
        reads &= ~group.bit
        if not reads & ~group.direct:
            return
        group.direct |= reads
        gained = reads
        for other in self.of(reads):
            gained |= other.ancestors
            other.readers |= group.bit
        self._gain(group, gained)

    def _gain(self, group: Group, gained: int) -> None:
        """Let a group, and all that depend on it, depend on the groups `gained` as well.

        Law: who depends on a group has all of its ancestors, so that the search ends at those that have these.
        """
        left = [group]
        while left:
            group = left.pop()
            if gained & ~group.ancestors:
                group.ancestors |= gained
                if group.readers:
                    left += self.of(group.readers)

    def merge(self, into: Group, other: Group) -> None:
        """Make two groups one; the caller has asked `would_cycle`. Loops and levels are the caller's."""
        into.nodes.extend(other.nodes)
        into.reasons.extend(other.reasons)
        del self.groups[other.index]
        both = into.bit | other.bit
        gained, given = other.ancestors & ~both, into.ancestors & ~both
        readers = other.readers & ~both
        bits = other.bit
        while bits:
            low = bits & -bits
            self._of[low.bit_length() - 1] = into
            bits ^= low
        into.bit = both
        into.direct = (into.direct | other.direct) & ~both
        into.ancestors = given
        into.readers &= ~both
        self._gain(into, gained)
        for group in self.of(readers):
            self._gain(group, given)
        into.readers |= readers

    def absorb(self, group: Group, reader: Group) -> None:
        """Remove a group whose nodes its only reader computes again."""
        del self.groups[group.index]
        reader.direct = (reader.direct | group.direct) & ~group.bit
        for other in self.of(group.direct):
            other.readers = other.readers & ~group.bit | reader.bit

    def in_order(self) -> list[Group]:
        """Every group after those it reads; otherwise in the order of their first nodes."""
        import heapq

        waiting = {g.index: g.direct for g in self.groups.values()}
        readers: dict[int, list[int]] = {}
        for group in self.groups.values():
            for other in self.of(group.direct):
                readers.setdefault(other.index, []).append(group.index)
        ready = [index for index, needs in waiting.items() if not needs]
        heapq.heapify(ready)
        order: list[Group] = []
        while ready:
            index = heapq.heappop(ready)
            group = self.groups[index]
            order.append(group)
            for reader in readers.get(index, ()):
                waiting[reader] &= ~group.bit
                if not waiting[reader]:
                    heapq.heappush(ready, reader)
        assert len(order) == len(self.groups), "a cycle between kernels"
        return order
