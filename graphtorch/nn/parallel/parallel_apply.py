"""Several modules on several inputs, one after another: `parallel_apply`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphtorch.nn.modules.module import Module

__all__ = ["parallel_apply"]


def parallel_apply(
    modules: Sequence[Module], inputs: Sequence[Any], kwargs_tup: Sequence[Any] | None = None, devices: Any = None
) -> list[Any]:
    """The result of each module on its inputs (a tuple of them, or one). Raises AssertionError for unequal numbers."""
    named = ({},) * len(modules) if kwargs_tup is None else kwargs_tup
    for others, what in ((inputs, "inputs"), (named, "kwargs_tup"), (devices, "devices")):
        if others is not None and len(others) != len(modules):
            raise AssertionError(
                f"The number of modules {len(modules)} is not equal to the number of {what} {len(others)}"
            )
    found = []
    for module, given, options in zip(modules, inputs, named, strict=True):
        args = tuple(given) if isinstance(given, list | tuple) else (given,)
        found.append(module(*args, **options))
    return found
