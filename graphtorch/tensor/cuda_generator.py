"""The random generators of CUDA devices: a seed, and how far along its Philox streams a device is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from graphtorch.tensor import generator as cpu
from graphtorch.tensor.devices import cuda_device
from graphtorch.tensor.devices import device as device_class
from graphtorch.tensor.generator import Generator

_STATE_BYTES = 16  # seed and offset, PyTorch's layout of a saved CUDA generator
_lock = threading.Lock()
_defaults: dict[int, CudaGenerator] = {}


class CudaGenerator(Generator):
    """`torch.Generator(device="cuda")`. Kernels draw from seed and offset; operators that run on the host draw from an
    engine of its own with the same seed."""

    def __init__(self, device: Any = "cuda") -> None:
        super().__init__()
        self._place = device_class(device)

    @property
    def device(self) -> device_class:
        index = self._place.index
        return cuda_device(0 if index is None else index)

    def get_offset(self) -> int:
        """How many words a thread has drawn since the seed."""
        return self._philox_offset

    def set_offset(self, offset: int) -> None:
        """Go to a place of the stream. Raises RuntimeError for one that no draw ends at."""
        if offset % 4:
            raise RuntimeError("offset must be a multiple of 4")
        self._philox_offset = offset

    def get_state(self) -> Any:
        """Seed and offset as a uint8 tensor of 16 elements, in PyTorch's layout."""
        from graphtorch.tensor.tensor import Tensor

        return Tensor._from_array(self.state_array(), False)

    def state_array(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        return np.array([self._seed, self._philox_offset], np.uint64).view(np.uint8)

    def set_state(self, new_state: Any) -> None:
        """Restore a state that `get_state` gave. Raises TypeError and RuntimeError for what is none."""
        if hasattr(new_state, "numpy"):
            new_state = new_state.numpy()
        if not isinstance(new_state, np.ndarray) or new_state.dtype != np.uint8:
            raise TypeError("RNG state must be a torch.ByteTensor")
        if new_state.size != _STATE_BYTES:
            raise RuntimeError("RNG state is wrong size")
        seed, offset = np.ascontiguousarray(new_state).view(np.uint64)
        with self._lock:
            self._reseed(int(seed))
            self._philox_offset = int(offset)

    def clone_state(self) -> Generator:
        other = CudaGenerator(self._place)
        other.set_state(self.state_array())
        return other

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _from_state, (self._place, self.state_array())


def _from_state(place: device_class, state: Any) -> CudaGenerator:
    made = CudaGenerator(place)
    made.set_state(state)
    return made


def cuda_generator(index: int | None) -> CudaGenerator:
    """The default generator of a device, made with the seed that was set for all."""
    number = 0 if index is None else index
    with _lock:
        found = _defaults.get(number)
        if found is None:
            found = _defaults[number] = CudaGenerator(device_class("cuda", number))
            found.manual_seed(_seed_of_all if _seed_of_all is not None else cpu.default_generator.initial_seed())
        return found


_seed_of_all: int | None = None


def seed_all(seed: int) -> None:
    """Seed the generators of all devices, also of those that are not used yet."""
    global _seed_of_all
    _seed_of_all = seed
    for found in _defaults.values():
        found.manual_seed(seed)


class States:
    """The states of the CPU's generator and of those of CUDA devices, at one time."""

    def __init__(self) -> None:
        self._cpu = cpu.default_generator.state_array()
        self._seed_of_all = _seed_of_all
        self._first = cpu.default_generator.initial_seed() if _seed_of_all is None else _seed_of_all
        self._cuda = {i: found.state_array() for i, found in _defaults.items()}

    def restore(self, indices: Iterable[int] | None = None) -> None:
        """Put the generators of the CPU and of these devices (None: all) back; those made since then are as new."""
        global _seed_of_all
        cpu.default_generator.set_state(self._cpu)
        chosen = None if indices is None else set(indices)
        if chosen is None:
            _seed_of_all = self._seed_of_all
        for i, found in _defaults.items():
            if chosen is None or i in chosen:
                if i in self._cuda:
                    found.set_state(self._cuda[i])
                else:
                    found.manual_seed(self._first)


def generator_for(where: device_class) -> Generator:
    """The default generator of a device of any kind."""
    return cuda_generator(where.index) if where.type == "cuda" else cpu.default_generator
