"""Optimizer: parameter groups, per-parameter state, hooks and state dicts, shared by all optimizers.

What a captured training step may and may not freeze is decided here. A group's learning rate changes between calls, so
a capture reads it as an input of the graph; every other option is a guard. State tensors are made before the graph
reads them (see `new_state`), so they too are inputs, updated in place.
"""

from __future__ import annotations

import functools
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from graphtorch.autograd import hooks as autograd_hooks
from graphtorch.autograd.grad_mode import enable_grad
from graphtorch.autograd.hooks import RemovableHandle
from graphtorch.autograd.state import recorder_paused, state
from graphtorch.runtime.cuda import graphs
from graphtorch.tensor.tensor import Tensor
from graphtorch.utils._names import typename

__all__ = ["Optimizer", "ParamGroup", "required"]

Closure = Callable[[], Any]
Hook = Callable[..., Any]


class _Required:
    """Marks an option that has no default."""

    def __repr__(self) -> str:
        return "<required parameter>"


required = _Required()


class ParamGroup(dict[str, Any]):
    """The options of one group of parameters, and under "params" the parameters themselves.

    While a capture is running, reading "lr", or what has been changed before (momentum and betas that a scheduler
    cycles), gives traced numbers, and reading anything else becomes a guard, in whatever way it is read: what a class
    that has an `__iter__` of its own holds, Python takes from it by `keys` and `[]`, also for `dict(group)` and
    `{**group}`.
    """

    varying: frozenset[str] = frozenset({"lr"})

    def __getitem__(self, key: str) -> Any:
        recorder = state.recorder
        if recorder is not None:
            if key in self.varying:
                return recorder.number_input(self, key)
            recorder.guard_item(self, key)
        return super().__getitem__(key)

    def __setitem__(self, key: str, value: Any) -> None:
        _note("number_set", self, key)
        if key not in self.varying and _changes(dict.get(self, key), value):
            self.varying |= {key}
        super().__setitem__(key, value)

    def __contains__(self, key: object) -> bool:
        _note("guard_key", self, key)
        return super().__contains__(key)

    def __iter__(self) -> Iterator[str]:
        _note("guard_keys", self)
        return super().__iter__()

    def keys(self) -> Any:
        _note("guard_keys", self)
        return super().keys()

    def get(self, key: str, default: Any = None) -> Any:
        if state.recorder is not None and key in self:
            return self[key]
        return super().get(key, default)

    def items(self) -> Any:
        return super().items() if state.recorder is None else {key: self[key] for key in self}.items()

    def values(self) -> Any:
        return super().values() if state.recorder is None else {key: self[key] for key in self}.values()

    def copy(self) -> dict[str, Any]:
        return dict(self)


def _note(name: str, *args: Any) -> None:
    """Tell a recorder that wants to know."""
    note = getattr(state.recorder, name, None)
    if note is not None:
        note(*args)


def _changes(old: Any, new: Any) -> bool:
    """Whether a number, or a pair of them, becomes another one."""
    if isinstance(old, tuple) and isinstance(new, tuple) and len(old) == len(new):
        return old != new and all(type(x) is float for x in (*old, *new))
    return type(old) is float and type(new) is float and old != new


class Optimizer:
    """Base class of all optimizers.

    Args:
        params: tensors, (name, tensor) pairs, or dicts with the key "params" and options of that group.
        defaults: the options of groups that do not give their own.

    Raises:
        TypeError: ``params`` is a tensor, or not all in it are tensors.
        ValueError: there are no parameters, one is not a leaf, or one appears in two groups.

    See https://docs.pytorch.org/docs/stable/optim.html#torch.optim.Optimizer
    """

    _opt_called: bool
    # Counts replacements of state tensors and groups: a captured step holds on to those that it has seen.
    _generation: int = 0

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self._make_hook_tables()
        if isinstance(params, Tensor):
            raise TypeError(
                "params argument given to the optimizer should be an iterable of Tensors or dicts, but got "
                + typename(params)
            )
        self.state: defaultdict[Any, Any] = defaultdict(dict)
        self.param_groups: list[ParamGroup] = []
        groups = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        step = cls.__dict__.get("step")
        if step is not None:
            cls.step = _with_hooks(step)  # type: ignore[method-assign]

    def step(self, closure: Closure | None = None) -> Any:
        """Update the parameters once; ``closure`` re-evaluates the model and returns the loss."""
        raise NotImplementedError

    # ------------------------------------------------------------------ groups

    _counts_on_host = False  # whether the update depends on a count of steps that is read by the host

    def _check_recorded(self) -> None:
        """Raise RuntimeError where a step that a CUDA graph records would count as the same one in each replay."""
        if "capturable" not in self.defaults:
            return
        name = type(self).__name__
        if not all(group["capturable"] for group in self.param_groups):
            raise RuntimeError(
                f"Attempting CUDA graph capture of step() for an instance of {name} but param_groups' capturable is "
                "False."
            )
        if self._counts_on_host:
            raise RuntimeError(
                f"Attempting CUDA graph capture of step() for an instance of {name}, which counts steps on the host. "
                'Compile the step with mode="reduce-overhead" instead.'
            )

    def _prepare_for_capture(self) -> None:
        """Called before a function that steps is captured."""
        for param, own in self.state.items():
            if isinstance(param, Tensor) and param.is_cuda:
                move_counts(param, own)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters with options of its own, for example to train further layers from now on.

        Raises:
            TypeError: it is not a dict, or its parameters are a set or no tensors.
            ValueError: a parameter is not a leaf or already in a group, an option is missing, or only some are named.
        """
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        group = ParamGroup(param_group)
        members = group["params"]
        if isinstance(members, set):
            raise TypeError(
                "optimizer parameters need to be organized in ordered collections, but the ordering of tensors in "
                "sets will change between runs. Please use a list instead."
            )
        members = [members] if isinstance(members, Tensor) else list(members)
        names = [member[0] for member in members if isinstance(member, tuple)]
        params = [member[1] if isinstance(member, tuple) else member for member in members]
        if names and len(names) != len(params):
            raise ValueError("all optimizer params should be with/without names. Some param names are missing")
        group["params"] = params
        if names:
            group["param_names"] = names
        for param in params:
            if not isinstance(param, Tensor):
                raise TypeError("optimizer can only optimize Tensors, but one of the params is " + typename(param))
            if not self.defaults.get("differentiable") and not (param.is_leaf or param.retains_grad):
                raise ValueError("can't optimize a non-leaf Tensor")
        for name, default in self.defaults.items():
            if default is required and name not in group:
                raise ValueError(f"parameter group didn't specify a value of required optimization parameter {name}")
            group.setdefault(name, default)
        ids = {id(param) for param in params}
        if len(ids) != len(params):
            warnings.warn(
                "optimizer contains a parameter group with duplicate parameters; in future, this will cause an "
                "error; see github.com/pytorch/pytorch/issues/40967 for more information",
                stacklevel=3,
            )
        for other in self.param_groups:
            if ("param_names" in group) != ("param_names" in other):
                kind = "with names" if "param_names" in group else "without names"
                raise ValueError(
                    "all optimizer param groups should be with/without names. "
                    f"cannot add param group {kind} to the optimizer"
                )
            if not ids.isdisjoint(id(param) for param in other["params"]):
                raise ValueError("some parameters appear in more than one parameter group")
        self.param_groups.append(group)
        self._generation += 1

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of all parameters, or without ``set_to_none`` fill them with zeros."""
        for group in self.param_groups:
            for param in group["params"]:
                if set_to_none:
                    param.grad = None  # without a look at what it was: a captured step need not assume it
                    continue
                grad = param.grad
                if grad is None:
                    continue
                if grad.grad_fn is not None:
                    grad.detach_()
                else:
                    grad.requires_grad_(False)
                grad.zero_()

    @staticmethod
    def _run_closure(closure: Closure | None) -> Any:
        if closure is None:
            return None
        with enable_grad():
            return closure()

    # ------------------------------------------------------------------ state dict

    def state_dict(self) -> dict[str, Any]:
        """Return ``{"state": {index: state}, "param_groups": [options]}``; parameters appear as running numbers."""
        for hook in self._optimizer_state_dict_pre_hooks.values():
            hook(self)
        index: dict[int, int] = {}
        groups = []
        start = 0
        for group in self.param_groups:
            params = group["params"]
            for offset, param in enumerate(params):
                index.setdefault(id(param), start + offset)
            start += len(params)
            packed = {key: value for key, value in group.items() if key != "params"}
            packed["params"] = [index[id(param)] for param in params]
            groups.append(packed)
        packed_state = {index[id(k)] if isinstance(k, Tensor) else k: v for k, v in self.state.items()}
        result: dict[str, Any] = {"state": packed_state, "param_groups": groups}
        for hook in self._optimizer_state_dict_post_hooks.values():
            replaced = hook(self, result)
            if replaced is not None:
                result = replaced
        return result

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned; state tensors take their parameter's dtype and device.

        Raises:
            ValueError: the numbers of groups or of parameters in a group differ.
        """
        state_dict = state_dict.copy()
        for hook in self._optimizer_load_state_dict_pre_hooks.values():
            replaced = hook(self, state_dict)
            if replaced is not None:
                state_dict = replaced
        saved_groups = [ParamGroup(group) for group in deepcopy(state_dict["param_groups"])]
        if len(saved_groups) != len(self.param_groups):
            raise ValueError("loaded state dict has a different number of parameter groups")
        param_of: dict[Any, Tensor] = {}
        for group, saved in zip(self.param_groups, saved_groups, strict=True):
            if len(group["params"]) != len(saved["params"]):
                raise ValueError(
                    "loaded state dict contains a parameter group that doesn't match the size of optimizer's group"
                )
            param_of.update(zip(saved["params"], group["params"], strict=True))
        new_state: defaultdict[Any, Any] = defaultdict(dict)
        for key, value in state_dict["state"].items():
            if key in param_of:
                new_state[param_of[key]] = _match_param(param_of[key], value)
            else:
                new_state[key] = value
        for group, saved in zip(self.param_groups, saved_groups, strict=True):
            saved["params"] = group["params"]
            if "param_names" in group:
                saved.setdefault("param_names", group["param_names"])
        self.__setstate__({"state": new_state, "param_groups": saved_groups})
        for hook in self._optimizer_load_state_dict_post_hooks.values():
            hook(self)

    def __getstate__(self) -> dict[str, Any]:
        return {"defaults": self.defaults, "state": self.state, "param_groups": self.param_groups}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._generation += 1
        if "_optimizer_step_pre_hooks" not in self.__dict__:
            self._make_hook_tables()

    def __repr__(self) -> str:
        lines = [type(self).__name__ + " ("]
        for index, group in enumerate(self.param_groups):
            lines += [""] * (index > 0)
            lines.append(f"Parameter Group {index}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return "\n".join(lines) + "\n)"

    # ------------------------------------------------------------------ hooks

    def _make_hook_tables(self) -> None:
        self._optimizer_step_pre_hooks: OrderedDict[int, Hook] = OrderedDict()
        self._optimizer_step_post_hooks: OrderedDict[int, Hook] = OrderedDict()
        self._optimizer_state_dict_pre_hooks: OrderedDict[int, Hook] = OrderedDict()
        self._optimizer_state_dict_post_hooks: OrderedDict[int, Hook] = OrderedDict()
        self._optimizer_load_state_dict_pre_hooks: OrderedDict[int, Hook] = OrderedDict()
        self._optimizer_load_state_dict_post_hooks: OrderedDict[int, Hook] = OrderedDict()

    def register_step_pre_hook(self, hook: Hook) -> RemovableHandle:
        """Call ``hook(optimizer, args, kwargs)`` before every step; a returned pair replaces the arguments."""
        return autograd_hooks.add(self._optimizer_step_pre_hooks, hook)

    def register_step_post_hook(self, hook: Hook) -> RemovableHandle:
        """Call ``hook(optimizer, args, kwargs)`` after every step."""
        return autograd_hooks.add(self._optimizer_step_post_hooks, hook)

    def register_state_dict_pre_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Call ``hook(optimizer)`` before :meth:`state_dict`."""
        return _add(self._optimizer_state_dict_pre_hooks, hook, prepend)

    def register_state_dict_post_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Call ``hook(optimizer, state_dict)`` after :meth:`state_dict`; what it returns replaces the result."""
        return _add(self._optimizer_state_dict_post_hooks, hook, prepend)

    def register_load_state_dict_pre_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Call ``hook(optimizer, state_dict)`` before loading; what it returns replaces the state dict."""
        return _add(self._optimizer_load_state_dict_pre_hooks, hook, prepend)

    def register_load_state_dict_post_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Call ``hook(optimizer)`` after loading."""
        return _add(self._optimizer_load_state_dict_post_hooks, hook, prepend)


@contextmanager
def new_state() -> Iterator[None]:
    """Make state tensors inside this block: they are concrete even while a capture is running."""
    with recorder_paused():
        yield


def _add(table: OrderedDict[int, Hook], hook: Hook, prepend: bool) -> RemovableHandle:
    handle = autograd_hooks.add(table, hook)
    if prepend:
        table.move_to_end(handle.id, last=False)
    return handle


def _with_hooks(step: Callable[..., Any]) -> Callable[..., Any]:
    """``step`` between the hooks registered on its optimizer."""

    @functools.wraps(step)
    def hooked(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        given: tuple[Any, ...] = (self, *args)
        own = self.__dict__  # without the tables, if its class has an __init__ that does not call this one
        for hook in own.get("_optimizer_step_pre_hooks", {}).values():
            replaced = hook(self, given, kwargs)
            if replaced is None:
                continue
            if not (isinstance(replaced, tuple) and len(replaced) == 2):
                raise RuntimeError(f"{step} must return None or a tuple of (new_args, new_kwargs), but got {replaced}.")
            given, kwargs = replaced
        if graphs.underway and graphs.current() is not None:
            self._check_recorded()
        if "_opt_called" in own:  # a learning rate schedule wants to know
            self._opt_called = True
        if state.recorder is not None and "_generation" in own:
            state.recorder.guard_item(own, "_generation")
        result = step(*given, **kwargs)
        if state.recorder is not None:
            state.recorder.assume_optimizer(self)
        for hook in own.get("_optimizer_step_post_hooks", {}).values():
            hook(self, given, kwargs)
        return result

    hooked._wrapped_by_lr_sched = True  # type: ignore[attr-defined]
    return hooked


def move_counts(param: Tensor, own: dict[str, Any]) -> None:
    """Bring a parameter's counts to where it is, for a step that is compiled.

    An eager step reads them, and need not wait for the device where they are on the host; a compiled one computes with
    them, and need not bring them over. PyTorch's compiler moves them, too.
    """
    for name, value in own.items():
        if isinstance(value, Tensor) and value.ndim == 0 and value.device != param.device:
            own[name] = value.to(param.device)


def _match_param(param: Tensor, value: Any, key: Hashable = None) -> Any:
    """A loaded state value with its tensors cast and moved to where ``param`` is; the step count keeps its own."""
    if isinstance(value, Tensor):
        if key == "step":
            return value
        dtype = param.dtype if param.is_floating_point() else None
        return value.to(device=param.device, dtype=dtype)
    if isinstance(value, dict):
        return {k: _match_param(param, v, k) for k, v in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return type(value)(_match_param(param, v) for v in value)  # type: ignore[call-arg]
    return value
