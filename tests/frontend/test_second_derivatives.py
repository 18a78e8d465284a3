"""Derivatives of derivatives through `@compile`, of every differentiable operator: with both gradients taken inside of
the compiled function, and with both taken outside of a compiled forward."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch.ops.dispatch import call
from graphtorch.ops.record import REGISTRY, Operator
from graphtorch.ops.testing import Sampler
from graphtorch.tensor import dtypes

OPERATORS = sorted(n for n, op in REGISTRY.items() if op.samples is not None and op.derivative)


def examples(op: Operator) -> list[tuple[Any, ...]]:
    """Normalised arguments of the operator's samples, in double precision."""
    assert op.samples is not None
    caught: list[tuple[Any, ...]] = []

    class Catcher:
        def call(self, operator: Operator, args: tuple[Any, ...]) -> Any:
            if operator is op:
                caught.append(args)
                raise StopIteration
            torch.autograd.state.state.recorder = None
            try:
                return call(operator, args)
            finally:
                torch.autograd.state.state.recorder = self

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(name)

    d = dtypes.float64 if "f" in op.categories else dtypes.complex128
    for sample in op.samples(Sampler(d)):
        torch.autograd.state.state.recorder = Catcher()
        try:
            assert op.function is not None
            op.function(*sample.args, **sample.kwargs)
        except StopIteration:
            pass
        finally:
            torch.autograd.state.state.recorder = None
    return caught


def weights(of: torch.Tensor, seed: int) -> torch.Tensor:
    values = np.random.default_rng(seed).uniform(0.5, 1.5, tuple(of.shape))
    return torch.tensor(values).to(of.dtype)


def total(parts: Any, seed: int) -> Any:
    """A real number that depends on every element."""
    found: Any = 0.0
    for i, part in enumerate(parts):
        if part is not None and part.requires_grad:
            product = part * weights(part, seed + i)
            found = found + (product.real if product.dtype.is_complex else product).sum()
    return found


def split(op: Operator, args: tuple[Any, ...]) -> tuple[list[torch.Tensor], Any]:
    """The differentiable operands, and the operator as a function of them."""
    leaves: list[torch.Tensor] = []
    places: list[Any] = []
    for parameter, arg in zip(op.parameters, args, strict=True):
        items = arg if type(arg) is tuple else (arg,)
        chosen = []
        for item in items:
            if parameter.name in op.derivative and isinstance(item, torch.Tensor) and item.dtype.is_differentiable:
                chosen.append(len(leaves))
                leaves.append(item.detach())
            else:
                chosen.append(None)
        places.append(chosen)

    def function(*given: torch.Tensor) -> Any:
        made = []
        for arg, chosen in zip(args, places, strict=True):
            items = arg if type(arg) is tuple else (arg,)
            new = tuple(item if at is None else given[at] for item, at in zip(items, chosen, strict=True))
            made.append(new if type(arg) is tuple else new[0])
        found = call(op, tuple(made))
        return found if isinstance(found, tuple) else (found,)

    return leaves, function


def twice(function: Any, given: tuple[torch.Tensor, ...]) -> tuple[Any, ...]:
    """First and second derivatives of a function of leaves."""
    loss = total(function(*given), 1)
    first = torch.autograd.grad(loss, given, create_graph=True, allow_unused=True)
    second = total(first, 10)
    if not isinstance(second, torch.Tensor) or not second.requires_grad:
        return *(None if g is None else g.detach() for g in first), *(None for _ in given)
    found = torch.autograd.grad(second, given, allow_unused=True)
    return *(None if g is None else g.detach() for g in first), *found


def assert_same(actual: Any, expected: Any) -> None:
    for a, e in zip(actual, expected, strict=True):
        if e is None or a is None:
            # The tape knows which gradients are zero for want of a path; a graph may give the zeros.
            present = a if e is None else e
            assert present is None or not np.any(np.array(present.tolist()))
            continue
        assert a.dtype == e.dtype
        np.testing.assert_allclose(np.array(a.tolist()), np.array(e.tolist()), rtol=1e-6, atol=1e-8)


def leaves_of(values: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    return tuple(v.clone().requires_grad_() for v in values)


@pytest.mark.parametrize("name", OPERATORS)
def test_operator(name: str) -> None:
    op = REGISTRY[name]
    checked = 0
    for args in examples(op):
        values, function = split(op, args)
        if not any(t.requires_grad for t in function(*leaves_of(values))):
            continue  # such as a cast to integers
        compiled = functools.partial(torch.compile, backend="interpreter" if checked else "numpy")
        checked += 1
        results = []
        for run in (
            lambda given, f=function: twice(f, given),
            lambda given, f=function, c=compiled: twice(c(f), given),
            lambda given, f=function, c=compiled: c(lambda *given: twice(f, given))(*given),
        ):
            torch.manual_seed(0)
            results.append(run(leaves_of(values)))
        assert_same(results[1], results[0])
        assert_same(results[2], results[0])
    assert checked


# -- programs ---------------------------------------------------------------------------------------------------------


def check(function: Any, *values: torch.Tensor, backend: str = "numpy") -> None:
    results = []
    for f in (function, torch.compile(function, backend=backend)):
        torch.manual_seed(0)
        given = leaves_of([torch.tensor(np.asarray(v)) for v in values])
        y = f(*[g.sinh() for g in given])
        y = y if isinstance(y, tuple) else (y,)
        first = torch.autograd.grad(total(y, 1), given, create_graph=True)
        second = torch.autograd.grad(total(first, 10), given, create_graph=True)
        third = torch.autograd.grad(total(second, 20), given)
        results.append([t.detach() for t in (*y, *first, *second, *third)] + [torch.rand(1)])
    assert_same(results[1], results[0])


X = np.linspace(-1.0, 1.0, 12).reshape(3, 4)
W = np.linspace(0.2, 0.9, 16).reshape(4, 4)


@pytest.mark.parametrize("backend", ["numpy", "cpu", "interpreter"])
def test_third_derivative_of_a_network(backend: str) -> None:
    def f(x: Any, w: Any) -> Any:
        h = torch.tanh(x @ w)
        return torch.softmax(h @ w, -1), (h * h).mean()

    check(f, X, W, backend=backend)


def test_random_numbers_are_drawn_again() -> None:
    check(lambda x: nn.functional.dropout(x * torch.rand(4, dtype=torch.float64), 0.5).sin() * x, X)


def test_overwritten_input() -> None:
    def f(x: Any, w: Any) -> Any:
        y = (x.clone() @ w).sin()
        x.mul_(2)
        return y * x.sum()

    check(f, X, W)


def test_decision() -> None:
    def f(x: Any) -> Any:
        return x.sin() * x if x.sum() > 0 else x.exp()

    check(f, X)


def test_symbolic_sizes() -> None:
    f = torch.compile(lambda x: (x**3).sum(0) * x.shape[0])
    for n in (2, 3, 5, 7):
        x = torch.arange(1, n + 1, dtype=torch.float64).requires_grad_()
        (g,) = torch.autograd.grad(f(x), x, create_graph=True)
        (h,) = torch.autograd.grad(g.sum(), x)
        np.testing.assert_allclose(h.tolist(), [6.0 * v * n for v in range(1, n + 1)])
    assert len(f.specializations) == 2


def test_parameters_of_a_module_and_penalty() -> None:
    penalties = []
    for compiled in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 8), nn.Softplus(), nn.BatchNorm1d(8), nn.Linear(8, 1)).double()
        run = torch.compile(net.forward) if compiled else net
        x = torch.tensor(X, requires_grad=True)
        for _ in range(2):
            (g,) = torch.autograd.grad(run(x).sum(), x, create_graph=True)
            (g.square().sum() - 1).square().backward()
        penalties.append([p.grad for p in net.parameters() if p.grad is not None] + list(net.buffers()))
    assert_same(penalties[1], penalties[0])


def test_leaf_made_inside() -> None:
    def f(x: Any) -> Any:
        y = (x * 2).detach().requires_grad_()
        return y, (y * x).sin().sum()

    found = []
    for function in (f, torch.compile(f)):
        x = torch.tensor(X, requires_grad=True)
        y, loss = function(x)
        gx, gy = torch.autograd.grad(loss, (x, y), create_graph=True)
        found.append((gx.detach(), gy.detach(), *torch.autograd.grad((gx * gy).sum(), (x, y))))
    assert_same(found[1], found[0])
