"""Running the tape backwards: `backward` and `grad`.

A node runs when the cotangents of all its results are complete; among the ready ones the most recently recorded goes
first, as in PyTorch's engine. See https://docs.pytorch.org/docs/stable/autograd.html."""

from __future__ import annotations

import heapq
import itertools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphtorch.autograd.graph import AccumulateGrad, Edge, Node, edge_of
from graphtorch.autograd.state import state
from graphtorch.ops.dispatch import quiet
from graphtorch.ops.strides import gradient_strides, laid_out, layout_of
from graphtorch.tensor.devices import CPU
from graphtorch.tensor.remote import DeviceArray, plain, runtime
from graphtorch.tensor.tensor import Tensor


def backward(
    tensors: Tensor | Sequence[Tensor],
    grad_tensors: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    grad_variables: Any = None,
    inputs: Sequence[Tensor] | Tensor | None = None,
) -> None:
    """Add the gradients of `tensors` into the leaves' `.grad`. See torch.autograd.backward.

    Raises RuntimeError for tensors without history, a missing gradient of a non-scalar, and a graph that was freed.
    """
    roots = (tensors,) if isinstance(tensors, Tensor) else tuple(tensors)
    if isinstance(grad_tensors, Tensor) or grad_tensors is None:
        grad_tensors = (grad_tensors,) * len(roots)
    wanted = None if inputs is None else ((inputs,) if isinstance(inputs, Tensor) else tuple(inputs))
    if wanted is not None and not wanted:
        raise RuntimeError("`inputs` argument to `backward` cannot be empty")
    if state.recorder is not None:
        state.recorder.backward(roots, tuple(grad_tensors), retain_graph, create_graph, wanted)
        return
    cotangents = _start(roots, tuple(grad_tensors))
    keep = create_graph if retain_graph is None else retain_graph
    if wanted is None:
        _run(roots, cotangents, keep, create_graph, None)
    else:
        found = _run(roots, cotangents, keep, create_graph, wanted)
        for tensor, gradient in zip(wanted, found, strict=True):
            if gradient is not None:
                accumulate(tensor, gradient, create_graph, fresh=False)


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradients of `outputs` with respect to `inputs`, as a tuple. See torch.autograd.grad.

    Raises RuntimeError for an input that the outputs do not depend on, unless `allow_unused` or `materialize_grads`.
    """
    if materialize_grads and allow_unused is False:
        raise ValueError(
            "Expected allow_unused to be True or not passed when materialize_grads=True, but got: allow_unused=False."
        )
    if is_grads_batched:
        from graphtorch.func import vmap

        given = tuple(grad_outputs) if isinstance(grad_outputs, list | tuple) else (grad_outputs,)
        if any(g is None for g in given):
            raise RuntimeError("is_grads_batched=True needs grad_outputs, with the batch in their first dimension")
        flags = (True, create_graph, only_inputs, allow_unused, False, materialize_grads)
        batched: tuple[Tensor | None, ...] = vmap(lambda *seeds: grad(outputs, inputs, seeds, *flags))(*given)
        return batched
    roots = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
    wanted = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    if isinstance(grad_outputs, Tensor) or grad_outputs is None:
        grad_outputs = (grad_outputs,) * len(roots)
    for tensor in wanted:
        if not tensor.requires_grad:
            raise RuntimeError("One of the differentiated Tensors does not require grad")
    keep = create_graph if retain_graph is None else retain_graph
    found: Sequence[Tensor | None]
    if state.recorder is not None:
        found = state.recorder.grad(roots, wanted, tuple(grad_outputs), keep, create_graph)
    else:
        found = _run(roots, _start(roots, tuple(grad_outputs)), keep, create_graph, wanted)
    results: list[Tensor | None] = []
    for index, (tensor, gradient) in enumerate(zip(wanted, found, strict=True)):
        if gradient is None and materialize_grads:
            gradient = tensor.new_zeros(tensor.shape)
        if gradient is None and not allow_unused:
            raise RuntimeError(
                f"The differentiated Tensor at index {index} appears to not have been used in the graph. Set "
                "allow_unused=True if this is the desired behavior."
            )
        results.append(gradient)
    return tuple(results)


def check_start(root: Tensor, gradient: Tensor | None) -> None:
    """Check a root of backward and the cotangent given for it (None: ones, for a scalar).

    Raises RuntimeError with PyTorch's messages for roots without history and gradients of another shape.
    """
    if not root.requires_grad:
        raise RuntimeError("element 0 of tensors does not require grad and does not have a grad_fn")
    if gradient is None:
        if root.numel() != 1:
            raise RuntimeError("grad can be implicitly created only for scalar outputs")
        if not root.dtype.is_floating_point:
            raise RuntimeError(
                "grad can be implicitly created only for real scalar outputs but got " + repr(root.dtype)
            )
        return
    if not isinstance(gradient, Tensor):
        raise TypeError(f"gradients can be either Tensors or None, but got {type(gradient).__name__}")
    if tuple(gradient.shape) != tuple(root.shape):
        raise RuntimeError(
            f"Mismatch in shape: grad_output[0] has a shape of {gradient.shape} and output[0] has a shape of "
            f"{root.shape}."
        )


def _start(roots: tuple[Tensor, ...], gradients: tuple[Tensor | None, ...]) -> list[Tensor]:
    started: list[Tensor] = []
    for root, gradient in zip(roots, gradients, strict=True):
        check_start(root, gradient)
        if gradient is None and type(root._data) is np.ndarray and root._device is CPU:
            gradient = Tensor._wrap(np.ones(root._data.shape, root._data.dtype), root._dtype)
        elif gradient is None:
            from graphtorch.ops.build import FUNCTIONS

            gradient = FUNCTIONS["full"](tuple(root.shape), 1.0, dtype=root.dtype, device=root.device)
        started.append(gradient)
    return started


def accumulate(variable: Tensor, gradient: Tensor, create_graph: bool, fresh: bool) -> None:
    """Add a gradient into a leaf's `.grad`: in place, unless the gradient itself is to be differentiated.

    `fresh` says that nobody else holds the gradient's memory, so that it may become `.grad` without a copy.
    """
    held = variable._grad
    if held is None:
        other = getattr(gradient._data, "strides", None) != getattr(variable._data, "strides", None)
        if create_graph:
            own = gradient if fresh and not other else gradient.clone()
        else:
            own = gradient._alias() if fresh else gradient.detach().clone()
        if other:
            _lay_out_as(own, variable)
        variable._gradient = own
    elif create_graph:
        variable._gradient = held + gradient
    elif _adds_as_arrays(held, gradient):
        quiet.run(np.add, held._data, gradient._data, held._data)
        held._bump_version()
    else:
        previous = state.grad_enabled
        state.grad_enabled = False
        try:
            held.add_(gradient)
        finally:
            state.grad_enabled = previous


def _adds_as_arrays(held: Tensor, gradient: Tensor) -> bool:
    """Whether adding to a `.grad` in place is no more than NumPy's addition of two arrays."""
    a, b = held._data, gradient._data
    return (
        type(a) is np.ndarray
        and type(b) is np.ndarray
        and held._device is CPU
        and a.dtype == b.dtype
        and a.dtype.itemsize > 2
        and a.shape == b.shape
        and a.flags.c_contiguous
        and a.flags.writeable
        and not held._inference
        and not held._requires_grad
    )


def _lay_out_as(gradient: Tensor, variable: Tensor) -> None:
    """Give a gradient the strides of its leaf, if that lies without gaps: PyTorch's contract of gradient layouts."""
    on_cpu = gradient._device is CPU and variable._device is CPU and type(gradient._data) is np.ndarray
    if not on_cpu and not (type(gradient._data) is DeviceArray and type(variable._data) is DeviceArray):
        return
    strides = gradient_strides(*layout_of(plain(variable._data)))
    if on_cpu:
        gradient._data = laid_out(gradient._data, strides)
    else:
        steps = tuple(s * gradient._data.itemsize for s in strides)
        if gradient._data.strides != steps and gradient._data.size > 1:
            gradient._data = runtime().with_strides(gradient._data, steps)


def _run(
    roots: tuple[Tensor, ...],
    cotangents: list[Tensor],
    keep: bool,
    create_graph: bool,
    wanted: tuple[Tensor, ...] | None,
) -> list[Tensor | None]:
    """Propagate cotangents. With `wanted`, return the cotangents of those tensors and accumulate nowhere."""
    edges = [edge_of(root) for root in roots]
    captures: dict[Node, list[tuple[int, int]]] = {}  # a node's result -> position among those wanted
    if wanted is not None:
        for i, tensor in enumerate(wanted):
            edge = edge_of(tensor)
            if edge is not None:  # no gradient flows to a view that was made under no_grad
                captures.setdefault(edge.node, []).append((edge.place, i))
    found: list[Tensor | None] = [None] * (0 if wanted is None else len(wanted))
    if wanted is not None and not captures:
        return found

    pending, needed = _dependencies([e.node for e in edges if e is not None], set(captures) if captures else None)
    buffers: dict[Node, list[Tensor | None]] = {}
    ready: list[tuple[int, int, Node]] = []
    given = {id(c._data) for c in cotangents}  # memory that a `.grad` must not share

    def send(edge: Edge, value: Tensor) -> None:
        slots = buffers.get(edge.node)
        if slots is None:
            slots = buffers[edge.node] = [None] * edge.node.result_count()
        held = slots[edge.place]
        slots[edge.place] = value if held is None else held + value

    for edge, cotangent in zip(edges, cotangents, strict=True):
        if edge is not None:
            send(edge, cotangent)
    arrival = itertools.count()  # leaves have one sequence number: the first one that is complete comes first
    for node in dict.fromkeys(e.node for e in edges if e is not None):
        if pending.get(node, 0) == 0:
            heapq.heappush(ready, (-node.sequence, next(arrival), node))

    previous, autocast = state.grad_enabled, state.autocast
    # A backward pass runs in the dtypes that the forward ran in, whatever surrounds it.
    state.grad_enabled, state.autocast = create_graph, None
    state.passes += 1
    try:
        while ready:
            _, _, node = heapq.heappop(ready)
            slots = buffers.pop(node, None)
            if slots is None:
                slots = [None] * node.result_count()
            if node.tensor_hooks is not None or isinstance(node, AccumulateGrad):
                _tensor_hooks(node, slots)
            if node in captures:
                for index, place in captures[node]:
                    found[place] = slots[index]
            if isinstance(node, AccumulateGrad):
                _accumulate_leaf(node, slots[0], create_graph, given, wanted is None)
                continue
            if needed is not None and node not in needed:
                continue
            idle = all([s is None for s in slots])
            outgoing: Sequence[Tensor | None] = (None,) * len(node.edges) if idle else _apply(node, slots)
            if not (keep or (idle and node.stands_for_many)):
                node.release()
            for edge, value in zip(node.edges, outgoing, strict=True):
                if edge is None:
                    continue
                if value is not None:
                    send(edge, value)
                if edge.node in pending:
                    pending[edge.node] -= 1
                    if pending[edge.node] == 0:
                        heapq.heappush(ready, (-edge.node.sequence, next(arrival), edge.node))
    finally:
        state.grad_enabled, state.autocast = previous, autocast
        state.passes -= 1
        if state.after_pass and not state.passes:
            callbacks, state.after_pass = state.after_pass, ()
            for callback in callbacks:
                callback()
    return found


def running() -> bool:
    """Whether a backward pass runs in this thread."""
    return state.passes > 0


def when_done(callback: Callable[[], Any]) -> None:
    """Call a function once the backward pass that is running is done. Raises RuntimeError if none is."""
    if not state.passes:
        raise RuntimeError("Final callbacks can only be installed during backward pass.")
    state.after_pass = (*state.after_pass, callback)


def _apply(node: Node, slots: list[Tensor | None]) -> Sequence[Tensor | None]:
    if node.prehooks:
        for prehook in tuple(node.prehooks.values()):
            replaced = prehook(tuple(slots))
            if replaced is not None:
                slots = list(replaced) if isinstance(replaced, tuple | list) else [replaced]
    try:
        outgoing = node.apply(slots)
    except RuntimeError as error:
        line = getattr(node, "user_line", "")
        if line:
            raise RuntimeError(f"{error}\n  the forward call of {node.name()} was at {line}") from error
        raise
    if state.anomaly and any(g is not None and bool(g.isnan().any().item()) for g in outgoing):
        line = getattr(node, "user_line", "")
        raise RuntimeError(
            f"Function '{node.name()}' returned nan values in its 0th output."
            + (f"\n  its forward call was at {line}" if line else "")
        )
    if node.hooks:
        for hook in tuple(node.hooks.values()):
            replaced = hook(tuple(outgoing), tuple(slots))
            if replaced is not None:
                outgoing = tuple(replaced) if isinstance(replaced, tuple | list) else (replaced,)
    return outgoing


def _tensor_hooks(node: Node, slots: list[Tensor | None]) -> None:
    if isinstance(node, AccumulateGrad):
        hooks = node.variable._hooks
        if hooks and slots[0] is not None:
            slots[0] = _call_hooks(hooks, slots[0])
        return
    for index, tensor_hooks in (node.tensor_hooks or {}).items():
        value = slots[index]
        if value is not None:
            slots[index] = _call_hooks(tensor_hooks, value)


def _call_hooks(hooks: dict[int, Any], value: Tensor) -> Tensor:
    for hook in tuple(hooks.values()):
        replaced = hook(value)
        if replaced is not None:
            if tuple(replaced.shape) != tuple(value.shape):
                raise RuntimeError(f"hook has changed the size of value: {list(value.shape)} to {list(replaced.shape)}")
            value = replaced
    return value


def _accumulate_leaf(
    node: AccumulateGrad, value: Tensor | None, create_graph: bool, given: set[int], wanted_all: bool
) -> None:
    if value is None or not wanted_all:
        return
    data = value._data
    # An operator's own fresh result is stolen; anything that may be shared (a view, a given cotangent, one array sent
    # to two leaves, a saved value) is copied.
    storage = value._storage
    owned = (
        data.base is None if value._device is CPU else type(data) is DeviceArray and data.nbytes == data.memory.nbytes
    )
    fresh = owned and id(data) not in given and storage is None
    given.add(id(data))
    accumulate(node.variable, value, create_graph, fresh)
    if node.variable._post_accumulate_hooks:
        for hook in tuple(node.variable._post_accumulate_hooks.values()):
            hook(node.variable)


_recorded_at = operator.attrgetter("sequence")


def _dependencies(roots: list[Node], targets: set[Node] | None) -> tuple[dict[Node, int], set[Node] | None]:
    """How many nodes send to each reachable node; and, given targets, the nodes from which some target is reachable."""
    pending: dict[Node, int] = {}
    order: list[Node] = []
    seen: set[Node] = set(roots)
    stack = list(seen)
    while stack:
        node = stack.pop()
        order.append(node)
        for edge in node.edges:
            if edge is not None:
                pending[edge.node] = pending.get(edge.node, 0) + 1
                if edge.node not in seen:
                    seen.add(edge.node)
                    stack.append(edge.node)
    if targets is None:
        return pending, None
    needed: set[Node] = set()
    # Recording order is a topological order: operands are recorded before the calls that use them. Nodes that
    # accumulate have no edges, so that their place does not matter.
    order.sort(key=_recorded_at)
    for node in order:
        for edge in node.edges:
            if edge is not None and (edge.node in targets or edge.node in needed):
                needed.add(node)
                break
    return pending, needed
