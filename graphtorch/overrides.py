"""`__torch_function__` for functions of libraries and programs: those that ask their arguments for it.

The operators of this package ask operands that are no tensors; subclasses of Tensor are not asked.
See https://docs.pytorch.org/docs/stable/torch.overrides.html."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from graphtorch.tensor.tensor import Tensor

__all__ = ["handle_torch_function", "has_torch_function", "is_tensor_like", "wrap_torch_function"]

F = TypeVar("F", bound=Callable[..., Any])


def is_tensor_like(inp: Any) -> bool:
    """Whether this is a tensor, or an object whose class has `__torch_function__`."""
    return isinstance(inp, Tensor) or hasattr(type(inp), "__torch_function__")


def has_torch_function(relevant_args: Iterable[Any]) -> bool:
    """Whether one of these objects' classes has `__torch_function__`."""
    return any(hasattr(type(arg), "__torch_function__") for arg in relevant_args)


def _overloaded(relevant_args: Iterable[Any]) -> list[Any]:
    """One object of each class that overrides, and of tensors, in the order in which they are asked: subclasses
    first."""
    found: list[Any] = []
    for arg in relevant_args:
        kind = type(arg)
        known = kind is Tensor or hasattr(kind, "__torch_function__")
        if known and all(type(other) is not kind for other in found):
            place = next((i for i, other in enumerate(found) if issubclass(kind, type(other))), len(found))
            found.insert(place, arg)
    return found


def handle_torch_function(
    public_api: Callable[..., Any], relevant_args: Iterable[Any], *args: Any, **kwargs: Any
) -> Any:
    """What the first `__torch_function__` of the arguments' classes makes of a call.

    Raises TypeError if each of them returns NotImplemented."""
    overloaded = _overloaded(relevant_args)
    types = tuple(map(type, overloaded))
    for arg in overloaded:
        if type(arg) is Tensor:
            continue  # leaves the call to the others
        method = arg.__torch_function__
        if getattr(method, "__self__", None) is arg:
            warnings.warn(
                "Defining your `__torch_function__ as a plain method is deprecated and will be an error in future, "
                "please define it as a classmethod.",
                DeprecationWarning,
                stacklevel=2,
            )
        result = method(public_api, types, args, kwargs)
        if result is not NotImplemented:
            return result
    raise TypeError(
        f"no implementation found for '{public_api.__module__}.{public_api.__name__}' on types that implement "
        f"__torch_function__: {list(types)}"
    )


def wrap_torch_function(dispatcher: Callable[..., Sequence[Any]]) -> Callable[[F], F]:
    """Decorate a function so that it asks the arguments that `dispatcher(*args, **kwargs)` names."""

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Mapping[str, Any]) -> Any:
            relevant = dispatcher(*args, **kwargs)
            if has_torch_function(relevant):
                return handle_torch_function(wrapped, relevant, *args, **kwargs)
            return function(*args, **kwargs)

        return wrapped  # type: ignore[return-value]

    return decorate
