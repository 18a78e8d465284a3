"""What a position selects is loaded where it lies: entries of rows at targets, and comparisons of positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from programs import HERE, close, f32, i64, trace

import graphtorch
from graphtorch.autodiff.reverse import append_gradients
from graphtorch.ir.builder import GraphBuilder, wrap
from graphtorch.ir.graph import Graph
from graphtorch.ir.passes import default_pipeline
from graphtorch.lowering.numpy.interpreter import interpret
from graphtorch.nn import functional as F
from graphtorch.schedule import build_schedule
from graphtorch.tensor import dtypes
from graphtorch.tensor.symint import symbol
from graphtorch.tensor.type import TensorType

pytest.importorskip("triton")

from graphtorch.lowering.triton.backend import InterpretedBackend
from graphtorch.lowering.triton.compiler import compile_one, resources
from graphtorch.lowering.triton.listing import plan_for
from graphtorch.lowering.triton.tiling import Limits

LIMITS = (None, Limits(persistent=4, looped=8), Limits(persistent=64, rows=64))


def joint(function: Callable[..., Any], *types: TensorType) -> Graph:
    """The graph of a loss and of its gradient with respect to the first input."""
    graph = Graph()
    inputs = [graph.add_input(t, f"x{i}") for i, t in enumerate(types)]
    builder = GraphBuilder(graph, HERE)
    with builder:
        loss = builder.value_of(function(*map(wrap, inputs)))
    for value in (loss, *append_gradients(graph, (loss,), (None,), (inputs[0],), builder)):
        graph.add_output(value)
    default_pipeline().run(graph)
    return graph


def check(graph: Graph, inputs: list[Any]) -> None:
    wanted = interpret(graph, inputs)
    for limits in LIMITS:
        found = InterpretedBackend(limits).compile(graph).run(inputs)
        for a, b in zip(found, wanted, strict=True):
            close(a, b, 1e-5, 1e-5)


def texts(graph: Graph) -> list[str]:
    return [launch.function.source for launch in plan_for(build_schedule(graph)).launches]


def test_the_loss_of_classes_is_light() -> None:
    """Neither its targets nor what they select is a fold that goes along the row; registers were 72 with these."""

    def loss(x: Any, y: Any) -> Any:
        return F.cross_entropy(x.float(), y)

    graph = joint(loss, TensorType(dtypes.bfloat16, (8192, 32768)), i64(8192))
    plan = plan_for(build_schedule(graph))
    (launch,) = [f for f in plan.launches if any(b.shape == (8192, 32768) for b in f.function.buffers)]
    source = launch.function.source
    assert "acc1" in source and "acc2" not in source  # a maximum and a sum of exponentials
    assert not any("int64" in line for part in source.split("for r_start")[1:] for line in _body(part))
    assert [b.dtype for b in launch.function.buffers if b.shape[:1] == (8192,) and len(b.shape) == 1].count(
        dtypes.int64
    ) == 1  # the targets as they came in
    for to in ("sm_80", "sm_90", "sm_100"):
        compiled = compile_one(launch.function, to)
        assert resources(compiled).registers <= 40 and resources(compiled).stack == 0
        assert compiled.assembly.count("ld.global.v4.b32") == 4 and compiled.assembly.count("st.global.v4.b32") == 2


def _body(text: str) -> list[str]:
    """The lines of a loop after its first."""
    lines = text.splitlines()[1:]
    return lines[: next((i for i, line in enumerate(lines) if not line.startswith("        ")), len(lines))]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignored", [-100, 3])
def test_losses(reduction: str, weighted: bool, ignored: int) -> None:
    def loss(x: Any, y: Any, w: Any) -> Any:
        made = F.cross_entropy(x, y, w if weighted else None, ignore_index=ignored, reduction=reduction)
        return (made * made).sum() if reduction == "none" else made

    rng = np.random.default_rng(0)
    y = rng.integers(0, 50, 9)
    y[4] = ignored
    x, w = rng.standard_normal((9, 50)).astype(np.float32), rng.random(50).astype(np.float32)
    check(joint(loss, f32(9, 50), i64(9), f32(50)), [x, y, w])


def test_classes_before_places_and_smoothing() -> None:
    def loss(x: Any, y: Any) -> Any:
        return F.cross_entropy(x, y, label_smoothing=0.1)

    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((2, 7, 12)).astype(np.float32), rng.integers(0, 7, (2, 12))
    check(joint(loss, f32(2, 7, 12), i64(2, 12)), [x, y])


def test_symbolic_sizes() -> None:
    n, c = symbol("n", hint=16), symbol("c", hint=32)
    rng = np.random.default_rng(2)
    graph = joint(lambda x, y: F.cross_entropy(x, y), f32(n, c), i64(n))
    for rows, classes in ((5, 12), (20, 33)):
        check(graph, [rng.standard_normal((rows, classes)).astype(np.float32), rng.integers(0, classes, rows)])


def test_entries_alone_are_loads() -> None:
    """Without another fold a kernel does not go along the row at all."""
    graph = trace(lambda x, y: F.nll_loss(x, y, reduction="none"), f32(64, 5000), i64(64))
    (source,) = texts(graph)
    assert "R_BLOCK" not in source
    assert "r_start" not in source and "tl.sum" not in source
    rng = np.random.default_rng(3)
    check(graph, [rng.standard_normal((64, 5000)).astype(np.float32), rng.integers(0, 5000, 64)])


def hits(x: Any, y: Any) -> Any:
    return graphtorch.where(graphtorch.arange(x.shape[1]) == y.unsqueeze(1), x * 2.0, 0.0).sum(1)


@pytest.mark.parametrize("far", [-1, 12, 1 << 40, -(1 << 40), (1 << 32) + 3])
def test_positions_outside_select_nothing(far: int) -> None:
    """Also those whose lower 32 bits are a position inside."""

    def program(x: Any, y: Any) -> Any:
        return hits(x, y), (graphtorch.arange(12) == y.unsqueeze(1)) * x - x.sum(1, True)

    graph = trace(program, f32(4, 12), i64(4))
    x = np.arange(48, dtype=np.float32).reshape(4, 12)
    check(graph, [x, np.array([0, far, 11, 5])])


def test_what_looks_alike_stays_a_fold() -> None:
    """A value besides zero elsewhere, and positions that move along with the fold."""
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((4, 12)).astype(np.float32), rng.integers(0, 12, 4)
    ones = trace(
        lambda x, y: graphtorch.where(graphtorch.arange(12) == y.unsqueeze(1), x, 1.0).sum(1), f32(4, 12), i64(4)
    )
    assert "tl.sum" in texts(ones)[0]
    check(ones, [x, y])
    each = trace(lambda x, y: graphtorch.where(graphtorch.arange(12) == y, x, 0.0).sum(1), f32(4, 12), i64(4, 12))
    assert "tl.sum" in texts(each)[0]
    check(each, [x, np.broadcast_to(np.arange(12), (4, 12)) % (1 + y[:, None])])
