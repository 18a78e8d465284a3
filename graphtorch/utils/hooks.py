"""Handles of registered hooks, and the nodes that modules' backward hooks hang on.

See https://docs.pytorch.org/docs/stable/generated/torch.utils.hooks.RemovableHandle.html"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from graphtorch.autograd.hooks import RemovableHandle
from graphtorch.nn.modules._hooks import BackwardHook
from graphtorch.tensor.tensor import Tensor

__all__ = ["BackwardHook", "RemovableHandle", "unserializable_hook", "warn_if_has_hooks"]

F = TypeVar("F", bound=Callable[..., Any])


def unserializable_hook(f: F) -> F:
    """Mark a hook that need not be saved with its tensor: no warning then says that it is not."""
    f.__torch_unserializable__ = True  # type: ignore[attr-defined]
    return f


def warn_if_has_hooks(tensor: Tensor) -> None:
    """Warn of the hooks on a tensor that a file would not hold."""
    for hook in (tensor._hooks or {}).values():
        if not hasattr(hook, "__torch_unserializable__"):
            warnings.warn(
                f"backward hook {hook!r} on tensor will not be serialized.  If this is expected, you can decorate the "
                "function with @torch.utils.hooks.unserializable_hook to suppress this warning",
                stacklevel=2,
            )
