"""Native operators that take elements in order: masked_scatter and its gradient, nonzero_static. One thread counts."""

from __future__ import annotations

from typing import Any

from graphtorch.ir.graph import Value
from graphtorch.lowering.cpu.assembly import Val, const
from graphtorch.lowering.cpu.calls import CallBuilder, Target, emitter
from graphtorch.lowering.cpu.elements import MEMORY, from_memory
from graphtorch.lowering.cpu.emitter import emit_kernel
from graphtorch.lowering.cpu.expansion import SCRATCH
from graphtorch.lowering.cpu.function import Function
from graphtorch.lowering.cpu.instructions import convert
from graphtorch.lowering.cpu.movement import filled, whole_copy
from graphtorch.lowering.kernel import Buffer, ExternCall, View
from graphtorch.schedule.indexing import Layout, broadcast_layout, product, reshape_layout, row_major
from graphtorch.tensor import dtypes
from graphtorch.tensor.type import TensorType


def _flat(view: View, shape: tuple[Any, ...] | None = None) -> View | None:
    """A view, broadcast to a shape, as a vector with one stride; None where it has none."""
    layout = Layout(view.shape, view.strides, view.offset)
    if shape is not None:
        layout = broadcast_layout(layout, shape)
    found = reshape_layout(layout, (product(layout.shape),))
    return None if found is None else View(view.buffer, found.shape, found.strides, found.offset)


def _mask(call: ExternCall, mask: View, shape: tuple[Any, ...], target: Target) -> tuple[View, list[Function]]:
    """A mask broadcast to a shape, as a vector, and what copies it if it takes a copy."""
    flat = _flat(mask, shape)
    if flat is not None:
        return flat, []
    wide = broadcast_layout(Layout(mask.shape, mask.strides, mask.offset), shape)
    name, d = f"{call.name}_mask", mask.buffer.dtype
    spread = Buffer(name, d, shape, SCRATCH, Value(TensorType(d, shape), name))
    kernel = whole_copy(View(mask.buffer, wide.shape, wide.strides, wide.offset), spread)
    copy = emit_kernel(kernel, target.register_bits, target.fma)
    return View(spread, (product(shape),), (1,)), [copy]


class _Vector:
    """A vector operand of a function under construction: `base` is its address."""

    def __init__(self, b: CallBuilder, view: View) -> None:
        self.view = view
        self.kind = MEMORY[view.buffer.dtype]
        self.base = b.pointer(View(view.buffer, (), ()), self.kind)

    def load(self, b: CallBuilder, at: Val) -> Val:
        """The element as it lies in memory. Sizes are asked for here, after all operands."""
        place = b.add(b.mul(at, b.size(self.view.strides[0])), b.size(self.view.offset))
        return b.load(b.offset(self.base, place, self.kind), self.kind)


@emitter("masked_scatter")
def masked_scatter(call: ExternCall, target: Target) -> list[Function] | None:
    """A copy of the input, and then the elements of the source one after another."""
    source, mask, given = call.args
    out = call.outputs[0]
    if out is None or out.dtype not in MEMORY:
        return None
    values = _flat(given)
    if values is None or not all(type(s) is int for s in (*out.shape, *given.shape)):
        return None
    chosen, before = _mask(call, mask, out.shape, target)
    wide = broadcast_layout(Layout(source.shape, source.strides, source.offset), out.shape)
    copy = emit_kernel(
        whole_copy(View(source.buffer, wide.shape, wide.strides, wide.offset), out), target.register_bits, target.fma
    )
    b = CallBuilder(target)
    where, elements = _Vector(b, chosen), _Vector(b, values)
    kind = MEMORY[out.dtype]
    result = b.pointer(out, kind)
    count = b.size(values.shape[0])
    failure = b.failure()

    def visit(at: Val, taken: list[Val]) -> list[Val]:
        on = b.compare("ne", where.load(b, at), 0)
        fits = b.compare("slt", taken[0], count)
        b.when(b.logic("and", on, fits), lambda: b.store(elements.load(b, taken[0]), b.offset(result, at, kind)))
        b.when(b.logic("and", on, b.logic("xor", fits, True)), lambda: b.store(const(1, "i64"), failure))
        return [b.add(taken[0], b.convert("zext", on, "i64"))]

    b.loop(const(0, "i64"), const(product(out.shape), "i64"), 1, visit, [const(0, "i64")])
    function = b.function("inorder", 1, 1, 0)
    function.failures = ("Number of elements of source < number of ones in mask",)
    function.error = RuntimeError
    return [*before, copy, function]


@emitter("masked_scatter_backward")
def masked_scatter_backward(call: ExternCall, target: Target) -> list[Function] | None:
    given, mask, _ = call.args
    out = call.outputs[0]
    if out is None or out.dtype not in MEMORY or not all(type(s) is int for s in (*out.shape, *given.shape)):
        return None
    values = _flat(given)
    if values is None:
        return None
    chosen, before = _mask(call, mask, tuple(given.shape), target)
    zeros = emit_kernel(filled(out, 0), target.register_bits, target.fma)
    b = CallBuilder(target)
    where, elements = _Vector(b, chosen), _Vector(b, values)
    kind = MEMORY[out.dtype]
    result = b.pointer(out, kind)

    def visit(at: Val, taken: list[Val]) -> list[Val]:
        on = b.compare("ne", where.load(b, at), 0)
        fits = b.logic("and", on, b.compare("slt", taken[0], product(out.shape)))
        b.when(fits, lambda: b.store(elements.load(b, at), b.offset(result, taken[0], kind)))
        return [b.add(taken[0], b.convert("zext", on, "i64"))]

    b.loop(const(0, "i64"), const(product(given.shape), "i64"), 1, visit, [const(0, "i64")])
    return [*before, zeros, b.function("inorder", 1, 1, 0)]


@emitter("nonzero_static")
def nonzero_static(call: ExternCall, target: Target) -> list[Function] | None:
    """Rows of coordinates, as many as there is room for."""
    given, size, fill = call.args
    out = call.outputs[0]
    if out is None or type(size) is not int or type(fill) is not int or given.buffer.dtype not in MEMORY:
        return None
    elements = _flat(given)
    if elements is None or not all(type(s) is int for s in given.shape) or not given.shape:
        return None
    rest = emit_kernel(filled(out, fill), target.register_bits, target.fma)
    b = CallBuilder(target)
    read = _Vector(b, elements)
    result = b.pointer(out, "i64")
    of = given.buffer.dtype

    def write(at: Val, row: Val) -> None:
        for d, (n, stride) in enumerate(zip(given.shape, row_major(given.shape), strict=True)):
            index = b.binary("urem", b.divide(at, stride), const(n, "i64"), "")
            b.store(index, b.at(result, "i64", (row, len(given.shape)), d))

    def visit(at: Val, taken: list[Val]) -> list[Val]:
        on = convert(b, from_memory(b, read.load(b, at), of), of, dtypes.bool_)
        b.when(b.logic("and", on, b.compare("slt", taken[0], size)), lambda: write(at, taken[0]))
        return [b.add(taken[0], b.convert("zext", on, "i64"))]

    b.loop(const(0, "i64"), const(product(given.shape), "i64"), 1, visit, [const(0, "i64")])
    return [rest, b.function("inorder", 1, 1, 0)]
