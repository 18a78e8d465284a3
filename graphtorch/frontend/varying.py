"""Which of the numbers that a function finds in Python objects change from call to call: counters that it advances
(`state["step"] += 1`, `self.updates += 1`), losses that it adds up, coefficients that somebody else sets.

They are found by their changing: where a run changes one, or where it is another than an earlier capture assumed. While
such a function is captured, numbers that note what is done with them (`tensor.tracked`) lie in these places, and
`frontend.arithmetic` has what each call repeats. Other places of plain values (a flag, a None that becomes a number)
are assumed as they are, and changed by each call as the run did."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphtorch.autograd.state import recorder_paused
from graphtorch.frontend.arithmetic import Read
from graphtorch.frontend.errors import PythonStateChange
from graphtorch.frontend.guards import GuardSet
from graphtorch.frontend.places import ClassSpace, Place, access, fetch, owner_of, put, same
from graphtorch.frontend.sources import Slot
from graphtorch.ir.builder import Traced
from graphtorch.ir.graph import Graph
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.tracked import TrackedNumber

if TYPE_CHECKING:
    from graphtorch.frontend.environment import Environment
    from graphtorch.frontend.recorder import Recorder

_NUMBERS = (int, float, np.float64)
_FLAGS = (bool, str, type(None))
_PLAIN = (*_NUMBERS, *_FLAGS)
_GONE = object()


class NumbersVary(PythonStateChange):
    """The function changes numbers that were taken for constants: it is captured again, with these noted. `graph` is
    what it computed with the constants, for code that may have asked for the class of a number."""

    def __init__(self, places: Sequence[Place], graph: Graph | None) -> None:
        super().__init__([place.meaning for place in places])
        self.places = places
        self.graph = graph


class Varying:
    """The places that one compiled function knows to change."""

    def __init__(self) -> None:
        self._owners: dict[tuple[int, Any], Any] = {}  # by site; alive, so that ids stay their own
        self._slots: dict[tuple[int, Any], Slot] = {}

    def __contains__(self, place: Place) -> bool:
        return place.site in self._owners

    def add(self, places: Iterable[Place]) -> bool:
        """Note more of them; whether there were any."""
        before = len(self._owners)
        for place in places:
            self._owners[place.site] = owner_of(place.namespace)
        return len(self._owners) > before

    def slot(self, place: Place) -> Slot:
        """What later calls find in a place that held a tensor."""
        found = self._slots.setdefault(place.site, Slot(place.namespace, place.key, place.value))
        found.tensor = place.value
        return found

    def compare(self, places: Iterable[Place]) -> None:
        """Note those of an earlier capture that hold another number now."""
        for place in places:
            now = _content(place)
            if type(now) is type(place.value) and not same(now, place.value):
                self.add([place])


class TrackedPlaces:
    """The varying places during one capture.

    changes  (place, what it becomes) where a run changed what is tracked, or another plain value
    flags    those of them that hold no number
    fresh    numbers that the run changed, which were taken for constants
    """

    def __init__(self, environment: Environment, varying: Varying | None, recorder: Recorder) -> None:
        self.environment = environment
        self.varying = varying
        self.arithmetic = recorder.arithmetic
        self.recorder = recorder
        self.set_again = recorder.set_numbers  # by site: options of optimizers that the run has set
        self.changes: list[tuple[Place, Any]] = []
        self.flags: list[Place] = []
        self.fresh: list[Place] = []
        self._tracked: dict[tuple[int, Any], tuple[Place, TrackedNumber]] = {}
        self._slots: dict[tuple[int, Any], Slot] = {}
        self._kinds: dict[int, tuple[Tensor, type]] = {}  # by id, tensors in slots and their classes
        self._seen = 0  # how many of the environment's places have been looked at

    def __contains__(self, place: Place) -> bool:
        return place.namespace is not None and (place.site in self._tracked or place.site in self._slots)

    def install(self) -> None:
        """Put tracked numbers in the places that are known by now."""
        places, self._seen = self.environment.places[self._seen :], len(self.environment.places)
        varying = self.varying
        if varying is None:
            return
        for place in places:
            if isinstance(place.value, Tensor) and place.namespace is not None and place in varying:
                self._install_tensor(place, varying)
            if not is_number(place) or place not in varying:
                continue
            if place.site not in self._tracked and _content(place) is place.value:
                entry = isinstance(place.namespace, dict) and bool(place.owner) and not place.owner.endswith("__")
                number = self.arithmetic.read(place.namespace, place.key, place.value, shared=entry)
                self._tracked[place.site] = place, number
                put(place.namespace, place.key, number)

    def _install_tensor(self, place: Place, varying: Varying) -> None:
        """Let a tensor in whose place each call may put another one note whether it is looked at."""
        tensor, slots = place.value, self.recorder.slots
        if place.site in self._slots:
            return
        slot = self._slots[place.site] = varying.slot(place)
        if id(tensor) in slots:
            self.recorder.shared.add(id(tensor))
        slots[id(tensor)] = slot
        self._kinds.setdefault(id(tensor), (tensor, type(tensor)))
        tensor.__class__ = _noting(self._kinds[id(tensor)][1])

    def restore(self) -> None:
        """Put back the numbers, where nothing else has come in their places, and the classes of tensors."""
        self._restore_classes()
        for place, number in self._tracked.values():
            if _content(place) is number:
                put(place.namespace, place.key, place.value)

    def collect(self) -> None:
        """After a run: find what it has changed, and put that back."""
        self._end_slots()
        seen: set[tuple[int, Any]] = set()
        for place in self.environment.places:
            plain = type(place.value) in _PLAIN or isinstance(place.value, Tensor)
            if place.namespace is None or not plain or place.site in seen:
                continue
            seen.add(place.site)
            now = _content(place)
            tracked = self._tracked.get(place.site)
            if tracked is not None and type(now) is TrackedNumber and now.index == tracked[1].index:
                put(place.namespace, place.key, place.value)
                continue
            known = same(now, place.value)
            rewritten = known and place.site in self.set_again
            followed = tracked is not None or place.site in self._slots
            if (tracked is not None or not known or rewritten) and self._is_plain(place, now):
                put(place.namespace, place.key, place.value)
                if not followed and not known and type(place.value) not in _FLAGS:
                    self.fresh.append(place)
                    continue
                self.changes.append((place, now))
                if not followed and not known:
                    self.flags.append(place)
                if type(now) is TrackedNumber:
                    self.arithmetic.used.add(now.index)

    def _restore_classes(self) -> set[int]:
        """Give tensors their classes back; the ids of those that were looked at."""
        for tensor, kind in self._kinds.values():
            tensor.__class__ = kind
        found = _looked_at.intersection(self._kinds)
        _looked_at.difference_update(found)
        return found

    def _end_slots(self) -> None:
        """Assume what was asked of tensors."""
        seen = self._restore_classes()
        for slot in self._slots.values():
            if id(slot.tensor) in seen:
                with recorder_paused():
                    self.recorder.capture(slot.tensor)

    def _is_plain(self, place: Place, value: Any) -> bool:
        """Whether a value can be put into a place at each call."""
        if isinstance(value, Tensor):
            owner = place.namespace
            return isinstance(value._data, Traced) and not self.environment.attributes.sets(
                owner, place.key, self.environment.reads
            )
        return type(value) in _PLAIN or type(value) is TrackedNumber

    def add_guards(self, guards: GuardSet, assumed: set[int]) -> None:
        """Assume what each call reads and changes: that the objects which have these places are the same, if those
        with ids in `assumed` are not assumed to be that anyway, and how the arithmetic goes."""
        arithmetic = self.arithmetic
        arithmetic.finish()
        nodes = (arithmetic.nodes[e] for e in arithmetic.events if isinstance(e, int))
        sites = {(id(owner_of(n)), key) for r in nodes if isinstance(r, Read) for n, key in r.places()}
        used = [place for site, (place, _) in self._tracked.items() if site in sites]
        used += [p for p in self.environment.places if p.namespace is not None and p.site in self._slots]
        for place in (*used, *(place for place, _ in self.changes)):
            owner = owner_of(place.namespace)
            if place.owner and id(owner) not in assumed:
                guards.add(f"{place.owner} is {guards.name(owner)}", f"what has {place.meaning} was the same object")
            elif type(place.namespace) is ClassSpace:  # which a derived class may hide
                found = access(guards, place.namespace, place.key)
                guards.add(f"{place.expression} is {found}", f"{place.meaning} was that of {owner.__name__}")
        if arithmetic:
            held = f"{guards.name(arithmetic)}.holds(leaves)"
            guards.add(held, "the numbers that it computes with led to the same answers", "")
            guards.explanations[held] = arithmetic.failure


def is_number(place: Place) -> bool:
    """Whether a place that may change holds a number."""
    return place.namespace is not None and type(place.value) in _NUMBERS


def _content(place: Place) -> Any:
    """What a place holds now; _GONE for an entry that is not there."""
    try:
        return fetch(place.namespace, place.key)
    except (KeyError, ValueError):
        return _GONE


_looked_at: set[int] = set()  # ids of tensors in slots


@functools.cache
def _noting(kind: type) -> type:
    """A class of tensors that note whether anything is asked of them."""

    find: Any = kind.__getattribute__

    def note(self: Any, name: str) -> Any:
        _looked_at.add(id(self))
        return find(self, name)

    return type(kind.__name__, (kind,), {"__getattribute__": note, "__module__": kind.__module__})


__all__ = ["NumbersVary", "TrackedPlaces", "Varying", "is_number"]
