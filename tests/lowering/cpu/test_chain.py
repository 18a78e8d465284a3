"""Launches that run chunk by chunk: which may, and that they compute the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch.ir.graph import TensorType, Value
from graphtorch.lowering.backend import get_backend
from graphtorch.lowering.cpu.chain import Member, at, find_chains, may_follow
from graphtorch.lowering.cpu.footprint import span_of
from graphtorch.lowering.cpu.function import Level, Span
from graphtorch.lowering.kernel import Buffer
from graphtorch.tensor import dtypes

if get_backend("cpu").unavailable():
    pytest.skip("no native code here", allow_module_level=True)


def buffer(name: str, *shape: int) -> Buffer:
    return Buffer(name, dtypes.float32, shape, "temporary", Value(TensorType(dtypes.float32, shape), name))


def member(step: int, extent: int, reads: dict[Any, Any], writes: dict[Any, Any], units: int = 1) -> Member:
    return Member(step, extent, 1 << 20, [Level(units, reads, writes)])


A, B, C = buffer("a", 64, 32), buffer("b", 64, 32), buffer("c", 64, 32)
ROWS = Span(32, 0, 32)


def test_spans_of_points():
    assert span_of(5, [(100, 7), (10, 10)], [(1, 10)]) == Span(10, 5, 15)
    assert span_of(0, [(1, 8)], [(8, 4)]) == Span(1, 0, 25)
    assert span_of(0, [(100, 7), (9, 10)], [(1, 9)]) is None  # not affine in the point's number
    assert span_of(3, [(-4, 5)], [(-1, 4)]) == Span(-4, 0, 4)


def test_rows_follow_rows():
    first, second = member(0, 64, {}, {A: ROWS}), member(1, 64, {A: ROWS}, {B: ROWS})
    assert may_follow([first], second, 64) and may_follow([first], second, 16)
    (chain,) = find_chains([first, second], 2)
    assert chain.steps == [0, 1]
    assert chain.groups == 64


def test_elements_follow_rows():
    first, second = member(0, 64, {}, {A: ROWS}), member(1, 2048, {A: Span(1, 0, 1)}, {B: Span(1, 0, 1)})
    assert may_follow([first], second, 64)
    assert not may_follow([first], second, 2048)  # rows can't be cut
    assert at(second, 64) == ({A: Span(32, 0, 32)}, {B: Span(32, 0, 32)})


@pytest.mark.parametrize(
    "touched", [Span(1, 0, 2017), Span(32, 16, 48), Span(32, -32, 32), Span(0, 0, 2048), Span(16, 0, 16), None]
)
def test_other_chunks_must_not_be_touched(touched: Span | None):
    """Columns, shifted rows, the row before too, everything, other rows, and what is not known."""
    first = member(0, 64, {}, {A: ROWS})
    assert not may_follow([first], member(1, 64, {A: touched}, {B: ROWS}), 64)
    assert not may_follow([first], member(1, 64, {}, {A: touched}), 64)
    reader = member(0, 64, {A: touched}, {C: ROWS})
    assert not may_follow([reader], member(1, 64, {}, {A: ROWS}), 64)


def test_what_does_not_hand_on_does_not_join():
    assert not find_chains([member(0, 64, {}, {A: ROWS}), member(1, 64, {C: ROWS}, {B: ROWS})], 2)
    assert not find_chains([member(0, 64, {}, {A: ROWS}), None, member(2, 64, {A: ROWS}, {B: ROWS})], 2)


def test_too_few_groups_for_the_threads():
    assert not find_chains([member(0, 64, {}, {A: ROWS}), member(1, 64, {A: ROWS}, {B: ROWS})], 64)


def attention(q: Any, k: Any, v: Any, mask: Any) -> Any:
    scores = (q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5
    return torch.softmax(scores.masked_fill(mask, float("-inf")), -1) @ v


def compiled_and_chains(function: Any, *given: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[list[str]]]:
    """The compiled function's results, and the chains of its program by operator (None: a kernel)."""
    from graphtorch.lowering.cpu import executable as module
    from graphtorch.lowering.cpu import translation

    made: list[Any] = []
    original = module.CpuExecutable.__init__

    def init(self: Any, *arguments: Any, **named: Any) -> None:
        original(self, *arguments, **named)
        made.append(self)

    monkeypatch.setattr(module.CpuExecutable, "__init__", init)
    monkeypatch.setattr(translation, "find_chains", lambda members, threads: find_chains(members, 2))  # on any machine
    result = torch.compile(function, backend="cpu")(*given)
    steps = [[type(e.schedule.steps[i]).__name__ for i in c.steps] for e in made for c in e.translation.chains]
    return result, steps


def test_attention_is_one_chain_forwards_and_backwards(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    given = [torch.from_numpy(rng.standard_normal((16, 64, 32)).astype(np.float32)) for _ in range(4)]
    mask = torch.ones(64, 64, dtype=torch.bool).triu(1)
    for t in given[:3]:
        t.requires_grad_(True)

    def step(q: Any, k: Any, v: Any, g: Any) -> Any:
        y = attention(q, k, v, mask)
        return (y, *torch.autograd.grad(y, (q, k, v), g))

    found, chains = compiled_and_chains(step, *given, monkeypatch=monkeypatch)
    assert any(c[:3] == ["ExternCall", "Kernel", "ExternCall"] for c in chains), chains  # forwards
    assert max(len(c) for c in chains) >= 4, chains
    for mine, expected in zip(found, step(*given), strict=True):
        np.testing.assert_allclose(mine.detach().numpy(), expected.detach().numpy(), rtol=2e-5, atol=2e-6)


def test_rows_and_columns_of_a_product(monkeypatch: pytest.MonkeyPatch):
    """A softmax of the product's rows joins it; a sum over its columns does not, and both are right."""
    rng = np.random.default_rng(1)
    x, w = (torch.from_numpy(rng.standard_normal(s).astype(np.float32)) for s in ((256, 64), (64, 96)))

    def rows(x: Any, w: Any) -> Any:
        return torch.softmax(x @ w, -1)

    found, chains = compiled_and_chains(rows, x, w, monkeypatch=monkeypatch)
    assert chains == [["ExternCall", "Kernel"]]
    np.testing.assert_allclose(found.numpy(), rows(x, w).numpy(), rtol=1e-5, atol=1e-6)
    monkeypatch.undo()

    def columns(x: Any, w: Any) -> Any:
        return torch.exp((x @ w) * 0.1).sum(0)

    found, chains = compiled_and_chains(columns, x, w, monkeypatch=monkeypatch)
    assert not chains
    np.testing.assert_allclose(found.numpy(), columns(x, w).numpy(), rtol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_scores_of_long_attention_are_nowhere_whole(causal: bool, monkeypatch: pytest.MonkeyPatch):
    """What only a chain's members touch lies on the stacks of its threads, a chunk of it at a time."""
    from graphtorch.lowering.cpu import executable as module
    from graphtorch.lowering.cpu import translation

    made: list[Any] = []
    original = module.CpuExecutable.__init__

    def init(self: Any, *arguments: Any, **named: Any) -> None:
        original(self, *arguments, **named)
        made.append(self)

    monkeypatch.setattr(module.CpuExecutable, "__init__", init)
    monkeypatch.setattr(translation, "find_chains", lambda members, threads: find_chains(members, 2))  # on any machine
    rng = np.random.default_rng(0)
    q, k, v = (torch.from_numpy(rng.standard_normal((2, 8, 512, 32)).astype(np.float32)) for _ in range(3))

    def f(q: Any, k: Any, v: Any) -> Any:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)

    np.testing.assert_allclose(torch.compile(f, backend="cpu")(q, k, v).numpy(), f(q, k, v).numpy(), atol=2e-6)
    scores = 2 * 8 * 512 * 512 * 4
    assert made[0].plan.arena_bytes < scores / 2


def test_private_memory_starts_where_the_chunk_does():
    """Offsets of views, and chunks behind the first: rows of a slice of a product, shifted and scaled."""
    rng = np.random.default_rng(2)
    x, w = (torch.from_numpy(rng.standard_normal(s).astype(np.float32)) for s in ((1024, 48), (48, 64)))

    def f(x: Any, w: Any) -> Any:
        y = torch.softmax(x @ w, -1)
        return torch.tanh(y * 3 + 1) @ w.t()

    for rows in (1024, 1000, 37):
        found = torch.compile(f, backend="cpu", dynamic=False)(x[:rows], w)
        np.testing.assert_allclose(found.numpy(), f(x[:rows], w).numpy(), rtol=2e-5, atol=1e-5)
