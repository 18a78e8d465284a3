"""The device that plans are meant for: an NVIDIA GPU through cuda.core, without torch.

Unproven: no machine with a GPU has run this file. It is kept to the calls that a recording stand-in can check: which
module, grid, block, shared memory and arguments a launch gets (docs/triton-backend.md).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from graphtorch.lowering.triton.codegen import Generated
from graphtorch.lowering.triton.compiler import TARGETS, Compiled, compile_all
from graphtorch.lowering.triton.errors import ResourceError, UnsupportedError
from graphtorch.lowering.triton.launch import Launch

_STATIC_SHARED = 48 * 1024  # bytes that a launch may ask for without a request at the driver


def missing() -> str | None:
    """Why kernels can't run on this machine; None if they can."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed (pip install 'graphtorch[gpu]')"
    try:
        from cuda.core import Device
    except ImportError:
        return "cuda.core is not installed (pip install 'graphtorch[gpu]')"
    try:
        Device(0).set_current()
    except Exception as error:  # whatever the driver, or its absence, raises
        return f"there is no usable NVIDIA GPU ({error})"
    return None


@cache
def _core() -> Any:
    import cuda.core

    return cuda.core


@cache
def _driver() -> Any:
    from cuda.bindings import driver

    return driver


def checked(result: tuple[Any, ...]) -> None:
    """Raise RuntimeError for an error code of the driver."""
    if int(result[0]):
        raise RuntimeError(f"the CUDA driver reports {result[0]!r}")


def launch_arguments(compiled: Compiled, signature: dict[str, str], arguments: Sequence[int]) -> list[Any]:
    """The values for cuda.core: pointers as ints, integers in their width, then the two pointers to scratch memory that
    every Triton kernel takes. Raises UnsupportedError for a kernel that needs such memory."""
    if compiled.global_scratch:
        raise UnsupportedError(f"{compiled.name} needs {compiled.global_scratch} bytes of scratch memory a program")
    width = {"i32": np.int32, "i64": np.int64}
    types = [t for t in signature.values() if t != "constexpr"]
    values = [a if t.startswith("*") else width[t](a) for t, a in zip(types, arguments, strict=True)]
    return [*values, 0, 0]


class CudaDevice:
    """One GPU and one stream."""

    host_memory = False

    def __init__(self, index: int = 0) -> None:
        self.device = _core().Device(index)
        self.device.set_current()
        self.stream = self.device.create_stream()
        major, minor = self.device.compute_capability
        self.target = f"sm_{major}{minor}"
        if self.target not in TARGETS:
            raise UnsupportedError(f"no target for a GPU of compute capability {major}.{minor}")
        self._compiled: dict[int, tuple[Generated, Compiled]] = {}  # by identity, which the entry keeps

    def compile(self, functions: Sequence[Generated]) -> None:
        for function, compiled in zip(functions, compile_all(functions, self.target), strict=True):
            self._compiled[id(function)] = (function, compiled)

    def allocate(self, size: int) -> tuple[int, Any]:
        """From the driver's pool, which aligns to at least 256 bytes."""
        buffer = self.device.allocate(max(size, 1), stream=self.stream)
        return int(buffer.handle), buffer

    def write(self, address: int, array: np.ndarray[Any, Any]) -> None:
        if array.nbytes:
            checked(_driver().cuMemcpyHtoDAsync(address, array.ctypes.data, array.nbytes, self.stream.handle))

    def read(self, address: int, array: np.ndarray[Any, Any]) -> None:
        if array.nbytes:
            checked(_driver().cuMemcpyDtoHAsync(array.ctypes.data, address, array.nbytes, self.stream.handle))
        self.stream.sync()

    def prepare(self, launch: Launch, arguments: Sequence[int]) -> Callable[[], None]:
        core = _core()
        compiled = self._compiled[id(launch.function)][1]
        kernel = core.ObjectCode.from_cubin(compiled.binary, name=compiled.name).get_kernel(compiled.name)
        if compiled.shared > _STATIC_SHARED:
            if compiled.shared > self.device.properties.max_shared_memory_per_block_optin:
                raise ResourceError(f"{compiled.name} needs {compiled.shared} bytes of shared memory")
            driver = _driver()
            attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            checked(driver.cuKernelSetAttribute(attribute, compiled.shared, kernel.handle, self.device.device_id))
        config = core.LaunchConfig(grid=launch.grid, block=compiled.threads, shmem_size=compiled.shared)
        values = launch_arguments(compiled, launch.function.signature(), arguments)
        return lambda: core.launch(self.stream, config, kernel, *values)
