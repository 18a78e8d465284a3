"""Processes that compile kernels: Triton's compiler is Python for a good part, so that threads wait for one another.

Each process reads jobs and writes what became of them, both pickled, until its input ends. The processes are started
when there is work for them, on machines with enough cores, and end with this one. Whatever goes wrong in one, the
caller compiles the kernel by himself, and sees the error."""

from __future__ import annotations

import atexit
import os
import pickle
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

FEWEST_CORES = 4
FEWEST_KERNELS = 4  # for which starting processes pays
MOST = 12  # processes; each takes some 300 MB
_TEXT = 500  # characters of an error


@dataclass(frozen=True)
class Job:
    """What the compiler needs to know of a generated function."""

    source: str
    name: str
    types: Mapping[str, str]
    constants: Mapping[str, Any]
    divisible: Sequence[str]
    num_warps: int
    num_stages: int

    def signature(self) -> dict[str, str]:
        return dict(self.types)

    def hints(self) -> list[str]:
        return list(self.divisible)


_START = "import sys; sys.path[:] = {path!r}; from graphtorch.lowering.triton.processes import serve; serve()"


class _Process:
    """One compiling process."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START.format(path=sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def ask(self, job: Job, target: str, seconds: float | None) -> Any:
        """The compiled kernel, or what went wrong as text. Raises OSError or EOFError for a process that is gone, or
        that is ended here after so many seconds."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None and stdout is not None
        limit = None if seconds is None else threading.Timer(seconds, self.process.kill)
        if limit is not None:
            limit.daemon = True
            limit.start()
        try:
            pickle.dump((job, target), stdin)
            stdin.flush()
            return pickle.load(stdout)
        finally:
            if limit is not None:
                limit.cancel()


_lock = threading.Lock()
_idle: list[_Process] = []


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def wanted(kernels: int) -> int:
    """How many processes to compile so many kernels with; 0 for none. At most GRAPHTORCH_COMPILE_PROCESSES."""
    if kernels < FEWEST_KERNELS or cores() < FEWEST_CORES:
        return 0
    return min(kernels, cores(), int(os.environ.get("GRAPHTORCH_COMPILE_PROCESSES", MOST)))


def compile_apart(job: Job, target: str, seconds: float | None = None) -> Any:
    """A kernel compiled in one of the processes, or what the compiler raised as text; None where the process ended, or
    was ended after so many seconds."""
    with _lock:
        process = _idle.pop() if _idle else None
    try:
        process = process or _Process()
        found = process.ask(job, target, seconds)
    except (OSError, EOFError, pickle.PickleError):
        if process is not None:
            process.process.kill()
            process.process.wait()
        return None
    with _lock:
        _idle.append(process)
    return found


@atexit.register
def _end() -> None:
    with _lock:
        for process in _idle:
            process.process.kill()
        _idle.clear()


def serve() -> None:
    """Compile what is asked for, in a process of its own."""
    answers: IO[bytes] = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the compiler prints is no answer
    import triton

    from graphtorch.lowering.triton.compiler import compile_here
    from graphtorch.lowering.triton.compiler import target as target_of

    with tempfile.TemporaryDirectory(prefix="graphtorch-triton-") as folder, triton.knobs.cache.scope():
        triton.knobs.cache.dir = folder
        while True:
            try:
                job, target = pickle.load(sys.stdin.buffer)
            except EOFError:
                return
            made: Any
            try:
                made = compile_here(job, target_of(target))
            except Exception as error:
                made = f"{type(error).__name__}: {error}"[:_TEXT]
            pickle.dump(made, answers)
            answers.flush()
