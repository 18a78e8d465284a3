"""Affine maps: linear and bilinear layers, convolutions, embeddings and one-hot vectors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graphtorch import ops
from graphtorch.autograd.grad_mode import no_grad
from graphtorch.tensor.dtypes import int64
from graphtorch.tensor.tensor import Tensor

__all__ = ["bilinear", "conv1d", "conv2d", "embedding", "linear", "one_hot"]


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``input @ weight.T + bias``: (*, in), (out, in), (out,) -> (*, out)."""
    return ops.linear(input, weight, bias)


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``sum_ij input1_i weight_oij input2_j + bias_o``: (*, in1), (*, in2), (out, in1, in2), (out,) -> (*, out).

    Raises:
        RuntimeError: the shapes do not fit.
    """
    if input1.dim() != input2.dim() or tuple(input1.shape[:-1]) != tuple(input2.shape[:-1]):
        raise RuntimeError(
            "bilinear(): input batch dimensions do not match: got "
            f"{list(input1.shape[:-1])} and {list(input2.shape[:-1])}"
        )
    for position, (tensor, size) in enumerate(((input1, weight.shape[1]), (input2, weight.shape[2])), 1):
        if tensor.shape[-1] != size:
            raise RuntimeError(
                f"bilinear(): input{position} size does not match weight size: got {tensor.shape[-1]} but expected "
                f"{size}"
            )
    outputs, size1, size2 = weight.shape
    batch = tuple(input1.shape[:-1])
    flat1, flat2 = input1.reshape(-1, size1), input2.reshape(-1, size2)
    # For every output: rows of flat1 times its matrix, then the product with flat2 row by row.
    left = flat1 @ weight.permute(1, 0, 2).reshape(size1, outputs * size2)
    result = (left.reshape(-1, outputs, size2) * flat2.unsqueeze(1)).sum(-1)
    if bias is not None:
        result = result + bias
    return result.reshape(*batch, outputs)


def _spread(value: Any, count: int) -> tuple[int, ...]:
    """One size for all spatial dimensions, or one for each."""
    values = tuple(value) if isinstance(value, Iterable) else (value,)
    return values * count if len(values) == 1 else values


def _resolve_padding(
    input: Tensor, weight: Tensor, stride: tuple[int, ...], padding: Any, dilation: tuple[int, ...]
) -> tuple[Tensor, tuple[int, ...]]:
    """Turn "same" and "valid" into numbers; where "same" is lopsided, pad the input itself by the difference."""
    count = len(stride)
    if not isinstance(padding, str):
        return input, _spread(padding, count)
    if padding == "valid":
        return input, (0,) * count
    if padding != "same":
        raise RuntimeError(f"Invalid padding string: '{padding}'")
    if any(s != 1 for s in stride):
        raise RuntimeError("padding='same' is not supported for strided convolutions")
    totals = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    if any(total % 2 for total in totals):
        extra: list[int] = []
        for total in reversed(totals):
            extra += [0, total % 2]
        input = ops.constant_pad_nd(input, extra, 0.0)
    return input, tuple(total // 2 for total in totals)


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlate (N, C, H, W) or (C, H, W) with weight (O, C / groups, KH, KW); padding may be "same", "valid".

    Raises:
        RuntimeError: the shapes do not fit.
    """
    if input.dim() not in (3, 4):
        raise RuntimeError(
            f"Expected 3D (unbatched) or 4D (batched) input to conv2d, but got input of size: {list(input.shape)}"
        )
    strides, dilations = _spread(stride, 2), _spread(dilation, 2)
    unbatched = input.dim() == 3
    if unbatched:
        input = input.unsqueeze(0)
    input, paddings = _resolve_padding(input, weight, strides, padding, dilations)
    result: Tensor = ops.conv2d(input, weight, bias, strides, paddings, dilations, groups)
    return result.squeeze(0) if unbatched else result


def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlate (N, C, L) or (C, L) with weight (O, C / groups, K): a convolution of height 1.

    Raises:
        RuntimeError: the shapes do not fit.
    """
    if input.dim() not in (2, 3):
        raise RuntimeError(
            f"Expected 2D (unbatched) or 3D (batched) input to conv1d, but got input of size: {list(input.shape)}"
        )
    strides, dilations = _spread(stride, 1), _spread(dilation, 1)
    input, paddings = _resolve_padding(input, weight, strides, padding, dilations)
    result = conv2d(
        input.unsqueeze(-2), weight.unsqueeze(-2), bias, (1, *strides), (0, *paddings), (1, *dilations), groups
    )
    return result.squeeze(-2)


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """The rows of ``weight`` (V, D) at the indices ``input`` (*): (*, D).

    The row ``padding_idx`` gets no gradient. ``max_norm`` first shrinks, in place, the looked-up rows with a larger
    norm. ``scale_grad_by_freq`` divides a row's gradient by how often it was looked up.

    Raises:
        AssertionError: ``padding_idx`` is out of range.
        RuntimeError: ``sparse`` gradients are asked for.
    """
    if sparse:
        raise RuntimeError("embedding: sparse gradients are not supported")
    if padding_idx is not None:
        if not -weight.shape[0] <= padding_idx < weight.shape[0]:
            raise AssertionError("Padding_idx must be within num_embeddings")
        padding_idx %= weight.shape[0]
    if max_norm is not None:
        _shrink_rows(weight, input, max_norm, norm_type)
    return ops.embedding(weight, input, -1 if padding_idx is None else padding_idx, scale_grad_by_freq)


def _shrink_rows(weight: Tensor, indices: Tensor, max_norm: float, norm_type: float) -> None:
    """Scale the rows of ``weight`` that ``indices`` name and whose norm is above ``max_norm`` down to it, in place."""
    with no_grad():
        norms = weight.norm(norm_type, 1, keepdim=True)
        named = ops.zeros((weight.shape[0],), dtype=int64, device=weight.device)
        named = named.index_fill(0, indices.reshape(-1), 1).unsqueeze(1) > 0
        # The small term is part of PyTorch's formula.
        scale = ops.where(named & (norms > max_norm), max_norm / (norms + 1e-7), ops.ones_like(norms))
        weight.mul_(scale)


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """Vectors of zeros with a one at the class index: (*) of int64 -> (*, num_classes); -1 means the largest + 1.

    Raises:
        RuntimeError: the indices are not int64, negative or too large, or there is nothing to count classes from.
    """
    return ops.one_hot(tensor, num_classes)
