"""A graph as one native call on arrays of any size, with as little Python around it as can be: what eager operators run
on (`eager.py`).

`CpuExecutable` serves whole steps: it checks inputs, reuses results' memory, runs steps through NumPy. Here the caller
vouches for the inputs, results are fresh, and whatever is not a single native segment is refused.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphtorch.ir.graph import Graph
from graphtorch.lowering.binding import concrete
from graphtorch.lowering.cpu import launch, stack
from graphtorch.lowering.cpu.compiler import Library
from graphtorch.lowering.cpu.executable import _fastcall, imports, layout_is_known, with_scratch
from graphtorch.lowering.cpu.instructions import RefusedError
from graphtorch.lowering.cpu.pool import SIZE, THREADS, get_drowsy_pool
from graphtorch.lowering.cpu.translation import Translation
from graphtorch.schedule import build_schedule
from graphtorch.schedule.memory import plan
from graphtorch.tensor.generator import Generator, GeneratorState

Array = np.ndarray[Any, Any]

KEPT_SIZES = 256  # combinations of sizes that stay prepared
KEPT_BYTES = 64 << 20  # of temporaries that a thread keeps from call to call
ALIGNMENT = 64
SHARED = 1 << 18  # elements of an operand or result whose work threads share


_ALONE = np.zeros(SIZE // 8, np.int64)  # a pool without workers
_ALONE[THREADS // 8] = 1


class _Memory(threading.local):
    """A thread's memory for temporaries."""

    array: Array = np.empty(0, np.uint8)

    def of(self, count: int) -> Array:
        """At least `count` bytes, aligned at their start."""
        if count > len(self.array):
            made = np.empty(count + ALIGNMENT, np.uint8)
            made = made[-made.ctypes.data % ALIGNMENT :]
            if count > KEPT_BYTES:
                return made
            self.array = made
        return self.array


_memory = _Memory()


class DirectProgram:
    """A compiled graph.

    passed      for each output that is an input as it is: the input's position, else -1
    dtypes      NumPy dtypes of the outputs
    """

    def __init__(self, graph: Graph, donations: Mapping[int, int] | None = None, draws: bool = False) -> None:
        """`draws`: whether it may draw random numbers, from a generator that each call names. Raises RefusedError for a
        graph that is not one native segment."""
        if not layout_is_known():
            raise RefusedError("Python's objects lie in memory in an unknown way")
        schedule = build_schedule(graph, donations)
        made = Translation(schedule)
        program, schedule = made.program, made.schedule
        if made.fallbacks:
            raise RefusedError(made.fallbacks[0])
        outputs = [v.buffer for v in schedule.outputs]
        extra = [b for b in program.io if b not in schedule.inputs and b not in outputs]
        if extra or (program.generators and not draws) or len(set(outputs)) < len(outputs):
            raise RefusedError("a value that is neither an operand nor a result")
        if len(program.segments) != 1 or len(program.segments[0].steps) != len(schedule.steps):
            raise RefusedError("not a single segment")
        donated = set((donations or {}).values())
        if any(b.kind != "output" and schedule.inputs.index(b) not in donated for b in outputs):
            raise RefusedError("a result that is an operand")
        self.schedule, self.program, self.translation = schedule, program, made
        self.library = Library(made.modules(), program.exported, imports(program.uses_blas))
        self.entry = _fastcall(self.library.addresses["entry"])
        self.outputs = outputs
        self.places = [program.io.index(b) for b in outputs]
        self.count = len(schedule.inputs)
        self.dtypes = [b.dtype.numpy for b in outputs]
        self.numbers = [(i, b.dtype.numpy) for i, b in enumerate(schedule.inputs) if b.value.type.is_number]
        self._bound: dict[tuple[int, ...], Bound] = {}

    def bound(self, sizes: tuple[int, ...]) -> Bound:
        """The program for given values of the symbols s0, s1, ..."""
        found = self._bound.get(sizes)
        if found is None:
            found = Bound(self, {f"s{i}": n for i, n in enumerate(sizes)})
            if len(self._bound) >= KEPT_SIZES:
                self._bound.pop(next(iter(self._bound)), None)
            self._bound[sizes] = found
        return found


class Bound:
    """A program for given sizes. Thread-safe: each call takes a context of its own.

    shapes      of the arrays that it fills
    views       where a result is another view of such an array: its shape, and its strides in bytes
    """

    def __init__(self, program: DirectProgram, bindings: Mapping[str, int]) -> None:
        schedule, native = program.schedule, program.program
        self.program = program
        self.entry, self.failures = program.entry, native.failures
        self.shapes: list[tuple[int, ...]] = []
        self.views: list[tuple[tuple[int, ...], tuple[int, ...]] | None] = []
        for view in schedule.outputs:
            shape, whole = concrete(view.shape, bindings), concrete(view.buffer.shape, bindings)
            steps, expected = concrete(view.strides, bindings), [math.prod(shape[i + 1 :]) for i in range(len(shape))]
            if math.prod(shape) != math.prod(whole) or concrete(view.offset, bindings):
                raise RefusedError("a result that is a part of a buffer")
            if all(s == e or n == 1 for s, e, n in zip(steps, expected, shape, strict=True)):
                self.shapes.append(shape)
                self.views.append(None)
            else:
                if sorted(s for s, n in zip(steps, shape, strict=True) if n > 1)[:1] == [0] or min(steps) < 0:
                    raise RefusedError("a result whose elements share memory")
                self.shapes.append(whole)
                self.views.append((shape, tuple([s * view.buffer.dtype.itemsize for s in steps])))
        made = program.translation
        planned = made.plan
        if planned is None:
            planned = plan(schedule, bindings, made.together, made.private)
        self.bytes = with_scratch(planned, native.scratch_bytes).arena_bytes
        header = [0] * launch.HEADER
        # Waking another thread takes as long as a small call.
        most = max([math.prod(concrete(b.shape, bindings)) for b in native.io], default=0)
        header[launch.POOL] = get_drowsy_pool().address if most >= SHARED else _ALONE.ctypes.data
        header[launch.IO_COUNT] = len(native.io)
        header[launch.TRUE], header[launch.FALSE] = id(True), id(False)
        # Nothing is checked, so that all arrays may have rank 0 in the table of what is expected.
        self.expected = np.zeros(3 * len(native.io) + 1, np.int64)
        header[launch.EXPECTED] = self.expected.ctypes.data
        words = launch.context_words(native, bindings, planned)
        self.words = [*header, *([0] * len(native.io)), *words]
        behind = len(self.words) - len(words)
        self.states = [(behind + i, w.part) for i, w in enumerate(native.words) if isinstance(w, GeneratorState)]
        self.free: list[tuple[Array, int, list[Array]]] = []
        self.roomy = made.stack_bytes > stack.ANY

    def run(
        self,
        arrays: Sequence[Any],
        numbers: Sequence[float],
        results: Sequence[Array],
        generator: Generator | None = None,
    ) -> None:
        """Compute `results`, which lie row by row, from arrays that do too, with the dtypes and sizes that the graph
        says. `generator`: the one to draw from, inside its `drawing()`. Raises what native code found wrong with
        values, such as an index out of range."""
        try:
            context, address, held = self.free.pop()
        except IndexError:
            context = np.array(self.words, np.int64)
            address = context.ctypes.data
            held = [np.zeros((), d) for _, d in self.program.numbers]
        for place, value in zip(held, numbers, strict=True):
            place[()] = value
        if generator is not None:
            for at, part in self.states:
                context[at] = GeneratorState(generator, part).address
        memory = None
        if self.bytes:
            memory = _memory.of(self.bytes)
            context[launch.ARENA] = memory.ctypes.data
        given = [*arrays, *held, *results]
        if self.roomy and not stack.suffices(self.program.translation.stack_bytes):
            stack.with_room(lambda _: self.entry(given, address, 0), None)
        else:
            self.entry(given, address, 0)
        if self.failures and context[launch.FAILURE]:
            self._fail(context)
        self.free.append((context, address, held))

    def _fail(self, context: Array) -> None:
        error, message = self.failures[context[launch.FAILURE] - 1]
        for word in (launch.DETAIL, launch.DETAIL2):
            message = message.replace("{}", str(context[word]), 1)
        raise error(message)
