"""The array API standard's linear algebra extension."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from graphtorch import ops
from graphtorch.array_api.arrangement import matrix_transpose
from graphtorch.array_api.statistics import sum
from graphtorch.array_api.types import promoted
from graphtorch.ops import FUNCTIONS
from graphtorch.tensor.dtypes import dtype as dtype_class
from graphtorch.tensor.tensor import Tensor

# fmt: off
__all__ = [
    "cholesky", "cross", "det", "diagonal", "eigh", "eigvalsh", "inv", "matmul", "matrix_norm", "matrix_power",
    "matrix_rank", "matrix_transpose", "outer", "pinv", "qr", "slogdet", "solve", "svd", "svdvals", "tensordot",
    "trace", "vecdot", "vector_norm",
]
# fmt: on


class EighResult(NamedTuple):
    """Eigenvalues in ascending order, and eigenvectors as columns."""

    eigenvalues: Tensor
    eigenvectors: Tensor


class QRResult(NamedTuple):
    """A matrix with orthonormal columns and an upper triangular one."""

    Q: Tensor
    R: Tensor


class SlogdetResult(NamedTuple):
    """The sign of a determinant and the logarithm of its absolute value."""

    sign: Tensor
    logabsdet: Tensor


class SVDResult(NamedTuple):
    """Left singular vectors as columns, singular values in descending order, right singular vectors as rows."""

    U: Tensor
    S: Tensor
    Vh: Tensor


def matmul(x1: Tensor, x2: Tensor, /) -> Tensor:
    """Matrix products."""
    made: Tensor = ops.matmul(*promoted(x1, x2))
    return made


def tensordot(x1: Tensor, x2: Tensor, /, *, axes: int | tuple[Sequence[int], Sequence[int]] = 2) -> Tensor:
    """Sums of products over some axes of each operand, or over the last and first `axes`."""
    made: Tensor = ops.tensordot(*promoted(x1, x2), dims=axes)
    return made


def vecdot(x1: Tensor, x2: Tensor, /, *, axis: int = -1) -> Tensor:
    """Dot products of vectors along an axis; the first operand is conjugated."""
    a, b = promoted(x1, x2)
    if a.size(axis) != b.size(axis):
        raise ValueError(f"vecdot(): vectors of {a.size(axis)} and {b.size(axis)} elements")
    if a.dtype.is_floating_point or a.dtype.is_complex:
        made: Tensor = FUNCTIONS["linalg_vecdot"](a, b, dim=axis)
        return made
    return sum(a * b, axis=axis, dtype=a.dtype)


def outer(x1: Tensor, x2: Tensor, /) -> Tensor:
    """All products of an element of each of two vectors."""
    made: Tensor = ops.outer(*promoted(x1, x2))
    return made


def cross(x1: Tensor, x2: Tensor, /, *, axis: int = -1) -> Tensor:
    """Cross products of vectors of three elements along an axis."""
    if x1.size(axis) != 3 or x2.size(axis) != 3:
        raise ValueError(f"cross(): vectors of {x1.size(axis)} and {x2.size(axis)} elements, not 3")
    made: Tensor = FUNCTIONS["linalg_cross"](*ops.broadcast_tensors(*promoted(x1, x2)), dim=axis)
    return made


def diagonal(x: Tensor, /, *, offset: int = 0) -> Tensor:
    """The diagonals of matrices, as a view."""
    made: Tensor = ops.diagonal(x, offset, -2, -1)
    return made


def trace(x: Tensor, /, *, offset: int = 0, dtype: dtype_class | None = None) -> Tensor:
    """The sums of the diagonals of matrices; those of integers are int64 unless told."""
    return sum(diagonal(x, offset=offset), axis=-1, dtype=dtype)


def cholesky(x: Tensor, /, *, upper: bool = False) -> Tensor:
    """The triangular factor of positive-definite matrices."""
    made: Tensor = FUNCTIONS["linalg_cholesky"](x, upper=upper)
    return made


def det(x: Tensor, /) -> Tensor:
    """Determinants."""
    made: Tensor = FUNCTIONS["linalg_det"](x)
    return made


def slogdet(x: Tensor, /) -> SlogdetResult:
    """Signs and logarithms of determinants."""
    return SlogdetResult(*FUNCTIONS["linalg_slogdet"](x))


def eigh(x: Tensor, /) -> EighResult:
    """Eigenvalues and eigenvectors of symmetric or Hermitian matrices."""
    return EighResult(*FUNCTIONS["linalg_eigh"](x))


def eigvalsh(x: Tensor, /) -> Tensor:
    """Eigenvalues of symmetric or Hermitian matrices, ascending."""
    made: Tensor = FUNCTIONS["linalg_eigvalsh"](x)
    return made


def inv(x: Tensor, /) -> Tensor:
    """Inverses."""
    made: Tensor = FUNCTIONS["linalg_inv"](x)
    return made


def pinv(x: Tensor, /, *, rtol: float | Tensor | None = None) -> Tensor:
    """Pseudo-inverses; singular values up to `rtol` times the largest count as zero."""
    if isinstance(rtol, Tensor) and rtol.ndim:
        # A tolerance for each matrix.
        U, S, Vh = FUNCTIONS["linalg_svd"](x, full_matrices=False)
        kept = rtol[..., None] * S.amax(-1, keepdim=True) < S
        inverse = FUNCTIONS["where"](kept, 1 / FUNCTIONS["where"](kept, S, 1.0), 0.0)
        return (Vh.mH * inverse[..., None, :].to(x.dtype)) @ U.mH  # type: ignore[no-any-return]
    made: Tensor = FUNCTIONS["linalg_pinv"](x, rtol=rtol)
    return made


def matrix_norm(x: Tensor, /, *, keepdims: bool = False, ord: Any = "fro") -> Tensor:
    """Norms of matrices."""
    if ord is None:
        ord = "fro"
    made: Tensor = FUNCTIONS["linalg_matrix_norm"](x, ord, keepdim=keepdims)
    return made


def matrix_power(x: Tensor, n: int, /) -> Tensor:
    """Matrices multiplied `n` times by themselves; of the inverse for negative `n`."""
    made: Tensor = FUNCTIONS["linalg_matrix_power"](x, n)
    return made


def matrix_rank(x: Tensor, /, *, rtol: float | Tensor | None = None) -> Tensor:
    """How many singular values exceed `rtol` times the largest one."""
    made: Tensor = FUNCTIONS["linalg_matrix_rank"](x, rtol=rtol)
    return made


def qr(x: Tensor, /, *, mode: str = "reduced") -> QRResult:
    """The QR factors; `mode="complete"` makes the first one square."""
    return QRResult(*FUNCTIONS["linalg_qr"](x, mode))


def solve(x1: Tensor, x2: Tensor, /) -> Tensor:
    """The solutions of linear equations. `x2` is a vector, or matrices whose columns are right-hand sides."""
    a, b = promoted(x1, x2)
    if b.ndim == 1:
        made: Tensor = FUNCTIONS["linalg_solve"](a, b.unsqueeze(-1)).squeeze(-1)
        return made
    # PyTorch takes a batch of vectors for what the standard calls matrices where their shapes could be either.
    batch = ops.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    made = FUNCTIONS["linalg_solve"](a.expand(*batch, *a.shape[-2:]), b.expand(*batch, *b.shape[-2:]))
    return made


def svd(x: Tensor, /, *, full_matrices: bool = True) -> SVDResult:
    """The singular value decomposition."""
    return SVDResult(*FUNCTIONS["linalg_svd"](x, full_matrices))


def svdvals(x: Tensor, /) -> Tensor:
    """Singular values, descending."""
    made: Tensor = FUNCTIONS["linalg_svdvals"](x)
    return made


def vector_norm(
    x: Tensor, /, *, axis: int | tuple[int, ...] | None = None, keepdims: bool = False, ord: Any = 2
) -> Any:
    """Norms of vectors along some axes, or of the flattened array."""
    if axis == ():
        return FUNCTIONS["linalg_vector_norm"](x.unsqueeze(0), ord, 0)
    return FUNCTIONS["linalg_vector_norm"](x, ord, axis, keepdims)
