"""Results of compiled functions have the strides that eager execution gives them, gaps included, at every size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import graphtorch as torch
from graphtorch import func


class Twice(torch.autograd.Function):
    """2 x, with a history of its own."""

    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, g):
        return g * 2


def halve(t: torch.Tensor) -> torch.Tensor:
    return torch.while_loop(lambda n, x: n < 3, lambda n, x: (n + 1, x * 0.5), (torch.tensor(0), t))[1]


def own_gradient(x: torch.Tensor, create_graph: bool) -> torch.Tensor:
    leaf = torch.ones_like(x.mT).requires_grad_()
    return torch.autograd.grad(leaf.square().sum(), [leaf], create_graph=create_graph)[0]


def accumulated(x: torch.Tensor) -> torch.Tensor:
    leaf = x.detach().mT.clone().requires_grad_()
    leaf.sum().backward()
    return leaf.grad


def gradient_of_a_selection(x: torch.Tensor) -> torch.Tensor:
    leaf = x.detach().masked_select(x > 3).requires_grad_()
    return torch.autograd.grad(leaf.sum(), [leaf])[0]


FUNCTIONS: dict[str, Callable[[torch.Tensor], Any]] = {
    "every second row": lambda x: (x * 2)[::2],
    "columns": lambda x: (x * 2)[:, 1:],
    "a column": lambda x: (x * 2)[:, 0],
    "rows of a transpose": lambda x: (x.mT * 2)[1:],
    "another dimension": lambda x: (x.t() * 2)[:, 1:].unsqueeze(1),
    "windows": lambda x: (x * 2).unfold(0, 2, 1),
    "diagonal": lambda x: (x * 2).diagonal(),
    "other diagonal": lambda x: (x * 2).T.diagonal(1),
    "reshaped": lambda x: x.mT.reshape(-1, 2)[::2],
    "rows from a tensor on": lambda x: (x * 2).mT[torch.tensor(1)].unsqueeze(0).mT,
    "a place that is a tensor": lambda x: (x * 2).expand(2, *x.shape).mT[:, torch.tensor(1)],
    "index": lambda x: x.mT[torch.tensor([0, 2, 1])],
    "select_scatter": lambda x: x.mT.select_scatter(x.mT[0], 0, 1),
    "custom function": lambda x: Twice.apply(x.mT),
    "part of a custom function's": lambda x: Twice.apply(x.mT)[1:],
    "cond": lambda x: torch.cond(x.sum() > 0, lambda t: t.mT * 2, lambda t: t.mT * 3, (x,)),
    "cond, two layouts": lambda x: torch.cond(x.sum() > 0, lambda t: t.mT * 2, lambda t: (t.mT * 3).contiguous(), (x,)),
    "while_loop": lambda x: halve(x.mT),
    "scan": lambda x: torch.scan(lambda c, t: (c + t, t.t()), x.mT * 1, x.expand(2, *x.shape).mT),
    "gradient": lambda x: own_gradient(x, False),
    "gradient with a history": lambda x: own_gradient(x, True),
    "accumulated gradient": accumulated,
    "expanded gradient of as many as data says": gradient_of_a_selection,
    "hessian of as many as data says": lambda x: func.hessian(lambda t: (t**3).sum())(x.detach()[x > 3]),
    "jacfwd": lambda x: func.jacfwd(lambda t: t.cumsum(0))(x[0])[torch.tensor([0, 2])],
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("backend", ["cpu", "numpy"])
@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize("tracked", [False, True])
def test_strides_and_values(name: str, backend: str, dynamic: bool | None, tracked: bool) -> None:
    function = FUNCTIONS[name]
    compiled = torch.compile(function, backend=backend, dynamic=dynamic)
    for rows in (8, 12, 8, 16):
        x = torch.arange(3.0 * rows).reshape(rows, 3)[::2].requires_grad_(tracked)
        for _ in range(2):
            expected, actual = function(x), compiled(x)
            pairs = zip(expected, actual, strict=True) if isinstance(expected, tuple) else [(expected, actual)]
            for e, a in pairs:
                assert a.stride() == e.stride()
                assert torch.equal(a, e)
                assert a.requires_grad == e.requires_grad


def test_a_reshape_of_such_a_result_copies_as_in_eager_execution() -> None:
    compiled = torch.compile(lambda x: (x * 2)[::2])
    part = compiled(torch.arange(8.0).reshape(4, 2))
    assert part.reshape(4).data_ptr() != part.data_ptr()
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        part.view(4)


def test_gradients_of_a_result_with_gaps() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return (x * x)[:, 1:]

    compiled = torch.compile(function)
    grads = []
    for f in (function, compiled):
        x = torch.arange(6.0).reshape(2, 3).requires_grad_()
        (f(x) * torch.tensor([[1.0, 2.0], [3.0, 4.0]])).sum().backward()
        grads.append(x.grad)
    assert torch.equal(*grads)


@pytest.mark.filterwarnings("ignore:.*runs eagerly")
def test_random_numbers_follow_the_memory_of_a_loop() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.randn_like(halve(x.mT))

    compiled = torch.compile(function)
    x = torch.arange(12.0).reshape(3, 4)
    torch.manual_seed(3)
    expected = function(x)
    torch.manual_seed(3)
    assert torch.equal(compiled(x), expected)


@pytest.mark.filterwarnings("ignore:.*runs eagerly")
def test_a_copy_whose_elements_share_memory_shows_what_eager_execution_writes() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        windows = x.unfold(0, 2, 1)
        return windows.select_scatter(windows[0], 0, 1)

    x = torch.arange(20.0).reshape(5, 4)
    expected, actual = function(x), torch.compile(function)(x)
    assert torch.equal(actual, expected)
    assert actual.stride() == expected.stride()


@pytest.mark.parametrize("backend", ["eager", "numpy", "cpu"])
def test_images_that_lie_channels_last_are_joined_so(backend):
    last, rows = torch.rand(2, 4, 3, 3).to(memory_format=torch.channels_last), torch.rand(2, 4, 3, 3)

    def join(x, y, dim):
        joined = torch.cat([x, y], dim)
        return joined, joined * 2

    run = join if backend == "eager" else torch.compile(join, backend=backend)
    for x, y, dim, strides in (
        (last, last, 1, (72, 1, 24, 8)),
        (last, last, 0, (36, 1, 12, 4)),
        (last, rows, 1, (72, 9, 3, 1)),
        (last, torch.rand(2, 4, 1, 3).expand(2, 4, 3, 3), 1, (72, 9, 3, 1)),
        (rows, rows, 1, (72, 9, 3, 1)),
    ):
        for result in run(x, y, dim):
            assert result.stride() == strides
        assert run(x, y, dim)[0].equal(torch.cat([x.contiguous(), y.contiguous()], dim))
    torch.manual_seed(0)
    kept = torch.nn.functional.dropout(torch.cat([last, last], 1), 0.5)
    torch.manual_seed(0)
    dropped = run(last, last, 1)[0].new_empty((2, 3, 3, 8)).bernoulli_(0.5).permute(0, 3, 1, 2)
    assert ((kept != 0) == (dropped != 0)).all()  # chance goes through memory
