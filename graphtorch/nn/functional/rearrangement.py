"""Moving elements between channels and positions: fold and unfold, pixel and channel shuffles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphtorch import ops
from graphtorch.autograd.compositions import in_one_piece
from graphtorch.nn.functional.convolutions import repeat
from graphtorch.ops.shaping import channels_as
from graphtorch.tensor.creation import as_tensor
from graphtorch.tensor.tensor import Tensor

__all__ = ["channel_shuffle", "fold", "native_channel_shuffle", "pixel_shuffle", "pixel_unshuffle", "unfold"]


def _places(size: Any, kernel: Any, dilation: Any, padding: Any, stride: Any) -> list[int]:
    """How many windows there are along each of two dimensions."""
    return [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, d, p, s in zip(size, kernel, dilation, padding, stride, strict=True)
    ]


def unfold(input: Tensor, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Tensor:
    """The windows of (N, C, H, W) or (C, H, W) as columns: (N, C * KH * KW, number of windows).

    Raises:
        RuntimeError: the input has another number of dimensions, or no window fits.
    """
    if input.dim() == 3:
        return unfold(input.unsqueeze(0), kernel_size, dilation, padding, stride).squeeze(0)
    if input.dim() != 4:
        raise RuntimeError(
            "Expected 3D or 4D (batch mode) tensor with possibly 0 batch size and other non-zero dimensions for input, "
            f"but got: {list(input.shape)}"
        )
    kernel, dilations, pads, steps = (repeat(x, 2) for x in (kernel_size, dilation, padding, stride))
    places = _places(input.shape[2:], kernel, dilations, pads, steps)
    if min(places) < 1:
        raise RuntimeError(
            f"Given input with spatial size ({input.shape[2]}, {input.shape[3]}), kernel_size={kernel}, "
            f"dilation={dilations}, padding={pads}, calculated shape of the array of sliding blocks as "
            f"({places[0]}, {places[1]}), but its components must be at least one."
        )
    return _windows(input, kernel, dilations, pads, steps)


@in_one_piece("Im2ColBackward0", linear=True)
def _windows(input: Tensor, kernel: Any, dilations: Any, pads: Any, steps: Any) -> Tensor:
    """The windows as columns."""
    batch, channels = input.shape[:2]
    places = _places(input.shape[2:], kernel, dilations, pads, steps)
    padded = ops.constant_pad_nd(input, (pads[1], pads[1], pads[0], pads[0]), 0.0) if any(pads) else input
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    windows = padded.unfold(2, reach[0], steps[0]).unfold(3, reach[1], steps[1])
    windows = windows[..., :: dilations[0], :: dilations[1]].permute(0, 1, 4, 5, 2, 3)
    return windows.reshape(batch, channels * kernel[0] * kernel[1], places[0] * places[1])


def fold(
    input: Tensor,
    output_size: Any,
    kernel_size: Any,
    dilation: Any = 1,
    padding: Any = 0,
    stride: Any = 1,
) -> Tensor:
    """The adjoint of :func:`unfold`: columns (N, C * KH * KW, L) are added up where their windows lie.

    Raises:
        RuntimeError: the sizes do not fit.
    """
    if input.dim() == 2:
        return fold(input.unsqueeze(0), output_size, kernel_size, dilation, padding, stride).squeeze(0)
    if input.dim() != 3:
        raise RuntimeError(f"Expected 2D or 3D (batch mode) tensor for input, but got: {list(input.shape)}")
    size, kernel, dilations, pads, steps = (repeat(x, 2) for x in (output_size, kernel_size, dilation, padding, stride))
    area = kernel[0] * kernel[1]
    if input.shape[1] % area != 0:
        raise RuntimeError(
            "Expected size of input's dimension 1 to be divisible by the product of kernel_size, but got "
            f"input.size(1)={input.shape[1]} and kernel_size={kernel}."
        )
    places = _places(size, kernel, dilations, pads, steps)
    if input.shape[2] != places[0] * places[1]:
        raise RuntimeError(
            f"Given output_size={size}, kernel_size={kernel}, dilation={dilations}, padding={pads}, stride={steps}, "
            f"expected size of input's dimension 2 to match the calculated number of sliding blocks {places[0]} * "
            f"{places[1]} = {places[0] * places[1]}, but got input.size(2)={input.shape[2]}."
        )
    height, width = size[0] + 2 * pads[0], size[1] + 2 * pads[1]
    rows, columns = (
        np.arange(k)[:, None] * d + np.arange(n) * s
        for k, d, n, s in zip(kernel, dilations, places, steps, strict=True)
    )
    at = (rows[:, None, :, None] * width + columns[None, :, None, :]).reshape(-1)
    batch, channels = input.shape[0], input.shape[1] // area
    plane = ops.zeros((batch, channels, height * width), dtype=input.dtype, device=input.device)
    plane = plane.index_add(2, as_tensor(at, device=input.device), input.reshape(batch, channels, -1))
    plane = plane.reshape(batch, channels, height, width)
    return plane[:, :, pads[0] : height - pads[0], pads[1] : width - pads[1]]


def _check_rank(name: str, input: Tensor, least: int) -> None:
    if input.dim() < least:
        raise RuntimeError(
            f"{name} expects input to have at least {least} dimensions, but got input with {input.dim()} dimension(s)"
        )


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """(*, C * r * r, H, W) to (*, C, H * r, W * r): channels become positions (Shi et al. 2016).

    Raises:
        RuntimeError: the channels are not divisible by ``upscale_factor`` squared.
    """
    _check_rank("pixel_shuffle", input, 3)
    r = upscale_factor
    if r <= 0:
        raise RuntimeError(f"pixel_shuffle expects a positive upscale_factor, but got {r}")
    channels = input.shape[-3]
    if channels % (r * r) != 0:
        raise RuntimeError(
            "pixel_shuffle expects its input's 'channel' dimension to be divisible by the square of upscale_factor, "
            f"but input.size(-3)={channels} is not divisible by {r * r}"
        )
    return _shuffled(input, r)


@in_one_piece("PixelShuffleBackward0", linear=True)
def _shuffled(input: Tensor, r: int) -> Tensor:
    """Channels as positions."""
    *rest, channels, height, width = input.shape
    n = len(rest)
    split = input.reshape(*rest, channels // (r * r), r, r, height, width)
    shuffled = split.permute(*range(n), n, n + 3, n + 1, n + 4, n + 2).reshape(
        *rest, channels // (r * r), height * r, width * r
    )
    return channels_as(shuffled, input)


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """(*, C, H * r, W * r) to (*, C * r * r, H, W), the inverse of :func:`pixel_shuffle`.

    Raises:
        RuntimeError: height or width is not divisible by ``downscale_factor``.
    """
    _check_rank("pixel_unshuffle", input, 3)
    r = downscale_factor
    if r <= 0:
        raise RuntimeError(f"pixel_unshuffle expects a positive downscale_factor, but got {r}")
    *rest, channels, height, width = input.shape
    for name, dim, size in (("height", -2, height), ("width", -1, width)):
        if size % r != 0:
            raise RuntimeError(
                f"pixel_unshuffle expects {name} to be divisible by downscale_factor, but input.size({dim})={size} is "
                f"not divisible by {r}"
            )
    n = len(rest)
    split = input.reshape(*rest, channels, height // r, r, width // r, r)
    unshuffled = split.permute(*range(n), n, n + 2, n + 4, n + 1, n + 3).reshape(
        *rest, channels * r * r, height // r, width // r
    )
    return channels_as(unshuffled, input)


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """Deal the channels of (N, C, *) round: from groups of neighbours to groups of every ``groups``-th one.

    Raises:
        RuntimeError: ``groups`` does not divide the channels.
    """
    _check_rank("channel_shuffle", input, 3)
    batch, channels = input.shape[:2]
    if groups <= 0:
        raise RuntimeError(f"Number of groups to divide channels in must be positive. Value of groups:{groups}")
    if channels % groups != 0:
        raise RuntimeError(
            f"Number of channels must be divisible by groups. Got {channels} channels and {groups} groups."
        )
    rest: Sequence[int] = tuple(input.shape[2:])
    shuffled = input.reshape(batch, groups, channels // groups, *rest).transpose(1, 2).reshape(batch, channels, *rest)
    return channels_as(shuffled, input)


def native_channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """:func:`channel_shuffle`, whose other implementation PyTorch shows under this name."""
    return channel_shuffle(input, groups)
