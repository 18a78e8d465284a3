"""Affine maps: linear and bilinear layers, convolutions, embeddings and one-hot vectors."""

from __future__ import annotations

from typing import Any

from graphtorch import ops
from graphtorch.autograd.grad_mode import no_grad
from graphtorch.tensor.dtypes import int64
from graphtorch.tensor.tensor import Tensor

__all__ = [
    "bilinear",
    "conv1d",
    "conv2d",
    "conv_transpose1d",
    "conv_transpose2d",
    "embedding",
    "linear",
    "one_hot",
]


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


def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlate (N, C, L) or (C, L) with weight (O, C / groups, K); padding may be "same" or "valid"."""
    return ops.conv1d(input, weight, bias, stride, padding, dilation, groups)


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlate (N, C, H, W) or (C, H, W) with weight (O, C / groups, KH, KW); padding may be "same", "valid"."""
    return ops.conv2d(input, weight, bias, stride, padding, dilation, groups)


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
    """The adjoint of :func:`conv1d`: (N, C, L) with weight (C, O / groups, K)."""
    return ops.conv_transpose1d(input, weight, bias, stride, padding, output_padding, groups, dilation)


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
    """The adjoint of :func:`conv2d`: (N, C, H, W) with weight (C, O / groups, KH, KW)."""
    return ops.conv_transpose2d(input, weight, bias, stride, padding, output_padding, groups, dilation)


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
