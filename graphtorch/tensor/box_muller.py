"""Fused multiply-add and the blockwise Box-Muller transform, rounded where PyTorch's CPU kernels round.

PyTorch's kernels are compiled with fused multiply-add and, for float32, evaluate log, sin and cos by the Cephes
polynomials (https://www.netlib.org/cephes/, logf.c and sinf.c). NumPy has neither, and a more exact logarithm would
give other numbers; so both are spelled out here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

__all__ = ["fma", "normal_fill"]

Array = NDArray[Any]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

_ROWS = 2048  # blocks of 16 transformed at a time: the temporaries stay in the L2 cache


def _float32(*values: float) -> list[float]:
    """The numbers rounded to float32, held as Python floats so that they take part in float64 arithmetic."""
    return [float(np.float32(value)) for value in values]


# Cephes' coefficients, highest power first.
_LOG = _float32(
    7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
    -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
)  # fmt: skip
_SIN = _float32(-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
_COS = _float32(2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
# ln 2 and pi / 4 as sums of parts with few significant bits, so that their products with small integers are exact.
_LN2_LOW, _LN2_HIGH = _float32(-2.12194440e-4, 0.693359375)
_PI_4 = _float32(0.78515625, 2.4187564849853515625e-4, 3.77489497744594108e-8)
_4_PI = np.float32(1.27323954473516)
_SQRT_HALF = np.float32(0.707106781186547524)
_TWO_PI = np.float32(6.283185307179586)


def fma(values: Array, scale: float, shift: float) -> Array:
    """``values * scale + shift`` with a single rounding, in the dtype of `values` (float32 or float64).

    scale, shift: numbers of that dtype (a Python float counts as float64 and is rounded to it first).
    """
    if values.dtype == np.float32:
        scale32, shift32 = np.float32(scale), np.float32(shift)
        if shift32 == 0:
            return values * scale32 + shift32  # the sum turns -0 into 0
        # The product of two float32 is exact in float64.
        return _add_to_odd(values.astype(np.float64) * np.float64(scale32), np.float64(shift32)).astype(np.float32)
    scale, shift = float(scale), float(shift)
    if shift == 0:
        return values * scale + shift
    if scale == 1:
        return values + shift
    if max(abs(scale), abs(shift)) > 2.0**900:  # splitting the factors would overflow
        return values * scale + shift
    # Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums: proved algorithms using rounding to odd",
    # IEEE Transactions on Computers 57 (2008).
    high, low = _two_product(values, np.float64(scale))
    sum_low, rest = _two_sum(low, np.float64(shift))
    total, error = _two_sum(high, sum_low)
    return total + _add_to_odd(error, rest)


def _two_sum(a: Any, b: Any) -> tuple[F64, F64]:
    """The rounded sum and its rounding error (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _two_product(a: F64, b: np.float64) -> tuple[F64, F64]:
    """The rounded product and its rounding error (Dekker)."""
    product = a * b
    a_high, a_low = _split(a)
    b_high, b_low = _split(b)
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def _split(a: Any) -> tuple[Any, Any]:
    """A float64 as the sum of two with at most 26 significant bits each (Veltkamp)."""
    scaled = a * float(2**27 + 1)
    high = scaled - (scaled - a)
    return high, a - high


def _add_to_odd(a: F64, b: Any) -> F64:
    """The sum rounded to odd: of the two neighbours of an inexact sum the one whose last bit is set.

    Rounding that once more, to fewer bits, gives what rounding the exact sum would.
    """
    total, error = _two_sum(a, b)
    even = (error != 0) & (total.view(np.int64) & 1 == 0)
    return np.where(even, np.nextafter(total, np.copysign(np.inf, error)), total)


def normal_fill(unit: Array, mean: float, std: float) -> Array:
    """Normal numbers from uniform ones in [0, 1), by the Box-Muller transform on blocks of 16.

    unit: shape (16 k,), float32 or float64; in each block the first 8 give the radii, the last 8 the angles. Returns an
    array of the same shape and dtype: in each block 8 cosines, then 8 sines.
    """
    blocks = unit.reshape(-1, 2, 8)
    out = np.empty_like(blocks)
    transform = _polar32 if unit.dtype == np.float32 else _polar64
    for start in range(0, len(blocks), _ROWS):
        rows = blocks[start : start + _ROWS]
        radius, cosine, sine = transform(1 - rows[:, 0], rows[:, 1])
        out[start : start + _ROWS, 0] = fma(radius * cosine, std, mean)
        out[start : start + _ROWS, 1] = fma(radius * sine, std, mean)
    return out.reshape(-1)


def _polar64(radial: F64, turn: F64) -> tuple[F64, F64, F64]:
    theta = (2 * np.pi) * turn
    return np.sqrt(-2 * np.log(radial)), np.cos(theta), np.sin(theta)


def _polar32(radial: F32, turn: F32) -> tuple[F32, F32, F32]:
    sine, cosine = _sincos32(_TWO_PI * turn)
    return np.sqrt(np.float32(-2) * _log32(radial)), cosine, sine


def _fma32(a: Array, b: Any, c: Any) -> F64:
    """Fused multiply-add of float32 numbers held in float64.

    Rounds twice (to float64, then to float32), which can be a unit in the last place off about once in 2**29.
    """
    result = a * b
    result += c
    np.copyto(result, result.astype(np.float32))
    return cast(F64, result)


def _round32(a: F64) -> F64:
    return cast(F64, a.astype(np.float32).astype(np.float64))


def _horner32(coefficients: Sequence[float], x: F64) -> F64:
    result = _fma32(x, coefficients[0], coefficients[1])
    for coefficient in coefficients[2:]:
        result = _fma32(result, x, coefficient)
    return result


def _log32(x: F32) -> F32:
    """Natural logarithm of normal positive numbers."""
    # x = mantissa * 2**exponent with the mantissa in [1/2, 1), then in [sqrt(1/2), sqrt(2)).
    bits = x.view(np.int32)
    mantissa = (bits & 0x7FFFFF | 0x3F000000).view(np.float32)
    small = mantissa < _SQRT_HALF
    e = ((bits >> 23) - 126 - small).astype(np.float64)
    m = mantissa.astype(np.float64) * (small + 1.0) - 1.0
    z = _round32(m * m)
    y = _round32(_horner32(_LOG, m) * m)
    y = _fma32(y, z, _round32(e * _LN2_LOW))
    y = _round32(y - 0.5 * z)
    return cast(F32, _fma32(e, _LN2_HIGH, _round32(m + y)).astype(np.float32))


def _sincos32(x: F32) -> tuple[F32, F32]:
    """Sine and cosine of numbers in [0, 2 pi]."""
    octant = ((x * _4_PI).astype(np.int32) + 1) & ~1
    j = octant.astype(np.float64)
    r = x.astype(np.float64)
    for part in _PI_4:
        r = _fma32(j, -part, r)
    z = _round32(r * r)
    cosine = _round32(_fma32(_round32(_horner32(_COS, z) * z), z, -0.5 * z) + 1.0).astype(np.float32)
    sine = _fma32(_round32(_horner32(_SIN, z) * z), r, r).astype(np.float32)
    # Exchange the two in every other octant and set their signs, on the bits: selecting by mask takes several times as
    # long.
    s, c = sine.view(np.int32), cosine.view(np.int32)
    exchange = (s ^ c) & -(octant >> 1 & 1)
    s ^= exchange ^ (octant & 4) << 29
    c ^= exchange ^ (octant + 2 & 4) << 29
    return sine, cosine
