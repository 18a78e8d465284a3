"""Inverses, solutions and Cholesky factors that tell by a number, instead of an error, where there is none.

PyTorch leaves there what its library had computed up to then; here such a matrix's result is NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphtorch.autograd.state import state
from graphtorch.ops.build import FUNCTIONS, function, operator
from graphtorch.ops.cholesky_factors import first_bad_minor, linalg_cholesky
from graphtorch.ops.linalg import (
    LinAlgError,
    ResultTuple,
    adjoint,
    check_matrix,
    identity,
    inv,
    supported,
)
from graphtorch.ops.lu_factors import linalg_lu_factor_ex
from graphtorch.ops.matrix_functions import linalg_solve
from graphtorch.ops.record import sample
from graphtorch.tensor import dtypes
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType, type_of

_results = {
    "inv": ResultTuple("linalg_inv_ex", "inverse", "info"),
    "solve": ResultTuple("linalg_solve_ex", "result", "info"),
    "cholesky": ResultTuple("linalg_cholesky_ex", "L", "info"),
}


def _info_type(A: Any) -> TensorType:
    check_matrix("linalg.cholesky", A, square=True)
    return type_of(A).with_shape(tuple(A.shape[:-2])).with_dtype(dtypes.int32)


def _info_numpy(A: Any) -> Any:
    try:
        np.linalg.cholesky(A)
    except np.linalg.LinAlgError:
        flat = A.reshape(-1, *A.shape[-2:])
        return np.array([first_bad_minor(matrix) for matrix in flat], np.int32).reshape(A.shape[:-2])
    return np.zeros(A.shape[:-2], np.int32)


cholesky_info: Callable[..., Tensor] = operator(
    "linalg_cholesky_info(Tensor A)",
    type=_info_type,
    numpy=_info_numpy,
    samples=lambda make: [sample(make(2, 3, 3)), sample(make(0, 0))] if supported(make) else [],
    categories="fc",
    public=False,
    method=False,
    doc="The order of the first leading minor that is not positive-definite, 0 if all are.",
)


def _attempt(info: Any, A: Any, compute: Callable[[Any], Any], fail: Callable[[int], str], check_errors: bool) -> Any:
    """`compute(A)`, with NaN for the matrices that have info, for which it sees the identity."""
    if state.recorder is None:
        if not info.any():
            return compute(A)
        if check_errors:
            raise LinAlgError(fail(int(info.flatten()[info.flatten().nonzero()[0, 0]])))
    bad = (info != 0).unsqueeze(-1).unsqueeze(-1)
    where = FUNCTIONS["where"]
    return where(bad, float("nan"), compute(where(bad, identity(A.shape[-1], A), A)))


def _singular(name: str) -> Callable[[int], str]:
    return lambda order: (
        f"{name}: The diagonal element {order} is zero, the solve could not be completed because the input matrix is "
        "singular."
    )


@function()
def linalg_cholesky_ex(A: Tensor, *, upper: bool = False, check_errors: bool = False) -> Any:
    """The factor, and the order of the first leading minor that is not positive (0: none); NaN where there is none.

    Raises LinAlgError if `check_errors`. See torch.linalg.cholesky_ex.
    """
    check_matrix("linalg.cholesky", A, square=True)
    info = cholesky_info(adjoint(A.detach()) if upper else A.detach())

    def message(order: int) -> str:
        return (
            "linalg.cholesky_ex: The factorization could not be completed because the input is not positive-definite "
            f"(the leading minor of order {order} is not positive-definite)."
        )

    factor = _attempt(info, A, lambda m: linalg_cholesky(m, upper=upper), message, check_errors)
    return _results["cholesky"](factor, info)


@function()
def linalg_inv_ex(A: Tensor, *, check_errors: bool = False) -> Any:
    """The inverses, and the place of the first zero pivot (0: none); NaN where there is none.

    Raises LinAlgError if `check_errors`. See torch.linalg.inv_ex.
    """
    check_matrix("linalg.inv", A, square=True)
    info = linalg_lu_factor_ex(A.detach()).info
    return _results["inv"](_attempt(info, A, inv, _singular("linalg.inv_ex"), check_errors), info)


@function()
def linalg_solve_ex(A: Tensor, B: Tensor, *, left: bool = True, check_errors: bool = False) -> Any:
    """The solution, and the place of the first zero pivot (0: none); NaN where there is none.

    Raises LinAlgError if `check_errors`. See torch.linalg.solve_ex.
    """
    check_matrix("linalg.solve", A, square=True)
    info = linalg_lu_factor_ex(A.detach()).info
    if state.recorder is None and not info.any():
        return _results["solve"](linalg_solve(A, B, left=left), info)
    if state.recorder is None and check_errors:
        raise LinAlgError(_singular("linalg.solve_ex")(int(info.flatten()[info.flatten().nonzero()[0, 0]])))
    bad = (info != 0).unsqueeze(-1).unsqueeze(-1)
    where = FUNCTIONS["where"]
    solved = linalg_solve(where(bad, identity(A.shape[-1], A), A), B, left=left)
    if solved.ndim < A.ndim:
        bad = bad.squeeze(-1)
    return _results["solve"](where(bad, float("nan"), solved), info)
