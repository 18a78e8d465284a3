"""Rows on arithmetic, comparisons and logic.

Floating-point laws hold to the bit unless a row says otherwise: what is true of real numbers but not of infinities, NaN
or signed zeros (x * 0 = 0, x - x = 0, x / x = 1) is stated for integers only.
"""

from __future__ import annotations

import math
from typing import Any

from graphtorch.ir.graph import Node, Value
from graphtorch.ir.passes.rows.table import (
    is_integer_type,
    is_negative_zero,
    is_normal,
    is_one,
    is_zero,
    number_of,
    row,
)
from graphtorch.ir.rewrite import ROUNDING, Rewriter, producer


def _scaled(node: Node) -> bool:
    """Whether an `add` or `sub` has an alpha other than 1."""
    alpha = node.args[2]
    return type(alpha) is Value or alpha != 1


def _neutral_in_sum(number: Any, x: Any, node: Node) -> bool:
    """Whether x + number is x to the bit."""
    if type(x) is not Value or number is None:
        return False
    result = node.result.dtype
    if is_integer_type(result):
        return bool(number == 0)
    # -0.0 + 0.0 is 0.0, so that 0.0 is neutral only for an x that is never -0.0.
    return not result.is_complex and (is_negative_zero(number) or (is_zero(number) and _never_negative_zero(x)))


def _never_negative_zero(value: Value, depth: int = 4) -> bool:
    """Whether a floating-point value is known not to be -0.0."""
    node = value.node
    if is_integer_type(value.dtype):
        return True  # and so is its conversion to a float
    if node is None or depth == 0:
        return False
    name = node.op.name
    if name in _POSITIVE:
        return True
    if name == "full":
        number = number_of(value)
        return number is not None and not is_negative_zero(number)
    if name == "mul":
        return node.args[0] is node.args[1]  # a square
    if name == "add":
        # A sum is -0.0 only if both terms are.
        return any(type(a) is Value and _never_negative_zero(a, depth - 1) for a in node.args[:2]) and not _scaled(node)
    if name in _SAME_ELEMENTS or (name == "cast" and not is_integer_type(node.args[0].dtype)):
        return _never_negative_zero(node.args[0], depth - 1)
    return False


_POSITIVE = frozenset({"abs", "exp", "sigmoid", "softmax", "square", "cosh"})
_SAME_ELEMENTS = frozenset({"view", "permute", "transpose", "t", "expand", "squeeze", "unsqueeze", "select", "slice"})


@row("add", law="x + 0 = x for integers; for floats x + -0.0 = x, and x + 0.0 = x where x is never -0.0")
def add_zero(r: Rewriter, node: Node) -> Value | None:
    x, y, _ = node.args
    if _scaled(node):
        return None
    if _neutral_in_sum(number_of(y), x, node):
        return r.like(node, x)
    if _neutral_in_sum(number_of(x), y, node):
        return r.like(node, y)
    return None


@row("sub", law="x - 0 = x, for floats too: -0.0 - 0.0 is -0.0")
def sub_zero(r: Rewriter, node: Node) -> Value | None:
    x, y, _ = node.args
    if type(x) is not Value or _scaled(node) or node.result.dtype.is_complex or not is_zero(number_of(y)):
        return None
    return r.like(node, x)


@row("sub", law="x - x = 0 for integers (inf - inf is NaN)")
def sub_self(r: Rewriter, node: Node) -> Value | None:
    x, y, _ = node.args
    if type(x) is Value and x is y and not _scaled(node) and is_integer_type(node.result.dtype):
        return r.full(node, 0)
    return None


@row("add", law="x + -y = x - y, and -x + y = y - x: IEEE defines the difference as this sum")
def add_neg(r: Rewriter, node: Node) -> Value | None:
    x, y, alpha = node.args
    negated = producer(y, "neg")
    if negated is not None and type(x) is Value:
        return _if_same(node, r, "sub", x, negated.args[0], alpha)
    negated = producer(x, "neg")
    if negated is not None and type(y) is Value and not _scaled(node):
        return _if_same(node, r, "sub", y, negated.args[0])
    return None


@row("sub", law="x - -y = x + y")
def sub_neg(r: Rewriter, node: Node) -> Value | None:
    x, y, alpha = node.args
    negated = producer(y, "neg")
    if negated is None or type(x) is not Value:
        return None
    return _if_same(node, r, "add", x, negated.args[0], alpha)


def _if_same(node: Node, r: Rewriter, name: str, x: Value, y: Value, *rest: Any) -> Value | None:
    """The operator on x and y where both have the dtype of the node's result: negation and promotion then commute."""
    if x.dtype is y.dtype is node.result.dtype and not x.is_number and not y.is_number:
        return r.like(node, r.emit(name, x, y, *rest))
    return None


@row("mul", law="x * 1 = x (not for complex numbers: inf * (1 + 0i) has a NaN part)")
def mul_one(r: Rewriter, node: Node) -> Value | None:
    x, y = node.args
    if node.result.dtype.is_complex:
        return None
    if type(x) is Value and is_one(number_of(y)):
        return r.like(node, x)
    if type(y) is Value and is_one(number_of(x)):
        return r.like(node, y)
    return None


@row("mul", law="x * 0 = 0 for integers (0 * inf is NaN, 0 * -1.0 is -0.0)")
def mul_zero(r: Rewriter, node: Node) -> Value | None:
    x, y = node.args
    if is_integer_type(node.result.dtype) and (number_of(x) == 0 or number_of(y) == 0):
        return r.full(node, 0)
    return None


@row("mul", law="x * -1 = -x for floats")
def mul_minus_one(r: Rewriter, node: Node) -> Value | None:
    x, y = node.args
    if not node.result.dtype.is_floating_point:
        return None
    for operand, factor in ((x, y), (y, x)):
        if type(operand) is Value and operand.dtype is node.result.dtype and number_of(factor) == -1:
            return r.like(node, r.emit("neg", operand))
    return None


@row("div", law="x / 1 = x (integers become floats)")
def div_one(r: Rewriter, node: Node) -> Value | None:
    x, y, rounding = node.args
    if type(x) is not Value or rounding is not None or node.result.dtype.is_complex or not is_one(number_of(y)):
        return None
    return r.like(node, x)


@row("div", law="x / 2^k = x * 2^-k where both powers are normal numbers: both round the same real number")
def div_power_of_two(r: Rewriter, node: Node) -> Value | None:
    x, y, rounding = node.args
    d = node.result.dtype
    divisor = y if type(y) is int or type(y) is float else None
    if divisor is None or type(x) is not Value or x.dtype is not d or not d.is_floating_point or rounding is not None:
        return None
    if divisor == 0 or not math.isfinite(divisor) or abs(math.frexp(divisor)[0]) != 0.5:
        return None
    inverse = 1.0 / divisor
    if not is_normal(float(divisor), d) or not is_normal(inverse, d):
        return None
    return r.like(node, r.emit("mul", x, inverse))


@row("pow", law="x ^ 0 = 1, x ^ 1 = x, x ^ 2 = x * x: what the C library's pow returns for these exponents")
def pow_small(r: Rewriter, node: Node) -> Value | None:
    x, exponent = node.args
    number = exponent if type(exponent) is int or type(exponent) is float else None
    if type(x) is not Value or number is None or x.dtype is not node.result.dtype or x.dtype.is_complex:
        return None
    if number == 0:
        return r.full(node, 1)
    if number == 1:
        return r.like(node, x)
    return r.like(node, r.emit("mul", x, x)) if number == 2 else None


@row("pow", law="x ^ 3 = x * x * x, x ^ -1 = 1 / x for floats", exactness=ROUNDING)
def pow_product(r: Rewriter, node: Node) -> Value | None:
    x, exponent = node.args
    number = exponent if type(exponent) is int or type(exponent) is float else None
    if type(x) is not Value or x.dtype is not node.result.dtype or not x.dtype.is_floating_point:
        return None
    if number == 3:
        return r.like(node, r.emit("mul", r.emit("mul", x, x), x))
    return r.like(node, r.emit("reciprocal", x)) if number == -1 else None


@row("neg", law="-(-x) = x")
def neg_neg(r: Rewriter, node: Node) -> Value | None:
    inner = producer(node.args[0], "neg")
    return None if inner is None else r.like(node, inner.args[0])


@row("logical_not", "bitwise_not", law="not not x = x (logical_not: of a bool)")
def not_not(r: Rewriter, node: Node) -> Value | None:
    inner = producer(node.args[0], node.op.name)
    if inner is None or inner.args[0].dtype is not node.result.dtype:
        return None
    return r.like(node, inner.args[0])


@row("abs", law="|-x| = |x| (not for uint8, whose -x is 256 - x)")
def abs_neg(r: Rewriter, node: Node) -> Value | None:
    inner = producer(node.args[0], "neg")
    if inner is None or not inner.result.dtype.is_signed:
        return None
    return r.like(node, r.emit("abs", inner.args[0]))


@row("abs", "sign", "floor", "ceil", "round", "trunc", "relu", law="f(f(x)) = f(x)")
def idempotent(r: Rewriter, node: Node) -> Value | None:
    inner = producer(node.args[0], node.op.name)
    if inner is None or any(type(a) is Value or a != b for a, b in zip(node.args[1:], inner.args[1:], strict=True)):
        return None
    return r.like(node, node.args[0])


@row("maximum", "minimum", "logical_and", "logical_or", "bitwise_and", "bitwise_or", law="f(x, x) = x")
def self_pair(r: Rewriter, node: Node) -> Value | None:
    x, y = node.args
    if type(x) is not Value or x is not y or x.dtype is not node.result.dtype:
        return None
    return r.like(node, x)


@row("where", law="where(c, x, x) = x, where(true, x, y) = x, where(false, x, y) = y")
def where_same(r: Rewriter, node: Node) -> Value | None:
    condition, x, y = node.args
    if x is y and type(x) is Value:
        return r.like(node, x)
    number = number_of(condition)
    if number is None:
        return None
    chosen = x if number else y
    if type(chosen) is Value:
        return r.like(node, chosen)
    return r.full(node, chosen)


@row("clone", law="clone(x) = x where neither a view nor an output uses the clone (they count on its memory)")
def clone_unneeded(r: Rewriter, node: Node) -> Value | None:
    return None if r.needs_memory(node) else r.like(node, node.args[0])
