"""The backend "cpu": compiles a schedule to native code and runs it. What has no native code runs through NumPy in
between, step by step; `fallbacks` says what and why."""

from __future__ import annotations

import ctypes
import dataclasses
import logging
import math
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import cache, partial
from operator import itemgetter
from typing import Any

import numpy as np

from graphtorch.ir.graph import Graph
from graphtorch.lowering.backend import Backend, Executable, InputMismatchError
from graphtorch.lowering.binding import bind, concrete, symbolic_dims
from graphtorch.lowering.cpu import launch, stack
from graphtorch.lowering.cpu.blas import find_blas
from graphtorch.lowering.cpu.calls import Target, native_call
from graphtorch.lowering.cpu.chain import Chain, find_chains, private_buffers
from graphtorch.lowering.cpu.compiler import Library, host, module_parts, module_text
from graphtorch.lowering.cpu.emissions import Emissions
from graphtorch.lowering.cpu.expansion import expand, vector_product
from graphtorch.lowering.cpu.function import Function
from graphtorch.lowering.cpu.instructions import RefusedError
from graphtorch.lowering.cpu.members import member_of
from graphtorch.lowering.cpu.partial_folds import split_folds
from graphtorch.lowering.cpu.pool import get_pool
from graphtorch.lowering.cpu.unfolding import unfold_symbolic
from graphtorch.lowering.cpu.widening import widen_halves
from graphtorch.lowering.kernel import Buffer, ExternCall, Kernel, Schedule
from graphtorch.lowering.numpy import executor as numpy_executor
from graphtorch.lowering.numpy.codegen import lower_kernel
from graphtorch.schedule import build_schedule
from graphtorch.schedule.effects import updates_behind_products
from graphtorch.schedule.memory import aligned, plan

logger = logging.getLogger(__name__)

REUSED_BYTES = (
    1 << 18
)  # outputs from this size on take over the memory of dropped ones: fresh pages cost more than the work


class CpuExecutable(Executable):
    """A schedule as native code. Thread-safe: each run takes a frame of its own.

    llvm        the module's LLVM text
    fallbacks   one line a step that runs through NumPy
    """

    checks_inputs = True

    def __init__(self, schedule: Schedule, input_kinds: Sequence[str] = ()) -> None:
        schedule = widen_halves(schedule)
        if find_blas() is not None:
            schedule = unfold_symbolic(schedule)
        schedule = dataclasses.replace(schedule, steps=updates_behind_products(schedule.steps))
        self.schedule: Schedule = schedule
        self.input_kinds = list(input_kinds) or ["argument"] * len(schedule.inputs)
        self.fallbacks: list[str] = []
        self._dims = symbolic_dims([b.value for b in schedule.inputs])
        pool, blas = get_pool(), find_blas()
        self.functions: dict[str, Function] = {}
        self.emissions = Emissions(host().register_bits, host().fma)
        self.native: dict[int, launch.Native] = {}
        producers: dict[Buffer, ExternCall] = {}
        for i, step in enumerate(schedule.steps):
            try:
                code = self._code(step, producers, blas is not None)
            except RefusedError as error:
                self.fallbacks.append(f"{step.name} runs on NumPy: {error}")
                continue
            if code is not None:
                self.native[i] = code
        self.native_steps = {id(schedule.steps[i]) for i in self.native}
        self.chains = self._find_chains(pool.threads)
        self.together = [chain.steps for chain in self.chains]
        self.private = {b for chain in self.chains for b in chain.private}
        for chain in self.chains:
            names = ", ".join(schedule.steps[i].name for i in chain.steps)
            schedule.report.append(f"{names} run chunk by chunk: what one hands to the next stays in cache")
        self.plan = self.static_plan = None if self._dims else plan(schedule, {}, self.together, self.private)
        self.program = launch.Writer(schedule, self.native, self.plan, pool.threads, blas, self.chains).run()
        self.stack_bytes = stack.needed([*(f.text for f in self.functions.values()), *self.program.chains])
        self.llvm = module_text(self.functions.values(), self.program.text)
        imported = {"parallel_for": pool.entry}
        if blas is not None and self.program.uses_blas:
            imported |= {"cblas_sgemm": blas.sgemm, "cblas_dgemm": blas.dgemm}
            if blas.set_threads:
                imported |= {"blas_set_threads": blas.set_threads, "blas_get_threads": blas.get_threads}
        for name in ("PyLong_AsLongLong", "PyEval_SaveThread", "PyEval_RestoreThread", "Py_IncRef"):
            imported[name] = ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0
        texts = module_parts(self.functions.values(), self.program.text)
        self.library = Library(texts, self.program.exported, imported)
        signature = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
        self.segments = [signature(self.library.addresses[s.name]) for s in self.program.segments]
        self.entry = _fastcall(self.library.addresses["entry"]) if layout_is_known() else None
        self._sized: dict[tuple[int, ...], Sized] = {}
        self.workspaces: list[numpy_executor.Workspace] = []
        self._static: Sized | None = None  # the only one, where no size is symbolic
        self._count = len(schedule.inputs)
        self._lock = threading.Lock()
        for line in self.fallbacks:
            logger.debug("%s", line)
        if self.fallbacks:
            logger.info("%d of %d steps run on NumPy", len(self.fallbacks), len(schedule.steps))

    def _code(
        self, step: Kernel | ExternCall, producers: dict[Buffer, ExternCall], products: bool
    ) -> launch.Native | None:
        """The native code of a step, if there is any. Raises RefusedError."""
        if isinstance(step, Kernel):
            parts = split_folds(step, host().register_bits, get_pool().threads)
            if parts is None:
                return self._emit(step)
            return [self._emit(kernel, f"{step.name}_{n}") for n, kernel in enumerate(parts)]
        producers.update((b, step) for b in step.writes())
        product = launch.as_product(step) if products else None
        if product is not None:
            code = self.emissions.product(product)
            vector = None if code else vector_product(step)
            if vector is not None:
                return self._emit(vector[0])
            for n, function in enumerate(code if isinstance(code, list) else [code] if code else []):
                self.functions[f"{step.name}_{n}" if n else step.name] = function
            return code or product
        target = host()
        written = native_call(step, Target(target.register_bits, target.fma, get_pool().threads, products))
        if isinstance(written, Function):
            self.functions[step.name] = written
        if isinstance(written, list):
            self.functions.update((f"{step.name}_{n}", function) for n, function in enumerate(written))
        if written is not None:
            return written
        kernels = expand(step, producers)
        if kernels is None:
            raise RefusedError(f"{step.op.name} has no native code")
        return [self._emit(kernel, f"{step.name}_{n}") for n, kernel in enumerate(kernels)]

    def _find_chains(self, threads: int) -> list[Chain]:
        """Steps that run chunk by chunk."""
        if threads < 1 or self._dims:
            return []  # chunks are chosen by known sizes
        members = [member_of(i, self.native.get(i), threads) for i in range(len(self.schedule.steps))]
        users: dict[Buffer, set[int]] = {}
        for i, step in enumerate(self.schedule.steps):
            for buffer in (*step.reads(), *step.writes()):
                users.setdefault(buffer, set()).add(i)
        for view in self.schedule.outputs:
            users.setdefault(view.buffer, set()).add(-1)
        chains = find_chains(members, threads)
        for chain in chains:
            chain.private = private_buffers(chain, users)
        return chains

    def _emit(self, kernel: Kernel, name: str = "") -> Function:
        function = self.functions[name or kernel.name] = self.emissions.kernel(kernel)
        return function

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
        self.plan = sized.plan
        if not self._dims:
            self._static = sized
        return sized

    def asm(self) -> str:
        """The machine code as assembly text."""
        return self.library.assembly()

    def sources(self) -> dict[str, str]:
        return {name: function.text for name, function in self.functions.items()}


class Sized(numpy_executor.Program):
    """The program for given sizes."""

    def __init__(self, executable: CpuExecutable, bindings: Mapping[str, int]) -> None:
        self.executable = executable
        self.schedule = schedule = executable.schedule
        self.bindings = bindings
        self.input_kinds = executable.input_kinds
        known = executable.static_plan
        planned = plan(schedule, bindings, executable.together, executable.private) if known is None else known
        # Calls that are kernels here have scratch memory behind the arena.
        whole = aligned(planned.arena_bytes) + executable.program.scratch_bytes
        self.plan = dataclasses.replace(planned, arena_bytes=whole) if executable.program.scratch_bytes else planned
        self.kernels = {
            s.name: lower_kernel(s, bindings)
            for i, s in enumerate(schedule.steps)
            if isinstance(s, Kernel) and i not in executable.native
        }
        self.scratch_bytes = max((numpy_executor._scratch(k) for k in self.kernels.values()), default=0)
        self.shapes = {b: concrete(b.shape, bindings) for b in self._buffers()}
        written = {b for s in schedule.steps for b in s.writes()}
        self.donated = [i for i, b in enumerate(schedule.inputs) if b in written]
        self.words = launch.context_words(executable.program, bindings, planned)
        self.generators = executable.program.generators
        self.workspaces = executable.workspaces

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


class CpuBackend(Backend):
    """The backend "cpu"."""

    name = "cpu"

    def unavailable(self) -> str | None:
        if os.name != "posix":
            return "its thread pool needs POSIX threads"
        try:
            host()
        except (ImportError, OSError, RuntimeError) as error:
            return f"llvmlite can't be used: {error}"
        return None

    def compile(self, graph: Graph, donations: Mapping[int, int] | None = None) -> Executable:
        schedule = build_schedule(graph, donations)
        why = self.unavailable()
        if why is None:
            try:
                return CpuExecutable(schedule, graph.input_kinds)
            except (RuntimeError, OSError) as error:  # LLVM refuses the module, or the system the memory
                lines = str(error).splitlines()
                why = f"the program does not compile: {lines[0] if lines else type(error).__name__}"
        _say_once(why)
        executable = numpy_executor.NumpyExecutable(schedule, graph.input_kinds)
        executable.fallbacks = [f"everything runs on NumPy: {why}"]
        return executable


@cache
def _say_once(why: str) -> None:
    logger.warning("the cpu backend runs on NumPy: %s", why)
