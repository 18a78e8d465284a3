"""Controls of the compiler beside `compile` itself. See https://docs.pytorch.org/docs/stable/torch.compiler_api.html."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from graphtorch.autograd.state import state
from graphtorch.frontend.compiler import CompiledFunction, compile
from graphtorch.frontend.logs import set_logs
from graphtorch.frontend.stance import set_stance
from graphtorch.tensor.tensor import Tensor

F = TypeVar("F", bound=Callable[..., Any])


def mark_dynamic(t: Tensor, index: int | list[int] | tuple[int, ...], *, min: int | None = None,
                 max: int | None = None) -> None:  # fmt: skip
    """Say that a size of an argument will change: it is symbolic from the first compilation on.

    `index`: the dimension, or several. Bounds are accepted and not needed. Sizes 0 and 1 are compiled for themselves,
    as always. Raises IndexError for a dimension that is not there.
    """
    for i in index if isinstance(index, list | tuple) else (index,):
        dim = t._wrapped(i) % len(t.shape)
        t._dynamic_dims = (*t._dynamic_dims, dim)


maybe_mark_dynamic = mark_dynamic


def mark_static(t: Tensor, index: int | list[int] | tuple[int, ...] | None = None) -> None:
    """Say that a size of an argument (all of them without an index) stays as it is: each one is compiled for itself."""
    dims = range(len(t.shape)) if index is None else index if isinstance(index, list | tuple) else (index,)
    t._static_dims = (*t._static_dims, *(t._wrapped(i) % len(t.shape) for i in dims))


def is_compiling() -> bool:
    """Whether a function is being captured now."""
    return bool(getattr(state.recorder, "captures", state.recorder is not None))


is_dynamo_compiling = is_compiling


def reset() -> None:
    """Forget every specialisation of every compiled function."""
    for function in list(CompiledFunction.instances):
        function.reset()


def list_backends() -> list[str]:
    """The names that `compile(backend=...)` takes."""
    return ["cpu", "interpreter", "numpy", "triton"]


def allow_in_graph(function: F) -> F:
    """The function itself: every operator that it calls is captured anyway."""
    return function


def assume_constant_result(function: F) -> F:
    """A function that a capture calls once, outside of the graph, and whose result it keeps."""
    from graphtorch.autograd.state import recorder_paused

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        if state.recorder is None:
            return function(*args, **kwargs)
        with recorder_paused():
            return function(*args, **kwargs)

    return run  # type: ignore[return-value]


def disable(fn: Any = None, recursive: bool = True, *, reason: str | None = None) -> Any:
    """Keep a function out of graphs: a compiled function that calls it runs eagerly, with one warning (with
    `fullgraph=True` it raises). Of a compiled function, the function itself. See torch.compiler.disable."""
    if fn is None:
        return lambda function: disable(function, recursive, reason=reason)
    function = fn.function if isinstance(fn, CompiledFunction) else fn

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        note = getattr(state.recorder, "note_effect", None)
        if note is not None:
            why = f" ({reason})" if reason else ""
            note(f"calls {getattr(function, '__name__', 'a function')}, which is kept out of graphs{why}")
        return function(*args, **kwargs)

    return run


def is_exporting() -> bool:
    """False: `export` captures as `compile` does."""
    return False


def cudagraph_mark_step_begin() -> None:
    """Nothing: there are no CUDA graphs."""


__all__ = [
    "allow_in_graph",
    "assume_constant_result",
    "compile",
    "cudagraph_mark_step_begin",
    "disable",
    "is_compiling",
    "is_dynamo_compiling",
    "is_exporting",
    "list_backends",
    "mark_dynamic",
    "mark_static",
    "maybe_mark_dynamic",
    "reset",
    "set_logs",
    "set_stance",
]
