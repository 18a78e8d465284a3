"""Log-sum-exp, softmax and log-softmax, computed so that no exponential overflows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from graphtorch.ops.arithmetic import conjugate
from graphtorch.ops.build import FUNCTIONS, function, operator
from graphtorch.ops.pointwise import common_float
from graphtorch.ops.record import REDUCTION, Sample, sample
from graphtorch.ops.reduction import normalize, not_for, reduced_type, restore, wide
from graphtorch.ops.shapes import count, reduced_shape, wrap_dim
from graphtorch.ops.strides import row_major
from graphtorch.tensor import dtypes
from graphtorch.tensor.type import TensorType


def _where(condition: Any, x: Any, y: Any) -> Any:
    return FUNCTIONS["where"](condition, x, y)


def _shifted(input: Any, dims: Any) -> tuple[Any, Any]:
    """exp(input - max) and the finite max, for exponentials that do not overflow."""
    top = input.amax(dims, keepdim=True) if count(input.shape, dims) != 0 else input.sum(dims, keepdim=True)
    top = _where(top.isfinite(), top, 0.0)
    return (input - top).exp(), top


def _decompose_logsumexp(input: Any, dim: Any, keepdim: bool) -> Any:
    d = common_float(input)
    if d.is_complex:
        return None
    powers, top = _shifted(input if input.dtype is d else input.to(d), dim)
    result = powers.sum(dim, keepdim=True).log() + top
    return result if keepdim else result.reshape(reduced_shape(input.shape, dim, False))


def _numpy_logsumexp(input: Any, dim: Any, keepdim: bool) -> Any:
    target = input.dtype if input.dtype.kind in "fcV" else dtypes.get_default_dtype().numpy
    x = wide(input.astype(target, copy=False))
    top = np.max(x.real, axis=dim, keepdims=True, initial=-np.inf)
    top = np.where(np.isfinite(top), top, x.dtype.type(0).real)
    result = np.log(np.sum(np.exp(x - top), axis=dim, keepdims=True)) + top
    return result.reshape(reduced_shape(x.shape, dim, keepdim)).astype(target, copy=False)


logsumexp = operator(
    "logsumexp(Tensor input, int[] dim, bool keepdim=False)",
    type=lambda input, dim, keepdim: reduced_type(input, dim, keepdim, common_float(input)),
    numpy=_numpy_logsumexp,
    kind=REDUCTION,
    derivative={
        "input": lambda g, input, result, dim, keepdim: (
            restore(g, input, dim, keepdim) * conjugate((input - _finite(restore(result, input, dim, keepdim))).exp())
        )
    },
    decompose=_decompose_logsumexp,
    normalize=normalize,
    samples=lambda make: [sample(make(3, 4), 1), sample(make(2, 3, 4), (0, 2), keepdim=True), sample(make(5), 0)],
    categories="bifc",
    out=True,
)


def _finite(value: Any) -> Any:
    return value if value.dtype.is_complex else _where(value.isfinite(), value, 0.0)


def _softmax_type(kernel: str) -> Callable[..., TensorType]:
    def rule(input: Any, dim: int) -> TensorType:
        not_for(kernel, "bic", input.dtype)
        return TensorType(input.dtype, tuple(input.shape), input.device)

    return rule


def _axis(x: Any, dim: int) -> Any:
    return dim if x.ndim else None


def _numpy_softmax(input: Any, dim: int) -> Any:
    if input.dtype.kind not in "fV":
        raise TypeError("softmax of other than floating types")  # the type rule explains
    x = wide(input)
    if not x.size:
        return input.copy()
    powers = np.exp(x - np.maximum.reduce(x, axis=_axis(x, dim), keepdims=True))
    powers /= np.add.reduce(powers, axis=_axis(x, dim), keepdims=True)
    return row_major(powers.astype(input.dtype, copy=False))


def _numpy_log_softmax(input: Any, dim: int) -> Any:
    if input.dtype.kind not in "fV":
        raise TypeError("softmax of other than floating types")  # the type rule explains
    x = wide(input)
    if not x.size:
        return input.copy()
    shifted = x - np.maximum.reduce(x, axis=_axis(x, dim), keepdims=True)
    shifted = shifted - np.log(np.add.reduce(np.exp(shifted), axis=_axis(x, dim), keepdims=True))
    return row_major(np.asarray(shifted).astype(input.dtype, copy=False))


def _in_float32(decompose: Callable[[Any, int], Any]) -> Callable[[Any, int], Any]:
    """A decomposition that computes two-byte floats in float32. Symbolic sizes are at least 2."""

    def run(input: Any, dim: int) -> Any:
        d = input.dtype
        if any(type(size) is int and size == 0 for size in input.shape):
            return input.clone()  # nothing has no maximum
        if d in (dtypes.float16, dtypes.bfloat16):
            return decompose(input.to(dtypes.float32), dim).to(d)
        return decompose(input, dim)

    return run


def _decompose_softmax(input: Any, dim: int) -> Any:
    powers = (input - input.amax(dim, keepdim=True)).exp()
    return powers / powers.sum(dim, keepdim=True)


def _decompose_log_softmax(input: Any, dim: int) -> Any:
    shifted = input - input.amax(dim, keepdim=True)
    return shifted - shifted.exp().sum(dim, keepdim=True).log()


def _normalize_dim(input: Any, dim: int) -> tuple[Any, ...]:
    return input, wrap_dim(dim, len(input.shape))


def _softmax_samples(make: Any) -> Iterable[Sample]:
    yield sample(make(3, 4), 1)
    yield sample(make(2, 3, 4), -2)
    yield sample(make(), 0)


_softmax = operator(
    "softmax(Tensor input, int dim)",
    type=_softmax_type("softmax_lastdim_kernel_impl"),
    numpy=_numpy_softmax,
    kind=REDUCTION,
    derivative={"input": lambda g, result, dim: result * (g - (g * result).sum(dim, keepdim=True))},
    decompose=_in_float32(_decompose_softmax),
    normalize=_normalize_dim,
    samples=_softmax_samples,
    lazy_check=True,
    public=False,
    method=False,
)
_log_softmax = operator(
    "log_softmax(Tensor input, int dim)",
    type=_softmax_type("log_softmax_lastdim_kernel_impl"),
    numpy=_numpy_log_softmax,
    kind=REDUCTION,
    derivative={"input": lambda g, result, dim: g - result.exp() * g.sum(dim, keepdim=True)},
    decompose=_in_float32(_decompose_log_softmax),
    normalize=_normalize_dim,
    samples=_softmax_samples,
    lazy_check=True,
    public=False,
    method=False,
)


@function(method=True)
def softmax(input: Any, dim: int, dtype: Any = None) -> Any:
    """exp(input), scaled to sum to one along `dim`; `dtype` casts the operand first. See torch.softmax."""
    return _softmax(input if dtype is None else input.to(dtype), dim)


@function(method=True)
def log_softmax(input: Any, dim: int, dtype: Any = None) -> Any:
    """log(softmax(input, dim)), computed without the quotient. See torch.log_softmax."""
    return _log_softmax(input if dtype is None else input.to(dtype), dim)
