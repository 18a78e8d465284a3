"""Batch norms behind convolutions: sums over pixels that begin on the tiles of the convolution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from programs import arrays, close, trace

import graphtorch
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

SMALL = Limits(pointwise=1024)  # tiles of 32 by 32


@pytest.fixture(autouse=True)
def few_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHTORCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(moments, "FEWEST", 32)


def typed(kind: str, *shapes: tuple[int, ...]) -> list[TensorType]:
    return [TensorType(getattr(dtypes, kind), s) for s in shapes]


def normed(x: Any, first: Any, second: Any, w: Any, b: Any) -> Any:
    made = F.relu(F.batch_norm(F.conv2d(x, first, None, 1, 1), None, None, w, b, True))
    return F.conv2d(made, second)


def with_shortcut(x: Any, first: Any, second: Any, w: Any, b: Any) -> Any:
    """A kernel that normalises two images, as at the end of a block that halves them."""
    y = F.relu(F.conv2d(x, first, None, 2, 1))
    made = F.batch_norm(F.conv2d(y, second), None, None, w, b, True)
    made = F.relu(made + F.batch_norm(F.conv2d(y, second * 2, None, 1, 0), None, None, w, b, True))
    return F.conv2d(made, second)


SHAPES = ((4, 16, 8, 8), (16, 16, 3, 3), (16, 16, 1, 1), (16,), (16,))


def begun(executable: TritonExecutable) -> list[FusedCall]:
    assert executable.schedule is not None
    return [s for s in executable.schedule.steps if isinstance(s, FusedCall) and s.sums is not None]


def check(graph: Graph, tolerance: float, inputs: list[Any] | None = None) -> TritonExecutable:
    inputs = inputs or arrays(graph)
    expected = interpret(graph, [np.copy(x) for x in inputs])
    executable = InterpretedBackend(SMALL).compile(graph)
    for a, b in zip(executable.run([np.copy(x) for x in inputs]), expected, strict=True):
        close(a, b, tolerance, tolerance * max(float(np.abs(b.astype(np.float64)).max()), 1.0))
    (program,) = executable._programs.values()
    assert not program.launches.unsupported
    return executable


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize(("program", "count"), [(normed, 1), (with_shortcut, 2)])
def test_values(program: Any, count: int, kind: str) -> None:
    executable = check(trace(program, *typed(kind, *SHAPES)), 1e-4 if kind == "float32" else 6e-2)
    found = begun(executable)
    assert len(found) == count and all(s.sums is not None and s.sums.squares is not None for s in found)


def test_running_statistics() -> None:
    def program(x: Any, k: Any, mean: Any, var: Any) -> Any:
        y = F.conv2d(x, k, None, 1, 1)
        made = F.batch_norm(y, None, None, None, None, True)
        return F.conv2d(made.relu(), k), mean * 0.8 + y.mean((0, 2, 3)) * 0.2, var * 0.8 + y.var((0, 2, 3)) * 0.2

    x, k, _, w, _ = typed("float32", *SHAPES)
    assert begun(check(trace(program, x, k, w, w), 1e-4))


def test_pixels_far_from_zero() -> None:
    """A deviation of 0.03 around a mean of 1000: squares that are not relative to a mean would have lost it."""

    def program(x: Any, k: Any) -> Any:
        return F.conv2d(F.batch_norm(F.conv2d(x, k), None, None, None, None, True, 0.1, 1e-12).relu(), k)

    rng = np.random.default_rng(0)
    x = (1000.0 + 0.03 * rng.standard_normal((8, 16, 8, 8))).astype(np.float32)
    k = np.eye(16, dtype=np.float32).reshape(16, 16, 1, 1)
    executable = InterpretedBackend(SMALL).compile(trace(program, *typed("float32", x.shape, k.shape)))
    (found,) = executable.run([x, k])
    assert begun(executable)
    wide = x.astype(np.float64)
    centred = wide - wide.mean((0, 2, 3), keepdims=True)
    wanted = centred / np.sqrt((centred**2).mean((0, 2, 3), keepdims=True) + 1e-12)
    close(found, np.maximum(wanted, 0).astype(np.float32), 0, 5e-3)


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(3, 16, 5, 7), (5, 16, 4, 13)])
def test_a_last_group_of_fewer_pixels(shape: tuple[int, ...], kind: str) -> None:
    assert begun(check(trace(normed, *typed(kind, shape, *SHAPES[1:])), 1e-4 if kind == "float32" else 6e-2))


def test_few_pixels_stay_apart() -> None:
    assert not begun(check(trace(normed, *typed("float32", (1, 16, 4, 4), *SHAPES[1:])), 1e-4))


@pytest.mark.parametrize("pixels", [(8, 8), (7, 5)])
def test_symbolic_batch(pixels: tuple[int, int]) -> None:
    """Groups that always, or hardly ever, divide the pixels; far from zero, where a wrong count would show."""
    images = symbol("images", hint=4)
    x, *others = SHAPES
    graph = trace(normed, TensorType(dtypes.float32, (images, x[1], *pixels)), *typed("float32", *others))
    executable = InterpretedBackend(SMALL).compile(graph)
    assert begun(executable)
    for count in (4, 3, 2, 11):
        given = arrays(graph, bindings={"images": count})
        given[0] += 3.0
        for a, b in zip(executable.run([np.copy(x) for x in given]), interpret(graph, given), strict=True):
            close(a, b, 1e-4, 1e-4 * max(float(np.abs(b).max()), 1.0))


def test_other_folds_stay_as_they_are() -> None:
    def program(x: Any, first: Any, second: Any) -> Any:
        y = F.conv2d(x, first, None, 1, 1)
        return F.conv2d(y - y.amax((0, 2, 3), True) + y.mean((0, 2, 3), True), second)

    assert not begun(check(trace(program, *typed("float32", *SHAPES[:3])), 1e-4))


@pytest.mark.parametrize("to", ["sm_80", "sm_90", "sm_100", "gfx942"])
def test_images_are_read_once_to_normalise(to: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what the convolution stores, a sixteenth is stored again in sums; and its code spills nothing."""
    monkeypatch.undo()
    types = typed("bfloat16", (64, 64, 56, 56), (64, 64, 3, 3), (64, 64, 1, 1), (64,), (64,))
    plan = plan_for(build_schedule(trace(normed, *types)))
    image = (64, 64, 56, 56)
    large = [s for s in plan.launches if any(b.shape == image for b in s.function.buffers)]
    copied, first, *_ = large
    assert copied.function.name == "fused_clone" and len(large) == 4  # and two convolutions, and what normalises
    assert [b.shape for b in first.function.buffers].count((64 * 56 * 56 // 64, 64)) == 2
    compiled = compile_one(first.function, to)
    assert compiled.binary
    if to.startswith("sm"):
        assert resources(compiled).stack == 0


def test_sums_follow_a_norm_that_folds_and_goes_on() -> None:
    """One kernel that finds the mean and subtracts it comes apart: sums of groups first, then the pixels."""
    executable = check(trace(with_shortcut, *typed("float32", *SHAPES)), 1e-4)
    assert executable.schedule is not None
    kernels = [s for s in executable.schedule.steps if isinstance(s, Kernel)]
    assert any("moments" in k.name for k in kernels)
    for kernel in kernels:
        folds = any(a.reduction and a.size != 1 for a in kernel.axes)
        assert not (folds and any(len(b.shape) == 4 and b.shape[0] == 4 for b in kernel.reads()))


def test_candidates_have_tiles_of_whole_groups() -> None:
    types = typed("float32", (64, 64, 16, 16), (64, 64, 3, 3), (64, 64, 1, 1), (64,), (64,))
    for allowed in (True, False):
        with graphtorch.backends.cudnn.flags(allow_tf32=allowed):
            schedule = prepare_schedule(build_schedule(trace(normed, *types)))
            (call,) = [s for s in schedule.steps if isinstance(s, FusedCall) and s.sums is not None]
            assert call.sums is not None
            found = product_candidates(call, {})
            assert len(found) > 2 and all(c.block_m >= call.sums.rows for c in found)
