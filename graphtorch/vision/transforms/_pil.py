"""The image operations of `functional` on Pillow images. Names and arguments are those of `_tensor`.

Filters and transposes are Pillow's numbers, which images take as they are; Pillow itself is imported where a module of
it is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphtorch.vision._pillow import from_array, is_image

Fill = float | Sequence[float] | None

# Pillow's constants: Image.Transpose, Image.Transform and the filters of Image.Resampling.
_FLIP_LEFT_RIGHT, _FLIP_TOP_BOTTOM = 0, 1
_AFFINE, _PERSPECTIVE = 0, 2
FILTERS = {"nearest": 0, "nearest-exact": 0, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5, "lanczos": 1}


def get_dimensions(img: Any) -> list[int]:
    """[channels, height, width]."""
    if not is_image(img):
        raise TypeError(f"Unexpected type {type(img)}")
    return [len(img.getbands()), img.height, img.width]


def _image(img: Any) -> Any:
    if not is_image(img):
        raise TypeError(f"img should be PIL Image. Got {type(img)}")
    return img


def hflip(img: Any) -> Any:
    return _image(img).transpose(_FLIP_LEFT_RIGHT)


def vflip(img: Any) -> Any:
    return _image(img).transpose(_FLIP_TOP_BOTTOM)


def crop(img: Any, top: int, left: int, height: int, width: int) -> Any:
    return _image(img).crop((left, top, left + width, top + height))


def resize(img: Any, size: Sequence[int], interpolation: str, antialias: bool | None) -> Any:
    height, width = size
    return _image(img).resize((width, height), FILTERS[interpolation])


def pad(img: Any, padding: tuple[int, int, int, int], fill: Fill, padding_mode: str) -> Any:
    """`padding` is left, top, right, bottom; negative numbers crop."""
    from PIL import ImageOps

    img = _image(img)
    palette = img.getpalette() if img.mode == "P" else None
    if padding_mode == "constant":
        padded = ImageOps.expand(img, border=padding, fill=_colour(fill, img))
    else:
        left, top, right, bottom = padding
        if min(padding) < 0:
            box = (max(-left, 0), max(-top, 0), img.width - max(-right, 0), img.height - max(-bottom, 0))
            img = img.crop(box)
        pixels = np.asarray(img)
        widths = [(max(top, 0), max(bottom, 0)), (max(left, 0), max(right, 0)), (0, 0)][: pixels.ndim]
        padded = from_array(np.pad(pixels, widths, mode=padding_mode))  # type: ignore[call-overload]
    if palette is not None:
        padded.putpalette(palette)
    return padded


def _colour(fill: Fill, img: Any) -> Any:
    """A fill as Pillow wants it: a number or one for each band, whole unless pixels are floating point."""
    bands = len(img.getbands())
    if fill is None:
        fill = 0
    if not isinstance(fill, Sequence):
        values: Sequence[float] = [fill] * bands
        single = bands == 1
    else:
        values, single = (list(fill) * bands if len(fill) == 1 else fill), False
    if len(values) != bands:
        raise ValueError(
            "The number of elements in 'fill' does not match the number of channels of the image "
            f"({len(values)} != {bands})"
        )
    if img.mode != "F":
        values = [int(value) for value in values]
    return values[0] if single else tuple(values)


def affine(img: Any, matrix: Sequence[float], interpolation: str, fill: Fill) -> Any:
    img = _image(img)
    return img.transform(img.size, _AFFINE, matrix, FILTERS[interpolation], fillcolor=_colour(fill, img))


def rotate(img: Any, angle: float, interpolation: str, expand: bool, center: Sequence[float] | None, fill: Fill) -> Any:
    img = _image(img)
    return img.rotate(angle, FILTERS[interpolation], expand, center, fillcolor=_colour(fill, img))


def perspective(img: Any, coefficients: Sequence[float], interpolation: str, fill: Fill) -> Any:
    img = _image(img)
    return img.transform(img.size, _PERSPECTIVE, coefficients, FILTERS[interpolation], fillcolor=_colour(fill, img))


def _enhance(img: Any, kind: str, factor: float) -> Any:
    from PIL import ImageEnhance

    return getattr(ImageEnhance, kind)(_image(img)).enhance(factor)


def adjust_brightness(img: Any, brightness_factor: float) -> Any:
    return _enhance(img, "Brightness", brightness_factor)


def adjust_contrast(img: Any, contrast_factor: float) -> Any:
    return _enhance(img, "Contrast", contrast_factor)


def adjust_saturation(img: Any, saturation_factor: float) -> Any:
    return _enhance(img, "Color", saturation_factor)


def adjust_sharpness(img: Any, sharpness_factor: float) -> Any:
    return _enhance(img, "Sharpness", sharpness_factor)


def adjust_hue(img: Any, hue_factor: float) -> Any:
    """Hues are a circle of 256 steps: the shift wraps around."""
    if not -0.5 <= hue_factor <= 0.5:
        raise ValueError(f"hue_factor ({hue_factor}) is not in [-0.5, 0.5].")
    img = _image(img)
    if img.mode in ("L", "1", "I", "F"):
        return img
    from PIL import Image

    hue, saturation, value = img.convert("HSV").split()
    shift = np.array(int(hue_factor * 255) % 256, np.uint8)
    shifted = from_array(np.asarray(hue) + shift, "L")
    return Image.merge("HSV", (shifted, saturation, value)).convert(img.mode)


def adjust_gamma(img: Any, gamma: float, gain: float) -> Any:
    img = _image(img)
    if gamma < 0:
        raise ValueError("Gamma should be a non-negative real number")
    # A little less than 256 levels, so that each gets an equal share of 0..1.
    table = [int((256 - 1e-3) * gain * (level / 255.0) ** gamma) for level in range(256)]
    return img.convert("RGB").point(table * 3).convert(img.mode)


def rgb_to_grayscale(img: Any, num_output_channels: int) -> Any:
    if num_output_channels not in (1, 3):
        raise ValueError("num_output_channels should be either 1 or 3")
    grey = _image(img).convert("L")
    return grey if num_output_channels == 1 else from_array(np.stack([np.asarray(grey)] * 3, axis=-1), "RGB")


def _operation(img: Any, name: str, *args: Any) -> Any:
    from PIL import ImageOps

    return getattr(ImageOps, name)(_image(img), *args)


def invert(img: Any) -> Any:
    return _operation(img, "invert")


def posterize(img: Any, bits: int) -> Any:
    return _operation(img, "posterize", bits)


def solarize(img: Any, threshold: float) -> Any:
    return _operation(img, "solarize", threshold)


def autocontrast(img: Any) -> Any:
    return _operation(img, "autocontrast")


def equalize(img: Any) -> Any:
    return _operation(img, "equalize")
