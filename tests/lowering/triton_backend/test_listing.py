"""`graphtorch dump --stage triton|ptx|sass` on a machine without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("triton")

from graphtorch.cli import main

SCRIPT = """
import graphtorch as torch

w = torch.ones(8, 16, requires_grad=True)

@torch.compile
def step(x):
    loss = torch.softmax(x @ w.t(), -1).square().mean()
    loss.backward()
    return loss

step(torch.ones(4, 16))
"""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--stage", "triton"], "@triton.jit"),
        (["--stage", "ptx"], ".target sm_90"),
        (["--stage", "ptx", "--target", "sm_80"], ".target sm_80"),
        (["--stage", "ptx", "--target", "gfx942"], ".amdgcn_target"),
        (["--stage", "sass"], "EXIT"),
    ],
)
def test_dump(arguments: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    assert main(["dump", f"{script}:step", "--backend", "numpy", *arguments]) == 0
    assert expected in capsys.readouterr().out


def test_unknown_target_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    assert main(["dump", f"{script}:step", "--backend", "numpy", "--stage", "ptx", "--target", "sm_1"]) == 2
    assert "unknown target 'sm_1'" in capsys.readouterr().err
