"""The named tuples that operators with several results return, `torch.return_types`."""

from __future__ import annotations

from typing import Any

from graphtorch.ops.build import RETURN_TYPES


def __getattr__(name: str) -> Any:
    found = RETURN_TYPES.get(name)
    if found is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *RETURN_TYPES})
