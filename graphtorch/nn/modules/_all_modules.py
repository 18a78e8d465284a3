"""Hooks on all modules at once: around their calls, and on what is registered in them.

See https://docs.pytorch.org/docs/stable/nn.html#global-hooks-for-module."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from graphtorch.autograd.hooks import ALL_MODULES, AllModulesHook, RemovableHandle, add

if TYPE_CHECKING:
    from graphtorch.nn.modules.module import Module

Hook = Callable[..., Any]
_REGISTRATION: dict[str, dict[int, Hook]] = {"buffer": {}, "module": {}, "parameter": {}}


def registered(kind: str, module: Module, name: str, value: Any) -> Any:
    """What is registered for `value`, after the hooks."""
    for hook in tuple(_REGISTRATION[kind].values()):
        replaced = hook(module, name, value)
        if replaced is not None:
            value = replaced
    return value


def register_module_buffer_registration_hook(hook: Hook) -> RemovableHandle:
    """Call `hook(module, name, buffer)` for each buffer that a module registers; what it returns takes its place."""
    return add(_REGISTRATION["buffer"], hook)


def register_module_module_registration_hook(hook: Hook) -> RemovableHandle:
    """Call `hook(module, name, submodule)` for each submodule that a module registers; what it returns takes its
    place."""
    return add(_REGISTRATION["module"], hook)


def register_module_parameter_registration_hook(hook: Hook) -> RemovableHandle:
    """Call `hook(module, name, parameter)` for each parameter that a module registers; what it returns takes its
    place."""
    return add(_REGISTRATION["parameter"], hook)


def register_module_forward_pre_hook(hook: Hook) -> RemovableHandle:
    """Call `hook(module, args)` before every module's forward and its own hooks; what it returns replaces the
    arguments."""
    return add(ALL_MODULES, AllModulesHook("forward_pre", hook))


def register_module_forward_hook(
    hook: Hook, *, with_kwargs: bool = False, always_call: bool = False
) -> RemovableHandle:
    """Call `hook(module, args[, kwargs], output)` after every module's forward; what it returns replaces the output.
    With `always_call` it also runs when forward raised."""
    return add(ALL_MODULES, AllModulesHook("forward", hook, with_kwargs, always_call))


def register_module_full_backward_pre_hook(hook: Hook) -> RemovableHandle:
    """Call `hook(module, grad_output)` in backward, for every module; what it returns replaces `grad_output`."""
    return add(ALL_MODULES, AllModulesHook("backward_pre", hook))


def register_module_full_backward_hook(hook: Hook) -> RemovableHandle:
    """Call `hook(module, grad_input, grad_output)` in backward, for every module; what it returns replaces
    `grad_input`."""
    if any(each.kind == "backward_of_last" for each in ALL_MODULES.values()):
        raise RuntimeError(BOTH_KINDS)
    return add(ALL_MODULES, AllModulesHook("backward", hook))


BOTH_KINDS = (
    "Cannot use both regular backward hooks and full backward hooks as a global Module hook. Please use only one of "
    "them."
)


def register_module_backward_hook(hook: Hook) -> RemovableHandle:
    """Deprecated: call `hook(module, grad_input, grad_output)` with the gradients of the last operator of every
    module's forward."""
    if any(each.kind == "backward" for each in ALL_MODULES.values()):
        raise RuntimeError(BOTH_KINDS)
    return add(ALL_MODULES, AllModulesHook("backward_of_last", hook))
