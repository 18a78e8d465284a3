"""Native pooling and its gradients against the NumPy functions of the records."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from graphtorch.ir.builder import GraphBuilder, wrap
from graphtorch.ir.graph import Graph
from graphtorch.lowering.cpu import CpuExecutable
from graphtorch.ops.record import REGISTRY
from graphtorch.schedule import build_schedule
from graphtorch.tensor import dtypes
from graphtorch.tensor.symint import symbol
from graphtorch.tensor.type import TensorType

# shape, kernel, stride, padding, dilation, ceil_mode
CASES = [
    ((4, 6, 28, 28), (2, 2), (2, 2), (0, 0), (1, 1), False),
    ((2, 3, 10, 10), (2, 2), (2, 2), (0, 0), (1, 1), False),
    ((2, 3, 11, 33), (3, 3), (2, 2), (0, 0), (1, 1), False),
    ((2, 3, 11, 130), (2, 2), (2, 2), (0, 0), (1, 1), False),
    ((2, 3, 12, 129), (3, 3), (2, 2), (1, 1), (1, 1), False),
    ((2, 3, 9, 34), (3, 2), (1, 1), (0, 0), (1, 2), False),
    ((2, 3, 9, 20), (3, 3), (3, 3), (1, 1), (1, 1), True),
    ((3, 9, 20), (2, 3), (1, 3), (1, 0), (2, 1), True),
    ((1, 1, 1, 1), (1, 1), (1, 1), (0, 0), (1, 1), False),
    ((2, 2, 5, 5), (5, 5), (1, 1), (0, 0), (1, 1), False),
    ((2, 2, 20, 20), (7, 7), (2, 2), (3, 3), (1, 1), False),
]


def graph_of(name: str, types: list[TensorType], rest: tuple[Any, ...]) -> Graph:
    graph = Graph()
    builder = GraphBuilder(graph)
    with builder:
        given = [wrap(graph.add_input(t, f"x{i}")) for i, t in enumerate(types)]
        results = REGISTRY[name].function(*given, *rest)
        for result in results if isinstance(results, tuple) else (results,):
            graph.add_output(builder.value_of(result))
    return graph


def check(name: str, given: list[Any], rest: tuple[Any, ...], own: str, tolerance: float = 1e-6) -> list[Any]:
    """Run natively, twice, against NumPy; `own` is how the function's name starts."""
    types = [TensorType(dtypes.from_numpy_dtype(a.dtype), a.shape) for a in given]
    executable = CpuExecutable(build_schedule(graph_of(name, types, rest)))
    assert not executable.fallbacks
    assert any(text.startswith(f"define void @{own}") for text in executable.sources().values())
    with np.errstate(all="ignore"):
        expected = REGISTRY[name].numpy(*given, *rest)
    expected = expected if isinstance(expected, tuple) else (expected,)
    for _ in range(2):
        actual = executable.run(given)
        for a, e in zip(actual, expected):
            assert a.dtype == e.dtype
            np.testing.assert_allclose(a, e, rtol=tolerance, atol=tolerance)
    return list(expected)


def values(shape: tuple[int, ...], seed: int, special: bool = False) -> Any:
    rng = np.random.default_rng(seed)
    x = rng.integers(-5, 6, shape).astype(np.float32)  # with many ties
    if special:
        x[rng.random(shape) < 0.1] = np.nan
        x[rng.random(shape) < 0.3] = -np.inf
    return x


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("case", [c for c in CASES if c[1] != (7, 7)], ids=str)
def test_maximum(case: Any, special: bool) -> None:
    shape, *rest = case
    x = values(shape, 0, special)
    _, indices = check("max_pool2d_with_indices", [x], tuple(rest), "pool")
    kernel, stride, _, dilation, _ = rest
    g = np.random.default_rng(1).standard_normal(indices.shape).astype(np.float32)
    overlapping = any(d * (k - 1) >= s for k, s, d in zip(kernel, stride, dilation))
    check("max_pool2d_backward", [g, indices], (shape, overlapping), "poolg", 1e-5)


def test_large_windows_run_otherwise() -> None:
    x = values((2, 2, 20, 20), 0)
    rest = ((7, 7), (2, 2), (3, 3), (1, 1), False)
    graph = graph_of("max_pool2d_with_indices", [TensorType(dtypes.float32, x.shape)], rest)
    expected = REGISTRY["max_pool2d_with_indices"].numpy(x, *rest)
    for a, e in zip(CpuExecutable(build_schedule(graph)).run([x]), expected):
        np.testing.assert_array_equal(a, e)


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize(
    "case", [*(c for c in CASES if c[4] == (1, 1)), ((2, 3, 20, 41), (20, 40), (3, 1), (9, 3), (1, 1), True)], ids=str
)
def test_mean(case: Any, include: bool) -> None:
    shape, kernel, stride, padding, _, ceil_mode = case
    for divisor in (None, 3):
        rest = (kernel, stride, padding, ceil_mode, include, divisor)
        (mean,) = check("avg_pool2d", [values(shape, 0)], rest, "mean")
        check("avg_pool2d_backward", [values(mean.shape, 1)], (shape, *rest), "meang", 1e-5)


def test_random_windows() -> None:
    rng = random.Random(0)
    done = 0
    while done < 30:
        kernel = (rng.randint(1, 4), rng.randint(1, 4))
        stride = (rng.randint(1, 3), rng.randint(1, 4))
        padding = (rng.randint(0, kernel[0] // 2), rng.randint(0, kernel[1] // 2))
        dilation = (rng.randint(1, 2), rng.randint(1, 2))
        shape = (rng.randint(1, 3), rng.randint(1, 4), rng.randint(1, 14), rng.randint(1, 70))
        if all(d * (k - 1) < n + 2 * p for d, k, n, p in zip(dilation, kernel, shape[2:], padding)):
            x = values(shape, done, done % 2 == 0).astype(np.float32 if done % 3 else np.float64)
            check("max_pool2d_with_indices", [x], (kernel, stride, padding, dilation, done % 4 == 1), "pool")
            done += 1


def test_symbolic_batch() -> None:
    n = symbol("n", hint=8)
    rest = ((2, 2), (2, 2), (0, 0), (1, 1), False)
    executable = CpuExecutable(
        build_schedule(graph_of("max_pool2d_with_indices", [TensorType(dtypes.float32, (n, 3, 8, 9))], rest))
    )
    assert not executable.fallbacks
    for count in (2, 70):
        x = values((count, 3, 8, 9), count)
        for a, e in zip(executable.run([x]), REGISTRY["max_pool2d_with_indices"].numpy(x, *rest)):
            np.testing.assert_array_equal(a, e)
