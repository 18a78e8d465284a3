"""Running folds along a dimension: cumulative sums, products, extrema and log-sum-exps, and differences."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from graphtorch.ops.arithmetic import conjugate
from graphtorch.ops.build import FUNCTIONS, function, operator
from graphtorch.ops.dispatch import call_inplace
from graphtorch.ops.pointwise import not_implemented
from graphtorch.ops.record import Sample, lookup, sample
from graphtorch.ops.reduction import wide
from graphtorch.ops.shapes import wrap_dim
from graphtorch.ops.strides import row_major
from graphtorch.tensor import dtypes
from graphtorch.tensor.type import TensorType


def _normalize(input: Any, dim: int, *rest: Any) -> tuple[Any, ...]:
    return input, wrap_dim(dim, len(input.shape)), *rest


def _fold_type(input: Any, dim: int, dtype: Any) -> TensorType:
    d = dtype or (dtypes.int64 if input.dtype.category <= dtypes.INTEGRAL else input.dtype)
    return TensorType(d, tuple(input.shape), input.device)


def _fold(scan: Any) -> Callable[..., Any]:
    def run(input: Any, dim: int, dtype: Any) -> Any:
        target = np.dtype(np.int64) if input.dtype.kind in "biu" else input.dtype
        target = target if dtype is None else dtype.numpy
        x = wide(input.astype(target, copy=False))
        return row_major((scan(x, axis=dim) if x.ndim else x.copy()).astype(target, copy=False))

    return run


def _samples(make: Any) -> Iterable[Sample]:
    yield sample(make(3, 4), 0)
    yield sample(make(2, 3, 4), -2)
    yield sample(make(), 0)


def _reverse_cumsum(value: Any, dim: int) -> Any:
    if len(value.shape) == 0:
        return value
    return value.flip((dim,)).cumsum(dim).flip((dim,))


cumsum = operator(
    "cumsum(Tensor input, int dim, *, dtype? dtype=None)",
    type=_fold_type,
    numpy=_fold(np.cumsum),
    derivative={"input": lambda g, dim: _reverse_cumsum(g, dim)},
    normalize=_normalize,
    samples=_samples,
    categories="bifc",
    inplace=True,
    out=True,
)


def _cumprod_formula(g: Any, input: Any, result: Any, dim: int) -> Any:
    """For y_i = x_1 ... x_i the slope at x_k is the sum over i >= k of g_i y_i / x_k.

    The first zero of a row needs the products without it; whatever follows a zero has no slope, because every product
    from there on holds that zero.
    """
    where, logical_and = FUNCTIONS["where"], FUNCTIONS["logical_and"]
    zero = input == 0
    zeros = zero.cumsum(dim)
    first = logical_and(zero, zeros == 1)
    before = zeros == 0
    ordinary = _reverse_cumsum(g * conjugate(result), dim) / conjugate(where(before, input, 1.0))
    bridged = _reverse_cumsum(g * conjugate(where(first, 1.0, input).cumprod(dim)), dim)
    # `bridged` at the first zero sums from there on, where the replaced factor belongs to every product.
    return where(before, ordinary, where(first, bridged, 0.0))


cumprod = operator(
    "cumprod(Tensor input, int dim, *, dtype? dtype=None)",
    type=_fold_type,
    numpy=_fold(np.cumprod),
    derivative={"input": _cumprod_formula},
    normalize=_normalize,
    samples=_samples,
    categories="bifc",
    inplace=True,
    out=True,
)


def _keep_dtype(op: Any) -> Callable[..., Any]:
    """The in-place form, which computes in the tensor's own dtype."""

    def change(self: Any, dim: int, *, dtype: Any = None) -> Any:
        if dtype is not None and dtype is not self.dtype:
            raise RuntimeError(
                f"Bad in-place call: input tensor dtype {self.dtype} and output tensor dtype {dtype} should match"
            )
        return call_inplace(op, (self, dim, self.dtype))

    change.__name__ = change.__qualname__ = f"{op.name}_"
    change.__doc__ = f"`{op.name}` into the tensor itself. See torch.Tensor.{op.name}_."
    return change


for _name in ("cumsum", "cumprod"):
    function(method=True, name=_name + "_")(_keep_dtype(lookup(_name)))


def _numpy_logcumsumexp(input: Any, dim: int) -> Any:
    x = wide(input)
    if x.dtype.kind == "c":
        return row_major(_complex_logcumsumexp(x, dim) if x.ndim else x.copy())
    return row_major((np.logaddexp.accumulate(x, axis=dim) if x.ndim else x.copy()).astype(input.dtype, copy=False))


def _complex_logcumsumexp(x: Any, dim: int) -> Any:
    """Step by step, each time relative to the number with the larger real part, whose phase is kept as it is."""
    result = np.moveaxis(x.copy(), dim, 0)
    for i in range(1, len(result)):
        a, b = result[i - 1], result[i]
        first = a.real >= b.real
        larger, smaller = np.where(first, a, b), np.where(first, b, a)
        same = (larger.real == smaller.real) & ~np.isfinite(larger.real)  # infinities have no difference
        step = np.log(np.exp(np.where(same, 0, smaller - larger)) + 1)
        result[i] = np.where(same & (larger.real < 0), larger, larger + step)
    return np.moveaxis(result, 0, dim)


def _logcumsumexp_type(input: Any, dim: int) -> TensorType:
    if not input.dtype.is_differentiable:
        raise not_implemented("logcumsumexp_out_cpu", input.dtype)
    return TensorType(input.dtype, tuple(input.shape), input.device)


logcumsumexp = operator(
    "logcumsumexp(Tensor input, int dim)",
    type=_logcumsumexp_type,
    numpy=_numpy_logcumsumexp,
    # Sum over i >= k of g_i exp(x_k - y_i), through logarithms of the two signs apart so that nothing overflows.
    derivative={
        "input": lambda g, input, result, dim: _in_double(_slope_of_logcumsumexp, g, input, result, dim),
    },
    normalize=_normalize,
    samples=_samples,
    categories="fc",
    out=True,
)


def _slope_of_logcumsumexp(g: Any, input: Any, result: Any, dim: int) -> Any:
    if input.dtype.is_complex:
        return _complex_derivative(g, input, result, dim)
    return _reverse_weighted(g, input, result, dim) - _reverse_weighted(-g, input, result, dim)


def _in_double(formula: Any, g: Any, input: Any, result: Any, dim: int) -> Any:
    """The formula's exponents are differences of large numbers, of which narrow types keep too little."""
    wide_dtype = dtypes.complex128 if input.dtype.is_complex else dtypes.float64
    return formula(g.to(wide_dtype), input.to(wide_dtype), result.to(wide_dtype), dim).to(input.dtype)


def _complex_derivative(g: Any, input: Any, result: Any, dim: int) -> Any:
    """Sum over i >= k of g_i conj(exp(x_k - y_i)), through complex logarithms."""
    where = FUNCTIONS["where"]
    none = g == 0
    weight = where(none, dtypes.finfo(input.dtype).min / 2, where(none, 1.0, g).conj().log())
    inner = weight - result
    inner = inner.flip((dim,)).logcumsumexp(dim).flip((dim,)) if len(input.shape) else inner
    return (inner + input).exp().conj()


def _reverse_weighted(g: Any, input: Any, result: Any, dim: int) -> Any:
    """The positive part of g: its share of the sum."""
    where = FUNCTIONS["where"]
    positive = g > 0
    if len(input.shape) == 0:
        return where(positive, g, 0.0)
    # A finite stand-in for log 0, so that the derivative of this formula stays finite too.
    weight = where(positive, where(positive, g, 1.0).log(), dtypes.finfo(input.dtype).min / 2)
    inner = (weight - result).flip((dim,)).logcumsumexp(dim).flip((dim,))
    return (inner + input).exp()


# -- running extrema --------------------------------------------------------------------------------------------------


def _extrema_type(name: str) -> Callable[..., tuple[TensorType, TensorType]]:
    def rule(input: Any, dim: int) -> tuple[TensorType, TensorType]:
        if input.dtype.is_complex:
            raise not_implemented(f"{name}_cpu", input.dtype)
        values = TensorType(input.dtype, tuple(input.shape), input.device)
        return values, values.with_dtype(dtypes.int64)

    return rule


def _running(scan: Any) -> Callable[..., Any]:
    """Values and the last position that holds each, as PyTorch reports ties."""

    def run(input: Any, dim: int) -> Any:
        if not input.ndim or not input.size:
            return input.copy(), np.zeros(input.shape, np.int64)
        values = scan.accumulate(input, axis=dim)
        shape = [1] * input.ndim
        shape[dim] = -1
        steps = np.arange(input.shape[dim]).reshape(shape)
        hit = (input == values) | ((input != input) & (values != values))
        return row_major(values), row_major(np.maximum.accumulate(np.where(hit, steps, 0), axis=dim))

    return run


def _scatter_back(g_values: Any, indices: Any, input_type: Any, dim: int) -> Any:
    if len(input_type.shape) == 0:
        return g_values
    return FUNCTIONS["scatter_add"](FUNCTIONS["zeros_like"](g_values), dim, indices, g_values)


def _running_extremum(name: str, scan: Any) -> Callable[..., Any]:
    return operator(
        f"{name}(Tensor input, int dim) -> (values, indices)",
        type=_extrema_type(name),
        numpy=_running(scan),
        derivative={"input": _scatter_back},
        normalize=_normalize,
        samples=lambda make: [sample(make.distinct(3, 4), 0), sample(make.distinct(2, 3, 4), -2)],
        categories="if",
    )


cummax = _running_extremum("cummax", np.maximum)
cummin = _running_extremum("cummin", np.minimum)


@function(method=True)
def diff(input: Any, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None) -> Any:
    """The n-th forward difference along `dim`. See torch.diff."""
    if len(input.shape) == 0:
        raise RuntimeError("diff expects input to be at least one-dimensional")
    if n < 0:
        raise RuntimeError(f"order must be non-negative but got {n}")
    dim = wrap_dim(dim, len(input.shape))
    parts = [v for v in (prepend, input, append) if v is not None]
    value = FUNCTIONS["cat"](parts, dim) if len(parts) > 1 else input
    if n == 0:
        return input.clone()
    for _ in range(min(n, value.shape[dim])):
        size = value.shape[dim]
        after, before = value.narrow(dim, 1, size - 1), value.narrow(dim, 0, size - 1)
        value = FUNCTIONS["logical_xor"](after, before) if value.dtype is dtypes.bool_ else after - before
    return value
