"""Native convolution and its gradients against the NumPy functions of the records, over many shapes."""

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import pytest

from graphtorch.ir.builder import GraphBuilder, wrap
from graphtorch.ir.graph import Graph
from graphtorch.lowering.cpu import CpuExecutable, convolution
from graphtorch.lowering.cpu.calls import Target, native_call
from graphtorch.lowering.kernel import ExternCall
from graphtorch.ops.record import REGISTRY
from graphtorch.schedule import build_schedule
from graphtorch.tensor import dtypes
from graphtorch.tensor.symint import symbol
from graphtorch.tensor.type import TensorType

# samples, groups, channels and filters of a group, height, width, kernel, stride, padding, dilation
CASES = [
    (4, 1, 3, 6, 32, 32, (5, 5), (1, 1), (0, 0), (1, 1)),
    (4, 1, 6, 16, 14, 14, (5, 5), (1, 1), (0, 0), (1, 1)),
    (2, 1, 3, 8, 40, 37, (7, 7), (2, 2), (3, 3), (1, 1)),
    (2, 1, 5, 7, 9, 50, (3, 3), (1, 1), (1, 1), (1, 1)),
    (2, 1, 4, 6, 12, 130, (3, 3), (1, 1), (1, 2), (2, 1)),
    (3, 8, 1, 1, 11, 21, (3, 3), (1, 1), (1, 1), (1, 1)),
    (2, 3, 1, 2, 11, 21, (3, 5), (2, 1), (2, 0), (1, 2)),
    (2, 2, 4, 3, 10, 10, (1, 1), (1, 1), (0, 0), (1, 1)),
    (3, 1, 8, 12, 6, 7, (1, 1), (1, 1), (0, 0), (1, 1)),
    (3, 1, 8, 12, 7, 7, (1, 1), (2, 2), (0, 0), (1, 1)),
    (2, 1, 3, 4, 8, 8, (1, 1), (1, 1), (2, 1), (1, 1)),
    (1, 1, 1, 1, 1, 1, (1, 1), (1, 1), (0, 0), (1, 1)),
    (1, 1, 2, 3, 3, 3, (3, 3), (1, 1), (0, 0), (1, 1)),
    (2, 1, 2, 3, 9, 9, (3, 3), (3, 3), (1, 1), (1, 1)),
    (2, 1, 2, 3, 10, 11, (2, 2), (3, 4), (0, 0), (1, 1)),
    (1, 1, 64, 33, 16, 16, (3, 3), (1, 1), (1, 1), (1, 1)),
    (3, 1, 40, 72, 7, 7, (3, 3), (1, 1), (1, 1), (1, 1)),
    (2, 2, 32, 48, 9, 10, (3, 3), (2, 2), (1, 1), (1, 1)),
    (9, 1, 128, 160, 4, 4, (3, 3), (1, 1), (1, 1), (1, 1)),
    (2, 1, 33, 50, 6, 9, (1, 1), (2, 2), (0, 0), (1, 1)),
    (2, 1, 64, 64, 28, 9, (4, 4), (2, 2), (1, 1), (1, 1)),
    (1, 1, 48, 32, 9, 60, (3, 3), (1, 1), (2, 2), (2, 2)),
    (1, 1, 3, 4, 5, 300, (3, 3), (1, 1), (1, 1), (1, 1)),
    (0, 1, 2, 3, 5, 5, (3, 3), (1, 1), (1, 1), (1, 1)),
]


def random_cases(count: int) -> list[Any]:
    rng = random.Random(0)
    found = []
    while len(found) < count:
        kernel = (rng.randint(1, 5), rng.randint(1, 5))
        stride, padding = (rng.randint(1, 3), rng.randint(1, 3)), (rng.randint(0, 3), rng.randint(0, 3))
        dilation = (rng.randint(1, 2), rng.randint(1, 3))
        h, w = rng.randint(1, 30), rng.randint(1, 70)
        if all(d * (k - 1) < n + 2 * p for d, k, n, p in zip(dilation, kernel, (h, w), padding)):
            channels = rng.choice([1, 2, 3, 5, 8]), rng.choice([1, 2, 3, 5, 9, 17])
            counts = rng.randint(1, 4), rng.choice([1, 1, 2, 3])
            found.append((*counts, *channels, h, w, kernel, stride, padding, dilation))
    return found


def operands(case: Any, rng: Any, dtype: Any) -> dict[str, tuple[list[Any], tuple[Any, ...]]]:
    """Of each of the three operators: its arrays, and the arguments that follow."""
    n, groups, channels, filters, h, w, kernel, stride, padding, dilation = case
    x = rng.standard_normal((n, groups * channels, h, w)).astype(dtype)
    weight = rng.standard_normal((groups * filters, channels, *kernel)).astype(dtype)
    bias = rng.standard_normal(groups * filters).astype(dtype)
    rest = (stride, padding, dilation, groups)
    rows, columns = (
        (size + 2 * p - d * (k - 1) - 1) // s + 1 for size, k, s, p, d in zip((h, w), kernel, stride, padding, dilation)
    )
    g = rng.standard_normal((n, groups * filters, rows, columns)).astype(dtype)
    return {
        "conv2d": ([x, weight, bias], rest),
        "conv2d_input_grad": ([g, weight], (x.shape, *rest)),
        "conv2d_weight_grad": ([x, g], (weight.shape, *rest)),
    }


def graph_of(name: str, types: list[TensorType], rest: tuple[Any, ...]) -> Graph:
    graph = Graph()
    builder = GraphBuilder(graph)
    with builder:
        given = [wrap(graph.add_input(t, f"x{i}")) for i, t in enumerate(types)]
        missing = [None] * (name == "conv2d" and len(types) == 2)
        results = REGISTRY[name].function(*given, *missing, *rest)
        for result in results if isinstance(results, tuple) else (results,):
            graph.add_output(builder.value_of(result))
    return graph


def check(name: str, given: list[Any], rest: tuple[Any, ...]) -> None:
    """Run natively, twice, against NumPy in float64."""
    dtype = given[0].dtype
    types = [TensorType(dtypes.from_numpy_dtype(a.dtype), a.shape) for a in given]
    executable = CpuExecutable(build_schedule(graph_of(name, types, rest)))
    assert not executable.fallbacks, executable.fallbacks
    direct = any(text.startswith("define void @conv") for text in executable.sources().values())
    assert direct or executable.program.uses_blas
    missing = [None] * (1 if name == "conv2d" and len(given) == 2 else 0)
    expected = REGISTRY[name].numpy(*(a.astype(np.float64) for a in given), *missing, *rest)
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    for _ in range(2):
        (actual,) = executable.run(given)
        assert actual.dtype == dtype and actual.shape == expected.shape
        bound = 2e-5 if dtype == np.float32 else 1e-12
        assert np.abs(actual - expected).max(initial=0) <= bound * scale


@pytest.mark.parametrize("name", ["conv2d", "conv2d_input_grad", "conv2d_weight_grad"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_shapes(name: str, case: Any) -> None:
    given, rest = operands(case, np.random.default_rng(0), np.float32)[name]
    check(name, given, rest)


@pytest.mark.parametrize("name", ["conv2d", "conv2d_input_grad", "conv2d_weight_grad"])
def test_random_shapes(name: str) -> None:
    for i, case in enumerate(random_cases(25)):
        given, rest = operands(case, np.random.default_rng(i), np.float32 if i % 4 else np.float64)[name]
        check(name, given[: 2 + i % 2], rest)


def test_masked_lanes_ignore_what_is_beside_the_plane() -> None:
    """A row's last vector reaches over its end: what is there, even NaN, must not get into the sums."""
    rng = np.random.default_rng(0)
    for name in ("conv2d", "conv2d_weight_grad"):
        for padding in ((0, 0), (1, 1)):
            case = (2, 1, 2, 3, 6, 9, (3, 3), (1, 1), padding, (1, 1))
            given, rest = operands(case, rng, np.float32)[name]
            given[0][:, :, :, 0] = np.inf  # what follows a row is the next row's first element
            dtype = [TensorType(dtypes.float32, a.shape) for a in given]
            (actual,) = CpuExecutable(build_schedule(graph_of(name, dtype, rest))).run(given)
            with np.errstate(all="ignore"):
                expected = REGISTRY[name].numpy(*given, *rest)
            if name == "conv2d":
                np.testing.assert_array_equal(np.isfinite(actual), np.isfinite(expected))
            else:
                # Taps that never see the first column are finite.
                np.testing.assert_array_equal(np.isfinite(actual[..., 2]), np.full(actual.shape[:-1], True))


@pytest.mark.parametrize("name", ["conv2d", "conv2d_input_grad", "conv2d_weight_grad"])
def test_symbolic_batch(name: str) -> None:
    case = (4, 1, 3, 6, 12, 13, (3, 3), (1, 1), (1, 1), (1, 1))
    given, rest = operands(case, np.random.default_rng(0), np.float32)[name]
    n = symbol("n", hint=8)
    symbolic = [0, 2] if name == "conv2d" else [0] if name == "conv2d_input_grad" else [0, 1]
    if name == "conv2d":
        given, symbolic = given[:2], [0]
    types = [TensorType(dtypes.float32, (n, *a.shape[1:]) if i in symbolic else a.shape) for i, a in enumerate(given)]
    if name == "conv2d_input_grad":
        rest = ((n, *rest[0][1:]), *rest[1:])
    executable = CpuExecutable(build_schedule(graph_of(name, types, rest)))
    assert not executable.fallbacks
    for count in (4, 9, 2):
        arrays = [np.resize(a, (count, *a.shape[1:])) if i in symbolic else a for i, a in enumerate(given)]
        fixed = ((count, *rest[0][1:]), *rest[1:]) if name == "conv2d_input_grad" else rest
        missing = [None] if name == "conv2d" else []
        np.testing.assert_allclose(
            executable.run(arrays)[0], REGISTRY[name].numpy(*arrays, *missing, *fixed), rtol=2e-4, atol=2e-4
        )


@pytest.mark.parametrize(("bits", "threads"), list(itertools.product([128, 256, 512], [1, 4])))
def test_other_hosts(bits: int, threads: int) -> None:
    """Code for other vector widths is written (and run, where the host's registers hold them)."""
    import ctypes

    from graphtorch.lowering.cpu.compiler import Library, host, module_text

    target = Target(bits, host().fma, threads, False)
    for case in CASES[:8]:
        for name, (given, rest) in operands(case, np.random.default_rng(0), np.float32).items():
            arrays = given[:2]
            graph = graph_of(name, [TensorType(dtypes.float32, a.shape) for a in arrays], rest)
            (step,) = build_schedule(graph).steps
            assert isinstance(step, ExternCall)
            code = native_call(step, target)
            functions = code if isinstance(code, list) else [code]
            library = Library([module_text(functions)], [f.name for f in functions])
            out = np.full(step.outputs[0].shape, np.nan, np.float32)
            places = {v.buffer: a for v, a in zip(step.args, arrays)} | {step.outputs[0]: out}
            for buffer in (b for f in functions for b in f.buffers if b not in places):
                places[buffer] = np.full(buffer.shape, np.nan, np.float32)
            for function in functions:
                pointers = (ctypes.c_int64 * len(function.buffers))(*[places[b].ctypes.data for b in function.buffers])
                signature = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
                native = signature(library.addresses[function.name])
                middle = function.extent // 2
                native(pointers, middle, function.extent)
                native(pointers, 0, middle)
            expected = REGISTRY[name].numpy(*arrays, *([None] if name == "conv2d" else []), *rest)
            np.testing.assert_allclose(out, expected, rtol=1e-3, atol=1e-3)


# samples, channels, filters, height, width, padding
THREE_BY_THREE = [
    (3, 24, 40, 13, 18, (1, 1)),
    (2, 16, 16, 4, 4, (1, 1)),
    (5, 33, 20, 7, 9, (0, 2)),
    (1, 64, 64, 30, 33, (1, 1)),
    (2, 130, 17, 3, 65, (2, 0)),
    (40, 160, 144, 5, 4, (1, 1)),
]


@pytest.mark.parametrize("form", ["by rows", "by channels", "Winograd"])
@pytest.mark.parametrize("case", THREE_BY_THREE, ids=str)
def test_every_form_of_three_by_three(form: str, case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a shape costs, each form gives its results; Winograd's errors are like those of the direct sums."""
    names = {"by rows": "_Correlate", "by channels": "ByChannels", "Winograd": "Winograd"}
    for name, attribute in names.items():

        class Only(getattr(convolution, attribute)):  # type: ignore[misc]
            def __init__(self, *args: Any, chosen: bool = name == form) -> None:
                super().__init__(*args)
                self.fits = self.fits and chosen

        monkeypatch.setattr(convolution, attribute, Only)
    n, channels, filters, h, w, padding = case
    for name in ("conv2d", "conv2d_input_grad"):
        shape = (n, 1, channels, filters, h, w, (3, 3), (1, 1), padding, (1, 1))
        given, rest = operands(shape, np.random.default_rng(0), np.float32)[name]
        check(name, given, rest)


@pytest.mark.parametrize("padding", [0, 1])
def test_input_gradient_that_spreads(padding: int) -> None:
    """Phases of a strided convolution's input gradient, some of them without taps."""
    for kernel, stride, dilation in itertools.product([1, 2, 3, 4], [2, 3], [1, 2]):
        shape = (2, 1, 40, 48, 11, 12, (kernel, kernel), (stride, stride), (padding, padding), (dilation, dilation))
        given, rest = operands(shape, np.random.default_rng(0), np.float32)["conv2d_input_grad"]
        check("conv2d_input_grad", given, rest)


@pytest.mark.parametrize(("channels", "size"), [(3, 32), (40, 16), (64, 24)])
def test_what_follows_runs_chunk_by_chunk(channels: int, size: int) -> None:
    """A convolution, its bias, an activation and pooling go through the cache together, and give what they should."""
    import graphtorch
    from graphtorch.lowering.cpu.pool import get_pool

    rng = np.random.default_rng(0)
    x = rng.standard_normal((24, channels, size, size)).astype(np.float32)
    weight = rng.standard_normal((48, channels, 3, 3)).astype(np.float32)
    bias = rng.standard_normal(48).astype(np.float32)
    graph = Graph()
    builder = GraphBuilder(graph)
    with builder:
        types = [TensorType(dtypes.float32, a.shape) for a in (x, weight, bias)]
        given = [wrap(graph.add_input(t, f"x{i}")) for i, t in enumerate(types)]
        y = graphtorch.relu(graphtorch.nn.functional.conv2d(*given, padding=1))
        graph.add_output(builder.value_of(graphtorch.nn.functional.max_pool2d(y, 2)))
    executable = CpuExecutable(build_schedule(graph))
    if get_pool().threads > 1:
        assert executable.translation.chains
    wide = [a.astype(np.float64) for a in (x, weight, bias)]
    sums = REGISTRY["conv2d"].numpy(*wide, (1, 1), (1, 1), (1, 1), 1)
    expected = np.maximum(sums, 0).reshape(24, 48, size // 2, 2, size // 2, 2).max((3, 5))
    for _ in range(3):
        (actual,) = executable.run([x, weight, bias])
        assert np.abs(actual - expected).max() <= 2e-5 * np.abs(expected).max()
