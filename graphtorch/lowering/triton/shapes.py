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
MOST_PARTS = 32


@dataclass(frozen=True)
class Config:
    """Block sizes, warps and stages of a product.

    programs      at most so many, each going through several blocks (a persistent kernel); None: one a block
    descriptors   operands are copied through tensor descriptors (on sm_90 and later the tensor memory accelerator)
    """

    block_m: int
    block_n: int
    block_k: int
    num_warps: int = 4
    num_stages: int = 3
    programs: int | None = None
    descriptors: bool = False

    def shared_memory(self, of: dtype) -> int:
        """Bytes of the buffers that its stages take."""
        return (self.block_m + self.block_n) * self.block_k * of.itemsize * self.num_stages

    def __str__(self) -> str:
        kind = f", {self.programs} programs" if self.programs else ""
        return (
            f"{self.block_m}x{self.block_n}x{self.block_k}, {self.num_warps} warps, {self.num_stages} stages{kind}"
            f"{', descriptors' if self.descriptors else ''}"
        )


def fit(m: int, n: int, k: int, of: dtype, tf32: bool = False) -> Config:
    """The default choice."""
    if of not in DOT:
        return Config(min(16, power_of_two(max(m, 1))), min(32, power_of_two(max(n, 1))), 16, 4, 1)
    bm, bn = _side(m, 128), _side(n, 128)
    if of.itemsize == 4 and not tf32:
        # Full precision in float32 is no work for tensor cores: larger blocks or fewer warps spill registers.
        bm, bn = min(bm, 64), min(bn, 64)
        return Config(bm, bn, 16, 8 if bm * bn >= 64 * 64 else 4, 2)
    if of.itemsize == 4:
        return Config(bm, bn, 32, 8 if bm * bn >= 128 * 128 else 4, 3)
    bk = min(max(power_of_two(k), 16), 64)
    if m >= 2048 and n >= 2048:
        return Config(128, 256, bk, 8, 3)
    if blocks(m, bm) * blocks(n, bn) < MULTIPROCESSORS // 2 and bm * bn > 64 * 64:
        # Too few blocks to keep every multiprocessor busy.
        bm = min(bm, 64)
    return Config(bm, bn, bk, 4, 3 if bm * bn >= 128 * 128 else 4)


def candidates(m: int, n: int, k: int, of: dtype, tf32: bool = False, descriptors: bool = False) -> list[Config]:
    """What autotuning tries: the default first, then others that fit the shape; each once.

    descriptors   whether the operands' alignment allows tensor descriptors
    """
    default = fit(m, n, k, of, tf32)
    if of not in DOT:
        return [default]
    if of.itemsize == 4 and not tf32:
        table = [Config(32, 32, 16, 4, 2), Config(64, 32, 32, 4, 2), Config(64, 64, 16, 8, 3), Config(64, 64, 32, 8, 2)]
    else:
        deep = 64 if of.itemsize == 2 else 32
        table = [
            Config(64, 64, deep // 2, 4, 2),
            Config(64, 128, deep, 4, 3),
            Config(128, 64, deep, 4, 4),
            Config(128, 128, deep, 4, 3),
            Config(128, 128, deep, 8, 4),
            Config(128, 256, deep, 8, 3),
            Config(256, 128, deep, 8, 3),
        ]
    found = [default]
    for config in table:
        shrunk = replace(
            config,
            block_m=min(config.block_m, _side(m, 256)),
            block_n=min(config.block_n, _side(n, 256)),
            block_k=min(config.block_k, max(power_of_two(k), 16)),
        )
        found += [shrunk, *_variants(shrunk, m, n, of, descriptors)]
    return list(dict.fromkeys(found))


def _variants(config: Config, m: int, n: int, of: dtype, descriptors: bool) -> Iterator[Config]:
    """Persistent and descriptor forms, where there is enough to do for them."""
    large = config.block_m * config.block_n >= 128 * 128
    if not (descriptors and large and config.block_k * of.itemsize >= 64):
        return
    yield replace(config, descriptors=True)
    if blocks(m, config.block_m) * blocks(n, config.block_n) > 2 * MULTIPROCESSORS:
        yield replace(config, descriptors=True, programs=MULTIPROCESSORS)


def parts(m: int, n: int, k: int, count: int, of: dtype) -> int:
    """Into how many the sum of a product is split: 1, unless its blocks are few and the sum is long (skinny shapes,
    gradients of convolution kernels)."""
    if of not in DOT:
        return 1
    config = fit(m, n, k, of)
    programs = blocks(m, config.block_m) * blocks(n, config.block_n) * count
    wanted = min(2 * MULTIPROCESSORS // max(programs, 1), k // SHORTEST_PART, MOST_PARTS)
    return 1 << (wanted.bit_length() - 1) if wanted >= 2 and programs <= MULTIPROCESSORS // 2 else 1


def blocks(extent: int, block: int) -> int:
    return -(-extent // block)


def _side(extent: int, most: int) -> int:
    return min(max(power_of_two(extent), 16), most)
