"""The colour operations of `functional` on tensors (..., C, H, W); `_geometry` has those that move pixels.

Integer images hold values from 0 to the greatest of their type, floating-point images from 0 to 1. Results have the
type of the image; what needs fractions computes in float32."""

from __future__ import annotations

from typing import Any

import graphtorch as torch
import graphtorch.nn.functional as F
from graphtorch import Tensor
from graphtorch.vision.transforms._geometry import (  # re-exported: one module with `_pil`'s names
    affine,
    crop,
    get_dimensions,
    hflip,
    pad,
    perspective,
    resize,
    rotate,
    to_float_batch,
    to_original,
    vflip,
)

__all__ = [
    "adjust_brightness",
    "adjust_contrast",
    "adjust_gamma",
    "adjust_hue",
    "adjust_saturation",
    "adjust_sharpness",
    "affine",
    "autocontrast",
    "convert_image_dtype",
    "crop",
    "elementwise_max",
    "equalize",
    "gaussian_blur",
    "get_dimensions",
    "hflip",
    "invert",
    "pad",
    "perspective",
    "posterize",
    "resize",
    "rgb_to_grayscale",
    "rotate",
    "solarize",
    "vflip",
]

_LUMINANCE = (0.2989, 0.587, 0.114)  # of red, green, blue: ITU-R BT.601


def elementwise_max(dtype: torch.dtype) -> int:
    """The value that stands for white."""
    return 1 if dtype.is_floating_point or dtype is torch.bool else int(torch.iinfo(dtype).max)


def _check_channels(img: Tensor, *permitted: int) -> int:
    found = get_dimensions(img)[0]
    if found not in permitted:
        raise TypeError(f"Input image tensor permitted channel values are {sorted(permitted)}, but found {found}")
    return found


def _check_rank(img: Tensor) -> None:
    if img.ndim < 3:
        raise TypeError(f"Input image tensor should have at least 3 dimensions, but found {img.ndim}")


def _check_factor(name: str, factor: float) -> None:
    if factor < 0:
        raise ValueError(f"{name} ({factor}) is not non-negative.")


def _float_type(img: Tensor) -> torch.dtype:
    return img.dtype if img.is_floating_point() else torch.float32


def convert_image_dtype(image: Tensor, dtype: torch.dtype) -> Tensor:
    """Values scaled to the range of `dtype`."""
    if image.dtype == dtype:
        return image
    if image.is_floating_point():
        if dtype.is_floating_point:
            return image.to(dtype)
        exact = {torch.float32: (torch.int32, torch.int64), torch.float64: (torch.int64,)}
        if dtype in exact.get(image.dtype, ()):
            raise RuntimeError(f"The cast from {image.dtype} to {dtype} cannot be performed safely.")
        # A little less than max + 1 levels, so that each of them gets an equal share of 0..1.
        return image.mul(elementwise_max(dtype) + 1.0 - 1e-3).to(dtype)
    greatest = elementwise_max(image.dtype)
    if dtype.is_floating_point:
        return image.to(dtype) / greatest
    wanted = elementwise_max(dtype)
    if greatest > wanted:
        return torch.div(image, (greatest + 1) // (wanted + 1), rounding_mode="floor").to(dtype)
    return image.to(dtype) * ((wanted + 1) // (greatest + 1))


def _blend(first: Tensor, second: Tensor, ratio: float) -> Tensor:
    """`ratio` parts of the first image and the rest of the second; a ratio above 1 moves away from the second."""
    mixed = ratio * first + (1.0 - ratio) * second
    return mixed.clamp(0, elementwise_max(first.dtype)).to(first.dtype)


def rgb_to_grayscale(img: Tensor, num_output_channels: int = 1) -> Tensor:
    _check_rank(img)
    channels = _check_channels(img, 1, 3)
    if num_output_channels not in (1, 3):
        raise ValueError("num_output_channels should be either 1 or 3")
    if channels == 3:
        weighted = [weight * band for weight, band in zip(_LUMINANCE, img.unbind(-3), strict=True)]
        grey = (weighted[0] + weighted[1] + weighted[2]).to(img.dtype).unsqueeze(-3)
    else:
        grey = img.clone()
    return grey.expand(*img.shape[:-3], 3, *img.shape[-2:]) if num_output_channels == 3 else grey


def adjust_brightness(img: Tensor, brightness_factor: float) -> Tensor:
    _check_factor("brightness_factor", brightness_factor)
    _check_channels(img, 1, 3)
    return _blend(img, torch.zeros_like(img), float(brightness_factor))


def adjust_contrast(img: Tensor, contrast_factor: float) -> Tensor:
    _check_factor("contrast_factor", contrast_factor)
    grey = rgb_to_grayscale(img) if _check_channels(img, 1, 3) == 3 else img
    mean = grey.to(_float_type(img)).mean(dim=(-3, -2, -1), keepdim=True)
    return _blend(img, mean, float(contrast_factor))


def adjust_saturation(img: Tensor, saturation_factor: float) -> Tensor:
    _check_factor("saturation_factor", saturation_factor)
    if _check_channels(img, 1, 3) == 1:
        return img
    return _blend(img, rgb_to_grayscale(img), float(saturation_factor))


def adjust_hue(img: Tensor, hue_factor: float) -> Tensor:
    if not -0.5 <= hue_factor <= 0.5:
        raise ValueError(f"hue_factor ({hue_factor}) is not in [-0.5, 0.5].")
    if _check_channels(img, 1, 3) == 1:
        return img
    hue, saturation, value = _to_hsv(convert_image_dtype(img, torch.float32))
    turned = _from_hsv((hue + hue_factor) % 1.0, saturation, value)
    return convert_image_dtype(turned, img.dtype)


def _to_hsv(img: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue, saturation and value in 0..1 of an RGB image. Source: A. R. Smith, Color Gamut Transform Pairs, 1978."""
    red, green, blue = img.unbind(-3)
    value, least = img.amax(-3), img.amin(-3)
    spread = value - least
    grey = spread == 0
    # A grey pixel has neither saturation nor hue; dividing by 1 instead of 0 gives it zeros, and gradients no NaN.
    one = torch.ones_like(value)
    saturation = spread / torch.where(grey, one, value)
    divisor = torch.where(grey, one, spread)
    to_red, to_green, to_blue = ((value - band) / divisor for band in (red, green, blue))
    is_red = value == red
    is_green = (value == green) & ~is_red
    is_blue = ~is_red & ~(value == green)
    sector = is_red * (to_blue - to_green) + is_green * (2.0 + to_red - to_blue) + is_blue * (4.0 + to_green - to_red)
    return torch.fmod(sector / 6.0 + 1.0, 1.0), saturation, value


def _from_hsv(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """The inverse of `_to_hsv`: each sixth of the hues has another order of the same four levels."""
    sector = torch.floor(hue * 6.0)
    within = hue * 6.0 - sector
    low = (value * (1.0 - saturation)).clamp(0.0, 1.0)
    falling = (value * (1.0 - saturation * within)).clamp(0.0, 1.0)
    rising = (value * (1.0 - saturation * (1.0 - within))).clamp(0.0, 1.0)
    number = sector.to(torch.int32) % 6
    bands = (
        (value, falling, low, low, rising, value),
        (rising, value, value, falling, low, low),
        (low, low, rising, value, value, falling),
    )
    chosen = []
    for levels in bands:
        band = levels[5]
        for i in range(5):
            band = torch.where(number == i, levels[i], band)
        chosen.append(band)
    return torch.stack(chosen, dim=-3)


def adjust_gamma(img: Tensor, gamma: float, gain: float) -> Tensor:
    _check_channels(img, 1, 3)
    if gamma < 0:
        raise ValueError("Gamma should be a non-negative real number")
    scaled = img if img.is_floating_point() else convert_image_dtype(img, torch.float32)
    return convert_image_dtype((gain * scaled.pow(gamma)).clamp(0, 1), img.dtype)


def _gaussian(size: int, sigma: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    half = (size - 1) * 0.5
    places = torch.linspace(-half, half, steps=size, dtype=dtype, device=device)
    density = torch.exp(-0.5 * (places / sigma).pow(2))
    return density / density.sum()


def gaussian_blur(img: Tensor, kernel_size: list[int], sigma: list[float]) -> Tensor:
    dtype = _float_type(img)
    across, down = (_gaussian(size, width, dtype, img.device) for size, width in zip(kernel_size, sigma, strict=True))
    channels = get_dimensions(img)[0]
    kernel = torch.mm(down[:, None], across[None, :]).expand(channels, 1, kernel_size[1], kernel_size[0])
    batch = to_float_batch(img, dtype)
    halves = [kernel_size[0] // 2, kernel_size[0] // 2, kernel_size[1] // 2, kernel_size[1] // 2]
    blurred = F.conv2d(F.pad(batch, halves, mode="reflect"), kernel, groups=channels)
    return to_original(blurred, img)


def adjust_sharpness(img: Tensor, sharpness_factor: float) -> Tensor:
    _check_factor("sharpness_factor", sharpness_factor)
    channels = _check_channels(img, 1, 3)
    if img.shape[-1] <= 2 or img.shape[-2] <= 2:
        return img
    dtype = _float_type(img)
    weights = torch.tensor([[1.0, 1.0, 1.0], [1.0, 5.0, 1.0], [1.0, 1.0, 1.0]], dtype=dtype, device=img.device)
    kernel = (weights / weights.sum()).expand(channels, 1, 3, 3)
    smooth = img.clone()
    smooth[..., 1:-1, 1:-1] = to_original(F.conv2d(to_float_batch(img, dtype), kernel, groups=channels), img)
    return _blend(img, smooth, float(sharpness_factor))


def invert(img: Tensor) -> Tensor:
    _check_rank(img)
    _check_channels(img, 1, 3)
    return elementwise_max(img.dtype) - img


def _check_bytes(img: Tensor) -> None:
    if img.dtype != torch.uint8:
        raise TypeError(f"Only torch.uint8 image tensors are supported, but found {img.dtype}")


def posterize(img: Tensor, bits: int) -> Tensor:
    _check_rank(img)
    _check_bytes(img)
    _check_channels(img, 1, 3)
    return img & (256 - 2 ** (8 - bits))


def solarize(img: Tensor, threshold: float) -> Tensor:
    _check_rank(img)
    _check_channels(img, 1, 3)
    if threshold > elementwise_max(img.dtype):
        raise TypeError("Threshold should be less than bound of img.")
    return torch.where(img >= threshold, invert(img), img)


def autocontrast(img: Tensor) -> Tensor:
    _check_rank(img)
    _check_channels(img, 1, 3)
    bound, dtype = elementwise_max(img.dtype), _float_type(img)
    least = img.amin(dim=(-2, -1), keepdim=True).to(dtype)
    scale = bound / (img.amax(dim=(-2, -1), keepdim=True).to(dtype) - least)
    flat = ~torch.isfinite(scale)
    least, scale = least.masked_fill(flat, 0), scale.masked_fill(flat, 1)
    return ((img - least) * scale).clamp(0, bound).to(img.dtype)


def equalize(img: Tensor) -> Tensor:
    if not 3 <= img.ndim <= 4:
        raise TypeError(f"Input image tensor should have 3 or 4 dimensions, but found {img.ndim}")
    _check_bytes(img)
    _check_channels(img, 1, 3)
    planes: Any = img.reshape(-1, *img.shape[-2:])
    return torch.stack([_equalize_plane(plane) for plane in planes]).reshape(img.shape)


def _equalize_plane(plane: Tensor) -> Tensor:
    """Each level goes to its place in the cumulative histogram, scaled to 0..255."""
    histogram = torch.bincount(plane.reshape(-1), minlength=256)
    used = histogram[histogram != 0]
    step = int(used[:-1].sum().item()) // 255
    if step == 0:
        return plane
    table = torch.div(histogram.cumsum(0) + step // 2, step, rounding_mode="floor")
    table = F.pad(table, [1, 0])[:-1].clamp(0, 255)
    return table[plane.to(torch.int64)].to(torch.uint8)
