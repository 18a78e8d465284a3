"""Fractional max pooling: windows whose steps are drawn so that any ratio of sizes is possible.

Source: Graham, Fractional Max-Pooling, 2014 (https://arxiv.org/abs/1412.6071), with pseudo-random overlapping
windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphtorch import ops
from graphtorch.tensor.dtypes import int64
from graphtorch.tensor.tensor import Tensor

__all__ = [
    "fractional_max_pool2d",
    "fractional_max_pool2d_with_indices",
    "fractional_max_pool3d",
    "fractional_max_pool3d_with_indices",
]


def _starts(samples: Tensor, size: Any, output: int, window: int) -> Tensor:
    """Where the windows begin, for a number in [0, 1) each plane: (N, C) to (N, C, output)."""
    last = ops.full((*samples.shape, 1), size - window, dtype=int64, device=samples.device)
    if output == 1:
        return last
    alpha = (size - window) / (output - 1)
    steps = ops.arange(output - 1, dtype=samples.dtype, device=samples.device)
    first = samples.unsqueeze(-1)
    return ops.cat([((steps + first) * alpha).to(int64) - (first * alpha).to(int64), last], -1)


def _tuple(value: Any, dims: int) -> tuple[Any, ...]:
    return (value,) * dims if isinstance(value, int | float) else tuple(value)


def _pool(
    dims: int,
    input: Tensor,
    kernel_size: Any,
    output_size: Any,
    output_ratio: Any,
    return_indices: bool,
    samples: Tensor | None,
) -> Any:
    name = f"fractional_max_pool{dims}d"
    if output_size is None and output_ratio is None:
        raise ValueError(f"{name} requires specifying either an output_size or an output_ratio")
    if input.dim() not in (dims + 1, dims + 2):
        raise RuntimeError(f"{name}: Expected {dims + 1}D or {dims + 2}D tensor, but got: {input.shape}")
    window = _tuple(kernel_size, dims)
    sizes = input.shape[-dims:]
    if output_size is None:
        ratios = _tuple(output_ratio, dims)
        output_size = [int(size * ratio) for size, ratio in zip(sizes, ratios, strict=True)]
    output = _tuple(output_size, dims)
    for axis, (size, to, of) in enumerate(zip(sizes, output, window, strict=True)):
        if to + of - 1 > size:
            raise RuntimeError(
                f"{name}: the pooling window of {of} and {to} results need {to + of - 1} elements in dimension "
                f"{axis - dims} of the input, which has {size}"
            )
    batched = input if input.dim() == dims + 2 else input.unsqueeze(0)
    planes = tuple(batched.shape[:2])
    if samples is None:
        samples = ops.rand((*planes, dims), dtype=input.dtype, device=input.device)
    elif input.dim() == dims + 1:
        samples = samples[:1]
    # A sample for each dimension of a plane. In two dimensions, PyTorch uses the first for the columns.
    order = (1, 0) if dims == 2 else range(dims)
    index: Any = 0
    for axis, place in enumerate(order):
        starts = _starts(samples[:, :, place], sizes[axis], output[axis], window[axis])
        places = starts.unsqueeze(-1) + ops.arange(window[axis], device=input.device)
        shape = [*planes, *(1,) * (2 * dims)]
        shape[2 + axis], shape[2 + dims + axis] = output[axis], window[axis]
        index = index * sizes[axis] + places.reshape(shape)
    count = 1
    for of in window:
        count *= of
    index = index.expand(*planes, *output, *window).reshape(*planes, -1, count)
    flat = batched.flatten(2)
    found = flat.detach().gather(2, index.flatten(2)).reshape(index.shape).argmax(-1, keepdim=True)
    chosen = index.gather(-1, found).squeeze(-1)
    values = flat.gather(2, chosen).reshape(*planes, *output)
    indices = chosen.reshape(*planes, *output)
    if input.dim() == dims + 1:
        values, indices = values.squeeze(0), indices.squeeze(0)
    return (values, indices) if return_indices else values


def fractional_max_pool2d(
    input: Tensor,
    kernel_size: int | Sequence[int],
    output_size: int | Sequence[int] | None = None,
    output_ratio: float | Sequence[float] | None = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> Any:
    """Maxima of windows at random distances: (N, C, H, W) or (C, H, W) to the output size, or a ratio of the input's.

    `_random_samples` (N, C, 2) in [0, 1) take the place of drawn ones. Indices are places in the flattened plane.
    See https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.fractional_max_pool2d.html
    """
    return _pool(2, input, kernel_size, output_size, output_ratio, return_indices, _random_samples)


def fractional_max_pool3d(
    input: Tensor,
    kernel_size: int | Sequence[int],
    output_size: int | Sequence[int] | None = None,
    output_ratio: float | Sequence[float] | None = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> Any:
    """`fractional_max_pool2d` for (N, C, D, H, W) or (C, D, H, W)."""
    return _pool(3, input, kernel_size, output_size, output_ratio, return_indices, _random_samples)


def fractional_max_pool2d_with_indices(
    input: Tensor,
    kernel_size: int | Sequence[int],
    output_size: int | Sequence[int] | None = None,
    output_ratio: float | Sequence[float] | None = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """:func:`fractional_max_pool2d` with the positions."""
    pair: tuple[Tensor, Tensor] = _pool(2, input, kernel_size, output_size, output_ratio, True, _random_samples)
    return pair


def fractional_max_pool3d_with_indices(
    input: Tensor,
    kernel_size: int | Sequence[int],
    output_size: int | Sequence[int] | None = None,
    output_ratio: float | Sequence[float] | None = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """:func:`fractional_max_pool3d` with the positions."""
    pair: tuple[Tensor, Tensor] = _pool(3, input, kernel_size, output_size, output_ratio, True, _random_samples)
    return pair
