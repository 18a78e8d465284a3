"""Chains: consecutive launches that run chunk by chunk, so that what one writes is read by the next while it is in
cache (attention: scores, softmax and the product with the values, a few rows of one head at a time).

Law: launches may run chunk by chunk if for every buffer that one of them writes and another one touches, both touch, in
corresponding chunks, the same range of elements and nothing of other chunks' ranges.

Each launch says for groups of its units which elements it touches (`Level`). A chain has a number of chunks' worth of
groups that divides every member's units.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from graphtorch.lowering.cpu.function import Level, Span
from graphtorch.lowering.kernel import Buffer

CACHE_BYTES = 512 << 10  # what one chunk may hand on: a part of the second-level cache
LEAST_WORK = 60_000  # additions' worth below which a launch stays on one thread: its operands are in cache anyway
GROUPS_PER_THREAD = 2  # at least, for the threads to share the chain
COARSER = 8  # times fewer groups that a member may bring about where the next one could do with more
FINE_GROUPS_PER_THREAD = 8  # at least, where every member can be cut so finely


Touched = tuple[dict[Buffer, Span | None], dict[Buffer, Span | None]]  # read, written


@dataclass(eq=False)
class Member:
    """A launch as a candidate: its step, extent and work, and what it touches, finest level first. `parts` is what `at`
    has worked out."""

    step: int
    extent: int
    work: int
    levels: Sequence[Level]
    parts: dict[int, Touched | None] = field(default_factory=dict)


@dataclass(eq=False)
class Chain:
    """Members that run chunk by chunk; `groups` are what a chunk counts, `chunk` how many one has at most; `private`:
    see `private_buffers`."""

    members: list[Member] = field(default_factory=list)
    groups: int = 0
    chunk: int = 1
    private: dict[Buffer, Span] = field(default_factory=dict)

    @property
    def steps(self) -> list[int]:
        return [m.step for m in self.members]


def spans(level: Level, groups: int, extent: int) -> Touched:
    """What each of `groups` equal parts touches, from a finer level: neighbouring groups' ranges joined."""
    count = extent // groups // level.units

    def joined(span: Span | None) -> Span | None:
        if span is None:
            return None
        reach = (count - 1) * span.stride
        return Span(span.stride * count, span.low + min(reach, 0), span.high + max(reach, 0))

    reads = {b: joined(s) for b, s in level.reads.items()}
    return reads, {b: joined(s) for b, s in level.writes.items()}


def at(member: Member, groups: int) -> Touched | None:
    """What each of `groups` equal parts of a member touches: by the level that knows most; None if they can't be
    equal parts."""
    if groups not in member.parts:
        member.parts[groups] = _at(member, groups)
    return member.parts[groups]


def _at(member: Member, groups: int) -> Touched | None:
    if groups <= 0 or member.extent % groups:
        return None
    units = member.extent // groups
    best: Touched | None = None
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
        for buffer, span in reads.items():
            if buffer in earlier[1] and not _apart(earlier[1][buffer], span):
                return False
        for buffer, span in writes.items():
            for touched in earlier:
                if buffer in touched and not _apart(touched[buffer], span):
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

    for i, member in enumerate(members):
        if member is None or member.work < LEAST_WORK:
            close()
            continue
        groups = _joint_groups(current, member, threads)
        following = members[i + 1] if i + 1 < len(members) else None
        if groups and following is not None and following.work >= LEAST_WORK:
            # What follows may be cut more finely with this member than this member with what came before.
            anew = _joint_groups(Chain([member]), following, threads)
            groups = groups if anew <= COARSER * groups else 0
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
    # A member that only fits in few large groups must not keep those behind it from being cut finely.
    finest = min(max(m.extent // level.units for level in m.levels) for m in every)
    least = max(GROUPS_PER_THREAD * threads, min(FINE_GROUPS_PER_THREAD * threads, finest))
    for groups in candidates:
        if groups < least:
            return 0
        if any(m.extent % groups for m in every):
            continue
        # Members that were together so far must stay so under a coarser grouping.
        first = len(every) - 1 if groups == chain.groups else 1
        lawful = all(may_follow(every[:i], every[i], groups) for i in range(first, len(every)))
        if lawful and _bytes(every, groups) <= CACHE_BYTES:
            return groups
    return 0


def _bytes(members: Sequence[Member], groups: int) -> int:
    """What one group hands from member to member."""
    touched = [part for m in members if (part := at(m, groups)) is not None]
    last = {buffer: i for i, (reads, _) in enumerate(touched) for buffer in reads}
    total = 0
    for i, (_, writes) in enumerate(touched):
        for buffer, span in writes.items():
            if span is not None and last.get(buffer, -1) > i:
                total += (span.high - span.low) * buffer.dtype.itemsize
    return total


def _chunk(chain: Chain, threads: int) -> int:
    """As many groups as the cache holds, and few enough that every thread gets several chunks."""
    fitting = CACHE_BYTES // max(_bytes(chain.members, chain.groups), 1)
    shared = -(-chain.groups // (4 * threads))
    return max(min(fitting, shared), 1)


def private_buffers(chain: Chain, users: Mapping[Buffer, Collection[int]]) -> dict[Buffer, Span]:
    """Temporaries that only the chain's members touch, each group a range of its own: every chunk has them on its
    thread's stack, and they are nowhere whole. `users` are the steps that touch a buffer. Gives each one's range."""
    steps = set(chain.steps)
    ranges: dict[Buffer, list[Span | None]] = {}
    for member in chain.members:
        touched = at(member, chain.groups)
        assert touched is not None
        for part in touched:
            for buffer, span in part.items():
                ranges.setdefault(buffer, []).append(span)
    found: dict[Buffer, Span] = {}
    for buffer, spans_ in ranges.items():
        known = [s for s in spans_ if s is not None]
        if buffer.kind != "temporary" or len(known) < len(spans_) or not steps.issuperset(users[buffer]):
            continue
        low, high = min(s.low for s in known), max(s.high for s in known)
        stride = known[0].stride
        if stride > 0 and all(s.stride == stride for s in known) and high - low <= stride:
            found[buffer] = Span(stride, low, high)
    return found


@dataclass(frozen=True)
class Call:
    """One member in a chain's function: its function, the units of a group, the words of its arguments, and which of
    them point so many bytes into private buffers."""

    function: str
    units: int
    words: int
    private: Mapping[int, tuple[Buffer, int]]


def chain_text(name: str, calls: Sequence[Call], private: Mapping[Buffer, Span], chunk: int) -> str:
    """A function that runs chunk [low, high) of each member in turn. Its arguments are the addresses of the members'
    own, which it copies where they point to private buffers: such an address is moved so that the elements of this
    chunk lie on the stack."""
    lines = [f"define internal void @{name}(ptr %args, i64 %low, i64 %high) #0 {{", "entry:"]
    for n, (buffer, span) in enumerate(private.items()):
        size = buffer.dtype.itemsize
        lines += [
            f"  %b{n} = alloca [{chunk * span.stride * size} x i8], align 64",
            f"  %m{n} = mul i64 %low, {span.stride * size}",
            f"  %n{n} = add i64 %m{n}, {span.low * size}",
            f"  %o{n} = sub i64 0, %n{n}",
            f"  %p{n} = getelementptr i8, ptr %b{n}, i64 %o{n}",
        ]
    place = {b: n for n, b in enumerate(private)}
    for i, call in enumerate(calls):
        if call.private:
            lines.append(f"  %t{i} = alloca [{call.words} x i64], align 16")
    for i, call in enumerate(calls):
        lines += [f"  %s{i} = getelementptr ptr, ptr %args, i64 {i}", f"  %a{i} = load ptr, ptr %s{i}"]
        table = f"%a{i}"
        if call.private:
            table = f"%t{i}"
            for word in range(call.words):
                lines.append(f"  %t{i}.{word} = getelementptr i64, ptr %t{i}, i64 {word}")
                if word in call.private:
                    buffer, offset = call.private[word]
                    lines.append(f"  %q{i}.{word} = getelementptr i8, ptr %p{place[buffer]}, i64 {offset}")
                    lines.append(f"  store ptr %q{i}.{word}, ptr %t{i}.{word}")
                    continue
                lines += [
                    f"  %a{i}.{word} = getelementptr i64, ptr %a{i}, i64 {word}",
                    f"  %w{i}.{word} = load i64, ptr %a{i}.{word}",
                    f"  store i64 %w{i}.{word}, ptr %t{i}.{word}",
                ]
        lines += [
            f"  %l{i} = mul i64 %low, {call.units}",
            f"  %h{i} = mul i64 %high, {call.units}",
            f"  call void @{call.function}(ptr {table}, i64 %l{i}, i64 %h{i})",
        ]
    return "\n".join([*lines, "  ret void", "}"])
