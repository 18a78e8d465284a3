"""Launch plans against a device that records: what is launched, on what grid, with which addresses."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from programs import arrays, f32, mlp_step, trace

import graphtorch
from graphtorch.lowering.backend import get_backend
from graphtorch.lowering.kernel import Buffer
from graphtorch.lowering.triton.backend import TritonExecutable
from graphtorch.lowering.triton.codegen import Generated
from graphtorch.lowering.triton.errors import UnsupportedError
from graphtorch.lowering.triton.launch import ALIGNMENT, Launch, make_plan
from graphtorch.lowering.triton.splitting import split_schedule
from graphtorch.schedule import build_schedule
from graphtorch.tensor.symint import symbol

BASE = 0x7F0000000000


class Recorder:
    """A device that has no memory and runs nothing."""

    host_memory = False

    def __init__(self) -> None:
        self.log: list[tuple[Any, ...]] = []

    def compile(self, functions: Sequence[Generated]) -> None:
        self.log.append(("compile", len(functions)))

    def allocate(self, size: int) -> tuple[int, Any]:
        self.log.append(("allocate", size))
        return BASE, None

    def write(self, address: int, array: np.ndarray[Any, Any]) -> None:
        self.log.append(("write", address, array.nbytes))

    def read(self, address: int, array: np.ndarray[Any, Any]) -> None:
        array[...] = 0
        self.log.append(("read", address, array.nbytes))

    def prepare(self, launch: Launch, arguments: Sequence[int]) -> Callable[[], None]:
        return lambda: self.log.append(("launch", launch.step, launch.grid, tuple(arguments)))


def test_a_step_is_copies_in_launches_and_copies_out() -> None:
    graph, donations = mlp_step(8, 12, 6, 4)
    device = Recorder()
    executable = TritonExecutable(build_schedule(graph, donations), device)
    assert device.log == [("compile", len(executable.sources()))]
    device.log.clear()
    executable.run(arrays(graph))
    kinds = [entry[0] for entry in device.log]
    assert kinds[0] == "allocate"
    inputs = len(graph.inputs)
    assert kinds[1 : 1 + inputs] == ["write"] * inputs
    launches = kinds[1 + inputs :].index("read")
    assert set(kinds[1 + inputs : 1 + inputs + launches]) == {"launch"}
    assert kinds[1 + inputs + launches :] == ["read"] * (len(donations) + 1)  # the parameters and the loss
    first = device.log[1:]
    device.log.clear()
    executable.run(arrays(graph))
    assert device.log == first  # the same memory, the same launches: what a CUDA graph replays


def test_buffers_are_aligned_and_disjoint_while_they_live() -> None:
    graph, donations = mlp_step(8, 12, 6, 4)
    schedule = split_schedule(build_schedule(graph, donations))
    plan = make_plan(schedule, {})
    fixed = [(o, b) for b, o in plan.offsets.items() if b not in plan.memory.offsets]
    assert all(offset % ALIGNMENT == 0 for offset, _ in fixed)
    ranges = sorted((o, o + b.dtype.itemsize * int(np.prod(b.shape, dtype=int))) for o, b in fixed)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(ranges))
    assert all(offset % 16 == 0 for offset in plan.offsets.values())  # what the kernels are compiled for
    temporaries = min((plan.offsets[b] for b in plan.memory.offsets), default=0)
    assert temporaries >= ranges[-1][1]
    assert plan.nbytes >= temporaries + plan.memory.arena_bytes


def test_arguments_are_addresses_then_sizes() -> None:
    rows = symbol("rows", hint=7)
    schedule = split_schedule(build_schedule(trace(lambda x: x * 2 + 1, f32(rows, 32))))
    plan = make_plan(schedule, {"rows": 7})
    (launch,) = plan.launches
    assert [isinstance(a, Buffer) for a in launch.arguments] == [True, True, False]
    read, written, size = plan.arguments(launch, BASE)
    assert (read - BASE, written - BASE) == tuple(plan.offsets[b] for b in launch.function.buffers)
    assert size == 7
    assert launch.grid == (-(-7 * 32 // launch.function.constants["X_BLOCK"]), 1, 1)


def test_grids_cover_every_point() -> None:
    for n in (1, 255, 1024, 1025, 10**6):
        (launch,) = make_plan(build_schedule(trace(lambda x: x * 2, f32(n))), {}).launches
        assert (launch.grid[0] - 1) * launch.function.constants["X_BLOCK"] < n
        assert launch.grid[0] * launch.function.constants["X_BLOCK"] >= n
    assert make_plan(build_schedule(trace(lambda x: x * 2, f32(0))), {}).launches == []


def test_steps_without_triton_code_are_named() -> None:
    schedule = build_schedule(trace(lambda x: graphtorch.linalg.inv(x) * 2, f32(5, 5)))
    with pytest.raises(UnsupportedError, match=r"have no Triton form:\n  c0: .*linalg_inv"):
        TritonExecutable(schedule, Recorder())


def test_without_a_gpu_the_backend_says_so() -> None:
    backend = get_backend("triton")
    reason = backend.unavailable()
    if reason is None:
        pytest.skip("there is a GPU")
    with pytest.raises(RuntimeError, match="the backend 'triton' cannot run here"):
        backend.compile(trace(lambda x: x + 1, f32(3)))
