"""Triton source for folds of what a sort has brought together: sums by index in a fixed order, other folds by index.

Keys are sorted. The first element of each run of equal keys finds where the run ends, folds its rows one after the
other (in float32 where the dtype is narrower) and stores the result: every place is written once, in one order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphtorch.lowering.binding import concrete
from graphtorch.lowering.kernel import ExternCall, View
from graphtorch.lowering.triton.codegen import Generated
from graphtorch.lowering.triton.errors import UnsupportedError
from graphtorch.lowering.triton.instructions import identity, memory, register
from graphtorch.lowering.triton.rows import RowWriter
from graphtorch.lowering.triton.tiling import Limits, power_of_two
from graphtorch.lowering.triton.writer import Writer, start
from graphtorch.tensor import dtypes

_FOLDS = {"sum": "sum", "mean": "sum", "prod": "prod", "amax": "max", "amin": "min"}


def generate_segments(call: ExternCall, bindings: Mapping[str, int], limits: Limits) -> list[Generated]:
    """The functions of `fold_segments(input, keys, order, source, combine, include)`, in order."""
    target, keys, order, source, combine, include = call.args
    out = call.outputs[0]
    if out is None:
        raise UnsupportedError("fold_segments without its result")
    of = register(out.dtype)

    def writer(shape: Any, suffix: str = "") -> Writer:
        return Writer(call, f"fold_segments{suffix}", shape, bindings, limits)

    count, width = keys.shape[0], source.shape[1]
    columns = min(power_of_two(concrete(width, bindings)), limits.pointwise)
    runs = max(min(limits.pointwise // columns // 8, power_of_two(concrete(count, bindings))), 1)
    w = RowWriter(call, f"fold_segments_{combine}", (count, width), 1, bindings)
    n = w.sizes.text(count)

    blocks = f"tl.cdiv({w.sizes.text(width)}, COLUMNS)"

    def place(view: View, row: str) -> str:
        rows, steps = (w.sizes.factor(s) for s in view.strides)
        w.reach = max(w.reach, concrete(view.shape[0] * view.strides[0] + view.offset, bindings))
        return f"{w.pointer(view.buffer)} + {w.sizes.text(view.offset)} + {rows} * {row} + {steps} * column"

    def vector(view: View, index: str) -> str:
        name = w.pointer(view.buffer)
        return f"{name} + {w.sizes.text(view.offset)} + {w.sizes.factor(view.strides[0])} * ({index})"

    w.add(
        f"run = program // {blocks} * RUNS + tl.arange(0, RUNS)[:, None]",
        f"column = program % {blocks} * COLUMNS + tl.arange(0, COLUMNS)[None, :]",
        f"mask = run < {n}",
        f"key = tl.load({vector(keys, 'run')}, mask=mask, other=-1)",
        f"before = tl.load({vector(keys, 'run - 1')}, mask=mask & (run > 0), other=-1)",
        f"first = mask & ((run == 0) | (key != before)) & (key >= 0) & (key < {w.sizes.factor(out.shape[0])})",
        "# Where the run of equal keys ends.",
        "low = run + 1",
        f"high = low * 0 + {n}",
        "for _ in range(steps):",
        "    middle = (low + high) // 2",
        "    inside = first & (low < high)",
        f"    same = inside & (tl.load({vector(keys, 'middle')}, mask=inside, other=-1) == key)",
        "    low = tl.where(same, middle + 1, low)",
        "    high = tl.where(inside & (same == 0), middle, high)",
        "count = tl.where(first, low - run, 0)",
        f"kept = first & (column < {w.sizes.factor(width)})",
    )
    fold = _FOLDS[combine]
    bools = out.dtype is dtypes.bool_
    acc = "tl.int32" if bools or of in ("tl.int8", "tl.uint8", "tl.int16") else of
    neutral = f"tl.full([RUNS, COLUMNS], {identity(fold, out.dtype)}, {acc})"
    w.add(f"total = {neutral}")
    if include:
        w.add(f"total = tl.load({place(target, 'key')}, mask=kept, other=0).to({acc})")
    extremum = f"_{fold}imum({{0}}, {{1}})" if out.dtype.is_floating_point else f"tl.{fold}imum({{0}}, {{1}})"
    text = {"sum": "{0} + {1}", "prod": "{0} * {1}"}.get(fold, extremum).format("total", "value")
    w.add(
        "for step in range(0, tl.max(count)):",
        "    here = kept & (step < count)",
        f"    row = tl.load({vector(order, 'run + step')}, mask=step < count, other=0)",
        f"    value = tl.load({place(source, 'row')}, mask=here, other=0).to({acc})",
        f"    total = tl.where(here, {text}, total)",
    )
    if bools and fold == "sum":
        w.add("total = (total != 0).to(tl.int32)")
    if combine == "mean":
        number = f"(count + {int(include)}).to({acc})"
        divided = f"total / {number}" if out.dtype.is_floating_point else f"_integer_floor_divide(total, {number})"
        w.add(f"total = {divided}")
    result = View(out, out.shape, (out.shape[1], 1))
    w.add(f"tl.store({place(result, 'key')}, total.to({memory(out.dtype)}), mask=kept)")
    steps = concrete(count, bindings).bit_length() + 1
    constants = {"RUNS": runs, "COLUMNS": columns}
    folded = w.finish(((count, runs), (width, columns)), constants, runs * columns, {"steps": steps})
    return [start(writer, out, target), folded]
