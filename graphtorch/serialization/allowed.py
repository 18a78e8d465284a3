"""Classes and functions of the user's own that `load` may call: `torch.serialization.add_safe_globals` and its kin.

What is named here is trusted: a file can have objects of these classes made, with whatever state it holds.
See https://docs.pytorch.org/docs/stable/notes/serialization.html."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

__all__ = ["add_safe_globals", "clear_safe_globals", "get_safe_globals", "safe_globals"]

Entry = Callable[..., Any] | tuple[Callable[..., Any], str]

_allowed: dict[str, tuple[Any, Entry]] = {}  # by the name that files have: the object, and what the user gave


def _named(entry: Entry) -> tuple[str, Any]:
    if isinstance(entry, tuple):
        return entry[1], entry[0]
    return f"{entry.__module__}.{entry.__qualname__}", entry


def add_safe_globals(safe_globals: Sequence[Entry]) -> None:
    """Let `load` call these classes and functions, or `(object, "module.name")` where files know it by another name."""
    for entry in safe_globals:
        name, value = _named(entry)
        _allowed[name] = value, entry


def clear_safe_globals() -> None:
    """Let `load` call none of them any more."""
    _allowed.clear()


def get_safe_globals() -> list[Entry]:
    """What `add_safe_globals` was given."""
    return [entry for _, entry in _allowed.values()]


class safe_globals:
    """A block in which `load` may call these, too."""

    def __init__(self, safe_globals: Sequence[Entry]) -> None:
        self.entries = list(safe_globals)
        self._before: list[dict[str, tuple[Any, Entry]]] = []

    def __enter__(self) -> None:
        self._before.append(dict(_allowed))
        add_safe_globals(self.entries)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _allowed.clear()
        _allowed.update(self._before.pop())


def found(name: str) -> Any:
    """The object of a name in a file; None if it is none of these."""
    held = _allowed.get(name)
    return None if held is None else held[0]


def is_allowed_class(kind: type) -> bool:
    """Whether objects of a class may be made."""
    return any(value is kind for value, _ in _allowed.values())
