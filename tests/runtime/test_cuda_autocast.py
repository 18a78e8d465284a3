"""Mixed precision on CUDA tensors: PyTorch's lists of what runs in which dtype, eagerly and compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import nn

pytestmark = pytest.mark.usefixtures("cuda")
F = nn.functional


def test_what_runs_in_which_dtype() -> None:
    x, w = torch.randn(4, 4, device="cuda"), torch.randn(4, 4, device="cuda")
    half = x.half()
    with torch.autocast("cuda"):
        assert (x @ w).dtype is F.linear(x, w).dtype is torch.mm(x, w).dtype is torch.float16
        for made in (
            half.exp(),
            half.log_softmax(-1),
            half.softmax(-1),
            half.sum(),
            half.pow(2),
            half.abs().log(),
            F.layer_norm(half, (4,)),
            F.mse_loss(half, half),
            F.cross_entropy(half, torch.zeros(4, dtype=torch.int64, device="cuda")),
            half.cumsum(0),
            half.rsqrt(),
        ):
            assert made.dtype is torch.float32
        assert F.relu(half).dtype is torch.float16 and (half + half).dtype is torch.float16
        assert (half + x).dtype is torch.float32
        host = torch.randn(4, 4)
        assert (host @ host).dtype is torch.float32  # the region is for the device
        with torch.autocast("cpu"):
            assert (host @ host).dtype is torch.bfloat16 and (x @ w).dtype is torch.float16
        with torch.autocast("cuda", enabled=False):
            assert (x @ w).dtype is torch.float32
    with torch.cuda.amp.autocast(dtype=torch.bfloat16):
        assert (x @ w).dtype is torch.bfloat16
    assert (x @ w).dtype is torch.float32


@pytest.mark.parametrize("compiled", [False, True])
def test_training_with_a_scaler(compiled: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cuda", init_scale=256.0, growth_interval=2)
    assert scaler.is_enabled()

    def forward(x: Any, y: Any) -> Any:
        with torch.autocast("cuda"):
            return F.cross_entropy(model(x), y)

    run = torch.compile(forward) if compiled else forward
    x, y = torch.randn(5, 6, device="cuda"), torch.arange(5, device="cuda") % 3
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = run(x, y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert loss.dtype is torch.float32 and losses[-1] < losses[0]
    assert scaler.get_scale() == 1024.0
    for p in model.parameters():
        p.grad.fill_(float("inf"))
    before = [p.tolist() for p in model.parameters()]
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 512.0 and [p.tolist() for p in model.parameters()] == before


def test_a_compiled_step_computes_as_the_eager_one() -> None:
    def make() -> tuple[Any, Any]:
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 3)).cuda()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)

        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            with torch.autocast("cuda", dtype=torch.bfloat16):
                loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        return model, step

    (eager_model, eager), (model, step) = make(), make()
    step = torch.compile(step)
    x, y = torch.randn(5, 6, device="cuda"), torch.arange(5, device="cuda") % 3
    for _ in range(3):
        np.testing.assert_allclose(step(x, y).item(), eager(x, y).item(), 1e-2)
    for p, q in zip(model.parameters(), eager_model.parameters(), strict=True):
        assert p.grad.dtype is torch.float32
        np.testing.assert_allclose(p.detach().cpu().numpy(), q.detach().cpu().numpy(), 2e-2, 2e-2)
