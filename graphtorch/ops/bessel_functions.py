"""The Bessel functions J, Y and K of orders 0 and 1 on NumPy arrays, and the operators made of them.

Up to 25 they are their integrals by the trapezoidal rule, which converges exponentially for periodic and for doubly
exponentially decaying integrands (Trefethen and Weideman, SIAM Review 56, 2014); Y by Neumann's series of J. Beyond,
Hankel's asymptotic series. Formulas: Abramowitz and Stegun 9.1.21, 9.1.88, 9.2.5, 9.6.24, 9.7.2. Computed in
float64: J and Y to a few units of the last place of their amplitude, K of its value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from graphtorch.ops import special_numerics
from graphtorch.ops.build import FUNCTIONS, operator
from graphtorch.ops.pointwise import common_float, not_implemented, pointwise_type, promoted
from graphtorch.ops.record import Sample, sample
from graphtorch.ops.special_numerics import in_float64
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType

_EULER = 0.5772156649015329
_FAR = 25.0
_ANGLES = 64  # points of the rule on half a period; the error is J of order 128


def _near_j(order: int, x: Any) -> Any:
    """J for 0 <= x <= 25 by Bessel's integral."""
    theta = (np.arange(_ANGLES) + 0.5) * (np.pi / _ANGLES)
    return np.cos(order * theta - x[..., None] * np.sin(theta)).mean(axis=-1)


def _hankel(order: int, x: Any) -> tuple[Any, Any, Any, Any]:
    """(amplitude, phase, P, Q) of the asymptotic series for x >= 25."""
    term = np.ones_like(x)
    p, q = np.ones_like(x), np.zeros_like(x)
    for k in range(1, 40):
        term = term * (4.0 * order * order - (2 * k - 1) ** 2) / (k * 8.0 * x)
        if k % 2:
            q = q + (term if k % 4 == 1 else -term)
        else:
            p = p + (term if k % 4 == 0 else -term)
    return np.sqrt(2.0 / (np.pi * x)), x - (order / 2.0 + 0.25) * np.pi, p, q


def _parts(x: Any) -> tuple[Any, Any, Any]:
    """(where x is near, x there, x elsewhere), with harmless values in the gaps."""
    near = x <= _FAR
    return near, np.where(near, x, 1.0), np.where(near | ~np.isfinite(x), _FAR, x)


def _j(order: int, x: Any) -> Any:
    size = np.abs(x)
    near, close, far = _parts(size)
    amplitude, phase, p, q = _hankel(order, far)
    found = np.where(near, _near_j(order, close), amplitude * (p * np.cos(phase) - q * np.sin(phase)))
    found = np.where(np.isinf(size), 0.0, np.where(np.isnan(x), x, found))
    return found * np.sign(x) if order else found


def _y(order: int, x: Any) -> Any:
    near, close, far = _parts(np.where(x > 0, x, 1.0))
    log = np.log(close / 2.0) + _EULER
    if order == 0:
        series = log * _near_j(0, close)
        for k in range(1, 30):
            series = series - 2.0 * (-1.0) ** k / k * _near_j(2 * k, close)
        direct = 2.0 / np.pi * series
    else:
        series = (log - 1.0) * _near_j(1, close)
        for k in range(1, 30):
            series = series - (-1.0) ** k * (2 * k + 1) / (k * (k + 1.0)) * _near_j(2 * k + 1, close)
        direct = 2.0 / np.pi * (series - _near_j(0, close) / close)
    amplitude, phase, p, q = _hankel(order, far)
    found = np.where(near, direct, amplitude * (p * np.sin(phase) + q * np.cos(phase)))
    found = np.where(np.isposinf(x), 0.0, found)
    return np.where(x > 0, found, np.where(x == 0, -np.inf, np.nan))


def _k(order: int, x: Any) -> Any:
    """exp(x) K for x > 0."""
    near, close, far = _parts(np.where(x > 0, x, 1.0))
    inside = np.maximum(close, 1e-10)
    step = 0.1
    # Up to where the integrand is below the smallest double.
    t = np.arange(0, int(np.log(2e3 / float(np.min(inside, initial=1.0))) / step) + 2) * step
    # cosh t - 1 = 2 sinh(t / 2)^2 keeps its digits
    values = np.exp(-inside[..., None] * 2.0 * np.sinh(t / 2.0) ** 2) * np.cosh(order * t)
    direct = step * (values.sum(axis=-1) - 0.5 * values[..., 0])
    tiny = -np.log(close / 2.0) - _EULER if order == 0 else 1.0 / close
    direct = np.where(close < 1e-10, tiny * np.exp(close), direct)
    term = series = np.ones_like(far)
    for k in range(1, 40):
        term = term * (4.0 * order * order - (2 * k - 1) ** 2) / (k * 8.0 * far)
        series = series + term
    found = np.where(near, direct, np.sqrt(np.pi / (2.0 * far)) * series)
    found = np.where(np.isposinf(x), 0.0, found)
    return np.where(x > 0, found, np.where(x == 0, np.inf, np.nan))


def _unscaled_k(order: int, x: Any) -> Any:
    return np.where(np.isposinf(x), 0.0, _k(order, x) * np.exp(-np.where(x > 0, x, 0.0)))


def _spherical(x: Any) -> Any:
    """sin(x) / x."""
    safe = np.where((x == 0) | np.isinf(x), 1.0, x)
    return np.where(x == 0, 1.0, np.where(np.isinf(x), 0.0, np.sin(safe) / safe))


# -- operators --------------------------------------------------------------------------------------------------------


def _operator(name: str, compute: Callable[[Any], Any], derivative: Callable[..., Any] | None, low: float) -> Any:
    def rule(input: Any) -> TensorType:
        d = common_float(input)
        if d.is_complex:
            raise not_implemented(f"{name}_cpu", d)
        return pointwise_type((input,), d)

    def samples(make: Any) -> Iterable[Sample]:
        yield sample(make(3, 4, low=low, high=3.0))
        yield sample(make(3, low=20.0, high=30.0))

    return operator(
        f"special_{name}(Tensor input)",
        type=rule,
        numpy=lambda input: in_float64(compute)(*promoted(common_float, (input,))),
        derivative={} if derivative is None else {"input": derivative},
        samples=samples,
        categories="bif",
        method=False,
        out=True,
    )


j0: Callable[..., Tensor] = _operator("bessel_j0", lambda x: _j(0, x), lambda g, input: -g * j1(input), -3.0)
j1: Callable[..., Tensor] = _operator(
    "bessel_j1", lambda x: _j(1, x), lambda g, input, result: g * (j0(input) - result / input), 0.3
)
y0: Callable[..., Tensor] = _operator("bessel_y0", lambda x: _y(0, x), lambda g, input: -g * y1(input), 0.3)
y1: Callable[..., Tensor] = _operator(
    "bessel_y1", lambda x: _y(1, x), lambda g, input, result: g * (y0(input) - result / input), 0.3
)
k0: Callable[..., Tensor] = _operator(
    "modified_bessel_k0", lambda x: _unscaled_k(0, x), lambda g, input: -g * k1(input), 0.3
)
k1: Callable[..., Tensor] = _operator(
    "modified_bessel_k1",
    lambda x: _unscaled_k(1, x),
    lambda g, input, result: -g * (k0(input) + result / input),
    0.3,
)
k0e: Callable[..., Tensor] = _operator(
    "scaled_modified_bessel_k0", lambda x: _k(0, x), lambda g, input, result: g * (result - k1e(input)), 0.3
)
k1e: Callable[..., Tensor] = _operator(
    "scaled_modified_bessel_k1",
    lambda x: _k(1, x),
    lambda g, input, result: g * (result - k0e(input) - result / input),
    0.3,
)
_operator("modified_bessel_i0", special_numerics.i0, lambda g, input: g * FUNCTIONS["special_i1"](input), -3.0)
_operator(
    "modified_bessel_i1",
    special_numerics.i1,
    lambda g, input, result: g * (FUNCTIONS["i0"](input) - result / input),
    0.3,
)
_operator("spherical_bessel_j0", _spherical, lambda g, input, result: g * (input.cos() - result) / input, 0.3)
