"""The geometric distribution."""

from __future__ import annotations

from typing import Any

import graphtorch as torch
from graphtorch import Tensor
from graphtorch.autograd.state import state
from graphtorch.distributions import constraints
from graphtorch.distributions.bernoulli import OneParameter
from graphtorch.distributions.distribution import Shape
from graphtorch.distributions.utils import broadcast_all
from graphtorch.nn import functional as F

__all__ = ["Geometric"]


class Geometric(OneParameter):
    """How many trials of chance `probs` fail before the first success.

    See https://docs.pytorch.org/docs/stable/distributions.html#geometric
    """

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.nonnegative_integer

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None) -> None:
        self._set_chances(probs, logits)
        super().__init__(() if self._is_scalar else self._param.size(), validate_args=validate_args)
        if self._validate_args and probs is not None and state.recorder is None:
            value = self.probs
            if not (value > 0).all():
                raise ValueError(
                    f"Expected parameter probs ({type(value).__name__} of shape {tuple(value.shape)}) of distribution "
                    f"{self!r} to be positive but found invalid values:\n{value[~(value > 0)]}"
                )

    def expand(self, batch_shape: Shape, _instance: Any = None) -> Any:
        return self._expanded_chances(Geometric, _instance, batch_shape)

    @property
    def mean(self) -> Tensor:
        return 1.0 / self.probs - 1.0

    @property
    def mode(self) -> Tensor:
        return torch.zeros_like(self.probs)

    @property
    def variance(self) -> Tensor:
        return (1.0 / self.probs - 1.0) / self.probs

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        shape, tiny = self._extended_shape(sample_shape), torch.finfo(self.probs.dtype).tiny
        with torch.no_grad():
            u = self.probs.new_empty(shape).uniform_(tiny, 1)
            return (u.log() / (-self.probs).log1p()).floor()

    def log_prob(self, value: Any) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        value, probs = broadcast_all(value, self.probs)
        # A sure success leaves no failures, whose log-probability would be 0 * -inf.
        probs = probs.masked_fill((probs == 1) & (value == 0), 0)
        return value * (-probs).log1p() + self.probs.log()

    def entropy(self) -> Tensor:
        return F.binary_cross_entropy_with_logits(self.logits, self.probs, reduction="none") / self.probs
