"""Special functions: accuracy in float64 against 40-digit arithmetic, edges and namespaces beside PyTorch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from against_torch import compare

import graphtorch

mpmath = pytest.importorskip("mpmath")

POINTS = np.concatenate([np.linspace(0.01, 4, 57), np.linspace(4.3, 60, 41), [150.5, 1e3, 1e6]])


def units(actual: Any, exact: Any) -> float:
    return max(
        abs(float((mpmath.mpf(float(a)) - e) / np.spacing(abs(float(e))))) for a, e in zip(actual, exact, strict=True)
    )


@pytest.mark.parametrize(
    ("name", "exact", "points", "ulps"),
    [
        ("gammaln", "loggamma", POINTS[POINTS > 0.5], 6),
        ("i0e", lambda x: mpmath.besseli(0, x) * mpmath.exp(-x), POINTS[:-2], 8),
        ("i1e", lambda x: mpmath.besseli(1, x) * mpmath.exp(-x), POINTS[:-2], 8),
        ("erfcx", lambda x: mpmath.exp(mpmath.mpf(x) ** 2) * mpmath.erfc(x), POINTS[:60], 8),
        ("ndtri", lambda p: mpmath.sqrt(2) * mpmath.erfinv(2 * mpmath.mpf(p) - 1), np.linspace(0.01, 0.4, 20), 20),
        ("log_ndtr", lambda x: mpmath.log(mpmath.ncdf(x)), np.linspace(-30, 3, 50), 12),
    ],
)
def test_accuracy(name: str, exact: Any, points: Any, ulps: float) -> None:
    function = getattr(mpmath, exact) if isinstance(exact, str) else exact
    with mpmath.workdps(40):
        found = getattr(graphtorch.special, name)(graphtorch.from_numpy(points)).numpy()
        assert units(found, [function(mpmath.mpf(float(p))) for p in points]) < ulps


EDGES = np.array([0.0, -0.0, 1.0, 2.0, -1.0, -2.0, -0.5, -3.7, 0.5, 700.0, math.inf, -math.inf, math.nan])


@pytest.mark.parametrize("name", ["gammaln", "digamma", "i0", "i1", "i0e", "i1e", "erfcx", "ndtr", "ndtri", "entr"])
def test_edges(name: str) -> None:
    points = EDGES[:-3] if name in ("i1e", "i0e", "i1", "i0") else EDGES
    compare(lambda t, x: getattr(t.special, name)(x), points, order=0)
    compare(lambda t, x: getattr(t.special, name)(x), points.astype(np.float32), order=0, tolerance=1e-5)
    compare(lambda t, x: getattr(t.special, name)(x), np.array([0, 1, 2, 3]), order=0, tolerance=1e-5)


def test_two_operands() -> None:
    s, q = np.array([0.5, 1.0, 2.0, 3.5, 3.0, 2.0]), np.array([2.0, 2.0, 0.3, 40.0, -1.5, -2.0])
    compare(lambda t, s, q: t.special.zeta(s, q), s, q, order=0)
    a, x = np.array([0.0, 0.5, 1.0, 10.0, 200.0, 3.0]), np.array([1.0, 2.0, 0.0, 12.0, 190.0, math.inf])
    compare(lambda t, a, x: (t.special.gammainc(a, x), t.special.gammaincc(a, x)), a, x, order=0)
    y = np.array([0.5, -1.0, math.nan, 2.0, -0.5, 3.0])
    compare(lambda t, a, y: (t.special.xlog1py(a, y), t.special.xlog1py(2, y)), a, y, order=0)


def test_compositions() -> None:
    x = np.linspace(-3.1, 3.3, 12)
    for name in ("ndtr", "log_ndtr"):
        compare(lambda t, x, name=name: getattr(t.special, name)(x), x)
    compare(lambda t, x: t.special.entr(x.abs()), x)
    compare(lambda t, x: t.special.xlog1py(x, x.abs() + 1), x)
    compare(lambda t, x: t.mvlgamma(x.abs() + 2, 3), x)
    for n in range(5):
        compare(lambda t, x, n=n: t.polygamma(n, x.abs()), x)
    compare(lambda t, x: x.polygamma(1), -np.linspace(0.1, 3.8, 7))


@pytest.mark.parametrize("name", sorted(n for n in dir(graphtorch.special) if "polynomial" in n))
def test_polynomials(name: str) -> None:
    x, n = np.linspace(-1.2, 1.2, 8), np.arange(8) % 7
    compare(lambda t, x, n: getattr(t.special, name)(x, n), x, n, order=0)
    compare(lambda t, x: getattr(t.special, name)(x, 4), x, order=0)
    compare(lambda t, x: getattr(t.special, name)(x, 4), x.astype(np.float32), order=0, tolerance=1e-4)


BESSEL = [
    ("bessel_j0", lambda x: mpmath.besselj(0, x)),
    ("bessel_j1", lambda x: mpmath.besselj(1, x)),
    ("bessel_y0", lambda x: mpmath.bessely(0, x)),
    ("bessel_y1", lambda x: mpmath.bessely(1, x)),
    ("modified_bessel_k1", lambda x: mpmath.besselk(1, x)),
    ("scaled_modified_bessel_k0", lambda x: mpmath.besselk(0, x) * mpmath.exp(x)),
    ("scaled_modified_bessel_k1", lambda x: mpmath.besselk(1, x) * mpmath.exp(x)),
]


@pytest.mark.parametrize(("name", "exact"), BESSEL, ids=[name for name, _ in BESSEL])
def test_bessel_accuracy(name: str, exact: Any) -> None:
    points = np.concatenate([[1e-12, 1e-3], np.linspace(0.1, 40, 14)])
    found = getattr(graphtorch.special, name)(graphtorch.from_numpy(points)).numpy()
    with mpmath.workdps(40):
        values = np.array([float(exact(mpmath.mpf(float(p)))) for p in points])
    # Oscillating functions are good to the last places of their amplitude, which falls as 1 / sqrt(x).
    size = np.maximum(np.abs(values), 0.1) if "modified" not in name else np.abs(values)
    assert np.max(np.abs(found - values) / size) < 2e-14


@pytest.mark.parametrize("name", [name for name, _ in BESSEL] + ["spherical_bessel_j0"])
def test_bessel_edges(name: str) -> None:
    points = np.array([0.0, -1.0, 2.0, math.nan])
    compare(lambda t, x: getattr(t.special, name)(x), points, order=0)
