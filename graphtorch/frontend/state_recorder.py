"""What a capture assumes of Python state: the numbers, modules, hooks and optimizers that the function reads."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from graphtorch.autograd.hooks import ALL_MODULES, HookTable
from graphtorch.autograd.state import recorder_paused
from graphtorch.frontend.arithmetic import Arithmetic, ComputedNumber
from graphtorch.frontend.environment import Environment
from graphtorch.frontend.errors import refuse
from graphtorch.frontend.gradients import GradientRecorder
from graphtorch.frontend.guards import GuardSet, attribute, dictionary, identical, is_scalar
from graphtorch.frontend.places import access, owner_of
from graphtorch.frontend.sources import (
    LARGEST,
    IntegerArgument,
    NumberSource,
    Slot,
    SlotSource,
    Source,
    is_own,
)
from graphtorch.frontend.watch import Fact
from graphtorch.ir.builder import Traced, wrap
from graphtorch.tensor import dtypes
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.tracked import TrackedNumber, operand_of
from graphtorch.tensor.type import TensorType

_PACKAGE = __name__.partition(".")[0]
TABLES = ("_parameters", "_buffers", "_modules")  # what a module's forward may read
HOOK_TABLES = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")  # what a call runs


class StateRecorder(GradientRecorder):
    """The part of the recorder that knows about Python state."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.sources: list[Source] = []
        self.modules: list[str] = []
        self.module_names: dict[int, str] = {}
        self.environment: Environment | None = None
        self.numbers: dict[tuple[int, Any, int | None], Any] = {}
        self.arithmetic = Arithmetic(self)
        # By id: dictionaries that are assumed to be the same objects; and those of them whose tensors are assumed, too.
        self.assumed: set[int] = set()
        self.states: set[int] = set()
        self.slots: dict[int, Slot] = {}  # by id, tensors in places that each call may give another one
        self.shared: set[int] = set()  # those of them that are in several places
        self._sites: dict[int, set[tuple[int, Any]]] | None = None  # where there are tensors, by id
        self.set_numbers: dict[tuple[int, Any], Any] = {}  # entries that the run has set, and what has them
        self.deferred: list[Callable[[], Any]] = []  # what each call does when the graph has run
        self._later: set[int] = set()  # by id, dictionaries that this changes
        self._seen_modules: set[int] = set()
        self.modes_set: dict[int, Any] = {}  # the modules whose mode the function sets, by id
        self._hooks_met: list[tuple[Any, str, list[tuple[str, dict[Any, Any]]]]] = []

    def number_argument(self, index: int, name: str, value: Any) -> TrackedNumber:
        """A number among the arguments that may be another at each call."""
        kind = type(value)
        meaning = f"{name} was of type {kind.__name__}"
        self.guards.add(f"leaves[{index}].__class__ is {self.guards.name(kind)}", meaning)
        return self.arithmetic.given(index, name, value)

    def integer_argument(self, index: int, name: str, symbol: Any) -> Any:
        """An integer among the arguments as a symbol."""
        kind = f"leaves[{index}].__class__ is {self.guards.name(int)} and 2 <= leaves[{index}] < {LARGEST}"
        self.guards.add(kind, f"{name} was symbolic, an integer from 2 to {LARGEST - 1}")
        self.sources.append(IntegerArgument(index, name))
        self.graph.add_input(TensorType(dtypes.bool_, (symbol,)), name, "size")
        return symbol

    def computed_input(self, source: ComputedNumber, integer: bool) -> Tensor:
        """A number that is computed in Python as a run-time number."""
        self.sources.append(source)
        of = TensorType(dtypes.int64 if integer else dtypes.float64, (), is_number=True)
        return wrap(self.graph.add_input(of, source.name, source.kind))

    def number_set(self, container: Any, key: Any) -> None:
        """An entry of a dictionary is set: what it was, and what it is at the next call, counts no more."""
        self._check_later(container)
        self.set_numbers[id(container), key] = container

    def defer_step(self, scheduler: Any, *args: Any, **kwargs: Any) -> None:
        """Step a learning-rate scheduler when the graph has run. That is Python, and changes what the next call reads;
        the rest of this one must not ask for it."""
        groups = object.__getattribute__(scheduler, "optimizer").param_groups
        known = type(scheduler).__module__.partition(".")[0] == _PACKAGE
        if args or kwargs or not known or any(isinstance(dict.get(group, "lr"), Tensor) for group in groups):
            self.note_effect("steps a learning-rate scheduler")
        self.deferred.append(object.__getattribute__(scheduler, "step"))
        self._later.update(map(id, groups))

    def _check_later(self, container: Any) -> None:
        """Refuse to read what changes at the end of the call: options of groups, or (None) what schedulers know."""
        if self.deferred and (container is None or id(container) in self._later):
            self.note_effect("asks for what a learning-rate scheduler has set")

    def number_input(self, container: Any, key: Any) -> Any:
        """A Python number in a dictionary as a run-time number, so that a change of it needs no new capture. The user's
        code gets a number that it may compute with in Python as it likes."""
        self._check_later(container)
        value = dict.__getitem__(container, key)
        frame: Any = sys._getframe(1)
        while frame.f_locals.get("self") is container:  # methods of its own
            frame = frame.f_back
        tracked = not _is_own(frame)
        if type(value) is TrackedNumber:
            found: Any = value if tracked else operand_of(value)
            return found
        if (id(container), key) in self.set_numbers:
            return value
        numbers = value if type(value) is tuple else (value,)
        if tracked and numbers and all(type(x) in (int, float) for x in numbers):
            read = [
                self.arithmetic.read(container, key, x, i if type(value) is tuple else None)
                for i, x in enumerate(numbers)
            ]
            self.numbers.setdefault((id(container), key, None), read[0])
            self._alive.append(container)
            return tuple(read) if type(value) is tuple else read[0]
        if isinstance(value, Tensor):
            self.guards.same_object(
                f"dict.__getitem__({self.guards.name(container)}, {key!r})", value, f"{key!r} was a tensor"
            )
            return value
        expression, place = f"dict.__getitem__({self.guards.name(container)}, {key!r})", self._entry(container, key)
        if type(value) is tuple and value and all(type(x) is float for x in value):
            local = place and self.guards.bind(place)
            test = "{0}.__class__ is tuple and len({0}) == " + str(len(value))
            self.guards.add(test.format(expression), f"{key!r} had {len(value)} entries", local and test.format(local))
            return tuple(self._number(container, key, i, x, expression, place) for i, x in enumerate(value))
        if type(value) not in (int, float):
            return self.guard_item(container, key)
        return self._number(container, key, None, value, expression, place)

    def python_value(self, container: Any, key: Any) -> Any:
        """An entry of a dictionary in which a number, or a list of them, may be another at each call; anything else is
        assumed."""
        self._check_later(None)
        value = dict.__getitem__(container, key)
        numbers = value if type(value) is list else [value]
        if numbers and all(type(x) in (int, float) for x in numbers):
            self._alive.append(container)
            if type(value) is not list:
                return self.arithmetic.read(container, key, value)
            held = f"dict.__getitem__({self.guards.name(container)}, {key!r})"
            test = f"{held}.__class__ is list and len({held}) == {len(value)}"
            self.guards.add(test, f"{key!r} had {len(value)} entries")
            return [self.arithmetic.read(container, key, x, i) for i, x in enumerate(value)]
        if is_scalar(value):
            return self.guard_item(container, key)
        held = f"dict.__getitem__({self.guards.name(container)}, {key!r})"
        self.guards.same_object(held, value, f"{key!r} was the same object")
        return value

    def guard_keys(self, container: Any) -> None:
        """Assume the keys of a dictionary, unless the run has set some of its entries."""
        self._check_later(container)
        if not any(owner is container for owner in self.set_numbers.values()):
            held, keys = self.guards.name(container), [*dict.keys(container)]
            self.guards.add(f"[*dict.keys({held})] == {keys!r}", f"the options of a group were {keys}")

    def guard_key(self, container: Any, key: Any) -> None:
        """Assume whether a dictionary has a key, unless the run has set it."""
        if (id(container), key) not in self.set_numbers:
            found, held = dict.__contains__(container, key), self.guards.name(container)
            self.guards.add(f"dict.__contains__({held}, {key!r}) is {found}", f"that {key!r} was there was {found}")

    def _number(
        self, container: Any, key: Any, index: int | None, value: Any, expression: str, place: str | None
    ) -> Any:
        """An entry, or an element of one, as an input of the graph."""
        known = self.numbers.get((id(container), key, index))
        if known is not None:
            return known
        name = f"{key}" if not self.numbers else f"{key}{len(self.numbers)}"
        of = TensorType(dtypes.float64 if type(value) is float else dtypes.int64, (), is_number=True)
        kind = self.guards.name(type(value))
        at = "" if index is None else f"[{index}]"
        self.guards.add(
            f"{expression}{at}.__class__ is {kind}",
            f"{key!r}{at} was a Python {type(value).__name__}",
            place and f"{self.guards.bind(place)}{at}.__class__ is {kind}",
        )
        recorded = wrap(self.graph.add_input(of, name, "number"))
        self.sources.append(NumberSource(container, key, name, index))
        self.numbers[id(container), key, index] = recorded
        self._alive.append(container)
        return recorded

    def guard_item(self, container: Any, key: Any) -> Any:
        """Assume the value of a dictionary's entry."""
        self._check_later(container)
        value = dict.__getitem__(container, key)
        expression = f"dict.__getitem__({self.guards.name(container)}, {key!r})"
        place = self._entry(container, key)
        if is_scalar(value):
            self.guards.same_value(expression, value, f"{key!r}", None if value is None else place)
        elif isinstance(value, list):
            same = f"{self.guards.name(identical)}({place or expression}, {self.guards.name(tuple(value))})"
            length = f"len({expression}) == {len(value)}"
            if length not in self.guards.guards:
                self.guards.add(length, f"{key!r} had {len(value)} entries", same)
            for i, item in enumerate(value):
                entry = f"{expression}[{i}] is {self.guards.name(item)}"
                self.guards.add(entry, f"entry {i} of {key!r} was the same object", "")
        return value

    def _entry(self, container: Any, key: Any) -> str | None:
        """A fast expression for an entry of a dictionary, None where it has none."""
        kind = type(container)
        if kind is dict:
            return f"{self.guards.name(container)}[{key!r}]"
        # A subclass may see each subscript, which a plain look-up need not tell it.
        return plain_entry(self.guards, container, key) if isinstance(container, dict) else None

    @staticmethod
    def check_slot(alone: bool) -> None:
        """Refuse a tensor that is replaced at each call unless its slot is the only way to it and its memory."""
        if not alone:
            raise refuse("a tensor that is replaced at each call is used, and is elsewhere too", "clone() it first")

    def _is_elsewhere(self, tensor: Tensor, slot: Slot) -> bool:
        """Whether the function may find a tensor in other places than its slot, or as a gradient."""
        if self.environment is None:
            return False
        if self._sites is None:
            self._sites = {}
            found = [(p.value, p.site) for p in self.environment.places if isinstance(p.value, Tensor)]
            found += [(v, (0, n)) for _, _, table in self.environment.tables for n, v in table.items()]
            for value, site in found:
                self._sites.setdefault(id(value), set()).add(site)
                gradient = getattr(value, "_gradient", None) if id(value) not in self.slots else None
                if gradient is not None:
                    self._sites.setdefault(id(gradient), set()).add((0, "grad"))
        return bool(self._sites.get(id(tensor), set()) - {(id(owner_of(slot.namespace)), slot.key)})

    def _slot_of(self, tensor: Tensor) -> SlotSource | None:
        """The source of a tensor in whose place each call may put another one."""
        slot = self.slots.get(id(tensor))
        if slot is None:
            return None
        self.check_slot(id(tensor) not in self.shared and is_own(tensor) and not self._is_elsewhere(tensor, slot))
        held = self.guards.name(slot)
        there = access(self.guards, slot.namespace, slot.key)
        self.guards.add(f"{held}.adopts()", f"{slot.key!r} was a tensor of its own", f"{there} is {held}.tensor")
        return SlotSource(slot, self._tensor_name(tensor))

    def _guard_tensor(self, expression: str, tensor: Tensor, name: str) -> None:
        same = implied = None
        facts: tuple[Fact | None, ...] = ()
        if expression == self.guards.name(tensor):
            facts = (self.guards.watch.attributes(tensor),)
            # The array that was checked last time. Nothing but an executable sees it if that is given another shape.
            same = f"{expression}._data is {self.guards.snapshot(('data', id(tensor)), lambda: tensor._data)}"
            implied = ""
        shape = self.guards.name(tuple(tensor._data.shape))
        meaning = f"the shape of {name} was {tuple(tensor.shape)}"
        self.guards.add(f"{expression}._data.shape == {shape}", meaning, same, same is not None, facts)
        strides = self.guards.name(tuple(tensor._data.strides))
        meaning = f"the strides of {name} were {tensor.stride()}"
        self.guards.add(f"{expression}._data.strides == {strides}", meaning, implied, same is not None, facts)
        self.guards.add(
            f"{expression}._dtype is {self.guards.name(tensor._dtype)}",
            f"the dtype of {name} was {tensor._dtype!r}",
            implied,
            facts=facts,
        )
        self.guards.add(
            f"{expression}._requires_grad is {tensor._requires_grad}",
            f"{name}.requires_grad was {tensor._requires_grad}",
            facts=facts,
        )

    def enter_module(self, module: Any) -> None:
        """Note the module being called, and assume what its forward may read of it."""
        name = self.module_names.get(id(module), type(module).__name__)
        self.modules.append(name)
        if id(module) in self._seen_modules:
            return
        self._seen_modules.add(id(module))
        prefix = "" if len(self.modules) == 1 else name + "."
        held = self.guards.name(module)
        own = self.guards.watch.attributes(module)
        known = self.environment is not None and self.environment.knows(module)
        # What the environment knows of the user's own classes, it assumes itself: just the attributes in use.
        few = known and type(module).__module__.partition(".")[0] != _PACKAGE
        self._assume_scalars(module, name, {"training"} if few else vars(module))
        if "forward" in vars(module):
            place = attribute(self.guards, module, "forward")
            meaning = f"{name}.forward was the same object"
            self.guards.same_object(f"{held}.forward", module.forward, meaning, place, (own if place else None,))
        else:
            cheap = f"'forward' not in {dictionary(self.guards, module)}"
            meaning = f"{name} had the forward of its class"
            self.guards.add(f"'forward' not in {held}.__dict__", meaning, cheap, facts=(own,))
        for group in TABLES:
            entries = vars(module).get(group, {})
            for key, value in entries.items():
                if value is not None:
                    self.module_names.setdefault(id(value), prefix + key)
            # A buffer's tensor may be replaced by the forward itself (counters); its identity is no assumption then.
            self._assume_table(module, group, entries, name, prefix)
        hooks = [(group, dict(vars(module).get(group, {}))) for group in HOOK_TABLES]
        self._hooks_met.append((module, name, hooks))

    def _assume_table(self, module: Any, group: str, entries: Mapping[Any, Any], name: str, prefix: str) -> None:
        """Assume the entries of one of a module's dictionaries."""
        table = f"{self.guards.name(module)}.{group}"
        place = attribute(self.guards, module, group)
        if isinstance(vars(module).get(group), HookTable):
            self.assume_hook_table(table, entries, f"{prefix}{group[1:]}")
            return
        watch = self.guards.watch
        facts = watch.attributes(module) if place else None, watch.entries(vars(module).get(group))
        meaning = f"{name} had {len(entries)} {group[1:]}"
        if not entries:
            self.guards.add(f"len({table}) == 0", meaning, place and f"not {place}", facts=facts)
            return
        length = f"len({table}) == {len(entries)}"
        self.guards.add(length, meaning, place and f"len({self.guards.bind(place)}) == {len(entries)}", facts=facts)
        for key, value in entries.items():
            found = f"{self.guards.bind(place)}[{key!r}]" if place else None
            meaning = f"{prefix}{key} was the same object"
            self.guards.same_object(f"{table}[{key!r}]", value, meaning, found, facts)

    def assume_uncalled(self, modules: Sequence[tuple[str, Any]], names: Collection[str]) -> None:
        """Assume what modules that were not called hold (a ModuleList, one whose other methods are used), and those of
        their attributes that the user's code mentions (`F.dropout(x, drop.p, drop.training)`)."""
        for name, module in modules:
            if id(module) not in self._seen_modules:
                for group in TABLES:
                    self._assume_table(module, group, vars(module).get(group, {}), name, f"{name}.")
                own = {"training"} if type(module).__module__.partition(".")[0] != _PACKAGE else vars(module).keys()
                self._assume_scalars(module, name, own & set(names))

    def _assume_scalars(self, module: Any, name: str, keys: Iterable[str]) -> None:
        """Assume those of a module's attributes that are numbers, flags and texts."""
        held, own = self.guards.name(module), self.guards.watch.attributes(module)
        for key in sorted(keys):
            value = vars(module).get(key)
            if is_scalar(value):
                place = attribute(self.guards, module, key)
                facts = (own if place else None,)
                if self.environment is not None:  # the function may have set it for a while
                    value = self.environment.settings.before(module, key, value)
                self.guards.same_value(f"{held}.{key}", value, f"{name}.{key}", place, facts)

    def note_requires_grad(self, tensor: Tensor) -> None:
        """The user's code asks for the flag of a tensor that may be no input."""
        if not isinstance(tensor._data, Traced) and not _is_own(sys._getframe(2)):
            asked = "_requires_grad" if tensor._base is None else "requires_grad"
            expression = f"{self.guards.name(tensor)}.{asked}"
            fact = self.guards.watch.attributes(tensor) if tensor._base is None else None
            with recorder_paused():
                flag = tensor.requires_grad
            self.guards.add(f"{expression} is {flag}", f"requires_grad of a tensor was {flag}", facts=(fact,))

    def assume_modes(self) -> None:
        """Assume the modes that the function sets of modules which it does not call: they are what they were."""
        for module in self.modes_set.values():
            if id(module) not in self._seen_modules and "training" in vars(module):
                self._assume_scalars(module, self.module_names.get(id(module), type(module).__name__), ("training",))

    def assume_hooks(self) -> None:
        """Assume the hooks of the modules that were called, unless the function changed them itself."""
        if self._hooks_met:
            self.assume_hook_table(self.guards.name(ALL_MODULES), ALL_MODULES, "all modules")
        for module, name, tables in self._hooks_met:
            for group, entries in tables:
                if dict(vars(module).get(group, {})) == entries:
                    self._assume_table(module, group, entries, name, f"{name}.{group[1:]} ")

    def assume_optimizer(self, optimizer: Any) -> None:
        """Assume that an optimizer's groups and state tensors are the objects that its step was captured with."""
        held = self.guards.name(optimizer)
        # Looking up a tensor hashes it, in Python: the cheap form knows the position instead.
        keys, values = f"[*{held}.state]", f"[*{held}.state.values()]"
        count = len(optimizer.param_groups)
        self.guards.add(f"len({held}.param_groups) == {count}", f"the optimizer had {count} param groups")
        self.states.update(map(id, optimizer.state.values()))
        self.assumed.update(self.states, map(id, optimizer.param_groups))
        for i, group in enumerate(optimizer.param_groups):
            self.guards.same_object(f"{held}.param_groups[{i}]", group, f"param group {i} was the same object")
        watch = self.guards.watch
        plain = optimizer if "state" in vars(optimizer) and not hasattr(type(optimizer), "state") else None
        facts = watch.attributes(plain), watch.entries(optimizer.state)
        for i, (parameter, own) in enumerate(optimizer.state.items()):
            found, there = self.guards.name(parameter), self.guards.name(own)
            expression = f"{held}.state.get({found}) is {there}"
            if expression not in self.guards.guards:
                cheap = f"{self.guards.bind(keys)}[{i}] is {found} and {self.guards.bind(values)}[{i}] is {there}"
                self.guards.add(expression, "an optimizer state was the same object", cheap, facts=facts)
            for key, value in own.items():
                if isinstance(value, Tensor) and not isinstance(value._data, Traced) and id(value) not in self.slots:
                    place = self._entry(own, key) if isinstance(own, dict) else None
                    meaning = f"the optimizer's {key} was the same tensor"
                    self.guards.same_object(f"{there}.get({key!r})", value, meaning, place, (watch.entries(own),))

    def exit_module(self, module: Any) -> None:
        self.modules.pop()


def plain_entry(guards: GuardSet, container: Any, key: Any) -> str:
    """An expression for an entry of a dictionary of some subclass; None where it is not there."""
    return f"{guards.name(dict.get)}({guards.name(container)}, {key!r})"


def _is_own(frame: Any) -> bool:
    """Whether code of this package runs in a frame."""
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] == _PACKAGE
