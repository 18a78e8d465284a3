"""Recurrent layers, cells and packed sequences beside PyTorch, and the same compiled."""

import numpy as np
import pytest

import graphtorch as gt
from graphtorch import nn
from graphtorch.nn.utils import rnn

torch = pytest.importorskip("torch")

LAYERS = [
    ("RNN", (3, 5), {}),
    ("RNN", (3, 5), {"nonlinearity": "relu", "num_layers": 2, "bidirectional": True, "bias": False}),
    ("GRU", (3, 5), {"num_layers": 2, "dropout": 0.4}),
    ("GRU", (3, 5), {"bidirectional": True, "batch_first": True, "bias": False}),
    ("LSTM", (3, 5), {}),
    ("LSTM", (3, 5), {"num_layers": 3, "dropout": 0.3, "bidirectional": True, "batch_first": True}),
    ("LSTM", (3, 5), {"proj_size": 2, "num_layers": 2, "bidirectional": True}),
]


def build(name, args, kwargs):
    gt.manual_seed(0)
    ours = getattr(nn, name)(*args, **kwargs)
    torch.manual_seed(0)
    return ours, getattr(torch.nn, name)(*args, **kwargs)


def flat(output):
    """All tensors in nested results."""
    if isinstance(output, (tuple, list)):
        return [t for part in output if part is not None for t in flat(part)]
    return [output]


def assert_same(ours, theirs, **tolerance):
    for a, b in zip(flat(ours), flat(theirs), strict=True):
        assert tuple(a.shape) == tuple(b.shape)
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), **{"rtol": 1e-4, "atol": 2e-6, **tolerance})


def states(library, layer, batch, rng):
    """A first state for `layer`."""
    rows = layer.num_layers * (2 if layer.bidirectional else 1)
    sizes = [layer.proj_size or layer.hidden_size] + [layer.hidden_size] * (layer.mode == "LSTM")
    made = tuple(
        library.tensor(rng.standard_normal((rows, *batch, size)), dtype=library.float32, requires_grad=True)
        for size in sizes
    )
    return made if layer.mode == "LSTM" else made[0]


def run(library, layer, x, hx=None):
    """The results, and the gradients of the input, the state and the parameters."""
    library.manual_seed(3)
    result = layer(x, hx)
    outputs = [t for t in flat(result) if t.is_floating_point()]
    sum((t * t.detach().cos()).sum() for t in outputs).backward()
    leaves = ([] if hx is None else flat(hx)) + list(layer.parameters())
    return result, [leaf.grad for leaf in leaves]


@pytest.mark.parametrize(("name", "args", "kwargs"), LAYERS)
def test_layer(name, args, kwargs):
    ours, theirs = build(name, args, kwargs)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for key, value in theirs.state_dict().items():
        np.testing.assert_array_equal(ours.state_dict()[key].numpy(), value.numpy())
    assert [len(w) for w in ours.all_weights] == [len(w) for w in theirs.all_weights]
    data = np.random.default_rng(0).standard_normal((4, 2, 3)).astype(np.float32)
    for with_state in (False, True):
        results = []
        for library, layer in ((gt, ours), (torch, theirs)):
            layer.zero_grad()
            x = library.tensor(data, requires_grad=True)
            batch = x.shape[0 if layer.batch_first else 1]
            hx = states(library, layer, (batch,), np.random.default_rng(1)) if with_state else None
            results.append((*run(library, layer, x, hx), x.grad))
        assert_same(*results, atol=1e-5)


@pytest.mark.parametrize(("name", "args", "kwargs"), LAYERS)
def test_without_a_batch(name, args, kwargs):
    ours, theirs = build(name, args, {**kwargs, "dropout": 0.0})
    data = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    results = []
    for library, layer in ((gt, ours), (torch, theirs)):
        hx = states(library, layer, (), np.random.default_rng(1))
        results.append((layer(library.tensor(data)), layer(library.tensor(data), hx)))
    assert_same(*results)


@pytest.mark.parametrize("enforce_sorted", [True, False])
@pytest.mark.parametrize(("name", "args", "kwargs"), LAYERS)
def test_packed(name, args, kwargs, enforce_sorted):
    ours, theirs = build(name, args, kwargs)
    lengths = [5, 3, 3, 1] if enforce_sorted else [1, 3, 5, 3]
    data = np.random.default_rng(0).standard_normal((5, 4, 3)).astype(np.float32)
    for with_state in (False, True):
        results = []
        for library, layer in ((gt, ours), (torch, theirs)):
            layer.zero_grad()
            x = library.tensor(data, requires_grad=True)
            packed = library.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=enforce_sorted)
            hx = states(library, layer, (4,), np.random.default_rng(1)) if with_state else None
            (output, state), grads = run(library, layer, packed, hx)
            assert type(output).__name__ == "PackedSequence"
            padded = library.nn.utils.rnn.pad_packed_sequence(output, padding_value=-1.0, total_length=6)
            results.append((padded, state, grads, x.grad))
        assert_same(*results, atol=1e-5)


def test_packing_is_pytorchs():
    rng = np.random.default_rng(0)
    rows = [rng.standard_normal((n, 2)).astype(np.float32) for n in (2, 4, 1)]
    for batch_first in (False, True):
        results = []
        for library in (gt, torch):
            tools = library.nn.utils.rnn
            sequences = [library.tensor(r) for r in rows]
            padded = tools.pad_sequence(sequences, batch_first, padding_value=7.0)
            left = tools.pad_sequence(sequences, batch_first, padding_side="left")
            lengths = library.tensor([2, 4, 1])
            packed = tools.pack_padded_sequence(padded, lengths, batch_first, enforce_sorted=False)
            back = tools.pad_packed_sequence(packed, batch_first)
            results.append((padded, left, packed, back, tools.unpack_sequence(packed)))
            assert repr(packed)[:20] == "PackedSequence(data="
            restored = tools.unpad_sequence(padded.clone(), lengths, batch_first)
            for row, expected in zip(restored, rows, strict=True):
                np.testing.assert_array_equal(row.numpy(), expected)
        assert_same(*results)
    ours = rnn.pack_sequence([gt.tensor(r) for r in rows], enforce_sorted=False)
    assert ours.double().data.dtype is gt.float64 and ours.to(dtype=gt.float32) is ours and not ours.is_cuda


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        (lambda: rnn.pack_padded_sequence(gt.ones(3, 2), [1, 3]), RuntimeError, "must be sorted in decreasing order"),
        (lambda: rnn.pack_padded_sequence(gt.ones(3, 2), [3]), RuntimeError, "Expected `len(lengths)` to be equal"),
        (lambda: rnn.pack_padded_sequence(gt.ones(3, 2), [3, 0]), RuntimeError, "has to be greater than 0"),
        (lambda: rnn.pack_padded_sequence(gt.ones(3, 2), [4, 1]), RuntimeError, "sequence length to be at most 3"),
        (lambda: rnn.pad_sequence(3), RuntimeError, "Expected iterable for input sequences"),
        (
            lambda: rnn.pad_packed_sequence(rnn.pack_sequence([gt.ones(3)]), total_length=2),
            ValueError,
            "Expected total_length to be at least",
        ),
        (lambda: nn.LSTM(3, 4, dropout=2), ValueError, "dropout should be a number in range [0, 1]"),
        (lambda: nn.GRU(3, 0), ValueError, "hidden_size must be greater than zero"),
        (lambda: nn.GRU(3.0, 2), TypeError, "input_size should be of type int, got: float"),
        (lambda: nn.LSTM(3, 4, proj_size=4), ValueError, "proj_size has to be smaller than hidden_size"),
        (lambda: nn.RNN(3, 4, nonlinearity="sin"), ValueError, "Unknown nonlinearity 'sin'"),
        (lambda: nn.RNNBase("CNN", 3, 4), ValueError, "Unrecognized RNN mode: CNN"),
        (lambda: nn.LSTM(3, 4)(gt.ones(2, 2, 5)), RuntimeError, "Expected 3, got 5"),
        (lambda: nn.LSTM(3, 4)(gt.ones(2)), ValueError, "LSTM: Expected input to be 2D or 3D, got 1D instead"),
        (lambda: nn.GRU(3, 4)(gt.ones(2, 2, 3), gt.ones(1, 4)), RuntimeError, "hx should also be 3-D but got 2-D"),
        (
            lambda: nn.GRU(3, 4)(gt.ones(2, 2, 3), gt.ones(1, 3, 4)),
            RuntimeError,
            "Expected hidden size (1, 2, 4), got [1, 3, 4]",
        ),
        (lambda: nn.GRU(3, 4)(gt.ones(2, 2, 3).double()), ValueError, "RNN input dtype (torch.float64) does not match"),
        (lambda: nn.GRUCell(3, 4)(gt.ones(2, 2, 3)), ValueError, "GRUCell: Expected input to be 1D or 2D, got 3D"),
    ],
)
def test_errors(action, error, message):
    with pytest.raises(error) as caught:
        action()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("RNNCell", {}),
        ("RNNCell", {"nonlinearity": "relu", "bias": False}),
        ("LSTMCell", {}),
        ("GRUCell", {"bias": False}),
    ],
)
@pytest.mark.parametrize("batch", [(), (4,)], ids=["one", "batch"])
def test_cell(name, kwargs, batch):
    ours, theirs = build(name, (3, 5), kwargs)
    assert repr(ours) == repr(theirs)
    assert_same(list(ours.state_dict().values()), list(theirs.state_dict().values()), rtol=0, atol=0)
    results = []
    for library, cell in ((gt, ours), (torch, theirs)):
        rng = np.random.default_rng(0)
        x = library.tensor(rng.standard_normal((*batch, 3)), dtype=library.float32, requires_grad=True)
        first = cell(x)
        second = cell(x * 2, first)
        sum((t * t).sum() for t in flat(second)).backward()
        results.append((first, second, x.grad, [p.grad for p in cell.parameters()]))
    assert_same(*results)


@pytest.mark.parametrize(("name", "args", "kwargs"), LAYERS)
def test_compiled_training_equals_eager(name, args, kwargs):
    data = np.random.default_rng(0).standard_normal((4, 2, 3)).astype(np.float32)
    results = []
    for compiled in (False, True):
        gt.manual_seed(0)
        layer = getattr(nn, name)(*args, **kwargs)
        optimizer = gt.optim.SGD(layer.parameters(), lr=0.1)

        def step(x, layer=layer, optimizer=optimizer):
            optimizer.zero_grad()
            loss = layer(x)[0].square().mean()
            loss.backward()
            optimizer.step()
            return loss

        execute = gt.compile(step, fullgraph=True) if compiled else step
        losses = [execute(gt.tensor(data)).item() for _ in range(3)]
        results.append([np.array(losses), *(p.detach().numpy() for p in layer.parameters())])
    for ours, eager in zip(results[1], results[0], strict=True):
        np.testing.assert_allclose(ours, eager, rtol=1e-4, atol=1e-6)


def test_compiled_packed_sequences_equal_eager():
    gt.manual_seed(0)
    layer = nn.GRU(3, 4, bidirectional=True)

    def step(x):
        output, state = layer(rnn.pack_padded_sequence(x, [1, 4, 2], enforce_sorted=False))
        padded, _ = rnn.pad_packed_sequence(output)
        return padded, state

    x = gt.randn(4, 3, 3)
    assert_same(gt.compile(step, fullgraph=True)(x), step(x))


def test_a_dropout_that_does_nothing_warns():
    with pytest.warns(UserWarning, match="non-zero dropout expects num_layers greater than 1"):
        nn.GRU(2, 2, dropout=0.1)


@pytest.mark.parametrize("backend", ["cpu", "numpy"])
def test_lengths_may_be_an_argument_of_a_compiled_function(backend):
    gt.manual_seed(0)
    layer = gt.nn.GRU(3, 4, bidirectional=True)

    def run(x, lengths):
        packed = rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
        output, sizes = rnn.pad_packed_sequence(layer(packed)[0])
        return output.sum(0), sizes

    compiled = gt.compile(run, backend=backend)
    for lengths in ([4, 2, 1], [4, 2, 1], [2, 4, 3]):
        x, sizes = gt.randn(4, 3, 3), gt.tensor(lengths)
        found, counted = compiled(x, sizes)
        wanted, _ = run(x, sizes)
        assert found.allclose(wanted, atol=1e-6)
        assert counted.tolist() == lengths


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"bias": False, "num_layers": 2}])
@pytest.mark.parametrize("mode", ["LSTM", "GRU"])
def test_native_steps_are_those_of_numpy(mode, options, monkeypatch):
    pytest.importorskip("llvmlite")
    from graphtorch.nn.functional import recurrent_steps
    from graphtorch.ops import native

    gt.manual_seed(0)
    layer = getattr(gt.nn, mode)(6, 8, **options)
    x = gt.randn(9, 5, 6, requires_grad=True)

    def run():
        outputs, state = layer(x)
        loss = (outputs**2).sum()
        for n, part in enumerate(state if mode == "LSTM" else (state,)):
            loss = loss + (n + 1) * (part**3).sum()
        whole = gt.autograd.grad(loss, [x, *layer.parameters()])
        return [outputs.detach(), *whole, *gt.autograd.grad(layer(x)[0].sum(), [x, *layer.parameters()])]

    steps = []
    known = native.step
    monkeypatch.setattr(native, "step", lambda *given: steps.append(mode) or known(*given))
    monkeypatch.setattr(recurrent_steps, "LEAST", 1)
    ours = run()
    assert steps
    monkeypatch.setattr(native.switch, "on", False)
    for a, b in zip(ours, run(), strict=True):
        np.testing.assert_allclose(a._data, b._data, rtol=1e-5, atol=1e-6)


def test_without_native_steps_going_back_numpy_does_it(monkeypatch):
    pytest.importorskip("llvmlite")
    from graphtorch.nn.functional import recurrent_steps
    from graphtorch.ops import native

    monkeypatch.setattr(recurrent_steps, "LEAST", 1)
    layer, x = gt.nn.LSTM(6, 8), gt.randn(9, 5, 6)
    whole = gt.autograd.grad(layer(x)[0].sum(), list(layer.parameters()))
    monkeypatch.setattr(native, "gradient_step", lambda *given: None)
    for a, b in zip(whole, gt.autograd.grad(layer(x)[0].sum(), list(layer.parameters())), strict=True):
        np.testing.assert_allclose(a._data, b._data, rtol=1e-5, atol=1e-6)
