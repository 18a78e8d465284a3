"""Every operator with native code, on its record's own samples and a few larger ones, against its NumPy function: no
step may fall back, and moved elements keep their bits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch.ir.builder import GraphBuilder, wrap
from graphtorch.ir.graph import Graph
from graphtorch.lowering.cpu import CpuExecutable
from graphtorch.lowering.cpu.compiler import host
from graphtorch.ops.dispatch import call
from graphtorch.ops.record import REGISTRY
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
            "cat",
            "constant_pad_nd",
            "slice_backward",
            "select_backward",
            "diagonal_backward",
            "slice_scatter",
            "select_scatter",
            "diagonal_scatter",
        ),
        REAL,
    ),
    **dict.fromkeys(("index_select", "gather", "scatter", "index_copy", "index_fill", "index"), REAL),
    **dict.fromkeys(("scatter_add", "index_put"), (*FLOATS, "float16", "bfloat16", "int64", "int32")),
    "scatter_reduce": (*FLOATS, "float16", "bfloat16", "int64", "int32"),
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin"), REAL),
    **dict.fromkeys(("sort", "topk"), REAL),
    **dict.fromkeys(("kthvalue", "median", "median_dim", "nanmedian", "nanmedian_dim"), (*FLOATS, "int64")),
    "searchsorted": ("float64",),
    "unfold_backward": FLOATS,
    **dict.fromkeys(("masked_scatter", "masked_scatter_backward", "nonzero_static"), REAL),
    "logcumsumexp": ("float32", "float64", "float16", "bfloat16"),
}
# Where eager adds in another order, or has another logarithm.
ROUNDED = {"index_put": 1e-6, "logcumsumexp": 1e-6, "scatter_reduce": 1e-6, "scatter_add": 1e-6}
HALF = (dtypes.float16, dtypes.bfloat16)  # fmt: skip


def arrays_of(arg: Any) -> Any:
    """Tensors, in tuples too, as arrays."""
    if isinstance(arg, Tensor):
        return arg._data
    return tuple(arrays_of(a) for a in arg) if type(arg) is tuple else arg


def run_call(
    name: str, args: tuple[Any, ...], named: dict[str, Any] | None = None, expected: bool = True
) -> tuple[list[Any], list[Any], CpuExecutable]:
    """Native results, NumPy's, and the executable of one call."""
    op = REGISTRY[name]
    named = named or {}
    args += tuple(named.get(p.name, p.default) for p in op.parameters[len(args) :])
    args = op.normalize(*args) if op.normalize is not None else args
    graph, arrays = Graph(), []
    builder = GraphBuilder(graph)

    def given(arg: Any) -> Any:
        if isinstance(arg, Tensor):
            arrays.append(arg._data)
            return wrap(graph.add_input(type_of(arg), f"x{len(arrays)}"))
        return tuple(given(a) for a in arg) if type(arg) is tuple else arg

    with builder:
        results = call(op, tuple(given(a) for a in args))
        for result in results if isinstance(results, tuple) else (results,):
            graph.add_output(builder.value_of(result))
    executable = CpuExecutable(build_schedule(graph))
    with np.errstate(all="ignore"):
        wanted = op.numpy(*arrays_of(args)) if expected else ()
        actual = [executable.run(arrays) for _ in range(2)][-1]
    return list(actual), list(wanted) if isinstance(wanted, tuple) else [wanted], executable


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
            if name == "searchsorted" and example.args[0].dtype is not example.args[1].dtype:
                continue
            actual, expected, executable = run_call(name, example.args, example.kwargs)
            assert not executable.fallbacks, (d, example.args)
            tolerance = ROUNDED.get(name, 0)
            assert_same(actual, expected, 0.01 if tolerance and of in HALF else tolerance)


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


INDEXED: list[tuple[str, Any]] = [
    ("gather", lambda m: (m(40, 70), 1, m.ints(40, 130, high=70))),
    ("gather", lambda m: (m(40, 70), 0, m.ints(33, 69, high=40))),
    ("gather", lambda m: (m(5, 6, 7).permute(2, 0, 1), 1, m.ints(7, 9, 3, high=5))),
    ("index_select", lambda m: (m(300, 17), 0, m.ints(1000, high=300))),
    ("index_select", lambda m: (m(30, 170), 1, m.ints(401, high=170))),
    ("index_select", lambda m: (m(6, 30, 5).transpose(0, 2), 1, m.ints(77, high=30, of=dtypes.int32))),
    ("index", lambda m: (m(50, 40), (m.ints(99, low=-50, high=50), m.ints(99, low=-40, high=40)))),
    ("index", lambda m: (m(50, 40, 33), (None, m.ints(9, 5, high=40)))),
    ("index", lambda m: (m(9, 8, 7, 6), (m.ints(5, 1, high=9), None, m.ints(1, 4, high=7)))),
    ("scatter", lambda m: (m(60, 70), 1, m.ints(60, 90, high=70), m(60, 90))),
    ("scatter", lambda m: (m(60, 70), 0, m.ints(10, 70, high=60), 3)),
    ("scatter_add", lambda m: (m(60, 70), 0, m.ints(100, 70, high=60), m(100, 70))),
    ("scatter_add", lambda m: (m(60, 70), 1, m.ints(60, 300, high=70), m(60, 300))),
    ("scatter_add", lambda m: (m(500), 0, m.ints(3000, high=500), m(3000))),
    ("scatter_reduce", lambda m: (m(60, 70), 0, m.ints(100, 70, high=60), m(100, 70), "amax", True)),
    ("scatter_reduce", lambda m: (m(60, 70), 1, m.ints(60, 100, high=70), m(60, 100), "amin", False)),
    ("scatter_reduce", lambda m: (m(60, 7), 1, m.ints(60, 10, high=7), m(60, 10), "prod", False)),
    ("scatter_reduce", lambda m: (m(60, 70), 1, m.ints(60, 100, high=70), m(60, 100), "sum", True)),
    ("scatter_reduce", lambda m: (m(60, 70), 0, m.ints(100, 70, high=60), m(100, 70), "mean", True)),
    ("scatter_reduce", lambda m: (m(60, 70), 1, m.ints(60, 100, high=70), m(60, 100), "mean", False)),
    ("index_add", lambda m: (m(60, 70), 0, m.ints(200, high=60), m(200, 70))),
    ("index_add", lambda m: (m(60, 70), 1, m.ints(200, high=70), m(60, 200))),
    ("index_add", lambda m: (m(4, 60, 7), 1, m.ints(200, high=60), m(7, 200, 4).permute(2, 1, 0))),
    ("index_add", lambda m: (m(60), 0, m.ints(200, high=60), m(200))),
    ("index_copy", lambda m: (m(60, 70), 0, m.ints(20, low=-60, high=60), m(20, 70))),
    ("index_fill", lambda m: (m(60, 70), 1, m.ints(20, low=-70, high=70), 2)),
    ("index_put", lambda m: (m(60, 70), (m.ints(30, high=60),), m(30, 70), True)),
    ("index_put", lambda m: (m(60, 70), (m.ints(300, low=-60, high=60), m.ints(300, high=70)), m(300), True)),
    ("index_put", lambda m: (m(60, 70), (None, m.ints(30, high=70)), m(30), False)),
]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bfloat16", "bool_"])
@pytest.mark.parametrize("case", range(len(INDEXED)), ids=lambda i: f"{INDEXED[i][0]}{i}")
def test_larger_indexed_operands(case: int, dtype: str) -> None:
    name, args = INDEXED[case]
    of = getattr(dtypes, dtype)
    if of is dtypes.bool_ and name in ("scatter_add", "index_add", "scatter_reduce", "index_put"):
        pytest.skip("PyTorch adds up no bools")
    make = Sampler(of)
    given = args(make)
    actual, expected, executable = run_call(name, given)
    assert not executable.fallbacks
    assert_same(actual, expected, {dtypes.float32: 1e-4, dtypes.bfloat16: 0.05}.get(of, 1e-11))


@pytest.mark.parametrize(
    ("name", "args", "error"),
    [
        ("gather", lambda m, bad: (m(5, 6), 1, bad(5, 40)), RuntimeError),
        ("gather", lambda m, bad: (m(5, 6), 0, bad(40, 6)), RuntimeError),
        ("scatter", lambda m, bad: (m(5, 6), 0, bad(40, 6), m(40, 6)), RuntimeError),
        ("scatter_add", lambda m, bad: (m(6), 0, bad(40), m(40)), RuntimeError),
        ("index_select", lambda m, bad: (m(5, 6), 1, bad(40)), IndexError),
        ("index_select", lambda m, bad: (m(5, 600), 0, bad(40)), IndexError),
        ("index_add", lambda m, bad: (m(5, 6), 0, bad(40), m(40, 6)), RuntimeError),
        ("index_add", lambda m, bad: (m(5), 0, bad(40), m(40)), IndexError),
        ("index_copy", lambda m, bad: (m(5, 6), 0, bad(40), m(40, 6)), IndexError),
        ("index_fill", lambda m, bad: (m(5, 6), 0, bad(40), 1), IndexError),
        ("index", lambda m, bad: (m(5, 6), (bad(40),)), IndexError),
        ("index", lambda m, bad: (m(9, 6), (m.ints(40, high=9), bad(40))), IndexError),
        ("index_put", lambda m, bad: (m(5, 6), (bad(40),), m(40, 6), True), IndexError),
        ("gather", lambda m, bad: (m(0, 6), 0, bad(40, 6)), RuntimeError),
    ],
)
@pytest.mark.parametrize("value", [6, -7, 1 << 40, -(1 << 62)])
def test_an_index_out_of_range_raises_as_eager(name: str, args: Any, error: Any, value: int) -> None:
    make = Sampler(dtypes.float32)

    def bad(*shape: int) -> Tensor:
        at = make.ints(*shape, high=1)
        at._data.reshape(-1)[17] = value
        return at

    given = args(make, bad)
    with pytest.raises(error) as eager:
        REGISTRY[name].numpy(*arrays_of((*given, *(p.default for p in REGISTRY[name].parameters[len(given) :]))))
    with pytest.raises(error) as native:
        run_call(name, given, expected=False)
    assert str(native.value) == str(eager.value)


def special(shape: tuple[int, ...], dtype: Any = np.float32) -> Tensor:
    """Few different values, many ties, and some NaN, infinities and zeros of both signs."""
    rng = np.random.default_rng(1)
    x = rng.integers(-4, 5, shape).astype(dtype)
    chosen = rng.random(shape)
    for k, value in enumerate((np.nan, np.inf, -np.inf, -0.0)):
        x[(chosen > k * 0.01) & (chosen < (k + 1) * 0.01)] = value
    return Tensor._wrap(x)


@pytest.mark.parametrize("name", ["cumsum", "cumprod", "cummax", "cummin", "logcumsumexp"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scans_of_special_values(name: str, dtype: Any) -> None:
    for shape, dim in (((300, 70), 0), ((30, 700), 1), ((5, 60, 33), 1), ((2000,), 0), ((4, 1, 9), 1)):
        x = special(shape, dtype)
        for given in (x, x.transpose(0, -1)):
            actual, expected, executable = run_call(name, (given, dim))
            assert not executable.fallbacks
            assert_same(actual, expected, 1e-5 if name == "logcumsumexp" else 0)


def test_scans_into_other_dtypes() -> None:
    make = Sampler(dtypes.int32)
    for d in (dtypes.float32, dtypes.float64, dtypes.int8, dtypes.float16):
        actual, expected, executable = run_call("cumsum", (make(30, 50), 1), {"dtype": d})
        assert not executable.fallbacks
        assert_same(actual, expected, 0)
        actual, expected, _ = run_call("cumsum", (make(30, 50).transpose(0, 1)[::2], 0), {"dtype": d})
        assert_same(actual, expected, 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int32, np.uint8, np.int8, np.float16])
@pytest.mark.parametrize("name", ["sort", "kthvalue", "topk", "median_dim", "nanmedian_dim"])
def test_order_of_special_values(name: str, dtype: Any) -> None:
    vectors = [((n,), 0) for n in (1, 48, 49, 70000)]
    for shape, dim in (((300, 7), 0), ((20, 501), 1), ((5, 60, 3), 1), *vectors):
        if np.dtype(dtype).kind == "f":
            x = special(shape, dtype)
        else:
            info = np.iinfo(dtype)
            x = Tensor._wrap(np.random.default_rng(2).integers(info.min, info.max, shape, dtype, True))
        n = shape[dim]
        for given in (x, x.transpose(0, -1)):
            at = len(shape) - 1 - dim if given is not x and dim in (0, len(shape) - 1) else dim
            for rest in {"sort": [(False,), (True,)], "topk": [(n, True), (n, False)], "kthvalue": [(1,), (n,)]}.get(
                name, [()]
            ):
                args = (given, rest[0], at, *rest[1:]) if name in ("topk", "kthvalue") else (given, at, *rest)
                actual, expected, executable = run_call(name, args)
                assert not executable.fallbacks
                assert_same(actual, expected, 0)


def test_the_largest_few() -> None:
    make = Sampler(dtypes.float32)
    for k in (1, 3, 50):
        for largest in (True, False):
            actual, expected, executable = run_call("topk", (make.distinct(30, 400), k, 1, largest))
            assert not executable.fallbacks
            assert_same(actual, expected, 0)


def test_the_largest_few_of_special_rows() -> None:
    """Equal elements in order of their positions, as a stable sort has them."""
    rng = np.random.default_rng(4)
    rows = rng.standard_normal((6, 900)).astype(np.float32)
    rows[0, 3], rows[1], rows[2, 500:], rows[3] = np.nan, 1.0, np.inf, np.nan
    rows[4], rows[5] = rng.integers(0, 5, 900), np.arange(900)  # the last: every element is the best so far
    for k in (1, 7, 60):
        for largest in (True, False):
            (values, places), _, executable = run_call("topk", (Tensor._wrap(rows), k, 1, largest))
            assert not executable.fallbacks
            keys = -rows if largest else rows
            order = np.lexsort((np.broadcast_to(np.arange(900), rows.shape), keys, np.isnan(rows) != largest), axis=1)
            np.testing.assert_array_equal(places, order[:, :k])
            np.testing.assert_array_equal(values, np.take_along_axis(rows, order[:, :k], 1))


@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_bisection(right: bool, dtype: Any) -> None:
    rng = np.random.default_rng(3)
    for n in (0, 1, 2, 7, 64, 1000):
        edges = np.sort(rng.integers(-50, 50, n).astype(dtype))
        values = rng.integers(-60, 60, (33, 5)).astype(dtype)
        if dtype is np.float32:
            values[0] = [np.nan, np.inf, -np.inf, -0.0, 0.0]
        for a, v in ((edges, values), (np.sort(rng.integers(-9, 9, (33, n)).astype(dtype)), values)):
            for narrow in (False, True):
                args = (Tensor._wrap(a), Tensor._wrap(v), narrow, right)
                actual, expected, executable = run_call("searchsorted", args)
                assert not executable.fallbacks
                assert_same(actual, expected, 0)


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_windows_added_up(step: int) -> None:
    make = Sampler(dtypes.float64)
    for shape, dim in (((30, 41), 0), ((30, 41), 1), ((5, 30, 7), 1)):
        windows = (shape[dim] - 3) // step + 1
        g = make(*shape[:dim], windows, *shape[dim + 1 :], 3)
        actual, expected, executable = run_call("unfold_backward", (g, shape, dim, 3, step))
        assert not executable.fallbacks
        assert_same(actual, expected, 1e-12)


def test_elements_taken_in_order() -> None:
    make = Sampler(dtypes.float32)
    x, mask = make(60, 70), make.bools(60, 70)
    for args in (
        ("masked_scatter", (x, mask, make(4200))),
        ("masked_scatter", (x, make.bools(70), make(60, 70))),
        ("masked_scatter", (make(70), mask, make(4200))),
        ("masked_scatter_backward", (x, mask, (4200,))),
        ("nonzero_static", (make.ints(9, 8, 7, high=2), 100, -1)),
        ("nonzero_static", (make.ints(9, 8, 7, high=2), 600, 5)),
        ("nonzero_static", (make.bools(500), 10, -1)),
    ):
        actual, expected, executable = run_call(*args)
        assert not executable.fallbacks, args[0]
        assert_same(actual, expected, 0)
    with pytest.raises(RuntimeError, match="Number of elements of source < number of ones in mask"):
        run_call("masked_scatter", (x, mask, make(100)), expected=False)


def test_explanation_names_what_runs_on_numpy():
    def f(x):
        return torch.linalg.svdvals(x @ x.t())

    compiled = torch.compile(f, backend="cpu")
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((5, 5)).astype(np.float32))
    np.testing.assert_allclose(compiled(x).numpy(), f(x).numpy(), rtol=1e-4)
    (info,) = compiled.explain().specializations
    (line,) = info.fallbacks
    assert "linalg_svd" in line
    assert "NumPy" in line
    assert line in str(info)


@pytest.mark.parametrize("bits", [128, 256])
def test_narrower_registers(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = replace(host(), register_bits=bits)
    monkeypatch.setattr("graphtorch.lowering.cpu.translation.host", lambda: narrow)
    make = Sampler(dtypes.float32)
    for name, args in INDEXED[::4]:
        actual, expected, executable = run_call(name, args(make))
        assert not executable.fallbacks
        assert_same(actual, expected, 1e-4)
    for name in ("cat", "cumsum", "cummax", "sort", "masked_scatter"):
        for example in REGISTRY[name].samples(make):
            actual, expected, _ = run_call(name, example.args, example.kwargs)
            assert_same(actual, expected, 0)
