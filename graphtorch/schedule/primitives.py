"""Lowering operators to primitives: decompositions run to the end, and every pointwise operand has the dtype it is
computed in.

The result is again an IR graph, which the interpreter runs like any other. What is left in it:

    pointwise    nodes with a `scalar` instruction; tensor operands have the record's `compute` dtype, through explicit
                 `cast` nodes
    reductions   with a `scalar` combining name; the operand has the dtype that is folded
    views        index maps, as nodes
    sources      `full`, `arange`
    the rest     opaque and random operators, which run as calls

Nodes that nothing uses are dropped, except random ones: they advance a generator.
"""

from __future__ import annotations

from typing import Any

from graphtorch.ir.builder import GraphBuilder, wrap
from graphtorch.ir.graph import UNKNOWN, Graph, Location, Node, Value, substitute
from graphtorch.ops.build import FUNCTIONS
from graphtorch.ops.record import Operator, lookup
from graphtorch.schedule.indexing import is_one, same_type
from graphtorch.tensor import dtypes
from graphtorch.tensor.dtypes import dtype
from graphtorch.tensor.symint import same_shape
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType


def lower_to_primitives(graph: Graph) -> Graph:
    """A new graph of primitives with the same inputs, outputs and meaning. `graph` is not changed."""
    return _Lowering(graph).run()


class _Lowering(GraphBuilder):
    """A builder in which every call is lowered at once: what a decomposition calls is lowered before it is appended."""

    def __init__(self, source: Graph) -> None:
        super().__init__(Graph(source.name, output_names=list(source.output_names)))
        self.source = source
        self.graph.input_kinds = list(source.input_kinds)
        self.mapping: dict[Value, Value] = {}
        self.casts: dict[tuple[Value, dtype], Value] = {}
        self.cast_op = lookup("cast")

    def run(self) -> Graph:
        for value in self.source.inputs:
            copied = Value(value.type, value.name)
            self.graph.inputs.append(copied)
            self.mapping[value] = copied
        with self:
            for node in self.source.nodes:
                self.location, self.origin = node.location, node.origin
                args = substitute(node.args, self.mapping.__getitem__)
                made = self._lower(node.op, args, node.results)
                for old, new in zip(node.results, made, strict=True):
                    self.mapping[old] = new
                    if not new.name and new.node is not None:
                        new.name = old.name
        self.graph.outputs = [self.mapping[v] for v in self.source.outputs]
        remove_unused(self.graph)
        return self.graph

    # -- GraphBuilder ------------------------------------------------------------------------------------------------

    def call(self, op: Operator, args: tuple[Any, ...]) -> Any:
        """A call inside a decomposition."""
        results = self._lower(op, self.lower(args), None)
        if len(results) == 1:
            return wrap(results[0])
        wrapped = tuple(wrap(r) for r in results)
        return op.result_class(*wrapped) if op.result_class is not None else wrapped

    # -- lowering ----------------------------------------------------------------------------------------------------

    def _lower(self, op: Operator, args: tuple[Any, ...], known: tuple[Value, ...] | None) -> tuple[Value, ...]:
        """Append the primitives of one call. `known` are results of the same types, where the caller has them."""
        if op.decompose is not None:
            decomposed = self._decompose(op, args)
            if decomposed is not None:
                return self._fitted(decomposed, known)
        types = tuple(v.type for v in known) if known is not None else op.infer(args)
        kind = op.kind
        if kind == "pointwise" and op.scalar is not None:
            if op is self.cast_op and type(args[0]) is Value and same_type(args[0].type, types[0]):
                return (args[0],)
            args = self._cast_pointwise(op, args, types[0])
        elif kind == "reduction" and op.scalar is not None:
            if all(is_one(args[0].type.shape[d]) for d in args[1]):
                return (self._fold_of_one(op, args[0], types[0]),)
            args = self._cast_reduction(op, args, types[0])
        elif kind == "view" and len(types) == 1 and _is_noop(op, args, types[0]):
            return (args[0],)
        node = Node(op, args, types, self.location, self.origin)
        self.graph.nodes.append(node)
        return node.results

    def _decompose(self, op: Operator, args: tuple[Any, ...]) -> tuple[Value, ...] | None:
        """Run the record's decomposition; None where it says that the call is a primitive already."""
        assert op.decompose is not None
        before = self.origin
        self.origin = before or f"decomposed from {op.name}"
        try:
            results = op.decompose(*_wrap(args))
        finally:
            self.origin = before
        if results is None:
            return None
        if isinstance(results, Tensor):
            return (self.value_of(results),)
        return tuple(self.value_of(r) for r in results)

    def _fitted(self, results: tuple[Value, ...], known: tuple[Value, ...] | None) -> tuple[Value, ...]:
        """A decomposition that only rearranges numbers may lose their type; the operator's own type counts."""
        if known is None:
            return results
        return tuple(self._cast(r, k.type.dtype) for r, k in zip(results, known, strict=True))

    def _cast(self, value: Value, to: dtype) -> Value:
        """`value` as another dtype; one cast node a value and dtype."""
        if value.type.dtype is to:
            return value
        key = (value, to)
        found = self.casts.get(key)
        if found is None:
            type_ = TensorType(to, value.type.shape, value.type.device)
            node = Node(self.cast_op, _cast_args(self.cast_op, value, to), (type_,), self.location, self.origin)
            self.graph.nodes.append(node)
            found = self.casts[key] = node.results[0]
        return found

    def _cast_pointwise(self, op: Operator, args: tuple[Any, ...], result: TensorType) -> tuple[Any, ...]:
        if op.compute is None or op is self.cast_op:
            return args
        chosen = op.compute(*args)
        single = not isinstance(chosen, tuple)
        if result.is_number and single and chosen.is_floating_point:
            chosen = dtypes.float64  # numbers compute as Python's do
        cast = list(args)
        for i, arg in enumerate(args):
            if type(arg) is Value:
                to = chosen if single else chosen[i]
                if to is not None and arg.type.dtype is not to:
                    cast[i] = self._cast(arg, to)
        return tuple(cast)

    def _fold_of_one(self, op: Operator, value: Value, result: TensorType) -> Value:
        """Law: folding a single element gives that element; its position is 0."""
        if op.scalar in ("argmax", "argmin"):
            return self.value_of(FUNCTIONS["full"](result.shape, 0, dtype=result.dtype, device=result.device))
        folded = self._cast(value, dtypes.bool_ if op.scalar in ("any", "all") else result.dtype)
        (viewed,) = self._lower(lookup("view"), (self._cast(folded, result.dtype), result.shape), None)
        return viewed

    def _cast_reduction(self, op: Operator, args: tuple[Any, ...], result: TensorType) -> tuple[Any, ...]:
        """Sums and products fold in the result's dtype (the fold itself widens half precision); any and all fold
        bools."""
        if op.scalar in ("sum", "prod"):
            return (self._cast(args[0], result.dtype), *args[1:])
        if op.scalar in ("any", "all"):
            return (self._cast(args[0], dtypes.bool_), *args[1:])
        return args


def _wrap(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Values as recorded tensors."""
    return tuple(
        wrap(a) if type(a) is Value else tuple(wrap(i) if type(i) is Value else i for i in a) if type(a) is tuple else a
        for a in args
    )


def _cast_args(op: Operator, value: Value, to: dtype) -> tuple[Any, ...]:
    """`cast(value, to)` with defaults for whatever else the record takes."""
    return (value, to, *(p.default for p in op.parameters[2:]))


def _is_noop(op: Operator, args: tuple[Any, ...], result: TensorType) -> bool:
    """A view that keeps every element in its place."""
    if type(args[0]) is not Value or args[0].type.dtype is not result.dtype:
        return False
    if not same_shape(args[0].type.shape, result.shape):
        return False
    if op.name == "permute":
        return tuple(args[1]) == tuple(range(len(args[1])))
    if op.name == "slice":
        return bool(args[4] == 1)  # the same length at step 1 starts at 0
    return op.name in ("view", "expand") or len(args) == 1


def remove_unused(graph: Graph) -> None:
    """Drop nodes whose results reach no output, in place. Random operators stay: later draws depend on them."""
    needed = set(graph.outputs)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if node.op.random or any(r in needed for r in node.results):
            kept.append(node)
            needed.update(node.operands())
    kept.reverse()
    graph.nodes[:] = kept


def copy_node(op: Operator, value: Value, location: Location = UNKNOWN, origin: str = "") -> Node:
    """`clone(value)`: the same elements in row-major order of a buffer of its own."""
    return Node(op, (value, *(p.default for p in op.parameters[1:])), (value.type,), location, origin)
