"""The array API standard's Fourier transform extension."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphtorch.ops import FUNCTIONS
from graphtorch.tensor.dtypes import dtype as dtype_class
from graphtorch.tensor.tensor import Tensor

# fmt: off
__all__ = [
    "fft", "fftfreq", "fftn", "fftshift", "hfft", "ifft", "ifftn", "ifftshift", "ihfft", "irfft", "irfftn", "rfft",
    "rfftfreq", "rfftn",
]
# fmt: on


def _line(name: str) -> Any:
    """A transform along one axis, under the standard's argument names."""
    function = FUNCTIONS[f"fft_{name}"]

    def transform(x: Tensor, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Tensor:
        made: Tensor = function(x, n, axis, norm)
        return made

    return _named(transform, name)


def _volume(name: str) -> Any:
    """A transform along several axes, under the standard's argument names."""
    function = FUNCTIONS[f"fft_{name}"]

    def transform(
        x: Tensor, /, *, s: Sequence[int] | None = None, axes: Sequence[int] | None = None, norm: str = "backward"
    ) -> Tensor:
        made: Tensor = function(x, s, axes, norm)
        return made

    return _named(transform, name)


def _shift(name: str) -> Any:
    function = FUNCTIONS[f"fft_{name}"]

    def shift(x: Tensor, /, *, axes: int | Sequence[int] | None = None) -> Tensor:
        made: Tensor = function(x, axes)
        return made

    return _named(shift, name)


def _named(function: Any, name: str) -> Any:
    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"`torch.fft.{name}` with the standard's arguments."
    return function


fft = _line("fft")
ifft = _line("ifft")
rfft = _line("rfft")
irfft = _line("irfft")
hfft = _line("hfft")
ihfft = _line("ihfft")
fftn = _volume("fftn")
ifftn = _volume("ifftn")
rfftn = _volume("rfftn")
irfftn = _volume("irfftn")
fftshift = _shift("fftshift")
ifftshift = _shift("ifftshift")


def fftfreq(n: int, /, *, d: float = 1.0, dtype: dtype_class | None = None, device: Any = None) -> Tensor:
    """The frequencies of the transform of `n` samples at distance `d`."""
    made: Tensor = FUNCTIONS["fft_fftfreq"](n, d, dtype=dtype, device=device)
    return made


def rfftfreq(n: int, /, *, d: float = 1.0, dtype: dtype_class | None = None, device: Any = None) -> Tensor:
    """The frequencies of the transform of `n` real samples at distance `d`."""
    made: Tensor = FUNCTIONS["fft_rfftfreq"](n, d, dtype=dtype, device=device)
    return made
