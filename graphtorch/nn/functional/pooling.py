"""Pooling in one, two and three dimensions.

The operators are in two dimensions. A window is a product of ranges, so pooling in three dimensions is pooling of the
planes and then across them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphtorch import ops
from graphtorch.nn.functional.convolutions import repeat
from graphtorch.ops.autocast import autocasts
from graphtorch.ops.shaping import channels_as
from graphtorch.tensor.creation import as_tensor
from graphtorch.tensor.dtypes import FLOATING, float64
from graphtorch.tensor.tensor import Tensor

__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d",
    "adaptive_max_pool1d_with_indices", "adaptive_max_pool2d", "adaptive_max_pool2d_with_indices",
    "adaptive_max_pool3d", "adaptive_max_pool3d_with_indices", "avg_pool1d", "avg_pool2d", "avg_pool3d", "lp_pool1d",
    "lp_pool2d", "lp_pool3d", "max_pool1d", "max_pool1d_with_indices", "max_pool2d", "max_pool2d_with_indices",
    "max_pool3d", "max_pool3d_with_indices", "max_unpool1d", "max_unpool2d", "max_unpool3d",
]  # fmt: skip


def _check_dims(name: str, input: Tensor, spatial: int) -> None:
    if input.dim() not in (spatial + 1, spatial + 2):
        raise RuntimeError(f"{name}(): Expected {spatial + 1}D or {spatial + 2}D tensor, but got {list(input.shape)}")


def _stride(stride: Any, kernel_size: Any) -> Any:
    """Windows lie side by side unless told otherwise."""
    return kernel_size if stride is None or stride == [] else stride


_SHAPES = {1: "(N, C, L) or (C, L)", 2: "(N, C, H, W) or (C, H, W)", 3: "(N, C, D, H, W) or (C, D, H, W)"}
_COVERED = {1: "the last dimension.", 2: "the plane; None keeps a dimension.", 3: "the space; None keeps a dimension."}
_POSITION = {1: "position", 2: "position in the flattened plane", 3: "position in the flattened space"}


def _named(function: Callable[..., Any], name: str, doc: str) -> Callable[..., Any]:
    """A function that was made for some number of dimensions, under its public name."""
    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


# -- maxima -----------------------------------------------------------------------------------------------------------

# (input, kernel_size, stride, padding, dilation, ceil_mode) -> maxima and their positions
_Maxima = Callable[[Tensor, Any, Any, Any, Any, bool], tuple[Tensor, Tensor]]


def _max_pool1(
    input: Tensor, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> tuple[Tensor, Tensor]:
    _check_dims("max_pool1d", input, 1)
    kernel, steps, pads, dilations = (repeat(x, 1)[0] for x in (kernel_size, stride, padding, dilation))
    values, indices = ops.max_pool2d_with_indices(
        input.unsqueeze(-2), (1, kernel), (1, steps), (0, pads), (1, dilations), ceil_mode
    )
    return values.squeeze(-2), indices.squeeze(-2)


def _max_pool2(
    input: Tensor, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> tuple[Tensor, Tensor]:
    values, indices = ops.max_pool2d_with_indices(input, kernel_size, stride, padding, dilation, ceil_mode)
    return values, indices


def _max_pool3(
    input: Tensor, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> tuple[Tensor, Tensor]:
    _check_dims("max_pool3d", input, 3)
    kernel, steps, pads, dilations = (repeat(x, 3) for x in (kernel_size, stride, padding, dilation))
    depth, height, width = input.shape[-3:]
    planes = input.reshape(-1, depth, height, width)
    values, inner = ops.max_pool2d_with_indices(planes, kernel[1:], steps[1:], pads[1:], dilations[1:], ceil_mode)
    sizes = tuple(values.shape[-2:])
    values, inner = values.flatten(2), inner.flatten(2)
    values, plane = ops.max_pool2d_with_indices(
        values, (kernel[0], 1), (steps[0], 1), (pads[0], 0), (dilations[0], 1), ceil_mode
    )
    # The second index counts positions of the pooled planes row by row; the plane is the row.
    columns = sizes[0] * sizes[1]
    rows = plane.div(columns, rounding_mode="floor")
    indices = rows * (height * width) + inner.flatten(1).gather(1, plane.flatten(1)).reshape(plane.shape)
    shape = (*input.shape[:-3], values.shape[-2], *sizes)
    return values.reshape(shape), indices.reshape(shape)


def _max_pools(spatial: int, maxima: _Maxima) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`max_pool{spatial}d_with_indices` and `max_pool{spatial}d`."""

    def with_indices(
        input: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> tuple[Tensor, Tensor]:
        return maxima(input, kernel_size, _stride(stride, kernel_size), padding, dilation, ceil_mode)

    def pooled(
        input: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Any:
        pair = maxima(input, kernel_size, _stride(stride, kernel_size), padding, dilation, ceil_mode)
        return pair if return_indices else pair[0]

    window = f"The maximum of every window of {_SHAPES[spatial]}"
    return (
        _named(with_indices, f"max_pool{spatial}d_with_indices", f"{window}, and its {_POSITION[spatial]}."),
        _named(pooled, f"max_pool{spatial}d", f"{window}; with ``return_indices`` also its {_POSITION[spatial]}."),
    )


max_pool1d_with_indices, max_pool1d = _max_pools(1, _max_pool1)
max_pool2d_with_indices, max_pool2d = _max_pools(2, _max_pool2)
max_pool3d_with_indices, max_pool3d = _max_pools(3, _max_pool3)
max_pool3d = autocasts("float32")(max_pool3d)


# -- means ------------------------------------------------------------------------------------------------------------


def avg_pool1d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean of every window of (N, C, L) or (C, L)."""
    _check_dims("avg_pool1d", input, 1)
    kernel, steps, pads = (repeat(x, 1)[0] for x in (kernel_size, _stride(stride, kernel_size), padding))
    pooled = ops.avg_pool2d(input.unsqueeze(-2), (1, kernel), (1, steps), (0, pads), ceil_mode, count_include_pad, None)
    return pooled.squeeze(-2)


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
    stride = _stride(stride, kernel_size)
    return ops.avg_pool2d(input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


@autocasts("float32")
def avg_pool3d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of every window of (N, C, D, H, W) or (C, D, H, W)."""
    _check_dims("avg_pool3d", input, 3)
    kernel, steps, pads = (repeat(x, 3) for x in (kernel_size, _stride(stride, kernel_size), padding))
    if divisor_override == 0:
        raise RuntimeError("divisor must be not zero")
    if input.dtype.category < FLOATING:
        # Each mean is cut to an integer once.
        exact = avg_pool3d(
            input.to(float64), kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
        )
        return exact.to(input.dtype)
    override = None if divisor_override is None else 1
    planes = input.reshape(math.prod(input.shape[:-3]), *input.shape[-3:])
    pooled = ops.avg_pool2d(planes, kernel[1:], steps[1:], pads[1:], ceil_mode, count_include_pad, override)
    sizes = tuple(pooled.shape[-2:])
    pooled = ops.avg_pool2d(
        pooled.flatten(2).unsqueeze(1),
        (kernel[0], 1),
        (steps[0], 1),
        (pads[0], 0),
        ceil_mode,
        count_include_pad,
        override,
    )
    pooled = pooled.reshape(*input.shape[:-3], pooled.shape[-2], *sizes)
    return pooled if divisor_override is None else pooled / divisor_override


def _lp_pool(spatial: int, average: Callable[..., Tensor]) -> Callable[..., Any]:
    def pooled(
        input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
    ) -> Tensor:
        mean = average(input.pow(norm_type), kernel_size, stride, 0, ceil_mode)
        total = mean.sign() * mean.abs().relu() * math.prod(repeat(kernel_size, spatial))
        return total.pow(1.0 / norm_type)

    doc = f"``(sum of x ** p) ** (1 / p)`` of every window of {_SHAPES[spatial]}."
    return _named(pooled, f"lp_pool{spatial}d", doc)


lp_pool1d, lp_pool2d, lp_pool3d = _lp_pool(1, avg_pool1d), _lp_pool(2, avg_pool2d), _lp_pool(3, avg_pool3d)


# -- as many windows as asked for -------------------------------------------------------------------------------------


def _wanted(name: str, input: Tensor, output_size: Any, spatial: int) -> list[Any]:
    """The output sizes, None meaning that of the input."""
    if spatial > 1 and isinstance(output_size, tuple | list) and input.dim() <= len(output_size):
        raise ValueError(f"Input dimension should be at least {len(output_size) + 1}")
    _check_dims(name, input, spatial)
    sizes = repeat(output_size, spatial)
    if len(sizes) != spatial:
        raise RuntimeError(f"{name}: output_size must be {spatial}")
    wanted = [have if want is None else want for have, want in zip(input.shape[-spatial:], sizes, strict=True)]
    for want in wanted:
        if want < 0:
            shape = [*input.shape[:-spatial], *wanted]
            raise RuntimeError(f"Trying to create tensor with negative dimension {want}: {shape}")
    return wanted


def _ranges(size: int, count: int) -> list[tuple[int, int]]:
    """``count`` ranges (start, length) that cover ``size``, from floor(i s / n) to ceil((i + 1) s / n)."""
    starts = [i * size // count for i in range(count)]
    return [(start, -(-(i + 1) * size // count) - start) for i, start in enumerate(starts)]


def _mean_over_ranges(input: Tensor, dim: int, count: int) -> Tensor:
    size = input.shape[dim]
    if size == count:
        return input
    if size % count == 0:
        split = list(input.shape)
        split[dim : dim + 1 or None] = [count, size // count]
        return input.reshape(split).mean(dim)
    means = [input.narrow(dim, start, length).mean(dim, keepdim=True) for start, length in _ranges(size, count)]
    return ops.cat(means, dim)


def _adaptive_mean(spatial: int) -> Callable[..., Any]:
    name = f"adaptive_avg_pool{spatial}d"

    def pooled(input: Tensor, output_size: Any) -> Tensor:
        wanted = _wanted(name, input, output_size, spatial)
        if all(want == 1 for want in wanted):
            made: Tensor = input.mean(tuple(range(-spatial, 0)), keepdim=True)
        else:
            made = input
            for dim, want in enumerate(wanted, -spatial):
                made = _mean_over_ranges(made, dim, want)
        return channels_as(made, input) if spatial == 2 else made

    return _named(
        pooled, name, f"The means of as many windows as ``output_size`` says, which cover {_COVERED[spatial]}"
    )


adaptive_avg_pool1d, adaptive_avg_pool2d = _adaptive_mean(1), _adaptive_mean(2)
adaptive_avg_pool3d = autocasts("float32")(_adaptive_mean(3))


def _adaptive_max(name: str, input: Tensor, output_size: Any, spatial: int) -> tuple[Tensor, Tensor]:
    """The maxima and their positions in the flattened spatial dimensions, the first of equal ones."""
    given, wanted = input, _wanted(name, input, output_size, spatial)
    sizes = tuple(input.shape[-spatial:])
    positions = as_tensor(np.arange(math.prod(sizes)).reshape(sizes), device=input.device).expand(input.shape)
    # The last dimension first: of equal values the first in memory wins.
    for dim in range(-1, -spatial - 1, -1):
        if input.shape[dim] == wanted[dim]:
            continue
        best, where = [], []
        for start, length in _ranges(input.shape[dim], wanted[dim]):
            value, index = input.narrow(dim, start, length).max(dim, keepdim=True)
            best.append(value)
            where.append(positions.narrow(dim, start, length).gather(dim, index))
        input, positions = ops.cat(best, dim), ops.cat(where, dim)
    return (channels_as(input, given), channels_as(positions, given)) if spatial == 2 else (input, positions)


def _adaptive_max_pools(spatial: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`adaptive_max_pool{spatial}d_with_indices` and `adaptive_max_pool{spatial}d`."""
    name = f"adaptive_max_pool{spatial}d"

    def with_indices(input: Tensor, output_size: Any, return_indices: bool = False) -> tuple[Tensor, Tensor]:
        return _adaptive_max(name, input, output_size, spatial)

    def pooled(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
        pair = _adaptive_max(name, input, output_size, spatial)
        return pair if return_indices else pair[0]

    what = f"The maxima of as many windows as ``output_size`` says, which cover {_COVERED[spatial]}"
    return (
        _named(with_indices, f"{name}_with_indices", f"{what} With the {_POSITION[spatial]} of each."),
        _named(pooled, name, f"{what} With ``return_indices`` also the {_POSITION[spatial]} of each."),
    )


adaptive_max_pool1d_with_indices, adaptive_max_pool1d = _adaptive_max_pools(1)
adaptive_max_pool2d_with_indices, adaptive_max_pool2d = _adaptive_max_pools(2)
adaptive_max_pool3d_with_indices, adaptive_max_pool3d = _adaptive_max_pools(3)
adaptive_max_pool3d = autocasts("float32")(adaptive_max_pool3d)


# -- back again -------------------------------------------------------------------------------------------------------


def _max_unpool(spatial: int) -> Callable[..., Any]:
    name = f"max_unpool{spatial}d"

    def unpooled(
        input: Tensor,
        indices: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        output_size: Sequence[int] | None = None,
    ) -> Tensor:
        _check_dims(name, input, spatial)
        if input.shape != indices.shape:
            raise RuntimeError(
                f"Expected shape of indices to be same as that of the input tensor ({list(input.shape)}) but got "
                f"indices tensor with shape: {list(indices.shape)}"
            )
        kernel, steps, pads = (repeat(x, spatial) for x in (kernel_size, _stride(stride, kernel_size), padding))
        smallest = [
            (n - 1) * s + k - 2 * p for n, k, s, p in zip(input.shape[-spatial:], kernel, steps, pads, strict=True)
        ]
        sizes = list(smallest)
        if output_size is not None:
            sizes = list(output_size)[-spatial:]
            for want, usual, step in zip(sizes, smallest, steps, strict=True):
                if not usual - step < want < usual + step:
                    raise ValueError(
                        f"invalid output_size {list(output_size)}: each size must be within the stride of {smallest}"
                    )
        leading = tuple(input.shape[:-spatial])
        flat = ops.zeros((*leading, math.prod(sizes)), dtype=input.dtype, device=input.device)
        dim = len(leading)
        return flat.scatter(dim, indices.flatten(dim), input.flatten(dim)).reshape(*leading, *sizes)

    doc = f"Put the maxima of :func:`max_pool{spatial}d` back where they were, with zeros elsewhere."
    return _named(unpooled, name, doc)


max_unpool1d = _max_unpool(1)
max_unpool2d, max_unpool3d = (autocasts("float32")(_max_unpool(_spatial)) for _spatial in (2, 3))
