"""Compositions that run in one piece, natively or as NumPy code, beside the operators that they are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch.autograd import compositions
from graphtorch.autograd.compositions import CompositionNode
from graphtorch.nn import functional as F
from graphtorch.ops import native

TOLERANCE = {"float32": 2e-6, "float64": 1e-12, "bfloat16": 2e-2}

Call = Callable[[], list[Any]]


def by_operators(call: Call, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    with monkeypatch.context() as patch:
        patch.setattr(compositions, "_by_kernels", lambda *args: None)
        patch.setattr(native.switch, "on", False)
        return call()


def compare(call: Call, monkeypatch: pytest.MonkeyPatch, d: str) -> None:
    ours, expected = call(), by_operators(call, monkeypatch)
    assert len(ours) == len(expected)
    for i, (a, b) in enumerate(zip(ours, expected, strict=True)):
        assert a.dtype is b.dtype and a.shape == b.shape and (i or a.stride() == b.stride())
        x, y = a._data.astype(np.float64), b._data.astype(np.float64)
        scale = max(float(np.abs(y).max(initial=0.0)), 1.0)
        np.testing.assert_allclose(x, y, rtol=TOLERANCE[d], atol=TOLERANCE[d] * scale, err_msg=f"result {i}")


def tensors(d: str, *shapes: tuple[int, ...]) -> list[Any]:
    random = np.random.default_rng(0)
    return [torch.tensor(random.standard_normal(s)).to(getattr(torch, d)).requires_grad_() for s in shapes]


def with_gradients(results: Any, leaves: list[Any]) -> list[Any]:
    """The results, and the gradients of their cubes' sum."""
    outputs = list(results) if isinstance(results, tuple) else [results]
    loss = sum((o.to(torch.float64) ** 3 * (i + 1.5)).sum() for i, o in enumerate(outputs))
    return [*(o.detach() for o in outputs), *torch.autograd.grad(loss, leaves)]


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Every tensor counts as large. The names of the compositions that made a node."""
    pytest.importorskip("llvmlite")
    found: list[str] = []
    whole = CompositionNode.__init__

    def noting(self: CompositionNode, function: Any, name: str, *rest: Any) -> None:
        found.append(name)
        whole(self, function, name, *rest)

    monkeypatch.setattr(CompositionNode, "__init__", noting)
    monkeypatch.setattr(native, "LARGE", 1)
    monkeypatch.setattr(native, "SMALL", 1)
    monkeypatch.setattr(native.switch, "on", True)
    yield found


@pytest.mark.parametrize("d", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(2, 6, 5, 4), (3, 6, 7)])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("kind", ["batch", "group", "instance", "rms"])
def test_norms(
    kind: str, affine: bool, shape: tuple[int, ...], d: str, pieces: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def call() -> list[Any]:
        x, weight, bias, wide = tensors(d, shape, (6,), (6,), shape[-1:])
        running = torch.zeros(6).to(x.dtype), torch.ones(6).to(x.dtype)
        scales = (weight, bias) if affine else (None, None)
        if kind == "batch":
            result = F.batch_norm(x, *running, *scales, training=True)
        elif kind == "group":
            result = F.group_norm(x, 3, *scales)
        elif kind == "instance":
            result = F.instance_norm(x, *running, *scales)
        else:
            result = F.rms_norm(x, shape[-1:], wide if affine else None)
        leaves = [x, *(([wide] if kind == "rms" else [weight, bias]) if affine else [])]
        return [*with_gradients(result, leaves), *(running if d == "float32" else ())]

    compare(call, monkeypatch, d)
    assert len(pieces) == 1


def test_batch_norm_with_given_statistics(pieces: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def call() -> list[Any]:
        x, weight, bias = tensors("float32", (2, 6, 5), (6,), (6,))
        result = F.batch_norm(x, torch.arange(6.0), torch.arange(1.0, 7.0), weight, bias)
        assert result.grad_fn.name() == "NativeBatchNormBackward0"
        return with_gradients(result, [x, weight, bias])

    compare(call, monkeypatch, "float32")


def test_only_the_gradients_that_are_wanted(pieces: list[str]) -> None:
    x, weight, bias = tensors("float32", (2, 6, 5), (6,), (6,))
    x.requires_grad_(False)
    result = F.group_norm(x, 2, weight, bias)
    assert [f is None for f, _ in result.grad_fn.next_functions] == [True, False, False]
    result.sum().backward()
    assert x.grad is None and weight.grad is not None and bias.grad is not None
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        result.sum().backward()


def test_sizes_that_decide_what_is_computed(pieces: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for channels, groups in ((6, 3), (12, 3), (12, 4), (6, 2)):

        def call(channels: int = channels, groups: int = groups) -> list[Any]:
            (x,) = tensors("float32", (2, channels, 5))
            return with_gradients(F.group_norm(x, groups), [x])

        compare(call, monkeypatch, "float32")


def test_a_changed_operand_is_noticed(pieces: list[str]) -> None:
    x, weight, bias = tensors("float32", (2, 6, 5), (6,), (6,))
    hidden = x * 1
    result = F.group_norm(hidden, 2, weight, bias)
    with torch.no_grad():
        hidden.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.sum().backward()


def test_second_derivatives_of_norms(pieces: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def call() -> list[Any]:
        x, weight, bias = tensors("float64", (2, 6, 5), (6,), (6,))
        (slope,) = torch.autograd.grad((F.group_norm(x, 2, weight, bias) ** 3).sum(), x, create_graph=True)
        return list(torch.autograd.grad((slope * slope).sum(), (x, weight, bias)))

    compare(call, monkeypatch, "float64")


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN", "RNN relu"])
@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"bias": False}, {"num_layers": 2}])
@pytest.mark.parametrize("d", ["float32", "float64"])
def test_recurrent_layers(kind: str, options: dict[str, Any], d: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def call() -> list[Any]:
        torch.manual_seed(0)
        own = {"nonlinearity": "relu"} if kind == "RNN relu" else {}
        layer = getattr(torch.nn, kind[:4].strip())(4, 5, **options, **own).to(getattr(torch, d))
        x, *state = tensors(d, (6, 3, 4), *[(layer.num_layers * (1 + layer.bidirectional), 3, 5)] * 2)
        state = state if kind == "LSTM" else state[:1]
        output, last = layer(x, tuple(state) if kind == "LSTM" else state[0])
        ends = last if kind == "LSTM" else (last,)
        return with_gradients((output, *ends), [x, *state, *layer.parameters()])

    compare(call, monkeypatch, d)


@pytest.mark.parametrize("part", [0, 1, 2])
def test_gradients_of_one_result_of_a_recurrent_layer(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def call() -> list[Any]:
        torch.manual_seed(0)
        layer = torch.nn.LSTM(4, 5)
        x, h, c = tensors("float32", (6, 3, 4), (1, 3, 5), (1, 3, 5))
        output, ends = layer(x, (h, c))
        return with_gradients((output, *ends)[part], [x, h, c, layer.weight_hh_l0])

    compare(call, monkeypatch, "float32")


@pytest.mark.parametrize("kind", ["LSTMCell", "GRUCell", "RNNCell"])
def test_recurrent_cells(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def call() -> list[Any]:
        torch.manual_seed(0)
        cell = getattr(torch.nn, kind)(4, 5)
        x, h, c = tensors("float32", (3, 4), (3, 5), (3, 5))
        is_lstm = kind == "LSTMCell"
        for _ in range(2):  # one step's result is the next one's operand
            made = cell(x, (h, c) if is_lstm else h)
            h, c = made if is_lstm else (made, c)
        return with_gradients((h, c) if is_lstm else h, [x, *cell.parameters()])

    compare(call, monkeypatch, "float32")


def test_second_derivatives_of_recurrent_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    def call() -> list[Any]:
        torch.manual_seed(0)
        layer = torch.nn.GRU(4, 5).double()
        (x,) = tensors("float64", (6, 3, 4))
        (slope,) = torch.autograd.grad(layer(x)[0].square().sum(), x, create_graph=True)
        return list(torch.autograd.grad(slope.square().sum(), [x, *layer.parameters()]))

    compare(call, monkeypatch, "float64")


IMAGES = ((2, 3, 6, 5),)
PAIRS = ((6, 5), (6, 5))
HEADS = ((2, 3, 7, 4), (2, 3, 6, 4), (2, 3, 6, 5))
MASK = np.random.default_rng(1).random((7, 6)) < 0.7


@pytest.mark.parametrize(
    ("name", "function", "shapes"),
    [
        ("Softshrink", F.softshrink, PAIRS[:1]),
        ("Hardshrink", F.hardshrink, PAIRS[:1]),
        ("Div", F.softsign, PAIRS[:1]),
        ("Glu", lambda x: F.glu(x, 0), PAIRS[:1]),
        ("Div", lambda x: F.normalize(x, dim=0), PAIRS[:1]),
        ("Sum", lambda x, y: F.cosine_similarity(x, y, dim=-1), PAIRS),
        ("Cdist", lambda x, y: torch.cdist(x, y[:4]), PAIRS),
        ("UpsampleNearest2D", lambda x: F.interpolate(x, scale_factor=2), IMAGES),
        ("UpsampleBilinear2D", lambda x: F.interpolate(x, size=(9, 4), mode="bilinear"), IMAGES),
        ("UpsampleBicubic2D", lambda x: F.interpolate(x, (7, 8), mode="bicubic", align_corners=True), IMAGES),
        ("GridSampler2D", lambda x, g: F.grid_sample(x, g.tanh(), align_corners=False), (*IMAGES, (2, 4, 4, 2))),
        ("GridSampler2D", lambda x, g: F.grid_sample(x, g, "bicubic", "reflection"), (*IMAGES, (2, 4, 4, 2))),
        ("ScaledDotProduct", F.scaled_dot_product_attention, HEADS),
        ("ScaledDotProduct", lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), HEADS),
        ("ScaledDotProduct", lambda q, k, v: F.scaled_dot_product_attention(q, k, v, torch.tensor(MASK)), HEADS),
    ],
)
@pytest.mark.parametrize("d", ["float32", "bfloat16"])
def test_other_compositions(
    name: str, function: Any, shapes: Any, d: str, pieces: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def call() -> list[Any]:
        leaves = tensors(d, *shapes)
        result = function(*leaves)
        assert result.grad_fn.name().startswith(name) or native.switch.on is False
        return with_gradients(result, leaves)

    compare(call, monkeypatch, d)
    assert pieces


def test_operands_that_do_not_lie_row_by_row(pieces: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def call() -> list[Any]:
        x, q, k, v = tensors("float32", (2, 6, 5, 4), *[(2, 6, 3, 4)] * 3)
        channels_last = x.to(memory_format=torch.channels_last)
        norm = F.group_norm(channels_last, 3)
        mixed = F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)))
        return with_gradients((norm, mixed), [x, q, k, v])

    compare(call, monkeypatch, "float32")


@pytest.mark.parametrize("create_graph", [False, True])
def test_a_resampled_image_may_be_changed(
    create_graph: bool, pieces: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its gradients do not depend on it."""

    def call() -> list[Any]:
        (x,) = tensors("float32", (2, 3, 6, 5))
        hidden = x * 1
        result = F.interpolate(hidden, scale_factor=2, mode="bilinear")
        with torch.no_grad():
            hidden.mul_(2)
        return list(torch.autograd.grad((result**3).sum(), x, create_graph=create_graph))

    compare(call, monkeypatch, "float32")
