"""Padding and resampling of the last dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphtorch import ops
from graphtorch.tensor.tensor import Tensor

__all__ = ["interpolate", "pad"]


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Extend the last dimensions by ``pad``: (before, after) of the last one, then of the one before it, and so on.

    Modes are "constant", "reflect", "replicate" and "circular"; negative amounts cut off.

    Raises:
        RuntimeError: the amounts do not fit the shape.
        ValueError: ``value`` is given to another mode than "constant".
        NotImplementedError: the mode is unknown.
    """
    amounts = [int(n) for n in pad]
    if len(amounts) % 2:
        raise RuntimeError("Padding length must be divisible by 2")
    if len(amounts) > 2 * input.dim():
        raise RuntimeError(
            f"Padding length should be less than or equal to two times the input dimension but got padding length "
            f"{len(amounts)} and input of dimension {input.dim()}"
        )
    if mode == "constant":
        result: Tensor = ops.constant_pad_nd(input, tuple(amounts), 0.0 if value is None else value)
        return result
    if value is not None and value != 0:
        raise ValueError(f'Padding mode "{mode}" doesn\'t take in value argument')
    if mode not in _SOURCES:
        raise NotImplementedError(f"Unrecognised padding mode {mode}")
    if len(amounts) // 2 not in (input.dim() - 1, input.dim() - 2):
        raise NotImplementedError("Only 2D, 3D, 4D, 5D padding with non-constant padding are supported for now")
    for axis in range(len(amounts) // 2):
        before, after = amounts[2 * axis : 2 * axis + 2]
        dim = input.dim() - 1 - axis
        if before or after:
            input = _pad_by_index(input, dim, before, after, mode)
    return input


def _pad_by_index(input: Tensor, dim: int, before: int, after: int, mode: str) -> Tensor:
    size = input.shape[dim]
    limit = {"reflect": size - 1, "circular": size}.get(mode)
    if limit is not None and max(before, after) > limit:
        if mode == "reflect":
            raise RuntimeError(
                "Argument #4: Padding size should be less than the corresponding input dimension, but got: padding "
                f"({before}, {after}) at dimension {dim} of input {list(input.shape)}"
            )
        raise RuntimeError("Padding value causes wrapping around more than once.")
    source = _SOURCES[mode](np.arange(-before, size + after), size)
    return input.index_select(dim, ops.as_tensor(source, device=input.device))


# For each mode: which element stands at a position outside 0 .. size - 1.
_SOURCES: dict[str, Any] = {
    "reflect": lambda at, size: (size - 1) - np.abs((size - 1) - np.abs(at)),
    "replicate": lambda at, size: np.clip(at, 0, size - 1),
    "circular": lambda at, size: at % size,
}


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

    Modes are "nearest", "nearest-exact" and, for one, two and three spatial dimensions, "linear", "bilinear" and
    "trilinear".

    Raises:
        ValueError: the options contradict each other.
        NotImplementedError: the mode does not fit the input, or ``antialias`` is asked for.
    """
    spatial = input.dim() - 2
    linear = {1: "linear", 2: "bilinear", 3: "trilinear"}.get(spatial)
    if mode in ("nearest", "nearest-exact", "area"):
        if align_corners is not None:
            raise ValueError(
                "align_corners option can only be set with the interpolating modes: "
                "linear | bilinear | bicubic | trilinear"
            )
    elif mode != linear:
        raise NotImplementedError(f"interpolate: mode {mode!r} is not available for {input.dim()}D input")
    if antialias or mode == "area":
        raise NotImplementedError("interpolate: antialias and mode 'area' are not available")
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
    for axis, value in enumerate(values):
        have = input.shape[2 + axis]
        if size is not None:
            want, step = int(value), None
        else:
            want = math.floor(have * value)
            step = None if recompute_scale_factor else 1.0 / value
        if mode.startswith("nearest"):
            input = _nearest(input, 2 + axis, want, step, mode == "nearest-exact")
        else:
            input = _linear(input, 2 + axis, want, step, bool(align_corners))
    return input


def _nearest(input: Tensor, dim: int, want: int, step: float | None, exact: bool) -> Tensor:
    have = input.shape[dim]
    scale = np.float32(have / want if step is None else step)
    at = np.arange(want, dtype=np.float32)
    source = np.floor((at + np.float32(0.5)) * scale if exact else at * scale).astype(np.int64)
    return input.index_select(dim, ops.as_tensor(np.minimum(source, have - 1), device=input.device))


def _linear(input: Tensor, dim: int, want: int, step: float | None, align_corners: bool) -> Tensor:
    have = input.shape[dim]
    at = np.arange(want, dtype=np.float64)
    if align_corners:
        position = at * ((have - 1) / (want - 1) if want > 1 else 0.0)
    else:
        position = np.maximum((at + 0.5) * (have / want if step is None else step) - 0.5, 0.0)
    low = np.minimum(np.floor(position).astype(np.int64), have - 1)
    high = np.minimum(low + 1, have - 1)
    shape = [1] * input.dim()
    shape[dim] = want
    part = ops.as_tensor((position - low).reshape(shape), dtype=input.dtype, device=input.device)
    left = input.index_select(dim, ops.as_tensor(low, device=input.device))
    right = input.index_select(dim, ops.as_tensor(high, device=input.device))
    return left * (1 - part) + right * part
