"""Switches of cuDNN, kept and not used. See https://docs.pytorch.org/docs/stable/backends.html."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

enabled = True
deterministic = False
benchmark = False
benchmark_limit: int | None = 10
allow_tf32 = True
fp32_precision = "none"


def is_available() -> bool:
    """Whether cuDNN is there."""
    return False


def version() -> int | None:
    """The version of cuDNN; None without it."""
    return None


def is_acceptable(tensor: Any) -> bool:
    """Whether cuDNN could take a tensor."""
    return False


@contextmanager
def flags(
    enabled: bool = False,
    benchmark: bool = False,
    benchmark_limit: int | None = 10,
    deterministic: bool = False,
    allow_tf32: bool = True,
    fp32_precision: str = "none",
) -> Iterator[None]:
    """Set the switches for a block."""
    scope = globals()
    given = {
        "enabled": enabled,
        "benchmark": benchmark,
        "benchmark_limit": benchmark_limit,
        "deterministic": deterministic,
        "allow_tf32": allow_tf32,
        "fp32_precision": fp32_precision,
    }
    previous = {name: scope[name] for name in given}
    scope.update(given)
    try:
        yield
    finally:
        scope.update(previous)
