"""Normalisations: LayerNorm's operator, and compositions of means and variances.

In half precision the statistics and the arithmetic are float32, as in PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphtorch import ops
from graphtorch.autograd.compositions import in_one_piece
from graphtorch.autograd.grad_mode import no_grad
from graphtorch.autograd.graph import composes
from graphtorch.ops.arrays import update
from graphtorch.ops.shaping import channels_as
from graphtorch.tensor.dtypes import bfloat16, finfo, float16, float32
from graphtorch.tensor.tensor import Tensor

__all__ = ["batch_norm", "group_norm", "instance_norm", "layer_norm", "local_response_norm", "rms_norm"]


def _widen(input: Tensor) -> Tensor:
    return input.to(float32) if input.dtype in (float16, bfloat16) else input


def _standardize(x: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    """Subtract the mean over ``dims`` and divide by the standard deviation."""
    variance, mean = ops.var_mean(x, dims, correction=0, keepdim=True)
    return (x - mean) * (variance + eps).rsqrt()


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    if weight is not None:
        x = x * weight
    return x if bias is None else x + bias


def _normalized_dims(input: Tensor, normalized_shape: Sequence[int]) -> tuple[int, ...]:
    shape = tuple(normalized_shape)
    if len(shape) < 1:
        raise RuntimeError(
            "Expected normalized_shape to be at least 1-dimensional, i.e., containing at least one element, "
            f"but got normalized_shape = {list(shape)}"
        )
    if input.dim() < len(shape) or tuple(input.shape[input.dim() - len(shape) :]) != shape:
        expected = ", ".join(str(n) for n in shape)
        raise RuntimeError(
            f"Given normalized_shape={list(shape)}, expected input with shape [*, {expected}], but got input of "
            f"size{list(input.shape)}"
        )
    return tuple(range(-len(shape), 0))


def _check_affine_shape(name: str, tensor: Tensor | None, shape: Sequence[int]) -> None:
    if tensor is not None and tuple(tensor.shape) != tuple(shape):
        raise RuntimeError(
            f"Expected {name} to be of same shape as normalized_shape, but got {name} of shape {list(tensor.shape)} "
            f"and normalized_shape = {list(shape)}"
        )


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Standardise over the last dimensions, of sizes ``normalized_shape``, then scale and shift elementwise.

    Raises:
        RuntimeError: the shapes do not fit.
    """
    return ops.layer_norm(input, normalized_shape, weight, bias, eps)


def rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """Divide by the root mean square over the last dimensions; ``eps=None`` is the machine epsilon.

    Raises:
        RuntimeError: the shapes do not fit.
    """
    dims = _normalized_dims(input, normalized_shape)
    _check_affine_shape("weight", weight, normalized_shape)
    return _rms_norm(input, weight, dims, eps)


@in_one_piece("FusedRmsNormBackward0")
def _rms_norm(input: Tensor, weight: Tensor | None, dims: tuple[int, ...], eps: float | None) -> Tensor:
    x = _widen(input)
    small = finfo(x.dtype).eps if eps is None else eps
    normalized = x * ((x * x).mean(dims, keepdim=True) + small).rsqrt()
    return _affine(normalized, weight, None).to(input.dtype)


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Standardise (N, C, *) over each of ``num_groups`` groups of channels, then scale and shift by channel.

    Raises:
        RuntimeError: there are fewer than two dimensions, or the groups do not divide the channels.
        ValueError: there is only one value in a group.
    """
    if input.dim() < 2:
        raise RuntimeError(f"Expected at least 2 dimensions for input tensor but received {input.dim()}")
    batch, channels = input.shape[0], input.shape[1]
    positions = math.prod(input.shape[2:])
    if batch * channels // num_groups * positions == 1:
        size = [batch * channels // num_groups, num_groups, *input.shape[2:]]
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {size}")
    if channels % num_groups != 0:
        raise RuntimeError(
            f"Expected number of channels in input to be divisible by num_groups, but got input of shape "
            f"{list(input.shape)} and num_groups={num_groups}"
        )
    for name, parameter in (("weight", weight), ("bias", bias)):
        if parameter is not None and tuple(parameter.shape) != (channels,):
            raise RuntimeError(
                f"Expected {name} to be a vector of size equal to the number of channels in input, but got {name} of "
                f"shape {list(parameter.shape)} and input of shape {list(input.shape)}"
            )
    return _group_norm(input, weight, bias, num_groups, eps)


@in_one_piece("NativeGroupNormBackward0")
def _group_norm(input: Tensor, weight: Tensor | None, bias: Tensor | None, num_groups: int, eps: float) -> Tensor:
    batch, channels = input.shape[0], input.shape[1]
    grouped = _widen(input).reshape(batch, num_groups, channels // num_groups * math.prod(input.shape[2:]))
    normalized = _standardize(grouped, (-1,), eps).reshape(input.shape)
    by_channel = [1, channels] + [1] * (input.dim() - 2)
    scaled = _affine(
        normalized,
        None if weight is None else weight.reshape(by_channel),
        None if bias is None else bias.reshape(by_channel),
    )
    return channels_as(scaled.to(input.dtype), input)


@composes("NativeBatchNormBackward0")
def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: Any = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Standardise each channel (dimension 1) over all other dimensions, then scale and shift by channel.

    With ``training`` the statistics are the batch's, and the running ones, where given, move towards them by
    ``momentum``, in place; otherwise the running ones are used.

    Raises:
        ValueError: training with one value a channel, or ``eps`` is out of its range.
        RuntimeError: not training, and a running statistic is missing.
    """
    if training and input.shape[0] * math.prod(input.shape[2:]) == 1:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {input.size()}")
    if training and eps <= 0.0:
        raise ValueError(f"batch_norm eps must be positive during training, but got {eps}")
    if eps < 0.0:
        raise ValueError(f"batch_norm eps must be non-negative, but got {eps}")
    if not training and (running_mean is None or running_var is None):
        missing = "running_mean" if running_mean is None else "running_var"
        raise RuntimeError(f"Expected {missing} to be defined in evaluation mode")
    if input.numel() == 0:  # no batch, no statistics
        return _affine(input.clone(), None if weight is None else weight[0], None if bias is None else bias[0])
    channels = input.shape[1]
    statistics = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    for name, tensor in statistics.items():
        if tensor is not None and tensor.numel() != channels:
            raise RuntimeError(f"{name} should contain {channels} elements not {tensor.numel()}")
    if not training:
        assert running_mean is not None and running_var is not None
        return _batch_norm_of(input, weight, bias, running_mean, running_var, eps)
    result, mean, variance = _batch_norm(input, weight, bias, eps)
    count = input.shape[0] * math.prod(input.shape[2:])
    with no_grad():
        if running_mean is not None:
            _move_towards(running_mean, mean, 1.0, momentum)
        if running_var is not None:
            if getattr(count, "is_symbolic_int", False):  # a quotient of symbolic sizes would fix them
                _move_towards(running_var, variance * count / (count - 1), 1.0, momentum)
            else:
                _move_towards(running_var, variance, count / (count - 1), momentum)
    return result


@in_one_piece("NativeBatchNormBackward0")
def _batch_norm(input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """The normalised input, and the mean and the variance of each channel."""
    x = _widen(input)
    dims = (0, *range(2, input.dim()))
    # One operator: its derivative does not go through the mean, whose part is zero; gradients then take one pass.
    variance, mean = ops.var_mean(x, dims, correction=0, keepdim=True)
    result = _scaled(x - mean, variance, weight, bias, eps).to(input.dtype)
    return result, mean.reshape(x.shape[1]), variance.reshape(x.shape[1])


@in_one_piece("NativeBatchNormBackward0")
def _batch_norm_of(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, variance: Tensor, eps: float
) -> Tensor:
    """The input normalised with given statistics."""
    by_channel = [1, input.shape[1]] + [1] * (input.dim() - 2)
    centred = _widen(input) - mean.reshape(by_channel)
    return _scaled(centred, variance.reshape(by_channel), weight, bias, eps).to(input.dtype)


def _scaled(centred: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    by_channel = [1, centred.shape[1]] + [1] * (centred.dim() - 2)
    return _affine(
        centred * (variance + eps).rsqrt(),
        None if weight is None else weight.reshape(by_channel),
        None if bias is None else bias.reshape(by_channel),
    )


def _move_towards(running: Tensor, batch: Tensor, factor: float, momentum: Any) -> None:
    """Move a running statistic towards a batch's times `factor`."""
    if type(momentum) is float and update(_moved, (running,), batch, factor, momentum):
        return
    wanted = batch.detach() if factor == 1 else batch.detach() * factor
    running.mul_(1 - momentum).add_(wanted.reshape(running.shape).to(running.dtype) * momentum)


def _moved(running: Any, batch: Any, factor: float, momentum: float) -> None:
    """`_move_towards` on arrays."""
    np.multiply(running, 1 - momentum, running)
    change = batch * momentum if factor == 1 else batch * factor * momentum
    np.add(running, change, running)


@composes("ViewBackward0")
def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Batch normalisation of each sample on its own; the running statistics take the mean over the samples.

    Raises:
        ValueError: the statistics are the input's, and it has one position only.
    """
    if use_input_stats and math.prod(input.shape[2:]) == 1:
        raise ValueError(f"Expected more than 1 spatial element when training, got input size {input.size()}")
    batch, channels = input.shape[0], input.shape[1]

    def repeated(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.repeat(batch)

    means, variances = repeated(running_mean), repeated(running_var)
    result = batch_norm(
        input.contiguous().reshape(1, batch * channels, *input.shape[2:]),
        means,
        variances,
        repeated(weight),
        repeated(bias),
        use_input_stats,
        momentum,
        eps,
    )
    with no_grad():
        for running, each in ((running_mean, means), (running_var, variances)):
            if running is not None and each is not None:
                running.copy_(each.reshape(batch, channels).mean(0))
    return result.reshape(input.shape)


def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """Divide (N, C, *) by a power of the mean square over ``size`` neighbouring channels (Krizhevsky et al. 2012).

    Raises:
        ValueError: the input has fewer than three dimensions.
    """
    if input.dim() < 3:
        raise ValueError(f"Expected 3D or higher dimensionality input (got {input.dim()} dimensions)")
    if input.numel() == 0:
        return input
    batch, channels = input.shape[:2]
    squares = (input * input).reshape(batch, 1, channels, -1)
    padded = ops.constant_pad_nd(squares, (0, 0, size // 2, (size - 1) // 2), 0.0)
    means = ops.avg_pool2d(padded, (size, 1), (1, 1)).reshape(input.shape)
    return input / (means * alpha + k).pow(beta)
