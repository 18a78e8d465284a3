"""The first steps of the programs of tools/compare_training.py: PyTorch's losses to four significant digits.

The tool itself runs 200 steps; docs/training.md has its figures."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

TOOL = Path(__file__).resolve().parent.parent.parent / "tools" / "compare_training.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("compare_training", TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.parametrize("optimizer", [0, 1])
@pytest.mark.parametrize(
    ("name", "dtype", "steps"),
    # ResNet-18 at larger rates is chaotic in float32: PyTorch's own losses differ if a weight is one rounding step off.
    [
        ("lenet", "float32", 10),
        ("lenet_relu", "float32", 20),
        ("resnet18", "float32", 2),
        ("resnet18_fast", "float64", 3),
        ("lstm", "float32", 20),
        ("gpt", "float32", 20),
    ],
)
def test_losses_are_pytorchs(tool, name, dtype, steps, optimizer):
    task = tool.TASKS[name]
    with tool.one_thread(torch):
        expected = tool.losses(torch, task, task.optimizers[optimizer], steps, dtype)
    compiled = tool.in_mode(task, task.optimizers[optimizer], steps, dtype, "compiled", "cpu")
    np.testing.assert_allclose(compiled, expected, rtol=tool.RTOL)
    eager = tool.in_mode(task, task.optimizers[optimizer], 2, dtype, "eager", "cpu")
    np.testing.assert_allclose(eager, expected[:2], rtol=1e-5)


def test_the_comparison_finds_differences(tool, monkeypatch, capsys):
    """A run with another learning rate counts as a failure."""
    real = tool.losses

    def wrong(library, task, optimizer, steps, dtype, compile=None, nudge=None):
        name, options = optimizer
        if library is not torch:
            options = {**options, "lr": options["lr"] * 1.5}
        return real(library, task, (name, options), steps, dtype, compile, nudge)

    monkeypatch.setattr(tool, "losses", wrong)
    with pytest.raises(SystemExit, match="losses differ by more than"):
        tool.main(["--steps", "6", "--only", "lstm", "--dtypes", "float64", "--backends", "numpy"])
    assert "| lstm | RMSprop | float64 | compiled, numpy |" in capsys.readouterr().out
    assert tool.difference(np.array([1.0, np.nan]), np.array([1.0, 1.0])) == (np.inf, 1)
