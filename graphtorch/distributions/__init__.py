"""Probability distributions, with sampling, log-probabilities and divergences, `torch.distributions`.

See https://docs.pytorch.org/docs/stable/distributions.html
"""

from graphtorch.distributions import constraints, transforms
from graphtorch.distributions.bernoulli import Bernoulli
from graphtorch.distributions.beta import Beta
from graphtorch.distributions.binomial import Binomial
from graphtorch.distributions.categorical import Categorical
from graphtorch.distributions.cauchy import Cauchy
from graphtorch.distributions.chi2 import Chi2
from graphtorch.distributions.constraint_registry import biject_to, transform_to
from graphtorch.distributions.continuous_bernoulli import ContinuousBernoulli
from graphtorch.distributions.dirichlet import Dirichlet
from graphtorch.distributions.distribution import Distribution
from graphtorch.distributions.exp_family import ExponentialFamily
from graphtorch.distributions.exponential import Exponential
from graphtorch.distributions.fishersnedecor import FisherSnedecor
from graphtorch.distributions.gamma import Gamma
from graphtorch.distributions.generalized_pareto import GeneralizedPareto
from graphtorch.distributions.geometric import Geometric
from graphtorch.distributions.gumbel import Gumbel
from graphtorch.distributions.half_cauchy import HalfCauchy
from graphtorch.distributions.half_normal import HalfNormal
from graphtorch.distributions.independent import Independent
from graphtorch.distributions.inverse_gamma import InverseGamma
from graphtorch.distributions.kl import kl_divergence, register_kl
from graphtorch.distributions.kumaraswamy import Kumaraswamy
from graphtorch.distributions.laplace import Laplace
from graphtorch.distributions.lkj_cholesky import LKJCholesky
from graphtorch.distributions.log_normal import LogNormal
from graphtorch.distributions.logistic_normal import LogisticNormal
from graphtorch.distributions.lowrank_multivariate_normal import LowRankMultivariateNormal
from graphtorch.distributions.mixture_same_family import MixtureSameFamily
from graphtorch.distributions.multinomial import Multinomial
from graphtorch.distributions.multivariate_normal import MultivariateNormal
from graphtorch.distributions.negative_binomial import NegativeBinomial
from graphtorch.distributions.normal import Normal
from graphtorch.distributions.one_hot_categorical import OneHotCategorical, OneHotCategoricalStraightThrough
from graphtorch.distributions.pareto import Pareto
from graphtorch.distributions.poisson import Poisson
from graphtorch.distributions.relaxed_bernoulli import RelaxedBernoulli
from graphtorch.distributions.relaxed_categorical import RelaxedOneHotCategorical
from graphtorch.distributions.studentT import StudentT
from graphtorch.distributions.transformed_distribution import TransformedDistribution
from graphtorch.distributions.transforms import *  # noqa: F403
from graphtorch.distributions.uniform import Uniform
from graphtorch.distributions.von_mises import VonMises
from graphtorch.distributions.weibull import Weibull
from graphtorch.distributions.wishart import Wishart

__all__ = [
    "Bernoulli", "Beta", "Binomial", "Categorical", "Cauchy", "Chi2", "ContinuousBernoulli", "Dirichlet",
    "Distribution", "Exponential", "ExponentialFamily", "FisherSnedecor", "Gamma", "GeneralizedPareto", "Geometric",
    "Gumbel", "HalfCauchy", "HalfNormal", "Independent", "InverseGamma", "Kumaraswamy", "LKJCholesky", "Laplace",
    "LogNormal", "LogisticNormal", "LowRankMultivariateNormal", "MixtureSameFamily",
    "Multinomial", "MultivariateNormal", "NegativeBinomial", "Normal", "OneHotCategorical",
    "OneHotCategoricalStraightThrough", "Pareto", "Poisson", "RelaxedBernoulli", "RelaxedOneHotCategorical", "StudentT",
    "TransformedDistribution", "Uniform", "VonMises", "Weibull", "Wishart", "biject_to", "constraints",
    "kl_divergence", "register_kl", "transform_to", "transforms", *transforms.__all__,
]  # fmt: skip
