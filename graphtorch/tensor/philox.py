"""The random streams of GPUs, in NumPy: Philox-4x32-10 and how PyTorch's CUDA samplers spend it.

Philox is a function from a counter and a key to four words of 32 bits, so that any number of a stream can be had at
once. PyTorch's samplers on CUDA give each of some number of threads a stream of its own (the upper half of the counter)
and number the calls of a thread (the lower half, counted in words by the generator's offset). This is the reference for
generated kernels; nothing here needs a GPU.

Sources: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011); cuRAND's documentation of
`curandStatePhilox4_32_10_t`; https://docs.pytorch.org/docs/stable/notes/randomness.html.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]

THREADS = 132 * 2048
"""Threads that a sampler starts at most: what fits on an H100 or H200 at once. Other devices have other streams."""
BLOCK = 256  # threads of a block

_LOW = np.uint64(0xFFFFFFFF)
_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = 0x9E3779B9, 0xBB67AE85


def philox(seed: int, counter: Any, stream: Any) -> tuple[Words, Words, Words, Words]:
    """The four words at `counter` of `stream` (arrays of integers below 2**64, broadcast)."""
    low, high = np.broadcast_arrays(np.asarray(counter, np.uint64), np.asarray(stream, np.uint64))
    c0, c1, c2, c3 = low & _LOW, low >> np.uint64(32), high & _LOW, high >> np.uint64(32)
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF
    for _ in range(10):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (p1 >> np.uint64(32)) ^ c1 ^ np.uint64(k0),
            p1 & _LOW,
            (p0 >> np.uint64(32)) ^ c3 ^ np.uint64(k1),
            p0 & _LOW,
        )
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return tuple(c.astype(np.uint32) for c in (c0, c1, c2, c3))  # type: ignore[return-value]


def threads_of(count: int, threads: int = THREADS) -> int:
    """How many threads share the draw of `count` elements."""
    return min(-(-max(count, 1) // BLOCK) * BLOCK, threads)


def advance_of(count: int, per_call: int = 4, threads: int = THREADS) -> int:
    """By how much a draw of `count` elements, `per_call` a call of Philox, advances the generator's offset."""
    return ((max(count, 1) - 1) // (threads_of(count, threads) * per_call) + 1) * 4


def words(count: int, seed: int, offset: int, threads: int = THREADS) -> Words:
    """A word for each of `count` elements: thread t draws for the elements t, t + T, t + 2 T, ..."""
    element = np.arange(count, dtype=np.int64)
    shared = threads_of(count, threads)
    turn = element // shared
    four = philox(seed, offset // 4 + turn // 4, element % shared)
    return np.choose(turn % 4, four).astype(np.uint32)


def pairs(count: int, seed: int, offset: int, threads: int = THREADS) -> tuple[Words, Words]:
    """Two words for each element: what numbers of 64 bits are made of."""
    element = np.arange(count, dtype=np.int64)
    shared = threads_of(count, threads)
    turn = element // shared
    a, b, c, d = philox(seed, offset // 4 + turn // 2, element % shared)
    second = turn % 2 == 1
    return np.where(second, c, a), np.where(second, d, b)


def neighbours(count: int, seed: int, offset: int) -> Words:
    """A word for each element, where a thread draws for four neighbours (`bernoulli` with a tensor)."""
    element = np.arange(count, dtype=np.int64)
    return np.choose(element % 4, philox(seed, offset // 4, element // 4)).astype(np.uint32)


def quads(count: int, seed: int, offset: int, threads: int = THREADS) -> Words:
    """A word for each element, where a thread draws for four neighbours at a time (dropout)."""
    element = np.arange(count, dtype=np.int64)
    shared = threads_of(count, threads)
    group = element // 4
    return np.choose(element % 4, philox(seed, offset // 4 + group // shared, group % shared)).astype(np.uint32)


def unit(word: Words) -> NDArray[np.float32]:
    """Uniform float32 in (0, 1]."""
    made: NDArray[np.float32] = word.astype(np.float32) * np.float32(2**-32) + np.float32(2**-33)
    return made


def unit64(low: Words, high: Words) -> NDArray[np.float64]:
    """Uniform float64 in (0, 1] of 53 bits."""
    whole = low.astype(np.uint64) ^ (high.astype(np.uint64) << np.uint64(21))
    made: NDArray[np.float64] = whole.astype(np.float64) * 2.0**-53 + 2.0**-54
    return made


def normal(count: int, seed: int, offset: int, threads: int = THREADS) -> NDArray[np.float32]:
    """Standard normal float32 by Box and Muller: of a pair of words, the sine and the cosine."""
    element = np.arange(count, dtype=np.int64)
    shared = threads_of(count, threads)
    turn = element // shared
    a, b, c, d = philox(seed, offset // 4 + turn // 4, element % shared)
    later = turn % 4 >= 2
    radius = np.sqrt(np.float32(-2) * np.log(unit(np.where(later, c, a))))
    turned = np.where(later, d, b).astype(np.float32) * np.float32(2**-32 * 2 * np.pi)
    angle = turned + np.float32(2**-33 * 2 * np.pi)
    made: NDArray[np.float32] = radius * np.where(turn % 2 == 0, np.sin(angle), np.cos(angle))
    return made


def normal64(count: int, seed: int, offset: int, threads: int = THREADS) -> NDArray[np.float64]:
    """Standard normal float64: four words make a pair."""
    element = np.arange(count, dtype=np.int64)
    shared = threads_of(count, threads)
    turn = element // shared
    a, b, c, d = philox(seed, offset // 4 + turn // 2, element % shared)
    radius, angle = np.sqrt(-2.0 * np.log(unit64(a, b))), unit64(c, d) * 2 * np.pi
    made: NDArray[np.float64] = radius * np.where(turn % 2 == 0, np.sin(angle), np.cos(angle))
    return made
