"""The graphs of the surrounding folder's tests."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphtorch.lowering.kernel import Schedule

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


@pytest.fixture
def early() -> bool:
    """Whether this is Triton 3.6, which lacks library functions for AMD GPUs, and spills a little where later ones
    don't."""
    if importlib.util.find_spec("triton") is None:
        return False
    return tuple(map(int, importlib.metadata.version("triton").split(".")[:2])) < (3, 7)


@pytest.fixture(autouse=True)
def watched() -> Iterator[None]:
    """With GRAPHTORCH_RACES=1, races of launches are errors; tests take a few times as long."""
    if not os.environ.get("GRAPHTORCH_RACES") or importlib.util.find_spec("triton") is None:
        yield
        return
    from address_races import watch

    with watch():
        yield


@pytest.fixture
def schedules(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Schedule]]:
    """The schedules that kernels are generated from, on a device that runs none."""
    from graphtorch.lowering.triton import execution
    from graphtorch.runtime.cuda.driver import use_driver
    from graphtorch.runtime.cuda.simulated import SimulatedDriver

    made: list[Schedule] = []
    prepare = execution.prepare_schedule

    def noted(schedule: Schedule) -> Schedule:
        made.append(prepare(schedule))
        return made[-1]

    monkeypatch.setattr(execution, "prepare_schedule", noted)
    use_driver(SimulatedDriver(1, memory=139 << 30, executes=False))
    try:
        yield made
    finally:
        use_driver(None)
