"""Arguments that are Python numbers and change from call to call (a coefficient that is annealed, a length): a capture
after the first change has them as run-time numbers, so that further values need none.

An integer is tried as a symbol first, as sizes are: it may be a size, and what is decided by it is a guard. Where a
symbol is of no use (`n / 3`), and for floats, it is a number as `item()` gives. That is sound where it goes into
arithmetic alone. A program that asks what it is (`if beta > 0`, `isinstance(beta, float)`), or hands it to what takes
no tensor, is compiled for each value, as it is for strings and flags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graphtorch.frontend.program import Captured
from graphtorch.frontend.sizes import NUMBER
from graphtorch.frontend.sources import LARGEST
from graphtorch.ir.graph import Graph, Node

if TYPE_CHECKING:
    from graphtorch.frontend.specialization import Specialization

ANY = None  # the value of an argument that was a run-time number


class FixedNumbers(Exception):
    """The program does something else with run-time numbers than with their values."""


def values_of(leaves: Sequence[Any], changed: Mapping[int, set[int]]) -> dict[int, float | None]:
    """The numbers among the arguments, ANY for those that were captured as numbers (they are keys of `changed`)."""
    return {i: ANY if i in changed else leaf for i, leaf in enumerate(leaves) if type(leaf) in (float, int)}


def symbols_for(leaf: float) -> set[int]:
    """What becomes a symbol of an argument that changes: see `sizes.NUMBER`. Sizes of 0 and 1 are none."""
    return {NUMBER} if type(leaf) is int and 2 <= leaf < LARGEST else set()


def changed_numbers(earlier: Sequence[Specialization], tree: Any, leaves: Sequence[Any]) -> dict[int, set[int]]:
    """The arguments that are numbers, and had another value in an earlier specialisation: what is a symbol of each."""
    found: set[int] = set()
    for made in earlier:
        if made.tree == tree and made.paths is None:
            found |= {i for i, value in made.numbers.items() if _is_another(leaves[i], value)}
    return {i: symbols_for(leaves[i]) for i in found}


def _is_another(leaf: Any, value: float | None) -> bool:
    return type(leaf) in (float, int) and (value is ANY or (type(value) is type(leaf) and value != leaf))


def check_numbers(captured: Captured, earlier: Sequence[Specialization], tree: Any) -> None:
    """Raise FixedNumbers unless a capture with run-time numbers did to tensors what one with values did, and decided
    nothing by them."""
    known = next(made for made in reversed(earlier) if made.tree == tree and made.paths is None).captured
    if captured.decisions or captured.tree != known.tree or not compute_alike(captured.graph, known.graph):
        raise FixedNumbers


def compute_alike(graph: Graph, other: Graph) -> bool:
    """Whether a graph does to tensors what another does, where run-time numbers may stand for constants."""
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
