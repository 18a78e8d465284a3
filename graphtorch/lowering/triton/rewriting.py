"""Expressions of kernels, taken apart and made anew."""

from __future__ import annotations

from collections.abc import Callable

from graphtorch.lowering.kernel import Compute, Expr, Kernel, Load, Reduce, post_order


def loads_of(kernel: Kernel) -> list[Load]:
    """Every load of a kernel."""
    return [e for e in kernel.exprs() if isinstance(e, Load)]


def rebuilder(
    replaced: Callable[[Expr], Expr | None], axes: Callable[[tuple[int, ...]], tuple[int, ...]] = lambda of: of
) -> Callable[[Expr], Expr]:
    """A function that copies expressions, with those for which `replaced` gives another one instead, and with folds
    over other axes. Shared expressions stay shared."""
    made: dict[int, Expr] = {}
    alive: list[Expr] = []  # whose identities are keys

    def rebuild(root: Expr) -> Expr:
        for expr in post_order([root], frozenset(made)):
            alive.append(expr)
            new = replaced(expr)
            if new is None and isinstance(expr, Compute):
                new = Compute(expr.instruction, tuple(made[id(a)] for a in expr.arguments), expr.dtype, expr.node)
            elif new is None and isinstance(expr, Reduce):
                new = Reduce(expr.combine, made[id(expr.operand)], axes(expr.axes), expr.dtype, expr.node)
            made[id(expr)] = expr if new is None else new
        return made[id(root)]

    return rebuild


class Hints(dict[str, int]):
    """A value for every symbol, where only the text's form matters."""

    def __missing__(self, name: str) -> int:
        return 16
