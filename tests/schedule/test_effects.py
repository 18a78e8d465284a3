"""What a failed call changes: nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import graphtorch as torch
from graphtorch.lowering.backend import get_backend


def out_of_range(given: Any) -> Any:
    return torch.arange(5.0)[given]


def singular(given: Any) -> Any:
    return torch.linalg.inv(torch.eye(2) * (given[0] - 7).to(torch.float32))


def quotient(given: Any) -> Any:
    return given // (given - 7)


def in_place(given: Any) -> Any:
    """Needs what another part has overwritten."""
    return torch.zeros(5).index_fill_(0, given, 1.0)


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
@pytest.mark.parametrize("fail", [out_of_range, singular, quotient, in_place])
def test_a_failed_call_changes_nothing(fail: Callable[[Any], Any], backend: str):
    if get_backend(backend).unavailable():
        pytest.skip("no native code here")
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 64)
    optimizer = torch.optim.Adam(layer.parameters())
    counts = torch.zeros(3)

    @torch.compile(backend=backend)
    def step(x: Any, given: Any) -> Any:
        optimizer.zero_grad()
        loss = layer(x).square().sum()
        loss.backward()
        counts.add_(1)
        found = fail(given)
        optimizer.step()
        return loss, found

    x = torch.randn(64, 64)
    step(x, torch.tensor([1, 2]))
    state = [counts, *layer.parameters(), *(v for s in optimizer.state.values() for v in s.values())]
    before = [s.detach().clone() for s in state]
    with pytest.raises((IndexError, RuntimeError)):
        step(x, torch.tensor([7, 7]))
    assert all(torch.equal(a, b) for a, b in zip(before, state, strict=True))
    step(x, torch.tensor([1, 2]))
    assert not torch.equal(before[1], layer.weight)
