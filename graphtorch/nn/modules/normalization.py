"""Normalisation within each sample, the same in training and evaluation."""

from __future__ import annotations

from typing import Any

from graphtorch import ops
from graphtorch.nn import functional as F
from graphtorch.nn import init
from graphtorch.nn.modules._functions import CrossMapLRN2d as _cross_map_lrn2d
from graphtorch.nn.modules.module import Module
from graphtorch.nn.parameter import Parameter
from graphtorch.tensor.tensor import Tensor

__all__ = ["CrossMapLRN2d", "GroupNorm", "LayerNorm", "LocalResponseNorm", "RMSNorm"]


class _Affine(Module):
    """Registers ``weight`` (ones) and ``bias`` (zeros), each where it is wanted and None elsewhere."""

    weight: Parameter | None
    bias: Parameter | None

    def _register_affine(self, shape: Any, weight: bool, bias: bool | None, device: Any, dtype: Any) -> None:
        """Create the parameters; with ``bias=None`` the layer has no attribute of that name at all."""
        wanted = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
        for name, present in wanted.items():
            parameter = Parameter(ops.empty(shape, device=device, dtype=dtype)) if present else None
            self.register_parameter(name, parameter)

    def reset_parameters(self) -> None:
        """Put the weight to ones and the bias to zeros."""
        for name, fill in (("weight", init.ones_), ("bias", init.zeros_)):
            parameter = self._parameters.get(name)
            if parameter is not None:
                fill(parameter)


class LayerNorm(_Affine):
    """Normalises over the last dimensions, whose sizes are ``normalized_shape`` (Ba et al. 2016).

    See https://docs.pytorch.org/docs/stable/generated/torch.nn.LayerNorm.html
    """

    def __init__(
        self,
        normalized_shape: Any,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.normalized_shape = _as_shape(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        self._register_affine(self.normalized_shape, elementwise_affine, elementwise_affine and bias, device, dtype)
        self.reset_parameters()

    def forward(self, input: Tensor) -> Tensor:
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, "
            f"bias={self.bias is not None}"
        )


class GroupNorm(_Affine):
    """Normalises (N, C, *) inputs over groups of channels and all positions (Wu & He 2018).

    Raises:
        ValueError: ``num_groups`` does not divide ``num_channels``.

    See https://docs.pytorch.org/docs/stable/generated/torch.nn.GroupNorm.html
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if num_channels % num_groups != 0:
            raise ValueError(f"num_channels ({num_channels}) must be divisible by num_groups ({num_groups})")
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = eps
        self.affine = affine
        self._register_affine(num_channels, affine, affine and bias, device, dtype)
        self.reset_parameters()

    def forward(self, input: Tensor) -> Tensor:
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )


class RMSNorm(_Affine):
    """Divides by the root mean square over the last dimensions (Zhang & Sennrich 2019).

    ``eps=None`` means the machine epsilon of the dtype the mean is taken in.

    See https://docs.pytorch.org/docs/stable/generated/torch.nn.RMSNorm.html
    """

    def __init__(
        self,
        normalized_shape: Any,
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.normalized_shape = _as_shape(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        self._register_affine(self.normalized_shape, elementwise_affine, None, device, dtype)
        self.reset_parameters()

    def forward(self, input: Tensor) -> Tensor:
        return F.rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class _AcrossChannels(Module):
    """What the two response normalisations hold: the width of the window, and the numbers of the formula."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


class LocalResponseNorm(_AcrossChannels):
    """Divides (N, C, *) by a power of the mean square over ``size`` neighbouring channels (Krizhevsky et al. 2012).

    See https://docs.pytorch.org/docs/stable/generated/torch.nn.LocalResponseNorm.html
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)


class CrossMapLRN2d(_AcrossChannels):
    """`LocalResponseNorm` of (N, C, H, W) as Torch7 computed it, with the windows and the gradient that it had.

    See https://docs.pytorch.org/docs/stable/generated/torch.nn.CrossMapLRN2d.html
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1) -> None:
        super().__init__(size, alpha, beta, k)

    def forward(self, input: Tensor) -> Tensor:
        return _cross_map_lrn2d.apply(input, self.size, self.alpha, self.beta, self.k)


def _as_shape(value: Any) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(value)
