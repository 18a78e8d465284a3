"""Native running folds along a dimension: cumsum, cumprod, cummax, cummin, logcumsumexp.

Along any dimension but the last, lanes are columns of their own. Along the last, rows are shared over threads. Elements
are added one after another, as NumPy does it, so that results are eager's to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from graphtorch.lowering.cpu import transcendental
from graphtorch.lowering.cpu.assembly import BITS, Builder, Val, const
from graphtorch.lowering.cpu.calls import CallBuilder, Target, emitter
from graphtorch.lowering.cpu.elements import MEMORY, from_memory, to_memory
from graphtorch.lowering.cpu.emitter import emit_kernel
from graphtorch.lowering.cpu.function import Function
from graphtorch.lowering.cpu.instructions import REGISTER, convert, identity
from graphtorch.lowering.cpu.movement import whole_copy
from graphtorch.lowering.kernel import Buffer, ExternCall, View
from graphtorch.schedule.indexing import Layout, product, reshape_layout, row_major
from graphtorch.tensor import dtypes
from graphtorch.tensor.dtypes import dtype

Step = Callable[[Builder, list[Val], Val, Val], list[Val]]  # (carried, element, position) -> carried


def _emit(
    call: ExternCall,
    target: Target,
    outputs: list[tuple[int, Buffer, dtype]],
    of: dtype,
    start: list[tuple[Any, str]],
    step: Step,
) -> list[Function] | None:
    """`outputs`: which carried value goes to which buffer, and its dtype in a register. `of`: what elements are
    converted to."""
    source, dim = call.args[0], call.args[1]
    if not outputs or not isinstance(source, View) or source.buffer.dtype not in MEMORY or of not in REGISTER:
        return None
    shape = source.shape or (1,)
    outer, n, inner = product(shape[:dim]), shape[dim], product(shape[dim + 1 :])
    before: list[Function] = []
    layout = reshape_layout(Layout(source.shape, source.strides, source.offset), (outer, n, inner))
    if layout is None:
        first = outputs[0][1]
        if first.dtype is not of:
            return None
        # No common strides: scan a copy, in place.
        before.append(emit_kernel(whole_copy(source, first), target.register_bits, target.fma))
        layout = Layout((outer, n, inner), row_major((outer, n, inner)))
        source = View(first, source.shape, row_major(source.shape))
    b = CallBuilder(target)
    read = source.buffer.dtype
    pointer = b.pointer(View(source.buffer, (), ()), MEMORY[read])
    results = [b.pointer(buffer, MEMORY[buffer.dtype]) for _, buffer, _ in outputs]
    pointer = b.offset(pointer, b.size(layout.offset), MEMORY[read])
    count, width = b.size(n), b.size(inner)
    strides = [s if type(s) is int else b.size(s) for s in layout.strides]
    lanes = 1
    if not (type(inner) is int and inner == 1):
        lanes = target.register_bits // max(BITS[kind] for _, kind in start)
    blocks = b.binary("sdiv", b.add(width, lanes - 1), const(lanes, "i64"), "") if lanes > 1 else const(1, "i64")

    def column(row: Val, at: Val) -> None:
        mask = b.compare("slt", b.iota("i64", lanes), b.splat(b.sub(width, at), lanes)) if lanes > 1 else None
        here = b.at(pointer, MEMORY[read], b.add(b.mul(row, strides[0]), b.mul(at, strides[2])))
        to = b.add(b.mul(b.mul(row, count), width), at)

        def element(i: Val, carried: list[Val]) -> list[Val]:
            place = b.at(here, MEMORY[read], b.mul(i, strides[1]))
            if lanes == 1 or strides[2] == 1:
                x = b.load(place, MEMORY[read], lanes, mask)
            else:
                x = b.gather(place, b.mul(b.iota("i64", lanes), strides[2]), MEMORY[read], mask)
            x = convert(b, from_memory(b, x, read), read, of)
            carried = step(b, carried, x, b.splat(i, lanes))
            for (which, buffer, held), result in zip(outputs, results, strict=True):
                value = to_memory(b, convert(b, carried[which], held, buffer.dtype), buffer.dtype)
                kind = MEMORY[buffer.dtype]
                b.store(value, b.at(result, kind, b.add(to, b.mul(i, width))), mask)
            return carried

        b.loop(const(0, "i64"), count, 1, element, [const(value, kind, lanes) for value, kind in start])

    def unit(at: Val) -> list[Val]:
        if lanes == 1:
            column(at, const(0, "i64"))
        else:
            row = b.binary("udiv", at, blocks, "")
            column(row, b.mul(b.sub(at, b.mul(row, blocks)), lanes))
        return []

    b.loop(b.low, b.high, 1, lambda at, _: unit(at))
    extent = outer if lanes == 1 else outer * ((inner + lanes - 1) // lanes)
    return [*before, b.function("scan", extent, 1, product(shape) * 4 // lanes)]


def _wide(of: dtype) -> dtype:
    """The dtype in which running sums are kept: float32 for half precision."""
    return dtypes.float32 if of in (dtypes.float16, dtypes.bfloat16) else of


def _fold(call: ExternCall, target: Target, start: float, step: Step) -> list[Function] | None:
    out = call.outputs[0]
    if out is None or out.dtype not in MEMORY or out.dtype is dtypes.bool_:
        return None
    return _emit(call, target, [(0, out, _wide(out.dtype))], out.dtype, [(start, REGISTER[out.dtype])], step)


@emitter("cumsum")
def cumsum(call: ExternCall, target: Target) -> list[Function] | None:
    # -0 + x is x, for x = -0 too.
    return _fold(call, target, -0.0, lambda b, carried, x, i: [b.add(carried[0], x)])


@emitter("cumprod")
def cumprod(call: ExternCall, target: Target) -> list[Function] | None:
    return _fold(call, target, 1, lambda b, carried, x, i: [b.mul(carried[0], x)])


def _extremum(call: ExternCall, target: Target, name: str) -> list[Function] | None:
    """The value, and the last position that holds it; NaN counts as larger and as smaller than all numbers."""
    source = call.args[0]
    of = source.buffer.dtype
    if of not in MEMORY:
        return None
    values, indices = call.outputs
    outputs = [(0, values, of)] if values is not None else []
    if indices is not None:
        outputs.append((1, indices, dtypes.int64))

    def step(b: Builder, carried: list[Val], x: Val, i: Val) -> list[Val]:
        if x.is_float:
            newer = b.compare("oge" if name == "max" else "ole", x, carried[0])
            newer = b.logic("or", newer, b.is_nan(x))
        else:
            newer = b.compare(("s" if of.is_signed else "u") + ("ge" if name == "max" else "le"), x, carried[0])
        return [b.select(newer, x, carried[0]), b.select(newer, i, carried[1])]

    start = [(identity(name, of), REGISTER[of]), (0, "i64")]
    return _emit(call, target, outputs, of, start, step)


@emitter("cummax")
def cummax(call: ExternCall, target: Target) -> list[Function] | None:
    return _extremum(call, target, "max")


@emitter("cummin")
def cummin(call: ExternCall, target: Target) -> list[Function] | None:
    return _extremum(call, target, "min")


@emitter("logcumsumexp")
def logcumsumexp(call: ExternCall, target: Target) -> list[Function] | None:
    """Through the larger of two, so that nothing overflows."""
    out = call.outputs[0]
    if out is None or out.dtype not in MEMORY:
        return None

    def step(b: Builder, carried: list[Val], x: Val, i: Val) -> list[Val]:
        y = carried[0]
        larger = b.select(b.compare("ogt", x, y), x, y)
        distance = b.neg(b.intrinsic("fabs", b.sub(x, y)))
        small = transcendental.exp(b, distance)
        rest = transcendental.log1p(b, small) if x.kind == "float" else b.helper("lib_log1p", small)
        # Two infinities have no distance.
        total = b.select(b.compare("oeq", x, y), b.add(x, math.log(2)), b.add(larger, rest))
        return [b.select(b.is_nan(x), x, b.select(b.is_nan(y), y, total))]

    return _fold(call, target, float("-inf"), step)
