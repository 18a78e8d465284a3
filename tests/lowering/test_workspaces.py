"""The memory of programs that meet many sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch.lowering.backend import get_backend
from graphtorch.lowering.cpu.executable import CpuExecutable
from graphtorch.lowering.numpy import executor


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
def test_all_sizes_share_one_memory(backend: str, monkeypatch: pytest.MonkeyPatch):
    if get_backend(backend).unavailable():
        pytest.skip("no native code here")
    made: list[Any] = []
    kind = CpuExecutable if backend == "cpu" else executor.NumpyExecutable
    original = kind.__init__

    def init(self: Any, *arguments: Any, **named: Any) -> None:
        original(self, *arguments, **named)
        made.append(self)

    monkeypatch.setattr(kind, "__init__", init)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 4))
    step = torch.compile(lambda x: torch.softmax(model(x), -1), backend=backend)
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for rows in [*range(2, 102), 7, 101, 50]:
            x = torch.from_numpy(rng.standard_normal((rows, 16)).astype(np.float32))
            np.testing.assert_allclose(step(x).numpy(), torch.softmax(model(x), -1).numpy(), rtol=1e-5, atol=1e-6)
    assert len(made) <= 2
    symbolic = made[-1]
    (space,) = symbolic.workspaces
    assert len(space.frames) <= executor.KEPT_SIZES
    largest = max(p.plan.arena_bytes + p.scratch_bytes for p in space.frames)
    assert len(space.memory) <= 1.5 * largest + 1024
