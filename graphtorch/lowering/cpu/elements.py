"""Elements between memory and registers: bool is a byte in memory and a bit in a register, half precision is computed
in float32."""

from __future__ import annotations

from graphtorch.lowering.cpu.assembly import Builder, Val
from graphtorch.lowering.cpu.instructions import from_bfloat16, to_bfloat16
from graphtorch.tensor import dtypes
from graphtorch.tensor.dtypes import dtype

MEMORY = {
    dtypes.bool_: "i8", dtypes.uint8: "i8", dtypes.int8: "i8", dtypes.int16: "i16", dtypes.int32: "i32",
    dtypes.int64: "i64", dtypes.float16: "half", dtypes.bfloat16: "i16", dtypes.float32: "float",
    dtypes.float64: "double",
}  # fmt: skip


def from_memory(b: Builder, x: Val, d: dtype) -> Val:
    """A loaded element as a register holds it."""
    if d is dtypes.bool_:
        return b.compare("ne", x, 0)
    if d is dtypes.float16:
        return b.convert("fpext", x, "float")
    return from_bfloat16(b, x) if d is dtypes.bfloat16 else x


def to_memory(b: Builder, x: Val, d: dtype) -> Val:
    """A register of dtype `d` as it is stored."""
    if d is dtypes.bool_:
        return b.convert("zext", x, "i8")
    if d is dtypes.float16:
        return b.convert("fptrunc", x, "half")
    return to_bfloat16(b, x) if d is dtypes.bfloat16 else x
