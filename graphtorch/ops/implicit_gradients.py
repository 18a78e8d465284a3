"""How a gamma or beta number moves with its parameter while its quantile stays: -(dF/da) / f, on NumPy arrays.

F and f are the distribution function and the density. F / f is a power series or a continued fraction, and both are
differentiated term by term, so nothing is lost where F or f underflows. Everything is computed in float64.

Sources: Figurnov, Mohamed and Mnih, Implicit reparameterization gradients (2018); NIST Digital Library of Mathematical
Functions, 8.7, 8.9 and 8.17.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphtorch.ops import gamma_function
from graphtorch.ops.special_numerics import in_float64

__all__ = ["beta", "gamma"]

# Terms of a series; what needs more is far outside of where random numbers fall.
_TERMS = 3000
# From this shape on, the expansion about the normal distribution is exact to nine digits.
_NEARLY_NORMAL = 1e5


@in_float64
def gamma(a: Any, x: Any) -> Any:
    """dx/da for x drawn from a gamma distribution of shape a and scale 1."""
    a, x = np.broadcast_arrays(a, x)
    with np.errstate(all="ignore"):
        good = (a > 0) & (x > 0) & np.isfinite(a) & np.isfinite(x)
        normal = good & (a > _NEARLY_NORMAL)
        below = good & ~normal & (x < a + 1)
        above = good & ~normal & ~below
        found = np.where(x == 0, 0.0, np.full(x.shape, np.nan))
        found[normal] = _gamma_normal(a[normal], x[normal])
        found[below] = _gamma_below(a[below], x[below])
        found[above] = _gamma_above(a[above], x[above])
    return found


def _gamma_normal(a: Any, x: Any) -> Any:
    """Cornish and Fisher's expansion x = a + z sqrt(a) + (z^2 - 1) / 3 + ..., differentiated at a fixed z."""
    w = (x - a) / np.sqrt(a)
    z = w - (w * w - 1) / (3 * np.sqrt(a))
    return 1 + z / (2 * np.sqrt(a)) - (z**3 - 7 * z) / (72 * a**1.5)


def _gamma_below(a: Any, x: Any) -> Any:
    """F / f = x / a (1 + x / (a + 1) + x^2 / ((a + 1) (a + 2)) + ...)."""
    term, slope = np.ones_like(a), np.zeros_like(a)
    total, total_slope = term.copy(), slope.copy()
    for n in range(1, _TERMS):
        term, slope = term * (x / (a + n)), (slope - term / (a + n)) * (x / (a + n))
        total, total_slope = total + term, total_slope + slope
        if not np.any(np.abs(slope) > 1e-17 * np.abs(total_slope)):
            break
    return -(x / a) * (total * (np.log(x) - gamma_function.digamma(a + 1)) + total_slope)


def _gamma_above(a: Any, x: Any) -> Any:
    """(1 - F) / f = x / (x + 1 - a - (1 - a) / (x + 3 - a - ...)), evaluated by Lentz's method with its derivative."""
    b, b_slope = x + 1 - a, -1.0
    c, c_slope = np.full_like(a, 1e300), np.zeros_like(a)
    d = 1 / b
    d_slope = d * d
    value, slope = d.copy(), d_slope.copy()
    for n in range(1, _TERMS):
        step, step_slope = -n * (n - a), float(n)
        b = b + 2
        lower = step * d + b
        lower_slope = step_slope * d + step * d_slope + b_slope
        c_slope = b_slope + (step_slope - step / c * c_slope) / c
        c = b + step / c
        d = 1 / lower
        d_slope = -d * d * lower_slope
        change, change_slope = c * d, c_slope * d + c * d_slope
        slope = slope * change + value * change_slope
        value = value * change
        if not np.any((np.abs(change - 1) > 1e-16) | (np.abs(change_slope) > 1e-16)):
            break
    return x * (value * (np.log(x) - gamma_function.digamma(a)) + slope)


@in_float64
def beta(x: Any, a: Any, total: Any) -> Any:
    """dx/da / (1 - x) for x drawn from a beta distribution of a and b = total - a, with b fixed."""
    x, a, total = np.broadcast_arrays(x, a, total)
    with np.errstate(all="ignore"):
        b = total - a
        good = (x > 0) & (x < 1) & (a > 0) & (b > 0)
        below = good & (x * total < a + 1)
        above = good & ~below
        found = np.zeros(x.shape)
        found[below] = _beta_below(x[below], a[below], b[below])
        found[above] = _beta_above(x[above], a[above], b[above])
    return found


def _beta_below(x: Any, a: Any, b: Any) -> Any:
    """F / f = x (1 - x) / a (1 + (a + b) / (a + 1) x + (a + b) (a + b + 1) / ((a + 1) (a + 2)) x^2 + ...)."""
    s = a + b
    term, log_slope = np.ones_like(a), np.zeros_like(a)
    total, total_slope = term.copy(), np.zeros_like(a)
    for n in range(_TERMS):
        term = term * ((s + n) / (a + 1 + n) * x)
        log_slope = log_slope + 1 / (s + n) - 1 / (a + 1 + n)
        total, total_slope = total + term, total_slope + term * log_slope
        if not np.any(term > 1e-17 * total):
            break
    digamma = gamma_function.digamma
    return -(x / a) * (total * (np.log(x) - digamma(a + 1) + digamma(s)) + total_slope)


def _beta_above(x: Any, a: Any, b: Any) -> Any:
    """The same series of the other tail, 1 - F of x being F of 1 - x with a and b exchanged."""
    s, y = a + b, 1 - x
    term, log_slope = np.ones_like(a), np.zeros_like(a)
    total, total_slope = term.copy(), np.zeros_like(a)
    for n in range(_TERMS):
        term = term * ((s + n) / (b + 1 + n) * y)
        log_slope = log_slope + 1 / (s + n)
        total, total_slope = total + term, total_slope + term * log_slope
        if not np.any(term > 1e-17 * total):
            break
    digamma = gamma_function.digamma
    return (x / b) * (total * (np.log(x) - digamma(a) + digamma(s)) + total_slope)
