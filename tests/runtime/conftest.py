"""A simulated CUDA device for the tests of this folder: its kernels run in Triton's interpreter. On real devices, what
tools/check_gpu.py has to know of its processes."""

from __future__ import annotations

import importlib.util
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from graphtorch.runtime.cuda import driver as drivers
from graphtorch.runtime.cuda.simulated import SimulatedDriver

_SIMULATED = SimulatedDriver(2)
_LOG = os.environ.get("GRAPHTORCH_TEST_LOG")
BROKEN = 86  # the exit status of a process whose device answers nothing but errors any more


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


@pytest.fixture(autouse=True)
def device_in_order(request: pytest.FixtureRequest) -> Iterator[None]:
    """After an access to memory that is none, every call of a process fails: the tests that follow prove nothing."""
    yield
    if request.node.get_closest_marker("gpu") is not None and drivers.unavailable() is None:
        try:
            drivers.driver().wait_device(0)
        except RuntimeError as error:
            pytest.exit(f"the device is lost to this process: {error}", returncode=BROKEN)


@pytest.fixture
def doing(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Say what a test does now: tools/check_gpu.py names it if the test hangs or its process dies."""
    return lambda what: _tell({"test": request.node.nodeid, "doing": what})


def _tell(entry: dict[str, Any]) -> None:
    if _LOG:
        with open(_LOG, "a", encoding="utf-8") as file:
            file.write(json.dumps({**entry, "at": time.time()}) + "\n")


def pytest_runtest_logstart(nodeid: str) -> None:
    _tell({"test": nodeid})


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":
        crash = getattr(report.longrepr, "reprcrash", None)
        text = report.capstdout.strip() if report.passed else str(crash.message if crash else report.longrepr)
        _tell({"test": report.nodeid, "outcome": report.outcome, "text": text[:600], "seconds": report.duration})
