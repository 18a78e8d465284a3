"""Functions that are evaluated in float64.

Those of float32 whose argument reduction or cancellation would cost digits are computed by float64 polynomials that are
just good enough, and rounded once: correct to 0.51 units in the last place, special values included. sin, cos, tanh,
expm1 and log1p of float64 itself stay within 2. The polynomials are Chebyshev interpolations in 40 digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from graphtorch.lowering.cpu import transcendental
from graphtorch.lowering.cpu.assembly import Builder, Val, const

INF, NAN = float("inf"), float("nan")

# atan(x) = x + x^3 P(x^2) on [0, 1], to 6e-11
_ATAN = (
    -0.3333333332694414, 0.19999998154086215, -0.14285624891483525, 0.11109392308322223, -0.09073553118976409,
    0.0758665283364667, -0.06246315194128317, 0.047294798621813336, -0.02991311194551696, 0.014072923344697239,
    -0.0042216579909296476, 0.0005930437556365282,
)  # fmt: skip
# asin(x) = x + x^3 P(x^2) on [0, 1/2], to 2e-11
_ASIN = (
    0.16666666665495086, 0.07500000598829049, 0.044642358484883196, 0.030397634130580702, 0.022132443623426794,
    0.019306260869368045, 0.0054431851027481075, 0.02930523970533579,
)  # fmt: skip
# sin(r) = r + r^3 P(r^2) and cos(r) = 1 - r^2/2 + r^4 Q(r^2) on [0, pi/4]: to 3e-14, and to the last place
_SIN_SHORT = (-0.16666666666663815, 0.008333333331032916, -0.00019841266872067172, 2.7555977373119763e-06,
              -2.480438374989974e-08)  # fmt: skip
_COS_SHORT = (0.041666666666664624, -0.0013888888887244228, 2.480158517886821e-05, -2.7556360000924494e-07,
              2.0699704774520154e-09)  # fmt: skip
_SIN = (
    -0.16666666666666666, 0.008333333333333331, -0.0001984126984126494, 2.7557319219243677e-06, -2.505210619936182e-08,
    1.6058526388142101e-10, -7.586389554705215e-13,
)  # fmt: skip
_COS = (
    0.041666666666666664, -0.0013888888888888887, 2.4801587301584578e-05, -2.755731922134973e-07,
    2.087675577268547e-09, -1.1470457979362018e-11, 4.745700902269626e-14,
)  # fmt: skip
# tanh(x) = x + x^3 P(x^2) on [0, 0.63]
_TANH = (
    -0.3333333333333333, 0.13333333333333316, -0.053968253968231024, 0.02186948853488776, -0.008863235493441451,
    0.0035921274106953164, -0.0014558274668454265, 0.0005899759192143973, -0.00023886464788549952,
    9.597236318160513e-05, -3.696052230333826e-05, 1.2088687226216897e-05, -2.3855793111704252e-06,
)  # fmt: skip
# expm1(x) = x + x^2 P(x) on |x| <= 0.36
_EXPM1 = (
    0.5, 0.16666666666666666, 0.04166666666666668, 0.008333333333333335, 0.0013888888888875595, 0.0001984126984126098,
    2.4801587345348913e-05, 2.7557319253155175e-06, 2.7557254112529574e-07, 2.505206498464685e-08,
    2.0921400431402038e-09, 1.6088802586825862e-10,
)  # fmt: skip
_HALF_PI, _HALF_PI_REST = 1.5707963267948966, 6.123233995736766e-17

Function = Callable[..., Val]


def _odd(b: Builder, x: Val, square: Val, coefficients: tuple[float, ...]) -> Val:
    """x + x^3 P(x^2)"""
    return b.fma(b.mul(b.polynomial(square, coefficients), square), x, x)


# -- float32, given and returned as float64 ---------------------------------------------------------------------------


def power(b: Builder, x: Val, y: Val) -> Val:
    """x**y as C's pow."""
    size = b.intrinsic("fabs", x)
    result = transcendental.exp(b, b.mul(y, transcendental.log(b, size)))
    whole = b.compare("oeq", b.intrinsic("rint", y), y)
    half = b.mul(y, 0.5)
    odd = b.logic("and", whole, b.compare("une", b.intrinsic("rint", half), half))
    result = b.select(odd, b.intrinsic("copysign", result, x), result)
    undefined = b.logic("and", b.compare("olt", x, 0.0), b.compare("one", size, INF))
    undefined = b.logic("and", undefined, b.logic("xor", whole, True))
    result = b.select(undefined, NAN, result)
    unit = b.logic("and", b.compare("oeq", size, 1.0), b.compare("oeq", b.intrinsic("fabs", y), INF))
    for one in (b.compare("oeq", x, 1.0), b.compare("oeq", y, 0.0)):
        unit = b.logic("or", unit, one)
    return b.select(unit, 1.0, result)


def _atan_of_unit(b: Builder, x: Val) -> Val:
    return _odd(b, x, b.mul(x, x), _ATAN)


def atan(b: Builder, x: Val) -> Val:
    size = b.intrinsic("fabs", x)
    far = b.compare("ogt", size, 1.0)
    angle = _atan_of_unit(b, b.select(far, b.div(1.0, size), size))
    return b.intrinsic("copysign", b.select(far, b.sub(const(_HALF_PI, x.kind), angle), angle), x)


def atan2(b: Builder, y: Val, x: Val) -> Val:
    up, across = b.intrinsic("fabs", y), b.intrinsic("fabs", x)
    steep = b.compare("ogt", up, across)
    small, large = b.select(steep, across, up), b.select(steep, up, across)
    ratio = b.binary("fdiv", small, large)
    # 0/0 is an angle of 0, and so much as inf/inf is 45 degrees.
    ratio = b.select(b.compare("oeq", large, 0.0), 0.0, ratio)
    ratio = b.select(b.compare("oeq", small, INF), 1.0, ratio)
    angle = _atan_of_unit(b, ratio)
    angle = b.select(steep, b.sub(const(_HALF_PI, x.kind), angle), angle)
    backwards = b.compare("slt", b.convert("bitcast", x, "i64"), 0)
    angle = b.select(backwards, b.sub(const(math.pi, x.kind), angle), angle)
    angle = b.intrinsic("copysign", angle, y)
    return b.select(b.is_nan(x), x, b.select(b.is_nan(y), y, angle))


def _asin_parts(b: Builder, x: Val) -> tuple[Val, Val]:
    """(whether |x| > 1/2, asin(|x|) or else asin(sqrt((1 - |x|) / 2)))"""
    size = b.intrinsic("fabs", x)
    far = b.compare("ogt", size, 0.5)
    square = b.select(far, b.mul(b.sub(const(1.0, x.kind), size), 0.5), b.mul(x, x))
    return far, _odd(b, b.select(far, b.intrinsic("sqrt", square), size), square, _ASIN)


def asin(b: Builder, x: Val) -> Val:
    far, angle = _asin_parts(b, x)
    return b.intrinsic("copysign", b.select(far, b.fma(angle, -2.0, _HALF_PI), angle), x)


def acos(b: Builder, x: Val) -> Val:
    far, angle = _asin_parts(b, x)
    twice = b.add(angle, angle)
    beyond = b.select(b.compare("olt", x, 0.0), b.sub(const(math.pi, x.kind), twice), twice)
    return b.select(far, beyond, b.sub(const(_HALF_PI, x.kind), b.intrinsic("copysign", angle, x)))


def sinh(b: Builder, x: Val) -> Val:
    size, square = b.intrinsic("fabs", x), b.mul(x, x)
    e = transcendental.exp(b, size)
    far = b.mul(b.sub(e, b.div(1.0, e)), 0.5)
    near = b.fma(b.mul(b.fma(square, 1 / 120, 1 / 6), square), x, x)
    return b.select(b.compare("olt", size, 0.02), near, b.intrinsic("copysign", far, x))


def cosh(b: Builder, x: Val) -> Val:
    e = transcendental.exp(b, b.intrinsic("fabs", x))
    return b.mul(b.add(e, b.div(1.0, e)), 0.5)


def _reduced(b: Builder, x: Val) -> tuple[Val, Val]:
    """(n, r): x = n pi/2 + r. Needs fused multiply-add."""
    n = b.intrinsic("rint", b.mul(x, 2.0 / math.pi))
    return n, b.fma(n, -_HALF_PI_REST, b.fma(n, -_HALF_PI, x))


def tan(b: Builder, x: Val) -> Val:
    n, r = _reduced(b, x)
    square = b.mul(r, r)
    sine = _odd(b, r, square, _SIN_SHORT)
    cosine = b.fma(b.polynomial(square, _COS_SHORT), b.mul(square, square), b.fma(square, -0.5, 1.0))
    odd = b.compare("ne", b.logic("and", b.freeze(b.convert("fptosi", n, "i64")), 1), 0)
    result = b.div(b.select(odd, b.neg(cosine), sine), b.select(odd, sine, cosine))
    return b.select(b.compare("oeq", x, 0.0), x, result)


def fmod(b: Builder, x: Val, y: Val) -> Val:
    """The remainder of the quotient rounded towards zero, with x's sign; for quotients below 2^28, where the product
    with the divisor is exact."""
    quotient = b.intrinsic("trunc", b.binary("fdiv", x, y))
    rest = b.sub(x, b.binary("fmul", quotient, y, ""))
    rest = b.intrinsic("copysign", rest, x)
    return b.select(b.logic("and", b.compare("oeq", b.intrinsic("fabs", y), INF), _finite(b, x)), x, rest)


def _finite(b: Builder, x: Val) -> Val:
    return b.compare("olt", b.intrinsic("fabs", x), INF)


def beyond_fmod(b: Builder, x: Val, y: Val) -> Val:
    """Whether `fmod` does not apply."""
    return b.compare("oge", b.intrinsic("fabs", b.binary("fdiv", x, y)), 2.0**28)


def beyond_trigonometric(b: Builder, x: Val) -> Val:
    return b.compare("oge", b.intrinsic("fabs", x), 1e5)


# float32 functions, and where they leave it to the C library.
SINGLE: dict[str, tuple[Function, Function | None]] = {
    "pow": (power, None),
    "atan": (atan, None),
    "atan2": (atan2, None),
    "asin": (asin, None),
    "acos": (acos, None),
    "sinh": (sinh, None),
    "cosh": (cosh, None),
    "tan": (tan, beyond_trigonometric),
    "fmod": (fmod, beyond_fmod),
}

# -- float64 ----------------------------------------------------------------------------------------------------------


def sine(b: Builder, x: Val, shift: int = 0) -> Val:
    """sin(x + shift * pi/2) for |x| < 1e5."""
    n, r = _reduced(b, x)
    square = b.mul(r, r)
    odd_part = _odd(b, r, square, _SIN)
    even_part = b.fma(b.polynomial(square, _COS), b.mul(square, square), b.fma(square, -0.5, 1.0))
    quadrant = b.add(b.freeze(b.convert("fptosi", n, "i64")), shift)
    value = b.select(b.compare("ne", b.logic("and", quadrant, 1), 0), even_part, odd_part)
    value = b.select(b.compare("ne", b.logic("and", quadrant, 2), 0), b.neg(value), value)
    return value if shift else b.select(b.compare("oeq", x, 0.0), x, value)


def cosine(b: Builder, x: Val) -> Val:
    return sine(b, x, 1)


def tanh(b: Builder, x: Val) -> Val:
    size = b.intrinsic("fabs", x)
    near = _odd(b, size, b.mul(x, x), _TANH)
    e = transcendental.exp(b, b.add(size, size))
    far = b.sub(const(1.0, x.kind), b.div(2.0, b.add(e, 1.0)))
    return b.intrinsic("copysign", b.select(b.compare("olt", size, 0.625), near, far), x)


def expm1(b: Builder, x: Val) -> Val:
    """2^n expm1(r) + (2^n - 1) for x = n ln 2 + r, where neither sum cancels."""
    n, r = transcendental.reduced_exponent(b, b.select(b.compare("olt", x, -40.0), -40.0, x))
    power_of_two = transcendental.power_of_two(b, b.select(b.compare("ogt", n, 1000.0), 0.0, n))
    small = b.fma(b.polynomial(r, _EXPM1), b.mul(r, r), r)
    result = b.fma(power_of_two, small, b.sub(power_of_two, 1.0))
    result = b.select(b.compare("ogt", x, 600.0), transcendental.exp(b, x), result)
    return b.select(b.compare("oeq", x, 0.0), x, result)


DOUBLE: dict[str, tuple[Function, Function | None]] = {
    "sin": (sine, beyond_trigonometric),
    "cos": (cosine, beyond_trigonometric),
    "tanh": (tanh, None),
    "expm1": (expm1, None),
}
