"""Layers with several inputs, further losses and embedding bags beside PyTorch, eager and compiled."""

import inspect

import numpy as np
import pytest

import graphtorch as gt
from graphtorch import nn

torch = pytest.importorskip("torch")


def randn(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("dims", "shape"), [(1, (2, 4, 6)), (2, (2, 4, 6, 4)), (3, (2, 4, 4, 6, 2))], ids=["1d", "2d", "3d"]
)
def test_unpooling(dims, shape):
    results = []
    for library in (gt, torch):
        x = library.tensor(randn(*shape), requires_grad=True)
        pool = getattr(library.nn, f"MaxPool{dims}d")(2, return_indices=True)
        back = getattr(library.nn, f"MaxUnpool{dims}d")(2)
        pooled, indices = pool(x)
        y = back(pooled, indices, output_size=x.shape)
        (y * y).sum().backward()
        results.append((repr(back), indices.numpy(), y.detach().numpy(), x.grad.numpy()))
    assert results[0][0] == results[1][0]
    for ours, theirs in zip(results[0][1:], results[1][1:], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


LOSSES = {
    "MultiMarginLoss": ({"p": 2, "margin": 0.5}, [randn(5, 4)], [np.array([0, 3, 1, 1, 2])]),
    "MultiLabelMarginLoss": ({}, [randn(3, 4)], [np.array([[0, 2, -1, 1], [3, -1, 0, 0], [1, 2, 3, 0]])]),
    "MultiLabelSoftMarginLoss": ({}, [randn(5, 4)], [(randn(5, 4, seed=1) > 0).astype(np.float32)]),
    "TripletMarginWithDistanceLoss": ({"margin": 2.0}, [randn(5, 4), randn(5, 4, seed=1), randn(5, 4, seed=2)], []),
    "CTCLoss": (
        {"zero_infinity": True},
        [randn(7, 2, 5)],
        [np.array([[1, 2, 2], [4, 3, 0]]), np.array([7, 6]), np.array([3, 2])],
    ),
}


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", LOSSES)
def test_loss(name, reduction):
    options, floats, rest = LOSSES[name]
    results = []
    for library in (gt, torch, "compiled"):
        home = gt if library == "compiled" else library
        loss = getattr(home.nn, name)(**options, reduction=reduction)
        leaves = [home.tensor(a, requires_grad=True) for a in floats]

        def run(*inputs, loss=loss, name=name):
            first = inputs[0].log_softmax(-1) if name == "CTCLoss" else inputs[0]
            value = loss(first, *inputs[1:])
            (value * value.detach().cos()).sum().backward()
            return value.detach()

        execute = gt.compile(run, fullgraph=True) if library == "compiled" else run
        value = execute(*leaves, *(home.tensor(a) for a in rest))
        results.append((repr(loss), value.numpy(), [leaf.grad.numpy() for leaf in leaves]))
    (text, value, grads), expected, compiled = results
    assert text == expected[0]
    for other in (expected, compiled):
        np.testing.assert_allclose(value, other[1], rtol=2e-5, atol=1e-6)
        for a, b in zip(grads, other[2], strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6)


BAGS = [
    ({"mode": "sum"}, [[0, 3, 3], [5, 1, 0]], None),
    ({"mode": "mean", "padding_idx": 3}, [[0, 3, 3], [3, 3, 3]], None),
    ({"mode": "max"}, [0, 3, 3, 5, 1, 2], [0, 2, 2, 5]),
    ({"mode": "max", "padding_idx": 0}, [0, 3, 0, 5, 1, 2], [0, 1, 2]),
    ({"mode": "mean", "include_last_offset": True}, [0, 3, 3, 5, 1, 2], [0, 2, 6]),
    ({"mode": "sum", "scale_grad_by_freq": True}, [0, 5, 5, 3, 1, 2], [0, 2]),
    ({"max_norm": 1.0, "padding_idx": -1}, [0, 3, 3, 5, 1, 2], [0, 2]),
]


@pytest.mark.parametrize(("options", "indices", "offsets"), BAGS)
def test_embedding_bag(options, indices, offsets):
    results = []
    for library in (gt, torch, "compiled"):
        home = gt if library == "compiled" else library
        home.manual_seed(0)
        bag = home.nn.EmbeddingBag(6, 3, **options)
        given = [home.tensor(i) for i in (indices, offsets) if i is not None]

        def run(*given, bag=bag):
            y = bag(*given)
            (y * y.detach().cos()).sum().backward()
            return y.detach()

        y = (gt.compile(run, fullgraph=True) if library == "compiled" else run)(*given)
        results.append((repr(bag), y.numpy(), bag.weight.grad.numpy(), bag.weight.detach().numpy()))
    assert results[0][0] == results[1][0]
    for other in results[1:]:
        for a, b in zip(results[0][1:], other[1:], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_embedding_bag_with_weights_and_from_pretrained():
    results = []
    for library in (gt, torch):
        table = library.tensor(randn(6, 3))
        bag = library.nn.EmbeddingBag.from_pretrained(table, freeze=False, mode="sum")
        factors = library.tensor(randn(2, 3, seed=1), requires_grad=True)
        y = bag(library.tensor([[0, 3, 3], [5, 1, 0]]), per_sample_weights=factors)
        (y * y).sum().backward()
        results.append([y.detach().numpy(), factors.grad.numpy(), bag.weight.grad.numpy()])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "action",
    [
        lambda lib: lib.nn.InstanceNorm2d(3)(lib.ones(2, 3)),
        lambda lib: lib.nn.InstanceNorm2d(3, affine=True)(lib.ones(2, 4, 2, 2)),
        lambda lib: lib.nn.CircularPad1d(1)(lib.ones(2)),
        lambda lib: lib.nn.Hardtanh(1.0, 0.5),
        lambda lib: lib.nn.MultiMarginLoss(p=3),
        lambda lib: lib.nn.MultiMarginLoss(weight=lib.ones(2, 2)),
        lambda lib: lib.nn.TripletMarginWithDistanceLoss(margin=-1),
        lambda lib: lib.nn.EmbeddingBag(4, 2, padding_idx=4),
        lambda lib: lib.nn.EmbeddingBag(4, 2, mode="product")(lib.tensor([[1]])),
        lambda lib: lib.nn.EmbeddingBag(4, 2)(lib.tensor([1, 2])),
    ],
)
def test_errors_are_pytorchs(action):
    caught = []
    for library in (torch, gt):
        with pytest.raises(Exception) as error:
            action(library)
        caught.append((type(error.value).__name__, str(error.value)))
    assert caught[0] == caught[1]


@pytest.mark.filterwarnings("ignore")
def test_constructors_have_pytorchs_arguments():
    different = []
    for name in nn.modules.__all__:
        mine, theirs = getattr(nn, name), getattr(torch.nn, name)
        parameters = [
            {k: p.default for k, p in inspect.signature(c.__init__).parameters.items()} for c in (mine, theirs)
        ]
        if "kwargs" in parameters[1]:  # RNN, LSTM, GRU spell theirs out in overloads
            continue
        if list(parameters[0]) != list(parameters[1]):
            different.append((name, *map(list, parameters)))
    assert not different


def test_old_names_of_hardtanh():
    with pytest.warns(FutureWarning, match="`min_value` is deprecated and renamed to `min_val`"):
        assert nn.Hardtanh(min_value=-2.0).min_val == -2.0


def test_container_of_named_modules():
    shown = []
    for library in (gt, torch):
        with pytest.warns(FutureWarning, match="nn.Container"):
            shown.append(repr(library.nn.Container(a=library.nn.Linear(2, 3), b=library.nn.ReLU())))
    assert shown[0] == shown[1]


def test_factory_kwargs():
    for library in (gt, torch):
        made = library.nn.factory_kwargs({"dtype": 1, "factory_kwargs": {"device": 2}})
        assert made == {"dtype": 1, "device": 2}
        assert library.nn.factory_kwargs(None) == {}
        for wrong in ({"dtype": 1, "factory_kwargs": {"dtype": 2}}, {"bias": True}):
            with pytest.raises(TypeError):
                library.nn.factory_kwargs(wrong)
