"""The Fourier transform namespace, `torch.fft`."""

from __future__ import annotations

from graphtorch.ops import FUNCTIONS

fft = FUNCTIONS["fft_fft"]
ifft = FUNCTIONS["fft_ifft"]
rfft = FUNCTIONS["fft_rfft"]
irfft = FUNCTIONS["fft_irfft"]
hfft = FUNCTIONS["fft_hfft"]
ihfft = FUNCTIONS["fft_ihfft"]
fft2 = FUNCTIONS["fft_fft2"]
ifft2 = FUNCTIONS["fft_ifft2"]
rfft2 = FUNCTIONS["fft_rfft2"]
irfft2 = FUNCTIONS["fft_irfft2"]
hfft2 = FUNCTIONS["fft_hfft2"]
ihfft2 = FUNCTIONS["fft_ihfft2"]
fftn = FUNCTIONS["fft_fftn"]
ifftn = FUNCTIONS["fft_ifftn"]
rfftn = FUNCTIONS["fft_rfftn"]
irfftn = FUNCTIONS["fft_irfftn"]
hfftn = FUNCTIONS["fft_hfftn"]
ihfftn = FUNCTIONS["fft_ihfftn"]
fftshift = FUNCTIONS["fft_fftshift"]
ifftshift = FUNCTIONS["fft_ifftshift"]
fftfreq = FUNCTIONS["fft_fftfreq"]
rfftfreq = FUNCTIONS["fft_rfftfreq"]
