"""Triton source for calls that move elements: gathers, concatenation, padding, writes into a part, sums by index.

A gather computes, for every element of the result, where it comes from. A sum by index is two launches: a fill or copy,
and atomic additions, whose order (and so the last bits of a float's sum) is not fixed. Indices out of range, which
PyTorch reports as a device-side assertion, read as 0 and write nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from graphtorch.lowering.binding import concrete
from graphtorch.lowering.kernel import Buffer, ExternCall, View
from graphtorch.lowering.triton.codegen import Generated
from graphtorch.lowering.triton.elementwise import ELEMENTWISE, generate_frexp
from graphtorch.lowering.triton.errors import UnsupportedError
from graphtorch.lowering.triton.instructions import convert, memory, register
from graphtorch.lowering.triton.pooling import POOLING
from graphtorch.lowering.triton.scan import SCANS, generate_scan
from graphtorch.lowering.triton.segments import generate_segments
from graphtorch.lowering.triton.sizes import Sizes
from graphtorch.lowering.triton.sorting import generate_sort, key_text
from graphtorch.lowering.triton.tiling import Limits, is_zero
from graphtorch.lowering.triton.writer import Writer, check_atomic, names_of, position, start
from graphtorch.ops.indexing import indexed_shape
from graphtorch.tensor import dtypes
from graphtorch.tensor.dtypes import dtype
from graphtorch.tensor.symint import SymInt, same_shape

Template = Callable[[Callable[..., Writer], tuple[Any, ...], Buffer], list[Generated]]


def generate_indexing(call: ExternCall, bindings: Mapping[str, int], limits: Limits) -> list[Generated]:
    """The functions of a call, in order. Raises UnsupportedError for one without a template."""
    shaped = {b: _as_result(b, n.type.shape) for b, n in zip(call.outputs, call.nodes[0].results, strict=True) if b}
    made = _generate(replace(call, outputs=tuple(b and shaped[b] for b in call.outputs)), bindings, limits)
    back = {shape: buffer for buffer, shape in shaped.items()}
    return [replace(f, buffers=tuple(back.get(b, b) for b in f.buffers)) for f in made]


def _as_result(buffer: Buffer, shape: tuple[Any, ...]) -> Buffer:
    """A buffer in the shape of the result that it holds: the memory may be that of a view of it."""
    if same_shape(buffer.shape, shape):
        return buffer
    return Buffer(buffer.name, buffer.dtype, shape, buffer.kind, buffer.value)


def _generate(call: ExternCall, bindings: Mapping[str, int], limits: Limits) -> list[Generated]:
    name = call.op.name
    if name in SCANS:
        return generate_scan(call, bindings, limits)
    if name == "sort":
        return generate_sort(call, bindings, limits)
    if name == "fold_segments":
        return generate_segments(call, bindings, limits)
    if name == "frexp":
        return generate_frexp(lambda shape: Writer(call, name, shape, bindings, limits), call)
    if name not in TEMPLATES and name not in POOLING and name not in ELEMENTWISE:
        raise UnsupportedError(f"no Triton template for {name}")
    out = call.outputs[0]
    if out is None:
        raise UnsupportedError(f"{name} without its first result")

    def writer(shape: Sequence[Any], suffix: str = "") -> Writer:
        return Writer(call, name + suffix, shape, bindings, limits)

    if name in POOLING:
        return POOLING[name](writer, call, out)
    return (ELEMENTWISE.get(name) or TEMPLATES[name])(writer, call.args, out)


def number(value: Any, of: dtype, sizes: Sizes) -> str:
    """A Python number, or a symbolic size, as source."""
    if isinstance(value, View):
        raise UnsupportedError("a number that is known at run time only")
    if type(value) is SymInt:
        return sizes.factor(value)
    filler = float(value) if of.is_floating_point else int(bool(value)) if of is dtypes.bool_ else int(value)
    if filler != filler or filler in (float("inf"), float("-inf")):
        return f'float("{filler}")'
    return repr(filler)


def _replaced(indices: list[str], dim: int, by: str) -> list[str]:
    return [*indices[:dim], by, *indices[dim + 1 :]]


# -- gathers ----------------------------------------------------------------------------------------------------------


def _embedding(writer: Callable[..., Writer], args: tuple[Any, ...], out: Buffer) -> list[Generated]:
    weight, indices = args[:2]
    w = writer(out.shape)
    at, inside = w.index(indices, names_of(len(indices.shape)), weight.shape[0])
    w.store(out, w.load(weight, [at, f"i{len(indices.shape)}"], inside))
    return [w.finish()]


def _index_select(writer: Callable[..., Writer], args: tuple[Any, ...], out: Buffer) -> list[Generated]:
    source, dim, index = args
    if not out.shape:
        raise UnsupportedError("index_select of a scalar")
    w = writer(out.shape)
    names = names_of(len(out.shape))
    at, inside = w.index(index, [names[dim]] * len(index.shape), source.shape[dim])
    w.store(out, w.load(source, _replaced(names, dim, at), inside))
    return [w.finish()]


def _gather(writer: Callable[..., Writer], args: tuple[Any, ...], out: Buffer) -> list[Generated]:
    source, dim, index = args[:3]
    if not out.shape or not source.shape:
        raise UnsupportedError("gather of a scalar")
    w = writer(out.shape)
    names = names_of(len(out.shape))
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
    begin: Any = 0
    for i, part in enumerate(parts):
        if len(part.shape) != len(out.shape):
            continue  # an empty vector, which PyTorch leaves out
        if part.buffer.dtype is not out.dtype:
            raise UnsupportedError("cat of several dtypes")
        w = writer(part.shape, f"_{i}")
        names = names_of(len(part.shape))
        moved = names[dim] if is_zero(begin) else f"({names[dim]} + {w.sizes.text(begin)})"
        w.store(out, w.load(part, names), position(w, _replaced(names, dim, moved), out.shape))
        made.append(w.finish())
        begin = begin + part.shape[dim]
    return made


def _pad(writer: Callable[..., Writer], args: tuple[Any, ...], out: Buffer) -> list[Generated]:
    source, pad, value = args
    w = writer(out.shape)
    names = names_of(len(out.shape))
    conditions = []
    for k in range(len(pad) // 2):
        i = len(out.shape) - 1 - k
        names[i] = f"(i{i} - {w.sizes.factor(pad[2 * k])})"
        conditions.append(f"({names[i]} >= 0) & ({names[i]} < {w.sizes.factor(source.shape[i])})")
    inside = w.let("inside", " & ".join(["mask", *conditions]))
    text = number(value, out.dtype, w.sizes)
    w.store(out, f"tl.where({inside}, {w.load(source, names, inside)}, {text}).to({memory(out.dtype)})")
    return [w.finish()]


# -- writes into a part -----------------------------------------------------------------------------------------------


def _slice_part(w: Writer, shape: Sequence[Any], attributes: tuple[Any, ...], part: View) -> tuple[list[str], str]:
    """Where an element of the whole lies in a slice, and whether it does."""
    dim, start, _, step = attributes
    names = names_of(len(shape))
    at = w.let("at", f"i{dim} - {w.sizes.factor(start)}")
    inside = w.let(
        "inside",
        f"mask & ({at} >= 0) & ({at} % {step} == 0) & ({at} < {w.sizes.factor(part.shape[dim])} * {step})",
    )
    return _replaced(names, dim, f"({at} // {step})"), inside


def _select_part(w: Writer, shape: Sequence[Any], attributes: tuple[Any, ...], part: View) -> tuple[list[str], str]:
    dim, index = attributes
    inside = w.let("inside", f"mask & (i{dim} == {w.sizes.factor(index)})")
    names = names_of(len(shape))
    return [*names[:dim], *names[dim + 1 :]], inside


def _scatter_part(part_of: Callable[..., tuple[list[str], str]], whole: bool) -> Template:
    def template(writer: Callable[..., Writer], args: tuple[Any, ...], out: Buffer) -> list[Generated]:
        part = args[1] if whole else args[0]
        w = writer(out.shape)
        names, inside = part_of(w, out.shape, args[2:], part)
        value = w.load(part, names, inside)
        if whole:  # the rest is as it was
            value = f"tl.where({inside}, {value}, {w.load(args[0], names_of(len(out.shape)))})"
        w.store(out, value)
        return [w.finish()]

    return template


# -- sums by index ----------------------------------------------------------------------------------------------------


def _embedding_backward(writer: Callable[..., Writer], args: tuple[Any, ...], out: Buffer) -> list[Generated]:
    g, indices, rows, padding = args[:4]
    check_atomic(out)
    w = writer(g.shape)
    names = names_of(len(g.shape))
    at, inside = w.index(indices, names[:-1], rows)
    if type(padding) is not int or padding >= 0:
        inside = w.let("inside", f"{inside} & ({at} != {w.sizes.factor(padding)})")
    w.add(out, position(w, [at, names[-1]], out.shape), w.load(g, names, inside), inside)
    return [start(writer, out, None), w.finish()]


def _index_add(writer: Callable[..., Writer], args: tuple[Any, ...], out: Buffer) -> list[Generated]:
    target, dim, index, source = args[:4]
    check_atomic(out)
    w = writer(source.shape)
    names = names_of(len(source.shape))
    at, inside = w.index(index, [names[dim]], out.shape[dim])
    w.add(out, position(w, _replaced(names, dim, at), out.shape), w.load(source, names, inside), inside)
    return [start(writer, out, target), w.finish()]


def _scatter_add(writer: Callable[..., Writer], args: tuple[Any, ...], out: Buffer) -> list[Generated]:
    target, dim, index, source = args
    check_atomic(out)
    w = writer(index.shape)
    names = names_of(len(index.shape))
    at, inside = w.index(index, names, out.shape[dim])
    w.add(out, position(w, _replaced(names, dim, at), out.shape), w.load(source, names, inside), inside)
    return [start(writer, out, target), w.finish()]


# -- writes by index --------------------------------------------------------------------------------------------------


def _scatter(writer: Callable[..., Writer], args: tuple[Any, ...], out: Buffer) -> list[Generated]:
    target, dim, index, source = args
    w = writer(index.shape)
    names = names_of(len(index.shape))
    at, inside = w.index(index, names, out.shape[dim])
    where = position(w, _replaced(names, dim, at), out.shape)
    if isinstance(source, View):
        value = w.load(source, names, inside)
        if source.buffer.dtype is not out.dtype:
            value = f"{convert(value, source.buffer.dtype, out.dtype)}.to({memory(out.dtype)})"
    else:
        value = f"tl.full([BLOCK], {number(source, out.dtype, w.sizes)}, {memory(out.dtype)})"
    w.store(out, value, where, inside)
    return [start(writer, out, target), w.finish()]


def _indexed(w: Writer, source: Sequence[Any], indices: Sequence[Any], rank: int) -> tuple[list[str], str]:
    """The indices into an array of shape `source` of an element of what advanced indexing gives, and whether they are
    in range. None stands for a whole dimension; positions may count from the end."""
    places = [i for i, at in enumerate(indices) if at is not None]
    common = max(len(indices[i].shape) for i in places)
    first = places[0] if places[-1] - places[0] == len(places) - 1 else 0
    names = names_of(rank)
    shared, rest = names[first : first + common], iter([*names[:first], *names[first + common :]])
    found, inside = [], "mask"
    for i, size in enumerate(source):
        if i not in places:
            found.append(next(rest))
            continue
        view = indices[i]
        own = [
            "0" if type(n) is int and n == 1 else name
            for n, name in zip(view.shape, shared[common - len(view.shape) :], strict=True)
        ]
        at = w.let(f"at{i}", w.load(view, own))
        at = w.let(f"at{i}", f"tl.where({at} < 0, {at} + {w.sizes.factor(size)}, {at})")
        inside = w.let("inside", f"{inside} & ({at} >= 0) & ({at} < {w.sizes.factor(size)})")
        found.append(at)
    return found, inside


def _index(writer: Callable[..., Writer], args: tuple[Any, ...], out: Buffer) -> list[Generated]:
    source, indices = args
    w = writer(out.shape)
    names = names_of(len(out.shape))
    inside = "mask"
    if any(i is not None for i in indices):
        names, inside = _indexed(w, source.shape, indices, len(out.shape))
    w.store(out, w.load(source, names, inside))
    return [w.finish()]


def _index_put(writer: Callable[..., Writer], args: tuple[Any, ...], out: Buffer) -> list[Generated]:
    target, indices, values = args[:3]
    shape = indexed_shape(tuple(target.shape), indices)
    w = writer(shape)
    names, inside = _indexed(w, out.shape, indices, len(shape))
    given = [
        "0" if type(n) is int and n == 1 else f"i{len(shape) - len(values.shape) + d}"
        for d, n in enumerate(values.shape)
    ]
    w.store(out, w.load(values, given, inside), position(w, names, out.shape), inside)
    return [start(writer, out, target), w.finish()]


def _searchsorted(writer: Callable[..., Writer], args: tuple[Any, ...], out: Buffer) -> list[Generated]:
    edges, values, _, right = args
    w = writer(out.shape)
    names = names_of(len(out.shape))
    lead = names[:-1] if len(edges.shape) > 1 else []
    a, b = edges.buffer.dtype, values.buffer.dtype
    # Compared as integers of the same order, in which NaN is the largest number.
    common = a if a is b else dtypes.float64 if a.is_floating_point or b.is_floating_point else dtypes.int64

    def key(text: str, of: dtype) -> str:
        own = f"{text} != 0" if of is dtypes.bool_ else text
        wide = f"({own}).to({register(common)})" if of is not common or memory(of) != register(of) else own
        return key_text(wide, common, False)

    w.let("wanted", key(w.load(values, names), b))
    w.let("low", "tl.zeros([BLOCK], tl.int32)")
    w.let("high", f"low + {w.sizes.text(edges.shape[-1])}")
    length = concrete(edges.shape[-1], w.bindings)
    w.sizes.numbers["steps"] = length.bit_length() + 1
    with w.loop("_", "steps"):
        w.let("middle", "(low + high) // 2")
        w.let("inside", "mask & (low < high)")
        w.let("found", key(w.load(edges, [*lead, "middle"], "inside"), a))
        w.let("before", f"inside & (found {'<=' if right else '<'} wanted)")
        w.let("low", "tl.where(before, middle + 1, low)")
        w.let("high", "tl.where(inside & (before == 0), middle, high)")
    w.store(out, f"low.to({memory(out.dtype)})")
    return [w.finish()]


def _diagonal_part(w: Writer, shape: Sequence[Any], attributes: tuple[Any, ...], part: View) -> tuple[list[str], str]:
    """Where an element of the whole lies on a diagonal, and whether it does."""
    offset, first, second = attributes
    names = names_of(len(shape))
    inside = w.let("inside", f"mask & (i{second} - i{first} == {w.sizes.factor(offset)})")
    rest = [n for i, n in enumerate(names) if i not in (first, second)]
    return [*rest, f"tl.minimum(i{first}, i{second})"], inside


def _unfold_backward(writer: Callable[..., Writer], args: tuple[Any, ...], out: Buffer) -> list[Generated]:
    """Every element's sum over the windows that it lies in."""
    g, _, dim, size, step = args
    of = register(out.dtype)
    w = writer(out.shape)
    names = names_of(len(out.shape)) if out.shape else []
    w.let("total", f"tl.zeros([BLOCK], {of})")
    with w.loop("k", w.sizes.text(size)):
        at = w.let("at", f"(i{dim} - k) // {step}" if out.shape else "n * 0")
        fits = f"(i{dim} >= k) & ((i{dim} - k) % {step} == 0)" if out.shape else "(n == 0)"
        count = w.sizes.factor(g.shape[dim]) if out.shape else "1"
        inside = w.let("inside", f"mask & {fits} & ({at} < {count})")
        own = [*_replaced(names, dim, at), "k"] if out.shape else ["(k + n * 0)"]
        value = w.load(g, own, inside)
        w.let("total", f"total {'|' if out.dtype is dtypes.bool_ else '+'} {value}.to({of})")
    w.store(out, f"total.to({memory(out.dtype)})")
    return [w.finish()]


def _unfold_scatter(writer: Callable[..., Writer], args: tuple[Any, ...], out: Buffer) -> list[Generated]:
    """The elements of windows in their places; where windows overlap, of the last one."""
    target, part, dim, size, step = args
    if not out.shape:
        raise UnsupportedError("unfold_scatter of a scalar")
    w = writer(out.shape)
    names = names_of(len(out.shape))
    w.let("value", w.load(target, names))
    with w.loop("back", w.sizes.text(size)):
        k = w.let("k", f"{w.sizes.factor(size)} - 1 - back")
        at = w.let("at", f"(i{dim} - {k}) // {step}")
        inside = w.let(
            "inside",
            f"mask & (i{dim} >= {k}) & ((i{dim} - {k}) % {step} == 0) & ({at} < {w.sizes.factor(part.shape[dim])})",
        )
        w.let("value", f"tl.where({inside}, {w.load(part, [*_replaced(names, dim, at), k], inside)}, value)")
    w.store(out, "value")
    return [w.finish()]


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
    "scatter": _scatter,
    "index": _index,
    "index_put": _index_put,
    "searchsorted": _searchsorted,
    "diagonal_scatter": _scatter_part(_diagonal_part, True),
    "diagonal_backward": _scatter_part(_diagonal_part, False),
    "unfold_scatter": _unfold_scatter,
    "unfold_backward": _unfold_backward,
}
