"""Special functions: zeta, incomplete gamma, Bessel, tails of the normal distribution, orthogonal polynomials."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from graphtorch.ops import error_function, special_numerics
from graphtorch.ops.build import FUNCTIONS, function, operator
from graphtorch.ops.pointwise import common_float, not_implemented, pointwise_type, promoted
from graphtorch.ops.record import Sample, sample
from graphtorch.ops.special_numerics import in_float64
from graphtorch.tensor import dtypes
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType


def _where(condition: Any, x: Any, y: Any) -> Any:
    return FUNCTIONS["where"](condition, x, y)


def _refused(name: str, *operands: Any) -> dtypes.dtype:
    """The dtype to compute in.

    Raises NotImplementedError for complex operands.
    """
    d = common_float(*operands)
    if d.is_complex:
        raise not_implemented(name, d)
    return d


def unary_special(
    name: str,
    compute: Callable[[Any], Any],
    derivative: Callable[..., Any] | None,
    *,
    low: float = 0.2,
    high: float = 3.0,
    method: bool = False,
    kernel: str | None = None,
) -> Callable[..., Any]:
    """An operator of one operand that no backend has an instruction for."""

    def samples(make: Any) -> Iterable[Sample]:
        yield sample(make(3, 4, low=low, high=high))
        yield sample(make(low=low, high=high))
        yield sample(make(0, 2))

    return operator(
        f"{name}(Tensor input)",
        type=lambda input: pointwise_type((input,), _refused(kernel or f"{name}_cpu", input)),
        numpy=lambda input: np.asarray(compute(*promoted(common_float, (input,)))),
        order={"result": "operands"},
        derivative={} if derivative is None else {"input": derivative},
        samples=samples,
        categories="bif",
        method=method,
        inplace=method,
        out=True,
    )


# -- zeta and incomplete gamma -----------------------------------------------------------------------------------------


def _two(
    name: str,
    first: str,
    second: str,
    compute: Callable[..., Any],
    derivative: dict[str, Any],
    numbers: bool = True,
    **fields: Any,
) -> Callable[..., Any]:
    """An operator of two broadcast operands, of which one may be a number if `numbers`."""

    def run(a: Any, b: Any) -> Any:
        made = compute(*promoted(common_float, (a, b)))
        return np.asarray(made)

    kind = "Tensor|Number" if numbers else "Tensor"

    return operator(
        f"{name}({kind} {first}, {kind} {second})",
        type=lambda a, b: pointwise_type((a, b), _refused(f"{name}_cpu", a, b)),
        numpy=run,
        order={"result": "operands"},
        derivative=derivative,
        samples=lambda make: [
            sample(make(3, 4, low=1.2, high=4.0), make(3, 4, low=0.3, high=4.0)),
            sample(make(3, 1, low=1.2, high=4.0), make(4, low=3.0, high=9.0)),
        ],
        **fields,
    )


zeta: Callable[..., Tensor] = _two(
    "special_zeta",
    "input",
    "other",
    special_numerics.zeta,
    {"other": lambda g, input, other: g * -input * zeta(input + 1, other)},
    categories="bif",
    method=False,
)


def _igamma_slope(input: Any, other: Any) -> Any:
    return ((input - 1) * other.log() - other - input.lgamma()).exp()


igamma: Callable[..., Tensor] = _two(
    "igamma",
    "input",
    "other",
    special_numerics.igamma,
    numbers=False,
    derivative={"other": lambda g, input, other: g * _igamma_slope(input, other)},
    categories="f",
    inplace=True,
)
igammac: Callable[..., Tensor] = _two(
    "igammac",
    "input",
    "other",
    special_numerics.igammac,
    numbers=False,
    derivative={"other": lambda g, input, other: -g * _igamma_slope(input, other)},
    categories="f",
    inplace=True,
)

# -- Bessel -----------------------------------------------------------------------------------------------------------


def _over(value: Any, input: Any, at_zero: float) -> Any:
    """value / input, with the limit at zero."""
    return _where(input == 0, at_zero, value / _where(input == 0, 1.0, input))


i0: Callable[..., Tensor] = unary_special(
    "i0", special_numerics.i0, lambda g, input: g * i1(input), low=-3.0, method=True
)
i1: Callable[..., Tensor] = unary_special(
    "special_i1",
    special_numerics.i1,
    lambda g, input, result: g * (i0(input) - _over(result, input, 0.5)),
    low=-3.0,
)
i0e: Callable[..., Tensor] = unary_special(
    "special_i0e", special_numerics.i0e, lambda g, input, result: g * (i1e(input) - input.sgn() * result), low=-3.0
)
i1e: Callable[..., Tensor] = unary_special(
    "special_i1e",
    special_numerics.i1e,
    lambda g, input, result: g * (i0e(input) - result * input.sgn() - _over(result, input, 0.5)),
    low=-3.0,
)

# -- the normal distribution ------------------------------------------------------------------------------------------


def _numpy_erfcx(x: Any) -> Any:
    """exp(x^2) erfc(x): beyond 1 the Chebyshev series of `error_function` without its exponential."""
    large = x >= 1.0
    far = np.where(large, x, 1.0)
    s = np.where(np.isposinf(far), 1.0, (far - 5.0) / (np.where(np.isposinf(far), 1.0, far) + 3.0))
    series = np.polynomial.chebyshev.chebval(s, error_function._C)
    near = np.where(large, 0.0, x)
    return np.where(large, series / (1.0 + 2.0 * far), np.exp(near * near) * error_function.erfc(near))


erfcx: Callable[..., Tensor] = unary_special(
    "special_erfcx",
    in_float64(_numpy_erfcx),
    lambda g, input, result: g * (2.0 * input * result - 2.0 / math.sqrt(math.pi)),
    low=-2.0,
)


@function()
def special_log_ndtr(input: Tensor) -> Tensor:
    """The logarithm of ndtr, accurate in the lower tail. See torch.special.log_ndtr."""
    x = input.to(_refused("log_ndtr_cpu", input))
    scaled = x * math.sqrt(0.5)
    low = x < -1.0
    inside = _where(low, -scaled, 1.0)
    tail = (0.5 * erfcx(inside)).log() - inside * inside
    return _where(low, tail, (-0.5 * FUNCTIONS["erfc"](_where(low, 0.0, scaled))).log1p())  # type: ignore[no-any-return]


def _numpy_ndtri(p: Any) -> Any:
    """Newton's steps on the logarithm of the lower tail, which is concave: they converge from below."""
    low = np.minimum(p, 1.0 - p)
    inside = (low > 0) & (low <= 0.5)
    target = np.log(np.where(inside, low, 0.5))
    x = -np.sqrt(np.maximum(-2.0 * target - np.log(2.0 * np.pi), 0.0))
    for _ in range(12):
        scaled = _numpy_erfcx(-x * math.sqrt(0.5))  # 2 exp(x^2 / 2) ndtr(x)
        log_tail = np.log(0.5 * scaled) - 0.5 * x * x
        x = x - (log_tail - target) * scaled * math.sqrt(math.pi / 2.0)
    x = np.where(p == 0.5, 0.0, np.where(inside, x, np.where(low == 0, -np.inf, np.nan)))
    return np.where(p > 0.5, -x, x)


ndtri: Callable[..., Tensor] = unary_special(
    "special_ndtri",
    in_float64(_numpy_ndtri),
    lambda g, result: g * (math.sqrt(2.0 * math.pi) * (result * result * 0.5).exp()),
    low=0.05,
    high=0.95,
)

# -- orthogonal polynomials -------------------------------------------------------------------------------------------


def _recurrence(first: Callable[[Any], Any], step: Callable[..., Any], shift: Callable[[Any], Any]) -> Any:
    """All degrees up to the largest wanted, each kept where it is wanted."""

    @in_float64
    def run(n: Any, x: Any) -> Any:
        x, n = np.broadcast_arrays(shift(x), np.trunc(n))
        before, current = np.ones(x.shape), np.asarray(first(x))
        found = np.where(n == 0, before, np.where(n == 1, current, 0.0))
        for k in range(1, int(np.max(n, initial=0.0))):
            before, current = current, step(k, x, current, before)
            found = np.where(n == k + 1, current, found)
        return found

    return lambda x, n: run(n, x)


def _identity(x: Any) -> Any:
    return x


def _cosines(k: int, x: Any, current: Any, before: Any) -> Any:
    return 2.0 * x * current - before


def _halves(x: Any) -> Any:
    return 2.0 * x - 1.0


_POLYNOMIALS = {
    "chebyshev_polynomial_t": (lambda x: x, _cosines, _identity),
    "chebyshev_polynomial_u": (lambda x: 2.0 * x, _cosines, _identity),
    "chebyshev_polynomial_v": (lambda x: 2.0 * x - 1.0, _cosines, _identity),
    "chebyshev_polynomial_w": (lambda x: 2.0 * x + 1.0, _cosines, _identity),
    "shifted_chebyshev_polynomial_t": (lambda x: x, _cosines, _halves),
    "shifted_chebyshev_polynomial_u": (lambda x: 2.0 * x, _cosines, _halves),
    "shifted_chebyshev_polynomial_v": (lambda x: 2.0 * x - 1.0, _cosines, _halves),
    "shifted_chebyshev_polynomial_w": (lambda x: 2.0 * x + 1.0, _cosines, _halves),
    "hermite_polynomial_h": (
        lambda x: 2.0 * x,
        lambda k, x, current, before: 2.0 * x * current - 2.0 * k * before,
        _identity,
    ),
    "hermite_polynomial_he": (lambda x: x, lambda k, x, current, before: x * current - k * before, _identity),
    "laguerre_polynomial_l": (
        lambda x: 1.0 - x,
        lambda k, x, current, before: ((2 * k + 1 - x) * current - k * before) / (k + 1),
        _identity,
    ),
    "legendre_polynomial_p": (
        lambda x: x,
        lambda k, x, current, before: ((2 * k + 1) * x * current - k * before) / (k + 1),
        _identity,
    ),
}


def _polynomial(name: str) -> None:
    compute = _recurrence(*_POLYNOMIALS[name])

    def run(input: Any, n: Any) -> Any:
        x, degree = promoted(common_float, (input, n))
        return compute(x, degree)

    def rule(input: Any, n: Any) -> TensorType:
        return pointwise_type((input, n), _refused(f"{name}_cpu", input, n))

    operator(
        f"special_{name}(Tensor|Number input, Tensor|Number n)",
        type=rule,
        numpy=run,
        samples=lambda make: [
            sample(make(3, 4), 3),
            sample(make(3, 4), 0),
            sample(make(3, 4), make.ints(3, 4, low=0, high=7)),
        ],
        categories="bif",
        method=False,
        out=True,
    )


for _name in _POLYNOMIALS:
    _polynomial(_name)
