"""The Triton functions of calls: matrix products; convolutions, pooling and moves of elements in files of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphtorch.lowering.binding import concrete
from graphtorch.lowering.kernel import ExternCall, View
from graphtorch.lowering.triton.codegen import Generated
from graphtorch.lowering.triton.convolution import CONVOLUTIONS, generate_convolution
from graphtorch.lowering.triton.custom import generate_custom
from graphtorch.lowering.triton.errors import UnsupportedError
from graphtorch.lowering.triton.indexing import generate_indexing
from graphtorch.lowering.triton.instructions import register
from graphtorch.lowering.triton.products import Product, reach
from graphtorch.lowering.triton.scan import generate_cumsum
from graphtorch.lowering.triton.tiling import Limits


def generate_call(call: ExternCall, bindings: Mapping[str, int], limits: Limits | None = None) -> list[Generated]:
    """The functions of a call for sizes like the given ones, in order. Raises UnsupportedError for one without a
    template."""
    custom = call.op.kernels.get("triton")
    if custom is not None:
        return [generate_custom(call, custom, bindings)]
    if call.op.name in ("mm", "bmm"):
        return [generate_matmul(call, bindings, limits)]
    if call.op.name in CONVOLUTIONS:
        return [generate_convolution(call, bindings, limits)]
    if call.op.name == "cumsum":
        return [generate_cumsum(call, bindings, limits or Limits())]
    return generate_indexing(call, bindings, limits or Limits())


def generate_matmul(call: ExternCall, bindings: Mapping[str, int], limits: Limits | None = None) -> Generated:
    """A matrix product of strided operands. Strides are arguments; where one is 1 the text says so, which is what lets
    the loads be wide."""
    a, b = call.args[:2]
    out = call.outputs[0]
    if out is None or not isinstance(a, View) or not isinstance(b, View):
        raise UnsupportedError(f"{call.op.name} without operands or result")
    register(out.dtype)
    m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
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

    def stepped(stride: str, index: str) -> str:
        return index if stride in unit else f"{stride} * {index}"

    def start(operand: str) -> str:
        terms = [operand]
        if f"{operand}_offset" in kept:
            terms.append(f"{operand}_offset")
        if batched:
            terms.append(stepped(f"stride_{operand}b", "batch"))
        return " + ".join(terms)

    count = a.shape[0] if batched else None
    elements = values["M"] * values["N"] * (concrete(count, bindings) if batched else 1)
    product = Product(
        call.op.name,
        m,
        n,
        k,
        count,
        {"a": a.buffer, "b": b.buffer},
        out,
        kept,
        frozenset(name for name in kept if values[name] % 16 == 0),
        max(reach((a, b), bindings), elements) >= 2**31,
        inner=[
            "x_mask = m_mask[:, None] & (rest[None, :] < K)",
            "y_mask = (rest[:, None] < K) & n_mask[None, :]",
            f"x = tl.load(a_rows + {stepped('stride_ak', 'rest[None, :]')}, mask=x_mask, other=0)",
            f"y = tl.load(b_columns + {stepped('stride_bk', 'rest[:, None]')}, mask=y_mask, other=0)",
        ],
        place=("batch * (M * N) + " if batched else "") + "m[:, None] * N + n[None, :]",
        setup=[
            f"a_rows = {start('a')} + {stepped('stride_am', 'm[:, None]')}",
            f"b_columns = {start('b')} + {stepped('stride_bn', 'n[None, :]')}",
        ],
    )
    return product.generate(call, bindings, limits)
