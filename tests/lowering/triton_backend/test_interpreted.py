"""Generated Triton kernels in Triton's interpreter against the reference interpreter: every operator record, random
programs, every block form, symbolic sizes, in-place updates."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import NUMBER, arrays, close, f32, i64, mlp_step, random_program, trace

import graphtorch
from graphtorch.ir.builder import GraphBuilder, wrap
from graphtorch.ir.graph import Graph
from graphtorch.lowering.backend import get_backend
from graphtorch.lowering.kernel import Kernel
from graphtorch.lowering.numpy.interpreter import interpret
from graphtorch.ops.embeddings import embedding_dense_backward
from graphtorch.ops.record import REGISTRY
from graphtorch.ops.testing import Sampler
from graphtorch.schedule import build_schedule
from graphtorch.tensor import Tensor, dtypes
from graphtorch.tensor.symint import symbol
from graphtorch.tensor.type import type_of

pytest.importorskip("triton")

from graphtorch.lowering.triton import splitting
from graphtorch.lowering.triton.backend import InterpretedBackend, TritonExecutable
from graphtorch.lowering.triton.codegen import generate
from graphtorch.lowering.triton.convolution import CONVOLUTIONS
from graphtorch.lowering.triton.indexing import TEMPLATES
from graphtorch.lowering.triton.pooling import POOLING
from graphtorch.lowering.triton.tiling import Limits

CATEGORIES = {"float32": "f", "int64": "i", "bfloat16": "f", "bool_": "b"}
CATEGORY_DTYPES = {"b": "bool_", "i": "int64", "f": "float32"}
TOLERANCE = {"float16": 4e-3, "bfloat16": 3e-2, "float32": 3e-5}
# Records that run as kernels: calls without a template would test NumPy against itself.
KERNELS = sorted(
    n
    for n, op in REGISTRY.items()
    if op.samples is not None and not op.random and (op.kind in ("pointwise", "reduction") or op.decompose is not None)
)
SMALL = Limits(pointwise=16, persistent=4, rows=8, looped=8)  # every kernel of a few elements takes the looped forms


def graph_of_call(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Graph, list[Any]]:
    """A graph of one call whose tensors are inputs, and their arrays."""
    graph = Graph()
    given: list[Any] = []

    def lifted(arg: Any) -> Any:
        if isinstance(arg, Tensor):
            given.append(arg._data)
            return wrap(graph.add_input(type_of(arg), f"x{len(given)}"))
        if isinstance(arg, list | tuple):
            return type(arg)(lifted(a) for a in arg)
        return arg

    builder = GraphBuilder(graph)
    with builder:
        results = function(*(lifted(a) for a in args), **{k: lifted(v) for k, v in kwargs.items()})
        for result in results if isinstance(results, tuple | list) else (results,):
            graph.add_output(builder.value_of(result))
    return graph, given


def kernels_on_host(executable: TritonExecutable) -> list[str]:
    """Why kernels run without Triton code."""
    (program,) = executable._programs.values()
    return [s.reason for s in program.launches.unsupported if isinstance(s.call, Kernel)]


def compare(graph: Graph, inputs: list[Any], tolerance: float = 3e-5, limits: Limits | None = None) -> TritonExecutable:
    expected = interpret(graph, [np.array(x) if isinstance(x, np.ndarray) else x for x in inputs])
    executable = InterpretedBackend(limits).compile(graph)
    for actual, wanted in zip(executable.run(inputs), expected, strict=True):
        close(actual, wanted, tolerance, tolerance)
    return executable


@pytest.mark.parametrize("name", KERNELS)
def test_every_record(name: str) -> None:
    op = REGISTRY[name]
    assert op.samples is not None
    kinds = [CATEGORY_DTYPES[c] for c in op.categories if c in CATEGORY_DTYPES]
    halves = ("float16", "bfloat16") if "f" in op.categories and op.kind != "opaque" else ()
    for kind in (*kinds, *halves):
        try:
            samples = list(op.samples(Sampler(getattr(dtypes, kind))))
        except NotImplementedError:
            continue  # the operator refuses the dtype
        for sample in samples[:3]:
            graph, inputs = graph_of_call(op.function, sample.args, sample.kwargs)
            if any(v.dtype.is_complex for n in graph.nodes for v in n.results):
                continue
            executable = compare(graph, inputs, TOLERANCE.get(kind, 3e-5))
            assert not kernels_on_host(executable)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(4, 20), st.sampled_from([None, SMALL]))
def test_random_programs(seed: int, length: int, limits: Limits | None) -> None:
    draw = random.Random(seed)
    graph = random_program(draw.randrange, length)
    executable = compare(graph, arrays(graph, seed % 1000), 1e-4, limits)
    assert not kernels_on_host(executable)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([None, SMALL]))
def test_random_programs_in_many_launches(seed: int, limits: Limits | None) -> None:
    """Folds of a few elements are cut in two, as long ones are."""
    draw = random.Random(seed)
    graph = random_program(draw.randrange, 20)
    long, splitting.LONG = splitting.LONG, 16
    try:
        executable = compare(graph, arrays(graph, seed % 1000), 2e-4, limits)
    finally:
        splitting.LONG = long
    assert not kernels_on_host(executable)


@pytest.mark.parametrize("limits", [None, SMALL])
def test_training_step_updates_parameters_in_place(limits: Limits | None) -> None:
    graph, donations = mlp_step(8, 12, 6, 4)
    mine, reference = arrays(graph), arrays(graph)
    parameters = mine[2:6]
    step = InterpretedBackend(limits).compile(graph, donations)
    interpreted = get_backend("interpreter").compile(graph, donations)
    for _ in range(2):
        outputs, expected = step.run(mine), interpreted.run(reference)
        for actual, wanted in zip(outputs, expected, strict=True):
            close(actual, wanted, 1e-4, 1e-5)
        for output, parameter, other in zip(outputs[1:], parameters, reference[2:6], strict=True):
            assert output is parameter
            close(parameter, other, 1e-4, 1e-5)
    assert not kernels_on_host(step)


@pytest.mark.parametrize("limits", [None, SMALL])
def test_rows_in_one_kernel(limits: Limits | None) -> None:
    """Softmax, layer norm and a cross-entropy: several folds of a row, and what follows them."""

    def program(x: Any, w: Any, y: Any) -> Any:
        norm = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt() * w
        picked = graphtorch.log_softmax(x, -1) * graphtorch.one_hot(y, 50)
        return graphtorch.softmax(x, -1), norm, -picked.sum(-1)

    graph = trace(program, f32(6, 50), f32(50), i64(6))
    compare(graph, arrays(graph), 1e-4, limits)


def test_loss_over_rows_takes_two_launches() -> None:
    """A fold over what other folds made: the second launch reads what the first one stored."""

    def program(x: Any, y: Any) -> Any:
        picked = graphtorch.log_softmax(x, -1) * graphtorch.one_hot(y, 20)
        return -picked.sum() / x.shape[0]

    graph = trace(program, f32(33, 20), i64(33))
    executable = compare(graph, arrays(graph), 1e-4)
    assert not kernels_on_host(executable)
    assert len(executable.sources()) > len(build_schedule(graph).kernels)


@pytest.mark.parametrize(
    "program",
    [
        lambda x: x.sum(),
        lambda x: x - x.mean(),
        lambda x: (x.sum(0), x * 2),
        lambda x: (x.amax(), x.amin(), (x > 3).any(), (x > -3).all()),
        lambda x: x / (x / x.abs().sum(1, keepdim=True)).amax(),
    ],
)
def test_long_folds_take_two_launches(program: Any) -> None:
    graph = trace(program, f32(12, 1024))
    executable = compare(graph, arrays(graph), 1e-4)
    assert not kernels_on_host(executable)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_half_precision_accumulates_in_float32(kind: str) -> None:
    d = getattr(dtypes, kind)
    graph = trace(lambda x: x.sum(), f32(3000).with_dtype(d))
    (total,) = InterpretedBackend().compile(graph).run([np.ones(3000, d.numpy)])
    assert float(total) == float(np.asarray(3000).astype(d.numpy))
    graph = trace(lambda x: x.sum(), f32(300000).with_dtype(d))
    (total,) = InterpretedBackend().compile(graph).run([np.full(300000, 0.0625, d.numpy)])
    assert float(total) == float(np.asarray(18750.0).astype(d.numpy))


@pytest.mark.parametrize("limits", [None, SMALL])
def test_nan_and_ties(limits: Limits | None) -> None:
    """NaN wins maxima and positions; of equal elements the first is found."""
    x = np.array([[1, np.nan, 3, np.nan, 0], [2, 5, 5, 1, 5], [-np.inf] * 5, [0, -0.0, -3, -3, np.inf]], np.float32)
    graph = trace(lambda v: (v.argmax(1), v.argmin(1), v.amax(1), v.amin(1), v.argmax(0), v.argmin()), f32(4, 5))
    compare(graph, [x], 0.0, limits)


@pytest.mark.parametrize("kind", ["bool_", "uint8", "int8", "int16", "int32", "int64", "float64"])
def test_folds_of_every_dtype(kind: str) -> None:
    d = getattr(dtypes, kind)
    graph = trace(
        lambda x: (x.sum(1), x.prod(0), x.amax(1), x.amin(0), x.any(1), x.all(), x.sum()), f32(3, 7).with_dtype(d)
    )
    for limits in (None, SMALL):
        compare(graph, arrays(graph, 3), 1e-12, limits)


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32", "float64", "int64"])
@pytest.mark.parametrize("shapes", [((5, 7), (7, 3)), ((40, 33), (33, 70)), ((2, 5, 18), (2, 18, 20))])
def test_matrix_products(kind: str, shapes: tuple[tuple[int, ...], ...]) -> None:
    d = getattr(dtypes, kind)
    a, b = (f32(*s).with_dtype(d) for s in shapes)
    tolerance = {"float16": 2e-2, "bfloat16": 1e-1, "float32": 1e-4}.get(kind, 1e-12)
    executable = compare(trace(lambda x, y: x @ y, a, b), arrays(trace(lambda x, y: x @ y, a, b)), tolerance, SMALL)
    (program,) = executable._programs.values()
    assert not program.launches.unsupported
    turned = trace(lambda x, y: x.transpose(-1, -2) @ y.transpose(-1, -2), b, a)
    compare(turned, arrays(turned), tolerance)


def test_symbolic_sizes_run_at_any_size_with_one_source() -> None:
    batch, width = symbol("batch", hint=8), symbol("width", hint=5)

    def program(x: Any, y: Any, rate: Any) -> Any:
        soft = graphtorch.softmax(x, -1)
        return soft, (soft * rate).sum(0), x.reshape(-1).mean(), soft @ y, x.reshape(batch * width) * 2

    graph = trace(program, f32(batch, width), f32(width, 3), NUMBER)
    executable = InterpretedBackend(SMALL).compile(graph)
    sources = []
    for sizes in ({"batch": 8, "width": 5}, {"batch": 3, "width": 11}, {"batch": 30, "width": 20}):
        inputs = arrays(graph, 1, sizes)
        for actual, wanted in zip(executable.run(inputs), interpret(graph, inputs), strict=True):
            close(actual, wanted, 1e-4, 1e-4)
        sources.append(executable.sources())
    assert sources[0] == sources[1] == sources[2]
    assert any("size_batch" in text for text in sources[0].values())


def test_masks_and_ranges_are_index_arithmetic() -> None:
    def program(x: Any) -> Any:
        n = x.shape[0]
        rows, columns = graphtorch.arange(n).reshape(n, 1), graphtorch.arange(n)
        return graphtorch.where(columns <= rows, x, float("-inf")), graphtorch.arange(0, 1, 0.25)

    graph = trace(program, f32(6, 6))
    compare(graph, arrays(graph))


def test_transposes_in_tiles() -> None:
    graph = trace(lambda x, y: (x.t() + y).exp(), f32(50, 40), f32(40, 50))
    executable = compare(graph, arrays(graph), limits=Limits(pointwise=256))
    assert "Y_BLOCK" in "".join(executable.sources().values())


def test_numbers_are_read_at_run_time() -> None:
    graph = trace(lambda x, lr: (x - lr * x, lr * 2, lr), f32(3), NUMBER)
    executable = InterpretedBackend().compile(graph)
    for rate in (0.5, 0.25):
        inputs = [np.ones(3, np.float32), rate]
        for actual, wanted in zip(executable.run(inputs), interpret(graph, inputs), strict=True):
            close(actual, wanted)


def test_empty_arrays() -> None:
    graph = trace(lambda x, y: ((x * 2).sum(0), x.exp(), (x + y).reshape(0)), f32(0, 3), f32(3))
    compare(graph, arrays(graph))


def test_outputs_outlive_the_next_run_and_views_share_memory() -> None:
    def program(x: Any) -> Any:
        y = x * 2
        return x.t(), y, y.t()

    executable = InterpretedBackend().compile(trace(program, f32(2, 3)))
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    view, first, turned = executable.run([x])
    executable.run([x + 1])
    assert np.shares_memory(view, x)
    assert np.shares_memory(first, turned)
    np.testing.assert_array_equal(first, x * 2)


def test_wrong_inputs_raise() -> None:
    executable = InterpretedBackend().compile(trace(lambda x, y: x * 2 + y, f32(3), f32(3)))
    x = np.ones(3, np.float32)
    with pytest.raises(RuntimeError, match=r"input 1 .*float32\[4\]"):
        executable.run([x, np.ones(4, np.float32)])
    with pytest.raises(RuntimeError, match="expected 2 inputs, got 1"):
        executable.run([x])


def test_sixty_four_bit_indices_only_when_needed() -> None:
    """Offsets beyond 2**31 are computed in 64 bits; the text of a small kernel has none."""
    kernels = [build_schedule(trace(lambda x: x * 2 + 1, f32(n, 1024))).kernels[0] for n in (4, 2**22)]
    small, large = (generate(k, {}) for k in kernels)
    assert "int64" not in small.source and not small.wide
    assert ".to(tl.int64) * X_BLOCK" in large.source and large.wide


@pytest.mark.parametrize("name", sorted([*TEMPLATES, *POOLING, *CONVOLUTIONS]))
def test_every_template(name: str) -> None:
    op = REGISTRY[name]
    assert op.samples is not None
    ran = 0
    for kind in ("float32", "int64", "bfloat16", "bool_"):
        if CATEGORIES[kind] not in op.categories:
            continue
        for sample in op.samples(Sampler(getattr(dtypes, kind))):
            graph, inputs = graph_of_call(op.function, sample.args, sample.kwargs)
            for limits in (None, SMALL):
                executable = compare(graph, inputs, TOLERANCE.get(kind, 3e-5), limits)
                (program,) = executable._programs.values()
                ran += not program.launches.unsupported
    assert ran >= 4


def test_embedding_and_its_gradient() -> None:
    """Indices of rows in, their gradient back: additions to the same row meet."""

    def program(tokens: Any, weight: Any, g: Any) -> Any:
        return graphtorch.embedding(weight, tokens), embedding_dense_backward(g, tokens, 7, -1, False)

    graph = trace(program, i64(5, 6), f32(7, 9), f32(5, 6, 9))
    for limits in (None, SMALL):
        executable = compare(graph, arrays(graph), 1e-4, limits)
        (program_,) = executable._programs.values()
        assert not program_.launches.unsupported
