"""Hurwitz's zeta function, the incomplete gamma functions and the modified Bessel functions I0 and I1 on NumPy arrays.

Zeta: Euler and Maclaurin's summation. Incomplete gamma: the series below a + 1, the continued fraction above. Bessel:
the power series up to 20, then Hankel's asymptotic series. All compute in float64. Formulas: NIST Digital Library of
Mathematical Functions, chapters 8, 10 and 25.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphtorch.ops import gamma_function

# B_2j / (2j)!
_EULER_MACLAURIN = (
    0.08333333333333333, -0.001388888888888889, 3.306878306878307e-05, -8.267195767195768e-07,
    2.08767569878681e-08, -5.284190138687493e-10, 1.3382536530684679e-11, -3.3896802963225827e-13,
    8.586062056277845e-15, -2.174868698558062e-16, 5.5090028283602295e-18, -1.3954464685812522e-19,
    3.534707039629467e-21,
)  # fmt: skip


def in_float64(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compute in float64 and round once to the operands' own type."""

    def run(*arrays: Any) -> Any:
        own = np.asarray(arrays[-1]).dtype
        kind = own if own.kind not in "iub" else np.dtype(np.float64)
        return np.asarray(function(*[np.asarray(a).astype(np.float64) for a in arrays])).astype(kind)

    return run


@in_float64
def zeta(s: Any, q: Any) -> Any:
    """Hurwitz's zeta function, the sum of (q + k)^-s; NaN for s < 1, infinite at its poles."""
    s, q = np.broadcast_arrays(s, q)
    total, start = np.zeros(s.shape), q.astype(np.float64)
    lowest = float(np.min(np.where(np.isfinite(q), q, 0.0), initial=0.0))
    for _ in range(12 + int(min(max(-lowest, 0.0), 1e6))):
        below = start < 12.0
        total = np.where(below, total + np.power(start, -s), total)
        start = np.where(below, start + 1.0, start)
    tail = np.power(start, 1.0 - s) / (s - 1.0) + 0.5 * np.power(start, -s)
    factor = s * np.power(start, -s - 1.0)
    for j, coefficient in enumerate(_EULER_MACLAURIN):
        tail = tail + coefficient * factor
        factor = factor * (s + (2 * j + 1)) * (s + (2 * j + 2)) / (start * start)
    found = np.where(np.isposinf(q), 0.0, total + tail)
    found = np.where((q <= 0) & (q == np.floor(q)), np.inf, found)
    found = np.where((q < 0) & (q != np.floor(q)) & (s != np.floor(s)), np.nan, found)
    return np.where(s == 1.0, np.inf, np.where(s < 1.0, np.nan, found))


def _regularized(a: Any, x: Any) -> tuple[Any, Any, Any]:
    """The lower incomplete gamma function by its series, the upper by its continued fraction, and which one is good."""
    scale = np.exp(a * np.log(np.where(x > 0, x, 1.0)) - x - gamma_function.lgamma(a))
    by_series = x < a + 1.0
    term = 1.0 / a
    total, denominator = term.copy(), a.copy()
    for _ in range(2000):
        denominator = denominator + 1.0
        term = term * np.where(by_series, x, 0.0) / denominator
        total = total + term
        if not np.any(np.abs(term) > np.abs(total) * 1e-17):
            break
    # Lentz's method
    tiny = 1e-300
    b = np.where(by_series, 1.0, x + 1.0 - a)
    c = np.full_like(b, 1.0 / tiny)
    d = 1.0 / np.where(b == 0, tiny, b)
    fraction = d.copy()
    for i in range(1, 2000):
        step = -i * (i - a)
        b = b + 2.0
        d = step * d + b
        d = 1.0 / np.where(np.abs(d) < tiny, tiny, d)
        c = b + step / c
        c = np.where(np.abs(c) < tiny, tiny, c)
        change = d * c
        fraction = fraction * change
        if not np.any(np.abs(np.where(by_series, 1.0, change) - 1.0) > 1e-16):
            break
    return scale * total, scale * fraction, by_series


def _incomplete(a: Any, x: Any, upper: bool) -> Any:
    a, x = np.broadcast_arrays(a, x)
    good = (a > 0) & (x > 0) & np.isfinite(a) & np.isfinite(x)
    lower, higher, by_series = _regularized(np.where(good, a, 1.0), np.where(good, x, 1.0))
    found = np.where(by_series, 1.0 - lower, higher) if upper else np.where(by_series, lower, 1.0 - higher)
    bad = (a < 0) | (x < 0) | np.isnan(a) | np.isnan(x) | ((a == 0) & (x == 0)) | (np.isinf(a) & np.isinf(x))
    whole = ((a == 0) & (x > 0)) | np.isposinf(x)  # all of the mass is below x
    edge = np.where(whole, 0.0, 1.0) if upper else np.where(whole, 1.0, 0.0)
    return np.where(bad, np.nan, np.where(good, found, edge))


@in_float64
def igamma(a: Any, x: Any) -> Any:
    """The regularised lower incomplete gamma function."""
    return _incomplete(a, x, False)


@in_float64
def igammac(a: Any, x: Any) -> Any:
    """The regularised upper incomplete gamma function."""
    return _incomplete(a, x, True)


# -- Bessel -----------------------------------------------------------------------------------------------------------


def _bessel(order: int, x: Any) -> Any:
    """exp(-x) I_order(x) for x >= 0."""
    small = x <= 20.0
    near = np.where(small, x, 0.0)
    quarter = near * near / 4.0
    term = np.ones_like(near) if order == 0 else near / 2.0
    total = term.copy()
    for k in range(1, 60):
        term = term * quarter / (k * (k + order))
        total = total + term
    far = np.where(small, 20.0, x)
    term = np.ones_like(far)
    series = term.copy()
    for k in range(1, 30):
        term = -term * (4.0 * order * order - (2 * k - 1) ** 2) / (k * 8.0 * far)
        series = series + term
    return np.where(small, np.exp(-near) * total, series / np.sqrt(2.0 * np.pi * far))


def _unscaled(scaled: Any, x: Any) -> Any:
    # Halves of the exponential, because the whole overflows before the product does.
    half = np.exp(x / 2.0)
    return np.where(np.isposinf(x), np.inf, scaled * half * half)


@in_float64
def i0(x: Any) -> Any:
    """The modified Bessel function of order 0."""
    return _unscaled(_bessel(0, np.abs(x)), np.abs(x))


@in_float64
def i0e(x: Any) -> Any:
    """exp(-|x|) I0(x)."""
    return _bessel(0, np.abs(x))


@in_float64
def i1(x: Any) -> Any:
    """The modified Bessel function of order 1."""
    return np.copysign(_unscaled(_bessel(1, np.abs(x)), np.abs(x)), x)


@in_float64
def i1e(x: Any) -> Any:
    """exp(-|x|) I1(x)."""
    return np.copysign(_bessel(1, np.abs(x)), x)
