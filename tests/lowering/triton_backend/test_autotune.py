"""Autotuning: candidates, the choice among them by times that a recording device makes up, and what is remembered."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
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

from graphtorch.lowering.triton import autotune, compiler, processes
from graphtorch.lowering.triton.autotune import Candidate, Measured, Tuner, candidates
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

    def __call__(self, launches: Sequence[Launch], bindings: Mapping[str, int], results: Any) -> Measured:
        self.measured.append(tuple(launch.step for launch in launches))
        return Measured(sum(self.time(launch) for launch in launches))


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
    plan = make_plan(schedule, {}, None, chosen.choose)
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


def test_candidates_that_do_not_compile_are_not_measured() -> None:
    """Whatever the compiler raises costs the candidate only, and the decision says why."""
    (step,) = steps(matmul())
    found = candidates(step, {})[:4]
    for i, what in ((1, ("tl.dot(x, y", "tl.dot(x, x")), (2, ("tl.load", "tl.no_such_function"))):
        functions = tuple(replace(f, source=f.source.replace(*what)) for f in found[i].functions)
        found[i] = replace(found[i], functions=functions)
    chosen = Tuner("sm_90", "made-up", lambda launches, bindings, results: Measured(1.0))
    assert [c.label for c in chosen._compiled(found)] == [found[0].label, found[3].label]
    chosen._race("0" * 40, step, found, {})
    (decision,) = chosen.decisions
    assert set(decision.dropped) == {found[1].label, found[2].label}
    assert "no_such_function" in decision.dropped[found[2].label] and "no_such_function" in str(decision)


def test_without_the_tool_that_tells_of_spills_all_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build of Triton may lack cuobjdump, and then the path may have none either."""
    (step,) = steps(softmax())
    found = candidates(step, {})[:2]
    compiled = compile_each([c.functions[0] for c in found], "sm_90")
    monkeypatch.setattr(compiler.Path, "exists", lambda self: False)
    monkeypatch.setenv("PATH", "")
    assert isinstance(compiled[0], compiler.Compiled)
    with pytest.raises(FileNotFoundError, match="cuobjdump is neither part of Triton nor on the path"):
        compiler.disassemble(compiled[0])
    chosen = Tuner("sm_90", "made-up", Recorder(lambda launch: 1.0))
    assert chosen.fitting(found) == found


@pytest.mark.parametrize("ending", ["os.abort()", "__import__('time').sleep(60)"])
def test_a_compiler_that_does_not_return(ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An assertion within LLVM ends its process, and some kernels take forever: neither ends this one."""
    monkeypatch.setattr(processes, "cores", lambda: 4)
    monkeypatch.setattr(processes, "MOST", 1)
    monkeypatch.setattr(compiler, "PATIENCE", 3.0)
    start = processes._START.replace(
        "serve()", f"import os, {compiler.__name__} as c; c.compile_here = lambda *_: {ending}; serve()"
    )
    monkeypatch.setattr(processes, "_START", start)
    (step,) = steps(matmul())
    functions = [f for c in candidates(step, {})[:4] for f in c.functions]
    monkeypatch.setattr(processes, "_idle", [])
    if "sleep" in ending:
        functions = [*functions[:1]] * 4
        monkeypatch.setattr(processes, "FEWEST_KERNELS", 1)
    found = compiler.compile_each(functions, "sm_90", may_fail=True)
    assert all(isinstance(f, ResourceError) and "the compiler ended, or took longer than 3 s" in str(f) for f in found)


def test_families_are_compiled_only_if_their_first_does_not_spill(monkeypatch: pytest.MonkeyPatch) -> None:
    (step,) = steps(matmul())
    found = candidates(step, {})
    large = found[-3].family
    compiled: list[Any] = []

    def compile_none(functions: Any, to: str, may_fail: bool) -> list[Any]:
        compiled.extend(functions)
        return [f for f in functions]

    def spills(function: Any) -> Any:
        family = next(c.family for c in found if function in c.functions)
        return SimpleNamespace(spilled=1000 if family == large else 0)

    monkeypatch.setattr(autotune, "compile_each", compile_none)
    monkeypatch.setattr(autotune, "resources", spills)
    chosen = Tuner("sm_90", "made-up", lambda launches, bindings, results: Measured(1.0))
    kept = chosen._compiled(found)
    assert [c.label for c in kept] == [c.label for c in found if c.family != large]
    assert sum(c.family == large for c in found) > 1
    assert len(compiled) == len(kept) + 1


def test_steps_of_one_kind_are_measured_once_and_keep_their_operands() -> None:
    graph = trace(lambda x, u, w: ((x @ u).relu() @ w).relu(), half(512, 512), half(512, 512), half(512, 512))
    schedule = prepare_schedule(build_schedule(graph))
    chosen, recorder = tuner(lambda launch: -launch.function.num_stages)
    plan = make_plan(schedule, {}, None, chosen.choose)
    first, second = plan.launches
    assert len(set(recorder.measured)) == len(chosen.decisions) == 1
    assert first.function.num_stages == second.function.num_stages == 5
    assert first.arguments != second.arguments


def test_what_ended_an_earlier_process_is_left_out(own_cache: Path) -> None:
    (step,) = steps(softmax())
    labels = [c.label for c in candidates(step, {})]

    def dies(launch: Launch) -> float:
        if launch.function == candidates(step, {})[1].functions[0]:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return 1.0

    first, _ = tuner(dies)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        first.functions(step, {})
    (entry,) = (own_cache / "tuned").iterdir()
    noted = json.loads(entry.read_text())
    assert noted == {"measuring": labels[1], "process": os.getpid(), "fatal": []}
    second, recorder = tuner(lambda launch: 1.0)
    second.functions(step, {})
    assert set(second.decisions[0].seconds) == {*labels} - {labels[1]}
    assert json.loads(entry.read_text()) == {"winner": labels[0]}
    assert len(recorder.measured) == len(labels) - 1


def test_another_process_that_measures_is_no_dead_one(own_cache: Path) -> None:
    assert autotune._fatal({"measuring": "a", "process": os.getppid(), "fatal": ["b"]}) == ["b"]
    assert autotune._fatal({"measuring": "a", "process": "none", "fatal": ["b"]}) == ["b", "a"]
    assert autotune._fatal({"winner": "a"}) == []


def test_nothing_measured_is_nothing_known(own_cache: Path) -> None:
    """Where memory did not suffice for any candidate, the default runs, and the next process measures."""
    (step,) = steps(softmax())
    poor, _ = tuner(lambda launch: (_ for _ in ()).throw(ResourceError("CUDA out of memory")))
    assert poor.functions(step, {}) == list(candidates(step, {})[0].functions)
    rich, recorder = tuner(lambda launch: 1.0)
    rich.functions(step, {})
    assert recorder.measured
