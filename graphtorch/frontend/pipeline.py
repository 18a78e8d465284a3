"""From a captured graph to an executable: differentiate, optimise, schedule, lower. Each stage's graph is kept for
`explain` and the CLI."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

from graphtorch.autodiff.checkpointing import RecomputeCheckpoints
from graphtorch.autodiff.gradient import GRADIENT, ExpandGradients
from graphtorch.ir.graph import Graph, Value, substitute
from graphtorch.ir.passes import default_pipeline, verify_by_default
from graphtorch.ir.region import lower_regions
from graphtorch.lowering.backend import Executable, get_backend
from graphtorch.tensor.generator import Generator
from graphtorch.tensor.remote import duplicate


@dataclass
class Stages:
    """The graphs of one compilation, in the order in which they were made.

    captured   the user's operators; a backward pass is one `gradient` node
    joint      with every gradient expanded
    optimized  after the passes
    """

    captured: Graph
    joint: Graph
    optimized: Graph

    @property
    def forward(self) -> Graph:
        """The captured graph up to what the first gradient differentiates (all of it, if there is none)."""
        return forward_part(self.captured)


@dataclass
class Compiled:
    """An executable graph with its history."""

    stages: Stages
    executable: Any
    rewrites: list[Any] = field(default_factory=list)
    _copies: tuple[int, ...] | None = None

    def run(self, inputs: Sequence[Any], written: dict[int, int]) -> list[Any]:
        """Execute. `written` maps outputs to the inputs that they overwrite; all other outputs own their memory."""
        outputs: list[Any] = list(self.executable.run(list(inputs)))
        if self._copies is None:
            self._copies = self._shared(inputs, outputs, written)
        for index in self._copies:
            outputs[index] = duplicate(outputs[index])
        return outputs

    @property
    def copies(self) -> tuple[int, ...]:
        """The outputs that `run` copies after it has run once."""
        return self._copies or ()

    @staticmethod
    def _shared(inputs: Sequence[Any], outputs: Sequence[Any], written: dict[int, int]) -> tuple[int, ...]:
        """The outputs that alias an input or an earlier output: a property of the schedule, found at its first run."""
        held = [(*byte_bounds(a), -1) for a in inputs if isinstance(a, np.ndarray) and a.size]
        made = [
            (*byte_bounds(a), i)
            for i, a in enumerate(outputs)
            if i not in written and isinstance(a, np.ndarray) and a.size
        ]
        # Neighbours in memory: only what overlaps somebody is looked at further.
        crowd: list[tuple[int, int, int]] = []
        end, last = -1, None
        for entry in sorted((*held, *made)):
            if last is not None and entry[0] < end:
                crowd += [last, entry]
            end, last = max(end, entry[1]), entry
        others = [e for e in crowd if e[2] < 0]
        found: list[int] = []
        for low, high, index in sorted({e for e in crowd if e[2] >= 0}, key=lambda e: e[2]):
            if any(low < b and a < high for a, b, _ in others):
                found.append(index)
            else:
                others.append((low, high, index))
        return tuple(found)


# What makes an executable of an optimised graph and its donations, where it is not a backend alone.
Lower = Callable[[Graph, dict[int, int]], Executable]


def compile_graph(captured: Graph, backend: str, donations: dict[int, int], lower: Lower | None = None) -> Compiled:
    """Run the pipeline. `donations` maps an output's position to that of the input which it overwrites."""
    joint = RecomputeCheckpoints().run(ExpandGradients().run(captured))
    return compile_joint(captured, joint, backend, donations, lower)


def compile_joint(
    captured: Graph, joint: Graph, backend: str, donations: dict[int, int], lower: Lower | None = None
) -> Compiled:
    """The pipeline from an expanded graph on."""
    pipeline = default_pipeline()
    rewrites: list[Any] = []
    optimized = pipeline.run(joint, rewrites)
    if verify_by_default():
        for stage in (captured, joint, optimized):
            check_stage(stage)
    lower_regions(optimized, backend)
    executable = get_backend(backend).compile(optimized, donations) if lower is None else lower(optimized, donations)
    return Compiled(Stages(captured, joint, optimized), executable, rewrites)


def check_stage(graph: Graph) -> None:
    """Verify a graph, and that its text reads back as the same graph. Raises VerificationError or AssertionError."""
    from graphtorch.ir.equality import graph_equal
    from graphtorch.ir.parser import parse_graph
    from graphtorch.ir.printer import print_graph
    from graphtorch.ir.verifier import verify

    verify(graph)
    if any(isinstance(a, Generator) for n in graph.nodes if n.op.random for a in n.args):
        return  # the user's own generator is an object, which text can't hold
    text = print_graph(graph)
    assert graph_equal(parse_graph(text), graph), f"the text of this graph does not read back as itself:\n{text}"


def forward_part(graph: Graph) -> Graph:
    """What the first `gradient` node differentiates, as a graph of its own."""
    position = next((i for i, n in enumerate(graph.nodes) if n.op is GRADIENT), None)
    if position is None:
        return graph
    node = graph.nodes[position]
    wanted: set[Value] = {v for v in node.args[0] if type(v) is Value}
    outputs = list(node.args[0])
    kept = []
    for candidate in reversed(graph.nodes[:position]):
        if any(r in wanted for r in candidate.results):
            kept.append(candidate)
            wanted.update(candidate.operands())
    result = Graph(graph.name + "_forward")
    mapping: dict[Value, Value] = {}
    for value, kind in zip(graph.inputs, graph.input_kinds, strict=True):
        if value in wanted:
            mapping[value] = result.add_input(value.type, value.name, kind)
    for candidate in reversed(kept):
        made = result.add(
            candidate.op, substitute(candidate.args, mapping.__getitem__), candidate.location, candidate.origin
        )
        mapping.update(zip(candidate.results, made, strict=True))
    names = dict(zip(graph.outputs, graph.output_names, strict=True))
    for value in outputs:
        result.add_output(mapping[value], names.get(value, "loss"))
    return result
