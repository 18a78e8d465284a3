"""Tutorial-like programs print the same text, character by character, under this library and under PyTorch.

`programs/` are whole files, compared with golden texts (tools/make_program_goldens.py) and, where PyTorch is there,
with it; `tutorial_programs.py` are fragments, compared with PyTorch only."""

from __future__ import annotations

import contextlib
import importlib
import io
import math
import warnings
from pathlib import Path

import numpy as np
import programs_alike
import pytest
from tutorial_programs import PROGRAMS

GOLDENS = Path(__file__).resolve().parent.parent / "goldens" / "torch" / "programs"


@pytest.fixture(autouse=True)
def _defaults_are_put_back() -> object:
    """Programs set print options and default dtypes."""
    import graphtorch

    yield
    graphtorch.set_default_dtype(graphtorch.float32)
    graphtorch.set_printoptions(profile="default")


@pytest.mark.parametrize("name", programs_alike.NAMES)
def test_golden_texts(name: str) -> None:
    expected = (GOLDENS / f"{name}.txt").read_text(encoding="utf-8")
    assert programs_alike.printed(name, "graphtorch") == expected


@pytest.mark.parametrize("name", programs_alike.NAMES)
def test_beside_torch(name: str) -> None:
    pytest.importorskip("torch")
    expected = programs_alike.printed(name, "torch")
    assert len(expected) > 200
    assert programs_alike.printed(name, "graphtorch") == expected


def printed(library: str, program: str) -> str:
    """What a fragment prints; an error ends it as its last line."""
    torch = importlib.import_module(library)
    data = importlib.import_module(f"{library}.utils.data")
    scope = {"torch": torch, "np": np, "math": math, "io": io, "nn": torch.nn, "F": torch.nn.functional}
    scope |= {name: getattr(data, name) for name in ("DataLoader", "Dataset", "TensorDataset", "random_split")}
    torch.manual_seed(0)
    captured = io.StringIO()
    with contextlib.redirect_stdout(captured), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(program, "<program>", "exec"), scope)
    return captured.getvalue()


@pytest.mark.parametrize("name", PROGRAMS)
def test_fragments(name: str) -> None:
    pytest.importorskip("torch")
    expected = printed("torch", PROGRAMS[name])
    assert len(expected) > 100
    assert printed("graphtorch", PROGRAMS[name]) == expected
