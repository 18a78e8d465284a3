"""Schedules and plans as text, JSON and Graphviz."""

from __future__ import annotations

import json

from programs import f32, mlp_step, trace

import graphtorch
from graphtorch.lowering.printer import print_plan, print_schedule, schedule_dot, schedule_json
from graphtorch.schedule import build_schedule
from graphtorch.schedule.memory import plan


def test_a_kernel_reads_as_a_loop_nest() -> None:
    schedule = build_schedule(trace(lambda x: graphtorch.softmax(x.t(), -1), f32(4, 5)))
    assert print_schedule(schedule, report=False) == (
        "inputs x0: f32[4, 5]\n"
        "\n"
        "k0(i0: 5, r0: 4)  # softmax (train.py:12)\n"
        "  %0 = max[r0] x0[i0 + 5*r0]\n"
        "  %1 = sub x0[i0 + 5*r0], %0\n"
        "  %2 = exp %1\n"
        "  %3 = sum[r0] %2\n"
        "  out0[4*i0 + r0] = div %2, %3\n"
        "\n"
        "outputs out0[5, 4; 4, 1]\n"
        "6 primitives in 1 kernels and 0 calls\n"
    )


def test_a_training_step_prints_in_every_format() -> None:
    graph, donations = mlp_step(8, 6, 5, 4)
    schedule = build_schedule(graph, donations)
    text = print_schedule(schedule)
    assert text.count("= mm(") == 5 and "not fused with" in text
    data = json.loads(json.dumps(schedule_json(schedule)))
    assert [s["kind"] for s in data["steps"]].count("call") == 5
    assert data["outputs"][1]["buffer"] == "p0"
    dot = schedule_dot(schedule)
    assert dot.startswith("digraph") and dot.count("->") >= 20
    made = plan(schedule)
    lines = print_plan(made).splitlines()
    assert lines[0].startswith(f"arena {made.arena_bytes} bytes") and len(lines) == 1 + len(made.offsets)
