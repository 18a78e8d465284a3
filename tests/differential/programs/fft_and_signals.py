"""Fourier transforms, windows, convolution by FFT, complex tensors."""

import math

import torch

t = torch.arange(8, dtype=torch.float64) / 8
signal = torch.sin(2 * math.pi * t) + 0.5 * torch.cos(2 * math.pi * 3 * t)
print(torch.fft.rfft(signal).abs(), torch.fft.rfftfreq(8, 1 / 8), torch.fft.fftfreq(8))
print(torch.fft.fft(signal).abs().round(decimals=4))
print(torch.fft.ifft(torch.fft.fft(signal)).real.round(decimals=6))
print(torch.fft.fftshift(torch.arange(6)), torch.fft.ifftshift(torch.arange(6)))
image = torch.arange(16.0).reshape(4, 4)
spectrum = torch.fft.fft2(image)
print(spectrum[0], torch.fft.ifft2(spectrum).real)
print(torch.fft.irfft(torch.fft.rfft(signal), n=8) - signal < 1e-12)
z = torch.tensor([1 + 2j, 3 - 4j, -1j])
print(z, z.real, z.imag, z.abs(), z.angle(), z.conj(), z * z, z.dtype)
print(
    torch.view_as_real(z),
    torch.view_as_complex(torch.ones(2, 2)),
    torch.polar(torch.tensor([1.0, 2.0]), torch.tensor([0.0, math.pi / 2])),
)
print(torch.complex(torch.tensor([1.0]), torch.tensor([2.0])), torch.exp(1j * torch.tensor([0.0, math.pi])))
print(torch.hann_window(6), torch.hamming_window(5, periodic=False), torch.bartlett_window(4))
a, b = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 1.0, 0.5])
n = 5
print(torch.fft.irfft(torch.fft.rfft(a, n) * torch.fft.rfft(b, n), n).round(decimals=3))
print(torch.nn.functional.conv1d(a.view(1, 1, -1), b.flip(0).view(1, 1, -1), padding=2))
w = torch.randn(4, dtype=torch.cfloat, generator=torch.Generator().manual_seed(0), requires_grad=True)
loss = (torch.fft.fft(w).abs() ** 2).sum()
loss.backward()
print(loss, w.grad)
x = torch.zeros(400)
x[::40] = 1
S = torch.stft(x, n_fft=64, hop_length=32, window=torch.hann_window(64), return_complex=True)
print(S.shape, S.abs()[0, :5])
print(torch.istft(S, n_fft=64, hop_length=32, window=torch.hann_window(64), length=400)[:5])
print(torch.tensor([1.5 + 0j, float("nan")]), torch.zeros(2, dtype=torch.complex128), torch.is_complex(z))
