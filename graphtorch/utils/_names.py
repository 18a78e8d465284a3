"""The name of a value's type as it appears in error messages."""

from __future__ import annotations

from typing import Any

from graphtorch.tensor.tensor import Tensor

__all__ = ["typename"]


def typename(value: Any) -> str:
    """Return ``torch.FloatTensor`` for a tensor, else the qualified name of the class without ``builtins``."""
    if isinstance(value, Tensor):
        return str(value.type())
    name = getattr(value, "__qualname__", None) or type(value).__name__
    module = getattr(value, "__module__", None)
    return name if module in (None, "", "builtins") else f"{module}.{name}"
