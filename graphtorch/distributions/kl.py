"""Kullback-Leibler divergences.

Divergences within a family have their closed forms. Across families, KL(p || q) is the cross entropy of p and q less
the entropy of p: the cross entropy with most families takes only a few
moments of p, so each such family of q is written once, for every p that has those moments.

See https://docs.pytorch.org/docs/stable/distributions.html#module-torch.distributions.kl
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import graphtorch as torch
from graphtorch import Tensor
from graphtorch.autograd.engine import grad
from graphtorch.distributions.bernoulli import Bernoulli
from graphtorch.distributions.beta import Beta
from graphtorch.distributions.binomial import Binomial
from graphtorch.distributions.categorical import Categorical
from graphtorch.distributions.cauchy import Cauchy
from graphtorch.distributions.continuous_bernoulli import ContinuousBernoulli
from graphtorch.distributions.dirichlet import Dirichlet
from graphtorch.distributions.distribution import Distribution, ExponentialFamily
from graphtorch.distributions.exponential import Exponential
from graphtorch.distributions.gamma import Gamma
from graphtorch.distributions.geometric import Geometric
from graphtorch.distributions.gumbel import Gumbel
from graphtorch.distributions.half_normal import HalfNormal
from graphtorch.distributions.independent import Independent
from graphtorch.distributions.laplace import Laplace
from graphtorch.distributions.lowrank_multivariate_normal import LowRankMultivariateNormal
from graphtorch.distributions.multivariate_normal import MultivariateNormal, mahalanobis
from graphtorch.distributions.normal import Normal
from graphtorch.distributions.one_hot_categorical import OneHotCategorical
from graphtorch.distributions.pareto import Pareto
from graphtorch.distributions.poisson import Poisson
from graphtorch.distributions.transformed_distribution import TransformedDistribution
from graphtorch.distributions.uniform import Uniform
from graphtorch.distributions.utils import euler_constant, sum_rightmost
from graphtorch.nn import functional as F

__all__ = ["kl_divergence", "register_kl"]

_REGISTRY: dict[tuple[type, type], Callable[..., Any]] = {}
_FOUND: dict[tuple[type, type], Callable[..., Any] | None] = {}


def register_kl(type_p: type, type_q: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator: the function computes the divergence of these two families, and of classes derived from them.

    Raises TypeError for what is no Distribution class.
    """
    for name, given in (("type_p", type_p), ("type_q", type_q)):
        if not (isinstance(given, type) and issubclass(given, Distribution)):
            raise TypeError(f"Expected {name} to be a Distribution subclass but got {given}")

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        _REGISTRY[type_p, type_q] = function
        _FOUND.clear()
        return function

    return register


def _depth(kind: type, base: type) -> int:
    """How far a base class is from a class."""
    return kind.__mro__.index(base)


def _dispatch(type_p: type, type_q: type) -> Callable[..., Any] | None:
    """The function of the nearest classes; the first operand decides, and a warning tells if the second would not."""
    matches = [key for key in _REGISTRY if issubclass(type_p, key[0]) and issubclass(type_q, key[1])]
    if not matches:
        return None
    left = min(matches, key=lambda m: (_depth(type_p, m[0]), _depth(type_q, m[1])))
    right = min(matches, key=lambda m: (_depth(type_q, m[1]), _depth(type_p, m[0])))
    if _REGISTRY[left] is not _REGISTRY[right]:
        warnings.warn(
            f"Ambiguous kl_divergence({type_p.__name__}, {type_q.__name__}). "
            f"Please register_kl({left[0].__name__}, {right[1].__name__})",
            RuntimeWarning,
            stacklevel=3,
        )
    return _REGISTRY[left]


def kl_divergence(p: Distribution, q: Distribution) -> Tensor:
    """KL(p || q), the mean of log p - log q under p; shape batch_shape.

    Raises NotImplementedError if none is registered for the two. See torch.distributions.kl.kl_divergence.
    """
    kinds = type(p), type(q)
    if kinds not in _FOUND:
        _FOUND[kinds] = _dispatch(*kinds)
    function = _FOUND[kinds]
    if function is None:
        raise NotImplementedError(
            f"No KL(p || q) is implemented for p type {p.__class__.__name__} and q type {q.__class__.__name__}"
        )
    return function(p, q)


# -- within a family --------------------------------------------------------------------------------------------------


@register_kl(Bernoulli, Bernoulli)
def _bernoulli(p: Any, q: Any) -> Any:
    one = p.probs * (F.softplus(-q.logits) - F.softplus(-p.logits))
    one = one.masked_fill(q.probs == 0, math.inf).masked_fill(p.probs == 0, 0)
    zero = (1 - p.probs) * (F.softplus(q.logits) - F.softplus(p.logits))
    return one + zero.masked_fill(q.probs == 1, math.inf).masked_fill(p.probs == 1, 0)


@register_kl(Beta, Beta)
def _beta(p: Any, q: Any) -> Any:
    total_p, total_q = p.concentration1 + p.concentration0, q.concentration1 + q.concentration0
    t1 = q.concentration1.lgamma() + q.concentration0.lgamma() + total_p.lgamma()
    t2 = p.concentration1.lgamma() + p.concentration0.lgamma() + total_q.lgamma()
    t3 = (p.concentration1 - q.concentration1) * torch.digamma(p.concentration1)
    t4 = (p.concentration0 - q.concentration0) * torch.digamma(p.concentration0)
    return t1 - t2 + t3 + t4 + (total_q - total_p) * torch.digamma(total_p)


@register_kl(Binomial, Binomial)
def _binomial(p: Any, q: Any) -> Any:
    if (p.total_count < q.total_count).any():
        raise NotImplementedError("KL between Binomials where q.total_count > p.total_count is not implemented")
    one_trial = p.probs * (p.logits - q.logits) + (-p.probs).log1p() - (-q.probs).log1p()
    return (p.total_count * one_trial).masked_fill(p.total_count > q.total_count, math.inf)


@register_kl(Categorical, Categorical)
def _categorical(p: Any, q: Any) -> Any:
    t = p.probs * (p.logits - q.logits)
    t = torch.where(q.probs == 0, math.inf, t)
    return torch.where(p.probs == 0, 0.0, t).sum(-1)


@register_kl(OneHotCategorical, OneHotCategorical)
def _one_hot(p: Any, q: Any) -> Any:
    return _categorical(p._categorical, q._categorical)


@register_kl(Cauchy, Cauchy)
def _cauchy(p: Any, q: Any) -> Any:
    # Chyzak and Nielsen 2019
    t1 = ((p.scale + q.scale).pow(2) + (p.loc - q.loc).pow(2)).log()
    return t1 - (4 * p.scale * q.scale).log()


@register_kl(ContinuousBernoulli, ContinuousBernoulli)
def _continuous_bernoulli(p: Any, q: Any) -> Any:
    own = p._cont_bern_log_norm() + torch.log1p(-p.probs)
    other = q._cont_bern_log_norm() + torch.log1p(-q.probs)
    return p.mean * (p.logits - q.logits) + own - other


@register_kl(Dirichlet, Dirichlet)
def _dirichlet(p: Any, q: Any) -> Any:
    total_p, total_q = p.concentration.sum(-1), q.concentration.sum(-1)
    t2 = (p.concentration.lgamma() - q.concentration.lgamma()).sum(-1)
    t4 = p.concentration.digamma() - total_p.digamma().unsqueeze(-1)
    return total_p.lgamma() - total_q.lgamma() - t2 + ((p.concentration - q.concentration) * t4).sum(-1)


@register_kl(Exponential, Exponential)
def _exponential(p: Any, q: Any) -> Any:
    ratio = q.rate / p.rate
    return -ratio.log() + ratio - 1


@register_kl(ExponentialFamily, ExponentialFamily)
def _exponential_family(p: Any, q: Any) -> Any:
    """The Bregman divergence of the log-normalizer."""
    if type(p) is not type(q):
        raise NotImplementedError(
            "The cross KL-divergence between different exponential families cannot be computed using Bregman "
            "divergences"
        )
    own = [n.detach().requires_grad_() for n in p._natural_params]
    log_normalizer = p._log_normalizer(*own)
    gradients = grad(log_normalizer.sum(), own, create_graph=True)
    result = q._log_normalizer(*q._natural_params) - log_normalizer
    for mine, other, g in zip(own, q._natural_params, gradients, strict=True):
        result = result - sum_rightmost((other - mine) * g, len(q.event_shape))
    return result


@register_kl(Gamma, Gamma)
def _gamma(p: Any, q: Any) -> Any:
    t1 = q.concentration * (p.rate / q.rate).log()
    t2 = torch.lgamma(q.concentration) - torch.lgamma(p.concentration)
    t3 = (p.concentration - q.concentration) * torch.digamma(p.concentration)
    return t1 + t2 + t3 + (q.rate - p.rate) * (p.concentration / p.rate)


@register_kl(Gumbel, Gumbel)
def _gumbel(p: Any, q: Any) -> Any:
    ratio, own, other = p.scale / q.scale, p.loc / q.scale, q.loc / q.scale
    tail = torch.exp(other + (1 + ratio).lgamma() - own)
    return -ratio.log() - other + own + ratio * euler_constant + tail - (1 + euler_constant)


@register_kl(Geometric, Geometric)
def _geometric(p: Any, q: Any) -> Any:
    return -p.entropy() - torch.log1p(-q.probs) / p.probs - q.logits


@register_kl(HalfNormal, HalfNormal)
def _half_normal(p: Any, q: Any) -> Any:
    return _normal(p.base_dist, q.base_dist)


@register_kl(Laplace, Laplace)
def _laplace(p: Any, q: Any) -> Any:
    ratio, distance = p.scale / q.scale, (p.loc - q.loc).abs()
    return -ratio.log() + distance / q.scale + ratio * torch.exp(-distance / p.scale) - 1


@register_kl(Normal, Normal)
def _normal(p: Any, q: Any) -> Any:
    ratio = (p.scale / q.scale).pow(2)
    return 0.5 * (ratio + ((p.loc - q.loc) / q.scale).pow(2) - 1 - ratio.log())


@register_kl(Pareto, Pareto)
def _pareto(p: Any, q: Any) -> Any:
    ratio = q.alpha / p.alpha
    found = q.alpha * (p.scale / q.scale).log() - ratio.log() + ratio - 1
    return found.masked_fill(p.scale < q.scale, math.inf)


@register_kl(Poisson, Poisson)
def _poisson(p: Any, q: Any) -> Any:
    return p.rate * (p.rate.log() - q.rate.log()) - (p.rate - q.rate)


@register_kl(TransformedDistribution, TransformedDistribution)
def _transformed(p: Any, q: Any) -> Any:
    if p.transforms != q.transforms or p.event_shape != q.event_shape:
        raise NotImplementedError
    return kl_divergence(p.base_dist, q.base_dist)


@register_kl(Independent, Independent)
def _independent(p: Any, q: Any) -> Any:
    if p.reinterpreted_batch_ndims != q.reinterpreted_batch_ndims:
        raise NotImplementedError
    return sum_rightmost(kl_divergence(p.base_dist, q.base_dist), p.reinterpreted_batch_ndims)


@register_kl(Uniform, Uniform)
def _uniform(p: Any, q: Any) -> Any:
    found = ((q.high - q.low) / (p.high - p.low)).log()
    return found.masked_fill((q.low > p.low) | (q.high < p.high), math.inf)


# -- multivariate normal ----------------------------------------------------------------------------------------------


def _squares(matrix: Any) -> Any:
    """The trace of M M^T."""
    return matrix.pow(2).sum((-2, -1))


def _log_det(d: Any) -> Any:
    return d.log_det() if isinstance(d, LowRankMultivariateNormal) else 2 * d._half_log_det()


def _columns(d: Any) -> list[Any]:
    """Matrices whose M M^T add up to the covariance."""
    if isinstance(d, LowRankMultivariateNormal):
        return [d._unbroadcasted_cov_factor, torch.diag_embed(d._unbroadcasted_cov_diag.sqrt())]
    return [d._unbroadcasted_scale_tril]


def _multivariate(p: Any, q: Any) -> Any:
    if p.event_shape != q.event_shape:
        raise ValueError(
            "KL-divergence between two (Low Rank) Multivariate Normals with different event shapes cannot be computed"
        )
    difference, trace = q.loc - p.loc, 0
    if isinstance(q, LowRankMultivariateNormal):
        distance = q.distance(difference)
        scaled = q._unbroadcasted_cov_factor.mT / q._unbroadcasted_cov_diag.unsqueeze(-2)
        solve = torch.linalg.solve_triangular(q._capacitance_tril, scaled, upper=False)
        for m in _columns(p):
            trace = trace + _squares(m * q._unbroadcasted_cov_diag.rsqrt().unsqueeze(-1)) - _squares(solve @ m)
    else:
        distance = mahalanobis(q._unbroadcasted_scale_tril, difference)
        for m in _columns(p):
            trace = trace + _squares(torch.linalg.solve_triangular(q._unbroadcasted_scale_tril, m, upper=False))
    return 0.5 * (_log_det(q) - _log_det(p) + trace + distance - p.event_shape[0])


_VECTORS: tuple[type, ...] = (MultivariateNormal, LowRankMultivariateNormal)
for _own in _VECTORS:
    for _other in _VECTORS:
        register_kl(_own, _other)(_multivariate)


# -- across families, by moments --------------------------------------------------------------------------------------


def _mean_of_log(p: Any) -> Any:
    """E[log x]."""
    if isinstance(p, Exponential):
        return -euler_constant - p.rate.log()
    if isinstance(p, Gamma):
        return p.concentration.digamma() - p.rate.log()
    if isinstance(p, Beta):
        return p.concentration1.digamma() - (p.concentration1 + p.concentration0).digamma()
    if isinstance(p, Pareto):
        return p.scale.log() + p.alpha.reciprocal()
    if isinstance(p, Uniform):
        return (torch.xlogy(p.high, p.high) - torch.xlogy(p.low, p.low)) / (p.high - p.low) - 1
    raise AssertionError(f"no mean of the logarithm of {type(p).__name__}")


def _mean_of_exp_minus(p: Any, q: Any) -> Any:
    """E[exp(-(x - q.loc) / q.scale)]."""
    if isinstance(p, Exponential):
        return torch.exp(q.loc / q.scale) * p.rate / (p.rate + q.scale.reciprocal())
    if isinstance(p, Gamma):
        return torch.exp(q.loc / q.scale) * (1 + (p.rate * q.scale).reciprocal()).pow(-p.concentration)
    if isinstance(p, Normal):
        return torch.exp((q.loc - p.loc) / q.scale + 0.5 * (p.scale / q.scale).pow(2))
    if isinstance(p, Uniform):
        low, high = ((bound - q.loc) / q.scale for bound in (p.low, p.high))
        return q.scale / (p.high - p.low) * (torch.exp(-low) - torch.exp(-high))
    raise AssertionError(f"no mean of exp(-x) of {type(p).__name__}")


def _exponential_cross(p: Any, q: Any) -> Any:
    return q.rate * p.mean - q.rate.log()


def _gamma_cross(p: Any, q: Any) -> Any:
    k = q.concentration
    return k.lgamma() - k * q.rate.log() - (k - 1) * _mean_of_log(p) + q.rate * p.mean


def _normal_cross(p: Any, q: Any) -> Any:
    square = q.scale.pow(2)
    return 0.5 * (2 * math.pi * square).log() + (p.variance + (p.mean - q.loc).pow(2)) / (2 * square)


def _gumbel_cross(p: Any, q: Any) -> Any:
    return q.scale.log() + (p.mean - q.loc) / q.scale + _mean_of_exp_minus(p, q)


def _poisson_cross(p: Any, q: Any) -> Any:
    # For 0 and 1, log x! is 0.
    return q.rate - p.mean * q.rate.log()


def _continuous_bernoulli_cross(p: Any, q: Any) -> Any:
    return -p.mean * q.logits - torch.log1p(-q.probs) - q._cont_bern_log_norm()


def _bounds(p: Any) -> tuple[Any, Any]:
    """The ends of a support."""
    support = p.support
    return getattr(support, "lower_bound", -math.inf), getattr(support, "upper_bound", math.inf)


def _pareto_cross(p: Any, q: Any) -> Any:
    inside = _bounds(p)[0] >= q.scale
    found = (1 + q.alpha) * _mean_of_log(p) - q.alpha.log() - q.alpha * q.scale.log()
    return torch.where(inside, found, math.inf)


def _uniform_cross(p: Any, q: Any) -> Any:
    low, high = _bounds(p)
    return (q.high - q.low).log().masked_fill((q.low > low) | (q.high < high), math.inf)


def _beta_cross(p: Any, q: Any) -> Any:
    """For a uniform p within [0, 1]: the means of log x and of log(1 - x)."""

    def spread(low: Any, high: Any) -> Any:
        return (torch.xlogy(high, high) - torch.xlogy(low, low)) / (high - low) - 1

    total = q.concentration1 + q.concentration0
    found = (
        q.concentration1.lgamma()
        + q.concentration0.lgamma()
        - total.lgamma()
        - (q.concentration1 - 1) * spread(p.low, p.high)
        - (q.concentration0 - 1) * spread(1 - p.high, 1 - p.low)
    )
    return found.masked_fill((p.high > 1) | (p.low < 0), math.inf)


def _register_cross(q: type, cross: Callable[[Any, Any], Any], *families: type) -> None:
    def divergence(p: Any, q: Any) -> Any:
        return cross(p, q) - p.entropy()

    def of_uniform(p: Any, q: Any) -> Any:
        outside = p.low < _bounds(q)[0]
        return torch.where(outside, math.inf, divergence(p, q))

    for family in families:
        register_kl(family, q)(of_uniform if family is Uniform else divergence)


_register_cross(Poisson, _poisson_cross, Bernoulli)
_register_cross(ContinuousBernoulli, _continuous_bernoulli_cross, Beta)
_register_cross(Exponential, _exponential_cross, Beta, ContinuousBernoulli, Gamma, Gumbel, Pareto, Uniform)
_register_cross(Gamma, _gamma_cross, Beta, Exponential, Pareto, Uniform)
_register_cross(Normal, _normal_cross, Beta, ContinuousBernoulli, Exponential, Gamma, Gumbel, Laplace, Uniform)
_register_cross(Gumbel, _gumbel_cross, Exponential, Gamma, Normal, Uniform)
_register_cross(Pareto, _pareto_cross, Uniform)
_register_cross(Uniform, _uniform_cross, Beta, ContinuousBernoulli)
_register_cross(Beta, _beta_cross, Uniform)


@register_kl(Pareto, Normal)
def _pareto_normal(p: Any, q: Any) -> Any:
    return torch.where(p.alpha <= 2, math.inf, _normal_cross(p, q) - p.entropy())


@register_kl(Uniform, ContinuousBernoulli)
def _uniform_continuous_bernoulli(p: Any, q: Any) -> Any:
    found = _continuous_bernoulli_cross(p, q) - p.entropy()
    return torch.where((p.high > 1) | (p.low < 0), math.inf, found)


def _infinite(*names: str) -> Callable[[Any, Any], Any]:
    """q has no density where p has: the divergence, in the shape of p's parameter."""
    return lambda p, q: torch.full_like(next(getattr(p, n) for n in names if hasattr(p, n)), math.inf)


_NARROWER: dict[type, tuple[type, ...]] = {
    Beta: (Pareto,),
    ContinuousBernoulli: (Pareto,),
    Exponential: (Beta, ContinuousBernoulli, Pareto, Uniform),
    Gamma: (Beta, ContinuousBernoulli, Pareto, Uniform),
    Gumbel: (Beta, ContinuousBernoulli, Exponential, Gamma, Pareto, Uniform),
    Laplace: (Beta, ContinuousBernoulli, Exponential, Gamma, Pareto, Uniform),
    Normal: (Beta, ContinuousBernoulli, Exponential, Gamma, Pareto, Uniform),
    Pareto: (Beta, ContinuousBernoulli, Uniform),
    Poisson: (Bernoulli, Binomial),
}
for _p, _families in _NARROWER.items():
    for _q in _families:
        register_kl(_p, _q)(_infinite("concentration1", "probs", "rate", "loc", "scale"))


@register_kl(Normal, Laplace)
def _normal_laplace(p: Any, q: Any) -> Any:
    # E|x - m| of a normal x is that of a folded normal number.
    distance, root = p.loc - q.loc, math.sqrt(2 * math.pi)
    folded = 2 * p.scale / root * torch.exp(-0.5 * (distance / p.scale).pow(2))
    folded = folded + distance * torch.erf(distance / (math.sqrt(2) * p.scale))
    return -p.entropy() + (2 * q.scale).log() + folded / q.scale
