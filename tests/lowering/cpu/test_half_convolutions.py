"""Convolutions and pooling in float16 and bfloat16 run natively, with eager's results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphtorch
import graphtorch.nn.functional as F
from graphtorch.ir.builder import GraphBuilder, wrap
from graphtorch.ir.graph import Graph
from graphtorch.lowering.cpu import CpuExecutable
from graphtorch.schedule import build_schedule
from graphtorch.tensor.type import TensorType

PROGRAMS: dict[str, Callable[..., Any]] = {
    "convolution": lambda x, w: F.conv2d(x, w, padding=1),
    "maximum": lambda x, w: F.max_pool2d(F.conv2d(x, w, stride=2), 2),
    "mean": lambda x, w: F.avg_pool2d(F.conv2d(x, w), 2),
}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_training_step(name: str, dtype: str) -> None:
    rng = np.random.default_rng(0)
    of = getattr(graphtorch, dtype)
    x, w = (
        graphtorch.from_numpy(rng.standard_normal(shape).astype(np.float32)).to(of)
        for shape in ((2, 6, 11, 12), (20, 6, 3, 3))
    )

    def step(x: Any, w: Any, g: Any) -> Any:
        y = PROGRAMS[name](x, w)
        return (y, *graphtorch.autograd.grad(y, (x, w), g))

    g = graphtorch.ones_like(PROGRAMS[name](x, w))
    x.requires_grad_(True)
    w.requires_grad_(True)
    expected = step(x, w, g)
    for actual, wanted in zip(graphtorch.compile(step, backend="cpu")(x, w, g), expected, strict=True):
        assert actual.dtype is of
        result, reference = actual.detach().float(), wanted.detach().float()
        # Sums in another order may round to the neighbouring number.
        rounding = 2**-7 if dtype == "bfloat16" else 2**-10
        assert float((result - reference).abs().max()) <= rounding * float(reference.abs().max())


def test_native() -> None:
    graph = Graph()
    builder = GraphBuilder(graph)
    with builder:
        shapes = ((2, 6, 9, 9), (8, 6, 3, 3))
        given = [wrap(graph.add_input(TensorType(graphtorch.bfloat16, s), f"x{i}")) for i, s in enumerate(shapes)]
        graph.add_output(builder.value_of(F.conv2d(*given)))
    assert not CpuExecutable(build_schedule(graph)).fallbacks
