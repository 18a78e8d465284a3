"""Generated functions as kernels that a device launches: compiled, loaded once a process, with arguments in the form
that the driver wants."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphtorch.lowering.triton.codegen import Generated, without_comments
from graphtorch.lowering.triton.compiler import FURTHER_TARGETS, TARGETS, Compiled, compile_all
from graphtorch.lowering.triton.errors import ResourceError, UnsupportedError
from graphtorch.runtime.cuda import devices

_INTEGERS = {"i32": np.int32, "i64": np.int64}


@dataclass(eq=False)
class Loaded:
    """A kernel on a device.

    types       of the arguments, without constants
    shift       from a device's address to what the kernel must be given for it: not 0 on simulated devices only
    scratch     bytes of global memory that each program of a launch needs for itself (tensor descriptors)
    """

    handle: Any
    block: int
    shared: int
    types: tuple[str, ...]
    shift: int
    device: devices.Device
    scratch: int = 0

    def launcher(self, grid: tuple[int, int, int]) -> Callable[[Any, Sequence[Any]], None]:
        """A function `launch(stream, arguments)` with what `arguments` gave."""
        return self.device.driver.launcher(self.handle, grid, self.block, self.shared)

    def arguments(self, values: Sequence[int], scratch: int = 0) -> list[Any]:
        """Addresses and integers as the driver takes them: integers in their width, then the two pointers to scratch
        memory that every Triton kernel takes (the first is `scratch`)."""
        shift = self.shift
        made: list[Any] = [
            (v + shift if v else 0) if t.startswith("*") else _INTEGERS[t](v)
            for t, v in zip(self.types, values, strict=True)
        ]
        return [*made, scratch, 0]


_lock = threading.RLock()
_loaded: dict[tuple[Any, ...], Loaded] = {}


def target_of(device: devices.Device) -> str:
    """The name of the target that code for a device is compiled for. Raises UnsupportedError where there is none."""
    found = device.properties
    name = f"sm_{found.major}{found.minor}"
    if name not in TARGETS and name not in FURTHER_TARGETS:
        raise UnsupportedError(f"no target for a GPU of compute capability {found.major}.{found.minor}")
    return name


def load_all(functions: Sequence[Generated], device: devices.Device) -> list[Loaded]:
    """Kernels for functions, compiled where they were not yet, in parallel.

    Raises ResourceError for one that needs more than the device has.
    """
    keys = [_key(f, device) for f in functions]
    with _lock:
        missing = {k: f for k, f in zip(keys, functions, strict=True) if k not in _loaded}
        if missing:
            wanted = list(missing.values())
            if device.driver.interprets:
                made = [_interpreted(f, device) for f in wanted]
            else:
                compiled = compile_all(wanted, target_of(device))
                made = [load(f, c, device) for f, c in zip(wanted, compiled, strict=True)]
            _loaded.update(zip(missing, made, strict=True))
        return [_loaded[k] for k in keys]


def _key(function: Generated, device: devices.Device) -> tuple[Any, ...]:
    return (
        device,
        without_comments(function.source),
        function.name,
        tuple(function.signature().items()),
        tuple(sorted(function.constants.items())),
        tuple(function.hints()),
        function.num_warps,
        function.num_stages,
    )


def _types(function: Generated) -> tuple[str, ...]:
    return tuple(t for t in function.signature().values() if t != "constexpr")


def load(function: Generated, compiled: Compiled, device: devices.Device) -> Loaded:
    """A compiled function on a device.

    Raises ResourceError where it needs more shared memory than there is.
    """
    if compiled.shared > device.properties.shared_memory_per_block_optin:
        raise ResourceError(
            f"{compiled.name} needs {compiled.shared} bytes of shared memory, the device has "
            f"{device.properties.shared_memory_per_block_optin}"
        )
    handle = device.driver.load(device.index, compiled.binary, compiled.name, compiled.shared)
    return Loaded(handle, compiled.threads, compiled.shared, _types(function), 0, device, compiled.global_scratch)


def _interpreted(function: Generated, device: devices.Device) -> Loaded:
    from graphtorch.lowering.triton.interpreter import interpret

    types = _types(function)
    signature, constants = function.signature(), function.constants

    def run(grid: tuple[int, int, int], arguments: Sequence[Any]) -> None:
        given = [int(a) for a in arguments[: len(types)]]
        interpret(function.source, function.name, signature, given, constants, grid)

    handle = device.driver.load(device.index, run, function.name, 0)
    shift: int = device.driver.shift  # type: ignore[attr-defined]
    return Loaded(handle, 32 * function.num_warps, 0, types, shift, device)


def launch_now(function: Generated, grid: tuple[int, int, int], values: Sequence[int], index: int | None) -> None:
    """One launch on a device's current stream."""
    device = devices.device(index)
    (kernel,) = load_all([function], device)
    stream = devices.stream_of(device)
    scratch = device.allocator.allocate(kernel.scratch * grid[0], stream) if kernel.scratch else None
    kernel.launcher(grid)(stream, kernel.arguments(values, 0 if scratch is None else scratch.address))
