"""What compiled functions ask of this package's own objects without calling them: a module's mode and options, flags of
parameters, groups of optimizers, seeds. Each call finds what they are then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch.nn import functional as F

X = torch.tensor([0.5, 1.0, -1.5])


def two_groups() -> Any:
    return torch.optim.SGD([torch.ones(2, requires_grad=True)], lr=0.1)


def another_group(optimizer: Any, i: int) -> None:
    optimizer.add_param_group({"params": [torch.ones(2, requires_grad=True)], "lr": 0.5})


# what makes the object, what the function does with it, and how it changes before the i-th call
CASES: dict[str, tuple[Callable[[], Any], Callable[[Any, Any], Any], Callable[[Any, int], Any]]] = {
    "mode": (lambda: nn.Linear(2, 2), lambda m, x: x * (2 if m.training else 3), lambda m, i: m.train(i % 2 == 0)),
    "mode below": (
        lambda: nn.Sequential(nn.ReLU()),
        lambda m, x: x * (2 if m[0].training else 3),
        lambda m, i: m.train(i % 2 == 0),
    ),
    "option": (lambda: nn.Dropout(0.5), lambda m, x: x * m.p, lambda m, i: setattr(m, "p", i / 8)),
    "functional": (
        lambda: nn.Dropout(0.0),
        lambda m, x: F.dropout(x, m.p, m.training),
        lambda m, i: (setattr(m, "p", float(i % 2)), m.train(i % 3 == 0)),
    ),
    "flags": (
        lambda: nn.Linear(2, 2),
        lambda m, x: x * sum(p.requires_grad for p in m.parameters()),
        lambda m, i: m.requires_grad_(i % 2 == 0),
    ),
    "groups": (two_groups, lambda o, x: x * len(o.param_groups), another_group),
    "rates": (two_groups, lambda o, x: x * sum(g["lr"] for g in o.param_groups), another_group),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_asked_is_what_is_there(name: str) -> None:
    make, function, change = CASES[name]
    held = make()
    compiled = torch.compile(lambda x: function(held, x))
    for i in range(4):
        if i:
            change(held, i)
        assert compiled(X).allclose(function(held, X))
    assert compiled.eager_calls == 0 and len(compiled.specializations) <= 4


def test_a_mode_that_nobody_asks_for() -> None:
    other, factor = nn.Linear(2, 2), nn.Linear(3, 3)
    compiled = torch.compile(lambda x: factor(x) + other.bias.sum())
    for mode in (True, False, True):
        other.train(mode)
        compiled(X)
    assert len(compiled.specializations) == 1


def test_seeds() -> None:
    generator = torch.Generator()
    compiled = torch.compile(lambda x: x * (generator.initial_seed() % 10))
    with pytest.warns(UserWarning, match="reads a random generator's state"):
        for seed in (1, 2, 3):
            generator.manual_seed(seed)
            assert compiled(X).equal(X * seed)
