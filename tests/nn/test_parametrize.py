"""Parametrizations, weight and spectral normalisation, fusing and skipping initialisation, beside PyTorch."""

import copy
import pickle

import numpy as np
import pytest

import graphtorch as gt
from graphtorch import nn
from graphtorch.nn.utils import parametrizations, parametrize

torch = pytest.importorskip("torch")


def build(make):
    gt.manual_seed(0)
    ours = make(gt)
    torch.manual_seed(0)
    return ours, make(torch)


def assert_same_state(ours, theirs):
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for key, value in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[key].numpy(), value.numpy(), rtol=1e-5, atol=1e-6)


NORMALISED = {
    "weight_norm": (lambda lib: lib.nn.utils.parametrizations.weight_norm(lib.nn.Linear(4, 3)), (5, 4)),
    "weight_norm of all": (
        lambda lib: lib.nn.utils.parametrizations.weight_norm(lib.nn.Conv2d(2, 3, 2), dim=None),
        (1, 2, 4, 4),
    ),
    "weight_norm of inputs": (
        lambda lib: lib.nn.utils.parametrizations.weight_norm(lib.nn.Conv1d(2, 3, 2), dim=1),
        (1, 2, 4),
    ),
    "spectral_norm": (lambda lib: lib.nn.utils.parametrizations.spectral_norm(lib.nn.Linear(4, 3)), (5, 4)),
    "spectral_norm transposed": (
        lambda lib: lib.nn.utils.parametrizations.spectral_norm(lib.nn.ConvTranspose2d(2, 3, 2), n_power_iterations=3),
        (1, 2, 4, 4),
    ),
    "spectral_norm of a vector": (
        lambda lib: lib.nn.utils.parametrizations.spectral_norm(lib.nn.Linear(4, 3), "bias"),
        (5, 4),
    ),
    "old weight_norm": (lambda lib: lib.nn.utils.weight_norm(lib.nn.Linear(4, 3)), (5, 4)),
    "old spectral_norm": (lambda lib: lib.nn.utils.spectral_norm(lib.nn.Conv2d(2, 3, 2)), (1, 2, 4, 4)),
}


@pytest.mark.parametrize("name", NORMALISED)
@pytest.mark.filterwarnings("ignore")
def test_normalised_weights_are_pytorchs(name):
    make, shape = NORMALISED[name]
    ours, theirs = build(make)
    assert_same_state(ours, theirs)
    data = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    for training in (True, True, False):
        results = []
        for library, module in ((gt, ours), (torch, theirs)):
            module.train(training).zero_grad()
            y = module(library.tensor(data))
            y.square().sum().backward()
            with library.no_grad():
                for p in module.parameters():
                    p.sub_(p.grad, alpha=0.01)
            results.append([y.detach(), *(p.grad for p in module.parameters())])
        for a, b in zip(*results, strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-5)
    assert_same_state(ours, theirs)


@pytest.mark.parametrize("name", [name for name in NORMALISED if not name.startswith("old")])
def test_compiled_training_equals_eager(name):
    make, shape = NORMALISED[name]
    data = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    results = []
    for compiled in (False, True):
        gt.manual_seed(0)
        module = make(gt)
        optimizer = gt.optim.SGD(module.parameters(), lr=0.01)

        def step(x, module=module, optimizer=optimizer):
            optimizer.zero_grad()
            loss = module(x).square().sum()
            loss.backward()
            optimizer.step()
            return loss

        run = gt.compile(step, fullgraph=True) if compiled else step
        losses = np.array([run(gt.tensor(data)).item() for _ in range(3)])
        results.append([losses, *(t.detach().numpy() for t in module.state_dict().values())])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


class Doubled(nn.Module):
    """Twice the original."""

    def forward(self, x):
        return 2 * x

    def right_inverse(self, x):
        return x / 2


class Symmetric(nn.Module):
    """The upper triangle and its mirror image."""

    def forward(self, x):
        return x.triu() + x.triu(1).transpose(-1, -2)


def test_registering_assigning_and_removing():
    layer = nn.Linear(3, 3)
    before = layer.weight.detach().clone()
    assert parametrize.register_parametrization(layer, "weight", Doubled()) is layer
    assert parametrize.is_parametrized(layer) and parametrize.is_parametrized(layer, "weight")
    assert not parametrize.is_parametrized(layer, "bias")
    assert gt.allclose(layer.weight, before)
    assert gt.allclose(layer.parametrizations.weight.original, before / 2)
    assert sorted(name for name, _ in layer.named_parameters()) == ["bias", "parametrizations.weight.original"]
    assert type(layer).__name__ == "ParametrizedLinear" and isinstance(layer, nn.Linear)
    assert parametrize.type_before_parametrizations(layer) is nn.Linear
    layer.weight = gt.ones(3, 3)
    assert gt.equal(layer.weight, gt.ones(3, 3))

    parametrize.register_parametrization(layer, "weight", Symmetric())
    with gt.no_grad():
        layer.parametrizations.weight.original.copy_(before)
    assert gt.allclose(layer.weight, layer.weight.t())
    with pytest.raises(RuntimeError, match="Symmetric does not implement right_inverse"):
        layer.weight = gt.ones(3, 3)

    twin = copy.deepcopy(layer)
    assert gt.equal(twin.weight, layer.weight) and twin.parametrizations is not layer.parametrizations
    with pytest.raises(RuntimeError, match="only supported through state_dict"):
        pickle.dumps(layer)
    value = layer.weight.detach()
    parametrize.remove_parametrizations(layer, "weight")
    assert type(layer) is nn.Linear and isinstance(layer.weight, nn.Parameter)
    assert gt.equal(layer.weight.detach(), value)
    assert sorted(dict(layer.named_parameters())) == ["bias", "weight"] and list(layer.children()) == []
    parametrize.remove_parametrizations(twin, "weight", leave_parametrized=False)
    assert gt.equal(twin.weight.detach(), before)


def test_cached_values_are_computed_once():
    calls = []

    class Counted(nn.Module):
        def forward(self, x):
            calls.append(1)
            return x + 1

    layer = nn.Linear(2, 2)
    parametrize.register_parametrization(layer, "weight", Counted())
    calls.clear()
    with parametrize.cached():
        assert layer.weight is layer.weight
    assert len(calls) == 1
    assert layer.weight is not layer.weight


def test_transferring():
    source, target = nn.Linear(2, 2), nn.Linear(2, 2)
    parametrize.register_parametrization(source, "weight", Doubled())
    assert parametrize.transfer_parametrizations_and_params(source, target) is target
    assert gt.equal(source.weight, target.weight)
    assert target.parametrizations.weight.original is source.parametrizations.weight.original


def test_old_checkpoints_of_weight_norm_load():
    with pytest.warns(FutureWarning, match="parametrizations.weight_norm"):
        old = nn.utils.weight_norm(nn.Linear(3, 2))
    new = parametrizations.weight_norm(nn.Linear(3, 2))
    new.load_state_dict(old.state_dict())
    assert gt.allclose(new.weight, old.weight)
    nn.utils.remove_weight_norm(old)
    assert sorted(old.state_dict()) == ["bias", "weight"] and gt.allclose(new.weight, old.weight)
    spectral = nn.utils.spectral_norm(nn.Linear(3, 2))
    spectral.eval()(gt.ones(1, 3))
    value = spectral.weight.detach().clone()
    nn.utils.remove_spectral_norm(spectral)
    assert gt.allclose(spectral.weight, value) and sorted(spectral.state_dict()) == ["bias", "weight"]


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        (
            lambda: parametrize.register_parametrization(nn.Linear(2, 2), "gain", Doubled()),
            ValueError,
            "a parametrized element with name 'gain'",
        ),
        (
            lambda: parametrize.register_parametrization(nn.Linear(2, 2), "weight", nn.Flatten(0)),
            ValueError,
            "may not change the shape of the tensor",
        ),
        (lambda: parametrize.ParametrizationList([], gt.ones(1)), ValueError, "requires one or more modules"),
        (lambda: parametrize.remove_parametrizations(nn.Linear(2, 2), "weight"), ValueError, "does not have a param"),
        (
            lambda: parametrize.remove_parametrizations(
                parametrizations.weight_norm(nn.Linear(2, 2)), "weight", leave_parametrized=False
            ),
            ValueError,
            "in terms of a sequence of tensors",
        ),
        (lambda: parametrizations.spectral_norm(nn.Linear(2, 2), "gain"), ValueError, "no parameter or buffer with"),
        (lambda: parametrizations.spectral_norm(nn.Linear(2, 2), dim=2), IndexError, "expected to be in range of [-2"),
        (
            lambda: parametrizations.spectral_norm(nn.Linear(2, 2), n_power_iterations=0),
            ValueError,
            "Expected n_power_iterations to be positive",
        ),
        (lambda: nn.utils.remove_spectral_norm(nn.Linear(2, 2)), ValueError, "spectral_norm of 'weight' not found"),
        (lambda: nn.utils.remove_weight_norm(nn.Linear(2, 2)), ValueError, "weight_norm of 'weight' not found"),
        (lambda: nn.utils.skip_init(dict), RuntimeError, "Expected a Module"),
        (lambda: nn.utils.skip_init(nn.ReLU), RuntimeError, "Module must support a 'device' arg"),
        (
            lambda: nn.utils.fuse_conv_bn_eval(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)),
            AssertionError,
            "Fusion only for eval!",
        ),
    ],
)
def test_errors(action, error, message):
    with pytest.raises(error) as caught:
        action()
    assert message in str(caught.value)


FUSED = [
    (lambda: (nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3)), nn.utils.fuse_conv_bn_eval, (2, 2, 4, 4)),
    (lambda: (nn.Conv1d(2, 3, 2, bias=False), nn.BatchNorm1d(3, affine=False)), nn.utils.fuse_conv_bn_eval, (2, 2, 4)),
    (
        lambda: (nn.ConvTranspose2d(2, 3, 2), nn.BatchNorm2d(3)),
        lambda conv, bn: nn.utils.fuse_conv_bn_eval(conv, bn, transpose=True),
        (2, 2, 4, 4),
    ),
    (lambda: (nn.Linear(4, 3), nn.BatchNorm1d(3)), nn.utils.fuse_linear_bn_eval, (5, 4)),
]


@pytest.mark.parametrize(("make", "fuse", "shape"), FUSED)
def test_fused_layers_compute_the_same(make, fuse, shape):
    gt.manual_seed(0)
    layer, bn = make()
    for _ in range(3):
        bn(layer(gt.randn(*shape) * 3 + 1))
    with gt.no_grad():
        for p in bn.parameters():
            p.normal_()
    layer.eval(), bn.eval()
    x = gt.randn(*shape)
    fused = fuse(layer, bn)
    assert type(fused) is type(layer) and isinstance(fused.weight, nn.Parameter)
    np.testing.assert_allclose(fused(x).detach().numpy(), bn(layer(x)).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_skipping_initialisation_draws_no_numbers():
    gt.manual_seed(0)
    layer = nn.utils.skip_init(nn.Linear, 3, 4)
    assert tuple(layer.weight.shape) == (4, 3) and layer.weight.device.type == "cpu"
    drawn = gt.rand(1)
    gt.manual_seed(0)
    assert gt.equal(drawn, gt.rand(1))


def test_clipping_with_a_given_norm():
    p = nn.Parameter(gt.ones(4))
    p.grad = gt.full((4,), 3.0)
    nn.utils.clip_grads_with_norm_([p], 3.0, nn.utils.get_total_norm([p.grad]))
    np.testing.assert_allclose(p.grad.numpy(), 1.5, rtol=1e-5)
