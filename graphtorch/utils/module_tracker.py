"""Which modules run now, forwards or backwards: `torch.utils.module_tracker.ModuleTracker`."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from graphtorch.autograd.engine import running, when_done
from graphtorch.autograd.graph import register_multi_grad_hook
from graphtorch.nn import Module
from graphtorch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from graphtorch.tensor.tensor import Tensor
from graphtorch.utils._pytree import tree_leaves

__all__ = ["ModuleTracker"]


class ModuleTracker:
    """A block in which `parents` holds the dotted names of the modules that are being run, and "Global".

    A module is called by its class's name if it is the outermost, its children by their attributes."""

    def __init__(self) -> None:
        self.parents: set[str] = {"Global"}
        self._names: weakref.WeakKeyDictionary[Module, str] = weakref.WeakKeyDictionary()
        self._seen: weakref.WeakSet[Module] = weakref.WeakSet()
        self._waiting = False
        self._hooks: list[Any] = []
        self._handles: list[Any] = []

    @property
    def is_bw(self) -> bool:
        """Whether a backward pass is running."""
        return running()

    def _name(self, module: Module) -> str:
        name = self._names.setdefault(module, type(module).__name__)
        if module not in self._seen:
            for child_name, child in module.named_children():
                self._names[child] = f"{name}.{child_name}"
                self._name(child)
            self._seen.add(module)
        return name

    def _entering(self, name: str) -> Callable[..., None]:
        def enter(*gradients: Any) -> None:
            if gradients and not self._waiting:
                self._waiting = True
                when_done(self._done)
            self.parents.add(name)

        return enter

    def _done(self) -> None:
        self.parents = {"Global"}
        self._waiting = False

    def _before(self, module: Module, args: Any) -> None:
        name = self._name(module)
        self.parents.add(name)
        self._hook(args, lambda *gradients: self.parents.discard(name))

    def _after(self, module: Module, args: Any, output: Any) -> None:
        name = self._name(module)
        self.parents.discard(name)
        self._hook(output, self._entering(name))

    def _hook(self, values: Any, function: Callable[..., None]) -> None:
        tensors = [v for v in tree_leaves(values) if isinstance(v, Tensor) and v.requires_grad]
        if tensors:
            self._hooks.append(register_multi_grad_hook(tensors, function))

    def __enter__(self) -> ModuleTracker:
        self._handles = [
            register_module_forward_pre_hook(self._before),
            register_module_forward_hook(self._after),
        ]
        return self

    def __exit__(self, *error: object) -> None:
        for handle in (*self._handles, *self._hooks):
            handle.remove()
        self._hooks.clear()
