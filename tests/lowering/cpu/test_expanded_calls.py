"""Calls that become kernels: products with vectors, of integers and in half precision; special functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch.lowering.backend import get_backend
from graphtorch.ops import error_function, gamma_function

pytestmark = pytest.mark.skipif(get_backend("cpu").unavailable() is not None, reason="no native code here")


def native(function: Any, *given: Any) -> np.ndarray:
    compiled = torch.compile(function, backend="cpu", dynamic=False)
    found = compiled(*given)
    assert "on NumPy" not in str(compiled.explain())
    return found.to(torch.float64).numpy() if found.is_floating_point() else found.numpy()


def laid_out(array: np.ndarray, transposed: bool) -> Any:
    tensor = torch.from_numpy(array)
    return tensor.transpose(-1, -2).contiguous().transpose(-1, -2) if transposed else tensor


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int32])
@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((1, 700), (700, 1500)), ((1500, 700), (700, 1)), ((2, 1, 700), (2, 700, 900)), ((1, 99999), (99999, 1)),
        ((13, 17), (17, 9)), ((2, 4, 5), (2, 5, 3)),
    ],
)  # fmt: skip
def test_products(a: Any, b: Any, transposed: tuple[bool, bool], dtype: Any) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(-9, 9, a).astype(dtype), rng.integers(-9, 9, b).astype(dtype)
    found = native(lambda x, y: x @ y, laid_out(x, transposed[0]), laid_out(y, transposed[1]))
    np.testing.assert_array_equal(found, x.astype(np.float64) @ y.astype(np.float64))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize(("a", "b"), [((64, 48), (48, 80)), ((5, 64, 32), (5, 32, 16)), ((1, 4), (4, 1))])
def test_products_in_half_precision(a: Any, b: Any, transposed: tuple[bool, bool], dtype: Any) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(-9, 9, a).astype(np.float32), rng.integers(-9, 9, b).astype(np.float32)
    given = [laid_out(v, t).to(dtype) for v, t in zip((x, y), transposed, strict=True)]
    exact = torch.from_numpy(x @ y).to(dtype).to(torch.float64).numpy()
    np.testing.assert_array_equal(native(lambda x, y: x @ y, *given), exact)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("name", "exact"),
    [("lgamma", gamma_function.lgamma), ("digamma", gamma_function.digamma), ("erfinv", error_function.erfinv)],
)
def test_special_functions(name: str, exact: Any, dtype: Any) -> None:
    """Within two units in the last place of the value that float64 gives."""
    rng = np.random.default_rng(0)
    special = [0.0, -0.0, 1.0, 2.0, -1.0, -5.0, np.inf, -np.inf, np.nan, 0.5, -0.5, 1.4616321, 1 - 6e-8, 30000.0]
    wide = rng.uniform(-20, 20, 2000) if name != "erfinv" else rng.uniform(-1, 1, 2000)
    values = np.concatenate([wide, rng.uniform(0, 3, 2000), rng.standard_normal(500) * 1e-3, special])
    given = torch.from_numpy(values.astype(np.float32)).to(dtype).reshape(2, -1).t()
    found = native(lambda x: getattr(torch, name)(x), given)
    with np.errstate(all="ignore"):
        expected = exact(given.to(torch.float64).numpy())
        rounded = torch.from_numpy(np.asarray(expected)).to(dtype).to(torch.float64).numpy()
    np.testing.assert_array_equal(np.isnan(found), np.isnan(rounded))
    finite = np.isfinite(rounded)
    np.testing.assert_array_equal(found[~finite], rounded[~finite])
    unit = np.maximum(np.abs(rounded[finite]) * torch.finfo(dtype).eps, torch.finfo(dtype).tiny)
    assert np.all(np.abs(found[finite] - rounded[finite]) <= 2 * unit)
