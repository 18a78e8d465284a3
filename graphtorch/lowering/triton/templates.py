"""Triton source for calls that are no loop nests of one fold: matrix products.

Operands are strided views: their strides are arguments, and where one is 1 the text says so, which is what lets the
loads be wide. Products of float16, bfloat16 and float32 accumulate in float32 on the tensor cores (float32 in full
precision, as PyTorch's default is); those of float64 and integers are sums of outer products.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphtorch.ir.graph import Node
from graphtorch.lowering.binding import concrete
from graphtorch.lowering.kernel import ExternCall, View
from graphtorch.lowering.triton.codegen import IMPORTS, Generated, comment
from graphtorch.lowering.triton.errors import UnsupportedError
from graphtorch.lowering.triton.indexing import generate_indexing
from graphtorch.lowering.triton.instructions import memory, register
from graphtorch.lowering.triton.tiling import Limits, power_of_two
from graphtorch.tensor import dtypes
from graphtorch.tensor.dtypes import dtype

_DOT = (dtypes.float16, dtypes.bfloat16, dtypes.float32)
GROUP = 8  # rows of blocks that share the columns of `b` in the second-level cache


def generate_call(call: ExternCall, bindings: Mapping[str, int], limits: Limits | None = None) -> list[Generated]:
    """The functions of a call for sizes like the given ones, in order. Raises UnsupportedError for one without a
    template."""
    if call.op.name in ("mm", "bmm"):
        return [generate_product(call, bindings, limits)]
    return generate_indexing(call, bindings, limits or Limits())


def generate_product(call: ExternCall, bindings: Mapping[str, int], limits: Limits | None = None) -> Generated:
    """The source of a matrix product."""
    a, b = call.args[:2]
    out = call.outputs[0]
    if out is None or not isinstance(a, View) or not isinstance(b, View):
        raise UnsupportedError(f"{call.op.name} without operands or result")
    register(out.dtype)
    m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
    rows, columns, depth = (concrete(s, bindings) for s in (m, n, k))
    bm, bn, bk, warps, stages = blocks(rows, columns, depth, out.dtype)
    if limits is not None:  # a test's small blocks
        side = max(16, power_of_two(int(limits.pointwise**0.5)))
        bm, bn, bk = min(bm, side), min(bn, side), min(bk, side)
    batched = call.op.name == "bmm"
    integers: dict[str, Any] = {"M": m, "N": n, "K": k, "a_offset": a.offset, "b_offset": b.offset}
    if batched:
        integers |= {"stride_ab": a.strides[0], "stride_bb": b.strides[0]}
    integers |= {"stride_am": a.strides[-2], "stride_ak": a.strides[-1]}
    integers |= {"stride_bk": b.strides[-2], "stride_bn": b.strides[-1]}
    values = {name: concrete(size, bindings) for name, size in integers.items()}
    unit = {name for name, value in values.items() if name.startswith("stride_") and value == 1}
    zero = {name for name, value in values.items() if name.endswith("_offset") and value == 0}
    kept = {name: size for name, size in integers.items() if name not in unit | zero}
    count = rows * columns * (concrete(a.shape[0], bindings) if batched else 1)
    wide = max(_reach(a, bindings), _reach(b, bindings), count) >= 2**31
    text = _matmul(call, list(kept), unit, batched, out.dtype, wide)
    grid: list[tuple[Any, int]] = [(m, bm), (n, bn)]
    if batched:
        grid.append((a.shape[0], 1))
    return Generated(
        call.op.name,
        text,
        (a.buffer, b.buffer, out),
        ("a", "b", "c"),
        tuple(kept.items()),
        {"BLOCK_M": bm, "BLOCK_N": bn, "BLOCK_K": bk},
        tuple(grid),
        wide,
        frozenset(name for name in kept if values[name] % 16 == 0),
        warps,
        stages,
    )


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


def _reach(view: View, bindings: Mapping[str, int]) -> int:
    """The largest offset of a view's elements, with a block beyond the end."""
    reach = concrete(view.offset, bindings)
    for size, stride in zip(concrete(view.shape, bindings), concrete(view.strides, bindings), strict=True):
        reach += (size + 256) * abs(stride)
    return int(reach)


def _matmul(call: ExternCall, integers: list[str], unit: set[str], batched: bool, of: dtype, wide: bool) -> str:
    def stepped(stride: str, index: str) -> str:
        return index if stride in unit else f"{stride} * {index}"

    def start(operand: str) -> str:
        terms = [operand]
        if f"{operand}_offset" in integers:
            terms.append(f"{operand}_offset")
        if batched:
            terms.append(stepped(f"stride_{operand}b", "batch"))
        return " + ".join(terms)

    accumulator = register(of)
    widen = "" if of in _DOT else f".to({accumulator})"
    if of in _DOT:
        precision = ', input_precision="ieee"' if of is dtypes.float32 else ""
        product = f"acc = tl.dot(x, y, acc{precision})"
    else:
        product = "acc += tl.sum(x[:, :, None] * y[None, :, :], 1)"
    to = "" if memory(of) == accumulator else f".to({memory(of)})"
    long = ".to(tl.int64)" if wide else ""
    batch = ""
    if batched:
        batch = f"    batch = (pid // (m_blocks * n_blocks)){long}\n    pid = pid % (m_blocks * n_blocks)\n"
    result = "c + batch * (M * N)" if batched else "c"
    comments = "".join(f"    {comment(node)}\n" for node in call.nodes if type(node) is Node)
    arguments = ", ".join(["a", "b", "c", *integers, *(f"BLOCK_{d}: tl.constexpr" for d in "MNK")])
    imports = "".join(IMPORTS.splitlines(True)[:2])
    return f"""{imports}

@triton.jit
def {call.op.name}({arguments}):
{comments}    pid = tl.program_id(0)
    m_blocks = tl.cdiv(M, BLOCK_M)
    n_blocks = tl.cdiv(N, BLOCK_N)
{batch}    # Programs that run at the same time share rows of a and columns of b: {GROUP} rows of blocks at a time.
    group = pid // ({GROUP} * n_blocks)
    height = min(m_blocks - {GROUP} * group, {GROUP})
    pid_m = {GROUP} * group + (pid % ({GROUP} * n_blocks)) % height
    pid_n = (pid % ({GROUP} * n_blocks)) // height
    m = pid_m{long} * BLOCK_M + tl.arange(0, BLOCK_M)
    n = pid_n{long} * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K){long}
    m_mask = m < M
    n_mask = n < N
    a_rows = {start("a")} + {stepped("stride_am", "m[:, None]")}
    b_columns = {start("b")} + {stepped("stride_bn", "n[None, :]")}
    acc = tl.zeros([BLOCK_M, BLOCK_N], {accumulator})
    for k_start in range(0, K, BLOCK_K):
        rest = k_start + k
        x_mask = m_mask[:, None] & (rest[None, :] < K)
        y_mask = (rest[:, None] < K) & n_mask[None, :]
        x = tl.load(a_rows + {stepped("stride_ak", "rest[None, :]")}, mask=x_mask, other=0){widen}
        y = tl.load(b_columns + {stepped("stride_bk", "rest[:, None]")}, mask=y_mask, other=0){widen}
        {product}
    c_block = {result} + m[:, None] * N + n[None, :]
    tl.store(c_block, acc{to}, mask=m_mask[:, None] & n_mask[None, :])
"""
