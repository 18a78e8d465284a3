"""A stand-in for NVIDIA's driver library under the real cuda.core and cuda.bindings: as late as the rules allow.

`install()` loads a small library under the name `libcuda.so.1` and answers for its functions from Python. Device memory
is memory of the host, kernels run in Triton's interpreter. What is sent to a stream waits there until somebody waits
for it, and no longer than CUDA promises: whoever reads a result too early, changes page-locked memory too soon or
forgets that streams do not wait for one another gets wrong numbers here, each time. What the documentation forbids is
an error: calls without a current context, copies beyond an allocation, waiting or allocating while a thread records a
graph, more shared memory than was asked for, blocks of another size than the machine code says, and arguments that do
not lie as the machine code says."""

from __future__ import annotations

import ctypes
import struct
import subprocess
import tempfile
import threading
import traceback
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

SOURCE = r"""
#include <stdint.h>
static void *(*resolve)(const char *);
void set_resolver(void *f) { resolve = (void *(*)(const char *))f; }
int cuGetProcAddress_v2(const char *name, void **f, int version, uint64_t flags, int *status) {
    *f = resolve ? resolve(name) : 0;
    if (status) *status = *f ? 0 : 1;
    return *f ? 0 : 500;
}
int cuGetProcAddress(const char *name, void **f, int version, uint64_t flags) {
    return cuGetProcAddress_v2(name, f, version, flags, 0);
}
"""

INVALID, NO_MEMORY, NO_CONTEXT, BAD_HANDLE, NOT_FOUND, NOT_READY = 1, 2, 201, 400, 500, 600
CAPTURE_UNSUPPORTED, CAPTURE_INVALIDATED, UNKNOWN = 900, 901, 999
ERRORS = {
    INVALID: "invalid argument", NO_MEMORY: "out of memory", NO_CONTEXT: "invalid device context",
    BAD_HANDLE: "invalid resource handle", NOT_FOUND: "named symbol not found", NOT_READY: "device not ready",
    CAPTURE_UNSUPPORTED: "operation not permitted when stream is capturing",
    CAPTURE_INVALIDATED: "operation failed due to a previous error during capture", 3: "initialization error",
    UNKNOWN: "unknown error",
}  # fmt: skip
CONTEXT = 0xC000
MAX_DYNAMIC_SHARED = 8
DISABLE_TIMING = 2
PTR, I32, U32, U64 = ctypes.c_void_p, ctypes.c_int, ctypes.c_uint, ctypes.c_uint64


class Failure(Exception):
    """The code that a call answers."""


class Recorded:
    """One recording of an event: whether the stream has come so far."""

    def __init__(self, stream: Stream | None) -> None:
        self.stream = stream
        self.done = stream is None


class Event:
    def __init__(self, flags: int) -> None:
        self.timing = not flags & DISABLE_TIMING
        self.last: Recorded | None = None


class Stream:
    def __init__(self, blocking: bool) -> None:
        self.blocking = blocking
        self.waiting: deque[Callable[[], None] | Recorded] = deque()
        self.recording: list[Callable[[], None]] | None = None
        self.mode = 0
        self.thread = 0
        self.failed = False


class Kernel:
    def __init__(self, name: str, sizes: list[int], threads: int | None, run: Callable[..., None] | None) -> None:
        self.name, self.sizes, self.threads, self.run = name, sizes, threads, run
        self.shared = 48 << 10
        self.loaded = False


class LazyDriver:
    """The driver. `kernels` gives the function `run(grid, values)` of a kernel, by its machine code and name."""

    def __init__(self, devices: int = 1) -> None:
        self.devices = devices
        self.kernels: dict[tuple[bytes, str], Callable[..., None]] = {}
        self.lock = threading.RLock()
        self.here = threading.local()
        self.things: dict[int, Any] = {1: Stream(True)}
        self.top = 0x5000
        self.memory: dict[int, ctypes.Array[Any]] = {}  # of the device
        self.pinned: dict[int, ctypes.Array[Any]] = {}
        self.capturing: list[Stream] = []
        self.calls: Counter[str] = Counter()
        self.missing: set[str] = set()
        self.launches = 0
        self.run_late = 0  # operations that had to wait before they ran
        self.functions: dict[str, Any] = {}
        self.broken: BaseException | None = None

    # -- plumbing ----------------------------------------------------------------------------------------------------

    def resolve(self, name: bytes) -> int | None:
        text = name.decode()
        found = self.functions.get(text)
        if found is None:
            for candidate in (text, text.removesuffix("_ptsz"), text + "_v2"):
                method = getattr(self, candidate, None)
                if method is not None and candidate.startswith("cu"):
                    found = self.functions[text] = self._wrap(text, method)
                    break
            else:
                self.missing.add(text)
                return None
        return ctypes.cast(found, PTR).value

    def _wrap(self, name: str, method: Callable[..., Any]) -> Any:
        kinds = [PTR if k is PTR else k for k in method.__annotations__.values() if k is not None and k != "None"]
        kinds = [{"PTR": PTR, "I32": I32, "U32": U32, "U64": U64}[k] for k in kinds]

        def call(*args: Any) -> int:
            with self.lock:
                self.calls[name] += 1
                try:
                    method(*(a or 0 for a in args))
                except Failure as failure:
                    return int(failure.args[0])
                except BaseException as error:  # a kernel that fails: the caller, a library in C, must hear of it
                    traceback.print_exc()
                    self.broken = error
                    return UNKNOWN
                return 0

        return ctypes.CFUNCTYPE(I32, *kinds)(call)

    def new(self, thing: Any) -> int:
        self.top += 16
        self.things[self.top] = thing
        return self.top

    def context(self) -> int:
        found = getattr(self.here, "context", 0)
        if not found:
            raise Failure(NO_CONTEXT)
        return int(found)

    def stream(self, handle: int) -> Stream:
        self.context()
        found = self.things.get(handle or 1)
        if not isinstance(found, Stream):
            raise Failure(BAD_HANDLE)
        return found

    def unsafe(self) -> None:
        """What may wait for the device, or disturb a recording."""
        self.context()
        for stream in self.capturing:
            if stream.mode == 0 or (stream.mode == 1 and stream.thread == threading.get_ident()):
                stream.failed = True
                raise Failure(CAPTURE_UNSUPPORTED)

    def send(self, stream: Stream, work: Callable[[], None]) -> None:
        if stream.recording is not None:
            stream.recording.append(work)
            return
        if stream.blocking and any(s.blocking for s in self.capturing):
            raise Failure(CAPTURE_UNSUPPORTED)
        stream.waiting.append(work)

    def drain(self, stream: Stream, until: Recorded | None = None) -> None:
        while stream.waiting and not (until is not None and until.done):
            work = stream.waiting.popleft()
            self.run_late += 1
            if isinstance(work, Recorded):
                work.done = True
            else:
                work()

    def reach(self, recorded: Recorded) -> None:
        if not recorded.done and recorded.stream is not None:
            self.drain(recorded.stream, recorded)

    def inside(self, blocks: dict[int, Any], address: int, size: int) -> bool:
        return any(a <= address and address + size <= a + ctypes.sizeof(b) for a, b in blocks.items())

    # -- devices and contexts ----------------------------------------------------------------------------------------

    def cuInit(self, flags: U32) -> None: ...

    def cuDriverGetVersion(self, out: PTR) -> None:
        _put(out, I32, 13000)

    def cuDeviceGetCount(self, out: PTR) -> None:
        _put(out, I32, self.devices)

    def cuDeviceGet(self, out: PTR, index: I32) -> None:
        _put(out, I32, index)

    def cuDeviceGetName(self, out: PTR, size: I32, device: I32) -> None:
        ctypes.memmove(out, b"NVIDIA H200 (stand-in)\0", 23)

    def cuDeviceGetUuid_v2(self, out: PTR, device: I32) -> None:
        ctypes.memset(out, 7, 16)

    def cuDeviceGetAttribute(self, out: PTR, attribute: I32, device: I32) -> None:
        known = {75: 9, 76: 0, 97: 232448, 81: 233472, 8: 49152, 16: 132, 10: 32, 1: 1024, 12: 65536, 38: 60 << 20,
                 39: 2048, 82: 65536, 18: 0, 84: 0}  # fmt: skip
        _put(out, I32, known.get(attribute, 1))

    def cuDeviceTotalMem_v2(self, out: PTR, device: I32) -> None:
        _put(out, U64, 141 << 30)

    def cuDeviceCanAccessPeer(self, out: PTR, here: I32, there: I32) -> None:
        _put(out, I32, 1)

    def cuDevicePrimaryCtxRetain(self, out: PTR, device: I32) -> None:
        _put(out, U64, CONTEXT + device)

    def cuDevicePrimaryCtxRelease_v2(self, device: I32) -> None: ...

    def cuDevicePrimaryCtxGetState(self, device: I32, flags: PTR, active: PTR) -> None:
        _put(flags, U32, 0)
        _put(active, I32, 1)

    def cuCtxGetCurrent(self, out: PTR) -> None:
        _put(out, U64, getattr(self.here, "context", 0))

    def cuCtxSetCurrent(self, context: PTR) -> None:
        self.here.context = context

    def cuCtxPushCurrent_v2(self, context: PTR) -> None:
        self.here.context = context

    def cuCtxPopCurrent_v2(self, out: PTR) -> None:
        if out:
            _put(out, U64, self.context())

    def cuCtxGetDevice(self, out: PTR) -> None:
        _put(out, I32, self.context() - CONTEXT)

    def cuCtxGetDevice_v2(self, out: PTR, context: PTR) -> None:
        _put(out, I32, (context or self.context()) - CONTEXT)

    def cuCtxGetStreamPriorityRange(self, least: PTR, greatest: PTR) -> None:
        self.context()
        _put(least, I32, 0)
        _put(greatest, I32, -5)

    def cuCtxSynchronize(self) -> None:
        self.unsafe()
        for thing in list(self.things.values()):
            if isinstance(thing, Stream):
                self.drain(thing)

    def cuGetErrorString(self, code: I32, out: PTR) -> None:
        text = self.functions.setdefault(f"text{code}", ctypes.create_string_buffer(ERRORS.get(code, "?").encode()))
        _put(out, U64, ctypes.addressof(text))

    def cuGetErrorName(self, code: I32, out: PTR) -> None:
        self.cuGetErrorString(code, out)

    # -- memory ------------------------------------------------------------------------------------------------------

    def _allocate(self, blocks: dict[int, Any], out: int, size: int) -> None:
        self.unsafe()
        block = ctypes.create_string_buffer(size + 512)
        # The allocation proper begins at the next multiple of 512, as a device's does.
        address = -(-ctypes.addressof(block) // 512) * 512
        part = (ctypes.c_char * size).from_buffer(block, address - ctypes.addressof(block))
        ctypes.memset(address, 0xFF, size)
        blocks[address] = part
        _put(out, U64, address)

    def cuMemAlloc_v2(self, out: PTR, size: U64) -> None:
        if size > 4 << 30:
            raise Failure(NO_MEMORY)
        self._allocate(self.memory, out, size)

    def cuMemFree_v2(self, address: PTR) -> None:
        self.unsafe()
        self.cuCtxSynchronize()
        if self.memory.pop(address, None) is None:
            raise Failure(INVALID)

    def cuMemHostAlloc(self, out: PTR, size: U64, flags: U32) -> None:
        self._allocate(self.pinned, out, size)

    def cuMemFreeHost(self, address: PTR) -> None:
        self.unsafe()
        self.cuCtxSynchronize()
        if self.pinned.pop(address, None) is None:
            raise Failure(INVALID)

    def cuMemGetInfo_v2(self, free: PTR, total: PTR) -> None:
        self.context()
        _put(free, U64, 140 << 30)
        _put(total, U64, 141 << 30)

    def cuMemcpyHtoDAsync_v2(self, target: PTR, source: PTR, size: U64, handle: PTR) -> None:
        stream = self.stream(handle)
        if not self.inside(self.memory, target, size):
            raise Failure(INVALID)
        if self.inside(self.pinned, source, size):
            self.send(stream, lambda: _move(target, source, size))
            return
        if stream.recording is not None:
            raise Failure(CAPTURE_UNSUPPORTED)  # it would be read at each replay; nobody means that
        held = ctypes.string_at(source, size)
        self.send(stream, lambda: _move(target, held, size))

    def cuMemcpyDtoHAsync_v2(self, target: PTR, source: PTR, size: U64, handle: PTR) -> None:
        stream = self.stream(handle)
        if not self.inside(self.memory, source, size):
            raise Failure(INVALID)
        self.send(stream, lambda: _move(target, source, size))
        if not self.inside(self.pinned, target, size) and stream.recording is None:
            self.drain(stream)

    def cuMemcpyAsync(self, target: PTR, source: PTR, size: U64, handle: PTR) -> None:
        stream = self.stream(handle)
        if not (self.inside(self.memory, target, size) and self.inside(self.memory, source, size)):
            raise Failure(INVALID)
        self.send(stream, lambda: _move(target, source, size))

    def cuMemsetD8Async(self, target: PTR, byte: U32, size: U64, handle: PTR) -> None:
        stream = self.stream(handle)
        if not self.inside(self.memory, target, size):
            raise Failure(INVALID)
        self.send(stream, lambda: ctypes.memset(target, byte & 255, size) and None)

    # -- streams and events ------------------------------------------------------------------------------------------

    def cuStreamCreateWithPriority(self, out: PTR, flags: U32, priority: I32) -> None:
        self.context()
        _put(out, U64, self.new(Stream(not flags & 1)))

    def cuStreamDestroy_v2(self, handle: PTR) -> None:
        stream = self.things.pop(handle, None)
        if isinstance(stream, Stream):
            self.drain(stream)

    def cuStreamGetCtx(self, handle: PTR, out: PTR) -> None:
        _put(out, U64, self.context())

    def cuStreamGetFlags(self, handle: PTR, out: PTR) -> None:
        _put(out, U32, 0 if self.stream(handle).blocking else 1)

    def cuStreamGetPriority(self, handle: PTR, out: PTR) -> None:
        _put(out, I32, 0)

    def cuStreamGetDevice(self, handle: PTR, out: PTR) -> None:
        _put(out, I32, self.context() - CONTEXT)

    def cuStreamQuery(self, handle: PTR) -> None:
        self.unsafe()
        stream = self.stream(handle)
        if stream.waiting:
            self._step(stream)
            raise Failure(NOT_READY)

    def _step(self, stream: Stream) -> None:
        work = stream.waiting.popleft()
        if isinstance(work, Recorded):
            work.done = True
        else:
            work()

    def cuStreamSynchronize(self, handle: PTR) -> None:
        stream = self.stream(handle)
        if stream.recording is not None:
            stream.failed = True
            raise Failure(CAPTURE_UNSUPPORTED)
        self.unsafe()
        self.drain(stream)

    def cuEventCreate(self, out: PTR, flags: U32) -> None:
        self.context()
        if flags & ~7:
            raise Failure(INVALID)
        _put(out, U64, self.new(Event(flags)))

    def cuEventDestroy_v2(self, event: PTR) -> None:
        self.things.pop(event, None)

    def _event(self, handle: int) -> Event:
        found = self.things.get(handle)
        if not isinstance(found, Event):
            raise Failure(BAD_HANDLE)
        return found

    def _recorded(self, handle: int) -> Recorded:
        """The last recording; what was never recorded counts as done."""
        return self._event(handle).last or Recorded(None)

    def cuEventRecord(self, event: PTR, handle: PTR) -> None:
        stream = self.stream(handle)
        recorded = Recorded(stream)
        self._event(event).last = recorded
        if stream.recording is None:
            stream.waiting.append(recorded)

    def cuStreamWaitEvent(self, handle: PTR, event: PTR, flags: U32) -> None:
        recorded = self._recorded(event)
        self.send(self.stream(handle), lambda: self.reach(recorded))

    def cuEventQuery(self, event: PTR) -> None:
        self.unsafe()
        recorded = self._recorded(event)
        if not recorded.done:
            assert recorded.stream is not None
            self._step(recorded.stream)
            raise Failure(NOT_READY)

    def cuEventSynchronize(self, event: PTR) -> None:
        self.unsafe()
        self.reach(self._recorded(event))

    def cuEventElapsedTime_v2(self, out: PTR, start: PTR, end: PTR) -> None:
        events = [self._event(start), self._event(end)]
        if not all(e.timing and e.last is not None for e in events):
            raise Failure(BAD_HANDLE)
        if not all(e.last is not None and e.last.done for e in events):
            raise Failure(NOT_READY)
        _put(out, ctypes.c_float, 1.25)

    cuEventElapsedTime = cuEventElapsedTime_v2

    # -- kernels -----------------------------------------------------------------------------------------------------

    def cuLibraryLoadData(self, out: PTR, code: PTR, a: PTR, b: PTR, n: U32, c: PTR, d: PTR, m: U32) -> None:
        _put(out, U64, self.new(_image(code)))

    def cuLibraryUnload(self, library: PTR) -> None: ...

    def cuLibraryGetKernel(self, out: PTR, library: PTR, name: PTR) -> None:
        image, text = self.things[library], ctypes.string_at(name).decode()
        sizes, threads = layout(image, text)
        _put(out, U64, self.new(Kernel(text, sizes, threads, self.kernels.get((image, text)))))

    def cuKernelGetLibrary(self, out: PTR, kernel: PTR) -> None:
        _put(out, U64, 0x42)

    def cuKernelGetFunction(self, out: PTR, kernel: PTR) -> None:
        self.context()
        _put(out, U64, kernel)

    def cuFuncLoad(self, function: PTR) -> None:
        self.unsafe()
        self.things[function].loaded = True

    def cuKernelSetAttribute(self, attribute: I32, value: I32, kernel: PTR, device: I32) -> None:
        if attribute == MAX_DYNAMIC_SHARED:
            if value > 232448:
                raise Failure(INVALID)
            self.things[kernel].shared = value
        elif attribute not in (4, 5, 6, 7, 9, 10):  # what may be set (cuFuncSetAttribute)
            raise Failure(INVALID)

    def cuKernelGetAttribute(self, out: PTR, attribute: I32, kernel: PTR, device: I32) -> None:
        _put(out, I32, 0)

    def cuLaunchKernelEx(self, config: PTR, function: PTR, values: PTR, extra: PTR) -> None:
        numbers = struct.unpack("7I", ctypes.string_at(config, 28))
        handle, _attributes = struct.unpack("QQ", ctypes.string_at(config + 32, 16))
        grid, block, shared = numbers[:3], numbers[3:6], numbers[6]
        kernel: Kernel = self.things[function]
        stream = self.stream(handle)
        if not all(grid) or grid[0] >= 1 << 31 or max(grid[1:]) > 65535 or shared > kernel.shared:
            raise Failure(INVALID)
        if kernel.threads is not None and block != (kernel.threads, 1, 1):
            raise Failure(INVALID)
        if not kernel.loaded:
            self.unsafe()  # code comes to the device with the first launch
        pointers = struct.unpack(f"{len(kernel.sizes)}Q", ctypes.string_at(values, 8 * len(kernel.sizes)))
        given = [ctypes.string_at(p, n) for p, n in zip(pointers, kernel.sizes, strict=True)]
        run = kernel.run
        self.launches += 1
        if run is not None:
            self.send(stream, lambda: run(grid, given))

    # -- graphs ------------------------------------------------------------------------------------------------------

    def cuStreamBeginCapture_v2(self, handle: PTR, mode: I32) -> None:
        stream = self.stream(handle)
        if handle in (0, 1) or stream.recording is not None:
            raise Failure(CAPTURE_UNSUPPORTED)
        stream.recording, stream.mode, stream.thread, stream.failed = [], mode, threading.get_ident(), False
        self.capturing.append(stream)

    def cuStreamEndCapture(self, handle: PTR, out: PTR) -> None:
        stream = self.stream(handle)
        if stream.recording is None or (stream.mode != 2 and stream.thread != threading.get_ident()):
            raise Failure(INVALID)
        recorded, stream.recording = stream.recording, None
        self.capturing.remove(stream)
        if stream.failed:
            _put(out, U64, 0)
            raise Failure(CAPTURE_INVALIDATED)
        _put(out, U64, self.new(recorded))

    def cuStreamIsCapturing(self, handle: PTR, out: PTR) -> None:
        _put(out, I32, int(self.stream(handle).recording is not None))

    def cuGraphDestroy(self, graph: PTR) -> None:
        self.things.pop(graph)

    def cuGraphInstantiateWithFlags(self, out: PTR, graph: PTR, flags: U64) -> None:
        self.unsafe()
        _put(out, U64, self.new(tuple(self.things[graph])))

    def cuGraphExecDestroy(self, graph: PTR) -> None:
        self.things.pop(graph)

    def cuGraphUpload(self, graph: PTR, handle: PTR) -> None:
        self.stream(handle)

    def cuGraphLaunch(self, graph: PTR, handle: PTR) -> None:
        stream = self.stream(handle)
        for work in self.things[graph]:
            self.send(stream, work)


def _put(address: int, kind: Any, value: Any) -> None:
    kind.from_address(address).value = value


def _move(target: int, source: Any, size: int) -> None:
    ctypes.memmove(target, source, size)


# -- machine code -----------------------------------------------------------------------------------------------------


def _image(address: int) -> bytes:
    """The ELF file at an address."""
    head = ctypes.string_at(address, 64)
    start, entry, count = struct.unpack_from("<Q", head, 40)[0], *struct.unpack_from("<HH", head, 58)
    sections = ctypes.string_at(address, start + entry * count)
    end = start + entry * count
    for i in range(count):
        kind, offset, size = struct.unpack_from("<I16xQQ", sections, start + entry * i + 4)
        if kind != 8:
            end = max(end, offset + size)
    segments, size, number = struct.unpack_from("<Q", head, 32)[0], *struct.unpack_from("<HH", head, 54)
    return ctypes.string_at(address, max(end, segments + size * number))


def layout(image: bytes, name: str) -> tuple[list[int], int | None]:
    """The sizes of a kernel's parameters in their order, and the threads of a block if the code says so."""
    start, entry, count, names = struct.unpack_from("<Q", image, 40)[0], *struct.unpack_from("<HHH", image, 58)
    table = [struct.unpack_from("<II8x8xQQ", image, start + entry * i) for i in range(count)]
    text = table[names][2]
    wanted = f".nv.info.{name}".encode()
    parameters: dict[int, int] = {}
    threads = None
    for at, _, offset, size in table:
        if image[text + at : image.index(b"\0", text + at)] != wanted:
            continue
        position = offset
        while position < offset + size:
            form, attribute, length = struct.unpack_from("<BBH", image, position)
            position += 4
            if form != 4:
                continue
            if attribute == 0x17:  # EIATTR_KPARAM_INFO: index, ordinal, offset, flags with the size above bit 18
                _, ordinal, _, flags = struct.unpack_from("<IHHI", image, position)
                parameters[ordinal] = flags >> 18
            elif attribute == 0x10:  # EIATTR_REQNTID
                threads = struct.unpack_from("<I", image, position)[0]
            position += length
    return [parameters[i] for i in range(len(parameters))], threads


def install(devices: int = 1) -> LazyDriver:
    """Put the stand-in where `libcuda.so.1` is looked for, before anything has loaded that."""
    folder = Path(tempfile.mkdtemp(prefix="graphtorch-driver-"))
    (folder / "driver.c").write_text(SOURCE)
    library = folder / "libcuda.so.1"
    command = ["cc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(library), str(folder / "driver.c")]
    subprocess.run(command, check=True)
    driver = LazyDriver(devices)
    handle = ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    driver.resolver = ctypes.CFUNCTYPE(PTR, ctypes.c_char_p)(driver.resolve)  # type: ignore[attr-defined]
    handle.set_resolver(driver.resolver)  # type: ignore[attr-defined]
    return driver
