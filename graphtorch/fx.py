"""`torch.fx`'s mark: packages say of functions how a tracer of Python would treat them. There is none here.

`graphtorch.compile` captures whole programs; `graphtorch dump` prints what it has captured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

Marked = TypeVar("Marked", str, Callable[..., Any])


def wrap(fn_or_name: Marked) -> Marked:
    """What was given. Raises RuntimeError for what is neither a function nor the name of one."""
    if not callable(fn_or_name) and not isinstance(fn_or_name, str):
        raise RuntimeError("Unsupported type for global function! Must be either a callable or string name")
    return fn_or_name


def symbolic_trace(*args: Any, **kwargs: Any) -> NoReturn:
    """Raises RuntimeError: nothing is traced. Use `graphtorch.compile`."""
    raise RuntimeError(
        "graphtorch has no torch.fx; graphtorch.compile captures programs, `graphtorch dump` prints them"
    )
