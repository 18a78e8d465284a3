"""Applying an operator's derivative formulas: shared by the eager tape and by the differentiator on the IR.

Both differentiators are the same walk over different graphs; the law they share is here: a formula gives an operand's
cotangent up to broadcasting and promotion, and `fit` applies the transpose of both (a sum over broadcast dimensions, a
cast back)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from graphtorch.ops.record import Formula, Operator
from graphtorch.tensor.type import TensorType


@functools.cache
def saved_names(op: Operator, differentiated: tuple[str, ...]) -> tuple[str, ...]:
    """What the formulas of these operands need, without duplicates, in a fixed order."""
    seen: dict[str, None] = {}
    for operand in differentiated:
        for need in op.derivative[operand].needs:
            if need != "g" and need != "gs" and not (need.startswith("g_") and need[2:] in op.results):
                seen.setdefault(need)
    return tuple(seen)


def evaluate(formula: Formula, op: Operator, cotangents: Sequence[Any], lookup: Callable[[str], Any]) -> Any:
    """Call one formula. `lookup` gives operands, attributes, `<operand>_type`s and results by name.

    `cotangents` holds one entry a result, None where nothing flows.
    """
    arguments: list[Any] = []
    for need, result in _sources(formula.needs, op.results):
        if result is None:
            arguments.append(lookup(need))
        else:
            arguments.append(tuple(cotangents) if result < 0 else cotangents[result])
    return formula.function(*arguments)


@functools.cache
def _sources(needs: tuple[str, ...], results: tuple[str, ...]) -> tuple[tuple[str, int | None], ...]:
    """What a formula needs, each with the result whose cotangent it is (-1: those of all; None: no cotangent)."""
    found: list[tuple[str, int | None]] = []
    for need in needs:
        if need == "g":
            found.append((need, 0))
        elif need == "gs":
            found.append((need, -1))
        elif need.startswith("g_") and need[2:] in results:
            found.append((need, results.index(need[2:])))
        else:
            found.append((need, None))
    return tuple(found)


def fit(cotangent: Any, target: TensorType) -> Any:
    """Bring a formula's value to its operand's shape and dtype.

    The transpose of broadcasting is a sum over the broadcast dimensions; the transpose of a real-to-complex or a
    widening cast is the cast back (the real part, for a real operand)."""
    if cotangent is None:
        return None
    # Ranks first: sizes are compared place by place, because a comparison of symbolic sizes may become a guard.
    have, want = cotangent.shape, target.shape
    if len(have) != len(want) or tuple(have) != tuple(want):
        cotangent = sum_to(cotangent, want)
    if cotangent.dtype is not target.dtype:
        if cotangent.dtype.is_complex and not target.dtype.is_complex:
            cotangent = cotangent.real
        if cotangent.dtype is not target.dtype:
            cotangent = cotangent.to(target.dtype)
    return cotangent


def sum_to(value: Any, shape: Sequence[Any]) -> Any:
    """Sum `value` down to `shape`, which broadcasts to the value's shape."""
    extra = len(value.shape) - len(shape)
    dims = list(range(extra))
    for i, size in enumerate(shape):
        if value.shape[extra + i] != size:
            dims.append(extra + i)
    if not dims:
        return value
    if len(dims) == extra:
        return value.sum(tuple(dims))  # a fresh result, which may become a gradient as it is
    reduced = value.sum(tuple(dims), keepdim=True)
    return reduced.reshape(tuple(shape)) if extra else reduced
