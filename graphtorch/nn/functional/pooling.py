"""Pooling over the last two dimensions."""

from __future__ import annotations

from typing import Any

from graphtorch import ops
from graphtorch.tensor.tensor import Tensor

__all__ = ["adaptive_avg_pool2d", "avg_pool2d", "max_pool2d", "max_pool2d_with_indices"]


def max_pool2d_with_indices(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[Tensor, Tensor]:
    """The maximum of every window, and its position as an index into the flattened H x W plane."""
    stride = kernel_size if stride is None or stride == [] else stride
    values, indices = ops.max_pool2d_with_indices(input, kernel_size, stride, padding, dilation, ceil_mode)
    return values, indices


def max_pool2d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The maximum of every window of (N, C, H, W) or (C, H, W); with ``return_indices`` also the positions."""
    pair = max_pool2d_with_indices(input, kernel_size, stride, padding, dilation, ceil_mode)
    return pair if return_indices else pair[0]


def avg_pool2d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of every window of (N, C, H, W) or (C, H, W)."""
    stride = kernel_size if stride is None or stride == [] else stride
    return ops.avg_pool2d(input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """The means of (OH, OW) windows that cover the plane; None keeps a dimension.

    Raises:
        RuntimeError: the input has not 3 or 4 dimensions.
    """
    if input.dim() not in (3, 4):
        raise RuntimeError(f"adaptive_avg_pool2d(): Expected 3D or 4D tensor, but got {list(input.shape)}")
    wanted = tuple(output_size) if isinstance(output_size, tuple | list) else (output_size, output_size)
    if len(wanted) != 2:
        raise RuntimeError("adaptive_avg_pool2d: output_size must be 2")
    sizes = tuple(input.shape[-2:])
    height, width = (have if want is None else want for have, want in zip(sizes, wanted, strict=True))
    if (height, width) == (1, 1):
        return input.mean((-2, -1), keepdim=True)
    # A window is a product of two ranges, so the mean over it is one over rows and one over columns.
    return _mean_over_ranges(_mean_over_ranges(input, -2, height), -1, width)


def _mean_over_ranges(input: Tensor, dim: int, count: int) -> Tensor:
    """Means over ``count`` ranges of ``dim``, from floor(i * size / count) to ceil((i + 1) * size / count)."""
    size = input.shape[dim]
    if size == count:
        return input
    if size % count == 0:
        split = list(input.shape)
        split[dim : dim + 1 or None] = [count, size // count]
        return input.reshape(split).mean(dim)
    starts = [i * size // count for i in range(count)]
    ends = [-(-(i + 1) * size // count) for i in range(count)]
    means = [
        input.narrow(dim, start, end - start).mean(dim, keepdim=True) for start, end in zip(starts, ends, strict=True)
    ]
    return ops.cat(means, dim)
