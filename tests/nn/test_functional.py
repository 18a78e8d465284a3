"""Functions of nn.functional against PyTorch, where no layer covers them."""

import warnings

import numpy as np
import pytest

import graphtorch as gt
from graphtorch.nn import functional as F

torch = pytest.importorskip("torch")
TF = torch.nn.functional


def check(function, *arrays, rtol=1e-5, atol=1e-6):
    """``function(F, *tensors)`` in both libraries: value and gradients of the floating point inputs."""
    results = []
    for library, namespace in ((gt, F), (torch, TF)):
        library.manual_seed(0)
        leaves = [library.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
        y = function(namespace, *leaves)
        if y.requires_grad:
            (y * (y.detach() * 0.7).cos()).sum().backward()
        results.append((y, [leaf.grad for leaf in leaves]))
    (y, grads), (expected, expected_grads) = results
    assert tuple(y.shape) == tuple(expected.shape)
    np.testing.assert_allclose(y.detach().numpy(), expected.detach().numpy(), rtol=rtol, atol=atol)
    for ours, theirs in zip(grads, expected_grads, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-4, atol=1e-5)


def randn(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("amounts", [[1, 2], [0, 2, 1, 1]])
def test_pad(mode, amounts):
    x = randn(2, 3, 5) if len(amounts) == 2 else randn(2, 3, 4, 5)
    check(lambda f, a: f.pad(a, amounts, mode=mode), x)


def test_pad_with_value_and_negative_amounts():
    check(lambda f, a: f.pad(a, [1, -1, 2, 0], value=3.5), randn(3, 4))


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((2, 3, 5), {"size": 8, "mode": "nearest"}),
        ((2, 3, 4, 5), {"scale_factor": 2, "mode": "nearest"}),
        ((2, 3, 4, 5), {"size": (3, 9), "mode": "nearest-exact"}),
        ((2, 3, 4, 5), {"scale_factor": 2.0, "mode": "bilinear"}),
        ((2, 3, 4, 5), {"size": (7, 3), "mode": "bilinear", "align_corners": True}),
        ((2, 3, 5), {"size": 9, "mode": "linear", "align_corners": False}),
    ],
)
def test_interpolate(shape, options):
    check(lambda f, a: f.interpolate(a, **options), randn(*shape))


@pytest.mark.parametrize("causal", [True, False])
def test_attention(causal):
    q, k, v = randn(2, 3, 5, 4), randn(2, 3, 6, 4, seed=1), randn(2, 3, 6, 2, seed=2)
    check(lambda f, *t: f.scaled_dot_product_attention(*t, is_causal=causal), q, k, v)


def test_attention_masks_and_groups():
    q, k, v = randn(2, 4, 5, 4), randn(2, 2, 5, 4, seed=1), randn(2, 2, 5, 3, seed=2)
    mask = np.tril(np.ones((5, 5), dtype=bool), -1)  # the first row sees nothing
    check(lambda f, a, b, c, m: f.scaled_dot_product_attention(a, b, c, m, enable_gqa=True), q, k, v, mask)
    check(lambda f, a, b, c, m: f.scaled_dot_product_attention(a, b, c, m, scale=0.3), q, q, q[..., :3], randn(5, 5))


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_distances(p):
    a, b = randn(4, 3), randn(4, 3, seed=1)
    check(lambda f, x: f.normalize(x, p, dim=0), a)
    check(lambda f, x, y: f.pairwise_distance(x, y, p), a, b)


def test_cosine_similarity():
    check(lambda f, x, y: f.cosine_similarity(x, y), randn(4, 3), randn(4, 3, seed=1))
    check(lambda f, x, y: f.cosine_similarity(x, y, dim=0), randn(4), randn(4, seed=1))


def test_more_losses():
    a, b, c = randn(4, 3), randn(4, 3, seed=1), randn(4, 3, seed=2)
    signs = np.array([1, -1, 1, -1], dtype=np.float32)
    check(lambda f, x, y, t: f.cosine_embedding_loss(x, y, t.detach(), margin=0.1), a, b, signs)
    check(lambda f, x, y, z: f.triplet_margin_loss(x, y, z, swap=True), a, b, c)
    check(lambda f, x, y, t: f.margin_ranking_loss(x, y, t.detach(), margin=0.3), a[:, 0], b[:, 0], signs)
    check(lambda f, x, y, z: f.gaussian_nll_loss(x, y, z.abs(), full=True), a, b, c)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(lambda f, x, t: f.kl_div(x, t.softmax(1), reduction="batchmean"), a, b)


def test_weighted_regression_losses():
    a, b, w = randn(4, 3), randn(4, 3, seed=1), np.abs(randn(4, 3, seed=2))
    for name in ("mse_loss", "l1_loss", "huber_loss"):
        check(lambda f, x, y, z, name=name: getattr(f, name)(x, y, weight=z), a, b, w)


def test_mse_warns_about_broadcasting():
    with pytest.warns(UserWarning, match="Using a target size \\(torch.Size\\(\\[3\\]\\)\\) that is different"):
        F.mse_loss(gt.ones(2, 3), gt.ones(3))


def test_legacy_reduction_flags():
    with pytest.warns(UserWarning, match="please use reduction='sum' instead"):
        loss = F.mse_loss(gt.ones(3), gt.zeros(3), size_average=False)
    assert loss.item() == 3


def test_one_hot():
    labels = np.array([[0, 2], [1, 2]])
    assert F.one_hot(gt.tensor(labels)).tolist() == TF.one_hot(torch.tensor(labels)).tolist()
    assert F.one_hot(gt.tensor(labels), 4).tolist() == TF.one_hot(torch.tensor(labels), 4).tolist()


def test_batch_norm_evaluation_and_running_statistics():
    x = randn(5, 3, 2)
    for training in (True, False):
        results = []
        for library, f in ((gt, F), (torch, TF)):
            mean, var = library.tensor([0.1, 0.2, 0.3]), library.tensor([1.0, 2.0, 3.0])
            y = f.batch_norm(library.tensor(x), mean, var, training=training, momentum=0.3)
            results.append([t.numpy() for t in (y, mean, var)])
        for ours, theirs in zip(*results, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_instance_norm():
    check(lambda f, a: f.instance_norm(a), randn(2, 3, 4, 4))


def test_half_precision_normalisation_is_computed_in_float32():
    x = randn(4, 64) + 30
    for dtype in ("float16", "bfloat16"):
        ours = F.layer_norm(gt.tensor(x).to(getattr(gt, dtype)), (64,))
        theirs = TF.layer_norm(torch.tensor(x).to(getattr(torch, dtype)), (64,))
        np.testing.assert_allclose(ours.float().numpy(), theirs.float().numpy(), rtol=1e-2, atol=1e-2)


def test_gumbel_softmax_from_one_seed():
    x = randn(4, 3)
    for hard in (False, True):
        check(lambda f, a, hard=hard: f.gumbel_softmax(a, tau=0.7, hard=hard), x)


def test_binary_cross_entropy_at_the_bounds():
    x = np.array([0.0, 1.0, 0.0, 1.0], dtype=np.float32)
    t = np.array([0.0, 1.0, 1.0, 0.0], dtype=np.float32)
    ours = F.binary_cross_entropy(gt.tensor(x, requires_grad=True), gt.tensor(t), reduction="none")
    theirs = TF.binary_cross_entropy(torch.tensor(x), torch.tensor(t), reduction="none")
    np.testing.assert_array_equal(ours.detach().numpy(), theirs.numpy())
