"""The functions at the top of the namespace that have nn.functional's names and other arguments, beside PyTorch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import graphtorch

torch = pytest.importorskip("torch")

RNG = np.random.default_rng(0)


def A(*shape):
    return RNG.normal(size=shape).astype(np.float32)


x, w, b = A(2, 6, 5, 5), A(6), A(6)
W, WT, K, KB, E, H, L1, L2 = A(4, 6, 3, 3), A(6, 4, 3, 3), A(3, 5, 7), A(7), A(4, 5), A(4, 3), A(12, 5), A(12, 3)
CASES = {
    "batch_norm": lambda t, f: t.batch_norm(f(x), f(w), f(b), None, None, True, 0.1, 1e-5, False),
    "instance_norm": lambda t, f: t.instance_norm(f(x), f(w), f(b), None, None, True, 0.1, 1e-5, False),
    "native_layer_norm": lambda t, f: t.native_layer_norm(f(x), (5,), None, None, 1e-5),
    "native_group_norm": lambda t, f: t.native_group_norm(f(x), f(w), f(b), 2, 6, 25, 3, 1e-5),
    "native_batch_norm": lambda t, f: t.native_batch_norm(f(x), f(w), f(b), None, None, True, 0.1, 1e-5),
    "grid_sampler": lambda t, f: t.grid_sampler(f(x), f(np.tanh(A(2, 3, 3, 2) * 0 + 0.3)), 0, 1, False),
    "grid_sampler_2d": lambda t, f: t.grid_sampler_2d(f(x), f(np.full((2, 3, 3, 2), 0.3, "float32")), 2, 0, True),
    "alpha_dropout": lambda t, f: (t.manual_seed(0), t.alpha_dropout(f(x), 0.3, True))[1],
    "feature_dropout": lambda t, f: (t.manual_seed(0), t.feature_dropout(f(x), 0.3, True))[1],
    "feature_alpha_dropout": lambda t, f: (t.manual_seed(0), t.feature_alpha_dropout(f(x), 0.3, True))[1],
    "native_dropout": lambda t, f: (t.manual_seed(0), t.native_dropout(f(x), 0.3, True))[1],
    "dropout_": lambda t, f: (t.manual_seed(0), t.dropout_(f(x.copy()), 0.3, True))[1],
    "bce": lambda t, f: t.binary_cross_entropy_with_logits(f(w), f(np.abs(np.tanh(b))), None, None, 1),
    "kl": lambda t, f: t.kl_div(f(w), f(np.abs(b)), 2),
    "kl_mean": lambda t, f: t.kl_div(f(x), f(np.abs(x)), 1),
    "adaptive_max_pool1d": lambda t, f: t.adaptive_max_pool1d(f(x[0]), 2),
    "max_pool1d_with_indices": lambda t, f: t.max_pool1d_with_indices(f(x[0]), 2),
    "convolution": lambda t, f: t.convolution(f(x), f(W), None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1),
    "convT": lambda t, f: t.convolution(f(x), f(WT), None, [2, 2], [1, 1], [1, 1], True, [1, 1], 1),
    "conv_tbc": lambda t, f: t.conv_tbc(f(x[0]), f(K), f(KB), 1),
    "embedding_bag": lambda t, f: first(t.embedding_bag(f(E), t.tensor([0, 1, 2, 1]), t.tensor([0, 2]))),
    "embedding_renorm_": lambda t, f: t.embedding_renorm_(f(E.copy()), t.tensor([0, 1]), 0.5, 2.0),
    "norm_except_dim": lambda t, f: t.norm_except_dim(f(W), 2, 0),
    "frobenius_norm": lambda t, f: t.frobenius_norm(f(E), (0, 1)),
    "nuclear_norm": lambda t, f: t.nuclear_norm(f(E)),
    "lstm_cell": lambda t, f: t.lstm_cell(f(E), (f(H), f(H)), f(L1), f(L2)),
    "gru_cell": lambda t, f: t.gru_cell(f(E), f(H), f(L1[:9]), f(L2[:9])),
    "rnn": lambda t, f: t.rnn_tanh_cell(f(E), f(H), f(L1[:3]), f(L2[:3])),
    "triplet": lambda t, f: t.triplet_margin_loss(f(E), f(E + 1), f(E * 2)),
    "cos": lambda t, f: t.cosine_embedding_loss(f(E), f(E + 1), f(np.ones(4, "float32"))),
    "ctc": lambda t, f: t.ctc_loss(
        t.log_softmax(f(x[0]), -1),
        t.tensor([[1, 2], [2, 3], [1, 1], [1, 2], [3, 2]]),
        t.tensor([6] * 5),
        t.tensor([2] * 5),
        0,
        1,
        False,
    ),
    "rrelu_": lambda t, f: (t.manual_seed(0), t.rrelu_(f(x.copy()), 0.1, 0.3, True))[1],
    "threshold_": lambda t, f: t.threshold_(f(x.copy()), 0.1, 0.3),
}


def layers_of(kind, library, bias, bidirectional, batch_first, projected, packed):
    """A recurrent function of two layers on a dense or a packed batch, with weights that PyTorch's layer draws."""
    torch.manual_seed(0)
    options = {"num_layers": 2, "bias": bias, "bidirectional": bidirectional}
    if kind.startswith("rnn"):
        layer = torch.nn.RNN(3, 4, nonlinearity=kind[4:], **options)
    else:
        layer = getattr(torch.nn, kind.upper())(3, 4, **options, **({"proj_size": 2} if projected else {}))
    given = lambda *shape: library.from_numpy(rng.normal(size=shape).astype("float32"))  # noqa: E731
    rng = np.random.default_rng(1)
    weights = [library.from_numpy(w.detach().numpy()) for group in layer.all_weights for w in group]
    count = 4 if bidirectional else 2
    hidden, cell = given(count, 2, 2 if projected else 4), given(count, 2, 4)
    state = [hidden, cell] if kind == "lstm" else hidden
    data = (
        (given(8, 3), library.tensor([2, 2, 2, 1, 1])) if packed else (given(*((2, 5) if batch_first else (5, 2)), 3),)
    )
    last = () if packed else (batch_first,)
    return getattr(library, kind)(*data, state, weights, bias, 2, 0.0, False, bidirectional, *last)


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn_tanh", "rnn_relu"])
@pytest.mark.parametrize("packed", [False, True], ids=["dense", "packed"])
def test_recurrent_layers_as_functions(kind, packed):
    for bias, bidirectional, batch_first, projected in itertools.product((False, True), repeat=4):
        if projected and kind != "lstm":
            continue
        options = (bias, bidirectional, batch_first, projected, packed)
        ours, theirs = (layers_of(kind, library, *options) for library in (graphtorch, torch))
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-5, atol=1e-6)


def test_recurrent_functions_refuse_other_arguments():
    for library in (graphtorch, torch):
        with pytest.raises(TypeError, match="invalid combination of arguments"):
            library.lstm(library.ones(2, 2))


def first(found):
    return found[0] if isinstance(found, tuple) else found


@pytest.mark.parametrize("name", CASES)
def test_values_are_pytorchs(name):
    results = []
    for library in (torch, graphtorch):
        found = CASES[name](library, lambda a, lib=library: lib.from_numpy(a.copy()))
        results.append(found if isinstance(found, tuple | list) else (found,))
    for expected, actual in zip(*results, strict=True):
        assert str(actual.dtype) == str(expected.dtype)
        np.testing.assert_allclose(actual.detach().numpy(), expected.detach().numpy(), rtol=2e-5, atol=2e-5)
