"""gradcheck and gradgradcheck accept right derivatives and reject wrong ones."""

from __future__ import annotations

from typing import Any

import pytest

import graphtorch as torch
from graphtorch.autograd import Function, gradcheck, gradgradcheck
from graphtorch.autograd.checks import GradcheckError


class WrongSquare(Function):
    """x * x with a derivative that lacks its factor 2."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        (x,) = ctx.saved_tensors
        return g * x


class WrongSecond(Function):
    """x * x with a right derivative that autograd can't see is one."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        (x,) = ctx.saved_tensors
        return g * 2 * x.detach()


def operand(*values: float) -> Any:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def test_right_derivatives_pass() -> None:
    x, y = operand(0.5, 1.5), operand(2.0)
    assert gradcheck(lambda a, b: (a.exp() * b, (a * a).sum()), (x, y))
    assert gradgradcheck(lambda a, b: a.exp() * b, (x, y))


def test_complex_inputs() -> None:
    x = torch.tensor([1.0 + 2.0j, -0.5j], dtype=torch.complex128, requires_grad=True)
    assert gradcheck(lambda a: (a * a * (1 + 1j)).real, x)


def test_wrong_derivative_is_found() -> None:
    with pytest.raises(GradcheckError, match="output 0 with respect to input 0"):
        gradcheck(WrongSquare.apply, operand(0.5, 1.5))
    assert gradcheck(WrongSquare.apply, operand(0.5, 1.5), raise_exception=False) is False


def test_wrong_second_derivative_is_found() -> None:
    x = operand(0.5, 1.5)
    assert gradcheck(WrongSecond.apply, x)
    with pytest.raises(GradcheckError):
        gradgradcheck(WrongSecond.apply, x)


def test_needs_an_input_that_requires_grad() -> None:
    with pytest.raises(ValueError, match="at least one input"):
        gradcheck(lambda a: a, torch.ones(2, dtype=torch.float64))
