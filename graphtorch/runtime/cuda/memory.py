"""The caching allocator of a device: blocks that were given back serve later requests without a call of the driver.

As in PyTorch (c10/cuda/CUDACachingAllocator): sizes are rounded up to 512 bytes; requests up to 1 MiB are cut from
segments of 2 MiB, those below 10 MiB from segments of 20 MiB, larger ones get a segment of their own in steps of 2 MiB;
the smallest block that fits is taken, split if much is left over, and merged with its free neighbours when it comes
back. A block belongs to the stream that it was allocated on, and may be given out again on that stream at once: what
the stream does next comes after what it did before. Uses by other streams are noted
(`record_stream`) and waited for with events. Where `Allocator.route` says so, memory belongs to a `MemoryPool` instead
of a stream: to recorded graphs, whose launches have the addresses inside.
"""

from __future__ import annotations

import bisect
import itertools
import os
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from graphtorch.runtime.cuda.driver import Driver, OutOfDeviceMemory
from graphtorch.tensor.devices import cuda_device
from graphtorch.tensor.remote import window

_ROUND = 512
_SMALL = 1 << 20  # requests up to here come from the small pool
_SMALL_SEGMENT = 2 << 20
_MEDIUM = 10 << 20  # requests below it share segments
_MEDIUM_SEGMENT = 20 << 20
_LARGE_STEP = 2 << 20


class OutOfMemoryError(RuntimeError):
    """A device has no memory left for a tensor. See torch.OutOfMemoryError."""


@dataclass(eq=False, slots=True)
class _Block:
    """A piece of a segment; neighbours in memory are linked."""

    address: int
    size: int
    segment: _Segment
    before: _Block | None = None
    after: _Block | None = None
    used: bool = False
    requested: int = -1  # bytes that were asked for; -1: not counted


_numbers = itertools.count(1)
POOLS: weakref.WeakValueDictionary[tuple[int, int], MemoryPool] = weakref.WeakValueDictionary()  # by their ids


class MemoryPool:
    """Memory that is handed out only by request (see `Allocator.route`), and stays reserved while it has `users`:
    recorded graphs, whose next replay writes what nobody holds now."""

    def __init__(self) -> None:
        self.id = (0, next(_numbers))
        self.users = 0
        self._shares: dict[int, _Share] = {}
        POOLS[self.id] = self

    def of(self, stream: Any) -> _Share:
        """The part of the pool that serves a stream: what one stream gives back, another may not have at once."""
        return self._shares.setdefault(id(stream), _Share(self, stream))


@dataclass(eq=False, slots=True)
class _Share:
    """What a stream has of a pool."""

    pool: MemoryPool
    stream: Any


@dataclass(eq=False, slots=True)
class _Segment:
    """What the driver gave. `owner`: the stream, or a pool's share, whose requests it serves; `window` lets NumPy make
    arrays over it."""

    address: int
    size: int
    stream: Any
    owner: Any
    small: bool
    window: memoryview


def _is_reserved(segment: _Segment) -> bool:
    """Whether a segment may be in use although none of its blocks is."""
    return isinstance(segment.owner, _Share) and segment.owner.pool.users > 0


class Allocation:
    """A block in use; it goes back to the allocator when nothing holds this any more."""

    __slots__ = ("__weakref__", "_allocator", "_block", "_streams", "address", "nbytes", "place", "start", "window")

    def __init__(self, allocator: Allocator, block: _Block, nbytes: int) -> None:
        self._allocator = allocator
        self._block = block
        self._streams: list[Any] | None = None
        self.address = block.address
        self.nbytes = nbytes
        self.place = allocator.place
        self.window = block.segment.window
        self.start = block.address - block.segment.address

    def record_stream(self, stream: Any) -> None:
        """Note that another stream uses the memory: it is given out again when that stream has come so far."""
        if stream is not self._block.segment.stream:
            self._streams = [*(self._streams or ()), stream]

    def __del__(self) -> None:
        self._allocator._give_back(self._block, self._streams)


class _Pool:
    """The free blocks of one stream and size class, by size and address."""

    __slots__ = ("blocks", "keys")

    def __init__(self) -> None:
        self.keys: list[tuple[int, int]] = []
        self.blocks: dict[int, _Block] = {}

    def add(self, block: _Block) -> None:
        bisect.insort(self.keys, (block.size, block.address))
        self.blocks[block.address] = block

    def remove(self, block: _Block) -> None:
        del self.keys[bisect.bisect_left(self.keys, (block.size, block.address))]
        del self.blocks[block.address]

    def take(self, size: int) -> _Block | None:
        """The smallest block that holds so many bytes."""
        at = bisect.bisect_left(self.keys, (size, 0))
        if at == len(self.keys):
            return None
        block = self.blocks.pop(self.keys[at][1])
        del self.keys[at]
        return block


@dataclass(slots=True)
class Counter:
    """One figure of the statistics."""

    current: int = 0
    peak: int = 0
    allocated: int = 0
    freed: int = 0

    def add(self, amount: int) -> None:
        self.current += amount
        self.allocated += amount
        self.peak = max(self.peak, self.current)

    def remove(self, amount: int) -> None:
        self.current -= amount
        self.freed += amount


@dataclass
class Statistics:
    """What `torch.cuda.memory_stats` says. Bytes count rounded blocks, requested ones what was asked for."""

    allocated: Counter = field(default_factory=Counter)
    reserved: Counter = field(default_factory=Counter)
    requested: Counter = field(default_factory=Counter)
    blocks: Counter = field(default_factory=Counter)
    segments: Counter = field(default_factory=Counter)
    retries: int = 0
    failures: int = 0


class Allocator:
    """The memory of one device. Thread-safe."""

    def __init__(self, driver: Driver, index: int) -> None:
        self.driver = driver
        self.index = index
        self.place = cuda_device(index)
        self.statistics = Statistics()
        self.fraction = 1.0
        self._lock = threading.RLock()
        self.route: Callable[[Any], Any] | None = None  # for requests of a stream: whose memory they get
        self._pools: dict[tuple[int, bool], _Pool] = {}  # by the id of the owner, and whether small
        self._segments: dict[int, _Segment] = {}
        self._waiting: list[tuple[_Block, list[Any]]] = []  # with the events of streams that still use them
        self._returned: list[tuple[_Block, list[Any] | None]] = []
        self._later: list[tuple[_Block, list[Any] | None]] = []
        self._recent: dict[tuple[int, int], list[_Block]] = {}  # came back, and not merged yet: by owner and size
        self._spoil = getattr(driver, "spoil", None)

    def allocate(self, nbytes: int, stream: Any, counted: bool = True) -> Allocation:
        """A block of memory for use on a stream; not `counted` as allocated if it is the library's own.

        Raises OutOfMemoryError.
        """
        size = -(-nbytes // _ROUND) * _ROUND or _ROUND
        owner = stream if self.route is None else self.route(stream)
        with self._lock:
            if self._returned or self._waiting:
                self._settle()
            # Programs ask for the same sizes again and again: what came back last is looked at first, as it is.
            recent = self._recent.get((id(owner), size))
            block = recent.pop() if recent else self._find(size, stream, owner, nbytes)
            if counted:
                s = self.statistics
                for counter, amount in ((s.allocated, block.size), (s.requested, nbytes), (s.blocks, 1)):
                    counter.allocated += amount
                    counter.current += amount
                    if counter.current > counter.peak:
                        counter.peak = counter.current
                block.requested = nbytes
        return Allocation(self, block, nbytes)

    def _find(self, size: int, stream: Any, owner: Any, nbytes: int) -> _Block:
        """A free block of the size, cut from a larger one or from a new segment."""
        small = size <= _SMALL
        pool = self._pool(owner, small)
        block = pool.take(size)
        if block is None and self._recent:
            self._merge_recent()
            block = pool.take(size)
        if block is None:
            block = self._grow(size, stream, owner, small, nbytes)
        rest = block.size - size
        if rest >= _ROUND if small else rest > _SMALL:
            tail = _Block(block.address + size, rest, block.segment, block, block.after)
            if block.after is not None:
                block.after.before = tail
            block.after, block.size = tail, size
            pool.add(tail)
        block.used = True
        return block

    def _pool(self, owner: Any, small: bool) -> _Pool:
        key = (id(owner), small)
        found = self._pools.get(key)
        if found is None:
            found = self._pools[key] = _Pool()
        return found

    def _grow(self, size: int, stream: Any, owner: Any, small: bool, nbytes: int) -> _Block:
        if small:
            wanted = _SMALL_SEGMENT
        elif size < _MEDIUM:
            wanted = _MEDIUM_SEGMENT
        else:
            wanted = -(-size // _LARGE_STEP) * _LARGE_STEP
        try:
            address = self._ask(wanted)
        except OutOfDeviceMemory:
            self.statistics.retries += 1
            self._release()
            try:
                address = self._ask(wanted)
            except OutOfDeviceMemory:
                self.statistics.failures += 1
                raise OutOfMemoryError(self._explain(nbytes)) from None
        segment = _Segment(address, wanted, stream, owner, small, window(address, wanted))
        self._segments[address] = segment
        self.statistics.reserved.add(wanted)
        self.statistics.segments.add(1)
        return _Block(address, wanted, segment)

    def _ask(self, size: int) -> int:
        if self.fraction < 1:
            _, total = self.driver.memory_info(self.index)
            if self.statistics.reserved.current + size > total * self.fraction:
                raise OutOfDeviceMemory
        return self.driver.allocate(self.index, size)

    def _explain(self, nbytes: int) -> str:
        """PyTorch's message."""
        free, total = self.driver.memory_info(self.index)
        allocated, reserved = self.statistics.allocated.current, self.statistics.reserved.current
        limit = f" {human(int(total * self.fraction))} allowed;" if self.fraction < 1 else ""
        return (
            f"CUDA out of memory. Tried to allocate {human(nbytes)}. GPU {self.index} has a total capacity of "
            f"{human(total)} of which {human(free)} is free. Process {os.getpid()} has {human(reserved)} memory in use."
            f"{limit} Of the allocated memory {human(allocated)} is allocated by PyTorch, and "
            f"{human(reserved - allocated)} is reserved by PyTorch but unallocated. If reserved but unallocated memory "
            "is large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation.  See "
            "documentation for Memory Management  (https://pytorch.org/docs/stable/notes/cuda.html"
            "#environment-variables)"
        )

    # -- giving back -------------------------------------------------------------------------------------------------

    def _give_back(self, block: _Block, streams: list[Any] | None) -> None:
        # A destructor may run inside `allocate` of this very thread: it only notes, the next request does the work.
        self._returned.append((block, streams))
        if len(self._returned) > 64 and self._lock.acquire(blocking=False):
            try:
                self._settle()
            finally:
                self._lock.release()

    def _settle(self) -> None:
        """Take back what was returned, and what other streams have finished with."""
        while self._returned:
            block, streams = self._returned.pop()
            if block.requested >= 0:
                s = self.statistics
                for counter, amount in ((s.allocated, block.size), (s.requested, block.requested), (s.blocks, 1)):
                    counter.current -= amount
                    counter.freed += amount
                block.requested = -1
            if not streams:
                self._keep(block)
                continue
            if self.route is not None:  # streams may be recorded: what they have finished is asked later
                self._later.append((block, streams))
                continue
            events = []
            for stream in streams:
                event = self.driver.create_event(self.index, False, False)
                self.driver.record_event(event, stream)
                events.append(event)
            self._waiting.append((block, events))
        if self.route is not None:
            return
        if self._later:
            later, self._later = self._later, []
            self._returned.extend(later)
            self._settle()
        elif self._waiting:
            kept = []
            for block, events in self._waiting:
                if all(map(self.driver.event_done, events)):
                    self._keep(block)
                else:
                    kept.append((block, events))
            self._waiting = kept

    def _keep(self, block: _Block) -> None:
        """Have a block ready for the next request of its size."""
        if self._spoil is not None:
            self._spoil(block.address, block.size)
        self._recent.setdefault((id(block.segment.owner), block.size), []).append(block)

    def _merge_recent(self) -> None:
        for blocks in self._recent.values():
            for block in blocks:
                self._merge(block)
        self._recent.clear()

    def _merge(self, block: _Block) -> None:
        block.used = False
        pool = self._pool(block.segment.owner, block.segment.small)
        before, after = block.before, block.after
        if before is not None and not before.used and before.address in pool.blocks:
            pool.remove(before)
            before.size += block.size
            before.after = after
            if after is not None:
                after.before = before
            block = before
        if after is not None and not after.used and after.address in pool.blocks:
            pool.remove(after)
            block.size += after.size
            block.after = after.after
            if after.after is not None:
                after.after.before = block
        pool.add(block)

    def release(self) -> None:
        """Give segments that nothing uses back to the driver."""
        with self._lock:
            self._release()

    def _release(self) -> None:
        self._settle()
        for block, events in self._waiting:
            for event in events:
                self.driver.wait_event(event)
            self._keep(block)
        self._waiting = []
        self._merge_recent()
        whole = [
            (pool, block)
            for pool in self._pools.values()
            for block in pool.blocks.values()
            if block.size == block.segment.size and not _is_reserved(block.segment)
        ]
        if whole:
            self.driver.wait_device(self.index)
        for pool, block in whole:
            pool.remove(block)
            del self._segments[block.address]
            self.driver.free(self.index, block.address)
            self.statistics.reserved.remove(block.size)
            self.statistics.segments.remove(1)

    # -- statistics --------------------------------------------------------------------------------------------------

    def read(self) -> Statistics:
        """The figures of now."""
        with self._lock:
            self._settle()
            return self.statistics

    def reset_peaks(self) -> None:
        for counter in self._counters():
            counter.peak = counter.current

    def reset_accumulated(self) -> None:
        for counter in self._counters():
            counter.allocated = counter.freed = 0
        self.statistics.retries = self.statistics.failures = 0

    def _counters(self) -> list[Counter]:
        s = self.read()
        return [s.allocated, s.reserved, s.requested, s.blocks, s.segments]

    def snapshot(self, wanted: MemoryPool | None = None) -> list[dict[str, Any]]:
        """The segments, of one pool if that is given, and their blocks. See torch.cuda.memory_snapshot."""
        with self._lock:
            self._settle()
            self._merge_recent()
            free = {b.address: b for pool in self._pools.values() for b in pool.blocks.values()}
            found = []
            for segment in self._segments.values():
                pool = segment.owner.pool if isinstance(segment.owner, _Share) else None
                if wanted is not None and pool is not wanted:
                    continue
                idle = [b for b in free.values() if b.segment is segment]
                used = segment.size - sum(b.size for b in idle)
                found.append(
                    {
                        "device": self.index,
                        "address": segment.address,
                        "total_size": segment.size,
                        "allocated_size": used,
                        "active_size": used,
                        "stream": self.driver.stream_handle(segment.stream),
                        "segment_pool_id": (0, 0) if pool is None else pool.id,
                        "segment_type": "small" if segment.small else "large",
                        "blocks": [{"address": b.address, "size": b.size, "state": "inactive"} for b in idle],
                    }
                )
            return found


def human(size: int) -> str:
    """Bytes as PyTorch's out-of-memory message writes them."""
    if size <= 1024:
        return f"{size} bytes"
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB")):
        if size >= unit:
            return f"{size / unit:.2f} {name}"
    return f"{size / 1024:.2f} KiB"
