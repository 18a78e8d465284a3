"""Attributes of modules that hold what a run computed: `self.aux_loss = ...` in a forward, or `weight`, which hooks of
the package set (pruning, weight_norm). Each call sets them anew, from outputs of the graph.

That is for what the run does not read before it writes it. State that goes from call to call through an attribute is
like that in other objects: `frontend.varying`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from graphtorch.frontend.reach import is_library
from graphtorch.frontend.reads import ReadLog
from graphtorch.ir.builder import Traced
from graphtorch.tensor.tensor import Tensor


class Assigned(NamedTuple):
    """An attribute that a run has given a recorded tensor."""

    title: str
    module: Any
    name: str
    content: Tensor


class ModuleAttributes:
    """The attributes that modules had before a run."""

    def __init__(self) -> None:
        self._before: dict[int, tuple[str, Any, dict[str, Any]]] = {}

    def note(self, title: str, module: Any) -> None:
        """Remember a module's."""
        self._before[id(module)] = title, module, dict(vars(module))

    def sets(self, namespace: Any, name: str, reads: ReadLog) -> bool:
        """Whether a place is an attribute of a module that the run had not read before it set it: see `assigned`."""
        for _, module, _ in self._before.values():
            if vars(module) is namespace:
                read = _read_of(module, reads)
                return read is None or name not in read
        return False

    def assigned(self, reads: ReadLog) -> list[Assigned]:
        """What the run has set and had not read before."""
        found: list[Assigned] = []
        for title, module, _ in self._before.values():
            read = _read_of(module, reads)
            if read is None:
                continue
            for name, content in vars(module).items():
                if is_recorded(content) and name not in read:
                    found.append(Assigned(title, module, name, content))
        return found

    def undo(self, found: list[Assigned]) -> None:
        """Put back what was there before."""
        for each in found:
            own, before = vars(each.module), self._before[id(each.module)][2]
            if each.name in before:
                own[each.name] = before[each.name]
            else:
                del own[each.name]


def _read_of(module: Any, reads: ReadLog) -> Collection[str] | None:
    """The attributes of a module that a run has read; None where nobody can tell."""
    return () if is_library(module) else reads.names(module)  # code of the package reads nothing that its hooks set


def is_recorded(content: Any) -> bool:
    """Whether an attribute holds a tensor that a capture made."""
    return isinstance(content, Tensor) and isinstance(content._data, Traced)
