"""Triton source for stable sorts: blocks in registers, then runs merged in as many launches as it takes.

Elements are compared as integers of the same order (NaN is larger than anything, 0.0 and -0.0 are equal); descending
order is that of their complements. In a block the position of an element goes with its key, which makes the order of
equal ones that of their positions: keys of up to 32 bits share a 64-bit number with it. Runs merge by ranks: an element
of one run goes behind as many elements of the other as a binary search finds before it.
"""

from __future__ import annotations

from collections.abc import Mapping

from graphtorch.lowering.binding import concrete
from graphtorch.lowering.kernel import Buffer, ExternCall, View
from graphtorch.lowering.triton.codegen import Generated
from graphtorch.lowering.triton.errors import UnsupportedError
from graphtorch.lowering.triton.instructions import memory
from graphtorch.lowering.triton.memory import Scratch
from graphtorch.lowering.triton.rows import RowWriter
from graphtorch.lowering.triton.tiling import Limits, power_of_two
from graphtorch.tensor import dtypes
from graphtorch.tensor.dtypes import dtype


def generate_sort(call: ExternCall, bindings: Mapping[str, int], limits: Limits) -> list[Generated]:
    """The functions of `sort(input, dim, descending, stable)`, in order."""
    source, dim, descending = call.args[:3]
    if not isinstance(source, View) or not source.shape:
        raise UnsupportedError("sort of a scalar")
    shape = source.shape
    length = concrete(shape[dim], bindings)
    rows = 1
    for i, size in enumerate(concrete(tuple(shape), bindings)):
        rows *= size if i != dim else 1
    block = min(power_of_two(max(length, 2)), max(limits.persistent, 2))
    of = source.buffer.dtype
    key = dtypes.int64 if of in (dtypes.int64, dtypes.float64) else dtypes.int32
    if length <= block:
        return [_blocks(call, source, dim, descending, bindings, limits, block, key, None)]

    def scratch() -> tuple[Scratch, Scratch]:
        names = f"{call.name}_keys", f"{call.name}_order"
        return Scratch(names[0], key, (rows * length,)), Scratch(names[1], dtypes.int32, (rows * length,))

    here, there = scratch(), scratch()
    made = [_blocks(call, source, dim, descending, bindings, limits, block, key, here)]
    width = block
    while width < length:
        last = 2 * width >= length
        made.append(_merge(call, source, dim, bindings, limits, width, here, None if last else there))
        here, there = there, here
        width *= 2
    return made


def key_text(x: str, of: dtype, descending: bool) -> str:
    """A loaded value as the integer that it is compared by."""
    if of is dtypes.float64:
        text = f"_order_of_double({x})"
    elif of.is_floating_point:
        text = f"_order_of_single({x}.to(tl.float32))"
    else:
        text = x if of is dtypes.int64 else f"{x}.to(tl.int32)"
    return f"~{text}" if descending else text


def _store_results(w: RowWriter, call: ExternCall, source: View, at: str, position: str, mask: str) -> None:
    """The element that lay at `position` of the row, and that position, as element `at` of the results."""
    values, indices = call.outputs
    if values is not None:
        value = f"tl.load({w.place(source, position)}, mask={mask}, other=0)"
        w.add(f"tl.store({w.result(values, at)}, {value}, mask={mask})")
    if indices is not None:
        w.add(f"tl.store({w.result(indices, at)}, {position}.to({memory(indices.dtype)}), mask={mask})")


def _blocks(
    call: ExternCall,
    source: View,
    dim: int,
    descending: bool,
    bindings: Mapping[str, int],
    limits: Limits,
    block: int,
    key: dtype,
    runs: tuple[Buffer, Buffer] | None,
) -> Generated:
    """Blocks of rows sorted: short rows several at a time, or the runs of long ones."""
    of = source.buffer.dtype
    w = RowWriter(call, "sort_blocks" if runs else "sort", source.shape, dim, bindings)
    n = w.sizes.text(w.length)
    count = concrete(w.rows, bindings)
    together = 1 if runs else min(power_of_two(count), max(limits.rows // block, 1)) if count >= 512 else 1
    if runs:
        w.add(f"pieces = tl.cdiv({n}, LENGTH)", "row = program // pieces + tl.zeros([1, 1], tl.int32)")
        w.add("first = program % pieces * LENGTH")
    else:
        w.add("row = program * ROWS + tl.arange(0, ROWS)[:, None]", "first = 0")
    w.locate("row")
    w.add("k = first + tl.arange(0, LENGTH)[None, :]", f"mask = (row < {w.sizes.text(w.rows)}) & (k < {n})")
    w.add(f"x = tl.load({w.place(source, 'k')}, mask=mask, other=0)")
    w.add(f"key = {key_text('x', of, descending)}")
    largest = "0x7FFFFFFF" if key is dtypes.int32 else "0x7FFFFFFFFFFFFFFF"
    w.add(f"key = tl.where(mask, key, {largest})")  # and later positions: behind all that are there
    if key is dtypes.int32:
        w.add("both = tl.sort((key.to(tl.int64) << 32) | tl.broadcast_to(k, [ROWS, LENGTH]).to(tl.int64))")
        w.add("at = (both & 0xFFFFFFFF).to(tl.int32)", "key = (both >> 32).to(tl.int32)")
    else:
        w.add("at = tl.broadcast_to(k, [ROWS, LENGTH]).to(tl.int32)")
        w.add("key, at = _sort_pairs(key, at, ROWS, LENGTH, STEPS)")
    constants = {"ROWS": together, "LENGTH": block}
    if key is dtypes.int64:
        constants["STEPS"] = block.bit_length() - 1
    if runs is None:
        _store_results(w, call, source, "k", "at", "mask")
        return w.finish(((w.rows, together),), constants, together * block)
    for buffer, value in zip(runs, ("key", "at"), strict=True):
        w.add(f"tl.store({w.pointer(buffer)} + row * {w.sizes.factor(w.length)} + k, {value}, mask=mask)")
    return w.finish(((w.rows, 1), (w.length, block)), constants, block)


def _merge(
    call: ExternCall,
    source: View,
    dim: int,
    bindings: Mapping[str, int],
    limits: Limits,
    width: int,
    runs: tuple[Buffer, Buffer],
    to: tuple[Buffer, Buffer] | None,
) -> Generated:
    """Neighbouring runs of `width` elements as one; the last merge writes the results."""
    w = RowWriter(call, "sort_merge" if to else "sort_last_merge", source.shape, dim, bindings)
    n = w.sizes.text(w.length)
    keys, order = (w.pointer(b) for b in runs)
    w.add(f"pieces = tl.cdiv({n}, BLOCK)", "row = program // pieces", f"base = row * {w.sizes.factor(w.length)}")
    w.locate("row")
    w.add(
        "k = program % pieces * BLOCK + tl.arange(0, BLOCK)",
        f"mask = k < {n}",
        f"key = tl.load({keys} + base + k, mask=mask, other=0)",
        f"at = tl.load({order} + base + k, mask=mask, other=0)",
        "run = k // width",
        "left = run % 2 == 0",
        "start = (run // 2) * 2 * width",
        f"low = tl.minimum(tl.where(left, start + width, start), {n})",  # the other run
        f"high = tl.minimum(low + width, {n})",
        "begin = low",
        "# How many elements of the other run come before; of equal ones those of the left run.",
        "for _ in range(steps):",
        "    middle = (low + high) // 2",
        "    inside = mask & (low < high)",
        f"    found = tl.load({keys} + base + middle, mask=inside, other=0)",
        "    before = inside & ((found < key) | ((found == key) & (left == 0)))",
        "    low = tl.where(before, middle + 1, low)",
        "    high = tl.where(inside & (before == 0), middle, high)",
        "place = start + k % width + low - begin",
    )
    if to is None:
        _store_results(w, call, source, "place", "at", "mask")
    else:
        for buffer, value in zip(to, ("key", "at"), strict=True):
            w.add(f"tl.store({w.pointer(buffer)} + base + place, {value}, mask=mask)")
    block = min(power_of_two(concrete(w.length, bindings)), limits.pointwise)
    integers = {"width": width, "steps": width.bit_length() + 1}
    return w.finish(((w.rows, 1), (w.length, block)), {"BLOCK": block}, block, integers)
