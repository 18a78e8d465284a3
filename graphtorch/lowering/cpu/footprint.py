"""Which elements groups of a launch's units touch, worked out from strides: by it `chain.py` decides what may run chunk
by chunk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from graphtorch.lowering.cpu.function import Level, Span
from graphtorch.lowering.cpu.nest import Nest
from graphtorch.lowering.kernel import Access, Buffer, Expr, Load

Dims = Sequence[tuple[Any, Any]]  # (stride, size) of loops, the outermost first


def kernel_levels(nest: Nest, flattened: Sequence[int], exprs: Iterable[Expr]) -> list[Level]:
    """Of a kernel whose units are the points of the `flattened` loops."""
    loads = [e.access for e in exprs if isinstance(e, Load)]
    stores = [s.access for s in nest.kernel.stores]
    found: list[Level] = []
    units: Any = 1
    for count in range(len(flattened), 0, -1):
        outer = flattened[:count]
        inner = [i for i in range(len(nest.loops)) if i not in outer]

        def span(access: Access, outer: Sequence[int] = outer, inner: Sequence[int] = inner) -> Span | None:
            strides = nest.strides(access.strides)
            sizes = [loop.size for loop in nest.loops]
            return span_of(
                access.offset, [(strides[i], sizes[i]) for i in outer], [(strides[i], sizes[i]) for i in inner]
            )

        found.append(
            Level(units, joined((a.buffer, span(a)) for a in loads), joined((a.buffer, span(a)) for a in stores))
        )
        units = units * nest.loops[flattened[count - 1]].size
        if type(units) is not int:
            break
    return found


def span_of(offset: Any, outer: Dims, inner: Dims) -> Span | None:
    """What one point of the outer loops, counted in row-major order, touches; None if that is not affine in the count
    or a number is symbolic. The size of the outermost loop does not matter."""
    numbers = [offset, *(x for pair in inner for x in pair), *(s for s, _ in outer), *(n for _, n in outer[1:])]
    if not all(type(x) is int for x in numbers):
        return None
    for (stride, _), (following, size) in pairwise(outer):
        if stride != following * size:
            return None
    low = high = offset
    for stride, size in inner:
        reach = stride * (size - 1)
        low, high = low + min(reach, 0), high + max(reach, 0)
    return Span(outer[-1][0] if outer else 0, low, high + 1)


def joined(touched: Iterable[tuple[Buffer, Span | None]]) -> dict[Buffer, Span | None]:
    """One range a buffer; None where its accesses differ in stride."""
    found: dict[Buffer, Span | None] = {}
    for buffer, span in touched:
        if buffer not in found:
            found[buffer] = span
            continue
        known = found[buffer]
        if known is None or span is None or known.stride != span.stride:
            found[buffer] = None
        else:
            found[buffer] = Span(span.stride, min(known.low, span.low), max(known.high, span.high))
    return found
