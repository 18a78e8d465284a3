"""Trace trees: a function that decides on tensor data, as one compiled program for each way through it.

A path is the program of one way. It runs in stages: each stage computes what one decision asks for (and draws the
random numbers that come before it), and the last piece does all the rest, so that nothing is changed before every
answer is known. Paths that begin alike share stages: these are equal when the expressions of what they compute are,
down to the inputs. A stage also returns those of its values that later pieces of some path read.

When an answer is not the one that a path was captured with, `run_path` goes on with another path of the tree that
assumes it, from the stages that have run; if there is none, the function is captured again with the answers so far.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from graphtorch.frontend.arithmetic import ComputedNumber, Given, Read, Result
from graphtorch.frontend.decisions import MAX_PATHS, MAX_VALUES, Decision, answer_of, generators_of
from graphtorch.frontend.effects import RunEagerly
from graphtorch.frontend.places import owner_of
from graphtorch.frontend.replay import MISS, write_replay
from graphtorch.frontend.sources import (
    ArgumentSource,
    GradSource,
    IntegerArgument,
    NumberSource,
    SizeSource,
    SlotSource,
    Source,
    TensorSource,
    carrier,
)
from graphtorch.frontend.tree import flatten
from graphtorch.frontend.turns import OutOfTurn, turn
from graphtorch.ir.equality import constant_key
from graphtorch.ir.expressions import Expressions
from graphtorch.ir.graph import Graph, Node, Value, substitute
from graphtorch.lowering.backend import Executable, get_backend
from graphtorch.lowering.kernel import Schedule
from graphtorch.ops.record import SOURCE, VIEW
from graphtorch.schedule.memory import MemoryPlan
from graphtorch.tensor.remote import duplicate, readable
from graphtorch.tensor.symint import SymInt, symbols_of

if TYPE_CHECKING:
    from graphtorch.frontend.compiler import CompiledFunction, Specialization

Key = int


class Diverged(Exception):
    """A call got another answer than its path assumes. Nothing has been changed but random generators."""

    def __init__(self, answers: tuple[Any, ...], assumed: Sequence[Decision], array: Any, results: _Results) -> None:
        super().__init__()
        self.answers = answers
        self.assumed = assumed  # the path's decisions
        self.array = array  # what the last of `answers` was read from
        self.results = results

    def __str__(self) -> str:
        return str(self.decisions[-1])

    @property
    def decisions(self) -> list[Decision]:
        """The path's decisions up to the one where this call parts from it, with the answers of this call."""
        count = len(self.answers) - 1
        last = self.assumed[count]
        array = np.array(readable(self.array), dtype=last.array.dtype)
        return [*self.assumed[:count], replace(last, answer=self.answers[-1], array=array)]


@dataclass
class _Results:
    """What the stages of one call gave so far: (keys, arrays) by stage; and the generators' states before it."""

    stages: dict[Stage, tuple[tuple[Key, ...], list[Any]]]
    generators: list[tuple[Any, Any]]

    def rewind(self) -> None:
        """Put the random generators back to where the call found them."""
        for generator, saved in self.generators:
            generator.set_state(saved)


class _Current(threading.local):
    """The results that the next path of this thread may start from."""

    results: _Results | None = None


_current = _Current()


class Stage:
    """A compiled piece that computes what a decision asks for.

    Its graph has the asked value as its first output. Further outputs are values that later pieces read; when a new
    path reads more of them, the piece is compiled again."""

    def __init__(
        self, backend: str, graph: Graph, inputs: list[Key], values: dict[Key, Value], number: Mapping[Key, bool]
    ) -> None:
        self.backend = backend
        self.graph = graph
        self.inputs = inputs
        self.values = values
        self.numbers = number
        self.compiled: tuple[Executable, tuple[Key, ...]] | None = None

    def export(self, asked: Key, wanted: Sequence[Key]) -> None:
        """Return these values too."""
        held = self.compiled
        keys = dict.fromkeys((asked,) if held is None else held[1])
        keys.update(dict.fromkeys(wanted))
        if held is not None and len(keys) == len(held[1]):
            return
        graph = Graph(self.graph.name, list(self.graph.inputs), list(self.graph.nodes))
        graph.input_kinds = list(self.graph.input_kinds)
        for key in keys:
            graph.add_output(self.values[key], "asked" if key == asked else "")
        self.compiled = get_backend(self.backend).compile(graph, {}), tuple(keys)

    def run(self, inputs: list[Any]) -> tuple[tuple[Key, ...], list[Any]]:
        """The exported values, in memory of their own: later pieces may overwrite the inputs."""
        assert self.compiled is not None
        executable, keys = self.compiled
        arrays = executable.run(inputs)
        held = [a for a in inputs if isinstance(a, np.ndarray)]
        for i, (key, array) in enumerate(zip(keys, arrays, strict=True)):
            if self.numbers.get(key):
                arrays[i] = array.item() if hasattr(array, "item") else array
            elif any(np.may_share_memory(array, other) for other in held):
                arrays[i] = duplicate(array)
        return keys, arrays


class PathTree:
    """The paths of one function for one set of arguments' types, and the stages that they share."""

    def __init__(self) -> None:
        self.paths: list[Specialization] = []
        self.closed = False
        self._stages: dict[Any, Stage] = {}
        self.expressions = Expressions()

    def full(self, found: Diverged) -> str:
        """Why no further path is to be captured; empty if one may be."""
        decision = found.decisions[-1]
        if self.closed or len(self.paths) >= MAX_PATHS:
            return f"its decisions on tensor data took {MAX_PATHS} different ways, the last one at {decision.location}"
        if type(decision.answer) is not bool:
            place = len(found.decisions) - 1
            others = {p.answers[place] for p in self.paths if p.answers[:place] == found.answers[:place]}
            if len(others) >= MAX_VALUES:
                return (
                    f"{decision.operation} at {decision.location} gave {MAX_VALUES} different values, each of which "
                    "would need a program of its own"
                )
        return ""

    def close(self) -> None:
        """Keep the paths that calls have come back to."""
        self.closed = True
        self.paths = [p for p in self.paths if p.calls > 1]

    def going_on(self, found: Diverged) -> Iterator[Specialization]:
        """The paths that assume what a call has got so far."""
        count = len(found.answers)
        for path in self.paths:
            if path.answers[:count] == found.answers:
                yield path

    def stage(self, identity: Any, make: Callable[[], Stage]) -> Stage:
        """The stage of that identity, made if there is none."""
        found = self._stages.get(identity)
        if found is None:
            found = self._stages[identity] = make()
        return found

    def input_key(self, source: Source, value: Value) -> Key:
        """The number of a graph input: inputs of two captures are the same if every call finds the same object."""
        return self.expressions.number(("input", self._place(source), str(value.type)))

    def _place(self, source: Source) -> Any:
        if isinstance(source, ArgumentSource):
            return "argument", source.index
        if isinstance(source, GradSource):
            return "grad", self._place(source.owner)
        if isinstance(source, SizeSource):
            return "size", source.place
        if isinstance(source, ComputedNumber):
            return "computed", self._number(source, source.index, {})
        if isinstance(source, SlotSource):
            return "slot", self.expressions.keep(source.slot)
        if isinstance(source, IntegerArgument):
            return "integer", source.index
        if isinstance(source, NumberSource):
            return "number", self.expressions.keep(source.container), source.key, source.index
        assert isinstance(source, TensorSource)
        if source.kind == "constant":  # made anew by each capture
            array = np.ascontiguousarray(readable(source.tensor._data))
            return "constant", array.dtype.str, array.shape, array.tobytes()
        return "tensor", self.expressions.keep(source.tensor)

    def _number(self, source: ComputedNumber, index: int, known: dict[int, Key]) -> Key:
        """A number that is computed in Python, as a key."""
        found = known.get(index)
        if found is not None:
            return found
        node = source.arithmetic.nodes[index]
        if isinstance(node, Given):
            found = self.expressions.number(("given", node.leaf, node.kind))
        elif isinstance(node, Read):
            held = self.expressions.keep(owner_of(node.namespace))
            found = self.expressions.number(("read", held, node.key, node.part, node.kind))
        else:
            given = tuple(
                self._number(source, o.index, known) if type(o) is Result else ("constant", constant_key(o))
                for o in node.operands
            )
            found = self.expressions.number(("step", node.function, given))
        known[index] = found
        return found


class PathExecutable(Executable):
    """One path: its stages and the piece that does the rest. Runs like any executable of the whole graph, but raises
    Diverged, before anything is changed, where an answer is another."""

    def __init__(
        self,
        graph: Graph,
        donations: Mapping[int, int],
        decisions: Sequence[Decision],
        sources: Sequence[Source],
        backend: str,
        tree: PathTree,
    ) -> None:
        self.decisions = list(decisions)
        self.answers = tuple(d.answer for d in decisions)
        self._asked: list[tuple[Stage, Key, Decision]] = []
        _Cut(self, graph, donations, sources, backend, tree).run()
        self._asked = list(zip(self.stages, self.asked, self.decisions, strict=True))

    # Set by _Cut:
    stages: list[Stage]
    asked: list[Key]  # what each decision asks for
    inputs: list[tuple[Key, int]]  # the graph inputs that stages read
    needed: list[set[Key]]  # what later pieces of this path read of each stage
    residuals: list[Key]  # what the last piece reads of them
    rest: Executable
    places: list[int]  # of the last piece's outputs among the graph's
    count: int  # of the graph's outputs
    carriers: dict[int, Key]  # by decision: the input that says how long what it counted is
    generators: list[Any]

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        held, _current.results = _current.results, None
        inputs = list(inputs)
        known = {key: inputs[position] for key, position in self.inputs}
        if held is not None and not self._fits(held):
            held.rewind()
            held = None
        if held is None:
            held = _Results({}, [(g, g.state_array()) for g in self.generators])
        for place, (stage, asked, decision) in enumerate(self._asked):
            done = held.stages.get(stage)
            if done is None:
                done = held.stages[stage] = stage.run([known[key] for key in stage.inputs])
            known.update(zip(*done, strict=True))
            answer = answer_of(decision.operation, known[asked])
            if answer != decision.answer:
                raise Diverged((*self.answers[:place], answer), self.decisions, known[asked], held)
            if decision.carrier >= 0:
                known[self.carriers[place]] = inputs[decision.carrier] = carrier(int(readable(known[asked])))
        found: list[Any] = [None] * self.count
        for _, asked, decision in self._asked:
            found[decision.output] = known[asked]
        arrays = self.rest.run([*inputs, *(known[key] for key in self.residuals)])
        for place, array in zip(self.places, arrays, strict=True):
            found[place] = array
        return found

    def _fits(self, held: _Results) -> bool:
        """Whether what has run is a beginning of this path, with all that it needs."""
        for (stage, (keys, _)), own, needed in zip(held.stages.items(), self.stages, self.needed, strict=False):
            if stage is not own or not needed.issubset(keys):
                return False
        return len(held.stages) <= len(self.stages)

    @property
    def schedule(self) -> Schedule | None:  # type: ignore[override]  # the last piece's, which may make it when asked
        return self.rest.schedule

    @property
    def plan(self) -> MemoryPlan | None:  # type: ignore[override]
        return self.rest.plan

    def sources(self) -> dict[str, str]:
        return self.rest.sources()


class _Cut:
    """Cuts the optimised graph of a whole path into stages and the rest."""

    def __init__(
        self,
        path: PathExecutable,
        graph: Graph,
        donations: Mapping[int, int],
        sources: Sequence[Source],
        backend: str,
        tree: PathTree,
    ) -> None:
        self.path = path
        self.graph = graph
        self.backend = backend
        self.tree = tree
        self.donations = donations
        self.keys: dict[Value, Key] = {}
        self.home: dict[Node, int] = {}  # the stage of a node
        for value, source in zip(graph.inputs, sources, strict=False):
            self.keys[value] = tree.input_key(source, value)
        self.keys = tree.expressions.of(graph, self.keys)

    def run(self) -> None:
        path, graph = self.path, self.graph
        count = len(path.decisions)
        draws = [n for n in graph.nodes if n.op.random]
        slices: list[list[Node]] = []
        for place, decision in enumerate(path.decisions):
            asked = graph.outputs[decision.output]
            slices.append(self._slice(place, [asked], draws[: decision.draws]))
        left = set(graph.outputs[i] for i in self._places())
        rest = self._needed_again([n for n in graph.nodes if n not in self.home], left)
        pieces = [
            self._needed_again(nodes, {graph.outputs[d.output]})
            for nodes, d in zip(slices, path.decisions, strict=True)
        ]
        # What each piece reads of earlier ones.
        reads = [self._reads(nodes, {graph.outputs[d.output]}) for nodes, d in zip(pieces, path.decisions, strict=True)]
        reads.append(self._reads(rest, left))
        exports: list[dict[Value, None]] = [{} for _ in range(count)]
        for place, values in enumerate(reads):
            for value in values:
                home = -1 if value.node is None else self.home.get(value.node, count)
                if 0 <= home < place:
                    exports[home][value] = None
        path.asked = [self.keys[graph.outputs[d.output]] for d in path.decisions]
        path.stages = []
        path.needed = []
        parent: Stage | None = None
        for place, decision in enumerate(path.decisions):
            drawn = tuple(self.keys[n.result] for n in slices[place] if n.op.random)
            identity = (parent, path.asked[place], decision.operation, drawn)
            nodes, external = pieces[place], reads[place]
            make = functools.partial(self._stage, nodes, external)
            parent = self.tree.stage(identity, make)
            wanted = [self.keys[v] for v in exports[place]]
            parent.export(path.asked[place], wanted)
            path.stages.append(parent)
            path.needed.append({path.asked[place], *wanted})
        position = {self.keys[v]: i for i, v in reversed(list(enumerate(graph.inputs)))}
        used = {key for stage in path.stages for key in stage.inputs}
        path.inputs = [(key, i) for key, i in position.items() if key in used]
        path.carriers = {
            place: self.keys[graph.inputs[d.carrier]] for place, d in enumerate(path.decisions) if d.carrier >= 0
        }
        path.generators = generators_of([n for nodes in slices for n in nodes])
        self._rest(rest, reads[count])

    def _places(self) -> list[int]:
        """The outputs that the last piece makes: all but what decisions ask for and nothing is overwritten with."""
        asked = {d.output for d in self.path.decisions} - set(self.donations)
        return [i for i in range(len(self.graph.outputs)) if i not in asked]

    def _slice(self, place: int, values: list[Value], draws: Sequence[Node]) -> list[Node]:
        """The nodes that some values and all of `draws` need, without those of earlier stages; now in this stage."""
        wanted: set[Value] = set(values)
        wanted.update(n.result for n in draws)
        found: list[Node] = []
        for node in reversed(self.graph.nodes):
            if node not in self.home and any(r in wanted for r in node.results):
                found.append(node)
                wanted.update(node.operands())
        found.reverse()
        for node in found:
            self.home[node] = place
        return found

    def _needed_again(self, nodes: list[Node], outputs: set[Value]) -> list[Node]:
        """A piece with what is cheaper to compute again than to hand over: views and constants of earlier pieces."""
        own = set(nodes)
        wanted = {v for n in nodes for v in n.operands()} | outputs
        found: list[Node] = []
        for node in reversed(self.graph.nodes):
            if node in own:
                found.append(node)
            elif node.op.kind in (VIEW, SOURCE) and not node.op.random and node.result in wanted:
                found.append(node)
                wanted.update(node.operands())
        found.reverse()
        return found

    @staticmethod
    def _reads(nodes: Sequence[Node], outputs: set[Value]) -> list[Value]:
        """The values from outside that some nodes and outputs need."""
        made = {r for n in nodes for r in n.results}
        wanted = dict.fromkeys(v for n in nodes for v in n.operands())
        wanted.update(dict.fromkeys(outputs))
        return [v for v in wanted if v not in made]

    def _stage(self, nodes: Sequence[Node], external: Sequence[Value]) -> Stage:
        piece = Graph(f"{self.graph.name}_until_decision")
        mapping: dict[Value, Value] = {}
        kinds = dict(zip(self.graph.inputs, self.graph.input_kinds, strict=True))
        carried = _carriers(self.graph.inputs, external, nodes)
        for value in (*external, *carried):
            mapping[value] = piece.add_input(value.type, value.name, kinds.get(value, "residual"))
        _copy(piece, nodes, mapping)
        inputs = [self.keys[v] for v in (*external, *carried)]
        values = {self.keys[v]: made for v, made in mapping.items()}
        numbers = {self.keys[v]: v.type.is_number for v in mapping}
        return Stage(self.backend, piece, inputs, values, numbers)

    def _rest(self, nodes: Sequence[Node], external: Sequence[Value]) -> None:
        path, graph = self.path, self.graph
        piece = Graph(graph.name)
        mapping: dict[Value, Value] = {}
        for value, kind in zip(graph.inputs, graph.input_kinds, strict=True):
            mapping[value] = piece.add_input(value.type, value.name, kind)
        residuals = [v for v in external if v not in mapping]
        for value in residuals:
            mapping[value] = piece.add_input(value.type, value.name, "residual")
        _copy(piece, nodes, mapping)
        path.places = self._places()
        for place in path.places:
            piece.add_output(mapping[graph.outputs[place]], graph.output_names[place])
        path.residuals = [self.keys[v] for v in residuals]
        path.count = len(graph.outputs)
        index = {place: i for i, place in enumerate(path.places)}
        path.rest = get_backend(self.backend).compile(piece, {index[o]: i for o, i in self.donations.items()})


def _copy(graph: Graph, nodes: Sequence[Node], mapping: dict[Value, Value]) -> None:
    for node in nodes:
        args = substitute(node.args, mapping.__getitem__)
        made = Node(node.op, args, [r.type for r in node.results], node.location, node.origin)
        graph.nodes.append(made)
        mapping.update(zip(node.results, made.results, strict=True))


def _carriers(inputs: Sequence[Value], present: Sequence[Value], nodes: Sequence[Node]) -> list[Value]:
    """The inputs whose shapes a piece needs, beside `present`, to know its symbolic sizes."""
    missing: dict[str, None] = {}
    held = Graph("", list(present), list(nodes))
    missing.update(dict.fromkeys(held.symbols))
    for value in present:
        for size in value.shape:
            missing.pop(str(size), None)
    found: list[Value] = []
    for value in inputs:
        named = [s for size in value.shape if type(size) is SymInt for s in symbols_of(size) if str(size) == s]
        if any(name in missing for name in named) and value not in present:
            found.append(value)
            for name in named:
                missing.pop(name, None)
    return found


# -- calls ------------------------------------------------------------------------------------------------------------


def run_path(
    function: CompiledFunction,
    path: Specialization,
    tree: Any,
    leaves: list[Any],
    args: Any,
    kwargs: Any,
    found: Diverged | None = None,
) -> Any:
    """One call of a function that decides on data: `path` fits as far as its guards say. `found` is where a call that
    began on that path left it."""
    owner = path.paths
    assert owner is not None
    for _ in range(2 * MAX_PATHS):
        if found is None:
            try:
                result = path.run(leaves)
            except Diverged as diverged:
                found = diverged
            else:
                if path.replay is None:
                    with suppress(OutOfTurn), turn(0.0):
                        path.replay = path.replay or write_replay(path)
                        if not any(type(r) is PathReplay and r.owner is owner for r in function._replays):
                            function._replays += (PathReplay(function, path),)
                return result
        for other in owner.going_on(found):
            if other.matches(tree, leaves):
                path, _current.results, found = other, found.results, None
                break
        else:
            found.results.rewind()
            reason = owner.full(found)
            if not reason:
                try:
                    with turn():  # another thread may have come here meanwhile
                        made = next((p for p in owner.going_on(found) if p.matches(tree, leaves)), None)
                        path = made or function.specialize(tree, leaves, owner, found.decisions)
                    found = None
                    continue
                except RunEagerly as why:
                    if why.once:
                        return function.run_eagerly(why, args, kwargs)
                    reason = str(why)
            return _give_up(function, owner, reason, args, kwargs)
    if found is not None:
        found.results.rewind()
    return _give_up(function, owner, "its decisions on tensor data do not settle", args, kwargs)


class PathReplay:
    """A call by the written code of a tree's paths, without a look at the containers of the arguments."""

    __slots__ = ("first", "function", "owner")

    def __init__(self, function: CompiledFunction, first: Specialization) -> None:
        assert first.paths is not None
        self.function = function
        self.first = first
        self.owner = first.paths

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        path = self.first
        assert path.replay is not None
        try:
            return path.replay(args, kwargs)
        except Diverged as diverged:
            found = diverged
        while True:
            for other in self.owner.going_on(found):
                if other.replay is None:
                    continue
                _current.results = found.results
                try:
                    result = other.replay(args, kwargs)
                except Diverged as diverged:
                    path, found = other, diverged
                    break
                if result is not MISS:
                    self.first = other  # the next call most often goes the same way
                    return result
            else:
                _current.results = None
                leaves: list[Any] = []
                tree = flatten((args, kwargs), leaves)
                return run_path(self.function, path, tree, leaves, args, kwargs, found)


def _give_up(function: CompiledFunction, owner: PathTree, reason: str, args: Any, kwargs: Any) -> Any:
    """Run a call eagerly, as those that take no known path will be from now on."""
    if not owner.closed:
        owner.close()
        function._replays = tuple(r for r in function._replays if type(r) is not PathReplay or r.owner is not owner)
        function.specializations = [s for s in function.specializations if s.paths is not owner or s in owner.paths]
        if not owner.paths:
            function.eager_reason = reason
    return function._run_eagerly(reason, args, kwargs)


__all__ = ["Diverged", "PathExecutable", "PathReplay", "PathTree", "run_path"]
