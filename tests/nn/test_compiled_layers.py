"""Layers inside compiled functions: values, gradients, buffers and random numbers of eager execution."""

import numpy as np
import pytest

import graphtorch as gt
from graphtorch import nn

IMAGE = (2, 4, 6, 6)
LAYERS = [
    (lambda: nn.Linear(6, 3), (2, 6)),
    (lambda: nn.Conv2d(4, 6, 3, padding=1), IMAGE),
    (lambda: nn.Conv1d(4, 6, 3, stride=2), (2, 4, 9)),
    (lambda: nn.ConvTranspose2d(4, 2, 3, stride=2), IMAGE),
    (lambda: nn.MaxPool2d(2), IMAGE),
    (lambda: nn.AvgPool2d(2), IMAGE),
    (lambda: nn.AdaptiveAvgPool2d((3, 2)), IMAGE),
    (lambda: nn.LayerNorm(6), IMAGE),
    (lambda: nn.GroupNorm(2, 4), IMAGE),
    (lambda: nn.RMSNorm(6), IMAGE),
    (lambda: nn.BatchNorm2d(4), IMAGE),
    (lambda: nn.BatchNorm2d(4, momentum=None), IMAGE),
    (lambda: nn.Dropout(0.4), (4, 6)),
    (lambda: nn.Dropout2d(0.4), IMAGE),
    (lambda: nn.AlphaDropout(0.4), (4, 6)),
    (lambda: nn.Sequential(nn.GELU(), nn.SiLU(), nn.Softplus(), nn.ELU()), (4, 6)),
    (lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Softmax(1)), (4, 6)),
    (lambda: nn.Sequential(nn.Hardswish(), nn.Hardtanh(), nn.LogSigmoid(), nn.Mish()), (4, 6)),
    (lambda: nn.PReLU(4), IMAGE),
    (lambda: nn.GLU(), (4, 6)),
    (lambda: Itself(nn.MultiheadAttention(6, 2, dropout=0.2)), (5, 3, 6)),
    (lambda: nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), IMAGE),
    (lambda: nn.Conv3d(4, 6, 2, padding=1), (2, 4, 3, 5, 4)),
    (lambda: nn.ConvTranspose3d(4, 2, 2, stride=2), (2, 4, 2, 3, 2)),
    (lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True), IMAGE),
    (lambda: nn.LocalResponseNorm(3, alpha=0.1), IMAGE),
    (lambda: nn.CrossMapLRN2d(3, alpha=0.5), IMAGE),
    (lambda: nn.Sequential(nn.CircularPad2d(1), nn.ReplicationPad2d(1), nn.ZeroPad2d(1), nn.MaxPool2d(2)), IMAGE),
    (lambda: nn.Sequential(nn.PixelShuffle(2), nn.Upsample(scale_factor=0.5, mode="bicubic")), IMAGE),
    (lambda: nn.Sequential(nn.Unfold(2, stride=2), nn.Fold(6, 2, stride=2)), IMAGE),
    (lambda: nn.AdaptiveMaxPool2d((4, 3)), IMAGE),
]


class Itself(nn.Module):
    """Self-attention."""

    def __init__(self, attention):
        super().__init__()
        self.attention = attention

    def forward(self, x):
        y, weights = self.attention(x, x, x)
        return y + weights.sum()


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(("make", "shape"), LAYERS)
def test_layer(make, shape, training):
    data = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    results = []
    for compiled in (False, True):
        gt.manual_seed(0)
        layer = make().train(training)

        def step(x, layer=layer):
            y = layer(x * 1)
            (y * y.detach().cos()).sum().backward()
            return y.detach()

        run = gt.compile(step, fullgraph=True) if compiled else step
        seen = []
        for _ in range(2):
            x = gt.tensor(data, requires_grad=True)
            y = run(x)
            seen += [y.numpy(), x.grad.numpy()]
        seen += [p.grad.numpy() for p in layer.parameters()] + [b.numpy() for b in layer.buffers()]
        results.append(seen)
    for eager, ours in zip(*results, strict=True):
        np.testing.assert_allclose(ours, eager, rtol=2e-4, atol=2e-5)


LOSSES = [
    (nn.MSELoss, False),
    (nn.L1Loss, False),
    (nn.SmoothL1Loss, False),
    (nn.HuberLoss, False),
    (nn.BCEWithLogitsLoss, False),
    (nn.CrossEntropyLoss, True),
    (lambda: nn.CrossEntropyLoss(label_smoothing=0.1, ignore_index=1), True),
    (lambda: nn.CrossEntropyLoss(weight=gt.tensor([0.5, 1.0, 2.0]), reduction="sum"), True),
    (lambda: nn.KLDivLoss(reduction="batchmean"), False),
]


@pytest.mark.parametrize(("make", "classes"), LOSSES)
def test_loss(make, classes):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 3)).astype(np.float32)
    target = rng.integers(0, 3, 6) if classes else rng.random((6, 3)).astype(np.float32)
    results = []
    for compiled in (False, True):
        loss = make()

        def step(x, t, loss=loss):
            value = loss(x, t)
            value.backward()
            return value.detach()

        leaf = gt.tensor(x, requires_grad=True)
        value = (gt.compile(step, fullgraph=True) if compiled else step)(leaf, gt.tensor(target))
        results.append((value.numpy(), leaf.grad.numpy()))
    for eager, ours in zip(*results, strict=True):
        np.testing.assert_allclose(ours, eager, rtol=1e-5, atol=1e-7)


def test_compile_method():
    gt.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    x = gt.randn(5, 3)
    expected = net(x)
    net.compile()
    assert gt.allclose(net(x), expected)
    net(x).sum().backward()
    assert net[0].weight.grad is not None
    assert next(iter(net.state_dict())) == "0.weight"


def test_training_mode_and_replaced_layers_are_seen():
    net = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))
    run = gt.compile(lambda x: net(x))
    x = gt.ones(4, 3)
    run(x)
    net.eval()
    assert gt.allclose(run(x), net(x))
    net[0] = nn.Linear(3, 3)
    assert gt.allclose(run(x), net(x))
