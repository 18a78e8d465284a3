"""Python source for a Kernel: NumPy calls on blocks that stay in cache, with `out=` registers.

An expression becomes an array over the axes that it varies along (size 1 along the others, so that NumPy broadcasts).
The iteration space is cut into blocks of `BLOCK` elements; inside a block a chain of instructions never leaves the
cache. Three forms:

    one block       small kernels: straight-line code
    parallel        loops over parallel axes; each block holds whole folds (softmax, norms: folded elements are needed
                    again)
    accumulating    loops over reduction axes as well; partial folds are combined in accumulators, and what follows the
                    folds runs after the loop

Sizes, arrays and registers are parameters: kernels of equal form share one compiled function.
"""

from __future__ import annotations

import linecache
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

import numpy as np

from graphtorch.ir.graph import Node
from graphtorch.lowering.binding import concrete
from graphtorch.lowering.kernel import Access, Buffer, Compute, Constant, Expr, Index, Kernel, Load, Reduce
from graphtorch.lowering.numpy.instructions import EXPANSIONS, UFUNCS, fallback, fold_argument
from graphtorch.tensor import dtypes
from graphtorch.tensor.dtypes import dtype

BLOCK = 32768  # elements: with a handful of float32 registers a block fits a 1-2 MiB second-level cache

Mask = tuple[bool, ...]  # along which axes an expression varies


class Slot(NamedTuple):
    """An array parameter over memory: shape, and strides and offset in elements."""

    buffer: Buffer
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int


class Register(NamedTuple):
    """Scratch memory for one block of an expression."""

    dtype: dtype
    shape: tuple[int, ...]


@dataclass
class Lowered:
    """A kernel as a Python function and what to call it with: `function(*loads, *indices, *stores, *registers,
    *sizes)`."""

    function: Callable[..., None]
    source: str
    loads: list[Slot]
    indices: list[np.ndarray[Any, Any]]
    stores: list[Slot]
    registers: list[Register]
    sizes: list[int]


@dataclass
class _Segment:
    """Straight-line code for one block: lines, and the registers' state while it is written."""

    indent: str
    lines: list[str] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)  # expression -> array
    sliced: set[str] = field(default_factory=set)


def lower_kernel(kernel: Kernel, bindings: Mapping[str, int], block: int = BLOCK) -> Lowered:
    """Generate and compile a kernel for given sizes."""
    return _Emitter(kernel, bindings, block).lower()


class _Emitter:
    def __init__(self, kernel: Kernel, bindings: Mapping[str, int], block: int) -> None:
        self.kernel = kernel
        self.bindings = bindings
        self.limit = block
        sizes = [concrete(a.size, bindings) for a in kernel.axes]
        self.order = self._memory_order(sizes)
        self.sizes = tuple(sizes[i] for i in self.order)
        self.reduction = tuple(kernel.axes[i].reduction for i in self.order)
        self.rank = len(sizes)
        self.masks: dict[int, Mask] = {}
        self.postorder: list[Expr] = []
        self._visit_all()
        self.reduces = [e for e in self.postorder if isinstance(e, Reduce)]
        self.accumulating = False
        self.extents = self._choose_block()
        self.looped = tuple(e < n for e, n in zip(self.extents, self.sizes, strict=True))
        self.loads: list[Slot] = []
        self.load_names: dict[int, str] = {}
        self.indices: list[np.ndarray[Any, Any]] = []
        self.stores: list[Slot] = []
        self.constants: dict[str, Any] = {}
        self.constant_names: dict[tuple[Any, ...], str] = {}
        self.registers: list[Register] = []
        self.free: dict[tuple[dtype, Mask], list[str]] = {}
        self.register_of: dict[str, tuple[dtype, Mask]] = {}
        self.helpers: dict[str, Any] = {}
        self.needs_extents = False

    # -- analysis ----------------------------------------------------------------------------------------------------

    def _memory_order(self, sizes: list[int]) -> list[int]:
        """Axes in the order of memory of the widest access: NumPy's inner loops then run along it, whichever axes are
        folded."""
        accesses = [s.access for s in self.kernel.stores]
        accesses += [e.access for e in self.kernel.exprs() if isinstance(e, Load)]
        main: tuple[int, ...] = (0,) * len(sizes)  # of a kernel that has nothing to store
        widest = -1
        for access in accesses:
            strides = tuple(concrete(s, self.bindings) for s in access.strides)
            covered = prod(n for n, s in zip(sizes, strides, strict=True) if s)
            if covered > widest:
                widest, main = covered, strides
        return sorted(range(len(sizes)), key=lambda i: (-abs(main[i]) if main[i] else 1, i))

    def _visit_all(self) -> None:
        for expr in self.kernel.exprs():
            if isinstance(expr, Load | Index):
                strides = expr.access.strides if isinstance(expr, Load) else expr.strides
                mask = tuple(concrete(strides[i], self.bindings) != 0 for i in self.order)
            else:
                mask = (False,) * self.rank
                for operand in expr.operands():
                    mask = tuple(a or b for a, b in zip(mask, self.masks[id(operand)], strict=True))
                if isinstance(expr, Reduce):
                    folded = self._positions(expr)
                    mask = tuple(m and i not in folded for i, m in enumerate(mask))
            self.masks[id(expr)] = mask
            self.postorder.append(expr)

    def _positions(self, reduce: Reduce) -> tuple[int, ...]:
        """The axes of a fold as positions in memory order, in the kernel's own (row-major) order."""
        return tuple(self.order.index(a) for a in reduce.axes)

    def _folds_once(self) -> bool:
        """Whether nothing after a fold varies along the folded axes, so that one pass with accumulators suffices."""
        if any(set(r.axes) != set(self.reduces[0].axes) or r.combine.startswith("arg") for r in self.reduces):
            return False
        after: set[int] = set()
        for expr in self.postorder:
            if isinstance(expr, Reduce) or any(id(o) in after for o in expr.operands()):
                if isinstance(expr, Reduce) and id(expr.operand) in after:
                    return False
                after.add(id(expr))
                if any(m and r for m, r in zip(self.masks[id(expr)], self.reduction, strict=True)):
                    return False
        # A store of a folded value along a reduction axis would have to wait for the fold.
        return all(
            id(s.value) not in after
            or not any(
                concrete(st, self.bindings) and a.reduction
                for st, a in zip(s.access.strides, self.kernel.axes, strict=True)
            )
            for s in self.kernel.stores
        )

    def _choose_block(self) -> tuple[int, ...]:
        """Block sizes: outer axes in memory order are cut until a block has at most `limit` elements."""
        extents = list(self.sizes)
        work = sum(isinstance(e, Compute | Reduce) for e in self.postorder)
        if prod(self.sizes) <= self.limit or work == 0:
            return self.sizes
        cut_folds = not self.reduces or self._folds_once()
        for i in range(self.rank):
            if self.reduction[i] and not cut_folds:
                continue
            rest = prod(extents) // extents[i]
            extents[i] = min(extents[i], max(1, self.limit // rest))
            if prod(extents) <= self.limit:
                break
        self.accumulating = any(r and e < n for r, e, n in zip(self.reduction, extents, self.sizes, strict=True))
        return tuple(extents)

    # -- emission ----------------------------------------------------------------------------------------------------

    def lower(self) -> Lowered:
        for access in (e.access for e in self.postorder if isinstance(e, Load)):
            self.load_names[id(access)] = f"x{len(self.loads)}"
            self.loads.append(self._slot(access))
        index_names = {}
        for expr in self.postorder:
            if isinstance(expr, Index):
                index_names[id(expr)] = f"k{len(self.indices)}"
                self.indices.append(self._index_array(expr))
        self.index_names = index_names
        self.stores = [self._slot(s.access) for s in self.kernel.stores]
        lines = self._accumulating_body() if self.accumulating else self._plain_body()
        looped = [i for i in range(self.rank) if self.looped[i]]
        sizes: list[int] = []
        names: list[str] = []
        for i in range(self.rank):
            if i in looped or self.needs_extents:
                names.append(f"n{i}")
                sizes.append(self.sizes[i])
            if i in looped:
                names.append(f"b{i}")
                sizes.append(self.extents[i])
        parameters = [
            *(f"x{i}" for i in range(len(self.loads))),
            *(f"k{i}" for i in range(len(self.indices))),
            *(f"y{i}" for i in range(len(self.stores))),
            *(f"r{i}" for i in range(len(self.registers))),
            *names,
        ]
        source = "\n".join([f"def kernel({', '.join(parameters)}):", *self._header(), *lines]) + "\n"
        function = compile_source(source, {**self.constants, **self.helpers}, self.kernel.name)
        return Lowered(function, source, self.loads, self.indices, self.stores, self.registers, sizes)

    def _header(self) -> list[str]:
        """What the parameters stand for, as comments."""
        lines = []
        for i, slot in enumerate(self.loads):
            lines.append(f"    # x{i} = {slot.buffer.name}: {slot.buffer.dtype.abbreviation}{list(slot.shape)}")
        for i, slot in enumerate(self.stores):
            lines.append(f"    # y{i} = {slot.buffer.name}: {slot.buffer.dtype.abbreviation}{list(slot.shape)}")
        for name, value in self.constants.items():
            lines.append(f"    # {name} = {value}: {value.dtype}")
        return lines

    def _slot(self, access: Access) -> Slot:
        strides = tuple(concrete(access.strides[i], self.bindings) for i in self.order)
        shape = tuple(n if s else 1 for n, s in zip(self.sizes, strides, strict=True))
        return Slot(access.buffer, shape, strides, concrete(access.offset, self.bindings))

    def _index_array(self, index: Index) -> np.ndarray[Any, Any]:
        """The values of an affine function as a strided view of one short range."""
        strides = [concrete(index.strides[i], self.bindings) for i in self.order]
        shape = [n if s else 1 for n, s in zip(self.sizes, strides, strict=True)]
        low = sum(min(0, s * (n - 1)) for n, s in zip(shape, strides, strict=True))
        high = sum(max(0, s * (n - 1)) for n, s in zip(shape, strides, strict=True))
        first = concrete(index.offset, self.bindings)
        values = np.arange(first + low, first + high + 1).astype(index.dtype.numpy)
        item = values.itemsize
        return np.lib.stride_tricks.as_strided(values[-low:], shape, [s * item for s in strides])

    def _plain_body(self) -> list[str]:
        lines: list[str] = []
        indent = self._open_loops(lines, "    ", range(self.rank))
        segment = _Segment(indent)
        self._emit(segment, self.postorder, list(range(len(self.kernel.stores))))
        return lines + (segment.lines or [indent + "pass"])

    def _open_loops(self, lines: list[str], indent: str, axes: Any) -> str:
        for i in axes:
            if self.looped[i]:
                lines.append(f"{indent}for i{i} in range(0, n{i}, b{i}):")
                indent += "    "
                lines.append(f"{indent}e{i} = min(i{i} + b{i}, n{i})")
                lines.append(f"{indent}m{i} = e{i} - i{i}")
        return indent

    def _accumulating_body(self) -> list[str]:
        """Parallel loops; inside, loops over the reduction axes that fill accumulators; then what follows the folds."""
        lines: list[str] = []
        outer = self._open_loops(lines, "    ", [i for i in range(self.rank) if not self.reduction[i]])
        early_stores = [j for j in range(len(self.kernel.stores)) if self._varies_along_fold(j)]
        late_stores = [j for j in range(len(self.kernel.stores)) if j not in early_stores]
        body_roots = [r.operand for r in self.reduces] + [self.kernel.stores[j].value for j in early_stores]
        body = _reachable(body_roots, stop=())
        late_roots = [self.kernel.stores[j].value for j in late_stores]
        late = _reachable(late_roots, stop=self.reduces)
        accumulators: dict[int, str] = {}
        init = _Segment(outer)
        for reduce in self.reduces:
            of = _wide(reduce)
            name = self._register(of, self.masks[id(reduce)])
            accumulators[id(reduce)] = name
            self._sliced(init, name, self.masks[id(reduce)])
            init.lines.append(
                f"{outer}{self._block_name(name, self.masks[id(reduce)])}.fill({_identity(reduce.combine, of)})"
            )
        inner_lines: list[str] = []
        inner = self._open_loops(inner_lines, outer, [i for i in range(self.rank) if self.reduction[i]])
        segment = _Segment(inner, sliced=set(init.sliced))
        self._emit(segment, [e for e in self.postorder if id(e) in body], early_stores, folds=accumulators)
        tail = _Segment(outer, sliced=set(init.sliced))
        for reduce in self.reduces:
            mask = self.masks[id(reduce)]
            name = self._block_name(accumulators[id(reduce)], mask)
            if _wide(reduce) is not reduce.dtype:
                narrow = self._register(reduce.dtype, mask)
                self._sliced(tail, narrow, mask)
                tail.lines.append(f"{outer}copyto({self._block_name(narrow, mask)}, {name}, casting='unsafe')")
                self._use("copyto", np.copyto)
                name = self._block_name(narrow, mask)
            tail.names[id(reduce)] = name
        self._emit(tail, [e for e in self.postorder if id(e) in late and not isinstance(e, Reduce)], late_stores)
        return lines + init.lines + inner_lines + segment.lines + tail.lines

    def _varies_along_fold(self, store: int) -> bool:
        return any(s and r for s, r in zip(self.stores[store].strides, self.reduction, strict=True))

    def _emit(
        self, segment: _Segment, exprs: list[Expr], stores: list[int], folds: dict[int, str] | None = None
    ) -> None:
        """Write the instructions of one block. `folds`: accumulators that take the partial folds of the block."""
        uses = self._uses(exprs, stores, folds is not None)
        last_load = self._last_loads(exprs)
        destination: dict[int, int] = {}
        for j in stores:
            destination.setdefault(id(self.kernel.stores[j].value), j)
        written: set[int] = set()
        for position, expr in enumerate(exprs):
            key = id(expr)
            if key in segment.names:
                continue
            if isinstance(expr, Load):
                segment.names[key] = self._sliced(segment, self.load_names[id(expr.access)], self.masks[key])
            elif isinstance(expr, Index):
                segment.names[key] = self._sliced(segment, self.index_names[key], self.masks[key])
            elif isinstance(expr, Constant):
                segment.names[key] = self._constant(expr)
            else:
                store = destination.get(key)
                if store is not None and not self._may_write_directly(expr, store, position, last_load):
                    store = None
                if store is not None:
                    written.add(store)
                if isinstance(expr, Compute):
                    self._instruction(segment, expr, store, uses)
                elif isinstance(expr, Reduce):
                    self._fold(segment, expr, store, uses)
        if folds is not None:
            for reduce in self.reduces:
                self._accumulate(segment, reduce, folds[id(reduce)])
        self._save_loads(segment, [j for j in stores if j not in written])
        for j in stores:
            if j not in written:
                target = self._sliced(segment, f"y{j}", self._store_mask(j))
                value = self.kernel.stores[j].value
                segment.lines.append(f"{segment.indent}copyto({target}, {segment.names[id(value)]}, casting='unsafe')")
                self._use("copyto", np.copyto)
        # Registers that hold stored values or folds may be reused by the next segment.
        for key in [k for k, n in segment.names.items() if n.rstrip("_") in self.register_of]:
            name = segment.names[key].rstrip("_")
            if uses.get(key, 0) > 0 and (folds is None or name not in folds.values()):
                self._release(name)
                uses[key] = 0

    def _save_loads(self, segment: _Segment, stores: list[int]) -> None:
        """Copy what is stored as it was loaded, where another store may overwrite it first (two inputs that swap)."""
        for j in stores:
            value = self.kernel.stores[j].value
            if isinstance(value, Load) and any(
                _may_share(value.access, self.kernel.stores[k].access) for k in stores if k != j
            ):
                mask = self.masks[id(value)]
                saved = self._sliced(segment, self._register(value.dtype, mask), mask)
                segment.lines.append(f"{segment.indent}copyto({saved}, {segment.names[id(value)]})")
                segment.names[id(value)] = saved
                self._use("copyto", np.copyto)

    def _uses(self, exprs: list[Expr], stores: list[int], folding: bool) -> dict[int, int]:
        uses: dict[int, int] = {}
        for expr in exprs:
            for operand in expr.operands():
                uses[id(operand)] = uses.get(id(operand), 0) + 1
        held = [self.kernel.stores[j].value for j in stores] + ([r.operand for r in self.reduces] if folding else [])
        for expr in held:
            uses[id(expr)] = uses.get(id(expr), 0) + 1
        return uses

    def _last_loads(self, exprs: list[Expr]) -> list[tuple[Access, int]]:
        """Every access that is read, with the position of its last reader: until then nothing may be stored over it."""
        last: dict[int, tuple[Access, int]] = {}
        for position, expr in enumerate(exprs):
            for operand in expr.operands():
                if isinstance(operand, Load):
                    last[id(operand)] = (operand.access, position)
        for store in self.kernel.stores:
            if isinstance(store.value, Load):
                last[id(store.value)] = (store.value.access, len(exprs))
        return list(last.values())

    def _may_write_directly(self, expr: Expr, store: int, position: int, last: list[tuple[Access, int]]) -> bool:
        """Whether the instruction may write into the stored buffer: the same shape, and nothing reads what lies there
        any more.

        Buffers that are accessed alike may share memory, by donation or by the memory plan.
        """
        access = self.kernel.stores[store].access
        if self._store_mask(store) != self.masks[id(expr)] or access.buffer.dtype is not expr.dtype:
            return False
        at_once = isinstance(expr, Compute) and expr.instruction not in EXPANSIONS
        for other, until in last:
            if _may_share(other, access) and (until > position or (until == position and not at_once)):
                return False
        return True

    def _store_mask(self, store: int) -> Mask:
        return tuple(s != 0 for s in self.stores[store].strides)

    def _instruction(self, segment: _Segment, expr: Compute, store: int | None, uses: dict[int, int]) -> None:
        names = [segment.names[id(o)] for o in expr.arguments]
        mask = self.masks[id(expr)]
        if expr.node is not None:
            self._comment(segment, expr.node)
        expansion = EXPANSIONS.get(expr.instruction)
        ufunc = UFUNCS.get(expr.instruction)
        direct = ufunc is not None and _plain_types(expr)
        if not direct and (expansion is None or not _plain_types(expr)):
            name = f"{expr.instruction}_{expr.dtype.abbreviation}"
            self._use(name, fallback(expr.instruction, expr.dtype))
            target = f"v{len(segment.names)}"
            segment.lines.append(f"{segment.indent}{target} = {name}({', '.join(names)})")
            segment.names[id(expr)] = target
            self._consume(expr, segment, uses)
            if store is not None:
                place = self._sliced(segment, f"y{store}", mask)
                segment.lines.append(f"{segment.indent}copyto({place}, {target}, casting='unsafe')")
                self._use("copyto", np.copyto)
            return
        reusable = direct or expr.instruction != "where"  # which reads its operands one after another
        if reusable:
            self._consume(expr, segment, uses)
        if store is not None:
            out = self._sliced(segment, f"y{store}", mask)
        else:
            out = self._sliced(segment, self._register(expr.dtype, mask), mask)
        if not reusable:
            self._consume(expr, segment, uses)
        if direct:
            assert ufunc is not None
            self._use(ufunc.__name__, ufunc)
            segment.lines.append(f"{segment.indent}{ufunc.__name__}({', '.join(names)}, out={out})")
        else:
            assert expansion is not None
            for line in expansion.lines(names, out, expr.dtype):
                segment.lines.append(segment.indent + line)
            for name, function in expansion.functions.items():
                self._use(name, function)
            for name, number in expansion.constants.items():
                typed = f"{name}_{expr.dtype.abbreviation}"
                self.constants[typed] = np.asarray(number, expr.dtype.numpy)
        segment.names[id(expr)] = out

    def _consume(self, expr: Expr, segment: _Segment, uses: dict[int, int]) -> None:
        """Free the registers of operands that have no further use."""
        for operand in expr.operands():
            key = id(operand)
            uses[key] -= 1
            if uses[key] == 0:
                self._release(segment.names[key].rstrip("_"))

    def _fold(self, segment: _Segment, reduce: Reduce, store: int | None, uses: dict[int, int]) -> None:
        """A whole fold inside the block."""
        mask = self.masks[id(reduce)]
        if reduce.node is not None:
            self._comment(segment, reduce.node)
        operand = self._full_along(segment, reduce)
        axes = self._positions(reduce)
        out = f"y{store}" if store is not None else self._register(reduce.dtype, mask)
        out = self._sliced(segment, out, mask)
        if reduce.combine.startswith("arg"):
            self._use(reduce.combine, fold_argument(reduce.combine))
            segment.lines.append(f"{segment.indent}{reduce.combine}({operand}, {axes}, {out})")
        else:
            function = _FOLDS[reduce.combine]
            self._use(function.__name__, function)
            of = _wide(reduce)
            call = f"{function.__name__}.reduce({operand}, axis={axes}, keepdims=True"
            if of is reduce.dtype:
                segment.lines.append(f"{segment.indent}{call}, out={out})")
            else:
                self._use("copyto", np.copyto)
                self._use(of.name, of.numpy.type)
                segment.lines.append(f"{segment.indent}copyto({out}, {call}, dtype={of.name}), casting='unsafe')")
        segment.names[id(reduce)] = out
        self._consume(reduce, segment, uses)

    def _accumulate(self, segment: _Segment, reduce: Reduce, accumulator: str) -> None:
        """Combine the block's partial fold into an accumulator."""
        function = _FOLDS[reduce.combine]
        self._use(function.__name__, function)
        if reduce.node is not None:
            self._comment(segment, reduce.node)
        of = _wide(reduce)
        name = self._block_name(accumulator, self.masks[id(reduce)])
        widened = "" if of is reduce.dtype else f", dtype={of.name}"
        if widened:
            self._use(of.name, of.numpy.type)
        operand = self._full_along(segment, reduce)
        axes = self._positions(reduce)
        partial = f"{function.__name__}.reduce({operand}, axis={axes}, keepdims=True{widened})"
        segment.lines.append(f"{segment.indent}{function.__name__}({name}, {partial}, out={name})")

    def _full_along(self, segment: _Segment, reduce: Reduce) -> str:
        """The operand of a fold, repeated along folded axes that it does not vary along."""
        name = segment.names[id(reduce.operand)]
        mask = self.masks[id(reduce.operand)]
        axes = self._positions(reduce)
        if all(mask[a] for a in axes):
            return name
        shape = []
        for i in range(self.rank):
            inside = mask[i] or i in axes
            shape.append((f"m{i}" if self.looped[i] else f"n{i}") if inside else "1")
        self._use("broadcast_to", np.broadcast_to)
        self.needs_extents = True
        return f"broadcast_to({name}, ({', '.join(shape)},))"

    # -- names -------------------------------------------------------------------------------------------------------

    def _comment(self, segment: _Segment, node: Node) -> None:
        where = node.location
        text = f"{segment.indent}# {node.op.name}"
        if node.origin:
            text += f", {node.origin}"
        if where.file:
            text += f"  {where.file}:{where.line}  {where.text}".rstrip()
        segment.lines.append(text.replace("\n", " "))

    def _use(self, name: str, function: Any) -> None:
        self.helpers[name] = function

    def _constant(self, constant: Constant) -> str:
        value = concrete(constant.value, self.bindings)
        key = (repr(value), constant.dtype)
        name = self.constant_names.get(key)
        if name is None:
            name = self.constant_names[key] = f"c{len(self.constant_names)}"
            self.constants[name] = np.asarray(value).astype(constant.dtype.numpy)
        return name

    def _register(self, of: dtype, mask: Mask) -> str:
        """A free register of that dtype and extent, or a new one."""
        free = self.free.get((of, mask))
        if free:
            return free.pop()
        name = f"r{len(self.registers)}"
        self.registers.append(Register(of, tuple(e if m else 1 for e, m in zip(self.extents, mask, strict=True))))
        self.register_of[name] = (of, mask)
        return name

    def _release(self, name: str) -> None:
        key = self.register_of.get(name)
        if key is not None:
            self.free.setdefault(key, []).append(name)

    def _block_name(self, name: str, mask: Mask) -> str:
        return f"{name}_" if any(m and loop for m, loop in zip(mask, self.looped, strict=True)) else name

    def _sliced(self, segment: _Segment, name: str, mask: Mask) -> str:
        """The part of an array that belongs to the current block, cut once a segment."""
        block = self._block_name(name, mask)
        if block != name and name not in segment.sliced:
            segment.sliced.add(name)
            register = name in self.register_of
            cuts = []
            for i in range(self.rank):
                cut = self.looped[i] and mask[i]
                cuts.append((f":m{i}" if register else f"i{i}:e{i}") if cut else ":")
            while cuts[-1] == ":":
                cuts.pop()
            segment.lines.append(f"{segment.indent}{block} = {name}[{', '.join(cuts)}]")
        return block


def _may_share(a: Access, b: Access) -> bool:
    """Whether two buffers may lie in the same memory: by donation, or by the memory plan."""
    return a.buffer is b.buffer or a.buffer.kind == b.buffer.kind == "temporary"


def _reachable(roots: list[Expr], stop: Any) -> set[int]:
    """The expressions that `roots` are made of, not looking into those in `stop`."""
    ends = {id(e) for e in stop}
    seen: set[int] = set()
    stack = list(roots)
    while stack:
        expr = stack.pop()
        if id(expr) in seen:
            continue
        seen.add(id(expr))
        if id(expr) not in ends:
            stack.extend(expr.operands())
    return seen


_FOLDS: dict[str, np.ufunc] = {
    "sum": np.add,
    "prod": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
    "any": np.logical_or,
    "all": np.logical_and,
}


def _wide(reduce: Reduce) -> dtype:
    """The dtype that a fold accumulates in."""
    if reduce.combine in ("sum", "prod") and reduce.dtype in (dtypes.float16, dtypes.bfloat16):
        return dtypes.float32
    return reduce.dtype


def _identity(combine: str, of: dtype) -> str:
    """The number that a fold starts from, as source."""
    if combine in ("sum", "any"):
        return "0"
    if combine in ("prod", "all"):
        return "1"
    if of.is_floating_point:
        return "float('-inf')" if combine == "max" else "float('inf')"
    if of is dtypes.bool_:
        return "False" if combine == "max" else "True"
    info = np.iinfo(of.numpy)
    return str(info.min if combine == "max" else info.max)


def _plain_types(expr: Compute) -> bool:
    """Whether NumPy's own function has PyTorch's meaning on these dtypes: not where complex numbers are cut or
    ordered."""
    if expr.instruction == "cast":
        return expr.dtype.is_complex or not expr.arguments[0].dtype.is_complex
    return not any(a.dtype.is_complex for a in expr.arguments) or expr.instruction in _COMPLEX


_COMPLEX = frozenset(
    [
        "add",
        "sub",
        "mul",
        "div",
        "neg",
        "exp",
        "log",
        "sqrt",
        "sin",
        "cos",
        "tan",
        "sinh",
        "cosh",
        "tanh",
        "abs",
        "eq",
        "ne",
    ]
)

_COMPILED: dict[tuple[Any, ...], Callable[..., None]] = {}


def compile_source(source: str, scope: Mapping[str, Any], name: str) -> Callable[..., None]:
    """Compile generated source once for each different text (comments aside), and let tracebacks show it."""
    key = (
        "\n".join(line for line in source.splitlines() if not line.lstrip().startswith("#")),
        tuple(
            (k, v.tobytes() + v.dtype.str.encode() if isinstance(v, np.ndarray) else id(v)) for k, v in scope.items()
        ),
    )
    found = _COMPILED.get(key)
    if found is None:
        filename = f"<graphtorch {name} #{len(_COMPILED)}>"
        linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
        namespace = dict(scope)
        exec(compile(source, filename, "exec"), namespace)
        function: Callable[..., None] = namespace["kernel"]
        found = _COMPILED[key] = function
    return found
