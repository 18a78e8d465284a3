"""Writes tests/goldens/torch/programs/: what the programs of tests/differential/programs/ print under PyTorch.

    python tools/make_program_goldens.py [NAME ...]

Needs PyTorch (the goldens are made with 2.13), which the tests that read the files do not."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "differential")]

from programs_alike import NAMES, printed  # noqa: E402

TARGET = ROOT / "tests" / "goldens" / "torch" / "programs"


def main() -> None:
    import torch

    TARGET.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[1:] or NAMES:
        (TARGET / f"{name}.txt").write_text(printed(name, "torch"), encoding="utf-8")
        torch.set_default_dtype(torch.float32)
        torch.set_printoptions(profile="default")
    if len(sys.argv) == 1:
        for path in TARGET.glob("*.txt"):
            if path.stem not in NAMES:
                path.unlink()


if __name__ == "__main__":
    main()
