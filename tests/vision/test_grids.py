"""make_grid and save_image beside torchvision's."""

import io

import numpy as np
import pytest

import graphtorch as gt
from graphtorch.vision import utils


@pytest.mark.parametrize("shape", [(7, 3, 4, 5), (3, 1, 4, 5), (1, 3, 4, 4), (3, 4, 5), (1, 4, 5), (4, 5)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"nrow": 3, "padding": 1, "pad_value": 0.5},
        {"normalize": True},
        {"normalize": True, "scale_each": True, "nrow": 2},
        {"normalize": True, "value_range": (-0.5, 1.0)},
    ],
)
def test_grids_are_torchvisions(torchvision, shape, options):
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    got = utils.make_grid(gt.from_numpy(values), **options)
    expected = torchvision.utils.make_grid(torch.from_numpy(values), **options)
    np.testing.assert_allclose(got.numpy(), expected.numpy(), rtol=1e-6, atol=1e-7)


def test_saved_files_are_torchvisions(torchvision, tmp_path):
    image_module = pytest.importorskip("PIL.Image")
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(0).uniform(-0.2, 1.2, (5, 1, 6, 6)).astype(np.float32)
    utils.save_image(gt.from_numpy(values), tmp_path / "grid.png", nrow=2)
    torchvision.utils.save_image(torch.from_numpy(values), tmp_path / "expected.png", nrow=2)
    got, expected = (np.asarray(image_module.open(tmp_path / name)) for name in ("grid.png", "expected.png"))
    np.testing.assert_array_equal(got, expected)
    stream = io.BytesIO()
    utils.save_image([gt.zeros(3, 2, 2)] * 2, stream, format="png")
    assert stream.getvalue().startswith(b"\x89PNG")


def test_what_is_no_image():
    with pytest.raises(TypeError, match="tensor or list of tensors expected, got <class 'int'>"):
        utils.make_grid(3)
    with pytest.raises(TypeError, match="got a list containing <class 'int'>"):
        utils.make_grid([3])
    with pytest.raises(TypeError, match="value_range has to be a tuple"):
        utils.make_grid(gt.zeros(2, 3, 2, 2), normalize=True, value_range=[0, 1])
