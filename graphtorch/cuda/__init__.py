"""CUDA devices, `torch.cuda`. Without one, everything says what PyTorch's build for the CPU says.

See https://docs.pytorch.org/docs/stable/cuda.html.
"""

from __future__ import annotations

from typing import Any

from graphtorch.cuda import amp
from graphtorch.cuda.graphs import (
    CUDAGraph,
    graph,
    graph_pool_handle,
    is_current_stream_capturing,
    make_graphed_callables,
)
from graphtorch.cuda.memory import (
    MemPool,
    OutOfMemoryError,
    empty_cache,
    get_per_process_memory_fraction,
    max_memory_allocated,
    max_memory_cached,
    max_memory_reserved,
    mem_get_info,
    memory_allocated,
    memory_cached,
    memory_reserved,
    memory_snapshot,
    memory_stats,
    memory_stats_as_nested_dict,
    memory_summary,
    reset_accumulated_memory_stats,
    reset_max_memory_allocated,
    reset_max_memory_cached,
    reset_peak_memory_stats,
    set_per_process_memory_fraction,
    use_mem_pool,
)
from graphtorch.cuda.random import (
    get_rng_state,
    get_rng_state_all,
    initial_seed,
    manual_seed,
    manual_seed_all,
    seed,
    seed_all,
    set_rng_state,
    set_rng_state_all,
)
from graphtorch.runtime.cuda import devices
from graphtorch.runtime.cuda.driver import Properties, unavailable
from graphtorch.runtime.cuda.graphs import refuse
from graphtorch.runtime.cuda.streams import (
    Event,
    ExternalStream,
    Stream,
    StreamContext,
    current_stream,
    default_stream,
    index_of,
    set_stream,
)
from graphtorch.tensor.legacy import CUDA as CUDA_TYPES

has_half = True
has_magma = False


def is_available() -> bool:
    """Whether there is a device that tensors can live on."""
    return devices.count() > 0


def device_count() -> int:
    """The number of devices."""
    return devices.count()


def is_initialized() -> bool:
    """Whether a device was used already."""
    return devices.initialized()


def init() -> None:
    """Make the driver ready, which every other call does when it is needed. Raises AssertionError without a device."""
    devices.device()


def why_unavailable() -> str | None:
    """Why there is no device, in words; None if there is one. (Not in PyTorch.)"""
    return unavailable()


def current_device() -> int:
    """The number of the selected device. Raises AssertionError without one."""
    return devices.device().index


def set_device(device: Any) -> None:
    """Select a device; a negative number changes nothing. Raises AssertionError without one."""
    index = _number(device)
    if index >= 0:
        devices.select(index)


def _number(device: Any) -> int:
    if isinstance(device, int):
        return device
    found = index_of(device)
    return devices.device().index if found is None else found


class device:
    """`with torch.cuda.device(1):` selects a device inside; None and negative numbers select nothing."""

    def __init__(self, device: Any) -> None:
        self.idx = -1 if device is None else device if isinstance(device, int) else _index(device)
        self.prev_idx = -1

    def __enter__(self) -> None:
        if self.idx >= 0:
            if not devices.count():
                raise RuntimeError("PyTorch was compiled without CUDA support")
            self.prev_idx = devices.current.index
            devices.select(self.idx)

    def __exit__(self, *exception: object) -> None:
        if self.prev_idx >= 0:
            devices.select(self.prev_idx)
            self.prev_idx = -1


def _index(value: Any) -> int:
    found = index_of(value)
    return devices.current.index if found is None else found


class device_of(device):
    """`with torch.cuda.device_of(tensor):` selects the device of a tensor; a tensor on the CPU changes nothing."""

    def __init__(self, obj: Any) -> None:
        super().__init__(obj.get_device() if obj.is_cuda else -1)


def get_device_properties(device: Any = None) -> Properties:
    """What a device is. Raises AssertionError without one."""
    return devices.device(index_of(device)).properties


def get_device_name(device: Any = None) -> str:
    """A device's name. Raises AssertionError without one."""
    return get_device_properties(device).name


def get_device_capability(device: Any = None) -> tuple[int, int]:
    """A device's compute capability, (major, minor). Raises AssertionError without one."""
    found = get_device_properties(device)
    return found.major, found.minor


def can_device_access_peer(device: Any, peer_device: Any) -> bool:
    """Whether one device reaches the memory of another. Raises AssertionError without devices."""
    here = devices.device(index_of(device))
    return here.driver.can_access_peer(here.index, _number(peer_device))


def synchronize(device: Any = None) -> None:
    """Wait for all that a device was sent. Raises AssertionError without one."""
    found = devices.device(index_of(device))
    refuse()
    found.driver.wait_device(found.index)


def stream(stream: Stream | None) -> StreamContext:
    """`with torch.cuda.stream(s):` sends this thread's work to a stream."""
    return StreamContext(stream)


def get_stream_from_external(data_ptr: int, device: Any = None) -> Stream:
    """A stream of another library, by its number."""
    return ExternalStream(data_ptr, device)


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """Whether the selected device computes with bfloat16."""
    return is_available() and (including_emulation or get_device_properties().major >= 8)


def is_tf32_supported() -> bool:
    """Whether the selected device has TF32 products."""
    return is_available() and get_device_properties().major >= 8


def get_arch_list() -> list[str]:
    """The architectures that code is compiled for ahead of time: kernels are compiled for the device at hand."""
    return [f"sm_{p.major}{p.minor}" for p in map(get_device_properties, range(device_count()))]


def get_gencode_flags() -> str:
    """Flags of PyTorch's compiler: there are none here."""
    return ""


def ipc_collect() -> None:
    """Free memory that other processes gave: none is shared. Raises AssertionError without a device."""
    devices.device()


def __getattr__(name: str) -> Any:
    if name in CUDA_TYPES:
        return CUDA_TYPES[name]
    if name == "_initialized":  # programs that save generators' states read it
        return devices.initialized()
    if name == "nvtx":
        import graphtorch.cuda.nvtx

        return graphtorch.cuda.nvtx
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
