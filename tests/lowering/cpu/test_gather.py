"""Native embedding lookups and their gradient against NumPy, and what happens to indices out of range."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_pooling import graph_of

import graphtorch
from graphtorch.lowering.cpu import CpuExecutable
from graphtorch.ops.record import REGISTRY
from graphtorch.schedule import build_schedule
from graphtorch.tensor import dtypes
from graphtorch.tensor.symint import symbol
from graphtorch.tensor.type import TensorType


def executable_of(name: str, given: list[Any], rest: tuple[Any, ...]) -> CpuExecutable:
    types = [TensorType(dtypes.from_numpy_dtype(a.dtype), a.shape) for a in given]
    executable = CpuExecutable(build_schedule(graph_of(name, types, rest)))
    assert not executable.fallbacks
    return executable


@pytest.mark.parametrize("width", [1, 3, 16, 37, 256])
@pytest.mark.parametrize("index", [np.int64, np.int32])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lookup_and_gradient(width: int, index: Any, dtype: Any) -> None:
    rng = np.random.default_rng(width)
    table = rng.standard_normal((50, width)).astype(dtype)
    for shape in ((), (7,), (5, 9), (40, 30)):
        at = np.asarray(rng.integers(0, 50, shape), index)
        executable = executable_of("embedding", [table, at], ())
        for _ in range(2):
            np.testing.assert_array_equal(executable.run([table, at])[0], table[at])
        g = rng.standard_normal((*shape, width)).astype(dtype)
        for padding in (-1, 3):
            rest = (50, padding, False)
            expected = REGISTRY["embedding_dense_backward"].numpy(g, at, *rest)
            for _ in range(2):
                (actual,) = executable_of("embedding_dense_backward", [g, at], rest).run([g, at])
                np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int64", "bool_"])
def test_rows_of_other_dtypes(dtype: str) -> None:
    of = getattr(dtypes, dtype)
    table = (np.arange(110).reshape(10, 11) % 5).astype(of.numpy)
    at = np.array([9, 0, 3, 3])
    (actual,) = executable_of("embedding", [table, at], ()).run([table, at])
    assert actual.dtype == of.numpy
    np.testing.assert_array_equal(actual, table[at])


@pytest.mark.parametrize("bad", [-1, 50, -(1 << 40), 1 << 40])
def test_an_index_out_of_range_raises(bad: int) -> None:
    table, at = np.ones((50, 8), np.float32), np.zeros(6000, np.int64)
    executable = executable_of("embedding", [table, at], ())
    at[4321] = bad
    for _ in range(2):
        with pytest.raises(IndexError, match="index out of range in self"):
            executable.run([table, at])
    at[4321] = 49
    np.testing.assert_array_equal(executable.run([table, at])[0], table[at])


def test_a_failed_step_changes_nothing() -> None:
    """The lookup fails before the update, which is in the same native segment, has run."""
    graphtorch.manual_seed(0)
    model = graphtorch.nn.Sequential(graphtorch.nn.Embedding(20, 8), graphtorch.nn.Linear(8, 3))
    optimizer = graphtorch.optim.SGD(model.parameters(), lr=0.1)

    def step(ids: Any) -> Any:
        optimizer.zero_grad()
        loss = model(ids).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    compiled = graphtorch.compile(step, backend="cpu")
    good = graphtorch.tensor([1, 2, 3, 19])
    compiled(good)
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(IndexError, match="index out of range in self"):
        compiled(graphtorch.tensor([1, 2, 20, 3]))
    for p, kept in zip(model.parameters(), before):
        np.testing.assert_array_equal(p.detach().numpy(), kept.numpy())
    compiled(good)
    assert any(not np.array_equal(p.detach().numpy(), k.numpy()) for p, k in zip(model.parameters(), before))


def test_symbolic_counts() -> None:
    n = symbol("n", hint=16)
    types = [TensorType(dtypes.float32, (30, 5)), TensorType(dtypes.int64, (n, 4))]
    executable = CpuExecutable(build_schedule(graph_of("embedding", types, ())))
    assert not executable.fallbacks
    table = np.random.default_rng(0).standard_normal((30, 5)).astype(np.float32)
    for count in (2, 700):
        at = np.random.default_rng(count).integers(0, 30, (count, 4))
        np.testing.assert_array_equal(executable.run([table, at])[0], table[at])


def test_gradient_of_transposed_operands() -> None:
    rng = np.random.default_rng(0)
    for rows, first, second, width in ((10, 4, 3, 16), (9, 5, 1, 3), (7, 1, 4, 1), (9, 4, 6, 20)):
        table = graphtorch.zeros(rows, width, requires_grad=True)
        at = graphtorch.from_numpy(rng.integers(0, rows, (second, first)))
        weight = graphtorch.from_numpy(rng.standard_normal((second, first, width)))

        @graphtorch.compile(backend="cpu", dynamic=False)
        def gradient(table: Any, at: Any, weight: Any) -> Any:
            found = graphtorch.nn.functional.embedding(at.t(), table) * weight.transpose(0, 1)
            return graphtorch.autograd.grad(found.sum(), table)[0]

        actual = gradient(table, at, weight).numpy()
        assert "runs on NumPy" not in str(gradient.explain())
        expected = np.zeros((rows, width))
        np.add.at(expected, at.numpy(), weight.numpy())
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
