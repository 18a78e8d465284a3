"""Tools around training. See https://docs.pytorch.org/docs/stable/data.html for `graphtorch.utils.data`."""

from __future__ import annotations

import importlib
import weakref
from typing import Any

from graphtorch.tensor.tensor import Tensor


def swap_tensors(t1: Tensor, t2: Tensor) -> None:
    """Exchange two tensors' content, history, class and attributes; each stays the object that it is.

    Raises RuntimeError where a weak reference leads to one of them. See torch.utils.swap_tensors."""
    for name, each in (("t1", t1), ("t2", t2)):
        if weakref.getweakrefs(each):
            raise RuntimeError(f"Cannot swap {name} because it has weakref associated with it")
    first, second = dict(vars(t1)), dict(vars(t2))
    gradients = t1.grad, t2.grad
    t1.grad = t2.grad = None
    t1.__class__, t2.__class__ = t2.__class__, t1.__class__
    # The dictionaries stay where they are: compiled functions watch them.
    for own, new in ((vars(t1), second), (vars(t2), first)):
        own.clear()
        own.update(new)
    t2.grad, t1.grad = gradients


_SUBMODULES = (
    *("_pytree", "_python_dispatch", "benchmark", "checkpoint", "collect_env", "cpp_extension", "data"),
    *("deterministic", "dlpack", "flop_counter", "hooks", "model_zoo", "module_tracker", "safetensors", "tensorboard"),
)


def __getattr__(name: str) -> Any:
    # Submodules load on first use, so that `import graphtorch` stays quick.
    if name in _SUBMODULES:
        return importlib.import_module(f"graphtorch.utils.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
