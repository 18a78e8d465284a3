"""What programs use around custom functions and saved tensors, beside PyTorch."""

from __future__ import annotations

from typing import Any

import pytest

import graphtorch

torch = pytest.importorskip("torch")
BOTH = (torch, graphtorch)


def outcomes(program: Any, *more: Any) -> list[str]:
    """What a program gives under PyTorch and here: its text, or its error's."""
    found = []
    for lib in BOTH:
        try:
            found.append(repr(program(lib, *more)))
        except Exception as error:
            found.append(f"{type(error).__name__}: {error}")
    return found


def square(lib: Any) -> Any:
    once_differentiable = lib.autograd.function.once_differentiable

    class Square(lib.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, k: int) -> Any:
            ctx.save_for_backward(x)
            return x * x * k

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, grad: Any) -> Any:
            (x,) = ctx.saved_tensors
            return 2 * x * grad, None

    return Square


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("way", ["first", "create_graph", "grad_of_grad", "backward_of_grad", "independent"])
def test_once_differentiable(way: str, compiled: bool) -> None:
    def program(lib: Any) -> Any:
        function = square(lib)

        def run(x: Any) -> Any:
            if way == "first":
                return lib.autograd.grad(function.apply(x, 1).sum(), x)[0]
            if way == "independent":  # the cotangent needs no gradient, so neither does the result
                return lib.autograd.grad(function.apply(x, 1).sum(), x, create_graph=True)[0]
            (g,) = lib.autograd.grad((function.apply(x, 1) * x).sum(), x, create_graph=True)
            if way == "grad_of_grad":
                return lib.autograd.grad(g.sum(), x)[0]
            if way == "backward_of_grad":
                g.sum().backward()
                return x.grad
            return g.detach()

        x = lib.tensor([1.0, 2.0], requires_grad=True)
        if compiled and lib is graphtorch:
            run = lib.compile(run)
        return run(x)

    expected, found = outcomes(program)
    assert found == expected
    if way == "backward_of_grad":
        assert "trying to differentiate twice" in found


def test_names_of_contexts() -> None:
    from graphtorch.autograd.function import FunctionCtx, InplaceFunction

    seen = []

    class Twice(InplaceFunction):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            seen.append(isinstance(ctx, FunctionCtx))
            return x * 2

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            return grad * 2

    x = graphtorch.ones(2, requires_grad=True)
    Twice.apply(x).sum().backward()
    assert seen == [True]
    assert x.grad.tolist() == [2, 2]
    assert InplaceFunction(True).inplace


@pytest.mark.parametrize("inner", ["hooks", "checkpoint", "mutation", "nothing"])
def test_disabled_hooks(inner: str) -> None:
    def program(lib: Any) -> Any:
        import importlib

        checkpoint = importlib.import_module(f"{lib.__name__}.utils.checkpoint").checkpoint
        graph = lib.autograd.graph
        x = lib.tensor([0.5], requires_grad=True)
        with graph.disable_saved_tensors_hooks("no hooks here"):
            if inner == "hooks":
                with graph.saved_tensors_hooks(lambda t: t, lambda t: t):
                    pass
            if inner == "checkpoint":
                checkpoint(lambda t: t.sin(), x, use_reentrant=False)
            if inner == "mutation":
                with graph.allow_mutation_on_saved_tensors():
                    pass
            return x.sin().item()

    expected, found = outcomes(program)
    assert found == expected
    assert inner == "nothing" or found == "RuntimeError: no hooks here"


def test_hooks_are_not_disabled_where_they_are_active_and_are_back_afterwards() -> None:
    def program(lib: Any) -> Any:
        graph = lib.autograd.graph
        with graph.disable_saved_tensors_hooks("outer"), graph.disable_saved_tensors_hooks("inner"):
            pass
        with graph.saved_tensors_hooks(lambda t: t, lambda t: t), graph.disable_saved_tensors_hooks("active"):
            pass

    assert outcomes(program) == ["RuntimeError: active"] * 2


@pytest.mark.parametrize("way", ["inside", "outside", "other block", "nested", "twice", "second order"])
def test_mutation_of_saved_tensors(way: str) -> None:
    def program(lib: Any) -> Any:
        graph = lib.autograd.graph
        x = lib.tensor([0.5, 1.5], requires_grad=True)
        with graph.allow_mutation_on_saved_tensors():
            if way == "nested":
                with graph.allow_mutation_on_saved_tensors():
                    pass
            y = x.clone()
            out = (y**3).sum() + y.exp().sum()
            y.sin_()
            if way == "second order":
                (g,) = lib.autograd.grad(out, x, create_graph=True)
                return lib.autograd.grad(g.sum(), x)
            if way in ("inside", "twice"):
                out.backward(retain_graph=True)
            if way == "twice":
                out.backward()
        if way == "other block":
            with graph.allow_mutation_on_saved_tensors():
                out.backward()
        if way == "outside":
            out.backward()
        return x.grad

    expected, found = outcomes(program)
    assert found == expected


def test_old_names() -> None:
    from graphtorch.autograd.anomaly_mode import detect_anomaly
    from graphtorch.autograd.variable import Variable

    assert Variable is graphtorch.autograd.Variable
    assert detect_anomaly is graphtorch.autograd.detect_anomaly
    assert isinstance(graphtorch.ones(2), Variable)
    assert not isinstance(2, Variable)


@pytest.mark.parametrize(
    "make",
    [
        lambda lib, t: lib.autograd.Variable(t),
        lambda lib, t: lib.autograd.Variable(t * 2),
        lambda lib, t: lib.autograd.Variable(t, requires_grad=True),
        lambda lib, t: lib.autograd.Variable(t, True) * 2,
        lambda lib, t: lib.autograd.Variable(),
        lambda lib, t: lib.autograd.Variable([1.0]),
        lambda lib, t: lib.autograd.Variable(2.5),
        lambda lib, t: lib.autograd.Variable(lib.tensor([1]), requires_grad=True),
        lambda lib, t: lib.autograd.Variable(t).data_ptr() == t.data_ptr(),
        lambda lib, t: isinstance(t, lib.autograd.Variable),
        lambda lib, t: issubclass(lib.Tensor, lib.autograd.Variable),
        lambda lib, t: lib.Tensor(lib.tensor([1])),
        lambda lib, t: lib.Tensor(t.detach()).data_ptr() == t.data_ptr(),
    ],
)
def test_variables(make: Any) -> None:
    expected, found = outcomes(lambda lib: make(lib, lib.tensor([1.0, 2.0], requires_grad=True)))
    assert found == expected


def test_multithreading_is_a_setting() -> None:
    from graphtorch.autograd.state import state

    with graphtorch.autograd.set_multithreading_enabled(False):
        assert not state.multithreading
    assert state.multithreading

    @graphtorch.autograd.set_multithreading_enabled(False)
    def function() -> bool:
        return state.multithreading

    assert state.multithreading
    assert not function()
