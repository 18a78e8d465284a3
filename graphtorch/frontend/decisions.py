"""Python decisions on tensor data during a capture: `if loss > t`, `while r.norm() > e`, `int(n)`, boolean-mask shapes.

A graph can't branch, but a captured run takes one way. So the capture computes what Python asks for from the inputs of
the call at hand (with what is recorded so far, side effects apart), goes on with that, and notes the question, its
answer and the user's line. A specialisation is valid for calls that get the same answers; `frontend.paths` says how
they are found before anything is changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from graphtorch.autodiff.gradient import ExpandGradients
from graphtorch.autograd.grad_mode import no_grad
from graphtorch.autograd.state import recorder_paused
from graphtorch.frontend.effects import RunEagerly
from graphtorch.ir.graph import Graph, Value
from graphtorch.ir.graph import Node as GraphNode
from graphtorch.ir.passes import DeadCodeElimination
from graphtorch.ir.region import Region
from graphtorch.lowering.binding import bind, concrete, symbolic_dims
from graphtorch.lowering.numpy.interpreter import interpret, run_node
from graphtorch.ops.build import FUNCTIONS
from graphtorch.ops.dispatch import call, on_device, tensors_of, user_location
from graphtorch.tensor.cuda_generator import generator_for
from graphtorch.tensor.devices import device
from graphtorch.tensor.generator import Generator
from graphtorch.tensor.remote import readable
from graphtorch.tensor.tensor import Tensor

if TYPE_CHECKING:
    from graphtorch.frontend.recorder import Recorder

MAX_DECISIONS = 64  # on one path
MAX_PATHS = 32  # in one tree
MAX_VALUES = 8  # different answers of one line that are numbers or arrays; a truth value has two

MANY = "at least 2"  # the answer to how many elements there are, where a symbol stands for the number


def _how_many(count: Any) -> Any:
    return int(count) if count < 2 else MANY


# What Python gets from the data: few different answers, or the numbers themselves.
_ANSWERS: dict[str, Callable[[Any], Any]] = {"bool()": bool, "int()": int, "__index__()": int, "size": _how_many}
_NUMBERS = frozenset(("float()", "complex()", "format()", "tolist()"))


@dataclass(frozen=True)
class Decision:
    """One question that Python asked of tensor data.

    value      what was asked for, in the captured graph
    operation  how: "bool()", "int()", ...
    answer     hashable: what the path assumes
    array      data that gives this answer
    draws      how many random operators were recorded before
    location   the user's line
    output     the position of `value` among the graph's outputs, once these exist
    carrier    the position of the input whose length is the answer; -1 for none
    """

    value: Value
    operation: str
    answer: Any
    array: np.ndarray[Any, Any]
    draws: int
    location: str
    output: int = -1
    carrier: int = -1

    def __str__(self) -> str:
        shown = self.answer if type(self.answer) in (bool, int, str) else self.array
        return f"{self.operation} was {shown} at {self.location}"


def answer_of(operation: str, array: Any) -> Any:
    """What Python learns from data, as a key."""
    ask = _ANSWERS.get(operation)
    if ask is not None:
        return ask(np.asarray(readable(array)).reshape(()).item())
    array = np.asarray(readable(array))
    return array.dtype.str, array.shape, array.tobytes()


class Decisions:
    """Answers questions during one capture, for the arguments `leaves`. The first answers are `known` from a run of
    compiled code, whose last bits need not be those of the evaluation here."""

    def __init__(
        self, leaves: Sequence[Any], known: Sequence[Decision] = (), counts: Callable[[int], Any] | None = None
    ) -> None:
        self.leaves = leaves
        self.counts = counts  # makes a symbol for a size; None: sizes are numbers
        self.known = known
        self.made: list[Decision] = []
        self._sizes: dict[Any, Any] = {}  # what was counted -> how many
        self._answered: dict[tuple[Value, str], np.ndarray[Any, Any]] = {}

    def read(self, recorder: Recorder, tensor: Tensor, operation: str) -> np.ndarray[Any, Any]:
        """The data of a recorded tensor."""
        with recorder._gradients(False):
            value = recorder.value_of(tensor)
        found = self._answered.get((value, operation))
        if found is not None:
            return found
        location = user_location()
        if operation not in _ANSWERS and operation not in _NUMBERS:
            # An array, which the user may keep or change.
            raise RunEagerly(f"{operation} needs the data of a tensor at {location}")
        if len(self.made) >= MAX_DECISIONS:
            raise RunEagerly(f"more than {MAX_DECISIONS} decisions depend on tensor data, the last one at {location}")
        place = len(self.made)
        if place < len(self.known):
            expected = self.known[place]
            alike = expected.operation == operation or {expected.operation, operation} == {"size", "int()"}
            if not alike or expected.location != location:
                raise RunEagerly(f"the way to {location} is another at each call with the same arguments")
            array = expected.array
        else:
            array = self._evaluate(recorder, value)
        answer = answer_of(operation, array)
        draws = sum(node.op.random for node in recorder.graph.nodes)
        self.made.append(Decision(value, operation, answer, array, draws, location))
        self._answered[value, operation] = array
        return array

    def size(self, recorder: Recorder, tensor: Tensor) -> Any:
        """How many elements there will be: a symbol for two or more, if symbols may stand for sizes."""
        if self.counts is None:
            return int(self.read(recorder, tensor, "int()"))
        with recorder._gradients(False):
            key = _computation(recorder.value_of(tensor))
        found = self._sizes.get(key)
        if found is not None:  # the same question: `x[mask] *= 2` asks twice
            return found
        place = len(self.made)
        count = int(self.read(recorder, tensor, "size"))
        self._sizes[key] = count
        if count >= 2:
            self._sizes[key] = self.counts(count)
            self.made[-1] = replace(self.made[-1], carrier=recorder.size_input(self._sizes[key], place, count))
        return self._sizes[key]

    def _evaluate(self, recorder: Recorder, value: Value) -> np.ndarray[Any, Any]:
        """Run what is recorded up to a value. Random generators are left as they were."""
        graph = recorder.graph
        prefix = Graph(graph.name, list(graph.inputs), list(graph.nodes), [value], list(graph.input_kinds), ["asked"])
        prefix = ExpandGradients().run(DeadCodeElimination().run(prefix))
        found = [source.fetch(self.leaves) for source in recorder.sources]
        held = [(g, g.state_array()) for g in generators_of(prefix.nodes)]
        try:
            with recorder_paused():
                if any(v.type.device.type == "cuda" for v in prefix.inputs) or value.type.device.type == "cuda":
                    (answer,) = _run_eagerly(prefix, found)
                    array = readable(answer._data) if isinstance(answer, Tensor) else answer
                else:
                    (array,) = interpret(prefix, [t._data if isinstance(t, Tensor) else t for t in found])
        finally:
            for generator, saved in held:
                generator.set_state(saved)
        return np.array(array, dtype=value.type.dtype.numpy).reshape(np.shape(array))


class _Eagerly:
    """A region that runs node by node, where its operands lie."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        given = [on_device(a) if isinstance(a, np.ndarray) else a for a in inputs]
        return [t._data if isinstance(t, Tensor) else t for t in _run_eagerly(self.graph, given)]


def _arrays(arg: Any) -> Any:
    if type(arg) is tuple:
        return tuple(map(_arrays, arg))
    return arg._data if isinstance(arg, Tensor) else _Eagerly(arg.graph) if type(arg) is Region else arg


def _moved(arg: Any, where: device) -> Any:
    """Operands on the device of the result: positions may lie in the host's memory, for one."""
    if type(arg) is tuple:
        return tuple(_moved(a, where) for a in arg)
    return arg.to(where) if isinstance(arg, Tensor) and arg.ndim and arg.device != where else arg


def _run_eagerly(graph: Graph, inputs: Sequence[Any]) -> list[Any]:
    """The outputs of a graph, each node where its operands lie: what is drawn there is what eager execution draws."""
    bindings = bind(symbolic_dims(graph.inputs), inputs)
    values: dict[Value, Any] = dict(zip(graph.inputs, inputs, strict=True))

    def of(arg: Any) -> Any:
        if type(arg) is Value:
            return values[arg]
        return tuple(map(of, arg)) if type(arg) is tuple else concrete(arg, bindings)

    with no_grad():
        for node in graph.nodes:
            name = "reshape" if node.op.name == "view" else None
            args = tuple(map(of, node.args))
            where = node.results[0].type.device
            if any(type(a) is Region for a in args):
                made = tuple(map(on_device, node.op.numpy(*map(_arrays, args))))
            elif tensors_of(args) or node.op.device_at is not None:
                args = tuple(_moved(a, where) for a in args)
                made = FUNCTIONS[name](*args) if name else call(node.op, args)
            else:  # arithmetic of numbers
                made = tuple(map(np.ndarray.item, run_node(node, args)))
            for result, tensor in zip(node.results, made if isinstance(made, tuple) else (made,), strict=True):
                values[result] = tensor.item() if isinstance(tensor, Tensor) and result.type.is_number else tensor
    return [values[v] for v in graph.outputs]


def _computation(value: Any, depth: int = 4) -> Any:
    """What a value is computed by, as a key: equal for two nodes that do the same to the same values."""
    if type(value) is tuple:
        return tuple(_computation(item, depth) for item in value)
    if type(value) is not Value or value.node is None or value.node.op.random or not depth:
        return value
    return value.node.op.name, _computation(value.node.args, depth - 1), value.node.results.index(value)


def generators_of(nodes: Sequence[GraphNode]) -> list[Generator]:
    """The random generators that nodes draw from."""
    found: dict[int, Generator] = {}
    for node in nodes:
        if node.op.random:
            own = generator_for(node.results[0].type.device)
            given = next((a for a in node.args if isinstance(a, Generator)), own)
            found[id(given)] = given
    return list(found.values())
