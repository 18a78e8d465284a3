"""Programs that were compiled before, by this process or another one: a warm process neither schedules nor emits.

A program is found by the digest of its graph, and of everything else that its code depends on: the host, the pool's
threads, the BLAS, and the source files of this package between the graph and the code. Its entry is a JSON document:
the keys of its object code, and what running needs to know (where inputs and outputs go, how much memory). It holds no
code of its own and nothing is executed to read it. Programs that run in part on NumPy and those with symbolic sizes are
not kept.

What explains a program (schedule, memory plan, LLVM text) is made again when somebody asks for it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphtorch.ir.digest import digest
from graphtorch.ir.graph import Graph, Value
from graphtorch.lowering import cache
from graphtorch.lowering.cpu import launch
from graphtorch.lowering.cpu.blas import find_blas
from graphtorch.lowering.cpu.compiler import Library, surroundings
from graphtorch.lowering.cpu.executable import CpuExecutable, imports, layout_is_known
from graphtorch.lowering.cpu.pool import get_pool
from graphtorch.lowering.cpu.translation import Translation
from graphtorch.lowering.kernel import Buffer, Schedule, View
from graphtorch.schedule import build_schedule
from graphtorch.schedule.memory import MemoryPlan
from graphtorch.tensor.dtypes import BY_NAME
from graphtorch.tensor.generator import GeneratorState, default_generator
from graphtorch.tensor.type import TensorType

VERSION = 1  # of the documents
SUFFIX = ".json"
# What code between a graph and its program is in; a change of one of their files is a change of every key.
SOURCES = ("ir", "ops", "tensor", "schedule", "lowering", "lowering/cpu")
ERRORS = {e.__name__: e for e in (IndexError, RuntimeError, TypeError, ValueError, ZeroDivisionError)}

used = True  # tests that look at how a program is made turn this off


def place(graph: Graph, donations: Mapping[int, int]) -> Path | None:
    """Where the graph's program is kept; None if it can't be."""
    if not used or cache.folder("cpu") is None or not layout_is_known():
        return None
    found = digest(graph, *sorted(donations.items()))
    if found is None:
        return None
    blas = find_blas()
    linked = "" if blas is None else f"{blas.index} {bool(blas.set_threads)}"
    what = (str(VERSION), found, cache.state_of_sources(SOURCES), str(get_pool().threads), linked, *surroundings())
    return cache.place("cpu", hashlib.blake2b("\0".join(what).encode(), digest_size=20).hexdigest(), SUFFIX)


# -- writing ----------------------------------------------------------------------------------------------------------


def save(path: Path, executable: CpuExecutable) -> None:
    """Keep a program, if it is of the kind that can be kept."""
    document = describe(executable)
    if document is not None:
        cache.write(path, json.dumps(document).encode())


def describe(executable: CpuExecutable) -> dict[str, Any] | None:
    """The document of a program; None for one that is more than a single native call."""
    layout, program, plan = executable.layout, executable.program, executable.static_plan
    if plan is None or executable.fallbacks or len(program.segments) != 1:
        return None
    if len(program.segments[0].steps) != len(layout.steps):
        return None
    states = [w for w in program.words if isinstance(w, GeneratorState) and w.generator is default_generator]
    if len(states) < len(program.words) or any(e.__name__ not in ERRORS for e, _ in program.failures):
        return None
    positions = {b: i for i, b in enumerate(program.io)}
    if any(v.buffer not in positions for v in layout.outputs):
        return None
    return {
        "objects": executable.library.keys,
        "segment": program.segments[0].name,
        "steps": len(layout.steps),
        "blas": program.uses_blas,
        "buffers": [[b.dtype.name, b.shape, b.kind] for b in program.io[len(layout.inputs) :]],
        "outputs": [[positions[v.buffer], v.shape, v.strides, v.offset] for v in layout.outputs],
        "donated": executable.donated,
        "arena": plan.arena_bytes,
        "scratch": program.scratch_bytes,
        "stack": executable.stack_bytes,
        "states": [state.part for state in states],
        "failures": [[error.__name__, message] for error, message in program.failures],
    }


# -- reading ----------------------------------------------------------------------------------------------------------


def load(path: Path, graph: Graph, donations: Mapping[int, int]) -> CpuExecutable | None:
    """The program that is kept there; None if there is none, or its object code is gone."""
    content = cache.read(path)
    if content is None:
        return None
    document = json.loads(content)
    program, layout = _program(document, graph)
    library = Library.from_cache(document["objects"], program.exported, imports(program.uses_blas))
    if library is None:
        return None
    return LoadedExecutable(document, program, layout, library, graph, donations)


def _program(document: dict[str, Any], graph: Graph) -> tuple[launch.Program, Schedule]:
    """The launch program, and the part of the schedule that running needs."""
    inputs = [Buffer(v.name, v.type.dtype, v.type.shape, "input", v) for v in graph.inputs]
    buffers = list(inputs)
    for name, shape, kind in document["buffers"]:
        of = TensorType(BY_NAME[name], tuple(shape))
        buffers.append(Buffer("", of.dtype, of.shape, kind, Value(of)))
    outputs = [View(buffers[p], tuple(shape), tuple(strides), at) for p, shape, strides, at in document["outputs"]]
    states = [GeneratorState(default_generator, part) for part in document["states"]]
    program = launch.Program(
        text="",
        io=buffers,
        numbers=[_address(state) for state in states],
        words=states,
        segments=[launch.Segment([*range(document["steps"])], document["segment"])],
        uses_blas=document["blas"],
        scratch_bytes=document["scratch"],
        exported=[document["segment"], "entry"],
        failures=[(ERRORS[name], message) for name, message in document["failures"]],
        generators=[default_generator] if states else [],
    )
    return program, Schedule([], inputs, outputs)


def _address(state: GeneratorState) -> launch.Number:
    return lambda bindings, plan: state.address


class LoadedExecutable(CpuExecutable):
    """A program from the cache."""

    def __init__(
        self,
        document: dict[str, Any],
        program: launch.Program,
        layout: Schedule,
        library: Library,
        graph: Graph,
        donations: Mapping[int, int],
    ) -> None:
        self.fallbacks = []
        self.native = frozenset()
        self.together, self.private = (), frozenset()
        self.donated = document["donated"]
        plan = MemoryPlan({}, {}, {}, document["arena"], document["arena"], document["arena"], 0)
        self._open(layout, program, plan, library, document["stack"], graph.input_kinds)
        self._translate = lambda: Translation(build_schedule(graph, donations))
