"""Training steps with a symbolic batch: the launches and the bytes of those with a known one, and right numbers."""

from __future__ import annotations

from typing import Any

import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch.lowering.kernel import Buffer, Schedule
from graphtorch.lowering.triton import bias, columns, moments, splitting
from graphtorch.lowering.triton.launch import make_plan
from graphtorch.runtime.cuda.driver import use_driver
from graphtorch.runtime.cuda.simulated import SimulatedDriver
from graphtorch.schedule.memory import nbytes
from graphtorch.tensor.symint import symbols_of

pytest.importorskip("triton")


class Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.qkv, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm2, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Any) -> Any:
        b, t, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).split(width, 2)
        q, k, v = (z.view(b, t, self.heads, width // self.heads).transpose(1, 2) for z in (q, k, v))
        seen = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(b, t, width))
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


def words(width: int, classes: int) -> nn.Module:
    return nn.Sequential(nn.Embedding(classes, width), Layer(width, 2), nn.LayerNorm(width), nn.Linear(width, classes))


def images(width: int, classes: int) -> nn.Module:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.norm1 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
            self.conv2, self.norm2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)

        def forward(self, x: Any) -> Any:
            return torch.relu(self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x))))) + x)

    first = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2))
    return nn.Sequential(first, Block(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


def training(model: nn.Module, rate: float = 0.05) -> Any:
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            made = model(x)
        loss = nn.functional.cross_entropy(made.float().flatten(0, -2), y.flatten())
        loss.backward()
        optimizer.step()
        return loss

    return step


def batch(kind: str, n: int, size: int, classes: int) -> tuple[Any, Any]:
    if kind == "words":
        return torch.randint(0, classes, (n, size)), torch.randint(0, classes, (n, size))
    return torch.randn(n, 3, size, size), torch.randint(0, classes, (n,))


MODELS = {"words": words, "images": images}


@pytest.mark.parametrize(("kind", "size"), [("words", 256), ("images", 56)])
def test_as_many_launches_and_bytes_as_for_a_known_batch(kind: str, size: int, schedules: list[Schedule]) -> None:
    found = []
    for dynamic in (False, True):
        step = torch.compile(training(MODELS[kind](128, 1000).cuda()), fullgraph=True)
        x, y = (t.cuda() for t in batch(kind, 64, size, 1000))
        if dynamic:
            torch.compiler.mark_dynamic(x, 0)
            torch.compiler.mark_dynamic(y, 0)
        step(x, y)
        schedule = schedules[-1]
        names = {n for b in schedule.inputs for s in b.shape if type(s) is not int for n in symbols_of(s)}
        assert bool(names) == dynamic
        plan = make_plan(schedule, dict.fromkeys(names, 64))
        assert not plan.unsupported
        moved = [{a for a in launch.arguments if isinstance(a, Buffer)} for launch in plan.launches]
        found.append((len(plan.launches), sum(nbytes(b, plan.bindings) for one in moved for b in one)))
    (launches, known), (more, symbolic) = found
    assert more <= launches + 3
    assert symbolic <= known * 1.05


@pytest.mark.parametrize("kind", ["words", "images"])
def test_steps_of_changing_batches(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What pays for long sums only, for short ones; the numbers are those of eager steps."""
    for module in (bias, columns, moments):
        monkeypatch.setattr(module, "FEWEST", 16)
    monkeypatch.setattr(splitting, "LONG", 64)
    use_driver(SimulatedDriver(1))
    try:
        losses = []
        for device in ("cuda", "cpu"):
            torch.manual_seed(0)
            model = MODELS[kind](16, 10)
            step = training(model.to(device), 0.01)
            if device == "cuda":
                step = torch.compile(step, fullgraph=True)
            losses.append([])
            for i, n in enumerate((4, 3, 7)):
                torch.manual_seed(n)
                x, y = (t.to(device) for t in batch(kind, n, 24 if kind == "words" else 12, 10))
                if device == "cuda" and not i:
                    torch.compiler.mark_dynamic(x, 0)
                    torch.compiler.mark_dynamic(y, 0)
                losses[-1].append(float(step(x, y)))
            if device == "cuda":
                assert len(step.specializations) == 1
        assert losses[0] == pytest.approx(losses[1], rel=2e-2)
    finally:
        use_driver(None)
