"""Tensor hooks and their handles."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from graphtorch.autograd.state import state
from graphtorch.tensor.tensor import Tensor

_ids = itertools.count()


class RemovableHandle:
    """Removes its hook again. See torch.utils.hooks.RemovableHandle."""

    def __init__(self, hooks: dict[int, Any], key: int) -> None:
        self.hooks = hooks
        self.id = key

    def remove(self) -> None:
        self.hooks.pop(self.id, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()


def add(hooks: dict[int, Any], hook: Callable[..., Any]) -> RemovableHandle:
    """Append a hook to an ordered collection."""
    key = next(_ids)
    hooks[key] = hook
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
