"""float32 functions over all orders of magnitude, against float64: errors in units in the last place, and where NaN,
infinities and signed zeros come out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from test_transcendental import apply

import graphtorch

erf = np.vectorize(math.erf, otypes=[np.float64])

# name -> the exact function, and the largest error
UNARY: dict[str, tuple[Callable[[Any], Any], float]] = {
    "exp": (np.exp, 1.0), "log": (np.log, 0.8), "log2": (np.log2, 1.1), "log1p": (np.log1p, 0.9),
    "expm1": (np.expm1, 1.8), "tanh": (np.tanh, 1.2), "erf": (erf, 1.0), "sin": (np.sin, 1.6), "cos": (np.cos, 1.6),
    "tan": (np.tan, 1.2), "asin": (np.arcsin, 0.51), "acos": (np.arccos, 0.51), "atan": (np.arctan, 0.51),
    "sinh": (np.sinh, 0.51), "cosh": (np.cosh, 0.51), "sqrt": (np.sqrt, 0.51),
    "rsqrt": (lambda x: 1 / np.sqrt(x), 1.6),
    "sigmoid": (lambda x: np.where(x < 0, np.exp(-abs(x)), 1) / (1 + np.exp(-abs(x))), 1.5),
}  # fmt: skip
COMPOSED: dict[str, tuple[Callable[[Any], Any], float]] = {
    "asinh": (np.arcsinh, 2.0), "acosh": (np.arccosh, 2.0), "atanh": (np.arctanh, 2.0), "log10": (np.log10, 2.0),
    "exp2": (np.exp2, 0.51),
}  # fmt: skip
BINARY: dict[str, tuple[Callable[[Any, Any], Any], float]] = {
    "pow": (np.power, 0.51), "atan2": (np.arctan2, 0.51), "fmod": (np.fmod, 0.0),
}  # fmt: skip


def all_magnitudes(n: int, seed: int = 0) -> Any:
    """`n` numbers of every exponent and sign: subnormal ones, infinities and NaN are among them."""
    rng = np.random.default_rng(seed)
    exponents = np.arange(256, dtype=np.uint32).repeat(n)
    mantissas = rng.integers(0, 1 << 23, exponents.size, dtype=np.uint32)
    mantissas[::n], mantissas[1::n] = 0, (1 << 23) - 1
    bits = exponents << 23 | mantissas
    return np.concatenate([bits, bits | np.uint32(1 << 31)]).view(np.float32)


def check(result: Any, exact: Any, given: tuple[Any, ...], bound: float) -> None:
    """`exact` is in float64."""
    with np.errstate(all="ignore"):
        wanted = exact.astype(np.float32)
        spacing = np.maximum(np.spacing(np.abs(np.where(np.isfinite(wanted), wanted, 1))), 2.0**-149)
        finite = np.isfinite(wanted)
        error = np.where(finite, np.abs(result.astype(np.float64) - exact) / spacing, 0)
    worst = int(error.argmax())
    assert error[worst] <= bound, f"off by {error[worst]:.3f} at {[float(x[worst]) for x in given]}"
    wrong = ~finite & (result != wanted) & ~(np.isnan(wanted) & np.isnan(result))
    wrong |= (wanted == 0) & (result == 0) & (np.signbit(wanted) != np.signbit(result))
    assert not wrong.any(), [(result[i], wanted[i], *(x[i] for x in given)) for i in np.flatnonzero(wrong)[:5]]


@pytest.mark.parametrize("name", UNARY)
def test_one_operand(name: str) -> None:
    function, bound = UNARY[name]
    x = all_magnitudes(60 if name == "erf" else 600)
    with np.errstate(all="ignore"):
        check(apply(name, x), function(x.astype(np.float64)), (x,), bound)


@pytest.mark.parametrize("name", COMPOSED)
def test_functions_made_of_others(name: str) -> None:
    function, bound = COMPOSED[name]
    x = all_magnitudes(600)
    step = graphtorch.compile(getattr(graphtorch, name), backend="cpu")
    with np.errstate(all="ignore"):
        check(step(graphtorch.from_numpy(x.copy())).numpy(), function(x.astype(np.float64)), (x,), bound)
    assert not step.specializations[0].compiled.executable.fallbacks


@pytest.mark.parametrize("name", BINARY)
def test_two_operands(name: str) -> None:
    function, bound = BINARY[name]
    rng = np.random.default_rng(1)
    wide, other = all_magnitudes(150, 2), rng.permutation(all_magnitudes(150, 3))
    some = rng.uniform(-20, 20, wide.size).astype(np.float32)
    whole = rng.integers(-20, 20, wide.size).astype(np.float32)
    odd = np.array([0, -0.0, 1, -1, 0.5, -0.5, 2, -2, 3, -3, np.inf, -np.inf, np.nan, 1e30, -1e30, 1e-30, 16777216,
                    -16777217, 2.5, 1e-45], np.float32)  # fmt: skip
    grid = np.meshgrid(odd, odd)
    x = np.concatenate([wide, some, some, wide, np.abs(some), grid[0].ravel()])
    y = np.concatenate([other, whole, some[::-1], whole, some[::-1], grid[1].ravel()])
    with np.errstate(all="ignore"):
        check(apply(name, x, y), function(x.astype(np.float64), y.astype(np.float64)), (x, y), bound)


@pytest.mark.parametrize("name", ["sin", "cos", "tanh", "expm1", "log1p", "exp", "log", "sigmoid"])
def test_float64(name: str) -> None:
    function = UNARY[name][0]
    rng = np.random.default_rng(4)
    sizes = np.exp(rng.uniform(-60, 12, 200_000)) * rng.choice([-1.0, 1.0], 200_000)
    x = np.concatenate([sizes, [0.0, -0.0, np.inf, -np.inf, np.nan, 1e300, -1e300, 5e-324, 709.7, 709.9, -745.0]])
    with np.errstate(all="ignore"):
        result, exact = apply(name, x), function(x)
        finite = np.isfinite(exact)
        error = np.abs(result - exact)[finite] / np.maximum(np.spacing(np.abs(exact[finite])), 5e-324)
    assert error.max() <= 4, x[finite][int(error.argmax())]
    np.testing.assert_array_equal(result[~finite], exact[~finite])
    zero = exact == 0
    np.testing.assert_array_equal(np.signbit(result[zero]), np.signbit(exact[zero]))
