"""Random crops, flips, turns and erasures. `get_params` of each class draws what `functional` then applies."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import graphtorch as torch
from graphtorch import Tensor, nn
from graphtorch.vision.transforms import functional as F
from graphtorch.vision.transforms._arguments import (
    angles,
    check_ranges,
    check_sequence,
    checked_fill,
    fill_for,
    two_sizes,
)
from graphtorch.vision.transforms.functional import InterpolationMode, interpolation_mode

_TWO = "Please provide only two dimensions (h, w) for size."


def _uniform(low: float, high: float) -> float:
    return float(torch.empty(1).uniform_(low, high).item())


def _below(low: int, high: int) -> int:
    """A whole number in [low, high)."""
    return int(torch.randint(low, high, size=(1,)).item())


def _draw_box(height: int, width: int, scale: Sequence[float], ratio: Sequence[float]) -> tuple[int, int]:
    """The two edges of a box, by a share of the area and the ratio of the first edge to the second, which is uniform in
    its logarithm. It need not fit.

    The logarithms are rounded to float32, as torchvision has them in a tensor.
    """
    logarithms = torch.log(torch.tensor(list(ratio), dtype=torch.float32)).tolist()
    area = height * width * _uniform(scale[0], scale[1])
    aspect = torch.exp(torch.empty(1).uniform_(logarithms[0], logarithms[1])).item()
    return round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))


class RandomCrop(nn.Module):
    """A box of the given size at a random place, of the image padded by `padding`, if need be to the size.

    Raises ValueError for an image smaller than the box.
    See https://docs.pytorch.org/vision/stable/generated/torchvision.transforms.RandomCrop.html.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        padding: int | Sequence[int] | None = None,
        pad_if_needed: bool = False,
        fill: float | Sequence[float] = 0,
        padding_mode: str = "constant",
    ) -> None:
        super().__init__()
        self.size = tuple(two_sizes(size, _TWO))
        self.padding = padding
        self.pad_if_needed = pad_if_needed
        self.fill = fill
        self.padding_mode = padding_mode

    @staticmethod
    def get_params(img: Any, output_size: Sequence[int]) -> tuple[int, int, int, int]:
        """(top, left, height, width)."""
        _, rows, columns = F.get_dimensions(img)
        height, width = output_size
        if rows < height or columns < width:
            raise ValueError(f"Required crop size {(height, width)} is larger than input image size {(rows, columns)}")
        if (rows, columns) == (height, width):
            return 0, 0, rows, columns
        top = _below(0, rows - height + 1)
        return top, _below(0, columns - width + 1), height, width

    def forward(self, img: Any) -> Any:
        """The cropped image."""
        if self.padding is not None:
            img = F.pad(img, self.padding, self.fill, self.padding_mode)
        _, rows, columns = F.get_dimensions(img)
        if self.pad_if_needed and columns < self.size[1]:
            img = F.pad(img, [self.size[1] - columns, 0], self.fill, self.padding_mode)
        if self.pad_if_needed and rows < self.size[0]:
            img = F.pad(img, [0, self.size[0] - rows], self.fill, self.padding_mode)
        return F.crop(img, *self.get_params(img, self.size))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(size={self.size}, padding={self.padding})"


class RandomHorizontalFlip(nn.Module):
    """Left and right exchanged, with probability `p`."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = p

    def forward(self, img: Any) -> Any:
        """The image, flipped or not."""
        return F.hflip(img) if torch.rand(1).item() < self.p else img

    def __repr__(self) -> str:
        return f"{type(self).__name__}(p={self.p})"


class RandomVerticalFlip(nn.Module):
    """Top and bottom exchanged, with probability `p`."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = p

    def forward(self, img: Any) -> Any:
        """The image, flipped or not."""
        return F.vflip(img) if torch.rand(1).item() < self.p else img

    def __repr__(self) -> str:
        return f"{type(self).__name__}(p={self.p})"


class RandomResizedCrop(nn.Module):
    """A box of random area (a share in `scale`) and ratio of edges (in `ratio`), resized to `size`.

    Source: Szegedy et al., Going Deeper with Convolutions, 2014 (https://arxiv.org/abs/1409.4842).
    """

    def __init__(
        self,
        size: int | Sequence[int],
        scale: Sequence[float] = (0.08, 1.0),
        ratio: Sequence[float] = (3.0 / 4.0, 4.0 / 3.0),
        interpolation: InterpolationMode | int = InterpolationMode.BILINEAR,
        antialias: bool | None = True,
    ) -> None:
        super().__init__()
        self.size = two_sizes(size, _TWO)
        check_ranges(scale, ratio)
        self.interpolation = interpolation_mode(interpolation)
        self.antialias = antialias
        self.scale = scale
        self.ratio = ratio

    @staticmethod
    def get_params(img: Any, scale: Sequence[float], ratio: Sequence[float]) -> tuple[int, int, int, int]:
        """(top, left, height, width): of ten draws the first that fits, else the largest box in the middle."""
        _, rows, columns = F.get_dimensions(img)
        for _ in range(10):
            width, height = _draw_box(rows, columns, scale, ratio)
            if 0 < width <= columns and 0 < height <= rows:
                top = _below(0, rows - height + 1)
                return top, _below(0, columns - width + 1), height, width
        width, height = columns, rows
        if columns / rows < min(ratio):
            height = round(columns / min(ratio))
        elif columns / rows > max(ratio):
            width = round(rows * max(ratio))
        return (rows - height) // 2, (columns - width) // 2, height, width

    def forward(self, img: Any) -> Any:
        """The cropped and resized image."""
        box = self.get_params(img, self.scale, self.ratio)
        return F.resized_crop(img, *box, self.size, self.interpolation, antialias=self.antialias)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(size={self.size}, scale={tuple(round(s, 4) for s in self.scale)}, "
            f"ratio={tuple(round(r, 4) for r in self.ratio)}, interpolation={self.interpolation.value}, "
            f"antialias={self.antialias})"
        )


class RandomRotation(nn.Module):
    """Turned by an angle from `degrees` (a range, or one number either way).

    See https://docs.pytorch.org/vision/stable/generated/torchvision.transforms.RandomRotation.html.
    """

    def __init__(
        self,
        degrees: float | Sequence[float],
        interpolation: InterpolationMode | int = InterpolationMode.NEAREST,
        expand: bool = False,
        center: Sequence[float] | None = None,
        fill: float | Sequence[float] | None = 0,
    ) -> None:
        super().__init__()
        self.degrees = angles(degrees, "degrees")
        if center is not None:
            check_sequence(center, "center", (2,))
        self.center = center
        self.interpolation = interpolation_mode(interpolation)
        self.expand = expand
        self.fill = checked_fill(fill)

    @staticmethod
    def get_params(degrees: Sequence[float]) -> float:
        """The angle."""
        return _uniform(float(degrees[0]), float(degrees[1]))

    def forward(self, img: Any) -> Any:
        """The turned image."""
        fill = fill_for(img, self.fill, F.get_dimensions(img)[0])
        return F.rotate(img, self.get_params(self.degrees), self.interpolation, self.expand, self.center, fill)

    def __repr__(self) -> str:
        centre = "" if self.center is None else f", center={self.center}"
        return (
            f"{type(self).__name__}(degrees={self.degrees}, interpolation={self.interpolation.value}, "
            f"expand={self.expand}{centre}, fill={self.fill})"
        )


class RandomAffine(nn.Module):
    """Turned, translated (by shares of the edges), scaled and sheared at random, about `center`.

    See https://docs.pytorch.org/vision/stable/generated/torchvision.transforms.RandomAffine.html.
    """

    def __init__(
        self,
        degrees: float | Sequence[float],
        translate: Sequence[float] | None = None,
        scale: Sequence[float] | None = None,
        shear: float | Sequence[float] | None = None,
        interpolation: InterpolationMode | int = InterpolationMode.NEAREST,
        fill: float | Sequence[float] | None = 0,
        center: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.degrees = angles(degrees, "degrees")
        if translate is not None:
            check_sequence(translate, "translate", (2,))
            if not all(0.0 <= share <= 1.0 for share in translate):
                raise ValueError("translation values should be between 0 and 1")
        self.translate = translate
        if scale is not None:
            check_sequence(scale, "scale", (2,))
            if min(scale) <= 0:
                raise ValueError("scale values should be positive")
        self.scale = scale
        self.shear = None if shear is None else angles(shear, "shear", (2, 4))
        self.interpolation = interpolation_mode(interpolation)
        self.fill = checked_fill(fill)
        if center is not None:
            check_sequence(center, "center", (2,))
        self.center = center

    @staticmethod
    def get_params(
        degrees: Sequence[float],
        translate: Sequence[float] | None,
        scale_ranges: Sequence[float] | None,
        shears: Sequence[float] | None,
        img_size: Sequence[int],
    ) -> tuple[float, tuple[int, int], float, tuple[float, float]]:
        """(angle, translation, scale, shears) for an image of `img_size` (width, height)."""
        angle = _uniform(float(degrees[0]), float(degrees[1]))
        shift = (0, 0)
        if translate is not None:
            across, down = float(translate[0] * img_size[0]), float(translate[1] * img_size[1])
            right = round(_uniform(-across, across))
            shift = (right, round(_uniform(-down, down)))
        scale = 1.0 if scale_ranges is None else _uniform(scale_ranges[0], scale_ranges[1])
        shear_x = 0.0 if shears is None else _uniform(shears[0], shears[1])
        shear_y = 0.0 if shears is None or len(shears) < 4 else _uniform(shears[2], shears[3])
        return angle, shift, scale, (shear_x, shear_y)

    def forward(self, img: Any) -> Any:
        """The transformed image."""
        channels, height, width = F.get_dimensions(img)
        drawn = self.get_params(self.degrees, self.translate, self.scale, self.shear, (width, height))
        fill = fill_for(img, self.fill, channels)
        return F.affine(img, *drawn, interpolation=self.interpolation, fill=fill, center=self.center)

    def __repr__(self) -> str:
        given = [f"degrees={self.degrees}"]
        given += [f"{name}={getattr(self, name)}" for name in ("translate", "scale", "shear") if getattr(self, name)]
        if self.interpolation is not InterpolationMode.NEAREST:
            given.append(f"interpolation={self.interpolation.value}")
        if self.fill != 0:
            given.append(f"fill={self.fill}")
        if self.center is not None:
            given.append(f"center={self.center}")
        return f"{type(self).__name__}({', '.join(given)})"


class RandomPerspective(nn.Module):
    """With probability `p`, seen from a random point: corners move inwards by at most `distortion_scale` of half the
    edges."""

    def __init__(
        self,
        distortion_scale: float = 0.5,
        p: float = 0.5,
        interpolation: InterpolationMode | int = InterpolationMode.BILINEAR,
        fill: float | Sequence[float] | None = 0,
    ) -> None:
        super().__init__()
        self.p = p
        self.interpolation = interpolation_mode(interpolation)
        self.distortion_scale = distortion_scale
        self.fill = checked_fill(fill)

    @staticmethod
    def get_params(width: int, height: int, distortion_scale: float) -> tuple[list[list[int]], list[list[int]]]:
        """The corners of the image and where they go, from the top left clockwise."""
        across, down = int(distortion_scale * (width // 2)), int(distortion_scale * (height // 2))
        moved = []
        for right, bottom in ((False, False), (True, False), (True, True), (False, True)):
            x = _below(width - across - 1, width) if right else _below(0, across + 1)
            y = _below(height - down - 1, height) if bottom else _below(0, down + 1)
            moved.append([x, y])
        return [[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], moved

    def forward(self, img: Any) -> Any:
        """The image, distorted or not."""
        channels, height, width = F.get_dimensions(img)
        if torch.rand(1).item() >= self.p:
            return img
        start, end = self.get_params(width, height, self.distortion_scale)
        return F.perspective(img, start, end, self.interpolation, fill_for(img, self.fill, channels))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(p={self.p})"


class RandomErasing(nn.Module):
    """With probability `p`, a random box of a tensor image overwritten by `value` ("random": normal numbers).

    Source: Zhong et al., Random Erasing Data Augmentation, 2017 (https://arxiv.org/abs/1708.04896).
    """

    def __init__(
        self,
        p: float = 0.5,
        scale: Sequence[float] = (0.02, 0.33),
        ratio: Sequence[float] = (0.3, 3.3),
        value: float | str | Sequence[float] = 0,
        inplace: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(value, numbers.Number | str | tuple | list):
            raise TypeError("Argument value should be either a number or str or a sequence")
        if isinstance(value, str) and value != "random":
            raise ValueError("If value is str, it should be 'random'")
        check_ranges(scale, ratio)
        if scale[0] < 0 or scale[1] > 1:
            raise ValueError("Scale should be between 0 and 1")
        if p < 0 or p > 1:
            raise ValueError("Random erasing probability should be between 0 and 1")
        self.p = p
        self.scale = scale
        self.ratio = ratio
        self.value = value
        self.inplace = inplace

    @staticmethod
    def get_params(
        img: Tensor, scale: Sequence[float], ratio: Sequence[float], value: Sequence[float] | None = None
    ) -> tuple[int, int, int, int, Tensor]:
        """(top, left, height, width, values); the image itself if ten draws give no box that fits."""
        channels, rows, columns = img.shape[-3:]
        for _ in range(10):
            height, width = _draw_box(rows, columns, scale, ratio)
            if not (height < rows and width < columns):
                continue
            if value is None:
                values = torch.empty([channels, height, width], dtype=torch.float32, device=img.device).normal_()
            else:
                values = torch.tensor(list(value), device=img.device)[:, None, None]
            top = _below(0, rows - height + 1)
            return top, _below(0, columns - width + 1), height, width, values
        return 0, 0, rows, columns, img

    def forward(self, img: Tensor) -> Tensor:
        """The image, with a box erased or not."""
        if torch.rand(1).item() >= self.p:
            return img
        value: Sequence[float] | None
        if isinstance(self.value, str):
            value = None
        else:
            value = list(self.value) if isinstance(self.value, Sequence) else [float(self.value)]
        if value is not None and len(value) not in (1, img.shape[-3]):
            raise ValueError(
                "If value is a sequence, it should have either a single value or "
                f"{img.shape[-3]} (number of input channels)"
            )
        top, left, height, width, values = self.get_params(img, self.scale, self.ratio, value)
        return F.erase(img, top, left, height, width, values, self.inplace)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(p={self.p}, scale={self.scale}, ratio={self.ratio}, "
            f"value={self.value}, inplace={self.inplace})"
        )
