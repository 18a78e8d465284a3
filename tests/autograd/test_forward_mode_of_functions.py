"""Custom functions in forward mode: `jvp`, `save_for_forward`, and `gradcheck(check_forward_ad=True)`."""

from __future__ import annotations

from typing import Any

import pytest

import graphtorch as torch
from graphtorch.autograd import Function, forward_ad, gradcheck, gradgradcheck
from graphtorch.autograd.checks import GradcheckError


class Product(Function):
    """a * b * k, and the sum of a."""

    @staticmethod
    def forward(ctx: Any, a: Any, b: Any, k: float) -> Any:
        ctx.save_for_backward(b, a)
        ctx.save_for_forward(a, b)
        ctx.k = k
        return a * b * k, a.sum()

    @staticmethod
    def backward(ctx: Any, g: Any, h: Any) -> Any:
        b, a = ctx.saved_tensors
        return g * b * ctx.k + h, g * a * ctx.k, None

    @staticmethod
    def jvp(ctx: Any, da: Any, db: Any, dk: Any) -> Any:
        assert dk is None
        a, b = ctx.saved_tensors
        return (da * b + a * db) * ctx.k, da.sum()


def test_tangents_come_from_jvp_and_gradients_from_backward() -> None:
    a = torch.tensor([1.0, 2.0], requires_grad=True)
    b, tangent = torch.tensor([3.0, 5.0]), torch.tensor([0.5, -1.0])
    with forward_ad.dual_level():
        made, total = Product.apply(forward_ad.make_dual(a, tangent), b, 2.0)
        assert forward_ad.unpack_dual(made).tangent.tolist() == [3.0, -10.0]  # b had none: zeros
        assert forward_ad.unpack_dual(total).tangent.item() == -0.5
        (made.sum() + total).backward()
    assert a.grad.tolist() == [7.0, 11.0]


def test_a_function_without_jvp_says_so() -> None:
    class Plain(Function):
        @staticmethod
        def forward(ctx: Any, a: Any) -> Any:
            return a * 2

    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="implement the jvp function"):
        Plain.apply(forward_ad.make_dual(torch.ones(2), torch.ones(2)))


class Doubled(Function):
    @staticmethod
    def forward(a: Any) -> Any:
        return a * 2

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return g * 2

    @staticmethod
    def jvp(ctx: Any, t: Any) -> Any:
        return t * 3


def test_jvp_has_as_many_tangents_as_results() -> None:
    class Wrong(Doubled):
        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            pass

        @staticmethod
        def jvp(ctx: Any, t: Any) -> Any:
            return t, t

    with forward_ad.dual_level(), pytest.raises(RuntimeError, match="expected 1 but got 2"):
        Wrong.apply(forward_ad.make_dual(torch.ones(2), torch.ones(2)))


def test_gradcheck_of_forward_mode() -> None:
    a = torch.tensor([0.3, -1.2], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([1.5, 0.7], dtype=torch.float64, requires_grad=True)
    assert gradcheck(Product.apply, (a, b, 2.0), check_forward_ad=True, check_batched_grad=False)
    assert gradcheck(Doubled.apply, (a,))
    with pytest.raises(GradcheckError, match="forward mode mismatch"):
        gradcheck(Doubled.apply, (a,), check_forward_ad=True)
    assert not gradcheck(Doubled.apply, (a,), check_forward_ad=True, check_backward_ad=False, raise_exception=False)
    assert gradgradcheck(lambda x: x.sin() * x, (a,), check_fwd_over_rev=True)
