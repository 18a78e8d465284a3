"""CUDA graphs of eager code: what a thread sends to a stream is recorded, to be sent again at once later.

A recorded launch has its addresses inside. Memory that is allocated during a recording therefore comes from a pool that
stays reserved as long as the graph lives, and what a prepared program keeps for itself (numbers, tables of addresses,
positions of random streams) is made for the graph alone: it is written before a replay, so that random numbers are new
ones each time. What a recording can't hold (waiting for the device, copies through memory that may move) raises.

See https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from graphtorch.runtime.cuda import devices
from graphtorch.runtime.cuda.memory import Allocation, MemoryPool

MODES = ("global", "thread_local", "relaxed")
_NOT_PERMITTED = "CUDA error: operation not permitted when stream is capturing"


class Part(Protocol):
    """What writes the memory of a recorded program before replays."""

    @property
    def changes(self) -> bool:
        """Whether it writes before each replay, not only before the first one."""

    def write(self, stream: Any) -> None: ...


class _Local(threading.local):
    """The recording of a thread, and the pools that it allocates from, by device."""

    def __init__(self) -> None:
        self.capture: Capture | None = None
        self.pools: list[tuple[int, MemoryPool]] = []


_local = _Local()
_routed: dict[devices.Device, int] = {}  # how many recordings and pools in use there are
_lock = threading.Lock()
underway: list[Capture] = []  # of all threads: empty almost always, which is quickly seen


class Capture:
    """One recording.

    stream   that is recorded; others join by waiting for its events
    pool     that memory for what is recorded comes from
    parts    programs of the recording that are written to before replays
    held     what copies of the recording read or write on the host
    """

    def __init__(self, where: devices.Device, stream: Any, pool: MemoryPool, mode: str) -> None:
        self.where = where
        self.stream = stream
        self.pool = pool
        self.mode = mode
        self.parts: list[Part] = []
        self.held: list[Any] = []
        self.failed = False
        self._own = MemoryPool()  # for what is written before replays: no launch of the recording may have it as well
        self._own.users = 1

    def close(self) -> None:
        """Give up what belongs to the graph: it is not replayed any more."""
        self.parts.clear()
        self.held.clear()
        self._own.users = 0

    def hold(self, nbytes: int) -> Allocation:
        """Memory that belongs to the graph alone."""
        with allocating(self.where, self._own):
            return self.where.allocator.allocate(nbytes, self.stream, False)

    def fail(self, message: str) -> RuntimeError:
        """The error for what a recording can't hold, which it does not survive."""
        self.failed = True
        return RuntimeError(message)


def current() -> Capture | None:
    """The recording of this thread."""
    return _local.capture


def of_stream(stream: Any) -> Capture | None:
    """The recording of this thread, if it records what a stream is sent."""
    found = _local.capture
    return found if found is not None and found.where.driver.stream_capturing(stream) else None


def refuse(stream: Any = None) -> None:
    """Raise RuntimeError, as CUDA does, where this thread would wait during a recording: for anything, or in the mode
    "relaxed", for a stream that is recorded."""
    found = _local.capture
    if found is not None and (found.mode != "relaxed" or stream is None or of_stream(stream) is not None):
        raise found.fail(_NOT_PERMITTED)


def refuse_copy(stream: Any) -> None:
    """Raise RuntimeError for a copy between the host's pageable memory and a device during a recording."""
    found = of_stream(stream)
    if found is not None:
        raise found.fail(
            "Cannot copy between CPU and CUDA tensors during CUDA graph capture unless the CPU tensor is pinned. "
            "Please use tensor.pin_memory() or allocate the tensor with pin_memory=True."
        )


@contextmanager
def allocating(where: devices.Device, pool: MemoryPool) -> Iterator[None]:
    """Let this thread's requests of memory on a device be served from a pool."""
    _local.pools.append((where.index, pool))
    _route(where, 1)
    try:
        yield
    finally:
        _route(where, -1)
        _local.pools.pop()


def _route(where: devices.Device, change: int) -> None:
    with _lock:
        count = _routed[where] = _routed.get(where, 0) + change
        if not count:
            del _routed[where]

    def owner(stream: Any) -> Any:
        for index, pool in reversed(_local.pools):
            if index == where.index:
                return pool.of(stream)
        found = _local.capture
        if found is not None and found.where is where and where.driver.stream_capturing(stream):
            return found.pool.of(stream)
        return stream

    where.allocator.route = owner if count else None


def begin(where: devices.Device, stream: Any, pool: MemoryPool, mode: str) -> Capture:
    """Record what this thread sends to a stream from here on."""
    if _local.capture is not None:
        raise _local.capture.fail(_NOT_PERMITTED)
    made = Capture(where, stream, pool, mode)
    where.driver.begin_capture(stream)
    _local.capture = made
    underway.append(made)
    _route(where, 1)
    return made


def end(capture: Capture) -> Any:
    """The driver's graph. Raises RuntimeError for a recording that something failed in."""
    _local.capture = None
    underway.remove(capture)
    _route(capture.where, -1)
    driver = capture.where.driver
    if capture.failed:
        driver.abandon_capture(capture.stream)
        raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
    return driver.end_capture(capture.stream)


def replay(capture: Capture, graph: Any, first: bool) -> None:
    """Send everything again, to the current stream."""
    stream = devices.stream_of(capture.where)
    for part in capture.parts:
        if first or part.changes:
            part.write(stream)
    capture.where.driver.launch_graph(graph, stream)
