"""Image operations with given parameters, on Pillow images and tensors (..., C, H, W); `transforms` draws parameters.

Each function checks its arguments and calls the operation of the image's kind, in `_pil` or `_tensor`.
See https://docs.pytorch.org/vision/stable/transforms.html#functional-transforms."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Sequence
from enum import Enum
from typing import Any

import numpy as np

import graphtorch as torch
from graphtorch import Tensor
from graphtorch.vision._pillow import from_array, is_image
from graphtorch.vision.transforms import _pil, _tensor

Fill = float | Sequence[float] | None


class InterpolationMode(Enum):
    """Filters. Tensors know the first four; box, Hamming and Lanczos are Pillow's."""

    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"


_BY_NUMBER = {
    0: InterpolationMode.NEAREST,
    2: InterpolationMode.BILINEAR,
    3: InterpolationMode.BICUBIC,
    4: InterpolationMode.BOX,
    5: InterpolationMode.HAMMING,
    1: InterpolationMode.LANCZOS,
}


def interpolation_mode(mode: InterpolationMode | int) -> InterpolationMode:
    """The mode, of itself or of Pillow's number."""
    if isinstance(mode, int):
        return _BY_NUMBER[mode]
    if not isinstance(mode, InterpolationMode):
        raise TypeError(
            "Argument interpolation should be a InterpolationMode or a corresponding Pillow integer constant"
        )
    return mode


def _of(img: Any) -> Any:
    """The module with the operations of this kind of image."""
    return _tensor if isinstance(img, Tensor) else _pil


# -- properties and conversions ---------------------------------------------------------------------------------------


def get_dimensions(img: Any) -> list[int]:
    """[channels, height, width]."""
    found: list[int] = _of(img).get_dimensions(img)
    return found


def get_image_size(img: Any) -> list[int]:
    """[width, height]."""
    return get_dimensions(img)[:0:-1]


def get_image_num_channels(img: Any) -> int:
    """The number of channels."""
    return get_dimensions(img)[0]


def _to_array(pic: Any) -> np.ndarray:
    """(H, W, C), a copy."""
    words = {"I": np.int32, "I;16" if sys.byteorder == "little" else "I;16B": np.int16, "F": np.float32}
    array = np.array(pic, words.get(pic.mode, np.uint8), copy=True)
    if pic.mode == "1":
        array = array * np.uint8(255)
    return array.reshape(pic.height, pic.width, len(pic.getbands()))


def to_tensor(pic: Any) -> Tensor:
    """(C, H, W) of an image or an (H, W, C) array; bytes become fractions of 255 in the default dtype."""
    if isinstance(pic, np.ndarray):
        if pic.ndim not in (2, 3):
            raise ValueError(f"pic should be 2/3 dimensional. Got {pic.ndim} dimensions.")
        array = pic[:, :, None] if pic.ndim == 2 else pic
    elif is_image(pic):
        array = _to_array(pic)
    else:
        raise TypeError(f"pic should be PIL Image or ndarray. Got {type(pic)}")
    image = torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))
    return image.to(torch.get_default_dtype()).div(255) if image.dtype == torch.uint8 else image


def pil_to_tensor(pic: Any) -> Tensor:
    """(C, H, W) of an image, its values as they are."""
    if not is_image(pic):
        raise TypeError(f"pic should be PIL Image. Got {type(pic)}")
    array = np.array(pic, copy=True).reshape(pic.height, pic.width, len(pic.getbands()))
    return torch.as_tensor(array).permute(2, 0, 1)


def convert_image_dtype(image: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Values scaled from the range of the image's dtype to that of another.

    Raises RuntimeError where the target can't hold whole numbers of the range exactly (float32 to int32, say).
    """
    if not isinstance(image, Tensor):
        raise TypeError("Input img should be Tensor Image")
    return _tensor.convert_image_dtype(image, dtype)


_MODES = {2: ("LA",), 3: ("RGB", "YCbCr", "HSV"), 4: ("RGBA", "CMYK", "RGBX")}
_PLANE_MODES = {"u1": "L", "i2": "I;16" if sys.byteorder == "little" else "I;16B", "i4": "I", "f4": "F"}


def to_pil_image(pic: Any, mode: str | None = None) -> Any:
    """A Pillow image of a tensor (C, H, W) or an array (H, W, C); floats are fractions of 255 unless mode is "F"."""
    if isinstance(pic, Tensor):
        array = (pic.permute(1, 2, 0) if pic.ndim == 3 else pic).detach().cpu().numpy()
    elif isinstance(pic, np.ndarray):
        array = pic
    else:
        raise TypeError(f"pic should be Tensor or ndarray. Got {type(pic)}.")
    if array.ndim not in (2, 3):
        raise ValueError(f"pic should be 2/3 dimensional. Got {array.ndim} dimensions.")
    array = array[:, :, None] if array.ndim == 2 else array
    channels = array.shape[2]
    if channels > 4:
        raise ValueError(f"pic should not have > 4 channels. Got {channels} channels.")
    if np.issubdtype(array.dtype, np.floating) and mode != "F":
        array = (array * 255).astype(np.uint8)
    if channels == 1:
        array = array[:, :, 0]
        expected = _PLANE_MODES.get(array.dtype.str[1:])
        if mode is not None and mode != expected:
            raise ValueError(f"Incorrect mode ({mode}) supplied for input type {array.dtype}. Should be {expected}")
        mode = expected
    else:
        if mode is not None and mode not in _MODES[channels]:
            raise ValueError(f"Only modes {list(_MODES[channels])} are supported for {channels}D inputs")
        if mode is None and array.dtype == np.uint8:
            mode = _MODES[channels][0]
    if mode is None:
        raise TypeError(f"Input type {array.dtype} is not supported")
    return from_array(array, mode)


def normalize(tensor: Tensor, mean: Sequence[float], std: Sequence[float], inplace: bool = False) -> Tensor:
    """(tensor - mean) / std, a number for each channel. Raises ValueError if a deviation is 0."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"img should be Tensor Image. Got {type(tensor)}")
    if not tensor.is_floating_point():
        raise TypeError(f"Input tensor should be a float tensor. Got {tensor.dtype}.")
    if tensor.ndim < 3:
        raise ValueError(
            f"Expected tensor to be a tensor image of size (..., C, H, W). Got tensor.size() = {tensor.size()}"
        )
    centre, spread = (torch.as_tensor(values, dtype=tensor.dtype, device=tensor.device) for values in (mean, std))
    if (spread == 0).any():
        raise ValueError(f"std evaluated to zero after conversion to {tensor.dtype}, leading to division by zero.")
    centre, spread = (t.view(-1, 1, 1) if t.ndim == 1 else t for t in (centre, spread))
    return (tensor if inplace else tensor.clone()).sub_(centre).div_(spread)


# -- geometry ---------------------------------------------------------------------------------------------------------


def hflip(img: Any) -> Any:
    """Left and right exchanged."""
    return _of(img).hflip(img)


def vflip(img: Any) -> Any:
    """Top and bottom exchanged."""
    return _of(img).vflip(img)


def _resized_size(height: int, width: int, size: Sequence[int], max_size: int | None) -> list[int]:
    """[height, width] for the requested size of the shorter edge or of both."""
    if len(size) == 2:
        return list(size)
    short, long = min(height, width), max(height, width)
    new_short, new_long = size[0], int(size[0] * long / short)
    if max_size is not None:
        if max_size <= size[0]:
            raise ValueError(
                f"max_size = {max_size} must be strictly greater than the requested "
                f"size for the smaller edge size = {list(size)}"
            )
        if new_long > max_size:
            new_short, new_long = int(max_size * new_short / new_long), max_size
    return [new_long, new_short] if width <= height else [new_short, new_long]


def resize(
    img: Any,
    size: int | Sequence[int],
    interpolation: InterpolationMode | int = InterpolationMode.BILINEAR,
    max_size: int | None = None,
    antialias: bool | None = True,
) -> Any:
    """Scaled to (height, width) or, for one number, so that the shorter edge has that length.

    `antialias` concerns bilinear and bicubic filters on tensors; Pillow always smooths.
    """
    mode = interpolation_mode(interpolation)
    sizes = [size] if isinstance(size, int) else list(size)
    if len(sizes) not in (1, 2):
        raise ValueError(f"Size must be an int or a 1 or 2 element tuple/list, not a {len(sizes)} element tuple/list")
    if max_size is not None and len(sizes) == 2:
        raise ValueError(
            "max_size should only be passed if size specifies the length of the smaller edge, "
            "i.e. size should be an int or a sequence of length 1 in torchscript mode."
        )
    _, height, width = get_dimensions(img)
    wanted = _resized_size(height, width, sizes, max_size)
    if wanted == [height, width]:
        return img
    if antialias is False and not isinstance(img, Tensor):
        warnings.warn(
            "Anti-alias option is always applied for PIL Image input. Argument antialias is ignored.", stacklevel=2
        )
    return _of(img).resize(img, wanted, mode.value, antialias)


def pad(img: Any, padding: int | Sequence[int], fill: Fill = 0, padding_mode: str = "constant") -> Any:
    """A border added: one width for all sides, (left and right, top and bottom), or (left, top, right, bottom).

    Modes: constant, edge, reflect, symmetric (a reflection that repeats the border's pixels).
    """
    if not isinstance(padding, int | tuple | list):
        raise TypeError("Got inappropriate padding arg")
    if fill is not None and not isinstance(fill, int | float | tuple | list):
        raise TypeError("Got inappropriate fill arg")
    if not isinstance(padding_mode, str):
        raise TypeError("Got inappropriate padding_mode arg")
    widths = [padding] if isinstance(padding, int) else list(padding)
    if len(widths) not in (1, 2, 4):
        raise ValueError(f"Padding must be an int or a 1, 2, or 4 element tuple, not a {len(widths)} element tuple")
    if padding_mode not in ("constant", "edge", "reflect", "symmetric"):
        raise ValueError("Padding mode should be either constant, edge, reflect or symmetric")
    left, top, right, bottom = widths * (4 // len(widths))
    return _of(img).pad(img, (left, top, right, bottom), fill, padding_mode)


def crop(img: Any, top: int, left: int, height: int, width: int) -> Any:
    """The part of the image at (top, left); what lies outside is 0."""
    return _of(img).crop(img, top, left, height, width)


def _square(size: Any) -> tuple[int, int]:
    if isinstance(size, int | float):
        return int(size), int(size)
    return (size[0], size[0]) if len(size) == 1 else (size[0], size[1])


def center_crop(img: Any, output_size: int | Sequence[int]) -> Any:
    """The middle of the image, padded with 0 where it is too small."""
    height, width = _square(output_size)
    _, rows, columns = get_dimensions(img)
    if width > columns or height > rows:
        across, down = max(width - columns, 0), max(height - rows, 0)
        img = pad(img, (across // 2, down // 2, (across + 1) // 2, (down + 1) // 2))
        _, rows, columns = get_dimensions(img)
        if (rows, columns) == (height, width):
            return img
    return crop(img, round((rows - height) / 2.0), round((columns - width) / 2.0), height, width)


def resized_crop(
    img: Any,
    top: int,
    left: int,
    height: int,
    width: int,
    size: int | Sequence[int],
    interpolation: InterpolationMode | int = InterpolationMode.BILINEAR,
    antialias: bool | None = True,
) -> Any:
    """`crop`, then `resize`."""
    return resize(crop(img, top, left, height, width), size, interpolation, antialias=antialias)


def five_crop(img: Any, size: int | Sequence[int]) -> tuple[Any, Any, Any, Any, Any]:
    """The corners (top left, top right, bottom left, bottom right) and the centre."""
    height, width = _square(size)
    _, rows, columns = get_dimensions(img)
    if width > columns or height > rows:
        raise ValueError(f"Requested crop size {(height, width)} is bigger than input size {(rows, columns)}")
    return (
        crop(img, 0, 0, height, width),
        crop(img, 0, columns - width, height, width),
        crop(img, rows - height, 0, height, width),
        crop(img, rows - height, columns - width, height, width),
        center_crop(img, (height, width)),
    )


def ten_crop(img: Any, size: int | Sequence[int], vertical_flip: bool = False) -> tuple[Any, ...]:
    """`five_crop` of the image and of its mirror image."""
    return five_crop(img, size) + five_crop(vflip(img) if vertical_flip else hflip(img), size)


def _inverse_affine_matrix(
    center: Sequence[float], angle: float, translate: Sequence[float], scale: float, shear: Sequence[float]
) -> list[float]:
    """Six numbers that take a place of the result to its place in the image.

    The map itself shifts the centre to the origin, shears along x and then y, scales, turns, shifts back and
    translates.
    """
    turn, shear_x, shear_y = (math.radians(degrees) for degrees in (angle, shear[0], shear[1]))
    a = math.cos(turn - shear_y) / math.cos(shear_y)
    b = -math.cos(turn - shear_y) * math.tan(shear_x) / math.cos(shear_y) - math.sin(turn)
    c = math.sin(turn - shear_y) / math.cos(shear_y)
    d = -math.sin(turn - shear_y) * math.tan(shear_x) / math.cos(shear_y) + math.cos(turn)
    # The determinant of [[a, b], [c, d]] is 1: rotations and shears keep areas.
    rows = [[d / scale, -b / scale], [-c / scale, a / scale]]
    moved = [-center[0] - translate[0], -center[1] - translate[1]]
    return [
        value
        for row, origin in zip(rows, center, strict=True)
        for value in (row[0], row[1], row[0] * moved[0] + row[1] * moved[1] + origin)
    ]


def _from_centre(img: Any, center: Sequence[float] | None) -> list[float]:
    """A place in pixels from the top left, in pixels from the middle."""
    if center is None:
        return [0.0, 0.0]
    _, height, width = get_dimensions(img)
    return [center[0] - width * 0.5, center[1] - height * 0.5]


def _check_center(center: Any) -> None:
    if center is not None and not isinstance(center, list | tuple):
        raise TypeError("Argument center should be a sequence")


def rotate(
    img: Any,
    angle: float,
    interpolation: InterpolationMode | int = InterpolationMode.NEAREST,
    expand: bool = False,
    center: Sequence[float] | None = None,
    fill: Fill = None,
) -> Any:
    """Turned counter-clockwise by `angle` degrees about `center` (x, y); `expand` makes room for all of it."""
    mode = interpolation_mode(interpolation)
    if not isinstance(angle, int | float):
        raise TypeError("Argument angle should be int or float")
    _check_center(center)
    if not isinstance(img, Tensor):
        return _pil.rotate(img, angle, mode.value, expand, center, fill)
    matrix = _inverse_affine_matrix(_from_centre(img, center), -angle, [0.0, 0.0], 1.0, [0.0, 0.0])
    return _tensor.rotate(img, matrix, mode.value, expand, fill)


def affine(
    img: Any,
    angle: float,
    translate: Sequence[float],
    scale: float,
    shear: float | Sequence[float],
    interpolation: InterpolationMode | int = InterpolationMode.NEAREST,
    fill: Fill = None,
    center: Sequence[float] | None = None,
) -> Any:
    """Sheared, scaled, turned clockwise (degrees) about `center` and translated (pixels)."""
    mode = interpolation_mode(interpolation)
    if not isinstance(angle, int | float):
        raise TypeError("Argument angle should be int or float")
    if not isinstance(translate, list | tuple):
        raise TypeError("Argument translate should be a sequence")
    if len(translate) != 2:
        raise ValueError("Argument translate should be a sequence of length 2")
    if scale <= 0.0:
        raise ValueError("Argument scale should be positive")
    if not isinstance(shear, int | float | list | tuple):
        raise TypeError("Shear should be either a single value or a sequence of two values")
    shears = [shear, 0.0] if isinstance(shear, int | float) else list(shear) * (2 if len(shear) == 1 else 1)
    if len(shears) != 2:
        raise ValueError(f"Shear should be a sequence containing two values. Got {shear}")
    _check_center(center)
    if isinstance(img, Tensor):
        matrix = _inverse_affine_matrix(_from_centre(img, center), angle, translate, scale, shears)
        return _tensor.affine(img, matrix, mode.value, fill)
    _, height, width = get_dimensions(img)
    matrix = _inverse_affine_matrix(center or [width * 0.5, height * 0.5], angle, translate, scale, shears)
    return _pil.affine(img, matrix, mode.value, fill)


def _perspective_coefficients(startpoints: Sequence[Sequence[int]], endpoints: Sequence[Sequence[int]]) -> list[float]:
    """The eight numbers of the map that takes the end points to the start points."""
    if len(startpoints) != 4 or len(endpoints) != 4:
        raise ValueError(
            f"Please provide exactly four corners, got {len(startpoints)} startpoints and {len(endpoints)} endpoints."
        )
    rows = []
    for (x, y), (u, v) in zip(endpoints, startpoints, strict=True):
        rows.append([x, y, 1, 0, 0, 0, -u * x, -u * y])
        rows.append([0, 0, 0, x, y, 1, -v * x, -v * y])
    right = np.asarray(startpoints, np.float64).reshape(8)
    solution = np.linalg.lstsq(np.asarray(rows, np.float64), right, rcond=None)[0]
    return solution.astype(np.float32).tolist()


def perspective(
    img: Any,
    startpoints: Sequence[Sequence[int]],
    endpoints: Sequence[Sequence[int]],
    interpolation: InterpolationMode | int = InterpolationMode.BILINEAR,
    fill: Fill = None,
) -> Any:
    """The view in which four points of the image (x, y) lie at four other places."""
    mode = interpolation_mode(interpolation)
    return _of(img).perspective(img, _perspective_coefficients(startpoints, endpoints), mode.value, fill)


def erase(img: Tensor, i: int, j: int, h: int, w: int, v: Tensor, inplace: bool = False) -> Tensor:
    """A box of height h and width w at (i, j) overwritten by `v`."""
    if not isinstance(img, Tensor):
        raise TypeError(f"img should be Tensor Image. Got {type(img)}")
    erased = img if inplace else img.clone()
    erased[..., i : i + h, j : j + w] = v
    return erased


# -- colour and blur --------------------------------------------------------------------------------------------------


def adjust_brightness(img: Any, brightness_factor: float) -> Any:
    """0 gives black, 1 the image, 2 twice the brightness."""
    return _of(img).adjust_brightness(img, brightness_factor)


def adjust_contrast(img: Any, contrast_factor: float) -> Any:
    """0 gives plain grey, 1 the image, 2 twice the contrast."""
    return _of(img).adjust_contrast(img, contrast_factor)


def adjust_saturation(img: Any, saturation_factor: float) -> Any:
    """0 gives greys, 1 the image, 2 twice the saturation."""
    return _of(img).adjust_saturation(img, saturation_factor)


def adjust_hue(img: Any, hue_factor: float) -> Any:
    """Hues turned by a fraction in [-0.5, 0.5] of the circle."""
    return _of(img).adjust_hue(img, hue_factor)


def adjust_gamma(img: Any, gamma: float, gain: float = 1) -> Any:
    """gain * image ** gamma, of values in 0..1."""
    return _of(img).adjust_gamma(img, gamma, gain)


def adjust_sharpness(img: Any, sharpness_factor: float) -> Any:
    """0 gives a blurred image, 1 the image, 2 twice the sharpness."""
    return _of(img).adjust_sharpness(img, sharpness_factor)


def rgb_to_grayscale(img: Any, num_output_channels: int = 1) -> Any:
    """The luminance, in one channel or three equal ones."""
    return _of(img).rgb_to_grayscale(img, num_output_channels)


def to_grayscale(img: Any, num_output_channels: int = 1) -> Any:
    """`rgb_to_grayscale` of a Pillow image."""
    if not is_image(img):
        raise TypeError("Input should be PIL Image")
    return _pil.rgb_to_grayscale(img, num_output_channels)


def invert(img: Any) -> Any:
    """Black and white exchanged."""
    return _of(img).invert(img)


def posterize(img: Any, bits: int) -> Any:
    """Only the highest `bits` of each byte."""
    return _of(img).posterize(img, bits)


def solarize(img: Any, threshold: float) -> Any:
    """Inverted where at least `threshold`."""
    return _of(img).solarize(img, threshold)


def autocontrast(img: Any) -> Any:
    """Each channel stretched to the whole range."""
    return _of(img).autocontrast(img)


def equalize(img: Any) -> Any:
    """Each channel's histogram made as even as it can be."""
    return _of(img).equalize(img)


def gaussian_blur(img: Any, kernel_size: int | Sequence[int], sigma: float | Sequence[float] | None = None) -> Any:
    """Blurred with a Gaussian; sizes are odd numbers of pixels, (across, down)."""
    if not isinstance(kernel_size, int | list | tuple):
        raise TypeError(f"kernel_size should be int or a sequence of integers. Got {type(kernel_size)}")
    sizes = [kernel_size, kernel_size] if isinstance(kernel_size, int) else list(kernel_size)
    if len(sizes) != 2:
        raise ValueError(f"If kernel_size is a sequence its length should be 2. Got {len(sizes)}")
    if any(size % 2 == 0 or size < 0 for size in sizes):
        raise ValueError(f"kernel_size should have odd and positive integers. Got {sizes}")
    if sigma is None:
        sigma = [size * 0.15 + 0.35 for size in sizes]
    if not isinstance(sigma, int | float | list | tuple):
        raise TypeError(f"sigma should be either float or sequence of floats. Got {type(sigma)}")
    sigmas = [float(sigma)] * 2 if isinstance(sigma, int | float) else list(sigma) * (2 if len(sigma) == 1 else 1)
    if len(sigmas) != 2:
        raise ValueError(f"If sigma is a sequence, its length should be 2. Got {len(sigmas)}")
    if any(s <= 0.0 for s in sigmas):
        raise ValueError(f"sigma should have positive values. Got {sigmas}")
    if isinstance(img, Tensor):
        return _tensor.gaussian_blur(img, sizes, sigmas)
    return to_pil_image(_tensor.gaussian_blur(pil_to_tensor(img), sizes, sigmas), mode=img.mode)
