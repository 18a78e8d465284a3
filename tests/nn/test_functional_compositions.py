"""Pooling, convolution in three dimensions, folding, resampling and losses beside PyTorch, eager and compiled."""

import numpy as np
import pytest

import graphtorch as gt

torch = pytest.importorskip("torch")

IMAGE, LINE, SPACE = (2, 4, 7, 6), (2, 4, 9), (2, 3, 5, 6, 4)

# A call with the functions' module, the library and the inputs; the inputs' shapes.
CALLS = {
    "conv3d": (lambda F, lib, x, w, b: F.conv3d(x, w, b, 1, 1), [SPACE, (4, 3, 3, 2, 3), (4,)]),
    "conv3d groups": (
        lambda F, lib, x, w: F.conv3d(x, w, None, (2, 1, 1), (1, 0, 2), (2, 1, 1), 3),
        [SPACE, (6, 1, 2, 3, 2)],
    ),
    "conv3d same": (
        lambda F, lib, x, w: F.conv3d(x, w, padding="same", dilation=(1, 2, 1)),
        [SPACE[1:], (2, 3, 2, 2, 3)],
    ),
    "conv_transpose3d": (lambda F, lib, x, w, b: F.conv_transpose3d(x, w, b), [SPACE, (3, 2, 2, 3, 2), (2,)]),
    "conv_transpose3d options": (
        lambda F, lib, x, w: F.conv_transpose3d(x, w, None, (2, 1, 3), (1, 0, 1), (1, 0, 2), 3, (2, 1, 1)),
        [SPACE, (3, 2, 3, 2, 3)],
    ),
    "max_pool1d": (lambda F, lib, x: F.max_pool1d(x, 3, 2, 1), [LINE]),
    "max_pool1d unbatched": (lambda F, lib, x: F.max_pool1d(x, 2, ceil_mode=True, return_indices=True), [(4, 9)]),
    "max_pool3d": (lambda F, lib, x: F.max_pool3d(x, 2, return_indices=True), [SPACE]),
    "max_pool3d options": (
        lambda F, lib, x: F.max_pool3d(x, (2, 3, 2), (1, 2, 1), (1, 1, 0), (1, 1, 2), True, return_indices=True),
        [SPACE],
    ),
    "avg_pool1d": (lambda F, lib, x: F.avg_pool1d(x, 3, 2, 1, True, False), [LINE]),
    "avg_pool3d": (lambda F, lib, x: F.avg_pool3d(x, (2, 3, 2), 2, (1, 1, 0), True), [SPACE]),
    "avg_pool3d options": (
        lambda F, lib, x: (
            F.avg_pool3d(x, 3, 2, 1, count_include_pad=False) + F.avg_pool3d(x, 3, 2, 1, divisor_override=4)
        ),
        [SPACE],
    ),
    "lp_pool1d": (lambda F, lib, x: F.lp_pool1d(x, 2, 3, 2), [LINE]),
    "lp_pool2d": (lambda F, lib, x: F.lp_pool2d(x.abs(), 1.5, (2, 3)), [IMAGE]),
    "lp_pool3d": (lambda F, lib, x: F.lp_pool3d(x, 4, 2), [SPACE]),
    "adaptive_avg_pool1d": (lambda F, lib, x: F.adaptive_avg_pool1d(x, 4), [LINE]),
    "adaptive_avg_pool3d": (lambda F, lib, x: F.adaptive_avg_pool3d(x, (3, None, 2)), [SPACE]),
    "adaptive_max_pool1d": (lambda F, lib, x: F.adaptive_max_pool1d(x, 4, return_indices=True), [LINE]),
    "adaptive_max_pool2d": (lambda F, lib, x: F.adaptive_max_pool2d(x, (3, None), return_indices=True), [IMAGE]),
    "adaptive_max_pool2d unbatched": (lambda F, lib, x: F.adaptive_max_pool2d(x, 5), [IMAGE[1:]]),
    "adaptive_max_pool3d": (lambda F, lib, x: F.adaptive_max_pool3d(x, (2, 4, 3), return_indices=True), [SPACE]),
    "max_unpool1d": (lambda F, lib, x: F.max_unpool1d(*F.max_pool1d(x, 2, return_indices=True), 2), [LINE]),
    "max_unpool2d": (
        lambda F, lib, x: F.max_unpool2d(*F.max_pool2d(x, 2, 3, return_indices=True), 2, 3, output_size=[7, 6]),
        [IMAGE],
    ),
    "max_unpool3d": (lambda F, lib, x: F.max_unpool3d(*F.max_pool3d(x, 2, return_indices=True), 2), [SPACE]),
    "unfold": (lambda F, lib, x: F.unfold(x, (3, 2), (2, 1), (1, 2), (1, 2)), [IMAGE]),
    "unfold unbatched": (lambda F, lib, x: F.unfold(x, 2), [IMAGE[1:]]),
    "fold": (lambda F, lib, x: F.fold(x, (7, 6), (3, 2), (2, 1), (1, 2), (1, 2)), [(2, 18, 25)]),
    "fold unbatched": (lambda F, lib, x: F.fold(x, (4, 5), (2, 2), stride=(2, 1)), [(8, 8)]),
    "pixel_shuffle": (lambda F, lib, x: F.pixel_shuffle(x, 2), [(2, 3, 8, 3, 4)]),
    "pixel_unshuffle": (lambda F, lib, x: F.pixel_unshuffle(x, 2), [(3, 2, 6, 4)]),
    "channel_shuffle": (lambda F, lib, x: F.channel_shuffle(x, 2), [IMAGE]),
    "bicubic": (lambda F, lib, x: F.interpolate(x, (9, 4), mode="bicubic"), [IMAGE]),
    "bicubic corners": (lambda F, lib, x: F.interpolate(x, (3, 11), mode="bicubic", align_corners=True), [IMAGE]),
    "bicubic factor": (lambda F, lib, x: F.interpolate(x, scale_factor=(1.7, 0.6), mode="bicubic"), [IMAGE]),
    "bilinear": (lambda F, lib, x: F.interpolate(x, scale_factor=1.5, mode="bilinear"), [IMAGE]),
    "antialias": (lambda F, lib, x: F.interpolate(x, (3, 9), mode="bilinear", antialias=True), [IMAGE]),
    "antialias bicubic": (lambda F, lib, x: F.interpolate(x, (3, 4), mode="bicubic", antialias=True), [IMAGE]),
    "trilinear": (lambda F, lib, x: F.interpolate(x, (3, 7, 5), mode="trilinear", align_corners=True), [SPACE]),
    "area": (lambda F, lib, x: F.interpolate(x, (3, 4), mode="area"), [IMAGE]),
    "nearest": (lambda F, lib, x: F.interpolate(x, scale_factor=2.3), [LINE]),
    "affine_grid": (lambda F, lib, t: F.affine_grid(t, (2, 1, 4, 3), False), [(2, 2, 3)]),
    "affine_grid 3d": (lambda F, lib, t: F.affine_grid(t, (2, 1, 4, 3, 1), True), [(2, 3, 4)]),
    "local_response_norm": (lambda F, lib, x: F.local_response_norm(x, 3, 0.1, 0.5, 2.0), [IMAGE]),
    "local_response_norm even": (lambda F, lib, x: F.local_response_norm(x, 2), [LINE]),
    "pdist": (lambda F, lib, x: F.pdist(x, 3.0), [(5, 3)]),
    "multi_margin_loss": (
        lambda F, lib, x: F.multi_margin_loss(x, lib.tensor([0, 2, 1]), 2, 0.7, lib.tensor([0.5, 1.0, 2.0])),
        [(3, 3)],
    ),
    "multi_margin_loss one": (lambda F, lib, x: F.multi_margin_loss(x, lib.tensor(1), reduction="none"), [(4,)]),
    "multilabel_margin_loss": (
        lambda F, lib, x: F.multilabel_margin_loss(x, lib.tensor([[2, 0, -1, 1], [-1, 1, 1, 1], [3, 1, 0, 2]])),
        [(3, 4)],
    ),
    "multilabel_margin_loss one": (
        lambda F, lib, x: F.multilabel_margin_loss(x, lib.tensor([1, -1, 0]), reduction="sum"),
        [(3,)],
    ),
    "multilabel_soft_margin_loss": (
        lambda F, lib, x, w: F.multilabel_soft_margin_loss(x, (x.detach() > 0.3).to(x.dtype), w, reduction="none"),
        [(3, 4), (4,)],
    ),
    "triplet_margin_with_distance_loss": (
        lambda F, lib, a, p, n: F.triplet_margin_with_distance_loss(
            a, p, n, distance_function=lambda x, y: (x - y).abs().sum(-1), swap=True, margin=2.0
        ),
        [(5, 3), (5, 3), (5, 3)],
    ),
    "triplet_margin_with_distance_loss default": (
        lambda F, lib, a, p, n: F.triplet_margin_with_distance_loss(a, p, n, reduction="none"),
        [(5, 3), (5, 3), (5, 3)],
    ),
    "ctc_loss": (
        lambda F, lib, x: F.ctc_loss(
            x.log_softmax(-1), lib.tensor([[1, 2, 2], [3, 1, 0], [2, 0, 0]]), (6, 5, 6), (3, 2, 1)
        ),
        [(6, 3, 4)],
    ),
    "ctc_loss joined": (
        lambda F, lib, x: F.ctc_loss(x.log_softmax(-1), lib.tensor([1, 0, 0, 3]), (6, 4, 6), (3, 0, 1), 2, "sum"),
        [(6, 3, 4)],
    ),
    "ctc_loss joined options": (
        lambda F, lib, x: F.ctc_loss(
            x.log_softmax(-1), lib.tensor([1, 2, 3]), lib.tensor([6, 4, 6]), lib.tensor([2, 0, 1]), reduction="none"
        ),
        [(6, 3, 4)],
    ),
    "ctc_loss impossible": (
        lambda F, lib, x: F.ctc_loss(
            x.log_softmax(-1), lib.tensor([[1, 1, 1], [1, 2, 3]]), (4, 4), (3, 3), reduction="none", zero_infinity=True
        ),
        [(4, 2, 4)],
    ),
    "ctc_loss unbatched": (
        lambda F, lib, x: F.ctc_loss(x.log_softmax(-1), lib.tensor([1, 3]), lib.tensor(5), lib.tensor(2)),
        [(5, 4)],
    ),
}
for padding in ("zeros", "border", "reflection"):
    for align in (False, True):
        for mode in ("bilinear", "nearest", "bicubic"):
            CALLS[f"grid_sample {mode} {padding} {align}"] = (
                lambda F, lib, x, g, m=mode, p=padding, a=align: F.grid_sample(x, g * 0.9, m, p, a),
                [IMAGE, (2, 3, 5, 2)],
            )
    CALLS[f"grid_sample 3d {padding}"] = (
        lambda F, lib, x, g, p=padding: F.grid_sample(x, g, padding_mode=p, align_corners=False),
        [SPACE, (2, 2, 3, 2, 3)],
    )


def results(library, name, compiled=False):
    """All outputs and the gradients of all inputs."""
    call, shapes = CALLS[name]
    rng = np.random.default_rng(0)
    inputs = [library.tensor(rng.standard_normal(s), dtype=library.float32, requires_grad=True) for s in shapes]

    def run(*inputs):
        value = call(library.nn.functional, library, *inputs)
        outputs = list(value) if isinstance(value, tuple) else [value]
        smooth = [t for t in outputs if t.is_floating_point()]
        sum((t * t.detach().cos()).sum() for t in smooth).backward()
        return [t.detach() for t in outputs]

    outputs = (gt.compile(run, fullgraph=True) if compiled else run)(*inputs)
    # No gradient at all (here of the points that the nearest is looked up for) is a gradient of zero.
    grads = [library.zeros_like(x) if x.grad is None else x.grad for x in inputs]
    return [t.detach().numpy() for t in outputs] + [grad.detach().numpy() for grad in grads]


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.filterwarnings("ignore")
def test_values_and_gradients_are_pytorchs(name):
    ours, theirs = results(gt, name), results(torch, name)
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", [name for name in CALLS if "options" not in name and "unbatched" not in name])
def test_compiled_equals_eager(name):
    for a, b in zip(results(gt, name, compiled=True), results(gt, name), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        (lambda F: F.conv3d(gt.ones(2, 3), gt.ones(1, 1, 1, 1, 1)), RuntimeError, "Expected 4D (unbatched) or 5D"),
        (
            lambda F: F.conv3d(gt.ones(1, 1, 1, 4, 4), gt.ones(1, 1, 2, 1, 1)),
            RuntimeError,
            "Kernel size can't be greater",
        ),
        (lambda F: F.max_pool3d(gt.ones(2, 3), 2), RuntimeError, "max_pool3d(): Expected 4D or 5D tensor"),
        (lambda F: F.adaptive_max_pool1d(gt.ones(2), 2), RuntimeError, "adaptive_max_pool1d(): Expected 2D or 3D"),
        (lambda F: F.fold(gt.ones(1, 5, 4), 3, 2), RuntimeError, "divisible by the product of kernel_size"),
        (lambda F: F.fold(gt.ones(1, 4, 5), 3, 2), RuntimeError, "to match the calculated number of sliding blocks"),
        (lambda F: F.unfold(gt.ones(1, 1, 2, 2), 3), RuntimeError, "its components must be at least one"),
        (lambda F: F.pixel_shuffle(gt.ones(3, 2, 2), 2), RuntimeError, "input.size(-3)=3 is not divisible by 4"),
        (lambda F: F.pixel_unshuffle(gt.ones(1, 3, 2), 2), RuntimeError, "pixel_unshuffle expects height"),
        (lambda F: F.channel_shuffle(gt.ones(1, 3, 2), 2), RuntimeError, "must be divisible by groups. Got 3 channels"),
        (lambda F: F.grid_sample(gt.ones(1, 1, 2, 2), gt.ones(1, 1, 1, 3)), RuntimeError, "size 2 in last dimension"),
        (lambda F: F.grid_sample(gt.ones(1, 1, 2, 2), gt.ones(1, 1, 1, 2), "cubic"), ValueError, "expected mode to be"),
        (lambda F: F.interpolate(gt.ones(1, 1, 4), 2, antialias=True), ValueError, "Anti-alias option is restricted"),
        (
            lambda F: F.interpolate(gt.ones(1, 1, 4), 2, mode="bicubic"),
            NotImplementedError,
            "not available for 3D input",
        ),
        (lambda F: F.affine_grid(gt.ones(1, 2, 2), (1, 1, 2, 2)), ValueError, "Expected a batch of 2D affine matrices"),
        (lambda F: F.multi_margin_loss(gt.ones(1, 2), gt.tensor([0]), p=3), ValueError, "only p == 1 and p == 2"),
        (lambda F: F.pdist(gt.ones(3)), RuntimeError, "pdist only supports 2D tensors, got: 1D"),
        (lambda F: F.local_response_norm(gt.ones(3, 2), 2), ValueError, "Expected 3D or higher dimensionality input"),
        (
            lambda F: F.ctc_loss(gt.ones(2, 1, 3), gt.tensor([[1]]), (2, 2), (1,)),
            RuntimeError,
            "must be of size batch_size",
        ),
    ],
)
def test_errors(action, error, message):
    with pytest.raises(error) as caught:
        action(gt.nn.functional)
    assert message in str(caught.value)


def test_impossible_ctc_targets_are_infinite():
    loss = gt.nn.functional.ctc_loss(
        gt.zeros(2, 1, 3).log_softmax(-1), gt.tensor([[1, 1]]), (2,), (2,), reduction="none"
    )
    assert loss.item() == float("inf")


def test_deprecated_names_warn():
    F, x = gt.nn.functional, gt.ones(1, 1, 2, 2)
    for call in (F.upsample, F.upsample_nearest, F.upsample_bilinear):
        with pytest.warns(UserWarning, match="interpolate"):
            assert tuple(call(x, scale_factor=2).shape) == (1, 1, 4, 4)


@pytest.mark.parametrize(
    ("name", "args"),
    [("relu_", ()), ("leaky_relu_", (0.2,)), ("elu_", (0.5,)), ("selu_", ()), ("celu_", (0.5,)),
     ("hardtanh_", (-0.5, 0.3)), ("threshold_", (0.1, 2.0))],
)  # fmt: skip
def test_activations_in_place(name, args):
    data = np.random.default_rng(0).standard_normal(9).astype(np.float32)
    ours, theirs = gt.tensor(data), torch.tensor(data)
    assert getattr(gt.nn.functional, name)(ours, *args) is ours
    getattr(torch.nn.functional, name)(theirs, *args)
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-6)


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic", "area"])
def test_interpolation_of_several_sizes_compiles(mode):
    def run(x):
        return gt.nn.functional.interpolate(x, scale_factor=2, mode=mode)

    step = gt.compile(run, backend="numpy")
    for shape in ((1, 2, 5, 6), (1, 2, 7, 6), (3, 2, 8, 9)):
        x = gt.randn(*shape)
        assert gt.allclose(step(x), run(x), atol=1e-5)
