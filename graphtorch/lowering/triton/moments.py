"""Means and variances over pixels, begun on the tiles of the convolution that stores these pixels: batch norms.

A batch norm reads its whole input for the mean, and again for the variance, before it reads it once more to normalise.
Here each tile of the convolution adds up its rows (pixels) in groups, and the squares of their distances from the
group's own mean. What a kernel sums over all pixels then comes of these, without a difference of large numbers
(Chan, Golub, LeVeque: Updating formulae and a pairwise algorithm for computing sample variances, 1979): for any m

    sum (x - m)^2  =  sum over groups of [ sum (x - mean of the group)^2 + rows * (mean of the group - m)^2 ]
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from graphtorch.ir.graph import Value
from graphtorch.lowering.kernel import (
    Access,
    Axis,
    Buffer,
    Compute,
    Constant,
    Expr,
    ExternCall,
    Index,
    Kernel,
    Load,
    Reduce,
    Schedule,
    Store,
)
from graphtorch.lowering.triton.bias import goes_through_rows
from graphtorch.lowering.triton.fused import FusedCall, RowSums, extents, result_shape
from graphtorch.lowering.triton.layout import ChannelsLast
from graphtorch.lowering.triton.shapes import DOT
from graphtorch.lowering.triton.splitting import Axes, Facts, copy_expressions, rebuild
from graphtorch.lowering.triton.tiling import is_one, is_zero, post_order
from graphtorch.schedule.indexing import estimate, exact_quotient, row_major
from graphtorch.schedule.report import describe
from graphtorch.tensor import dtypes
from graphtorch.tensor.symint import same_size
from graphtorch.tensor.type import TensorType

FEWEST = 1024  # pixels for which this pays
GROUPS = (64, 32)  # rows of a group: no tile has fewer


def begin_moments_in_convolutions(schedule: Schedule) -> Schedule:
    """The schedule with sums and sums of squares over pixels begun in the convolutions that make these."""
    made: dict[Buffer, _Image] = {}
    writers: dict[Buffer, int] = {}
    for i, step in enumerate(schedule.steps):
        for buffer in step.writes():
            writers[buffer] = writers.get(buffer, 0) + 1
        if isinstance(step, ExternCall) and (image := _image(step, i)) is not None:
            made[image.buffer] = image
    known = {b: image for b, image in made.items() if writers[b] == 1}
    if not known:
        return schedule
    steps: list[Kernel | ExternCall] = []
    lines: list[str] = []
    for step in schedule.steps:
        found = _Moments(step, known).cut() if type(step) is Kernel else None
        steps += [step] if found is None else found
        if found is not None:
            lines.append(f"{step.name} | sums over pixels are begun on the tiles of convolutions")
    if not lines:
        return schedule
    replaced = {image.at: image for image in known.values() if image.totals is not None}
    place = {id(schedule.steps[at]): image for at, image in replaced.items()}
    steps = [place[id(s)].call() if id(s) in place else s for s in steps]
    return replace(schedule, steps=steps, report=[*schedule.report, *lines])


@dataclass
class _Image:
    """What a convolution stores, and the buffers of what its tiles add up, once somebody wants them."""

    step: ExternCall
    at: int
    buffer: Buffer
    pixels: Any
    channels: int
    rows: int
    ragged: bool  # the last group may have fewer rows
    totals: Buffer | None = None
    squares: Buffer | None = None

    @property
    def groups(self) -> Any:
        return (self.pixels + self.rows - 1) // self.rows

    def _partial(self, what: str) -> Buffer:
        name = f"{self.buffer.name}_{what}"
        shape = (self.groups, self.channels)
        return Buffer(name, dtypes.float32, shape, "temporary", Value(TensorType(dtypes.float32, shape), name))

    def of_totals(self) -> Buffer:
        self.totals = self.totals or self._partial("sums")
        return self.totals

    def of_squares(self) -> Buffer:
        self.squares = self.squares or self._partial("squares")
        return self.squares

    def call(self) -> FusedCall:
        """The convolution that stores them too."""
        sums = RowSums(None, self.of_totals(), self.squares, self.rows, self.ragged)
        outputs = (self.buffer, *(b for b in (sums.totals, sums.squares) if b is not None))
        if isinstance(self.step, FusedCall):
            return replace(self.step, outputs=outputs, sums=sums)
        s = self.step
        return FusedCall(s.name, s.op, s.args, outputs, list(s.nodes), list(s.reasons), product=self.buffer, sums=sums)


def _image(step: ExternCall, at: int) -> _Image | None:
    """What a convolution stores, if its tiles could add it up."""
    out = step.outputs[0] if step.outputs else None
    if step.op.name != "conv2d" or out is None or not isinstance(out, ChannelsLast) or out.dtype not in DOT:
        return None
    if isinstance(step, FusedCall) and (step.epilogue is not None or step.splits > 1):
        return None
    if type(result_shape(step)[1]) is not int or not is_one(step.args[-1]):
        return None
    m, n = extents(step)[:2]
    rows = next((r for r in GROUPS if exact_quotient(m, r) is not None), None)
    return _Image(step, at, out, m, n, rows or GROUPS[0], rows is None) if estimate(m) >= FEWEST else None


class _Moments:
    """A kernel that sums over the pixels of such images while it is cut."""

    def __init__(self, kernel: Any, known: dict[Buffer, _Image]) -> None:
        self.kernel: Kernel = kernel
        self.known = known
        self.folded: Axes = frozenset()

    def cut(self) -> list[Kernel | ExternCall] | None:
        """The kernel of what does not vary from pixel to pixel, which sums over groups, and the rest; None where some
        fold is of another kind."""
        k = self.kernel
        reduces = [e for e in post_order(s.value for s in k.stores) if isinstance(e, Reduce)]
        if not reduces:
            return None
        self.facts = Facts(k)
        self.folded = self.facts.folded(reduces[0])
        images = [self._image_of(r) for r in reduces]
        if any(image is None for image in images):
            return None
        groups = [image.groups for image in images if image is not None]
        if any(not same_size(g, groups[0]) for g in groups):
            return None
        small = [s for s in k.stores if not self._goes_along(s.value) and not self._along(s.access)]
        large = [s for s in k.stores if not any(s is other for other in small)]
        stores, handed_over = self._handed_over(large)
        if {b for s in small for b in [s.access.buffer]} & {b for s in large for b in _reads(s)}:
            return None
        first = self._over_groups([*small, *stores], groups[0])
        if not large:
            return [first]
        return [first, rebuild(k, large, handed_over, None)]

    def _goes_along(self, expr: Expr) -> bool:
        return bool(self.facts.varies[id(expr)] & self.folded)

    def _along(self, access: Access) -> bool:
        return bool(self.facts.along(access.strides) & self.folded)

    def _image_of(self, fold: Reduce) -> _Image | None:
        """The image whose pixels, or squared distances of them from something, a fold adds up."""
        if fold.combine != "sum" or fold.dtype is not dtypes.float32 or self.facts.folded(fold) != self.folded:
            return None
        pixel = self._pixel(fold.operand) or self._pixel(self._distance(fold)[0])
        if pixel is None:
            return None
        image = self.known[pixel.access.buffer]
        through = goes_through_rows(self.kernel, sorted(self.folded), pixel.access, image.pixels, image.channels)
        return image if through else None

    def _distance(self, fold: Reduce) -> tuple[Expr | None, Expr | None]:
        """x and m of a sum of (x - m)^2, m the same for all pixels."""
        square = fold.operand
        if not isinstance(square, Compute) or square.instruction != "mul":
            return None, None
        d, other = square.arguments
        if d is not other or not isinstance(d, Compute) or d.instruction != "sub":
            return None, None
        x, m = d.arguments
        return (None, None) if self._goes_along(m) else (x, m)

    def _pixel(self, expr: Expr | None) -> Load | None:
        if isinstance(expr, Compute) and expr.instruction == "cast" and expr.dtype is dtypes.float32:
            (expr,) = expr.arguments
        own = isinstance(expr, Load) and expr.access.buffer in self.known and is_zero(expr.access.offset)
        return expr if own and isinstance(expr, Load) else None

    # -- the two parts -----------------------------------------------------------------------------------------------

    def _handed_over(self, large: list[Store]) -> tuple[list[Store], dict[int, Expr]]:
        """Stores of what folds contribute to the other part, and what is read there instead."""
        stores: list[Store] = []
        replaced: dict[int, Expr] = {}
        stack, seen = [s.value for s in large], set[int]()
        while stack:
            expr = stack.pop()
            if id(expr) in seen or not self.facts.folds[id(expr)]:
                continue
            seen.add(id(expr))
            if self._goes_along(expr) or (expr.dtype is not dtypes.float32):
                stack.extend(expr.operands())
                continue
            axes = sorted(self.facts.varies[id(expr)])
            shape = tuple(self.kernel.axes[i].size for i in axes)
            strides: list[Any] = [0] * len(self.kernel.axes)
            for i, stride in zip(axes, row_major(shape), strict=True):
                strides[i] = stride
            name = f"{self.kernel.name}_moment{len(stores)}"
            value = Value(TensorType(dtypes.float32, shape), name)
            access = Access(Buffer(name, dtypes.float32, shape, "temporary", value), 0, tuple(strides))
            stores.append(Store(access, expr))
            replaced[id(expr)] = Load(access)
        return stores, replaced

    def _over_groups(self, stores: list[Store], groups: Any) -> Kernel:
        """The kernel of these stores, with sums over groups instead of pixels."""
        k = self.kernel
        kept = [i for i in range(len(k.axes)) if i not in self.folded and not k.axes[i].reduction]
        fold = len(kept)
        made: dict[int, Expr] = {}
        for expr in post_order(s.value for s in stores):
            if isinstance(expr, Reduce):
                made[id(expr)] = self._sum(expr, kept, fold, made)
            elif self._goes_along(expr):
                continue  # only folds read it
            elif isinstance(expr, Compute):
                arguments = tuple(made[id(a)] for a in expr.arguments)
                made[id(expr)] = Compute(expr.instruction, arguments, expr.dtype, expr.node)
            else:
                (made[id(expr)],) = copy_expressions([expr], {}, lambda s: (*(s[i] for i in kept), 0), lambda a: a)
        new = [
            Store(
                Access(s.access.buffer, s.access.offset, (*(s.access.strides[i] for i in kept), 0)), made[id(s.value)]
            )
            for s in stores
        ]
        axes = (*(k.axes[i] for i in kept), Axis("r0", groups, True))
        inside = {id(e.node) for e in post_order(s.value for s in new) if isinstance(e, Compute | Reduce)}
        nodes = [n for n in k.nodes if id(n) in inside]
        return Kernel(f"{k.name}_moments", axes, new, nodes, [*k.reasons, f"sums begun by {describe(nodes[0])}"])

    def _sum(self, fold: Reduce, kept: list[int], axis: int, made: dict[int, Expr]) -> Expr:
        """A fold over pixels as one over groups."""
        x, m = self._distance(fold)
        pixel = self._pixel(fold.operand) or self._pixel(x)
        assert pixel is not None
        image, node = self.known[pixel.access.buffer], fold.node
        strides = (*(pixel.access.strides[i] for i in kept), image.channels)
        total: Expr = Load(Access(image.of_totals(), 0, strides))
        if m is None:
            return Reduce("sum", total, (axis,), fold.dtype, node)
        f32 = dtypes.float32
        if image.ragged:
            left = Index(image.pixels, (*(0 for _ in kept), -image.rows), dtypes.int64)
            most = Constant(image.rows, dtypes.int64)
            count: Expr = Compute("cast", (Compute("minimum", (left, most), dtypes.int64, node),), f32, node)
            mean = Compute("div", (total, count), f32, node)
        else:
            count = Constant(float(image.rows), f32)
            mean = Compute("mul", (total, Constant(1.0 / image.rows, f32)), f32, node)
        distance = Compute("sub", (mean, made[id(m)]), f32, node)
        square = Compute("mul", (distance, distance), f32, node)
        between = Compute("mul", (square, count), f32, node)
        within = Load(Access(image.of_squares(), 0, strides))
        return Reduce("sum", Compute("add", (within, between), f32, node), (axis,), fold.dtype, node)


def _reads(store: Store) -> list[Buffer]:
    return [e.access.buffer for e in post_order([store.value]) if isinstance(e, Load)]
