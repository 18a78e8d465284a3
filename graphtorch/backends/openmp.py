"""Questions about OpenMP, which nothing here uses."""

from __future__ import annotations


def is_available() -> bool:
    """Whether operators use it."""
    return False
