"""What fuses and what does not: counts of kernels, in-place updates, the order of steps, the report, and the time it
takes."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphtorch
import graphtorch.nn
from graphtorch.ir.graph import Graph
from graphtorch.lowering.kernel import Compute, ExternCall, Kernel, Reduce, Schedule
from graphtorch.schedule import Limits, build_schedule, lower_to_primitives
from graphtorch.schedule.memory import loads_of, plan
from graphtorch.tensor import dtypes
from graphtorch.tensor.symint import SymbolScope, symbol

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lowering"))
from programs import NUMBER, f32, i64, mlp_step, random_program, trace


def kernels_of(function: Any, *types: Any, limits: Limits | None = None) -> list[Kernel]:
    return build_schedule(trace(function, *types), limits=limits).kernels


def combines(kernel: Kernel) -> list[str]:
    """The folds of a kernel, sorted."""
    found: dict[int, str] = {}
    stack: list[Any] = [s.value for s in kernel.stores]
    while stack:
        expr = stack.pop()
        if isinstance(expr, Reduce):
            found[id(expr)] = expr.combine
        stack.extend(expr.operands())
    return sorted(found.values())


ONE_KERNEL: dict[str, tuple[Any, ...]] = {
    "pointwise chain": (lambda x, y: (x * y + 1).exp().relu() - y, f32(4, 5), f32(5)),
    "softmax": (lambda x: graphtorch.softmax(x, -1), f32(32, 100)),
    "softmax over the first dimension": (lambda x: graphtorch.softmax(x, 0), f32(32, 100)),
    "softmax of a transposed view": (lambda x: graphtorch.softmax(x.t(), -1) * 2, f32(32, 100)),
    "log_softmax": (lambda x: graphtorch.log_softmax(x, 1), f32(32, 100)),
    "variance": (lambda x: x.var(-1, correction=0), f32(32, 100)),
    "normalisation of groups": (
        lambda x: (x.reshape(4, 2, 12) - x.reshape(4, 2, 12).mean(-1, keepdim=True)).reshape(4, 6, 2, 2).relu(),
        f32(4, 6, 2, 2),
    ),
    "mean squared error": (lambda x, y: ((x - y) ** 2).mean(), f32(64, 10), f32(64, 10)),
    "cross entropy": (
        lambda x, y: -(graphtorch.log_softmax(x, -1) * graphtorch.one_hot(y, 10)).sum() / 64,
        f32(64, 10),
        i64(64),
    ),
    "cross entropy of class indices": (lambda x, y: graphtorch.nn.functional.cross_entropy(x, y), f32(64, 10), i64(64)),
    "activation and bias gradients": (
        lambda z, g: (graphtorch.where(z > 0, g, 0.0), graphtorch.where(z > 0, g, 0.0).sum(0)),
        f32(64, 128),
        f32(64, 128),
    ),
    "siblings that read the same data": (lambda x: (x.sin(), x.cos()), f32(300, 500)),
    "sum and sum of squares": (lambda x: (x.sum(0), (x * x).sum(0)), f32(3000, 300)),
    "a causal mask": (
        lambda x: graphtorch.softmax(
            x.masked_fill(graphtorch.arange(16).unsqueeze(0) > graphtorch.arange(16).unsqueeze(1), float("-inf")), -1
        ),
        f32(8, 16, 16),
    ),
    "a row computed once more where it is broadcast": (
        lambda x, s: x * (s + 1).rsqrt().unsqueeze(1),
        f32(300, 500),
        f32(300),
    ),
    "an update with a run-time rate": (lambda p, g, lr: p - lr * g, f32(10, 10), f32(10, 10), NUMBER),
    "a slice of a computed value": (lambda x: (x * 2).narrow(1, 1, 3) + 1, f32(4, 5)),
}


@pytest.mark.parametrize("name", ONE_KERNEL)
def test_is_one_kernel(name: str) -> None:
    schedule = build_schedule(trace(*ONE_KERNEL[name]))
    assert len(schedule.steps) == 1, "\n".join(schedule.report)
    assert isinstance(schedule.steps[0], Kernel)


def test_layer_norm_is_one_kernel() -> None:
    def layer_norm(x: Any, w: Any, b: Any) -> Any:
        mean = x.mean(-1, keepdim=True)
        centred = x - mean
        return centred * ((centred * centred).mean(-1, keepdim=True) + 1e-5).rsqrt() * w + b

    (kernel,) = kernels_of(layer_norm, f32(2, 32, 64), f32(64), f32(64))
    assert combines(kernel) == ["sum", "sum"]
    assert [a.reduction for a in kernel.axes] == [False, True]  # batch and position are one axis


def test_softmax_reads_its_input_once() -> None:
    (kernel,) = kernels_of(lambda x: graphtorch.softmax(x, -1), f32(8, 10))
    assert len(loads_of(kernel)) == 1
    assert [(a.size, a.reduction) for a in kernel.axes] == [(8, False), (10, True)]


def test_views_have_no_kernel() -> None:
    schedule = build_schedule(trace(lambda x: (x.t(), x[1:, ::2], x.reshape(2, 10).expand(3, 2, 10)), f32(4, 5)))
    assert schedule.steps == []
    assert [v.buffer for v in schedule.outputs] == schedule.inputs * 3
    assert schedule.outputs[0].strides == (1, 5)
    assert (schedule.outputs[1].offset, schedule.outputs[1].strides) == (5, (5, 2))
    assert schedule.outputs[2].strides == (0, 10, 1)


def test_flips_are_index_arithmetic() -> None:
    (kernel,) = kernels_of(lambda x: x.flip(1) * 2, f32(4, 5))
    assert [(a.offset, a.strides) for a in loads_of(kernel)] == [(4, (5, -1))]
    # As an output a flip is a tensor of its own, not a view.
    schedule = build_schedule(trace(lambda x: x.flip(0), f32(4)))
    assert len(schedule.kernels) == 1 and schedule.outputs[0].buffer.kind == "output"


def test_a_reshape_that_is_not_affine_is_one_copy() -> None:
    schedule = build_schedule(trace(lambda x: x.t().reshape(-1), f32(4, 5)))
    assert len(schedule.kernels) == 1
    assert "not affine" in "\n".join(schedule.report) or "clone" in "\n".join(schedule.report)
    # In a kernel the same reshape costs nothing: loops are renumbered instead.
    assert len(kernels_of(lambda x: (x.t() * 2).reshape(-1) + 1, f32(4, 5))) == 1


def test_matrix_products_take_transposed_views() -> None:
    schedule = build_schedule(trace(lambda x, w: graphtorch.relu(x @ w.t()), f32(3, 4), f32(5, 4)))
    call, kernel = schedule.steps
    assert isinstance(call, ExternCall) and isinstance(kernel, Kernel)
    assert call.args[1].shape == (4, 5) and call.args[1].strides == (1, 4)


def test_large_folds_are_not_kept_for_a_second_pass() -> None:
    """512 KiB do not stay in cache: the mean is one kernel, what needs the elements again another."""
    schedule = build_schedule(trace(lambda x: x - x.mean(1, keepdim=True), f32(4, 1 << 17)))
    assert len(schedule.kernels) == 2
    assert any("do not stay in cache" in line for line in schedule.report)


def test_folds_over_other_axes_are_other_kernels() -> None:
    schedule = build_schedule(trace(lambda x: graphtorch.softmax(x, 1).sum(0), f32(8, 10)))
    assert len(schedule.kernels) == 2
    assert any("sum" in line and "not fused" in line and "reduces over other axes" in line for line in schedule.report)


def test_a_fold_over_fewer_axes_than_one_that_it_needs_is_another_kernel() -> None:
    def pooled(x: Any) -> Any:
        return (x - x.mean((0, 2), keepdim=True)).relu().mean(2)

    schedule = build_schedule(trace(pooled, f32(4, 3, 8)))
    assert len(schedule.kernels) == 2
    assert any("folds fewer axes than a fold that it needs" in line for line in schedule.report)


def test_nested_folds_can_be_forbidden() -> None:
    """A backend whose kernels have one level of reduction axes."""

    def program(x: Any) -> Any:
        return graphtorch.log_softmax(x, -1).sum()

    assert len(kernels_of(program, f32(64, 10))) == 1
    assert len(kernels_of(program, f32(64, 10), limits=Limits(nested=False))) == 2


def test_no_kernel_waits_for_itself() -> None:
    """c = f(a @ ...) reads a product of b, which reads a: a and c in one kernel would be a cycle."""

    def program(x: Any, w: Any) -> Any:
        a = x.exp()
        b = (a @ w).exp()
        return a + b

    schedule = build_schedule(trace(program, f32(4, 4), f32(4, 4)))
    assert len(schedule.kernels) == 2
    assert any("cycle" in line for line in schedule.report)
    check_order(schedule)


def check_order(schedule: Schedule) -> None:
    """Every buffer is written before it is read, and temporaries are written once."""
    written = set(schedule.inputs)
    for step in schedule.steps:
        for buffer in step.reads():
            assert buffer in written, f"{step.name} reads {buffer.name} before it is written"
        for buffer in step.writes():
            assert buffer.kind == "input" or buffer not in written
            written.add(buffer)
    for view in schedule.outputs:
        assert view.buffer in written


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32))
def test_random_programs_are_well_ordered(seed: int) -> None:
    draw = random.Random(seed)
    graph = random_program(draw.randrange, 16)
    schedule = build_schedule(graph)
    check_order(schedule)
    for kernel in schedule.kernels:
        check_kernel(kernel)


def check_kernel(kernel: Kernel) -> None:
    """The rules of kernel.py: one stride an axis, parallel axes first, folds over reduction axes, stores over parallel
    ones."""
    reductions = [a.reduction for a in kernel.axes]
    assert reductions == sorted(reductions)
    for access in [*loads_of(kernel), *(s.access for s in kernel.stores)]:
        assert len(access.strides) == len(kernel.axes)
    for store in kernel.stores:
        assert store.value.dtype is store.access.buffer.dtype
        for axis, stride in zip(kernel.axes, store.access.strides, strict=True):
            assert axis.reduction or stride != 0, "a value would be stored many times over"
    stack: list[Any] = [s.value for s in kernel.stores]
    while stack:
        expr = stack.pop()
        if isinstance(expr, Reduce):
            assert expr.axes and all(reductions[a] for a in expr.axes)
        if isinstance(expr, Compute):
            assert expr.instruction != "copy"
        stack.extend(expr.operands())


def test_training_step() -> None:
    """Five products; bias, activation, loss, and each update with the gradient that feeds it: one kernel each."""
    graph, donations = mlp_step()
    schedule = build_schedule(graph, donations)
    calls = [s for s in schedule.steps if isinstance(s, ExternCall)]
    assert len(calls) == 5 and len(schedule.kernels) <= 6, "\n".join(schedule.report)
    check_order(schedule)
    for output, source in donations.items():
        assert schedule.outputs[output].buffer is schedule.inputs[source]
    # Nothing is copied: every parameter is updated by the kernel that computes its new value.
    assert not any("copied" in line for line in schedule.report)


def test_report_names_the_users_lines() -> None:
    schedule = build_schedule(trace(lambda x: graphtorch.softmax(x, 1).sum(0), f32(8, 10)))
    assert schedule.report[0].startswith("k0 | amax (train.py:12, decomposed from softmax), sub (")
    assert any(line.startswith("k1 | sum (train.py:12)") for line in schedule.report)


def test_symbolic_sizes_fuse_like_static_ones() -> None:
    batch = symbol("batch", hint=64)
    graph, donations = mlp_step(batch)
    static, _ = mlp_step(64)
    symbolic, fixed = build_schedule(graph, donations), build_schedule(static, donations)
    assert [len(s.nodes) for s in symbolic.steps] == [len(s.nodes) for s in fixed.steps]
    assert any(axis.size is batch or axis.size == batch for k in symbolic.kernels for axis in k.axes)


def test_donations_are_checked() -> None:
    graph = trace(lambda x: (x + 1, x.sum()), f32(4))
    with pytest.raises(ValueError, match="several outputs"):
        build_schedule(trace(lambda x: (x + 1, x + 2), f32(4)), {0: 0, 1: 0})
    with pytest.raises(ValueError, match="can't overwrite"):
        build_schedule(graph, {1: 0})


def test_primitives_have_operands_of_the_computing_dtype() -> None:
    half = f32(4).with_dtype(dtypes.float16)

    def program(x: Any, h: Any, n: Any, lr: Any) -> Any:
        return x * h + n, graphtorch.where(x > lr, x, h), graphtorch.add(x, h, alpha=2)

    lowered = lower_to_primitives(trace(program, f32(4), half, i64(4), NUMBER))
    for node in lowered.nodes:
        if node.op.kind == "pointwise" and node.op.name not in ("cast", "where"):
            assert len({v.dtype for v in node.operands()}) == 1, node
        assert node.op.name != "add" or node.argument("alpha") == 1


def test_unused_operators_disappear() -> None:
    def program(x: Any) -> Any:
        _ = graphtorch.softmax(x, 0)
        return x * 2

    assert [n.op.name for n in lower_to_primitives(trace(program, f32(4))).nodes] == ["mul"]


def test_lowering_leaves_the_graph_alone() -> None:
    graph, donations = mlp_step(8, 6, 5, 4)
    before = [(n.op.name, n.args) for n in graph.nodes]
    build_schedule(graph, donations)
    assert [(n.op.name, n.args) for n in graph.nodes] == before
    assert isinstance(graph, Graph)


def test_scheduling_records_no_guard() -> None:
    """Fusion only compares sizes structurally: it narrows nothing that capture left open."""
    scope = SymbolScope()
    batch, width = scope.symbol(hint=8), scope.symbol(hint=8)
    graph = trace(
        lambda x, w: ((x @ w).softmax(-1) + x.sum(1, keepdim=True), x * 2), f32(batch, width), f32(width, width)
    )
    before = list(scope.guards)
    schedule = build_schedule(graph, {1: 0})
    plan(schedule, {"s0": 8, "s1": 8})
    assert scope.guards == before
