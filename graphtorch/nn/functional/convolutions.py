"""Affine maps: linear and bilinear layers, convolutions, embeddings and one-hot vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from graphtorch import ops
from graphtorch.autograd.grad_mode import no_grad
from graphtorch.ops.autocast import autocasts
from graphtorch.tensor.creation import as_tensor
from graphtorch.tensor.dtypes import int64
from graphtorch.tensor.tensor import Tensor

__all__ = [
    "bilinear",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_tbc",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "embedding",
    "linear",
    "one_hot",
]


def repeat(value: Any, count: int) -> tuple[Any, ...]:
    """One size for all ``count`` spatial dimensions, where ``value`` is not a sequence of them already."""
    values = tuple(value) if isinstance(value, Iterable) else (value,)
    return values * count if len(values) == 1 else values


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
    result = (left.reshape(-1, outputs, size2) * flat2.unsqueeze(1)).sum(-1, dtype=input1.dtype)
    result = result.reshape(*batch, outputs)
    return result if bias is None else result + bias


# Operators of their own.
conv1d: Callable[..., Tensor] = ops.conv1d
conv2d: Callable[..., Tensor] = ops.conv2d
conv_transpose1d: Callable[..., Tensor] = autocasts("lower")(ops.conv_transpose1d)
conv_transpose2d: Callable[..., Tensor] = autocasts("lower")(ops.conv_transpose2d)


def conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlate (N, C, D, H, W) or (C, D, H, W) with weight (O, C / groups, KD, KH, KW).

    Padding may be "same" or "valid".

    Raises:
        RuntimeError: the shapes do not fit.
    """
    if input.dim() == 4:
        return conv3d(input.unsqueeze(0), weight, bias, stride, padding, dilation, groups).squeeze(0)
    if input.dim() != 5 or weight.dim() != 5:
        raise RuntimeError(
            f"Expected 4D (unbatched) or 5D (batched) input to conv3d, but got input of size: {list(input.shape)}"
        )
    steps, dilations = repeat(stride, 3), repeat(dilation, 3)
    if any(d <= 0 for d in dilations):
        raise RuntimeError("dilation should be greater than zero")
    depth = weight.shape[2]
    if isinstance(padding, str):
        if padding == "same" and any(step != 1 for step in steps):
            raise RuntimeError("padding='same' is not supported for strided convolutions")
        total = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilations, weight.shape[2:], strict=True)]
        edges = [amount for t in reversed(total) for amount in (t // 2, t - t // 2)]
        input, paddings = ops.constant_pad_nd(input, edges, 0.0), (0, 0, 0)
    else:
        paddings = repeat(padding, 3)
    if paddings[0] > 0:
        input = ops.constant_pad_nd(input, (0, 0, 0, 0, paddings[0], paddings[0]), 0.0)
    reach = dilations[0] * (depth - 1) + 1
    if input.shape[2] < reach:
        raise RuntimeError(
            f"Calculated padded input size per channel: ({input.shape[2]} x {input.shape[3]} x {input.shape[4]}). "
            f"Kernel size: ({reach} x {weight.shape[3]} x {weight.shape[4]}). Kernel size can't be greater than actual "
            "input size"
        )
    # The slices under one place of the kernel are channels of a convolution in two dimensions.
    slices = input.unfold(2, reach, steps[0])[..., :: dilations[0]]
    batch, channels, places, height, width, _ = slices.shape
    planes = slices.permute(0, 2, 1, 5, 3, 4).reshape(batch * places, channels * depth, height, width)
    flat = weight.reshape(weight.shape[0], weight.shape[1] * depth, weight.shape[3], weight.shape[4])
    result = conv2d(planes, flat, bias, steps[1:], paddings[1:], dilations[1:], groups)
    return result.reshape(batch, places, *result.shape[1:]).transpose(1, 2)


@autocasts("lower")
def conv_transpose3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """The adjoint of :func:`conv3d`: (N, C, D, H, W) with weight (C, O / groups, KD, KH, KW).

    Raises:
        RuntimeError: the shapes do not fit.
    """
    if input.dim() == 4:
        lifted = conv_transpose3d(input.unsqueeze(0), weight, bias, stride, padding, output_padding, groups, dilation)
        return lifted.squeeze(0)
    if input.dim() != 5 or weight.dim() != 5:
        raise RuntimeError(
            "Expected 4D (unbatched) or 5D (batched) input to conv_transpose3d, but got input of size: "
            f"{list(input.shape)}"
        )
    steps, paddings, extra, dilations = (repeat(x, 3) for x in (stride, padding, output_padding, dilation))
    batch, channels, places = input.shape[:3]
    depth, outputs = weight.shape[2], weight.shape[1] * groups
    planes = input.transpose(1, 2).reshape(batch * places, channels, *input.shape[3:])
    flat = weight.reshape(weight.shape[0], weight.shape[1] * depth, *weight.shape[3:])
    slices = conv_transpose2d(planes, flat, None, steps[1:], paddings[1:], extra[1:], groups, dilations[1:])
    slices = slices.reshape(batch, places, outputs, depth, *slices.shape[2:]).transpose(1, 2)
    slices = slices.reshape(batch, outputs, places * depth, *slices.shape[4:])
    # Every slice is added where its place of the kernel lies.
    length = (places - 1) * steps[0] + dilations[0] * (depth - 1) + 1
    at = np.arange(places)[:, None] * steps[0] + np.arange(depth) * dilations[0]
    total = ops.zeros((batch, outputs, length + extra[0], *slices.shape[3:]), dtype=slices.dtype, device=slices.device)
    total = total.index_add(2, as_tensor(at.reshape(-1), device=input.device), slices)
    result = total.narrow(2, paddings[0], length + extra[0] - 2 * paddings[0])
    return result if bias is None else result + bias.reshape(-1, 1, 1, 1)


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
    ``sparse`` changes nothing: the gradient is dense, and :class:`~graphtorch.optim.SparseAdam` takes it.

    Raises:
        AssertionError: ``padding_idx`` is out of range.
    """
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


def conv_tbc(input: Tensor, weight: Tensor, bias: Tensor, pad: int = 0) -> Tensor:
    """A convolution over (time, batch, channels) with a weight (kernel, in, out). See torch.conv_tbc."""
    result = conv1d(input.permute(1, 2, 0), weight.permute(2, 1, 0), bias, padding=pad)
    return result.permute(2, 0, 1)
