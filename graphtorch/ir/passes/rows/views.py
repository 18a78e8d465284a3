"""Rows on views: one view instead of several, none where it changes nothing."""

from __future__ import annotations

from graphtorch.ir.graph import Node, Value
from graphtorch.ir.passes.rows.table import row
from graphtorch.ir.rewrite import ROUNDING, Rewriter, producer
from graphtorch.tensor.symint import same_shape, same_size

_RESHAPES = ("view", "squeeze", "unsqueeze")
_PERMUTES = ("permute", "transpose", "t")


def _dims(node: Node) -> tuple[int, ...]:
    """The permutation that a permute, transpose or t applies."""
    rank = node.args[0].ndim
    if node.op.name == "permute":
        dims: tuple[int, ...] = node.args[1]
        return dims
    order = list(range(rank))
    if node.op.name == "t":
        order.reverse()
    elif rank:
        first, second = node.args[1:]
        order[first], order[second] = order[second], order[first]
    return tuple(order)


@row(*_PERMUTES, law="a permutation that moves nothing is the value")
def permute_identity(r: Rewriter, node: Node) -> Value | None:
    dims = _dims(node)
    return r.like(node, node.args[0]) if dims == tuple(range(len(dims))) else None


@row(*_PERMUTES, law="permute(permute(x, p), q) = permute(x, q then p)")
def permute_permute(r: Rewriter, node: Node) -> Value | None:
    inner = producer(node.args[0], *_PERMUTES)
    if inner is None:
        return None
    first, second = _dims(inner), _dims(node)
    return r.emit("permute", inner.args[0], tuple(first[d] for d in second))


@row(*_RESHAPES, law="a view in the shape that a value has is the value")
def view_identity(r: Rewriter, node: Node) -> Value | None:
    x = node.args[0]
    return x if same_shape(x.shape, node.result.shape) else None


@row(*_RESHAPES, law="view(view(x, s), t) = view(x, t)")
def view_view(r: Rewriter, node: Node) -> Value | None:
    inner = producer(node.args[0], *_RESHAPES)
    return None if inner is None else r.view(inner.args[0], node.result.shape)


@row("expand", law="an expand to the shape that a value has is the value")
def expand_identity(r: Rewriter, node: Node) -> Value | None:
    x = node.args[0]
    return x if same_shape(x.shape, node.result.shape) else None


@row("expand", law="expand(expand(x, s), t) = expand(x, t)")
def expand_expand(r: Rewriter, node: Node) -> Value | None:
    inner = producer(node.args[0], "expand")
    return None if inner is None else r.emit("expand", inner.args[0], node.result.shape)


@row("slice", law="a slice of everything is the value")
def slice_identity(r: Rewriter, node: Node) -> Value | None:
    x, dim, start, end, step = node.args
    if type(start) is int and start == 0 and type(step) is int and step == 1 and same_size(end, x.shape[dim]):
        return r.like(node, x)
    return None


@row("slice", law="a slice of a slice along the same dimension is one slice")
def slice_slice(r: Rewriter, node: Node) -> Value | None:
    inner = producer(node.args[0], "slice")
    if inner is None or inner.args[1] != node.args[1]:
        return None
    x, dim, first, last, stride = inner.args
    _, _, start, end, step = node.args
    if any(type(a) is not int for a in (first, last, stride, start, end, step)):
        return None
    begin = first + start * stride
    # One past the last element that the outer slice may touch.
    stop = first + (end - 1) * stride + 1 if end > start else begin
    return r.emit("slice", x, dim, begin, stop, stride * step)


@row("select", law="select(unsqueeze(x, d), d, 0) = x")
def select_unsqueeze(r: Rewriter, node: Node) -> Value | None:
    inner = producer(node.args[0], "unsqueeze")
    return r.like(node, inner.args[0]) if inner is not None and inner.args[1] == node.args[1] else None


@row("select", law="select(slice(x, d, a, b, s), d, i) = select(x, d, a + i s)")
def select_slice(r: Rewriter, node: Node) -> Value | None:
    inner = producer(node.args[0], "slice")
    if inner is None or inner.args[1] != node.args[1]:
        return None
    x, dim, start, _, step = inner.args
    return r.emit("select", x, dim, start + node.args[2] * step)


@row("flip", law="flip(flip(x, d), e) flips the dimensions that are in one of d and e; flipping none is the value")
def flip_flip(r: Rewriter, node: Node) -> Value | None:
    dims = node.args[1]
    if not dims:
        return r.like(node, node.args[0])
    inner = producer(node.args[0], "flip")
    if inner is None:
        return None
    left = tuple(sorted(set(dims) ^ set(inner.args[1])))
    return r.emit("flip", inner.args[0], left) if left else r.like(node, inner.args[0])


@row("cat", law="cat((x,)) = x")
def cat_one(r: Rewriter, node: Node) -> Value | None:
    tensors = node.args[0]
    return r.like(node, tensors[0]) if len(tensors) == 1 and not r.needs_memory(node) else None


@row(*_PERMUTES, law="(A B)^T = B^T A^T: the product is stored the way it is used", exactness=ROUNDING)
def transpose_of_product(r: Rewriter, node: Node) -> Value | None:
    product = producer(node.args[0], "mm")
    if product is None or _dims(node) != (1, 0) or r.uses(product) != 1:
        return None
    a, b = product.args
    return r.emit("mm", r.emit("permute", b, (1, 0)), r.emit("permute", a, (1, 0)))
