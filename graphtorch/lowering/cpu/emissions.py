"""The code of steps that differ only in their buffers is written once: a model of forty equal layers has the kernels of
one.

A kernel's signature is what the emitter sees of it: axes, expressions and accesses, with buffers numbered in the order
in which they are met. Sizes that are symbols go in by name, for comparing them would ask a question about them; a table
of signatures therefore belongs to one schedule."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from graphtorch.lowering.cpu.emitter import emit_kernel
from graphtorch.lowering.cpu.expansion import SCRATCH
from graphtorch.lowering.cpu.function import Function, Level
from graphtorch.lowering.cpu.gemm import emit_product
from graphtorch.lowering.cpu.launch import Product
from graphtorch.lowering.cpu.packed import emit_packed
from graphtorch.lowering.kernel import Access, Buffer, Compute, Constant, Expr, Index, Kernel, Load, Reduce


class Emissions:
    """What was emitted for one schedule."""

    def __init__(self, register_bits: int, fma: bool) -> None:
        self.register_bits = register_bits
        self.fma = fma
        self._kernels: dict[Any, tuple[Function, list[Buffer]]] = {}
        self._products: dict[Any, tuple[Function | list[Function] | None, list[Buffer]]] = {}

    def kernel(self, kernel: Kernel) -> Function:
        """The code of a kernel. Raises RefusedError."""
        key, buffers = signature(kernel)
        found = self._kernels.get(key)
        if found is None:
            found = self._kernels[key] = emit_kernel(kernel, self.register_bits, self.fma), buffers
            return found[0]
        return _on(found[0], dict(zip(found[1], buffers, strict=True)))

    def product(self, product: Product) -> Function | list[Function] | None:
        """The code of a matrix product: a function, or several in order; None where BLAS does it."""
        views = product.operands
        buffers = [views[0].buffer, views[1].buffer, product.output]
        which = tuple(buffers.index(b) for b in buffers)
        sizes = (product.batch, product.m, product.n, product.k, product.leading)
        places = [(v.shape, v.strides, v.offset) for v in views]
        key = _plain((product.letter, which, product.transposed, product.accumulate, *sizes, *places))
        found = self._products.get(key)
        if found is None:
            code = emit_product(product, self.register_bits, self.fma) or self._packed(product)
            self._products[key] = code, buffers
            return code
        code, known = found
        others = dict(zip(known, buffers, strict=True))
        if isinstance(code, list):
            scratch = {b for function in code for b in function.buffers if b.kind == SCRATCH}
            others.update((b, dataclasses.replace(b)) for b in scratch)  # each step has memory of its own
            return [_on(function, others) for function in code]
        return None if code is None else _on(code, others)

    def _packed(self, product: Product) -> list[Function] | None:
        lanes = self.register_bits // (8 * product.output.dtype.itemsize)
        return emit_packed(product, lanes, 16 if self.register_bits == 256 else 32, self.fma)


def _on(function: Function, buffers: Mapping[Buffer, Buffer]) -> Function:
    """The same code on other buffers."""
    levels: Sequence[Level] = [
        Level(
            level.units,
            {buffers.get(b, b): span for b, span in level.reads.items()},
            {buffers.get(b, b): span for b, span in level.writes.items()},
        )
        for level in function.levels
    ]
    return dataclasses.replace(function, buffers=[buffers[b] for b in function.buffers], levels=levels)


def signature(kernel: Kernel) -> tuple[Any, list[Buffer]]:
    """What decides a kernel's code, and its buffers in the order in which that numbers them."""
    numbers: dict[Buffer, int] = {}
    places: dict[int, int] = {}  # id of an expression -> its position among `found`
    found: list[Any] = []

    def access(of: Access) -> tuple[Any, ...]:
        buffer = of.buffer
        number = numbers.setdefault(buffer, len(numbers))
        return number, buffer.dtype.name, buffer.kind == "temporary", _plain(of.offset), _plain(of.strides)

    def described(expr: Expr) -> tuple[Any, ...]:
        if isinstance(expr, Load):
            return access(expr.access)
        if isinstance(expr, Compute):
            return expr.instruction, expr.dtype.name, *[places[id(a)] for a in expr.arguments]
        if isinstance(expr, Constant):
            return expr.dtype.name, type(expr.value).__name__, repr(expr.value)
        if isinstance(expr, Index):
            return "index", expr.dtype.name, _plain(expr.offset), _plain(expr.strides)
        assert isinstance(expr, Reduce)
        return expr.combine, expr.dtype.name, expr.axes, places[id(expr.operand)]

    stack: list[tuple[Expr, bool]] = [(s.value, False) for s in reversed(kernel.stores)]
    while stack:
        expr, ready = stack.pop()
        if id(expr) in places:
            continue
        if ready:
            places[id(expr)] = len(found)
            found.append((type(expr).__name__, *described(expr)))
        else:
            stack.append((expr, True))
            stack.extend((o, False) for o in reversed(expr.operands()))
    axes = tuple((_plain(axis.size), axis.reduction) for axis in kernel.axes)
    stores = tuple((places[id(s.value)], *access(s.access)) for s in kernel.stores)
    return (axes, tuple(found), stores), list(numbers)


def _plain(value: Any) -> Any:
    """Sizes as something whose comparison asks nothing: symbols become their text."""
    if type(value) is tuple:
        return tuple([_plain(v) for v in value])
    return value if type(value) is int else str(value)
