"""Looking up rows of a table, and the gradient that adds cotangents back into the rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphtorch.ops.build import FUNCTIONS, operator
from graphtorch.ops.dispatch import _scalar_name
from graphtorch.ops.indexing import add_rows
from graphtorch.ops.record import OPAQUE, sample
from graphtorch.ops.scattering import index_add, index_select
from graphtorch.ops.shaping import reshape
from graphtorch.ops.strides import product
from graphtorch.ops.view import unsqueeze
from graphtorch.tensor import dtypes
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType, type_of


def _embedding_type(weight: Any, indices: Any, padding_idx: int, scale_grad_by_freq: bool, sparse: bool) -> TensorType:
    if len(weight.shape) != 2:
        raise RuntimeError("'weight' must be 2-D")
    if indices.dtype not in (dtypes.int64, dtypes.int32):
        raise RuntimeError(
            "Expected tensor for argument #1 'indices' to have one of the following scalar types: Long, Int; but got "
            f"torch.{_scalar_name(indices.dtype)}Tensor instead (while checking arguments for embedding)"
        )
    return type_of(weight).with_shape((*indices.shape, weight.shape[1]))


def _embedding_numpy(weight: Any, indices: Any, padding_idx: int, scale_grad_by_freq: bool, sparse: bool) -> Any:
    if indices.size and (indices.min() < 0 or indices.max() >= weight.shape[0]):
        raise IndexError("index out of range in self")
    return weight.take(indices, 0)


embedding: Callable[..., Tensor] = operator(
    "embedding(Tensor weight, Tensor indices, int padding_idx=-1, bool scale_grad_by_freq=False, bool sparse=False)",
    type=_embedding_type,
    numpy=_embedding_numpy,
    kind=OPAQUE,
    derivative={
        "weight": lambda g, weight_type, indices, padding_idx, scale_grad_by_freq: embedding_dense_backward(
            g, indices, weight_type.shape[0], padding_idx, scale_grad_by_freq
        )
    },
    samples=lambda make: [
        sample(make(5, 3), make.ints(4, high=5)),
        # Padding and scaling make the gradient another than the derivative, so these samples do not meet them.
        sample(make(5, 3), make.ints(2, 6, high=3), 4),
        sample(make(5, 3), Tensor._wrap(np.array([3, 0, 4])), -1, True),
        sample(make(5, 3), make.ints(high=5)),
    ],
    categories="f",
    method=False,
    doc="Rows of `weight` (V, D) at `indices` (*): (*, D). The row `padding_idx` gets no gradient.",
)


def _backward_numpy(input: Any, indices: Any, num_weights: int, padding_idx: int, scale_grad_by_freq: bool) -> Any:
    width = input.shape[-1]
    rows, values = indices.reshape(-1).astype(np.int64, copy=False), input.reshape(-1, width)
    if padding_idx >= 0:
        kept = rows != padding_idx
        rows, values = rows[kept], values[kept]
    if scale_grad_by_freq:
        counts = np.bincount(rows, minlength=num_weights)[rows]
        values = (values / counts[:, None]).astype(input.dtype)
    result = np.zeros((num_weights, width), input.dtype)
    add_rows(result, rows, values)
    return result


def _backward_derivative(
    g: Any, input_type: TensorType, indices: Any, num_weights: Any, padding_idx: int, scale_grad_by_freq: bool
) -> Any:
    found = embedding(g, indices, padding_idx)
    if scale_grad_by_freq:
        flat = reshape(indices, (product(indices.shape),))
        counts = index_add(g.new_zeros((num_weights,)), 0, flat, g.new_ones(tuple(flat.shape)))
        found = found / unsqueeze(reshape(index_select(counts, 0, flat), tuple(indices.shape)), -1)
    if padding_idx >= 0:
        found = FUNCTIONS["where"](unsqueeze(indices == padding_idx, -1), 0, found)
    return found


embedding_dense_backward: Callable[..., Tensor] = operator(
    "embedding_dense_backward(Tensor input, Tensor indices, int num_weights, int padding_idx, bool scale_grad_by_freq)",
    type=lambda input, indices, num_weights, *rest: type_of(input).with_shape((num_weights, input.shape[-1])),
    numpy=_backward_numpy,
    kind=OPAQUE,
    derivative={"input": _backward_derivative},
    samples=lambda make: [
        sample(make(4, 3), make.ints(4, high=5), 5, -1, False),
        sample(make(2, 3, 2), make.ints(2, 3, high=5), 6, 2, False),
        sample(make(8, 2), make.ints(8, high=5), 5, -1, True),
    ],
    categories="f",
    public=False,
    method=False,
    doc="The cotangent of an embedding's weight: rows of `input` added up by index.",
)
