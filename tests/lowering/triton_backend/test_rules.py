"""Records that run as calls elsewhere: by rules and templates, in Triton's interpreter against NumPy; and the exact
list of those that have neither."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from programs import close, trace

import graphtorch
import graphtorch.nn.functional
from graphtorch.ops.embeddings import embedding_dense_backward
from graphtorch.ops.record import REGISTRY
from graphtorch.ops.scattering import scatter_record
from graphtorch.ops.testing import Sampler
from graphtorch.schedule import build_schedule
from graphtorch.tensor import dtypes
from graphtorch.tensor.type import TensorType

pytest.importorskip("triton")

from test_interpreted import SMALL, TOLERANCE, compare, graph_of_call

from graphtorch.lowering.triton.backend import InterpretedBackend, TritonExecutable
from graphtorch.lowering.triton.elementwise import ELEMENTWISE, FUNCTIONS_OF_DOUBLES
from graphtorch.lowering.triton.launch import make_plan
from graphtorch.lowering.triton.passes import prepare_schedule
from graphtorch.lowering.triton.rules import RULES

KINDS = {"b": ("bool_",), "i": ("int64", "uint8"), "f": ("float32", "float64", "bfloat16", "float16")}
CALLS = sorted(
    n
    for n, op in REGISTRY.items()
    if op.samples is not None
    and not op.random
    and op.decompose is None
    and op.kind == "opaque"
    and (n in RULES or n in ELEMENTWISE or n == "frexp")
)


# What has no kernel. On the host these run through NumPy; a GPU refuses them by name (docs/triton-backend.md).
LINEAR_ALGEBRA = {
    "geqrf", "linalg_adjugate", "linalg_cholesky_info", "linalg_cholesky_factor", "linalg_det",
    "linalg_eigh", "linalg_inv", "linalg_ldl_factors", "linalg_ldl_solve", "linalg_lstsq_solution", "linalg_lu_parts",
    "linalg_pinv_matrix", "linalg_qr", "linalg_slogdet", "linalg_solve_from_factor", "linalg_solve_matrix",
    "linalg_solve_triangular_matrix",
    "linalg_svd_factors", "matrix_exp", "row_order",
}  # fmt: skip
COMPLEX = {"complex", "fft_c2c", "fft_c2r", "fft_r2c", "linalg_eig"}
REJECTION_SAMPLERS = {
    "_sample_dirichlet", "_standard_gamma", "binomial", "dirichlet_slope", "poisson", "standard_gamma_slope",
}  # fmt: skip
HISTOGRAMS = {"bin_counts", "bin_edges"}  # `histogram` and `histogramdd`, which PyTorch has on the CPU only
REFUSED = LINEAR_ALGEBRA | COMPLEX | REJECTION_SAMPLERS | HISTOGRAMS | {"special_airy_ai"}


def test_exactly_these_records_are_refused() -> None:
    """Every other record becomes launches, in float32 or else in the first dtype that its samples have."""
    refused = set()
    for name, op in REGISTRY.items():
        if op.samples is None or op.kernels or name in COMPLEX:
            continue
        kinds = [k for c in ("f", "i", "b") if c in op.categories for k in KINDS[c][:1]]
        for kind in kinds or ["float32"]:
            for sample in list(op.samples(Sampler(getattr(dtypes, kind))))[:2]:
                try:
                    graph, _ = graph_of_call(op.function, sample.args, sample.kwargs)
                except RuntimeError:
                    continue  # the operator takes complex numbers only
                if any(v.type.dtype.is_complex for n in graph.nodes for v in (*n.operands(), *n.results)):
                    continue
                plan = make_plan(prepare_schedule(build_schedule(graph)), {})
                if plan.unsupported:
                    refused.add(name)
    assert refused == (REFUSED - COMPLEX) & set(REGISTRY)


def test_special_functions_meet_special_values() -> None:
    """Poles, infinities, NaN, small and large numbers."""
    x = np.array(
        [0.0, -0.0, 1e-300, 1e-9, 0.3, 1.0, 2.5, 7.0, 19.9, 20.5, 90.0, 800.0, np.inf, np.nan, -0.4, -2.0, -30.5]
    )
    other = np.array([0.5, 1.0, 2.0, 0.1, 1.5, 3.0, 4.0, 8.0, 10.0, 25.0, 100.0, 790.0, 2.0, 1.0, 1.5, 2.0, 3.0])
    native = {"lgamma", "erfinv"}  # the library's own
    for name in sorted(FUNCTIONS_OF_DOUBLES.keys() - native):
        op = REGISTRY[name]
        operands = [x] if len(op.parameters) == 1 else [other, x] if name in ("igamma", "igammac") else [x, other]
        if name == "special_zeta":
            operands = [other, x]
        if "polynomial" in name:
            operands = [x[:12], np.floor(other[:12]) % 6]
        assert op.function is not None
        if name == "polygamma":
            for n in (0, 1, 2, 5):
                (made,) = run(lambda v, n=n: REGISTRY["polygamma"].function(v, n), x[x == x])
                wanted = op.numpy(x[x == x], n)
                np.testing.assert_allclose(made, wanted, rtol=1e-11, atol=1e-13, err_msg=f"{name} {n}")
            continue
        (made,) = run(lambda *v, op=op: op.function(*v), *operands)
        with np.errstate(all="ignore"):
            wanted = op.numpy(*operands)
        np.testing.assert_allclose(made, wanted, rtol=1e-9, atol=1e-12, err_msg=name)


def test_neighbours_of_numbers() -> None:
    for kind in ("float32", "float64", "float16", "bfloat16"):
        of = getattr(dtypes, kind).numpy
        x = np.array([0.0, -0.0, 1.0, -1.0, 1.0, np.inf, np.nan, 3.0, 2.0], np.float64).astype(of)
        y = np.array([1.0, -1.0, 2.0, 2.0, -5.0, 0.0, 1.0, 3.0, np.nan], np.float64).astype(of)
        (made,) = run(lambda a, b: graphtorch.nextafter(a, b), x, y)
        with np.errstate(all="ignore"):
            wanted = np.nextafter(x, y)
        np.testing.assert_array_equal(made.astype(np.float64), wanted.astype(np.float64), err_msg=kind)


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_pooling_over_large_windows(kind: str) -> None:
    of = getattr(dtypes, kind)
    x = np.random.default_rng(0).integers(-8, 8, (2, 3, 20, 21)).astype(of.numpy)
    g = np.random.default_rng(1).integers(-8, 8, (2, 3, 3, 3)).astype(of.numpy)

    def program(x: Any, g: Any) -> Any:
        average = graphtorch.nn.functional.avg_pool2d(x, 9, 6, 2)
        spread = REGISTRY["avg_pool2d_backward"].function(g, tuple(x.shape), (9, 9), (6, 6), (2, 2), False, True, None)
        return average, spread, graphtorch.nn.functional.max_pool2d(x, 9, 6, 2)

    graph = trace(program, TensorType(of, x.shape), TensorType(of, g.shape))
    executable = compare(graph, [x, g], 2e-2 if kind == "bfloat16" else 1e-5)
    assert not unsupported(executable)


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
