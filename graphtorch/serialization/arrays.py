"""Pickles that hold plain data and NumPy arrays, as published data sets do; nothing of the file is executed.

What a pickle says about an array (its type, shape and bytes) is checked here and the array made by `numpy.frombuffer`:
NumPy's own functions for unpickling, which trust what they are given, are never called."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np

from graphtorch.serialization.unpickler import Allowed, Unpickler, refuse

_DTYPES = {f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)} | {"f2", "f4", "f8", "b1"}


class _DType:
    """An element type under construction: a code such as "u1", then a byte order."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.order = "|"

    def build(self, state: Any) -> None:
        """The state is (version, byte order, ...); what follows belongs to structured types."""
        if type(state) is not tuple or len(state) < 2 or _text(state[1]) not in ("|", "<", ">"):
            raise refuse("An array's dtype has an unknown state")
        self.order = _text(state[1])


class _Array:
    """An array under construction; `value` is set by the BUILD that follows."""

    def __init__(self) -> None:
        self.value: np.ndarray | None = None

    def build(self, state: Any) -> None:
        """The state is (version, shape, dtype, Fortran order, bytes)."""
        if type(state) is not tuple or len(state) != 5:
            raise refuse("An array has an unknown state")
        _, shape, dtype, fortran, data = state
        if type(dtype) is not _DType or type(data) is not bytes or type(shape) is not tuple:
            raise refuse("An array has an unknown state")
        if not all(type(size) is int and size >= 0 for size in shape) or len(shape) > 32:
            raise refuse("An array has an impossible shape")
        element = np.dtype(dtype.order + dtype.code)
        if math.prod(shape) * element.itemsize != len(data):
            raise refuse(f"An array of shape {shape} and type {dtype.code} can't have {len(data)} bytes")
        flat = np.frombuffer(data, element)
        self.value = flat.reshape(shape, order="F" if fortran else "C").astype(element.newbyteorder("="))


class _ArrayUnpickler(Unpickler):
    """Finishes the two kinds of objects above; everything else is built as in a checkpoint."""

    def _build(self) -> None:
        target = self._stack[-2] if len(self._stack) > 1 else None
        if isinstance(target, _Array | _DType):
            target.build(self._pop())
        else:
            super()._build()


def _text(value: Any) -> str:
    """A string, however the Python version that wrote it spelled it."""
    if isinstance(value, bytes):
        return value.decode("latin1")
    if not isinstance(value, str):
        raise refuse(f"Expected a string, found {type(value).__name__}")
    return value


def _encode(text: Any, encoding: Any) -> bytes:
    """How a protocol 2 pickle written by Python 3 spells bytes; only the encoding that it uses for that."""
    if type(text) is not str or encoding != "latin1":
        raise refuse(f"Unexpected encoding {encoding!r}")
    return text.encode("latin1")


def _reconstruct(*args: Any) -> _Array:
    """An empty array, filled by the state that follows."""
    return _Array()


def _dtype(code: Any, *rest: Any) -> _DType:
    name = _text(code)
    if name not in _DTYPES:
        raise refuse(f"Arrays of type {name!r} are not read")
    return _DType(name)


_RECONSTRUCT = Allowed("_reconstruct", _reconstruct)
_GLOBALS = {
    # The function that rebuilds an array has moved between NumPy versions.
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): Allowed("ndarray", _reconstruct),
    ("numpy", "dtype"): Allowed("dtype", _dtype),
    ("_codecs", "encode"): Allowed("encode", _encode),
}


def _find_global(module: str, name: str) -> Any:
    found = _GLOBALS.get((module, name))
    if found is None:
        raise pickle.UnpicklingError(f"refused to load {module}.{name} from a data file")
    return found


def _no_storage(identifier: Any) -> Any:
    raise refuse("A data file refers to no tensors")


def _finish(value: Any) -> Any:
    """Arrays for what was under construction, and strings for the bytes that Python 2 wrote its strings as.

    Only what is reached through dictionaries and lists, two levels deep: enough for a table of columns.
    """
    if isinstance(value, _Array):
        if value.value is None:
            raise refuse("An array has no data")
        return value.value
    if isinstance(value, _DType | Allowed):
        raise refuse("A part of an array stands alone")
    return value.decode("latin1") if isinstance(value, bytes) else value


def load_arrays(data: bytes) -> Any:
    """The object of a pickle of plain data and NumPy arrays: a value, or a list or dictionary of values.

    Strings written by Python 2 are decoded as Latin-1. Raises pickle.UnpicklingError for a malformed file, and for one
    that names anything but data.
    """
    try:
        found = _ArrayUnpickler(data, _find_global, _no_storage).load()
        if type(found) is dict:
            return {_finish(key): _column(value) for key, value in found.items()}
        return _column(found)
    except pickle.UnpicklingError as error:
        raise pickle.UnpicklingError(str(error).removeprefix("Weights only load failed. ")) from None


def _column(value: Any) -> Any:
    return [_finish(item) for item in value] if type(value) is list else _finish(value)
