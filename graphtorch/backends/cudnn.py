"""Switches of cuDNN. `allow_tf32` decides about float32 convolutions on GPUs, the others are kept and not used. See
https://docs.pytorch.org/docs/stable/backends.html."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from graphtorch.tensor.precision import settings

enabled = True
deterministic = False
benchmark = False
benchmark_limit: int | None = 10
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
    scope = sys.modules[__name__]
    given = {
        "enabled": enabled,
        "benchmark": benchmark,
        "benchmark_limit": benchmark_limit,
        "deterministic": deterministic,
        "allow_tf32": allow_tf32,
        "fp32_precision": fp32_precision,
    }
    previous = {name: getattr(scope, name) for name in given}
    try:
        for name, value in given.items():
            setattr(scope, name, value)
        yield
    finally:
        for name, value in previous.items():
            setattr(scope, name, value)


class _Module(ModuleType):
    """The module, with a switch that lies elsewhere."""

    @property
    def allow_tf32(self) -> bool:
        """Whether float32 convolutions may run in tf32."""
        return settings.convolution

    @allow_tf32.setter
    def allow_tf32(self, allowed: bool) -> None:
        settings.convolution = bool(allowed)


sys.modules[__name__].__class__ = _Module
