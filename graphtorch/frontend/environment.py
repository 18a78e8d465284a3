"""The Python world that a compiled function reads: globals, closure variables, attributes of the objects it is given.

Before a capture, `Environment` lists the places that the function's code mentions, with what they hold. After it, each
place becomes a guard. A place whose content the run itself changed (a counter, a growing list, an attribute that keeps
a tensor) can't be replayed by a graph: it is put back, and the caller runs the function eagerly instead.

What counts as mentioned: names in the code of the function, of the functions and methods that it names, of those that
its arguments hold, and of the modules that it can reach. Library code is not followed (`frontend.reach`)."""

from __future__ import annotations

import array
import builtins
import contextvars
import datetime
import functools
import io
import os
import random
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePath
from types import BuiltinFunctionType, CellType, FunctionType, MethodType, MethodWrapperType, ModuleType
from typing import Any

import numpy as np

from graphtorch.autograd.hooks import ALL_MODULES
from graphtorch.autograd.state import state
from graphtorch.frontend.attributes import Assigned, ModuleAttributes
from graphtorch.frontend.effects import (
    RunEagerly,
    effect,
    is_watched,
    reads_the_clock,
    same_state,
    set_state,
    state_of,
    watch_renamed,
)
from graphtorch.frontend.entered import Entered
from graphtorch.frontend.guards import GuardSet, attribute, equal_keys, is_scalar, same_keys
from graphtorch.frontend.library import LibraryUses
from graphtorch.frontend.places import (
    Cell,
    ClassSpace,
    Entries,
    Holder,
    Memory,
    Place,
    Slots,
    equal_arrays,
    same,
    same_entries,
)
from graphtorch.frontend.reach import (
    asks_for_absence,
    callable_code,
    functions_of,
    globals_in,
    has_attributes,
    imports_in,
    is_library,
    is_library_name,
    is_module,
    names_in,
    own_classes,
    plain_function,
    slots_of,
)
from graphtorch.frontend.reads import ReadLog
from graphtorch.frontend.settings import ModuleSettings, assume_settings
from graphtorch.frontend.watch import Fact
from graphtorch.ir.builder import Traced
from graphtorch.tensor.size import Size
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.tracked import FOLLOWED_BY_ID, TrackedNumber

MAX_BYTES = 1 << 24  # of a NumPy array that is compared by its contents
MAX_ENTRIES = 256  # of a list or dictionary whose entries have guards of their own
_GENERATORS = (random.Random, np.random.Generator, np.random.RandomState)
_BUFFERS = (bytearray, array.array, memoryview)
_VALUES = (Size, range, slice, Fraction, Decimal, datetime.date, datetime.time, datetime.timedelta, PurePath)
_ABSENT = object()  # an attribute that is not there
_TENSOR_FIELDS = frozenset(Tensor.__annotations__)
_WRAPPER = type(functools.lru_cache(len))  # functions that remember what they gave


class Environment:
    """The places that one capture depends on."""

    def __init__(
        self,
        function: Any,
        arguments: Sequence[Any],
        guards: GuardSet,
        fullgraph: bool = False,
        reads: ReadLog | None = None,
        entered: Entered | None = None,
    ) -> None:
        self.function = function
        self.guards = guards
        self.fullgraph = fullgraph
        self.filled = ""  # a memoizing function that kept what the capture made
        self.made: list[str] = []  # what the run made that was not there before, and put nothing else in its place
        self.places: list[Place] = []
        self.met: Callable[[], object] = tuple  # called when places were found during the run
        self.containers: list[tuple[Place, Any, Any]] = []  # (place, list or dictionary, copy of it)
        self.sets: list[tuple[Place, Any, frozenset[Any]]] = []
        self.arrays: list[tuple[Place, Any, Any]] = []  # (place, array, copy of it)
        self.buffers: list[tuple[Place, Any, bytes]] = []
        self.generators: list[tuple[Place, Any, Any]] = []  # of random numbers: (place, generator, its state)
        self.modules: list[tuple[str, Any]] = []
        self.memories: list[Memory] = []
        # (expression, meaning, its dictionary, the keys, what that depends on)
        self.objects: list[tuple[str, str, Any, frozenset[str], Fact | None]] = []
        self.tables: list[tuple[str, dict[Any, Any], dict[Any, Any]]] = []  # of modules: (meaning, table, copy of it)
        self.absent: dict[tuple[int, str], tuple[dict[str, Any], str]] = {}  # (namespace, a global that is not there)
        self.environ: dict[Any, Any] | None = None
        self.settings = ModuleSettings()
        self._hooks_on_all = dict(ALL_MODULES)
        self.library = LibraryUses()
        self.attributes = ModuleAttributes()
        self.assigned: list[Assigned] = []  # the attributes that each call sets
        self.names: set[str] = {"forward", "backward", "setup_context"}
        self._fresh: set[str] = set()
        self._holders: list[Holder] = []
        self._visited: dict[int, Any] = {}  # id -> the object, which is kept alive
        self.given = tuple(arguments)
        self._arguments = [a for a in arguments if isinstance(a, Tensor)]
        self.reads = reads or ReadLog(())
        self.entered = entered or Entered()
        self._renamed: list[tuple[Any, Any, Any]] = []  # see `renamed`
        self._queue: deque[Place] = deque()
        self._queue.extend(list(self._roots(function, arguments)))
        self._explore()
        self._assume_tensors(arguments)

    def knows(self, value: Any) -> bool:
        """Whether an object's mentioned attributes are among the places."""
        return id(value) in self._visited

    # -- what the code mentions --------------------------------------------------------------------------------------

    def _roots(self, function: Any, arguments: Sequence[Any]) -> Iterator[Place]:
        for i, argument in enumerate(arguments):
            if isinstance(argument, Tensor):
                self._visit_hooks(argument._hooks, f"argument {i}")
                self._visit_hooks(argument._post_accumulate_hooks, f"argument {i}")
            elif not is_scalar(argument):
                yield Place(f"leaves[{i}]", f"argument {i}", argument, assumed=False)
        self._visit_hooks({key: each.hook for key, each in self._hooks_on_all.items()}, "all modules")
        name = getattr(function, "__name__", type(function).__name__)
        yield Place(self.guards.name(function), name, function, assumed=False)

    def _explore(self) -> None:
        """Follow all places; code that is met on the way mentions further names, in objects that were met before."""
        while self._queue or self._fresh:
            while self._queue:
                self._visit(self._queue.popleft())
            fresh, self._fresh = self._fresh, set()
            for holder in list(self._holders) if fresh else ():
                self._scan(holder, fresh)

    def _learn(self, names: Sequence[str]) -> None:
        self._fresh.update(n for n in names if n not in self.names)
        self.names.update(names)

    def _enter(self, function: FunctionType) -> None:
        """The places that a function of the user's reads."""
        if id(function) in self._visited or self.entered.waits(function):
            return
        self._visited[id(function)] = function
        code, scope = function.__code__, function.__globals__
        self._learn(names_in(code))
        held, space = self.guards.name(function), self.guards.name(scope)
        self.guards.add(
            f"{held}.__code__ is {self.guards.name(code)}", f"{function.__qualname__} had the code of the file"
        )
        for name in globals_in(code):
            if name in scope:
                content = scope[name]
                self._queue.append(Place(f"{space}[{name!r}]", f"the global {name}", content, scope, name))
            else:
                self.absent[id(scope), name] = scope, space
        for name in imports_in(code):
            module = sys.modules.get(name)
            if module is not None:
                place = f"{self.guards.name(sys.modules)}.get({name!r})"
                self._queue.append(Place(place, f"the module {name}", module))
        values = [scope.get(n) for n in globals_in(code)] + [sys.modules.get(n) for n in imports_in(code)]
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            try:
                content = cell.cell_contents
                values.append(content)
            except ValueError:
                empty = f"{self.guards.name(_is_empty)}({self.guards.name(cell)})"
                self.guards.add(empty, f"the variable {name} had no value")
                continue
            expression = f"{self.guards.name(cell)}.cell_contents"
            self._queue.append(Place(expression, f"the variable {name}", content, Cell(cell), name))
        if reads_the_clock(names_in(code), values):
            raise effect(f"reads the clock in {function.__qualname__}()", self.fullgraph)
        for i, value in enumerate(function.__defaults__ or ()):
            self._queue.append(Place(f"{held}.__defaults__[{i}]", f"the default {i}", value))
        for name, value in (function.__kwdefaults__ or {}).items():
            self._queue.append(Place(f"{held}.__kwdefaults__[{name!r}]", f"the default of {name}", value))
        if vars(function):
            self._hold(held, function.__qualname__, function)

    # -- places ------------------------------------------------------------------------------------------------------

    def _visit(self, place: Place) -> None:
        value = place.value
        kind = type(value)
        if kind is TrackedNumber:  # met during the run, which has put it there
            raise effect(f"keeps a number in {place.meaning}", self.fullgraph)
        if is_scalar(value) or kind in _VALUES:
            self.places.append(place)
        elif isinstance(value, ModuleType | type):
            self._visit_space(place, value)
        elif isinstance(value, io.IOBase | random.SystemRandom) or hasattr(kind, "__next__"):
            raise effect(f"uses {place.meaning}, which gives something else each time,", self.fullgraph)
        elif isinstance(value, _GENERATORS):
            self.places.append(place)
            if id(value) not in self._visited:
                self._visited[id(value)] = value
                self.generators.append((place, value, state_of(value)))
        elif isinstance(value, Tensor):
            if isinstance(value._data, Traced):  # met during the run, which has put it there in a way that nobody sees
                raise effect(f"keeps a tensor in {place.meaning}", self.fullgraph)
            self.places.append(place)
            self._visit_hooks(value._hooks, place.meaning)
            self._visit_hooks(value._post_accumulate_hooks, place.meaning)
            self._visit_attributes(place, value)
        elif kind is _WRAPPER:
            self.places.append(place)
            self._remember(place, value)
        elif callable_code(value) or isinstance(value, BuiltinFunctionType | MethodWrapperType | functools.partial):
            self._visit_callable(place, value)
        elif isinstance(value, np.ndarray):
            self._visit_array(place, value)
        elif isinstance(value, _BUFFERS):
            self.places.append(place)
            self._visited[id(value)] = value
            self.buffers.append((place, value, bytes(value)))
        elif id(value) in self._visited:
            self.places.append(place)
        else:
            self._visited[id(value)] = value
            self._visit_object(place, value)

    def _visit_object(self, place: Place, value: Any) -> None:
        kind = type(value)
        if isinstance(value, list | tuple | deque):
            self._visit_sequence(place, value)
        elif isinstance(value, dict):
            self._visit_dict(place, value)
        elif kind in (set, frozenset):
            self.places.append(replace(place, assumed=False))
            self.sets.append((place, value, frozenset(value)))
        elif is_module(value):
            self._visit_module(place, value)
        elif isinstance(value, contextvars.ContextVar):
            self.places.append(place)
            content = value.get(None)
            self._queue.append(Place(f"{place.expression}.get(None)", place.meaning, content))
        elif isinstance(value, weakref.ref):
            self.places.append(place)
            self._queue.append(Place(f"{place.expression}()", place.meaning, value()))
        elif value is os.environ:
            self.environ = dict(os.environ)
        else:
            self.places.append(place)
            self._visit_attributes(place, value)

    def _visit_callable(self, place: Place, value: Any) -> None:
        """Functions, methods, partial applications: their code, and the objects that they are bound to."""
        if is_watched(value) and place.namespace is None:
            raise effect(f"uses {place.meaning}, which gives something else each time,", self.fullgraph)
        self.places.append(replace(place, assumed=place.assumed and not _made_by_access(place, value)))
        plain = plain_function(value)
        if plain is not None:
            self._enter(plain)
        if isinstance(value, functools.partial):
            for attr in ("func", "args", "keywords"):
                inner = f"{place.expression}.{attr}"
                self._queue.append(Place(inner, f"{place.meaning}.{attr}", getattr(value, attr)))
        inside = value.function if hasattr(type(value), "specialize") else value
        owner = getattr(inside, "__self__", None)
        if owner is not None and not isinstance(owner, ModuleType):
            bound = f"{place.expression}.function.__self__" if inside is not value else f"{place.expression}.__self__"
            name = place.meaning if is_library_name(type(owner).__module__) else type(owner).__name__
            self._queue.append(Place(bound, name, owner, assumed=place.assumed))
        elif inside is not value and plain is None:
            self._queue.append(Place(f"{place.expression}.function", place.meaning, inside))

    def _visit_array(self, place: Place, value: Any) -> None:
        self.places.append(place)
        self._visited[id(value)] = value
        if not value.flags.writeable and (value.base is None or isinstance(value.base, bytes)):
            return
        if value.nbytes > MAX_BYTES:
            size = value.nbytes >> 20
            what = f"reads {place.meaning}, a NumPy array of {size} MiB that may change (a tensor may, at no cost),"
            raise effect(what, self.fullgraph)
        self.arrays.append((place, value, value.copy()))

    def _visit_sequence(self, place: Place, value: Any) -> None:
        self.places.append(replace(place, assumed=False) if type(value) in (list, tuple, deque) else place)
        if not isinstance(value, tuple):
            self.containers.append((place, value, list(value)))
        elif type(value) is not tuple and not hasattr(value, "_fields"):
            self._visit_attributes(place, value)
        if len(value) <= MAX_ENTRIES or isinstance(value, tuple):
            self._visit_entries(place, enumerate(value))
        else:  # the copy is compared as a whole
            self._visit_entries(place, ((i, v) for i, v in enumerate(value) if not _is_flat(v)))
        if type(value) not in (list, tuple, deque):
            self._visit_attributes(place, value)

    def _visit_dict(self, place: Place, value: dict[Any, Any]) -> None:
        plain = type(value).__module__ in ("builtins", "collections")
        self.places.append(replace(place, assumed=False) if plain else place)
        self.containers.append((place, value, dict(value)))
        many = len(value) > MAX_ENTRIES
        self._visit_entries(place, ((k, v) for k, v in value.items() if not many or not _is_flat(v)), value)
        if not plain:
            self._visit_attributes(place, value)

    def _visit_entries(self, place: Place, entries: Any, namespace: Any = None) -> None:
        entry_of = Entries(place.value) if type(place.value) is list else None
        for key, item in entries:
            shown = repr(key) if type(key) in (str, int, bool, bytes) else self.guards.name(key)
            title = f"a {type(key).__name__} of shape {list(key.shape)}" if isinstance(key, Tensor) else repr(key)
            expression, meaning = f"{place.expression}[{shown}]", f"{place.meaning}[{title}]"
            kept = entry_of if is_scalar(item) or isinstance(item, Tensor) else None
            held = namespace if entry_of is None else kept
            self._queue.append(Place(expression, meaning, item, held, key, owner=place.expression))

    def _visit_module(self, place: Place, value: Any) -> None:
        """An nn.Module and all modules below it."""
        self.places.append(place)
        for name, module in value.named_modules():
            title = f"{place.meaning}.{name}" if name else place.meaning
            self._visited[id(module)] = module
            self._note_tables(title, module)
            self.attributes.note(title, module)
            self.settings.note(module, title)
            held = self.guards.name(module)
            for table in ("_forward_pre_hooks", "_forward_hooks", "_backward_hooks", "_backward_pre_hooks"):
                self._visit_hooks(vars(module).get(table), title)
            if any(hasattr(type(p), "materialize") for p in vars(module).get("_parameters", {}).values()):
                if self.fullgraph:
                    raise effect(f"initializes {title}", True)
                raise RunEagerly(f"it initializes {title}", first=True)
            for parameter in vars(module).get("_parameters", {}).values():
                if parameter is not None and (parameter._hooks or parameter._post_accumulate_hooks):
                    self._visit(Place(self.guards.name(parameter), f"a parameter of {title}", parameter, assumed=False))
            own_forward = vars(module).get("forward")
            if own_forward is not None:
                self._queue.append(Place(self.guards.name(own_forward), f"{title}.forward", own_forward, assumed=False))
            if is_library(module):
                self.library.note_class(type(module))
            else:
                fact = self.guards.watch.attributes(module)
                self.objects.append((f"{held}.__dict__", title, vars(module), frozenset(vars(module)), fact))
                self._hold(held, title, module, named=True)
                self._queue.append(Place(f"{held}.__class__", f"the class of {title}", type(module), fact=fact))

    def _visit_hooks(self, table: Any, meaning: str) -> None:
        """What hooks read: that they are the same is assumed where they run."""
        for hook in (table or {}).values():
            hook = hook[0] if type(hook) is tuple else hook
            self._queue.append(Place(self.guards.name(hook), f"a hook of {meaning}", hook, assumed=False))

    def _note_tables(self, meaning: str, module: Any) -> None:
        self.modules.append((meaning, module))
        for table in ("_parameters", "_buffers", "_modules"):
            held = vars(module).get(table)
            if isinstance(held, dict):
                self.tables.append((f"{meaning}.{table[1:]}", held, dict(held)))

    def _visit_attributes(self, place: Place, value: Any) -> None:
        """What the code mentions of an object, and its class."""
        if has_attributes(value):
            own = vars(value)
            self.objects.append((f"{place.expression}.__dict__", place.meaning, own, frozenset(own), None))
            self._hold(place.expression, place.meaning, value)
        elif isinstance(value, Tensor):
            if not _TENSOR_FIELDS.issuperset(vars(value)):
                self._hold(place.expression, place.meaning, value)
            return
        elif hasattr(type(value), "add_param_group"):
            for table in ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks"):
                self._visit_hooks(vars(value).get(table), place.meaning)
            self._visit_groups(place, value)
        elif type(value).__module__.startswith("graphtorch.distributions"):
            for name, content in vars(value).items():  # its methods, which are not followed, read them all
                expression, meaning = f"{place.expression}.__dict__[{name!r}]", f"{place.meaning}.{name}"
                self._queue.append(Place(expression, meaning, content, vars(value), name))
        if slots_of(value):
            self._hold(place.expression, place.meaning, value)
        if not is_library(value):
            kind = Place(f"{place.expression}.__class__", f"the class of {place.meaning}", type(value))
            self._queue.append(kind)

    def _visit_groups(self, place: Place, optimizer: Any) -> None:
        """The options of an optimizer of this package, which user's code may set; those that it reads are assumed by
        the groups."""
        groups = vars(optimizer).get("param_groups", ())
        count = f"len({place.expression}.param_groups) == {len(groups)}"
        self.guards.add(count, f"{place.meaning} had {len(groups)} param groups")
        for i, group in enumerate(groups):
            held, title = f"{place.expression}.param_groups[{i}]", f"{place.meaning}.param_groups[{i}]"
            self.guards.same_object(held, group, f"{title} was the same object")
            self.tables.append((title, group, dict(group)))
            for key, option in group.items():
                if is_scalar(option):
                    expression, meaning = f"{held}[{key!r}]", f"{title}[{key!r}]"
                    self.places.append(Place(expression, meaning, option, group, key, assumed=False, owner=held))

    def _visit_space(self, place: Place, space: Any) -> None:
        """A class or a Python module: what the code mentions of it."""
        if not isinstance(space, type) or place.expression.endswith(".__class__"):
            self.places.append(place)
        if id(space) in self._visited:
            return
        self._visited[id(space)] = space
        if isinstance(space, type):
            if not own_classes(space):
                return
            for cls in own_classes(space):
                self._learn([n for n, v in vars(cls).items() if n.startswith("__") and isinstance(v, FunctionType)])
        elif _is_foreign(space):
            return
        self._hold(place.expression, place.meaning, space)

    def _hold(self, expression: str, meaning: str, value: Any, named: bool = False) -> None:
        holder = Holder(expression, meaning, value, named)
        self._holders.append(holder)
        self._scan(holder, self.names)

    def _scan(self, holder: Holder, names: set[str]) -> None:
        """The attributes of these names."""
        value = holder.value
        found = self.reads.names(value)
        if found is not None:
            self._scan_reads(holder, found - holder.seen)
            return
        if self.reads.is_whole(value):
            names = names | set(vars(value))
        names = names - holder.seen
        holder.seen |= names
        if isinstance(value, type):
            self._scan_class(holder, value, names)
            return
        own = vars(value) if hasattr(value, "__dict__") else {}
        if isinstance(value, ModuleType) and is_library_name(value.__name__) and value is not os:
            self._scan_library(holder, value, names & own.keys())
            return
        # A module's tables and its mode are assumed where it is called.
        skips = is_module(value)
        # Objects of the standard library's classes have code that is not followed: all that is data.
        if has_attributes(value) and type(value).__module__ in ("collections", "types", "argparse", "queue"):
            names = names | set(own)
        for name in names if len(names) < len(own) else [n for n in own if n in names]:
            if name in own and not (skips and (name.startswith("_") or name == "training")):
                if isinstance(value, Tensor) and name in _TENSOR_FIELDS:
                    continue
                content, cheap = own[name], attribute(self.guards, value, name) if holder.named else None
                expression, meaning = f"{holder.expression}.{name}", f"{holder.meaning}.{name}"
                if isinstance(content, ModuleType) and isinstance(value, ModuleType) and content is not os:
                    continue
                fact = self.guards.watch.attributes(value) if cheap else None
                held = f"{holder.expression}.__dict__"
                self._queue.append(Place(expression, meaning, content, own, name, cheap, fact=fact, owner=held))
        for name in slots_of(value):
            if name in names and hasattr(value, name):
                expression, meaning = f"{holder.expression}.{name}", f"{holder.meaning}.{name}"
                self._queue.append(Place(expression, meaning, getattr(value, name), Slots(value), name))

    def _scan_library(self, holder: Holder, space: ModuleType, names: set[str]) -> None:
        """What the code mentions of this package, whose code is not followed but where the program has put its own."""
        for name in sorted(names):
            content = vars(space)[name]
            place = Place(f"{holder.expression}.{name}", f"{holder.meaning}.{name}", content, assumed=False)
            if isinstance(content, ModuleType):
                self._visit_space(place, content)
            elif callable(content):
                self.library.note(space, name)
                if plain_function(content) is not None:
                    self._queue.append(place)

    def _scan_reads(self, holder: Holder, names: set[str]) -> None:
        """The attributes of an object that a run has looked at, and that it was not found to have."""
        value, own = holder.value, vars(holder.value)
        holder.seen |= names
        others = frozenset(n for n in names if n not in own)  # what the class answers, until the object does
        if others:
            fact = self.guards.watch.attributes(value) if holder.named else None
            free = f"{self.guards.name(others)}.isdisjoint({holder.expression}.__dict__)"
            self.guards.add(free, f"{holder.meaning} had none of {', '.join(sorted(others))}", facts=(fact,))
        for name in sorted(names):
            if name.startswith("__") or (is_module(value) and (name.startswith("_") or name == "training")):
                continue
            if name in own:
                cheap = attribute(self.guards, value, name) if holder.named else None
                fact = self.guards.watch.attributes(value) if cheap else None
                expression, meaning = f"{holder.expression}.{name}", f"{holder.meaning}.{name}"
                held = f"{holder.expression}.__dict__"
                self._queue.append(Place(expression, meaning, own[name], own, name, cheap, fact=fact, owner=held))
            elif not hasattr(type(value), name) and not (is_module(value) and hasattr(value, name)):
                look, absent = self.guards.name(getattr), self.guards.name(_ABSENT)
                expression = f"{look}({holder.expression}, {name!r}, {absent}) is {absent}"
                self.guards.add(expression, f"{holder.meaning} had no attribute {name}")

    def _scan_class(self, holder: Holder, cls: type, names: set[str]) -> None:
        """What the code mentions of a class, its bases included."""
        scopes = own_classes(cls)
        for name in names:
            found = next((s for s in scopes if name in vars(s)), None)
            if found is None:
                continue
            content = vars(found)[name]
            expression, meaning = f"{holder.expression}.{name}", f"{holder.meaning}.{name}"
            for scope in scopes:  # super() asks the others
                for function in functions_of(vars(scope).get(name)):
                    plain = plain_function(function)
                    if plain is not None:
                        self._enter(plain)
            if isinstance(content, classmethod):
                self.places.append(Place(f"{expression}.__func__", meaning, content.__func__))
            elif isinstance(content, FunctionType | property | functools.cached_property):
                self.places.append(Place(expression, meaning, content))  # as the class answers
            elif isinstance(content, staticmethod):
                self._queue.append(Place(expression, meaning, content.__func__))
            elif type(content) is _WRAPPER or not hasattr(type(content), "__get__"):
                if not isinstance(content, ModuleType) and not name.startswith("__"):
                    self._queue.append(Place(expression, meaning, content, ClassSpace(found), name))
            elif not is_library(content):
                there = f"{self.guards.name(found)}.__dict__[{name!r}]"
                self._queue.append(Place(there, meaning, content))

    def _remember(self, place: Place, cached: Any) -> None:
        """A memoizing function."""
        if id(cached) in self._visited:
            return
        self._visited[id(cached)] = cached
        self.memories.append(Memory(cached))
        inner = getattr(cached, "__wrapped__", None)
        if inner is not None:
            self._queue.append(Place(f"{place.expression}.__wrapped__", place.meaning, inner, assumed=False))

    def _assume_tensors(self, arguments: Sequence[Any]) -> None:
        """Attributes that the user gave tensors which are arguments."""
        if not asks_for_absence(self.names) and all(_TENSOR_FIELDS.issuperset(vars(t)) for t in self._arguments):
            return
        mentioned = {n for n in self.names if not hasattr(Tensor, n)} - _TENSOR_FIELDS
        for i, tensor in enumerate(arguments):
            if isinstance(tensor, Tensor):
                given = {n for n in vars(tensor) if n in mentioned}
                check = f"{self.guards.name(mentioned)}.intersection(leaves[{i}].__dict__) == {given or 'set()'}"
                self.guards.add(check, f"argument {i} had the attributes {sorted(given)}")
                for name in given:
                    self._queue.append(Place(f"leaves[{i}].{name}", f"argument {i}.{name}", vars(tensor)[name]))
        self._explore()

    def watch_reads(self) -> ReadLog:
        """Note which attributes of the user's objects are read, during the run."""
        self.reads = ReadLog(self._owners())
        return self.reads

    def _owners(self) -> list[Any]:
        """The user's objects whose attributes count only when they are read."""
        if "__getattribute__" in self.names:  # code that may look past the classes
            return []
        held = (h.value for h in self._holders if not isinstance(h.value, type | ModuleType | FunctionType))
        return [v for v in held if has_attributes(v) and not is_library(v)]

    def meet(self, functions: Sequence[FunctionType]) -> None:
        """During the run: functions of installed packages that are about to be called."""
        recorder, state.recorder = state.recorder, None
        reads, self.reads = self.reads, ReadLog(())  # what they read is not known yet
        for namespace, key, watched in self._renamed:  # as it is outside the run
            namespace[key] = watched
        try:
            with reads.paused():
                for function in functions:
                    self._enter(function)
                self._explore()
                reads.extend(self._owners())
                self.met()
        finally:
            self.reads = reads
            for renamed in self.renamed():
                watch_renamed(*renamed)
            state.recorder = recorder

    def find_assigned(self) -> list[Assigned]:
        """The attributes that hold what the run computed, after it."""
        self.assigned = self.attributes.assigned(self.reads)
        return self.assigned

    def narrowed(self) -> Environment:
        """The places again, without what the run did not look at. What it changed has been put back."""
        if not self.reads.owners and not self.entered.codes:
            return self
        self.entered.over = True
        found = Environment(self.function, self.given, self.guards, self.fullgraph, self.reads, self.entered)
        before = {p.expression: p.value for p in self.places if p.assumed and is_scalar(p.value)}
        changed = (p for p in found.places if not same(before.get(p.expression, p.value), p.value))
        found.made = [p.meaning for p in changed]
        return found

    def renamed(self) -> list[tuple[Any, Any, Any]]:
        """Where the user has other names for functions that are watched: (namespace, key, function)."""
        found = (
            p for p in self.places if p.namespace is not None and (is_watched(p.value) or id(p.value) in FOLLOWED_BY_ID)
        )
        self._renamed[:] = [(p.namespace, p.key, p.value) for p in found]
        return self._renamed

    # -- after the capture -------------------------------------------------------------------------------------------

    def undo_changes(self) -> list[str]:
        """Put back what the run changed; returns what that was. What it only added is in `made`."""
        changed: list[str] = []
        self.reads.settle()
        self.attributes.undo(self.assigned or self.find_assigned())  # a run that failed has not looked for them
        if dict(ALL_MODULES) != self._hooks_on_all:
            changed.append("the hooks on all modules")
            ALL_MODULES.clear()
            ALL_MODULES.update(self._hooks_on_all)
        for place, container, copy in self.containers:
            if not same_entries(container, copy):
                grown = isinstance(container, dict) and all(
                    k in container and same(container[k], v) for k, v in copy.items()
                )
                (self.made if grown else changed).append(place.meaning)
                container.clear()
                if isinstance(container, dict):
                    container.update(copy)
                else:
                    container.extend(copy)
        for memory in self.memories:
            if memory.forget():
                self.filled = getattr(memory.cached, "__name__", "a function")
        for _, meaning, own, names, _ in self.objects:
            for name in [n for n in own if n not in names]:  # made by the run
                self.made.append(f"{meaning}.{name}")
                del own[name]
        for (_, name), (scope, _) in self.absent.items():
            if name in scope:
                self.made.append(f"the global {name}")
                del scope[name]
        for place, array_, content in self.arrays:
            if not equal_arrays(array_, content):
                changed.append(place.meaning)
                array_[...] = content
        for place, buffer, kept in self.buffers:
            if bytes(buffer) != kept:
                changed.append(place.meaning)
                memoryview(buffer).cast("B")[:] = kept
        for place, generator, drawn in self.generators:
            if not same_state(state_of(generator), drawn):
                changed.append(place.meaning)
                set_state(generator, drawn)
        for place, members, kept_members in self.sets:
            if not isinstance(members, frozenset) and members != kept_members:
                changed.append(place.meaning)
                members.clear()
                members.update(kept_members)
        for meaning, table, entries in self.tables:
            if table.keys() != entries.keys() or any(table[k] is not v for k, v in entries.items()):
                grown = all(table.get(k) is v for k, v in entries.items())
                (self.made if grown else changed).append(meaning)
                table.clear()
                table.update(entries)
        for place in self.places:
            if place.changed():
                place.restore()
                changed.append(place.meaning)
        if self.environ is not None and self.environ != dict(os.environ):
            changed.append("the environment variables")
            os.environ.clear()
            os.environ.update(self.environ)
        return list(dict.fromkeys(changed + self.settings.undo() + self.reads.undo(self.places)))

    def add_guards(self, skip: Callable[[Place], bool], fixed: set[int]) -> None:
        """Assume every place but those that `skip` excludes, which each call reads or which are assumed otherwise.
        Containers with ids in `fixed` are assumed to be the same objects."""
        guards = self.guards
        known = {id(vars(o)) for o in self.reads.owners.values() if self.reads.names(o) is not None}
        assume_settings(guards, self.names)
        self.library.add_guards(guards)
        builtin = guards.name(vars(builtins))
        for (_, name), (_, space) in self.absent.items():
            guards.add(f"{name!r} not in {space}", f"there was no global {name}")
            content = vars(builtins).get(name)
            if content is not None and not is_watched(content):
                guards.same_object(f"{builtin}[{name!r}]", content, f"the builtin {name} was the same object")
        for place, container, copy in self.containers:
            self._assume_entries(place, container, copy, id(container) in fixed)
        for place, _, kept in self.sets:
            guards.add(f"{place.expression} == {guards.name(kept)}", f"{place.meaning} had {len(kept)} members")
        for place, _, content in self.arrays:
            check = f"{guards.name(equal_arrays)}({place.expression}, {guards.name(content)})"
            guards.add(check, f"{place.meaning} held the same numbers")
        for place, _, kept_bytes in self.buffers:
            check = f"{guards.name(bytes)}({place.expression}) == {guards.name(kept_bytes)}"
            guards.add(check, f"{place.meaning} held the same bytes")
        for memory in self.memories:
            if memory.was_read():
                name = getattr(memory.cached, "__name__", "a function")
                check = f"{guards.name(memory)}.holds({guards.name(memory.held())})"
                guards.add(check, f"the cache of {name} held the same objects")
        if self.environ is not None:
            held = f"{guards.name(os.environ)}._data"
            copy = dict(vars(os.environ)["_data"])
            guards.add(f"{held} == {guards.name(copy)}", "the environment variables were the same")
        for expression, meaning, own, names, fact in self.objects:
            if id(own) in known:  # what was not found there is assumed by name
                continue
            had = f"{meaning} had {len(names)} attributes"
            guards.add(f"len({expression}) == {len(names)}", had, facts=(fact,))
        if asks_for_absence(self.names):
            for holder in self._holders:
                for cls in own_classes(holder.value) if isinstance(holder.value, type) else ():
                    count = f"len({guards.name(cls)}.__dict__) == {len(vars(cls))}"
                    guards.add(count, f"{cls.__name__} had {len(vars(cls))} attributes")
        for place in self.places:
            if not place.assumed or skip(place):
                continue
            if is_scalar(place.value) or type(place.value) in _VALUES:
                guards.same_value(place.expression, place.value, place.meaning, place.cheap, (place.fact,))
            else:
                meaning = f"{place.meaning} was the same object"
                guards.same_object(place.expression, place.value, meaning, place.cheap, (place.fact,))

    def _assume_entries(self, place: Place, container: Any, copy: Any, fixed: bool) -> None:
        """Assume how many entries a container has; which keys; and, of many, that all are the same."""
        guards, count = self.guards, len(container)
        if count > MAX_ENTRIES:
            check = f"{guards.name(_same_flat_entries)}({place.expression}, {guards.name(copy)})"
            guards.add(check, f"{place.meaning} had the same {count} entries")
        elif isinstance(container, dict) and count:
            alike = functools.partial(same_keys, guards, list(container))
            cheap = alike(guards.name(container)) if fixed else None
            guards.add(alike(place.expression), f"{place.meaning} had the same {count} entries", cheap)
        else:
            guards.add(f"len({place.expression}) == {count}", f"{place.meaning} had {count} entries")


def _is_foreign(space: ModuleType) -> bool:
    """Whether a Python module is one of another library, of which nothing is assumed."""
    return is_library_name(space.__name__) and not space.__name__.startswith("graphtorch") and space is not os


def _made_by_access(place: Place, value: Any) -> bool:
    """Whether a value is another object at each look: a method of an object."""
    owner = getattr(value, "__self__", None)
    return isinstance(value, MethodType) and owner is not None and place.namespace is None


def _is_empty(cell: CellType) -> bool:
    """Whether a closure variable has no value."""
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return True
    return False


def _is_flat(value: Any) -> bool:
    """Whether an entry says all by its value or identity."""
    return is_scalar(value) or isinstance(value, Tensor) or type(value) in _VALUES


def _same_flat_entries(container: Any, copy: Any) -> bool:
    """Whether the entries that have no guards of their own are the same."""
    if len(container) != len(copy):
        return False
    if isinstance(container, dict):
        if not equal_keys(list(container), list(copy)):
            return False
        container, copy = container.values(), copy.values()
    return all(a is b or same(a, b) or not _is_flat(b) for a, b in zip(container, copy, strict=True))
