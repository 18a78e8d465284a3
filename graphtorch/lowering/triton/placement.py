"""Where the elements of a tile lie for a kernel that was not written for it.

A pointwise kernel runs over axes; a matrix product has tiles with coordinates of its own (row and column; image,
channel and pixel). Both count the same elements of one buffer as mixed-radix numbers: each axis is made of pieces of
coordinates (quotients and remainders), and every access of the kernel is an affine function of pieces. `TileWriter`
writes the kernel's expressions for a tile.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from graphtorch.lowering.binding import concrete
from graphtorch.lowering.kernel import Access, Buffer, Expr, Index, Kernel, Load, post_order
from graphtorch.lowering.triton.codegen import Expressions, Segment
from graphtorch.lowering.triton.instructions import convert, memory, register
from graphtorch.lowering.triton.precision import rounded_to_half
from graphtorch.lowering.triton.random import Draws
from graphtorch.lowering.triton.sizes import Sizes
from graphtorch.lowering.triton.tiling import is_one, is_zero
from graphtorch.schedule.indexing import estimate, exact_quotient, product
from graphtorch.tensor import dtypes
from graphtorch.tensor.symint import same_size

WHOLE = "whole"  # the mask of a coordinate whose bounds only the whole tile's mask knows


class Coordinate(NamedTuple):
    """One coordinate of a tile's elements.

    text     its index, as source that stands in products
    size     its extent
    stride   its step in the buffer that tile and kernel share, in elements
    mask     which indices are inside, of the index's own shape; "" if all are, WHOLE if the whole tile's mask knows
    """

    text: str
    size: Any
    stride: Any
    mask: str


class Piece(NamedTuple):
    """A digit of a coordinate that is a digit of an axis: `coordinate // divisor % size`, times `weight`."""

    coordinate: int
    divisor: Any
    size: Any
    weight: Any
    top: bool  # the coordinate's most significant digit


def pieces_of(axes: Sequence[tuple[Any, Any]], coordinates: Sequence[Coordinate]) -> list[list[Piece]] | None:
    """Each axis (its size, and its stride in the shared buffer) as pieces of coordinates, most significant first.

    Law: both must enumerate the whole buffer, so from the innermost digit outwards every stride is the product of the
    sizes beneath it; None if they do not, or where a digit of one is no whole number of the other's.
    """
    left = _by_stride(axes)
    right = _by_stride([(c.size, c.stride) for c in coordinates])
    if left is None or right is None:
        return None
    found: list[list[Piece]] = [[] for _ in axes]
    axis = coordinate = -1
    axis_rest: Any = 1  # of the current digit groups, what is not yet matched
    coordinate_rest: Any = 1
    weight: Any = 1
    divisor: Any = 1
    while True:
        if is_one(axis_rest):
            if not left:
                break
            axis, axis_rest = left.pop()
            weight = 1
        if is_one(coordinate_rest):
            if not right:
                return None
            coordinate, coordinate_rest = right.pop()
            divisor = 1
        size = _common(axis_rest, coordinate_rest)
        if size is None:
            return None
        axis_rest = exact_quotient(axis_rest, size)
        coordinate_rest = exact_quotient(coordinate_rest, size)
        found[axis].insert(0, Piece(coordinate, divisor, size, weight, is_one(coordinate_rest)))
        weight, divisor = weight * size, divisor * size
    return found if not right and is_one(coordinate_rest) else None


def _by_stride(digits: Sequence[tuple[Any, Any]]) -> list[tuple[int, Any]] | None:
    """(position, size) with the innermost last; None if strides are not those of a contiguous buffer."""
    kept = [(estimate(stride), i) for i, (size, stride) in enumerate(digits) if not is_one(size)]
    order = [i for _, i in sorted(kept, key=lambda k: -k[0])]
    step: Any = 1
    for i in reversed(order):
        size, stride = digits[i]
        if is_zero(size) or not same_size(stride, step):
            return None
        step = step * size
    return [(i, digits[i][0]) for i in order]


def _common(a: Any, b: Any) -> Any:
    """The smaller of two sizes if it divides the other."""
    if same_size(a, b) or exact_quotient(b, a) is not None:
        return a
    return b if exact_quotient(a, b) is not None else None


def distinct(coordinates: Iterable[Coordinate]) -> list[Coordinate]:
    """Those along which the buffer's elements differ: without dimensions that repeat."""
    return [c for c in coordinates if not is_zero(c.stride)]


class Pointers:
    """The pointer arguments of a function, one a buffer, and the random numbers that it draws."""

    def __init__(self, named: Mapping[str, Buffer]) -> None:
        self.named = dict(named)
        self.draws: dict[Draws, int] = {}

    def of(self, buffer: Buffer, prefix: str) -> str:
        for name, known in self.named.items():
            if known is buffer:
                return name
        name = f"{prefix}{sum(n.startswith(prefix) for n in self.named)}"
        self.named[name] = buffer
        return name


class TileWriter(Expressions):
    """Writes a pointwise kernel's expressions for a tile with given coordinates.

    whole      the mask of the tile; "" if all of it is inside
    first      the number of the first variable
    bindings   values for the symbols of sizes
    """

    def __init__(
        self,
        kernel: Kernel,
        pieces: Sequence[Sequence[Piece]],
        coordinates: Sequence[Coordinate],
        pointers: Pointers,
        sizes: Sizes,
        whole: str,
        first: int = 0,
        bindings: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(2)
        self.bindings = {} if bindings is None else bindings
        self.kernel = kernel
        self.coarse = rounded_to_half(kernel.exprs(), kernel.stores)
        self.pieces = pieces
        self.coordinates = coordinates
        self.pointers = pointers
        self.sizes = sizes
        self.whole = whole
        self.count = first
        self.segment = Segment("")

    def value(self, expr: Expr, known: Mapping[int, str]) -> str:
        """The variable (or number) that holds an expression; `known` are expressions that have one already."""
        self.names.update(known)
        self._emit(self.segment, post_order([expr], frozenset(self.names)))
        return self._value(expr)

    def store_all(self, known: Mapping[int, str]) -> list[str]:
        """The lines that compute and store everything."""
        values = [self.value(store.value, known) for store in self.kernel.stores]
        for store, value in zip(self.kernel.stores, values, strict=True):
            of = store.access.buffer.dtype
            if store.value.dtype is not of:
                value = convert(value, store.value.dtype, of)
                value = f"({value})" if " " in value else value
            if memory(of) != register(of):
                value = f"{value}.to({memory(of)})"
            where, _ = self._where(store.access.offset, store.access.strides)
            if any(is_one(c.size) for c in self.coordinates):
                where += " + tl.zeros([BLOCK_M, BLOCK_N], tl.int32)"  # a coordinate of one index steps nowhere
            pointer = self.pointers.of(store.access.buffer, "out")
            mask = f", mask={self.whole}" if self.whole else ""
            self.segment.add(f"tl.store({pointer} + {where}, {value}{mask})")
        return self.segment.lines

    def _load(self, access: Access) -> str:
        of = access.buffer.dtype
        pointer = self.pointers.of(access.buffer, "in")
        where, used = self._where(access.offset, access.strides)
        address = pointer if where == "0" else f"{pointer} + {where}"
        masks = dict.fromkeys(self.coordinates[c].mask for c in sorted(used))
        mask = self.whole if WHOLE in masks else " & ".join(filter(None, masks))
        text = f"tl.load({address}, mask={mask})" if mask else f"tl.load({address})"
        if of is dtypes.bool_:
            return f"{text} != 0"
        return text if memory(of) == register(of) else f"{text}.to({register(of)})"

    def _draw(self, access: Access, draws: Draws) -> str:
        number = self.pointers.draws.setdefault(draws, len(self.pointers.draws))
        state = self.pointers.of(draws.state, "state")
        base = f"base{number}"
        self.sizes.numbers[base] = draws.base(self.bindings)
        threads = str(draws.threads({})) if type(product(draws.shape)) is int else f"threads{number}"
        if not threads.isdigit():
            self.sizes.numbers[threads] = draws.threads(self.bindings)
        at, used = self._where(access.offset, access.strides)
        return draws.element(at if used else f"tl.full([1, 1], {at}, tl.int32)", state, base, threads, self.bindings)

    def _index(self, expr: Index) -> str:
        text, used = self._where(expr.offset, expr.strides)
        if not used:
            text = f"tl.full([1, 1], {text}, tl.int32)"
        return f"({text}) != 0" if expr.dtype is dtypes.bool_ else f"({text}).to({register(expr.dtype)})"

    def _where(self, offset: Any, strides: Sequence[Any]) -> tuple[str, set[int]]:
        """An affine function of the kernel's axes, and the coordinates that it varies along."""
        digits: dict[int, list[tuple[Any, Any, Any, bool]]] = {}  # divisor, size, step, top
        for stride, pieces in zip(strides, self.pieces, strict=True):
            for piece in pieces:
                step = stride * piece.weight
                digits.setdefault(piece.coordinate, []).append((piece.divisor, piece.size, step, piece.top))
        terms: list[str] = []
        used: set[int] = set()
        for c in sorted(digits):
            for divisor, size, step, top in _merged(digits[c]):
                if is_zero(step):
                    continue
                used.add(c)
                text = self.coordinates[c].text
                if not is_one(divisor):
                    text += f" // {self.sizes.factor(divisor)}"
                if not top:
                    text += f" % {self.sizes.factor(size)}"
                if not is_one(step):
                    text = f"({text})" if "/" in text or "%" in text else text
                    text = f"{self.sizes.factor(step)} * {text}"
                terms.append(text)
        if not terms:
            return self.sizes.text(offset), used
        if not is_zero(offset):
            terms.append(self.sizes.factor(offset))
        return " + ".join(terms).replace("+ -", "- "), used


def _merged(digits: Iterable[tuple[Any, Any, Any, bool]]) -> list[tuple[Any, Any, Any, bool]]:
    """Neighbouring digits of one coordinate that step as one number are one."""
    merged: list[tuple[Any, Any, Any, bool]] = []
    for digit in sorted(digits, key=lambda d: -estimate(d[0])):
        if merged:
            above = merged[-1]
            divisor, size, step, _ = digit
            adjacent = same_size(above[0], divisor * size)
            if adjacent and same_size(above[2], step * size):
                merged[-1] = (divisor, above[1] * size, step, above[3])
                continue
        merged.append(digit)
    return merged


def largest_offset(kernel: Kernel, bindings: Mapping[str, int]) -> int:
    """The largest offset that a kernel reads or writes at."""
    exprs = kernel.exprs()
    accesses = [e.access for e in exprs if isinstance(e, Load)] + [s.access for s in kernel.stores]
    most = 0
    for access in accesses:
        end = abs(concrete(access.offset, bindings))
        for axis, stride in zip(kernel.axes, access.strides, strict=True):
            end += concrete(axis.size, bindings) * abs(concrete(stride, bindings))
        most = max(most, int(end))
    return most
