"""Sorts and running folds in Triton's interpreter: in a block, in many; every dtype; ties, NaN, infinities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from programs import close, f32, trace

import graphtorch
from graphtorch.lowering.numpy.interpreter import interpret
from graphtorch.tensor import dtypes
from graphtorch.tensor.symint import symbol
from graphtorch.tensor.type import TensorType

pytest.importorskip("triton")

from graphtorch.lowering.triton import splitting
from graphtorch.lowering.triton.backend import InterpretedBackend
from graphtorch.lowering.triton.tiling import Limits

SMALL = Limits(pointwise=16, persistent=4, rows=8, looped=8)
DTYPES = ["bool_", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64"]


def check(program: Any, inputs: list[Any], limits: Limits | None, tolerance: float = 0.0) -> int:
    """Compare with NumPy; the number of launches."""
    types = [TensorType(dtypes.from_numpy_dtype(x.dtype), x.shape) for x in inputs]
    graph = trace(program, *types)
    executable = InterpretedBackend(limits).compile(graph)
    for actual, wanted in zip(executable.run(inputs), interpret(graph, inputs), strict=True):
        assert actual.dtype == wanted.dtype
        close(actual, wanted, tolerance, tolerance)
    (program_,) = executable._programs.values()
    assert not program_.launches.unsupported
    return len(program_.launches.launches)


def values(shape: tuple[int, ...], kind: str, seed: int = 0) -> Any:
    """Few distinct values, and the special ones."""
    random = np.random.default_rng(seed)
    of = getattr(dtypes, kind).numpy
    made = random.integers(0, 5, shape)
    if not getattr(dtypes, kind).is_floating_point:
        if kind not in ("bool_", "uint8"):
            info = np.iinfo(of)
            made = random.choice(np.array([info.min, -3, 0, 2, info.max]), shape)
        return made.astype(of)
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.5])
    return np.where(random.random(shape) < 0.4, random.choice(special, shape), made - 2.0).astype(of)


@pytest.mark.parametrize("kind", DTYPES)
@pytest.mark.parametrize("limits", [None, SMALL])
def test_stable_sorts(kind: str, limits: Limits | None) -> None:
    for shape, dim in (((3, 29), 1), ((13, 4), 0), ((2, 5, 3), 1), ((1,), 0)):
        x = values(shape, kind)
        for descending in (False, True):
            check(lambda v, dim=dim, d=descending: graphtorch.sort(v, dim, d, stable=True), [x], limits)
    check(lambda v: graphtorch.argsort(v.t(), stable=True), [values((7, 5), kind)], limits)


def test_many_short_rows_share_a_program() -> None:
    assert check(lambda v: graphtorch.sort(v, -1), [values((600, 3), "float32")], None) == 1


def test_long_rows_merge_in_several_launches() -> None:
    x = np.random.default_rng(0).permutation(300).astype(np.float32)
    assert check(graphtorch.sort, [x], Limits(persistent=32)) == 5
    n = symbol("n", hint=8)
    step = InterpretedBackend(SMALL).compile(trace(lambda v: v.sort(0, descending=True), f32(n, 2)))
    for size in (3, 7, 40):
        x = np.random.default_rng(size).permutation(2 * size).astype(np.float32).reshape(size, 2)
        made, order = step.run([x])
        np.testing.assert_array_equal(made, -np.sort(-x, 0))
        np.testing.assert_array_equal(np.take_along_axis(x, order, 0), made)


SCANS = {
    "cumsum": lambda v, dim: v.cumsum(dim),
    "cumprod": lambda v, dim: v.cumprod(dim),
    "cummax": lambda v, dim: v.cummax(dim),
    "cummin": lambda v, dim: v.cummin(dim),
    "logcumsumexp": lambda v, dim: v.logcumsumexp(dim),
}


@pytest.mark.parametrize("name", SCANS)
@pytest.mark.parametrize("kind", ["int64", "int16", "bool_", "float16", "bfloat16", "float32", "float64"])
def test_scans(name: str, kind: str) -> None:
    floating = getattr(dtypes, kind).is_floating_point
    if (name == "logcumsumexp" and not floating) or (name.startswith("cumm") and kind == "bool_"):
        return
    tolerance = {"float16": 1e-2, "bfloat16": 1e-1, "float32": 1e-5, "float64": 1e-12}.get(kind, 0.0)
    random = np.random.default_rng(1)
    for shape, dim in (((3, 29), 1), ((13, 4), 0), ((2, 5, 3), 1), ((1,), 0)):
        if name in ("cumsum", "cumprod"):
            x = (random.integers(0, 3, shape) * (0.75 if floating else 1)).astype(getattr(dtypes, kind).numpy)
        else:
            x = values(shape, kind)
        for limits in (None, SMALL):
            check(lambda v, dim=dim: SCANS[name](v, dim), [x], limits, tolerance)


@pytest.mark.parametrize("name", SCANS)
def test_long_rows_are_scanned_in_pieces(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitting, "LONG", 16)
    random = np.random.default_rng(2)
    for rows in (1, 3):
        x = random.uniform(0.7, 1.3, (rows, 530)).astype(np.float32)
        if name.startswith("cumm"):
            x[:, 100:] = values((rows, 430), "float32")
        assert check(lambda v: SCANS[name](v, 1), [x], SMALL, 1e-4) == 3


def test_symbolic_scans() -> None:
    n = symbol("n", hint=8)
    step = InterpretedBackend(SMALL).compile(trace(lambda v: (*v.cummax(1), v.cumsum(0)), f32(3, n)))
    for size in (3, 40):
        x = np.random.default_rng(size).normal(size=(3, size)).astype(np.float32)
        made, _, total = step.run([x])
        np.testing.assert_array_equal(made, np.maximum.accumulate(x, 1))
        close(total, x.cumsum(0), 1e-5, 1e-5)
