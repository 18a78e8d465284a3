"""Which BLAS library is used, and programs around one whose threads can't be set."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import graphtorch as torch
from graphtorch.lowering.backend import get_backend
from graphtorch.lowering.cpu import blas, executable

if get_backend("cpu").unavailable() or blas.find_blas() is None:
    pytest.skip("no native code or no BLAS here", allow_module_level=True)


@pytest.fixture(autouse=True)
def _found_anew():
    blas.find_blas.cache_clear()
    yield
    blas.find_blas.cache_clear()


def test_unknown_name(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GRAPHTORCH_BLAS", "gslblas")
    with pytest.raises(ValueError, match="GRAPHTORCH_BLAS is 'gslblas'"):
        blas.find_blas()


def test_chosen_library_that_is_absent(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GRAPHTORCH_BLAS", "mkl")
    monkeypatch.setattr(blas.sys, "prefix", "/nowhere")
    assert blas.find_blas() is None


@pytest.mark.parametrize("missing", [True, False])
def test_products_without_library_or_without_its_threads(missing: bool, monkeypatch: pytest.MonkeyPatch):
    """NumPy makes the product where there is no library; one without a number of threads is called all the same."""
    known = blas.find_blas()
    assert known is not None
    replaced = None if missing else dataclasses.replace(known, set_threads=0, get_threads=0)
    monkeypatch.setattr(executable, "find_blas", lambda: replaced)
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((600, 700)).astype(np.float32), rng.standard_normal((700, 500)).astype(np.float32)
    result = torch.compile(lambda x, y: torch.relu(x @ y), backend="cpu")(torch.from_numpy(a), torch.from_numpy(b))
    expected = np.maximum(a.astype(np.float64) @ b, 0)
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-4, atol=1e-3)
