"""Guards: what a specialisation assumed of the Python world, checked before each reuse.

A guard is a Python expression over named objects. All guards of a specialisation compile into one function, so that the
check of a call is a chain of attribute look-ups; when it fails, the guards are evaluated one by one to say which and
why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

SCALARS = (bool, int, float, complex, str, bytes, type(None))


@dataclass(frozen=True, slots=True)
class Guard:
    """`expression` may use `leaves` (the call's flattened arguments) and the names in `scope`.

    `meaning` completes the sentence "recompiled because ..." and may be a function of the present leaves.
    """

    expression: str
    scope: dict[str, Any]
    meaning: str


class GuardSet:
    """Collects guards without duplicates and compiles them."""

    def __init__(self) -> None:
        self.guards: dict[str, Guard] = {}
        self._names: dict[int, str] = {}
        self._scope: dict[str, Any] = {}
        self._check: Callable[[Sequence[Any]], bool] | None = None

    def name(self, value: Any) -> str:
        """A name for an object in guard expressions; the guards keep it alive, so that its id stays its own."""
        name = self._names.get(id(value))
        if name is None:
            name = self._names[id(value)] = f"o{len(self._names)}"
            self._scope[name] = value
        return name

    def add(self, expression: str, meaning: str) -> None:
        """Assume that `expression` is true."""
        if expression not in self.guards:
            self.guards[expression] = Guard(expression, self._scope, meaning)
            self._check = None

    def same_object(self, expression: str, value: Any, meaning: str) -> None:
        """Assume that an expression gives this very object."""
        self.add(f"{expression} is {self.name(value)}", meaning)

    def same_value(self, expression: str, value: Any, meaning: str) -> None:
        """Assume the type and value of a Python scalar (or a tuple of them)."""
        if value is None or value is True or value is False:
            self.add(f"{expression} is {value!r}", f"{meaning} was {value!r}")
        else:
            kind = self.name(type(value))
            constant = self.name(value)
            self.add(f"{expression}.__class__ is {kind} and {expression} == {constant}", f"{meaning} was {value!r}")

    def check(self, leaves: Sequence[Any]) -> bool:
        """Whether every assumption still holds."""
        if self._check is None:
            conditions = "".join(f"\n            and ({e})" for e in self.guards)
            source = f"def check(leaves):\n    try:\n        return (True{conditions})\n"
            source += (
                "    except (AttributeError, KeyError, IndexError, TypeError, ValueError):\n        return False\n"
            )
            exec(compile(source, "<graphtorch guards>", "exec"), self._scope)
            self._check = self._scope["check"]
        return self._check(leaves)

    def first_failure(self, leaves: Sequence[Any]) -> str | None:
        """The meaning of the first guard that does not hold."""
        for guard in self.guards.values():
            try:
                holds = bool(eval(guard.expression, self._scope, {"leaves": leaves}))
            except (AttributeError, KeyError, IndexError, TypeError, ValueError):
                holds = False
            if not holds:
                return guard.meaning
        return None


def is_scalar(value: Any) -> bool:
    """Whether a value is compared by value: a Python scalar or a (nested) tuple of them."""
    if type(value) is tuple:
        return all(is_scalar(v) for v in value)
    return type(value) in SCALARS
