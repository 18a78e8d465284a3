"""Norms, softmax and cross-entropy, forward and backward: results, and how often they go through memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from programs import HERE, arrays, close, f32, i64, trace

from graphtorch.autodiff.reverse import append_gradients
from graphtorch.ir.builder import GraphBuilder, wrap
from graphtorch.ir.graph import Graph
from graphtorch.ir.passes import default_pipeline
from graphtorch.lowering.numpy.interpreter import interpret
from graphtorch.nn import functional as F
from graphtorch.schedule import build_schedule
from graphtorch.tensor import dtypes
from graphtorch.tensor.symint import symbol
from graphtorch.tensor.type import TensorType

pytest.importorskip("triton")

from graphtorch.lowering.triton import columns, splitting
from graphtorch.lowering.triton.backend import InterpretedBackend
from graphtorch.lowering.triton.compiler import compile_one, resources
from graphtorch.lowering.triton.groups import RowKernel
from graphtorch.lowering.triton.listing import plan_for
from graphtorch.lowering.triton.tiling import Limits


def joint(function: Callable[..., Any], *types: TensorType, wrt: tuple[int, ...], scalar: bool = False) -> Graph:
    """The graph of a function and of its gradients with respect to some of its inputs."""
    graph = Graph()
    inputs = [graph.add_input(t, f"x{i}") for i, t in enumerate(types)]
    builder = GraphBuilder(graph, HERE)
    with builder:
        out = builder.value_of(function(*map(wrap, inputs)))
    cotangent = None if scalar else graph.add_input(out.type, "g")
    gradients = append_gradients(graph, (out,), (cotangent,), tuple(inputs[i] for i in wrt), builder)
    for value in (out, *gradients):
        graph.add_output(value)
    default_pipeline().run(graph)
    return graph


def half(*shape: Any) -> TensorType:
    return TensorType(dtypes.bfloat16, shape)


def layer_norm(rows: Any, width: int, of: Any = dtypes.float32) -> Graph:
    def program(x: Any, w: Any, b: Any) -> Any:
        return F.layer_norm(x, (width,), w, b)

    return joint(program, TensorType(of, (rows, width)), f32(width), f32(width), wrt=(0, 1, 2))


def rms_norm(rows: Any, width: int, of: Any = dtypes.float32) -> Graph:
    def program(x: Any, w: Any) -> Any:
        return F.rms_norm(x, (width,), w)

    return joint(program, TensorType(of, (rows, width)), TensorType(of, (width,)), wrt=(0, 1))


def cross_entropy(rows: Any, classes: int, of: Any = dtypes.float32) -> Graph:
    def program(x: Any, y: Any) -> Any:
        return F.cross_entropy(x.float(), y)

    return joint(program, TensorType(of, (rows, classes)), i64(rows), wrt=(0,), scalar=True)


def softmax(rows: Any, width: int, of: Any = dtypes.float32) -> Graph:
    return joint(lambda x: F.softmax(x, -1), TensorType(of, (rows, width)), wrt=(0,))


@pytest.fixture
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums over rows are taken in by kernels over a few rows."""
    monkeypatch.setattr(columns, "FEWEST", 2)
    monkeypatch.setattr(columns, "PROGRAMS", 4)


def check(graph: Graph, tolerance: float, limits: Limits | None = None, sizes: dict[str, int] | None = None) -> Any:
    executable = InterpretedBackend(limits).compile(graph)
    inputs = arrays(graph, 1, sizes)
    for actual, wanted in zip(executable.run(inputs), interpret(graph, inputs), strict=True):
        close(actual, wanted, tolerance, tolerance)
    return executable


@pytest.mark.parametrize("make", [layer_norm, rms_norm])
@pytest.mark.parametrize("shape", [(37, 20), (5, 64), (16, 33), (1, 7)])
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "float64"])
def test_norms_and_their_gradients(make: Any, shape: tuple[int, int], kind: str, few_rows: None) -> None:
    tolerance = {"float32": 1e-4, "bfloat16": 6e-2, "float64": 1e-5}[kind]
    executable = check(make(*shape, getattr(dtypes, kind)), tolerance, Limits(rows=64))
    assert shape[0] < 2 or any(isinstance(s, RowKernel) for s in executable.schedule.steps)


@pytest.mark.parametrize("make", [layer_norm, rms_norm])
def test_symbolic_rows(make: Any, few_rows: None) -> None:
    n = symbol("n", hint=30)
    graph = make(n, 24)
    for size in (3, 50):
        check(graph, 1e-4, None, {"n": size})


@pytest.mark.parametrize("make", [layer_norm, rms_norm])
def test_norms_go_through_memory_once(make: Any) -> None:
    """The input and the cotangent are read by one kernel, which stores the result and the input's gradient and, of
    the weights' gradients, only what its programs summed up."""
    schedule = plan_for(build_schedule(make(8192, 1024, dtypes.bfloat16)))
    large = [[b.name for b in launch.function.buffers if b.shape == (8192, 1024)] for launch in schedule.launches]
    assert len(large[0]) == 4 and not any(large[1:])
    for to in ("sm_80", "sm_90", "sm_100"):
        compiled = compile_one(schedule.launches[0].function, to)
        assert resources(compiled).stack == 0
        assert "cp.async.cg.shared.global" in compiled.assembly  # the next rows, 16 bytes at a time
        assert "st.global.v4.b32" in compiled.assembly
    assert compile_one(schedule.launches[0].function, "gfx942").binary


@pytest.mark.parametrize("limits", [None, Limits(persistent=4, looped=8)])
@pytest.mark.parametrize("make", [cross_entropy, softmax])
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "float64"])
def test_losses_and_their_gradients(make: Any, limits: Limits | None, kind: str) -> None:
    tolerance = {"float32": 1e-4, "bfloat16": 4e-2, "float64": 1e-10 if make is softmax else 1e-4}[kind]
    check(make(9, 50, getattr(dtypes, kind)), tolerance, limits)  # the loss is computed in float32


def test_long_rows_are_read_twice() -> None:
    """The maximum and the sum of exponentials come out of one pass; the gradient of softmax needs a further sum."""
    for make, passes in ((cross_entropy, 2), (softmax, 3)):
        plan = plan_for(build_schedule(make(8192, 32000, dtypes.bfloat16)))
        launch = next(f for f in plan.launches if any(b.shape == (8192, 32000) for b in f.function.buffers))
        assert launch.function.source.count("for r_start") == passes
        assert resources(compile_one(launch.function)).stack == 0


@pytest.mark.parametrize("looped", [8, 64])
def test_running_sums_of_exponentials_meet_special_values(looped: int) -> None:
    x = np.array(
        [[1, 2, 3, -np.inf, 5, 6, 7, 80, 9, 2], [-np.inf] * 10, [np.nan, *range(9)], [np.inf, *range(9)], [-1e30] * 10],
        np.float32,
    )
    x = np.concatenate([x, x[:, ::-1]])
    graph = softmax(10, 10)
    inputs = [x, np.ones_like(x)]
    made = InterpretedBackend(Limits(persistent=4, looped=looped)).compile(graph).run(inputs)
    for actual, wanted in zip(made, interpret(graph, inputs), strict=True):
        close(actual, wanted, 1e-5, 1e-6)


def test_column_sums_keep_a_gpu_busy() -> None:
    graph = Graph()
    x = graph.add_input(f32(8192, 1024), "x")
    builder = GraphBuilder(graph, HERE)
    with builder:
        graph.add_output(builder.value_of(wrap(x).sum(0)))
    first, second = plan_for(build_schedule(graph)).launches
    assert first.grid[0] >= splitting.PROGRAMS // 2 and second.grid[0] >= 64


@pytest.mark.parametrize("limits", [None, Limits(persistent=4, looped=8)])
def test_long_folds_of_folds_and_positions_are_cut(limits: Limits | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variances and positions of few results: several launches of many programs, with NaN, ties and infinities."""
    monkeypatch.setattr(splitting, "LONG", 64)
    x = np.random.default_rng(0).integers(-50, 50, (3, 240)).astype(np.float32)
    x[1, 100] = x[1, 30] = np.nan
    x[2, 7] = x[2, 200] = np.inf

    def program(v: Any) -> Any:
        flat = v.nan_to_num(0.0, 3.0).reshape(-1)
        return (
            flat.var(),
            flat - flat.mean(),
            v.argmax(),
            v.argmax(1),
            v.argmin(1),
            v.max(1)[0],
            flat.std() + flat.amax(),
        )

    graph = Graph()
    given = graph.add_input(f32(3, 240), "x")
    builder = GraphBuilder(graph, HERE)
    with builder:
        for result in program(wrap(given)):
            graph.add_output(builder.value_of(result))
    executable = InterpretedBackend(limits).compile(graph)
    for actual, wanted in zip(executable.run([x]), interpret(graph, [x]), strict=True):
        close(actual, wanted, 1e-5, 1e-5)
    assert len(executable.sources()) > 8


def test_batch_norm_keeps_a_gpu_busy() -> None:
    """Statistics of 64 channels over a million elements each: no launch of few programs goes through all of them."""
    graph = Graph()
    x = graph.add_input(f32(64, 64, 56, 56), "x")
    builder = GraphBuilder(graph, HERE)
    with builder:
        made = F.batch_norm(wrap(x), None, None, training=True)
        graph.add_output(builder.value_of(made))
    for launch in plan_for(build_schedule(graph)).launches:
        if any(b.shape == (64, 64, 56, 56) for b in launch.function.buffers):
            assert launch.grid[0] >= splitting.PROGRAMS // 2


def test_exponentials_are_rescaled_once_for_what_a_thread_loads() -> None:
    plan = plan_for(build_schedule(trace(lambda x: F.log_softmax(x, -1), half(8192, 32768))))
    (launch,) = plan.launches
    assert "R_BLOCK // 8, 8]" in launch.function.source
    loop = compile_one(launch.function).assembly.partition("Inner Loop")[2].partition("\n\tbra")[0]
    first = loop[: loop.index("bra")]
    assert "shfl" not in first and "bar.sync" not in first  # neighbours lie in one thread
    assert first.count("ex2.approx") == 18  # of 16 elements in two chunks


@pytest.mark.parametrize("values", [[-np.inf] * 40, [np.inf, 1.0] * 20, [-np.inf, 3.0] * 20, [np.nan, 0.0] * 20])
def test_infinities_in_long_rows(values: list[float]) -> None:
    graph = trace(lambda x: F.softmax(x, -1), f32(2, 40))
    x = np.array([values, np.arange(40)], np.float32)
    (found,) = InterpretedBackend(Limits(persistent=4, looped=8)).compile(graph).run([x])
    with np.errstate(all="ignore"):
        (wanted,) = interpret(graph, [x])
    np.testing.assert_allclose(found, wanted, 1e-5)


def test_rows_of_a_few_thousand_are_read_once() -> None:
    (launch,) = plan_for(build_schedule(trace(lambda x: F.softmax(x, -1), half(8192, 4096)))).launches
    assert "for r_start" not in launch.function.source


@pytest.mark.parametrize("width", [300, 768, 1024])
def test_rows_that_one_warp_holds_need_no_barrier(width: int) -> None:
    for make in (layer_norm, rms_norm, softmax):
        for launch in plan_for(build_schedule(make(32768, width, dtypes.bfloat16))).launches:
            if launch.function.constants.get("R_BLOCK", 0) < width or "x_size = 32768" not in launch.function.source:
                continue  # the sums over rows, at their end
            assert launch.function.num_warps == launch.function.constants["X_BLOCK"] == 1
            compiled = compile_one(launch.function, "sm_90")
            assert compiled.assembly.count("bar.sync") <= 3  # of what is copied ahead, once
            assert resources(compiled).spilled == 0


@pytest.mark.parametrize(("width", "warps"), [(2048, 4), (4096, 8), (8192, 16)])
def test_longer_rows_have_sixteen_elements_a_thread(width: int, warps: int) -> None:
    plan = plan_for(build_schedule(layer_norm(8192, width, dtypes.bfloat16)))
    function = plan.launches[0].function
    assert (function.constants["X_BLOCK"], function.num_warps) == (1, warps)
    assert resources(compile_one(function, "sm_90")).registers <= 128  # two programs of eight warps at once


@pytest.mark.parametrize("kind", ["bfloat16", "float64"])
def test_what_is_kept_between_folds_counts_as_held(kind: str) -> None:
    """Two registers for each number of float64, and more values of a row than are loaded."""

    def program(x: Any) -> Any:
        return F.softmax((x / 30).tanh() * 30, -1) * F.log_softmax(x, -1)

    graph = joint(program, TensorType(getattr(dtypes, kind), (8192, 1024)), wrt=(0,))
    for launch in plan_for(build_schedule(graph)).launches:
        for to in ("sm_80", "sm_90"):
            assert resources(compile_one(launch.function, to)).spilled == 0


def test_few_rows_are_shared_by_more_threads() -> None:
    (launch,) = plan_for(build_schedule(trace(lambda x: F.softmax(x, -1), half(64, 1024)))).launches
    assert launch.function.num_warps == 4


def test_a_target_moves_where_places_do_not() -> None:
    """One comparison an element, of a number that is known when the kernel is compiled."""
    functions = [s.function for s in plan_for(build_schedule(cross_entropy(8192, 32768, dtypes.bfloat16))).launches]
    (loop,) = [f for f in functions if "for r_start" in f.source and "tl.exp2" in f.source]
    (line,) = [li for li in loop.source.splitlines() if "- r_start" in li]
    assert "tl.arange(0, R_BLOCK)[None, :] == v" in line
    chosen = line.split("=")[0].strip()
    assert f"& {chosen}" not in loop.source and f"{chosen} &" not in loop.source


@pytest.mark.parametrize("ignored", [-100, 3])
def test_targets_of_classes_in_a_loop(ignored: int) -> None:
    """The first and last class, one beyond each block, and one that is left out."""
    graph = joint(
        lambda x, y: F.cross_entropy(x, y, ignore_index=ignored, reduction="sum"),
        f32(12, 37),
        i64(12),
        wrt=(0,),
        scalar=True,
    )
    x = arrays(graph)[0]
    y = np.array([0, 36, 7, 8, 15, 16, 3, 3, 31, 32, 35, 1], np.int64)
    wanted = interpret(graph, [x, y])
    for found, value in zip(
        InterpretedBackend(Limits(persistent=4, looped=8)).compile(graph).run([x, y]), wanted, strict=True
    ):
        close(found, value)
