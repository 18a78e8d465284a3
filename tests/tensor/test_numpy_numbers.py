"""NumPy's numbers beside tensors count as Python's: some are subclasses of `float` and `complex`, and have a dtype."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphtorch as torch

EXPRESSIONS: dict[str, Callable[[Any, Any], Any]] = {
    "mul": lambda x, n: x * n,
    "reflected mul": lambda x, n: n * x,
    "div": lambda x, n: x / n,
    "reflected div": lambda x, n: n / x,
    "pow": lambda x, n: x**n,
    "add": lambda x, n: torch.add(x, n),
    "add scaled": lambda x, n: torch.add(x, x, alpha=n),
    "where": lambda x, n: torch.where(x > 0, n, x),
    "clamp": lambda x, n: x.clamp(min=n),
    "compare": lambda x, n: x < n,
    "in place": lambda x, n: x.float().clone().div_(n),
    "parameter": lambda x, n: torch.nn.Parameter(x.float() * n).detach(),
}


@pytest.mark.parametrize("backend", ["eager", "numpy", "cpu"])
@pytest.mark.parametrize(
    "number", [np.float64(2.5), np.float32(2.5), np.float16(2.5), np.int64(2), np.int8(2)], ids=repr
)
@pytest.mark.parametrize("name", EXPRESSIONS)
def test_as_the_number_that_it_is(name: str, number: Any, backend: str) -> None:
    compute = EXPRESSIONS[name]
    run = compute if backend == "eager" else torch.compile(lambda x, n: compute(x, n), backend=backend)
    for x in (torch.tensor([1.5, 4.0]), torch.tensor(3.0), torch.tensor([1, 2])):
        if name == "add scaled" and not x.is_floating_point() and isinstance(number.item(), float):
            continue  # refused, as a float would be
        found, expected = run(x, number), compute(x, number.item())
        assert found.dtype is expected.dtype and found.equal(expected), x
