"""A few factors of large matrices: by random projections `svd_lowrank` and `pca_lowrank`; `lobpcg`.

The algorithm is number 5.1 of N. Halko, P. G. Martinsson, J. A. Tropp, Finding structure with randomness, 2009."""

from __future__ import annotations

from typing import Any

from graphtorch.ops.build import FUNCTIONS, function
from graphtorch.tensor.tensor import Tensor

Factors = tuple[Tensor, Tensor, Tensor]


def _basis(A: Tensor, q: int, niter: int) -> Tensor:
    """An orthonormal basis of q columns that nearly spans the columns of A (..., m, n)."""
    draws = FUNCTIONS["randn"](A.shape[-1], q, dtype=A.dtype, device=A.device)
    Q: Tensor = FUNCTIONS["linalg_qr"](A @ draws)[0]
    for _ in range(niter):
        Q = FUNCTIONS["linalg_qr"](A.mH @ Q)[0]
        Q = FUNCTIONS["linalg_qr"](A @ Q)[0]
    return Q


@function()
def svd_lowrank(A: Tensor, q: int | None = 6, niter: int | None = 2, M: Tensor | None = None) -> Factors:
    """`(U, S, V)` with `A - M` about `U @ diag(S) @ V.mH`, of rank q. See torch.svd_lowrank.

    Shapes: A (..., m, n) to U (..., m, q), S (..., q), V (..., n, q). Draws n x q normal numbers.
    """
    if A.ndim < 2:
        raise ValueError(f"Input is expected to have at least two dimensions, got {A.ndim}")
    if M is not None:
        A = A - M.expand(*A.shape)
    wide = A.shape[-2] < A.shape[-1]
    if wide:
        A = A.mH
    Q = _basis(A, 6 if q is None else q, 2 if niter is None else niter)
    U, S, Vh = FUNCTIONS["linalg_svd"](Q.mH @ A, full_matrices=False)
    U, V = Q @ U, Vh.mH
    return (V, S, U) if wide else (U, S, V)


@function()
def pca_lowrank(A: Tensor, q: int | None = None, center: bool = True, niter: int = 2) -> Factors:
    """The factors of `svd_lowrank` of A, its columns centred: V has the principal directions. See torch.pca_lowrank.

    Raises ValueError for a rank that A can't have.
    """
    m, n = A.shape[-2:]
    if q is None:
        q = min(6, m, n)
    elif not 0 <= q <= min(m, n):
        raise ValueError(f"q(={q}) must be non-negative integer and not greater than min(m, n)={min(m, n)}")
    if niter < 0:
        raise ValueError(f"niter(={niter}) must be non-negative integer")
    return svd_lowrank(A - A.mean(dim=-2, keepdim=True) if center else A, q, niter)


@function()
def lobpcg(
    A: Tensor,
    k: int | None = None,
    B: Tensor | None = None,
    X: Tensor | None = None,
    n: int | None = None,
    iK: Tensor | None = None,
    niter: int | None = None,
    tol: float | None = None,
    largest: bool | None = None,
    method: str | None = None,
    tracker: Any = None,
    ortho_iparams: Any = None,
    ortho_fparams: Any = None,
    ortho_bparams: Any = None,
) -> tuple[Tensor, Tensor]:
    """The `k` largest (or smallest) eigenvalues of A x = e B x and their vectors, for a symmetric A and a positive B.

    Computed from the whole decomposition, so that no starting vectors, preconditioner or number of iterations matter.
    Shapes: A and B (..., m, m); the results (..., k) and (..., m, k).

    Raises ValueError if m is less than 3 k. See torch.lobpcg.
    """
    count = k if k is not None else n if n is not None else X.shape[-1] if X is not None else 1
    m = A.shape[-1]
    if m < 3 * count:
        raise ValueError(
            f"LPBPCG algorithm is not applicable when the number of A rows (={m}) is smaller than 3 x the number of "
            f"requested eigenpairs (={count})"
        )
    down = largest is None or largest
    root = None
    if B is not None:
        # With B = L L^T the vectors of L^-1 A L^-T are L^T x.
        root = FUNCTIONS["linalg_cholesky"](B)
        solve = FUNCTIONS["linalg_solve_triangular"]
        A = solve(root.mT, solve(root, A, upper=False), upper=True, left=False)
    values, vectors = FUNCTIONS["linalg_eigh"](A)
    values, vectors = (
        (values[..., -count:], vectors[..., -count:]) if down else (values[..., :count], vectors[..., :count])
    )
    if down:
        values, vectors = values.flip(-1), vectors.flip(-1)
    if root is not None:
        vectors = FUNCTIONS["linalg_solve_triangular"](root.mT, vectors, upper=True)
    return values, vectors
