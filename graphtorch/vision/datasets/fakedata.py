"""Random images with random labels, for trying a program out."""

from __future__ import annotations

from typing import Any

import graphtorch as torch
from graphtorch.vision.datasets.vision import Transform, VisionDataset


class FakeData(VisionDataset):
    """`size` random images of shape `image_size` (C, H, W) with labels below `num_classes`; each image is always the
    same, whatever the global generator's state. Samples are (image, label).

    See https://docs.pytorch.org/vision/stable/generated/torchvision.datasets.FakeData.html.
    """

    def __init__(
        self,
        size: int = 1000,
        image_size: tuple[int, int, int] = (3, 224, 224),
        num_classes: int = 10,
        transform: Transform | None = None,
        target_transform: Transform | None = None,
        random_offset: int = 0,
    ) -> None:
        super().__init__(None, transform=transform, target_transform=target_transform)
        self.size = size
        self.num_classes = num_classes
        self.image_size = image_size
        self.random_offset = random_offset

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        from graphtorch.vision.transforms.functional import to_pil_image

        if index >= len(self):
            raise IndexError(f"{type(self).__name__} index out of range")
        generator_state = torch.get_rng_state()
        torch.manual_seed(index + self.random_offset)
        try:
            image = torch.randn(*self.image_size)
            target = torch.randint(0, self.num_classes, size=(1,), dtype=torch.long)[0]
        finally:
            torch.set_rng_state(generator_state)
        image, target = self._transformed(to_pil_image(image), target)
        return image, target.item()

    def __len__(self) -> int:
        return self.size
