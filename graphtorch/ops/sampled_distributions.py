"""Numbers from gamma, Dirichlet, Poisson and binomial distributions with a parameter for each, and how those of the
first two move with their parameters.

The numbers are PyTorch's after the same seed. See https://docs.pytorch.org/docs/stable/distributions.html.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from graphtorch.ops import implicit_gradients
from graphtorch.ops.build import operator
from graphtorch.ops.pointwise import common_float, not_implemented, pointwise_type
from graphtorch.ops.record import Sample, sample
from graphtorch.tensor import rejection
from graphtorch.tensor.generator import Generator, default_generator
from graphtorch.tensor.type import TensorType


def _refuse(name: str, input: Any) -> None:
    if not input.dtype.is_floating_point:
        raise not_implemented(name, input.dtype)


def _like_input(name: str) -> Callable[..., TensorType]:
    def rule(input: Any, generator: Any) -> TensorType:
        _refuse(name, input)
        return TensorType(input.dtype, tuple(input.shape), input.device)

    return rule


def _draws(generator: Generator | None) -> rejection.Draws:
    return rejection.Draws(default_generator if generator is None else generator)


def _own(array: Any) -> Any:
    """The precision that parameters are used in: their own, at least float32."""
    return array if array.dtype == np.float64 else array.astype(np.float32)


def _numpy_gamma(input: Any, generator: Any) -> Any:
    with _draws(generator) as draws:
        found = rejection.gamma(draws, _own(input))
    own = _own(input).dtype
    return np.maximum(found.astype(own), np.finfo(own).tiny).astype(input.dtype)


def _numpy_dirichlet(input: Any, generator: Any) -> Any:
    with _draws(generator) as draws:
        parts = np.maximum(rejection.gamma(draws, _own(input).astype(np.float64)), np.finfo(np.float64).tiny)
    own = _own(input).dtype
    shares = (parts / parts.sum(-1, keepdims=True)).astype(own)
    return np.clip(shares, np.finfo(own).tiny, np.nextafter(own.type(1), own.type(0))).astype(input.dtype)


def _numpy_poisson(input: Any, generator: Any) -> Any:
    with _draws(generator) as draws:
        return rejection.poisson(draws, input.astype(np.float64)).astype(input.dtype)


def _numpy_binomial(count: Any, prob: Any, generator: Any) -> Any:
    n, p = np.broadcast_arrays(count, prob)
    with _draws(generator) as draws:
        return rejection.binomial(draws, n, p)


def _binomial_type(count: Any, prob: Any, generator: Any) -> TensorType:
    _refuse("binomial_cpu", count)
    if count.dtype is not prob.dtype:
        raise RuntimeError(
            f"binomial(): found dtype {_cpp(prob.dtype)} for prob but expected {_cpp(count.dtype)}, that of count"
        )
    return pointwise_type((count, prob), count.dtype)


def _cpp(dtype: Any) -> str:
    return {"torch.float32": "Float", "torch.float64": "Double", "torch.float16": "Half"}.get(repr(dtype), repr(dtype))


def _positive(make: Any) -> Iterable[Sample]:
    yield sample(make(3, 4, low=0.3, high=5.0))
    yield sample(make(0, 2))


_gamma_slope = operator(
    "standard_gamma_slope(Tensor input, Tensor output)",
    type=lambda input, output: pointwise_type((input, output), common_float(input, output)),
    numpy=lambda input, output: np.asarray(implicit_gradients.gamma(input, output)),
    samples=lambda make: [sample(make(3, 4, low=0.3, high=5.0), make(3, 4, low=0.1, high=4.0))],
    public=False,
    method=False,
    doc="How numbers drawn from gamma distributions of the shapes `input` move with these.",
)

standard_gamma = operator(
    "_standard_gamma(Tensor input, any generator=None)",
    type=_like_input("gamma_cpu"),
    numpy=_numpy_gamma,
    derivative={"input": lambda g, input, result: g * _gamma_slope(input, result)},
    random=True,
    samples=_positive,
    doc="Numbers from gamma distributions of the shapes `input` and scale 1.",
)

_dirichlet_slope = operator(
    "dirichlet_slope(Tensor input, Tensor alpha, Tensor total)",
    type=lambda input, alpha, total: pointwise_type((input, alpha, total), common_float(input, alpha, total)),
    numpy=lambda input, alpha, total: np.asarray(implicit_gradients.beta(input, alpha, total)),
    samples=lambda make: [
        sample(make(3, 4, low=0.1, high=0.9), make(3, 4, low=0.3, high=2.0), make(3, 4, low=3.0, high=5.0))
    ],
    public=False,
    method=False,
    doc="How shares `input` of Dirichlet numbers move with their own `alpha`, over 1 - `input`.",
)


def _dirichlet_formula(g: Any, input: Any, result: Any) -> Any:
    total = input.sum(-1, True).expand_as(input)
    return _dirichlet_slope(result, input, total) * (g - (result * g).sum(-1, True))


sample_dirichlet = operator(
    "_sample_dirichlet(Tensor input, any generator=None)",
    type=_like_input("dirichlet"),
    numpy=_numpy_dirichlet,
    derivative={"input": _dirichlet_formula},
    random=True,
    samples=lambda make: [sample(make(3, 4, low=0.3, high=5.0))],
    method=False,
    doc="Points of the simplex from Dirichlet distributions, whose concentrations lie along the last dimension.",
)

poisson = operator(
    "poisson(Tensor input, any generator=None)",
    type=_like_input("poisson_cpu"),
    numpy=_numpy_poisson,
    derivative={"input": lambda g: g * 0},
    random=True,
    samples=_positive,
    method=False,
    doc="Numbers from Poisson distributions of the rates `input`.",
)

binomial = operator(
    "binomial(Tensor count, Tensor prob, any generator=None)",
    type=_binomial_type,
    numpy=_numpy_binomial,
    derivative={"prob": lambda g, prob: prob * 0 + g * 0},
    random=True,
    samples=lambda make: [sample(make(3, 4, low=1.0, high=9.0), make(3, 4, low=0.1, high=0.9))],
    method=False,
    doc="Numbers of successes among `count` trials of probability `prob`.",
)
