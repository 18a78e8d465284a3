"""How a GPU does operators that have no kernel of their own: in terms of others, as `expand.py` applies it.

What remains for kernels of their own: stable sorts, running folds, gathers and scatters, sums by index (atomic
additions), and `fold_segments`, which folds what a sort has brought together: the deterministic form of sums by index,
and the form of all other folds by index.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphtorch.lowering.triton.writer import ATOMIC
from graphtorch.ops.build import FUNCTIONS
from graphtorch.ops.dispatch import call
from graphtorch.ops.record import Operator, lookup, parse_signature
from graphtorch.schedule.indexing import product
from graphtorch.tensor import dtypes
from graphtorch.tensor.precision import settings as precision
from graphtorch.tensor.type import TensorType

Tensor = Any
MOST_NARROW = 2**31  # positions below this fit 32 bits, whose sorts are faster


def _record(name: str, *args: Any) -> Any:
    """A call of an operator by all its arguments."""
    return call(lookup(name), args)


def _arange(*args: Any, **options: Any) -> Tensor:
    return FUNCTIONS["arange"](*args, **options)


def _where(condition: Tensor, a: Any, b: Any) -> Tensor:
    return FUNCTIONS["where"](condition, a, b)


def _full(like: Tensor, shape: Any, value: Any, of: Any = None) -> Tensor:
    return FUNCTIONS["full"](tuple(shape), value, dtype=of or like.dtype, device=like.device)


# -- folds by index ---------------------------------------------------------------------------------------------------


def _fold_numpy(input: Any, keys: Any, order: Any, source: Any, combine: str, include: bool) -> Any:
    result = input.copy()
    wide = input.astype(np.float32) if input.dtype.itemsize == 2 and input.dtype.kind not in "iu" else input
    fold = {"sum": np.add, "mean": np.add, "prod": np.multiply, "amax": np.maximum, "amin": np.minimum}[combine]
    for key in np.unique(keys[(keys >= 0) & (keys < len(input))]):
        rows = source[order[keys == key]].astype(wide.dtype)
        total = fold.reduce(np.concatenate([wide[key : key + 1], rows]) if include else rows, axis=0)
        count = len(rows) + include
        if combine == "mean":
            total = total // count if total.dtype.kind in "iu" else total / count
        result[key] = total.astype(input.dtype)
    return result


_parsed = parse_signature(
    "fold_segments(Tensor input, Tensor keys, Tensor order, Tensor source, str combine, bool include)"
)
FOLD_SEGMENTS = Operator(
    name=_parsed.name,
    parameters=_parsed.parameters,
    results=_parsed.results,
    type_rule=lambda input, *rest: TensorType(input.dtype, tuple(input.shape), input.device),
    numpy=_fold_numpy,
    doc="Rows of `input` (M, W) folded with the rows of `source` (S, W) at `order` (N,) whose sorted `keys` (N,) name "
    "them, in the order of `order`. Keys out of range count for nothing.",
)


def _fold_rows(input: Tensor, keys: Tensor, source: Tensor, combine: str = "sum", include: bool = True) -> Tensor:
    """Rows of `source` folded into the rows of `input` that `keys` names, in order."""
    if type(rows := input.shape[0]) is int and rows < MOST_NARROW:
        keys = keys.to(dtypes.int32)
    ordered, order = _record("sort", keys, 0, False, True)
    return call(FOLD_SEGMENTS, (input, ordered, order, source, combine, include))


def _atomic(of: Any) -> bool:
    """Whether sums by index are atomic additions: not where their order must be the same each time."""
    exact = of in (dtypes.int32, dtypes.int64)
    return of in ATOMIC and (exact or not precision.ordered)


def _checked(index: Tensor, size: Any) -> Tensor:
    """Positions that count from the end, as others; what is out of range as -1."""
    wrapped = _where(index < 0, index + size, index)
    return _where(FUNCTIONS["logical_and"](wrapped >= 0, wrapped < size), wrapped, -1)


def _front(x: Tensor, dim: int) -> Tensor:
    """A dimension first, and all others as one."""
    moved = x.movedim(dim, 0) if dim else x
    width: Any = 1
    for size in moved.shape[1:]:
        width = width * size
    return moved.reshape((moved.shape[0], width))


def _index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, alpha: Any) -> Tensor | None:
    if not isinstance(alpha, int | float) or alpha != 1:
        scaled = source * alpha
        return _record("index_add", input, dim, index, scaled.to(source.dtype), 1)
    if not input.ndim or source.ndim != input.ndim or index.ndim != 1:
        made = _record("index_add", input.reshape(-1), 0, index.reshape(-1), source.reshape(-1), 1)
        return made.reshape(tuple(input.shape))
    if _atomic(input.dtype):
        return None
    made = _fold_rows(_front(input, dim), _checked(index, input.shape[dim]), _front(source, dim))
    rest = [n for i, n in enumerate(input.shape) if i != dim]
    return made.reshape((input.shape[dim], *rest)).movedim(0, dim)


def _corner(source: Tensor, shape: Sequence[Any]) -> Tensor:
    for i, size in enumerate(shape):
        if source.shape[i] is not size:
            source = source.narrow(i, 0, size)
    return source


def _places(index: Tensor, dim: int, shape: Sequence[Any]) -> Tensor:
    """For each element of `index`, the position in an array of that shape that it names; -1 for none."""
    total: Any = None
    step: Any = 1
    for i in reversed(range(len(shape))):
        if i != dim:
            one = [1] * len(shape)
            one[i] = index.shape[i]
            part = _arange(index.shape[i], device=index.device).reshape(tuple(one)) * step
            total = part if total is None else total + part
        else:
            along = index * step
            total = along if total is None else total + along
        step = step * shape[i]
    inside = FUNCTIONS["logical_and"](index >= 0, index < shape[dim])
    return _where(inside, total, -1).reshape(-1)


def _scatter_add(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor | None:
    if not input.ndim or not index.ndim or not source.ndim:
        flat = (x if x.ndim else x.reshape(-1) for x in (input, index, source))
        one, at, given = flat
        return _record("scatter_add", one, 0, at, given).reshape(tuple(input.shape))
    if _atomic(input.dtype):
        return None
    return _scatter_fold(input, dim, index, source, "sum", True)


def _scatter_fold(input: Tensor, dim: int, index: Tensor, source: Tensor, combine: str, include: bool) -> Tensor:
    values = _corner(source, index.shape).reshape((-1, 1))
    made = _fold_rows(input.reshape((-1, 1)), _places(index, dim, input.shape), values, combine, include)
    return made.reshape(tuple(input.shape))


def _scatter_reduce(input: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, include: bool) -> Tensor:
    if not input.ndim or not index.ndim or not source.ndim:
        one, at, given = (x if x.ndim else x.reshape(-1) for x in (input, index, source))
        return _record("scatter_reduce", one, 0, at, given, reduce, include).reshape(tuple(input.shape))
    if reduce == "sum" and include:
        return _record("scatter_add", input, dim, index, source)
    return _scatter_fold(input, dim, index, source, reduce, include)


def _embedding_backward(g: Tensor, indices: Tensor, rows: Any, padding: int, by_frequency: bool) -> Tensor | None:
    flat = indices.reshape(-1)
    if by_frequency:
        ones = _full(g, flat.shape, 1, dtypes.int64)
        counts = _record("index_add", _full(g, (rows,), 0, dtypes.int64), 0, flat, ones, 1)
        shared = g.reshape((-1, g.shape[-1])) / _record("index_select", counts, 0, flat).unsqueeze(-1)
        return _record(
            "embedding_dense_backward", shared.to(g.dtype).reshape(tuple(g.shape)), indices, rows, padding, False
        )
    if _atomic(g.dtype):
        return None
    keys = _where(flat == padding, -1, flat) if padding >= 0 else flat
    return _fold_rows(_full(g, (rows, g.shape[-1]), 0), keys, g.reshape((-1, g.shape[-1])))


def _max_pool_backward(g: Tensor, indices: Tensor, sizes: Any, overlapping: Any, window: Any) -> Tensor | None:
    if window or _atomic(g.dtype):
        return None
    planes, plane = product(sizes[:-2]), sizes[-2] * sizes[-1]
    shape = (planes, g.shape[-2] * g.shape[-1])
    zeros = _full(g, (planes, plane), 0)
    return _record("scatter_add", zeros, 1, indices.reshape(shape), g.reshape(shape)).reshape(tuple(sizes))


def _index_put(input: Tensor, indices: tuple[Any, ...], values: Tensor, accumulate: bool) -> Tensor | None:
    places = [i for i, at in enumerate(indices) if at is not None]
    if not accumulate:
        return values.expand(tuple(input.shape)).clone() if not places else None
    if not places:
        return input + values
    common = FUNCTIONS["broadcast_tensors"](*(indices[i] for i in places))
    count = common[0].ndim
    first = places[0] if places[-1] - places[0] == len(places) - 1 else 0
    kept = [i for i in range(input.ndim) if i not in places]
    sizes = [input.shape[i] for i in places]
    rest = [input.shape[i] for i in kept]
    shape = (*rest[:first], *common[0].shape, *rest[first:])
    wide = values.expand(shape).movedim(tuple(range(first, first + count)), tuple(range(count)))
    row: Any = None
    inside: Any = None
    for at, size in zip(common, sizes, strict=True):
        own = _checked(at, size)
        valid = own >= 0
        row, inside = (own, valid) if row is None else (row * size + own, FUNCTIONS["logical_and"](inside, valid))
    rows, width = product(sizes), product(rest)
    front = input.permute((*places, *kept)).reshape((rows, width))
    keys = _where(inside, row, -1).reshape(-1)
    made = _record("index_add", front, 0, keys, wide.reshape((product(common[0].shape), width)), 1)
    back = sorted(range(input.ndim), key=[*places, *kept].__getitem__)
    return made.reshape((*sizes, *rest)).permute(tuple(back))


# -- moves ------------------------------------------------------------------------------------------------------------


def _index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    size = input.shape[dim] if input.ndim else 1
    hit = _record("scatter", _full(input, (size,), False, dtypes.bool_), 0, _checked(index.reshape(-1), size), True)
    shape = [1] * input.ndim
    if input.ndim:
        shape[dim] = size
    filler = value.to(input.dtype) if hasattr(value, "dtype") else value
    return _where(hit.reshape(tuple(shape)), filler, input)


def _index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    indices = (*[None] * dim, index.reshape(-1))
    one = input if input.ndim else input.reshape(-1)
    return _record("index_put", one, indices, source if source.ndim else source.reshape(-1), False).reshape(
        tuple(input.shape)
    )


def _of_scalars(name: str) -> Callable[..., Tensor | None]:
    """Gathers along a dimension of a number, as of a vector of one."""

    def rule(input: Tensor, dim: int, index: Tensor, *rest: Any) -> Tensor | None:
        if input.ndim and (index.ndim or name == "index_select"):
            return None
        shape = tuple(index.shape) if name == "gather" else tuple(input.shape)
        one = input if input.ndim else input.reshape(-1)
        return _record(name, one, 0, index.reshape(-1), *rest).reshape(shape)

    return rule


def _scatter(input: Tensor, dim: int, index: Tensor, source: Any) -> Tensor | None:
    if input.ndim and index.ndim:
        return None
    given = source.reshape(-1) if hasattr(source, "reshape") and not source.ndim else source
    one, at = (x if x.ndim else x.reshape(-1) for x in (input, index))
    return _record("scatter", one, 0, at, given).reshape(tuple(input.shape))


def _cat(tensors: tuple[Tensor, ...], dim: int) -> Tensor | None:
    of = {t.dtype for t in tensors}
    if len(of) == 1:
        return None
    common = tensors[0].dtype
    for t in tensors[1:]:
        common = dtypes.promote_types(common, t.dtype)
    return _record("cat", tuple(t.to(common) for t in tensors), dim)


def _ranks(mask: Tensor) -> Tensor:
    """How many true elements come before each, in row-major order."""
    return mask.reshape(-1).to(dtypes.int64).cumsum(0) - 1


def _masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    shape = tuple(FUNCTIONS["broadcast_tensors"](input, mask)[0].shape)
    where = mask.expand(shape).reshape(-1)
    if type(n := product(source.shape)) is int and n == 0:
        return input.expand(shape).clone()
    taken = _record("index_select", source.reshape(-1), 0, _ranks(where).clamp(min=0))
    return _where(where, taken, input.expand(shape).reshape(-1)).reshape(shape)


def _masked_scatter_backward(g: Tensor, mask: Tensor, sizes: Any) -> Tensor:
    where = mask.expand(tuple(g.shape)).reshape(-1)
    to = _where(where, _ranks(where), -1)
    return _record("scatter", _full(g, (product(sizes),), 0), 0, to, g.reshape(-1)).reshape(tuple(sizes))


def _nonzero_static(input: Tensor, size: Any, fill: int) -> Tensor:
    if not input.ndim:
        return _full(input, (size, 0), fill, dtypes.int64)
    there = (input != 0).reshape(-1)
    to = _where(there, _ranks(there), -1)
    n = product(input.shape)
    found = _record("scatter", _full(input, (size,), -1, dtypes.int64), 0, to, _arange(n, device=input.device))
    columns = []
    step: Any = 1
    for extent in reversed(input.shape):
        columns.append(_where(found >= 0, (found // step) % extent, fill))
        step = step * extent
    return FUNCTIONS["stack"](columns[::-1], 1)


def _repeat_positions(repeats: Tensor, size: Any) -> Tensor:
    ends = repeats.reshape(-1).to(dtypes.int64).cumsum(0)
    return _record("searchsorted", ends, _arange(size, device=repeats.device), False, True)


def _as_strided_scatter(input: Tensor, source: Tensor, size: Any, stride: Any, offset: Any, own: Any) -> Tensor | None:
    if not _row_major(input.shape, own):
        return None
    at = _strided_places(source, size, stride, offset).reshape(-1)
    return _record("scatter", input.reshape(-1), 0, at, source.reshape(-1)).reshape(tuple(input.shape))


def _as_strided_backward(g: Tensor, shape: Any, size: Any, stride: Any, offset: Any, own: Any) -> Tensor | None:
    if not _row_major(shape, own):
        return None
    at = _strided_places(g, size, stride, offset).reshape(-1)
    return _record("scatter_add", _full(g, (product(shape),), 0), 0, at, g.reshape(-1)).reshape(tuple(shape))


def _strided_places(like: Tensor, size: Any, stride: Any, offset: Any) -> Tensor:
    total = _full(like, (1,) * len(size), offset, dtypes.int64)
    for i, (n, s) in enumerate(zip(size, stride, strict=True)):
        total = total + (_arange(n, device=like.device) * s).reshape((n,) + (1,) * (len(size) - 1 - i))
    return total


def _row_major(shape: Any, strides: Any) -> bool:
    step: Any = 1
    for n, s in zip(reversed(shape), reversed(strides), strict=True):
        if not (type(n) is int and n == 1) and (type(s) is not int or type(step) is not int or s != step):
            return False
        step = step * n
    return True


def _scan_of_scalar(name: str) -> Callable[..., Any]:
    """A running fold of a number, as of a vector of one."""

    def rule(input: Tensor, dim: int, *rest: Any) -> Any:
        if input.ndim:
            return None
        made = _record(name, input.reshape(-1), 0, *rest)
        return tuple(m.reshape(()) for m in made) if isinstance(made, tuple) else made.reshape(())

    return rule


# -- orders -----------------------------------------------------------------------------------------------------------


def _sort(input: Tensor, dim: int, descending: bool, stable: bool) -> Any:
    if input.ndim:
        return None
    return input.clone(), _full(input, (), 0, dtypes.int64)


def _topk(input: Tensor, k: Any, dim: int, largest: bool, ordered: bool) -> Any:
    if not input.ndim:
        return _sort(input, 0, False, True)
    return tuple(part.narrow(dim, 0, k) for part in _record("sort", input, dim, largest, True))


def _chosen(input: Tensor, dim: int, keepdim: bool, place: Any) -> Any:
    """The element of each sorted row at a place (a number, or one a row), and where it was."""
    if not input.ndim:
        return _sort(input, 0, False, True)
    parts = _record("sort", input, dim, False, True)
    if not hasattr(place, "ndim"):
        found = tuple(part.narrow(dim, place, 1) for part in parts)
    else:
        found = tuple(_record("gather", part, dim, place, False) for part in parts)
    return found if keepdim else tuple(f.squeeze(dim) for f in found)


def _kthvalue(input: Tensor, k: Any, dim: int, keepdim: bool) -> Any:
    return _chosen(input, dim, keepdim, k - 1)


def _median_dim(ignore_nan: bool) -> Callable[..., Any]:
    def rule(input: Tensor, dim: int, keepdim: bool) -> Any:
        if not input.ndim or not input.dtype.is_floating_point:
            return _chosen(input, dim, keepdim, (input.shape[dim] - 1) // 2 if input.ndim else 0)
        size = input.shape[dim]
        missing = input.isnan().sum(dim, keepdim=True)
        if ignore_nan:
            place = ((size - missing - 1) // 2).clamp(min=0)
        else:
            place = _where(missing > 0, size - missing, (size - 1) // 2)
        return _chosen(input, dim, keepdim, place)

    return rule


def _median(ignore_nan: bool) -> Callable[..., Tensor | None]:
    def rule(input: Tensor) -> Tensor | None:
        count = product(input.shape)
        if type(count) is int and count == 0:
            return None
        found: Tensor = _median_dim(ignore_nan)(input.reshape(-1), 0, False)[0]
        return found

    return rule


def _mode(input: Tensor, dim: int, keepdim: bool) -> Any:
    if not input.ndim:
        return _sort(input, 0, False, True)
    ordered, order = _record("sort", input, dim, False, True)
    size = input.shape[dim]
    shape = [1] * input.ndim
    shape[dim] = size
    steps = _arange(size, device=input.device).reshape(tuple(shape)).expand(tuple(input.shape))
    before = _record("index_select", ordered, dim, (_arange(size, device=input.device) - 1).clamp(min=0))
    starts = FUNCTIONS["logical_or"](steps == 0, ordered != before)
    begun = _record("cummax", _where(starts, steps, 0), dim)[0]
    last = (steps - begun).argmax(dim, keepdim=True)
    found = tuple(_record("gather", part, dim, last, False) for part in (ordered, order))
    return found if keepdim else tuple(f.squeeze(dim) for f in found)


def _isin(elements: Any, tests: Any, unique: bool, invert: bool) -> Tensor | None:
    if not hasattr(tests, "shape"):
        found = elements == tests
        return found.logical_not() if invert else found
    if not hasattr(elements, "shape"):
        found = (tests == elements).any()
        return found.logical_not() if invert else found
    count = product(tests.shape)
    if type(count) is int and count == 0:
        return None
    common = dtypes.promote_types(elements.dtype, tests.dtype)
    given = elements.to(common)
    ordered = _record("sort", tests.to(common).reshape(-1), 0, False, True)[0]
    at = _record("searchsorted", ordered, given.reshape(-1), False, False).clamp(max=count - 1)
    found = _record("index_select", ordered, 0, at).reshape(tuple(elements.shape)) == given
    return found.logical_not() if invert else found


def _histc(input: Tensor, bins: int, low: Any, high: Any) -> Tensor | None:
    count = product(input.shape)
    if not isinstance(low, int | float) or not isinstance(high, int | float) or type(count) is not int or not count:
        return None
    flat = input.reshape(-1)
    least, most = _full(flat, (), low), _full(flat, (), high)
    if low == high:
        least, most = flat.amin(), flat.amax()
    same = least == most
    least, most = _where(same, least - 1, least), _where(same, most + 1, most)
    inside = FUNCTIONS["logical_and"](flat >= least, flat <= most)
    place = ((flat - least) / (most - least) * bins).to(dtypes.int64).clamp(max=bins - 1)
    counts = _full(flat, (bins,), 0, dtypes.int64)
    keys = _where(inside, place, -1)
    return _record("index_add", counts, 0, keys, _full(flat, (count,), 1, dtypes.int64), 1).to(input.dtype)


# -- random -----------------------------------------------------------------------------------------------------------


def _randperm(n: Any, of: Any, device: Any, generator: Any) -> Tensor:
    keys = _record("random_full", FUNCTIONS["empty"]((n,), dtype=dtypes.int64, device=device), generator)
    return _record("sort", keys, 0, False, True)[1].to(of)


def _multinomial(probabilities: Tensor, count: Any, replacement: bool, generator: Any) -> Tensor:
    wide = probabilities if probabilities.dtype is dtypes.float64 else probabilities.to(dtypes.float32)
    if not replacement or (type(count) is int and count == 1):
        # Each category rings after an exponential time: the earliest are the sample.
        speed = wide / _record("exponential", FUNCTIONS["empty_like"](wide), 1.0, generator)
        if type(count) is int and count == 1:
            return speed.argmax(-1, keepdim=True)
        return _record("topk", speed, count, wide.ndim - 1, True, True)[1]
    total = wide.cumsum(-1)
    size = wide.shape[-1]
    total = total / total.narrow(-1, size - 1, 1)
    draws = _record("rand", (*wide.shape[:-1], count), wide.dtype, wide.device, generator)
    return _record("searchsorted", total, draws, False, True).clamp(max=size - 1)


RULES: dict[str, Callable[..., Any]] = {
    "index_add": _index_add,
    "scatter_add": _scatter_add,
    "scatter_reduce": _scatter_reduce,
    "embedding_dense_backward": _embedding_backward,
    "max_pool2d_backward": _max_pool_backward,
    "index_put": _index_put,
    "index_fill": _index_fill,
    "index_copy": _index_copy,
    "index_select": _of_scalars("index_select"),
    "gather": _of_scalars("gather"),
    "scatter": _scatter,
    "cat": _cat,
    "masked_scatter": _masked_scatter,
    "masked_scatter_backward": _masked_scatter_backward,
    "nonzero_static": _nonzero_static,
    "repeat_interleave_positions": _repeat_positions,
    "as_strided_scatter": _as_strided_scatter,
    "as_strided_backward": _as_strided_backward,
    **{n: _scan_of_scalar(n) for n in ("cumsum", "cumprod", "cummax", "cummin", "logcumsumexp")},
    "sort": _sort,
    "topk": _topk,
    "kthvalue": _kthvalue,
    "median": _median(False),
    "nanmedian": _median(True),
    "median_dim": _median_dim(False),
    "nanmedian_dim": _median_dim(True),
    "mode": _mode,
    "isin": _isin,
    "histc": _histc,
    "randperm": _randperm,
    "multinomial": _multinomial,
}
