"""The native executable against the interpreter: every operator record, random programs and training steps, symbolic
sizes, memory, threads."""

from __future__ import annotations

import random
import threading
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
from graphtorch.lowering.cpu import CpuExecutable
from graphtorch.lowering.numpy.interpreter import interpret
from graphtorch.ops.record import REGISTRY
from graphtorch.ops.testing import Sampler
from graphtorch.schedule import build_schedule
from graphtorch.tensor import Tensor, dtypes
from graphtorch.tensor.symint import symbol
from graphtorch.tensor.type import TensorType, type_of

CATEGORY_DTYPES = {"b": "bool_", "i": "int64", "f": "float32"}
TOLERANCE = {"float16": 6e-3, "bfloat16": 5e-2, "float32": 3e-5, "float64": 1e-11}
SAMPLED = sorted(n for n, op in REGISTRY.items() if op.samples is not None and not op.random)


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


def compare(graph: Graph, inputs: list[Any], tolerance: float = 3e-5) -> CpuExecutable:
    """Run natively, twice, and by the interpreter."""
    expected = interpret(graph, inputs)
    executable = CpuExecutable(build_schedule(graph))
    for _ in range(2):
        for actual, wanted in zip(executable.run(inputs), expected, strict=True):
            close(actual, wanted, tolerance, tolerance)
    return executable


@pytest.mark.parametrize("name", SAMPLED)
def test_every_record_runs_natively(name: str) -> None:
    op = REGISTRY[name]
    assert op.samples is not None
    kinds = [CATEGORY_DTYPES[c] for c in op.categories if c in CATEGORY_DTYPES]
    for kind in [*kinds, *(("float16", "bfloat16", "float64") if "f" in op.categories else ())]:
        try:
            samples = list(op.samples(Sampler(getattr(dtypes, kind))))
        except NotImplementedError:
            continue  # the operator refuses the dtype
        for sample in samples:
            graph, inputs = graph_of_call(op.function, sample.args, sample.kwargs)
            compare(graph, inputs, TOLERANCE.get(kind, 3e-5))


@settings(max_examples=120, deadline=None)
@given(seed=st.integers(0, 10**9), length=st.integers(2, 24))
def test_random_programs(seed: int, length: int) -> None:
    draw = random.Random(seed)
    graph = random_program(draw.randrange, length)
    compare(graph, arrays(graph, seed))


def test_pointwise_kernels_are_native() -> None:
    executable = compare(
        trace(lambda x, y: (x * y).exp().tanh() + x.sigmoid(), f32(33, 65), f32(65)), arrays_of(f32(33, 65), f32(65))
    )
    assert executable.fallbacks == []


def arrays_of(*types: TensorType) -> list[Any]:
    return arrays(trace(lambda *xs: xs[0] * 1, *types))


@pytest.mark.parametrize("columns", [1, 3, 10, 16, 17, 64, 100, 1000, 1024])
@pytest.mark.parametrize("dim", [0, 1])
def test_softmax_and_norm_of_any_width(columns: int, dim: int) -> None:
    def f(x: Any) -> Any:
        return (
            graphtorch.softmax(x, dim),
            graphtorch.log_softmax(x, dim),
            (x - x.mean(dim, keepdim=True)) * x.var(dim, keepdim=True, correction=0),
        )

    graph = trace(f, f32(7, columns))
    assert compare(graph, arrays(graph)).fallbacks == []


@pytest.mark.parametrize("shape", [(5, 7, 9), (64, 48), (2, 40, 33), (3, 130)])
def test_reductions_over_each_axis(shape: tuple[int, ...]) -> None:
    def f(x: Any) -> Any:
        found = []
        for d in range(len(shape)):
            found += [
                x.sum(d),
                x.amax(d),
                x.amin(d),
                x.prod(d),
                graphtorch.argmax(x, d),
                graphtorch.argmin(x, d),
                (x > 1.9).any(d),
                (x > -1.99).all(d),
            ]
        return [*found, x.sum(), graphtorch.argmax(x)]

    graph = trace(f, f32(*shape))
    assert compare(graph, arrays(graph)).fallbacks == []


def test_nan_and_ties_in_folds() -> None:
    x = np.random.default_rng(0).integers(-3, 4, (6, 50)).astype(np.float32)
    x[1, 7] = x[1, 30] = np.nan
    x[2] = -np.inf
    x[3] = np.inf
    graph = trace(
        lambda v: (
            graphtorch.argmax(v, 1),
            graphtorch.argmin(v, 1),
            v.amax(1),
            v.amin(1),
            graphtorch.maximum(v, v.flip(1)),
        ),
        f32(6, 50),
    )
    compare(graph, [x])


@pytest.mark.parametrize("size", [(64, 48), (100, 37), (256, 32)])
def test_transposing_kernels(size: tuple[int, int]) -> None:
    graph = trace(lambda x, y: x.t() + y.exp(), f32(*size), f32(*reversed(size)))
    assert compare(graph, arrays(graph)).fallbacks == []


def test_integer_division_raises_as_eager_does() -> None:
    graph = trace(lambda x, y: x // y, i64(4), i64(4))
    executable = CpuExecutable(build_schedule(graph))
    x, y = np.array([7, -7, 8, 0]), np.array([2, 2, -3, 5])
    close(executable.run([x, y])[0], x // y)
    assert executable.fallbacks == []
    with pytest.raises((RuntimeError, ZeroDivisionError)):
        executable.run([x, np.array([1, 0, 1, 1])])


def test_integer_division_by_a_constant() -> None:
    graph = trace(lambda x: (x // 3, x % 3, x // -4, x % -4, graphtorch.fmod(x, 3)), i64(21))
    assert compare(graph, [np.arange(-10, 11)]).fallbacks == []


@pytest.mark.parametrize("trans", range(4))
@pytest.mark.parametrize("sizes", [(1, 1, 1), (3, 5, 7), (64, 784, 128), (200, 90, 33), (1, 50, 20), (20, 50, 1)])
def test_products(trans: int, sizes: tuple[int, int, int]) -> None:
    m, k, n = sizes
    a, b = f32(*((k, m) if trans & 1 else (m, k))), f32(*((n, k) if trans & 2 else (k, n)))
    graph = trace(lambda x, y: (x.t() if trans & 1 else x) @ (y.t() if trans & 2 else y), a, b)
    assert compare(graph, arrays(graph), 1e-4).fallbacks == []


def test_batched_products() -> None:
    graph = trace(lambda x, y: (x @ y, x.transpose(1, 2) @ x, y @ y.transpose(1, 2)), f32(6, 9, 17), f32(6, 17, 11))
    assert compare(graph, arrays(graph), 1e-4).fallbacks == []


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_training_step_updates_parameters_in_place(batch: int) -> None:
    graph, donations = mlp_step(batch)
    inputs = arrays(graph)
    wanted = interpret(graph, [np.copy(a) for a in inputs])
    executable = CpuExecutable(build_schedule(graph, donations), graph.input_kinds)
    outputs = executable.run(inputs)
    for actual, expected in zip(outputs, wanted, strict=True):
        close(actual, expected, 1e-4, 1e-5)
    for output, source in donations.items():
        assert outputs[output] is inputs[source]


def test_donated_input_of_any_strides_is_written() -> None:
    graph = trace(lambda x, y: x * 2 + y, f32(4, 6), f32(6))
    executable = CpuExecutable(build_schedule(graph, {0: 0}))
    memory = np.arange(24, dtype=np.float32).reshape(6, 4)
    x, y = memory.T, np.ones(6, np.float32)
    wanted = x * 2 + y
    (result,) = executable.run([x, y])
    assert result is x
    close(np.ascontiguousarray(x), np.ascontiguousarray(wanted))


def test_wrong_inputs_raise_and_change_nothing() -> None:
    graph = trace(lambda x, y: x + y, f32(4), f32(4))
    executable = CpuExecutable(build_schedule(graph, {0: 0}))
    x = np.ones(4, np.float32)
    for bad in (np.ones(5, np.float32), np.ones(4), np.ones((2, 2), np.float32)):
        with pytest.raises(RuntimeError, match="input 1"):
            executable.run([x, bad])
    with pytest.raises(RuntimeError, match="expected 2 inputs"):
        executable.run([x])
    np.testing.assert_array_equal(x, 1)


def test_symbolic_sizes_run_at_any_size() -> None:
    n, m = symbol("n", hint=32), symbol("m", hint=16)
    graph = trace(
        lambda x, w: (graphtorch.softmax(x, 1), (x @ w).tanh().sum(0), x.t() * 2, x.mean(), graphtorch.argmax(x, 1)),
        f32(n, m),
        f32(m, 24),
    )
    executable = CpuExecutable(build_schedule(graph))
    assert executable.fallbacks == []
    for sizes in ((32, 16), (2, 2), (700, 45), (3, 1025), (5000, 64)):
        inputs = arrays(graph, 1, dict(zip("nm", sizes, strict=True)))
        for actual, wanted in zip(executable.run(inputs), interpret(graph, inputs), strict=True):
            close(actual, wanted, 1e-4, 1e-4)


def test_outputs_outlive_later_runs() -> None:
    graph = trace(lambda x: x + 1, f32(512, 512))
    executable = CpuExecutable(build_schedule(graph))
    x = np.zeros((512, 512), np.float32)
    held = [executable.run([x + i])[0] for i in range(4)]
    part = executable.run([x + 10])[0][3:5]
    for _ in range(4):
        executable.run([x + 99])
    for i, array in enumerate(held):
        assert (array == i + 1).all()
    assert (part == 11).all()


def test_large_results_take_over_dropped_memory() -> None:
    graph = trace(lambda x: x + 1, f32(512, 512))
    executable = CpuExecutable(build_schedule(graph))
    x = np.zeros((512, 512), np.float32)
    addresses = set()
    for _ in range(6):
        addresses.add(executable.run([x])[0].ctypes.data)
    assert len(addresses) == 1


def test_runs_concurrently() -> None:
    graph, _ = mlp_step(256, 200, 96)
    executable = CpuExecutable(build_schedule(graph))
    given_inputs = [arrays(graph, seed) for seed in range(4)]
    wanted = [interpret(graph, inputs) for inputs in given_inputs]
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(40):
            for actual, expected in zip(executable.run(given_inputs[index]), wanted[index], strict=True):
                if not np.allclose(actual, expected, 1e-3, 1e-4):
                    wrong.append(index)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_threads_share_large_kernels() -> None:
    graph = trace(lambda x: (x.sigmoid().sum(1), x.exp(), x.sum(0), x.t() + 1), f32(1024, 768))
    compare(graph, arrays(graph), 1e-4)


def test_blas_keeps_its_number_of_threads() -> None:
    import ctypes

    from graphtorch.lowering.cpu.blas import find_blas

    found = find_blas()
    if found is None:
        pytest.skip("NumPy's BLAS is not an OpenBLAS that can be found")
    count = ctypes.CFUNCTYPE(ctypes.c_int)(found.get_threads)
    before = count()
    graph = trace(lambda x: x @ x, f32(64, 64))
    compare(graph, arrays(graph), 1e-4)
    assert count() == before


def test_equal_kernels_share_code() -> None:
    graph = trace(
        lambda a, b, c: (a.exp() + 1, b.exp() + 1, (c.sum(0, keepdim=True).exp() + 1)), f32(1000), f32(3000), f32(2, 5)
    )
    executable = CpuExecutable(build_schedule(graph))
    names = {f.name for f in executable.functions.values()}
    assert len(names) < len(executable.functions) or len(executable.functions) <= 2
    assert all(executable.llvm.count(f"define void @{name}(") == 1 for name in names)


def test_numbers_are_read_at_run_time() -> None:
    graph = trace(lambda x, lr: x * lr, f32(5), NUMBER)
    executable = CpuExecutable(build_schedule(graph))
    x = np.ones(5, np.float32)
    for rate in (0.5, 2.0):
        np.testing.assert_array_equal(executable.run([x, rate])[0], x * rate)


def test_empty_arrays() -> None:
    graph = trace(lambda x: (x + 1, x.sum(), x.sum(0), x.exp().t()), f32(0, 3))
    compare(graph, [np.zeros((0, 3), np.float32)])


def test_text_of_the_stages() -> None:
    graph = trace(lambda x: x.exp(), f32(100))
    executable = CpuExecutable(build_schedule(graph))
    assert "define void @segment0" in executable.llvm
    assert "segment0" in executable.asm()
    assert all("define void" in text for text in executable.sources().values())


def test_runs_in_a_forked_child() -> None:
    import os

    if not hasattr(os, "fork"):
        pytest.skip("no fork")
    graph = trace(lambda x: x.exp() + x.sum(), f32(512, 1024))
    executable = CpuExecutable(build_schedule(graph))
    x = np.zeros((512, 1024), np.float32)
    executable.run([x])
    child = os.fork()
    if child == 0:
        os._exit(0 if (executable.run([x])[0] == 1).all() else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_backend_is_found_by_name() -> None:
    backend = get_backend("cpu")
    graph = trace(lambda x: x + 1, f32(3))
    executable = backend.compile(graph)
    assert isinstance(executable, CpuExecutable)
    step = graphtorch.compile(lambda x: (x * 2).relu(), backend="cpu")
    x = graphtorch.randn(4, 5)
    assert graphtorch.equal(step(x), (x * 2).relu())


def test_kept_rows_where_vectors_run_along_a_middle_axis() -> None:
    def f(x: Any) -> Any:
        inner = (x * 0.1 - x.sum(0)).tanh().permute(0, 2, 1)
        below = inner - inner.amin((0, 1, 2), keepdim=True)
        return below, below.amax(), below.sum(), below.exp().sum((0, 1, 2), keepdim=True) * below

    graph = trace(f, f32(3, 3, 6))
    compare(graph, arrays(graph))


def test_folds_of_different_axes_meet_in_one_value() -> None:
    graph = trace(lambda x, y: (y.amax() + (x.abs() > 0.5).any()).tanh() + x.sum(0), f32(4, 2), f32(2))
    compare(graph, arrays(graph))


@pytest.mark.parametrize("n", [2, 3, 8, 9, 40])
def test_a_fold_inside_of_the_last_part_of_a_vector_loop(n: int) -> None:
    """The last part of a loop over vectors has one accumulator, and so have the loops in it: a fold of the middle
    dimension beside one of all dimensions, of a size that is known only at run time."""

    @graphtorch.compile(dynamic=True, fullgraph=True)
    def step(x: Any, y: Any) -> Any:
        return x.sum() * (y - y.mean())

    make = np.random.default_rng(n)
    for size in (n, n + 1):
        x, y = graphtorch.tensor(make.standard_normal((size, 2, size))), graphtorch.tensor(make.standard_normal(2))
        expected = x.numpy().sum() * (y.numpy() - y.numpy().mean())
        np.testing.assert_allclose(step(x, y).numpy(), expected, rtol=1e-9, atol=1e-9)
    assert not step.specializations[-1].compiled.executable.fallbacks
