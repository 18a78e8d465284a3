"""Factors that are the same for everything that is summed, taken out of sums: a rewrite of the schedule.

The gradient of a batch norm, derived step by step, sums over pixels what is all made of two things: the gradient g, and
g times the distance from the mean, each times something of the channel. With such factors behind the sums these are two
instead of four, as in the formulas that one would write by hand. A kernel is left alone if no two of its sums become
one, or where anything but float32 is multiplied, whose products are rounded one by one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from graphtorch.lowering.kernel import Compute, Constant, Expr, Kernel, Load, Reduce, Schedule, Store
from graphtorch.lowering.triton.splitting import Axes, Facts
from graphtorch.tensor import dtypes

Key = tuple[tuple[int, ...], Axes]


def share_sums(schedule: Schedule) -> Schedule:
    """The schedule with sums that differ by a factor made one sum."""
    steps = [_shared(s) if type(s) is Kernel else s for s in schedule.steps]
    return replace(schedule, steps=steps)


def _shared(kernel: Kernel) -> Kernel:
    exprs = kernel.exprs()
    sums = [e for e in exprs if isinstance(e, Reduce) and e.combine == "sum" and e.dtype is dtypes.float32]
    if len(sums) < 2:
        return kernel
    facts = Facts(kernel)
    parts = {id(s): _parts(s.operand, facts, facts.folded(s)) for s in sums}
    numbers = _numbers(exprs)
    keys: dict[int, Key] = {}
    for fold in sums:
        factors, varying = parts[id(fold)]
        keys[id(fold)] = tuple(sorted(numbers[id(v)] for v in varying)), facts.folded(fold)
    known = list(keys.values())
    if len(set(known)) == len(known):
        return kernel
    made: dict[int, Expr] = {}
    common: dict[Key, Expr] = {}
    for expr in exprs:
        operands = tuple(made[id(o)] for o in expr.operands())
        if isinstance(expr, Reduce) and id(expr) in keys and known.count(keys[id(expr)]) > 1:
            factors, varying = parts[id(expr)]
            key = keys[id(expr)]
            if key not in common:
                operand = made[id(varying[0])]
                for other in varying[1:]:
                    operand = Compute("mul", (operand, made[id(other)]), dtypes.float32, expr.node)
                common[key] = Reduce("sum", operand, expr.axes, dtypes.float32, expr.node)
            value = common[key]
            for instruction, factor in factors:
                arguments = (value,) if factor is None else (value, made[id(factor)])
                value = Compute(instruction, arguments, dtypes.float32, expr.node)
            made[id(expr)] = value
        elif all(a is b for a, b in zip(operands, expr.operands(), strict=True)):
            made[id(expr)] = expr
        elif isinstance(expr, Reduce):
            made[id(expr)] = Reduce(expr.combine, operands[0], expr.axes, expr.dtype, expr.node)
        else:
            assert isinstance(expr, Compute)
            made[id(expr)] = Compute(expr.instruction, operands, expr.dtype, expr.node)
    stores = [Store(s.access, made[id(s.value)]) for s in kernel.stores]
    return Kernel(kernel.name, kernel.axes, stores, list(kernel.nodes), list(kernel.reasons))


def _numbers(exprs: Iterable[Expr]) -> dict[int, int]:
    """A number for each expression, the same for those that compute the same thing."""
    numbers: dict[int, int] = {}
    known: dict[Any, int] = {}
    for expr in exprs:
        operands = tuple(numbers[id(o)] for o in expr.operands())
        key: Any = id(expr)
        if isinstance(expr, Load):
            key = expr.access
        elif isinstance(expr, Constant):
            key = type(expr.value), repr(expr.value), expr.dtype
        elif isinstance(expr, Compute):
            key = expr.instruction, expr.dtype, operands
        numbers[id(expr)] = known.setdefault((type(expr), key), len(known))
    return numbers


def _parts(expr: Expr, facts: Facts, folded: Axes) -> tuple[list[tuple[str, Expr | None]], list[Expr]]:
    """What a product is multiplied by (or divided by, or negated) that does not vary along the folded axes, and its
    other factors; all of it as one factor where nothing is left otherwise."""
    factors: list[tuple[str, Expr | None]] = []
    varying: list[Expr] = []

    def add(part: Expr) -> None:
        if isinstance(part, Compute) and part.dtype is dtypes.float32 and facts.varies[id(part)] & folded:
            if part.instruction == "mul":
                for argument in part.arguments:
                    add(argument)
                return
            if part.instruction == "neg":
                factors.append(("neg", None))
                add(part.arguments[0])
                return
            if part.instruction == "div" and not facts.varies[id(part.arguments[1])] & folded:
                factors.append(("div", part.arguments[1]))
                add(part.arguments[0])
                return
        if facts.varies[id(part)] & folded:
            varying.append(part)
        else:
            factors.append(("mul", part))

    add(expr)
    return (factors, varying) if varying else ([], [expr])
