"""Arguments as programs write them: sizes by name, PyTorch's other names, and NumPy's numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphtorch as torch


@pytest.mark.parametrize("make", [torch.zeros, torch.ones, torch.empty, torch.rand, torch.randn])
def test_sizes_by_name(make: Callable[..., Any]) -> None:
    assert make(size=(2, 3)).shape == (2, 3)
    assert make(size=[4], dtype=torch.float64).dtype is torch.float64
    with pytest.raises(TypeError):
        make(2, size=(3,))


def test_methods_take_sizes_by_name() -> None:
    x = torch.ones(2, 1)
    for method in (x.new_zeros, x.new_ones, x.new_empty):
        assert method(size=(3,)).shape == (3,)
    assert x.repeat(repeats=(2, 3)).shape == (4, 3)
    assert x.tile(dims=(1, 2)).shape == (2, 2)
    assert x.sum_to_size(size=(1, 1)).tolist() == [[2.0]]


def test_names_that_pytorch_also_has() -> None:
    x = torch.arange(12.0).reshape(4, 3)
    assert [len(p) for p in torch.tensor_split(x, sections=3)] == [2, 1, 1]
    assert [len(p) for p in x.tensor_split(indices=(1,), dim=0)] == [1, 3]
    assert torch.vsplit(x, sections=2)[1].equal(x[2:])
    assert torch.swapdims(x, dim0=0, dim1=1).equal(x.T)
    assert torch.det(input=torch.eye(2) * 2).item() == 4
    assert torch.inverse(input=torch.eye(2) * 2)[0, 0].item() == 0.5
    assert torch.tril_indices(2, 2, requires_grad=False).shape == (2, 3)
    drawn = torch.randint_like(x, low=1, high=3)
    assert drawn.min() >= 1 and drawn.max() < 3
    assert x.random_(5, to=6).unique().tolist() == [5]


NUMBERS = [np.float64(1.5), np.float32(1.5), np.float16(1.5), np.int64(2), np.uint8(2)]
USES: list[Callable[[Any, Any], Any]] = [
    lambda x, v: x / v,
    lambda x, v: v - x,
    lambda x, v: x**v,
    lambda x, v: x > v,
    lambda x, v: x.clamp(min=v),
    lambda x, v: torch.where(x > 1, x, v),
    lambda x, v: x.clone().mul_(v),
    lambda x, v: torch.add(x, x, alpha=v),
    lambda x, v: torch.float_power(x, v),
    lambda x, v: torch.xlogy(x, v),
    lambda x, v: torch.full((2,), v),
    lambda x, v: x.masked_fill(x > 1, v),
]


@pytest.mark.parametrize("number", NUMBERS, ids=lambda n: type(n).__name__)
@pytest.mark.parametrize("dims", [0, 1])
def test_numbers_of_numpy_are_numbers(number: Any, dims: int) -> None:
    x = torch.tensor([1.0, 2.0, 3.0][: dims * 3] or 2.0)
    for use in USES:
        found, wanted = use(x, number), use(x, number.item())
        assert found.dtype is wanted.dtype and found.equal(wanted)


def test_xlogy_has_the_dtype_of_its_tensor() -> None:
    x = torch.tensor([0.0, 2.0])
    assert torch.xlogy(x, 2.0).dtype is torch.float32
    assert torch.xlogy(x, 2.0).allclose(torch.tensor([0.0, 1.3862944]))
    assert torch.xlogy(2, x.half()).dtype is torch.float16


def test_a_loss_divided_by_a_number_of_numpy_compiles() -> None:
    w = torch.ones(3, requires_grad=True)

    def step(x: Any) -> Any:
        (gradient,) = torch.autograd.grad((w * x).sum() / np.log(2.0), w)
        return gradient

    x = torch.arange(3.0)
    assert torch.compile(step)(x).allclose(step(x))


def test_tensors_packed_and_unpacked() -> None:
    from graphtorch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

    given = [torch.arange(4.0).reshape(2, 2).T, torch.tensor(5.0), torch.empty(0)]
    flat = _flatten_dense_tensors(given)
    assert flat.tolist() == [0, 2, 1, 3, 5]
    assert all(a.equal(b) for a, b in zip(_unflatten_dense_tensors(flat, given), given, strict=True))
