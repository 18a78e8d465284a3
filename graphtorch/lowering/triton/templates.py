"""The Triton functions of calls: matrix products; convolutions, pooling and moves of elements in files of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from graphtorch.lowering.binding import concrete
from graphtorch.lowering.kernel import ExternCall, View
from graphtorch.lowering.triton.attention import Shape, generate_attention
from graphtorch.lowering.triton.codegen import Generated
from graphtorch.lowering.triton.convolution import CONVOLUTIONS, choose_blocks, generate_convolution
from graphtorch.lowering.triton.custom import generate_custom
from graphtorch.lowering.triton.errors import UnsupportedError
from graphtorch.lowering.triton.fused import ATTENTION, PRODUCTS, FusedCall, coordinate_extents, extents
from graphtorch.lowering.triton.indexing import generate_indexing
from graphtorch.lowering.triton.instructions import register
from graphtorch.lowering.triton.placement import Coordinate
from graphtorch.lowering.triton.products import Operands, Product, choose, product_of, reach
from graphtorch.lowering.triton.shapes import Config, candidates
from graphtorch.lowering.triton.tiling import Limits
from graphtorch.tensor.precision import convolution_precision, matmul_precision

# The blocks of a product, or of each pass of attention.
Choice = Config | tuple[Shape, ...]


def generate_call(
    call: ExternCall, bindings: Mapping[str, int], limits: Limits | None = None, choice: Choice | None = None
) -> list[Generated]:
    """The functions of a call for sizes like the given ones, in order; with the blocks of `choice`, if that is given.
    Raises UnsupportedError for a call without a template."""
    custom = call.op.kernels.get("triton")
    if custom is not None:
        return [generate_custom(call, custom, bindings)]
    if call.op.name in ATTENTION:
        return generate_attention(call, bindings, limits, choice if isinstance(choice, tuple) else None)
    config = choice if isinstance(choice, Config) else None
    if call.op.name in ("mm", "bmm"):
        return [generate_matmul(call, bindings, limits, config)]
    if call.op.name in CONVOLUTIONS:
        return [generate_convolution(call, bindings, limits, config)]
    return generate_indexing(call, bindings, limits or Limits())


def generate_matmul(
    call: ExternCall, bindings: Mapping[str, int], limits: Limits | None = None, config: Config | None = None
) -> Generated:
    """A matrix product of strided operands. Strides are arguments; where one is 1 the text says so, which is what lets
    the loads be wide."""
    a, b = call.args[:2]
    if call.outputs[0] is None or not isinstance(a, View) or not isinstance(b, View):
        raise UnsupportedError(f"{call.op.name} without operands or result")
    register(product_of(call).dtype)
    sizes = extents(call)
    tf32 = matmul_precision() == "tf32"
    chosen = config or choose(call, sizes, bindings, limits, tf32)
    return _Matmul(call, bindings, chosen, sizes).product(matmul_precision()).generate()


class _Matmul:
    """The text of a matrix product."""

    def __init__(
        self, call: ExternCall, bindings: Mapping[str, int], config: Config, sizes: tuple[Any, Any, Any, Any]
    ) -> None:
        self.call = call
        self.config = config
        self.m, self.n, self.k, self.count = sizes
        self.batched = call.op.name == "bmm"
        self.operands = Operands(call, bindings)
        a, b = call.args[:2]
        self.a: View = a
        self.b: View = b
        integers: dict[str, Any] = {"M": self.m, "N": self.n, "K": self.k}
        loaded = [name for i, name in enumerate("ab") if i not in self.operands.prologues]
        for name, (row, column), view in (("a", "mk", self.a), ("b", "kn", self.b)):
            if name in loaded:
                integers[f"{name}_offset"] = view.offset
                if self.batched:
                    integers[f"stride_{name}b"] = view.strides[0]
                integers[f"stride_{name}{row}"], integers[f"stride_{name}{column}"] = view.strides[-2:]
        self.values = {name: concrete(size, bindings) for name, size in integers.items()}
        self.unit = {name for name, value in self.values.items() if name.startswith("stride_") and value == 1}
        zero = {name for name, value in self.values.items() if name.endswith("_offset") and value == 0}
        self.integers = {name: size for name, size in integers.items() if name not in self.unit | zero}

    def product(self, precision: str) -> Product:
        values, config = self.values, self.config
        even_m, even_n = values["M"] % config.block_m == 0, values["N"] % config.block_n == 0
        # A sum in parts ends where its part does, which is a multiple of the block.
        even_k = values["K"] % config.block_k == 0
        m_mask, n_mask = "" if even_m else "m_mask", "" if even_n else "n_mask"
        setup, inner = (self._described if config.descriptors else self._pointed)(m_mask, n_mask, even_k)
        elements = values["M"] * values["N"] * (concrete(self.count, self.operands.bindings) if self.batched else 1)
        elements *= self.operands.splits
        texts = ["batch", "m[:, None]", "n[None, :]"]
        masks = ["", m_mask and f"{m_mask}[:, None]", n_mask and f"{n_mask}[None, :]"]
        kept = slice(0 if self.batched else 1, None)
        extents_ = coordinate_extents(self.call)
        coordinates = [Coordinate(t, *e, m) for t, e, m in zip(texts[kept], extents_, masks[kept], strict=True)]
        return Product(
            self.call.op.name,
            self.m,
            self.n,
            self.count if self.batched else None,
            self.operands,
            self.integers,
            frozenset(name for name in self.integers if values[name] % 16 == 0),
            max(reach((self.a, self.b), self.operands.bindings, (-2, -1)), elements) >= 2**31 or self.operands.wide,
            config,
            inner,
            ("batch * (M * N) + " if self.batched else "") + "m[:, None] * N + n[None, :]",
            coordinates,
            setup=setup,
            precision=precision,
            even=even_m and even_n,
        )

    def _pointed(self, m_mask: str, n_mask: str, even_k: bool) -> tuple[list[str], list[str]]:
        """Operands through pointers, or computed by a kernel: before the loop, and in it."""
        setup: list[str] = []
        inner: list[str] = []
        rows = self._operand("x", 0, ("m", m_mask), even_k, setup)
        columns = self._operand("y", 1, ("n", n_mask), even_k, setup)
        return setup, [*inner, *rows, *columns]

    def _operand(self, name: str, position: int, own: tuple[str, str], even_k: bool, setup: list[str]) -> list[str]:
        """The lines of the loop that define an operand's block; `own` is its index that is not summed, and its mask."""
        letter = "ab"[position]
        view = (self.a, self.b)[position]
        index, masked = own
        first, second = ("[:, None]", "[None, :]") if position == 0 else ("[None, :]", "[:, None]")
        mask = [f"{masked}{first}"] if masked else []
        rest = [] if even_k else [f"(rest{second} < K)"]
        whole = " & ".join([*mask, *rest] if position == 0 else [*rest, *mask])
        if position in self.operands.prologues:
            summed = Coordinate(f"rest{second}", self.k, 0, "" if even_k else f"(rest{second} < K)")
            kept = Coordinate(f"{index}{first}", self.m if position == 0 else self.n, 0, "".join(mask))
            pair = [kept, summed] if position == 0 else [summed, kept]
            batch = [Coordinate("batch", self.count, 0, "")] if self.batched else []
            placed = [c._replace(stride=s) for c, s in zip([*batch, *pair], view.strides, strict=True)]
            if not whole:
                return self.operands.computed(name, position, placed, "")
            lines = self.operands.computed(name, position, placed, f"{name}_mask")
            return [f"{name}_mask = {whole}", *lines]
        base = "a_rows" if position == 0 else "b_columns"
        setup.append(f"{base} = {self._start(letter)} + {self._stepped(f'stride_{letter}{index}', f'{index}{first}')}")
        address = f"{base} + {self._stepped(f'stride_{letter}k', f'rest{second}')}"
        if not whole:
            return [f"{name} = tl.load({address})"]
        return [f"{name}_mask = {whole}", f"{name} = tl.load({address}, mask={name}_mask, other=0)"]

    def _described(self, m_mask: str, n_mask: str, even_k: bool) -> tuple[list[str], list[str]]:
        """Operands through tensor descriptors, which read 0 beyond the ends."""
        setup: list[str] = []
        inner: list[str] = []
        for name, letter, row, column in (("x", "a", "m", "k"), ("y", "b", "k", "n")):
            sides = {"m": ("M", "BLOCK_M", "pid_m * BLOCK_M"), "n": ("N", "BLOCK_N", "pid_n * BLOCK_N")}
            sides["k"] = ("K", "BLOCK_K", "k_start")
            turned = f"stride_{letter}{column}" not in self.unit
            order = [column, row] if turned else [row, column]
            size, block, start = (", ".join(sides[d][i] for d in order) for i in range(3))
            setup.append(
                f"{letter}_blocks = tl.make_tensor_descriptor({self._start(letter)}, shape=[{size}], "
                f"strides=[stride_{letter}{order[0]}, 1], block_shape=[{block}])"
            )
            inner.append(f"{name} = {letter}_blocks.load([{start}]){'.T' if turned else ''}")
        return setup, inner

    def _stepped(self, stride: str, index: str) -> str:
        return index if stride in self.unit else f"{stride} * {index}"

    def _start(self, operand: str) -> str:
        terms = [operand]
        if f"{operand}_offset" in self.integers:
            terms.append(f"{operand}_offset")
        if self.batched:
            terms.append(self._stepped(f"stride_{operand}b", "batch"))
        return " + ".join(terms)


def describable(call: ExternCall, bindings: Mapping[str, int]) -> bool:
    """Whether a matrix product's operands may be copied through tensor descriptors: each is contiguous along one
    dimension, and every row of it starts at a multiple of 16 bytes."""
    if call.op.name not in ("mm", "bmm") or (isinstance(call, FusedCall) and call.prologues):
        return False
    for view in call.args[:2]:
        offset, *strides = (concrete(s, bindings) * view.buffer.dtype.itemsize for s in (view.offset, *view.strides))
        item = view.buffer.dtype.itemsize
        if (strides[-1] == item) == (strides[-2] == item):
            return False
        if offset % 16 or any(s % 16 or s <= 0 for s in strides if s != item):
            return False
    return True


def product_candidates(call: ExternCall, bindings: Mapping[str, int]) -> list[Config]:
    """The configurations that autotuning tries for a product, the default one first; none for other calls."""
    if call.op.name not in PRODUCTS:
        return []
    m, n, k, count = (concrete(e, bindings) for e in extents(call))
    image = call.op.name in CONVOLUTIONS
    tf32 = (convolution_precision() if image else matmul_precision()) == "tf32"
    default = choose_blocks(call, bindings, None) if image else choose(call, (m, n, k, count), bindings, None, tf32)
    others = candidates(m, n, k, call.args[0].buffer.dtype, tf32, not image and describable(call, bindings), count)
    if image and call.args[0].buffer.dtype.itemsize == 2:
        # The default, and one of each larger block. Where no operand has such rows, they come out equal to the others.
        wide = {(c.block_m, c.block_n): c for c in others if c.num_warps == 8 and c.block_m * c.block_n >= 128 * 128}
        others += [replace(c, descriptors=True) for c in (default, *wide.values()) if c.block_k >= 32]
    least = call.rows if isinstance(call, FusedCall) else 0
    return list(dict.fromkeys([default, *(c for c in others if c.block_m >= least)]))
