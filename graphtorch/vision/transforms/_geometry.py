"""The operations of `functional` that move pixels, on tensors (..., C, H, W); imported by `_tensor`.

What computes with fractions of pixel values takes a batch of floats (`to_float_batch`) and rounds back
(`to_original`)."""

from __future__ import annotations

from collections.abc import Sequence

import graphtorch as torch
import graphtorch.nn.functional as F
from graphtorch import Tensor

Fill = float | Sequence[float] | None


def get_dimensions(img: Tensor) -> list[int]:
    """[channels, height, width]."""
    if img.ndim < 2:
        raise TypeError("Tensor is not a torch image.")
    return [1 if img.ndim == 2 else img.shape[-3], img.shape[-2], img.shape[-1]]


def to_float_batch(img: Tensor, *dtypes: torch.dtype) -> Tensor:
    """(N, C, H, W) in the image's type if it is one of `dtypes`, else in the first of them."""
    batch = img.unsqueeze(0) if img.ndim < 4 else img
    return batch if img.dtype in dtypes else batch.to(dtypes[0])


def to_original(batch: Tensor, img: Tensor) -> Tensor:
    """A result of `to_float_batch(img)` in the type and number of dimensions of `img`; integers are rounded."""
    if img.ndim < 4:
        batch = batch.squeeze(0)
    if batch.dtype == img.dtype:
        return batch
    return (batch if img.is_floating_point() else torch.round(batch)).to(img.dtype)


def hflip(img: Tensor) -> Tensor:
    get_dimensions(img)
    return img.flip(-1)


def vflip(img: Tensor) -> Tensor:
    get_dimensions(img)
    return img.flip(-2)


def crop(img: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    """What lies outside the image is 0."""
    _, rows, columns = get_dimensions(img)
    bottom, right = top + height, left + width
    inside = img[..., max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    if left >= 0 and top >= 0 and right <= columns and bottom <= rows:
        return inside
    missing = (
        max(min(right, 0) - left, 0),
        max(min(bottom, 0) - top, 0),
        max(right - max(columns, left), 0),
        max(bottom - max(rows, top), 0),
    )
    return pad(inside, missing, 0, "constant")


def pad(img: Tensor, padding: tuple[int, int, int, int], fill: Fill, padding_mode: str) -> Tensor:
    """`padding` is left, top, right, bottom; negative numbers crop."""
    get_dimensions(img)
    if fill is not None and not isinstance(fill, int | float):
        raise TypeError("Got inappropriate fill arg")
    left, top, right, bottom = padding
    if padding_mode == "symmetric":
        return _pad_symmetric(img, left, top, right, bottom)
    widths = [left, right, top, bottom]
    if padding_mode == "constant":
        return F.pad(img, widths, value=fill or 0)
    batch = to_float_batch(img, torch.float32, torch.float64)
    return to_original(F.pad(batch, widths, mode="replicate" if padding_mode == "edge" else "reflect"), img)


def _pad_symmetric(img: Tensor, left: int, top: int, right: int, bottom: int) -> Tensor:
    """Reflection that repeats the border's pixels."""
    if img.ndim not in (3, 4):
        raise RuntimeError("Symmetric padding of N-D tensors are not supported yet")
    rows, columns = img.shape[-2:]
    img = img[..., max(-top, 0) : rows - max(-bottom, 0), max(-left, 0) : columns - max(-right, 0)]
    for dim, before, after in ((-2, max(top, 0), max(bottom, 0)), (-1, max(left, 0), max(right, 0))):
        size = img.shape[dim]
        if max(before, after) > size:
            raise IndexError(f"symmetric padding of {max(before, after)} in a dimension of size {size}")
        order = [*range(before - 1, -1, -1), *range(size), *range(size - 1, size - 1 - after, -1)]
        img = img.index_select(dim, torch.tensor(order, dtype=torch.int64, device=img.device))
    return img


def resize(img: Tensor, size: Sequence[int], interpolation: str, antialias: bool | None) -> Tensor:
    smooth = interpolation in ("bilinear", "bicubic")
    resized = F.interpolate(
        to_float_batch(img, torch.float32, torch.float64),
        size=list(size),
        mode=interpolation,
        align_corners=False if smooth else None,
        antialias=smooth and bool(antialias),
    )
    if interpolation == "bicubic" and img.dtype == torch.uint8:
        resized = resized.clamp(0, 255)  # cubics overshoot
    return to_original(resized, img)


# -- sampling through a grid ------------------------------------------------------------------------------------------


def _check_sampling(img: Tensor, interpolation: str, fill: Fill) -> None:
    channels = get_dimensions(img)[0]
    if isinstance(fill, Sequence) and len(fill) > 1 and len(fill) != channels:
        raise ValueError(
            "The number of elements in 'fill' cannot broadcast to match the number of channels of the image "
            f"({len(fill)} != {channels})"
        )
    if interpolation not in ("nearest", "bilinear"):
        raise ValueError(f"Interpolation mode '{interpolation}' is unsupported with Tensor input")


def _centres(size: int, first: float, like: Tensor) -> Tensor:
    """`size` coordinates a pixel apart."""
    centres = torch.linspace(first, first + size - 1, steps=size, dtype=torch.float32, device=like.device)
    return centres.to(like.dtype)


def _homogeneous(height: int, width: int, top: float, left: float, like: Tensor) -> Tensor:
    """(1, height * width, 3): x, y and 1 of every pixel, in the dtype and on the device of `like`."""
    across = _centres(width, left, like).expand(height, width)
    down = _centres(height, top, like)[:, None].expand(height, width)
    return torch.stack([across, down, like.new_ones(height, width)], dim=-1).view(1, height * width, 3)


def _sample(img: Tensor, grid: Tensor, mode: str, fill: Fill) -> Tensor:
    """The image at the points of the grid (1, H, W, 2), with `fill` outside it."""
    batch = to_float_batch(img, grid.dtype)
    if batch.shape[0] > 1:
        grid = grid.expand(batch.shape[0], *grid.shape[1:])
    if fill is not None:
        # A further channel of ones turns out 0 where a point lies outside.
        batch = torch.cat([batch, torch.ones_like(batch[:, :1])], dim=1)
    sampled = F.grid_sample(batch, grid, mode=mode, padding_mode="zeros", align_corners=False)
    if fill is not None:
        sampled, inside = sampled[:, :-1], sampled[:, -1:].expand_as(sampled[:, :-1])
        colour = sampled.new_tensor(list(fill) if isinstance(fill, Sequence) else [fill])
        colour = colour.view(1, -1, 1, 1).expand_as(sampled)
        if mode == "nearest":
            sampled = torch.where(inside < 0.5, colour, sampled)
        else:
            sampled = sampled * inside + (1.0 - inside) * colour
    return to_original(sampled, img)


def _affine_grid(
    matrix: Sequence[float], width: int, height: int, out_width: int, out_height: int, img: Tensor
) -> Tensor:
    """Where each pixel of the result comes from, in units of half the image; `matrix` is about the image's centre."""
    dtype = img.dtype if img.is_floating_point() else torch.float32
    theta = torch.tensor(list(matrix), dtype=dtype, device=img.device).reshape(1, 2, 3)
    points = _homogeneous(out_height, out_width, 0.5 - 0.5 * out_height, 0.5 - 0.5 * out_width, theta)
    scaled = theta.transpose(1, 2) / theta.new_tensor([0.5 * width, 0.5 * height])
    return torch.bmm(points, scaled).view(1, out_height, out_width, 2)


def affine(img: Tensor, matrix: Sequence[float], interpolation: str, fill: Fill) -> Tensor:
    _check_sampling(img, interpolation, fill)
    _, height, width = get_dimensions(img)
    return _sample(img, _affine_grid(matrix, width, height, width, height, img), interpolation, fill)


def rotate(img: Tensor, matrix: Sequence[float], interpolation: str, expand: bool, fill: Fill) -> Tensor:
    _check_sampling(img, interpolation, fill)
    _, height, width = get_dimensions(img)
    out_width, out_height = _rotated_size(matrix, width, height) if expand else (width, height)
    return _sample(img, _affine_grid(matrix, width, height, out_width, out_height, img), interpolation, fill)


def _rotated_size(matrix: Sequence[float], width: int, height: int) -> tuple[int, int]:
    """(width, height) of the box about the turned image."""
    corners = torch.tensor([[-0.5, -0.5], [-0.5, 0.5], [0.5, 0.5], [0.5, -0.5]]) * torch.tensor([width, height])
    theta = torch.tensor(list(matrix)).view(2, 3)
    turned = torch.matmul(torch.cat([corners, torch.ones(4, 1)], dim=1), theta.T) + torch.tensor([width, height]) * 0.5
    # A corner that rounding has put a hair beyond a whole pixel must not cost a further one.
    grain = 1e-4
    last = torch.ceil((turned.amax(0) / grain).trunc() * grain)
    first = torch.floor((turned.amin(0) / grain).trunc() * grain)
    across, down = (last - first).tolist()
    return int(across), int(down)


def perspective(img: Tensor, coefficients: Sequence[float], interpolation: str, fill: Fill) -> Tensor:
    """The pixel (x, y) comes from ((ax + by + c) / (gx + hy + 1), (dx + ey + f) / (gx + hy + 1))."""
    _check_sampling(img, interpolation, fill)
    if len(coefficients) != 8:
        raise ValueError("Argument coeffs should have 8 float values")
    _, height, width = get_dimensions(img)
    dtype = img.dtype if img.is_floating_point() else torch.float32
    a, b, c, d, e, f, g, h = coefficients
    numerator = torch.tensor([[[a, b, c], [d, e, f]]], dtype=dtype, device=img.device).transpose(1, 2)
    numerator = numerator / numerator.new_tensor([0.5 * width, 0.5 * height])
    denominator = numerator.new_tensor([[[g, h, 1.0], [g, h, 1.0]]]).transpose(1, 2)
    points = _homogeneous(height, width, 0.5, 0.5, numerator)
    grid = torch.bmm(points, numerator) / torch.bmm(points, denominator) - 1.0
    return _sample(img, grid.view(1, height, width, 2), interpolation, fill)
