"""Triton source for calls that move elements: gathers, concatenation, padding, writes into a part, sums by index.

A gather computes, for every element of the result, where it comes from. A sum by index is two launches: a fill or copy,
and atomic additions, whose order (and so the last bits of a float's sum) is not fixed. Indices out of range, which
PyTorch reports as a device-side assertion, read as 0 and write nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graphtorch.lowering.kernel import Buffer, ExternCall, View
from graphtorch.lowering.triton.codegen import Generated
from graphtorch.lowering.triton.errors import UnsupportedError
from graphtorch.lowering.triton.instructions import memory
from graphtorch.lowering.triton.pooling import POOLING
from graphtorch.lowering.triton.scan import SCANS, generate_scan
from graphtorch.lowering.triton.sorting import generate_sort
from graphtorch.lowering.triton.tiling import Limits, is_zero
from graphtorch.lowering.triton.writer import Writer, check_atomic, names_of, position, start

Template = Callable[[Callable[..., Writer], tuple[Any, ...], Buffer], list[Generated]]


def generate_indexing(call: ExternCall, bindings: Mapping[str, int], limits: Limits) -> list[Generated]:
    """The functions of a call, in order. Raises UnsupportedError for one without a template."""
    name = call.op.name
    if name in SCANS:
        return generate_scan(call, bindings, limits)
    if name == "sort":
        return generate_sort(call, bindings, limits)
    if name not in TEMPLATES and name not in POOLING:
        raise UnsupportedError(f"no Triton template for {name}")
    out = call.outputs[0]
    if out is None:
        raise UnsupportedError(f"{name} without its first result")

    def writer(shape: Sequence[Any], suffix: str = "") -> Writer:
        return Writer(call, name + suffix, shape, bindings, limits)

    if name in POOLING:
        return POOLING[name](writer, call, out)
    return TEMPLATES[name](writer, call.args, out)


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
    g, indices, rows, padding, by_frequency = args
    check_atomic(out)
    if by_frequency:
        raise UnsupportedError("embedding gradients scaled by frequency")
    w = writer(g.shape)
    names = names_of(len(g.shape))
    at, inside = w.index(indices, names[:-1], rows)
    if type(padding) is not int or padding >= 0:
        inside = w.let("inside", f"{inside} & ({at} != {w.sizes.factor(padding)})")
    w.add(out, position(w, [at, names[-1]], out.shape), w.load(g, names, inside), inside)
    return [start(writer, out, None), w.finish()]


def _index_add(writer: Callable[..., Writer], args: tuple[Any, ...], out: Buffer) -> list[Generated]:
    target, dim, index, source, alpha = args
    check_atomic(out)
    if not out.shape or len(source.shape) != len(out.shape) or len(index.shape) != 1:
        raise UnsupportedError("index_add of a scalar")
    if not isinstance(alpha, int) or alpha != 1:
        raise UnsupportedError("index_add with a factor")
    w = writer(source.shape)
    names = names_of(len(source.shape))
    at, inside = w.index(index, [names[dim]], out.shape[dim])
    w.add(out, position(w, _replaced(names, dim, at), out.shape), w.load(source, names, inside), inside)
    return [start(writer, out, target), w.finish()]


def _scatter_add(writer: Callable[..., Writer], args: tuple[Any, ...], out: Buffer) -> list[Generated]:
    target, dim, index, source = args
    check_atomic(out)
    if not out.shape or not index.shape:
        raise UnsupportedError("scatter_add of a scalar")
    w = writer(index.shape)
    names = names_of(len(index.shape))
    at, inside = w.index(index, names, out.shape[dim])
    w.add(out, position(w, _replaced(names, dim, at), out.shape), w.load(source, names, inside), inside)
    return [start(writer, out, target), w.finish()]


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
