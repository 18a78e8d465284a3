"""Vector norms and the trace."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from graphtorch.ops.build import FUNCTIONS, function, operator
from graphtorch.ops.record import REDUCTION, Sample, sample
from graphtorch.ops.reduction import amax, amin, reduced_type, restore, sum, wide
from graphtorch.ops.shapes import wrap_dims
from graphtorch.tensor import dtypes
from graphtorch.tensor.dtypes import dtype as dtype_class


def _where(condition: Any, x: Any, y: Any) -> Any:
    return FUNCTIONS["where"](condition, x, y)


def _norm_dtype(input: Any, dtype: Any) -> dtype_class:
    d = input.dtype if dtype is None else dtype
    if d.category < dtypes.FLOATING:
        raise RuntimeError(
            "linalg.vector_norm: Expected a floating point or complex tensor as input. Got "
            + {"bool": "Bool", "int64": "Long", "int32": "Int", "int16": "Short", "int8": "Char", "uint8": "Byte"}[
                d.name
            ]
        )
    return d.to_real()  # type: ignore[no-any-return]


def _numpy_norm(input: Any, ord: Any, dim: Any, keepdim: bool, dtype: Any) -> Any:
    x = input if dtype is None else input.astype(dtype.numpy)
    target = np.abs(x[:0]).dtype if x.ndim else np.abs(x).dtype
    size = np.abs(wide(x))
    if ord == math.inf:
        result = np.max(size, axis=dim, keepdims=keepdim)
    elif ord == -math.inf:
        result = np.min(size, axis=dim, keepdims=keepdim)
    elif ord == 0:
        result = np.sum(size != 0, axis=dim, keepdims=keepdim)
    elif ord == 1:
        result = np.sum(size, axis=dim, keepdims=keepdim)
    elif ord == 2:
        result = np.sqrt(np.sum(size * size, axis=dim, keepdims=keepdim))
    else:
        result = np.sum(size**ord, axis=dim, keepdims=keepdim) ** (1.0 / ord)
    return np.asarray(result).astype(target, copy=False)


def _decompose_norm(input: Any, ord: Any, dim: Any, keepdim: bool, dtype: Any) -> Any:
    x = input if dtype is None else input.to(dtype)
    target = x.dtype.to_real()
    inner = dtypes.float32 if target in (dtypes.float16, dtypes.bfloat16) else target
    x = x if inner is target else x.to(inner)
    size = x.abs() if x.dtype.is_complex or ord != 2 else x
    if ord == math.inf:
        result = amax(size, dim, keepdim)
    elif ord == -math.inf:
        result = amin(size, dim, keepdim)
    elif ord == 0:
        result = (size != 0).to(inner).sum(dim, keepdim)
    elif ord == 1:
        result = sum(size, dim, keepdim)
    elif ord == 2:
        result = sum(size * size, dim, keepdim).sqrt()
    else:
        result = sum(size.pow(ord), dim, keepdim).pow(1.0 / ord)
    return result if inner is target else result.to(target)


def _norm_formula(g: Any, input: Any, result: Any, ord: Any, dim: Any, keepdim: bool) -> Any:
    norm, g = restore(result, input, dim, keepdim), restore(g, input, dim, keepdim)
    if ord == 0:
        return FUNCTIONS["zeros_like"](input)
    if ord == 1:
        return g * input.sgn()
    if ord == 2:
        return g * _where(norm == 0, 0.0, input / norm)
    size = input.abs()
    if ord in (math.inf, -math.inf):
        hit = (size == norm).to(g.dtype)
        return input.sgn() * (hit * (g / hit.sum(dim, keepdim=True)))
    # d|x|_p / dx = sgn(x) (|x| / |x|_p)^(p - 1)
    ratio = _where(norm == 0, 0.0, (size / norm).pow(ord - 1))
    if ord < 1:
        ratio = _where(size == 0, 0.0, ratio)
    return g * input.sgn() * ratio


def _normalize_norm(input: Any, ord: Any, dim: Any, keepdim: bool, dtype: Any) -> tuple[Any, ...]:
    dims = wrap_dims(dim, len(input.shape))
    if ord == math.inf or ord < 0:
        empty = [d for d in dims if type(input.shape[d]) is int and input.shape[d] == 0]
        if empty:
            kind = f"{ord:g}" if isinstance(ord, float) else ord
            over = "an empty tensor because the operation"
            if dim is not None:
                over = f"the dimension {empty[0]}because this dimension is empty and the operation"
            raise RuntimeError(f"linalg.vector_norm cannot compute the {kind} norm on {over} does not have an identity")
    return input, ord, dims, keepdim, dtype


def _norm_samples(make: Any) -> Iterable[Sample]:
    for ord in (2, 1, 3, 0.5, 0, math.inf, -math.inf):
        yield sample(make(3, 4), ord)
    yield sample(make(2, 3, 4), 2, (0, 2), keepdim=True)


vector_norm = operator(
    "linalg_vector_norm(Tensor input, Number ord=2, int[]? dim=None, bool keepdim=False, *, dtype? dtype=None)",
    type=lambda input, ord, dim, keepdim, dtype: reduced_type(input, dim, keepdim, _norm_dtype(input, dtype)),
    numpy=_numpy_norm,
    kind=REDUCTION,
    derivative={"input": _norm_formula},
    decompose=_decompose_norm,
    normalize=_normalize_norm,
    samples=_norm_samples,
    categories="fc",
    method=False,
    out=True,
)


@function(method=True)
def norm(input: Any, p: Any = "fro", dim: Any = None, keepdim: bool = False, out: Any = None, dtype: Any = None) -> Any:
    """The p-norm of the elements, or of those along `dim`. See torch.norm.

    Raises RuntimeError for an unknown name of a norm.
    """
    if isinstance(p, str):
        if p not in ("fro", "nuc"):
            raise RuntimeError(f"expected a number, 'fro' or 'nuc' for the order of the norm, but got '{p}'")
        if p == "nuc":
            return FUNCTIONS["linalg_matrix_norm"](input, "nuc", dim or (-2, -1), keepdim, dtype=dtype)
        p = 2
    return vector_norm(input, 2 if p is None else p, dim, keepdim, dtype=dtype, out=out)


@function(method=True)
def trace(input: Any) -> Any:
    """The sum of a matrix's diagonal. See torch.trace. Raises RuntimeError for other than two dimensions."""
    if len(input.shape) != 2:
        raise RuntimeError(f"trace: expected a matrix, but got tensor with dim {len(input.shape)}")
    return input.diagonal().sum()
