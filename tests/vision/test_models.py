"""Models beside torchvision's: keys, initialisation, repr, results and gradients."""

import numpy as np
import pytest

import graphtorch as gt
from graphtorch.vision import models, ops

MODELS = ["resnet18", "resnet34", "resnet50", "wide_resnet50_2", "resnext50_32x4d", "vit_b_32"]
SMALL_VIT = dict(
    image_size=16, patch_size=8, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=5, dropout=0.1
)


@pytest.mark.parametrize("name", MODELS)
def test_keys_and_repr_are_torchvisions(torchvision, name):
    ours, theirs = models.get_model(name, num_classes=10), getattr(torchvision.models, name)(num_classes=10)
    assert repr(ours) == repr(theirs)
    expected = {key: tuple(value.shape) for key, value in theirs.state_dict().items()}
    assert {key: tuple(value.shape) for key, value in ours.state_dict().items()} == expected


@pytest.mark.parametrize("name", ["alexnet", "vgg11", "vgg13_bn", "vgg16", "vgg19_bn"])
def test_large_models_are_torchvisions(torchvision, name):
    """On the meta device: their dense layers have a hundred million weights."""
    torch = pytest.importorskip("torch")
    with gt.device("meta"), torch.device("meta"):
        ours, theirs = models.get_model(name, num_classes=10), getattr(torchvision.models, name)(num_classes=10)
    assert repr(ours) == repr(theirs)
    expected = {key: tuple(value.shape) for key, value in theirs.state_dict().items()}
    assert {key: tuple(value.shape) for key, value in ours.state_dict().items()} == expected
    assert ours(gt.empty(2, 3, 64, 64, device="meta")).shape == (2, 10)


def test_vgg_initialises_its_layers():
    with gt.device("meta"):
        model = models.vgg11_bn(init_weights=False)
    model.features.to_empty(device="cpu")
    model.classifier = gt.nn.Linear(3, 3)
    model._initialize()
    assert model.features[0].bias.tolist() == [0.0] * 64
    assert model.features[1].weight.tolist() == [1.0] * 64
    assert abs(model.features[4].weight.std().item() - (2 / (128 * 9)) ** 0.5) < 1e-3
    assert model.classifier.weight.abs().max() < 0.05


def pair(torchvision, make):
    torch = pytest.importorskip("torch")
    gt.manual_seed(0)
    torch.manual_seed(0)
    return make(models, gt), make(torchvision.models, torch), torch


@pytest.mark.parametrize(
    "make",
    [
        lambda m, _: m.resnet18(num_classes=7),
        lambda m, _: m.resnet50(num_classes=7, zero_init_residual=True),
        lambda m, t: m.resnet18(norm_layer=lambda width: t.nn.GroupNorm(8, width)),
        lambda m, _: m.VisionTransformer(**SMALL_VIT),
        lambda m, _: m.VisionTransformer(**SMALL_VIT, representation_size=6),
    ],
)
def test_initialisation_is_torchvisions(torchvision, make):
    ours, theirs, _ = pair(torchvision, make)
    for (key, a), (expected_key, b) in zip(ours.state_dict().items(), theirs.state_dict().items()):
        assert key == expected_key
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=2e-6, atol=1e-7, err_msg=key)


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (lambda m, _: m.resnet18(num_classes=4), 48),
        (lambda m, _: m.resnet50(num_classes=4, replace_stride_with_dilation=(False, True, True)), 32),
        (lambda m, _: m.VisionTransformer(**SMALL_VIT), 16),
    ],
)
def test_results_and_gradients_are_torchvisions(torchvision, one_thread, make, size):
    ours, theirs, torch = pair(torchvision, make)
    # In float64: a batch as small as this leaves little of float32's digits.
    ours, theirs = ours.double(), theirs.double()
    # A head of zeros would hide everything before it.
    for (key, a), b in zip(ours.state_dict().items(), theirs.state_dict().values()):
        values = np.random.default_rng(0).normal(size=tuple(a.shape)) if key.startswith("heads") else b.numpy()
        a.copy_(gt.from_numpy(values))
        b.copy_(torch.from_numpy(values))
    images = np.random.default_rng(1).normal(size=(2, 3, size, size))
    results = []
    for library, model in ((gt, ours), (torch, theirs)):
        library.manual_seed(5)
        scores = model(library.from_numpy(images))
        scores.square().mean().backward()
        results.append((scores.detach().numpy(), {n: p.grad.numpy() for n, p in model.named_parameters()}))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-9, atol=1e-10)
    for name, gradient in results[1][1].items():
        assert np.abs(results[0][1][name] - gradient).max() <= 1e-9 * max(np.abs(gradient).max(), 1e-3), name


def test_torchvisions_files_load(torchvision, tmp_path):
    torch = pytest.importorskip("torch")
    theirs = torchvision.models.resnet18(num_classes=3)
    torch.save(theirs.state_dict(), tmp_path / "model.pth")
    ours = models.resnet18(num_classes=3)
    assert str(ours.load_state_dict(gt.load(tmp_path / "model.pth"))) == "<All keys matched successfully>"
    np.testing.assert_array_equal(ours.fc.weight.detach().numpy(), theirs.fc.weight.detach().numpy())


def test_old_names_of_vision_transformer_layers():
    model = models.VisionTransformer(**SMALL_VIT)
    state = model.state_dict()
    old = type(state)(
        (key.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."), value)
        for key, value in state.items()
    )
    assert old.keys() != state.keys()
    model.load_state_dict(old)


def test_compiled_model_is_the_eager_one():
    gt.manual_seed(0)
    model = models.VisionTransformer(**SMALL_VIT | {"dropout": 0.0})
    gt.nn.init.normal_(model.heads.head.weight)
    images = gt.randn(2, 3, 16, 16)
    np.testing.assert_allclose(
        gt.compile(model)(images).detach().numpy(), model(images).detach().numpy(), rtol=1e-5, atol=1e-6
    )


def test_lenet():
    assert models.LeNet()(gt.randn(2, 1, 28, 28)).shape == (2, 10)
    assert models.lenet(100, 3, 32)(gt.randn(2, 3, 32, 32)).shape == (2, 100)
    with pytest.raises(ValueError, match="28 x 28 or 32 x 32"):
        models.LeNet(image_size=30)


def test_listing_and_weights():
    assert {"resnet18", "vit_b_16", "lenet"} <= set(models.list_models())
    assert isinstance(models.get_model("ResNet18", num_classes=2), models.ResNet)
    with pytest.raises(ValueError, match="Unknown model nothing"):
        models.get_model("nothing")
    with pytest.raises(ValueError, match="no trained weights"):
        models.resnet18(weights="DEFAULT")
    with pytest.raises(AssertionError, match="Wrong image height! Expected 16 but got 8"):
        models.VisionTransformer(**SMALL_VIT)(gt.randn(1, 3, 8, 16))


@pytest.mark.parametrize(
    "make",
    [
        lambda o, _: o.MLP(5, [7, 3], dropout=0.2),
        lambda o, t: o.MLP(5, [7, 3], norm_layer=t.nn.LayerNorm, inplace=True, bias=False),
        lambda o, _: o.Conv2dNormActivation(3, 4, 5, dilation=2),
        lambda o, t: o.Conv2dNormActivation(3, 4, norm_layer=None, activation_layer=t.nn.SiLU, stride=2),
        lambda o, _: o.SqueezeExcitation(6, 2),
        lambda o, _: o.StochasticDepth(0.3, "row"),
    ],
)
def test_building_blocks(torchvision, make):
    torch = pytest.importorskip("torch")
    ours, theirs = make(ops, gt), make(torchvision.ops, torch)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())


@pytest.mark.parametrize("mode", ["row", "batch"])
def test_stochastic_depth(torchvision, mode):
    torch = pytest.importorskip("torch")
    for seed in range(4):
        gt.manual_seed(seed)
        torch.manual_seed(seed)
        got = ops.stochastic_depth(gt.ones(5, 2), 0.4, mode)
        np.testing.assert_allclose(
            got.numpy(), torchvision.ops.stochastic_depth(torch.ones(5, 2), 0.4, mode).numpy(), rtol=1e-6
        )
    with pytest.raises(ValueError, match="mode has to be"):
        ops.stochastic_depth(gt.ones(5, 2), 0.4, "column")


def test_frozen_batch_norm_takes_over_from_a_batch_norm() -> None:
    gt.manual_seed(0)
    norm = gt.nn.BatchNorm2d(3)
    for _ in range(3):
        norm(gt.randn(4, 3, 2, 2) * 2 + 1)
    frozen = ops.misc.FrozenBatchNorm2d(3)
    frozen.load_state_dict(norm.eval().state_dict())
    x = gt.randn(2, 3, 4, 4)
    assert gt.allclose(frozen(x), norm(x), atol=1e-6) and not list(frozen.parameters())
    assert repr(frozen) == "FrozenBatchNorm2d(3, eps=1e-05)"
