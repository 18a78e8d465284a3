"""Means and variances over pixels, begun on the tiles of the convolution that stores these pixels: batch norms.

A batch norm reads its whole input for the mean, and again for the variance, before it reads it once more to normalise.
Here each tile of the convolution adds up its rows (pixels) in groups, and the squares of their distances from the
group's own mean. What a kernel sums over all pixels then comes of these, without a difference of large numbers
(Chan, Golub, LeVeque: Updating formulae and a pairwise algorithm for computing sample variances, 1979): for any m

    sum (x - m)^2  =  sum over groups of [ sum (x - mean of the group)^2 + rows * (mean of the group - m)^2 ]

The gradient of a batch norm sums over pixels what is made of the gradient g of its result: g itself, and g times the
distance of its input from the mean. Where a convolution's input gradient stores g, or what g is made of, its tiles
compute these values from what they store and from the other images that the kernel reads, and add them up.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
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
    post_order,
)
from graphtorch.lowering.triton.bias import goes_through_rows, lies_as_result
from graphtorch.lowering.triton.fused import FusedCall, RowSums, ValueSums, extents, result_shape
from graphtorch.lowering.triton.layout import MAKE_IMAGES, ChannelsLast
from graphtorch.lowering.triton.shapes import DOT, fit
from graphtorch.lowering.triton.splitting import Axes, Facts, copy_expressions, rebuild
from graphtorch.lowering.triton.tiling import is_one, is_zero
from graphtorch.schedule.indexing import estimate, exact_quotient, row_major
from graphtorch.schedule.report import describe
from graphtorch.tensor import dtypes
from graphtorch.tensor.precision import convolution_precision
from graphtorch.tensor.symint import same_shape, same_size
from graphtorch.tensor.type import TensorType

FEWEST = 1024  # pixels for which this pays
GROUPS = (64, 32)  # rows of a group: no tile has fewer
MOST_IMAGES = 2  # that are read beside a gradient's tile
LARGE = 128 * 128  # elements of a tile, beside which no other images fit into registers twice a multiprocessor


def begin_moments_in_convolutions(schedule: Schedule) -> Schedule:
    """The schedule with sums over pixels begun in the convolutions that make these."""
    made: dict[Buffer, _Image] = {}
    written: dict[Buffer, list[int]] = {}
    for i, step in enumerate(schedule.steps):
        for buffer in step.writes():
            written.setdefault(buffer, []).append(i)
        if isinstance(step, ExternCall):
            made.update((image.buffer, image) for image in _images(step, i))
    known = {b: image for b, image in made.items() if len(written[b]) == 1}
    if not known:
        return schedule
    steps: list[Kernel | ExternCall] = []
    lines: list[str] = []
    for i, step in enumerate(schedule.steps):
        found = _Moments(step, i, known, written).cut() if type(step) is Kernel else None
        steps += [step] if found is None else found
        if found is not None:
            lines.append(f"{step.name} | sums over pixels are begun on the tiles of convolutions")
    if not lines:
        return schedule
    place = {id(schedule.steps[image.at]): image for image in known.values() if image.begun}
    steps = [place[id(s)].call() if id(s) in place else s for s in steps]
    return replace(schedule, steps=steps, report=[*schedule.report, *lines])


@dataclass
class _Image:
    """What a convolution, or its input gradient, stores, and the buffers of what its tiles add up, once somebody wants
    them: sums and squares of the former, sums of a kernel's values of the latter."""

    step: ExternCall
    at: int
    buffer: Buffer
    pixels: Any
    channels: int
    rows: int
    groups: Any
    ragged: bool  # the last group may have fewer rows
    totals: Buffer | None = None
    squares: Buffer | None = None
    kernel: Kernel | None = None  # whose values are summed
    values: dict[int, tuple[Expr, Buffer]] = field(default_factory=dict)

    @property
    def is_gradient(self) -> bool:
        return self.step.op.name == "conv2d_input_grad"

    @property
    def begun(self) -> bool:
        return self.totals is not None or bool(self.values)

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

    def of_value(self, kernel: Kernel, value: Expr) -> Buffer:
        """The sums of a value of this kernel."""
        self.kernel = kernel
        if id(value) not in self.values:
            self.values[id(value)] = value, self._partial(f"sums{len(self.values)}")
        return self.values[id(value)][1]

    def call(self) -> FusedCall:
        """The convolution that stores them too."""
        s = self.step
        if not isinstance(s, FusedCall):
            s = FusedCall(s.name, s.op, s.args, s.outputs, list(s.nodes), list(s.reasons), product=self.buffer)
        if self.kernel is not None:
            axes = tuple(replace(axis, reduction=False) for axis in self.kernel.axes)
            stores = [Store(Access(b, 0, (0,) * len(axes)), value) for value, b in self.values.values()]
            values = ValueSums(Kernel(f"{self.kernel.name}_values", axes, stores), self.buffer, self.rows)
            return replace(s, outputs=(*s.outputs, *(b for _, b in self.values.values())), values=values)
        sums = RowSums(None, self.of_totals(), self.squares, self.rows, self.ragged)
        outputs = (self.buffer, *(b for b in (sums.totals, sums.squares) if b is not None))
        return replace(s, outputs=outputs, sums=sums)


def _images(step: ExternCall, at: int) -> list[_Image]:
    """What a convolution, or its input gradient, stores, if its tiles could add it up."""
    if step.op.name not in MAKE_IMAGES or not step.outputs or step.outputs[0] is None:
        return []
    shape, forward = result_shape(step), step.op.name == "conv2d"
    if type(shape[1]) is not int or not is_one(step.args[-1]):
        return []
    made, stored = step.outputs[0], list[Buffer]()
    if isinstance(step, FusedCall) and (step.splits > 1 or (forward and step.epilogue is not None)):
        return []
    if isinstance(step, FusedCall) and step.epilogue is not None:
        made, epilogue = step.product, step.epilogue
        stored = [s.access.buffer for s in epilogue.stores if lies_as_result(s, epilogue, step.product)]
    else:
        stored = [made]
    if not isinstance(made, ChannelsLast):
        return []
    m, n, k, count = extents(step)
    of, tf32 = step.args[0].buffer.dtype, convolution_precision() == "tf32"
    if not forward:
        config = fit(estimate(m), n, estimate(k), of, tf32, count)
        if config.block_m * config.block_n >= LARGE:
            return []
    pixels = shape[0] * shape[2] * shape[3]
    if estimate(pixels) < FEWEST:
        return []
    rows = next((r for r in GROUPS if exact_quotient(m, r) is not None), None)
    phases = 1 if forward else step.args[-4][0] * step.args[-4][1]
    groups = (m + (rows or GROUPS[0]) - 1) // (rows or GROUPS[0]) * phases
    return [
        _Image(step, at, b, pixels, n, rows or GROUPS[0], groups, rows is None)
        for b in stored
        if isinstance(b, ChannelsLast) and b.dtype in DOT and same_shape(b.shape, shape)
    ]


class _Moments:
    """A kernel that sums over the pixels of such images while it is cut."""

    def __init__(self, kernel: Any, at: int, known: dict[Buffer, _Image], written: dict[Buffer, list[int]]) -> None:
        self.kernel: Kernel = kernel
        self.at = at
        self.known = known
        self.written = written
        self.folded: Axes = frozenset()

    def cut(self) -> list[Kernel | ExternCall] | None:
        """The kernel of what does not vary from pixel to pixel, which sums over groups, and the rest; None where some
        fold is of another kind."""
        k = self.kernel
        reduces = [e for e in k.exprs() if isinstance(e, Reduce)]
        if not reduces:
            return None
        self.facts = Facts(k)
        self.folded = self.facts.folded(reduces[0])
        images = [self._image_of(r) for r in reduces]
        if any(image is None for image in images):
            return None
        groups = [image.groups for image in images if image is not None]
        gradients = {id(image) for image in images if image is not None and image.is_gradient}
        if len(gradients) > 1 or any(not same_size(g, groups[0]) for g in groups):
            return None
        small = [s for s in k.stores if not self._goes_along(s.value) and not self._along(s.access)]
        large = [s for s in k.stores if not any(s is other for other in small)]
        overwritten = {s.access.buffer for s in small}
        stores, handed_over = self._handed_over(large, overwritten)
        seen = post_order((s.value for s in large), frozenset(handed_over))
        if any(isinstance(e, Load) and e.access.buffer in overwritten for e in seen):
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
        if pixel is None or self.known[pixel.access.buffer].is_gradient:
            pixel = self._made_of_gradient(fold)
        if pixel is None:
            return None
        image = self.known[pixel.access.buffer]
        through = goes_through_rows(self.kernel, sorted(self.folded), pixel.access, image.pixels, image.channels)
        return image if through else None

    def _made_of_gradient(self, fold: Reduce) -> Load | None:
        """The load of what an input gradient stores, if the value that a fold adds up can be computed where that is:
        of elements at the same places of images that are known by then, and of what is the same for all pixels."""
        if self.facts.folds[id(fold.operand)]:
            return None
        exprs = post_order([fold.operand])
        loads = [e for e in exprs if isinstance(e, Load)]
        pixels = [e for e in loads if self._goes_along(e)]
        made = [e for e in pixels if e.access.buffer in self.known and self.known[e.access.buffer].is_gradient]
        if not made or any(isinstance(e, Index) for e in exprs):
            return None
        own = max(made, key=lambda e: self.known[e.access.buffer].at)
        image = self.known[own.access.buffer]
        others = {e.access.buffer for e in loads} - {image.buffer}
        if len({b for b in others if b in {e.access.buffer for e in pixels}}) > MOST_IMAGES:
            return None
        for e in pixels:
            same = same_shape(e.access.strides, own.access.strides) and is_zero(e.access.offset)
            if not same or not isinstance(e.access.buffer, ChannelsLast):
                return None
        if any(b.kind == "random" or any(image.at <= i < self.at for i in self.written.get(b, ())) for b in others):
            return None
        if image.kernel is not None and image.kernel is not self.kernel:
            return None
        return own

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

    def _handed_over(self, large: list[Store], overwritten: set[Buffer]) -> tuple[list[Store], dict[int, Expr]]:
        """Stores of what folds contribute to the other part, and of what the first part overwrites, and what is read
        there instead."""
        stores: list[Store] = []
        replaced: dict[int, Expr] = {}
        stack, seen = [s.value for s in large], set[int]()
        while stack:
            expr = stack.pop()
            before = isinstance(expr, Load) and expr.access.buffer in overwritten
            if id(expr) in seen:
                continue
            seen.add(id(expr))
            if not (before or self.facts.folds[id(expr)]):
                stack.extend(expr.operands())
                continue
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
        gradient = self._made_of_gradient(fold)
        if gradient is not None:
            image = self.known[gradient.access.buffer]
            partial = image.of_value(self.kernel, fold.operand)
            along = (*(gradient.access.strides[i] for i in kept), image.channels)
            return Reduce("sum", Load(Access(partial, 0, along)), (axis,), fold.dtype, fold.node)
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
