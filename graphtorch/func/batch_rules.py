"""Batching rules of operators whose record does not say what a batch dimension does: views, products, convolutions,
pooling, scans, indexing. Importing this module registers them.

A rule gets the level, the operator and the arguments as the transformed function gave them, and runs one level further
out. `NotImplemented` asks for one call an element."""

from __future__ import annotations

from typing import Any

from graphtorch.func.batching import BatchLevel, rule, shift
from graphtorch.ops import dispatch
from graphtorch.ops.build import FUNCTIONS
from graphtorch.ops.indexing import indexed_shape
from graphtorch.ops.record import Operator, lookup
from graphtorch.ops.strides import contiguous_strides, product
from graphtorch.ops.view import expand
from graphtorch.tensor.tensor import Tensor


def _apply(name: str, *args: Any) -> Any:
    return dispatch.call(lookup(name), args)


def _merged(tensor: Tensor) -> Tensor:
    """The first two dimensions as one."""
    merged: Tensor = tensor.reshape((tensor.shape[0] * tensor.shape[1], *tensor.shape[2:]))
    return merged


def _split(tensor: Tensor, first: Any, second: Any) -> Tensor:
    """The inverse of `_merged`."""
    split: Tensor = tensor.reshape((first, second, *tensor.shape[1:]))
    return split


# -- views ------------------------------------------------------------------------------------------------------------


@rule("detach")
def _detach(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    return args[0]._data.tensor.detach()  # which is no call of an operator: no view of what has a history


@rule("permute")
def _permute(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    return dispatch.call(op, (args[0]._data.tensor, (0, *shift(args[1]))))


@rule("transpose")
def _transpose(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    inner = args[0]._data.tensor
    return inner if not args[0].shape else inner.transpose(args[1] + 1, args[2] + 1)


@rule("t")
def _t(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    inner = args[0]._data.tensor
    return inner.transpose(1, 2) if len(args[0].shape) == 2 else inner.view_as(inner)


@rule("expand")
def _expand(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    return expand(level.aligned(args[0], len(args[1])), (level.size, *args[1]))


@rule("view")
def _view(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    return args[0]._data.tensor.reshape((level.size, *args[1]))


@rule("squeeze", "flip")
def _several_dims(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    return dispatch.call(op, (args[0]._data.tensor, shift(args[1])))


@rule("fft_c2c", "fft_r2c", "fft_c2r", "unsqueeze")
def _first_attribute(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    return dispatch.call(op, (args[0]._data.tensor, shift(args[1]), *args[2:]))


@rule("slice", "select", "unfold", "cumsum", "cumprod", "logcumsumexp", "cummax", "cummin", "mode", "sort")
@rule("median_dim", "nanmedian_dim")
def _one_dim(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    return NotImplemented if not args[0].shape else _first_attribute(level, op, args)


@rule("kthvalue", "topk")
def _second_attribute(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    if not args[0].shape:
        return NotImplemented
    return dispatch.call(op, (args[0]._data.tensor, args[1], shift(args[2]), *args[3:]))


@rule("diagonal")
def _diagonal(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    return dispatch.call(op, (args[0]._data.tensor, args[1], args[2] + 1, args[3] + 1))


@rule("diagonal_scatter")
def _diagonal_scatter(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    input, src, offset, dim1, dim2 = args
    return dispatch.call(op, (level.physical(input), level.physical(src), offset, dim1 + 1, dim2 + 1))


@rule("diagonal_backward")
def _diagonal_backward(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    input, sizes, offset, dim1, dim2 = args
    return dispatch.call(op, (input._data.tensor, (level.size, *sizes), offset, dim1 + 1, dim2 + 1))


@rule("as_strided")
def _as_strided(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    input, size, stride, offset, input_stride = args
    inner = input._data.tensor.contiguous()
    own = contiguous_strides(tuple(input.shape))
    if tuple(input_stride) != tuple(own):
        return NotImplemented
    step = product(input.shape)
    return dispatch.call(op, (inner, (level.size, *size), (step, *stride), offset, (step, *own)))


@rule("slice_scatter", "select_scatter", "unfold_scatter", "gather", "scatter", "scatter_add", "scatter_reduce")
def _beside(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    """Operands of one rank, and a dim."""
    if not args[0].shape:
        return NotImplemented
    moved = [level.physical(a) if isinstance(a, Tensor) else a for a in args]
    at = next(i for i, p in enumerate(op.parameters) if p.name in ("dim", "dimension"))
    moved[at] += 1
    return dispatch.call(op, tuple(moved))


@rule("slice_backward", "select_backward", "unfold_backward")
def _into_zeros(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    return dispatch.call(op, (args[0]._data.tensor, (level.size, *args[1]), args[2] + 1, *args[3:]))


@rule("cat")
def _cat(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    if len({len(t.shape) for t in args[0]}) > 1:
        return NotImplemented  # an empty vector may stand among tensors of any rank
    return dispatch.call(op, (tuple(level.physical(t) for t in args[0]), args[1] + 1))


@rule("argmax", "argmin")
def _position(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    input, dims, keepdim = args
    inner = input._data.tensor
    if len(dims) == 1:
        return dispatch.call(op, (inner, shift(dims), keepdim))
    found = dispatch.call(op, (inner.reshape((level.size, -1)), (1,), False))
    return found.reshape((level.size, *(1 for _ in input.shape))) if keepdim else found


@rule("clone")
def _clone(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    input, memory_format = args
    inner = input._data.tensor
    if memory_format in ("channels_last", "channels_last_3d"):
        return _split(dispatch.call(op, (_merged(inner), memory_format)), level.size, input.shape[0])
    return dispatch.call(op, (inner, memory_format))


# -- writing ----------------------------------------------------------------------------------------------------------


@rule("copy")
def _copy(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    input, src = args[:2]
    return dispatch.call(op, (level.physical(input), level.aligned(src, len(input.shape)), *args[2:]))


@rule("fill")
def _fill(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    input, value = args
    if not isinstance(value, Tensor) or not level.is_batched(value):
        return dispatch.call(op, (level.physical(input), level.lower(value)))
    return _apply("copy", level.physical(input), level.aligned(value, len(input.shape)), False)


@rule("masked_fill")
def _masked_fill(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    input, mask, value = args
    rank = max(len(input.shape), len(mask.shape))
    if isinstance(value, Tensor) and level.is_batched(value):
        wide = level.aligned(value, rank).to(input.dtype)
        return FUNCTIONS["where"](level.aligned(mask, rank), wide, level.aligned(input, rank))
    return dispatch.call(op, (level.aligned(input, rank), level.aligned(mask, rank), level.lower(value)))


# -- products ---------------------------------------------------------------------------------------------------------


@rule("mm")
def _mm(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    a, b = args
    if level.is_batched(a) and not level.is_batched(b):
        return _split(dispatch.call(op, (_merged(level.physical(a)), level.lower(b))), level.size, a.shape[0])
    return _apply("bmm", level.physical(a), level.physical(b))


@rule("bmm")
def _bmm(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    a, b = args
    count = a.shape[0]
    return _split(dispatch.call(op, (_merged(level.physical(a)), _merged(level.physical(b)))), level.size, count)


@rule("linear")
def _linear(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    input, weight, bias = args
    if len(weight.shape) != 2 or not input.shape:
        return NotImplemented
    if level.is_batched(weight) or level.is_batched(bias):
        rows = input if len(input.shape) > 1 else None
        with level:  # with weights of its own for each element, it is a product
            flat = input.reshape((-1, input.shape[-1])) if rows is not None else input.unsqueeze(0)
            result = flat.mm(weight.t()).reshape((*input.shape[:-1], weight.shape[0]))
            result = result if bias is None else result + bias
        return level.physical(result)
    return dispatch.call(op, (level.physical(input), level.lower(weight), level.lower(bias)))


@rule("layer_norm")
def _layer_norm(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    input, shape, weight, bias, eps = args
    result = dispatch.call(op, (level.physical(input), shape, None, None, eps))
    rank = len(input.shape)
    result = result if weight is None else result * level.aligned(weight, rank)
    return result if bias is None else result + level.aligned(bias, rank)


# -- convolutions and pooling -----------------------------------------------------------------------------------------


def _channels(tensor: Tensor) -> Tensor:
    """[B, N, C, H, W] as [N, B*C, H, W]: an element of the batch becomes a group of channels."""
    moved = tensor.permute((1, 0, *range(2, len(tensor.shape))))
    flat: Tensor = moved.reshape((moved.shape[0], moved.shape[1] * moved.shape[2], *moved.shape[3:]))
    return flat


def _unchannels(tensor: Tensor, size: Any) -> Tensor:
    split = tensor.reshape((tensor.shape[0], size, tensor.shape[1] // size, *tensor.shape[2:]))
    moved: Tensor = split.permute((1, 0, *range(2, len(split.shape))))
    return moved


@rule("conv2d")
def _conv2d(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    input, weight, bias, *rest, groups = args
    if level.is_batched(weight):
        wide = (_channels(level.physical(input)), _merged(level.physical(weight)), None, *rest, groups * level.size)
        result = _unchannels(dispatch.call(op, wide), level.size)
    else:
        flat = (_merged(level.physical(input)), level.lower(weight), None, *rest, groups)
        result = _split(dispatch.call(op, flat), level.size, input.shape[0])
    if bias is None:
        return result
    channels = level.physical(bias)
    return result + channels.reshape((level.size, 1, channels.shape[1], 1, 1))


@rule("conv2d_input_grad")
def _conv2d_input_grad(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    g, weight, sizes, *rest, groups = args
    count, channels, *spatial = sizes
    if level.is_batched(weight):
        wide = (count, channels * level.size, *spatial)
        found = dispatch.call(
            op, (_channels(level.physical(g)), _merged(level.physical(weight)), wide, *rest, groups * level.size)
        )
        return _unchannels(found, level.size)
    flat = (count * level.size, channels, *spatial)
    found = dispatch.call(op, (_merged(level.physical(g)), level.lower(weight), flat, *rest, groups))
    return _split(found, level.size, count)


@rule("conv2d_weight_grad")
def _conv2d_weight_grad(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    input, g, sizes, *rest, groups = args
    wide = (sizes[0] * level.size, *sizes[1:])
    found = dispatch.call(
        op, (_channels(level.physical(input)), _channels(level.physical(g)), wide, *rest, groups * level.size)
    )
    return _split(found, level.size, sizes[0])


@rule("max_pool2d_with_indices", "avg_pool2d")
def _pool(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    if len(args[0].shape) != 4:
        return NotImplemented
    found = dispatch.call(op, (_merged(level.physical(args[0])), *args[1:]))
    count = args[0].shape[0]
    if isinstance(found, tuple):
        return tuple(_split(f, level.size, count) for f in found)
    return _split(found, level.size, count)


@rule("max_pool2d_backward")
def _max_pool_backward(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    g, indices, sizes, *rest = args
    if len(sizes) != 4:
        return NotImplemented
    flat = (sizes[0] * level.size, *sizes[1:])
    merged = (_merged(level.physical(g)), _merged(level.physical(indices)), flat, *rest)
    return _split(dispatch.call(op, merged), level.size, sizes[0])


@rule("avg_pool2d_backward")
def _avg_pool_backward(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    g, sizes, *rest = args
    if len(sizes) != 4:
        return NotImplemented
    found = dispatch.call(op, (_merged(level.physical(g)), (sizes[0] * level.size, *sizes[1:]), *rest))
    return _split(found, level.size, sizes[0])


# -- indexing ---------------------------------------------------------------------------------------------------------


def _positions(level: BatchLevel, rank: int, like: Any) -> Tensor:
    """The number of each element of the batch, to index with beside tensors of `rank` dimensions."""
    numbers: Tensor = FUNCTIONS["arange"](level.size, device=like.device)
    shaped: Tensor = numbers.reshape((level.size, *(1 for _ in range(rank))))
    return shaped


def _wide_indices(level: BatchLevel, indices: tuple[Any, ...]) -> tuple[tuple[Any, ...], int, int]:
    """The indices behind one that numbers the batch; the rank that they broadcast to; the place of the first."""
    given = [i for i in indices if i is not None]
    rank = max(len(i.shape) for i in given)
    wide = tuple(None if i is None else level.aligned(i, rank) for i in indices)
    places = [at for at, i in enumerate(indices) if i is not None]
    neighbours = places[-1] - places[0] == len(places) - 1
    return (_positions(level, rank, given[0]), *wide), rank, places[0] if neighbours else 0


def _moved(rank: int, count: int, total: int) -> tuple[int, ...]:
    """What brings `count` whole dimensions in front of the `rank` index dimensions, behind the batch."""
    kept = range(1 + rank, 1 + rank + count)
    return (0, *kept, *range(1, 1 + rank), *range(1 + rank + count, total))


@rule("index")
def _index(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    input, indices = args
    if not any(level.is_batched(i) for i in indices if i is not None):
        places = [at for at, i in enumerate(indices) if i is not None]
        plain = tuple(level.lower(i) for i in indices)
        found = dispatch.call(op, (level.physical(input), (None, *plain)))
        if places[-1] - places[0] == len(places) - 1:
            return found
        rank = max(len(i.shape) for i in plain if i is not None)
        return found.movedim(rank, 0)
    wide, rank, first = _wide_indices(level, indices)
    found = dispatch.call(op, (level.physical(input), wide))
    return found.permute(_moved(rank, first, len(found.shape))) if first else found


@rule("index_put")
def _index_put(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    input, indices, values, accumulate = args
    shape = indexed_shape(tuple(input.shape), indices)
    wide, rank, first = _wide_indices(level, indices)
    spread = expand(level.aligned(values, len(shape)), (level.size, *shape))
    if first:
        order = _moved(rank, first, len(shape) + 1)
        spread = spread.permute(tuple(order.index(i) for i in range(len(order))))
    return dispatch.call(op, (level.physical(input), wide, spread, accumulate))


@rule("index_select")
def _index_select(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    input, dim, index = args
    if level.is_batched(index) or not input.shape:
        return NotImplemented
    return dispatch.call(op, (level.physical(input), dim + 1, level.lower(index)))


@rule("index_add", "index_copy")
def _index_write(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    input, dim, index, source, *rest = args
    if level.is_batched(index) or not input.shape:
        return NotImplemented
    return dispatch.call(op, (level.physical(input), dim + 1, level.lower(index), level.physical(source), *rest))


@rule("embedding")
def _embedding(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    weight, indices, padding, *rest = args
    if not level.is_batched(weight):
        return dispatch.call(op, (level.lower(weight), level.physical(indices), padding, *rest))
    if padding >= 0:
        return NotImplemented
    at = level.physical(indices) + _positions(level, len(indices.shape), indices) * weight.shape[0]
    return dispatch.call(op, (_merged(level.physical(weight)), at, padding, *rest))


@rule("embedding_dense_backward")
def _embedding_backward(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    g, indices, count, padding, scale = args
    if padding >= 0 or scale:
        return NotImplemented
    at = level.physical(indices) + _positions(level, len(indices.shape), indices) * count
    found = dispatch.call(op, (level.physical(g), at, count * level.size, padding, scale))
    return _split(found, level.size, count)
