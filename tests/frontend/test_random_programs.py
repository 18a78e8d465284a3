"""Random programs, eager beside compiled: results, what they share memory with, parameters, gradients, generator state
and errors agree after every call.

GRAPHTORCH_FUZZ=N runs N programs instead of the usual few hundred, other ones each time."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from random_program import random_program
from random_running import failure, shrink
from random_training import random_training

from graphtorch.lowering.backend import get_backend

COUNT = int(os.environ.get("GRAPHTORCH_FUZZ", "0"))
BACKENDS = ("numpy", "interpreter", *(["cpu"] if get_backend("cpu").unavailable() is None else []))


@pytest.fixture(autouse=True, scope="module")
def _cache_folder(tmp_path_factory):
    """Compiled code goes to a folder of its own."""
    patch = pytest.MonkeyPatch()
    patch.setenv("GRAPHTORCH_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


def check(program):
    """Fail with a short script if a program's compiled runs differ from its eager one."""
    for backend in BACKENDS:
        if failure(program, backend) is not None:
            small = shrink(program, backend)
            pytest.fail(f"backend {backend}: {failure(small, backend)}\n\n{small.script()}", pytrace=False)


def programs(count):
    return settings(
        max_examples=COUNT or count,
        derandomize=not COUNT,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # `shrink` makes better small programs than shorter choices do
        suppress_health_check=list(HealthCheck),
    )


@programs(250)
@given(st.randoms(use_true_random=True))
def test_programs(source):
    check(random_program(source.randrange))


@programs(12)
@given(st.randoms(use_true_random=True))
def test_training(source):
    check(random_training(source.randrange))
