"""Running a Schedule with NumPy: an arena for temporaries, compiled kernels, and calls of the records' own functions
for the rest.

For each combination of sizes there is a `Program`: the memory plan, the compiled kernels and how their arguments are
made. A `Frame` is the memory of one run: the arena, registers, and argument lists in which everything that does not
change between runs is already in place. Frames are pooled, so that concurrent runs have one each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphtorch.ir.graph import Graph
from graphtorch.lowering.backend import Backend, Executable, InputMismatchError
from graphtorch.lowering.binding import bind, concrete, symbolic_dims
from graphtorch.lowering.kernel import Buffer, ExternCall, Kernel, Schedule, View
from graphtorch.lowering.numpy.codegen import Lowered, Slot, lower_kernel
from graphtorch.lowering.numpy.interpreter import values_function
from graphtorch.schedule import build_schedule
from graphtorch.schedule.memory import ALIGNMENT, MemoryPlan, aligned, plan

_KEPT_KINDS = ("parameter", "buffer", "state", "constant")  # inputs that are the same arrays in most calls
_MATMUL = frozenset(("mm", "bmm"))
_BLAS_TYPES = frozenset(np.dtype(t) for t in (np.float32, np.float64, np.complex64, np.complex128))

Array = np.ndarray[Any, Any]
Place = tuple[list[Any], int]  # an argument list and a position in it
KEPT_SIZES = 32  # for how many sizes of its inputs a program stays prepared


class NumpyExecutable(Executable):
    """A schedule prepared to run. Thread-safe: each run takes a frame of its own."""

    checks_inputs = True

    def __init__(self, schedule: Schedule, input_kinds: Sequence[str] = ()) -> None:
        self.schedule: Schedule = schedule
        self.input_kinds = list(input_kinds) or ["argument"] * len(schedule.inputs)
        self._dims = symbolic_dims([b.value for b in schedule.inputs])
        self._programs: dict[tuple[int, ...], Program] = {}
        self.workspaces: list[Workspace] = []
        if not self._dims:
            self.plan = self._program({}).plan

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        if len(inputs) != len(self.schedule.inputs):
            raise RuntimeError(f"expected {len(self.schedule.inputs)} inputs, got {len(inputs)}")
        program = self._program(bind(self._dims, inputs) if self._dims else {})
        return program.run(inputs)

    def _program(self, bindings: dict[str, int]) -> Program:
        key = tuple(bindings.values())
        found = self._programs.get(key)
        if found is None:
            if len(self._programs) >= KEPT_SIZES:
                self._programs.pop(next(iter(self._programs)))
            found = self._programs[key] = Program(self.schedule, bindings, self.input_kinds, self.workspaces)
        self.plan = found.plan
        return found

    @property
    def arena_bytes(self) -> int:
        """What a run allocates for temporaries, beside registers and outputs (of the latest sizes)."""
        return 0 if self.plan is None else self.plan.arena_bytes

    def sources(self) -> dict[str, str]:
        program = next(reversed(self._programs.values()), None)
        return {} if program is None else {name: k.source for name, k in program.kernels.items()}


class Program:
    """A schedule for given sizes."""

    def __init__(
        self,
        schedule: Schedule,
        bindings: Mapping[str, int],
        input_kinds: Sequence[str],
        workspaces: list[Workspace],
    ) -> None:
        self.schedule = schedule
        self.bindings = bindings
        self.input_kinds = input_kinds
        self.workspaces = workspaces
        self.plan: MemoryPlan = plan(schedule, bindings)
        self.kernels: dict[str, Lowered] = {
            s.name: lower_kernel(s, bindings) for s in schedule.steps if isinstance(s, Kernel)
        }
        self.scratch_bytes = max((_scratch(k) for k in self.kernels.values()), default=0)
        self.shapes = {b: concrete(b.shape, bindings) for b in self._buffers()}
        written = {b for s in schedule.steps for b in s.writes()}
        self.donated = [i for i, b in enumerate(schedule.inputs) if b in written]

    def _buffers(self) -> set[Buffer]:
        found = set(self.schedule.inputs)
        for step in self.schedule.steps:
            found.update(step.reads())
            found.update(step.writes())
        return found

    def is_empty(self, step: Kernel | ExternCall) -> bool:
        """Whether a step writes no element: strides of empty memory are 0, which a kernel would take for
        broadcasting."""
        if not isinstance(step, Kernel):
            return False
        return any(not axis.reduction and concrete(axis.size, self.bindings) == 0 for axis in step.axes)

    def make_frame(self, memory: Array) -> Frame:
        return Frame(self, memory)

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        try:
            space = self.workspaces.pop()
        except IndexError:
            space = Workspace()
        try:
            return space.frame(self).run(inputs)
        finally:
            self.workspaces.append(space)


class Workspace:
    """The memory of one run at a time, which all sizes share, and a frame for each of the latest ones in it."""

    __slots__ = ("current", "frames", "memory")

    def __init__(self) -> None:
        self.memory = allocate(0)
        self.frames: dict[Program, Frame] = {}
        self.current: Frame | None = None

    def frame(self, program: Program) -> Frame:
        """The frame of a program, in this memory."""
        current = self.current
        if current is not None and current.program is program:
            return current
        if current is not None:
            current.release()
        found = self.frames.get(program)
        if found is None:
            needed = aligned(program.plan.arena_bytes) + program.scratch_bytes
            if needed > len(self.memory):
                # Sizes that grow step by step must not have new memory each time.
                self.frames.clear()
                self.memory = allocate(needed if not len(self.memory) else needed + needed // 4)
            if len(self.frames) >= KEPT_SIZES:
                self.frames.pop(next(iter(self.frames)))
            found = self.frames[program] = program.make_frame(self.memory)
        self.current = found
        return found


class Frame:
    """The argument lists of one run at a time, over a workspace's memory."""

    def __init__(self, program: Program, memory: Array) -> None:
        self.program = program
        schedule = program.schedule
        self.arena = memory
        self.scratch = memory[aligned(program.plan.arena_bytes) :]
        self.fixed: dict[Buffer, Array] = {}
        for buffer, offset in program.plan.offsets.items():
            self.fixed[buffer] = self._at(self.arena, offset, buffer)
        for buffer in schedule.inputs:
            if buffer.value.type.is_number:
                self.fixed[buffer] = np.zeros((), buffer.dtype.numpy)
        self.moving: dict[Buffer, list[tuple[Slot, list[Place]]]] = {}
        self.views: dict[tuple[Buffer, Any], tuple[Slot, list[Place]]] = {}
        self.last: dict[Buffer, Array] = {}
        self.steps: list[Callable[[], None]] = [self._prepare(s) for s in schedule.steps if not program.is_empty(s)]
        self.outputs = list(dict.fromkeys(v.buffer for v in schedule.outputs if v.buffer.kind == "output"))
        self.numbers = [(i, self.fixed[b]) for i, b in enumerate(schedule.inputs) if b in self.fixed]
        number_indices = {i for i, _ in self.numbers}
        self.arrays = [
            (i, b, b.dtype.numpy, program.shapes[b], program.input_kinds[i] in _KEPT_KINDS)
            for i, b in enumerate(schedule.inputs)
            if i not in number_indices
        ]
        self.results = [self._result(v) for v in schedule.outputs]

    def release(self) -> None:
        """Give up what serves only this frame's sizes; another size comes next."""

    # -- preparation -------------------------------------------------------------------------------------------------

    def _at(self, memory: Array, offset: int, buffer: Buffer) -> Array:
        shape = self.program.shapes.get(buffer) or concrete(buffer.shape, self.program.bindings)
        return _strided(memory, buffer.dtype.numpy, shape, None, offset)

    def _argument(self, arguments: list[Any], slot: Slot) -> None:
        """Append the array for a slot, now if its memory is fixed, else at the start of each run."""
        fixed = self.fixed.get(slot.buffer)
        if fixed is not None:
            arguments.append(_view(fixed, slot))
            return
        key = (slot.buffer, slot[1:])
        entry = self.views.get(key)
        if entry is None:
            entry = self.views[key] = (slot, [])
            self.moving.setdefault(slot.buffer, []).append(entry)
        entry[1].append((arguments, len(arguments)))
        arguments.append(None)

    def _prepare(self, step: Kernel | ExternCall) -> Callable[[], None]:
        return (
            self._prepare_kernel(self.program.kernels[step.name])
            if isinstance(step, Kernel)
            else self._prepare_call(step)
        )

    def _prepare_kernel(self, kernel: Lowered) -> Callable[[], None]:
        arguments: list[Any] = []
        for slot in kernel.loads:
            self._argument(arguments, slot)
        arguments.extend(kernel.indices)
        for slot in kernel.stores:
            self._argument(arguments, slot)
        offset = 0
        for register in kernel.registers:
            made = _strided(self.scratch, register.dtype.numpy, register.shape, None, offset)
            arguments.append(made)
            offset += aligned(made.nbytes)
        arguments.extend(kernel.sizes)
        function = kernel.function
        return lambda: function(*arguments)

    def _prepare_call(self, call: ExternCall) -> Callable[[], None]:
        arguments: list[Any] = []
        numbers: list[int] = []  # positions of run-time numbers
        for arg in call.args:
            if isinstance(arg, View):
                if arg.buffer.value.type.is_number:
                    numbers.append(len(arguments))
                self._argument(arguments, self._slot(arg))
            elif type(arg) is tuple and any(isinstance(i, View) for i in arg):
                items: list[Any] = []
                for item in arg:
                    if isinstance(item, View):
                        self._argument(items, self._slot(item))
                    else:
                        items.append(concrete(item, self.program.bindings))
                arguments.append(items)
            else:
                arguments.append(concrete(arg, self.program.bindings))
        targets: list[Any] = []
        for buffer in call.outputs:
            if buffer is None:
                targets.append(None)
            else:
                shape = self.program.shapes[buffer]
                self._argument(targets, Slot(buffer, shape, _row_major(shape), 0))
        function = values_function(call.op)
        out, accumulate = call.outputs[0], call.accumulate
        if call.op.name in _MATMUL and not accumulate and out is not None and out.dtype.numpy in _BLAS_TYPES:
            return lambda: _matmul(arguments, targets)

        def run() -> None:
            given: list[Any] = [tuple(a) if type(a) is list else a for a in arguments]
            for position in numbers:
                given[position] = given[position].item()
            made = function(*given)
            for target, result in zip(targets, made if type(made) is tuple else (made,), strict=True):
                if target is not None:
                    np.copyto(target, target + result if accumulate else result, casting="unsafe")

        return run

    def _slot(self, view: View) -> Slot:
        b = self.program.bindings
        return Slot(view.buffer, concrete(view.shape, b), concrete(view.strides, b), concrete(view.offset, b))

    def _result(self, view: View) -> tuple[View, Slot, bool]:
        """A graph output, and whether it is the whole buffer as it lies."""
        slot = self._slot(view)
        whole = (
            slot.offset == 0
            and slot.shape == self.program.shapes[view.buffer]
            and slot.strides == _row_major(slot.shape)
        )
        return view, slot, whole

    # -- running -----------------------------------------------------------------------------------------------------

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        bases: dict[Buffer, Array] = {}
        given: dict[Buffer, Array] = {}
        for i, number in self.numbers:
            number[()] = inputs[i]
        for i, buffer, element, shape, kept in self.arrays:
            array = given[buffer] = inputs[i]
            if array.shape != shape or array.dtype != element:
                raise InputMismatchError(
                    f"input {i} ({buffer.name}) is {array.dtype}{list(array.shape)}, the graph was compiled for "
                    f"{buffer.value.type}"
                )
            if not array.flags.c_contiguous:
                array = array.copy(order="C")
            bases[buffer] = array
            if kept and self.last.get(buffer) is array:
                continue
            self._place(buffer, array)
            if kept:
                self.last[buffer] = array
        for buffer in self.outputs:
            array = bases[buffer] = np.empty(self.program.shapes[buffer], buffer.dtype.numpy)
            self._place(buffer, array)
        with np.errstate(all="ignore"):
            for step in self.steps:
                step()
        for i in self.program.donated:
            buffer = self.program.schedule.inputs[i]
            if given[buffer] is not bases[buffer]:
                np.copyto(given[buffer], bases[buffer])
        results: list[Any] = []
        for view, slot, whole in self.results:
            buffer = view.buffer
            if buffer in self.fixed:
                results.append(_view(self.fixed[buffer], slot).copy())
            elif whole:
                results.append(given.get(buffer, bases[buffer]))
            else:
                results.append(_view(bases[buffer], slot))
        self._forget()
        return results

    def _place(self, buffer: Buffer, array: Array) -> None:
        for slot, places in self.moving.get(buffer, ()):
            made = _view(array, slot)
            for arguments, position in places:
                arguments[position] = made

    def _forget(self) -> None:
        """Keep no array of the caller's alive, except those that come again."""
        for buffer, entries in self.moving.items():
            if buffer not in self.last:
                for _, places in entries:
                    for arguments, position in places:
                        arguments[position] = None


def _matmul(arguments: list[Any], targets: list[Any]) -> None:
    np.matmul(arguments[0], arguments[1], out=targets[0])


def allocate(size: int) -> Array:
    """Bytes that start at a multiple of the alignment."""
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.__array_interface__["data"][0] % ALIGNMENT
    return memory[start : start + size]


def _row_major(shape: Sequence[int]) -> tuple[int, ...]:
    strides: list[int] = []
    step = 1
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))


def _view(base: Array, slot: Slot) -> Array:
    """The array of a slot over the row-major memory of `base`."""
    item = base.itemsize
    return _strided(base, base.dtype, slot.shape, [s * item for s in slot.strides], slot.offset * item)


def _strided(base: Array, element: Any, shape: Sequence[int], strides: Sequence[int] | None, offset: int) -> Array:
    """An array over the memory of a contiguous one; `strides` and `offset` in bytes."""
    if 0 in shape:
        return np.empty(shape, element)
    if base.dtype.kind in "VE":  # NumPy exports no buffer of types that are not its own
        base = base.view(np.uint16)
    return np.ndarray(shape, element, base, offset, strides)


def _scratch(kernel: Lowered) -> int:
    total = 0
    for register in kernel.registers:
        size = register.dtype.itemsize
        for n in register.shape:
            size *= n
        total += aligned(size)
    return total


class NumpyBackend(Backend):
    """The backend "numpy"."""

    name = "numpy"

    def compile(self, graph: Graph, donations: Mapping[int, int] | None = None) -> NumpyExecutable:
        return NumpyExecutable(build_schedule(graph, donations), graph.input_kinds)
