"""The inverse gamma distribution."""

from __future__ import annotations

import math
from typing import Any

import graphtorch as torch
from graphtorch import Tensor
from graphtorch.distributions import constraints
from graphtorch.distributions.distribution import Shape
from graphtorch.distributions.gamma import Gamma
from graphtorch.distributions.transformed_distribution import TransformedDistribution
from graphtorch.distributions.transforms import PowerTransform

__all__ = ["InverseGamma"]


class InverseGamma(TransformedDistribution):
    """The reciprocal of a gamma number.

    See https://docs.pytorch.org/docs/stable/distributions.html#inversegamma
    """

    arg_constraints = {"concentration": constraints.positive, "rate": constraints.positive}
    support = constraints.positive
    has_rsample = True

    def __init__(self, concentration: Any, rate: Any, validate_args: bool | None = None) -> None:
        base = Gamma(concentration, rate, validate_args=validate_args)
        super().__init__(base, PowerTransform(base.rate.new_tensor(-1)), validate_args=validate_args)

    def expand(self, batch_shape: Shape, _instance: Any = None) -> Any:
        return super().expand(batch_shape, _instance=self._get_checked_instance(InverseGamma, _instance))

    @property
    def concentration(self) -> Tensor:
        """The shape parameter."""
        found: Tensor = self.base_dist.concentration  # type: ignore[attr-defined]
        return found

    @property
    def rate(self) -> Tensor:
        """The rate of the gamma number."""
        found: Tensor = self.base_dist.rate  # type: ignore[attr-defined]
        return found

    @property
    def mean(self) -> Tensor:
        return torch.where(self.concentration > 1, self.rate / (self.concentration - 1), math.inf)

    @property
    def mode(self) -> Tensor:
        return self.rate / (self.concentration + 1)

    @property
    def variance(self) -> Tensor:
        less = self.concentration - 1
        return torch.where(self.concentration > 2, self.rate.square() / (less.square() * (less - 1)), math.inf)

    def entropy(self) -> Tensor:
        a = self.concentration
        return a + self.rate.log() + a.lgamma() - (1 + a) * a.digamma()
