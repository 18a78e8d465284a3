"""A simulated CUDA device for the tests of this folder: its kernels run in Triton's interpreter."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest

from graphtorch.runtime.cuda import driver as drivers
from graphtorch.runtime.cuda.simulated import SimulatedDriver

_SIMULATED = SimulatedDriver(2)


@pytest.fixture
def cuda() -> Iterator[SimulatedDriver]:
    """Two simulated devices in the place of what this machine has."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton's interpreter runs the kernels")
    drivers.use_driver(_SIMULATED)
    try:
        yield _SIMULATED
    finally:
        _SIMULATED.log = None
        drivers.use_driver(None)
