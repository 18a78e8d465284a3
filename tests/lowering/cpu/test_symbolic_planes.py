"""Convolutions and pooling whose planes have other sizes at each call: native code all the same, and right results."""

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
from graphtorch.ops.record import REGISTRY
from graphtorch.schedule import build_schedule
from graphtorch.tensor import dtypes
from graphtorch.tensor.symint import symbol
from graphtorch.tensor.type import TensorType

# name: (function of the input and a weight, the weight's shape)
PROGRAMS: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "padded": (lambda x, w: F.conv2d(x, w, padding=1), (8, 6, 3, 3)),
    "valid": (lambda x, w: F.conv2d(x, w), (8, 6, 3, 2)),
    "strided": (lambda x, w: F.conv2d(x, w, stride=(2, 3), padding=(1, 0)), (8, 6, 3, 3)),
    "dilated": (lambda x, w: F.conv2d(x, w, dilation=2, padding=2), (8, 6, 3, 3)),
    "transposed": (lambda x, w: F.conv_transpose2d(x, w, stride=2, padding=1, output_padding=1), (6, 8, 3, 3)),
    "depthwise": (lambda x, w: F.conv2d(x, w, groups=6, padding=1), (6, 1, 3, 3)),
    "kernel 1": (lambda x, w: F.conv2d(x, w), (8, 6, 1, 1)),
    "maximum": (lambda x, w: F.max_pool2d(F.conv2d(x, w), 3, 2, 1), (8, 6, 3, 3)),
    "mean": (lambda x, w: F.avg_pool2d(F.conv2d(x, w), 2, 2, 1), (8, 6, 3, 3)),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_training_step(name: str) -> None:
    function, shape = PROGRAMS[name]
    rng = np.random.default_rng(0)
    weight = graphtorch.from_numpy(rng.standard_normal(shape).astype(np.float32)).requires_grad_(True)

    def step(x: Any, weight: Any) -> Any:
        y = function(x, weight)
        return (y, *graphtorch.autograd.grad((y * y).sum(), (x, weight)))

    compiled = graphtorch.compile(step, backend="cpu")
    for size in ((14, 15), (18, 20), (23, 31), (9, 17)):
        x = graphtorch.from_numpy(rng.standard_normal((2, 6, *size)).astype(np.float32)).requires_grad_(True)
        for actual, expected in zip(compiled(x, weight), step(x, weight), strict=True):
            scale = float(expected.abs().max())
            assert float((actual - expected).abs().max()) <= 1e-5 * scale


@pytest.mark.parametrize("name", ["conv2d", "conv2d_input_grad", "conv2d_weight_grad", "max_pool2d_with_indices"])
def test_no_step_runs_on_numpy(name: str) -> None:
    n, h, w = symbol("n", hint=4), symbol("h", hint=20), symbol("w", hint=24)
    x, g = (n, 6, h, w), (n, 8, h, w)
    rest = ((1, 1), (1, 1), (1, 1), 1)
    shapes, extra = {
        "conv2d": ([x, (8, 6, 3, 3)], (None, *rest)),
        "conv2d_input_grad": ([g, (8, 6, 3, 3)], (x, *rest)),
        "conv2d_weight_grad": ([x, g], ((8, 6, 3, 3), *rest)),
        "max_pool2d_with_indices": ([x], ((2, 2), (2, 2), (0, 0), (1, 1), False)),
    }[name]
    graph = Graph()
    builder = GraphBuilder(graph)
    with builder:
        given = [wrap(graph.add_input(TensorType(dtypes.float32, s), f"x{i}")) for i, s in enumerate(shapes)]
        results = REGISTRY[name].function(*given, *extra)
        for result in results if isinstance(results, tuple) else (results,):
            graph.add_output(builder.value_of(result))
    executable = CpuExecutable(build_schedule(graph))
    assert not executable.fallbacks
    for count, height, width in ((3, 7, 9), (1, 20, 4)):
        known = {id(n): count, id(h): height, id(w): width}
        arrays = [
            np.random.default_rng(i).standard_normal([known.get(id(s), s) for s in shape]).astype(np.float32)
            for i, shape in enumerate(shapes)
        ]
        fixed = [tuple(known.get(id(s), s) for s in e) if isinstance(e, tuple) else e for e in extra]
        expected = REGISTRY[name].numpy(*arrays, *fixed)
        for actual, wanted in zip(executable.run(arrays), expected if isinstance(expected, tuple) else (expected,)):
            np.testing.assert_allclose(actual, wanted, rtol=1e-4, atol=1e-4)
