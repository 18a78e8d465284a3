"""PyTorch's own sample inputs of operators, modules and optimizers, a few of each: `tools/compare_with_samples.py`.

In a process of its own: PyTorch's test tools, once imported, change settings of PyTorch for good."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("expecttest")
TOOL = Path(__file__).resolve().parents[2] / "tools" / "compare_with_samples.py"


@pytest.mark.parametrize(
    ("table", "modes"),
    [("operators", "eager,error"), ("operators", "cpu"), ("modules", "eager,error"), ("optimizers", "eager,error,cpu")],
)
def test_samples_show_no_other_difference_than_known(table, modes):
    options = ["--modes", modes, "--dtypes", "float32,int64", "--most", "2" if modes != "cpu" else "1"]
    run = subprocess.run([sys.executable, str(TOOL), table, *options], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    assert f"| {table} |" in run.stdout
