"""The `gradient` operator: a backward pass as the user wrote it, one node of the captured graph, and the pass that
expands it.

Capture records `loss.backward()` as `gradient(outputs, cotangents, inputs)`; `ExpandGradients` replaces each such node,
first ones first, by the nodes that compute it. A gradient of a gradient is therefore the expansion of one through the
other's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from graphtorch.autodiff.custom import CUSTOM
from graphtorch.autodiff.reverse import append_gradients
from graphtorch.ir.builder import GraphBuilder
from graphtorch.ir.graph import Graph, Node, Value, substitute
from graphtorch.ir.passes.base import Pass
from graphtorch.ir.rewrite import RewriteLog
from graphtorch.ops.build import operator
from graphtorch.ops.record import lookup
from graphtorch.tensor.type import TensorType, type_of


def _gradient_type(outputs: Any, cotangents: Any, inputs: Any, differentiable: Any) -> tuple[TensorType, ...]:
    if len(outputs) != len(cotangents):
        raise RuntimeError(f"gradient of {len(outputs)} outputs with {len(cotangents)} cotangents")
    return tuple(type_of(i) for i in inputs)


def _not_executable(*args: Any) -> Any:
    raise RuntimeError("a `gradient` node runs only after the expand_gradients pass replaced it")


gradient = operator(
    "gradient(Tensor[] outputs, Tensor?[] cotangents, Tensor[] inputs, bool differentiable=False) -> (gradients)",
    type=_gradient_type,
    numpy=_not_executable,
    public=False,
    doc="""The cotangents of `inputs` for those of `outputs` (None: ones). Has one result an input. Unless
    `differentiable`, the results are constants to later gradients.""",
)
GRADIENT = lookup("gradient")


@dataclass(frozen=True)
class ExpandGradients(Pass):
    """Replaces `gradient` nodes by the operators that compute them.

    Contract: the result has no `gradient` and no `custom_function` node; all other nodes, inputs and outputs correspond
    one to one."""

    name: ClassVar[str] = "expand_gradients"

    def run(self, graph: Graph, log: RewriteLog | None = None) -> Graph:
        """Returns `graph` itself when there is nothing to expand."""
        return self.mapped(graph)[0]

    def mapped(self, graph: Graph, keep_custom: bool = False) -> tuple[Graph, dict[Value, Value]]:
        """The expanded graph, and the values of `graph` in it; none where the result is `graph` itself. `keep_custom`:
        custom functions stay nodes."""
        if not any(n.op is GRADIENT or n.op is CUSTOM for n in graph.nodes):
            return graph, {}
        result = Graph(graph.name, input_kinds=list(graph.input_kinds), output_names=list(graph.output_names))
        mapping: dict[Value, Value] = {}
        for value in graph.inputs:
            copied = Value(value.type, value.name)
            mapping[value] = copied
            result.inputs.append(copied)
        for node in graph.nodes:
            args = substitute(node.args, mapping.__getitem__)
            if node.op is GRADIENT:
                self._expand(result, node, args, mapping)
                continue
            if node.op is CUSTOM and not keep_custom:  # its gradients are expanded already: what is left is its value
                mapping.update(zip(node.results, args[0], strict=True))
                continue
            made = Node(node.op, args, [r.type for r in node.results], node.location, node.origin)
            result.nodes.append(made)
            for old, new in zip(node.results, made.results, strict=True):
                new.name = old.name
                mapping[old] = new
        result.outputs = [mapping[v] for v in graph.outputs]
        return result, mapping

    def _expand(self, result: Graph, node: Node, args: tuple[Any, ...], mapping: dict[Value, Value]) -> None:
        outputs, cotangents, inputs, differentiable = args
        builder = GraphBuilder(result, node.location)
        found = append_gradients(result, outputs, cotangents, inputs, builder)
        for old, operand, value in zip(node.results, inputs, found, strict=True):
            if value is None:
                (value,) = result.add(
                    lookup("full"), lookup_full_args(operand.type), node.location, "gradient of an unused input"
                )
            elif not differentiable:
                (value,) = result.add(lookup("detach"), (value,), node.location, "result of backward()")
            mapping[old] = value


def lookup_full_args(of: TensorType) -> tuple[Any, ...]:
    """Arguments of `full` for zeros of a type."""
    from graphtorch.ops.record import MISSING

    values = {"size": of.shape, "fill_value": 0, "dtype": of.dtype, "device": of.device}
    return tuple(values.get(p.name, None if p.default is MISSING else p.default) for p in lookup("full").parameters)
