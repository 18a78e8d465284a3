"""How exact a quotient has to be.

In float32 the hardware divides approximately at once (two units in the last place), or rounded to the nearest in three
times the instructions, one element after the other. The short form does where a value is rounded to float16 or
bfloat16 before anything else sees it: an error of 2^-22 beside one of 2^-12 or 2^-9. A kernel that moves two bytes an
element has time for some twenty instructions on each while the next ones come from memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from graphtorch.lowering.kernel import Compute, Constant, Expr, Store
from graphtorch.tensor import dtypes

HALVES = (dtypes.float16, dtypes.bfloat16)

# An operand's relative error becomes one of the result, not much larger.
_RELATIVE = frozenset(
    ["copy", "neg", "abs", "mul", "div", "sqrt", "rsqrt", "reciprocal", "maximum", "minimum", "where"]
)


def rounded_to_half(exprs: Sequence[Expr], stores: Iterable[Store]) -> frozenset[int]:
    """The values in float32 registers (by identity) of which only float16 or bfloat16 is kept: each use is a cast or a
    store to these types, or passes the relative error on to such uses. `exprs` come after their operands.

    A sum is no such use: of 6 / 2 - 3 nothing may be left."""
    halved: set[int] = set()
    exact: set[int] = set()
    for store in stores:
        (halved if store.access.buffer.dtype in HALVES else exact).add(id(store.value))
    for expr in reversed(exprs):
        key = id(expr)
        rounds = isinstance(expr, Compute) and (
            (expr.instruction == "cast" and expr.dtype in HALVES)
            or (expr.instruction in _RELATIVE and key in halved and key not in exact)
        )
        (halved if rounds else exact).update(map(id, expr.operands()))
    return frozenset(id(e) for e in exprs if id(e) in halved - exact and e.dtype in (*HALVES, dtypes.float32))


def exact_reciprocal(divisor: Expr) -> float | None:
    """1 / 2^k where that and 2^k are normal numbers of the type: x / 2^k and x * 2^-k round the same real number."""
    if not isinstance(divisor, Constant) or type(divisor.value) not in (int, float):
        return None
    value = divisor.value
    within = divisor.dtype.is_floating_point and 2.0**-126 <= abs(value) <= 2.0**126
    if not within or abs(math.frexp(value)[0]) != 0.5:
        return None
    return 1.0 / float(value)
