"""The backend "triton": schedules as launch plans.

Without a GPU a schedule compiles to source, PTX and machine code (`inspect.py`), and tests run it through Triton's
interpreter (`InterpretedBackend`).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphtorch.ir.graph import Graph
from graphtorch.lowering.backend import Backend, Executable
from graphtorch.lowering.binding import bind, concrete, symbolic_dims
from graphtorch.lowering.kernel import Buffer, ExternCall, Kernel, Schedule, View
from graphtorch.lowering.triton.errors import UnsupportedError
from graphtorch.lowering.triton.launch import (
    Choose,
    Device,
    HostCall,
    InterpreterDevice,
    LaunchPlan,
    host_array,
    make_plan,
)
from graphtorch.lowering.triton.passes import prepare_schedule
from graphtorch.lowering.triton.tiling import Limits
from graphtorch.runtime.cuda import devices, driver
from graphtorch.schedule import build_schedule
from graphtorch.tensor.precision import settings as precision

if TYPE_CHECKING:
    from graphtorch.lowering.triton.autotune import Tuner

Array = np.ndarray[Any, Any]
_TUNERS: dict[devices.Device, Tuner] = {}
REPLAYING_MODES = ("reduce-overhead", "max-autotune")


class TritonExecutable(Executable):
    """A schedule on a device. Thread-safe: each run takes a frame of its own.

    Raises UnsupportedError where a step has no Triton form and the device can't run it otherwise.
    """

    def __init__(self, schedule: Schedule, device: Device, limits: Limits | None = None) -> None:
        self.schedule: Schedule = prepare_schedule(schedule)
        self.device = device
        self.limits = limits
        self._dims = symbolic_dims([b.value for b in schedule.inputs])
        self._programs: dict[tuple[int, ...], Program] = {}
        if not self._dims:
            self._program({})

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        if len(inputs) != len(self.schedule.inputs):
            raise RuntimeError(f"expected {len(self.schedule.inputs)} inputs, got {len(inputs)}")
        return self._program(bind(self._dims, inputs) if self._dims else {}).run(inputs)

    def _program(self, bindings: dict[str, int]) -> Program:
        key = tuple(bindings.values())
        found = self._programs.get(key)
        if found is None:
            if len(self._programs) >= 32:
                self._programs.pop(next(iter(self._programs)))
            launches = make_plan(self.schedule, bindings, self.limits)
            if launches.unsupported and not self.device.host_memory:
                reasons = "\n".join(f"  {s.step}: {s.reason}" for s in launches.unsupported)
                raise UnsupportedError(f"these steps have no Triton form:\n{reasons}")
            found = self._programs[key] = Program(self.schedule, launches, self.device)
        self.plan = found.launches.memory
        return found

    def sources(self) -> dict[str, str]:
        program = next(reversed(self._programs.values()), None)
        return {} if program is None else {s.step: s.function.source for s in program.launches.launches}


class Program:
    """A schedule for given sizes."""

    def __init__(self, schedule: Schedule, launches: LaunchPlan, device: Device) -> None:
        self.schedule = schedule
        self.launches = launches
        self.device = device
        self.donated = {b for s in schedule.steps for b in s.writes()} & set(schedule.inputs)
        self._frames: list[Frame] = []
        device.compile([launch.function for launch in launches.launches])

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        try:
            frame = self._frames.pop()
        except IndexError:
            frame = Frame(self)
        try:
            return frame.run(inputs)
        finally:
            self._frames.append(frame)


class Frame:
    """The block of device memory of one run at a time, and its launches with their arguments in place."""

    def __init__(self, program: Program) -> None:
        self.program = program
        launches = program.launches
        self.base, self.memory = program.device.allocate(launches.nbytes)
        offsets = launches.offsets
        for table in launches.tables:
            program.device.write(self.base + offsets[table], table.contents(lambda b: self.base + offsets[b]))
        self.steps: list[Callable[[], None]] = []
        for step in launches.steps:
            if isinstance(step, HostCall):
                self.steps.append(self._on_host(step.call))
            else:
                self.steps.append(program.device.prepare(step, launches.arguments(step, self.base)))

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        program, device = self.program, self.program.device
        schedule, plan = program.schedule, program.launches
        given: dict[Buffer, Any] = {}
        contiguous: dict[Buffer, Array] = {}
        for i, (buffer, value) in enumerate(zip(schedule.inputs, inputs, strict=True)):
            shape = concrete(buffer.shape, plan.bindings)
            if buffer.value.type.is_number:
                array = np.full((), value, buffer.dtype.numpy)
            else:
                if value.shape != shape or value.dtype != buffer.dtype.numpy:
                    raise RuntimeError(
                        f"input {i} ({buffer.name}) is {value.dtype}{list(value.shape)}, the graph was compiled for "
                        f"{buffer.value.type}"
                    )
                array = value if value.flags.c_contiguous else value.copy(order="C")
            given[buffer], contiguous[buffer] = value, array
            device.write(self.base + plan.offsets[buffer], array)
        for state in plan.states:
            device.write(self.base + plan.offsets[state], state.contents(plan.bindings))
        for step in self.steps:
            step()
        for buffer in program.donated:
            device.read(self.base + plan.offsets[buffer], contiguous[buffer])
            if contiguous[buffer] is not given[buffer]:
                np.copyto(given[buffer], contiguous[buffer])
        return [self._result(view, given, contiguous) for view in schedule.outputs]

    def _result(self, view: View, given: Mapping[Buffer, Any], memory: dict[Buffer, Array]) -> Array:
        """An output: an array of the caller's, or (a view of) one that is shared by all outputs in its buffer."""
        plan, buffer = self.program.launches, view.buffer
        if buffer not in memory:
            memory[buffer] = np.empty(concrete(buffer.shape, plan.bindings), buffer.dtype.numpy)
            self.program.device.read(self.base + plan.offsets[buffer], memory[buffer])
        shape, strides, offset = (concrete(x, plan.bindings) for x in (view.shape, view.strides, view.offset))
        whole = not offset and shape == memory[buffer].shape and strides == _row_major(shape)
        if whole and isinstance(given.get(buffer), np.ndarray):
            result: Array = given[buffer]
            return result
        return memory[buffer] if whole else _strided(memory[buffer], shape, strides, offset)

    def _on_host(self, call: ExternCall | Kernel) -> Callable[[], None]:
        """A step without a Triton form, by NumPy on the device's memory."""
        if isinstance(call, Kernel):
            return self._kernel_on_host(call)
        bindings = self.program.launches.bindings

        def value(arg: Any) -> Any:
            if isinstance(arg, View):
                shape, strides, offset = (concrete(x, bindings) for x in (arg.shape, arg.strides, arg.offset))
                array = _strided(self._array(arg.buffer), shape, strides, offset)
                return array.item() if arg.buffer.value.type.is_number else array
            return tuple(map(value, arg)) if type(arg) is tuple else concrete(arg, bindings)

        def run() -> None:
            made = call.op.numpy(*map(value, call.args))
            for buffer, result in zip(call.outputs, made if type(made) is tuple else (made,), strict=True):
                if buffer is not None:
                    np.copyto(self._array(buffer), result, casting="unsafe")

        return run

    def _kernel_on_host(self, kernel: Kernel) -> Callable[[], None]:
        from graphtorch.lowering.numpy.codegen import Slot, lower_kernel

        lowered = lower_kernel(kernel, self.program.launches.bindings)

        def array(slot: Slot) -> Array:
            return _strided(self._array(slot.buffer), slot.shape, slot.strides, slot.offset)

        def run() -> None:
            registers = [np.empty(r.shape, r.dtype.numpy) for r in lowered.registers]
            with np.errstate(all="ignore"):
                lowered.function(
                    *map(array, lowered.loads),
                    *lowered.indices,
                    *map(array, lowered.stores),
                    *registers,
                    *lowered.sizes,
                )

        return run

    def _array(self, buffer: Buffer) -> Array:
        plan = self.program.launches
        return host_array(self.base + plan.offsets[buffer], concrete(buffer.shape, plan.bindings), buffer.dtype.numpy)


def _row_major(shape: Sequence[int]) -> tuple[int, ...]:
    strides: list[int] = []
    step = 1
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))


def _strided(base: Array, shape: Sequence[int], strides: Sequence[int], offset: int) -> Array:
    """A view of a contiguous array; strides and offset in elements."""
    if 0 in shape:
        return np.empty(shape, base.dtype)
    flat = base.reshape(-1)[offset:]
    return np.lib.stride_tricks.as_strided(flat, shape, [s * base.itemsize for s in strides])


COMPOSITES = frozenset(["fused_attention"])


class TritonBackend(Backend):
    """The backend "triton": NVIDIA GPUs."""

    name = "triton"

    def __init__(self, mode: str = "") -> None:
        self.mode = mode

    @property
    def composites(self) -> frozenset[str]:
        return COMPOSITES

    def settings(self) -> Any:
        return settings()

    def variant(self, mode: str) -> Backend:
        """The backend in a mode of torch.compile: "reduce-overhead" and "max-autotune" replay CUDA graphs."""
        return TritonBackend(mode)

    def unavailable(self) -> str | None:
        if importlib.util.find_spec("triton") is None:
            return "Triton is not installed (pip install 'graphtorch[gpu]')"
        return driver.unavailable()

    def compile(self, graph: Graph, donations: Mapping[int, int] | None = None) -> Executable:
        """Raises RuntimeError where there is no GPU."""
        reason = self.unavailable()
        if reason is not None:
            raise RuntimeError(f"the backend 'triton' cannot run here: {reason}")
        from graphtorch.lowering.triton import stored
        from graphtorch.lowering.triton.execution import DeviceExecutable

        where = device_of(graph)
        device = devices.device(None if where is None else where.index)
        graphs = self.mode in REPLAYING_MODES
        on_host = [v.type.device.type == "cpu" and not v.type.is_number for v in graph.outputs]
        choose = self._chooser(device)
        donations = dict(donations or {})
        place = stored.place(graph, donations, device) if choose is None else None
        found = None if place is None else stored.load(place, graph, donations, device, graphs, on_host)
        if found is not None:
            return found
        made = DeviceExecutable(
            build_schedule(graph, donations), device, graphs=graphs, on_host=on_host, choose=choose
        )
        if place is not None:
            stored.save(place, made)
        return made

    def _chooser(self, device: devices.Device) -> Choose | None:
        """What chooses block sizes by measurement, in the modes that ask for it."""
        if not self.mode.startswith("max-autotune") or device.driver.interprets:
            return None
        from graphtorch.lowering.triton.measuring import device_tuner

        if device not in _TUNERS:
            _TUNERS[device] = device_tuner(device)
        return _TUNERS[device].choose


def settings() -> tuple[str, bool, bool]:
    """The precision of float32 products and convolutions, and whether sums have a fixed order."""
    return precision.key()


def device_of(graph: Graph) -> Any:
    """The CUDA device that a graph computes on; None for one of CPU tensors only."""
    for value in (*graph.inputs, *graph.outputs, *(r for node in graph.nodes for r in node.results)):
        if value.type.device.type == "cuda":
            return value.type.device
    return None


class InterpretedBackend(Backend):
    """Every kernel through Triton's interpreter: slow, exact, and without a GPU. For tests: it is not registered."""

    name = "triton-interpreter"

    @property
    def composites(self) -> frozenset[str]:
        return COMPOSITES

    def settings(self) -> Any:
        return settings()

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits

    def compile(self, graph: Graph, donations: Mapping[int, int] | None = None) -> TritonExecutable:
        return TritonExecutable(build_schedule(graph, donations), InterpreterDevice(), self.limits)
