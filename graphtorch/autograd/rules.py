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
    for need in formula.needs:
        if need == "g":
            arguments.append(cotangents[0])
        elif need == "gs":
            arguments.append(tuple(cotangents))
        elif need.startswith("g_") and need[2:] in op.results:
            arguments.append(cotangents[op.results.index(need[2:])])
        else:
            arguments.append(lookup(need))
    return formula.function(*arguments)


def fit(cotangent: Any, target: TensorType) -> Any:
    """Bring a formula's value to its operand's shape and dtype.

    The transpose of broadcasting is a sum over the broadcast dimensions; the transpose of a real-to-complex or a
    widening cast is the cast back (the real part, for a real operand)."""
    if cotangent is None:
        return None
    # Ranks first: sizes are compared place by place, because a comparison of symbolic sizes may become a guard.
    if len(cotangent.shape) != len(target.shape) or tuple(cotangent.shape) != tuple(target.shape):
        cotangent = sum_to(cotangent, target.shape)
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
    reduced = value.sum(tuple(dims), keepdim=True)
    return reduced.reshape(tuple(shape)) if extra else reduced
