"""The Bernoulli distribution."""

from __future__ import annotations

from numbers import Number
from typing import Any

import graphtorch as torch
from graphtorch import Tensor
from graphtorch.distributions import constraints
from graphtorch.distributions.distribution import ExponentialFamily, Shape
from graphtorch.distributions.utils import broadcast_all, lazy_property, logits_to_probs, probs_to_logits
from graphtorch.nn import functional as F

__all__ = ["Bernoulli", "OneParameter"]


class OneParameter(ExponentialFamily):
    """A distribution of chances, given as `probs` or `logits` (log-odds); the other one is computed when asked for."""

    _param: Tensor

    def _set_chances(self, probs: Any, logits: Any) -> None:
        """Keep the one that was given. Raises ValueError if both were, or none."""
        if (probs is None) == (logits is None):
            raise ValueError("Either `probs` or `logits` must be specified, but not both.")
        given = probs if logits is None else logits
        self._is_scalar = isinstance(given, Number)
        (self._param,) = broadcast_all(given)
        self.__dict__["probs" if logits is None else "logits"] = self._param

    @lazy_property
    def logits(self) -> Tensor:
        """Log-odds."""
        return probs_to_logits(self.probs, is_binary=True)

    @lazy_property
    def probs(self) -> Tensor:
        """Chances."""
        return logits_to_probs(self.logits, is_binary=True)

    @property
    def param_shape(self) -> Any:
        """The shape of the parameter."""
        return self._param.size()

    def _expanded_chances(self, cls: Any, _instance: Any, batch_shape: Shape, **others: Any) -> Any:
        names = [n for n in ("probs", "logits", "_param") if n in self.__dict__]
        parameters = {n: self.__dict__[n].expand(batch_shape) for n in names}
        return self._expanded(cls, _instance, batch_shape, **parameters, **others)


class Bernoulli(OneParameter):
    """1 with probability `probs` (or log-odds `logits`), else 0.

    See https://docs.pytorch.org/docs/stable/distributions.html#bernoulli
    """

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.boolean
    has_enumerate_support = True
    _mean_carrier_measure = 0

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None) -> None:
        self._set_chances(probs, logits)
        super().__init__(() if self._is_scalar else self._param.size(), validate_args=validate_args)

    def expand(self, batch_shape: Shape, _instance: Any = None) -> Any:
        return self._expanded_chances(Bernoulli, _instance, batch_shape)

    @property
    def mean(self) -> Tensor:
        return self.probs

    @property
    def mode(self) -> Tensor:
        mode = (self.probs >= 0.5).to(self.probs)
        return torch.where(self.probs == 0.5, torch.nan, mode)

    @property
    def variance(self) -> Tensor:
        return self.probs * (1 - self.probs)

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        with torch.no_grad():
            return torch.bernoulli(self.probs.expand(self._extended_shape(sample_shape)))

    def log_prob(self, value: Any) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        logits, value = broadcast_all(self.logits, value)
        return -F.binary_cross_entropy_with_logits(logits, value, reduction="none")

    def entropy(self) -> Tensor:
        return F.binary_cross_entropy_with_logits(self.logits, self.probs, reduction="none")

    def enumerate_support(self, expand: bool = True) -> Tensor:
        values = torch.arange(2, dtype=self._param.dtype, device=self._param.device)
        values = values.view((-1, *(1,) * len(self._batch_shape)))
        return values.expand((-1, *self._batch_shape)) if expand else values

    @property
    def _natural_params(self) -> tuple[Tensor, ...]:
        return (torch.logit(self.probs),)

    def _log_normalizer(self, x: Any) -> Tensor:
        return torch.log1p(torch.exp(x))
