"""Sums over rows that are begun on the tiles of the product that stores what is summed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from programs import arrays, trace

from graphtorch.ir.graph import Graph
from graphtorch.lowering.numpy.interpreter import interpret
from graphtorch.schedule import build_schedule
from graphtorch.tensor import dtypes
from graphtorch.tensor.symint import symbol
from graphtorch.tensor.type import TensorType

pytest.importorskip("triton")

from graphtorch.lowering.triton import bias
from graphtorch.lowering.triton.backend import InterpretedBackend, TritonExecutable
from graphtorch.lowering.triton.compiler import compile_all, compile_one, resources
from graphtorch.lowering.triton.fused import FusedCall
from graphtorch.lowering.triton.listing import plan_for
from graphtorch.lowering.triton.shapes import Config
from graphtorch.lowering.triton.templates import generate_call, product_candidates
from graphtorch.lowering.triton.tiling import Limits

SMALL = Limits(pointwise=256, persistent=8, rows=16, looped=16)
TOLERANCE = {"float32": 3e-5, "bfloat16": 2e-2, "float16": 3e-3}


@pytest.fixture(autouse=True)
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bias, "FEWEST", 1)


def typed(kind: str, *shape: Any) -> TensorType:
    return TensorType(getattr(dtypes, kind), shape)


def gradient(x: Any, w: Any, h: Any) -> Any:
    g = (x @ w) * h
    return g, g.float().sum(0) + 1


def begun(executable: TritonExecutable) -> list[FusedCall]:
    return [s for s in executable.schedule.steps if isinstance(s, FusedCall) and s.sums is not None]


def run(graph: Graph, limits: Limits | None, tolerance: float) -> TritonExecutable:
    """Run, and compare with the reference, whose products are those of float64 for the sums."""
    given = arrays(graph)
    expected = interpret(graph, [np.array(x) for x in given])
    executable = InterpretedBackend(limits).compile(graph)
    for actual, wanted in zip(executable.run([np.array(x) for x in given]), expected, strict=True):
        scale = max(float(np.max(np.abs(wanted.astype(np.float64)), initial=1.0)), 1.0)
        np.testing.assert_allclose(
            actual.astype(np.float64), wanted.astype(np.float64), rtol=tolerance, atol=tolerance * scale
        )
    return executable


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(("m", "n", "k"), [(64, 32, 16), (100, 37, 20), (33, 70, 9), (31, 16, 16), (256, 48, 32)])
@pytest.mark.parametrize("limits", [None, SMALL])
def test_sums_of_rows(kind: str, m: int, n: int, k: int, limits: Limits | None) -> None:
    graph = trace(gradient, typed(kind, m, k), typed(kind, k, n), typed(kind, m, n))
    executable = run(graph, limits, TOLERANCE[kind])
    (call,) = begun(executable)
    assert call.sums is not None and call.sums.totals.shape == (-(-m // 32), n)
    assert any("the sum of rows is begun on the tiles of mm" in line for line in executable.schedule.report)


def test_sums_agree_with_float64() -> None:
    graph = trace(gradient, typed("float32", 200, 24), typed("float32", 24, 40), typed("float32", 200, 40))
    x, w, h = arrays(graph)
    executable = InterpretedBackend(SMALL).compile(graph)
    _, sums = executable.run([x, w, h])
    wanted = ((x.astype(np.float64) @ w) * h).sum(0) + 1
    assert begun(executable)
    np.testing.assert_allclose(sums, wanted, 1e-5, 1e-5)


def test_rows_of_several_dimensions_and_an_update_behind_the_sum() -> None:
    def program(x: Any, w: Any, h: Any, b: Any) -> Any:
        g = (x @ w).view(4, 20, 24) * h
        return g, b - 0.1 * g.sum((0, 1))

    graph = trace(
        program, typed("float32", 80, 16), typed("float32", 16, 24), typed("float32", 4, 20, 24), typed("float32", 24)
    )
    assert begun(run(graph, SMALL, 3e-5))


PROGRAMS = {
    "over columns": lambda g, h: (g, g.sum(1)),
    "of squares": lambda g, h: (g, (g * g).sum(0)),
    "of another value": lambda g, h: (g, (g + h).sum(0)),
    "a maximum": lambda g, h: (g, g.amax(0)),
    "over a part": lambda g, h: (g, g.view(8, 8, 32).sum(0)),
    "of everything": lambda g, h: (g, g.sum()),
    "transposed": lambda g, h: (g.t().contiguous(), g.t().contiguous().sum(1)),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_other_folds_stay_correct(name: str) -> None:
    def program(x: Any, w: Any, h: Any) -> Any:
        return PROGRAMS[name]((x @ w) * h, h)

    run(trace(program, *(typed("float32", *s) for s in ((64, 16), (16, 32), (64, 32)))), SMALL, 1e-4)


@pytest.mark.parametrize("limits", [None, SMALL])
def test_symbolic_rows(limits: Limits | None) -> None:
    rows = symbol("rows", hint=64)
    graph = trace(gradient, typed("float32", rows, 16), typed("float32", 16, 32), typed("float32", rows, 32))
    executable = InterpretedBackend(limits).compile(graph)
    assert len(begun(executable)) == 1
    for count in (64, 31, 1, 100):
        given = arrays(graph, bindings={"rows": count})
        found = executable.run([np.array(x) for x in given])
        np.testing.assert_allclose(found[1], (given[0] @ given[1] * given[2]).sum(0) + 1, 1e-4, 1e-4)


def test_rows_of_a_symbolic_batch() -> None:
    """Rows that are (batch, token): the sum folds two axes, of which one is symbolic."""
    batch = symbol("batch", hint=4)

    def program(x: Any, w: Any, h: Any) -> Any:
        g = (x.flatten(0, 1) @ w).view(h.shape) * h
        return g, g.sum((0, 1))

    graph = trace(program, typed("float32", batch, 24, 16), typed("float32", 16, 32), typed("float32", batch, 24, 32))
    executable = InterpretedBackend(SMALL).compile(graph)
    assert len(begun(executable)) == 1
    for count in (4, 7, 1):
        x, w, h = arrays(graph, bindings={"batch": count})
        found = executable.run([x.copy(), w.copy(), h.copy()])
        np.testing.assert_allclose(found[1], (x @ w * h).sum((0, 1)), 1e-4, 1e-4)


@pytest.mark.parametrize("kind", ["bfloat16", "float32"])
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
def test_machine_code(kind: str, target: str) -> None:
    """Every candidate of a product with sums compiles, without spills on NVIDIA's; loads stay wide."""
    graph = trace(gradient, *(typed(kind, *s) for s in ((4096, 768), (768, 3072), (4096, 3072))))
    plan = plan_for(build_schedule(graph))
    (call,) = [
        s for s in InterpretedBackend().compile(graph).schedule.steps if isinstance(s, FusedCall) and s.sums is not None
    ]
    choices = [c for c in product_candidates(call, {}) if not c.descriptors and not c.programs]
    functions = [generate_call(call, {}, choice=c)[0] for c in choices]
    assert {f.constants["BLOCK_M"] % 32 for f in functions} == {0}
    compile_all([*(s.function for s in plan.launches), *functions[:3]], target)
    default = compile_one(functions[0], target)
    if target != "gfx942":
        assert resources(default).stack == 0
        assert "ld.global.v4" in default.assembly or "cp.async.cg" in default.assembly


def test_persistent_programs_begin_sums_too() -> None:
    graph = trace(gradient, typed("float32", 96, 16), typed("float32", 16, 64), typed("float32", 96, 64))
    (call,) = begun(InterpretedBackend(SMALL).compile(graph))
    made = generate_call(call, {}, choice=Config(32, 32, 16, 4, 2, programs=2))[0]
    assert "summed = tl.reshape(" in made.source and "for tile in" in made.source
    compile_one(made, "sm_90")
