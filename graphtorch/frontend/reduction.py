"""Shrinking a graph that compiles to something wrong: delta debugging on its nodes, outputs and inputs.

A value that fails is computed by few of a step's operators. Everything before them is replaced by its values, which
become inputs, and everything after them is left out, as long as what is left still fails in the same way (Zeller and
Hildebrandt, "Simplifying and isolating failure-inducing input", 2002)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphtorch.frontend.check import differs, run_graph
from graphtorch.frontend.pipeline import compile_joint
from graphtorch.ir.graph import Graph, Value, substitute
from graphtorch.lowering.numpy.interpreter import interpret
from graphtorch.tensor.generator import default_generator

WRONG = "another value than NumPy gives"


@dataclass(frozen=True)
class Reduced:
    """A graph that fails, its inputs, and how it fails: a class of exception, or WRONG, and the details."""

    graph: Graph
    inputs: list[Any]
    kind: str
    details: str


def failure(graph: Graph, inputs: Sequence[Any], backend: str) -> tuple[str, str]:
    """How the compiled graph fails, as (kind, details); ("", "") if it does what the interpreter does, or if that
    fails too."""
    state = default_generator.state_array()
    try:
        wanted = interpret(graph, _copies(inputs))
    except Exception:
        return "", ""
    try:
        default_generator.set_state(state)
        got = compile_joint(graph, graph, backend, {}).run(_copies(inputs), {})
    except Exception as error:
        return type(error).__name__, str(error).partition("\n")[0]
    finally:
        default_generator.set_state(state)
    for name, mine, expected in zip(graph.output_names, got, wanted, strict=True):
        how = differs(np.asarray(mine), np.asarray(expected))
        if how:
            return WRONG, f"{name}: {how}"
    return "", ""


def _copies(inputs: Sequence[Any]) -> list[Any]:
    return [i.copy() if isinstance(i, np.ndarray) else i for i in inputs]


def reduce_graph(graph: Graph, inputs: Sequence[Any], backend: str, note: Callable[[str], None]) -> Reduced | None:
    """The smallest graph found that fails as this one does; None if this one does not fail. `note` gets progress."""
    kind, details = failure(graph, inputs, backend)
    if not kind:
        return None
    current = Reduced(graph, list(inputs), kind, details)
    note(f"{len(graph.nodes)} operators, {details}")
    while True:
        smaller = next(_smaller(current, backend), None)
        if smaller is None:
            break
        current = smaller
        note(f"{len(current.graph.nodes)} operators")
    for position in range(len(current.inputs)):
        for simple in _simpler(current.inputs[position]):
            given = [*current.inputs[:position], simple, *current.inputs[position + 1 :]]
            found, details = failure(current.graph, given, backend)
            if found == kind:
                current = Reduced(current.graph, given, kind, details)
                break
    return current


def _smaller(current: Reduced, backend: str) -> Iterator[Reduced]:
    """Smaller graphs that still fail, larger steps first."""
    graph = current.graph
    values = {}
    for value, given in zip(graph.inputs, current.inputs, strict=True):
        values[value] = given
    state = default_generator.state_array()
    for node, results in run_graph(graph, _copies(current.inputs)):
        values.update(zip(node.results, results, strict=True))
    default_generator.set_state(state)

    def attempt(outputs: Sequence[Value], cut: set[Value], bypass: dict[Value, Value]) -> Iterator[Reduced]:
        made, given = _rebuild(graph, outputs, cut, bypass, values)
        if (len(made.nodes), len(made.outputs)) >= (len(graph.nodes), len(graph.outputs)):
            return
        kind, details = failure(made, given, backend)
        if kind == current.kind:
            yield Reduced(made, given, kind, details)

    if len(graph.outputs) > 1:
        for output in graph.outputs:
            yield from attempt([output], set(), {})
    nodes = graph.nodes
    for node in nodes[:-1]:  # stop earlier
        yield from attempt(list(node.results), set(), {})
    size = max(len(nodes) // 2, 1)
    while True:  # begin later
        for start in range(0, len(nodes), size):
            chunk = nodes[start : start + size]
            yield from attempt(graph.outputs, {r for n in chunk for r in n.results}, {})
        if size == 1:
            break
        size //= 2
    for node in nodes:  # leave something out in between
        if len(node.results) == 1:
            for operand in node.operands():
                if operand.type == node.results[0].type:
                    yield from attempt(graph.outputs, set(), {node.results[0]: operand})


def _rebuild(
    graph: Graph, outputs: Sequence[Value], cut: set[Value], bypass: dict[Value, Value], values: dict[Value, Any]
) -> tuple[Graph, list[Any]]:
    """The part of a graph that computes `outputs`, where values of `cut` become inputs and those of `bypass` others."""

    def actual(value: Value) -> Value:
        while value in bypass:
            value = bypass[value]
        return value

    wanted = [actual(o) for o in outputs]
    needed = set(wanted)
    kept = []
    for node in reversed(graph.nodes):
        if any(r in needed and r not in cut for r in node.results):
            kept.append(node)
            needed.update(actual(v) for v in node.operands())
    made = Graph(graph.name)
    mapping: dict[Value, Value] = {}
    given: list[Any] = []
    inside = {r for n in kept for r in n.results}
    originals = [v for v in graph.inputs if v in needed]
    numbers = {v for v in needed if v in cut or (v not in inside and v not in originals)}
    for value in (*originals, *(r for n in graph.nodes for r in n.results if r in numbers)):
        name = value.name or f"x{len(made.inputs)}"
        mapping[value] = made.add_input(value.type, name, "argument")
        given.append(values[value])
    for node in reversed(kept):
        args = substitute(node.args, lambda v: mapping[actual(v)])
        results = made.add(node.op, args, node.location, node.origin)
        for old, new in zip(node.results, results, strict=True):
            new.name = old.name
            mapping.setdefault(old, new)
    for i, value in enumerate(wanted):
        made.add_output(mapping[value], f"result{i}")
    return made, given


def _simpler(value: Any) -> Iterator[Any]:
    """Arrays of the same type that are easier to write down."""
    if not isinstance(value, np.ndarray):
        return
    shape, kind = value.shape, value.dtype
    count = value.size
    yield np.ones(shape, kind)
    yield np.zeros(shape, kind)
    yield np.arange(count).reshape(shape).astype(kind)
    if kind.kind == "f":
        yield np.asarray(np.random.default_rng(0).normal(size=shape), kind)
        yield np.round(value.astype(np.float64), 2).astype(kind)
