"""One launch for the updates of many tensors."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from programs import NUMBER, arrays, close, f32, trace

import graphtorch
from graphtorch.ir.graph import Graph
from graphtorch.lowering.numpy.interpreter import interpret
from graphtorch.schedule import build_schedule, groups
from graphtorch.tensor import dtypes
from graphtorch.tensor.symint import symbol
from graphtorch.tensor.type import TensorType

pytest.importorskip("triton")

from graphtorch.lowering.triton import fused
from graphtorch.lowering.triton.backend import InterpretedBackend, InterpreterDevice, TritonExecutable
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


def test_a_number_that_is_updated_and_read_stays_in_one_kernel() -> None:
    """NAdam's product of momenta: several kinds of numbers are computed from it, and it is overwritten."""

    def program(*given: Any) -> Any:
        products = [p * (0.5 + 0.25 / (1 + s)) for p, s in zip(given[:2], given[2:4], strict=True)]
        made = [x + 1 / (1 - p) + (p * 0.3).exp() * x for x, p in zip(given[4:], products, strict=True)]
        return [*products, *made]

    graph = trace(program, *[f32()] * 4, f32(4), f32(5))
    for donations in ({0: 0, 1: 1, 2: 4, 3: 5}, {}):
        step = InterpretedBackend().compile(graph, donations)
        inputs = arrays(graph)
        expected = interpret(graph, [np.copy(a) for a in inputs])
        for found, wanted in zip(step.run(inputs), expected, strict=True):
            close(found, wanted, 1e-5)


def updates(widths: list[int], rows: int = 20) -> tuple[Graph, dict[int, int]]:
    """Biases less a tenth of the sums of rows that products make one after another, in their own memory."""

    def program(rate: Any, x: Any, *given: Any) -> Any:
        results = []
        for b, w in zip(given[::2], given[1::2], strict=True):
            x = x @ w
            results.append(b * 0.5 - rate * x.sum(0))
        return results

    before = [32, *widths]
    types = [t for k, n in zip(before, widths, strict=False) for t in (f32(n), f32(k, n))]
    return trace(program, NUMBER, f32(rows, 32), *types), {i: 2 + 2 * i for i in range(len(widths))}


@pytest.mark.parametrize("limits", [None, Limits(pointwise=64, rows=64, looped=64)])
def test_sums_and_what_follows_are_one_launch_for_equal_sizes(limits: Limits | None) -> None:
    graph, donations = updates([48, 33, 48, 40, 48, 33])
    apart = build_schedule(graph, donations, groups.Limits(siblings=0))
    step = TritonExecutable(apart, InterpreterDevice(), limits)
    alone = plan_for(build_schedule(*updates([48]))).launches[-1]
    assert 3 * alone.grid[0] in {f.grid[0] for f in plan_for(apart).launches}
    mine, reference = arrays(graph), arrays(graph)
    for _ in range(2):
        expected = interpret(graph, reference)
        for i, (actual, wanted) in enumerate(zip(step.run(mine), expected, strict=True)):
            close(actual, wanted, 1e-5, 1e-5 * max(1.0, float(np.abs(wanted).max())))
            reference[donations[i]][...] = wanted
    assert len([f for f in launches(step) if "sum" in f.function.name]) == 3


def test_grouped_sums_load_as_widely_as_alone() -> None:
    alone = plan_for(build_schedule(*updates([768], 512))).launches[-1]
    grouped = plan_for(build_schedule(*updates([768] * 5, 512))).launches[-1]
    assert "table" in grouped.function.source and "table" not in alone.function.source
    wide = [compile_one(f.function).assembly.count("ld.global.v4.b32") for f in (alone, grouped)]
    assert wide[0] == wide[1] > 0


def test_casts_of_weights_are_one_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    """One launch for all of them, although each is read soon."""

    def program(x: Any, *weights: Any) -> Any:
        for w in weights:
            x = (x @ w.to(graphtorch.bfloat16) * 0.06).tanh()
        return x, weights[0] * 2, weights[1] + 1

    monkeypatch.setattr(fused, "REREADS", 0)
    widths = [256 + 32 * (i % 4) for i in range(13)]
    types = [TensorType(dtypes.bfloat16, (64, 256)), *(f32(*s) for s in pairwise(widths))]
    graph = trace(program, *types)
    plan = plan_for(build_schedule(graph, {2: 2}))
    assert [f.function.name for f in plan.launches].count("fused_cast") == 1
    step = InterpretedBackend().compile(graph, {2: 2})
    inputs, reference = arrays(graph), arrays(graph)
    for actual, wanted in zip(step.run(inputs), interpret(graph, reference), strict=True):
        close(actual, wanted, 6e-2, 6e-2 * max(1.0, float(np.abs(wanted.astype(np.float64)).max())))
    few = plan_for(build_schedule(trace(program, *types[:6]), {2: 2}))
    assert [f.function.name for f in few.launches].count("fused_cast") > 1
