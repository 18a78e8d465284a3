"""Layers against PyTorch: text, state dict, initial values from one seed, outputs and gradients."""

import warnings

import numpy as np
import pytest

import graphtorch as gt
from graphtorch import nn

torch = pytest.importorskip("torch")

IMAGE = (2, 4, 6, 6)
SPACE = (2, 4, 3, 5, 4)
# name, constructor arguments, keyword arguments, input shape
LAYERS = [
    ("Identity", (), {}, (2, 3)),
    ("Linear", (3, 5), {}, (4, 3)),
    ("Linear", (3, 5), {"bias": False}, (2, 4, 3)),
    ("Linear", (3, 5), {}, (3,)),
    ("Flatten", (), {}, (2, 3, 4)),
    ("Flatten", (0, 1), {}, (2, 3, 4)),
    ("Unflatten", (1, (2, 3)), {}, (2, 6)),
    ("Conv2d", (4, 6, 3), {}, IMAGE),
    ("Conv2d", (4, 6, (3, 2)), {"stride": 2, "padding": (1, 2), "bias": False}, IMAGE),
    ("Conv2d", (4, 6, 3), {"dilation": 2, "groups": 2}, IMAGE),
    ("Conv2d", (4, 6, 2), {"padding": "same"}, IMAGE),
    ("Conv2d", (4, 6, 3), {"padding": 1, "padding_mode": "reflect"}, IMAGE),
    ("Conv2d", (4, 6, 3), {"padding": 1, "padding_mode": "circular"}, IMAGE),
    ("Conv2d", (4, 6, 3), {"padding": (1, 2), "padding_mode": "replicate"}, IMAGE),
    ("Conv2d", (4, 6, 3), {}, (4, 6, 6)),
    ("Conv1d", (4, 6, 3), {"stride": 2, "padding": 1}, (2, 4, 9)),
    ("ConvTranspose2d", (4, 6, 3), {"stride": 2, "padding": 1, "output_padding": 1}, IMAGE),
    ("ConvTranspose2d", (4, 6, (2, 3)), {"groups": 2, "dilation": 2, "bias": False}, IMAGE),
    ("ConvTranspose1d", (4, 6, 3), {"stride": 2}, (2, 4, 5)),
    ("MaxPool2d", (2,), {}, IMAGE),
    ("MaxPool2d", (3,), {"stride": 2, "padding": 1}, IMAGE),
    ("AvgPool2d", (2,), {}, IMAGE),
    ("AvgPool2d", (3,), {"stride": 1, "padding": 1, "count_include_pad": False}, IMAGE),
    ("AdaptiveAvgPool2d", (1,), {}, IMAGE),
    ("AdaptiveAvgPool2d", ((3, 2),), {}, IMAGE),
    ("AdaptiveAvgPool2d", ((4, None),), {}, IMAGE),
    ("LayerNorm", (3,), {}, (2, 4, 3)),
    ("LayerNorm", ((4, 3),), {"bias": False, "eps": 1e-3}, (2, 4, 3)),
    ("LayerNorm", (3,), {"elementwise_affine": False}, (2, 3)),
    ("GroupNorm", (2, 4), {}, IMAGE),
    ("GroupNorm", (4, 4), {"affine": False}, (3, 4, 5)),
    ("RMSNorm", (3,), {}, (2, 4, 3)),
    ("RMSNorm", ((4, 3),), {"eps": 1e-3, "elementwise_affine": False}, (2, 4, 3)),
    ("BatchNorm1d", (4,), {}, (5, 4)),
    ("BatchNorm1d", (4,), {"momentum": None}, (2, 4, 3)),
    ("BatchNorm2d", (4,), {"eps": 1e-3, "momentum": 0.3}, IMAGE),
    ("BatchNorm2d", (4,), {"affine": False, "track_running_stats": False}, IMAGE),
    ("BatchNorm3d", (4,), {"bias": False}, (2, 4, 2, 3, 2)),
    ("ReLU", (), {}, (2, 5)),
    ("ReLU", (), {"inplace": True}, (2, 5)),
    ("GELU", (), {}, (2, 5)),
    ("GELU", ("tanh",), {}, (2, 5)),
    ("SiLU", (), {}, (2, 5)),
    ("SiLU", (), {"inplace": True}, (2, 5)),
    ("Sigmoid", (), {}, (2, 5)),
    ("Tanh", (), {}, (2, 5)),
    ("LeakyReLU", (0.2,), {}, (2, 5)),
    ("ELU", (0.7,), {}, (2, 5)),
    ("CELU", (0.7,), {}, (2, 5)),
    ("SELU", (), {}, (2, 5)),
    ("Softplus", (2.0, 1.5), {}, (2, 5)),
    ("ReLU6", (), {}, (2, 5)),
    ("Hardtanh", (), {}, (2, 5)),
    ("Hardtanh", (-0.5, 0.3), {"inplace": True}, (2, 5)),
    ("Hardswish", (), {}, (2, 5)),
    ("Hardsigmoid", (), {}, (2, 5)),
    ("Hardshrink", (), {}, (2, 5)),
    ("Softshrink", (0.3,), {}, (2, 5)),
    ("LogSigmoid", (), {}, (2, 5)),
    ("Mish", (), {}, (2, 5)),
    ("Softsign", (), {}, (2, 5)),
    ("Tanhshrink", (), {}, (2, 5)),
    ("Threshold", (0.1, 3.0), {}, (2, 5)),
    ("GLU", (), {}, (2, 6)),
    ("PReLU", (), {}, (2, 5)),
    ("PReLU", (4,), {}, IMAGE),
    ("Softmax", (1,), {}, (2, 5)),
    ("LogSoftmax", (-1,), {}, (2, 5)),
    ("Softmin", (0,), {}, (2, 5)),
    ("Softmax2d", (), {}, IMAGE),
    ("Dropout", (0.3,), {}, (4, 5)),
    ("Dropout", (0.3,), {"inplace": True}, (4, 5)),
    ("Dropout1d", (0.3,), {}, (2, 4, 3)),
    ("Dropout2d", (0.3,), {}, IMAGE),
    ("AlphaDropout", (0.3,), {}, (4, 5)),
    ("FeatureAlphaDropout", (0.3,), {}, IMAGE),
    ("Conv3d", (4, 6, 2), {"padding": 1, "stride": (1, 2, 1)}, SPACE),
    ("Conv3d", (4, 6, (1, 2, 3)), {"groups": 2, "padding_mode": "replicate", "padding": 1, "bias": False}, SPACE),
    ("ConvTranspose3d", (4, 2, 2), {"stride": 2, "output_padding": 1}, SPACE),
    ("InstanceNorm1d", (4,), {}, (2, 4, 5)),
    ("InstanceNorm2d", (4,), {"affine": True, "eps": 1e-3}, IMAGE),
    ("InstanceNorm2d", (4,), {"track_running_stats": True, "momentum": 0.3}, (4, 6, 6)),
    ("InstanceNorm3d", (4,), {"affine": True, "track_running_stats": True}, SPACE),
    ("LocalResponseNorm", (3,), {"alpha": 0.1}, IMAGE),
    ("CrossMapLRN2d", (3,), {"alpha": 0.5, "k": 2}, IMAGE),
    ("CrossMapLRN2d", (4,), {"alpha": 0.5, "beta": 0.6}, (2, 7, 3, 2)),
    ("CrossMapLRN2d", (2,), {"alpha": 2.0}, (2, 5, 3, 2)),
    ("ConstantPad1d", (2, 3.5), {}, (2, 4, 5)),
    ("ConstantPad2d", ((1, 0, 2, 1), -1.0), {}, IMAGE),
    ("ConstantPad3d", (1, 0.5), {}, SPACE),
    ("ZeroPad1d", ((2, 1),), {}, (2, 4, 5)),
    ("ZeroPad2d", (1,), {}, IMAGE),
    ("ZeroPad3d", (1,), {}, SPACE),
    ("ReflectionPad1d", (2,), {}, (2, 4, 5)),
    ("ReflectionPad2d", ((1, 2, 0, 1),), {}, IMAGE),
    ("ReflectionPad3d", (1,), {}, SPACE),
    ("ReplicationPad1d", (2,), {}, (2, 4, 5)),
    ("ReplicationPad2d", ((1, 2, 0, 1),), {}, IMAGE),
    ("ReplicationPad3d", (1,), {}, SPACE),
    ("CircularPad1d", (2,), {}, (4, 5)),
    ("CircularPad2d", ((1, 2, 0, 1),), {}, IMAGE),
    ("CircularPad3d", (1,), {}, SPACE),
    ("MaxPool1d", (2,), {}, (2, 4, 5)),
    ("MaxPool3d", (2,), {"stride": 1, "padding": 1}, SPACE),
    ("AvgPool1d", (2,), {}, (2, 4, 5)),
    ("AvgPool3d", (2,), {"ceil_mode": True}, SPACE),
    ("LPPool1d", (2, 2), {}, (2, 4, 5)),
    ("LPPool2d", (2, (2, 3)), {"stride": 1}, IMAGE),
    ("LPPool3d", (4, 2), {}, SPACE),
    ("AdaptiveAvgPool1d", (3,), {}, (2, 4, 5)),
    ("AdaptiveAvgPool3d", ((2, None, 1),), {}, SPACE),
    ("AdaptiveMaxPool1d", (3,), {}, (2, 4, 5)),
    ("AdaptiveMaxPool2d", ((None, 4),), {}, IMAGE),
    ("AdaptiveMaxPool3d", (2,), {}, SPACE),
    ("Upsample", (), {"scale_factor": 2}, IMAGE),
    ("Upsample", ((3, 9),), {"mode": "bicubic"}, IMAGE),
    ("UpsamplingNearest2d", (), {"scale_factor": 1.5}, IMAGE),
    ("UpsamplingBilinear2d", (), {"size": 9}, IMAGE),
    ("PixelShuffle", (2,), {}, IMAGE),
    ("PixelUnshuffle", (3,), {}, IMAGE),
    ("ChannelShuffle", (2,), {}, IMAGE),
    ("Unfold", ((2, 3),), {"stride": 2, "padding": 1}, IMAGE),
    ("Fold", (6, 2), {"stride": 2}, (2, 8, 9)),
]


def build(name, args, kwargs, seed=0):
    gt.manual_seed(seed)
    ours = getattr(nn, name)(*args, **kwargs)
    torch.manual_seed(seed)
    return ours, getattr(torch.nn, name)(*args, **kwargs)


def assert_close(ours, theirs, **tolerance):
    np.testing.assert_allclose(
        ours.detach().numpy(), theirs.detach().numpy(), **{"rtol": 1e-5, "atol": 1e-6, **tolerance}
    )


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(("name", "args", "kwargs", "shape"), LAYERS)
def test_layer(name, args, kwargs, shape, training):
    ours, theirs = build(name, args, kwargs)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for key, value in theirs.state_dict().items():
        np.testing.assert_array_equal(ours.state_dict()[key].numpy(), value.numpy())
    ours.train(training)
    theirs.train(training)
    data = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    results = []
    for library, layer in ((gt, ours), (torch, theirs)):
        library.manual_seed(1)
        x = library.tensor(data, requires_grad=True)
        y = layer(x * 1)  # the product lets in-place layers overwrite their input
        (y * y.detach().cos()).sum().backward()
        results.append((x, y))
    (x, y), (x_theirs, y_theirs) = results
    assert_close(y, y_theirs)
    assert_close(x.grad, x_theirs.grad, rtol=1e-4, atol=2e-5)
    for (key, parameter), (_, expected) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        np.testing.assert_allclose(
            parameter.grad.numpy(), expected.grad.numpy(), rtol=1e-4, atol=5e-5, err_msg=f"gradient of {key}"
        )
    for key, buffer in theirs.named_buffers():
        assert_close(dict(ours.named_buffers())[key], buffer)


def test_transposed_convolution_to_a_given_size():
    ours, theirs = build("ConvTranspose2d", (4, 2, 3), {"stride": 2})
    data = np.random.default_rng(0).standard_normal(IMAGE).astype(np.float32)
    for size in ([14, 13], [2, 2, 14, 14]):
        assert_close(ours(gt.tensor(data), size), theirs(torch.tensor(data), size), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="requested an output size of"):
        ours(gt.tensor(data), [20, 20])


def test_max_pool_indices():
    data = np.random.default_rng(0).standard_normal((2, 3, 6, 6)).astype(np.float32)
    values, indices = nn.MaxPool2d(2, return_indices=True)(gt.tensor(data))
    expected = torch.nn.MaxPool2d(2, return_indices=True)(torch.tensor(data))
    np.testing.assert_array_equal(values.numpy(), expected[0].numpy())
    np.testing.assert_array_equal(indices.numpy(), expected[1].numpy())


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((7, 3), {}), ((7, 3), {"padding_idx": -2}), ((7, 3), {"max_norm": 1.0}), ((7, 3), {"scale_grad_by_freq": True})],
)
def test_embedding(args, kwargs):
    ours, theirs = build("Embedding", args, kwargs)
    assert repr(ours) == repr(theirs)
    np.testing.assert_array_equal(ours.weight.detach().numpy(), theirs.weight.detach().numpy())
    indices = np.array([[1, 5, 1], [0, 5, 6]])
    y, expected = ours(gt.tensor(indices)), theirs(torch.tensor(indices))
    assert_close(y, expected)
    (y * y.detach()).sum().backward()
    (expected * expected.detach()).sum().backward()
    assert_close(ours.weight.grad, theirs.weight.grad)
    assert_close(ours.weight, theirs.weight)


def test_embedding_from_pretrained():
    table = gt.ones(4, 2)
    layer = nn.Embedding.from_pretrained(table)
    assert not layer.weight.requires_grad and tuple(layer(gt.tensor([1, 2])).shape) == (2, 2)


def test_bilinear():
    ours, theirs = build("Bilinear", (3, 4, 5), {})
    assert repr(ours) == repr(theirs)
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 6, 3)).astype("f"), rng.standard_normal((2, 6, 4)).astype("f")
    y, expected = ours(gt.tensor(a), gt.tensor(b)), theirs(torch.tensor(a), torch.tensor(b))
    assert_close(y, expected, rtol=1e-4, atol=1e-5)
    y.sum().backward()
    expected.sum().backward()
    assert_close(ours.weight.grad, theirs.weight.grad, rtol=1e-4, atol=1e-5)


LOSSES = [
    ("MSELoss", {}, "regression"),
    ("L1Loss", {}, "regression"),
    ("SmoothL1Loss", {"beta": 0.5}, "regression"),
    ("HuberLoss", {"delta": 0.7}, "regression"),
    ("CrossEntropyLoss", {}, "classes"),
    ("CrossEntropyLoss", {"label_smoothing": 0.1, "ignore_index": 2}, "classes"),
    ("CrossEntropyLoss", {"label_smoothing": 0.1, "ignore_index": 2, "weight": [0.2, 1.0, 3.0]}, "classes"),
    ("CrossEntropyLoss", {"weight": [0.2, 1.0, 3.0]}, "images"),
    ("CrossEntropyLoss", {"label_smoothing": 0.2, "weight": [0.2, 1.0, 3.0]}, "images"),
    ("CrossEntropyLoss", {"label_smoothing": 0.2, "weight": [0.2, 1.0, 3.0]}, "probabilities"),
    ("CrossEntropyLoss", {}, "probabilities"),
    ("CrossEntropyLoss", {}, "one"),
    ("NLLLoss", {"ignore_index": 1}, "classes"),
    ("NLLLoss", {"weight": [0.2, 1.0, 3.0]}, "images"),
    ("BCELoss", {}, "binary"),
    ("BCEWithLogitsLoss", {}, "regression"),
    ("BCEWithLogitsLoss", {"pos_weight": [0.5, 2.0, 1.0], "weight": [1.0, 2.0, 3.0]}, "regression"),
    ("KLDivLoss", {}, "distribution"),
    ("KLDivLoss", {"log_target": True}, "regression"),
    ("PoissonNLLLoss", {"full": True}, "counts"),
    ("PoissonNLLLoss", {"log_input": False}, "binary"),
    ("HingeEmbeddingLoss", {"margin": 0.8}, "signs"),
    ("SoftMarginLoss", {}, "signs"),
]


def loss_data(kind):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 3)).astype(np.float32)
    if kind == "classes":
        return x, rng.integers(0, 3, 6)
    if kind == "one":
        return x[0], np.array(1)
    if kind == "images":
        return rng.standard_normal((2, 3, 4, 5)).astype(np.float32), rng.integers(0, 3, (2, 4, 5))
    if kind == "signs":
        return x, np.sign(rng.standard_normal((6, 3))).astype(np.float32)
    if kind == "counts":
        return x, rng.integers(0, 5, (6, 3)).astype(np.float32)
    target = rng.random((6, 3)).astype(np.float32)
    if kind == "binary":
        return rng.random((6, 3)).astype(np.float32), target
    if kind in ("probabilities", "distribution"):
        target /= target.sum(1, keepdims=True)
    return x, target


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(("name", "kwargs", "kind"), LOSSES)
def test_loss(name, kwargs, kind, reduction):
    x, target = loss_data(kind)
    results = []
    for library in (gt, torch):
        options = {k: library.tensor(v) if isinstance(v, list) else v for k, v in kwargs.items()}
        loss = getattr(library.nn, name)(reduction=reduction, **options)
        leaf = library.tensor(x, requires_grad=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = loss(leaf, library.tensor(target))
        (value * (value.detach() + 1).sin()).sum().backward()
        results.append((repr(loss), list(loss.state_dict()), value, leaf.grad))
    ours, theirs = results
    assert ours[:2] == theirs[:2]
    assert_close(ours[2], theirs[2], rtol=1e-5, atol=1e-6)
    assert_close(ours[3], theirs[3], rtol=1e-4, atol=1e-6)


def test_batch_norm_loads_old_checkpoints():
    layer = nn.BatchNorm2d(3)
    state = {k: v for k, v in layer.state_dict().items() if k != "num_batches_tracked"}
    assert layer.load_state_dict(state).missing_keys == []


def test_whole_network_from_one_seed():
    def net(library):
        library.manual_seed(3)
        n = library.nn
        return n.Sequential(
            n.Conv2d(1, 4, 3, padding=1),
            n.BatchNorm2d(4),
            n.ReLU(),
            n.MaxPool2d(2),
            n.Flatten(),
            n.Linear(64, 10),
            n.ModuleList([n.Linear(2, 2), n.Linear(2, 2), n.ReLU()]),
            n.ModuleDict({"a": n.Sequential(n.Linear(1, 1)), "b": n.Dropout()}),
        )

    ours, theirs = net(gt), net(torch)
    assert repr(ours) == repr(theirs)
    for (key, value), (key_theirs, expected) in zip(
        ours.state_dict().items(), theirs.state_dict().items(), strict=True
    ):
        assert key == key_theirs
        np.testing.assert_array_equal(value.numpy(), expected.numpy())
    assert repr(ours[-2:]) == repr(theirs[-2:])


@pytest.mark.parametrize(
    "make",
    [
        lambda n, lib: n.ParameterList([lib.ones(2, 3), lib.ones(1)]),
        lambda n, lib: n.ParameterDict({"a": lib.ones(2, 3), "b": lib.ones(1)}),
        lambda n, lib: n.ModuleList([n.Sequential(n.Linear(2, 2), n.ReLU())] * 2 + [n.ReLU()]),
        lambda n, lib: n.ModuleList(),
        lambda n, lib: n.ModuleDict({"x": n.ModuleList([n.ReLU(), n.ReLU()])}),
        lambda n, lib: n.Sequential(),
    ],
)
def test_container_text(make):
    assert repr(make(nn, gt)) == repr(make(torch.nn, torch))


@pytest.mark.parametrize(
    "action",
    [
        lambda n, lib: n.Conv2d(3, 4, 2, groups=2),
        lambda n, lib: n.Conv2d(4, 3, 2, groups=2),
        lambda n, lib: n.Conv2d(4, 4, 2, groups=0),
        lambda n, lib: n.Conv2d(4, 4, 2, padding="same", stride=2),
        lambda n, lib: n.Dropout(1.5),
        lambda n, lib: n.GroupNorm(3, 4),
        lambda n, lib: n.BatchNorm2d(3)(lib.ones(2, 3)),
        lambda n, lib: n.BatchNorm1d(3)(lib.ones(1, 3)),
        lambda n, lib: n.BatchNorm1d(3)(lib.ones(2, 3, 2, 2)),
        lambda n, lib: n.Embedding(3, 2, padding_idx=5),
        lambda n, lib: n.functional.binary_cross_entropy(lib.ones(2), lib.ones(3)),
        lambda n, lib: n.functional.binary_cross_entropy(lib.ones(2) * 2, lib.ones(2)),
        lambda n, lib: n.functional.binary_cross_entropy_with_logits(lib.ones(2), lib.ones(3)),
        lambda n, lib: n.functional.mse_loss(lib.ones(2), lib.ones(2), reduction="maximum"),
        lambda n, lib: n.functional.cross_entropy(lib.ones(2, 3), lib.ones(2, 3), label_smoothing=2.0),
        lambda n, lib: n.functional.cross_entropy(lib.ones(2, 3), lib.ones(2, 3), ignore_index=1),
        lambda n, lib: n.functional.hardtanh(lib.ones(2), 1.0, 0.0),
        lambda n, lib: n.functional.glu(lib.tensor(1.0)),
        lambda n, lib: n.functional.glu(lib.ones(2, 3)),
        lambda n, lib: n.functional.dropout(lib.ones(2), -0.1),
        lambda n, lib: n.functional.one_hot(lib.tensor([1, 2]), 2),
        lambda n, lib: n.functional.pad(lib.ones(2), [1]),
        lambda n, lib: n.functional.smooth_l1_loss(lib.ones(2), lib.ones(2), beta=-1.0),
        lambda n, lib: n.functional.huber_loss(lib.ones(2), lib.ones(2), delta=0.0),
    ],
)
def test_errors_are_pytorchs(action):
    with pytest.raises(Exception) as expected:
        action(torch.nn, torch)
    with pytest.raises(type(expected.value)) as caught:
        action(nn, gt)
    # The message may go on with the operator's operands and the user's line.
    assert caught.value.args[0].split("\n")[0].startswith(expected.value.args[0].split("\n")[0])


@pytest.mark.parametrize(
    ("options", "call"),
    [
        ({}, {}),
        ({"batch_first": True, "bias": False}, {"need_weights": False}),
        ({"add_bias_kv": True, "add_zero_attn": True}, {"average_attn_weights": False, "mask": "bool"}),
        ({"kdim": 4, "vdim": 4, "dropout": 0.3}, {"mask": "float", "padding": True}),
        ({"add_zero_attn": True}, {"padding": True, "mask": "heads"}),
    ],
)
@pytest.mark.parametrize("itself", [True, False])
def test_multihead_attention(options, call, itself):
    if itself:
        options = {k: v for k, v in options.items() if k not in ("kdim", "vdim")}
    ours, theirs = build("MultiheadAttention", (6, 2), options)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for key, value in theirs.state_dict().items():
        np.testing.assert_array_equal(ours.state_dict()[key].numpy(), value.numpy())
    rng = np.random.default_rng(0)
    other = options.get("kdim", 6)
    query, memory = rng.standard_normal((5, 3, 6)).astype("f"), rng.standard_normal((5, 3, other)).astype("f")
    batch = 5 if options.get("batch_first") else 3
    source = 3 if options.get("batch_first") else 5
    masks = {
        "bool": np.triu(np.ones((source, source), dtype=bool), 1),
        "float": rng.standard_normal((source, source)).astype("f"),
        "heads": rng.standard_normal((2 * batch, source, source)).astype("f"),
    }
    results = []
    for library, layer in ((gt, ours), (torch, theirs)):
        library.manual_seed(1)
        q = library.tensor(query, requires_grad=True)
        k = q if itself else library.tensor(memory)
        arguments = {k: v for k, v in call.items() if k not in ("mask", "padding")}
        if "mask" in call:
            arguments["attn_mask"] = library.tensor(masks[call["mask"]])
        if "padding" in call:
            padding = np.zeros((batch, source), dtype=bool)
            padding[0, -2:] = True
            arguments["key_padding_mask"] = library.tensor(padding)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            y, weights = layer(q, k, k, **arguments)
        (y * y.detach().cos()).sum().backward()
        results.append((y, weights, q.grad))
    for a, b in zip(*results, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert_close(a, b, rtol=1e-4, atol=1e-5)
    for (key, parameter), (_, expected) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        np.testing.assert_allclose(
            parameter.grad.numpy(), expected.grad.numpy(), rtol=1e-3, atol=1e-4, err_msg=f"gradient of {key}"
        )


def test_multihead_attention_without_batch():
    ours, theirs = build("MultiheadAttention", (4, 2), {})
    x = np.random.default_rng(0).standard_normal((5, 4)).astype("f")
    for a, b in zip(ours(*[gt.tensor(x)] * 3), theirs(*[torch.tensor(x)] * 3), strict=True):
        assert_close(a, b)
