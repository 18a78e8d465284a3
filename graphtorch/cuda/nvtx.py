"""Marks for NVIDIA's profilers, which there are none of: as in PyTorch's build for the CPU, each call is an error.

See https://docs.pytorch.org/docs/stable/cuda.html#nvidia-tools-extension-nvtx."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

__all__ = ["mark", "range", "range_end", "range_pop", "range_push", "range_start"]


def _refuse() -> NoReturn:
    raise RuntimeError("NVTX functions not installed. Are you sure you have a CUDA build?")


def range_push(msg: str) -> int:
    """Begin a nested range. Raises RuntimeError."""
    _refuse()


def range_pop() -> int:
    """End a nested range. Raises RuntimeError."""
    _refuse()


def range_start(msg: str) -> int:
    """Begin a range. Raises RuntimeError."""
    _refuse()


def range_end(range_id: int) -> None:
    """End a range. Raises RuntimeError."""
    _refuse()


def mark(msg: str) -> None:
    """Mark an instant. Raises RuntimeError."""
    _refuse()


@contextmanager
def range(msg: str, *args: Any, **kwargs: Any) -> Iterator[None]:
    """A block as a range. Raises RuntimeError."""
    range_push(msg.format(*args, **kwargs))
    yield
