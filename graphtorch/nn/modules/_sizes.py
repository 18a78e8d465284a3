"""Spreading one size over all spatial dimensions, as the constructors of convolutions and poolings accept it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Size = int | tuple[int, ...]


def repeat(value: Any, count: int) -> tuple[Any, ...]:
    """A tuple of ``count`` times ``value``, or ``value`` itself as a tuple where it is a sequence already."""
    return tuple(value) if isinstance(value, Iterable) else (value,) * count


def pair(value: Any) -> tuple[Any, ...]:
    """``repeat`` for two spatial dimensions."""
    return repeat(value, 2)
