"""The order of steps, where another one than the program's takes less memory.

`peak` is what temporary buffers take at the worst step. The order tried is a greedy one: of the steps that may run, one
that frees more than it allocates comes first, then the first in the program's order. It replaces the program's order
only if it saves something worth having: neighbours in the program find each other's data in cache.

Law: steps may change places if neither reads what the other writes, they write different buffers, and they do not both
draw from a generator.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from graphtorch.lowering.kernel import Buffer, ExternCall, Kernel

Step = Kernel | ExternCall
WORTH = 0.05  # of the peak, and
WORTH_BYTES = 1 << 16  # bytes: an order that saves less is not taken


def order_for_memory(steps: Sequence[Step]) -> tuple[list[Step], str]:
    """The steps in an order that takes little memory, and a line of the report: empty if it is the given one."""
    sizes = {b: _likely_bytes(b) for s in steps for b in s.writes() if b.kind == "temporary"}
    before = peak(steps, sizes)
    if before < WORTH_BYTES:
        return list(steps), ""
    found = _greedy(steps, sizes)
    after = peak(found, sizes)
    if before - after < max(WORTH * before, WORTH_BYTES):
        return list(steps), ""
    line = f"steps run in another order than in the program: temporaries take {_megabytes(after)} instead of "
    return found, line + _megabytes(before)


def peak(steps: Sequence[Step], sizes: dict[Buffer, int]) -> int:
    """The most bytes of temporaries that live at one step."""
    last = {b: i for i, step in enumerate(steps) for b in (*step.reads(), *step.writes()) if b in sizes}
    live = most = 0
    made: set[Buffer] = set()
    ends: dict[int, list[Buffer]] = {}
    for buffer, i in last.items():
        ends.setdefault(i, []).append(buffer)
    for i, step in enumerate(steps):
        for buffer in step.writes():
            if buffer in sizes and buffer not in made:
                made.add(buffer)
                live += sizes[buffer]
        most = max(most, live)
        live -= sum(sizes[b] for b in ends.get(i, ()))
    return most


def _greedy(steps: Sequence[Step], sizes: dict[Buffer, int]) -> list[Step]:
    needs = dependencies(steps)
    readers: list[list[int]] = [[] for _ in steps]
    for i, before in enumerate(needs):
        for j in before:
            readers[j].append(i)
    waiting = [len(n) for n in needs]
    users: dict[Buffer, set[int]] = {b: set() for b in sizes}
    for i, step in enumerate(steps):
        for buffer in step.reads():
            if buffer in sizes:
                users[buffer].add(i)
    reads = [[b for b in dict.fromkeys(s.reads()) if b in sizes] for s in steps]
    writes = [[b for b in dict.fromkeys(s.writes()) if b in sizes] for s in steps]
    made: set[Buffer] = set()

    def growth(i: int) -> int:
        """What running a step now adds to the bytes that live."""
        allocated = sum(sizes[b] for b in writes[i] if b not in made and users[b])
        return allocated - sum(sizes[b] for b in reads[i] if users[b] == {i})

    # Entries go stale when another step's run changes a step's growth: a new one is pushed, and the old one skipped.
    key: dict[int, tuple[bool, int, int]] = {}
    heap: list[tuple[tuple[bool, int, int], int]] = []

    def push(i: int) -> None:
        added = growth(i)
        found = (added > 0, min(added, 0), i)
        if key.get(i) != found:
            key[i] = found
            heapq.heappush(heap, (found, i))

    for i, count in enumerate(waiting):
        if not count:
            push(i)
    order: list[Step] = []
    done: set[int] = set()
    while heap:
        found, i = heapq.heappop(heap)
        if i in done or key[i] != found:
            continue
        done.add(i)
        order.append(steps[i])
        made.update(writes[i])
        for buffer in reads[i]:
            users[buffer].discard(i)
            for other in users[buffer]:
                if other in key and other not in done:
                    push(other)
        for j in readers[i]:
            waiting[j] -= 1
            if not waiting[j]:
                push(j)
    assert len(order) == len(steps), "a cycle between steps"
    return order


def dependencies(steps: Sequence[Step]) -> list[set[int]]:
    """For each step those that must come before it."""
    writer: dict[Buffer, int] = {}
    readers: dict[Buffer, set[int]] = {}
    drawing = -1
    found: list[set[int]] = []
    for i, step in enumerate(steps):
        needs = {writer[b] for b in step.reads() if b in writer}
        for buffer in step.writes():
            if buffer in writer:
                needs.add(writer[buffer])
            needs |= readers.get(buffer, set())
        if isinstance(step, ExternCall) and step.op.random:
            if drawing >= 0:
                needs.add(drawing)
            drawing = i
        for buffer in step.reads():
            readers.setdefault(buffer, set()).add(i)
        for buffer in step.writes():
            writer[buffer] = i
            readers[buffer] = set()
        found.append(needs - {i})
    return found


def _likely_bytes(buffer: Buffer) -> int:
    """A buffer's size, with symbolic sizes as they were in the call that was captured."""
    total = buffer.dtype.itemsize
    for size in buffer.shape:
        total *= size if type(size) is int else (size.hint or 1024)
    return total


def _megabytes(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"
