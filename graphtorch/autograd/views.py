"""In-place changes of views under autograd.

Changing a view changes its base, so the base's history becomes: cut the viewed region out of the cotangent for what the
base was before, and send that region through the in-place operator. Other views of the base replay their view operators
on it when their history is next asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphtorch.autograd.graph import AccumulateGrad, Edge, Node, OperatorNode, edge_of, renamed
from graphtorch.tensor.tensor import Tensor

Steps = tuple[tuple[Any, tuple[Any, ...]], ...]


def replay(value: Tensor, steps: Steps) -> Tensor:
    """The view of `value` that `steps` describes."""
    from graphtorch.ops.dispatch import call

    for op, attributes in steps:
        # What detach() gives is no view to autograd: changes of the base's history do not reach it.
        value = value.detach() if op.name == "detach" else call(op, (value, *attributes))
    return value


def scatter(base: Tensor, steps: Steps, new: Tensor) -> Tensor:
    """`base` with the viewed elements replaced by `new`, as a value."""
    if not steps:
        return new
    from graphtorch.ops.dispatch import call

    (op, attributes), rest = steps[0], steps[1:]
    inner = new if not rest else scatter(call(op, (base, *attributes)), rest, new)
    result: Tensor = op.scatter(base, inner, *attributes)
    return result


class CopySlices(Node):
    """The history of a base of which a view was changed in place."""

    __slots__ = ("inner", "steps")

    def __init__(self, base_edge: Edge | None, inner: OperatorNode, steps: Steps) -> None:
        # The in-place operator's first operand is the view itself: its cotangent goes back to the old base.
        super().__init__((base_edge, *inner.edges[1:]))
        self.inner = inner
        self.steps = steps

    def name(self) -> str:
        return "torch::autograd::CopySlices"

    def release(self) -> None:
        self.inner.release()

    def apply(self, cotangents: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        g = cotangents[0]
        assert g is not None
        g = g.contiguous()  # the steps fitted the base's memory, a cotangent may lie in any order
        inner_g = replay(g, self.steps)
        to_view, *others = self.inner.apply((inner_g,))
        if self.edges[0] is None:
            return (None, *others)
        cut = inner_g.new_zeros(inner_g.shape) if to_view is None else to_view
        return (scatter(g, self.steps, cut), *others)


def rebase(view: Tensor, node: OperatorNode) -> None:
    """Give the base of a changed view its new history, and the view one that follows from it."""
    base = view._base
    assert base is not None
    if base._requires_grad:
        old = edge_of(base)
        if old is not None and isinstance(old.node, AccumulateGrad):
            raise RuntimeError("a view of a leaf Variable that requires grad is being used in an in-place operation.")
    else:
        old = None
    base._node = CopySlices(old, node, view._steps)
    base._output_index = 0
    base._requires_grad = True
    refresh(view)


class Overlay(Node):
    """The history of a base of which a view got new elements that have a history of their own."""

    __slots__ = ("steps",)

    def __init__(self, base_edge: Edge | None, view_edge: Edge, steps: Steps) -> None:
        super().__init__((base_edge, view_edge))
        self.steps = steps

    def apply(self, cotangents: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        g = cotangents[0]
        assert g is not None
        g = g.contiguous()
        to_view = replay(g, self.steps)
        if self.edges[0] is None:
            return (None, to_view)
        return (scatter(g, self.steps, to_view.new_zeros(to_view.shape)), to_view)


def overlay(view: Tensor, node: Node, index: int) -> None:
    """Record that the elements of a view became output `index` of `node`."""
    base = view._base
    assert base is not None
    base._node = Overlay(edge_of(base), Edge(node, index), view._steps)
    base._output_index = 0
    base._requires_grad = True
    refresh(view)


def stale(view: Tensor) -> bool:
    """Whether a view that was made under no_grad has been changed, or its base has, since."""
    return -1 - view._node_version != view._version


def of_no_grad(view: Tensor, modified: str) -> str:
    """Why a view that was made under no_grad, or a view of one, can't be used: PyTorch's words."""
    node = view._node
    prefix = "A view"
    if node is not None:
        name = node.name().rstrip("0123456789").removesuffix("Backward")
        prefix = f"Output {view._output_index} of {name} is a view of a view which"
    return (
        f"{prefix} was created in no_grad mode and {modified} modified inplace with grad mode enabled. Given that this "
        "use case is ambiguous and error-prone, it is forbidden. You can clarify your code by moving both the view and "
        "the inplace either both inside the no_grad block (if you don't want the inplace to be tracked) or both "
        "outside (if you want the inplace to be tracked)."
    )


def refresh(view: Tensor) -> None:
    """Recompute a view's history from its base's, after the base changed."""
    from graphtorch.autograd.state import state

    base = view._base
    assert base is not None
    if view._node_version < 0:
        if not stale(view) or not view._dtype.is_differentiable:
            return
        raise RuntimeError(of_no_grad(view, "its base or another view of its base has been"))
    view._node_version = view._version
    if not base._requires_grad:
        return
    previous = state.grad_enabled
    state.grad_enabled = True
    try:
        fresh = replay(base, view._steps)
    finally:
        state.grad_enabled = previous
    if (fresh._data.shape, fresh._layout().strides) != (view._data.shape, view._layout().strides):
        raise RuntimeError(
            "the history of a view is asked for whose base changed its geometry in place since (t_, unsqueeze_, ...); "
            "make the view again"
        )
    if fresh is not base and base._dtype is view._dtype:
        renamed(fresh, "AsStridedBackward0")  # what PyTorch's view is from then on
    view._node = fresh._node
    view._output_index = fresh._output_index
    view._requires_grad = True
