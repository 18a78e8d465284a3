"""Values that are set later, possibly by another thread: `torch.futures`.

See https://docs.pytorch.org/docs/stable/futures.html"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")
S = TypeVar("S")

__all__ = ["Future", "collect_all", "wait_all"]


class Future(Generic[T]):
    """A value or an exception, once. `devices` is accepted: there is nothing to synchronize with."""

    def __init__(self, *, devices: Any = None) -> None:
        self._changed = threading.Condition()
        self._done = False
        self._value: Any = None
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[Future[T]], Any]] = []

    def done(self) -> bool:
        """Whether there is a value or an exception."""
        return self._done

    def wait(self) -> T:
        """Wait for the value; raise the exception if there is one."""
        with self._changed:
            self._changed.wait_for(lambda: self._done)
        return self.value()

    def value(self) -> T:
        """The value; raises the exception if there is one, RuntimeError if it is too early."""
        if not self._done:
            raise RuntimeError("completed()INTERNAL ASSERT FAILED: value() was called on a future that is not done")
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[no-any-return]

    def then(self, callback: Callable[[Future[T]], S]) -> Future[S]:
        """A future of what `callback(self)` returns, which is called when this one is done."""
        following: Future[S] = Future()

        def run(done: Future[T]) -> None:
            try:
                made = callback(done)
            except Exception as error:
                name = type(error).__name__
                failure = RuntimeError(f"Got the following error when running the callback: {name}: {error}")
                failure.__cause__ = error
                following.set_exception(failure)
            else:
                following.set_result(made)

        self.add_done_callback(run)
        return following

    def add_done_callback(self, callback: Callable[[Future[T]], None]) -> None:
        """Call `callback(self)` when this is done: now, if it is."""
        with self._changed:
            if not self._done:
                self._callbacks.append(callback)
                return
        callback(self)

    def _finish(self, value: Any, error: BaseException | None) -> None:
        with self._changed:
            if self._done:
                raise RuntimeError(
                    "Future can only be marked completed once. Please make sure set_result() or set_exception() is "
                    "not called twice."
                )
            self._value, self._error, self._done = value, error, True
            callbacks, self._callbacks = self._callbacks, []
            self._changed.notify_all()
        for callback in callbacks:
            callback(self)

    def set_result(self, result: T) -> None:
        """Be done with a value. Raises RuntimeError the second time."""
        self._finish(result, None)

    def set_exception(self, result: BaseException) -> None:
        """Be done with an exception. Raises RuntimeError the second time, AssertionError for what is none."""
        if not isinstance(result, Exception):
            raise AssertionError(f"{result} is of type {type(result)}, not an Exception.")
        self._finish(None, result)


def collect_all(futures: list[Future[Any]]) -> Future[list[Future[Any]]]:
    """A future of the list, done when all of them are; it has the exception of the first that has one."""
    collected: Future[list[Future[Any]]] = Future()
    waiting = len(futures)
    lock = threading.Lock()

    def one(done: Future[Any]) -> None:
        nonlocal waiting
        with lock:
            waiting -= 1
            last = waiting == 0
        if last:
            collected.set_result(futures)

    if not futures:
        collected.set_result(futures)
    for future in futures:
        future.add_done_callback(one)
    return collected


def wait_all(futures: list[Future[Any]]) -> list[Any]:
    """The values of all; raises the first exception among them."""
    return [future.wait() for future in collect_all(futures).wait()]
