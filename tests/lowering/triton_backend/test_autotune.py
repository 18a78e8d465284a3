"""Autotuning: candidates, the choice among them by times that a recording device makes up, and what is remembered."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from programs import f32, trace

import graphtorch
from graphtorch.ir.graph import Graph
from graphtorch.ops.attention import fused_attention
from graphtorch.schedule import build_schedule
from graphtorch.tensor import dtypes
from graphtorch.tensor.type import TensorType

pytest.importorskip("triton")

from graphtorch.lowering.triton import autotune, compiler
from graphtorch.lowering.triton.autotune import Candidate, Tuner, candidates
from graphtorch.lowering.triton.compiler import TARGETS, compile_each
from graphtorch.lowering.triton.errors import ResourceError
from graphtorch.lowering.triton.launch import Launch, make_plan
from graphtorch.lowering.triton.passes import prepare_schedule


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRAPHTORCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "triton"


def half(*shape: Any) -> TensorType:
    return TensorType(dtypes.bfloat16, shape)


def steps(graph: Graph) -> list[Any]:
    return prepare_schedule(build_schedule(graph)).steps


def matmul() -> Graph:
    return trace(lambda x, w, b: (x @ w + b).relu(), half(1024, 1024), half(1024, 1024), half(1024))


def softmax() -> Graph:
    return trace(lambda x: graphtorch.softmax(x, -1), f32(512, 3000))


def attention() -> Graph:
    return trace(lambda q: fused_attention(q, q, q, None, None, True, 0.1)[0], half(2, 512, 4, 64))


class Recorder:
    """A device that runs nothing: its times are what a function of the launches says."""

    def __init__(self, time: Callable[[Launch], float]) -> None:
        self.time = time
        self.measured: list[tuple[str, ...]] = []

    def __call__(self, launches: Sequence[Launch], bindings: Mapping[str, int]) -> float:
        self.measured.append(tuple(launch.step for launch in launches))
        return sum(self.time(launch) for launch in launches)


def all_fit(found: Sequence[Candidate]) -> list[Candidate]:
    return list(found)


def tuner(time: Callable[[Launch], float], device: str = "made-up", fitting: Any = all_fit) -> tuple[Tuner, Recorder]:
    recorder = Recorder(time)
    return Tuner("sm_90", device, recorder, fitting), recorder


@pytest.mark.parametrize("make", [matmul, softmax, attention])
def test_candidates_differ_and_begin_with_the_default(make: Callable[[], Graph]) -> None:
    (step,) = steps(make())
    found = candidates(step, {})
    assert len(found) > 2
    (default,) = (launch.function for launch in make_plan(prepare_schedule(build_schedule(make())), {}).launches)
    assert found[0].functions[0].constants == default.constants
    assert found[0].functions[0].num_warps == default.num_warps
    texts = {
        (f.source, tuple(f.constants.items()), f.num_warps, f.num_stages, f.programs)
        for c in found
        for f in c.functions
    }
    assert len(texts) == len(found) == len({c.label for c in found})


def test_the_fastest_is_chosen_and_reported() -> None:
    (step,) = steps(matmul())
    chosen, recorder = tuner(lambda launch: 1.0 / (launch.function.constants["BLOCK_K"] + launch.function.num_warps))
    (function,) = chosen.functions(step, {})
    best = max(c.functions[0].constants["BLOCK_K"] + c.functions[0].num_warps for c in candidates(step, {}))
    assert function.constants["BLOCK_K"] + function.num_warps == best
    assert len(recorder.measured) == len(candidates(step, {}))
    (decision,) = chosen.decisions
    assert decision.label in str(decision) and str(len(recorder.measured)) in str(decision)


def test_equal_times_keep_the_default() -> None:
    (step,) = steps(matmul())
    chosen, _ = tuner(lambda launch: 1.0)
    assert chosen.functions(step, {})[0] == candidates(step, {})[0].functions[0]


def test_a_step_is_measured_once_also_in_another_process() -> None:
    (step,) = steps(softmax())

    def time(launch: Launch) -> float:
        return float(launch.function.constants["R_BLOCK"])

    first, recorder = tuner(time)
    functions = first.functions(step, {})
    count = len(recorder.measured)
    assert first.functions(step, {}) == functions and len(recorder.measured) == count
    second, other = tuner(time)
    assert second.functions(step, {}) == functions and not other.measured
    assert "measured before" in str(second.decisions[0])
    elsewhere, third = tuner(time, "another device")
    elsewhere.functions(step, {})
    assert third.measured


def test_damaged_or_outdated_memory_is_measured_again(own_cache: Path) -> None:
    (step,) = steps(softmax())
    first, _ = tuner(lambda launch: 1.0)
    first.functions(step, {})
    (entry,) = (own_cache / "tuned").iterdir()
    for content in ("", "[]", json.dumps({"winner": "a form that is gone"}), json.dumps({"winner": 3})):
        entry.write_text(content)
        again, recorder = tuner(lambda launch: 1.0)
        assert again.functions(step, {}) == first.functions(step, {})
        assert recorder.measured
        assert json.loads(entry.read_text())["winner"] == first.decisions[0].label


def test_what_cannot_run_is_passed_over() -> None:
    (step,) = steps(matmul())

    def time(launch: Launch) -> float:
        if launch.function.num_stages < 3:
            raise ResourceError("too much")
        return float(launch.function.num_stages)

    chosen, _ = tuner(time)
    assert chosen.functions(step, {})[0].num_stages == 3
    refused, _ = tuner(lambda launch: (_ for _ in ()).throw(ResourceError("all of it")), "weak")
    assert refused.functions(step, {}) == list(candidates(step, {})[0].functions)


def test_a_plan_is_made_of_the_winners() -> None:
    schedule = prepare_schedule(build_schedule(matmul()))
    chosen, _ = tuner(lambda launch: -launch.function.num_warps)
    plan = make_plan(schedule, {}, None, chosen.functions)
    assert [launch.function.num_warps for launch in plan.launches] == [8]
    assert [d.step for d in chosen.decisions] == [s.name for s in schedule.steps]


def test_candidates_that_do_not_fit_or_spill_are_not_measured() -> None:
    """On a target with little shared memory, and with the resources that the machine code shows."""
    graph = trace(lambda x, w: x @ w, f32(256, 256), f32(256, 256))
    (step,) = steps(graph)
    found = candidates(step, {})
    small = compiler.Target("small", "cuda", 90, 32, 7 * 1024)
    TARGETS[small.name] = small
    try:
        recorder = Recorder(lambda launch: 1.0)
        chosen = Tuner(small.name, "made-up", recorder)
        fitting = chosen.fitting(found)
    finally:
        del TARGETS[small.name]
    made = compile_each([c.functions[0] for c in found], "sm_90")
    assert {c.label for c in fitting} < {c.label for c in found}
    assert all(not isinstance(m, ResourceError) for m in made)


def test_modes_of_compile() -> None:
    with pytest.raises(RuntimeError, match="Unrecognized mode=fastest"):
        graphtorch.compile(lambda x: x, mode="fastest")


def test_candidates_that_do_not_compile_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    (step,) = steps(matmul())
    found = candidates(step, {})[:3]
    broken = found[1].functions[0]

    def compile_each_but_one(functions: Sequence[Any], to: str) -> Any:
        if any(f is broken for f in functions):
            raise RuntimeError("PassManager::run failed")
        return compile_each(functions, to)

    monkeypatch.setattr(autotune, "compile_each", compile_each_but_one)
    kept = Tuner("sm_90", "made-up", lambda launches, bindings: 1.0)._compiled(found)
    assert [c.label for c in kept] == [found[0].label, found[2].label]
