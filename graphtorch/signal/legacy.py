"""The older window functions of the main namespace, `torch.hann_window` and so on: periodic unless told otherwise.

See https://docs.pytorch.org/docs/stable/torch.html#spectral-ops."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from graphtorch import ops
from graphtorch.signal import windows
from graphtorch.tensor.dtypes import get_default_dtype
from graphtorch.tensor.tensor import Tensor


def _made(make: Callable[..., Tensor], window_length: int, periodic: bool, options: dict[str, Any]) -> Tensor:
    options.pop("pin_memory", None)
    return make(window_length, sym=not periodic, **options)


def bartlett_window(window_length: int, periodic: bool = True, **options: Any) -> Tensor:
    """A triangle. See torch.bartlett_window."""
    return _made(windows.bartlett, window_length, periodic, options)


def blackman_window(window_length: int, periodic: bool = True, **options: Any) -> Tensor:
    """A sum of three cosines, in the window's own precision. See torch.blackman_window."""
    if window_length < 2:
        return _made(windows.blackman, window_length, periodic, options)
    options.pop("pin_memory", None)
    requires_grad = options.pop("requires_grad", False)
    options.setdefault("dtype", get_default_dtype())
    angle: Tensor = ops.arange(window_length, **options) * (
        math.pi / (window_length if periodic else window_length - 1)
    )
    made: Tensor = (angle * 4).cos() * 0.08 - (angle * 2).cos() * 0.5 + 0.42
    return made.requires_grad_(requires_grad)


def hann_window(window_length: int, periodic: bool = True, **options: Any) -> Tensor:
    """A raised cosine. See torch.hann_window."""
    return _made(windows.hann, window_length, periodic, options)


def hamming_window(
    window_length: int, periodic: bool = True, alpha: float = 0.54, beta: float = 0.46, **options: Any
) -> Tensor:
    """`alpha - beta cos(2 pi n / N)`. See torch.hamming_window."""
    shape = _made(windows.hann, window_length, periodic, options)  # 0.5 - 0.5 cos
    if window_length < 2:
        return shape
    made: Tensor = 2 * beta * shape + (alpha - beta)
    return made


def kaiser_window(window_length: int, periodic: bool = True, beta: float = 12.0, **options: Any) -> Tensor:
    """A Bessel function of a circle. See torch.kaiser_window."""
    options.pop("pin_memory", None)
    return windows.kaiser(window_length, beta=beta, sym=not periodic, **options)
