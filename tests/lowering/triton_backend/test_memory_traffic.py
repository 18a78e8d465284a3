"""What goes through memory: values computed again in their readers, gradients gathered instead of scattered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from programs import HERE, arrays, close, f32, trace

import graphtorch
from graphtorch.autodiff.reverse import append_gradients
from graphtorch.ir.builder import GraphBuilder, wrap
from graphtorch.ir.graph import Graph
from graphtorch.ir.passes import default_pipeline
from graphtorch.lowering.kernel import ExternCall, Kernel, Schedule
from graphtorch.lowering.numpy.interpreter import interpret
from graphtorch.nn import functional as F
from graphtorch.schedule import build_schedule
from graphtorch.schedule.memory import nbytes
from graphtorch.tensor import dtypes
from graphtorch.tensor.symint import symbol
from graphtorch.tensor.type import TensorType

pytest.importorskip("triton")

from graphtorch.lowering.triton import bias, moments, splitting
from graphtorch.lowering.triton.backend import InterpretedBackend
from graphtorch.lowering.triton.fused import FusedCall
from graphtorch.lowering.triton.listing import plan_for
from graphtorch.lowering.triton.recompute import recompute_in_readers
from graphtorch.lowering.triton.tiling import Limits


def joint(function: Callable[..., Any], *types: TensorType, wrt: tuple[int, ...]) -> Graph:
    """The graph of a function's results and of gradients of the first one."""
    graph = Graph()
    inputs = [graph.add_input(t, f"x{i}") for i, t in enumerate(types)]
    builder = GraphBuilder(graph, HERE)
    with builder:
        made = function(*map(wrap, inputs))
        results = [builder.value_of(r) for r in (made if isinstance(made, tuple) else (made,))]
    cotangent = graph.add_input(results[0].type, "g")
    gradients = append_gradients(graph, (results[0],), (cotangent,), tuple(inputs[i] for i in wrt), builder)
    for value in (*results, *gradients):
        graph.add_output(value)
    default_pipeline().run(graph)
    return graph


def moved(schedule: Schedule) -> int:
    """Bytes that kernels load and store, each buffer once a kernel."""
    return sum(nbytes(b, {}) for s in schedule.steps for b in {*s.reads(), *s.writes()} if isinstance(s, Kernel))


def half(*shape: Any) -> TensorType:
    return TensorType(dtypes.bfloat16, shape)


def check(graph: Graph, tolerance: float, sizes: dict[str, int] | None = None) -> None:
    inputs = arrays(graph, 0, sizes)
    expected = interpret(graph, [np.copy(x) for x in inputs])
    for limits in (None, Limits(16, 16, 16, 16)):
        found = InterpretedBackend(limits).compile(graph, {}).run([np.copy(x) for x in inputs])
        for a, b in zip(found, expected, strict=True):
            wide = np.asarray(b).astype(np.float64)
            error = np.linalg.norm(np.asarray(a).astype(np.float64) - wide) / (np.linalg.norm(wide) or 1.0)
            assert error < tolerance


def block(x: Any, w: Any, b: Any, v: Any) -> Any:
    """A residual sum, its norm, and a product: what a transformer repeats."""
    y = F.layer_norm(x + (x.to(graphtorch.bfloat16) @ v).float(), (x.shape[-1],), w, b)
    return y.to(graphtorch.bfloat16) @ v


def batch_norm(x: Any, k: Any, w: Any, b: Any) -> Any:
    return F.relu(F.batch_norm(F.conv2d(x, k, padding=1), None, None, w, b, True))


NORM = (f32(1024, 48), f32(48), f32(48), half(48, 48))
IMAGE = (half(64, 16, 40, 40), half(16, 16, 3, 3), f32(16), f32(16))


@pytest.mark.parametrize(("program", "types"), [(block, NORM), (batch_norm, IMAGE)], ids=["norm", "batch norm"])
def test_fewer_bytes_move(program: Any, types: Any) -> None:
    schedule = build_schedule(joint(program, *types, wrt=(0, 1, 2, 3)))
    rewritten = recompute_in_readers(schedule)
    assert moved(rewritten) < 0.9 * moved(schedule)
    assert any("computed again" in line for line in rewritten.report)


@pytest.mark.parametrize(
    ("program", "types"),
    [(block, (f32(6, 48), *NORM[1:])), (batch_norm, (half(2, 16, 6, 6), *IMAGE[1:]))],
    ids=["norm", "batch norm"],
)
def test_values_stay(program: Any, types: Any) -> None:
    check(joint(program, *types, wrt=(0, 1, 2, 3)), 1e-2)


def test_a_normalised_image_is_not_kept() -> None:
    """The backward pass of a batch norm reads the bfloat16 image: no float32 copy of it is in memory."""
    plan = plan_for(build_schedule(joint(batch_norm, *IMAGE, wrt=(0, 1, 2, 3))))
    wide = [b for b in plan.offsets if b.dtype is dtypes.float32 and b.kind == "temporary" and len(b.shape) == 4]
    assert all(nbytes(b, {}) < 4 * 64 * 16 * 40 * 40 for b in wide)


def trained(x: TensorType, k: TensorType, w: TensorType, b: TensorType) -> Graph:
    """A batch norm's result, and its parameters after a step, in their own memory."""
    graph = Graph()
    inputs = [graph.add_input(t, f"x{i}") for i, t in enumerate((x, k, w, b))]
    builder = GraphBuilder(graph, HERE)
    with builder:
        result = builder.value_of(batch_norm(*map(wrap, inputs)))
    cotangent = graph.add_input(result.type, "g")
    gradients = append_gradients(graph, (result,), (cotangent,), tuple(inputs), builder)
    with builder:
        updated = [builder.value_of(wrap(v) - wrap(g) * 0.1) for v, g in zip(inputs[2:], gradients[2:], strict=True)]
    for value in (*updated, result, *gradients[:2]):
        graph.add_output(value)
    default_pipeline().run(graph)
    return graph


def test_gradients_of_a_batch_norm_take_two_passes() -> None:
    """One for all sums, one for the gradient itself, although the step changes the parameters between them; and no
    memory for what was cut off, or for anything in float32."""
    large = 64 * 16 * 40 * 40
    plan = plan_for(build_schedule(trained(*IMAGE), {0: 2, 1: 3}))
    images = [b for b in plan.offsets if b.kind == "temporary" and len(b.shape) == 4 and nbytes(b, {}) >= large]
    assert images and all(b.dtype is dtypes.bfloat16 for b in images)
    passes = [
        launch
        for launch in plan.launches
        if "tl.dot" not in launch.function.source and any(b.shape == IMAGE[0].shape for b in launch.function.buffers)
    ]
    names = [launch.function.name for launch in passes]
    assert names[0] == "fused_clone" and len(passes) == 4  # the caller's image by channels, then
    assert "fused_clone" not in names[1:]  # one forward: the convolution has begun mean and variance
    executable = InterpretedBackend().compile(trained(half(2, 16, 6, 6), *IMAGE[1:]), {0: 2, 1: 3})
    graph = trained(half(2, 16, 6, 6), *IMAGE[1:])
    inputs = arrays(graph)
    expected = interpret(graph, [np.copy(x) for x in inputs])
    for a, b in zip(executable.run([np.copy(x) for x in inputs]), expected, strict=True):
        close(np.asarray(a), np.asarray(b), 4e-2, 4e-2)


@pytest.mark.parametrize("long", [64, 256, 1 << 20])
@pytest.mark.parametrize("fewest", [32, 1 << 20])
def test_parameters_that_a_step_overwrites(long: int, fewest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the kernels of a batch norm and its update are cut, gradients see the parameters of before."""
    monkeypatch.setattr(splitting, "LONG", long)
    monkeypatch.setattr(moments, "FEWEST", fewest)
    graph = trained(f32(2, 16, 8, 8), f32(16, 16, 3, 3), f32(16), f32(16))
    inputs = arrays(graph)
    inputs[2] += 3
    expected = interpret(graph, [np.copy(x) for x in inputs])
    found = InterpretedBackend(Limits(1024, 64, 64, 64)).compile(graph, {0: 2, 1: 3}).run([np.copy(x) for x in inputs])
    for a, b in zip(found, expected, strict=True):
        close(np.asarray(a), np.asarray(b), 1e-4, 1e-4 * max(1.0, float(np.abs(b).max())))


def test_an_operand_that_changes_is_read_before() -> None:
    """A difference from numbers that an update overwrites between its making and its reading is kept."""
    graph = trace(lambda x, w: ((x - w).sin().sum(0), w + 1, (x.float() - w) * 2), half(64, 32), f32(32))
    schedule = build_schedule(graph, {1: 1})
    for i, step in enumerate(recompute_in_readers(schedule).steps):
        later = [
            s for s in recompute_in_readers(schedule).steps[i + 1 :] if graph.inputs[1] in {b.value for b in s.reads()}
        ]
        assert not later or graph.inputs[1] not in {b.value for b in step.writes()}
    inputs = arrays(graph)
    expected = interpret(graph, [np.copy(x) for x in inputs])
    found = InterpretedBackend().compile(graph, {1: 1}).run([np.copy(x) for x in inputs])
    for a, b in zip(found, expected, strict=True):
        close(np.asarray(a), np.asarray(b), 4e-2)


def test_symbolic_rows() -> None:
    rows = symbol("rows", hint=6)
    check(joint(block, f32(rows, 48), *NORM[1:], wrt=(0, 1, 2, 3)), 1e-2, {"rows": 6})


@pytest.mark.parametrize("of", ["bfloat16", "float32"])
@pytest.mark.parametrize("window", [(2, 2, 0, 1), (3, 2, 1, 1), (3, 1, 1, 1), (2, 3, 0, 1), (3, 2, 2, 2)], ids=str)
def test_gradients_of_maxima_are_gathered(of: str, window: tuple[int, int, int, int]) -> None:
    size, stride, padding, dilation = window
    padding = min(padding, size // 2)
    t = TensorType(getattr(dtypes, of), (2, 3, 9, 8))
    graph = joint(lambda x: F.max_pool2d(x, size, stride, padding, dilation), t, wrt=(0,))
    plan = plan_for(build_schedule(graph))
    assert not plan.unsupported
    assert len(plan.launches) == 2
    assert not any("atomic" in s.function.source for s in plan.launches)
    check(graph, 1e-2 if of == "bfloat16" else 1e-6)
    assert any(isinstance(s, ExternCall) and s.op.name == "max_pool2d_backward" for s in build_schedule(graph).steps)


def joined_attention(x: Any, w: Any) -> Any:
    """Queries, keys and values of one product."""
    b, t, width = x.shape
    q, k, v = (z.view(b, t, 2, width // 2).transpose(1, 2) for z in (x @ w).split(width, 2))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, width)


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_gradients_of_attention_are_stored_where_they_are_joined(kind: str) -> None:
    step = graphtorch.compile(attention_step, backend=registered(InterpretedBackend(Limits(256, 16, 16, 16))))
    graphtorch.manual_seed(0)
    given = [graphtorch.randn(2, 18, 32), graphtorch.randn(32, 96) * 0.2, graphtorch.randn(2, 18, 32)]
    rounded = [x.to(getattr(graphtorch, kind)) for x in given]
    found = step(*(x.clone().requires_grad_(i < 2) for i, x in enumerate(rounded)))
    wanted = attention_step(*(x.double().requires_grad_(i < 2) for i, x in enumerate(rounded)))
    for a, b in zip(found, wanted, strict=True):
        error = float((a.double() - b).norm() / b.norm())
        assert error < (1e-5 if kind == "float32" else 2e-2)
    calls = [s for s in STEPS if isinstance(s, ExternCall)]
    assert any(c.op.name == "fused_attention_backward" for c in calls)
    assert not any(c.op.name == "cat" for c in calls)


def attention_step(x: Any, w: Any, g: Any) -> Any:
    return graphtorch.autograd.grad(joined_attention(x, w), (x, w), g)


def attention_with_bias(x: Any, w: Any, b: Any, g: Any) -> Any:
    batch, t, width = x.shape
    q, k, v = (z.view(batch, t, 2, width // 2).transpose(1, 2) for z in F.linear(x, w, b).split(width, 2))
    made = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(batch, t, width)
    return graphtorch.autograd.grad(made, (x, w, b), g)


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize("tokens", [32, 96, 40])
def test_gradients_of_attention_begin_the_sum_of_their_rows(
    tokens: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradient of the bias of queries, keys and values; 40 tokens are no whole groups."""
    monkeypatch.setattr(bias, "FEWEST", 1)
    step = graphtorch.compile(attention_with_bias, backend=registered(InterpretedBackend(Limits(4096))))
    graphtorch.manual_seed(0)
    shapes = [(2, tokens, 32), (96, 32), (96,), (2, tokens, 32)]
    given = [(graphtorch.randn(*s) * (0.2 if len(s) == 2 else 1.0)).to(getattr(graphtorch, kind)) for s in shapes]
    found = step(*(x.clone().requires_grad_(i < 3) for i, x in enumerate(given)))
    wanted = attention_with_bias(*(x.double().requires_grad_(i < 3) for i, x in enumerate(given)))
    for a, b in zip(found, wanted, strict=True):
        assert float((a.double() - b).norm() / b.norm()) < (1e-5 if kind == "float32" else 2e-2)
    (call,) = [s for s in STEPS if isinstance(s, ExternCall) and s.op.name == "fused_attention_backward"]
    assert isinstance(call, FusedCall) and (call.sums is not None) == (tokens % 32 == 0)


STEPS: list[Any] = []


def registered(backend: Any) -> str:
    """A name under which the backend can be asked for, which notes the steps of what it compiles."""
    from graphtorch.lowering.backend import register

    compile_graph = backend.compile

    def noted(graph: Graph, donations: Any = None) -> Any:
        made = compile_graph(graph, donations)
        STEPS[:] = made.schedule.steps
        return made

    backend.compile = noted
    register(backend)
    return str(backend.name)
