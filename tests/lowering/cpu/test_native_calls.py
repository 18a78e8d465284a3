"""Every operator with native code, on its record's own samples and a few larger ones, against its NumPy function: no
step may fall back, and moved elements keep their bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphtorch.ir.builder import GraphBuilder, wrap
from graphtorch.ir.graph import Graph
from graphtorch.lowering.cpu import CpuExecutable
from graphtorch.ops.record import MISSING, REGISTRY
from graphtorch.ops.testing import Sampler
from graphtorch.schedule import build_schedule
from graphtorch.tensor import dtypes
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import type_of

REAL = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "uint8", "bool_")
FLOATS = ("float32", "float64")

# operator -> the dtypes in which it has native code
NATIVE: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        (
            "cat", "constant_pad_nd", "slice_backward", "select_backward", "diagonal_backward", "slice_scatter",
            "select_scatter", "diagonal_scatter",
        ),
        REAL,
    ),
}  # fmt: skip


def run_call(name: str, args: tuple[Any, ...]) -> tuple[list[Any], list[Any], CpuExecutable]:
    """Native results, NumPy's, and the executable of one call."""
    op = REGISTRY[name]
    args += tuple(p.default for p in op.parameters[len(args) :] if p.default is not MISSING)
    args = op.normalize(*args) if op.normalize is not None else args
    graph, arrays = Graph(), []
    builder = GraphBuilder(graph)

    def given(arg: Any) -> Any:
        if isinstance(arg, Tensor):
            arrays.append(arg._data)
            return wrap(graph.add_input(type_of(arg), f"x{len(arrays)}"))
        return tuple(given(a) for a in arg) if type(arg) is tuple else arg

    def plain(arg: Any) -> Any:
        if isinstance(arg, Tensor):
            return arg._data
        return tuple(plain(a) for a in arg) if type(arg) is tuple else arg

    with builder:
        results = op.function(*(given(a) for a in args))
        for result in results if isinstance(results, tuple) else (results,):
            graph.add_output(builder.value_of(result))
    executable = CpuExecutable(build_schedule(graph))
    with np.errstate(all="ignore"):
        expected = op.numpy(*(plain(a) for a in args))
        actual = [executable.run(arrays) for _ in range(2)][-1]
    return list(actual), list(expected) if isinstance(expected, tuple) else [expected], executable


def assert_same(actual: list[Any], expected: list[Any], tolerance: float) -> None:
    for a, e in zip(actual, expected, strict=True):
        assert a.dtype == e.dtype
        assert a.shape == e.shape
        if tolerance and e.dtype.kind in "fV":
            np.testing.assert_allclose(a.astype(np.float64), e.astype(np.float64), rtol=tolerance, atol=tolerance)
        else:
            np.testing.assert_array_equal(a, e)


@pytest.mark.parametrize("name", sorted(NATIVE))
def test_samples_of_the_record(name: str) -> None:
    op = REGISTRY[name]
    for d in NATIVE[name]:
        of = getattr(dtypes, d)
        if "bifc"[of.category] not in op.categories:
            continue
        for example in op.samples(Sampler(of)):
            actual, expected, executable = run_call(name, example.args)
            assert not executable.fallbacks, (d, example.args)
            assert_same(actual, expected, 0)


def test_parts_fill_their_places() -> None:
    make = Sampler(dtypes.float32)
    x = make(7, 33, 20)
    for args in (
        ((make(7, 5, 20), make(7, 1, 20), x), 1),
        ((x, x, x), 2),
        ((x, make(0), make(7, 33, 1)), 2),
    ):
        actual, expected, executable = run_call("cat", args)
        assert not executable.fallbacks
        assert_same(actual, expected, 0)
    for pad in ((1, 2), (-3, 4, 0, 1), (-10, -10, 5, 5), (0, 0, 0, 0, 2, -1), (-20, 3), (-19, 19)):
        actual, expected, _ = run_call("constant_pad_nd", (x, pad, 1.5))
        assert_same(actual, expected, 0)
    for step in (1, 2, 7):
        shown = x[:, 3:30:step]
        actual, expected, _ = run_call("slice_backward", (make(*shown.shape), (7, 33, 20), 1, 3, 30, step))
        assert_same(actual, expected, 0)
