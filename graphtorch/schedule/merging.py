"""Fusion across groups, after every node has its place: recomputation in the only reader, and merging of siblings.

absorb            a pointwise group whose results are read by one other kernel is computed there, at whatever index
                  it is read
merge_siblings    groups of one iteration space that read the same data, or are so small that their launch costs
                  more than their work, become one kernel
"""

from __future__ import annotations

from graphtorch.ir.graph import Value
from graphtorch.schedule.effects import call_may_fail
from graphtorch.schedule.fusion import Fusion, NotAffineError, cost_of
from graphtorch.schedule.groups import Group, extent
from graphtorch.tensor.symint import same_size

_PARALLEL = 256  # parallel points that a large kernel needs to keep every core busy


def buffer_operands(fusion: Fusion, group: Group) -> list[Value]:
    """The operand values of a group's nodes that it reads from memory or computes again: all that no member
    computes."""
    found: list[Value] = []
    for node in group.nodes:
        for value in node.operands():
            root = fusion.roots[value][0]
            if root in fusion.inlined or fusion.home.get(root) is not group:
                found.append(value)
    return found


def roots_read(fusion: Fusion, group: Group) -> set[Value]:
    """The values whose buffers a group reads."""
    in_memory = group.call is not None
    return {root for value in buffer_operands(fusion, group) for root, _ in fusion.reads(value, (), in_memory)}


def absorb(fusion: Fusion, kept: set[Value]) -> None:
    """Inline pointwise groups into their only reader. `kept` are values that must be in memory: outputs.

    Law: a pointwise value is a function of its operands at one index, so that it may be computed again wherever it is
    read. It is worth it if it costs little and the reader does not read it many times over.
    """
    kept = kept | set(fusion.copies.values())  # made because their readers can't compute them at their own index
    readers: dict[int, set[int]] = {}
    for group in fusion.dependence.groups.values():
        for root in roots_read(fusion, group):
            home = fusion.home.get(root)
            if home is not None:
                readers.setdefault(home.index, set()).add(group.index)
    for index in sorted(fusion.dependence.groups):
        group = fusion.dependence.groups[index]
        who = readers.get(index, set())
        if (
            group.call is not None
            or group.levels
            or len(who) != 1
            or any(v in kept for n in group.nodes for v in n.results)
        ):
            continue
        reader = fusion.dependence.groups[next(iter(who))]
        if reader.call is not None or sum(map(cost_of, group.nodes)) > fusion.limits.recompute:
            continue
        if group.points() > fusion.limits.cache and reader.points() > 2 * group.points():
            continue
        values = {n.results[0] for n in group.nodes}
        fusion.inline(values)
        try:
            needs = roots_read(fusion, reader)
        except NotAffineError:
            fusion.uninline(values)
            continue
        fusion.dependence.absorb(group, reader)
        for node in group.nodes:
            fusion.home.pop(node.results[0])
            reader.reasons.append(f"{node.op.name} is computed again where it is read")
        for root in needs:
            home = fusion.home.get(root)
            if home is not None:
                readers.setdefault(home.index, set()).discard(index)
                readers[home.index].add(reader.index)


def merge_siblings(fusion: Fusion) -> None:
    """Merge groups with equal iteration spaces that share data or are small.

    Law: two groups of which neither depends on the other may run as one. Their loops are identified in order; loads
    that coincide then are one load. What a call that may fail depends on stays apart from the rest, which may change
    the caller's tensors (see effects.py).
    """
    checked = 0
    for group in fusion.dependence.groups.values():
        if group.call is not None and call_may_fail(group.call.op):
            checked |= group.ancestors
    buckets: dict[tuple[object, ...], list[Group]] = {}
    for index in sorted(fusion.dependence.groups):
        group = fusion.dependence.groups[index]
        if group.call is not None:
            continue
        group.refresh()
        buckets.setdefault((*_space(group), bool(checked & group.bit)), []).append(group)
    for bucket in buckets.values():
        if len(bucket) == 1:
            continue
        small = extent(bucket[0].loops) <= fusion.limits.siblings
        reads = {g.index: {v for v in roots_read(fusion, g) if v.type.shape} for g in bucket}
        while bucket:
            group, *bucket = bucket
            left: list[Group] = []
            own = reads[group.index]
            for other in bucket:
                share = not own.isdisjoint(reads[other.index])
                if (share or small) and _may_merge(fusion, group, other, share, small):
                    _merge(fusion, group, other)
                    own |= reads[other.index]
                else:
                    left.append(other)
            bucket = left


def _space(group: Group) -> tuple[object, ...]:
    """What siblings have in common: the sizes of their loops."""
    return tuple(loop.size for loop in group.loops)


def _folds(group: Group) -> list[list[int]]:
    """Which loops each fold runs over, by position."""
    return [[i for i, loop in enumerate(group.loops) if loop in level] for level in group.levels]


def _may_merge(fusion: Fusion, a: Group, b: Group, share: bool, small: bool) -> bool:
    """Whether siblings that read the same data, or are small, may run as one."""
    if len(a.nodes) + len(b.nodes) > fusion.limits.nodes or a.ancestors & b.bit or b.ancestors & a.bit:
        return False
    if a.order and b.order and [a.loops.index(x) for x in a.order] != [b.loops.index(x) for x in b.order]:
        return False
    if _folds(a) == _folds(b):
        return True
    # A pointwise group may ride along with folds, where enough parallel points are left and it reads the folded data.
    parallel = extent(loop for g in (a, b) if g.levels for loop in g.loops if loop not in g.reduced)
    return share and not (a.levels and b.levels) and (parallel >= _PARALLEL or small)


def _merge(fusion: Fusion, a: Group, b: Group) -> None:
    for mine, theirs in zip(a.loops, b.loops, strict=True):
        assert same_size(mine.size, theirs.size)
        theirs.merged = mine
    a.levels = a.levels or [tuple(a.loops[i] for i in fold) for fold in _folds(b)]
    a.order = a.order or tuple(a.loops[b.loops.index(x)] for x in b.order)
    moved = list(b.nodes)
    fusion.dependence.merge(a, b)
    a.reasons.append(f"{moved[0].op.name} and what follows: the same iteration space")
    for node in moved:
        for value in node.results:
            fusion.home[value] = a
