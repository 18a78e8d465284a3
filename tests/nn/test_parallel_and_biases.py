"""`nn.parallel` on one device, and causal masks by name, beside PyTorch's."""

from __future__ import annotations

import collections
import importlib
import warnings

import numpy as np
import pytest

import graphtorch
from graphtorch import nn
from graphtorch.nn.attention.bias import CausalBias, causal_lower_right, causal_upper_left
from graphtorch.nn.parallel import gather, parallel_apply, replicate, scatter
from graphtorch.nn.parallel.scatter_gather import scatter_kwargs

torch = pytest.importorskip("torch")
Pair = collections.namedtuple("Pair", "a b")


@pytest.mark.parametrize("corner", ["causal_upper_left", "causal_lower_right"])
@pytest.mark.parametrize("lengths", [(4, 4), (3, 6), (6, 3)])
def test_attention_under_a_bias(corner: str, lengths: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((2, 3, n, 4)).astype(np.float32) for n in (lengths[0], lengths[1], lengths[1]))
    found = []
    for package in (graphtorch, torch):
        operands = [package.tensor(a.tolist(), requires_grad=True) for a in (q, k, v)]
        make = getattr(importlib.import_module(f"{package.__name__}.nn.attention.bias"), corner)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            bias = make(*lengths)
        attend = package.nn.functional.scaled_dot_product_attention
        result = attend(*operands, attn_mask=bias)
        result.sum().backward()
        found.append((result, [str(w.message) for w in warned], repr(bias), *(t.grad for t in operands)))
        with pytest.raises(ValueError, match="CausalBias should not be used with causal=True"):
            attend(*operands, attn_mask=bias, is_causal=True)
        with pytest.raises(AssertionError, match="only supports 2D tensors"):
            make(3)
    ours, theirs = found
    assert ours[1:3] == theirs[1:3]
    for mine, other in ((ours[0], theirs[0]), *zip(ours[3:], theirs[3:])):
        np.testing.assert_allclose(mine.detach().numpy(), other.detach().numpy(), rtol=1e-4, atol=1e-6)


def test_biases_under_compile() -> None:
    x = graphtorch.randn(1, 2, 5, 4)
    for bias in (causal_upper_left(5, 5), causal_lower_right(5, 5)):
        f = graphtorch.compile(lambda x, b=bias: nn.functional.scaled_dot_product_attention(x, x, x, b), fullgraph=True)
        expected = nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True)
        np.testing.assert_allclose(f(x).numpy(), expected.numpy(), rtol=1e-4, atol=1e-6)
    with pytest.raises(AssertionError, match="must be a CausalVariant"):
        CausalBias(1, 2, 3)  # type: ignore[arg-type]


def test_parts_and_back() -> None:
    where = ["cpu", "cpu"]
    x = graphtorch.arange(10.0).reshape(5, 2).requires_grad_()
    parts = scatter(x, where)
    assert isinstance(parts, tuple) and [p.shape[0] for p in parts] == [3, 2]
    back = gather(parts, "cpu")
    assert graphtorch.equal(back, x)
    back.sum().backward()
    assert x.grad is not None and x.grad.sum().item() == 10
    nested = scatter({"a": [x, 3], "p": Pair(x, "s"), "t": (x,), "e": ()}, where)
    assert len(nested) == 2 and nested[1]["p"].b == "s" and nested[1]["a"][1] == 3
    assert graphtorch.equal(nested[0]["t"][0], parts[0]) and nested[0]["e"] == ()
    joined = gather([{"x": p.detach(), "y": None, "z": [p.sum().detach()]} for p in parts], -1)
    assert joined["x"].shape == (5, 2) and joined["y"] is None and joined["z"][0].shape == (2,)
    assert isinstance(gather([Pair(p, p) for p in parts], "cpu"), Pair)
    with pytest.raises(ValueError, match="same number of keys"):
        gather([{"a": x}, {}], "cpu")
    args, named = scatter_kwargs((x,), {"y": x, "n": 1}, where)
    assert len(args) == len(named) == 2 and named[1]["n"] == 1
    assert [len(a) for a in scatter_kwargs((), {"y": x}, where)] == [2, 2]


def test_replicas_train_the_module() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    x = graphtorch.randn(6, 2)
    copies = replicate(model, ["cpu", "cpu"])
    assert not list(copies[0].parameters())
    out = gather(parallel_apply(copies, scatter(x, ["cpu", "cpu"])), "cpu")
    out.sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    alone = nn.Linear(2, 1)
    a, b = replicate(alone, ["cpu"] * 2)
    assert graphtorch.equal(parallel_apply([a, b], [(x,), (x,)], [{}, {}])[1], alone(x))
    assert not replicate(alone, ["cpu"], detach=True)[0](x).requires_grad
    with pytest.raises(AssertionError, match="not equal to the number of inputs"):
        parallel_apply([alone], [])
