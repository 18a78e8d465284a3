"""Functions of matrices made of the factorisations in `linalg.py`: fronts that take vectors and sides, norms, powers,
distances, covariances."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphtorch.autograd.compositions import in_one_piece
from graphtorch.autograd.graph import composes
from graphtorch.ops.arguments import also_by_name
from graphtorch.ops.build import FUNCTIONS, function, operator
from graphtorch.ops.linalg import (
    ResultTuple,
    adjoint,
    check_matrix,
    identity,
    inv,
    linalg_det,
    linalg_eig,
    linalg_eigh,
    linalg_qr,
    linalg_slogdet,
    lstsq_solution,
    pinv_matrix,
    solve_matrix,
    solve_triangular_matrix,
    supported,
    svd_factors,
    tril,
)
from graphtorch.ops.norms import vector_norm
from graphtorch.ops.record import sample
from graphtorch.ops.shapes import wrap_dim
from graphtorch.ops.strides import product
from graphtorch.ops.view import transpose
from graphtorch.tensor import dtypes
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType, type_of


def _alias(target: Any, *names: str, method: bool = True) -> None:
    for name in names:
        function(method=method, name=name)(target)


# linalg's functions call their operand A, these call it input.
_alias(also_by_name(inv, "input"), "inverse")
_alias(also_by_name(linalg_det, "input"), "det")
_alias(also_by_name(linalg_slogdet, "input"), "slogdet")


@function(method=True)
def logdet(input: Tensor) -> Tensor:
    """The logarithm of the determinants, NaN for a negative one. See torch.logdet."""
    sign, log = linalg_slogdet(input)
    if input.dtype.is_complex:
        found: Tensor = FUNCTIONS["complex"](log, FUNCTIONS["angle"](sign))
        return found
    kept: Tensor = FUNCTIONS["where"](sign == -1, math.nan, log)
    return kept


@function(method=True)
def qr(input: Tensor, some: bool = True) -> Any:
    """The QR factors. See torch.qr, the older spelling of torch.linalg.qr."""
    return linalg_qr(input, "reduced" if some else "complete")


# -- singular values and eigenvalues ----------------------------------------------------------------------------------


@function()
def linalg_svd(A: Tensor, full_matrices: bool = True, *, driver: str | None = None) -> Any:
    """The singular value decomposition A = U diag(S) Vh. See torch.linalg.svd."""
    if driver is not None:
        raise RuntimeError("torch.linalg.svd: keyword argument `driver=` is only supported on CUDA inputs")
    return svd_factors(A, full_matrices)


@function()
def linalg_svdvals(A: Tensor, *, driver: str | None = None) -> Tensor:
    """The singular values, in descending order. See torch.linalg.svdvals."""
    values: Tensor = linalg_svd(A, False, driver=driver)[1]
    return values


_svd_result = ResultTuple("svd", "U", "S", "V")


@function(method=True)
def svd(input: Tensor, some: bool = True, compute_uv: bool = True) -> Any:
    """A = U diag(S) V^H, with V itself and not its adjoint. See torch.svd."""
    u, s, vh = svd_factors(input, not some)
    if not compute_uv:
        u, vh = FUNCTIONS["zeros_like"](u), FUNCTIONS["zeros_like"](vh)
    return _svd_result(u, s, adjoint(vh))


@function()
def linalg_eigvalsh(A: Tensor, UPLO: str = "L") -> Tensor:
    """The eigenvalues of Hermitian matrices, in ascending order. See torch.linalg.eigvalsh."""
    values: Tensor = linalg_eigh(A, UPLO)[0]
    return values


@function()
def linalg_eigvals(A: Tensor) -> Tensor:
    """The complex eigenvalues of square matrices. See torch.linalg.eigvals."""
    values: Tensor = linalg_eig(A)[0]
    return values


# -- solvers ----------------------------------------------------------------------------------------------------------


def _is_vector(A: Any, B: Any) -> bool:
    return len(B.shape) == 1 or (len(A.shape) - 1 == len(B.shape) and tuple(A.shape[:-1]) == tuple(B.shape))


@function()
@composes("LinalgSolveExBackward0")
def linalg_solve(A: Tensor, B: Tensor, *, left: bool = True) -> Tensor:
    """The solution of A X = B, or of X A = B with `left=False`. See torch.linalg.solve.

    `B` is a vector if it has one dimension, or A's shape without the last one. Raises LinAlgError for a singular A.
    """
    check_matrix("linalg.solve", A, square=True)
    if _is_vector(A, B):
        if not left:
            raise RuntimeError(
                "linalg.solve: Vector broadcasting of the left hand side is not supported for left=False"
            )
        return solve_matrix(A, B[..., None])[..., 0]
    if left:
        return solve_matrix(A, B)
    found: Tensor = transpose(solve_matrix(transpose(A, -2, -1), transpose(B, -2, -1)), -2, -1)
    return found


@function()
def linalg_solve_triangular(
    A: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Tensor:
    """The solution of A X = B (X A = B) for triangular A. See torch.linalg.solve_triangular."""
    if left:
        return solve_triangular_matrix(A, B, upper, unitriangular)
    found = solve_triangular_matrix(transpose(A, -2, -1), transpose(B, -2, -1), not upper, unitriangular)
    turned: Tensor = transpose(found, -2, -1)
    return turned


_triangular_result = ResultTuple("triangular_solve", "solution", "cloned_coefficient")


@function(method=True)
def triangular_solve(
    input: Tensor, A: Tensor, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> Any:
    """See torch.triangular_solve, the older spelling of torch.linalg.solve_triangular."""
    matrix = A.transpose(-2, -1) if transpose else A
    solution = solve_triangular_matrix(matrix, input, upper != transpose, unitriangular)
    return _triangular_result(solution, A.clone())


def _cut(A: Any, atol: Any, rtol: Any) -> tuple[Any, Any]:
    """The absolute and relative size up to which singular values count as zero."""
    if rtol is None:
        rtol = 0.0 if atol is not None else dtypes.finfo(A.dtype).eps * max(A.shape[-2], A.shape[-1])
    return 0.0 if atol is None else atol, rtol


def _hermitian(A: Any) -> Any:
    """What routines that read the lower triangle see."""
    return tril(A) + adjoint(tril(A, -1))


@function()
def linalg_pinv(A: Tensor, rcond: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None) -> Tensor:
    """The Moore-Penrose pseudo-inverse. See torch.linalg.pinv (tolerances are numbers here)."""
    check_matrix("linalg.pinv", A, square=hermitian)
    absolute, relative = _cut(A, atol, rcond if rtol is None else rtol)
    return pinv_matrix(A, float(absolute), float(relative), hermitian)


@function(method=True)
def pinverse(input: Tensor, rcond: float = 1e-15) -> Tensor:
    """See torch.pinverse, the older spelling of torch.linalg.pinv."""
    return linalg_pinv(input, rcond)


@function()
def linalg_matrix_rank(
    A: Tensor, tol: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None
) -> Tensor:
    """How many singular values are above max(atol, rtol * largest). See torch.linalg.matrix_rank."""
    check_matrix("linalg.matrix_rank", A, square=hermitian)
    absolute, relative = _cut(A, tol if atol is None else atol, rtol)
    values = linalg_svdvals(_hermitian(A.detach()) if hermitian else A.detach())
    if not isinstance(absolute, Tensor):
        absolute = FUNCTIONS["full"]((), absolute, dtype=values.dtype, device=values.device)
    largest = values.amax(-1) if values.shape[-1] else values.sum(-1)
    limit = FUNCTIONS["maximum"](absolute, largest * relative)
    counted: Tensor = (values > limit[..., None]).sum(-1)
    return counted


_lstsq_result = ResultTuple("linalg_lstsq", "solution", "residuals", "rank", "singular_values")


@function()
def linalg_lstsq(A: Tensor, B: Tensor, rcond: float | None = None, *, driver: str | None = None) -> Any:
    """The least-squares solution of A X = B. See torch.linalg.lstsq.

    `residuals` are given for more rows than columns; `singular_values` for the drivers 'gelsd' and 'gelss'.
    """
    if driver not in (None, "gels", "gelsy", "gelsd", "gelss"):
        raise RuntimeError(
            "torch.linalg.lstsq: parameter `driver` should be one of (gels, gelsy, gelsd, gelss) on CPU, "
            f"but got {driver}"
        )
    vector = _is_vector(A, B)
    right = B[..., None] if vector else B
    solution = lstsq_solution(A, right)
    m, n = A.shape[-2], A.shape[-1]
    empty = FUNCTIONS["empty"]
    residuals = solution.real.flatten()[:0]
    if m > n and driver != "gelsy":
        difference = A @ solution - right
        residuals = (difference * difference.conj()).sum(-2)
        residuals = residuals.real if residuals.dtype.is_complex else residuals
    rank = empty((0,), dtype=dtypes.int64, device=A.device) if driver == "gels" else linalg_matrix_rank(A)
    none = empty((0,), dtype=A.dtype.to_real(), device=A.device)
    values = linalg_svdvals(A.detach()) if driver in ("gelsd", "gelss") else none
    return _lstsq_result(solution[..., 0] if vector else solution, residuals, rank, values)


@function()
def linalg_tensorinv(A: Tensor, ind: int = 2) -> Tensor:
    """The inverse for tensordot over `ind` dimensions. See torch.linalg.tensorinv."""
    if ind <= 0:
        raise RuntimeError("Expected a strictly positive integer for 'ind'")
    first, second = tuple(A.shape[:ind]), tuple(A.shape[ind:])
    if product(first) != product(second):
        raise RuntimeError(
            "Expected self to satisfy the requirement prod(self.shape[ind:]) == prod(self.shape[:ind]), but got "
            f"{product(second)} != {product(first)}"
        )
    return inv(A.reshape((product(first), product(second)))).reshape((*second, *first))  # type: ignore[no-any-return]


@function()
def linalg_tensorsolve(A: Tensor, B: Tensor, dims: Sequence[int] | None = None) -> Tensor:
    """The X of tensordot(A, X, X.ndim) = B. See torch.linalg.tensorsolve."""
    if dims is not None:
        moved = [wrap_dim(d, A.ndim) for d in dims]
        A = FUNCTIONS["permute"](A, tuple([d for d in range(A.ndim) if d not in moved] + moved))
    shape = tuple(A.shape[B.ndim :])
    if product(shape) != product(B.shape):
        raise RuntimeError(
            "Expected self to satisfy the requirement prod(self.shape[other.ndim:]) == prod(self.shape[:other.ndim]), "
            f"but got {product(shape)} != {product(B.shape)}"
        )
    flat = B.reshape((product(B.shape),))
    return linalg_solve(A.reshape((product(B.shape), product(shape))), flat).reshape(shape)  # type: ignore[no-any-return]


# -- norms ------------------------------------------------------------------------------------------------------------


@function()
def linalg_matrix_norm(
    A: Tensor, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    """The norm of matrices in two dimensions. See torch.linalg.matrix_norm."""
    if dtype is not None:
        A = A.to(dtype)
    if len(dim) != 2:
        raise RuntimeError(f"linalg.matrix_norm: dim must be a 2-tuple. Got {', '.join(map(str, dim))}")
    first, second = (wrap_dim(d, A.ndim) for d in dim)
    if first == second:
        raise RuntimeError(f"linalg.matrix_norm: dims must be different. Got ({first}, {second})")
    if ord == "fro":
        return vector_norm(A, 2, (first, second), keepdim)  # type: ignore[no-any-return]
    check = A.dtype in (dtypes.float16, dtypes.bfloat16) and (ord == "nuc" or ord in (2, -2))
    if check:
        raise RuntimeError(f"linalg.matrix_norm: Low precision dtypes not supported. Got {A.dtype}")
    if ord == "nuc" or ord in (2, -2):
        rest = [d for d in range(A.ndim) if d not in (first, second)]
        values = linalg_svdvals(FUNCTIONS["permute"](A, (*rest, first, second)))
        found = values.sum(-1) if ord == "nuc" else values.amax(-1) if ord == 2 else values.amin(-1)
        if keepdim:
            for d in sorted((first, second)):
                found = found.unsqueeze(d)
        return found  # type: ignore[no-any-return]
    if not isinstance(ord, int | float) or abs(ord) not in (1, math.inf):
        raise RuntimeError(f"linalg.matrix_norm: Order {ord} not supported.")
    summed, folded = (first, second) if abs(ord) == 1 else (second, first)
    sums = vector_norm(A, 1, (summed,), True)
    folded_sums = sums.amax(folded, keepdim=True) if ord > 0 else sums.amin(folded, keepdim=True)
    if keepdim:
        return folded_sums  # type: ignore[no-any-return]
    return FUNCTIONS["squeeze"](folded_sums, (first, second))  # type: ignore[no-any-return]


@function()
def linalg_norm(A: Tensor, ord: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """A vector or matrix norm, by how many dimensions there are. See torch.linalg.norm."""
    if isinstance(dim, int):
        dim = (dim,)
    if ord is None:
        return vector_norm(A, 2, dim, keepdim, dtype=dtype)  # type: ignore[no-any-return]
    if dim is not None and len(dim) not in (1, 2):
        raise RuntimeError(f"linalg.norm: If dim is specified, it must be of length 1 or 2. Got {list(dim)}")
    if dim is None and A.ndim not in (1, 2):
        raise RuntimeError(
            f"linalg.norm: If dim is not specified but ord is, the input must be 1D or 2D. Got {A.ndim}D."
        )
    if (dim is not None and len(dim) == 2) or (dim is None and A.ndim == 2):
        return linalg_matrix_norm(A, ord, (0, 1) if dim is None else dim, keepdim, dtype=dtype)
    if isinstance(ord, str):
        raise RuntimeError(f"linalg.norm: order {ord} is not a norm of vectors")
    return vector_norm(A, ord, dim, keepdim, dtype=dtype)  # type: ignore[no-any-return]


@function()
def linalg_cond(A: Tensor, p: Any = None) -> Tensor:
    """The condition number of matrices. See torch.linalg.cond."""
    if p is None or p in (2, -2):
        values = linalg_svdvals(A)
        largest, least = values[..., 0], values[..., -1]
        ratio: Tensor = least / largest if p == -2 else largest / least
        return ratio
    check_matrix("linalg.cond", A, square=True)
    scaled: Tensor = linalg_matrix_norm(A, p) * linalg_matrix_norm(inv(A), p)
    return scaled


@function(method=True)
def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """The p-norm of the difference. See torch.dist."""
    return vector_norm(input - other, p)  # type: ignore[no-any-return]


@function()
@in_one_piece("CdistBackward0")
def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str = "use_mm_for_euclid_dist_if_necessary") -> Tensor:
    """The p-norm distances between the rows of two sets: (..., P, M) and (..., R, M) give (..., P, R).

    See torch.cdist (`compute_mode` makes no difference here: distances come from differences).
    """
    if x1.ndim < 2 or x2.ndim < 2:
        raise RuntimeError(f"cdist only supports at least 2D tensors, X1 got: {x1.ndim}D, X2 got: {x2.ndim}D")
    if x1.shape[-1] != x2.shape[-1]:
        raise RuntimeError(f"X1 and X2 must have the same number of columns. X1: {x1.shape[-1]} X2: {x2.shape[-1]}")
    if p < 0:
        raise RuntimeError("cdist only supports non-negative p values")
    return vector_norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), p, -1)  # type: ignore[no-any-return]


@function()
def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """The p-norm distances between all pairs of rows. See torch.nn.functional.pdist."""
    if input.ndim != 2:
        raise RuntimeError(f"pdist only supports 2D tensors, got: {input.ndim}D")
    if p < 0:
        raise RuntimeError("pdist only supports non-negative p values")
    n = input.shape[0]
    pairs = FUNCTIONS["triu_indices"](n, n, 1, device=input.device)
    return vector_norm(input[pairs[0]] - input[pairs[1]], p, -1)  # type: ignore[no-any-return]


@function(method=True)
def renorm(input: Tensor, p: float, dim: int, maxnorm: float) -> Tensor:
    """Slices along `dim` scaled down to a p-norm of at most `maxnorm`. See torch.renorm."""
    if p <= 0:
        raise RuntimeError("renorm: non-positive-norm not supported")
    if input.ndim < 2:
        raise RuntimeError(f"renorm: input needs at least 2 dimensions, got {input.ndim} dimensions")
    if maxnorm < 0:
        raise RuntimeError(f"renorm: expected maxnorm to be >= 0 but got {maxnorm}")
    dim = wrap_dim(dim, input.ndim)
    size = vector_norm(input, p, tuple(d for d in range(input.ndim) if d != dim), True)
    scale = FUNCTIONS["where"](size > maxnorm, maxnorm / (size + 1e-7), 1.0)
    scaled: Tensor = (input * scale.to(input.dtype)).contiguous()
    return scaled


# -- powers, products -------------------------------------------------------------------------------------------------


@function(method=True)
def matrix_power(input: Tensor, n: int) -> Tensor:
    """The n-th power of square matrices, by squaring; of their inverses for negative n. See torch.matrix_power."""
    if input.ndim < 2 or input.shape[-1] != input.shape[-2]:
        shape = " by ".join(str(s) for s in input.shape[-2:])
        raise RuntimeError(f"linalg.matrix_power: A must be batches of square matrices, but they are {shape} matrices")
    if n == 0:
        return input.clone().copy_(identity(input.shape[-1], input))  # type: ignore[no-any-return]
    base = inv(input) if n < 0 else input
    rest, result = abs(n), None
    while rest:
        if rest & 1:
            result = base if result is None else result @ base
        rest >>= 1
        if rest:
            base = base @ base
    assert result is not None
    return result.clone() if result is input else result


_alias(matrix_power, "linalg_matrix_power", method=False)


@function()
def linalg_multi_dot(tensors: Sequence[Tensor]) -> Tensor:
    """The product of matrices in the order of least work. See torch.linalg.multi_dot."""
    count = len(tensors)
    if count < 2:
        raise RuntimeError("multi_dot(): expected at least 2 tensors but got " + str(count))
    matrices = list(tensors)
    row, column = matrices[0].ndim == 1, matrices[-1].ndim == 1
    if row:
        matrices[0] = matrices[0][None, :]
    if column:
        matrices[-1] = matrices[-1][:, None]
    for i, matrix in enumerate(matrices):
        if matrix.ndim != 2:
            raise RuntimeError(f"multi_dot(): tensor {i} must be 2D but got {matrix.ndim}D")
    sizes = [matrices[0].shape[0], *(m.shape[1] for m in matrices)]
    # cost[i][j]: of the product of matrices i..j; split: where its last product divides it.
    cost = [[0] * count for _ in range(count)]
    split = [[0] * count for _ in range(count)]
    for span in range(1, count):
        for i in range(count - span):
            j = i + span
            choices = [(cost[i][k] + cost[k + 1][j] + sizes[i] * sizes[k + 1] * sizes[j + 1], k) for k in range(i, j)]
            cost[i][j], split[i][j] = min(choices)

    def multiply(i: int, j: int) -> Tensor:
        if i == j:
            return matrices[i]
        found: Tensor = multiply(i, split[i][j]) @ multiply(split[i][j] + 1, j)
        return found

    result = multiply(0, count - 1)
    if row:
        result = result[0]
    return result[..., 0] if column else result


@function()
def chain_matmul(*matrices: Tensor) -> Tensor:
    """See torch.chain_matmul, the older spelling of torch.linalg.multi_dot."""
    return matrices[0] if len(matrices) == 1 else linalg_multi_dot(matrices)


_PADE = (
    64764752532480000.0, 32382376266240000.0, 7771770303897600.0, 1187353796428800.0, 129060195264000.0,
    10559470521600.0, 670442572800.0, 33522128640.0, 1323241920.0, 40840800.0, 960960.0, 16380.0, 182.0, 1.0,
)  # fmt: skip


def _matrix_exp_numpy(A: Any) -> Any:
    """Higham's scaling and squaring with the Pade approximant of degree 13 (SIAM J. Matrix Anal. Appl. 26, 2005)."""
    if not A.size:
        return A.copy()
    size = np.abs(A).sum(axis=-2).max(axis=-1)
    halvings = np.maximum(np.ceil(np.log2(np.maximum(size, 1e-300) / 5.371920351148152)), 0).astype(int)
    x = A / (2.0**halvings)[..., None, None].astype(A.real.dtype)
    one = np.broadcast_to(np.eye(A.shape[-1], dtype=A.dtype), A.shape)
    x2 = x @ x
    x4 = x2 @ x2
    x6 = x2 @ x4
    b = _PADE
    odd = x6 @ (b[13] * x6 + b[11] * x4 + b[9] * x2) + b[7] * x6 + b[5] * x4 + b[3] * x2 + b[1] * one
    u = x @ odd
    v = x6 @ (b[12] * x6 + b[10] * x4 + b[8] * x2) + b[6] * x6 + b[4] * x4 + b[2] * x2 + b[0] * one
    result = np.linalg.solve(v - u, v + u)
    for step in range(int(halvings.max())):
        result = np.where((halvings > step)[..., None, None], result @ result, result)
    return result.astype(A.dtype, copy=False)


def _matrix_exp_type(A: Any) -> TensorType:
    check_matrix("linalg.matrix_exp", A, square=True)
    return type_of(A)


def _matrix_exp_formula(g: Any, A: Any) -> Any:
    """exp([[A, E], [0, A]]) has the derivative along E in its corner; the transpose of that map takes A^H."""
    n, cat = A.shape[-1], FUNCTIONS["cat"]
    flipped = adjoint(A)
    zero = FUNCTIONS["zeros_like"](flipped)
    block = cat((cat((flipped, g), -1), cat((zero, flipped), -1)), -2)
    return matrix_exp(block)[..., :n, n:]


matrix_exp: Callable[..., Tensor] = operator(
    "matrix_exp(Tensor input)",
    type=_matrix_exp_type,
    numpy=_matrix_exp_numpy,
    derivative={"input": lambda g, input: _matrix_exp_formula(g, input)},
    samples=lambda make: (
        [sample(make(3, 3)), sample(make(2, 2, 2, low=-8, high=8)), sample(make(1, 1))] if supported(make) else []
    ),
    categories="fc",
    grad_name="LinalgMatrixExpBackward0",
    doc="The exponential of square matrices.",
)


@function(method=True)
@composes("TraceBackward0")
def trace(input: Tensor) -> Tensor:
    """The sum of a matrix's diagonal. See torch.trace."""
    if input.ndim != 2:
        raise RuntimeError("trace: expected a matrix, but got tensor with dim " + str(input.ndim))
    summed: Tensor = FUNCTIONS["diagonal"](input).sum()
    return summed


@function()
def linalg_vecdot(x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
    """The products of vectors along `dim`, the first conjugated. See torch.linalg.vecdot."""
    found: Tensor = ((x.conj() if x.dtype.is_complex else x) * y).sum(dim)
    return found


@function()
@composes("LinalgCrossBackward0")
def linalg_cross(input: Tensor, other: Tensor, *, dim: int = -1) -> Tensor:
    """The vector product along `dim`, of size 3. See torch.linalg.cross."""
    if input.ndim != other.ndim:
        raise RuntimeError("linalg.cross: inputs must have the same number of dimensions.")
    a, b = FUNCTIONS["broadcast_tensors"](input, other)
    dim = wrap_dim(dim, a.ndim)
    if input.shape[dim] != 3 or other.shape[dim] != 3:
        raise RuntimeError(
            f"linalg.cross: inputs dimension {dim} must have length 3. Got {input.shape[dim]} and {other.shape[dim]}"
        )
    roll = FUNCTIONS["roll"]
    found: Tensor = roll(a, -1, dim) * roll(b, -2, dim) - roll(a, -2, dim) * roll(b, -1, dim)
    return found


@function(method=True)
def cross(input: Tensor, other: Tensor, dim: int | None = None) -> Tensor:
    """The vector product along `dim`, or the first dimension of size 3. See torch.cross."""
    if dim is None:
        sizes = [d for d in range(input.ndim) if input.shape[d] == 3]
        if not sizes:
            raise RuntimeError("no dimension of size 3 in input")
        dim = sizes[0]
    return linalg_cross(input, other, dim=dim)


@function()
def linalg_vander(x: Tensor, *, N: int | None = None) -> Tensor:
    """The powers 0 to N - 1 of the elements. See torch.linalg.vander."""
    if x.ndim == 0 and N is None:
        raise RuntimeError("Expected dim greater than 0, but got dim: 0")
    x = x.unsqueeze(0) if x.ndim == 0 else x
    n = x.shape[-1] if N is None else N
    if n <= 1:
        raise RuntimeError(f"N must be greater than 1 but got {n}.")
    rest = x.unsqueeze(-1).expand(*x.shape, n - 1).cumprod(-1)
    found: Tensor = FUNCTIONS["cat"]((FUNCTIONS["ones_like"](rest[..., :1]), rest), -1)
    return found


@function()
def vander(x: Tensor, N: int | None = None, increasing: bool = False) -> Tensor:
    """The powers N - 1 to 0 of the elements, or 0 to N - 1 with `increasing`. See torch.vander."""
    powers: Tensor = linalg_vander(x, N=N)
    return powers if increasing else powers.flip(-1)


@function()
def linalg_diagonal(A: Tensor, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """The diagonal, by default of the last two dimensions. See torch.linalg.diagonal."""
    found: Tensor = FUNCTIONS["diagonal"](A, offset, dim1, dim2)
    return found
