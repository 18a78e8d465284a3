"""What capture refuses, said at the user's line."""

from __future__ import annotations

from graphtorch.diagnostics import advice
from graphtorch.ops.dispatch import user_location


class CaptureError(RuntimeError):
    """The compiled function does something that has no place in one graph. The message says what to do instead."""


def refuse(what: str, instead: str) -> CaptureError:
    """A CaptureError that names the user's line."""
    message = f"{what}\n  at {user_location()}\n  what to do: {instead}"
    return CaptureError(message + advice(message))


class PythonStateChange(CaptureError):
    """The function changes Python objects at each call, which a graph can't repeat. What the capture changed was put
    back."""

    def __init__(self, places: list[str]) -> None:
        super().__init__(
            f"each call changes {', '.join(places[:5])}, which a graph of operators can't repeat; return the new "
            "value, or keep it "
            "in a tensor that is changed in place"
        )
