"""Sizes of arguments that a capture has as symbols, and what it asked of them."""

from __future__ import annotations

from typing import Any

from graphtorch.frontend.guards import GuardSet
from graphtorch.ops.record import Operator
from graphtorch.tensor.symint import SymbolScope, SymInt, free_symbols

NUMBER = -1  # in place of a dimension: an argument that is an integer itself


# Operators that devices have kernels of for known attributes only; sizes of results may be symbols.
WINDOWS = frozenset(
    ("avg_pool2d", "conv2d", "conv2d_input_grad", "conv2d_weight_grad", "max_pool2d_with_indices", "polygamma")
)


def with_numbers(op: Operator, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments of a call with numbers for symbolic attributes, which fixes these."""

    def fixed(arg: Any) -> Any:
        if type(arg) is tuple:
            return tuple(map(fixed, arg))
        return int(arg) if type(arg) is SymInt else arg

    pairs = zip(op.parameters, args, strict=True)
    return tuple(a if p.name.endswith("_sizes") else fixed(a) for p, a in pairs)


class Sizes:
    """The symbolic sizes of one capture, and where a call's arguments have them."""

    def __init__(self) -> None:
        self.scope = SymbolScope()
        self.bindings: dict[str, str] = {}
        self.dims: dict[tuple[int, int], str] = {}  # (argument, dimension) -> symbol
        self.counts: set[str] = set()  # symbols for sizes that depend on data

    def count(self, size: int) -> Any:
        """A symbol for a size that depends on data."""
        made = self.scope.symbol(hint=size)
        self.counts.add(str(made))
        return made

    def integer(self, index: int, value: int) -> Any:
        """A symbol for an integer among the arguments."""
        made = self.scope.symbol(hint=value)
        self.bindings[str(made)] = f"leaves[{index}]"
        self.dims[index, NUMBER] = str(made)
        return made

    def of_tensors(self) -> list[Any]:
        """The symbols for sizes of arguments."""
        integers = {name for (_, dim), name in self.dims.items() if dim == NUMBER}
        return [made for name, made in self.scope.symbols.items() if name not in integers]

    def decided_by(self, index: int) -> bool:
        """Whether something was decided by an argument that is a symbol."""
        name = self.dims.get((index, NUMBER))
        return name is not None and any(name in free_symbols(guard.expression) for guard in self.scope.guards)

    def asks_counts(self) -> bool:
        """Whether something was decided by a size that depends on data, which no guard can look at."""
        return any(not self.counts.isdisjoint(free_symbols(g.expression)) for g in self.scope.guards)

    def fixed(self) -> dict[int, set[int]]:
        """The dimensions, by argument, whose symbols the program's own guards fix at a number."""
        names: set[str] = set()
        for guard in self.scope.guards:
            free = free_symbols(guard.expression)
            if guard.relation == "==" and guard.truth and len(free) == 1:
                names |= free
        found: dict[int, set[int]] = {}
        for (argument, dim), name in self.dims.items():
            if name in names:
                found.setdefault(argument, set()).add(dim)
        return found

    def check(self) -> None:
        """Raise FixedSizes where symbols are of no use."""
        fixed = self.fixed()
        if fixed or self.asks_counts():
            raise FixedSizes(fixed)

    def add_guards(self, guards: GuardSet) -> None:
        """Assume what the capture and the compilation decided by the example sizes."""
        for guard in self.scope.guards:
            names = [n for n in self.bindings if n in free_symbols(guard.expression)]
            check = guards.name(eval(f"lambda {', '.join(names)}: {guard}"))
            where = f" (asked at {guard.location})" if guard.location else ""
            guards.add(f"{check}({', '.join(self.bindings[n] for n in names)})", f"the sizes satisfied {guard}{where}")


class FixedSizes(Exception):
    """The program assumes numbers for sizes that were to be symbolic: it is captured again with these numbers, for what
    would still call them symbols has no use for their freedom. No dimensions: for sizes that depend on data."""

    def __init__(self, dims: dict[int, set[int]]) -> None:
        super().__init__(str(dims))
        self.dims = dims
