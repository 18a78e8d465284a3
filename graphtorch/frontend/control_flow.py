"""Control flow on tensor data as operators: `cond`, `while_loop`, `scan`, `associative_scan`.

Eagerly these are Python's own `if`, `while` and `for`, and so is their derivative. Under `@compile` a branch or body is
recorded as a region: a graph that one node of the captured graph runs. What it reads of the surroundings becomes
operands. A region can't hold everything (in-place changes of what lies outside, random numbers, backward passes,
results of different shapes): then the call is taken apart into Python control flow, with decisions on data;
`fullgraph=True` raises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from graphtorch.autodiff.control_flow import COND, SCAN, WHILE_LOOP
from graphtorch.autodiff.custom import CUSTOM
from graphtorch.autodiff.flow import differing
from graphtorch.autodiff.gradient import GRADIENT
from graphtorch.autograd.state import state
from graphtorch.frontend.errors import refuse
from graphtorch.frontend.parts import note_cond, note_scan
from graphtorch.frontend.recorded import RecordedNode
from graphtorch.frontend.recorder import Recorder
from graphtorch.frontend.tree import flatten, unflatten
from graphtorch.ir.builder import wrap
from graphtorch.ir.equality import same_type
from graphtorch.ir.graph import Graph, Node, Value, copy_graph
from graphtorch.ir.region import Region
from graphtorch.ops.build import FUNCTIONS
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType, type_of

# -- recording regions ------------------------------------------------------------------------------------------------


@dataclass
class _Body:
    """A recorded branch or body.

    given   its own inputs
    nodes   what it does
    values  its results, by `tree`
    flags   which of them require grad
    layouts the order in memory that each has
    """

    given: list[Value]
    nodes: list[Node]
    values: list[Value]
    tree: Any
    flags: list[bool]
    layouts: list[Any]

    def outside(self) -> list[Value]:
        """The values that it reads of its surroundings."""
        made = {r for n in self.nodes for r in n.results}
        made.update(self.given)
        read = dict.fromkeys(v for n in self.nodes for v in n.operands())
        read.update(dict.fromkeys(self.values))
        return [v for v in read if v not in made]

    def region(self, name: str, outside: Sequence[Value]) -> Region:
        """The body as a region of its inputs and those values."""
        held = Graph(name, [*self.given, *outside], self.nodes, self.values)
        held.input_kinds = ["argument"] * len(held.inputs)
        held.output_names = [f"out{i}" for i in range(len(self.values))]
        made = copy_graph(held)
        for i, value in enumerate(made.inputs):
            value.name = f"in{i}"
        for node in made.nodes:
            for result in node.results:
                result.name = ""
        return Region(made)


def _recorder() -> Recorder | None:
    """The capture that is going on, if one is."""
    found = state.recorder
    return found if isinstance(found, Recorder) else None  # and not a functional transform inside of one


def _record(recorder: Recorder, function: Callable[..., Any], given: list[Tensor], tree: Any) -> _Body:
    """Run a branch or body on recorded tensors and take the nodes out of the graph again.

    Raises CaptureError for what a region can't hold."""
    graph = recorder.graph
    start = len(graph.nodes)
    held, recorder.decisions = recorder.decisions, None
    recorder.region += 1
    try:
        result = function(*unflatten(tree, iter(given)))
        leaves: list[Any] = []
        result_tree = flatten(result, leaves)
        if not leaves or not all(isinstance(leaf, Tensor) and not leaf.is_number for leaf in leaves):
            raise refuse("a branch or body whose results are not tensors", "return tensors")
        values = [recorder.value_of(leaf) for leaf in leaves]
        held_by = [recorder.recorded(leaf) for leaf in leaves]
        flags = [t._requires_grad for t in held_by]
        layouts = [t._data.layout for t in held_by]
        nodes = graph.nodes[start:]
    finally:
        recorder.region -= 1
        recorder.decisions = held
        hoisted = [n for n in graph.nodes[start:] if recorder.hoisted.get(n, recorder.region + 1) <= recorder.region]
        graph.nodes[start:] = hoisted  # what was read of the surroundings anew, such as a view of changed memory
    nodes = [n for n in nodes if n not in hoisted]
    for node in nodes:
        if node.op.random or node.op is CUSTOM or node.op is GRADIENT:
            raise refuse(
                f"{node.op.name} in a branch or body", "draw, or differentiate, before or after the control flow"
            )
    return _Body([recorder.value_of(t) for t in given], nodes, values, result_tree, flags, layouts)


def _placeholder(recorder: Recorder, of: TensorType, tracked: bool, layout: Any) -> Tensor:
    """A tensor that stands for a carry or a step inside a body."""
    value = Value(of)
    tensor = recorder._fresh(value)
    tensor._data._layout = layout
    tensor._data.storage.region = recorder.region + 1
    if tracked and of.dtype.is_differentiable:
        recorder.tracked.add(value)
        tensor._requires_grad = True
        tensor._node = RecordedNode("CarryBackward0")
    return tensor


def _wrapped(recorder: Recorder, values: Sequence[Value]) -> tuple[Tensor, ...]:
    return tuple(wrap(v) for v in values)


def _tensors(leaves: Sequence[Any], name: str, what: str) -> None:
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            raise RuntimeError(f"{name}: expected {what} to be tensors, but got {type(leaf).__name__}")


def _tuple(results: Any) -> tuple[Any, ...]:
    return results if isinstance(results, tuple) else (results,)


def _like(recorder: Recorder, results: Sequence[Tensor], body: _Body) -> list[Tensor]:
    """Results of a control-flow node, of which only some require grad, in the order in memory that the body gives."""
    for tensor, layout in zip(results, body.layouts, strict=False):
        recorder.arrange(tensor, layout)
    for tensor, flag in zip(results, body.flags, strict=True):
        if tensor._requires_grad and not flag:
            tensor._requires_grad = False
            tensor._node = None
            recorder.tracked.discard(tensor._data.value)
    return list(results)


def _requires_grad(tensors: Sequence[Tensor]) -> bool:
    return state.grad_enabled and any(t.requires_grad for t in tensors)


# -- cond -------------------------------------------------------------------------------------------------------------


def cond(
    pred: Any,
    true_fn: Callable[..., Any],
    false_fn: Callable[..., Any],
    operands: Sequence[Any] = (),
) -> Any:
    """`true_fn(*operands)` if `pred` is true, else `false_fn(*operands)`; compiled, both are part of one graph.

    pred       a bool, or a bool tensor of one element
    operands   tensors, in any nesting of containers

    Under `@compile` with `fullgraph=True` the branches must give tensors of the same shapes and dtypes, and must change
    nothing in place that is not their own. Raises RuntimeError for a `pred` of another kind.
    See https://docs.pytorch.org/docs/stable/cond.html."""
    if not isinstance(pred, bool | int | float | Tensor):
        raise RuntimeError(f"Expected pred to be bool or tensor, but got {pred}.")
    if not (callable(true_fn) and callable(false_fn)):
        raise RuntimeError("Expect both branches to be callable.")
    if not isinstance(operands, tuple | list):
        raise RuntimeError(
            f"Expect operands to be a tuple of possibly nested dict/list/tuple that only consists of tensor leaves, "
            f"but got {operands}."
        )
    if isinstance(pred, Tensor) and pred.numel() != 1:
        raise RuntimeError(f"Expected pred to be bool or single-element tensor, but got {pred}.")
    recorder = _recorder()
    if recorder is not None and not recorder.apart and isinstance(pred, Tensor) and pred.dtype.name == "bool":
        try:
            return _record_cond(recorder, pred, true_fn, false_fn, operands)
        except Exception:  # of a branch that is not taken, perhaps
            if recorder.decisions is None:
                raise
            recorder.refused = None
    return true_fn(*operands) if pred else false_fn(*operands)


def _record_cond(recorder: Recorder, pred: Tensor, true_fn: Any, false_fn: Any, operands: Sequence[Any]) -> Any:
    leaves: list[Any] = []
    tree = flatten(tuple(operands), leaves)
    bodies = [
        _record(recorder, lambda *given, f=function: f(*unflatten(tree, iter(leaves))), [], flatten((), []))
        for function in (true_fn, false_fn)
    ]
    then, otherwise = bodies
    types = [[v.type for v in body.values] for body in bodies]
    if then.tree != otherwise.tree or len(types[0]) != len(types[1]) or not all(map(same_type, *types)):
        raise refuse(
            f"branches of cond that give ({', '.join(map(str, types[0]))}) and ({', '.join(map(str, types[1]))})",
            "return tensors of the same shapes and dtypes from both",
        )
    outside = list(dict.fromkeys((*then.outside(), *otherwise.outside())))
    results = recorder.call(
        COND,
        (
            pred,
            _wrapped(recorder, outside),
            then.region("then", outside),
            otherwise.region("otherwise", outside),
        ),
    )
    node = recorder.graph.nodes[-1]
    if recorder.exact and differing(node, recorder.tracked):
        raise refuse("branches of cond that depend on different tensors that require grad", "let both use all of them")
    if recorder.exact and any(a.strides != b.strides for a, b in zip(then.layouts, otherwise.layouts, strict=True)):
        raise refuse("branches of cond whose results have different strides", "let both call contiguous()")
    note_cond(recorder, [recorder.value_of(t) for t in _tuple(results)], bodies)
    then.flags = [a or b for a, b in zip(then.flags, otherwise.flags, strict=True)]
    return unflatten(then.tree, iter(_like(recorder, _tuple(results), then)))


# -- while_loop -------------------------------------------------------------------------------------------------------


def while_loop(cond_fn: Callable[..., Any], body_fn: Callable[..., Any], carried_inputs: Sequence[Any]) -> Any:
    """Apply `body_fn` to the carried values as long as `cond_fn` of them is true; gives the last ones, as a tuple.

    Under `@compile`, the loop is one node of the graph where nothing in it requires grad, and is unrolled by decisions
    on data otherwise. See torch.while_loop (https://docs.pytorch.org/docs/stable/generated/torch.while_loop.html)."""
    if not (callable(cond_fn) and callable(body_fn)):
        raise RuntimeError("cond_fn and body_fn must be callable")
    if not isinstance(carried_inputs, tuple | list):
        raise RuntimeError(f"carried_inputs must be a tuple or list, got {type(carried_inputs)}")
    recorder = _recorder()
    carried = tuple(carried_inputs)
    if recorder is not None:
        leaves: list[Any] = []
        tree = flatten(carried, leaves)
        if all(isinstance(leaf, Tensor) for leaf in leaves):
            try:
                return _record_while(recorder, cond_fn, body_fn, leaves, tree)
            except Exception:
                if recorder.decisions is None:
                    raise
                recorder.refused = None
    while cond_fn(*carried):
        found = body_fn(*carried)
        carried = tuple(found) if isinstance(found, tuple | list) else (found,)
        if len(carried) != len(carried_inputs):
            raise RuntimeError(
                f"body_fn should return the same number of elements as carried_inputs, got {len(carried)} and "
                f"{len(carried_inputs)}"
            )
    return carried


def _record_while(recorder: Recorder, cond_fn: Any, body_fn: Any, leaves: list[Tensor], tree: Any) -> Any:
    leaves = [recorder.recorded(leaf) for leaf in leaves]
    given = [_placeholder(recorder, recorder.value_of(t).type, False, t._data.layout) for t in leaves]
    condition = _record(recorder, cond_fn, given, tree)

    def body(*carried: Any) -> Any:
        found = body_fn(*carried)
        return tuple(found) if isinstance(found, tuple | list) else (found,)

    step = _record(recorder, body, given, tree)
    step.given = condition.given = [recorder.value_of(t) for t in given]
    if step.tree != tree:
        raise refuse("a body of while_loop that returns another structure than it takes", "return what it takes")
    outside = list(dict.fromkeys((*condition.outside(), *step.outside())))
    if state.grad_enabled and (
        _requires_grad(leaves) or any(v in recorder.tracked for v in outside if v.type.dtype.is_differentiable)
    ):
        raise refuse(
            "a while_loop of what requires grad, which has no derivative", "detach() what it takes, or unroll it"
        )
    results = recorder.call(
        WHILE_LOOP,
        (
            tuple(leaves),
            _wrapped(recorder, outside),
            condition.region("condition", outside),
            step.region("body", outside),
        ),
    )
    return unflatten(tree, iter(_like(recorder, _tuple(results), step)))


# -- scan -------------------------------------------------------------------------------------------------------------


def scan(
    combine_fn: Callable[[Any, Any], Any], init: Any, xs: Any, *, dim: int = 0, reverse: bool = False
) -> tuple[Any, Any]:
    """Carry a value along dimension `dim` of `xs`: `carry, y = combine_fn(carry, x)` for each slice; gives the last
    carry and the ys, stacked along a new first dimension, in the order of `xs`.

    `init` and `xs` are nested containers of tensors; the carry keeps its shapes and dtypes. With `reverse`, the last
    slice comes first. Under `@compile`, the loop is one node of the graph, of any length, and so is its derivative.
    See torch._higher_order_ops.scan."""
    if not callable(combine_fn):
        raise ValueError(f"Combine_fn must be a callable, but got {combine_fn}")
    if not isinstance(dim, int):
        raise ValueError(f"Dim must be an int, but got {type(dim)}")
    carry_leaves: list[Any] = []
    carry_tree = flatten(init, carry_leaves)
    leaves: list[Any] = []
    tree = flatten(xs, leaves)
    _tensors(carry_leaves, "scan", "init leaves")
    _tensors(leaves, "scan", "xs leaves")
    if not leaves:
        raise ValueError("scan() operator requires xs leaves.")
    if any(leaf.ndim == 0 for leaf in leaves):
        raise ValueError("All xs leaves must at least have 'dim' number of dimensions and scan dimension > 0")
    leaves = [leaf.movedim(dim, 0) for leaf in leaves]
    if any(leaf.shape[0] != leaves[0].shape[0] for leaf in leaves):
        raise ValueError("All xs leaves must have the same number of elements in the scan dimension")
    recorder = _recorder()
    if recorder is not None:
        try:
            return _record_scan(recorder, combine_fn, (carry_leaves, carry_tree), (leaves, tree), reverse)
        except Exception:
            if recorder.decisions is None:
                raise
            recorder.refused = None
    carry, stacked, y_tree = init, [], None
    for step in reversed(range(leaves[0].shape[0])) if reverse else range(leaves[0].shape[0]):
        carry, y = combine_fn(carry, unflatten(tree, iter([leaf[step] for leaf in leaves])))
        found: list[Any] = []
        y_tree = flatten(y, found)
        stacked.append(found)
    if y_tree is None:
        raise RuntimeError("scan() operator expects xs of at least one step")
    if reverse:
        stacked.reverse()
    stack = FUNCTIONS["stack"]
    return carry, unflatten(y_tree, iter([stack(tuple(ys)) for ys in zip(*stacked, strict=True)]))


def _record_scan(
    recorder: Recorder, combine_fn: Any, carry: tuple[list[Any], Any], xs: tuple[list[Any], Any], reverse: bool
) -> tuple[Any, Any]:
    flip = FUNCTIONS["flip"]
    init = [recorder.recorded(leaf) for leaf in carry[0]]
    over = [flip(leaf, (0,)) if reverse else leaf for leaf in xs[0]]
    types = [recorder.value_of(leaf).type for leaf in init]
    steps = [type_of(leaf).with_shape(tuple(leaf.shape)[1:]) for leaf in over]
    layouts = [t._data.layout for t in init] + [_first(recorder.recorded(t)._data.layout) for t in over]
    count = len(init)

    def body(*given: Any) -> Any:
        return combine_fn(unflatten(carry[1], iter(given[:count])), unflatten(xs[1], iter(given[count:])))

    given: list[Tensor] = []

    def record(flags: Sequence[bool]) -> _Body:
        given[:] = map(partial(_placeholder, recorder), (*types, *steps), flags, layouts)
        found = _record(recorder, body, given, flatten(tuple(given), []))
        if found.tree.type is not tuple or len(found.tree.children) != 2:
            raise refuse("a function of scan that does not return (carry, y)", "return a pair")
        return found

    flags = [state.grad_enabled and t.requires_grad for t in (*init, *over)]
    while True:  # a carry may require grad from a later step on
        step = record(flags)
        found = [a or b for a, b in zip(flags, step.flags[:count], strict=False)]
        if found == flags[:count]:
            break
        flags[:count] = found
    outside = step.outside()
    if step.tree.children[0] != carry[1] or not all(map(same_type, [v.type for v in step.values], types)):
        raise refuse(
            f"a function of scan whose carry becomes ({', '.join(str(v.type) for v in step.values[:count])}) from "
            f"({', '.join(map(str, types))})",
            "return a carry of the shapes and dtypes that it takes",
        )
    arguments = (tuple(init), tuple(over), _wrapped(recorder, outside), step.region("step", outside))
    made = _tuple(recorder.call(SCAN, arguments))
    note_scan(recorder, [recorder.value_of(t) for t in made], step, count, (*init, *over), given)
    step.layouts[count:] = []  # what is stacked lies row by row
    results = _like(recorder, made, step)
    ys = [flip(y, (0,)) if reverse else y for y in results[count:]]
    return unflatten(carry[1], iter(results[:count])), unflatten(step.tree.children[1], iter(ys))


def _first(layout: Any) -> Any:
    """The order in memory of a slice."""
    return layout[0, ...] if len(layout) else None


def associative_scan(
    combine_fn: Callable[[Any, Any], Any], xs: Any, dim: int, reverse: bool = False, combine_mode: str = "generic"
) -> Any:
    """All prefixes of `xs` along `dim` combined by an associative function, in a logarithmic number of steps.

    `combine_fn(left, right)` combines two containers like `xs` elementwise along `dim`, which may have any length. The
    recursion of Blelloch, "Prefix sums and their applications" (1990). See torch._higher_order_ops.associative_scan."""
    if combine_mode not in ("generic", "pointwise"):
        raise ValueError(f"Combine_mode must either 'pointwise' or 'generic', but got {combine_mode}")
    leaves: list[Any] = []
    tree = flatten(xs, leaves)
    _tensors(leaves, "associative_scan", "xs leaves")
    if not leaves:
        raise ValueError("Expected at least 1 xs leaf")
    moved = [leaf.movedim(dim, 0) for leaf in leaves]
    flip, cat, stack = FUNCTIONS["flip"], FUNCTIONS["cat"], FUNCTIONS["stack"]
    if reverse:
        moved = [flip(leaf, (0,)) for leaf in moved]

    def combine(left: list[Tensor], right: list[Tensor]) -> list[Tensor]:
        found: list[Any] = []
        back = [[t.movedim(0, dim) for t in side] for side in (left, right)]
        if flatten(combine_fn(*(unflatten(tree, iter(side)) for side in back)), found) != tree:
            raise RuntimeError("The number of leaves of the pytree of the output of the operator needs to match xs")
        return [t.movedim(dim, 0) for t in found]

    def prefixes(parts: list[Tensor]) -> list[Tensor]:
        length = parts[0].shape[0]
        if length < 2:
            return parts
        odd = prefixes(combine([p[0:-1:2] for p in parts], [p[1::2] for p in parts]))
        if length % 2:
            even = combine(odd, [p[2::2] for p in parts])
        else:
            even = combine([p[:-1] for p in odd], [p[2::2] for p in parts]) if length > 2 else []
        even = [cat((p[:1], e)) for p, e in zip(parts, even, strict=True)] if even else [p[:1] for p in parts]
        return [_interleaved(a, b, stack, cat) for a, b in zip(even, odd, strict=True)]

    found = prefixes(moved)
    if reverse:
        found = [flip(t, (0,)) for t in found]
    return unflatten(tree, iter([t.movedim(0, dim) for t in found]))


def _interleaved(even: Tensor, odd: Tensor, stack: Any, cat: Any) -> Tensor:
    """even[0], odd[0], even[1], ..."""
    count = odd.shape[0]
    made: Tensor = stack((even[:count], odd), 1).flatten(0, 1)
    return made if even.shape[0] == count else cat((made, even[count:]))


__all__ = ["associative_scan", "cond", "scan", "while_loop"]
