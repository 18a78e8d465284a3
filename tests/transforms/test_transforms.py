"""The functional transforms beside PyTorch's: values, shapes, dtypes, errors, and compositions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphtorch
import graphtorch.func

torch = pytest.importorskip("torch")

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(3, 4))
Y = RANDOM.normal(size=4)
W = RANDOM.normal(size=(4, 5))

# Each gets the library and its `func`, and gives a function of tensors.
CASES: dict[str, tuple[Callable[[Any, Any], Any], tuple[Any, ...]]] = {
    "grad": (lambda m, f: f.grad(lambda x: m.sin(x).sum()), (X,)),
    "grad of grad": (lambda m, f: f.grad(f.grad(lambda x: m.sin(x) * x)), (np.array(0.3),)),
    "grad three times": (lambda m, f: f.grad(f.grad(f.grad(lambda x: m.exp(2 * x) * x))), (np.array(0.3),)),
    "grad of a tree": (
        lambda m, f: lambda x, w: f.grad(lambda p: (p["w"].T @ p["b"][0].T).pow(2).sum())({"w": w, "b": [x]}),
        (X, W),
    ),
    "grad of two arguments": (lambda m, f: f.grad(lambda a, b: (a * b.sin()).sum(), argnums=(1, 0)), (X, X * 3)),
    "grad of the last": (lambda m, f: f.grad(lambda a, b: (a * b.sin()).sum(), argnums=-1), (X, X * 3)),
    "grad and value": (lambda m, f: f.grad_and_value(lambda a: (a.sum(), a * 2), has_aux=True), (X,)),
    "grad, unused": (lambda m, f: f.grad(lambda a, b: a.sum(), argnums=(0, 1)), (X, Y)),
    "grad through views": (lambda m, f: f.grad(lambda a: a.T[1:].reshape(-1)[::2].prod()), (X,)),
    "grad through writes": (lambda m, f: f.grad(lambda a: _writes(a).pow(2).sum()), (X,)),
    "no_grad inside": (lambda m, f: f.grad(lambda a: (a * _without_grad(m, lambda: a.sin())).sum()), (X,)),
    "vjp": (lambda m, f: lambda x, t: f.vjp(lambda x: (x.exp(), x.sum(0)), x)[1]((t, t[0])), (X, X * 2)),
    "vjp, aux": (lambda m, f: lambda x: f.vjp(lambda x: (x.exp(), x.sum(0)), x, has_aux=True)[2], (X,)),
    "jvp": (
        lambda m, f: lambda x, t: f.jvp(lambda x: (x.exp(), {"a": x.sum(0), "b": [x * x]}), (x,), (t,)),
        (X, X * 2),
    ),
    "jvp of two": (lambda m, f: lambda x, t: f.jvp(lambda a, b: a * b.sin(), (x, t), (t, x)), (X, X * 2)),
    "linearize": (lambda m, f: lambda x, t: f.linearize(lambda x: x.sin() * 2, x)[1](t), (X, X * 2)),
    "jacrev": (lambda m, f: f.jacrev(lambda x: m.softmax(x[:, :2] * x.sum(), -1)), (X,)),
    "jacrev, chunks": (lambda m, f: f.jacrev(lambda x: m.softmax(x, -1), chunk_size=5), (X,)),
    "jacfwd": (lambda m, f: f.jacfwd(lambda x: m.softmax(x[:, :2] * x.sum(), -1)), (X,)),
    "jacrev of a tree": (
        lambda m, f: f.jacrev(lambda a, b: {"p": a * b, "q": (a.sum(),)}, argnums=(0, 1)),
        (X, Y),
    ),
    "jacfwd of a tree": (
        lambda m, f: f.jacfwd(lambda a, b: {"p": a * b, "q": (a.sum(),)}, argnums=(0, 1)),
        (X, Y),
    ),
    "jacfwd of jacrev": (lambda m, f: f.jacfwd(f.jacrev(lambda x: m.softmax(x * x.sum(), -1))), (Y,)),
    "jacrev of jacfwd": (lambda m, f: f.jacrev(f.jacfwd(lambda x: m.softmax(x * x.sum(), -1))), (Y,)),
    "hessian": (lambda m, f: f.hessian(lambda x: m.logsumexp(x.sin(), 0)), (Y,)),
    "hessian of two": (
        lambda m, f: f.hessian(lambda x, z: (x.sin() * z).sum() * z.prod(), argnums=(0, 1)),
        (Y, Y + 1),
    ),
    "vmap of grad": (
        lambda m, f: f.vmap(f.grad(lambda w, x: m.tanh(x @ w).pow(2).sum()), in_dims=(None, 0)),
        (W, X),
    ),
    "vmap of grad of grad": (lambda m, f: f.vmap(f.grad(f.grad(lambda x: m.sin(x) * x))), (Y,)),
    "vmap of hessian": (lambda m, f: f.vmap(f.hessian(lambda a: (a.sin() * a.sum()).sum())), (X,)),
    "vmap of jacrev": (lambda m, f: f.vmap(f.jacrev(lambda a: a.sin() * a.sum())), (X,)),
    "vmap of jvp": (lambda m, f: f.vmap(lambda a, t: f.jvp(lambda b: b.sin().sum(), (a,), (t,))), (X, X)),
    "grad of vmap": (lambda m, f: f.grad(lambda a: f.vmap(lambda r: r.sin().prod())(a).sum()), (X,)),
    "vmap of vmap": (
        lambda m, f: f.vmap(f.vmap(lambda a, b: (a * b).sum(), in_dims=(None, 0)), in_dims=(0, None)),
        (X, RANDOM.normal(size=(5, 4))),
    ),
    "in_dims and out_dims": (
        lambda m, f: f.vmap(lambda a, b: (a + b, a @ b), in_dims=(1, None), out_dims=(1, 0)),
        (X.T.copy(), Y),
    ),
    "in_dims of a tree": (
        lambda m, f: (
            lambda a, b: f.vmap(lambda p, q: p["a"] * p["b"][0] + q, ({"a": 0, "b": [None]}, -1))(
                {"a": a, "b": [b]}, a.T
            )
        ),
        (X, Y),
    ),
    "a result that is the same for all": (lambda m, f: f.vmap(lambda a: m.ones(2)), (X,)),
    "out_dims None": (lambda m, f: f.vmap(lambda a: (a, m.ones(2)), out_dims=(0, None)), (X,)),
    "chunks": (lambda m, f: f.vmap(lambda a: a.cumsum(0), chunk_size=2), (X,)),
    "indices": (lambda m, f: f.vmap(lambda a, i: a[i]), (X, np.array([0, 3, 1]))),
    "indices behind a slice": (
        lambda m, f: f.vmap(lambda a, i: a[:, i], in_dims=(None, 0)),
        (X, np.array([[0, 3], [1, 2]])),
    ),
    "writes": (lambda m, f: f.vmap(_writes), (X,)),
    "promotion of numbers": (lambda m, f: f.vmap(lambda a, s: a * s), (X.astype("f4"), np.arange(3.0))),
    "matrices": (lambda m, f: f.vmap(lambda a, b: a.reshape(2, 2) @ b.reshape(2, 2)), (X, X)),
    "einsum": (lambda m, f: f.vmap(lambda a, b: m.einsum("i,ij->j", a, b), in_dims=(0, None)), (X, W)),
    "inverse": (lambda m, f: f.vmap(lambda a: m.linalg.inv(a.reshape(2, 2) + 3 * m.eye(2))), (X,)),
    "norms": (lambda m, f: f.vmap(lambda a: (a.norm(), a.std(), a.var(0), a.max(), a.argmax())), (X,)),
    "sort": (lambda m, f: f.vmap(lambda a: tuple(a.sort(descending=True)) + tuple(a.topk(2))), (X,)),
    "clamp and where": (lambda m, f: f.vmap(lambda a, b: m.where(a > b, a.clamp(0, 1), b)), (X, X[::-1].copy())),
    # -- errors
    "error: item": (lambda m, f: f.vmap(lambda a: a.sum().item()), (X,)),
    "error: control flow": (lambda m, f: f.vmap(lambda a: a if a.sum() > 0 else -a), (X,)),
    "error: random": (lambda m, f: f.vmap(lambda a: a + m.rand(4)), (X,)),
    "error: randomness": (lambda m, f: f.vmap(lambda a: a, randomness="some"), (X,)),
    "error: sizes": (lambda m, f: f.vmap(lambda a, b: a), (X, Y)),
    "error: no batch": (lambda m, f: f.vmap(lambda a: a, in_dims=None), (X,)),
    "error: in_dims": (lambda m, f: f.vmap(lambda a: a, in_dims=(0, 0)), (X,)),
    "error: in_dim too large": (lambda m, f: f.vmap(lambda a: a, in_dims=3), (X,)),
    "error: in_dim of a number": (lambda m, f: lambda x: f.vmap(lambda a, b: a)(x, 3), (X,)),
    "error: result": (lambda m, f: f.vmap(lambda a: 3), (X,)),
    "error: out_dims": (lambda m, f: f.vmap(lambda a: a, out_dims=(0, 0)), (X,)),
    "error: batched, out_dims None": (lambda m, f: f.vmap(lambda a: a, out_dims=None), (X,)),
    "error: nothing": (lambda m, f: lambda x: f.vmap(lambda: x)(), (X,)),
    "error: write into what is not batched": (
        lambda m, f: f.vmap(lambda a, b: b.add_(a), in_dims=(0, None)),
        (X, Y),
    ),
    "error: write into what was captured": (
        lambda m, f: lambda x, y: f.grad(lambda a: (y.mul_(2) * a).sum())(x),
        (X, Y),
    ),
    "error: grad of no number": (lambda m, f: f.grad(lambda a: a * 2), (X,)),
    "error: argnums": (lambda m, f: f.grad(lambda a: a.sum(), argnums=2), (X,)),
    "error: tangents": (lambda m, f: lambda x, y: f.jvp(lambda a: a, (x,), (x, y)), (X, Y)),
    "error: primals": (lambda m, f: lambda x: f.jvp(lambda a: a, x, x), (X,)),
    "error: backward": (lambda m, f: f.grad(lambda a: [a.sum().backward(), a.sum()][1]), (X,)),
}


def _writes(a: Any) -> Any:
    b = a.clone()
    b.mul_(2)
    b[1:].add_(b[:-1] * 1)
    b[0] = 3.0
    return b


def _without_grad(m: Any, compute: Callable[[], Any]) -> Any:
    with m.no_grad():
        return compute()


def flat(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for v in value.values() for leaf in flat(v)]
    if isinstance(value, tuple | list):
        return [leaf for v in value for leaf in flat(v)]
    return [value]


def run(module: Any, functions: Any, build: Callable[[Any, Any], Any], arrays: tuple[Any, ...]) -> Any:
    try:
        return flat(build(module, functions)(*(module.from_numpy(np.array(a)) for a in arrays)))
    except Exception as error:
        return error


@pytest.mark.parametrize("name", CASES)
def test_like_torch(name: str) -> None:
    build, arrays = CASES[name]
    wanted = run(torch, torch.func, build, arrays)
    got = run(graphtorch, graphtorch.func, build, arrays)
    if isinstance(wanted, Exception):
        assert name.startswith("error"), wanted
        assert type(got).__name__ == type(wanted).__name__, got
        return
    assert not isinstance(got, Exception), got
    for mine, theirs in zip(got, wanted, strict=True):
        assert tuple(mine.shape) == tuple(theirs.shape)
        assert repr(mine.dtype) == repr(theirs.dtype)
        assert mine.requires_grad == theirs.requires_grad
        np.testing.assert_allclose(mine.detach().numpy(), theirs.detach().numpy(), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", [n for n in CASES if not n.startswith("error")])
def test_compiled_around_the_transform(name: str) -> None:
    """A compiled function records what the transform does; the second call replays it."""
    build, arrays = CASES[name]
    function = build(graphtorch, graphtorch.func)
    given = [graphtorch.from_numpy(np.array(a)) for a in arrays]
    expected = flat(function(*given))
    compiled = graphtorch.compile(function, fullgraph=True)
    for _ in range(2):
        for mine, eager in zip(flat(compiled(*given)), expected, strict=True):
            np.testing.assert_allclose(mine.numpy(), eager.numpy(), rtol=1e-6, atol=1e-9)
    assert len(compiled.specializations) == 1


def test_messages_start_as_torchs() -> None:
    for name in ("error: item", "error: control flow", "error: random", "error: write into what was captured"):
        build, arrays = CASES[name]
        wanted = str(run(torch, torch.func, build, arrays))
        assert str(run(graphtorch, graphtorch.func, build, arrays)).startswith(wanted[:60]), name


@pytest.mark.parametrize("transform", ["vmap", "grad", "jvp", "vmap of grad"])
def test_detach_ends_the_history_of_all_levels(transform: str) -> None:
    x = graphtorch.arange(6.0).reshape(2, 3).requires_grad_() * 1
    seen = []

    def function(t):
        held = t.detach()
        seen.append((held.requires_grad, held.grad_fn))
        return (t * held).sum()

    if transform == "vmap":
        graphtorch.func.vmap(function)(x)
    elif transform == "grad":
        assert not graphtorch.func.grad(function)(x).requires_grad  # it is the detached factor
    elif transform == "jvp":
        graphtorch.func.jvp(function, (x,), (graphtorch.ones(2, 3),))
    else:
        assert not graphtorch.func.vmap(graphtorch.func.grad(function))(x).requires_grad
    assert seen == [(False, None)]


def test_dropout_under_vmap_saves_its_mask_only() -> None:
    x = graphtorch.ones(2, 3).requires_grad_() * 1
    y = graphtorch.func.vmap(lambda t: graphtorch.nn.functional.dropout(t, 0.5), randomness="different")(x)
    x.mul_(2)
    y.sum().backward()
