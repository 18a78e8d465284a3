"""The operators of neural networks beside PyTorch: activations, convolution, pooling, normalisation, losses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from beside_torch import assert_same, check, check_error, normal, on_both

import graphtorch as gt
from graphtorch.lowering.backend import get_backend

X = normal(4, 6) * 2

ACTIVATIONS: dict[str, Any] = {
    "relu": lambda t, x: t.relu(x),
    "gelu": lambda t, x: t.nn.functional.gelu(x),
    "gelu tanh": lambda t, x: t.nn.functional.gelu(x, approximate="tanh"),
    "silu": lambda t, x: t.nn.functional.silu(x),
    "leaky_relu": lambda t, x: t.nn.functional.leaky_relu(x, 0.2),
    "elu": lambda t, x: t.nn.functional.elu(x, 1.5),
    "selu": lambda t, x: t.selu(x),
    "celu": lambda t, x: t.celu(x, 0.7),
    "softplus": lambda t, x: t.nn.functional.softplus(x * 20, 2, 5),
    "hardtanh": lambda t, x: t.nn.functional.hardtanh(x, -0.5, 2.0),
    "relu6": lambda t, x: t.nn.functional.relu6(x * 5),
    "hardsigmoid": lambda t, x: t.nn.functional.hardsigmoid(x * 2),
    "hardswish": lambda t, x: t.nn.functional.hardswish(x * 2),
    "logsigmoid": lambda t, x: t.nn.functional.logsigmoid(x * 30),
    "mish": lambda t, x: t.nn.functional.mish(x * 5),
    "glu": lambda t, x: t.nn.functional.glu(x, 1),
    "prelu": lambda t, x: t.prelu(x, t.tensor([0.2])),
    "prelu channels": lambda t, x: t.prelu(x, x[0]),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(name: str) -> None:
    check(ACTIVATIONS[name], X, rtol=2e-5, atol=2e-6)


KINKED = ["relu", "leaky_relu", "elu", "hardtanh", "relu6", "hardsigmoid", "hardswish", "softplus"]


@pytest.mark.parametrize("name", KINKED)
def test_activation_at_its_kinks(name: str) -> None:
    kinks = np.array([0.0, -0.0, 3.0, -3.0, 1.0, -1.0, 6.0, np.inf, -np.inf, np.nan], np.float32)
    check(lambda t, x: getattr(t.nn.functional, name)(x), kinks)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["gelu", "silu", "elu", "softplus", "mish", "hardswish"])
def test_activation_in_half_precision_rounds_once(name: str, dtype: str) -> None:
    step = 2.0**-10 if dtype == "float16" else 2.0**-7
    ours, _, theirs, _ = on_both(lambda t, x: getattr(t.nn.functional, name)(x.to(getattr(t, dtype))).float(), (X,))
    assert_same(ours, theirs, rtol=step, atol=1e-5)


@pytest.mark.parametrize("name", ["relu", "gelu", "silu", "elu", "leaky_relu"])
def test_grad_fn_names(name: str) -> None:
    ours, _, theirs, _ = on_both(lambda t, x: getattr(t.nn.functional, name)(x.requires_grad_()).grad_fn.name(), (X,))
    assert ours == theirs


# -- convolution ------------------------------------------------------------------------------------------------------

CONVOLUTIONS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "plain": ((2, 3, 8, 7), (4, 3, 3, 2), {}),
    "padded": ((2, 3, 5, 5), (4, 3, 3, 3), {"padding": 1}),
    "strided": ((2, 3, 9, 8), (4, 3, 3, 3), {"stride": 2, "padding": (1, 0)}),
    "dilated": ((1, 2, 9, 9), (3, 2, 3, 3), {"dilation": (2, 3)}),
    "grouped": ((2, 4, 6, 6), (6, 2, 3, 3), {"groups": 2, "stride": (1, 2)}),
    "depthwise": ((2, 4, 6, 6), (8, 1, 3, 3), {"groups": 4, "padding": 1}),
    "pointwise": ((2, 4, 6, 6), (3, 4, 1, 1), {}),
    "same": ((2, 3, 6, 6), (4, 3, 3, 3), {"padding": "same"}),
    "same, even kernel": ((2, 3, 6, 6), (4, 3, 4, 2), {"padding": "same", "dilation": (1, 3)}),
    "valid": ((2, 3, 6, 6), (4, 3, 3, 3), {"padding": "valid"}),
    "without batch": ((3, 6, 6), (4, 3, 3, 3), {"padding": 1}),
    "empty batch": ((0, 3, 6, 6), (4, 3, 3, 3), {}),
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_conv2d(name: str, bias: bool) -> None:
    shape, kernel, options = CONVOLUTIONS[name]
    operands = [normal(*shape), normal(*kernel, seed=1)] + ([normal(kernel[0], seed=2)] if bias else [])
    check(lambda t, *x: t.nn.functional.conv2d(*x, **options), *operands, strides=False, rtol=1e-4, atol=1e-4)


def test_conv2d_of_several_blocks_of_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphtorch.ops import convolution  # the module: the operators' package holds no function of that name

    monkeypatch.setattr(convolution, "_BLOCK", 200)
    shape, kernel, options = CONVOLUTIONS["grouped"]
    check(
        lambda t, *x: t.nn.functional.conv2d(*x, **options),
        normal(5, *shape[1:]),
        normal(*kernel, seed=1),
        strides=False,
        rtol=1e-4,
        atol=1e-4,
    )


def test_conv2d_second_order() -> None:
    def run(t: Any, x: Any, w: Any) -> Any:
        if not x.requires_grad:
            return t.nn.functional.conv2d(x, w, stride=2, padding=1)
        loss = t.nn.functional.conv2d(x, w, stride=2, padding=1).pow(3).sum()
        return t.autograd.grad(loss, (x, w), create_graph=True)

    ours, our_operands, theirs, their_operands = on_both(run, (normal(2, 2, 5, 5), normal(3, 2, 3, 3, seed=1)), True)
    assert_same(ours, theirs, rtol=1e-3, atol=1e-3, strides=False)
    for results in (ours, theirs):
        sum(r.pow(2).sum() for r in results).backward()
    for a, b in zip(our_operands, their_operands, strict=True):
        assert_same(a.grad, b.grad, rtol=1e-3, atol=1e-1, strides=False)


@pytest.mark.parametrize(
    "options", [{}, {"stride": 2, "padding": 1, "output_padding": 1}, {"groups": 2, "dilation": 2}]
)
def test_transposed_convolution(options: dict[str, Any]) -> None:
    groups = options.get("groups", 1)
    check(
        lambda t, x, w, b: t.conv_transpose2d(x, w, b, **options),
        normal(2, 4, 5, 5),
        normal(4, 6 // groups, 3, 3, seed=1),
        normal(6, seed=2),
        strides=False,
        rtol=1e-4,
        atol=1e-4,
    )


def test_conv1d() -> None:
    check(
        lambda t, x, w, b: t.nn.functional.conv1d(x, w, b, stride=2, padding=1, dilation=2),
        normal(2, 3, 11),
        normal(4, 3, 3, seed=1),
        normal(4, seed=2),
        strides=False,
        rtol=1e-4,
        atol=1e-4,
    )
    check(
        lambda t, x, w: t.conv_transpose1d(x, w, stride=2, output_padding=1),
        normal(2, 3, 5),
        normal(3, 4, 3, seed=1),
        strides=False,
        rtol=1e-4,
        atol=1e-4,
    )


CONV_ERRORS: dict[str, Any] = {
    "channels": lambda t, x: t.conv2d(x, t.ones(4, 2, 3, 3)),
    "small input": lambda t, x: t.conv2d(x[..., :2, :2], t.ones(4, 3, 3, 3)),
    "bias": lambda t, x: t.conv2d(x, t.ones(4, 3, 3, 3), t.ones(5)),
    "dtype": lambda t, x: t.conv2d(x.double(), t.ones(4, 3, 3, 3)),
    "bias dtype": lambda t, x: t.conv2d(x, t.ones(4, 3, 3, 3), t.ones(4).double()),
    "groups": lambda t, x: t.conv2d(x, t.ones(4, 1, 3, 3), groups=3),
    "stride": lambda t, x: t.conv2d(x, t.ones(4, 3, 3, 3), stride=0),
    "strides": lambda t, x: t.conv2d(x, t.ones(4, 3, 3, 3), stride=(1, 1, 1)),
    "padding": lambda t, x: t.conv2d(x, t.ones(4, 3, 3, 3), padding=-1),
    "same with stride": lambda t, x: t.conv2d(x, t.ones(4, 3, 3, 3), padding="same", stride=2),
    "padding text": lambda t, x: t.conv2d(x, t.ones(4, 3, 3, 3), padding="full"),
    "rank": lambda t, x: t.conv2d(x[0, 0], t.ones(4, 3, 3, 3)),
}


@pytest.mark.parametrize("name", CONV_ERRORS)
def test_conv2d_error(name: str) -> None:
    check_error(CONV_ERRORS[name], normal(2, 3, 6, 6))


# -- pooling ----------------------------------------------------------------------------------------------------------

POOLS: dict[str, Any] = {
    "max": lambda f, x: f.max_pool2d(x, 2),
    "max overlapping": lambda f, x: f.max_pool2d(x, 3, 2, 1),
    "max dilated": lambda f, x: f.max_pool2d(x, (2, 3), (1, 2), (1, 0), (2, 1)),
    "max ceil": lambda f, x: f.max_pool2d(x, 2, ceil_mode=True),
    "max padded ceil": lambda f, x: f.max_pool2d(x, 3, 2, 1, ceil_mode=True),
    "max indices": lambda f, x: f.max_pool2d(x, 3, 2, 1, return_indices=True),
    "avg": lambda f, x: f.avg_pool2d(x, 2),
    "avg padded": lambda f, x: f.avg_pool2d(x, 3, 2, 1),
    "avg inside": lambda f, x: f.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "avg ceil": lambda f, x: f.avg_pool2d(x, (3, 2), 2, 1, ceil_mode=True),
    "avg divisor": lambda f, x: f.avg_pool2d(x, 2, divisor_override=3),
    "adaptive": lambda f, x: f.adaptive_avg_pool2d(x, (2, 3)),
    "adaptive one": lambda f, x: f.adaptive_avg_pool2d(x, 1),
}


@pytest.mark.parametrize("shape", [(2, 3, 7, 9), (3, 8, 7)], ids=str)
@pytest.mark.parametrize("name", POOLS)
def test_pooling(name: str, shape: tuple[int, ...]) -> None:
    check(lambda t, x: POOLS[name](t.nn.functional, x), normal(*shape), strides=False, rtol=1e-5)


def test_max_pooling_of_nan_and_of_equal_elements() -> None:
    x = normal(1, 1, 6, 6)
    x[0, 0, 1, 1] = np.nan
    x[0, 0, 3:, :] = -np.inf
    check(lambda t, x: t.nn.functional.max_pool2d(x, 3, 2, 1, return_indices=True), x)
    check(lambda t, x: t.nn.functional.max_pool2d(x, 2, return_indices=True), np.zeros((1, 4, 4), np.float32))


POOL_ERRORS: dict[str, Any] = {
    "padding": lambda f, x: f.max_pool2d(x, 3, padding=2),
    "too small": lambda f, x: f.max_pool2d(x, 9),
    "kernel": lambda f, x: f.max_pool2d(x, (1, 2, 3)),
    "stride": lambda f, x: f.max_pool2d(x, 2, stride=0),
    "avg padding": lambda f, x: f.avg_pool2d(x, 3, padding=2),
    "avg divisor": lambda f, x: f.avg_pool2d(x, 2, divisor_override=0),
}


@pytest.mark.parametrize("name", POOL_ERRORS)
def test_pooling_error(name: str) -> None:
    check_error(lambda t, x: POOL_ERRORS[name](t.nn.functional, x), normal(2, 3, 6, 6))


# -- normalisation, embedding, losses ---------------------------------------------------------------------------------


@pytest.mark.parametrize("affine", ["none", "weight", "both"])
@pytest.mark.parametrize("dims", [1, 2])
def test_layer_norm(affine: str, dims: int) -> None:
    shape = (3, 4, 5)[-dims:]
    extra = [normal(*shape, seed=i) for i in range({"none": 0, "weight": 1, "both": 2}[affine])]
    check(
        lambda t, x, *rest: t.nn.functional.layer_norm(x, shape, *rest),
        normal(2, 3, 4, 5),
        *extra,
        rtol=1e-4,
        atol=1e-5,
    )


def test_layer_norm_of_half_precision_computes_in_single() -> None:
    def run(t: Any, x: Any, w: Any) -> Any:
        return t.nn.functional.layer_norm((x * 100).bfloat16(), (6,), w.bfloat16()).float()

    ours, _, theirs, _ = on_both(run, (X, normal(6, seed=1)))
    assert_same(ours, theirs, rtol=2.0**-7, atol=1e-3)


def test_layer_norm_error() -> None:
    check_error(lambda t, x: t.nn.functional.layer_norm(x, (4,)), X)
    check_error(lambda t, x: t.nn.functional.layer_norm(x, (6,), t.ones(4)), X)


@pytest.mark.parametrize("padding_idx", [None, 2, -1])
def test_embedding(padding_idx: int | None) -> None:
    indices = np.random.default_rng(0).integers(0, 5, (3, 7))
    check(lambda t, w: t.nn.functional.embedding(t.from_numpy(indices), w, padding_idx), normal(5, 4), rtol=1e-5)


def test_embedding_gradient_scaled_by_frequency() -> None:
    indices = np.array([0, 1, 1, 3, 3, 3])

    def run(t: Any, w: Any) -> Any:
        return t.nn.functional.embedding(t.from_numpy(indices), w, scale_grad_by_freq=True)

    check(run, normal(5, 4), rtol=1e-5)


def test_embedding_error() -> None:
    check_error(lambda t, w: t.nn.functional.embedding(t.tensor([5]), w), normal(5, 4))
    check_error(lambda t, w: t.nn.functional.embedding(t.tensor([1.0]), w), normal(5, 4))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignore", [-100, 1])
@pytest.mark.parametrize("shape", [(5, 4), (2, 4, 3), (4,)], ids=str)
def test_nll_loss(shape: tuple[int, ...], ignore: int, weighted: bool, reduction: str) -> None:
    target = np.random.default_rng(1).integers(0, 4, (shape[0], *shape[2:]) if len(shape) > 1 else ())
    target = np.asarray(target)
    if target.ndim and ignore == -100:
        target.reshape(-1)[0] = -100

    def run(t: Any, x: Any) -> Any:
        weight = t.tensor([0.5, 1.0, 2.0, 0.1]) if weighted else None
        return t.nn.functional.nll_loss(x, t.tensor(target.tolist()), weight, ignore_index=ignore, reduction=reduction)

    check(run, normal(*shape), rtol=1e-5)


LOSS_ERRORS: dict[str, Any] = {
    "target range": lambda t, x: t.nn.functional.nll_loss(x, t.tensor([0, 1, 2, 6])),
    "target size": lambda t, x: t.nn.functional.nll_loss(x, t.tensor([0, 1])),
    "target dtype": lambda t, x: t.nn.functional.nll_loss(x, t.tensor([0.0, 1.0, 2.0, 3.0])),
    "weight": lambda t, x: t.nn.functional.nll_loss(x, t.tensor([0, 1, 2, 3]), t.ones(3)),
}


@pytest.mark.parametrize("name", LOSS_ERRORS)
def test_nll_loss_error(name: str) -> None:
    check_error(LOSS_ERRORS[name], X)


def test_a_loss_without_samples_that_count_is_nan() -> None:
    target = gt.full((4,), -100)
    assert np.isnan(gt.nn.functional.nll_loss(gt.from_numpy(X), target).item())
    assert gt.nn.functional.nll_loss(gt.from_numpy(X), target, reduction="sum").item() == 0.0


@pytest.mark.parametrize("backend", [None, "numpy", "cpu"])
def test_convolution_without_input_channels(backend):
    """PyTorch's result has no channels either."""
    if backend is not None and get_backend(backend).unavailable() is not None:
        pytest.skip("not here")

    def run(x, w, b):
        return gt.nn.functional.conv1d(x, w, b)

    x, w, b = (gt.ones(s, requires_grad=True) for s in ((1, 0, 5), (2, 0, 3), (2,)))
    y = (run if backend is None else gt.compile(run, backend=backend))(x, w, b)
    y.sum().backward()
    assert y.shape == (1, 0, 3)
    assert x.grad.shape == x.shape
    assert w.grad.shape == w.shape
    assert b.grad.tolist() == [0, 0]
