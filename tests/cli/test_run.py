"""`graphtorch run`, `opt` and `ops`: a dumped graph gives eager's numbers, inputs, passes and listings."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphtorch.cli import main
from graphtorch.ops.record import REGISTRY

SCRIPTS = Path(__file__).resolve().parent / "scripts"

SMALL = """
graph small[s0 >= 2 ~ 4](%x: f32[s0, 3] argument, %lr: f64[] number number, %index: i64[s0] argument) {
  %y: f32[s0, 3] = mul(%x, %lr)
  %z: f32[s0, 3] = exp(%y)
  %unused: f32[s0, 3] = sin(%x)
  %again: f32[s0, 3] = mul(%x, %lr)
  %sum: f32[s0, 3] = add(%z, %again)
  return sum=%sum, index=%index
}
"""

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(arguments)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.gt"
    path.write_text(SMALL)
    return path


def eager_step() -> dict[str, Any]:
    """One uncompiled training step of the script: the loss and all that it changed."""
    script = runpy.run_path(str(SCRIPTS / "training.py"), run_name="training")
    loss = script["step"].function(script["images"], script["labels"])
    values = {"result": loss.detach().numpy()}
    for name, parameter in script["model"].named_parameters():
        values[f"new {name}"] = parameter.detach().numpy()
        values[f"grad of {name}"] = parameter.grad.numpy()
    return values


@pytest.mark.parametrize("stage", ["captured", "joint", "optimized", "primitives"])
@pytest.mark.parametrize("backend", ["interpreter", "numpy"])
def test_dumped_graph_gives_eagers_numbers(
    stage: str, backend: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(SCRIPTS)
    graph, inputs, outputs = (str(tmp_path / name) for name in ("step.gt", "inputs.npz", "outputs.npz"))
    status, _, err = command("dump", "training.py:step", "--stage", stage, "-o", graph, "--inputs", inputs)
    assert status == 0, err
    status, out, err = command("run", graph, "--inputs", inputs, "--backend", backend, "-o", outputs)
    assert status == 0, err
    assert out.startswith("result: f32[]  ")
    with np.load(outputs) as archive:
        found = dict(archive)
    expected = eager_step()
    assert {n for n in found if n.startswith(("result", "new ", "grad of "))} == set(found)
    checked = [name for name in expected if name in found]
    assert {"result", "new 0.weight", "new 2.bias"} <= set(checked)
    for name in checked:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-7, err_msg=name)


def test_random_operators_and_optimizer_state(command: Command, tmp_path: Path) -> None:
    """A dropout model under Adam: what `.item()` and random operators become runs too, with eager's numbers."""
    script = tmp_path / "dropout.py"
    script.write_text(
        "import graphtorch as torch\n"
        "torch.manual_seed(1)\n"
        "model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.BatchNorm1d(8))\n"
        "optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)\n"
        "x = torch.randn(6, 4)\n"
        "def step(x):\n"
        "    loss = model(x).square().mean() + torch.rand(3).sum()\n"
        "    loss.backward()\n"
        "    optimizer.step()\n"
        "    return loss\n"
        "torch.manual_seed(7)\n"
        "if __name__ == '__main__': step(x)\n"
    )
    graph, inputs, outputs = (str(tmp_path / name) for name in ("step.gt", "inputs.npz", "outputs.npz"))
    for stage in ("captured", "optimized"):
        status, _, err = command("dump", f"{script}:step", "--stage", stage, "-o", graph, "--inputs", inputs)
        assert status == 0, err
        for backend in ("interpreter", "numpy"):
            run = ["run", graph, "--inputs", inputs, "--seed", "7", "--backend", backend, "-o", outputs]
            status, _, err = command(*run)
            assert status == 0, err
            eager = runpy.run_path(str(script), run_name="script")
            loss = eager["step"](eager["x"]).item()
            with np.load(outputs) as archive:
                np.testing.assert_allclose(archive["result"], loss, rtol=1e-6)
                for name, parameter in eager["model"].named_parameters():
                    np.testing.assert_allclose(archive[f"new {name}"], parameter.detach().numpy(), rtol=1e-5)


def test_json_runs_too(command: Command, small: Path, tmp_path: Path) -> None:
    _, text, _ = command("opt", str(small), "--passes", "dce", "--format", "json")
    path = tmp_path / "small.json"
    path.write_text(text)
    assert command("run", str(path)) == command("run", str(small))


def test_random_inputs_depend_on_the_seed_alone(command: Command, small: Path) -> None:
    first = command("run", str(small))
    assert first[0] == 0
    assert command("run", str(small)) == first
    assert command("run", str(small), "--seed", "1") != first


def test_sizes(command: Command, small: Path) -> None:
    assert "sum: f32[4, 3]  mean" in command("run", str(small))[1], "the size at capture"
    assert "sum: f32[7, 3]  mean" in command("run", str(small), "--size", "s0=7")[1]


def test_given_inputs(command: Command, small: Path, tmp_path: Path) -> None:
    x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    path = tmp_path / "inputs.npz"
    np.savez(path, x=x, lr=np.float64(0.5), index=np.array([5, 6]))
    status, out, err = command("run", str(small), "--inputs", str(path), "-o", str(tmp_path / "out.npz"))
    assert status == 0, err
    assert "index: i64[2]  [5, 6]" in out
    with np.load(tmp_path / "out.npz") as archive:
        np.testing.assert_allclose(archive["sum"], np.exp(x / 2) + x / 2, rtol=1e-6)


def test_inputs_that_do_not_fit(command: Command, small: Path, tmp_path: Path) -> None:
    path = tmp_path / "inputs.npz"
    np.savez(path, x=np.zeros((4, 2), np.float32))
    status, _, err = command("run", str(small), "--inputs", str(path))
    assert status == 1 and "input x is f32[s0, 3], here of shape [4, 3]; given [4, 2]" in err
    np.savez(path, index=np.zeros(4, np.float32))
    status, _, err = command("run", str(small), "--inputs", str(path))
    assert status == 1 and "input index is i64[s0]; given float32, which it can't hold" in err


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["run", "missing.gt"], 2, "cannot read missing.gt: No such file or directory"),
        (["run", "{small}", "--size", "s1=4"], 2, "the graph has no size 's1'; it has s0"),
        (["run", "{small}", "--size", "s0"], 2, "expected NAME=NUMBER"),
        (["run", "{small}", "--size", "s0=1"], 2, "the graph assumes s0 >= 2"),
        (["run", "{small}", "--inputs", "{small}"], 2, "cannot read arrays from"),
        (["run", "{small}", "--backend", "abacus"], 1, "abacus"),
        (["opt", "{small}", "--passes", "dce,magic"], 2, "unknown pass 'magic'"),
        (["opt"], 2, "which graph?"),
        (["ops", "sofmax"], 2, "there is no operator record 'sofmax'; did you mean softmax"),
    ],
)
def test_error_message(arguments: list[str], status: int, message: str, command: Command, small: Path) -> None:
    got, _, err = command(*(a.replace("{small}", str(small)) for a in arguments))
    assert got == status
    assert message in err
    assert "Traceback" not in err


def test_text_that_is_no_graph(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "broken.gt"
    path.write_text("graph g(%x: f32[2] argument) {\n  %y: f32[2] = mulk(%x, 2)\n  return y=%y\n}\n")
    status, _, err = command("run", str(path))
    assert status == 1
    assert "is no graph: line 2" in err and "mulk" in err


def test_opt_runs_the_named_passes(command: Command, small: Path) -> None:
    status, out, err = command("opt", str(small), "--passes", "dce,cse", "--report")
    assert status == 0, err
    assert out.count("= mul(") == 1 and "sin" not in out
    assert "5 -> 3 nodes" in err
    assert "sin" in command("opt", str(small), "--passes", "cse")[1], "only what is asked for"


def test_opt_lists_its_passes(command: Command) -> None:
    status, out, _ = command("opt", "--list")
    assert status == 0
    assert "\ndce\n" in out and "the default pipeline: " in out


def test_ops_lists_every_record(command: Command) -> None:
    status, out, _ = command("ops")
    assert status == 0
    listed = [line.split()[0] for line in out.splitlines()[1:-1]]
    assert listed == sorted(REGISTRY)
    (row,) = (line for line in out.splitlines() if line.split()[0] == "exp")
    assert row.split() == ["exp", "pointwise", "yes", "-"]


def test_ops_shows_one_record(command: Command) -> None:
    status, out, _ = command("ops", "exp")
    assert status == 0
    assert out.startswith("exp(Tensor input)")
    assert "of input, as ExpBackward0" in out
