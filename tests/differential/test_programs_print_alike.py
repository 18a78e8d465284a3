"""Tutorial-like programs print the same text, character by character, under this library and under PyTorch."""

from __future__ import annotations

import contextlib
import importlib
import io
import math
import warnings

import numpy as np
import pytest
from tutorial_programs import PROGRAMS


def printed(library: str, program: str) -> str:
    """What a program prints; an error ends it as its last line."""
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
def test_programs(name: str) -> None:
    pytest.importorskip("torch")
    expected = printed("torch", PROGRAMS[name])
    assert len(expected) > 100
    assert printed("graphtorch", PROGRAMS[name]) == expected
