"""The control-flow operators: `cond`, `while_loop` and `scan`, whose branches and bodies are regions.

Their derivatives are such operators again: the backward of a branch is the branch of the backwards, and the backward of
a scan is a scan the other way, over the carries that came in at each step. Both compute the forward anew, from the
operands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphtorch.autodiff.flow import reached_inputs, scanned_inputs
from graphtorch.autodiff.gradient import lookup_full_args
from graphtorch.autodiff.reverse import append_gradients
from graphtorch.ir.equality import same_type
from graphtorch.ir.graph import Graph, Value, copy_graph
from graphtorch.ir.passes import DeadCodeElimination
from graphtorch.ir.region import Region
from graphtorch.ops.build import FUNCTIONS, operator
from graphtorch.ops.record import lookup
from graphtorch.tensor.remote import DeviceArray, duplicate, overwrite, plain, readable, runtime
from graphtorch.tensor.symint import same_shape
from graphtorch.tensor.type import TensorType, type_of


def _check_inputs(name: str, region: Any, operands: Sequence[TensorType]) -> list[TensorType]:
    """The types of a region's outputs, if it takes these operands."""
    if type(region) is not Region:
        raise TypeError(f"{name}: expected a region, got {type(region).__name__}")
    wanted = [v.type for v in region.graph.inputs]
    if len(wanted) != len(operands) or not all(map(same_type, wanted, operands)):
        raise RuntimeError(
            f"{name}: the region takes ({', '.join(map(str, wanted))}), the operands are "
            f"({', '.join(map(str, operands))})"
        )
    return [v.type for v in region.graph.outputs]


def _types(operands: Any) -> list[TensorType]:
    return [type_of(o) for o in operands]


def _copies(arrays: Sequence[Any], operands: Sequence[Any]) -> list[Any]:
    """Arrays in memory of their own, on the device where they are."""
    found = [a if isinstance(a, np.ndarray) else np.asarray(a) for a in arrays]
    return [duplicate(a) if any(np.may_share_memory(plain(a), plain(o)) for o in operands) else a for a in found]


def _holds(pred: Any) -> bool:
    """A predicate's value; waits for a device that it lies on."""
    return bool(np.asarray(readable(pred)).reshape(()).item())


def _backward(region: Region, wanted: Sequence[int], flowing: Sequence[int], name: str) -> Region:
    """The region from a region's inputs, and the cotangents of its outputs `flowing`, to those of its inputs
    `wanted`."""
    graph = copy_graph(region.graph)
    graph.name = name
    outputs = [graph.outputs[i] for i in flowing]
    inputs = [graph.inputs[i] for i in wanted]
    given = [graph.add_input(v.type) for v in outputs]
    _name_inputs(graph)
    found = append_gradients(graph, outputs, given, inputs)
    graph.outputs, graph.output_names = [], []
    for i, (value, cotangent) in enumerate(zip(inputs, found, strict=True)):
        if cotangent is None:
            (cotangent,) = graph.add(lookup("full"), lookup_full_args(value.type), origin="nothing flows to it")
        graph.add_output(cotangent, f"cotangent{i}")
    return Region(DeadCodeElimination().run(graph))


def _read(region: Region) -> list[int]:
    """The inputs that a region needs: those of a backward are often few, and each one that it is given counts as one
    that its results depend on."""
    graph = region.graph
    wanted = {v for n in graph.nodes for v in n.operands()} | set(graph.outputs)
    return [i for i, v in enumerate(graph.inputs) if v in wanted]


def _only(region: Region, kept: Sequence[int]) -> Region:
    """The region with these of its inputs."""
    graph = copy_graph(region.graph)
    graph.inputs = [graph.inputs[i] for i in kept]
    _name_inputs(graph)
    return Region(graph)


def _tuple(results: Any) -> tuple[Any, ...]:
    return results if isinstance(results, tuple) else (results,)


def _differentiable(operands: Sequence[Any]) -> list[int]:
    return [i for i, o in enumerate(operands) if o.dtype.is_differentiable and not o.is_number]


# -- cond -------------------------------------------------------------------------------------------------------------


def _cond_type(pred: Any, operands: Any, then: Any, otherwise: Any) -> tuple[TensorType, ...]:
    if pred.dtype.name != "bool" or not all(type(n) is int and n == 1 for n in pred.shape):
        raise RuntimeError(f"cond: expected a predicate of one bool, got {type_of(pred)}")
    given = _types(operands)
    found, others = (_check_inputs("cond", region, given) for region in (then, otherwise))
    if len(found) != len(others) or not all(map(same_type, found, others)):
        raise RuntimeError(
            f"cond: the branches give ({', '.join(map(str, found))}) and ({', '.join(map(str, others))})"
        )
    return tuple(found)


def _numpy_cond(pred: Any, operands: Any, then: Region, otherwise: Region) -> Any:
    chosen = then if _holds(pred) else otherwise
    return tuple(_copies(chosen.run(operands), operands))


def _cond_backward(gs: Any, pred: Any, operands: Any, then: Any, otherwise: Any) -> Any:
    flowing = [i for i, g in enumerate(gs) if g is not None]
    reached: set[int] = set()
    for region in (then, otherwise):
        found_inputs = reached_inputs(region.graph)
        reached.update(*(found_inputs[i] for i in flowing))
    wanted = [i for i in _differentiable(operands) if i in reached]
    if not wanted:
        return (None,) * len(operands)
    regions = (
        _backward(then, wanted, flowing, "backward_of_then"),
        _backward(otherwise, wanted, flowing, "backward_of_otherwise"),
    )
    given = (*operands, *(gs[i] for i in flowing))
    read = sorted({i for region in regions for i in _read(region)})
    made = cond(pred, tuple(given[i] for i in read), *(_only(region, read) for region in regions))
    found = dict(zip(wanted, _tuple(made), strict=True))
    return tuple(found.get(i) for i in range(len(operands)))


cond = operator(
    "cond(Tensor pred, Tensor[] operands, any then, any otherwise) -> (results)",
    type=_cond_type,
    numpy=_numpy_cond,
    derivative={"operands": _cond_backward},
    public=False,
    method=False,
    doc="The results of the region `then` if `pred` is true, else of `otherwise`; both take all operands.",
)


# -- while_loop -------------------------------------------------------------------------------------------------------


def _while_type(carried: Any, extra: Any, condition: Any, body: Any) -> tuple[TensorType, ...]:
    given = _types((*carried, *extra))
    asked = _check_inputs("while_loop", condition, given)
    if len(asked) != 1 or asked[0].dtype.name != "bool" or not all(type(n) is int and n == 1 for n in asked[0].shape):
        raise RuntimeError(f"while_loop: expected the condition to give one bool, got ({', '.join(map(str, asked))})")
    found = _check_inputs("while_loop", body, given)
    if len(found) != len(carried) or not all(map(same_type, found, given)):
        raise RuntimeError(
            f"while_loop: the body gives ({', '.join(map(str, found))}), it is called with "
            f"({', '.join(map(str, given[: len(carried)]))})"
        )
    return tuple(found)


def _numpy_while(carried: Any, extra: Any, condition: Region, body: Region) -> Any:
    now = list(carried)
    while _holds(condition.run([*now, *extra])[0]):
        now = _copies(body.run([*now, *extra]), (*now, *extra))
    return tuple(now)


while_loop = operator(
    "while_loop(Tensor[] carried, Tensor[] extra, any condition, any body) -> (results)",
    type=_while_type,
    numpy=_numpy_while,
    public=False,
    method=False,
    doc="Applies the region `body` to the carried values, and `extra`, as long as `condition` gives true for them.",
)


# -- scan -------------------------------------------------------------------------------------------------------------


def _scan_type(init: Any, xs: Any, extra: Any, body: Any) -> tuple[TensorType, ...]:
    if not xs:
        raise RuntimeError("scan: expected at least one tensor to scan over")
    length = xs[0].shape[0]
    for x in xs:
        if not same_shape((x.shape[0],), (length,)):
            raise RuntimeError(f"scan: the tensors to scan over have {length} and {x.shape[0]} steps")
    carry = _types(init)
    steps = [type_of(x).with_shape(tuple(x.shape)[1:]) for x in xs]
    found = _check_inputs("scan", body, [*carry, *steps, *_types(extra)])
    if not all(map(same_type, found, carry)) or len(found) < len(carry):
        raise RuntimeError(
            f"scan: the body gives the carry ({', '.join(map(str, found[: len(carry)]))}), it is called with "
            f"({', '.join(map(str, carry))})"
        )
    return (*found[: len(carry)], *(t.with_shape((length, *t.shape)) for t in found[len(carry) :]))


def _numpy_scan(init: Any, xs: Any, extra: Any, body: Region) -> Any:
    carry, stacked = list(init), None
    length = len(xs[0])
    for step in range(length):
        given = [*carry, *(x[step, ...] for x in xs), *extra]
        found = body.run(given)
        if stacked is None:
            stacked = _empty(length, found[len(init) :])
        for target, y in zip(stacked, found[len(init) :], strict=True):
            overwrite(target[step, ...], y)
        carry = _copies(found[: len(init)], given)
    if stacked is None:  # of no steps: one on zeros says which shapes there would be
        zeros = [np.zeros(x.shape[1:], x.dtype) for x in xs]
        stacked = _empty(0, body.run([*init, *zeros, *extra])[len(init) :])
    return (*carry, *stacked)


def _empty(length: int, steps: Sequence[Any]) -> list[Any]:
    """Arrays for so many steps, on the device where the steps are."""
    return [
        runtime().empty((length, *y.shape), y.dtype, y.place)
        if type(y) is DeviceArray
        else np.empty((length, *np.shape(y)), np.asarray(y).dtype)
        for y in steps
    ]


def _scan_backward(gs: Any, init: Any, xs: Any, extra: Any, body: Any) -> tuple[list[Any], list[Any], list[Any]]:
    """The cotangents of init, xs and extra."""
    count, steps = len(init), len(xs)
    # The carries that came in at each step.
    forward = copy_graph(body.graph)
    forward.name = "forward_with_carries"
    forward.outputs = [*forward.outputs[:count], *forward.inputs[:count]]
    forward.output_names = [f"carry{i}" for i in range(count)] + [f"incoming{i}" for i in range(count)]
    incoming = _tuple(scan(init, xs, extra, Region(forward)))[count:] if count else ()

    carried = _differentiable(init)
    scanned = _differentiable(xs)
    shared = _differentiable(extra)
    wanted = [*carried, *(count + i for i in scanned), *(count + steps + i for i in shared)]
    results = body.graph.outputs
    flowing = [
        i
        for i, v in enumerate(results)
        if (i < count and i in carried) or (i >= count and gs[i] is not None and v.type.dtype.is_differentiable)
    ]
    zeros, flip = FUNCTIONS["zeros_like"], FUNCTIONS["flip"]
    start = [zeros(init[i]) if gs[i] is None else gs[i] for i in carried]
    sums = [zeros(extra[i]) for i in shared]
    inner = count + steps + len(extra)
    back = _reordered(_backward(body, wanted, flowing, "backward_of_step"), carried, shared, inner, len(extra))
    over = (*incoming, *xs, *(gs[i] for i in flowing if i >= count))
    found_inputs = scanned_inputs(body.graph, count)
    reached: set[int] = set().union(*(found_inputs[i] for i, g in enumerate(gs) if g is not None))
    if not over[len(incoming) :] or not reached:
        return [None] * count, [None] * steps, [None] * len(extra)
    kept, read, held = len(start) + len(sums), set(_read(back)), len(start) + len(sums) + len(over)
    steps_read = [i for i in range(kept, held) if i in read]
    extra_read = [i for i in range(held, held + len(extra)) if i in read]
    given = [flip(over[i - kept], (0,)) for i in steps_read]
    body_back = _only(back, [*range(kept), *steps_read, *extra_read])
    if not given:  # it runs as many steps all the same
        given = [FUNCTIONS["zeros"]((xs[0].shape[0],), device=xs[0].device)]
        body_back.graph.inputs.insert(kept, Value(type_of(given[0]).with_shape(())))
        _name_inputs(body_back.graph)
    found = _tuple(scan((*start, *sums), tuple(given), tuple(extra[i - held] for i in extra_read), body_back))
    of_init = dict(zip(carried, found, strict=False))
    of_extra = dict(zip(shared, found[len(carried) :], strict=False))
    of_xs = dict(zip(scanned, found[len(carried) + len(shared) :], strict=True))
    return (
        [of_init.get(i) if i in reached else None for i in range(count)],
        [flip(of_xs[i], (0,)) if i in of_xs and count + i in reached else None for i in range(steps)],
        [of_extra.get(i) if count + steps + i in reached else None for i in range(len(extra))],
    )


def _reordered(backward: Region, carried: Sequence[int], shared: Sequence[int], inner: int, extras: int) -> Region:
    """The backward of a step as the body of a scan.

    From (carry, x, extra, cotangents of carry and ys) -> (of carry, of x, of extra) to (cotangents of carry, sums for
    extra; carry, x, cotangents of ys; extra) -> (cotangents of carry, sums; cotangents of x). `inner`: how many inputs
    the step has, the last `extras` of them shared by all steps."""
    source = copy_graph(backward.graph)
    cotangents = source.inputs[inner:]
    extra = source.inputs[inner - extras : inner]
    graph = Graph(source.name, nodes=source.nodes)
    sums = [Value(extra[i].type) for i in shared]
    graph.inputs = [
        *cotangents[: len(carried)],
        *sums,
        *source.inputs[: inner - extras],
        *cotangents[len(carried) :],
        *extra,
    ]
    _name_inputs(graph)
    of_carry = source.outputs[: len(carried)]
    of_xs = source.outputs[len(carried) : len(source.outputs) - len(shared)]
    of_extra = source.outputs[len(source.outputs) - len(shared) :]
    add = lookup("add")
    defaults = [p.default for p in add.parameters[2:]]
    totals = [graph.add(add, (total, value, *defaults))[0] for total, value in zip(sums, of_extra, strict=True)]
    for i, value in enumerate((*of_carry, *totals, *of_xs)):
        graph.add_output(value, f"out{i}")
    return Region(graph)


def _name_inputs(graph: Graph) -> None:
    """Names that differ, whatever the graph was made of."""
    for i, value in enumerate(graph.inputs):
        value.name = f"in{i}"
    graph.input_kinds = ["argument"] * len(graph.inputs)


scan = operator(
    "scan(Tensor[] init, Tensor[] xs, Tensor[] extra, any body) -> (results)",
    type=_scan_type,
    numpy=_numpy_scan,
    derivative={
        "init": lambda gs, init, xs, extra, body: tuple(_scan_backward(gs, init, xs, extra, body)[0]),
        "xs": lambda gs, init, xs, extra, body: tuple(_scan_backward(gs, init, xs, extra, body)[1]),
        "extra": lambda gs, init, xs, extra, body: tuple(_scan_backward(gs, init, xs, extra, body)[2]),
    },
    public=False,
    method=False,
    doc="""Runs the region `body` on each step of `xs`, first dimension first, from the carry `init`, with `extra` the
    same for all steps: (carry, x, extra) -> (carry, y). Gives the last carry and the stacked ys.""",
)
COND, WHILE_LOOP, SCAN = lookup("cond"), lookup("while_loop"), lookup("scan")
