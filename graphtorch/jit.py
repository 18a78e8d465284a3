"""TorchScript's names, `torch.jit`: programs that script or trace a function or module run it as Python.

`graphtorch.compile` is what makes code fast here; `script` and `trace` give back what they were given. A traced
function therefore follows its branches anew in every call, and nothing has `.graph` or `.code`; `graphtorch.export`
writes programs to files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from graphtorch.nn import Module

T = TypeVar("T")

ScriptModule = Module

__all__ = [
    "Final",
    "ScriptModule",
    "annotate",
    "export",
    "fork",
    "freeze",
    "ignore",
    "is_scripting",
    "is_tracing",
    "isinstance",
    "optimize_for_inference",
    "optimized_execution",
    "script",
    "script_if_tracing",
    "script_method",
    "trace",
    "unused",
    "wait",
]

_isinstance = isinstance


def script(obj: T, *args: Any, **kwargs: Any) -> T:
    """The function, class or module itself. See torch.jit.script."""
    return obj


def trace(func: T, example_inputs: Any = None, *args: Any, **kwargs: Any) -> T:
    """The function or module itself, called once on the example, so that errors come here. See torch.jit.trace."""
    if example_inputs is not None and callable(func):
        func(*(example_inputs if _isinstance(example_inputs, tuple | list) else (example_inputs,)))
    return func


def script_method(fn: T) -> T:
    """The method itself."""
    return fn


def script_if_tracing(fn: T) -> T:
    """The function itself."""
    return fn


def export(fn: T) -> T:
    """The method itself."""
    return fn


def unused(fn: T) -> T:
    """The method itself."""
    return fn


def ignore(drop: Any = False, **kwargs: Any) -> Any:
    """The method itself; also with parentheses."""
    return drop if callable(drop) else lambda fn: fn


def freeze(mod: T, *args: Any, **kwargs: Any) -> T:
    """The module itself."""
    return mod


def optimize_for_inference(mod: T, *args: Any, **kwargs: Any) -> T:
    """The module itself."""
    return mod


@contextmanager
def optimized_execution(should_optimize: bool) -> Iterator[None]:
    """A block that runs as any other."""
    yield


def is_scripting() -> bool:
    """Whether this code runs as TorchScript: never."""
    return False


def is_tracing() -> bool:
    """Whether this code is being traced: never."""
    return False


def annotate(the_type: Any, the_value: T) -> T:
    """The value. See torch.jit.annotate."""
    return the_value


def isinstance(obj: Any, target_type: Any) -> bool:
    """Python's `isinstance`, for types without parameters. See torch.jit.isinstance."""
    return _isinstance(obj, getattr(target_type, "__origin__", target_type))


def fork(func: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Call the function now; `wait` gives the result. See torch.jit.fork."""
    return func(*args, **kwargs)


def wait(future: T) -> T:
    """The result of `fork`."""
    return future
