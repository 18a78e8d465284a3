"""Optimizers of the users' own, whose counts are Python numbers, in steps compiled for a (simulated) device."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import graphtorch as torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "optim"))


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize("name", ["adam", "ranger", "yogi"])
def test_beside_eager(name: str) -> None:
    from test_users_optimizers import Run, plain_state, typed

    eager, compiled = Run(name, None, steps=9), Run(name, "triton", "cuda", steps=9)
    torch.testing.assert_close(compiled.losses, eager.losses, rtol=1e-5, atol=1e-6)
    assert typed(plain_state(compiled.optimizer)) == typed(plain_state(eager.optimizer))
    assert compiled.step.eager_calls <= 1
