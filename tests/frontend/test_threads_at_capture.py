"""Threads that call a function which is not compiled yet: one compiles it, the others wait for that."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import graphtorch as torch
from graphtorch.frontend.turns import turn

THREADS = 8


class Scale:
    def __init__(self) -> None:
        self.factor = 1


def by_sign(x: Any) -> Any:
    return x * 2 if x.sum() > 0 else x * 3


def with_number(x: Any) -> Any:
    SCALE.factor = SCALE.factor  # read and written, which others may do meanwhile
    return x * SCALE.factor * 2


SCALE = Scale()


@pytest.mark.parametrize(
    ("function", "programs"), [(by_sign, 2), (with_number, 1), (lambda x: x.exp().log() * 2, 1)], ids=str
)
def test_one_compilation_serves_all_threads(function: Callable[[Any], Any], programs: int) -> None:
    step = torch.compile(function)
    start = threading.Barrier(THREADS)
    wrong: list[Any] = []

    def run(number: int) -> None:
        start.wait()
        for i in range(10):
            x = torch.full((4,), float(number + i + 1) * (-1.0 if function is by_sign and i % 2 else 1.0))
            try:
                if not step(x).allclose(function(x)):
                    wrong.append(i)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(step.specializations) == programs and step.eager_calls == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_forked_process_compiles() -> None:
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with turn():
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        child = os.fork()
        if not child:
            threading.Timer(20, lambda: os._exit(1)).start()  # one that waits for ever
            found = torch.compile(lambda x: x + 1, backend="numpy")(torch.ones(2)).tolist()
            os._exit(0 if found == [2.0, 2.0] else 2)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        done.set()
        thread.join()


def test_a_function_that_waits_for_threads_which_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that are there already compile nothing while it is captured: their calls run eagerly, and so does it."""
    monkeypatch.setattr("graphtorch.frontend.turns.PATIENCE", 0.2)
    parts = [torch.compile(lambda x, i=i: x * i + 1) for i in range(3)]
    x = torch.ones(3)
    with ThreadPoolExecutor(3) as pool:
        barrier = threading.Barrier(3)
        assert sorted(pool.map(lambda i: barrier.wait() * 0 + i, range(3))) == [0, 1, 2]  # all three have begun

        @torch.compile
        def whole(x: Any) -> Any:
            return x + sum(pool.map(lambda part: part(x.detach()), parts))

        for _ in range(3):
            made = []
            caller = threading.Thread(target=lambda: made.append(whole(x)), daemon=True)
            caller.start()
            caller.join(60)
            assert not caller.is_alive() and made[0].tolist() == [7.0, 7.0, 7.0]
    for i, part in enumerate(parts):
        assert part(x).tolist() == [i + 1.0] * 3
        assert part.specializations and not part.eager_reason
