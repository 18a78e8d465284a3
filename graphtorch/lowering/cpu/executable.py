"""The backend "cpu": compiles a schedule to native code and runs it. What has no native code runs through NumPy in
between, step by step; `fallbacks` says what and why."""

from __future__ import annotations

import ctypes
import dataclasses
import logging
import math
import sys
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from functools import cache, cached_property, partial
from operator import itemgetter
from typing import Any

import numpy as np

from graphtorch.lowering.backend import Executable, InputMismatchError
from graphtorch.lowering.binding import bind, concrete, symbolic_dims
from graphtorch.lowering.cpu import launch, stack
from graphtorch.lowering.cpu.blas import find_blas
from graphtorch.lowering.cpu.compiler import Library, assembly
from graphtorch.lowering.cpu.function import Function
from graphtorch.lowering.cpu.pool import get_pool
from graphtorch.lowering.cpu.translation import Translation
from graphtorch.lowering.kernel import Buffer, ExternCall, Kernel, Schedule
from graphtorch.lowering.numpy import executor as numpy_executor
from graphtorch.lowering.numpy.codegen import lower_kernel
from graphtorch.schedule.memory import MemoryPlan, aligned, plan

logger = logging.getLogger(__name__)

REUSED_BYTES = (
    1 << 18
)  # outputs from this size on take over the memory of dropped ones: fresh pages cost more than the work


class CpuExecutable(Executable):
    """A schedule as native code. Thread-safe: each run takes a frame of its own.

    layout      what running needs of the schedule: its inputs and outputs, and the steps unless all of them are native
    program     the native functions
    library     their code in memory
    """

    checks_inputs = True

    def __init__(self, schedule: Schedule, input_kinds: Sequence[str] = ()) -> None:
        made = Translation(schedule)
        self._translate: Callable[[], Translation] = lambda: made
        self.fallbacks = made.fallbacks
        self.native: Collection[int] = frozenset(made.native)
        self.together: Sequence[Sequence[int]] = made.together
        self.private: Collection[Buffer] = made.private
        written = {b for step in made.schedule.steps for b in step.writes()}
        self.donated = [i for i, b in enumerate(made.schedule.inputs) if b in written]
        code = Library(made.modules(), made.program.exported, imports(made.program.uses_blas))
        self._open(made.schedule, made.program, made.plan, code, made.stack_bytes, input_kinds)
        for line in self.fallbacks:
            logger.debug("%s", line)
        if self.fallbacks:
            logger.info("%d of %d steps run on NumPy", len(self.fallbacks), len(made.schedule.steps))

    def _open(
        self,
        layout: Schedule,
        program: launch.Program,
        static_plan: MemoryPlan | None,
        library: Library,
        stack_bytes: int,
        input_kinds: Sequence[str],
    ) -> None:
        """Take the code that is in memory now."""
        self.layout = layout
        self.program = program
        self.static_plan = static_plan
        self.library = library
        self.stack_bytes = stack_bytes
        self.input_kinds = list(input_kinds) or ["argument"] * len(layout.inputs)
        self.native_steps = {id(layout.steps[i]) for i in self.native}
        signature = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
        self.segments = [signature(library.addresses[s.name]) for s in program.segments]
        self.entry = _fastcall(library.addresses["entry"]) if layout_is_known() else None
        self.workspaces: list[numpy_executor.Workspace] = []
        self._dims = symbolic_dims([b.value for b in layout.inputs])
        self._sized: dict[tuple[int, ...], Sized] = {}
        self._static: Sized | None = None  # the only one, where no size is symbolic
        self._latest: Sized | None = None
        self._count = len(layout.inputs)
        self._lock = threading.Lock()

    # -- what it is made of, for people ------------------------------------------------------------------------------

    @cached_property
    def translation(self) -> Translation:
        """How the schedule became code."""
        return self._translate()

    @property
    def schedule(self) -> Schedule:  # type: ignore[override]  # nobody assigns it
        return self.translation.schedule

    @property
    def plan(self) -> MemoryPlan | None:  # type: ignore[override]
        latest, made = self._latest, None if self._dims else self.translation
        if made is None:
            return None if latest is None else latest.plan
        return None if made.plan is None else with_scratch(made.plan, made.program.scratch_bytes)

    @property
    def functions(self) -> dict[str, Function]:
        return self.translation.functions

    @property
    def llvm(self) -> str:
        """The LLVM text of everything."""
        return self.translation.llvm

    def asm(self) -> str:
        """The machine code as assembly text."""
        return assembly(self.translation.modules())

    def sources(self) -> dict[str, str]:
        return {name: function.text for name, function in self.functions.items()}

    # -- running -----------------------------------------------------------------------------------------------------

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        if len(inputs) != self._count:
            raise RuntimeError(f"expected {self._count} inputs, got {len(inputs)}")
        sized = self._static
        if sized is None:
            sized = self._sized_for(bind(self._dims, inputs) if self._dims else {})
        if self.stack_bytes > stack.ANY and not stack.suffices(self.stack_bytes):
            return stack.with_room(sized.run, inputs)
        return sized.run(inputs)

    def _sized_for(self, bindings: Mapping[str, int]) -> Sized:
        key = tuple(bindings.values())
        sized = self._sized.get(key)
        if sized is None:
            with self._lock:
                if len(self._sized) >= numpy_executor.KEPT_SIZES:
                    self._sized.pop(next(iter(self._sized)), None)
                sized = self._sized[key] = Sized(self, bindings)
        self._latest = sized
        if not self._dims:
            self._static = sized
        return sized


def with_scratch(plan: MemoryPlan, scratch_bytes: int) -> MemoryPlan:
    """The plan of an arena with scratch memory behind it, for calls that are kernels here."""
    if not scratch_bytes:
        return plan
    return dataclasses.replace(plan, arena_bytes=aligned(plan.arena_bytes) + scratch_bytes)


class Sized(numpy_executor.Program):
    """The program for given sizes."""

    def __init__(self, executable: CpuExecutable, bindings: Mapping[str, int]) -> None:
        self.executable = executable
        self.schedule = schedule = executable.layout
        self.bindings = bindings
        self.input_kinds = executable.input_kinds
        known = executable.static_plan
        planned = plan(schedule, bindings, executable.together, executable.private) if known is None else known
        self.plan = with_scratch(planned, executable.program.scratch_bytes)
        self.kernels = {
            s.name: lower_kernel(s, bindings)
            for i, s in enumerate(schedule.steps)
            if isinstance(s, Kernel) and i not in executable.native
        }
        self.scratch_bytes = max((numpy_executor._scratch(k) for k in self.kernels.values()), default=0)
        self.shapes = {b: concrete(b.shape, bindings) for b in self._buffers()}
        self.donated = executable.donated
        self.words = launch.context_words(executable.program, bindings, planned)
        self.generators = executable.program.generators
        self.workspaces = executable.workspaces

    def _buffers(self) -> set[Buffer]:
        return super()._buffers() | {*self.executable.program.io}

    def make_frame(self, memory: Any) -> numpy_executor.Frame:
        return Frame(self, memory)

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        try:
            space = self.workspaces.pop()
        except IndexError:
            space = numpy_executor.Workspace()
        try:
            frame = space.frame(self)
            if self.generators:
                with ExitStack() as held:
                    for generator in self.generators:
                        held.enter_context(generator.drawing())
                    return frame.run(inputs)
            return frame.run(inputs)
        finally:
            self.workspaces.append(space)


class Frame(numpy_executor.Frame):
    """The memory of one run at a time: arena, context, and the arguments of the steps that run through NumPy."""

    def __init__(self, program: Sized, memory: Any) -> None:
        self.executable = executable = program.executable
        super().__init__(program, memory)
        io = executable.program.io
        expected: list[int] = []
        reshaped = self._reshaped()
        self.results = [(v, slot, whole or v.buffer in reshaped) for v, slot, whole in self.results]
        for buffer in io:
            shape = reshaped.get(buffer, program.shapes[buffer])
            expected += [id(np.ndarray), id(buffer.dtype.numpy), len(shape), *shape]
        self.expected = np.array([*expected, 0], np.int64)
        header = [0] * launch.HEADER
        header[launch.ARENA] = self.arena.__array_interface__["data"][0]
        header[launch.POOL] = get_pool().address
        header[launch.IO_COUNT] = len(io)
        header[launch.EXPECTED] = self.expected.ctypes.data
        header[launch.TRUE], header[launch.FALSE] = id(True), id(False)
        self.context = np.array([*header, *([0] * len(io)), *program.words], np.int64)
        self.address: int = self.context.ctypes.data
        outputs = io[len(program.schedule.inputs) :]
        self.makers = [output_maker(reshaped.get(b, program.shapes[b]), b.dtype.numpy) for b in outputs]
        self.sequence = self._sequence()
        self.failures = executable.program.failures
        self.direct = [(v.buffer, whole) for v, _, whole in self.results]
        places = {b: i for i, b in enumerate(io)}
        number_inputs = {program.schedule.inputs[i] for i, _ in self.numbers}
        self.simple = all(whole and v.buffer not in number_inputs for v, _, whole in self.results)
        self.order = [places[v.buffer] for v, _, _ in self.results] if self.simple else []
        self.python = [b for b in io if b in self.moving]
        self.entry = executable.entry
        # One native call, whose arrays are the results.
        self.plain = bool(self.simple and self.entry and not (self.python or self.sequence))
        self.pick: Callable[[list[Any]], Sequence[Any]] = (
            itemgetter(*self.order) if len(self.order) > 1 else lambda arrays: [arrays[i] for i in self.order]
        )
        executable.contiguous_results = self.simple

    def release(self) -> None:
        for maker in self.makers:
            large = getattr(maker, "__self__", None)
            if isinstance(large, LargeOutput):
                large.held.clear()

    def _reshaped(self) -> dict[Buffer, tuple[int, ...]]:
        """Outputs that are whole buffers in another shape: their arrays are made in that shape."""
        shapes: dict[Buffer, set[tuple[int, ...] | None]] = {}
        for view, slot, _ in self.results:
            if view.buffer.kind == "output":
                full = math.prod(slot.shape) == math.prod(self.program.shapes[view.buffer])
                plain = full and slot.offset == 0 and slot.strides == numpy_executor._row_major(slot.shape)
                shapes.setdefault(view.buffer, set()).add(slot.shape if plain else None)
        return {b: shape for b, (shape, *others) in shapes.items() if shape is not None and not others}

    def _prepare(self, step: Kernel | ExternCall) -> Callable[[], None]:
        program = self.program
        assert isinstance(program, Sized)
        if id(step) in program.executable.native_steps:
            return _nothing
        return super()._prepare(step)

    def _sequence(self) -> list[Callable[[], Any]]:
        """What runs after the entry: further segments and the steps between them."""
        segments = self.executable.program.segments
        starts = {s.steps[0]: n for n, s in enumerate(segments)}
        found: list[Callable[[], Any]] = []
        prepared = iter(self.steps)  # without those that write no element
        for i, each in enumerate(self.program.schedule.steps):
            step = _nothing if self.program.is_empty(each) else next(prepared)
            if i in starts:
                if i or self.executable.entry is None:
                    function, address = self.executable.segments[starts[i]], self.address
                    found.append(partial(function, address))
            elif i not in self.executable.native:
                found.append(step)
        return found

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        arrays = [*inputs]
        for i, number in self.numbers:
            number[()] = inputs[i]
            arrays[i] = number
        arrays += [make() for make in self.makers]
        entry = self.entry
        if self.plain and entry is not None and entry(arrays, self.address, 1):
            if self.failures:
                self._check_failure()
            return [*self.pick(arrays)]
        copied: list[tuple[Any, Any]] = []
        if self.python or entry is None:
            copied = self._checked(arrays)
            for buffer in self.python:
                self._place(buffer, arrays[self.executable.program.io.index(buffer)])
            self._enter(arrays)
        elif not entry(arrays, self.address, 1):
            copied = self._checked(arrays)
            self._enter(arrays)
        if self.failures:
            self._check_failure()
        if self.sequence:
            with np.errstate(all="ignore"):
                for step in self.sequence:
                    step()
                    if self.failures:
                        self._check_failure()
        for original, copy in copied:
            np.copyto(original, copy)
        if self.python:
            self._forget()
        if self.simple and not copied:
            return [arrays[i] for i in self.order]
        return self._results(inputs, arrays)

    def _check_failure(self) -> None:
        """Raise what native code could not."""
        if self.context[launch.FAILURE]:
            error, message = self.failures[self.context[launch.FAILURE] - 1]
            self.context[launch.FAILURE] = 0
            for word in (launch.DETAIL, launch.DETAIL2):
                message = message.replace("{}", str(self.context[word]), 1)
            raise error(message)

    def _enter(self, arrays: list[Any]) -> None:
        """Take the arrays' addresses and run the first segment, without checks."""
        if self.executable.entry is not None:
            self.executable.entry(arrays, self.address, 0)
            return
        for i, array in enumerate(arrays):
            self.context[launch.HEADER + i] = array.__array_interface__["data"][0]

    def _checked(self, arrays: list[Any]) -> list[tuple[Any, Any]]:
        """Replace arrays that native code can't read by contiguous copies. Returns (original, copy) of those to write
        back."""
        copied: list[tuple[Any, Any]] = []
        donated = set(self.program.donated)
        for i, buffer, element, shape, _ in self.arrays:
            array = arrays[i]
            if array.shape != shape or array.dtype != element:
                raise InputMismatchError(
                    f"input {i} ({buffer.name}) is {array.dtype}{list(array.shape)}, the graph was compiled for "
                    f"{buffer.value.type}"
                )
            if not (isinstance(array, np.ndarray) and array.flags.c_contiguous and array.flags.aligned):
                arrays[i] = np.array(array, order="C", copy=True)
                if i in donated:
                    copied.append((array, arrays[i]))
        return copied

    def _results(self, inputs: Sequence[Any], arrays: list[Any]) -> list[Any]:
        places = {b: i for i, b in enumerate(self.executable.program.io)}
        results: list[Any] = []
        for view, slot, whole in self.results:
            buffer = view.buffer
            place = places[buffer]
            if buffer in self.fixed:
                results.append(numpy_executor._view(self.fixed[buffer], slot).copy())
            elif whole:
                results.append(inputs[place] if place < len(inputs) else arrays[place])
            else:
                results.append(numpy_executor._view(arrays[place], slot))
        return results


def output_maker(shape: tuple[int, ...], dtype: Any) -> Callable[[], Any]:
    """What makes the arrays of one output."""
    size = math.prod(shape) * dtype.itemsize
    return LargeOutput(shape, dtype).make if size >= REUSED_BYTES else partial(np.empty, shape, dtype)


class LargeOutput:
    """Makes the arrays of one output and uses them again once nobody holds them: the pages are there already."""

    __slots__ = ("dtype", "held", "shape")

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.shape = shape
        self.dtype = dtype
        self.held: list[Any] = []

    def make(self) -> Any:
        for base in self.held:
            # Two references: the list's and `base`. A third is a user's array or a view of it.
            if sys.getrefcount(base) == 3:
                return base
        made = np.empty(self.shape, self.dtype)
        if len(self.held) < 2:
            self.held.append(made)
        return made


def _nothing() -> None:
    """A step that runs inside a segment."""


class _MethodDef(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("method", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


_METH_FASTCALL = 0x0080


def _fastcall(address: int) -> Any:
    """A native function `PyObject *(PyObject *self, PyObject *const *args, Py_ssize_t n)` as a Python callable."""
    definition = _MethodDef(b"entry", address, _METH_FASTCALL, None)
    # The function reads it until it is deallocated, at exit possibly after everything else: keep it for good.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(definition))
    new = ctypes.pythonapi.PyCFunction_NewEx
    new.restype = ctypes.py_object
    new.argtypes = (ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)
    return new(ctypes.addressof(definition), None, None)


@cache
def layout_is_known() -> bool:
    """Whether lists and arrays lie in memory as the native entry expects (CPython with the GIL, NumPy 2)."""
    if sys.implementation.name != "cpython" or "t" in getattr(sys, "abiflags", ""):
        return False
    if ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    array = np.zeros((3, 5, 7), np.float32)
    items = [array]

    def word(base: int, offset: int, kind: Any = ctypes.c_int64) -> Any:
        return kind.from_address(base + offset).value

    at = id(array)
    return bool(
        word(word(id(items), launch.ITEMS), 0) == at
        and word(at, launch.TYPE) == id(np.ndarray)
        and word(at, launch.DATA) == array.ctypes.data
        and word(at, launch.RANK, ctypes.c_int32) == 3
        and [word(word(at, launch.DIMS), 8 * i) for i in range(3)] == [3, 5, 7]
        and word(at, launch.DESCR) == id(array.dtype)
        and word(at, launch.FLAGS, ctypes.c_int32) & launch.CONTIGUOUS_ALIGNED == launch.CONTIGUOUS_ALIGNED
    )


def imports(blas: bool) -> dict[str, int]:
    """What native code calls outside of itself, by name."""
    found = {"parallel_for": get_pool().entry}
    library = find_blas() if blas else None
    if library is not None:
        found |= {"cblas_sgemm": library.sgemm, "cblas_dgemm": library.dgemm}
        if library.set_threads:
            found |= {"blas_set_threads": library.set_threads, "blas_get_threads": library.get_threads}
    for name in ("PyLong_AsLongLong", "PyEval_SaveThread", "PyEval_RestoreThread", "Py_IncRef"):
        found[name] = ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0
    return found
