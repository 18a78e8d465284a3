"""Images of few channels before a convolution: values, where copies are made and where not, machine code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from programs import HERE, arrays, close, trace

from graphtorch.autodiff.reverse import append_gradients
from graphtorch.ir.builder import GraphBuilder, wrap
from graphtorch.ir.graph import Graph
from graphtorch.lowering.numpy.interpreter import interpret
from graphtorch.nn import functional as F
from graphtorch.schedule import build_schedule
from graphtorch.tensor import dtypes
from graphtorch.tensor.symint import symbol
from graphtorch.tensor.type import TensorType

pytest.importorskip("triton")

from graphtorch.lowering.kernel import ExternCall, View
from graphtorch.lowering.triton.backend import InterpretedBackend, TritonExecutable
from graphtorch.lowering.triton.compiler import compile_all, resources
from graphtorch.lowering.triton.listing import plan_for
from graphtorch.lowering.triton.narrow import Framed
from graphtorch.lowering.triton.passes import prepare_schedule
from graphtorch.lowering.triton.tiling import Limits

SMALL = Limits(pointwise=256)
TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHTORCH_CACHE", str(tmp_path / "cache"))


def typed(kind: str, *shape: Any) -> TensorType:
    return TensorType(getattr(dtypes, kind), shape)


def with_gradients(function: Any, image: TensorType, *weights: TensorType) -> Graph:
    """The sum of squares of a function's result, and the gradients in its weights."""
    graph = Graph("step")
    x = graph.add_input(image, "x")
    inputs = [graph.add_input(t, f"w{i}", "parameter") for i, t in enumerate(weights)]
    builder = GraphBuilder(graph, HERE)
    with builder:
        result = wrap(builder.value_of(function(wrap(x), *map(wrap, inputs))))
        loss = builder.value_of((result.float() * result.float()).sum())
    made = append_gradients(graph, (loss,), (None,), tuple(inputs), builder)
    for i, value in enumerate((loss, *made)):
        assert value is not None
        graph.add_output(value, f"result{i}")
    return graph


def check(
    graph: Graph, kind: str = "float32", limits: Limits | None = SMALL, bindings: Any = None, inputs: Any = None
) -> TritonExecutable:
    inputs = inputs or arrays(graph, bindings=bindings)
    expected = interpret(graph, [np.array(x) for x in inputs])
    executable = InterpretedBackend(limits).compile(graph)
    for actual, wanted in zip(executable.run(inputs), expected, strict=True):
        known = wanted.astype(np.float64)
        scale = max(float(np.abs(known[np.isfinite(known)]).max(initial=1.0)), 1.0)
        close(actual, wanted, TOLERANCE[kind], TOLERANCE[kind] * scale)
    (program,) = executable._programs.values()
    assert not program.launches.unsupported
    return executable


def framed(steps: Any) -> list[Framed]:
    return list(dict.fromkeys(b for s in steps for b in s.writes() if isinstance(b, Framed)))


# kind, image, kernel, stride, padding, dilation
CASES = [
    ("float32", (2, 3, 9, 8), (5, 3, 7, 7), (2, 2), (3, 3), (1, 1)),
    ("bfloat16", (2, 3, 18, 30), (16, 3, 7, 7), (2, 2), (3, 3), (1, 1)),  # rows of 15 pixels, filled up to 16
    ("float32", (2, 4, 6, 14), (20, 4, 3, 3), (1, 1), (1, 1), (1, 1)),
    ("float32", (1, 3, 7, 9), (4, 3, 3, 3), (2, 2), (0, 1), (1, 1)),
    ("bfloat16", (2, 6, 9, 6), (8, 6, 3, 4), (1, 2), (2, 0), (2, 1)),
    ("float32", (3, 8, 5, 5), (17, 8, 5, 2), (1, 1), (0, 0), (1, 1)),
    ("float32", (2, 5, 1, 12), (3, 5, 1, 4), (1, 1), (0, 2), (1, 1)),  # one dimension
]


@pytest.mark.parametrize(("kind", "image", "kernel", "stride", "padding", "dilation"), CASES)
@pytest.mark.parametrize("limits", [SMALL, None])
def test_values_and_gradients(
    kind: str, image: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, limits: Limits | None
) -> None:
    """The image is rounded by the copy, of which there is one."""
    graph = with_gradients(
        lambda x, w: F.conv2d(x.to(w.dtype), w, None, stride, padding, dilation) * 0.1,
        typed("float32", *image),
        typed(kind, *kernel),
    )
    executable = check(graph, kind, limits)
    assert executable.schedule is not None
    assert len(framed(prepare_schedule(executable.schedule).steps)) == 2  # the image, and the kernel
    (program,) = executable._programs.values()
    assert "fused_cast" not in {s.function.name for s in program.launches.launches}


def test_products_in_full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphtorch.tensor.precision import settings

    monkeypatch.setattr(settings, "convolution", "ieee")
    graph = with_gradients(
        lambda x, w: F.conv2d(x, w, None, 2, 1), typed("float32", 1, 3, 8, 8), typed("float32", 5, 3, 3, 3)
    )
    for limits in (SMALL, None):
        check(graph, "float32", limits)


def test_symbolic_batch() -> None:
    batch = symbol("batch", hint=2)
    graph = with_gradients(
        lambda x, w: F.conv2d(x, w, None, 2, 3), typed("float32", batch, 3, 8, 7), typed("float32", 4, 3, 7, 7)
    )
    for n in (1, 3):
        executable = check(graph, bindings={"batch": n})
        assert executable.schedule is not None
        assert framed(prepare_schedule(executable.schedule).steps)


def test_what_is_not_finite_stays_where_it_is() -> None:
    """Runs of memory are longer than what lies under the kernel: beyond it nothing is read, not even for a zero."""
    graph = trace(lambda x, w: F.conv2d(x, w, None, 2, 3), typed("float32", 2, 3, 12, 13), typed("float32", 4, 3, 7, 7))
    x, w = arrays(graph)
    x[0, 1, 5, 12], x[1, 2, 11, 0], x[1, 0, 0, 6] = np.nan, np.inf, -np.inf
    executable = check(graph, inputs=[x, w])
    found = np.isfinite(executable.run([x, w])[0])
    assert found.any() and not found.all()


def test_the_rounded_image_is_kept_for_others() -> None:
    def run(x: Any, w: Any) -> Any:
        half = x.bfloat16()
        return F.conv2d(half, w, None, 1, 1), half

    executable = check(trace(run, typed("float32", 2, 3, 6, 6), typed("bfloat16", 4, 3, 3, 3)), "bfloat16")
    assert executable.schedule is not None
    steps = prepare_schedule(executable.schedule).steps
    (image, _) = [s for s in steps if isinstance(s, ExternCall) and s.op.name == "constant_pad_nd"]
    assert isinstance(image.args[0], View) and image.args[0].buffer.dtype is dtypes.bfloat16


@pytest.mark.parametrize(
    ("image", "kernel", "stride", "dilation", "groups"),
    [
        ((1, 3, 8, 8), (4, 3, 4, 4), 4, 1, 1),  # patches: each element is read once
        ((1, 2, 8, 8), (4, 2, 3, 3), 1, 1, 1),
        ((1, 16, 8, 8), (4, 16, 3, 3), 1, 1, 1),
        ((1, 3, 8, 8), (4, 3, 3, 3), 1, 2, 1),  # its columns are apart
        ((1, 4, 8, 8), (4, 2, 3, 3), 1, 1, 2),
        ((1, 3, 8, 8), (4, 3, 1, 1), 1, 1, 1),
    ],
)
def test_where_no_copy_pays(image: Any, kernel: Any, stride: int, dilation: int, groups: int) -> None:
    graph = trace(
        lambda x, w: F.conv2d(x, w, None, stride, 0, dilation, groups),
        typed("float32", *image),
        typed("float32", *kernel),
    )
    executable = check(graph)
    assert executable.schedule is not None
    assert not framed(prepare_schedule(executable.schedule).steps)


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
def test_runs_are_loaded_eight_bytes_at_a_time(target: str) -> None:
    """Forward, and in the kernel's gradient, which has two programs a multiprocessor."""
    graph = with_gradients(
        lambda x, w, v: F.conv2d(F.conv2d(x.to(w.dtype), w, None, 2, 3).relu(), v, None, 1, 1),
        typed("float32", 64, 3, 224, 224),
        typed("bfloat16", 64, 3, 7, 7),
        typed("bfloat16", 64, 64, 3, 3),
    )
    launches = [
        s
        for s in plan_for(build_schedule(graph)).launches
        if s.function.name.startswith("conv2d") and any(isinstance(b, Framed) for b in s.function.buffers)
    ]
    assert [s.grid[0] for s in launches] == [6272, 2 * 132]
    for compiled in compile_all([s.function for s in launches], target):
        if target == "gfx942":
            continue
        assert resources(compiled).stack == 0, compiled.name
        assert "ld.global.b16" not in compiled.assembly
        assert "cp.async.ca.shared.global" in compiled.assembly and ", 0x8, " in compiled.assembly
        assert "cp.async.cg.shared.global" in compiled.assembly  # sixteen, of the other operand
