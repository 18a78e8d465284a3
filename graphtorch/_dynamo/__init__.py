"""PyTorch's other name for some of `graphtorch.compiler`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphtorch._dynamo import config, exc
from graphtorch.compiler import (
    allow_in_graph,
    disable,
    is_compiling,
    list_backends,
    mark_dynamic,
    mark_static,
    maybe_mark_dynamic,
    reset,
)
from graphtorch.frontend.compiler import CompiledFunction


def explain(function: Any) -> Callable[..., Any]:
    """`explain(f)(*args)`: compile a function for these arguments, and say what became of it. See
    torch._dynamo.explain."""
    compiled = function if isinstance(function, CompiledFunction) else CompiledFunction(function)

    def run(*args: Any, **kwargs: Any) -> Any:
        compiled(*args, **kwargs)
        return compiled.explain()

    return run


__all__ = [
    "allow_in_graph",
    "config",
    "disable",
    "exc",
    "explain",
    "is_compiling",
    "list_backends",
    "mark_dynamic",
    "mark_static",
    "maybe_mark_dynamic",
    "reset",
]
