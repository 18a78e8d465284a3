"""Questions about Apple's Metal, on which no tensor can live."""

from __future__ import annotations


def is_available() -> bool:
    """Whether tensors can live on it."""
    return False


def is_built() -> bool:
    """Whether operators were built for it."""
    return False


def is_macos13_or_newer(minor: int = 0) -> bool:
    """Whether the system is macOS 13 or newer; asked only for Metal."""
    return False
