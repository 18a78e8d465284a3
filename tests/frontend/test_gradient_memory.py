"""Gradients whose memory others see: arguments that are views of them, and buffers that they are views of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import graphtorch as torch

pytestmark = pytest.mark.filterwarnings("ignore:.*runs eagerly")

GIVEN: dict[str, Callable[[Any], Any]] = {
    "itself": lambda g: g,
    "copy": lambda g: g.clone(),
    "view": lambda g: g.view(-1),
    "slice": lambda g: g[:],
    "detached": lambda g: g.detach(),
    "data": lambda g: g.data,
}


def close(actual: Any, expected: Any) -> None:
    torch.testing.assert_close(torch.tensor(actual), torch.tensor(expected), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("backend", ["cpu", "numpy"])
@pytest.mark.parametrize("first", GIVEN)
@pytest.mark.parametrize("then", GIVEN)
def test_gradients_as_arguments(first: str, then: str, backend: str):
    """What scales its arguments and then takes a step, given the gradients in one way and then in another."""

    def outcome(compiled: bool) -> list[Any]:
        parameters = [torch.nn.Parameter(torch.ones(3) * (i + 1)) for i in range(2)]
        optimizer = torch.optim.SGD(parameters, lr=0.1)

        def update(gradients: list[Any]) -> Any:
            for gradient in gradients:
                gradient.mul_(0.5)
            optimizer.step()
            return gradients[0].sum()

        run = torch.compile(update, backend=backend) if compiled else update
        found = []
        for how in (first, then, then, first):
            for p in parameters:
                p.grad = None
            sum((p * p).sum() for p in parameters).backward()
            found.append(float(run([GIVEN[how](p.grad) for p in parameters])))
        return [found, [p.tolist() for p in parameters]]

    for actual, expected in zip(outcome(True), outcome(False), strict=True):
        close(actual, expected)


@pytest.mark.parametrize("backend", ["cpu", "numpy"])
@pytest.mark.parametrize("order", ["scale first", "clear afterwards", "whole step"])
def test_gradients_in_one_buffer(order: str, backend: str):
    def outcome(compiled: bool) -> list[Any]:
        parameters = [torch.nn.Parameter(torch.ones(3) * (i + 1)) for i in range(2)]
        optimizer = torch.optim.SGD(parameters, lr=0.1)
        buffer = torch.zeros(6)
        for i, p in enumerate(parameters):
            p.grad = buffer[3 * i : 3 * i + 3]

        def step() -> Any:
            if order == "scale first":
                buffer.mul_(0.5)
                optimizer.step()
            elif order == "clear afterwards":
                optimizer.step()
                buffer.zero_()
            else:
                sum((p * p).sum() for p in parameters).backward()
                norm = buffer.norm()
                buffer.mul_(1 / (norm + 1))
                optimizer.step()
                buffer.zero_()
                return norm
            return buffer.sum()

        run = torch.compile(step, backend=backend) if compiled else step
        found = []
        for _ in range(4):
            if order != "whole step":
                for p in parameters:
                    assert p.grad is not None
                    p.grad.copy_(p.detach() * 2)
            found.append(float(run()))
        return [found, [p.tolist() for p in parameters], buffer.tolist()]

    for actual, expected in zip(outcome(True), outcome(False), strict=True):
        close(actual, expected)


def test_gradients_that_accumulate_are_arguments_no_longer():
    """A view of what a call accumulates into, given to the next call."""

    def outcome(compiled: bool) -> list[Any]:
        s = torch.arange(15.0).reshape(5, 3).requires_grad_()

        def f(a: Any) -> Any:
            s.diagonal().sum().backward(retain_graph=True)
            a[-1] = 2
            assert s.grad is not None
            return s.grad.mT

        run = torch.compile(f, backend="numpy") if compiled else f
        first = run(torch.zeros(3))
        second = run(first)
        assert s.grad is not None
        return [first.tolist(), second.tolist(), s.grad.tolist()]

    assert outcome(True) == outcome(False)
