"""`graphtorch dump`: stages against golden files, which function is found, and what is said when it is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from graphtorch.cli import main
from graphtorch.cli.command import STAGES
from graphtorch.ir.parser import parse_graph
from graphtorch.lowering.backend import get_backend

SCRIPTS = Path(__file__).resolve().parent / "scripts"
GRAPH_STAGES = STAGES[:5]

Output = tuple[int, str, str]
Command = Callable[..., Output]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command in the scripts' folder: (exit status, standard output, standard error)."""
    monkeypatch.chdir(SCRIPTS)

    def run(*arguments: str) -> Output:
        for module in ("elsewhere",):  # a script imports it anew, as in a process of its own
            sys.modules.pop(module, None)
        status = main(arguments)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


# -- stages -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES[:7])
def test_stage_of_a_training_step(stage: str, command: Command, golden: Callable[[str, str], None]) -> None:
    # The numpy backend is there on every machine.
    status, out, err = command("dump", "training.py:step", "--stage", stage, "--backend", "numpy")
    assert status == 0, err
    golden(f"cli/training.{stage}.{'gt' if stage in GRAPH_STAGES else 'txt'}", out)


@pytest.mark.parametrize("stage", GRAPH_STAGES)
def test_dumped_text_parses_to_the_same_text(stage: str, command: Command) -> None:
    _, out, _ = command("dump", "training.py:step", "--stage", stage)
    assert str(parse_graph(out)) == out


@pytest.mark.parametrize("stage", ["joint", "optimized", "kernels"])
@pytest.mark.parametrize("backward", [False, True])
def test_stage_of_a_model_whose_backward_is_outside(
    stage: str, backward: bool, command: Command, golden: Callable[[str, str], None]
) -> None:
    flags = ["--backend", "numpy", *(["--backward"] if backward else [])]
    status, out, err = command("dump", "outside.py:Model.forward", "--stage", stage, *flags)
    assert status == 0, err
    kind = "gt" if stage in GRAPH_STAGES else "txt"
    if not (stage == "joint" and backward):  # the joint graph has both
        golden(f"cli/outside.{stage}{'.backward' if backward else ''}.{kind}", out)


def test_json_and_dot(command: Command) -> None:
    status, out, err = command("dump", "training.py:step", "--format", "json")
    assert status == 0, err
    assert isinstance(json.loads(out), dict)
    status, out, err = command("dump", "training.py:step", "--format", "dot")
    assert status == 0, err
    assert out.startswith("digraph")
    kernels = ["dump", "training.py:step", "--stage", "kernels", "--backend", "numpy"]
    status, out, err = command(*kernels, "--format", "json")
    assert status == 0, err
    assert json.loads(out)["steps"]
    assert command(*kernels, "--format", "dot")[1].startswith("digraph")
    status, _, err = command("dump", "training.py:step", "--stage", "plan", "--format", "json")
    assert status == 2 and "text only" in err


def test_without_source_lines(command: Command) -> None:
    status, out, err = command("dump", "training.py:step", "--no-source")
    assert status == 0, err
    assert "training.py" not in out and "from" not in out
    assert str(parse_graph(out)) == out


def test_second_call_with_another_size_is_symbolic(command: Command) -> None:
    status, out, err = command("dump", "training.py:step", "--stage", "captured", "--call", "2", "--", "6", "5")
    assert status == 0, err
    assert "%images: f32[s0, 4]" in out
    status, out, err = command("dump", "training.py:step", "--stage", "captured", "--call", "2", "--", "6", "6")
    assert status == 0, err
    assert "%images: f32[6, 4]" in out


# -- finding the function ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "operator"),
    [
        ("plain", "pow(%x, 2)"),
        ("Scale.apply", "mul(%x, 3.0)"),
        ("apply", "mul(%x, 3.0)"),
        ("Scale.double", "add(%x, %x)"),
        ("Scale.halve", "div(%x, 2)"),
        ("make.nested", "sub(%x, 5.0)"),
        ("nested", "sub(%x, 5.0)"),
        ("by_call", "exp(%x)"),
        ("Model.forward", "tanh(%x)"),
        ("compiled_model", "tanh(%"),
        ("quiet", "cos(%x)"),
        ("outer", "sqrt(%"),
        ("inner", "abs(%x)"),
        ("compiled_elsewhere", "floor(%x)"),
        ("plain_elsewhere", "ceil(%x)"),
    ],
)
def test_function_is_found(function: str, operator: str, command: Command) -> None:
    status, out, err = command("dump", f"functions.py:{function}", "--stage", "captured")
    assert status == 0, err
    assert operator in out


def test_property_is_found(command: Command) -> None:
    status, out, err = command("dump", "functions.py:Scale.tensor", "--stage", "captured")
    assert status == 0, err
    assert "full(" in out


def test_first_compiled_function_without_a_name(command: Command) -> None:
    status, out, err = command("dump", "functions.py", "--stage", "captured")
    assert status == 0, err
    assert "exp(%" in out


def test_options_of_the_compiled_function_hold(command: Command) -> None:
    _, out, _ = command("dump", "functions.py:by_call", "--stage", "captured")
    assert "f32[s0]" in out, "it was compiled with dynamic=True"


def test_recursive_function_is_captured_whole(command: Command) -> None:
    _, out, _ = command("dump", "functions.py:recursive", "--stage", "captured")
    assert out.count("= sin(") == 2


def test_nth_call(command: Command) -> None:
    _, out, _ = command("dump", "functions.py:plain", "--stage", "captured", "--call", "2")
    assert "pow(%x, 3)" in out


def test_script_runs_as_python_runs_it(command: Command) -> None:
    """As `__main__`, with its own arguments and folder on the path; what it prints goes to standard error."""
    before = (sys.argv, list(sys.path), sys.modules["__main__"])
    status, out, err = command("dump", "functions.py:plain", "--stage", "captured", "--", "--flag", "value")
    assert status == 0, err
    assert "arguments ['--flag', 'value']" in err
    assert "arguments" not in out
    assert (sys.argv, sys.path, sys.modules["__main__"]) == before


def test_script_that_handles_exceptions_still_stops(command: Command) -> None:
    status, out, err = command("dump", "stubborn.py:step", "--stage", "captured")
    assert status == 0
    assert "add(%x, 1)" in out
    assert "handled" not in err
    assert err.count("cleaned up") == 1


def test_generated_code_of_the_kernels(command: Command) -> None:
    """Not a golden file: how a backend writes its loops is its own affair."""
    status, out, err = command("dump", "training.py:step", "--stage", "code", "--backend", "numpy")
    assert status == 0, err
    assert "def " in out


@pytest.mark.parametrize(("stage", "text"), [("llvm", "define internal void @segment0"), ("asm", "Lfunc_end0")])
def test_native_code(stage: str, text: str, command: Command) -> None:
    if get_backend("cpu").unavailable():
        pytest.skip("no native code here")
    status, out, _ = command("dump", "training.py:step", "--stage", stage)
    assert status == 0
    assert text in out


def test_native_code_where_there_is_none(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(get_backend("cpu")), "unavailable", lambda self: "llvmlite is missing")
    status, _, err = command("dump", "training.py:step", "--stage", "llvm")
    assert status == 1
    assert "llvmlite is missing" in err


def test_in_a_process_of_its_own(tmp_path: Path) -> None:
    """Standard output holds the dump alone, also for output that does not go through `sys.stdout`."""
    script = tmp_path / "noisy.py"
    script.write_text(
        "import os, sys\nimport graphtorch as torch\nos.write(1, b'noise')\nprint('noise')\n"
        "def f(x):\n    return x + 1\nf(torch.ones(2))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(SCRIPTS.parent.parent.parent)}
    result = subprocess.run(
        [sys.executable, "-m", "graphtorch", "dump", f"{script}:f", "--stage", "captured"],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("graph f(") and "noise" not in result.stdout
    assert "noise" in result.stderr


def test_output_file(command: Command, tmp_path: Path) -> None:
    target = tmp_path / "plain.gt"
    status, out, _ = command("dump", "functions.py:plain", "-o", str(target))
    assert (status, out) == (0, "")
    assert target.read_text().startswith("graph plain(")


# -- what is said when it fails ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["missing.py:step"], 2, "cannot read missing.py: No such file or directory"),
        (["functions.py:plian"], 2, "functions.py defines no function 'plian'; did you mean plain?"),
        (["functions.py:Scale.aply"], 2, "did you mean Scale.apply"),
        (["functions.py:never"], 1, "never called never"),
        (["functions.py:plain", "--call", "3"], 1, "never called plain 3 times (2 calls)"),
        (["stubborn.py:step", "--", "exit"], 1, 'exited with "the user\'s exit" and never called step'),
        (["stubborn.py:step", "--backward"], 1, "leave out --backward"),
        (["stubborn.py:step", "--backend", "interpreter", "--stage", "kernels"], 2, "has no schedule"),
        (["stubborn.py:step", "--backend", "interpreter", "--stage", "code"], 2, "generates no code"),
        (["stubborn.py:step", "--backend", "abacus", "--stage", "kernels"], 1, "abacus"),
    ],
)
def test_error_message(arguments: list[str], status: int, message: str, command: Command) -> None:
    got, out, err = command("dump", *arguments)
    assert (got, out) == (status, "")
    assert message in err
    assert "Traceback" not in err


def test_capture_error_names_the_users_line(command: Command) -> None:
    status, out, err = command("dump", "functions.py:branches")
    assert (status, out) == (1, "")
    assert "cannot compile branches: bool() of a recorded tensor" in err
    assert "functions.py:48: if x.sum() > 0:" in err
    assert "what to do: " in err
    assert "Traceback" not in err


def test_operator_error_names_the_users_line(command: Command) -> None:
    status, _, err = command("dump", "functions.py:wrong")
    assert status == 1
    assert "cannot compile wrong: RuntimeError: mat1 and mat2 shapes cannot be multiplied (2x3 and 2x3)" in err
    assert "functions.py:54: return x @ x" in err
    assert "Traceback" not in err


def test_failing_script_shows_its_own_traceback_only(command: Command) -> None:
    status, _, err = command("dump", "stubborn.py:step", "--", "fail")
    assert status == 1
    assert "stubborn.py failed before it called step" in err
    assert 'KeyError: "the user\'s mistake"' in err
    assert 'File "stubborn.py", line 14, in fail' in err
    assert "intercept.py" not in err


def test_file_that_is_no_python(command: Command, tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text("def f(:\n")
    status, _, err = command("dump", f"{script}:f")
    assert status == 2
    assert "is no Python source" in err


def test_wrong_command_line_exits_with_2(command: Command) -> None:
    for arguments in ([], ["dump"], ["dump", "training.py", "--stage", "last"], ["dump", "training.py", "--call", "0"]):
        with pytest.raises(SystemExit) as exit_info:
            command(*arguments)
        assert exit_info.value.code == 2
