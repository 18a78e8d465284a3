"""How a Kernel is cut into Triton programs: its axes in canonical form, the one or two block dimensions, and the
passes over a reduced extent.

A program handles a block of parallel points along dimension x. A second dimension is either r, all reduction axes
flattened, or y, further parallel axes of a kernel whose accesses are contiguous along different axes (a transpose).
Folds follow each other in passes: pass 0 computes the folds whose operands need no fold, pass 1 those that need them,
...; a persistent kernel holds the whole reduced extent in registers and does all passes on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from graphtorch.lowering.binding import concrete
from graphtorch.lowering.kernel import Access, Compute, Expr, Index, Kernel, Load, Reduce
from graphtorch.lowering.triton.errors import UnsupportedError
from graphtorch.lowering.triton.groups import PartAxis
from graphtorch.tensor.symint import same_size

Strides = tuple[Any, ...]
PROGRAMS = 512  # that keep a GPU busy: a few for each of its (about 132) multiprocessors
SHORT = 256  # elements of a row of which a warp holds eight a thread
LONGEST = 1024  # elements of a row that one warp holds
REGISTERS = 256  # of a thread, for the rows that it holds, as counted; the compiler gets by with fewer


@dataclass(frozen=True)
class Limits:
    """What block sizes are chosen by. Tests set small ones to reach every form with small arrays.

    pointwise     elements of a block without folds
    persistent    the longest reduced extent that is held in registers
    rows          elements of a block of several short rows
    looped        elements of a block along a longer extent
    thread        elements of a row held in registers that a thread has at most
    """

    pointwise: int = 1024
    persistent: int = 1024
    rows: int = 2048
    looped: int = 2048
    thread: int = 32


class Part(NamedTuple):
    """A fold's loop that goes through one part of what is folded (see `PartAxis`).

    loop      its canonical axis, the first of the r dimension; `size` places a part, of `whole`
    number    the canonical axis that counts the parts
    """

    loop: int
    number: int
    size: Any
    whole: Any


class Loop(NamedTuple):
    """A canonical axis: neighbours of the kernel's axes merged."""

    size: Any
    reduction: bool
    members: tuple[int, ...]


@dataclass(frozen=True)
class Blocks:
    """Block sizes, powers of two; y and r are 1 where the dimension does not exist."""

    x: int
    y: int
    r: int
    persistent: bool
    num_warps: int


class Tiling:
    """The analysed kernel. Raises UnsupportedError for forms that no single Triton kernel has.

    exprs     every expression after its operands
    loops     canonical axes
    x, y, r   which of them each dimension consists of, most significant first
    phase     of an expression: the pass whose folds it needs none of, but all before
    online    sums of exp(x - m), where m is the maximum of x, by identity: m. One pass finds both
    part      what bounds the r dimension, if it is a part of what is folded
    """

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.exprs = kernel.exprs()
        self.reduces = [e for e in self.exprs if isinstance(e, Reduce)]
        self.accesses: list[Access] = [e.access for e in self.exprs if isinstance(e, Load)]
        self.accesses += [s.access for s in kernel.stores]
        self.loops = self._canonical()
        self.r = [i for i, loop in enumerate(self.loops) if loop.reduction]
        self.part = self._part()
        self._check_folds()
        parallel = [i for i, loop in enumerate(self.loops) if not loop.reduction]
        self.y = self._transposed(parallel)
        self.x = [i for i in parallel if i not in self.y]
        self.varies: dict[int, frozenset[str]] = {}
        self.phase: dict[int, int] = {}
        self.online: dict[int, Reduce] = {}
        self._analyse()
        self.passes = max((self.phase[id(r)] for r in self.reduces), default=1)
        along = [self.phase[id(s.value)] for s in kernel.stores if "r" in self.dimensions_of(s.access.strides)]
        # How often a loop over r would read its operands.
        self.walks = max([self.passes, *(phase + 1 for phase in along)])

    @property
    def second(self) -> str:
        """The name of the second dimension; "" if there is none."""
        return "r" if self.r else "y" if self.y else ""

    def strides(self, of: Strides) -> Strides:
        """Strides along the loops, from those along the kernel's axes."""
        return tuple(of[loop.members[-1]] for loop in self.loops)

    def size(self, dimension: str) -> Any:
        """The number of points along a dimension."""
        total: Any = 1
        for i in {"x": self.x, "y": self.y, "r": self.r}[dimension]:
            total = total * self.loops[i].size
        return total

    def dimensions_of(self, strides: Strides) -> frozenset[str]:
        """The dimensions along which an affine function varies."""
        own = self.strides(strides)
        named = (("x", self.x), ("y", self.y), ("r", self.r))
        return frozenset(name for name, loops in named if any(not is_zero(own[i]) for i in loops))

    # -- axes --------------------------------------------------------------------------------------------------------

    def _canonical(self) -> list[Loop]:
        axes = self.kernel.axes
        every = [a.strides for a in self.accesses] + [e.strides for e in self.exprs if isinstance(e, Index)]
        alone = {axis.part for axis in axes if isinstance(axis, PartAxis)}
        groups: list[list[int]] = []
        for i, axis in enumerate(axes):
            if type(axis.size) is int and axis.size == 1:
                continue
            last = groups[-1][-1] if groups else -1
            alike = groups and axes[last].reduction == axis.reduction and self._same_folds(last, i)
            if isinstance(axis, PartAxis) or not alone.isdisjoint((axis.name, axes[last].name)):
                alike = False
            if alike and all(_same(s[last], s[i] * axis.size) for s in every):
                groups[-1].append(i)
            else:
                groups.append([i])
        loops = []
        for group in groups:
            size: Any = 1
            for i in group:
                size = size * axes[i].size
            loops.append(Loop(size, axes[group[0]].reduction, tuple(group)))
        return loops

    def _part(self) -> Part | None:
        for i, loop in enumerate(self.loops):
            axis, inner = self.kernel.axes[loop.members[0]], 1
            if isinstance(axis, PartAxis) and loop.reduction:
                for member in loop.members[1:]:
                    inner = inner * self.kernel.axes[member].size
                first = [self.kernel.axes[other.members[0]].name for other in self.loops]
                return Part(i, first.index(axis.part), axis.size * inner, axis.whole * inner)
        return None

    def _same_folds(self, a: int, b: int) -> bool:
        return all((a in r.axes) == (b in r.axes) for r in self.reduces)

    def _check_folds(self) -> None:
        """Every fold is over all reduction axes, in their order."""
        every = [m for i in self.r for m in self.loops[i].members]
        for reduce in self.reduces:
            folded = [a for a in reduce.axes if any(a in loop.members for loop in self.loops)]
            if folded != every:
                raise UnsupportedError(f"{self.kernel.name} folds over {reduce.axes}, not over all reduction axes")
        if self.r and not self.reduces:
            raise UnsupportedError(f"nothing folds the reduction axes of {self.kernel.name}")

    def _transposed(self, parallel: list[int]) -> list[int]:
        """The axis of the second dimension of a kernel without folds: one along which some access is contiguous that
        varies along the last axis as well."""
        if self.r or len(parallel) < 2 or not _worth(self.loops[parallel[-1]].size):
            return []
        for i in reversed(parallel[:-1]):
            if _worth(self.loops[i].size) and any(
                is_one(self.strides(a.strides)[i]) and not is_zero(self.strides(a.strides)[parallel[-1]])
                for a in self.accesses
            ):
                return [i]
        return []

    # -- expressions -------------------------------------------------------------------------------------------------

    def _analyse(self) -> None:
        for expr in self.exprs:
            varies: frozenset[str] = frozenset()
            phase = 0
            for operand in expr.operands():
                varies |= self.varies[id(operand)]
                phase = max(phase, self.phase[id(operand)])
            if isinstance(expr, Load):
                varies |= self.dimensions_of(expr.access.strides)
            elif isinstance(expr, Index):
                varies = self.dimensions_of(expr.strides)
            elif isinstance(expr, Reduce) and self.r:
                varies -= {"r"}
                largest = _shift(expr)
                if largest is not None:
                    self.online[id(expr)] = largest
                    phase = self.phase[id(largest.operand)]
                phase += 1
            self.varies[id(expr)] = varies
            self.phase[id(expr)] = phase

    # -- block sizes -------------------------------------------------------------------------------------------------

    def blocks(self, bindings: Mapping[str, int], limits: Limits) -> Blocks:
        """Block sizes for given sizes; sizes of one order of magnitude get equal ones, and share a binary."""
        x = concrete(self.size("x"), bindings)
        if self.r:
            return self._folding_blocks(x, concrete(self.size("r"), bindings), bindings, limits)
        if self.y:
            y = concrete(self.size("y"), bindings)
            side = power_of_two(int(limits.pointwise**0.5))
            by = min(side, power_of_two(y))
            bx = min(power_of_two(x), max(limits.pointwise // by, 1))
            return Blocks(bx, by, 1, False, warps(bx * by))
        bx = min(power_of_two(x), limits.pointwise)
        return Blocks(bx, 1, 1, False, warps(bx))

    def _folding_blocks(self, x: int, r: int, bindings: Mapping[str, int], limits: Limits) -> Blocks:
        extent = power_of_two(r)
        static = type(self.size("r")) is int
        # A symbolic extent is looped over: the same binary then serves every size.
        persistent = static and (extent <= limits.persistent or (self.walks > 1 and extent <= 8 * limits.persistent))
        columns = self._contiguous_along_x()
        if columns and (not persistent or self.passes == 1):
            # Neighbouring columns share cache lines: several of them in a block, and several rows; but enough blocks.
            bx = min(power_of_two(x), max(limits.looped // 32, 1), 64, max(power_of_two(x) // 128, 8))
            if extent * bx < limits.looped:  # few rows: more columns, as long as there are programs enough
                bx = max(bx, min(limits.looped // extent, 256, power_of_two(x) // PROGRAMS))
            br = max(min(limits.looped // bx, extent), 1)
            persistent = persistent and br == extent
        elif persistent:
            br = extent
            bx = min(power_of_two(x), rows_together(br, limits))
            if br > SHORT and bx == 1 and x >= PROGRAMS:
                return Blocks(1, 1, br, True, self.row_warps(br, limits))
        else:
            # Sixteen bytes a thread twice, of numbers of two bytes and of four.
            br = min(limits.looped * (2 if self._narrowest() <= 2 else 1), extent)
            return Blocks(1, 1, br, False, warps(min(limits.looped, extent)))
        if x < 512 and not columns:
            bx = 1  # more programs than rows to share
        return Blocks(bx, 1, br, persistent, warps(bx * br))

    def row_warps(self, extent: int, limits: Limits, sums: int = 0) -> int:
        """Warps of a program that holds one row in registers, and as many `sums` over rows.

        Folds of one warp need no shared memory and no barrier, and the fewer threads share a row, the fewer
        instructions fold it: as many elements a thread as its registers hold, and no more than sixteen where one warp
        is not enough."""
        words = self._held() + sums
        each = min(limits.thread, 32 if extent <= LONGEST else 16)
        while each > 8 and each * words > REGISTERS:
            each //= 2
        return min(max(extent // (32 * each), 1), 16)

    def _held(self) -> int:
        """Registers for each element of a row: what is loaded, or what later passes need of the passes before."""
        rows = [e for e in self.exprs if "r" in self.varies[id(e)]]
        last: dict[int, int] = {}  # the last pass that uses a value
        for user in self.exprs:
            for operand in user.operands():
                last[id(operand)] = max(last.get(id(operand), 0), self.phase[id(user)] - isinstance(user, Reduce))
        for store in self.kernel.stores:
            last[id(store.value)] = max(last.get(id(store.value), 0), self.phase[id(store.value)])

        def words(exprs: Iterable[Expr]) -> int:
            return sum(max(e.dtype.itemsize // 4, 1) for e in exprs)

        loads = {e.access: e for e in rows if isinstance(e, Load)}
        kept = [[e for e in rows if self.phase[id(e)] <= p < last.get(id(e), 0)] for p in range(self.passes)]
        return max(words(loads.values()), *(words(e for e in k if not _is_cast(e)) for k in kept))

    def _narrowest(self) -> int:
        """The least size of the elements that are loaded along r, in bytes."""
        loads = [e for e in self.exprs if isinstance(e, Load) and "r" in self.dimensions_of(e.access.strides)]
        return min((e.dtype.itemsize for e in loads), default=4)

    @property
    def chunk(self) -> int:
        """Elements along r that one thread loads at once."""
        return 1 if self._contiguous_along_x() else max(16 // max(self._narrowest(), 2), 1)

    def _contiguous_along_x(self) -> bool:
        """Whether the widest loads are contiguous along a parallel axis instead of the reduced one; also if as many are
        of either kind: blocks of columns and rows use whole pieces of memory for both."""
        along_x = along_r = 0
        for expr in self.exprs:
            if isinstance(expr, Load) and {"x", "r"} <= self.dimensions_of(expr.access.strides):
                own = self.strides(expr.access.strides)
                along_x += any(is_one(own[i]) for i in self.x)
                along_r += any(is_one(own[i]) for i in self.r)
        return along_x > 0 and along_x >= along_r


def _is_cast(expr: Expr) -> bool:
    """Whether it is the operand in other clothes, as far as registers go."""
    return isinstance(expr, Compute) and expr.instruction == "cast"


def _shift(fold: Reduce) -> Reduce | None:
    """The maximum of x, if the fold is the sum of exp(x - maximum)."""
    power = fold.operand
    if fold.combine != "sum" or not isinstance(power, Compute) or power.instruction != "exp":
        return None
    (difference,) = power.arguments
    if not isinstance(difference, Compute) or difference.instruction != "sub":
        return None
    x, largest = difference.arguments
    found = isinstance(largest, Reduce) and largest.combine == "max" and largest.operand is x
    return largest if found and isinstance(largest, Reduce) and fold.dtype is x.dtype else None


def rows_together(extent: int, limits: Limits) -> int:
    """How many rows that are held in registers a program has at once: several short ones; of others one, unless the
    limits ask for more."""
    return max(limits.rows // (extent if extent <= SHORT else max(extent, Limits.rows)), 1)


def warps(elements: int) -> int:
    """Warps for a block of that many elements: eight elements a thread, as wide loads want."""
    return min(max(power_of_two(elements) // 256, 1), 16)


def power_of_two(n: int) -> int:
    """The smallest power of two that is at least n."""
    return 1 << max(n - 1, 0).bit_length()


def is_zero(size: Any) -> bool:
    return type(size) is int and size == 0


def is_one(size: Any) -> bool:
    return type(size) is int and size == 1


def _worth(size: Any) -> bool:
    return type(size) is not int or size >= 16


def _same(a: Any, b: Any) -> bool:
    return a == b if type(a) is int and type(b) is int else same_size(a, b)
