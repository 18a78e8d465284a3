"""Distributions to compare with PyTorch's: a name, and the arguments as arrays or numbers, by the families' domains."""

from __future__ import annotations

from typing import Any

import numpy as np


def cases(seed: int = 0) -> list[tuple[str, dict[str, Any]]]:
    """(class name, keyword arguments) of every family; arrays are float64."""
    rng = np.random.default_rng(seed)

    def real(*shape: int) -> np.ndarray:
        return rng.normal(size=shape)

    def positive(*shape: int) -> np.ndarray:
        return rng.uniform(0.4, 3.0, size=shape)

    def chance(*shape: int) -> np.ndarray:
        return rng.uniform(0.1, 0.9, size=shape)

    def simplex(*shape: int) -> np.ndarray:
        return rng.dirichlet(np.ones(shape[-1]), size=shape[:-1])

    def definite(*shape: int) -> np.ndarray:
        m = rng.normal(size=shape)
        return m @ np.swapaxes(m, -1, -2) + 2 * np.eye(shape[-1])

    two = (3, 2)
    return [
        ("Normal", {"loc": real(*two), "scale": positive(*two)}),
        ("Normal", {"loc": 0.5, "scale": positive(4)}),
        ("LogNormal", {"loc": real(*two), "scale": positive(*two)}),
        ("HalfNormal", {"scale": positive(*two)}),
        ("HalfCauchy", {"scale": positive(*two)}),
        ("Cauchy", {"loc": real(*two), "scale": positive(*two)}),
        ("Laplace", {"loc": real(*two), "scale": positive(*two)}),
        ("Gumbel", {"loc": real(*two), "scale": positive(*two)}),
        ("Uniform", {"low": -positive(*two), "high": positive(*two)}),
        ("Exponential", {"rate": positive(*two)}),
        ("Gamma", {"concentration": positive(*two), "rate": positive(*two)}),
        ("Gamma", {"concentration": 0.3 * positive(7), "rate": 2.0}),
        ("InverseGamma", {"concentration": positive(*two) + 2, "rate": positive(*two)}),
        ("Chi2", {"df": positive(*two)}),
        ("StudentT", {"df": positive(*two) + 2, "loc": real(*two), "scale": positive(*two)}),
        ("StudentT", {"df": np.array([0.7, 1.5, 2.5]), "loc": real(3), "scale": positive(3)}),
        ("FisherSnedecor", {"df1": positive(*two) + 2, "df2": positive(*two) + 4}),
        ("Beta", {"concentration1": positive(*two), "concentration0": positive(*two)}),
        ("Dirichlet", {"concentration": positive(3, 4)}),
        ("Kumaraswamy", {"concentration1": positive(*two), "concentration0": positive(*two)}),
        ("Pareto", {"scale": positive(*two), "alpha": positive(*two) + 2}),
        ("GeneralizedPareto", {"loc": real(3), "scale": positive(3), "concentration": np.array([-0.3, 0.0, 0.4])}),
        ("Weibull", {"scale": positive(*two), "concentration": positive(*two)}),
        ("VonMises", {"loc": real(*two), "concentration": positive(*two)}),
        ("LogisticNormal", {"loc": real(3, 2), "scale": positive(3, 2)}),
        ("Bernoulli", {"probs": chance(*two)}),
        ("Bernoulli", {"logits": real(*two)}),
        ("Bernoulli", {"probs": np.array([0.0, 1.0, 0.5])}),
        ("ContinuousBernoulli", {"probs": np.array([0.1, 0.4999, 0.5, 0.7])}),
        ("ContinuousBernoulli", {"logits": real(*two)}),
        ("Geometric", {"probs": chance(*two)}),
        ("Geometric", {"logits": real(*two)}),
        ("Binomial", {"total_count": 9, "probs": chance(*two)}),
        ("Binomial", {"total_count": np.full(two, 30.0), "logits": real(*two)}),
        ("NegativeBinomial", {"total_count": 5, "probs": chance(*two)}),
        ("NegativeBinomial", {"total_count": positive(*two), "logits": real(*two)}),
        ("Poisson", {"rate": positive(*two) * 10}),
        ("Categorical", {"probs": simplex(3, 5)}),
        ("Categorical", {"logits": real(2, 3, 4)}),
        ("Categorical", {"logits": real(4)}),
        ("OneHotCategorical", {"probs": simplex(3, 5)}),
        ("OneHotCategorical", {"logits": real(2, 4)}),
        ("OneHotCategoricalStraightThrough", {"logits": real(2, 4)}),
        ("Multinomial", {"total_count": 6, "probs": simplex(3, 4)}),
        ("Multinomial", {"total_count": 6, "logits": real(4)}),
        ("RelaxedBernoulli", {"temperature": np.array(0.7), "logits": real(*two)}),
        ("LogitRelaxedBernoulli", {"temperature": np.array(0.7), "probs": chance(*two)}),
        ("RelaxedOneHotCategorical", {"temperature": np.array(0.7), "logits": real(3, 4)}),
        ("MultivariateNormal", {"loc": real(2, 3), "covariance_matrix": definite(2, 3, 3)}),
        ("MultivariateNormal", {"loc": real(2, 3), "precision_matrix": definite(3, 3)}),
        ("MultivariateNormal", {"loc": real(3), "scale_tril": np.linalg.cholesky(definite(2, 3, 3))}),
        ("LowRankMultivariateNormal", {"loc": real(2, 4), "cov_factor": real(4, 2), "cov_diag": positive(4)}),
        ("LKJCholesky", {"dim": 3, "concentration": positive(2)}),
        ("Wishart", {"df": np.array([4.5, 6.0]), "covariance_matrix": definite(2, 3, 3)}),
        ("Wishart", {"df": np.array([4.5, 6.0]), "precision_matrix": definite(3, 3)}),
    ]
