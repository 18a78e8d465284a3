"""Guards: what a specialisation assumed of the Python world, checked before each reuse.

A guard is a Python expression over named objects. All guards of a specialisation compile into one function, so that the
check of a call is a chain of attribute look-ups; when it fails, the guards are evaluated one by one to say which and
why.

Most calls meet the very objects that the last one met. A guard may therefore have a `cheap` form: a condition that is
faster and never true where the guard is false, such as the identity of an array whose shape was checked before.
`frontend.replay` writes the code of a call with these, and what fails them is checked by the guards themselves. The
objects that cheap forms compare with are snapshots, which are taken again whenever the guards have been checked. What
a guard depends on, as far as `frontend.watch` can see whether it has changed, are its facts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import is_not
from typing import Any

import numpy as np

from graphtorch.frontend.watch import Fact, Watch
from graphtorch.ir.equality import same_constant
from graphtorch.tensor.tensor import Tensor

SCALARS = (bool, int, float, complex, str, bytes, type(None))


# What a condition raises that meets other objects than those it was made for.
_MISSES = (AttributeError, KeyError, IndexError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class Guard:
    """`expression` may use `leaves` (the call's flattened arguments) and the names in `scope`.

    `meaning` completes the sentence "recompiled because ...". `cheap` is a sufficient condition ("" where other cheap
    forms imply the guard); with `checked`, it is sufficient only for executables that look at their inputs' shapes.
    `facts` are all that a guard that names no `leaves` depends on, where that can be watched.
    """

    expression: str
    scope: dict[str, Any]
    meaning: str
    cheap: str
    checked: bool = False
    facts: tuple[Fact, ...] = ()


class GuardSet:
    """Collects guards without duplicates and compiles them."""

    def __init__(self) -> None:
        self.guards: dict[str, Guard] = {}
        self._names: dict[int, str] = {}
        self._scope: dict[str, Any] = {}
        self._check: Callable[[Sequence[Any]], bool] | None = None
        self._snapshots: dict[str, Callable[[], Any]] = {}
        self.snapshot_names: dict[Any, str] = {}
        self.required: dict[str, None] = {}
        self.watch = Watch()
        self.explanations: dict[str, Callable[[Sequence[Any]], str]] = {}  # of guards that stand for several
        self.locals: dict[str, str] = {}  # expression -> the variable to which a cheap form has bound its value

    def name(self, value: Any) -> str:
        """A name for an object in guard expressions; the guards keep it alive, so that its id stays its own."""
        name = self._names.get(id(value))
        if name is None:
            name = self._names[id(value)] = f"o{len(self._names)}"
            self._scope[name] = value
        return name

    def add(
        self,
        expression: str,
        meaning: str,
        cheap: str | None = None,
        checked: bool = False,
        facts: Sequence[Fact | None] = (),
    ) -> None:
        """Assume that `expression` is true. `cheap`: see `Guard`; None for the expression itself. `facts`: what it
        depends on, with None for what can't be watched."""
        if expression not in self.guards:
            known = tuple(f for f in facts if f is not None)
            self.guards[expression] = Guard(
                expression,
                self._scope,
                meaning,
                expression if cheap is None else cheap,
                checked,
                known if len(known) == len(facts) else (),
            )
            self._check = None

    def same_object(
        self, expression: str, value: Any, meaning: str, place: str | None = None, facts: Sequence[Fact | None] = ()
    ) -> None:
        """Assume that an expression gives this very object. `place`: a faster expression for the same."""
        held = self.name(value)
        self.add(f"{expression} is {held}", meaning, None if place is None else f"{place} is {held}", facts=facts)

    def same_value(
        self, expression: str, value: Any, meaning: str, place: str | None = None, facts: Sequence[Fact | None] = ()
    ) -> None:
        """Assume the type and value of a Python scalar (or a tuple of them). `place`: a faster expression for it."""
        place = place or expression
        if type(value) is float and value != value:
            kind = self.name(float)
            self.add(f"{expression}.__class__ is {kind} and {expression} != {expression}", f"{meaning} was nan")
        elif type(value) is float and value == 0:
            sign = f"{self.name(math.copysign)}(1.0, {expression}) == {math.copysign(1.0, value)}"
            kind = self.name(float)
            self.add(f"{expression}.__class__ is {kind} and {expression} == 0 and {sign}", f"{meaning} was {value!r}")
        elif value is None or value is True or value is False:
            self.add(f"{expression} is {value!r}", f"{meaning} was {value!r}", f"{place} is {value!r}", facts=facts)
        elif type(value) in (tuple, complex) or isinstance(value, np.generic):  # (1,) == (True,), and 0j == -0j
            constant = self.name(value)
            alike = f"{self.name(same_constant)}({expression}, {constant})"
            self.add(alike, f"{meaning} was {value!r}", f"{place} is {constant}", facts=facts)
        else:
            kind = self.name(type(value))
            constant = self.name(value)
            self.add(
                f"{expression}.__class__ is {kind} and {expression} == {constant}",
                f"{meaning} was {value!r}",
                f"{place} is {constant}",
                facts=facts,
            )

    def require(self, condition: str) -> None:
        """Add a condition that implies guards whose cheap form is "" to what a replay checks."""
        self.required[condition] = None

    def bind(self, expression: str) -> str:
        """A variable for an expression that several cheap forms read: the first use assigns it."""
        variable = self.locals.get(expression)
        if variable is not None:
            return variable
        variable = self.locals[expression] = f"v{len(self.locals)}"
        return f"({variable} := {expression})"

    def snapshot(self, key: Any, take: Callable[[], Any]) -> str:
        """A name for what `take()` gave when the guards last held. One a key; keys are (kind, id) of live objects."""
        name = self.snapshot_names.get(key)
        if name is None:
            name = self.snapshot_names[key] = f"s{len(self.snapshot_names)}"
            self._snapshots[name] = take
        return name

    def take_snapshots(self) -> dict[str, Any]:
        """What the snapshots are now. Take them before `check`, and put them into `scope` if it holds."""
        return {name: take() for name, take in self._snapshots.items()}

    @property
    def scope(self) -> dict[str, Any]:
        """The objects that guard expressions name."""
        return self._scope

    def check(self, leaves: Sequence[Any]) -> bool:
        """Whether every assumption still holds."""
        if self._check is None:
            conditions = "".join(f"\n            and ({e})" for e in self.guards)
            source = f"def check(leaves):\n    try:\n        return (True{conditions})\n"
            source += f"    except ({', '.join(e.__name__ for e in _MISSES)}):\n        return False\n"
            exec(compile(source, "<graphtorch guards>", "exec"), self._scope)
            self._check = self._scope["check"]
        return self._check(leaves)

    def first_failure(self, leaves: Sequence[Any]) -> str | None:
        """The meaning of the first guard that does not hold."""
        for guard in self.guards.values():
            try:
                holds = bool(eval(guard.expression, self._scope, {"leaves": leaves}))
            except _MISSES:
                holds = False
            if not holds:
                explain = self.explanations.get(guard.expression)
                return guard.meaning if explain is None else explain(leaves)
        return None


def identical(found: Sequence[Any], expected: Sequence[Any]) -> bool:
    """Whether two sequences have the very same entries."""
    return len(found) == len(expected) and not any(map(is_not, found, expected))


def equal_keys(found: Sequence[Any], expected: Sequence[Any]) -> bool:
    """Whether two dictionaries have the same keys, in order. Those that are tensors are compared as dictionaries do."""
    return len(found) == len(expected) and all(
        a is b or (not isinstance(a, Tensor) and a == b) for a, b in zip(found, expected, strict=True)
    )


def same_keys(guards: GuardSet, keys: list[Any], table: str) -> str:
    """The condition that a dictionary has these keys."""
    known = guards.name(keys)
    if any(isinstance(key, Tensor) for key in keys):
        return f"{guards.name(equal_keys)}([*{table}], {known})"
    return f"[*{table}] == {known}"


def attribute(guards: GuardSet, owner: Any, name: str) -> str | None:
    """A fast expression for an attribute in an object's own dictionary; None where the class may answer instead."""
    own = vars(owner)
    if name not in own:
        return None
    for cls in type(owner).__mro__:
        if name in cls.__dict__:
            if hasattr(type(cls.__dict__[name]), "__set__"):
                return None
            break
    return f"{dictionary(guards, owner)}[{name!r}]"


def dictionary(guards: GuardSet, owner: Any) -> str:
    """A name for an object's own dictionary, in cheap forms. Modules note it if they get another one."""
    return guards.snapshot(("dictionary", id(owner)), lambda: vars(owner))


def is_scalar(value: Any) -> bool:
    """Whether a value is compared by value: a Python scalar or a (nested) tuple of them."""
    if type(value) is tuple:
        return all(is_scalar(v) for v in value)
    return type(value) in SCALARS or isinstance(value, np.generic)
