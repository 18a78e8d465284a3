"""mode, kthvalue, masked_scatter, put, index_reduce and their neighbours beside PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
from against_torch import compare, same_error

import graphtorch

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(3, 4, 5))


def test_mode_of_repeated_values() -> None:
    values = RANDOM.integers(0, 3, (4, 9))
    for dim in (0, 1):
        compare(lambda t, x, d=dim: t.mode(x, d)[0], values)
        compare(lambda t, x, d=dim: t.mode(x, d, keepdim=True)[0], values.astype(np.float64), order=0)
    compare(lambda t, x: t.mode(x), np.array([[1, 2, 2, 3, 1], [5, 4, 4, 5, 4]]))


def test_kthvalue() -> None:
    for k in (1, 3):
        compare(lambda t, x, k=k: t.kthvalue(x, k, 1), X)
    compare(lambda t, x: t.kthvalue(x, 2, 0)[0], RANDOM.integers(0, 4, (5, 6)))
    same_error(lambda t, x: t.kthvalue(x, 9, 1), X, message=False)


def test_masked_scatter() -> None:
    mask = X > 0
    compare(lambda t, x, m, s: x.masked_scatter(m, s), X, mask, RANDOM.normal(size=(6, 10)))
    compare(lambda t, x, m, s: x.clone().masked_scatter_(m, s), X, mask, RANDOM.normal(size=(6, 10)), order=1)
    same_error(lambda t, x, m: x.masked_scatter(m, x[0, 0]), X, mask, message=False)


@pytest.mark.parametrize("accumulate", [True, False])
def test_put(accumulate: bool) -> None:
    at, source = np.array([[0, 7], [-1, 12]]), RANDOM.normal(size=(2, 2))
    compare(lambda t, x, i, s: x.put(i, s, accumulate), X, at, source)
    compare(lambda t, x, i, s: x.clone().put_(i, s, accumulate), X, at, source, order=1)
    same_error(lambda t, x, i, s: x.put(i, s[0]), X, at, source)


@pytest.mark.parametrize("reduce", ["prod", "mean", "amax", "amin"])
def test_index_reduce(reduce: str) -> None:
    at, source = np.array([0, 2, 2]), RANDOM.normal(size=(3, 3, 5))
    for include in (True, False):
        compare(
            lambda t, x, i, s, inc=include: x.index_reduce(1, i, s, reduce, include_self=inc), X, at, source, order=1
        )


def test_small_functions() -> None:
    compare(lambda t, x: t.unravel_index(x, (3, 4, 5)), np.array([[0, 7], [59, 33]]))
    compare(lambda t, x: t.nonzero_static(x > 0, size=7), X, order=0)
    for r in (0, 1, 2, 3):
        compare(lambda t, x, r=r: t.combinations(x[0, 0], r), X, order=1 if r else 0)
        compare(lambda t, x, r=r: t.combinations(x[0, 0], r, True), X, order=1 if r else 0)
    compare(lambda t, x: x.sum_to_size(4, 1), X)
    same_error(lambda t, x: x.sum_to_size(2, 1), X, message=False)


@pytest.mark.parametrize("edge_order", [1, 2])
def test_gradient(edge_order: int) -> None:
    compare(lambda t, x: t.gradient(x, edge_order=edge_order), X)
    compare(lambda t, x: t.gradient(x, spacing=0.5, dim=(0, 2), edge_order=edge_order), X)
    compare(lambda t, x: t.gradient(x, spacing=[0.5, 2.0], dim=(0, 2), edge_order=edge_order), X)
    compare(
        lambda t, x: t.gradient(
            x, spacing=(t.tensor([0.0, 0.5, 2.0, 4.0], dtype=t.float64),), dim=1, edge_order=edge_order
        ),
        X,
    )


def test_copies_of_views() -> None:
    compare(lambda t, x: t.permute_copy(x, (2, 0, 1)), X)
    compare(lambda t, x: t.expand_copy(x[:, :1], (3, 4, 5)), X)
    compare(lambda t, x: t.unbind_copy(x, 1), X)
    compare(lambda t, x: t.split_copy(x, 2, 1), X)
    compare(lambda t, x: t.t_copy(x[0]), X)
    compare(lambda t, x: t.narrow_copy(x, 1, 1, 2), X)
    compare(lambda t, x: t.unsafe_chunk(x, 2, 1), X)


@pytest.mark.parametrize("largest", [False, True])
@pytest.mark.parametrize("dim", [0, 1, 2])
@pytest.mark.parametrize("missing", [False, True])
def test_topk_takes_the_first_of_equal_elements(largest: bool, dim: int, missing: bool) -> None:
    rng = np.random.default_rng(dim)
    x = rng.integers(-2, 3, (5, 6, 9)).astype(np.float32)
    if missing:
        x[rng.random(x.shape) < 0.3] = np.nan
    keys = np.where(np.isnan(x), np.inf, x)
    expected = np.take(np.argsort(-keys if largest else keys, dim, kind="stable"), [0], dim)
    of = graphtorch.tensor(x)
    for run in (lambda t: t.topk(1, dim, largest), graphtorch.compile(lambda t: t.topk(1, dim, largest))):
        assert np.array_equal(run(of).indices.numpy(), expected)
