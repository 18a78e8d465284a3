"""Native sorting and searching: sort, topk, kthvalue, median, searchsorted.

Elements become unsigned keys in whose order NaN is the largest and both zeros are equal. A row is sorted as an array of
key and position packed in one integer: the order is stable because the packed numbers differ. Few elements are
inserted one by one; many go through a radix sort by the bytes of the keys, which skips bytes that are all the same.
For a few of many elements, most are compared with one bound only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from graphtorch.lowering.cpu.assembly import BITS, Builder, Val, const
from graphtorch.lowering.cpu.calls import CallBuilder, Target, emitter
from graphtorch.lowering.cpu.elements import MEMORY, from_memory
from graphtorch.lowering.cpu.function import Function
from graphtorch.lowering.kernel import ExternCall, View
from graphtorch.schedule.indexing import Layout, estimate, product, reshape_layout
from graphtorch.tensor import dtypes
from graphtorch.tensor.dtypes import dtype

SMALL = 48  # elements up to which insertion is faster
_NO_MEMORY = "DefaultCPUAllocator: can't allocate memory: you tried to sort rows of {} elements."


def key_of(b: Builder, x: Val, d: dtype) -> Val:
    """The unsigned key, of 32 or 64 bits, of an element in a register."""
    if not x.is_float:
        wide = "i64" if x.kind == "i64" else "i32"
        if x.kind != wide:
            x = b.convert("sext" if d.is_signed and x.kind != "i1" else "zext", x, wide)
        return b.logic("xor", x, 1 << (BITS[wide] - 1)) if d.is_signed and d is not dtypes.bool_ else x
    kind = "i32" if x.kind == "float" else "i64"
    top = BITS[kind] - 1
    plain = b.select(b.is_nan(x), float("nan"), b.add(x, 0.0))
    bits = b.convert("bitcast", plain, kind)
    return b.logic("xor", bits, b.logic("or", b.logic("ashr", bits, top), 1 << top))


class _Rows(NamedTuple):
    """The rows of an operand along one dimension: (outer, n, inner) and the strides of each."""

    sizes: tuple[Any, Any, Any]
    strides: tuple[Any, ...]
    offset: Any


def _rows(view: View, dim: int) -> _Rows | None:
    shape = view.shape or (1,)
    sizes = (product(shape[:dim]), shape[dim], product(shape[dim + 1 :]))
    layout = reshape_layout(Layout(view.shape, view.strides, view.offset), sizes)
    return None if layout is None else _Rows(sizes, layout.strides, layout.offset)


Chosen = Callable[[CallBuilder, Val, Val], tuple[Val, Val]]  # (elements, NaNs among them) -> first place, how many


def _sorted(
    call: ExternCall, target: Target, dim: int, descending: bool, count: Any, chosen: Chosen, best: int = 0
) -> Function | None:
    """Sort every row, and store the values and positions of `chosen` places, of which a row of the results has
    `count`. If only the `best` so many elements of the order are wanted, others need not be sorted."""
    source = call.args[0]
    d = source.buffer.dtype
    rows = _rows(source, dim) if d in MEMORY else None
    if rows is None or not any(o is not None for o in call.outputs):
        return None
    outer, n, inner = rows.sizes
    if type(n) is int and n == 0:
        return None
    values, indices = (*call.outputs, None)[:2]
    kind = MEMORY[d]
    b = CallBuilder(target)
    pointer = b.pointer(View(source.buffer, (), ()), kind)
    value_pointer = b.pointer(values, kind) if values is not None else ""
    index_pointer = b.pointer(indices, "i64") if indices is not None else ""
    pointer = b.offset(pointer, b.size(rows.offset), kind)
    size, width, results = b.size(n), b.size(inner), b.size(count)
    strides = [s if type(s) is int else b.size(s) for s in rows.strides]
    failure = b.failure()
    packed = "i128" if d.itemsize == 8 else "i64"
    bytes_ = BITS[packed] // 8
    b.declarations |= {"declare ptr @malloc(i64)", "declare void @free(ptr)"}
    memory = b.emit(f"call ptr @malloc(i64 {b.mul(size, 2 * bytes_).text})", "ptr")
    spare = b.offset(memory.text, size, packed)
    missing = b.emit(f"icmp eq ptr {memory.text}, null", "i1")

    def out_of_memory() -> None:
        b.store(const(1, "i64"), failure)
        b.store(size, b.offset(failure, const(1, "i64"), "i64"))

    def row(unit: Val) -> list[Val]:
        first = b.binary("udiv", unit, width, "")
        column = b.sub(unit, b.mul(first, width))
        here = b.at(pointer, kind, b.add(b.mul(first, strides[0]), b.mul(column, strides[2])))

        def element(i: Val) -> Val:
            return from_memory(b, b.load(b.at(here, kind, b.mul(i, strides[1])), kind), d)

        def word_of(i: Val, x: Val) -> Val:
            key = key_of(b, x, d)
            key = b.logic("xor", key, -1) if descending else key
            wide = b.logic("shl", b.convert("zext", key, packed), BITS[packed] // 2)
            return b.logic("or", wide, b.convert("zext", i, packed) if packed == "i128" else i)

        def fill(i: Val, nans: list[Val]) -> list[Val]:
            x = element(i)
            b.store(word_of(i, x), b.offset(memory.text, i, packed))
            return [b.add(nans[0], b.convert("zext", b.is_nan(x), "i64"))] if x.is_float else nans

        nans = const(0, "i64")
        if best and 4 * best <= estimate(n):
            found = _select(b, memory.text, spare, size, packed, best, lambda i: word_of(i, element(i)))
            ordered = _sort(b, memory.text, spare, found, packed)
        else:
            (nans,) = b.loop(const(0, "i64"), size, 1, fill, [nans])
            ordered = _sort(b, memory.text, spare, size, packed)
        start, places = chosen(b, size, nans)
        to = b.add(b.mul(b.mul(first, results), width), column)

        def write(i: Val, _: list[Val]) -> list[Val]:
            word = b.load(b.offset(ordered, b.add(start, i), packed), packed)
            position = b.convert("trunc", word, "i64") if packed == "i128" else b.logic("and", word, 0xFFFFFFFF)
            place = b.add(to, b.mul(i, width))
            if values is not None:
                x = b.load(b.at(here, kind, b.mul(position, strides[1])), kind)
                b.store(x, b.at(value_pointer, kind, place))
            if indices is not None:
                b.store(position, b.at(index_pointer, "i64", place))
            return []

        b.loop(const(0, "i64"), places, 1, write)
        return []

    b.when(missing, out_of_memory)

    def every_row() -> None:
        b.loop(b.low, b.high, 1, lambda unit, _: row(unit))

    b.when(b.logic("xor", missing, True), every_row)
    b.line(f"call void @free(ptr {memory.text})")
    function = b.function("sort", outer * inner, 1, product((outer, n, inner)) * 60)
    function.failures, function.error = (_NO_MEMORY,), RuntimeError
    return function


def _select(
    b: CallBuilder, memory: str, spare: str, n: Val, packed: str, first: int, word: Callable[[Val], Val]
) -> Val:
    """Leave candidates for the `first` numbers of a row in memory; gives how many. What is not below the last of the
    best so far is passed over; when the candidates are twice as many as wanted, the best of them stay."""
    most = max(2 * first, SMALL)
    count, bound = b.scratch(1, "i64"), b.scratch(1, packed)
    b.store(const(0, "i64"), count)
    b.store(const(-1, packed), bound)

    def shrink() -> None:
        ordered = _sort(b, memory, spare, const(most, "i64"), packed)

        def keep(i: Val, _: list[Val]) -> list[Val]:
            b.store(b.load(b.offset(ordered, i, packed), packed), b.offset(memory, i, packed))
            return []

        b.loop(const(0, "i64"), const(first, "i64"), 1, keep)
        b.store(b.load(b.offset(memory, const(first - 1, "i64"), packed), packed), bound)
        b.store(const(first, "i64"), count)

    def consider(i: Val, _: list[Val]) -> list[Val]:
        number = word(i)

        def take() -> None:
            have = b.load(count, "i64")
            b.store(number, b.offset(memory, have, packed))
            b.store(b.add(have, 1), count)
            b.when(b.compare("eq", have, most - 1), shrink)

        b.when(b.compare("ult", number, b.load(bound, packed)), take)
        return []

    b.loop(const(0, "i64"), n, 1, consider)
    return b.load(count, "i64")


def _sort(b: CallBuilder, memory: str, spare: str, n: Val, packed: str) -> str:
    """Where the sorted numbers are."""
    for name in ("sort_small", "sort_large"):
        b.helpers.add((name, packed, 1))
    small, large, after = (b.fresh_label() for _ in range(3))
    b.line(f"br {b.compare('sle', n, SMALL).typed}, label %{small}, label %{large}")
    b.label(small)
    b.line(f"call void @sort_small.{packed}(ptr {memory}, {n.typed})")
    b.line(f"br label %{after}")
    b.label(large)
    found = b.emit(f"call ptr @sort_large.{packed}(ptr {memory}, ptr {spare}, {n.typed})", "ptr")
    b.line(f"br label %{after}")
    b.label(after)
    return b.emit(f"phi ptr [{memory}, %{small}], [{found.text}, %{large}]", "ptr").text


def _from_start(count: Any) -> Chosen:
    return lambda b, n, nans: (const(0, "i64"), n if count is None else b.size(count))


@emitter("sort")
def sort(call: ExternCall, target: Target) -> Function | None:
    source, dim, descending, _ = call.args
    n = source.shape[dim] if source.shape else 1
    return _sorted(call, target, dim, descending, n, _from_start(None))


@emitter("topk")
def topk(call: ExternCall, target: Target) -> Function | None:
    _, k, dim, largest, _ = call.args
    if type(k) is not int:
        return None
    return _sorted(call, target, dim, largest, k, _from_start(k), k)


@emitter("kthvalue")
def kthvalue(call: ExternCall, target: Target) -> Function | None:
    _, k, dim, _ = call.args
    if type(k) is not int:
        return None
    return _sorted(call, target, dim, False, 1, lambda b, n, nans: (const(k - 1, "i64"), const(1, "i64")))


def _median(call: ExternCall, target: Target, dim: int, ignore_nan: bool) -> Function | None:
    """The lower one of two in the middle; NaN, where there is one that is not ignored."""

    def middle(b: CallBuilder, n: Val, nans: Val) -> tuple[Val, Val]:
        numbers = b.sub(n, nans)
        half = b.binary("sdiv", b.sub(numbers, 1), const(2, "i64"), "")
        if ignore_nan:
            return b.select(b.compare("slt", half, 0), 0, half), const(1, "i64")
        return b.select(b.compare("sgt", nans, 0), numbers, half), const(1, "i64")

    return _sorted(call, target, dim, False, 1, middle)


@emitter("median_dim")
def median_dim(call: ExternCall, target: Target) -> Function | None:
    return _median(call, target, call.args[1], False)


@emitter("nanmedian_dim")
def nanmedian_dim(call: ExternCall, target: Target) -> Function | None:
    return _median(call, target, call.args[1], True)


def _median_of_all(call: ExternCall, target: Target, ignore_nan: bool) -> Function | None:
    source = call.args[0]
    total = product(source.shape)
    layout = reshape_layout(Layout(source.shape, source.strides, source.offset), (total,))
    if layout is None or type(total) is not int:
        return None
    flat = View(source.buffer, layout.shape, layout.strides, layout.offset)
    whole = ExternCall(call.name, call.op, (flat,), call.outputs, call.nodes, call.reasons)
    return _median(whole, target, 0, ignore_nan)


@emitter("median")
def median(call: ExternCall, target: Target) -> Function | None:
    return _median_of_all(call, target, False)


@emitter("nanmedian")
def nanmedian(call: ExternCall, target: Target) -> Function | None:
    return _median_of_all(call, target, True)


@emitter("searchsorted")
def searchsorted(call: ExternCall, target: Target) -> Function | None:
    """Bisection for each value; a sequence for all, or a row for each row of values."""
    edges, values, _, right = call.args
    out = call.outputs[0]
    d = edges.buffer.dtype
    if out is None or d not in MEMORY or values.buffer.dtype is not d or len(edges.shape) < 1:
        return None
    n = edges.shape[-1]
    each = 1 if len(edges.shape) == 1 else (values.shape[-1] if values.shape else 1)
    sequences = reshape_layout(Layout(edges.shape, edges.strides, edges.offset), (product(edges.shape[:-1]), n))
    given = reshape_layout(Layout(values.shape, values.strides, values.offset), (product(values.shape),))
    if sequences is None or given is None:
        return None
    kind, wanted = MEMORY[d], MEMORY[out.dtype]
    b = CallBuilder(target)
    edge_pointer = b.pointer(View(edges.buffer, (), ()), kind)
    value_pointer, result = b.pointer(View(values.buffer, (), ()), kind), b.pointer(out, wanted)
    edge_pointer = b.offset(edge_pointer, b.size(sequences.offset), kind)
    value_pointer = b.offset(value_pointer, b.size(given.offset), kind)
    numbers = [s if type(s) is int else b.size(s) for s in (*sequences.strides, *given.strides)]
    size, columns = b.size(n), b.size(each)
    steps = const(n.bit_length(), "i64") if type(n) is int else const(64, "i64")

    def search(unit: Val) -> list[Val]:
        key = key_of(b, from_memory(b, b.load(b.at(value_pointer, kind, b.mul(unit, numbers[2])), kind), d), d)
        own = edge_pointer
        if len(edges.shape) > 1:
            own = b.at(own, kind, b.mul(b.binary("udiv", unit, columns, ""), numbers[0]))

        def halve(_: Val, bounds: list[Val]) -> list[Val]:
            low, high = bounds
            middle = b.logic("lshr", b.add(low, high), 1)
            open_ = b.compare("slt", low, high)
            at = b.select(open_, middle, 0)
            edge = key_of(b, from_memory(b, b.load(b.at(own, kind, b.mul(at, numbers[1])), kind), d), d)
            before = b.logic("and", open_, b.compare("ule" if right else "ult", edge, key))
            behind = b.logic("and", open_, b.logic("xor", before, True))
            return [b.select(before, b.add(middle, 1), low), b.select(behind, middle, high)]

        found, _ = b.loop(const(0, "i64"), steps, 1, halve, [const(0, "i64"), size])
        b.store(found if wanted == "i64" else b.convert("trunc", found, wanted), b.at(result, wanted, unit))
        return []

    b.loop(b.low, b.high, 1, lambda unit, _: search(unit))
    return b.function("search", given.shape[0], 1, product(given.shape) * 60)
