"""The continuous Bernoulli distribution."""

from __future__ import annotations

import math
from typing import Any

import graphtorch as torch
from graphtorch import Tensor
from graphtorch.autograd.state import state
from graphtorch.distributions import constraints
from graphtorch.distributions.bernoulli import OneParameter
from graphtorch.distributions.distribution import Shape
from graphtorch.distributions.utils import broadcast_all, clamp_probs, lazy_property, logits_to_probs
from graphtorch.nn import functional as F

__all__ = ["ContinuousBernoulli"]


class ContinuousBernoulli(OneParameter):
    """Numbers of [0, 1] with a density proportional to p^x (1 - p)^(1 - x) (Loaiza-Ganem and Cunningham 2019).

    Between `lims`, around 1/2, Taylor series take the place of formulas that are 0 / 0 there.

    See https://docs.pytorch.org/docs/stable/distributions.html#continuousbernoulli
    """

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.unit_interval
    has_rsample = True
    _mean_carrier_measure = 0

    def __init__(
        self,
        probs: Any = None,
        logits: Any = None,
        lims: tuple[float, float] = (0.499, 0.501),
        validate_args: bool | None = None,
    ) -> None:
        self._set_chances(probs, logits)
        if logits is None:
            checked = validate_args is not None and state.recorder is None
            if checked and not constraints.unit_interval.check(self._param).all():
                raise ValueError("The parameter probs has invalid values")
            self._param = self.__dict__["probs"] = clamp_probs(self._param)
        self._lims = lims
        super().__init__(() if self._is_scalar else self._param.size(), validate_args=validate_args)

    def expand(self, batch_shape: Shape, _instance: Any = None) -> Any:
        return self._expanded_chances(ContinuousBernoulli, _instance, batch_shape, _lims=self._lims)

    @lazy_property
    def probs(self) -> Tensor:
        """Chances, kept off 0 and 1."""
        return clamp_probs(logits_to_probs(self.logits, is_binary=True))

    def _stable(self) -> Tensor:
        return (self.probs <= self._lims[0]) | (self.probs > self._lims[1])

    def _cut_probs(self) -> Tensor:
        """Chances with those near 1/2 moved away, for formulas whose values there are not used."""
        return torch.where(self._stable(), self.probs, self._lims[0])

    def _cont_bern_log_norm(self) -> Tensor:
        """The logarithm of the constant that makes the density integrate to 1."""
        p = self._cut_probs()
        lower = torch.log1p(-2.0 * torch.where(p <= 0.5, p, 0.0))
        upper = torch.log(2.0 * torch.where(p >= 0.5, p, 1.0) - 1.0)
        log_norm = torch.log(torch.abs(torch.log1p(-p) - torch.log(p))) - torch.where(p <= 0.5, lower, upper)
        x = torch.pow(self.probs - 0.5, 2)
        taylor = math.log(2.0) + (4.0 / 3.0 + 104.0 / 45.0 * x) * x
        return torch.where(self._stable(), log_norm, taylor)

    @property
    def mean(self) -> Tensor:
        p = self._cut_probs()
        exact = p / (2.0 * p - 1.0) + 1.0 / (torch.log1p(-p) - torch.log(p))
        x = self.probs - 0.5
        return torch.where(self._stable(), exact, 0.5 + (1.0 / 3.0 + 16.0 / 45.0 * torch.pow(x, 2)) * x)

    @property
    def variance(self) -> Tensor:
        p = self._cut_probs()
        spread = torch.log1p(-p) - torch.log(p)
        exact = p * (p - 1.0) / torch.pow(1.0 - 2.0 * p, 2) + 1.0 / torch.pow(spread, 2)
        x = torch.pow(self.probs - 0.5, 2)
        return torch.where(self._stable(), exact, 1.0 / 12.0 - (1.0 / 15.0 - 128.0 / 945.0 * x) * x)

    @property
    def stddev(self) -> Tensor:
        return torch.sqrt(self.variance)

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        return self.icdf(torch.rand(shape, dtype=self.probs.dtype, device=self.probs.device))

    def log_prob(self, value: Any) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        logits, value = broadcast_all(self.logits, value)
        return -F.binary_cross_entropy_with_logits(logits, value, reduction="none") + self._cont_bern_log_norm()

    def cdf(self, value: Any) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        p = self._cut_probs()
        exact = (torch.pow(p, value) * torch.pow(1.0 - p, 1.0 - value) + p - 1.0) / (2.0 * p - 1.0)
        found = torch.where(self._stable(), exact, value)
        return torch.where(value <= 0.0, 0.0, torch.where(value >= 1.0, 1.0, found))

    def icdf(self, value: Any) -> Tensor:
        p = self._cut_probs()
        log_other = torch.log1p(-p)
        exact = (torch.log1p(-p + value * (2.0 * p - 1.0)) - log_other) / (torch.log(p) - log_other)
        return torch.where(self._stable(), exact, value)

    def entropy(self) -> Tensor:
        other, own = torch.log1p(-self.probs), torch.log(self.probs)
        return self.mean * (other - own) - self._cont_bern_log_norm() - other

    @property
    def _natural_params(self) -> tuple[Tensor, ...]:
        return (self.logits,)

    def _log_normalizer(self, x: Any) -> Tensor:
        stable = (x <= self._lims[0] - 0.5) | (x > self._lims[1] - 0.5)
        cut = torch.where(stable, x, self._lims[0] - 0.5)
        exact = torch.log(torch.abs(torch.special.expm1(cut))) - torch.log(torch.abs(cut))
        taylor = 0.5 * x + torch.pow(x, 2) / 24.0 - torch.pow(x, 4) / 2880.0
        return torch.where(stable, exact, taylor)
