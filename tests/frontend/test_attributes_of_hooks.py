"""Hooks of the package that set a module's `weight` before each call (pruning, weight_norm, spectral_norm): compiled
calls leave the attribute that eager ones leave."""

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
        torch.compile(fails)(torch.ones(3, 4))
    assert layer.weight is before
