"""Context managers and decorators that switch recording on the tape. See
https://docs.pytorch.org/docs/stable/notes/autograd.html."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from graphtorch.autograd.state import state

F = TypeVar("F", bound=Callable[..., Any])


def _each_step(function: F, mode: Callable[[], Any]) -> F:
    """A generator function whose body runs in a mode, and its caller, between the steps, outside of it."""

    @functools.wraps(function)
    def stepped(*args: Any, **kwargs: Any) -> Any:
        steps = function(*args, **kwargs)
        resume, given = steps.send, None
        try:
            while True:
                with mode():
                    made = resume(given)
                try:
                    given = yield made
                    resume = steps.send
                except BaseException as error:
                    resume, given = steps.throw, error
        except StopIteration as end:
            return end.value

    return stepped  # type: ignore[return-value]


class _GradMode:
    """Sets the gradient mode for a block or a decorated function; re-entrant."""

    def __init__(self, mode: bool) -> None:
        self.mode = mode
        self._previous: list[bool] = []

    def __enter__(self) -> None:
        self._previous.append(state.grad_enabled)
        state.grad_enabled = self.mode and not state.inference

    def __exit__(self, *exception: object) -> None:
        state.grad_enabled = self._previous.pop()

    def __call__(self, function: F) -> F:
        mode = self.mode
        if inspect.isgeneratorfunction(function):
            return _each_step(function, lambda: _GradMode(mode))

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with _GradMode(mode):
                return function(*args, **kwargs)

        return wrapped  # type: ignore[return-value]


class no_grad(_GradMode):
    """Results inside do not require grad."""

    def __new__(cls, function: Any = None) -> Any:
        made = object.__new__(cls)
        if function is not None:
            made.mode = False
            made._previous = []
            return _GradMode.__call__(made, function)
        return made

    def __init__(self, function: Any = None) -> None:
        super().__init__(False)


class enable_grad(_GradMode):
    """Recording is on inside, also within `no_grad`."""

    def __new__(cls, function: Any = None) -> Any:
        made = object.__new__(cls)
        if function is not None:
            made.mode = True
            made._previous = []
            return _GradMode.__call__(made, function)
        return made

    def __init__(self, function: Any = None) -> None:
        super().__init__(True)


class set_grad_enabled(_GradMode):
    """Sets the mode at once; as a context manager, restores it at the end."""

    def __init__(self, mode: bool) -> None:
        super().__init__(bool(mode))
        self._outer = state.grad_enabled
        state.grad_enabled = bool(mode)

    def __enter__(self) -> None:
        self._previous.append(self._outer)
        state.grad_enabled = self.mode

    def __call__(self, function: F) -> F:
        state.grad_enabled = self._outer
        return super().__call__(function)


class inference_mode:
    """As no_grad, and what is made inside is an inference tensor: autograd can't save it later, and only code in
    inference mode may change it. A context manager and decorator. See torch.inference_mode."""

    def __new__(cls, mode: Any = True) -> Any:
        made = object.__new__(cls)
        if isinstance(mode, bool):
            return made
        made.mode = True
        made._previous = []
        return made(mode)

    def __init__(self, mode: bool = True) -> None:
        self.mode = mode
        self._previous: list[tuple[bool, bool]] = []

    def __enter__(self) -> None:
        self._previous.append((state.inference, state.grad_enabled))
        state.inference = self.mode
        state.grad_enabled = not self.mode

    def __exit__(self, *exception: object) -> None:
        state.inference, state.grad_enabled = self._previous.pop()

    def __call__(self, function: F) -> F:
        mode = self.mode
        if inspect.isgeneratorfunction(function):
            return _each_step(function, lambda: inference_mode(mode))

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with inference_mode(mode):
                return function(*args, **kwargs)

        return wrapped  # type: ignore[return-value]


class set_multithreading_enabled:
    """Sets at once, or for a block, whether backward passes may use several threads. Here one thread walks the tape in
    either mode, and operators bring their own. See torch.autograd.grad_mode.set_multithreading_enabled."""

    def __init__(self, mode: bool) -> None:
        self.mode = bool(mode)
        self._outer = state.multithreading
        state.multithreading = self.mode

    def __enter__(self) -> None: ...

    def __exit__(self, *exception: object) -> None:
        state.multithreading = self._outer

    def __call__(self, function: F) -> F:
        state.multithreading = self._outer
        mode = self.mode

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with set_multithreading_enabled(mode):
                return function(*args, **kwargs)

        return wrapped  # type: ignore[return-value]


def is_inference_mode_enabled() -> bool:
    """Whether this thread is in inference mode."""
    return state.inference


def is_grad_enabled() -> bool:
    """Whether results may require grad now, in this thread."""
    return state.grad_enabled


class set_detect_anomaly:
    """Report the forward call of a backward step that fails or gives NaN. See torch.autograd.set_detect_anomaly."""

    def __init__(self, mode: bool, check_nan: bool = True) -> None:
        self._previous = state.anomaly
        state.anomaly = mode

    def __enter__(self) -> None: ...

    def __exit__(self, *exception: object) -> None:
        state.anomaly = self._previous


def is_anomaly_enabled() -> bool:
    """Whether backward passes are checked, in this thread. See torch.is_anomaly_enabled."""
    return state.anomaly


class detect_anomaly(set_detect_anomaly):
    """The context manager form of `set_detect_anomaly(True)`."""

    def __init__(self, check_nan: bool = True) -> None:
        super().__init__(True, check_nan)
