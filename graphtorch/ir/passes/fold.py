"""Constant folding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from graphtorch.ir.equality import same_constant, same_type
from graphtorch.ir.graph import Graph, Node, Value
from graphtorch.ir.passes.base import Pass, register
from graphtorch.ir.rewrite import Firing, RewriteLog, finish, rebuild
from graphtorch.ops.record import POINTWISE, REGISTRY, VIEW


@register
@dataclass
class ConstantFolding(Pass):
    """Compute what depends on constants alone, where the result is again a constant: the same number everywhere.

    Constants are `full` nodes. Pointwise operators and views of constants are constants of any size; other operators
    are run if operands and results have at most `max_elements` elements, and folded if the result is uniform. Random
    operators, run-time numbers and results that `full` can't express stay as they are.
    """

    name: ClassVar[str] = "fold"
    max_elements: int = 1024

    def run(self, graph: Graph, log: RewriteLog | None = None) -> Graph:
        constants: dict[Value, Any] = {}  # value -> its element, as a zero-dimensional ndarray
        mapping: dict[Value, Value] = {}
        nodes: list[Node] = []
        for node in graph.nodes:
            if node.op.name == "full":
                element = _element(node)
                if element is not None:
                    constants[node.result] = element
                nodes.append(node)
                continue
            if constants and len(node.results) == 1 and not node.op.random:
                folded = self._fold(node, constants)
                if folded is not None:
                    full = _full(node, folded)
                    if full is not None:
                        nodes.append(full)
                        mapping[node.result] = full.result
                        constants[node.result] = constants[full.result] = folded
                        if log is not None:
                            log.append(Firing(self.name, "constant", node.op.name, node.location))
                        continue
            new = rebuild(node, mapping) if mapping else node
            nodes.append(new)
            if new is not node:
                mapping.update(zip(node.results, new.results, strict=True))
        return finish(graph, nodes, mapping) if mapping else graph

    def _fold(self, node: Node, constants: dict[Value, Any]) -> Any:
        """The element that the node's result consists of; None if it is not a known constant."""
        found = False
        for operand in node.operands():
            if operand not in constants:
                return None
            found = True
        if not found or node.result.is_number:
            return None
        op = node.op
        if op.kind == VIEW and node.args[0].dtype is node.result.dtype:
            return constants[node.args[0]]
        if any(getattr(i, "is_symbolic_int", False) for a in node.args for i in (a if type(a) is tuple else (a,))):
            return None  # a number that is known only at run time
        try:
            if op.kind == POINTWISE:
                # One element, of the operand's rank: promotion depends on whether there are dimensions.
                return _uniform(op.numpy(*_arrays(node, lambda v: constants[v].reshape((1,) * v.ndim))))
            if not self._is_small(node):
                return None
            return _uniform(op.numpy(*_arrays(node, lambda v: np.broadcast_to(constants[v], v.shape))))
        except (RuntimeError, ValueError, TypeError, IndexError, ArithmeticError):
            return None  # an error at run time stays one

    def _is_small(self, node: Node) -> bool:
        total = 0
        for value in (*node.operands(), node.result):
            if not all(type(size) is int for size in value.shape):
                return False
            total += int(value.numel())
        return total <= self.max_elements


def _arrays(node: Node, array: Any) -> tuple[Any, ...]:
    return tuple(
        array(a)
        if type(a) is Value
        else tuple(array(i) if type(i) is Value else i for i in a)
        if type(a) is tuple
        else a
        for a in node.args
    )


def _element(node: Node) -> Any:
    number = node.argument("fill_value")
    if type(number) is Value or not isinstance(number, int | float | complex):
        return None
    return np.asarray(number).astype(node.result.dtype.numpy)


def _uniform(result: Any) -> Any:
    array = np.asarray(result)
    if array.size == 0:
        return None
    first = array.reshape(-1)[:1].reshape(())
    # To the bit: 0.0 and -0.0 are not one constant.
    return first if array.size == 1 or first.tobytes() * array.size == array.tobytes() else None


def _full(node: Node, element: Any) -> Node | None:
    """The `full` node for a folded one, if the number survives the way through a Python number."""
    target = node.result.type
    op = REGISTRY["full"]
    number = element.astype(np.float64).item() if element.dtype.kind == "V" else element.item()
    if element.dtype != target.dtype.numpy or np.asarray(number).astype(element.dtype).tobytes() != element.tobytes():
        return None
    args: tuple[Any, ...] = (target.shape, number, target.dtype, target.device)
    args += tuple(p.default for p in op.parameters[len(args) :])
    full = Node(op, args, op.infer(args), node.location, node.origin or "folded")
    if not same_type(full.result.type, target) or not same_constant(full.argument("fill_value"), number):
        return None
    return full
