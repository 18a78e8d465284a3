"""The driver of real devices against stand-ins for cuda.core and the driver's bindings: which calls it makes, and what
becomes of their errors. That the driver does what these calls say needs a GPU (`pytest -m gpu`)."""

from __future__ import annotations

import enum
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from test_cuda_steps import training

import graphtorch as torch
from graphtorch.lowering.triton import kernels
from graphtorch.lowering.triton.codegen import Generated
from graphtorch.lowering.triton.compiler import Compiled
from graphtorch.lowering.triton.errors import ResourceError, UnsupportedError
from graphtorch.lowering.triton.strided import _write
from graphtorch.runtime.cuda import core, devices
from graphtorch.runtime.cuda import driver as drivers
from graphtorch.runtime.cuda.core import CoreDriver
from graphtorch.runtime.cuda.driver import CudaUnavailable, OutOfDeviceMemory
from graphtorch.tensor import dtypes

BASE = 0x7F0000000000


class Code(enum.IntEnum):
    """Some of the driver's error codes."""

    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_NOT_READY = 600
    CUDA_ERROR_LAUNCH_FAILED = 719


class Stream(types.SimpleNamespace):
    """cuda.core's stream."""


class Library:
    """cuda.core and its bindings in one: every call is noted and succeeds, unless `failing` has a code for its name."""

    CUresult = Code
    Stream = Stream
    CUfunction_attribute = types.SimpleNamespace(
        CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES="shared",
        CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT="carveout",
    )
    CUstreamCaptureMode = types.SimpleNamespace(CU_STREAM_CAPTURE_MODE_RELAXED="relaxed")
    CU_MEMHOSTALLOC_PORTABLE = 1

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.failing: dict[str, Code] = {}
        self.answers: dict[str, Any] = {
            "cuDeviceGetCount": 1,
            "cuDeviceTotalMem": 141 << 30,
            "cuMemGetInfo": (100 << 30, 141 << 30),
            "cuStreamEndCapture": "graph",
            "cuGraphInstantiate": "executable",
            "cuEventElapsedTime": 1.5,
            "cuDeviceCanAccessPeer": 1,
        }
        self.top = BASE
        self.LEGACY_DEFAULT_STREAM = Stream(handle=1)
        self.streams = 0
        self.properties = types.SimpleNamespace(
            multiprocessor_count=132,
            warp_size=32,
            l2_cache_size=50 << 20,
            max_threads_per_multiprocessor=2048,
            max_registers_per_multiprocessor=65536,
            max_shared_memory_per_block=49152,
            max_shared_memory_per_block_optin=232448,
            max_shared_memory_per_multiprocessor=233472,
            integrated=0,
            multi_gpu_board=0,
        )
        self.device = types.SimpleNamespace(
            set_current=lambda: None,
            name="NVIDIA H200",
            uuid="1234",
            device_id=0,
            compute_capability=(9, 0),
            properties=self.properties,
            create_stream=self.create_stream,
        )
        self.ObjectCode = types.SimpleNamespace(from_cubin=self.load)

    def Device(self, index: int) -> Any:
        return self.device

    def create_stream(self, options: Any) -> Stream:
        self.streams += 1
        return Stream(handle=0x50 + self.streams)

    def load(self, code: bytes, name: str) -> Any:
        self.calls.append(("load", name))
        return types.SimpleNamespace(get_kernel=lambda wanted: types.SimpleNamespace(handle=77, name=wanted))

    def StreamOptions(self, **options: Any) -> Any:
        return options

    LaunchConfig = StreamOptions

    def launch(self, stream: Any, config: Any, kernel: Any, *arguments: Any) -> None:
        self.calls.append(("launch", stream.handle, config, kernel.name, arguments))

    def __getattr__(self, name: str) -> Callable[..., tuple[Any, ...]]:
        if not name.startswith("cu"):
            raise AttributeError(name)

        def call(*args: Any) -> tuple[Any, ...]:
            self.calls.append((name, *args))
            code = self.failing.get(name, Code.CUDA_SUCCESS)
            if name == "cuMemAlloc" and not code:
                self.top += 1 << 32
                return code, self.top
            if name == "cuGetErrorString":
                return Code.CUDA_SUCCESS, b"what went wrong"
            if name in ("cuMemHostAlloc",) and not code:
                self.kept = np.zeros(args[0], np.uint8)
                return code, self.kept.ctypes.data
            answer = self.answers.get(name, name)
            return (code, *answer) if isinstance(answer, tuple) else (code, answer)

        return call

    def names(self) -> list[str]:
        return [c[0] for c in self.calls]


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Any:
    made = Library()
    package, bindings = types.ModuleType("cuda"), types.ModuleType("cuda.bindings")
    for name, module in (("cuda", package), ("cuda.core", made), ("cuda.bindings", bindings)):
        monkeypatch.setitem(sys.modules, name, module)
    package.core, bindings.driver = made, made  # type: ignore[attr-defined]
    monkeypatch.setattr(core.importlib.util, "find_spec", lambda name: name)
    drivers.use_driver(CoreDriver())
    yield made
    drivers.use_driver(None)


def compiled(**changes: Any) -> Compiled:
    given: dict[str, Any] = dict(name="k", target="sm_90", binary=b"", assembly="", shared=0, num_warps=4)
    return Compiled(**{**given, "num_ctas": 1, "global_scratch": 0, **changes})


def example() -> Generated:
    return _write(1, dtypes.float32)


def test_what_a_device_is(library: Library) -> None:
    assert torch.cuda.is_available() and torch.cuda.device_count() == 1
    found = torch.cuda.get_device_properties()
    assert (found.name, found.major, found.minor, found.multi_processor_count) == ("NVIDIA H200", 9, 0, 132)
    assert torch.cuda.get_device_name(0) == "NVIDIA H200" and torch.cuda.get_device_capability() == (9, 0)
    assert torch.cuda.mem_get_info() == (100 << 30, 141 << 30)
    assert kernels.target_of(devices.device()) == "sm_90"


def test_memory_comes_in_segments_and_goes_back(library: Library) -> None:
    torch.cuda.empty_cache()
    library.calls.clear()
    tensors = [torch.empty(1000, device="cuda") for _ in range(5)]
    assert library.names().count("cuMemAlloc") == 1 and ("cuMemAlloc", 2 << 20) in library.calls
    assert torch.cuda.memory_allocated() == 5 * 4096 and torch.cuda.memory_reserved() == 2 << 20
    address = tensors[0].data_ptr()
    del tensors
    assert torch.cuda.memory_allocated() == 0
    torch.cuda.empty_cache()
    assert ("cuMemFree", address) in library.calls and torch.cuda.memory_reserved() == 0


def test_copies_wait_for_the_host_where_they_must(library: Library) -> None:
    x = torch.ones(3).cuda()
    (copy,) = (c for c in library.calls if c[0] == "cuMemcpyHtoDAsync")
    assert copy[1] == x.data_ptr() and copy[3:] == (12, 1)
    library.calls.clear()
    x.cpu()
    assert library.names() == ["cuMemcpyDtoHAsync", "cuStreamSynchronize"]
    library.calls.clear()
    torch.empty(1 << 16, device="cuda").cpu()  # over page-locked memory
    assert library.names().count("cuMemcpyDtoHAsync") == 1 and "cuMemHostAlloc" in library.names()
    assert library.names().count("cuEventSynchronize") == 1
    pinned = torch.ones(3).pin_memory()
    library.calls.clear()
    pinned.cuda(non_blocking=True)
    assert "cuStreamSynchronize" not in library.names()
    pinned.cuda()
    assert "cuStreamSynchronize" in library.names()
    torch.zeros(5, device="cuda")
    assert library.calls[-1][0] == "cuMemsetD8Async" and library.calls[-1][2:] == (0, 20, 1)


def test_streams_and_events(library: Library) -> None:
    stream = torch.cuda.Stream()
    assert stream.cuda_stream != 0 and torch.cuda.current_stream().cuda_stream == 0
    with torch.cuda.stream(stream):
        assert torch.cuda.current_stream() == stream
        torch.zeros(4, device="cuda")
    assert library.calls[-1][-1] == stream.cuda_stream
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    end.record(stream)
    torch.cuda.current_stream().wait_stream(stream)
    assert library.names()[-2:] == ["cuStreamWaitEvent", "cuEventDestroy"]
    assert start.elapsed_time(end) == 1.5
    library.failing["cuEventQuery"] = Code.CUDA_ERROR_NOT_READY
    assert not end.query()
    with pytest.raises(RuntimeError, match="Both events must be completed"):
        start.elapsed_time(end)


def test_a_launch_gets_grid_block_and_typed_arguments(library: Library) -> None:
    function, device = example(), devices.device()
    loaded = kernels.load(function, compiled(shared=1024), device)
    arguments = loaded.arguments([BASE, BASE + 512, 7, 7, 1, 1])
    loaded.launcher((2, 1, 1))(device.stream, arguments)
    kind, stream, config, name, given = library.calls[-1]
    assert (kind, stream, name) == ("launch", 1, "k")
    assert config == {"grid": (2, 1, 1), "block": 128, "shmem_size": 1024}
    # Two pointers to scratch memory follow the arguments of every Triton kernel.
    assert given == (BASE, BASE + 512, 7, 7, 1, 1, 0, 0)
    assert [type(a) for a in given[:3]] == [int, int, np.int64]


def test_large_shared_memory_is_asked_for(library: Library) -> None:
    device = devices.device()
    kernels.load(example(), compiled(shared=147456), device)
    assert ("cuKernelSetAttribute", "shared", 147456, 77, 0) in library.calls
    assert ("cuKernelSetAttribute", "carveout", 100, 77, 0) in library.calls
    assert library.calls[-1] == ("cuFuncLoad", "cuKernelGetFunction")  # not at a launch that a graph records
    with pytest.raises(ResourceError, match="300000 bytes of shared memory"):
        kernels.load(example(), compiled(shared=300000), device)


def test_devices_of_later_generations_run_code_of_their_own(library: Library) -> None:
    library.device.compute_capability = (10, 3)
    drivers.use_driver(CoreDriver())
    assert kernels.target_of(devices.device()) == "sm_103"
    library.device.compute_capability = (7, 5)
    drivers.use_driver(CoreDriver())
    with pytest.raises(UnsupportedError, match=r"compute capability 7\.5"):
        kernels.target_of(devices.device())


def test_errors_of_the_driver(library: Library) -> None:
    driver = drivers.driver()
    library.failing["cuCtxSynchronize"] = Code.CUDA_ERROR_LAUNCH_FAILED
    with pytest.raises(RuntimeError, match="CUDA error: what went wrong"):
        torch.cuda.synchronize()
    library.failing["cuMemAlloc"] = Code.CUDA_ERROR_OUT_OF_MEMORY
    with pytest.raises(OutOfDeviceMemory):
        driver.allocate(0, 100)
    with pytest.raises(
        torch.cuda.OutOfMemoryError, match=r"CUDA out of memory. Tried to allocate 400.00 MiB. GPU 0 has"
    ):
        torch.empty(100 << 20, device="cuda")
    library.failing["cuInit"] = Code.CUDA_ERROR_INVALID_VALUE
    with pytest.raises(CudaUnavailable, match="no usable NVIDIA driver"):
        CoreDriver()


def test_an_old_cuda_core_is_named(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Library, "StreamOptions")
    library.__version__ = "0.4.1"  # type: ignore[attr-defined]
    with pytest.raises(CudaUnavailable, match=r"cuda.core 0.4.1 is too old"):
        CoreDriver()


def test_a_failed_recording_leaves_no_graph(library: Library) -> None:
    driver, device = drivers.driver(), devices.device()
    with pytest.raises(KeyError), driver.capture(0, device.stream):
        raise KeyError
    assert library.names()[-2:] == ["cuStreamEndCapture", "cuGraphDestroy"]


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_a_step_is_launched_or_replayed(mode: str, library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "compile_all", lambda functions, target: [compiled(name=f.name) for f in functions])
    _, _, step = training("cuda", lambda f: torch.compile(f, mode=mode))
    x, y = torch.ones(5, 6, device="cuda"), torch.zeros(5, dtype=torch.int64, device="cuda")
    for _ in range(4):
        step(x, y)
    library.calls.clear()
    step(x, y)
    names = library.names()
    if mode == "default":
        assert names.count("launch") > 3 and "cuGraphLaunch" not in names
        assert {c[1] for c in library.calls if c[0] == "launch"} == {1}
    else:
        assert names == ["cuMemcpyHtoDAsync", "cuGraphLaunch", "cuMemcpyAsync"]
        assert library.calls[1] == ("cuGraphLaunch", "executable", 1)
