"""Triton functions over the rows of a shape: all elements along one dimension belong together (sorts, scans).

A `RowWriter` knows where the elements of a row lie. `row` is the number of a row, over all other dimensions in order;
`i0`, `i1`, ... are its indices along them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphtorch.ir.graph import Node
from graphtorch.lowering.binding import concrete
from graphtorch.lowering.kernel import Buffer, ExternCall, View
from graphtorch.lowering.triton.codegen import IMPORTS, Generated, comment
from graphtorch.lowering.triton.instructions import HELPERS, helpers_in, register
from graphtorch.lowering.triton.sizes import Sizes
from graphtorch.lowering.triton.tiling import is_one, is_zero, warps
from graphtorch.schedule.indexing import row_major


class RowWriter:
    """A function over the rows of `shape` along `dim`."""

    def __init__(
        self, call: ExternCall, name: str, shape: Sequence[Any], dim: int, bindings: Mapping[str, int]
    ) -> None:
        self.call = call
        self.name = name
        self.shape = tuple(shape)
        self.dim = dim
        self.bindings = bindings
        self.sizes = Sizes()
        self.buffers: dict[Buffer, str] = {}
        self.lines: list[str] = []
        self.length = self.shape[dim]
        self.outer = [i for i in range(len(self.shape)) if i != dim]
        self.rows: Any = 1
        for i in self.outer:
            self.rows = self.rows * self.shape[i]
        self.reach = concrete(self.rows * self.length, bindings)
        self._indices: dict[int, str] = {}

    def add(self, *lines: str) -> None:
        self.lines.extend(lines)

    def pointer(self, buffer: Buffer) -> str:
        """The argument for a buffer."""
        register(buffer.dtype)
        return self.buffers.setdefault(buffer, f"p{len(self.buffers)}")

    def locate(self, row: str, masked: bool = False) -> None:
        """Lines that find the indices of a row (a number, or a block of them)."""
        inner: Any = 1
        for i in reversed(self.outer):
            text = row if is_one(inner) else f"{row} // {self.sizes.factor(inner)}"
            self.add(f"i{i} = {text}" + (f" % {self.sizes.factor(self.shape[i])}" if i != self.outer[0] else ""))
            inner = inner * self.shape[i]

    def place(self, view: View, k: str) -> str:
        """The address of element k of the row in a view of the shape."""
        terms = [self.pointer(view.buffer)]
        if not is_zero(view.offset):
            terms.append(self.sizes.factor(view.offset))
        for i, stride in enumerate(view.strides):
            index = k if i == self.dim else f"i{i}"
            if is_zero(stride):  # which has the block's shape all the same: that of its mask
                terms += [f"0 * {index}"] if i == self.dim or not is_one(view.shape[i]) else []
                continue
            terms.append(index if is_one(stride) else f"{self.sizes.factor(stride)} * {index}")
        extent = concrete(view.offset, self.bindings) + 1
        for size, stride in zip(
            concrete(view.shape, self.bindings), concrete(view.strides, self.bindings), strict=True
        ):
            extent += size * abs(stride)
        self.reach = max(self.reach, extent)
        return " + ".join(terms)

    def result(self, buffer: Buffer, k: str) -> str:
        """The address of element k of the row in a contiguous buffer of the shape."""
        return self.place(View(buffer, self.shape, row_major(self.shape)), k)

    def finish(
        self,
        grid: tuple[tuple[Any, int], ...],
        constants: Mapping[str, int],
        elements: int,
        integers: Mapping[str, int] | None = None,
    ) -> Generated:
        """The function, on a block of that many elements. `integers` are further arguments."""
        self.sizes.numbers.update(integers or {})
        head = [comment(node) for node in self.call.nodes if type(node) is Node]
        head += [
            f"# {name}: {b.name}, {b.dtype.abbreviation}[{', '.join(map(str, b.shape))}]"
            for b, name in self.buffers.items()
        ]
        wide = self.reach + 2 * elements >= 2**31
        long = ".to(tl.int64)" if wide else ""
        head.append(f"program = tl.program_id(0){long}")
        pointers = list(self.buffers.values())
        names = [*pointers, *(n for n, _ in self.sizes.arguments()), *(f"{c}: tl.constexpr" for c in constants)]
        main = f"@triton.jit\ndef {self.name}({', '.join(names)}):\n" + "".join(
            f"    {line}\n" for line in (*head, *self.lines)
        )
        helpers = "".join("\n" + HELPERS[h] for h in helpers_in(main))
        imports = IMPORTS if "libdevice." in main + helpers else "".join(IMPORTS.splitlines(True)[:2])
        return Generated(
            self.name,
            f"{imports}{helpers}\n\n{main}",
            tuple(self.buffers),
            tuple(pointers),
            self.sizes.arguments(),
            dict(constants),
            grid,
            wide,
            self.sizes.divisible(self.bindings),
            warps(elements),
        )
