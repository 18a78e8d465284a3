"""Cutting a joint graph into a forward and a backward graph.

The joint graph has cotangents among its inputs. Whatever depends on a cotangent is backward; the rest is forward.
Forward values that the backward reads are residuals, which the forward graph returns too, or are computed again in the
backward graph: `recompute` decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphtorch.autodiff.recompute import CHECKPOINT, values_to_keep
from graphtorch.ir.graph import Graph, Node, Value, substitute
from graphtorch.ops.record import lookup


@dataclass(frozen=True)
class Partition:
    """The two graphs and how they meet.

    forward     inputs as the joint graph's, without the cotangents; outputs: the first `output_count` of the joint
                graph's, then residuals
    backward    inputs: `kept_inputs` of the forward (by position), `sized_inputs` (likewise, but only their shapes
                count: they say what symbolic sizes are), the residuals, the cotangents; outputs: the joint graph's
                others

    The last residuals are copies of the `copied_inputs` (by position) before the forward overwrote them. `residuals`
    are the joint graph's values."""

    forward: Graph
    backward: Graph
    output_count: int
    kept_inputs: tuple[int, ...]
    sized_inputs: tuple[int, ...]
    residual_count: int
    copied_inputs: tuple[int, ...] = ()
    residuals: tuple[Value, ...] = ()


def partition(
    joint: Graph,
    cotangents: Sequence[Value],
    output_count: int,
    overwritten: set[Value],
    budget: float = 1.0,
    also_copied: Sequence[Value] = (),
) -> Partition:
    """Cut `joint`, whose first `output_count` outputs are the forward's.

    `overwritten` inputs change during the forward: the backward gets copies of what they were. `budget`, from 0 to 1,
    is the part of the bytes to keep for the backward, of those that are kept where only what is cheap is computed
    again. `also_copied` are overwritten inputs that are copied in any case.
    """
    given = set(cotangents)
    dependent: set[Value] = set(given)
    forward_nodes: list[Node] = []
    backward_nodes: list[Node] = []
    needed = _live(joint, output_count)
    for node in joint.nodes:
        if any(v in dependent for v in node.operands()) or node not in needed:
            dependent.update(node.results)
            backward_nodes.append(node)
        else:
            forward_nodes.append(node)
    backward_reads = {v for n in backward_nodes for v in n.operands()} | set(joint.outputs[output_count:])
    inputs = [v for v in joint.inputs if v not in given]
    # What is computed again from an input needs it unchanged until then: that of inputs which are kept anyway, or that
    # the user asked for.
    asked = budget < 1 or any(n.origin.startswith(CHECKPOINT) for n in forward_nodes)
    free = [v for v in inputs if v not in overwritten and (asked or v in backward_reads)]
    forward_reads = [v for v in inputs if v in backward_reads]
    forward_reads += [r for n in forward_nodes for r in n.results if r in backward_reads]
    saved_values, again = values_to_keep(forward_nodes, forward_reads, set(free), budget)
    backward_nodes = [*again, *backward_nodes]
    read = {v for n in backward_nodes for v in n.operands()} | set(joint.outputs[output_count:])
    copied = list(dict.fromkeys((*(v for v in saved_values if v.node is None), *also_copied)))
    kept = [i for i, v in enumerate(inputs) if v in read and v not in overwritten and v not in copied]
    residuals = [v for v in saved_values if v.node is not None]

    forward = Graph(joint.name)
    forward_map: dict[Value, Value] = {}
    for value, kind in zip(joint.inputs, joint.input_kinds, strict=True):
        if value not in given:
            forward_map[value] = forward.add_input(value.type, value.name, kind)
    _copy(forward, forward_nodes, forward_map)
    for value, name in zip(joint.outputs[:output_count], joint.output_names, strict=False):
        forward.add_output(forward_map[value], name)
    saved: list[Value] = []
    for value in residuals:
        saved.append(forward_map[value])
    clone = lookup("clone")
    defaults = [p.default for p in clone.parameters[1:]]
    for value in copied:
        saved.append(forward.add(clone, (forward_map[value], *defaults), origin="saved before it is overwritten")[0])
    for i, value in enumerate(saved):
        forward.add_output(value, f"residual{i}")

    backward = Graph(joint.name + "_backward")
    backward_map: dict[Value, Value] = {}
    for i in kept:
        value = inputs[i]
        backward_map[value] = backward.add_input(value.type, value.name, "saved input")
    sized = _size_carriers(joint, inputs, [*(inputs[i] for i in kept), *residuals, *cotangents])
    for i in sized:
        backward.add_input(inputs[i].type, inputs[i].name, "sizes of an input")
    for i, value in enumerate([*residuals, *copied]):
        backward_map[value] = backward.add_input(value.type, f"residual{i}", "residual")
    for value in cotangents:
        backward_map[value] = backward.add_input(value.type, value.name, "cotangent")
    _copy(backward, backward_nodes, backward_map)
    for value, name in zip(joint.outputs[output_count:], joint.output_names[output_count:], strict=True):
        backward.add_output(backward_map[value], name)
    copies = tuple(inputs.index(v) for v in copied)
    return Partition(forward, backward, output_count, tuple(kept), sized, len(saved), copies, (*residuals, *copied))


def _size_carriers(joint: Graph, inputs: Sequence[Value], present: Sequence[Value]) -> tuple[int, ...]:
    """The inputs, by position, whose shapes the backward needs beside `present` to know every symbolic size."""
    missing = set(joint.symbols) - {str(size) for value in present for size in value.shape}
    found: list[int] = []
    for i, value in enumerate(inputs):
        named = {str(size) for size in value.shape}
        if missing & named:
            found.append(i)
            missing -= named
    return tuple(found)


def _live(joint: Graph, output_count: int) -> set[Node]:
    """The forward's own nodes: what its outputs and its random draws come from. Law: every draw happens in the forward,
    in the order of the program, whether a backward pass follows or not."""
    live: set[Node] = set()
    wanted = set(joint.outputs[:output_count])
    for node in reversed(joint.nodes):
        if node.op.random or any(r in wanted for r in node.results):
            live.add(node)
            wanted.update(node.operands())
    return live


def _copy(graph: Graph, nodes: Sequence[Node], mapping: dict[Value, Value]) -> None:
    for node in nodes:
        made = Node(
            node.op,
            substitute(node.args, mapping.__getitem__),
            [r.type for r in node.results],
            node.location,
            node.origin,
        )
        graph.nodes.append(made)
        mapping.update(zip(node.results, made.results, strict=True))


__all__ = ["CHECKPOINT", "Partition", "partition"]
