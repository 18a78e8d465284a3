"""Distributions inside compiled functions: the numbers and gradients of eager calls, in one graph."""

from __future__ import annotations

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import distributions as D
from graphtorch.nn import functional as F


def variational(parameters):
    """A step of a variational autoencoder."""
    mean, log_scale, weight, x = parameters
    posterior = D.Normal(mean, log_scale.exp())
    z = posterior.rsample()
    likelihood = D.Bernoulli(logits=z @ weight)
    divergence = D.kl_divergence(posterior, D.Normal(0.0, 1.0))
    return -(likelihood.log_prob(x).sum() - divergence.sum())


def policy(parameters):
    """A policy gradient with an entropy bonus."""
    mean, _, weight, _ = parameters
    choice = D.Categorical(logits=mean @ weight)
    action = choice.sample()
    return -(choice.log_prob(action).mean() + 0.01 * choice.entropy().mean())


def continuous_policy(parameters):
    """Squashed Gaussian actions, as in soft actor-critic."""
    mean, log_scale, _, _ = parameters
    base = D.Independent(D.Normal(mean, log_scale.exp()), 1)
    squashed = D.TransformedDistribution(base, D.TanhTransform(cache_size=1))
    action = squashed.rsample()
    return (squashed.log_prob(action) + action.sum(-1)).mean()


def shapes(parameters):
    """Gamma, beta and Dirichlet numbers, whose gradients are implicit."""
    mean, log_scale, _, _ = parameters
    a, b = F.softplus(mean) + 0.5, log_scale.exp()
    drawn = D.Gamma(a, b).rsample().sum() + D.Beta(a, b).rsample().sum() + D.Dirichlet(a).rsample().square().sum()
    return drawn + D.kl_divergence(D.Gamma(a, b), D.Gamma(b, a)).sum()


def vectors(parameters):
    """Multivariate normal numbers."""
    mean, log_scale, _, _ = parameters
    d = D.MultivariateNormal(mean, scale_tril=torch.diag_embed(log_scale.exp()))
    other = D.MultivariateNormal(torch.zeros(3), torch.eye(3))
    return d.log_prob(d.rsample() + 0.1).sum() + D.kl_divergence(d, other).sum()


def relaxed(parameters):
    """Gumbel-softmax choices, a mixture's likelihood."""
    mean, log_scale, _, _ = parameters
    drawn = D.RelaxedOneHotCategorical(torch.tensor(0.5), logits=mean).rsample()
    mixture = D.MixtureSameFamily(D.Categorical(logits=mean), D.Normal(mean, log_scale.exp()))
    return drawn.square().sum() + mixture.log_prob(torch.zeros(4)).sum()


def counts(parameters):
    """Poisson and binomial numbers under a likelihood."""
    mean, _, _, _ = parameters
    rate, chance = mean.exp(), torch.sigmoid(mean)
    n = D.Poisson(rate.detach()).sample()
    k = D.Binomial(9, chance.detach()).sample()
    return D.Poisson(rate).log_prob(n).sum() + D.Binomial(9, chance).log_prob(k).sum()


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
@pytest.mark.parametrize("program", [variational, policy, continuous_policy, shapes, vectors, relaxed, counts])
def test_compiled_is_eager(program, backend):
    rng = np.random.default_rng(0)

    def run(function):
        parameters = [torch.from_numpy(rng_array.astype(np.float32)).requires_grad_() for rng_array in arrays]
        torch.manual_seed(0)
        found = []
        for _ in range(2):
            loss = function(parameters)
            loss.backward()
            found.append(loss.item())
        return found, [None if p.grad is None else p.grad.numpy() for p in parameters]

    arrays = [rng.normal(size=s) for s in ((4, 3), (4, 3), (3, 5))] + [(rng.random((4, 5)) < 0.5)]
    losses, gradients = run(program)
    compiled = torch.compile(program, backend=backend, fullgraph=True)
    compiled_losses, compiled_gradients = run(compiled)
    np.testing.assert_allclose(compiled_losses, losses, rtol=2e-5, atol=2e-5)  # sums of terms of both signs
    for mine, expected in zip(compiled_gradients, gradients, strict=True):
        assert (mine is None) == (expected is None)
        if mine is not None:
            np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=1e-5)
