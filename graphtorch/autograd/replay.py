"""Derivative formulas and compositions of small operands without calling operator by operator.

What a derivative formula or a composition computes with is decided by the shapes, strides and dtypes of its operands
and by its attributes: its signature. A signature that came often enough gets code of its own
(`lowering/numpy/straight.py`), a few calls of NumPy with nothing in between. It gives the operators' very results:
when it is written the two are compared bit by bit, layout included, and a signature for which they differ never gets
any."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphtorch.autograd.state import state
from graphtorch.ops.native import LARGE
from graphtorch.tensor import dtypes
from graphtorch.tensor.tensor import Tensor

# Calls of one signature before code is written for it, which takes as long as some ten of them. Compositions come
# first, so that none is written for the operators that they are made of.
CALLS = 10
OF_COMPOSITIONS = 5
_KEPT = 4096  # signatures

_ndarray = np.ndarray
_codes: dict[Any, Any] = {}  # signature -> how often it came, or its code, or None if it has none

Results = list["Tensor | None"]


def constant(value: Any) -> Any:
    """An attribute as a part of a signature: equal parts mean the same code."""
    kind = type(value)
    if kind is float and (value == 0 or value != value):
        return kind, math.copysign(1.0, value), value != value
    if kind is tuple:
        return tuple([constant(v) for v in value])
    return kind, value


def run(
    key: tuple[Any, ...],
    arrays: Sequence[Any],
    tensors: Sequence[Tensor],
    write: Callable[[Any], Any],
    plain: Callable[[], Sequence[Tensor | None]],
    after: int | None = None,
) -> Results | None:
    """The results of the code of a signature on its operands; None where there is none (yet).

    `tensors`: the first operands, which results may be or show. `write` makes the code, given the module that can;
    `plain` gives the results by operators. `after`: that many calls code is written; None: `CALLS`.
    """
    try:
        code = _codes.get(key, 0)
    except TypeError:  # an attribute that is no key
        return None
    if type(code) is int:
        if code < (CALLS if after is None else after):
            if len(_codes) >= _KEPT:
                _codes.clear()
            _codes[key] = code + 1
            return None
        code = _codes[key] = _written(arrays, tensors, write, plain)
    if code is None:
        return None
    try:
        return code.run(arrays, tensors)  # type: ignore[no-any-return]
    except Exception:  # values that an operator refuses: it says so in its own words
        return None


def _written(
    arrays: Sequence[Any],
    tensors: Sequence[Tensor],
    write: Callable[[Any], Any],
    plain: Callable[[], Sequence[Tensor | None]],
) -> Any:
    """New code; None where there can't be any that gives the results that operators give."""
    from importlib import import_module

    from graphtorch.ops.dispatch import quiet

    held = state.grad_enabled
    state.grad_enabled = False
    try:
        with quiet.nested():
            code = write(import_module("graphtorch.lowering.numpy.straight"))
        pairs = zip(code.run(arrays, tensors), plain(), strict=True)
        return code if all([_is_same(a, b) for a, b in pairs]) else None
    except Exception:  # whatever the reason: the operators do it, or say what is wrong
        return None
    finally:
        state.grad_enabled = held


def _is_same(a: Tensor | None, b: Tensor | None) -> bool:
    """Whether two results are the same, bit by bit, in the same layout."""
    if a is None or b is None or a is b:
        return a is b
    x, y = a._data, b._data
    return (
        x.dtype == y.dtype
        and x.shape == y.shape
        and all([s == t for s, t, n in zip(x.strides, y.strides, x.shape, strict=True) if n > 1])
        and x.tobytes() == y.tobytes()
    )


def _signature(function: Any, args: Sequence[Any]) -> tuple[list[Any], list[Any]] | None:
    """The signature of a composition's call, and its operands; None where some are large or no plain arrays."""
    key: list[Any] = [function, dtypes.get_default_dtype()]
    arrays: list[Any] = []
    for arg in args:
        if isinstance(arg, Tensor):
            data = arg._data
            if type(data) is not _ndarray or data.size >= LARGE:
                return None
            arrays.append(data)
            key += (data.dtype.num, data.shape, data.strides)
        else:
            key.append(constant(arg))
    return key, arrays


def compose(
    function: Callable[..., Any], args: Sequence[Any], plain: Callable[[], Sequence[Tensor | None]]
) -> Results | None:
    """The results of a composition on small operands, without history; None where it has no code. `plain` gives them by
    operators."""
    found = _signature(function, args)
    if found is None:
        return None
    key, arrays = found

    def write(straight: Any) -> Any:
        return straight.of_composition(function, [a._data if isinstance(a, Tensor) else a for a in args])

    return run(tuple(key), arrays, (), write, plain, OF_COMPOSITIONS)


def compose_gradients(
    function: Callable[..., Any],
    args: Sequence[Any],
    cotangents: Sequence[Tensor | None],
    wanted: Sequence[int],
    plain: Callable[[], Sequence[Tensor | None]],
) -> Results | None:
    """The gradients of a composition's arguments at the positions `wanted`; None where they have no code. `plain` gives
    them by operators."""
    found = _signature(function, args)
    if found is None:
        return None
    key, arrays = found
    key.append(tuple(wanted))
    flowing: list[Any] = []
    for cotangent in cotangents:
        data = None if cotangent is None else cotangent._data
        if data is None:
            key.append(None)
        elif type(data) is not _ndarray or data.size >= LARGE:
            return None
        else:
            key += (data.dtype.num, data.shape, data.strides)
        flowing.append(data)

    def write(straight: Any) -> Any:
        given = [a._data if isinstance(a, Tensor) else a for a in args]
        return straight.of_gradients(function, given, flowing, wanted)

    operands = [*(c for c in flowing if c is not None), *arrays]
    # Here the composition had code, or there is no tape to go back over.
    return run(tuple(key), operands, [c for c in cotangents if c is not None], write, plain, 0)
