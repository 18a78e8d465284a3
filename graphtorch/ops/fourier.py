"""Discrete Fourier transforms through NumPy's FFT, with the scalings and dtypes of torch.fft.

Four records (complex to complex, real to half-spectrum, its transpose, half-spectrum to real) over any dimensions; the
public functions choose the dimensions, sizes and scaling. The scaling is a mode as in PyTorch's kernels: 0 none, 1 by
1/sqrt(n), 2 by 1/n.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from graphtorch.autograd.graph import renamed
from graphtorch.ops.build import FUNCTIONS, function, operator
from graphtorch.ops.pointwise import scalar_type
from graphtorch.ops.record import Sample, sample
from graphtorch.ops.shapes import wrap_dim
from graphtorch.tensor import dtypes
from graphtorch.tensor.creation import as_tensor
from graphtorch.tensor.remote import readable
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType, type_of

_MODES = ("backward", "ortho", "forward")  # NumPy's names of the scalings 0, 1 and 2 of a forward transform


def _norm(scaling: int, forward: bool) -> Any:
    """NumPy's `norm` for a scaling: its backward transforms count from the other end."""
    return _MODES[scaling if forward else 2 - scaling]


# -- records ----------------------------------------------------------------------------------------------------------


def _spectrum_samples(make: Any) -> Iterable[Sample]:
    yield sample(make(4), (0,), 0, True)
    yield sample(make(3, 4), (0, 1), 1, False)
    yield sample(make(2, 3, 2), (1,), 2, True)


def _complex_only(input: Any, dim: Any, scaling: int, forward: bool) -> TensorType:
    if not input.dtype.is_complex:
        raise RuntimeError(f"fft_c2c: Expected a complex tensor, but got {scalar_type(input.dtype)}")
    return type_of(input)


def _c2c_numpy(input: Any, dim: Any, scaling: int, forward: bool) -> Any:
    transform = np.fft.fftn if forward else np.fft.ifftn
    return np.asarray(transform(input, axes=dim, norm=_norm(scaling, forward))).astype(input.dtype, copy=False)


fft_c2c: Callable[..., Tensor] = operator(
    "fft_c2c(Tensor input, int[] dim, int scaling, bool forward)",
    grad_name="FftC2CBackward0",
    type=_complex_only,
    numpy=_c2c_numpy,
    derivative={"input": lambda g, dim, scaling, forward: fft_c2c(g, dim, scaling, not forward)},
    samples=_spectrum_samples,
    categories="c",
    public=False,
    method=False,
    doc="The complex Fourier transform over `dim`.",
)


def _r2c_type(input: Any, dim: Any, scaling: int) -> TensorType:
    if not input.dtype.is_floating_point:
        raise RuntimeError(f"fft_r2c: Expected a floating-point tensor, but got {scalar_type(input.dtype)}")
    shape = list(input.shape)
    shape[dim[-1]] = shape[dim[-1]] // 2 + 1
    return type_of(input).with_shape(shape).with_dtype(input.dtype.to_complex())


def _r2c_numpy(input: Any, dim: Any, scaling: int) -> Any:
    kind = np.complex64 if input.dtype == np.float32 else np.complex128
    return np.asarray(np.fft.rfftn(input, axes=dim, norm=_norm(scaling, True))).astype(kind, copy=False)


def _r2c_formula(g: Any, input_type: TensorType, dim: Any, scaling: int) -> Any:
    """The real part of the whole backward transform of the half-spectrum, padded with zeros."""
    missing = input_type.shape[dim[-1]] - g.shape[dim[-1]]
    pad = [0] * (2 * (len(g.shape) - dim[-1] - 1)) + [0, missing]
    return fft_c2c(FUNCTIONS["constant_pad_nd"](g, tuple(pad)), dim, scaling, False).real


fft_r2c: Callable[..., Tensor] = operator(
    "fft_r2c(Tensor input, int[] dim, int scaling)",
    grad_name="FftR2CBackward0",
    type=_r2c_type,
    numpy=_r2c_numpy,
    derivative={"input": _r2c_formula},
    samples=lambda make: (
        [sample(make(4), (0,), 0), sample(make(3, 5), (0, 1), 1), sample(make(2, 3, 4), (2, 1), 2)]
        if make.dtype in (dtypes.float32, dtypes.float64)
        else []
    ),
    categories="f",
    public=False,
    method=False,
    doc="The Fourier transform of real values over `dim`: of the last dimension in it the non-negative frequencies.",
)


def _c2r_type(input: Any, dim: Any, scaling: int, last: Any) -> TensorType:
    if not input.dtype.is_complex:
        raise RuntimeError(f"fft_c2r: Expected a complex tensor, but got {scalar_type(input.dtype)}")
    shape = list(input.shape)
    shape[dim[-1]] = last
    return type_of(input).with_shape(shape).with_dtype(input.dtype.to_real())


def _c2r_numpy(input: Any, dim: Any, scaling: int, last: int) -> Any:
    kind = np.float32 if input.dtype == np.complex64 else np.float64
    sizes = [*(input.shape[d] for d in dim[:-1]), last]
    made = np.fft.irfftn(input, s=sizes, axes=dim, norm=_norm(scaling, False))
    return np.asarray(made).astype(kind, copy=False)


def _c2r_formula(g: Any, dim: Any, scaling: int, last: Any) -> Any:
    """The forward transform; frequencies that stand for two (themselves and their mirror image) count twice."""
    half = fft_r2c(g, dim, scaling)
    count = half.shape[dim[-1]]
    frequency = FUNCTIONS["arange"](count, device=g.device)
    doubled = FUNCTIONS["logical_and"](frequency > 0, frequency * 2 < last)
    weight = doubled.to(g.dtype) + 1.0
    return half * weight.reshape((count,) + (1,) * (len(g.shape) - dim[-1] - 1))


fft_c2r: Callable[..., Tensor] = operator(
    "fft_c2r(Tensor input, int[] dim, int scaling, int last_dim_size)",
    grad_name="FftC2RBackward0",
    type=_c2r_type,
    numpy=_c2r_numpy,
    derivative={"input": lambda g, dim, scaling, last_dim_size: _c2r_formula(g, dim, scaling, last_dim_size)},
    samples=lambda make: [
        sample(make(3), (0,), 2, 4),
        sample(make(3), (0,), 0, 5),
        sample(make(3, 3), (0, 1), 1, 4),
    ],
    categories="c",
    public=False,
    method=False,
    doc="The real values whose half-spectrum is given, over `dim`.",
)

# -- arguments --------------------------------------------------------------------------------------------------------


def _scaling(name: str, norm: str | None, forward: bool) -> int:
    if norm not in (None, *_MODES):
        raise RuntimeError(f'Invalid normalization mode: "{norm}"')
    mode = _MODES.index(norm or "backward")
    return mode if forward else 2 - mode


def _floating(name: str, input: Any, to_complex: bool, real_only: bool = False) -> Any:
    if real_only and input.dtype.is_complex:
        raise RuntimeError(f"{name} expects a real input tensor, but got {scalar_type(input.dtype)}")
    if input.dtype in (dtypes.float16, dtypes.bfloat16):
        raise RuntimeError(f"Unsupported dtype {scalar_type(input.dtype)}")
    if input.dtype.category < dtypes.FLOATING:
        input = input.to(dtypes.get_default_dtype())
    return input.to(input.dtype.to_complex()) if to_complex and not input.dtype.is_complex else input


def _resize(input: Any, dims: Sequence[int], sizes: Sequence[Any]) -> Any:
    """Cut or pad with zeros at the end of each dimension."""
    for dim, size in zip(dims, sizes, strict=True):
        own = input.shape[dim]
        if size < own:
            input = input.narrow(dim, 0, size)
        elif size > own:
            input = FUNCTIONS["constant_pad_nd"](input, (0, 0) * (len(input.shape) - dim - 1) + (0, size - own))
    return input


def _places(name: str, input: Any, s: Any, dim: Any) -> tuple[tuple[int, ...], list[Any]]:
    """The dimensions (non-negative) and sizes of an n-dimensional transform; a size of -1 or None keeps the own one."""
    rank = len(input.shape)
    if isinstance(s, int):
        s = (s,)
    if isinstance(dim, int):
        dim = (dim,)
    if dim is None:
        count = rank if s is None else len(s)
        if count > rank:
            raise RuntimeError(f"Got shape with {count} values but input tensor only has {rank} dimensions.")
        dims = tuple(range(rank - count, rank))
    else:
        dims = tuple(wrap_dim(d, rank) for d in dim)
        if len(set(dims)) != len(dims):
            raise RuntimeError("FFT dims must be unique")
        if s is not None and len(s) != len(dims):
            raise RuntimeError(
                "When given, dim and shape arguments must have the same length"
                if name
                else "FFT dim and shape lengths differ"
            )
    sizes = [input.shape[d] if s is None or s[i] in (-1, None) else s[i] for i, d in enumerate(dims)]
    for size in sizes:
        if size < 1:
            raise RuntimeError(f"Invalid number of data points ({size}) specified")
    return dims, sizes


def _transform(name: str, input: Any, s: Any, dim: Any, norm: str | None, forward: bool) -> Any:
    dims, sizes = _places(name, input, s, dim)
    if forward and not input.dtype.is_complex:
        real = _floating(name, input, False)
        if not dims:
            return real.to(real.dtype.to_complex())
    x = _resize(_floating(name, input, True), dims, sizes)
    if not dims:
        return x.clone()
    found = fft_c2c(x, dims, _scaling(name, norm, forward), forward)
    return found if input.dtype.is_complex else renamed(found, "FftR2CBackward0")


def _to_half(name: str, input: Any, s: Any, dim: Any, norm: str | None, forward: bool) -> Any:
    x = _floating(name, input, False, real_only=True)
    dims, sizes = _places(name, x, s, dim)
    if not dims:
        raise RuntimeError(f"{name} must transform at least one axis")
    x = _resize(x, dims, sizes)
    if forward:
        return fft_r2c(x, dims, _scaling(name, norm, True))
    # The backward transform of real values is the conjugate of the forward one, with the other scaling.
    last = fft_r2c(x, dims[-1:], _scaling(name, norm, False)).conj()
    return fft_c2c(last, dims[:-1], _scaling(name, norm, False), False) if dims[:-1] else last


def _from_half(name: str, input: Any, s: Any, dim: Any, norm: str | None, forward: bool) -> Any:
    x = _floating(name, input, True)
    if isinstance(s, int):
        s = (s,)
    dims, sizes = _places(name, x, s, dim)
    if not dims:
        raise RuntimeError(f"{name} must transform at least one axis")
    last = sizes[-1] if s is not None and s[-1] not in (-1, None) else 2 * (x.shape[dims[-1]] - 1)
    if last < 1:
        raise RuntimeError(f"Invalid number of data points ({last}) specified")
    x = _resize(x, dims, [*sizes[:-1], last // 2 + 1])
    scaling = _scaling(name, norm, forward)
    if not forward:
        return fft_c2r(x, dims, scaling, last)
    if dims[:-1]:
        x = fft_c2c(x, dims[:-1], scaling, True)
    return fft_c2r(x.conj(), dims[-1:], scaling, last)


# -- public functions -------------------------------------------------------------------------------------------------

_KINDS: dict[str, tuple[Callable[..., Any], bool]] = {
    "fft": (_transform, True),
    "ifft": (_transform, False),
    "rfft": (_to_half, True),
    "irfft": (_from_half, False),
    "hfft": (_from_half, True),
    "ihfft": (_to_half, False),
}


def _define(kind: str) -> None:
    """The transform of one dimension, of two, and of any number."""
    compute, forward = _KINDS[kind]

    def one(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
        if input.ndim == 0:
            raise IndexError("Dimension specified as -1 but tensor has no dimensions")
        made: Tensor = compute(kind, input, None if n is None else (n,), (dim,), norm, forward)
        return made

    def two(input: Tensor, s: Any = None, dim: Any = (-2, -1), norm: str | None = None) -> Tensor:
        made: Tensor = compute(kind + "2", input, s, dim, norm, forward)
        return made

    def many(input: Tensor, s: Any = None, dim: Any = None, norm: str | None = None) -> Tensor:
        made: Tensor = compute(kind + "n", input, s, dim, norm, forward)
        return made

    for suffix, made in (("", one), ("2", two), ("n", many)):
        name = kind + suffix
        made.__name__ = made.__qualname__ = name
        made.__doc__ = f"See torch.fft.{name}."
        function(name=f"fft_{name}")(made)


for _kind in _KINDS:
    _define(_kind)


def _shift_dims(input: Any, dim: Any) -> tuple[int, ...]:
    if dim is None:
        return tuple(range(len(input.shape)))
    return tuple(wrap_dim(d, len(input.shape)) for d in ((dim,) if isinstance(dim, int) else dim))


@function()
def fft_fftshift(input: Tensor, dim: Any = None) -> Tensor:
    """The zero frequency moved to the middle. See torch.fft.fftshift."""
    dims = _shift_dims(input, dim)
    return FUNCTIONS["roll"](input, tuple(input.shape[d] // 2 for d in dims), dims)  # type: ignore[no-any-return]


@function()
def fft_ifftshift(input: Tensor, dim: Any = None) -> Tensor:
    """The inverse of fftshift. See torch.fft.ifftshift."""
    dims = _shift_dims(input, dim)
    shifts = tuple((input.shape[d] + 1) // 2 for d in dims)
    return FUNCTIONS["roll"](input, shifts, dims)  # type: ignore[no-any-return]


@function()
def fft_fftfreq(
    n: int, d: float = 1.0, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """The frequencies of fft's elements, in cycles per unit of the spacing `d`. See torch.fft.fftfreq."""
    dtype = dtypes.get_default_dtype() if dtype is None else dtype
    ascending = FUNCTIONS["arange"](n, dtype=dtype, device=device)
    ascending = FUNCTIONS["where"](ascending >= (n + 1) // 2, ascending - n, ascending)
    found: Tensor = ascending * (1.0 / (n * d))
    return found.requires_grad_() if requires_grad else found


@function()
def fft_rfftfreq(
    n: int, d: float = 1.0, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """The frequencies of rfft's elements. See torch.fft.rfftfreq."""
    dtype = dtypes.get_default_dtype() if dtype is None else dtype
    found: Tensor = FUNCTIONS["arange"](n // 2 + 1, dtype=dtype, device=device) * (1.0 / (n * d))
    return found.requires_grad_() if requires_grad else found


# -- short-time transforms --------------------------------------------------------------------------------------------


def _window(window: Any, win_length: int, n_fft: int, dtype: Any, device: Any) -> Any:
    """The window, or ones, in the middle of a frame."""
    if window is None:
        window = FUNCTIONS["ones"]((win_length,), dtype=dtype, device=device)
    left = (n_fft - win_length) // 2
    return FUNCTIONS["constant_pad_nd"](window, (left, n_fft - win_length - left))


def _mirrored(input: Any, amount: int, mode: str) -> Any:
    """Both ends of the last dimension extended by `amount`."""
    if mode == "constant":
        return FUNCTIONS["constant_pad_nd"](input, (amount, amount))
    n = input.shape[-1]
    positions = np.arange(-amount, n + amount)
    if mode == "reflect":
        if amount >= n:
            raise RuntimeError(
                f"Argument #4: Padding size should be less than the corresponding input dimension, but got: padding "
                f"({amount}, {amount}) at dimension {input.ndim - 1} of input {list(input.shape)}"
            )
        positions = np.abs(positions)
        positions = np.where(positions >= n, 2 * (n - 1) - positions, positions)
    elif mode == "replicate":
        positions = np.clip(positions, 0, n - 1)
    elif mode == "circular":
        positions = positions % n
    else:
        raise NotImplementedError(f"Unrecognised padding mode {mode}")
    return FUNCTIONS["index_select"](input, input.ndim - 1, as_tensor(positions, device=input.device))


@function(method=True)
def stft(
    input: Tensor,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Tensor | None = None,
    center: bool = True,
    pad_mode: str = "reflect",
    normalized: bool = False,
    onesided: bool | None = None,
    return_complex: bool | None = None,
    align_to_window: bool | None = None,
) -> Tensor:
    """The spectra of overlapping frames of a signal: (B?, T) gives (B?, frequencies, frames). See torch.stft.

    Raises RuntimeError for sizes that give no frame, and for a real signal without `return_complex`.
    """
    hop = n_fft // 4 if hop_length is None else hop_length
    length = n_fft if win_length is None else win_length
    if return_complex is None:
        if not input.dtype.is_complex and (window is None or not window.dtype.is_complex):
            raise RuntimeError(
                "stft requires the return_complex parameter be given for real inputs, and will further require that "
                "return_complex=True in a future PyTorch release."
            )
        return_complex = True
    if input.ndim not in (1, 2):
        raise RuntimeError(f"stft({_where(input)}, n_fft={n_fft}): expected a 1D or 2D tensor")
    x = input if input.ndim == 2 else input.unsqueeze(0)
    if center:
        x = _mirrored(x, n_fft // 2, pad_mode)
    size = x.shape[-1]
    what = f"stft({_where(x)}, n_fft={n_fft}, hop_length={hop}, win_length={length})"
    if not 0 < n_fft <= size:
        raise RuntimeError(f"{what}: expected 0 < n_fft < {size}, but got n_fft={n_fft}")
    if hop <= 0:
        raise RuntimeError(f"{what}: expected hop_length > 0, but got hop_length={hop}")
    if not 0 < length <= n_fft:
        raise RuntimeError(f"{what}: expected 0 < win_length <= n_fft, but got win_length={length}")
    frames = x.unfold(-1, n_fft, hop)
    if window is not None or length < n_fft:
        kind = x.dtype.to_real()
        frames = frames * _window(window, length, n_fft, kind, x.device)
    scaling = 1 if normalized else 0
    whole = frames.dtype.is_complex
    if onesided is None:
        onesided = not whole
    if onesided:
        if whole:
            raise RuntimeError("Cannot have onesided output if window or input is complex")
        spectra = fft_r2c(frames, (frames.ndim - 1,), scaling)
    else:
        frames = frames if whole else frames.to(frames.dtype.to_complex())
        spectra = fft_c2c(frames, (frames.ndim - 1,), scaling, True)
    spectra = spectra.transpose(-2, -1)
    if input.ndim == 1:
        spectra = spectra[0]
    return spectra if return_complex else FUNCTIONS["view_as_real"](spectra)  # type: ignore[no-any-return]


def _where(input: Any) -> str:
    return f"{scalar_type(input.dtype)}Tensor{list(input.shape)}"


@function(method=True)
def istft(
    input: Tensor,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Tensor | None = None,
    center: bool = True,
    normalized: bool = False,
    onesided: bool | None = None,
    length: int | None = None,
    return_complex: bool = False,
) -> Tensor:
    """The signal whose stft is nearest: (B?, frequencies, frames) gives (B?, T). See torch.istft.

    Raises RuntimeError where the windows leave a sample uncovered.
    """
    hop = n_fft // 4 if hop_length is None else hop_length
    span = n_fft if win_length is None else win_length
    if not input.dtype.is_complex:
        raise RuntimeError(
            "istft requires a complex-valued input tensor matching the output from stft with return_complex=True."
        )
    if input.ndim not in (2, 3):
        raise RuntimeError(f"istft({_where(input)}): expected a tensor with 2 or 3 dimensions, got {input.ndim}")
    x = input if input.ndim == 3 else input.unsqueeze(0)
    if onesided is None:
        onesided = x.shape[-2] != n_fft
    expected = n_fft // 2 + 1 if onesided else n_fft
    if x.shape[-2] != expected:
        raise RuntimeError(
            f"istft({_where(input)}): expected the frequency dimension (3rd to the last) of the input tensor to match "
            f"n_fft / 2 + 1 when onesided=True, but got {x.shape[-2]}"
            if onesided
            else f"istft({_where(input)}): expected the frequency dimension of the input tensor to match n_fft when "
            f"onesided=False, but got {x.shape[-2]}"
        )
    if not 0 < hop <= span:
        raise RuntimeError(f"istft({_where(input)}): expected 0 < hop_length <= win_length")
    if not 0 < span <= n_fft:
        raise RuntimeError(f"istft({_where(input)}): expected 0 < win_length <= n_fft")
    weights = _window(window, span, n_fft, x.dtype.to_real(), x.device)
    spectra = x.transpose(-2, -1)
    scaling = 1 if normalized else 2
    if return_complex:
        frames = fft_c2c(spectra, (2,), scaling, False)
    else:
        if window is not None and window.dtype.is_complex:
            raise RuntimeError("Complex windows are incompatible with return_complex=False")
        frames = fft_c2r(spectra[..., : n_fft // 2 + 1], (2,), scaling, n_fft)
    count = frames.shape[1]
    total = n_fft + hop * (count - 1)

    def overlapped(parts: Any) -> Any:
        # The frames' samples summed at their places in the signal.
        steps, inside = (FUNCTIONS["arange"](n, device=parts.device) for n in (count, n_fft))
        places = steps[:, None] * hop + inside
        flat = parts.reshape((parts.shape[0], count * n_fft))
        zero = FUNCTIONS["zeros"]((parts.shape[0], total), dtype=parts.dtype, device=parts.device)
        return FUNCTIONS["index_add"](zero, 1, places.reshape((count * n_fft,)), flat)

    signal = overlapped(frames * weights)
    envelope = overlapped((weights * weights).expand(1, count, n_fft))
    start = n_fft // 2 if center else 0
    end = start + length if length is not None else (total - n_fft // 2 if center else total)
    stop = min(end, total)
    signal, envelope = signal[:, start:stop], envelope[:, start:stop]
    if not _covered(envelope):
        raise RuntimeError(f"istft({_where(input)}) window overlap add min: 1")
    signal = signal / envelope
    if end > stop:
        signal = FUNCTIONS["constant_pad_nd"](signal, (0, end - stop))
    return signal if input.ndim == 3 else signal[0]  # type: ignore[no-any-return]


def _covered(envelope: Any) -> bool:
    """Whether every sample has a window over it; a recorded envelope has no data to ask."""
    data = readable(envelope.detach()._data)
    return not isinstance(data, np.ndarray) or not data.size or bool(np.abs(data).min() > 1e-11)
