"""Gamma, Poisson and binomial numbers, by rejection: how many words of the generator a number takes is not known.

Each sampler draws its numbers one after the other from one stream of float64 uniform and normal numbers, which is what
makes them equal to PyTorch's after the same seed.

Sources: Marsaglia and Tsang, A simple method for generating gamma variables (2000); Hörmann, The transformed rejection
method for generating Poisson random variables (1993), and The generation of binomial random variates (1993).
"""

from __future__ import annotations

import math
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from graphtorch.tensor.generator import Generator

__all__ = ["Draws", "binomial", "gamma", "poisson"]

Array = NDArray[Any]
# 64-bit numbers fetched at a time.
_AHEAD = 4096
# From this mean on, rejection is faster than counting events.
_MANY = 10


class Draws:
    """A generator's float64 numbers one at a time, fetched in blocks; what was not used goes back at the end.

    A context manager, inside which nobody else may draw.
    """

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self._next = 0
        self._before = 0
        self._block: list[float] = []

    def __enter__(self) -> Draws:
        self._generator._lock.acquire()
        self._start = self._generator._bits.state
        self._fresh = self._generator._fresh
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        generator, used = self._generator, self._before + self._next
        generator._bits.state = self._start
        generator._fresh = self._fresh
        if used:
            generator._random64(used)
        generator._lock.release()

    def uniform(self) -> float:
        """In [0, 1)."""
        if self._next == len(self._block):
            self._before += self._next
            self._block = self._generator._uniform64(_AHEAD).tolist()
            self._next = 0
        value = self._block[self._next]
        self._next += 1
        return value

    def normal(self) -> float:
        """Standard normal; two come from two uniform numbers, and the second waits in the generator for its turn."""
        kept = self._generator._kept
        if kept[1]:
            kept[1] = 0
            return float(kept[0])
        theta = 2.0 * math.pi * self.uniform()
        radius = math.sqrt(-2.0 * math.log1p(-self.uniform()))
        kept[:] = (radius * math.sin(theta), 1)
        return radius * math.cos(theta)


def gamma(draws: Draws, shapes: Array) -> NDArray[np.float64]:
    """Gamma numbers of scale 1, one for each shape parameter; the shape is used in its own precision."""
    single = shapes.dtype != np.float64
    return np.array([_gamma(draws, alpha, single) for alpha in shapes.ravel().tolist()]).reshape(shapes.shape)


def _gamma(draws: Draws, alpha: float, single: bool) -> float:
    scale = 1.0
    if alpha < 1.0:
        if alpha == 0.0:
            return 0.0
        # A number of shape alpha + 1 times U^(1 / alpha) has shape alpha, and is seldom rejected.
        inverse = float(np.float32(1) / np.float32(alpha)) if single else 1.0 / alpha
        scale = (1 - draws.uniform()) ** inverse
        alpha = float(np.float32(alpha) + np.float32(1)) if single else alpha + 1.0
    third = float(np.float32(1) / np.float32(3))
    d = float(np.float32(alpha) - np.float32(third)) if single else alpha - third
    c = 1.0 / math.sqrt(9.0 * d)
    squeeze = float(np.float32(0.0331))
    while True:
        x, y = 0.0, 0.0
        while y <= 0:
            x = draws.normal()
            y = 1.0 + c * x
        v = y * y * y
        u = 1 - draws.uniform()
        xx = x * x
        if u < 1.0 - squeeze * xx * xx or math.log(u) < 0.5 * xx + d * (1.0 - v + math.log(v)):
            return scale * d * v


def poisson(draws: Draws, rates: Array) -> NDArray[np.float64]:
    """Numbers of events, one for each rate. Raises RuntimeError for a negative rate."""
    if not (rates >= 0).all():
        raise RuntimeError("invalid Poisson rate, expected rate to be non-negative")
    return np.array([_poisson(draws, rate) for rate in rates.ravel().tolist()], np.float64).reshape(rates.shape)


def _poisson(draws: Draws, rate: float) -> int:
    if rate == 0:
        return 0
    if rate < _MANY:
        # Events before time 1: waiting times are exponential, so a product of uniform numbers falls below exp(-rate).
        count, product, least = 0, draws.uniform(), math.exp(-rate)
        while product > least:
            count += 1
            product *= draws.uniform()
        return count
    root, log_rate = math.sqrt(rate), math.log(rate)
    b = 0.931 + 2.53 * root
    a = -0.059 + 0.02483 * b
    inverse_alpha = 1.1239 + 1.1328 / (b - 3.4)
    v_r = 0.9277 - 3.6224 / (b - 2)
    while True:
        u = draws.uniform() - 0.5
        v = draws.uniform()
        us = 0.5 - abs(u)
        if us == 0:
            continue
        k = math.floor((2 * a / us + b) * u + rate + 0.43)
        if us >= 0.07 and v <= v_r:
            return k
        if k < 0 or (us < 0.013 and v > us):
            continue
        bound = -rate + k * log_rate - math.lgamma(k + 1)
        if v == 0 or math.log(v) + math.log(inverse_alpha) - math.log(a / (us * us) + b) <= bound:
            return k


def binomial(draws: Draws, counts: Array, probabilities: Array) -> Array:
    """Numbers of successes among `counts` trials, arrays of one shape and dtype, in which the arithmetic is done."""
    real = counts.dtype.type if counts.dtype in (np.float32, np.float64) else np.float32
    with np.errstate(all="ignore"):
        found = [
            _binomial(draws, real(n), real(p), real)
            for n, p in zip(counts.ravel().tolist(), probabilities.ravel().tolist(), strict=True)
        ]
    return np.array(found).astype(counts.dtype).reshape(counts.shape)


def _binomial(draws: Draws, count: Any, probability: Any, real: Any) -> Any:
    if count <= 0 or probability <= 0:
        return 0
    if probability >= 1:
        return count
    if math.isnan(probability):
        return math.nan
    rare = probability <= 0.5
    p = probability if rare else real(1) - probability
    sampler = _many_successes if count * p >= _MANY else _few_successes
    found = sampler(draws, count, p, real)
    return found if rare else count - found


def _few_successes(draws: Draws, count: Any, p: Any, real: Any) -> int:
    """Adds up geometric waiting times until the trials are used up."""
    log_failure = np.log1p(-p)
    trials, successes = real(0), 0
    while True:
        trials += np.ceil(np.log(real(draws.uniform())) / log_failure)
        if trials > count:
            return successes
        successes += 1


def _many_successes(draws: Draws, count: Any, p: Any, real: Any) -> Any:
    """Hörmann's algorithm BTRS."""
    deviation = np.sqrt(count * p * (1 - p))
    b = real(1.15) + real(2.53) * deviation
    a = real(-0.0873) + real(0.0248) * b + real(0.01) * p
    c = count * p + real(0.5)
    v_r = real(0.92) - real(4.2) / b
    r = p / (1 - p)
    alpha = (real(2.83) + real(5.1) / b) * deviation
    m = np.floor((count + 1) * p)
    while True:
        u = real(draws.uniform() - 0.5)
        v = real(draws.uniform())
        us = real(0.5) - abs(u)
        k = np.floor((2 * a / us + b) * u + c)
        if us >= 0.07 and v <= v_r:
            return k
        if not 0 <= k <= count:
            continue
        left = np.log(v * alpha / (a / (us * us) + b))
        bound = (
            (m + real(0.5)) * np.log((m + 1) / (r * (count - m + 1)))
            + (count + 1) * np.log((count - m + 1) / (count - k + 1))
            + (k + real(0.5)) * np.log(r * (count - k + 1) / (k + 1))
            + (_tail(m) + _tail(count - m) - _tail(k) - _tail(count - k))
        )
        if left <= bound:
            return k


def _tail(k: Any) -> Any:
    """What Stirling's formula for log k! leaves out."""
    k = float(k)
    if k <= 9:
        whole = 0.5 * math.log(2 * math.pi) + (k + 0.5) * math.log(k + 1) - (k + 1)
        return math.lgamma(k + 1) - whole
    square = (k + 1) ** 2
    return (1.0 / 12 - (1.0 / 360 - 1.0 / 1260 / square) / square) / (k + 1)
