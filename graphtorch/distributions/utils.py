"""Small functions that several distributions use. See https://docs.pytorch.org/docs/stable/distributions.html"""

from __future__ import annotations

import functools
from collections.abc import Callable
from numbers import Number
from typing import Any

import graphtorch as torch
from graphtorch import Tensor
from graphtorch.nn import functional as F

__all__ = [
    "broadcast_all",
    "clamp_probs",
    "lazy_property",
    "logits_to_probs",
    "probs_to_logits",
    "sum_rightmost",
    "tril_matrix_to_vec",
    "vec_to_tril_matrix",
]

euler_constant = 0.57721566490153286060


def broadcast_all(*values: Any) -> tuple[Tensor, ...]:
    """Tensors of one shape; numbers take the dtype of the tensors, or the default one.

    Raises ValueError for what is neither a number nor a tensor.
    """
    if not all(isinstance(v, Tensor | Number) for v in values):
        raise ValueError(
            "Input arguments must all be instances of Number, torch.Tensor or objects implementing "
            + "__torch_function__."
        )
    tensors = [v for v in values if isinstance(v, Tensor)]
    if len(tensors) == len(values):
        return tuple(torch.broadcast_tensors(*values))
    dtype = tensors[0].dtype if tensors else torch.get_default_dtype()
    device = tensors[0].device if tensors else None
    made = [v if isinstance(v, Tensor) else torch.tensor(v, dtype=dtype, device=device) for v in values]
    return tuple(torch.broadcast_tensors(*made))


def standard_normal(shape: Any, dtype: Any, device: Any) -> Tensor:
    """Standard normal numbers."""
    return torch.normal(torch.zeros(shape, dtype=dtype, device=device), torch.ones(shape, dtype=dtype, device=device))


def sum_rightmost(value: Any, dims: int) -> Any:
    """The sum over the last `dims` dimensions; a number stays what it is."""
    if dims == 0 or not isinstance(value, Tensor):
        return value
    return value.reshape(*value.shape[: value.ndim - dims], -1).sum(-1)


def logits_to_probs(logits: Tensor, is_binary: bool = False) -> Tensor:
    """Probabilities of log-odds (`is_binary`) or of unnormalised log-probabilities along the last dimension."""
    return torch.sigmoid(logits) if is_binary else F.softmax(logits, dim=-1)


def clamp_probs(probs: Tensor) -> Tensor:
    """Probabilities kept off 0 and 1 by the dtype's epsilon."""
    eps = torch.finfo(probs.dtype).eps
    return probs.clamp(min=eps, max=1 - eps)


def probs_to_logits(probs: Tensor, is_binary: bool = False) -> Tensor:
    """The inverse of `logits_to_probs`, for probabilities kept off 0 and 1."""
    kept = clamp_probs(probs)
    return torch.log(kept) - torch.log1p(-kept) if is_binary else torch.log(kept)


def tril_matrix_to_vec(mat: Tensor, diag: int = 0) -> Tensor:
    """The lower triangle, row after row, shape (..., n). Raises ValueError for an offset outside the matrix."""
    n = mat.shape[-1]
    if diag < -n or diag >= n:
        raise ValueError(f"diag ({diag}) provided is outside [{-n}, {n - 1}].")
    rows, columns = torch.tril_indices(n, n, diag)
    return mat[..., rows, columns]


def vec_to_tril_matrix(vec: Tensor, diag: int = 0) -> Tensor:
    """The inverse of `tril_matrix_to_vec`. Raises ValueError if no triangle has that many elements."""
    d = vec.shape[-1]
    n = (-(1 + 2 * diag) + ((1 + 2 * diag) ** 2 + 8 * d + 4 * abs(diag) * (diag + 1)) ** 0.5) / 2
    if round(n) - n > torch.finfo(vec.dtype).eps:
        raise ValueError(
            f"The size of last dimension is {d} which cannot be expressed as the lower triangular part of a "
            "square D x D matrix."
        )
    size = round(n)
    mat = vec.new_zeros((*vec.shape[:-1], size, size))
    rows, columns = torch.tril_indices(size, size, diag)
    mat[..., rows, columns] = vec
    return mat


class lazy_property:
    """A property that is computed once and then an attribute; a gradient may flow through it whatever the mode was."""

    def __init__(self, wrapped: Callable[[Any], Any]) -> None:
        self.wrapped = wrapped
        functools.update_wrapper(self, wrapped)  # type: ignore[arg-type]

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        with torch.enable_grad():
            value = self.wrapped(instance)
        setattr(instance, self.wrapped.__name__, value)
        return value
