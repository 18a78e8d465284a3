"""Image classifiers with torchvision's names, state_dict keys and initialisation, and LeNet-5.

No weights are shipped or downloaded: `model.load_state_dict(torch.load(path))` reads a file of torchvision's.
See https://docs.pytorch.org/vision/stable/models.html."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphtorch import nn
from graphtorch.vision.models.lenet import LeNet, lenet
from graphtorch.vision.models.resnet import (
    ResNet,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
    resnext50_32x4d,
    wide_resnet50_2,
)
from graphtorch.vision.models.vgg import (
    VGG,
    AlexNet,
    alexnet,
    vgg11,
    vgg11_bn,
    vgg13,
    vgg13_bn,
    vgg16,
    vgg16_bn,
    vgg19,
    vgg19_bn,
)
from graphtorch.vision.models.vision_transformer import (
    VisionTransformer,
    vit_b_16,
    vit_b_32,
    vit_h_14,
    vit_l_16,
    vit_l_32,
)

_BUILDERS: dict[str, Callable[..., nn.Module]] = {
    builder.__name__: builder
    for builder in (
        alexnet,
        lenet,
        resnet18,
        resnet34,
        resnet50,
        resnet101,
        resnet152,
        resnext50_32x4d,
        vgg11,
        vgg11_bn,
        vgg13,
        vgg13_bn,
        vgg16,
        vgg16_bn,
        vgg19,
        vgg19_bn,
        vit_b_16,
        vit_b_32,
        vit_h_14,
        vit_l_16,
        vit_l_32,
        wide_resnet50_2,
    )
}

__all__ = [
    "VGG",
    "AlexNet",
    "LeNet",
    "ResNet",
    "VisionTransformer",
    "get_model",
    "get_model_builder",
    "list_models",
    *_BUILDERS,
]


def list_models() -> list[str]:
    """The names that `get_model` knows."""
    return sorted(_BUILDERS)


def get_model_builder(name: str) -> Callable[..., nn.Module]:
    """The function that makes a model. Raises ValueError for an unknown name."""
    try:
        return _BUILDERS[name.lower()]
    except KeyError:
        raise ValueError(f"Unknown model {name}") from None


def get_model(name: str, **config: Any) -> nn.Module:
    """A new model by its name."""
    return get_model_builder(name)(**config)
