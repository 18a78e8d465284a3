"""The memory of CUDA devices: figures of the caching allocator, and giving back what it keeps."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from graphtorch.runtime.cuda import devices, graphs
from graphtorch.runtime.cuda.memory import Allocator, Counter, MemoryPool
from graphtorch.runtime.cuda.memory import OutOfMemoryError as OutOfMemoryError
from graphtorch.runtime.cuda.streams import index_of

__all__ = [
    *("MemPool", "use_mem_pool"),
    *("OutOfMemoryError", "empty_cache", "get_per_process_memory_fraction", "max_memory_allocated"),
    *("max_memory_cached", "max_memory_reserved", "mem_get_info", "memory_allocated", "memory_cached"),
    *("memory_reserved", "memory_snapshot", "memory_stats", "memory_stats_as_nested_dict", "memory_summary"),
    *("reset_accumulated_memory_stats", "reset_max_memory_allocated", "reset_max_memory_cached"),
    *("reset_peak_memory_stats", "set_per_process_memory_fraction"),
]


def _allocator(device: Any) -> Allocator | None:
    """None without a device, of which all figures are 0."""
    return devices.device(index_of(device)).allocator if devices.count() else None


def memory_allocated(device: Any = None) -> int:
    """Bytes that tensors have now."""
    found = _allocator(device)
    return 0 if found is None else found.read().allocated.current


def max_memory_allocated(device: Any = None) -> int:
    """The most bytes that tensors had at a time, since the start or the last reset."""
    found = _allocator(device)
    return 0 if found is None else found.read().allocated.peak


def memory_reserved(device: Any = None) -> int:
    """Bytes that the allocator has from the driver."""
    found = _allocator(device)
    return 0 if found is None else found.read().reserved.current


def max_memory_reserved(device: Any = None) -> int:
    """The most bytes that the allocator had from the driver."""
    found = _allocator(device)
    return 0 if found is None else found.read().reserved.peak


memory_cached, max_memory_cached = memory_reserved, max_memory_reserved


def reset_peak_memory_stats(device: Any = None) -> None:
    """Let the highest figures start anew from those of now. Raises AssertionError without a device."""
    devices.device(index_of(device)).allocator.reset_peaks()


reset_max_memory_allocated = reset_max_memory_cached = reset_peak_memory_stats


def reset_accumulated_memory_stats(device: Any = None) -> None:
    """Let the totals start anew. Raises AssertionError without a device."""
    devices.device(index_of(device)).allocator.reset_accumulated()


def empty_cache() -> None:
    """Give the driver back what no tensor uses."""
    for index in range(devices.count()):
        devices.device(index).allocator.release()
    if devices.count():
        devices.device()


def mem_get_info(device: Any = None) -> tuple[int, int]:
    """(free, total) bytes of a device. Raises AssertionError without one."""
    found = devices.device(index_of(device))
    return found.driver.memory_info(found.index)


def set_per_process_memory_fraction(fraction: float, device: Any = None) -> None:
    """Let the allocator take no more than that part of a device.

    Raises ValueError outside of 0 to 1, AssertionError without a device.
    """
    if not isinstance(fraction, float | int):
        raise TypeError("Invalid type for fraction argument, must be `float`")
    found = devices.device(index_of(device))
    if not 0 <= fraction <= 1:
        raise ValueError(f"Invalid fraction value: {fraction}. Allowed range: 0~1")
    found.allocator.fraction = float(fraction)


def get_per_process_memory_fraction(device: Any = None) -> float:
    """What `set_per_process_memory_fraction` set. Raises AssertionError without a device."""
    return devices.device(index_of(device)).allocator.fraction


def memory_snapshot(*args: Any, **kwargs: Any) -> list[dict[str, Any]]:
    """The allocator's segments on all devices, and their free blocks."""
    return [s for index in range(devices.count()) for s in devices.device(index).allocator.snapshot()]


def _entries(prefix: str, counter: Counter) -> list[tuple[str, int]]:
    return [
        (f"{prefix}.all.allocated", counter.allocated),
        (f"{prefix}.all.current", counter.current),
        (f"{prefix}.all.freed", counter.freed),
        (f"{prefix}.all.peak", counter.peak),
    ]


def memory_stats(device: Any = None) -> OrderedDict[str, Any]:
    """The allocator's figures under PyTorch's names; empty without a device. Pools are counted together (`all`)."""
    found = _allocator(device)
    if found is None:
        return OrderedDict()
    s = found.read()
    entries: list[tuple[str, int]] = []
    for prefix, counter in (
        ("active", s.blocks),
        ("active_bytes", s.allocated),
        ("allocated_bytes", s.allocated),
        ("allocation", s.blocks),
        ("requested_bytes", s.requested),
        ("reserved_bytes", s.reserved),
        ("segment", s.segments),
    ):
        entries += _entries(prefix, counter)
    entries += [("num_alloc_retries", s.retries), ("num_ooms", s.failures)]
    return OrderedDict(sorted(entries))


def memory_stats_as_nested_dict(device: Any = None) -> dict[str, Any]:
    """`memory_stats` as dictionaries in dictionaries."""
    nested: dict[str, Any] = {}
    for name, value in memory_stats(device).items():
        *path, last = name.split(".")
        inner = nested
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return nested


_ROWS = (
    ("Allocated memory", "allocated_bytes", True),
    ("Active memory", "active_bytes", True),
    ("Requested memory", "requested_bytes", True),
    ("GPU reserved memory", "reserved_bytes", True),
    ("Allocations", "allocation", False),
    ("GPU reserved segments", "segment", False),
)


def _bytes(size: int) -> str:
    units = ["B  ", "KiB", "MiB", "GiB", "TiB", "PiB"]
    unit = units[0]
    for following in units[1:]:
        if size < 768 * 1024:
            break
        unit = following
        size //= 1024
    return f"{size:6d} {unit}"


def _count(n: int) -> str:
    units = ["  ", "K ", "M "]
    unit = units[0]
    for following in units[1:]:
        if n < 750 * 1000:
            break
        unit = following
        n //= 1000
    return f"{n:6d} {unit} "


def memory_summary(device: Any = None, abbreviated: bool = False) -> str:
    """The figures as a table. Raises AssertionError without a device."""
    where = devices.device(index_of(device))
    stats = memory_stats(where.index)
    width = 75
    title = f" PyTorch CUDA memory summary, device ID {where.index} "
    failures = f" CUDA OOMs: {stats['num_ooms']:<12} | cudaMalloc retries: {stats['num_alloc_retries']:<8} "
    lines = [
        f"|{'=' * width}|",
        f"|{title:^{width}}|",
        f"|{'-' * width}|",
        f"|{failures:^{width}}|",
        f"|{'=' * width}|",
        "|        Metric         | Cur Usage  | Peak Usage | Tot Alloc  | Tot Freed  |",
    ]
    for name, key, is_bytes in _ROWS:
        if abbreviated and key in ("active_bytes", "requested_bytes"):
            continue
        shown = _bytes if is_bytes else _count
        cells = [shown(stats[f"{key}.all.{part}"]) for part in ("current", "peak", "allocated", "freed")]
        lines += [f"|{'-' * width}|", f"| {name:<21} | " + " | ".join(cells) + " |"]
    return "\n".join([*lines, f"|{'=' * width}|", ""])


class MemPool:
    """Memory apart from what other tensors get, for those that are made under `use_mem_pool`. It goes back to the
    device when neither the pool nor a tensor in it is there any more. See torch.cuda.MemPool.

    Raises RuntimeError without a device, and for an allocator of another library.
    """

    def __init__(self, allocator: Any = None, use_on_oom: bool = False, no_split: bool = False) -> None:
        if not devices.count():
            raise RuntimeError("Tried to instantiate dummy base class MemPool")
        if allocator is not None:
            raise RuntimeError("MemPool: allocators of other libraries are not supported")
        self._pool = MemoryPool()
        self._pool.users = 1

    @property
    def id(self) -> tuple[int, int]:
        """What `torch.cuda.graph(pool=...)` takes."""
        return self._pool.id

    def use_count(self) -> int:
        """How many hold the pool: this object, and graphs."""
        return self._pool.users

    def snapshot(self) -> list[dict[str, Any]]:
        """The segments of the pool on the current device."""
        return devices.device().allocator.snapshot(self._pool)

    def __del__(self) -> None:
        if hasattr(self, "_pool"):
            self._pool.users -= 1


@contextmanager
def use_mem_pool(pool: MemPool, device: Any = None) -> Iterator[None]:
    """Let this thread's tensors on a device, by default the current one, lie in a pool."""
    with graphs.allocating(devices.device(index_of(device)), pool._pool):
        yield
