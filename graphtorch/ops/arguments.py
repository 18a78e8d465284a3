"""The error for an argument of the wrong type, of functions that are compositions.

PyTorch looks at the types of all arguments before anything else and raises TypeError. A composition finds a wrong one
somewhere on its way, as whatever error that gives; so its annotations are read then, and only then."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from graphtorch.tensor.tensor import Tensor


def _is_int(value: Any) -> bool:
    if isinstance(value, bool | float | complex):
        return False
    if isinstance(value, Tensor):
        return value.ndim == 0
    return hasattr(value, "__index__") or getattr(value, "is_symbolic_int", False)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | complex) or hasattr(value, "__float__") or hasattr(value, "__index__")


# Annotation -> whether a value fits, and what PyTorch calls the type.
_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "Tensor": (lambda v: isinstance(v, Tensor), "Tensor"),
    "int": (_is_int, "int"),
    "float": (_is_number, "Number"),
    "bool": (lambda v: isinstance(v, bool), "bool"),
    "str": (lambda v: isinstance(v, str), "str"),
    "Sequence[int]": (
        lambda v: _is_int(v) or (isinstance(v, list | tuple) and all(_is_int(i) for i in v)),
        "tuple of ints",
    ),
    "Sequence[Tensor]": (
        lambda v: isinstance(v, Tensor) or (isinstance(v, list | tuple) and all(isinstance(i, Tensor) for i in v)),
        "tuple of Tensors",
    ),
    "None": (lambda v: v is None, "None"),
}


def wrong_argument(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> TypeError | None:
    """PyTorch's error for the first argument that its parameter's annotation does not allow; None if there is none."""
    try:
        signature = inspect.signature(function)
        bound = signature.bind(*args, **kwargs)
    except TypeError:
        return None  # Python has said so
    for position, (name, value) in enumerate(bound.arguments.items(), 1):
        annotation = signature.parameters[name].annotation
        kinds = [kind.strip() for kind in str(annotation).split("|")]
        if not all(kind in _CHECKS for kind in kinds) or value is signature.parameters[name].default:
            continue
        if not any(_CHECKS[kind][0](value) for kind in kinds):
            return TypeError(
                f"{function.__name__}(): argument '{name}' (position {position}) must be {_CHECKS[kinds[0]][1]}, not "
                f"{type(value).__name__}"
            )
    return None


def check_tensors(name: str, **arguments: Any) -> None:
    """Raise TypeError for an argument that is no tensor, of functions that would compute with a number, too."""
    for position, (argument, value) in enumerate(arguments.items(), 1):
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{name}(): argument '{argument}' (position {position}) must be Tensor, not {type(value).__name__}"
            )


def also_by_name(function: Callable[..., Any], *names: str) -> Callable[..., Any]:
    """The function, of whose arguments those with these names follow the positional ones, in this order: PyTorch's
    names of arguments that are called otherwise here, or that are taken one by one."""

    @functools.wraps(function)
    def named(*args: Any, **kwargs: Any) -> Any:
        if kwargs:
            args += tuple([kwargs.pop(name) for name in names if name in kwargs])
        return function(*args, **kwargs)

    return named


# NumPy's names of parameters, which PyTorch takes for its own: those that programs use.
NUMPY_NAMES = {"axis": "dim", "keepdims": "keepdim"}
NOT_GIVEN = object()  # the default of a parameter that has none, but may be given by NumPy's name


def by_own_names(function: Callable[..., Any], names: dict[str, Any], given: dict[str, Any]) -> Any:
    """Call an operator's function with `given`, its arguments by name, and with those given by NumPy's `names`."""
    defaults = {p.name: p.default for p in function.operator.parameters}  # type: ignore[attr-defined]
    for name, value in names.items():
        own = NUMPY_NAMES.get(name, "")
        if own not in given:
            raise TypeError(f"{function.__name__}() got an unexpected keyword argument '{name}'")
        if given[own] is not NOT_GIVEN and given[own] is not defaults[own]:
            raise TypeError(f"{function.__name__}() got multiple values for argument '{own}'")
        given[own] = value
    return function(**given)


def _numpy_names(function: Callable[..., Any]) -> dict[str, str]:
    """NumPy's names for parameters of a Python function."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    own = () if code is None else code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return {name: ours for name, ours in NUMPY_NAMES.items() if ours in own and name not in own}


def _several(function: Callable[..., Any]) -> str | None:
    """The name of the parameter that takes any number of positional arguments; None too if there may be any names."""
    code = getattr(function, "__code__", None)
    if code is None or not code.co_flags & inspect.CO_VARARGS or code.co_flags & inspect.CO_VARKEYWORDS:
        return None
    name: str = code.co_varnames[code.co_argcount + code.co_kwonlyargcount]
    return name


def with_argument_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, whose errors are TypeErrors where an argument has the wrong type.

    Sizes that it takes one by one (`zeros(*size)`) may be given by name as well: `zeros(size=(2, 3))`."""
    several = _several(function)
    renamed = _numpy_names(function)

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        if kwargs and several in kwargs:
            if len(args) > function.__code__.co_argcount:
                raise TypeError(f"{function.__name__}() got multiple values for argument '{several}'")
            args += (kwargs.pop(several),)
        if kwargs and renamed:
            for name in renamed.keys() & kwargs.keys():
                if renamed[name] in kwargs:
                    raise TypeError(f"{function.__name__}() got multiple values for argument '{renamed[name]}'")
                kwargs[renamed[name]] = kwargs.pop(name)
        try:
            return function(*args, **kwargs)
        except (AttributeError, RuntimeError, ValueError, IndexError, AssertionError) as error:
            wrong = wrong_argument(function, args, kwargs)
            if wrong is None and isinstance(error, AttributeError) and any(error.obj is a for a in args):
                wrong = TypeError(
                    f"{function.__name__}() received an invalid combination of arguments - got "
                    f"({', '.join(type(a).__name__ for a in args)})"
                )
            if wrong is None:
                raise
            raise wrong from error

    return checked
