"""PyTorch's CPU random number generator and its samplers, on NumPy arrays.

The engine is MT19937 (NumPy's bit generator, seeded the way PyTorch seeds its own). What makes a random stream equal to
PyTorch's is less the engine than how each sampler spends it: how many 32-bit words an element takes, which of their
bits are used, in which precision the transformation is done and where it is rounded. The samplers below follow
PyTorch 2.13 on an x86-64 CPU in that: the integer, uniform and Bernoulli samplers give the same bits, those that need
a logarithm or a sine differ by at most a unit in the last place or so, because the mathematics library differs.

One choice depends on the CPU that PyTorch runs on: for Bernoulli with a number as probability (and so dropout) and for
the exponential distribution, its MKL builds use another engine on Intel processors. The samplers here give the numbers
of every other CPU and build.
"""

from __future__ import annotations

import ctypes
import math
import operator
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from numpy.random import MT19937
from numpy.typing import DTypeLike, NDArray

from graphtorch.autograd.state import state
from graphtorch.tensor.box_muller import fma, normal_fill
from graphtorch.tensor.devices import CPU, canonical
from graphtorch.tensor.devices import device as Device
from graphtorch.tensor.shuffling import shuffle_forward, shuffle_inside_out

__all__ = ["Generator", "default_generator"]

Array = NDArray[Any]
Shape = int | Sequence[int]

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_FLOAT16 = np.dtype(np.float16)
_FLOAT32 = np.dtype(np.float32)
_FLOAT64 = np.dtype(np.float64)
_BOOL = np.dtype(np.bool_)

# dtype -> (PyTorch's ScalarType name, the C++ type name), the two names by which PyTorch's messages call a dtype.
_NAMES: dict[np.dtype[Any], tuple[str, str]] = {
    _FLOAT16: ("Half", "c10::Half"),
    _BFLOAT16: ("BFloat16", "c10::BFloat16"),
    _FLOAT32: ("Float", "float"),
    _FLOAT64: ("Double", "double"),
    np.dtype(np.complex64): ("ComplexFloat", "c10::complex<float>"),
    np.dtype(np.complex128): ("ComplexDouble", "c10::complex<double>"),
    np.dtype(np.int8): ("Char", "signed char"),
    np.dtype(np.uint8): ("Byte", "unsigned char"),
    np.dtype(np.int16): ("Short", "short int"),
    np.dtype(np.uint16): ("UInt16", "short unsigned int"),
    np.dtype(np.int32): ("Int", "int"),
    np.dtype(np.uint32): ("UInt32", "unsigned int"),
    np.dtype(np.int64): ("Long", "long int"),
    np.dtype(np.uint64): ("UInt64", "long unsigned int"),
    _BOOL: ("Bool", "bool"),
}
# PyTorch's kernels leave out complex numbers and the unsigned integers beyond uint8 (`randint` alone takes these).
_SAMPLED = {t for t in _NAMES if t.kind != "c" and (t.kind != "u" or t.itemsize == 1)}
# Significand bits (with the hidden one) and largest finite value of the floating-point dtypes.
_DIGITS = {_FLOAT16: 11, _BFLOAT16: 8, _FLOAT32: 24, _FLOAT64: 53}
_MAX = {_BFLOAT16: float.fromhex("0x1.fep127")} | {t: float(np.finfo(t).max) for t in (_FLOAT16, _FLOAT32, _FLOAT64)}

_DEFAULT_SEED = 67280421310721  # what a new generator is seeded with until told otherwise
_UINT64 = 1 << 64
_INT64_MIN = -(1 << 63)
_INT64_MAX = (1 << 63) - 1
_STATE_WORDS = 624
# Ranges from here on take two words an element, so that `word % range` stays close to uniform.
WIDE_RANGE = 1 << 28
# From here on `randperm` takes two words an element.
WIDE_RANDPERM = (2**32 - 1) // 20
# Categories are counted in float32 by PyTorch's CUDA kernels; the CPU enforces the same limit.
_MAX_CATEGORIES = 1 << 24
# Elements transformed at a time: the temporaries of a block stay in the L2 cache.
_BLOCK = 1 << 15

# PyTorch's layout of a saved generator; `normal_x`, `normal_rho` and the float32 sample are historical and zero on CPU.
_STATE = np.dtype(
    {
        "names": ["seed", "left", "seeded", "next", "words", "normal_y", "normal_is_valid"],
        "formats": ["<u8", "<i4", "<i4", "<u8", ("<u8", _STATE_WORDS), "<f8", "<i4"],
        "offsets": [0, 8, 12, 16, 24, 5024, 5040],
        "itemsize": 5056,
    }
)


def _note(does: str) -> None:
    """Tell a capture what the user's code does with a generator: a graph would not do it again."""
    note = getattr(state.recorder, "note_effect", None)
    if note is not None:
        note(does)


class GeneratorState(NamedTuple):
    """A part of a generator's state for compiled code, which may draw inside `drawing()` only.

    part    "words": 624 words of 32 bits, and as an int how many of them are used up; "normal": two float64, the second
            number of a pair of normal ones, and whether it is there
    """

    generator: Generator
    part: str

    @property
    def address(self) -> int:
        """Where it lies in memory, as long as the generator lives."""
        if self.part == "words":
            return int(self.generator._bits.ctypes.state_address)
        return self.generator._kept.ctypes.data


class Generator:
    """A stream of pseudo-random numbers, equal to ``torch.Generator(device="cpu")`` after the same seed.

    Every sampler returns a new C-contiguous array of the wanted shape and dtype (float16, bfloat16, float32 and float64
    where the distribution is continuous) and advances the stream as PyTorch does. A sampler that raises leaves the
    stream where it was. Calls from several threads are serialised. Raises RuntimeError for a device but the CPU.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.Generator.html
    """

    def __new__(cls, device: str | int | Device | None = None) -> Generator:
        if cls is Generator and device is not None and canonical(device).type == "cuda":
            from graphtorch.runtime.cuda import devices
            from graphtorch.tensor.cuda_generator import CudaGenerator

            if not devices.count():
                raise RuntimeError("Cannot get CUDA generator without a CUDA device")
            return object.__new__(CudaGenerator)
        return object.__new__(cls)

    def __init__(self, device: str | int | Device | None = None) -> None:
        kind = "cpu" if device is None else canonical(device).type
        if kind != "cpu":
            raise RuntimeError(f"Device type {kind.upper()} is not supported for torch.Generator() api.")
        self._lock = threading.RLock()
        self._bits = MT19937(0)
        # The second number of a pair of normal ones that waits for its call, and whether there is one.
        self._kept = np.zeros(2)
        self._reseed(_DEFAULT_SEED)

    @property
    def device(self) -> Device:
        """The device whose numbers these are: the CPU."""
        return CPU

    # ------------------------------------------------------------------------------------------------ seed and state

    def _reseed(self, seed: int) -> None:
        self._seed = seed
        self._bits._legacy_seeding(seed & 0xFFFFFFFF)
        self._fresh = True  # no word drawn yet: the one thing PyTorch's state tells apart and NumPy's does not
        self._kept[:] = 0
        self._philox_offset = 0

    def advance_philox(self, increment: int) -> tuple[int, int]:
        """Seed and offset of the GPU's stream of this generator, which then moves on by `increment` words a thread.

        Philox counts instead of keeping words: see `tensor/philox.py`. Reseeding starts it anew, as PyTorch's
        `manual_seed` does the generators of all devices."""
        with self._lock:
            offset = self._philox_offset
            self._philox_offset = (offset + increment) % _UINT64
        return self._seed, offset

    def manual_seed(self, seed: int) -> Generator:
        """Restarts the stream from `seed`, any integer in [-2**63, 2**64); a negative one counts from 2**64 down.

        Only the low 32 bits reach the engine. Returns the generator itself. Raises RuntimeError if `seed` is not an
        integer and ValueError if it is out of range.
        """
        if isinstance(seed, bool | np.bool_) or not hasattr(seed, "__index__"):
            raise RuntimeError(f"manual_seed expected a long, but got {type(seed).__name__}")
        value = operator.index(seed)
        if not _INT64_MIN <= value < _UINT64:
            raise ValueError("Overflow when unpacking long long")
        _note("seeds a random generator")
        with self._lock:
            self._reseed(value % _UINT64)
        return self

    def seed(self) -> int:
        """Restarts the stream from a seed taken from the operating system's entropy, and returns that seed."""
        _note("seeds a random generator")
        value = int.from_bytes(os.urandom(8), "little")
        with self._lock:
            self._reseed(value)
        return value

    def initial_seed(self) -> int:
        """The seed the stream was started from, as an unsigned 64-bit number."""
        _note("reads a random generator's state")
        return self._seed

    def get_state(self) -> Any:
        """The generator's state as a uint8 tensor of 5056 elements, in PyTorch's layout."""
        from graphtorch.tensor.tensor import Tensor

        _note("reads a random generator's state")
        return Tensor._from_array(self.state_array(), False)

    def state_array(self) -> NDArray[np.uint8]:
        """The generator's state in PyTorch's layout: uint8 array of 5056 bytes."""
        record = np.zeros((), _STATE)
        with self._lock:
            engine: Any = self._bits.state["state"]
            used = 0 if self._fresh else int(engine["pos"])
            record["seed"] = self._seed
            record["left"] = 1 if self._fresh else _STATE_WORDS + 1 - used
            record["seeded"] = 1
            record["next"] = used
            record["words"] = engine["key"]
            if self._kept[1]:
                record["normal_y"] = self._kept[0]
                record["normal_is_valid"] = 1
        return np.frombuffer(record.tobytes(), np.uint8).copy()

    def set_state(self, new_state: Any) -> None:
        """Restores a state given by `get_state` of this class or of PyTorch's CPU generator.

        Raises TypeError if `new_state` is not a uint8 array, RuntimeError if it is not a state.
        """
        if hasattr(new_state, "numpy"):
            new_state = new_state.numpy()
        if not isinstance(new_state, np.ndarray) or new_state.dtype != np.uint8:
            raise TypeError("RNG state must be a torch.ByteTensor")
        if new_state.size != _STATE.itemsize:
            raise RuntimeError(
                f"Expected a CPUGeneratorImplState of size {_STATE.itemsize} "
                f"but found the input RNG state size to be {new_state.size}"
            )
        record = np.frombuffer(new_state.tobytes(), _STATE)[0]
        left, used = int(record["left"]), int(record["next"])
        # `left` counts down from 624 as `next` counts up from 1; a seeded engine that gave no word yet is at (1, 0).
        fresh = (left, used) == (1, 0)
        if not record["seeded"] or not 0 < left <= _STATE_WORDS or not (fresh or left + used == _STATE_WORDS + 1):
            raise RuntimeError("Invalid mt19937 state")
        with self._lock:
            self._bits.state = {
                "bit_generator": "MT19937",
                "state": {"key": record["words"].astype(np.uint32), "pos": _STATE_WORDS if fresh else used},
            }
            self._seed = int(record["seed"])
            self._fresh = fresh
            self._kept[:] = (record["normal_y"], 1) if record["normal_is_valid"] else 0

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """A block in which compiled code draws from the engine, and nobody else does."""
        with self._lock:
            if not self._fresh:
                yield
                return
            words = (ctypes.c_uint32 * (_STATE_WORDS + 1)).from_address(GeneratorState(self, "words").address)
            before = words[0], words[_STATE_WORDS]
            try:
                yield
            finally:
                self._fresh = before == (words[0], words[_STATE_WORDS])

    def clone_state(self) -> Generator:
        """A new generator in the same state, independent from now on."""
        other = Generator()
        other.set_state(self.state_array())
        return other

    def __reduce__(self) -> tuple[Callable[[Array], Generator], tuple[Array]]:
        return _from_state, (self.state_array(),)

    def __deepcopy__(self, memo: dict[int, Any]) -> Generator:
        return self.clone_state()

    # ------------------------------------------------------------------------------------------------- raw numbers

    def _random32(self, count: int) -> NDArray[np.uint64]:
        """The next `count` words, each a 32-bit number in a uint64."""
        if count:
            self._fresh = False
        return self._bits.random_raw(count)

    def _random64(self, count: int) -> NDArray[np.uint64]:
        """The next `count` 64-bit numbers; each takes two words, the high one first."""
        words = self._random32(2 * count)
        return words[0::2] << np.uint64(32) | words[1::2]

    def _uniform32(self, count: int) -> NDArray[np.float32]:
        """float32 in [0, 1): the low 24 bits of a word each."""
        return (self._random32(count) & np.uint64(0xFFFFFF)).astype(np.float32) * np.float32(2**-24)

    def _uniform64(self, count: int) -> NDArray[np.float64]:
        """float64 in [0, 1): the low 53 bits of two words each."""
        return (self._random64(count) & np.uint64(2**53 - 1)).astype(np.float64) * 2.0**-53

    def _fill(self, shape: Shape, dtype: DTypeLike, sample: Callable[[slice], Array]) -> Array:
        """An array filled block by block; ``sample(block)`` gives the values for one slice of the flattened array."""
        out = np.empty(shape, dtype)
        flat = out.reshape(-1)
        with self._lock:
            for start in range(0, flat.size, _BLOCK):
                block = slice(start, min(start + _BLOCK, flat.size))
                flat[block] = _round_to(sample(block), flat.dtype)
        return out

    # ----------------------------------------------------------------------------------------- continuous samplers

    def uniform(self, shape: Shape, dtype: DTypeLike = np.float32, low: float = 0.0, high: float = 1.0) -> Array:
        """Uniform on [low, high): ``Tensor.uniform_``, ``torch.rand``. The bits are PyTorch's.

        Complex dtypes get independent real and imaginary parts. Raises RuntimeError if the bounds are out of order, out
        of the dtype's range or too far apart, NotImplementedError for an integer dtype.
        """
        dtype = np.dtype(dtype)
        if dtype.kind == "c":
            return _complex_view(self.uniform(_with_pair(shape), _real_of(dtype), low, high), dtype)
        if dtype not in _DIGITS:
            raise _not_implemented("check_uniform_bounds", dtype)
        low, high, limit = float(low), float(high), _MAX[dtype]
        _check_bounds("from", low, -limit, limit, dtype)
        _check_bounds("to", high, -limit, limit, dtype)
        if low > high:
            raise RuntimeError(f"uniform_ expects to return a [from, to) range, but found from={low:g} > to={high:g}")
        if high - low > limit:
            raise RuntimeError(
                f"uniform_ expects to-from <= std::numeric_limits<{_NAMES[dtype][0]}>::max(), but found to={high:g} "
                f"and from={low:g} which result in to-from to exceed the limit"
            )
        # float16 and bfloat16 are sampled in float32; the bounds are compared in the dtype itself, because rounding to
        # it can reach the excluded upper bound.
        wide = dtype == _FLOAT64
        start, width = low, high - low
        if not wide:
            start = float(np.float32(low))
            width = float(np.float32(high) - np.float32(low))
        lower, upper = np.array([low, high]).astype(dtype)

        def sample(block: slice) -> Array:
            count = block.stop - block.start
            unit = self._uniform64(count) if wide else self._uniform32(count)
            values = fma(unit, width, start).astype(dtype)
            values[values == upper] = lower
            return values

        return self._fill(shape, dtype, sample)

    def normal(
        self, shape: Shape, dtype: DTypeLike = np.float32, mean: float = 0.0, std: float = 1.0, single: bool = False
    ) -> Array:
        """Normal with the given mean and standard deviation: ``Tensor.normal_``, ``torch.randn``.

        Below 16 elements the Box-Muller transform is done in float64, pair by pair, and an odd pair's second number is
        kept for the next such call. From 16 on it is done on blocks of 16 in the dtype's own precision, and if the last
        block is not full, the last 16 elements are drawn anew; `single` draws them as fewer ones are, which is what
        happens to memory that is not contiguous. Complex dtypes get real and imaginary parts of variance
        ``std**2 / 2``. Raises RuntimeError if std is negative, NotImplementedError for an integer dtype.
        """
        dtype = np.dtype(dtype)
        mean, std = float(mean), float(std)
        if not std >= 0.0:
            raise RuntimeError(f"normal expects std >= 0.0, but found std {std:g}")
        if dtype.kind == "c":
            parts = self.normal(_with_pair(shape), _real_of(dtype), mean, std / math.sqrt(2))
            return _complex_view(parts, dtype)
        if dtype not in _DIGITS:
            raise _not_implemented("normal_kernel_cpu", dtype)
        out = np.empty(shape, dtype)
        flat = out.reshape(-1)
        with self._lock:
            if flat.size < 16 or single:
                flat[...] = _round_to(fma(self._normal64(flat.size), std, mean), dtype)
            else:
                self._normal_fill(flat, mean, std)
        return out

    def _normal64(self, count: int) -> NDArray[np.float64]:
        """Standard normal in float64, in pairs (cosine, sine); the half of a pair left over opens the next call."""
        if count == 0:
            return np.empty(0)
        kept = self._kept[0] if self._kept[1] else None
        pairs = (count + 1) // 2 if kept is None else count // 2
        unit = self._uniform64(2 * pairs)
        theta = (2.0 * math.pi) * unit[0::2]
        if pairs <= 8:
            # The C library's functions, as PyTorch's, where that costs nothing; NumPy's own may differ in the last bit.
            radius = np.sqrt(-2.0 * np.array([math.log1p(-u) for u in unit[1::2]]))
            cosine, sine = (np.array([f(t) for t in theta]) for f in (math.cos, math.sin))
        else:
            radius = np.sqrt(-2.0 * np.log1p(-unit[1::2]))
            cosine, sine = np.cos(theta), np.sin(theta)
        samples = np.stack((radius * cosine, radius * sine), axis=1).reshape(-1)
        if kept is not None:
            samples = np.concatenate(([kept], samples))
        self._kept[:] = (samples[count], 1) if samples.size > count else 0
        return samples[:count]

    def _normal_fill(self, flat: Array, mean: float, std: float) -> None:
        """Fills 16 or more elements of float dtype, 16 at a time."""
        dtype, size = flat.dtype, flat.size
        unit = self._uniform64 if dtype == _FLOAT64 else self._uniform32
        whole = size - size % 16
        for start in range(0, whole, _BLOCK):
            stop = min(start + _BLOCK, whole)
            flat[start:stop] = normal_fill(unit(stop - start), mean, std).astype(dtype)
        if whole < size:
            # float32 and float64 are drawn into the array first, the elements past the last whole block too; the
            # 16-bit dtypes go through a buffer of 16 and never draw these.
            if dtype in (_FLOAT32, _FLOAT64):
                unit(size - whole)
            flat[size - 16 :] = normal_fill(unit(16), mean, std).astype(dtype)

    def log_normal(self, shape: Shape, dtype: DTypeLike = np.float32, mean: float = 1.0, std: float = 2.0) -> Array:
        """The exponential of a normal with the given mean and standard deviation: ``Tensor.log_normal_``.

        Raises RuntimeError unless std > 0, NotImplementedError unless the dtype is a real floating-point one.
        """
        dtype = np.dtype(dtype)
        mean, std = float(mean), float(std)
        if not std > 0.0:
            raise RuntimeError(f"log_normal_ expects std > 0.0, but found std={std:g}")
        if dtype not in _DIGITS:
            raise _not_implemented("log_normal_cpu", dtype)
        return self._fill(shape, dtype, lambda block: np.exp(fma(self._normal64(block.stop - block.start), std, mean)))

    def cauchy(self, shape: Shape, dtype: DTypeLike = np.float32, median: float = 0.0, sigma: float = 1.0) -> Array:
        """Cauchy with the given median and half width at half maximum: ``Tensor.cauchy_``.

        Raises RuntimeError unless sigma > 0 and the dtype is a real floating-point one.
        """
        dtype = np.dtype(dtype)
        median, sigma = float(median), float(sigma)
        if not sigma > 0.0:
            raise RuntimeError(f"cauchy_ expects sigma > 0.0, but found sigma={sigma:g}")
        _check_continuous("Cauchy", dtype, 1)

        def sample(block: slice) -> Array:
            unit = self._uniform64(block.stop - block.start)
            return fma(np.tan(math.pi * (unit - 0.5)), sigma, median)

        return self._fill(shape, dtype, sample)

    def exponential(self, shape: Shape, dtype: DTypeLike = np.float32, lambd: float = 1.0) -> Array:
        """Exponential with rate `lambd`: ``Tensor.exponential_``.

        Raises RuntimeError unless lambd > 0 and the dtype is a real floating-point one.
        """
        dtype = np.dtype(dtype)
        lambd = float(lambd)
        if not lambd > 0.0:
            raise RuntimeError(f"exponential_ expects lambda > 0.0, but found lambda={lambd:g}")
        _check_continuous("Exponential", dtype, 0)
        return self._fill(
            shape, dtype, lambda block: (-1.0 / lambd) * np.log1p(-self._uniform64(block.stop - block.start))
        )

    # ------------------------------------------------------------------------------------------- discrete samplers

    def geometric(self, shape: Shape, dtype: DTypeLike = np.float32, p: float = 0.5) -> Array:
        """Trials up to the first success of probability `p`: ``Tensor.geometric_``.

        Raises RuntimeError unless 0 < p < 1, NotImplementedError for bool, complex and wide unsigned dtypes.
        """
        dtype = np.dtype(dtype)
        p = float(p)
        if not 0.0 < p < 1.0:
            raise RuntimeError(f"geometric_ expects p to be in (0, 1), but got p={p:g}")
        if dtype not in _SAMPLED or dtype == _BOOL:
            raise _not_implemented("geometric_cpu", dtype)
        scale = math.log1p(-p)

        def sample(block: slice) -> Array:
            return np.ceil(np.log(self._uniform64(block.stop - block.start)) / scale)

        return self._fill(shape, dtype, sample)

    def randint(self, low: int, high: int | None, shape: Shape, dtype: DTypeLike = np.int64) -> Array:
        """Integers uniform on [low, high), in any real dtype: ``torch.randint``, ``Tensor.random_(from, to)``.

        With ``high=None`` up to and including the dtype's largest value (for a floating-point dtype the largest up to
        which all integers are representable). In a floating-point dtype, bounds that it can't represent move inwards.
        Raises RuntimeError if the range is empty or the dtype can't hold its ends, and warns, as PyTorch does, where a
        floating-point dtype skips integers within it.
        """
        dtype = np.dtype(dtype)
        low = operator.index(low)
        high = None if high is None else operator.index(high)
        for bound in (low, high):
            if bound is not None and not _INT64_MIN <= bound <= _INT64_MAX:
                raise ValueError("Overflow when unpacking long long")
        low, last = closest_range(low, high, dtype)
        count = last - low + 1
        if count == _UINT64:
            return self._fill(shape, dtype, lambda block: self._random64(block.stop - block.start).view(np.int64))
        draw = self._random64 if count >= WIDE_RANGE else self._random32
        modulus, base = np.uint64(count), np.uint64(low % _UINT64)

        def sample(block: slice) -> Array:
            # Unsigned arithmetic wraps, so that a negative `low` comes out right as a signed number.
            return (draw(block.stop - block.start) % modulus + base).view(np.int64)

        return self._fill(shape, dtype, sample)

    def random(self, shape: Shape, dtype: DTypeLike = np.int64) -> Array:
        """Integers uniform on [0, largest value of the dtype]: ``Tensor.random_()`` without bounds.

        For a floating-point dtype the largest integer up to which all are representable. Raises NotImplementedError
        for complex dtypes and the unsigned ones beyond uint8.
        """
        dtype = np.dtype(dtype)
        if dtype not in _SAMPLED:
            raise _not_implemented("random_kernel_cpu", dtype)
        last = largest_random(dtype)
        draw = self._random64 if dtype in (_FLOAT64, np.dtype(np.int64)) else self._random32
        modulus = np.uint64(last + 1)
        return self._fill(shape, dtype, lambda block: draw(block.stop - block.start) % modulus)

    def bernoulli(self, p: float | Array, shape: Shape, dtype: DTypeLike = np.float32) -> Array:
        """Ones with probability `p`, zeros otherwise, in any real dtype.

        A number as `p` is compared with float64 uniforms (two words an element): ``Tensor.bernoulli_(0.3)``,
        ``torch.bernoulli(x, 0.3)`` and the mask of dropout, which is 1 with probability ``1 - p``. An array of
        probabilities, broadcast to `shape`, is compared in float64 if it is float64 and in float32 (one word an
        element) if not: ``torch.bernoulli(probs)``, ``Tensor.bernoulli_(probs)``. Raises RuntimeError if a probability
        is not within [0, 1], NotImplementedError for complex dtypes and for integer probabilities.
        """
        dtype = np.dtype(dtype)
        if not isinstance(p, np.ndarray):
            p = float(p)
            if not 0.0 <= p <= 1.0:
                raise RuntimeError(f"bernoulli_ expects p to be in [0, 1], but got p={p:g}")
            if dtype not in _SAMPLED:
                raise _not_implemented("bernoulli_scalar_cpu_", dtype)
            return self._fill(shape, dtype, lambda block: self._uniform64(block.stop - block.start) < p)
        if dtype not in _SAMPLED:
            raise _not_implemented("bernoulli_tensor_cpu_self_", dtype)
        if p.dtype not in _DIGITS:
            raise _not_implemented("bernoulli_tensor_cpu_p_", p.dtype)
        wide = p.dtype == _FLOAT64
        probabilities = np.broadcast_to(p if wide else p.astype(np.float32), shape).reshape(-1)
        if not ((probabilities >= 0) & (probabilities <= 1)).all():
            raise RuntimeError("Expected p_in >= 0 && p_in <= 1 to be true, but got false.")
        uniform: Callable[[int], Array] = self._uniform64 if wide else self._uniform32
        return self._fill(shape, dtype, lambda block: uniform(block.stop - block.start) < probabilities[block])

    def randperm(self, n: int, dtype: DTypeLike = np.int64) -> Array:
        """A random permutation of 0 .. n-1, shape (n,): ``torch.randperm``.

        Raises RuntimeError if n is negative or its numbers do not fit in the dtype, NotImplementedError for bool,
        complex and wide unsigned dtypes.
        """
        dtype = np.dtype(dtype)
        n = operator.index(n)
        if n < 0:
            raise RuntimeError(f"Trying to create tensor with negative dimension {n}: [{n}]")
        if dtype not in _SAMPLED or dtype == _BOOL:
            raise _not_implemented("randperm", dtype)
        if dtype in (_FLOAT16, _FLOAT32, _FLOAT64):  # bfloat16 is not checked: PyTorch rounds what it can't hold
            largest = (1 << _DIGITS[dtype]) + 1
            if n > largest:
                raise RuntimeError(f"n cannot be greater than {largest} for {_NAMES[dtype][0]} type.")
        elif dtype != _BFLOAT16 and n - 1 > _largest_integer(dtype):
            raise RuntimeError(f"value cannot be converted to type {dtype.name}_t without overflow")
        steps = np.arange(n)
        with self._lock:
            if n < WIDE_RANDPERM:
                remaining = n - steps[:-1]
                targets = steps[:-1] + (self._random32(max(n - 1, 0)) % remaining.view(np.uint64)).view(np.int64)
                order = shuffle_forward(targets, n)
            else:
                order = shuffle_inside_out((self._random64(n) % (steps + 1).view(np.uint64)).view(np.int64))
        return order.astype(dtype)

    def multinomial(self, probs: Array, num_samples: int, replacement: bool = False) -> NDArray[np.int64]:
        """Category indices drawn with the given unnormalised probabilities: ``torch.multinomial``.

        probs: shape (categories,) or (rows, categories), floating point. Returns int64 indices, shape (num_samples,) or
        (rows, num_samples). Without replacement (or for one sample) the categories with the largest p / q are taken,
        with q exponentially distributed; with it, the cumulative distribution is searched. Raises RuntimeError if
        `probs` is no distribution (negative, infinite or NaN entries, zero sum) or too few categories are given.
        """
        if probs.ndim not in (1, 2):
            raise RuntimeError("prob_dist must be 1 or 2 dim")
        if probs.dtype not in _DIGITS:
            name = _NAMES[probs.dtype][0] if probs.dtype in _NAMES else str(probs.dtype)
            raise RuntimeError(f"multinomial only supports floating-point dtypes for input, got: {name}")
        if num_samples <= 0:
            raise RuntimeError("cannot sample n_sample <= 0 samples")
        categories = probs.shape[-1]
        if not replacement and num_samples > categories:
            raise RuntimeError("cannot sample n_sample > prob_dist.size(-1) samples without replacement")
        if categories > _MAX_CATEGORIES:
            raise RuntimeError("number of categories cannot exceed 2^24")
        result_shape = (*probs.shape[:-1], num_samples)
        if 0 in result_shape:
            return np.empty(result_shape, np.int64)
        if not replacement or num_samples == 1:
            return self._multinomial_by_race(probs, num_samples)
        rows = probs.reshape(-1, categories)
        return self._multinomial_by_search(rows, num_samples).reshape(result_shape)

    def _multinomial_by_race(self, probs: Array, num_samples: int) -> NDArray[np.int64]:
        work = probs if probs.dtype == _FLOAT64 else probs.astype(np.float32)
        if not ((work >= 0) & (work < np.inf)).all():
            raise RuntimeError("probability tensor contains either `inf`, `nan` or element < 0")
        if (work.sum(-1) == 0).any():
            raise RuntimeError("invalid multinomial distribution (sum of probabilities <= 0)")
        # Each category rings after an exponential time of rate p: the earliest are the sample.
        clocks = self.exponential(probs.shape, probs.dtype)
        with np.errstate(divide="ignore", invalid="ignore"):
            speed = _round_to(work / clocks.astype(work.dtype), probs.dtype).astype(work.dtype)
        if num_samples == 1:
            first: NDArray[np.int64] = np.argmax(speed, axis=-1, keepdims=True)
            return first
        np.copyto(speed, np.inf, where=np.isnan(speed))  # 0 / 0 sorts first, as in PyTorch
        order: NDArray[np.int64] = np.argsort(-speed, axis=-1, kind="stable")
        return order[..., :num_samples].copy()

    def _multinomial_by_search(self, rows: Array, num_samples: int) -> NDArray[np.int64]:
        work = rows if rows.dtype == _FLOAT64 else rows.astype(np.float32)
        if not (work >= 0).all():
            raise RuntimeError("invalid multinomial distribution (encountering probability entry < 0)")
        if not np.isfinite(work).all():
            raise RuntimeError("invalid multinomial distribution (encountering probability entry = infinity or NaN)")
        # `np.cumsum` adds one after the other, in the dtype: the same rounding as PyTorch's loop.
        cumulative = np.cumsum(work, axis=-1)
        if work.shape[-1] == 0 or not (cumulative[:, -1] > 0).all():
            raise RuntimeError("invalid multinomial distribution (sum of probabilities <= 0)")
        cumulative /= cumulative[:, -1:].copy()
        cumulative[:, -1] = 1
        with self._lock:
            unit = self._uniform64(len(rows) * num_samples).reshape(len(rows), num_samples)
        left = np.zeros(unit.shape, np.int64)
        right = np.full(unit.shape, work.shape[-1], np.int64)
        for _ in range(work.shape[-1].bit_length()):
            # Searches that are done (left == right) may look at the last entry, and stay where they are.
            middle = np.minimum((left + right) // 2, work.shape[-1] - 1)
            below = (np.take_along_axis(cumulative, middle, axis=1) < unit) & (left < right)
            left = np.where(below, middle + 1, left)
            right = np.where(below, right, np.minimum(middle, right))
        return left


def _from_state(state: Array) -> Generator:
    generator = Generator()
    generator.set_state(state)
    return generator


def _round_to(values: Array, dtype: np.dtype[Any]) -> Array:
    """Values in the dtype; the 16-bit dtypes by way of float32, as PyTorch converts them (it rounds twice)."""
    with np.errstate(over="ignore"):  # beyond the dtype's range is infinity, without a warning
        if dtype in (_FLOAT16, _BFLOAT16):
            values = values.astype(np.float32)
        return values.astype(dtype)


def _with_pair(shape: Shape) -> tuple[int, ...]:
    return (*((shape,) if isinstance(shape, int) else shape), 2)


def _real_of(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return _FLOAT32 if dtype.itemsize == 8 else _FLOAT64


def _complex_view(parts: Array, dtype: np.dtype[Any]) -> Array:
    return parts.view(dtype)[..., 0]


def _largest_integer(dtype: np.dtype[Any]) -> int:
    return 1 if dtype == _BOOL else int(np.iinfo(dtype).max)


def largest_random(dtype: np.dtype[Any]) -> int:
    """The largest number of ``random_()`` without bounds."""
    return 1 << _DIGITS[dtype] if dtype in _DIGITS else _largest_integer(dtype)


def _not_implemented(kernel: str, dtype: np.dtype[Any]) -> NotImplementedError:
    name = _NAMES[dtype][0] if dtype in _NAMES else str(dtype)
    return NotImplementedError(f"\"{kernel}\" not implemented for '{name}'")


def _check_continuous(distribution: str, dtype: np.dtype[Any], name: int) -> None:
    if dtype not in _DIGITS:
        raise RuntimeError(
            f"{distribution} distribution is a continuous probability distribution. dtype must be a floating point "
            f"but you specified {_NAMES[dtype][name] if dtype in _NAMES else dtype}"
        )


def _check_bounds(name: str, value: float, lowest: float, largest: float, dtype: np.dtype[Any]) -> None:
    if not lowest <= value <= largest:
        raise RuntimeError(f"{name} is out of bounds for {_NAMES[dtype][1]}")


def closest_range(low: int, high: int | None, dtype: np.dtype[Any]) -> tuple[int, int]:
    """First and last integer to draw for ``random_(low, high)`` in the dtype, checked as PyTorch checks them."""
    floating = dtype in _DIGITS
    if high is None and low == _INT64_MIN:
        if dtype in (_FLOAT32, _FLOAT64, _BFLOAT16, np.dtype(np.int64)):
            return _INT64_MIN, _INT64_MAX
        if dtype in (_FLOAT16, _BOOL) or dtype not in _SAMPLED:
            raise _not_implemented("random_full_64_bits_range_kernel_cpu", dtype)
        raise RuntimeError("random_full_64_bits_range_kernel_cpu handles only int64, double, float and bfloat16")
    if high is not None and low >= high:
        raise RuntimeError(f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}")
    if dtype not in _NAMES or dtype.kind == "c":
        check = "random_from_to_impl" if high is None else "check_random_bounds"
        raise RuntimeError(f"{check} handles only integral, floating-point and boolean types")
    if floating:
        lowest, largest = -_MAX[dtype], _MAX[dtype]
        _check_bounds("from", low, lowest, largest, dtype)
        low = _representable_low(low, dtype)
        if high is None:
            last = 1 << _DIGITS[dtype]
            if low >= last:
                raise RuntimeError(
                    "random_ expects 'from' casted to dtype to be less than or equal to 'to_inc' casted to dtype, "
                    f"but got from={low} > to_inc={last}"
                )
        else:
            last = _representable_high(high, dtype) - 1
            if low > last:
                raise RuntimeError(
                    "random_ expects 'from' casted to dtype to be less than 'to' casted to dtype, "
                    f"but got from={low} >= to={last + 1}"
                )
    else:
        last = _largest_integer(dtype) if high is None else high - 1
        lowest = 0 if dtype.kind in "bu" else int(np.iinfo(dtype).min)
        largest = min(_largest_integer(dtype), _INT64_MAX)
    for name, value in (("from", low), ("to - 1", last)):
        _check_bounds(name, value, lowest, largest, dtype)
    for name, value in (("from", low), ("to - 1", last)):
        if floating and abs(value) > 1 << _DIGITS[dtype]:
            warnings.warn(
                f"{name} is out of bounds [-(2^{_DIGITS[dtype]}), 2^{_DIGITS[dtype]}]. Due to precision limitations "
                f"{_NAMES[dtype][1]} can support discrete uniform distribution only within this range. "
                "This warning will become an error in version 1.7 release, please fix the code in advance",
                UserWarning,
                stacklevel=4,
            )
    return low, last


def _representable_low(low: int, dtype: np.dtype[Any]) -> int:
    """Moves a lower bound up to a number of the dtype, if rounding to the dtype takes its successor below it."""
    successor = _rounded_integer(low + 1, dtype)
    return low if successor is None or successor >= low else successor + _spacing(low + 1, dtype)


def _representable_high(high: int, dtype: np.dtype[Any]) -> int:
    """Moves an excluded upper bound down to a number of the dtype, if rounding takes its predecessor up to it."""
    predecessor = _rounded_integer(high - 1, dtype)
    return high if predecessor is None or predecessor < high else predecessor - _spacing(high - 1, dtype)


def _rounded_integer(value: int, dtype: np.dtype[Any]) -> int | None:
    rounded = float(_round_to(np.array([value]), dtype)[0])
    return int(rounded) if abs(rounded) < 2.0**63 else None


def _spacing(value: int, dtype: np.dtype[Any]) -> int:
    """The distance between neighbours of the dtype near an integer with more digits than it has."""
    return 1 << (abs(value).bit_length() - _DIGITS[dtype])


default_generator = Generator()
"""The generator that samplers use when none is given; like PyTorch's, it starts from a random seed."""
default_generator.seed()
