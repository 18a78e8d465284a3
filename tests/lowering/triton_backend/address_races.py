"""Races within launches, by address: what Triton's interpreter, which runs one program after another, does not show.

On a GPU the programs of a launch run in any order, and the threads of a program meet at no barrier between a store to
memory and a load. `watch()` notes which bytes each program of each launch loads and stores, and raises at the end of a
launch for those that one program stores and another loads or stores, for those that a program stores and then loads or
stores again, and for atomic additions to what is accessed otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

Places = tuple[int, int, int]


class Watched:
    """The accesses of one launch: the first bytes of elements, and the programs that accessed them."""

    def __init__(self) -> None:
        self.accesses: dict[str, list[tuple[np.ndarray[Any, Any], Places]]] = {"load": [], "store": [], "atomic": []}
        self.found: set[str] = set()
        self.stored: dict[Places, np.ndarray[Any, Any]] = {}

    def note(self, kind: str, pointers: Any, mask: Any, program: Places) -> None:
        places, wanted = np.broadcast_arrays(np.asarray(pointers), np.asarray(mask).astype(bool))
        addresses = np.unique(places[wanted].astype(np.int64))
        before = self.stored.get(program, addresses[:0])
        if kind != "atomic" and np.isin(addresses, before, assume_unique=True).any():
            self.found.add(f"a {kind} after a store in one program")
        if kind == "store":
            self.stored[program] = np.union1d(before, addresses)
        self.accesses[kind].append((addresses, program))

    def pairs(self, kind: str, numbers: dict[Places, int]) -> np.ndarray[Any, Any]:
        """(address, program) of all accesses, each once."""
        made = [np.stack([a, np.full_like(a, numbers.setdefault(p, len(numbers)))], 1) for a, p in self.accesses[kind]]
        return np.unique(np.concatenate(made), axis=0) if made else np.empty((0, 2), np.int64)

    def races(self) -> set[str]:
        numbers: dict[Places, int] = {}
        stored, loaded, atomic = (self.pairs(kind, numbers) for kind in ("store", "load", "atomic"))
        places, counts = np.unique(stored[:, 0], return_counts=True)
        if (counts > 1).any():
            self.found.add("stores of several programs")
        shared = loaded[np.isin(loaded[:, 0], places)]
        owners = stored[np.searchsorted(stored[:, 0], shared[:, 0]), 1]
        if (owners != shared[:, 1]).any():
            self.found.add("loads of what another program stores")
        if np.isin(atomic[:, 0], np.concatenate([stored[:, 0], loaded[:, 0]])).any():
            self.found.add("atomic additions to what is accessed otherwise")
        return self.found


class _Memory:
    """The interpreter's access to memory, with notes."""

    def __init__(self, real: Any, builder: Any) -> None:
        self.real, self.builder = real, builder
        self.watched: Watched | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def _note(self, kind: str, pointers: Any, mask: Any) -> None:
        if self.watched is not None:
            self.watched.note(kind, pointers, mask, tuple(self.builder.grid_idx))

    def load(self, pointers: Any, mask: Any, *rest: Any) -> Any:
        self._note("load", pointers, mask)
        return self.real.load(pointers, mask, *rest)

    def store(self, pointers: Any, value: Any, mask: Any) -> Any:
        self._note("store", pointers, mask)
        return self.real.store(pointers, value, mask)

    def atomic_rmw(self, operation: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        self._note("atomic", pointers, mask)
        return self.real.atomic_rmw(operation, pointers, value, mask, *rest)


@contextmanager
def watch() -> Iterator[list[str]]:
    """A block in which races of launches raise AssertionError; the names of the kernels that were launched in it."""
    import triton.runtime.interpreter as module

    from graphtorch.lowering.triton import interpreter as mine

    real, interpret = module._interpreter, mine.interpret
    memory = _Memory(real, module.interpreter_builder)
    launched: list[str] = []

    def watching(source: str, name: str, *rest: Any) -> None:
        launched.append(name)
        memory.watched = Watched()
        try:
            interpret(source, name, *rest)
            races = memory.watched.races()
        finally:
            memory.watched = None
        assert not races, f"{name}: {', '.join(sorted(races))}\n{source}"

    module._interpreter, mine.interpret = memory, watching
    try:
        yield launched
    finally:
        module._interpreter, mine.interpret = real, interpret
