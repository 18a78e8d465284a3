"""Structural equality: of constants (to the bit), of types (without guards) and of graphs."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from graphtorch.ir.graph import Graph, Value
from graphtorch.tensor.symint import SymInt, same_size
from graphtorch.tensor.type import TensorType


def same_type(a: TensorType, b: TensorType) -> bool:
    """Whether two types are the same; symbolic dimensions are compared structurally, so no guard is recorded."""
    if a is b:
        return True
    if a.dtype is not b.dtype or a.is_number is not b.is_number or len(a.shape) != len(b.shape):
        return False
    for x, y in zip(a.shape, b.shape, strict=True):
        if x is not y and not same_size(x, y):
            return False
    return a.device is b.device or a.device == b.device


def constant_key(value: Any) -> Any:
    """A hashable key that is equal exactly for constants that are the same.

    1, 1.0 and True differ, and so do 0.0 and -0.0; a NaN is the same as one of its bits. Values are their own keys.
    Objects that can't be hashed are keyed by identity.
    """
    kind = type(value)
    if kind is Value:
        return value
    if kind is float:
        return (kind, struct.pack("<d", value))
    if kind is complex:
        return (kind, struct.pack("<dd", value.real, value.imag))
    if isinstance(value, np.generic):
        return (kind, value.dtype.str, value.tobytes())
    if kind is tuple or kind is list:
        return (kind, *map(constant_key, value))
    if kind is dict:
        return (kind, *((constant_key(k), constant_key(v)) for k, v in value.items()))
    if kind is slice:
        return (kind, constant_key(value.start), constant_key(value.stop), constant_key(value.step))
    if kind is SymInt:
        return (kind, str(value))  # the text is the normal form: comparing it never records a guard
    try:
        hash(value)
    except TypeError:
        return (kind, id(value))
    return (kind, value)


def same_constant(a: Any, b: Any) -> bool:
    """Whether two attribute values are the same, to type and bit."""
    return a is b or (type(a) is type(b) and bool(constant_key(a) == constant_key(b)))


def graph_equal(a: Graph, b: Graph, provenance: bool = True) -> bool:
    """Whether two graphs are the same up to the names of intermediate values.

    Compared: the graph's name, inputs (name, type, kind), symbols with their lower bounds, nodes in order (operator,
    arguments, result types) and outputs; with `provenance` also locations and origins.
    """
    return first_difference(a, b, provenance) is None


def first_difference(a: Graph, b: Graph, provenance: bool = True) -> str | None:
    """Where two graphs first differ, in words; None if they are equal."""
    if a.name != b.name:
        return f"names: {a.name!r} and {b.name!r}"
    bounds = [{name: s.lower for name, s in graph.symbols.items()} for graph in (a, b)]
    if bounds[0] != bounds[1]:
        return f"symbols: {bounds[0]} and {bounds[1]}"
    if len(a.inputs) != len(b.inputs):
        return f"numbers of inputs: {len(a.inputs)} and {len(b.inputs)}"
    mapping: dict[Value, Value] = {}
    for i, (x, y) in enumerate(zip(a.inputs, b.inputs, strict=True)):
        if x.name != y.name or not same_type(x.type, y.type):
            return f"input {i}: {x!r} and {y!r}"
        mapping[x] = y
    if a.input_kinds != b.input_kinds:
        return f"kinds of inputs: {a.input_kinds} and {b.input_kinds}"
    if len(a.nodes) != len(b.nodes):
        return f"numbers of nodes: {len(a.nodes)} and {len(b.nodes)}"
    for i, (m, n) in enumerate(zip(a.nodes, b.nodes, strict=True)):
        if m.op is not n.op:
            return f"node {i}: operators {m.op.name} and {n.op.name}"
        if len(m.args) != len(n.args):
            return f"node {i} ({m.op.name}): {len(m.args)} and {len(n.args)} arguments"
        for parameter, p, q in zip(m.op.parameters, m.args, n.args, strict=False):
            if not same_constant(_mapped(p, mapping), q):
                return f"node {i} ({m.op.name}): argument {parameter.name}: {p!r} and {q!r}"
        if len(m.results) != len(n.results):
            return f"node {i} ({m.op.name}): {len(m.results)} and {len(n.results)} results"
        for r, s in zip(m.results, n.results, strict=True):
            if not same_type(r.type, s.type):
                return f"node {i} ({m.op.name}): results {r.type} and {s.type}"
            mapping[r] = s
        if provenance and (m.location != n.location or m.origin != n.origin):
            return f"node {i} ({m.op.name}): from {m.location!r} {m.origin!r} and {n.location!r} {n.origin!r}"
    if [_mapped(v, mapping) for v in a.outputs] != b.outputs:
        return "outputs"
    if a.output_names != b.output_names:
        return f"names of outputs: {a.output_names} and {b.output_names}"
    return None


def _mapped(arg: Any, mapping: dict[Value, Value]) -> Any:
    if type(arg) is Value:
        return mapping.get(arg)
    if type(arg) is tuple:
        return tuple(_mapped(a, mapping) for a in arg)
    return arg
