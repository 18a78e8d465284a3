"""Native `multinomial` without replacement: each category's clock rings after an exponential time of its rate, and the
first to ring are the sample. The clocks are eager's."""

from __future__ import annotations

import dataclasses
from typing import Any

from graphtorch.ir.graph import Value
from graphtorch.lowering.cpu.assembly import Val, const
from graphtorch.lowering.cpu.calls import CallBuilder, Target, emitter
from graphtorch.lowering.cpu.elements import MEMORY
from graphtorch.lowering.cpu.emitter import emit_kernel
from graphtorch.lowering.cpu.expansion import SCRATCH
from graphtorch.lowering.cpu.function import Function
from graphtorch.lowering.cpu.movement import whole_copy
from graphtorch.lowering.cpu.ordering import topk
from graphtorch.lowering.cpu.random import exponential
from graphtorch.lowering.kernel import (
    Access,
    Axis,
    Buffer,
    Compute,
    Constant,
    Expr,
    ExternCall,
    Kernel,
    Load,
    Reduce,
    Store,
    View,
)
from graphtorch.schedule.indexing import product, row_major
from graphtorch.tensor import dtypes
from graphtorch.tensor.type import TensorType

_MOST_CATEGORIES = 1 << 24


@emitter("multinomial")
def multinomial(call: ExternCall, target: Target) -> list[Function] | None:
    given, samples, replacement, generator = call.args
    out, d = call.outputs[0], given.buffer.dtype
    if out is None or d not in (dtypes.float32, dtypes.float64) or not all(type(s) is int for s in given.shape):
        return None
    categories = given.shape[-1]
    if type(samples) is not int or (replacement and samples > 1) or not 0 < categories <= _MOST_CATEGORIES:
        return None  # NumPy says what is wrong, or searches the cumulative distribution
    shape = tuple(given.shape)
    rates, clocks, speeds = (
        Buffer(f"{call.name}_{name}", d, shape, SCRATCH, Value(TensorType(d, shape), name))
        for name in ("rates", "clocks", "speeds")
    )
    view = View(rates, shape, row_major(shape))
    drawn = exponential(dataclasses.replace(call, args=(view, 1.0, generator), outputs=(clocks,)), target)
    if drawn is None:
        return None

    def emit(kernel: Kernel) -> Function:
        return emit_kernel(kernel, target.register_bits, target.fma)

    made = [emit(whole_copy(given, rates)), _checked(rates, target), drawn]
    if samples == 1:
        return [*made, emit(_first(rates, clocks, out))]
    made.append(emit(_speeds(rates, clocks, speeds)))
    raced = dataclasses.replace(
        call, args=(View(speeds, shape, row_major(shape)), samples, len(shape) - 1, True, True), outputs=(None, out)
    )
    chosen = topk(raced, target)
    return [*made, chosen] if isinstance(chosen, Function) else None


def _checked(rates: Buffer, target: Target) -> Function:
    """Rates are finite and not negative, and some rate of each row is positive."""
    b = CallBuilder(target)
    kind = MEMORY[rates.dtype]
    pointer = b.pointer(rates, kind)
    failure = b.failure()
    categories, rows = rates.shape[-1], product(rates.shape[:-1])

    def row(r: Val) -> list[Val]:
        def one(i: Val, found: list[Val]) -> list[Val]:
            x = b.load(b.at(pointer, kind, (r, categories), i), kind)
            fine = b.logic("and", b.compare("oge", x, 0.0), b.compare("olt", x, float("inf")))
            return [b.logic("and", found[0], fine), b.logic("or", found[1], b.compare("ogt", x, 0.0))]

        start = [const(True, "i1"), const(False, "i1")]
        fine, some = b.loop(const(0, "i64"), const(categories, "i64"), 1, one, start)
        bad = b.logic("xor", b.logic("and", fine, some), True)
        b.when(bad, lambda: b.store(b.select(fine, const(2, "i64"), 1), failure))
        return []

    b.loop(const(0, "i64"), const(rows, "i64"), 1, lambda r, _: row(r))
    function = b.function("rates", 1, 1, 0)
    function.failures = (
        "probability tensor contains either `inf`, `nan` or element < 0",
        "invalid multinomial distribution (sum of probabilities <= 0)",
    )
    function.error = RuntimeError
    return function


def _quotient(rates: Buffer, clocks: Buffer, strides: tuple[Any, ...]) -> Expr:
    loads = tuple(Load(Access(b, 0, strides)) for b in (rates, clocks))
    return Compute("div", loads, rates.dtype)


def _first(rates: Buffer, clocks: Buffer, out: Buffer) -> Kernel:
    """The category of each row that is fastest."""
    *lead, categories = rates.shape
    strides = row_major(rates.shape)
    axes = (*(Axis(f"i{n}", size) for n, size in enumerate(lead)), Axis("category", categories, True))
    fastest = Reduce("argmax", _quotient(rates, clocks, strides), (len(lead),), dtypes.int64)
    return Kernel(f"first_{out.name}", axes, [Store(Access(out, 0, (*row_major(tuple(lead)), 0)), fastest)])


def _speeds(rates: Buffer, clocks: Buffer, speeds: Buffer) -> Kernel:
    """All speeds, 0/0 as infinity, as PyTorch orders it."""
    d = rates.dtype
    quotient = _quotient(rates, clocks, (1,))
    unknown = Compute("isnan", (quotient,), dtypes.bool_)
    value = Compute("where", (unknown, Constant(float("inf"), d), quotient), d)
    axis = Axis("i0", product(rates.shape))
    return Kernel(f"speed_{speeds.name}", (axis,), [Store(Access(speeds, 0, (1,)), value)])
