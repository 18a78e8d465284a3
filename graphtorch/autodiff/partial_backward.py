"""The backward of some of a forward's outputs.

A backward graph for all outputs, given zeros for those that nothing flows to, would do: but zero times an infinite
derivative is no zero. So each set of outputs that gradients flow to has a backward of its own. It reads what the
forward of all keeps: values are the same if the expressions that compute them are."""

from __future__ import annotations

from collections.abc import Sequence

from graphtorch.autodiff.partition import Partition
from graphtorch.autodiff.reverse import append_gradients
from graphtorch.ir.expressions import Expressions
from graphtorch.ir.graph import Graph, Node, Value, copy_graph, substitute
from graphtorch.ir.passes import default_pipeline


def partial_backward(
    forward: Graph,
    outputs: Sequence[int],
    differentiable: Sequence[int],
    leaves: Sequence[tuple[bool, int]],
    joint: Graph,
    parts: Partition,
) -> tuple[Graph, list[int]] | None:
    """The backward of some outputs (by position) of the `differentiable` ones of a forward with expanded gradients, for
    the inputs of `parts`' backward; and which of the leaves, (whether an output, position), its outputs are for.

    `joint` is the simplified graph that `parts` was cut from. None where what is kept does not suffice."""
    graph = copy_graph(forward)
    count = len(graph.inputs)
    found = append_gradients(
        graph,
        [graph.outputs[i] for i in outputs],
        [graph.add_input(graph.outputs[i].type, f"cotangent{i}", "cotangent") for i in outputs],
        [(graph.outputs if is_output else graph.inputs)[position] for is_output, position in leaves],
    )
    reached = [i for i, value in enumerate(found) if value is not None]
    graph.outputs = [v for v in found if v is not None]
    graph.output_names = [f"grad{i}" for i in reached]
    graph = default_pipeline().run(graph)

    table = Expressions()
    names = [table.number(("input", i)) for i in range(count)]
    own = table.of(graph, {v: names[i] if i < count else -1 - i for i, v in enumerate(graph.inputs)})
    whole = table.of(joint, {v: names[i] if i < count else -1 - i for i, v in enumerate(joint.inputs)})
    result = Graph(parts.backward.name)
    for value, kind in zip(parts.backward.inputs, parts.backward.input_kinds, strict=True):
        result.add_input(value.type, value.name, kind)
    kept, sized = len(parts.kept_inputs), len(parts.sized_inputs)
    available = {names[i]: v for i, v in zip(parts.kept_inputs, result.inputs, strict=False)}
    for value, given in zip(parts.residuals, result.inputs[kept + sized :], strict=False):
        available[whole[value]] = given
    cotangents = result.inputs[len(result.inputs) - (len(joint.inputs) - count) :]
    mapping: dict[Value, Value] = {}
    for value, position in zip(graph.inputs[count:], outputs, strict=True):
        mapping[value] = cotangents[differentiable.index(position)]

    nodes: set[Node] = set()
    pending = list(graph.outputs)
    while pending:
        value = pending.pop()
        if value in mapping:
            continue
        given_value = available.get(own[value])
        if given_value is not None:
            mapping[value] = given_value
            continue
        if value.node is None or value.node.op.random:
            return None
        if value.node not in nodes:
            nodes.add(value.node)
            pending.extend(value.node.operands())
    for node in graph.nodes:
        if node in nodes:
            args = substitute(node.args, mapping.__getitem__)
            made = Node(node.op, args, [r.type for r in node.results], node.location, node.origin)
            result.nodes.append(made)
            for old, new in zip(node.results, made.results, strict=True):
                mapping.setdefault(old, new)
    for value, name in zip(graph.outputs, graph.output_names, strict=True):
        result.add_output(mapping[value], name)
    return result, reached
