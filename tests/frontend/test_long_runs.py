"""A thousand training steps as programs have them: a schedule, a last partial batch, many sequence lengths."""

from __future__ import annotations

from typing import Any

import numpy as np

import graphtorch as torch
from graphtorch import nn


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
