"""Values for the symbols of a graph, read off the arrays that it is run on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphtorch.ir.graph import Value
from graphtorch.tensor.symint import SymInt, evaluate, symbols_of


def symbolic_dims(inputs: Sequence[Value]) -> list[tuple[int, int, SymInt]]:
    """(input, dimension, size) of every symbolic size among input types, sizes that are one symbol first."""
    found = [
        (i, d, size)
        for i, value in enumerate(inputs)
        for d, size in enumerate(value.type.shape)
        if type(size) is SymInt
    ]
    return sorted(found, key=lambda entry: len(str(entry[2])))


def bind(dims: Sequence[tuple[int, int, SymInt]], arrays: Sequence[Any]) -> dict[str, int]:
    """The symbols' values. Raises RuntimeError where sizes contradict each other, or do not determine a symbol."""
    bindings: dict[str, int] = {}
    for i, d, size in dims:
        actual = arrays[i].shape[d]
        name = str(size)
        unknown = [s for s in symbols_of(size) if s not in bindings]
        if unknown == [name]:
            bindings[name] = actual
        elif unknown:
            solution = _solve(size, unknown[0], actual, bindings) if len(unknown) == 1 else None
            if solution is None:
                raise RuntimeError(
                    f"the sizes of the inputs do not determine {', '.join(unknown)} (from {size} = {actual})"
                )
            bindings[unknown[0]] = solution
        if evaluate(size, bindings) != actual:
            raise RuntimeError(
                f"input {i} has size {actual} at dimension {d}, expected {size} = {evaluate(size, bindings)}"
            )
    return bindings


def _solve(size: SymInt, name: str, actual: int, bindings: Mapping[str, int]) -> int | None:
    """The value of the one unknown symbol of a linear size: a * s + b = actual."""
    at_zero, at_one = (evaluate(size, {**bindings, name: v}) for v in (0, 1))
    slope = at_one - at_zero
    if slope == 0 or (actual - at_zero) % slope:
        return None
    return (actual - at_zero) // slope


def concrete(value: Any, bindings: Mapping[str, int]) -> Any:
    """An attribute with symbolic sizes replaced by their values, tuples included."""
    if type(value) is SymInt:
        return evaluate(value, bindings)
    if type(value) is tuple and any(type(v) is SymInt or type(v) is tuple for v in value):
        return tuple(concrete(v, bindings) for v in value)
    return value
