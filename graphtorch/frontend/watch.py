"""Watching Python objects for changes, thousands at once in a microsecond.

A training step assumes some ten facts of every parameter, module and optimizer state, as many look-ups before each call
if Python makes them. But CPython gives each dictionary a version, a number that is new after any change of its entries
(PEP 509), and an object's attributes are such a dictionary. A `Watch` knows where in memory these numbers lie, reads
them with one NumPy gather and compares bytes. If they are what they were when the guards held, nothing has changed; if
not, the guards are evaluated. Nobody has to report changes, so none can be forgotten.

Only words of objects are read that the watch itself keeps alive. Where Python has no such versions (3.13 and later,
free-threaded builds, other interpreters), which `available` finds out by trying, nothing is watched."""

from __future__ import annotations

import sys
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from graphtorch.tensor.remote import window
from graphtorch.tensor.storage import UntypedStorage, Writer
from graphtorch.tensor.tensor import Tensor

# What is watched, class and "attributes" of an object or "entries" of a dictionary, and the object's id.
Fact = tuple[str, int]
Array = np.ndarray[Any, Any]

_WORD = 8
_CLASS = _WORD  # in any object: after the reference count
_VERSION = 3 * _WORD  # in a dictionary: after reference count, type and number of entries
_FIRST = _WORD  # where `memory` begins: NumPy makes no array at address 0
_PATIENCE = 4  # changes of what holds true nevertheless, after which it is looked at entry by entry


@cache
def memory() -> Array:
    """This process's memory as an array of words, of which only those of live objects may be read."""
    return np.frombuffer(window(_FIRST, 1 << 59), np.int64)


def places(addresses: Sequence[int]) -> Array:
    """Where in `memory` the words at some addresses are."""
    return (np.array(addresses, np.int64) - _FIRST) // _WORD


def version_address(entries: dict[Any, Any]) -> int:
    """Where the version of a dictionary is."""
    return id(entries) + _VERSION


def read(addresses: Sequence[int]) -> list[int]:
    """The words at some addresses."""
    found: list[int] = memory().take(places(addresses)).tolist()
    return found


_OFFSETS: dict[type, int | None] = {}


def dictionary_offset(kind: type) -> int | None:
    """Where objects of a class have the reference to their `__dict__`, from their beginning; None if not found."""
    if kind not in _OFFSETS:
        _OFFSETS[kind] = _found_offset(kind)
    return _OFFSETS[kind]


def _found_offset(kind: type) -> int | None:
    if kind.__dictoffset__ > 0:
        return kind.__dictoffset__
    sample = _Sample()
    held = id(vars(sample))
    before = [-n * _WORD for n in range(1, 5)]  # one of the words before an object, the same for all classes
    words = read([id(sample) + n for n in before])
    return before[words.index(held)] if kind.__dictoffset__ < 0 and held in words else None


class _Sample:
    """An object to try things with."""


@cache
def available() -> bool:
    """Whether dictionaries of this interpreter have versions where they are looked for."""
    if sys.implementation.name != "cpython" or sys.maxsize < 1 << 62 or sysconfig.get_config_var("Py_GIL_DISABLED"):
        return False
    sample: Any = _Sample()
    own = vars(sample)
    if dictionary_offset(_Sample) is None:
        return False

    def store(value: int) -> None:
        for _ in range(64):  # until the interpreter has specialised the instruction
            sample.a = value

    changes: list[Callable[[], Any]] = [
        *(lambda: store(1), lambda: store(2), lambda: own.update(b=1), lambda: own.__setitem__("b", 2)),
        *(lambda: own.__delitem__("b"), lambda: setattr(sample, "c", 1), lambda: delattr(sample, "c"), own.clear),
    ]
    version = version_address(own)
    seen = read([version])
    for change in changes:
        change()
        seen += read([version])
        own.get("a")
        if read([version])[0] != seen[-1]:
            return False
    return len(set(seen)) == len(seen)


class Seen(NamedTuple):
    """A state: the words at some places, and the objects whose they are."""

    places: Array
    words: bytes
    owners: list[Fact]  # of each word
    kept: list[Any]


class Watch:
    """The objects that guards say they depend on."""

    def __init__(self) -> None:
        self._objects: dict[Fact, Any] = {}

    def attributes(self, owner: Any) -> Fact | None:
        """The class and the attributes of an object; None where they can't be watched."""
        if not available() or type(getattr(owner, "__dict__", None)) is not dict:
            return None
        if dictionary_offset(type(owner)) is None:
            return None
        self._objects["attributes", id(owner)] = owner
        return "attributes", id(owner)

    def entries(self, held: Any) -> Fact | None:
        """The entries of a dictionary; None for what is none."""
        if not available() or not isinstance(held, dict):
            return None
        self._objects["entries", id(held)] = held
        return "entries", id(held)

    def look(self, facts: Iterable[Fact]) -> Seen:
        """The state of now."""
        addresses: list[int] = []
        owners: list[Fact] = []
        kept: list[Any] = []
        for fact in facts:
            held = self._objects[fact]
            if fact[0] == "attributes":
                addresses += [id(held) + _CLASS, id(held) + (dictionary_offset(type(held)) or 0)]
                owners += [fact, fact]
                held = vars(held)
            addresses.append(version_address(held))
            owners.append(fact)
            kept.append(held)
        at = places(addresses)
        return Seen(at, memory().take(at).tobytes(), owners, kept)


class Settled:
    """The guards that depend on watched objects alone: what a replay asks instead of evaluating them.

    A replay compares `memory().take(places).tobytes()` with `seen`, names in the guards' scope, and calls `refresh`
    where they differ. What is seen to change again and again while its guards hold (an attribute that counts something)
    is no longer watched: `rest` has these guards, None as long as there are none.
    """

    def __init__(self, watch: Watch, scope: dict[str, Any], conditions: Sequence[tuple[str, tuple[Fact, ...]]]) -> None:
        self._watch = watch
        self._scope = scope
        self._conditions = conditions
        self._changes: dict[Fact, int] = {}
        self._volatile: set[Fact] = set()
        self._holds: Callable[[], bool] | None = None
        self._state: Seen | None = None
        self._counted: list[tuple[Tensor, UntypedStorage | None]] = []
        self._writer: Writer | None = None
        self.facts = {f for _, of in conditions for f in of}
        scope.update(places=places([]), seen=None, rest=None)

    def counts(self, tensors: Sequence[Tensor], writer: Writer) -> None:
        """Let the writer's count be part of the versions of these tensors' memory."""
        self._counted = [(t, None) for t in tensors]
        self._writer = writer
        self._attach()

    def _attach(self) -> None:
        if any(tensor._storage is not storage for tensor, storage in self._counted):
            held = [(tensor, tensor._shared_storage()) for tensor, _ in self._counted]
            for storage, times in Counter(storage for _, storage in held).items():
                assert self._writer is not None
                self._writer.writes_to(storage, times)
            self._counted = list(held)

    def look(self) -> Seen:
        """The state of now: look before the guards are evaluated, and install it if they hold."""
        self._attach()
        facts = dict.fromkeys(f for _, of in self._conditions if self._volatile.isdisjoint(of) for f in of)
        return self._watch.look(facts)

    def install(self, state: Seen) -> None:
        """The guards held in this state."""
        self._state = state
        self._scope.update(places=state.places, seen=state.words)

    def refresh(self) -> bool:
        """Evaluate the guards because something has changed; whether they hold."""
        state = self.look()
        if self._holds is None:
            self._holds = self._compiled(volatile=False)
        try:
            if not self._holds():
                return False
        except (AttributeError, KeyError, IndexError, TypeError, ValueError, NameError):
            return False
        self._note_changes(state)
        self.install(state)
        return True

    def _note_changes(self, state: Seen) -> None:
        """Stop to watch what changes too often."""
        before = self._state
        if before is None or before.owners != state.owners:
            return
        different = np.frombuffer(before.words, np.int64) != np.frombuffer(state.words, np.int64)
        for fact in {state.owners[i] for i in np.flatnonzero(different)}:
            self._changes[fact] = self._changes.get(fact, 0) + 1
            if self._changes[fact] > _PATIENCE:
                self._volatile.add(fact)
                self._holds = None
        if self._holds is None:
            self._scope["rest"] = self._compiled(volatile=True)

    def _compiled(self, volatile: bool) -> Callable[[], bool]:
        chosen = [text for text, of in self._conditions if volatile is not self._volatile.isdisjoint(of)]
        made: Callable[[], bool] = eval(f"lambda: {' and '.join(chosen) or 'True'}", self._scope)
        return made


__all__ = [
    *("Fact", "Seen", "Settled", "Watch", "available", "dictionary_offset", "memory", "places", "read"),
    "version_address",
]
