"""Native reads and writes at places that index tensors name: index, gather, scatter, index_add and the like.

All of them are one loop nest over a space of points. At each point one operand lies at an affine place, and the other,
which is moved, at an affine place plus each index times a stride. Dimensions along which no index varies are rows, and
go by whole vectors. Reads are shared over threads by any dimension; writes by one that is not indexed, so that no two
threads write to one element and sums are always in the same order.

An index out of range stops the run before the next step: see Function.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from graphtorch.ir.graph import Value
from graphtorch.lowering.cpu.assembly import BITS, Val, const
from graphtorch.lowering.cpu.calls import CallBuilder, Target, emitter
from graphtorch.lowering.cpu.elements import MEMORY, from_memory, to_memory
from graphtorch.lowering.cpu.emitter import emit_kernel
from graphtorch.lowering.cpu.expansion import SCRATCH
from graphtorch.lowering.cpu.function import Function
from graphtorch.lowering.cpu.instructions import extremum, identity
from graphtorch.lowering.cpu.movement import filled, whole_copy
from graphtorch.lowering.cpu.nest import estimate
from graphtorch.lowering.kernel import (
    Access,
    Axis,
    Buffer,
    Compute,
    Constant,
    Expr,
    ExternCall,
    Kernel,
    Load,
    Store,
    View,
)
from graphtorch.schedule.indexing import product, row_major
from graphtorch.tensor import dtypes
from graphtorch.tensor.dtypes import dtype
from graphtorch.tensor.symint import same_size
from graphtorch.tensor.type import TensorType

OUTSIDE = "index {} is out of bounds for dimension %d with size {}"
_INDEX = (dtypes.int64, dtypes.int32, dtypes.int16, dtypes.int8)

Strides = tuple[Any, ...]


class Place(NamedTuple):
    """Where an operand lies at a point: `buffer[offset + sum(strides * point)]`."""

    buffer: Buffer
    offset: Any
    strides: Strides


class Index(NamedTuple):
    """An index tensor: a position in a dimension of `size`, whose stride in the moved operand is `step`."""

    place: Place
    size: Any
    step: Any
    negative: bool  # counts from the end


@dataclass
class Move:
    """What happens at each point of a space.

    combine     "load": the plain operand is the result, read at indexed places; "store", "sum", "prod", "amax",
                "amin": the moved operand is the result, written to
    plain       the operand at affine places, or a number
    """

    space: tuple[Any, ...]
    moved: Place
    plain: Place | int | float
    indices: list[Index]
    combine: str
    of: dtype


def emit_move(move: Move, target: Target, failures: Sequence[str], error: type[Exception]) -> Function | None:
    """The function; `failures` has a message an index."""
    if any(i.place.buffer.dtype not in _INDEX for i in move.indices) or move.of not in MEMORY:
        return None
    if move.combine not in ("load", "store") and move.of in (dtypes.float16, dtypes.bfloat16):
        return None  # sums of half precision are kept in float32
    function = _Emitter(_merged(move), target).run()
    function.failures, function.error = tuple(failures), error
    return function


def _merged(move: Move) -> Move:
    """The same with neighbouring dimensions merged where every operand allows it, and without those of size 1."""
    places = [move.moved, *(i.place for i in move.indices)]
    if isinstance(move.plain, Place):
        places.append(move.plain)
    kept: list[int] = []
    sizes: list[Any] = []
    for d, size in enumerate(move.space):
        if type(size) is int and size == 1:
            continue
        if kept and all(same_size(p.strides[kept[-1]], p.strides[d] * size) for p in places):
            kept[-1] = d
            sizes[-1] = sizes[-1] * size
        else:
            kept.append(d)
            sizes.append(size)

    def reduced(place: Place) -> Place:
        return place._replace(strides=tuple(place.strides[d] for d in kept))

    plain = reduced(move.plain) if isinstance(move.plain, Place) else move.plain
    indices = [i._replace(place=reduced(i.place)) for i in move.indices]
    return Move(tuple(sizes), reduced(move.moved), plain, indices, move.combine, move.of)


def _zero(stride: Any) -> bool:
    return type(stride) is int and stride == 0


class _Emitter:
    def __init__(self, move: Move, target: Target) -> None:
        self.move = move
        self.b = b = CallBuilder(target)
        self.kind = MEMORY[move.of]
        self.loads = move.combine == "load"
        pointers = [b.pointer(p.buffer, MEMORY[p.buffer.dtype]) for p in (move.moved, *(i.place for i in move.indices))]
        plain = b.pointer(move.plain.buffer, self.kind) if isinstance(move.plain, Place) else ""
        self.sizes = [b.size(s) for s in move.space]
        self.moved = self._base(pointers[0], move.moved)
        self.indices = [self._base(p, i.place) for p, i in zip(pointers[1:], move.indices, strict=True)]
        self.plain = self._base(plain, move.plain) if isinstance(move.plain, Place) else ""
        self.limits = [b.size(i.size) for i in move.indices]
        self.steps = [self._number(i.step) for i in move.indices]
        self.strides = {
            id(p): [self._number(s) for s in p.strides]
            for p in (move.moved, move.plain, *(i.place for i in move.indices))
            if isinstance(p, Place)
        }
        self.failure = b.failure()
        rank = len(move.space)
        varying = [d for d in range(rank) if any(not _zero(i.place.strides[d]) for i in move.indices)]
        self.depth = varying[-1] + 1 if varying else 0  # loops around the indices
        self.vector_indices = self.loads and self.depth == rank and rank > 0
        lanes = target.register_bits // (64 if self.vector_indices else BITS[self.kind])
        self.lanes = min(lanes, 64) if rank and (self.vector_indices or self.depth < rank) else 1
        self.parallel = self._choose(rank)

    def _number(self, x: Any) -> Val | int:
        return x if type(x) is int else self.b.size(x)

    def _base(self, pointer: str, place: Place) -> str:
        return self.b.offset(pointer, self.b.size(place.offset), MEMORY[place.buffer.dtype])

    def _choose(self, rank: int) -> int:
        """The dimension that threads share; -1 for none."""
        best, chosen = 1, -1
        for d in range(rank):
            if not self.loads and _zero(self.move.moved.strides[d]):
                continue
            size = min(estimate(self.move.space[d]), 64)
            if d == rank - 1 and self.lanes > 1:
                size //= self.lanes
            if size > best:
                best, chosen = size, d
        return chosen

    def run(self) -> Function:
        b, move = self.b, self.move
        self._open(0, [])
        extent = 1 if self.parallel < 0 else move.space[self.parallel]
        grain = self.lanes if self.parallel == len(move.space) - 1 and self.lanes > 1 else 1
        cost = 4 if self.depth < len(move.space) and move.combine in ("load", "store") else 8
        return b.function("places", extent, grain, product(move.space) * cost)

    def _bounds(self, d: int) -> tuple[Val, Val]:
        if d == self.parallel:
            return self.b.low, self.b.high
        return const(0, "i64"), self.sizes[d]

    def _open(self, d: int, point: list[Val]) -> None:
        last = len(self.move.space) - 1
        if d == self.depth:
            self._indexed(point)
            return
        if d == last and self.vector_indices:
            self._vectors(d, lambda at, mask: self._gathered(point, at, mask))
            return

        def body(at: Val, _: list[Val]) -> list[Val]:
            self._open(d + 1, [*point, at])
            return []

        self.b.loop(*self._bounds(d), 1, body)

    def _vectors(self, d: int, body: Callable[[Val, Val | None], None]) -> None:
        """A loop by vectors, the last one with a mask."""
        b, lanes = self.b, self.lanes
        first, end = self._bounds(d)
        whole = b.add(first, b.logic("and", b.sub(end, first), -lanes))

        def full(at: Val, _: list[Val]) -> list[Val]:
            body(at, None)
            return []

        def rest(at: Val, _: list[Val]) -> list[Val]:
            body(at, b.compare("slt", b.iota("i64", lanes), b.splat(b.sub(end, at), lanes)))
            return []

        b.loop(first, whole, lanes, full)
        b.loop(whole, end, lanes, rest)

    # -- places ------------------------------------------------------------------------------------------------------

    def _at(self, base: str, place: Place, point: Sequence[Val]) -> str:
        """The address at a point; coordinates that are missing count as 0."""
        b = self.b
        total: Val | None = None
        for at, stride in zip(point, self.strides[id(place)], strict=False):
            if isinstance(stride, int) and stride == 0:
                continue
            term = at if isinstance(stride, int) and stride == 1 else b.mul(at, stride)
            total = term if total is None else b.add(total, term)
        return base if total is None else b.offset(base, total, MEMORY[place.buffer.dtype])

    def _along(self, place: Place, d: int) -> tuple[bool, Val | None]:
        """(whether an operand varies along d, lane offsets unless its vectors are adjacent)."""
        stride = self.strides[id(place)][d]
        if isinstance(stride, int) and stride in (0, 1):
            return stride == 1, None
        if isinstance(stride, int):
            return True, self.b.iota("i64", self.lanes, stride)
        return True, self.b.mul(self.b.iota("i64", self.lanes), stride)

    def _load(self, base: str, place: Place, d: int, mask: Val | None) -> Val:
        """A vector along d as it lies in memory (one element where it does not vary)."""
        kind = MEMORY[place.buffer.dtype]
        varies, lanes = self._along(place, d)
        if not varies:
            return self.b.load(base, kind)
        if lanes is not None:
            return self.b.gather(base, lanes, kind, mask)
        return self.b.load(base, kind, self.lanes, mask)

    def _resolve(self, n: int, raw: Val, mask: Val | None) -> tuple[Val, Val]:
        """(position, whether it is in range) of an index; says so where it is not."""
        b, index = self.b, self.move.indices[n]
        at = raw if raw.kind == "i64" else b.convert("sext", raw, "i64")
        found = b.select(b.compare("slt", at, 0), b.add(at, self.limits[n]), at) if index.negative else at
        fine = b.compare("ult", found, self.limits[n])
        bad = b.logic("xor", fine, True)
        if mask is not None:
            bad = b.logic("and", bad, mask)
        if bad.lanes > 1:
            bits = b.emit(f"bitcast {bad.typed} to i{bad.lanes}", f"i{bad.lanes}")
            some = b.emit(f"icmp ne {bits.typed}, 0", "i1")
        else:
            some = bad

        def fail() -> None:
            which = at
            if at.lanes > 1:
                wide = bits if at.lanes == 64 else b.emit(f"zext {bits.typed} to i64", "i64")
                b.declarations.add("declare i64 @llvm.cttz.i64(i64, i1)")
                lane = b.emit(f"call i64 @llvm.cttz.i64({wide.typed}, i1 false)", "i64")
                which = b.emit(f"extractelement {at.typed}, {lane.typed}", "i64")
            b.store(const(n + 1, "i64"), self.failure)
            b.store(which, b.offset(self.failure, const(1, "i64"), "i64"))
            b.store(self.limits[n], b.offset(self.failure, const(2, "i64"), "i64"))

        b.when(some, fail)
        return found, fine

    # -- points ------------------------------------------------------------------------------------------------------

    def _gathered(self, point: list[Val], at: Val, mask: Val | None) -> None:
        """A vector along a dimension in which indices vary."""
        b, move, d = self.b, self.move, len(point)
        here = [*point, at]
        total: Val | None = None
        allowed = mask
        for n, index in enumerate(move.indices):
            raw = self._load(self._at(self.indices[n], index.place, here), index.place, d, mask)
            found, fine = self._resolve(n, raw, mask if raw.lanes > 1 else None)
            allowed = fine if allowed is None else b.logic("and", allowed, fine)
            term = b.mul(found, self.steps[n])
            total = term if total is None else b.add(total, term)
        assert total is not None
        assert allowed is not None
        varies, lanes = self._along(move.moved, d)
        if varies:
            total = b.add(total, b.iota("i64", self.lanes) if lanes is None else lanes)
        base = self._at(self.moved, move.moved, here)
        value = b.gather(base, b.splat(total, self.lanes), self.kind, b.splat(allowed, self.lanes))
        assert isinstance(move.plain, Place)
        self._put(value, self._at(self.plain, move.plain, here), move.plain, d, mask)

    def _put(self, value: Val, base: str, place: Place, d: int, mask: Val | None) -> None:
        b = self.b
        varies, lanes = self._along(place, d)
        assert varies
        value = b.splat(value, self.lanes)
        if lanes is None:
            b.store(value, base, mask)
        else:
            b.scatter(value, base, lanes, mask)

    def _indexed(self, point: list[Val]) -> None:
        """The indices of a point, and the row beneath it."""
        b, move = self.b, self.move
        base = self._at(self.moved, move.moved, point)
        allowed: Val | None = None
        for n, index in enumerate(move.indices):
            raw = b.load(self._at(self.indices[n], index.place, point), MEMORY[index.place.buffer.dtype])
            found, fine = self._resolve(n, raw, None)
            allowed = fine if allowed is None else b.logic("and", allowed, fine)
            base = b.offset(base, b.mul(found, self.steps[n]), self.kind)
        plain = self._at(self.plain, move.plain, point) if isinstance(move.plain, Place) else ""
        b.when(allowed or const(True, "i1"), lambda: self._row(len(point), base, plain))

    def _row(self, d: int, moved: str, plain: str) -> None:
        """The dimensions from d on, of a row at these addresses."""
        b, move = self.b, self.move
        if d == len(move.space):
            self._element(moved, plain)
            return
        if d == len(move.space) - 1:
            self._vectors(d, lambda at, mask: self._piece(d, moved, plain, at, mask))
            return

        def body(at: Val, _: list[Val]) -> list[Val]:
            point = [const(0, "i64")] * d + [at]
            further = self._at(plain, move.plain, point) if isinstance(move.plain, Place) else ""
            self._row(d + 1, self._at(moved, move.moved, point), further)
            return []

        b.loop(*self._bounds(d), 1, body)

    def _piece(self, d: int, moved: str, plain: str, at: Val, mask: Val | None) -> None:
        """A vector of a row."""
        move = self.move
        point = [const(0, "i64")] * d + [at]
        moved = self._at(moved, move.moved, point)
        if isinstance(move.plain, Place):
            plain = self._at(plain, move.plain, point)
            if self.loads:
                self._put(self._load(moved, move.moved, d, mask), plain, move.plain, d, mask)
                return
            value = self._load(plain, move.plain, d, mask)
        else:
            value = self._constant(move.plain)
        if move.combine != "store":
            value = self._combine(self._load(moved, move.moved, d, mask), value)
        self._put(value, moved, move.moved, d, mask)

    def _element(self, moved: str, plain: str) -> None:
        b, move = self.b, self.move
        if self.loads:
            b.store(b.load(moved, self.kind), plain)
            return
        value = b.load(plain, self.kind) if isinstance(move.plain, Place) else self._constant(move.plain)
        if move.combine != "store":
            value = self._combine(b.load(moved, self.kind), value)
        b.store(value, moved)

    def _constant(self, number: float) -> Val:
        b, of = self.b, self.move.of
        register = {"half": "float", "i16": "float" if of is dtypes.bfloat16 else "i16"}.get(self.kind, self.kind)
        value = number if of.is_floating_point or of is dtypes.bool_ else int(number)
        return to_memory(b, const(bool(value), "i1") if of is dtypes.bool_ else const(value, register), of)

    def _combine(self, old: Val, new: Val) -> Val:
        """Fold an element into the result; both as they lie in memory."""
        b, of, combine = self.b, self.move.of, self.move.combine
        x, y = b.match(from_memory(b, old, of), from_memory(b, new, of))
        if combine in ("amax", "amin"):
            return to_memory(b, extremum(b, x, y, combine == "amax", of), of)
        if of is dtypes.bool_:
            return to_memory(b, b.logic("or" if combine == "sum" else "and", x, y), of)
        return to_memory(b, b.add(x, y) if combine == "sum" else b.mul(x, y), of)


# -- operators --------------------------------------------------------------------------------------------------------


def _one_dimension(view: View) -> View:
    """A view of no dimension as one of a single element."""
    return view if view.shape else View(view.buffer, (1,), (1,), view.offset)


def _place(view: View) -> Place:
    return Place(view.buffer, view.offset, view.strides)


def _replaced(strides: Strides, dim: int, by: Any) -> Strides:
    return (*strides[:dim], by, *strides[dim + 1 :])


def _result(out: Buffer) -> View:
    return _one_dimension(View(out, out.shape, row_major(out.shape)))


def _vector_index(index: View, dim: int, rank: int, size: Any, step: Any, negative: bool) -> Index:
    """A vector of positions along one dimension of the space."""
    strides = _replaced((0,) * rank, dim, index.strides[0] if index.shape else 0)
    return Index(Place(index.buffer, index.offset, strides), size, step, negative)


def _copied(call: ExternCall, source: View, target: Target) -> Function:
    """The result as a copy of an operand, which is then written to."""
    out = call.outputs[0]
    assert out is not None
    return emit_kernel(whole_copy(source, out), target.register_bits, target.fma)


def _temporary(name: str, d: dtype, shape: tuple[Any, ...]) -> Buffer:
    """Scratch memory of one call."""
    return Buffer(name, d, shape, SCRATCH, Value(TensorType(d, shape), name))


def _whole(buffer: Buffer) -> View:
    return View(buffer, buffer.shape, row_major(buffer.shape))


Writing = Callable[[ExternCall, Target], "list[Function] | None"]


def sums(name: str, source: int) -> Callable[[Writing], Writing]:
    """Register the emitter of an operator that adds up the operand at position `source`. Half precision is added up in
    float32 and rounded at the end, as eager execution does it."""

    def register(function: Writing) -> Writing:
        @emitter(name)
        def emit(call: ExternCall, target: Target) -> list[Function] | None:
            out, given = call.outputs[0], call.args[source]
            if out is None or out.dtype not in (dtypes.float16, dtypes.bfloat16) or not isinstance(given, View):
                return function(call, target)
            if not all(type(s) is int for s in (*out.shape, *given.shape)):
                return None
            wide = _temporary(f"{call.name}_given", dtypes.float32, tuple(given.shape))
            total = _temporary(f"{call.name}_total", dtypes.float32, out.shape)
            args = (*call.args[:source], _whole(wide), *call.args[source + 1 :])
            made = function(dataclasses.replace(call, args=args, outputs=(total,)), target)
            if made is None:
                return None
            copies = [
                emit_kernel(kernel, target.register_bits, target.fma)
                for kernel in (whole_copy(given, wide), whole_copy(_whole(total), out))
            ]
            return [copies[0], *made, copies[1]]

        return function

    return register


def _written(call: ExternCall, target: Target, moves: Sequence[Function | None]) -> list[Function] | None:
    """A copy of the first operand, then writes."""
    if any(m is None for m in moves) or call.outputs[0] is None or call.outputs[0].dtype not in MEMORY:
        return None
    return [_copied(call, call.args[0], target), *(m for m in moves if m is not None)]


@emitter("index_select")
def index_select(call: ExternCall, target: Target) -> Function | None:
    source, dim, index = call.args
    out = call.outputs[0]
    if out is None or out.dtype not in MEMORY or not source.shape:  # of one element, all positions are checked
        return None
    source, result = _one_dimension(source), _result(out)
    rank = len(result.shape)
    at = _vector_index(index, dim, rank, source.shape[dim], source.strides[dim], False)
    moved = Place(source.buffer, source.offset, _replaced(source.strides, dim, 0))
    move = Move(result.shape, moved, _place(result), [at], "load", out.dtype)
    return emit_move(move, target, ["index out of range in self"], IndexError)


@emitter("gather")
def gather(call: ExternCall, target: Target) -> Function | None:
    source, dim, index, _ = call.args
    out = call.outputs[0]
    if out is None or out.dtype not in MEMORY:
        return None
    source, index, result = _one_dimension(source), _one_dimension(index), _result(out)
    at = Index(_place(index), source.shape[dim], source.strides[dim], False)
    moved = Place(source.buffer, source.offset, _replaced(source.strides, dim, 0))
    move = Move(result.shape, moved, _place(result), [at], "load", out.dtype)
    return emit_move(move, target, [OUTSIDE % dim], RuntimeError)


def _scatter(call: ExternCall, target: Target, dim: int, index: View, src: Any, combine: str) -> Function | None:
    out = call.outputs[0]
    if out is None or out.dtype not in MEMORY:
        return None
    result, index = _result(out), _one_dimension(index)
    plain = _plain(src, len(index.shape))
    if plain is None:
        return None
    at = Index(_place(index), result.shape[dim], result.strides[dim], False)
    moved = Place(out, 0, _replaced(result.strides, dim, 0))
    move = Move(index.shape, moved, plain, [at], combine, out.dtype)
    return emit_move(move, target, [OUTSIDE % dim], RuntimeError)


def _plain(value: Any, rank: int) -> Place | int | float | None:
    """An operand or a number; one of no dimension stands for every element."""
    if isinstance(value, View):
        if value.buffer.value.type.is_number:
            return None
        return _place(value) if value.shape else Place(value.buffer, value.offset, (0,) * rank)
    return value if isinstance(value, int | float) else None


@emitter("scatter")
def scatter(call: ExternCall, target: Target) -> list[Function] | None:
    _, dim, index, src = call.args
    return _written(call, target, [_scatter(call, target, dim, index, src, "store")])


@sums("scatter_add", 3)
def scatter_add(call: ExternCall, target: Target) -> list[Function] | None:
    _, dim, index, src = call.args
    return _written(call, target, [_scatter(call, target, dim, index, src, "sum")])


@sums("scatter_reduce", 3)
def scatter_reduce(call: ExternCall, target: Target) -> list[Function] | None:
    _, dim, index, src, reduce, include_self = call.args
    out = call.outputs[0]
    if out is None or out.dtype not in MEMORY:
        return None
    combine = "sum" if reduce == "mean" else reduce
    moves = []
    if not include_self:
        start = identity({"amax": "max", "amin": "min"}.get(combine, combine), out.dtype)
        moves.append(_scatter(call, target, dim, index, start, "store"))
    moves.append(_scatter(call, target, dim, index, src, combine))
    if reduce != "mean":
        return _written(call, target, moves)
    if not all(type(s) is int for s in out.shape) or out.dtype is dtypes.bool_:
        return None
    count = _temporary(f"{call.name}_count", dtypes.int64, out.shape)
    counted = _scatter(dataclasses.replace(call, outputs=(count,)), target, dim, index, 1, "sum")
    ones = emit_kernel(filled(count, int(include_self)), target.register_bits, target.fma)
    mean = emit_kernel(_mean(out, count), target.register_bits, target.fma)
    added = _written(call, target, moves)
    return None if added is None or counted is None else [*added, ones, counted, mean]


def _mean(out: Buffer, count: Buffer) -> Kernel:
    """Sums by how many elements they have, at least one; of integers rounded down."""
    place = Access(out, 0, (1,))
    elements: Expr = Load(Access(count, 0, (1,)))
    elements = Compute("maximum", (elements, Constant(1, dtypes.int64)), dtypes.int64)
    total: Expr = Load(place)
    if out.dtype.is_floating_point:
        value: Expr = Compute("div", (total, Compute("cast", (elements,), out.dtype)), out.dtype)
    else:
        wide = Compute("cast", (total,), dtypes.int64)
        value = Compute("cast", (Compute("floor_divide", (wide, elements), dtypes.int64),), out.dtype)
    return Kernel(f"mean_{out.name}", (Axis("i0", product(out.shape)),), [Store(place, value)])


def _into_rows(call: ExternCall, target: Target, value: Any, combine: str, negative: bool) -> Move | None:
    """Writes of slices to the positions of one dimension."""
    _, dim, index = call.args[:3]
    out = call.outputs[0]
    if out is None or out.dtype not in MEMORY:
        return None
    result = _result(out)
    rank = len(result.shape)
    plain = _plain(value, rank)
    if plain is None:
        return None
    count = index.shape[0] if index.shape else 1
    if isinstance(value, View) and value.shape:
        space = value.shape
    else:
        space = (*result.shape[:dim], count, *result.shape[dim + 1 :])
    at = _vector_index(index, dim, rank, result.shape[dim], result.strides[dim], negative)
    return Move(space, Place(out, 0, _replaced(result.strides, dim, 0)), plain, [at], combine, out.dtype)


@sums("index_add", 3)
def index_add(call: ExternCall, target: Target) -> list[Function] | None:
    _, dim, _, source, alpha = call.args
    if isinstance(alpha, View) or alpha != 1:
        return None
    out = call.outputs[0]
    if out is not None and any(type(n) is int and n == 0 for n in out.shape):
        return None  # no position is looked at
    move = _into_rows(call, target, source, "sum", False)
    if move is None:
        return None
    several = len(move.moved.strides) > 1
    message = OUTSIDE % dim if several else "index out of range in self"
    return _written(call, target, [emit_move(move, target, [message], RuntimeError if several else IndexError)])


@emitter("index_copy")
def index_copy(call: ExternCall, target: Target) -> list[Function] | None:
    move = _into_rows(call, target, call.args[3], "store", True)
    if move is None:
        return None
    message = "index_copy_(): " + OUTSIDE % call.args[1]
    return _written(call, target, [emit_move(move, target, [message], IndexError)])


@emitter("index_fill")
def index_fill(call: ExternCall, target: Target) -> list[Function] | None:
    value, out = call.args[3], call.outputs[0]
    if isinstance(value, View) and (out is None or value.buffer.dtype is not out.dtype):
        return None
    move = _into_rows(call, target, value, "store", True)
    if move is None:
        return None
    return _written(call, target, [emit_move(move, target, [OUTSIDE % call.args[1]], IndexError)])


def _advanced(
    view: View, indices: Sequence[View | None], space: tuple[Any, ...]
) -> tuple[Place, list[Index], list[str]] | None:
    """`view[indices]` over the space of the result: the affine part, the indices and their messages."""
    places = [i for i, at in enumerate(indices) if at is not None]
    given = [(i, at) for i, at in enumerate(indices) if at is not None]
    common = len(space) - (len(view.shape) - len(places))
    first = places[0] if places[-1] - places[0] == len(places) - 1 else 0
    kept = [i for i in range(len(view.shape)) if i not in places]
    strides = [view.strides[i] for i in kept]
    affine = Place(view.buffer, view.offset, (*strides[:first], *(0,) * common, *strides[first:]))
    found, messages = [], []
    for i, at in given:
        own = _broadcast(at, space[first : first + common])
        if own is None:
            return None
        place = Place(at.buffer, at.offset, (*(0,) * first, *own, *(0,) * (len(kept) - first)))
        found.append(Index(place, view.shape[i], view.strides[i], True))
        messages.append(OUTSIDE % i)
    return affine, found, messages


def _broadcast(view: View, shape: Sequence[Any]) -> Strides | None:
    """Strides of a view over a shape that it broadcasts to."""
    extra = len(shape) - len(view.shape)
    found: list[Any] = [0] * extra
    for own, size, stride in zip(view.shape, shape[extra:], view.strides, strict=True):
        if type(own) is int and own == 1:
            found.append(0)
        elif own is size or same_size(own, size):
            found.append(stride)
        else:
            return None
    return tuple(found)


@emitter("index")
def index(call: ExternCall, target: Target) -> Function | None:
    source, indices = call.args
    out = call.outputs[0]
    if out is None or out.dtype not in MEMORY or not any(i is not None for i in indices):
        return None
    result = View(out, out.shape, row_major(out.shape))
    read = _advanced(source, indices, out.shape)
    if read is None:
        return None
    move = Move(out.shape, read[0], _place(result), read[1], "load", out.dtype)
    return emit_move(move, target, read[2], IndexError)


@sums("index_put", 2)
def index_put(call: ExternCall, target: Target) -> list[Function] | None:
    source, indices, values, accumulate = call.args
    out = call.outputs[0]
    if out is None or out.dtype not in MEMORY or not any(i is not None for i in indices):
        return None
    places = [i for i, at in enumerate(indices) if at is not None]
    common = _common([i.shape for i in indices if i is not None])
    if common is None:
        return None
    rest = [n for i, n in enumerate(source.shape) if i not in places]
    first = places[0] if places[-1] - places[0] == len(places) - 1 else 0
    space = (*rest[:first], *common, *rest[first:])
    written = _advanced(View(out, out.shape, row_major(out.shape)), indices, space)
    strides = _broadcast(values, space)
    if written is None or strides is None:
        return None
    plain = Place(values.buffer, values.offset, strides)
    move = Move(space, written[0], plain, written[1], "sum" if accumulate else "store", out.dtype)
    return _written(call, target, [emit_move(move, target, written[2], IndexError)])


def _common(shapes: Sequence[Sequence[Any]]) -> tuple[Any, ...] | None:
    """The shape that index tensors broadcast to; None where symbolic sizes leave it open."""
    rank = max(len(s) for s in shapes)
    found: list[Any] = []
    for d in range(rank):
        sizes = [s[d - rank + len(s)] for s in shapes if d - rank + len(s) >= 0]
        wide = [s for s in sizes if not (type(s) is int and s == 1)] or [1]
        if any(s is not wide[0] and not same_size(s, wide[0]) for s in wide):
            return None
        found.append(wide[0])
    return tuple(found)
