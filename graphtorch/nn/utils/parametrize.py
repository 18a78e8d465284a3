"""Parametrizations: parameters that are computed from others by modules each time they are read.

A parametrized module gets a class of its own, a subclass of the one it had, whose property of the parameter's name
computes it from ``module.parametrizations.<name>``.
See https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.parametrize.register_parametrization.html
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from graphtorch.autograd.grad_mode import no_grad
from graphtorch.autograd.state import state
from graphtorch.nn.modules.container import ModuleDict, ModuleList
from graphtorch.nn.modules.module import Module
from graphtorch.nn.parameter import Parameter
from graphtorch.tensor.tensor import Tensor

__all__ = [
    "ParametrizationList", "cached", "is_parametrized", "register_parametrization", "remove_parametrizations",
    "transfer_parametrizations_and_params", "type_before_parametrizations",
]  # fmt: skip


class _Cache:
    """Computed tensors by (module's id, name), while at least one :func:`cached` block is open."""

    def __init__(self) -> None:
        self.open = 0
        self.tensors: dict[tuple[int, str], Tensor] = {}


_cache = _Cache()


@contextmanager
def cached() -> Iterator[None]:
    """Compute each parametrized tensor once within this block; worth it where it is read several times."""
    _cache.open += 1
    try:
        yield
    finally:
        _cache.open -= 1
        if not _cache.open:
            _cache.tensors.clear()


def _register(module: Module, name: str, tensor: Tensor | None) -> None:
    if isinstance(tensor, Parameter):
        module.register_parameter(name, tensor)
    else:
        module.register_buffer(name, tensor)


class ParametrizationList(ModuleList):
    """The parametrizations of one tensor, and what it is computed from: ``original``, or ``original0, original1, ...``.

    Raises:
        ValueError: there are no modules, or their results are no tensors of the original's dtype and shape.
    """

    original: Tensor

    def __init__(self, modules: Sequence[Module], original: Tensor, unsafe: bool = False) -> None:
        if len(modules) == 0:
            raise ValueError("ParametrizationList requires one or more modules.")
        super().__init__(modules)
        self.unsafe = unsafe
        shape, dtype = original.shape, original.dtype
        new: Any = original
        with no_grad():
            for module in reversed(list(self)):
                if hasattr(module, "right_inverse"):
                    try:
                        new = module.right_inverse(new)
                    except NotImplementedError:
                        continue
        if not isinstance(new, Tensor | Sequence):
            raise ValueError(
                "'right_inverse' must return a Tensor or a Sequence of tensors (list, tuple...). Got "
                f"{type(new).__name__}"
            )
        self.is_tensor = isinstance(new, Tensor)
        self.ntensors = 1 if self.is_tensor else len(new)
        if isinstance(new, Tensor):
            for kind in ("dtype", "device"):
                if getattr(original, kind) != getattr(new, kind):
                    raise ValueError(
                        f"When `right_inverse` outputs one tensor, it may not change the {kind}.\n"
                        f"original.{kind}: {getattr(original, kind)}\n"
                        f"right_inverse(original).{kind}: {getattr(new, kind)}"
                    )
            original.data = new
            _register(self, "original", original)
        else:
            for i, part in enumerate(new):
                if not isinstance(part, Tensor):
                    raise ValueError(
                        "'right_inverse' must return a Tensor or a Sequence of tensors (list, tuple...). Got element "
                        f"{i} of the sequence with type {type(part).__name__}."
                    )
                if isinstance(original, Parameter):
                    part = Parameter(part.detach(), original.requires_grad)
                _register(self, f"original{i}", part)
        if not unsafe:
            _check_result("Registering a parametrization", "unparametrized", dtype, shape, "parametrized", self())

    def right_inverse(self, value: Any) -> None:
        """Assign ``value``: what it is computed from becomes what the modules' ``right_inverse`` make of it.

        Raises:
            RuntimeError: a module has no ``right_inverse``.
            ValueError: the results do not fit.
        """
        with no_grad():
            for module in reversed(list(self)):
                if not hasattr(module, "right_inverse"):
                    raise RuntimeError(f"parametrization {type(module).__name__} does not implement right_inverse.")
                value = module.right_inverse(value)
            if self.is_tensor:
                if not isinstance(value, Tensor):
                    raise ValueError(f"`right_inverse` should return a tensor. Got {type(value).__name__}")
                parts = {"original": value}
            else:
                if not isinstance(value, Sequence):
                    raise ValueError(f"'right_inverse' must return a sequence of tensors. Got {type(value).__name__}.")
                if len(value) != self.ntensors:
                    raise ValueError(
                        f"'right_inverse' must return a sequence of tensors of length {self.ntensors}. Got a sequence "
                        f"of length {len(value)}."
                    )
                parts = {f"original{i}": part for i, part in enumerate(value)}
            for name, part in parts.items():
                own = getattr(self, name)
                if part.dtype != own.dtype:
                    raise ValueError(
                        f"The tensor returned by `right_inverse` has dtype {part.dtype} while `{name}` has dtype "
                        f"{own.dtype}"
                    )
                own.data = part

    def forward(self) -> Tensor:
        """Compute the tensor."""
        first, *rest = list(self)
        if self.is_tensor:
            x = first(self.original)
        else:
            x = first(*(getattr(self, f"original{i}") for i in range(self.ntensors)))
        for module in rest:
            x = module(x)
        return x


def _check_result(doing: str, before: str, dtype: Any, shape: Any, after: str, result: Any) -> None:
    if not isinstance(result, Tensor):
        raise ValueError(f"A parametrization must return a tensor. Got {type(result).__name__}.")
    for kind, expected in (("dtype", dtype), ("shape", shape)):
        if getattr(result, kind) != expected:
            raise ValueError(
                f"{doing} may not change the {kind} of the tensor, unless `unsafe` flag is enabled.\n"
                f"{before} {kind}: {expected}\n{after} {kind}: {getattr(result, kind)}"
            )


def _deepcopy(self: Module, memo: dict[int, Any]) -> Module:
    """A copy without going through ``__getstate__``, which refuses."""
    found: Module | None = memo.get(id(self))
    if found is not None:
        return found
    # A class of its own again: removing a parametrization deletes its property from the class.
    cls = type(self)
    own = {name: value for name, value in vars(cls).items() if name not in ("__dict__", "__weakref__")}
    replica: Module = self.__new__(type(cls.__name__, cls.__bases__, own))
    memo[id(self)] = replica
    replica.__dict__.update(deepcopy(self.__dict__, memo))
    return replica


def _refuse_pickling(self: Module) -> Any:
    raise RuntimeError(
        "Serialization of parametrized modules is only supported through state_dict(). See:\n"
        "https://pytorch.org/tutorials/beginner/saving_loading_models.html"
        "#saving-loading-a-general-checkpoint-for-inference-and-or-resuming-training"
    )


def _inject_class(module: Module) -> None:
    """Give ``module`` a class of its own, for properties that are its alone."""
    own: dict[str, Any] = {"__getstate__": _refuse_pickling}
    if not hasattr(type(module), "__deepcopy__"):
        own["__deepcopy__"] = _deepcopy
    module.__class__ = type(f"Parametrized{type(module).__name__}", (type(module),), own)


def _inject_property(module: Module, name: str) -> None:
    def compute(self: Module) -> Tensor:
        parametrization = self.parametrizations[name]
        # What is computed while capturing belongs to that graph alone.
        if not _cache.open or state.recorder is not None:
            return parametrization()
        key = (id(self), name)
        if key not in _cache.tensors:
            _cache.tensors[key] = parametrization()
        return _cache.tensors[key]

    def assign(self: Module, value: Tensor) -> None:
        self.parametrizations[name].right_inverse(value)

    setattr(type(module), name, property(compute, assign))


def register_parametrization(
    module: Module, tensor_name: str, parametrization: Module, *, unsafe: bool = False
) -> Module:
    """Compute ``module.<tensor_name>`` as ``parametrization(original)`` from now on; a second one is put on top.

    If ``parametrization`` has a method ``right_inverse``, the original becomes its result of the present value, and the
    tensor can be assigned to. A sequence of tensors is given to ``parametrization`` as arguments.

    Args:
        unsafe: skip the checks that dtype and shape stay the same.

    Returns:
        the module.

    Raises:
        ValueError: there is no such parameter or buffer, or dtype or shape would change.
    """
    parametrization.train(module.training)
    if is_parametrized(module, tensor_name):
        if not unsafe:
            before = getattr(module, tensor_name)
            after = parametrization(before)
            _check_result(
                "Registering a parametrization",
                f"module.{tensor_name}",
                before.dtype,
                before.shape,
                f"parametrization(module.{tensor_name})",
                after,
            )
        module.parametrizations[tensor_name].append(parametrization)
        module.parametrizations[tensor_name].unsafe |= unsafe
    elif tensor_name in module._buffers or tensor_name in module._parameters:
        original = getattr(module, tensor_name)
        parametrizations = ParametrizationList([parametrization], original, unsafe=unsafe)
        delattr(module, tensor_name)
        if not is_parametrized(module):
            _inject_class(module)
            module.parametrizations = ModuleDict()
        _inject_property(module, tensor_name)
        module.parametrizations[tensor_name] = parametrizations
    else:
        raise ValueError(
            f"Module '{module}' does not have a parameter, a buffer, or a parametrized element with name "
            f"'{tensor_name}'"
        )
    return module


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether ``module`` has parametrized tensors, or one of that name."""
    found = module._modules.get("parametrizations")
    if not isinstance(found, ModuleDict):
        return False
    return len(found) > 0 if tensor_name is None else tensor_name in found


def remove_parametrizations(module: Module, tensor_name: str, leave_parametrized: bool = True) -> Module:
    """Make ``module.<tensor_name>`` an ordinary parameter or buffer again.

    Args:
        leave_parametrized: keep the computed value, rather than the original.

    Raises:
        ValueError: it is not parametrized, or there is no single original to go back to.
    """
    if not is_parametrized(module, tensor_name):
        raise ValueError(f"Module {module} does not have a parametrization on {tensor_name}")
    parametrizations = module.parametrizations[tensor_name]
    if parametrizations.is_tensor:
        original: Tensor = parametrizations.original
        if leave_parametrized:
            with no_grad():
                original.data = getattr(module, tensor_name)
    elif leave_parametrized:
        value = getattr(module, tensor_name)
        original = Parameter(value.detach()) if value.requires_grad else value
    else:
        raise ValueError(
            "Cannot leave unparametrized (`leave_parametrized=False`) a tensor that is parametrized in terms of a "
            "sequence of tensors."
        )
    delattr(type(module), tensor_name)
    del module.parametrizations[tensor_name]
    _register(module, tensor_name, original)
    if not is_parametrized(module):
        del module.parametrizations
        module.__class__ = type(module).__bases__[0]
    return module


def type_before_parametrizations(module: Module) -> type:
    """The class that the module had, or has if it is not parametrized."""
    return type(module).__bases__[0] if is_parametrized(module) else type(module)


def transfer_parametrizations_and_params(
    from_module: Module, to_module: Module, tensor_name: str | None = None
) -> Module:
    """Parametrize ``to_module`` as ``from_module`` is, sharing modules and originals; of one tensor if it is named."""
    if not is_parametrized(from_module):
        return to_module
    for name in list(from_module.parametrizations) if tensor_name is None else [tensor_name]:
        source = from_module.parametrizations[name]
        if not hasattr(to_module, name):
            setattr(to_module, name, Parameter(getattr(from_module, name).detach()))
        for parametrization in source:
            register_parametrization(to_module, name, parametrization)
        target = to_module.parametrizations[name]
        for own in ["original"] if source.is_tensor else [f"original{i}" for i in range(source.ntensors)]:
            setattr(target, own, getattr(source, own))
    return to_module
