"""Float arguments that change at each call: one compilation for all values, where the number goes into arithmetic, as
Python does it, or is compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch.nn import functional as F

X = torch.tensor([0.3, -1.2, 2.0])
VALUES = [0.0, 0.25, 0.5, 0.75, 1.0, 1.5]

ARITHMETIC: list[Callable[[Any, float], Any]] = [
    lambda x, e: x + e,
    lambda x, e: x.square() * (1 - e**2),
    lambda x, e: x.long() * e,
    lambda x, e: torch.where(x > e, x, e),
    lambda x, e: x.clamp(-e, e),
    lambda x, e: torch.lerp(x, 2 * x, e),
    lambda x, e: F.softmax(x / (e + 1), 0),
    lambda x, e: torch.add(x, x, alpha=e),
    lambda x, e: x * torch.full((3,), e),
    lambda x, e: torch.randn(3) * e + x,
    lambda x, e: x if isinstance(e, float) else x * 2,
    lambda x, e: x * (2.0 if isinstance(e, float) else 3.0),
    lambda x, e: x * 2 if type(e) is float else x,
    lambda x, e: x.float() if torch.is_tensor(e) else x.double(),
    lambda x, e: x * math.cos(e),
    lambda x, e: x * torch.tensor(e),
]

# What asks more of the number than arithmetic is compiled for each value.
ASKING: list[Callable[[Any, float], Any]] = [
    lambda x, e: x * len(f"{e:.3g}"),
    lambda x, e: x * {0.5: 2}.get(e, 3),
    lambda x, e: F.dropout(x, e / 2),
]


def compare(function: Callable[[Any, float], Any], backend: str) -> Any:
    compiled = torch.compile(function, backend=backend)
    for value in VALUES:
        torch.manual_seed(0)
        wanted = function(X, value)
        torch.manual_seed(0)
        found = compiled(X, value)
        assert found.dtype is wanted.dtype and found.allclose(wanted)
    assert compiled.eager_calls == 0
    return compiled


@pytest.mark.parametrize("function", ARITHMETIC)
def test_one_compilation_serves_all_values(function: Callable[[Any, float], Any]) -> None:
    assert len(compare(function, "cpu").specializations) == 2  # of the first value, and of any
    assert len(compare(function, "numpy").specializations) == 2


@pytest.mark.parametrize("function", ASKING)
def test_what_asks_for_the_value_gets_it(function: Callable[[Any, float], Any]) -> None:
    assert len(compare(function, "numpy").specializations) >= len(VALUES) - 1


@pytest.mark.parametrize(
    "function",
    [
        lambda x, e: x * (2 if e > 0.6 else 1) * e,
        lambda x, e: x * e if x.sum() > e else x - e,
        lambda x, e: torch.cond(x.sum() > e, lambda x: x * e, lambda x: x - e, (x,)) if e > 0.6 else x,
    ],
)
def test_an_answer_has_a_program(function: Callable[[Any, float], Any]) -> None:
    assert len(compare(function, "numpy").specializations) == 3  # of the first value, and of either answer


def test_python_s_arithmetic_is_python_s() -> None:
    """Zero divisors, roots of negative numbers, and what leaves the range of a float or of 64 bits."""
    cases: list[tuple[Callable[[Any], Any], Sequence[Any]]] = [
        (lambda e: 1 / e, (1.0, 2.0, 0.0, -1.0, 3.0)),
        (lambda e: e**0.5, (1.0, 2.0, -2.0, 3.0)),
        (lambda e: 10.0**e, (1.0, 2.0, 400.0, 3.0)),
        (lambda e: 5 % e, (1.5, 2.0, 0.0, -1.5)),
        (lambda e: e * 6364136223846793005 % (1 << 31), (1, 2, 1 << 40, -5, 1 << 70)),
        (lambda e: e**3, (3, 5, 1 << 40, 1 << 70, -(1 << 63))),
        (lambda e: -e, (3, 5, -(1 << 63))),
    ]
    for formula, values in cases:
        found = []
        for wrap in (lambda f: f, torch.compile):

            @wrap
            def function(x: Any, e: Any, formula: Any = formula) -> Any:
                return x * formula(e), formula(e)

            found.append([])
            for value in values:
                try:
                    tensor, number = function(X.double(), value)
                    found[-1].append((tensor.tolist(), number))
                except ArithmeticError as error:
                    found[-1].append(repr(error))
        assert found[0] == found[1]


def test_scalars_of_numpy() -> None:
    compiled = torch.compile(lambda x, e: (x * e, e * 2))
    for value in np.linspace(0, 1, 5):
        scaled, twice = compiled(X, value)
        assert scaled.allclose(X * value) and type(twice) is np.float64 and twice == value * 2
    assert len(compiled.specializations) == 2 and compiled.eager_calls == 0


class Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, factor: float) -> Any:
        ctx.factor = factor
        return x * 1.0

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return -g * ctx.factor, None


def hooked(x: Any, factor: float) -> Any:
    made = x * 1.0
    made.register_hook(lambda g: g * factor)
    return made


@pytest.mark.parametrize(("function", "programs"), [(Reverse.apply, 2), (hooked, 4)])
def test_numbers_in_a_backward_pass_outside(function: Callable[[Any, float], Any], programs: int) -> None:
    step = torch.compile(lambda x, e: function(x.sin(), e).sum())
    for value in (0.5, 1.5, 2.5, -1.0):
        x = X.clone().requires_grad_()
        step(x, value).backward()
        assert x.grad.allclose(x.detach().cos() * (-value if programs == 2 else value))
    assert len(step.specializations) == programs


@pytest.mark.parametrize("backend", ["cpu", "numpy"])
def test_an_annealed_loss(backend: str) -> None:
    runs = []
    for compiled in (False, True):
        w = torch.ones(3, requires_grad=True)
        optimizer = torch.optim.Adam([w], lr=0.1)

        def step(x: Any, beta: float, w: Any = w, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad()
            loss = ((w * x).square() * beta + (1 - beta) * w).sum()
            loss.backward()
            optimizer.step()
            return loss, beta

        run = torch.compile(step, backend=backend) if compiled else step
        runs.append([run(X, n / 20) for n in range(20)])
        if compiled:
            assert len(run.specializations) == 2
    for (loss, beta), (wanted, same) in zip(*runs, strict=True):
        assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
        assert type(same) is float and same == beta


def test_integers_and_sizes_beside_them() -> None:
    compiled = torch.compile(lambda x, e, n: (x * e).sum() * n, backend="numpy")
    for n in (1, 2):
        for size in (3, 4, 5):
            for value in (0.5, 0.7, 0.9):
                found = compiled(torch.ones(size), value, n)
                assert found.item() == pytest.approx(size * value * n)
    assert len(compiled.specializations) <= 6


@pytest.mark.parametrize("backend", ["cpu", "numpy"])
def test_numbers_that_item_gives_are_looked_up_by_value(backend: str) -> None:
    def scaled(x: Any) -> Any:
        return x * {1.0: 2, 2.0: 3}.get(x.sum().item(), 5)

    compiled = torch.compile(scaled, backend=backend)
    for value in (0.5, 1.0, 2.0, 1.0):
        assert compiled(torch.tensor([value])).equal(scaled(torch.tensor([value])))


def test_an_error_of_a_value_is_the_value_s() -> None:
    def dropped(x: Any, p: float) -> Any:
        return F.dropout(x, p)

    compiled = torch.compile(dropped)
    compiled(X, 0.5)
    with pytest.raises(ValueError, match=r"has to be between 0 and 1, but got 1\.5"):
        compiled(X, 1.5)
    assert compiled(X, 0.0).equal(X)


def test_a_compiled_module_is_called_by_its_class() -> None:
    class Net(torch.nn.Module):
        def forward(self, image: Any, scale: float = 1.0) -> Any:
            return image * scale

    model = torch.compile(Net())
    model(torch.ones(2))
    assert repr(model._compiled_call_impl) == f"<compiled {Net.__qualname__}>"
    assert "the shape of image was [2]" in str(model._compiled_call_impl.explain())
