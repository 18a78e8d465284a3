"""What autotuning compares: results that differ by rounding only agree, and those that are wrong do not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from programs import f32, trace

import graphtorch
from graphtorch.ir.graph import Graph
from graphtorch.ops.attention import fused_attention
from graphtorch.runtime.cuda import devices
from graphtorch.runtime.cuda.driver import use_driver
from graphtorch.runtime.cuda.simulated import SimulatedDriver
from graphtorch.schedule import build_schedule
from graphtorch.tensor import dtypes
from graphtorch.tensor.type import TensorType

pytest.importorskip("triton")

from graphtorch.lowering.triton import measuring
from graphtorch.lowering.triton.agreement import Result, Tolerance, difference, results_of, tolerance
from graphtorch.lowering.triton.autotune import Candidate, Tuner, candidates
from graphtorch.lowering.triton.measuring import DeviceClock
from graphtorch.lowering.triton.passes import prepare_schedule


def steps(graph: Graph) -> list[Any]:
    return prepare_schedule(build_schedule(graph)).steps


def half(*shape: Any) -> TensorType:
    return TensorType(dtypes.bfloat16, shape)


def product(of: TensorType, other: TensorType) -> Any:
    (step, *_) = steps(trace(lambda a, b: a @ b, of, other))
    return step


def allowed(step: Any) -> Tolerance:
    return tolerance(step, candidates(step, {})[0].functions, {})


def in_blocks(a: Any, b: Any, block: int, truncated: bool = False) -> Any:
    """A product in float32, a block of its sum after the other; sums are truncated as tensor cores do."""
    total = np.zeros((a.shape[0], b.shape[1]), np.float32)
    for start in range(0, a.shape[1], block):
        part = a[:, start : start + block].astype(np.float64) @ b[start : start + block].astype(np.float64)
        exact = total + part
        total = exact.astype(np.float32)
        if truncated:
            total = np.where(np.abs(total) > np.abs(exact), np.nextafter(total, np.float32(0)), total)
    return total


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("length", [64, 1000, 8192, 65536])
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "float16"])
def test_sums_in_other_orders_agree(kind: str, length: int, positive: bool) -> None:
    of = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}[kind]
    type_of = TensorType(getattr(dtypes, kind), (64, length))
    step = product(type_of, TensorType(getattr(dtypes, kind), (length, 64)))
    rng = np.random.default_rng(length)
    a, b = (rng.standard_normal(shape, np.float32) / 2 for shape in ((64, length), (length, 64)))
    if positive:
        a, b = abs(a), abs(b)
    a, b = a.astype(of), b.astype(of)
    if kind == "float16" and positive and length > 8192:
        pytest.skip("beyond the largest float16")
    expected = in_blocks(a, b, 64).astype(of)
    bound = allowed(step)
    for order in (in_blocks(a, b, 16, True), in_blocks(a[:, ::-1], b[::-1], 32), in_blocks(a, b, 1)):
        assert not difference(order.astype(of).ravel(), expected.ravel(), bound)
    if positive:
        return
    # Without a block of the sum; a column from elsewhere; a row that is not stored; no numbers.
    shorter = in_blocks(a[:, :-16], b[:-16], 64).astype(of)
    moved, still = expected.copy(), expected.copy()
    moved[:, 3] = expected[:, 4]
    still[-1] = np.float32(0.5)
    for wrong in (shorter, moved, still, np.full_like(expected, np.nan)):
        assert "differ" in difference(wrong.ravel(), expected.ravel(), bound)


def test_numbers_that_are_not_finite() -> None:
    bound = Tolerance(1e-6, 0.0)
    expected = np.array([np.nan, np.inf, -np.inf, 1.0, 0.0], np.float32)
    assert not difference(expected.copy(), expected, bound)
    for i, value in ((0, 1.0), (1, -np.inf), (2, 1e30), (3, np.nan), (4, np.inf)):
        wrong = expected.copy()
        wrong[i] = value
        assert difference(wrong, expected, bound).startswith("1 of 5 numbers differ")
    assert difference(np.array([1, 2]), np.array([1, 3]), bound) == "1 of 2 numbers differ, the first is 2 instead of 3"
    assert not difference(np.zeros(0, np.float32), np.zeros(0, np.float32), bound)


def test_the_longer_the_sum_the_more_may_differ() -> None:
    rows = [steps(trace(lambda x: x.sum(-1), f32(512, n)))[0] for n in (16, 1024)]
    (pointwise,) = steps(trace(lambda x: x * 2, f32(512, 16)))
    double = product(TensorType(dtypes.float64, (64, 64)), TensorType(dtypes.float64, (64, 64)))
    relative = [allowed(step).relative for step in (double, pointwise, *rows, product(half(64, 1024), half(1024, 64)))]
    assert relative == sorted(relative) and relative[0] < 1e-13 and relative[2] < 1e-5 and relative[-1] < 1e-2


# -- races on a device ------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("GRAPHTORCH_CACHE", str(tmp_path))
    monkeypatch.setattr(measuring, "_RUNS", 1)
    monkeypatch.setattr(measuring, "_FEWEST_RUNS", 1)
    monkeypatch.setattr(measuring, "_WARMUPS", 1)
    use_driver(SimulatedDriver())
    try:
        yield DeviceClock(devices.device(0))
    finally:
        use_driver(None)


def race(step: Any, found: list[Candidate], clock: DeviceClock) -> Any:
    tuner = Tuner("sm_90", "simulated", clock, list)
    tuner._race("0" * 40, step, found, {})
    return tuner.decisions[-1]


def norm(x: Any, w: Any, g: Any) -> Any:
    """A layer norm's forward and backward, with the gradient of its weight."""
    y, pull = graphtorch.func.vjp(lambda x, w: graphtorch.nn.functional.layer_norm(x, (32,), w), x, w)
    return (y, *pull(g))


PROGRAMS: dict[str, tuple[Callable[..., Any], list[TensorType]]] = {
    "product": (lambda x, w, b: (x @ w + b).relu(), [half(96, 128), half(128, 72), half(72)]),
    "float32": (lambda x, w: x @ w, [f32(70, 90), f32(90, 40)]),
    "softmax": (lambda x: x.softmax(-1), [half(16, 3000)]),
    "positions": (lambda x: x.argmax(-1), [f32(16, 3000)]),
    "long": (lambda x: x.sum(), [f32(1 << 17)]),
    "split": (lambda x, w: x.T @ w, [half(2048, 32), half(2048, 32)]),
    "norm": (norm, [f32(1024, 32), f32(32), f32(1024, 32)]),
    "attention": (lambda q: fused_attention(q, q, q, None, None, True, 0.1)[0], [half(1, 128, 2, 32)]),
    "image": (lambda x, w: graphtorch.conv2d(x, w, padding=1), [half(2, 16, 8, 8), half(32, 16, 3, 3)]),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_right_candidates_agree(name: str, clock: DeviceClock, caplog: pytest.LogCaptureFixture) -> None:
    function, types = PROGRAMS[name]
    compared = 0
    for step in steps(trace(function, *types)):
        found = [c for c in candidates(step, {}) if not any("descriptor" in f.source for f in c.functions)]
        if len(found) > 1:
            decision = race(step, [found[0], *found[1 :: max(len(found) // 5, 1)]], clock)
            assert not decision.dropped
            compared += len(decision.seconds) - 1
    assert compared and not caplog.records


WRONG = {
    "product": ("range(0, K, BLOCK_K)", "range(0, K - BLOCK_K, BLOCK_K)"),
    "softmax": ("tl.sum(", "0.99 * tl.sum("),
    "norm": ("tl.program_id(0)", "(tl.program_id(0) + 1)"),
    "image": ("tl.store(", "tl.store(1 + "),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_candidate_does_not_win(name: str, clock: DeviceClock, caplog: pytest.LogCaptureFixture) -> None:
    function, types = PROGRAMS[name]
    step = next(s for s in steps(trace(function, *types)) if len(candidates(s, {})) > 1)
    default, other, *_ = candidates(step, {})
    old, new = WRONG[name]
    assert all(old in f.source for f in other.functions)
    wrong = replace(
        other, label="wrong", functions=tuple(replace(f, source=f.source.replace(old, new)) for f in other.functions)
    )

    def measure(launches: Any, bindings: Any, results: Any) -> Any:
        measured = clock(launches, bindings, results)
        return replace(measured, seconds=1.0 if launches[0].function in wrong.functions else 2.0)

    with caplog.at_level(logging.WARNING):
        decision = race(step, [default, wrong, other], measure)  # type: ignore[arg-type]
    assert decision.label == default.label and set(decision.seconds) == {default.label, other.label}
    assert "numbers differ" in decision.dropped["wrong"] and default.label in decision.dropped["wrong"]
    (record,) = caplog.records
    assert step.name in record.getMessage() and "wrong is left out" in record.getMessage()


def test_large_results_are_read_in_pieces(clock: DeviceClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "_COMPARED", 4096)
    (step,) = steps(trace(lambda x: x + 1, f32(50_001)))
    (result,) = results_of(step)
    stream = devices.stream_of(clock.device)
    memory = clock.device.allocator.allocate(4 * 50_001, stream, False)
    numbers = np.arange(50_001, dtype=np.float32)
    clock.device.driver.copy_in(memory.address, numbers.ctypes.data, numbers.nbytes, stream)
    found = clock.read(result, memory.address, numbers.nbytes, stream)
    assert found.size == 1024 and found[0] == 0 and found[-1] == 50_000 and len(set(np.diff(found)) - {1.0}) > 0
    assert max(np.diff(found)) < 1000
    parts = clock.read(Result(result.buffer, 3), memory.address, 4 * 30, stream)
    assert parts.tolist() == [30.0 + 3 * i for i in range(10)]


def test_operands_differ_from_each_other(clock: DeviceClock) -> None:
    """Else a product of two operands that are swapped would be right."""
    (step,) = steps(trace(lambda x, y: x + y, f32(8), f32(8)))
    stream = devices.stream_of(clock.device)
    memory = clock.device.allocator.allocate(32, stream, False)
    found = []
    for buffer in step.reads():
        clock.fill(buffer, memory.address, 32, stream)
        found.append(clock.read(Result(buffer), memory.address, 32, stream).tolist())
    assert len(found) == 2 and found[0] != found[1]
