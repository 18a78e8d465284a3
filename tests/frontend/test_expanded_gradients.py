"""Gradients of sums are expanded tensors: who writes to a part of one writes to all of it, or is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import graphtorch as torch

WRITES: dict[str, tuple[Callable[[Any], Any], bool]] = {
    "nothing": (lambda v: None, True),
    "whole": (lambda v: v.fill_(3.0), True),
    "zero": (lambda v: v.zero_(), True),
    "one element": (lambda v: v.__setitem__((0, 1), 3.0), True),
    "row": (lambda v: v.__setitem__(0, 3.0), False),
    "slice": (lambda v: v.__setitem__(slice(0, 1), 3.0), False),
    "tensor and slice": (lambda v: v.__setitem__((torch.tensor(0), slice(1, None)), 3.0), False),
    "row of a tensor": (lambda v: v.__setitem__(0, torch.arange(3.0)), False),
    "list": (lambda v: v.__setitem__([0, 1], 3.0), False),
    "mask": (lambda v: v.__setitem__(torch.eye(3) > 0, 3.0), False),
    "sigmoid": (lambda v: v.sigmoid_(), False),
    "copy": (lambda v: v.copy_(torch.ones(3, 3)), False),
    "part": (lambda v: v[1:].mul_(2), False),
}


@pytest.mark.filterwarnings("ignore:.*runs eagerly")
@pytest.mark.parametrize("backend", [None, "numpy"])
@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("name", WRITES)
def test_writes(name: str, create_graph: bool, backend: str | None):
    write, allowed = WRITES[name]
    p = torch.ones(3, 3, requires_grad=True)

    def f() -> Any:
        (v,) = torch.autograd.grad(p.sum() * 2, [p], create_graph=create_graph)
        with torch.no_grad():
            write(v)
        return v

    run = f if backend is None else torch.compile(f, backend=backend)
    if not allowed:
        with pytest.raises(RuntimeError, match="more than one element of the written-to tensor"):
            run()
        return
    found = run()
    value = {"nothing": 2.0, "zero": 0.0}.get(name, 3.0)
    assert found.stride() == (0, 0) and found.tolist() == [[value] * 3] * 3


@pytest.mark.parametrize("create_graph", [False, True])
def test_layouts_of_gradients(create_graph: bool):
    """Expanded, transposed or plain: as in eager execution."""
    p = torch.ones(3, 4, requires_grad=True)
    cases: list[Callable[[Any], Any]] = [
        lambda p: p.sum(), lambda p: p.mean(), lambda p: p.sum(0).sum(), lambda p: (p.t() * 2).sum(),
        lambda p: (p * p).sum(), lambda p: p.t().contiguous().square().sum(), lambda p: p[0].sum(),
        lambda p: p.exp().sum(1)[0],
    ]  # fmt: skip
    for case in cases:

        def f(case: Any = case) -> Any:
            return torch.autograd.grad(case(p), [p], create_graph=create_graph)[0]

        eager, compiled = f(), torch.compile(f, backend="numpy")()
        assert compiled.stride() == eager.stride() and torch.equal(compiled, eager)
