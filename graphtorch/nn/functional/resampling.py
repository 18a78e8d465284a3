"""Resampling of spatial dimensions: to other sizes, and at the points of a grid."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from graphtorch import ops
from graphtorch.autograd.compositions import in_one_piece
from graphtorch.autograd.graph import renamed
from graphtorch.nn.functional.pooling import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d
from graphtorch.ops.autocast import autocasts
from graphtorch.ops.shaping import channels_as
from graphtorch.tensor.creation import as_tensor
from graphtorch.tensor.dtypes import float32, int64, uint8
from graphtorch.tensor.tensor import Tensor

__all__ = ["affine_grid", "grid_sample", "interpolate", "upsample", "upsample_bilinear", "upsample_nearest"]

Array = npt.NDArray[np.float64]


def interpolate(
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """Resample the spatial dimensions of (N, C, ...) to ``size`` or by ``scale_factor``.

    Modes are "nearest", "nearest-exact", "area" and, for one, two and three spatial dimensions, "linear", "bilinear" or
    "bicubic", and "trilinear". ``antialias`` widens the kernels of "bilinear" and "bicubic" when the size shrinks.

    Raises:
        ValueError: the options contradict each other.
        NotImplementedError: the mode does not fit the input.
    """
    spatial = input.dim() - 2
    modes = {1: ("linear",), 2: ("bilinear", "bicubic"), 3: ("trilinear",)}.get(spatial, ())
    if mode in ("nearest", "nearest-exact", "area"):
        if align_corners is not None:
            raise ValueError(
                "align_corners option can only be set with the interpolating modes: "
                "linear | bilinear | bicubic | trilinear"
            )
    elif mode not in modes:
        raise NotImplementedError(f"interpolate: mode {mode!r} is not available for {input.dim()}D input")
    if antialias and mode not in ("bilinear", "bicubic"):
        raise ValueError(
            "Anti-alias option is restricted to bilinear and bicubic modes and requires a 4-D tensor as input"
        )
    if size is not None and scale_factor is not None:
        raise ValueError("only one of size or scale_factor should be defined")
    if size is None and scale_factor is None:
        raise ValueError("either size or scale_factor should be defined")
    given = size if size is not None else scale_factor
    values = list(given) if isinstance(given, tuple | list) else [given] * spatial
    if len(values) != spatial:
        raise ValueError(
            f"Input and output must have the same number of spatial dimensions, but got input with spatial dimensions "
            f"of {list(input.shape[2:])} and output size of {given}. Please provide input tensor in (N, C, d1, d2, "
            "...,dK) format and output size in (o1, o2, ...,oK) format."
        )
    if size is None:
        sizes = [math.floor(have * value) for have, value in zip(input.shape[2:], values, strict=True)]
    else:
        sizes = [int(value) for value in values]
    if mode == "area":
        pool: Any = {1: adaptive_avg_pool1d, 2: adaptive_avg_pool2d, 3: adaptive_avg_pool3d}[spatial]
        return pool(input, sizes)
    keep = size is None and not recompute_scale_factor
    if input.dtype is uint8 and not mode.startswith("nearest"):
        resampled = interpolate(
            input.to(float32), size, scale_factor, mode, align_corners, recompute_scale_factor, antialias
        )
        return resampled.round().clamp(0, 255).to(uint8)
    steps = tuple([1.0 / value if keep else None for value in values])
    source = input
    input = _resampled(input, tuple(sizes), steps, mode, bool(align_corners), antialias)
    kind = {"nearest-exact": "NearestExact"}.get(mode, mode.capitalize())
    return renamed(channels_as(input, source), f"Upsample{kind}{spatial}D{'Aa' if antialias else ''}Backward0")


@in_one_piece("", linear=True)
def _resampled(
    input: Tensor,
    sizes: tuple[int, ...],
    steps: tuple[float | None, ...],
    mode: str,
    align_corners: bool,
    antialias: bool,
) -> Tensor:
    """`interpolate` to `sizes`, one dimension after the other; `steps` are distances between outputs, where given."""
    for axis, (want, step) in enumerate(zip(sizes, steps, strict=True)):
        if mode.startswith("nearest"):
            input = _nearest(input, 2 + axis, want, step, mode == "nearest-exact")
        elif antialias:
            input = _smooth(input, 2 + axis, want, step, align_corners, mode == "bicubic")
        elif mode == "bicubic":
            input = _cubic(input, 2 + axis, want, step, align_corners)
        else:
            input = _linear(input, 2 + axis, want, step, align_corners)
    return input


def upsample(
    input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None
) -> Tensor:
    """The deprecated name of :func:`interpolate`."""
    warnings.warn("`nn.functional.upsample` is deprecated. Use `nn.functional.interpolate` instead.", stacklevel=2)
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """The deprecated name of :func:`interpolate` with mode "nearest"."""
    warnings.warn(
        "`nn.functional.upsample_nearest` is deprecated. Use `nn.functional.interpolate` instead.", stacklevel=2
    )
    return interpolate(input, size, scale_factor, mode="nearest")


def upsample_bilinear(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """The deprecated name of :func:`interpolate` with mode "bilinear" and ``align_corners``."""
    warnings.warn(
        "`nn.functional.upsample_bilinear` is deprecated. Use `nn.functional.interpolate` instead.", stacklevel=2
    )
    return interpolate(input, size, scale_factor, mode="bilinear", align_corners=True)


def _step(have: int, want: int, step: float | None, align_corners: bool) -> float:
    """The distance of neighbouring outputs in the input."""
    if align_corners:
        return (have - 1) / (want - 1) if want > 1 else 0.0
    return have / want if step is None else step


def _positions(have: int, want: int, step: float | None, align_corners: bool) -> Array:
    """Where in the input each output lies."""
    at, between = np.arange(want, dtype=np.float64), _step(have, want, step, align_corners)
    return at * between if align_corners else (at + 0.5) * between - 0.5


def _along(values: Array, like: Tensor, dim: int) -> Tensor:
    """Weights along one dimension of ``like``, broadcast over the others."""
    shape = [1] * like.dim()
    shape[dim] = len(values)
    return as_tensor(values.reshape(shape), dtype=like.dtype, device=like.device)


def _known(size: Any) -> int:
    """A size as a number: which elements are read depends on it, so that a compiled function serves this one only."""
    return int(size)


def _nearest(input: Tensor, dim: int, want: int, step: float | None, exact: bool) -> Tensor:
    have = _known(input.shape[dim])
    scale = np.float32(have / want if step is None else step)
    at = np.arange(want, dtype=np.float32)
    source = np.floor((at + np.float32(0.5)) * scale if exact else at * scale).astype(np.int64)
    return input.index_select(dim, as_tensor(np.minimum(source, have - 1), device=input.device))


def _linear(input: Tensor, dim: int, want: int, step: float | None, align_corners: bool) -> Tensor:
    have = _known(input.shape[dim])
    position = np.maximum(_positions(have, want, step, align_corners), 0.0)
    low = np.minimum(np.floor(position).astype(np.int64), have - 1)
    high = np.minimum(low + 1, have - 1)
    part = _along(position - low, input, dim)
    left = input.index_select(dim, as_tensor(low, device=input.device))
    right = input.index_select(dim, as_tensor(high, device=input.device))
    return left * (1 - part) + right * part


def _cubic_kernel(x: Any, a: float) -> tuple[Any, Any]:
    """Keys' kernel: its piece for distances below 1, and that for distances from 1 to 2."""
    return ((a + 2) * x - (a + 3)) * x * x + 1, ((a * x - 5 * a) * x + 8 * a) * x - 4 * a


def _cubic_weights(t: Any) -> list[Any]:
    """The weights of the four neighbours of a point ``t`` beyond the second of them; ``a = -0.75`` as in PyTorch."""
    return [
        _cubic_kernel(t + 1, -0.75)[1],
        _cubic_kernel(t, -0.75)[0],
        _cubic_kernel(1 - t, -0.75)[0],
        _cubic_kernel(2 - t, -0.75)[1],
    ]


def _cubic(input: Tensor, dim: int, want: int, step: float | None, align_corners: bool) -> Tensor:
    have = _known(input.shape[dim])
    position = _positions(have, want, step, align_corners)
    low = np.floor(position)
    total: Any = 0
    for offset, weight in enumerate(_cubic_weights(position - low), -1):
        source = np.clip(low.astype(np.int64) + offset, 0, have - 1)
        total = total + input.index_select(dim, as_tensor(source, device=input.device)) * _along(weight, input, dim)
    return total


def _smooth(input: Tensor, dim: int, want: int, step: float | None, align_corners: bool, cubic: bool) -> Tensor:
    """Weights of a kernel as wide as the outputs are apart, as a product with a matrix."""
    have = _known(input.shape[dim])
    between = _step(have, want, step, align_corners)
    stretch = max(between, 1.0)
    support = (2.0 if cubic else 1.0) * stretch
    weights = np.zeros((want, have))
    for i in range(want):
        centre = between * (i + 0.5)
        start, end = max(int(centre - support + 0.5), 0), min(int(centre + support + 0.5), have)
        distance = np.abs(np.arange(start, end) - centre + 0.5) / stretch
        if cubic:
            near, far = _cubic_kernel(distance, -0.5)
            row = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
        else:
            row = np.maximum(1.0 - distance, 0.0)
        weights[i, start:end] = row / row.sum()
    matrix = as_tensor(weights.T.copy(), dtype=input.dtype, device=input.device)
    return (input.movedim(dim, -1) @ matrix).movedim(-1, dim)


# -- grids ------------------------------------------------------------------------------------------------------------


def affine_grid(theta: Tensor, size: Any, align_corners: bool | None = None) -> Tensor:
    """The points that affine maps ``theta`` (N, 2, 3) or (N, 3, 4) take the positions of an output to.

    Args:
        size: the output's size (N, C, H, W) or (N, C, D, H, W).
        align_corners: whether -1 and 1 are the centres of the outermost positions, rather than their outer edges.

    Returns:
        (N, H, W, 2) or (N, D, H, W, 3), in the order x, y (, z).

    Raises:
        ValueError: the sizes do not fit.
    """
    if not theta.is_floating_point():
        raise ValueError(f"Expected theta to have floating point type, but got {theta.dtype}")
    spatial = len(size) - 2
    if spatial not in (2, 3) or theta.dim() != 3 or tuple(theta.shape[1:]) != (spatial, spatial + 1):
        raise ValueError(
            f"Expected a batch of {'2D' if spatial == 2 else '3D'} affine matrices of shape Nx{spatial}x{spatial + 1} "
            f"for size {tuple(size)}. Got {tuple(theta.shape)}."
        )
    lines = []
    for count in size[2:]:
        # Rounded step by step, as in PyTorch: under the identity map, with which spatial transformers begin, points lie
        # at centres of elements, and rounding alone decides between which two of them grid_sample finds them.
        line = ops.linspace(-1, 1, count, dtype=theta.dtype, device=theta.device) if count > 1 else None
        if line is None:
            line = ops.zeros(1, dtype=theta.dtype, device=theta.device)
        lines.append(line if align_corners else line * (count - 1) / count)
    grids = ops.meshgrid(*lines, indexing="ij")
    points = ops.stack([*reversed(grids), ops.ones_like(grids[0])], -1)
    base = points.reshape(-1, spatial + 1)
    return (base @ theta.transpose(1, 2)).reshape(theta.shape[0], *size[2:], spatial)


@autocasts("float32")
def grid_sample(
    input: Tensor,
    grid: Tensor,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Tensor:
    """The values of (N, C, H, W) at points (N, OH, OW, 2), or of (N, C, D, H, W) at (N, OD, OH, OW, 3).

    Points are (x, y (, z)) from -1 to 1 across the input. Modes are "bilinear", "nearest" and in two dimensions
    "bicubic"; what lies outside is "zeros", the "border", or a "reflection".

    Raises:
        ValueError: a mode is unknown.
        RuntimeError: the shapes do not fit.
        NotImplementedError: "bicubic" in three dimensions.
    """
    if mode not in ("bilinear", "nearest", "bicubic"):
        raise ValueError(
            f"nn.functional.grid_sample(): expected mode to be 'bilinear', 'nearest' or 'bicubic', but got: '{mode}'"
        )
    if padding_mode not in ("zeros", "border", "reflection"):
        raise ValueError(
            "nn.functional.grid_sample(): expected padding_mode to be 'zeros', 'border', or 'reflection', but got: "
            f"'{padding_mode}'"
        )
    spatial = input.dim() - 2
    if spatial not in (2, 3) or grid.dim() != input.dim():
        raise RuntimeError(
            "grid_sampler(): expected 4D or 5D input and grid with same number of dimensions, but got input with sizes "
            f"{list(input.shape)} and grid with sizes {list(grid.shape)}"
        )
    if grid.shape[0] != input.shape[0] or grid.shape[-1] != spatial:
        raise RuntimeError(
            f"grid_sampler(): expected grid to have size {spatial} in last dimension and input's batch size, but got "
            f"input with sizes {list(input.shape)} and grid with sizes {list(grid.shape)}"
        )
    if mode == "bicubic" and spatial == 3:
        raise NotImplementedError("grid_sampler(): bicubic interpolation only supports 4D input")
    sampled = _grid_sample(input, grid, mode, padding_mode, align_corners)
    return renamed(sampled, f"GridSampler{spatial}DBackward0")


@in_one_piece("")
def _grid_sample(input: Tensor, grid: Tensor, mode: str, padding_mode: str, align_corners: bool | None) -> Tensor:
    spatial = input.dim() - 2
    if input.dtype.itemsize == 2:
        # Coordinates of half precision would fall into other cells.
        return _grid_sample(input.to(float32), grid.to(float32), mode, padding_mode, align_corners).to(input.dtype)
    align = bool(align_corners)
    sizes = tuple(input.shape[2:])

    def place(x: Tensor, size: int) -> Tensor:
        """A coordinate outside, brought to the border or reflected."""
        if padding_mode == "reflection":
            x = _reflect(x, 0 if align else -1, 2 * (size - 1) if align else 2 * size - 1)
        if padding_mode == "zeros":
            return x
        # At the border, too, nothing moves with the coordinate: a clamp would hand its gradient on.
        return ops.where(x <= 0, 0.0, ops.where(x >= size - 1, float(size - 1), x))

    # The grid's last dimension counts dimensions from the last one on.
    raw = [grid[..., spatial - 1 - axis] for axis in range(spatial)]
    raw = [_coordinate(x, size, align, spatial) for x, size in zip(raw, sizes, strict=True)]
    look = _Lookup(input, tuple(grid.shape[1:-1]))
    if mode == "nearest":
        return look([place(x, size).round() for x, size in zip(raw, sizes, strict=True)])
    if mode == "bilinear":
        placed = [place(x, size) for x, size in zip(raw, sizes, strict=True)]
        return _weighted_corners(look, placed, lambda t: [1 - t, t], 0, lambda x, size: x, sizes)
    return _weighted_corners(look, raw, _cubic_weights, -1, place, sizes)


def _coordinate(x: Tensor, size: Any, align: bool, spatial: int) -> Tensor:
    """The place among `size` elements that a number from -1 to 1 stands for, rounded as PyTorch's kernels do, of which
    that for two dimensions multiplies by a half of the size."""
    if spatial == 2:
        return (x + 1) * ((size - 1) / 2) if align else (x + 1) * (size / 2) - 0.5
    return (x + 1) / 2 * (size - 1) if align else ((x + 1) * size - 1) / 2


def _reflect(x: Tensor, twice_low: int, twice_high: int) -> Tensor:
    """Coordinates folded back into an interval at its ends, as often as needed."""
    if twice_low == twice_high:
        return x * 0
    low, span = twice_low / 2, (twice_high - twice_low) / 2
    distance = (x - low).abs()
    extra = distance.fmod(span)
    even = (distance / span).floor() % 2 == 0
    return ops.where(even, extra + low, span - extra + low)


class _Lookup:
    """The values of (N, C, *sizes) at whole coordinates (N, *places), zero outside."""

    def __init__(self, input: Tensor, places: tuple[int, ...]) -> None:
        self.sizes = tuple(input.shape[2:])
        self.flat = input.flatten(2)
        self.result = (*input.shape[:2], *places)

    def __call__(self, coordinates: list[Tensor]) -> Tensor:
        index: Any = 0
        inside: Any = True
        for x, size in zip(coordinates, self.sizes, strict=True):
            within = (x >= 0) & (x <= size - 1)
            inside = within & inside
            index = index * size + ops.where(within, x.detach(), 0).to(int64)
        batch, channels = self.result[:2]
        rows = index.reshape(batch, 1, -1).expand(batch, channels, -1)
        found = self.flat.gather(2, rows).reshape(self.result)
        return ops.where(inside.unsqueeze(1), found, 0)


def _weighted_corners(
    look: _Lookup,
    coordinates: list[Tensor],
    weigh: Callable[[Tensor], list[Tensor]],
    first: int,
    place: Callable[[Tensor, int], Tensor],
    sizes: tuple[int, ...],
) -> Tensor:
    """The sum over neighbours of each point, whose weights are products of those in each dimension."""
    lows = [x.detach().floor() for x in coordinates]
    weights = [weigh(x - low) for x, low in zip(coordinates, lows, strict=True)]
    total: Any = 0
    for corner in itertools.product(range(len(weights[0])), repeat=len(lows)):
        at = [place(low + first + k, size) for low, k, size in zip(lows, corner, sizes, strict=True)]
        weight = weights[0][corner[0]]
        for own, k in zip(weights[1:], corner[1:], strict=True):
            weight = weight * own[k]
        total = total + look(at) * weight.unsqueeze(1)
    return total
