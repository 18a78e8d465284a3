"""Native lookups of rows: `embedding`, and its gradient that adds cotangents back into the rows.

An index out of range stops the run before the next step: the function then sets the word behind its arguments, which
becomes an IndexError.
"""

from __future__ import annotations

from typing import Any

from graphtorch.lowering.cpu.assembly import BITS, Val, const
from graphtorch.lowering.cpu.calls import FLOATS, CallBuilder, Target, contiguous, emitter, static
from graphtorch.lowering.cpu.elements import MEMORY
from graphtorch.lowering.cpu.function import Function
from graphtorch.lowering.kernel import ExternCall, View
from graphtorch.tensor import dtypes

_INDEX = {dtypes.int64: "i64", dtypes.int32: "i32"}


def _count(shape: tuple[Any, ...]) -> Any:
    total: Any = 1
    for size in shape:
        total = total * size
    return total


def _index(b: CallBuilder, indices: View, pointer: str, at: Val) -> Val:
    """An index as a 64-bit number; what is negative is very large without its sign."""
    kind = _INDEX[indices.buffer.dtype]
    found = b.load(b.at(pointer, kind, at), kind)
    return found if kind == "i64" else b.convert("sext", found, "i64")


def _place(b: CallBuilder, view: View, at: Val, dims: int) -> Val:
    """Where the point numbered `at` of the first dimensions lies, in elements."""
    if contiguous(view):
        return b.mul(at, _count(view.shape[dims:]))
    place = const(0, "i64")
    for size, stride in zip(reversed(view.shape[:dims]), reversed(view.strides[:dims]), strict=True):
        here = b.emit(f"urem {at.typed}, {size}", "i64")
        at = b.emit(f"udiv {at.typed}, {size}", "i64")
        place = b.add(place, b.mul(here, stride))
    return place


@emitter("embedding")
def embedding(call: ExternCall, target: Target) -> Function | None:
    """Rows of a table at indices; a unit is one index."""
    weight, indices, _, _, _ = call.args
    out = call.outputs[0]
    if out is None or not contiguous(weight) or not contiguous(indices) or not static(weight.shape[1]):
        return None
    kind = MEMORY.get(weight.buffer.dtype)
    if kind is None or indices.buffer.dtype not in _INDEX or weight.shape[1] == 0:
        return None
    width = weight.shape[1]
    b = CallBuilder(target)
    table, places, to = b.pointer(weight, kind), b.pointer(indices, "i64"), b.pointer(out, kind)
    rows = b.size(weight.shape[0])
    failure = b.failure()
    lanes = min(target.register_bits // BITS[kind], 64)
    whole = width - width % lanes

    def lookup(unit: Val) -> list[Val]:
        row = _index(b, indices, places, unit)
        fine = b.compare("ult", row, rows)

        def copy() -> None:
            source, result = b.at(table, kind, (row, width)), b.at(to, kind, (unit, width))

            def vector(at: Any, mask: Val | None) -> list[Val]:
                b.store(b.load(b.at(source, kind, (at, 1)), kind, lanes, mask), b.at(result, kind, (at, 1)), mask)
                return []

            if whole:
                b.loop(const(0, "i64"), const(whole, "i64"), lanes, lambda at, _: vector(at, None))
            if whole < width:
                vector(whole, b.lane_mask([n < width - whole for n in range(lanes)]))

        b.when(fine, copy)
        b.when(b.logic("xor", fine, const(True, "i1")), lambda: b.store(const(1, "i64"), failure))
        return []

    b.loop(b.low, b.high, 1, lambda unit, _: lookup(unit))
    extent = _count(indices.shape)
    function = b.function("rows", extent, 1, extent * (width + 4))
    function.failures = ("index out of range in self",)
    return function


@emitter("embedding_dense_backward")
def embedding_backward(call: ExternCall, target: Target) -> Function | None:
    """Cotangents added up by index. Threads share the columns, so that no two write to one element."""
    g, indices, rows, padding, by_frequency = call.args
    out = call.outputs[0]
    if out is None or by_frequency or not static(g.shape[-1]) or (g.strides[-1] != 1 and g.shape[-1] != 1):
        return None
    if not all(contiguous(v) or static(v.offset, *v.shape, *v.strides) for v in (g, indices)):
        return None
    kind = FLOATS.get(g.buffer.dtype)
    if kind is None or indices.buffer.dtype not in _INDEX or g.shape[-1] == 0:
        return None
    width = g.shape[-1]
    b = CallBuilder(target)
    given, places, result = b.pointer(g, kind), b.pointer(indices, "i64"), b.pointer(out, kind)
    table, count = b.size(rows), b.size(_count(indices.shape))
    lanes = target.lanes(kind)

    def columns(change: Any) -> None:
        """Go over the columns of this unit, a vector at a time."""

        def vector(at: Val) -> list[Val]:
            mask = None
            if width % lanes:
                left = b.splat(b.sub(b.high, at), lanes)
                mask = b.compare("slt", b.iota("i64", lanes), left)
            change(at, mask)
            return []

        b.loop(b.low, b.high, lanes, lambda at, _: vector(at))

    def clear(row: Val) -> list[Val]:
        line = b.at(result, kind, (row, width))
        columns(lambda at, mask: b.store(b.zero(kind, lanes), b.at(line, kind, at), mask))
        return []

    def add(i: Val) -> list[Val]:
        row = _index(b, indices, places, _place(b, indices, i, len(indices.shape)))
        counts = b.compare("ult", row, table)
        if padding >= 0:
            counts = b.logic("and", counts, b.compare("ne", row, padding))

        def put() -> None:
            source = b.at(given, kind, _place(b, g, i, len(g.shape) - 1))
            line = b.at(result, kind, (row, width))

            def one(at: Val, mask: Val | None) -> None:
                here = b.at(line, kind, at)
                value = b.load(b.at(source, kind, at), kind, lanes, mask)
                b.store(b.add(b.load(here, kind, lanes, mask), value), here, mask)

            columns(one)

        b.when(counts, put)
        return []

    zero = const(0, "i64")
    b.loop(zero, table, 1, lambda row, _: clear(row))
    b.loop(zero, count, 1, lambda i, _: add(i))
    return b.function("addrows", width, 4 * lanes, (_count(indices.shape) * 2 + rows) * width)
