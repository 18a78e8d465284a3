"""Launch plans kept on disk: a warm compilation neither schedules nor generates, and gives the same results; whatever
else a plan depends on is part of its key."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch.lowering.triton import backend, stored, strided
from graphtorch.lowering.triton.execution import DeviceExecutable
from graphtorch.lowering.triton.stored import StoredExecutable
from graphtorch.runtime.cuda import devices
from graphtorch.runtime.cuda.driver import Properties, use_driver
from graphtorch.runtime.cuda.simulated import SimulatedDriver


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRAPHTORCH_CACHE", str(tmp_path))
    return tmp_path


def documents(folder: Path) -> list[Path]:
    return sorted((folder / "triton").rglob("*.json"))


# -- results ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def kept(cuda: SimulatedDriver, monkeypatch: pytest.MonkeyPatch) -> list[type]:
    """Plans of kernels that are interpreted are kept too; the classes of what was compiled."""
    place, compile_ = stored.place, backend.TritonBackend.compile
    classes: list[type] = []

    def anyhow(graph: Any, donations: Any, device: Any) -> Path | None:
        monkeypatch.setattr(cuda, "interprets", False)
        try:
            return place(graph, donations, device)
        finally:
            monkeypatch.setattr(cuda, "interprets", True)

    def noted(self: Any, graph: Any, donations: Any = None) -> Any:
        made = compile_(self, graph, donations)
        classes.append(type(made))
        return made

    monkeypatch.setattr(stored, "place", anyhow)
    monkeypatch.setattr(backend.TritonBackend, "compile", noted)
    return classes


def twice(make: Any, kept: list[type]) -> tuple[list[Any], list[Any]]:
    """What a program gives where its plans are made, and where they are found."""
    first = make()
    made = [*kept]
    assert made
    assert set(made) == {DeviceExecutable}
    kept.clear()
    second = make()
    assert kept == [StoredExecutable] * len(made)
    return first, second


def assert_same(first: list[Any], second: list[Any]) -> None:
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.stride() == b.stride()
        assert a.device == b.device
        np.testing.assert_array_equal(a.detach().cpu().numpy(), b.detach().cpu().numpy())


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
@pytest.mark.parametrize("optimizer", ["AdamW", "SGD"])
def test_a_training_step_goes_the_same_way(kept: list[type], mode: str, optimizer: str) -> None:
    """Parameters that are overwritten, tables of the optimizer's tensors, dropout's random stream, a number that
    changes."""

    def run() -> list[Any]:
        torch.manual_seed(0)
        layers = [nn.Linear(6, 16), nn.GELU(), nn.Dropout(0.5), nn.LayerNorm(16), nn.Linear(16, 16), nn.Linear(16, 3)]
        model = nn.Sequential(*layers).to("cuda")
        made = getattr(torch.optim, optimizer)(model.parameters(), lr=0.05)

        @torch.compile(mode=mode)
        def step(x: Any, y: Any) -> Any:
            made.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            made.step()
            return loss

        losses = []
        for i in range(4):
            made.param_groups[0]["lr"] = 0.05 / (i + 1)
            losses.append(step(torch.randn(5, 6, device="cuda"), torch.randint(0, 3, (5,), device="cuda")).clone())
        return [*losses, *model.parameters(), *(p.grad for p in model.parameters()), torch.rand(4, device="cuda")]

    assert_same(*twice(run, kept))


def test_views_sorts_products_and_attention(kept: list[type]) -> None:
    """Results that are views of inputs or of each other, on the host too; scratch memory; sums in two passes."""

    def run() -> list[Any]:
        torch.manual_seed(1)
        x, q = torch.randn(40, 33, device="cuda"), torch.randn(1, 2, 20, 16, device="cuda")

        @torch.compile
        def program(x: Any, q: Any) -> Any:
            h = x @ x.t()
            attended = nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True)
            return h, h[3:, ::2], x.t(), x.sort(0).values, x.sum(), x.cumsum(1), attended, (x * 2).cpu()

        return [*program(x, q)]

    assert_same(*twice(run, kept))


def test_inputs_are_checked_as_before(kept: list[type]) -> None:
    def run() -> list[Any]:
        program = torch.compile(lambda x: x.exp().sum(), dynamic=False)
        found = [program(torch.ones(n, device="cuda")) for n in (3, 4, 3)]
        strided = torch.arange(20.0, device="cuda").reshape(5, 4)[:, 1]
        return [*found, program(strided)]

    assert_same(*twice(run, kept))


# -- what is kept, and how it is found --------------------------------------------------------------------------------


class Compiling(SimulatedDriver):
    """A device that compiles kernels for sm_90 and runs none."""

    interprets = False
    processors = 132

    def __init__(self) -> None:
        super().__init__(1, executes=False)

    def properties(self, index: int) -> Properties:
        return Properties(
            "a device",
            9,
            0,
            total_memory=self.memory,
            multi_processor_count=self.processors,
            shared_memory_per_block_optin=227 << 10,
        )


@pytest.fixture
def compiling() -> Iterator[devices.Device]:
    pytest.importorskip("triton")
    use_driver(Compiling())
    try:
        yield devices.device(0)
    finally:
        use_driver(None)


def graph_of(program: Any, *inputs: Any) -> Any:
    """The optimized graph of a compiled program on the device."""
    compiled = torch.compile(program, backend="triton")
    compiled(*inputs)
    return compiled.specializations[-1].compiled.stages.optimized


def chain(x: Any) -> Any:
    return (x * 2).tanh() + 1  # the user's line


def test_the_second_compilation_loads(
    compiling: devices.Device, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.ones(64, 32, device="cuda")
    graph = graph_of(chain, x)
    (document,) = documents(folder)
    text = document.read_bytes()[32:].decode()
    assert "the user's line" not in text
    assert json.loads(text)["launches"]
    with monkeypatch.context() as patch:
        patch.setattr(backend, "build_schedule", lambda *_: pytest.fail("scheduled again"))
        made = backend.TritonBackend().compile(graph)
    assert isinstance(made, StoredExecutable)
    (result,) = made.run([x._data])
    assert result.shape == (64, 32)
    # What explains it is made when somebody asks.
    (source,) = made.sources().values()
    assert "the user's line" in source
    assert made.schedule.steps
    assert made.plan is not None
    assert made.plan.output_bytes == 64 * 32 * 4


def test_a_warm_process_imports_no_compiler(compiling: devices.Device, folder: Path) -> None:
    script = """
import sys
import graphtorch as torch
from test_stored_plans import Compiling, chain
from graphtorch.runtime.cuda.driver import use_driver
use_driver(Compiling())
step = torch.compile(chain, backend="triton")
step(torch.ones(64, 32, device="cuda"))
print(type(step.specializations[-1].compiled.executable).__name__, "triton" in sys.modules)
"""
    root = Path(torch.__file__).parents[1]
    path = f"{root}:{Path(__file__).parent}"
    said = [
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONPATH": path},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split()
        for _ in range(2)
    ]
    assert said == [["DeviceExecutable", "True"], ["StoredExecutable", "False"]]


def test_the_key_has_everything_that_decides(
    compiling: devices.Device, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    x = torch.ones(6, 4, device="cuda")
    graph, other = graph_of(chain, x), graph_of(lambda x: (x * 3).tanh() + 1, x)
    place = stored.place(graph, {}, compiling)
    assert place is not None
    assert place == stored.place(graph_of(lambda x: (x * 2).tanh() + 1, x), {}, compiling)  # names, lines
    others = [stored.place(other, {}, compiling), stored.place(graph, {0: 0}, compiling)]
    with monkeypatch.context() as patch:
        patch.setattr(stored, "version", lambda: "0.0")
        others.append(stored.place(graph, {}, compiling))
    with monkeypatch.context() as patch:
        patch.setattr(stored.cache, "state_of_sources", lambda folders: "changed")
        others.append(stored.place(graph, {}, compiling))
    was = torch.backends.cuda.matmul.allow_tf32
    try:
        torch.backends.cuda.matmul.allow_tf32 = not was
        others.append(stored.place(graph, {}, compiling))
    finally:
        torch.backends.cuda.matmul.allow_tf32 = was
    with monkeypatch.context() as patch:
        patch.setattr(compiling, "_properties", replace(compiling.properties, multi_processor_count=78))
        others.append(stored.place(graph, {}, compiling))
    with monkeypatch.context() as patch:
        patch.setattr(compiling, "_properties", replace(compiling.properties, major=10))
        others.append(stored.place(graph, {}, compiling))
    assert len({place, *others}) == len(others) + 1
    monkeypatch.setenv("GRAPHTORCH_CACHE", "")
    assert stored.place(graph, {}, compiling) is None


def test_what_is_not_kept(
    cuda: SimulatedDriver, kept: list[type], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strided, "_told", set())  # whom other tests have warned
    own = torch.Generator("cuda")
    x = torch.randn(5, 5, device="cuda")
    torch.compile(lambda x: x + torch.rand(5, 5, generator=own, device="cuda"))(x)  # a generator of the user's
    with pytest.warns(UserWarning):
        torch.compile(lambda x: torch.linalg.svdvals(x))(x)  # runs on the host
    torch.compile(lambda x: x * 2, dynamic=True)(x)  # symbolic sizes
    assert kept
    assert not documents(folder)


@pytest.mark.parametrize("damage", [lambda b: b[:-10], lambda b: b[:40] + b"x" + b[41:], lambda b: b""])
def test_damaged_documents_are_made_again(kept: list[type], folder: Path, damage: Any) -> None:
    x = torch.ones(8, device="cuda")
    expected = torch.compile(chain)(x)
    (document,) = documents(folder)
    document.write_bytes(damage(document.read_bytes()))
    assert_same([expected], [torch.compile(chain)(x)])
    assert kept == [DeviceExecutable] * 2
    assert_same([expected], [torch.compile(chain)(x)])
    assert kept[-1] is StoredExecutable


def test_documents_are_found_by_other_devices_of_the_kind(kept: list[type], folder: Path) -> None:
    """The graph says which device it computes on: each has a document."""
    for index in (0, 1):
        x = torch.ones(8, device=f"cuda:{index}")
        for _ in range(2):
            found = torch.compile(chain)(x)
            assert found.device == x.device
            np.testing.assert_array_equal(found.cpu().numpy(), chain(x).cpu().numpy())
    assert kept == [DeviceExecutable, StoredExecutable] * 2
    assert len(documents(folder)) == 2
