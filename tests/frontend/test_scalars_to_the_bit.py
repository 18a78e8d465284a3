"""Numbers that are equal and not the same: 1, 1.0 and True, 0.0 and -0.0, in tuples and as NumPy's; and NaN, which is
the same and not equal."""

from __future__ import annotations

import enum
import math
from typing import Any

import numpy as np
import pytest

import graphtorch as torch

NAN = float("nan")
X = torch.tensor([1.0, 2.0, 3.0])
SERIES: list[list[Any]] = [
    [(1,), (True,), (1.0,), (1,)],
    [(0.0,), (-0.0,), (0.0,)],
    [((1, 2),), ((1, 2.0),), ((1, 2),)],
    [np.float64(0.0), np.float64(-0.0), np.float32(0.0), np.float32(-0.0)],
    [complex(1, 0.0), complex(1, -0.0), complex(-0.0, 1)],
    [NAN, np.float32(NAN), np.float64(NAN), 1.0],
]


def number_of(value: Any) -> Any:
    while isinstance(value, tuple):
        value = value[-1]
    return value


def shown(tensor: Any) -> str:
    return f"{tensor.dtype} {tensor.tolist()} {torch.copysign(torch.ones(3), torch.view_as_real(tensor + 0j)[:, 1])}"


@pytest.mark.parametrize("values", SERIES, ids=str)
def test_a_global_of_another_kind_is_another_number(values: list[Any]) -> None:
    held = {"number": values[0]}
    x = torch.tensor([1, 2, 3])

    def function(x: Any) -> Any:
        number = number_of(held["number"])
        sign = math.copysign(1.0, number.real) if number == 0 else 1.0
        return x * number * sign

    compiled = torch.compile(function)
    for value in values:
        held["number"] = value
        assert shown(compiled(x)) == shown(function(x)), value


@pytest.mark.parametrize("make", [lambda: np.float64("nan"), lambda: (float("nan"), 1), lambda: float("nan")])
def test_a_nan_is_not_compiled_for_again(make: Any) -> None:
    held = {"number": make()}
    compiled = torch.compile(lambda x: x * number_of(held["number"]))
    for _ in range(4):
        held["number"] = make()
        compiled(torch.ones(3))
    assert len(compiled.specializations) == 1


def test_a_sign_of_zero_that_each_call_changes() -> None:
    class Sign:
        value = 0.0

    found = []
    for wrap in (lambda f: f, torch.compile):
        held = Sign()

        def function(x: Any, held: Any = held) -> Any:
            held.value = held.value * -1.0
            return x * math.copysign(1.0, held.value)

        step = wrap(function)
        found.append([(step(torch.ones(2)).tolist(), repr(held.value)) for _ in range(6)])
    assert found[0] == found[1]


def test_integers_that_outgrow_64_bits() -> None:
    found = []
    for wrap in (lambda f: f, torch.compile):
        held = {"count": 3}

        def function(x: Any, held: Any = held) -> Any:
            held["count"] *= held["count"]
            return x * held["count"]

        step = wrap(function)
        found.append([(step(torch.ones(2)).tolist(), held["count"]) for _ in range(7)])
    assert found[0] == found[1]


class Many(int):
    pass


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 3


@pytest.mark.parametrize("kind", [Many, Level, np.int64])
def test_classes_of_integers(kind: Any) -> None:
    """Enumerations and NumPy's integers are numbers like any other, in shapes, too."""

    def function(x: Any, n: int) -> Any:
        return x * n, torch.full((2,), n), torch.zeros(n), x.reshape(1, 3).sum(kind(1)), x[: int(n)]

    compiled = torch.compile(function)
    one, three = kind(1), kind(3)
    for number in (one, three, one):
        for found, wanted in zip(compiled(X, number), function(X, number), strict=True):
            assert found.equal(wanted) and found.dtype is wanted.dtype
    assert len(compiled.specializations) == 2 and compiled.eager_calls == 0


def test_a_quotient_by_a_number_of_the_graph_is_rounded_once() -> None:
    compiled = torch.compile(lambda t: (7 / t.item(), 1.0 / t.sum().item()))
    for number in (3, 5, 49):
        assert compiled(torch.tensor(number)) == (7 / number, 1 / number)
