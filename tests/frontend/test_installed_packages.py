"""Code of installed packages is looked at when it is called: what never runs neither costs nor decides anything."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import graphtorch as torch

PACKAGE = """
import datetime, functools, random, sys
from random import random as draw

scale = 2.0
entries = []
stream = sys.stdout


class Log:
    def __init__(self):
        self.count = 0

    def note(self, text):
        self.count += 1
        self.write(text)

    def write(self, text):
        stream.write(f"{datetime.datetime.now()} {text}")


log = Log()


@functools.lru_cache
def halves(size):
    return size // 2


def scaled(x, drop=0.0, loud=False):
    if drop > 0 and draw() < drop:
        return x
    if loud:
        log.note("loud")
    return x[: halves(x.shape[0])] * scale


def sized(x):
    try:
        half = halves(x.shape[0])
    except TypeError:
        half = halves.__wrapped__(x.shape[0])
    return x[:half] * scale


def remembering(x):
    entries.append(x.shape[0])
    return x * len(entries)


def drawn(x):
    return x * draw()


def seeded(x):
    return x * random.Random(x.sum().item()).random()
"""


@pytest.fixture
def package(tmp_path: Path) -> Iterator[ModuleType]:
    home = tmp_path / "site-packages"
    home.mkdir()
    (home / "a_package_of_somebody.py").write_text(PACKAGE)
    sys.path.insert(0, str(home))
    try:
        yield importlib.import_module("a_package_of_somebody")
    finally:
        sys.path.remove(str(home))
        sys.modules.pop("a_package_of_somebody")


def test_what_is_mentioned_and_never_runs(package: ModuleType) -> None:
    compiled = torch.compile(lambda x: package.scaled(x), backend="numpy")
    x = torch.arange(6.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            assert compiled(x).tolist() == [0, 2, 4]
    assert len(compiled.specializations) == 1 and compiled.eager_calls == 1  # the first call fills the cache


def test_what_runs_is_assumed(package: ModuleType) -> None:
    compiled = torch.compile(lambda x: package.sized(x) + 1, backend="numpy")
    x = torch.arange(4.0)
    compiled(x), compiled(x)
    package.scale = 3.0
    assert compiled(x).tolist() == [1, 4]
    package.log.count = 7  # nobody asked
    assert compiled(x).tolist() == [1, 4]
    assert len(compiled.specializations) == 2
    package.sized.__code__ = (lambda x: x - 1).__code__
    assert compiled(x).tolist() == [0, 1, 2, 3]


def test_effects_of_what_runs(package: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    package.stream = sys.stdout
    loud = torch.compile(lambda x: package.scaled(x, loud=True), backend="numpy")
    growing = torch.compile(lambda x: package.remembering(x), backend="numpy")
    chance = torch.compile(lambda x: package.drawn(x), backend="numpy")
    x = torch.ones(4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for call in range(1, 4):
            loud(x)
            assert growing(x).tolist() == [call] * 4
        assert len({chance(x)[0].item() for _ in range(4)}) == 4
    assert capsys.readouterr().out.count("loud") == package.log.count == 3
    assert loud.eager_calls == growing.eager_calls == 3


def test_sizes_are_no_keys(package: ModuleType) -> None:
    """A cache would keep sizes that are symbols; code that expects none that can't be hashed goes another way."""
    keyed = torch.compile(lambda x: package.scaled(x), backend="numpy")
    free = torch.compile(lambda x: package.sized(x), backend="numpy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the first one reaches its limit
        for size in (2, 4, 5, 6, 9, 12, 20, 31, 40):
            x = torch.arange(float(size))
            for compiled in (keyed, keyed, free, free):
                assert compiled(x).tolist() == package.scaled(x).tolist()
    assert len(free.specializations) == 2  # a number, then a symbol


def test_numbers_that_are_asked_for_their_type(package: ModuleType) -> None:
    compiled = torch.compile(lambda x: package.seeded(x), backend="numpy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(3):
            assert compiled(torch.ones(3)).equal(package.seeded(torch.ones(3)))
        with pytest.raises(TypeError, match="takes no list"):
            torch.compile(lambda x: _refuse([x.sum().item()]))(torch.ones(3))


def _refuse(numbers: list[float]) -> None:
    raise TypeError("takes no list")


def test_generators_that_nobody_draws_from() -> None:
    import random

    own = random.Random(0)

    def step(x: torch.Tensor, noisy: bool = False) -> torch.Tensor:
        assert isinstance(own, random.Random) and issubclass(random.SystemRandom, random.Random)
        return x * own.random() if noisy else x * 2

    compiled = torch.compile(step, backend="numpy")
    x = torch.ones(2)
    assert compiled(x).tolist() == compiled(x).tolist() == [2, 2]
    assert len(compiled.specializations) == 1 and not compiled.eager_calls
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = random.Random(0)
        for _ in range(3):
            assert compiled(x, True)[0].item() == pytest.approx(expected.random())
