"""The stance that compiled functions take for a while: compile as needed, or not. See torch.compiler.set_stance."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

NAMES = ("default", "force_eager", "eager_on_recompile", "fail_on_recompile", "eager_then_compile")


class Stance(NamedTuple):
    """What compiled functions do now."""

    name: str = "default"
    backend: str | None = None  # for functions that name another


DEFAULT = Stance()


class _Holder:
    """The current stance, which every call of a compiled function looks at."""

    __slots__ = ("current",)

    def __init__(self) -> None:
        self.current = DEFAULT


holder = _Holder()


class set_stance:
    """Say how compiled functions behave from now on, inside a `with`, or in a decorated function.

    "default"             compile as needed
    "force_eager"         run the functions themselves
    "eager_on_recompile"  use what is compiled; calls that fit nothing run eagerly
    "fail_on_recompile"   use what is compiled; calls that fit nothing raise RuntimeError
    "eager_then_compile"  a function's first call runs eagerly, later ones as usual

    `force_backend`: compile for this backend, whatever functions say; with "default" only. Raises RuntimeError for
    another stance, or inside of a compiled function."""

    def __init__(
        self, stance: str = "default", *, skip_guard_eval_unsafe: bool = False, force_backend: str | None = None
    ) -> None:
        from graphtorch.autograd.state import state

        if stance not in NAMES:
            raise RuntimeError(f"invalid torch.compile stance {stance!r}: expected one of {', '.join(NAMES)}")
        if force_backend is not None and stance != "default":
            raise RuntimeError("force_backend cannot be set with a non-default stance")
        if getattr(state.recorder, "captures", state.recorder is not None):
            raise RuntimeError("Attempt to set the stance inside of a compiled function")
        self.stance = Stance(stance, force_backend)
        self.previous = holder.current
        holder.current = self.stance

    def __enter__(self) -> set_stance:
        holder.current = self.stance
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        holder.current = self.previous

    def __call__(self, function: F) -> F:
        """The function, under this stance while it runs; it is not set for others."""
        holder.current = self.previous

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            outer, holder.current = holder.current, self.stance
            try:
                return function(*args, **kwargs)
            finally:
                holder.current = outer

        return run  # type: ignore[return-value]


__all__ = ["set_stance"]
