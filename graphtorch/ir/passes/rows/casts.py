"""Rows on conversions between dtypes."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from graphtorch.ir.graph import Node, Value
from graphtorch.ir.passes.rows.table import row
from graphtorch.ir.rewrite import Rewriter, producer
from graphtorch.tensor.dtypes import ALL_DTYPES, BOOLEAN, INTEGRAL, dtype


def _holds(narrow: dtype, wide: dtype) -> bool:
    """Whether every value of one type is a value of another."""
    if narrow is wide or narrow.category == BOOLEAN:
        return True
    if narrow.is_complex:
        return wide.is_complex and wide.itemsize >= narrow.itemsize
    if wide.category == BOOLEAN:
        return False
    target = wide.to_real()
    if narrow.category == INTEGRAL:
        low, high = int(np.iinfo(narrow.numpy).min), int(np.iinfo(narrow.numpy).max)
        if target.category == INTEGRAL:
            limits = np.iinfo(target.numpy)
            return int(limits.min) <= low and high <= int(limits.max)
        mantissa, largest, _ = _float_limits(target)
        # A float holds all integers of up to one bit more than its mantissa.
        return high.bit_length() <= mantissa + 1 and high <= largest
    if not target.is_floating_point:
        return False
    own, other = _float_limits(narrow), _float_limits(target)
    return own[0] <= other[0] and own[1] <= other[1] and own[2] >= other[2]


def _float_limits(d: dtype) -> tuple[int, float, float]:
    """Mantissa bits, the largest and the smallest (subnormal) number."""
    info: Any = ml_dtypes.finfo(d.numpy)  # type: ignore[no-untyped-call]
    return int(info.nmant), float(info.max), float(info.tiny) * 2.0 ** -int(info.nmant)


LOSSLESS = frozenset((a, b) for a in ALL_DTYPES for b in ALL_DTYPES if _holds(a, b))


@row("cast", law="a cast to the type that a value has is the value")
def cast_same(r: Rewriter, node: Node) -> Value | None:
    x = node.args[0]
    return r.like(node, x) if x.dtype is node.result.dtype else None


@row("cast", law="cast(cast(x, B), C) = cast(x, C) where B holds all values of x's type, and C too if B is float")
def cast_cast(r: Rewriter, node: Node) -> Value | None:
    inner = producer(node.args[0], "cast")
    if inner is None:
        return None
    x, d = inner.args[0], node.result.dtype
    if (x.dtype, inner.result.dtype) not in LOSSLESS or x.is_number:
        return None
    if d.category == INTEGRAL and inner.result.dtype.category > INTEGRAL and (x.dtype, d) not in LOSSLESS:
        return None  # what a float out of the integers' range converts to depends on its type
    if x.dtype is d:
        return r.like(node, x)
    return r.emit("cast", x, d)
