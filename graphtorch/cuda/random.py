"""The random generators of CUDA devices."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from graphtorch.runtime.cuda import devices
from graphtorch.runtime.cuda.streams import index_of
from graphtorch.tensor.cuda_generator import CudaGenerator, cuda_generator
from graphtorch.tensor.cuda_generator import seed_all as _seed_all

__all__ = [
    *("get_rng_state", "get_rng_state_all", "initial_seed", "manual_seed", "manual_seed_all", "seed", "seed_all"),
    *("set_rng_state", "set_rng_state_all"),
]


def _generator(device: Any = None) -> CudaGenerator:
    found = devices.device(None if device == "cuda" else index_of(device))
    return cuda_generator(found.index)


def manual_seed(seed: int) -> None:
    """Seed the selected device's generator; nothing to do without a device, as in PyTorch."""
    if devices.count():
        _generator().manual_seed(int(seed))


def manual_seed_all(seed: int) -> None:
    """Seed every device's generator; nothing to do without a device, as in PyTorch."""
    if devices.count():
        _seed_all(int(seed))


def seed() -> None:
    """Seed the selected device's generator with a number that nobody chose."""
    if devices.count():
        _generator().seed()


def seed_all() -> None:
    """Seed every device's generator with one number that nobody chose."""
    if devices.count():
        _seed_all(int.from_bytes(os.urandom(8), "little"))


def initial_seed() -> int:
    """What the selected device's generator was seeded with. Raises AssertionError without a device."""
    return _generator().initial_seed()


def get_rng_state(device: Any = "cuda") -> Any:
    """The state of a device's generator, a uint8 tensor on the CPU. Raises AssertionError without a device."""
    return _generator(device).get_state()


def get_rng_state_all() -> list[Any]:
    """The states of all devices' generators."""
    return [get_rng_state(index) for index in range(devices.count())]


def set_rng_state(new_state: Any, device: Any = "cuda") -> None:
    """Put a device's generator into a state that `get_rng_state` gave. Raises AssertionError without a device."""
    _generator(device).set_state(new_state)


def set_rng_state_all(new_states: Iterable[Any]) -> None:
    """Put all devices' generators into states that `get_rng_state_all` gave."""
    for index, state in enumerate(new_states):
        set_rng_state(state, index)
