"""Products whose operand is one value everywhere, as in the backward pass of a sum: machine code, for the interpreter
broadcasts what the compiler does not."""

from __future__ import annotations

import pytest
from programs import f32, trace

import graphtorch
from graphtorch.lowering.triton.compiler import compile_all
from graphtorch.lowering.triton.launch import make_plan
from graphtorch.lowering.triton.passes import prepare_schedule
from graphtorch.schedule import build_schedule

pytest.importorskip("triton")


@pytest.mark.parametrize("side", ["left", "right"])
def test_products_with_a_constant_compile(side: str) -> None:
    def product(x: object) -> object:
        ones = graphtorch.full((24, 24), 1.0)
        return ones @ x if side == "left" else x @ ones

    plan = make_plan(prepare_schedule(build_schedule(trace(product, f32(24, 24)))), {})
    assert any("tl.dot" in launch.function.source for launch in plan.launches)
    compiled = compile_all([launch.function for launch in plan.launches], "sm_90")
    assert all(c.binary for c in compiled)
