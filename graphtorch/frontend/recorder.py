"""The recorder of `@compile`: runs the user's function once and writes down one graph.

Every operator call appends a node. Concrete tensors that the function touches become inputs; in-place changes become
new values, written back after each call; `backward()` becomes a `gradient` node. Nothing concrete is read or changed
while recording, so that a failed capture leaves no trace."""

from __future__ import annotations

import linecache
import weakref
from itertools import islice
from typing import Any

import numpy as np

from graphtorch.autodiff.control_flow import COND, SCAN
from graphtorch.autodiff.flow import flows
from graphtorch.autodiff.graft import GRAFT
from graphtorch.autograd.rules import saved_names
from graphtorch.autograd.state import recorder_paused, state
from graphtorch.autograd.views import of_no_grad, scatter, stale
from graphtorch.frontend.decisions import Decisions
from graphtorch.frontend.effects import effect
from graphtorch.frontend.errors import CaptureError, refuse
from graphtorch.frontend.guards import GuardSet
from graphtorch.frontend.layouts import hints, is_stated, pointwise_layout, stated_layout
from graphtorch.frontend.memory import assume_apart, reaches_around
from graphtorch.frontend.recorded import Recorded, RecordedNode, RecordedStorage, Steps
from graphtorch.frontend.sizes import WINDOWS, with_numbers
from graphtorch.frontend.sources import (
    ArgumentSource,
    GradSource,
    SizeSource,
    SlotSource,
    Source,
    TensorSource,
    carrier,
    gradient_of,
)
from graphtorch.frontend.state_recorder import StateRecorder
from graphtorch.ir.builder import Traced, hint, wrap
from graphtorch.ir.graph import Location, Node, Value
from graphtorch.ops.dispatch import _check_devices, _check_result, call, tensors_of, user_frame
from graphtorch.ops.record import POINTWISE, Operator, lookup
from graphtorch.ops.strides import gradient_strides, layout_of, strides_in
from graphtorch.tensor import dtypes
from graphtorch.tensor.symint import SymInt, UndecidedError
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.tracked import plain
from graphtorch.tensor.type import TensorType, type_of

PARTIAL = (COND, SCAN)  # whose results do not all depend on all operands
_FIELDS = frozenset(Tensor.__annotations__)  # of a tensor; further attributes are the users'


class Recorder(StateRecorder):
    """Captures one run of a function. Use: `argument(...)` for each tensor argument, run the function inside `with
    recorder:`, then `frontend.program` reads the graph, the mutated storages and the gradients off it."""

    autocasts = True

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.storages: list[RecordedStorage] = []  # of captured tensors
        self.optimizers: list[Any] = []
        self._detached: dict[tuple[Value, bool], Value] = {}
        self.gave_numbers = False  # whether the user's code has numbers that are tensors here
        self.default_dtype = dtypes.get_default_dtype()
        self._names_taken: set[str] = set()  # by the first so many sources
        self._names_seen = 0
        self._attributes: list[tuple[Any, Tensor, Tensor, dict[str, Any]]] = []  # (source, tensor, recorded, its own)
        self._states_named: dict[int, int] = {}  # id of an optimizer -> how many of its states have names
        self.decisions: Decisions | None = None  # None: Python may not ask for data
        self.refused: CaptureError | None = None  # what the function does that no graph can hold
        self.region = 0  # how many control-flow regions are being recorded, one in another
        self.hoisted: dict[Node, int] = {}  # nodes that belong to fewer regions than were being recorded

    # -- inputs ------------------------------------------------------------------------------------------------------

    def argument(self, tensor: Tensor, index: int, name: str, shape: tuple[Any, ...]) -> Tensor:
        """The recorded tensor that the function receives for an argument. `shape` may name symbolic sizes."""
        known = self.captured.get(id(tensor))
        if known is not None:
            return known
        made = self._add_input(tensor, ArgumentSource(index, name), TensorType(tensor.dtype, shape, tensor.device))
        if type(tensor) is not Tensor:
            made.__class__ = type(tensor)
        vars(made).update(own_attributes(tensor))
        return made

    def capture(self, tensor: Tensor) -> Tensor:
        """The recorded tensor for a concrete one that the function reached by itself."""
        known = self.captured.get(id(tensor))
        if known is not None:
            source = known._data.storage.source
            if isinstance(source, ArgumentSource) and known is not tensor:
                self.check_slot(id(tensor) not in self.slots)
                if not _static(known.shape):
                    raise UndecidedError(
                        f"the sizes of {source.name}, which the function also reaches by itself, are fixed"
                    )
                self.guards.same_object(
                    self._expression(source), tensor, f"{source.name} was what the function also reached by itself"
                )
            return known
        if isinstance(tensor._data, Traced):
            raise refuse(
                "a tensor recorded by another, finished capture is used here",
                "return it from the compiled function that made it, instead of keeping it in an object",
                final=True,
            )
        source = self._known.get(id(tensor)) or self._slot_of(tensor)
        if source is None:
            base = tensor._base
            if base is not None and tensor._storage is not base._storage:
                base = None  # one of them was given other memory by `.data =`
            if base is not None and not (tensor._requires_grad and tensor._node is None):
                # A view kept outside: capture the memory that it views, so that writes through either are seen by both.
                self.check_slot(id(base) not in self.slots)
                viewed = self.capture(base)
                names = self.guards.name(tensor), self.guards.name(base)
                same = f"{names[0]}._storage is {names[1]}._storage"
                self.guards.add(same, "a view kept outside showed the memory of its base")
                with recorder_paused():
                    flag = tensor.requires_grad
                made_under = tensor._node_version >= 0
                if not made_under and flag and (tensor._node is not None or stale(tensor)):
                    raise refuse(
                        "a view kept outside was made of one made under no_grad",
                        "make the views inside the compiled function",
                    )
                with self._gradients(made_under and flag):
                    for op, attributes in tensor._steps:
                        viewed = self.call(op, (viewed, *attributes))
                        self._hoist(viewed._data.value, viewed._data.storage)
                self.guards.add(f"{names[0]}.requires_grad is {flag}", f"a view kept outside had requires_grad {flag}")
                if made_under:
                    viewed._data.untracked, viewed._data.modes = False, (True,) * len(viewed._data.modes)
                    viewed._base, viewed._node_version = None, 0
                else:
                    viewed._node_version = -1  # before anything that the function has done to its base
                if viewed.requires_grad is not flag:
                    raise refuse(
                        "a view kept outside requires grad otherwise than the tensor that it views",
                        "make the view inside the compiled function",
                    )
                if viewed._data.storage.version:
                    viewed._data.version = -1  # to be read again: what was done to its base shows in it
                self.captured[id(tensor)] = self.captured[id(viewed)] = viewed
                self.kept_views[id(viewed)] = tensor
                self._alive.append(tensor)
                self._alive.append(viewed)
                return viewed
            kind = "parameter" if type(tensor).__name__ == "Parameter" else "state"
            source = TensorSource(tensor, self._tensor_name(tensor), kind)
        expression = self._expression(source)
        self._guard_tensor(expression, tensor, source.name)
        return self._add_input(tensor, source, type_of(tensor))

    def stand_in(self, tensor: Tensor) -> Tensor:
        known = self.captured.get(id(tensor))
        if isinstance(tensor._data, Recorded):
            if tensor._data.version != tensor._data.storage.version:
                self.value_of(tensor)  # what was done to the base shows in the view
            return tensor
        if known is None and tensor._base is not None and id(tensor._base) in self.captured:
            known = self.capture(tensor)  # what was done to the base shows in the view
            self.value_of(known)
        return tensor if known is None else known

    def constant(self, tensor: Tensor) -> Tensor:
        """A tensor that the function makes from Python data: an input that no call changes."""
        recorded = self._add_input(
            tensor, TensorSource(tensor, f"constant{len(self.sources)}", "constant"), type_of(tensor)
        )
        recorded._data.storage.constant = True
        return recorded

    def _add_input(self, tensor: Tensor, source: Source, of: TensorType) -> Tensor:
        value = self.graph.add_input(of, source.name, source.kind)
        self.sources.append(source)
        storage = RecordedStorage(value, source, tensor)
        recorded = self._tensor(Recorded(value, self, storage, (), tensor._layout() if _static(of.shape) else None))
        storage.base = recorded
        recorded._inference = tensor._inference
        self.storages.append(storage)
        with recorder_paused():
            flag, node = tensor.requires_grad, tensor.grad_fn
        if flag:
            recorded._requires_grad = True
            if node is not None:
                recorded._node = RecordedNode(node.name())
            self._make_leaf(recorded, value)
        self.captured[id(tensor)] = recorded
        self.captured[id(recorded)] = recorded
        self._alive.append(tensor)
        self._alive.append(recorded)
        self._attributes.append((source, tensor, recorded, own_attributes(tensor)))
        return recorded

    def attributes_set(self) -> list[str]:
        """The attributes that the function gave tensors from outside, which a graph can't; they are taken away."""
        found: list[str] = []
        for source, tensor, recorded, before in self._attributes:
            for holder in (tensor, recorded) if isinstance(source, ArgumentSource) else (tensor,):
                after = own_attributes(holder)
                if after.keys() != before.keys() or any(after[n] is not v for n, v in before.items()):
                    found += [f"{source.name}.{n}" for n, v in after.items() if before.get(n, after) is not v]
                    found += [f"{source.name}.{n}" for n in before if n not in after]
                    for name in after:
                        del vars(holder)[name]
                    vars(holder).update(before)
        return found

    def _tensor_name(self, tensor: Tensor) -> str:
        name = self.module_names.get(id(tensor))
        if name is None:
            self._name_optimizer_state()
            name = self.module_names.get(id(tensor))
        if name is None:
            name = f"{'parameter' if type(tensor).__name__ == 'Parameter' else 'tensor'}{len(self.sources)}"
        for source in self.sources[self._names_seen :]:
            self._names_taken.add(source.name)
        self._names_seen = len(self.sources)
        unique, count = name, 1
        while unique in self._names_taken:
            unique, count = f"{name}_{count}", count + 1
        return unique

    def _name_optimizer_state(self) -> None:
        """Name state tensors after their parameters: `fc1.weight.exp_avg`."""
        for optimizer in self.optimizers:
            known = self._states_named.get(id(optimizer), 0)
            self._states_named[id(optimizer)] = len(optimizer.state)
            # A state is made once: those that were there before have names, but the last may have grown since.
            for parameter, own in islice(optimizer.state.items(), max(known - 1, 0), None):
                owner = self.module_names.get(id(parameter), "parameter")
                for key, value in own.items():
                    if isinstance(value, Tensor):
                        self.module_names.setdefault(id(value), f"{owner}.{key}")

    def _expression(self, source: Source) -> str:
        """A guard expression for an input."""
        if isinstance(source, ArgumentSource):
            return f"leaves[{source.index}]"
        if isinstance(source, GradSource):
            return f"{self._expression(source.owner)}.{gradient_of(source.owner)}"
        if isinstance(source, SlotSource):
            return f"{self.guards.name(source.slot)}.tensor"
        assert isinstance(source, TensorSource)
        return self.guards.name(source.tensor)

    def assume_apart(self, guards: GuardSet) -> None:
        """Assume that inputs share no memory with what is changed. Raises CaptureError if they do."""
        found = [(s.source, s.concrete, s.mutated) for s in self.storages if s.source and s.concrete is not None]
        assume_apart(guards, found)

    def start_of(self, storage: RecordedStorage) -> int:
        """Where in its memory a base begins, in elements: assumed of one from outside."""
        if storage.concrete is None or storage.source is None or storage.constant:
            return 0
        start, name = storage.concrete.storage_offset(), storage.source.name
        self.guards.add(f"{self._expression(storage.source)}.storage_offset() == {start}", f"{name} began at {start}")
        return int(start)

    def check_reach(self, base: Tensor, size: tuple[Any, ...], stride: tuple[Any, ...], offset: Any) -> None:
        """Leave it to eager execution if `as_strided` reaches memory around a tensor from outside."""
        outside = isinstance(base._data, Recorded) and base._data.storage.concrete is not None
        if outside and 0 not in size and reaches_around(base, size, stride, offset):
            self.note_effect("reads memory around a tensor with as_strided()")

    # -- values ------------------------------------------------------------------------------------------------------

    def _tensor(self, data: Recorded) -> Tensor:
        tensor = wrap(data.value)
        tensor._data = data
        tensor._storage = data.storage
        return tensor

    def keep_order(self, made: Tensor, like: Tensor, memory_format: str | None = None) -> None:
        """Note that eager execution makes a tensor in the memory order of another (`zeros_like`), or in a format."""
        if isinstance(made._data, Recorded):
            layout = like._data.layout if isinstance(like._data, Traced) else like._layout()
            shape = tuple(hint(size) for size in made._data.shape)
            self._arrange(made, shape, strides_in(memory_format, shape, layout_of(layout)))

    def keep_contract(self, gradient: Tensor, leaf: Tensor) -> None:
        """Note that eager execution lays out a gradient as its leaf."""
        shape, strides = layout_of(leaf._layout())
        self._arrange(gradient, shape, gradient_strides(shape, strides))

    def _arrange(self, made: Tensor, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        element = np.empty(1, made._dtype.numpy)
        self.arrange(made, np.lib.stride_tricks.as_strided(element, shape, [s * element.itemsize for s in strides]))

    def _fresh(self, value: Value) -> Tensor:
        """A recorded tensor over memory of its own."""
        storage = RecordedStorage(value)
        storage.region = self.region
        tensor = self._tensor(Recorded(value, self, storage))
        storage.base = tensor
        if state.inference:
            tensor._inference = True
        return tensor

    def recorded(self, tensor: Tensor) -> Tensor:
        """The recorded tensor for any tensor."""
        data = tensor._data
        if isinstance(data, Recorded):
            if data.recorder is not self:
                raise refuse(
                    "a tensor recorded by another capture is used here",
                    "return it from the compiled function that made it, instead of keeping it in an object",
                    final=True,
                )
            return tensor
        if isinstance(data, Traced):
            return tensor
        return self.capture(tensor)

    def value_of(self, tensor: Tensor) -> Value:
        """The value a tensor has now; a view of changed memory is read again."""
        tensor = self.recorded(tensor)
        data = tensor._data
        if not isinstance(data, Recorded):
            value: Value = data.value  # a formula's operand: just its value
            return value
        if data.apart:  # one memory would have two histories
            self.note_effect("uses detached memory that it changed in place with something that requires grad")
        if data.version != data.storage.version:
            value = data.storage.value
            for op, attributes in data.steps:
                (value,) = self._append(op, (value, *attributes))
                self._hoist(value, data.storage)
            data.value = value
            data.version = data.storage.version
            base = data.storage.base
            own_leaf = tensor._requires_grad and tensor._node is None  # a view that was made a leaf of its own
            if base is not None and base is not tensor and not (data.detached or data.untracked or own_leaf):
                tensor._requires_grad = base._requires_grad
                tensor._node = RecordedNode("AsStridedBackward0") if base._requires_grad else None
        value = data.value
        if tensor._requires_grad and tensor._node is None and value not in self.leaves:
            value = self._make_leaf(tensor, value)
        elif not tensor._requires_grad and state.grad_enabled and value in self.tracked:
            # Outside autograd by the user's word (no_grad, detach): make it explicit in the graph.
            flagged = tensor._base is not None and tensor._base._requires_grad  # a view made under no_grad
            cut = self._detached.get((value, flagged))
            if cut is None:
                (cut,) = self._append(lookup("detach"), (value,))
                self._hoist(cut, data.storage)
                self._detached[value, flagged] = cut
                if flagged and value.type.dtype.is_differentiable:
                    self.tracked.add(cut)  # what is made of it requires grad, though no gradient flows further
            return cut
        return value

    def _hoist(self, value: Value, storage: RecordedStorage) -> None:
        """Let what reads memory from outside of a control-flow region be made outside."""
        if storage.region < self.region and value.node is not None:
            self.hoisted[value.node] = storage.region

    def becomes_leaf(self, tensor: Tensor) -> None:
        """`requires_grad_()`: what that means for views which were made before depends on what happens to them."""
        data = tensor._data
        if not isinstance(data, Recorded) or data.steps or tensor._requires_grad:
            return
        views = (view for ref in data.storage.views if (view := ref()) is not None)
        if any(not view._data.detached for view in views):
            raise refuse(
                "requires_grad_() of a tensor of which there are views already", "call it before the views are made"
            )

    def _make_leaf(self, tensor: Tensor, value: Value) -> Value:
        """Let backward() accumulate at a value."""
        if value in self.tracked:
            (value,) = self._append(lookup("detach"), (value,))
            data: Recorded = tensor._data
            data.value = value
            if not data.steps:
                data.storage.value = value
        self.leaves[value] = tensor
        self.tracked.add(value)
        return value

    def _append(self, op: Operator, args: tuple[Any, ...]) -> tuple[Value, ...]:
        results = self.graph.add(op, args, self._locate(), self.origin)
        if op.derivative:
            node = self.graph.nodes[-1]
            if any(v in self.tracked for v in node.operands()):
                for result, operands in zip(results, flows(node), strict=True):
                    if any(v in self.tracked for v in operands):
                        self.tracked.add(result)
        return results

    def _locate(self) -> Location:
        frame = user_frame()
        file, line = frame.f_code.co_filename, frame.f_lineno
        return Location(file, line, linecache.getline(file, line).strip(), self.modules[-1] if self.modules else "")

    # -- operators ---------------------------------------------------------------------------------------------------

    def call(self, op: Operator, args: tuple[Any, ...]) -> Any:
        """Record an operator call; views share the storage of their first operand."""
        args = tuple(self._concrete_args(a) for a in args)
        if op.name in WINDOWS and args[0]._device.type == "cuda":
            args = with_numbers(op, args)
        if dtypes.get_default_dtype() is not self.default_dtype:
            args = self._without_default(op, args)
        if op.kind == POINTWISE and not tensors_of(args):
            return self._of_numbers(op, args)
        self._check_same_device(args)
        values = self.lower(args)
        wanted = self._differentiated(op, args) if state.grad_enabled and op.derivative else ()
        results = self._append(op, values)
        node = results[0].node
        assert node is not None
        if (op.is_view or _selects(op, args)) and isinstance(args[0]._data, Recorded):
            source = args[0]._data
            if op.is_view:
                layout = op.numpy(source.layout, *[hints(a) for a in args[1:]])
            else:
                layout = source.layout[(*(slice(None) if i is None else 0 for i in args[1]), ...)]  # a view, no element
            data = Recorded(results[0], self, source.storage, (*source.steps, (op, values[1:])), layout)
            data.version = source.storage.version
            data.untracked = source.untracked or not state.grad_enabled
            data.modes = (*source.modes, state.grad_enabled)
            data.quiet = source.quiet
            tensors: tuple[Tensor, ...] = (self._tensor(data),)
            source.storage.views.append(weakref.ref(tensors[0]))
            tensors[0]._inference = args[0]._inference
            if data.untracked and not data.detached:  # its flag is its base's, but no gradient flows to it
                tensors[0]._base, tensors[0]._node_version = source.storage.base, -1 - source.storage.version
        else:
            tensors = tuple(self._fresh(r) for r in results)
            if op.kind == POINTWISE:
                tensors[0]._data._layout = pointwise_layout(op, args, results[0])
            for name, made, value in zip(op.results, tensors, results, strict=False):
                if is_stated(op, name):
                    self.arrange(made, stated_layout(op, args, name, value))
                    if _overlaps(made._data.layout):  # what eager execution writes last is what it shows
                        self.note_effect("copies a tensor whose elements share memory, with its strides,")
        for tensor, value in zip(tensors, results, strict=True):
            if wanted and tensor._dtype.is_differentiable and (op not in PARTIAL or value in self.tracked):
                tensor._requires_grad = True
                tensor._node = RecordedNode(op.grad_name)
        if wanted and not _selects(op, args):  # eager execution reads the positions and saves nothing
            self._save(node, op, args, tensors, wanted)
        if len(tensors) == 1:
            return tensors[0]
        return op.result_class(*tensors) if op.result_class is not None else tensors

    def _of_numbers(self, op: Operator, args: tuple[Any, ...]) -> Tensor:
        """`torch.add(3, 1)`: the same at every call."""
        if any(type(a) is SymInt for a in args):
            raise UndecidedError(f"{op.name}() of a size is a tensor")
        with recorder_paused():
            made = call(op, args)
        return self.constant(made)

    def _without_default(self, op: Operator, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Make explicit what a call takes from a default dtype that the function set for a while: the graph is compiled
        under another one."""
        of = dtypes.get_default_dtype()
        values = self.lower(args)
        here = op.infer(values)
        dtypes.set_default_dtype(self.default_dtype)
        try:
            later = op.infer(values)
        finally:
            dtypes.set_default_dtype(of)
        if here == later:
            return args
        return tuple(a.to(of) if isinstance(a, Tensor) and a.dtype.category <= dtypes.INTEGRAL else a for a in args)

    def _concrete_args(self, arg: Any) -> Any:
        if isinstance(arg, Tensor):
            return self.recorded(arg)
        if type(arg) is tuple:
            return tuple(map(self._concrete_args, arg))
        return plain(arg)

    def _check_same_device(self, args: tuple[Any, ...]) -> None:
        if len({t._device for t in tensors_of(args)}) > 1:
            _check_devices(args)

    def _differentiated(self, op: Operator, args: tuple[Any, ...]) -> tuple[str, ...]:
        names: list[str] = []
        for parameter, arg in zip(op.parameters, args, strict=True):
            if parameter.name in op.derivative:
                tensors = arg if type(arg) is tuple else (arg,)
                if any(isinstance(t, Tensor) and self._requires_grad(t) for t in tensors):
                    names.append(parameter.name)
        return tuple(names)

    def _requires_grad(self, tensor: Tensor) -> bool:
        value = self.value_of(tensor)  # brings a stale view up to date
        if not isinstance(tensor._data, Recorded):
            return value in self.tracked
        if tensor._base is not None and tensor.requires_grad:
            _ = tensor.grad_fn  # raises for a view made under no_grad whose base has been changed
            return True
        return tensor._requires_grad

    def _save(
        self,
        node: Node,
        op: Operator,
        args: tuple[Any, ...],
        results: tuple[Tensor, ...],
        wanted: tuple[str, ...],
        inplace: bool = False,
    ) -> None:
        """Remember the versions of what the tape would save, to raise the error that eager execution raises."""
        saved: list[tuple[RecordedStorage, int, Tensor]] = []
        copied = False
        # Views made under no_grad require grad, but no gradient flows to them, for which something would be read.
        pairs = zip(op.parameters, args, strict=True)
        still = {p.name for p, a in pairs if isinstance(a, Tensor) and self.recorded(a)._base is not None}
        for name in saved_names(op, tuple(n for n in wanted if n not in still)):
            if inplace and name == op.parameters[0].name:
                copied = True  # the tape copies what an in-place call overwrites
                continue
            if name in op.results:
                # An in-place call's result is its target, at the version that the call gives it.
                held: Any = None if inplace else results[op.results.index(name)]
            else:
                position = next((i for i, p in enumerate(op.parameters) if p.name == name and p.is_operand), None)
                held = None if position is None else args[position]
            for tensor in held if type(held) is tuple else (held,):
                if isinstance(tensor, Tensor) and isinstance(tensor._data, Recorded) and not tensor.is_number:
                    saved.append((tensor._data.storage, tensor._data.storage.version, tensor))
        if saved or copied:
            self._saved[node] = saved

    def call_inplace(self, op: Operator, args: tuple[Any, ...]) -> Any:
        """Record `args[0] <- op(*args)`."""
        target = self.recorded(args[0])
        args = (target, *(self._concrete_args(a) for a in args[1:]))
        data = target._data
        if not isinstance(data, Recorded):
            raise refuse(
                f"{op.name}_ on a run-time number", "compute a new value instead of changing the number in place"
            )
        if op.random and not data.layout.flags.c_contiguous and data.layout.size > 1:
            # The order of the draws is that of the memory, which values of a graph don't have.
            self.note_effect("draws random numbers into memory that is not contiguous")
        self._check_leaf_write(op, target, args)
        values = self.lower(args)
        self._check_same_device(args)
        _check_result(op, args[0], op.infer(values)[0])
        carries = state.grad_enabled and op.derivative and target._dtype.is_differentiable
        wanted = self._differentiated(op, args) if carries else ()
        (value,) = self._append(op, values)
        node = value.node
        assert node is not None
        if value.type.dtype is not target._dtype:
            (value,) = self._append(lookup("cast"), (value, target._dtype))
        if wanted:
            self._save(node, op, args, (), wanted, inplace=True)
        self._write(target, value, bool(wanted), op.grad_name)
        if wanted:
            results = [n for n in saved_names(op, wanted) if n in op.results]
            if results:
                self._saved.setdefault(node, []).append((data.storage, data.storage.version, target))
        return target

    def _check_leaf_write(self, op: Operator, target: Tensor, args: tuple[Any, ...]) -> None:
        if not state.grad_enabled:
            return
        data = target._data
        base = data.storage.base
        outside = None if data.storage.concrete is None else data.storage.concrete._base
        of_argument = outside is not None and not data.detached and data.storage.concrete._node_version < 0
        if of_argument and any(self._requires_grad(self.recorded(t)) for t in tensors_of(args)):
            raise RuntimeError(of_no_grad(data.storage.concrete, "is being"))
        if outside is not None and outside._requires_grad and outside._node is None and not data.detached:
            raise RuntimeError("a view of a leaf Variable that requires grad is being used in an in-place operation.")
        if target._requires_grad and target._node is None and not data.steps:
            raise RuntimeError("a leaf Variable that requires grad is being used in an in-place operation.")
        made_leaf = outside is not None  # of a view kept outside, which its own views do not know as their base
        if made_leaf and data.steps and target._requires_grad and base is not None and base._node is None:
            self.note_effect("changes a view of a view that was made a leaf")
        if data.steps and base is not None and base._requires_grad and base._node is None and not data.detached:
            raise RuntimeError("a view of a leaf Variable that requires grad is being used in an in-place operation.")

    def _write(self, target: Tensor, value: Value, carries_grad: bool, grad_name: str) -> None:
        """Give a tensor's memory new elements."""
        data: Recorded = target._data
        storage = data.storage
        if storage.region < self.region:
            raise refuse(
                "an in-place change, in a branch or body of control flow, of a tensor from outside",
                "return the new value",
            )
        self._check_overlap(storage, data.steps)
        holder = storage.base
        apart = carries_grad and data.detached
        if apart:  # the history is this tensor's alone; the memory gets the elements without it
            self._check_apart(target)
            (value,), carries_grad = self._append(lookup("detach"), (value,)), False
        if data.steps:
            # A base without a history gets that of the new elements: what it was before is no part of it.
            base_value = storage.value
            if carries_grad and holder is not None and not holder._requires_grad and base_value in self.tracked:
                (base_value,) = self._append(lookup("detach"), (base_value,))
            with self._gradients(False):  # the values' own edges carry the gradient
                steps = tuple((op, tuple(_wrapped(a) for a in attributes)) for op, attributes in data.steps)
                base_value = self.value_of(scatter(wrap(base_value), steps, wrap(value)))
        else:
            base_value = value
        unseen = not state.grad_enabled or data.detached  # by the base's history
        if unseen and holder is not None and holder._requires_grad and holder._node is not None:
            (base_value,) = self._append(GRAFT, (storage.value, base_value))
            value = base_value if not data.steps else value
        storage.value = base_value
        storage.version += 1
        storage.mutated = True
        storage.counted = storage.counted or not data.quiet
        data.value = value
        data.version = storage.version
        if carries_grad:
            storage.carries = True
            for tensor in (target, holder):
                if tensor is not None:
                    tensor._requires_grad = True
                    tensor._node = RecordedNode(grad_name)
        if holder is not None:
            holder_data: Recorded = holder._data
            holder_data.value = base_value
            holder_data.version = storage.version
            if holder._requires_grad and holder._node is None:
                # A leaf changed under no_grad: its new value is the leaf from here on.
                self._make_leaf(holder, base_value)
        if data.steps and (not state.grad_enabled or carries_grad or (holder is not None and holder._requires_grad)):
            data.version = -1  # what is read of the view from here on comes from the base, and goes back to it
        if apart:
            target._requires_grad, target._node, data.apart = True, RecordedNode(grad_name), True

    def _check_apart(self, target: Tensor) -> None:
        """Leave it to eager execution if tensors beside `target`, its base or its views, would get its history."""
        data: Recorded = target._data
        others = (v for ref in data.storage.views if (v := ref()) is not None and v is not target)
        beside = any(v._data.steps[: len(data.steps)] == data.steps for v in others)
        if beside or data.steps[-1][0].name != "detach":
            self.note_effect("changes detached memory in place with something that requires grad")

    def _check_overlap(self, storage: RecordedStorage, steps: Steps) -> None:
        """Refuse to write through a view that shows an element in several places: all of them would have to change."""
        if storage.base is None:
            return
        layout = storage.base._data.layout
        if storage.concrete is not None and _overlaps(layout):
            raise refuse(
                "an in-place change of a part of an expanded tensor from outside", "clone() it before it is passed"
            )
        if steps and _overlaps(layout):
            raise refuse(
                "an in-place change of a part of an expanded tensor, as gradients of sums are", "clone() it first"
            )
        if not any(op.name in ("expand", "unfold", "as_strided") for op, _ in steps):
            return
        for op, attributes in steps:
            if not op.is_view:
                return
            layout = op.numpy(layout, *[hints(a) for a in attributes])
            if _overlaps(layout):
                raise refuse(
                    f"an in-place change of a part of {op.name}(), which shows some elements several times",
                    "clone() it first, or change the tensor that it was made of",
                )

    # -- what needs data ---------------------------------------------------------------------------------------------

    def item(self, tensor: Tensor) -> Any:
        """`.item()` gives a run-time number: arithmetic on it is recorded, and a decision on it is refused."""
        tensor = self.recorded(tensor)
        if tensor.is_number:
            return tensor
        self.gave_numbers = True
        if tensor.dtype.is_complex:
            raise refuse("item() of a complex tensor while compiling", "keep the value in a tensor")
        from graphtorch.frontend.number import number

        with self._gradients(False):
            return number(tensor)

    def data_size(self, tensor: Tensor) -> Any:
        """A size that depends on data (`nonzero`), as a number or a symbol."""
        if self.decisions is None:
            return int(tensor)
        return self.decisions.size(self, self.recorded(tensor))

    def size_input(self, symbol: Any, place: int, count: int) -> int:
        """An input whose length is a size that is known only during a call. Returns its position."""
        of = TensorType(dtypes.bool_, (symbol,))
        source = SizeSource(place, Tensor._wrap(carrier(count)), f"size{place}")
        self.graph.add_input(of, source.name, source.kind)
        self.sources.append(source)
        return len(self.sources) - 1

    def read(self, tensor: Tensor, operation: str) -> np.ndarray[Any, Any]:
        """Python asks for data, which does not exist yet: a decision, if those may be made."""
        if self.decisions is not None:
            return self.decisions.read(self, self.recorded(tensor), operation)
        described = str(type_of(self.recorded(tensor)))
        if operation in ("bool()", "int()", "float()", "__index__()", "complex()"):
            raise refuse(
                f"{operation} of a recorded tensor {described}: a Python decision or number that depends on tensor "
                "data can't be part of "
                "one graph",
                "choose with torch.where or arithmetic on masks, or move the decision out of the compiled function",
            )
        raise refuse(
            f"{operation} of a recorded tensor {described}: its data does not exist while the function is being "
            "captured",
            "return the tensor and read it outside the compiled function",
        )

    def note_effect(self, does: str) -> None:
        """The user's code does something that replaying the graph would leave out."""
        raise effect(does, self.decisions is None)

    def detach_inplace(self, tensor: Tensor) -> None:
        raise refuse("detach_() inside a compiled function", "use y = y.detach()")

    def get_data(self, tensor: Tensor) -> Tensor:
        """`p.data`: the same memory, whose changes autograd does not count."""
        found: Tensor = tensor.detach()
        if isinstance(found._data, Recorded):
            found._data.quiet = True
        return found

    def set_data(self, tensor: Tensor, value: Tensor) -> None:
        """`p.data = v`: the memory of `p` gets new elements, outside autograd."""
        if tuple(tensor.shape) != tuple(value.shape) or tensor.dtype is not value.dtype:
            raise refuse(
                f"assigning .data of another shape or dtype ({type_of(tensor)} <- {type_of(value)})",
                "assign outside the compiled function",
            )
        with self._gradients(False):
            self.get_data(tensor).copy_(value)


def own_attributes(tensor: Tensor) -> dict[str, Any]:
    """The attributes that users gave a tensor."""
    own = vars(tensor)
    return {} if _FIELDS.issuperset(own) else {n: v for n, v in own.items() if n not in _FIELDS}


def _overlaps(layout: np.ndarray[Any, Any]) -> bool:
    """Whether some element may be at several positions: each stride must step over all that smaller ones reach."""
    reach = 0
    for stride, n in sorted((abs(s), n) for s, n in zip(layout.strides, layout.shape, strict=True) if n > 1):
        if stride <= reach:
            return layout.size > 0
        reach += stride * (n - 1)
    return False


def _selects(op: Operator, args: tuple[Any, ...]) -> bool:
    """Whether a call is `x[i]` with integer tensors of no dimension only: eager execution reads the positions and makes
    a view, which writes go through."""
    return op.name == "index" and all(i is None or i.ndim == 0 for i in args[1])


def _wrapped(attribute: Any) -> Any:
    """An attribute of a view with tensors for values."""
    if type(attribute) is tuple:
        return tuple(_wrapped(a) for a in attribute)
    return wrap(attribute) if type(attribute) is Value else attribute


def _static(shape: tuple[Any, ...]) -> bool:
    return all(type(d) is int for d in shape)


__all__ = ["CaptureError", "Recorder", "recorder_paused"]
