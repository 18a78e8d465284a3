"""The driver of real devices: cuda.core for devices, streams, kernels and graphs, the bindings that it brings along for
memory and copies.

Unproven: no machine with a GPU has run this file. It was run through the real cuda.core, over a stand-in for the
driver's library (tests/runtime/lazy_driver.py)."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from graphtorch.runtime.cuda.driver import Capture, CudaUnavailable, Driver, OutOfDeviceMemory, Properties, told

_NEEDED = ("Device", "LaunchConfig", "LEGACY_DEFAULT_STREAM", "ObjectCode", "Stream", "StreamOptions", "launch")
_BLOCKING_SYNC, _DISABLE_TIMING = 1, 2  # CUevent_flags
_STATIC_SHARED = 48 * 1024  # bytes of shared memory that a launch may ask for without a request at the driver


class CoreDriver(Driver):
    """The NVIDIA driver of this machine. Raises CudaUnavailable where something is missing."""

    def __init__(self) -> None:
        for module in ("triton", "cuda", "cuda.core", "cuda.bindings"):
            try:
                present = importlib.util.find_spec(module) is not None
            except ModuleNotFoundError:
                present = False
            if not present:
                raise CudaUnavailable(f"{module} is not installed (pip install 'graphtorch[gpu]')")
        try:
            import cuda.core as core
            from cuda.bindings import driver as bindings
        except Exception as error:  # a library that does not load raises what it likes
            raise CudaUnavailable(f"cuda.core does not load ({error})") from None
        if not all(hasattr(core, name) for name in _NEEDED):
            version = getattr(core, "__version__", "of unknown version")
            raise CudaUnavailable(f"cuda.core {version} is too old (pip install 'graphtorch[gpu]')")
        self.core: Any = core
        self.bindings: Any = bindings
        try:
            self._check(bindings.cuInit(0))
            self._count = int(self._check(bindings.cuDeviceGetCount()))
        except Exception as error:  # whatever the driver, or its absence, raises
            raise CudaUnavailable(f"there is no usable NVIDIA driver ({error})") from None
        if not self._count:
            raise CudaUnavailable("the NVIDIA driver knows no device")
        self._process = os.getpid()
        self._devices: dict[int, Any] = {}
        self._modules: list[Any] = []

    def _check(self, result: tuple[Any, ...]) -> Any:
        """What a call of the bindings gave. Raises RuntimeError for an error code."""
        if int(result[0]):
            code = result[0]
            if code == self.bindings.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
                raise OutOfDeviceMemory
            text = self.bindings.cuGetErrorString(code)[1]
            raise RuntimeError(f"CUDA error: {text.decode() if isinstance(text, bytes) else code.name}")
        return result[1] if len(result) == 2 else result[1:]

    def device_count(self) -> int:
        return self._count

    def device(self, index: int) -> Any:
        """cuda.core's device, current on this thread."""
        if os.getpid() != self._process:
            raise RuntimeError(
                "Cannot re-initialize CUDA in forked subprocess. To use CUDA with multiprocessing, you must use the "
                "'spawn' start method"
            )
        found = self._devices.get(index)
        if found is None:
            found = self._devices[index] = self.core.Device(index)
        found.set_current()
        if told.key is not None and told.key != (self, index):
            told.key = None  # this thread's next work makes its device current again
        return found

    def properties(self, index: int) -> Properties:
        device = self.device(index)
        said = device.properties
        handle = self._check(self.bindings.cuDeviceGet(index))
        major, minor = device.compute_capability
        return Properties(
            name=str(device.name),
            major=int(major),
            minor=int(minor),
            total_memory=int(self._check(self.bindings.cuDeviceTotalMem(handle))),
            multi_processor_count=int(said.multiprocessor_count),
            warp_size=int(said.warp_size),
            L2_cache_size=int(said.l2_cache_size),
            max_threads_per_multi_processor=int(said.max_threads_per_multiprocessor),
            regs_per_multiprocessor=int(said.max_registers_per_multiprocessor),
            shared_memory_per_block=int(said.max_shared_memory_per_block),
            shared_memory_per_block_optin=int(said.max_shared_memory_per_block_optin),
            shared_memory_per_multiprocessor=int(said.max_shared_memory_per_multiprocessor),
            is_integrated=int(said.integrated),
            is_multi_gpu_board=int(said.multi_gpu_board),
            uuid=str(device.uuid),
        )

    def make_current(self, index: int) -> None:
        self.device(index)

    def can_access_peer(self, index: int, peer: int) -> bool:
        here, there = (self._check(self.bindings.cuDeviceGet(i)) for i in (index, peer))
        return bool(self._check(self.bindings.cuDeviceCanAccessPeer(here, there)))

    # -- memory ------------------------------------------------------------------------------------------------------

    def memory_info(self, index: int) -> tuple[int, int]:
        self.device(index)
        free, total = self._check(self.bindings.cuMemGetInfo())
        return int(free), int(total)

    def allocate(self, index: int, size: int) -> int:
        self.device(index)
        return int(self._check(self.bindings.cuMemAlloc(size)))

    def free(self, index: int, address: int) -> None:
        self.device(index)
        self._check(self.bindings.cuMemFree(address))

    def allocate_host(self, size: int) -> int:
        portable = int(self.bindings.CU_MEMHOSTALLOC_PORTABLE)
        return int(self._check(self.bindings.cuMemHostAlloc(size, portable)))

    def free_host(self, address: int) -> None:
        if os.getpid() != self._process:  # what a fork left, which is the parent's
            return
        if told.key is None:  # a destructor on a thread that used no device
            self.device(0)
        self._check(self.bindings.cuMemFreeHost(address))

    def copy_in(self, target: int, source: int, size: int, stream: Any) -> None:
        self._check(self.bindings.cuMemcpyHtoDAsync(target, source, size, stream.handle))

    def copy_out(self, target: int, source: int, size: int, stream: Any) -> None:
        self._check(self.bindings.cuMemcpyDtoHAsync(target, source, size, stream.handle))

    def copy(self, target: int, source: int, size: int, stream: Any) -> None:
        # Addresses are unified: the driver knows whose they are, also those of two devices.
        self._check(self.bindings.cuMemcpyAsync(target, source, size, stream.handle))

    def fill(self, target: int, byte: int, size: int, stream: Any) -> None:
        self._check(self.bindings.cuMemsetD8Async(target, byte, size, stream.handle))

    # -- streams and events ------------------------------------------------------------------------------------------

    def default_stream(self, index: int) -> Any:
        self.device(index)
        return self.core.LEGACY_DEFAULT_STREAM

    def create_stream(self, index: int, priority: int) -> Any:
        return self.device(index).create_stream(options=self.core.StreamOptions(nonblocking=True, priority=priority))

    def external_stream(self, index: int, handle: int) -> Any:
        if handle in (0, 1):
            return self.default_stream(index)
        self.device(index)
        return self.core.Stream.from_handle(handle)

    def stream_handle(self, stream: Any) -> int:
        number = int(stream.handle)
        return 0 if number == 1 else number  # the legacy default stream has both numbers; PyTorch says 0

    def stream_done(self, stream: Any) -> bool:
        return self._done(self.bindings.cuStreamQuery(stream.handle))

    def _done(self, result: tuple[Any, ...]) -> bool:
        if result[0] == self.bindings.CUresult.CUDA_ERROR_NOT_READY:
            return False
        self._check(result)
        return True

    def wait_stream(self, stream: Any) -> None:
        self._check(self.bindings.cuStreamSynchronize(stream.handle))

    def wait_device(self, index: int) -> None:
        self.device(index)
        self._check(self.bindings.cuCtxSynchronize())

    def create_event(self, index: int, timing: bool, blocking: bool) -> Any:
        self.device(index)
        flags = (_BLOCKING_SYNC if blocking else 0) | (0 if timing else _DISABLE_TIMING)
        return _Event(self._check(self.bindings.cuEventCreate(flags)), self.bindings)

    def record_event(self, event: Any, stream: Any) -> None:
        self._check(self.bindings.cuEventRecord(event.handle, stream.handle))

    def stream_wait_event(self, stream: Any, event: Any) -> None:
        self._check(self.bindings.cuStreamWaitEvent(stream.handle, event.handle, 0))

    def event_done(self, event: Any) -> bool:
        return self._done(self.bindings.cuEventQuery(event.handle))

    def wait_event(self, event: Any) -> None:
        self._check(self.bindings.cuEventSynchronize(event.handle))

    def elapsed(self, start: Any, end: Any) -> float:
        return float(self._check(self.bindings.cuEventElapsedTime(start.handle, end.handle)))

    # -- kernels -----------------------------------------------------------------------------------------------------

    def load(self, index: int, code: Any, name: str, shared: int) -> Any:
        device = self.device(index)
        module = self.core.ObjectCode.from_cubin(code, name=name)
        self._modules.append(module)  # kernels are loaded once a process, and stay
        kernel = module.get_kernel(name)
        if shared > _STATIC_SHARED:
            kinds = self.bindings.CUfunction_attribute
            for attribute, value in (
                (kinds.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared),
                # All that can be shared memory, in percent: for as many programs beside each other as fit.
                (kinds.CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, 100),
            ):
                self._check(self.bindings.cuKernelSetAttribute(attribute, value, kernel.handle, device.device_id))
        self._load_now(kernel)
        return kernel

    def _load_now(self, kernel: Any) -> None:
        """Have the code on the device, which the driver otherwise waits for until the first launch: that may be one
        that a graph records, when loading is not possible."""
        function = self._check(self.bindings.cuKernelGetFunction(kernel.handle))
        try:
            result = self.bindings.cuFuncLoad(function)
        except RuntimeError:  # a driver before 12.4
            return
        self._check(result)

    def launcher(
        self, kernel: Any, grid: tuple[int, int, int], block: int, shared: int
    ) -> Callable[[Any, Sequence[Any]], None]:
        config = self.core.LaunchConfig(grid=grid, block=block, shmem_size=shared)
        launch = self.core.launch

        def run(stream: Any, arguments: Sequence[Any]) -> None:
            try:
                launch(stream, config, kernel, *arguments)
            except Exception as error:
                raise _as_runtime_error(error) from error

        return run

    @contextmanager
    def capture(self, index: int, stream: Any) -> Iterator[Capture]:
        # The default stream can't be captured; what is recorded on this one runs on any stream later.
        inside = Capture(self.create_stream(index, 0))
        self.begin_capture(inside.stream)
        try:
            yield inside
        except BaseException:
            self.abandon_capture(inside.stream)
            raise
        inside.graph = self.end_capture(inside.stream)

    def begin_capture(self, stream: Any) -> None:
        # Only launches on this stream are recorded. The stricter modes would also let a recording fail for what the
        # garbage collector gives back meanwhile (page-locked memory, events of memory that streams share).
        mode = self.bindings.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
        self._check(self.bindings.cuStreamBeginCapture(stream.handle, mode))

    def end_capture(self, stream: Any) -> Any:
        bindings = self.bindings
        graph = self._check(bindings.cuStreamEndCapture(stream.handle))
        try:
            made = self._check(bindings.cuGraphInstantiate(graph, 0))
        finally:
            bindings.cuGraphDestroy(graph)
        self._check(bindings.cuGraphUpload(made, stream.handle))
        self.wait_stream(stream)
        return _Graph(made, bindings)

    def abandon_capture(self, stream: Any) -> None:
        result = self.bindings.cuStreamEndCapture(stream.handle)
        if not int(result[0]):
            self.bindings.cuGraphDestroy(result[1])

    def stream_capturing(self, stream: Any) -> bool:
        return int(self._check(self.bindings.cuStreamIsCapturing(stream.handle))) != 0

    def launch_graph(self, graph: Any, stream: Any) -> None:
        result = graph.launch(graph.handle, stream.handle)
        if int(result[0]):
            self._check(result)


def _as_runtime_error(error: Exception) -> Exception:
    """cuda.core's own error, which is no RuntimeError, as what PyTorch raises; others as they are."""
    return RuntimeError(f"CUDA error: {error}") if type(error).__name__ == "CUDAError" else error


class _Event:
    """An event, which the driver forgets when nothing holds it any more. (cuda.core's own takes options whose names
    differ between its versions.)"""

    __slots__ = ("destroy", "handle", "process")

    def __init__(self, handle: Any, bindings: Any) -> None:
        self.handle = handle
        self.process = os.getpid()
        self.destroy = bindings.cuEventDestroy

    def __del__(self, ending: Callable[[], bool] = sys.is_finalizing) -> None:
        if not ending() and os.getpid() == self.process:
            self.destroy(self.handle)


class _Graph:
    """An executable graph, which the driver forgets when nothing holds it any more."""

    __slots__ = ("destroy", "handle", "launch", "process")

    def __init__(self, handle: Any, bindings: Any) -> None:
        self.handle = handle
        self.process = os.getpid()
        self.launch = bindings.cuGraphLaunch
        self.destroy = bindings.cuGraphExecDestroy

    def __del__(self, ending: Callable[[], bool] = sys.is_finalizing) -> None:
        if not ending() and os.getpid() == self.process:
            self.destroy(self.handle)
