"""How exact quotients are: the short form of the hardware where half precision is all that is kept of them, the one
rounded to the nearest everywhere else."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from programs import arrays, f32, trace

import graphtorch
from graphtorch.lowering.kernel import Constant
from graphtorch.schedule import build_schedule
from graphtorch.tensor import dtypes
from graphtorch.tensor.type import TensorType

pytest.importorskip("triton")

from graphtorch.lowering.triton.backend import InterpretedBackend
from graphtorch.lowering.triton.compiler import compile_one
from graphtorch.lowering.triton.listing import plan_for
from graphtorch.lowering.triton.precision import exact_reciprocal


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHTORCH_CACHE", str(tmp_path / "cache"))


def typed(kind: str, *shape: int) -> TensorType:
    return TensorType(getattr(dtypes, kind), shape)


def source(function: Callable[..., Any], *types: TensorType) -> str:
    (launch,) = plan_for(build_schedule(trace(function, *types))).launches
    text: str = launch.function.source
    return text[text.index("def fused") :]


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_what_is_rounded_to_half_precision_is_divided_in_short(kind: str) -> None:
    x = typed(kind, 64)
    for function in (
        lambda x, y: x / y,
        lambda x, y: (x.float() / y.float()).to(x.dtype),
        lambda x, y: -(x / y) * y,
        lambda x, y: graphtorch.where(y > 0, x / y, x),
    ):
        text = source(function, x, x)
        assert " / " in text and "div_rn" not in text
    text = source(lambda x, y: (x.sqrt(), y.rsqrt(), (x * y).reciprocal()), x, x)
    assert text.count("1.0 / ") == 2 and "div_rn" not in text
    assert "div_rn" not in source(lambda x: graphtorch.softmax(x, -1), typed(kind, 8, 64))


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32"])
def test_what_is_seen_in_more_bits_is_rounded_to_the_nearest(kind: str) -> None:
    """Of 6 / 2 - 3 nothing may be left, and the floor of 6 / 2 is 3."""
    x, wide = typed(kind, 64), f32(64)
    for function in (
        lambda x, y: (x / y - 3).float(),
        lambda x, y: x / y - 3,
        lambda x, y: (x / y).floor(),
        lambda x, y: (x / y > 3, x / y),
        lambda x, y: (x / y).float().sum(),
    ):
        text = source(function, x, x)
        assert "tl.div_rn(" in text and " / " not in text
    text = source(lambda x, y: ((x / y).half(), x / y), wide, wide)
    assert "tl.div_rn(" in text and " / " not in text


def test_sigmoids_of_half_precision_are_divided_in_short() -> None:
    """Their exponential is no more exact."""
    assert "div_rn" not in source(lambda x: graphtorch.sigmoid(x) - 1, typed("bfloat16", 64))
    assert "div_rn" in source(lambda x: graphtorch.sigmoid(x) - 1, f32(64))


def test_no_short_form_takes_small_numbers_for_zero() -> None:
    """bfloat16 has numbers as small as float32 has, and the interpreter would not show it."""
    x = typed("bfloat16", 4096)

    def program(x: Any, y: Any) -> Any:
        return x / y, x.sqrt(), y.rsqrt(), (x * y).reciprocal(), (x.float() / y.float()).sqrt().to(x.dtype)

    (launch,) = plan_for(build_schedule(trace(program, x, x))).launches
    assembly = compile_one(launch.function, "sm_90").assembly
    assert "div.full.f32" in assembly and not re.findall(r"(?:div|sqrt|rcp|rsqrt)\S*ftz\S*", assembly)


def test_a_row_of_half_precision_is_divided_without_calls() -> None:
    (launch,) = plan_for(
        build_schedule(trace(lambda x: graphtorch.softmax(x, -1), typed("bfloat16", 8192, 4096)))
    ).launches
    assembly = compile_one(launch.function, "sm_90").assembly
    assert "div.full.f32" in assembly and "div.rn" not in assembly


@pytest.mark.parametrize("divisor", [8, 0.25, -4.0, 2.0**-126, 2.0**126])
def test_powers_of_two_divide_as_they_multiply(divisor: float) -> None:
    text = source(lambda x: x.mean(-1) if divisor == 8 else x.sum(-1) / divisor, f32(4, 8))
    assert f" * {1 / divisor!r}" in text and "div_rn" not in text
    graph = trace(lambda x: x.sum(-1) / divisor, f32(4, 8))
    (x,) = arrays(graph)
    (found,) = InterpretedBackend().compile(graph).run([x])
    with np.errstate(over="ignore", under="ignore"):
        np.testing.assert_array_equal(found, x.sum(-1) / np.float32(divisor))


@pytest.mark.parametrize("divisor", [3.0, 0.0, float("inf"), float("nan"), 2.0**-127, 2.0**127, 10**400, True])
def test_other_divisors_divide(divisor: Any) -> None:
    assert exact_reciprocal(Constant(divisor, dtypes.float32)) is None
