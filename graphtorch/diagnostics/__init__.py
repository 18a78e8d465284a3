"""What users read when something went wrong: numbered errors, short tracebacks, logs. See docs/errors.

Importing this package installs the printer of uncaught errors; the catalogue loads when the first one occurs.
"""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import Any


def install() -> None:
    """Print uncaught errors with their number and without this package's frames."""
    before = sys.excepthook
    if getattr(before, "_graphtorch", False):
        return

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        try:
            from graphtorch.diagnostics.report import prepare

            error.__traceback__ = traceback
            prepare(error)
            traceback = error.__traceback__
        finally:
            before(kind, error, traceback)

    hook._graphtorch = True  # type: ignore[attr-defined]
    sys.excepthook = hook
    in_thread = threading.excepthook

    def thread_hook(given: Any) -> None:
        try:
            if given.exc_value is not None and given.exc_type is not SystemExit:
                from graphtorch.diagnostics.report import prepare

                given.exc_value.__traceback__ = given.exc_traceback
                prepare(given.exc_value)
                error = given.exc_value
                given = threading.ExceptHookArgs((given.exc_type, error, error.__traceback__, given.thread))
        finally:
            in_thread(given)

    threading.excepthook = thread_hook
    install_in_ipython()


def install_in_ipython() -> None:
    """The same in IPython and notebooks, which print errors themselves. Nothing elsewhere."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is None or getattr(shell, "_graphtorch", False):
        return

    def show(
        shell: Any, kind: Any, error: BaseException, traceback: TracebackType | None, tb_offset: Any = None
    ) -> None:
        try:
            from graphtorch.diagnostics.report import prepare

            error.__traceback__ = traceback
            prepare(error)
            traceback = error.__traceback__
        finally:
            shell.showtraceback((kind, error, traceback), tb_offset=tb_offset)

    shell.set_custom_exc((Exception,), show)
    shell._graphtorch = True


def advice(message: str) -> str:
    """The lines that go below an error's message: number, fix and page; "" for an error that the catalogue lacks."""
    from graphtorch.diagnostics.report import advice as made

    return made(message)


def code_of(error: BaseException) -> str:
    """The number of an error, such as "GT002"; "" for one that the catalogue lacks."""
    from graphtorch.diagnostics.report import entry_of

    entry = entry_of(error)
    return "" if entry is None else entry.code


def explain(error: BaseException) -> Any:
    """The catalogue's entry for an error (number, title, cause, fix), or None."""
    from graphtorch.diagnostics.report import entry_of

    return entry_of(error)


__all__ = ["advice", "code_of", "explain", "install", "install_in_ipython"]
