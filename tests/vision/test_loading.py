"""Data sets, transforms and DataLoader together, with and without worker processes: torchvision's batches."""

import numpy as np
import pytest

import graphtorch as gt
from graphtorch.vision import datasets, transforms


def batches(library, vision, workers):
    torch_transforms = vision.transforms
    data = vision.datasets.FakeData(
        12,
        (3, 10, 10),
        transform=torch_transforms.Compose(
            [
                torch_transforms.RandomCrop(8, padding=1),
                torch_transforms.RandomHorizontalFlip(),
                torch_transforms.ToTensor(),
                torch_transforms.Normalize((0.5,) * 3, (0.5,) * 3),
            ]
        ),
    )
    library.manual_seed(3)
    loader = library.utils.data.DataLoader(data, batch_size=4, shuffle=True, num_workers=workers)
    return [(images.numpy(), labels.tolist()) for _ in range(2) for images, labels in loader]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_torchvisions(torchvision, workers):
    pytest.importorskip("PIL.Image")
    torch = pytest.importorskip("torch")

    class Ours:
        pass

    Ours.datasets, Ours.transforms = datasets, transforms
    for (images, labels), (expected, expected_labels) in zip(
        batches(gt, Ours, workers), batches(torch, torchvision, workers), strict=True
    ):
        assert labels == expected_labels
        np.testing.assert_allclose(images, expected, rtol=1e-6)
