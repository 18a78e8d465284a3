"""Cholesky factors of Hermitian positive-definite matrices, and what is solved with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphtorch.ops.build import function, operator
from graphtorch.ops.linalg import (
    LinAlgError,
    adjoint,
    check_matrix,
    first_failure,
    hermitian_samples,
    identity,
    right_side_type,
    solve_triangular_matrix,
    substitute,
    supported,
    tril,
)
from graphtorch.ops.record import sample
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType, type_of


def first_bad_minor(matrix: Any) -> int:
    """The order of the first leading minor that is not positive-definite; 0 if all are."""
    for order in range(1, matrix.shape[-1] + 1):
        try:
            np.linalg.cholesky(matrix[:order, :order])
        except np.linalg.LinAlgError:
            return order
    return 0


def _transposed(A: Any) -> Any:
    return np.conjugate(np.swapaxes(A, -1, -2))


def _cholesky_type(A: Any, upper: bool) -> TensorType:
    check_matrix("linalg.cholesky", A, square=True)
    return type_of(A)


def _cholesky_numpy(A: Any, upper: bool) -> Any:
    A = _transposed(A) if upper else A
    try:
        lower = np.linalg.cholesky(A)
        return _transposed(lower) if upper else lower
    except np.linalg.LinAlgError:
        prefix, order = first_failure("linalg.cholesky", A, first_bad_minor)
        raise LinAlgError(
            f"{prefix}: The factorization could not be completed because the input is not positive-definite (the "
            f"leading minor of order {order} is not positive-definite)."
        ) from None


def _cholesky_formula(g: Any, result: Any, upper: bool) -> Any:
    # A's cotangent is L^-H phi(L^H g) L^-1; phi mirrors the lower triangle and halves.
    if upper:
        g, result = adjoint(g), adjoint(result)
    lower = tril(adjoint(result) @ g)
    phi = (lower + adjoint(tril(lower, -1))) / 2
    left = solve_triangular_matrix(adjoint(result), phi, True)
    return adjoint(solve_triangular_matrix(adjoint(result), adjoint(left), True))


cholesky_factor: Callable[..., Tensor] = operator(
    "linalg_cholesky_factor(Tensor A, bool upper=False)",
    order={"result": "columns"},
    type=_cholesky_type,
    numpy=_cholesky_numpy,
    derivative={"A": _cholesky_formula},
    samples=lambda make: [sample(*s.args, upper) for s in hermitian_samples(make) for upper in (False, True)],
    # Complex ones: as in PyTorch, the cotangent's diagonal keeps an imaginary part, with which no Hermitian A can move.
    categories="f",
    public=False,
    method=False,
    grad_name="LinalgCholeskyExBackward0",
    doc="The Cholesky factor of Hermitian positive-definite matrices, of which the triangle that it fills is read.",
)


def _from_factor_type(B: Any, L: Any, upper: bool) -> TensorType:
    check_matrix("cholesky_solve", L, square=True)
    return right_side_type("cholesky_solve", L, B)


def _from_factor_numpy(B: Any, L: Any, upper: bool) -> Any:
    lower = _transposed(L) if upper else L
    higher = L if upper else _transposed(L)
    return substitute(higher, substitute(lower, B, False, False), True, False)


def _to_factor(g: Any, L: Any, result: Any, upper: bool) -> Any:
    """The cotangent of the factor: as PyTorch's, that of a whole matrix, though one triangle is read."""
    moved = solve_from_factor(g, L, upper) @ adjoint(result)
    both = moved + adjoint(moved)
    return -(L @ both) if upper else -(both @ L)


solve_from_factor: Callable[..., Tensor] = operator(
    "linalg_solve_from_factor(Tensor B, Tensor L, bool upper)",
    order={"result": "columns"},
    type=_from_factor_type,
    numpy=_from_factor_numpy,
    derivative={"B": lambda g, L, upper: solve_from_factor(g, L, upper), "L": _to_factor},
    # Larger factors would need the triangle that is not read to count.
    samples=lambda make: [
        sample(make(*shape, 2), make(*shape, 1, low=1.0), upper)
        for shape, upper in (((1,), False), ((3, 1), True))
        if supported(make)
    ],
    categories="fc",
    public=False,
    method=False,
    grad_name="CholeskySolveBackward0",
    doc="The solution X of A X = B for A = L L^H or, if `upper`, L^H L.",
)


# -- fronts -----------------------------------------------------------------------------------------------------------


@function()
def linalg_cholesky(A: Tensor, *, upper: bool = False) -> Tensor:
    """The Cholesky factor of Hermitian positive-definite matrices. See torch.linalg.cholesky.

    Raises LinAlgError for a matrix that is not positive-definite.
    """
    return cholesky_factor(A, upper)


@function(method=True)
def cholesky(input: Tensor, upper: bool = False) -> Tensor:
    """See torch.cholesky, the older spelling of torch.linalg.cholesky."""
    return linalg_cholesky(input, upper=upper)


@function(method=True)
def cholesky_solve(input: Tensor, L: Tensor, upper: bool = False) -> Tensor:
    """The solution of A X = `input` for A = L L^H (or U^H U). See torch.cholesky_solve."""
    check_matrix("cholesky_solve", L, square=True, argument="A")
    return solve_from_factor(input, L, upper)


@function(method=True)
def cholesky_inverse(input: Tensor, upper: bool = False) -> Tensor:
    """The inverse of A = L L^H (or U^H U). See torch.cholesky_inverse."""
    check_matrix("cholesky_inverse", input, square=True)
    return solve_from_factor(identity(input.shape[-1], input), input, upper)
