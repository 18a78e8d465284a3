"""Programs for CUDA devices through the real cuda.core and cuda.bindings, over a stand-in for the driver's library that
does everything as late as CUDA allows and refuses what it forbids (`lazy_driver.py`)."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


def is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


pytestmark = [
    pytest.mark.skipif(not all(map(is_there, ("triton", "cuda.core", "cuda.bindings"))), reason="needs .[gpu]"),
    pytest.mark.skipif(shutil.which("cc") is None or sys.platform != "linux", reason="needs a C compiler"),
]


def run(program: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "GRAPHTORCH_CUDA"}
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE.parents[1]), str(HERE)])
    command = [sys.executable, str(HERE / "lazy_programs.py"), program]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


@pytest.mark.parametrize(
    "program",
    [
        "eager", "compiled", "replayed", "recorded", "garbage_while_recording", "copies", "streams", "threads",
        "two_devices", "after_fork", "memory", "products", "descriptors", "errors",
    ],
)  # fmt: skip
def test_program(program: str) -> None:
    done = run(program)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("reads_too_early", "AssertionError: read too early"),
        ("forgets_to_wait", "AssertionError: other stream"),
        ("reuses_pinned_memory", "AssertionError: changed before it was read"),
        ("times_what_is_not_timed", "CUDA error: invalid resource handle"),
        ("breaks_a_promise", "no multiples of 16"),
        ("waits_while_recording", "operation not permitted when stream is capturing"),
        ("asks_for_no_shared_memory", "CUDA error: invalid argument"),
        ("passes_arguments_of_another_size", "AssertionError"),
    ],
)
def test_the_stand_in_finds_mistakes(program: str, message: str) -> None:
    done = run(program)
    assert done.returncode == 1 and message in done.stderr, done.stderr[-3000:]
