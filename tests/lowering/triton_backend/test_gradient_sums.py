"""Gradients of batch norms between convolutions: sums over pixels that begin on the tiles of the input gradient that
stores what they are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from programs import HERE, arrays, close

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

from graphtorch.lowering.kernel import Kernel
from graphtorch.lowering.triton import moments
from graphtorch.lowering.triton.backend import InterpretedBackend, TritonExecutable
from graphtorch.lowering.triton.compiler import compile_one, resources
from graphtorch.lowering.triton.fused import FusedCall
from graphtorch.lowering.triton.listing import plan_for
from graphtorch.lowering.triton.passes import prepare_schedule
from graphtorch.lowering.triton.templates import product_candidates
from graphtorch.lowering.triton.tiling import Limits

SMALL = Limits(pointwise=256)


@pytest.fixture(autouse=True)
def few_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHTORCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(moments, "FEWEST", 32)


def step(function: Any, kind: str, *shapes: tuple[Any, ...]) -> Graph:
    """A sum of squares and its gradients in all but the first operand."""
    graph = Graph("step")
    types = [TensorType(getattr(dtypes, kind), s) for s in shapes]
    inputs = [graph.add_input(t, f"x{i}", "parameter" if i else "argument") for i, t in enumerate(types)]
    builder = GraphBuilder(graph, HERE)
    with builder:
        result = wrap(builder.value_of(function(*map(wrap, inputs)))).float()
        loss = builder.value_of((result * result).mean())
    for i, value in enumerate((loss, *append_gradients(graph, (loss,), (None,), tuple(inputs[1:]), builder))):
        assert value is not None
        graph.add_output(value, f"result{i}")
    return graph


def norm(x: Any, w: Any, b: Any) -> Any:
    return F.batch_norm(x, None, None, w, b, True)


def chain(stride: int) -> Any:
    def run(x: Any, first: Any, second: Any, w: Any, b: Any) -> Any:
        return F.conv2d(F.relu(norm(F.conv2d(x, first), w, b)), second, None, stride, 1)

    return run


def with_residual(x: Any, first: Any, second: Any, w: Any, b: Any) -> Any:
    """The gradient that is summed is made in the epilogue of one of two input gradients."""
    y = norm(F.conv2d(x, first), w, b)
    return F.conv2d(y, second, None, 1, 1) + y


def with_shortcut(x: Any, first: Any, second: Any, w: Any, b: Any) -> Any:
    """The same kernel sums for two norms, from two images beside the gradient."""
    y = norm(F.conv2d(x, first), w, b) + norm(F.conv2d(x, first * 2, None, 1, 0), b, w)
    return F.conv2d(F.relu(y), second, None, 1, 1)


SHAPES = ((4, 16, 8, 8), (16, 16, 1, 1), (16, 16, 3, 3), (16,), (16,))
RAGGED = ((3, 16, 7, 5), *SHAPES[1:])


def begun(executable: TritonExecutable) -> list[FusedCall]:
    assert executable.schedule is not None
    return [s for s in executable.schedule.steps if isinstance(s, FusedCall) and s.values is not None]


def check(graph: Graph, tolerance: float, limits: Limits | None = SMALL, bindings: Any = None) -> TritonExecutable:
    inputs = arrays(graph, bindings=bindings)
    expected = interpret(graph, [np.copy(x) for x in inputs])
    executable = InterpretedBackend(limits).compile(graph)
    for a, b in zip(executable.run([np.copy(x) for x in inputs]), expected, strict=True):
        close(a, b, tolerance, tolerance * max(float(np.abs(b.astype(np.float64)).max()), 1e-2))
    (program,) = executable._programs.values()
    assert not program.launches.unsupported
    return executable


@pytest.mark.parametrize("program", [chain(1), chain(2), with_residual, with_shortcut])
def test_values(program: Any) -> None:
    executable = check(step(program, "float32", *SHAPES), 1e-3)
    (call,) = begun(executable)
    assert call.op.name == "conv2d_input_grad" and call.values is not None
    # What the tiles have added up is read instead of images.
    assert executable.schedule is not None
    sums = {s.access.buffer for s in call.values.kernel.stores}
    readers = [s for s in executable.schedule.steps if isinstance(s, Kernel) and sums & set(s.reads())]
    assert readers and not any(len(b.shape) == 4 and b.shape[0] > 1 for s in readers for b in s.reads())


@pytest.mark.parametrize("shapes", [SHAPES, RAGGED])
@pytest.mark.parametrize("program", [chain(1), chain(2), chain(3), with_residual])
def test_half_precision(program: Any, shapes: Any) -> None:
    """Values are those of the stored image, rounded, as another kernel reads them. Groups may end beyond the image."""
    assert begun(check(step(program, "bfloat16", *shapes), 8e-2))


@pytest.mark.parametrize("program", [chain(2), with_residual, with_shortcut])
def test_pixels_that_are_no_groups(program: Any) -> None:
    check(step(program, "float32", *RAGGED), 1e-3)


@pytest.mark.parametrize("program", [chain(1), chain(2), with_residual])
def test_symbolic_batch(program: Any) -> None:
    batch = symbol("batch", hint=4)
    graph = step(program, "bfloat16", (batch, 16, 8, 8), *SHAPES[1:])
    for n in (4, 1):
        assert begun(check(graph, 8e-2, bindings={"batch": n}))


def test_default_blocks() -> None:
    assert begun(check(step(chain(2), "float32", *SHAPES), 1e-3, None))


def test_images_that_are_not_known_yet() -> None:
    """A sum with what is computed from the gradient itself, after it, stays a kernel of its own."""

    def run(x: Any, first: Any, second: Any, w: Any, b: Any) -> Any:
        y = F.conv2d(x, first)
        z = F.conv2d(norm(y, w, b), second, None, 1, 1)
        return F.conv2d(norm(y * 2, b, w) + z, second, None, 1, 1)

    check(step(run, "float32", *SHAPES), 2e-3)


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
def test_machine_code(target: str, monkeypatch: pytest.MonkeyPatch, early: bool) -> None:
    """No spilled registers; only where tiles leave enough of them, and images are many."""
    monkeypatch.undo()
    for channels, count in ((64, 1), (256, 0)):
        shapes = (
            (64, channels, 28, 28),
            (channels, channels, 1, 1),
            (channels, channels, 3, 3),
            (channels,),
            (channels,),
        )
        graph = step(chain(1), "bfloat16", *shapes)
        found = [s for s in plan_for(build_schedule(graph)).launches if "stored = " in s.function.source]
        assert len(found) == count
        for launch in found:
            compiled = compile_one(launch.function, target)
            assert compiled.binary
            if target.startswith("sm"):
                assert resources(compiled).stack == 0 or (early and target == "sm_80")


def test_candidates_have_tiles_of_whole_groups() -> None:
    shapes = ((64, 64, 16, 16), (64, 64, 1, 1), (64, 64, 3, 3), (64,), (64,))
    schedule = prepare_schedule(build_schedule(step(chain(1), "bfloat16", *shapes)))
    (call,) = [s for s in schedule.steps if isinstance(s, FusedCall) and s.values is not None]
    found = product_candidates(call, {})
    assert len(found) > 2 and all(c.block_m >= call.rows for c in found)
