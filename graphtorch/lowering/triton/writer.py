"""Triton functions over the elements of a shape, written line by line: what calls that move elements are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from graphtorch.ir.graph import Node
from graphtorch.lowering.binding import concrete
from graphtorch.lowering.kernel import Buffer, ExternCall, View
from graphtorch.lowering.triton.codegen import IMPORTS, Generated, comment
from graphtorch.lowering.triton.errors import UnsupportedError
from graphtorch.lowering.triton.instructions import HELPERS, helpers_in, memory, register
from graphtorch.lowering.triton.sizes import Sizes
from graphtorch.lowering.triton.tiling import Limits, is_zero, power_of_two, warps
from graphtorch.tensor import dtypes

ATOMIC = (dtypes.float32, dtypes.float64, dtypes.int32, dtypes.int64)


@dataclass
class Writer:
    """A function over the elements of some shape: `i0`, `i1`, ... are an element's indices, `n` its number.

    channels_last   of a shape (N, C, H, W): elements are numbered in the order (N, H, W, C)
    """

    call: ExternCall
    name: str
    shape: Sequence[Any]
    bindings: Mapping[str, int]
    limits: Limits
    sizes: Sizes = field(default_factory=Sizes)
    buffers: dict[Buffer, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    reach: int = 0
    indent: str = "    "
    channels_last: bool = False

    def pointer(self, buffer: Buffer) -> str:
        """The argument for a buffer."""
        register(buffer.dtype)
        reach = 1
        for size in concrete(buffer.shape, self.bindings):
            reach *= size
        self.reach = max(self.reach, reach)
        return self.buffers.setdefault(buffer, f"p{len(self.buffers)}")

    def load(self, view: View, indices: Sequence[str], mask: str = "mask") -> str:
        """An element of a view; 0 where the mask is false."""
        terms: list[str] = []
        for stride, index in zip(view.strides, indices, strict=True):
            if not is_zero(stride) and index != "0":
                terms.append(index if stride == 1 and type(stride) is int else f"{self.sizes.factor(stride)} * {index}")
        for size, stride in zip(
            concrete(view.shape, self.bindings), concrete(view.strides, self.bindings), strict=True
        ):
            self.reach = max(self.reach, size * abs(stride) + concrete(view.offset, self.bindings))
        terms = terms or ["n * 0"]  # a block, as the mask is
        if not is_zero(view.offset):
            terms.insert(0, self.sizes.factor(view.offset))
        return f"tl.load({self.pointer(view.buffer)} + {' + '.join(terms)}, mask={mask}, other=0)"

    def let(self, name: str, text: str) -> str:
        self.add_line(f"{name} = {text}")
        return name

    def add_line(self, line: str) -> None:
        self.lines.append(self.indent + line)

    @contextmanager
    def loop(self, name: str, count: Any) -> Iterator[None]:
        """A block of lines that runs for every number below `count`."""
        self.add_line(f"for {name} in range({count}):")
        before = self.indent
        self.indent += "    "
        yield
        self.indent = before

    def store(self, buffer: Buffer, value: str, where: str = "n", mask: str = "mask") -> None:
        self.add_line(f"tl.store({self.pointer(buffer)} + {where}, {value}, mask={mask})")

    def index(self, view: View, indices: Sequence[str], size: Any) -> tuple[str, str]:
        """An index read from memory, and the mask of those within a dimension of that size."""
        at = self.let("at", self.load(view, indices))
        return at, self.let("inside", f"mask & ({at} >= 0) & ({at} < {self.sizes.factor(size)})")

    def inside(self, row: str, rows: Any, column: str, columns: Any) -> str:
        """The mask of the places of a plane."""
        r, c = self.sizes.factor(rows), self.sizes.factor(columns)
        return self.let("inside", f"mask & ({row} >= 0) & ({row} < {r}) & ({column} >= 0) & ({column} < {c})")

    def add(self, buffer: Buffer, where: str, value: str, mask: str) -> None:
        """An atomic addition to an element."""
        # Relaxed: nothing is ordered by it, and later launches see it. The default is a fence around each addition.
        self.add_line(f'tl.atomic_add({self.pointer(buffer)} + {where}, {value}, mask={mask}, sem="relaxed")')

    def finish(self) -> Generated:
        """The function."""
        count: Any = 1
        for size in self.shape:
            count = count * size
        total = concrete(count, self.bindings)
        block = min(power_of_two(total), self.limits.pointwise)
        wide = max(self.reach, total + block) >= 2**31
        long = ".to(tl.int64)" if wide else ""
        head = [f"    {comment(node)}" for node in self.call.nodes if type(node) is Node]
        head += [
            f"    # {name}: {b.name}, {b.dtype.abbreviation}[{', '.join(map(str, b.shape))}]"
            for b, name in self.buffers.items()
        ]
        head.append(f"    n = tl.program_id(0){long} * BLOCK + tl.arange(0, BLOCK)")
        head.append(f"    mask = n < {self.sizes.text(count)}")
        inner: Any = 1
        coordinates = []
        for i in (1, 3, 2, 0) if self.channels_last else reversed(range(len(self.shape))):  # the fastest first
            text = "n" if type(inner) is int and inner == 1 else f"n // {self.sizes.factor(inner)}"
            coordinates.append(f"    i{i} = {text}" + (f" % {self.sizes.factor(self.shape[i])}" if i else ""))
            inner = inner * self.shape[i]
        body = "\n".join([*head, *reversed(coordinates), *self.lines])
        helpers = "".join("\n" + HELPERS[h] for h in helpers_in(body))
        pointers = list(self.buffers.values())
        arguments = ", ".join([*pointers, *(n for n, _ in self.sizes.arguments()), "BLOCK: tl.constexpr"])
        imports = IMPORTS if "libdevice." in body + helpers else "".join(IMPORTS.splitlines(True)[:2])
        return Generated(
            self.name,
            f"{imports}{helpers}\n\n@triton.jit\ndef {self.name}({arguments}):\n{body}\n",
            tuple(self.buffers),
            tuple(pointers),
            self.sizes.arguments(),
            {"BLOCK": block},
            ((count, block),),
            wide,
            self.sizes.divisible(self.bindings),
            warps(block),
        )


def names_of(rank: int) -> list[str]:
    """An element's indices."""
    return [f"i{i}" for i in range(rank)]


def position(w: Writer, indices: Sequence[str], shape: Sequence[Any]) -> str:
    """The position of an element in a contiguous buffer."""
    terms = []
    inner: Any = 1
    for i in reversed(range(len(shape))):
        one = type(inner) is int and inner == 1
        terms.append(indices[i] if one else f"{w.sizes.factor(inner)} * {indices[i]}")
        inner = inner * shape[i]
    return " + ".join(reversed(terms)) or "n * 0"


def check_atomic(out: Buffer) -> None:
    """Raise UnsupportedError for dtypes that atomic additions don't exist for."""
    if out.dtype not in ATOMIC:
        raise UnsupportedError(f"atomic additions in {out.dtype.name}")


def start(writer: Callable[..., Writer], out: Buffer, source: View | None) -> Generated:
    """The result before the additions: zeros or a copy."""
    w = writer(out.shape, "_start")
    zero = f"tl.zeros([BLOCK], {memory(out.dtype)})"
    w.store(out, zero if source is None else w.load(source, names_of(len(out.shape))))
    return w.finish()
