"""What messages call a compiled function and its arguments: a compiled module by its class and its forward's names."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def _module(function: Any) -> Any:
    """The module whose calls a function are, or None."""
    owner = getattr(function, "__self__", None)
    called = hasattr(owner, "_compiled_call_impl") and getattr(function, "__name__", "") == "_call_impl"
    return owner if called else None


def name_of(function: Callable[..., Any]) -> str:
    """A name for a graph."""
    module = _module(function)
    found: str = getattr(function, "__name__", type(function).__name__) if module is None else type(module).__name__
    return found


def title_of(function: Callable[..., Any]) -> str:
    """A name with those of what is around it."""
    module = _module(function)
    found: str = getattr(function, "__qualname__", str(function)) if module is None else type(module).__qualname__
    return found


def parameters_of(function: Callable[..., Any]) -> list[str]:
    """The names of the parameters; none where there is no signature."""
    module = _module(function)
    try:
        return [*inspect.signature(function if module is None else module.forward).parameters]
    except (TypeError, ValueError):
        return []


def labels_of(function: Callable[..., Any], tree: Any, count: int) -> list[str]:
    """Readable names of the argument leaves, from the signature."""
    parameters = parameters_of(function)
    labels: list[str] = []

    def walk(node: Any, prefix: str) -> None:
        children = getattr(node, "children", None)
        if children is None:
            labels.append(prefix)
            return
        keys = node.keys if node.keys is not None else range(len(children))
        for key, child in zip(keys, children, strict=True):
            walk(child, f"{prefix}.{key}" if prefix else str(key))

    positional, keywords = tree.children
    for i, child in enumerate(positional.children):
        walk(child, parameters[i] if i < len(parameters) else f"arg{i}")
    for key, child in zip(keywords.keys or (), keywords.children, strict=True):
        walk(child, str(key))
    assert len(labels) == count
    return labels
