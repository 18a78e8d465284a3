"""Running the programs of `programs/` under one library or the other.

They are written for PyTorch and import it as everybody does; under this library, its name stands in those lines."""

from __future__ import annotations

import contextlib
import io
import random
import re
import warnings
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parent / "programs"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))

_IMPORTS = (
    (r"^(\s*)import torch$", r"\1import graphtorch as torch"),
    (r"^(\s*)import torch\.(\S+)$", r"\1import graphtorch as torch, graphtorch.\2"),
    (r"^(\s*)import torch\.(\S+) as", r"\1import graphtorch.\2 as"),
    (r"^(\s*)from torch(\S*) import", r"\1from graphtorch\2 import"),
)


def translated(program: str) -> str:
    """The program with its imports changed."""
    for pattern, replacement in _IMPORTS:
        program = re.sub(pattern, replacement, program, flags=re.MULTILINE)
    return program


def printed(name: str, library: str) -> str:
    """What a program prints under `library`, "torch" or "graphtorch"."""
    program = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    random.seed(0)
    np.random.seed(0)
    captured = io.StringIO()
    with contextlib.redirect_stdout(captured), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        code = compile(program if library == "torch" else translated(program), f"{name}.py", "exec")
        exec(code, {"__name__": "__main__"})
    return captured.getvalue()
