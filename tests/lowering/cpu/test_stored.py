"""Programs kept on disk: a warm compilation neither schedules nor emits, and gives the same results; whatever else a
program depends on is part of its key."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from programs import f32, i64, trace

import graphtorch as torch
from graphtorch.ir.digest import digest
from graphtorch.lowering.cpu import CpuExecutable, backend, compiler, stored
from graphtorch.lowering.cpu.pool import get_pool
from graphtorch.lowering.cpu.stored import LoadedExecutable
from graphtorch.lowering.numpy.interpreter import interpret


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    get_pool()  # its code has an entry too
    monkeypatch.setenv("GRAPHTORCH_CACHE", str(tmp_path))
    monkeypatch.setattr(stored, "used", True)
    return tmp_path


def documents(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.json"))


def compiled(graph: Any, donations: dict[int, int] | None = None) -> CpuExecutable:
    made = backend.CpuBackend().compile(graph, donations)
    assert isinstance(made, CpuExecutable)
    return made


def program(x: Any, w: Any, i: Any) -> Any:
    h = torch.tanh(x @ w)
    return h, torch.softmax(h, -1).sum(0), x[i], x.t(), h.mean()


def graph() -> Any:
    return trace(program, f32(20, 30), f32(30, 8), i64(5))


def given() -> list[Any]:
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(s).astype(np.float32) for s in ((20, 30), (30, 8)))
    return [x, w, rng.integers(0, 20, 5)]


def test_the_second_compilation_loads(folder: Path, monkeypatch: pytest.MonkeyPatch):
    first = compiled(graph())
    assert type(first) is CpuExecutable and len(documents(folder)) == 1
    monkeypatch.setattr(backend, "build_schedule", None)  # not to be called
    second = compiled(graph())
    assert type(second) is LoadedExecutable
    expected = interpret(graph(), given())
    for _ in range(2):
        for mine, wanted in zip(second.run(given()), expected, strict=True):
            np.testing.assert_allclose(mine, wanted, rtol=2e-5, atol=1e-6)
            assert mine.shape == wanted.shape and mine.dtype == wanted.dtype


def test_what_explains_it_is_made_when_asked_for():
    first, second = compiled(graph()), compiled(graph())
    assert type(second) is LoadedExecutable
    assert second.fallbacks == [] and second.llvm == first.llvm and second.asm() == first.asm()
    assert second.sources() == first.sources()
    assert [type(s) for s in second.schedule.steps] == [type(s) for s in first.schedule.steps]
    assert second.plan is not None and first.plan is not None
    assert second.plan.arena_bytes == first.plan.arena_bytes


def test_donated_inputs_are_overwritten():
    def update(p: Any, g: Any) -> Any:
        return p - 0.5 * g, (p * p).sum()

    made = trace(update, f32(64), f32(64))
    for kind in (CpuExecutable, LoadedExecutable):
        executable = compiled(made, {0: 0})
        assert type(executable) is kind
        p, g = np.ones(64, np.float32), np.ones(64, np.float32)
        new, total = executable.run([p, g])
        assert new is p and (p == 0.5).all() and total == 64


def test_inputs_are_checked_as_before():
    from graphtorch.lowering.backend import InputMismatchError

    x, w, i = given()
    for _ in range(2):
        executable = compiled(graph())
        with pytest.raises(InputMismatchError, match="f32\\[20, 30\\]"):
            executable.run([x[:10], w, i])
        with pytest.raises(IndexError, match="index 20 is out of bounds"):
            executable.run([x, w, np.array([0, 1, 2, 3, 20])])
        strided = np.asfortranarray(x)
        np.testing.assert_allclose(executable.run([strided, w, i])[0], np.tanh(x @ w), rtol=2e-5, atol=1e-6)


def test_random_numbers_go_on_from_the_same_state():
    drop = torch.nn.Dropout(0.5)
    x = torch.ones(1000)
    eager = []
    torch.manual_seed(5)
    for _ in range(3):
        eager.append(drop(x).numpy())
    for _ in range(2):
        step = torch.compile(lambda x: drop(x), backend="cpu")
        torch.manual_seed(5)
        for wanted in eager:
            np.testing.assert_array_equal(step(x).numpy(), wanted)
        loaded = type(step.specializations[0].compiled.executable)
    assert loaded is LoadedExecutable


def test_training_steps_agree(folder: Path):
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((32, 20)).astype(np.float32))
    t = torch.from_numpy(rng.integers(0, 5, 32))
    found = []
    for _ in range(2):
        torch.manual_seed(1)
        nn = torch.nn
        model = nn.Sequential(nn.Linear(20, 40), nn.GELU(), nn.LayerNorm(40), nn.Linear(40, 5))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)

        @torch.compile(backend="cpu")
        def step(x: Any, t: Any) -> Any:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x), t)
            loss.backward()
            optimizer.step()
            return loss

        found.append([float(step(x, t)) for _ in range(20)])
        executables = [s.compiled.executable for s in step.specializations]
    assert all(type(e) is LoadedExecutable for e in executables)
    assert found[0] == found[1] and found[0][-1] < found[0][0]
    assert "kernels" in str(step.explain())


@pytest.mark.parametrize("damage", [b"", b"short", b"\0" * 500, "flip"])
def test_damaged_documents_are_made_again(folder: Path, damage: Any):
    compiled(graph())
    (path,) = documents(folder)
    whole = path.read_bytes()
    path.write_bytes(whole[:60] + bytes([whole[60] ^ 1]) + whole[61:] if damage == "flip" else damage)
    assert type(compiled(graph())) is CpuExecutable
    assert path.read_bytes() == whole
    assert type(compiled(graph())) is LoadedExecutable


def test_missing_object_code_is_made_again(folder: Path):
    compiled(graph())
    for path in folder.rglob("*.o"):
        path.unlink()
    made = compiled(graph())
    assert type(made) is CpuExecutable and made.library.seconds > 0
    assert type(compiled(graph())) is LoadedExecutable


def test_the_key_has_everything_that_decides(monkeypatch: pytest.MonkeyPatch):
    place = stored.place(graph(), {})
    assert place == stored.place(graph(), {})
    others = [
        stored.place(trace(program, f32(21, 30), f32(30, 8), i64(5)), {}),
        stored.place(trace(lambda x: x * 2, f32(3)), {}),
        stored.place(trace(lambda x: x * 2.0, f32(3)), {}),
        stored.place(trace(lambda x: x * -0.0, f32(3)), {}),
        stored.place(trace(lambda x: x * 0.0, f32(3)), {}),
        stored.place(trace(lambda x: x * 2, f32(3)), {0: 0}),
        stored.place(trace(lambda x: x.sum(0, keepdim=True), f32(3)), {}),
        stored.place(trace(lambda x: x.sum(), f32(3)), {}),
    ]
    monkeypatch.setattr(stored.cache, "state_of_sources", lambda folders: "other sources")
    others.append(stored.place(graph(), {}))
    monkeypatch.undo()
    monkeypatch.setenv("GRAPHTORCH_CACHE", str(place.parents[2]) if place else "")
    monkeypatch.setattr(stored, "used", True)
    monkeypatch.setattr(compiler, "OPTIMIZATION", 3)
    others.append(stored.place(graph(), {}))
    assert None not in others and len({place, *others}) == len(others) + 1


def test_names_and_lines_do_not_count():
    def same(a: Any, b: Any, c: Any) -> Any:
        u = torch.tanh(a @ b)
        return u, torch.softmax(u, -1).sum(0), a[c], a.t(), u.mean()

    assert digest(graph()) == digest(trace(same, f32(20, 30), f32(30, 8), i64(5))) is not None


def test_what_is_not_kept(folder: Path):
    """What runs in part on NumPy, and what another process can't recognise."""
    compiled(trace(lambda x: torch.linalg.inv(x) @ x, f32(4, 4)))
    step = torch.compile(lambda x: x.exp().sum(0), backend="cpu", dynamic=True)
    step(torch.ones(5, 3))
    other = torch.Generator().manual_seed(3)
    torch.compile(lambda x: torch.rand(5, generator=other) + x, backend="cpu")(torch.ones(5))
    assert documents(folder) == []
    os.environ["GRAPHTORCH_CACHE"] = ""
    assert stored.place(graph(), {}) is None


def test_documents_are_data(folder: Path):
    """JSON without a name of anything that runs but exported functions and known exception classes."""
    compiled(graph())
    document = json.loads(documents(folder)[0].read_bytes()[32:])
    assert {name for name, _ in document["failures"]} <= set(stored.ERRORS)
    assert document["steps"] > 0 and all(len(key) == 40 for key in document["objects"])


def test_another_process_loads(folder: Path):
    script = textwrap.dedent("""
        import graphtorch as torch
        step = torch.compile(lambda x: (x.exp() + x.sum()).tanh(), backend="cpu")
        x = torch.ones(100) * 0.01
        assert torch.allclose(step(x), (x.exp() + x.sum()).tanh())
        print(type(step.specializations[0].compiled.executable).__name__)
    """)
    environment = {**os.environ, "PYTHONPATH": str(Path(compiler.__file__).parents[3])}
    said = [
        subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert [s.stdout.strip() for s in said] == ["CpuExecutable", "LoadedExecutable"]
