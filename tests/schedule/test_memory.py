"""The memory plan: buffers that live together never overlap, and memory is reused."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from graphtorch.ir.graph import Value
from graphtorch.lowering.kernel import Access, Axis, Buffer, Kernel, Load, Schedule, Store
from graphtorch.schedule import build_schedule
from graphtorch.schedule.memory import ALIGNMENT, MemoryPlan, may_overwrite, plan
from graphtorch.tensor.dtypes import float32
from graphtorch.tensor.symint import symbol
from graphtorch.tensor.type import TensorType

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lowering"))
from programs import f32, mlp_step, random_program, trace


def check(schedule: Schedule, made: MemoryPlan) -> None:
    """No two buffers share bytes while both live, except where a kernel turns one into the other at the same
    element."""
    buffers = list(made.offsets)
    for buffer in buffers:
        assert made.offsets[buffer] % ALIGNMENT == 0
        assert made.offsets[buffer] + made.sizes[buffer] <= made.arena_bytes
    for i, a in enumerate(buffers):
        for b in buffers[i + 1 :]:
            (a_first, a_last), (b_first, b_last) = made.lifetimes[a], made.lifetimes[b]
            together = a_first <= b_last and b_first <= a_last
            start, end = made.offsets[a], made.offsets[a] + made.sizes[a]
            apart = end <= made.offsets[b] or made.offsets[b] + made.sizes[b] <= start
            if together and not apart:
                old, new = (a, b) if a_first < b_first else (b, a)
                assert made.lifetimes[old][1] == made.lifetimes[new][0], "two live buffers overlap"
                assert made.offsets[old] == made.offsets[new]
                step: Any = schedule.steps[made.lifetimes[new][0]]
                assert may_overwrite(step, old, new)
    assert made.peak_bytes <= made.arena_bytes <= made.total_bytes


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_random_programs(seed: int) -> None:
    draw = random.Random(seed)
    schedule = build_schedule(random_program(draw.randrange, 30))
    check(schedule, plan(schedule))


def test_training_step_reuses_memory() -> None:
    graph, donations = mlp_step()
    schedule = build_schedule(graph, donations)
    made = plan(schedule)
    check(schedule, made)
    assert made.arena_bytes < made.total_bytes
    # Parameters are updated in place, so that only the loss is allocated for the caller.
    assert made.output_bytes == 4


def test_a_chain_of_calls_needs_two_buffers() -> None:
    def program(x: Any, w: Any) -> Any:
        for _ in range(6):
            x = x @ w
        return x

    schedule = build_schedule(trace(program, f32(16, 16), f32(16, 16)))
    assert plan(schedule).arena_bytes == 2 * 16 * 16 * 4


def test_a_kernel_may_take_over_its_operand() -> None:
    schedule = build_schedule(trace(lambda x, w: (x @ w).exp() @ w, f32(16, 16), f32(16, 16)))
    made = plan(schedule)
    check(schedule, made)
    assert made.arena_bytes == 16 * 16 * 4


def test_a_fold_does_not_overwrite_what_a_later_pass_reads() -> None:
    """softmax reads its operand in three passes."""

    def program(x: Any, w: Any) -> Any:
        return ((x @ w).softmax(-1)) @ w

    schedule = build_schedule(trace(program, f32(16, 16), f32(16, 16)))
    assert plan(schedule).arena_bytes == 2 * 16 * 16 * 4


def test_what_several_programs_read_is_not_taken_over() -> None:
    """A store that each program along an axis repeats would overwrite what others have still to read."""
    of = TensorType(float32, (2,))
    old, new = (Buffer(name, float32, (2,), "temporary", Value(of, name)) for name in ("old", "new"))

    def kernel(repeats: int) -> Kernel:
        axes = (Axis("i0", 2), Axis("i1", repeats))
        return Kernel("k", axes, [Store(Access(new, 0, (1, 0)), Load(Access(old, 0, (1, 0))))], [], [])

    assert may_overwrite(kernel(1), old, new)
    assert not may_overwrite(kernel(3), old, new)


def test_symbolic_sizes_are_planned_when_known() -> None:
    n = symbol("n", hint=4)
    schedule = build_schedule(trace(lambda x, w: (x @ w).exp() @ w, f32(n, 16), f32(16, 16)))
    assert plan(schedule, {"n": 4}).arena_bytes == 4 * 16 * 4
    assert plan(schedule, {"n": 100}).arena_bytes == 100 * 16 * 4
