"""What a user gets with the package: type information, examples and their data, the command, and a light import."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import graphtorch

ROOT = Path(__file__).resolve().parent.parent
# Each takes a good part of a second to load or is needed on one device or by one command only.
HEAVY = ("networkx", "scipy", "matplotlib", "rich", "llvmlite", "triton", "cuda", "torch", "pytest", "hypothesis")


def test_type_information_is_shipped() -> None:
    assert (Path(graphtorch.__file__).parent / "py.typed").is_file()


def test_import_loads_nothing_heavy(record_property: Callable[[str, object], None]) -> None:
    code = f"""
import sys, time
import numpy
start = time.perf_counter()
import graphtorch
seconds = time.perf_counter() - start
print(seconds, *(name for name in {HEAVY!r} if name in sys.modules))
"""
    output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    seconds, *loaded = output.split()
    record_property("import_seconds_beyond_numpy", float(seconds))  # for the report; machines differ too much to judge
    assert not loaded


def test_every_module_imports_without_optional_dependencies() -> None:
    """No module needs at import time what only an extra installs."""
    code = """
import importlib, pkgutil, sys
names = "triton llvmlite cuda matplotlib rich PIL tiktoken torch pytest hypothesis tensorboardX"
for name in names.split():
    sys.modules[name] = None  # makes `import name` raise ImportError
import graphtorch
for module in pkgutil.walk_packages(graphtorch.__path__, "graphtorch."):
    if not module.name.startswith("graphtorch.examples") and not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_version_is_that_of_the_project_file() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert graphtorch.__version__ == project["version"]


def test_command_is_installed() -> None:
    try:
        entry_points = importlib.metadata.distribution("graphtorch").entry_points
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("graphtorch is on the path but not installed")
    (command,) = (entry for entry in entry_points if entry.group == "console_scripts")
    assert command.name == "graphtorch"
    assert callable(command.load())


def test_wheel_contains_the_examples_and_their_data(tmp_path: Path) -> None:
    builder = pytest.importorskip("hatchling.builders.wheel")
    (wheel,) = builder.WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "graphtorch/__init__.py",
        "graphtorch/py.typed",
        "graphtorch/examples/train_digits.py",
        "graphtorch/examples/data/digits.csv.gz",
        "graphtorch/examples/data/README.md",
    } <= names
    assert not [name for name in names if name.startswith(("tests/", "examples/"))]
