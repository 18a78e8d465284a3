"""CUDA devices that lie in this process: programs for GPUs run on them, exactly and slowly, on a machine without one.

A device's memory has addresses that the host can't read (a range without access rights, so that a mistake is a fault
here as it is on a real device) and lies in truth in a second range, at a constant distance. Kernels are Python
functions that get addresses of that second range: Triton's interpreter runs their source. Freed memory is filled with a
pattern, NaN in every floating-point dtype. Streams run what they are given at once.

`executes=False` makes a recording device: kernels are counted and not run, for measuring what a launch costs the host.
"""

from __future__ import annotations

import bisect
import ctypes
import mmap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from graphtorch.runtime.cuda.driver import Capture, Driver, OutOfDeviceMemory, Properties

_PAGE = 4096
_GARBAGE = 0xFF


class Recorded(list[Callable[[], None]]):
    """What streams were sent instead of being run; these streams."""

    def __init__(self, *streams: Stream) -> None:
        super().__init__()
        self.streams = list(streams)


class Stream:
    """A stream of a simulated device; what is recorded instead of run goes to `recording`."""

    __slots__ = ("handle", "index", "recording")

    def __init__(self, index: int, handle: int) -> None:
        self.index = index
        self.handle = handle
        self.recording: Recorded | None = None


class Event:
    """The time at which it was recorded, in seconds; None before. `inside`: the recording that it is part of."""

    __slots__ = ("inside", "time", "timing")

    def __init__(self, timing: bool) -> None:
        self.timing = timing
        self.time: float | None = None
        self.inside: Recorded | None = None


class Kernel:
    """A function on the host's memory; `pointers` says which arguments are addresses."""

    __slots__ = ("calls", "function", "name")

    def __init__(self, name: str, function: Callable[[tuple[int, int, int], Sequence[Any]], None]) -> None:
        self.name = name
        self.function = function
        self.calls = 0


class SimulatedDriver(Driver):
    """`count` devices of `memory` bytes each."""

    interprets = True

    def __init__(
        self, count: int = 1, memory: int = 8 << 30, executes: bool = True, capability: tuple[int, int] = (9, 0)
    ) -> None:
        self.count = count
        self.memory = memory
        self.executes = executes
        self.capability = capability
        self.launches = 0
        self.log: list[tuple[Any, ...]] | None = None  # what a test wants to see, once it has put a list here
        size = memory * count
        # Addresses without memory behind them, and memory that takes no room until it is written.
        self._reserved = _map(size, 0)
        self._backing = _map(size, mmap.PROT_READ | mmap.PROT_WRITE)
        self.shift = self._backing - self._reserved
        self._free = [[(self._reserved + i * memory, memory)] for i in range(count)]
        self._blocks: dict[int, int] = {}
        self._host: dict[int, Any] = {}
        self._streams = 1
        self._default = [Stream(i, 0) for i in range(count)]

    def device_count(self) -> int:
        return self.count

    def properties(self, index: int) -> Properties:
        return Properties(
            "graphtorch simulated device",
            self.capability[0],
            self.capability[1],
            total_memory=self.memory,
            multi_processor_count=4,
            L2_cache_size=1 << 20,
            shared_memory_per_block_optin=232448,
            shared_memory_per_multiprocessor=233472,
        )

    def make_current(self, index: int) -> None:
        """Every call says its device."""

    def can_access_peer(self, index: int, peer: int) -> bool:
        return index != peer

    # -- memory ------------------------------------------------------------------------------------------------------

    def memory_info(self, index: int) -> tuple[int, int]:
        return sum(size for _, size in self._free[index]), self.memory

    def allocate(self, index: int, size: int) -> int:
        self._note("allocate", index, size)
        rounded = -(-size // _PAGE) * _PAGE
        free = self._free[index]
        for i, (address, room) in enumerate(free):
            if room >= rounded:
                free[i : i + 1] = [(address + rounded, room - rounded)] if room > rounded else []
                self._blocks[address] = rounded
                return address
        raise OutOfDeviceMemory(f"{size} bytes on device {index}")

    def free(self, index: int, address: int) -> None:
        self._note("free", index, address)
        size = self._blocks.pop(address)
        # Gives the pages back: they read as zeros until they are written again.
        _madvise(address + self.shift, size)
        free = self._free[index]
        at = bisect.bisect(free, (address, 0))
        free.insert(at, (address, size))
        for i in (at, at - 1):
            if 0 <= i < len(free) - 1 and free[i][0] + free[i][1] == free[i + 1][0]:
                free[i : i + 2] = [(free[i][0], free[i][1] + free[i + 1][1])]

    def spoil(self, address: int, size: int) -> None:
        """Fill memory that the allocator took back, so that a program which still reads it is found out."""
        if self.executes:
            ctypes.memset(address + self.shift, _GARBAGE, min(size, 1 << 16))

    def allocate_host(self, size: int) -> int:
        block = ctypes.create_string_buffer(max(size, 1))
        address = ctypes.addressof(block)
        self._host[address] = block
        return address

    def free_host(self, address: int) -> None:
        del self._host[address]

    def copy_in(self, target: int, source: int, size: int, stream: Stream) -> None:
        self._do(stream, lambda: ctypes.memmove(target + self.shift, source, size), "in", target, size)

    def copy_out(self, target: int, source: int, size: int, stream: Stream) -> None:
        self._do(stream, lambda: ctypes.memmove(target, source + self.shift, size), "out", source, size)

    def copy(self, target: int, source: int, size: int, stream: Stream) -> None:
        shift = self.shift
        self._do(stream, lambda: ctypes.memmove(target + shift, source + shift, size), "copy", target, source, size)

    def fill(self, target: int, byte: int, size: int, stream: Stream) -> None:
        self._do(stream, lambda: ctypes.memset(target + self.shift, byte, size), "fill", target, byte, size)

    def _do(self, stream: Stream, action: Callable[[], Any], *entry: Any) -> None:
        if self.log is not None:
            self.log.append(entry)
        if stream.recording is not None:
            stream.recording.append(action)
        elif self.executes:
            action()

    def _note(self, *entry: Any) -> None:
        if self.log is not None:
            self.log.append(entry)
        if any(s.recording is not None for s in self._default):
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")

    # -- streams and events ------------------------------------------------------------------------------------------

    def default_stream(self, index: int) -> Stream:
        return self._default[index]

    def create_stream(self, index: int, priority: int) -> Stream:
        self._streams += 1
        return Stream(index, 0x1000 + self._streams)

    def external_stream(self, index: int, handle: int) -> Stream:
        return self._default[index] if handle in (0, 1, 2) else Stream(index, handle)

    def stream_handle(self, stream: Stream) -> int:
        return stream.handle

    def stream_done(self, stream: Stream) -> bool:
        return True

    def wait_stream(self, stream: Stream) -> None:
        if stream.recording is not None:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")

    def wait_device(self, index: int) -> None:
        """Everything has run."""

    def create_event(self, index: int, timing: bool, blocking: bool) -> Event:
        return Event(timing)

    def record_event(self, event: Event, stream: Stream) -> None:
        event.time = time.perf_counter()
        event.inside = stream.recording

    def stream_wait_event(self, stream: Stream, event: Event) -> None:
        """What it would wait for has run; a stream that waits for a recorded one joins the recording."""
        if event.inside is not None and event.inside.streams and stream.recording is None:
            stream.recording = event.inside
            event.inside.streams.append(stream)
        elif stream.recording is not None and event.time is not None and event.inside is not stream.recording:
            raise RuntimeError("CUDA error: dependency created on uncaptured work in another stream")

    def event_done(self, event: Event) -> bool:
        return True

    def wait_event(self, event: Event) -> None:
        """What it would wait for has run."""

    def elapsed(self, start: Event, end: Event) -> float:
        if start.time is None or end.time is None:
            raise RuntimeError("CUDA error: invalid resource handle")
        return (end.time - start.time) * 1e3

    # -- kernels -----------------------------------------------------------------------------------------------------

    def load(self, index: int, code: Any, name: str, shared: int) -> Kernel:
        return Kernel(name, code)

    def launcher(
        self, kernel: Kernel, grid: tuple[int, int, int], block: int, shared: int
    ) -> Callable[[Stream, Sequence[Any]], None]:
        def launch(stream: Stream, arguments: Sequence[Any]) -> None:
            if self.log is not None:
                self.log.append(("launch", kernel.name, grid, tuple(arguments)))
            if stream.recording is not None:
                given = tuple(arguments)  # a graph keeps the arguments of the capture
                stream.recording.append(lambda: self._run(kernel, grid, given))
            else:
                self._run(kernel, grid, arguments)

        return launch

    def _run(self, kernel: Kernel, grid: tuple[int, int, int], arguments: Sequence[Any]) -> None:
        self.launches += 1
        kernel.calls += 1
        if self.executes:
            kernel.function(grid, arguments)

    @contextmanager
    def capture(self, index: int, stream: Stream) -> Iterator[Capture]:
        inside = Capture(Stream(index, 0xCA))
        recorded = Recorded(inside.stream)
        inside.stream.recording = recorded
        self._default.append(inside.stream)
        try:
            yield inside
        finally:
            self._default.remove(inside.stream)
            inside.stream.recording = None
        inside.graph = recorded

    def begin_capture(self, stream: Stream) -> None:
        if stream.recording is not None:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        stream.recording = Recorded(stream)

    def end_capture(self, stream: Stream) -> Any:
        recorded = stream.recording
        if recorded is None:
            raise RuntimeError("CUDA error: the operation requires an active capture")
        for other in recorded.streams:
            other.recording = None
        recorded.streams.clear()
        return recorded

    def abandon_capture(self, stream: Stream) -> None:
        self.end_capture(stream)

    def stream_capturing(self, stream: Stream) -> bool:
        return stream.recording is not None

    def launch_graph(self, graph: Any, stream: Stream) -> None:
        if self.log is not None:
            self.log.append(("graph", len(graph)))
        if self.executes:
            for action in graph:
                action()
        else:
            self.launches += 1


def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def _map(size: int, access: int) -> int:
    """A range of addresses that takes no memory until it is written."""
    function = _libc().mmap
    function.restype = ctypes.c_void_p
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    no_reserve = getattr(mmap, "MAP_NORESERVE", 0x4000)
    made = function(None, size, access, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve, -1, 0)
    if made is None or made == ctypes.c_void_p(-1).value:
        raise RuntimeError(f"no addresses for {size} bytes of simulated memory: {ctypes.get_errno()}")
    return int(made)


def _madvise(address: int, size: int) -> None:
    function = _libc().madvise
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    function(address, size, mmap.MADV_DONTNEED)
