"""erf, erfc and erfinv of narrow types: all of float32's range to a rounding, and speed's way of working in blocks."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from graphtorch.ops.error_function import erf, erfc, erfinv

WIDE = {erf: erf, erfc: erfc, erfinv: erfinv}  # in float64, which test_special.py compares with exact values


def arguments(function: Any) -> Any:
    if function is erfinv:
        near = 1 - np.logspace(-7.2, -0.1, 3000)
        values = np.concatenate([np.linspace(-1, 1, 40_001), near, -near, [np.nextafter(np.float32(1), np.float32(0))]])
    else:
        values = np.concatenate([np.linspace(-11, 11, 60_001), np.logspace(-38, 0, 500)])
    return np.concatenate([values, [0.0, -0.0, np.nan, np.inf, -np.inf, 1.5, -2.0]]).astype(np.float32)


@pytest.mark.parametrize("function", [erf, erfc, erfinv], ids=lambda f: f.__name__)
def test_float32_is_a_rounding_of_float64(function: Any) -> None:
    x = arguments(function)
    with np.errstate(all="ignore"):
        exact = WIDE[function](x.astype(np.float64))
        found = function(x)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(found), np.isnan(exact))
    known = np.isfinite(exact) & (np.abs(exact) > 1.2e-38)
    unit = np.spacing(np.abs(exact[known]).astype(np.float32)).astype(np.float64)
    assert (np.abs(found[known] - exact[known]) <= 0.56 * unit).all()
    rest = ~known & ~np.isnan(exact)
    np.testing.assert_allclose(found[rest], exact[rest].astype(np.float32), atol=1e-44)
    np.testing.assert_array_equal(np.signbit(found[x == 0]), np.signbit(exact[x == 0]))


@pytest.mark.parametrize("function", [erf, erfc, erfinv], ids=lambda f: f.__name__)
@pytest.mark.parametrize("element", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
def test_half_precision(function: Any, element: Any) -> None:
    x = np.linspace(-0.99, 0.99, 301).astype(element)
    exact = WIDE[function](x.astype(np.float64))
    found = function(x)
    assert found.dtype == x.dtype
    same = found == exact.astype(element)
    assert same.mean() > 0.99 and np.abs(found[~same].astype(np.float64) - exact[~same]).max(initial=0) < 0.01


@pytest.mark.parametrize("shape", [(), (0,), (3, 5), (2, 3, 20_000), (16_385,)])
def test_shapes_and_strides(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).uniform(-0.9, 0.9, shape).astype(np.float32)
    for function in (erf, erfc, erfinv):
        assert function(x).shape == shape
        np.testing.assert_array_equal(function(x.T), function(x).T)
