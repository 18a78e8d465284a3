"""Native code for operators that are calls of their own: which operators have it, and what their emitters share.

An emitter takes an ExternCall and gives a Function (like a Kernel's), several in order, a Product where BLAS does it
all, or None where it does not cover the call. Sizes inside a sample must be known; the number of samples may be
symbolic.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from graphtorch.lowering.cpu.assembly import BITS, Builder, Val, const, vector_type
from graphtorch.lowering.cpu.function import Function, Level, Span
from graphtorch.lowering.cpu.launch import Native
from graphtorch.lowering.kernel import Buffer, ExternCall, View
from graphtorch.tensor import dtypes

FLOATS = {dtypes.float32: "float", dtypes.float64: "double"}


class Target(NamedTuple):
    """What emitters need to know of the host: bits of a vector register, fused multiply-add, threads of the pool, and
    whether there is a BLAS."""

    register_bits: int
    fma: bool
    threads: int
    blas: bool

    @property
    def registers(self) -> int:
        """How many vector registers there are."""
        return 32 if self.register_bits != 256 else 16

    def lanes(self, kind: str) -> int:
        return self.register_bits // BITS[kind]


Emitter = Callable[[ExternCall, Target], Native | None]
EMITTERS: dict[str, Emitter] = {}


def emitter(*names: str) -> Callable[[Emitter], Emitter]:
    """Register a function as the emitter of operators."""

    def register(function: Emitter) -> Emitter:
        for name in names:
            EMITTERS[name] = function
        return function

    return register


def native_call(call: ExternCall, target: Target) -> Native | None:
    """The native form of a call; None where there is none."""
    # They register their emitters, and import this module.
    from graphtorch.lowering.cpu import (  # noqa: F401
        compaction,
        convolution,
        gather,
        indexing,
        ordering,
        pooling,
        random,
        sampling,
        scans,
    )

    found = EMITTERS.get(call.op.name)
    return None if found is None else found(call, target)


def contiguous(view: Any) -> bool:
    """Whether an operand is row-major from a known offset, its sizes behind the first dimension being known."""
    if not isinstance(view, View) or type(view.offset) is not int:
        return False
    stride = 1
    for i in range(len(view.shape) - 1, -1, -1):
        size = view.shape[i]
        if type(view.strides[i]) is not int or (view.strides[i] != stride and not (type(size) is int and size == 1)):
            return False
        if i == 0:
            break
        if type(size) is not int:
            return False
        stride *= size
    return True


def slices(units: Any, reads: Sequence[tuple[View, Any]], writes: Sequence[tuple[Buffer | None, Any]]) -> Level | None:
    """The level at which groups of `units` units touch consecutive slices of contiguous operands, each so many
    elements; 0 elements stand for all of it. None where a number is symbolic."""
    spans: list[dict[Buffer, Span | None]] = [{}, {}]
    parts = [[(v.buffer, v.offset, size) for v, size in reads], [(o, 0, size) for o, size in writes if o is not None]]
    for found, operands in zip(spans, parts, strict=True):
        for buffer, offset, size in operands:
            if not static(units, offset, size):
                return None
            span = Span(size, offset, offset + size) if size else None
            found[buffer] = span if found.get(buffer, span) == span else None
    return Level(units, *spans)


def static(*sizes: Any) -> bool:
    return all(type(s) is int for s in sizes)


class CallBuilder(Builder):
    """A function `void(ptr args, i64 low, i64 high)` under construction."""

    def __init__(self, target: Target) -> None:
        super().__init__(target.fma)
        self.target = target
        self.buffers: list[Buffer] = []
        self.sizes: list[Any] = []
        self.stack: list[str] = []
        self.low, self.high = Val("%low", "i64"), Val("%high", "i64")

    def pointer(self, of: View | Buffer, kind: str) -> str:
        """The address of an operand's first element. Ask for all of them before the first `size`."""
        buffer = of.buffer if isinstance(of, View) else of
        slot = self.offset("%args", const(len(self.buffers), "i64"), "i64")
        self.buffers.append(buffer)
        base = self.emit(f"load ptr, ptr {slot}, align 8", "ptr").text
        return self.offset(base, const(of.offset, "i64"), kind) if isinstance(of, View) else base

    def size(self, size: Any) -> Val:
        """A size, which may be symbolic."""
        if type(size) is int:
            return const(size, "i64")
        slot = self.offset("%args", const(len(self.buffers) + len(self.sizes), "i64"), "i64")
        self.sizes.append(size)
        return self.emit(f"load i64, ptr {slot}, align 8", "i64")

    def at(self, pointer: str, kind: str, *terms: tuple[Any, int] | int | Val) -> str:
        """The address `pointer + sum(index * stride)`, in elements."""
        total: Val | None = None
        fixed = 0
        for term in terms:
            if isinstance(term, int):
                fixed += term
                continue
            index, stride = (term, 1) if isinstance(term, Val) else term
            if not isinstance(index, Val):
                fixed += index * stride
                continue
            scaled = index if stride == 1 else self.mul(index, stride)
            total = scaled if total is None else self.add(total, scaled)
        if total is not None:
            pointer = self.offset(pointer, total, kind)
        return self.offset(pointer, const(fixed, "i64"), kind)

    def failure(self) -> str:
        """Where a function says that it failed, by writing 1; see Function. Ask for it after all sizes."""
        slot = self.offset("%args", const(len(self.buffers) + len(self.sizes), "i64"), "i64")
        return self.emit(f"load ptr, ptr {slot}, align 8", "ptr").text

    def divide(self, a: Val, by: int) -> Val:
        """The quotient of a number that is not negative."""
        return a if by == 1 else self.emit(f"udiv {a.typed}, {by}", "i64")

    def split(self, a: Val, by: int) -> tuple[Val, Val]:
        """Quotient and remainder."""
        if by == 1:
            return a, const(0, "i64")
        quotient = self.divide(a, by)
        return quotient, self.sub(a, self.mul(quotient, by))

    def maximum(self, a: Val, b: Any) -> Val:
        return self.select(self.compare("sgt", a, b), a, b)

    def minimum(self, a: Val, b: Any) -> Val:
        return self.select(self.compare("slt", a, b), a, b)

    def scratch(self, count: int, kind: str) -> str:
        """Memory on the stack."""
        name = f"%scratch{len(self.stack)}"
        self.stack.append(f"  {name} = alloca [{count} x {kind}], align 64")
        return name

    def clear(self, pointer: str, count: int | Val, kind: str) -> None:
        self.declarations.add("declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)")
        size = BITS[kind] // 8
        bytes_ = self.mul(count, size) if isinstance(count, Val) else const(count * size, "i64")
        self.line(f"call void @llvm.memset.p0.i64(ptr align {size} {pointer}, i8 0, {bytes_.typed}, i1 false)")

    def fence(self) -> None:
        """Keep loads on their side of this line: LLVM would join equal ones far apart, and spill registers for it."""
        self.line('call void asm sideeffect "", "~{memory}"()')

    def lane_mask(self, on: list[bool]) -> Val | None:
        """A constant mask; None where every lane is on."""
        if all(on):
            return None
        return Val("<" + ", ".join(f"i1 {'true' if x else 'false'}" for x in on) + ">", "i1", len(on))

    def zero(self, kind: str, lanes: int) -> Val:
        return Val("zeroinitializer" if lanes > 1 else "0.0", kind, lanes) if kind[0] != "i" else const(0, kind, lanes)

    def every_other(self, wide: str, kind: str, lanes: int, first: int) -> Val:
        """The lanes first, first + 2, ... of a vector of twice as many."""
        picks = ", ".join(f"i32 {first + 2 * i}" for i in range(lanes))
        type_ = vector_type(kind, 2 * lanes)
        return self.emit(f"shufflevector {type_} {wide}, {type_} poison, <{lanes} x i32> <{picks}>", kind, lanes)

    def when(self, condition: Val, body: Callable[[], None]) -> None:
        """Run what `body` writes if the condition holds."""
        inside, after = self.fresh_label(), self.fresh_label()
        self.line(f"br {condition.typed}, label %{inside}, label %{after}")
        self.label(inside)
        body()
        self.line(f"br label %{after}")
        self.label(after)

    def function(
        self, prefix: str, extent: Any, grain: int, work: Any, levels: Sequence[Level | None] = ()
    ) -> Function:
        """The function, with what it takes to launch it: see Function. A level that is not known is None."""
        self.line("ret void")
        body = "\n".join(["entry:", *self.stack, *self.lines])
        name = prefix + hashlib.blake2b(body.encode(), digest_size=10).hexdigest()
        text = f"define void @{name}(ptr noalias %args, i64 %low, i64 %high) #0 {{\n{body}\n}}\n"
        known = [level for level in levels if level is not None]
        return Function(
            name, text, self.buffers, self.sizes, extent, grain, work, self.declarations, self.helpers, known
        )
