"""Sums over the rows of what a product stores, begun on its tiles: the gradient of a bias.

The gradient of an activation's input is often what a product stores, and the gradient of the bias before it the sum of
its rows. A kernel for that sum reads everything again. The same holds for gradients of attention that lie side by side,
as the gradient of one product. Here each tile adds up its rows in groups of ROWS and stores these sums; the kernel then
adds up ROWS times fewer rows. All orders are fixed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from graphtorch.ir.graph import Value
from graphtorch.lowering.kernel import (
    Access,
    Axis,
    Buffer,
    Compute,
    Expr,
    ExternCall,
    Index,
    Kernel,
    Load,
    Reduce,
    Schedule,
    Store,
)
from graphtorch.lowering.triton.attention import shapes
from graphtorch.lowering.triton.fused import FusedCall, RowSums, result_shape
from graphtorch.lowering.triton.products import ROWS
from graphtorch.lowering.triton.shapes import DOT
from graphtorch.lowering.triton.splitting import copy_expressions
from graphtorch.lowering.triton.tiling import is_one, is_zero
from graphtorch.schedule.indexing import estimate, product, row_major
from graphtorch.schedule.report import describe
from graphtorch.tensor import dtypes
from graphtorch.tensor.symint import same_shape, same_size
from graphtorch.tensor.type import TensorType

FEWEST = 1024  # rows of a product for which this pays


def begin_sums_in_products(schedule: Schedule) -> Schedule:
    """The schedule with sums over rows begun in the products, or in the gradients of attention, that store what is
    summed."""
    steps = list(schedule.steps)
    lines: list[str] = []
    writers: dict[Buffer, int] = {}
    readers: dict[Buffer, list[int]] = {}
    for i, step in enumerate(steps):
        for buffer in step.writes():
            writers[buffer] = writers.get(buffer, 0) + 1
        for buffer in step.reads():
            readers.setdefault(buffer, []).append(i)
    for i, step in enumerate(steps):
        joined = _joined(step)
        if joined is not None and writers[joined] == 1:
            made = _begun(steps, readers, i, joined, product(joined.shape[:-1]), joined.shape[-1])
            if made is not None:
                partial, line = made
                assert isinstance(step, FusedCall)
                steps[i] = replace(step, outputs=(*step.outputs, partial), sums=RowSums(None, partial, None, ROWS))
                lines.append(line)
        if not _can_begin(step):
            continue
        assert isinstance(step, FusedCall) and step.epilogue is not None
        for store in step.epilogue.stores:
            buffer = store.access.buffer
            if writers[buffer] != 1 or not lies_as_result(store, step.epilogue, step.product):
                continue
            made = _begun(steps, readers, i, buffer, *result_shape(step))
            if made is None:
                continue
            partial, line = made
            steps[i] = replace(step, outputs=(*step.outputs, partial), sums=RowSums(store, partial, None, ROWS))
            lines.append(line)
            break
    return replace(schedule, steps=steps, report=[*schedule.report, *lines])


def _begun(
    steps: list[Kernel | ExternCall], readers: dict[Buffer, list[int]], at: int, buffer: Buffer, m: Any, n: Any
) -> tuple[Buffer, str] | None:
    """Let the first kernel that sums the rows of a buffer (m, n) after a step read sums of groups of them instead: the
    buffer of these sums, and what to report."""
    name, shape = f"{buffer.name}_sums", ((m + ROWS - 1) // ROWS, n)
    partial = Buffer(name, dtypes.float32, shape, "temporary", Value(TensorType(dtypes.float32, shape), name))
    for j in readers.get(buffer, ()):
        if j > at and (made := _summing(steps[j], buffer, partial, m, n)) is not None:
            steps[j] = made
            return partial, f"{made.name} | the sum of rows is begun on the tiles of {describe(steps[at].nodes[0])}"
    return None


def _joined(step: Kernel | ExternCall) -> Buffer | None:
    """What the gradients of attention are stored in side by side, if their blocks consist of groups of its rows."""
    if not isinstance(step, FusedCall) or step.op.name != "fused_attention_backward" or len(step.places) < 3:
        return None
    whole = {view.buffer for view in step.places.values()}
    if len(whole) != 1 or any(s.m < ROWS or s.n < ROWS for s in shapes(step)):
        return None
    (buffer,) = whole
    sizes = [s for view in step.places.values() for s in (*view.shape[1:], *view.strides, view.offset)]
    if any(type(s) is not int for s in (buffer.shape[-1], *sizes)):
        return None
    width = buffer.shape[-1]
    lengths = {view.shape[1] for view in step.places.values()}
    rows = all(
        view.strides == (view.shape[1] * width, width, view.shape[3], 1) and view.offset < width
        for view in step.places.values()
    )
    covered = sum(view.shape[2] * view.shape[3] for view in step.places.values()) == width
    enough = estimate(product(buffer.shape[:-1])) >= FEWEST and len(lengths) == 1 and lengths.pop() % ROWS == 0
    return buffer if rows and covered and enough else None


def _can_begin(step: Kernel | ExternCall) -> bool:
    """Whether a step is a matrix product whose tiles go on, with many rows."""
    if not isinstance(step, FusedCall) or step.op.name != "mm" or step.epilogue is None or step.splits > 1:
        return False
    return estimate(result_shape(step)[0]) >= FEWEST and step.args[0].buffer.dtype in DOT


def lies_as_result(store: Store, kernel: Kernel, result: Buffer) -> bool:
    """Whether a store puts each element where the product's result has it."""
    own = next(
        e.access
        for e in kernel.exprs()
        if isinstance(e, Load) and e.access.buffer is result
    )
    same = all(a == b or is_one(x.size) for x, a, b in zip(kernel.axes, own.strides, store.access.strides, strict=True))
    return same and is_zero(store.access.offset) and store.access.buffer.dtype.is_floating_point


def _summing(step: Kernel | ExternCall, buffer: Buffer, partial: Buffer, m: Any, n: Any) -> Kernel | None:
    """A kernel that sums the rows of a buffer as one that sums those of `partial`; None for any other."""
    if not isinstance(step, Kernel) or type(step) is not Kernel:
        return None
    folded = [i for i, a in enumerate(step.axes) if a.reduction and not is_one(a.size)]
    exprs = step.exprs()
    replaced: dict[int, Expr] = {}
    inside: set[int] = set()
    for expr in exprs:
        if isinstance(expr, Reduce):
            load = expr.operand
            if isinstance(load, Compute) and load.instruction == "cast" and load.dtype is dtypes.float32:
                (load,) = load.arguments
            if not isinstance(load, Load) or load.access.buffer is not buffer or expr.combine != "sum":
                return None
            access = load.access
            if not {*folded} <= {*expr.axes} or not goes_through_rows(step, folded, access, m, n):
                return None
            strides: list[Any] = [0 if i in folded else s for i, s in enumerate(access.strides)]
            strides[folded[0]] = n
            total = Reduce("sum", Load(Access(partial, 0, tuple(strides))), expr.axes, dtypes.float32, expr.node)
            narrow = expr.dtype is not dtypes.float32
            replaced[id(expr)] = Compute("cast", (total,), expr.dtype, expr.node) if narrow else total
            inside |= {id(expr.operand), id(load)}
    if not replaced:
        return None
    for expr in exprs:
        if isinstance(expr, Load) and expr.access.buffer is buffer and id(expr) not in inside:
            return None
        if isinstance(expr, Load | Index) and id(expr) not in inside:
            along = expr.access.strides if isinstance(expr, Load) else expr.strides
            if any(not is_zero(along[i]) for i in folded):
                return None
    values = copy_expressions([s.value for s in step.stores], replaced, lambda s: s, lambda a: a)
    stores = [Store(s.access, v) for s, v in zip(step.stores, values, strict=True)]
    sizes = [1 if i in folded else a.size for i, a in enumerate(step.axes)]
    sizes[folded[0]] = partial.shape[0]
    axes = tuple(Axis(a.name, size, a.reduction) for a, size in zip(step.axes, sizes, strict=True))
    return Kernel(step.name, axes, stores, list(step.nodes), list(step.reasons))


def goes_through_rows(kernel: Kernel, folded: list[int], access: Access, m: Any, n: Any) -> bool:
    """Whether the folded axes go through all rows of an (m, n) buffer, and the others through its columns."""
    if not folded or not is_zero(access.offset):
        return False
    order = sorted(folded, key=lambda i: -estimate(access.strides[i]))
    kept = [i for i, a in enumerate(kernel.axes) if i not in folded and not is_one(a.size)]
    through, columns = ([kernel.axes[i].size for i in axes] for axes in (order, kept))
    return (
        same_shape(tuple(access.strides[i] for i in order), tuple(n * s for s in row_major(through)))
        and same_size(product(through), m)
        and same_size(product(columns), n)
        and same_shape(tuple(access.strides[i] for i in kept), row_major(columns))
    )
