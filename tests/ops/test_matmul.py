"""Matrix products, einsum and their gradients beside PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from beside_torch import check, check_error, normal

import graphtorch

SHAPES = [
    ((3,), (3,)),
    ((2, 3), (3,)),
    ((3,), (3, 4)),
    ((2, 3), (3, 4)),
    ((5, 2, 3), (3, 4)),
    ((5, 2, 3), (3,)),
    ((3,), (5, 3, 4)),
    ((2, 3), (5, 3, 4)),
    ((5, 2, 3), (5, 3, 4)),
    ((1, 2, 3), (5, 3, 4)),
    ((6, 1, 2, 3), (5, 3, 4)),
    ((2, 3, 2, 3), (2, 3, 3, 4)),
    ((0, 3), (3, 4)),
    ((2, 0), (0, 4)),
]


@pytest.mark.parametrize(("a", "b"), SHAPES, ids=str)
def test_matmul(a: Any, b: Any) -> None:
    check(lambda t, x, y: x @ y, normal(*a), normal(*b, seed=1), strides=False, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "int64", "int8", "complex64"])
def test_dtypes(dtype: str) -> None:
    def run(t: Any, x: Any, y: Any) -> Any:
        found = (x * 3).to(getattr(t, dtype)) @ (y * 3).to(getattr(t, dtype))
        return t.view_as_real(found) if found.is_complex() else found.float()

    # The longest sum of half-precision products differs by one rounding at most.
    half = dtype in ("float16", "bfloat16")
    check(run, normal(4, 5), normal(5, 3, seed=1), rtol=8e-3 if half else 1e-5, atol=1e-5, strides=False)


FORMS: dict[str, Any] = {
    "mm": lambda t, x, y: t.mm(x, y),
    "mv": lambda t, x, y: t.mv(x, y[:, 0]),
    "dot": lambda t, x, y: x[0].dot(y[:, 1]),
    "vdot": lambda t, x, y: t.vdot(x[0], y[:, 1]),
    "outer": lambda t, x, y: t.outer(x[0], y[0]),
    "inner": lambda t, x, y: t.inner(x, y.T),
    "kron": lambda t, x, y: t.kron(x, y),
    "bmm": lambda t, x, y: t.bmm(x.expand(2, 3, 4), y.expand(2, 4, 5)),
    "addmm": lambda t, x, y: t.addmm(y[0], x, y, beta=0.5, alpha=2),
    "addmm method": lambda t, x, y: (x @ y).addmm(x, y, beta=0),
    "addmv": lambda t, x, y: t.addmv(x[:, 0], x, y[:, 0], alpha=3),
    "addr": lambda t, x, y: t.addr(x @ y, x[:, 0], y[0], beta=2),
    "baddbmm": lambda t, x, y: t.baddbmm(y[0], x[None], y[None], alpha=-1),
    "addbmm": lambda t, x, y: t.addbmm(x @ y, x.expand(2, 3, 4), y.expand(2, 4, 5)),
    "linear": lambda t, x, y: t.nn.functional.linear(x, y.T, y[0]),
    "linear of batches": lambda t, x, y: t.nn.functional.linear(x.expand(2, 6, 3, 4), y.T),
    "linear of vector": lambda t, x, y: t.nn.functional.linear(x[0], y.T, y[0]),
    "tensordot": lambda t, x, y: t.tensordot(x, y, 1),
    "tensordot dims": lambda t, x, y: t.tensordot(x.expand(2, 3, 4), y.expand(3, 4, 5), dims=([2, 1], [1, 0])),
    "tensordot nothing": lambda t, x, y: t.tensordot(x, y, 0),
}


@pytest.mark.parametrize("name", FORMS)
def test_form(name: str) -> None:
    check(FORMS[name], normal(3, 4), normal(4, 5, seed=1), strides=False, rtol=1e-5, atol=1e-5)


EQUATIONS: dict[str, tuple[tuple[int, ...], ...]] = {
    "ij,jk->ik": ((2, 3), (3, 4)),
    "ij,jk": ((2, 3), (3, 4)),
    "ij,kj->ki": ((2, 3), (4, 3)),
    "ij->ji": ((2, 3),),
    "ij->": ((2, 3),),
    "ij->j": ((2, 3),),
    "ii->i": ((3, 3),),
    "ii": ((3, 3),),
    "i,j->ij": ((2,), (3,)),
    "i,i": ((3,), (3,)),
    "bij,bjk->bik": ((2, 3, 4), (2, 4, 5)),
    "bhqd,bhkd->bhqk": ((2, 2, 3, 4), (2, 2, 5, 4)),
    "bij,jk,bk->bi": ((2, 3, 4), (4, 5), (2, 5)),
    "...ij,...jk->...ik": ((2, 3, 4), (4, 5)),
    "...ij->...ji": ((2, 3, 4),),
    "i...->...": ((2, 3, 4),),
    "ij,ij->ij": ((2, 3), (2, 3)),
    "ij,ij->j": ((2, 3), (1, 3)),
    "abc,cd,bde->ae": ((2, 3, 4), (4, 5), (3, 5, 2)),
    "iij,jk->ki": ((3, 3, 2), (2, 4)),
    " i j , j k -> i k ": ((2, 3), (3, 4)),
    "ij,k->ik": ((2, 3), (4,)),
    "bn,anm,bm->ba": ((2, 3), (5, 3, 4), (2, 4)),
}


@pytest.mark.parametrize("equation", EQUATIONS)
def test_einsum(equation: str) -> None:
    operands = [normal(*shape, seed=i) for i, shape in enumerate(EQUATIONS[equation])]
    check(lambda t, *x: t.einsum(equation, *x), *operands, strides=False, rtol=1e-5, atol=1e-5)


ERRORS: dict[str, Any] = {
    "mm": lambda t, x: t.mm(x, x),
    "mm rank": lambda t, x: t.mm(x[0], x),
    "mm dtype": lambda t, x: t.mm(x, x.T.double()),
    "bool": lambda t, x: (x > 0) @ (x.T > 0),
    "bmm": lambda t, x: t.bmm(x[None], x[None]),
    "bmm rank": lambda t, x: t.bmm(x, x[None]),
    "dot sizes": lambda t, x: x[0].dot(x[:, 0]),
    "dot rank": lambda t, x: t.dot(x, x[0]),
    "mv": lambda t, x: x @ x[:, 0],
    "vector matrix": lambda t, x: x[0] @ x,
    "scalar": lambda t, x: t.tensor(1.0) @ x,
    "batches": lambda t, x: x.expand(2, 3, 4) @ x.T.expand(3, 4, 3),
    "addmm": lambda t, x: t.addmm(t.ones(5), x, x.T),
    "outer": lambda t, x: t.outer(x, x[0]),
    "linear": lambda t, x: t.nn.functional.linear(x, x.T),
    "linear bias": lambda t, x: t.nn.functional.linear(x, x, t.ones(7)),
    "einsum sizes": lambda t, x: t.einsum("ij,jk", x, x),
    "einsum operands": lambda t, x: t.einsum("ij,jk", x),
    "einsum rank": lambda t, x: t.einsum("ijk->k", x),
    "einsum output": lambda t, x: t.einsum("ij->k", x),
    "einsum repeated output": lambda t, x: t.einsum("ij->ii", x),
    "einsum subscript": lambda t, x: t.einsum("i1->i", x),
    "tensordot": lambda t, x: t.tensordot(x, x, 1),
}


@pytest.mark.parametrize("name", ERRORS)
def test_error(name: str) -> None:
    check_error(ERRORS[name], normal(3, 4))


def test_second_order_gradient_of_a_product() -> None:
    def run(t: Any, x: Any, y: Any) -> Any:
        if not x.requires_grad:
            return x @ y
        loss = (x @ y).pow(2).sum()
        return t.autograd.grad(loss, x, create_graph=True)[0]

    check(run, normal(3, 4), normal(4, 2, seed=1), strides=False, rtol=1e-4, atol=1e-4)


def test_linear_agrees_with_numpy() -> None:
    import graphtorch as gt

    x, w, b = normal(5, 3), normal(4, 3, seed=1), normal(4, seed=2)
    found = gt.nn.functional.linear(*(gt.from_numpy(a) for a in (x, w, b)))
    np.testing.assert_allclose(found.numpy(), x @ w.T + b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 0, 3, 0), (0, 3, 0), (0, 0), (2, 0, 5)])
def test_linear_without_elements(shape):
    x = graphtorch.ones(shape, requires_grad=True)
    w, b = graphtorch.ones(4, shape[-1], requires_grad=True), graphtorch.ones(4)
    result = graphtorch.nn.functional.linear(x, w, b)
    assert result.shape == (*shape[:-1], 4) and (result == (5 if shape[-1] == 5 else 1)).all()
    result.sum().backward()
    assert x.grad.shape == shape and w.grad.shape == w.shape
