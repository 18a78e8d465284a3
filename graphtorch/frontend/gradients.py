"""Gradients during a capture: `.grad`, `backward()`, `autograd.grad`, hooks and custom functions.

A backward pass is one `gradient` node, which a pass expands later. Where Python code takes part in it (a hook, the
backward of a custom `autograd.Function`), it is expanded at once instead, so that the code runs on recorded cotangents.
"""

from __future__ import annotations

import contextlib
import functools
import operator
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graphtorch.autodiff.checkpointing import in_region
from graphtorch.autodiff.custom import CUSTOM
from graphtorch.autodiff.flow import differing, flows
from graphtorch.autodiff.gradient import GRADIENT
from graphtorch.autodiff.graft import GRAFT
from graphtorch.autodiff.reverse import append_gradients
from graphtorch.autograd import hooks as autograd_hooks
from graphtorch.autograd.engine import check_start
from graphtorch.autograd.function import FunctionContext
from graphtorch.autograd.graph import FREED, edge_of
from graphtorch.autograd.hooks import RemovableHandle, add
from graphtorch.autograd.rules import fit
from graphtorch.autograd.state import recorder_paused, state
from graphtorch.frontend.errors import TakeApart, refuse
from graphtorch.frontend.guards import GuardSet
from graphtorch.frontend.layouts import gradient_layouts
from graphtorch.frontend.parts import Part, Saved
from graphtorch.frontend.recorded import Recorded, RecordedNode, RecordedStorage
from graphtorch.frontend.sources import GradSource, Source, TensorSource, gradient_of
from graphtorch.ir.builder import GraphBuilder, Traced
from graphtorch.ir.graph import Graph, Location, Node, Value
from graphtorch.tensor.devices import CPU
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.tracked import operand_of
from graphtorch.tensor.type import type_of


class GradientRecorder(GraphBuilder):
    """The part of the recorder that knows about derivatives."""

    def __init__(self, name: str) -> None:
        super().__init__(Graph(name))
        self.guards = GuardSet()
        self.captured: dict[int, Tensor] = {}  # id of a concrete tensor -> the recorded tensor that stands for it
        self.leaves: dict[Value, Tensor] = {}  # values at which backward() accumulates
        self.tracked: set[Value] = set()  # values from which the graph's own edges lead to a leaf
        self.grads: dict[int, Tensor | None] = {}  # id of a leaf -> its .grad, once asked for or assigned
        self.assigned_grads: dict[int, Tensor] = {}  # id -> the leaf whose .grad was assigned
        self.value_hooks: dict[Value, dict[int, Callable[[Tensor], Tensor | None]]] = {}
        self.kept_views: dict[int, Tensor] = {}  # id of the recorded tensor of a view kept outside -> that view
        self.retained: set[Value] = set()  # what retain_grad() was asked of
        self.custom: dict[Node, CustomCall] = {}
        self.exact = False  # control flow may be taken apart where one graph would know less of gradients
        self.apart = False  # it is: `cond` is Python's `if`
        self._known: dict[int, Source] = {}  # id of a concrete tensor -> where to find it
        self.parts: dict[Value, Part] = {}  # the results of control-flow nodes
        self._saved: dict[Node | Part, list[Saved]] = {}
        self.layouts: dict[Value, np.ndarray[Any, Any]] = {}  # of values whose operators don't tell
        # Results of custom functions that show memory of operands: (storage, its version, that storage, its version).
        self.lent: list[tuple[RecordedStorage, int, RecordedStorage, int]] = []
        self._freed: set[Node | Part] = set()
        self._alive: list[Any] = []  # objects whose ids are keys above

    @abstractmethod
    def recorded(self, tensor: Tensor) -> Tensor:
        """The recorded tensor for any tensor."""

    @abstractmethod
    def _fresh(self, value: Value) -> Tensor:
        """A recorded tensor over memory of its own."""

    @abstractmethod
    def _expression(self, source: Source) -> str:
        """A guard expression for an input."""

    @abstractmethod
    def _requires_grad(self, tensor: Tensor) -> bool:
        """Whether what is made of a recorded tensor requires grad."""

    @abstractmethod
    def _tensor_name(self, tensor: Tensor) -> str:
        """What a tensor from outside is called."""

    @abstractmethod
    def keep_order(self, made: Tensor, like: Tensor, memory_format: str | None = None) -> None:
        """Note that eager execution makes a tensor in the memory order of another."""

    @abstractmethod
    def keep_contract(self, gradient: Tensor, leaf: Tensor) -> None:
        """Note that eager execution lays out a gradient as its leaf."""

    @abstractmethod
    def note_effect(self, does: str) -> None:
        """The user's code does something that a graph can't repeat: it runs eagerly."""

    @abstractmethod
    def _locate(self) -> Location:
        """The user's line."""

    def arrange(self, made: Tensor, layout: np.ndarray[Any, Any]) -> None:
        """Note the order in memory of what an operator makes, where its kind does not tell."""
        made._data._layout = self.layouts[made._data.value] = layout

    def get_grad(self, tensor: Tensor) -> Tensor | None:
        """`.grad` during the capture."""
        concrete = self._owner(tensor)
        if id(concrete) in self.grads:
            return self.grads[id(concrete)]
        if isinstance(concrete._data, Traced):
            return None
        found = concrete._grad
        source = self._source_of(concrete)
        expression = f"{self._expression(source)}.{gradient_of(source)}"
        concrete._grad = found  # never unset, where it is looked for directly
        if found is None:
            self.guards.add(f"{expression} is None", f"{source.name}.grad was None")
        else:
            self.guards.add(f"{expression} is not None", f"{source.name}.grad was a tensor")
            self._known[id(found)] = GradSource(source, f"{source.name}.grad")
        self.grads[id(concrete)] = found
        self._alive.append(found)
        return found

    def set_grad(self, tensor: Tensor, value: Tensor | None) -> None:
        """Assign `.grad`; it happens after each call."""
        concrete = self._owner(tensor)
        self.grads[id(concrete)] = value
        self.assigned_grads[id(concrete)] = concrete
        self._alive.append(concrete)

    def _owner(self, tensor: Tensor) -> Tensor:
        """The concrete tensor that a recorded one stands for; itself, if it was made inside the function."""
        kept = self.kept_views.get(id(tensor))
        if kept is not None:
            return kept
        data = tensor._data
        if isinstance(data, Recorded) and not data.steps and data.storage.concrete is not None:
            return data.storage.concrete
        return tensor

    def _source_of(self, concrete: Tensor) -> Source:
        """Where an input is found; asking for it says nothing about how the function reached it."""
        recorded = self.captured.get(id(concrete))
        if recorded is None:
            recorded = self.recorded(concrete)
        if id(recorded) in self.kept_views:
            return TensorSource(concrete, self._tensor_name(concrete), "state")  # its storage's is that of its base
        source: Source = recorded._data.storage.source
        return source

    def backward(
        self,
        roots: tuple[Tensor, ...],
        gradients: tuple[Tensor | None, ...],
        retain_graph: bool | None,
        create_graph: bool,
        inputs: tuple[Tensor, ...] | None,
    ) -> None:
        """Record a backward pass and the accumulation into the leaves."""
        keep = create_graph if retain_graph is None else retain_graph
        values, seeds = self._seeds(roots, gradients)
        if inputs is None:
            reached = self._reached(values)
            targets = [(v, t) for v, t in self.leaves.items() if v in reached]
        else:
            targets = [(v, t) for t in inputs for v in self._values_of(t)]
        found = self._gradient(values, seeds, [v for v, _ in targets], keep, create_graph, inputs is None)
        if inputs is not None:
            self._assume_apart_outside(values, inputs)
        for (_, leaf), gradient in zip(targets, found, strict=True):
            if gradient is None:
                continue
            owner = self._owner(leaf)
            if isinstance(leaf._node, RecordedNode) and owner is not leaf:
                raise refuse(
                    "backward() inside the compiled function reaches a tensor that was computed outside of it",
                    "compute it inside, or pass it detached",
                )
            self._assume_hooks(owner)
            for hook in tuple((owner._hooks or {}).values()):
                replaced = hook(gradient)
                gradient = gradient if replaced is None else replaced
            held = self.get_grad(leaf)
            if held is None:
                if not gradient._data.steps:
                    self.keep_contract(gradient, leaf)
                self.set_grad(leaf, gradient)
            elif create_graph:
                self.set_grad(leaf, held + gradient)
            else:
                with self._gradients(False):
                    held.add_(gradient)
            for after in tuple((owner._post_accumulate_hooks or {}).values()):
                after(owner)  # the very parameter: an optimizer may be found by it

    def _assume_hooks(self, leaf: Tensor) -> None:
        """Assume the hooks on a leaf's gradient."""
        if isinstance(leaf._data, Traced):
            return  # made inside
        source = self._source_of(leaf)
        for table in ("_hooks", "_post_accumulate_hooks"):
            self.assume_hook_table(f"{self._expression(source)}.{table}", getattr(leaf, table) or {}, source.name)

    def assume_hook_table(self, table: str, hooks: Mapping[Any, Any], name: str) -> None:
        """Assume the entries of a collection of hooks whose changes are noted."""
        latest = self.guards.snapshot(("hooks",), lambda: autograd_hooks.latest)
        self.guards.require(f"{self.guards.name(vars(autograd_hooks))}['latest'] is {latest}")
        self.guards.add(f"len({table} or ()) == {len(hooks)}", f"{name} had {len(hooks)} hooks", "")
        for key, hook in hooks.items():
            held = self.guards.name(hook)
            self.guards.add(f"{table}[{key!r}] is {held}", f"a hook of {name} was the same object", "")

    def grad(
        self,
        roots: tuple[Tensor, ...],
        inputs: tuple[Tensor, ...],
        gradients: tuple[Tensor | None, ...],
        keep: bool,
        create_graph: bool,
    ) -> list[Tensor | None]:
        """Record `autograd.grad`."""
        values, seeds = self._seeds(roots, gradients)
        targets = [self._values_of(t) for t in inputs]
        parts = iter(self._gradient(values, seeds, [v for each in targets for v in each], keep, create_graph))
        found: list[Tensor | None] = []
        for each in targets:
            given = [g for g in (next(parts) for _ in each) if g is not None]
            with self._gradients(create_graph):
                found.append(functools.reduce(operator.add, given) if given else None)
        layouts = functools.cache(lambda node: gradient_layouts(self, node, node.results))
        for gradient in found:
            value = None if gradient is None else gradient._data.value
            if gradient is None or value is None or value.node is None:
                continue
            if value.node.op is GRADIENT:
                place = value.node.results.index(value)
                gradient._data.find_layout = functools.partial(lambda n, i: layouts(n)[i], value.node, place)
            elif create_graph and not gradient._data.steps:
                found_by = functools.partial(gradient_layouts, self, value.node, [value])
                gradient._data.find_layout = functools.partial(lambda find: find()[0], found_by)
        self._assume_apart_outside(values, inputs)
        return [self._hooked(t, g) for t, g in zip(inputs, found, strict=True)]

    def _hooked(self, tensor: Tensor, gradient: Tensor | None) -> Tensor | None:
        """A gradient after the hooks that its tensor, from outside, has."""
        owner = self._owner(self.recorded(tensor))
        if isinstance(owner._data, Traced):
            return gradient
        if owner._node is not None:
            source = self._source_of(owner)
            if has_hooks(owner):
                raise refuse(f"{source.name} has a hook on its gradient", "register the hook inside")
            meaning = f"{source.name} had no hook on its gradient"
            self.guards.add(f"not {self.guards.name(has_hooks)}({self._expression(source)})", meaning)
            return gradient
        self._assume_hooks(owner)
        if gradient is None:
            return None
        for hook in tuple((owner._hooks or {}).values()):
            replaced = hook(gradient)
            gradient = gradient if replaced is None else replaced
        return gradient

    def _values_of(self, tensor: Tensor) -> list[Value]:
        """The values at which gradients for a tensor arrive: of a leaf that was changed under no_grad, all that it
        had."""
        recorded = self.recorded(tensor)
        value = self.value_of(recorded)
        if recorded._base is not None and not recorded._requires_grad:
            return []  # a view made under no_grad
        if recorded._node is not None:
            while value.node is not None and value.node.op is GRAFT:  # changed under no_grad, with the history it had
                value = value.node.args[0]
            return [value]
        return [value, *(v for v, leaf in self.leaves.items() if leaf is recorded and v is not value)]

    def _assume_apart_outside(self, roots: Sequence[Value], inputs: Sequence[Tensor]) -> None:
        """Assume that no gradient flows to one of the inputs through the history that another tensor has outside."""
        targets = [self._owner(self.recorded(t)) for t in inputs if self._is_outside(t)]
        for value in self._reached(roots) if targets else ():
            leaf = self.leaves.get(value)
            owner = None if leaf is None or not isinstance(leaf._node, RecordedNode) else self._owner(leaf)
            if owner is None or isinstance(owner._data, Traced):
                continue
            for target in targets:
                if target is owner or isinstance(target._data, Traced):
                    continue
                if comes_from(owner, target):
                    raise refuse(
                        "autograd.grad() inside the compiled function reaches a tensor that was computed outside of it",
                        "compute it inside, or pass it detached",
                    )
                names = [self._source_of(t) for t in (owner, target)]
                self.guards.add(
                    f"not {self.guards.name(comes_from)}({', '.join(map(self._expression, names))})",
                    f"{names[0].name} had not been computed from {names[1].name}",
                )

    def _is_outside(self, tensor: Tensor) -> bool:
        """Whether a tensor exists before the call."""
        data = self.recorded(tensor)._data
        return isinstance(data, Recorded) and data.storage.source is not None

    def _seeds(
        self, roots: tuple[Tensor, ...], gradients: tuple[Tensor | None, ...]
    ) -> tuple[list[Value], list[Value | None]]:
        values: list[Value] = []
        seeds: list[Value | None] = []
        for root, gradient in zip(roots, gradients, strict=True):
            recorded = self.recorded(root)
            self.value_of(recorded)
            check_start(recorded, gradient)
            values.append(self.value_of(recorded))
            seeds.append(None if gradient is None else self.value_of(gradient))
        return values, seeds

    def _gradient(
        self,
        outputs: list[Value],
        seeds: list[Value | None],
        targets: list[Value],
        keep: bool,
        create_graph: bool,
        everywhere: bool = False,
    ) -> list[Tensor | None]:
        """One `gradient` node for those targets that the outputs depend on. `everywhere`: the pass goes to the end of
        every way, even where no target is."""
        if state.anomaly:
            self.note_effect("looks for anomalies in a backward pass")
        reached = self._reached(outputs)
        if everywhere:
            nodes = self._evaluated(reached)
        else:
            nodes = self._between(reached, targets)
        error = self._broken(nodes)
        if error:
            raise RuntimeError(error)
        if not keep:
            self._freed.update(n for n in nodes if n in self._saved)
        used = [v for v in dict.fromkeys(targets) if v in reached]
        if not used:
            return [None] * len(targets)
        results: Sequence[Value | None]
        if create_graph or any(v in self.value_hooks or v.node in self.custom for v in reached):
            results = self._expanded(outputs, seeds, used, create_graph)
        else:
            results = self.graph.add(
                GRADIENT, (tuple(outputs), tuple(seeds), tuple(used), bool(create_graph)), self._locate()
            )
        by_value: dict[Value, Tensor] = {}
        for target, result in zip(used, results, strict=True):
            if result is None:
                continue
            tensor = self._fresh(result)
            if create_graph and result in self.tracked:
                tensor._requires_grad = True
                tensor._node = RecordedNode("GradientBackward0")
            by_value[target] = tensor
        return [by_value.get(t) for t in targets]

    def keep_for_backward(self, result: Tensor, tensors: Sequence[Tensor]) -> None:
        """Note that the tape's node of a result keeps these tensors, beside what its operators keep."""
        if not isinstance(result._data, Recorded) or not result.requires_grad:
            return
        node = self.saver(self.value_of(result))
        known = (self.captured.get(id(t), t) for t in tensors if t._device is CPU)
        held = (t for t in known if isinstance(t._data, Recorded))
        self._saved.setdefault(node, []).extend((t._data.storage, t._data.storage.version, t) for t in held)

    def saver(self, value: Value) -> Node | Part:
        """What the tape's node of a value would be: the graph's, or a part of it."""
        assert value.node is not None
        return self.parts.get(value, value.node)

    def _between(self, reached: set[Value], targets: Sequence[Value]) -> list[Node | Part]:
        """The tape's nodes that a backward pass to `targets` runs: those on a way to one."""
        active = set(targets)
        found: list[Node] = []
        for node in self.graph.nodes:
            if any(r in reached for r in node.results) and any(v in active for v in node.operands()):
                found.append(node)
                active.update(r for r in node.results if r in reached)
        kept = [n for n in found if not all(r in targets for r in n.results)]
        return list({self.saver(r): None for n in kept for r in n.results if r in reached or r not in self.parts})

    def broken_history(self, value: Value) -> str:
        """Why a later backward pass through a value must fail; empty if it needs not."""
        return self._broken(self._evaluated(self._reached([value])))

    def _evaluated(self, reached: set[Value]) -> list[Node | Part]:
        """The tape's nodes of some values, without those that only views made under no_grad lead to: these require
        grad, but no gradient flows to them, so that nothing is evaluated for it."""

        def flows(value: Value) -> bool:
            return any(v.node is None or v in self.leaves or v.node.op.name != "detach" for v in self.flows_from(value))

        found = (v for v in reached if v.node is not None and v not in self.leaves and flows(v))
        return list({self.saver(v): None for v in found})

    def _broken(self, nodes: Sequence[Node | Part]) -> str:
        for saver in nodes:
            node = saver.node if isinstance(saver, Part) else saver
            doubtful = saver.doubtful if isinstance(saver, Part) else []
            sure = not isinstance(saver, Part) or saver.saves
            if saver in self._freed and sure:
                return FREED
            if saver in self._freed or any(storage.version != v for storage, v, _ in doubtful):
                raise refuse(
                    "a backward pass that is an error in one of the branches of cond only",
                    "clone() what both need before it is changed",
                )
            for storage, version, tensor in self._saved.get(saver, ()):
                if storage.version != version:
                    if not storage.counted or (isinstance(tensor._data, Recorded) and tensor._data.quiet):
                        raise refuse(
                            "a backward pass that reads memory which was saved through .data and changed since",
                            "clone() it before it is changed",
                        )
                    if in_region(node):  # eager execution saves nothing there, and reads what it finds later
                        raise refuse(
                            "a change in place of what a checkpointed function reads",
                            "clone() it before it is changed",
                        )
                    return (
                        "one of the variables needed for gradient computation has been modified by an inplace "
                        f"operation: [{type_of(tensor)}], which {self._name(node)} at {node.location} saved, is at "
                        f"version {storage.version}; expected version {version} instead."
                    )
        return ""

    def _name(self, node: Node) -> str:
        custom = self.custom.get(node)
        return node.op.name if custom is None else str(custom.function.__name__)

    def _expanded(
        self, outputs: list[Value], seeds: list[Value | None], targets: list[Value], create_graph: bool
    ) -> Sequence[Value | None]:
        """The gradients as operators at once: hooks see the cotangents they are for, and whether a gradient has a
        derivative in turn is known."""

        def call_hooks(value: Value, cotangent: Tensor) -> Tensor:
            for hook in tuple(self.value_hooks.get(value, {}).values()):
                replaced = hook(cotangent)
                cotangent = cotangent if replaced is None else replaced
            return cotangent

        active, state.autocast = state.autocast, None  # as the eager engine does
        start = len(self.graph.nodes)
        try:
            with self._gradients(create_graph):
                found = append_gradients(self.graph, outputs, seeds, targets, self, call_hooks, self.custom)
        finally:
            state.autocast = active
        if self.exact and any(n.op.name == "cond" and differing(n, self.tracked) for n in self.graph.nodes[start:]):
            raise TakeApart
        return found

    def _reached(self, outputs: Sequence[Value]) -> set[Value]:
        """The values that the outputs depend on along differentiable operands, down to the leaves."""
        seen: set[Value] = set()
        stack = [v for v in outputs if v in self.tracked]
        while stack:
            value = stack.pop()
            if value in seen:
                continue
            seen.add(value)
            node = value.node
            if node is not None and value not in self.leaves:
                stack.extend(self.flows_from(value))
        return seen

    def flows_from(self, value: Value) -> list[Value]:
        """The operands of a value's node that its gradient flows to."""
        node, part = value.node, self.parts.get(value)
        assert node is not None
        if part is not None:
            operands: Sequence[Any] = part.operands
        elif node.op is GRADIENT:
            operands = list(node.operands())
        elif node.op is CUSTOM:
            operands = node.args[1]
        else:
            operands = flows(node)[node.results.index(value)]
        return [v for v in operands if type(v) is Value and v in self.tracked]

    def register_hook(self, tensor: Tensor, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
        """A hook on a recorded tensor's gradient."""
        recorded = self.recorded(tensor)
        data = recorded._data
        if id(recorded) in self.kept_views or (isinstance(data, Recorded) and self._is_state(data)):
            raise refuse(
                "register_hook() on a tensor from outside of the compiled function, which would get one more hook at "
                "each call",
                "register the hook outside",
            )
        return add(self.value_hooks.setdefault(self.value_of(tensor), {}), hook)

    def is_hooked(self, view: Value) -> bool:
        """Whether a hook was registered on a view, or on one that it was made of."""
        while view not in self.value_hooks:
            if view.node is None or not view.node.op.is_view:
                return False
            view = view.node.operands()[0]
        return True

    def note_retained(self, tensor: Tensor) -> None:
        """Remember a call of `retain_grad()`."""
        self.retained.add(self.value_of(tensor))

    @staticmethod
    def _is_state(data: Recorded) -> bool:
        """Whether this is a tensor from outside: an argument, or one that the function reached by itself."""
        return not data.steps and data.storage.source is not None and not data.storage.constant

    def apply_function(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record a custom autograd.Function: its forward's operators, and behind them a node that stands for its
        backward."""
        args = tuple(map(operand_of, args))  # a backward pass outside finds these, and no numbers of Python
        inputs = [self.recorded(a) for a in args if isinstance(a, Tensor)]
        context = FunctionContext()
        context.needs_input_grad = tuple(isinstance(a, Tensor) and self._requires_grad(self.recorded(a)) for a in args)
        with self._gradients(False):
            returned = function.run_forward(context, args, kwargs)
        if not (state.grad_enabled and any(context.needs_input_grad)):
            return returned
        if context._dirty:
            raise refuse(
                f"the custom function {function.__name__} changes an input in place (mark_dirty)",
                "return a new tensor, or call it outside the compiled function",
            )
        outputs = returned if isinstance(returned, tuple) else (returned,)
        made = [o for o in outputs if isinstance(o, Tensor)]
        results = self.graph.add(
            CUSTOM, (tuple(self.value_of(t) for t in made), tuple(self.value_of(t) for t in inputs)), self._locate()
        )
        node = results[0].node
        assert node is not None
        given = {id(t._data.storage): t._data.storage for t in inputs if isinstance(t._data, Recorded)}
        replaced: dict[int, Tensor] = {}
        for before, value in zip(made, results, strict=True):
            after = replaced[id(before)] = self._fresh(value)
            lender = given.get(id(before._data.storage))
            if lender is not None:
                own = after._data.storage
                self.lent.append((own, own.version, lender, lender.version))
            self.arrange(after, before._data.layout)
            frozen = any(before is t for t in context._non_differentiable)
            if after._dtype.is_differentiable and not frozen:
                self.tracked.add(value)
                after._requires_grad = True
                after._node = RecordedNode(f"{function.__name__}Backward")
        # What was saved of the results is the results as the outside has them: they have a history.
        context.to_save = tuple(replaced.get(id(t), t) for t in context.to_save)
        kept = [self.recorded(t) for t in context.to_save if isinstance(t, Tensor) and not t.is_number]
        if kept:
            self._saved[node] = [(t._data.storage, t._data.storage.version, t) for t in kept]
        flags = [replaced[id(t)]._requires_grad for t in made]
        self.custom[node] = CustomCall(function, context, args, [type_of(t) for t in made], flags)
        self._alive.append(made)
        finals = tuple(replaced.get(id(o), o) for o in outputs)
        return finals if isinstance(returned, tuple) else finals[0]

    @contextlib.contextmanager
    def _gradients(self, enabled: bool) -> Iterator[None]:
        previous = state.grad_enabled
        state.grad_enabled = enabled
        try:
            yield
        finally:
            state.grad_enabled = previous


def has_hooks(tensor: Tensor) -> bool:
    """Whether a hook on the gradient of a tensor that has a history was registered."""
    node = tensor._node
    return node is not None and bool(node.tensor_hooks and node.tensor_hooks.get(tensor._output_index))


def comes_from(tensor: Tensor, other: Tensor) -> bool:
    """Whether the history of a tensor leads to another one."""
    with recorder_paused():
        wanted, start = edge_of(other), edge_of(tensor)
    pending, seen = [start], {start}
    while pending:
        edge = pending.pop()
        if edge is None:
            continue
        if edge == wanted:
            return True
        for after in edge.node.edges:
            if after not in seen:
                seen.add(after)
                pending.append(after)
    return False


class CustomCall:
    """A recorded call of a custom function. Calling it is the backward, as a rule for the differentiator: cotangents of
    results to those of tensor arguments. `flags`: which results carry a gradient."""

    def __init__(
        self, function: Any, context: FunctionContext, args: tuple[Any, ...], results: list[Any], flags: list[bool]
    ) -> None:
        self.function = function
        self.context = context
        self.args = args
        self.results = results
        self.flags = flags
        self._types = [type_of(a) if isinstance(a, Tensor) else None for a in args]

    def __call__(self, cotangents: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        function, context, args = self.function, self.context, self.args
        given: list[Any] = list(cotangents)
        if context._materialize:
            from graphtorch.ops import FUNCTIONS

            given = [
                FUNCTIONS["zeros"](tuple(t.shape), dtype=t.dtype, device=t.device) if g is None else g
                for g, t in zip(given, self.results, strict=True)
            ]
        returned = function.backward(context, *given)
        values = list(returned) if isinstance(returned, tuple) else [returned]
        while len(values) > len(args) and values[-1] is None:
            values.pop()
        if len(values) != len(args):
            raise RuntimeError(
                f"function {function.__name__}Backward returned an incorrect number of gradients (expected "
                f"{len(args)}, "
                f"got {len(values)})"
            )
        return [
            None if value is None or of is None else fit(value, of)
            for value, of, arg in zip(values, self._types, args, strict=True)
            if isinstance(arg, Tensor)
        ]
