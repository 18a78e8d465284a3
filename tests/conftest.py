"""Fixtures for all tests: golden files, which `pytest --update-goldens` writes anew.

Every graph that a test compiles is verified after each pass, and its text must read back as the same graph.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

from graphtorch.lowering.cpu import stored

os.environ.setdefault("GRAPHTORCH_VERIFY", "1")
# Native code is compiled for each program anew: tests of other matters need not wait for it, those of the cpu backend
# name it.
os.environ.setdefault("GRAPHTORCH_BACKEND", "numpy")

# Tests look at how programs are made, and change what they are made with: none comes ready from an earlier run.
stored.used = False

# The machine may be busy, and a run that failed must fail again: no deadline, the same examples every time.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True)
hypothesis.settings.load_profile("suite")

GOLDENS = Path(__file__).resolve().parent / "goldens"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-goldens", action="store_true", help="write golden files instead of comparing")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`golden("cli/dump.captured.gt", text)`: `text` must be what tests/goldens/ holds under that name."""

    def compare(name: str, text: str) -> None:
        path = GOLDENS / name
        if request.config.getoption("--update-goldens"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            return
        assert path.is_file(), f"there is no golden file {name}: run pytest --update-goldens and read what it wrote"
        expected = path.read_text(encoding="utf-8")
        if text != expected:
            old, new = expected.splitlines(), text.splitlines()
            difference = "\n".join(difflib.unified_diff(old, new, "expected", "actual", lineterm=""))
            pytest.fail(f"{name} differs (pytest --update-goldens accepts the change):\n{difference}", pytrace=False)

    return compare
