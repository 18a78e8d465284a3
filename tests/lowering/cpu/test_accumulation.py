"""Products that are added to what a buffer holds: gradients that accumulate over calls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from programs import trace

import graphtorch as torch
from graphtorch.lowering.backend import get_backend
from graphtorch.lowering.cpu import CpuExecutable
from graphtorch.lowering.cpu.blas import find_blas
from graphtorch.lowering.kernel import ExternCall
from graphtorch.lowering.printer import print_schedule
from graphtorch.schedule import build_schedule
from graphtorch.tensor import dtypes
from graphtorch.tensor.type import TensorType

pytestmark = pytest.mark.skipif(find_blas() is None, reason="no BLAS")


def accumulating(executable: Any) -> list[ExternCall]:
    return [s for s in executable.schedule.steps if isinstance(s, ExternCall) and s.accumulate]


def typed(*shape: int, dtype: Any = dtypes.float32) -> TensorType:
    return TensorType(dtype, shape)


# (m, k, n): tiles without packing, packed by rows and by panels, blocks of k, BLAS for a short k.
SHAPES = [
    (7, 9, 5), (64, 48, 33), (10, 32, 128), (300, 700, 200), (1000, 64, 90), (100, 300, 1500), (513, 600, 70),
    (700, 20, 800),
]  # fmt: skip


@pytest.mark.parametrize("transposed", ["", "a", "b", "ab"])
@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.float64])
@pytest.mark.parametrize("sizes", SHAPES)
def test_products_of_all_kinds(sizes: tuple[int, int, int], dtype: Any, transposed: str):
    m, k, n = sizes
    shape_a, shape_b = ((k, m) if "a" in transposed else (m, k)), ((n, k) if "b" in transposed else (k, n))

    def f(c: Any, a: Any, b: Any) -> Any:
        return c + (a.t() if "a" in transposed else a) @ (b.t() if "b" in transposed else b)

    graph = trace(f, typed(m, n, dtype=dtype), typed(*shape_a, dtype=dtype), typed(*shape_b, dtype=dtype))
    executable = CpuExecutable(build_schedule(graph, {0: 0}), graph.input_kinds)
    assert len(accumulating(executable)) == 1 and not executable.fallbacks
    rng = np.random.default_rng(0)
    c, a, b = (rng.standard_normal(s).astype(dtype.numpy) for s in ((m, n), shape_a, shape_b))
    x = (a.T if "a" in transposed else a).astype(np.float64)
    y = (b.T if "b" in transposed else b).astype(np.float64)
    expected = c.astype(np.float64)
    size = np.abs(expected) + np.abs(x) @ np.abs(y)
    for _ in range(3):
        expected = expected + x @ y
        size += np.abs(x) @ np.abs(y)
        (result,) = executable.run([c, a, b])
        assert result is c
        assert (np.abs(c - expected) <= size * np.finfo(dtype.numpy).eps * 8).all()


@pytest.mark.parametrize("backend", ["cpu", "numpy"])
def test_gradients_accumulate_over_calls(backend: str):
    """With micro-batches, as eager code does it."""
    rng = np.random.default_rng(1)
    x = torch.from_numpy(rng.standard_normal((6, 40, 64)).astype(np.float32))
    t = torch.from_numpy(rng.integers(0, 10, (6, 40)))
    found = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.Tanh(), torch.nn.Linear(128, 10))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

        def accumulate(x: Any, t: Any, model: Any = model) -> Any:
            loss = torch.nn.functional.cross_entropy(model(x), t)
            loss.backward()
            return loss

        step = torch.compile(accumulate, backend=backend) if compiled else accumulate
        for _ in range(2):
            for i in range(3):
                step(x[i], t[i])
            optimizer.step()
            optimizer.zero_grad()
        for i in range(3, 6):
            step(x[i], t[i])
        found.append([p.grad.numpy().copy() for p in model.parameters()])
        if compiled and backend == "cpu":
            later = step.specializations[-1].compiled.executable
            assert len(accumulating(later)) == 2
            assert "+= mm(" in print_schedule(later.schedule)
    for mine, eager in zip(found[1], found[0], strict=True):
        np.testing.assert_allclose(mine, eager, rtol=2e-5, atol=1e-6)


def test_large_results_of_many_rows_are_chains():
    types = [typed(2048, 512), typed(2048, 64), typed(64, 512)]
    graph = trace(lambda c, a, b: c + a @ b, *types)
    assert not accumulating(CpuExecutable(build_schedule(graph, {0: 0})))


def test_what_may_not_accumulate():
    """Products that are seen elsewhere, sums that do more or read the sum's buffer in the product, rows."""

    def steps(f: Any, *types: TensorType) -> int:
        graph = trace(f, *types)
        executable = get_backend("cpu").compile(graph, {0: 0})
        given = [np.random.default_rng(i).standard_normal(t.shape).astype(np.float32) for i, t in enumerate(types)]
        expected = [np.asarray(r) for r in get_backend("interpreter").compile(graph, {}).run([a.copy() for a in given])]
        for mine, wanted in zip(executable.run(given), expected, strict=True):
            np.testing.assert_allclose(mine, wanted, rtol=1e-4, atol=1e-4)
        return len(accumulating(executable))

    square = typed(20, 20)
    assert steps(lambda c, a, b: c + a @ b, square, square, square) == 1
    assert steps(lambda c, a, b: a @ b + c, square, square, square) == 1

    def seen(c: Any, a: Any, b: Any) -> Any:
        product = a @ b
        return c + product, product

    assert steps(seen, square, square, square) == 0
    assert steps(lambda c, a: c + c @ a, square, square) == 0
    assert steps(lambda c, a, b: c + 2 * (a @ b), square, square, square) == 0
    assert steps(lambda c, a, b: c + (a @ b).t(), square, square, square) == 0
    assert steps(lambda c, a, b: c + a @ b, typed(20, 20), typed(1, 20), typed(20, 20)) == 0
    assert steps(lambda c, a, b: (c + a @ b, (c * 2).sum()), square, square, square) <= 1
    assert steps(lambda c, a, b: c + a @ b, typed(1, 20), typed(1, 9), typed(9, 20)) == 0
