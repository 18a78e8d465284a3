"""`y[mask] = rows` with as many rows as the mask selects: one compilation for all counts, as replay buffers need it."""

from __future__ import annotations

from typing import Any

import pytest

import graphtorch as torch


def last_values(x: Any, mask: Any, rows: Any) -> Any:
    y = x * 2
    y[mask] = rows.square()
    return y


@pytest.mark.parametrize("backend", ["cpu", "numpy"])
@pytest.mark.parametrize("shape", [(9,), (9, 3)])
def test_one_program_serves_all_counts(backend: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    compiled = torch.compile(last_values, backend=backend)
    for count in (5, 6, 7, 4, 8, 3, 5):
        mask = torch.randperm(9) < count
        x, rows = torch.randn(shape), torch.randn(count, *shape[1:])
        assert compiled(x, mask, rows).equal(last_values(x, mask, rows))
    assert len(compiled.specializations) == 2 and compiled.eager_calls == 0
    with pytest.raises(RuntimeError, match="shape mismatch"):
        compiled(x, mask, torch.randn(6, *shape[1:]))
    for rows in (torch.randn(shape[1:]), torch.randn(1, *shape[1:])):
        assert compiled(x, mask, rows).equal(last_values(x, mask, rows))


@pytest.mark.parametrize("backend", ["cpu", "numpy"])
def test_gradients_flow_to_the_rows(backend: str) -> None:
    torch.manual_seed(0)
    compiled = torch.compile(last_values, backend=backend)
    for count in (2, 5, 3):
        mask = torch.randperm(6) < count
        x, rows = torch.randn(6, requires_grad=True), torch.randn(count, requires_grad=True)
        losses = [f(x, mask, rows).square().sum() for f in (last_values, compiled)]
        wanted, found = (torch.autograd.grad(loss, (x, rows)) for loss in losses)
        assert all(a.allclose(b) for a, b in zip(found, wanted, strict=True))


def test_errors_name_the_sizes_of_the_call() -> None:
    compiled = torch.compile(lambda x, w: x @ w)
    compiled(torch.ones(4, 3), torch.ones(3, 2))
    with pytest.raises(RuntimeError, match=r"cannot be multiplied \(5x4 and 3x2\)"):
        compiled(torch.ones(5, 4), torch.ones(3, 2))
    assert compiled(torch.ones(6, 3), torch.ones(3, 2)).shape == (6, 2)
    assert compiled(torch.ones(7, 3), torch.ones(3, 2)).shape == (7, 2)
    assert len(compiled.specializations) == 2
