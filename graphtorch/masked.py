"""Reductions and normalisations over the elements that a mask keeps, `torch.masked`.

A masked element counts as the operation's identity; `mask` broadcasts to the input; None keeps everything. See
https://docs.pytorch.org/docs/stable/masked.html
"""

from __future__ import annotations

import math
from typing import Any

from graphtorch.ops import FUNCTIONS
from graphtorch.ops.shapes import wrap_dims
from graphtorch.tensor import Tensor, dtypes

__all__ = [
    "amax",
    "amin",
    "argmax",
    "argmin",
    "cumprod",
    "cumsum",
    "log_softmax",
    "logaddexp",
    "logsumexp",
    "mean",
    "median",
    "norm",
    "normalize",
    "prod",
    "softmax",
    "softmin",
    "std",
    "sum",
    "var",
]


def _kept(input: Tensor, mask: Tensor | None, identity: Any, dtype: Any = None) -> Any:
    """The input, in `dtype`, with the identity in the place of masked elements."""
    x = input if dtype is None else input.to(dtype)
    return x if mask is None else FUNCTIONS["where"](mask, x, FUNCTIONS["full"]((), identity, dtype=x.dtype))


def _summed(input: Tensor, dtype: Any) -> Any:
    """The dtype that sums and products accumulate in."""
    if dtype is not None:
        return dtype
    return input.dtype if input.dtype.category >= dtypes.FLOATING else dtypes.int64


def _limit(d: Any, sign: int) -> Any:
    """The least (sign -1) or largest value of a dtype."""
    if d.is_floating_point:
        return sign * math.inf
    info = dtypes.iinfo(d)
    return info.max if sign > 0 else info.min


def sum(input: Tensor, dim: Any = None, *, keepdim: bool = False, dtype: Any = None, mask: Any = None) -> Tensor:
    """See torch.masked.sum."""
    made: Tensor = _kept(input, mask, 0, _summed(input, dtype)).sum(wrap_dims(dim, input.ndim), keepdim)
    return made


def prod(input: Tensor, dim: Any = None, *, keepdim: bool = False, dtype: Any = None, mask: Any = None) -> Tensor:
    """See torch.masked.prod."""
    made = _kept(input, mask, 1, _summed(input, dtype))
    for d in reversed(wrap_dims(dim, input.ndim)):
        made = made.prod(d, keepdim=keepdim)
    found: Tensor = made
    return found


def cumsum(input: Tensor, dim: int, *, dtype: Any = None, mask: Any = None) -> Tensor:
    """See torch.masked.cumsum."""
    made: Tensor = _kept(input, mask, 0, dtype).cumsum(dim)
    return made.to(input.dtype if dtype is None else dtype)  # type: ignore[no-any-return]


def cumprod(input: Tensor, dim: int, *, dtype: Any = None, mask: Any = None) -> Tensor:
    """See torch.masked.cumprod."""
    made: Tensor = _kept(input, mask, 1, dtype).cumprod(dim)
    return made.to(input.dtype if dtype is None else dtype)  # type: ignore[no-any-return]


def amax(input: Tensor, dim: Any = None, *, keepdim: bool = False, dtype: Any = None, mask: Any = None) -> Tensor:
    """See torch.masked.amax."""
    d = input.dtype if dtype is None else dtype
    made: Tensor = _kept(input, mask, _limit(d, -1), d).amax(wrap_dims(dim, input.ndim), keepdim)
    return made


def amin(input: Tensor, dim: Any = None, *, keepdim: bool = False, dtype: Any = None, mask: Any = None) -> Tensor:
    """See torch.masked.amin."""
    d = input.dtype if dtype is None else dtype
    made: Tensor = _kept(input, mask, _limit(d, 1), d).amin(wrap_dims(dim, input.ndim), keepdim)
    return made


def argmax(input: Tensor, dim: Any = None, *, keepdim: bool = False, dtype: Any = None, mask: Any = None) -> Tensor:
    """See torch.masked.argmax: positions come in the input's dtype, as there."""
    d = input.dtype if dtype is None else dtype
    made: Tensor = _kept(input, mask, _limit(d, -1), d).argmax(dim, bool(keepdim)).to(d)
    return made


def argmin(input: Tensor, dim: Any = None, *, keepdim: bool = False, dtype: Any = None, mask: Any = None) -> Tensor:
    """See torch.masked.argmin: positions come in the input's dtype, as there."""
    d = input.dtype if dtype is None else dtype
    made: Tensor = _kept(input, mask, _limit(d, 1), d).argmin(dim, bool(keepdim)).to(d)
    return made


def _count(input: Tensor, dims: Any, keepdim: bool, mask: Any, dtype: Any) -> Any:
    ones = FUNCTIONS["ones_like"](input, dtype=dtype)
    return _kept(ones, mask, 0).sum(dims, keepdim)


def mean(input: Tensor, dim: Any = None, *, keepdim: bool = False, dtype: Any = None, mask: Any = None) -> Tensor:
    """See torch.masked.mean. NaN where everything is masked.

    Raises ValueError for integers without a `dtype`.
    """
    d = input.dtype if dtype is None else dtype
    if d.category < dtypes.FLOATING:
        raise ValueError(
            "mean(): Could not infer output dtype. Input dtype must be either a floating point or complex dtype. "
            f"Got: {d}"
        )
    dims = wrap_dims(dim, input.ndim)
    made: Tensor = _kept(input, mask, 0, d).sum(dims, keepdim) / _count(input, dims, keepdim, mask, d)
    return made


def median(input: Tensor, dim: int = -1, *, keepdim: bool = False, dtype: Any = None, mask: Any = None) -> Tensor:
    """See torch.masked.median. Raises ValueError for integers, which have no NaN."""
    d = input.dtype if dtype is None else dtype
    if not d.is_floating_point:
        raise ValueError(f"masked median expects a floating point tensor, got {d}")
    made: Tensor = _kept(input, mask, math.nan, d).nanmedian(dim, keepdim)[0]
    return made


def var(
    input: Tensor,
    dim: Any = None,
    unbiased: bool | None = None,
    *,
    correction: float | None = None,
    keepdim: bool = False,
    dtype: Any = None,
    mask: Any = None,
) -> Tensor:
    """See torch.masked.var."""
    if unbiased is not None and correction is not None:
        raise RuntimeError("Only one of unbiased and correction may be given")
    less = (1.0 if unbiased in (None, True) else 0.0) if correction is None else float(correction)
    d = input.dtype if dtype is None else dtype
    if d.category < dtypes.FLOATING:
        d = dtypes.get_default_dtype()
    dims = wrap_dims(dim, input.ndim)
    x, count = _kept(input, mask, 0, d), _count(input, dims, True, mask, d.to_real())
    apart = _kept(x - x.sum(dims, True) / count, mask, 0)
    squares = (apart * apart.conj()).real if d.is_complex else apart * apart
    # A count of one or less has no variance: 0 / 0.
    rest = FUNCTIONS["clamp_min"](count - less, 0)
    made = squares.sum(dims, True) / rest
    found: Tensor = made if keepdim else FUNCTIONS["squeeze"](made, dims)
    return found.to(d)  # type: ignore[no-any-return]


def std(
    input: Tensor,
    dim: Any = None,
    unbiased: bool | None = None,
    *,
    correction: float | None = None,
    keepdim: bool = False,
    dtype: Any = None,
    mask: Any = None,
) -> Tensor:
    """See torch.masked.std."""
    squared = var(input, dim, unbiased, correction=correction, keepdim=keepdim, dtype=dtype, mask=mask)
    root: Tensor = squared.sqrt()
    return root


def norm(
    input: Tensor, ord: float = 2.0, dim: Any = None, *, keepdim: bool = False, dtype: Any = None, mask: Any = None
) -> Tensor:
    """See torch.masked.norm."""
    made: Tensor = FUNCTIONS["linalg_vector_norm"](
        _kept(input, mask, 0 if ord >= 0 else math.inf, dtype), ord, wrap_dims(dim, input.ndim), keepdim
    )
    return made


def normalize(
    input: Tensor, ord: float, dim: int, *, eps: float = 1e-12, dtype: Any = None, mask: Any = None
) -> Tensor:
    """See torch.masked.normalize."""
    size = norm(input, ord, dim, keepdim=True, dtype=dtype, mask=mask)
    made: Tensor = _kept(input, mask, 0, dtype) / FUNCTIONS["clamp_min"](size, eps)
    return made


def softmax(input: Tensor, dim: int, *, dtype: Any = None, mask: Any = None) -> Tensor:
    """See torch.masked.softmax. NaN where everything is masked."""
    made: Tensor = FUNCTIONS["softmax"](_kept(input, mask, -math.inf, dtype), dim)
    return made


def log_softmax(input: Tensor, dim: int, *, dtype: Any = None, mask: Any = None) -> Tensor:
    """See torch.masked.log_softmax. NaN where everything is masked."""
    made: Tensor = FUNCTIONS["log_softmax"](_kept(input, mask, -math.inf, dtype), dim)
    return made


def softmin(input: Tensor, dim: int, *, dtype: Any = None, mask: Any = None) -> Tensor:
    """See torch.masked.softmin. NaN where everything is masked."""
    made: Tensor = FUNCTIONS["softmax"](-_kept(input, mask, math.inf, dtype), dim)
    return made


def logsumexp(input: Tensor, dim: Any = None, *, keepdim: bool = False, dtype: Any = None, mask: Any = None) -> Tensor:
    """See torch.masked.logsumexp."""
    d = input.dtype if dtype is None else dtype
    identity = -math.inf if d.is_complex else _limit(d, -1) if d is not dtypes.bool_ else False
    made: Tensor = FUNCTIONS["logsumexp"](_kept(input, mask, identity, d), wrap_dims(dim, input.ndim), keepdim)
    return made.to(d)  # type: ignore[no-any-return]


def logaddexp(
    input: Tensor, other: Tensor, *, dtype: Any = None, input_mask: Any = None, other_mask: Any = None
) -> Tensor:
    """See torch.masked.logaddexp."""
    made: Tensor = FUNCTIONS["logaddexp"](
        _kept(input, input_mask, -math.inf, dtype), _kept(other, other_mask, -math.inf, dtype)
    )
    return made
