"""The skeleton of everything that is a matrix product inside: blocks of the result, a loop over the summed extent.

What differs between matrix products and convolutions is where an element of an operand lies. float16 and bfloat16
accumulate in float32 on the tensor cores; float32 is in full precision, as PyTorch's default for products is; float64
and integers are sums of outer products.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphtorch.ir.graph import Node
from graphtorch.lowering.binding import concrete
from graphtorch.lowering.kernel import Buffer, ExternCall, View
from graphtorch.lowering.triton.codegen import IMPORTS, Generated, comment
from graphtorch.lowering.triton.instructions import memory, register
from graphtorch.lowering.triton.tiling import Limits, power_of_two
from graphtorch.tensor import dtypes
from graphtorch.tensor.dtypes import dtype

_DOT = (dtypes.float16, dtypes.bfloat16, dtypes.float32)
GROUP = 8  # rows of blocks that share the columns of the second operand in the second-level cache


@dataclass
class Product:
    """A product of an (M, K) and a (K, N) operand, `count` times if that is given, by its text.

    The lines may use m, n (indices of the block), `rest` (of the summed extent), m_mask, n_mask, and `batch`.

    head      after the comments: defines M, N and K unless they are arguments
    setup     before the loop
    inner     in it: defines x, the block of the first operand, as [m, rest] and y as [rest, n], 0 beyond the ends
    place     where an element of the result lies, [m, n], from `c`
    """

    name: str
    m: Any
    n: Any
    k: Any
    count: Any
    pointers: dict[str, Buffer]
    out: Buffer
    integers: dict[str, Any]
    divisible: frozenset[str]
    wide: bool
    inner: list[str]
    place: str
    head: list[str] = field(default_factory=list)
    setup: list[str] = field(default_factory=list)

    def generate(self, call: ExternCall, bindings: Mapping[str, int], limits: Limits | None) -> Generated:
        """The function."""
        of = self.out.dtype
        rows, columns, depth = (concrete(s, bindings) for s in (self.m, self.n, self.k))
        bm, bn, bk, warps, stages = blocks(rows, columns, depth, of)
        if limits is not None:  # a test's small blocks
            side = max(16, power_of_two(int(limits.pointwise**0.5)))
            bm, bn, bk = min(bm, side), min(bn, side), min(bk, side)
        grid: list[tuple[Any, int]] = [(self.m, bm), (self.n, bn)]
        if self.count is not None:
            grid.append((self.count, 1))
        return Generated(
            self.name,
            self._text(call, of),
            (*self.pointers.values(), self.out),
            (*self.pointers, "c"),
            tuple(self.integers.items()),
            {"BLOCK_M": bm, "BLOCK_N": bn, "BLOCK_K": bk},
            tuple(grid),
            self.wide,
            self.divisible,
            warps,
            stages,
        )

    def _text(self, call: ExternCall, of: dtype) -> str:
        accumulator = register(of)
        if of in _DOT:
            precision = ', input_precision="ieee"' if of is dtypes.float32 else ""
            product = [f"acc = tl.dot(x, y, acc{precision})"]
        else:
            product = [f"acc += tl.sum(x.to({accumulator})[:, :, None] * y.to({accumulator})[None, :, :], 1)"]
        to = "" if memory(of) == accumulator else f".to({memory(of)})"
        long = ".to(tl.int64)" if self.wide else ""
        batch = [f"batch = (pid // (m_blocks * n_blocks)){long}", "pid = pid % (m_blocks * n_blocks)"]
        lines = [
            *(comment(node) for node in call.nodes if type(node) is Node),
            *self.head,
            "pid = tl.program_id(0)",
            "m_blocks = tl.cdiv(M, BLOCK_M)",
            "n_blocks = tl.cdiv(N, BLOCK_N)",
            *(batch if self.count is not None else ()),
            f"# Programs that run at the same time share rows of x and columns of y: {GROUP} rows of blocks at a time.",
            f"group = pid // ({GROUP} * n_blocks)",
            f"height = min(m_blocks - {GROUP} * group, {GROUP})",
            f"pid_m = {GROUP} * group + (pid % ({GROUP} * n_blocks)) % height",
            f"pid_n = (pid % ({GROUP} * n_blocks)) // height",
            f"m = pid_m{long} * BLOCK_M + tl.arange(0, BLOCK_M)",
            f"n = pid_n{long} * BLOCK_N + tl.arange(0, BLOCK_N)",
            f"k = tl.arange(0, BLOCK_K){long}",
            "m_mask = m < M",
            "n_mask = n < N",
            *self.setup,
            f"acc = tl.zeros([BLOCK_M, BLOCK_N], {accumulator})",
            "for k_start in range(0, K, BLOCK_K):",
            *(f"    {line}" for line in ("rest = k_start + k", *self.inner, *product)),
            f"tl.store(c + {self.place}, acc{to}, mask=m_mask[:, None] & n_mask[None, :])",
        ]
        blocks_ = (f"BLOCK_{d}: tl.constexpr" for d in "MNK")
        arguments = ", ".join([*self.pointers, "c", *self.integers, *blocks_])
        imports = "".join(IMPORTS.splitlines(True)[:2])
        body = "\n".join(f"    {line}" for line in lines)
        return f"{imports}\n\n@triton.jit\ndef {self.name}({arguments}):\n{body}\n"


def blocks(m: int, n: int, k: int, of: dtype) -> tuple[int, int, int, int, int]:
    """(BLOCK_M, BLOCK_N, BLOCK_K, warps, stages) by shape. First guesses from what others publish, unmeasured here."""
    if of not in _DOT:
        return min(16, power_of_two(max(m, 1))), min(32, power_of_two(max(n, 1))), 16, 4, 1
    half = of.itemsize == 2
    bm = min(max(power_of_two(m), 16), 128)
    bn = min(max(power_of_two(n), 16), 256 if half and m >= 2048 and n >= 2048 else 128)
    if not half:
        # Full precision in float32 is no work for tensor cores: larger blocks or fewer warps spill registers.
        bm, bn = min(bm, 64), min(bn, 64)
        return bm, bn, 16, 8 if bm * bn >= 64 * 64 else 4, 2
    bk = min(max(power_of_two(k), 16), 64)
    return bm, bn, bk, 8 if bm * bn >= 128 * 256 else 4, 3


def reach(views: Sequence[View], bindings: Mapping[str, int]) -> int:
    """The largest offset of the views' elements, with a block beyond the end."""
    most = 0
    for view in views:
        end = concrete(view.offset, bindings)
        for size, stride in zip(concrete(view.shape, bindings), concrete(view.strides, bindings), strict=True):
            end += (size + 256) * abs(stride)
        most = max(most, int(end))
    return most
