"""Sparse matrices given to the package's ordinary functions, and objects that answer operators themselves."""

from __future__ import annotations

from typing import Any

import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch.nn import functional as F


def matrix(requires_grad: bool = False) -> Any:
    places = torch.tensor([[0, 1, 1], [2, 0, 2]])
    return torch.sparse_coo_tensor(places, torch.tensor([3.0, 4.0, 5.0]), (2, 3), requires_grad=requires_grad)


DENSE = torch.arange(6.0).reshape(3, 2)


@pytest.mark.parametrize(
    "use",
    [
        lambda s: torch.mm(s, DENSE),
        lambda s: torch.matmul(s, DENSE),
        lambda s: torch.mv(s, DENSE[:, 1]),
        lambda s: torch.addmm(torch.ones(2, 2), s, DENSE, beta=2, alpha=3),
        lambda s: F.linear(DENSE.t(), s),
        lambda s: torch.sum(s),
        lambda s: torch.add(DENSE.reshape(2, 3), s, alpha=2),
        lambda s: torch.sub(s, DENSE.reshape(2, 3)),
        lambda s: torch.mul(s, 2),
        lambda s: torch.tanh(s),
        lambda s: torch.pow(s, 2),
        lambda s: torch.cat([s, s], 1),
        lambda s: torch.transpose(s, 0, 1),
        lambda s: s.index_select(1, torch.tensor([2, 0, 2])),
        lambda s: s * s,
        lambda s: s + s,
        lambda s: s.T,
    ],
)
def test_functions_take_sparse_operands(use: Any) -> None:
    found, wanted = use(matrix()), use(matrix().to_dense())
    found = found if isinstance(found, torch.Tensor) else found.to_dense()
    assert found.allclose(wanted)


def test_what_has_no_sparse_form_says_so() -> None:
    with pytest.raises(NotImplementedError, match=r"softmax.*sparse"):
        torch.softmax(matrix(), 0)
    with pytest.raises(RuntimeError, match="differ outside of dimension 0"):
        torch.cat([matrix(), matrix().t()])


def test_the_text_is_pytorchs() -> None:
    lines = repr(matrix()).split("\n")
    assert lines[0] == "tensor(indices=tensor([[0, 1, 1],"
    assert lines[1] == " " * 23 + "[2, 0, 2]]),"
    assert lines[2] == "       values=tensor([3., 4., 5.]),"


def test_older_constructors() -> None:
    made = torch.sparse.DoubleTensor(torch.tensor([[0], [1]]), torch.tensor([2]), torch.Size([2, 2]))
    assert made.dtype is torch.float64 and made.layout is torch.sparse_coo
    assert made.to_dense().tolist() == [[0.0, 2.0], [0.0, 0.0]]


@pytest.mark.parametrize("backend", ["cpu", "numpy"])
def test_a_step_of_a_graph_network_compiles(backend: str) -> None:
    adjacency = matrix().t().coalesce()
    states = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = nn.Linear(2, 2)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)

        def step(x: Any, edges: Any, model: Any = model, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad()
            loss = torch.mm(edges, torch.relu(torch.mm(x, model.weight))).square().mean()
            loss.backward()
            optimizer.step()
            return loss

        run = torch.compile(step, backend=backend, fullgraph=True) if compiled else step
        losses = [run(torch.eye(2), adjacency).item() for _ in range(3)]
        states.append((losses, model.weight.detach()))
    assert states[0][0] == pytest.approx(states[1][0])
    assert states[0][1].allclose(states[1][1])


class Scaled:
    """Something like a tensor: a value times a scale, which only `mul` and `mm` know."""

    def __init__(self, value: Any) -> None:
        self.value = value

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function not in (torch.mul, torch.mm):
            return NotImplemented
        return function(*(2 * a.value if isinstance(a, Scaled) else a for a in args), **(kwargs or {}))


def test_operators_ask_objects_that_are_no_tensors() -> None:
    x = torch.eye(2)
    assert torch.mul(x, Scaled(x)).equal(2 * x)
    assert torch.mm(Scaled(x), x).equal(2 * x)
    with pytest.raises(TypeError, match=r"no implementation found for .graphtorch\.sin"):
        torch.sin(Scaled(x))
    with pytest.raises(TypeError, match="must be Tensor, not str"):
        torch.sin("x")
