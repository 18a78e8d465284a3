"""Checkpoints: `save` and `load` in PyTorch's zip format, so that files travel both ways.

`export` writes a captured function as a program, which `program` loads and runs; `safetensors` has its weights.

`unpickler` reads the pickle inside with an allow-list of its own, `archive` the zip container with every offset and
size checked; `writer` makes both. Loading rebuilds tensors and plain containers and executes nothing."""

from graphtorch.serialization.allowed import add_safe_globals, clear_safe_globals, get_safe_globals, safe_globals
from graphtorch.serialization.reader import load
from graphtorch.serialization.writer import save


class SourceChangeWarning(Warning):
    """What PyTorch warns with where a class is not what it was; here for programs that filter it."""


__all__ = [
    "SourceChangeWarning",
    "add_safe_globals",
    "clear_safe_globals",
    "get_safe_globals",
    "load",
    "safe_globals",
    "save",
]
