"""tools/check_gpu.py goes on behind tests that hang, die, or break the device for their process."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

TESTS = """
import os, time, pytest
def test_right(): print("layer norm: 91 % of 4.10 TB/s")
def test_wrong(): assert 1 == 2
def test_dies(): os._exit(3)
def test_hangs(doing):
    doing("the seventh candidate")
    time.sleep(600)
def test_finds_no_device(): pytest.skip("there is no CUDA device")
def test_breaks_the_device(): pytest.exit("the device is lost to this process", returncode=86)
@pytest.mark.parametrize("i", range(5))
def test_behind_them(i): pass
"""
HOOKS = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("hooks", {str(Path(__file__).with_name("conftest.py"))!r})
hooks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(hooks)
pytest_runtest_logstart, pytest_runtest_logreport = hooks.pytest_runtest_logstart, hooks.pytest_runtest_logreport
doing = hooks.doing
"""


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module("check_gpu")


def test_what_hangs_or_dies_costs_itself_only(tool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "STUCK", 15.0)
    (tmp_path / "conftest.py").write_text(HOOKS)
    file = tmp_path / "test_things.py"
    file.write_text(TESTS)
    behind = [f"behind_them[{i}]" for i in range(5)]
    names = ["right", "wrong", "dies", "hangs", "finds_no_device", "breaks_the_device", *behind]
    # The names by which pytest knows tests begin at its root folder, which is this one for files outside of ours.
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    tests = [f"test_things.py::test_{name}" for name in names]
    checks = tool.Checks(tmp_path / "out", True, False, False)
    tool.run_tests(checks, tests, 1, time.monotonic() + 120, True)
    outcomes = {t.split("test_", 2)[2]: checks.found[t]["outcome"] for t in tests}
    assert outcomes == {
        "right": "passed", "wrong": "failed", "dies": "lost", "hangs": "lost", "finds_no_device": "lost",
        "breaks_the_device": "lost", **dict.fromkeys(behind, "passed"),
    }  # fmt: skip
    assert checks.found["test_things.py::test_hangs"]["text"].endswith("took longer than 15 s: the seventh candidate")
    assert "ended with 3" in checks.found["test_things.py::test_dies"]["text"]
    assert (
        "- layer norm: 91 % of 4.10 TB/s" in checks.report() and "test_wrong: failed: assert 1 == 2" in checks.report()
    )
    assert "test_things.py::test_wrong: failed: assert 1 == 2" in checks.text.read_text()
    # What has a result is not run again.
    again = tool.Checks(tmp_path / "out", True, False, False)
    assert again.found == checks.found
    begin = time.monotonic()
    tool.run_tests(again, tests, 1, begin + 60, True)
    assert time.monotonic() - begin < 1
    assert set(tool.Checks(tmp_path / "out", True, False, True).found) == {
        t for t in tests if outcomes[t.split("test_", 2)[2]] == "passed"
    }


def test_neighbours_go_to_different_processes(tool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The forms of one test take long together; where there are more shares than processes, the order stays."""
    given: list[list[str]] = []

    class Done:
        def __init__(self, tests: list[str], simulated: bool) -> None:
            given.append(tests)
            self.process = subprocess.Popen(["true"])
            self.process.wait()
            self.left, self.running, self.count, self.moved = deque[str](), None, len(tests), 0.0

        def news(self) -> list[dict[str, Any]]:
            return []

    monkeypatch.setattr(tool, "Pytest", Done)
    checks = tool.Checks(tmp_path, True, False, False)
    tests = [f"test_form[{i}]" for i in range(7)]
    tool.run_tests(checks, tests, 3, time.monotonic() + 60, True)
    assert given == [[tests[i] for i in several] for several in ([0, 3, 6], [1, 4, 2], [5])]
    given.clear()
    monkeypatch.setattr(tool, "SHARE", 2)
    tool.run_tests(checks, tests, 3, time.monotonic() + 60, True)
    assert given == [tests[0:2], tests[2:4], tests[4:6], tests[6:]]


def test_a_first_launch_that_hangs_ends_the_checks(tool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "STUCK", 3.0)
    program = "import time; time.sleep(1.5); print('launches: right'); time.sleep(1.5); print('on'); time.sleep(600)"
    monkeypatch.setattr(tool, "SMOKE", program)
    checks = tool.Checks(tmp_path, True, False, False)
    begin = time.monotonic()
    assert tool.smoke(checks, True) and time.monotonic() - begin < 30
    assert checks.found["smoke"]["outcome"] == "failed"
    assert checks.found["smoke"]["text"] == "launches: right\non\nhung"


def test_what_is_printed_stays_short(tool: Any, tmp_path: Path) -> None:
    checks = tool.Checks(tmp_path, True, False, False)
    for i in range(200):
        checks.found[f"{tool.OPERATORS}::test_operator[{i}]"] = {
            "outcome": "failed",
            "text": f"{i % 40} is no " + 600 * "x",
        }
    checks.found[f"{tool.OPERATORS}::test_operator[bad]"] = {"outcome": "lost", "text": "its process ended with 86"}
    printed = checks.report()
    assert len(printed) < 5000 and "and 4 more: failed: 0 is no" in printed and "- and 141 others" in printed
    assert checks.text.read_text().count("is no") == 200


def test_the_whole_of_it_on_a_simulated_device(tmp_path: Path) -> None:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton's interpreter runs the kernels")
    command = [sys.executable, str(ROOT / "tools" / "check_gpu.py"), "--simulate", "--out", str(tmp_path)]
    done = subprocess.run(
        [*command, "--only", "test_products_with_what_follows_them"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "CUDA graphs: right" in done.stdout and "Questions: 1 passed" in done.stdout
    found = json.loads((tmp_path / "gpu-checks-simulated.json").read_text())
    assert [v["outcome"] for v in found.values()] == ["passed", "passed"]
    # Another folder takes over what was found.
    command[-1:] = [str(tmp_path / "next"), "--resume", str(tmp_path)]
    done = subprocess.run([*command, "--minutes", "0.02"], capture_output=True, text=True, timeout=300)
    assert set(found) <= set(json.loads((tmp_path / "next" / "gpu-checks-simulated.json").read_text()))
    assert "tests are left: the same command goes on with them" in done.stdout


def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    from graphtorch.runtime.cuda import driver

    if driver.unavailable() is None:
        pytest.skip("there is a GPU")
    command = [sys.executable, str(ROOT / "tools" / "check_gpu.py"), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "no CUDA device" in done.stdout and "first launches went wrong" in done.stderr
