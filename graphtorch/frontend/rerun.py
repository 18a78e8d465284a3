"""Derivatives of derivatives through a compiled forward: `create_graph=True` outside of the compiled function.

The compiled backward gives numbers without a history. Where a history is asked for, the captured forward runs again,
operator by operator on the tape, from the inputs of the call, and the tape differentiates it. That is slower than
compiled code and right for every order; a first-order backward pass never pays for it, except that inputs which the
function overwrites are copied, and the random generators' states noted."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import CellType, FunctionType
from typing import Any

from graphtorch.autodiff.gradient import ExpandGradients
from graphtorch.autograd.engine import grad
from graphtorch.autograd.function import FunctionContext, FunctionNode
from graphtorch.autograd.graph import AccumulateGrad, Edge, OperatorNode
from graphtorch.autograd.state import state
from graphtorch.frontend.decisions import generators_of
from graphtorch.frontend.gradients import CustomCall
from graphtorch.frontend.program import Captured, LeafValue
from graphtorch.ir.builder import Traced
from graphtorch.ir.graph import Node, Value
from graphtorch.ir.region import Region
from graphtorch.lowering.backend import Executable
from graphtorch.lowering.binding import bind, concrete, symbolic_dims
from graphtorch.lowering.kernel import Schedule
from graphtorch.ops.build import FUNCTIONS
from graphtorch.ops.dispatch import call
from graphtorch.ops.record import Operator
from graphtorch.schedule.memory import MemoryPlan
from graphtorch.tensor.tensor import Tensor


class Rerun:
    """How to run a captured forward on the tape.

    needed      the inputs that it takes, by position
    generators  the random generators that it draws from
    """

    def __init__(self, captured: Captured, leaves: Sequence[LeafValue]) -> None:
        self.graph, mapping = ExpandGradients().mapped(captured.graph, keep_custom=True)
        self._mapping = mapping
        self.custom: dict[Node | None, CustomCall] = {
            self._place(n.results[0]).node: call for n, call in captured.custom.items()
        }
        self.hooks = {self._place(value): tuple(hooks.values()) for value, hooks in captured.hooks.items()}
        self.outputs = [self.graph.outputs[i] for i in captured.differentiable]
        self.leaves = [(self.graph.outputs if leaf.output else self.graph.inputs)[leaf.position] for leaf in leaves]
        self.nodes = self._needed_nodes()
        read = {v for n in self.nodes for v in n.operands()} | {*self.outputs, *self.leaves}
        sizes = set(self.graph.symbols)
        self.needed = []
        for i, value in enumerate(self.graph.inputs):
            named = {str(size) for size in value.shape} & sizes
            if value in read or named:  # or it is needed for its shape, which says what a symbolic size is
                self.needed.append(i)
                sizes -= named
        self.generators = generators_of(self.nodes)
        self._dims = symbolic_dims([self.graph.inputs[i] for i in self.needed])

    def _place(self, value: Value) -> Value:
        """A value of the captured graph in the expanded one."""
        return self._mapping.get(value, value)

    def _needed_nodes(self) -> list[Node]:
        wanted: set[Value] = {*self.outputs, *self.leaves}
        for rule in self.custom.values():
            wanted.update(map(self._place, values_in((vars(rule.context), rule.function.backward))))
        for hooks in self.hooks.values():
            wanted.update(map(self._place, values_in(hooks)))
        found: list[Node] = []
        for node in reversed(self.graph.nodes):
            if node.op.random or any(r in wanted for r in node.results):
                found.append(node)
                wanted.update(node.operands())
        return found[::-1]

    def reads(self, places: Sequence[int]) -> set[int]:
        """The positions in `needed` of what some outputs (by place) depend on."""
        wanted = {self.outputs[place] for place in places}
        for node in reversed(self.nodes):
            if node.op.random or node in self.custom or any(r in wanted for r in node.results):
                wanted.update(node.operands())
        return {i for i, position in enumerate(self.needed) if self.graph.inputs[position] in wanted}

    def gradients(
        self,
        inputs: Sequence[Any],
        states: Sequence[Any],
        edges: Sequence[Edge | None],
        cotangents: Mapping[int, Tensor],
    ) -> list[Tensor | None]:
        """The cotangents of the leaves, with their histories, for those of some outputs (by place). `edges` are where
        the leaves' own histories go on."""
        held = [(g, g.state_array()) for g in self.generators]
        try:
            for generator, saved in zip(self.generators, states, strict=True):
                generator.set_state(saved)
            values = self._run(inputs, edges)
        finally:
            for generator, saved in held:
                generator.set_state(saved)
        roots = [(values[self.outputs[place]], g) for place, g in cotangents.items()]
        roots = [(root, g) for root, g in roots if root.requires_grad]
        wanted = [i for i, edge in enumerate(edges) if edge is not None]
        if not roots or not wanted:
            return [None] * len(edges)
        found = grad(
            [root for root, _ in roots],
            [values[self.leaves[i]] for i in wanted],
            [g for _, g in roots],
            create_graph=True,
            allow_unused=True,
        )
        by_place = dict(zip(wanted, found, strict=True))
        return [by_place.get(i) for i in range(len(edges))]

    def _run(self, inputs: Sequence[Any], edges: Sequence[Edge | None]) -> dict[Value, Any]:
        values: dict[Value, Any] = {}
        leaf_edges = dict(zip(self.leaves, edges, strict=True))

        def define(value: Value, content: Any) -> None:
            values[value] = _leaf(content, leaf_edges[value]) if value in leaf_edges else content
            for hook in self.hooks.get(value, ()):
                if values[value].requires_grad:
                    values[value].register_hook(lambda g, hook=hook: with_values(hook, find)(g))

        def find(tensor: Tensor) -> Tensor:
            found: Tensor = values[self._place(tensor._data.value)]
            return found if tensor._requires_grad else found.detach()

        for i, given in zip(self.needed, inputs, strict=True):
            define(self.graph.inputs[i], given.detach() if isinstance(given, Tensor) else given)
        shapes = [t._data if isinstance(t, Tensor) else t for t in inputs]
        bindings = bind(self._dims, shapes) if self._dims else {}
        for node in self.nodes:
            args: Any = tuple(
                values[a]
                if type(a) is Value
                else tuple(values[i] if type(i) is Value else concrete(i, bindings) for i in a)
                if type(a) is tuple
                else concrete(a, bindings)
                for a in node.args
            )
            if node in self.custom:
                made = self._apply_custom(node, args[0], args[1], values)
            else:
                made = run_node(node.op, args)
            contents = made if isinstance(made, tuple) else (made,)
            if state.anomaly:
                for content in contents:
                    if isinstance(content, Tensor) and isinstance(content._node, OperatorNode):
                        content._node.user_line = f"{node.location}: {node.location.text}"
            for result, content in zip(node.results, contents, strict=True):
                define(result, content.item() if result.type.is_number and isinstance(content, Tensor) else content)
        return values

    def _apply_custom(
        self, node: Node, outputs: Sequence[Tensor], inputs: Sequence[Tensor], values: Mapping[Value, Any]
    ) -> tuple[Tensor, ...]:
        """The results of a custom function on the tape: its forward has run, its backward is to run on this call's
        tensors."""
        rule = self.custom[node]
        results = tuple(o.detach() for o in outputs)
        known = dict(zip((*node.args[1], *node.results), (*inputs, *results), strict=True))

        def find(tensor: Tensor) -> Tensor:
            value = self._place(tensor._data.value)
            found: Tensor | None = known.get(value)
            return values[value].detach() if found is None else found  # what forward made inside has no history

        context = FunctionContext()
        vars(context).update(with_values(vars(rule.context), find))
        function = rule.function
        backward = with_values(function.backward, find)
        if backward is not function.backward:
            function = type(function.__name__, (function,), {"backward": staticmethod(backward)})
        given = iter(inputs)
        made = FunctionNode(function, context, [next(given) if isinstance(a, Tensor) else a for a in rule.args])
        made.results = list(rule.results)
        for i, (result, flag) in enumerate(zip(results, rule.flags, strict=True)):
            if flag:
                result._node, result._output_index, result._requires_grad = made, i, True
        return results


def run_node(op: Operator, args: Sequence[Any]) -> Any:
    """The results of a node on the tape. Branches and bodies of control flow run operator by operator, as in eager
    execution, where they are Python's own `if` and `for`."""
    if op.name == "view":
        return args[0].reshape(args[1])  # on values, what the strides were does not matter
    if op.name == "cond":
        pred, operands, then, otherwise = args
        return tuple(_run_region(then if pred.item() else otherwise, operands))
    if op.name == "scan" and args[1][0].shape[0]:
        carry, xs, extra, body = args
        count = len(carry)
        stacked: list[list[Any]] = []
        for step in range(xs[0].shape[0]):
            found = _run_region(body, (*carry, *(x[step] for x in xs), *extra))
            carry = found[:count]
            stacked.append(found[count:])
        return (*carry, *(FUNCTIONS["stack"](tuple(ys)) for ys in zip(*stacked, strict=True)))
    return call(op, tuple(args))


def _run_region(region: Region, inputs: Sequence[Any]) -> list[Any]:
    values: dict[Value, Any] = dict(zip(region.graph.inputs, inputs, strict=True))
    bindings = bind(symbolic_dims(region.graph.inputs), [t._data for t in inputs])
    for node in region.graph.nodes:
        args = [
            values[a]
            if type(a) is Value
            else tuple(values[i] if type(i) is Value else concrete(i, bindings) for i in a)
            if type(a) is tuple
            else concrete(a, bindings)
            for a in node.args
        ]
        made = run_node(node.op, args)
        values.update(zip(node.results, made if isinstance(made, tuple) else (made,), strict=True))
    return [values[v] for v in region.graph.outputs]


def _leaf(content: Tensor, edge: Edge | None) -> Tensor:
    """A leaf of the forward with its history outside; another node, so that gradients stop here."""
    made: Tensor = content.detach()
    if edge is None:
        return made
    made._requires_grad = True
    if isinstance(edge.node, AccumulateGrad):
        made._accumulator = edge.node
    else:
        made._node, made._output_index = edge
    apart: Tensor = made.view_as(made)
    return apart


def values_in(held: Any) -> Iterator[Value]:
    """The captured values that containers, and the closures of functions, refer to by recorded tensors."""
    if isinstance(held, Tensor):
        if isinstance(held._data, Traced):
            yield held._data.value
    elif isinstance(held, dict):
        for item in held.values():
            yield from values_in(item)
    elif isinstance(held, list | tuple):
        for item in held:
            yield from values_in(item)
    elif isinstance(held, FunctionType):
        for cell in held.__closure__ or ():
            with contextlib.suppress(ValueError):  # an empty cell
                if not isinstance(cell.cell_contents, FunctionType):
                    yield from values_in(cell.cell_contents)


def with_values(held: Any, find: Callable[[Tensor], Tensor]) -> Any:
    """The same with this call's tensors for recorded ones; the object itself where it holds none."""
    if next(values_in(held), None) is None:
        return held
    if isinstance(held, Tensor):
        return find(held)
    if isinstance(held, dict):
        return {key: with_values(item, find) for key, item in held.items()}
    if isinstance(held, list | tuple):
        return type(held)([with_values(item, find) for item in held])
    cells = tuple(CellType(with_values(cell.cell_contents, find)) for cell in held.__closure__)
    made = FunctionType(held.__code__, held.__globals__, held.__name__, held.__defaults__, cells)
    made.__kwdefaults__ = held.__kwdefaults__
    return made


class NotingGenerators(Executable):
    """An executable whose last output is the states that random generators had before it ran."""

    def __init__(self, executable: Executable, generators: Sequence[Any]) -> None:
        self.executable = executable
        self.generators = generators

    @property
    def schedule(self) -> Schedule | None:  # type: ignore[override]  # the other's, which may make it when asked
        return self.executable.schedule

    @property
    def plan(self) -> MemoryPlan | None:  # type: ignore[override]
        return self.executable.plan

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        states = [g.state_array() for g in self.generators]
        return [*self.executable.run(inputs), states]

    def sources(self) -> dict[str, str]:
        return self.executable.sources()
