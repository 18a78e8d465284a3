"""Two-dimensional convolution (cross-correlation) and its two gradients, which are bilinear maps of one family.

With y = conv2d(x, w), the inner product <y, v> is linear in each of x, w and v; `conv2d_input_grad(v, w)` and
`conv2d_weight_grad(x, v)` are what it multiplies x and w by. So the derivatives of all three are among the three, and
derivatives of any order exist. NumPy computes them as matrix products over unfolded windows ("im2col": Chellapilla,
Puri and Simard 2006), a few samples at a time so that the unfolded windows stay in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from graphtorch.autograd.graph import composes
from graphtorch.ops.arithmetic import conjugate
from graphtorch.ops.build import function, operator
from graphtorch.ops.dispatch import _scalar_name
from graphtorch.ops.join import constant_pad_nd
from graphtorch.ops.pointwise import not_implemented
from graphtorch.ops.products import C_NAMES
from graphtorch.ops.record import OPAQUE, sample
from graphtorch.ops.shaping import narrow, reshape
from graphtorch.ops.view import squeeze, unsqueeze
from graphtorch.tensor import dtypes
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType, type_of

# Unfolded windows are made in blocks of about this many elements.
_BLOCK = 1 << 21

# -- shapes -----------------------------------------------------------------------------------------------------------


def spread(value: Any, count: int, name: str) -> tuple[int, ...]:
    """One number for all spatial dimensions, or one for each.

    Raises RuntimeError for another number of them.
    """
    values = tuple(value) if isinstance(value, tuple | list) else (value,)
    if len(values) == 1:
        return values * count
    if len(values) != count:
        raise RuntimeError(
            f"expected {name} to be a single integer value or a list of {count} values to match the convolution "
            f"dimensions, but got {name}={list(values)}"
        )
    return values


def output_size(size: Any, kernel: Any, stride: int, padding: int, dilation: int) -> Any:
    """How many windows fit along one dimension."""
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def _normalize_pairs(stride: Any, padding: Any, dilation: Any, groups: Any) -> tuple[Any, ...]:
    strides, paddings = spread(stride, 2, "stride"), spread(padding, 2, "padding")
    if any(s <= 0 for s in strides):
        raise RuntimeError("non-positive stride is not supported")
    if any(p < 0 for p in paddings):
        raise RuntimeError("negative padding is not supported")
    dilations = spread(dilation, 2, "dilation")
    if any(d <= 0 for d in dilations):
        raise RuntimeError("dilation should be greater than zero")
    if groups <= 0:
        raise RuntimeError("non-positive groups is not supported")
    return strides, paddings, dilations, groups


def _check(input: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> None:
    """PyTorch's checks and messages."""
    shape, kernel = list(input.shape), list(weight.shape)
    if len(shape) != 4:
        raise RuntimeError(f"Expected 3D (unbatched) or 4D (batched) input to conv2d, but got input of size: {shape}")
    if len(kernel) != 4:
        raise RuntimeError(
            f"weight should have at least three dimensions, and as many as the input: expected 4, got {len(kernel)}"
        )
    if kernel[0] < groups:
        raise RuntimeError(
            f"Given groups={groups}, expected weight to be at least {groups} at dimension 0, but got weight of size "
            f"{kernel} instead"
        )
    if kernel[0] % groups != 0:
        raise RuntimeError(
            f"Given groups={groups}, expected weight to be divisible by {groups} at dimension 0, but got weight of "
            f"size [{kernel}] instead"
        )
    if shape[1] != kernel[1] * groups:
        raise RuntimeError(
            f"Given groups={groups}, weight of size {kernel}, expected input{shape} to have {kernel[1] * groups} "
            f"channels, but got {shape[1]} channels instead"
        )
    if bias is not None and (len(bias.shape) != 1 or bias.shape[0] != kernel[0]):
        raise RuntimeError(
            f"Given weight of size {kernel}, expected bias to be 1-dimensional with {kernel[0]} elements, but got "
            f"bias of size {list(bias.shape)} instead"
        )
    if any(type(k) is int and k == 0 for k in kernel[2:]):
        raise RuntimeError(
            f"kernel size should be greater than zero, but got kernel_height: {kernel[2]} kernel_width: {kernel[3]}"
        )
    padded = [n + 2 * p for n, p in zip(shape[2:], padding, strict=True)]
    extent = [d * (k - 1) + 1 for k, d in zip(kernel[2:], dilation, strict=True)]
    if any(e > n for e, n in zip(extent, padded, strict=True)):
        raise RuntimeError(
            f"Calculated padded input size per channel: ({padded[0]} x {padded[1]}). Kernel size: ({extent[0]} x "
            f"{extent[1]}). Kernel size can't be greater than actual input size"
        )
    if input.dtype is not weight.dtype:
        raise RuntimeError(f"expected scalar type {_scalar_name(input.dtype)} but found {_scalar_name(weight.dtype)}")
    if bias is not None and bias.dtype is not input.dtype:
        raise RuntimeError(
            f"Input type ({C_NAMES[input.dtype]}) and bias type ({C_NAMES[bias.dtype]}) should be the same"
        )
    if input.dtype is dtypes.bool_:
        raise not_implemented("slow_conv2d_cpu", input.dtype)


# -- NumPy ------------------------------------------------------------------------------------------------------------


def _wide(array: Any) -> Any:
    """Half precision computes in float32."""
    return array.astype(np.float32) if array.dtype.itemsize == 2 and array.dtype.kind not in "iu" else array


def _blocks(samples: int, each: int) -> Iterator[slice]:
    """Ranges of samples whose unfolded windows, `each` elements a sample, make a block."""
    step = max(1, _BLOCK // max(each, 1))
    for start in range(0, samples, step):
        yield slice(start, min(start + step, samples))


def _by_channel(x: Any, padding: Sequence[int]) -> Any:
    """(N, C, H, W) -> (C, N, H + 2 padding, W + 2 padding), the layout in which windows unfold with few strides."""
    n, c, h, w = x.shape
    ph, pw = padding
    if not ph and not pw:
        return np.ascontiguousarray(x.swapaxes(0, 1))
    padded = np.zeros((c, n, h + 2 * ph, w + 2 * pw), x.dtype)
    padded[:, :, ph : ph + h, pw : pw + w] = x.swapaxes(0, 1)
    return padded


def _window(i: int, count: int, stride: int, dilation: int) -> slice:
    """What the kernel's i-th row (or column) sees of a dimension with `count` windows."""
    return slice(i * dilation, i * dilation + (count - 1) * stride + 1, stride)


def _unfold(x: Any, kernel: Sequence[int], out: Sequence[int], stride: Any, padding: Any, dilation: Any) -> Any:
    """The windows of a block of samples as columns: (C, KH, KW, N, OH, OW), contiguous."""
    n, c = x.shape[:2]
    (kh, kw), (oh, ow) = kernel, out
    padded = _by_channel(x, padding)
    columns = np.empty((c, kh, kw, n, oh, ow), x.dtype)
    for i in range(kh):
        rows = _window(i, oh, stride[0], dilation[0])
        for j in range(kw):
            columns[:, i, j] = padded[:, :, rows, _window(j, ow, stride[1], dilation[1])]
    return columns


def _conv2d_numpy(input: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
    d = input.dtype
    x, w = _wide(input), _wide(weight)
    n, _, h, width = x.shape
    o, cg, kh, kw = w.shape
    oh, ow = (
        output_size(size, k, s, p, e)
        for size, k, s, p, e in zip((h, width), (kh, kw), stride, padding, dilation, strict=True)
    )
    if not cg:
        return np.zeros((n, 0, oh, ow), d)
    result = np.empty((n, o, oh, ow), x.dtype)
    kernel = w.reshape(groups, o // groups, cg * kh * kw)
    for block in _blocks(n, x.shape[1] * kh * kw * oh * ow):
        columns = _unfold(x[block], (kh, kw), (oh, ow), stride, padding, dilation)
        found = np.matmul(kernel, columns.reshape(groups, cg * kh * kw, -1))
        result[block] = found.reshape(o, -1, oh, ow).swapaxes(0, 1)
    if bias is not None:
        result += _wide(bias)[:, None, None]
    return result.astype(d, copy=False)


def _input_grad_numpy(
    input: Any, weight: Any, input_sizes: Any, stride: Any, padding: Any, dilation: Any, groups: int
) -> Any:
    d = input.dtype
    g, w = _wide(input), _wide(weight)
    n, c, h, width = input_sizes
    o, oh, ow = g.shape[1:]
    cg, kh, kw = w.shape[1:]
    ph, pw = padding
    if not cg:
        return np.zeros(input_sizes, d)
    result = np.empty((n, c, h, width), g.dtype)
    kernel = w.reshape(groups, o // groups, cg * kh * kw).swapaxes(1, 2)
    for block in _blocks(n, c * kh * kw * oh * ow):
        rows = np.ascontiguousarray(g[block].swapaxes(0, 1)).reshape(groups, o // groups, -1)
        columns = np.matmul(kernel, rows).reshape(c, kh, kw, -1, oh, ow)
        padded = np.zeros((c, columns.shape[3], h + 2 * ph, width + 2 * pw), g.dtype)
        for i in range(kh):
            seen = _window(i, oh, stride[0], dilation[0])
            for j in range(kw):
                padded[:, :, seen, _window(j, ow, stride[1], dilation[1])] += columns[:, i, j]
        result[block] = padded[:, :, ph : ph + h, pw : pw + width].swapaxes(0, 1)
    return result.astype(d, copy=False)


def _weight_grad_numpy(
    input: Any, grad: Any, weight_sizes: Any, stride: Any, padding: Any, dilation: Any, groups: int
) -> Any:
    d = input.dtype
    x, g = _wide(input), _wide(grad)
    o, cg, kh, kw = weight_sizes
    oh, ow = g.shape[2:]
    if not cg:
        return np.zeros(weight_sizes, d)
    total = np.zeros((groups, o // groups, cg * kh * kw), x.dtype)
    for block in _blocks(x.shape[0], x.shape[1] * kh * kw * oh * ow):
        columns = _unfold(x[block], (kh, kw), (oh, ow), stride, padding, dilation).reshape(groups, cg * kh * kw, -1)
        rows = np.ascontiguousarray(g[block].swapaxes(0, 1)).reshape(groups, o // groups, -1)
        total += np.matmul(rows, columns.swapaxes(1, 2))
    return total.reshape(weight_sizes).astype(d, copy=False)


# -- records ----------------------------------------------------------------------------------------------------------


def _conv2d_type(
    input: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int
) -> TensorType:
    _check(input, weight, bias, stride, padding, dilation, groups)
    spatial = [
        output_size(n, k, s, p, d)
        for n, k, s, p, d in zip(input.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    ]
    # Without input channels PyTorch's result has no channels either, and no bias.
    channels = 0 if _no_channels(input) else weight.shape[0]
    return type_of(input).with_shape((input.shape[0], channels, *spatial))


def _no_channels(input: Any) -> bool:
    channels = input.shape[1]
    return type(channels) is int and channels == 0


_CASES: tuple[tuple[Any, ...], ...] = (
    # input, weight, stride, padding, dilation, groups
    ((2, 3, 5, 4), (4, 3, 3, 2), 1, 0, 1, 1),
    ((2, 2, 6, 5), (2, 2, 3, 3), 2, 1, 1, 1),
    ((1, 4, 5, 5), (2, 2, 2, 2), (1, 2), (1, 0), (2, 1), 2),
    ((2, 2, 4, 4), (4, 1, 3, 3), 1, 1, 1, 2),
    ((1, 3, 3, 3), (2, 3, 1, 1), 1, 0, 1, 1),
)


def _conv2d_samples(make: Any) -> Any:
    for i, (shape, kernel, *rest) in enumerate(_CASES):
        yield sample(make(*shape), make(*kernel), make(kernel[0]) if i % 2 == 0 else None, *rest)


def _gradient_samples(make: Any, which: str) -> Any:
    for shape, kernel, *rest in _CASES:
        strides, paddings, dilations, groups = _normalize_pairs(*rest)
        spatial = [
            output_size(n, k, s, p, d)
            for n, k, s, p, d in zip(shape[2:], kernel[2:], strides, paddings, dilations, strict=True)
        ]
        g = make(shape[0], kernel[0], *spatial)
        if which == "input":
            yield sample(g, make(*kernel), shape, strides, paddings, dilations, groups)
        else:
            yield sample(make(*shape), g, kernel, strides, paddings, dilations, groups)


def _decompose(input: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
    """The bias as an addition of its own, which can join what follows."""
    if bias is None or _no_channels(input):
        return None
    return convolution(input, weight, None, stride, padding, dilation, groups) + reshape(bias, (bias.shape[0], 1, 1))


convolution: Callable[..., Tensor] = operator(
    "conv2d(Tensor input, Tensor weight, Tensor? bias=None, int[] stride=(1, 1), int[] padding=(0, 0), "
    "int[] dilation=(1, 1), int groups=1)",
    type=_conv2d_type,
    numpy=_conv2d_numpy,
    kind=OPAQUE,
    derivative={
        "input": lambda g, input_type, weight, stride, padding, dilation, groups: conv2d_input_grad(
            g, conjugate(weight), input_type.shape, stride, padding, dilation, groups
        ),
        "weight": lambda g, input, weight_type, stride, padding, dilation, groups: conv2d_weight_grad(
            conjugate(input), g, weight_type.shape, stride, padding, dilation, groups
        ),
        "bias": lambda g, bias_type: g.new_zeros(bias_type.shape) if _no_channels(g) else g.sum((0, 2, 3)),
    },
    decompose=_decompose,
    order={"result": "channels"},
    normalize=lambda input, weight, bias, *rest: (input, weight, bias, *_normalize_pairs(*rest)),
    samples=_conv2d_samples,
    categories="f",
    public=False,
    method=False,
    grad_name="ConvolutionBackward0",
)


def _first_places(result: Any, shape: Any) -> Any:
    """A convolution's result without the places that a transposed one with a large output padding did not come from."""
    for dim in (2, 3):
        if result.shape[dim] != shape[dim]:
            result = narrow(result, dim, 0, shape[dim])
    return result


conv2d_input_grad: Callable[..., Tensor] = operator(
    "conv2d_input_grad(Tensor input, Tensor weight, int[] input_sizes, int[] stride, int[] padding, int[] dilation, "
    "int groups)",
    type=lambda input, weight, input_sizes, *rest: type_of(input).with_shape(input_sizes),
    order={"result": "channels"},
    numpy=_input_grad_numpy,
    kind=OPAQUE,
    derivative={
        "input": lambda g, input_type, weight, stride, padding, dilation, groups: _first_places(
            convolution(g, conjugate(weight), None, stride, padding, dilation, groups), input_type.shape
        ),
        "weight": lambda g, input, weight_type, stride, padding, dilation, groups: conv2d_weight_grad(
            g, conjugate(input), weight_type.shape, stride, padding, dilation, groups
        ),
    },
    samples=lambda make: _gradient_samples(make, "input"),
    categories="f",
    public=False,
    method=False,
    grad_name="ConvolutionBackwardBackward0",
    doc="The cotangent of a convolution's input, `input` being that of its result: a transposed convolution.",
)

conv2d_weight_grad: Callable[..., Tensor] = operator(
    "conv2d_weight_grad(Tensor input, Tensor grad, int[] weight_sizes, int[] stride, int[] padding, int[] dilation, "
    "int groups)",
    type=lambda input, grad, weight_sizes, *rest: type_of(input).with_shape(weight_sizes),
    order={"result": "channels"},
    numpy=_weight_grad_numpy,
    kind=OPAQUE,
    derivative={
        "input": lambda g, grad, input_type, stride, padding, dilation, groups: conv2d_input_grad(
            conjugate(grad), g, input_type.shape, stride, padding, dilation, groups
        ),
        "grad": lambda g, input, grad_type, stride, padding, dilation, groups: _first_places(
            convolution(conjugate(input), g, None, stride, padding, dilation, groups), grad_type.shape
        ),
    },
    samples=lambda make: _gradient_samples(make, "weight"),
    categories="f",
    public=False,
    method=False,
    grad_name="ConvolutionBackwardBackward0",
    doc="The cotangent of a convolution's weight, `grad` being that of its result.",
)


# -- fronts -----------------------------------------------------------------------------------------------------------


def _resolve_padding(
    input: Tensor, weight: Tensor, stride: Sequence[int], padding: Any, dilation: Sequence[int]
) -> tuple[Tensor, tuple[int, ...]]:
    """Numbers for "same" and "valid"; where "same" is lopsided the input itself is padded by the difference."""
    count = len(stride)
    if not isinstance(padding, str):
        return input, spread(padding, count, "padding")
    if padding == "valid":
        return input, (0,) * count
    if padding != "same":
        raise RuntimeError(f"Invalid padding string: '{padding}'")
    if any(s != 1 for s in stride):
        raise RuntimeError("padding='same' is not supported for strided convolutions")
    totals = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    if any(total % 2 for total in totals):
        extra = tuple(n for total in reversed(totals) for n in (0, total % 2))
        input = constant_pad_nd(input, extra, 0)
    return input, tuple(total // 2 for total in totals)


def _check_rank(input: Tensor, weight: Tensor, name: str, rank: int) -> bool:
    """Whether the input lacks its batch dimension; RuntimeError for any other rank."""
    if input.ndim not in (rank - 1, rank):
        raise RuntimeError(
            f"Expected {rank - 1}D (unbatched) or {rank}D (batched) input to {name}, but got input of size: "
            f"{list(input.shape)}"
        )
    if weight.ndim != rank:
        raise RuntimeError(
            f"Expected {weight.ndim}-dimensional input for {weight.ndim}-dimensional weight {list(weight.shape)}, but "
            f"got {input.ndim}-dimensional input of size {list(input.shape)} instead"
        )
    return input.ndim == rank - 1


@function()
def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlate (N, C, H, W) or (C, H, W) with a weight of (O, C / groups, KH, KW). See torch.conv2d.

    `padding` may be "same" or "valid". Raises RuntimeError for shapes that don't fit.
    """
    unbatched = _check_rank(input, weight, "conv2d", 4)
    if unbatched:
        input = unsqueeze(input, 0)
    strides, dilations = spread(stride, 2, "stride"), spread(dilation, 2, "dilation")
    input, paddings = _resolve_padding(input, weight, strides, padding, dilations)
    result = convolution(input, weight, bias, strides, paddings, dilations, groups)
    return squeeze(result, 0) if unbatched else result


@function()
@composes("ConvolutionBackward0")
def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlate (N, C, L) or (C, L) with a weight of (O, C / groups, K): images of height 1. See torch.conv1d."""
    unbatched = _check_rank(input, weight, "conv1d", 3)
    if unbatched:
        input = unsqueeze(input, 0)
    strides, dilations = spread(stride, 1, "stride"), spread(dilation, 1, "dilation")
    input, paddings = _resolve_padding(input, weight, strides, padding, dilations)
    result = convolution(
        unsqueeze(input, 2), unsqueeze(weight, 2), bias, (1, *strides), (0, *paddings), (1, *dilations), groups
    )
    result = squeeze(result, 2)
    return squeeze(result, 0) if unbatched else result


def _transposed(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    extra: Any,
    groups: int,
    dilation: Any,
) -> Tensor:
    """A transposed convolution of (N, C, H, W): the input gradient of the convolution with that weight."""
    strides, paddings, dilations, groups = _normalize_pairs(stride, padding, dilation, groups)
    extras = spread(extra, 2, "output_padding")
    if input.shape[1] != weight.shape[0]:
        raise RuntimeError(
            f"Given transposed=1, weight of size {list(weight.shape)}, expected input{list(input.shape)} to have "
            f"{weight.shape[0]} channels, but got {input.shape[1]} channels instead"
        )
    if any(e >= s and e >= d for e, s, d in zip(extras, strides, dilations, strict=True)):
        raise RuntimeError("output padding must be smaller than either stride or dilation")
    spatial = [
        (n - 1) * s - 2 * p + d * (k - 1) + e + 1
        for n, k, s, p, d, e in zip(
            input.shape[2:], weight.shape[2:], strides, paddings, dilations, extras, strict=True
        )
    ]
    sizes = (input.shape[0], weight.shape[1] * groups, *spatial)
    result = conv2d_input_grad(input, weight, sizes, strides, paddings, dilations, groups)
    if bias is not None:
        result = result + reshape(bias, (bias.shape[0], 1, 1))
    return result


@function()
@composes("ConvolutionBackward0")
def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """The transposed map of conv2d, with a weight of (C, O / groups, KH, KW). See torch.conv_transpose2d."""
    unbatched = _check_rank(input, weight, "conv_transpose2d", 4)
    batch = unsqueeze(input, 0) if unbatched else input
    result = _transposed(batch, weight, bias, stride, padding, output_padding, groups, dilation)
    return squeeze(result, 0) if unbatched else result


@function()
@composes("ConvolutionBackward0")
def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """The transposed map of conv1d, with a weight of (C, O / groups, K). See torch.conv_transpose1d."""
    unbatched = _check_rank(input, weight, "conv_transpose1d", 3)
    batch = unsqueeze(unsqueeze(input, 0) if unbatched else input, 2)

    def along(value: Any, name: str, rows: int) -> tuple[int, ...]:
        return (rows, *spread(value, 1, name))

    result = _transposed(
        batch,
        unsqueeze(weight, 2),
        bias,
        along(stride, "stride", 1),
        along(padding, "padding", 0),
        along(output_padding, "output_padding", 0),
        groups,
        along(dilation, "dilation", 1),
    )
    result = squeeze(result, 2)
    return squeeze(result, 0) if unbatched else result
