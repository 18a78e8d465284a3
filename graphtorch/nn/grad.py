"""Gradients of convolutions as functions of their own, `torch.nn.grad`.

See https://docs.pytorch.org/docs/stable/nn.functional.html#convolution-functions for the convolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphtorch.autograd.engine import grad
from graphtorch.autograd.grad_mode import enable_grad
from graphtorch.autograd.state import state
from graphtorch.nn.functional import conv1d, conv2d, conv3d
from graphtorch.tensor.tensor import Tensor

Sizes = int | tuple[int, ...]


def _of(
    convolution: Callable[..., Tensor], place: int, size: Sequence[int], other: Tensor, grad_output: Tensor, *how: Any
) -> Tensor:
    """The gradient for one operand (0: the input, 1: the weight), of which the size is known, by the convolution's
    own derivative: it is linear in each operand."""
    wanted = state.grad_enabled
    with enable_grad():
        operand = grad_output.new_empty(tuple(size)).requires_grad_()
        stride, padding, dilation, groups = how
        operands = (operand, other) if place == 0 else (other, operand)
        output = convolution(*operands, None, stride, padding, dilation, groups)
        (found,) = grad(output, operand, grad_output, create_graph=wanted)
    assert found is not None
    return found


def conv1d_input(
    input_size: Sequence[int],
    weight: Tensor,
    grad_output: Tensor,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """The gradient of `conv1d` for its input, of size `input_size`."""
    return _of(conv1d, 0, input_size, weight, grad_output, stride, padding, dilation, groups)


def conv1d_weight(
    input: Tensor,
    weight_size: Sequence[int],
    grad_output: Tensor,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """The gradient of `conv1d` for its weight, of size `weight_size`."""
    return _of(conv1d, 1, weight_size, input, grad_output, stride, padding, dilation, groups)


def conv2d_input(
    input_size: Sequence[int],
    weight: Tensor,
    grad_output: Tensor,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """The gradient of `conv2d` for its input, of size `input_size`."""
    return _of(conv2d, 0, input_size, weight, grad_output, stride, padding, dilation, groups)


def conv2d_weight(
    input: Tensor,
    weight_size: Sequence[int],
    grad_output: Tensor,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """The gradient of `conv2d` for its weight, of size `weight_size`."""
    return _of(conv2d, 1, weight_size, input, grad_output, stride, padding, dilation, groups)


def conv3d_input(
    input_size: Sequence[int],
    weight: Tensor,
    grad_output: Tensor,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """The gradient of `conv3d` for its input, of size `input_size`."""
    return _of(conv3d, 0, input_size, weight, grad_output, stride, padding, dilation, groups)


def conv3d_weight(
    input: Tensor,
    weight_size: Sequence[int],
    grad_output: Tensor,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """The gradient of `conv3d` for its weight, of size `weight_size`."""
    return _of(conv3d, 1, weight_size, input, grad_output, stride, padding, dilation, groups)
