"""`nn.grad`: gradients of convolutions as functions, beside PyTorch, eagerly and compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphtorch

torch = pytest.importorskip("torch")

CASES = [
    (1, (2, 4, 7), (6, 4, 3), {}),
    (1, (2, 4, 8), (6, 2, 3), {"stride": 2, "padding": 1, "groups": 2}),
    (2, (2, 3, 6, 7), (4, 3, 3, 2), {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)}),
    (2, (1, 4, 6, 6), (4, 1, 3, 3), {"stride": 2, "groups": 4}),  # an input row that no output reads
    (3, (1, 2, 4, 4, 4), (3, 2, 2, 2, 2), {"padding": 1}),
]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(("dims", "size", "weight_size", "how"), CASES)
def test_gradients(dims: int, size: Any, weight_size: Any, how: Any, compiled: bool) -> None:
    import torch.nn.grad as theirs

    import graphtorch.nn.grad as ours

    random = np.random.default_rng(0)
    x, weight = (random.standard_normal(s).astype(np.float32) for s in (size, weight_size))
    convolve = getattr(torch.nn.functional, f"conv{dims}d")
    out = random.standard_normal(convolve(torch.tensor(x), torch.tensor(weight), **how).shape).astype(np.float32)
    for what, first in (("input", (size, weight)), ("weight", (x, weight_size))):
        name = f"conv{dims}d_{what}"

        def run(lib: Any, home: Any, name: str = name, first: Any = first) -> Any:
            given = [lib.tensor(v) if isinstance(v, np.ndarray) else v for v in first]
            function = getattr(home, name)
            if compiled and lib is graphtorch:
                sizes = [v if isinstance(v, tuple) else None for v in given]

                def call(*tensors: Any) -> Any:
                    left = iter(tensors[:-1])
                    return function(*(next(left) if s is None else s for s in sizes), tensors[-1], **how)

                call = lib.compile(call)
                return call(*(v for v in given if not isinstance(v, tuple)), lib.tensor(out))
            return function(*given, lib.tensor(out), **how)

        expected, found = run(torch, theirs), run(graphtorch, ours)
        assert not found.requires_grad
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-4, atol=1e-5)


def test_they_have_derivatives() -> None:
    found = []
    for lib in (torch, graphtorch):
        home = __import__(f"{lib.__name__}.nn.grad", fromlist=["conv1d_input"])
        weight = (lib.arange(6.0).reshape(2, 1, 3) - 2).requires_grad_()
        out = lib.ones(1, 2, 4).requires_grad_()
        made = home.conv1d_input((1, 1, 6), weight, out)
        (made**2).sum().backward()
        found.append((made.detach().tolist(), weight.grad.tolist(), out.grad.tolist()))
    assert found[0] == found[1]
