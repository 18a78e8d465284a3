"""Triton source for running sums: a program a row, block after block, with what came before carried along."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphtorch.ir.graph import Node
from graphtorch.lowering.binding import concrete
from graphtorch.lowering.kernel import ExternCall, View
from graphtorch.lowering.triton.codegen import IMPORTS, Generated, Sizes, comment
from graphtorch.lowering.triton.errors import UnsupportedError
from graphtorch.lowering.triton.instructions import convert, memory, register
from graphtorch.lowering.triton.products import reach
from graphtorch.lowering.triton.tiling import Limits, power_of_two, warps
from graphtorch.schedule.indexing import row_major


def generate_cumsum(call: ExternCall, bindings: Mapping[str, int], limits: Limits) -> Generated:
    """The source of `cumsum(input, dim, dtype)`. float16 and bfloat16 are summed in float32."""
    source, dim = call.args[:2]
    out = call.outputs[0]
    if out is None or not isinstance(source, View) or not out.shape:
        raise UnsupportedError("cumsum of a scalar")
    of = register(out.dtype)
    sizes = Sizes()
    length = out.shape[dim]
    outer = [i for i in range(len(out.shape)) if i != dim]
    rows: Any = 1
    for i in outer:
        rows = rows * out.shape[i]
    to = View(out, out.shape, row_major(out.shape))
    wide = max(reach((source, to), bindings), 0) >= 2**31
    lines = [comment(node) for node in call.nodes if type(node) is Node]
    lines.append("row = tl.program_id(0)" + (".to(tl.int64)" if wide else ""))
    inner: Any = 1
    for i in reversed(outer):
        lines.append(f"i{i} = row // {sizes.factor(inner)} % {sizes.factor(out.shape[i])}")
        inner = inner * out.shape[i]

    def element(pointer: str, view: View) -> str:
        indices = ["k" if i == dim else f"i{i}" for i in range(len(out.shape))]
        terms = [f"{sizes.factor(s)} * {index}" for s, index in zip(view.strides, indices, strict=True)]
        return " + ".join([pointer, sizes.text(view.offset), *terms])

    loaded = f"tl.load({element('a', source)}, mask=mask, other=0)"
    lines += [
        f"total = tl.zeros([1], {of})",
        f"for start in range(0, {sizes.text(length)}, BLOCK):",
        "    k = start + tl.arange(0, BLOCK)",
        f"    mask = k < {sizes.text(length)}",
        f"    v = {convert(loaded, source.buffer.dtype, out.dtype)}",
        f"    v = v.to({of})",
        f"    tl.store({element('c', to)}, (tl.cumsum(v, 0) + total).to({memory(out.dtype)}), mask=mask)",
        "    total += tl.sum(v, 0)",
    ]
    block = min(power_of_two(concrete(length, bindings)), limits.looped)
    arguments = ", ".join(["a", "c", *(n for n, _ in sizes.arguments()), "BLOCK: tl.constexpr"])
    imports = "".join(IMPORTS.splitlines(True)[:2])
    body = "\n".join(f"    {line}" for line in lines)
    return Generated(
        "cumsum",
        f"{imports}\n\n@triton.jit\ndef cumsum({arguments}):\n{body}\n",
        (source.buffer, out),
        ("a", "c"),
        sizes.arguments(),
        {"BLOCK": block},
        ((rows, 1),),
        wide,
        sizes.divisible(bindings),
        warps(block),
    )
