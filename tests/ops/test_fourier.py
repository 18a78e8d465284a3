"""torch.fft, stft and istft beside PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from against_torch import compare, same_error

RANDOM = np.random.default_rng(0)
REAL = RANDOM.normal(size=(2, 4, 5))
COMPLEX = REAL + 1j * RANDOM.normal(size=(2, 4, 5))
NORMS = [None, "backward", "ortho", "forward"]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"])
def test_transforms(name: str, norm: str | None) -> None:
    for x in [REAL] if name in ("rfft", "ihfft") else [REAL, COMPLEX]:
        compare(lambda t, x: getattr(t.fft, name)(x, norm=norm), x)
        for n in (3, 8):
            compare(lambda t, x, n=n: getattr(t.fft, name)(x, n, 1, norm), x, order=1)
        compare(lambda t, x: getattr(t.fft, name + "2")(x, norm=norm), x)
        compare(lambda t, x: getattr(t.fft, name + "2")(x, (3, 6), (0, 2), norm), x, order=1)
        compare(lambda t, x: getattr(t.fft, name + "n")(x, norm=norm), x, order=1)
        compare(lambda t, x: getattr(t.fft, name + "n")(x, s=(3, -1), norm=norm), x, order=1)


def test_dtypes() -> None:
    for kind in (np.float32, np.complex64, np.int64):
        compare(lambda t, x: t.fft.fft(x), np.ones((2, 4), kind), order=0, tolerance=1e-6)
    compare(lambda t, x: t.fft.irfft(x), np.ones((2, 4), np.complex64), order=0, tolerance=1e-6)
    compare(lambda t, x: t.fft.rfft(x), np.ones((2, 4), np.int64), order=0, tolerance=1e-6)


def test_shifts_and_frequencies() -> None:
    for dim in (None, 1, (0, 2)):
        compare(lambda t, x, d=dim: t.fft.fftshift(x, d), COMPLEX)
        compare(lambda t, x, d=dim: t.fft.ifftshift(x, d), COMPLEX)
    for n in (1, 4, 7):
        compare(lambda t, n=n: (t.fft.fftfreq(n, 0.5), t.fft.rfftfreq(n, 0.5)), tolerance=1e-7)


SIGNAL = RANDOM.normal(size=(2, 40))
WINDOW = np.hanning(10)[1:-1] + 0.1


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"hop_length": 3, "normalized": True},
        {"win_length": 6, "center": False},
        {"onesided": False, "pad_mode": "constant"},
        {"pad_mode": "replicate"},
        {"return_complex": False},
    ],
)
def test_short_time_transform(options: dict[str, Any]) -> None:
    options = {"return_complex": True, **options}
    compare(lambda t, x: t.stft(x, 8, **options), SIGNAL)
    compare(lambda t, x: t.stft(x[0], 8, **options), SIGNAL, order=1)
    if "win_length" not in options:
        compare(lambda t, x, w: t.stft(x, 8, window=w, **options), SIGNAL, WINDOW)


@pytest.mark.parametrize("options", [{}, {"normalized": True}, {"length": 33}, {"length": 45}, {"onesided": True}])
def test_inverse_short_time_transform(options: dict[str, Any]) -> None:
    spectra = RANDOM.normal(size=(2, 5, 11)) + 1j * RANDOM.normal(size=(2, 5, 11))
    compare(lambda t, x, w: t.istft(x, 8, 3, window=w, **options), spectra, WINDOW, order=1)
    compare(lambda t, x: t.istft(x[0], 8, **options), spectra, order=1)
    compare(lambda t, x: t.stft(x, 8, return_complex=True).istft(8, length=40), SIGNAL, order=1)


def test_complex_inverse() -> None:
    spectra = RANDOM.normal(size=(2, 8, 11)) + 1j * RANDOM.normal(size=(2, 8, 11))
    compare(lambda t, x: t.istft(x, 8, onesided=False, return_complex=True), spectra, order=1)


def test_errors() -> None:
    same_error(lambda t, x: t.fft.fft(x, norm="other"), REAL)
    same_error(lambda t, x: t.fft.fft(x, n=0), REAL)
    same_error(lambda t, x: t.fft.rfft(x), COMPLEX)
    same_error(lambda t, x: t.fft.fft2(x, dim=(1, 1)), REAL)
    same_error(lambda t, x: t.fft.fftn(x, s=(2, 2, 2, 2)), REAL)
    same_error(lambda t, x: t.stft(x, 8), SIGNAL, message=False)
    same_error(lambda t, x: t.stft(x, 100, return_complex=True, center=False), SIGNAL, message=False)
    same_error(lambda t, x: t.istft(x, 8), SIGNAL, message=False)
