"""Random changes of colour, contrast and sharpness."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import graphtorch as torch
from graphtorch import Tensor, nn
from graphtorch.vision.transforms import functional as F
from graphtorch.vision.transforms._arguments import two_sizes

Range = tuple[float, ...] | None


def _range(
    value: Any, name: str, center: float = 1.0, bound: tuple[float, float] = (0, float("inf")), clip: bool = True
) -> Range:
    """Limits of a factor, from a deviation or from two limits; None for those that change nothing."""
    if isinstance(value, numbers.Real):
        if value < 0:
            raise ValueError(f"If {name} is a single number, it must be non negative.")
        limits = [center - float(value), center + float(value)]
        if clip:
            limits[0] = max(limits[0], 0.0)
    elif isinstance(value, tuple | list) and len(value) == 2:
        limits = [float(value[0]), float(value[1])]
    else:
        raise TypeError(f"{name} should be a single number or a list/tuple with length 2.")
    if not bound[0] <= limits[0] <= limits[1] <= bound[1]:
        raise ValueError(f"{name} values should be between {bound}, but got {limits}.")
    return None if limits[0] == limits[1] == center else tuple(limits)


class ColorJitter(nn.Module):
    """Brightness, contrast, saturation and hue changed by random factors, in a random order.

    A number stands for that much either way (of 1; of 0 for the hue), a pair for the limits themselves.
    See https://docs.pytorch.org/vision/stable/generated/torchvision.transforms.ColorJitter.html.
    """

    def __init__(
        self,
        brightness: float | Sequence[float] = 0,
        contrast: float | Sequence[float] = 0,
        saturation: float | Sequence[float] = 0,
        hue: float | Sequence[float] = 0,
    ) -> None:
        super().__init__()
        self.brightness = _range(brightness, "brightness")
        self.contrast = _range(contrast, "contrast")
        self.saturation = _range(saturation, "saturation")
        self.hue = _range(hue, "hue", center=0, bound=(-0.5, 0.5), clip=False)

    @staticmethod
    def get_params(
        brightness: Range, contrast: Range, saturation: Range, hue: Range
    ) -> tuple[Tensor, float | None, float | None, float | None, float | None]:
        """The order of the four, and their factors."""
        order = torch.randperm(4)
        factors = [
            None if limits is None else float(torch.empty(1).uniform_(limits[0], limits[1]).item())
            for limits in (brightness, contrast, saturation, hue)
        ]
        return order, factors[0], factors[1], factors[2], factors[3]

    def forward(self, img: Any) -> Any:
        """The changed image."""
        order, *factors = self.get_params(self.brightness, self.contrast, self.saturation, self.hue)
        changes = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
        for i in order.tolist():
            factor = factors[i]
            if factor is not None:
                img = changes[i](img, factor)
        return img

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(brightness={self.brightness}, contrast={self.contrast}, "
            f"saturation={self.saturation}, hue={self.hue})"
        )


class Grayscale(nn.Module):
    """`functional.rgb_to_grayscale`: the luminance, in one channel or three equal ones."""

    def __init__(self, num_output_channels: int = 1) -> None:
        super().__init__()
        self.num_output_channels = num_output_channels

    def forward(self, img: Any) -> Any:
        """The image in greys."""
        return F.rgb_to_grayscale(img, self.num_output_channels)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_output_channels={self.num_output_channels})"


class RandomGrayscale(nn.Module):
    """Greys in as many channels as the image has, with probability `p`."""

    def __init__(self, p: float = 0.1) -> None:
        super().__init__()
        self.p = p

    def forward(self, img: Any) -> Any:
        """The image, in greys or not."""
        channels = F.get_dimensions(img)[0]
        return F.rgb_to_grayscale(img, channels) if torch.rand(1).item() < self.p else img

    def __repr__(self) -> str:
        return f"{type(self).__name__}(p={self.p})"


class GaussianBlur(nn.Module):
    """Blurred by a Gaussian whose deviation is drawn from `sigma`.

    See https://docs.pytorch.org/vision/stable/generated/torchvision.transforms.GaussianBlur.html.
    """

    def __init__(self, kernel_size: int | Sequence[int], sigma: float | Sequence[float] = (0.1, 2.0)) -> None:
        super().__init__()
        self.kernel_size = two_sizes(kernel_size, "Kernel size should be a tuple/list of two integers")
        if any(size <= 0 or size % 2 == 0 for size in self.kernel_size):
            raise ValueError("Kernel size value should be an odd and positive number.")
        if isinstance(sigma, numbers.Real):
            if sigma <= 0:
                raise ValueError("If sigma is a single number, it must be positive.")
            self.sigma: Sequence[float] = (float(sigma), float(sigma))
        elif isinstance(sigma, Sequence) and len(sigma) == 2:
            if not 0.0 < sigma[0] <= sigma[1]:
                raise ValueError("sigma values should be positive and of the form (min, max).")
            self.sigma = sigma
        else:
            raise ValueError("sigma should be a single number or a list/tuple with length 2.")

    @staticmethod
    def get_params(sigma_min: float, sigma_max: float) -> float:
        """The deviation."""
        return float(torch.empty(1).uniform_(sigma_min, sigma_max).item())

    def forward(self, img: Any) -> Any:
        """The blurred image."""
        return F.gaussian_blur(img, list(self.kernel_size), self.get_params(self.sigma[0], self.sigma[1]))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(kernel_size={self.kernel_size}, sigma={self.sigma})"


class _Sometimes(nn.Module):
    """An operation that is applied with probability `p`."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, img: Any) -> Any:
        """The image, changed or not."""
        return self._change(img) if torch.rand(1).item() < self.p else img

    def _change(self, img: Any) -> Any:
        raise NotImplementedError

    def _arguments(self) -> str:
        return ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._arguments()}p={self.p})"


class RandomInvert(_Sometimes):
    """`functional.invert`, with probability `p`."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)

    def _change(self, img: Any) -> Any:
        return F.invert(img)


class RandomPosterize(_Sometimes):
    """`functional.posterize`, with probability `p`."""

    def __init__(self, bits: int, p: float = 0.5) -> None:
        super().__init__(p)
        self.bits = bits

    def _change(self, img: Any) -> Any:
        return F.posterize(img, self.bits)

    def _arguments(self) -> str:
        return f"bits={self.bits},"


class RandomSolarize(_Sometimes):
    """`functional.solarize`, with probability `p`."""

    def __init__(self, threshold: float, p: float = 0.5) -> None:
        super().__init__(p)
        self.threshold = threshold

    def _change(self, img: Any) -> Any:
        return F.solarize(img, self.threshold)

    def _arguments(self) -> str:
        return f"threshold={self.threshold},"


class RandomAdjustSharpness(_Sometimes):
    """`functional.adjust_sharpness`, with probability `p`."""

    def __init__(self, sharpness_factor: float, p: float = 0.5) -> None:
        super().__init__(p)
        self.sharpness_factor = sharpness_factor

    def _change(self, img: Any) -> Any:
        return F.adjust_sharpness(img, self.sharpness_factor)

    def _arguments(self) -> str:
        return f"sharpness_factor={self.sharpness_factor},"


class RandomAutocontrast(_Sometimes):
    """`functional.autocontrast`, with probability `p`."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)

    def _change(self, img: Any) -> Any:
        return F.autocontrast(img)


class RandomEqualize(_Sometimes):
    """`functional.equalize`, with probability `p`."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)

    def _change(self, img: Any) -> Any:
        return F.equalize(img)
