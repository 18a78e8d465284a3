"""Chains: consecutive launches that run chunk by chunk, so that what one writes is read by the next while it is in
cache (attention: scores, softmax and the product with the values, a few rows of one head at a time).

Law: launches may run chunk by chunk if for every buffer that one of them writes and another one touches, both touch, in
corresponding chunks, the same range of elements and nothing of other chunks' ranges.

Each launch says for groups of its units which elements it touches (`Level`). A chain has a number of chunks' worth of
groups that divides every member's units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from graphtorch.lowering.cpu.function import Level, Span
from graphtorch.lowering.kernel import Buffer

CACHE_BYTES = 512 << 10  # what one chunk may hand on: a part of the second-level cache
LEAST_WORK = 60_000  # additions' worth below which a launch stays on one thread: its operands are in cache anyway
GROUPS_PER_THREAD = 2  # at least, for the threads to share the chain


@dataclass(eq=False)
class Member:
    """A launch as a candidate: its step, extent and work, and what it touches, finest level first."""

    step: int
    extent: int
    work: int
    levels: Sequence[Level]


@dataclass(eq=False)
class Chain:
    """Members that run chunk by chunk; `groups` are what a chunk counts, `chunk` how many one has at most."""

    members: list[Member] = field(default_factory=list)
    groups: int = 0
    chunk: int = 1

    @property
    def steps(self) -> list[int]:
        return [m.step for m in self.members]


def spans(level: Level, groups: int, extent: int) -> tuple[dict[Buffer, Span | None], dict[Buffer, Span | None]]:
    """What each of `groups` equal parts touches, from a finer level: neighbouring groups' ranges joined."""
    count = extent // groups // level.units

    def joined(span: Span | None) -> Span | None:
        if span is None:
            return None
        reach = (count - 1) * span.stride
        return Span(span.stride * count, span.low + min(reach, 0), span.high + max(reach, 0))

    reads = {b: joined(s) for b, s in level.reads.items()}
    return reads, {b: joined(s) for b, s in level.writes.items()}


def at(member: Member, groups: int) -> tuple[dict[Buffer, Span | None], dict[Buffer, Span | None]] | None:
    """What each of `groups` equal parts of a member touches: by the level that knows most; None if they can't be
    equal parts."""
    if groups <= 0 or member.extent % groups:
        return None
    units = member.extent // groups
    best: tuple[dict[Buffer, Span | None], dict[Buffer, Span | None]] | None = None
    for level in member.levels:
        if units % level.units:
            continue
        found = spans(level, groups, member.extent)
        if best is None:
            best = found
            continue
        for known, more in zip(best, found, strict=True):
            known.update({b: s for b, s in more.items() if known.get(b) is None})
    return best


def _apart(a: Span | None, b: Span | None) -> bool:
    """Whether chunks of one touch nothing of the other's other chunks."""
    if a is None or b is None or a.stride != b.stride or a.stride <= 0:
        return False
    return max(a.high, b.high) - min(a.low, b.low) <= a.stride


def may_follow(members: Sequence[Member], last: Member, groups: int) -> bool:
    """The law above, between `last` and each of the others, in `groups` groups."""
    own = at(last, groups)
    if own is None:
        return False
    reads, writes = own
    for member in members:
        earlier = at(member, groups)
        if earlier is None:
            return False
        for buffer, span in earlier[1].items():
            for touched in (reads, writes):
                if buffer in touched and not _apart(span, touched[buffer]):
                    return False
        for buffer, span in earlier[0].items():
            if buffer in writes and not _apart(span, writes[buffer]):
                return False
    return True


def find_chains(members: Sequence[Member | None], threads: int) -> list[Chain]:
    """Chains of neighbouring steps. `members` has one entry a step, None for what can't join. A step joins if it reads
    what the chain has written."""
    found: list[Chain] = []
    current = Chain()

    def close() -> None:
        nonlocal current
        if len(current.members) > 1:
            current.chunk = _chunk(current, threads)
            found.append(current)
        current = Chain()

    for member in members:
        if member is None or member.work < LEAST_WORK:
            close()
            continue
        groups = _joint_groups(current, member, threads)
        if not groups:
            close()
        current.members.append(member)
        current.groups = groups
    close()
    return found


def _joint_groups(chain: Chain, member: Member, threads: int) -> int:
    """The finest grouping under which `member` may follow the chain; 0 if there is none that pays."""
    if not chain.members:
        return 0
    written = {b for m in chain.members for level in m.levels[:1] for b in level.writes}
    if not any(b in written for b in member.levels[0].reads):
        return 0
    every = [*chain.members, member]
    candidates = sorted({m.extent // level.units for m in every for level in m.levels}, reverse=True)
    for groups in candidates:
        if groups < GROUPS_PER_THREAD * threads:
            return 0
        if any(m.extent % groups for m in every):
            continue
        # Members that were together so far must stay so under the coarser grouping.
        lawful = all(may_follow(every[:i], every[i], groups) for i in range(1, len(every)))
        if lawful and _bytes(every, groups) <= CACHE_BYTES:
            return groups
    return 0


def _bytes(members: Sequence[Member], groups: int) -> int:
    """What one group hands from member to member."""
    touched = [part for m in members if (part := at(m, groups)) is not None]
    total = 0
    for i, (_, writes) in enumerate(touched):
        for buffer, span in writes.items():
            if span is not None and any(buffer in reads for reads, _ in touched[i + 1 :]):
                total += (span.high - span.low) * buffer.dtype.itemsize
    return total


def _chunk(chain: Chain, threads: int) -> int:
    """As many groups as the cache holds, and few enough that every thread gets several chunks."""
    fitting = CACHE_BYTES // max(_bytes(chain.members, chain.groups), 1)
    shared = -(-chain.groups // (4 * threads))
    return max(min(fitting, shared), 1)


def chain_text(name: str, calls: Sequence[tuple[str, int]]) -> str:
    """A function that runs chunk [low, high) of each member in turn: (function, units a group) each. Its arguments are
    the addresses of the members' own."""
    lines = [f"define internal void @{name}(ptr %args, i64 %low, i64 %high) #0 {{", "entry:"]
    for i, (function, units) in enumerate(calls):
        lines += [
            f"  %s{i} = getelementptr ptr, ptr %args, i64 {i}",
            f"  %a{i} = load ptr, ptr %s{i}",
            f"  %l{i} = mul i64 %low, {units}",
            f"  %h{i} = mul i64 %high, {units}",
            f"  call void @{function}(ptr %a{i}, i64 %l{i}, i64 %h{i})",
        ]
    return "\n".join([*lines, "  ret void", "}"])
