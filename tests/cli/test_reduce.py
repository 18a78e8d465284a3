"""`graphtorch reduce`: a failing step becomes a script of a few lines that fails in the same way."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch.cli.command import main
from graphtorch.frontend.check import run_graph
from graphtorch.frontend.compiler import CompiledFunction
from graphtorch.frontend.reduction import WRONG, failure, reduce_graph
from graphtorch.frontend.tree import flatten
from graphtorch.ir.python_source import input_names, print_python

SCRIPT = """import sys

import graphtorch as torch
from graphtorch.lowering.backend import Backend, register
from graphtorch.lowering.numpy.interpreter import Interpreted


class Faulty(Backend):
    name = "faulty"

    def compile(self, graph, donations=None):
        names = {n.op.name for n in graph.nodes}
        if "atan" in names:
            raise KeyError("no atan here")

        class Executable(Interpreted):
            def run(self, inputs):
                return [o + 1 if "erf" in names else o for o in super().run(inputs)]

        return Executable(graph, donations or {})


register(Faulty())
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 5))
optimizer = torch.optim.Adam(model.parameters())
kind = sys.argv[1]


@torch.compile(backend="faulty")
def step(x):
    optimizer.zero_grad()
    out = model(x)
    out = {"erf": torch.erf, "atan": torch.atan, "good": torch.tanh}[kind](out * 2)
    loss = out.pow(2).mean()
    loss.backward()
    optimizer.step()
    return loss


for _ in range(3):
    step(torch.randn(6, 4))
"""


@pytest.fixture
def train(tmp_path: Path) -> Path:
    file = tmp_path / "train.py"
    file.write_text(SCRIPT, encoding="utf-8")
    return file


def body(text: str) -> list[str]:
    """The lines of the reduced function, without comments."""
    return re.findall(r"^    (\w+ = [^#\n]*?)\s*(?:#.*)?$", text[text.index("def step") :], re.MULTILINE)


@pytest.mark.parametrize(("kind", "words"), [("erf", WRONG), ("atan", "KeyError: 'no atan here'")])
def test_a_failing_step_becomes_one_operator(
    train: Path, kind: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reduce", f"{train}:step", "--", kind]) == 0
    shown = capsys.readouterr()
    assert f"Fails with {words}" in shown.out
    assert body(shown.out) == [f"{kind[0]} = torch.{kind}(x0)"]
    assert f"torch.{kind}" not in shown.err and "reduced to 1" in shown.err and "does not fail" not in shown.err
    with pytest.raises((RuntimeError, KeyError)):
        exec(compile(shown.out, "reduced.py", "exec"), {"__name__": "__main__"})


def test_a_script_that_is_right(train: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reduce", str(train), "--", "good"]) == 1
    assert "all 3 calls compile to what they do eagerly" in capsys.readouterr().err
    assert main(["reduce", f"{train}:nothing", "--", "good"]) == 2


def test_the_script_goes_to_a_file(train: Path, tmp_path: Path) -> None:
    assert main(["reduce", str(train), "-o", str(tmp_path / "small.py"), "--", "erf"]) == 0
    assert "torch.erf" in (tmp_path / "small.py").read_text()


def captured(function: Any, *args: Any) -> tuple[Any, list[Any]]:
    compiled = CompiledFunction(function, fullgraph=True)
    leaves: list[Any] = []
    tree = flatten((args, {}), leaves)
    found, _, _ = compiled.capture(tree, leaves, {})
    return found.graph, [s.fetch(leaves)._data for s in found.sources]


def test_a_right_graph_does_not_fail() -> None:
    graph, inputs = captured(lambda x: x.sin().sum(), torch.ones(3))
    assert failure(graph, inputs, "numpy") == ("", "")
    assert reduce_graph(graph, inputs, "numpy", lambda line: None) is None


def test_source_of_a_graph_computes_the_same() -> None:
    def f(x: Any, i: Any, w: Any) -> Any:
        y = torch.cat([x.softmax(-1), x[:, 1:].exp()], 1).to(torch.float64).clamp(-1.0, float("inf"))
        z = y.permute(1, 0).expand(2, 5, 2).reshape(20) + torch.arange(20) * 2.5
        return z, x.gather(1, i), torch.nn.functional.linear(x, w), x.max(1).indices, x.amax((0, 1), keepdim=True)

    args = (torch.randn(2, 3), torch.tensor([[0, 1], [2, 0]]), torch.randn(4, 3))
    graph, inputs = captured(f, *args)
    source = print_python(graph, "again")
    assert input_names(graph, source) == ["x", "i", "w"]
    scope: dict[str, Any] = {"torch": torch}
    exec(source, scope)
    for mine, wanted in zip(scope["again"](*args), f(*args), strict=True):
        np.testing.assert_array_equal(mine.numpy(), wanted.numpy())
    assert len(list(run_graph(graph, inputs))) == len(graph.nodes)
    graph, _ = captured(lambda x: x + torch.rand(3, generator=torch.Generator()), torch.ones(3))
    with pytest.raises(TypeError, match="Generator has no Python source"):
        print_python(graph, "f")
