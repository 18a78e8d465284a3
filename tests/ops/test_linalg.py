"""torch.linalg beside PyTorch: what the records' generated tests can't see."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from against_torch import compare, same_error

import graphtorch

KINDS = [np.float64, np.complex128]


def matrix(*shape: int, kind: Any = np.float64, shift: float = 2.0, seed: int = 0) -> Any:
    random = np.random.default_rng(seed)
    made = random.normal(size=shape).astype(kind)
    if kind is np.complex128:
        made = made + 1j * random.normal(size=shape)
    k = min(shape[-2:])
    made[..., np.arange(k), np.arange(k)] += shift * (1 + np.arange(k))
    return made


def positive(t: Any, x: Any) -> Any:
    return x @ x.mH + t.eye(x.shape[-1], dtype=x.dtype)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(3, 3), (2, 4, 4), (1, 1)])
def test_square_functions(kind: Any, shape: Any) -> None:
    a = matrix(*shape, kind=kind)
    for name in ("inv", "det", "slogdet", "matrix_exp"):
        compare(lambda t, x, name=name: getattr(t.linalg, name)(x / 3), a)
    compare(lambda t, x: t.logdet(x), a, order=1)
    compare(lambda t, x: t.linalg.cholesky(positive(t, x)), a)
    compare(lambda t, x: t.linalg.cholesky(positive(t, x), upper=True), a)
    compare(lambda t, x: t.cholesky_inverse(t.linalg.cholesky(positive(t, x))), a)
    compare(lambda t, x: t.linalg.eigh(positive(t, x))[0], a)
    compare(lambda t, x: t.linalg.eigvalsh(positive(t, x), UPLO="U"), a)
    compare(lambda t, x: (lambda v: v.abs())(t.linalg.eigh(positive(t, x))[1]), a, order=1)
    compare(lambda t, x: t.linalg.pinv(x), a)
    compare(lambda t, x: t.linalg.pinv(positive(t, x), hermitian=True), a)
    compare(lambda t, x: t.linalg.svdvals(x), a)
    compare(lambda t, x: t.linalg.lu(x), a, order=1)
    compare(lambda t, x: t.linalg.cond(x), a, order=1)
    compare(lambda t, x: t.linalg.cond(x, "fro"), a, order=0)
    for n in (-2, 0, 1, 3, 5):
        compare(lambda t, x, n=n: t.linalg.matrix_power(x, n), a, order=1 if n else 0)


@pytest.mark.parametrize("kind", KINDS)
def test_eigenvalues_of_general_matrices(kind: Any) -> None:
    a = matrix(4, 4, kind=kind)
    compare(lambda t, x: t.linalg.eig(x)[0].abs().sort()[0], a, order=1, tolerance=1e-8)
    compare(lambda t, x: t.linalg.eig(x)[1].abs().sum(0).sort()[0], a, order=1, tolerance=1e-8)
    values, vectors = graphtorch.linalg.eig(graphtorch.from_numpy(a))
    np.testing.assert_allclose(a @ vectors.numpy(), vectors.numpy() * values.numpy(), atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(4, 2), (2, 4), (3, 3), (2, 3, 2)])
def test_rectangular_functions(kind: Any, shape: Any) -> None:
    a = matrix(*shape, kind=kind)
    # Functions of the factors that no choice of signs or phases changes.
    compare(lambda t, x: (lambda q, r: (q.abs(), r.abs()))(*t.linalg.qr(x)), a)
    compare(lambda t, x: (lambda u, s, vh: (u.abs(), s, vh.abs()))(*t.linalg.svd(x, full_matrices=False)), a)
    compare(lambda t, x: (lambda u, s, vh: u[..., :2] @ vh[..., :2, :])(*t.linalg.svd(x)), a, order=1)
    compare(lambda t, x: (lambda u, s, v: (u.abs(), s, v.abs()))(*t.svd(x)), a, order=1)
    compare(lambda t, x: t.linalg.pinv(x), a)
    compare(lambda t, x: t.linalg.lu(x), a, order=1)
    compare(lambda t, x: t.linalg.lu_factor(x), a, order=1)
    compare(lambda t, x: t.lu_unpack(*t.linalg.lu_factor(x)), a, order=1)
    compare(lambda t, x: t.linalg.matrix_rank(x), a, order=0)
    for mode in ("complete", "r"):
        compare(lambda t, x, mode=mode: t.linalg.qr(x, mode)[1], a, order=0)


@pytest.mark.parametrize("kind", KINDS)
def test_solvers(kind: Any) -> None:
    a, b = matrix(3, 3, kind=kind), matrix(3, 2, kind=kind, seed=1)
    batch, vectors = matrix(2, 3, 3, kind=kind), matrix(2, 3, kind=kind, seed=2)
    compare(lambda t, x, y: t.linalg.solve(x, y), a, b)
    compare(lambda t, x, y: t.linalg.solve(x, y.mT, left=False), a, b)
    compare(lambda t, x, y: t.linalg.solve(x, y), batch, vectors)
    compare(lambda t, x, y: t.linalg.solve(x, y), batch, b)
    compare(lambda t, x, y: t.linalg.solve(x, y[:, 0]), a, b)
    for upper in (True, False):
        for unit in (True, False):
            compare(
                lambda t, x, y, u=upper, n=unit: t.linalg.solve_triangular(x, y, upper=u, unitriangular=n), batch, b
            )
            compare(lambda t, x, y, u=upper: t.linalg.solve_triangular(x, y.mT, upper=u, left=False), a, b, order=1)
            compare(lambda t, x, y, u=upper, n=unit: t.triangular_solve(y, x, u, True, n), a, b, order=1)
        compare(lambda t, x, y, u=upper: t.cholesky_solve(y, t.linalg.cholesky(positive(t, x), upper=u), u), a, b)
    for left, adjoint in ((True, False), (True, True), (False, False), (False, True)):
        compare(
            lambda t, x, y, side=left, adj=adjoint: t.linalg.lu_solve(
                *t.linalg.lu_factor(x), y if side else y.mT, left=side, adjoint=adj
            ),
            a,
            b,
            order=1,
        )
    compare(lambda t, x, y: t.linalg.lstsq(x, y).solution, matrix(4, 2, kind=kind), matrix(4, 3, kind=kind, seed=3))
    compare(lambda t, x, y: t.linalg.lstsq(x, y, driver="gelsd"), matrix(4, 2), matrix(4, 3, seed=3), order=0)
    compare(lambda t, x: t.linalg.tensorinv(x.reshape(3, 1, 3), ind=1), a, order=1)
    compare(lambda t, x, y: t.linalg.tensorsolve(x.reshape(3, 1, 3), y[:, :1]), a, b, order=1)
    compare(lambda t, x, y: t.linalg.householder_product(x, y), matrix(4, 3, kind=kind), matrix(1, 2, kind=kind)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_norms(kind: Any) -> None:
    a = matrix(2, 3, 4, kind=kind)
    for ord in ("fro", "nuc", 1, -1, 2, -2, math.inf, -math.inf):
        compare(lambda t, x, o=ord: t.linalg.matrix_norm(x, o), a, order=1)
        compare(lambda t, x, o=ord: t.linalg.matrix_norm(x, o, dim=(0, 2), keepdim=True), a, order=1)
        compare(lambda t, x, o=ord: t.linalg.norm(x[0], o), a, order=1)
    for ord in (None, 0, 1, 2.5, math.inf):
        compare(lambda t, x, o=ord: t.linalg.norm(x, o, dim=1), a, order=1)
    compare(lambda t, x: t.linalg.norm(x), a)
    compare(lambda t, x: t.norm(x, "nuc", dim=(1, 2)), a, order=1)


def test_distances() -> None:
    a, b = matrix(2, 4, 3), matrix(2, 5, 3, seed=1)
    for p in (0.0, 1.0, 1.5, 2.0, 3.0, math.inf):
        compare(lambda t, x, y, p=p: t.cdist(x, y, p), a, b, order=1)
        compare(lambda t, x, p=p: t.pdist(x[0], p), a, order=1)
        compare(lambda t, x, y, p=p: t.dist(x[:, :1], y[:, :1], p), a, b, order=1 if p else 0)
    for p in (1.0, 2.0, math.inf):
        compare(lambda t, x, p=p: t.renorm(x, p, 1, 3.0), a, order=1)


@pytest.mark.parametrize("kind", KINDS)
def test_products_and_statistics(kind: Any) -> None:
    a, b = matrix(3, 4, kind=kind), matrix(4, 2, kind=kind, seed=1)
    compare(lambda t, x, y: t.linalg.multi_dot([x, y, y.mT, x.mT[:, 0]]), a, b)
    compare(lambda t, x: t.trace(x), a)
    compare(lambda t, x: t.cov(x), a)
    compare(lambda t, x: t.cov(x, correction=0, fweights=t.tensor([1, 2, 1, 3])), a)
    compare(lambda t, x: t.cov(x, aweights=t.tensor([0.5, 0.25, 1.0, 2.0], dtype=t.float64)), a)
    compare(lambda t, x: t.cov(x[0]), a)
    compare(lambda t, x: t.corrcoef(x), a, order=1)
    compare(lambda t, x: t.linalg.cross(x[:, :3], x[:1, 1:]), a)
    compare(lambda t, x: t.cross(x, x.flip(1), 0), a)
    compare(lambda t, x: t.linalg.vecdot(x, x + 1), a)
    compare(lambda t, x: t.linalg.vander(x, N=3), a, order=1)
    compare(lambda t, x: t.linalg.diagonal(x, offset=1), a)


@pytest.mark.parametrize("kind", KINDS)
def test_householder_reflections(kind: Any) -> None:
    a, left, right = matrix(4, 3, kind=kind), matrix(4, 2, kind=kind, seed=1), matrix(2, 4, kind=kind, seed=2)
    compare(lambda t, x: t.geqrf(x), a, order=0)
    for flip in (True, False):
        compare(lambda t, x, y, f=flip: t.ormqr(*t.geqrf(x), y, True, f), a, left, order=0)
        compare(lambda t, x, y, f=flip: t.ormqr(*t.geqrf(x), y, False, f), a, right, order=0)
        compare(lambda t, x, y, z, f=flip: t.ormqr(x, y[0], z, True, f), a, matrix(1, 3, kind=kind), left, order=1)


def test_gradient_of_a_singular_determinant() -> None:
    x = graphtorch.tensor([[1.0, 2.0], [2.0, 4.0]], dtype=graphtorch.float64, requires_grad=True)
    graphtorch.linalg.det(x).backward()
    np.testing.assert_allclose(x.grad.numpy(), [[4.0, -2.0], [-2.0, 1.0]], atol=1e-12)  # the cofactors


def test_errors() -> None:
    zero, wide = np.zeros((2, 2)), np.ones((2, 3))
    same_error(lambda t, x: t.linalg.inv(x), zero)
    same_error(lambda t, x: t.linalg.inv(x), wide)
    same_error(lambda t, x: t.linalg.inv(x), np.ones((2, 2), np.int64))
    same_error(lambda t, x: t.linalg.inv(x), np.ones((2, 2), np.float16))
    same_error(lambda t, x: t.linalg.inv(x), np.ones(2))
    same_error(lambda t, x: t.linalg.solve(x, t.ones(2, dtype=t.float64)), zero)
    same_error(lambda t, x: t.linalg.cholesky(x), np.array([[1.0, 2.0], [2.0, 1.0]]))
    same_error(lambda t, x: t.linalg.cholesky(x), np.stack([np.eye(2), -np.eye(2)]))
    same_error(lambda t, x: t.linalg.qr(x, "other"), wide)
    same_error(lambda t, x: t.linalg.matrix_norm(x, 3), wide)
    same_error(lambda t, x: t.linalg.cross(x, x, dim=0), wide)
    same_error(lambda t, x: t.linalg.matrix_power(x, 2), wide)
    assert issubclass(graphtorch.linalg.LinAlgError, RuntimeError)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("hermitian", [False, True])
def test_ldl(dtype: str, hermitian: bool) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(5)
    for n in (1, 2, 3, 5, 8):
        for _ in range(8):
            a = rng.normal(size=(2, n, n)) + (1j * rng.normal(size=(2, n, n)) if dtype == "complex128" else 0)
            a = a + (a.conj() if hermitian else a).swapaxes(-1, -2)
            b = rng.normal(size=(2, n, 3)).astype(a.dtype)
            mine = graphtorch.linalg.ldl_factor(graphtorch.from_numpy(a), hermitian=hermitian)
            theirs = torch.linalg.ldl_factor(torch.from_numpy(a), hermitian=hermitian)
            assert mine.pivots.tolist() == theirs.pivots.tolist()
            assert np.allclose(mine.LD.numpy(), theirs.LD.numpy()) and mine.LD.stride() == theirs.LD.stride()
            x = graphtorch.linalg.ldl_solve(*mine, graphtorch.from_numpy(b), hermitian=hermitian)
            assert np.allclose(a @ x.numpy(), b)
    singular = graphtorch.linalg.ldl_factor_ex(graphtorch.zeros(2, 2))
    assert singular.info.item() == 1 and singular.pivots.tolist() == [1, 2]
    with pytest.raises(RuntimeError, match="zero"):
        graphtorch.linalg.ldl_factor(graphtorch.zeros(2, 2))
