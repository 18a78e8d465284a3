"""`autograd.forward_ad`: dual tensors beside `jvp`, PyTorch, the tape and `compile`; compiled functions inside of every
transform."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch.autograd import forward_ad
from graphtorch.frontend.tree import flatten
from graphtorch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap

X = torch.tensor([0.5, 1.0, 2.0])
T = torch.tensor([1.0, 2.0, 3.0])


def close(a: Any, b: Any) -> None:
    first: list[Any] = []
    second: list[Any] = []
    assert flatten(a, first) == flatten(b, second)
    for x, y in zip(first, second, strict=True):
        assert torch.allclose(x, y), (x, y)


def writes(torch: Any, forward_ad: Any) -> list[Any]:
    """Everything that dual tensors do to memory, as numbers."""
    found: list[Any] = []
    show = lambda t: found.append([None if v is None else v.tolist() for v in forward_ad.unpack_dual(t)])  # noqa: E731
    x, t = torch.tensor([0.5, 1.0, 2.0]), torch.tensor([1.0, 2.0, 3.0])
    with forward_ad.dual_level():
        d = forward_ad.make_dual(x, t)
        y = d.sin() * d + torch.ones(3)
        z = y.clone()
        z[0] = d[2] * 3
        view = z[1:]
        z.mul_(d)
        show(z), show(view), show(y), show(torch.cat([d, y]))
        plain = torch.zeros(3)
        part = plain[1:]
        part.add_(d[1:])
        show(plain), show(part)
        plain = torch.zeros(3)
        part = plain[1:]
        plain.add_(d)
        show(part)
        largest, place = torch.max(d, 0)
        show(largest), show(place), show(d.detach()), show(d.softmax(0)), show(torch.ones(2))
        found.append((d > 0).tolist())
    show(y)
    return found


def test_like_torch() -> None:
    reference = pytest.importorskip("torch")
    expected = writes(reference, importlib.import_module("torch.autograd.forward_ad"))
    for actual, wanted in zip(writes(torch, forward_ad), expected, strict=True):
        for a, w in zip(actual, wanted, strict=True):
            assert (a is None) == (w is None)
            if a is not None:
                np.testing.assert_allclose(a, w, rtol=1e-5)


def test_reverse_over_forward_and_forward_over_reverse() -> None:
    x = X.clone().requires_grad_()
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual((forward_ad.make_dual(x, T) ** 3).sum()).tangent
        assert tangent is not None
        tangent.backward()
    close(x.grad, 6 * X * T)

    def f(x: Any) -> Any:
        return (x.exp() * x.tanh()).sum()

    with forward_ad.dual_level():
        dual = forward_ad.make_dual(X.clone().requires_grad_(), T)
        (g,) = torch.autograd.grad(f(dual), dual, create_graph=True)
        close(forward_ad.unpack_dual(g).tangent, hessian(f)(X) @ T)


def test_compiled_dual_numbers() -> None:
    def f(x: Any, t: Any) -> Any:
        with forward_ad.dual_level():
            return tuple(forward_ad.unpack_dual((forward_ad.make_dual(x, t).sin() * x).sum()))

    close(torch.compile(f, fullgraph=True)(X, T), f(X, T))


def test_errors() -> None:
    with pytest.raises(RuntimeError, match="no level exists"):
        forward_ad.make_dual(X, T)
    with pytest.raises(RuntimeError, match="exit a forward AD level"):
        forward_ad.exit_dual_level()
    with forward_ad.dual_level():
        with pytest.raises(RuntimeError, match="Nested forward mode"):
            forward_ad.enter_dual_level()
        with pytest.raises(RuntimeError, match="different size"):
            forward_ad.make_dual(X, torch.ones(2))
        with pytest.raises(ValueError, match="floating point"):
            forward_ad.make_dual(torch.arange(3), torch.arange(3))
    assert torch.ones(2).add(1).tolist() == [2, 2]


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
def test_compiled_functions_inside_of_transforms(backend: str) -> None:
    def f(x: Any, w: Any) -> Any:
        return ((x @ w).tanh() ** 2).sum()

    x, w = torch.randn(3, 4, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
    rows = x.reshape(3, 1, 4)
    compiled = torch.compile(f, backend=backend)
    close(compiled(x, w), f(x, w))
    for transform in (
        lambda f: grad(f)(x, w),
        lambda f: grad(f, (0, 1))(x, w),
        lambda f: vmap(f, (0, None))(rows, w),
        lambda f: vmap(grad(f), (0, None))(rows, w),
        lambda f: jvp(f, (x, w), (x, w)),
        lambda f: vjp(f, x, w)[1](torch.tensor(2.0, dtype=torch.float64)),
        lambda f: linearize(f, x, w)[1](x, w),
        lambda f: hessian(f)(x, w),
        lambda f: jacfwd(grad(f))(x, w),
        lambda f: jacrev(torch.compile(grad(f), backend=backend), 1)(x, w),
    ):
        close(transform(compiled), transform(f))
        close(torch.compile(lambda t=transform: t(compiled), fullgraph=True, backend=backend)(), transform(f))
    close(compiled(x, w), f(x, w))
    assert len(compiled.specializations) == 1
    with forward_ad.dual_level():
        close(forward_ad.unpack_dual(compiled(forward_ad.make_dual(x, x), w)).tangent, jvp(f, (x, w), (x, 0 * w))[1])


def test_a_compiled_module_inside_of_transforms() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    weights = {k: p.detach() for k, p in model.named_parameters()}
    x = torch.randn(5, 4)
    per_sample = vmap(grad(lambda p, x: functional_call(model, p, (x,)).sum()), (None, 0))
    expected = per_sample(weights, x)
    model.compile()
    model(x)
    close(per_sample(weights, x), expected)
