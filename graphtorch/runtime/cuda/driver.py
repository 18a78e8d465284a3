"""What the runtime asks of a CUDA driver, and which driver there is.

`GRAPHTORCH_CUDA` chooses: unset, real devices through cuda.core where there are any; `simulated` (or `simulated:2` for
two devices), devices that lie in this process; `none`, no devices. Addresses and sizes are ints, streams, events,
kernels and graphs are the driver's own objects."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any


class OutOfDeviceMemory(RuntimeError):
    """The driver has no memory left; the allocator makes PyTorch's OutOfMemoryError of it."""

    def __init__(self, message: str = "CUDA error: out of memory") -> None:
        super().__init__(message)


class CudaUnavailable(Exception):
    """There is no driver or no device, and why."""


class _Told(threading.local):
    """The driver and the number of the device that calls of this thread go to, as far as is known: `Device.key`."""

    key: tuple[Driver, int] | None = None


told = _Told()


def _forget() -> None:
    told.key = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@dataclass(frozen=True)
class Properties:
    """What a device is. Memory in bytes; see torch.cuda.get_device_properties."""

    name: str
    major: int
    minor: int
    total_memory: int
    multi_processor_count: int
    warp_size: int = 32
    L2_cache_size: int = 0
    max_threads_per_multi_processor: int = 2048
    regs_per_multiprocessor: int = 65536
    shared_memory_per_block: int = 49152
    shared_memory_per_block_optin: int = 0
    shared_memory_per_multiprocessor: int = 0
    is_integrated: int = 0
    is_multi_gpu_board: int = 0
    uuid: str = ""


class Driver(ABC):
    """A CUDA driver. Every call may raise RuntimeError with the driver's word for what went wrong."""

    interprets: bool = False  # whether kernels are Python functions on the host's memory

    @abstractmethod
    def device_count(self) -> int: ...

    @abstractmethod
    def properties(self, index: int) -> Properties: ...

    @abstractmethod
    def make_current(self, index: int) -> None:
        """Make a device the one that this thread's calls go to. What else changes that forgets `told`."""

    @abstractmethod
    def can_access_peer(self, index: int, peer: int) -> bool: ...

    # -- memory ------------------------------------------------------------------------------------------------------

    @abstractmethod
    def memory_info(self, index: int) -> tuple[int, int]:
        """(free, total) bytes."""

    @abstractmethod
    def allocate(self, index: int, size: int) -> int:
        """The address of a new block. Raises OutOfDeviceMemory."""

    @abstractmethod
    def free(self, index: int, address: int) -> None:
        """Give a block back; may wait for the device."""

    @abstractmethod
    def allocate_host(self, size: int) -> int:
        """Page-locked host memory."""

    @abstractmethod
    def free_host(self, address: int) -> None: ...

    @abstractmethod
    def copy_in(self, target: int, source: int, size: int, stream: Any) -> None:
        """Host to device. Pageable memory may be changed as soon as the call returns, page-locked memory may not."""

    @abstractmethod
    def copy_out(self, target: int, source: int, size: int, stream: Any) -> None:
        """Device to host. What page-locked memory holds is known when the stream got there."""

    @abstractmethod
    def copy(self, target: int, source: int, size: int, stream: Any) -> None:
        """Device to device, the same or another."""

    @abstractmethod
    def fill(self, target: int, byte: int, size: int, stream: Any) -> None: ...

    # -- streams and events ------------------------------------------------------------------------------------------

    @abstractmethod
    def default_stream(self, index: int) -> Any: ...

    @abstractmethod
    def create_stream(self, index: int, priority: int) -> Any: ...

    @abstractmethod
    def external_stream(self, index: int, handle: int) -> Any:
        """A stream of somebody else's, by its number."""

    @abstractmethod
    def stream_handle(self, stream: Any) -> int:
        """The number that other libraries know a stream by."""

    @abstractmethod
    def stream_done(self, stream: Any) -> bool: ...

    @abstractmethod
    def wait_stream(self, stream: Any) -> None:
        """Make the host wait for everything in a stream."""

    @abstractmethod
    def wait_device(self, index: int) -> None: ...

    @abstractmethod
    def create_event(self, index: int, timing: bool, blocking: bool) -> Any: ...

    @abstractmethod
    def record_event(self, event: Any, stream: Any) -> None: ...

    @abstractmethod
    def stream_wait_event(self, stream: Any, event: Any) -> None: ...

    @abstractmethod
    def event_done(self, event: Any) -> bool: ...

    @abstractmethod
    def wait_event(self, event: Any) -> None: ...

    @abstractmethod
    def elapsed(self, start: Any, end: Any) -> float:
        """Milliseconds between two events with timing."""

    # -- kernels -----------------------------------------------------------------------------------------------------

    @abstractmethod
    def load(self, index: int, code: Any, name: str, shared: int) -> Any:
        """A kernel of a cubin that may use so much dynamic shared memory; for a driver that interprets, of a function
        `code(grid, arguments)`."""

    @abstractmethod
    def launcher(
        self, kernel: Any, grid: tuple[int, int, int], block: int, shared: int
    ) -> Callable[[Any, Sequence[Any]], None]:
        """A function `launch(stream, arguments)`; pointers are ints, other arguments ctypes or NumPy numbers."""

    @abstractmethod
    def capture(self, index: int, stream: Any) -> AbstractContextManager[Capture]:
        """A block whose launches and copies on `capture.stream` are recorded and not run."""

    @abstractmethod
    def begin_capture(self, stream: Any) -> None:
        """From here on record what a stream is sent, and streams that wait for its events, and run none of it."""

    @abstractmethod
    def end_capture(self, stream: Any) -> Any:
        """The graph of what was recorded since `begin_capture`."""

    @abstractmethod
    def abandon_capture(self, stream: Any) -> None:
        """End a recording, and forget it."""

    @abstractmethod
    def stream_capturing(self, stream: Any) -> bool:
        """Whether what a stream is sent is recorded."""

    @abstractmethod
    def launch_graph(self, graph: Any, stream: Any) -> None: ...


class Capture:
    """A recording of launches; `graph` is there when the block has ended."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.graph: Any = None


def choice() -> str:
    """What GRAPHTORCH_CUDA says."""
    return os.environ.get("GRAPHTORCH_CUDA", "").strip().lower()


@cache
def find_driver() -> Driver:
    """The driver of this process. Raises CudaUnavailable where there is none, or no device."""
    chosen = choice()
    kind, _, count = chosen.partition(":")
    if kind in ("none", "off", "0"):
        raise CudaUnavailable("GRAPHTORCH_CUDA says so")
    if kind == "simulated":
        from graphtorch.runtime.cuda.simulated import SimulatedDriver

        return SimulatedDriver(int(count or 1))
    if kind:
        raise ValueError(f"GRAPHTORCH_CUDA must be simulated, simulated:<count> or none, got {chosen!r}")
    from graphtorch.runtime.cuda.core import CoreDriver

    return CoreDriver()


_forced: Driver | None = None


def driver() -> Driver:
    """The driver in use: the process's, or what a test has put in its place."""
    return find_driver() if _forced is None else _forced


def use_driver(chosen: Driver | None) -> None:
    """Put another driver in the place of the process's own, for tests; None puts that back. Tensors of one can't be
    used under the other."""
    global _forced
    _forced = chosen


def unavailable() -> str | None:
    """Why there is no CUDA device, in words; None if there is one."""
    try:
        driver()
    except CudaUnavailable as why:
        return str(why)
    return None
