"""Folds that a position selects one element of, as a load of this element; comparisons of positions in 32 bits.

The entry of a row at its target (a loss of classes) is the sum of what is zero everywhere else: operators say it that
way, since it fuses. A kernel that goes through the row need not look at each place, it loads the entry:

    sum over r of where(r == target, f(x[r]), 0)   =   f(x[target]) if 0 <= target < size else 0
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphtorch.lowering.kernel import (
    Access,
    Axis,
    Compute,
    Constant,
    Expr,
    Index,
    Kernel,
    Load,
    Reduce,
    Store,
    post_order,
)
from graphtorch.lowering.triton.groups import PartAxis
from graphtorch.lowering.triton.random import Draws
from graphtorch.lowering.triton.splitting import Axes, Facts
from graphtorch.lowering.triton.tiling import is_one, is_zero
from graphtorch.tensor import dtypes

_LAST = 2**31 - 1


class Picked(Load):
    """The element of a buffer at an access, further along by `at` (an integer expression) steps of `step` elements.
    What it is where `at` is not in [0, size) is not defined."""

    __slots__ = ("at", "size", "step")

    def __init__(self, access: Access, at: Expr, step: Any, size: Any) -> None:
        super().__init__(access)
        self.at = at
        self.step = step
        self.size = size

    def operands(self) -> tuple[Expr, ...]:
        return (self.at,)


class Place(Index):
    """Where an element is along the folded axis, in 32 bits: the left operand of a comparison with what is the same for
    all of them, and of nothing else."""

    __slots__ = ()


def use_positions(kernel: Kernel) -> Kernel:
    """The kernel with what positions select loaded where it lies. Only the code generator knows these expressions."""
    folded = [i for i, a in enumerate(kernel.axes) if a.reduction and not is_one(a.size)]
    exprs = kernel.exprs()
    if len(folded) != 1 or not any(isinstance(e, Index) for e in exprs) or isinstance(kernel.axes[folded[0]], PartAxis):
        return kernel
    return _Positions(kernel, folded[0], exprs).rewritten()


class _Positions:
    """One kernel while it is rewritten; `axis` is the one that it folds over."""

    def __init__(self, kernel: Kernel, axis: int, exprs: Sequence[Expr]) -> None:
        self.kernel = kernel
        self.axis = axis
        self.exprs = exprs
        self.facts = Facts(kernel)
        self.made: dict[int, Expr] = {}

    def rewritten(self) -> Kernel:
        for expr in self.exprs:
            self.made[id(expr)] = self._new(expr)
        values = [self.made[id(s.value)] for s in self.kernel.stores]
        if all(a is b.value for a, b in zip(values, self.kernel.stores, strict=True)):
            return self.kernel
        k = self.kernel
        axes = k.axes
        stored = any(self.axis in self.facts.along(s.access.strides) for s in k.stores)
        if not stored and not any(isinstance(e, Reduce) and self.axis in e.axes for e in post_order(values)):
            alone = Axis(axes[self.axis].name, 1, True)  # nothing goes along it any more
            axes = (*axes[: self.axis], alone, *axes[self.axis + 1 :])
        stores = [Store(s.access, v) for s, v in zip(k.stores, values, strict=True)]
        return Kernel(k.name, axes, stores, k.nodes, k.reasons)

    def _new(self, expr: Expr) -> Expr:
        if isinstance(expr, Reduce):
            return self._entry(expr) or self._same(expr)
        if isinstance(expr, Compute) and expr.instruction == "eq":
            return self._narrow(expr) or self._same(expr)
        if isinstance(expr, Compute) and expr.instruction == "where":
            return self._choice(expr) or self._same(expr)
        return self._same(expr)

    def _same(self, expr: Expr) -> Expr:
        """The expression on the new operands; itself if these are the old ones."""
        if all(self.made[id(o)] is o for o in expr.operands()):
            return expr
        if isinstance(expr, Reduce):
            return Reduce(expr.combine, self.made[id(expr.operand)], expr.axes, expr.dtype, expr.node)
        assert isinstance(expr, Compute)
        arguments = tuple(self.made[id(a)] for a in expr.arguments)
        return Compute(expr.instruction, arguments, expr.dtype, expr.node)

    def _varies(self, expr: Expr) -> Axes:
        return self.facts.varies[id(expr)]

    # -- folds -------------------------------------------------------------------------------------------------------

    def _entry(self, fold: Reduce) -> Expr | None:
        """What a fold adds up that is zero but in one place, as an expression without the fold."""
        chosen = fold.operand
        if fold.combine != "sum" or self.facts.folded(fold) != {self.axis} or fold.dtype is not chosen.dtype:
            return None
        if not isinstance(chosen, Compute) or chosen.instruction != "where":
            return None
        condition, value, other = chosen.arguments
        if not isinstance(other, Constant) or other.value != 0:
            return None
        places: list[tuple[Index, Expr]] = []
        others: list[Expr] = []
        if not self._conditions(condition, places, others) or len(places) != 1:
            return None
        (index, target), node = places[0], fold.node
        rest = tuple(0 if i == self.axis else s for i, s in enumerate(index.strides))
        at = self.made[id(target)]
        if not is_zero(index.offset) or any(not is_zero(s) for s in rest):
            at = Compute("sub", (at, Index(index.offset, rest, index.dtype)), index.dtype, node)
        found = self._at(value, index, at)
        if found is None:
            return None
        size = self.kernel.axes[self.axis].size
        for condition in (
            Compute("ge", (at, Constant(0, index.dtype)), dtypes.bool_, node),
            Compute("lt", (at, Constant(size, index.dtype)), dtypes.bool_, node),
        ):
            others.append(condition)
        inside = others[0]
        for condition in others[1:]:
            inside = Compute("logical_and", (inside, condition), dtypes.bool_, node)
        return Compute("where", (inside, found, other), fold.dtype, node)

    def _conditions(self, expr: Expr, places: list[tuple[Index, Expr]], others: list[Expr]) -> bool:
        """Split a conjunction into comparisons of the place along the folded axis, and what is the same all along."""
        if self.axis not in self._varies(expr):
            others.append(self.made[id(expr)])
            return True
        if not isinstance(expr, Compute):
            return False
        if expr.instruction == "logical_and":
            return all(self._conditions(a, places, others) for a in expr.arguments)
        if expr.instruction != "eq":
            return False
        for index, target in (expr.arguments, expr.arguments[::-1]):
            own = isinstance(index, Index) and is_one(index.strides[self.axis]) and index.dtype is target.dtype
            if own and isinstance(index, Index) and self.axis not in self._varies(target):
                places.append((index, target))
                return True
        return False

    def _at(self, value: Expr, index: Index, at: Expr) -> Expr | None:
        """An expression at one place along the folded axis; None where it has folds that go along it with it."""
        moved: dict[int, Expr] = {}
        size = self.kernel.axes[self.axis].size
        for expr in post_order([value]):
            if self.axis not in self._varies(expr):
                moved[id(expr)] = self.made[id(expr)]
            elif type(expr) is Load and not isinstance(expr.access.buffer, Draws):
                access = expr.access
                fixed = tuple(0 if i == self.axis else s for i, s in enumerate(access.strides))
                place = Access(access.buffer, access.offset, fixed)
                moved[id(expr)] = Picked(place, at, access.strides[self.axis], size)
            elif isinstance(expr, Compute):
                arguments = tuple(moved[id(a)] for a in expr.arguments)
                moved[id(expr)] = Compute(expr.instruction, arguments, expr.dtype, expr.node)
            else:
                return None
        return moved[id(value)]

    # -- choices -----------------------------------------------------------------------------------------------------

    def _choice(self, expr: Compute) -> Expr | None:
        """where(a and b, x, y) = where(a, where(b, x, y), y): the inner one outside of a loop, if b, x and y are the
        same all along the folded axis."""
        condition, x, y = expr.arguments
        if not isinstance(condition, Compute) or condition.instruction not in ("logical_and", "bitwise_and"):
            return None
        logical = all(a.dtype is dtypes.bool_ for a in condition.arguments)
        if not logical or self.axis in self._varies(x) | self._varies(y):
            return None
        for a, b in (condition.arguments, condition.arguments[::-1]):
            if self.axis in self._varies(a) and self.axis not in self._varies(b):
                one, other = self.made[id(x)], self.made[id(y)]
                inner = Compute("where", (self.made[id(b)], one, other), expr.dtype, expr.node)
                return Compute("where", (self.made[id(a)], inner, other), expr.dtype, expr.node)
        return None

    # -- comparisons -------------------------------------------------------------------------------------------------

    def _narrow(self, expr: Compute) -> Expr | None:
        """A comparison of a place along the folded axis with a 64-bit number that is the same all along, in 32 bits."""
        for index, target in (expr.arguments, expr.arguments[::-1]):
            if not isinstance(index, Index) or index.dtype is not dtypes.int64 or target.dtype is not dtypes.int64:
                continue
            if self.axis not in self._varies(index) or self.axis in self._varies(target):
                continue
            sizes = [a.size for a in self.kernel.axes]
            numbers = [index.offset, *index.strides, *(n for n, s in zip(sizes, index.strides, strict=True) if s != 0)]
            if any(type(n) is not int or n < 0 for n in numbers):
                continue
            if index.offset + sum(n * s for n, s in zip(sizes, index.strides, strict=True) if s != 0) > _LAST:
                continue
            wanted, node = self.made[id(target)], expr.node
            low = Compute("ge", (wanted, Constant(0, dtypes.int64)), dtypes.bool_, node)
            high = Compute("le", (wanted, Constant(_LAST, dtypes.int64)), dtypes.bool_, node)
            inside = Compute("logical_and", (low, high), dtypes.bool_, node)
            low_half = Compute("cast", (wanted,), dtypes.int32, node)
            narrow = Compute("where", (inside, low_half, Constant(-1, dtypes.int32)), dtypes.int32, node)
            place = Place(index.offset, index.strides, dtypes.int32)
            return Compute("eq", (place, narrow), dtypes.bool_, node)
        return None
