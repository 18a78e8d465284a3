"""Triton source for running folds: sums, products, extrema, log-sum-exps.

A program goes through a row block after block, with what came before carried along. Few long rows are cut into pieces
that different programs go through: the pieces are folded, the folds scanned, and then each piece starts with what came
before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from graphtorch.lowering.binding import concrete
from graphtorch.lowering.kernel import ExternCall, View
from graphtorch.lowering.triton import splitting
from graphtorch.lowering.triton.codegen import Generated
from graphtorch.lowering.triton.errors import UnsupportedError
from graphtorch.lowering.triton.instructions import convert, identity, memory, register
from graphtorch.lowering.triton.memory import Scratch
from graphtorch.lowering.triton.rows import RowWriter
from graphtorch.lowering.triton.tiling import PROGRAMS, Limits, power_of_two
from graphtorch.tensor import dtypes
from graphtorch.tensor.dtypes import dtype


class _Scan(NamedTuple):
    """How elements combine: the helper function, the fold whose neutral element it starts with, and whether positions
    go with the values."""

    combine: str
    start: str
    positions: bool = False


SCANS = {
    "cumsum": _Scan("_plus", "sum"),
    "cumprod": _Scan("_multiply", "prod"),
    "cummax": _Scan("_last_larger", "max", True),
    "cummin": _Scan("_last_smaller", "min", True),
    "logcumsumexp": _Scan("_log_add_exp", "max"),
}


def generate_scan(call: ExternCall, bindings: Mapping[str, int], limits: Limits) -> list[Generated]:
    """The functions of a running fold, in order. float16 and bfloat16 are folded in float32."""
    source, dim = call.args[:2]
    if not isinstance(source, View) or not source.shape:
        raise UnsupportedError(f"{call.op.name} of a scalar")
    shape = call.nodes[0].results[0].type.shape
    rows = 1
    for i, size in enumerate(concrete(tuple(shape), bindings)):
        rows *= size if i != dim else 1
    length = concrete(shape[dim], bindings)
    if length <= splitting.LONG or rows >= PROGRAMS // 2:
        return [_pass(call, bindings, limits, "", None, 0, None)]
    piece = max(power_of_two(-(-length * rows // PROGRAMS)), limits.looped)
    count = -(-length // piece)
    of = call.nodes[0].results[0].type.dtype
    kept = dtypes.float32 if of in (dtypes.float16, dtypes.bfloat16) else of
    totals = [Scratch(f"{call.name}_totals", kept, (rows * count,))]
    if SCANS[call.op.name].positions:
        totals.append(Scratch(f"{call.name}_positions", dtypes.int64, (rows * count,)))
    return [
        _pass(call, bindings, limits, "_pieces", totals, piece, "fold"),
        _carries(call, bindings, limits, totals, rows, count),
        _pass(call, bindings, limits, "", totals, piece, "scan"),
    ]


def _pass(
    call: ExternCall,
    bindings: Mapping[str, int],
    limits: Limits,
    suffix: str,
    totals: list[Scratch] | None,
    piece: int,
    mode: str | None,
) -> Generated:
    """Rows as a whole (mode None), the folds of pieces ("fold"), or pieces that start with a carry ("scan")."""
    source, dim = call.args[:2]
    scan = SCANS[call.op.name]
    result = call.nodes[0].results[0].type
    of = result.dtype
    w = RowWriter(call, call.op.name + suffix, result.shape, dim, bindings)
    length = w.sizes.text(w.length)
    if mode is None:
        w.add("row = program", "begin = 0", f"end = {length}")
    else:
        w.add(
            f"pieces = tl.cdiv({length}, PIECE)",
            "row = program // pieces",
            "begin = program % pieces * PIECE",
            f"end = tl.minimum(begin + PIECE, {length})",
        )
    w.locate("row")
    w.add(*(f"carry{i} = {text}" for i, text in enumerate(_starts(scan, of))))
    if mode == "scan":
        assert totals is not None
        for i, total in enumerate(totals):
            found = f"tl.load({w.pointer(total)} + program - 1 + tl.zeros([1], tl.int32), mask=begin > 0, other=0)"
            w.add(f"carry{i} = tl.where(begin > 0, {found}, carry{i})")
    # Elements beyond the end come last, so that only what is not stored depends on them.
    loaded = convert(f"tl.load({w.place(source, 'k')}, mask=k < end, other=0)", source.buffer.dtype, of)
    body = ["k = start + tl.arange(0, BLOCK)", f"v0 = ({loaded}).to({register(of)})"]
    if mode == "fold":
        body.append(f"v0 = tl.where(k < end, v0, tl.full([1], {identity(scan.start, of)}, {register(of)}))")
    if scan.positions:
        body.append("v1 = k.to(tl.int64)")
    n = 2 if scan.positions else 1
    values = ", ".join(f"v{i}" for i in range(n))
    carries = ", ".join(f"carry{i}" for i in range(n))
    folded = ", ".join([f"t0.to({register(of)})", "t1"][:n])  # narrow integers fold in 32 bits
    if mode != "fold":
        scanned = ", ".join(f"s{i}" for i in range(n))
        call_of = (
            f"tl.associative_scan(({values}), 0, {scan.combine})"
            if n > 1
            else (f"tl.associative_scan(v0, 0, {scan.combine})")
        )
        body.append(f"{scanned} = {call_of}")
        body.append(f"{scanned} = {scan.combine}({carries}, {scanned})")
        for i, buffer in enumerate(call.outputs):
            if buffer is not None:
                value = f"s{i}" if i else f"s{i}.to({memory(of)})"
                body.append(f"tl.store({w.result(buffer, 'k')}, {value}, mask=k < end)")
    reduced = f"tl.reduce(({values}), 0, {scan.combine})" if n > 1 else f"tl.reduce(v0, 0, {scan.combine})"
    body.append(f"{', '.join(f't{i}' for i in range(n))} = {reduced}")
    body.append(f"{carries} = {scan.combine}({carries}, {folded})")
    w.add("for start in range(begin, end, BLOCK):", *(f"    {line}" for line in body))
    if mode == "fold":
        assert totals is not None
        for i, buffer in enumerate(totals):
            w.add(f"tl.store({w.pointer(buffer)} + program + tl.zeros([1], tl.int32), carry{i})")
    extent = min(piece, concrete(w.length, bindings)) if piece else concrete(w.length, bindings)
    block = min(power_of_two(extent), limits.looped)
    constants = {"BLOCK": block} | ({"PIECE": piece} if mode else {})
    grid = ((w.rows, 1), (w.length, piece)) if mode else ((w.rows, 1),)
    return w.finish(grid, constants, block)


def _carries(
    call: ExternCall, bindings: Mapping[str, int], limits: Limits, totals: list[Scratch], rows: int, count: int
) -> Generated:
    """Folds of pieces as running folds, in place."""
    scan = SCANS[call.op.name]
    of = totals[0].dtype
    w = RowWriter(call, call.op.name + "_carries", (rows, count), 1, bindings)
    n = len(totals)
    values = ", ".join(f"v{i}" for i in range(n))
    w.add("k = tl.arange(0, BLOCK)", "mask = k < count")
    starts = _starts(scan, of)
    for i, buffer in enumerate(totals):
        w.add(f"v{i} = tl.load({w.pointer(buffer)} + program * count + k, mask=mask, other=0)")
        if i == 0:
            w.add(f"v0 = tl.where(mask, v0, {starts[0]})")
    text = (
        f"tl.associative_scan(({values}), 0, {scan.combine})"
        if n > 1
        else f"tl.associative_scan(v0, 0, {scan.combine})"
    )
    w.add(f"{values} = {text}")
    for i, buffer in enumerate(totals):
        w.add(f"tl.store({w.pointer(buffer)} + program * count + k, v{i}, mask=mask)")
    block = power_of_two(count)
    return w.finish(((rows, 1),), {"BLOCK": block}, block, {"count": count})


def _starts(scan: _Scan, of: dtype) -> list[str]:
    texts = [f"tl.full([1], {identity(scan.start, of)}, {register(of)})"]
    return [*texts, "tl.zeros([1], tl.int64)"] if scan.positions else texts
