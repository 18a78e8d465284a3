"""Indexing with brackets: `x[...]` and `x[...] = v`, and the records `index` and `index_put` behind integer tensors.

Ints, slices, None and Ellipsis become view operators; integer tensors become one `index` (or `index_put_`) over the
view. A bool mask is read where it is used and becomes the integer positions of its true elements, because the shape of
the result depends on it; only writing one value for all of them, as `x[mask] = number` does, needs no positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

import numpy as np

from graphtorch.autograd.graph import composes
from graphtorch.autograd.state import modes_entered, state
from graphtorch.ops.build import FUNCTIONS, function, method, operator
from graphtorch.ops.dispatch import _SCALAR_NAMES, check_single_places, make_view
from graphtorch.ops.pointwise import broadcast_shapes
from graphtorch.ops.record import OPAQUE, lookup, sample
from graphtorch.ops.shaping import reshape
from graphtorch.ops.strides import contiguous_strides, laid_out, pointwise_strides
from graphtorch.ops.view import check_expand, expand, select, slice_, unsqueeze
from graphtorch.tensor import dtypes
from graphtorch.tensor.devices import CPU
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType, type_of

# -- index and index_put ----------------------------------------------------------------------------------------------


def _check_indices(input: Any, indices: tuple[Any, ...]) -> None:
    if len(indices) > len(input.shape):
        raise IndexError(f"too many indices for tensor of dimension {len(input.shape)} (got {len(indices)})")
    for index in indices:
        if index is not None and index.dtype not in (dtypes.int64, dtypes.int32, dtypes.uint8):
            raise IndexError("tensors used as indices must be long, int, byte or bool tensors")
    for size, index in zip(input.shape, indices, strict=False):
        empty = index is None or any(type(n) is int and n == 0 for n in index.shape)
        if type(size) is int and size == 0 and not empty:
            raise IndexError("index is out of bounds for dimension with size 0")


def indexed_shape(shape: Sequence[Any], indices: tuple[Any, ...]) -> tuple[Any, ...]:
    """The shape of `input[indices]`.

    The broadcast index dimensions stand where the indexed dimensions stood if those are neighbours, else first.
    Raises IndexError for indices that don't broadcast.
    """
    places = [i for i, index in enumerate(indices) if index is not None]
    if not places:
        return tuple(shape)
    try:
        common = broadcast_shapes(*(indices[i].shape for i in places))
    except RuntimeError:
        shapes = ", ".join(str(list(indices[i].shape)) for i in places)
        raise IndexError(
            f"shape mismatch: indexing tensors could not be broadcast together with shapes {shapes}"
        ) from None
    rest = [n for i, n in enumerate(shape) if i not in places]
    at = places[0] if places[-1] - places[0] == len(places) - 1 else 0
    return (*rest[:at], *common, *rest[at:])


def _index_type(input: Any, indices: tuple[Any, ...]) -> TensorType:
    _check_indices(input, indices)
    return type_of(input).with_shape(indexed_shape(tuple(input.shape), indices))


def _key(indices: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(slice(None) if index is None else index for index in indices)


def _translated(error: IndexError) -> IndexError:
    """NumPy's complaint in PyTorch's words."""
    return IndexError(str(error).replace("axis", "dimension"))


def _index_numpy(input: Any, indices: tuple[Any, ...]) -> Any:
    try:
        if len(indices) == 1 and indices[0] is not None and indices[0].dtype == np.int64 and input.flags.c_contiguous:
            return input.take(indices[0], 0)
        found = np.array(input[_key(indices)], order="C")
    except IndexError as error:
        raise _translated(error) from None
    if found.ndim < 2 or not found.size or input.flags.c_contiguous:
        return found
    return laid_out(found, _index_strides(found.shape, input, indices))


def _index_strides(shape: tuple[int, ...], input: Any, indices: tuple[Any, ...]) -> tuple[int, ...]:
    """The strides of PyTorch's result: the indexed dimensions step as the indices do, the others as the input's."""
    if input.flags.c_contiguous:
        return contiguous_strides(shape)
    places = [i for i, index in enumerate(indices) if index is not None]
    given = np.broadcast_arrays(*(indices[i] for i in places))
    first = places[0] if places[-1] - places[0] == len(places) - 1 else 0
    own = [s // input.itemsize for i, s in enumerate(input.strides) if i not in places]
    common = given[0].ndim
    rest = [0] * (len(shape) - first - common)
    layouts = [(shape, (*own[:first], *[0] * common, *own[first:]))]
    for index in given:
        steps = [s // index.itemsize for s in index.strides]
        layouts.append((shape, (*[0] * first, *steps, *rest)))
    return pointwise_strides(shape, layouts)


def _index_samples(make: Any) -> Any:
    yield sample(make(5, 3), (make.ints(4, low=-5, high=5),))
    yield sample(make(5, 3), (None, make.ints(2, 2, high=3)))
    yield sample(make(4, 3, 5), (make.ints(2, 1, high=4), make.ints(3, high=3)))
    yield sample(make(4, 3, 5), (make.ints(2, high=4), None, make.ints(2, high=5)))
    yield sample(make(4, 3), (make.ints(high=4),))


index: Callable[..., Tensor] = operator(
    "index(Tensor input, Tensor?[] indices)",
    order={"result": _index_strides},
    type=_index_type,
    numpy=_index_numpy,
    kind=OPAQUE,
    derivative={
        "input": lambda g, input_type, indices: index_put(g.new_zeros(input_type.shape), indices, g, True),
    },
    # Not a view, but a capture treats `x[i]` with a tensor `i` of no dimension as one.
    scatter=lambda base, inner, indices: index_put(base, indices, inner),
    samples=_index_samples,
    categories="bifc",
    doc="`input[indices]` with integer tensors; None stands for a whole dimension.",
    public=False,
    method=False,
)


def add_rows(target: Any, rows: Any, values: Any) -> None:
    """`target[rows[i]] += values[i]` for a 2-D `target`, in the order of i where rows repeat.

    Sorting by row and summing runs is several times faster than `np.add.at` on whole rows. Half-precision values
    accumulate in float32.
    """
    if not rows.size or not target.size:
        return
    if target.dtype.itemsize == 2 and target.dtype.kind not in "iu":
        wide = target.astype(np.float32)
        add_rows(wide, rows, values.astype(np.float32))
        target[...] = wide.astype(target.dtype)
        return
    if target.shape[1] == 1:
        np.add.at(target.reshape(-1), rows, values.reshape(-1))
        return
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    add = np.logical_or if target.dtype == np.bool_ else np.add
    target[ordered[starts]] = add(target[ordered[starts]], add.reduceat(values[order], starts, axis=0))


def _index_put_numpy(input: Any, indices: tuple[Any, ...], values: Any, accumulate: bool) -> Any:
    result = np.array(input, order="K")
    try:
        if not accumulate:
            result[_key(indices)] = values
            return result
        places = [i for i, at in enumerate(indices) if at is not None]
        if not places:
            return result + values
        shape = indexed_shape(input.shape, indices)
        common = np.broadcast_shapes(*(indices[i].shape for i in places))
        first = places[0] if places[-1] - places[0] == len(places) - 1 else 0
        wide = np.broadcast_to(values, shape)
        # Indexed dimensions to the front on both sides, so that the rest of each position is one row.
        wide = np.moveaxis(wide, range(first, first + len(common)), range(len(common)))
        kept = [i for i in range(input.ndim) if i not in places]
        front = np.ascontiguousarray(result.transpose(places + kept))
        sizes = [input.shape[i] for i in places]
        at_each = []
        for i, size in zip(places, sizes, strict=True):
            at = np.broadcast_to(indices[i], common).astype(np.int64)
            bad = (at < -size) | (at >= size)
            if bad.any():
                raise IndexError(f"index {at[bad][0]} is out of bounds for dimension {i} with size {size}")
            at_each.append(np.where(at < 0, at + size, at))
        rows = np.zeros(common, np.int64)
        for at, size in zip(at_each, sizes, strict=True):
            rows = rows * size + at
        width = front.size // max(int(np.prod(sizes)), 1)
        flat = front.reshape(-1, width) if width else front.reshape(0, 1)
        add_rows(flat, rows.reshape(-1), np.ascontiguousarray(wide).reshape(-1, width) if width else wide)
        return np.ascontiguousarray(front.transpose(np.argsort(places + kept)))
    except IndexError as error:
        raise _translated(error) from None


def _index_put_type(input: Any, indices: tuple[Any, ...], values: Any, accumulate: bool) -> TensorType:
    _check_indices(input, indices)
    if values.dtype is not input.dtype:
        raise RuntimeError(
            "Index put requires the source and destination dtypes match, got "
            f"{_SCALAR_NAMES[input.dtype.name]} for the destination and {_SCALAR_NAMES[values.dtype.name]} for the "
            "source."
        )
    shape = indexed_shape(tuple(input.shape), indices)
    given = tuple(values.shape)
    for own, wanted in zip(reversed(given), reversed(shape), strict=False):
        if own is not wanted and own != 1 and own != wanted:
            break
    else:
        if len(given) <= len(shape):
            return type_of(input)
    raise RuntimeError(
        f"shape mismatch: value tensor of shape {list(given)} cannot be broadcast to indexing result of shape "
        f"{list(shape)}"
    )


def _positions_only(indices: Sequence[Any], input: Any) -> tuple[Any, ...]:
    """Masks replaced by the positions of their true elements, and trailing Nones dropped. Indices on the host go to
    where the tensor is."""
    found: list[Any] = []
    for each in indices:
        if each is not None and each.dtype in (dtypes.bool_, dtypes.uint8):
            _check_mask(each, tuple(input.shape), len(found))
            found.extend(positions(each))
        else:
            found.append(each)
    while found and found[-1] is None:
        found.pop()
    return _beside(found, input)


def _beside(indices: Sequence[Any], input: Any) -> tuple[Any, ...]:
    """Indices on the host moved to the CUDA device of what they index."""
    if input.device.type != "cuda":
        return tuple(indices)
    return tuple(i if i is None or i.device is not CPU else i.to(input.device) for i in indices)


index_put: Callable[..., Tensor] = operator(
    "index_put(Tensor input, Tensor?[] indices, Tensor values, bool accumulate=False)",
    order={"result": "input"},
    type=_index_put_type,
    numpy=_index_put_numpy,
    kind=OPAQUE,
    derivative={
        "input": lambda g, indices, values_type, accumulate: (
            g if accumulate else index_put(g, indices, g.new_zeros(values_type.shape), False)
        ),
        "values": lambda g, indices: index(g, indices),
    },
    normalize=lambda input, indices, values, accumulate: (
        input,
        _positions_only(indices, input),
        values,
        accumulate,
    ),
    samples=lambda make: [
        sample(make(5, 3), (make.ints(4, low=-5, high=5),), make(4, 3), True),
        sample(make(4, 3, 5), (None, make.ints(2, 1, high=3), make.ints(3, high=5)), make(4, 2, 3), True),
        sample(make(4, 3, 5), (make.ints(2, high=4), None, make.ints(2, high=5)), make(2, 3), True),
        sample(make(5, 3), (Tensor._wrap(np.array([3, 0, 4])),), make(3)),
        sample(make(5, 3), (Tensor._wrap(np.array([3, 0])), Tensor._wrap(np.array([1, 1]))), make(1)),
    ],
    categories="ifc",
    doc="`input` with the elements at `indices` replaced by (or increased by) `values`.",
    inplace=True,
)


# -- masks ------------------------------------------------------------------------------------------------------------


class _KnownMask:
    """A mask that the caller gave as an array or a list: its elements are known even while a function is captured."""

    dtype = dtypes.bool_

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.array = array
        self.shape = array.shape
        self.ndim = array.ndim


def positions(mask: Tensor | _KnownMask) -> tuple[Tensor, ...]:
    """The positions of the true (nonzero) elements, one int64 vector a dimension. Reads the mask."""
    if state.recorder is not None and not isinstance(mask, _KnownMask):
        found: tuple[Tensor, ...] = nonzero(reshape(mask, (1,)) if mask.ndim == 0 else mask).unbind(1)
        return found
    array = mask.array if isinstance(mask, _KnownMask) else mask._host("nonzero()")
    wrap = Tensor._wrap if isinstance(mask, _KnownMask) else mask._beside
    return tuple(wrap(at) for at in np.array(np.nonzero(np.atleast_1d(array))))


def _check_mask(mask: Any, shape: Sequence[Any], at: int) -> None:
    for i, n in enumerate(mask.shape):
        if at + i >= len(shape):
            raise IndexError(f"too many indices for tensor of dimension {len(shape)}")
        if n != shape[at + i]:
            raise IndexError(
                f"The shape of the mask {list(mask.shape)} at index {i} does not match the shape of the indexed tensor "
                f"{list(shape)} at index {at + i}"
            )


@function(method=True)
def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """The positions of nonzero elements, one a row, or one vector a dimension with `as_tuple`. See torch.nonzero."""
    if as_tuple:
        return positions(input)
    if state.recorder is not None:
        # How many there are is a decision on the data; which these are is not.
        count = state.recorder.data_size(FUNCTIONS["count_nonzero"](input))
        made: Tensor = FUNCTIONS["nonzero_static"](input, size=count)
        keep_order = getattr(state.recorder, "keep_order", None)
        if keep_order is not None and input.ndim > 1:
            keep_order(made, made.t())  # column by column, as eager execution finds them
        return made
    array = input._host("nonzero()")
    return input._beside(np.argwhere(array) if array.ndim else np.empty((int(array != 0), 0), np.int64))


@function(method=True)
def argwhere(input: Tensor) -> Tensor:
    """The positions of nonzero elements, one a row. See torch.argwhere."""
    found: Tensor = nonzero(input)
    return found


@function(method=True)
@composes("MaskedSelectBackward0")
def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The elements where `mask` is true, as a vector. See torch.masked_select."""
    if mask.dtype is not dtypes.bool_:
        raise RuntimeError("masked_select: expected BoolTensor for mask")
    shape = broadcast_shapes(input.shape, mask.shape)
    wide = reshape(expand(input, shape), (-1,)) if shape else reshape(input, (1,))
    return index(wide, positions(reshape(expand(mask, shape), (-1,))))


@function(method=True)
def take(input: Tensor, index: Tensor) -> Tensor:
    """Elements by their position in row-major order. See torch.take."""
    return _index_flat(reshape(input, (-1,)), index)


def _index_flat(flat: Tensor, at: Tensor) -> Tensor:
    try:
        return index(flat, (at,))
    except IndexError as error:
        raise IndexError(
            str(error).replace("index ", "out of range: tried to access index ", 1).split(" is out of bounds")[0]
            + f" on a tensor of {flat.shape[0]} elements."
        ) from None


# -- x[...] -----------------------------------------------------------------------------------------------------------


_SELECT = lookup("select")


def _position(value: Any) -> Any:
    """A slice bound as an int (a one-element tensor is read); None and symbolic sizes stay."""
    if value is None or type(value) is int or getattr(value, "is_symbolic_int", False):
        return value
    try:
        return value.__index__()
    except (AttributeError, TypeError):
        raise TypeError("slice indices must be integers or None or have an __index__ method") from None


def _select(input: Tensor, dim: int, at: Any, given: int) -> Tensor:
    """One index of a dimension; `given` is that dimension's place in the key, for messages."""
    if not input.ndim:
        raise IndexError(
            "invalid index of a 0-dim tensor. Use `tensor.item()` in Python or `tensor.item<T>()` in C++ to convert a "
            "0-dim tensor to a number"
        )
    if dim >= input.ndim:
        raise IndexError(f"too many indices for tensor of dimension {input.ndim}")
    size = input.shape[dim]
    if at >= size or at < -size:
        raise IndexError(f"index {at} is out of bounds for dimension {given} with size {size}")
    return select(input, dim, at)


def _is_int(item: Any) -> bool:
    return (isinstance(item, int | np.integer) and not isinstance(item, bool)) or getattr(
        item, "is_symbolic_int", False
    )


def _is_integral(item: Tensor) -> bool:
    return item.dtype.category == dtypes.INTEGRAL


def _as_index(item: Any) -> Any:
    """Lists and arrays as index tensors or masks."""
    if isinstance(item, Tensor):
        return item
    if isinstance(item, list | tuple | range) and any(isinstance(each, Tensor) for each in item):
        return FUNCTIONS["stack"](tuple(_as_index(each) for each in item))
    array = np.asarray(item)
    if array.dtype.kind not in "biu" and array.size:
        raise IndexError("tensors used as indices must be long, int, byte or bool tensors")
    return _KnownMask(array) if array.dtype.kind == "b" else Tensor._wrap(array.astype(np.int64, copy=False))


def _dims_of(item: Any) -> int:
    """How many dimensions of the tensor an item of the key consumes."""
    if item is None or item is Ellipsis or isinstance(item, bool | np.bool_):
        return 0
    if isinstance(item, Tensor | _KnownMask) and item.dtype in (dtypes.bool_, dtypes.uint8):
        return item.ndim
    return 1


def _view_of(input: Tensor, key: Any) -> tuple[Tensor, list[Any]]:
    """The view that the basic part of a key selects, and what is left for `index`: a tensor or None a dimension."""
    items = list(key) if isinstance(key, tuple) else [key]
    for i, item in enumerate(items):
        if isinstance(item, list | np.ndarray | range | tuple):
            items[i] = _as_index(item)
    total, rank = sum(_dims_of(item) for item in items), input.ndim
    if total > rank:
        if rank == 0 and any(_is_int(item) for item in items):
            _select(input, 0, 0, 0)
        raise IndexError(f"too many indices for tensor of dimension {rank}")
    result, dim, place = input, 0, 0
    indices: list[Any] = []

    def put(tensor: Tensor | _KnownMask, spanned: int) -> None:
        nonlocal dim
        indices.extend([None] * (dim - len(indices)))
        indices.append(tensor)
        dim += spanned

    seen_ellipsis = False
    for item in items:
        if item is None:
            result = unsqueeze(result, dim)
            dim += 1
        elif item is Ellipsis:
            if not seen_ellipsis:
                dim += rank - total
                place += rank - total
            seen_ellipsis = True
        elif isinstance(item, slice):
            step = 1 if item.step is None else _position(item.step)
            if step <= 0:
                raise ValueError("step must be greater than zero")
            start, stop = _position(item.start), _position(item.stop)
            if start is not None or stop is not None or step != 1:
                result = slice_(result, dim, start, stop, step)
            dim += 1
            place += 1
        elif isinstance(item, bool | np.bool_):
            result = unsqueeze(result, dim)
            put(Tensor._wrap(np.zeros(1 if item else 0, np.int64)), 1)
        elif isinstance(item, Tensor | _KnownMask):
            if item.ndim == 0 and item.dtype in (dtypes.bool_, dtypes.uint8):
                result = unsqueeze(result, dim)
                put(Tensor._wrap(item.array.reshape(1)) if isinstance(item, _KnownMask) else reshape(item, (1,)), 1)
            elif _is_position(item) and state.recorder is None:
                result = _select(result, dim, int(item), place)
                place += 1
            else:
                spanned = _dims_of(item)
                if spanned != 1 or item.dtype is dtypes.bool_:
                    _check_mask(item, tuple(result.shape), dim)
                put(item, 1)
                # A mask of several dimensions keeps its one place here; `index` is given a vector for each of them.
                indices.extend([None] * (spanned - 1))
                dim += spanned - 1
                place += spanned
        elif _is_int(item):
            result = _select(result, dim, item if not isinstance(item, np.integer) else int(item), place)
            place += 1
        elif isinstance(item, str):
            raise TypeError("new(): invalid data type 'str'")
        else:
            raise IndexError(
                "only integers, slices (`:`), ellipsis (`...`), None and long or byte Variables are valid indices (got "
                f"{type(item).__name__})"
            )
    return result, indices


def _is_position(item: Any) -> TypeGuard[Tensor]:
    """Whether a part of a key is one position given as a tensor."""
    return isinstance(item, Tensor) and item.ndim == 0 and _is_integral(item)


def _with_positions(indices: list[Any], input: Tensor) -> tuple[Any, ...]:
    """Masks replaced by positions; each takes the places of the dimensions that it spans. Indices on the host go to
    where the tensor is."""
    found: list[Any] = list(indices)
    for i, item in enumerate(indices):
        if item is not None and item.dtype in (dtypes.bool_, dtypes.uint8):
            found[i : i + item.ndim] = positions(item)
    return _beside(found, input)


@method("__getitem__")
def getitem(self: Tensor, key: Any) -> Tensor:
    """A view for ints, slices, None and Ellipsis; a copy for tensors, lists and masks.

    Raises IndexError for positions out of range and ValueError for negative steps. See PyTorch's indexing rules, which
    are NumPy's except that bools in the key are masks of no dimension.
    """
    if type(key) is int:
        data = self._data
        seen = state.recorder is not None or modes_entered
        if type(data) is np.ndarray and not seen and data.ndim and -data.shape[0] <= key < data.shape[0]:
            at = key if key >= 0 else key + data.shape[0]
            return make_view(_SELECT, (self, 0, at), data[at, ...])
        return _select(self, 0, key, 0)
    result, indices = _view_of(self, key)
    if indices:
        return index(result, _with_positions(indices, result))
    return result if result is not self else _alias(self)


def _alias(input: Tensor) -> Tensor:
    """A new tensor over the same elements, as `x[...]` gives."""
    return slice_(input, 0, None, None, 1) if input.ndim else expand(input, ())


@method("__setitem__")
def setitem(self: Tensor, key: Any, value: Any) -> None:
    """Write into the elements that `self[key]` shows; `value` is broadcast.

    Raises as `__getitem__` does, and RuntimeError for a value that doesn't broadcast.
    """
    result, indices = _view_of(self, key)
    if isinstance(value, np.ndarray | np.generic):
        value = self._beside(np.asarray(value))
    if not isinstance(value, Tensor) and not isinstance(value, int | float | complex) and not _is_int(value):
        raise TypeError(f"can't assign a {type(value).__name__} to a torch.{_SCALAR_NAMES[self.dtype.name]}Tensor")
    if indices and state.recorder is not None and all(i is None or _is_position(i) for i in indices):
        # What eager execution selects here; the recorder takes it for the view that it is.
        result, indices = index(result, tuple(indices)), []
    if not indices:
        if isinstance(value, Tensor):
            value = _without_leading_ones(value, result.ndim)
            check_expand(value, tuple(result.shape))
            result.copy_(value)
        else:
            if result.ndim:
                check_single_places(result)  # as for a tensor in the number's place; a single element may be written
            result.fill_(value)
        return
    if _write_where(result, indices, value) or _write_one_by_one(result, indices, value):
        return
    found = _with_positions(indices, result)
    if not isinstance(value, Tensor):
        value = FUNCTIONS["full"]((), value, dtype=self.dtype, device=self.device)
    shape = indexed_shape(tuple(result.shape), found)
    result.index_put_(found, _without_leading_ones(value, len(shape)))


def _write_where(result: Tensor, indices: list[Any], value: Any) -> bool:
    """Write through a lone mask without counting its elements, where the value is the same for each of them."""
    given = [(at, index) for at, index in enumerate(indices) if index is not None]
    at, mask = given[0]
    if len(given) > 1 or mask.dtype is not dtypes.bool_:
        return False
    inner = result.ndim - at - mask.ndim
    if isinstance(value, Tensor) and (value.ndim > inner or value.dtype is not result.dtype):
        return False
    if isinstance(mask, _KnownMask):
        mask = Tensor._wrap(mask.array)
    if mask._device is not result._device:
        mask = mask.to(result._device)
    wide = reshape(mask, (*mask.shape, *(1 for _ in range(inner))))
    if isinstance(value, Tensor):
        check_expand(value, tuple(result.shape[result.ndim - inner :]))
        result.copy_(FUNCTIONS["where"](wide, value, result))
    else:
        result.masked_fill_(wide, value)
    return True


def _write_one_by_one(result: Tensor, indices: list[Any], value: Any) -> bool:
    """Write through a lone mask while a function is captured, where the value has a row for each of its elements.

    What is asked of the data is whether there are as many elements as rows, rather than how many: then one program
    serves all sizes of the value."""
    given = [(at, index) for at, index in enumerate(indices) if index is not None]
    at, mask = given[0]
    if state.recorder is None or len(given) > 1 or at or not isinstance(value, Tensor) or isinstance(mask, _KnownMask):
        return False
    inner = result.ndim - mask.ndim
    if mask.dtype is not dtypes.bool_ or not mask.ndim or value.ndim != inner + 1 or not value.shape[0] > 1:
        return False
    _check_mask(mask, result.shape, 0)
    rows = value.shape[0]
    if FUNCTIONS["count_nonzero"](mask) != rows:
        return False
    places = FUNCTIONS["nonzero_static"](mask, size=rows)
    result.index_put_(tuple(FUNCTIONS["unbind"](places, 1)), value)
    return True


def _without_leading_ones(value: Tensor, rank: int) -> Tensor:
    """PyTorch lets an assigned value have more dimensions than its place, if the surplus are of size 1."""
    surplus = value.ndim - rank
    if surplus > 0 and all(n == 1 for n in value.shape[:surplus]):
        return reshape(value, tuple(value.shape[surplus:]))
    return value
