"""`step.explain()`: what a compiled function captured, assumed, mutated and became."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class InputInfo:
    """One input of a captured graph."""

    name: str
    kind: str
    type: str
    written: bool


@dataclass(frozen=True)
class SpecializationInfo:
    """One compiled variant.

    reason                 why it was compiled: "first call", or the guard of an earlier variant that failed
    kernels_before_fusion  primitive operators that would each be a kernel of its own
    kernels                kernels and library calls after fusion
    planned_bytes          the arena that a call needs for intermediates, in bytes
    fallbacks              steps that run another way than the backend's own, and why
    decisions              what Python asked of tensor data on this path, and of numbers that change, with the answer
                           and the line
    """

    reason: str
    backend: str
    inputs: tuple[InputInfo, ...]
    guards: tuple[str, ...]
    results: int
    compile_seconds: float
    kernels_before_fusion: int
    kernels: int
    planned_bytes: int
    fusion: tuple[str, ...]
    calls: int
    decisions: tuple[str, ...] = ()
    fallbacks: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [
            f"compiled for the {self.backend} backend because: {self.reason}",
            f"  {self.compile_seconds * 1e3:.1f} ms to compile; {self.kernels_before_fusion} primitives -> "
            f"{self.kernels} kernels; "
            f"{self.planned_bytes} bytes planned; called {self.calls} times",
            "  inputs:",
            *(f"    {i.name}: {i.type} ({i.kind}{', written' if i.written else ''})" for i in self.inputs),
            "  assumes:",
            *(f"    {g}" for g in self.guards),
            *(f"    {d}" for d in self.decisions),
            "  fusion:",
            *(f"    {line}" for line in self.fusion),
            *(["  without code of the backend's own:"] if self.fallbacks else []),
            *(f"    {line}" for line in self.fallbacks),
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class Explanation:
    """All variants of one compiled function, in the order of their compilation, and the calls that ran eagerly."""

    name: str
    specializations: tuple[SpecializationInfo, ...]
    eager_calls: int = 0
    notes: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        lines = [f"{self.name}: {len(self.specializations)} specialization(s), {self.eager_calls} eager call(s)"]
        lines += [str(s) for s in self.specializations]
        lines += [f"note: {n}" for n in self.notes]
        return "\n".join(lines)


def describe_specialization(specialization: Any, backend: str) -> SpecializationInfo:
    """Read one specialisation."""
    captured = specialization.captured
    written = {position for position, _ in captured.written}
    inputs = tuple(
        InputInfo(value.name, kind, str(value.type), i in written)
        for i, (value, kind) in enumerate(zip(captured.graph.inputs, captured.graph.input_kinds, strict=True))
    )
    arithmetic = captured.arithmetic
    asked = [arithmetic.describe(made) for made in arithmetic.assumptions] if arithmetic else []
    executable = specialization.compiled.executable
    schedule = getattr(executable, "schedule", None)
    plan = getattr(executable, "plan", None)
    return SpecializationInfo(
        reason=specialization.reason,
        backend=backend,
        inputs=inputs,
        guards=tuple(g.meaning for g in specialization.guards.guards.values()),
        results=len(captured.results),
        compile_seconds=specialization.compile_seconds,
        kernels_before_fusion=0 if schedule is None else schedule.primitive_count,
        kernels=0 if schedule is None else len(schedule.steps),
        planned_bytes=0 if plan is None else plan.arena_bytes,
        fusion=() if schedule is None else tuple(schedule.report),
        calls=specialization.calls,
        decisions=(*map(str, captured.decisions), *asked),
        fallbacks=() if executable is None else tuple(executable.fallbacks),
    )
