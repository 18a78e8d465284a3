"""Parts of nn that few programs use: attention with changed scores, the joint linear loss, several devices."""

from __future__ import annotations

import numpy as np
import pytest

import graphtorch
from graphtorch.nn.attention import SDPBackend, flex_attention, sdpa_kernel

torch = pytest.importorskip("torch")
BOTH = (torch, graphtorch)


def array(tensor):
    return tensor.detach().numpy()


def causal(b, h, q, k):
    return q >= k


def near(b, h, q, k):
    return abs(q - k) < 3


def distance(score, b, h, q, k):
    return score + 0.1 * (h + 1) * (k - q)


@pytest.mark.parametrize("score_mod", [None, distance])
@pytest.mark.parametrize("mask", [None, causal, near])
@pytest.mark.parametrize("heads", [4, 2])
def test_flex_attention(score_mod, mask, heads):
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=s).astype(np.float32) for s in ((2, 4, 6, 8), (2, heads, 6, 8), (2, heads, 6, 5))]
    results = []
    for library in BOTH:
        module = pytest.importorskip(f"{library.__name__}.nn.attention.flex_attention")
        q, k, v = (library.from_numpy(a.copy()) for a in arrays)
        block = None if mask is None else module.create_block_mask(mask, None, None, 6, 6, device="cpu")
        out, lse = module.flex_attention(q, k, v, score_mod, block, enable_gqa=heads == 2, return_lse=True)
        results.append([array(out), array(lse)])
    for expected, actual in zip(*results, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_flex_attention_compiled_and_masks():
    flex = flex_attention.flex_attention
    masks = flex_attention
    x = graphtorch.randn(1, 2, 5, 4)
    both = masks.create_block_mask(masks.and_masks(causal, near), None, None, 5, 5)
    one = masks.create_block_mask(masks.or_masks(causal, near), None, None, 5, 5)
    dense = [masks.create_mask(m.mask_mod, None, None, 5, 5).sum().item() for m in (both, one)]
    assert dense[0] < dense[1] and both.shape == (1, 1, 5, 5)

    def run(x):
        return flex(x, x, x, score_mod=distance, block_mask=both)

    np.testing.assert_allclose(array(graphtorch.compile(run, fullgraph=True)(x)), array(run(x)), rtol=1e-5, atol=1e-6)
    x.requires_grad_()  # PyTorch has no backward of it on a CPU
    assert graphtorch.autograd.gradcheck(lambda x: run(x), x.double().detach().requires_grad_())
    with pytest.raises(ValueError, match="number of heads"):
        flex(x, x[:, :1], x[:, :1])
    with pytest.raises(ValueError, match="block_mask was created for"):
        flex(x[:, :, :3], x, x, block_mask=both)
    empty = masks.create_block_mask(lambda b, h, q, k: q > k + 10, None, None, 5, 5)
    np.testing.assert_array_equal(array(flex(x, x, x, block_mask=empty)), 0)
    with sdpa_kernel([SDPBackend.MATH, SDPBackend.FLASH_ATTENTION]):
        graphtorch.nn.functional.scaled_dot_product_attention(x, x, x)
    with pytest.raises(AssertionError), sdpa_kernel("math"):
        pass


@pytest.mark.parametrize("extra", [(), (3,)])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_linear_cross_entropy(extra, reduction, smoothing):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 6)).astype(np.float32)
    target = rng.integers(0, 5, (4, *extra))
    target[0] = 2
    results = []
    for library in BOTH:
        library.manual_seed(0)
        loss = library.nn.LinearCrossEntropyLoss(
            6, 5, out_features=extra, bias=True, reduction=reduction, ignore_index=2, label_smoothing=smoothing
        )
        found = loss(library.from_numpy(x), library.from_numpy(target))
        found.sum().backward()
        results.append((array(found), array(loss.linear.weight.grad), list(loss.state_dict()), repr(loss)))
    np.testing.assert_allclose(results[1][0], results[0][0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(results[1][1], results[0][1], rtol=1e-4, atol=1e-6)
    assert results[1][2:] == results[0][2:]


def test_modules_for_several_devices():
    model = graphtorch.nn.DataParallel(
        graphtorch.nn.Sequential(graphtorch.nn.Conv2d(3, 4, 3), graphtorch.nn.BatchNorm2d(4))
    )
    x = graphtorch.randn(2, 3, 8, 8)
    expected = array(model(x))
    assert next(iter(model.state_dict())) == "module.0.weight"
    synchronized = graphtorch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert isinstance(synchronized.module[1], graphtorch.nn.SyncBatchNorm)
    np.testing.assert_allclose(array(synchronized(x)), expected, rtol=1e-6)
    with pytest.raises(ValueError, match="expected at least 2D"):
        synchronized.module[1](graphtorch.ones(4))


def test_lobpcg():
    rng = np.random.default_rng(0)
    m = rng.normal(size=(12, 12))
    a = m @ m.T + np.diag(np.arange(12.0))
    b = np.diag(rng.uniform(1, 2, 12))
    for largest in (True, False):
        for metric in (None, b):
            results = []
            for library in BOTH:
                torch.manual_seed(0)
                given = None if metric is None else library.from_numpy(metric)
                results.append(library.lobpcg(library.from_numpy(a), 3, given, largest=largest, niter=500, tol=1e-12))
            np.testing.assert_allclose(array(results[1][0]), array(results[0][0]), rtol=1e-6)
            theirs, ours = array(results[0][1]), array(results[1][1])
            cosines = np.abs((theirs * ours).sum(0)) / np.linalg.norm(theirs, axis=0) / np.linalg.norm(ours, axis=0)
            np.testing.assert_allclose(cosines, 1, rtol=1e-5)
    with pytest.raises(ValueError, match="not applicable"):
        graphtorch.lobpcg(graphtorch.eye(5), 2)
    weights = graphtorch.from_numpy(a).requires_grad_()
    graphtorch.lobpcg(weights, 2)[0].sum().backward()
    assert np.isfinite(array(weights.grad)).all()


def test_airy_is_accurate():
    x = np.array([-60.0, -20.0, -8.0, -7.9, -2.0, 0.0, 1.0, 5.0, 30.0])
    found = array(graphtorch.special.airy_ai(graphtorch.from_numpy(x)))
    special = pytest.importorskip("scipy.special")
    np.testing.assert_allclose(found, special.airy(x)[0], rtol=1e-10, atol=1e-14)
    edges = graphtorch.tensor([float("nan"), float("inf"), -float("inf"), 200.0])
    np.testing.assert_array_equal(array(graphtorch.special.airy_ai(edges)), [np.nan, np.nan, np.nan, 0])
