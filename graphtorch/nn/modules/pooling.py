"""Pooling layers over the last one, two or three dimensions of inputs with or without a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from graphtorch.nn import functional as F
from graphtorch.nn.modules._sizes import Size, repeat
from graphtorch.nn.modules.module import Module
from graphtorch.tensor.tensor import Tensor

__all__ = [
    "AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d", "AdaptiveMaxPool1d", "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d", "AvgPool1d", "AvgPool2d", "AvgPool3d", "LPPool1d", "LPPool2d", "LPPool3d",
    "FractionalMaxPool2d", "FractionalMaxPool3d", "MaxPool1d", "MaxPool2d", "MaxPool3d", "MaxUnpool1d", "MaxUnpool2d",
    "MaxUnpool3d",
]  # fmt: skip


class _MaxPool(Module):
    """Maximum over windows; returns (output, indices) with ``return_indices``."""

    pool: ClassVar[Any]

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = stride if stride is not None else kernel_size
        self.padding = padding
        self.dilation = dilation
        self.return_indices = return_indices
        self.ceil_mode = ceil_mode

    def forward(self, input: Tensor) -> Any:
        return type(self).pool(
            input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices
        )

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class MaxPool1d(_MaxPool):
    """Maximum over windows of (N, C, L) or (C, L) inputs.

    See https://docs.pytorch.org/docs/stable/generated/torch.nn.MaxPool1d.html
    """

    pool = F.max_pool1d


class MaxPool2d(_MaxPool):
    """Maximum over windows of (N, C, H, W) or (C, H, W) inputs.

    See https://docs.pytorch.org/docs/stable/generated/torch.nn.MaxPool2d.html
    """

    pool = F.max_pool2d


class MaxPool3d(_MaxPool):
    """Maximum over windows of (N, C, D, H, W) or (C, D, H, W) inputs.

    See https://docs.pytorch.org/docs/stable/generated/torch.nn.MaxPool3d.html
    """

    pool = F.max_pool3d


class _MaxUnpool(Module):
    """Puts the maxima back where they were, with zeros elsewhere."""

    spatial_dims: ClassVar[int]
    unpool: ClassVar[Any]

    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0) -> None:
        super().__init__()
        count = self.spatial_dims
        self.kernel_size = repeat(kernel_size, count)
        self.stride = repeat(stride if stride is not None else kernel_size, count)
        self.padding = repeat(padding, count)

    def forward(self, input: Tensor, indices: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """``indices`` are those that pooling returned; ``output_size`` tells sizes apart that pool to the same."""
        return type(self).unpool(input, indices, self.kernel_size, self.stride, self.padding, output_size)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxUnpool1d(_MaxUnpool):
    """The partial inverse of :class:`MaxPool1d`."""

    spatial_dims, unpool = 1, F.max_unpool1d


class MaxUnpool2d(_MaxUnpool):
    """The partial inverse of :class:`MaxPool2d`."""

    spatial_dims, unpool = 2, F.max_unpool2d


class MaxUnpool3d(_MaxUnpool):
    """The partial inverse of :class:`MaxPool3d`."""

    spatial_dims, unpool = 3, F.max_unpool3d


class _AvgPool(Module):
    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool1d(_AvgPool):
    """Mean over windows of (N, C, L) or (C, L) inputs.

    See https://docs.pytorch.org/docs/stable/generated/torch.nn.AvgPool1d.html
    """

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__()
        self.kernel_size = repeat(kernel_size, 1)
        self.stride = repeat(stride if stride is not None else kernel_size, 1)
        self.padding = repeat(padding, 1)
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad

    def forward(self, input: Tensor) -> Tensor:
        return F.avg_pool1d(input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)


class _AvgPoolNd(_AvgPool):
    pool: ClassVar[Any]

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = stride if stride is not None else kernel_size
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override

    def forward(self, input: Tensor) -> Tensor:
        return type(self).pool(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )


class AvgPool2d(_AvgPoolNd):
    """Mean over windows of (N, C, H, W) or (C, H, W) inputs.

    See https://docs.pytorch.org/docs/stable/generated/torch.nn.AvgPool2d.html
    """

    pool = F.avg_pool2d


class AvgPool3d(_AvgPoolNd):
    """Mean over windows of (N, C, D, H, W) or (C, D, H, W) inputs.

    See https://docs.pytorch.org/docs/stable/generated/torch.nn.AvgPool3d.html
    """

    pool = F.avg_pool3d


class _LPPool(Module):
    pool: ClassVar[Any]

    def __init__(
        self, norm_type: float, kernel_size: Size, stride: Size | None = None, ceil_mode: bool = False
    ) -> None:
        super().__init__()
        self.norm_type = norm_type
        self.kernel_size = kernel_size
        self.stride = stride
        self.ceil_mode = ceil_mode

    def forward(self, input: Tensor) -> Tensor:
        return type(self).pool(input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode)

    def extra_repr(self) -> str:
        return (
            f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"ceil_mode={self.ceil_mode}"
        )


class LPPool1d(_LPPool):
    """``(sum of x ** p) ** (1 / p)`` over windows of (N, C, L) or (C, L) inputs."""

    pool = F.lp_pool1d


class LPPool2d(_LPPool):
    """``(sum of x ** p) ** (1 / p)`` over windows of (N, C, H, W) or (C, H, W) inputs."""

    pool = F.lp_pool2d


class LPPool3d(_LPPool):
    """``(sum of x ** p) ** (1 / p)`` over windows of (N, C, D, H, W) or (C, D, H, W) inputs."""

    pool = F.lp_pool3d


class _AdaptiveAvgPool(Module):
    """Mean over as many windows as the output size asks for; None keeps a dimension."""

    pool: ClassVar[Any]

    def __init__(self, output_size: Any) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        return type(self).pool(input, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """Mean over as many windows of the last dimension as asked for."""

    pool = F.adaptive_avg_pool1d


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """Mean over as many windows as the output size asks for; None keeps a dimension.

    See https://docs.pytorch.org/docs/stable/generated/torch.nn.AdaptiveAvgPool2d.html
    """

    pool = F.adaptive_avg_pool2d


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """Mean over as many windows of the last three dimensions as asked for; None keeps a dimension."""

    pool = F.adaptive_avg_pool3d


class _AdaptiveMaxPool(Module):
    """Maximum over as many windows as the output size asks for; with ``return_indices`` (output, indices)."""

    pool: ClassVar[Any]

    def __init__(self, output_size: Any, return_indices: bool = False) -> None:
        super().__init__()
        self.output_size = output_size
        self.return_indices = return_indices

    def forward(self, input: Tensor) -> Any:
        return type(self).pool(input, self.output_size, self.return_indices)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """Maximum over as many windows of the last dimension as asked for."""

    pool = F.adaptive_max_pool1d


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """Maximum over as many windows of the last two dimensions as asked for; None keeps a dimension."""

    pool = F.adaptive_max_pool2d


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """Maximum over as many windows of the last three dimensions as asked for; None keeps a dimension."""

    pool = F.adaptive_max_pool3d


class _FractionalMaxPool(Module):
    """Maximum over windows at random distances, to ``output_size`` or to ``output_ratio`` of the input's size.

    Raises:
        ValueError: neither or both are given, or a ratio is not within (0, 1).
    """

    pool: ClassVar[Any]
    spatial_dims: ClassVar[int]

    def __init__(
        self,
        kernel_size: Size,
        output_size: Size | None = None,
        output_ratio: float | Sequence[float] | None = None,
        return_indices: bool = False,
        _random_samples: Tensor | None = None,
    ) -> None:
        super().__init__()
        count = self.spatial_dims
        self.kernel_size = repeat(kernel_size, count)
        self.return_indices = return_indices
        self.register_buffer("_random_samples", _random_samples)
        self.output_size = None if output_size is None else repeat(output_size, count)
        ratios = (output_ratio,) * count if isinstance(output_ratio, int | float) else output_ratio
        self.output_ratio = None if ratios is None else tuple(ratios)
        name = type(self).__name__
        if output_size is None and output_ratio is None:
            raise ValueError(f"{name} requires specifying either an output size, or a pooling ratio")
        if output_size is not None and output_ratio is not None:
            raise ValueError("only one of output_size and output_ratio may be specified")
        if self.output_ratio is not None and not all(0 < ratio < 1 for ratio in self.output_ratio):
            raise ValueError(f"output_ratio must be between 0 and 1 (got {output_ratio})")

    def forward(self, input: Tensor) -> Any:
        return type(self).pool(
            input, self.kernel_size, self.output_size, self.output_ratio, self.return_indices, self._random_samples
        )


class FractionalMaxPool2d(_FractionalMaxPool):
    """Fractional max pooling of (N, C, H, W) or (C, H, W) inputs (Graham 2014).

    See https://docs.pytorch.org/docs/stable/generated/torch.nn.FractionalMaxPool2d.html
    """

    pool = F.fractional_max_pool2d
    spatial_dims = 2


class FractionalMaxPool3d(_FractionalMaxPool):
    """Fractional max pooling of (N, C, D, H, W) or (C, D, H, W) inputs."""

    pool = F.fractional_max_pool3d
    spatial_dims = 3
