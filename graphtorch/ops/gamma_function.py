"""The gamma function's logarithm and its derivatives on NumPy arrays, vectorised and without SciPy.

Each is its asymptotic series where the argument is large; smaller arguments are shifted up by the recurrence, negative
ones reflected (Abramowitz and Stegun, 6.1.17, 6.1.41, 6.3.7, 6.3.18, 6.4.10). Everything is computed in float64.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

_LARGE = 10.0
# Bernoulli numbers B_2, B_4, ...
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)

# (-1)^k (zeta(k) - 1) / k from k = 2: the Taylor series of lgamma about 2
_TAYLOR = (
    0.3224670334241132, -0.0673523010531981, 0.020580808427784546, -0.007385551028673986,
    0.0028905103307415234, -0.001192753911703261, 0.0005096695247430425, -0.00022315475845357939,
    9.945751278180853e-05, -4.492623673813314e-05, 2.050721277567069e-05, -9.439488275268397e-06,
    4.374866789907488e-06, -2.039215753801366e-06, 9.55141213040742e-07, -4.492469198764566e-07,
    2.1207184805554665e-07, -1.0043224823968099e-07, 4.7698101693639804e-08, -2.2711094608943164e-08,
    1.0838659214896955e-08, -5.183475041970047e-09, 2.4836745438024785e-09, -1.1921401405860912e-09,
    5.731367241678862e-10, -2.7595228851242334e-10, 1.330476437424449e-10, -6.4229645638381e-11,
    3.1044247747322276e-11, -1.5021384080754142e-11, 7.275974480239079e-12, -3.527742476575915e-12,
)  # fmt: skip


def _shifted(x: Any) -> tuple[Any, Any]:
    """(steps, x + steps) with whole steps that bring positive arguments to 10 and more."""
    steps = np.clip(np.ceil(_LARGE - x), 0, _LARGE)
    return steps, x + steps


def _lgamma_positive(x: Any) -> Any:
    """For x >= 0.5: Stirling's series from 13 on; below, the Taylor series about 2, where lgamma is near zero and a
    difference of large terms would have no digits left, reached by the recurrence.
    """
    large = x >= 13.0
    z = np.where(large, x, 13.0)
    stirling = (z - 0.5) * np.log(z) - z + 0.5 * math.log(2 * math.pi)
    square, power = 1 / (z * z), 1 / z
    for j, b in enumerate(_BERNOULLI, 1):
        stirling += b / (2 * j * (2 * j - 1)) * power
        power = power * square
    z, factor = np.where(large, 2.0, x), np.ones_like(x)
    for _ in range(11):
        above = z > 2.5
        factor = np.where(above, factor * (z - 1.0), factor)
        z = np.where(above, z - 1.0, z)
    low = z < 1.5
    near = np.where(low, z - 1.0, z - 2.0)
    series = np.full_like(near, _TAYLOR[-1])
    for coefficient in _TAYLOR[-2::-1]:
        series = series * near + coefficient
    found = near * (1.0 - np.euler_gamma + near * series)
    found = np.where(low, found - np.log1p(near), found) + np.log(factor)
    return np.where(np.isposinf(x), np.inf, np.where(large, stirling, found))


def lgamma(x: Any) -> Any:
    """log |gamma(x)|; infinite at the poles 0, -1, -2, ..."""
    array = np.asarray(x)
    flat = array.astype(np.float64)
    low = flat < 0.5
    direct = _lgamma_positive(np.where(low, 1.0 - flat, flat))
    # sin(pi x) from the fractional part, which has full precision
    sine = np.abs(np.sin(np.pi * (flat - np.floor(flat))))
    reflected = math.log(math.pi) - np.log(sine) - direct
    result = np.where(low, reflected, direct)
    result = np.where(np.isinf(flat) | (low & (flat == np.floor(flat))), np.inf, result)
    return result.astype(array.dtype)


def digamma(x: Any) -> Any:
    """The derivative of lgamma: -inf at 0 (inf at -0), NaN at the negative integers."""
    array = np.asarray(x)
    flat = array.astype(np.float64)
    low = flat < 0.5
    y = np.where(low, 1.0 - flat, flat)
    steps, z = _shifted(y)
    result = np.log(z) - 0.5 / z
    square = 1 / (z * z)
    power = square
    for j, b in enumerate(_BERNOULLI, 1):
        result -= b / (2 * j) * power
        power = power * square
    for k in range(int(_LARGE)):
        result -= np.where(k < steps, 1 / (y + k), 0.0)
    fraction = flat - np.floor(flat)
    result = np.where(low, result - np.pi / np.tan(np.pi * fraction), result)
    result = np.where(np.isposinf(flat), np.inf, result)
    result = np.where(low & (fraction == 0), np.nan, result)
    result = np.where(flat == 0, -np.copysign(np.inf, flat), result)
    return result.astype(array.dtype)


def hurwitz_zeta(s: float, q: Any) -> Any:
    """The sum of (q + k)^-s over k >= 0, for s > 1, by Euler and Maclaurin's formula; infinite at the poles."""
    flat = np.asarray(q, np.float64)
    finite = flat[np.isfinite(flat)]
    lowest = float(finite.min()) if finite.size else 0.0
    count = max(int(_LARGE), math.ceil(_LARGE - max(lowest, -1000.0)))
    result = np.zeros_like(flat)
    for k in range(count):
        result += np.power(flat + k, -s)
    z = flat + count
    result += np.power(z, 1 - s) / (s - 1) + 0.5 * np.power(z, -s)
    factor, power = s, np.power(z, -s - 1)
    for j, b in enumerate(_BERNOULLI, 1):
        result += b / math.factorial(2 * j) * factor * power
        factor *= (s + 2 * j - 1) * (s + 2 * j)
        power = power / (z * z)
    result = np.where(np.isposinf(flat), 0.0, result)
    return np.where((flat <= 0) & (flat == np.floor(flat)), np.inf, result)


def polygamma(n: int, x: Any) -> Any:
    """The n-th derivative of digamma."""
    if n == 0:
        return digamma(x)
    array = np.asarray(x)
    sign = 1.0 if n % 2 else -1.0
    return np.asarray(sign * math.factorial(n) * hurwitz_zeta(n + 1.0, array)).astype(array.dtype)
