"""Input gradients of strided convolutions, and transposed convolutions: a product for each phase of the pixels, which
sums over the places of the kernel that reach it and over no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from programs import arrays, close, trace

from graphtorch.lowering.numpy.interpreter import interpret
from graphtorch.nn import functional as F
from graphtorch.ops.convolution import conv2d_input_grad
from graphtorch.schedule import build_schedule
from graphtorch.tensor import dtypes
from graphtorch.tensor.symint import symbol
from graphtorch.tensor.type import TensorType

pytest.importorskip("triton")

from triton.runtime import interpreter

from graphtorch.lowering.kernel import ExternCall
from graphtorch.lowering.triton.backend import InterpretedBackend, TritonExecutable
from graphtorch.lowering.triton.compiler import compile_all, resources
from graphtorch.lowering.triton.fused import FusedCall, extents
from graphtorch.lowering.triton.layout import ChannelsLast
from graphtorch.lowering.triton.listing import plan_for
from graphtorch.lowering.triton.tiling import Limits

SMALL = Limits(pointwise=256)
TOLERANCE = {"float32": 1e-4, "bfloat16": 6e-2}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHTORCH_CACHE", str(tmp_path / "cache"))


def typed(kind: str, *shape: Any) -> TensorType:
    return TensorType(getattr(dtypes, kind), shape)


def check(graph: Any, kind: str = "float32", limits: Limits | None = SMALL, bindings: Any = None) -> TritonExecutable:
    inputs = arrays(graph, bindings=bindings)
    expected = interpret(graph, [np.array(x) for x in inputs])
    executable = InterpretedBackend(limits).compile(graph)
    for actual, wanted in zip(executable.run(inputs), expected, strict=True):
        scale = max(float(np.abs(wanted.astype(np.float64)).max(initial=1.0)), 1.0)
        close(actual, wanted, TOLERANCE[kind], TOLERANCE[kind] * scale)
    (program,) = executable._programs.values()
    assert not program.launches.unsupported
    return executable


# stride, padding, dilation, kernel, size of the gradient, places of the kernel
CASES = [
    ((2, 2), (1, 1), (1, 1), (3, 3), (8, 6)),
    ((2, 2), (0, 0), (1, 1), (1, 1), (7, 5)),  # three phases without a place
    ((2, 2), (3, 3), (1, 1), (7, 7), (9, 8)),
    ((2, 1), (1, 1), (1, 1), (3, 3), (8, 5)),
    ((1, 3), (0, 1), (1, 1), (2, 2), (5, 8)),
    ((4, 6), (2, 1), (2, 4), (3, 3), (13, 15)),  # stride and dilation have divisors in common
    ((2, 2), (1, 2), (2, 2), (3, 3), (9, 8)),
    ((3, 3), (1, 0), (2, 1), (2, 4), (10, 9)),
    ((2, 2), (0, 1), (1, 1), (2, 3), (12, 7)),  # pixels at the end that nothing reaches
]


def result_of(stride: Any, padding: Any, dilation: Any, kernel: Any, size: Any) -> list[int]:
    """Rows and columns of the convolution's result."""
    each = zip(size, padding, dilation, kernel, stride, strict=True)
    return [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, p, d, k, s in each]


@pytest.mark.parametrize("case", CASES)
def test_every_place_is_multiplied_once_a_phase(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once for each pixel: counted in blocks of 16 pixels, of all channels."""
    stride, padding, dilation, kernel, size = case
    blocks: list[Any] = []
    dot = interpreter.InterpreterBuilder.create_dot

    def counted(self: Any, x: Any, *rest: Any) -> Any:
        blocks.append(x.data.shape)
        return dot(self, x, *rest)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", counted)
    sizes = (2, 16, *size)
    graph = trace(
        lambda y, w: conv2d_input_grad(y, w, sizes, stride, padding, dilation, 1),
        typed("float32", 2, 16, *result_of(*case)),
        typed("float32", 16, 16, *kernel),
    )
    executable = check(graph)
    assert executable.schedule is not None
    (call,) = [s for s in executable.schedule.steps if isinstance(s, ExternCall)]  # beside copies by channel
    pixels = 2 * (-(-size[0] // stride[0])) * (-(-size[1] // stride[1]))
    assert set(blocks) == {(16, 16)}
    assert len(blocks) == -(-pixels // 16) * kernel[0] * kernel[1]
    m, n, k, count = extents(call)  # what the estimate counts
    assert (m, n) == (pixels, 16)
    assert 0 <= k * count - 16 * kernel[0] * kernel[1] < count


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("kind", "groups"), [("float32", 1), ("bfloat16", 2)])
def test_images_with_channels_side_by_side(kind: str, groups: int, case: Any) -> None:
    """Between convolutions, with something on the tiles of the result, which pixels without places get as well."""
    stride, padding, dilation, kernel, size = case
    sizes = (2, 32, *size)

    def run(y: Any, w: Any, first: Any, last: Any, bias: Any) -> Any:
        made = conv2d_input_grad(F.conv2d(y, first) * 0.1, w, sizes, stride, padding, dilation, groups)
        return F.conv2d((made * 0.1 + bias).tanh(), last)

    shapes = [(2, 3, *result_of(*case)), (32, 32 // groups, *kernel), (32, 3, 1, 1), (4, 32, 1, 1), (1, 32, 1, 1)]
    executable = check(trace(run, *(typed(kind, *s) for s in shapes)), kind)
    assert executable.schedule is not None
    (call,) = [s for s in executable.schedule.steps if isinstance(s, FusedCall) and s.op.name == "conv2d_input_grad"]
    assert isinstance(call.product, ChannelsLast) and call.epilogue is not None


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_transposed_convolutions(kind: str) -> None:
    def program(x: Any, w: Any, y: Any, v: Any, b: Any) -> Any:
        wide = F.conv_transpose2d(x, w, b, 2, 1, 1, 2, 1).relu()
        return wide, F.conv_transpose1d(y, v, None, 3, 1, 2), F.conv_transpose2d(x, w, None, (3, 1), (2, 0), (2, 0))

    shapes = [(2, 4, 5, 3), (4, 3, 3, 3), (2, 3, 6), (3, 2, 4), (6,)]
    graph = trace(program, *(typed(kind, *s) for s in shapes[:1]), *(typed(kind, *s) for s in shapes[1:]))
    check(graph)


def test_symbolic_sizes() -> None:
    batch, rows = symbol("batch", hint=2), symbol("rows", hint=5)
    graph = trace(
        lambda x, w: F.conv_transpose2d(x, w, None, 2, 1, 1) + 1,
        typed("float32", batch, 3, rows, 4),
        typed("float32", 3, 4, 3, 3),
    )
    for n, h in ((2, 5), (3, 1), (1, 4)):
        check(graph, bindings={"batch": n, "rows": h})


def test_split_sums() -> None:
    """Few pixels of many channels: each part of a phase's sum in programs of its own."""
    graph = trace(
        lambda y, w: conv2d_input_grad(y, w, (1, 3, 6, 5), (2, 2), (1, 1), (1, 1), 1).relu(),
        typed("float32", 1, 1200, 3, 3),
        typed("float32", 1200, 3, 3, 3),
    )
    executable = check(graph, limits=None)
    assert executable.schedule is not None
    assert any("is split into" in line for line in executable.schedule.report)


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
@pytest.mark.parametrize(("kernel", "groups"), [(3, 1), (1, 1), (3, 2)])
def test_machine_code(target: str, kernel: int, groups: int, early: bool) -> None:
    sizes = (64, 128, 28, 28)

    def run(y: Any, w: Any, first: Any, last: Any) -> Any:
        y = F.conv2d(y, first)
        return F.conv2d(conv2d_input_grad(y, w, sizes, (2, 2), (kernel // 2,) * 2, (1, 1), groups), last)

    shapes = [(64, 256, 14, 14), (256, 128 // groups, kernel, kernel), (256, 256, 1, 1), (128, 128, 1, 1)]
    launches = plan_for(build_schedule(trace(run, *(typed("bfloat16", *s) for s in shapes)))).launches
    (function,) = [s.function for s in launches if s.function.name == "conv2d_input_grad"]
    (compiled,) = compile_all([function], target)
    if target == "gfx942":
        return
    assert resources(compiled).stack == 0
    assert "cp.async.cg.shared.global" in compiled.assembly  # 16 bytes: the only size that it has
    assert "ld.global.b16" not in compiled.assembly
