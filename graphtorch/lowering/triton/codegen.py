"""Triton source for a Kernel.

Static sizes are in the text, symbolic ones are arguments; block sizes are constexpr arguments. Kernels of equal text
(their comments aside) are compiled once. A generated function looks as one would write it by hand:

    x = tl.program_id(0) * X_BLOCK + tl.arange(0, X_BLOCK)[:, None]     the rows of this program
    r = tl.arange(0, R_BLOCK)[None, :]                                  the folded elements
    v0 = tl.load(in0 + 1000 * x + r, mask=x_mask & r_mask)
    v1 = tl.reduce(tl.where(r_mask, v0, -inf), 1, _maximum)[:, None]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphtorch.ir.graph import Node
from graphtorch.lowering.binding import concrete
from graphtorch.lowering.kernel import (
    Access,
    Buffer,
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
from graphtorch.lowering.triton.errors import UnsupportedError
from graphtorch.lowering.triton.groups import GroupedKernel, RowKernel
from graphtorch.lowering.triton.instructions import (
    COARSE,
    HELPERS,
    LITERALS,
    POINTER,
    apply,
    convert,
    helpers_in,
    identity,
    memory,
    register,
)
from graphtorch.lowering.triton.positions import Picked, Place, use_positions
from graphtorch.lowering.triton.precision import exact_reciprocal, rounded_to_half
from graphtorch.lowering.triton.random import Draws
from graphtorch.lowering.triton.sizes import Sizes
from graphtorch.lowering.triton.tiling import PROGRAMS, Blocks, Limits, Strides, Tiling, is_zero
from graphtorch.schedule.indexing import product, row_major
from graphtorch.tensor import dtypes
from graphtorch.tensor.dtypes import dtype
from graphtorch.tensor.symint import SymInt, same_shape, same_size

IMPORTS = """import triton
import triton.language as tl
from triton.language.extra import libdevice
"""

AHEAD = 48 << 10  # bytes of shared memory for what is loaded ahead
_WIDE = 2**31  # offsets from here on need 64 bits


@dataclass(frozen=True)
class Generated:
    """The source of one Triton function and how it is called.

    buffers     one pointer argument each, in order
    integers    then one integer argument each (32 bits, 64 if `wide`): its name, and the size that it has
    constants   values of the constexpr arguments, which come last
    blocks      (number of points, block size) of each grid dimension, multiplied into one
    divisible   integer arguments that are multiples of 16 in the calls that this is for
    programs    the most that are started: each goes through several blocks (a persistent kernel)
    """

    name: str
    source: str
    buffers: tuple[Buffer, ...]
    pointers: tuple[str, ...]
    integers: tuple[tuple[str, Any], ...]
    constants: Mapping[str, int]
    blocks: tuple[tuple[Any, int], ...]
    wide: bool = False
    divisible: frozenset[str] = frozenset()
    num_warps: int = 4
    num_stages: int = 2
    programs: int | None = None

    def grid(self, bindings: Mapping[str, int]) -> tuple[int, int, int]:
        """The number of programs for given sizes; 0 where there is nothing to do."""
        programs = 1
        for points, block in self.blocks:
            programs *= -(-concrete(points, bindings) // block)
        return programs if self.programs is None else min(programs, self.programs), 1, 1

    def signature(self) -> dict[str, str]:
        """Triton types by argument."""
        names = {name: POINTER[b.dtype] for name, b in zip(self.pointers, self.buffers, strict=True)}
        names.update((name, "i64" if self.wide else "i32") for name, _ in self.integers)
        names.update((name, "constexpr") for name in self.constants)
        return names

    def hints(self) -> list[str]:
        """The arguments that are multiples of 16: buffers lie on cache lines."""
        return [*self.pointers, *(name for name, _ in self.integers if name in self.divisible)]


def generate(kernel: Kernel, bindings: Mapping[str, int], limits: Limits | None = None) -> Generated:
    """The source of a kernel, for sizes like the given ones. Raises UnsupportedError where there is none."""
    if isinstance(kernel, GroupedKernel):
        from graphtorch.lowering.triton.horizontal import generate_group

        return generate_group(kernel, bindings, limits or Limits())
    if isinstance(kernel, RowKernel):
        from graphtorch.lowering.triton.columns import generate_rows

        return generate_rows(kernel, bindings, limits or Limits())
    tiling = Tiling(use_positions(kernel))
    blocks = tiling.blocks(bindings, limits or Limits())
    from graphtorch.lowering.triton.drawing import draws_at_once, generate_draws

    if draws_at_once(tiling, blocks, bindings)[0]:
        return generate_draws(tiling, blocks, bindings)
    return KernelEmitter(tiling, blocks, bindings).generate()


def comment(node: Node) -> str:
    """An IR operation and the user's line that it came from."""
    where = node.location
    text = f"# {node.op.name}"
    if node.origin:
        text += f", {node.origin}"
    if where.file:
        text += f"  {where.file}:{where.line}  {where.text}"
    return text.rstrip().replace("\n", " ")


def without_comments(source: str) -> str:
    """What a source does: the text whose equality makes kernels equal."""
    return "\n".join(line for line in source.splitlines() if not line.lstrip().startswith("#"))


@dataclass
class Segment:
    """Lines at one indentation, and the names of what was computed there or in a surrounding segment."""

    indent: str
    lines: list[str] = field(default_factory=list)
    node: Node | None = None

    def add(self, line: str) -> None:
        self.lines.append(self.indent + line)


class Expressions:
    """Writes a DAG of scalar expressions as assignments. Subclasses say where elements lie.

    rank    dimensions of a block
    names   expression (by identity) -> variable
    coarse  expressions (by identity) that are rounded to half precision before anything else sees them
    """

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.sizes = Sizes()
        self.names: dict[int, str] = {}
        self.coarse: frozenset[int] = frozenset()
        self.count = 0

    def _load(self, access: Access) -> str:
        raise NotImplementedError

    def _index(self, expr: Index) -> str:
        raise NotImplementedError

    def _picked(self, expr: Picked) -> str:
        raise UnsupportedError("elements at a position here")

    def _at(self, place: Place, target: str) -> str:
        raise UnsupportedError("comparisons of places here")

    def _draw(self, access: Access, draws: Draws) -> str:
        raise UnsupportedError("random numbers here")

    def _fold(self, fold: Reduce) -> str:
        raise UnsupportedError("a fold here")

    def _emit(self, segment: Segment, exprs: Sequence[Expr]) -> None:
        for expr in exprs:
            if id(expr) in self.names or isinstance(expr, Constant | Place):
                continue
            register(expr.dtype)  # refuse early
            if isinstance(expr, Load) and isinstance(expr.access.buffer, Draws):
                self._comment(segment, expr.access.buffer.call.nodes[0])
                self._bind(segment, expr, self._draw(expr.access, expr.access.buffer))
            elif isinstance(expr, Picked):
                self._bind(segment, expr, self._picked(expr))
            elif isinstance(expr, Load):
                self._bind(segment, expr, self._load(expr.access))
            elif isinstance(expr, Index):
                self._bind(segment, expr, self._index(expr))
            elif isinstance(expr, Compute):
                self._comment(segment, expr.node)
                self._bind(segment, expr, self._compute(expr))
            elif isinstance(expr, Reduce):
                self._comment(segment, expr.node)
                self._bind(segment, expr, self._fold(expr))

    def _bind(self, segment: Segment, expr: Expr, text: str) -> None:
        self.names[id(expr)] = name = f"v{self.count}"
        self.count += 1
        segment.add(f"{name} = {text}")

    def _comment(self, segment: Segment, node: Node | None) -> None:
        if node is not None and node is not segment.node:
            segment.add(comment(node))
            segment.node = node

    def _compute(self, expr: Compute) -> str:
        operands = expr.arguments
        if expr.instruction == "cast":
            return convert(self._value(operands[0]), operands[0].dtype, expr.dtype)
        if operands and isinstance(operands[0], Place):
            return self._at(operands[0], self._value(operands[1]))
        # One number beside a tensor takes the tensor's type.
        numbers = sum(isinstance(o, Constant) for o in operands)
        literal = expr.instruction in LITERALS and numbers == 1
        names = [self._value(o, literal) for o in operands]
        power = operands[1].value if expr.instruction == "pow" and isinstance(operands[1], Constant) else None
        if expr.instruction.startswith("logical_"):  # each operand has a dtype of its own
            names = [convert(n, o.dtype, dtypes.bool_) for n, o in zip(names, operands, strict=True)]
            return apply(expr.instruction, [f"({n})" if " " in n else n for n in names], dtypes.bool_)
        if operands and operands[0].dtype.is_floating_point and type(power) is not SymInt and power in (2, 3):
            return " * ".join([names[0]] * int(power))
        if expr.instruction == "div" and (factor := exact_reciprocal(operands[1])) is not None:
            return f"{names[0]} * {factor!r}"
        if id(expr) in self.coarse and expr.instruction in COARSE:
            return COARSE[expr.instruction].format(*names)
        return apply(expr.instruction, names, operands[-1].dtype)

    def _value(self, expr: Expr, literal: bool = False) -> str:
        """An expression's variable, or a number: bare, or as a block of its type."""
        if not isinstance(expr, Constant):
            return self.names[id(expr)]
        if expr.dtype.is_complex:
            raise UnsupportedError("complex values")
        text = self._number(expr.value, expr.dtype)
        if literal and type(expr.value) is not SymInt and expr.dtype is not dtypes.bool_ and expr.dtype.itemsize >= 4:
            return f"({text})" if text.startswith("-") else text
        return f"tl.full([{', '.join('1' * self.rank)}], {text}, {register(expr.dtype)})"

    def _number(self, value: Any, of: dtype) -> str:
        if type(value) is SymInt:
            return self.sizes.text(value)
        if of is dtypes.bool_:
            return str(bool(value))
        if not of.is_floating_point:
            return str(int(np.array(int(value), np.int64).astype(of.numpy)))  # numbers out of range wrap around
        if of is not dtypes.float64:
            with np.errstate(over="ignore"):
                value = of.numpy.type(value)  # rounded as an array of that type would hold it
        text = repr(float(value))
        return text if text[-1].isdigit() else f'float("{text}")'


class KernelEmitter(Expressions):
    """Writes the function of a kernel in its tiling."""

    def __init__(self, tiling: Tiling, blocks: Blocks, bindings: Mapping[str, int]) -> None:
        self.tiling = tiling
        self.kernel = tiling.kernel
        self.blocks = blocks
        self.bindings = bindings
        super().__init__(2 if tiling.second else 1)
        self.coarse = rounded_to_half(tiling.exprs, tiling.kernel.stores)
        self.buffers: dict[Buffer, str] = {}
        self.partial: dict[int, tuple[str, ...]] = {}  # looped fold -> accumulators
        self.coordinates: dict[str, list[str]] = {}
        self.used_loops: set[int] = set()
        self.draws: dict[Draws, int] = {}
        self.program = "tl.program_id(0)"
        self.wide = self._needs_wide_index()
        self.masked = {d: self._masked(d) for d in ("x", tiling.second) if d}

    # -- the function ------------------------------------------------------------------------------------------------

    def generate(self) -> Generated:
        for expr in self.tiling.exprs:
            if isinstance(expr, Load):
                buffer = expr.access.buffer
                self.buffers.setdefault(buffer.state if isinstance(buffer, Draws) else buffer, f"in{len(self.buffers)}")
        reads = len(self.buffers)
        for store in self.kernel.stores:
            self.buffers.setdefault(store.access.buffer, f"out{len(self.buffers) - reads}")
        body = Segment("    ")
        if self.tiling.r and not self.blocks.persistent:
            self._looped(body)
        else:
            self._straight(body)
        pointers = self._pointers()
        head = Segment("    ")
        self._head(head)
        name = self._name()
        constants = {"X_BLOCK": self.blocks.x}
        if self.tiling.second:
            constants[f"{self.tiling.second.upper()}_BLOCK"] = getattr(self.blocks, self.tiling.second)
        arguments = [
            *pointers.values(),
            *(n for n, _ in self.sizes.arguments()),
            *(f"{c}: tl.constexpr" for c in constants),
        ]
        main = "\n".join([f"@triton.jit\ndef {name}({', '.join(arguments)}):", *head.lines, *body.lines]) + "\n"
        helpers = "".join("\n" + HELPERS[h] for h in helpers_in(main))
        imports = IMPORTS if "libdevice." in main + helpers else IMPORTS.replace(IMPORTS.splitlines()[2] + "\n", "")
        return Generated(
            name,
            f"{imports}{helpers}\n\n{main}",
            tuple(pointers),
            tuple(pointers.values()),
            self.sizes.arguments(),
            constants,
            self._grid(),
            self.wide,
            self.sizes.divisible(self.bindings),
            self.blocks.num_warps,
        )

    def _pointers(self) -> dict[Buffer, str]:
        """The pointer arguments."""
        return self.buffers

    def _grid(self) -> tuple[tuple[Any, int], ...]:
        """(points, block size) of each dimension of the grid."""
        return tuple(
            (self.tiling.size(d), int(getattr(self.blocks, d))) for d in ("x", "y") if d == "x" or self.tiling.y
        )

    def _name(self) -> str:
        """Up to four operators, those that say most."""
        names = [n.op.name for n in self.kernel.nodes]
        kept = [n for n in dict.fromkeys(names) if n not in ("cast", "view", "expand", "permute", "clone")]
        return "_".join(["fused", *(kept or names)[:4]])

    def _head(self, segment: Segment) -> None:
        """Indices and masks. Written last, when it is known what is used."""
        t = self.tiling
        inside = self._inside() if t.part is not None else ""
        for buffer, name in self.buffers.items():
            shape = ", ".join(map(str, buffer.shape))
            segment.add(f"# {name}: {buffer.name}, {buffer.dtype.abbreviation}[{shape}]")
        program = self.program
        wide = ".to(tl.int64)" if self.wide else ""
        for d in filter(None, ("x", t.second)):
            segment.add(f"{d}_size = {self.sizes.text(t.size(d))}")
        if t.y:
            segment.add("x_programs = tl.cdiv(x_size, X_BLOCK)")
            segment.add(f"y = ({program} // x_programs){wide} * Y_BLOCK + tl.arange(0, Y_BLOCK)[None, :]")
            program = f"({program} % x_programs)"
        rows = "[:, None]" if self.rank == 2 else ""
        segment.add(f"x = {program}{wide} * X_BLOCK + tl.arange(0, X_BLOCK){rows}")
        if t.r and self.blocks.persistent:
            segment.add(f"r = tl.arange(0, R_BLOCK)[None, :]{wide}")
        for d in filter(None, ("x", t.second)):
            if d == "r" and not self.blocks.persistent:
                continue  # defined inside the loops
            if self.masked[d]:
                segment.add(f"{d}_mask = {d} < {d}_size")
            self._split_coordinates(segment, d)
        if inside and self.blocks.persistent:
            segment.add(inside)

    def _inside(self) -> str:
        """The line that says which elements of a block are in the part of a fold that a program has."""
        part = self.tiling.part
        assert part is not None
        size = "r_size" if same_size(part.size, self.tiling.size("r")) else self.sizes.factor(part.size)
        left = f"{self.sizes.factor(part.whole)} - {size} * {self._axis(part.number)}"
        inside = f"{self._axis(part.loop)} < {left}"
        return f"part_mask = r_mask & ({inside})" if self.masked["r"] else f"part_mask = {inside}"

    def _split_coordinates(self, segment: Segment, d: str) -> None:
        """The indices along the loops that a flattened dimension consists of."""
        loops = {"x": self.tiling.x, "y": self.tiling.y, "r": self.tiling.r}[d]
        if len(loops) < 2:
            return
        for position, i in enumerate(loops):
            if i not in self.used_loops:
                continue
            inner: Any = 1
            for j in loops[position + 1 :]:
                inner = inner * self.tiling.loops[j].size
            text = d if position == len(loops) - 1 else f"{d} // {self.sizes.factor(inner)}"
            if position:
                text += f" % {self.sizes.factor(self.tiling.loops[i].size)}"
            segment.add(f"{d}{position} = {text}")

    def _straight(self, segment: Segment) -> None:
        self._emit(segment, self.tiling.exprs)
        for store in self.kernel.stores:
            self._store(segment, store)

    def _looped(self, segment: Segment) -> None:
        """One loop a pass; what varies along r is computed in the loops, the rest between them."""
        t = self.tiling
        late: list[Store] = []
        early: dict[int, list[Store]] = {}
        last = t.passes - 1
        for store in self.kernel.stores:
            varies = "r" in t.varies[id(store.value)] or "r" in t.dimensions_of(store.access.strides)
            if varies:
                phase = t.phase[id(store.value)]
                early.setdefault(phase, []).append(store)
                last = max(last, phase)
            else:
                late.append(store)
        for index in range(last + 1):
            self._pass(segment, index, early.get(index, []))
        known = frozenset(self.names)
        self._emit(segment, post_order([s.value for s in late], known))
        for store in late:
            self._store(segment, store)

    def _pass(self, outer: Segment, index: int, stores: list[Store]) -> None:
        t = self.tiling
        folds = [r for r in t.reduces if t.phase[id(r)] == index + 1]
        roots = [(t.online.get(id(r)) or r).operand for r in folds] + [s.value for s in stores]
        needed = post_order(roots, frozenset(self.names))
        self._emit(outer, [e for e in needed if "r" not in t.varies[id(e)]])
        for fold in folds:
            self._open_fold(outer, fold)
        wide = ".to(tl.int64)" if self.wide else ""
        inner = Segment(outer.indent + "    ")
        varying = [e for e in needed if "r" in t.varies[id(e)]]
        outer.add(f"for r_start in {self._steps(varying)}:")
        self._emit(inner, varying)
        for store in stores:
            self._store(inner, store)
        for fold in reversed(folds):  # a sum of exponentials before the maximum that it is relative to
            self._advance_fold(inner, fold)
        head = Segment(inner.indent)
        head.add(f"r = r_start + tl.arange(0, R_BLOCK)[None, :]{wide}")
        if self.masked["r"]:
            head.add("r_mask = r < r_size")
        inside = self._inside() if t.part is not None else ""
        self._split_coordinates(head, "r")
        if inside:
            head.add(inside)
        outer.lines += head.lines + inner.lines
        for expr in varying:
            self.names.pop(id(expr), None)  # loaded and computed again in the next pass
        for fold in folds:
            self._close_fold(outer, fold)

    def _steps(self, varying: Sequence[Expr]) -> str:
        """The range of a loop along r. Where there are few programs, what it loads is copied to shared memory ahead:
        with many registers a thread they would wait for memory all the time."""
        t, steps = self.tiling, "0, r_size, R_BLOCK"
        programs = -(-concrete(t.size("x"), self.bindings) // self.blocks.x)
        loads = {e.access: e for e in varying if isinstance(e, Load) and {"x", "r"} <= t.varies[id(e)]}
        taken = sum(self.blocks.x * self.blocks.r * e.dtype.itemsize for e in loads.values())
        several = len(loads) > 1 and concrete(t.size("r"), self.bindings) >= 8 * self.blocks.r
        ahead = min(AHEAD // taken, 3) if several and programs <= 2 * PROGRAMS else 0
        return f"tl.range({steps}, num_stages={ahead + 1})" if ahead else f"range({steps})"

    # -- memory ------------------------------------------------------------------------------------------------------

    def _load(self, access: Access) -> str:
        where = self._affine(access.offset, access.strides)
        return self._element(access.buffer, where, self._mask(self.tiling.dimensions_of(access.strides)))

    def _picked(self, expr: Picked) -> str:
        at = self._value(expr.at)
        where = f"{self._affine(expr.access.offset, expr.access.strides)} + {self.sizes.factor(expr.step)} * {at}"
        inside = f"({at} >= 0) & ({at} < {self.sizes.factor(expr.size)})"
        varies = self.tiling.dimensions_of(expr.access.strides) | self.tiling.varies[id(expr.at)]
        mask = self._mask(varies)
        return self._element(expr.access.buffer, where, f"{mask} & {inside}" if mask else f", mask={inside}")

    def _element(self, buffer: Buffer, where: str, mask: str) -> str:
        """What lies at an offset, in the type that is computed with."""
        d = buffer.dtype
        pointer = self.buffers[buffer]
        address = pointer if where == "0" else f"{pointer} + {where}"
        text = f"tl.load({address}{mask})"
        if d is dtypes.bool_:
            return f"{text} != 0"
        return text if memory(d) == register(d) else f"{text}.to({register(d)})"

    def _draw(self, access: Access, draws: Draws) -> str:
        number = self.draws.setdefault(draws, len(self.draws))
        self.sizes.numbers[f"base{number}"] = draws.base(self.bindings)
        threads = str(draws.threads({})) if type(product(draws.shape)) is int else f"threads{number}"
        if not threads.isdigit():
            self.sizes.numbers[threads] = draws.threads(self.bindings)
        groups = self._groups_of_four(access) if draws.layout(self.bindings) == "quads" else None
        if groups is not None:
            return draws.elements_of(groups, self.buffers[draws.state], f"base{number}", threads)
        at = self._affine(access.offset, access.strides, block=True)
        return draws.element(at, self.buffers[draws.state], f"base{number}", threads, self.bindings)

    def _groups_of_four(self, access: Access) -> str | None:
        """A quarter of an access that goes through memory in order along the last dimension of a block."""
        t = self.tiling
        last, block = (t.r, self.blocks.r) if t.r else (t.x, self.blocks.x)
        own = t.strides(access.strides)
        if t.y or block % 4 or not last or type(access.offset) is not int or access.offset % 4:
            return None
        if not same_shape(tuple(own[i] for i in last), row_major([t.loops[i].size for i in last])):
            return None
        terms = [str(access.offset // 4)] if access.offset else []
        for i in t.x if t.r else ():
            stride = own[i]
            if type(stride) is not int or stride % 4:
                return None
            if stride:
                terms.append(f"{stride // 4} * {self._axis(i)}")
        if not t.r:
            wide = ".to(tl.int64)" if self.wide else ""
            terms.append(f"tl.program_id(0){wide} * (X_BLOCK // 4) + tl.arange(0, X_BLOCK // 4)")
        else:
            terms += ["tl.arange(0, R_BLOCK // 4)[None, :]", *([] if self.blocks.persistent else ["r_start // 4"])]
        return " + ".join(terms)

    def _store(self, segment: Segment, store: Store) -> None:
        access = store.access
        d = access.buffer.dtype
        value = self._value(store.value)
        if store.value.dtype is not d:
            value = convert(value, store.value.dtype, d)
            value = f"({value})" if " " in value else value
        if memory(d) != register(d):
            value = f"{value}.to({memory(d)})"
        varies = self.tiling.dimensions_of(access.strides)
        where = self._affine(access.offset, access.strides, block=True)
        segment.add(f"tl.store({self.buffers[access.buffer]} + {where}, {value}{self._mask(varies)})")

    def _index(self, expr: Index) -> str:
        block = not self.tiling.dimensions_of(expr.strides)
        text = self._affine(expr.offset, expr.strides, block)
        if expr.dtype is dtypes.bool_:
            return f"({text}) != 0"
        return f"({text}).to({register(expr.dtype)})"

    def _at(self, place: Place, target: str) -> str:
        """Whether elements are at a target. In a loop it is the target that moves, one number for all of a block."""
        strides = self.tiling.strides(place.strides)
        along = [i for i, s in enumerate(strides) if not is_zero(s)]
        if self.blocks.persistent or along != self.tiling.r or strides[along[0]] != 1:
            return f"{self._index(place)} == {target}"
        start = "r_start" if is_zero(place.offset) else f"(r_start + {self.sizes.factor(place.offset)})"
        return f"tl.arange(0, R_BLOCK)[None, :] == {target} - {start}"

    def _affine(self, offset: Any, strides: Strides, block: bool = False) -> str:
        """The text of an affine function of the axes; as a block also where it is constant, if asked for."""
        terms: list[str] = []
        for i, stride in enumerate(self.tiling.strides(strides)):
            if is_zero(stride):
                continue
            axis = self._axis(i)
            terms.append(axis if type(stride) is int and stride == 1 else f"{self.sizes.factor(stride)} * {axis}")
        if not terms:
            text = self.sizes.text(offset)
            if not block:
                return text
            return f"tl.full([{', '.join('1' * self.rank)}], {text}, {'tl.int64' if self.wide else 'tl.int32'})"
        if not is_zero(offset):
            terms.append(self.sizes.factor(offset))
        return " + ".join(terms).replace("+ -", "- ")

    def _axis(self, loop: int) -> str:
        t = self.tiling
        for name, loops in (("x", t.x), ("y", t.y), ("r", t.r)):
            if loop in loops:
                self.used_loops.add(loop)
                return name if len(loops) == 1 else f"{name}{loops.index(loop)}"
        raise AssertionError(loop)

    def _mask(self, varies: frozenset[str]) -> str:
        masks = [f"{d}_mask" for d in ("x", "y", "r") if d in varies and self.masked.get(d)]
        if self.tiling.part is not None and {"x", "r"} <= varies:
            masks = [*(m for m in masks if m != "r_mask"), "part_mask"]
        return f", mask={' & '.join(masks)}" if masks else ""

    def _masked(self, d: str) -> bool:
        """Whether the last block along a dimension may reach beyond the end."""
        size = self.tiling.size(d)
        return type(size) is not int or size == 0 or size % int(getattr(self.blocks, d)) != 0

    # -- sizes -------------------------------------------------------------------------------------------------------

    def _needs_wide_index(self) -> bool:
        """Whether some offset or count does not fit 32 bits. The last block's lanes beyond the end count too."""
        sizes = [concrete(loop.size, self.bindings) for loop in self.tiling.loops]
        largest = 1
        for d in ("x", "y", "r"):
            largest = max(largest, concrete(self.tiling.size(d), self.bindings) + int(getattr(self.blocks, d)))
        for access in self.tiling.accesses:
            strides = [concrete(s, self.bindings) for s in self.tiling.strides(access.strides)]
            reach = sum((n + self.blocks.x) * abs(s) for n, s in zip(sizes, strides, strict=True))
            largest = max(largest, abs(concrete(access.offset, self.bindings)) + reach)
        return largest >= _WIDE

    # -- folds -------------------------------------------------------------------------------------------------------

    def _neutral(self, fold: Reduce, value: str) -> str:
        """A fold's operand with the elements beyond the end made neutral, one for every element of the block."""
        of = fold.operand.dtype
        if fold.combine in ("any", "all", "max", "min", "argmax", "argmin") and of is dtypes.bool_:
            value = f"{value}.to(tl.int32)"
        if "r" not in self.tiling.varies[id(fold.operand)]:
            x = "X_BLOCK" if "x" in self.tiling.varies[id(fold.operand)] else "1"
            value = f"tl.broadcast_to({value}, [{x}, R_BLOCK])"
        mask = "part_mask" if self.tiling.part is not None else "r_mask" if self.masked["r"] else ""
        return f"tl.where({mask}, {value}, {self._start(fold)})" if mask else value

    def _start(self, fold: Reduce) -> str:
        """The neutral element, beside a block of the type that is folded."""
        number, of = identity(fold.combine, fold.operand.dtype), self._fold_type(fold)
        return number if of[-2:] in ("32", "64") else f"tl.full([1, 1], {number}, {of})"

    @staticmethod
    def _fold_type(fold: Reduce) -> str:
        return "tl.int32" if fold.operand.dtype is dtypes.bool_ else register(fold.operand.dtype)

    def _across(self, fold: Reduce, value: str) -> str:
        """A block folded along r, as a column; of the dtype that the fold has."""
        t = register(fold.dtype)
        kind = fold.combine
        floating = fold.operand.dtype.is_floating_point
        if kind == "sum":
            text = f"tl.sum({value}, 1)"
        elif kind == "prod":
            text = f"tl.reduce({value}, 1, _multiply)"
        elif kind in ("any", "all") or not floating:
            text = f"tl.{'max' if kind in ('any', 'max') else 'min'}({value}, 1)"
        else:
            text = f"tl.reduce({value}, 1, _{kind}imum)"
        if fold.dtype is dtypes.bool_:
            return f"{text}[:, None] != 0"
        # Triton folds narrow integers in 32 bits.
        kept = t == self._fold_type(fold) and t[-2:] in ("32", "64")
        return f"{text}[:, None]" if kept else f"{text}[:, None].to({t})"

    def _fold(self, fold: Reduce) -> str:
        """A fold of a block that holds the whole extent."""
        if not self.tiling.r:  # over axes of one element
            if fold.combine.startswith("arg"):
                return f"tl.full([{', '.join('1' * self.rank)}], 0, {register(fold.dtype)})"
            return convert(self._value(fold.operand), fold.operand.dtype, fold.dtype)
        value = self._neutral(fold, self._value(fold.operand))
        if not fold.combine.startswith("arg"):
            return self._across(fold, value)
        combine = "_larger_first" if fold.combine == "argmax" else "_smaller_first"
        return f"tl.reduce(({value}, {self._positions(fold)}), 1, {combine})[1][:, None].to({register(fold.dtype)})"

    def _positions(self, fold: Reduce) -> str:
        """The position of every element of a block; beyond the end, later than any."""
        x = "X_BLOCK" if "x" in self.tiling.varies[id(fold.operand)] else "1"
        return f"tl.broadcast_to(r, [{x}, R_BLOCK])"

    def _open_fold(self, segment: Segment, fold: Reduce) -> None:
        name = f"acc{len(self.partial)}"
        start = identity(fold.combine, fold.operand.dtype)
        chunk = self._chunk(fold)
        x = self._rows(fold)
        shape = f"[{x}, R_BLOCK // {chunk}]" if chunk > 1 else f"[{x}, R_BLOCK]"
        segment.add(f"{name} = tl.full({shape}, {start}, {self._fold_type(fold)})")
        if fold.combine.startswith("arg"):
            last = "0x7FFFFFFFFFFFFFFF, tl.int64" if self.wide else "0x7FFFFFFF, tl.int32"
            segment.add(f"{name}_at = tl.full({shape}, {last})")
            self.partial[id(fold)] = (name, f"{name}_at")
        else:
            self.partial[id(fold)] = (name,)

    def _advance_fold(self, segment: Segment, fold: Reduce) -> None:
        self._comment(segment, fold.node)
        largest = self.tiling.online.get(id(fold))
        name = self.partial[id(fold)][0]
        if largest is not None:
            self._advance_online(segment, name, largest)
            return
        value = self._neutral(fold, self._value(fold.operand))
        kind = fold.combine
        chunk = self._chunk(fold)
        if chunk > 1:
            value = f"tl.reduce({self._chunked(fold, value, chunk)}, 2, _maximum)"
        if kind.startswith("arg"):
            combine = "_larger_first" if kind == "argmax" else "_smaller_first"
            segment.add(f"{name}, {name}_at = {combine}({name}, {name}_at, {value}, r)")
        elif kind == "sum":
            segment.add(f"{name} += {value}")
        elif kind == "prod":
            segment.add(f"{name} *= {value}")
        elif fold.operand.dtype.is_floating_point:
            segment.add(f"{name} = _{kind}imum({name}, {value})")
        else:
            segment.add(f"{name} = tl.{'maximum' if kind in ('any', 'max') else 'minimum'}({name}, {value})")

    def _chunk(self, fold: Reduce) -> int:
        """Neighbours that a maximum, and the sum of exponentials relative to it, share an accumulator for: what a
        thread loads at once. The sum is then rescaled once for all of them."""
        online = self.tiling.online
        if id(fold) not in online and not any(largest is fold for largest in online.values()):
            return 1
        return min(self.tiling.chunk, self.blocks.r)

    def _chunked(self, fold: Reduce, value: str, chunk: int) -> str:
        return f"tl.reshape({value}, [{self._rows(fold)}, R_BLOCK // {chunk}, {chunk}])"

    def _rows(self, fold: Reduce) -> str:
        """How many rows a block of what is folded has: one that is the same along x is stored at one place."""
        varies = "x" in self.tiling.varies[id(fold.operand)] or self.tiling.part is not None
        return "X_BLOCK" if varies else "1"

    def _advance_online(self, segment: Segment, name: str, largest: Reduce) -> None:
        """A sum of exponentials relative to the largest number so far, each lane for itself."""
        before = self.partial[id(largest)][0]
        value, of = self._neutral(largest, self._value(largest.operand)), largest.operand.dtype
        chunk = self._chunk(largest)
        above, sums = f"{name}_top", ""
        if chunk > 1:
            segment.add(f"{name}_x = {self._chunked(largest, value, chunk)}")
            segment.add(f"{name}_top = _maximum({before}, tl.reduce({name}_x, 2, _maximum))")
            above, sums = f"{name}_top[:, :, None]", ", 2"
        else:
            segment.add(f"{name}_x = {value}")
            segment.add(f"{name}_top = _maximum({before}, {name}_x)")
        # Relative to 0 where there are infinities only, which have no difference.
        segment.add(f'{name}_top = tl.where({name}_top == float("-inf"), 0.0, {name}_top)')
        term = apply("exp", [f"{name}_x - {above}"], of)
        scale = apply("exp", [f"{before} - {name}_top"], of)
        segment.add(f"{name} = {name} * {scale} + {f'tl.sum({term}{sums})' if sums else term}")

    def _close_fold(self, segment: Segment, fold: Reduce) -> None:
        accumulators = self.partial[id(fold)]
        largest = self.tiling.online.get(id(fold))
        if largest is not None:
            top, m = self.partial[id(largest)][0], self.names[id(largest)]
            power = apply("exp", [f"{top} - {m}"], fold.dtype)
            self._bind(segment, fold, self._across(fold, f"{accumulators[0]} * {power}"))
            return
        if len(accumulators) == 2:
            combine = "_larger_first" if fold.combine == "argmax" else "_smaller_first"
            text = f"tl.reduce(({', '.join(accumulators)}), 1, {combine})[1][:, None].to({register(fold.dtype)})"
        else:
            text = self._across(fold, accumulators[0])
        self._bind(segment, fold, text)
