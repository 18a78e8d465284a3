"""Launch plans that were made before, by this process or another one: a warm process neither schedules nor generates.

A plan is found by the digest of its graph, and of everything else that it depends on: the device, the precision that
products may have, Triton's version, and the source files of this package between the graph and the plan. Its entry is a
JSON document: the source of each kernel without its comments, by which the machine code is found, grids, arguments, and
where in memory everything lies. Nothing is executed to read it.

Plans for symbolic sizes, with steps on the host, or with a generator of the user's own are not kept. What explains a
plan (schedule, memory plan, sources with the user's lines) is made again when somebody asks for it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from graphtorch.ir.digest import digest
from graphtorch.ir.graph import Graph, Value
from graphtorch.lowering import cache
from graphtorch.lowering.kernel import Buffer, Schedule, View
from graphtorch.lowering.triton.codegen import Generated, without_comments
from graphtorch.lowering.triton.compiler import BACKEND, version
from graphtorch.lowering.triton.execution import DeviceExecutable, Program
from graphtorch.lowering.triton.launch import Launch, LaunchPlan, make_plan
from graphtorch.lowering.triton.memory import Addresses, RandomState, Scratch, Spans, Table
from graphtorch.lowering.triton.passes import prepare_schedule
from graphtorch.runtime.cuda import devices
from graphtorch.schedule import build_schedule
from graphtorch.schedule.memory import MemoryPlan
from graphtorch.tensor.cuda_generator import generator_for
from graphtorch.tensor.dtypes import BY_NAME
from graphtorch.tensor.precision import settings as precision
from graphtorch.tensor.type import TensorType

VERSION = 1  # of the documents
SUFFIX = ".json"
# What code between a graph and its plan is in; a change of one of their files is a change of every key.
SOURCES = ("ir", "ops", "tensor", "schedule", "lowering", "lowering/triton")

used = True  # tests that look at how a plan is made turn this off


def place(graph: Graph, donations: Mapping[int, int], device: devices.Device) -> Path | None:
    """Where the graph's plan is kept; None if it can't be. Kernels that are interpreted are not kept."""
    if not used or device.driver.interprets or cache.folder(BACKEND) is None:
        return None
    found = digest(graph, *sorted(donations.items()))
    try:
        compiler = version()
    except ImportError:  # a device that compiles nothing
        return None
    if found is None:
        return None
    kind = replace(device.properties, uuid="", total_memory=0)
    what = (str(VERSION), found, cache.state_of_sources(SOURCES), compiler, repr(kind), repr(precision.key()))
    return cache.place(BACKEND, hashlib.blake2b("\0".join(what).encode(), digest_size=20).hexdigest(), SUFFIX)


# -- writing ----------------------------------------------------------------------------------------------------------


def save(path: Path, executable: DeviceExecutable) -> None:
    """Keep a plan, if it is of the kind that can be kept."""
    document = describe(executable.program({}).plan, executable.device)
    if document is not None:
        cache.write(path, json.dumps(document, separators=(",", ":")).encode())


def describe(plan: LaunchPlan, device: devices.Device) -> dict[str, Any] | None:
    """The document of a plan; None for one with more than launches, or with states that this process alone has."""
    if plan.unsupported:
        return None
    numbers = {b: i for i, b in enumerate(plan.inputs)}
    used = dict.fromkeys([*plan.offsets, *(b for x in plan.launches for b in x.function.buffers)])
    for buffer in sorted(used, key=lambda b: isinstance(b, Addresses)):  # after those whose addresses they hold
        numbers.setdefault(buffer, len(numbers))
    buffers: list[Any] = []
    for buffer in list(numbers)[len(plan.inputs) :]:
        extra: Any = None
        if isinstance(buffer, Addresses):
            extra = [[[numbers[x]] if isinstance(x, Buffer) else x for x in row] for row in buffer.rows]
        elif isinstance(buffer, Spans):
            extra = list(buffer.spans)
        elif isinstance(buffer, RandomState):
            if buffer.generator is not generator_for(device.place):
                return None
            extra = buffer.before(len(buffer.draws), plan.bindings)
        elif type(buffer) not in (Buffer, Scratch):
            return None
        buffers.append([type(buffer).__name__, buffer.name, buffer.dtype.name, buffer.shape, buffer.kind, extra])
    sources: dict[str, int] = {}
    functions: dict[str, int] = {}
    launches: list[Any] = []
    for launch in plan.launches:
        f = launch.function
        source = sources.setdefault(without_comments(f.source), len(sources))
        form = [f.name, source, f.pointers, [name for name, _ in f.integers], f.constants, f.wide]
        text = json.dumps([*form, sorted(f.divisible), f.num_warps, f.num_stages])
        function = functions.setdefault(text, len(functions))
        count = len(f.buffers)
        given = [numbers[b] for b in f.buffers]
        launches.append([launch.step, function, launch.grid, given, launch.arguments[count:]])
    memory = plan.memory
    return {
        "buffers": buffers,
        "outputs": [[numbers[v.buffer], v.shape, v.strides, v.offset] for v in plan.outputs],
        "made": [numbers[b] for b in plan.made],
        "written": [numbers[b] for b in plan.inputs if b in plan.written],
        "offsets": [[numbers[b], at] for b, at in plan.offsets.items()],
        "fixed": plan.fixed,
        "bytes": plan.nbytes,
        "memory": [memory.arena_bytes, memory.peak_bytes, memory.total_bytes, memory.output_bytes],
        "sources": list(sources),
        "functions": [json.loads(f) for f in functions],
        "launches": launches,
    }


# -- reading ----------------------------------------------------------------------------------------------------------


def load(
    path: Path,
    graph: Graph,
    donations: Mapping[int, int],
    device: devices.Device,
    graphs: bool,
    on_host: Sequence[bool],
) -> StoredExecutable | None:
    """What runs the plan that is kept there; None if there is none."""
    content = cache.read(path)
    if content is None:
        return None
    return StoredExecutable(_plan(json.loads(content), graph, device), graph, donations, device, graphs, on_host)


def _plan(document: Mapping[str, Any], graph: Graph, device: devices.Device) -> LaunchPlan:
    inputs = [Buffer(v.name, v.type.dtype, v.type.shape, "input", v) for v in graph.inputs]
    buffers = list(inputs)
    for kind, name, of, shape, use, extra in document["buffers"]:
        made: Buffer
        if kind == "Addresses":
            made = Addresses(name, [[buffers[x[0]] if type(x) is list else x for x in row] for row in extra])
        elif kind == "Spans":
            made = Spans(name, extra)
        elif kind == "RandomState":
            made = _state(name, extra, device)
        else:
            type_ = TensorType(BY_NAME[of], tuple(shape))
            made = Buffer(name, type_.dtype, type_.shape, use, Value(type_, name))
        buffers.append(made)
    launches = _launches(document, buffers)
    offsets = {buffers[i]: at for i, at in document["offsets"]}
    return LaunchPlan(
        steps=[*launches],
        offsets=offsets,
        nbytes=document["bytes"],
        memory=MemoryPlan({}, {}, {}, *document["memory"]),
        bindings={},
        tables=tuple(b for b in offsets if isinstance(b, Table)),
        states=tuple(b for b in offsets if isinstance(b, RandomState)),
        fixed=document["fixed"],
        inputs=inputs,
        outputs=[View(buffers[i], tuple(shape), tuple(s), at) for i, shape, s, at in document["outputs"]],
        written=frozenset(buffers[i] for i in document["written"]),
        made=tuple(buffers[i] for i in document["made"]),
    )


def _state(name: str, advance: int, device: devices.Device) -> RandomState:
    state = RandomState(name, generator_for(device.place))
    state.draws.append(lambda bindings: advance)
    return state


def _launches(document: Mapping[str, Any], buffers: Sequence[Buffer]) -> list[Launch]:
    made: list[Launch] = []
    for step, function, grid, given, integers in document["launches"]:
        name, source, pointers, names, constants, wide, divisible, warps, stages = document["functions"][function]
        own = tuple(buffers[i] for i in given)
        generated = Generated(
            name=name,
            source=document["sources"][source],
            buffers=own,
            pointers=tuple(pointers),
            integers=tuple(zip(names, integers, strict=True)),
            constants=constants,
            blocks=(),
            wide=wide,
            divisible=frozenset(divisible),
            num_warps=warps,
            num_stages=stages,
        )
        made.append(Launch(step, generated, tuple(grid), (*own, *integers)))
    return made


class StoredExecutable(DeviceExecutable):
    """A plan from the cache."""

    def __init__(
        self,
        plan: LaunchPlan,
        graph: Graph,
        donations: Mapping[int, int],
        device: devices.Device,
        graphs: bool,
        on_host: Sequence[bool],
    ) -> None:
        self._open(device, graphs=graphs, on_host=on_host)
        self._origin = graph, donations
        self._only = self._programs[()] = Program(plan, device, graphs, self.expects)

    @cached_property
    def _explained(self) -> tuple[Schedule, LaunchPlan]:
        schedule = prepare_schedule(build_schedule(*self._origin))
        return schedule, make_plan(schedule, {})

    @property
    def schedule(self) -> Schedule:  # type: ignore[override]  # nobody assigns it
        return self._explained[0]

    @property
    def plan(self) -> MemoryPlan:  # type: ignore[override]
        return self._explained[1].memory

    def sources(self) -> dict[str, str]:
        return {s.step: s.function.source for s in self._explained[1].launches}
