"""Backends: what turns a graph into something that runs, found by name and loaded when first asked for.

A backend is a class with `compile`; `register` gives it a name. A package `graphtorch.lowering.<name>` that registers
`<name>` when it is imported needs no entry anywhere. docs/backend.md shows a complete one.
"""

from __future__ import annotations

import importlib
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from graphtorch.ir.graph import Graph
from graphtorch.lowering.kernel import Schedule
from graphtorch.schedule.memory import MemoryPlan

logger = logging.getLogger(__name__)


class InputMismatchError(RuntimeError):
    """An array is not as the graph was compiled for. Nothing has been changed."""


@dataclass(eq=False)
class Resident:
    """Results that an executable writes in the same place in each run: arrays, by the outputs' positions."""

    arrays: dict[int, Any]


class Results(list[Any]):
    """What a run returns. `resident`: those of its arrays that the next run may write again, if the caller lets it."""

    __slots__ = ("resident",)

    resident: Resident | None


class Executable(ABC):
    """A compiled graph.

    schedule            the kernels it runs; None for a backend that has none
    plan                the memory plan of the latest sizes it ran with (static sizes: known at once)
    checks_inputs       whether `run` raises InputMismatchError for an input of another shape or dtype
    contiguous_results  whether all results are in row-major order
    keeps               whether results can be resident: `run_again` returns `Results`
    fallbacks           one line a step that runs another way than the backend's own, and why
    """

    schedule: Schedule | None = None
    plan: MemoryPlan | None = None
    checks_inputs: bool = False
    contiguous_results: bool = False
    keeps: bool = False
    fallbacks: Sequence[str] = ()

    @abstractmethod
    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """Run on one array (or, for a run-time number, one Python number) a graph input; returns one array a graph
        output.

        Donated inputs are overwritten, and the outputs that replace them are those very arrays. May be called from
        several threads.
        """

    def run_again(
        self,
        inputs: Sequence[Any],
        known: Sequence[Any],
        changing: Sequence[int],
        wanted: Sequence[int] = (),
        free: Resident | None = None,
    ) -> list[Any]:
        """`run` for a caller who knows that all inputs but those at the positions `changing` are those that any other
        call with this very `known` had.

        `wanted` are outputs that may be resident. `free` are those of an earlier run if nobody else holds them now:
        they may be written again.
        """
        return self.run(inputs)

    def sources(self) -> dict[str, str]:
        """The generated source of each step by name, where there is any."""
        return {}


class Backend(ABC):
    """Compiles graphs. Subclasses set `name`."""

    name: str

    def unavailable(self) -> str | None:
        """Why this backend can't run on this machine, in words; None if it can."""
        return None

    @property
    def composites(self) -> frozenset[str]:
        """Functions made of several operators that this backend has in one piece (`fused_attention`): a capture for it
        records them so."""
        return frozenset()

    def settings(self) -> Any:
        """What compiled graphs depend on beside the graph: a capture is valid while this stays equal. None: nothing."""
        return None

    def variant(self, mode: str) -> Backend:
        """This backend in a mode of `torch.compile`; the same for backends that know no modes."""
        return self

    @abstractmethod
    def compile(self, graph: Graph, donations: Mapping[int, int] | None = None) -> Executable:
        """Compile a graph of operators. `donations`: see `build_schedule`."""


_BACKENDS: dict[str, Backend] = {}
_HOMES = {"interpreter": "graphtorch.lowering.numpy"}  # where the package's name is not the backend's


def register(backend: Backend) -> Backend:
    """Make a backend known under its name; a later one of the same name replaces it."""
    _BACKENDS[backend.name] = backend
    return backend


def get_backend(name: str) -> Backend:
    """The backend of that name, imported on first use; "name:mode" is its variant for a mode.

    Raises ValueError for an unknown one.
    """
    found = _BACKENDS.get(name)
    if found is not None:
        return found
    name, separator, mode = name.partition(":")
    if separator:
        return get_backend(name).variant(mode)
    home = _HOMES.get(name, f"graphtorch.lowering.{name}")
    if name.isidentifier():
        try:
            importlib.import_module(home)
        except ModuleNotFoundError as error:
            if error.name != home:
                raise
    if name not in _BACKENDS:
        raise ValueError(f"unknown backend {name!r}; known are {', '.join(sorted({*_BACKENDS, *builtin_names()}))}")
    return _BACKENDS[name]


@cache
def default_backend() -> str:
    """The backend of `@compile` without a name: what GRAPHTORCH_BACKEND says, else "cpu" where this machine can run
    it, else "numpy", which a line of the log says once."""
    chosen = os.environ.get("GRAPHTORCH_BACKEND")
    if chosen:
        return get_backend(chosen).name
    why = get_backend("cpu").unavailable()
    if why is None:
        return "cpu"
    logger.warning("compiled functions run on the backend numpy, not cpu: %s", why)
    return "numpy"


def builtin_names() -> list[str]:
    """The backends that the package brings along, loaded or not."""
    import pkgutil

    from graphtorch import lowering

    return sorted({m.name for m in pkgutil.iter_modules(lowering.__path__) if m.ispkg} | set(_HOMES))
