"""Rows on reductions."""

from __future__ import annotations

import math
from typing import Any

from graphtorch.ir.graph import Node, Value
from graphtorch.ir.passes.rows.table import is_integer_type, is_normal, row
from graphtorch.ir.rewrite import EXTREMES, ROUNDING, Rewriter, producer
from graphtorch.tensor.dtypes import float32, float64
from graphtorch.tensor.symint import at_least, same_size


def _reduced(node: Node) -> tuple[int, ...] | None:
    """The reduced dimensions; None where the arguments don't list them (an empty list may stand for all)."""
    dims = node.args[1]
    return dims if type(dims) is tuple and (dims or node.args[0].ndim == 0) else None


def _is_one_size(size: Any) -> bool:
    return type(size) is int and size == 1


@row("prod", "amax", "amin", law="a product, maximum or minimum over dimensions of size 1 is a view")
def reduction_of_one(r: Rewriter, node: Node) -> Value | None:
    return _of_one(r, node)


@row("sum", "mean", law="a sum or mean over dimensions of size 1 is 0 + a view: sums begin at 0, whose sign a -0 takes")
def sum_of_one(r: Rewriter, node: Node) -> Value | None:
    shown = _of_one(r, node)
    return shown if shown is None or is_integer_type(shown.dtype) else r.emit("add", shown, 0.0)


def _of_one(r: Rewriter, node: Node) -> Value | None:
    x, dims = node.args[0], _reduced(node)
    if dims is None or not all(_is_one_size(x.shape[d]) for d in dims) or x.is_number:
        return None
    if x.dtype is not node.result.dtype:
        if is_integer_type(node.result.dtype) and not is_integer_type(x.dtype):
            return None
        x = r.emit("cast", x, node.result.dtype)
    return r.view(x, node.result.shape)


@row("sum", law="the sum of n equal terms is n times the term (n exact in the dtype, not 0)", exactness=ROUNDING)
def sum_of_expand(r: Rewriter, node: Node) -> Value | None:
    return _of_expand(r, node)


@row("amax", "amin", law="the maximum or minimum of equal terms is the term")
def extremum_of_expand(r: Rewriter, node: Node) -> Value | None:
    return _of_expand(r, node)


def _of_expand(r: Rewriter, node: Node) -> Value | None:
    """Reduce x instead of expand(x): repeated dimensions become a factor, the others are reduced as before."""
    inner, dims = producer(node.args[0], "expand"), _reduced(node)
    if inner is None or dims is None:
        return None
    x, expanded = inner.args[0], inner.result.shape
    extra = len(expanded) - x.ndim
    shape = (1,) * extra + x.shape
    repeated = [d for d in dims if _is_one_size(shape[d]) and not _is_one_size(expanded[d])]
    if not repeated or not all(at_least(expanded[d], 1) for d in repeated):
        return None
    count = math.prod(expanded[d] for d in repeated)
    d = node.result.dtype
    is_sum = node.op.name == "sum"
    if is_sum and not is_integer_type(d):
        if x.dtype is not d or not _exact(count, d):
            return None
    elif is_sum and x.dtype is not d:
        x = r.emit("cast", x, d)
    x = r.view(x, shape)
    rest = tuple(i for i in dims if i not in repeated)
    if rest:
        x = r.emit(node.op.name, x, rest, True)
    if is_sum:
        x = r.emit("mul", x, count)
    # Dimensions that were repeated and are not reduced are repeated still.
    kept = tuple(1 if i in dims else size for i, size in enumerate(expanded))
    if not all(same_size(a, b) for a, b in zip(x.shape, kept, strict=True)):
        x = r.emit("expand", x, kept)
    return r.view(x, node.result.shape)


def _exact(count: Any, d: Any) -> bool:
    """Whether multiplying by the count rounds once: the count is a number of the dtype."""
    if type(count) is not int:
        return d is float32 or d is float64
    return is_normal(float(count), d)


@row("log", law="log(softmax(x)) = log_softmax(x); -inf becomes finite where softmax underflows", exactness=EXTREMES)
def log_of_softmax(r: Rewriter, node: Node) -> Value | None:
    inner = producer(node.args[0], "softmax")
    if inner is None or inner.result.dtype is not node.result.dtype:
        return None
    return r.emit("log_softmax", *inner.args)
