"""torch.masked and torch.signal.windows beside PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from against_torch import compare, same_error

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(3, 4, 5))
MASK = RANDOM.random((3, 4, 5)) < 0.6
MASK[:, :, 0] = True
MASK[:, 0, :] = True


@pytest.mark.parametrize("name", ["sum", "prod", "amax", "amin", "mean", "var", "std", "norm", "logsumexp"])
def test_masked_reductions(name: str) -> None:
    for dim in (1, (0, 2)):
        compare(lambda t, x, m, d=dim: getattr(t.masked, name)(x, dim=d, mask=m), X, MASK, order=1)
        compare(lambda t, x, m, d=dim: getattr(t.masked, name)(x, dim=d, keepdim=True, mask=m[0]), X, MASK, order=0)
    compare(lambda t, x: getattr(t.masked, name)(x, dim=1), X, order=1)
    whole = (X * 9).astype(np.int64)
    if name == "mean":
        same_error(lambda t, x: t.masked.mean(x, dim=1), whole)
    elif name not in ("norm", "logsumexp"):
        compare(lambda t, x, m: getattr(t.masked, name)(x, dim=1, mask=m), whole, MASK, order=0, tolerance=1e-6)


@pytest.mark.parametrize(
    "name", ["cumsum", "cumprod", "argmax", "argmin", "softmax", "log_softmax", "softmin", "median"]
)
def test_masked_along_a_dim(name: str) -> None:
    smooth = name.startswith(("cum", "soft"))
    compare(lambda t, x, m: getattr(t.masked, name)(x, 1, mask=m), X, MASK, order=1 if smooth else 0)


def test_masked_norms_and_sums() -> None:
    for ord in (1.0, 2.0, np.inf, -np.inf):
        compare(lambda t, x, m, o=ord: t.masked.norm(x, o, 1, mask=m), X, MASK, order=0)
    compare(lambda t, x, m: t.masked.normalize(x, 2.0, 1, mask=m), X, MASK, order=1)
    compare(lambda t, x, m: t.masked.logaddexp(x, x + 1, input_mask=m, other_mask=m.flip(2)), X, MASK, order=0)
    compare(lambda t, x, m: t.masked.var(x, 1, unbiased=False, mask=m), X, MASK, order=0)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("bartlett", {}),
        ("blackman", {}),
        ("cosine", {}),
        ("exponential", {"tau": 2.0}),
        ("gaussian", {"std": 1.5}),
        ("general_cosine", {"a": [0.4, 0.3, 0.2, 0.1]}),
        ("general_hamming", {"alpha": 0.6}),
        ("hamming", {}),
        ("hann", {}),
        ("kaiser", {"beta": 5.0}),
        ("nuttall", {}),
    ],
)
def test_windows(name: str, options: dict[str, Any]) -> None:
    for length in (0, 1, 2, 7, 12):
        for sym in (True, False):
            compare(
                lambda t, n=length, s=sym: getattr(t.signal.windows, name)(n, sym=s, dtype=t.float64, **options),
                tolerance=1e-12,
            )
    compare(lambda t: getattr(t.signal.windows, name)(9, **options), tolerance=1e-6)
    same_error(lambda t: getattr(t.signal.windows, name)(-1, **options), message=False)
