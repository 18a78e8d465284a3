"""Which attributes of the user's objects a capture reads.

Code mentions names; whose attributes they are shows only when it runs. `trainer.step` is a counter that changes at each
call and `optimizer.step` a method: assuming both would compile again and again. So while a function is captured, the
classes of the objects that it can reach note what is looked up. They note what is set, too: where a run leaves behind
what it found, a later one, which would find something else, must be told apart."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from graphtorch.frontend.places import Place, same
from graphtorch.ir.builder import Traced
from graphtorch.tensor.tensor import Tensor

_lock = threading.Lock()
_noting: dict[type, tuple[int, Any, Any]] = {}  # class -> how many logs want it, and what it had of its own
_logs: tuple[ReadLog, ...] = ()
_NOTHING = object()
_HOOKS = "__getattribute__", "__setattr__"
WHOLE = frozenset(("__dict__", "__getstate__", "__reduce__", "__reduce_ex__"))  # what asks for all attributes


class ReadLog:
    """The attributes that were read of some objects, while the log is entered.

    writes  by the object's id, those that were set, and what they had been"""

    def __init__(self, owners: Iterable[Any]) -> None:
        self.owners = {id(owner): owner for owner in owners}
        self.reads: dict[int, set[str]] = {}
        self.writes: dict[int, dict[str, Any]] = {}
        self.classes = {type(owner) for owner in self.owners.values()}
        self._watched: list[type] = []
        self._paused = False

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What is read inside is not noted."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def extend(self, owners: Iterable[Any]) -> None:
        """More objects, while the log is entered."""
        with _lock:
            for owner in owners:
                self.owners.setdefault(id(owner), owner)
                if type(owner) not in self.classes:
                    self.classes.add(type(owner))
                    if _watch(type(owner)):
                        self._watched.append(type(owner))

    def names(self, owner: Any) -> set[str] | None:
        """What was read of an object; None where nobody can tell, or all of it was."""
        if id(owner) not in self.owners or type(owner) not in self._watched:
            return None
        found = self.reads.get(id(owner), set())
        return found if WHOLE.isdisjoint(found) else None

    def settle(self) -> None:
        """After the run: what it has set to what it was counts as read."""
        for key, before in self.writes.items():
            own = vars(self.owners[key])
            for name, value in before.items():
                if name in own and same(own[name], value):
                    self.reads.setdefault(key, set()).add(name)

    def undo(self, places: Iterable[Place]) -> list[str]:
        """Put back what the run set under names that its code does not mention; returns what that was. The others are
        among the places."""
        changed: list[str] = []
        known = {(id(p.namespace), p.key) for p in places} if self.writes else set()
        for key, before in self.writes.items():
            own = vars(self.owners[key])
            for name, value in before.items():
                if name in own and (id(own), name) not in known and value is not _NOTHING and own[name] is not value:
                    own[name] = value
                    changed.append(f"{type(self.owners[key]).__name__}.{name}")
        return changed

    def is_whole(self, owner: Any) -> bool:
        """Whether all attributes of an object were asked for."""
        return not WHOLE.isdisjoint(self.reads.get(id(owner), ()))

    def __enter__(self) -> ReadLog:
        global _logs
        with _lock:
            for cls in self.classes:
                if _watch(cls):
                    self._watched.append(cls)
            _logs = (*_logs, self)
        return self

    def __exit__(self, *exception: object) -> None:
        global _logs
        with _lock:
            _logs = tuple(log for log in _logs if log is not self)
            for cls in self._watched:
                _leave(cls)


def _watch(cls: type) -> bool:
    """Let a class note what is looked up and set; False for one that can't be changed."""
    count, finds, puts = _noting.get(cls, (0, _NOTHING, _NOTHING))
    if not count:
        finds, puts = (vars(cls).get(name, _NOTHING) for name in _HOOKS)
        find: Any = cls.__getattribute__
        put: Any = cls.__setattr__

        def noting(self: Any, name: str) -> Any:
            for log in _logs:
                known = id(self) in log.owners and not (name in WHOLE and _is_own(sys._getframe(1)))
                if known and not log._paused and not _is_of_this_run(self, name):
                    log.reads.setdefault(id(self), set()).add(name)
            return find(self, name)

        def putting(self: Any, name: str, value: Any) -> None:
            for log in _logs:
                if id(self) in log.owners and not log._paused:
                    held = object.__getattribute__(self, "__dict__")
                    log.writes.setdefault(id(self), {}).setdefault(name, held.get(name, _NOTHING))
            put(self, name, value)

        try:
            for name, made in zip(_HOOKS, (noting, putting), strict=True):
                type.__setattr__(cls, name, made)
        except (TypeError, AttributeError):
            return False
    _noting[cls] = count + 1, finds, puts
    return True


def _is_of_this_run(owner: Any, name: str) -> bool:
    """Whether an attribute holds a recorded tensor: the run has set it before it reads it."""
    held = object.__getattribute__(owner, "__dict__").get(name)
    return isinstance(held, Tensor) and isinstance(held._data, Traced)


def _is_own(frame: Any) -> bool:
    """Whether code of this package runs in a frame."""
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] == __name__.partition(".")[0]


def _leave(cls: type) -> None:
    count, *own = _noting[cls]
    if count > 1:
        _noting[cls] = count - 1, own[0], own[1]
        return
    del _noting[cls]
    for name, before in zip(_HOOKS, own, strict=True):
        if before is _NOTHING:
            type.__delattr__(cls, name)
        else:
            type.__setattr__(cls, name, before)
