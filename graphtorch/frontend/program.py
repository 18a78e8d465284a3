"""A captured function as something that runs: where inputs come from, what the graph returns, and what happens to
Python state after.

`assemble` reads a finished recorder; a `ResultBuilder` makes the results of each call.
"""

from __future__ import annotations

import array
import copy
import enum
import functools
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import CellType, FunctionType, GeneratorType, ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from graphtorch.autograd.grad_mode import set_grad_enabled
from graphtorch.autograd.graph import Edge, Node, edge_of
from graphtorch.autograd.views import overlay, replay, stale
from graphtorch.frontend.arithmetic import Arithmetic, ComputedNumber
from graphtorch.frontend.arrangement import Within, by_rows, laid_out, within_of
from graphtorch.frontend.attributes import Assigned
from graphtorch.frontend.decisions import Decision
from graphtorch.frontend.descriptions import (
    Alias,
    Change,
    Computed,
    Constant,
    Made,
    Output,
    OutputView,
    Position,
    Size,
    Watched,
)
from graphtorch.frontend.errors import refuse
from graphtorch.frontend.gradients import CustomCall
from graphtorch.frontend.layouts import order_of
from graphtorch.frontend.memory import assume_other, assume_writable
from graphtorch.frontend.parts import Part
from graphtorch.frontend.places import Place, put
from graphtorch.frontend.reach import has_attributes, is_library
from graphtorch.frontend.recorded import Recorded, RecordedStorage, Steps
from graphtorch.frontend.recorder import Recorder
from graphtorch.frontend.sources import ArgumentSource, Source, carrier
from graphtorch.frontend.tree import mutable_containers
from graphtorch.ir.builder import Traced
from graphtorch.ir.graph import Graph, Value
from graphtorch.ir.graph import Node as GraphNode
from graphtorch.lowering.binding import bind, concrete, symbolic_dims
from graphtorch.ops.record import lookup
from graphtorch.tensor.remote import DeviceArray, readable
from graphtorch.tensor.symint import SymInt, evaluate
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.tracked import TrackedNumber
from graphtorch.tensor.type import type_of

if TYPE_CHECKING:
    from graphtorch.frontend.environment import Environment
    from graphtorch.frontend.joint import CompiledBackward


# The operators that raise for some elements of their operands.
CHECKED = frozenset(
    (
        *("index", "index_put", "gather", "scatter", "scatter_add", "scatter_reduce", "index_select", "index_add"),
        *("index_copy", "index_fill", "take", "put", "embedding", "nll_loss", "multinomial", "one_hot"),
        *("binary_cross_entropy", "cholesky_inverse", "svd"),
    )
)
_QUOTIENTS = frozenset(("floor_divide", "remainder", "fmod"))  # of integers


def _may_raise(node: GraphNode) -> bool:
    name = node.op.name
    if name in _QUOTIENTS or (name == "div" and "trunc" in node.args):
        return not node.results[0].type.dtype.is_floating_point
    return name in CHECKED or name.startswith("linalg_")


_COPIED = (set, bytearray, np.ndarray, array.array, list, dict, deque)


@dataclass(frozen=True, slots=True)
class LeafValue:
    """A value at which a later backward() leaves the graph.

    output      whether `position` is that of an output, such as an updated parameter; an input's otherwise
    owner       where the tensor is found; None for a leaf made inside the function, which is the result `made`
    reached_by  the places among the differentiable outputs of those that depend on it
    """

    position: int
    output: bool
    owner: Source | None
    made: Any = None
    reached_by: frozenset[int] = frozenset()


@dataclass
class Captured:
    """The product of a capture, before compilation.

    results     one entry a leaf of the function's result
    written     (input position, output position) of every input that the function changed
    histories   those of them whose new elements carry a gradient, with what became of them: the tensor gets the call's
                history
    grads       (source of the leaf, what its .grad becomes; None for None)
    own_grads   (result, its .grad)
    attributes  (module, name, what it becomes)
    differentiable  positions of outputs through which a later backward() may flow
    groups      for each of them, which history it shares: those that need a saved value in common have one
    saving      the groups that saved anything, which a backward pass frees
    watched     by place among the differentiable outputs, the memory of inputs and results that must not be changed
                before a backward pass through it
    leaves      where it goes
    hooks       Python functions on the cotangents of values
    custom      the rules of custom functions, by the graph's node
    flags       inputs whose requires_grad the function set, and to what
    inference   results made in inference mode
    quiet       inputs that were changed through `.data` only, which autograd does not count
    decisions   what Python asked of tensor data, and got
    arithmetic  what each call computes in Python
    changes     what plain values and tensors in Python objects become
    assumed     where there are numbers whose values are assumed
    deferred    what each call does in Python when the rest is done
    names_type  whether the function names `type`, which tells a tracked number from others
    """

    graph: Graph
    sources: list[Source]
    results: list[Any]
    tree: Any
    written: list[tuple[int, int]] = field(default_factory=list)
    inference: list[int] = field(default_factory=list)
    grads: list[tuple[Source, Any]] = field(default_factory=list)
    own_grads: list[tuple[Any, Any]] = field(default_factory=list)
    attributes: list[tuple[Any, str, Any]] = field(default_factory=list)
    differentiable: list[int] = field(default_factory=list)
    histories: list[tuple[int, Output]] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    saving: set[int] = field(default_factory=set)
    watched: dict[int, list[Watched]] = field(default_factory=dict)
    hooks: Mapping[Value, Mapping[int, Callable[[Tensor], Tensor | None]]] = field(default_factory=dict)
    leaves: list[LeafValue] = field(default_factory=list)
    custom: dict[GraphNode, CustomCall] = field(default_factory=dict)
    flags: list[tuple[Source, bool]] = field(default_factory=list)
    quiet: set[int] = field(default_factory=set)
    decisions: list[Decision] = field(default_factory=list)
    arithmetic: Arithmetic | None = None
    changes: list[Change] = field(default_factory=list)
    assumed: list[Place] = field(default_factory=list)
    deferred: Sequence[Callable[[], Any]] = ()
    names_type: bool = False


def holds(value: Any, wanted: Callable[[Any], bool], depth: int = 4) -> bool:
    """Whether a value, or what an object (a generator, a defaultdict, an object of the user's) refers to, is wanted:
    `wanted` is asked of tensors and tracked numbers."""
    if isinstance(value, Tensor) or type(value) is TrackedNumber:
        return wanted(value)
    if not depth or isinstance(value, type | ModuleType | str | int | float | np.ndarray):
        return False
    held: Any = getattr(value, "__dict__", None)
    if isinstance(value, GeneratorType):
        held = [] if value.gi_frame is None else value.gi_frame.f_locals.values()
    elif isinstance(value, FunctionType):
        held = [c.cell_contents for c in value.__closure__ or () if c != CellType()]
    elif isinstance(value, functools.partial):
        held = (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, dict):
        held = value.values()
    elif isinstance(value, list | tuple | set | frozenset | deque):
        held = value
    elif not isinstance(held, dict) or hasattr(value, "named_parameters"):
        return False
    else:
        held = held.values()
    return any(holds(item, wanted, depth - 1) for item in held)


def holds_recorded(value: Any) -> bool:
    """Whether an object that is no container of results refers to what only the capture has."""
    return holds(value, lambda found: type(found) is TrackedNumber or isinstance(found._data, Traced))


def backward_knows_numbers(captured: Captured) -> bool:
    """Whether Python code of a backward pass refers to tracked numbers, of which it would find those of the capture."""
    rules = [(vars(rule.context), rule.function.backward) for rule in captured.custom.values()]
    hooks = [tuple(each.values()) for each in captured.hooks.values()]
    return holds((rules, hooks), lambda found: type(found) is TrackedNumber, depth=8)


class BrokenNode(Node):
    """The history of a result through which no backward pass can go any more. `edges` say what it led to: a pass that
    stops elsewhere does not come here."""

    __slots__ = ("_error", "_name")

    def __init__(self, name: str, error: str, edges: Sequence[Edge | None] = ()) -> None:
        super().__init__(edges)
        self._name = name
        self._error = error

    def name(self) -> str:
        return self._name

    def apply(self, cotangents: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        raise RuntimeError(self._error)


def assemble(
    recorder: Recorder,
    leaves: list[Any],
    tree: Any,
    attributes: Sequence[Assigned] = (),
    changes: Sequence[tuple[Place, Any]] = (),
) -> Captured:
    """Turn a finished capture into graph outputs and the description of results and side effects. `attributes` are
    those that each call sets, `changes` the plain values."""
    return _Assembler(recorder).run(leaves, tree, attributes, changes)


def refuse_known_containers(result: Any, given: Any, environment: Environment) -> None:
    """Lists and dictionaries among the results are made anew at each call. That is wrong for one that was there before
    the call, and for one that is there twice."""
    met = {id(c) for c in mutable_containers(given)}
    for container in mutable_containers(result):
        if id(container) in met or environment.knows(container):
            raise refuse(
                f"a result is a {type(container).__name__} that the function did not make, or returns twice",
                "return a copy of it, or a tuple",
            )
        met.add(id(container))


class _Assembler:
    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.graph = recorder.graph
        self.outputs: dict[Value, int] = {}
        self.requires: dict[int, bool] = {}
        self.bases: dict[int, Output] = {}  # id of a storage -> the output that is its base
        self.shown: dict[int, Any] = {}  # id of a storage -> a result that shows some of its memory

    def run(
        self, leaves: list[Any], tree: Any, attributes: Sequence[Assigned], changes: Sequence[tuple[Place, Any]]
    ) -> Captured:
        recorder = self.recorder
        kept = (*(each.content for each in attributes), *(content for _, content in changes))
        tensors = [leaf for leaf in (*leaves, *kept) if isinstance(leaf, Tensor)]
        finals = [recorder.grads[key] for key in recorder.assigned_grads]
        sharing: dict[int, int] = {}
        for tensor in {id(t): t for t in (*tensors, *(f for f in finals if f is not None))}.values():
            if isinstance(tensor._data, Recorded):
                key = id(tensor._data.storage)
                sharing[key] = sharing.get(key, 0) + 1
        captured = Captured(self.graph, recorder.sources, [], tree, deferred=recorder.deferred)
        captured.custom = recorder.custom
        memo: dict[int, Any] = {}
        for number, leaf in enumerate(leaves):
            if type(leaf) is TrackedNumber:
                recorder.arithmetic.used.add(leaf.index)
                captured.results.append(Computed(leaf.index))
                continue
            if not isinstance(leaf, Tensor):
                if holds_recorded(leaf):
                    raise refuse(
                        f"a result of {type(leaf)} that holds tensors of the capture",
                        "return tensors in lists, tuples, dictionaries, named tuples or dataclasses",
                    )
                captured.results.append(Size(leaf) if type(leaf) is SymInt else self.constant(leaf))
                continue
            if leaf._inference:
                captured.inference.append(number)
            if id(leaf) not in memo:
                memo[id(leaf)] = self.describe(leaf, sharing, f"result{number}" if len(leaves) > 1 else "result")
                if isinstance(leaf._data, Recorded):
                    self.shown.setdefault(id(leaf._data.storage), memo[id(leaf)])
            captured.results.append(memo[id(leaf)])
        for title, module, name, content in attributes:
            if id(content) not in memo:
                memo[id(content)] = self.describe(content, sharing, f"{title}.{name}")
                self.shown.setdefault(id(content._data.storage), memo[id(content)])
            captured.attributes.append((module, name, memo[id(content)]))
        for changed, content in changes:
            spec = Computed(content.index) if type(content) is TrackedNumber else Constant(content)
            slot = None
            if isinstance(content, Tensor):
                if id(content) not in memo:
                    memo[id(content)] = self.describe(content, sharing, f"new {changed.key}")
                    if isinstance(content._data, Recorded):
                        self.shown.setdefault(id(content._data.storage), memo[id(content)])
                spec = memo[id(content)]
                slot = recorder.slots.get(id(changed.value))
            captured.changes.append(Change(changed.namespace, changed.key, spec, slot))
        self.check_lent()
        position = {v: i for i, v in enumerate(self.graph.inputs)}
        for storage in recorder.storages:
            if storage.mutated and not storage.constant and storage.source is not None:
                index = self.output(storage.value, f"new {storage.source.name}")
                original = recorder.graph.inputs[recorder.sources.index(storage.source)]
                captured.written.append((position[original], index))
                if isinstance(storage.source, ArgumentSource) and storage.concrete is not None:
                    assume_writable(recorder.guards, storage.source.index, storage.source.name, storage.concrete)
                if not storage.counted:
                    captured.quiet.add(position[original])
                if storage.carries and storage.base is not None:
                    captured.histories.append((position[original], self.own_output(storage.base, "")))
            base = storage.base
            if base is not None and storage.source is not None and base._node is None and not storage.carries:
                assert storage.concrete is not None
                if base._requires_grad is not storage.concrete._requires_grad:
                    captured.flags.append((storage.source, base._requires_grad))
        for recorded_id, view in recorder.kept_views.items():
            recorded = recorder.captured[recorded_id]
            if recorded._requires_grad and not view._requires_grad and not recorded._data.storage.carries:
                raise refuse("requires_grad_() of a view that is kept outside", "call it outside the compiled function")
        recorder.assume_apart(recorder.guards)
        assigned_leaves = [t for t in recorder.assigned_grads.values() if not isinstance(t._data, Traced)]
        kinds = {s.source: type(s.concrete) for s in recorder.storages if s.source is not None}
        assume_other(recorder.guards, recorder.sources, assigned_leaves, kinds)
        for key, assigned in recorder.assigned_grads.items():
            final = recorder.grads[key]
            if isinstance(assigned._data, Traced):
                if id(assigned) in memo and final is not None:  # a leaf made inside, and returned
                    captured.own_grads.append((memo[id(assigned)], self.describe(final, sharing, "grad of a leaf")))
                continue
            holder = recorder._source_of(assigned)
            described = None if final is None else self.describe(final, sharing, f"grad of {holder.name}")
            captured.grads.append((holder, described))
        self.keep_checks()
        if recorder.decisions is not None:
            captured.decisions = [
                replace(d, output=self.output(d.value, f"decision {i}")) for i, d in enumerate(recorder.decisions.made)
            ]
        captured.differentiable = [i for i, needed in self.requires.items() if needed]
        reached = [recorder._reached([self.graph.outputs[i]]) for i in captured.differentiable]
        captured.groups, captured.saving = self.groups(reached)
        captured.watched = self.watched(reached)
        if any(v in values for v in recorder.retained for values in reached):
            raise refuse(
                "retain_grad() inside a compiled function of what a backward pass outside may reach",
                "return the tensor and call retain_grad() on the result",
            )
        if any(v in values for v in recorder.value_hooks for values in reached):
            captured.hooks = recorder.value_hooks
        for value, tensor in recorder.leaves.items():
            reached_by = frozenset(place for place, values in enumerate(reached) if value in values)
            if not reached_by:
                continue
            owner = recorder._owner(tensor)
            source: Source | None = None
            if not isinstance(owner._data, Traced):
                source = recorder._source_of(owner)
            elif id(tensor) not in memo:
                continue  # a leaf that nobody will see
            outside = value not in position
            place = self.output(value, "leaf") if outside else position[value]
            captured.leaves.append(LeafValue(place, outside, source, memo.get(id(tensor)), reached_by))
        return captured

    def constant(self, leaf: Any) -> Any:
        """A result that is no tensor: itself, or a copy at each call of what the function makes at each call."""
        environment = self.recorder.environment
        if environment is None or environment.knows(leaf) or any(leaf is given for given in environment.given):
            return Constant(leaf)
        if isinstance(leaf, _COPIED):
            return Made(leaf)
        if hasattr(type(leaf), "__next__") or hasattr(type(leaf), "__await__"):
            raise refuse(f"a result of {type(leaf)}, which can be used once", "return a list or a tuple")
        if has_attributes(leaf) and not isinstance(leaf, enum.Enum | ModuleType) and not is_library(leaf):
            raise refuse(
                f"a result of {type(leaf)} that the function makes",
                "return tensors and numbers in lists, tuples, dictionaries, named tuples or dataclasses",
            )
        return Constant(leaf)

    def check_lent(self) -> None:
        """Refuse what would show that a custom function's result has memory of its own here, where eager execution
        gives it that of an operand."""
        for made, version, lender, before in self.recorder.lent:
            outside = lender.source is not None and not lender.constant
            both = id(made) in self.shown and (outside or id(lender) in self.shown)
            if both or made.version != version or lender.version != before:
                raise refuse(
                    "a custom function that gives its operand, or a view of it, which is changed in place or a result",
                    "return a copy from its forward",
                )

    def keep_checks(self) -> None:
        """Let operators that may fail for data run although nothing needs what they give: a bad index is an error."""
        live = set(self.graph.outputs)
        for node in reversed(self.graph.nodes):
            if any(r in live for r in node.results):
                read = node.operands()
                live.update(read[1:] if node.op.name in ("fill", "copy") else read)  # of the first, no element is read
            elif _may_raise(node) and all(r.type.device.type == "cpu" for r in node.results):
                self.output(node.results[0], "checked")
                live.update(node.operands())

    def groups(self, reached: Sequence[set[Value]]) -> tuple[list[int], set[int]]:
        """A number for each output's history: a backward pass frees what it saved, so that outputs which share a node
        that saved something share their fate, and others do not. Second, the numbers of those that saved something."""
        recorder = self.recorder
        found: list[int] = []
        first: dict[Any, int] = {}
        saving: list[int] = []
        for place, values in enumerate(reached):
            nodes = [s for s in recorder._evaluated(values) if s in recorder._saved or s in recorder.custom]
            found.append(place)
            if nodes:
                saving.append(place)
            for node in nodes:
                other = found[first.setdefault(node, place)]
                if other != found[place]:
                    low, high = sorted((other, found[place]))
                    found = [low if g == high else g for g in found]
        return found, {found[place] for place in saving}

    def watched(self, reached: Sequence[set[Value]]) -> dict[int, list[Watched]]:
        """What the tape would have saved, by output, of memory that is seen outside."""
        recorder = self.recorder
        found: list[dict[int, Watched]] = []
        for values in reached:
            mine: dict[int, Watched] = {}
            found.append(mine)
            for saver in recorder._evaluated(values):
                node = saver.node if isinstance(saver, Part) else saver
                for storage, _, tensor in recorder._saved.get(saver, ()):
                    of = self.shown.get(id(storage)) if storage.source is None else storage.source
                    if of is not None and not storage.constant and not isinstance(of, Constant):
                        what = f"[{type_of(tensor)}], which {recorder._name(node)} saved"
                        mine.setdefault(id(storage), Watched(of, what))
        return {place: list(mine.values()) for place, mine in enumerate(found) if mine}

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
        known = id(tensor) in recorder.captured or id(tensor) in recorder._known  # a .grad is another at each call
        if not isinstance(tensor._data, Traced) and not known:
            return Constant(tensor)
        kept = recorder.kept_views.get(id(tensor), tensor)
        if id(kept) in recorder.captured and kept._base is not None and not isinstance(kept._data, Traced):
            return Constant(kept)
        recorded = recorder.recorded(tensor)
        with recorder._gradients(False):
            recorder.value_of(recorded)
        data: Recorded = recorded._data
        storage: RecordedStorage = data.storage
        leaf = recorded._requires_grad and recorded._node is None
        if storage.source is not None and not storage.constant:
            if data.steps and recorder.is_hooked(data.value):
                raise refuse(
                    "register_hook() on a view of a tensor from outside, which is a result",
                    "register the hook on the result",
                )
            # A view made before its leaf base was told to require grad has no history either.
            assert storage.base is not None
            older = storage.base._requires_grad and storage.base._node is None and not recorded._requires_grad
            steps, modes = self.positioned(data.steps, (False,) * len(data.steps) if older else data.modes)
            is_leaf, is_stale = leaf and bool(steps), recorded._base is not None and stale(recorded)
            return Alias(storage.source, steps, modes, is_leaf, is_stale)
        flagged = recorded._base is not None and recorded.requires_grad  # by its base
        if data.steps and (sharing.get(id(storage), 0) > 1 or flagged):
            if recorder.is_hooked(data.value):
                raise refuse(
                    "register_hook() on a view of what is a result too, or of which another view is a result",
                    "register the hook on the result",
                )
            assert storage.base is not None
            base = self.bases.get(id(storage))
            if base is None:
                base = self.bases[id(storage)] = self.own_output(storage.base, name)
            return OutputView(
                base,
                *self.positioned(data.steps, data.modes),
                is_leaf=leaf,
                stale=recorded._base is not None and stale(recorded),
            )
        base = self.bases.get(id(storage)) if not data.steps else None
        if base is None:
            base = self.own_output(recorded, name)
            if not data.steps:
                self.bases[id(storage)] = base
        return base

    def positioned(self, steps: Steps, modes: tuple[bool, ...]) -> tuple[Steps, tuple[bool, ...]]:
        """A view's way from its base, and the steps' modes, with `x[i]` for a tensor `i` as what eager execution makes
        of it: select()."""
        found: list[tuple[Any, tuple[Any, ...]]] = []
        recorded: list[bool] = []
        for (op, attributes), mode in zip(steps, modes, strict=True):
            if op.name != "index":
                found.append((op, attributes))
                recorded.append(mode)
                continue
            for dim, at in reversed(list(enumerate(attributes[0]))):
                if at is not None:
                    found.append((lookup("select"), (dim, Position(self.output(at, "position")))))
                    recorded.append(mode)
        return tuple(found), tuple(recorded)

    def own_output(self, recorded: Tensor, name: str) -> Output:
        """A tensor as a graph output with memory of its own."""
        recorder = self.recorder
        with recorder._gradients(False):
            value = recorder.value_of(recorded)
        index = self.output(value, name)
        broken = error = ""
        leads: tuple[Source, ...] = ()
        leaf = recorded._requires_grad and recorded._node is None
        if recorded._requires_grad and recorded._node is not None:
            error = recorder.broken_history(value)
            if error:
                broken, leads = recorded._node.name(), self.leads(value)
            else:
                self.requires[index] = True
        layout = recorded._data.layout
        strides: tuple[int, ...] | None = None
        order: tuple[int, ...] | None = None
        within: Within | None = None
        if not layout.flags.c_contiguous or (1 in layout.shape and not by_rows(layout)):
            whole = recorded._data.storage.base
            sizes = (*recorded.shape, *(() if whole is None else whole.shape))
            if all(type(n) is int for n in sizes):
                strides = tuple(s // layout.itemsize for s in layout.strides)
            else:
                order, within = order_of(layout), within_of(recorded)
        return Output(index, recorded._requires_grad, leaf, False, broken, error, strides, order, within, leads)

    def leads(self, value: Value) -> tuple[Source, ...]:
        """The tensors from outside that the history of a value goes back to."""
        recorder = self.recorder
        reached = recorder._reached([value])
        owners = (recorder._owner(leaf) for end, leaf in recorder.leaves.items() if end in reached)
        return tuple({recorder._source_of(t): None for t in owners if not isinstance(t._data, Traced)})


class ResultBuilder:
    """Makes the Python results of one call from output arrays."""

    def __init__(self, captured: Captured) -> None:
        self.captured = captured
        self._dims = symbolic_dims(captured.graph.inputs)
        self._carriers = [(d.carrier, d.output) for d in captured.decisions if d.carrier >= 0]

    def set_carriers(self, found: list[Any], arrays: Sequence[Any]) -> None:
        """Put what says how long data-dependent sizes are in its places among a call's inputs."""
        for position, output in self._carriers:
            found[position] = Tensor._wrap(carrier(int(readable(arrays[output]))))

    def _bindings(self, leaves: Sequence[Any], arrays: Sequence[Any]) -> dict[str, int]:
        """The sizes of this call by symbol."""
        found = [None if isinstance(s, ComputedNumber) else s.fetch(leaves) for s in self.captured.sources]
        self.set_carriers(found, arrays)
        return bind(self._dims, found)

    def _steps(self, steps: Steps, leaves: Sequence[Any], arrays: Sequence[Any]) -> Steps:
        """A view's way from its base, in this call's sizes."""
        if not self._dims:
            return steps
        bindings = self._bindings(leaves, arrays)
        return tuple((op, concrete(attributes, bindings)) for op, attributes in steps)

    def strides(self, spec: Output, leaves: Sequence[Any], arrays: Sequence[Any]) -> tuple[int, ...] | None:
        """The strides of an output, in elements, in this call's sizes; None for row-major order or spec.order."""
        if spec.within is None:
            return spec.strides
        return spec.within.strides(self._bindings(leaves, arrays))

    def set_flags(self, leaves: Sequence[Any]) -> None:
        """Repeat the function's `requires_grad_()` on its inputs."""
        for source, flag in self.captured.flags:
            source.fetch(leaves).requires_grad_(flag)

    def build(
        self,
        arrays: Sequence[Any],
        leaves: Sequence[Any],
        history: Sequence[tuple[CompiledBackward, int]],
        numbers: Sequence[Any] = (),
    ) -> tuple[list[Any], list[tuple[Tensor, Any]]]:
        """The result leaves, and (leaf, new .grad) pairs. `history` has the grad_fn of each differentiable output, and
        the output's place in it; `numbers` are those that the call has computed in Python."""
        call = _Call(self, arrays, leaves, history, numbers)
        make = call.make
        changed = [(position, call.history_of(output)) for position, output in self.captured.histories]
        for position, (node, place) in changed:
            set_history(self.captured.sources[position].fetch(leaves), node, place)
        results = [make(spec) for spec in self.captured.results]
        for module, name, spec in self.captured.attributes:
            vars(module)[name] = make(spec)
        for node in {id(n): n for n, _ in history if n.made}.values():
            edges = list(node.edges)
            for place, spec in node.made:
                edges[place] = edge_of(make(spec))
            node.edges = tuple(edges)
        for number in self.captured.inference:
            results[number]._inference = True
        for place, entries in self.captured.watched.items():
            node, own = history[place]
            node.watch(own, [(_shown(call, leaves, w.of), w.what) for w in entries])
        grads = [(source.fetch(leaves), None if spec is None else make(spec)) for source, spec in self.captured.grads]
        grads += [(make(leaf), make(spec)) for leaf, spec in self.captured.own_grads]
        made = [make(change.spec) for change in self.captured.changes]
        for change, content in zip(self.captured.changes, made, strict=True):
            put(change.namespace, change.key, content)
            if change.slot is not None and isinstance(content, Tensor):
                change.slot.tensor = content
        return results, grads


class _Call:
    """The results of one call as they are made. No closure that refers to itself: reference counts alone must free the
    arrays, for large results hand their memory to the next call."""

    __slots__ = ("arrays", "bases", "builder", "history", "leaves", "memo", "numbers", "order")

    def __init__(
        self,
        builder: ResultBuilder,
        arrays: Sequence[Any],
        leaves: Sequence[Any],
        history: Sequence[tuple[CompiledBackward, int]],
        numbers: Sequence[Any],
    ) -> None:
        self.builder = builder
        self.numbers = numbers
        self.arrays = arrays
        self.leaves = leaves
        self.history = history
        self.bases: dict[int, Tensor] = {}
        self.memo: dict[int, Any] = {}
        self.order = {index: place for place, index in enumerate(builder.captured.differentiable)}

    def history_of(self, spec: Output) -> tuple[Node, int]:
        """The grad_fn of an output, and its place in it."""
        if not spec.error:
            return self.history[self.order[spec.index]]
        return BrokenNode(spec.broken, spec.error, [edge_of(s.fetch(self.leaves)) for s in spec.leads]), 0

    def _placed(self, steps: Steps) -> Steps:
        """A view's way with this call's positions."""
        return tuple(
            (op, tuple(self._number(a.index) if type(a) is Position else a for a in attributes))
            for op, attributes in steps
        )

    def _number(self, index: int) -> int:
        array = self.arrays[index]
        return int(array.host() if type(array) is DeviceArray else array)

    def view(self, base: Tensor, spec: Alias | OutputView) -> Tensor:
        """A view of a tensor, step by step in the grad modes of the capture."""
        made = base
        steps = self._placed(self.builder._steps(spec.steps, self.leaves, self.arrays))
        for step, mode in zip(steps, spec.modes, strict=True):
            with set_grad_enabled(mode):
                made = replay(made, (step,))
        if spec.is_leaf:
            made.requires_grad_()
        if spec.stale:
            if type(spec) is OutputView and not made._version:
                made._bump_version()  # the memory of an output is new
            made._node_version = min(-made._version, -1)  # that of the version before
        return made

    def make(self, spec: Any) -> Any:
        """The Python value that a description stands for."""
        if type(spec) is Constant:
            return spec.value
        if type(spec) is Made:
            return copy.deepcopy(spec.value)
        if type(spec) is Computed:
            return self.numbers[spec.index]
        if type(spec) is Size:
            return evaluate(spec.value, self.builder._bindings(self.leaves, self.arrays))
        if id(spec) in self.memo:
            return self.memo[id(spec)]
        if type(spec) is Alias:
            made = tensor = spec.source.fetch(self.leaves)
            if spec.steps:
                made = self.view(tensor, spec)
        elif type(spec) is OutputView:
            made = self.view(self.make(spec.base), spec)
        elif spec.number:
            made = self.arrays[spec.index]
            made = made.item() if hasattr(made, "item") else made
        else:
            made = self.bases.get(spec.index)
            if made is None:
                made = self.bases[spec.index] = Tensor._over(
                    laid_out(self.arrays[spec.index], self.builder.strides(spec, self.leaves, self.arrays), spec.order)
                )
                if spec.is_leaf:
                    made._requires_grad = True
                elif spec.requires_grad:
                    set_history(made, *self.history_of(spec))
        self.memo[id(spec)] = made
        return made


def _shown(call: _Call, leaves: Sequence[Any], of: Any) -> Tensor:
    """The tensor of this call that shows some memory."""
    found: Tensor = of.fetch(leaves) if isinstance(of, Source) else call.make(of)
    return found


def run_deferred(calls: Sequence[Callable[[], Any]]) -> None:
    """The end of a call. An error is the user's: nothing is to be run again."""
    for call in calls:
        try:
            call()
        except Exception as error:
            error._graphtorch_located = True  # type: ignore[attr-defined]
            raise


def set_history(tensor: Tensor, node: Node, index: int) -> None:
    """Let a tensor that was changed in place go back to output `index` of a call."""
    if tensor._base is not None:
        overlay(tensor, node, index)
        return
    tensor._node = node
    tensor._output_index = index
    tensor._requires_grad = True
