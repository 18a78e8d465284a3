"""What a function uses of this package, which a program may replace: `F.relu = mine`, `nn.Linear.forward = mine`.

The package's own code is not followed. But it is assumed that the names which the user's code mentions stand for the
same functions, by one guard for each Python module, and that classes of modules have the same `forward`."""

from __future__ import annotations

import gc
from operator import attrgetter, itemgetter
from types import ModuleType
from typing import Any

from graphtorch.frontend.guards import GuardSet


class LibraryUses:
    """The functions of the package's Python modules, and the classes of its nn.Modules, that a capture depends on."""

    def __init__(self) -> None:
        self._spaces: dict[int, tuple[ModuleType, set[str]]] = {}
        self._classes: dict[type, None] = {}

    def note(self, space: ModuleType, name: str) -> None:
        """The code mentions a function of a Python module."""
        self._spaces.setdefault(id(space), (space, set()))[1].add(name)

    def note_class(self, kind: type) -> None:
        """A module of this class is called."""
        self._classes[kind] = None

    def add_guards(self, guards: GuardSet) -> None:
        """Assume that all of them are what they were."""
        for space, names in self._spaces.values():
            held, look = vars(space), itemgetter(*sorted(names))
            same = f"{guards.name(look)}({guards.name(held)}) == {guards.name(look(held))}"
            guards.add(same, f"the functions of {space.__name__} were the same", facts=(guards.watch.entries(held),))
        for kind in self._classes:
            same = f"{guards.name(kind)}.forward is {guards.name(attrgetter('forward')(kind))}"
            guards.add(same, f"{kind.__name__}.forward was the same", facts=(guards.watch.entries(_attributes(kind)),))


def _attributes(kind: type) -> Any:
    """The dictionary behind a class's `__dict__`, which shows it only; None if it is not found."""
    return next((held for held in gc.get_referents(vars(kind)) if type(held) is dict), None)
