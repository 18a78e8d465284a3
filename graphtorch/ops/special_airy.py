"""Airy's function Ai on arrays, by its integral along a line through the saddle point of the integrand.

Source: NIST Digital Library of Mathematical Functions, 9.5.4 and 9.7.9.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphtorch.ops.special_functions import unary_special
from graphtorch.ops.special_numerics import in_float64

__all__ = ["airy_ai"]

_FAR = -8.0  # below, the asymptotic series is exact
_HEIGHT = 0.7  # least distance of the line from the real axis: large enough to decay, small enough not to cancel
_STEP = 0.04


def _by_integral(x: Any) -> Any:
    """Ai(x) = 1 / pi times the integral of Re exp(i (t^3 / 3 + x t)) over t = u + i c, u >= 0."""
    c = np.sqrt(np.maximum(x, _HEIGHT**2))
    # With t = u + i c the exponent is -c u^2 + i (u^3 / 3 + (x - c^2) u) + c^3 / 3 - x c.
    total = np.full(x.shape, 0.5)
    for n in range(1, math.ceil(math.sqrt(40 / _HEIGHT) / _STEP)):
        u = n * _STEP
        total += np.exp(-c * u * u) * np.cos(u**3 / 3 + (x - c * c) * u)
    return np.exp(c**3 / 3 - x * c) * total * (_STEP / math.pi)


def _far_below(x: Any) -> Any:
    """The oscillating expansion for x far below 0."""
    z = (2 / 3) * (-x) ** 1.5
    even, odd, term = np.ones_like(z), np.zeros_like(z), np.ones_like(z)
    for k in range(1, 20):
        term = term * ((6 * k - 5) * (6 * k - 3) * (6 * k - 1)) / (216 * k * (2 * k - 1)) / z
        sign = -1 if k // 2 % 2 else 1
        if k % 2:
            odd = odd + sign * term
        else:
            even = even + sign * term
    phase = z - math.pi / 4
    return (np.cos(phase) * even + np.sin(phase) * odd) / (math.sqrt(math.pi) * (-x) ** 0.25)


@in_float64
def airy(x: Any) -> Any:
    """Ai(x); NaN at infinity, 0 from 103.892 on."""
    with np.errstate(all="ignore"):
        inside = (x > _FAR) & (x < 103.892)
        found = np.where(inside, _by_integral(np.where(inside, x, 0.0)), 0.0)
        below = x <= _FAR
        found = np.where(below, _far_below(np.where(below, x, _FAR)), found)
        return np.where(np.isfinite(x), found, np.nan)


airy_ai = unary_special("special_airy_ai", airy, None, low=-12.0, high=8.0)
