"""PyTorch's objects as this library's: tensors with their layout, dtypes, functions, and small Python functions that
name `torch`, as the ones in PyTorch's tables of sample inputs do. Needs PyTorch."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import types
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import torch

import graphtorch

NAMESPACES = (
    "", ".nn.functional", ".linalg", ".special", ".fft", ".nn", ".nn.init", ".optim", ".signal.windows", ".masked",
    ".sparse", ".nn.utils.rnn", ".random", ".Tensor",
)  # fmt: skip
# Where the sample tables reach into PyTorch's insides for a function that has a public name.
INSIDES = {"_C._linalg": "linalg", "_C._special": "special", "_C._fft": "fft", "_C._nn": "nn.functional"}


class Untranslatable(Exception):
    """An object has no counterpart here; the text says which."""


def _namespace(library: Any, path: str) -> Any:
    if path == ".Tensor":
        return library.Tensor
    return importlib.import_module(library.__name__ + path)


@functools.cache
def _table() -> dict[int, Any]:
    """Counterparts of PyTorch's functions, classes and constants by the identity of the original."""
    found: dict[int, Any] = {}
    for path in NAMESPACES:
        theirs, ours = _namespace(torch, path), _namespace(graphtorch, path)
        for name in dir(theirs):
            value = getattr(theirs, name)
            if not isinstance(value, types.ModuleType | bool | int | float | str) and hasattr(ours, name):
                found.setdefault(id(value), getattr(ours, name))
    for inside, public in INSIDES.items():
        theirs, ours = _namespace(torch, "." + inside.split(".")[0]), _namespace(graphtorch, "." + public)
        theirs = getattr(theirs, inside.split(".")[1])
        for name in dir(theirs):
            short = name.removeprefix(public + "_")
            if hasattr(ours, short):
                found.setdefault(id(getattr(theirs, name)), getattr(ours, short))
    return found


_seeding = True


@contextlib.contextmanager
def without_seeding() -> Iterator[None]:
    """Random operators of the sample tables draw from the generator as it is: a graph cannot set it."""
    global _seeding
    _seeding = False
    try:
        yield
    finally:
        _seeding = True


def _seeded(op: Any, *args: Any, **kwargs: Any) -> Any:
    """The sample tables' way to call random operators: from a seed of their own, leaving the generator as it was."""
    if not _seeding:
        return op(*args, **kwargs)
    state = graphtorch.get_rng_state()
    try:
        graphtorch.manual_seed(42)
        return op(*args, **kwargs)
    finally:
        graphtorch.set_rng_state(state)


def _names(code: types.CodeType) -> set[str]:
    inner = (_names(c) for c in code.co_consts if isinstance(c, types.CodeType))
    return set(code.co_names).union(*inner)


def function(theirs: Any) -> Any:
    """The counterpart of a function: by name or, for a Python function of the sample tables, the same code with
    everything of `torch` replaced."""
    if id(theirs) in _table():
        return _table()[id(theirs)]
    if isinstance(theirs, functools.partial):
        return functools.partial(function(theirs.func), *value(theirs.args), **value(theirs.keywords))
    if isinstance(theirs, types.FunctionType) and "torch.testing." in theirs.__module__:
        if theirs.__name__ == "wrapper_set_seed":
            return _seeded
        names = _names(theirs.__code__)
        scope = {n: _global(v) for n, v in theirs.__globals__.items() if n in names}
        cells = tuple(types.CellType(_global(c.cell_contents)) for c in theirs.__closure__ or ())
        made = types.FunctionType(theirs.__code__, scope, theirs.__name__, theirs.__defaults__, cells)
        made.__kwdefaults__ = theirs.__kwdefaults__
        return made
    raise Untranslatable(getattr(theirs, "__qualname__", None) or str(theirs))


def _global(theirs: Any) -> Any:
    """What a translated function sees under a name."""
    if theirs is torch:
        return graphtorch
    if isinstance(theirs, types.ModuleType) and theirs.__name__.startswith("torch"):
        try:
            return importlib.import_module("graph" + theirs.__name__)
        except ImportError:
            return theirs
    if callable(theirs) and not inspect.isclass(theirs):
        try:
            return function(theirs)
        except Untranslatable:
            return theirs
    return _table().get(id(theirs), theirs)


@functools.cache
def dtypes() -> dict[Any, Any]:
    """This library's dtype for each of PyTorch's that it has."""
    names = "bool uint8 int8 int16 int32 int64 float16 bfloat16 float32 float64 complex64 complex128"
    return {getattr(torch, n): getattr(graphtorch, n) for n in names.split()}


def array(theirs: torch.Tensor) -> np.ndarray:
    """The data of PyTorch's tensor, bfloat16 included, with the same strides."""
    dense = theirs.detach().resolve_conj().resolve_neg()
    if dense._is_zerotensor():
        dense = torch.zeros_like(dense)
    if dense.dtype is torch.bfloat16:
        return dense.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return dense.numpy()


def tensor(theirs: torch.Tensor) -> Any:
    """A copy, in memory of the same layout; a leaf."""
    if theirs.layout is not torch.strided or theirs.dtype not in dtypes() or theirs.device.type != "cpu":
        raise Untranslatable(f"a tensor of {theirs.layout}, {theirs.dtype} on {theirs.device.type}")
    if theirs.dim() > 64:
        raise Untranslatable("more dimensions than NumPy has")
    reach = 1 + sum((n - 1) * s for n, s in zip(theirs.shape, theirs.stride(), strict=True)) if theirs.numel() else 1
    made = graphtorch.empty(max(reach, 1), dtype=dtypes()[theirs.dtype])
    made = made.as_strided(tuple(theirs.shape), theirs.stride())
    if theirs.numel():
        made.detach()._data[...] = array(theirs)
    if isinstance(theirs, torch.nn.Parameter):
        return graphtorch.nn.Parameter(made, theirs.requires_grad)
    return made.requires_grad_() if theirs.requires_grad else made


def value(theirs: Any, seen: dict[int, Any] | None = None) -> Any:
    """Any argument: containers are walked, and a tensor that occurs twice is one tensor again."""
    seen = {} if seen is None else seen
    if isinstance(theirs, torch.Tensor):
        if id(theirs) not in seen:
            seen[id(theirs)] = tensor(theirs)
        return seen[id(theirs)]
    if isinstance(theirs, torch.dtype):
        if theirs not in dtypes():
            raise Untranslatable(str(theirs))
        return dtypes()[theirs]
    if isinstance(theirs, torch.device):
        return graphtorch.device(str(theirs))
    if isinstance(theirs, torch.Size):
        return graphtorch.Size(theirs)
    if isinstance(theirs, torch.Generator):
        made = graphtorch.Generator()
        made.set_state(tensor(theirs.get_state()))
        return made
    if isinstance(theirs, torch.nn.Module):
        raise Untranslatable("a module as an argument")
    if isinstance(theirs, tuple) and hasattr(theirs, "_fields"):
        raise Untranslatable(type(theirs).__name__)
    if isinstance(theirs, list | tuple):
        return type(theirs)(value(v, seen) for v in theirs)
    if isinstance(theirs, dict):
        return {k: value(v, seen) for k, v in theirs.items()}
    if id(theirs) in _table():
        return _table()[id(theirs)]
    if isinstance(theirs, types.FunctionType | functools.partial):
        return function(theirs)
    return theirs


def flat(values: Any) -> list[Any]:
    """The leaves of lists, tuples and dictionaries."""
    if isinstance(values, dict):
        return flat(list(values.values()))
    if isinstance(values, list | tuple):
        return [leaf for v in values for leaf in flat(v)]
    return [values]
