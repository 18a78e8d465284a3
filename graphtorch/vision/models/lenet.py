"""LeNet-5 for images of 32 x 32 or, with padding, 28 x 28.

Source: LeCun et al., Gradient-Based Learning Applied to Document Recognition, 1998, in the form of today's textbooks
(ReLU and max pooling). torchvision has no LeNet; layer names are those of PyTorch's CIFAR-10 tutorial."""

from __future__ import annotations

import graphtorch as torch
import graphtorch.nn.functional as F
from graphtorch import Tensor, nn


class LeNet(nn.Module):
    """(N, in_channels, S, S) to scores (N, num_classes), for an `image_size` S of 28 or 32."""

    def __init__(self, num_classes: int = 10, in_channels: int = 1, image_size: int = 28) -> None:
        super().__init__()
        if image_size not in (28, 32):
            raise ValueError(f"LeNet takes images of 28 x 28 or 32 x 32, not {image_size} x {image_size}")
        self.conv1 = nn.Conv2d(in_channels, 6, 5, padding=2 if image_size == 28 else 0)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """The scores."""
        x = self.pool(F.relu(self.conv1(x)))
        x = torch.flatten(self.pool(F.relu(self.conv2(x))), 1)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


def lenet(num_classes: int = 10, in_channels: int = 1, image_size: int = 28) -> LeNet:
    """A new LeNet."""
    return LeNet(num_classes, in_channels, image_size)
