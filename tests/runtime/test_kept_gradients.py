"""Gradients that replayed steps leave in the same memory: nobody may be able to tell, except by the time it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch.frontend.kept import keepable

pytestmark = [
    pytest.mark.usefixtures("cuda"),
    pytest.mark.skipif(not keepable(), reason="this interpreter does not tell who holds a tensor"),
]
held: list[Any] = []


def training(device: str, wrap: Callable[[Any], Any], clear: bool = True) -> tuple[Any, Any, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step(x: Any) -> Any:
        if clear:
            optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return model, optimizer, wrap(step)


def gradients(model: Any) -> list[Any]:
    return [p.grad for p in model.parameters()]


def nothing(model: Any, i: int) -> None:
    pass


def hold_all(model: Any, i: int) -> None:
    held.append(gradients(model))


def hold_one_view(model: Any, i: int) -> None:
    held.append(model[0].weight.grad.view(-1)[1:])


def hold_storage(model: Any, i: int) -> None:
    held.append(model[2].weight.grad.untyped_storage())


def hold_detached(model: Any, i: int) -> None:
    held[:] = [model[2].bias.grad.detach()]


def hold_sometimes(model: Any, i: int) -> None:
    if i % 4 == 0:
        held.append(model[0].bias.grad)


def hold_imported(model: Any, i: int) -> None:
    held.append(torch.from_dlpack(model[0].bias.grad))


def clip(model: Any, i: int) -> None:
    nn.utils.clip_grad_norm_(model.parameters(), 0.01)


def drop_all(model: Any, i: int) -> None:
    model.zero_grad()


def drop_one(model: Any, i: int) -> None:
    model[0].weight.grad = None


def drop_and_hold(model: Any, i: int) -> None:
    held.append(model[0].weight.grad)
    model.zero_grad()


def swap(model: Any, i: int) -> None:
    model[0].weight.grad = torch.ones_like(model[0].weight)


def exchange(model: Any, i: int) -> None:
    a = model[0].weight
    grad = a.grad
    a.grad = torch.zeros_like(a)
    held[:] = [grad]


def read(model: Any, i: int) -> None:
    held.append([g.abs().sum().item() for g in gradients(model)])


def toggle(model: Any, i: int) -> None:
    model.train(i % 2 == 0)


def snapshot() -> list[Any]:
    def plain(x: Any) -> Any:
        if isinstance(x, list):
            return [plain(y) for y in x]
        if isinstance(x, torch.UntypedStorage):
            return torch.empty(0).set_(x.cpu() if hasattr(x, "cpu") else x).tolist()
        return np.array(x.cpu().detach().numpy() if isinstance(x, torch.Tensor) else x)

    return [plain(x) for x in held]


BETWEEN = [
    *(nothing, hold_all, hold_one_view, hold_detached, hold_sometimes, hold_imported, clip, drop_all, drop_one),
    *(drop_and_hold, swap, exchange, read, toggle),
]


@pytest.mark.parametrize("clear", [True, False])
@pytest.mark.parametrize("between", BETWEEN)
def test_gradients_are_those_of_eager_execution(between: Callable[[Any, int], None], clear: bool) -> None:
    """After each step something is done to the gradients; what they are, and what was held, is as in eager mode."""
    found = []
    for device, wrap in (("cpu", lambda f: f), ("cuda", lambda f: torch.compile(f, mode="reduce-overhead"))):
        held.clear()
        model, _, step = training(device, wrap, clear)
        seen = []
        for i in range(9):
            torch.manual_seed(i)
            step(torch.randn(5, 6).to(device))
            seen.append([g.cpu().numpy().copy() for g in gradients(model)])
            between(model, i)
        found.append((seen, snapshot(), [p.detach().cpu().numpy() for p in model.parameters()]))
    for wanted, got in zip(found[0], found[1], strict=True):
        assert len(wanted) == len(got)
        for a, b in zip(flat(wanted), flat(got), strict=True):
            np.testing.assert_allclose(a, b, 1e-4, 1e-6)
    held.clear()


def flat(nested: Any) -> list[Any]:
    return [x for y in nested for x in flat(y)] if isinstance(nested, list) else [nested]


def test_the_same_memory_is_written_again() -> None:
    model, _, step = training("cuda", lambda f: torch.compile(f, mode="reduce-overhead"))
    x = torch.randn(5, 6, device="cuda")
    for _ in range(5):
        step(x)
    first, before = [id(g) for g in gradients(model)], torch.cuda.memory_allocated()
    for _ in range(3):
        step(x)
    assert [id(g) for g in gradients(model)] == first
    assert torch.cuda.memory_allocated() == before
    addresses = [g.data_ptr() for g in gradients(model)]
    model.zero_grad()
    step(x)
    assert [g.data_ptr() for g in gradients(model)] == addresses
    clip(model, 0)  # makes storages, and changes them
    step(x)
    assert [g.data_ptr() for g in gradients(model)] == addresses


def test_who_always_holds_gradients_gets_copies() -> None:
    model, _, step = training("cuda", lambda f: torch.compile(f, mode="reduce-overhead"))
    x = torch.randn(5, 6, device="cuda")
    kept = []
    for _ in range(15):
        step(x)
        kept.append(model[0].weight.grad)
    assert len({id(g) for g in kept}) == len({g.data_ptr() for g in kept}) == 15
    (frame,) = next(iter(step.specializations[0].compiled.executable.program({})._frames.values()))
    assert frame.recording.resident is None
