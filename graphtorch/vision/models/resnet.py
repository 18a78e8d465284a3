"""Residual networks. Source: He et al., Deep Residual Learning, 2015 (https://arxiv.org/abs/1512.03385)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import graphtorch as torch
from graphtorch import Tensor, nn
from graphtorch.vision.models._weights import refuse_weights

Norm = Callable[[int], nn.Module]


def _conv3x3(in_planes: int, out_planes: int, stride: int = 1, groups: int = 1, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(
        in_planes, out_planes, 3, stride=stride, padding=dilation, groups=groups, bias=False, dilation=dilation
    )


def _conv1x1(in_planes: int, out_planes: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_planes, out_planes, 1, stride=stride, bias=False)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut."""

    expansion: ClassVar[int] = 1

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        groups: int = 1,
        base_width: int = 64,
        dilation: int = 1,
        norm_layer: Norm = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        if groups != 1 or base_width != 64:
            raise ValueError("BasicBlock only supports groups=1 and base_width=64")
        if dilation > 1:
            raise NotImplementedError("Dilation > 1 not supported in BasicBlock")
        self.conv1 = _conv3x3(inplanes, planes, stride)
        self.bn1 = norm_layer(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _conv3x3(planes, planes)
        self.bn2 = norm_layer(planes)
        self.downsample = downsample
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """The block's result, with `expansion` times `planes` channels."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions beside a shortcut; the stride is the 3 x 3 convolution's ("ResNet v1.5")."""

    expansion: ClassVar[int] = 4

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        groups: int = 1,
        base_width: int = 64,
        dilation: int = 1,
        norm_layer: Norm = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        width = int(planes * (base_width / 64.0)) * groups
        self.conv1 = _conv1x1(inplanes, width)
        self.bn1 = norm_layer(width)
        self.conv2 = _conv3x3(width, width, stride, groups, dilation)
        self.bn2 = norm_layer(width)
        self.conv3 = _conv1x1(width, planes * self.expansion)
        self.bn3 = norm_layer(planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """The block's result, with `expansion` times `planes` channels."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class ResNet(nn.Module):
    """(N, 3, H, W) to scores (N, num_classes); any size of image from some 32 pixels on."""

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: Sequence[int],
        num_classes: int = 1000,
        zero_init_residual: bool = False,
        groups: int = 1,
        width_per_group: int = 64,
        replace_stride_with_dilation: Sequence[bool] | None = None,
        norm_layer: Norm | None = None,
    ) -> None:
        super().__init__()
        dilated = (False, False, False) if replace_stride_with_dilation is None else replace_stride_with_dilation
        if len(dilated) != 3:
            raise ValueError(
                f"replace_stride_with_dilation should be None or a 3-element tuple, got {replace_stride_with_dilation}"
            )
        self._norm_layer = norm_layer or nn.BatchNorm2d
        self.inplanes = 64
        self.dilation = 1
        self.groups = groups
        self.base_width = width_per_group
        self.conv1 = nn.Conv2d(3, self.inplanes, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = self._norm_layer(self.inplanes)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = self._make_layer(block, 64, layers[0])
        self.layer2 = self._make_layer(block, 128, layers[1], stride=2, dilate=dilated[0])
        self.layer3 = self._make_layer(block, 256, layers[2], stride=2, dilate=dilated[1])
        self.layer4 = self._make_layer(block, 512, layers[3], stride=2, dilate=dilated[2])
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(512 * block.expansion, num_classes)
        self._initialize(zero_init_residual)

    def _make_layer(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        planes: int,
        blocks: int,
        stride: int = 1,
        dilate: bool = False,
    ) -> nn.Sequential:
        norm = self._norm_layer
        first_dilation = self.dilation
        if dilate:
            self.dilation *= stride
            stride = 1
        wide = planes * block.expansion
        downsample = None
        if stride != 1 or self.inplanes != wide:
            downsample = nn.Sequential(_conv1x1(self.inplanes, wide, stride), norm(wide))
        shared = {"groups": self.groups, "base_width": self.base_width, "norm_layer": norm}
        made: list[nn.Module] = [
            block(self.inplanes, planes, stride, downsample, dilation=first_dilation, **shared)  # type: ignore[arg-type]
        ]
        self.inplanes = wide
        made += [block(wide, planes, dilation=self.dilation, **shared) for _ in range(1, blocks)]  # type: ignore[arg-type]
        return nn.Sequential(*made)

    def _initialize(self, zero_init_residual: bool) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm) and module.weight is not None:
                nn.init.constant_(module.weight, 1)
                if module.bias is not None:
                    nn.init.constant_(module.bias, 0)
        if zero_init_residual:  # each block starts as the identity (https://arxiv.org/abs/1706.02677)
            for module in self.modules():
                last = module.bn3 if isinstance(module, Bottleneck) else getattr(module, "bn2", None)
                if isinstance(module, BasicBlock | Bottleneck) and last is not None:
                    nn.init.constant_(last.weight, 0)

    def forward(self, x: Tensor) -> Tensor:
        """The scores."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def _variant(name: str, block: type[BasicBlock | Bottleneck], layers: list[int], doc: str, **own: Any) -> Any:
    """A function that makes a ResNet of so many blocks a stage; `own` are its defaults of ResNet's options."""

    def make(*, weights: object = None, progress: bool = True, **kwargs: Any) -> ResNet:
        refuse_weights(weights)
        return ResNet(block, layers, **{**own, **kwargs})

    make.__name__ = make.__qualname__ = name
    make.__doc__ = doc
    return make


resnet18 = _variant("resnet18", BasicBlock, [2, 2, 2, 2], "ResNet-18.")
resnet34 = _variant("resnet34", BasicBlock, [3, 4, 6, 3], "ResNet-34.")
resnet50 = _variant("resnet50", Bottleneck, [3, 4, 6, 3], "ResNet-50.")
resnet101 = _variant("resnet101", Bottleneck, [3, 4, 23, 3], "ResNet-101.")
resnet152 = _variant("resnet152", Bottleneck, [3, 8, 36, 3], "ResNet-152.")
resnext50_32x4d = _variant(
    "resnext50_32x4d",
    Bottleneck,
    [3, 4, 6, 3],
    "ResNeXt-50 of 32 groups of width 4 (https://arxiv.org/abs/1611.05431).",
    groups=32,
    width_per_group=4,
)
wide_resnet50_2 = _variant(
    "wide_resnet50_2",
    Bottleneck,
    [3, 4, 6, 3],
    "ResNet-50 with inner widths doubled (https://arxiv.org/abs/1605.07146).",
    width_per_group=128,
)
