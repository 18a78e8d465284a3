"""Transform levels: how `grad` and `vmap` see every operator call of the function that they transform.

A transform runs the function on wrapped tensors and stands in `state.recorder` while it does. Each call comes to the
innermost level, which does its part (a tape of its own, or a batch dimension) and calls the operator again, one level
further out, on what its wrappers hold. Outermost is eager execution or the recorder of `@compile`. So transforms nest
in any order, derivatives of different levels can't be confused, and a compiled function records what a transform did
as ordinary operators. The scheme is that of functorch (https://docs.pytorch.org/docs/stable/func.html).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import numpy as np

from graphtorch.autograd.engine import _run, _start
from graphtorch.autograd.function import Function, FunctionContext, FunctionNode
from graphtorch.autograd.graph import SavedTensor, record_call, record_inplace
from graphtorch.autograd.hooks import RemovableHandle, add
from graphtorch.autograd.state import state
from graphtorch.ops import dispatch
from graphtorch.ops.record import Operator
from graphtorch.tensor.devices import CPU
from graphtorch.tensor.tensor import Tensor, meta_array
from graphtorch.tensor.type import type_of


class Lifted:
    """The payload of a level's tensor: the tensor one level further out, here seen without its batch dimension."""

    __slots__ = ("batched", "level", "tensor")

    def __init__(self, level: Level, tensor: Tensor, batched: bool) -> None:
        self.level = level
        self.tensor = tensor
        self.batched = batched

    @property
    def shape(self) -> tuple[Any, ...]:
        shape: tuple[Any, ...] = self.tensor._data.shape
        return shape[1:] if self.batched else shape

    @property
    def layout(self) -> np.ndarray[Any, Any]:
        """An array with the shape and strides of one element of the batch; it is not to be read."""
        layout = self.tensor._layout()
        if not self.batched:
            return layout
        if layout.shape[0]:
            element: np.ndarray[Any, Any] = layout[0, ...]
            return element
        return meta_array(layout.shape[1:], self.tensor._dtype)  # strides of an empty array say nothing

    def show(self) -> str:
        """How the tensor prints while the transform runs."""
        with self.level.below():
            inner = repr(self.tensor)
        indented = "\n".join("    " + line for line in inner.splitlines())
        return f"{self.level.title}(value=\n{indented}\n)"


class Level:
    """One running transform. `with level:` makes it the innermost; it may be entered again later."""

    title = ""

    def __init__(self) -> None:
        self._outer: list[Any] = []
        self.outer: Any = None

    def __enter__(self) -> Any:
        self._outer.append(self.outer)
        self.outer = state.recorder
        state.recorder = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        state.recorder = self.outer
        self.outer = self._outer.pop()

    @contextmanager
    def below(self) -> Iterator[None]:
        """Run one level further out."""
        mine = state.recorder
        state.recorder = self.outer
        try:
            yield
        finally:
            state.recorder = mine

    @property
    def captures(self) -> bool:
        """Whether further out a graph is being recorded."""
        return self.outer is not None and getattr(self.outer, "captures", True)

    def __getattr__(self, name: str) -> Any:
        # What only the recorder of a capture knows to do.
        outer = self.__dict__.get("outer")
        if outer is None:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return getattr(outer, name)

    # -- wrapping ----------------------------------------------------------------------------------------------------

    def holds(self, value: Any) -> bool:
        """Whether a value is a tensor of this level."""
        return isinstance(value, Tensor) and type(value._data) is Lifted and value._data.level is self

    def lift(self, tensor: Tensor, batched: bool = False) -> Tensor:
        """A tensor of this level for one from further out."""
        lifted = Tensor._wrap(Lifted(self, tensor, batched), tensor._dtype)
        if tensor._device is not CPU:
            lifted._device = tensor._device
        if tensor.is_number:
            lifted.is_number = True
        return lifted

    def lower(self, value: Any) -> Any:
        """What a tensor of this level holds; other tensors as they are. Tuples item by item."""
        if isinstance(value, Tensor):
            data = value._data
            return data.tensor if type(data) is Lifted and data.level is self else value
        if type(value) is tuple:
            return tuple([self.lower(v) for v in value])
        return value

    # -- what an operator call, a tensor or a module asks of a recorder ----------------------------------------------

    @abstractmethod
    def call(self, op: Operator, args: tuple[Any, ...]) -> Any:
        """One operator call."""

    @abstractmethod
    def call_inplace(self, op: Operator, args: tuple[Any, ...]) -> Any:
        """`args[0] <- op(*args)`."""

    @abstractmethod
    def apply_function(self, function: type[Function], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A custom autograd.Function."""

    @abstractmethod
    def grad(
        self,
        roots: tuple[Tensor, ...],
        inputs: tuple[Tensor, ...],
        gradients: tuple[Tensor | None, ...],
        keep: bool,
        create_graph: bool,
    ) -> Sequence[Tensor | None]:
        """`autograd.grad`."""

    def item(self, tensor: Tensor) -> Any:
        """`.item()`."""
        self.check_read(tensor, "item()")
        with self.below():
            return self.lower(tensor).item()

    def data_size(self, tensor: Tensor) -> Any:
        """A size that depends on data."""
        self.check_read(tensor, "int()")
        with self.below():
            found: Any = self.lower(tensor)
            return int(found) if self.outer is None else self.outer.data_size(found)

    def read(self, tensor: Tensor, operation: str) -> np.ndarray[Any, Any]:
        """Python asks for data."""
        self.check_read(tensor, operation)
        with self.below():
            found: np.ndarray[Any, Any] = self.lower(tensor)._host(operation)
            return found

    def check_read(self, tensor: Tensor, operation: str) -> None:
        """Refuse a reading that has no single answer."""

    def backward(self, *args: Any) -> None:
        """Raises RuntimeError: there is no leaf to accumulate at."""
        raise RuntimeError(
            "backward() called inside a functorch transform. This is not supported, please use functorch.grad or "
            "functorch.vjp instead or call backward() outside of functorch transforms."
        )

    def stand_in(self, tensor: Tensor) -> Tensor:
        """The tensor whose autograd flags count."""
        if type(tensor._data) is Lifted or self.outer is None:
            return tensor
        with self.below():
            found: Tensor = self.outer.stand_in(tensor)
            return found

    def recorded(self, tensor: Tensor) -> Tensor:
        """The tensor whose flags an assignment sets."""
        if type(tensor._data) is Lifted or self.outer is None:
            return tensor
        with self.below():
            found: Tensor = self.outer.recorded(tensor)
            return found

    def becomes_leaf(self, tensor: Tensor) -> None:
        """Before `requires_grad_()`."""
        if type(tensor._data) is not Lifted and self.outer is not None:
            with self.below():
                self.outer.becomes_leaf(tensor)

    def get_grad(self, tensor: Tensor) -> Tensor | None:
        if type(tensor._data) is Lifted or self.outer is None:
            return tensor._grad
        with self.below():
            found: Tensor | None = tensor.grad
            return found

    def set_grad(self, tensor: Tensor, value: Tensor | None) -> None:
        if type(tensor._data) is Lifted or self.outer is None:
            tensor._grad = value
            return
        with self.below():
            tensor.grad = value

    def register_hook(self, tensor: Tensor, hook: Callable[..., Any]) -> RemovableHandle:
        """A hook on a gradient of this level."""
        if not self.holds(tensor):
            with self.below():
                handle: RemovableHandle = tensor.register_hook(hook)
                return handle
        node = tensor._node
        if node is None:
            if tensor._hooks is None:
                tensor._hooks = {}
            return add(tensor._hooks, hook)
        if node.tensor_hooks is None:
            node.tensor_hooks = {}
        return add(node.tensor_hooks.setdefault(tensor._output_index, {}), hook)

    def note_retained(self, tensor: Tensor) -> None:
        if self.outer is not None and not self.holds(tensor):
            self.outer.note_retained(tensor)

    def detach_inplace(self, tensor: Tensor) -> None:
        if self.outer is not None:
            with self.below():
                self.outer.detach_inplace(self.lower(tensor))

    def set_data(self, tensor: Tensor, value: Tensor) -> None:
        """`x.data = v`: new elements outside autograd."""
        previous = state.grad_enabled
        state.grad_enabled = False
        try:
            tensor.copy_(value)
        finally:
            state.grad_enabled = previous

    def constant(self, tensor: Tensor) -> Tensor:
        """A tensor made of Python data."""
        register = getattr(self.outer, "constant", None)
        if register is None:
            return tensor
        with self.below():
            made: Tensor = register(tensor)
            return made

    def enter_module(self, module: Any) -> None:
        if self.outer is not None:
            self.outer.enter_module(module)

    def exit_module(self, module: Any) -> None:
        if self.outer is not None:
            self.outer.exit_module(module)

    def number_input(self, container: Any, key: Any) -> Any:
        return dict.__getitem__(container, key) if self.outer is None else self.outer.number_input(container, key)

    def number_set(self, container: Any, key: Any) -> None:
        if self.outer is not None:
            self.outer.number_set(container, key)

    def guard_keys(self, container: Any) -> None:
        if self.outer is not None:
            self.outer.guard_keys(container)

    def guard_key(self, container: Any, key: Any) -> None:
        if self.outer is not None:
            self.outer.guard_key(container, key)

    def python_value(self, container: Any, key: Any) -> Any:
        return dict.__getitem__(container, key) if self.outer is None else self.outer.python_value(container, key)

    def defer_step(self, scheduler: Any, *args: Any) -> None:
        if self.outer is None:
            scheduler.step(*args)
        else:
            self.outer.defer_step(scheduler, *args)

    def note_effect(self, does: str) -> None:
        if self.outer is not None:
            self.outer.note_effect(does)

    def guard_item(self, container: Any, key: Any) -> Any:
        return dict.__getitem__(container, key) if self.outer is None else self.outer.guard_item(container, key)

    def assume_optimizer(self, optimizer: Any) -> None:
        if self.outer is not None:
            self.outer.assume_optimizer(optimizer)


class GradLevel(Level):
    """A level with a tape: derivatives of what was lifted here, and of nothing else.

    Further out, gradients are recorded as they were when the level was entered: `no_grad` inside the function concerns
    this level alone, and one around the transform concerns the outer tape alone.
    """

    title = "GradTrackingTensor"

    def __init__(self) -> None:
        super().__init__()
        self._modes: list[bool] = []
        self.outer_mode = True

    def __enter__(self) -> Any:
        self._modes.append(self.outer_mode)
        self.outer_mode = state.grad_enabled
        state.grad_enabled = True
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        state.grad_enabled = self.outer_mode
        self.outer_mode = self._modes.pop()

    @contextmanager
    def below(self) -> Iterator[None]:
        mine, mode = state.recorder, state.grad_enabled
        state.recorder, state.grad_enabled = self.outer, self.outer_mode
        try:
            yield
        finally:
            state.recorder, state.grad_enabled = mine, mode

    def leaf(self, tensor: Tensor) -> Tensor:
        """A variable of this level."""
        lifted = self.lift(tensor)
        lifted._requires_grad = tensor._dtype.is_differentiable
        return lifted

    def _operand(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return value if self.holds(value) else self.lift(value)
        if type(value) is tuple:
            return tuple([self._operand(v) for v in value])
        return value

    def call(self, op: Operator, args: tuple[Any, ...]) -> Any:
        lowered = self.lower(args)
        mine, mode = state.recorder, state.grad_enabled
        state.recorder, state.grad_enabled = self.outer, self.outer_mode
        try:
            found = lowered[0].detach() if op.name == "detach" else dispatch.call(op, lowered)  # of all levels
        finally:
            state.recorder, state.grad_enabled = mine, mode
        several = isinstance(found, tuple)
        results: Any = tuple([self.lift(r) for r in found]) if several else self.lift(found)
        operands = self._operand(args)
        if op.kind == "view" and op.name != "detach":
            dispatch._link_view(op, operands, results)
        if mode and op.derivative and any(t._requires_grad for t in dispatch.tensors_of(operands)):
            record_call(op, operands, results)
        if several and op.result_class is not None:
            return op.result_class(*results)
        return results

    def call_inplace(self, op: Operator, args: tuple[Any, ...]) -> Any:
        target: Tensor = args[0]
        if not self.holds(target):
            raise RuntimeError(
                "During a grad (vjp, jvp, grad, etc) transform, the function provided attempted to call in-place "
                f"operation ({op.name}_) that would mutate a captured Tensor. This is not supported; please rewrite "
                "the function being transformed to explicitly accept the mutated Tensor(s) as inputs."
            )
        operands = self._operand(args)

        def write() -> None:
            with self.below():
                dispatch.call_inplace(op, self.lower(args))

        tracked = bool(op.derivative) and target._dtype.is_differentiable
        if state.grad_enabled and tracked and any(t._requires_grad for t in dispatch.tensors_of(operands)):
            record_inplace(op, operands, write)
        else:
            write()
            target._bump_version()
        return target

    def grad(
        self,
        roots: tuple[Tensor, ...],
        inputs: tuple[Tensor, ...],
        gradients: tuple[Tensor | None, ...],
        keep: bool,
        create_graph: bool,
    ) -> Sequence[Tensor | None]:
        return _run(roots, _start(roots, gradients), keep, create_graph, inputs)

    def apply_function(self, function: type[Function], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One node of this level's tape; further out the function is applied again, and so keeps its own backward
        there.

        Raises RuntimeError for a function whose `forward` takes a ctx: what it saves can't be seen at several levels.
        """
        if "setup_context" not in function.__dict__:
            raise RuntimeError(
                "In order to use an autograd.Function with functorch transforms (vmap, grad, jvp, jacrev, ...), it "
                "must override the setup_context staticmethod. For more details, please see "
                "https://pytorch.org/docs/main/notes/extending.func.html"
            )
        operands = tuple(self._operand(a) for a in args)
        with self.below():
            found = function.apply(*(self.lower(a) for a in args), **kwargs)
        outputs = found if isinstance(found, tuple) else (found,)
        lifted = tuple(self.lift(o) if isinstance(o, Tensor) else o for o in outputs)
        returned = lifted if isinstance(found, tuple) else lifted[0]
        context = FunctionContext()
        context.needs_input_grad = tuple(isinstance(a, Tensor) and a._requires_grad for a in operands)
        if not (state.grad_enabled and any(context.needs_input_grad)):
            return returned
        function.__dict__["setup_context"].__func__(context, operands, returned)
        node = FunctionNode(function, context, operands)
        for index, output in enumerate(lifted):
            node.results.append(type_of(output) if isinstance(output, Tensor) else output)
            frozen = any(output is t for t in context._non_differentiable)
            if isinstance(output, Tensor) and not frozen and output._dtype.is_differentiable:
                output._node, output._output_index, output._requires_grad = node, index, True
        context._saved = tuple(
            SavedTensor(t, next((i for i, o in enumerate(lifted) if o is t), -1)) if isinstance(t, Tensor) else t
            for t in context.to_save
        )
        context._node = node
        return returned
