"""Threads take turns at capturing.

A capture puts watchers in the places of functions and attributes, and tracked numbers in the user's objects, and takes
them out again: two at once would take each other's for the user's own. And what one thread is compiling, others that
need the same should wait for."""

from __future__ import annotations

import threading

turn = threading.RLock()  # a captured function may call, and so capture, others
