"""`Builder`: writes LLVM IR text, one function at a time.

A `Val` is an SSA name or literal with its element kind ("float", "i64", ...) and number of lanes; operations on
operands of different lane counts repeat the scalar one. Text rather than llvmlite's IR classes: it is several times
faster to make, and emitting takes no import of llvmlite.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

BITS = {"i1": 1, "i8": 8, "i16": 16, "i32": 32, "i64": 64, "i128": 128, "half": 16, "float": 32, "double": 64}
SUFFIX = {**{k: k for k in ("i1", "i8", "i16", "i32", "i64", "i128")}, "half": "f16", "float": "f32", "double": "f64"}


class Val(NamedTuple):
    """An operand: its text without type, its element kind, and its lanes (1 for a scalar)."""

    text: str
    kind: str
    lanes: int = 1

    @property
    def type(self) -> str:
        return self.kind if self.lanes == 1 else f"<{self.lanes} x {self.kind}>"

    @property
    def typed(self) -> str:
        return f"{self.type} {self.text}"

    @property
    def is_float(self) -> bool:
        return self.kind in ("half", "float", "double")


def literal(value: Any, kind: str) -> str:
    """LLVM's text of a Python number."""
    if kind == "i1":
        return "true" if value else "false"
    if kind[0] == "i":
        bits = BITS[kind]
        wrapped = int(value) & ((1 << bits) - 1)
        return str(wrapped - (1 << bits) if wrapped >> (bits - 1) else wrapped)
    number = float(value)
    if kind == "float":
        try:
            number = struct.unpack("<f", struct.pack("<f", number))[0]
        except OverflowError:  # beyond float32's range: rounds to infinity
            number = float("inf") if number > 0 else float("-inf")
    return f"0x{struct.unpack('<Q', struct.pack('<d', number))[0]:016X}"


def const(value: Any, kind: str, lanes: int = 1) -> Val:
    """A literal, repeated in every lane."""
    text = literal(value, kind)
    return Val(text if lanes == 1 else f"splat ({kind} {text})", kind, lanes)


def vector_type(kind: str, lanes: int) -> str:
    return kind if lanes == 1 else f"<{lanes} x {kind}>"


def suffix(kind: str, lanes: int) -> str:
    """How intrinsics' names spell a type."""
    return SUFFIX[kind] if lanes == 1 else f"v{lanes}{SUFFIX[kind]}"


class Builder:
    """The body of one function under construction.

    fma         whether the host has fused multiply-add; without it `llvm.fma` would be a library call
    declarations, helpers   what the module needs beside the function: declarations, and names of shared helper
                            functions
    mask                    the lanes that count in what is being written; None: all
    failure_slot            the text that gives the place of the address where the function says that it failed; "": it
                            can't
    failures                the messages with which it may fail, of a RuntimeError
    """

    def __init__(self, fma: bool = True) -> None:
        self.fma_available = fma
        self.lines: list[str] = []
        self.declarations: set[str] = set()
        self.helpers: set[tuple[str, str, int]] = set()
        self.mask: Val | None = None
        self.failure_slot = ""
        self.failures: list[str] = []
        self.error: type[Exception] = RuntimeError
        self._count = 0
        self._labels = 0

    # -- raw text ----------------------------------------------------------------------------------------------------

    def line(self, text: str) -> None:
        self.lines.append("  " + text)

    def emit(self, text: str, kind: str, lanes: int = 1) -> Val:
        """An instruction with a result."""
        self._count += 1
        name = f"%v{self._count}"
        self.lines.append(f"  {name} = {text}")
        return Val(name, kind, lanes)

    def fresh_label(self) -> str:
        self._labels += 1
        return f"b{self._labels}"

    def label(self, name: str) -> None:
        self.lines.append(f"{name}:")

    # -- arithmetic --------------------------------------------------------------------------------------------------

    def splat(self, value: Val, lanes: int) -> Val:
        """A scalar repeated in every lane."""
        if value.lanes == lanes:
            return value
        if value.text[0] != "%":
            return Val(f"splat ({value.kind} {value.text})", value.kind, lanes)
        one = self.emit(f"insertelement <{lanes} x {value.kind}> poison, {value.typed}, i64 0", value.kind, lanes)
        return self.emit(
            f"shufflevector {one.typed}, <{lanes} x {value.kind}> poison, <{lanes} x i32> zeroinitializer",
            value.kind,
            lanes,
        )

    def reversed(self, value: Val) -> Val:
        """The lanes from the last to the first."""
        picks = ", ".join(f"i32 {i}" for i in range(value.lanes - 1, -1, -1))
        text = f"shufflevector {value.typed}, {value.type} poison, <{value.lanes} x i32> <{picks}>"
        return self.emit(text, value.kind, value.lanes)

    def match(self, *values: Val) -> list[Val]:
        """Operands with a common number of lanes."""
        lanes = max(v.lanes for v in values)
        return [v if v.lanes == lanes else self.splat(v, lanes) for v in values]

    def binary(self, op: str, a: Val, b: Val, flags: str = "contract") -> Val:
        a, b = self.match(a, b)
        mode = f" {flags}" if flags and op[0] == "f" else ""
        return self.emit(f"{op}{mode} {a.typed}, {b.text}", a.kind, a.lanes)

    def _both(self, of_float: str, of_int: str, a: Val, b: Any) -> Val:
        if not isinstance(b, Val):
            b = const(b, a.kind)
        return self.binary(of_float if a.is_float else of_int, a, b)

    def add(self, a: Val, b: Any) -> Val:
        return self._both("fadd", "add", a, b)

    def sub(self, a: Val, b: Any) -> Val:
        return self._both("fsub", "sub", a, b)

    def mul(self, a: Val, b: Any) -> Val:
        return self._both("fmul", "mul", a, b)

    def div(self, a: Any, b: Val) -> Val:
        if not isinstance(a, Val):
            a = const(a, b.kind)
        return self.binary("fdiv", a, b)

    def neg(self, a: Val) -> Val:
        if a.is_float:
            return self.emit(f"fneg {a.typed}", a.kind, a.lanes)
        return self.binary("sub", const(0, a.kind), a)

    def fma(self, a: Val, b: Any, c: Any) -> Val:
        """a * b + c, rounded once where the host can."""
        b = b if isinstance(b, Val) else const(b, a.kind)
        c = c if isinstance(c, Val) else const(c, a.kind)
        if not self.fma_available:
            return self.add(self.mul(a, b), c)
        a, b, c = self.match(a, b, c)
        return self.intrinsic("fma", a, b, c)

    def polynomial(self, x: Val, coefficients: Sequence[float]) -> Val:
        """sum(c[i] * x**i) by Horner's rule."""
        result = const(coefficients[-1], x.kind, x.lanes)
        for c in reversed(coefficients[:-1]):
            result = self.fma(result, x, c)
        return result

    def intrinsic(self, name: str, *args: Val) -> Val:
        """An LLVM intrinsic on operands and a result of one type, such as fma, sqrt, fabs."""
        first = args[0]
        full = f"llvm.{name}.{suffix(first.kind, first.lanes)}"
        self.declarations.add(f"declare {first.type} @{full}({', '.join(a.type for a in args)})")
        return self.emit(f"call {first.type} @{full}({', '.join(a.typed for a in args)})", first.kind, first.lanes)

    def helper(self, name: str, *args: Val) -> Val:
        """A call of a function of `helpers.py`, which the module then contains."""
        first = args[0]
        self.helpers.add((name, first.kind, first.lanes))
        called = f"{name}.{suffix(first.kind, first.lanes)}"
        return self.emit(f"call {first.type} @{called}({', '.join(a.typed for a in args)})", first.kind, first.lanes)

    # -- comparisons and bits ----------------------------------------------------------------------------------------

    def compare(self, predicate: str, a: Val, b: Any) -> Val:
        """`predicate` is LLVM's: "olt" and so on for floats, "slt", "ult", "eq" for integers."""
        b = b if isinstance(b, Val) else const(b, a.kind)
        a, b = self.match(a, b)
        return self.emit(f"{'fcmp' if a.is_float else 'icmp'} {predicate} {a.typed}, {b.text}", "i1", a.lanes)

    def select(self, condition: Val, a: Any, b: Any) -> Val:
        kind = a.kind if isinstance(a, Val) else b.kind
        a = a if isinstance(a, Val) else const(a, kind)
        b = b if isinstance(b, Val) else const(b, kind)
        condition, a, b = self.match(condition, a, b)
        return self.emit(f"select {condition.typed}, {a.typed}, {b.typed}", kind, a.lanes)

    def is_nan(self, a: Val) -> Val:
        return self.emit(f"fcmp uno {a.typed}, {a.text}", "i1", a.lanes)

    def logic(self, op: str, a: Val, b: Any) -> Val:
        """and, or, xor, shl, lshr, ashr."""
        return self.binary(op, a, b if isinstance(b, Val) else const(b, a.kind))

    def convert(self, op: str, a: Val, kind: str) -> Val:
        """A conversion instruction: sext, sitofp, bitcast, ..."""
        return self.emit(f"{op} {a.typed} to {vector_type(kind, a.lanes)}", kind, a.lanes)

    def any_lane(self, condition: Val) -> Val:
        """Whether a condition holds in some lane."""
        if condition.lanes == 1:
            return condition
        bits = self.emit(f"bitcast {condition.typed} to i{condition.lanes}", f"i{condition.lanes}")
        return self.emit(f"icmp ne {bits.typed}, 0", "i1")

    def fail_if(
        self, condition: Val, message: str, error: type[Exception] = RuntimeError, shown: Val | None = None
    ) -> None:
        """Note a failure where a condition holds; what follows is computed all the same. `shown`: an integer that the
        message names. All errors of a function are of one class."""
        self.error = error
        if self.mask is not None and condition.lanes > 1:
            condition = self.logic("and", condition, self.mask)
        if message not in self.failures:
            self.failures.append(message)
        failed, after = self.fresh_label(), self.fresh_label()
        self.line(f"br {self.any_lane(condition).typed}, label %{failed}, label %{after}")
        self.label(failed)
        place = self.emit(self.failure_slot, "ptr")
        place = self.emit(f"load ptr, ptr {place.text}, align 8", "ptr")
        if shown is not None:
            if shown.lanes > 1:
                bits = self.emit(f"bitcast {condition.typed} to i{condition.lanes}", f"i{condition.lanes}")
                wide = bits if condition.lanes == 64 else self.emit(f"zext {bits.typed} to i64", "i64")
                self.declarations.add("declare i64 @llvm.cttz.i64(i64, i1)")
                lane = self.emit(f"call i64 @llvm.cttz.i64({wide.typed}, i1 false)", "i64")
                shown = self.emit(f"extractelement {shown.typed}, {lane.typed}", shown.kind)
            if shown.kind != "i64":
                shown = self.convert("sext", shown, "i64")
            word = self.emit(f"getelementptr i64, ptr {place.text}, i64 1", "ptr")
            self.line(f"store {shown.typed}, ptr {word.text}, align 8")
        self.line(f"store i64 {self.failures.index(message) + 1}, ptr {place.text}, align 8")
        self.line(f"br label %{after}")
        self.label(after)

    def freeze(self, a: Val) -> Val:
        return self.emit(f"freeze {a.typed}", a.kind, a.lanes)

    # -- lanes and memory --------------------------------------------------------------------------------------------

    def iota(self, kind: str, lanes: int, step: int = 1) -> Val:
        """0, step, 2 * step, ..."""
        if lanes == 1:
            return const(0, kind)
        return Val("<" + ", ".join(f"{kind} {i * step}" for i in range(lanes)) + ">", kind, lanes)

    def fold_lanes(self, values: Sequence[Val], combine: Callable[..., Sequence[Val]]) -> list[Val]:
        """Fold the lanes of vectors (several for a reduction that carries several values) into scalars, as a tree."""
        current = list(values)
        lanes = current[0].lanes
        while lanes > 1:
            half = lanes // 2
            low = ", ".join(f"i32 {i}" for i in range(half))
            high = ", ".join(f"i32 {i}" for i in range(half, lanes))
            halves: list[list[Val]] = [[], []]
            for value in current:
                for side, (into, mask) in enumerate(zip(halves, (low, high), strict=True)):
                    if half == 1:
                        into.append(self.emit(f"extractelement {value.typed}, i64 {side}", value.kind))
                    else:
                        text = f"shufflevector {value.typed}, {value.type} poison, <{half} x i32> <{mask}>"
                        into.append(self.emit(text, value.kind, half))
            current = list(combine(halves[0], halves[1]))
            lanes = half
        return current

    def offset(self, pointer: str, index: Val, element: str) -> str:
        """The address of an element."""
        if index.text == "0":
            return pointer
        return self.emit(f"getelementptr {element}, ptr {pointer}, {index.typed}", "ptr").text

    def load(self, pointer: str, kind: str, lanes: int = 1, mask: Val | None = None) -> Val:
        align = max(BITS[kind] // 8, 1)
        type_ = vector_type(kind, lanes)
        if mask is None or lanes == 1:
            return self.emit(f"load {type_}, ptr {pointer}, align {align}", kind, lanes)
        name = f"llvm.masked.load.{suffix(kind, lanes)}.p0"
        self.declarations.add(f"declare {type_} @{name}(ptr, i32, <{lanes} x i1>, {type_})")
        return self.emit(
            f"call {type_} @{name}(ptr {pointer}, i32 {align}, {mask.typed}, {type_} zeroinitializer)", kind, lanes
        )

    def load_reversed(self, pointer: str, kind: str, lanes: int, mask: Val | None) -> Val:
        """The element at an address and, in further lanes, those before it."""
        first = self.offset(pointer, const(1 - lanes, "i64"), kind)
        return self.reversed(self.load(first, kind, lanes, None if mask is None else self.reversed(mask)))

    def store(self, value: Val, pointer: str, mask: Val | None = None) -> None:
        align = max(BITS[value.kind] // 8, 1)
        if mask is None or value.lanes == 1:
            self.line(f"store {value.typed}, ptr {pointer}, align {align}")
            return
        lanes = mask.text.strip("<>").split(", ")
        if lanes.count("i1 true") == 1 and lanes.count("i1 false") == value.lanes - 1:
            # One lane of a constant mask. LLVM (22.1) makes a masked store of truncated numbers a store of one number
            # of their former width, which overwrites what lies behind it.
            at = lanes.index("i1 true")
            one = self.emit(f"extractelement {value.typed}, i32 {at}", value.kind)
            self.store(one, self.offset(pointer, const(at, "i64"), value.kind))
            return
        name = f"llvm.masked.store.{suffix(value.kind, value.lanes)}.p0"
        self.declarations.add(f"declare void @{name}({value.type}, ptr, i32, <{value.lanes} x i1>)")
        self.line(f"call void @{name}({value.typed}, ptr {pointer}, i32 {align}, {mask.typed})")

    def _lane_pointers(self, pointer: str, indices: Val, element: str) -> str:
        return self.emit(f"getelementptr {element}, ptr {pointer}, {indices.typed}", "ptr", indices.lanes).text

    def gather(self, pointer: str, indices: Val, kind: str, mask: Val | None) -> Val:
        """Elements at a vector of indices."""
        lanes = indices.lanes
        pointers = self._lane_pointers(pointer, indices, kind)
        on = mask or const(True, "i1", lanes)
        type_, name = vector_type(kind, lanes), f"llvm.masked.gather.{suffix(kind, lanes)}.v{lanes}p0"
        self.declarations.add(f"declare {type_} @{name}(<{lanes} x ptr>, i32, <{lanes} x i1>, {type_})")
        align = max(BITS[kind] // 8, 1)
        return self.emit(
            f"call {type_} @{name}(<{lanes} x ptr> {pointers}, i32 {align}, {on.typed}, {type_} zeroinitializer)",
            kind,
            lanes,
        )

    def scatter(self, value: Val, pointer: str, indices: Val, mask: Val | None) -> None:
        """Store lanes at a vector of indices."""
        lanes = value.lanes
        pointers = self._lane_pointers(pointer, indices, value.kind)
        on = mask or const(True, "i1", lanes)
        name = f"llvm.masked.scatter.{suffix(value.kind, lanes)}.v{lanes}p0"
        self.declarations.add(f"declare void @{name}({value.type}, <{lanes} x ptr>, i32, <{lanes} x i1>)")
        align = max(BITS[value.kind] // 8, 1)
        self.line(f"call void @{name}({value.typed}, <{lanes} x ptr> {pointers}, i32 {align}, {on.typed})")

    # -- control flow ------------------------------------------------------------------------------------------------

    def loop(
        self,
        start: Val,
        stop: Val,
        step: int,
        body: Callable[[Val, list[Val]], Sequence[Val]],
        carried: Sequence[Val] = (),
    ) -> list[Val]:
        """`for i in range(start, stop, step): carried = body(i, carried)`; the carried values after the loop."""
        before, head, inside, after, last = (self.fresh_label() for _ in range(5))
        self.line(f"br label %{before}")
        self.label(before)
        self.line(f"br label %{head}")
        self.label(head)
        phis = len(self.lines)
        self.lines.append("")
        index = Val(f"%{head}.i", "i64")
        values = [Val(f"%{head}.c{n}", v.kind, v.lanes) for n, v in enumerate(carried)]
        more = self.compare("slt", index, stop)
        self.line(f"br {more.typed}, label %{inside}, label %{after}")
        self.label(inside)
        results = body(index, values)
        self.line(f"br label %{last}")
        self.label(last)
        following = self.emit(f"add nuw nsw {index.typed}, {step}", "i64")
        self.line(f"br label %{head}")
        text = [f"  {index.text} = phi i64 [{start.text}, %{before}], [{following.text}, %{last}]"]
        for value, initial, result in zip(values, carried, results, strict=True):
            result = self._same_shape(result, value)
            text.append(f"  {value.text} = phi {value.type} [{initial.text}, %{before}], [{result.text}, %{last}]")
        self.lines[phis] = "\n".join(text)
        self.label(after)
        return values

    @staticmethod
    def _same_shape(result: Val, value: Val) -> Val:
        assert (result.kind, result.lanes) == (value.kind, value.lanes), (result, value)
        return result
