"""What Python code can reach by name: names in code objects, functions behind callables, and what is a library's.

`frontend.environment` follows the user's code with these. Code of the standard library, of NumPy and of this package is
not followed: what it keeps between calls is watched otherwise, or is nobody's business."""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from collections.abc import Sequence
from dis import opmap
from types import CodeType, FunctionType, MethodType
from typing import Any

from graphtorch.tensor.tensor import Tensor

_FOLLOWED_NOT = frozenset(("graphtorch", "numpy", "builtins")) | sys.stdlib_module_names - {"__main__"}
_ABSENCE = frozenset(("hasattr", "getattr", "AttributeError", "vars", "dir", "__dict__", "__getattr__"))


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
    elif is_module(function):
        reached["model"] = function
    reached.update({f"argument{i}": a for i, a in enumerate(arguments)})
    found = {id(v): n for n, v in reached.items() if isinstance(v, Tensor)}
    modules = {n: m for n, m in reached.items() if is_module(m)}
    for module_name, module in modules.items():
        prefix = f"{module_name}." if len(modules) > 1 else ""
        for named in (module.named_parameters, module.named_buffers, module.named_modules):
            for path, member in named():
                if path:
                    found.setdefault(id(member), prefix + path)
    return found, [o for o in reached.values() if hasattr(type(o), "add_param_group")]


def plain_function(value: Any) -> FunctionType | None:
    """The user's Python function behind a callable; None for library code and other objects."""
    if hasattr(type(value), "specialize"):  # a compiled function
        value = value.function
    value = getattr(value, "__func__", value) if isinstance(value, MethodType | staticmethod | classmethod) else value
    if not isinstance(value, FunctionType) or is_library_name(value.__module__):
        return None
    return value


def functions_of(content: Any) -> list[Any]:
    """The functions behind an entry of a class's dictionary."""
    if isinstance(content, property):
        return [f for f in (content.fget, content.fset, content.fdel) if f is not None]
    if isinstance(content, functools.cached_property):
        return [content.func]
    if isinstance(content, functools.partialmethod):
        return [content.func]
    return [content]


def callable_code(value: Any) -> bool:
    """Whether a value is code: a function or a method."""
    return isinstance(value, FunctionType | MethodType) or hasattr(type(value), "specialize")


@functools.lru_cache(maxsize=4096)
def names_in(code: CodeType) -> tuple[str, ...]:
    """The globals and attributes that a function's code, and the functions nested in it, mention."""
    names = list(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names.extend(names_in(constant))
        for text in constant if type(constant) is tuple else (constant,):
            if type(text) is str and text.isidentifier():
                names.append(text)  # getattr(x, "name")
    return tuple(dict.fromkeys(names))


@functools.lru_cache(maxsize=4096)
def globals_in(code: CodeType) -> tuple[str, ...]:
    """The names that a function's code, and the functions nested in it, look for among the globals."""
    names: list[str] = []
    operations, extended = code.co_code, 0
    for at in range(0, len(operations), 2):
        operation, argument = operations[at], operations[at + 1] | extended
        extended = argument << 8 if operation == opmap["EXTENDED_ARG"] else 0
        if operation == opmap["LOAD_GLOBAL"]:
            names.append(code.co_names[argument >> 1])  # the lowest bit says whether it is called
        elif operation in (opmap["LOAD_NAME"], opmap["STORE_GLOBAL"]):
            names.append(code.co_names[argument])
    mentioned = names_in(code)
    if "globals" in mentioned:
        names.extend(mentioned)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names.extend(globals_in(constant))
    return tuple(dict.fromkeys(names))


@functools.lru_cache(maxsize=4096)
def imports_in(code: CodeType) -> tuple[str, ...]:
    """The modules that a function's code, and the functions nested in it, import."""
    names: list[str] = []
    operations, extended = code.co_code, 0
    for at in range(0, len(operations), 2):
        operation, argument = operations[at], operations[at + 1] | extended
        extended = argument << 8 if operation == opmap["EXTENDED_ARG"] else 0
        if operation == opmap["IMPORT_NAME"]:
            names.append(code.co_names[argument])
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names.extend(imports_in(constant))
    return tuple(dict.fromkeys(names))


def asks_for_absence(names: Any) -> bool:
    """Whether code with these names may find out that an object has no attribute of some name."""
    return not _ABSENCE.isdisjoint(names)


def is_library_name(module: str | None) -> bool:
    """Whether code of a module is not followed."""
    return module is not None and module.partition(".")[0] in _FOLLOWED_NOT


def is_library(value: Any) -> bool:
    """Whether an object is of a library's class."""
    return is_library_name(type(value).__module__)


def is_module(value: Any) -> bool:
    """Whether an object is an nn.Module."""
    return hasattr(type(value), "named_parameters")


def has_attributes(value: Any) -> bool:
    """Whether an object has attributes that the user's code may set: it is of the user's class, or of one of the
    standard library's."""
    module = type(value).__module__.partition(".")[0]
    return module not in ("graphtorch", "numpy", "builtins") and isinstance(getattr(value, "__dict__", None), dict)


def own_classes(cls: type) -> list[type]:
    """A class and its bases, without those of libraries."""
    return [c for c in cls.__mro__ if not is_library_name(c.__module__)]


def slots_of(value: Any) -> list[str]:
    """The names in the `__slots__` of an object's own classes."""
    found: list[str] = []
    for cls in own_classes(type(value)):
        held = vars(cls).get("__slots__", ())
        found.extend([held] if isinstance(held, str) else held)
    return [f"_{cls.__name__}{n}" if n.startswith("__") and not n.endswith("__") else n for n in found]
