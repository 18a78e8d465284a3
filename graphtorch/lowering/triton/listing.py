"""Schedules as text: Triton source, assembly and machine code of every step, on a machine with or without a GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from graphtorch.lowering.kernel import Buffer, Kernel, Schedule, View
from graphtorch.lowering.triton.codegen import without_comments
from graphtorch.lowering.triton.compiler import DEFAULT_TARGET, Compiled, compile_all, disassemble, target
from graphtorch.lowering.triton.launch import HostCall, LaunchPlan, make_plan
from graphtorch.lowering.triton.passes import prepare_schedule
from graphtorch.tensor.symint import symbols_of

STAGES = ("triton", "ptx", "sass")
_HINTLESS = 1024  # the size that a symbol stands for where no call has shown one


def list_schedule(schedule: Schedule, stage: str = "triton", to: str = DEFAULT_TARGET) -> str:
    """A schedule as "triton" (source), "ptx" (for AMD targets: assembly) or "sass" (machine code).

    Functions of equal text are shown once; symbolic sizes have the values of the call that was captured. Raises
    ValueError for an unknown stage or target and for machine code of AMD targets, ImportError where a compiler is
    needed and Triton is not installed.
    """
    if stage not in STAGES:
        raise ValueError(f"unknown stage {stage!r}; known are {', '.join(STAGES)}")
    made = target(to)
    if stage == "sass" and made.binary != "cubin":
        raise ValueError(f"there is no SASS for {to}: its assembly is the stage 'ptx'")
    plan = plan_for(schedule)
    if stage == "triton":
        return _join(plan, {s.step: s.function.source for s in plan.launches}, "#")
    compiled = compile_all([s.function for s in plan.launches], to)
    show: Callable[[Compiled], str] = disassemble if stage == "sass" else lambda c: c.assembly
    texts: dict[int, str] = {}
    for one in compiled:
        if id(one) not in texts:
            texts[id(one)] = show(one)
    named = {s.step: texts[id(c)] for s, c in zip(plan.launches, compiled, strict=True)}
    return _join(plan, named, "//" if made.binary == "cubin" else ";")


def plan_for(schedule: Schedule) -> LaunchPlan:
    """The launch plan of a schedule; symbolic sizes as in the call that was captured."""
    parts = prepare_schedule(schedule)
    return make_plan(parts, example_sizes(parts))


def example_sizes(schedule: Schedule) -> dict[str, int]:
    """A value for every symbol: its hint."""
    found: dict[str, int] = {}

    def add(size: object) -> None:
        for name, symbol in symbols_of(size).items():
            found.setdefault(name, _HINTLESS if symbol.hint is None else symbol.hint)

    def add_buffer(buffer: Buffer) -> None:
        for size in buffer.shape:
            add(size)

    for buffer in schedule.inputs:
        add_buffer(buffer)
    for step in schedule.steps:
        for buffer in (*step.reads(), *step.writes()):
            add_buffer(buffer)
        if isinstance(step, Kernel):
            for axis in step.axes:
                add(axis.size)
        else:
            for arg in step.args:
                if isinstance(arg, View):
                    for size in arg.shape:
                        add(size)
    return found


def _join(plan: LaunchPlan, texts: Mapping[str, str], comment: str) -> str:
    """The texts of the steps in order, each under its name and grid; equal ones once."""
    shown: dict[str, str] = {}
    parts: list[str] = []
    for step in plan.steps:
        if isinstance(step, HostCall):
            parts.append(f"{comment} {step.step}: {step.reason}\n")
            continue
        text = texts[step.step]
        head = f"{comment} {step.step}: grid {step.grid[0]}, {step.function.num_warps} warps, "
        head += ", ".join(f"{k} = {v}" for k, v in step.function.constants.items())
        key = without_comments(text)
        if key in shown:
            parts.append(f"{head}; the text of {shown[key]}\n")
        else:
            shown[key] = step.step
            parts.append(f"{head}\n{text.rstrip()}\n")
    return "\n".join(parts)
