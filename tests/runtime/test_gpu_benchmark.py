"""benchmarks/gpu.py runs, so that it will on the day when there is a GPU."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, env=environment, timeout=600
    )


def test_the_benchmark_runs_at_toy_sizes(tmp_path: Path) -> None:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton's interpreter runs the kernels")
    done = run("--simulate", "--only", "pointwise,layer_norm,adamw,mlp", "--with", "graphtorch", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
    entries = json.loads((tmp_path / "gpu-simulated.json").read_text())
    times = [e for e in entries if e["kind"] == "time"]
    assert {(e["name"], e["variant"]) for e in times} == {
        (n, v) for n in ("pointwise", "layer_norm", "adamw", "mlp") for v in ("eager", "default", "max-autotune")
    }
    assert not [e for e in entries if "failed" in e], done.stdout
    errors = {(e["name"], e["variant"]): e["value"] for e in entries if e["kind"] == "error"}
    assert errors["pointwise", "default"] < 1e-6 and errors["layer_norm", "eager"] < 1e-2
    text = (tmp_path / "gpu-simulated.md").read_text()
    assert "The figures mean nothing" in text and "| mlp(8, 12, 16, 4) |" in text


def test_pytorchs_side_of_the_benchmark_runs(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    done = run("--simulate", "--only", "pointwise,mlp", "--with", "torch", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
    entries = json.loads((tmp_path / "gpu-simulated.json").read_text())
    assert sum(e["kind"] == "time" for e in entries) == 6 and not [e for e in entries if "failed" in e], done.stdout


def test_both_libraries_are_compared_with_float64(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton's interpreter runs the kernels")
    done = run("--simulate", "--only", "layer_norm", "--out", str(tmp_path))
    entries = json.loads((tmp_path / "gpu-simulated.json").read_text())
    assert not [e for e in entries if "failed" in e], done.stdout
    compared = [e for e in entries if e["kind"] == "agreement"]
    assert [e["variant"] for e in compared] == ["default", "max-autotune"]
    assert all(0 < e["value"] < 1e-2 and 0 < e["peer"] < 1e-2 for e in compared)
    assert "- layer_norm(4, 32, bf16, True) default: " in (tmp_path / "gpu-simulated.md").read_text()


def test_autotuning_that_lost_its_process_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    gpu = importlib.import_module("gpu")
    answers = iter(
        [
            {"failed": "LostDeviceError: a kernel did not end; what was measured is left out from now on"},
            {"failed": "the process ended with -11; see the log"},
            {"milliseconds": 1.0, "bytes": 0.0, "flops": 0.0},
            {"failed": "the process ended with -11; see the log"},
        ]
    )
    monkeypatch.setattr(gpu.Worker, "ask", lambda self, task, seconds: next(answers))
    results = gpu.Results(tmp_path, "simulated", "command", fresh=True, retry=False)
    tasks = [gpu.Task("time", lib, "max-autotune", "softmax", (2,)) for lib in ("graphtorch", "torch")]
    assert gpu.collect(tasks, results, "simulated", 1.0)
    assert results.entries[0]["milliseconds"] == 1.0 and "failed" in results.entries[1]


def test_a_run_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton's interpreter runs the kernels")
    given = ("--simulate", "--with", "graphtorch", "--out", str(tmp_path))
    assert run(*given, "--only", "softmax", "--minutes", "0.01").stdout.count("tasks are left") == 1
    run(*given, "--only", "softmax")
    file = tmp_path / "gpu-simulated.json"
    first = json.loads(file.read_text())
    first[-1]["milliseconds"] = 123456.0
    file.write_text(json.dumps(first))
    done = run(*given, "--only", "softmax,pointwise")
    entries = json.loads(file.read_text())
    assert entries[: len(first)] == first and len(entries) > len(first)
    assert "123456" in done.stdout or "1.235e+05" in done.stdout
    assert "tasks are left" not in done.stdout


def test_what_hangs_or_dies_costs_its_process_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    gpu = importlib.import_module("gpu")
    results = gpu.Results(tmp_path, "simulated", "command", fresh=True, retry=False)
    worker = gpu.Worker("graphtorch", "simulated", results.log("graphtorch"))
    try:
        about = gpu.Task("about", "graphtorch")
        assert "took longer" in worker.ask(about, 0.01)["failed"]
        assert worker.process is None
        assert worker.ask(about, 60)["device"] == "graphtorch simulated device"
        process = worker.process
        found = worker.ask(gpu.Task("time", "graphtorch", "eager", "matmul", (2, 2, "no", "fp32")), 60)
        assert found["failed"].startswith("TypeError")
        assert process.poll() is not None
        assert "Traceback" in results.log("graphtorch").read_text()
        worker.start()
        worker.process.kill()
        assert "the process ended" in worker.ask(about, 60)["failed"]
        results.add(about, {"failed": "no"})
        assert results.has(about) and "- graphtorch: no" in (tmp_path / "gpu-simulated.md").read_text()
    finally:
        worker.end()


def test_without_a_gpu_it_says_so() -> None:
    from graphtorch.runtime.cuda import driver

    if driver.unavailable() is None:
        pytest.skip("there is a GPU")
    done = run()
    assert done.returncode == 2 and "there is no GPU" in done.stderr and "--simulate" in done.stderr
    assert "no workload is called nothing" in run("--only", "nothing").stderr
