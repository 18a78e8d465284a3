"""Functions of the package that a program replaces take effect at the next call of a compiled function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch.nn import functional as F


class Block(nn.Module):
    """A module of the user's with a method that names library functions."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.linear(x))


def activations(x: torch.Tensor) -> torch.Tensor:
    return F.relu(x) + torch.sigmoid(x) + torch.nn.functional.silu(x)


CASES: dict[str, tuple[Any, str, Callable[[], Any]]] = {
    "by an alias of its module": (F, "relu", lambda: activations),
    "of the package": (torch, "sigmoid", lambda: activations),
    "by the whole path": (F, "silu", lambda: activations),
    "in a method": (F, "relu", Block),
    "forward of a module's class": (nn.Linear, "forward", Block),
    "forward of a class in a container": (nn.ReLU, "forward", lambda: nn.Sequential(nn.Linear(3, 3), nn.ReLU())),
}


@pytest.mark.parametrize("case", CASES)
def test_the_next_call_uses_it(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, make = CASES[case]
    eager = make()
    compiled = torch.compile(lambda x: eager(x))
    x = torch.tensor([[1.0, 2.0, 3.0]])
    first = compiled(x)
    for factor in (100.0, 1000.0):
        with monkeypatch.context() as patch:
            method = isinstance(owner, type)
            patch.setattr(owner, name, (lambda self, x, f=factor: x * f) if method else lambda x, f=factor: x * f)
            assert torch.equal(compiled(x), eager(x))
            assert not torch.equal(compiled(x), first)
    assert torch.equal(compiled(x), first)


def test_what_a_replacement_reads_is_assumed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"slope": 2.0}
    monkeypatch.setattr(F, "relu", lambda x: x * settings["slope"])
    compiled = torch.compile(lambda x: F.relu(x))
    x = torch.ones(2)
    assert compiled(x).tolist() == [2.0, 2.0]
    settings["slope"] = 3.0
    assert compiled(x).tolist() == [3.0, 3.0]


def test_other_changes_of_the_package_compile_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = torch.compile(lambda x: F.relu(x))
    x = torch.ones(2)
    compiled(x)
    for n in range(8):
        monkeypatch.setattr(F, "an_extension_of_the_program", n, raising=False)
        compiled(x)
    assert len(compiled.specializations) == 1
