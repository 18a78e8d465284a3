"""The backend "cpu": a graph's program comes from the cache where it was compiled before, and is made where not."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from functools import cache

from graphtorch.ir.graph import Graph
from graphtorch.lowering.backend import Backend, Executable
from graphtorch.lowering.cpu import stored
from graphtorch.lowering.cpu.compiler import host
from graphtorch.lowering.cpu.executable import CpuExecutable
from graphtorch.lowering.numpy.executor import NumpyExecutable
from graphtorch.schedule import build_schedule

logger = logging.getLogger(__name__)


class CpuBackend(Backend):
    """The backend "cpu"."""

    name = "cpu"

    def unavailable(self) -> str | None:
        if os.name != "posix":
            return "its thread pool needs POSIX threads"
        try:
            host()
        except (ImportError, OSError, RuntimeError) as error:
            return f"llvmlite can't be used: {error}"
        return None

    def compile(self, graph: Graph, donations: Mapping[int, int] | None = None) -> Executable:
        donations = dict(donations or {})
        why = self.unavailable()
        place = stored.place(graph, donations) if why is None else None
        if place is not None:
            found = stored.load(place, graph, donations)
            if found is not None:
                return found
        schedule = build_schedule(graph, donations)
        if why is None:
            try:
                executable = CpuExecutable(schedule, graph.input_kinds)
            except (RuntimeError, OSError) as error:  # LLVM refuses the module, or the system the memory
                lines = str(error).splitlines()
                why = f"the program does not compile: {lines[0] if lines else type(error).__name__}"
            else:
                if place is not None:
                    stored.save(place, executable)
                return executable
        _say_once(why)
        other = NumpyExecutable(schedule, graph.input_kinds)
        other.fallbacks = [f"everything runs on NumPy: {why}"]
        return other


@cache
def _say_once(why: str) -> None:
    logger.warning("the cpu backend runs on NumPy: %s", why)
