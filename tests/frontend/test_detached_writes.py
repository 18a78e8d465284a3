"""Detached memory that is changed by what has a history: the history is that of the tensor it is changed through."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest

import graphtorch as torch


def average(buffer: Any, w: Any) -> Any:
    buffer.data.lerp_(w * 2, 0.25)
    return (buffer * w).sum()


def through_detach(buffer: Any, w: Any) -> Any:
    buffer.detach().mul_(w)
    return (buffer * w).sum()


def beside_an_alias(buffer: Any, w: Any) -> Any:
    other = buffer.detach()
    buffer.detach().mul_(w)
    return (other * w).sum()


def used_afterwards(buffer: Any, w: Any) -> Any:
    own = buffer.data
    own.mul_(w)
    return (own * w).sum()


def through_a_view(buffer: Any, w: Any) -> Any:
    own = buffer.detach()
    own[0].mul_(w[0])
    return (own * w).sum()


def seen_by_a_view(buffer: Any, w: Any) -> Any:
    own = buffer.detach()
    view = own[:2]
    own.mul_(w)
    return (view * w[1:]).sum()


def behind_a_history(buffer: Any, w: Any) -> Any:
    hidden = w.sin()
    hidden.data.mul_(w)
    buffer.data.add_(hidden)
    return hidden.sum()


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
@pytest.mark.parametrize(
    "program",
    [average, through_detach, beside_an_alias, used_afterwards, through_a_view, seen_by_a_view, behind_a_history],
)
def test_as_in_eager_execution(program: Callable[[Any, Any], Any], backend: str) -> None:
    def run(decorate: Callable[..., Any]) -> list[Any]:
        buffer, w = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, -1.5, 2.0], requires_grad=True)

        @decorate
        def step() -> Any:
            w.grad = None
            loss = program(buffer, w)
            loss.backward()
            return loss

        shown = [[step().item(), buffer.tolist(), buffer.requires_grad, w.grad.tolist()] for _ in range(3)]
        if program in (average, through_detach):
            assert not getattr(step, "eager_calls", 0)
        return shown

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert run(lambda f: torch.compile(f, backend=backend)) == run(lambda f: f)


@pytest.mark.parametrize("backend", ["cpu", "numpy"])
def test_a_gradient_of_what_was_changed_without_history_is_that_of_all_its_uses(backend: str) -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        x = x * 1
        before = x[0]
        with torch.no_grad():
            x[:, None] *= -1
        return torch.autograd.grad((before * 2).sum() + (x * x).sum(), [x])[0]

    def unused_since(x: torch.Tensor) -> torch.Tensor:
        x = x * 1
        y = x * x
        with torch.no_grad():
            x.mul_(3)
        return torch.autograd.grad(y.detach().sum() + x[[0, 0]].sum(), [x])[0]

    for f in (function, unused_since):
        x = torch.arange(9.0).reshape(3, 3).requires_grad_()
        assert torch.equal(torch.compile(f, backend=backend)(x), f(x))
