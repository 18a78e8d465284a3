"""Polynomials against float64: errors in units in the last place, and what infinities, NaN and zeros become."""

import math

import numpy as np
import pytest
from native_kernels import run_kernel, ulps

from graphtorch.lowering.kernel import Access, Axis, Buffer, Compute, Kernel, Load, Store
from graphtorch.tensor import dtypes

erf = np.vectorize(math.erf, otypes=[np.float64])


def apply(instruction, *operands):
    """One instruction on arrays of one type and size."""
    d = dtypes.from_numpy_dtype(operands[0].dtype)
    n = operands[0].size
    buffers = [Buffer(f"x{i}", d, (n,), "temporary", None) for i in range(len(operands))]
    out = Buffer("y", d, (n,), "temporary", None)
    loads = tuple(Load(Access(b, 0, (1,))) for b in buffers)
    kernel = Kernel("k", (Axis("i", n),), [Store(Access(out, 0, (1,)), Compute(instruction, loads, d))])
    result = np.empty(n, operands[0].dtype)
    run_kernel(kernel, {**dict(zip(buffers, operands, strict=True)), out: result})
    return result


def everywhere(low, high, n=200_001):
    """float32 numbers between two bounds, evenly spaced and at every order of magnitude."""
    even = np.linspace(low, high, n)
    sizes = np.logspace(-30, math.log10(max(abs(low), abs(high))), n // 4)
    signed = np.concatenate([sizes, -sizes] if low < 0 else [sizes])
    return np.concatenate([even, signed[(signed >= low) & (signed <= high)]]).astype(np.float32)


CASES = {
    "exp": (np.exp, -87, 88.7, 1.5),
    "log": (np.log, 1e-37, 1e38, 1.5),
    "log2": (np.log2, 1e-37, 1e38, 2.0),
    "log1p": (np.log1p, -0.999, 1e6, 2.0),
    "expm1": (np.expm1, -30, 88, 2.0),
    "tanh": (np.tanh, -12, 12, 2.0),
    "erf": (erf, -6, 6, 2.0),
    "sin": (np.sin, -1000, 1000, 2.0),
    "cos": (np.cos, -1000, 1000, 2.0),
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), -80, 80, 2.0),
    "sqrt": (np.sqrt, 0, 1e30, 0.51),
    "tan": (np.tan, -1.5, 1.5, 1.5),
}


@pytest.mark.parametrize("name", CASES)
def test_float32_error(name):
    function, low, high, bound = CASES[name]
    x = everywhere(low, high)
    error = ulps(apply(name, x), function(x.astype(np.float64)))
    worst = int(np.argmax(error))
    assert error[worst] <= bound, f"{name}({x[worst]!r}) is off by {error[worst]:.2f}"


@pytest.mark.parametrize("name", ["exp", "log", "tanh", "erf", "sin", "cos", "expm1", "log1p", "sigmoid"])
def test_float64_error(name):
    function, low, high, _ = CASES[name]
    x = np.linspace(low if name != "log" else 1e-3, min(high, 500.0), 20_001)
    result, exact = apply(name, x), function(x)
    assert np.max(np.abs(result - exact) / np.maximum(np.spacing(np.abs(exact)), 1e-300)) <= 4


INF, NAN = float("inf"), float("nan")
SPECIAL = [
    ("exp", [INF, -INF, NAN, 0.0, 1000.0, -1000.0], [INF, 0.0, NAN, 1.0, INF, 0.0]),
    ("log", [0.0, -0.0, -1.0, INF, NAN, 1.0], [-INF, -INF, NAN, INF, NAN, 0.0]),
    ("log2", [8.0, 2.0**-140, 0.0, INF], [3.0, -140.0, -INF, INF]),
    ("log1p", [-1.0, 0.0, INF, -2.0, NAN], [-INF, 0.0, INF, NAN, NAN]),
    ("expm1", [-INF, INF, 0.0, NAN], [-1.0, INF, 0.0, NAN]),
    ("tanh", [INF, -INF, NAN, 25.0, -25.0, 0.0], [1.0, -1.0, NAN, 1.0, -1.0, 0.0]),
    ("erf", [INF, -INF, NAN, 6.5, 0.0], [1.0, -1.0, NAN, 1.0, 0.0]),
    ("sigmoid", [INF, -INF, NAN, 0.0, 1000.0, -1000.0], [1.0, 0.0, NAN, 0.5, 1.0, 0.0]),
    ("sin", [INF, NAN, 0.0], [NAN, NAN, 0.0]),
    ("rsqrt", [0.0, INF, 4.0, -1.0], [INF, 0.0, 0.5, NAN]),
    ("sign", [NAN, -3.0, 0.0, INF], [0.0, -1.0, 0.0, 1.0]),
    ("round", [0.5, 1.5, 2.5, -0.5], [0.0, 2.0, 2.0, -0.0]),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name, given, wanted", SPECIAL, ids=[s[0] for s in SPECIAL])
def test_special_values(name, given, wanted, dtype):
    if name == "log2":
        given = [g for g in given if dtype is np.float64 or g == 0 or abs(g) >= 2.0**-149]
    np.testing.assert_array_equal(apply(name, np.array(given, dtype)), np.array(wanted, dtype))


def test_exp_reaches_subnormal_numbers():
    x = np.linspace(-103, -88, 1001).astype(np.float32)
    exact = np.exp(x.astype(np.float64))
    assert np.max(np.abs(apply("exp", x) - exact)) <= 1.5 * 2.0**-149


def test_sines_of_large_arguments():
    x = np.array([1e6, 1e7, 1e20, -3e38, 123456.0], np.float32)
    np.testing.assert_allclose(apply("sin", x), np.sin(x.astype(np.float64)), rtol=3e-7)
    np.testing.assert_allclose(apply("cos", x), np.cos(x.astype(np.float64)), rtol=3e-7)


def test_pow_of_special_values():
    x = np.array([2, -2, 0, 0, -1, np.inf, 4, np.nan], np.float32)
    y = np.array([10, 3, 0, -1, 0.5, -1, 0.5, 0], np.float32)
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(apply("pow", x, y), np.power(x, y), rtol=2e-7)
