"""Histograms with given or computed edges: `histogram` of one variable, `histogramdd` of several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphtorch.ops.build import FUNCTIONS, function, operator, return_type
from graphtorch.ops.pointwise import not_implemented
from graphtorch.ops.record import sample
from graphtorch.tensor import dtypes
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import type_of

_Histogram = return_type("histogram", ("hist", "bin_edges"))
_HistogramDD = return_type("histogramdd", ("hist", "bin_edges"))


@function(method=True)
def histogram(
    input: Tensor,
    bins: int | Tensor,
    *,
    range: tuple[float, float] | None = None,
    weight: Tensor | None = None,
    density: bool = False,
) -> Any:
    """Counts (or sums of weights) of elements between edges, the last bin closed on both sides, and the edges.

    `bins` is a number of bins of one width over `range` (the extent of the data if not given), or the edges. `density`
    divides by the total and the widths. Raises RuntimeError for no bins, ranges that are none, and weights of another
    shape; NotImplementedError for other dtypes than float32 and float64. See torch.histogram.
    """
    values = input.reshape(-1, 1)
    weights = None if weight is None else weight.reshape(-1)
    counts, edges = _count("histogram", values, (bins,), range, weights, density, tuple(input.shape), weight)
    return _Histogram(counts, edges[0])


@function()
def histogramdd(
    input: Tensor,
    bins: int | Sequence[int] | Sequence[Tensor],
    *,
    range: Sequence[float] | None = None,
    weight: Tensor | None = None,
    density: bool = False,
) -> Any:
    """Counts of points (..., D) in the boxes of a grid, and the D tensors of edges.

    `bins` is one number for all variables, one a variable, or the edges; `range` has a lower and an upper end for each.
    See torch.histogramdd.
    """
    if input.ndim < 2:
        raise RuntimeError("torch.histogramdd: input tensor should have at least 2 dimensions")
    count = input.shape[-1]
    each = (bins,) * count if isinstance(bins, int) else tuple(bins)
    if len(each) != count:
        raise RuntimeError(
            f"torch.histogramdd(): expected {count} sequences of bin edges for a {count}-dimensional histogram but "
            f"got {len(each)}"
        )
    weights = None if weight is None else weight.reshape(-1)
    points = input.reshape(-1, count)
    counts, edges = _count("histogramdd", points, each, range, weights, density, tuple(input.shape[:-1]), weight)
    return _HistogramDD(counts, edges)


def _count(
    name: str,
    points: Tensor,
    bins: Sequence[Any],
    range: Sequence[float] | None,
    weights: Tensor | None,
    density: bool,
    shape: tuple[int, ...],
    weight: Tensor | None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    if points.dtype not in (dtypes.float32, dtypes.float64):
        raise not_implemented("histogramdd", points.dtype)
    if weight is not None and tuple(weight.shape) != shape:
        raise RuntimeError(
            f"torch.{name}(): if weight tensor is provided, it should have the same shape as the input tensor "
            f"excluding its innermost dimension, but got input with shape {[*shape, points.shape[1]]} and weight with "
            f"shape {list(weight.shape)}"
        )
    if all(isinstance(bin, Tensor) for bin in bins):
        sizes = tuple(int(bin.shape[0]) - 1 for bin in bins)
        edges = FUNCTIONS["cat"](list(bins))
    else:
        for dim, bin in enumerate(bins):
            if bin <= 0:
                raise RuntimeError(f"torch.histogram(): bins must be > 0, but got {bin} for dimension {dim}")
        sizes = tuple(bins)
        edges = bin_edges(points, sizes, None if range is None else tuple(float(r) for r in range))
    found = bin_counts(points, edges, sizes, weights, density)
    return found, FUNCTIONS["split_with_sizes"](edges, [size + 1 for size in sizes])


def _count_samples(make: Any) -> Any:
    yield sample(make(6, 1, low=0.0, high=1.0), FUNCTIONS["linspace"](0.0, 1.0, 3, dtype=make.dtype), (2,))
    edges = FUNCTIONS["linspace"](0.0, 1.0, 5, dtype=make.dtype)
    yield sample(make(6, 2, low=0.0, high=1.0), FUNCTIONS["cat"]([edges, edges]), (4, 4), make(6, low=0.0), True)


def _numpy_edges(input: Any, sizes: Any, range: Any) -> Any:
    columns = (_edges(input[:, dim], size, range, dim) for dim, size in enumerate(sizes))
    return np.concatenate(list(columns))


def _numpy_counts(input: Any, edges: Any, sizes: Any, weight: Any, density: bool) -> Any:
    ends = np.cumsum([size + 1 for size in sizes])
    each = [edges[end - size - 1 : end] for end, size in zip(ends, sizes, strict=True)]
    places = np.zeros(len(input), np.int64)
    inside = np.ones(len(input), np.bool_)
    for i, edge in enumerate(each):
        column = input[:, i]
        at = np.searchsorted(edge, column, "right") - 1
        at[column == edge[-1]] = len(edge) - 2
        inside &= (column >= edge[0]) & (column <= edge[-1])
        places = places * (len(edge) - 1) + at
    chosen = None if weight is None else weight[inside]
    found = np.bincount(places[inside], chosen, int(np.prod(sizes))).reshape(sizes).astype(input.dtype)
    if density:
        with np.errstate(divide="ignore", invalid="ignore"):
            found = found / found.sum()
            for i, edge in enumerate(each):
                found = found / np.diff(edge).reshape(-1, *(1,) * (len(sizes) - 1 - i))
    return found.astype(input.dtype, copy=False)


bin_edges: Callable[..., Tensor] = operator(
    "bin_edges(Tensor input, int[] sizes, any range=None)",
    type=lambda input, sizes, range: type_of(input).with_shape((sum(sizes) + len(sizes),)),
    numpy=_numpy_edges,
    samples=lambda make: [sample(make(6, 2), (3, 2)), sample(make(6, 1), (4,), (-1.0, 1.0))],
    public=False,
    method=False,
    doc="The edges of bins of one width over the columns of (N, D) points, one column's after the other's.",
)

bin_counts: Callable[..., Tensor] = operator(
    "bin_counts(Tensor input, Tensor edges, int[] sizes, Tensor? weight=None, bool density=False)",
    type=lambda input, edges, sizes, weight, density: type_of(input).with_shape(tuple(sizes)),
    numpy=_numpy_counts,
    samples=_count_samples,
    public=False,
    method=False,
    doc="How many of (N, D) points, or what sum of weights, lies in each box of a grid.",
)


def _edges(column: Any, bins: int, range: Sequence[float] | None, dim: int) -> Any:
    """The edges of one variable's bins."""
    if range is not None:
        low, high = (float(r) for r in range[2 * dim : 2 * dim + 2])
    else:
        low, high = (float(column.min()), float(column.max())) if column.size else (0.0, 1.0)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise RuntimeError(f"torch.histogramdd: dimension {dim}'s range [{low:g}, {high:g}] is not finite")
    if low > high:
        raise RuntimeError(
            f"torch.histogramdd: min should not exceed max, but got min {low:g} max {high:g} for dimension {dim}"
        )
    if low == high:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, bins + 1).astype(column.dtype)
