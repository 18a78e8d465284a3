"""The cache of compiled code: what is in it is used, and nothing that can happen to it is an error."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from programs import f32, trace

import graphtorch as torch
from graphtorch.lowering import cache
from graphtorch.lowering.cpu import CpuExecutable, backend, compiler
from graphtorch.lowering.cpu.pool import get_pool
from graphtorch.schedule import build_schedule


@pytest.fixture
def folder(tmp_path, monkeypatch):
    get_pool()  # its code has an entry too
    monkeypatch.setenv("GRAPHTORCH_CACHE", str(tmp_path))
    monkeypatch.setattr(cache, "_warned", False)
    return tmp_path


def compiled(factor: float = 3.0) -> CpuExecutable:
    """A small program, run once for its value."""
    executable = CpuExecutable(build_schedule(trace(lambda x: x.exp() * factor, f32(40))))
    x = np.linspace(-1, 1, 40).astype(np.float32)
    np.testing.assert_allclose(executable.run([x])[0], np.exp(x) * factor, rtol=1e-6)
    return executable


def entries(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


def test_second_compilation_takes_no_time(folder):
    assert compiled().library.seconds > 0
    assert len(entries(folder)) == 1
    assert compiled().library.seconds == 0
    assert compiled(4.0).library.seconds > 0
    assert len(entries(folder)) == 2


@pytest.mark.parametrize("damage", [b"", b"short", b"\0" * 5000])
def test_damaged_entries_are_compiled_again(folder, damage):
    compiled()
    (path,) = entries(folder)
    path.write_bytes(damage)
    assert compiled().library.seconds > 0
    assert compiled().library.seconds == 0


def test_truncated_and_flipped_entries_are_compiled_again(folder):
    compiled()
    (path,) = entries(folder)
    whole = path.read_bytes()
    for content in (whole[:-7], whole[:100] + bytes([whole[100] ^ 1]) + whole[101:]):
        path.write_bytes(content)
        assert compiled().library.seconds > 0


def test_unwritable_folder_is_one_warning(folder, caplog):
    (folder / "cpu").write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        assert compiled().library.seconds > 0
        assert compiled(5.0).library.seconds > 0
    assert sum("cache" in r.message for r in caplog.records) == 1


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(folder):
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        compiled()
    finally:
        folder.chmod(stat.S_IRWXU)


def test_full_disk(folder, monkeypatch, caplog):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.os, "replace", full)
    with caplog.at_level(logging.WARNING):
        compiled()
    assert entries(folder) == []
    assert sum("cache" in r.message for r in caplog.records) == 1


def test_no_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("GRAPHTORCH_CACHE", "")
    assert compiled().library.seconds > 0
    assert compiled().library.seconds > 0


def test_processes_compile_the_same_step_at_once(folder):
    script = textwrap.dedent("""
        import graphtorch as torch
        step = torch.compile(lambda x: (x.exp() + x.sum()).tanh(), backend="cpu")
        x = torch.ones(100)
        assert torch.allclose(step(x), (x.exp() + x.sum()).tanh())
    """)
    root = Path(compiler.__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    running = [subprocess.Popen([sys.executable, "-c", script], env=environment) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert not [p for p in entries(folder) if p.suffix == ".tmp"]


def test_killed_process_leaves_a_cache_that_works(folder):
    script = textwrap.dedent("""
        import os, signal
        from graphtorch.lowering import cache
        cache.os.replace = lambda *a: os.kill(os.getpid(), signal.SIGKILL)
        import graphtorch as torch
        torch.compile(lambda x: x.exp() * 2, backend="cpu")(torch.ones(100))
    """)
    root = Path(compiler.__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(root)})
    assert done.returncode != 0
    assert compiled().library.seconds > 0
    assert compiled().library.seconds == 0


def test_missing_llvmlite_runs_on_numpy(monkeypatch, caplog):
    def absent():
        raise ImportError("No module named 'llvmlite'")

    monkeypatch.setattr(backend, "host", absent)
    backend._say_once.cache_clear()
    graph = trace(lambda x: x.exp(), f32(5))
    x = np.zeros(5, np.float32)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            made = backend.CpuBackend().compile(graph)
            np.testing.assert_array_equal(made.run([x])[0], 1)
    assert "llvmlite" in made.fallbacks[0]
    assert sum("llvmlite" in r.message for r in caplog.records) == 1


def test_program_that_does_not_compile_runs_on_numpy(monkeypatch, caplog):
    from graphtorch.lowering.cpu import executable

    def refuse(*args, **kwargs):
        raise RuntimeError("LLVM IR parsing error")

    monkeypatch.setattr(executable, "Library", refuse)
    backend._say_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        made = backend.CpuBackend().compile(trace(lambda x: x.exp(), f32(5)))
    np.testing.assert_array_equal(made.run([np.zeros(5, np.float32)])[0], 1)
    assert "parsing error" in made.fallbacks[0]
    assert any("parsing error" in r.message for r in caplog.records)


def test_large_modules_are_compiled_in_parts(tmp_path, monkeypatch):
    """Several modules, in threads: the functions find each other, the entries are kept and serve again."""
    monkeypatch.setenv("GRAPHTORCH_CACHE", str(tmp_path))
    monkeypatch.setattr(compiler, "PART_CHARACTERS", 2_000)
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((40, 30)).astype(np.float32))

    def f(x):
        y = torch.softmax(x, -1)
        return y.sum(0), torch.sin(y @ y.t()).mean(1), torch.exp(x.t() * 0.1).max(1).values

    for _ in range(2):
        found = torch.compile(f, backend="cpu")(x)
        for mine, expected in zip(found, f(x), strict=True):
            np.testing.assert_allclose(mine.numpy(), expected.numpy(), rtol=1e-5, atol=1e-6)
    assert len(list(tmp_path.rglob("*.o"))) >= 3


def test_errors_of_parts_are_raised(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHTORCH_CACHE", str(tmp_path))
    with pytest.raises(RuntimeError):
        compiler.Library(["define void @a() {\n  ret void\n}\n", "define void @b() {\n  ret i32 %x\n}\n"], ["a"])
