"""Calls as programs write them on a device, eager and compiled there, beside eager execution on the CPU: operands on
the host among those on the device, copies between both, questions about memory."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphtorch as torch

pytestmark = pytest.mark.usefixtures("cuda")

ROWS = torch.tensor([0, 2])
FIVE = torch.tensor(5.0)
MASK = torch.tensor([True, False, True])

# Functions of a matrix of three rows and columns; some change it.
CALLS: dict[str, Callable[[torch.Tensor], Any]] = {
    "index": lambda x: x[ROWS],
    "index twice": lambda x: x[ROWS, ROWS],
    "index numpy": lambda x: x[np.array([0, 2])],
    "index mask": lambda x: x[MASK],
    "index number": lambda x: x[torch.tensor(-1)],
    "index_put": lambda x: x.index_put_((ROWS,), FIVE),
    "index_put mask": lambda x: x.index_put((MASK,), FIVE),
    "index_put on both sides": lambda x: x.index_put((ROWS.to(x.device), ROWS), FIVE, True),
    "set index": lambda x: x.__setitem__(ROWS, FIVE),
    "set mask": lambda x: x.__setitem__(MASK, FIVE),
    "set row": lambda x: x.__setitem__(0, torch.ones(3)),
    "set numpy": lambda x: x.__setitem__(0, np.ones(3, np.float32)),
    "copy": lambda x: x.copy_(torch.ones(3)),
    "copy to a view": lambda x: x[1].copy_(torch.ones(3)),
    "copy to the host": lambda x: torch.zeros(3, 3).copy_(x),
    "number first": lambda x: FIVE / x.sum(),
    "number of a choice": lambda x: torch.where(x.sum() > 0, FIVE, x.sum()),
    "numbers of three": lambda x: torch.addcmul(FIVE, x.sum(), x.max()),
    "number to a power": lambda x: FIVE ** x.mean(),
    "largest": lambda x: torch.maximum(FIVE, x.max()),
    "full": lambda x: x.new_full((2,), FIVE),
    "rank": lambda x: torch.linalg.matrix_rank(x),
    "eigenvalues": lambda x: torch.linalg.eigvals(x @ x.T).abs().sort()[0],
    "gradient of eigenvalues": lambda x: torch.func.grad(lambda y: torch.linalg.eigvals(y).abs().sum())(x),
    "resize": lambda x: x.clone().resize_(9),
    "resize an argument": lambda x: x.resize_(2, 3),
    "set_": lambda x: torch.empty_like(x).set_(x) + 1,
    "deepcopy": lambda x: copy.deepcopy(x),
    "pickle": lambda x: pickle.loads(pickle.dumps(x.clone())),
    "save": lambda x: torch.save(x * 2, io.BytesIO()),
    "address": lambda x: x.data_ptr() != 0 and (x * 2).data_ptr() != 0,
    "storage": lambda x: (x * 2)[1:].untyped_storage().nbytes(),
    "storages": lambda x: x.untyped_storage().data_ptr() == (x * 2).untyped_storage().data_ptr(),
    "offset": lambda x: (x * 2)[1:].storage_offset(),
    "strided": lambda x: x[1:].as_strided((2,), (1,), 0),
    "diagonal": lambda x: x[1:].fill_diagonal_(7.0),
    "stream": lambda x: x.record_stream(torch.cuda.current_stream()) if x.is_cuda else None,
}


def tensors_of(result: Any) -> list[torch.Tensor]:
    if isinstance(result, torch.Tensor):
        return [result]
    return [t for part in result for t in tensors_of(part)] if isinstance(result, list | tuple) else []


def seen(function: Callable[[torch.Tensor], Any], device: str) -> tuple[Any, list[str]]:
    """The result and what became of the operand, and where each tensor of the result lies."""
    x = (torch.arange(9.0) - 3).reshape(3, 3).to(device)
    result = function(x)
    found = tensors_of(result)
    values = [np.round(t.detach().cpu().numpy(), 3).tolist() for t in [*found, x]]
    return (values, None if found else result), [t.device.type for t in found]


@pytest.mark.parametrize("name", CALLS)
def test_calls_give_what_the_cpu_gives(name: str) -> None:
    call = CALLS[name]
    expected, _ = seen(call, "cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of functions that run eagerly, and of operators that run on the host
        eager, compiled = seen(call, "cuda"), seen(torch.compile(call), "cuda")
        assert seen(torch.compile(call), "cpu")[0] == expected
    assert eager[0] == expected
    assert compiled == eager
    assert set(eager[1]) <= ({"cpu"} if name == "copy to the host" else {"cuda"})


def test_a_view_that_a_compiled_function_gets_is_filled_along_its_own_diagonal() -> None:
    for device in ("cpu", "cuda"):
        x, y = torch.zeros(9, 3, device=device), torch.zeros(9, 3, device=device)
        torch.compile(lambda t: t[1:].fill_diagonal_(7.0, wrap=True), fullgraph=True)(x[1:])
        y[2:].fill_diagonal_(7.0, wrap=True)
        assert torch.equal(x, y)


def test_out_of_a_compiled_function_may_be_other_memory() -> None:
    """`gather` refuses its operand's memory as `out`; two tensors that are recorded have different memory."""

    def step(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        torch.gather(x, 0, torch.zeros_like(x, dtype=torch.int64), out=out)
        return out

    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert torch.compile(step)(x).tolist() == [[1.0, 2.0], [1.0, 2.0]]
    with pytest.raises(RuntimeError):
        torch.compile(lambda x: torch.gather(x, 0, torch.zeros_like(x, dtype=torch.int64), out=x))(x)


@pytest.mark.parametrize(
    "select",
    [
        lambda z, rows, mask: z.masked_select(mask),
        lambda z, rows, mask: z[rows],
        lambda z, rows, mask: z.index_select(1, rows),
        lambda z, rows, mask: z.gather(0, rows.expand(2, 2)),
        lambda z, rows, mask: z.index_add(0, rows, z[1:].conj()),
        lambda z, rows, mask: z.flatten().index_put((rows,), z[0, :2], True),
        lambda z, rows, mask: z.cumsum(0).prod(1),
    ],
)
def test_gradients_of_complex_selections(select: Callable[..., torch.Tensor]) -> None:
    """Complex numbers are worked on by the host, in the steps that the schedule cuts the operators into."""
    real = torch.arange(9.0).reshape(3, 3)
    z, rows = torch.complex(real.cos(), real.sin() + 1), torch.tensor([2, 0])
    mask = real % 2 == 0

    def step(z: torch.Tensor, rows: torch.Tensor, mask: torch.Tensor) -> Any:
        z = z.detach().requires_grad_()
        made = select(z, rows, mask)
        (slope,) = torch.autograd.grad((made * made.detach()).abs().sum(), z)
        return torch.view_as_real(made.detach()), torch.view_as_real(slope)

    expected = step(z, rows, mask)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for function in (step, torch.compile(step)):
            for found, wanted in zip(function(z.cuda(), rows.cuda(), mask.cuda()), expected, strict=True):
                assert found.is_cuda
                torch.testing.assert_close(found.cpu(), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 6, 3), (2, 6, 3), (1, 8, 5, 4), (1, 64, 40)])
@pytest.mark.parametrize("of", [torch.float32, torch.float64])
def test_a_compiled_group_norm_and_its_gradients(shape: tuple[int, ...], of: torch.dtype) -> None:
    torch.manual_seed(0)
    norm = torch.nn.GroupNorm(2, shape[1])
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter)
    x, weights = torch.randn(shape), torch.randn(shape, dtype=of)

    def step(x: torch.Tensor, weights: torch.Tensor) -> list[torch.Tensor]:
        y = norm(x)
        return [y, *torch.autograd.grad(y, (x, *norm.parameters()), weights.to(y.dtype))]

    expected = step(x.clone().requires_grad_(), weights)
    norm.cuda()
    found = torch.compile(step)(x.cuda().requires_grad_(), weights.cuda())
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-4, atol=1e-4)
