"""A small graph as straight-line Python code of NumPy calls: what eager derivative formulas and compositions run on
when their operands are small (`autograd/replay.py`).

The code calls the records' NumPy functions on arrays of given shapes, strides and dtypes, and leaves out all that
depends on these alone: type rules, promotion, tensors, the tape. Each result lies in memory as eager execution would
lay it, so that sums go in the same order and the numbers are those of the operators one by one, bit by bit. A graph for
which that can't be said is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from graphtorch.autodiff.reverse import append_gradients
from graphtorch.autograd.rules import evaluate, fit
from graphtorch.ir.builder import GraphBuilder, wrap
from graphtorch.ir.digest import is_own
from graphtorch.ir.graph import Graph, Node, Value
from graphtorch.ops import native
from graphtorch.ops.dispatch import call_view, lay_out, quiet
from graphtorch.ops.pointwise import direct
from graphtorch.ops.record import POINTWISE, VIEW, Operator
from graphtorch.ops.strides import laid_out, layout_of
from graphtorch.tensor.dtypes import from_numpy_dtype
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType

Array = np.ndarray[Any, Any]
MOST_NODES = 400  # of a graph: NumPy's own time exceeds what is around it long before


class UnsuitableError(Exception):
    """The graph has no such code, or it might not give the operators' very results."""


class Passed(NamedTuple):
    """A result that is an operand, or a view of one: the operand's position, and view operators with attributes."""

    operand: int
    steps: tuple[tuple[Operator, tuple[Any, ...]], ...]


class Code:
    """What a graph became.

    function    takes the operands as arrays and returns a tuple of arrays
    results     for each result: its position in that tuple, or `Passed`, or None where there is none
    """

    __slots__ = ("function", "results", "text")

    def __init__(self, function: Any, results: Sequence[int | Passed | None], text: str) -> None:
        self.function = function
        self.results = tuple(results)
        self.text = text

    def run(self, arrays: Sequence[Array], tensors: Sequence[Tensor]) -> list[Tensor | None]:
        """The results as tensors. `tensors`: the first operands, which results may be or show."""
        made = [Tensor._wrap(array) for array in quiet.run(self.function, *arrays)]
        found: list[Tensor | None] = []
        for place in self.results:
            if place is None:
                found.append(None)
            elif isinstance(place, Passed):
                shown = tensors[place.operand]
                for op, attributes in place.steps:
                    shown = call_view(op, (shown, *attributes))
                found.append(shown)
            else:
                found.append(made[place])
        return found


class _Recorder(GraphBuilder):
    """Records on operands of known shapes. Tensors that a composition makes from NumPy's arrays are constants."""

    after_forward = True  # operands' values have been checked where the forward pass checks them

    def __init__(self, graph: Graph, arrays: Sequence[Array]) -> None:
        super().__init__(graph)
        self.known: dict[Value, Array] = {}
        self._constants: dict[int, Value] = {}
        for array in arrays:
            self.known[graph.add_input(TensorType(from_numpy_dtype(array.dtype), array.shape))] = array
        self.operands = [wrap(v) for v in graph.inputs]

    def value_of(self, tensor: Tensor) -> Value:
        data = tensor._data
        if type(data) is not np.ndarray:
            return super().value_of(tensor)
        value = self._constants.get(id(data))
        if value is None:
            value = self.graph.add_input(TensorType(tensor._dtype, data.shape), "", "constant")
            self._constants[id(data)], self.known[value] = value, data
        return value


def of_formulas(
    op: Operator,
    differentiated: Sequence[str],
    saved: dict[str, Any],
    cotangents: Sequence[Array | None],
    targets: Sequence[tuple[str, TensorType | None]],
) -> Code:
    """The derivative of a recorded call. Operands of the code: the cotangents, then what is an array in `saved`.

    `targets`: one entry an edge: the operand and its type, None where no gradient is wanted. Raises UnsuitableError.
    """
    arrays = [c for c in cotangents if c is not None]
    count = len(arrays)
    recorder = _Recorder(Graph(op.name), arrays + [v for v in saved.values() if type(v) is np.ndarray])
    given = iter(recorder.operands)
    flowing = [None if c is None else next(given) for c in cotangents]
    values = {name: next(given) if type(v) is np.ndarray else v for name, v in saved.items()}
    if not is_own(op):
        raise UnsuitableError(op.name)
    seen: dict[str, int] = {}
    results: list[Value | None] = []
    with recorder:
        found = {name: evaluate(op.derivative[name], op, flowing, values.__getitem__) for name in differentiated}
        for name, wanted in targets:
            place = seen.get(name, 0)
            seen[name] = place + 1
            if wanted is None:
                results.append(None)
                continue
            value = found[name]
            if type(value) is tuple or type(value) is list:
                value = value[place]
            made = fit(value, wanted)
            results.append(None if made is None else recorder.value_of(made))
    return _write(recorder, results, count)


def of_composition(function: Any, arguments: Sequence[Any]) -> Code:
    """A composition. Operands of the code: the arguments that are arrays. Raises UnsuitableError."""
    recorder, given = _composed(function, arguments, ())
    with recorder:
        made = function(*given)
        results = [recorder.value_of(r) for r in (made if isinstance(made, tuple) else (made,))]
    return _write(recorder, results, 0)


def of_gradients(
    function: Any, arguments: Sequence[Any], cotangents: Sequence[Array | None], wanted: Sequence[int]
) -> Code:
    """The gradients of a composition's arguments at the positions `wanted`. Operands of the code: the cotangents, then
    the arguments that are arrays. Raises UnsuitableError."""
    flowing = [c for c in cotangents if c is not None]
    recorder, given = _composed(function, arguments, flowing)
    with recorder:
        made = function(*given)
        results = made if isinstance(made, tuple) else (made,)
        outputs = [recorder.value_of(r) for r, c in zip(results, cotangents, strict=True) if c is not None]
        seeds = [recorder.value_of(s) for s in recorder.operands[: len(flowing)]]
        inputs = [recorder.value_of(given[i]) for i in wanted]
    return _write(recorder, append_gradients(recorder.graph, outputs, seeds, inputs, recorder), len(flowing))


def _composed(function: Any, arguments: Sequence[Any], before: Sequence[Array]) -> tuple[_Recorder, list[Any]]:
    """A recorder whose operands are `before` and the arrays among the arguments, and the arguments for the function."""
    recorder = _Recorder(Graph(function.__name__), [*before, *(a for a in arguments if type(a) is np.ndarray)])
    operands = iter(recorder.operands[len(before) :])
    return recorder, [next(operands) if type(a) is np.ndarray else a for a in arguments]


# -- writing ----------------------------------------------------------------------------------------------------------


def _root(value: Value) -> Value:
    """What a value is a view of: itself, if it is none."""
    while value.node is not None and value.node.op.kind == VIEW:
        value = value.node.args[0]
    return value


def _steps(value: Value) -> tuple[tuple[Operator, tuple[Any, ...]], ...]:
    """The view operators from a value's root to it, with their attributes."""
    found = []
    while value.node is not None and value.node.op.kind == VIEW:
        found.append((value.node.op, value.node.args[1:]))
        value = value.node.args[0]
    return tuple(reversed(found))


def _write(recorder: _Recorder, outputs: Sequence[Value | None], count: int) -> Code:
    """The code of a graph; results may be the first `count` operands."""
    graph = recorder.graph
    operands = {v: i for i, v in enumerate(graph.inputs)}
    results: list[int | Passed | None] = []
    returned: list[Value] = []
    roots: dict[Value, Value] = {}
    for output in outputs:
        if output is None:
            results.append(None)
            continue
        root = _root(output)
        if root in operands:
            if operands[root] >= count:
                raise UnsuitableError("a result that is an operand")
            results.append(Passed(operands[root], _steps(output)))
            continue
        if roots.setdefault(root, output) is not output:
            raise UnsuitableError("two results in one memory")
        if output not in returned:
            returned.append(output)
        results.append(returned.index(output))
    writer = _Writer(recorder, returned, set(roots) | set(returned))
    return Code(writer.function(), results, writer.text)


class _Writer:
    """Runs a graph once, node by node, and writes down how to do it again."""

    def __init__(self, recorder: _Recorder, returned: Sequence[Value], fresh: set[Value]) -> None:
        """`fresh`: values that no other value may share memory with by being computed only once."""
        graph = recorder.graph
        self.values = recorder.known
        self.fresh = fresh
        self.lines: list[str] = []
        self.scope: dict[str, Any] = {"asarray": np.asarray, "laid_out": laid_out, "reshape": np.reshape}
        self.constant: set[Value] = {v for v, k in zip(graph.inputs, graph.input_kinds, strict=True) if k == "constant"}
        self.names: dict[Value, str] = {}
        self.parameters: list[str] = []
        for i, value in enumerate(graph.inputs):
            self.names[value] = f"a{i}"
            if value in self.constant:
                self.scope[f"a{i}"] = self.values[value]
            else:
                self.parameters.append(f"a{i}")
        self.seen: dict[Any, tuple[Value, ...]] = {}
        nodes = _live(graph, returned)
        if len(nodes) > MOST_NODES:
            raise UnsuitableError("many operators")
        for node in nodes:
            self.add(node)
        for value in returned:
            if any(np.may_share_memory(self.values[value], self.values[v]) for v in graph.inputs):
                raise UnsuitableError("a result that is an operand")
        returns = "".join(f"{self.names[v]}, " for v in returned)
        body = [*self.lines, f"return ({returns})"]
        self.text = f"def run({', '.join(self.parameters)}):\n" + "".join(f"    {line}\n" for line in body)

    def function(self) -> Any:
        exec(compile(self.text, "<graphtorch operators>", "exec"), self.scope)
        return self.scope["run"]

    def add(self, node: Node) -> None:
        if node.op.random or not is_own(node.op) or any(r.type.is_number for r in node.results):
            raise UnsuitableError(node.op.name)
        spelled = [self.spell(a) for a in node.args]
        key = self.key(node)
        if key is not None:
            same = self.seen.get(key)
            if same is not None:
                for result, known in zip(node.results, same, strict=True):
                    self.names[result], self.values[result] = self.names[known], self.values[known]
                    if known in self.constant:
                        self.constant.add(result)
                return
            self.seen[key] = node.results
        args = [self.evaluated(a) for a in node.args]
        called, arguments = self.call(node, args)
        made = quiet.run(called, *args[:arguments])
        several = type(made) is tuple
        arrays = made if several else (made,)
        tensors = tuple([Tensor._wrap(a if type(a) is np.ndarray else np.asarray(a)) for a in arrays])
        plain = [t._data for t in tensors]
        if node.op.kind != VIEW:
            lay_out(node.op, args, tensors if several else tensors[0])
        targets = []
        fixes = []
        for result, array, as_is, tensor in zip(node.results, arrays, plain, tensors, strict=True):
            name = self.names[result] = f"t{len(self.names)}"
            targets.append(name)
            laid = tensor._data
            if as_is is not array:
                fixes.append(f"{name} = asarray({name})")
            if laid is not as_is:
                fixes.append(f"{name} = laid_out({name}, {layout_of(laid)[1]})")
            described = result.type
            if laid.dtype != described.dtype.numpy or laid.shape != tuple(described.shape) or laid.size >= native.LARGE:
                raise UnsuitableError(node.op.name)
            self.values[result] = laid
        if not node.results or (not any(r in self.fresh for r in node.results) and self.is_constant(node)):
            for result, name in zip(node.results, targets, strict=True):
                self.constant.add(result)
                self.scope[name] = self.values[result]
            return
        name = f"f{len(self.lines)}"
        self.scope[name] = called
        left = ", ".join(targets) + ("," if several and len(targets) == 1 else "")
        self.lines.append(f"{left} = {name}({', '.join(spelled[:arguments])})")
        self.lines.extend(fixes)

    def call(self, node: Node, args: Sequence[Any]) -> tuple[Any, int]:
        """The function that computes a node, and how many of its arguments it takes."""
        if node.op.name == "view":
            return np.reshape, 2  # a copy where eager execution's operand, which had other strides, was viewed
        if any(type(a) is np.ndarray and a.size >= node.op.least for a in args):
            op = node.op
            if native.run(op, list(args)) is not None:
                return (lambda *given: native.run(op, list(given))), len(args)
        return direct(node.op.numpy, args) if node.op.kind == POINTWISE else (node.op.numpy, len(args))

    def key(self, node: Node) -> Any:
        """What equal nodes have in common; None for those that must be computed on their own."""
        if any(r in self.fresh for r in node.results):
            return None
        return node.op.name, repr([self.spelled_key(a) for a in node.args])

    def spelled_key(self, arg: Any) -> Any:
        if type(arg) is Value:
            return "%" + self.names[arg]
        if type(arg) is tuple:
            return tuple([self.spelled_key(a) for a in arg])
        return type(arg).__name__, arg

    def is_constant(self, node: Node) -> bool:
        return all(v in self.constant for v in node.operands())

    def evaluated(self, arg: Any) -> Any:
        if type(arg) is Value:
            return self.values[arg]
        if type(arg) is tuple:
            return tuple([self.evaluated(a) for a in arg])
        return arg

    def spell(self, arg: Any) -> str:
        """An argument in the text of the code."""
        if type(arg) is Value:
            return self.names[arg]
        if type(arg) is tuple and any(type(a) is Value for a in arg):
            return "(" + "".join(f"{self.spell(a)}, " for a in arg) + ")"
        if arg is None or type(arg) is bool or type(arg) is int:
            return repr(arg)
        name = f"k{len(self.scope)}"
        self.scope[name] = arg
        return name


def _live(graph: Graph, wanted: Sequence[Value]) -> list[Node]:
    """The nodes that some wanted value depends on, in order."""
    needed = set(wanted)
    found = []
    for node in reversed(graph.nodes):
        if any(r in needed for r in node.results):
            found.append(node)
            needed.update(node.operands())
    return found[::-1]
