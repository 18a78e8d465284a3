"""Triton source for calls that move elements: gathers, concatenation, padding, writes into a part, sums by index.

A gather computes, for every element of the result, where it comes from. A sum by index is two launches: a fill or copy,
and atomic additions, whose order (and so the last bits of a float's sum) is not fixed. Indices out of range, which
PyTorch reports as a device-side assertion, read as 0 and write nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphtorch.ir.graph import Node
from graphtorch.lowering.binding import concrete
from graphtorch.lowering.kernel import Buffer, ExternCall, View
from graphtorch.lowering.triton.codegen import IMPORTS, Generated, Sizes, comment
from graphtorch.lowering.triton.errors import UnsupportedError
from graphtorch.lowering.triton.instructions import memory, register
from graphtorch.lowering.triton.tiling import Limits, is_zero, power_of_two, warps
from graphtorch.tensor import dtypes

_ATOMIC = (dtypes.float32, dtypes.float64, dtypes.int32, dtypes.int64)


@dataclass
class Writer:
    """A function over the elements of some shape: `i0`, `i1`, ... are an element's indices, `n` its number."""

    call: ExternCall
    name: str
    shape: Sequence[Any]
    bindings: Mapping[str, int]
    limits: Limits
    sizes: Sizes = field(default_factory=Sizes)
    buffers: dict[Buffer, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    reach: int = 0

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
        terms = [] if is_zero(view.offset) else [self.sizes.factor(view.offset)]
        for stride, index in zip(view.strides, indices, strict=True):
            if not is_zero(stride) and index != "0":
                terms.append(index if stride == 1 and type(stride) is int else f"{self.sizes.factor(stride)} * {index}")
        for size, stride in zip(
            concrete(view.shape, self.bindings), concrete(view.strides, self.bindings), strict=True
        ):
            self.reach = max(self.reach, size * abs(stride) + concrete(view.offset, self.bindings))
        where = " + ".join(terms) or "0"
        pointer = self.pointer(view.buffer)
        return (
            f"tl.load({pointer} + {where}, mask={mask}, other=0)"
            if terms
            else f"tl.load({pointer} + n * 0, mask={mask})"
        )

    def let(self, name: str, text: str) -> str:
        self.lines.append(f"    {name} = {text}")
        return name

    def store(self, buffer: Buffer, value: str, where: str = "n", mask: str = "mask") -> None:
        self.lines.append(f"    tl.store({self.pointer(buffer)} + {where}, {value}, mask={mask})")

    def index(self, view: View, indices: Sequence[str], size: Any) -> tuple[str, str]:
        """An index read from memory, and the mask of those within a dimension of that size."""
        at = self.let("at", self.load(view, indices))
        return at, self.let("inside", f"mask & ({at} >= 0) & ({at} < {self.sizes.factor(size)})")

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
        for i in reversed(range(len(self.shape))):
            text = "n" if type(inner) is int and inner == 1 else f"n // {self.sizes.factor(inner)}"
            coordinates.append(f"    i{i} = {text}" + (f" % {self.sizes.factor(self.shape[i])}" if i else ""))
            inner = inner * self.shape[i]
        body = "\n".join([*head, *reversed(coordinates), *self.lines])
        pointers = list(self.buffers.values())
        arguments = ", ".join([*pointers, *(n for n, _ in self.sizes.arguments()), "BLOCK: tl.constexpr"])
        imports = "".join(IMPORTS.splitlines(True)[:2])
        return Generated(
            self.name,
            f"{imports}\n\n@triton.jit\ndef {self.name}({arguments}):\n{body}\n",
            tuple(self.buffers),
            tuple(pointers),
            self.sizes.arguments(),
            {"BLOCK": block},
            ((count, block),),
            wide,
            self.sizes.divisible(self.bindings),
            warps(block),
        )


Template = Callable[[Callable[..., Writer], tuple[Any, ...], Buffer], list[Generated]]


def generate_indexing(call: ExternCall, bindings: Mapping[str, int], limits: Limits) -> list[Generated]:
    """The functions of a call, in order. Raises UnsupportedError for one without a template."""
    template = TEMPLATES.get(call.op.name)
    if template is None:
        raise UnsupportedError(f"no Triton template for {call.op.name}")
    out = call.outputs[0]
    if out is None:
        raise UnsupportedError(f"{call.op.name} without its first result")

    def writer(shape: Sequence[Any], suffix: str = "") -> Writer:
        return Writer(call, call.op.name + suffix, shape, bindings, limits)

    return template(writer, call.args, out)


def _names(rank: int) -> list[str]:
    return [f"i{i}" for i in range(rank)]


def _replaced(indices: list[str], dim: int, by: str) -> list[str]:
    return [*indices[:dim], by, *indices[dim + 1 :]]


# -- gathers ----------------------------------------------------------------------------------------------------------


def _embedding(writer: Callable[..., Writer], args: tuple[Any, ...], out: Buffer) -> list[Generated]:
    weight, indices = args[:2]
    w = writer(out.shape)
    at, inside = w.index(indices, _names(len(indices.shape)), weight.shape[0])
    w.store(out, w.load(weight, [at, f"i{len(indices.shape)}"], inside))
    return [w.finish()]


def _index_select(writer: Callable[..., Writer], args: tuple[Any, ...], out: Buffer) -> list[Generated]:
    source, dim, index = args
    if not out.shape:
        raise UnsupportedError("index_select of a scalar")
    w = writer(out.shape)
    names = _names(len(out.shape))
    at, inside = w.index(index, [names[dim]] * len(index.shape), source.shape[dim])
    w.store(out, w.load(source, _replaced(names, dim, at), inside))
    return [w.finish()]


def _gather(writer: Callable[..., Writer], args: tuple[Any, ...], out: Buffer) -> list[Generated]:
    source, dim, index = args[:3]
    if not out.shape or not source.shape:
        raise UnsupportedError("gather of a scalar")
    w = writer(out.shape)
    names = _names(len(out.shape))
    at, inside = w.index(index, names, source.shape[dim])
    w.store(out, w.load(source, _replaced(names, dim, at), inside))
    return [w.finish()]


def _flip(writer: Callable[..., Writer], args: tuple[Any, ...], out: Buffer) -> list[Generated]:
    source, dims = args
    w = writer(out.shape)
    names = [f"({w.sizes.text(s - 1)} - i{i})" if i in dims else f"i{i}" for i, s in enumerate(out.shape)]
    w.store(out, w.load(source, names))
    return [w.finish()]


def _cat(writer: Callable[..., Writer], args: tuple[Any, ...], out: Buffer) -> list[Generated]:
    """One launch a part, each over its own elements: their number bounds nothing."""
    parts, dim = args
    made = []
    start: Any = 0
    for i, part in enumerate(parts):
        if len(part.shape) != len(out.shape):
            continue  # an empty vector, which PyTorch leaves out
        if part.buffer.dtype is not out.dtype:
            raise UnsupportedError("cat of several dtypes")
        w = writer(part.shape, f"_{i}")
        names = _names(len(part.shape))
        where = _flat(
            w, _replaced(names, dim, names[dim] if is_zero(start) else f"({names[dim]} + {w.sizes.text(start)})"), out
        )
        w.store(out, w.load(part, names), where)
        made.append(w.finish())
        start = start + part.shape[dim]
    return made


def _flat(w: Writer, indices: Sequence[str], of: Buffer) -> str:
    """The position of an element in a contiguous buffer."""
    terms = []
    inner: Any = 1
    for i in reversed(range(len(of.shape))):
        one = type(inner) is int and inner == 1
        terms.append(indices[i] if one else f"{w.sizes.factor(inner)} * {indices[i]}")
        inner = inner * of.shape[i]
    return " + ".join(reversed(terms)) or "n * 0"


def _pad(writer: Callable[..., Writer], args: tuple[Any, ...], out: Buffer) -> list[Generated]:
    source, pad, value = args
    w = writer(out.shape)
    names = _names(len(out.shape))
    conditions = []
    for k in range(len(pad) // 2):
        i = len(out.shape) - 1 - k
        names[i] = f"(i{i} - {w.sizes.factor(pad[2 * k])})"
        conditions.append(f"({names[i]} >= 0) & ({names[i]} < {w.sizes.factor(source.shape[i])})")
    inside = w.let("inside", " & ".join(["mask", *conditions]))
    filler = float(value) if out.dtype.is_floating_point else int(value)
    if filler != filler or filler in (float("inf"), float("-inf")):
        text = f'float("{filler}")'
    else:
        text = repr(filler)
    w.store(out, f"tl.where({inside}, {w.load(source, names, inside)}, {text}).to({memory(out.dtype)})")
    return [w.finish()]


# -- writes into a part -----------------------------------------------------------------------------------------------


def _slice_part(w: Writer, shape: Sequence[Any], attributes: tuple[Any, ...], part: View) -> tuple[list[str], str]:
    """Where an element of the whole lies in a slice, and whether it does."""
    dim, start, _, step = attributes
    names = _names(len(shape))
    at = w.let("at", f"i{dim} - {w.sizes.factor(start)}")
    inside = w.let(
        "inside",
        f"mask & ({at} >= 0) & ({at} % {step} == 0) & ({at} < {w.sizes.factor(part.shape[dim])} * {step})",
    )
    return _replaced(names, dim, f"({at} // {step})"), inside


def _select_part(w: Writer, shape: Sequence[Any], attributes: tuple[Any, ...], part: View) -> tuple[list[str], str]:
    dim, index = attributes
    inside = w.let("inside", f"mask & (i{dim} == {w.sizes.factor(index)})")
    names = _names(len(shape))
    return [*names[:dim], *names[dim + 1 :]], inside


def _scatter_part(part_of: Callable[..., tuple[list[str], str]], whole: bool) -> Template:
    def template(writer: Callable[..., Writer], args: tuple[Any, ...], out: Buffer) -> list[Generated]:
        part = args[1] if whole else args[0]
        w = writer(out.shape)
        names, inside = part_of(w, out.shape, args[2:], part)
        value = w.load(part, names, inside)
        if whole:  # the rest is as it was
            value = f"tl.where({inside}, {value}, {w.load(args[0], _names(len(out.shape)))})"
        w.store(out, value)
        return [w.finish()]

    return template


# -- sums by index ----------------------------------------------------------------------------------------------------


def _check_atomic(out: Buffer) -> None:
    if out.dtype not in _ATOMIC:
        raise UnsupportedError(f"atomic additions in {out.dtype.name}")


def _start(writer: Callable[..., Writer], out: Buffer, source: View | None) -> Generated:
    """The result before the additions: zeros or a copy."""
    w = writer(out.shape, "_start")
    zero = f"tl.zeros([BLOCK], {memory(out.dtype)})"
    w.store(out, zero if source is None else w.load(source, _names(len(out.shape))))
    return w.finish()


def _add(w: Writer, out: Buffer, where: str, value: str, mask: str) -> None:
    w.lines.append(f"    tl.atomic_add({w.pointer(out)} + {where}, {value}, mask={mask})")


def _embedding_backward(writer: Callable[..., Writer], args: tuple[Any, ...], out: Buffer) -> list[Generated]:
    g, indices, rows, padding, by_frequency = args
    _check_atomic(out)
    if by_frequency:
        raise UnsupportedError("embedding gradients scaled by frequency")
    w = writer(g.shape)
    names = _names(len(g.shape))
    at, inside = w.index(indices, names[:-1], rows)
    if type(padding) is not int or padding >= 0:
        inside = w.let("inside", f"{inside} & ({at} != {w.sizes.factor(padding)})")
    _add(w, out, _flat(w, [at, names[-1]], out), w.load(g, names, inside), inside)
    return [_start(writer, out, None), w.finish()]


def _index_add(writer: Callable[..., Writer], args: tuple[Any, ...], out: Buffer) -> list[Generated]:
    target, dim, index, source, alpha = args
    _check_atomic(out)
    if not out.shape or len(source.shape) != len(out.shape) or len(index.shape) != 1:
        raise UnsupportedError("index_add of a scalar")
    if not isinstance(alpha, int) or alpha != 1:
        raise UnsupportedError("index_add with a factor")
    w = writer(source.shape)
    names = _names(len(source.shape))
    at, inside = w.index(index, [names[dim]], out.shape[dim])
    _add(w, out, _flat(w, _replaced(names, dim, at), out), w.load(source, names, inside), inside)
    return [_start(writer, out, target), w.finish()]


def _scatter_add(writer: Callable[..., Writer], args: tuple[Any, ...], out: Buffer) -> list[Generated]:
    target, dim, index, source = args
    _check_atomic(out)
    if not out.shape or not index.shape:
        raise UnsupportedError("scatter_add of a scalar")
    w = writer(index.shape)
    names = _names(len(index.shape))
    at, inside = w.index(index, names, out.shape[dim])
    _add(w, out, _flat(w, _replaced(names, dim, at), out), w.load(source, names, inside), inside)
    return [_start(writer, out, target), w.finish()]


TEMPLATES: dict[str, Template] = {
    "embedding": _embedding,
    "index_select": _index_select,
    "gather": _gather,
    "flip": _flip,
    "cat": _cat,
    "constant_pad_nd": _pad,
    "slice_scatter": _scatter_part(_slice_part, True),
    "select_scatter": _scatter_part(_select_part, True),
    "slice_backward": _scatter_part(_slice_part, False),
    "select_backward": _scatter_part(_select_part, False),
    "embedding_dense_backward": _embedding_backward,
    "index_add": _index_add,
    "scatter_add": _scatter_add,
}
