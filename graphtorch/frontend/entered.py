"""Which functions of installed packages a run enters.

The user's own code is followed wherever it may lead, before the run. A package's leads too far: behind one name of it
may be ten thousand functions that never run. So a function of theirs waits until it is called, and what it reads is
looked at then, before its first line."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import PurePath
from types import CodeType, FrameType, FunctionType
from typing import Any

_INSTALLED = frozenset(("site-packages", "dist-packages"))


class Entered:
    """The functions that wait, and the code of those that were called."""

    def __init__(self) -> None:
        self.codes: dict[int, CodeType] = {}
        self.waiting: dict[int, dict[int, FunctionType]] = {}  # id of the code -> the functions that have it, by id
        self.over = False  # what was not called will not be

    def waits(self, function: FunctionType) -> bool:
        """Whether a function is not to be followed yet; it is kept."""
        code = function.__code__
        if id(code) in self.codes or not is_installed(code.co_filename):
            return False
        if not self.over:
            self.waiting.setdefault(id(code), {})[id(function)] = function
        return True

    @contextlib.contextmanager
    def noted(self, meet: Callable[[list[FunctionType]], None]) -> Iterator[None]:
        """While inside, call `meet` with functions that wait, when they are called. Under a debugger, whose hook this
        needs, with all of them at once."""
        tracer = sys.gettrace()
        if tracer is not None:
            while self.waiting:
                meet(self._called(next(iter(self.waiting))))
        if not self.waiting:
            yield
            return
        waiting = self.waiting

        def note(frame: FrameType, event: str, argument: Any) -> None:
            if id(frame.f_code) in waiting:
                meet(self._called(id(frame.f_code)))

        sys.settrace(note)
        try:
            yield
        finally:
            sys.settrace(tracer)

    def _called(self, key: int) -> list[FunctionType]:
        found = list(self.waiting.pop(key).values())
        self.codes[key] = found[0].__code__
        return found


@functools.lru_cache(maxsize=4096)
def is_installed(file: str) -> bool:
    """Whether a file of code belongs to an installed package."""
    return not _INSTALLED.isdisjoint(PurePath(file).parts)
