"""Window functions, `torch.signal.windows`.

`sym=True` gives a symmetric window for filters, `sym=False` a periodic one for spectra: one period of a window that is
one point longer. See https://docs.pytorch.org/docs/stable/signal.html
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from graphtorch.ops import FUNCTIONS
from graphtorch.tensor import Tensor, dtypes
from graphtorch.tensor.formats import strided

__all__ = [
    "bartlett",
    "blackman",
    "cosine",
    "exponential",
    "gaussian",
    "general_cosine",
    "general_hamming",
    "hamming",
    "hann",
    "kaiser",
    "nuttall",
]


def _make(
    name: str,
    M: int,
    dtype: Any,
    layout: Any,
    device: Any,
    requires_grad: bool,
    shape: Callable[[Callable[..., Any]], Tensor],
) -> Tensor:
    """A window of `M` points: `shape` gets a function that makes a ramp of them from its first value and its step.

    Raises ValueError for a negative length, a dtype that is not floating, and a layout other than strided.
    """
    if M < 0:
        raise ValueError(f"{name} requires non-negative window length, got M={M}")
    if layout is not None and layout is not strided:
        raise ValueError(f"{name} is implemented for strided tensors only, got: {layout}")
    d = dtypes.get_default_dtype() if dtype is None else dtype
    if not d.is_floating_point:
        raise ValueError(f"{name} expects floating point dtypes, got: {d}")
    if d not in (dtypes.float32, dtypes.float64):
        raise ValueError(f"{name} expects float32 or float64 dtypes, got: {d}")
    if M <= 1:
        made = FUNCTIONS["ones"]((M,), dtype=d, device=device)
    else:
        # In float64: steps of narrow types would be off by many units at the far end.
        points = FUNCTIONS["arange"](M, dtype=dtypes.float64, device=device)
        made = shape(lambda start, step: points * step + start).to(d)
    found: Tensor = made.requires_grad_() if requires_grad else made
    return found


def _intervals(M: int, sym: bool) -> int:
    return M - 1 if sym else M


def general_cosine(
    M: int,
    *,
    a: Iterable[float],
    sym: bool = True,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """A sum of cosines with coefficients `a` of alternating sign. See torch.signal.windows.general_cosine."""
    if not isinstance(a, Iterable):
        raise TypeError("Coefficients must be a list/tuple")
    coefficients = list(a)
    if not coefficients:
        raise ValueError("Coefficients cannot be empty")

    def shape(ramp: Callable[..., Any]) -> Tensor:
        angle = ramp(0.0, 2.0 * math.pi / _intervals(M, sym))
        total: Any = 0.0
        for i, coefficient in enumerate(coefficients):
            total = total + (angle * i).cos() * (coefficient * (-1.0) ** i)
        found: Tensor = total
        return found

    return _make("general_cosine", M, dtype, layout, device, requires_grad, shape)


def general_hamming(
    M: int,
    *,
    alpha: float = 0.54,
    sym: bool = True,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """alpha - (1 - alpha) cos. See torch.signal.windows.general_hamming."""
    return general_cosine(
        M, a=[alpha, 1.0 - alpha], sym=sym, dtype=dtype, layout=layout, device=device, requires_grad=requires_grad
    )


def hamming(
    M: int, *, sym: bool = True, dtype: Any = None, layout: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """See torch.signal.windows.hamming."""
    return general_hamming(M, sym=sym, dtype=dtype, layout=layout, device=device, requires_grad=requires_grad)


def hann(
    M: int, *, sym: bool = True, dtype: Any = None, layout: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """See torch.signal.windows.hann."""
    return general_hamming(
        M, alpha=0.5, sym=sym, dtype=dtype, layout=layout, device=device, requires_grad=requires_grad
    )


def blackman(
    M: int, *, sym: bool = True, dtype: Any = None, layout: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """See torch.signal.windows.blackman."""
    return general_cosine(
        M, a=[0.42, 0.5, 0.08], sym=sym, dtype=dtype, layout=layout, device=device, requires_grad=requires_grad
    )


def nuttall(
    M: int, *, sym: bool = True, dtype: Any = None, layout: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """See torch.signal.windows.nuttall."""
    a = [0.3635819, 0.4891775, 0.1365995, 0.0106411]
    return general_cosine(M, a=a, sym=sym, dtype=dtype, layout=layout, device=device, requires_grad=requires_grad)


def bartlett(
    M: int, *, sym: bool = True, dtype: Any = None, layout: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A triangle that ends in zeros. See torch.signal.windows.bartlett."""
    return _make(
        "bartlett",
        M,
        dtype,
        layout,
        device,
        requires_grad,
        lambda ramp: 1.0 - ramp(-1.0, 2.0 / _intervals(M, sym)).abs(),
    )


def cosine(
    M: int, *, sym: bool = True, dtype: Any = None, layout: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Half a period of a sine. See torch.signal.windows.cosine."""
    step = math.pi / max(M if sym else M + 1, 1)
    return _make("cosine", M, dtype, layout, device, requires_grad, lambda ramp: ramp(0.5 * step, step).sin())


def exponential(
    M: int,
    *,
    center: float | None = None,
    tau: float = 1.0,
    sym: bool = True,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """exp(-|n - center| / tau). See torch.signal.windows.exponential."""
    if tau <= 0:
        raise ValueError(f"Tau must be positive, got: {tau} instead.")
    if sym and center is not None:
        raise ValueError("Center must be None for symmetric windows")
    middle = _intervals(M, sym) / 2.0 if center is None else center
    return _make(
        "exponential",
        M,
        dtype,
        layout,
        device,
        requires_grad,
        lambda ramp: (-ramp(-middle / tau, 1.0 / tau).abs()).exp(),
    )


def gaussian(
    M: int,
    *,
    std: float = 1.0,
    sym: bool = True,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """exp(-((n - center) / std)^2 / 2). See torch.signal.windows.gaussian."""
    if std <= 0:
        raise ValueError(f"Standard deviation must be positive, got: {std} instead.")
    step = 1.0 / (std * math.sqrt(2.0))

    def shape(ramp: Callable[..., Any]) -> Tensor:
        place = ramp(-_intervals(M, sym) / 2.0 * step, step)
        found: Tensor = (-(place * place)).exp()
        return found

    return _make("gaussian", M, dtype, layout, device, requires_grad, shape)


def kaiser(
    M: int,
    *,
    beta: float = 12.0,
    sym: bool = True,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """I0(sqrt(beta^2 - k^2)) / I0(beta). See torch.signal.windows.kaiser."""
    if beta < 0:
        raise ValueError(f"beta must be non-negative, got: {beta} instead.")

    def shape(ramp: Callable[..., Any]) -> Tensor:
        place = ramp(-beta, 2.0 * beta / _intervals(M, sym))
        inside = (beta * beta - place * place).clamp(min=0.0)
        i0 = FUNCTIONS["i0"]
        found: Tensor = i0(inside.sqrt()) / i0(FUNCTIONS["full"]((), beta, dtype=dtypes.float64))
        return found

    return _make("kaiser", M, dtype, layout, device, requires_grad, shape)
