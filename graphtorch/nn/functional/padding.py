"""Padding and resampling of the last dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphtorch import ops
from graphtorch.tensor.creation import as_tensor
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
    if len(pad) % 2:
        raise RuntimeError("Padding length must be divisible by 2")
    return ops.pad(input, pad, mode, value)


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
    return input.index_select(dim, as_tensor(np.minimum(source, have - 1), device=input.device))


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
    part = as_tensor((position - low).reshape(shape), dtype=input.dtype, device=input.device)
    left = input.index_select(dim, as_tensor(low, device=input.device))
    right = input.index_select(dim, as_tensor(high, device=input.device))
    return left * (1 - part) + right * part
