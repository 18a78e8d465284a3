"""A thousand training steps as programs have them: a schedule, a last partial batch, many sequence lengths."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch.frontend.collection import COLLECTED_EVERY


def train(compiled: bool, steps: int) -> tuple[list[float], Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(20, 8), nn.Linear(8, 20))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x).transpose(1, 2), y)
        loss.backward()
        optimizer.step()
        return loss

    run = torch.compile(step) if compiled else step
    rng = np.random.default_rng(0)
    losses = []
    for i in range(steps):
        batch, tokens = 3 if i % 10 == 9 else 8, 10 + i % 20
        x = torch.from_numpy(rng.integers(0, 20, (batch, tokens)))
        losses.append(run(x, x).item())
        schedule.step()
    return losses, run


def test_three_compilations_serve_a_thousand_steps():
    losses, step = train(True, 1000)
    assert len(step.specializations) <= 3
    assert step.eager_calls == 0
    assert losses[-1] < 0.5 * losses[0]


def test_losses_are_eagers():
    compiled, _ = train(True, 200)
    eager, _ = train(False, 200)
    np.testing.assert_allclose(compiled, eager, rtol=1e-5)


class Block(torch.nn.Module):
    """A transformer block that takes its sizes from its input."""

    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.LayerNorm(8), torch.nn.LayerNorm(8)
        self.attention = torch.nn.MultiheadAttention(8, 2, batch_first=True)
        self.mlp = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 8))

    def forward(self, x):
        h = self.first(x)
        x = x + self.attention(h, h, h)[0]
        return x + self.mlp(self.second(x).view(-1, x.shape[2])).view(x.shape)


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
def test_all_sizes_symbolic_from_the_first_call_on(backend):
    """Sizes that the program fixes (that of the features) are numbers; the others are symbols at once."""
    model = Block()
    compiled = torch.compile(model.forward, dynamic=True, backend=backend)
    for batch, length in ((3, 5), (2, 7), (9, 2)):
        torch.manual_seed(0)
        x = torch.randn(batch, length, 8)
        gradients = []
        for function in (model.forward, compiled):
            model.zero_grad()
            y = function(x)
            y.square().mean().backward()
            gradients.append([y.detach(), *(p.grad.clone() for p in model.parameters())])
        for e, a in zip(*gradients, strict=True):
            assert torch.allclose(e, a, atol=1e-5)
    assert len(compiled.specializations) == 1


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
@pytest.mark.parametrize(("name", "options"), [("SGD", {"momentum": 0.9}), ("AdamW", {})])
def test_cycled_momentum_and_betas_compile_once_more_at_most(name: str, options: Any, backend: str) -> None:
    def run(compiled: bool) -> tuple[list[float], Any]:
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 3)
        optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.1, **options)
        step_once(model, optimizer, torch.ones(2, 4))  # as it was given
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=40)

        def step(x: Any) -> Any:
            return step_once(model, optimizer, x)

        called = torch.compile(step, backend=backend) if compiled else step
        losses = []
        for _ in range(30):
            losses.append(called(torch.randn(8, 4)).item())
            scheduler.step()
        return losses, called

    expected, _ = run(False)
    found, compiled = run(True)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert len(compiled.specializations) <= 2


def step_once(model: Any, optimizer: Any, x: Any) -> Any:
    optimizer.zero_grad()
    loss = model(x).square().mean()
    loss.backward()
    optimizer.step()
    return loss


def test_compiled_functions_that_are_dropped_do_not_stay():
    alive: list[Any] = []
    x = torch.ones(3)
    for i in range(2 * COLLECTED_EVERY + 10):
        compiled = torch.compile(lambda x, i=i: x + i, backend="numpy")
        assert compiled(x)[0] == 1 + i
        alive.append(weakref.ref(compiled.specializations[0].compiled.executable))
    assert sum(ref() is not None for ref in alive) <= COLLECTED_EVERY + 10


RECURRENT = {
    "lstm": (torch.nn.LSTM, {}),
    "two layers, both ways": (torch.nn.LSTM, {"num_layers": 2, "bidirectional": True}),
    "projection": (torch.nn.LSTM, {"proj_size": 3, "bias": False}),
    "gru": (torch.nn.GRU, {"num_layers": 2, "dropout": 0.5}),
    "relu": (torch.nn.RNN, {"nonlinearity": "relu", "bidirectional": True}),
}


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
@pytest.mark.parametrize("kind", RECURRENT)
def test_recurrent_networks_compile_once_for_all_lengths(kind: str, backend: str) -> None:
    cls, options = RECURRENT[kind]
    torch.manual_seed(0)
    model = cls(4, 6, **options)

    def run(function: Any) -> list[Any]:
        found = []
        for length, batch in ((3, 2), (5, 2), (7, 3), (2, 4), (9, 2)):
            torch.manual_seed(length)
            x = torch.randn(length, batch, 4, requires_grad=True)
            model.zero_grad()
            output, state = function(x)
            (
                output.square().sum() + sum(part.sum() for part in (state if isinstance(state, tuple) else (state,)))
            ).backward()
            found += [output.detach(), x.grad, *(p.grad.clone() for p in model.parameters())]
        return found

    compiled = torch.compile(lambda x: model(x), backend=backend)
    for found, expected in zip(run(compiled), run(model), strict=True):
        assert torch.allclose(found, expected, atol=1e-5)
    assert len(compiled.specializations) <= 3
    assert compiled.eager_calls == 0


def test_three_compilations_serve_a_thousand_steps_of_an_lstm() -> None:
    def train(compiled: bool, steps: int) -> tuple[list[float], Any]:
        torch.manual_seed(0)
        table, layer, head = torch.nn.Embedding(20, 8), torch.nn.LSTM(8, 8, batch_first=True), torch.nn.Linear(8, 20)
        optimizer = torch.optim.Adam([*table.parameters(), *layer.parameters(), *head.parameters()], lr=1e-2)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

        def step(x: Any) -> Any:
            optimizer.zero_grad()
            logits = head(layer(table(x))[0])
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), x.flatten())
            loss.backward()
            optimizer.step()
            return loss

        called = torch.compile(step) if compiled else step
        rng, losses = np.random.default_rng(0), []
        for i in range(steps):
            batch, length = 3 if i % 8 == 7 else 8, 5 + i % 20
            losses.append(called(torch.from_numpy(rng.integers(0, 20, (batch, length)))).item())
            schedule.step()
        return losses, called

    losses, step = train(True, 1000)
    assert len(step.specializations) <= 3
    assert step.eager_calls == 0
    np.testing.assert_allclose(train(True, 60)[0], train(False, 60)[0], rtol=1e-5)
    assert losses[-1] < 0.5 * losses[0]
