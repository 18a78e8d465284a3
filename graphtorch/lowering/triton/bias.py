"""Sums over the rows of what a product stores, begun on its tiles: the gradient of a bias.

The gradient of an activation's input is often what a product stores, and the gradient of the bias before it the sum of
its rows. A kernel for that sum reads everything again. Here each tile adds up its rows in groups of ROWS and stores
these sums; the kernel then adds up ROWS times fewer rows. All orders are fixed.
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
from graphtorch.lowering.triton.fused import FusedCall, result_shape
from graphtorch.lowering.triton.products import ROWS
from graphtorch.lowering.triton.shapes import DOT
from graphtorch.lowering.triton.splitting import copy_expressions
from graphtorch.lowering.triton.tiling import is_one, is_zero, post_order
from graphtorch.schedule.indexing import row_major
from graphtorch.schedule.report import describe
from graphtorch.tensor import dtypes
from graphtorch.tensor.type import TensorType

FEWEST = 1024  # rows of a product for which this pays


def begin_sums_in_products(schedule: Schedule) -> Schedule:
    """The schedule with sums over rows begun in the products that store what is summed."""
    steps = list(schedule.steps)
    lines: list[str] = []
    writers: dict[Buffer, int] = {}
    for step in steps:
        for buffer in step.writes():
            writers[buffer] = writers.get(buffer, 0) + 1
    for i, step in enumerate(steps):
        if not _can_begin(step):
            continue
        assert isinstance(step, FusedCall) and step.epilogue is not None
        for store in step.epilogue.stores:
            buffer = store.access.buffer
            readers = [j for j in range(i + 1, len(steps)) if buffer in steps[j].reads()]
            if writers[buffer] != 1 or not _lies_as_result(store, step.epilogue, step.product):
                continue
            m, n = result_shape(step)
            name = f"{buffer.name}_sums"
            shape = (-(-m // ROWS), n)
            partial = Buffer(name, dtypes.float32, shape, "temporary", Value(TensorType(dtypes.float32, shape), name))
            found = next(((j, made) for j in readers if (made := _summing(steps[j], buffer, partial, m, n))), None)
            if found is None:
                continue
            j, made = found
            lines.append(f"{made.name} | the sum of rows is begun on the tiles of {describe(step.nodes[0])}")
            steps[i] = replace(step, outputs=(*step.outputs, partial), sums=(store, partial))
            steps[j] = made
            break
    return replace(schedule, steps=steps, report=[*schedule.report, *lines])


def _can_begin(step: Kernel | ExternCall) -> bool:
    """Whether a step is a matrix product whose tiles go on, with many rows."""
    if not isinstance(step, FusedCall) or step.op.name != "mm" or step.epilogue is None or step.splits > 1:
        return False
    m, n = result_shape(step)
    return type(m) is int and type(n) is int and m >= FEWEST and step.args[0].buffer.dtype in DOT


def _lies_as_result(store: Store, kernel: Kernel, result: Buffer) -> bool:
    """Whether a store puts each element where the product's result has it."""
    own = next(
        e.access
        for e in post_order(s.value for s in kernel.stores)
        if isinstance(e, Load) and e.access.buffer is result
    )
    same = all(a == b or is_one(x.size) for x, a, b in zip(kernel.axes, own.strides, store.access.strides, strict=True))
    return same and is_zero(store.access.offset) and store.access.buffer.dtype.is_floating_point


def _summing(step: Kernel | ExternCall, buffer: Buffer, partial: Buffer, m: int, n: int) -> Kernel | None:
    """A kernel that sums the rows of a buffer as one that sums those of `partial`; None for any other."""
    if not isinstance(step, Kernel) or type(step) is not Kernel:
        return None
    folded = [i for i, a in enumerate(step.axes) if a.reduction and not is_one(a.size)]
    exprs = post_order(s.value for s in step.stores)
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
            if not {*folded} <= {*expr.axes} or not _goes_through_rows(step, folded, access, m, n):
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


def _goes_through_rows(kernel: Kernel, folded: list[int], access: Access, m: int, n: int) -> bool:
    """Whether the folded axes go through all rows of an (m, n) buffer, and the others through its columns."""
    if not folded or not is_zero(access.offset):
        return False
    sizes = [kernel.axes[i].size for i in folded]
    rows = [access.strides[i] for i in folded]
    kept = [i for i, a in enumerate(kernel.axes) if i not in folded and not is_one(a.size)]
    columns = [kernel.axes[i].size for i in kept]
    if any(type(s) is not int for s in (*sizes, *columns)):
        return False
    order = sorted(range(len(rows)), key=lambda i: -int(rows[i]))
    through = [sizes[i] for i in order]
    wanted = [n * s for s in row_major(through)]
    across = [access.strides[i] for i in kept]
    return (
        [rows[i] for i in order] == wanted
        and _product(through) == m
        and _product(columns) == n
        and list(across) == list(row_major(columns))
    )


def _product(sizes: list[int]) -> int:
    total = 1
    for size in sizes:
        total *= size
    return total
