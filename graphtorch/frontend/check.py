"""`compile(check=True)`: each call runs compiled and eagerly, and a difference is traced to the operator and line.

Both runs start from the same state: what the function may change is copied before the compiled run and put back
afterwards. The caller gets the eager run's results and state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphtorch.autodiff.gradient import ExpandGradients
from graphtorch.diagnostics import advice
from graphtorch.frontend.decisions import generators_of
from graphtorch.frontend.errors import CaptureError
from graphtorch.frontend.places import fetch, put
from graphtorch.frontend.tree import flatten
from graphtorch.ir.graph import Graph, Node, Value
from graphtorch.lowering.backend import get_backend
from graphtorch.lowering.binding import bind, concrete, symbolic_dims
from graphtorch.lowering.numpy.interpreter import run_node
from graphtorch.tensor.generator import default_generator
from graphtorch.tensor.remote import overwrite, readable
from graphtorch.tensor.tensor import Tensor

if TYPE_CHECKING:
    from graphtorch.frontend.compiler import CompiledFunction, Specialization

# Relative to the largest element: kernels sum in another order than eager operators.
TOLERANCE = {"float64": 1e-7, "complex128": 1e-7, "float32": 1e-3, "complex64": 1e-3, "float16": 2e-2, "bfloat16": 5e-2}


class CheckError(CaptureError):
    """A compiled call gave something else than eager execution. The caller's state is that of the eager run."""


def checked_call(function: CompiledFunction, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One call, compiled and eager. Raises CheckError for a difference, at the first operator that shows it."""
    leaves: list[Any] = []
    tree = flatten((args, kwargs), leaves)
    found = function.find_or_compile(tree, leaves)
    if found is None:  # it runs eagerly anyway
        return function.find(args, kwargs)
    saved = _State(found, leaves)
    before = [_data_of(s.fetch(leaves)) for s in found.captured.sources]
    deferred, found.captured.deferred = found.captured.deferred, ()  # the eager run does that
    try:
        compiled = function.find(args, kwargs)
    finally:
        found.captured.deferred = deferred
    mine = [_copy(v) for v in _leaves(compiled)]
    after = saved.now()
    saved.restore()
    eager = function.function(*args, **kwargs)
    wanted = [_copy(v) for v in _leaves(eager)]
    floor = _floor(found.captured.graph)
    wrong = _first_difference(mine, wanted, [f"result {i}" for i in range(len(wanted))], floor)
    wrong = wrong or _first_difference(after, saved.now(), saved.names, floor)
    if not wrong:
        return eager
    end = saved.now_raw()
    saved.restore()
    try:
        where = _trace(function, found, before, args, kwargs)
    finally:
        saved.put(end)
    message = f"check=True: {function!r} gives another value than eager execution: {wrong}{where}"
    raise CheckError(message + advice(message))


class _State:
    """What a call may change: the captured tensors, their gradients, and random generators."""

    def __init__(self, found: Specialization, leaves: Sequence[Any]) -> None:
        captured = found.captured
        tensors: dict[int, tuple[str, Tensor]] = {}
        for source in (*captured.sources, *(s for s, _ in captured.grads)):
            value = source.fetch(leaves)
            if isinstance(value, Tensor):
                tensors[id(value)] = (source.name, value)
        self.tensors = [t for _, t in tensors.values()]
        self.names = [n for name, _ in tensors.values() for n in (name, f"{name}.grad")]
        self.places = [(change.namespace, change.key) for change in captured.changes]
        self.names += [str(key) for _, key in self.places]
        self.generators = list({id(g): g for g in (default_generator, *generators_of(captured.graph.nodes))}.values())
        self.saved = self.now_raw()

    def now(self) -> list[Any]:
        """The values of tensors and gradients."""
        found = [v for t in self.tensors for v in (_copy(t), None if t._grad is None else _copy(t._grad))]
        return found + [_copy(fetch(*place)) for place in self.places]

    def now_raw(self) -> Any:
        tensors = [
            (t._data.copy(), t._grad, None if t._grad is None else t._grad._data.copy(), _history(t))
            for t in self.tensors
        ]
        return tensors, [g.state_array() for g in self.generators], [fetch(*place) for place in self.places]

    def put(self, taken: Any) -> None:
        tensors, states, values = taken
        for place, value in zip(self.places, values, strict=True):
            put(*place, value)
        for tensor, (data, grad, grad_data, history) in zip(self.tensors, tensors, strict=True):
            overwrite(tensor._data, data)
            tensor._grad = grad
            for held, (attributes, version) in history:
                for name, value in attributes.items():
                    setattr(held, name, value)
                held._shared_storage().version = version
            if grad is not None:
                overwrite(grad._data, grad_data)
        for generator, state in zip(self.generators, states, strict=True):
            generator.set_state(state)

    def restore(self) -> None:
        """Put back what was there at the start."""
        self.put(self.saved)


# A tensor's place on the tape.
_TAPE = ("_node", "_output_index", "_requires_grad", "_node_version")


def _history(tensor: Tensor) -> list[tuple[Tensor, tuple[dict[str, Any], int]]]:
    """What the tape knows of a tensor and of what it views."""
    held = [tensor] if tensor._base is None else [tensor, tensor._base]
    return [(t, ({name: getattr(t, name) for name in _TAPE}, t._version)) for t in held]


def _leaves(value: Any) -> list[Any]:
    leaves: list[Any] = []
    flatten(value, leaves)
    return leaves


def _copy(value: Any) -> Any:
    return readable(value._data.copy()) if isinstance(value, Tensor) else value


def _data_of(value: Any) -> Any:
    return _copy(value)


def _floor(graph: Graph) -> float:
    """The least tolerance for what a graph computes: values that went through half precision keep few digits."""
    return max((TOLERANCE.get(r.dtype.name, 0.0) for n in graph.nodes for r in n.results), default=0.0)


def _alike(mine: Any, wanted: Any) -> bool:
    return bool(np.shape(mine) == np.shape(wanted) and np.asarray(mine).dtype == np.asarray(wanted).dtype)


def differs(mine: Any, wanted: Any, floor: float = 0.0) -> str:
    """How two values differ, in words; "" if they agree up to rounding (of the dtype's digits, or `floor`)."""
    if type(mine) is float and type(wanted) is float:  # most often .item() of a float32 tensor
        mine, wanted = np.asarray(mine, np.float32), np.asarray(wanted, np.float32)
    if not isinstance(mine, np.ndarray) or not isinstance(wanted, np.ndarray):
        same = mine is wanted or (type(mine) is type(wanted) and _equal_scalars(mine, wanted))
        return "" if same else f"{mine!r} compiled, {wanted!r} eagerly"
    if mine.shape != wanted.shape or mine.dtype != wanted.dtype:
        return f"{mine.dtype}{list(mine.shape)} compiled, {wanted.dtype}{list(wanted.shape)} eagerly"
    if not mine.size:
        return ""
    tolerance = TOLERANCE.get(mine.dtype.name)
    if tolerance is None:
        bad = mine != wanted
    else:
        kind = np.complex128 if mine.dtype.kind == "c" else np.float64
        a, b = mine.astype(kind), wanted.astype(kind)
        with np.errstate(all="ignore"):
            finite = np.isfinite(b)
            scale = float(np.max(np.abs(b[finite]), initial=0.0))
            close = np.abs(a - b) <= max(tolerance, floor) * max(scale, 1e-6)
            bad = ~(close | (a == b) | (np.isnan(a) & np.isnan(b)))
    if not bad.any():
        return ""
    place = tuple(int(i) for i in np.argwhere(bad)[0])
    at = f" at {list(place)}" if place else ""
    return f"{mine[place]} compiled, {wanted[place]} eagerly{at} ({int(bad.sum())} of {bad.size} elements differ)"


def _equal_scalars(mine: Any, wanted: Any) -> bool:
    try:
        return bool(mine == wanted)
    except Exception:
        return False


def _first_difference(mine: Sequence[Any], wanted: Sequence[Any], names: Sequence[str], floor: float) -> str:
    if len(mine) != len(wanted):
        return f"{len(mine)} values compiled, {len(wanted)} eagerly"
    for name, a, b in zip(names, mine, wanted, strict=True):
        text = differs(a, b, floor)
        if text:
            return f"{name} is {text}"
    return ""


# -- where it begins --------------------------------------------------------------------------------------------------


def _trace(
    function: CompiledFunction, found: Specialization, inputs: list[Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> str:
    """The first operator whose value differs, with the user's line."""
    if found.paths is not None:
        return ""
    joint = ExpandGradients().run(found.captured.graph)
    floor = _floor(joint)
    log = list(_eager_log(function.function, args, kwargs))
    recorded = list(run_graph(joint, inputs))
    place = 0
    for name, location, arrays, text in log:
        match = next(
            (
                i
                for i in range(place, len(recorded))
                if recorded[i][0].op.name == name
                and str(recorded[i][0].location) == location
                and all(_alike(*pair) for pair in zip(recorded[i][1], arrays, strict=False))
            ),
            None,
        )
        if match is None:
            continue
        place = match + 1
        for mine, wanted in zip(recorded[match][1], arrays, strict=False):
            how = differs(mine, wanted, floor)
            if how:
                return (
                    f"\n  first operation that differs: {name}: {how}\n  at {location}: {text}\n  the captured graph "
                    "has another value there: the function reads something that the capture could not see change"
                )
    return _trace_backend(found, inputs)


def _trace_backend(found: Specialization, inputs: list[Any]) -> str:
    """The graph is right: the first node whose compiled value differs from its NumPy function's."""
    stages = found.compiled.stages
    exposed = Graph(stages.optimized.name, input_kinds=list(stages.optimized.input_kinds))
    exposed.inputs = list(stages.optimized.inputs)
    exposed.nodes = list(stages.optimized.nodes)
    for node in exposed.nodes:
        for i, value in enumerate(node.results):
            exposed.add_output(value, f"{value.name or node.op.name}_{len(exposed.outputs)}_{i}")
    runs = get_backend(found.backend).compile(exposed, {}).run([_copy_array(i) for i in inputs])
    values = iter(runs)
    for node, wanted in run_graph(exposed, inputs):
        for expected in wanted:
            how = differs(np.asarray(next(values)), np.asarray(expected))
            if how:
                return (
                    f"\n  first operation that differs: {node.op.name}: {how}\n  at {node.location}: "
                    f"{node.location.text}\n  the {found.backend} backend computes it otherwise than NumPy"
                )
    return "\n  each operation by itself agrees: the difference comes of how they were fused or stored"


def _copy_array(value: Any) -> Any:
    return value.copy() if isinstance(value, np.ndarray) else value


def run_graph(graph: Graph, inputs: Sequence[Any]) -> Iterator[tuple[Node, tuple[Any, ...]]]:
    """Run a graph node by node; yields each node with its results."""
    bindings = bind(symbolic_dims(graph.inputs), inputs)
    values: dict[Value, Any] = {}
    for value, given in zip(graph.inputs, inputs, strict=True):
        values[value] = given.item() if value.type.is_number and isinstance(given, np.ndarray | np.generic) else given
    with np.errstate(all="ignore"):
        for node in graph.nodes:
            args = tuple(
                values[a]
                if type(a) is Value
                else tuple(values[i] if type(i) is Value else concrete(i, bindings) for i in a)
                if type(a) is tuple
                else concrete(a, bindings)
                for a in node.args
            )
            results = run_node(node, args)
            for result, made in zip(node.results, results, strict=True):
                values[result] = made.item() if result.type.is_number else made
            yield node, results


def _eager_log(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[tuple[str, str, list[Any], str]]:
    """What each operator call of an eager run gave: (operator, file:line, arrays, source text)."""
    from graphtorch.func.watch import WatchLevel

    level = WatchLevel()
    with level:
        function(*args, **kwargs)
    return level.seen


__all__ = ["CheckError", "checked_call", "differs", "run_graph"]
