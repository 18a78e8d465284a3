"""Grids of images, and images as files. See https://docs.pytorch.org/vision/stable/utils.html."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import graphtorch as torch
from graphtorch import Tensor
from graphtorch.vision._pillow import from_array

__all__ = ["make_grid", "save_image"]


def _normalized(image: Tensor, value_range: tuple[float, float] | None) -> Tensor:
    low, high = (image.min().item(), image.max().item()) if value_range is None else value_range
    return image.clamp(low, high).sub_(low).div_(max(high - low, 1e-5))


@torch.no_grad()
def make_grid(
    tensor: Tensor | list[Tensor],
    nrow: int = 8,
    padding: int = 2,
    normalize: bool = False,
    value_range: tuple[float, float] | None = None,
    scale_each: bool = False,
    pad_value: float = 0.0,
) -> Tensor:
    """One image (3, H', W') of a batch (N, C, H, W) or of equal images (C, H, W), `nrow` in a row, `padding` apart.

    `normalize` scales `value_range` (by default from the least to the greatest value, of the batch or with `scale_each`
    of each image) to 0..1. One channel becomes three.
    """
    if not isinstance(tensor, Tensor):
        if not isinstance(tensor, list):
            raise TypeError(f"tensor or list of tensors expected, got {type(tensor)}")
        for item in tensor:
            if not isinstance(item, Tensor):
                raise TypeError(f"tensor or list of tensors expected, got a list containing {type(item)}")
    batch: Tensor = tensor if isinstance(tensor, Tensor) else torch.stack(tensor)
    if value_range is not None and not isinstance(value_range, tuple):
        raise TypeError("value_range has to be a tuple (min, max) if specified. min and max are numbers")
    while batch.ndim < 4:
        batch = batch.unsqueeze(0)
    if batch.shape[1] == 1:
        batch = batch.expand(-1, 3, -1, -1)
    if normalize:
        if scale_each:
            batch = torch.stack([_normalized(image, value_range) for image in batch])
        else:
            batch = _normalized(batch, value_range)
    count, channels, height, width = batch.shape
    if count == 1:
        return batch.squeeze(0)
    columns = min(nrow, count)
    rows = -(-count // columns)
    down, across = height + padding, width + padding
    grid = batch.new_full((channels, down * rows + padding, across * columns + padding), pad_value)
    for i in range(count):
        top, left = i // columns * down + padding, i % columns * across + padding
        grid[:, top : top + height, left : left + width] = batch[i]
    return grid


@torch.no_grad()
def save_image(
    tensor: Tensor | list[Tensor], fp: str | Path | BinaryIO, format: str | None = None, **kwargs: Any
) -> None:
    """Write an image, or a grid of several, with values in 0..1, to a file; Pillow goes by its name or by `format`.

    Further arguments are those of `make_grid`.
    """
    grid = make_grid(tensor, **kwargs)
    pixels = grid.mul(255).add_(0.5).clamp_(0, 255).permute(1, 2, 0).to(torch.uint8).numpy()
    from_array(pixels).save(fp, format=format)
