"""Code for derivative formulas and compositions of small operands: the numbers, layouts and errors of the operators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch.autograd import replay
from graphtorch.nn import functional as F

Program = Callable[..., Any]

PROGRAMS: dict[str, tuple[Program, list[tuple[int, ...]]]] = {
    "relu": (torch.relu, [(3, 4)]),
    "softmax": (lambda x: torch.softmax(x, -1), [(3, 4)]),
    "product with broadcasting": (lambda x, y: x * y, [(3, 4), (4,)]),
    "quotient": (lambda x, y: x / (y * y + 1), [(3, 4), (3, 1)]),
    "matrix product": (lambda x, y: x @ y, [(3, 4), (4, 5)]),
    "product with a transpose": (lambda x, y: x @ y.t(), [(3, 4), (5, 4)]),
    "linear": (F.linear, [(3, 4), (5, 4), (5,)]),
    "sum": (lambda x: x.sum(1), [(3, 4)]),
    "variance": (lambda x: x.var(0), [(3, 4)]),
    "concatenation": (lambda x, y: torch.cat([x, y], 1), [(3, 4), (3, 2)]),
    "layer_norm": (lambda x, w, b: F.layer_norm(x, (4,), w, b), [(3, 4), (4,), (4,)]),
    "group_norm": (lambda x, w, b: F.group_norm(x, 2, w, b), [(3, 4, 5), (4,), (4,)]),
    "instance_norm": (F.instance_norm, [(3, 4, 5)]),
    "batch_norm": (lambda x, w, b: F.batch_norm(x, None, None, w, b, True), [(3, 4, 5), (4,), (4,)]),
    "rms_norm": (lambda x, w: F.rms_norm(x, (4,), w), [(3, 4), (4,)]),
    "attention": (F.scaled_dot_product_attention, [(2, 3, 4), (2, 5, 4), (2, 5, 4)]),
    "causal attention": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        [(2, 5, 4), (2, 5, 4), (2, 5, 4)],
    ),
    "grid_sample": (lambda x, g: F.grid_sample(x, g.tanh(), align_corners=False), [(2, 3, 5, 4), (2, 3, 3, 2)]),
    "interpolate": (lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear"), [(2, 3, 5, 4)]),
    "reflected": (lambda x: F.pad(x, (1, 2, 0, 1), mode="reflect"), [(2, 3, 4, 5)]),
    "wrapped around": (lambda x: F.pad(x, (1, 2), mode="circular"), [(2, 3, 4)]),
    "unfold": (lambda x: F.unfold(x, 2, padding=1), [(2, 3, 4, 5)]),
    "unfold that is a view": (lambda x: F.unfold(x, 1), [(2, 3, 4, 5)]),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), [(2, 4, 3, 2)]),
    "glu": (F.glu, [(3, 4)]),
    "softshrink": (F.softshrink, [(3, 4)]),
    "cosine_similarity": (F.cosine_similarity, [(3, 4), (3, 4)]),
    "cross_entropy": (lambda x: F.cross_entropy(x, torch.tensor([0, 3, 1])), [(3, 4)]),
    "residual": (lambda x, w: x + F.group_norm(x * 2.0, 2, w), [(3, 4, 5), (4,)]),
    "same operand twice": (lambda x: x * x, [(3, 4)]),
    "strided": (lambda x: F.group_norm(x.transpose(1, 2), 2) * 3.0, [(3, 5, 4)]),
}


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Empty knowledge; for each signature that got as far, whether it has code."""
    found: list[bool] = []
    whole = replay._written

    def noting(*args: Any) -> Any:
        made = whole(*args)
        found.append(made is not None)
        return made

    monkeypatch.setattr(replay, "_codes", {})
    monkeypatch.setattr(replay, "_written", noting)
    yield found


def leaves(shapes: list[tuple[int, ...]], d: Any = torch.float32) -> list[Any]:
    random = np.random.default_rng(0)
    return [torch.tensor(random.standard_normal(s)).to(d).requires_grad_() for s in shapes]


def outcome(program: Program, operands: list[Any]) -> list[Any]:
    """The result and the gradients: bytes, strides, and the name of the last node."""
    result = program(*operands)
    seed = torch.linspace(-1.0, 2.0, result.numel()).reshape(result.shape).to(result.dtype)
    found = [result.detach(), *torch.autograd.grad(result, operands, seed)]
    return [*((t.contiguous()._data.tobytes(), t.stride()) for t in found), result.grad_fn.name()]


@pytest.mark.parametrize("d", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", PROGRAMS)
def test_every_call_gives_the_same(name: str, d: Any, written: list[bool]) -> None:
    program, shapes = PROGRAMS[name]
    operands = leaves(shapes, d)
    first = outcome(program, operands)
    for _ in range(replay.CALLS + 3):
        assert outcome(program, operands) == first
    assert any(written)


def test_numbers_are_those_without_code(written: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """A training step with norms, attention and a loss, beside one for which no code is ever written."""

    def losses() -> list[float]:
        torch.manual_seed(0)
        layer = torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-2)
        x, target = torch.randn(2, 5, 8), torch.randn(2, 5, 8)
        found = []
        for _ in range(18):
            optimizer.zero_grad()
            loss = F.mse_loss(layer(x), target)
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        return found

    ours = losses()
    assert any(written)
    monkeypatch.setattr(replay, "CALLS", 1 << 30)
    monkeypatch.setattr(replay, "OF_COMPOSITIONS", 1 << 30)
    monkeypatch.setattr(replay, "_codes", {})
    assert losses() == ours


def test_code_that_differs_is_not_used(written: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "_is_same", lambda a, b: False)
    x = leaves([(3, 4)])[0]
    for _ in range(replay.CALLS + 3):
        torch.autograd.grad(torch.softmax(x, -1).square().sum(), x)
    assert written and not any(written)
    assert all(code is None or type(code) is int for code in replay._codes.values())


def repeated(call: Callable[[], Any]) -> Any:
    """The last of so many calls that code is used."""
    for _ in range(replay.CALLS + 2):
        result = call()
    return result


def test_changed_operands_are_noticed(written: list[bool]) -> None:
    def call() -> None:
        x, w = leaves([(3, 4, 5), (4,)])
        y = x * 2.0
        result = F.group_norm(y, 2, w)
        y.mul_(2.0)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            result.sum().backward()

    x, w = leaves([(3, 4, 5), (4,)])
    repeated(lambda: F.group_norm(x * 2.0, 2, w).sum().backward())
    repeated(call)


def test_second_derivatives(written: list[bool]) -> None:
    def call() -> list[Any]:
        x, w = leaves([(3, 4, 5), (4,)], torch.float64)
        (first,) = torch.autograd.grad((F.group_norm(x, 2, w) ** 3).sum(), x, create_graph=True)
        return [g.numpy() for g in torch.autograd.grad((first * x).sum(), [x, w])]

    expected = call()
    for ours, theirs in zip(repeated(call), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_a_graph_that_is_kept_runs_again(written: list[bool]) -> None:
    x, w = leaves([(3, 4, 5), (4,)])

    def call() -> None:
        loss = (F.group_norm(x, 2, w) ** 2).sum()
        first = torch.autograd.grad(loss, [x, w], retain_graph=True)
        second = torch.autograd.grad(loss, [x, w])
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
        with pytest.raises(RuntimeError, match="backward through the graph a second time"):
            torch.autograd.grad(loss, [x, w])

    repeated(call)


def test_hooks_of_saved_tensors_are_called_as_often(written: list[bool]) -> None:
    x, w = leaves([(3, 4, 5), (4,)])
    counts = []

    def call() -> None:
        kept: list[Any] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
            result = F.group_norm(x, 2, w)
        result.sum().backward()
        counts.append(len(kept))

    repeated(call)
    assert len(set(counts)) == 1


def test_changing_a_result_does_not_change_gradients(written: list[bool]) -> None:
    """Either the change is refused or the gradients are those of the forward pass."""
    x, w = leaves([(3, 4, 5), (4,)])
    expected = torch.autograd.grad(F.group_norm(x, 2, w), x, torch.ones(3, 4, 5))[0]

    def call() -> None:
        result = F.group_norm(x, 2, w)
        result.detach().mul_(0.0)
        assert torch.equal(torch.autograd.grad(result, x, torch.ones(3, 4, 5))[0], expected)

    repeated(call)


def test_gradients_that_show_a_cotangent_share_its_memory(written: list[bool]) -> None:
    x = leaves([(3, 4)])[0]
    seed = torch.ones(3)

    def call() -> Any:
        return torch.autograd.grad(x.sum(1), x, seed)[0]

    before, after = call(), repeated(call)
    assert before.stride() == after.stride() == (1, 0)
    assert before.data_ptr() == after.data_ptr() == seed.data_ptr()
    version = after._version
    seed.mul_(2.0)
    assert after._version == version + 1


def test_gradients_of_two_operands_are_apart(written: list[bool]) -> None:
    a, b = leaves([(3, 4), (3, 4)])
    first, second = repeated(lambda: torch.autograd.grad((a * 2.0).mul(b * 2.0), [a, b], torch.ones(3, 4)))
    held = second.clone()
    first.zero_()
    assert torch.equal(second, held)


def test_attributes_of_equal_hash_are_told_apart(written: list[bool]) -> None:
    x = leaves([(3, 4)])[0]
    for exponent in (2, 2.0, 3, 3.0, 0.0, -0.0):
        repeated(lambda e=exponent: torch.autograd.grad((x * x + 1) ** e, x, torch.ones(3, 4)))
    made = [torch.autograd.grad((x * x + 1) ** e, x, torch.ones(3, 4))[0] for e in (2, 3, 0.0)]
    base = (x * x + 1).detach()
    np.testing.assert_allclose(made[0].numpy(), (4 * x.detach() * base).numpy(), rtol=1e-5)
    np.testing.assert_allclose(made[1].numpy(), (6 * x.detach() * base**2).numpy(), rtol=1e-5)
    assert not made[2].any()


def test_transforms_see_operators(written: list[bool]) -> None:
    """vmap and forward-mode derivatives after code exists."""
    x, w = leaves([(3, 4, 5), (4,)])
    repeated(lambda: F.group_norm(x, 2, w).sum().backward())
    mapped = torch.vmap(lambda row: F.group_norm(row[None], 2, w)[0])(x)
    np.testing.assert_allclose(mapped.detach().numpy(), F.group_norm(x, 2, w).detach().numpy(), rtol=1e-5, atol=1e-6)
    primal, tangent = torch.func.jvp(lambda t: F.group_norm(t, 2), (x.detach(),), (torch.ones(3, 4, 5),))
    np.testing.assert_allclose(tangent.numpy(), np.zeros((3, 4, 5)), atol=1e-5)
    assert primal.shape == (3, 4, 5)


def test_dual_tensors_keep_their_tangents(written: list[bool]) -> None:
    x, w = (t.detach() for t in leaves([(3, 4, 5), (4,)]))
    forward = torch.autograd.forward_ad

    def tangent() -> Any:
        with forward.dual_level():
            dual = forward.make_dual(x, torch.ones(3, 4, 5))
            return forward.unpack_dual(F.group_norm(dual * dual, 2, w)).tangent

    before = tangent()
    repeated(lambda: F.group_norm(x * x, 2, w))
    assert any(written)
    np.testing.assert_allclose(tangent().numpy(), before.numpy(), rtol=1e-5, atol=1e-6)
