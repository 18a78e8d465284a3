"""What launches compute on a CUDA device, and the time that they take, for autotuning."""

from __future__ import annotations

import statistics
import time
import zlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from graphtorch.lowering.kernel import Buffer
from graphtorch.lowering.triton.agreement import Result
from graphtorch.lowering.triton.autotune import Measured, Tuner
from graphtorch.lowering.triton.errors import LostDeviceError, ResourceError, UnsupportedError
from graphtorch.lowering.triton.kernels import load_all, target_of
from graphtorch.lowering.triton.launch import Launch
from graphtorch.runtime.cuda import devices
from graphtorch.runtime.cuda.memory import OutOfMemoryError
from graphtorch.schedule.memory import nbytes
from graphtorch.tensor import dtypes

_WARMUPS = 2
_RUNS = 15
_FEWEST_RUNS = 3  # of what is so slow that more would take longer than _SECONDS
_SECONDS = 0.25
_PATIENCE = 20.0  # seconds after which a kernel hangs
_LEAST_FLUSH = 64 << 20  # bytes
_DRAWN = (1 << 20) - 3  # random numbers, which are repeated: a prime, so that neither rows nor blocks are alike
_COMPARED = 16 << 20  # bytes of each result that are read back, in pieces from its start to its end
_PIECES = 64


class DeviceClock:
    """Runs and times launches on memory of their own: random numbers, for zeros take less power, and so a higher clock,
    than what a step computes with, and hide what is wrong; integers, which may be indices, are zero. Between runs the
    second-level cache is overwritten, for in a step other kernels run in between."""

    def __init__(self, device: devices.Device) -> None:
        self.device = device

    def fill(self, buffer: Buffer, address: int, size: int, stream: Any) -> None:
        """Fill the memory of a buffer, `size` bytes of it, with numbers that depend on its name."""
        driver, of = self.device.driver, buffer.dtype
        if (not of.is_floating_point and of is not dtypes.bool_) or size < of.itemsize:
            driver.fill(address, 0, size, stream)
            return
        numbers = np.roll(_numbers(of.numpy), zlib.crc32(buffer.name.encode()))[: size // of.itemsize]
        driver.copy_in(address, numbers.ctypes.data, numbers.nbytes, stream)
        done = numbers.nbytes
        while done < size:
            step = min(done, size - done)
            driver.copy(address + done, address, step, stream)
            done += step

    def read(self, result: Result, address: int, size: int, stream: Any) -> np.ndarray[Any, Any]:
        """The numbers of a buffer, or of pieces of it; of parts, their sums."""
        of = result.buffer.dtype
        each = size // result.parts
        total: np.ndarray[Any, Any] | None = None
        for part in range(result.parts):
            found = np.empty(sum(n for _, n in _pieces(each, result.parts)) // of.itemsize, of.numpy)
            at = found.ctypes.data
            for start, length in _pieces(each, result.parts):
                self.device.driver.copy_out(at, address + part * each + start, length, stream)
                at += length
            with np.errstate(all="ignore"):  # what a wrong candidate wrote may be any bytes
                total = found if total is None else total + found
        assert total is not None
        return total

    def __call__(
        self, launches: Sequence[Launch], bindings: Mapping[str, int], results: Sequence[Result] = ()
    ) -> Measured:
        """The median of several runs, and what the first of them gave.

        Raises ResourceError and UnsupportedError as loading does, ResourceError also where memory does not suffice or
        the driver refuses a launch; LostDeviceError where this process can't use the device any more.
        """
        try:
            return self._measure(launches, bindings, results)
        except (ResourceError, UnsupportedError):
            raise
        except OutOfMemoryError as error:
            raise ResourceError(str(error)) from error
        except Exception as error:  # of the driver and its bindings
            if isinstance(error, LostDeviceError) or not self._usable():
                raise LostDeviceError(
                    f"{error}; the device does nothing more for this process. What was measured is left out from now on"
                ) from error
            raise ResourceError(str(error)) from error

    def _usable(self) -> bool:
        """Whether the device still does what it is asked to: after some errors it refuses everything."""
        try:
            self.device.driver.wait_stream(devices.stream_of(self.device))
        except Exception:
            return False
        return True

    def _wait(self, event: Any) -> None:
        """Wait for an event. Raises LostDeviceError where a kernel before it hangs."""
        begin = time.monotonic()
        while not self.device.driver.event_done(event):
            if time.monotonic() - begin > _PATIENCE:
                raise LostDeviceError(f"a kernel did not end within {_PATIENCE:.0f} s")
            time.sleep(1e-4)

    def _measure(self, launches: Sequence[Launch], bindings: Mapping[str, int], results: Sequence[Result]) -> Measured:
        device, driver = self.device, self.device.driver
        stream = devices.stream_of(device)
        kernels = load_all([launch.function for launch in launches], device)
        buffers = dict.fromkeys(a for launch in launches for a in launch.arguments if isinstance(a, Buffer))
        memory = {b: device.allocator.allocate(max(nbytes(b, bindings), 1), stream, False) for b in buffers}
        for buffer, allocation in memory.items():
            self.fill(buffer, allocation.address, max(nbytes(buffer, bindings), 1), stream)
        flushed = max(2 * device.properties.L2_cache_size, _LEAST_FLUSH)
        flush = device.allocator.allocate(flushed, stream, False)
        held, steps = [], []
        for launch, kernel in zip(launches, kernels, strict=True):
            values = [memory[a].address if isinstance(a, Buffer) else a for a in launch.arguments]
            scratch = None
            if kernel.scratch:
                scratch = device.allocator.allocate(kernel.scratch * launch.grid[0], stream, False)
                held.append(scratch)
            arguments = kernel.arguments(values, 0 if scratch is None else scratch.address)
            steps.append((kernel.launcher(launch.grid), arguments))

        for run, arguments in steps:
            run(stream, arguments)
        done = driver.create_event(device.index, False, False)
        driver.record_event(done, stream)
        self._wait(done)  # nothing that follows waits longer than that
        found = [
            self.read(r, memory[r.buffer].address, nbytes(r.buffer, bindings), stream)
            for r in results
            if r.buffer in memory  # a launch over no points has none
        ]

        def several(count: int) -> float:
            pairs = []
            for _ in range(count):
                driver.fill(flush.address, 0, flushed, stream)
                start, end = (driver.create_event(device.index, True, False) for _ in range(2))
                driver.record_event(start, stream)
                for run, arguments in steps:
                    run(stream, arguments)
                driver.record_event(end, stream)
                pairs.append((start, end))
            self._wait(pairs[-1][1])
            return statistics.median_low(driver.elapsed(start, end) for start, end in pairs) / 1e3

        about = several(_WARMUPS)
        runs = _RUNS if about * _RUNS < _SECONDS else max(int(_SECONDS / about), _FEWEST_RUNS)
        return Measured(several(runs), found)


@cache
def _numbers(of: np.dtype[Any]) -> np.ndarray[Any, Any]:
    drawn = np.random.default_rng(0).standard_normal(_DRAWN, np.float32)
    if of == np.bool_:
        return drawn > 0
    return (0.5 * drawn).astype(of)  # small: neither sums nor exponentials overflow


def _pieces(size: int, parts: int) -> list[tuple[int, int]]:
    """Starts and lengths of what is read of `size` bytes: all, or pieces at equal distances, the first and the last
    bytes among them."""
    most = max(_COMPARED // parts, _PIECES * 16)
    if size <= most:
        return [(0, size)] if size else []
    length = most // _PIECES // 16 * 16
    starts = [(size - length) * i // (_PIECES - 1) // 16 * 16 for i in range(_PIECES - 1)]
    return [*((start, length) for start in starts), (size - length, length)]


def device_tuner(device: devices.Device) -> Tuner:
    """What chooses block sizes by measurement on a device."""
    return Tuner(target_of(device), device.properties.name, DeviceClock(device))
