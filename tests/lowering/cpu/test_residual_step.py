"""A residual network's training step on the cpu backend against float64 eager: all forms of convolution together."""

from __future__ import annotations

from typing import Any

import numpy as np

import graphtorch
from graphtorch import nn


class Block(nn.Module):
    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(out), nn.BatchNorm2d(out)
        self.shortcut = nn.Conv2d(channels, out, 1, stride, bias=False)

    def forward(self, x: Any) -> Any:
        y = graphtorch.relu(self.norm1(self.conv1(x)))
        return graphtorch.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


def network() -> Any:
    graphtorch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 24, 5, 2, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1), Block(24, 32, 1), Block(32, 64, 2),
        nn.Conv2d(64, 64, 3, 1, 1, groups=64), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(256, 5),
    )  # fmt: skip


def test_gradients_and_updates() -> None:
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((6, 3, 32, 32)), rng.integers(0, 5, 6)
    found: dict[str, tuple[float, list[Any], list[Any]]] = {}
    for name in ("compiled", "wide"):
        model = network()
        if name == "wide":
            model = model.double()
        optimizer = graphtorch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        data = graphtorch.from_numpy(x.astype(np.float64 if name == "wide" else np.float32))
        target = graphtorch.from_numpy(labels)

        def step(data: Any, target: Any, model: Any = model, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(data), target)
            loss.backward()
            optimizer.step()
            return loss

        run = step if name == "wide" else graphtorch.compile(step, backend="cpu")
        losses = [float(run(data, target)) for _ in range(3)]
        gradients = [p.grad.numpy().astype(np.float64) for p in model.parameters()]
        found[name] = losses, gradients, [p.detach().numpy().astype(np.float64) for p in model.parameters()]
    np.testing.assert_allclose(found["compiled"][0], found["wide"][0], rtol=1e-5)
    largest = max(float(np.abs(g).max()) for g in found["wide"][1])
    for actual, expected in zip(found["compiled"][1], found["wide"][1], strict=True):
        # A bias in front of a normalisation has no gradient: all that is left of it is rounding.
        assert np.abs(actual - expected).max() <= 1e-4 * max(float(np.abs(expected).max()), 0.01 * largest)
    for actual, expected in zip(found["compiled"][2], found["wide"][2], strict=True):
        assert np.abs(actual - expected).max() <= 1e-5 * max(float(np.abs(expected).max()), 1e-2)
