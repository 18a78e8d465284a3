"""What capture refuses, said at the user's line."""

from __future__ import annotations

from graphtorch.autograd.state import state
from graphtorch.diagnostics import advice
from graphtorch.ops.dispatch import user_location


class CaptureError(RuntimeError):
    """The compiled function does something that has no place in one graph. The message says what to do instead.

    `reason` says it in one line, for calls that run eagerly instead; empty where eager execution can't help."""

    reason = ""


def refuse(what: str, instead: str, final: bool = False) -> CaptureError:
    """A CaptureError that names the user's line. `final`: running eagerly would not help."""
    where = user_location()
    message = f"{what}\n  at {where}\n  what to do: {instead}"
    error = CaptureError(message + advice(message))
    if not final:
        error.reason = f"{what}, at {where}"
        if hasattr(state.recorder, "refused"):
            state.recorder.refused = error  # the user's own handlers may catch it
    return error


class TakeApart(BaseException):
    """In one branch of a `cond` a gradient has a history, in the other it has none: the capture starts again, with
    Python's `if` for it. Not an Exception, so that the user's handlers let it pass."""


class PythonStateChange(CaptureError):
    """The function changes Python objects at each call, which a graph can't repeat. What the capture changed was put
    back."""

    def __init__(self, places: list[str]) -> None:
        super().__init__(
            f"each call changes {', '.join(places[:5])}, which a graph of operators can't repeat; return the new "
            "value, or keep it "
            "in a tensor that is changed in place"
        )
