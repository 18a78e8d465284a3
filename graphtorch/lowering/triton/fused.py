"""Products with their neighbours in them: a rewrite of the schedule before code is generated.

A pointwise kernel that reads a product's result at the element that a tile has, and whose other operands follow the
tile, is computed on the tile before it is stored (bias, activation, residual, cast, a parameter's update). A cheap
pointwise kernel that makes an operand for one product only is computed on each block that the product loads. A product
with few blocks and a long sum is split: parts of the sum in one launch, their sum with the kernel behind it in a
second, in a fixed order. Every decision is a line of the schedule's report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import gcd
from typing import Any

from graphtorch.ir.graph import Node, Value
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
    View,
    post_order,
)
from graphtorch.lowering.triton.errors import UnsupportedError
from graphtorch.lowering.triton.instructions import REGISTER
from graphtorch.lowering.triton.layout import ChannelsLast
from graphtorch.lowering.triton.narrow import MOST_COLUMNS, Framed, run_of
from graphtorch.lowering.triton.placement import Coordinate, Pointers, TileWriter, distinct, pieces_of
from graphtorch.lowering.triton.rewriting import Hints, loads_of, rebuilder
from graphtorch.lowering.triton.shapes import MULTIPROCESSORS, SHORTEST_PART, blocks, fit, parts, waiting
from graphtorch.lowering.triton.sizes import Sizes
from graphtorch.lowering.triton.tiling import is_one, is_zero
from graphtorch.schedule.fusion import EXPENSIVE
from graphtorch.schedule.indexing import estimate, product, row_major
from graphtorch.schedule.report import describe
from graphtorch.tensor import dtypes
from graphtorch.tensor.precision import convolution_precision, matmul_precision
from graphtorch.tensor.type import TensorType

ATTENTION = ("fused_attention", "fused_attention_backward")
PRODUCTS = ("mm", "bmm", "conv2d", "conv2d_input_grad", "conv2d_weight_grad")
MOST_LOADS = 4  # operands of an epilogue as large as the tile: more do not fit into registers beside it
MOST_STORES = 3
MOST_MOVES = 4  # loads and stores for each element, as float32: more (AdamW) are faster where nothing waits for them
CHEAP = 8  # instructions that a block of an operand may cost each time it is loaded
REREADS = 4  # times that an operand may be computed again


@dataclass(frozen=True, eq=False)
class RowSums:
    """Rows of a product's tiles that are added up in groups, which are rows of further results.

    store      of the epilogue, whose values are added up; None: the product's own result
    totals     the sums
    squares    sums of the squares of the distances from each group's mean; None if nobody asks for them
    rows       of a group
    ragged     the last group may have fewer
    """

    store: Store | None
    totals: Buffer
    squares: Buffer | None
    rows: int
    ragged: bool = False


@dataclass(frozen=True, eq=False)
class ValueSums:
    """Values of a pointwise kernel on a product's result that are added up in groups of its rows.

    kernel     each store names a value, and the buffer of its sums
    stored     from which the kernel reads the result: what a tile stores there, as it is rounded
    rows       of a group
    """

    kernel: Kernel
    stored: Buffer
    rows: int


DELTA = 5  # among the operands of attention's backward pass


@dataclass(eq=False, slots=True)
class FusedCall(ExternCall):
    """A product with pointwise kernels in it; `outputs` are what is stored.

    product     the product's own result, which may be nowhere in memory; with splits, the parts of its sum
    epilogue    computed on the tiles of the result
    prologues   argument -> the kernel that computes it, which stores nothing
    splits      parts of the sum, each a result of its own
    sums        rows that are added up on the tiles
    values      what is made of the result, and of other images, and added up there
    places      result -> where it lies, if that is a part of a buffer that other results share
    result      of attention's backward pass that makes its deltas: what the forward pass gave (`deltas.py`)
    """

    product: Buffer = field(kw_only=True)
    epilogue: Kernel | None = field(default=None, kw_only=True)
    prologues: dict[int, Kernel] = field(default_factory=dict, kw_only=True)
    splits: int = field(default=1, kw_only=True)
    sums: RowSums | None = field(default=None, kw_only=True)
    values: ValueSums | None = field(default=None, kw_only=True)
    places: dict[int, View] = field(default_factory=dict, kw_only=True)
    result: View | None = field(default=None, kw_only=True)

    def writes(self) -> list[Buffer]:
        return list(dict.fromkeys(o for o in self.outputs if o is not None))

    def reads(self) -> list[Buffer]:
        found: dict[int, Buffer] = {}
        made = () if self.result is None else (DELTA,)
        for i, arg in enumerate((*self.args, self.result)):
            if isinstance(arg, View) and i not in self.prologues and i not in made:
                found[id(arg.buffer)] = arg.buffer
        for kernel in (*self.prologues.values(), *([] if self.epilogue is None else [self.epilogue])):
            found.update((id(b), b) for b in kernel.reads() if b is not self.product)
        if self.values is not None:
            found.update((id(b), b) for b in self.values.kernel.reads() if b is not self.values.stored)
        return list(found.values())

    @property
    def rows(self) -> int:
        """Of the result that a tile adds up at least."""
        return max([s.rows for s in (self.sums, self.values) if s is not None], default=0)


def fuse_products(schedule: Schedule) -> Schedule:
    """The same computation with neighbours of products inside of them."""
    rewrite = _Rewrite(schedule)
    rewrite.drop_unread()
    for step in list(rewrite.steps):
        if isinstance(step, ExternCall) and _is_product(step):
            rewrite.fuse(step)
        elif isinstance(step, ExternCall) and step.op.name in ATTENTION:
            for position in _factor_positions(step):
                rewrite.fuse_factors(step.args[position].buffer)
    return replace(schedule, steps=rewrite.steps, report=[*schedule.report, *rewrite.lines])


class _Rewrite:
    def __init__(self, schedule: Schedule) -> None:
        self.steps = list(schedule.steps)
        self.lines: list[str] = []
        self.readers: dict[Buffer, list[Kernel | ExternCall]] = {}
        self.writers: dict[Buffer, list[Kernel | ExternCall]] = {}
        for step in self.steps:
            self._enter(step)

    def _enter(self, step: Kernel | ExternCall) -> None:
        for buffer in step.reads():
            self.readers.setdefault(buffer, []).append(step)
        for buffer in step.writes():
            self.writers.setdefault(buffer, []).append(step)

    def _leave(self, step: Kernel | ExternCall) -> None:
        for buffer in step.reads():
            self.readers[buffer].remove(step)
        for buffer in step.writes():
            self.writers[buffer].remove(step)

    def _replace(self, old: Sequence[Kernel | ExternCall], at: int, new: Sequence[Kernel | ExternCall]) -> None:
        """Put `new` where steps[at] is, one of the `old` steps, which go."""
        for step in old:
            here = self._index(step)
            self.steps[here : here + 1] = new if here == at else []
            at -= here < at
        for step in old:
            self._leave(step)
        for step in new:
            self._enter(step)

    def drop_unread(self) -> None:
        """Leave out kernels that nobody reads: what only said the shape of random numbers, say."""
        for step in reversed(list(self.steps)):
            if isinstance(step, Kernel) and not any(
                self.readers.get(b) or b.kind != "temporary" for b in step.writes()
            ):
                self._leave(step)
                self.steps.remove(step)

    # -- one product -------------------------------------------------------------------------------------------------

    def fuse(self, call: ExternCall) -> None:
        """Absorb what can be absorbed, and split the sum where that pays."""
        result = call.outputs[0]
        assert result is not None
        fused = FusedCall(
            call.name, call.op, call.args, call.outputs, list(call.nodes), list(call.reasons), product=result
        )
        absorbed = self._prologues(call, fused)
        if absorbed:
            self._replace([*absorbed, call], self._index(call), [fused])
        current: ExternCall = fused if absorbed else call
        fused = replace(fused)  # what is in the list of steps stays as it was entered
        splits = _parts(call)
        found = self._epilogue(current, result, fused)
        if found is None and splits == 1:
            return
        if found is None:
            self._replace([current], self._index(current), self._split(fused, splits, None, None))
            return
        kernel, inside, rest, at = found
        report = f"{call.name} | {', '.join(map(describe, inside.nodes))} of {kernel.name}"
        if splits > 1:
            steps = self._split(fused, splits, inside, kernel)
            self.lines.append(f"{report} follows the second half of {describe(call.nodes[0])}")
        else:
            fused.epilogue = inside
            fused.outputs = tuple(s.access.buffer for s in inside.stores)
            fused.nodes = [*fused.nodes, *inside.nodes]
            fused.reasons = [*fused.reasons, f"{', '.join(map(describe, inside.nodes))} on the tiles of the result"]
            self.lines.append(f"{report} is computed on the tiles of {describe(call.nodes[0])}")
            steps = [fused]
        left: list[Kernel | ExternCall] = [] if rest is None else [rest]
        if self.steps[at] is kernel:
            self._replace([current, kernel], at, [*steps, *left])
        else:
            self._replace([current], at, steps)
            self._replace([kernel], self._index(kernel), left)

    def _index(self, step: Kernel | ExternCall) -> int:
        return next(i for i, s in enumerate(self.steps) if s is step)

    # -- attention ---------------------------------------------------------------------------------------------------

    def fuse_factors(self, buffer: Buffer) -> None:
        """Compute a mask, or the factors of a dropout, in the passes of attention that read it, if all of them can."""
        written, readers = self.writers.get(buffer, []), list(self.readers.get(buffer, []))
        if len(written) != 1 or not isinstance(written[0], Kernel):
            return
        kernel = written[0]
        here = self._index(kernel)
        fused: list[tuple[ExternCall, FusedCall]] = []
        for reader in readers:
            if not isinstance(reader, ExternCall) or reader.op.name not in ATTENTION:
                return
            uses = [i for i, a in enumerate(reader.args) if isinstance(a, View) and a.buffer is buffer]
            changed = {b for step in self.steps[here + 1 : self._index(reader)] for b in step.writes()}
            if len(uses) != 1 or uses[0] not in _factor_positions(reader) or changed & set(kernel.reads()):
                return
            if not _is_cheap(kernel, reader.args[uses[0]], draws=True):
                return
            known = reader.prologues if isinstance(reader, FusedCall) else {}
            stored = next(o for o in reader.outputs if o is not None)
            fused.append(
                (
                    reader,
                    FusedCall(
                        reader.name,
                        reader.op,
                        reader.args,
                        reader.outputs,
                        [*reader.nodes, *kernel.nodes],
                        list(reader.reasons),
                        product=stored,
                        prologues={**known, uses[0]: kernel},
                    ),
                )
            )
        for reader, made in fused:
            self._replace([reader], self._index(reader), [made])
            what = f"{', '.join(map(describe, kernel.nodes))} of {kernel.name}"
            self.lines.append(f"{made.name} | {what} is computed on the blocks of {describe(made.nodes[0])}")
        if fused:
            self._replace([kernel], self._index(kernel), [])

    # -- operands ----------------------------------------------------------------------------------------------------

    def _prologues(self, call: ExternCall, fused: FusedCall) -> list[Kernel]:
        """The kernels that make the call's operands and may do so where it loads them."""
        found: list[Kernel] = []
        for position in (0, 1):
            view = call.args[position]
            written = self.writers.get(view.buffer, [])
            if len(written) != 1 or len(self.readers.get(view.buffer, [])) != 1:
                continue
            kernel = written[0]
            if not isinstance(kernel, Kernel) or view.buffer is call.args[1 - position].buffer:
                continue
            if not _may_load(kernel, view, call, position):
                continue
            here, there = self._index(kernel), self._index(call)
            changed = {b for step in self.steps[here + 1 : there] for b in step.writes()}
            if changed & set(kernel.reads()):
                continue
            fused.prologues[position] = kernel
            found.append(kernel)
            what = f"{', '.join(map(describe, kernel.nodes))} of {kernel.name}"
            self.lines.append(f"{call.name} | {what} is computed where {describe(call.nodes[0])} loads it")
            fused.nodes = [*fused.nodes, *kernel.nodes]
        return found

    # -- the result --------------------------------------------------------------------------------------------------

    def _epilogue(
        self, call: ExternCall, result: Buffer, fused: FusedCall
    ) -> tuple[Kernel, Kernel, Kernel | None, int] | None:
        """The kernel behind the product, its part that joins, what is left of it, and where the fused step stands."""
        readers = self.readers.get(result, [])
        order = sorted(readers, key=self._index)
        if not order or not isinstance(order[0], Kernel) or len(self.writers.get(result, [])) != 1:
            return None
        kernel = order[0]

        def refuse(why: str) -> None:
            self.lines.append(f"{kernel.name} | stays apart from {describe(call.nodes[0])} of {call.name}: {why}")

        found = pointwise_part(kernel, result)
        if found is None:
            refuse("it folds what it reads, or reads what it overwrites")
            return None
        inside, rest = found
        why = _may_follow(inside, result, call)
        if why is not None:
            refuse(why)
            return None
        if result.kind != "temporary" or len(order) > 1:
            load = next(e for e in loads_of(inside) if e.access.buffer is result)
            inside = replace(inside, stores=[*inside.stores, Store(load.access, load)])
        if set(inside.writes()) & set(call.reads()):
            refuse("it overwrites an operand of the product")
            return None
        first, last = self._index(call), self._index(kernel)
        between = self.steps[first + 1 : last]
        written = {b for step in between for b in step.writes()}
        if not written & set(call.reads()):
            return kernel, inside, rest, last
        touched = written | {b for step in between for b in step.reads()}
        if written & set(inside.reads()) or touched & set(inside.writes()):
            refuse("what it reads is not ready where the product runs")
            return None
        return kernel, inside, rest, first

    # -- split sums --------------------------------------------------------------------------------------------------

    def _split(
        self, fused: FusedCall, splits: int, epilogue: Kernel | None, kernel: Kernel | None
    ) -> list[Kernel | ExternCall]:
        """The launch of the partial sums, and the one that adds them up and goes on from there."""
        result = fused.product
        shape = (splits, *result.shape)
        name = f"{result.name}_parts"
        kind = ChannelsLast if isinstance(result, ChannelsLast) else Buffer
        partial = kind(name, dtypes.float32, shape, "temporary", Value(TensorType(dtypes.float32, shape), name))
        fused.product, fused.splits, fused.outputs = partial, splits, (partial,)
        self.lines.append(f"{fused.name} | the sum of {describe(fused.nodes[0])} is split into {splits} parts")
        if epilogue is None:
            whole = Load(Access(result, 0, (1,)))
            line = (Axis("i0", product(result.shape)),)
            epilogue = Kernel(f"{fused.name}_sum", line, [Store(whole.access, whole)], list(fused.nodes[:1]))
        count: Any = product(result.shape)
        fold = len(epilogue.axes)

        def extended(expr: Expr) -> Expr | None:
            if isinstance(expr, Load):
                access = expr.access
                if access.buffer is not result:
                    return Load(Access(access.buffer, access.offset, (*access.strides, 0)))
                load = Load(Access(partial, access.offset, (*access.strides, count)))
                total = Reduce("sum", load, (fold,), dtypes.float32, fused.nodes[0])
                return total if result.dtype is dtypes.float32 else Compute("cast", (total,), result.dtype)
            return Index(expr.offset, (*expr.strides, 0), expr.dtype) if isinstance(expr, Index) else None

        rebuild = rebuilder(extended)
        stores = [
            Store(Access(s.access.buffer, s.access.offset, (*s.access.strides, 0)), rebuild(s.value))
            for s in epilogue.stores
        ]
        axes = (*epilogue.axes, Axis("r0", splits, True))
        second = Kernel(epilogue.name, axes, stores, list(epilogue.nodes), list(epilogue.reasons))
        return [fused, second]


# -- what may be absorbed ---------------------------------------------------------------------------------------------


def _is_product(call: ExternCall) -> bool:
    if call.op.name not in PRODUCTS or call.op.kernels.get("triton") is not None or call.outputs[0] is None:
        return False
    views = call.args[:2]
    if not all(isinstance(v, View) and v.buffer.dtype in REGISTER for v in views):
        return False
    if call.op.name in ("mm", "bmm"):
        return True
    return all(len(v.shape) == 4 for v in views) and (call.op.name != "conv2d" or call.args[2] is None)


def extents(call: ExternCall) -> tuple[Any, Any, Any, Any]:
    """M, N, K and the number of products of a call. The input gradient of a strided convolution consists of a product
    for every phase (pixels whose rows and columns leave the same remainders); those without places don't count."""
    a, b = call.args[:2]
    if call.op.name in ("mm", "bmm"):
        count = a.shape[0] if call.op.name == "bmm" else 1
        return a.shape[-2], b.shape[-1], a.shape[-1], count
    groups = call.args[-1]
    if call.op.name == "conv2d_weight_grad":
        (images, inputs, *_), (_, outputs, *pixels) = a.shape, b.shape
        kernel = result_shape(call)[-2:]
        return outputs // groups, _row(a, inputs // groups, kernel), images * product(pixels), groups
    outputs, inputs, *kernel = b.shape
    shape = result_shape(call)
    if call.op.name == "conv2d":
        return shape[0] * product(shape[2:]), outputs // groups, _row(a, inputs, kernel), groups
    strides, _, dilations, _ = call.args[-4:]
    pixels = [(size + stride - 1) // stride for size, stride in zip(shape[2:], strides, strict=True)]
    phases = 1
    for places, stride, dilation in zip(kernel, strides, dilations, strict=True):
        apart = stride // gcd(stride, dilation)
        phases *= min(places, apart) if type(places) is int else apart
    summed = (outputs // groups * product(kernel) + phases - 1) // phases  # on an average
    return shape[0] * product(pixels), inputs, summed, groups * phases


def _row(image: View, channels: Any, kernel: Sequence[Any]) -> Any:
    """The elements under a kernel for one pixel of the result, with what fills up its rows."""
    if isinstance(image.buffer, Framed):
        return kernel[0] * run_of(kernel[1], image.buffer.shape[3])
    return channels * product(kernel)


def result_shape(call: ExternCall) -> tuple[Any, ...]:
    """The shape of a product's result."""
    if isinstance(call, FusedCall):
        return call.product.shape[1:] if call.splits > 1 else call.product.shape
    out = call.outputs[0]
    assert out is not None
    return out.shape


def coordinate_extents(call: ExternCall) -> list[tuple[Any, Any]]:
    """Size and stride of the coordinates of a result's elements: (row, column) of a product with the batch before them,
    (image, channel, pixel) of an image, (output channel, column) of a kernel's gradient, whose column is (channel,
    place) where the sum goes over places first."""
    shape = list(result_shape(call))
    sizes = shape
    if call.op.name in ("conv2d", "conv2d_input_grad"):
        sizes = [shape[0], shape[1], product(shape[2:])]
        made = call.product if isinstance(call, FusedCall) else call.outputs[0]
        if isinstance(made, ChannelsLast):
            return list(zip(sizes, (sizes[1] * sizes[2], 1, sizes[1]), strict=True))
    elif call.op.name == "conv2d_weight_grad":
        sizes = [shape[0], shape[1], product(shape[2:])] if places_first(call) else [shape[0], product(shape[1:])]
    return list(zip(sizes, row_major(sizes), strict=True))


def places_first(call: ExternCall) -> bool:
    """Whether the columns of a kernel's gradient are (place, channel): where the image's channels lie side by side."""
    return is_one(call.args[0].strides[1]) and all(type(s) is int for s in result_shape(call))


def _parts(call: ExternCall) -> int:
    sizes = extents(call)
    if any(is_zero(s) for s in sizes):
        return 1
    m, n, k, count = map(estimate, sizes)  # symbolic ones (a batch) as in the call that was captured
    tf32 = (convolution_precision() if call.op.name.startswith("conv2d") else matmul_precision()) == "tf32"
    of = call.args[0].buffer.dtype
    found = parts(m, n, k, count, of, tf32)
    if call.op.name == "conv2d_weight_grad" and isinstance(call.args[0].buffer, Framed):
        # Programs have all columns, and single pixels of few channels to wait for: two a multiprocessor.
        found = 2 * MULTIPROCESSORS // (blocks(m, 128) * blocks(n, MOST_COLUMNS))
        return max(min(found, k // SHORTEST_PART), 1)
    if call.op.name == "conv2d_weight_grad" and not is_one(call.args[0].strides[1]):
        # Elements of an image whose channels are far apart are loaded one by one, not ahead: programs wait for them.
        found = max(found, min(waiting(m, n, k, count, of, tf32), k // SHORTEST_PART))
    return found


def _plain(sizes: Sequence[Any], strides: Sequence[Any]) -> list[Coordinate]:
    return [Coordinate("e", size, stride, "") for size, stride in zip(sizes, strides, strict=True)]


def _axes(kernel: Kernel, access: Access) -> list[tuple[Any, Any]]:
    return [(axis.size, stride) for axis, stride in zip(kernel.axes, access.strides, strict=True)]


def _may_follow(kernel: Kernel, result: Buffer, call: ExternCall) -> str | None:
    """Why a pointwise kernel can't be computed on a product's tiles; None if it can."""
    loads = loads_of(kernel)
    own = [e.access for e in loads if e.access.buffer is result]
    if not own:
        return "it does not read the result by itself"
    if any(a != own[0] for a in own[1:]) or not is_zero(own[0].offset):
        return "it reads several elements of the result at a point"
    coordinates = [Coordinate("e", size, stride, "") for size, stride in coordinate_extents(call)]
    pieces = pieces_of(_axes(kernel, own[0]), coordinates)
    if pieces is None:
        return "its points are not the elements of the result"
    if any(not is_one(a.size) and is_zero(s) for a, s in zip(kernel.axes, own[0].strides, strict=True)):
        return "it reads the result several times"
    others = {e.access.buffer for e in loads if e.access.buffer is not result and _is_large(kernel, e.access)}
    others = {b for b in others if b.kind != "random"}
    if len(others) > MOST_LOADS or len(kernel.stores) > MOST_STORES:
        return "it has too many operands for the registers"
    moved = [b.dtype.itemsize for b in others] + [s.access.buffer.dtype.itemsize for s in kernel.stores]
    if sum(moved) > MOST_MOVES * max(4, result.dtype.itemsize):
        return f"it moves {sum(moved)} bytes for each element"
    try:
        writer = TileWriter(kernel, pieces, coordinates, Pointers({}), Sizes(), "", bindings=Hints())
        writer.store_all({id(e): "acc" for e in loads if e.access.buffer is result})
    except UnsupportedError as error:
        return str(error)
    return None


def _is_large(kernel: Kernel, access: Access) -> bool:
    return all(is_one(a.size) or not is_zero(s) for a, s in zip(kernel.axes, access.strides, strict=True))


def _may_load(kernel: Kernel, view: View, call: ExternCall, position: int) -> bool:
    """Whether a kernel that makes an operand of a product is cheap enough to run on each block that is loaded."""
    m, n, _, _ = (estimate(s) for s in extents(call))
    config = fit(m, n, 64, view.buffer.dtype)
    rereads = blocks(n, config.block_n) if position == 0 else blocks(m, config.block_m)
    if call.op.name.startswith("conv2d"):  # pixels are read once a place of the kernel as well
        rereads *= estimate(product(call.args[1].shape[2:])) if call.op.name != "conv2d_weight_grad" else 1
    if rereads > REREADS or not _is_cheap(kernel, view):
        return False
    read = {e.access for e in loads_of(kernel) if _is_large(kernel, e.access)}
    return sum(a.buffer.dtype.itemsize for a in read) <= 2 * view.buffer.dtype.itemsize


def _is_cheap(kernel: Kernel, view: View, draws: bool = False) -> bool:
    """Whether a kernel makes a whole operand, point by point, in a few instructions; `draws`: of random numbers too."""
    if view.buffer.kind != "temporary" or len(kernel.stores) != 1 or any(a.reduction for a in kernel.axes):
        return False
    (store,) = kernel.stores
    if not is_zero(view.offset) or not is_zero(store.access.offset):
        return False
    exprs = post_order([store.value])
    if not draws and any(isinstance(e, Load) and e.access.buffer.kind == "random" for e in exprs):
        return False
    instructions = [e for e in exprs if isinstance(e, Compute)]
    costly = EXPENSIVE - {"div"} if draws else EXPENSIVE  # a dropout divides by what it keeps
    if len(instructions) > CHEAP or any(e.instruction in costly or e.dtype is dtypes.float64 for e in instructions):
        return False
    coordinates = distinct(_plain(view.shape, view.strides))
    pieces = pieces_of(_axes(kernel, store.access), coordinates)
    if pieces is None:
        return False
    try:
        TileWriter(kernel, pieces, coordinates, Pointers({}), Sizes(), "", bindings=Hints()).value(store.value, {})
    except UnsupportedError:
        return False
    return True


def _factor_positions(call: ExternCall) -> list[int]:
    """Where a pass of attention takes its mask and the factors of its dropout."""
    count = len(call.args)
    return [i for i in (count - 4, count - 3) if isinstance(call.args[i], View)]


def pointwise_part(kernel: Kernel, result: Buffer) -> tuple[Kernel, Kernel | None] | None:
    """The part of a kernel that is made of `result` without folds, and the rest, which reads what the first part stores
    instead of `result`; None if there are no such parts."""
    folds: set[int] = set()
    follows: set[int] = set()
    for expr in kernel.exprs():
        if isinstance(expr, Reduce) or any(id(o) in folds for o in expr.operands()):
            folds.add(id(expr))
        own = isinstance(expr, Load) and expr.access.buffer is result
        if own or any(id(o) in follows for o in expr.operands()):
            follows.add(id(expr))
    first = [
        s for s in kernel.stores if id(s.value) in follows and id(s.value) not in folds and _is_large(kernel, s.access)
    ]
    others = [s for s in kernel.stores if not any(s is f for f in first)]
    if not first:
        return None
    inside = replace_stores(kernel, first, tuple(replace(a, reduction=False) for a in kernel.axes))
    if not others:
        return inside, None
    stored = {id(s.value): s.access for s in first}

    def read_back(expr: Expr) -> Expr | None:
        access = stored.get(id(expr))
        if access is None:
            return None
        load = Load(access)
        return load if load.dtype is expr.dtype else Compute("cast", (load,), expr.dtype)

    rebuild = rebuilder(read_back)
    rest = replace_stores(kernel, [Store(s.access, rebuild(s.value)) for s in others], kernel.axes)
    if any(e.access.buffer is result for e in loads_of(rest)):
        return None
    overwritten = set(inside.writes()) & set(kernel.reads())
    return None if overwritten & set(rest.reads()) else (inside, rest)


def replace_stores(kernel: Kernel, stores: list[Store], axes: tuple[Axis, ...]) -> Kernel:
    """A part of a kernel, with the nodes that it computes."""
    computed = {id(e.node) for e in post_order(s.value for s in stores) if isinstance(e, Compute | Reduce)}
    nodes: list[Node] = [n for n in kernel.nodes if id(n) in computed] or list(kernel.nodes)
    return Kernel(kernel.name, axes, stores, nodes, list(kernel.reasons))
