"""Writing a module's tensors to a state dict and reading them back."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from graphtorch.autograd.grad_mode import no_grad
from graphtorch.nn.parameter import Parameter, is_lazy
from graphtorch.tensor.tensor import Tensor

if TYPE_CHECKING:
    from graphtorch.nn.modules.module import Module

EXTRA_STATE_KEY = "_extra_state"


class _IncompatibleKeys(NamedTuple):
    """What ``load_state_dict`` returns: the keys that were missing and those nobody expected."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"_IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"

    def __str__(self) -> str:
        return repr(self)


def new_state_dict(entries: Any = (), metadata: Any = ()) -> Any:
    """A state dict; its attribute ``_metadata`` maps each module's path to the version of its layout.

    A plain OrderedDict, as in PyTorch: that is what it prints as and what a checkpoint stores.
    """
    made: Any = OrderedDict(entries)
    made._metadata = OrderedDict(metadata)
    return made


def save_own(module: Module, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
    """Put the parameters, persistent buffers and extra state of ``module`` itself into ``destination``."""
    for name, parameter in module._parameters.items():
        if parameter is not None:
            destination[prefix + name] = parameter if keep_vars or is_lazy(parameter) else parameter.detach()
    for name, buffer in module._buffers.items():
        if buffer is not None and name not in module._non_persistent_buffers_set:
            destination[prefix + name] = buffer if keep_vars or is_lazy(buffer) else buffer.detach()
    if _overrides(module, "get_extra_state"):
        destination[prefix + EXTRA_STATE_KEY] = module.get_extra_state()


def load_own(
    module: Module,
    state_dict: Mapping[str, Any],
    prefix: str,
    assign: bool,
    missing_keys: list[str],
    unexpected_keys: list[str],
    error_msgs: list[str],
) -> None:
    """Copy (or, with ``assign``, put in place) the entries under ``prefix`` that belong to ``module`` itself."""
    tensors: dict[str, Tensor] = {k: p for k, p in module._parameters.items() if p is not None}
    for name, buffer in module._buffers.items():
        if buffer is not None and name not in module._non_persistent_buffers_set:
            tensors[name] = buffer
    for name, tensor in tensors.items():
        key = prefix + name
        if key in state_dict:
            error = _load_one(module, name, key, tensor, state_dict[key], assign)
            if error is not None:
                error_msgs.append(error)
        else:
            missing_keys.append(key)

    extra_key = prefix + EXTRA_STATE_KEY
    if _overrides(module, "set_extra_state"):
        if extra_key in state_dict:
            module.set_extra_state(state_dict[extra_key])
        else:
            missing_keys.append(extra_key)
    elif extra_key in state_dict:
        unexpected_keys.append(extra_key)

    for key in state_dict:
        if not key.startswith(prefix) or key == extra_key:
            continue
        head, dot, _ = key[len(prefix) :].partition(".")
        if head not in (module._modules if dot else tensors):
            unexpected_keys.append(key)


def _load_one(module: Module, name: str, key: str, tensor: Tensor, value: Any, assign: bool) -> str | None:
    """Load one entry; return what went wrong, if anything."""
    if not isinstance(value, Tensor):
        return (
            f'While copying the parameter named "{key}", expected torch.Tensor or Tensor-like object from checkpoint '
            f"but received {type(value)}"
        )
    if is_lazy(tensor) and is_lazy(value):
        return None
    if is_lazy(tensor):
        with no_grad():
            tensor.materialize(value.shape)
    if tensor.dim() == 0 and tuple(value.shape) == (1,):
        value = value[0]  # checkpoints of early versions stored scalars as one-element vectors
    if value.shape != tensor.shape:
        return (
            f"size mismatch for {key}: copying a param with shape {value.shape} from checkpoint, "
            f"the shape in current model is {tensor.shape}."
        )
    try:
        with no_grad():
            if not assign:
                tensor.copy_(value)
            elif isinstance(tensor, Parameter):
                if isinstance(value, Parameter):
                    value.requires_grad_(tensor.requires_grad)
                else:
                    value = Parameter(value, requires_grad=tensor.requires_grad)
                setattr(module, name, value)
            else:
                setattr(module, name, value)
    except Exception as error:
        return (
            f'While copying the parameter named "{key}", whose dimensions in the model are {tensor.size()} and whose '
            f"dimensions in the checkpoint are {value.size()}, an exception occurred : {error.args}."
        )
    return None


def load(module: Module, state_dict: Mapping[str, Any], strict: bool, assign: bool) -> _IncompatibleKeys:
    """Load ``state_dict`` into ``module`` and all below it.

    Raises:
        TypeError: ``state_dict`` is not a mapping.
        RuntimeError: a shape differs, or with ``strict`` the keys differ; the message lists everything at once.
    """
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
    metadata: dict[str, dict[str, Any]] | None = getattr(state_dict, "_metadata", None)
    # A shallow copy: loading hooks may rename keys.
    entries = new_state_dict(state_dict, metadata or ())
    keys = _IncompatibleKeys([], [])
    errors: list[str] = []

    def visit(current: Module, prefix: str, entries: dict[str, Any]) -> None:
        local = dict((metadata or {}).get(prefix[:-1], {}))
        if assign:
            local["assign_to_params_buffers"] = True
        current._load_from_state_dict(entries, prefix, local, True, keys.missing_keys, keys.unexpected_keys, errors)
        for name, child in current._modules.items():
            if child is not None:
                below = f"{prefix}{name}."
                visit(child, below, {k: v for k, v in entries.items() if k.startswith(below)})
        for hook in current._load_state_dict_post_hooks.values():
            if hook(current, keys) is not None:
                raise AssertionError(
                    "Hooks registered with ``register_load_state_dict_post_hook`` are not expected to return new "
                    "values, if incompatible_keys need to be modified, it should be done inplace."
                )

    visit(module, "", entries)
    if strict:
        for title, names in (("Unexpected", keys.unexpected_keys), ("Missing", keys.missing_keys)):
            if names:
                listing = ", ".join(f'"{name}"' for name in names)
                errors.insert(0, f"{title} key(s) in state_dict: {listing}. ")
    if errors:
        details = "\n\t".join(errors)
        raise RuntimeError(f"Error(s) in loading state_dict for {type(module).__name__}:\n\t{details}")
    return keys


def _overrides(module: Module, method: str) -> bool:
    from graphtorch.nn.modules.module import Module as Base

    return getattr(type(module), method) is not getattr(Base, method)
