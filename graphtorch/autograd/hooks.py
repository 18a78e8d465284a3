"""Tensor hooks and their handles.

Compiled functions assume which hooks there are. So that they need not look at every table before each call, each change
of one renews `latest`, an object that stands for the present state of all."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

from graphtorch.autograd.state import state
from graphtorch.tensor.tensor import Tensor

_ids = itertools.count()

latest = object()


def note_change() -> None:
    """Say that some collection of hooks is no longer what it was."""
    global latest
    latest = object()


class HookTable(OrderedDict[int, Any]):
    """An ordered collection of hooks whose every change is noted. Copies and pickles of it are plain ones."""

    def __setitem__(self, key: int, hook: Any) -> None:
        super().__setitem__(key, hook)
        note_change()

    def __delitem__(self, key: int) -> None:
        super().__delitem__(key)
        note_change()

    def pop(self, *args: Any) -> Any:
        found = super().pop(*args)
        note_change()
        return found

    def popitem(self, last: bool = True) -> tuple[int, Any]:
        found = super().popitem(last)
        note_change()
        return found

    def setdefault(self, key: int, default: Any = None) -> Any:
        found = super().setdefault(key, default)
        note_change()
        return found

    def update(self, *args: Any, **kwargs: Any) -> None:
        super().update(*args, **kwargs)
        note_change()

    def clear(self) -> None:
        super().clear()
        note_change()

    def move_to_end(self, key: int, last: bool = True) -> None:
        super().move_to_end(key, last)
        note_change()

    def __ior__(self, other: Any) -> Any:  # type: ignore[misc]
        self.update(other)
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return OrderedDict, (list(self.items()),)


class AllModulesHook(NamedTuple):
    """A hook on every nn.Module; `kind` is what it runs around."""

    kind: str
    hook: Callable[..., Any]
    with_kwargs: bool = False
    always_call: bool = False


# Hooks that the calls of all modules run, before the modules' own. One table, so that a call looks at one.
ALL_MODULES = HookTable()


class RemovableHandle:
    """Removes its hook again. See torch.utils.hooks.RemovableHandle."""

    def __init__(self, hooks: dict[int, Any], key: int) -> None:
        self.hooks = hooks
        self.id = key

    def remove(self) -> None:
        self.hooks.pop(self.id, None)
        note_change()

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()


class Handles:
    """Removes several hooks together."""

    def __init__(self, handles: list[Any]) -> None:
        self.handles = tuple(handles)

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()

    def __enter__(self) -> Handles:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()


def add(hooks: dict[int, Any], hook: Callable[..., Any] | AllModulesHook) -> RemovableHandle:
    """Append a hook to an ordered collection."""
    key = next(_ids)
    hooks[key] = hook
    note_change()
    return RemovableHandle(hooks, key)


def register(tensor: Tensor, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
    """A hook on the gradient of a leaf or of an operator's result."""
    if not tensor.requires_grad:
        raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
    if state.recorder is not None:
        return state.recorder.register_hook(tensor, hook)  # type: ignore[no-any-return]
    node = tensor.grad_fn
    if node is None:
        if tensor._hooks is None:
            tensor._hooks = {}
        return add(tensor._hooks, hook)
    if node.tensor_hooks is None:
        node.tensor_hooks = {}
    return add(node.tensor_hooks.setdefault(tensor._output_index, {}), hook)


def retain(tensor: Tensor) -> None:
    """Store the gradient of a non-leaf in its `.grad` as backward passes it."""
    import weakref

    weak = weakref.ref(tensor)

    def store(gradient: Tensor) -> None:
        held = weak()
        if held is not None:
            previous = held.grad
            held.grad = gradient.detach().clone() if previous is None else previous + gradient

    register(tensor, store)
    if state.recorder is not None:
        state.recorder.note_retained(tensor)
    tensor._retains_grad = True


def register_post_accumulate(tensor: Tensor, hook: Callable[[Tensor], None]) -> RemovableHandle:
    """A hook that runs once a leaf's `.grad` was updated."""
    if not tensor.is_leaf:
        raise RuntimeError("post accumulate grad hooks cannot be registered on non-leaf tensors")
    if tensor._post_accumulate_hooks is None:
        tensor._post_accumulate_hooks = {}
    return add(tensor._post_accumulate_hooks, hook)
