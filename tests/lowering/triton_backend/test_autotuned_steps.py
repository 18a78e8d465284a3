"""Whole training steps under `@compile(mode="max-autotune")`, on a device that makes times up and refuses candidates:
no refusal may end a step, and every launch must be one that the device accepted."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch.runtime.cuda.driver import use_driver
from graphtorch.runtime.cuda.simulated import SimulatedDriver

pytest.importorskip("triton")

from graphtorch.lowering.triton import autotune, backend, compiler, processes
from graphtorch.lowering.triton.compiler import Compiled


class Refused(Exception):
    """What cuda.core raises: no RuntimeError."""


class Picky(SimulatedDriver):
    """Runs nothing. Refuses some kernels when they are loaded, others when they are launched; times are made up."""

    interprets = False

    def __init__(self) -> None:
        super().__init__(1, memory=64 << 30, executes=False)
        self.refuses: Callable[[bytes], str] = lambda code: ""
        self.refused = {"load": 0, "launch": 0}
        self.ran: set[bytes] = set()
        self.defaults: set[bytes] = set()
        self.clock = 0.0

    def load(self, index: int, code: Any, name: str, shared: int) -> Any:
        if self.refuses(code) == "load":
            self.refused["load"] += 1
            raise Refused("CUDA_ERROR_INVALID_IMAGE")
        return SimpleNamespace(name=name, calls=0, code=code)

    def _run(self, kernel: Any, grid: Any, arguments: Any) -> None:
        if self.refuses(kernel.code) == "launch":
            self.refused["launch"] += 1
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        self.ran.add(kernel.code)
        self.clock += 1e-6 * (1 + zlib.crc32(kernel.code) % 97)

    def record_event(self, event: Any, stream: Any) -> None:
        event.time = self.clock


@pytest.fixture
def picky(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Picky]:
    def compile_here(function: Any, to: Any) -> Compiled:
        code = repr((function.source, function.constants, function.num_warps, function.num_stages)).encode()
        if picky.refuses(code) == "compile":
            raise ValueError("the compiler gives up")
        return Compiled(function.name, to.name, code, "", 1000, function.num_warps, 1, 0)

    def spilled(compiled: Compiled) -> Any:
        code = compiled.binary
        return SimpleNamespace(spilled=0 if code in picky.defaults or zlib.crc32(code) % 7 else 500)

    monkeypatch.setenv("GRAPHTORCH_CACHE", str(tmp_path))
    monkeypatch.setattr(compiler, "compile_here", compile_here)
    monkeypatch.setattr(processes, "cores", lambda: 1)
    monkeypatch.setattr(autotune, "resources", spilled)
    monkeypatch.setattr(backend, "_TUNERS", {})
    picky = Picky()
    use_driver(picky)
    try:
        yield picky
    finally:
        use_driver(None)


def transformer() -> tuple[nn.Module, Any]:
    layer = nn.TransformerEncoderLayer(64, 2, 256, 0.1, "gelu", batch_first=True)
    return nn.Sequential(nn.Linear(16, 64), layer, nn.Flatten(1), nn.Linear(64 * 64, 10)), torch.randn(256, 64, 16)


def images() -> tuple[nn.Module, Any]:
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, 2))
    return nn.Sequential(model, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)), torch.randn(64, 3, 32, 32)


def step_of(made: tuple[nn.Module, Any], mode: str) -> Callable[[], Any]:
    model, x = made
    model, x, y = model.to("cuda"), x.to("cuda"), torch.zeros(len(x), dtype=torch.int64).to("cuda")
    optimizer = torch.optim.AdamW(model.parameters())

    @torch.compile(mode=mode)
    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16):
            loss = nn.functional.cross_entropy(model(x).float(), y)
        loss.backward()
        optimizer.step()
        return loss

    return lambda: step(x, y)


@pytest.mark.parametrize("make", [transformer, images])
def test_refused_candidates_cost_themselves_only(make: Callable[[], Any], picky: Picky) -> None:
    step_of(make(), "default")()
    defaults = picky.defaults = set(picky.ran)
    kinds = ("", "compile", "load", "launch")
    picky.refuses = lambda code: "" if code in defaults else kinds[zlib.crc32(code) % 4]
    step = step_of(make(), "max-autotune")
    step()
    (tuner,) = backend._TUNERS.values()
    assert len(tuner.decisions) > 10 and len(picky.ran) > len(defaults) + 10
    dropped = [why for d in tuner.decisions for why in d.dropped.values()]
    for reason in ("the compiler gives up", "INVALID_IMAGE", "illegal memory access", "registers"):
        assert any(reason in why for why in dropped), reason
    before, measured = dict(picky.refused), picky.clock
    step()
    assert picky.refused == before and picky.clock == measured  # a replay: one launch of a graph
    # The next process finds the choices on disk.
    backend._TUNERS.clear()
    step_of(make(), "max-autotune")()
    (again,) = backend._TUNERS.values()
    assert {d.step for d in again.decisions} >= {d.step for d in tuner.decisions}
    assert not any(d.seconds or d.dropped for d in again.decisions)
    assert picky.refused == before
