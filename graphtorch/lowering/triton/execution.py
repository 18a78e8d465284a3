"""Running launch plans on a CUDA device: prepared arguments, memory from the caching allocator, and CUDA graphs.

A `Program` is a schedule for given sizes. What does not change from call to call is prepared: kernels, grids, argument
lists in which the addresses of this call's arrays are put where they differ from those of the last call. Run-time
numbers and the positions of random streams lie side by side and go to the device in one copy.

With `graphs` the launches are recorded once as a CUDA graph and replayed. A graph has its addresses inside: memory that
a program works in is its own then, results are copied out of it, and inputs that were found elsewhere than at the
recording are copied to a place of their own from then on. Parameters stay where they are and need no copy.
"""

from __future__ import annotations

import operator
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graphtorch.lowering.backend import Executable, InputMismatchError, Resident, Results
from graphtorch.lowering.binding import bind, concrete, symbolic_dims
from graphtorch.lowering.kernel import Buffer, ExternCall, Schedule, View
from graphtorch.lowering.triton.host_steps import on_host, own_kernel, runs_regions
from graphtorch.lowering.triton.kernels import load_all
from graphtorch.lowering.triton.launch import Choose, HostCall, Launch, LaunchPlan, make_plan
from graphtorch.lowering.triton.memory import RandomState, Table
from graphtorch.lowering.triton.passes import prepare_schedule
from graphtorch.lowering.triton.strided import strided_view, tell_about_host, write_into
from graphtorch.lowering.triton.tiling import Limits
from graphtorch.runtime.cuda import devices, graphs, transfer
from graphtorch.runtime.cuda.memory import Allocation
from graphtorch.schedule.memory import MemoryPlan
from graphtorch.tensor.remote import DeviceArray, contiguous, device_array
from graphtorch.tensor.symint import SymInt

Array = np.ndarray[Any, Any]
_ALIGNED = 16  # bytes: what kernels are compiled for
_SLOT = 256
_SMALL_RESULT = 1 << 16  # bytes up to which results are copied together
_TABLES = 4  # contents of a table that are remembered
_TAKEN = 10  # resident results that others hold too often are copied out instead
_PROGRAMS = 32  # sizes that an executable remembers


class DeviceExecutable(Executable):
    """A schedule on a CUDA device. Thread-safe: each run takes a frame of its own.

    Inputs may be on the device or the host.

    on_host     of each result, whether it is wanted there and not on the device
    expects     whether an input is often the very array of the call before
    graphs      whether to replay CUDA graphs
    symbols     whether there are symbolic sizes that no input tells: `run_with` is given all
    """

    checks_inputs = True
    contiguous_results = True
    symbols = False
    _dims: Sequence[tuple[int, int, SymInt]] = ()
    _only: Program | None = None  # where there are no symbolic sizes
    _latest: Program | None = None

    def __init__(
        self,
        schedule: Schedule,
        device: devices.Device,
        limits: Limits | None = None,
        graphs: bool = False,
        on_host: Sequence[bool] = (),
        expects: bool = True,
        symbols: bool = False,
        choose: Choose | None = None,
    ) -> None:
        self._schedule = prepare_schedule(schedule)
        self.limits = limits
        self.choose = choose
        self._open(device, graphs, on_host, expects)
        self.symbols = symbols
        self._dims = symbolic_dims([b.value for b in schedule.inputs])
        if not self._dims and not symbols:
            self._only = self._program({})

    def _open(self, device: devices.Device, graphs: bool, on_host: Sequence[bool], expects: bool = True) -> None:
        """What running needs beside programs."""
        self.device = device
        self.graphs = self.keeps = graphs
        self.expects = expects
        self.on_host = [i for i, wanted in enumerate(on_host) if wanted]
        self._programs: dict[tuple[int, ...], Program] = {}
        self._lock = threading.RLock()

    @property
    def schedule(self) -> Schedule:  # type: ignore[override]  # nobody assigns it
        return self._schedule

    @property
    def plan(self) -> MemoryPlan | None:  # type: ignore[override]
        return None if self._latest is None else self._latest.plan.memory

    def run(self, inputs: Sequence[Any]) -> Results:
        return self.run_again(inputs, None, ())

    def run_again(
        self,
        inputs: Sequence[Any],
        known: Sequence[Any] | None,
        changing: Sequence[int],
        wanted: Sequence[int] = (),
        free: Resident | None = None,
    ) -> Results:
        program = self._only
        if program is None:
            try:
                program = self._program(bind(self._dims, inputs))
            except RuntimeError as error:
                raise InputMismatchError(str(error)) from None
        results = program.run(inputs, known, changing, wanted, free)
        for i in self.on_host:
            if type(results[i]) is DeviceArray:
                results[i] = results[i].host()
        return results

    def run_with(self, bindings: dict[str, int], inputs: Sequence[Any] | None) -> list[Any]:
        """Run with given values for the symbols; without inputs, only prepare."""
        program = self._program(bindings)
        return [] if inputs is None else program.run(inputs)

    def program(self, bindings: dict[str, int]) -> Program:
        """What runs for given values of the symbols."""
        return self._program(bindings if self._only is None else {})

    def _program(self, bindings: dict[str, int]) -> Program:
        key = tuple(bindings.values())
        found = self._programs.get(key)
        if found is None:
            with self._lock:
                if len(self._programs) >= _PROGRAMS:
                    self._programs.pop(next(iter(self._programs)))
                plan = make_plan(self._schedule, bindings, self.limits, self.choose)
                found = self._programs[key] = Program(plan, self.device, self.graphs, self.expects)
                self.fallbacks = [f"{s.step}: {s.reason}" for s in plan.unsupported]
        self._latest = found
        return found

    def sources(self) -> dict[str, str]:
        program = next(reversed(self._programs.values()), None)
        return {} if program is None else {s.step: s.function.source for s in program.plan.launches}


@dataclass(eq=False)
class _Output:
    """A buffer that is made by each run.

    offset      where it lies if all outputs lie side by side, the small ones first
    is_small    whether it shares a block of memory with other small ones
    """

    buffer: Buffer
    shape: tuple[int, ...]
    of: np.dtype[Any]
    nbytes: int
    offset: int = 0
    is_small: bool = False


def lay_out(outputs: Sequence[_Output]) -> tuple[int, int]:
    """Give outputs their offsets; the bytes of the small ones, and of all."""
    small = size = 0
    several = sum(o.nbytes <= _SMALL_RESULT for o in outputs) > 1
    for output in sorted(outputs, key=lambda o: o.nbytes):
        output.offset, output.is_small = size, several and output.nbytes <= _SMALL_RESULT
        if output.is_small:
            small = size + output.nbytes
        size += -(-max(output.nbytes, 1) // _SLOT) * _SLOT
    return small, size


@dataclass(eq=False)
class _Result:
    """What a run returns: an input, or the output of that number; a view of it where one is given."""

    source: int
    output: int
    view: tuple[tuple[int, ...], tuple[int, ...], int] | None


@dataclass(eq=False)
class _Input:
    """An input of a program: what an array for it must be."""

    position: int
    buffer: Buffer
    shape: tuple[int, ...]
    of: np.dtype[Any]
    donated: bool
    is_number: bool


class Program:
    """A launch plan, and the frames that run it."""

    def __init__(self, plan: LaunchPlan, device: devices.Device, graphs: bool, expects: bool) -> None:
        self.expects = expects
        self.plan = plan
        self.device = device
        self.graphs = graphs and not plan.unsupported
        self.inputs = [self._input(i, b, b in plan.written) for i, b in enumerate(plan.inputs)]
        self.outputs = [self._output(b) for b in plan.made]
        self.small_bytes, self.output_bytes = lay_out(self.outputs)
        self._sources = {b: i for i, b in enumerate(plan.inputs)}
        self._made = {b: k for k, b in enumerate(plan.made)}
        results = [self._result(v) for v in plan.outputs]
        # Donated inputs come back as they are; all other results are looked up in each run.
        self.returned = [r.source if r.view is None else -1 for r in results]
        self.fresh = [(j, r) for j, r in enumerate(results) if self.returned[j] < 0]
        self.donated = {i for i in self.returned if i >= 0}
        # Numbers and random states: one block, written by one copy.
        self.uploads: dict[Buffer, int] = {}
        size = 0
        for buffer in (*plan.states, *(i.buffer for i in self.inputs if i.is_number)):
            self.uploads[buffer] = size
            size += _ALIGNED
        self.upload_bytes = size
        self.arena_bytes = plan.nbytes - plan.fixed
        self.kernels = load_all([launch.function for launch in plan.launches], device)
        for step in plan.unsupported:
            if runs_regions(step.call) or own_kernel(step.call) is not None:
                continue  # the host reads a region's predicates alone, and nothing of what has a kernel of the user's
            tell_about_host(step.call.op.name if isinstance(step.call, ExternCall) else step.call.name)
        self._frames: dict[int, list[Frame]] = {}  # by the id of the stream: runs of one stream follow each other

    def _input(self, position: int, buffer: Buffer, donated: bool) -> _Input:
        shape, of = concrete(buffer.shape, self.plan.bindings), buffer.dtype.numpy
        return _Input(position, buffer, shape, of, donated, buffer.value.type.is_number)

    def _output(self, buffer: Buffer) -> _Output:
        bindings = self.plan.bindings
        return _Output(buffer, concrete(buffer.shape, bindings), buffer.dtype.numpy, _nbytes(buffer, bindings))

    def _result(self, view: View) -> _Result:
        shape, strides, offset = (concrete(x, self.plan.bindings) for x in (view.shape, view.strides, view.offset))
        source, output = self._sources.get(view.buffer, -1), self._made.get(view.buffer, -1)
        whole = not offset and shape == concrete(view.buffer.shape, self.plan.bindings)
        return _Result(source, output, None if whole and _is_row_major(shape, strides) else (shape, strides, offset))

    def run(
        self,
        inputs: Sequence[Any],
        known: Sequence[Any] | None = None,
        changing: Sequence[int] = (),
        wanted: Sequence[int] = (),
        free: Resident | None = None,
    ) -> Results:
        stream = devices.stream_of(self.device)
        if graphs.underway and (capture := graphs.of_stream(stream)) is not None:
            return Frame(self, capture).run(inputs, stream, None, (), (), None)
        idle = self._frames.setdefault(id(stream), [])
        frame = self._idle(idle)
        try:
            return frame.run(inputs, stream, known, changing, wanted, free)
        finally:
            idle.append(frame)

    def _idle(self, idle: list[Frame]) -> Frame:
        try:
            return idle.pop()
        except IndexError:  # another thread may have taken the last one just now
            return Frame(self)

    def run_at(self, addresses: Sequence[int], numbers: Sequence[float]) -> list[Any]:
        """`run` with arrays that are known to fit, by their addresses, and then the numbers; without results that are
        inputs."""
        stream = devices.stream_of(self.device)
        if graphs.underway and (capture := graphs.of_stream(stream)) is not None:
            return Frame(self, capture).run_at(addresses, numbers, stream)
        idle = self._frames.setdefault(id(stream), [])
        frame = self._idle(idle)
        try:
            return frame.run_at(addresses, numbers, stream)
        finally:
            idle.append(frame)


class Frame:
    """The prepared launches of one run at a time; of the only one where a CUDA graph of the user's records it."""

    def __init__(self, program: Program, capture: graphs.Capture | None = None) -> None:
        self.program = program
        self.device = program.device
        self.capture = capture
        plan = program.plan
        self.steps: list[tuple[Callable[[Any, Sequence[Any]], None], Any]] = []
        self.scratch: list[Allocation] = []  # of kernels that need some for each program
        self.places: dict[Buffer, list[tuple[list[Any], int]]] = {}  # where a buffer's address stands in arguments
        kernels = iter(program.kernels)
        for step in plan.steps:
            if isinstance(step, HostCall):
                self.steps.append((on_host(step, plan.bindings, self.device.place, self._array), None))
                continue
            self.steps.append(self._prepare(step, next(kernels)))
        # Inputs that were the same array in two calls are expected to be it again, and then cost a comparison only.
        self.expected: list[Any] = [None] * len(program.inputs)
        self.known: Sequence[Any] | None = None  # whose inputs, but for those that change, are the expected ones
        # The results that are donated inputs, while these are the expected ones, and resident ones; the others.
        self.kept: tuple[list[Any], list[tuple[int, _Result]], Resident | None] | None = None
        self.last: list[Any] = [None] * len(program.inputs)  # weak references to the arrays of the last call
        self.addresses: dict[Buffer, int] = {}
        self.tabled: dict[Buffer, set[int]] = {}  # the tables that a buffer's address is in
        self.shift: int = getattr(self.device.driver, "shift", 0)
        self.staging = np.zeros(max(program.upload_bytes, 1), np.uint8)
        self.numbers = {
            b: self.staging[o : o + b.dtype.itemsize].view(b.dtype.numpy) for b, o in program.uploads.items()
            if not isinstance(b, RandomState)
        }  # fmt: skip
        self.states = [
            (b, self.staging[o : o + 16].view(np.int64))
            for b, o in program.uploads.items()
            if isinstance(b, RandomState)
        ]
        self.stale: set[int] = set()
        self.upload = self._hold(program.upload_bytes, False) if program.upload_bytes else None
        if self.upload is not None:
            for buffer, offset in program.uploads.items():
                self._place(buffer, self.upload.address + offset)
        self.arena: Allocation | None = None
        self.base = -1
        # Tables of addresses lie in memory of their own, and are written again when an address in them has changed.
        self.tables = [self._hold(_nbytes(t, plan.bindings), False) for t in plan.tables]
        self.stale = set(range(len(self.tables)))
        # Of each table the buffers whose addresses it holds, and what it was for some of these.
        self.contents: list[tuple[list[Buffer], dict[tuple[int, ...], Array]]] = [([], {}) for _ in self.tables]
        for table, memory in zip(plan.tables, self.tables, strict=True):
            self._place(table, memory.address)
        self.recording: Recording | None = None
        # Small outputs lie side by side in one block, whose address says where all are: in `small_places`, with each
        # argument that is the address of one, how far that is from the block's.
        small = [o for o in program.outputs if o.is_small]
        self.small = [o.buffer for o in small]
        self.small_offsets = [o.offset for o in small]
        self.small_places = [(*place, o.offset) for o in small for place in self.places.get(o.buffer, ())]
        self.small_tables: set[int] = set()  # that have an address of one
        self.small_base = -1
        if capture is not None:
            capture.parts.append(self)

    def _hold(self, nbytes: int, counted: bool = True) -> Allocation:
        if self.capture is not None and not counted:
            return self.capture.hold(nbytes)
        return self.device.allocator.allocate(nbytes, devices.stream_of(self.device), counted)

    def _prepare(self, step: Launch, kernel: Any) -> tuple[Callable[[Any, Sequence[Any]], None], list[Any]]:
        values = [0 if isinstance(a, Buffer) else a for a in step.arguments]
        scratch = 0
        if kernel.scratch:
            self.scratch.append(self._hold(kernel.scratch * step.grid[0], False))
            scratch = self.scratch[-1].address
        arguments = kernel.arguments(values, scratch)
        for i, argument in enumerate(step.arguments):
            if isinstance(argument, Buffer):
                self.places.setdefault(argument, []).append((arguments, i))
        return kernel.launcher(step.grid), arguments

    def _place(self, buffer: Buffer, address: int) -> None:
        """Put a buffer's address of this run into the arguments."""
        if self.addresses.get(buffer) != address:
            self.addresses[buffer] = address
            if buffer in self.tabled:
                self.stale |= self.tabled[buffer]
            address += self.shift
            for arguments, i in self.places.get(buffer, ()):
                arguments[i] = address

    # -- a run -------------------------------------------------------------------------------------------------------

    def run(
        self,
        inputs: Sequence[Any],
        stream: Any,
        known: Sequence[Any] | None,
        changing: Sequence[int],
        wanted: Sequence[int],
        free: Resident | None,
    ) -> Results:
        program = self.program
        if known is not None and self.known is known:
            changed = [i for i in changing if inputs[i] is not self.expected[i]]
        else:
            if len(inputs) != len(program.inputs):
                raise RuntimeError(f"expected {len(program.inputs)} inputs, got {len(inputs)}")
            changed = [i for i, same in enumerate(map(operator.is_, inputs, self.expected)) if not same]
            self.known = None
        for i in changed:
            self._check(program.inputs[i], inputs[i])
        copied: list[tuple[Any, DeviceArray]] = []
        held: list[Any] = []
        if program.graphs and self.capture is None:
            if self.recording is None:
                self.recording = Recording(self)
            results = self.recording.run(inputs, changed, stream, wanted, free)
            self._remember(known, changing, changed)
            return results
        for i in changed:
            self._take(program.inputs[i], inputs[i], copied, held)
        self._use_arena(held)
        made = self._make_outputs(stream)
        if self.capture is None:
            self.write(stream)
        for launch, arguments in self.steps:
            launch(stream, arguments)
        if copied:
            self._give_back(copied)
        self._remember(known, changing, changed)
        return self._results(inputs, made, changed)

    def _remember(self, known: Sequence[Any] | None, changing: Sequence[int], changed: Sequence[int]) -> None:
        """After a run: whether all inputs that the caller knows of were the expected ones."""
        if self.known is not known and set(changed) <= set(changing):
            self.known = known

    def run_at(self, addresses: Sequence[int], numbers: Sequence[float], stream: Any) -> list[Any]:
        inputs = self.program.inputs
        for slot, address in zip(inputs, addresses, strict=False):
            self._place(slot.buffer, address)
        for slot, number in zip(inputs[len(addresses) :], numbers, strict=True):
            self.numbers[slot.buffer][0] = number
            self.expected[slot.position] = number
        held: list[Any] = []
        self._use_arena(held)
        made = self._make_outputs(stream)
        if self.capture is None:
            self.write(stream)
        for launch, arguments in self.steps:
            launch(stream, arguments)
        return made

    def _check(self, slot: _Input, value: Any) -> None:
        """Raise InputMismatchError for an array that the program was not made for. Nothing has changed by then."""
        if slot.is_number:
            return
        if value.shape != slot.shape or value.dtype != slot.of:
            raise InputMismatchError(
                f"input {slot.position} ({slot.buffer.name}) is {value.dtype}{list(value.shape)}, the graph was "
                f"compiled for {slot.buffer.value.type}"
            )
        if type(value) is DeviceArray and value.place.index != self.device.index:
            raise InputMismatchError(f"input {slot.position} is on {value.place}, not on {self.device.place}")

    def _take(self, slot: _Input, value: Any, copied: list[tuple[Any, DeviceArray]], held: list[Any]) -> None:
        """Make an input's elements reachable: where they are, or as a copy."""
        i = slot.position
        if slot.is_number:
            if type(value) is DeviceArray:  # what a program before this one has computed
                value = value.item()
            self.numbers[slot.buffer][0] = value
            self.expected[i] = value
            return
        if type(value) is DeviceArray:
            address = value.address
            if value.flags.c_contiguous and address % _ALIGNED == 0:
                self._place(slot.buffer, address)
                self._expect(i, value)
                return
        copy = self._copied(value)
        held.append(copy)  # until the launches are in the stream
        self._place(slot.buffer, copy.address)
        if slot.donated:
            copied.append((value, copy))

    def _expect(self, i: int, value: Any) -> None:
        """Note an input that was found where it is. The same array again is a parameter, or a state; others are not
        kept alive from here."""
        if self.program.expects:
            last = self.last[i]
            self.expected[i] = value if last is not None and last() is value else None
            self.last[i] = weakref.ref(value)

    def _copied(self, value: Any) -> DeviceArray:
        if type(value) is DeviceArray:
            return value.copy()
        made: DeviceArray = transfer.to_device(np.ascontiguousarray(value).reshape(value.shape), self.device.place)
        return made

    def _use_arena(self, held: list[Any]) -> None:
        """Memory for temporaries, for the time of a run."""
        size = self.program.arena_bytes
        if size:
            arena = self._hold(size)
            held.append(arena)
            self._lay_out(arena)

    def _lay_out(self, arena: Allocation) -> None:
        if arena.address != self.base:
            self.base = arena.address
            plan = self.program.plan
            start = self.base - plan.fixed
            for buffer, offset in plan.offsets.items():
                if offset >= plan.fixed and buffer not in self.program.uploads and not isinstance(buffer, Table):
                    self._place(buffer, start + offset)

    def _make_outputs(self, stream: Any) -> list[DeviceArray]:
        made: list[DeviceArray] = []
        allocate, program = self.device.allocator.allocate, self.program
        block = allocate(program.small_bytes, stream) if program.small_bytes else None
        if block is not None:
            window, start, place = block.window, block.start, block.place
            if block.address != self.small_base:
                self._place_small(block.address)
        for output in program.outputs:
            if block is not None and output.is_small:  # `device_array`, of which a training step makes hundreds
                array = DeviceArray(output.shape, output.of, window, start + output.offset)
                array.place, array.memory = place, block
                made.append(array)
                continue
            memory = allocate(output.nbytes, stream)
            made.append(device_array(memory, output.shape, output.of))
            self._place(output.buffer, memory.address)
        return made

    def _place_small(self, base: int) -> None:
        """`_place` of all small outputs, in a block at that address."""
        self.small_base = base
        self.addresses.update(zip(self.small, map(base.__add__, self.small_offsets), strict=True))
        self.stale |= self.small_tables
        base += self.shift
        for arguments, i, offset in self.small_places:
            arguments[i] = base + offset

    @property
    def changes(self) -> bool:
        """Whether what is written before a run is another thing each time."""
        return bool(self.states)

    def write(self, stream: Any) -> None:
        """Send numbers, random states and tables."""
        program, driver = self.program, self.device.driver
        for state, place in self.states:
            place[:] = state.contents(program.plan.bindings)
        if self.upload is not None:
            source = self.staging.__array_interface__["data"][0]
            driver.copy_in(self.upload.address, source, program.upload_bytes, stream)
        for i in self.stale:
            content = self._table(i)
            source = content.__array_interface__["data"][0]
            driver.copy_in(self.tables[i].address, source, content.nbytes, stream)
        self.stale.clear()

    def _table(self, i: int) -> Array:
        """What a table holds for the addresses of now. Gradients take turns between two places, so that few different
        contents come again and again."""
        buffers, known = self.contents[i]
        key = tuple(map(self.addresses.__getitem__, buffers))
        found = known.get(key) if buffers else None
        if found is None:
            asked: dict[Buffer, None] = {}

            def address(buffer: Buffer) -> int:
                asked[buffer] = None
                return self.addresses[buffer] + self.shift

            found = np.ascontiguousarray(self.program.plan.tables[i].contents(address))
            if not buffers:
                buffers = list(asked)
                for buffer in buffers:
                    self.tabled.setdefault(buffer, set()).add(i)
                if not asked.keys().isdisjoint(self.small):
                    self.small_tables.add(i)
                key = tuple(map(self.addresses.__getitem__, buffers))
            elif len(known) >= _TABLES:
                known.clear()
            known[key] = found
            self.contents[i] = buffers, known
        return found

    @staticmethod
    def _give_back(copied: list[tuple[Any, DeviceArray]]) -> None:
        """Write what was changed in a copy to where it came from."""
        for value, copy in copied:
            if type(value) is DeviceArray:
                write_into(value, copy)
            else:
                np.copyto(value, copy.host())

    def _results(self, inputs: Sequence[Any], made: Sequence[DeviceArray], changed: Sequence[int]) -> Results:
        """The outputs: arrays of the caller's, and those of this run, or views of them."""
        program = self.program
        if self.kept is None or not program.donated.isdisjoint(changed):
            results = Results([inputs[i] if i >= 0 else None for i in program.returned])
            # Donated inputs are expected to be the same arrays in the next call.
            settled = all(self.expected[i] is inputs[i] for i in program.donated)
            self.kept = None
            fresh, resident = program.fresh, None
            if self.recording is not None and self.recording.resident is not None:
                fresh, resident = self.recording.fresh, self.recording.resident
                for j, array in resident.arrays.items():
                    results[j] = array
            if settled:
                self.kept = [*results], fresh, resident
        else:
            kept, fresh, resident = self.kept
            results = Results(kept)
        results.resident = resident
        for j, result in fresh:
            base = made[result.output] if result.output >= 0 else inputs[result.source]
            results[j] = base if result.view is None else strided_view(contiguous(base), *result.view)
        return results

    # -- steps without a kernel --------------------------------------------------------------------------------------

    def _array(self, buffer: Buffer) -> DeviceArray:
        """What lies in a buffer now."""
        shape = concrete(buffer.shape, self.program.plan.bindings)
        if 0 in shape:  # which has no place, where there is nothing but such temporaries
            return transfer.empty(shape, buffer.dtype.numpy, self.device.place)
        return device_array(_Place(self.addresses[buffer], shape, buffer, self.device), shape, buffer.dtype.numpy)


class _Place:
    """Memory at an address that somebody else keeps."""

    def __init__(self, address: int, shape: Sequence[int], buffer: Buffer, device: devices.Device) -> None:
        from graphtorch.tensor.remote import window

        self.address = address
        self.nbytes = int(np.prod(shape, dtype=np.int64)) * buffer.dtype.itemsize
        self.window = window(address, self.nbytes)
        self.start = 0
        self.place = device.place


class Recording:
    """The launches of a frame as a CUDA graph, and where it expects its inputs.

    Results are copied out of the graph's memory, but for those that are `resident`: arrays that the graph writes where
    they are, because the caller finds that nobody holds those of the last run. If somebody does, they are his; the
    graph is recorded again with others, and after some such cases copies.
    """

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.graph: Any = None
        self.slots: dict[int, DeviceArray] = {}  # inputs that move have a place of their own
        self.addresses: dict[int, int] = {}  # where the others were at the recording
        program = frame.program
        if program.arena_bytes:
            frame.arena = frame._hold(program.arena_bytes)  # counted: it is what the program works in
            frame._lay_out(frame.arena)
        self.resident: Resident | None = None
        self.fresh = program.fresh  # the other results, that each run looks up
        self.wanted: Sequence[int] = ()  # the results that may be resident
        self.taken = 0  # rises where resident results are found to be somebody's, falls where not
        self._copy_out(())

    def _copy_out(self, resident: Collection[int]) -> None:
        """Have the outputs, but those of these numbers, in memory of the graph, the small ones side by side."""
        outputs = self.frame.program.outputs
        self.copied = [(k, replace(output)) for k, output in enumerate(outputs) if k not in resident]
        self.small_bytes, size = lay_out([output for _, output in self.copied])
        self.results = self.frame._hold(size, False) if size else None
        for _, output in self.copied:
            assert self.results is not None
            self.frame._place(output.buffer, self.results.address + output.offset)

    def _settle(self, wanted: Sequence[int], stream: Any) -> bool:
        """Find new memory for results that are wanted to be resident; whether the graph has to be recorded again."""
        frame = self.frame
        program = frame.program
        self.wanted = wanted or self.wanted
        if not self.wanted or self.taken > _TAKEN:
            return False
        if self.resident is not None:
            self.taken += 2
        by_position = {j: r.output for j, r in program.fresh if r.output >= 0 and r.view is None}
        uses = Counter(by_position.values())
        chosen = {j: k for j in self.wanted if uses[k := by_position.get(j, -1)] == 1}
        self.resident, self.results, frame.kept = None, None, None
        if self.taken > _TAKEN or not chosen:
            self.wanted, self.fresh = (), program.fresh
            self._copy_out(())
            return True
        self._copy_out(chosen.values())
        arrays: dict[int, DeviceArray] = {}
        for j, k in chosen.items():
            output = program.outputs[k]
            memory = frame.device.allocator.allocate(output.nbytes, stream)
            arrays[j] = device_array(memory, output.shape, output.of)
            frame._place(output.buffer, memory.address)
        self.resident = Resident(arrays)
        self.fresh = [(j, r) for j, r in program.fresh if j not in arrays]
        return True

    def run(
        self,
        inputs: Sequence[Any],
        changed: Sequence[int],
        stream: Any,
        wanted: Sequence[int],
        free: Resident | None,
    ) -> Results:
        frame = self.frame
        program, driver = frame.program, frame.device.driver
        stale = self.graph is None
        if (free is None or free is not self.resident) and not stale:
            stale = self._settle(wanted, stream)
        elif self.taken:
            self.taken -= 1
        copied: list[tuple[Any, DeviceArray]] = []
        moved: list[tuple[DeviceArray, Any]] = []
        for i in changed:
            slot, value = program.inputs[i], inputs[i]
            if slot.is_number:
                frame.numbers[slot.buffer][0] = value
                frame.expected[i] = value
                continue
            place = self.slots.get(i)
            if place is not None:
                moved.append((place, value))
                if slot.donated:
                    copied.append((value, place))
                continue
            address = value.address if type(value) is DeviceArray and value.flags.c_contiguous else 1
            if address % _ALIGNED:
                place = None
            elif self.addresses.get(i) == address:
                # Where it was at the recording. An array that comes again and again is known by itself from then on.
                frame._expect(i, value)
                continue
            elif i not in self.addresses or slot.donated:
                # The first time, or a parameter that was given other memory: record with it where it is.
                self.addresses[i] = address
                frame._place(slot.buffer, address)
                frame.expected[i], frame.last[i] = None, weakref.ref(value)
                stale = True
                continue
            # It moves: from now on it is copied to a place of its own.
            place = self.slots[i] = transfer.empty(slot.shape, slot.of, frame.device.place)
            frame._place(slot.buffer, place.memory.address)
            frame.expected[i] = None
            moved.append((place, value))
            if slot.donated:
                copied.append((value, place))
            stale = True
        for place, value in moved:
            write_into(place, value)
        frame.write(stream)
        if stale:
            self.graph = self.record(stream)
        driver.launch_graph(self.graph, stream)
        if copied:
            frame._give_back(copied)
        return frame._results(inputs, self._take_out(stream), changed)

    def record(self, stream: Any) -> Any:
        """The launches as a graph of the addresses of now."""
        frame = self.frame
        with frame.device.driver.capture(frame.device.index, stream) as capture:
            for launch, arguments in frame.steps:
                launch(capture.stream, arguments)
        return capture.graph

    def _take_out(self, stream: Any) -> list[DeviceArray]:
        """The outputs in memory of their own, which the next replay does not touch; resident ones are left out."""
        frame, driver = self.frame, self.frame.device.driver
        made: list[Any] = [None] * len(frame.program.outputs)
        if self.results is not None:
            allocate, source = frame.device.allocator.allocate, self.results.address
            block: Allocation | None = None
            if self.small_bytes:
                block = allocate(self.small_bytes, stream)
                driver.copy(block.address, source, self.small_bytes, stream)
            for k, output in self.copied:
                if block is not None and output.is_small:
                    made[k] = device_array(block, output.shape, output.of, output.offset)
                    continue
                memory = allocate(output.nbytes, stream)
                if output.nbytes:
                    driver.copy(memory.address, source + output.offset, output.nbytes, stream)
                made[k] = device_array(memory, output.shape, output.of)
        return made


def _nbytes(buffer: Buffer, bindings: Mapping[str, int]) -> int:
    return int(np.prod(concrete(buffer.shape, bindings), dtype=np.int64)) * buffer.dtype.itemsize


def _is_row_major(shape: Sequence[int], strides: Sequence[int]) -> bool:
    step = 1
    for n, stride in zip(reversed(shape), reversed(strides), strict=True):
        if n != 1 and stride != step:
            return False
        step *= n
    return True


__all__ = ["DeviceExecutable", "Program"]
