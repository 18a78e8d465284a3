"""Python's own arithmetic in a captured function: `state["step"] += 1`, `1 - beta2 ** step`, `math.sqrt(bias)`.

Numbers that change from call to call, arguments or in Python objects, are no part of the graph. Each call reads them
where they lie, repeats in Python what the function computes with them, hands the executable those that meet tensors,
and in the end puts the new ones back. The capture learns what that is from numbers that note what is done with them
(`tensor.tracked`). What Python decided by a number, or needed the very value for, is assumed: calls for which it turns
out otherwise are captured again."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from graphtorch.autograd.state import state
from graphtorch.frontend.effects import RunEagerly
from graphtorch.frontend.places import access, fetch
from graphtorch.frontend.sources import Source
from graphtorch.ir.equality import constant_key
from graphtorch.ops.dispatch import user_location
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.tracked import PLAIN, TrackedNumber

if TYPE_CHECKING:
    from graphtorch.frontend.guards import GuardSet
    from graphtorch.frontend.state_recorder import StateRecorder

MAX_VALUES = 16  # of a number that is asked for at one line
_FAILS = (ArithmeticError, AttributeError, KeyError, IndexError, TypeError, ValueError)

_SIGNS = {
    operator.add: "+",
    operator.sub: "-",
    operator.mul: "*",
    operator.truediv: "/",
    operator.floordiv: "//",
    operator.mod: "%",
    operator.pow: "**",
    operator.lt: "<",
    operator.le: "<=",
    operator.gt: ">",
    operator.ge: ">=",
    operator.eq: "==",
    operator.ne: "!=",
}


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """A number that lies in `namespace[key]`, at `part` of a tuple there; `equal` are other places of the same."""

    namespace: Any
    key: Any
    part: int | None
    kind: type
    name: str
    equal: list[tuple[Any, Any]]

    def places(self) -> list[tuple[Any, Any]]:
        """All of them."""
        return [(self.namespace, self.key), *self.equal]


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """A number among the arguments: the leaf of that index. Its class is a guard."""

    leaf: int
    kind: type
    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """A call of a function of numbers; operands are `Result`s, or constants."""

    function: Callable[..., Any]
    operands: tuple[Any, ...]
    kind: type


@dataclass(frozen=True, slots=True)
class Result:
    """The number of this index."""

    index: int


@dataclass(frozen=True, slots=True)
class Assumption:
    """What Python asked of a number, and got. `exact`: the number itself, by `key_of`; otherwise a truth value."""

    index: int
    answer: Any
    exact: bool
    location: str


@dataclass(frozen=True, eq=False)
class ComputedNumber(Source):
    """An input of the graph that is computed in Python."""

    arithmetic: Arithmetic
    index: int
    name: str
    kind: str = "number"

    def fetch(self, leaves: Sequence[Any]) -> Any:
        if self.arithmetic.active:  # while it is captured
            return self.arithmetic.values[self.index]
        found = self.arithmetic.evaluate(leaves)
        assert found is not None, "the numbers of this call have another history"
        return found[self.index]


class Arithmetic:
    """What one capture computed with tracked numbers, in order."""

    def __init__(self, recorder: StateRecorder) -> None:
        self.recorder: StateRecorder | None = recorder
        self.active = True
        self.nodes: list[Read | Given | Step] = []
        self.values: list[Any] = []  # in the captured call
        self.events: list[int | Assumption] = []  # nodes and assumptions in the order of the program
        self.used: set[int] = set()  # what later calls have to compute or assume something about
        self._numbers: dict[Any, TrackedNumber] = {}
        self._operands: dict[int, Tensor] = {}
        self._assumed: dict[int, Assumption] = {}

    def __bool__(self) -> bool:
        return bool(self.used)

    @property
    def reads(self) -> bool:
        """Whether numbers lie in Python objects."""
        return any(isinstance(node, Read) for node in self.nodes)

    def finish(self) -> None:
        """The capture is over: numbers that are still somewhere are plain ones from here on."""
        self.active = False
        needed = set(self.used)
        for index in reversed(range(len(self.nodes))):
            node = self.nodes[index]
            if index in needed and isinstance(node, Step):
                needed.update(o.index for o in node.operands if type(o) is Result)
        self.events = [e for e in self.events if isinstance(e, Assumption) or e in needed]
        self.recorder = None
        self._numbers.clear()
        self._operands.clear()

    # -- while the function is captured --------------------------------------------------------------------------------

    def read(
        self, namespace: Any, key: Any, value: Any, part: int | None = None, shared: bool = False
    ) -> TrackedNumber:
        """The number at a place. Integers that are called alike and are equal (how many steps each parameter has made)
        are one, as long as they are, if they may be `shared`."""
        place = ("place", id(namespace), key, part)
        known = self._numbers.get(place)
        if known is not None:
            return known
        alike = ("alike", key, value) if shared and value and type(value) is int and type(key) is str else place
        known = self._numbers.get(alike)
        if known is not None:
            first = self.nodes[known.index]
            assert isinstance(first, Read)
            first.equal.append((namespace, key))
            self._numbers[place] = known
            return known
        made = self._add(Read(namespace, key, part, type(value), str(key), []), value)
        self._numbers[place] = self._numbers[alike] = made
        return made

    def given(self, leaf: int, name: str, value: Any) -> TrackedNumber:
        """A number among the arguments."""
        return self._add(Given(leaf, type(value), name), value)

    def _add(self, node: Read | Given | Step, value: Any) -> TrackedNumber:
        self.events.append(len(self.nodes))
        self.nodes.append(node)
        self.values.append(value)
        return TrackedNumber(self, len(self.nodes) - 1, value)

    def apply(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Compute, and note it. What is no number afterwards assumes the operands."""
        plain = tuple(a.value if type(a) is TrackedNumber else a for a in args)
        value = function(*plain)
        if not self.active:
            return value
        kind = type(value)
        truth = kind is bool or kind is np.bool_
        if not truth and kind not in PLAIN:
            for arg in args:
                if type(arg) is TrackedNumber:
                    self.pin(arg)
            return value
        operands = tuple(Result(a.index) if type(a) is TrackedNumber else a for a in args)
        key = (function, *map(constant_key, operands))
        known = self._numbers.get(key)
        if known is None:
            known = self._numbers[key] = self._add(Step(function, operands, kind), value)
        return self._assume(known.index, bool(value), False) if truth else known

    def pin(self, number: TrackedNumber) -> Any:
        """The value, which is assumed."""
        if self.active:
            self._assume(number.index, key_of(number.value), True)
        return number.value

    def class_of(self, number: TrackedNumber) -> type:
        """The class of the value, which is assumed as that of any number that is used."""
        if self.active:
            self.used.add(number.index)
        kind = type(number.value)
        return kind if kind is bool or kind is int else float

    def _assume(self, index: int, answer: Any, exact: bool) -> Any:
        if index not in self._assumed:
            self.used.add(index)
            self._assumed[index] = made = Assumption(index, answer, exact, user_location())
            self.events.append(made)
        return answer

    def operand(self, number: TrackedNumber) -> Any:
        """What an operator on recorded tensors takes: a run-time number."""
        recorder = self.recorder
        if not self.active or state.recorder is None or recorder is None or number.index in self._assumed:
            return self.pin(number)
        known = self._operands.get(number.index)
        if known is None:
            whole = isinstance(number.value, int)
            if whole and not self.apply(fits_int64, (number,)):
                return self.pin(number)
            node = self.nodes[number.index]
            name = unique = "number" if isinstance(node, Step) else node.name
            while any(unique == source.name for source in recorder.sources):
                unique = f"{name}{int(unique[len(name) :] or 0) + 1}"
            self.used.add(number.index)
            source = ComputedNumber(self, number.index, unique)
            known = self._operands[number.index] = recorder.computed_input(source, whole)
        return known

    # -- at each call --------------------------------------------------------------------------------------------------

    def evaluate(self, leaves: Sequence[Any]) -> list[Any] | None:
        """The numbers of a call by index; None if something that is assumed does not hold."""
        values: list[Any] = [None] * len(self.nodes)
        try:
            for event in self.events:
                if isinstance(event, Assumption):
                    if not _holds(event, values[event.index]):
                        return None
                elif not self._compute(event, values, leaves):
                    return None
        except _FAILS:
            return None
        return values

    def _compute(self, index: int, values: list[Any], leaves: Sequence[Any]) -> bool:
        node = self.nodes[index]
        if isinstance(node, Given):
            values[index] = leaves[node.leaf]
            return type(values[index]) is node.kind
        if isinstance(node, Step):
            values[index] = node.function(*(values[o.index] if type(o) is Result else o for o in node.operands))
            return _fits(node, values[index])
        value = fetch(node.namespace, node.key)
        values[index] = value = value if node.part is None else value[node.part]
        alike = all(type(v) is node.kind and v == value for v in (fetch(*place) for place in node.equal))
        return type(value) is node.kind and alike

    def holds(self, leaves: Sequence[Any]) -> bool:
        """Whether a call's numbers lead to the same answers."""
        return self.evaluate(leaves) is not None

    def failure(self, leaves: Sequence[Any]) -> str:
        """What a call's numbers do not satisfy, as a guard's meaning."""
        values: list[Any] = [None] * len(self.nodes)
        for event in self.events:
            try:
                if isinstance(event, Assumption):
                    if not _holds(event, values[event.index]):
                        return self.describe(event)
                elif not self._compute(event, values, leaves):
                    node = self.nodes[event]
                    what = self._text(event) if isinstance(node, Step) else repr(node.name)
                    return f"{what} was of type {node.kind.__name__}"
            except _FAILS as error:
                return f"its arithmetic raised no {type(error).__name__}"
        return "the numbers that it computes with were the same"

    def describe(self, made: Assumption) -> str:
        """An assumption in words."""
        shown = self.values[made.index] if made.exact else made.answer
        return f"{self._text(made.index)} was {shown!r} (asked at {made.location})"

    def _text(self, index: int, depth: int = 3) -> str:
        """A number as the program has it, or nearly."""
        node = self.nodes[index]
        if isinstance(node, Given):
            return node.name
        if isinstance(node, Read):
            return f"{node.name}" if node.part is None else f"{node.name}[{node.part}]"
        if not depth:
            return "..."
        given = [self._text(o.index, depth - 1) if type(o) is Result else repr(o) for o in node.operands]
        sign = _SIGNS.get(node.function)
        if sign is not None:
            return f"({f' {sign} '.join(given)})"
        return f"{getattr(node.function, '__name__', 'a function')}({', '.join(given)})"

    @property
    def assumptions(self) -> list[Assumption]:
        """What Python asked, in order."""
        return [e for e in self.events if isinstance(e, Assumption)]

    def source(self, guards: GuardSet, miss: str) -> list[str]:
        """Python code of `evaluate`: each number is a variable (`h0`), and `miss` is done where something that is
        assumed does not hold."""
        lines: list[str] = []
        for event in self.events:
            if isinstance(event, Assumption):
                lines.append(f"if {self._wrong(guards, event)}: {miss}")
                continue
            node, here = self.nodes[event], f"h{event}"
            kind = guards.name(node.kind)
            if isinstance(node, Step):
                lines.append(f"{here} = {_call(guards, node)}")
                if not _certain(node):
                    lines.append(f"if {here}.__class__ is not {kind}: {miss}")
                continue
            if isinstance(node, Given):
                lines.append(f"{here} = leaves[{node.leaf}]")
                continue
            part = "" if node.part is None else f"[{node.part}]"
            lines.append(f"{here} = {access(guards, node.namespace, node.key)}{part}")
            lines.append(f"if {here}.__class__ is not {kind}: {miss}")
            others = [f"(other := {access(guards, *place)})" for place in node.equal]
            lines += [f"if {other}.__class__ is not {kind} or other != {here}: {miss}" for other in others]
        return lines

    def _wrong(self, guards: GuardSet, made: Assumption) -> str:
        """A condition that is true where an assumption does not hold."""
        here = f"h{made.index}"
        if not made.exact:
            return f"not {here}" if made.answer else here
        if type(self.values[made.index]) is int:
            return f"{here} != {made.answer[1]!r}"
        return f"{guards.name(key_of)}({here}) != {guards.name(made.answer)}"


def fits_int64(value: int) -> bool:
    """Whether an integer can be an operand of an operator as it is; larger ones are constants, which it may refuse."""
    return -(1 << 63) <= value < 1 << 63


def check_values(made: Arithmetic, others: Sequence[Arithmetic | None]) -> None:
    """Raise RunEagerly if a line asks for a number that has been too many in `others` already."""
    earlier = [found.assumptions for found in others if found]
    for mine in made.assumptions:
        known = {a.answer for found in earlier for a in found if a.exact and a.location == mine.location}
        if mine.exact and len(known - {mine.answer}) >= MAX_VALUES:
            what = f"a number that changes is asked for its value, of which there were {MAX_VALUES},"
            raise RunEagerly(f"{what} at {mine.location}", once=True)


def _certain(node: Step) -> bool:
    """Whether a step's result always has the type that it had: integers to a power may become floats."""
    return node.function in _SIGNS and node.function is not operator.pow


def _fits(node: Step, value: Any) -> bool:
    return _certain(node) or type(value) is node.kind


def _holds(made: Assumption, value: Any) -> bool:
    return bool(key_of(value) == made.answer if made.exact else bool(value) is made.answer)


def key_of(value: Any) -> Any:
    """A number as a key: equal for those of one type and of the same bits."""
    return constant_key(value) if isinstance(value, float) else (type(value), value)


def _call(guards: GuardSet, node: Step) -> str:
    """A step as an expression."""
    given = [f"h{o.index}" if type(o) is Result else _literal(guards, o) for o in node.operands]
    sign = _SIGNS.get(node.function)
    return f"{given[0]} {sign} {given[1]}" if sign else f"{guards.name(node.function)}({', '.join(given)})"


def _literal(guards: GuardSet, value: Any) -> str:
    plain = type(value) is int or (type(value) is float and np.isfinite(value))
    return f"({value!r})" if plain else guards.name(value)


__all__ = ["Arithmetic", "Assumption", "ComputedNumber", "Given", "Read", "Result", "Step", "check_values"]
