"""Thousands of random calls on this library and on PyTorch: value, shape, dtype, stride, aliasing and error class.

The calls are the same in every run. `GRAPHTORCH_CALLS=1000 GRAPHTORCH_CALLS_SEED=7` makes a longer run of others."""

from __future__ import annotations

import os
import zlib

import pytest
from calls import TIES, Maker, Outcome, difference, excused, path_in

import graphtorch
from graphtorch.ops.build import FUNCTIONS
from graphtorch.ops.record import REGISTRY

CALLS = int(os.environ.get("GRAPHTORCH_CALLS", "30"))  # of each function
SEED = int(os.environ.get("GRAPHTORCH_CALLS_SEED", "0"))
# Results that went through float16 or bfloat16 somewhere compare coarsely, all others closely.
COARSE, FINE = 3e-2, 3e-5


def path_of(name: str) -> str | None:
    return path_in(name, pytest.importorskip("torch"), graphtorch)


NAMES = sorted(name for name, op in REGISTRY.items() if op.samples and not op.random and name in FUNCTIONS)
IN_PLACE = [name for name in NAMES if name + "_" in FUNCTIONS]


def compare(name: str, path: str, seed: int) -> None:
    torch = pytest.importorskip("torch")
    maker = Maker(REGISTRY[name], path, seed)
    found: list[str] = []
    for _ in range(CALLS):
        call = maker.call()
        if call is None:
            continue
        text = "".join(call.operands.values()) + call.text
        tolerance = COARSE if "float16" in text else FINE
        ours, theirs = Outcome(graphtorch, call), Outcome(torch, call)
        if name in TIES and theirs.error is None:
            del ours.results[1:], theirs.results[1:]
        what = difference(ours, theirs, tolerance)
        if what is not None and not excused(name, what):
            found.append(f"# {what}\n{call.script()}")
    assert not found, f"{len(found)} of {CALLS} calls differ:\n\n" + "\n\n".join(found)


@pytest.mark.parametrize("name", NAMES)
def test_calls(name: str) -> None:
    path = path_of(name)
    if path is None:
        pytest.skip(f"PyTorch has no function of the name {name}")
    compare(name, path, zlib.crc32(name.encode()) + 1000 * SEED)


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_calls(name: str) -> None:
    path = path_of(name + "_")
    if path is None:
        pytest.skip(f"PyTorch has no in-place form of {name}")
    compare(name, path, zlib.crc32(name.encode()) + 1 + 1000 * SEED)
