"""The loop structure of a Kernel, worked out before any code is written: its axes in canonical form, which one the
vectors run along, in what order the folds happen, and what varies along what.

Sets of axes are ints with one bit an axis.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any, NamedTuple

from graphtorch.lowering.cpu.assembly import BITS
from graphtorch.lowering.cpu.instructions import COSTS, REGISTER, RefusedError
from graphtorch.lowering.kernel import Access, Compute, Constant, Expr, Index, Kernel, Load, Reduce
from graphtorch.ops.checks import CHECKS
from graphtorch.tensor.dtypes import dtype
from graphtorch.tensor.symint import same_size

TILE = 16  # rows of a transposing kernel that share the cache lines of one gathered vector


class Loop(NamedTuple):
    """An axis of the nest."""

    size: Any
    reduction: bool


def _may_fail(expr: Expr) -> bool:
    """Whether an expression itself refuses some operands: checks, and quotients of integers."""
    if not isinstance(expr, Compute):
        return False
    divides = expr.instruction in ("floor_divide", "remainder", "fmod") and not expr.dtype.is_floating_point
    return divides or expr.instruction in CHECKS


def estimate(size: Any) -> int:
    """A size, or a likely one where it is symbolic."""
    if type(size) is int:
        return size
    return size.hint or 1024


class Nest:
    """The analysed kernel.

    loops      axes without those of size 1, neighbours merged where every access allows it
    vector     position of the axis that vectors run along; -1: scalar code
    levels     increasing sets of reduction axes, one for each nesting of folds
    level      of each Reduce, 1 for the innermost
    """

    def __init__(self, kernel: Kernel, register_bits: int) -> None:
        self.kernel = kernel
        self.exprs = kernel.exprs()
        self.accesses: dict[Access, None] = {}
        for expr in self.exprs:
            if expr.dtype not in REGISTER:
                raise RefusedError(f"{expr.dtype.name} values")
            if isinstance(expr, Load):
                self.accesses.setdefault(expr.access)
        for store in kernel.stores:
            if store.access.buffer.dtype not in REGISTER:
                raise RefusedError(f"{store.access.buffer.dtype.name} values")
            self.accesses.setdefault(store.access)
        self.reduces = [e for e in self.exprs if isinstance(e, Reduce)]
        self._strides: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        self.loops: list[Loop] = []
        self._groups: list[list[int]] = []
        self._canonical()
        self.varies: dict[int, int] = {}
        self.fallible: set[int] = set()  # what may fail must not be computed before a loop, which may be empty
        self.below: dict[int, int] = {}  # of an expression: all axes folded beneath it
        self.costs: dict[int, int] = {}
        self._analyse()
        self.levels: list[int] = []
        self.level: dict[int, int] = {}
        self._find_levels()
        self.vector = self._choose_vector()
        self._tile()
        self.lanes = self._choose_lanes(register_bits)

    # -- axes --------------------------------------------------------------------------------------------------------

    def _canonical(self) -> None:
        axes = self.kernel.axes
        kept = [i for i, axis in enumerate(axes) if not (type(axis.size) is int and axis.size == 1)]
        for i in kept:
            if self._groups and self._mergeable(self._groups[-1][-1], i):
                self._groups[-1].append(i)
            else:
                self._groups.append([i])
        folded = {axis for reduce in self.reduces for axis in reduce.axes}
        for group in self._groups:
            size: Any = 1
            for i in group:
                size = size * axes[i].size
            self.loops.append(Loop(size, group[0] in folded))

    def _mergeable(self, outer: int, inner: int) -> bool:
        axes = self.kernel.axes
        for reduce in self.reduces:
            if (outer in reduce.axes) != (inner in reduce.axes):
                return False
            if outer in reduce.axes and reduce.combine in ("argmax", "argmin"):
                at = reduce.axes.index(outer)
                if at + 1 >= len(reduce.axes) or reduce.axes[at + 1] != inner:
                    return False
        size = axes[inner].size
        every = [a.strides for a in self.accesses] + [e.strides for e in self.exprs if isinstance(e, Index)]
        return all(_same(s[outer], s[inner] * size) for s in every)

    def strides(self, of: tuple[Any, ...]) -> tuple[Any, ...]:
        """Strides along the loops, from those along the kernel's axes."""
        found = self._strides.get(of)
        if found is None:
            found = self._strides[of] = tuple(of[group[-1]] for group in self._groups)
        return found

    def axes_of(self, reduce: Reduce) -> int:
        """The loops that a Reduce folds."""
        mask = 0
        for i, group in enumerate(self._groups):
            if group[-1] in reduce.axes:
                mask |= 1 << i
        return mask

    def axes_in(self, mask: int) -> list[int]:
        """The kernel's axes that a set of loops consists of."""
        return [axis for i, group in enumerate(self._groups) if mask & (1 << i) for axis in group]

    def ordered_axes(self, reduce: Reduce) -> list[int]:
        """The loops of an argmax, most significant first."""
        place = {group[-1]: i for i, group in enumerate(self._groups)}
        return [place[a] for a in reduce.axes if a in place]

    # -- what varies along what --------------------------------------------------------------------------------------

    def _analyse(self) -> None:
        for expr in self.exprs:
            key = id(expr)
            varies = below = cost = 0
            for operand in expr.operands():
                varies |= self.varies[id(operand)]
                below |= self.below[id(operand)]
                cost += self.costs[id(operand)]
            if isinstance(expr, Load):
                varies = self.mask_of(expr.access.strides)
            elif isinstance(expr, Index):
                varies = self.mask_of(expr.strides)
            elif isinstance(expr, Reduce):
                folded = self.axes_of(expr)
                varies &= ~folded
                below |= folded
                cost = 0
            elif isinstance(expr, Compute):
                cost += COSTS.get(expr.instruction, 1)
            if _may_fail(expr) or any(id(o) in self.fallible for o in expr.operands()):
                self.fallible.add(key)
            self.varies[key], self.below[key], self.costs[key] = varies, below, cost

    def mask_of(self, strides: tuple[Any, ...]) -> int:
        """The loops along which an affine function varies."""
        return sum(1 << i for i, s in enumerate(self.strides(strides)) if not (type(s) is int and s == 0))

    def _find_levels(self) -> None:
        """The chain of sets of axes that folds run over, and each fold's place in it.

        Sets that another fold builds on come first, then any that fit in between, at last the union of all. A fold
        whose set is not in the chain (a sum over rows beside folds of the columns) belongs to the smallest one that
        holds it.
        """
        folds = [r for r in self.reduces if self.below[id(r)]]
        if not folds:
            return
        inner = {self.below[id(e)] for r in folds for e in walk([r.operand]) if isinstance(e, Reduce)} - {0}
        every = 0
        for fold in folds:
            every |= self.below[id(fold)]
        chain = [*inner, every] if every not in inner else [*inner]
        for candidate in sorted({self.below[id(r)] for r in folds} - set(chain), key=int.bit_count, reverse=True):
            if all(candidate & ~s == 0 or s & ~candidate == 0 for s in chain):
                chain.append(candidate)
        chain.sort(key=int.bit_count)
        for small, large in pairwise(chain):
            if small & ~large:
                raise RefusedError("folds over sets of axes that do not include each other")
        self.levels = chain
        for fold in folds:
            below = self.below[id(fold)]
            level = next(i for i, s in enumerate(chain) if below & ~s == 0)
            self.level[id(fold)] = level + 1
            folded, varies = self.axes_of(fold), self.varies[id(fold.operand)]
            # It runs over whole levels from its own inwards, and must not vary along what lies further in.
            while level >= 0 and chain[level] & ~(chain[level - 1] if level else 0) & ~folded == 0:
                level -= 1
            if level >= 0 and (folded | varies) & chain[level]:
                raise RefusedError("a fold over some of the axes that its operand varies along")

    # -- vectors -----------------------------------------------------------------------------------------------------

    def _choose_vector(self) -> int:
        """The axis along which most accesses are contiguous; -1 if there is none worth it."""
        best, chosen = 0.0, -1
        # An access counts for what it touches: a gathered plane is not made up for by contiguous weights of channels.
        touched = [self._touched(access) for access in self.accesses]
        most = max(touched, default=1.0)
        for i, loop in enumerate(self.loops):
            size = estimate(loop.size)
            if size < 2:
                continue
            score = 0.0
            for access, elements in zip(self.accesses, touched, strict=True):
                stride = self.strides(access.strides)[i]
                weight = (2.0 if any(s.access is access for s in self.kernel.stores) else 1.0) * elements / most
                if type(stride) is int and stride == 1:
                    score += weight
                elif type(stride) is int and stride == -1:
                    score += 0.5 * weight
                elif not (type(stride) is int and stride == 0):
                    score -= 0.5 * weight
            score += 0.01
            if size < 8:
                score *= size / 8
            if score >= best:
                best, chosen = score, i
        if chosen < 0 and self.loops:
            # Gathers still beat scalar code where there is much to compute.
            cost = max((self.costs[id(s.value)] for s in self.kernel.stores), default=0)
            last = len(self.loops) - 1
            chosen = last if cost >= 8 and estimate(self.loops[last].size) >= 8 else -1
        return chosen

    def _touched(self, access: Access) -> float:
        """About how many elements an access meets."""
        count = 1.0
        for loop, stride in zip(self.loops, self.strides(access.strides), strict=True):
            if not (type(stride) is int and stride == 0):
                count *= max(estimate(loop.size), 1)
        return count

    def _tile(self) -> None:
        """Transposing kernels run over tiles: split the axis that gathered loads are contiguous along, its inner part
        inside the vectors."""
        self.inner = -1
        if self.vector < 0 or self.levels or self.loops[self.vector].reduction:
            return
        for i, loop in enumerate(self.loops):
            if i == self.vector or type(loop.size) is not int or loop.size % TILE or loop.size <= TILE:
                continue
            for access in self.accesses:
                strides = self.strides(access.strides)
                along = strides[self.vector]
                if strides[i] == 1 and not (type(along) is int and along in (0, 1)):
                    self._split(i)
                    return

    def _split(self, axis: int) -> None:
        every = [a.strides for a in self.accesses] + [e.strides for e in self.exprs if isinstance(e, Index)]
        for of in {*every}:
            own = self.strides(of)
            self._strides[of] = (*own[:axis], own[axis] * TILE, *own[axis + 1 :], own[axis])
        loop = self.loops[axis]
        self.loops[axis] = Loop(loop.size // TILE, False)
        self.loops.append(Loop(TILE, False))
        self.inner = len(self.loops) - 1
        self.varies.clear()
        self.below.clear()
        self.costs.clear()
        self._analyse()

    def _choose_lanes(self, register_bits: int) -> int:
        if self.vector < 0:
            return 1
        widest = max((_computing_bits(e.dtype) for e in self.exprs if not isinstance(e, Index | Constant)), default=32)
        lanes = max(register_bits // max(widest, 32), 2)
        size = self.loops[self.vector].size
        if type(size) is int:
            while lanes // 2 >= size:
                lanes //= 2
        return max(lanes, 2)

    def points(self) -> list[Any]:
        """The sizes of the loops."""
        return [loop.size for loop in self.loops]

    def cost(self) -> int:
        """Of one point of the iteration space, in additions."""
        total = 0
        for expr in self.exprs:
            if isinstance(expr, Compute):
                total += COSTS.get(expr.instruction, 1)
            elif isinstance(expr, Reduce):
                total += 1
        for access in self.accesses:
            total += self.access_cost(access)
        return max(total, 1)

    def access_cost(self, access: Access) -> int:
        """A contiguous or repeated load costs one addition, a gathered one several."""
        if self.vector < 0:
            return 1
        stride = self.strides(access.strides)[self.vector]
        return 1 if type(stride) is int and stride in (-1, 0, 1) else 8

    def is_reversed(self, access: Access) -> bool:
        """Whether a vector's elements lie side by side from the last to the first."""
        stride = self.strides(access.strides)[self.vector]
        return type(stride) is int and stride == -1


def _computing_bits(d: dtype) -> int:
    return 32 if d.itemsize < 4 else min(BITS[REGISTER[d]], 64) if d.is_floating_point else 32


def _same(a: Any, b: Any) -> bool:
    return a == b if type(a) is int and type(b) is int else same_size(a, b)


def walk(roots: Iterable[Expr]) -> Iterable[Expr]:
    """Every expression below, each once."""
    seen: set[int] = set()
    stack = list(roots)
    while stack:
        expr = stack.pop()
        if id(expr) in seen:
            continue
        seen.add(id(expr))
        yield expr
        stack.extend(expr.operands())
