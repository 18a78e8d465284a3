"""A captured function as something that runs: where inputs come from, what the graph returns, and what happens to
Python state after.

`assemble` reads a finished recorder; `Program.run` is one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from graphtorch.autograd.graph import FREED, Node
from graphtorch.autograd.views import replay
from graphtorch.frontend.recorded import Recorded, RecordedStorage, Steps
from graphtorch.frontend.recorder import Recorder
from graphtorch.frontend.sources import Source
from graphtorch.ir.builder import Traced
from graphtorch.ir.graph import Graph, Value
from graphtorch.tensor.tensor import Tensor


@dataclass(frozen=True, slots=True)
class Constant:
    """A result that is no tensor of the graph: returned as it is."""

    value: Any


@dataclass(frozen=True, slots=True)
class Alias:
    """A result that is an input, or a view of one."""

    source: Source
    steps: Steps


@dataclass(frozen=True, slots=True)
class Output:
    """A result that is a graph output, or a view of one that other results share.

    `requires_grad` as eager's result has it; `is_leaf` for one made inside by the user as a leaf; `freed` when its
    history was used up inside the function; `number` for a run-time number, returned as a Python number."""

    index: int
    steps: Steps = ()
    requires_grad: bool = False
    is_leaf: bool = False
    freed: str = ""
    number: bool = False


@dataclass
class Captured:
    """The product of a capture, before compilation.

    results     one entry a leaf of the function's result
    written     (input position, output position) of every input that the function changed
    grads       (source of the leaf, what its .grad becomes; None for None)
    differentiable  positions of outputs through which a later backward() may flow
    """

    graph: Graph
    sources: list[Source]
    results: list[Any]
    tree: Any
    written: list[tuple[int, int]] = field(default_factory=list)
    grads: list[tuple[Source, Any]] = field(default_factory=list)
    differentiable: list[int] = field(default_factory=list)
    leaf_inputs: list[int] = field(default_factory=list)


class FreedNode(Node):
    """The history of a result whose graph was used up by a backward() inside the compiled function."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        super().__init__(())
        self._name = name

    def name(self) -> str:
        return self._name

    def apply(self, cotangents: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        raise RuntimeError(FREED)


def assemble(recorder: Recorder, leaves: list[Any], tree: Any) -> Captured:
    """Turn a finished capture into graph outputs and the description of results and side effects."""
    return _Assembler(recorder).run(leaves, tree)


class _Assembler:
    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.graph = recorder.graph
        self.outputs: dict[Value, int] = {}
        self.requires: dict[int, bool] = {}

    def run(self, leaves: list[Any], tree: Any) -> Captured:
        recorder = self.recorder
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        finals = [recorder.grads[key] for key in recorder.assigned_grads]
        sharing: dict[int, int] = {}
        for tensor in {id(t): t for t in (*tensors, *(f for f in finals if f is not None))}.values():
            if isinstance(tensor._data, Recorded):
                key = id(tensor._data.storage)
                sharing[key] = sharing.get(key, 0) + 1
        captured = Captured(self.graph, recorder.sources, [], tree)
        memo: dict[int, Any] = {}
        for number, leaf in enumerate(leaves):
            if not isinstance(leaf, Tensor):
                captured.results.append(Constant(leaf))
                continue
            if id(leaf) not in memo:
                memo[id(leaf)] = self.describe(leaf, sharing, f"result{number}" if len(leaves) > 1 else "result")
            captured.results.append(memo[id(leaf)])
        position = {v: i for i, v in enumerate(self.graph.inputs)}
        for storage in recorder.storages:
            if storage.mutated and not storage.constant and storage.source is not None:
                index = self.output(storage.value, f"new {storage.source.name}")
                original = recorder.graph.inputs[recorder.sources.index(storage.source)]
                captured.written.append((position[original], index))
        for key, owner in recorder.assigned_grads.items():
            if isinstance(owner._data, Traced):
                continue  # a leaf that lives only inside the function
            source = recorder._source_of(owner)
            final = recorder.grads[key]
            described = None if final is None else self.describe(final, sharing, f"grad of {source.name}")
            captured.grads.append((source, described))
        captured.differentiable = [i for i, needed in self.requires.items() if needed]
        captured.leaf_inputs = [i for i, v in enumerate(self.graph.inputs) if v in recorder.leaves]
        return captured

    def output(self, value: Value, name: str) -> int:
        """The position of a graph output, appended on first need."""
        index = self.outputs.get(value)
        if index is None:
            index = self.outputs[value] = len(self.graph.outputs)
            self.graph.add_output(value, name)
        return index

    def describe(self, tensor: Tensor, sharing: dict[int, int], name: str) -> Any:
        """What a result tensor is at run time."""
        recorder = self.recorder
        if tensor.is_number:
            return Output(self.output(recorder.value_of(tensor), name), number=True)
        if not isinstance(tensor._data, Traced) and id(tensor) not in recorder.captured:
            return Constant(tensor)
        recorded = recorder.recorded(tensor)
        with recorder._gradients(False):
            value = recorder.value_of(recorded)
        data: Recorded = recorded._data
        storage: RecordedStorage = data.storage
        if storage.source is not None and not storage.constant:
            return Alias(storage.source, data.steps)
        steps: Steps = ()
        if data.steps and sharing.get(id(storage), 0) > 1:
            value, steps = storage.value, data.steps
        index = self.output(value, name)
        freed = ""
        if recorded._requires_grad and recorded._node is not None:
            reached = recorder._reached([value])
            if any(v.node in recorder._freed for v in reached if v.node is not None):
                freed = recorded._node.name()
            else:
                self.requires[index] = True
        leaf = recorded._requires_grad and recorded._node is None
        return Output(index, steps, recorded._requires_grad, leaf, freed)


class ResultBuilder:
    """Makes the Python results of one call from output arrays."""

    def __init__(self, captured: Captured) -> None:
        self.captured = captured

    def build(
        self, arrays: Sequence[Any], leaves: Sequence[Any], history: Node | None
    ) -> tuple[list[Any], list[tuple[Tensor, Any]]]:
        """The result leaves, and (leaf, new .grad) pairs. `history` becomes the grad_fn of differentiable outputs."""
        bases: dict[int, Tensor] = {}
        memo: dict[int, Any] = {}
        order = {index: place for place, index in enumerate(self.captured.differentiable)}

        def make(spec: Any) -> Any:
            if type(spec) is Constant:
                return spec.value
            if id(spec) in memo:
                return memo[id(spec)]
            if type(spec) is Alias:
                tensor = spec.source.fetch(leaves)
                made = replay(tensor, spec.steps) if spec.steps else tensor
            elif spec.number:
                made = arrays[spec.index]
                made = made.item() if hasattr(made, "item") else made
            else:
                base = bases.get(spec.index)
                if base is None:
                    base = bases[spec.index] = Tensor._wrap(arrays[spec.index])
                    if spec.requires_grad:
                        base._requires_grad = True
                        if spec.freed:
                            base._node = FreedNode(spec.freed)
                        elif not spec.is_leaf and history is not None:
                            base._node = history
                            base._output_index = order[spec.index]
                        elif not spec.is_leaf:
                            base._requires_grad = False
                made = replay(base, spec.steps) if spec.steps else base
            memo[id(spec)] = made
            return made

        results = [make(spec) for spec in self.captured.results]
        grads = [(source.fetch(leaves), None if spec is None else make(spec)) for source, spec in self.captured.grads]
        return results, grads
