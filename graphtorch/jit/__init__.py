"""TorchScript's names, `torch.jit`: programs that script or trace a function or module run it as Python.

`graphtorch.compile` is what makes code fast here; `script` and `trace` give back what they were given. A traced
function therefore follows its branches anew in every call, and nothing has `.graph` or `.code`. `save` writes a module
as `graphtorch.save` does, so that `load` needs the code of its class; of files that PyTorch's `torch.jit.save` wrote,
`load` reads the state. `graphtorch.export` writes programs that run without their code."""

from __future__ import annotations

import builtins
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, Final, TypeVar

from graphtorch.futures import Future
from graphtorch.nn import Module
from graphtorch.serialization.archive import Archive
from graphtorch.serialization.reader import MapLocation
from graphtorch.serialization.reader import load as load_checkpoint
from graphtorch.serialization.writer import save as save_checkpoint

T = TypeVar("T")
File = str | os.PathLike[str] | IO[bytes]


class _OfScripted(type):
    """The class of `ScriptModule`, of which every module that `script` or `trace` gave back is an instance."""

    def __instancecheck__(cls, instance: Any) -> bool:
        return type.__instancecheck__(cls, instance) or (
            cls is ScriptModule and _isinstance(instance, Module) and "_scripted" in instance.__dict__
        )


class ScriptModule(Module, metaclass=_OfScripted):
    """A module that is written for TorchScript. See torch.jit.ScriptModule."""

    def __init__(self) -> None:
        super().__init__()
        self.__dict__["_scripted"] = True


RecursiveScriptModule = TopLevelTracedModule = TracedModule = ScriptModule


class ScriptFunction:
    """TorchScript's functions: there are none, as `script` gives back the Python function."""


class TracerWarning(Warning):
    """What PyTorch's tracer warns with; here for programs that filter it."""


class TracingCheckError(Exception):
    """What PyTorch's tracer raises where a check fails; here for programs that catch it."""


class Error(RuntimeError):
    """What PyTorch raises for errors inside TorchScript; here for programs that catch it."""


__all__ = [
    "Attribute",
    "Error",
    "Final",
    "Future",
    "ScriptFunction",
    "ScriptModule",
    "annotate",
    "export",
    "fork",
    "freeze",
    "ignore",
    "is_scripting",
    "interface",
    "is_tracing",
    "isinstance",
    "load",
    "optimize_for_inference",
    "optimized_execution",
    "save",
    "script",
    "script_if_tracing",
    "script_method",
    "set_fusion_strategy",
    "strict_fusion",
    "trace",
    "trace_module",
    "unused",
    "wait",
]

_isinstance = isinstance


def script(obj: T, *args: Any, **kwargs: Any) -> T:
    """The function, class or module itself. See torch.jit.script."""
    return _noted(obj)


def _noted(obj: T) -> T:
    if _isinstance(obj, Module):
        obj.__dict__["_scripted"] = True
    return obj


def scripted_attribute(module: Module, name: str) -> Any:
    """What a module has once it was given to `script` or `trace`."""
    if name == "save":
        return lambda f, _extra_files=None: save(module, f, _extra_files)
    if name == "original_name":
        return type(module).__name__
    raise AttributeError(
        f"a scripted module has no .{name} here: it runs as Python; `graphtorch dump` prints the graph of a compiled "
        "function"
    )


def trace(func: T, example_inputs: Any = None, *args: Any, **kwargs: Any) -> T:
    """The function or module itself, called once on the example, so that errors come here. See torch.jit.trace."""
    if example_inputs is not None and callable(func):
        func(*(example_inputs if _isinstance(example_inputs, tuple | list) else (example_inputs,)))
    return _noted(func)


def trace_module(mod: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
    """The module itself, of which each method named was called once on its example. See torch.jit.trace_module.

    Raises AttributeError for what is no dictionary."""
    if not _isinstance(inputs, dict):
        raise AttributeError("expected a dictionary of (method_name, input) pairs")
    for name, example in inputs.items():
        method = mod if name == "forward" else getattr(mod, name)
        method(*(example if _isinstance(example, tuple | list) else (example,)))
    return _noted(mod)


_EXTRA = "extra/"


def save(m: Any, f: File, _extra_files: dict[str, bytes | str] | None = None) -> None:
    """Write a module that `script` or `trace` gave back, for `load`. See torch.jit.save.

    The file refers to the module's class, whose code must be there when it is loaded. Raises what `graphtorch.save`
    raises for what can't be pickled."""
    save_checkpoint(m, f)
    if _extra_files:
        with zipfile.ZipFile(f, "a", zipfile.ZIP_STORED) as archive:
            root = archive.namelist()[0].partition("/")[0]
            for name, content in _extra_files.items():
                archive.writestr(f"{root}/{_EXTRA}{name}", content)


def load(
    f: File,
    map_location: MapLocation = None,
    _extra_files: dict[str, Any] | None = None,
    _restore_shapes: bool = False,
) -> Any:
    """Read what `save` wrote; or, of a file that PyTorch's torch.jit.save wrote, the modules with their state, whose
    forward raises RuntimeError. See torch.jit.load.

    **The first kind may execute anything, as pickles do: load such files only where you trust them.** Nothing of the
    second kind is executed. `_extra_files`: its values are replaced by the contents of these files. Raises ValueError
    for a file that is not there.
    """
    if builtins.isinstance(f, str | os.PathLike):
        if not os.path.exists(f):
            raise ValueError(f"The provided filename {f} does not exist")
        with open(f, "rb") as file:
            return _noted(_load(file, map_location, _extra_files))
    return _noted(_load(f, map_location, _extra_files))


def _load(file: IO[bytes], map_location: MapLocation, extra: dict[str, Any] | None) -> Any:
    start = file.tell()
    archive = Archive(file, torchscript=True)
    for name in extra or ():
        if _EXTRA + name in archive:
            assert extra is not None
            extra[name] = archive.read(_EXTRA + name)
    if archive.torchscript:
        from graphtorch.serialization.torchscript import read_torchscript

        return read_torchscript(archive, map_location)
    file.seek(start)
    return load_checkpoint(file, map_location, weights_only=False)


def script_method(fn: T) -> T:
    """The method itself."""
    return fn


def script_if_tracing(fn: T) -> T:
    """The function itself."""
    return fn


_script_if_tracing = script_if_tracing  # torchvision's name for it


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


def interface(obj: T) -> T:
    """The class itself."""
    return obj


def set_fusion_strategy(strategy: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Nothing: `graphtorch.compile` fuses. Returns the strategy before, an empty one."""
    return []


class strict_fusion:
    """A block that runs as any other."""

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, *error: object) -> None:
        """End."""


class Attribute(tuple[Any, Any]):
    """A value and its type, `Attribute(value, type)`. See torch.jit.Attribute."""

    def __new__(cls, value: Any, type: Any) -> Attribute:
        return super().__new__(cls, (value, type))

    @property
    def value(self) -> Any:
        """The value."""
        return self[0]

    @property
    def type(self) -> Any:
        """Its type."""
        return self[1]


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
