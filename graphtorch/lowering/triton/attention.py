"""Attention without scores in memory: forward, and the two passes of the backward.

After FlashAttention (Dao et al. 2022, arXiv:2205.14135; Dao 2023, arXiv:2307.08691). A program of the forward pass has
a block of queries and goes over the keys, with a running maximum and sum of each row; the logarithm of the sum is kept,
from which the backward computes probabilities again. There, one launch has a block of keys a program and goes over
queries (of all heads that share the keys: no atomic addition), the other a block of queries and goes over keys.

Exponentials are powers of 2: the scale includes log2(e). Blocks that causality or the end of the keys cuts are looped
over apart from those that need no mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from graphtorch.ir.graph import Node
from graphtorch.lowering.binding import concrete
from graphtorch.lowering.kernel import ExternCall, Kernel, View
from graphtorch.lowering.triton.codegen import IMPORTS, Generated, comment
from graphtorch.lowering.triton.errors import UnsupportedError
from graphtorch.lowering.triton.fused import FusedCall
from graphtorch.lowering.triton.instructions import HELPERS, LOG2E, helpers_in, memory
from graphtorch.lowering.triton.placement import Coordinate, Pointers, TileWriter, distinct, largest_offset, pieces_of
from graphtorch.lowering.triton.products import reach
from graphtorch.lowering.triton.shapes import DOT
from graphtorch.lowering.triton.sizes import Sizes
from graphtorch.lowering.triton.tiling import Limits, is_one, is_zero, power_of_two
from graphtorch.tensor import dtypes
from graphtorch.tensor.dtypes import dtype
from graphtorch.tensor.precision import matmul_precision

LN2 = 0.6931471805599453
MOST_HELD = 192  # of a thread's 255 registers; with more, 200 bytes and more are spilled on sm_90


@dataclass(frozen=True)
class Shape:
    """Block sizes, warps and stages of a pass: `m` queries, `n` keys.

    descriptors     the blocks that a loop goes over are copied through tensor descriptors (on sm_90 and later the
                    tensor memory accelerator)
    """

    m: int
    n: int
    num_warps: int = 4
    num_stages: int = 2
    descriptors: bool = False

    def __str__(self) -> str:
        how = ", descriptors" if self.descriptors else ""
        return f"{self.m}x{self.n}, {self.num_warps} warps, {self.num_stages} stages{how}"


def shapes(call: ExternCall) -> tuple[Shape, ...]:
    """The passes' default block sizes, by the size of a head. First guesses from what others publish, unmeasured."""
    query, value = (call.args[i] for i in ((0, 2) if call.op.name == "fused_attention" else (1, 3)))
    head = max(16, power_of_two(max(query.shape[3], value.shape[3])))
    single = query.buffer.dtype.itemsize == 4
    if call.op.name == "fused_attention":
        if single:
            table = {16: (64, 32, 4, 2), 32: (64, 32, 4, 2), 64: (32, 32, 4, 2), 128: (32, 32, 8, 1)}
            return (Shape(*table.get(head, (16, 16, 8, 1))),)
        if head <= 64:
            return (Shape(128, 64, 8, 3),)
        return (Shape(128, 64, 8, 3) if head <= 128 else Shape(64, 32, 4, 2),)
    if single:
        small = Shape(16, 16, 8, 1)
        return (Shape(32, 32, 8, 1), Shape(32, 32, 8, 1) if head <= 64 else small) if head <= 128 else (small, small)
    if head <= 64:
        return Shape(64, 128, 8, 2), Shape(128, 64, 8, 3)
    if head <= 128:
        return Shape(64, 64, 8, 2), Shape(128, 64, 8, 2)
    return Shape(32, 32, 8, 1), Shape(32, 32, 8, 1)


def candidates(call: ExternCall, bindings: Mapping[str, int]) -> list[tuple[Shape, ...]]:
    """What autotuning tries for a call, the default first."""
    default = shapes(call)
    if call.args[0].buffer.dtype.itemsize == 4:
        return [default]
    found = [default]
    for m, n in ((128, 128), (128, 64), (64, 128), (64, 64), (128, 32), (64, 32)):
        for num_warps in (4, 8):
            for num_stages in (2, 3):
                made = Shape(m, n, num_warps, num_stages), Shape(n, m, num_warps, num_stages)
                # A pass that would spill stays as it is by default.
                fits = [_held(call, i, s) <= MOST_HELD for i, s in enumerate(made[: len(default)])]
                found.append(tuple(s if fit else d for s, fit, d in zip(made, fits, default, strict=False)))
    if describable(call, bindings):
        large = [passes for passes in found if all(s.m * s.n >= 64 * 128 for s in passes)]
        found += [tuple(replace(s, descriptors=True) for s in passes) for passes in large]
    return list(dict.fromkeys(found))


def _held(call: ExternCall, position: int, shape: Shape) -> float:
    """Numbers that a thread of a pass holds: scores (and their gradients), and sums of the result's block."""
    first = 0 if call.op.name == "fused_attention" else 1
    query, value = call.args[first].shape[3], call.args[first + 2].shape[3]
    scores = shape.m * shape.n
    if not first:
        held = scores + shape.m * value
    else:
        held = 2 * scores + (shape.n * (query + value) if position == 0 else shape.m * query)
    return float(held / (32 * shape.num_warps))


def describable(call: ExternCall, bindings: Mapping[str, int]) -> bool:
    """Whether blocks may be copied through tensor descriptors: the elements of a head lie side by side, and every row
    starts at a multiple of 16 bytes."""
    views = call.args[: 3 if call.op.name == "fused_attention" else 4]
    for view in views:
        item = view.buffer.dtype.itemsize
        offset, *strides = (concrete(s, bindings) * item for s in (view.offset, *view.strides))
        size = view.shape[3]
        if strides.pop() != item or type(size) is not int or size * item < 16 or size > 256:
            return False
        # Of one row, head or image only, a stride is not used.
        used = [s for s, extent in zip(strides, concrete(view.shape, bindings), strict=False) if extent != 1]
        if offset % 16 or any(s % 16 or s < 0 for s in used) or strides[1] <= 0 or strides[1] % 16:
            return False
    return bool(reach(views, bindings, (1, 2, 3)) < 2**31)


def generate_attention(
    call: ExternCall,
    bindings: Mapping[str, int],
    limits: Limits | None = None,
    config: Sequence[Shape] | None = None,
) -> list[Generated]:
    """The launches of a pass. Raises UnsupportedError for dtypes that tensor cores do not multiply."""
    chosen = list(config or shapes(call))
    if limits is not None:  # a test's small blocks
        side = max(16, power_of_two(int(limits.pointwise**0.5)))
        sums = call.sums if isinstance(call, FusedCall) else None
        least = sums.rows if sums is not None else 0
        chosen = [replace(s, m=max(min(s.m, side), least), n=max(min(s.n, side), least)) for s in chosen]
    if call.op.name == "fused_attention":
        return [_Forward(call, bindings, chosen[0]).generate()]
    passes: list[_Pass] = []
    if any(o is not None for o in call.outputs[1:3]):
        passes.append(_KeyGradients(call, bindings, chosen[0]))
    if call.outputs[0] is not None:
        passes.append(_QueryGradient(call, bindings, chosen[1]))
    if isinstance(call, FusedCall) and call.result is not None:
        passes.reverse()  # the queries' pass makes what the other one reads
    return [p.generate() for p in passes]


class _Pass:
    """What the passes share: names for sizes and pointers, loads, scores."""

    name = ""
    first = 0  # the position of the query among the operands
    late = False  # whether scores are scaled where they are shifted: one instruction for both
    over = "n"  # what the loop goes over: keys, or queries (m)

    def __init__(self, call: ExternCall, bindings: Mapping[str, int], shape: Shape) -> None:
        self.call = call
        self.bindings = bindings
        self.shape = shape
        self.query: View = call.args[self.first]
        self.key: View = call.args[self.first + 1]
        self.value: View = call.args[self.first + 2]
        self.mask: View | None
        self.keep: View | None
        self.mask, self.keep, self.causal, scale = call.args[-4:]
        self.scale = float(scale)
        self.of: dtype = self.query.buffer.dtype
        if self.of not in DOT:
            raise UnsupportedError(f"attention of {self.of.name}")
        self.batch, self.length, self.heads, self.size = self.query.shape
        self.keys, self.shared, self.value_size = self.value.shape[1:]
        if any(type(s) is not int for s in (self.size, self.value_size)):
            raise UnsupportedError("attention with heads of symbolic size")
        self.block_e = max(16, power_of_two(self.size))
        self.block_v = max(16, power_of_two(self.value_size))
        self.sizes = Sizes()
        self.pointers = Pointers({})
        self.prologues: Mapping[int, Kernel] = call.prologues if isinstance(call, FusedCall) else {}
        views = [a for i, a in enumerate(call.args) if isinstance(a, View) and i not in self.prologues]
        views += call.places.values() if isinstance(call, FusedCall) else ()
        self.result = call.result if isinstance(call, FusedCall) else None
        views += [] if self.result is None else [self.result]
        self.wide = reach(views, bindings, (1, 2, 3)) >= 2**31 or any(
            largest_offset(kernel, bindings) >= 2**31 for kernel in self.prologues.values()
        )
        self.count = 0
        self.even_m = self._even(self.length, shape.m)
        self.even_n = self._even(self.keys, shape.n)
        self.how = f', input_precision="{matmul_precision()}"' if self.of.itemsize == 4 else ""
        self.narrow = "" if self.of.itemsize == 4 else f".to({memory(self.of)})"

    def lines(self) -> list[str]:
        raise NotImplementedError

    def grid(self) -> list[tuple[Any, int]]:
        raise NotImplementedError

    def generate(self) -> Generated:
        """The function."""
        body = self.lines()
        constants = {"BLOCK_M": self.shape.m, "BLOCK_N": self.shape.n, "BLOCK_E": self.block_e, "BLOCK_V": self.block_v}
        integers = self.sizes.arguments()
        pointers = self.pointers.named
        arguments = [*pointers, *(n for n, _ in integers), *(f"{c}: tl.constexpr" for c in constants)]
        head = [comment(node) for node in self.call.nodes[:1] if type(node) is Node]
        text = "\n".join(f"    {line}" for line in [*head, *body])
        main = f"@triton.jit\ndef {self.name}({', '.join(arguments)}):\n{text}\n"
        helpers = "".join("\n" + HELPERS[h] for h in helpers_in(main))
        imports = IMPORTS if "libdevice." in main + helpers else "".join(IMPORTS.splitlines(True)[:2])
        return Generated(
            self.name,
            f"{imports}{helpers}\n\n{main}",
            tuple(pointers.values()),
            tuple(pointers),
            integers,
            constants,
            tuple(self.grid()),
            self.wide,
            self.sizes.divisible(self.bindings),
            self.shape.num_warps,
            self.shape.num_stages,
        )

    # -- parts -------------------------------------------------------------------------------------------------------

    def _even(self, size: Any, block: int) -> bool:
        return bool(concrete(size, self.bindings) % block == 0)

    def _program(self, extent: Any, block: str, heads: Any, backwards: bool) -> list[str]:
        """Which block, head and image of the batch a program has."""
        long = ".to(tl.int64)" if self.wide else ""
        start = "pid % blocks"
        lines = ["pid = tl.program_id(0)", f"blocks = tl.cdiv({self.sizes.text(extent)}, {block})"]
        if backwards:
            lines.append("# The longest rows first.")
            start = "blocks - 1 - pid % blocks"
        return [
            *lines,
            f"start = ({start}){long} * {block}",
            "outer = pid // blocks",
            f"batch = (outer // {self.sizes.factor(heads)}){long}",
        ]

    def _inside(self, position: str, along: str, columns: str) -> str:
        """The mask of a block whose rows or columns lie along the queries (m) or keys (n), and a head's elements."""
        parts: list[str] = []
        even = self.even_m if along == "m" else self.even_n
        extent = self.length if along == "m" else self.keys
        first, second = ("[:, None]", "[None, :]") if position == "row" else ("[None, :]", "[:, None]")
        if not even:
            parts.append(f"({along} < {self.sizes.text(extent)}){first}")
        if columns:
            size, block = (self.size, self.block_e) if columns == "e" else (self.value_size, self.block_v)
            if size != block:
                parts.append(f"({columns} < {size}){second}")
        return " & ".join(parts)

    def _address(self, view: View, prefix: str, indices: Sequence[str]) -> str:
        terms = [self.pointers.of(view.buffer, prefix)]
        if not is_zero(view.offset):
            terms.append(self.sizes.text(view.offset))
        for stride, index in zip(view.strides, indices, strict=True):
            if is_zero(stride) and index != "m" and "[" not in index:
                continue  # a block keeps its shape also where it repeats
            terms.append(index if is_one(stride) else f"{self.sizes.factor(stride)} * {index}")
        return " + ".join(terms)

    def _load(self, view: View, prefix: str, along: str, head: str, columns: str, turned: bool = False) -> str:
        """A block of queries, keys or values; `turned`: with the head's elements first."""
        if self.shape.descriptors and along == self.over:
            return f"{prefix}_blocks.load([{along}_start, 0]){'.T' if turned else ''}"
        row, column = ("[None, :]", "[:, None]") if turned else ("[:, None]", "[None, :]")
        address = self._address(view, prefix, ["batch", f"{along}{row}", head, f"{columns}{column}"])
        mask = self._inside("column" if turned else "row", along, columns)
        return f"tl.load({address}{f', mask={mask}, other=0' if mask else ''})"

    def _described(self, view: View, prefix: str, head: str, columns: str) -> list[str]:
        """The line that makes the tensor descriptor of a view's rows, of one head and image, that the loop goes over:
        it reads 0 beyond their ends."""
        if not self.shape.descriptors:
            return []
        batch, row, heads, _ = view.strides
        terms = [self.pointers.of(view.buffer, prefix)]
        terms += [] if is_zero(view.offset) else [self.sizes.text(view.offset)]
        for stride, index in ((batch, "batch"), (heads, head)):
            terms += [] if is_zero(stride) else [f"{self.sizes.factor(stride)} * {index}"]
        extent = self.length if self.over == "m" else self.keys
        return [
            f"{prefix}_blocks = tl.make_tensor_descriptor({' + '.join(terms)}, "
            f"shape=[{self.sizes.text(extent)}, {view.shape[3]}], strides=[{self.sizes.text(row)}, 1], "
            f"block_shape=[BLOCK_{self.over.upper()}, BLOCK_{columns.upper()}])"
        ]

    def _per_row(self, view: View, prefix: str, head: str, other: str) -> str:
        """What each query has one of: the logarithm of its sum, or delta."""
        address = self._address(view, prefix, ["batch", head, "m"])
        mask = "" if self.even_m else f", mask=m < {self.sizes.text(self.length)}, other={other}"
        return f"tl.load({address}{mask})"

    def _factors(self, position: int, name: str, view: View, head: str, turned: bool, whole: str) -> list[str]:
        """A block of the mask or of the dropout's factors, (queries, keys) or turned, as variable `name`."""
        m, n = ("m[None, :]", "n[:, None]") if turned else ("m[:, None]", "n[None, :]")
        kernel = self.prologues.get(position)
        if kernel is None:
            address = self._address(view, name, ["batch", head, m, n])
            text = f"tl.load({address}{f', mask={whole}, other=0' if whole else ''})"
            if view.buffer.dtype is dtypes.bool_:
                return [f"{name}_block = {text} != 0"]
            return [f"{name}_block = {text}.to(tl.float32)"]
        masks = ["", "", "", ""]
        if whole:
            masks[2] = "" if self.even_m else f"({m} < {self.sizes.text(self.length)})"
            masks[3] = f"({n} < {self.sizes.text(self.keys)})"
        coordinates = [
            Coordinate(text, size, stride, mask)
            for text, size, stride, mask in zip(("batch", head, m, n), view.shape, view.strides, masks, strict=True)
        ]
        (store,) = kernel.stores
        axes = [(axis.size, stride) for axis, stride in zip(kernel.axes, store.access.strides, strict=True)]
        own = distinct(coordinates)
        pieces = pieces_of(axes, own)
        assert pieces is not None, "checked when the kernel was absorbed"
        writer = TileWriter(kernel, pieces, own, self.pointers, self.sizes, whole, self.count, self.bindings)
        value = writer.value(store.value, {})
        self.count = writer.count
        return [*writer.segment.lines, f"{name}_block = {value}"]

    def _scores(self, product: str, head: str, turned: bool, cut: bool) -> list[str]:
        """The block of scores in powers of 2, -inf where a query does not see a key."""
        m, n = ("m[None, :]", "n[:, None]") if turned else ("m[:, None]", "n[None, :]")
        lines = [f"scores = {product}" if self.late else f"scores = {product} * {self.scale * LOG2E!r}"]
        whole = self._whole(m, n, cut)
        if self.mask is not None:
            lines += self._factors(len(self.call.args) - 4, "mask", self.mask, head, turned, whole)
            if self.mask.buffer.dtype is dtypes.bool_:
                lines.append('scores = tl.where(mask_block, scores, float("-inf"))')
            else:
                lines.append(f"scores += mask_block * {LOG2E!r}")
        seen: list[str] = []
        if cut and not self.even_n:
            seen.append(f"({n} < {self.sizes.text(self.keys)})")
        if cut and self.causal:
            seen.append(f"({m} >= {n})")
        if seen:
            lines.append(f'scores = tl.where({" & ".join(seen)}, scores, float("-inf"))')
        return lines

    def _whole(self, m: str, n: str, cut: bool) -> str:
        parts = [] if self.even_m else [f"({m} < {self.sizes.text(self.length)})"]
        if cut and not self.even_n:
            parts.append(f"({n} < {self.sizes.text(self.keys)})")
        return " & ".join(parts)

    def _kept(self, head: str, turned: bool, cut: bool) -> list[str]:
        if self.keep is None:
            return []
        m, n = ("m[None, :]", "n[:, None]") if turned else ("m[:, None]", "n[None, :]")
        position = len(self.call.args) - 3
        return self._factors(position, "keep", self.keep, head, turned, self._whole(m, n, cut))

    def _over_keys(self, body: Sequence[tuple[bool, list[str]]]) -> list[str]:
        """Loops over the keys that a block of queries sees: those that need no mask, then the others. `body` has the
        lines for either."""
        keys = self.sizes.text(self.keys)
        whole, cut = (lines for _, lines in sorted(body, key=lambda b: b[0]))
        end = f"min(start + BLOCK_M, {keys})" if self.causal else keys
        if self.causal:
            middle = f"min(start, {keys}) // BLOCK_N * BLOCK_N"
        elif self.even_n:
            return [f"for n_start in range(0, {keys}, BLOCK_N):", *_indented(whole)]
        else:
            middle = f"{keys} // BLOCK_N * BLOCK_N"
        return [
            f"middle = {middle}",
            "for n_start in range(0, middle, BLOCK_N):",
            *_indented(whole),
            f"for n_start in range(middle, {end}, BLOCK_N):",
            *_indented(cut),
        ]

    @property
    def long(self) -> str:
        return ".to(tl.int64)" if self.wide else ""

    def _shared_head(self) -> str:
        """The head of keys and values that a head of queries uses."""
        if self.heads is self.shared or self.heads == self.shared:
            return "head"
        return f"(head // {self.sizes.factor(self.heads // self.shared)})"


class _Forward(_Pass):
    name = "attention"

    def __init__(self, call: ExternCall, bindings: Mapping[str, int], shape: Shape) -> None:
        super().__init__(call, bindings, shape)
        self.late = self.mask is None and self.scale > 0

    def grid(self) -> list[tuple[Any, int]]:
        return [(self.length, self.shape.m), (self.heads, 1), (self.batch, 1)]

    def lines(self) -> list[str]:
        return [
            *self._program(self.length, "BLOCK_M", self.heads, bool(self.causal)),
            f"head = (outer % {self.sizes.factor(self.heads)}){self.long}",
            "m = start + tl.arange(0, BLOCK_M)",
            "e = tl.arange(0, BLOCK_E)",
            "v = tl.arange(0, BLOCK_V)",
            f"queries = {self._load(self.query, 'query', 'm', 'head', 'e')}",
            'largest = tl.full([BLOCK_M], float("-inf"), tl.float32)',
            "total = tl.zeros([BLOCK_M], tl.float32)",
            "acc = tl.zeros([BLOCK_M, BLOCK_V], tl.float32)",
            *self._described(self.key, "key", self._shared_head(), "e"),
            *self._described(self.value, "value", self._shared_head(), "v"),
            *self._over_keys([(cut, self._step(cut)) for cut in (False, True)]),
            *self._stored(),
        ]

    def _step(self, cut: bool) -> list[str]:
        self_even = self.even_n
        self.even_n = self_even or not cut  # the keys of whole blocks are all there
        shared = self._shared_head()
        factor = f" * {self.scale * LOG2E!r}" if self.late else ""
        lines = [
            "n = n_start + tl.arange(0, BLOCK_N)",
            f"keys = {self._load(self.key, 'key', 'n', shared, 'e', turned=True)}",
            *self._scores(f"tl.dot(queries, keys{self.how})", "head", False, cut),
            f"higher = tl.maximum(largest, tl.max(scores, 1){factor})",
        ]
        shift = "higher"
        if self.mask is not None:
            lines.append('shift = tl.where(higher == float("-inf"), 0.0, higher)  # of a row that saw nothing yet')
            shift = "shift"
        lines += [
            f"weights = tl.exp2(scores{factor} - {shift}[:, None])",
            f"shrink = tl.exp2(largest - {shift})",
            "total = total * shrink + tl.sum(weights, 1)",
            "largest = higher",
            *self._kept("head", False, cut),
            *(["weights = weights * keep_block"] if self.keep is not None else []),
            f"values = {self._load(self.value, 'value', 'n', shared, 'v')}",
            f"acc = tl.dot(weights{self.narrow}, values, acc * shrink[:, None]{self.how})",
        ]
        self.even_n = self_even
        return lines

    def _stored(self) -> list[str]:
        result, logsumexp = self.call.outputs
        lines = ["some = tl.where(total == 0.0, 1.0, total)  # a row that sees nothing is zero"]
        if result is not None:
            place = (
                f"((batch * {self.sizes.factor(self.length)} + m[:, None]) * {self.sizes.factor(self.heads)} + head)"
            )
            mask = self._inside("row", "m", "v")
            lines.append(
                f"tl.store({self.pointers.of(result, 'out')} + {place} * {self.value_size} + v[None, :], "
                f"(acc / some[:, None]){self.narrow}{f', mask={mask}' if mask else ''})"
            )
        if logsumexp is not None:
            place = f"(batch * {self.sizes.factor(self.heads)} + head) * {self.sizes.factor(self.length)} + m"
            mask = "" if self.even_m else f", mask=m < {self.sizes.text(self.length)}"
            value = f"(largest + tl.log2(total)) * {LN2!r}"
            lines.append(f"tl.store({self.pointers.of(logsumexp, 'out')} + {place}, {value}{mask})")
        return lines


class _Backward(_Pass):
    first = 1

    def __init__(self, call: ExternCall, bindings: Mapping[str, int], shape: Shape) -> None:
        super().__init__(call, bindings, shape)
        self.grad: View = call.args[0]
        self.logsumexp: View = call.args[4]
        self.delta: View = call.args[5]

    def _rows(self) -> list[str]:
        """What belongs to a block of queries, beside them."""
        return [
            f"""sums = {self._per_row(self.logsumexp, "sums", "head", 'float("inf")')} * {LOG2E!r}""",
            'sums = tl.where(sums == float("-inf"), float("inf"), sums)  # a row that sees nothing has no weights',
            *self._delta(),
        ]

    def _delta(self) -> list[str]:
        return [f"delta = {self._per_row(self.delta, 'delta', 'head', '0.0')}.to(tl.float32)"]

    def _store(self, number: int, value: str, along: str, columns: str, heads: Any, head: str) -> list[str]:
        """Store a block of the result of that number, and what its rows add up to, if somebody wants that."""
        mask = self._inside("row", along, columns)
        masked = f", mask={mask}" if mask else ""
        placed = self.call.places.get(number) if isinstance(self.call, FusedCall) else None
        if placed is not None:
            address = self._address(placed, "out", ["batch", f"{along}[:, None]", head, f"{columns}[None, :]"])
            lines = [f"tl.store({address}, ({value}){self.narrow}{masked})"]
            return lines + self._row_sums(placed, value, along, columns, head)
        buffer = self.call.outputs[number]
        assert buffer is not None
        extent = self.length if along == "m" else self.keys
        size = self.size if columns == "e" else self.value_size
        place = f"((batch * {self.sizes.factor(extent)} + {along}[:, None]) * {self.sizes.factor(heads)} + {head})"
        pointer = self.pointers.of(buffer, "out")
        return [f"tl.store({pointer} + {place} * {size} + {columns}[None, :], ({value}){self.narrow}{masked})"]

    def _row_sums(self, placed: View, value: str, along: str, columns: str, head: str) -> list[str]:
        """The lines that add up rows of a block, as they are stored, in groups, and store the sums."""
        sums = self.call.sums if isinstance(self.call, FusedCall) else None
        if sums is None:
            return []
        rows, width = sums.rows, sums.totals.shape[1]
        block = f"BLOCK_{along.upper()}"
        groups = placed.shape[1] // rows  # of each batch
        size = placed.shape[3]
        rounded = f"(({value}){self.narrow}).to(tl.float32)"
        even = self.even_m if along == "m" else self.even_n
        if not even:
            rounded = f"tl.where({along}[:, None] < {placed.shape[1]}, {rounded}, 0.0)"
        place = (
            f"(batch * {groups} + group)[:, None] * {width} + {placed.offset} + {head} * {size} + {columns}[None, :]"
        )
        inside = [] if even else [f"(group < {groups})[:, None]"]
        inside += [] if self._whole_columns(columns) else [f"({columns} < {size})[None, :]"]
        mask = f", mask={' & '.join(inside)}" if inside else ""
        pointer = self.pointers.of(sums.totals, "sums")
        return [
            f"# The sums of {rows} rows each, which a later kernel adds up.",
            f"group = start // {rows} + tl.arange(0, {block} // {rows})",
            f"summed = tl.reshape({rounded}, [{block} // {rows}, {rows}, BLOCK_{columns.upper()}])",
            f"tl.store({pointer} + {place}, tl.sum(summed, 1){mask})",
        ]

    def _whole_columns(self, columns: str) -> bool:
        size, block = (self.size, self.block_e) if columns == "e" else (self.value_size, self.block_v)
        return bool(size == block)


class _KeyGradients(_Backward):
    name = "attention_backward_keys"
    over = "m"

    def grid(self) -> list[tuple[Any, int]]:
        return [(self.keys, self.shape.n), (self.shared, 1), (self.batch, 1)]

    def lines(self) -> list[str]:
        _, grad_key, grad_value = self.call.outputs[:3]
        stores: list[str] = []
        if grad_key is not None:
            stores.extend(self._store(1, f"grad_keys * {self.scale!r}", "n", "e", self.shared, "shared"))
        if grad_value is not None:
            stores.extend(self._store(2, "grad_values", "n", "v", self.shared, "shared"))
        several = not (self.heads is self.shared or self.heads == self.shared)
        group = self.sizes.factor(self.heads // self.shared) if several else ""
        loops = [
            *self._described(self.query, "query", "head", "e"),
            *self._described(self.grad, "grad", "head", "v"),
            *self._loops(),
        ]
        if several:
            loops = [
                "# The heads of queries that share these keys, in a fixed order.",
                f"for member in range(0, {group}):",
                f"    head = shared * {group} + member",
                *_indented(loops),
            ]
        return [
            *self._program(self.keys, "BLOCK_N", self.shared, False),
            f"shared = (outer % {self.sizes.factor(self.shared)}){self.long}",
            *([] if several else ["head = shared"]),
            "n = start + tl.arange(0, BLOCK_N)",
            "e = tl.arange(0, BLOCK_E)",
            "v = tl.arange(0, BLOCK_V)",
            f"keys = {self._load(self.key, 'key', 'n', 'shared', 'e')}",
            f"values = {self._load(self.value, 'value', 'n', 'shared', 'v')}",
            "grad_keys = tl.zeros([BLOCK_N, BLOCK_E], tl.float32)",
            "grad_values = tl.zeros([BLOCK_N, BLOCK_V], tl.float32)",
            *loops,
            *stores,
        ]

    def _loops(self) -> list[str]:
        """Over the queries that see a block of keys."""
        length = self.sizes.text(self.length)
        whole = self._step(False)
        if not self.causal:
            return [f"for m_start in range(0, {length}, BLOCK_M):", *_indented(whole)]
        return [
            "first = start // BLOCK_M * BLOCK_M",
            f"middle = min(tl.cdiv(start + BLOCK_N - 1, BLOCK_M) * BLOCK_M, tl.cdiv({length}, BLOCK_M) * BLOCK_M)",
            "for m_start in range(first, middle, BLOCK_M):",
            *_indented(self._step(True)),
            f"for m_start in range(middle, {length}, BLOCK_M):",
            *_indented(whole),
        ]

    def _step(self, cut: bool) -> list[str]:
        kept = self._kept("head", True, True)
        dropped = " * keep_block" if self.keep is not None else ""
        return [
            "m = m_start + tl.arange(0, BLOCK_M)",
            f"queries = {self._load(self.query, 'query', 'm', 'head', 'e')}",
            *self._rows(),
            *self._scores(f"tl.dot(keys, tl.trans(queries){self.how})", "head", True, cut or self.mask is not None),
            "weights = tl.exp2(scores - sums[None, :])",
            *kept,
            f"grads = {self._load(self.grad, 'grad', 'm', 'head', 'v')}",
            f"grad_values = tl.dot((weights{dropped}){self.narrow}, grads, grad_values{self.how})",
            f"slopes = tl.dot(values, tl.trans(grads){self.how}){dropped}",
            "slopes = weights * (slopes - delta[None, :])",
            f"grad_keys = tl.dot(slopes{self.narrow}, queries, grad_keys{self.how})",
        ]


class _QueryGradient(_Backward):
    name = "attention_backward_queries"

    def grid(self) -> list[tuple[Any, int]]:
        return [(self.length, self.shape.m), (self.heads, 1), (self.batch, 1)]

    def lines(self) -> list[str]:
        return [
            *self._program(self.length, "BLOCK_M", self.heads, bool(self.causal)),
            f"head = (outer % {self.sizes.factor(self.heads)}){self.long}",
            "m = start + tl.arange(0, BLOCK_M)",
            "e = tl.arange(0, BLOCK_E)",
            "v = tl.arange(0, BLOCK_V)",
            f"queries = {self._load(self.query, 'query', 'm', 'head', 'e')}",
            f"grads = {self._load(self.grad, 'grad', 'm', 'head', 'v')}",
            *self._rows(),
            "acc = tl.zeros([BLOCK_M, BLOCK_E], tl.float32)",
            *self._described(self.key, "key", self._shared_head(), "e"),
            *self._described(self.value, "value", self._shared_head(), "v"),
            *self._over_keys([(cut, self._step(cut)) for cut in (False, True)]),
            *self._store(0, f"acc * {self.scale!r}", "m", "e", self.heads, "head"),
        ]

    def _delta(self) -> list[str]:
        if self.result is None:
            return super()._delta()
        address = self._address(self.delta, "delta", ["batch", "head", "m"])
        mask = "" if self.even_m else f", mask=m < {self.sizes.text(self.length)}"
        return [
            "# What each row adds up to, gradient times result, which the other pass reads.",
            f"results = {self._load(self.result, 'result', 'm', 'head', 'v')}",
            "delta = tl.sum(grads.to(tl.float32) * results.to(tl.float32), 1)",
            f"tl.store({address}, delta{mask})",
        ]

    def _step(self, cut: bool) -> list[str]:
        self_even = self.even_n
        self.even_n = self_even or not cut
        shared = self._shared_head()
        dropped = " * keep_block" if self.keep is not None else ""
        lines = [
            "n = n_start + tl.arange(0, BLOCK_N)",
            f"keys = {self._load(self.key, 'key', 'n', shared, 'e')}",
            *self._scores(f"tl.dot(queries, tl.trans(keys){self.how})", "head", False, cut),
            "weights = tl.exp2(scores - sums[:, None])",
            *self._kept("head", False, cut),
            f"values = {self._load(self.value, 'value', 'n', shared, 'v')}",
            f"slopes = tl.dot(grads, tl.trans(values){self.how}){dropped}",
            "slopes = weights * (slopes - delta[:, None])",
            f"acc = tl.dot(slopes{self.narrow}, keys, acc{self.how})",
        ]
        self.even_n = self_even
        return lines


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"    {line}" for line in lines]
