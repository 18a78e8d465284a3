"""LU factors (Gaussian elimination with row exchanges, and what is solved with it) and Householder reflections."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphtorch.ops.build import FUNCTIONS, function, operator
from graphtorch.ops.linalg import (
    ResultTuple,
    adjoint,
    check_matrix,
    factor_lu,
    identity,
    matrix_samples,
    solve_triangular_matrix,
    tril,
    triu,
)
from graphtorch.ops.record import sample
from graphtorch.tensor import dtypes
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType, type_of

# -- factors -----------------------------------------------------------------------------------------------------------


def permutation_of(pivots: Any, m: int) -> Any:
    """The rows in the order that the exchanges bring them to."""
    flat = pivots.reshape(math.prod(pivots.shape[:-1]), pivots.shape[-1])
    order = np.broadcast_to(np.arange(m), (len(flat), m)).copy()
    batch = np.arange(len(flat))
    for j in range(flat.shape[1]):
        row = flat[:, j].astype(np.int64) - 1
        kept = order[batch, row].copy()
        order[batch, row] = order[:, j]
        order[:, j] = kept
    return order.reshape(*pivots.shape[:-1], m)


def _lu_type(A: Any) -> tuple[TensorType, ...]:
    check_matrix("linalg.lu", A)
    (*lead, m, n), own = A.shape, type_of(A)
    k = min(m, n)
    return (
        own.with_shape((*lead, m, m)),
        own.with_shape((*lead, m, k)),
        own.with_shape((*lead, k, n)),
        own.with_shape((*lead, k)).with_dtype(dtypes.int32),
    )


def _lu_numpy(A: Any) -> tuple[Any, ...]:
    m, n = A.shape[-2:]
    k = min(m, n)
    both, pivots = factor_lu(A)
    lower = np.tril(both[..., :, :k], -1)
    lower[..., np.arange(k), np.arange(k)] = 1
    order = permutation_of(pivots, m)
    exchange = (np.arange(m)[:, None] == order[..., None, :]).astype(A.dtype)
    return exchange, lower, np.triu(both[..., :k, :]), pivots


def _lu_square(g_L: Any, g_U: Any, L: Any, U: Any) -> Any:
    """The cotangent of P^T A for square factors."""
    inner = None
    if g_L is not None:
        inner = tril(adjoint(L) @ g_L, -1)
    if g_U is not None:
        upper = triu(g_U @ adjoint(U))
        inner = upper if inner is None else inner + upper
    left = solve_triangular_matrix(adjoint(L), inner, True, True)
    return adjoint(solve_triangular_matrix(U, adjoint(left), True))


def _lu_formula(g_L: Any, g_U: Any, P: Any, L: Any, U: Any) -> Any:
    if g_L is None and g_U is None:
        return None
    m, n = L.shape[-2], U.shape[-1]
    cat = FUNCTIONS["cat"]
    if m == n:
        return P @ _lu_square(g_L, g_U, L, U)
    if m < n:
        # U2 = L^-1 A2
        second = None if g_U is None else solve_triangular_matrix(adjoint(L), g_U[..., m:], True, True)
        if second is None:
            return P @ cat((_lu_square(g_L, None, L, U[..., :m]), FUNCTIONS["zeros_like"](U[..., m:])), -1)
        through = -(second @ adjoint(U[..., m:]))
        first = _lu_square(through if g_L is None else g_L + through, g_U[..., :m], L, U[..., :m])
        return P @ cat((first, second), -1)
    # L2 = A2 U^-1
    if g_L is None:
        return P @ cat((_lu_square(None, g_U, L[..., :n, :], U), FUNCTIONS["zeros_like"](L[..., n:, :])), -2)
    second = adjoint(solve_triangular_matrix(U, adjoint(g_L[..., n:, :]), True))
    through = -(adjoint(L[..., n:, :]) @ second)
    first = _lu_square(g_L[..., :n, :], through if g_U is None else g_U + through, L[..., :n, :], U)
    return P @ cat((first, second), -2)


lu_parts: Callable[..., Any] = operator(
    "linalg_lu_parts(Tensor A) -> (P, L, U, pivots)",
    type=_lu_type,
    numpy=_lu_numpy,
    derivative={"A": _lu_formula},
    samples=matrix_samples((3, 3), (4, 2), (2, 3), (2, 2, 2)),
    categories="fc",
    public=False,
    method=False,
    grad_name="LinalgLuBackward0",
    doc="A = P L U with the rows exchanged for the largest pivots; `pivots` has each step's exchange, from one.",
)

# -- fronts ---------------------------------------------------------------------------------------------------------

_lu_results = {
    "lu": ResultTuple("linalg_lu", "P", "L", "U"),
    "factor": ResultTuple("linalg_lu_factor", "LU", "pivots"),
    "factor_ex": ResultTuple("linalg_lu_factor_ex", "LU", "pivots", "info"),
    "unpack": ResultTuple("lu_unpack", "P", "L", "U"),
}


@function()
def linalg_lu(A: Tensor, *, pivot: bool = True) -> Any:
    """A = P L U with row exchanges. See torch.linalg.lu."""
    _check_pivot("linalg.lu", pivot)
    return _lu_results["lu"](*lu_parts(A)[:3])


def _check_pivot(name: str, pivot: bool) -> None:
    if not pivot:
        raise RuntimeError(f"{name}: LU without pivoting is not implemented on the CPU")


@function()
def linalg_lu_factor(A: Tensor, *, pivot: bool = True) -> Any:
    """Both LU factors in one matrix, and the exchanges. See torch.linalg.lu_factor."""
    _check_pivot("linalg.lu_factor", pivot)
    _, lower, upper, pivots = lu_parts(A)
    m, n = A.shape[-2], A.shape[-1]
    below = tril(lower, -1)
    pad = FUNCTIONS["constant_pad_nd"]
    if m < n:
        below = pad(below, (0, n - m))
    elif m > n:
        upper = pad(upper, (0, 0, 0, m - n))
    return _lu_results["factor"](below + upper, pivots)


@function()
def linalg_lu_factor_ex(A: Tensor, *, pivot: bool = True, check_errors: bool = False) -> Any:
    """As lu_factor, and the place, from one, of the first zero pivot (0: none). See torch.linalg.lu_factor_ex."""
    both, pivots = linalg_lu_factor(A, pivot=pivot)
    zero = FUNCTIONS["diagonal"](both.detach(), 0, -2, -1) == 0
    if zero.shape[-1] == 0:
        info = FUNCTIONS["zeros"](zero.shape[:-1], dtype=dtypes.int32, device=A.device)
        return _lu_results["factor_ex"](both, pivots, info)
    first = zero.to(dtypes.int32).argmax(-1) + 1
    info = FUNCTIONS["where"](zero.any(-1), first, 0).to(dtypes.int32)
    return _lu_results["factor_ex"](both, pivots, info)


def _row_order_type(input: Any, m: int) -> TensorType:
    return type_of(input).with_shape((*input.shape[:-1], m)).with_dtype(dtypes.int64)


row_order: Callable[..., Tensor] = operator(
    "row_order(Tensor input, int m)",
    type=_row_order_type,
    numpy=permutation_of,
    samples=lambda make: [sample(Tensor._wrap(np.array([[2, 2, 3], [1, 3, 3]], np.int32)), 3)],
    categories="i",
    public=False,
    method=False,
    doc="The order of `m` rows after the exchanges of an LU factorisation.",
)


@function()
def lu_unpack(LU_data: Tensor, LU_pivots: Tensor, unpack_data: bool = True, unpack_pivots: bool = True) -> Any:
    """P, L and U of what lu_factor gave. See torch.lu_unpack."""
    m, n = LU_data.shape[-2], LU_data.shape[-1]
    k = min(m, n)
    empty = FUNCTIONS["empty"]((0,), dtype=LU_data.dtype, device=LU_data.device)
    p = lower = upper = empty
    if unpack_data:
        lower = tril(LU_data[..., :k], -1) + FUNCTIONS["eye"](m, k, dtype=LU_data.dtype, device=LU_data.device)
        upper = triu(LU_data[..., :k, :])
    if unpack_pivots:
        order = row_order(LU_pivots, m)
        p = (FUNCTIONS["arange"](m, device=LU_data.device)[:, None] == order[..., None, :]).to(LU_data.dtype)
    return _lu_results["unpack"](p, lower, upper)


@function()
def linalg_lu_solve(LU: Tensor, pivots: Tensor, B: Tensor, *, left: bool = True, adjoint: bool = False) -> Tensor:
    """The solution of A X = B from A's LU factors. See torch.linalg.lu_solve."""
    flip = FUNCTIONS["transpose"]

    def conjugate(value: Any) -> Any:
        return value.conj() if value.dtype.is_complex else value

    if not left:
        turned = conjugate(flip(B, -2, -1))
        found: Tensor = conjugate(flip(linalg_lu_solve(LU, pivots, turned, adjoint=not adjoint), -2, -1))
        return found
    p, lower, upper = lu_unpack(LU, pivots)
    if adjoint:
        middle = solve_triangular_matrix(conjugate(flip(upper, -2, -1)), B, False)
        solved: Tensor = p @ solve_triangular_matrix(conjugate(flip(lower, -2, -1)), middle, True, True)
        return solved
    return solve_triangular_matrix(upper, solve_triangular_matrix(lower, flip(p, -2, -1) @ B, False, True), True)


@function(method=True)
def lu_solve(input: Tensor, LU_data: Tensor, LU_pivots: Tensor) -> Tensor:
    """See torch.lu_solve, the older spelling of torch.linalg.lu_solve."""
    return linalg_lu_solve(LU_data, LU_pivots, input)


@function(method=True)
def lu(input: Tensor, pivot: bool = True, get_infos: bool = False) -> Any:
    """See torch.lu, the older spelling of torch.linalg.lu_factor."""
    both, pivots = linalg_lu_factor(input, pivot=pivot)
    return (
        (both, pivots, FUNCTIONS["zeros"](tuple(input.shape[:-2]), dtype=dtypes.int32, device=input.device))
        if get_infos
        else (both, pivots)
    )


# -- Householder reflections -------------------------------------------------------------------------------------------


@function(method=False)
def linalg_householder_product(A: Tensor, tau: Tensor) -> Tensor:
    """The first columns of a product of Householder reflections. See torch.linalg.householder_product."""
    check_matrix("linalg.householder_product", A)
    m, n, k = A.shape[-2], A.shape[-1], tau.shape[-1]
    if m < n:
        raise RuntimeError(
            "torch.linalg.householder_product: input.shape[-2] must be greater than or equal to input.shape[-1]"
        )
    reflected = tril(A, -1) + FUNCTIONS["eye"](m, n, dtype=A.dtype, device=A.device)
    q = identity(m, A) if k else A.clone().copy_(identity(m, A)[:, :n])
    for i in range(k):
        v = reflected[..., i : i + 1]
        q = q - (q @ v) @ (adjoint(v) * tau[..., i, None, None])
    whole: Tensor = q[..., :n]
    return whole


function(method=True, name="orgqr")(linalg_householder_product)


def _geqrf_type(input: Any) -> tuple[TensorType, TensorType]:
    check_matrix("geqrf", input, argument="input")
    (*lead, m, n), own = input.shape, type_of(input)
    return own, own.with_shape((*lead, min(m, n)))


def _geqrf_numpy(input: Any) -> tuple[Any, Any]:
    reflections, tau = np.linalg.qr(input, "raw")
    # LAPACK's memory order, as PyTorch keeps it.
    return np.swapaxes(np.ascontiguousarray(reflections).astype(input.dtype, copy=False), -1, -2), tau


geqrf: Callable[..., Any] = operator(
    "geqrf(Tensor input) -> (a, tau)",
    order={"a": "columns"},
    type=_geqrf_type,
    numpy=_geqrf_numpy,
    samples=matrix_samples((3, 3), (4, 2), (2, 2, 3)),
    categories="fc",
    out=True,
    doc="The QR factors as LAPACK keeps them: R above the diagonal, the reflections whose product is Q below it.",
)


@function(method=True)
def ormqr(input: Tensor, tau: Tensor, other: Tensor, left: bool = True, transpose: bool = False) -> Tensor:
    """The product of geqrf's Q (or its adjoint) with `other`, from the left or the right. See torch.ormqr."""
    check_matrix("ormqr", input, argument="input")
    if not left:
        return adjoint(ormqr(input, tau, adjoint(other), True, not transpose))  # type: ignore[no-any-return]
    m, k = input.shape[-2], tau.shape[-1]
    if other.shape[-2] != m:
        raise RuntimeError("torch.ormqr: other.shape[-2] must be equal to input.shape[-2]")
    vectors = tril(input[..., :k], -1) + FUNCTIONS["eye"](m, k, dtype=input.dtype, device=input.device)
    scales = tau.conj() if transpose and tau.dtype.is_complex else tau
    for i in range(k) if transpose else reversed(range(k)):
        v = vectors[..., i : i + 1]
        other = other - (v * scales[..., i, None, None]) @ (adjoint(v) @ other)
    return other
