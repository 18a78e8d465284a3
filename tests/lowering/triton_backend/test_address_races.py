"""No launch depends on the order in which its programs run, or the threads of one program. With GRAPHTORCH_RACES=1 all
tests of this folder are watched so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch.nn import functional as F
from graphtorch.runtime.cuda.driver import use_driver
from graphtorch.runtime.cuda.simulated import SimulatedDriver

pytest.importorskip("triton")

from address_races import watch

from graphtorch.lowering.triton import interpreter

HEAD = (
    "import triton\nimport triton.language as tl\n@triton.jit\ndef k(a, b, X: tl.constexpr):\n    n = tl.arange(0, X)\n"
)


@pytest.fixture
def device() -> Iterator[None]:
    use_driver(SimulatedDriver(1))
    yield
    use_driver(None)


@pytest.mark.parametrize(
    ("lines", "programs", "message"),
    [
        (["tl.store(b + n, tl.load(a + n))"], 2, "stores of several programs"),
        (["tl.store(b + tl.program_id(0) * X + n, tl.load(b + n))"], 2, "loads of what another program stores"),
        (["tl.store(b + n, tl.load(a + n))", "tl.store(a + n, tl.load(b + n))"], 1, "a load after a store"),
        (["tl.store(b + n, tl.load(a + n))", "tl.store(b + X - 1 - n, n + 0.0)"], 1, "a store after a store"),
        (["tl.atomic_add(b + n, tl.load(b + n))"], 1, "atomic additions to what is accessed otherwise"),
        (["tl.store(b + n, tl.load(b + n) + tl.load(a + n))"], 1, ""),
    ],
)
def test_races_are_found(lines: list[str], programs: int, message: str) -> None:
    source = HEAD + "".join(f"    {line}\n" for line in lines)
    a, b = np.ones(16, np.float32), np.zeros(16, np.float32)
    signature = {"a": "*fp32", "b": "*fp32", "X": "constexpr"}
    with watch() as launched:
        given = (source, "k", signature, [a.ctypes.data, b.ctypes.data], {"X": 8}, (programs, 1, 1))
        if message:
            with pytest.raises(AssertionError, match=message):
                interpreter.interpret(*given)
        else:
            interpreter.interpret(*given)
    assert launched == ["k"]


def classifier() -> nn.Module:
    return nn.Sequential(nn.Linear(24, 40), nn.LayerNorm(40), nn.GELU(), nn.Dropout(0.1), nn.Linear(40, 30))


def network() -> nn.Module:
    inside = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, 2)]
    return nn.Sequential(*inside, nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 30))


@pytest.mark.parametrize(("model", "shape"), [(classifier, (20, 24)), (network, (2, 3, 8, 8))])
def test_training_steps(device: None, model: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    made = model().cuda()
    optimizer = torch.optim.AdamW(made.parameters(), 1e-2)

    @torch.compile
    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = F.cross_entropy(made(x).float(), y)
        loss.backward()
        optimizer.step()
        return loss

    x, y = torch.randn(*shape).cuda(), (torch.arange(shape[0]) % 30).cuda()
    with watch() as launched:
        assert float(step(x, y)) > float(step(x, y))
    assert len(launched) > 10


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.sort(x, -1, stable=True),
        lambda x: torch.cumsum(x, -1),
        lambda x: torch.cumsum(x.reshape(1, -1), -1),
        lambda x: (F.softmax(x, -1), torch.logsumexp(x, 0), x.sum(), x.var(0)),
        lambda x: F.embedding((x * 10).long() % 7, x[:7].detach()).sum((0, 1)),
        lambda x: torch.zeros_like(x).scatter_add(1, (x * 9).long() % 5, x),
        lambda x: F.scaled_dot_product_attention(x[None, None, :, :16], x[None, None, :, :16], x[None, None, :, :16]),
        lambda x: x.mul_(2).add_(x.flip(0)),
    ],
)
def test_operators(device: None, function: Callable[..., Any]) -> None:
    x = torch.rand(8, 130).cuda()
    with watch() as launched:
        torch.compile(function)(x)
    assert launched
