"""Launch plans against a device that records: what is launched, on what grid, with which addresses; and the launch code
of the real device against a recording stand-in for its library."""

from __future__ import annotations

import itertools
import types
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from programs import arrays, f32, mlp_step, trace

from graphtorch.lowering.backend import get_backend
from graphtorch.lowering.kernel import Buffer
from graphtorch.lowering.triton import cuda
from graphtorch.lowering.triton.backend import TritonExecutable
from graphtorch.lowering.triton.codegen import Generated
from graphtorch.lowering.triton.compiler import Compiled
from graphtorch.lowering.triton.errors import ResourceError, UnsupportedError
from graphtorch.lowering.triton.launch import ALIGNMENT, Launch, make_plan
from graphtorch.lowering.triton.splitting import split_schedule
from graphtorch.schedule import build_schedule
from graphtorch.tensor.symint import symbol

BASE = 0x7F0000000000


class Recorder:
    """A device that has no memory and runs nothing."""

    host_memory = False

    def __init__(self) -> None:
        self.log: list[tuple[Any, ...]] = []

    def compile(self, functions: Sequence[Generated]) -> None:
        self.log.append(("compile", len(functions)))

    def allocate(self, size: int) -> tuple[int, Any]:
        self.log.append(("allocate", size))
        return BASE, None

    def write(self, address: int, array: np.ndarray[Any, Any]) -> None:
        self.log.append(("write", address, array.nbytes))

    def read(self, address: int, array: np.ndarray[Any, Any]) -> None:
        array[...] = 0
        self.log.append(("read", address, array.nbytes))

    def prepare(self, launch: Launch, arguments: Sequence[int]) -> Callable[[], None]:
        return lambda: self.log.append(("launch", launch.step, launch.grid, tuple(arguments)))


def test_a_step_is_copies_in_launches_and_copies_out() -> None:
    graph, donations = mlp_step(8, 12, 6, 4)
    device = Recorder()
    executable = TritonExecutable(build_schedule(graph, donations), device)
    assert device.log == [("compile", len(executable.sources()))]
    device.log.clear()
    executable.run(arrays(graph))
    kinds = [entry[0] for entry in device.log]
    assert kinds[0] == "allocate"
    inputs = len(graph.inputs)
    assert kinds[1 : 1 + inputs] == ["write"] * inputs
    launches = kinds[1 + inputs :].index("read")
    assert set(kinds[1 + inputs : 1 + inputs + launches]) == {"launch"}
    assert kinds[1 + inputs + launches :] == ["read"] * (len(donations) + 1)  # the parameters and the loss
    first = device.log[1:]
    device.log.clear()
    executable.run(arrays(graph))
    assert device.log == first  # the same memory, the same launches: what a CUDA graph replays


def test_buffers_are_aligned_and_disjoint_while_they_live() -> None:
    graph, donations = mlp_step(8, 12, 6, 4)
    schedule = split_schedule(build_schedule(graph, donations))
    plan = make_plan(schedule, {})
    fixed = [(o, b) for b, o in plan.offsets.items() if b not in plan.memory.offsets]
    assert all(offset % ALIGNMENT == 0 for offset, _ in fixed)
    ranges = sorted((o, o + b.dtype.itemsize * int(np.prod(b.shape, dtype=int))) for o, b in fixed)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(ranges))
    assert all(offset % 16 == 0 for offset in plan.offsets.values())  # what the kernels are compiled for
    temporaries = min((plan.offsets[b] for b in plan.memory.offsets), default=0)
    assert temporaries >= ranges[-1][1]
    assert plan.nbytes >= temporaries + plan.memory.arena_bytes


def test_arguments_are_addresses_then_sizes() -> None:
    rows = symbol("rows", hint=7)
    schedule = split_schedule(build_schedule(trace(lambda x: x * 2 + 1, f32(rows, 32))))
    plan = make_plan(schedule, {"rows": 7})
    (launch,) = plan.launches
    assert [isinstance(a, Buffer) for a in launch.arguments] == [True, True, False]
    read, written, size = plan.arguments(launch, BASE)
    assert (read - BASE, written - BASE) == tuple(plan.offsets[b] for b in launch.function.buffers)
    assert size == 7
    assert launch.grid == (-(-7 * 32 // launch.function.constants["X_BLOCK"]), 1, 1)


def test_grids_cover_every_point() -> None:
    for n in (1, 255, 1024, 1025, 10**6):
        (launch,) = make_plan(build_schedule(trace(lambda x: x * 2, f32(n))), {}).launches
        assert (launch.grid[0] - 1) * launch.function.constants["X_BLOCK"] < n
        assert launch.grid[0] * launch.function.constants["X_BLOCK"] >= n
    assert make_plan(build_schedule(trace(lambda x: x * 2, f32(0))), {}).launches == []


def test_steps_without_triton_code_are_named() -> None:
    schedule = build_schedule(trace(lambda x: x.sort(0)[0] * 2, f32(5)))
    with pytest.raises(UnsupportedError, match=r"have no Triton form:\n  c0: .*sort"):
        TritonExecutable(schedule, Recorder())


def test_without_a_gpu_the_backend_says_so() -> None:
    backend = get_backend("triton")
    reason = backend.unavailable()
    if reason is None:
        pytest.skip("there is a GPU")
    with pytest.raises(RuntimeError, match="the backend 'triton' cannot run here"):
        backend.compile(trace(lambda x: x + 1, f32(3)))


# -- cuda.core --------------------------------------------------------------------------------------------------------


class Library(types.SimpleNamespace):
    """A stand-in for cuda.core and the driver's bindings that records calls."""

    def __init__(self, optin: int = 232448) -> None:
        self.calls: list[tuple[Any, ...]] = []
        stream = types.SimpleNamespace(handle=5, sync=lambda: self.calls.append(("sync",)))
        properties = types.SimpleNamespace(max_shared_memory_per_block_optin=optin)
        self.device = types.SimpleNamespace(
            set_current=lambda: None,
            create_stream=lambda: stream,
            compute_capability=(9, 0),
            properties=properties,
            device_id=0,
            allocate=lambda size, stream: types.SimpleNamespace(handle=BASE, size=size),
        )
        kernel = types.SimpleNamespace(handle=77)
        module = types.SimpleNamespace(get_kernel=lambda name: kernel)
        super().__init__(
            Device=lambda index: self.device,
            ObjectCode=types.SimpleNamespace(from_cubin=lambda code, name: module),
            LaunchConfig=lambda **config: config,
            launch=lambda *args: self.calls.append(("launch", *args[1:])),
            CUfunction_attribute=types.SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES="shared"),
            cuKernelSetAttribute=lambda *args: self._ok("attribute", *args),
            cuMemcpyHtoDAsync=lambda *args: self._ok("in", *args),
            cuMemcpyDtoHAsync=lambda *args: self._ok("out", *args),
        )

    def _ok(self, *call: Any) -> tuple[int]:
        self.calls.append(call)
        return (0,)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    made = Library()
    monkeypatch.setattr(cuda, "_core", lambda: made)
    monkeypatch.setattr(cuda, "_driver", lambda: made)
    return made


def compiled(**changes: Any) -> Compiled:
    given: dict[str, Any] = dict(name="k", target="sm_90", binary=b"", assembly="", shared=0, num_warps=4)
    return Compiled(**{**given, "num_ctas": 1, "global_scratch": 0, **changes})


def example() -> Launch:
    schedule = build_schedule(trace(lambda x: x * 2 + 1, f32(symbol("rows", hint=7), 32)))
    return make_plan(schedule, {"rows": 7}).launches[0]


def test_a_launch_gets_grid_block_and_typed_arguments(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "compile_all", lambda functions, target: [compiled(shared=1024) for _ in functions])
    device, launch = cuda.CudaDevice(), example()
    device.compile([launch.function])
    device.prepare(launch, [BASE, BASE + 512, 7])()
    ((_, config, kernel, *arguments),) = library.calls
    assert config == {"grid": (1, 1, 1), "block": 128, "shmem_size": 1024}
    assert kernel.handle == 77
    # Two pointers to scratch memory follow the arguments of every Triton kernel.
    assert arguments == [BASE, BASE + 512, 7, 0, 0]
    assert [type(a) for a in arguments] == [int, int, np.int32, int, int]


def test_large_shared_memory_is_asked_for(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "compile_all", lambda functions, target: [compiled(shared=147456) for _ in functions])
    device, launch = cuda.CudaDevice(), example()
    device.compile([launch.function])
    device.prepare(launch, [BASE, BASE, 7])
    assert library.calls == [("attribute", "shared", 147456, 77, 0)]
    library.device.properties.max_shared_memory_per_block_optin = 100000
    with pytest.raises(ResourceError, match="147456 bytes of shared memory"):
        device.prepare(launch, [BASE, BASE, 7])


def test_copies_are_ordered_on_the_stream(library: Library) -> None:
    device = cuda.CudaDevice()
    array = np.ones(3, np.float32)
    device.write(BASE, array)
    device.read(BASE, array)
    address = array.ctypes.data
    assert library.calls == [("in", BASE, address, 12, 5), ("out", address, BASE, 12, 5), ("sync",)]
    library.calls.clear()
    device.write(BASE, np.empty(0, np.float32))
    assert library.calls == []


def test_driver_errors_and_scratch_memory_are_refused() -> None:
    with pytest.raises(RuntimeError, match="the CUDA driver reports 700"):
        cuda.checked((700,))
    with pytest.raises(UnsupportedError, match="needs 64 bytes of scratch memory"):
        cuda.launch_arguments(compiled(global_scratch=64), {}, [])


def test_unknown_gpus_are_refused(library: Library) -> None:
    library.device.compute_capability = (7, 5)
    with pytest.raises(UnsupportedError, match=r"compute capability 7\.5"):
        cuda.CudaDevice()
