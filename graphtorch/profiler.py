"""Times of named ranges, `torch.profiler`: how often each `record_function` block ran, and how long.

Operators inside a block are not listed one by one; `graphtorch dump` and `explain()` show what a compiled function
runs."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any


class ProfilerActivity(Enum):
    """What PyTorch's profiler can watch."""

    CPU = "CPU"
    CUDA = "CUDA"
    XPU = "XPU"


class ProfilerAction(Enum):
    """What a schedule asks for at a step."""

    NONE = 0
    WARMUP = 1
    RECORD = 2
    RECORD_AND_SAVE = 3


_active: list[profile] = []


class record_function:
    """A named range, as a context manager or decorator. See torch.profiler.record_function."""

    def __init__(self, name: str, args: str | None = None) -> None:
        self.name = name
        self._started: list[float] = []

    def __enter__(self) -> record_function:
        self._started.append(time.perf_counter())
        return self

    def __exit__(self, *error: object) -> None:
        spent = time.perf_counter() - self._started.pop()
        for active in _active:
            active._note(self.name, spent)

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with record_function(self.name):
                return function(*args, **kwargs)

        return wrapped


class Event:
    """A range by name: `count` runs of `cpu_time_total` microseconds in all."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.count = 0
        self.cpu_time_total = 0.0

    @property
    def cpu_time(self) -> float:
        """Microseconds a run."""
        return self.cpu_time_total / max(self.count, 1)


class Events(list[Event]):
    """What `key_averages()` gives."""

    def table(self, sort_by: str | None = None, row_limit: int = 100, **options: Any) -> str:
        """A table of the ranges, the longest first."""
        rows = sorted(self, key=lambda e: -e.cpu_time_total)[:row_limit]
        width = max([len(e.key) for e in rows] + [4])
        lines = [f"{'Name':<{width}}  {'CPU total us':>14}  {'CPU time avg us':>16}  {'# of Calls':>10}"]
        lines += [f"{e.key:<{width}}  {e.cpu_time_total:>14.1f}  {e.cpu_time:>16.1f}  {e.count:>10}" for e in rows]
        return "\n".join(lines)

    def total_average(self) -> Event:
        """All ranges as one."""
        total = Event("Total")
        total.count = sum(e.count for e in self)
        total.cpu_time_total = sum(e.cpu_time_total for e in self)
        return total


class profile:
    """Collects the ranges that run inside the block. See torch.profiler.profile."""

    def __init__(
        self,
        *,
        activities: Iterable[ProfilerActivity] | None = None,
        schedule: Callable[[int], ProfilerAction] | None = None,
        on_trace_ready: Callable[[profile], Any] | None = None,
        **options: Any,
    ) -> None:
        self.schedule = schedule
        self.on_trace_ready = on_trace_ready
        self.step_num = 0
        self._events: dict[str, Event] = {}

    def _note(self, name: str, seconds: float) -> None:
        event = self._events.setdefault(name, Event(name))
        event.count += 1
        event.cpu_time_total += seconds * 1e6

    def start(self) -> None:
        """Begin to collect."""
        _active.append(self)

    def stop(self) -> None:
        """Stop collecting."""
        _active.remove(self)
        if self.schedule is None and self.on_trace_ready is not None:
            self.on_trace_ready(self)

    def __enter__(self) -> profile:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def step(self) -> None:
        """The next step of a schedule begins."""
        saves = self.schedule is not None and self.schedule(self.step_num) is ProfilerAction.RECORD_AND_SAVE
        self.step_num += 1
        if saves and self.on_trace_ready is not None:
            self.on_trace_ready(self)

    def key_averages(self, group_by_input_shape: bool = False, group_by_stack_n: int = 0) -> Events:
        """The ranges by name."""
        return Events(self._events.values())

    def events(self) -> Events:
        """The ranges by name."""
        return self.key_averages()

    def export_chrome_trace(self, path: str) -> None:
        """Write the ranges as a JSON file for chrome://tracing, one after another."""
        import json

        at, rows = 0.0, []
        for event in self._events.values():
            rows.append({"name": event.key, "ph": "X", "ts": at, "dur": event.cpu_time_total, "pid": 0, "tid": 0})
            at += event.cpu_time_total
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"traceEvents": rows}, file)


def schedule(
    *, wait: int, warmup: int, active: int, repeat: int = 0, skip_first: int = 0, skip_first_wait: int = 0
) -> Callable[[int], ProfilerAction]:
    """What to do at each step: skip, wait, warm up, record; over and over. See torch.profiler.schedule."""

    def action(step: int) -> ProfilerAction:
        step -= skip_first
        length = wait + warmup + active
        if step < 0 or (repeat > 0 and step >= repeat * length):
            return ProfilerAction.NONE
        at = step % length
        if at < wait:
            return ProfilerAction.NONE
        if at < wait + warmup:
            return ProfilerAction.WARMUP
        return ProfilerAction.RECORD if at < length - 1 else ProfilerAction.RECORD_AND_SAVE

    return action


def tensorboard_trace_handler(
    dir_name: str, worker_name: str | None = None, use_gzip: bool = False
) -> Callable[[profile], None]:
    """What `on_trace_ready` may be: writes a file of the ranges into a folder each time it is called, named after the
    worker (default: this host and process) and the time. Raises RuntimeError for a folder that can't be made."""
    import gzip
    import os
    import shutil
    import socket

    def write(prof: profile) -> None:
        if not os.path.isdir(dir_name):
            try:
                os.makedirs(dir_name, exist_ok=True)
            except Exception as error:
                raise RuntimeError("Can't create directory: " + dir_name) from error
        worker = worker_name or f"{socket.gethostname()}_{os.getpid()}"
        path = os.path.join(dir_name, f"{worker}.{time.time_ns()}.pt.trace.json")
        prof.export_chrome_trace(path)
        if use_gzip:
            with open(path, "rb") as plain, gzip.open(path + ".gz", "wb") as packed:
                shutil.copyfileobj(plain, packed)
            os.remove(path)

    return write


def supported_activities() -> set[ProfilerActivity]:
    """What can be watched here."""
    return {ProfilerActivity.CPU}
