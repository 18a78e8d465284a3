"""One launch for the updates of many tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from programs import NUMBER, arrays, close, f32, trace

from graphtorch.ir.graph import Graph
from graphtorch.lowering.numpy.interpreter import interpret
from graphtorch.schedule import build_schedule
from graphtorch.tensor import dtypes
from graphtorch.tensor.symint import symbol
from graphtorch.tensor.type import TensorType

pytest.importorskip("triton")

from graphtorch.lowering.triton.backend import InterpretedBackend, TritonExecutable
from graphtorch.lowering.triton.compiler import compile_one
from graphtorch.lowering.triton.listing import plan_for
from graphtorch.lowering.triton.tiling import Limits

SHAPES = [(64, 48), (48,), (7,), (33, 5), (), (64, 48), (16,), (1000,)]


def adam(shapes: list[tuple[Any, ...]], of: Any = dtypes.float32) -> tuple[Graph, dict[int, int]]:
    """Adam's update of parameters of these shapes, and the donations."""
    count = len(shapes)

    def program(rate: Any, *given: Any) -> Any:
        parameters, gradients, first, second = (given[i * count : (i + 1) * count] for i in range(4))
        results = []
        for p, g, m, v in zip(parameters, gradients, first, second, strict=True):
            m = m * 0.9 + g * 0.1
            v = v * 0.999 + g * g * 0.001
            results.append((p * (1 - 0.01 * rate) - rate * m / (v.sqrt() + 1e-8), m, v))
        return [r[k] for k in range(3) for r in results]

    types = [TensorType(of, s) for _ in range(4) for s in shapes]
    graph = trace(program, NUMBER, *types)
    targets = [*range(count), *range(2 * count, 4 * count)]
    return graph, {output: 1 + source for output, source in enumerate(targets)}


def launches(executable: TritonExecutable) -> list[Any]:
    (program,) = executable._programs.values()
    assert not program.launches.unsupported
    return program.launches.launches


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("limits", [None, Limits(pointwise=64)])
def test_optimizer_updates_are_one_launch(kind: str, limits: Limits | None) -> None:
    """One for sizes whose loads are wide, one for the others, one for numbers."""
    graph, donations = adam(SHAPES, getattr(dtypes, kind))
    step = InterpretedBackend(limits).compile(graph, donations)
    assert len(launches(step)) <= 3
    mine, reference = arrays(graph), arrays(graph)
    for given in (*mine, *reference):
        if isinstance(given, np.ndarray):
            given[...] = np.abs(given)
    for _ in range(2):
        outputs = step.run(mine)
        expected = interpret(graph, reference)
        tolerance = {"float32": 1e-5, "bfloat16": 3e-2, "float64": 1e-12}[kind]
        for i, (actual, wanted) in enumerate(zip(outputs, expected, strict=True)):
            close(actual, wanted, tolerance, tolerance)
            assert actual is mine[donations[i]]
            reference[donations[i]][...] = wanted


def test_symbolic_sizes_share_a_launch() -> None:
    n = symbol("n", hint=10)
    graph, donations = adam([(n, 4), (3, n), (n,)])
    step = InterpretedBackend().compile(graph, donations)
    for size in (10, 400):
        inputs = arrays(graph, 1, {"n": size})
        inputs = [np.abs(a) if isinstance(a, np.ndarray) else a for a in inputs]
        expected = interpret(graph, [np.copy(a) if isinstance(a, np.ndarray) else a for a in inputs])
        for actual, wanted in zip(step.run(inputs), expected, strict=True):
            close(actual, wanted, 1e-5, 1e-5)
    assert all(len(p.launches.launches) == 1 for p in step._programs.values())


def test_dependent_kernels_stay_in_order() -> None:
    """Equal expressions of which one reads what the other wrote are no group."""

    def program(a: Any, b: Any, c: Any) -> Any:
        x = (a * 2 + 1).sum(0)
        y = (x * 2 + 1).flip(0)
        return x * 2 + 1, (y * 2 + 1).sum(0), b * 2 + 1, c * 2 + 1

    graph = trace(program, f32(5, 6), f32(40), f32(9))
    step = InterpretedBackend().compile(graph)
    inputs = arrays(graph)
    for actual, wanted in zip(step.run(inputs), interpret(graph, inputs), strict=True):
        close(actual, wanted)
    assert any("tensors of" in s for s in step.sources().values())


def test_wide_loads_through_the_table() -> None:
    graph, donations = adam([(1024, 64), (4096,), (64,)])
    (launch,) = plan_for(build_schedule(graph, donations)).launches
    for to in ("sm_80", "sm_90", "sm_100"):
        text = compile_one(launch.function, to).assembly
        assert "ld.global.v4.b32" in text and "st.global.v4.b32" in text
    assert compile_one(launch.function, "gfx942").binary


def test_updates_of_a_whole_model() -> None:
    """AdamW over a small network: as many launches as kinds of parameters, not as parameters."""
    shapes: list[tuple[Any, ...]] = [s for _ in range(12) for s in ((96, 32), (96,), (32, 96), (32,), (32,))]
    graph, donations = adam(shapes)
    plan = plan_for(build_schedule(graph, donations))
    assert len(plan.launches) == 1
    assert sum(n for n, _ in plan.launches[0].function.blocks) == 12 * 2 * 3 + 12 * 3


def test_step_counts_of_many_parameters_are_a_few_launches() -> None:
    """Corrections computed from each parameter's own step count, which the run then advances."""
    count = 60

    def program(rate: Any, *given: Any) -> Any:
        parameters, steps = given[:count], given[count:]
        made = [p - rate / (1 - 0.9 ** (s + 1)) * p.sin() for p, s in zip(parameters, steps, strict=True)]
        return [*made, *(s + 1 for s in steps)]

    graph = trace(program, NUMBER, *[f32(64)] * count, *[f32()] * count)
    donations = {i: i + 1 for i in range(2 * count)}
    step = InterpretedBackend().compile(graph, donations)
    assert len(launches(step)) <= 3
    mine, reference = arrays(graph), arrays(graph)
    for given in (*mine, *reference):
        if isinstance(given, np.ndarray):
            np.abs(given, out=given)
    expected = interpret(graph, reference)
    for found, wanted in zip(step.run(mine), expected, strict=True):
        close(found, wanted, 1e-5)
