"""The Python world that a compiled function reads: globals, closure variables, attributes of the objects it is given.

Before a capture, `Environment` lists the places that the function's code mentions, with what they hold. After it, each
place becomes a guard. A place whose content the run itself changed (a counter, a growing list, an attribute that keeps
a tensor) can't be replayed by a graph: it is put back, and the caller runs the function eagerly instead.

What counts as mentioned: names in the code of the function, of the plain functions and methods that it names, and of
the modules that it can reach. Library code is not followed."""

from __future__ import annotations

import contextlib
import inspect
import os
import random
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from graphtorch.frontend.decisions import effect
from graphtorch.frontend.guards import GuardSet, attribute, is_scalar
from graphtorch.tensor.tensor import Tensor

MAX_DEPTH = 4
MAX_BYTES = 1 << 16  # of a NumPy array that is compared by its contents
_ITERATORS = (random.Random, np.random.Generator, np.random.RandomState)
MAX_ENTRIES = 256  # of a list or dictionary that is compared entry by entry


class Cell:
    """A closure variable as a namespace of one entry."""

    def __init__(self, cell: CellType) -> None:
        self.cell = cell

    def get(self, key: Any) -> Any:
        return self.cell.cell_contents

    def __setitem__(self, key: Any, value: Any) -> None:
        self.cell.cell_contents = value


class Slots:
    """The attributes of an object with `__slots__` as a namespace."""

    def __init__(self, owner: Any) -> None:
        self.owner = owner

    def get(self, key: str) -> Any:
        return getattr(self.owner, key, None)

    def __setitem__(self, key: str, value: Any) -> None:
        setattr(self.owner, key, value)


@dataclass(frozen=True, slots=True)
class Place:
    """One variable, attribute or entry: how to name it in a guard, and what it held before the capture.

    `namespace[key]` is the place itself; None for one that can't be assigned (an argument, an entry of a list, whose
    changes the list's own copy shows). `cheap` is a faster expression for it.
    """

    expression: str
    meaning: str
    value: Any
    namespace: Any = None
    key: Any = None
    cheap: str | None = None

    def changed(self) -> bool:
        """Whether the place holds something else now."""
        return self.namespace is not None and not _same(self.namespace.get(self.key), self.value)

    def restore(self) -> None:
        """Put back what it held."""
        self.namespace[self.key] = self.value


class Environment:
    """The places that one capture depends on."""

    def __init__(self, function: Any, arguments: Sequence[Any], guards: GuardSet, fullgraph: bool = False) -> None:
        self.guards = guards
        self.fullgraph = fullgraph
        self.filled = ""  # a memoizing function that kept what the capture made
        self.places: list[Place] = []
        self.lengths: list[tuple[str, str, Any, Any]] = []  # (expression, meaning, container, copy of it)
        self.sets: list[tuple[str, str, Any, frozenset[Any]]] = []
        self.arrays: list[tuple[str, str, Any, Any]] = []  # (expression, meaning, array, copy of it)
        self.modules: list[tuple[str, Any]] = []
        self.caches: list[tuple[Any, int]] = []  # memoizing functions, and how many results they held
        self.objects: list[tuple[str, str, Any, frozenset[str]]] = []  # (expression, meaning, its dictionary, the keys)
        self.tables: list[tuple[str, dict[Any, Any], dict[Any, Any]]] = []  # of modules: (meaning, table, copy of it)
        self.functions: list[FunctionType] = []
        self.names: set[str] = set()
        self._visited: set[int] = set()
        roots = list(self._roots(function, arguments))
        self._collect_names(roots)
        for place in roots:
            self._visit(place, 0)

    def knows(self, value: Any) -> bool:
        """Whether an object's mentioned attributes are among the places."""
        return id(value) in self._visited

    # -- what the code mentions --------------------------------------------------------------------------------------

    def _roots(self, function: Any, arguments: Sequence[Any]) -> Iterator[Place]:
        for i, argument in enumerate(arguments):
            if not isinstance(argument, Tensor) and not is_scalar(argument):
                yield Place(f"leaves[{i}]", f"argument {i}", argument)
        if isinstance(function, MethodType):
            held = function.__self__
            name = self.guards.name(held)
            yield Place(name, type(held).__name__, held)
        plain = plain_function(function)
        if plain is not None:
            yield from self._function_roots(plain)

    def _function_roots(self, function: FunctionType) -> Iterator[Place]:
        self.functions.append(function)
        held = self.guards.name(function)
        scope = function.__globals__
        space = self.guards.name(scope)  # a function has one namespace and one closure for good
        for name in names_in(function.__code__):
            if name in scope:
                yield Place(f"{space}[{name!r}]", f"the global {name}", scope[name], scope, name)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                content = cell.cell_contents
            except ValueError:
                continue
            expression = f"{self.guards.name(cell)}.cell_contents"
            yield Place(expression, f"the variable {name}", content, Cell(cell), name)
        for i, value in enumerate(function.__defaults__ or ()):
            yield Place(f"{held}.__defaults__[{i}]", f"the default {i}", value)
        for name, value in (function.__kwdefaults__ or {}).items():
            yield Place(f"{held}.__kwdefaults__[{name!r}]", f"the default of {name}", value)

    def _collect_names(self, roots: list[Place]) -> None:
        """The names in all code that the function can reach by name; functions met on the way add their own roots."""
        pending = list(self.functions)
        objects = [r.value for r in roots]
        seen_code: set[CodeType] = set()
        seen_objects: set[int] = set()
        while pending or objects:
            while objects:
                value = objects.pop()
                if id(value) in seen_objects:
                    continue
                seen_objects.add(id(value))
                plain = plain_function(value)
                if plain is not None:
                    if plain not in self.functions:
                        more = list(self._function_roots(plain))
                        roots.extend(more)
                        objects.extend(r.value for r in more)
                    pending.append(plain)
                elif _is_module(value):
                    for module in value.modules():
                        seen_objects.add(id(module))
                        pending.extend(_own_methods(module))
                elif _has_user_attributes(value):
                    pending.extend(_own_methods(value))
            while pending:
                code = pending.pop().__code__
                if code not in seen_code:
                    seen_code.add(code)
                    self.names.update(names_in(code))

    # -- places ------------------------------------------------------------------------------------------------------

    def _visit(self, place: Place, depth: int) -> None:
        value = place.value
        if value is None and depth == 0:
            return
        if isinstance(value, ModuleType | type):
            if id(value) not in self._visited and not _library_name(getattr(value, "__module__", value.__name__)):
                self._visited.add(id(value))
                self._visit_names(place, value, depth)
            return
        if isinstance(value, _ITERATORS) or hasattr(type(value), "__next__"):
            raise effect(f"uses {place.meaning}, which gives something else each time,", self.fullgraph)
        if hasattr(value, "cache_info") and hasattr(value, "cache_clear"):
            self.caches.append((value, value.cache_info().currsize))
        if isinstance(value, np.ndarray):
            self.places.append(place)
            if value.nbytes <= MAX_BYTES and value.dtype.kind != "O":
                self.arrays.append((place.expression, place.meaning, value, value.copy()))
            return
        if is_scalar(value) or isinstance(value, Tensor) or callable_code(value):
            self.places.append(place)
            return
        if id(value) in self._visited or depth > MAX_DEPTH:
            self.places.append(place)
            return
        self._visited.add(id(value))
        kind = type(value)
        if kind in (list, tuple, deque):
            self._visit_sequence(place, value, depth)
        elif kind in (dict, OrderedDict, defaultdict, Counter):
            self._visit_dict(place, value, depth)
        elif kind in (set, frozenset):
            self.places.append(place)
            self.sets.append((place.expression, place.meaning, value, frozenset(value)))
        elif _is_module(value):
            self.places.append(place)
            for name, module in value.named_modules():
                self._visited.add(id(module))
                self._note_tables(f"{place.meaning}.{name}" if name else place.meaning, module)
                if not _is_library(module):
                    held = f"{self.guards.name(module)}.__dict__"
                    title = f"{place.meaning}.{name}" if name else place.meaning
                    self.objects.append((held, title, vars(module), frozenset(vars(module))))
                    self._visit_attributes(
                        self.guards.name(module),
                        f"{place.meaning}.{name}" if name else place.meaning,
                        module,
                        depth + 1,
                        named=True,
                    )
        else:
            if depth or place.namespace is not None:
                self.places.append(place)
            if _has_user_attributes(value):
                own = vars(value)
                self.objects.append((f"{place.expression}.__dict__", place.meaning, own, frozenset(own)))
                self._visit_attributes(place.expression, place.meaning, value, depth + 1)
            for name in _slots(value):
                if name in self.names and hasattr(value, name):
                    content = getattr(value, name)
                    inner = Place(f"{place.expression}.{name}", f"{place.meaning}.{name}", content, Slots(value), name)
                    self._visit(inner, depth + 1)
            if not _is_library(value) and not callable_code(value):
                self._visit(Place(f"{place.expression}.__class__", f"the class of {place.meaning}", kind), depth + 1)

    def _visit_names(self, place: Place, space: Any, depth: int) -> None:
        """What the code mentions of a class (its bases included) or of a module of the user's."""
        scopes = space.__mro__ if isinstance(space, type) else (space,)
        for name in self.names:
            for scope in scopes:
                if name in vars(scope):
                    content = vars(scope)[name]
                    expression, meaning = f"{place.expression}.{name}", f"{place.meaning}.{name}"
                    if isinstance(content, FunctionType):
                        if isinstance(space, type):  # as the class answers
                            self.places.append(Place(expression, meaning, content))
                        else:
                            self.places.append(Place(expression, meaning, content, vars(space), name))
                    elif not isinstance(content, ModuleType | type) and not hasattr(type(content), "__get__"):
                        own = None if isinstance(space, type) else vars(space)
                        self._visit(Place(expression, meaning, content, own, name), depth + 1)
                    break

    def _note_tables(self, meaning: str, module: Any) -> None:
        self.modules.append((meaning, module))
        for table in ("_parameters", "_buffers", "_modules"):
            held = vars(module).get(table)
            if isinstance(held, dict):
                self.tables.append((f"{meaning}.{table[1:]}", held, dict(held)))

    def _visit_attributes(self, expression: str, meaning: str, value: Any, depth: int, named: bool = False) -> None:
        """The attributes of an object; `named` if the expression is a name for this very object."""
        own = vars(value)
        for name, content in list(own.items()):
            if name in self.names and not (_is_module(value) and (name.startswith("_") or name == "training")):
                cheap = attribute(self.guards, value, name) if named else None
                self._visit(Place(f"{expression}.{name}", f"{meaning}.{name}", content, own, name, cheap), depth)

    def _visit_sequence(self, place: Place, value: Any, depth: int) -> None:
        if depth:
            self.places.append(place)
        if not isinstance(value, tuple):
            self.lengths.append((f"len({place.expression}) == {len(value)}", place.meaning, value, list(value)))
        if len(value) <= MAX_ENTRIES:
            for i, item in enumerate(value):
                self._visit(Place(f"{place.expression}[{i}]", f"{place.meaning}[{i}]", item), depth + 1)

    def _visit_dict(self, place: Place, value: dict[Any, Any], depth: int) -> None:
        self.lengths.append((f"len({place.expression}) == {len(value)}", place.meaning, value, dict(value)))
        if len(value) > MAX_ENTRIES:
            return
        for key, item in value.items():
            if type(key) in (str, int, bool):
                entry = Place(f"{place.expression}[{key!r}]", f"{place.meaning}[{key!r}]", item, value, key)
                self._visit(entry, depth + 1)

    # -- after the capture -------------------------------------------------------------------------------------------

    def undo_changes(self) -> list[str]:
        """Put back what the run changed; returns what that was."""
        changed: list[str] = []
        for _, meaning, container, copy in self.lengths:
            if not _same_entries(container, copy):
                changed.append(meaning)
                container.clear()
                if isinstance(container, dict):
                    container.update(copy)
                else:
                    container.extend(copy)
        for cached, count in self.caches:
            if cached.cache_info().currsize != count:
                cached.cache_clear()  # what the capture put there is of no use to others
                self.filled = getattr(cached, "__name__", "a function")
        for _, meaning, own, names in self.objects:
            if len(own) > len(names):
                for name in [n for n in own if n not in names]:  # made by the run
                    changed.append(f"{meaning}.{name}")
                    del own[name]
        for _, meaning, array, content in self.arrays:
            if not _equal_arrays(array, content):
                changed.append(meaning)
                array[...] = content
        for _, meaning, members, kept in self.sets:
            if not isinstance(members, frozenset) and members != kept:
                changed.append(meaning)
                members.clear()
                members.update(kept)
        for meaning, table, entries in self.tables:
            if table.keys() != entries.keys() or any(table[k] is not v for k, v in entries.items()):
                changed.append(meaning)
                table.clear()
                table.update(entries)
        for place in self.places:
            if place.changed():
                place.restore()
                changed.append(place.meaning)
        return list(dict.fromkeys(changed))

    def add_guards(self, skip: Callable[[Any, Any], bool]) -> None:
        """Assume every place. `skip(container, key)` excludes dictionary entries that are inputs of the graph."""
        guards = self.guards
        inputs = {
            f"{key!r}]"
            for _, _, container, _ in self.lengths
            if isinstance(container, dict)
            for key in container
            if skip(container, key)
        }
        for expression, meaning, container, _ in self.lengths:
            guards.add(expression, f"{meaning} had {len(container)} entries")
        for expression, meaning, _, kept in self.sets:
            guards.add(f"{expression} == {guards.name(kept)}", f"{meaning} had {len(kept)} members")
        for expression, meaning, _, content in self.arrays:
            check = f"{guards.name(_equal_arrays)}({expression}, {guards.name(content)})"
            guards.add(check, f"{meaning} held the same numbers")
        if not self.names.isdisjoint(("environ", "getenv")):
            held = guards.name(os.environ)
            for key in sorted(n for n in self.names if n.isupper()):
                guards.add(f"{held}.get({key!r}) == {os.environ.get(key)!r}", f"the environment variable {key}")
        for expression, meaning, _, names in self.objects:
            guards.add(f"len({expression}) == {len(names)}", f"{meaning} had {len(names)} attributes")
        for place in self.places:
            if inputs and any(place.expression.endswith(f"[{suffix}") for suffix in inputs):
                continue
            if is_scalar(place.value):
                guards.same_value(place.expression, place.value, place.meaning, place.cheap)
            else:
                meaning = f"{place.meaning} was the same object"
                guards.same_object(place.expression, place.value, meaning, place.cheap)


def tensor_names(function: Any, arguments: Sequence[Any]) -> tuple[dict[int, str], list[Any]]:
    """Names for the tensors that the function can reach, for people who read the graph.

    A module's parameters go by their path in it; those of several modules by the module's name too. Second, the
    optimizers it can reach, whose state tensors are named when they are met: the step may make them.
    """
    function = getattr(inspect.unwrap(function), "__func__", function)
    reached: dict[str, Any] = {}
    if isinstance(function, FunctionType):
        reached.update({n: function.__globals__.get(n) for n in names_in(function.__code__)})
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            with contextlib.suppress(ValueError):
                reached[name] = cell.cell_contents
    elif hasattr(function, "named_parameters"):
        reached["model"] = function
    reached.update({f"argument{i}": a for i, a in enumerate(arguments)})
    found = {id(v): n for n, v in reached.items() if isinstance(v, Tensor)}
    modules = {n: m for n, m in reached.items() if hasattr(m, "named_parameters") and not isinstance(m, type)}
    for module_name, module in modules.items():
        prefix = f"{module_name}." if len(modules) > 1 else ""
        for named in (module.named_parameters, module.named_buffers, module.named_modules):
            for path, member in named():
                if path:
                    found.setdefault(id(member), prefix + path)
    return found, [o for o in reached.values() if hasattr(o, "param_groups")]


def plain_function(value: Any) -> FunctionType | None:
    """The user's Python function behind a callable; None for library code and other objects."""
    value = getattr(value, "__wrapped__", value) if hasattr(value, "specializations") else value
    value = getattr(value, "__func__", value)
    if isinstance(value, FunctionType):
        value = inspect.unwrap(value)
    if not isinstance(value, FunctionType) or _library_name(value.__module__):
        return None
    return value


def callable_code(value: Any) -> bool:
    """Whether a value is code: a function or a method."""
    return isinstance(value, FunctionType | MethodType) or hasattr(value, "specializations")


def names_in(code: CodeType) -> list[str]:
    """The globals and attributes that a function's code, and the functions nested in it, mention."""
    names = list(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names.extend(names_in(constant))
        elif type(constant) is str and constant.isidentifier():
            names.append(constant)  # getattr(x, "name")
    return names


def _library_name(module: str | None) -> bool:
    return module is not None and module.partition(".")[0] in ("graphtorch", "numpy", "builtins")


def _is_library(value: Any) -> bool:
    return _library_name(type(value).__module__)


def _is_module(value: Any) -> bool:
    return hasattr(value, "named_parameters") and not isinstance(value, type)


def _has_user_attributes(value: Any) -> bool:
    return hasattr(value, "__dict__") and not _is_library(value) and not isinstance(value, type)


def _own_methods(value: Any) -> list[FunctionType]:
    """The methods that an object's own classes define."""
    found: list[FunctionType] = []
    for cls in type(value).__mro__:
        if not _library_name(cls.__module__):
            found.extend(m for m in vars(cls).values() if isinstance(m, FunctionType))
    return found


def _slots(value: Any) -> list[str]:
    """The names in the `__slots__` of an object's own classes."""
    found: list[str] = []
    for cls in type(value).__mro__:
        if not _library_name(cls.__module__):
            held = vars(cls).get("__slots__", ())
            found.extend([held] if isinstance(held, str) else held)
    return found


def _equal_arrays(a: Any, b: Any) -> bool:
    """Whether two arrays are alike, NaNs included."""
    return bool(a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes())


def _same(a: Any, b: Any) -> bool:
    if a is b:
        return True
    return is_scalar(a) and is_scalar(b) and type(a) is type(b) and bool(a == b or (a != a and b != b))


def _same_entries(container: Any, copy: Any) -> bool:
    if len(container) != len(copy):
        return False
    if not isinstance(container, dict):
        return all(_same(a, b) for a, b in zip(container, copy, strict=True))
    return all(k in container and _same(container[k], v) for k, v in copy.items())
