"""A backward pass outside the compiled function: the forward returns residuals, and its results' history is a compiled
backward."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphtorch.autodiff.checkpointing import RecomputeCheckpoints
from graphtorch.autodiff.gradient import ExpandGradients
from graphtorch.autodiff.partial_backward import partial_backward
from graphtorch.autodiff.partition import partition
from graphtorch.autodiff.reverse import append_gradients
from graphtorch.autograd.grad_mode import enable_grad
from graphtorch.autograd.graph import FREED, Edge, Node, SavedTensor, edge_of
from graphtorch.frontend.errors import CaptureError, refuse
from graphtorch.frontend.gradients import CustomCall
from graphtorch.frontend.pipeline import Compiled, Lower, compile_joint
from graphtorch.frontend.program import Captured, LeafValue
from graphtorch.frontend.rerun import NotingGenerators, Rerun
from graphtorch.frontend.sources import TensorSource
from graphtorch.ir.builder import GraphBuilder, wrap
from graphtorch.ir.graph import Graph, Value, copy_graph
from graphtorch.ir.graph import Node as GraphNode
from graphtorch.ir.passes import default_pipeline
from graphtorch.ops.build import FUNCTIONS
from graphtorch.tensor.storage import Storage
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType


class _BackwardBuilder(GraphBuilder):
    """Records the backward of custom functions, which may ask for gradients of what their forward kept."""

    def __init__(self, graph: Graph, custom: Mapping[GraphNode, CustomCall]) -> None:
        super().__init__(graph)
        self.custom = custom

    def grad(
        self,
        roots: tuple[Tensor, ...],
        inputs: tuple[Tensor, ...],
        gradients: tuple[Tensor | None, ...],
        keep: bool,
        create_graph: bool,
    ) -> list[Tensor | None]:
        """`autograd.grad`."""
        outputs, targets = [self.value_of(t) for t in roots], [self.value_of(t) for t in inputs]
        seeds = [None if g is None else self.value_of(g) for g in gradients]
        nested = _BackwardBuilder(self.graph, self.custom)
        found = append_gradients(self.graph, outputs, seeds, targets, nested, custom=self.custom)
        return [None if value is None else wrap(value) for value in found]

    def backward(self, *args: Any) -> None:
        """`.backward()`, which leaves gradients where a graph can't."""
        raise refuse("backward() in the backward of a custom function", "use autograd.grad()")


class JointProgram:
    """Forward and backward executables of one captured function whose results carry gradients."""

    def __init__(
        self, captured: Captured, backend: str, lower: Lower | None = None, memory_budget: float = 1.0
    ) -> None:
        self.backend = backend
        by_python = bool(captured.custom or captured.hooks)
        if by_python:
            # The rules of custom functions and hooks belong to the recorded nodes: differentiate these, and expand
            # after.
            shown, joint = copy_graph(captured.graph), captured.graph
        else:
            shown, joint = captured.graph, ExpandGradients().run(captured.graph)
        if joint is captured.graph and not by_python:
            joint = copy_graph(joint)
        outputs = [joint.outputs[i] for i in captured.differentiable]
        wanted = [(joint.outputs if leaf.output else joint.inputs)[leaf.position] for leaf in captured.leaves]
        cotangents = [
            joint.add_input(v.type, f"cotangent of {captured.graph.output_names[i]}", "cotangent")
            for i, v in zip(captured.differentiable, outputs, strict=True)
        ]
        hooks = captured.hooks

        def call_hooks(value: Value, cotangent: Tensor) -> Tensor:
            for hook in tuple(hooks.get(value, {}).values()):
                replaced = hook(cotangent)
                cotangent = cotangent if replaced is None else replaced
            return cotangent

        try:
            builder = _BackwardBuilder(joint, captured.custom)
            found = append_gradients(
                joint, outputs, cotangents, wanted, builder, call_hooks if hooks else None, captured.custom
            )
        except CaptureError:
            raise
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            # The forward is right, and nobody need ever ask for the backward pass: eager execution raises it there.
            failed = CaptureError(str(error))
            failed.reason = f"its backward pass raises {type(error).__name__}: {str(error).splitlines()[0]}"
            raise failed from error
        self.output_count = len(joint.outputs)
        self.leaves: list[LeafValue] = []
        for leaf, value in zip(captured.leaves, found, strict=True):
            if value is not None:
                self.leaves.append(leaf)
                name = "a leaf" if leaf.owner is None else leaf.owner.name
                joint.add_output(value, f"grad of {name}")
        count = len(cotangents)
        simplified = default_pipeline().run(ExpandGradients().run(joint))
        overwritten = {simplified.inputs[i] for i, _ in captured.written}
        given: list[Value] = simplified.inputs[len(simplified.inputs) - count :]
        self.by_python = by_python
        self.rerun = Rerun(captured, self.leaves)
        changed = {position for position, _ in captured.written}
        copied = [simplified.inputs[i] for i in self.rerun.needed if i in changed]
        parts = partition(simplified, given, self.output_count, overwritten, memory_budget, copied)
        self.parts = parts
        donations = {output: position for position, output in captured.written}
        self.forward: Compiled = compile_joint(shown, parts.forward, backend, donations, lower)
        if self.rerun.generators:
            self.forward.executable = NotingGenerators(self.forward.executable, self.rerun.generators)
        self.joint: Graph = simplified
        # A parameter is the same leaf at every call.
        self._edges: list[Edge | None] = [
            edge_of(leaf.owner.tensor)
            if isinstance(leaf.owner, TensorSource) and leaf.owner.kind == "parameter" and leaf.owner.tensor.is_leaf
            else None
            for leaf in self.leaves
        ]
        # The inputs that a call holds on to.
        self._held = sorted({*parts.kept_inputs, *self.rerun.needed} - set(parts.copied_inputs))
        self.captured = captured
        self._partial: dict[frozenset[int], tuple[Compiled, list[int]] | None] = {}
        self._reads: dict[int, frozenset[int]] = {}  # id of a backward -> the positions of what it reads
        self._backward: Compiled | None = None
        if joint.symbols:
            _ = self.backward  # now, while what it may ask of the sizes still becomes a guard

    @property
    def backward(self) -> Compiled:
        """Compiled when first needed: a forward that nobody differentiates never pays for it."""
        if self._backward is None:
            late = RecomputeCheckpoints().run(self.parts.backward)
            self._backward = compile_joint(self.parts.backward, late, self.backend, {})
        return self._backward

    def reads(self, backward: Compiled) -> Container[int]:
        """The positions of the inputs that a backward reads."""
        found = self._reads.get(id(backward))
        if found is None:
            graph = backward.stages.optimized
            wanted = {v for n in graph.nodes for v in n.operands()} | set(graph.outputs)
            found = self._reads[id(backward)] = frozenset(i for i, v in enumerate(graph.inputs) if v in wanted)
        return found

    def backward_of(self, places: frozenset[int]) -> tuple[Compiled, list[int]] | None:
        """The backward for gradients that flow to these of the differentiable outputs, and the leaves that it is for;
        None for that of all outputs."""
        if len(places) == len(self.captured.differentiable) or self.by_python:
            return None
        if places not in self._partial:
            self._partial[places] = self._compile_partial(places)
        return self._partial[places]

    def _compile_partial(self, places: frozenset[int]) -> tuple[Compiled, list[int]] | None:
        scopes = {id(s.scope): s.scope for s in self.joint.symbols.values() if s.scope is not None}.values()
        held = [len(scope.guards) for scope in scopes]
        made = partial_backward(
            self.rerun.graph,
            [self.captured.differentiable[p] for p in sorted(places)],
            self.captured.differentiable,
            [(leaf.output, leaf.position) for leaf in self.leaves],
            self.joint,
            self.parts,
        )
        if made is None:
            return None
        compiled = compile_joint(made[0], made[0], self.backend, {})
        if held != [len(scope.guards) for scope in scopes]:
            return None  # it would hold for some sizes only, and the guards are made already
        return compiled, made[1]

    def history(
        self, name: str, tensors: Sequence[Any], arrays: Sequence[Any], captured: Captured, leaves: Sequence[Any]
    ) -> list[tuple[CompiledBackward, int]]:
        """The grad_fn of each of this call's differentiable outputs, and the output's place in it. `leaves` are the
        call's arguments, `tensors` its inputs."""
        residuals = list(arrays[self.output_count :])
        saved = {i: SavedTensor(tensors[i]) if isinstance(tensors[i], Tensor) else tensors[i] for i in self._held}
        states = residuals.pop() if self.rerun.generators else []
        held = saved
        if self.parts.copied_inputs:
            copies = residuals[-len(self.parts.copied_inputs) :]
            held = saved | {i: Tensor._over(a) for i, a in zip(self.parts.copied_inputs, copies, strict=True)}
        again = Again([held[i] for i in self.rerun.needed], states)
        kept = [saved[i] for i in self.parts.kept_inputs] + [tensors[i]._data for i in self.parts.sized_inputs]
        edges = [
            edge or (None if leaf.owner is None else edge_of(leaf.owner.fetch(leaves)))
            for edge, leaf in zip(self._edges, self.leaves, strict=True)
        ]
        shapes = [arrays[i].shape for i in captured.differentiable]
        nodes: dict[int, CompiledBackward] = {}
        found: list[tuple[CompiledBackward, int]] = []
        for place, group in enumerate(captured.groups):
            node = nodes.get(group)
            if node is None:
                node = nodes[group] = CompiledBackward(self, name, kept, residuals, edges, shapes)
                node.frees = group in captured.saving
                node.again = again
            found.append((node, len(node.places)))
            node.places.append(place)
        for node in nodes.values():
            node.keep_edges()
        return found


@dataclass(slots=True)
class Again:
    """What a call keeps to be run again: inputs as `Rerun.needed` has them, and the generators' states."""

    inputs: list[Any]
    states: list[Any]


class CompiledBackward(Node):
    """The tape's node of one call of a compiled forward, for some of its differentiable outputs: those at `places`.

    `made` are the edges, by place, that go to results of the call; they are set once those exist."""

    __slots__ = ("_name", "again", "frees", "made", "places", "program", "residuals", "saved", "shapes", "watched")

    def __init__(
        self,
        program: JointProgram,
        name: str,
        kept: Sequence[Any],
        residuals: list[Any],
        edges: Sequence[Edge | None],
        shapes: list[tuple[int, ...]],
    ) -> None:
        super().__init__(edges)
        self.made: list[tuple[int, Any]] = []
        self.places: list[int] = []
        self.frees = True
        self.again: Again | None = None
        self.program = program
        self._name = name
        self.saved: list[Any] | None = list(kept)
        self.residuals = residuals
        self.shapes = shapes
        self.watched: list[tuple[int, Storage, int, str]] = []

    def watch(self, place: int, tensors: Sequence[tuple[Tensor, str]]) -> None:
        """Let a backward pass through one of the outputs fail if these have been changed in place by then, as eager
        execution would."""
        for tensor, what in tensors:
            storage = tensor._shared_storage()
            self.watched.append((place, storage, storage.version, what))

    def _check_watched(self, cotangents: Sequence[Tensor | None]) -> None:
        for place, storage, version, what in self.watched:
            if storage.version != version and cotangents[place] is not None:
                raise RuntimeError(
                    "one of the variables needed for gradient computation has been modified by an inplace operation: "
                    f"{what}, is at version {storage.version}; expected version {version} instead. Hint: compute a "
                    "new tensor where this one is changed."
                )

    def keep_edges(self) -> None:
        """Drop the edges to leaves that none of these outputs depends on."""
        edges = list(self.edges)
        for i, leaf in enumerate(self.program.leaves):
            if leaf.reached_by.isdisjoint(self.places):
                edges[i] = None
            elif leaf.owner is None:
                self.made.append((i, leaf.made))
        self.edges = tuple(edges)

    def name(self) -> str:
        return self._name

    stands_for_many = True  # what is made of a result is not what is made of another

    def result_count(self) -> int:
        return len(self.places)

    def release(self) -> None:
        if self.frees:  # otherwise eager execution would have saved nothing, and could go back again
            self.saved = None
            self.again = None
            self.watched = []
            self.residuals = []

    def apply(self, cotangents: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        from graphtorch.autograd.state import state

        if self.saved is None:
            raise RuntimeError(FREED)
        self._check_watched(cotangents)
        if state.grad_enabled:
            return self._differentiably(cotangents)
        if state.anomaly:
            # Operator by operator on the tape, which says at which line a gradient becomes NaN.
            with enable_grad():
                found = self._differentiably(cotangents)
            return [None if g is None else g.detach() for g in found]
        flows = [place for place, cotangent in zip(self.places, cotangents, strict=True) if cotangent is not None]
        partial = self.program.backward_of(frozenset(flows))
        backward = self.program.backward if partial is None else partial[0]
        graph = self.program.parts.backward
        types = [v.type for v in graph.inputs[len(graph.inputs) - len(self.shapes) :]]
        given: list[Any] = [None] * len(types)
        flowing: set[int] = set()
        for place, cotangent in zip(self.places, cotangents, strict=True):
            if cotangent is not None:
                given[place] = cotangent._data
                flowing.add(place)
        for place, (of, shape) in enumerate(zip(types, self.shapes, strict=True)):
            if given[place] is None:
                given[place] = _zeros(shape, of)
        read = self.program.reads(backward) if partial is not None else None
        inputs = [self._content(i, s, read) for i, s in enumerate(self.saved)]
        arrays = backward.run([*inputs, *self.residuals, *given], {})
        if partial is not None:
            reached = dict(zip(partial[1], arrays, strict=True))
            return [Tensor._over(reached[i]) if i in reached else None for i in range(len(self.program.leaves))]
        # Leaves that nothing flows to get no gradient, which is something else than zeros.
        return [
            None if leaf.reached_by.isdisjoint(flowing) else Tensor._over(a)
            for leaf, a in zip(self.program.leaves, arrays, strict=True)
        ]

    def _unpacked(self, place: int, saved: Any, read: Container[int] | None) -> Any:
        """An input that was saved. Those that are not `read` (None: all are) may have been changed since."""
        if not isinstance(saved, SavedTensor):
            return saved
        if read is not None and place not in read and saved.packed is None:
            return saved.tensor
        return saved.unpack(self, self._name)

    def _content(self, place: int, saved: Any, read: Container[int] | None) -> Any:
        found = self._unpacked(place, saved, read)
        return found._data if isinstance(found, Tensor) else found

    def _differentiably(self, cotangents: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        """The leaves' cotangents with a history of their own."""
        assert self.again is not None
        read = self.program.rerun.reads(
            [place for place, g in zip(self.places, cotangents, strict=True) if g is not None]
        )
        inputs = [self._unpacked(i, s, read) for i, s in enumerate(self.again.inputs)]
        flowing = {place: g for place, g in zip(self.places, cotangents, strict=True) if g is not None}
        return self.program.rerun.gradients(inputs, self.again.states, self.edges, flowing)


def _zeros(shape: Sequence[int], of: TensorType) -> Any:
    """The cotangent of a result through which nothing flows."""
    return FUNCTIONS["zeros"](tuple(shape), dtype=of.dtype, device=of.device)._data
