"""Attributes of modules that a call sets, by hooks of the package (pruning, weight_norm, spectral_norm) or in a forward
of the user's: compiled calls leave what eager ones leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import graphtorch as torch
from graphtorch import nn, optim

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def pruned(layer: Any) -> Any:
    nn.utils.prune.l1_unstructured(layer, "weight", 0.3)
    return layer


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "pruned": pruned,
    "weight_norm": nn.utils.weight_norm,
    "spectral_norm": nn.utils.spectral_norm,
}


def trained(wrap: Callable[[Any], Any], backend: str | None) -> tuple[list[Any], Any]:
    torch.manual_seed(0)
    model = nn.Sequential(wrap(nn.Linear(4, 4)), nn.Tanh())
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def forward(x: Any) -> Any:
        return model(x).square().mean()

    run = torch.compile(forward, backend=backend, fullgraph=True) if backend else forward
    seen = []
    for n in range(1, 4):
        optimizer.zero_grad()
        loss = run(torch.full((3, 4), 0.5 * n))
        loss.backward()
        optimizer.step()
        weight, own = model[0].weight, vars(model[0])
        seen.append((loss.item(), weight.sum().item(), weight.requires_grad, weight.is_leaf, "weight" in own))
    return seen, run


@pytest.mark.parametrize("name", WRAPPERS)
@pytest.mark.parametrize("backend", ["cpu", "numpy"])
def test_the_attribute_is_that_of_the_last_call(name: str, backend: str) -> None:
    expected, _ = trained(WRAPPERS[name], None)
    actual, run = trained(WRAPPERS[name], backend)
    for a, e in zip(actual, expected, strict=True):
        assert a[:2] == pytest.approx(e[:2], rel=1e-5)
        assert a[2:] == e[2:]
    assert len(run.specializations) == 1


def test_a_layer_that_is_pruned_between_calls() -> None:
    found = []
    for compiled in (False, True):
        torch.manual_seed(0)
        layer = nn.Linear(4, 4)

        def total(x: Any, layer: Any = layer) -> Any:
            return layer(x).sum()

        run = torch.compile(total) if compiled else total
        x, sums = torch.ones(3, 4), []
        sums.append(run(x).item())
        pruned(layer)
        sums.append(run(x).item())
        pruned(layer)
        sums.append(run(x).item())
        nn.utils.prune.remove(layer, "weight")
        sums.append(run(x).item())
        found.append([*sums, layer.weight.sum().item(), int((layer.weight == 0).sum())])
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_a_failed_capture_leaves_no_recorded_tensor() -> None:
    layer = pruned(nn.Linear(4, 4))
    before = layer.weight

    def fails(x: Any) -> Any:
        layer(x)
        raise KeyError("mine")

    with pytest.raises(KeyError):
        torch.compile(fails, fullgraph=True)(torch.ones(3, 4))
    assert layer.weight is before
    with pytest.raises(KeyError):
        torch.compile(fails)(torch.ones(3, 4))
    assert layer.weight.tolist() == before.tolist()


class Auxiliary(nn.Module):
    """Keeps a loss of its own and what it saw, for those who ask after the call."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.loss = None

    def forward(self, x: Any) -> Any:
        hidden = self.linear(x)
        self.loss = hidden.square().mean()
        self.shown = hidden.detach()
        return hidden.sum() + self.loss * 0.5


@pytest.mark.parametrize("backend", ["cpu", "numpy"])
@pytest.mark.parametrize("inside", [False, True])
def test_losses_that_a_module_keeps(backend: str, inside: bool) -> None:
    found = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = Auxiliary()
        optimizer = optim.SGD(model.parameters(), lr=0.1)

        def step(x: Any, model: Any = model, optimizer: Any = optimizer) -> Any:
            loss = model(x)
            if inside:
                optimizer.zero_grad()
                (loss + model.loss).backward()
                optimizer.step()
            return loss

        run = torch.compile(step, backend=backend, fullgraph=True) if compiled else step
        seen = []
        for n in range(1, 4):
            loss = run(torch.full((2, 3), 0.5 * n))
            if not inside:
                optimizer.zero_grad()
                (loss + model.loss).backward()
                optimizer.step()
            seen += [loss.item(), model.loss.item(), model.shown.sum().item(), float(model.loss.requires_grad)]
        found.append(seen)
        if compiled:
            assert len(run.specializations) == 1
    assert found[1] == pytest.approx(found[0], rel=1e-5)


@pytest.mark.filterwarnings("ignore:.*runs eagerly")
def test_attributes_that_carry_state_from_call_to_call() -> None:
    class Memory(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.held = None

        def forward(self, x: Any) -> Any:
            self.held = x * 1 if self.held is None else self.held * 0.5 + x
            return self.held * 2

    found = []
    for compiled in (False, True):
        model = Memory()
        run = torch.compile(model) if compiled else model
        found.append([run(torch.full((2,), float(n))).tolist() for n in range(4)] + [model.held.tolist()])
    assert found[0] == found[1]
