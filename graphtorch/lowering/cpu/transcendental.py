"""Transcendental functions on vectors, as polynomials.

Each function reduces its argument to a small interval, where a minimax polynomial (fitted by Lawson's iteration to
the relative error, in 200 bits) approximates it, and undoes the reduction; W. J. Cody and W. Waite, "Software Manual
for the Elementary Functions", 1980, describes the reductions. float32 errors stay within 2 units in the last place,
float64 ones within 2 for exp and log; NaN and infinities come out as IEEE 754 wants. `llvm.rint` and friends are
generic: any target with vectors lowers them.
"""

from __future__ import annotations

import math

from graphtorch.lowering.cpu.assembly import Builder, Val, const

# exp(r) = 1 + r + r^2 P(r) on |r| <= ln(2) / 2
_EXP = {
    "float": (
        0.4999999343189114, 0.16666520396770756, 0.04166839083131584, 0.008368745320047482, 0.0013814537893704776,
    ),
    "double": (
        0.5, 0.16666666666666685, 0.04166666666666599, 0.008333333333316723, 0.001388888888916099,
        0.0001984126989708953, 2.480158684407155e-05, 2.755723422663241e-06, 2.755764818450641e-07,
        2.5112235747365825e-08, 2.0807164546453e-09,
    ),
}  # fmt: skip
# ln(2) in two parts; the high one has trailing zeros, so that n * high is exact.
_LN2 = {"float": (0.693359375, -2.12194440054690583e-4), "double": (0.6931471803691238, 1.9082149292705877e-10)}
# log(1 + f) = f - f^2/2 + f^3 P(f) on [sqrt(1/2) - 1, sqrt(2) - 1]
_LOG = (
    0.33333312602497794, -0.2500000960467403, 0.20002118749950637, -0.16667995622402618, 0.14219550557700927,
    -0.12405592013076179, 0.11888177565591722, -0.11675638799842701, 0.06746591932216202,
)  # fmt: skip
# log((1 + s) / (1 - s)) = 2s + s^3 R(s^2)
_LOG_DOUBLE = (
    0.6666666666666734, 0.3999999999941455, 0.28571428742409183, 0.22222198571583004, 0.1818356438377396,
    0.15314049614744452, 0.14795954595231198,
)  # fmt: skip
# tanh(x) = x + x^3 P(x^2) on |x| < 0.625
_TANH = (
    -0.3333333079996922, 0.13333205895100678, -0.053946748164329594, 0.021700618610866265, -0.008177182005026104,
    0.0021427577870354506,
)  # fmt: skip
# erf(x) = x + x P(x^2) on |x| < 0.93, and -log(erfc(x)) = Q(x) on [0.92, 4]
_ERF = (
    0.1283791665589407, -0.3761263299274678, 0.11283684250752007, -0.026858781828617867, 0.005199517759879961,
    -0.0008125678995917232, 8.298780202691273e-05,
)  # fmt: skip
_ERFC = (
    -0.00017468444834043296, 1.1295149305358705, 0.6333469061460831, 0.10828008965071716, -0.02511942754767832,
    0.004171063091972061, -0.0004344626299276763, 2.1095051463516205e-05,
)  # fmt: skip
# sin(r) = r + r^3 P(r^2) and cos(r) = 1 - r^2/2 + r^4 Q(r^2) on |r| <= pi/4
_SIN = (-0.16666654572929743, 0.008332158400228473, -0.00019514956626919292)
_COS = (0.04166664561835501, -0.0013887313044690151, 2.4432783322369197e-05)
# expm1(x) = x + x^2 P(x) on |x| <= 0.52
_EXPM1 = (
    0.5000000002683258, 0.16666667655699993, 0.041666658565035486, 0.008333109869742207, 0.0013889375830483009,
    0.00019984378712543168, 2.4789960360730203e-05,
)  # fmt: skip

INF = float("inf")


def _scale(b: Builder, n: Val) -> Val:
    """2**n for integers within the exponent's range."""
    mantissa, bias = (23, 127) if n.kind == "i32" else (52, 1023)
    return b.convert("bitcast", b.logic("shl", b.add(n, bias), mantissa), "float" if n.kind == "i32" else "double")


def _integer(b: Builder, x: Val) -> Val:
    """A small whole float as an integer of the same width; NaN gives some integer."""
    return b.freeze(b.convert("fptosi", x, "i32" if x.kind == "float" else "i64"))


def exp(b: Builder, x: Val) -> Val:
    high, low = (89.0, -104.0) if x.kind == "float" else (710.0, -746.0)
    # Written so that NaN stays: a comparison with NaN is false and selects x.
    clamped = b.select(b.compare("ogt", x, high), high, x)
    clamped = b.select(b.compare("olt", clamped, low), low, clamped)
    n, r = reduced_exponent(b, clamped)
    p = b.add(b.fma(b.polynomial(r, _EXP[x.kind]), b.mul(r, r), r), 1.0)
    # Two factors reach the subnormal numbers and infinity without an intermediate overflow.
    whole = _integer(b, n)
    half = b.logic("ashr", whole, 1)
    return b.mul(b.mul(p, _scale(b, half)), _scale(b, b.sub(whole, half)))


def power_of_two(b: Builder, n: Val) -> Val:
    """2**n for whole floats within the exponent's range."""
    return _scale(b, _integer(b, n))


def reduced_exponent(b: Builder, x: Val) -> tuple[Val, Val]:
    """(n, r): x = n ln 2 + r, n whole."""
    n = b.intrinsic("rint", b.mul(x, 1.4426950408889634))
    ln2_high, ln2_low = _LN2[x.kind]
    return n, b.fma(n, -ln2_low, b.fma(n, -ln2_high, x))


def sigmoid(b: Builder, x: Val) -> Val:
    """1 / (1 + e) or e / (1 + e) with e = exp(-|x|), which can't overflow; the quotient is corrected by what is left of
    the division, and by the rounding error of the sum."""
    e = exp(b, b.neg(b.intrinsic("fabs", x)))
    total = b.add(e, 1.0)
    error = b.sub(e, b.sub(total, 1.0))
    inverse = b.div(1.0, total)
    numerator = b.select(b.compare("olt", x, 0.0), e, 1.0)
    quotient = b.mul(numerator, inverse)
    left = b.fma(b.neg(quotient), error, b.fma(b.neg(quotient), total, numerator))
    return b.fma(left, inverse, quotient)


def _split(b: Builder, x: Val) -> tuple[Val, Val]:
    """(e, m): x = 2**e * m with m in [sqrt(1/2), sqrt(2)), e as a float. For positive finite x."""
    integer, mantissa, bias, tiny, up = (
        ("i32", 23, 126, 1.17549435e-38, 23) if x.kind == "float" else ("i64", 52, 1022, 2.2250738585072014e-308, 52)
    )
    small = b.compare("olt", x, tiny)
    bits = b.convert("bitcast", b.select(small, b.mul(x, 2.0**up), x), integer)
    field = b.sub(b.logic("lshr", bits, mantissa), bias)
    e = b.convert("sitofp", field, x.kind)
    e = b.select(small, b.sub(e, float(up)), e)
    m = b.convert("bitcast", b.logic("or", b.logic("and", bits, (1 << mantissa) - 1), bias << mantissa), x.kind)
    low = b.compare("olt", m, math.sqrt(0.5))
    return b.select(low, b.sub(e, 1.0), e), b.select(low, b.add(m, m), m)


def _log_parts(b: Builder, x: Val) -> tuple[Val, Val, Val]:
    """(e, f, y): log(x) = e * ln 2 + f + y, f the leading part."""
    e, m = _split(b, x)
    f = b.sub(m, 1.0)
    square = b.mul(f, f)
    if x.kind == "float":
        return e, f, b.fma(square, -0.5, b.mul(b.mul(b.polynomial(f, _LOG), f), square))
    # f - (f^2/2 - s * (f^2/2 + R)): the rounding errors of s = f / (2 + f) only enter small terms.
    s = b.div(f, b.add(f, 2.0))
    z = b.mul(s, s)
    half = b.mul(square, 0.5)
    r = b.mul(b.polynomial(z, _LOG_DOUBLE), z)
    return e, f, b.neg(b.sub(half, b.mul(s, b.add(half, r))))


def _log_specials(b: Builder, x: Val, result: Val) -> Val:
    result = b.select(b.compare("oeq", x, INF), INF, result)
    result = b.select(b.compare("oeq", x, 0.0), -INF, result)
    result = b.select(b.compare("olt", x, 0.0), float("nan"), result)
    return b.select(b.is_nan(x), x, result)


def log(b: Builder, x: Val) -> Val:
    e, f, y = _log_parts(b, x)
    ln2_high, ln2_low = _LN2[x.kind]
    result = b.fma(e, ln2_high, b.add(f, b.fma(e, ln2_low, y)))
    return _log_specials(b, x, result)


def log2(b: Builder, x: Val) -> Val:
    """Exact at powers of two, where f and y are 0."""
    e, f, y = _log_parts(b, x)
    # 1/ln(2) = 1 + rest keeps the leading part of the product exact.
    rest = 0.4426950408889634
    total = b.add(f, y)
    return _log_specials(b, x, b.add(e, b.add(b.fma(total, rest, y), f)))


def log1p(b: Builder, x: Val) -> Val:
    """log(u) + (1 + x - u) / u with u = 1 + x rounded; the numerator is exact."""
    u = b.add(x, 1.0)
    of_x = b.sub(u, 1.0)
    error = b.add(b.sub(const(1.0, x.kind), b.sub(u, of_x)), b.sub(x, of_x))
    e, f, y = _log_parts(b, u)
    ln2_high, ln2_low = _LN2[x.kind]
    rest = b.fma(e, ln2_low, b.add(y, b.div(error, u)))
    result = b.fma(e, ln2_high, b.add(f, rest))
    result = b.select(b.compare("oeq", u, 1.0), x, result)
    return _log_specials(b, u, b.select(b.compare("oeq", x, INF), INF, result))


def expm1(b: Builder, x: Val) -> Val:
    small = b.fma(b.polynomial(x, _EXPM1), b.mul(x, x), x)
    near = b.compare("olt", b.intrinsic("fabs", x), 0.5)
    result = b.select(near, small, b.sub(exp(b, x), 1.0))
    return b.select(b.compare("oeq", x, 0.0), x, result)


def tanh(b: Builder, x: Val) -> Val:
    """Near zero a polynomial, beyond it 1 - 2 / (exp(2|x|) + 1), which reaches exactly 1."""
    size = b.intrinsic("fabs", x)
    square = b.mul(x, x)
    small = b.fma(b.mul(b.polynomial(square, _TANH), square), size, size)
    far = b.sub(const(1.0, x.kind), b.div(2.0, b.add(exp(b, b.add(size, size)), 1.0)))
    return b.intrinsic("copysign", b.select(b.compare("olt", size, 0.625), small, far), x)


def erf(b: Builder, x: Val) -> Val:
    size = b.intrinsic("fabs", x)
    square = b.mul(x, x)
    small = b.fma(b.polynomial(square, _ERF), x, x)
    far_size = b.select(b.compare("ogt", size, 4.0), 4.0, size)
    far = b.sub(const(1.0, x.kind), exp(b, b.neg(b.polynomial(far_size, _ERFC))))
    return b.select(b.compare("olt", size, 0.925), small, b.intrinsic("copysign", far, x))


def sin_cos(b: Builder, x: Val, shift: int) -> Val:
    """sin(x + shift * pi/2) for |x| < 1e6: the argument is reduced in float64, where n * pi/2 loses nothing that
    counts."""
    wide = b.convert("fpext", x, "double")
    n = b.intrinsic("rint", b.mul(wide, 2.0 / math.pi))
    r = b.convert("fptrunc", b.fma(n, -6.123233995736766e-17, b.fma(n, -1.5707963267948966, wide)), "float")
    quadrant = b.add(b.freeze(b.convert("fptosi", n, "i32")), shift)
    square = b.mul(r, r)
    sine = b.fma(b.mul(b.polynomial(square, _SIN), square), r, r)
    cosine = b.fma(b.polynomial(square, _COS), b.mul(square, square), b.fma(square, -0.5, const(1.0, "float", x.lanes)))
    odd = b.compare("ne", b.logic("and", quadrant, 1), 0)
    flipped = b.compare("ne", b.logic("and", quadrant, 2), 0)
    value = b.select(odd, cosine, sine)
    value = b.select(flipped, b.neg(value), value)
    return value if shift else b.select(b.compare("oeq", x, 0.0), x, value)
