"""Sums that differ by factors of the channel are one sum: gradients of batch norms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from programs import arrays, close, f32, trace

from graphtorch.autodiff.reverse import append_gradients
from graphtorch.ir.builder import GraphBuilder, wrap
from graphtorch.ir.graph import Graph, Location
from graphtorch.lowering.numpy.interpreter import interpret
from graphtorch.nn import functional as F
from graphtorch.schedule import build_schedule

pytest.importorskip("triton")

from graphtorch.lowering.kernel import Kernel, Reduce, post_order
from graphtorch.lowering.triton.backend import InterpretedBackend
from graphtorch.lowering.triton.factors import share_sums
from graphtorch.lowering.triton.recompute import recompute_in_readers
from graphtorch.lowering.triton.tiling import Limits


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHTORCH_CACHE", str(tmp_path / "cache"))


def check(graph: Graph) -> None:
    inputs = arrays(graph)
    expected = interpret(graph, [np.array(x) for x in inputs])
    actual = InterpretedBackend(Limits(pointwise=256)).compile(graph).run(inputs)
    for found, wanted in zip(actual, expected, strict=True):
        close(found, wanted, 1e-4, 1e-4 * max(float(np.abs(wanted).max()), 1.0))


def sums(graph: Graph) -> list[int]:
    """Of each kernel that sums."""
    schedule = share_sums(recompute_in_readers(build_schedule(graph)))
    found = [
        sum(isinstance(e, Reduce) for e in post_order(s.value for s in k.stores))
        for k in schedule.steps
        if isinstance(k, Kernel)
    ]
    return [n for n in found if n]


def gradients(function: Any, *shapes: tuple[int, ...]) -> Graph:
    graph = Graph("step")
    inputs = [graph.add_input(f32(*s), f"x{i}", "parameter") for i, s in enumerate(shapes)]
    builder = GraphBuilder(graph, Location("train.py", 1, ""))
    with builder:
        made = wrap(builder.value_of(function(*map(wrap, inputs))))
        loss = builder.value_of((made * made).sum())
    for i, value in enumerate(append_gradients(graph, (loss,), (None,), tuple(inputs), builder)):
        assert value is not None
        graph.add_output(value, f"grad{i}")
    return graph


def test_gradient_of_a_batch_norm_has_two_sums() -> None:
    graph = gradients(lambda x, w, b: F.batch_norm(x, None, None, w, b, True).tanh(), (3, 5, 4, 6), (5,), (5,))
    assert sums(graph) == [4]  # and mean and variance
    check(graph)


def test_factors_quotients_and_signs() -> None:
    def run(x: Any, y: Any, w: Any) -> Any:
        return (x * y * w).sum(1), (-(x * w) / w * y).sum(1), ((y * w) * (x / w)).sum(1), (w * w * x).sum(1), x.sum(1)

    graph = trace(run, f32(6, 40), f32(6, 40), f32(6, 1))
    assert sums(graph) == [2]
    check(graph)


def test_what_is_no_factor_stays() -> None:
    """Factors that vary along what is summed, and sums that have nothing in common."""

    def run(x: Any, y: Any, w: Any) -> Any:
        return (x * y).sum(1), (x * w).sum(1), (x + w).sum(1), (w * w).expand(6, 40).sum(1)

    graph = trace(run, f32(6, 40), f32(6, 40), f32(6, 1))
    schedule = recompute_in_readers(build_schedule(graph))
    assert all(a is b for a, b in zip(share_sums(schedule).steps, schedule.steps, strict=True))
    check(graph)
