"""nn.init and nn.utils: the same draws as PyTorch from one seed, and laws that hold without it."""

import math
import warnings

import numpy as np
import pytest

import graphtorch as gt
from graphtorch import nn
from graphtorch.nn import init

INITIALISERS = [
    ("uniform_", (-2.0, 3.0), (4, 5)),
    ("normal_", (1.0, 2.0), (20, 3)),
    ("trunc_normal_", (), (50, 3)),
    ("trunc_normal_", (0.0, 1.0, 0.5, 1.0), (50, 3)),
    ("trunc_normal_", (0.0, 1.0, 2.0, 3.0), (50, 3)),
    ("constant_", (3.5,), (2, 3)),
    ("ones_", (), (2, 3)),
    ("zeros_", (), (2, 3)),
    ("eye_", (), (3, 4)),
    ("dirac_", (), (4, 2, 3)),
    ("dirac_", (2,), (4, 2, 3, 3)),
    ("xavier_uniform_", (0.7,), (4, 5)),
    ("xavier_normal_", (), (4, 5, 3)),
    ("kaiming_uniform_", (), (4, 5)),
    ("kaiming_uniform_", (0.2, "fan_out", "leaky_relu"), (4, 5, 2)),
    ("kaiming_normal_", (0, "fan_in", "relu"), (4, 5)),
    ("orthogonal_", (), (5, 3)),
    ("orthogonal_", (2.0,), (3, 2, 4)),
    ("sparse_", (0.3,), (10, 4)),
]


@pytest.mark.parametrize(("name", "args", "shape"), INITIALISERS)
def test_same_values_as_pytorch(name, args, shape):
    torch = pytest.importorskip("torch")
    results = []
    for library in (gt, torch):
        library.manual_seed(5)
        tensor = library.nn.Parameter(library.empty(shape))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert getattr(library.nn.init, name)(tensor, *args) is tensor
        assert tensor.requires_grad and tensor.grad_fn is None
        results.append((tensor.detach().numpy(), library.rand(3).numpy()))
    (ours, ours_next), (theirs, theirs_next) = results
    if name == "orthogonal_":  # QR is LAPACK's in both, but not the same build of it
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    else:
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(ours_next, theirs_next)  # as many draws were made


def test_orthogonal_rows():
    weight = init.orthogonal_(gt.empty(3, 5))
    np.testing.assert_allclose((weight @ weight.t()).numpy(), np.eye(3), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "param", "gain"),
    [
        ("linear", None, 1),
        ("sigmoid", None, 1),
        ("tanh", None, 5 / 3),
        ("relu", None, math.sqrt(2)),
        ("leaky_relu", 0.2, math.sqrt(2 / 1.04)),
        ("selu", None, 0.75),
    ],
)
def test_gain(name, param, gain):
    assert init.calculate_gain(name, param) == pytest.approx(gain)


def test_errors():
    with pytest.raises(ValueError, match="Unsupported nonlinearity swish"):
        init.calculate_gain("swish")
    with pytest.raises(ValueError, match="negative_slope True not a valid number"):
        init.calculate_gain("leaky_relu", True)
    with pytest.raises(ValueError, match="Fan in and fan out can not be computed"):
        init.xavier_uniform_(gt.empty(3))
    with pytest.raises(ValueError, match="Mode fan_sum not supported"):
        init.kaiming_uniform_(gt.empty(3, 3), mode="fan_sum")
    for function in (init.eye_, init.sparse_):
        with pytest.raises(ValueError, match="Only tensors with 2 dimensions are supported"):
            function(gt.empty(3), *([0.1] if function is init.sparse_ else []))
    with pytest.raises(ValueError, match="Only tensors with 3, 4, or 5 dimensions"):
        init.dirac_(gt.empty(3))
    with pytest.warns(UserWarning, match="zero-element"):
        init.kaiming_uniform_(gt.empty(0, 3))
    with pytest.warns(FutureWarning, match="`nn.init.uniform` is now deprecated"):
        init.uniform(gt.empty(3))


def model_with_grads():
    net = nn.Linear(3, 2)
    net.weight.grad = gt.tensor([[3.0, 0, 0], [0, 4.0, 0]])
    net.bias.grad = gt.zeros(2)
    return net


def test_clip_grad_norm():
    net = model_with_grads()
    norm = nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    assert norm.item() == pytest.approx(5)
    assert net.weight.grad.norm().item() == pytest.approx(1, rel=1e-5)
    before = net.weight.grad.clone()
    nn.utils.clip_grad_norm_(net.parameters(), 10.0)
    assert gt.allclose(net.weight.grad, before)
    net.weight.grad.fill_(math.inf)
    with pytest.raises(RuntimeError, match="is non-finite, so it cannot be clipped"):
        nn.utils.clip_grad_norm_(net.parameters(), 1.0, error_if_nonfinite=True)
    assert nn.utils.clip_grad_norm_(nn.Linear(1, 1).parameters(), 1.0).item() == 0


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, math.inf])
def test_clip_grad_norm_is_pytorchs(norm_type):
    torch = pytest.importorskip("torch")
    grad = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    results = []
    for library in (gt, torch):
        parameters = [library.nn.Parameter(library.zeros(4, 3)), library.nn.Parameter(library.zeros(4, 3))]
        for scale, parameter in enumerate(parameters, 1):
            parameter.grad = library.tensor(grad * scale)
        norm = library.nn.utils.clip_grad_norm_(parameters, 0.5, norm_type)
        results.append([norm.numpy(), *(p.grad.numpy() for p in parameters)])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_clip_grad_value():
    net = model_with_grads()
    nn.utils.clip_grad_value_(net.parameters(), 3.5)
    assert net.weight.grad.tolist() == [[3, 0, 0], [0, 3.5, 0]]


def test_parameters_as_vector():
    net = nn.Linear(3, 2)
    vector = nn.utils.parameters_to_vector(net.parameters())
    assert tuple(vector.shape) == (8,)
    nn.utils.vector_to_parameters(gt.arange(8.0), net.parameters())
    assert net.weight.tolist() == [[0, 1, 2], [3, 4, 5]] and net.bias.tolist() == [6, 7]
    with pytest.raises(TypeError, match="expected torch\\.Tensor, but got"):
        nn.utils.vector_to_parameters([1.0], net.parameters())
