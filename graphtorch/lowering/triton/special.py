"""Special functions in Triton: the helper functions that `elementwise.py` calls, in float64."""

from __future__ import annotations

_EULER_MACLAURIN = (
    1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160, -691 / 1307674368000, 1 / 74724249600,
    -3617 / 10670622842880000,
)  # fmt: skip
_DIGAMMA = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12)


def _euler_maclaurin() -> str:
    lines = []
    for j, coefficient in enumerate(_EULER_MACLAURIN):
        lines.append(f"    total += {coefficient!r} * factor")
        lines.append(f"    factor = factor * (s + {2 * j + 1}.0) * (s + {2 * j + 2}.0) / (start * start)")
    return "\n".join(lines)


def _asymptotic_digamma() -> str:
    lines = []
    for coefficient in _DIGAMMA:
        lines.append(f"    result -= {coefficient!r} * power")
        lines.append("    power = power * square")
    return "\n".join(lines)


# Name -> the polynomial of degree 1, the next from the two before (degrees k, k - 1), and what is done to x first.
POLYNOMIALS = {
    "chebyshev_polynomial_t": ("x", "2.0 * x * current - before", "x"),
    "chebyshev_polynomial_u": ("2.0 * x", "2.0 * x * current - before", "x"),
    "chebyshev_polynomial_v": ("2.0 * x - 1.0", "2.0 * x * current - before", "x"),
    "chebyshev_polynomial_w": ("2.0 * x + 1.0", "2.0 * x * current - before", "x"),
    "shifted_chebyshev_polynomial_t": ("x", "2.0 * x * current - before", "2.0 * x - 1.0"),
    "shifted_chebyshev_polynomial_u": ("2.0 * x", "2.0 * x * current - before", "2.0 * x - 1.0"),
    "shifted_chebyshev_polynomial_v": ("2.0 * x - 1.0", "2.0 * x * current - before", "2.0 * x - 1.0"),
    "shifted_chebyshev_polynomial_w": ("2.0 * x + 1.0", "2.0 * x * current - before", "2.0 * x - 1.0"),
    "hermite_polynomial_h": ("2.0 * x", "2.0 * x * current - 2.0 * degree * before", "x"),
    "hermite_polynomial_he": ("x", "x * current - degree * before", "x"),
    "laguerre_polynomial_l": (
        "1.0 - x", "((2.0 * degree + 1.0 - x) * current - degree * before) / (degree + 1.0)", "x",
    ),
    "legendre_polynomial_p": (
        "x", "((2.0 * degree + 1.0) * x * current - degree * before) / (degree + 1.0)", "x",
    ),
}  # fmt: skip


def _polynomial(name: str) -> str:
    first, step, shift = POLYNOMIALS[name]
    return f"""
@triton.jit
def _{name}(x, n):
    # All degrees up to the largest wanted, each kept where it is wanted.
    n = libdevice.trunc(n)
    x = {shift}
    before = x * 0.0 + 1.0
    current = {first}
    found = tl.where(n == 0.0, before, tl.where(n == 1.0, current, 0.0))
    degree = tl.max(n, 0) * 0.0 + 1.0
    for _ in range(1, tl.maximum(tl.max(n, 0), 1.0).to(tl.int32)):
        after = {step}
        before = current
        current = after
        degree += 1.0
        found = tl.where(n == degree, current, found)
    return found
"""


SPECIAL_HELPERS = {
    "_digamma": f"""
@triton.jit
def _digamma(x):
    low = x < 0.5
    z = tl.where(low, 1.0 - x, x)
    result = z * 0.0
    for _ in range(10):
        near = z < 10.0
        result = tl.where(near, result - 1.0 / z, result)
        z = tl.where(near, z + 1.0, z)
    result += libdevice.log(z) - 0.5 / z
    square = 1.0 / (z * z)
    power = square
{_asymptotic_digamma()}
    fraction = x - libdevice.floor(x)
    turned = fraction * 3.141592653589793
    result = tl.where(low, result - 3.141592653589793 * libdevice.cos(turned) / libdevice.sin(turned), result)
    result = tl.where(x == float("inf"), x, result)
    result = tl.where(low & (fraction == 0), float("nan"), result)
    return tl.where(x == 0, -1.0 / x, result)
""",
    "_zeta": f"""
@triton.jit
def _zeta(s, q):
    # The sum of (q + k) to the power of -s, by Euler and Maclaurin's formula from 12 on.
    inside = tl.abs(q) < float("inf")
    lowest = tl.min(tl.where(inside, q, 0.0), 0)
    start = q
    total = q * 0.0
    for _ in range(0, (12.0 + tl.minimum(tl.maximum(0.0 - lowest, 0.0), 1000000.0)).to(tl.int32)):
        below = start < 12.0
        total = tl.where(below, total + libdevice.pow(start, 0.0 - s), total)
        start = tl.where(below, start + 1.0, start)
    total += libdevice.pow(start, 1.0 - s) / (s - 1.0) + 0.5 * libdevice.pow(start, 0.0 - s)
    factor = s * libdevice.pow(start, -1.0 - s)
{_euler_maclaurin()}
    whole = q == libdevice.floor(q)
    found = tl.where(q == float("inf"), 0.0, total)
    found = tl.where((q <= 0) & whole, float("inf"), found)
    found = tl.where((q < 0) & (whole == 0) & (s != libdevice.floor(s)), float("nan"), found)
    return tl.where(s == 1.0, float("inf"), tl.where(s < 1.0, float("nan"), found))
""",
    "_polygamma": """
@triton.jit
def _polygamma(x, n):
    degree = n.to(tl.int32)
    factorial = libdevice.exp(libdevice.lgamma(n + 1.0))
    factorial = tl.where(n < 25.0, libdevice.rint(factorial), factorial)
    found = tl.where(degree % 2 == 1, factorial, 0.0 - factorial) * _zeta(n + 1.0, x)
    return tl.where(degree == 0, _digamma(x), found)
""",
    "_incomplete_gamma": """
@triton.jit
def _incomplete_gamma(a, x, UPPER: tl.constexpr):
    # The lower function by its series, the upper by its continued fraction (Lentz), each where it converges fast.
    good = (a > 0) & (x > 0) & (a < float("inf")) & (x < float("inf"))
    b = tl.where(good, a, 1.0)
    y = tl.where(good, x, 1.0)
    scale = libdevice.exp(b * libdevice.log(y) - y - libdevice.lgamma(b))
    series = y < b + 1.0
    term = 1.0 / b
    total = term
    count = b
    steps = 0
    more = 1
    while (more != 0) & (steps < 2000):
        count += 1.0
        term = term * tl.where(series, y, 0.0) / count
        total += term
        more = tl.max((tl.abs(term) > tl.abs(total) * 1e-17).to(tl.int32), 0)
        steps += 1
    d = tl.where(series, 1.0, y + 1.0 - b)
    c = d * 0.0 + 1e300
    e = 1.0 / tl.where(d == 0, 1e-300, d)
    fraction = e
    i = tl.max(b, 0) * 0.0 + 1.0
    steps = 0
    more = 1
    while (more != 0) & (steps < 2000):
        step = (b - i) * i
        d += 2.0
        e = step * e + d
        e = 1.0 / tl.where(tl.abs(e) < 1e-300, 1e-300, e)
        c = d + step / c
        c = tl.where(tl.abs(c) < 1e-300, 1e-300, c)
        fraction = fraction * e * c
        more = tl.max((tl.abs(tl.where(series, 1.0, e * c) - 1.0) > 1e-16).to(tl.int32), 0)
        i += 1.0
        steps += 1
    lower = scale * total
    upper = scale * fraction
    whole = ((a == 0) & (x > 0)) | (x == float("inf"))
    nothing = (a < 0) | (x < 0) | (a != a) | (x != x) | ((a == 0) & (x == 0))
    nothing = nothing | ((a == float("inf")) & (x == float("inf")))
    if UPPER:
        found = tl.where(good, tl.where(series, 1.0 - lower, upper), tl.where(whole, 0.0, 1.0))
    else:
        found = tl.where(good, tl.where(series, lower, 1.0 - upper), tl.where(whole, 1.0, 0.0))
    return tl.where(nothing, float("nan"), found)
""",
    "_modified_bessel": """
@triton.jit
def _modified_bessel(x, ORDER: tl.constexpr, SCALED: tl.constexpr):
    # The power series up to 20, the asymptotic one beyond.
    size = tl.abs(x)
    small = size <= 20.0
    near = tl.where(small, size, 0.0)
    term = near * 0.0 + 1.0
    if ORDER == 1:
        term = near * 0.5
    total = term
    k = tl.max(near, 0) * 0.0 + 1.0
    for _ in range(59):
        term = term * (near * near * 0.25) / (k * (k + ORDER))
        total += term
        k += 1.0
    far = tl.where(small, 20.0, size)
    term = far * 0.0 + 1.0
    series = term
    k = k * 0.0 + 1.0
    for _ in range(29):
        odd = 2.0 * k - 1.0
        term = term * (odd * odd - 4.0 * ORDER * ORDER) / (k * 8.0 * far)
        series += term
        k += 1.0
    series = series / libdevice.sqrt(6.283185307179586 * far)
    if SCALED:
        found = tl.where(small, libdevice.exp(0.0 - near) * total, series)
        found = tl.where(size == float("inf"), 0.0, found)
    else:
        # In two factors: the exponential alone may be too large.
        root = libdevice.exp(far * 0.5)
        found = tl.where(small, total, series * root * root)
        found = tl.where(size == float("inf"), size, found)
    if ORDER == 1:
        found = tl.where(x < 0, 0.0 - found, found)
    return tl.where(x != x, x, found)
""",
    "_bessel_k": """
@triton.jit
def _bessel_k(x, ORDER: tl.constexpr, SCALED: tl.constexpr):
    # The trapezoidal rule for the integral over t of exp(-x (cosh t - 1)) cosh(ORDER t), which converges like
    # exp(-pi^2 / step), with steps that large numbers make smaller; below 1e-8 the leading terms.
    tiny = x < 1e-8
    y = tl.where(tiny | (x != x) | (x == float("inf")), 1.0, x)
    step = 0.125 / libdevice.sqrt(tl.maximum(y / 20.0, 1.0))
    total = y * 0.0 + 0.5
    t = step
    for _ in range(200):
        sinh = libdevice.sinh(t * 0.5)
        term = libdevice.exp(-2.0 * y * sinh * sinh)
        if ORDER == 1:
            term = term * (1.0 + 2.0 * sinh * sinh)
        total += term
        t += step
    found = total * step
    if SCALED == 0:
        found = found * libdevice.exp(0.0 - y)
    leading = 1.0 / x
    if ORDER == 0:
        leading = 0.11593151565841245 - libdevice.log(x)
    if SCALED:
        leading = leading * (1.0 + x)
    found = tl.where(tiny, leading, found)
    found = tl.where(x == float("inf"), 0.0, found)
    found = tl.where(x == 0, float("inf"), found)
    return tl.where((x < 0) | (x != x), float("nan"), found)
""",
    "_spherical_bessel": """
@triton.jit
def _spherical_bessel(x):
    small = tl.abs(x) < 1e-3
    square = x * x
    y = tl.where(small, 1.0, x)
    found = tl.where(small, 1.0 - square / 6.0 + square * square / 120.0, libdevice.sin(y) / y)
    return tl.where(tl.abs(x) == float("inf"), 0.0, found)
""",
    "_normal_quantile": """
@triton.jit
def _normal_quantile(p):
    # Newton's steps on the logarithm of the lower tail, which is concave: they converge from below.
    low = tl.minimum(p, 1.0 - p)
    inside = (low > 0) & (low <= 0.5)
    target = libdevice.log(tl.where(inside, low, 0.5))
    x = 0.0 - libdevice.sqrt(tl.maximum(-2.0 * target - 1.8378770664093453, 0.0))
    for _ in range(12):
        scaled = libdevice.erfcx(x * -0.7071067811865476)
        tail = libdevice.log(0.5 * scaled) - 0.5 * x * x
        x = x - (tail - target) * scaled * 1.2533141373155003
    x = tl.where(p == 0.5, 0.0, tl.where(inside, x, tl.where(low == 0, float("-inf"), float("nan"))))
    return tl.where(p > 0.5, 0.0 - x, x)
""",
    "_gcd": """
@triton.jit
def _gcd(a, b):
    # Euclid's algorithm; the numbers of 64 bits that need most steps are neighbours in Fibonacci's sequence.
    a = tl.where(a < 0, 0 - a, a)
    b = tl.where(b < 0, 0 - b, b)
    for _ in range(93):
        rest = tl.where(b != 0, a % tl.where(b != 0, b, b + 1), b)
        a = tl.where(b != 0, b, a)
        b = rest
    return a
""",
    "_lcm": """
@triton.jit
def _lcm(a, b):
    common = _gcd(a, b)
    made = tl.where(common != 0, a // tl.where(common != 0, common, common + 1), a) * b
    return tl.where(made < 0, 0 - made, made)
""",
    "_next_after": """
@triton.jit
def _next_after(x, y, TYPE: tl.constexpr, BITS: tl.constexpr):
    # The bits of floating-point numbers, as integers, are in their order on each side of zero.
    bits = x.to(TYPE).to(BITS, bitcast=True)
    one = tl.full([1], 1, BITS)
    away = (x < y) == (x > 0)
    moved = tl.where(away, bits + one, bits - one)
    smallest = tl.where(y > 0, one, one | tl.full([1], -1, BITS) << (TYPE.primitive_bitwidth - 1))
    moved = tl.where(x == 0, smallest, moved).to(TYPE, bitcast=True)
    made = tl.where(x == y, y.to(TYPE), moved)
    return tl.where((x != x) | (y != y), (x + y).to(TYPE), made)
""",
    "_split_single": """
@triton.jit
def _split_single(x):
    # Numbers below the smallest normal one are scaled by 2^32 first.
    small = tl.abs(x) < 1.1754943508222875e-38
    bits = tl.where(small, x * 4294967296.0, x).to(tl.int32, bitcast=True)
    power = ((bits >> 23) & 0xFF) - 126 - tl.where(small, 32, 0)
    whole = (x != 0) & (tl.abs(x) < float("inf"))
    value = ((bits & -0x7F800001) | 0x3F000000).to(tl.float32, bitcast=True)
    return tl.where(whole, value, x), tl.where(whole, power, 0)
""",
    "_split_double": """
@triton.jit
def _split_double(x):
    small = tl.abs(x) < 2.2250738585072014e-308
    bits = tl.where(small, x * 4294967296.0 * 4294967296.0, x).to(tl.int64, bitcast=True)
    power = ((bits >> 52) & 0x7FF).to(tl.int32) - 1022 - tl.where(small, 64, 0)
    whole = (x != 0) & (tl.abs(x) < float("inf"))
    value = ((bits & -0x7FF0000000000001) | 0x3FE0000000000000).to(tl.float64, bitcast=True)
    return tl.where(whole, value, x), tl.where(whole, power, 0)
""",
    **{f"_{name}": _polynomial(name) for name in POLYNOMIALS},
}
