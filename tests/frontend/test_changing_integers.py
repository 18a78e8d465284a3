"""Integers among the arguments that change from call to call: the second value is compiled with a symbol, or a run-time
number, in its place, and further ones need no compilation, as in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

import graphtorch as torch

NAMED = {"2": 10.0, "3": 20.0}

# function of (x, n), values of n, and how many programs there are after each
FUNCTIONS: dict[str, tuple[Callable[[Any, int], Any], Sequence[int], Sequence[int]]] = {
    "factor": (lambda x, n: x * n, (2, 3, 4, 5, 9, 0, -3), (1, 2, 2, 2, 2, 3, 3)),
    "from zero": (lambda x, n: x * n, (0, 1, 2, -5), (1, 2, 2, 2)),
    "quotient": (lambda x, n: x * (n / 3), (2, 3, 4, 5), (1, 2, 2, 2)),
    "power": (lambda x, n: (x**n, n**x), (2, 3, 4, 5), (1, 2, 2, 2)),
    "size": (lambda x, n: torch.zeros(n) + x.sum(), (2, 3, 4, 5), (1, 2, 2, 2)),
    "slice": (lambda x, n: x[:, :n] * 2, (2, 3, 4, 3, 9, 7), (1, 2, 2, 2, 3, 3)),
    "repeat": (lambda x, n: x.repeat(n, 1), (2, 3, 4, 5), (1, 2, 2, 2)),
    "view": (lambda x, n: x.reshape(-1)[: n * 3].view(n, 3) + n, (2, 3, 4, 5), (1, 2, 2, 2)),
    "branch": (lambda x, n: x * n if n > 6 else x + n, (2, 3, 5, 7, 8, 6), (1, 2, 2, 3, 3, 3)),
    "position": (lambda x, n: x[n % 4] + n // 2, (2, 3, 4, 5, 11), (1, 2, 2, 2, 2)),
    "mask": (lambda x, n: torch.ones(n, n).tril() + x[0, 0], (2, 3, 4, 5), (1, 2, 2, 2)),
    "results": (lambda x, n: (x + n, n, n * 2, n + 1.5), (2, 3, 4, 5), (1, 2, 2, 2)),
    "class": (lambda x, n: x * n if isinstance(n, int) else -x, (2, 3, 4), (1, 2, 2)),
    "exact class": (lambda x, n: x * n if type(n) is int else -x, (2, 3, 4), (1, 2, 2)),
    "name": (lambda x, n: x * NAMED.get(f"{n}", -1.0), (2, 3, 4), (1, 2, 3)),
    "text": (lambda x, n: x * NAMED.get(str(n), -1.0), (2, 3, 4), (1, 2, 3)),
    "loop": (lambda x, n: sum(x * i for i in range(n)), (2, 3, 4), (1, 2, 3)),
    "entry": (lambda x, n: [x, x + 1, x + 2, x + 3][n] * 1, (1, 2, 3), (1, 2, 3)),
    "dimension": (lambda x, n: x.sum(n), (0, 1, -1, 0), (1, 2, 3, 3)),
    "large": (lambda x, n: x.double() * n, (2, 3, 1 << 40, (1 << 62) + 1), (1, 2, 3, 3)),
}


def check(actual: Any, expected: Any) -> None:
    for a, e in zip(actual, expected, strict=True) if isinstance(expected, tuple) else [(actual, expected)]:
        assert type(a) is type(e)
        if isinstance(e, torch.Tensor):
            assert a.dtype is e.dtype and a.stride() == e.stride()
            torch.testing.assert_close(a, e)
        else:
            assert a == e


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("backend", ["cpu", "numpy"])
def test_further_values_need_no_program(name: str, backend: str) -> None:
    function, values, counts = FUNCTIONS[name]
    compiled = torch.compile(function, backend=backend)
    x = torch.arange(24.0).reshape(4, 6) / 8
    for value, count in zip(values, counts, strict=True):
        for _ in range(2):
            check(compiled(x, value), function(x, value))
        assert len(compiled.specializations) == count
    assert not compiled.eager_calls


def test_flags_stay_what_they_are() -> None:
    compiled = torch.compile(lambda x, n: x * n)
    x = torch.ones(3)
    for value in (2, 3, 4, True, False, 5):
        assert compiled(x, value).tolist() == [float(value)] * 3


def test_dynamic_false_compiles_each_value() -> None:
    compiled = torch.compile(lambda x, n: x * n, dynamic=False)
    for value in (2, 3, 4):
        assert compiled(torch.ones(1), value).item() == value
    assert len(compiled.specializations) == 3


@pytest.mark.parametrize("backend", ["cpu", "numpy"])
def test_gradients(backend: str) -> None:
    def function(x: torch.Tensor, n: int) -> torch.Tensor:
        return (x[:, :n] * n).exp().sum() / n

    compiled = torch.compile(function, backend=backend)
    for n in (2, 3, 4, 5):
        found = []
        for run in (function, compiled):
            x = (torch.arange(24.0).reshape(4, 6) / 24).requires_grad_()
            run(x, n).backward()
            found.append(x.grad)
        torch.testing.assert_close(*found)
    assert len(compiled.specializations) == 2


@pytest.mark.parametrize("backend", ["cpu", "numpy"])
def test_a_step_with_lengths_and_counts(backend: str) -> None:
    def training(compile: Callable[[Any], Any]) -> list[float]:
        torch.manual_seed(0)
        model = torch.nn.Linear(8, 8)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

        @compile
        def step(x: torch.Tensor, length: int, options: dict[str, int]) -> torch.Tensor:
            optimizer.zero_grad()
            y = model(x)[:, :length]
            loss = (y - torch.arange(length)).square().mean() * options["weight"]
            loss.backward()
            optimizer.step()
            return loss

        losses = [step(torch.rand(4, 8), 2 + i % 5, {"weight": i + 2}).item() for i in range(12)]
        if isinstance(step, type(torch.compile(len))):
            assert len(step.specializations) == 2
        return losses

    expected = training(lambda f: f)
    assert training(torch.compile(backend=backend)) == pytest.approx(expected, rel=1e-5)


def test_sizes_are_integers_to_the_program() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        size = x.shape[0]
        return x * (1.0 if isinstance(size, int) else -1.0) + NAMED.get(f"{size}", 5.0)

    compiled = torch.compile(function)
    for n in (4, 2, 3, 5):
        assert torch.equal(compiled(torch.ones(n)), function(torch.ones(n)))
