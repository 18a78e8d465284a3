"""segment_reduce, low-rank factors, histograms and rarer samplers beside PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphtorch

pytestmark = pytest.mark.filterwarnings("ignore")

EXPRESSIONS = """
t.segment_reduce(x, 'sum', lengths=t.tensor([2, 0, 4]))
t.segment_reduce(x, 'mean', lengths=t.tensor([2, 0, 4]))
t.segment_reduce(x, 'prod', lengths=t.tensor([2, 0, 4]))
t.segment_reduce(x, 'max', offsets=t.tensor([0, 2, 2, 6]))
t.segment_reduce(x, 'min', lengths=t.tensor([2, 0, 4]), initial=1.0)
t.segment_reduce(x, 'max', lengths=t.tensor([2, 0, 4]), initial=3.0)
t.segment_reduce(x, 'sum', lengths=t.tensor([[1, 1], [0, 2], [2, 0], [1, 1], [1, 1], [1, 1]]), axis=1)
t.segment_reduce(x, 'sum', lengths=t.tensor([2, 0, 3]))
t.segment_reduce(x, 'sum')
t.histogram(t.tensor([1.0, 2.0, 1.0, 5.0]), 4)
t.histogram(t.tensor([1.0, 2.0, 1.0]), t.tensor([0.0, 1.0, 2.0]), density=True)
t.histogram(t.tensor([1.0, 2.0, 1.0]), 3, range=(0.0, 3.0), weight=t.tensor([1.0, 2.0, 4.0]))
t.histogram(t.tensor([2.0, 2.0]), 2)
t.histogram(t.tensor([1, 2]), 3)
t.histogram(t.tensor([1.0, 2.0]), 0)
t.histogram(t.tensor([1.0, 2.0]), 3, range=(2.0, 1.0))
t.histogramdd(t.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 0.0], [2.0, 2.0]]), bins=[3, 2])
t.histogramdd(t.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]]), bins=2, density=True)
t.svd_lowrank(m, q=3)[1]
[f.abs() for f in t.svd_lowrank(m.t(), q=2, niter=3)]
[f.abs() for f in t.pca_lowrank(m, q=2)]
t.pca_lowrank(m, q=9)
t.empty(6).cauchy_()
t.empty(3, 2).t().log_normal_(0.5, 0.25)
t.empty(5).geometric_(0.3)
t.empty(5).geometric_(1.5)
t.empty(2).log_normal_(1.0, -1.0)
t.empty_permuted((2, 3, 4), (1, 2, 0)).stride()
2 << t.tensor([1, 2], dtype=t.int8)
""".strip().splitlines()


def shown(t: Any, text: str) -> str:
    t.manual_seed(0)
    m = t.from_numpy(np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32))
    try:
        return repr(eval(text, {"t": t, "x": t.arange(12.0).reshape(6, 2), "m": m}))
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_like_torch(text: str) -> None:
    torch = pytest.importorskip("torch")
    assert shown(graphtorch, text) == shown(torch, text)


@pytest.mark.parametrize("reduce", ["sum", "mean", "prod", "max", "min"])
def test_gradients_of_segments(reduce: str) -> None:
    torch = pytest.importorskip("torch")
    gradients = []
    for t in (graphtorch, torch):
        x = t.tensor([[1.0, 5.0], [2.0, 4.0], [3.0, -1.0], [0.5, 2.0]], requires_grad=True)
        lengths = t.tensor([1, 3])
        t.segment_reduce(x, reduce, lengths=lengths, unsafe=True).square().sum().backward()
        gradients.append(x.grad.tolist())
    assert np.allclose(*gradients)


def test_segments_compile() -> None:
    lengths = graphtorch.tensor([2, 0, 4])
    x = graphtorch.arange(12.0).reshape(6, 2)
    compiled = graphtorch.compile(lambda x: graphtorch.segment_reduce(x, "max", lengths=lengths, unsafe=True))
    assert compiled(x).tolist() == graphtorch.segment_reduce(x, "max", lengths=lengths).tolist()


MAIN_NAMESPACE = """
t.hann_window(5)
t.hann_window(5, periodic=False)
t.hamming_window(6)
t.hamming_window(4, True, 0.6, 0.3)
t.hamming_window(1)
t.blackman_window(5)
t.bartlett_window(6)
t.kaiser_window(5)
t.kaiser_window(5, False, 3.0)
t.hann_window(3, dtype=t.float64)
t.group_norm(x, 2)
t.cosine_similarity(x, x + 1)
t.pairwise_distance(x, x + 1)
t.pixel_shuffle(t.arange(16.0).reshape(1, 4, 2, 2), 2)
t.channel_shuffle(t.arange(8.0).reshape(1, 4, 1, 2), 2)
t.rms_norm(x, (2,))
t.threshold(x, 3.0, 0.0)
t.hardshrink(x, 2.0)
t.avg_pool1d(x[None], 2)
t.max_pool1d(x[None], 2)
t.conv3d(t.ones(1, 1, 2, 2, 2), t.ones(1, 1, 1, 1, 1))
""".strip().splitlines()


@pytest.mark.parametrize("text", MAIN_NAMESPACE)
def test_main_namespace(text: str) -> None:
    torch = pytest.importorskip("torch")
    assert shown(graphtorch, text) == shown(torch, text)
