"""Memory that arrays have left stays with the process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from graphtorch.tensor.memory import keep_freed_memory

# Page faults while ten arrays of 1 MiB come and go a hundred times, after the first ones.
FAULTS = """
import resource
import graphtorch as torch

def come_and_go(times):
    for _ in range(times):
        held = [torch.ones(1 << 18) for _ in range(10)]

come_and_go(5)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
come_and_go(100)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not keep_freed_memory(), reason="glibc's allocator, as it comes")
def test_steps_touch_no_fresh_pages() -> None:
    def faults(**more: str) -> int:
        ran = subprocess.run([sys.executable, "-c", FAULTS], env={**os.environ, **more}, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        return int(ran.stdout)

    assert faults() < 1000
    # The user's own setting is left alone: each array is mapped anew.
    assert faults(MALLOC_MMAP_THRESHOLD_="65536") > 100_000


def test_other_settings_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=65536")
    assert not keep_freed_memory()
