"""Reverse-mode differentiation of IR graphs.

`append_gradients` extends a graph by the cotangents of some of its values. The rules are the operator records'
derivative formulas, the same that the eager tape uses; because they append ordinary operators, differentiating the
result again gives higher derivatives."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

from graphtorch.autodiff.flow import flows
from graphtorch.autograd.rules import evaluate, fit
from graphtorch.ir.builder import GraphBuilder, wrap
from graphtorch.ir.graph import Graph, Node, Value
from graphtorch.tensor.tensor import Tensor

# Cotangents of a custom function's results (None: nothing flows) to those of its inputs.
CustomRule = Callable[[Sequence[Tensor | None]], Sequence[Tensor | None]]


def active_nodes(
    nodes: Sequence[Node], inputs: Sequence[Value], custom: Container[Node] = ()
) -> tuple[set[Value], list[Node]]:
    """The values that depend differentiably on `inputs`, and the nodes that make them, in order."""
    active: set[Value] = set(inputs)
    found: list[Node] = []
    for node in nodes:
        if node in custom:
            each = [list(node.args[1]) if r.type.dtype.is_differentiable else [] for r in node.results]
        elif node.op.derivative:
            each = flows(node)
        else:
            continue
        reached = [r for r, operands in zip(node.results, each, strict=True) if any(v in active for v in operands)]
        if reached:
            found.append(node)
            active.update(reached)
    return active, found


def append_gradients(
    graph: Graph,
    outputs: Sequence[Value],
    cotangents: Sequence[Value | None],
    inputs: Sequence[Value],
    builder: GraphBuilder | None = None,
    on_cotangent: Callable[[Value, Tensor], Tensor] | None = None,
    custom: Mapping[Node, CustomRule] | None = None,
) -> list[Value | None]:
    """Append nodes that compute the cotangents of `inputs`, given those of `outputs` (None: ones).

    Returns one value an input, None where no output depends on it. `on_cotangent` is called with each active value and
    its complete cotangent and may replace it (tensor hooks). Numbers of nodes: at most a constant times those between
    inputs and outputs."""
    own = builder if builder is not None else GraphBuilder(graph)
    rules = custom or {}
    active, nodes = active_nodes(graph.nodes, inputs, rules)
    found: dict[Value, Tensor] = {}
    location, origin = own.location, own.origin

    completed: set[Value] = set()

    def complete(value: Value) -> Tensor | None:
        cotangent = found.get(value)
        if cotangent is not None and on_cotangent is not None and value not in completed:
            completed.add(value)
            cotangent = found[value] = on_cotangent(value, cotangent)
        return cotangent

    with own:
        from graphtorch.ops import FUNCTIONS

        for output, given in zip(outputs, cotangents, strict=True):
            if output not in active:
                continue
            seed = (
                FUNCTIONS["full"](tuple(output.shape), 1.0, dtype=output.dtype, device=output.device)
                if given is None
                else wrap(given)
            )
            found[output] = found[output] + seed if output in found else seed
        for node in reversed(nodes):
            flowing = [complete(r) for r in node.results]
            if all(f is None for f in flowing):
                continue
            own.location = node.location
            own.origin = f"backward of {node.op.name}"
            if node in rules:
                parts = [
                    (v, g)
                    for v, g in zip(node.args[1], rules[node](flowing), strict=True)
                    if g is not None and v in active
                ]
            else:
                parts = _operand_cotangents(node, flowing, active)
            for operand, part in parts:
                found[operand] = found[operand] + part if operand in found else part
        results: list[Value | None] = []
        for value in inputs:
            cotangent = complete(value)  # of values that the walk began at, or did not come to
            results.append(None if cotangent is None else own.value_of(cotangent))
    own.location, own.origin = location, origin
    return results


def _operand_cotangents(node: Node, flowing: Sequence[Tensor | None], active: set[Value]) -> list[tuple[Value, Tensor]]:
    """Evaluate the formulas of one node for its active operands."""
    op = node.op
    position = {p.name: i for i, p in enumerate(op.parameters)}

    def lookup(name: str) -> Any:
        if name in position:
            return _wrapped(node.args[position[name]])
        if name.endswith("_type") and name[:-5] in position:
            return _types(node.args[position[name[:-5]]])
        return wrap(node.results[op.results.index(name)])

    found: list[tuple[Value, Tensor]] = []
    for name, formula in op.derivative.items():
        arg = node.args[position[name]]
        operands = arg if type(arg) is tuple else (arg,)
        if not any(type(v) is Value and v in active for v in operands):
            continue
        value = evaluate(formula, op, flowing, lookup)
        values = value if type(arg) is tuple else (value,)
        if values is None:
            continue
        for operand, cotangent in zip(operands, values, strict=True):
            if type(operand) is Value and operand in active and cotangent is not None:
                found.append((operand, fit(cotangent, operand.type)))
    return found


def _wrapped(arg: Any) -> Any:
    if type(arg) is Value:
        return wrap(arg)
    if type(arg) is tuple:
        return tuple(_wrapped(a) for a in arg)
    return arg


def _types(arg: Any) -> Any:
    if type(arg) is Value:
        return arg.type
    if type(arg) is tuple:
        return tuple(_types(a) for a in arg)
    return None
