"""Updates of small parameters on their arrays, beside the operators they stand for: the same numbers, bit by bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch.ops import arrays

SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "maximize": True}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.2}),
    ("Adam", {"lr": 0.01}),
    ("Adam", {"lr": 0.01, "betas": (0.4, 0.7), "weight_decay": 0.1, "maximize": True}),
    ("Adam", {"lr": 0.01, "amsgrad": True}),
    ("Adam", {"lr": 0.01, "betas": (0.5, 0.999)}),
    ("AdamW", {"lr": 0.01}),
    ("RMSprop", {"lr": 0.01}),
    ("RMSprop", {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1}),
    ("RMSprop", {"lr": 0.01, "centered": True}),
]


def trained(name: str, options: dict[str, Any], d: Any, steps: int = 5) -> list[Any]:
    """Parameters and state after some steps, with the versions of all of them."""
    random = np.random.default_rng(0)
    made = [torch.nn.Parameter(torch.tensor(random.standard_normal(s)).to(d)) for s in ((3, 5), (), (0,), (7, 4))]
    turned = torch.nn.Parameter(made[3].data.t())
    optimizer = getattr(torch.optim, name)([*made, turned], **options)
    for _ in range(steps):
        for p in (*made, turned):
            p.grad = torch.tensor(random.standard_normal(tuple(p.shape))).to(d)
        optimizer.step()
    found: list[Any] = []
    for p in (*made, turned):
        found += [p, *(v for v in optimizer.state[p].values() if v is not None)]
    return [(t.detach().to(torch.float64).numpy().tobytes(), t.shape, t.dtype, t._version) for t in found]


@pytest.mark.parametrize("d", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("name", "options"), SETTINGS)
def test_numbers_are_the_operators(name: str, options: dict[str, Any], d: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = trained(name, options, d)
    monkeypatch.setattr(arrays, "LARGE", 0)
    monkeypatch.setattr(arrays, "_KINDS", frozenset())
    assert [o[:3] for o in ours] == [e[:3] for e in trained(name, options, d)]
    assert all(o[3] >= 5 for o in ours)


def test_arrays_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(arrays.quiet, "run", lambda function, *args: seen.append(function.__name__) or function(*args))
    p = torch.nn.Parameter(torch.ones(3))
    p.grad = torch.ones(3)
    for name in ("SGD", "Adam", "AdamW", "RMSprop"):
        getattr(torch.optim, name)([p], lr=0.1).step()
    assert seen.count("_small") == 4


def test_a_saved_parameter_is_known_to_have_changed() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    loss = (p * p).sum()
    p.grad = torch.ones(3)
    torch.optim.Adam([p]).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_read_only_memory_is_refused_as_by_operators() -> None:
    data = np.ones(3, np.float32)
    p = torch.nn.Parameter(torch.from_numpy(data))
    p.grad = torch.ones(3)
    torch.optim.SGD([p], lr=1.0).step()
    assert data.tolist() == [0.0, 0.0, 0.0]  # the memory is the caller's
