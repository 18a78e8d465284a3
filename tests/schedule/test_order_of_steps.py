"""The order of steps: what may change places, and that memory is saved where the program wastes it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch.lowering.backend import get_backend
from graphtorch.lowering.numpy.executor import NumpyExecutable
from graphtorch.schedule.effects import updates_behind_products
from graphtorch.schedule.ordering import dependencies, order_for_memory, peak


def executable(function: Any, *given: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    made: list[Any] = []
    original = NumpyExecutable.__init__

    def init(self: Any, *arguments: Any, **named: Any) -> None:
        original(self, *arguments, **named)
        made.append(self)

    monkeypatch.setattr(NumpyExecutable, "__init__", init)
    result = torch.compile(function, backend="numpy")(*given)
    return result, made[-1]


def branches(x: Any) -> Any:
    """Eight large values, each made small only after all are there."""
    products = [x @ x[i : i + 120].t() for i in range(8)]
    return torch.stack([y @ x[:120, :1] for y in products])


def test_large_values_are_used_up_one_by_one(monkeypatch: pytest.MonkeyPatch):
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((128, 128)).astype(np.float32))
    found, made = executable(branches, x, monkeypatch=monkeypatch)
    np.testing.assert_allclose(found.numpy(), branches(x).numpy(), rtol=1e-4, atol=1e-2)
    assert any("another order" in line for line in made.schedule.report)
    assert made.plan.peak_bytes <= 3 * 128 * 128 * 4


def test_order_respects_dependencies(monkeypatch: pytest.MonkeyPatch):
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((128, 128)).astype(np.float32))
    _, made = executable(branches, x, monkeypatch=monkeypatch)
    steps = made.schedule.steps
    for order in (steps, order_for_memory(steps)[0]):
        place = {id(s): i for i, s in enumerate(order)}
        for step, needs in zip(steps, dependencies(steps), strict=True):
            assert all(place[id(steps[j])] < place[id(step)] for j in needs)
    sizes = {b: 1 for s in steps for b in s.writes()}
    assert peak(steps, sizes) >= 1


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
def test_random_numbers_keep_their_order(backend: str):
    if get_backend(backend).unavailable():
        pytest.skip("no native code here")

    def f(x: Any) -> Any:
        drawn = [torch.nn.functional.dropout(x @ (x + float(i)), 0.5) for i in range(6)]
        return torch.stack([d.sum() for d in reversed(drawn)])

    x = torch.from_numpy(np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32))
    torch.manual_seed(3)
    expected = f(x)
    torch.manual_seed(3)
    np.testing.assert_allclose(torch.compile(f, backend=backend)(x).numpy(), expected.numpy(), rtol=1e-4, atol=1e-3)


def test_updates_of_inputs_come_after_their_readers():
    def f(x: Any, y: Any) -> Any:
        a = x @ y
        x.mul_(2)
        b = x @ y
        x.add_(a)
        return a.sum() + b.sum(), b

    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((32, 32)).astype(np.float32) for _ in range(2)]
    one, two = ([torch.from_numpy(a.copy()) for a in arrays] for _ in range(2))
    expected, found = f(*one), torch.compile(f)(*two)
    np.testing.assert_allclose(found[1].numpy(), expected[1].numpy(), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(two[0].numpy(), one[0].numpy(), rtol=1e-5, atol=1e-4)


def test_an_update_follows_its_gradient(monkeypatch: pytest.MonkeyPatch):
    first, second = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)
    optimizer = torch.optim.SGD([*first.parameters(), *second.parameters()], lr=0.1)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = second(first(x)).square().sum()
        loss.backward()
        optimizer.step()
        return loss

    _, made = executable(step, torch.ones(4, 8), monkeypatch=monkeypatch)
    steps = made.schedule.steps
    order = updates_behind_products(steps)
    assert sorted(map(id, order)) == sorted(map(id, steps))
    place = {id(s): i for i, s in enumerate(order)}
    for step_, needs in zip(steps, dependencies(steps), strict=True):
        assert all(place[id(steps[j])] < place[id(step_)] for j in needs)
    writers = {b.name: place[id(s)] for s in steps for b in s.writes()}
    updates = [i for name, i in writers.items() if name.endswith("_weight") and not name.startswith("grad")]
    gradients = [i for name, i in writers.items() if name.startswith("grad_of_") and name.endswith("_weight")]
    assert len(updates) == 2
    assert all(i - 1 in gradients for i in updates)
