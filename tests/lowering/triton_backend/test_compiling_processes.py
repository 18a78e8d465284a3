"""Kernels that are compiled in other processes are those that are compiled here."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from programs import f32, trace

import graphtorch
from graphtorch.schedule import build_schedule

pytest.importorskip("triton")

from graphtorch.lowering.triton import compiler, processes
from graphtorch.lowering.triton.codegen import Generated
from graphtorch.lowering.triton.listing import plan_for

FUNCTIONS = {
    "pointwise": lambda x: x.exp() + 1,
    "softmax": lambda x: graphtorch.softmax(x, -1),
    "sums": lambda x: x.sum(0),
    "product": lambda x: x @ x.t(),
}


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Generated]]:
    """Functions to compile, with many cores and no cache."""
    monkeypatch.setenv("GRAPHTORCH_CACHE", "")
    monkeypatch.setattr(processes, "cores", lambda: 4)
    monkeypatch.setattr(processes, "MOST", 2)
    yield [plan_for(build_schedule(trace(f, f32(64, 96)))).launches[0].function for f in FUNCTIONS.values()]
    processes._end()


def test_how_many_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "cores", lambda: 2)
    assert processes.wanted(100) == 0
    monkeypatch.setattr(processes, "cores", lambda: 64)
    assert [processes.wanted(n) for n in (1, 3, 4, 1000)] == [0, 0, 4, processes.MOST]


@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
def test_the_same_code(generated: list[Generated], target: str) -> None:
    wanted = compiler._compile_in_threads(generated, compiler.target(target), False)
    found = compiler.compile_all(generated, target)
    assert 1 <= len(processes._idle) <= 2
    assert [(c.name, c.binary, c.shared, c.num_warps) for c in found] == [
        (c.name, c.binary, c.shared, c.num_warps) for c in wanted
    ]


def test_a_process_that_is_gone_costs_nothing_but_time(generated: list[Generated]) -> None:
    first = compiler.compile_all(generated)
    for process in processes._idle:
        os.kill(process.process.pid, signal.SIGKILL)
        process.process.wait()
    assert [c.binary for c in compiler.compile_all(generated)] == [c.binary for c in first]


def test_errors_are_those_of_compiling_here(generated: list[Generated]) -> None:
    broken: Any = replace(generated[0], source=generated[0].source.replace("tl.load", "tl.no_such_function"))
    with pytest.raises(Exception, match="no_such_function"):
        compiler.compile_all([*generated, broken])


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("may_fail", [False, True])
def test_what_the_parser_miscounts_is_compiled_again_alone(
    generated: list[Generated], monkeypatch: pytest.MonkeyPatch, wrapped: bool, may_fail: bool
) -> None:
    """Threads that parse at once stop each other in Python 3.11; Triton wraps the error where it parses a callee."""
    compile_here = compiler.compile_here
    failed: list[str] = []

    def sometimes(function: Any, to: Any) -> Any:
        if function.name in failed or threading.current_thread() is threading.main_thread():
            return compile_here(function, to)
        failed.append(function.name)
        try:
            raise SystemError("AST constructor recursion depth mismatch (before=90, after=84)")
        except SystemError as error:
            if wrapped:
                raise RuntimeError("at 6:15") from error
            raise

    monkeypatch.setattr(compiler, "compile_here", sometimes)
    made = compiler._compile_in_threads(generated, compiler.target("sm_90"), may_fail)
    assert len(failed) == len({f.name for f in generated})
    assert [m.name for m in made if isinstance(m, compiler.Compiled)] == [f.name for f in generated]
