"""`layer_norm` as one record: one pass in NumPy, a closed-form derivative, and the decomposition that fuses.

The other normalisations are compositions, in `nn.functional`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphtorch.ops.build import operator
from graphtorch.ops.pointwise import not_implemented
from graphtorch.ops.record import OPAQUE, sample
from graphtorch.ops.strides import row_major
from graphtorch.tensor import dtypes
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType, type_of


def _layer_norm_type(input: Any, normalized_shape: Sequence[Any], weight: Any, bias: Any, eps: float) -> TensorType:
    shape, wanted = tuple(input.shape), tuple(normalized_shape)
    if not wanted:
        raise RuntimeError(
            "Expected normalized_shape to be at least 1-dimensional, i.e., containing at least one element, but got "
            f"normalized_shape = {list(wanted)}"
        )
    for name, given in (("weight", weight), ("bias", bias)):
        if given is not None and tuple(given.shape) != wanted:
            raise RuntimeError(
                f"Expected {name} to be of same shape as normalized_shape, but got {name} of shape "
                f"{list(given.shape)} and normalized_shape = {list(wanted)}"
            )
    if len(shape) < len(wanted) or shape[len(shape) - len(wanted) :] != wanted:
        expected = "".join(f", {n}" for n in wanted)
        raise RuntimeError(
            f"Given normalized_shape={list(wanted)}, expected input with shape [*{expected}], but got input of size"
            f"{list(shape)}"
        )
    if input.dtype.category != dtypes.FLOATING:
        raise not_implemented("LayerNormKernelImpl", input.dtype)
    return type_of(input)


def _mean(x: Any, axes: tuple[int, ...]) -> Any:
    """`x.mean(axes, keepdims=True)`, without what NumPy's method does around the sum."""
    total = np.add.reduce(x, axis=axes, keepdims=True)
    total /= math.prod([x.shape[axis] for axis in axes])
    return total


def _layer_norm_numpy(input: Any, normalized_shape: Any, weight: Any, bias: Any, eps: float) -> Any:
    x = input.astype(np.float32) if input.dtype.itemsize == 2 else input
    axes = tuple(range(x.ndim - len(normalized_shape), x.ndim))
    centred = x - _mean(x, axes)
    variance = _mean(np.square(centred), axes)
    centred *= 1 / np.sqrt(variance + x.dtype.type(eps))
    if weight is not None:
        centred *= weight.astype(x.dtype, copy=False)
    if bias is not None:
        centred += bias.astype(x.dtype, copy=False)
    return row_major(centred.astype(input.dtype, copy=False))


def _wide(value: Any) -> Any:
    """Statistics of half precision are computed in float32."""
    return value.to(dtypes.float32) if value.dtype.itemsize == 2 else value


def _standardized(input: Any, count: int, eps: Any) -> tuple[Any, Any]:
    """(x - mean) / standard deviation over the last `count` dimensions, and one over the deviation."""
    x = _wide(input)
    dims = tuple(range(len(x.shape) - count, len(x.shape)))
    centred = x - x.mean(dims, keepdim=True)
    scale = ((centred * centred).mean(dims, keepdim=True) + eps).rsqrt()
    return centred * scale, scale


def _layer_norm_decompose(input: Any, normalized_shape: Any, weight: Any, bias: Any, eps: Any) -> Any:
    result, _ = _standardized(input, len(normalized_shape), eps)
    if weight is not None:
        result = result * weight
    if bias is not None:
        result = result + bias
    return result.to(input.dtype)


def _to_input(g: Any, input: Any, normalized_shape: Any, weight: Any, eps: Any) -> Any:
    count = len(normalized_shape)
    normal, scale = _standardized(input, count, eps)
    dims = tuple(range(len(input.shape) - count, len(input.shape)))
    slope = _wide(g) if weight is None else _wide(g) * weight
    # What moves the mean or the deviation of the row does not move the result.
    along = normal * (slope * normal).mean(dims, keepdim=True)
    return scale * (slope - slope.mean(dims, keepdim=True) - along)


layer_norm: Callable[..., Tensor] = operator(
    "layer_norm(Tensor input, int[] normalized_shape, Tensor? weight=None, Tensor? bias=None, float eps=1e-05)",
    type=_layer_norm_type,
    numpy=_layer_norm_numpy,
    kind=OPAQUE,
    derivative={
        "input": _to_input,
        "weight": lambda g, input, normalized_shape, eps: (
            _wide(g) * _standardized(input, len(normalized_shape), eps)[0]
        ),
        "bias": lambda g: _wide(g),
    },
    decompose=_layer_norm_decompose,
    samples=lambda make: [
        sample(make(3, 4), (4,), make(4), make(4)),
        sample(make(2, 3, 4), (3, 4), make(3, 4), None, 1e-3),
        sample(make(2, 3, 4), (4,)),
    ],
    categories="f",
    method=False,
    grad_name="NativeLayerNormBackward0",
    doc="Standardise over the last dimensions, of sizes `normalized_shape`, then scale and shift elementwise.",
)
