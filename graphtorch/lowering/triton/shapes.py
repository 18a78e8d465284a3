"""How large the blocks of matrix products are: by shape, and the candidates that autotuning chooses from.

The table holds what others publish, as first guesses: nothing of it has been measured here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from graphtorch.lowering.triton.tiling import power_of_two
from graphtorch.tensor import dtypes
from graphtorch.tensor.dtypes import dtype

DOT = (dtypes.float16, dtypes.bfloat16, dtypes.float32)  # what `tl.dot` multiplies
MULTIPROCESSORS = 132  # of an H200; programs of a persistent kernel
SHORTEST_PART = 512  # summed elements that are worth a program of their own


@dataclass(frozen=True)
class Config:
    """Block sizes, warps and stages of a product.

    programs      at most so many, each going through several blocks (a persistent kernel); None: one a block
    descriptors   operands are copied through tensor descriptors (on sm_90 and later the tensor memory accelerator)
    specialized   of a persistent kernel with descriptors: copies are the work of further warps, which Triton adds to
                  four that compute (on sm_90, eight that compute half a block each)
    """

    block_m: int
    block_n: int
    block_k: int
    num_warps: int = 4
    num_stages: int = 3
    programs: int | None = None
    descriptors: bool = False
    specialized: bool = False

    def shared_memory(self, of: dtype) -> int:
        """Bytes of the buffers that its stages take."""
        return (self.block_m + self.block_n) * self.block_k * of.itemsize * self.num_stages

    def __str__(self) -> str:
        kind = f", {self.programs} programs" if self.programs else ""
        return (
            f"{self.block_m}x{self.block_n}x{self.block_k}, {self.num_warps} warps, {self.num_stages} stages{kind}"
            f"{', descriptors' if self.descriptors else ''}{', specialized warps' if self.specialized else ''}"
        )


# What a multiprocessor of an H200 does in a second: its tensor cores on bfloat16 (on tf32 half of it), its other units
# on float32. The vendor's figures and a copy's bandwidth; the shares reached are guesses.
_TENSOR_RATE, _FLOAT_RATE = 7.5e12, 0.5e12
_BANDWIDTH = 4.3e12
_BESIDE_OTHERS = 0.7e-6  # of a block, before and after its loop, while other programs of its multiprocessor compute
_ALONE = 3e-6  # the same of a block that has its multiprocessor for itself
_STEP = 0.1e-6  # of one step of a loop, however small its blocks are
_LAUNCH = 3e-6  # of a second launch and what it waits for
_PARTS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 24, 32)


def fit(m: int, n: int, k: int, of: dtype, tf32: bool = False, count: int = 1) -> Config:
    """The default choice for `count` products."""
    return _best(m, n, k, count, of, tf32)[0]


def parts(m: int, n: int, k: int, count: int, of: dtype, tf32: bool = False) -> int:
    """Into how many the sum of a product is split: 1, unless its blocks are few and the sum is long (skinny shapes,
    gradients of weights)."""
    return _best(m, n, k, count, of, tf32)[1]


def waiting(m: int, n: int, k: int, count: int, of: dtype, tf32: bool = False) -> int:
    """Into how many parts a long sum is split that waits for memory in each step: four programs a multiprocessor."""
    config = fit(m, n, k, of, tf32, count)
    return max(4 * MULTIPROCESSORS // (blocks(m, config.block_m) * blocks(n, config.block_n) * count), 1)


def _best(m: int, n: int, k: int, count: int, of: dtype, tf32: bool) -> tuple[Config, int]:
    """The blocks and parts that are estimated to take the least time."""
    if of not in DOT:
        return Config(min(16, power_of_two(max(m, 1))), min(32, power_of_two(max(n, 1))), 16, 4, 1), 1
    found = _shapes(m, n, k, of, tf32)
    divisions = [s for s in _PARTS if s == 1 or s <= k // SHORTEST_PART]
    choices = [(config, s) for config in found for s in divisions]
    return min(choices, key=lambda c: _seconds(c[0], c[1], m, n, k, count, of, tf32))


def _shapes(m: int, n: int, k: int, of: dtype, tf32: bool) -> list[Config]:
    """Blocks by default, the largest first."""
    bm, bn = _side(m, 128), _side(n, 128)
    if of.itemsize == 4 and not tf32:
        # Full precision in float32 is no work for tensor cores. With eight by eight sums a thread multiplies thirteen
        # times for each sixteen bytes of shared memory; with four by four it waits for it, with more it spills.
        large = [Config(bm, min(bn, 64), 16, 4, 3)] if bm == 128 and bn >= 64 else []
        return [*large, Config(min(bm, 64), min(bn, 64), 16, 4, 3)]
    deep = 64 if of.itemsize == 2 else 32
    bk = min(max(power_of_two(k), 16), deep)
    found = []
    if bm == 128 and n >= 256 and of.itemsize == 2:
        found.append(Config(128, 256, bk, 8, 4))
    warps = 8 if of.itemsize == 4 and bm * bn >= 128 * 128 else 4
    found.append(Config(bm, bn, bk, warps, 3 if bm * bn >= 128 * 128 else 4))
    if bm * bn > 64 * 64:
        found += [Config(min(bm, 64), bn, bk, 4, 4), Config(min(bm, 64), min(bn, 64), bk, 4, 4)]
    return found


def _seconds(config: Config, splits: int, m: int, n: int, k: int, count: int, of: dtype, tf32: bool) -> float:
    """An estimate: whole waves of blocks over the multiprocessors, or memory, whichever takes longer."""
    across, down = blocks(m, config.block_m), blocks(n, config.block_n)
    programs = max(across * down * count * splits, 1)  # a product of nothing stores zeros, or nothing
    rate = _FLOAT_RATE if of.itemsize == 4 and not tf32 else _TENSOR_RATE / (of.itemsize // 2)
    side = config.block_m * config.block_n / (config.block_m + config.block_n)
    rate *= side / (side + 30)  # larger blocks read less from shared memory for each product
    block = max(2.0 * config.block_m * config.block_n / rate, _STEP / config.block_k) * (k / splits)
    block += _ALONE if config.block_m * config.block_n > 128 * 128 else _BESIDE_OTHERS
    busy = min(1.0, programs / (1.5 * MULTIPROCESSORS))  # few programs do not wait for enough memory at once
    moved = (m * k + k * n + m * n) * count * of.itemsize
    seconds = max(blocks(programs, MULTIPROCESSORS) * block, moved / (_BANDWIDTH * busy))
    if splits > 1:
        seconds += _LAUNCH + 8.0 * splits * m * n * count / _BANDWIDTH
    return seconds


def candidates(
    m: int, n: int, k: int, of: dtype, tf32: bool = False, descriptors: bool = False, count: int = 1
) -> list[Config]:
    """What autotuning tries: the default first, then others that fit the shape; each once.

    descriptors   whether the operands' alignment allows tensor descriptors
    """
    default = fit(m, n, k, of, tf32, count)
    if of not in DOT:
        return [default]
    if of.itemsize == 4 and not tf32:
        table = [
            Config(32, 32, 16, 4, 2),
            Config(64, 32, 32, 4, 2),
            Config(64, 64, 16, 4, 3),
            Config(64, 64, 32, 8, 2),
            Config(64, 128, 16, 4, 3),
            Config(128, 64, 16, 4, 4),
            Config(128, 128, 16, 8, 3),
        ]
    else:
        deep = 64 if of.itemsize == 2 else 32
        table = [
            Config(64, 64, deep // 2, 4, 2),
            Config(64, 128, deep, 4, 3),
            Config(128, 64, deep, 4, 4),
            Config(128, 128, deep, 4, 3),
            Config(128, 128, deep, 8, 3),
            Config(128, 128, deep, 8, 5),
            Config(128, 256, deep, 8, 3),
            Config(128, 256, deep, 8, 4),
            Config(256, 128, deep, 8, 4),
        ]
    found = [default]
    for config in table:
        shrunk = replace(
            config,
            block_m=min(config.block_m, _side(m, 256)),
            block_n=min(config.block_n, _side(n, 256)),
            block_k=min(config.block_k, max(power_of_two(k), 16)),
        )
        found += [shrunk, *_variants(shrunk, m, n, of, descriptors and (tf32 or of.itemsize == 2))]
    if descriptors and of.itemsize == 2 and k >= 64 and blocks(m, 128) * blocks(n, 128) > MULTIPROCESSORS:
        for bn, stages in ((256, 3), (128, 4)):
            if n >= bn:
                found.append(Config(128, bn, 64, 4, stages, MULTIPROCESSORS, True, True))
    return list(dict.fromkeys(found))


def _variants(config: Config, m: int, n: int, of: dtype, descriptors: bool) -> Iterator[Config]:
    """Persistent and descriptor forms, where there is enough to do for them.

    Without tensor cores, what descriptors copy lies in shared memory in an order that costs registers."""
    large = config.block_m * config.block_n >= 128 * 128
    if not (descriptors and large and config.block_k * of.itemsize >= 64):
        return
    yield replace(config, descriptors=True)
    if blocks(m, config.block_m) * blocks(n, config.block_n) > 2 * MULTIPROCESSORS:
        yield replace(config, descriptors=True, programs=MULTIPROCESSORS)


def blocks(extent: int, block: int) -> int:
    return -(-extent // block)


def _side(extent: int, most: int) -> int:
    return min(max(power_of_two(extent), 16), most)
