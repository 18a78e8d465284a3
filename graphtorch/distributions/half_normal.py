"""The half-normal distribution."""

from __future__ import annotations

import math
from typing import Any

from graphtorch import Tensor
from graphtorch.distributions.half import Half
from graphtorch.distributions.normal import Normal

__all__ = ["HalfNormal"]


class HalfNormal(Half):
    """The absolute value of a normal number of mean 0.

    See https://docs.pytorch.org/docs/stable/distributions.html#halfnormal
    """

    def __init__(self, scale: Any, validate_args: bool | None = None) -> None:
        super().__init__(Normal(0, scale, validate_args=False), validate_args)

    @property
    def mean(self) -> Tensor:
        return self.scale * math.sqrt(2 / math.pi)

    @property
    def variance(self) -> Tensor:
        return self.scale.pow(2) * (1 - 2 / math.pi)
