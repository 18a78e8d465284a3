"""Convolution layers."""

from __future__ import annotations

from typing import Any

from graphtorch import ops
from graphtorch.nn import functional as F
from graphtorch.nn.modules._sizes import Size, repeat
from graphtorch.nn.modules.linear import reset_affine
from graphtorch.nn.modules.module import Module
from graphtorch.nn.parameter import Parameter
from graphtorch.tensor.tensor import Tensor

__all__ = ["Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"]


class _ConvNd(Module):
    """What the convolutions share; ``spatial_dims`` is the number of spatial dimensions."""

    spatial_dims: int
    transposed = False
    weight: Parameter
    bias: Parameter | None
    padding: str | tuple[int, ...]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: str | Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if groups <= 0:
            raise ValueError("groups must be a positive integer")
        if in_channels % groups != 0:
            raise ValueError("in_channels must be divisible by groups")
        if out_channels % groups != 0:
            raise ValueError("out_channels must be divisible by groups")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = repeat(kernel_size, self.spatial_dims)
        self.stride = repeat(stride, self.spatial_dims)
        self.padding = padding if isinstance(padding, str) else repeat(padding, self.spatial_dims)
        self.dilation = repeat(dilation, self.spatial_dims)
        self.groups = groups
        self.padding_mode = padding_mode
        self.output_padding: tuple[int, ...] = (0,) * self.spatial_dims
        self._check_padding()
        first, second = (in_channels, out_channels) if self.transposed else (out_channels, in_channels)
        shape = (first, second // groups, *self.kernel_size)
        self.weight = Parameter(ops.empty(shape, device=device, dtype=dtype))
        if bias:
            self.bias = Parameter(ops.empty(out_channels, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def _check_padding(self) -> None:
        if isinstance(self.padding, str):
            strings = {"same", "valid"}
            if self.padding not in strings:
                raise ValueError(f"Invalid padding string {self.padding!r}, should be one of {strings}")
            if self.padding == "same" and any(s != 1 for s in self.stride):
                raise ValueError("padding='same' is not supported for strided convolutions")
        modes = {"zeros", "reflect", "replicate", "circular"}
        if self.padding_mode not in modes:
            raise ValueError(f"padding_mode must be one of {modes}, but got padding_mode='{self.padding_mode}'")

    def reset_parameters(self) -> None:
        """Draw weight and bias uniformly within ``1 / sqrt(fan_in)``."""
        reset_affine(self.weight, self.bias)

    def _explicit_padding(self) -> list[int]:
        """The padding as ``F.pad`` takes it: (before, after) per dimension, the last dimension first."""
        amounts: list[int] = []
        for axis in reversed(range(self.spatial_dims)):
            if self.padding == "valid":
                before = after = 0
            elif self.padding == "same":
                total = self.dilation[axis] * (self.kernel_size[axis] - 1)
                before, after = total // 2, total - total // 2
            else:
                before = after = int(self.padding[axis])
            amounts += [before, after]
        return amounts

    def _convolve(self, convolution: Any, input: Tensor) -> Tensor:
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            input = F.pad(input, self._explicit_padding(), mode=self.padding_mode)
            padding = (0,) * self.spatial_dims
        result: Tensor = convolution(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)
        return result

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding != (0,) * len(self.padding):
            text += f", padding={self.padding}"
        if self.dilation != (1,) * len(self.dilation):
            text += f", dilation={self.dilation}"
        if self.output_padding != (0,) * self.spatial_dims:
            text += f", output_padding={self.output_padding}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        if self.padding_mode != "zeros":
            text += f", padding_mode={self.padding_mode}"
        return text


class Conv1d(_ConvNd):
    """Cross-correlation of (N, C_in, L) or (C_in, L) inputs with weight (C_out, C_in / groups, K).

    See https://docs.pytorch.org/docs/stable/generated/torch.nn.Conv1d.html
    """

    spatial_dims = 1

    def forward(self, input: Tensor) -> Tensor:
        return self._convolve(F.conv1d, input)


class Conv2d(_ConvNd):
    """Cross-correlation of (N, C_in, H, W) or (C_in, H, W) inputs with weight (C_out, C_in / groups, KH, KW).

    See https://docs.pytorch.org/docs/stable/generated/torch.nn.Conv2d.html
    """

    spatial_dims = 2

    def forward(self, input: Tensor) -> Tensor:
        return self._convolve(F.conv2d, input)


class Conv3d(_ConvNd):
    """Cross-correlation of (N, C_in, D, H, W) or (C_in, D, H, W) inputs with weight (C_out, C_in / groups, KD, KH, KW).

    See https://docs.pytorch.org/docs/stable/generated/torch.nn.Conv3d.html
    """

    spatial_dims = 3

    def forward(self, input: Tensor) -> Tensor:
        return self._convolve(F.conv3d, input)


class _ConvTransposeNd(_ConvNd):
    """The adjoint of a convolution: its output is as large as a convolution's input may be."""

    transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if padding_mode != "zeros":
            raise ValueError(f'Only "zeros" padding mode is supported for {type(self).__name__}')
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )
        self.output_padding = repeat(output_padding, self.spatial_dims)

    def _extra_size(self, input: Tensor, output_size: Any) -> tuple[int, ...]:
        """The output padding that gives ``output_size``, which may include the batch and channel sizes.

        Raises:
            ValueError: no output padding gives it.
        """
        if output_size is None:
            return self.output_padding
        count = self.spatial_dims
        leading = 2 if input.dim() == count + 2 else 1
        wanted = list(output_size)
        if len(wanted) == leading + count:
            wanted = wanted[leading:]
        if len(wanted) != count:
            raise ValueError(
                f"ConvTranspose{count}D: for {input.dim()}D input, output_size must have {count} or {leading + count} "
                f"elements (got {len(wanted)})"
            )
        padding: Any = self.padding
        smallest = [
            (input.shape[leading + d] - 1) * self.stride[d]
            - 2 * padding[d]
            + self.dilation[d] * (self.kernel_size[d] - 1)
            + 1
            for d in range(count)
        ]
        largest = [size + stride - 1 for size, stride in zip(smallest, self.stride, strict=True)]
        if any(not low <= size <= high for low, size, high in zip(smallest, wanted, largest, strict=True)):
            raise ValueError(
                f"requested an output size of {wanted}, but valid sizes range from {smallest} to {largest} (for an "
                f"input of {input.size()[2:]})"
            )
        return tuple(size - low for size, low in zip(wanted, smallest, strict=True))

    def _deconvolve(self, convolution: Any, input: Tensor, output_size: Any) -> Tensor:
        extra = self._extra_size(input, output_size)
        result: Tensor = convolution(
            input, self.weight, self.bias, self.stride, self.padding, extra, self.groups, self.dilation
        )
        return result


class ConvTranspose1d(_ConvTransposeNd):
    """The adjoint of :class:`Conv1d`; weight (C_in, C_out / groups, K).

    See https://docs.pytorch.org/docs/stable/generated/torch.nn.ConvTranspose1d.html
    """

    spatial_dims = 1

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        return self._deconvolve(F.conv_transpose1d, input, output_size)


class ConvTranspose2d(_ConvTransposeNd):
    """The adjoint of :class:`Conv2d`; weight (C_in, C_out / groups, KH, KW).

    See https://docs.pytorch.org/docs/stable/generated/torch.nn.ConvTranspose2d.html
    """

    spatial_dims = 2

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        return self._deconvolve(F.conv_transpose2d, input, output_size)


class ConvTranspose3d(_ConvTransposeNd):
    """The adjoint of :class:`Conv3d`; weight (C_in, C_out / groups, KD, KH, KW).

    See https://docs.pytorch.org/docs/stable/generated/torch.nn.ConvTranspose3d.html
    """

    spatial_dims = 3

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        return self._deconvolve(F.conv_transpose3d, input, output_size)
