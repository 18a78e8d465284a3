"""Threads take turns at capturing.

A capture puts watchers in the places of functions and attributes, and tracked numbers in the user's objects, and takes
them out again: two at once would take each other's for the user's own. And what one thread is compiling, others that
need the same should wait for."""

from __future__ import annotations

import os
import threading
from typing import Any

turn: Any = threading.RLock()  # a captured function may call, and so capture, others
if hasattr(os, "register_at_fork"):  # the thread whose turn it is is not in the new process
    os.register_at_fork(after_in_child=turn._at_fork_reinit)
