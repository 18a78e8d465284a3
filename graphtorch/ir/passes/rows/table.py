"""The table that rows register in, and what they ask about constants and dtypes."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np

from graphtorch.ir.graph import Value
from graphtorch.ir.rewrite import RowTable
from graphtorch.tensor.dtypes import dtype

TABLE = RowTable()
row = TABLE.row


def number_of(arg: Any) -> Any:
    """The Python number that an argument is, or that fills it; None for anything else."""
    kind = type(arg)
    if kind is int or kind is float or kind is bool or kind is complex:
        return arg
    if kind is Value and arg.node is not None and arg.node.op.name == "full":
        fill = arg.node.argument("fill_value")
        return number_of(fill) if type(fill) is not Value else None
    return None


def is_integer_type(d: dtype) -> bool:
    """Integers and bool: arithmetic without rounding, infinities, NaN or signed zeros."""
    return not (d.is_floating_point or d.is_complex)


def is_zero(number: Any) -> bool:
    """Zero, but not -0.0, which is not neutral where 0 is."""
    return number is not None and number == 0 and math.copysign(1.0, complex(number).real) > 0


def is_negative_zero(number: Any) -> bool:
    return isinstance(number, float) and number == 0 and math.copysign(1.0, number) < 0


def is_one(number: Any) -> bool:
    return number is not None and number == 1


def is_normal(number: float, of: dtype) -> bool:
    """Whether a float is exactly representable in a dtype as a normal number."""
    info: Any = ml_dtypes.finfo(of.numpy)  # type: ignore[no-untyped-call]
    return float(info.tiny) <= abs(number) <= float(info.max) and float(np.asarray(number).astype(of.numpy)) == number
