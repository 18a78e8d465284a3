"""Norms and distances of vectors."""

from __future__ import annotations

from graphtorch import ops
from graphtorch.autograd.compositions import in_one_piece
from graphtorch.autograd.graph import composes
from graphtorch.tensor.tensor import Tensor

__all__ = ["cosine_similarity", "normalize", "pairwise_distance", "pdist"]


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Tensor | None = None) -> Tensor:
    """``input`` divided by its p-norm along ``dim``, the norm being at least ``eps``."""
    result: Tensor = _normalized(input, p, dim, eps)
    return result if out is None else out.copy_(result)


@in_one_piece("DivBackward0")
def _normalized(input: Tensor, p: float, dim: int, eps: float) -> Tensor:
    return input / input.norm(p, dim, keepdim=True).clamp(min=eps)


@composes("NormBackward1")
def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """The p-norm of ``x1 - x2 + eps`` along the last dimension."""
    return (x1 - x2 + eps).norm(p, -1, keepdim=keepdim)


@in_one_piece("SumBackward1")
def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """The cosine of the angle between vectors along ``dim``; each norm counts as at least ``eps``."""
    x1, x2 = ops.broadcast_tensors(x1, x2)
    norm1 = x1.norm(2, dim, keepdim=True).clamp(min=eps)
    norm2 = x2.norm(2, dim, keepdim=True).clamp(min=eps)
    return ((x1 / norm1) * (x2 / norm2)).sum(dim)


def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """The p-norm distances of all pairs of rows of (N, M): (N (N - 1) / 2,), row by row.

    Raises:
        RuntimeError: the input is not a matrix, or ``p`` is negative.
    """
    if input.dim() != 2:
        raise RuntimeError(f"pdist only supports 2D tensors, got: {input.dim()}D")
    if p < 0:
        raise RuntimeError("pdist only supports non-negative p values")
    rows, columns = ops.triu_indices(input.shape[0], input.shape[0], 1, device=input.device)
    return (input.index_select(0, rows) - input.index_select(0, columns)).norm(p, 1)
