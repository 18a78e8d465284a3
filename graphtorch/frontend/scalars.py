"""Arguments that are numbers and change from call to call (a coefficient that is annealed, a length): a capture after
the first change follows them, so that further values need none.

An integer is tried as a symbol first, as sizes are: it may be a size, and what is decided by it is a guard. Where a
symbol is of no use (`n / 3`), and for floats, it is a tracked number, as those in Python objects are
(`frontend.arithmetic`). A program that asks for the class of a number (`type(n) is int`) may tell either from the
number itself: what it does to tensors is compared with what it did when it had the value, and if that differs it is
compiled for each value, as it is for strings and flags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphtorch.frontend.program import Captured
from graphtorch.frontend.sizes import NUMBER
from graphtorch.frontend.sources import LARGEST
from graphtorch.ir.equality import same_constant
from graphtorch.ir.graph import Graph, Node

if TYPE_CHECKING:
    from graphtorch.frontend.specialization import Specialization

_KINDS = (float, int, np.float64)
ANY = None  # the value of an argument that may be another at each call


class FixedNumbers(Exception):
    """The program does something else with numbers that may change than with their values."""


def values_of(leaves: Sequence[Any], changed: Mapping[int, set[int]]) -> dict[int, float | None]:
    """The numbers among the arguments, ANY for those that the capture followed (they are keys of `changed`)."""
    return {i: ANY if i in changed else leaf for i, leaf in enumerate(leaves) if type(leaf) in _KINDS}


def symbols_for(leaf: float) -> set[int]:
    """What becomes a symbol of an argument that changes: see `sizes.NUMBER`. Sizes of 0 and 1 are none."""
    return {NUMBER} if type(leaf) is int and 2 <= leaf < LARGEST else set()


def changed_numbers(earlier: Sequence[Specialization], tree: Any, leaves: Sequence[Any]) -> dict[int, set[int]]:
    """The arguments that are numbers, and had another value in an earlier specialisation: what is a symbol of each."""
    found: dict[int, bool] = {}  # whether symbols may be tried: not beside decisions on tensor data
    for made in earlier:
        for i, value in made.numbers.items() if made.tree == tree else ():
            if _is_another(leaves[i], value):
                found[i] = found.get(i, True) and made.paths is None
    return {i: symbols_for(leaves[i]) if symbolic else set() for i, symbolic in found.items()}


def _is_another(leaf: Any, value: float | None) -> bool:
    if value is ANY:
        return type(leaf) in _KINDS
    return type(value) is type(leaf) and not same_constant(value, leaf)


def check_numbers(captured: Captured, earlier: Sequence[Specialization], tree: Any) -> None:
    """Raise FixedNumbers unless a capture that followed numbers did to tensors what one with values did."""
    known = next(made for made in reversed(earlier) if made.tree == tree).captured
    if captured.decisions or captured.tree != known.tree or not compute_alike(captured.graph, known.graph):
        raise FixedNumbers


def compute_alike(graph: Graph, other: Graph) -> bool:
    """Whether a graph does to tensors what another does, where numbers that change may stand for constants."""
    pairs = list(zip(_computed(graph), _computed(other), strict=False))
    if not len(pairs) == len(_computed(graph)) == len(_computed(other)):
        return False
    for node, known in pairs:
        dtypes = [[result.type.dtype for result in each.results] for each in (node, known)]
        if node.op is not known.op or dtypes[0] != dtypes[1] or not _alike(node, known):
            return False
    return True


def _computed(graph: Graph) -> list[Node]:
    """The calls that compute more than numbers."""
    return [node for node in graph.nodes if not all(result.type.is_number for result in node.results)]


def _alike(node: Node, other: Node) -> bool:
    """Whether what is a constant here is the same constant there. Sizes may differ, and are operands of calls that are
    not pointwise."""
    kinds = (float, int, bool, str) if node.op.kind == "pointwise" else (float, str)
    return all(type(a) not in kinds or a == b for a, b in zip(node.args, other.args, strict=True))
