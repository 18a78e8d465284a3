"""The kernels executor against the interpreter: every operator record, random programs, blocked forms, symbolic sizes,
in-place updates."""

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
from graphtorch.lowering.numpy import codegen
from graphtorch.lowering.numpy.executor import NumpyExecutable
from graphtorch.lowering.numpy.interpreter import interpret
from graphtorch.ops.record import REGISTRY
from graphtorch.ops.testing import Sampler
from graphtorch.schedule import build_schedule, lower_to_primitives
from graphtorch.schedule.memory import aligned
from graphtorch.tensor import Tensor, dtypes
from graphtorch.tensor.symint import symbol
from graphtorch.tensor.type import type_of

CATEGORY_DTYPES = {"b": "bool_", "i": "int64", "f": "float32", "c": "complex64"}
TOLERANCE = {"float16": 4e-3, "bfloat16": 3e-2, "float32": 3e-5, "complex64": 3e-5}
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


def compare(graph: Graph, inputs: list[Any], tolerance: float = 2e-5) -> NumpyExecutable:
    """Run by node, by primitive and by kernel, twice: memory is reused between runs."""
    expected = interpret(graph, inputs)
    for actual, wanted in zip(interpret(lower_to_primitives(graph), inputs), expected, strict=True):
        close(actual, wanted, tolerance, tolerance)
    executable = NumpyExecutable(build_schedule(graph))
    for _ in range(2):
        for actual, wanted in zip(executable.run(inputs), expected, strict=True):
            close(actual, wanted, tolerance, tolerance)
    return executable


@pytest.mark.parametrize("name", SAMPLED)
def test_every_record_runs_as_kernels(name: str) -> None:
    op = REGISTRY[name]
    assert op.samples is not None
    kinds = [CATEGORY_DTYPES[c] for c in op.categories]
    for kind in [*kinds, *(("float16", "bfloat16") if "f" in op.categories else ())]:
        sampler = Sampler(getattr(dtypes, kind))
        try:
            samples = list(op.samples(sampler))
        except NotImplementedError:
            continue  # the operator refuses the dtype
        for sample in samples:
            graph, inputs = graph_of_call(op.function, sample.args, sample.kwargs)
            compare(graph, inputs, TOLERANCE.get(kind, 3e-5))


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 2**32), st.integers(4, 24))
def test_random_programs(seed: int, length: int) -> None:
    draw = random.Random(seed)
    graph = random_program(draw.randrange, length)
    compare(graph, arrays(graph, seed % 1000))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([1, 4, 16]))
def test_random_programs_in_small_blocks(seed: int, block: int) -> None:
    """Blocks of a few elements, so that small programs take the looped and accumulating forms."""
    draw = random.Random(seed)
    graph = random_program(draw.randrange, 14)
    inputs = arrays(graph, seed % 1000)
    expected = interpret(graph, inputs)
    full, codegen.BLOCK = codegen.BLOCK, block
    try:
        executable = NumpyExecutable(build_schedule(graph))
    finally:
        codegen.BLOCK = full
    for actual, wanted in zip(executable.run(inputs), expected, strict=True):
        close(actual, wanted)


def test_large_folds_accumulate_over_blocks() -> None:
    def program(x: Any) -> Any:
        return x.sum(0), x.amax((0, 1)), (x * 2 + 1), x.mean()

    graph = trace(program, f32(700, 300))
    executable = compare(graph, arrays(graph), 1e-3)
    assert any("for i0 in" in source for source in executable.sources().values())


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_half_precision_accumulates_in_float32(kind: str) -> None:
    """3000 ones: summed in half precision alone they would stop at 2048 (float16) or 256 (bfloat16)."""
    d = getattr(dtypes, kind)
    graph = trace(lambda x: x.sum(), f32(3000).with_dtype(d))
    (total,) = NumpyExecutable(build_schedule(graph)).run([np.ones(3000, d.numpy)])
    assert float(total) == float(np.asarray(3000).astype(d.numpy))
    graph = trace(lambda x: x.sum(0), f32(300000, 2).with_dtype(d))
    (total,) = NumpyExecutable(build_schedule(graph)).run([np.full((300000, 2), 0.0625, d.numpy)])
    np.testing.assert_array_equal(total.astype(np.float64), np.full(2, 18750.0).astype(d.numpy).astype(np.float64))


def test_step_with_donations_updates_parameters_in_place() -> None:
    graph, donations = mlp_step(8, 12, 6, 4)
    mine, reference = arrays(graph), arrays(graph)
    parameters = mine[2:6]
    numpy_step = get_backend("numpy").compile(graph, donations)
    interpreted = get_backend("interpreter").compile(graph, donations)
    for _ in range(3):
        outputs, expected = numpy_step.run(mine), interpreted.run(reference)
        for actual, wanted in zip(outputs, expected, strict=True):
            close(actual, wanted, 1e-4, 1e-5)
        for output, parameter, other in zip(outputs[1:], parameters, reference[2:6], strict=True):
            assert output is parameter
            close(parameter, other, 1e-4, 1e-5)


def test_donated_input_of_any_strides_is_written() -> None:
    graph = trace(lambda x: x * 2 + 1, f32(3, 4))
    base = np.arange(12, dtype=np.float32).reshape(4, 3)
    expected = base.T * 2 + 1
    (result,) = get_backend("numpy").compile(graph, {0: 0}).run([base.T])
    np.testing.assert_array_equal(base.T, expected)
    np.testing.assert_array_equal(result, expected)


def test_donation_waits_for_readers_of_the_old_value() -> None:
    """The transposed old value is read: the update can't be in place, and must not be seen by it."""

    def program(x: Any) -> Any:
        new = x + 1
        return new, (x.t() + new).exp(), x[0]

    graph = trace(program, f32(5, 5))
    for backend in ("numpy", "interpreter"):
        x = arrays(graph)[0]
        old = x.copy()
        new, mixed, row = get_backend(backend).compile(graph, {0: 0}).run([x])
        assert new is x
        close(x, old + 1)
        close(mixed, np.exp(old.T + old + 1))
        close(row, old[0])


def test_two_inputs_swap() -> None:
    graph = trace(lambda a, b: (b, a), f32(4), f32(4))
    for backend in ("numpy", "interpreter"):
        a, b = np.arange(4, dtype=np.float32), np.ones(4, np.float32)
        get_backend(backend).compile(graph, {0: 0, 1: 1}).run([a, b])
        np.testing.assert_array_equal(a, np.ones(4))
        np.testing.assert_array_equal(b, np.arange(4))


def test_wrong_inputs_raise_and_change_nothing() -> None:
    graph = trace(lambda x, y: x * 2 + y, f32(3), f32(3))
    executable = get_backend("numpy").compile(graph, {0: 0})
    x = np.ones(3, np.float32)
    with pytest.raises(RuntimeError, match=r"input 1 .*float32\[4\]"):
        executable.run([x, np.ones(4, np.float32)])
    with pytest.raises(RuntimeError, match="expected 2 inputs, got 1"):
        executable.run([x])
    np.testing.assert_array_equal(x, np.ones(3))
    with pytest.raises(ValueError, match="can't overwrite"):
        get_backend("numpy").compile(trace(lambda x: x.sum(), f32(3)), {0: 0})


def test_symbolic_sizes_run_at_any_size() -> None:
    batch, width = symbol("batch", hint=8), symbol("width", hint=5)

    def program(x: Any, y: Any, rate: Any) -> Any:
        soft = graphtorch.softmax(x, -1)
        return soft, (soft * rate).sum(0), x.reshape(-1).mean(), soft @ y, x.reshape(batch * width) * 2

    graph = trace(program, f32(batch, width), f32(width, 3), NUMBER)
    executable = NumpyExecutable(build_schedule(graph))
    assert len([k for k in executable.schedule.kernels if "amax" in str(k.nodes)]) == 1
    for sizes in ({"batch": 8, "width": 5}, {"batch": 3, "width": 11}, {"batch": 300, "width": 200}):
        inputs = arrays(graph, 1, sizes)
        for actual, wanted in zip(executable.run(inputs), interpret(graph, inputs), strict=True):
            close(actual, wanted, 1e-4, 1e-4)
    with pytest.raises(RuntimeError, match="expected width = 5"):
        executable.run([np.ones((2, 5), np.float32), np.ones((6, 3), np.float32), 1.0])


def test_outputs_outlive_the_next_run_and_views_share_memory() -> None:
    def program(x: Any) -> Any:
        y = x * 2
        return x.t(), y, y.t()

    graph = trace(program, f32(2, 3))
    executable = NumpyExecutable(build_schedule(graph))
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    view, first, turned = executable.run([x])
    executable.run([x + 1])
    assert np.shares_memory(view, x)  # a view of an input is one of the caller's array
    assert np.shares_memory(first, turned)
    np.testing.assert_array_equal(first, x * 2)


def test_runs_concurrently() -> None:
    graph, _ = mlp_step(16, 20, 12, 4)
    executable = NumpyExecutable(build_schedule(graph), graph.input_kinds)
    inputs = [arrays(graph, seed) for seed in range(4)]
    expected = [interpret(graph, i) for i in inputs]
    failures: list[BaseException] = []

    def work(index: int) -> None:
        try:
            for _ in range(20):
                for actual, wanted in zip(executable.run(inputs[index]), expected[index], strict=True):
                    close(actual, wanted, 1e-4, 1e-5)
        except BaseException as error:  # reported by the main thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_arena_is_what_the_plan_says() -> None:
    graph, donations = mlp_step(8, 12, 6, 4)
    executable = NumpyExecutable(build_schedule(graph, donations))
    executable.run(arrays(graph))
    (program,) = executable._programs.values()
    (space,) = executable.workspaces
    frame = space.frames[program]
    assert executable.plan is not None
    assert executable.plan.arena_bytes == executable.arena_bytes
    assert space.memory.nbytes == aligned(executable.plan.arena_bytes) + program.scratch_bytes
    assert frame.arena.__array_interface__["data"][0] % 64 == 0


def test_equal_kernels_compile_once() -> None:
    graph = trace(lambda x, y: ((x @ y).exp() + 1, (y @ x).exp() + 1), f32(6, 4), f32(4, 6))
    schedule = build_schedule(graph)
    assert len(schedule.kernels) == 2
    (program,) = NumpyExecutable(schedule)._programs.values()
    assert len({id(k.function) for k in program.kernels.values()}) == 1


def test_tracebacks_show_generated_source() -> None:
    graph = trace(lambda x: x.exp() + 1, f32(4))
    executable = NumpyExecutable(build_schedule(graph))
    import linecache

    (program,) = executable._programs.values()
    code = program.kernels["k0"].function.__code__
    assert "train.py:12" in "".join(linecache.getlines(code.co_filename))


def test_masks_and_ranges_are_index_arithmetic() -> None:
    def program(x: Any) -> Any:
        n = x.shape[0]
        rows, columns = graphtorch.arange(n).reshape(n, 1), graphtorch.arange(n)
        return graphtorch.where(columns <= rows, x, float("-inf")), graphtorch.arange(0, 1, 0.25), columns.flip(0)

    graph = trace(program, f32(6, 6))
    compare(graph, arrays(graph))


def test_numbers_are_read_at_run_time() -> None:
    graph = trace(lambda x, lr: (x - lr * x, lr * 2, lr), f32(3), NUMBER)
    executable = NumpyExecutable(build_schedule(graph))
    for rate in (0.5, 0.25):
        inputs = [np.ones(3, np.float32), rate]
        for actual, wanted in zip(executable.run(inputs), interpret(graph, inputs), strict=True):
            close(actual, wanted)


def test_empty_arrays() -> None:
    graph = trace(lambda x, y: ((x * 2).sum(0), x.exp(), (x + y).reshape(0)), f32(0, 3), f32(3))
    compare(graph, arrays(graph))


def test_labels_index_rows() -> None:
    graph = trace(lambda x, y: graphtorch.one_hot(y, 7).float() * x, f32(7), i64(5))
    compare(graph, arrays(graph))


def test_a_kernel_without_anything_to_store() -> None:
    def turned() -> Any:
        return graphtorch.arange(2).reshape(1, 2).flip(0).unbind(-1)[-1].flip(0)

    np.testing.assert_array_equal(graphtorch.compile(turned, backend="numpy")().numpy(), [1])
