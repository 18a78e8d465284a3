"""Sorting and searching: sort, topk, unique, searchsorted. NaN sorts as the largest value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphtorch.autograd.state import state
from graphtorch.ops.build import FUNCTIONS, function, operator
from graphtorch.ops.dispatch import write_out
from graphtorch.ops.record import OPAQUE, sample
from graphtorch.ops.scattering import scatter_record
from graphtorch.ops.shapes import wrap_dim
from graphtorch.tensor import dtypes
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType, type_of


def _sortable(array: Any) -> Any:
    """bfloat16 sorts as float32, for which NumPy has fast kernels."""
    return array.astype(np.float32) if array.dtype.kind == "V" or array.dtype.itemsize == 2 else array


def _check_sortable(name: str, input: Any) -> None:
    if input.dtype.is_complex:
        raise RuntimeError(f"{name}(): does not support complex dtype")


# -- sort, topk -------------------------------------------------------------------------------------------------------


def _pair(input: Any, shape: Any) -> tuple[TensorType, TensorType]:
    values = type_of(input).with_shape(shape)
    return values, values.with_dtype(dtypes.int64)


def _sort_type(input: Any, dim: int, descending: bool, stable: bool) -> tuple[TensorType, TensorType]:
    _check_sortable("sort", input)
    return _pair(input, input.shape)


def _order(array: Any, dim: int, descending: bool) -> Any:
    """The stable sorting permutation along `dim`."""
    keys = _sortable(array)
    if not descending:
        return np.argsort(keys, dim, kind="stable")
    # Reversed twice, equal elements keep their order.
    last = array.shape[dim] - 1
    return last - np.flip(np.argsort(np.flip(keys, dim), dim, kind="stable"), dim)


def _sort_numpy(input: Any, dim: int, descending: bool, stable: bool) -> tuple[Any, Any]:
    if not input.ndim:
        return input.copy(), np.zeros((), np.int64)
    order = _order(input, dim, descending)
    return np.take_along_axis(input, order, dim), order


def _placed(g: Any, indices: Any, input_type: TensorType, dim: int) -> Any:
    """Cotangents of selected elements put back where the elements came from."""
    return scatter_record(g.new_zeros(input_type.shape), dim, indices, g)


def _sort_normalize(input: Any, dim: Any, *rest: Any) -> tuple[Any, ...]:
    return (input, wrap_dim(dim, len(input.shape)), *rest)


_sort: Callable[..., Any] = operator(
    "sort(Tensor input, int dim=-1, bool descending=False, *, bool stable=False) -> (values, indices)",
    order={"values": "input", "indices": "input"},
    type=_sort_type,
    numpy=_sort_numpy,
    kind=OPAQUE,
    derivative={
        "input": lambda g_values, indices, input_type, dim: _placed(g_values, indices, input_type, dim),
    },
    normalize=_sort_normalize,
    samples=lambda make: [
        sample(make.distinct(5)),
        sample(make.distinct(3, 4), 0),
        sample(make.distinct(3, 4), -1, True),
        sample(make.distinct(2, 3, 2), 1, stable=True),
        sample(make.distinct()),
    ],
    categories="bif",
    public=False,
    method=False,
)


@function(method=True)
def sort(
    input: Tensor, dim: Any = -1, descending: bool = False, *, stable: bool | None = False, out: Any = None
) -> Any:
    """(values, indices) in order along a dimension; equal elements keep their order. See torch.sort."""
    if isinstance(dim, str):
        raise RuntimeError("named dimensions are not supported")
    result = _sort(input, dim, descending, stable=bool(stable))
    if out is not None:
        write_out(out, result)
        return out
    return result


@function(method=True)
def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """The permutation that sorts along a dimension. See torch.argsort."""
    order: Tensor = _sort(input, dim, descending, stable=stable)[1]
    return order


@function(method=True)
def msort(input: Tensor) -> Tensor:
    """`sort(input, 0).values`. See torch.msort."""
    values: Tensor = _sort(input, 0)[0]
    return values


def _topk_type(input: Any, k: Any, dim: int, largest: bool, sorted: bool) -> tuple[TensorType, TensorType]:
    _check_sortable("topk", input)
    shape = list(input.shape)
    size = shape[dim] if shape else 1
    if k < 0 or k > size:
        raise RuntimeError("selected index k out of range")
    if shape:
        shape[dim] = k
    return _pair(input, shape)


def _chosen(keys: Any, k: int, dim: int, largest: bool) -> Any:
    """The positions of the k largest or smallest keys, in order; of equal ones, the first."""
    keys = np.moveaxis(keys, dim, -1)
    size = keys.shape[-1]
    places = np.argpartition(keys, size - k if largest else k - 1, -1)
    chosen = np.sort(places[..., size - k :] if largest else places[..., :k], -1)
    found = np.take_along_axis(keys, chosen, -1)
    last = (found.min if largest else found.max)(-1, keepdims=True)  # NaN, if one is among them
    equal = keys == last
    if (last != last).any():
        chosen = np.sort(_order(keys, -1, largest)[..., :k], -1)
    elif (np.count_nonzero(equal, -1) != np.count_nonzero(found == last, -1)).any():
        taken = keys > last if largest else keys < last
        taken |= equal & (equal.cumsum(-1) <= k - taken.sum(-1, keepdims=True))
        chosen = np.nonzero(taken)[-1].reshape(*keys.shape[:-1], k)
    return np.moveaxis(chosen, -1, dim)


def _topk_numpy(input: Any, k: int, dim: int, largest: bool, sorted: bool) -> tuple[Any, Any]:
    if not input.ndim:
        return input.copy(), np.zeros((), np.int64)
    size = input.shape[dim]
    if 0 < 4 * k < size:
        chosen = _chosen(_sortable(input), k, dim, largest)  # only these remain to be sorted
        values = np.take_along_axis(input, chosen, dim)
        order = np.take_along_axis(chosen, _order(values, dim, largest), dim)
    else:
        order = np.take(_order(input, dim, largest), range(k), dim)
    return np.take_along_axis(input, order, dim), order


topk: Callable[..., Any] = operator(
    "topk(Tensor input, int k, int dim=-1, bool largest=True, bool sorted=True) -> (values, indices)",
    type=_topk_type,
    numpy=_topk_numpy,
    kind=OPAQUE,
    derivative={
        "input": lambda g_values, indices, input_type, dim: _placed(g_values, indices, input_type, dim),
    },
    normalize=lambda input, k, dim, largest, sorted: (input, k, wrap_dim(dim, len(input.shape)), largest, sorted),
    samples=lambda make: [
        sample(make.distinct(5, low=0.0, high=99.0), 2),
        sample(make.distinct(3, 4, low=0.0, high=99.0), 2, 0, False),
        sample(make.distinct(3, 9, low=0.0, high=99.0), 2),
        sample(make.distinct(3, 9, low=0.0, high=99.0), 1, 1, False),
        sample(make.distinct(3, 4, low=0.0, high=99.0), 4),
    ],
    categories="if",
    doc="The k largest (or smallest) elements of a dimension, in order, and their positions.",
)


# -- unique -----------------------------------------------------------------------------------------------------------


def _unpack(found: list[Tensor]) -> Any:
    return found[0] if len(found) == 1 else tuple(found)


def _wrap(input: Tensor, array: Any) -> Tensor:
    return input._beside(np.ascontiguousarray(array).reshape(array.shape))  # ascontiguousarray makes vectors of scalars


def _recorded_runs(
    input: Tensor, values: Tensor, places: Tensor | None, return_inverse: bool, return_counts: bool
) -> Any:
    """The first of every run of equal `values`, those of `input` in some order (`places`; None: its own), as operators
    that need only know how many runs there are."""
    first = FUNCTIONS["ones_like"](values[:1], dtype=dtypes.bool_)
    starts = FUNCTIONS["cat"]((first, values[1:] != values[:-1]))
    at = FUNCTIONS["nonzero"](starts)[:, 0]
    found = [values[at]]
    if return_inverse:
        runs = starts.cumsum(0) - 1
        runs = runs if places is None else runs.scatter(0, places, runs)
        found.append(runs.reshape(input.shape))
    if return_counts:
        ends = FUNCTIONS["cat"]((at[1:], FUNCTIONS["full_like"](at[:1], values.shape[0])))
        found.append(ends - at)
    return _unpack(found)


@function(method=True)
def unique(
    input: Tensor,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: int | None = None,
) -> Any:
    """The distinct elements (or slices of `dim`) in order, and on request inverse indices and counts. See torch.unique.

    The shape of the result depends on the values: they are read here, or how many there are is a decision on them.
    """
    if state.recorder is not None and dim is None:
        ordered, places = FUNCTIONS["sort"](input.detach().reshape(-1))
        return _recorded_runs(input, ordered, places, return_inverse, return_counts)
    array = input._host("unique()")
    axis = None if dim is None else wrap_dim(dim, input.ndim)
    keys = _sortable(array)
    values, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True, axis=axis, equal_nan=False)
    found = [_wrap(input, values.astype(array.dtype, copy=False))]
    if return_inverse:
        found.append(_wrap(input, inverse.reshape(array.shape if axis is None else (-1,)).astype(np.int64, copy=False)))
    if return_counts:
        found.append(_wrap(input, counts.astype(np.int64, copy=False)))
    return _unpack(found)


@function(method=True)
def unique_consecutive(
    input: Tensor, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """The first of every run of equal elements (or slices of `dim`). See torch.unique_consecutive.

    The shape of the result depends on the values: they are read here, or how many there are is a decision on them.
    """
    if state.recorder is not None and dim is None:
        return _recorded_runs(input, input.detach().reshape(-1), None, return_inverse, return_counts)
    array = input._host("unique_consecutive()")
    axis = None if dim is None else wrap_dim(dim, input.ndim)
    rows = array.reshape(-1) if axis is None else np.moveaxis(array, axis, 0)
    starts = np.ones(len(rows), np.bool_)
    if len(rows) > 1:
        changed = rows[1:] != rows[:-1]
        starts[1:] = changed.reshape(len(rows) - 1, -1).any(1)
    values = rows[starts] if axis is None else np.moveaxis(rows[starts], 0, axis)
    found = [_wrap(input, values)]
    if return_inverse:
        inverse = np.cumsum(starts) - 1
        found.append(_wrap(input, inverse.reshape(array.shape if axis is None else (-1,))))
    if return_counts:
        found.append(_wrap(input, np.diff(np.append(np.flatnonzero(starts), len(rows)))))
    return _unpack(found)


# -- searching --------------------------------------------------------------------------------------------------------


def _search_type(sorted_sequence: Any, input: Any, out_int32: bool, right: bool) -> TensorType:
    lead, given = tuple(sorted_sequence.shape[:-1]), tuple(input.shape)
    if not len(sorted_sequence.shape):
        raise RuntimeError(
            "torch.searchsorted(): boundaries tensor should have positive dimension, but got 0 dimension"
        )
    if lead and lead != given[:-1]:
        raise RuntimeError(
            "torch.searchsorted(): boundaries tensor should be 1 dimension or the first N-1 dimensions of boundaries "
            f"tensor and input value tensor must match, but we got boundaries tensor {list(sorted_sequence.shape)} "
            f"and input value tensor {list(given)}"
        )
    return TensorType(dtypes.int32 if out_int32 else dtypes.int64, given, sorted_sequence.device)


def _search_numpy(sorted_sequence: Any, input: Any, out_int32: bool, right: bool) -> Any:
    side: Any = "right" if right else "left"
    edges, values = _sortable(sorted_sequence), _sortable(input)
    if edges.ndim == 1:
        found = np.searchsorted(edges, values, side)
    else:
        rows = values.reshape(-1, values.shape[-1])
        sequences = edges.reshape(len(rows), edges.shape[-1])
        each = [np.searchsorted(e, v, side) for e, v in zip(sequences, rows, strict=True)]
        found = np.array(each).reshape(values.shape)
    return np.asarray(found).astype(np.int32 if out_int32 else np.int64, copy=False)


def _search_samples(make: Any) -> Any:
    yield sample(Tensor._wrap(np.array([1.0, 2.0, 2.0, 5.0])), make(3, 2, low=0.0, high=6.0))
    yield sample(Tensor._wrap(np.array([1.0, 2.0, 2.0, 5.0])), Tensor._wrap(np.array([2.0, 5.0, 9.0])), False, True)
    yield sample(Tensor._wrap(np.array([[1, 3], [2, 7]])), Tensor._wrap(np.array([[3, 0, 9], [3, 0, 9]])), True)


_search: Callable[..., Tensor] = operator(
    "searchsorted(Tensor sorted_sequence, Tensor input, bool out_int32=False, bool right=False)",
    type=_search_type,
    numpy=_search_numpy,
    kind=OPAQUE,
    samples=_search_samples,
    categories="f",
    public=False,
    method=False,
)


def _as_tensor(value: Any, like: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return value
    made: Tensor = FUNCTIONS["full"]((), value, device=like.device)
    return made


@function()
def searchsorted(
    sorted_sequence: Tensor,
    input: Any,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """Where values belong in (rows of) a sorted sequence. See torch.searchsorted."""
    if side is not None:
        if side not in ("left", "right"):
            raise RuntimeError(f"torch.searchsorted(): side can only be 'left' or 'right' but got {side}")
        if right and side == "left":
            raise RuntimeError(
                "torch.searchsorted(): side and right can't be set to opposites, got side of left while right was True"
            )
        right = side == "right"
    if sorter is not None:
        sorted_sequence = sorted_sequence.gather(-1, sorter)
    return _search(sorted_sequence, _as_tensor(input, sorted_sequence), out_int32, right)


@function()
def bucketize(input: Any, boundaries: Tensor, *, out_int32: bool = False, right: bool = False) -> Tensor:
    """Which interval between boundaries each value is in. See torch.bucketize."""
    if boundaries.ndim != 1:
        raise RuntimeError(f"boundaries tensor must be 1 dimension, but got dim({boundaries.ndim})")
    return _search(boundaries, _as_tensor(input, boundaries), out_int32, right)
