"""The negative binomial distribution."""

from __future__ import annotations

from typing import Any

import graphtorch as torch
from graphtorch import Tensor
from graphtorch.distributions import constraints
from graphtorch.distributions.bernoulli import OneParameter
from graphtorch.distributions.distribution import Shape
from graphtorch.distributions.gamma import Gamma
from graphtorch.distributions.utils import broadcast_all, lazy_property
from graphtorch.nn import functional as F

__all__ = ["NegativeBinomial"]


class NegativeBinomial(OneParameter):
    """How many trials of chance `probs` succeed before `total_count` have failed.

    See https://docs.pytorch.org/docs/stable/distributions.html#negativebinomial
    """

    arg_constraints = {
        "total_count": constraints.greater_than_eq(0),
        "probs": constraints.half_open_interval(0.0, 1.0),
        "logits": constraints.real,
    }
    support = constraints.nonnegative_integer

    def __init__(
        self, total_count: Any, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        self._set_chances(probs, logits)
        name = "probs" if logits is None else "logits"
        self.total_count, self._param = broadcast_all(total_count, self._param)
        self.__dict__[name] = self._param
        self.total_count = self.total_count.type_as(self._param)
        super().__init__(self._param.size(), validate_args=validate_args)

    def expand(self, batch_shape: Shape, _instance: Any = None) -> Any:
        count = self.total_count.expand(batch_shape)
        return self._expanded_chances(NegativeBinomial, _instance, batch_shape, total_count=count)

    @property
    def mean(self) -> Tensor:
        return self.total_count * torch.exp(self.logits)

    @property
    def mode(self) -> Tensor:
        return ((self.total_count - 1) * self.logits.exp()).floor().clamp(min=0.0)

    @property
    def variance(self) -> Tensor:
        return self.mean / torch.sigmoid(-self.logits)

    @lazy_property
    def _gamma(self) -> Gamma:
        return Gamma(concentration=self.total_count, rate=torch.exp(-self.logits), validate_args=False)

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        with torch.no_grad():
            return torch.poisson(self._gamma.sample(sample_shape))

    def log_prob(self, value: Any) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        n = self.total_count
        chances = n * F.logsigmoid(-self.logits) + value * F.logsigmoid(self.logits)
        ways = -torch.lgamma(n + value) + torch.lgamma(1.0 + value) + torch.lgamma(n)
        return chances - ways.masked_fill(n + value == 0.0, 0.0)
