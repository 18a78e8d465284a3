"""Dropout in its variants, built on ``bernoulli_`` so that a seed drops the same elements as in PyTorch."""

from __future__ import annotations

import math
import warnings

from graphtorch import ops
from graphtorch.tensor.tensor import Tensor

__all__ = ["alpha_dropout", "dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout"]

# The limit of SELU for large negative inputs, which alpha dropout uses in place of zero.
_SELU_FLOOR = 1.7580993408473766


def _check(p: float) -> None:
    if p < 0.0 or p > 1.0:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")


def _noise(input: Tensor, p: float, by_feature: bool) -> Tensor:
    """Ones with probability ``1 - p``, else zeros; ``by_feature`` draws one for each channel of each sample."""
    shape = tuple(input.shape)
    if by_feature:
        if len(shape) < 2:
            raise RuntimeError("Feature dropout requires at least 2 dimensions in the input")
        shape = shape[:2] + (1,) * (len(shape) - 2)
    return ops.empty(shape, dtype=input.dtype, device=input.device).bernoulli_(1 - p)


def _finish(input: Tensor, result: Tensor, inplace: bool) -> Tensor:
    return input.copy_(result) if inplace else result


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zero each element with probability ``p``, scale the others by ``1 / (1 - p)``.

    Raises:
        ValueError: ``p`` is outside [0, 1].
    """
    _check(p)
    result = ops.dropout(input, p, training)
    return _finish(input, result, inplace and result is not input)


def _drop_features(input: Tensor, p: float, training: bool, inplace: bool, add_batch: bool) -> Tensor:
    if p == 0 or not training or input.numel() == 0:
        return input
    if p == 1:
        return _finish(input, input * 0, inplace)
    noise = _noise(input.unsqueeze(0) if add_batch else input, p, by_feature=True) / (1 - p)
    return _finish(input, input * (noise.squeeze(0) if add_batch else noise), inplace)


def dropout1d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zero whole channels of (N, C, L) or (C, L) inputs.

    Raises:
        ValueError: ``p`` is outside [0, 1].
        RuntimeError: the input has another number of dimensions.
    """
    _check(p)
    if input.dim() not in (2, 3):
        raise RuntimeError(
            f"dropout1d: Expected 2D or 3D input, but received a {input.dim()}D input. Note that dropout1d exists to "
            "provide channel-wise dropout on inputs with 1 spatial dimension, a channel dimension, and an optional "
            "batch dimension (i.e. 2D or 3D inputs)."
        )
    return _drop_features(input, p, training, inplace, add_batch=input.dim() == 2)


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zero whole channels of (N, C, H, W) inputs; (N, C, L) inputs are taken as such, with a warning.

    Raises:
        ValueError: ``p`` is outside [0, 1].
    """
    _check(p)
    if input.dim() not in (3, 4):
        warnings.warn(_deprecated_rank("dropout2d", input.dim(), 2, "3D or 4D"), stacklevel=2)
    if input.dim() == 3:
        warnings.warn(
            "dropout2d: Received a 3D input to dropout2d and assuming that channel-wise 1D dropout behavior is "
            "desired - input is interpreted as shape (N, C, L), where C is the channel dim. This behavior will "
            "change in a future release to interpret the input as one without a batch dimension, i.e. shape "
            "(C, H, W). To maintain the 1D channel-wise dropout behavior, please switch to using dropout1d instead.",
            stacklevel=2,
        )
    return _drop_features(input, p, training, inplace, add_batch=False)


def dropout3d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zero whole channels of (N, C, D, H, W) or (C, D, H, W) inputs.

    Raises:
        ValueError: ``p`` is outside [0, 1].
    """
    _check(p)
    if input.dim() not in (4, 5):
        warnings.warn(_deprecated_rank("dropout3d", input.dim(), 3, "4D or 5D"), stacklevel=2)
    return _drop_features(input, p, training, inplace, add_batch=input.dim() != 5)


def _deprecated_rank(name: str, ndim: int, spatial: int, expected: str) -> str:
    return (
        f"{name}: Received a {ndim}-D input to {name}, which is deprecated and will result in an error in a future "
        "release. To retain the behavior and silence this warning, please use dropout instead. Note that "
        f"{name} exists to provide channel-wise dropout on inputs with {spatial} spatial dimensions, a channel "
        f"dimension, and an optional batch dimension (i.e. {expected} inputs)."
    )


def _alpha_drop(input: Tensor, p: float, training: bool, inplace: bool, by_feature: bool) -> Tensor:
    _check(p)
    if p == 0 or not training or input.numel() == 0:
        return input
    if p == 1:
        return _finish(input, input * 0, inplace)
    noise = _noise(input, p, by_feature)
    scale = 1.0 / math.sqrt((_SELU_FLOOR * _SELU_FLOOR * p + 1) * (1 - p))
    shift = (noise - 1) * (_SELU_FLOOR * scale) + _SELU_FLOOR * scale * p
    return _finish(input, input * (noise * scale) + shift, inplace)


def alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """Dropout that keeps mean and variance of SELU activations (Klambauer et al. 2017).

    Raises:
        ValueError: ``p`` is outside [0, 1].
    """
    return _alpha_drop(input, p, training, inplace, by_feature=False)


def feature_alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """Alpha dropout of whole channels.

    Raises:
        ValueError: ``p`` is outside [0, 1].
    """
    return _alpha_drop(input, p, training, inplace, by_feature=True)
