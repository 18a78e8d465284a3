"""Index maps: how the elements of a view lie in a buffer, and where in a loop nest a value is computed.

Two representations of the same thing, for the two directions in which fusion follows a chain of views:

    Layout      pulls back: element i of the view is the buffer's element offset + sum(strides[d] * i[d])
    Placement   pushes forward: dimension d of a value runs over a tuple of loops, most significant first, so that its
                index is a mixed-radix number of loop counters ((l1 * |l2| + l2) * |l3| + l3 ...)

A placement makes reshapes trivial: splitting a dimension splits a loop, merging dimensions concatenates their loops.
Loops form a union-find with refinement: a loop may be merged into an equal one or split into two, and whatever refers
to it sees its leaves from then on. Splitting never loses anything: adjacent loops are coalesced again when the kernel
is built.

Sizes are ints or symbolic; they are only compared structurally, so that scheduling narrows nothing that capture left
open.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from graphtorch.ir.builder import hint
from graphtorch.ir.graph import Node
from graphtorch.tensor.symint import same_shape, same_size
from graphtorch.tensor.type import TensorType

# -- sizes ------------------------------------------------------------------------------------------------------------


def is_one(size: Any) -> bool:
    """Whether a size is the int 1 (symbolic sizes are at least 2)."""
    return type(size) is int and size == 1


def same_type(a: TensorType, b: TensorType) -> bool:
    """Equality of types that records no guard."""
    return a.dtype is b.dtype and a.is_number == b.is_number and a.device == b.device and same_shape(a.shape, b.shape)


def exact_quotient(a: Any, b: Any) -> Any:
    """a / b where it is known to be whole, else None."""
    if type(a) is int and type(b) is int:
        return a // b if b and a % b == 0 else None
    if same_size(a, b):
        return 1
    quotient = a // b
    return quotient if same_size(quotient * b, a) else None


def estimate(size: Any) -> int:
    """An example value of a size, for cost limits: its hint, or a middling number where it has none."""
    if type(size) is int:
        return size
    known = size.hint
    return 1024 if known is None else int(known)


def product(sizes: Sequence[Any]) -> Any:
    """The product of sizes."""
    total: Any = 1
    for size in sizes:
        total = total * size
    return total


def row_major(shape: Sequence[Any]) -> tuple[Any, ...]:
    """The strides of a contiguous array, in elements. An empty dimension counts as one, as in NumPy: a stride of 0
    would say that another dimension repeats its elements."""
    strides: list[Any] = []
    step: Any = 1
    for size in reversed(shape):
        strides.append(step)
        step = step * (1 if type(size) is int and size == 0 else size)
    strides.reverse()
    return tuple(strides)


# -- layouts ----------------------------------------------------------------------------------------------------------


class Layout(NamedTuple):
    """A strided view of a contiguous buffer; strides and offset in elements."""

    shape: tuple[Any, ...]
    strides: tuple[Any, ...]
    offset: Any = 0

    @property
    def is_contiguous(self) -> bool:
        """Row-major from its offset on; the strides of dimensions of size 1 do not matter."""
        step: Any = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if is_one(size):
                continue
            if not same_size(stride, step):
                return False
            step = step * size
        return True


def contiguous(shape: tuple[Any, ...]) -> Layout:
    """The layout of a whole buffer."""
    return Layout(shape, row_major(shape))


def broadcast_layout(layout: Layout, shape: tuple[Any, ...]) -> Layout:
    """Dimensions of size 1 and missing leading ones repeat: stride 0.

    A symbolic size that was 1 at capture, and broadcast, is 1 at every call: that was a guard.
    """
    if same_shape(layout.shape, shape):
        return layout
    extra = len(shape) - len(layout.shape)
    strides: list[Any] = [0] * extra
    for own, size, stride in zip(layout.shape, shape[extra:], layout.strides, strict=True):
        repeats = (is_one(own) and not is_one(size)) or hint(own) != hint(size)
        strides.append(0 if repeats else stride)
    return Layout(shape, tuple(strides), layout.offset)


def reshape_layout(layout: Layout, shape: tuple[Any, ...]) -> Layout | None:
    """The layout under another shape; None where only a copy could have it.

    Law: old dimensions whose elements lie at one constant step form a run; a new dimension must divide what is left of
    the current run.
    """
    if any(type(s) is int and s == 0 for s in layout.shape):
        return Layout(shape, row_major(shape), layout.offset)
    runs: list[tuple[Any, Any]] = []
    for size, stride in zip(layout.shape, layout.strides, strict=True):
        if is_one(size):
            continue
        if runs and same_size(runs[-1][1], stride * size):
            runs[-1] = (runs[-1][0] * size, stride)
        else:
            runs.append((size, stride))
    runs.reverse()
    strides: list[Any] = []
    left: Any = 1
    step: Any = 1
    for size in shape:
        if is_one(size):
            strides.append(0)
            continue
        if is_one(left):
            if not runs:
                return None
            left, step = runs.pop()
        left = exact_quotient(left, size)
        if left is None:
            return None
        strides.append(left * step)
    if runs or not is_one(left):
        return None
    for i in reversed(range(len(shape))):  # a dimension of size 1 is as far as all of the next one, as in PyTorch
        if is_one(shape[i]):
            strides[i] = shape[i + 1] * strides[i + 1] if i + 1 < len(shape) else 1
    return Layout(shape, tuple(strides), layout.offset)


def _permute_layout(layout: Layout, node: Node) -> Layout:
    dims = node.args[1]
    return Layout(node.results[0].shape, tuple(layout.strides[d] for d in dims), layout.offset)


def _slice_layout(layout: Layout, node: Node) -> Layout:
    _, dim, start, _, step = node.args
    strides = list(layout.strides)
    offset = layout.offset + start * strides[dim]
    strides[dim] = strides[dim] * step
    return Layout(node.results[0].shape, tuple(strides), offset)


def _select_layout(layout: Layout, node: Node) -> Layout:
    _, dim, index = node.args
    strides = layout.strides
    return Layout(node.results[0].shape, strides[:dim] + strides[dim + 1 :], layout.offset + index * strides[dim])


def _flip_layout(layout: Layout, node: Node) -> Layout:
    strides = list(layout.strides)
    offset = layout.offset
    for dim in node.args[1]:
        offset = offset + (layout.shape[dim] - 1) * strides[dim]
        strides[dim] = -strides[dim]
    return Layout(layout.shape, tuple(strides), offset)


def _diagonal_layout(layout: Layout, node: Node) -> Layout:
    _, shift, dim1, dim2 = node.args
    strides = layout.strides
    rest = tuple(s for i, s in enumerate(strides) if i != dim1 and i != dim2)
    offset = layout.offset + (shift * strides[dim2] if shift >= 0 else -shift * strides[dim1])
    return Layout(node.results[0].shape, (*rest, strides[dim1] + strides[dim2]), offset)


def _unfold_layout(layout: Layout, node: Node) -> Layout:
    _, dim, _, step = node.args
    if not layout.shape:
        return Layout(node.results[0].shape, (1,), layout.offset)
    strides = list(layout.strides)
    strides[dim] = strides[dim] * step
    return Layout(node.results[0].shape, (*strides, layout.strides[dim]), layout.offset)


def _as_strided_layout(layout: Layout, node: Node) -> Layout | None:
    _, size, stride, offset, _ = node.args
    # `stride` counts in the operand's own memory, which is known only where that is row-major.
    return Layout(size, stride, layout.offset + offset) if layout.is_contiguous else None


_LAYOUTS: dict[str, Callable[[Layout, Node], Layout | None]] = {
    "permute": _permute_layout,
    "expand": lambda layout, node: broadcast_layout(layout, node.results[0].shape),
    "view": lambda layout, node: reshape_layout(layout, node.results[0].shape),
    "slice": _slice_layout,
    "select": _select_layout,
    "flip": _flip_layout,
    "diagonal": _diagonal_layout,
    "unfold": _unfold_layout,
    "as_strided": _as_strided_layout,
}


def is_index_map(node: Node) -> bool:
    """Whether a node only renumbers elements, so that it needs no code of its own: views, and `flip`."""
    op = node.op
    if not op.is_view:
        return op.name == "flip"
    if op.name == "as_strided":
        operand, input_stride = node.args[0], node.args[4]
        return input_stride is None or Layout(operand.shape, input_stride).is_contiguous
    return op.name in _LAYOUTS or is_identity(node)


def is_identity(node: Node) -> bool:
    """A view without attributes and with its operand's type (`detach`, `alias`)."""
    return len(node.args) == 1 and len(node.results) == 1 and same_type(node.results[0].type, node.args[0].type)


def view_layout(layout: Layout, node: Node) -> Layout | None:
    """Apply a view node to the layout of its operand. None: not affine, the operand must be copied to row-major order
    first."""
    rule = _LAYOUTS.get(node.op.name)
    return layout if rule is None else rule(layout, node)


# -- loops and placements ---------------------------------------------------------------------------------------------


class Loop:
    """One loop of a kernel under construction. `owner` is its group; None for a free loop, which a broadcast made."""

    __slots__ = ("merged", "owner", "parts", "size")

    def __init__(self, size: Any, owner: Any = None) -> None:
        self.size = size
        self.owner = owner
        self.merged: Loop | None = None
        self.parts: tuple[Loop, Loop] | None = None

    def split(self, inner: Any) -> tuple[Loop, Loop] | None:
        """Refine into (outer, inner) loops with `inner` iterations of the latter; None if it does not divide the
        size."""
        outer = exact_quotient(self.size, inner)
        if outer is None:
            return None
        self.parts = (Loop(outer, self.owner), Loop(inner, self.owner))
        return self.parts


Loops = tuple[Loop, ...]
Placement = tuple[Loops, ...]
Bindings = dict[Loop, Loop]


def leaves(loops: Sequence[Loop], bindings: Bindings) -> list[Loop]:
    """The loops that stand for `loops` now, after merges, splits and the trial `bindings`."""
    found: list[Loop] = []
    for loop in loops:
        _leaves(loop, bindings, found)
    return found


def _leaves(loop: Loop, bindings: Bindings, found: list[Loop]) -> None:
    while True:
        if loop.merged is not None:
            loop = loop.merged
        elif loop in bindings:
            loop = bindings[loop]
        else:
            break
    if loop.parts is None:
        found.append(loop)
    else:
        _leaves(loop.parts[0], bindings, found)
        _leaves(loop.parts[1], bindings, found)


_NO_BINDINGS: Bindings = {}


def resolve(loops: Loops) -> Loops:
    """The leaves of loops, without trial bindings."""
    for loop in loops:
        if loop.merged is not None or loop.parts is not None:
            return tuple(leaves(loops, _NO_BINDINGS))
    return loops


def fresh(shape: Sequence[Any], owner: Any = None) -> Placement:
    """New loops, one a dimension (none for a dimension of size 1)."""
    return tuple(() if is_one(size) else (Loop(size, owner),) for size in shape)


def broadcast_placement(placement: Placement, own: tuple[Any, ...], shape: tuple[Any, ...]) -> Placement:
    """Dimensions of size 1 and missing leading ones become free loops."""
    if own is shape or own == shape:
        return placement
    extra = len(shape) - len(own)
    dims = [*fresh(shape[:extra])]
    for loops, old, size in zip(placement, own, shape[extra:], strict=True):
        dims.append((Loop(size),) if is_one(old) and not is_one(size) else loops)
    return tuple(dims)


def reshape_placement(placement: Placement, shape: tuple[Any, ...]) -> Placement | None:
    """The same loops grouped into other dimensions, splitting a loop where a dimension ends inside it; None where none
    does so evenly."""
    if any(type(s) is int and s == 0 for s in shape):
        return None
    queue = leaves([loop for dim in placement for loop in dim], _NO_BINDINGS)
    queue.reverse()
    dims: list[Loops] = []
    for size in shape:
        dim: list[Loop] = []
        left = size
        while not is_one(left):
            if not queue:
                return None
            loop = queue.pop()
            rest = exact_quotient(left, loop.size)
            if rest is None:
                inner = exact_quotient(loop.size, left)
                parts = None if inner is None else loop.split(inner)
                if parts is None:
                    return None
                queue.append(parts[1])
                loop, rest = parts[0], 1
            dim.append(loop)
            left = rest
        dims.append(tuple(dim))
    return tuple(dims) if not queue else None


def view_placement(placement: Placement, node: Node) -> Placement | None:
    """Push a placement forward through a view node. None for a view that is no bijection up to broadcasting (slices,
    windows)."""
    name = node.op.name
    if name == "permute":
        return tuple(placement[d] for d in node.args[1])
    if name == "expand":
        return broadcast_placement(placement, node.args[0].shape, node.results[0].shape)
    if name == "view":
        return reshape_placement(placement, node.results[0].shape)
    return placement if is_identity(node) else None


def match(a: Sequence[Loop], b: Sequence[Loop], bindings: Bindings) -> str | None:
    """Make two loop sequences the same, by trial bindings and splits. Returns why that is impossible, or None.

    Law: two loops may be identified if their sizes are equal and not both already belong to one group: there, distinct
    loops have distinct counters, and identifying them would compute only a diagonal.
    """
    left, right = leaves(a, bindings), leaves(b, bindings)
    while left and right:
        x, y = left.pop(), right.pop()
        if x is y:
            continue
        if not same_size(x.size, y.size):
            if (parts := x.split(y.size)) is not None:
                left.append(parts[0])
                x = parts[1]
            elif (parts := y.split(x.size)) is not None:
                right.append(parts[0])
                y = parts[1]
            else:
                return f"sizes {x.size} and {y.size} have no common loop"
        if x.owner is not None and x.owner is y.owner:
            return "reads it at another index"
        # Free loops give way to owned ones, later groups to earlier ones.
        if x.owner is None:
            bindings[x] = y
        else:
            bindings[y] = x
        left, right = leaves(left, bindings), leaves(right, bindings)
    return None if not left and not right else "sizes differ"


def loop_strides(placement: Placement, strides: Sequence[Any]) -> dict[Loop, Any]:
    """The stride along each loop of a layout whose dimensions run over `placement` (resolved)."""
    found: dict[Loop, Any] = {}
    for dim, stride in zip(placement, strides, strict=True):
        if type(stride) is int and stride == 0:
            continue
        step = stride
        for loop in reversed(dim):
            found[loop] = found[loop] + step if loop in found else step
            step = step * loop.size
    return found
