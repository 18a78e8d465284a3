"""Every record's type rule, decomposition and derivatives on recorded tensors with symbolic sizes.

What the compiler asks of a record: no data, no concrete sizes. Sizes of 2 and more become symbols that remember the
sample's size as their hint; results must have the types that the sample has.
"""

from __future__ import annotations

from typing import Any

import pytest
from test_records import CATEGORY_DTYPES, as_tuple, bind, describe

from graphtorch.autograd.rules import evaluate, fit
from graphtorch.ir.builder import GraphBuilder, wrap
from graphtorch.ir.graph import Graph
from graphtorch.ops.record import REGISTRY, Operator
from graphtorch.ops.testing import Sampler
from graphtorch.tensor import Tensor, TensorType, dtypes
from graphtorch.tensor.symint import SymbolScope
from graphtorch.tensor.type import type_of

SAMPLED = sorted(name for name, op in REGISTRY.items() if op.samples is not None)


def hints(type: TensorType) -> tuple[Any, tuple[int, ...]]:
    """dtype and shape with the example sizes in the place of symbols."""
    return type.dtype, tuple(s if isinstance(s, int) else s.hint for s in type.shape)


class Recording:
    """A graph with one symbolic input for each tensor of a call."""

    def __init__(self) -> None:
        self.scope = SymbolScope()
        self.graph = Graph()
        self.builder = GraphBuilder(self.graph)
        self._sizes: dict[int, Any] = {}

    def symbolic(self, type: TensorType) -> TensorType:
        shape = []
        for size in type.shape:
            if size >= 2:
                if size not in self._sizes:
                    self._sizes[size] = self.scope.symbol(hint=size)
                size = self._sizes[size]
            shape.append(size)
        return type.with_shape(shape)

    def record(self, value: Any) -> Any:
        """Arguments with recorded tensors in the place of concrete ones."""
        if isinstance(value, Tensor):
            return wrap(self.graph.add_input(self.symbolic(type_of(value))))
        return tuple(map(self.record, value)) if isinstance(value, tuple) else value


def calls(op: Operator) -> list[tuple[Any, ...]]:
    """The bound samples in one dtype: the widest floating one where there is one."""
    d = dtypes.float64 if "f" in op.categories else CATEGORY_DTYPES[op.categories[0]][0]
    assert op.samples is not None
    return [bind(op, s.args, s.kwargs) for s in op.samples(Sampler(d))]


@pytest.mark.parametrize("name", SAMPLED)
def test_type_rule_takes_symbolic_sizes(name: str) -> None:
    op = REGISTRY[name]
    for args in calls(op):
        recording = Recording()
        recorded = recording.builder.lower(recording.record(args))
        for result, expected in zip(op.infer(recorded), op.infer(args), strict=True):
            assert hints(result) == hints(expected), describe(op, args)


@pytest.mark.parametrize("name", [n for n in SAMPLED if REGISTRY[n].decompose is not None])
def test_decomposition_takes_symbolic_sizes(name: str) -> None:
    op = REGISTRY[name]
    assert op.decompose is not None
    for args in calls(op):
        recording = Recording()
        recorded = recording.record(args)
        with recording.builder:
            parts = op.decompose(*recorded)
        if parts is None:
            continue
        for part, expected in zip(as_tuple(parts), op.infer(args), strict=True):
            assert hints(type_of(part)) == hints(expected), describe(op, args)


@pytest.mark.parametrize("name", [n for n in SAMPLED if REGISTRY[n].derivative])
def test_derivatives_take_symbolic_sizes(name: str) -> None:
    op = REGISTRY[name]
    for args in calls(op):
        types = op.infer(args)
        if not any(t.dtype.is_differentiable for t in types):
            continue
        recording = Recording()
        recorded = recording.record(args)
        results = [recording.record(Tensor._wrap(_empty(t), t.dtype)) for t in types]
        # No cotangent reaches a result that carries no gradient.
        cotangents = [
            recording.record(Tensor._wrap(_empty(t), t.dtype)) if t.dtype.is_differentiable else None for t in types
        ]
        known: dict[str, Any] = dict(zip(op.results, results, strict=True))
        for parameter, value in zip(op.parameters, recorded, strict=True):
            known[parameter.name] = value
            known[parameter.name + "_type"] = (
                tuple(type_of(v) if isinstance(v, Tensor) else None for v in value)
                if isinstance(value, tuple)
                else type_of(value)
                if isinstance(value, Tensor)
                else None
            )
        for operand, formula in op.derivative.items():
            target = known[operand]
            several = isinstance(target, tuple)
            targets = target if several else (target,)
            if not any(isinstance(t, Tensor) and t.dtype.is_differentiable for t in targets):
                continue
            with recording.builder:
                value = evaluate(formula, op, cotangents, known.__getitem__)
                for one, of in zip(value if several else (value,), targets, strict=True):
                    if one is None or not isinstance(of, Tensor) or not of.dtype.is_differentiable:
                        continue
                    fitted = fit(one, type_of(of))
                    assert hints(type_of(fitted)) == hints(type_of(of)), f"{operand} of {describe(op, args)}"


def _empty(type: TensorType) -> Any:
    import numpy as np

    return np.zeros(tuple(type.shape), type.dtype.numpy)
