"""`Sampler`: makes the operands of sample calls, reproducibly. The generated tests hand one to every record's
`samples`."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphtorch.tensor import dtypes
from graphtorch.tensor.dtypes import dtype
from graphtorch.tensor.tensor import Tensor


class Sampler:
    """Calling it makes a tensor of the dtype under test; `ints`, `bools` and `floats` make operands of a fixed
    category.

    Values are drawn from a NumPy generator of fixed seed, so that a sample is the same in every run.
    """

    def __init__(self, of: dtype, requires_grad: bool = False, seed: int = 0) -> None:
        self.dtype = of
        self.requires_grad = requires_grad
        self.random = np.random.default_rng(seed)

    def __call__(self, *shape: int, low: float = -2.0, high: float = 2.0, requires_grad: bool | None = None) -> Tensor:
        """A tensor of the dtype under test with values in [low, high] (integers: rounded; bool: about half true)."""
        d = self.dtype
        values: Any
        if d is dtypes.bool_:
            values = self.random.random(shape) < 0.5
        elif d.category == dtypes.INTEGRAL:
            bottom = max(int(np.ceil(low)), 0 if not d.is_signed else -100)
            values = self.random.integers(bottom, max(int(np.floor(high)), bottom) + 1, shape)
        elif d.is_complex:
            values = self.random.uniform(low, high, shape) + 1j * self.random.uniform(low, high, shape)
        else:
            values = self.random.uniform(low, high, shape)
        wants = self.requires_grad if requires_grad is None else requires_grad
        return Tensor._from_array(np.asarray(values).astype(d.numpy), wants and d.is_differentiable)

    def distinct(self, *shape: int, low: float = -2.0, high: float = 2.0) -> Tensor:
        """Values that differ by a clear margin, for operators that are not smooth where values tie (max, sort)."""
        count = int(np.prod(shape))
        steps = self.random.permutation(np.linspace(low, high, max(count, 1))[:count]).reshape(shape)
        wants = self.requires_grad and self.dtype.is_differentiable
        return Tensor._from_array(np.asarray(steps).astype(self.dtype.numpy), wants)

    def ints(self, *shape: int, low: int = 0, high: int = 4, of: dtype = dtypes.int64) -> Tensor:
        """Integers in [low, high), for indices."""
        return Tensor._from_array(np.asarray(self.random.integers(low, high, shape)).astype(of.numpy), False)

    def bools(self, *shape: int) -> Tensor:
        """A random mask."""
        return Tensor._from_array(np.asarray(self.random.random(shape) < 0.5), False)
