"""Pooling over the last two dimensions: the maximum or the mean of every window.

NumPy goes over the places of the window, not over the windows: each place is one strided slice of the plane.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from graphtorch.ops.build import function, operator
from graphtorch.ops.pointwise import not_implemented
from graphtorch.ops.record import OPAQUE, sample
from graphtorch.ops.scattering import gather
from graphtorch.ops.shapes import wrap_dim
from graphtorch.ops.shaping import reshape
from graphtorch.tensor import dtypes
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType, type_of

# -- windows ----------------------------------------------------------------------------------------------------------


def _pair(name: str, argument: str, value: Any) -> tuple[int, int]:
    if len(value) not in (1, 2):
        raise RuntimeError(f"{name}: {argument} must either be a single int, or a tuple of two ints")
    return (value[0], value[-1])


def _normalize(name: str, kernel_size: Any, stride: Any, padding: Any, dilation: Any = (1,)) -> tuple[Any, ...]:
    kernel = _pair(name, "kernel_size", kernel_size)
    strides = _pair(name, "stride", stride) if stride else kernel
    paddings, dilations = _pair(name, "padding", padding), _pair(name, "dilation", dilation)
    if min(kernel) <= 0:
        raise RuntimeError(f"kernel size should be greater than zero, but got kH: {kernel[0]} kW: {kernel[1]}")
    if min(strides) <= 0:
        raise RuntimeError("stride should not be zero")
    if min(paddings) < 0:
        raise RuntimeError(f"pad must be non-negative, but got pad: {min(paddings)}")
    if min(dilations) <= 0:
        raise RuntimeError(
            f"dilation should be greater than zero, but got dilationH: {dilations[0]} dilationW: {dilations[-1]}"
        )
    for k, p in zip(kernel, paddings, strict=True):
        if p > k // 2:
            raise RuntimeError(
                f"pad should be at most half of effective kernel size, but got pad={p}, kernel_size={k} and dilation=1"
            )
    return kernel, strides, paddings, dilations


def _count(size: Any, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> Any:
    """How many windows there are along one dimension; with `ceil_mode` the last may reach over the edge."""
    span = size + 2 * padding - dilation * (kernel - 1) - 1
    if not ceil_mode:
        return span // stride + 1
    count = (span + stride - 1) // stride + 1
    # A window must start inside the plane or its left padding.
    return count - 1 if (count - 1) * stride >= size + padding else count


def _spatial(
    name: str, input: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> tuple[Any, Any]:
    shape = list(input.shape)
    if len(shape) not in (3, 4):
        raise RuntimeError(f"{name}(): Expected 3D or 4D (batch mode) tensor, but got: {shape}")
    if any(type(n) is int and n == 0 for n in shape[-3:]):
        raise RuntimeError(
            f"Expected 3D or 4D (batch mode) tensor with optional 0 dim batch size for input, but got:{shape}"
        )
    counts = tuple(
        _count(n, k, s, p, d, ceil_mode)
        for n, k, s, p, d in zip(shape[-2:], kernel, stride, padding, dilation, strict=True)
    )
    if counts[0] < 1 or counts[1] < 1:
        raise RuntimeError(
            f"Given input size: ({shape[-3]}x{shape[-2]}x{shape[-1]}). Calculated output size: "
            f"({shape[-3]}x{counts[0]}x{counts[1]}). Output size is too small"
        )
    return counts


def _places(kernel: Sequence[int], counts: Any, stride: Any, dilation: Any) -> Iterator[tuple[int, int, Any]]:
    """For every place (row, column) of the window the key of what it sees in the padded plane."""

    def seen(i: int, axis: int) -> slice:
        start = i * dilation[axis]
        return slice(start, start + (counts[axis] - 1) * stride[axis] + 1, stride[axis])

    for i in range(kernel[0]):
        for j in range(kernel[1]):
            yield i, j, (..., seen(i, 0), seen(j, 1))


def _padded_shape(shape: Any, kernel: Any, counts: Any, stride: Any, padding: Any, dilation: Any) -> tuple[int, ...]:
    """A plane that holds every window whole."""
    reach = [
        max((c - 1) * s + d * (k - 1) + 1, p + n)
        for n, c, k, s, p, d in zip(shape[-2:], counts, kernel, stride, padding, dilation, strict=True)
    ]
    return (*shape[:-2], *reach)


def _padded(x: Any, fill: Any, kernel: Any, counts: Any, stride: Any, padding: Any, dilation: Any) -> Any:
    shape = _padded_shape(x.shape, kernel, counts, stride, padding, dilation)
    if shape == x.shape:
        return x
    plane = np.full(shape, fill, x.dtype)
    plane[..., padding[0] : padding[0] + x.shape[-2], padding[1] : padding[1] + x.shape[-1]] = x
    return plane


# -- max_pool2d -------------------------------------------------------------------------------------------------------


def _max_type(
    input: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> tuple[TensorType, TensorType]:
    counts = _spatial("max_pool2d", input, kernel_size, stride, padding, dilation, ceil_mode)
    if input.dtype is dtypes.bool_ or input.dtype.is_complex:
        raise not_implemented("max_pool2d", input.dtype)
    values = type_of(input).with_shape((*input.shape[:-2], *counts))
    return values, values.with_dtype(dtypes.int64)


def _lowest(d: Any) -> Any:
    own = dtypes.from_numpy_dtype(d)
    return -np.inf if own.is_floating_point else np.iinfo(d).min


def _max_numpy(
    input: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> tuple[Any, Any]:
    h, w = input.shape[-2:]
    counts = tuple(
        _count(n, k, s, p, d, ceil_mode)
        for n, k, s, p, d in zip((h, w), kernel_size, stride, padding, dilation, strict=True)
    )
    plane = _padded(input, _lowest(input.dtype), kernel_size, counts, stride, padding, dilation)
    has_nan = input.dtype.kind not in "iu" and bool(np.isnan(input).any())
    whole = plane is input
    rows = np.arange(counts[0])[:, None] * stride[0] - padding[0]
    columns = np.arange(counts[1]) * stride[1] - padding[1]
    values: Any = None
    places: Any = None
    started = np.zeros(counts, np.bool_)
    for i, j, key in _places(kernel_size, counts, stride, dilation):
        candidate = plane[key]
        if values is None:
            values = candidate.copy()
            places = np.zeros(values.shape, np.int32)
        else:
            better = candidate > values
            if has_nan:
                better |= np.isnan(candidate)
            if not whole:
                better |= inside(rows + i * dilation[0], columns + j * dilation[1], h, w) & ~started
            np.copyto(values, candidate, where=better)
            np.copyto(places, np.int32(i * kernel_size[1] + j), where=better)
        if not whole:  # the first place inside the plane is a window's first candidate, even if its value is the lowest
            started |= inside(rows + i * dilation[0], columns + j * dilation[1], h, w)
    row, column = np.divmod(places.astype(np.int64), kernel_size[1])
    indices = (rows + row * dilation[0]) * w + (columns + column * dilation[1])
    return values, indices


def inside(rows: Any, columns: Any, h: int, w: int) -> Any:
    """Which of the places (rows x columns) lie in a plane of (h, w)."""
    return ((rows >= 0) & (rows < h)) & ((columns >= 0) & (columns < w))


def _max_samples(make: Any) -> Any:
    yield sample(make.distinct(2, 3, 4, 4), 2)
    yield sample(make.distinct(2, 2, 5, 6), 3, 2, 1)
    yield sample(make.distinct(2, 5, 7), (2, 3), (1, 2), (0, 1), (2, 1))
    yield sample(make.distinct(1, 1, 5, 5), 2, 2, 0, 1, True)


max_pool2d_with_indices: Callable[..., Any] = operator(
    "max_pool2d_with_indices(Tensor input, int[] kernel_size, int[] stride=(), int[] padding=(0,), int[] "
    "dilation=(1,), bool ceil_mode=False) -> (values, indices)",
    type=_max_type,
    order={"values": "channels", "indices": "channels"},
    numpy=_max_numpy,
    kind=OPAQUE,
    derivative={
        "input": lambda g_values, input_type, indices, kernel_size, stride, padding, dilation: max_pool2d_backward(
            g_values,
            indices,
            input_type.shape,
            _overlap(kernel_size, stride, dilation),
            (*kernel_size, *stride, *padding, *dilation),
        )
    },
    normalize=lambda input, kernel_size, stride, padding, dilation, ceil_mode: (
        input,
        *_normalize("max_pool2d", kernel_size, stride, padding, dilation),
        ceil_mode,
    ),
    samples=_max_samples,
    categories="if",
    method=False,
    grad_name="MaxPool2DWithIndicesBackward0",
    doc="The maximum of every window, and its position in the flattened plane.",
)


def _overlap(kernel: Any, stride: Any, dilation: Any) -> bool:
    return any(d * (k - 1) >= s for k, s, d in zip(kernel, stride, dilation, strict=True))


def _max_backward_numpy(input: Any, indices: Any, input_sizes: Any, overlapping: bool, window: Any = ()) -> Any:
    plane = input_sizes[-2] * input_sizes[-1]
    images = int(np.prod(input_sizes[:-2]))
    wide = np.float32 if input.dtype.itemsize == 2 else input.dtype
    result = np.zeros(images * plane, wide)
    at = (indices.reshape(images, -1) + np.arange(images)[:, None] * plane).reshape(-1)
    if overlapping:
        np.add.at(result, at, input.reshape(-1).astype(wide, copy=False))
    else:
        result[at] = input.reshape(-1)
    return result.reshape(input_sizes).astype(input.dtype, copy=False)


def _pick(g: Any, indices: Any) -> Any:
    """The elements of planes at positions in the flattened plane."""
    lead, spatial = tuple(indices.shape[:-2]), tuple(indices.shape[-2:])
    flat = reshape(g, (*lead, g.shape[-2] * g.shape[-1]))
    at = reshape(indices, (*lead, spatial[0] * spatial[1]))
    return reshape(gather(flat, len(lead), at), (*lead, *spatial))


max_pool2d_backward: Callable[..., Tensor] = operator(
    "max_pool2d_backward(Tensor input, Tensor indices, int[] input_sizes, bool overlapping, int[] window=())",
    type=lambda input, indices, input_sizes, overlapping, window: type_of(input).with_shape(input_sizes),
    order={"result": "channels"},
    numpy=_max_backward_numpy,
    kind=OPAQUE,
    derivative={"input": lambda g, indices: _pick(g, indices)},
    samples=lambda make: [
        sample(make(2, 3, 2, 2), make.ints(2, 3, 2, 2, high=16), (2, 3, 4, 4), True),
        sample(make(1, 1, 2), Tensor._wrap(np.array([[[5, 2]]])), (1, 2, 4), False),
        sample(make(1, 2, 2), Tensor._wrap(np.array([[[4, 4], [4, 8]]])), (1, 3, 3), True, (2, 2, 1, 1, 0, 0, 1, 1)),
    ],
    categories="f",
    public=False,
    method=False,
    doc="Cotangents put back at the positions of the maxima. `window`: the windows' size, stride, padding and "
    "dilation, each of rows and columns, where the positions are known to lie in such windows.",
)


@function()
def max_pool2d(
    input: Tensor, kernel_size: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> Tensor:
    """The maximum of every window of (N, C, H, W) or (C, H, W). See torch.nn.functional.max_pool2d."""
    pooled: Tensor = max_pool2d_with_indices(
        input, kernel_size, () if stride is None else stride, padding, dilation, ceil_mode
    )[0]
    return pooled


# -- avg_pool2d -------------------------------------------------------------------------------------------------------


def _average_type(
    input: Any, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool, include: bool, divisor: Any
) -> TensorType:
    wrap_dim(-3, len(input.shape))  # PyTorch asks for the channels before it looks at the rank
    counts = _spatial("avg_pool2d", input, kernel_size, stride, padding, (1, 1), ceil_mode)
    if input.dtype.category == dtypes.BOOLEAN:
        raise not_implemented("avg_pool2d", input.dtype)
    return type_of(input).with_shape((*input.shape[:-2], *counts))


def _divisors(
    size: Any, kernel: Any, counts: Any, stride: Any, padding: Any, include: bool, divisor: int | None
) -> Any:
    """How many elements each window's sum is divided by: (OH, OW), or one number."""
    if divisor is not None:
        return divisor
    each = []
    for n, k, c, s, p in zip(size, kernel, counts, stride, padding, strict=True):
        start = np.arange(c) * s - p
        end = np.minimum(start + k, n + p)
        each.append(end - start if include else np.minimum(end, n) - np.maximum(start, 0))
    return each[0][:, None] * each[1]


def _average_counts(size: Any, kernel: Any, stride: Any, padding: Any, ceil_mode: bool) -> tuple[int, ...]:
    return tuple(_count(n, k, s, p, 1, ceil_mode) for n, k, s, p in zip(size, kernel, stride, padding, strict=True))


def _average_numpy(
    input: Any, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool, include: bool, divisor: Any
) -> Any:
    d = input.dtype
    x = input.astype(np.float32) if d.itemsize == 2 and d.kind not in "iu" else input
    counts = _average_counts(x.shape[-2:], kernel_size, stride, padding, ceil_mode)
    plane = _padded(x, 0, kernel_size, counts, stride, padding, (1, 1))
    total = np.zeros((*x.shape[:-2], *counts), x.dtype)
    for _, _, key in _places(kernel_size, counts, stride, (1, 1)):
        total += plane[key]
    by = np.asarray(_divisors(x.shape[-2:], kernel_size, counts, stride, padding, include, divisor)).astype(x.dtype)
    if d.kind in "iu":
        return np.trunc(total / by).astype(d)
    return (total / by).astype(d, copy=False)


def _average_backward_numpy(
    input: Any, input_sizes: Any, kernel_size: Any, stride: Any, padding: Any, ceil: bool, include: bool, divisor: Any
) -> Any:
    d = input.dtype
    g = input.astype(np.float32) if d.itemsize == 2 else input
    counts = input.shape[-2:]
    h, w = input_sizes[-2:]
    by = _divisors((h, w), kernel_size, counts, stride, padding, include, divisor)
    share = g / np.asarray(by).astype(g.dtype)
    plane = np.zeros(_padded_shape(tuple(input_sizes), kernel_size, counts, stride, padding, (1, 1)), g.dtype)
    for _, _, key in _places(kernel_size, counts, stride, (1, 1)):
        plane[key] += share
    kept = plane[..., padding[0] : padding[0] + h, padding[1] : padding[1] + w]
    return np.ascontiguousarray(kept).astype(d, copy=False)


def _average_normalize(
    input: Any, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool, include: bool, divisor: Any
) -> tuple[Any, ...]:
    if divisor == 0:
        raise RuntimeError("divisor must be not zero")
    kernel, strides, paddings, _ = _normalize("avg_pool2d", kernel_size, stride, padding)
    return input, kernel, strides, paddings, ceil_mode, include, divisor


def _average_samples(make: Any) -> Any:
    yield sample(make(2, 3, 4, 4), 2)
    yield sample(make(2, 5, 6), 3, 2, 1)
    yield sample(make(1, 2, 5, 5), (3, 2), 2, 1, True, False)
    yield sample(make(1, 2, 5, 5), 2, 2, 0, True, True, 3)


avg_pool2d: Callable[..., Tensor] = operator(
    "avg_pool2d(Tensor input, int[] kernel_size, int[] stride=(), int[] padding=(0,), bool ceil_mode=False, "
    "bool count_include_pad=True, int? divisor_override=None)",
    type=_average_type,
    order={"result": "channels"},
    numpy=_average_numpy,
    kind=OPAQUE,
    derivative={
        "input": lambda g, input_type, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override: (
            avg_pool2d_backward(
                g, input_type.shape, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
            )
        )
    },
    normalize=_average_normalize,
    samples=_average_samples,
    categories="f",
    method=False,
    grad_name="AvgPool2DBackward0",
    doc="The mean of every window.",
)


def _average_backward_samples(make: Any) -> Any:
    for example in _average_samples(make):
        args = _average_normalize(*_completed(example.args))
        shape = _average_type(*args).shape
        yield sample(make(*shape), tuple(args[0].shape), *args[1:])


def _completed(args: tuple[Any, ...]) -> tuple[Any, ...]:
    defaults = (None, None, (), (0,), False, True, None)
    pairs = (*args, *defaults[len(args) :])
    return tuple((a,) if 0 < i < 4 and isinstance(a, int) else a for i, a in enumerate(pairs))


avg_pool2d_backward: Callable[..., Tensor] = operator(
    "avg_pool2d_backward(Tensor input, int[] input_sizes, int[] kernel_size, int[] stride, int[] padding, bool "
    "ceil_mode, bool count_include_pad, int? divisor_override)",
    type=lambda input, input_sizes, *rest: type_of(input).with_shape(input_sizes),
    order={"result": "channels"},
    numpy=_average_backward_numpy,
    kind=OPAQUE,
    derivative={
        "input": lambda g, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override: avg_pool2d(
            g, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
        )
    },
    samples=_average_backward_samples,
    categories="f",
    public=False,
    method=False,
    doc="Each window's cotangent shared equally among its elements.",
)
