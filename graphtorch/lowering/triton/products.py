"""The skeleton of everything that is a matrix product inside: blocks of the result, a loop over the summed extent, and
pointwise kernels on the way in and out.

What differs between matrix products and convolutions is where an element of an operand lies. float16 and bfloat16
accumulate in float32 on the tensor cores; float32 is in full precision, or in tf32 where the program allows that;
float64 and integers are sums of outer products.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from graphtorch.ir.graph import Node
from graphtorch.lowering.binding import concrete
from graphtorch.lowering.kernel import Buffer, ExternCall, Kernel, View
from graphtorch.lowering.triton.codegen import IMPORTS, Generated, comment
from graphtorch.lowering.triton.fused import FusedCall, RowSums, ValueSums
from graphtorch.lowering.triton.instructions import HELPERS, helpers_in, memory, register
from graphtorch.lowering.triton.placement import Coordinate, Pointers, TileWriter, largest_offset, pieces_of
from graphtorch.lowering.triton.rewriting import loads_of
from graphtorch.lowering.triton.shapes import DOT, Config, fit
from graphtorch.lowering.triton.sizes import Sizes
from graphtorch.lowering.triton.tiling import Limits, power_of_two
from graphtorch.tensor import dtypes
from graphtorch.tensor.dtypes import dtype

ROWS = 32  # that a tile adds up for a sum over all rows: no block has fewer
SHORTEST = 64  # summed elements for which more products a load pay
SHORT = 1536  # summed elements that take about as long as an epilogue that moves much
MUCH = 8  # bytes for each element of a result
GROUP = 8  # rows of blocks that share the columns of the second operand in the second-level cache


class Operands:
    """What the text of a product refers to: pointers, sizes, and the operands, loaded or computed where they are."""

    def __init__(self, call: ExternCall, bindings: Mapping[str, int]) -> None:
        self.call = call
        self.bindings = bindings
        self.sizes = Sizes()
        self.prologues: Mapping[int, Kernel] = call.prologues if isinstance(call, FusedCall) else {}
        views = call.args[:2]
        named = {name: v.buffer for i, (name, v) in enumerate(zip("ab", views, strict=True)) if i not in self.prologues}
        if len(named) == 2 and named["a"] is named["b"]:
            self.pointers = Pointers({"a": named["a"]})
            self.pointers.named["b"] = named["b"]
        else:
            self.pointers = Pointers(named)
        self.count = 0

    @property
    def splits(self) -> int:
        return self.call.splits if isinstance(self.call, FusedCall) else 1

    @property
    def wide(self) -> bool:
        """Whether a kernel on the way in or out reaches further than 32 bits."""
        kernels = list(self.prologues.values())
        if isinstance(self.call, FusedCall) and self.call.epilogue is not None:
            kernels.append(self.call.epilogue)
        if isinstance(self.call, FusedCall) and self.call.values is not None:
            kernels.append(self.call.values.kernel)
        return any(largest_offset(kernel, self.bindings) >= 2**31 for kernel in kernels)

    def computed(self, name: str, position: int, coordinates: Sequence[Coordinate], whole: str) -> list[str]:
        """The lines that make variable `name` of an operand that a pointwise kernel computes, 0 beyond the ends."""
        kernel = self.prologues[position]
        (store,) = kernel.stores
        axes = [(axis.size, stride) for axis, stride in zip(kernel.axes, store.access.strides, strict=True)]
        pieces = pieces_of(axes, coordinates)
        assert pieces is not None, "checked when the kernel was absorbed"
        writer = TileWriter(kernel, pieces, coordinates, self.pointers, self.sizes, whole, self.count, self.bindings)
        value = writer.value(store.value, {})
        self.count = writer.count
        block = f"tl.where({whole or True}, {value}, 0).to({memory(store.access.buffer.dtype)})"
        # A value that depends on one index only, or on none, is not a whole block yet, which a product needs.
        shape = "BLOCK_M, BLOCK_K" if name == "x" else "BLOCK_K, BLOCK_N"
        return [*writer.segment.lines, f"{name} = tl.broadcast_to({block}, {shape})"]


@dataclass
class Product:
    """A product of an (M, K) and a (K, N) operand, `count` times if that is given, by its text.

    The lines may use m, n (indices of the block), `rest` (of the summed extent), m_mask, n_mask, and `batch`.

    head          after the comments: defines M, N and K unless they are arguments
    setup         before the loop
    inner         in it: defines x, the block of the first operand, as [m, rest] and y as [rest, n], 0 beyond the ends
    phases        how many products of M rows and different sums there are beside each other: setup defines K by `phase`
    place         where an element of the result lies, [m, n], from `c`
    coordinates   of the result's elements, for kernels that go on from there
    """

    name: str
    m: Any
    n: Any
    count: Any
    operands: Operands
    integers: dict[str, Any]
    divisible: frozenset[str]
    wide: bool
    config: Config
    inner: list[str]
    place: str
    coordinates: list[Coordinate]
    head: list[str] = field(default_factory=list)
    setup: list[str] = field(default_factory=list)
    precision: str = "ieee"
    even: bool = False  # no block reaches beyond the result's ends
    phases: int = 1

    def generate(self) -> Generated:
        """The function."""
        operands, config = self.operands, self.config
        body = self._body()
        pointers = operands.pointers.named
        integers = {**self.integers, **dict(operands.sizes.arguments())}
        name = self._name()
        constants = {"BLOCK_M": config.block_m, "BLOCK_N": config.block_n, "BLOCK_K": config.block_k}
        arguments = ", ".join([*pointers, *integers, *(f"{c}: tl.constexpr" for c in constants)])
        lines = "\n".join(f"    {line}" for line in body)
        main = f"@triton.jit\ndef {name}({arguments}):\n{lines}\n"
        helpers = "".join("\n" + HELPERS[h] for h in helpers_in(main))
        imports = IMPORTS if "libdevice." in main + helpers else "".join(IMPORTS.splitlines(True)[:2])
        grid: list[tuple[Any, int]] = [(self.m, config.block_m), (self.n, config.block_n)]
        if self.count is not None:
            grid.append((self.count, 1))
        grid += [(many, 1) for many in (operands.splits, self.phases) if many > 1]
        return Generated(
            name,
            f"{imports}{helpers}\n\n{main}",
            tuple(pointers.values()),
            tuple(pointers),
            tuple(integers.items()),
            constants,
            tuple(grid),
            self.wide,
            self.divisible | operands.sizes.divisible(operands.bindings),
            config.num_warps,
            config.num_stages,
            programs=config.programs,
        )

    def _name(self) -> str:
        """The product, and the operators of its epilogue that say most."""
        call = self.operands.call
        kernel = call.epilogue if isinstance(call, FusedCall) else None
        names = [] if kernel is None else [n.op.name for n in kernel.nodes]
        kept = [n for n in dict.fromkeys(names) if n not in ("cast", "view", "expand", "permute", "clone")]
        return "_".join([self.name, *kept[:3]])

    def _body(self) -> list[str]:
        long = ".to(tl.int64)" if self.wide else ""
        call = self.operands.call
        tile = [
            *self._outer(long),
            f"# Programs that run at the same time share rows of x and columns of y: {GROUP} rows of blocks at a time.",
            f"group = pid // ({GROUP} * n_blocks)",
            f"height = min(m_blocks - {GROUP} * group, {GROUP})",
            f"pid_m = {GROUP} * group + (pid % ({GROUP} * n_blocks)) % height",
            f"pid_n = (pid % ({GROUP} * n_blocks)) // height",
            f"m = pid_m{long} * BLOCK_M + tl.arange(0, BLOCK_M)",
            f"n = pid_n{long} * BLOCK_N + tl.arange(0, BLOCK_N)",
            f"k = tl.arange(0, BLOCK_K){long}",
            *(() if self.even else ("m_mask = m < M", "n_mask = n < N")),
            *self.setup,
            *self._summed(),
            *self._stored(),
        ]
        head = [
            *(comment(node) for node in call.nodes[:1] if type(node) is Node),
            *self.head,
            "m_blocks = tl.cdiv(M, BLOCK_M)",
            "n_blocks = tl.cdiv(N, BLOCK_N)",
        ]
        if self.config.programs is None:
            return [*head, "pid = tl.program_id(0)", *tile]
        tiles = "m_blocks * n_blocks"
        if self.count is not None:
            tiles += f" * {self.operands.sizes.factor(self.count)}"
        how = ", flatten=True" if self.config.descriptors else ""  # the next block's copies begin before this one's end
        if self.config.specialized:
            how = ", warp_specialize=True"
        loop = f"for tile in tl.range(tl.program_id(0), {tiles}, tl.num_programs(0){how}):"
        return [*head, "# As many programs as run at the same time: each goes through blocks.", loop] + [
            f"    {line}" for line in ("pid = tile", *tile)
        ]

    def _outer(self, long: str) -> list[str]:
        """Which product of the batch, and which part of the sum, a program works on."""
        lines: list[str] = []
        splits = self.operands.splits
        if self.phases > 1:  # innermost: those that read the same run at the same time
            lines = [f"phase = pid % {self.phases}", f"pid = pid // {self.phases}"]
        if self.count is not None or splits > 1:
            lines += ["outer = pid // (m_blocks * n_blocks)", "pid = pid % (m_blocks * n_blocks)"]
        if splits > 1:
            lines.append(f"split = (outer % {splits}){long}")
        if self.count is not None:
            lines.append(f"batch = (outer // {splits}){long}" if splits > 1 else f"batch = outer{long}")
        return lines

    def _summed(self) -> list[str]:
        """The loop over the summed extent, or over this program's part of it."""
        of = self._computed_in()
        accumulator = register(of)
        if of in DOT:
            how = f', input_precision="{self.precision}"' if of.itemsize == 4 else ""
            product = [f"acc = tl.dot(x, y, acc{how})"]
        else:
            product = [f"acc += tl.sum(x.to({accumulator})[:, :, None] * y.to({accumulator})[None, :, :], 1)"]
        loop = "for k_start in range(0, K, BLOCK_K):"
        part: list[str] = []
        if self.operands.splits > 1:
            part = [f"part = tl.cdiv(tl.cdiv(K, {self.operands.splits}), BLOCK_K) * BLOCK_K"]
            loop = "for k_start in range(split * part, min((split + 1) * part, K), BLOCK_K):"
        return [
            *part,
            f"acc = tl.zeros([BLOCK_M, BLOCK_N], {accumulator})",
            loop,
            *(f"    {line}" for line in ("rest = k_start + k", *self.inner, *product)),
        ]

    def _computed_in(self) -> dtype:
        of: dtype = self.operands.call.args[0].buffer.dtype
        return of

    def _stored(self) -> list[str]:
        operands = self.operands
        call = operands.call
        whole = "" if self.even else "m_mask[:, None] & n_mask[None, :]"
        product = product_of(call)
        if isinstance(call, FusedCall) and call.epilogue is not None:
            loads = [e for e in loads_of(call.epilogue) if e.access.buffer is product]
            axes = [
                (axis.size, stride) for axis, stride in zip(call.epilogue.axes, loads[0].access.strides, strict=True)
            ]
            pieces = pieces_of(axes, self.coordinates)
            assert pieces is not None, "checked when the kernel was absorbed"
            writer = TileWriter(
                call.epilogue,
                pieces,
                self.coordinates,
                operands.pointers,
                operands.sizes,
                whole,
                operands.count,
                operands.bindings,
            )
            lines = writer.store_all({id(load): "acc" for load in loads})
            if call.sums is not None and call.sums.store is not None:
                value, of = writer.value(call.sums.store.value, {}), call.sums.store.access.buffer.dtype
                lines = [*lines, *self._row_sums(call.sums, value, of)]
            if call.values is not None:
                store = next(s for s in call.epilogue.stores if s.access.buffer is call.values.stored)
                value = writer.value(store.value, {})
                lines = [*lines, *self._value_sums(call.values, value, whole, writer.count)]
            return ["inside = " + whole, *(line.replace(whole, "inside") for line in lines)] if whole else lines
        pointer = operands.pointers.of(product, "c")
        of = product.dtype
        to = "" if memory(of) == register(self._computed_in()) else f".to({memory(of)})"
        place = self.place
        if operands.splits > 1:
            place = f"split * {self._elements()} + {place}"
        mask = f", mask={whole}" if whole else ""
        lines = [f"tl.store({pointer} + {place}, acc{to}{mask})"]
        if isinstance(call, FusedCall) and call.sums is not None:
            lines += self._row_sums(call.sums, "acc", of)
        if isinstance(call, FusedCall) and call.values is not None:
            lines += self._value_sums(call.values, "acc", whole, operands.count)
        return lines

    def _row_sums(self, sums: RowSums, value: str, of: dtype) -> list[str]:
        """The lines that add up rows of the tile, as they are stored, in groups, and store the sums."""
        pointers = self.operands.pointers
        rows = sums.rows
        numbered, place, mask = self._groups(rows)
        lines = [
            *numbered,
            *self._grouped(f"({value}).to({memory(of)}).to(tl.float32)", rows),
            "sums = tl.sum(summed, 1)",
            f"tl.store({pointers.of(sums.totals, 'sums')} + {place}, sums{mask})",
        ]
        if sums.squares is not None:
            distance = f"summed - (sums * {1.0 / rows})[:, None, :]"
            if sums.ragged:
                lines.append(f"count = tl.maximum(tl.minimum(M - rows * {rows}, {rows}), 1).to(tl.float32)")
                distance = "summed - (sums / count[:, None])[:, None, :]"
                distance = f"tl.where(tl.reshape(m_mask, [BLOCK_M // {rows}, {rows}])[:, :, None], {distance}, 0.0)"
            lines += [
                f"summed = {distance}",
                f"tl.store({pointers.of(sums.squares, 'squares')} + {place}, tl.sum(summed * summed, 1){mask})",
            ]
        return lines

    def _value_sums(self, values: ValueSums, value: str, whole: str, count: int) -> list[str]:
        """The lines that compute values of what the tile stores, add them up in groups of rows, and store the sums;
        `count` variables have names."""
        operands = self.operands
        own = [e for e in loads_of(values.kernel) if e.access.buffer is values.stored]
        strides = own[0].access.strides
        axes = [(axis.size, stride) for axis, stride in zip(values.kernel.axes, strides, strict=True)]
        pieces = pieces_of(axes, self.coordinates)
        assert pieces is not None, "checked when the sums were begun"
        writer = TileWriter(
            values.kernel,
            pieces,
            self.coordinates,
            operands.pointers,
            operands.sizes,
            whole,
            count,
            operands.bindings,
        )
        of = values.stored.dtype
        names = [writer.value(s.value, {id(e): "stored" for e in own}) for s in values.kernel.stores]
        groups, place, mask = self._groups(values.rows)
        lines = [f"stored = ({value}).to({memory(of)}).to({register(of)})", *writer.segment.lines, *groups]
        for name, store in zip(names, values.kernel.stores, strict=True):
            pointer = operands.pointers.of(store.access.buffer, "sums")
            lines += [
                *self._grouped(name, values.rows),
                f"tl.store({pointer} + {place}, tl.sum(summed, 1){mask})",
            ]
        return lines

    def _groups(self, rows: int) -> tuple[list[str], str, str]:
        """Groups of the tile's rows: the lines that number them, where their sums lie, and the mask for that."""
        number = f"pid_m * (BLOCK_M // {rows}) + tl.arange(0, BLOCK_M // {rows})"
        lines = [f"# The sums of {rows} rows each, which a later kernel adds up.", f"rows = {number}"]
        place = "rows[:, None] * N + n[None, :]"
        if self.phases > 1:
            place = f"(phase * tl.cdiv(M, {rows}) + rows[:, None]) * N + n[None, :]"
        mask = "" if self.even else f", mask=(rows < tl.cdiv(M, {rows}))[:, None] & n_mask[None, :]"
        return lines, place, mask

    def _grouped(self, value: str, rows: int) -> list[str]:
        """The line that gives a tile of values by groups, 0 beyond the ends."""
        if not self.even:
            value = f"tl.where(m_mask[:, None], {value}, 0.0)"
        shape = f"[BLOCK_M // {rows}, {rows}, BLOCK_N]"
        return [f"summed = tl.reshape(tl.broadcast_to({value}, BLOCK_M, BLOCK_N), {shape})"]

    def _elements(self) -> str:
        total: Any = 1
        for coordinate in self.coordinates:
            total = total * coordinate.size
        return self.operands.sizes.factor(total)


def product_of(call: ExternCall) -> Buffer:
    """The buffer that a call's own result lies in, or would lie in."""
    if isinstance(call, FusedCall):
        return call.product
    out = call.outputs[0]
    assert out is not None
    return out


def choose(
    call: ExternCall, sizes: Sequence[Any], bindings: Mapping[str, int], limits: Limits | None, tf32: bool = False
) -> Config:
    """The blocks of a product by shape (m, n, k and how many); small ones where a test's limits ask for them."""
    m, n, k, count = (concrete(e, bindings) for e in sizes)
    of = call.args[0].buffer.dtype
    config = fit(m, n, k, of, tf32, count)
    goes_on = isinstance(call, FusedCall) and (call.epilogue is not None or call.prologues or call.rows)
    # Eight by eight sums a thread leave few registers, too few for an epilogue; a short sum waits for memory anyway.
    if (goes_on or k < SHORTEST) and of is dtypes.float32 and not tf32:
        config = replace(config, block_m=min(config.block_m, 64), block_n=min(config.block_n, 64))
    beside = _beside(call) if config.block_m * config.block_n >= 128 * 128 else []
    if beside:
        # What is computed of the result needs registers beside the sums.
        config = replace(config, block_n=128, num_warps=8, num_stages=3)
        if k <= SHORT and config.block_m == 128 and _moved(beside, product_of(call), bindings) >= MUCH:
            # It takes as long as the sums: programs beside each other do one while the other does the other.
            config = replace(config, block_m=64, num_warps=4)
    if limits is not None:
        side = max(16, power_of_two(int(limits.pointwise**0.5)))
        config = replace(
            config,
            block_m=min(config.block_m, side),
            block_n=min(config.block_n, side),
            block_k=min(config.block_k, side),
        )
    if isinstance(call, FusedCall):
        config = replace(config, block_m=max(config.block_m, call.rows))
    return config


def _beside(call: ExternCall) -> list[Kernel]:
    """The kernels on a product's tiles."""
    if not isinstance(call, FusedCall):
        return []
    kernels = [call.epilogue, call.values.kernel if call.values is not None else None]
    return [k for k in kernels if k is not None]


def _moved(kernels: Sequence[Kernel], product: Buffer, bindings: Mapping[str, int]) -> float:
    """The bytes that they load and store for each element."""
    points = 1
    for axis in kernels[0].axes:
        points *= concrete(axis.size, bindings)
    total = 0
    for buffer in {b for k in kernels for b in (*k.reads(), *k.writes())} - {product}:
        size = buffer.dtype.itemsize
        for extent in concrete(buffer.shape, bindings):
            size *= extent
        total += size
    return total / max(points, 1)


def reach(views: Sequence[View], bindings: Mapping[str, int], blocked: Sequence[int] | None = None) -> int:
    """The largest offset of the views' elements, with a block beyond the end of the dimensions that blocks go along
    (those at `blocked`, or all)."""
    most = 0
    for view in views:
        end = concrete(view.offset, bindings)
        rank = len(view.shape)
        along = range(rank) if blocked is None else [i % rank for i in blocked]
        shape, strides = concrete(view.shape, bindings), concrete(view.strides, bindings)
        for i, (size, stride) in enumerate(zip(shape, strides, strict=True)):
            end += (size + 256 * (i in along)) * abs(stride)
        most = max(most, int(end))
    return most
