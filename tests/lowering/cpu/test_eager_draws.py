"""Random numbers that eager operators draw by native code: NumPy's, from any generator, which is left in one state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch.lowering.cpu import random as native_random
from graphtorch.ops import native
from graphtorch.tensor import generator as generators

pytest.importorskip("llvmlite")

DRAWS: dict[str, Callable[[int, Any], Any]] = {
    "randn": lambda n, g: torch.randn(n, generator=g),
    "randn of float16": lambda n, g: torch.randn(n, generator=g, dtype=torch.float16),
    "rand": lambda n, g: torch.rand(n // 4, 4, generator=g),
    "rand of float64": lambda n, g: torch.rand(n, generator=g, dtype=torch.float64),
    "randint": lambda n, g: torch.randint(-3, 10, (n,), generator=g),
    "wide randint": lambda n, g: torch.randint(-5, 1 << 40, (n,), generator=g),
    "randperm": lambda n, g: torch.randperm(n, generator=g),
    "randperm of int32": lambda n, g: torch.randperm(n, generator=g, dtype=torch.int32),
    "bernoulli": lambda n, g: torch.bernoulli(torch.linspace(0, 1, n), generator=g),
    "bernoulli_": lambda n, g: torch.empty(n).bernoulli_(0.3, generator=g),
    "uniform_": lambda n, g: torch.empty(n // 4, 4).uniform_(-0.3, 0.7, generator=g),
    "uniform_ of a transposed matrix": lambda n, g: torch.empty(4, n // 4).t().uniform_(-0.3, 0.7, generator=g),
    "normal_": lambda n, g: torch.empty(n, dtype=torch.bfloat16).normal_(2, 3, generator=g),
    "normal_ of a transposed matrix": lambda n, g: torch.empty(4, n // 4).t().normal_(2, 3, generator=g),
    "random_": lambda n, g: torch.empty(n, dtype=torch.int64).random_(generator=g),
    "random_ of a range": lambda n, g: torch.empty(n, dtype=torch.int32).random_(3, 70, generator=g),
}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the operators whose numbers native code drew; all may be from the first call on."""
    from graphtorch.lowering.cpu import eager

    found: list[str] = []
    whole = eager.draw

    def noting(op: Any, *rest: Any) -> Any:
        made = whole(op, *rest)
        if made is not None:
            found.append(op.name)
        return made

    monkeypatch.setattr(eager, "draw", noting)
    monkeypatch.setattr(native, "DRAWN", 0)
    monkeypatch.setattr(native.switch, "on", True)
    return found


def numbers(draw: Callable[[int, Any], Any], of_its_own: bool, sizes: tuple[int, ...]) -> list[bytes]:
    """Some draws in a row from the default generator or another one, and its state afterwards."""
    generator = torch.Generator() if of_its_own else torch.default_generator
    generator.manual_seed(3)
    made = [draw(n, generator if of_its_own else None)._data.tobytes() for n in sizes]
    return [*made, generator.get_state()._data.tobytes()]


@pytest.mark.parametrize("of_its_own", [False, True])
@pytest.mark.parametrize("name", DRAWS)
def test_numbers_are_those_of_numpy(
    name: str, of_its_own: bool, drawn: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = (256, 1000, 256, 5004, 40_000)
    ours = numbers(DRAWS[name], of_its_own, sizes)
    assert len(drawn) == len(sizes) or "normal_ of" in name
    monkeypatch.setattr(native.switch, "on", False)
    assert ours == numbers(DRAWS[name], of_its_own, sizes)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_permutations_of_very_many(dtype: Any, drawn: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from graphtorch.lowering.cpu import eager

    for module in (native_random, generators):
        monkeypatch.setattr(module, "WIDE_RANDPERM", 2000)
    for programs in ("_programs", "_chosen"):
        monkeypatch.setattr(eager, programs, {})

    def draw(n: int, g: Any) -> Any:
        return torch.randperm(n, generator=g, dtype=dtype)

    ours = numbers(draw, False, (1999, 2000, 7000))
    assert drawn == ["randperm"] * 3
    monkeypatch.setattr(native.switch, "on", False)
    assert ours == numbers(draw, False, (1999, 2000, 7000))
    assert sorted(np.frombuffer(ours[2], dtype.numpy).tolist()) == list(range(7000))


def test_few_numbers_are_numpys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native.switch, "module", lambda: pytest.fail("native code was asked for"))
    monkeypatch.setattr(native, "_drawn", {})
    for _ in range(10):
        torch.randn(255)
    torch.randn(100_000)  # the first of their kind


def test_refused_probabilities_leave_the_generator_as_it_was(drawn: list[str]) -> None:
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="p_in <= 1"):
        torch.bernoulli(torch.full((300,), 1.5))
    assert torch.equal(before, torch.get_rng_state())
