"""One compiled variant of a function: what was captured, the guards, the executable, and a call by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphtorch.frontend.arithmetic import ComputedNumber
from graphtorch.frontend.guards import GuardSet
from graphtorch.frontend.joint import JointProgram
from graphtorch.frontend.paths import PathExecutable, PathTree
from graphtorch.frontend.pipeline import Compiled, Lower, compile_graph
from graphtorch.frontend.program import Captured, ResultBuilder, run_deferred
from graphtorch.frontend.replay import Replay
from graphtorch.frontend.tree import unflatten
from graphtorch.frontend.watch import Settled
from graphtorch.ir.equality import graph_equal
from graphtorch.lowering.backend import get_backend
from graphtorch.tensor.storage import Writer
from graphtorch.tensor.tensor import Tensor


class Specialization:
    """One compiled variant of a function, valid while its guards hold."""

    def __init__(
        self,
        captured: Captured,
        guards: GuardSet,
        tree: Any,
        backend: str,
        name: str,
        paths: PathTree | None = None,
        memory_budget: float = 1.0,
        earlier: Sequence[Specialization] = (),
    ) -> None:
        self.captured = captured
        self.guards = guards
        self.tree = tree
        self.backend = backend
        self.settings = get_backend(backend).settings()  # that it is compiled under
        self.name = name
        self.reason = ""
        self.compile_seconds = 0.0
        self.calls = 0
        self.shapes: list[tuple[int, ...] | None] = []
        self.numbers: dict[int, float | None] = {}  # arguments that were numbers; None: any
        self._written = {output: position for position, output in captured.written}
        self._results = ResultBuilder(captured)
        self.replay: Replay | None = None
        self.settled: Settled | None = None  # the guards that the replay need not evaluate
        self.fixed: list[str | None] = []  # the names of the inputs that guards find unchanged; None for the others
        self.writer = Writer(self)
        self.answers = tuple(d.answer for d in captured.decisions)
        self.paths = paths if captured.decisions else None
        lower = None if self.paths is None else self._path_of(self.paths, backend)
        self.joint: JointProgram | None = None
        if captured.differentiable:
            self.joint = JointProgram(captured, backend, lower, memory_budget)
            self.compiled: Compiled = self.joint.forward
        else:
            known = self._compiled_before(earlier)
            self.compiled = compile_graph(captured.graph, backend, self._written, lower) if known is None else known

    def _compiled_before(self, earlier: Sequence[Specialization]) -> Compiled | None:
        """The program of an earlier variant of the same graph: they differ in what Python computes beside it, or in
        the tensors that they are about."""
        graph = self.captured.graph
        if self.paths is not None or graph.symbols:  # what sizes its compilation assumed is not known
            return None
        for other in reversed(earlier):
            same = other.backend == self.backend and other.settings == self.settings
            same = same and other._written == self._written
            if same and other.joint is None and other.paths is None and graph_equal(other.captured.graph, graph):
                return other.compiled
        return None

    def _path_of(self, paths: PathTree, backend: str) -> Lower:
        """How the program of one way through a function that decides on tensor data becomes an executable."""
        captured = self.captured
        return lambda graph, donations: PathExecutable(
            graph, donations, captured.decisions, captured.sources, backend, paths
        )

    def matches(self, tree: Any, leaves: Sequence[Any]) -> bool:
        """Whether a call fits."""
        if self.tree != tree:
            return False
        # In this order: what another thread changes meanwhile is then found changed by the next call.
        seen = None if self.settled is None else self.settled.look()
        taken = self.guards.take_snapshots()
        if not self.guards.check(leaves):
            return False
        self.guards.scope.update(taken)
        if self.fixed:
            self.collect_fixed()
        if self.settled is not None and seen is not None:
            self.settled.install(seen)
        return True

    def collect_fixed(self) -> None:
        """Lay the arrays that snapshots hold ready for replays."""
        scope = self.guards.scope
        scope["fixed"] = [None if name is None else scope[name] for name in self.fixed]

    def run(self, leaves: Sequence[Any]) -> Any:
        """One call: gather inputs, execute, write back, build the results."""
        captured = self.captured
        numbers = captured.arithmetic.evaluate(leaves) if captured.arithmetic else ()
        assert numbers is not None, "the numbers of a call changed while it was looked at"
        found = [
            numbers[source.index] if isinstance(source, ComputedNumber) else source.fetch(leaves)
            for source in captured.sources
        ]
        inputs = [t._data if isinstance(t, Tensor) else t for t in found]
        arrays = self.compiled.run(inputs, self._written)
        return self.finish(leaves, found, arrays, numbers)

    def finish(
        self, leaves: Sequence[Any], found: Sequence[Any], arrays: Sequence[Any], numbers: Sequence[Any] = ()
    ) -> Any:
        """What follows the execution: write back, and build the results. `found` are the inputs' tensors, `numbers`
        what the call has computed in Python."""
        captured = self.captured
        self.calls += 1
        self._results.set_flags(leaves)
        if self.paths is not None:
            found = list(found)
            self._results.set_carriers(found, arrays)
        history: Sequence[Any] = ()
        if self.joint is not None:
            history = self.joint.history(f"CompiledBackward[{self.name}]", found, arrays, captured, leaves)
        for position, _ in captured.written:
            if position not in captured.quiet:
                found[position]._bump_version()
        results, grads = self._results.build(arrays, leaves, history, numbers)
        for leaf, gradient in grads:
            leaf._grad = gradient
        run_deferred(captured.deferred)
        return unflatten(captured.tree, iter(results))
