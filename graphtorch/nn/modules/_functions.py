"""The custom differentiable functions behind layers whose gradient is not the derivative of their result."""

from __future__ import annotations

from typing import Any

from graphtorch import ops
from graphtorch.autograd.function import Function
from graphtorch.tensor.tensor import Tensor

__all__ = ["CrossMapLRN2d"]


class CrossMapLRN2d(Function):
    """Response normalisation across channels as Torch7 had it, which PyTorch keeps for old models, numbers included.

    The result is ``x / (k + alpha / size * s) ** beta``, where s sums the squares of the 2 * reach - 1 channels around
    each, reach = (size + 1) // 2, and from channel ``reach`` on adds the square of channel 0 once more: the running sum
    behind it never drops that channel. The gradient is not that of this: it knows nothing of the extra channel, and
    its window of ``size`` channels begins ``reach`` channels below, one too far. A window of size 1 has none.
    """

    @staticmethod
    def forward(ctx: Any, input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1) -> Tensor:
        if input.dim() != 4:
            raise ValueError(f"CrossMapLRN2d: Expected input to be 4D, got {input.dim()}D instead.")
        reach = (size + 1) // 2
        squares = input * input
        sums = _sums_over_channels(squares, reach - 1, reach - 1)
        if input.shape[1] > reach:
            sums = ops.cat([sums[:, :reach], sums[:, reach:] + squares[:, :1]], 1)
        scale = sums * (alpha / size) + k
        output = scale**-beta * input
        ctx.size, ctx.alpha, ctx.beta = size, alpha, beta
        ctx.save_for_backward(input, output, scale)
        return output

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None, None]:
        (g,) = grad_outputs
        input, output, scale = ctx.saved_tensors
        before = (ctx.size + 1) // 2
        if ctx.size <= before:
            raise RuntimeError(f"CrossMapLRN2d: there is no gradient for a window of size {ctx.size}")
        ratios = _sums_over_channels(g * output / scale, before, ctx.size - 1 - before)
        grad = scale**-ctx.beta * g - (2 * ctx.alpha * ctx.beta / ctx.size) * input * ratios
        return grad, None, None, None, None


def _sums_over_channels(input: Tensor, before: int, after: int) -> Tensor:
    """For each channel of (N, C, H, W), the sum from ``before`` channels below it to ``after`` above it."""
    batch, channels = input.shape[:2]
    rows = ops.constant_pad_nd(input.reshape(batch, 1, channels, -1), (0, 0, before, after), 0.0)
    return ops.avg_pool2d(rows, (before + after + 1, 1), (1, 1), divisor_override=1).reshape(input.shape)
