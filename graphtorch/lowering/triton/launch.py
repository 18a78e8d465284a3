"""From a Schedule to a launch plan, and the devices that plans run on.

A `LaunchPlan` says, for given sizes, which functions run on which grid with which arguments, and where every buffer
lies in one block of device memory: inputs and outputs have fixed places as well, so that a run is copies in, the same
launches with the same arguments each time (what a CUDA graph replays), and copies out. A plan knows no device; a
`Device` knows no schedule.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from graphtorch.lowering.binding import concrete
from graphtorch.lowering.kernel import Buffer, ExternCall, Kernel, Schedule, View
from graphtorch.lowering.triton.codegen import Generated, generate
from graphtorch.lowering.triton.errors import UnsupportedError
from graphtorch.lowering.triton.memory import RandomState, Scratch, Table
from graphtorch.lowering.triton.templates import generate_call
from graphtorch.lowering.triton.tiling import Limits
from graphtorch.schedule.memory import MemoryPlan, nbytes, plan

ALIGNMENT = 256  # what device allocators give, and more than any vector load wants


@dataclass(frozen=True)
class Launch:
    """One launch. An argument is a buffer, which stands for its address, or an integer."""

    step: str
    function: Generated
    grid: tuple[int, int, int]
    arguments: tuple[Buffer | int, ...]


@dataclass(frozen=True)
class HostCall:
    """A step that has no Triton form: only a device whose memory the host can read runs it."""

    step: str
    call: ExternCall | Kernel
    reason: str


@dataclass
class LaunchPlan:
    """A schedule for given sizes.

    offsets     of every buffer in the block of memory, in bytes
    nbytes      the size of that block
    fixed       how much of it, from its start, are inputs and outputs
    memory      the plan of the temporaries
    tables      what the host writes once, when the block is there
    states      what the host writes before each run: the random streams' positions
    inputs, outputs     the schedule's
    written     the inputs that steps overwrite
    made        what each run makes in memory of its own: neither inputs nor temporaries
    """

    steps: list[Launch | HostCall]
    offsets: dict[Buffer, int]
    nbytes: int
    memory: MemoryPlan
    bindings: Mapping[str, int]
    tables: tuple[Table, ...] = ()
    states: tuple[RandomState, ...] = ()
    fixed: int = 0
    inputs: Sequence[Buffer] = ()
    outputs: Sequence[View] = ()
    written: frozenset[Buffer] = frozenset()
    made: tuple[Buffer, ...] = ()

    @property
    def launches(self) -> list[Launch]:
        return [s for s in self.steps if isinstance(s, Launch)]

    @property
    def unsupported(self) -> list[HostCall]:
        return [s for s in self.steps if isinstance(s, HostCall)]

    def arguments(self, launch: Launch, base: int) -> list[int]:
        """The arguments of a launch where the block lies at `base`."""
        return [base + self.offsets[a] if isinstance(a, Buffer) else a for a in launch.arguments]


# What chooses the functions of steps by measurement (see `autotune.Tuner.choose`).
Choose = Callable[[Sequence[Kernel | ExternCall], Mapping[str, int]], Sequence[Sequence[Generated] | UnsupportedError]]


def make_plan(
    schedule: Schedule, bindings: Mapping[str, int], limits: Limits | None = None, choose: Choose | None = None
) -> LaunchPlan:
    """Generate every function and lay out memory. Launches over no points are left out."""
    memory = plan(schedule, bindings)
    offsets: dict[Buffer, int] = {}
    end = 0
    written = {b: None for s in schedule.steps for b in s.writes()}
    for buffer in dict.fromkeys([*schedule.inputs, *(v.buffer for v in schedule.outputs), *written]):
        if buffer not in memory.offsets:
            offsets[buffer] = end
            end += -(-nbytes(buffer, bindings) // ALIGNMENT) * ALIGNMENT
    given = frozenset(schedule.inputs)
    made = tuple(b for b in offsets if b not in given)
    for buffer, offset in memory.offsets.items():
        offsets[buffer] = end + offset
    steps: list[Launch | HostCall] = []
    chosen = _defaults(schedule, bindings, limits) if choose is None else choose(schedule.steps, bindings)
    for step, functions in zip(schedule.steps, chosen, strict=True):
        if isinstance(functions, UnsupportedError):
            steps.append(HostCall(step.name, step, str(functions)))
        else:
            steps += launches_of(step.name, functions, bindings)
    size = _place_extra(steps, schedule.states, offsets, end + memory.arena_bytes, bindings)
    tables = tuple(b for b in offsets if isinstance(b, Table))
    states = tuple(b for b in offsets if isinstance(b, RandomState))
    return LaunchPlan(
        steps,
        offsets,
        size,
        memory,
        bindings,
        tables,
        states,
        end,
        schedule.inputs,
        schedule.outputs,
        given.intersection(written),
        made,
    )


def _defaults(
    schedule: Schedule, bindings: Mapping[str, int], limits: Limits | None
) -> list[list[Generated] | UnsupportedError]:
    """The functions of each step with default blocks; the error for one without a Triton form."""
    made: list[list[Generated] | UnsupportedError] = []
    for step in schedule.steps:
        try:
            if isinstance(step, Kernel):
                made.append([generate(step, bindings, limits)])
            else:
                made.append(generate_call(step, bindings, limits))
        except UnsupportedError as error:
            made.append(error)
    return made


def launches_of(step: str, functions: Sequence[Generated], bindings: Mapping[str, int]) -> list[Launch]:
    """The launches of a step's functions, without those over no points."""
    made: list[Launch] = []
    for i, function in enumerate(functions):
        grid = function.grid(bindings)
        if grid[0]:
            name = f"{step}_{i}" if len(functions) > 1 else step
            integers = (concrete(size, bindings) for _, size in function.integers)
            made.append(Launch(name, function, grid, (*function.buffers, *integers)))
    return made


def _place_extra(
    steps: Sequence[Launch | HostCall],
    states: Sequence[Buffer],
    offsets: dict[Buffer, int],
    end: int,
    bindings: Mapping[str, int],
) -> int:
    """Give tables, states and scratch memory their places behind `end`; the end of all memory. Scratch of different
    calls shares a place: a function's scratch is used by the launches next to it only."""
    touched = [b for s in steps if isinstance(s, Launch) for b in s.arguments if isinstance(b, Buffer)]
    for buffer in dict.fromkeys([*touched, *states]):
        if isinstance(buffer, Table | RandomState) and buffer not in offsets:
            offsets[buffer] = end
            end += -(-nbytes(buffer, bindings) // ALIGNMENT) * ALIGNMENT
    last: dict[Buffer, int] = {}
    for i, step in enumerate(steps):
        if isinstance(step, Launch):
            last.update((b, i) for b in step.arguments if isinstance(b, Scratch))
    start, live, top = end, set[Buffer](), end
    for i, step in enumerate(steps):
        for scratch in step.arguments if isinstance(step, Launch) else ():
            if isinstance(scratch, Scratch) and scratch not in offsets:
                offsets[scratch] = start
                start += -(-nbytes(scratch, bindings) // ALIGNMENT) * ALIGNMENT
                live.add(scratch)
        top = max(top, start)
        live = {b for b in live if last[b] > i}
        if not live:
            start = end
    return top


class Device(Protocol):
    """Where plans run. Addresses are integers in the device's own memory."""

    host_memory: bool

    def compile(self, functions: Sequence[Generated]) -> None:
        """Compile what will be launched. Raises ResourceError for what the device can't run."""

    def allocate(self, size: int) -> tuple[int, Any]:
        """A block that starts at a multiple of ALIGNMENT: its address, and what keeps it alive."""

    def write(self, address: int, array: np.ndarray[Any, Any]) -> None:
        """Copy a contiguous array to the device."""

    def read(self, address: int, array: np.ndarray[Any, Any]) -> None:
        """Copy from the device into a contiguous array; what was launched before is done then."""

    def prepare(self, launch: Launch, arguments: Sequence[int]) -> Callable[[], None]:
        """A function that launches what was compiled with these arguments."""


class InterpreterDevice:
    """The host's memory, and Triton's interpreter: for tests."""

    host_memory = True

    def compile(self, functions: Sequence[Generated]) -> None:
        """Nothing: the interpreter runs source."""

    def allocate(self, size: int) -> tuple[int, Any]:
        block = np.zeros(size + ALIGNMENT, np.uint8)
        return -(-block.ctypes.data // ALIGNMENT) * ALIGNMENT, block

    def write(self, address: int, array: np.ndarray[Any, Any]) -> None:
        ctypes.memmove(address, array.ctypes.data, array.nbytes)

    def read(self, address: int, array: np.ndarray[Any, Any]) -> None:
        ctypes.memmove(array.ctypes.data, address, array.nbytes)

    def prepare(self, launch: Launch, arguments: Sequence[int]) -> Callable[[], None]:
        from graphtorch.lowering.triton.interpreter import interpret

        f = launch.function
        signature = f.signature()
        given = list(arguments)
        return lambda: interpret(f.source, f.name, signature, given, f.constants, launch.grid)


def host_array(address: int, shape: Sequence[int], of: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """An array over memory of the host."""
    size = int(np.prod(shape, dtype=np.int64)) * of.itemsize
    if not size:
        return np.empty(shape, of)
    raw: np.ndarray[Any, Any] = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
    return raw.view(of).reshape(shape)
