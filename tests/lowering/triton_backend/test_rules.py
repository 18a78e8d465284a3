"""Records that run as calls elsewhere: by rules and templates, in Triton's interpreter against NumPy; and the exact
list of those that have neither."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from programs import close, trace

import graphtorch
from graphtorch.ops.embeddings import embedding_dense_backward
from graphtorch.ops.record import REGISTRY
from graphtorch.ops.scattering import scatter_record
from graphtorch.ops.testing import Sampler
from graphtorch.tensor import dtypes
from graphtorch.tensor.type import TensorType

pytest.importorskip("triton")

from test_interpreted import SMALL, TOLERANCE, compare, graph_of_call

from graphtorch.lowering.triton.backend import InterpretedBackend, TritonExecutable
from graphtorch.lowering.triton.rules import RULES

KINDS = {"b": ("bool_",), "i": ("int64", "uint8"), "f": ("float32", "float64", "bfloat16", "float16")}
CALLS = sorted(
    n
    for n, op in REGISTRY.items()
    if op.samples is not None and not op.random and op.decompose is None and op.kind == "opaque" and n in RULES
)


def unsupported(executable: TritonExecutable) -> list[str]:
    return [s.reason for p in executable._programs.values() for s in p.launches.unsupported]


@pytest.mark.parametrize("name", CALLS)
def test_every_rule(name: str) -> None:
    op = REGISTRY[name]
    assert op.samples is not None
    ran = 0
    for kind in (k for c in op.categories if c in KINDS for k in KINDS[c]):
        try:
            samples = list(op.samples(Sampler(getattr(dtypes, kind))))
        except NotImplementedError:
            continue
        for sample in samples:
            graph, inputs = graph_of_call(op.function, sample.args, sample.kwargs)
            executable = compare(graph, inputs, TOLERANCE.get(kind, 3e-5), SMALL if ran % 2 else None)
            assert not unsupported(executable)
            ran += 1
    assert ran


def run(program: Any, *inputs: Any, limits: Any = None) -> list[Any]:
    types = [TensorType(dtypes.from_numpy_dtype(x.dtype), x.shape) for x in inputs]
    executable = InterpretedBackend(limits).compile(trace(program, *types))
    assert not unsupported(executable)
    return executable.run(list(inputs))


@pytest.mark.parametrize("kind", ["float32", "float64", "float16", "bfloat16", "int64", "uint8"])
@pytest.mark.parametrize("deterministic", [False, True])
def test_sums_by_index(kind: str, deterministic: bool) -> None:
    """Atomic additions, and the sorted form: many additions to few places, some places without any."""
    of = getattr(dtypes, kind)
    random = np.random.default_rng(0)
    rows = random.integers(0, 6, 50) * 2
    g = random.integers(0, 4, (50, 7)).astype(of.numpy)
    wanted = np.zeros((13, 7))
    np.add.at(wanted, rows, g.astype(np.float64))
    graphtorch.use_deterministic_algorithms(deterministic)
    try:
        (by_index,) = run(lambda x, i, s: x.index_add(0, i, s), np.zeros((13, 7), of.numpy), rows, g)
        (put,) = run(lambda x, i, s: x.index_put((i,), s, True), np.zeros((13, 7), of.numpy), rows - 13, g)
        places = np.broadcast_to(rows[:, None], g.shape)
        (scattered,) = run(lambda x, i, s: x.scatter_add(0, i, s), np.zeros((13, 7), of.numpy), places, g)
        found = [by_index, put, scattered]
        if of.is_floating_point:
            found += run(lambda s, i: embedding_dense_backward(s, i, 13, 4, False), g, rows)
    finally:
        graphtorch.use_deterministic_algorithms(False)
    for made in found[:3]:
        np.testing.assert_array_equal(made.astype(np.float64), wanted)
    for made in found[3:]:
        np.testing.assert_array_equal(made.astype(np.float64), np.where(np.arange(13)[:, None] == 4, 0, wanted))


def test_deterministic_sums_add_in_order() -> None:
    """The rounding is that of one addition after the other."""
    values = np.array([2.0**24, 1.0, 1.0, -(2.0**24), 3.0], np.float32)
    rows = np.zeros(5, np.int64)
    graphtorch.use_deterministic_algorithms(True)
    try:
        (made,) = run(lambda x, i, s: x.index_add(0, i, s), np.zeros(2, np.float32), rows, values)
    finally:
        graphtorch.use_deterministic_algorithms(False)
    assert made[0] == np.cumsum(values, dtype=np.float32)[-1] == 3.0


@pytest.mark.parametrize("reduce", ["sum", "prod", "mean", "amax", "amin"])
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int64"])
@pytest.mark.parametrize("include", [False, True])
def test_scatter_reduce(reduce: str, kind: str, include: bool) -> None:
    of = getattr(dtypes, kind)
    random = np.random.default_rng(1)
    x = random.integers(1, 4, (3, 5)).astype(of.numpy)
    source = random.integers(-3, 4, (3, 8)).astype(of.numpy)
    if of.is_floating_point and reduce in ("amax", "amin"):
        source[0, :2] = np.nan, np.inf
    index = random.integers(0, 5, (3, 8))

    def program(x: Any, i: Any, s: Any) -> Any:
        return x.scatter_reduce(1, i, s, reduce, include_self=include)

    wanted = REGISTRY["scatter_reduce"].numpy(x, 1, index, source, reduce, include)
    for limits in (None, SMALL):
        (made,) = run(program, x, index, source, limits=limits)
        close(made, wanted, 1e-2 if kind == "bfloat16" else 1e-6)


def test_indices_out_of_range_write_nothing() -> None:
    x, index = np.zeros((4, 3), np.float32), np.array([1, 9, -7])
    (put,) = run(lambda x, i: x.index_put((i,), graphtorch.ones(3, 3)), x, index)
    np.testing.assert_array_equal(put.sum(1), [0, 3, 0, 0])
    (added,) = run(lambda x, i: x.index_put((i,), graphtorch.ones(3, 3), True), x, index)
    np.testing.assert_array_equal(added, put)
    (taken,) = run(lambda x, i: x[i], x + 1, index)
    np.testing.assert_array_equal(taken.sum(1), [3, 0, 0])
    (scattered,) = run(lambda x, i: scatter_record(x, 0, i, 5.0), np.zeros(4, np.float32), index)
    np.testing.assert_array_equal(scattered, [0, 5, 0, 0])


def test_medians_meet_nan() -> None:
    x = np.array([[3, 1, np.nan, 2], [np.nan] * 4, [4, 3, 2, 1]], np.float32)
    median, place = run(lambda v: v.median(1), x)
    np.testing.assert_array_equal(median, np.array([np.nan, np.nan, 2], np.float32))
    np.testing.assert_array_equal(place, [2, 0, 2])
    ignoring, _ = run(lambda v: v.nanmedian(1), x)
    np.testing.assert_array_equal(ignoring, np.array([2, np.nan, 2], np.float32))


def test_permutations_and_samples() -> None:
    """What the operators promise of any stream."""
    (permutation,) = run(lambda x: graphtorch.randperm(100) + x, np.zeros((), np.int64))
    np.testing.assert_array_equal(np.sort(permutation), np.arange(100))
    weights = np.array([[0.0, 1.0, 2.0, 0.0, 5.0], [1.0, 0.0, 0.0, 3.0, 1.0]], np.float32)
    (without,) = run(lambda w: graphtorch.multinomial(w, 3), weights)
    for row, allowed in zip(without, ({1, 2, 4}, {0, 3, 4}), strict=True):
        assert set(row.tolist()) == allowed
    (drawn,) = run(lambda w: graphtorch.multinomial(w, 4000, True), weights)
    shares = np.stack([np.bincount(row, minlength=5) / 4000 for row in drawn])
    np.testing.assert_allclose(shares, weights / weights.sum(1, keepdims=True), atol=0.04)
