"""The LDL factorisation of symmetric and Hermitian matrices, and solving with its factors.

Diagonal pivoting by blocks of one or two, by the method of J. Bunch and L. Kaufman, Some stable methods for calculating
inertia and solving symmetric linear systems, 1977; factors and pivots are stored as LAPACK's sytrf and hetrf do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphtorch.ops.build import function, operator
from graphtorch.ops.dispatch import _scalar_name
from graphtorch.ops.linalg import ResultTuple, adjoint, check_matrix, matrix_samples, supported, well_conditioned
from graphtorch.ops.pointwise import broadcast_shapes
from graphtorch.ops.record import sample
from graphtorch.tensor import dtypes
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType, type_of

_GROWTH = (1 + 17**0.5) / 8  # bounds the growth of elements under either kind of pivot


def _size(value: Any) -> Any:
    """The size by which pivots are chosen; LAPACK takes |re| + |im| for complex numbers."""
    return np.abs(value.real) + np.abs(value.imag)


def _swap(a: Any, k: int, other: int, turn: Callable[[Any], Any]) -> None:
    """Exchange rows and columns k < other of a matrix of which the lower triangle is stored, from column k on."""
    a[other + 1 :, [k, other]] = a[other + 1 :, [other, k]]
    between = a[k + 1 : other, k].copy()
    a[k + 1 : other, k] = turn(a[other, k + 1 : other])
    a[other, k + 1 : other] = turn(between)
    a[other, k] = turn(a[other, k])
    a[k, k], a[other, other] = a[other, other], a[k, k]


def _factor(a: Any, turn: Callable[[Any], Any]) -> tuple[Any, int]:
    """Factor one matrix in its own memory. Gives the pivots and the number of the first zero block, or 0."""
    n = len(a)
    pivots = np.zeros(n, np.int32)
    info = k = 0
    while k < n:
        below = _size(a[k + 1 :, k])
        own, largest = _size(a[k, k]), below.max(initial=0)
        step, pivot = 1, k
        if max(own, largest) == 0:
            info = info or k + 1
            pivots[k] = k + 1
            k += 1
            continue
        if own < _GROWTH * largest:
            at = k + 1 + int(below.argmax())
            row = max(_size(a[at, k:at]).max(initial=0), _size(a[at + 1 :, at]).max(initial=0))
            if own < _GROWTH * largest * (largest / row):
                pivot = at
                step = 1 if _size(a[at, at]) >= _GROWTH * row else 2
        last = k + step - 1
        if pivot != last:
            _swap(a, last, pivot, turn)
            if step == 2:
                a[[last, pivot], k] = a[[pivot, last], k]
        if step == 1:
            column = a[k + 1 :, k] / a[k, k]
            a[k + 1 :, k + 1 :] -= np.tril(np.outer(column, turn(a[k + 1 :, k])))
            a[k + 1 :, k] = column
            pivots[k] = pivot + 1
        else:
            block = _block(a, k, turn)
            columns = a[k + 2 :, k : k + 2].copy()
            solved = np.linalg.solve(block.T, columns.T).T
            a[k + 2 :, k + 2 :] -= np.tril(solved @ turn(columns).T)
            a[k + 2 :, k : k + 2] = solved
            pivots[k : k + 2] = -(pivot + 1)
        k += step
    return pivots, info


def _block(a: Any, k: int, turn: Callable[[Any], Any]) -> Any:
    """The diagonal block of two at k, of which the lower half is stored."""
    return np.array([[a[k, k], turn(a[k + 1, k])], [a[k + 1, k], a[k + 1, k + 1]]])


def _turn(hermitian: bool) -> Callable[[Any], Any]:
    return np.conj if hermitian else lambda value: value


def _factor_numpy(A: Any, hermitian: bool) -> tuple[Any, Any, Any]:
    LD = np.tril(A).copy()
    if hermitian and LD.dtype.kind == "c":
        diagonal = np.arange(A.shape[-1])
        LD[..., diagonal, diagonal] = LD[..., diagonal, diagonal].real
    pivots = np.zeros(A.shape[:-1], np.int32)
    info = np.zeros(A.shape[:-2], np.int32)
    for at in np.ndindex(A.shape[:-2]):
        pivots[at], info[at] = _factor(LD[at], _turn(hermitian))
    return LD, pivots, info


def _factor_type(A: Any, hermitian: bool) -> tuple[TensorType, TensorType, TensorType]:
    check_matrix("torch.linalg.ldl_factor_ex", A, square=True)
    own = type_of(A)
    integers = own.with_dtype(dtypes.int32)
    return own, integers.with_shape(A.shape[:-1]), integers.with_shape(A.shape[:-2])


ldl_factors = operator(
    "linalg_ldl_factors(Tensor A, bool hermitian=False) -> (LD, pivots, info)",
    order={"LD": "columns"},
    type=_factor_type,
    numpy=_factor_numpy,
    samples=matrix_samples((3, 3), (2, 4, 4)),
    categories="fc",
    public=False,
    method=False,
)


def _solve_one(LD: Any, pivots: Any, B: Any, turn: Callable[[Any], Any]) -> Any:
    x, n, k = B.copy(), len(LD), 0
    blocks: list[tuple[int, int]] = []
    while k < n:  # L D from the left
        step = 1 if pivots[k] > 0 else 2
        last, pivot = k + step - 1, abs(int(pivots[k])) - 1
        x[[last, pivot]] = x[[pivot, last]]
        x[k + step :] -= LD[k + step :, k : k + step] @ x[k : k + step]
        x[k : k + step] = x[k : k + 1] / LD[k, k] if step == 1 else np.linalg.solve(_block(LD, k, turn), x[k : k + 2])
        blocks.append((k, step))
        k += step
    for k, step in reversed(blocks):  # the transpose of L
        x[k : k + step] -= turn(LD[k + step :, k : k + step]).T @ x[k + step :]
        last, pivot = k + step - 1, abs(int(pivots[k])) - 1
        x[[last, pivot]] = x[[pivot, last]]
    return x


def _solve_numpy(LD: Any, pivots: Any, B: Any, hermitian: bool) -> Any:
    lead = np.broadcast_shapes(LD.shape[:-2], B.shape[:-2])
    LD = np.broadcast_to(LD, (*lead, *LD.shape[-2:]))
    pivots = np.broadcast_to(pivots, (*lead, pivots.shape[-1]))
    B = np.broadcast_to(B, (*lead, *B.shape[-2:]))
    found = np.empty(B.shape, B.dtype)
    for at in np.ndindex(lead):
        found[at] = _solve_one(LD[at], pivots[at], B[at], _turn(hermitian))
    return found


def _solve_type(LD: Any, pivots: Any, B: Any, hermitian: bool) -> TensorType:
    check_matrix("torch.linalg.ldl_solve", LD, square=True)
    if len(B.shape) < 2:
        raise IndexError("Dimension out of range (expected to be in range of [-1, 0], but got -2)")
    if B.shape[-2] != LD.shape[-1]:
        raise RuntimeError(
            f"Incompatible matrix sizes for torch.linalg.ldl_solve: each A matrix is {LD.shape[-1]} by {LD.shape[-1]} "
            f"but each b matrix is {B.shape[-2]} by {B.shape[-1]}"
        )
    if pivots.dtype.category != dtypes.INTEGRAL or tuple(pivots.shape) != tuple(LD.shape[:-1]):
        raise RuntimeError(
            f"torch.linalg.ldl_solve: Expected pivots to be integers of shape {list(LD.shape[:-1])}, but got "
            f"{_scalar_name(pivots.dtype)} of shape {list(pivots.shape)}"
        )
    if B.dtype is not LD.dtype:
        raise RuntimeError(
            f"Expected b and A to have the same dtype, but found b of type {_scalar_name(B.dtype)} and A of type "
            f"{_scalar_name(LD.dtype)} instead."
        )
    lead = broadcast_shapes(LD.shape[:-2], B.shape[:-2])
    return TensorType(B.dtype, (*lead, *B.shape[-2:]), B.device)


def _solve_formula(g: Any, LD: Any, pivots: Any, hermitian: bool) -> Any:
    # A is symmetric (or Hermitian): the adjoint solve is the same one, up to conjugation.
    if hermitian or not g.dtype.is_complex:
        return ldl_solve(LD, pivots, g, hermitian=hermitian)
    return ldl_solve(LD, pivots, g.conj(), hermitian=hermitian).conj()


def _solve_samples(make: Any) -> Any:
    for shape in ((3, 3), (2, 4, 4)) if supported(make) else ():
        A = well_conditioned(make, *shape).detach()
        LD, pivots, _ = ldl_factors(A + adjoint(A), True)
        yield sample(LD, pivots, make(*shape[:-1], 2), hermitian=True)


ldl_solve: Callable[..., Tensor] = operator(
    "linalg_ldl_solve(Tensor LD, Tensor pivots, Tensor B, *, bool hermitian=False)",
    order={"result": "columns"},
    type=_solve_type,
    numpy=_solve_numpy,
    derivative={"B": _solve_formula},
    samples=_solve_samples,
    categories="fc",
    method=False,
    out=True,
    doc="The solution X of A X = B for A in the form that `linalg.ldl_factor` gives.",
)

_factor_result = ResultTuple("linalg_ldl_factor", "LD", "pivots")
_factor_ex_result = ResultTuple("linalg_ldl_factor_ex", "LD", "pivots", "info")


@function()
def linalg_ldl_factor(A: Tensor, *, hermitian: bool = False) -> Any:
    """The compact LDL factors of symmetric (Hermitian) matrices, whose lower triangles are read, and the pivots.

    Shapes: A (..., n, n) to LD (..., n, n), pivots (..., n) of int32. Raises RuntimeError where D has a zero block.
    See torch.linalg.ldl_factor.
    """
    LD, pivots, info = ldl_factors(A, hermitian)
    _raise_for(info)
    return _factor_result(LD, pivots)


@function()
def linalg_ldl_factor_ex(A: Tensor, *, hermitian: bool = False, check_errors: bool = False) -> Any:
    """`ldl_factor` with the number of the first zero block of D, or 0, instead of an error. See
    torch.linalg.ldl_factor_ex.
    """
    LD, pivots, info = ldl_factors(A, hermitian)
    if check_errors:
        _raise_for(info)
    return _factor_ex_result(LD, pivots, info)


def _raise_for(info: Tensor) -> None:
    if info.is_meta or type(info._data) is not np.ndarray:
        return
    failed = np.flatnonzero(info._data)
    if failed.size:
        raise RuntimeError(f"torch.linalg.ldl_factor: block {int(info._data.ravel()[failed[0]])} of D is zero")
