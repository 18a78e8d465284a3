"""Lazy layers, RReLU, fractional max pooling, adaptive softmax: beside PyTorch's."""

import copy
import warnings

import numpy as np
import pytest

import graphtorch as gt

torch = pytest.importorskip("torch")
warnings.filterwarnings("ignore", "Lazy modules are a new feature")

LAZY = [
    ("LazyLinear", (5,), {}, (2, 3)),
    ("LazyLinear", (5,), {"bias": False}, (2, 4, 3)),
    ("LazyConv1d", (6, 3), {"padding": 1}, (2, 4, 7)),
    ("LazyConv2d", (6, 3), {"groups": 2, "stride": 2}, (2, 4, 7, 7)),
    ("LazyConv2d", (6, 3), {"bias": False}, (4, 7, 7)),
    ("LazyConv3d", (4, 2), {}, (1, 2, 4, 4, 4)),
    ("LazyConvTranspose1d", (6, 3), {}, (2, 4, 7)),
    ("LazyConvTranspose2d", (6, 3), {"stride": 2, "output_padding": 1, "groups": 2}, (2, 4, 5, 5)),
    ("LazyConvTranspose3d", (4, 2), {}, (1, 2, 3, 3, 3)),
    ("LazyBatchNorm1d", (), {}, (4, 3)),
    ("LazyBatchNorm2d", (), {"momentum": None}, (4, 3, 2, 2)),
    ("LazyBatchNorm3d", (), {"affine": False}, (4, 3, 2, 2, 2)),
    ("LazyInstanceNorm1d", (), {}, (4, 3, 5)),
    ("LazyInstanceNorm2d", (), {"track_running_stats": False}, (4, 3, 2, 2)),
    ("LazyInstanceNorm3d", (), {}, (4, 3, 2, 2, 2)),
]


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Lazy modules are a new feature")
        yield


def run(library, name, args, options, shape):
    library.manual_seed(0)
    layer = getattr(library.nn, name)(*args, **options)
    before = repr(layer)
    x = library.from_numpy(np.random.default_rng(0).normal(size=shape).astype(np.float32))
    result = layer(x)
    state = {key: value.numpy() for key, value in layer.state_dict().items()}
    return before, repr(layer), type(layer).__name__, result.detach().numpy(), state


@pytest.mark.parametrize(("name", "args", "options", "shape"), LAZY)
def test_lazy_layers(name, args, options, shape):
    got, expected = (run(library, name, args, options, shape) for library in (gt, torch))
    assert got[:3] == expected[:3]
    np.testing.assert_allclose(got[3], expected[3], rtol=1e-4, atol=1e-5)
    assert list(got[4]) == list(expected[4])
    for key, value in expected[4].items():
        np.testing.assert_allclose(got[4][key], value, rtol=1e-5, atol=1e-6)


def test_lazy_parameters_before_the_first_call():
    layer = gt.nn.LazyLinear(3)
    assert isinstance(layer.weight, gt.nn.UninitializedParameter) and layer.has_uninitialized_params()
    assert repr(layer.weight) == "<UninitializedParameter>"
    with pytest.raises(RuntimeError, match="Can't access the shape of an uninitialized parameter or buffer"):
        layer.weight + 1
    parameter = layer.weight
    layer.double()
    copied = copy.deepcopy(layer)
    layer(gt.ones(2, 4, dtype=gt.float64))
    assert type(parameter) is gt.nn.Parameter and parameter is layer.weight, "optimizers keep the object"
    assert parameter.shape == (3, 4) and parameter.dtype is gt.float64
    assert copied.has_uninitialized_params() and copied.weight.dtype is gt.float64


def test_lazy_model_in_a_compiled_step():
    gt.manual_seed(0)
    model = gt.nn.Sequential(gt.nn.LazyConv2d(4, 3), gt.nn.LazyBatchNorm2d(), gt.nn.Flatten(), gt.nn.LazyLinear(2))
    x = gt.randn(3, 2, 5, 5)
    model(x)
    optimizer = gt.optim.SGD(model.parameters(), lr=0.01)

    @gt.compile(fullgraph=True)
    def step(x):
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    assert step(x).item() > step(x).item()


def test_lazy_state_dicts():
    full = gt.nn.Linear(4, 3)
    lazy = gt.nn.LazyLinear(3)
    lazy.load_state_dict(gt.nn.LazyLinear(3).state_dict())
    assert lazy.has_uninitialized_params()
    lazy.load_state_dict(full.state_dict())
    assert not lazy.has_uninitialized_params()
    x = gt.randn(2, 4)
    np.testing.assert_array_equal(lazy(x).detach().numpy(), full(x).detach().numpy())
    assert repr(lazy) == repr(full)
    with pytest.raises(RuntimeError, match="Can't access the shape of an uninitialized"):
        gt.nn.Linear(4, 3).load_state_dict(gt.nn.LazyLinear(3).state_dict())


def test_lazy_layers_refuse_what_does_not_fit():
    with pytest.raises(RuntimeError, match=r"Expected 3D \(unbatched\) or 4D \(batched\) input to LazyConv2d"):
        gt.nn.LazyConv2d(4, 3)(gt.ones(2, 3))
    with pytest.raises(ValueError, match="in_channels must be divisible by groups"):
        gt.nn.LazyConv2d(4, 3, groups=2)(gt.ones(1, 3, 5, 5))


# -- RReLU ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("training", [True, False])
def test_rrelu(dtype, training):
    found = []
    for library in (gt, torch):
        library.manual_seed(1)
        x = library.from_numpy(np.random.default_rng(0).normal(size=(5, 7)).astype(dtype)).requires_grad_()
        layer = library.nn.RReLU(0.1, 0.4).train(training)
        y = layer(x)
        y.sum().backward()
        found.append((repr(layer), y.detach().numpy(), x.grad.numpy(), library.rand(2).numpy()))
    assert found[0][0] == found[1][0]
    for got, expected in zip(found[0][1:], found[1][1:]):
        np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_rrelu_compiled_and_in_place():
    x = gt.randn(6, 5)
    gt.manual_seed(2)
    eager = gt.nn.functional.rrelu(x, training=True)
    gt.manual_seed(2)
    compiled = gt.compile(lambda x: gt.nn.functional.rrelu(x, training=True), fullgraph=True)(x)
    np.testing.assert_allclose(compiled.numpy(), eager.numpy(), rtol=1e-6)
    gt.manual_seed(2)
    assert gt.nn.functional.rrelu_(x, training=True) is x
    np.testing.assert_array_equal(x.numpy(), eager.numpy())


# -- fractional max pooling -------------------------------------------------------------------------------------------

POOLS = [
    ("FractionalMaxPool2d", (2,), {"output_size": (4, 3)}, (2, 3, 9, 8)),
    ("FractionalMaxPool2d", ((3, 2),), {"output_ratio": (0.5, 0.6)}, (3, 9, 8)),
    ("FractionalMaxPool2d", (3,), {"output_size": 1}, (1, 2, 5, 5)),
    ("FractionalMaxPool3d", (2,), {"output_size": (3, 4, 2)}, (2, 2, 6, 7, 5)),
    ("FractionalMaxPool3d", (2,), {"output_ratio": 0.5}, (2, 6, 7, 5)),
]


@pytest.mark.parametrize(("name", "args", "options", "shape"), POOLS)
def test_fractional_max_pooling(name, args, options, shape):
    found = []
    for library in (gt, torch):
        library.manual_seed(4)
        x = library.from_numpy(np.random.default_rng(0).normal(size=shape).astype(np.float32)).requires_grad_()
        pooled, indices = getattr(library.nn, name)(*args, **options, return_indices=True)(x)
        (pooled * library.arange(pooled.numel()).reshape(pooled.shape)).sum().backward()
        found.append((pooled.detach().numpy(), indices.numpy(), x.grad.numpy()))
    for got, expected in zip(*found):
        np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_fractional_max_pooling_compiled():
    layer = gt.nn.FractionalMaxPool2d(2, output_size=3)
    x = gt.randn(1, 2, 8, 8)
    gt.manual_seed(0)
    eager = layer(x)
    gt.manual_seed(0)
    np.testing.assert_array_equal(gt.compile(layer, fullgraph=True)(x).numpy(), eager.numpy())


@pytest.mark.parametrize(
    "options", [{}, {"output_size": 2, "output_ratio": 0.5}, {"output_ratio": 1.5}, {"output_ratio": (0.5, 0.0)}]
)
def test_fractional_max_pooling_refuses(options):
    for library in (gt, torch):
        with pytest.raises(ValueError):
            library.nn.FractionalMaxPool2d(2, **options)
    with pytest.raises(RuntimeError):
        gt.nn.FractionalMaxPool2d(4, output_size=5)(gt.ones(1, 1, 6, 6))


# -- adaptive softmax -------------------------------------------------------------------------------------------------


def adaptive(library, targets):
    library.manual_seed(0)
    layer = library.nn.AdaptiveLogSoftmaxWithLoss(8, 20, [4, 10], div_value=2.0, head_bias=True)
    x = library.from_numpy(np.random.default_rng(0).normal(size=(*np.shape(targets), 8)).astype(np.float32))
    x.requires_grad_()
    output, loss = layer(x, library.tensor(targets))
    loss.backward()
    gradients = {name: p.grad for name, p in layer.named_parameters()}
    rows = x if x.dim() == 2 else x.unsqueeze(0)
    return layer, [
        output.detach().numpy(),
        loss.item(),
        x.grad.numpy(),
        layer.log_prob(rows).detach().numpy(),
        layer.predict(rows).numpy(),
        *(np.zeros(()) if g is None else g.numpy() for g in gradients.values()),
    ]


@pytest.mark.parametrize("targets", [[0, 3, 4, 9, 10, 19], [1, 2], 12])
def test_adaptive_softmax(targets):
    (ours, got), (theirs, expected) = adaptive(gt, targets), adaptive(torch, targets)
    assert repr(ours) == repr(theirs) and list(ours.state_dict()) == list(theirs.state_dict())
    for a, b in zip(got, expected):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_adaptive_softmax_compiled():
    layer = gt.nn.AdaptiveLogSoftmaxWithLoss(8, 20, [4, 10])
    x, targets = gt.randn(6, 8), gt.tensor([0, 3, 4, 9, 10, 19])
    eager = layer(x, targets)
    compiled = gt.compile(layer, fullgraph=True)(x, targets)
    np.testing.assert_allclose(compiled.output.detach().numpy(), eager.output.detach().numpy(), rtol=1e-5)
    assert compiled.loss.item() == pytest.approx(eager.loss.item(), rel=1e-6)


@pytest.mark.parametrize(
    "call",
    [
        lambda nn, t: nn.AdaptiveLogSoftmaxWithLoss(8, 20, []),
        lambda nn, t: nn.AdaptiveLogSoftmaxWithLoss(8, 20, [5, 5]),
        lambda nn, t: nn.AdaptiveLogSoftmaxWithLoss(8, 20, [5, 20]),
        lambda nn, t: nn.AdaptiveLogSoftmaxWithLoss(8, 20, [5])(t.zeros(2, 8), t.tensor([1, 20])),
        lambda nn, t: nn.AdaptiveLogSoftmaxWithLoss(8, 20, [5])(t.zeros(2, 8), t.tensor([1])),
        lambda nn, t: nn.AdaptiveLogSoftmaxWithLoss(8, 20, [5])(t.zeros(2, 8), t.zeros(2, 2, dtype=t.int64)),
        lambda nn, t: nn.AdaptiveLogSoftmaxWithLoss(8, 20, [5])(t.zeros(2, 8), t.tensor(1)),
    ],
)
def test_adaptive_softmax_refuses(call):
    raised = []
    for library in (gt, torch):
        with pytest.raises((ValueError, RuntimeError)) as error:
            call(library.nn, library)
        raised.append((error.type, str(error.value)))
    assert raised[0] == raised[1]


def test_response_normalisation_of_torch7_refuses_what_it_cannot_do():
    for library in (gt, torch):
        with pytest.raises(ValueError, match="CrossMapLRN2d: Expected input to be 4D, got 3D instead"):
            library.nn.CrossMapLRN2d(3)(library.ones(2, 3, 4))
        result = library.nn.CrossMapLRN2d(1)(library.ones(1, 2, 3, 3, requires_grad=True))
        with pytest.raises(RuntimeError):
            result.sum().backward()
