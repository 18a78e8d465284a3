"""Folds in two steps: chunks that threads share, then the fold of partial results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphtorch as gt
from graphtorch.lowering.cpu import partial_folds
from graphtorch.lowering.cpu.pool import get_pool

pytestmark = pytest.mark.skipif(get_pool().threads < 2, reason="one thread folds in one step")
functional = gt.nn.functional

CASES: dict[str, tuple[Callable[[Any], Any], tuple[int, ...]]] = {
    "sum": (lambda x: x.sum(), (1024,)),
    "sum_with_a_rest": (lambda x: x.sum(), (1003,)),
    "prod": (lambda x: (x * 0.01 + 1).prod(), (517,)),
    "extrema": (lambda x: (x.max(), x.min()), (30, 40)),
    "truth": (lambda x: ((x > 9).any(), (x > -9).all()), (700,)),
    "count": (lambda x: (x > 0).sum(), (700,)),
    "half": (lambda x: x.half().sum(), (900,)),
    "bfloat16": (lambda x: x.bfloat16().mean(), (900,)),
    "float64": (lambda x: x.double().sum(), (900,)),
    "columns": (lambda x: x.sum(0), (999, 5)),
    "columns_and_rows": (lambda x: (x * 2).sum((0, 2)), (300, 2, 3)),
    "transposed": (lambda x: x.t().sum(1), (999, 5)),
    "outer_and_inner": (lambda x: x.sum((0, 2)), (3, 2, 500)),
    "variance": (lambda x: x.var(), (1001,)),
    "variance_of_columns": (lambda x: x.var(0), (1001, 6)),
    "scaled_by_the_norm": (lambda x: x / x.norm(), (40, 30)),
    "softmax_of_a_vector": (lambda x: gt.softmax(x, 0), (700,)),
    "softmax_of_columns": (lambda x: gt.softmax(x, 0), (700, 3)),
    "log_softmax_over_all": (lambda x: gt.log_softmax(x.reshape(-1), 0).reshape(x.shape), (31, 29)),
    "loss": (lambda x: functional.cross_entropy(x, gt.arange(len(x)) % 7), (400, 7)),
    "square_error": (lambda x: ((x - x.mean()) ** 2).mean(), (400, 7)),
    "several": (lambda x: (x.sum(), x.abs().max(), x * 2, x.exp().mean() + x.sum()), (513,)),
}


@pytest.fixture(autouse=True)
def _split_small_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial_folds, "LEAST_WORK", 1)


def functions_of(step: Any) -> list[str]:
    return list(step.specializations[-1].compiled.executable.functions)


def compare(actual: Any, expected: Any) -> None:
    pairs = zip(actual, expected, strict=True) if isinstance(expected, tuple) else [(actual, expected)]
    for a, e in pairs:
        assert a.dtype is e.dtype
        tolerance = 1e-2 if a.dtype.itemsize == 2 else 1e-5
        a, e = a.detach().double().numpy(), e.detach().double().numpy()
        np.testing.assert_allclose(a, e, rtol=tolerance, atol=tolerance * 10)


@pytest.mark.parametrize("name", sorted(CASES))
def test_values(name: str) -> None:
    run, shape = CASES[name]
    step = gt.compile(run, backend="cpu")
    gt.manual_seed(1)
    x = gt.randn(shape)
    compare(step(x), run(x))
    assert not step.specializations[0].compiled.executable.fallbacks
    assert len(functions_of(step)) > 1


def test_gradients_of_a_loss() -> None:
    def run(x: Any, y: Any) -> Any:
        loss = functional.cross_entropy(x, y)
        return loss, *gt.autograd.grad(loss, x)

    step = gt.compile(run, backend="cpu")
    x, y = gt.randn(700, 9, requires_grad=True), gt.arange(700) % 9
    compare(step(x, y), run(x, y))
    assert len(functions_of(step)) > 1


def test_sizes_that_change() -> None:
    run, _ = CASES["columns"]
    step = gt.compile(run, backend="cpu")
    for n in (999, 1024, 5, 1, 0, 40000):
        x = gt.randn(n, 5)
        compare(step(x), run(x))
    assert len(step.specializations) <= 4


def test_the_same_result_in_every_run() -> None:
    step = gt.compile(lambda x: x.sum(), backend="cpu")
    x = gt.randn(1_000_003)
    first = step(x)
    for _ in range(50):
        assert step(x).item() == first.item()


@pytest.mark.parametrize("special", [float("nan"), float("inf"), -float("inf")])
def test_special_values(special: float) -> None:
    def run(x: Any) -> Any:
        return x.sum(), x.max(), x.min()

    step = gt.compile(run, backend="cpu")
    for place in (0, 511, 999, 1002):
        x = gt.ones(1003)
        x[place] = special
        compare(step(x), run(x))


def test_folds_over_rows_stay_whole() -> None:
    step = gt.compile(lambda x: gt.softmax(x, 1), backend="cpu")
    step(gt.randn(512, 512))
    assert len(functions_of(step)) == 1


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int16", "int8", "bool"])
def test_last_narrow_element_of_a_row_leaves_the_next_row_alone(dtype):
    # 25 columns: vectors of eight and one element over, which is stored beside what an earlier vector stored.
    narrow = getattr(gt, dtype)

    def f(x, y):
        return x.to(narrow), (y.to(gt.bfloat16).to(gt.float32) * x).sum(1)

    x = gt.arange(150, dtype=gt.float32).reshape(2, 3, 25) % 11 - 4
    y = gt.ones(2, 3, 25, dtype=gt.float64)
    for found, expected in zip(gt.compile(f, backend="cpu")(x, y), f(x, y), strict=True):
        np.testing.assert_array_equal(found.float().numpy(), expected.float().numpy())
