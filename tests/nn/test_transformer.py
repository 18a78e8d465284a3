"""Transformer layers beside PyTorch, and the same compiled."""

import numpy as np
import pytest

import graphtorch as gt
from graphtorch import nn

torch = pytest.importorskip("torch")

SMALL = {"d_model": 8, "nhead": 2, "dim_feedforward": 12}
OPTIONS = [
    {},
    {"norm_first": True, "batch_first": True, "activation": "gelu"},
    {"bias": False, "dropout": 0.0, "layer_norm_eps": 1e-3, "batch_first": True},
]


def build(make):
    gt.manual_seed(0)
    ours = make(gt)
    torch.manual_seed(0)
    return ours, make(torch)


def assert_same_module(ours, theirs):
    # PyTorch stores a choice of implementations on its layers; text and parameters are what counts.
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for key, value in theirs.state_dict().items():
        np.testing.assert_array_equal(ours.state_dict()[key].numpy(), value.numpy())


def compare(ours, theirs, call, shapes, training):
    """Results and gradients of `call(library, module, *inputs)`."""
    results = []
    for library, module in ((gt, ours), (torch, theirs)):
        module.train(training)
        rng = np.random.default_rng(0)
        inputs = [library.tensor(rng.standard_normal(s), dtype=library.float32, requires_grad=True) for s in shapes]
        library.manual_seed(1)
        y = call(library, module, *inputs)
        (y * y.detach().cos()).sum().backward()
        results.append([y.detach(), *(t.grad for t in inputs), *(p.grad for p in module.parameters())])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=2e-4, atol=3e-5)


def padding(library):
    return library.tensor([[False, False, False, False, True], [False, False, True, True, True]])


def causal(library, size):
    return library.nn.Transformer.generate_square_subsequent_mask(size)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.filterwarnings("ignore:enable_nested_tensor", "ignore:Support for mismatched")
def test_encoder(options, training):
    def make(library):
        layer = library.nn.TransformerEncoderLayer(**SMALL, **options)
        return library.nn.TransformerEncoder(layer, 2, library.nn.LayerNorm(8))

    ours, theirs = build(make)
    assert_same_module(ours, theirs)
    shape = (2, 5, 8) if options.get("batch_first") else (5, 2, 8)
    compare(ours, theirs, lambda lib, m, x: m(x), [shape], training)
    compare(
        ours,
        theirs,
        lambda lib, m, x: m(x, mask=causal(lib, 5), src_key_padding_mask=padding(lib), is_causal=True),
        [shape],
        training,
    )


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.filterwarnings("ignore:enable_nested_tensor", "ignore:Support for mismatched")
def test_transformer(options, training):
    ours, theirs = build(lambda lib: lib.nn.Transformer(**SMALL, num_encoder_layers=1, num_decoder_layers=2, **options))
    assert_same_module(ours, theirs)
    shapes = [(2, 5, 8), (2, 3, 8)] if options.get("batch_first") else [(5, 2, 8), (3, 2, 8)]
    compare(
        ours,
        theirs,
        lambda lib, m, s, t: m(
            s, t, tgt_mask=causal(lib, 3), src_key_padding_mask=padding(lib), memory_key_padding_mask=padding(lib)
        ),
        shapes,
        training,
    )


def test_without_a_batch_and_activations():
    def activation(x):
        return x * x.sigmoid()

    ours, theirs = build(lambda lib: lib.nn.TransformerDecoderLayer(**SMALL, activation=activation))
    compare(ours, theirs, lambda lib, m, t, s: m(t, s), [(3, 8), (5, 8)], training=False)
    np.testing.assert_array_equal(causal(gt, 3).numpy(), causal(torch, 3).numpy())


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda: nn.TransformerEncoderLayer(8, 2, activation="tanh"), "activation should be relu/gelu, not tanh"),
        (lambda: nn.Transformer(**SMALL)(gt.ones(2, 3, 8), gt.ones(2, 4, 8)), "the batch number of src and tgt must"),
        (lambda: nn.Transformer(**SMALL)(gt.ones(2, 3, 8), gt.ones(2, 3, 6)), "the feature number of src and tgt"),
    ],
)
def test_errors(action, message):
    with pytest.raises(RuntimeError) as caught:
        action()
    assert message in str(caught.value)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_compiled_equals_eager(training):
    rng = np.random.default_rng(0)
    source, target = (rng.standard_normal(s).astype(np.float32) for s in ((2, 5, 8), (2, 3, 8)))
    results = []
    for compiled in (False, True):
        gt.manual_seed(0)
        net = nn.Transformer(
            **SMALL, num_encoder_layers=1, num_decoder_layers=1, batch_first=True, activation="gelu"
        ).train(training)
        optimizer = gt.optim.AdamW(net.parameters(), lr=0.01)
        mask = causal(gt, 3)

        def step(s, t, net=net, optimizer=optimizer, mask=mask):
            optimizer.zero_grad()
            loss = net(s, t, tgt_mask=mask, src_key_padding_mask=padding(gt)).square().mean()
            loss.backward()
            optimizer.step()
            return loss

        run = gt.compile(step, fullgraph=True) if compiled else step
        results.append([run(gt.tensor(source), gt.tensor(target)).item() for _ in range(3)])
    np.testing.assert_allclose(results[1], results[0], rtol=2e-4)
