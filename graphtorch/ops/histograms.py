"""Order statistics and counts: quantiles, histograms, and integrals of samples."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphtorch.autograd.state import state
from graphtorch.ops.build import FUNCTIONS, function, operator
from graphtorch.ops.pointwise import not_implemented
from graphtorch.ops.record import sample
from graphtorch.ops.shapes import wrap_dim
from graphtorch.tensor import dtypes
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType

_MODES = ("linear", "lower", "higher", "midpoint", "nearest")


def _quantile(name: str, input: Any, q: Any, dim: Any, keepdim: bool, interpolation: str, ignore_nan: bool) -> Any:
    """Sort, then interpolate between the two neighbours of each rank; a NaN makes its row's quantiles NaN unless
    ignored.
    """
    if not input.dtype.is_floating_point or input.dtype in (dtypes.float16, dtypes.bfloat16):
        raise RuntimeError(f"{name}() input tensor must be either float or double dtype")
    if interpolation not in _MODES:
        raise RuntimeError(
            f"{name}() interpolation must be one of linear, lower, higher, midpoint or nearest, but got {interpolation}"
        )
    if not isinstance(q, Tensor):
        if not 0 <= q <= 1:
            raise RuntimeError(f"{name}() q must be in the range [0, 1] but got {q:g}")
        q = FUNCTIONS["full"]((), float(q), dtype=input.dtype, device=input.device)
    if q.ndim > 1:
        raise RuntimeError(f"{name}() q must be a scalar or 1D tensor")
    if q.dtype is not input.dtype:
        raise RuntimeError(f"{name}() q tensor must be same dtype as the input tensor")
    if input.numel() == 0:
        raise RuntimeError(f"{name}() input tensor must be non-empty")
    rank = len(input.shape)
    if dim is None:
        rows, axis = input.reshape(-1), 0
        kept: tuple[Any, ...] = (1,) * rank
    else:
        axis = wrap_dim(dim, rank)
        rows = (input.unsqueeze(0) if rank == 0 else input).transpose(axis if rank else 0, -1)
        kept = tuple(1 if i == axis else s for i, s in enumerate(input.shape))
    ordered = rows.sort(-1)[0]
    size = ordered.shape[-1]
    flat_q = q.reshape(-1)
    where = FUNCTIONS["where"]
    missing = ordered.isnan()
    if ignore_nan:
        ranks = flat_q * (missing.logical_not().sum(-1, keepdim=True) - 1).to(input.dtype)
        ranks = where(ranks < 0, 0.0, ranks)
    else:
        ranks = flat_q * (size - 1)
        ranks = where(missing.any(-1, keepdim=True), float(size - 1), ranks)
    if interpolation == "lower":
        ranks = ranks.floor()
    elif interpolation == "higher":
        ranks = ranks.ceil()
    elif interpolation == "nearest":
        ranks = ranks.round()
    low = ranks.floor()
    below = ordered.gather(-1, low.long())
    if interpolation in ("linear", "midpoint"):
        above = ordered.gather(-1, ranks.ceil().long())
        weight = FUNCTIONS["full_like"](ranks, 0.5) if interpolation == "midpoint" else ranks - low
        found = FUNCTIONS["lerp"](below, above, weight)
    else:
        found = below
    # The quantiles come first, the reduced dimension goes or stays with size 1.
    if dim is not None:
        found = found.transpose(axis if rank else 0, -1).movedim(axis if rank else 0, 0)
        rest = tuple(s for i, s in enumerate(input.shape) if i != axis) if rank else ()
    else:
        rest = ()
    shape = kept if keepdim else rest
    return found.reshape((*((flat_q.shape[0],) if q.ndim else ()), *shape))


@function(method=True)
def quantile(
    input: Any, q: Any, dim: Any = None, keepdim: bool = False, *, interpolation: str = "linear", out: Any = None
) -> Any:
    """The q-th quantiles along `dim`. See torch.quantile.

    Raises RuntimeError for other than float32 and float64 and for q outside [0, 1].
    """
    result = _quantile("quantile", input, q, dim, keepdim, interpolation, False)
    return result if out is None else out.copy_(result)


@function(method=True)
def nanquantile(
    input: Any, q: Any, dim: Any = None, keepdim: bool = False, *, interpolation: str = "linear", out: Any = None
) -> Any:
    """The q-th quantiles of what is no NaN. See torch.nanquantile."""
    result = _quantile("nanquantile", input, q, dim, keepdim, interpolation, True)
    return result if out is None else out.copy_(result)


# -- histograms -------------------------------------------------------------------------------------------------------


def _histc_type(input: Any, bins: int, min: Any, max: Any) -> TensorType:
    if bins <= 0:
        raise RuntimeError(f"torch.histc(): bins must be > 0, but got {bins}")
    if not input.dtype.is_floating_point:
        raise not_implemented("histogram_cpu", input.dtype)
    if not min <= max:
        raise RuntimeError("torch.histc: max must be larger than min")
    return TensorType(input.dtype, (bins,), input.device)


def _numpy_histc(input: Any, bins: int, min: Any, max: Any) -> Any:
    values = input.reshape(-1).astype(np.float64)
    low, high = float(min), float(max)
    if low == high and values.size:
        low, high = float(values.min()), float(values.max())
    if low == high:
        low, high = low - 1, high + 1
    if not (np.isfinite(low) and np.isfinite(high)):
        raise RuntimeError(f"range of [{low:g}, {high:g}] is not finite")
    # In the operand's own precision, which decides for a value at the edge of a bin.
    own = input.reshape(-1)[(values >= low) & (values <= high)]
    first, last, count = (np.asarray(v).astype(input.dtype) for v in (low, high, bins))
    places = ((own - first) * count / (last - first)).astype(np.int64)
    return np.bincount(np.minimum(places, bins - 1), minlength=bins).astype(input.dtype)


histc = operator(
    "histc(Tensor input, int bins=100, Number min=0, Number max=0)",
    type=_histc_type,
    numpy=_numpy_histc,
    samples=lambda make: [sample(make(20), 5), sample(make(20), 4, -1, 1)],
    out=True,
)


def _bincount(input: Any, weights: Any = None, minlength: int = 0) -> Any:
    """How often each non-negative integer occurs, or the sum of the weights there. See torch.bincount.

    Raises RuntimeError for negative values and for other than one-dimensional integers.
    """
    if minlength < 0:
        raise RuntimeError("minlength should be >= 0")
    array = input.numpy(force=True)
    if array.ndim != 1 or input.dtype.category != dtypes.INTEGRAL or (array.size and array.min() < 0):
        raise RuntimeError("bincount only supports 1-d non-negative integral inputs.")
    if weights is None:
        return input._beside(np.bincount(array, minlength=minlength).astype(np.int64))
    if tuple(weights.shape) != tuple(input.shape):
        raise RuntimeError("weights should be 1-d and have the same length as input")
    d = weights.dtype if weights.dtype is dtypes.float32 else dtypes.float64
    counted = np.bincount(array, weights.numpy(force=True).astype(np.float64), minlength)
    return input._beside(counted.astype(d.numpy))


bincount = function(method=True, name="bincount")(_bincount)

# -- integrals --------------------------------------------------------------------------------------------------------


def _steps(y: Any, x: Any, dx: Any, dim: int) -> tuple[Any, Any]:
    """Sums of neighbouring values, and the distances between them."""
    size = y.shape[dim]
    sums = y.narrow(dim, 1, size - 1) + y.narrow(dim, 0, size - 1)
    if x is None:
        return sums, dx
    if x.ndim == 1 and y.ndim > 1:
        shape = [1] * y.ndim
        shape[dim] = x.shape[0]
        x = x.reshape(tuple(shape))
    along = dim - y.ndim
    length = x.shape[along]
    return sums, x.narrow(along, 1, length - 1) - x.narrow(along, 0, length - 1)


@function()
def trapezoid(y: Any, x: Any = None, *, dx: Any = 1, dim: int = -1) -> Any:
    """The integral of samples by the trapezoidal rule. See torch.trapezoid."""
    dim = wrap_dim(dim, y.ndim)
    if y.shape[dim] == 0:
        return y.sum(dim)
    sums, distances = _steps(y, x, dx, dim)
    return (sums * distances).sum(dim) / 2


FUNCTIONS["trapz"] = trapezoid


@function()
def cumulative_trapezoid(y: Any, x: Any = None, *, dx: Any = 1, dim: int = -1) -> Any:
    """The running integral of samples. See torch.cumulative_trapezoid."""
    dim = wrap_dim(dim, y.ndim)
    sums, distances = _steps(y, x, dx, dim)
    return (sums * distances).cumsum(dim) / 2


# -- covariance -------------------------------------------------------------------------------------------------------


def _check_weights(name: str, weights: Any, category: int, kind: str, count: Any) -> None:
    if weights.ndim > 1:
        raise RuntimeError(
            f"cov(): expected {name} to have one or fewer dimensions but got {name} with {weights.ndim} dimensions"
        )
    if weights.dtype.category != category:
        raise RuntimeError(f"cov(): expected {name} to have {kind} dtype but got {name} with {weights.dtype} dtype")
    if weights.numel() != count:
        raise RuntimeError(
            f"cov(): expected {name} to have the same numel as there are observations in the input but got "
            f"{weights.numel()} != {count}"
        )
    if state.recorder is None and bool((weights < 0).any()):
        raise RuntimeError(f"cov(): {name} cannot be negative")


@function(method=True)
def cov(input: Any, *, correction: int = 1, fweights: Any = None, aweights: Any = None) -> Any:
    """The covariance matrix of variables in rows. See torch.cov.

    Raises RuntimeError for more than two dimensions or bool.
    """
    if input.ndim > 2:
        raise RuntimeError(
            f"cov(): expected input to have two or fewer dimensions but got an input with {input.ndim} dimensions"
        )
    if input.dtype is dtypes.bool_:
        raise RuntimeError("cov(): bool dtype is not supported for input")
    x = input.reshape((1, -1)) if input.ndim < 2 else input
    count = x.shape[1]
    for name, given, fits, kind in (
        ("fweights", fweights, dtypes.INTEGRAL, "integral"),
        ("aweights", aweights, dtypes.FLOATING, "floating point"),
    ):
        if given is not None:
            _check_weights(name, given, fits, kind, count)
    weights = fweights
    if aweights is not None:
        weights = aweights if weights is None else weights * aweights
    if weights is None:
        mean = x.sum(1, keepdim=True) / count
        norm: Any = max(count - correction, 0)
    else:
        total = weights.sum()
        mean = (x * weights).sum(1, keepdim=True) / total
        if aweights is None or correction == 0:
            norm = total - correction
        else:
            norm = total - correction * (weights * aweights).sum() / total
    apart = x - mean
    scaled = apart if weights is None else apart * weights
    transposed = scaled.transpose(0, 1)
    found = apart.matmul(transposed.conj() if x.dtype.is_complex else transposed) / norm
    return found.squeeze()


@function(method=True)
def corrcoef(input: Any) -> Any:
    """Pearson's correlation matrix of variables in rows. See torch.corrcoef."""
    if input.ndim > 2:
        raise RuntimeError(
            f"corrcoef(): expected input to have two or fewer dimensions but got an input with {input.ndim} dimensions"
        )
    c = cov(input)
    if c.ndim == 0:
        return c / c
    deviation = (c.diagonal().real if c.dtype.is_complex else c.diagonal()).sqrt()
    found = c / deviation.unsqueeze(1) / deviation.unsqueeze(0)
    if found.dtype.is_complex:
        return FUNCTIONS["complex"](found.real.clamp(-1, 1), found.imag.clamp(-1, 1))
    return found.clamp(-1, 1)
