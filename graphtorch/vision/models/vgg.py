"""AlexNet and the VGG networks: plain stacks of convolutions and three dense layers.

Sources: Krizhevsky, One weird trick for parallelizing convolutional neural networks, 2014
(https://arxiv.org/abs/1404.5997); Simonyan and Zisserman, Very Deep Convolutional Networks, 2014
(https://arxiv.org/abs/1409.1556)."""

from __future__ import annotations

from typing import Any

import graphtorch as torch
from graphtorch import Tensor, nn
from graphtorch.vision.models._weights import refuse_weights

# Channels of the convolutions of each of the five stages, which pooling ends.
_STAGES = {
    11: ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    13: ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512)),
    16: ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3),
    19: ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4),
}


class _Stack(nn.Module):
    """Convolutions, an average to one size, dense layers: (N, 3, H, W) to scores."""

    features: nn.Module
    avgpool: nn.Module
    classifier: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """The scores."""
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


class AlexNet(_Stack):
    """(N, 3, H, W) to scores (N, num_classes), for images of 63 pixels or more."""

    def __init__(self, num_classes: int = 1000, dropout: float = 0.5) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, kernel_size=11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(64, 192, kernel_size=5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(192, 384, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, 256, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
        self.classifier = nn.Sequential(
            nn.Dropout(p=dropout),
            nn.Linear(256 * 6 * 6, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(p=dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Linear(4096, num_classes),
        )


class VGG(_Stack):
    """(N, 3, H, W) to scores (N, num_classes), for images of 32 pixels or more."""

    def __init__(
        self, features: nn.Module, num_classes: int = 1000, init_weights: bool = True, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.features = features
        self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096),
            nn.ReLU(True),
            nn.Dropout(p=dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(True),
            nn.Dropout(p=dropout),
            nn.Linear(4096, num_classes),
        )
        if init_weights:
            self._initialize()

    def _initialize(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm2d) and module.weight is not None:
                nn.init.constant_(module.weight, 1)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01)
            if isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.Linear) and module.bias is not None:
                nn.init.constant_(module.bias, 0)


def _features(depth: int, batch_norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for stage in _STAGES[depth]:
        for wanted in stage:
            layers.append(nn.Conv2d(channels, wanted, kernel_size=3, padding=1))
            if batch_norm:
                layers.append(nn.BatchNorm2d(wanted))
            layers.append(nn.ReLU(inplace=True))
            channels = wanted
        layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
    return nn.Sequential(*layers)


def _variant(depth: int, batch_norm: bool = False) -> Any:
    """A function that makes a VGG of so many layers."""

    def make(*, weights: object = None, progress: bool = True, **kwargs: Any) -> VGG:
        refuse_weights(weights)
        return VGG(_features(depth, batch_norm), **kwargs)

    make.__name__ = make.__qualname__ = f"vgg{depth}" + "_bn" * batch_norm
    make.__doc__ = f"VGG-{depth}{' with batch normalization' * batch_norm}."
    return make


vgg11, vgg13, vgg16, vgg19 = (_variant(depth) for depth in _STAGES)
vgg11_bn, vgg13_bn, vgg16_bn, vgg19_bn = (_variant(depth, batch_norm=True) for depth in _STAGES)


def alexnet(*, weights: object = None, progress: bool = True, **kwargs: Any) -> AlexNet:
    """AlexNet, in the form of one GPU."""
    refuse_weights(weights)
    return AlexNet(**kwargs)
