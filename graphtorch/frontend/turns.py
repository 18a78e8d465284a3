"""Threads take turns at capturing.

A capture puts watchers in the places of functions and attributes, and tracked numbers in the user's objects, and takes
them out again: two at once would take each other's for the user's own. And what one thread is compiling, others that
need the same should wait for.

They do not wait for ever: the function that is captured may itself wait for them (threads of a pool that was there
before), and a call that has waited long enough runs eagerly instead.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from graphtorch.frontend.effects import RunEagerly

PATIENCE = 5.0  # seconds

_lock: Any = threading.RLock()  # a captured function may call, and so capture, others
if hasattr(os, "register_at_fork"):  # the thread whose turn it is is not in the new process
    os.register_at_fork(after_in_child=_lock._at_fork_reinit)


class OutOfTurn(RunEagerly):
    """Another thread is capturing, and has been for long: this call, and only this one, runs eagerly."""


@contextmanager
def turn(patience: float | None = None) -> Iterator[None]:
    """This thread's turn. Raises OutOfTurn where another thread keeps it for so many seconds."""
    if not _lock.acquire(timeout=PATIENCE if patience is None else patience):
        raise OutOfTurn("another thread has been compiling for a while", first=True)
    try:
        yield
    finally:
        _lock.release()
