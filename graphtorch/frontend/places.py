"""Where a capture found something: variables, attributes, entries and the caches of functions that remember."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from types import CellType
from typing import Any

import numpy as np

from graphtorch.frontend.guards import GuardSet, equal_keys, is_scalar
from graphtorch.frontend.watch import Fact
from graphtorch.ir.equality import same_constant


class Cell:
    """A closure variable as a namespace of one entry."""

    def __init__(self, cell: CellType) -> None:
        self.cell = cell

    def get(self, key: Any) -> Any:
        return self.cell.cell_contents

    def __setitem__(self, key: Any, value: Any) -> None:
        self.cell.cell_contents = value


class ClassSpace:
    """The attributes of a class as a namespace."""

    def __init__(self, owner: type) -> None:
        self.owner = owner

    def get(self, key: str) -> Any:
        return vars(self.owner).get(key)

    def __setitem__(self, key: str, value: Any) -> None:
        setattr(self.owner, key, value)


class Slots:
    """The attributes of an object with `__slots__` as a namespace."""

    def __init__(self, owner: Any) -> None:
        self.owner = owner

    def get(self, key: str) -> Any:
        return getattr(self.owner, key, None)

    def __setitem__(self, key: str, value: Any) -> None:
        setattr(self.owner, key, value)


class Entries:
    """The entries of a list as a namespace."""

    def __init__(self, owner: list[Any]) -> None:
        self.owner = owner

    def get(self, key: int) -> Any:
        return self.owner[key] if key < len(self.owner) else None

    def __setitem__(self, key: int, value: Any) -> None:
        self.owner[key] = value


def owner_of(namespace: Any) -> Any:
    """The object whose entries or attributes a namespace has."""
    if type(namespace) is Cell:
        return namespace.cell
    return namespace.owner if type(namespace) in (ClassSpace, Slots, Entries) else namespace


def fetch(namespace: Any, key: Any) -> Any:
    """What is there."""
    return dict.__getitem__(namespace, key) if isinstance(namespace, dict) else namespace.get(key)


def put(namespace: Any, key: Any, value: Any) -> None:
    """Change it, as nothing but the place itself sees."""
    if isinstance(namespace, dict):
        dict.__setitem__(namespace, key, value)
    else:
        namespace[key] = value


def access(guards: GuardSet, namespace: Any, key: Any) -> str:
    """An expression for a place."""
    held = guards.name(owner_of(namespace))
    if isinstance(namespace, Cell):
        return f"{held}.cell_contents"
    if isinstance(namespace, Slots) or (isinstance(namespace, ClassSpace) and str(key).isidentifier()):
        return f"{held}.{key}"
    shown = repr(key) if type(key) in (str, int, bool, bytes) else guards.name(key)
    plain = type(namespace) in (dict, Entries)
    return f"{held}[{shown}]" if plain else f"{guards.name(dict.__getitem__)}({held}, {shown})"


def assignment(guards: GuardSet, namespace: Any, key: Any, value: str) -> str:
    """The statement that gives a place the value of an expression."""
    if isinstance(namespace, dict) and type(namespace) is not dict:
        shown = repr(key) if type(key) in (str, int, bool, bytes) else guards.name(key)
        return f"{guards.name(dict.__setitem__)}({guards.name(namespace)}, {shown}, {value})"
    return f"{access(guards, namespace, key)} = {value}"


@dataclass(frozen=True, slots=True)
class Place:
    """One variable, attribute or entry: how to name it in a guard, and what it held before the capture.

    `namespace[key]` is the place itself; None for one that can't be assigned (an argument, an entry of a list, whose
    changes the list's own copy shows). `cheap` is a faster expression for it. `assumed`: whether its content is
    assumed; that of a list is assumed entry by entry. `owner`: an expression for what the namespace belongs to, where
    another object may take its place.
    """

    expression: str
    meaning: str
    value: Any
    namespace: Any = None
    key: Any = None
    cheap: str | None = None
    fact: Fact | None = None  # what it depends on, if that is watched
    assumed: bool = True
    owner: str = ""

    @property
    def site(self) -> tuple[int, Any]:
        """The place as a key."""
        return id(owner_of(self.namespace)), self.key

    def changed(self) -> bool:
        """Whether the place holds something else now."""
        return self.namespace is not None and not same(self.namespace.get(self.key), self.value)

    def restore(self) -> None:
        """Put back what it held."""
        self.namespace[self.key] = self.value


@dataclass(slots=True)
class Holder:
    """Something whose attributes the code may mention: names in `seen` have been looked at."""

    expression: str
    meaning: str
    value: Any
    named: bool = False  # the expression is a name for this very object
    seen: frozenset[str] = frozenset()


class Memory:
    """A function that remembers what it gave (`functools.lru_cache`), and what it held before the capture."""

    def __init__(self, cached: Any) -> None:
        self.cached = cached
        self.before = cached.cache_info()
        self.keys = frozenset(self._entries())

    def _entries(self) -> dict[Any, Any]:
        """What the cache itself holds: a C object shows it to the garbage collector alone."""
        size, own = self.cached.cache_info().currsize, getattr(self.cached, "__dict__", None)
        found = (d for d in gc.get_referents(self.cached) if type(d) is dict and d is not own and len(d) == size)
        return next(found, {})

    def forget(self) -> bool:
        """Drop what the run added; returns whether there was something."""
        if self.cached.cache_info().misses == self.before.misses:
            return False
        entries = self._entries()
        for key in [k for k in entries if k not in self.keys]:
            del entries[key]
        return True

    def was_read(self) -> bool:
        """Whether the run got something that was remembered."""
        return bool(self.cached.cache_info().hits != self.before.hits)

    def held(self) -> tuple[Any, ...]:
        """The objects that the cache holds."""
        return tuple(gc.get_referents(self.cached)) + tuple(self._entries().values())

    def holds(self, objects: tuple[Any, ...]) -> bool:
        """Whether all of them are still there."""
        now = {id(o) for o in self.held()}
        return all(id(o) in now for o in objects)


def same(a: Any, b: Any) -> bool:
    """Whether two contents are one object, or scalars of the same type and bits."""
    return a is b or (is_scalar(a) and is_scalar(b) and same_constant(a, b))


def equal_arrays(a: Any, b: Any) -> bool:
    """Whether two arrays are alike, NaNs included."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.kind == "O":
        return same_entries(a.ravel().tolist(), b.ravel().tolist())
    if a.nbytes <= 1 << 16:
        return bool(a.tobytes() == b.tobytes())
    return np.array_equal(a.reshape(-1).view(np.uint8), b.reshape(-1).view(np.uint8))


def same_entries(container: Any, copy: Any) -> bool:
    """Whether a container has the entries of an earlier copy."""
    if len(container) != len(copy):
        return False
    if not isinstance(container, dict):
        return all(same(a, b) for a, b in zip(container, copy, strict=True))
    return equal_keys(list(container), list(copy)) and all(same(container[k], v) for k, v in copy.items())
