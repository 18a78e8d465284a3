"""Arguments that are Python floats and change from call to call (a coefficient that is annealed, a temperature): a
capture after the first change has them as run-time numbers, so that further values need none.

That is sound where the number goes into arithmetic alone. A program that asks what it is (`if beta > 0`,
`isinstance(beta, float)`), or hands it to what takes no tensor, is compiled for each value, as it is for integers,
strings and flags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graphtorch.frontend.program import Captured
from graphtorch.ir.graph import Graph, Node

if TYPE_CHECKING:
    from graphtorch.frontend.specialization import Specialization

ANY = None  # the value of an argument that was a run-time number


class FixedNumbers(Exception):
    """The program does something else with run-time numbers than with their values."""


def values_of(leaves: Sequence[Any], changed: Mapping[int, set[int]]) -> dict[int, float | None]:
    """The floats among the arguments, ANY for those that were captured as numbers (they are keys of `changed`)."""
    return {i: ANY if i in changed else leaf for i, leaf in enumerate(leaves) if type(leaf) is float}


def changed_numbers(earlier: Sequence[Specialization], tree: Any, leaves: Sequence[Any]) -> set[int]:
    """The arguments that are floats, and had another value in an earlier specialisation."""
    found: set[int] = set()
    for made in earlier:
        if made.tree == tree and made.paths is None:
            found |= {i for i, value in made.numbers.items() if type(leaves[i]) is float and value != leaves[i]}
    return found


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
