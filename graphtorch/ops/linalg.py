"""Matrix factorisations and solvers through NumPy's LAPACK, over batches, with their derivatives as matrix formulas.

The formulas follow M. Giles, "Collected matrix derivative results for forward and reverse mode algorithmic
differentiation" (2008), in PyTorch's convention for complex matrices. What is built from these records (norms, powers,
fronts that take vectors) is in `matrix_functions.py`,
LU factors in `lu_factors.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from graphtorch.ops.build import FUNCTIONS, operator, return_type
from graphtorch.ops.pointwise import broadcast_shapes, scalar_type
from graphtorch.ops.record import Sample, sample
from graphtorch.ops.view import transpose
from graphtorch.tensor import dtypes
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType, type_of


class _LinAlgError(RuntimeError):
    """A factorisation that does not exist, such as the Cholesky factor of an indefinite matrix."""


LinAlgError = _LinAlgError  # PyTorch's class has the underscored name too, which tracebacks show


class ResultTuple:
    """The named tuple of a front's results, made on first use: it would cost every import."""

    def __init__(self, name: str, *fields: str) -> None:
        self.name, self.fields = name, fields
        self._made: Any = None

    def __call__(self, *values: Any) -> Any:
        if self._made is None:
            self._made = return_type(self.name, self.fields)
        return self._made(*values)


# -- checks and helpers -----------------------------------------------------------------------------------------------


def check_matrix(name: str, A: Any, square: bool = False, argument: str = "A") -> None:
    """Refuse what LAPACK has no routine for.

    Raises RuntimeError with PyTorch's messages.
    """
    d = A.dtype
    if d.category < dtypes.FLOATING:
        raise RuntimeError(f"{name}: Expected a floating point or complex tensor as input. Got {scalar_type(d)}")
    if d in (dtypes.float16, dtypes.bfloat16):
        raise RuntimeError(f"{name}: Low precision dtypes not supported. Got {scalar_type(d)}")
    if len(A.shape) < 2:
        raise RuntimeError(f"{name}: The input tensor {argument} must have at least 2 dimensions.")
    if square and A.shape[-1] != A.shape[-2]:
        raise RuntimeError(
            f"{name}: {argument} must be batches of square matrices, but they are {A.shape[-2]} by {A.shape[-1]} "
            "matrices"
        )


def adjoint(value: Any) -> Any:
    """The conjugate transpose of the matrices."""
    flipped = transpose(value, -2, -1)
    return flipped.conj() if value.dtype.is_complex else flipped


def tril(value: Any, diagonal: int = 0) -> Any:
    return FUNCTIONS["tril"](value, diagonal)


def triu(value: Any, diagonal: int = 0) -> Any:
    return FUNCTIONS["triu"](value, diagonal)


def _diagonal(value: Any) -> Any:
    return FUNCTIONS["diagonal"](value, 0, -2, -1)


def _embed(value: Any) -> Any:
    return FUNCTIONS["diag_embed"](value)


def _real(value: Any) -> Any:
    return value.real if value.dtype.is_complex else value


def identity(n: Any, like: Any) -> Any:
    """The identity matrix of the operand's dtype and device."""
    return FUNCTIONS["eye"](n, dtype=like.dtype, device=like.device)


def first_failure(name: str, a: Any, fails: Callable[[Any], int]) -> tuple[str, int]:
    """The prefix that names the batch element of the first failure, and what `fails` says of it (0: all is well)."""
    for i, matrix in enumerate(a.reshape(-1, *a.shape[-2:])):
        order = fails(matrix)
        if order:
            return (f"{name}: (Batch element {i})" if a.ndim > 2 else name), order
    return name, 0


def matrix_samples(
    *shapes: tuple[int, ...],
    shift: float = 3.0,
    rest: Callable[[Any, tuple[int, ...]], tuple[Any, ...]] = lambda make, shape: (),
) -> Callable[[Any], Iterable[Sample]]:
    """Well-conditioned matrices, random ones plus a multiple of the identity, and the other arguments of each."""

    def samples(make: Any) -> Iterable[Sample]:
        if not supported(make):
            return []
        return [sample(well_conditioned(make, *shape, shift=shift), *rest(make, shape)) for shape in shapes]

    return samples


RECTANGULAR = ((3, 3), (4, 2), (2, 3), (2, 3, 2))  # square, tall and wide matrices, and a batch


def supported(make: Any) -> bool:
    """Whether the dtype under test has LAPACK routines."""
    return make.dtype not in (dtypes.float16, dtypes.bfloat16)


def well_conditioned(make: Any, *shape: int, shift: float = 3.0) -> Tensor:
    """A random matrix plus a multiple of the identity, as an operand of sample calls."""
    made: Tensor = make(*shape)
    steps = (1.0 + 0.3 * np.arange(min(shape[-2:]))) * shift
    for i, step in enumerate(steps):
        made._data[..., i, i] += step
    return made


# -- inverse, determinant ---------------------------------------------------------------------------------------------


def _square_type(name: str) -> Callable[[Any], TensorType]:
    def rule(A: Any) -> TensorType:
        check_matrix(name, A, square=True)
        return type_of(A)

    return rule


def factor_lu(A: Any) -> tuple[Any, Any]:
    """Gaussian elimination with row exchanges: both factors in one array, and each step's pivot row (from one)."""
    m, n = A.shape[-2:]
    work = np.array(A, copy=True).reshape(math.prod(A.shape[:-2]), m, n)
    pivots = np.zeros((len(work), min(m, n)), np.int32)
    batch = np.arange(len(work))
    for j in range(min(m, n)):
        column = work[:, j:, j]
        # LAPACK compares complex numbers by the sum of their parts.
        size = np.abs(column.real) + np.abs(column.imag) if column.dtype.kind == "c" else np.abs(column)
        row = np.argmax(size, axis=1) + j
        pivots[:, j] = row + 1
        kept = work[batch, row].copy()
        work[batch, row] = work[:, j]
        work[:, j] = kept
        pivot = work[:, j, j, None]
        work[:, j + 1 :, j] = np.where(
            pivot == 0, work[:, j + 1 :, j], work[:, j + 1 :, j] / np.where(pivot == 0, 1, pivot)
        )
        work[:, j + 1 :, j + 1 :] -= work[:, j + 1 :, j, None] * work[:, j, None, j + 1 :]
    return work.reshape(A.shape), pivots.reshape(*A.shape[:-2], min(m, n))


def _zero_pivot(matrix: Any) -> int:
    """The place, from one, of the first zero pivot; 0 if there is none."""
    found = np.nonzero(np.diagonal(factor_lu(matrix)[0]) == 0)[0]
    return int(found[0]) + 1 if found.size else 0


def _inv_numpy(A: Any) -> Any:
    try:
        return np.linalg.inv(A)
    except np.linalg.LinAlgError:
        prefix, order = first_failure("linalg.inv", A, _zero_pivot)
        raise LinAlgError(
            f"{prefix}: The diagonal element {order} is zero, the inversion could not be completed because the input "
            "matrix is singular."
        ) from None


inv: Callable[..., Tensor] = operator(
    "linalg_inv(Tensor A)",
    order={"result": "columns"},
    type=_square_type("linalg.inv"),
    numpy=_inv_numpy,
    derivative={"A": lambda g, result: -(adjoint(result) @ g @ adjoint(result))},
    samples=matrix_samples((3, 3), (2, 2, 2), (1, 1)),
    categories="fc",
    method=False,
    out=True,
    grad_name="LinalgInvExBackward0",
    doc="The inverses of square matrices. Raises LinAlgError (a RuntimeError) for a singular one.",
)


def _det_type(A: Any) -> TensorType:
    check_matrix("linalg.det", A, square=True)
    return type_of(A).with_shape(tuple(A.shape[:-2]))


def _det_formula(g: Any, A: Any) -> Any:
    return g[..., None, None] * adjugate(adjoint(A))


linalg_det: Callable[..., Tensor] = operator(
    "linalg_det(Tensor A)",
    type=_det_type,
    numpy=lambda A: np.asarray(np.linalg.det(A)),
    derivative={"A": _det_formula},
    samples=matrix_samples((3, 3), (2, 2, 2), (1, 1)),
    categories="fc",
    method=False,
    out=True,
    doc="The determinants of square matrices.",
)


def _adjugate_numpy(A: Any) -> Any:
    """det(A) A^-1 by the singular values, so that singular matrices have one too.

    With A = U S V^H it is det(U) det(V^H) V adj(S) U^H, and the adjugate of a diagonal matrix has the products of the
    other elements on its diagonal.
    """
    u, s, vh = np.linalg.svd(A)
    n = s.shape[-1]
    others = np.broadcast_to(s[..., None, :], (*s.shape, n)).copy()
    others[..., np.arange(n), np.arange(n)] = 1
    products = others.prod(axis=-1)
    turn = np.linalg.det(u) * np.linalg.det(vh)
    v = np.conjugate(np.swapaxes(vh, -1, -2))
    uh = np.conjugate(np.swapaxes(u, -1, -2))
    return (turn[..., None, None] * ((v * products[..., None, :]) @ uh)).astype(A.dtype, copy=False)


def _adjugate_formula(g: Any, A: Any, result: Any) -> Any:
    # adj = det inv: d adj = (tr(inv dA) adj - adj dA inv), for the regular matrices alone.
    ih = adjoint(inv(A))
    along = (
        (g * result.conj()).sum((-2, -1), keepdim=True)
        if result.dtype.is_complex
        else (g * result).sum((-2, -1), keepdim=True)
    )
    return along * ih - adjoint(result) @ g @ ih


adjugate: Callable[..., Tensor] = operator(
    "linalg_adjugate(Tensor A)",
    type=_square_type("linalg.adjugate"),
    numpy=_adjugate_numpy,
    derivative={"A": _adjugate_formula},
    samples=matrix_samples((3, 3), (2, 2, 2), (1, 1)),
    categories="fc",
    public=False,
    method=False,
    doc="The transposed cofactors: the derivative of the determinant.",
)


def _slogdet_type(A: Any) -> tuple[TensorType, TensorType]:
    check_matrix("linalg.slogdet", A, square=True)
    sign = type_of(A).with_shape(tuple(A.shape[:-2]))
    return sign, sign.with_dtype(A.dtype.to_real())


def _slogdet_numpy(A: Any) -> tuple[Any, Any]:
    sign, log = np.linalg.slogdet(A)
    return np.asarray(sign, A.dtype), np.asarray(log)


def _slogdet_formula(g_sign: Any, g_logabsdet: Any, A: Any, sign: Any) -> Any:
    if not A.dtype.is_complex:
        return None if g_logabsdet is None else g_logabsdet[..., None, None] * adjoint(inv(A))
    turn = None if g_sign is None else (g_sign * sign.conj()).imag
    parts = [p for p in (g_logabsdet, None if turn is None else turn * 1j) if p is not None]
    weight = parts[0] if len(parts) == 1 else parts[0] + parts[1]
    return weight[..., None, None] * adjoint(inv(A))


linalg_slogdet: Callable[..., Any] = operator(
    "linalg_slogdet(Tensor A) -> (sign, logabsdet)",
    type=_slogdet_type,
    numpy=_slogdet_numpy,
    derivative={"A": _slogdet_formula},
    samples=matrix_samples((3, 3), (2, 2, 2), (1, 1)),
    categories="fc",
    method=False,
    out=True,
    doc="The sign of the determinants and the logarithm of their size.",
)

# -- solvers ----------------------------------------------------------------------------------------------------------


def _solve_type(A: Any, B: Any) -> TensorType:
    check_matrix("linalg.solve", A, square=True)
    return right_side_type("linalg.solve", A, B)


def right_side_type(name: str, A: Any, B: Any) -> TensorType:
    if A.dtype is not B.dtype:
        raise RuntimeError(
            f"{name}: Expected A and B to have the same dtype, but found A of type {scalar_type(A.dtype)} and B of "
            f"type {scalar_type(B.dtype)} instead"
        )
    if len(B.shape) < 2:
        raise RuntimeError(f"{name}: The input tensor B must have at least 2 dimensions.")
    if A.shape[-2] != B.shape[-2]:
        raise RuntimeError(
            f"{name}: Incompatible shapes of A and B for the equation AX = B ({A.shape[-2]}x{A.shape[-1]} and "
            f"{B.shape[-2]}x{B.shape[-1]})"
        )
    lead = broadcast_shapes(A.shape[:-2], B.shape[:-2])
    return type_of(B).with_shape((*lead, A.shape[-1], B.shape[-1]))


def _solve_numpy(A: Any, B: Any) -> Any:
    try:
        return np.linalg.solve(A, B)
    except np.linalg.LinAlgError:
        prefix, _ = first_failure("torch.linalg.solve", A, _zero_pivot)
        raise LinAlgError(f"{prefix}: The solver failed because the input matrix is singular.") from None


def _solve_samples(make: Any) -> Iterable[Sample]:
    if supported(make):
        yield sample(well_conditioned(make, 3, 3), make(3, 2))
        yield sample(well_conditioned(make, 2, 2, 2), make(2, 1))
        yield sample(well_conditioned(make, 2, 2), make(3, 2, 1))


solve_matrix: Callable[..., Tensor] = operator(
    "linalg_solve_matrix(Tensor A, Tensor B)",
    order={"result": "columns"},
    type=_solve_type,
    numpy=_solve_numpy,
    derivative={
        "A": lambda g, A, result: -(solve_matrix(adjoint(A), g) @ adjoint(result)),
        "B": lambda g, A: solve_matrix(adjoint(A), g),
    },
    samples=_solve_samples,
    categories="fc",
    public=False,
    method=False,
    grad_name="LinalgSolveExBackward0",
    doc="The solution X of A X = B, with `B` of matrices.",
)


def substitute(A: Any, B: Any, upper: bool, unitriangular: bool) -> Any:
    """Back substitution, a row of the solution at a time; a zero on the diagonal gives infinities."""
    n = A.shape[-1]
    lead = np.broadcast_shapes(A.shape[:-2], B.shape[:-2])
    x = np.broadcast_to(B, (*lead, *B.shape[-2:])).copy()
    for step in range(n):
        i = n - 1 - step if upper else step
        known = slice(i + 1, n) if upper else slice(0, i)
        row = x[..., i, :] - (A[..., i : i + 1, known] @ x[..., known, :])[..., 0, :]
        x[..., i, :] = row if unitriangular else row / A[..., i, i, None]
    return x


def _triangular_type(A: Any, B: Any, upper: bool, unitriangular: bool) -> TensorType:
    check_matrix("linalg.solve_triangular", A, square=True)
    return right_side_type("linalg.solve_triangular", A, B)


def _triangular_to_a(g: Any, A: Any, result: Any, upper: bool, unitriangular: bool) -> Any:
    whole = -(solve_triangular_matrix(adjoint(A), g, not upper, unitriangular) @ adjoint(result))
    skip = 1 if unitriangular else 0
    return triu(whole, skip) if upper else tril(whole, -skip)


solve_triangular_matrix: Callable[..., Tensor] = operator(
    "linalg_solve_triangular_matrix(Tensor A, Tensor B, bool upper, bool unitriangular=False)",
    order={"result": "columns"},
    type=_triangular_type,
    numpy=substitute,
    derivative={
        "A": _triangular_to_a,
        "B": lambda g, A, upper, unitriangular: solve_triangular_matrix(adjoint(A), g, not upper, unitriangular),
    },
    samples=lambda make: [
        sample(*[*s.args, upper, unit])
        for upper, unit in ((True, False), (False, False), (True, True), (False, True))
        for s in list(_solve_samples(make))[:2]
    ],
    categories="fc",
    public=False,
    method=False,
    grad_name="LinalgSolveTriangularBackward0",
    doc="The solution X of A X = B, where only one triangle of `A` counts.",
)


def hermitian_samples(make: Any) -> Iterable[Sample]:
    # Larger matrices would leave the Hermitian ones when finite differences move a single element.
    return [sample(make(*shape, low=1.0)) for shape in ((1, 1), (3, 1, 1)) if supported(make)]


# -- QR ---------------------------------------------------------------------------------------------------------------


def _qr_type(A: Any, mode: str) -> tuple[TensorType, TensorType]:
    check_matrix("linalg.qr", A)
    if mode not in ("reduced", "complete", "r"):
        raise RuntimeError(
            f"qr received unrecognized mode '{mode}' but expected one of 'reduced' (default), 'r', or 'complete'"
        )
    (*lead, m, n), own = A.shape, type_of(A)
    k = m if mode == "complete" else min(m, n)
    return own.with_shape((0,) if mode == "r" else (*lead, m, k)), own.with_shape((*lead, k, n))


def _qr_numpy(A: Any, mode: Any) -> tuple[Any, Any]:
    if mode == "r":
        return np.zeros(0, A.dtype), np.linalg.qr(A, "r")
    q, r = np.linalg.qr(A, mode)
    return q, r


def _qr_tall(Q: Any, R: Any, gQ: Any, gR: Any) -> Any:
    """The cotangent for at least as many rows as columns."""
    if gR is None:
        middle = -(adjoint(Q) @ gQ)
    else:
        middle = gR @ adjoint(R)
        middle = middle if gQ is None else middle - adjoint(Q) @ gQ
    middle = triu(middle)
    whole = Q @ (middle + adjoint(middle) - _embed(_real(_diagonal(middle))))
    whole = whole if gQ is None else gQ + whole
    # times R^-H from the right
    return adjoint(solve_triangular_matrix(R, adjoint(whole), True))


def _qr_formula(g_Q: Any, g_R: Any, Q: Any, R: Any, A: Any, mode: str) -> Any:
    if mode == "r":
        raise RuntimeError(
            "The derivative of linalg.qr depends on Q, which is not computed when mode='r'. Please use "
            "linalg.qr(A, mode='reduced') if you are going to require gradients through the Q, R decomposition."
        )
    m, n = A.shape[-2], A.shape[-1]
    if m > n and mode == "complete":
        raise RuntimeError("The QR decomposition is not differentiable when mode='complete' and nrows > ncols.")
    if m >= n:
        return _qr_tall(Q, R, g_Q, g_R)
    # A = [X | Y] and R = [R1 | R2]: Q and R1 are those of X, and R2 = Q^H Y.
    if g_R is None:
        first = _qr_tall(Q, R[..., :m], g_Q, None)
        return FUNCTIONS["cat"]((first, FUNCTIONS["zeros_like"](A[..., m:])), -1)
    g2 = g_R[..., m:]
    through = A[..., m:] @ adjoint(g2)
    first = _qr_tall(Q, R[..., :m], through if g_Q is None else g_Q + through, g_R[..., :m])
    return FUNCTIONS["cat"]((first, Q @ g2), -1)


linalg_qr: Callable[..., Any] = operator(
    "linalg_qr(Tensor A, str mode='reduced') -> (Q, R)",
    order={"Q": "columns", "R": "columns"},
    type=_qr_type,
    numpy=_qr_numpy,
    derivative={"A": _qr_formula},
    samples=matrix_samples(*RECTANGULAR),
    # Complex factors are unique up to a phase, so that single elements of theirs have no derivative.
    categories="f",
    method=False,
    out=True,
    doc="The QR factors of matrices: Q with orthonormal columns and R upper triangular.",
)

# -- SVD --------------------------------------------------------------------------------------------------------------


def _svd_type(A: Any, full_matrices: bool) -> tuple[TensorType, TensorType, TensorType]:
    check_matrix("linalg.svd", A)
    (*lead, m, n), own = A.shape, type_of(A)
    k = min(m, n)
    return (
        own.with_shape((*lead, m, m if full_matrices else k)),
        own.with_shape((*lead, k)).with_dtype(A.dtype.to_real()),
        own.with_shape((*lead, n if full_matrices else k, n)),
    )


def _svd_numpy(A: Any, full_matrices: bool) -> tuple[Any, Any, Any]:
    try:
        u, s, vh = np.linalg.svd(A, full_matrices=full_matrices)
    except np.linalg.LinAlgError:
        raise LinAlgError(
            "linalg.svd: The algorithm failed to converge because the input matrix contained non-finite values."
        ) from None
    return u, s, vh


def _without_diagonal(value: Any) -> Any:
    return value - _embed(_diagonal(value))


def _svd_formula(g_U: Any, g_S: Any, g_Vh: Any, U: Any, S: Any, Vh: Any, full_matrices: bool) -> Any:
    k = S.shape[-1]
    if full_matrices:
        U, Vh = U[..., :k], Vh[..., :k, :]
        g_U = None if g_U is None else g_U[..., :k]
        g_Vh = None if g_Vh is None else g_Vh[..., :k, :]
    # U, V and the remainders rotate by E^-1, where E_ij = s_j^2 - s_i^2; its diagonal is never used.
    row, column = S[..., None, :], S[..., :, None]
    gaps = (row - column) * (row + column) + identity(k, S)
    inner: Any = None if g_S is None else _embed(g_S)
    outer = None

    def add(total: Any, part: Any) -> Any:
        return part if total is None else total + part

    if g_U is not None:
        turned = adjoint(U) @ g_U
        inner = add(inner, _without_diagonal((turned - adjoint(turned)) / gaps) * row)
        if U.dtype.is_complex:
            inner = add(inner, _embed(_diagonal(turned).imag / S * 1j))
        if U.shape[-2] > k:
            outer = add(outer, ((g_U - U @ turned) / row) @ Vh)
    if g_Vh is not None:
        turned = Vh @ adjoint(g_Vh)
        inner = add(inner, column * _without_diagonal((turned - adjoint(turned)) / gaps))
        if Vh.shape[-1] > k:
            outer = add(outer, U @ ((g_Vh - adjoint(turned) @ Vh) / column))
    if inner is None:
        return outer
    if Vh.dtype.is_complex and not inner.dtype.is_complex:
        inner = inner.to(Vh.dtype)
    whole = U @ inner @ Vh
    return whole if outer is None else whole + outer


svd_factors: Callable[..., Any] = operator(
    "linalg_svd_factors(Tensor A, bool full_matrices=True) -> (U, S, Vh)",
    order={"U": "columns", "Vh": "columns"},
    type=_svd_type,
    numpy=_svd_numpy,
    derivative={"A": _svd_formula},
    samples=matrix_samples(*RECTANGULAR, rest=lambda make, shape: (False,)),
    categories="f",  # as for qr
    method=False,
    public=False,
    return_name="linalg_svd",
    grad_name="LinalgSvdBackward0",
    doc="The singular value decomposition: A = U diag(S) Vh.",
)

# -- eigenvalues ------------------------------------------------------------------------------------------------------


def _eigh_type(A: Any, UPLO: str) -> tuple[TensorType, TensorType]:
    check_matrix("linalg.eigh", A, square=True)
    if UPLO.upper() not in ("L", "U"):
        raise RuntimeError(f"Expected UPLO argument to be 'L' or 'U', but got {UPLO}")
    own = type_of(A)
    return own.with_shape(tuple(A.shape[:-1])).with_dtype(A.dtype.to_real()), own


def _eigh_numpy(A: Any, UPLO: Any) -> tuple[Any, Any]:
    triangle: Any = UPLO.upper()
    values, vectors = np.linalg.eigh(A, triangle)
    return values, vectors


def _eigh_formula(g_eigenvalues: Any, g_eigenvectors: Any, eigenvalues: Any, eigenvectors: Any) -> Any:
    V = eigenvectors
    inner: Any = None if g_eigenvalues is None else _embed(g_eigenvalues)
    if g_eigenvectors is not None:
        gaps = eigenvalues[..., None, :] - eigenvalues[..., :, None]
        turned = _without_diagonal((adjoint(V) @ g_eigenvectors) / (gaps + identity(gaps.shape[-1], gaps)))
        inner = turned if inner is None else turned + inner
    if V.dtype.is_complex and not inner.dtype.is_complex:
        inner = inner.to(V.dtype)
    whole = V @ inner @ adjoint(V)
    return (whole + adjoint(whole)) / 2


linalg_eigh: Callable[..., Any] = operator(
    "linalg_eigh(Tensor A, str UPLO='L') -> (eigenvalues, eigenvectors)",
    order={"eigenvectors": "columns"},
    type=_eigh_type,
    numpy=_eigh_numpy,
    derivative={"A": _eigh_formula},
    samples=hermitian_samples,
    categories="fc",
    method=False,
    out=True,
    doc="The eigenvalues, in ascending order, and eigenvectors of Hermitian matrices, of which one triangle is read.",
)


def _eig_type(A: Any) -> tuple[TensorType, TensorType]:
    check_matrix("linalg.eig", A, square=True)
    own = type_of(A).with_dtype(A.dtype.to_complex())
    return own.with_shape(tuple(A.shape[:-1])), own


def _eig_numpy(A: Any) -> tuple[Any, Any]:
    kind = np.result_type(A.dtype, np.complex64)
    values, vectors = np.linalg.eig(A)
    return values.astype(kind, copy=False), vectors.astype(kind, copy=False)


def _eig_formula(g_eigenvalues: Any, g_eigenvectors: Any, eigenvalues: Any, eigenvectors: Any) -> Any:
    V = eigenvectors
    inner: Any = None if g_eigenvalues is None else _embed(g_eigenvalues)
    if g_eigenvectors is not None:
        gaps = (eigenvalues[..., None, :] - eigenvalues[..., :, None]).conj()
        turned = adjoint(V) @ g_eigenvectors
        # Columns of unit length: the part along a column itself does not move it.
        turned = turned - (adjoint(V) @ V) * _diagonal(turned).real[..., None, :]
        turned = _without_diagonal(turned / (gaps + identity(gaps.shape[-1], gaps)))
        inner = turned if inner is None else turned + inner
    return solve_matrix(adjoint(V), inner @ adjoint(V))


linalg_eig: Callable[..., Any] = operator(
    "linalg_eig(Tensor A) -> (eigenvalues, eigenvectors)",
    order={"eigenvectors": "columns"},
    type=_eig_type,
    numpy=_eig_numpy,
    derivative={"A": _eig_formula},
    samples=hermitian_samples,
    categories="fc",
    method=False,
    out=True,
    doc="The complex eigenvalues and eigenvectors of square matrices.",
)

# -- pseudo-inverse and least squares ---------------------------------------------------------------------------------


def _pinv_type(A: Any, atol: float, rtol: float, hermitian: bool) -> TensorType:
    check_matrix("linalg.pinv", A, square=hermitian)
    (*lead, m, n), own = A.shape, type_of(A)
    return own.with_shape((*lead, n, m))


def _pinv_numpy(A: Any, atol: float, rtol: float, hermitian: bool) -> Any:
    if A.size == 0:
        return np.zeros((*A.shape[:-2], A.shape[-1], A.shape[-2]), A.dtype)
    if hermitian:
        below = np.tril(A, -1)
        A = below + np.conjugate(np.swapaxes(below, -1, -2)) + np.eye(A.shape[-1], dtype=A.dtype) * A.real
    u, s, vh = np.linalg.svd(A, full_matrices=False)
    cut = np.maximum(atol, rtol * s.max(axis=-1, keepdims=True))
    inverse = np.where(s > cut, 1 / np.where(s > cut, s, 1), 0).astype(s.dtype)
    v = np.conjugate(np.swapaxes(vh, -1, -2))
    return np.asarray((v * inverse[..., None, :]) @ np.conjugate(np.swapaxes(u, -1, -2)))


def pinv_cotangent(g: Any, inverse: Any, A: Any) -> Any:
    """Golub and Pereyra's derivative, for matrices of constant rank."""
    ih, gh = adjoint(inverse), adjoint(g)
    if A.shape[-2] <= A.shape[-1]:
        k = gh @ inverse
        kih = k @ ih
        return kih - adjoint(inverse @ k) - (A @ inverse) @ kih + (ih @ inverse) @ (gh - k @ A)
    k = inverse @ gh
    ihk = ih @ k
    return (gh - A @ k) @ inverse @ ih + ihk - adjoint(k @ inverse) - (ihk @ inverse) @ A


pinv_matrix: Callable[..., Tensor] = operator(
    "linalg_pinv_matrix(Tensor A, float atol, float rtol, bool hermitian=False)",
    type=_pinv_type,
    numpy=_pinv_numpy,
    derivative={"A": lambda g, result, A: pinv_cotangent(g, result, A)},
    samples=matrix_samples(*RECTANGULAR, rest=lambda make, shape: (0.0, 1e-6)),
    categories="fc",
    public=False,
    method=False,
    grad_name="LinalgPinvBackward0",
    doc="The pseudo-inverse; singular values up to max(atol, rtol * largest) count as zero. Of a Hermitian matrix, the "
    "lower triangle is read.",
)


def _lstsq_type(A: Any, B: Any) -> TensorType:
    check_matrix("torch.linalg.lstsq", A, argument="input")
    return right_side_type("torch.linalg.lstsq", A, B)


def _lstsq_numpy(A: Any, B: Any) -> Any:
    lead = np.broadcast_shapes(A.shape[:-2], B.shape[:-2])
    a = np.broadcast_to(A, (*lead, *A.shape[-2:])).reshape(-1, *A.shape[-2:])
    b = np.broadcast_to(B, (*lead, *B.shape[-2:])).reshape(-1, *B.shape[-2:])
    made = np.zeros((len(a), A.shape[-1], B.shape[-1]), B.dtype)
    for i in range(len(a)):
        made[i] = np.linalg.lstsq(a[i], b[i], rcond=None)[0]
    return made.reshape(*lead, A.shape[-1], B.shape[-1])


def _default_pinv(A: Any) -> Any:
    return pinv_matrix(A, 0.0, dtypes.finfo(A.dtype).eps * max(A.shape[-2], A.shape[-1]))


lstsq_solution: Callable[..., Tensor] = operator(
    "linalg_lstsq_solution(Tensor A, Tensor B)",
    order={"result": "columns"},
    type=_lstsq_type,
    numpy=_lstsq_numpy,
    derivative={
        "A": lambda g, A, B: pinv_cotangent(g @ adjoint(B), _default_pinv(A), A),
        "B": lambda g, A: adjoint(_default_pinv(A)) @ g,
    },
    samples=matrix_samples(*RECTANGULAR, rest=lambda make, shape: (make(shape[-2], 2),)),
    categories="fc",
    public=False,
    method=False,
    grad_name="LinalgLstsqBackward0",
    doc="The X of least norm among those that minimise |A X - B|.",
)
