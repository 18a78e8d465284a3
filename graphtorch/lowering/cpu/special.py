"""Special functions of float32 and narrower operands as kernels: computed in float64, rounded once.

    lgamma, digamma   Stirling's series from 8 on; below, the recurrence; left of 1/2, the reflection formula
    erfinv            a polynomial of log(1 - y^2), then a step of Newton's method

Series: Abramowitz and Stegun, 6.1.17, 6.1.41, 6.3.5, 6.3.7 and 6.3.18. Start of erfinv: Giles, "Approximating the
erfinv function" (GPU Computing Gems, 2011). In float64 the error is far below a rounding of float32; float64 operands
run through NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graphtorch.lowering.kernel import Access, Axis, Buffer, Compute, Constant, Expr, ExternCall, Kernel, Load, Store
from graphtorch.tensor import dtypes

_NARROW = (dtypes.float32, dtypes.float16, dtypes.bfloat16)
_SHIFT = 8  # where the series starts
# Coefficients of 1/z, 1/z^3, ... and of 1/z^2, 1/z^4, ...
_LGAMMA = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360)
_DIGAMMA = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760)
_ERFINV_MIDDLE = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503, -0.00417768164,
    0.246640727, 1.50140941,
)  # fmt: skip
_ERFINV_TAIL = (
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613, 0.00943887047,
    1.00167406, 2.83297682,
)  # fmt: skip


class _Value:
    """An expression of float64 or bool, with Python's operators."""

    def __init__(self, expr: Expr) -> None:
        self.expr = expr

    def __add__(self, other: Any) -> _Value:
        return _apply("add", self, other)

    def __sub__(self, other: Any) -> _Value:
        return _apply("sub", self, other)

    def __mul__(self, other: Any) -> _Value:
        return _apply("mul", self, other)

    def __truediv__(self, other: Any) -> _Value:
        return _apply("div", self, other)

    def __lt__(self, other: Any) -> _Value:
        return _apply("lt", self, other)


def _number(value: Any) -> _Value:
    return value if isinstance(value, _Value) else _Value(Constant(float(value), dtypes.float64))


def _apply(instruction: str, *operands: Any) -> _Value:
    exprs = tuple(_number(o).expr for o in operands)
    of = dtypes.bool_ if instruction in ("lt", "le", "eq") else dtypes.float64
    return _Value(Compute(instruction, exprs, of))


def _where(condition: _Value, then: Any, otherwise: Any) -> _Value:
    return _Value(Compute("where", (condition.expr, _number(then).expr, _number(otherwise).expr), dtypes.float64))


def _polynomial(x: _Value, coefficients: Sequence[float]) -> _Value:
    total = _number(coefficients[0])
    for c in coefficients[1:]:
        total = total * x + c
    return total


def _lgamma(x: _Value) -> _Value:
    left = x < 0.5
    y = _where(left, _number(1) - x, x)
    small = y < _SHIFT
    product = y
    for i in range(1, _SHIFT):
        product = product * (y + i)
    z = _where(small, y + _SHIFT, y)
    inverse = _number(1) / z
    series = _polynomial(inverse * inverse, _LGAMMA[::-1]) * inverse
    right = (z - 0.5) * _apply("log", z) - z + (0.5 * math.log(2 * math.pi)) + series
    right = _where(small, right - _apply("log", product), right)
    right = _where(_apply("eq", y, math.inf), math.inf, right)
    right = _where(_apply("eq", (y - 1) * (y - 2), 0), 0, right)
    # x - floor(x) is exact: near a pole, the sine of pi times it is too.
    sine = _apply("abs", _apply("sin", (x - _apply("floor", x)) * math.pi))
    reflected = _apply("log", _number(math.pi) / sine) - right
    at_pole = _apply("eq", x, _apply("floor", x))
    return _where(left, _where(at_pole, math.inf, reflected), right)


def _digamma(x: _Value) -> _Value:
    left = x < 0.5
    y = _where(left, _number(1) - x, x)
    small = y < _SHIFT
    below = _number(1) / y
    for i in range(1, _SHIFT):
        below = below + _number(1) / (y + i)
    z = _where(small, y + _SHIFT, y)
    inverse = _number(1) / z
    square = inverse * inverse
    right = _apply("log", z) - inverse * 0.5 - _polynomial(square, _DIGAMMA[::-1]) * square
    right = _where(small, right - below, right)
    angle = (x - _apply("floor", x)) * math.pi
    reflected = right - _number(math.pi) * _apply("cos", angle) / _apply("sin", angle)
    at_pole = _apply("eq", x, _apply("floor", x))
    # At 0 the limits differ: the sign of zero decides. At other poles there is no limit.
    at_zero = _number(-1) / x
    pole = _where(_apply("eq", x, 0), at_zero, math.nan)
    return _where(left, _where(at_pole, pole, reflected), right)


def _erfinv(y: _Value) -> _Value:
    w = _number(0) - _apply("log", (_number(1) - y) * (y + 1))
    middle = _polynomial(w - 2.5, _ERFINV_MIDDLE)
    tail = _polynomial(_apply("sqrt", w) - 3, _ERFINV_TAIL)
    x = _where(w < 5, middle, tail) * y
    slope = _apply("exp", _number(0) - x * x) * (2 / math.sqrt(math.pi))
    x = x - (_apply("erf", x) - y) / slope  # squares an error of 1e-7
    at_end = _apply("eq", _apply("abs", y), 1)
    return _where(at_end, y * math.inf, x)


_FORMULAS: dict[str, Callable[[_Value], _Value]] = {"lgamma": _lgamma, "digamma": _digamma, "erfinv": _erfinv}


def special_function(call: ExternCall, producers: Mapping[Buffer, ExternCall]) -> list[Kernel] | None:
    """The kernel of a call; None for what runs through NumPy."""
    x, out = call.args[0], call.outputs[0]
    if out is None or x.buffer.dtype not in _NARROW or out.dtype is not x.buffer.dtype:
        return None
    axes = tuple(Axis(f"i{d}", size) for d, size in enumerate(out.shape))
    operand = _Value(Compute("cast", (Load(Access(x.buffer, x.offset, x.strides)),), dtypes.float64))
    result = Compute("cast", (_FORMULAS[call.op.name](operand).expr,), out.dtype)
    strides: list[Any] = []
    step: Any = 1
    for size in reversed(out.shape):
        strides.insert(0, step)
        step = step * size
    return [Kernel(call.name, axes, [Store(Access(out, 0, tuple(strides)), result)])]


RULES = dict.fromkeys(_FORMULAS, special_function)
